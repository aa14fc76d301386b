"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

Table = Annotated[Path, typer.Argument(help="CSV file: a row a trial, in the order in which each person did them.")]
Model = Annotated[str, typer.Option("--model", help="A name of the zoo (see `ppl-buffer zoo`), or a checkpoint file.")]
Subject = Annotated[str, typer.Option(help="Column that tells people apart.")]
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


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Say what a user did wrong without a traceback."""
    try:
        yield
    except (ValueError, FileNotFoundError, ImportError) as error:
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from None


def read_pairs(option: str, text: str) -> dict[str, str]:
    """``a=b,c=d`` as a dict.

    Raises:
        ValueError: if a part is no pair.
    """
    pairs = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equal, value = part.partition("=")
        if not (equal and name.strip() and value.strip()):
            raise ValueError(f"--{option}: expected NAME=VALUE, separated by commas, got {part!r}")
        pairs[name.strip()] = value.strip()
    return pairs


def read_numbers(option: str, text: str) -> dict[str, float]:
    """``a=1,b=0.5`` as a dict of numbers.

    Raises:
        ValueError: if a part is no pair, or its value no number.
    """
    pairs = read_pairs(option, text)
    try:
        return {name: float(value) for name, value in pairs.items()}
    except ValueError:
        raise ValueError(f"--{option}: expected numbers after '=', got {pairs}") from None


def read_range(option: str, text: str) -> tuple[int, int]:
    """``5`` or ``5-7`` as the least and the greatest.

    Raises:
        ValueError: if it is neither.
    """
    match = re.fullmatch(r"(\d+)(?:[-,:](\d+))?", text.strip())
    if match is None:
        raise ValueError(f"--{option}: expected a number, or LEAST-GREATEST, got {text!r}")
    return int(match[1]), int(match[2] or match[1])
