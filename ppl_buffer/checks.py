"""Checks of plain arguments, whose messages name the argument, what was expected and what came."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_integer(value: Any, least: int = 1) -> bool:
    """Whether a value is an integer of at least `least`; a boolean is none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


def check_integer(argument: str, value: Any, least: int = 1) -> int:
    """The value as an integer.

    Raises:
        ValueError: if it is none, or below `least`.
    """
    if not is_integer(value, least):
        raise ValueError(f"{argument}: expected an integer of at least {least}, got {value!r}")
    return int(value)


def check_choice(argument: str, value: Any, choices: tuple[str, ...]) -> str:
    """The value, which is one of some words.

    Raises:
        ValueError: if it is another.
    """
    if value not in choices:
        raise ValueError(f"{argument}: expected one of {list(choices)}, got {value!r}")
    return str(value)
