"""Options of ``fit`` about formulas, and all of its options from a TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ppl_buffer.prior import FAMILIES, Prior
from ppl_buffer.workflow.cli.errors import plain_errors
from ppl_buffer.workflow.cli.parsing import read_numbers

Formula = Annotated[
    list[str] | None,
    typer.Option(
        help="How a parameter depends on covariates, groups and subjects: 'drift ~ condition + (1 + condition | "
        "subject)'. By default 'PARAMETER ~ 1 + (1 | subject)'. May be given several times."
    ),
]
Fix = Annotated[
    list[str] | None,
    typer.Option(help="A parameter that is not estimated, starting_point=0.5. May be given several times."),
]
PriorOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Prior of a coefficient or a spread on the real line: 'drift~condition=Normal(0, 0.5)'. May be given "
        "several times."
    ),
]
Correlated = Annotated[
    bool, typer.Option(help="Random effects of a factor in a formula are correlated, or independent.")
]
_PRIOR = re.compile(r"(?P<site>.+?)\s*=\s*(?P<family>[A-Za-z]+)\s*\((?P<numbers>[^()]*)\)\s*")


def read_fixed(texts: Sequence[str]) -> dict[str, float]:
    """``NAME=NUMBER``, several times.

    Raises:
        ValueError: if a text is of another form, or a name comes twice.
    """
    return read_numbers("fix", ",".join(texts))


def read_priors(texts: Sequence[str]) -> dict[str, Prior]:
    """``SITE=Family(number, number)``, several times; the numbers are those of `ppl_buffer.Prior`, in its order.

    Raises:
        ValueError: if a text is of another form, there is no such family, or a site comes twice.
    """
    priors: dict[str, Prior] = {}
    for text in texts:
        match = _PRIOR.fullmatch(text.strip())
        if match is None or match["family"] not in FAMILIES or match["site"] in priors:
            raise ValueError(
                f"--prior: expected SITE=FAMILY(NUMBERS) once a site, such as 'drift~condition=Normal(0, 0.5)', where "
                f"FAMILY is one of {sorted(FAMILIES)}, got {text!r}"
            )
        names, parts = FAMILIES[match["family"]].arguments, match["numbers"].split(",")
        try:
            arguments = dict(zip(names, map(float, parts), strict=True))
        except ValueError:
            raise ValueError(
                f"--prior: expected {match['family']}({', '.join(names)}), numbers all, got {text!r}"
            ) from None
        priors[match["site"]] = Prior(match["family"], arguments)
    return priors


def take_options(context: typer.Context, path: Path | None) -> Path | None:
    """Let a file's options stand in for those that the command line does not give."""
    if path is not None:
        with plain_errors():
            given = _read(path, {str(parameter.name) for parameter in context.command.params} - {"options"})
        context.default_map = {**(context.default_map or {}), **given}
    return path


OptionsFile = Annotated[
    Path | None,
    typer.Option(
        is_eager=True,
        callback=take_options,
        help="TOML file of options: chains = 4, formula = ['drift ~ condition']. The command line overrides it.",
    ),
]


def _read(path: Path, names: set[str]) -> dict[str, object]:
    """Options of a file by the names of arguments."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"--options: {path} is no TOML: {error}") from None
    options = {name.replace("-", "_"): value for name, value in given.items()}
    unknown = sorted(set(options) - names)
    if unknown:
        raise ValueError(f"--options: {path}: there is no option {', '.join(map(repr, unknown))}")
    for name, value in options.items():
        if isinstance(value, dict):
            raise ValueError(f"--options: {path}: expected text, numbers or a list of texts for {name!r}, got a table")
    return options
