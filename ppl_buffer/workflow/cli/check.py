"""``ppl-buffer check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ppl_buffer.findings import counted
from ppl_buffer.network.arguments import require_likelihood
from ppl_buffer.network.checkpoint import load
from ppl_buffer.simulator import WithEnvironment
from ppl_buffer.workflow.cli.errors import check_folder, plain_errors
from ppl_buffer.workflow.cli.options import Likelihood, Out, Progress, Seed, SimulatorOption
from ppl_buffer.workflow.cli.simulators import simulator_of


def check(
    model: Annotated[str, typer.Argument(help="A name of the zoo, or a checkpoint file.")],
    simulator: SimulatorOption = None,
    sets: Annotated[
        int | None,
        typer.Option(min=10, help="Simulated data sets; by default 3000 for the likelihood, 200 for posteriors."),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=2, help="Trials of each; by default 100.")] = None,
    posterior: Annotated[bool, typer.Option(help="Also calibrate posteriors, by NUTS fits; takes minutes.")] = False,
    likelihood: Likelihood = "auto",
    out: Out = Path("check"),
    seed: Seed = 0,
    progress: Progress = True,
) -> None:
    """Calibrate a network against fresh simulations; ends with an error where it is off."""
    batches = out / "batches"
    with plain_errors(batches):
        from ppl_buffer.diagnostics import check_likelihood, check_posterior

        check_folder(out)
        net = load(model).preferring(likelihood)
        require_likelihood(net.record)
        task = simulator_of(net, simulator)
        if task is None:
            raise ValueError(
                "simulator: expected the one that the network was trained on: --simulator my_module:MySimulator"
            )
        can_roll = not net.schema.feedback or isinstance(task, WithEnvironment)
        common: dict[str, Any] = {"trials": trials, "seed": seed, "progress": progress}
        if sets is not None:
            common["sets"] = sets
        checks: dict[str, Any] = {"likelihood": check_likelihood(net, task, rollouts=can_roll, **common)}
        out.mkdir(parents=True, exist_ok=True)
        if posterior:
            checks["posterior"] = check_posterior(net, task, out=batches, **common)
        for name, result in checks.items():
            result.table.to_csv(out / f"{name}.csv", index=False)
            result.plot().savefig(out / f"{name}.png", dpi=130)
            # What is wrong, and the first row, which says how far off the whole is; the file has all.
            shown = result.table[~result.table["passed"].astype(bool) | (result.table.index == 0)]
            typer.echo(shown.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
            typer.echo(f"{counted(int((~result.table['passed'].astype(bool)).sum()), 'comparison')} of "
                       f"{len(result.table)} failed.")  # fmt: skip
            colour = typer.colors.GREEN if result.passed else typer.colors.RED
            typer.secho(f"{name}: {result.verdict}; written to {out}/{name}.csv and .png", fg=colour)
    if not all(result.passed for result in checks.values()):
        raise typer.Exit(1)
