"""``ppl-buffer fit``: from a table to a report."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppl_buffer.findings import counted
from ppl_buffer.simulator import WithEnvironment
from ppl_buffer.workflow.cli.errors import check_folder, plain_errors
from ppl_buffer.workflow.cli.formulas import Correlated, Fix, Formula, OptionsFile, PriorOption, read_fixed, read_priors
from ppl_buffer.workflow.cli.memory import keep_memory
from ppl_buffer.workflow.cli.options import (
    Columns,
    Deadline,
    Draws,
    LapseRange,
    LapseRate,
    Likelihood,
    MissingCodes,
    Model,
    Out,
    Outside,
    PredictiveDraws,
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
    Warmup,
    Where,
    Withheld,
    read_lapse,
)
from ppl_buffer.workflow.cli.simulators import simulator_of
from ppl_buffer.workflow.cli.tables import TableOptions, write_rows

if TYPE_CHECKING:
    from ppl_buffer.datasets import TrialData
    from ppl_buffer.workflow.fitting import Fit
    from ppl_buffer.workflow.report.sections import Section


def fit(
    table: Table,
    model: Model,
    subject: Subject = "subject",
    session: Session = None,
    where: Where = None,
    order: TrialOrder = None,
    columns: Columns = "",
    out: Out = Path("fit"),
    recode: Recode = None,
    scale: Scale = None,
    signed: Signed = "",
    outside: Outside = "error",
    formula: Formula = None,
    fix: Fix = None,
    prior: PriorOption = None,
    correlated: Correlated = False,
    missing: MissingCodes = None,
    deadline: Deadline = None,
    withheld: Withheld = "",
    hierarchical: Annotated[bool, typer.Option(help="People as draws from one population, or each alone.")] = True,
    lapse: LapseRate = None,
    lapse_range: LapseRange = None,
    chains: Annotated[int, typer.Option(min=1, help="Chains, which run at the same time.")] = 2,
    warmup: Warmup = 200,
    draws: Draws = 800,
    predictive_draws: PredictiveDraws = 200,
    target_accept: Annotated[float, typer.Option(help="Of NUTS; nearer to 1 where transitions diverge.")] = 0.8,
    tree_depth: Annotated[int, typer.Option(min=1, help="Of NUTS: at most 2 ** depth - 1 gradients a draw.")] = 5,
    likelihood: Likelihood = "auto",
    simulator: SimulatorOption = None,
    sequential: Annotated[
        bool,
        typer.Option(help="In regressors.csv also what is known of each parameter given the trials so far."),
    ] = False,
    seed: Seed = 0,
    progress: Progress = True,
    options: OptionsFile = None,
) -> None:
    """Fit people to a model, all together, and write a report: did it converge, does it fit, can it be trusted."""
    # `ppl_buffer.workflow.fitting.DRAWS_FILE`, which cannot be imported before the number of devices is set.
    with plain_errors(out / "draws.safetensors"):
        check_folder(out)
        import numpyro

        keep_memory()
        # Before anything uses JAX, or chains wait for each other.
        numpyro.set_host_device_count(chains)
        from ppl_buffer.workflow import fitting
        from ppl_buffer.workflow.readouts import trial_table
        from ppl_buffer.workflow.report import answers, write_report

        reading = TableOptions(
            subject, order, columns, recode, scale, signed, outside, session, where, missing, deadline, withheld
        )
        net = reading.load(model, likelihood, backend="jax")
        task = simulator_of(net, simulator)
        trials = reading.read(table, net, task)
        typer.echo(f"{_counts(trials)}; {counted(chains, 'chain')} of {warmup} + {counted(draws, 'draw')}.")
        sampling: dict[str, Any] = {
            "chains": chains, "warmup": warmup, "draws": draws, "predictive_draws": predictive_draws,
            "target_accept": target_accept, "tree_depth": tree_depth, "seed": seed,
        }  # fmt: skip
        result = fitting.fit(
            net, trials, environment=task.environment if isinstance(task, WithEnvironment) else None,
            hierarchical=hierarchical, lapse=read_lapse(lapse, lapse_range), progress=progress, out=out,
            formulas=formula or [], fixed=read_fixed(fix or []), priors=read_priors(prior or []), correlated=correlated,
            **sampling,
        )  # fmt: skip
        again: dict[str, Any] = {"model": model, **reading.given, **sampling}
        again |= {"formula": formula, "fix": fix, "prior": prior}
        again |= {"lapse": lapse, "lapse_range": lapse_range, "simulator": simulator}
        again |= {"likelihood": None if likelihood == "auto" else likelihood}
        title = f"{Path(model).stem}: a fit of {table.name}"
        command = command_again(table, again, hierarchical)
        command += " --sequential" * sequential + " --correlated" * correlated
        result.summary.to_csv(out / "summary.csv", index_label="quantity")
        report = write_report(result, out, title=title, source=str(table), command=command)
        _print(result, answers(result))
        write_rows(trial_table(result, sequential=sequential, seed=seed, progress=progress), out / "regressors.csv")
        typer.echo(f"Written: {report} (open it in a browser), summary.csv and figures beside it, and regressors.csv: "
                   "each trial's surprise and what was expected of it.")  # fmt: skip
        write_posterior(result, out / "posterior.nc")


def _counts(trials: TrialData) -> str:
    """How many people and trials there are."""
    sets, persons = len(trials.subjects), trials.persons
    who = counted(sets, "person")
    if persons is not None:
        who = f"{counted(len(set(persons)), 'person')}, {counted(sets, 'data set')}"
    left_out = f" ({trials.excluded} left out)" if trials.excluded else ""
    return f"{who}, {counted(int(trials.trial_counts.sum()), 'trial')}{left_out}"


def write_posterior(fit: Fit, path: Path) -> None:
    """Write all draws as NetCDF, which cannot hold every label.

    Raises:
        ValueError: if it cannot be written.
    """
    try:
        fit.posterior.to_netcdf(str(path))
    except Exception as error:
        raise ValueError(
            f"{path} could not be written ({type(error).__name__}: {error}); draws.safetensors beside it holds the "
            "draws. Give people and models other names, or call the command again once the reason is gone: it does "
            "not sample again"
        ) from error
    typer.echo(f"Written: {path}, all draws for ArviZ.")


def command_again(table: Path, options: Mapping[str, Any], hierarchical: bool) -> str:
    """The command line that does it again."""
    words = ["ppl-buffer fit", shlex.quote(str(table))]
    for name, given in options.items():
        for value in given if isinstance(given, list) else [] if given is None else [given]:
            words.append(f"--{name.replace('_', '-')} {shlex.quote(str(value))}")
    return " ".join(words + ["--no-hierarchical"] * (not hierarchical))


def _print(fit: Fit, sections: Iterable[Section]) -> None:
    """The summary, and the report's answers: what stands there in red stands here in red."""
    if fit.reused:
        typer.echo(f"{counted(fit.reused, 'draw')} of each chain {'was' if fit.reused == 1 else 'were'} there already.")
    shown = fit.summary
    if fit.hierarchical:
        typer.echo("The group: the median person in natural units, and the spread of people on the logistic scale")
        shown = shown[shown.index.str.endswith(("_group", "_spread")) | shown.index.str.contains("~", regex=False)]
    typer.echo(shown.to_string(float_format=lambda x: f"{x:.3g}"))
    r_hat = "unknown" if math.isnan(fit.r_hat) else f"at most {fit.r_hat:.3f}"
    typer.echo(f"R-hat {r_hat}, effective sample size at least {fit.effective:.0f}, "
               f"divergences {fit.diverging:.1%}; {fit.seconds:.0f} s of sampling.")  # fmt: skip
    colours = {"good": typer.colors.GREEN, "look": typer.colors.YELLOW, "bad": typer.colors.RED}
    for section in sections:
        typer.secho(f"{section.question} {section.verdict}", fg=colours[section.mark], bold=True)
        answer, *points = section.lines
        typer.echo(f"  {answer}")
        for point in points:
            typer.secho(f"  - {point}", fg=colours[section.mark])
