"""``ppl-buffer evidence`` and ``ppl-buffer compare``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ppl_buffer.datasets import TrialData
from ppl_buffer.findings import counted
from ppl_buffer.inference import comparison
from ppl_buffer.inference.evidence import log_evidence
from ppl_buffer.inference.random_effects import RandomEffects, checked_families, random_effects
from ppl_buffer.network.lapses import Lapse
from ppl_buffer.network.network import Network
from ppl_buffer.schema import stack_value
from ppl_buffer.workflow.cli.errors import check_folder, plain_errors
from ppl_buffer.workflow.cli.fixed import (
    FixOfModel,
    FixOfModels,
    Models,
    read_fixed_models,
    read_fixed_values,
    read_models,
)
from ppl_buffer.workflow.cli.options import (
    Columns,
    Deadline,
    LapseRange,
    LapseRate,
    Likelihood,
    MissingCodes,
    Model,
    Orders,
    Out,
    Outside,
    ParameterDraws,
    Progress,
    Recode,
    Scale,
    Seed,
    Session,
    Signed,
    SimulatorOption,
    Subject,
    Table,
    TrialOrder,
    Where,
    Withheld,
    read_lapse,
    said,
)
from ppl_buffer.workflow.cli.simulators import simulator_of
from ppl_buffer.workflow.cli.tables import TableOptions, write_rows


def evidence(
    table: Table,
    model: Model,
    subject: Subject = "subject",
    session: Session = None,
    where: Where = None,
    order: TrialOrder = None,
    columns: Columns = "",
    out: Out = Path("evidence"),
    recode: Recode = None,
    scale: Scale = None,
    signed: Signed = "",
    outside: Outside = "error",
    missing: MissingCodes = None,
    deadline: Deadline = None,
    withheld: Withheld = "",
    fix: FixOfModel = None,
    lapse: LapseRate = None,
    lapse_range: LapseRange = None,
    method: Annotated[str, typer.Option(help="importance or autoregressive.")] = "importance",
    orders: Orders = 128,
    draws: ParameterDraws = 2000,
    likelihood: Likelihood = "auto",
    simulator: SimulatorOption = None,
    seed: Seed = 0,
    progress: Progress = True,
) -> None:
    """Log evidence of each person's trials under a model."""
    with plain_errors():
        import pandas

        check_folder(out)
        options = TableOptions(
            subject, order, columns, recode, scale, signed, outside, session, where, missing, deadline, withheld
        )
        net = options.load(model, likelihood)
        task, fixed = simulator_of(net, simulator), read_fixed_values(fix or [], net)
        trials = options.read(table, net, task)
        lapses = _lapses(lapse, lapse_range, net, trials)
        result = log_evidence(
            net,
            trials.inputs,
            stack_value(np, net.schema, trials.outcomes),
            feedback=trials.feedback,
            trial_mask=trials.trial_mask,
            missing=trials.missing,
            method=method,
            params=fixed,
            lapse=lapses,
            orders=orders,
            draws=draws,
            seed=seed,
            progress=progress,
        )
        rows = pandas.DataFrame(
            {
                "subject": trials.subjects,
                "trials": trials.trial_counts,
                "log_evidence": result.log_evidence,
                "standard_error": result.standard_error,
            }
        )
        out.mkdir(parents=True, exist_ok=True)
        write_rows(rows, out / "evidence.csv")
        result.plot().figure.savefig(out / "evidence.png", dpi=130)
    error = float(np.sqrt((result.standard_error**2).sum()))
    typer.echo(rows.to_string(index=False, float_format=lambda x: f"{x:.2f}"))
    typer.echo(f"Sum over people: {result.log_evidence.sum():.2f} nats (Monte-Carlo standard error {error:.2f}).")
    typer.echo(f"Written to {out}/: evidence.csv, evidence.png.")


def compare(
    table: Table,
    model: Models,
    subject: Subject = "subject",
    session: Session = None,
    where: Where = None,
    order: TrialOrder = None,
    columns: Columns = "",
    out: Out = Path("comparison"),
    recode: Recode = None,
    scale: Scale = None,
    signed: Signed = "",
    outside: Outside = "error",
    missing: MissingCodes = None,
    deadline: Deadline = None,
    withheld: Withheld = "",
    fix: FixOfModels = None,
    lapse: LapseRate = None,
    lapse_range: LapseRange = None,
    method: Annotated[str, typer.Option(help="both, importance or autoregressive.")] = "both",
    draws: ParameterDraws = 2000,
    orders: Orders = 128,
    family: Annotated[
        list[str] | None,
        typer.Option(help="Family of models, such as learning=noisy_q,forgetting_q. Give the option for each family."),
    ] = None,
    likelihood: Likelihood = "auto",
    seed: Seed = 0,
    progress: Progress = True,
) -> None:
    """Compare models of the same trials by their evidence: person by person, and how often each holds among people."""
    with plain_errors():
        models = read_models(model)
        families = checked_families(list(models), _read_families(family))
        check_folder(out)
        options = TableOptions(
            subject, order, columns, recode, scale, signed, outside, session, where, missing, deadline, withheld
        )
        nets = _load_comparable(models, options, likelihood)
        fixed, first = read_fixed_models(fix or [], nets), next(iter(nets.values()))
        # Each model checks the table by its own schema; what is read is the same.
        different = {id(net): net for net in nets.values()}.values()
        trials = options.read_for(table, [(net, simulator_of(net)) for net in different])[0]
        lapses = _lapses(lapse, lapse_range, first, trials)
        rows = comparison.compare(
            nets,
            trials.inputs,
            stack_value(np, first.schema, trials.outcomes),
            feedback=trials.feedback,
            trial_mask=trials.trial_mask,
            missing=trials.missing,
            method=method,
            fixed=fixed,
            lapse=lapses,
            draws=draws,
            orders=orders,
            seed=seed,
            progress=progress,
        )
        frequencies = random_effects(rows, families=families, seed=seed)
        subjects = rows.pop("data_set")
        rows.insert(0, "subject", [trials.subjects[index] for index in subjects])
        # A row a model, each with all people in turn.
        rows["assignment"] = frequencies.assignments.to_numpy().T.reshape(-1)
        out.mkdir(parents=True, exist_ok=True)
        write_rows(rows, out / "comparison.csv")
        written = _write_frequencies(frequencies, out)
    totals = rows.groupby("model", sort=False)["log_evidence"].sum()
    best = rows.loc[rows.groupby("subject", sort=False)["log_evidence"].idxmax(), "model"].value_counts()
    typer.echo(rows.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
    for name, total in totals.sort_values(ascending=False).items():
        winners = counted(int(best.get(name, 0)), "person")
        typer.echo(f"{name}: {total:.2f} nats in all ({total - totals.max():+.2f}), best for {winners}")
    if len(trials.subjects) > 1:
        typer.echo(f"How often each holds among people (random effects):\n{frequencies}")
    typer.echo(f"Written to {out}/: comparison.csv, {written}.")


def _read_families(given: list[str] | None) -> dict[str, list[str]]:
    """Family -> its models.

    Raises:
        ValueError: if a text is no name with models, or a name comes twice.
    """
    families: dict[str, list[str]] = {}
    for text in given or []:
        name, equal, models = (part.strip() for part in text.partition("="))
        if not (name and equal and models) or name in families:
            raise ValueError(f"--family: expected NAME=MODEL,MODEL, each name once, got {text!r}")
        families[name] = [model.strip() for model in models.split(",")]
    return families


def _write_frequencies(frequencies: RandomEffects, folder: Path) -> str:
    """Write the tables of models and families; their names."""
    write_rows(frequencies.table.assign(omnibus_risk=frequencies.omnibus_risk), folder / "models.csv")
    if frequencies.family_table is None:
        return "models.csv"
    write_rows(frequencies.family_table, folder / "families.csv")
    return "models.csv, families.csv"


def _lapses(rate: str | None, ranges: list[str] | None, net: Network, trials: TrialData) -> Lapse | None:
    """The lapses that a fit with the same options has, said in a line."""
    lapse = read_lapse(rate, ranges)
    if lapse is None:
        return None
    lapse = lapse.of_data(net.schema, trials.outcomes, trials.trial_mask)
    typer.echo(f"With {said(lapse)}.")
    for finding in lapse.findings(net.schema, trials.outcomes, trials.trial_mask):
        typer.secho(finding.text, fg=typer.colors.YELLOW)
    return lapse


def _load_comparable(models: Mapping[str, str], options: TableOptions, likelihood: str) -> dict[str, Network]:
    """The networks, all of the same data, each loaded once; name of a model -> its network."""
    loaded = {text: options.load(text, likelihood) for text in dict.fromkeys(models.values())}
    nets = {name: loaded[text] for name, text in models.items()}
    reference = next(iter(models))
    first = nets[reference].schema
    for name, net in nets.items():
        schema = net.schema
        groups = {
            "inputs": (schema.inputs, first.inputs),
            "outcomes": (schema.outcomes, first.outcomes),
            "feedback": (schema.feedback, first.feedback),
        }
        different = [group for group, (one, other) in groups.items() if list(one) != list(other)]
        if different:
            raise ValueError(
                f"model: {name!r} reads other {' and '.join(different)} than {reference!r}: only models of the same "
                "data can be compared"
            )
    return nets
