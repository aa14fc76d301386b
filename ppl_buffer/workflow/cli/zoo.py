"""``ppl-buffer zoo``."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Annotated

import typer

from ppl_buffer.network import zoo as networks
from ppl_buffer.network.checkpoint import load
from ppl_buffer.network.estimated_error import PART_NAMES
from ppl_buffer.workflow.cli.errors import check_folder, plain_errors
from ppl_buffer.workflow.cli.options import Progress
from ppl_buffer.workflow.cli.simulators import simulator_of
from ppl_buffer.workflow.recipes import LIKELIHOOD, Recipe, train_recipe


def zoo(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One network alone, and what its variables mean.")
    ] = None,
    train: Annotated[str | None, typer.Option(help="Network to train anew by its recipe, from its seed.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the training; by default runs/NAME.")] = None,
    parts: Annotated[
        str,
        typer.Option(help="all; or likelihood: the direct likelihood anew, beside the transformer that is shipped."),
    ] = "all",
    quick: Annotated[bool, typer.Option("--quick", help="A tiny network and a few steps, to see it work.")] = False,
    minutes: Annotated[float | None, typer.Option(help="Stop after this time; the same command goes on.")] = None,
    progress: Progress = True,
) -> None:
    """List the shipped networks, or say what the variables of one mean; or train one by its recipe.

    A training may be stopped at any time; the same command goes on.
    """
    if train is None:
        with plain_errors():
            _list(name)
        return
    if name is not None:
        raise typer.BadParameter(f"expected a name to list, or --train, not both, got {name!r}")
    folder = Path("runs") / train if out is None else out
    with plain_errors(folder):
        recipe = Recipe.read(train)
        check_folder(folder)
        limit = math.inf if minutes is None else minutes
        path = train_recipe(recipe, folder, parts=parts, quick=quick, minutes=limit, progress=progress)
    if path is None:
        typer.echo("The time is over; the same command goes on.")
    else:
        typer.echo(f"Written: {path}. What it knows: make zoo-{train}, in the source, measures it and writes its card.")


def _list(name: str | None) -> None:
    entries = {entry.name: entry for entry in networks.zoo()}
    if name is not None and name not in entries:
        raise ValueError(f"NAME: expected one of {', '.join(entries)}, got {name!r}")
    for entry in entries.values() if name is None else [entries[name]]:
        net = load(entry.name)
        schema = net.schema
        typer.secho(entry.name, bold=True)
        typer.echo(f"  simulator  {entry.simulator}, {entry.weights:,} weights, {entry.bytes / 1e6:.2f} MB")
        if entry.parts == (LIKELIHOOD,):
            typer.echo("  parts      direct likelihood alone: it computes where all parameters are given")
        ranges = [f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in net.box.items()]
        typer.echo(f"  parameters {', '.join(ranges)}")
        for group, variables in (
            ("inputs", schema.inputs), ("outcomes", schema.outcomes), ("feedback", schema.feedback)
        ):  # fmt: skip
            if variables:
                described = [f"{name} ({x.description})" for name, x in variables.items()]
                typer.echo(f"  {group:10} {', '.join(described)}")
        reach = "" if net.record is None else f", up to {net.record.trials}"
        if net.record is not None and net.record.stored is not None:
            typer.echo(f"  trained on {net.record.stored}")
        typer.echo(f"  trials     {'in order' if schema.ordered else 'in any order'}{reach}")
        error = net.estimated_error
        if error is not None:
            typer.echo(f"  error      {error}, {PART_NAMES[error.part]}")
        if name is not None:
            about = inspect.getdoc(type(simulator_of(net))) or ""
            # Without what a programmer gives the simulator.
            typer.echo(f"\n{about.split(chr(10) + 'Args:')[0].rstrip()}")
    if name is None:
        typer.echo("`ppl-buffer zoo NAME` says what the variables of one mean.")
