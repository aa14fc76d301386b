"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated

import typer

from ppl_buffer.network.lapses import Lapse

Table = Annotated[Path, typer.Argument(help="CSV file: a row a trial.")]
Model = Annotated[str, typer.Option("--model", help="A name of the zoo (see `ppl-buffer zoo`), or a checkpoint file.")]
Subject = Annotated[
    str,
    typer.Option(help="Column that tells people apart; subject,session where each session begins as a new person."),
]
Session = Annotated[
    str | None,
    typer.Option(
        help="Columns that divide a person's trials into data sets, each of which begins anew; whose they are stays "
        "known, so that formulas group by subject."
    ),
]
Where = Annotated[
    str | None,
    typer.Option(help="Rows that count, a condition on the table's columns: \"instruction == 'speed' and rt < 3\"."),
]
TrialOrder = Annotated[
    str | None,
    typer.Option(
        help="Columns that give the order of a person's trials, such as block,trial; 'file' where rows lie in it. "
        "By default a column named trial counts."
    ),
]
Signed = Annotated[
    str, typer.Option(help="Outcome for which the sign of another stands: rt=choice, where negative is 0.")
]
Outside = Annotated[
    str,
    typer.Option(help="Values unlike the training's: 'error' refuses what can hardly be data; 'warn'; 'ignore'."),
]
Columns = Annotated[
    str, typer.Option(help="Columns of the model's variables: choice=response,reward=feedback,pair=cond.")
]
Recode = Annotated[
    list[str] | None,
    typer.Option(help="Numbers of a variable's codes, such as choice:left=0,right=1. May be given several times."),
]
Scale = Annotated[
    list[str] | None,
    typer.Option(help="Factor for a variable, such as rt=0.001 for milliseconds. May be given several times."),
]
MissingCodes = Annotated[
    list[str] | None,
    typer.Option(
        "--missing",
        help="Cells in which an outcome is missing: empty, or a code such as -999; of one outcome: choice=-1. May be "
        "given several times. What is known of such trials counts; without it they are refused.",
    ),
]
Deadline = Annotated[
    str | None,
    typer.Option(
        help="Time after which a response counts as none, in the table's unit, or the column that holds it: trials "
        "without any outcome are then responses that did not come in time."
    ),
]
Withheld = Annotated[
    str, typer.Option(help="Choice that is made by not responding, in a go/no-go task with a deadline: choice=0.")
]
LapseRate = Annotated[
    str | None,
    typer.Option(
        "--lapse",
        help="Probability that a trial is a lapse, of which the model says nothing; 0.02 suits response times. Or "
        "'estimate'.",
    ),
]
LapseRange = Annotated[
    list[str] | None,
    typer.Option(
        help="Where a lapse's outcome can lie, such as rt=0,2.5 for a deadline of 2.5 s; by default from 0 to the "
        "slowest response. May be given several times."
    ),
]
Likelihood = Annotated[
    str,
    typer.Option(
        help="Which part of the network computes where all parameters are given: 'direct', its direct likelihood, or "
        "'buffer', its buffered transformer; 'auto' takes the one with the less error."
    ),
]
SimulatorOption = Annotated[
    str | None,
    typer.Option(help="Simulator of a network of your own, my_module:MySimulator. Known for the zoo's."),
]
Out = Annotated[Path, typer.Option(help="Folder for the results, made if it does not exist.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Warmup = Annotated[int, typer.Option(min=1, help="Warm-up draws of each chain.")]
Draws = Annotated[int, typer.Option(min=4, help="Kept draws of each chain.")]
PredictiveDraws = Annotated[int, typer.Option(min=1, help="Data sets drawn from the posterior.")]
Progress = Annotated[bool, typer.Option(help="Show progress bars.")]
Orders = Annotated[int, typer.Option(min=1, help="Orders of the trials of the autoregressive method.")]
ParameterDraws = Annotated[int, typer.Option(min=1, help="Parameter draws of the importance method.")]


def read_lapse(rate: str | None, ranges: list[str] | None) -> Lapse | None:
    """Lapses as ``--lapse`` and ``--lapse-range`` describe them; None = there are none.

    Raises:
        ValueError: if the rate is no probability, or a range is no pair of numbers or has no rate.
    """
    bounds = {}
    for text in ranges or []:
        name, equal, pair = text.partition("=")
        try:
            low, high = map(float, pair.split(","))
        except ValueError:
            raise ValueError(f"--lapse-range: expected NAME=LOW,HIGH, got {text!r}") from None
        bounds[name.strip()] = (low, high)
    if rate is None:
        if bounds:
            raise ValueError("--lapse-range: expected a rate as well: --lapse 0.02, or --lapse estimate")
        return None
    if rate == "estimate":
        return Lapse(ranges=bounds)
    try:
        known = float(rate)
    except ValueError:
        known = math.nan
    if not 0 <= known <= 1:
        raise ValueError(f"--lapse: expected a probability, such as 0.02, or 'estimate', got {rate!r}")
    return Lapse(known, bounds) if known else None


def said(lapse: Lapse) -> str:
    """Lapses in words: how often, and where their outcomes lie."""
    rate = "lapses, their rate integrated out" if lapse.prior is not None else f"{lapse.rate:.1%} lapses"
    where = "".join(f", {name} uniform over {low:g} to {high:g}" for name, (low, high) in lapse.ranges.items())
    return rate + where


def read_range(option: str, text: str) -> tuple[int, int]:
    """``5`` or ``5-7`` as the least and the greatest.

    Raises:
        ValueError: if it is neither.
    """
    match = re.fullmatch(r"(\d+)(?:[-,:](\d+))?", text.strip())
    if match is None:
        raise ValueError(f"--{option}: expected a number, or LEAST-GREATEST, got {text!r}")
    return int(match[1]), int(match[2] or match[1])
