"""The commands, together."""

from __future__ import annotations

from typing import Annotated

import typer

from ppl_buffer.workflow.cli.check import check
from ppl_buffer.workflow.cli.compiled import keep_compiled
from ppl_buffer.workflow.cli.demo import demo
from ppl_buffer.workflow.cli.evidence import compare, evidence
from ppl_buffer.workflow.cli.fit import fit
from ppl_buffer.workflow.cli.train import train
from ppl_buffer.workflow.cli.zoo import zoo

app = typer.Typer(
    name="ppl-buffer",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def shared(
    keep: Annotated[
        bool,
        typer.Option(
            "--keep-compiled/--no-keep-compiled",
            help="Keep what JAX compiles for the next command, which then begins sooner. "
            "JAX_COMPILATION_CACHE_DIR says where.",
        ),
    ] = True,
) -> None:
    """Fit, compare and check models of dependent trials, with likelihoods learnt from simulators."""
    keep_compiled(keep)


for command in (zoo, fit, demo, evidence, compare, check, train):
    app.command()(command)
