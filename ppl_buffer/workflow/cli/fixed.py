"""Options of ``evidence`` and ``compare`` about parameters that are not integrated over: values and equalities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ppl_buffer.network.network import Network
from ppl_buffer.workflow.cli.parsing import read_pairs

# Parameter -> its value, or the name of another one that it equals.
Fixed = dict[str, float | str]

FixOfModel = Annotated[
    list[str] | None,
    typer.Option(
        "--fix",
        help="A parameter that is not integrated over: forgetting=0, or alpha_negative=alpha_positive where it equals "
        "another one. May be given several times.",
    ),
]
FixOfModels = Annotated[
    list[str] | None,
    typer.Option(
        "--fix",
        help="Parameters that are not integrated over, of a model by its name: 'no forgetting:forgetting=0,lapse=0', "
        "or 'one rate:alpha_negative=alpha_positive' where one equals another; without a name of all models. May be "
        "given several times.",
    ),
]
Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        help="Two models or more: give the option for each. 'one rate=q_learning' gives a network another name, so "
        "that one network may stand for several models, see --fix.",
    ),
]


def read_models(texts: Sequence[str]) -> dict[str, str]:
    """``NETWORK`` or ``NAME=NETWORK``, several times, as a dict of name to network.

    Raises:
        ValueError: if there are fewer than two names.
    """
    models: dict[str, str] = {}
    for text in texts:
        name, equal, network = (part.strip() for part in text.partition("="))
        # A file may be called so.
        whole = not equal or Path(text).exists()
        if not whole and not (name and network):
            raise ValueError(f"--model: expected NETWORK or NAME=NETWORK, got {text!r}")
        models[text if whole else name] = text if whole else network
    if len(models) < 2 or len(models) < len(texts):
        raise ValueError(
            f"model: expected two different ones or more, got {list(texts)}: --model FIRST --model SECOND; one network "
            "stands for several models as --model NAME=NETWORK, each with a name and a --fix of its own"
        )
    return models


def read_fixed_values(texts: Sequence[str], net: Network) -> Fixed:
    """``NAME=NUMBER`` or ``NAME=NAME``, with commas between or several times.

    Raises:
        ValueError: if a text is of another form, there is no such parameter, or a name comes twice.
    """
    fixed: Fixed = {}
    names = list(net.schema.params)
    for name, text in read_pairs("fix", ",".join(texts)).items():
        value = _value(text)
        if name not in names or (isinstance(value, str) and (value not in names or value == name)):
            raise ValueError(
                f"--fix: expected NAME=NUMBER, or NAME=OTHER where two are equal, of parameters of {names}, got "
                f"{f'{name}={text}'!r}"
            )
        fixed[name] = value
    return fixed


def read_fixed_models(texts: Sequence[str], nets: Mapping[str, Network]) -> dict[str, Fixed]:
    """``MODEL:NAME=NUMBER`` or ``NAME=NUMBER``, the latter of all models, several times: model -> what is fixed in it.

    Raises:
        ValueError: as `read_fixed_values`, if there is no such model, or a network stands for the same model twice.
    """
    of_model: dict[str, list[str]] = {name: [] for name in nets}
    for text in texts:
        whose = [name for name in nets if text.strip().startswith(f"{name}:")]
        if not whose and ":" in text:
            raise ValueError(f"--fix: expected MODEL:NAME=NUMBER of a model of {list(nets)}, got {text!r}")
        # Of two names the longer one, of which the other is the beginning.
        longest = max(whose, key=len, default=None)
        for name in nets if longest is None else [longest]:
            of_model[name].append(text if longest is None else text.strip()[len(longest) + 1 :])
    fixed = {name: read_fixed_values(of_model[name], net) for name, net in nets.items()}
    models = list(nets)
    for place, one in enumerate(models):
        same = [name for name in models[:place] if nets[name] is nets[one] and fixed[name] == fixed[one]]
        if same:
            raise ValueError(
                f"--fix: expected something else in {one!r} than in {same[0]!r}, which is the same network, got "
                f"{fixed[one] or 'nothing'} in both"
            )
    return fixed


def _value(text: str) -> float | str:
    """A number, or the name of a parameter."""
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
