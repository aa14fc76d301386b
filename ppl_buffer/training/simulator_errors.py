"""Errors that a simulator raises: with the line of it, and with what it was given."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

_PACKAGE = Path(__file__).parents[1]


@contextmanager
def inside(method: str, given: Mapping[str, object]) -> Iterator[None]:
    """Add to an error in the body a note of the method's name, its line and what it was given.

    An error about shapes that do not fit says little without these, and the command line shows no traceback.

    Args:
        method: of the simulator.
        given: argument -> dict of arrays, of which the shapes are described, or a value.
    """
    try:
        yield
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        outside = [frame for frame in frames if not Path(frame.filename).is_relative_to(_PACKAGE)]
        where = f", {outside[0].filename}, line {outside[0].lineno}" if outside else ""
        described = []
        for name, value in given.items():
            if isinstance(value, Mapping):
                described += [f"{name}[{key!r}] of shape {np.shape(x)}" for key, x in value.items()]
            else:
                described.append(f"{name}={value}")
        error.add_note(f"Raised in simulator.{method}{where}, which was given {', '.join(described) or 'nothing'}.")
        raise
