"""Checks of plain arguments, whose messages name the argument, what was expected and what came."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeGuard, TypeVar

import numpy as np

from ppl_buffer.files import to_numpy

Value = TypeVar("Value")


def is_integer(value: object, least: int = 1) -> TypeGuard[int]:
    """Whether a value is an integer of at least `least`; a boolean is none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


def check_integer(argument: str, value: object, least: int = 1) -> int:
    """The value as an integer.

    Raises:
        ValueError: if it is none, or below `least`.
    """
    if not is_integer(value, least):
        raise ValueError(f"{argument}: expected an integer of at least {least}, got {value!r}")
    return int(value)


def check_number(argument: str, value: object, expected: str, legal: Callable[[float], bool]) -> float:
    """The value as a number; NumPy's numbers count, booleans do not.

    Args:
        argument: its name.
        value: what came.
        expected: what a legal one is, for the message.
        legal: whether a finite number is one.

    Raises:
        ValueError: if it is no finite number, or not a legal one.
    """
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        with suppress(OverflowError):  # of an integer that is too large
            number = float(value)
            if math.isfinite(number) and legal(number):
                return number
    raise ValueError(f"{argument}: expected {expected}, got {value!r}")


def check_flag(argument: str, value: object) -> bool:
    """The value as a boolean.

    Raises:
        ValueError: if it is none: a word such as "no" would count as true.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{argument}: expected True or False, got {value!r}")
    return bool(value)


def check_path(argument: str, value: object) -> Path:
    """The value as a path.

    Raises:
        ValueError: if it is neither text nor a path, or empty.
    """
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise ValueError(f"{argument}: expected a path, got {value!r}")
    return Path(value)


def check_choice(argument: str, value: object, choices: tuple[str, ...]) -> str:
    """The value, which is one of some words.

    Raises:
        ValueError: if it is another.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{argument}: expected one of {list(choices)}, got {value!r}")
    return str(value)


def check_seed(value: object, argument: str = "seed") -> int:
    """The value as a seed of random numbers.

    Raises:
        ValueError: if it is no integer from 0 to 2**63 - 1.
    """
    if not is_integer(value, 0) or int(value) >= 2**63:  # type: ignore[call-overload]
        raise ValueError(f"{argument}: expected an integer from 0 to 2**63 - 1, got {value!r}")
    return int(value)  # type: ignore[call-overload, no-any-return]


def check_mapping(argument: str, value: Mapping[str, Value] | None) -> Mapping[str, Value]:
    """The value, which is a dict whose names are text; None is an empty one.

    Raises:
        ValueError: if it is another.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{argument}: expected a dict of names, got {type(value).__name__}")
    wrong = [name for name in value if not isinstance(name, str)]
    if wrong:
        raise ValueError(f"{argument}: expected a dict of names, got {wrong[0]!r} as one of them")
    return value


def check_numbers(argument: str, values: object) -> np.ndarray:
    """The values as an array in double precision, of any shape; of any library.

    Raises:
        ValueError: if they are no real numbers.
    """
    try:
        array = np.asarray(to_numpy(values))
        if array.dtype.kind in "biuf" or array.dtype.kind == "O" and all(map(_is_real, array.reshape(-1))):
            return array.astype(float)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{argument}: expected an array of numbers, got {values!r}") from None
    example = array.reshape(-1)[0].item() if array.size and array.dtype.kind != "O" else values
    if array.dtype.kind == "O" and array.ndim:
        example = next(x for x in array.reshape(-1) if not _is_real(x))
    raise ValueError(f"{argument}: expected an array of numbers, got {example!r}")


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, np.complexfloating)
