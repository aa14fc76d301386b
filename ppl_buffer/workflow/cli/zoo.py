"""``ppl-buffer zoo``."""

from __future__ import annotations

import typer

from ppl_buffer.network import zoo as networks
from ppl_buffer.network.checkpoint import load


def zoo() -> None:
    """List the shipped networks, and what each reads from a table."""
    for entry in networks.zoo():
        net = load(entry.name)
        schema = net.schema
        typer.secho(entry.name, bold=True)
        typer.echo(f"  simulator  {entry.simulator}, {entry.weights:,} weights, {entry.bytes / 1e6:.2f} MB")
        ranges = [f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in net.box.items()]
        typer.echo(f"  parameters {', '.join(ranges)}")
        for group, variables in (
            ("inputs", schema.inputs), ("outcomes", schema.outcomes), ("feedback", schema.feedback)
        ):  # fmt: skip
            if variables:
                described = [f"{name} ({x.description})" for name, x in variables.items()]
                typer.echo(f"  {group:10} {', '.join(described)}")
        reach = "" if net.record is None else f", up to {net.record.trials}"
        typer.echo(f"  trials     {'in order' if schema.ordered else 'in any order'}{reach}")
