"""A table of trials as the commands' options describe it."""

from __future__ import annotations

import warnings
from pathlib import Path

import typer

from ppl_buffer.datasets import TrialData, read_trials
from ppl_buffer.network.network import Network
from ppl_buffer.simulator import Simulator
from ppl_buffer.workflow.cli.options import read_numbers, read_pairs


def read_table(
    path: Path,
    net: Network,
    simulator: Simulator | None,
    *,
    subject: str,
    columns: str,
    recode: list[str] | None,
    scale: list[str] | None,
) -> TrialData:
    """Read a table for a network, and say what is warned of.

    Raises:
        ValueError: if the options or the table are wrong.
        FileNotFoundError: if there is no such file.
    """
    codes = {}
    for text in recode or []:
        name, colon, rest = text.partition(":")
        if not colon:
            raise ValueError(f"--recode: expected NAME:OLD=NEW,OLD=NEW, got {text!r}")
        codes[name] = read_numbers("recode", rest)
    factors = read_numbers("scale", ",".join(scale or []))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trials = read_trials(
            path,
            net,
            subject=subject,
            columns=read_pairs("columns", columns),
            recode=codes,
            scale=factors,
            simulator=simulator,
        )
    for warning in caught:
        typer.secho(str(warning.message), fg=typer.colors.YELLOW, err=True)
    return trials
