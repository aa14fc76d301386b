"""The command line: ``ppl-buffer zoo``, ``demo``, ``fit``, ``compare``, ``evidence``, ``check``, ``train``.

A thin layer over the library: each command reads its arguments, calls one or two functions, and writes what they
return.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

import ppl_buffer as pb
from ppl_buffer.schema import stack_value
from ppl_buffer.simulator import name_of

try:
    import typer
except ImportError as error:
    raise ImportError("the command line needs typer: pip install 'ppl-buffer[cli]'") from error

app = typer.Typer(
    name="ppl-buffer",
    help="Fit, compare and check models of dependent trials, with likelihoods learnt from simulators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Table = Annotated[Path, typer.Argument(help="CSV file: a row a trial, in the order in which each person did them.")]
Model = Annotated[str, typer.Option("--model", help="A name of the zoo (see `ppl-buffer zoo`), or a checkpoint file.")]
Subject = Annotated[str, typer.Option(help="Column that tells people apart.")]
Map = Annotated[
    str, typer.Option("--map", help="Columns of the model's variables: choice=response,reward=feedback,pair=cond.")
]
Recode = Annotated[
    list[str] | None,
    typer.Option(help="Numbers of a variable's codes, such as choice:left=0,right=1. May be given several times."),
]
Scale = Annotated[
    list[str] | None,
    typer.Option(help="Factor for a variable, such as rt=0.001 for milliseconds. May be given several times."),
]
Simulated = Annotated[
    str | None,
    typer.Option(help="Simulator of a network of your own, my_module:MySimulator. Known for the zoo's."),
]
Out = Annotated[Path, typer.Option(help="Folder for the results, made if it does not exist.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Warmup = Annotated[int, typer.Option(min=1, help="Warm-up draws of each chain.")]
Draws = Annotated[int, typer.Option(min=4, help="Kept draws of each chain.")]
Replicates = Annotated[int, typer.Option(min=1, help="Data sets drawn from the posterior.")]
Progress = Annotated[bool, typer.Option(help="Show progress bars.")]
Orders = Annotated[int, typer.Option(min=1, help="Orders of the trials of the autoregressive method.")]
ParameterDraws = Annotated[int, typer.Option(min=1, help="Parameter draws of the importance method.")]


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """Say what a user did wrong without a traceback."""
    try:
        yield
    except (ValueError, FileNotFoundError, ImportError) as error:
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from None


def _pairs(option: str, text: str, separator: str = "=") -> dict[str, str]:
    """``a=b,c=d`` as a dict."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equal, value = part.partition(separator)
        if not (equal and name.strip() and value.strip()):
            raise ValueError(f"--{option}: expected NAME{separator}VALUE, separated by commas, got {part!r}")
        found[name.strip()] = value.strip()
    return found


def _numbers(option: str, pairs: dict[str, str]) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in pairs.items()}
    except ValueError:
        raise ValueError(f"--{option}: expected numbers after '=', got {pairs}") from None


def _named_simulator(spec: str) -> Any:
    """The simulator ``module:Class`` or ``module:object``; the working folder is searched too."""
    module, colon, name = spec.partition(":")
    if not colon:
        raise ValueError(f"simulator: expected my_module:MySimulator, got {spec!r}")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise ValueError(f"simulator: there is no module {module!r} in {here} or among the installed ones") from None
    except AttributeError:
        raise ValueError(f"simulator: module {module!r} has no {name!r}") from None
    return found() if isinstance(found, type) else found


def simulator_of(net: Any, spec: str | None = None) -> Any:
    """The simulator that a network was trained on: the one named, or a shipped one of the stored name; else None.

    Raises:
        ValueError: if the one named cannot be found, or has another schema.
    """
    if spec is not None:
        simulator = _named_simulator(spec)
        if simulator.schema != net.schema:
            raise ValueError(f"simulator: expected the network's schema {net.schema}, got {simulator.schema}")
        return simulator
    known = pb.simulators
    shipped: list[Any] = [known.NoisyQ(), known.DriftDiffusion(), known.CollapsingDriftDiffusion()]
    shipped += [known.RLDriftDiffusion(), known.GaussianProcess()]
    shipped += [known.MultisensoryCausalInference(rho=rho) for rho in (1, 4 / 3)]
    for simulator in shipped:
        name = name_of(simulator)
        if net.record is not None and name == net.record.simulator and simulator.schema == net.schema:
            return simulator
    return None


def _trials(table: Path, net: Any, subject: str, columns: str, recode: Any, scale: Any, simulator: Any) -> Any:
    from ppl_buffer.datasets.tables import read_trials

    codes = {}
    for text in recode or []:
        name, colon, rest = text.partition(":")
        if not colon:
            raise ValueError(f"--recode: expected NAME:OLD=NEW,OLD=NEW, got {text!r}")
        codes[name] = _numbers("recode", _pairs("recode", rest))
    factors = _numbers("scale", _pairs("scale", ",".join(scale or [])))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trials = read_trials(
            table, net, subject=subject, columns=_pairs("map", columns), recode=codes, scale=factors,
            simulator=simulator,
        )  # fmt: skip
    for warning in caught:
        typer.secho(str(warning.message), fg=typer.colors.YELLOW, err=True)
    return trials


@app.command()
def zoo() -> None:
    """List the shipped networks, and what each reads from a table."""
    for entry in pb.zoo():
        net = pb.load(entry.name)
        schema = net.schema
        typer.secho(entry.name, bold=True)
        typer.echo(f"  simulator  {entry.simulator}, {entry.weights:,} weights, {entry.bytes / 1e6:.2f} MB")
        ranges = [f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in net.box.items()]
        typer.echo(f"  parameters {', '.join(ranges)}")
        for group in ("inputs", "outcomes", "feedback"):
            variables = [f"{name} ({x.description})" for name, x in getattr(schema, group).items()]
            if variables:
                typer.echo(f"  {group:10} {', '.join(variables)}")
        typer.echo(f"  trials     {'in order' if schema.ordered else 'in any order'}, up to {net.record.trials}")


@app.command()
def fit(
    table: Table,
    model: Model,
    subject: Subject = "subject",
    columns: Map = "",
    out: Out = Path("fit"),
    recode: Recode = None,
    scale: Scale = None,
    separate: Annotated[bool, typer.Option(help="Each person alone, instead of draws from one population.")] = False,
    lapse: Annotated[float, typer.Option(help="Probability that a trial is a lapse; 0.02 suits response times.")] = 0.0,
    chains: Annotated[int, typer.Option(min=1, help="Chains, which run at the same time.")] = 2,
    warmup: Warmup = 200,
    draws: Draws = 350,
    replicates: Replicates = 200,
    target_accept: Annotated[float, typer.Option(help="Of NUTS; nearer to 1 where transitions diverge.")] = 0.8,
    tree_depth: Annotated[int, typer.Option(min=1, help="Of NUTS: at most 2 ** depth - 1 gradients a draw.")] = 4,
    simulator: Simulated = None,
    seed: Seed = 0,
    progress: Progress = True,
) -> None:
    """Fit people to a model, all together, and write a report: did it converge, does it fit, can it be trusted."""
    with _said():
        import numpyro

        # Before anything uses JAX, or chains wait for each other.
        numpyro.set_host_device_count(chains)
        from ppl_buffer.workflow.fit import fit as fit_people
        from ppl_buffer.workflow.report import write_report

        net = pb.load(model, backend="jax")
        task = simulator_of(net, simulator)
        trials = _trials(table, net, subject, columns, recode, scale, task)
        counts = trials.trial_counts
        typer.echo(f"{len(counts)} people, {counts.sum()} trials; {chains} chains of {warmup} + {draws} draws.")
        out.mkdir(parents=True, exist_ok=True)
        found = fit_people(
            net, trials, environment=getattr(task, "environment", None), hierarchical=not separate,
            lapse=lapse or None, chains=chains, warmup=warmup, draws=draws, replicates=replicates,
            target_accept=target_accept, tree_depth=tree_depth, seed=seed, progress=progress,
        )  # fmt: skip
        found.posterior.to_netcdf(str(out / "posterior.nc"))
        found.summary.to_csv(out / "summary.csv", index_label="quantity")
        conditioned = {name: x for name, x in (("subject", subject), ("map", columns)) if x}
        options = {
            "model": model, **conditioned, "chains": chains, "warmup": warmup, "draws": draws, "replicates": replicates,
            "target-accept": target_accept, "tree-depth": tree_depth, "seed": seed,
        }  # fmt: skip
        words = [f"--{name} {shlex.quote(str(x))}" for name, x in options.items()]
        for option, texts in (("recode", recode), ("scale", scale)):
            words += [f"--{option} {shlex.quote(text)}" for text in texts or []]
        words += ["--separate"] * separate + [f"--lapse {lapse}"] * bool(lapse)
        words += [f"--simulator {simulator}"] * (simulator is not None)
        command = " ".join(["ppl-buffer fit", shlex.quote(str(table)), *words])
        report = write_report(
            found, out, title=f"{Path(model).stem}: a fit of {table.name}", source=str(table), command=command
        )
    shown = found.summary
    if found.hierarchical:
        typer.echo("The group: the median person in natural units, and the spread of people on the logistic scale")
        shown = shown[shown.index.str.endswith(("_group", "_spread"))]
    typer.echo(shown.to_string(float_format=lambda x: f"{x:.3g}"))
    r_hat, least = found.r_hat, found.effective
    typer.echo(f"R-hat at most {r_hat:.3f}, effective sample size at least {least:.0f}, "
               f"divergences {found.diverging:.1%}; {found.seconds:.0f} s of sampling.")  # fmt: skip
    if not found.converged:
        said = "Means and spreads can be read, ends of intervals not yet: take more --draws before you publish."
        if not found.readable:
            said = "Do not read the posterior; the report says what is wrong, and what to do."
        elif np.isnan(r_hat):
            said = "One chain cannot tell whether it has settled: take --chains 2 or more."
        typer.secho(said, fg=typer.colors.YELLOW)
    typer.echo(f"Written: {report} (open it in a browser), posterior.nc, summary.csv and figures beside it.")


@app.command()
def demo(
    subjects: Annotated[str, typer.Option(help="How many people, fewest trials first, or all.")] = "13",
    simulated: Annotated[bool, typer.Option(help="Simulated people, of which nothing has to be fetched.")] = False,
    out: Out = Path("demo"),
    warmup: Warmup = 200,
    draws: Draws = 500,
    replicates: Replicates = 150,
    seed: Seed = 0,
    progress: Progress = True,
) -> None:
    """Fit people who learn from rewards: data of the selection task, as `fit` does it with a table of yours."""
    from ppl_buffer.datasets import selection_task, simulated_selection_task
    from ppl_buffer.datasets.tables import write_trials

    with _said():
        if subjects != "all" and not (subjects.isdigit() and int(subjects) > 1):
            raise ValueError(f"--subjects: expected 'all' or a number of at least 2, got {subjects!r}")
        people = None
        if not simulated:
            try:
                people = selection_task()
            except FileNotFoundError as error:
                typer.secho(f"The selection task is not here ({error}).", fg=typer.colors.YELLOW)
        if people is None:
            typer.echo("Simulated people of the same design are fitted: the results say nothing about real ones.")
            people = simulated_selection_task(seed)
        everybody = len(people.subjects)
        if subjects != "all" and int(subjects) < everybody:
            people = people.select(np.sort(np.argsort(people.trial_counts, kind="stable")[: int(subjects)]))
            typer.echo(f"{subjects} of {everybody} people, those with the fewest trials; --subjects all takes all.")
        out.mkdir(parents=True, exist_ok=True)
        table = out / "trials.csv"
        write_trials(people, table)
    options: dict[str, Any] = {"warmup": warmup, "draws": draws, "replicates": replicates, "seed": seed}
    words = "".join(f" --{name} {value}" for name, value in options.items())
    typer.echo(f"$ ppl-buffer fit {shlex.quote(str(table))} --model noisy_q --out {shlex.quote(str(out))}{words}")
    fit(table, "noisy_q", out=out, progress=progress, **options)


@app.command()
def evidence(
    table: Table,
    model: Model,
    subject: Subject = "subject",
    columns: Map = "",
    out: Out = Path("evidence"),
    recode: Recode = None,
    scale: Scale = None,
    method: Annotated[str, typer.Option(help="importance or autoregressive.")] = "importance",
    orders: Orders = 128,
    draws: ParameterDraws = 2000,
    simulator: Simulated = None,
    seed: Seed = 0,
    progress: Progress = True,
) -> None:
    """Log evidence of each person's trials under a model."""
    import pandas

    with _said():
        net = pb.load(model)
        trials = _trials(table, net, subject, columns, recode, scale, simulator_of(net, simulator))
        found = pb.log_evidence(
            net, trials.inputs, stack_value(np, net.schema, trials.outcomes),
            feedback=trials.feedback, trial_mask=trials.trial_mask,
            method=method, orders=orders, draws=draws, seed=seed, progress=progress,
        )  # fmt: skip
        rows = pandas.DataFrame(
            {
                "subject": trials.subjects,
                "trials": trials.trial_counts,
                "log_evidence": found.log_evidence,
                "standard_error": found.standard_error,
            }
        )
        out.mkdir(parents=True, exist_ok=True)
        rows.to_csv(out / "evidence.csv", index=False)
        found.plot().figure.savefig(out / "evidence.png", dpi=130)
    error = float(np.sqrt((found.standard_error**2).sum()))
    typer.echo(rows.to_string(index=False, float_format=lambda x: f"{x:.2f}"))
    typer.echo(f"Sum over people: {found.log_evidence.sum():.2f} nats (Monte-Carlo standard error {error:.2f}).")
    typer.echo(f"Written to {out}/: evidence.csv, evidence.png.")


@app.command()
def compare(
    table: Table,
    model: Annotated[list[str], typer.Option("--model", help="Two models or more: give the option for each.")],
    subject: Subject = "subject",
    columns: Map = "",
    out: Out = Path("comparison"),
    recode: Recode = None,
    scale: Scale = None,
    method: Annotated[str, typer.Option(help="both, importance or autoregressive.")] = "both",
    draws: ParameterDraws = 2000,
    orders: Orders = 128,
    seed: Seed = 0,
    progress: Progress = True,
) -> None:
    """Compare models of the same trials by their evidence, person by person."""
    with _said():
        if len(set(model)) < 2:
            raise ValueError(f"model: expected two different ones or more, got {model}: --model FIRST --model SECOND")
        nets = {name: pb.load(name) for name in model}
        first = nets[model[0]]
        for name, net in nets.items():
            different = [
                group
                for group in ("inputs", "outcomes", "feedback")
                if list(getattr(net.schema, group)) != list(getattr(first.schema, group))
            ]
            if different:
                raise ValueError(
                    f"model: {name!r} reads other {' and '.join(different)} than {model[0]!r}: only models of the same "
                    "data can be compared"
                )
        # Each model checks the table by its own schema; what is read is the same.
        read = [_trials(table, net, subject, columns, recode, scale, simulator_of(net)) for net in nets.values()]
        trials = read[0]
        found = pb.compare(
            nets, trials.inputs, stack_value(np, first.schema, trials.outcomes),
            feedback=trials.feedback, trial_mask=trials.trial_mask,
            method=method, draws=draws, orders=orders, seed=seed, progress=progress,
        )  # fmt: skip
        found.insert(0, "subject", [trials.subjects[index] for index in found.pop("data_set")])
        out.mkdir(parents=True, exist_ok=True)
        found.to_csv(out / "comparison.csv", index=False)
    totals = found.groupby("model", sort=False)["log_evidence"].sum()
    best = found.loc[found.groupby("subject", sort=False)["log_evidence"].idxmax(), "model"].value_counts()
    typer.echo(found.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
    for name, total in totals.sort_values(ascending=False).items():
        people = best.get(name, 0)
        typer.echo(f"{name}: {total:.2f} nats in all ({total - totals.max():+.2f}), best for {people} people")
    typer.echo(f"Written to {out}/: comparison.csv.")


@app.command()
def check(
    model: Annotated[str, typer.Argument(help="A name of the zoo, or a checkpoint file.")],
    simulator: Simulated = None,
    sets: Annotated[int, typer.Option(min=10, help="Simulated data sets.")] = 200,
    trials: Annotated[int | None, typer.Option(min=2, help="Trials of each; by default 100.")] = None,
    posterior: Annotated[bool, typer.Option(help="Also calibrate posteriors, by NUTS fits; takes minutes.")] = False,
    out: Out = Path("check"),
    seed: Seed = 0,
    progress: Progress = True,
) -> None:
    """Calibrate a network against fresh simulations; ends with an error where it is off."""
    from ppl_buffer.diagnostics import check_likelihood, check_posterior

    with _said():
        net = pb.load(model)
        task = simulator_of(net, simulator)
        if task is None:
            raise ValueError(
                "simulator: expected the one that the network was trained on: --simulator my_module:MySimulator"
            )
        can_roll = not net.schema.feedback or hasattr(task, "environment")
        common: dict[str, Any] = {"sets": sets, "trials": trials, "seed": seed, "progress": progress}
        checks = {"likelihood": check_likelihood(net, task, rollouts=can_roll, **common)}
        out.mkdir(parents=True, exist_ok=True)
        if posterior:
            checks["posterior"] = check_posterior(net, task, out=out / "batches", **common)  # type: ignore[assignment]
        for name, found in checks.items():
            found.table.to_csv(out / f"{name}.csv", index=False)
            found.plot().savefig(out / f"{name}.png", dpi=130)
            typer.echo(found.table.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
            typer.echo(f"{name}: {'passed' if found.passed else 'FAILED'}; written to {out}/{name}.csv and .png")
    if not all(found.passed for found in checks.values()):
        raise typer.Exit(1)


def _range(option: str, text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:[-,:](\d+))?", text.strip())
    if match is None:
        raise ValueError(f"--{option}: expected a number, or LEAST-GREATEST, got {text!r}")
    return int(match[1]), int(match[2] or match[1])


@app.command()
def train(
    simulator: Annotated[str, typer.Argument(help="my_module:MySimulator; modules of the working folder are found.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimisation steps.")] = 20_000,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/MySimulator.")] = None,
    width: Annotated[int | None, typer.Option(help="Of a token's vector; by default 64.")] = None,
    depth: Annotated[int | None, typer.Option(help="Layers; by default 4.")] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads a layer; by default 4.")] = None,
    mlp: Annotated[int | None, typer.Option(help="Hidden units of a layer; by default 128.")] = None,
    asinh_scales: Annotated[
        int | None, typer.Option(help="Finer scales at which continuous variables are read as well; by default 0.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Data sets in a batch.")] = 32,
    trials: Annotated[str, typer.Option(help="Trials of a data set, LEAST-GREATEST.")] = "32-128",
    context: Annotated[str, typer.Option(help="Size of the context, LEAST-GREATEST; exchangeable models.")] = "0-64",
    optimizer: Annotated[str, typer.Option(help="adamw or muon.")] = "adamw",
    outcome_samples: Annotated[
        int, typer.Option(min=1, help="Draws of each target's outcomes: less noise, if the simulator can draw again.")
    ] = 1,
    likelihood_weight: Annotated[
        float | None, typer.Option(help="Weight of the data sets whose parameters are all told; 0.9: likelihood first.")
    ] = None,
    use_log_likelihood: Annotated[
        bool,
        typer.Option("--use-log-likelihood", help="Learn the simulator's own log_likelihood where all is told; last."),
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(help="A checkpoint, or a name of the zoo, to start from; --depth and --asinh-scales grow it."),
    ] = None,
    distillation: Annotated[
        Path | None, typer.Option(help="Folder of lessons that pb.prepare_distillation wrote: data unlike the model's.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after this time; the same call goes on.")] = None,
    held_out: Annotated[int, typer.Option(min=1, help="Data sets for the held-out loss.")] = 256,
    seed: Seed = 0,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Train a network on a simulator of yours. Stop it and call it again: it goes on."""
    with _said():
        task = _named_simulator(simulator)
        folder = Path("runs") / simulator.partition(":")[2] if out is None else out
        asked = {"width": width, "depth": depth, "heads": heads, "mlp": mlp, "asinh_scales": asinh_scales}
        given = {name: size for name, size in asked.items() if size is not None}
        begun = pb.load(start, backend="torch") if start else None
        base = pb.Config() if begun is None else begun.config
        if begun is None and depth is not None:
            given["param_depth"] = min(base.param_depth, max(depth, 1))
        config = replace(base, **given)
        net = pb.train(
            task, config, start=begun, distillation=distillation, steps=steps, seed=seed, out=folder,
            batch_size=batch_size, trials=_range("trials", trials), context=_range("context", context),
            optimizer=optimizer, outcome_samples=outcome_samples, likelihood_weight=likelihood_weight, use_log_likelihood=use_log_likelihood,
            held_out=held_out, minutes=minutes, progress=progress,
        )  # fmt: skip
        path = folder / f"{simulator.partition(':')[2]}.safetensors"
        pb.save(net, path)
    typer.echo(f"Written: {path}. Check it: ppl-buffer check {path} --simulator {simulator}")


def main() -> None:
    """Entry point of ``ppl-buffer``."""
    app()


if __name__ == "__main__":
    main()
