"""Values that nobody would pass on purpose, and calls in which one of them stands in an argument's place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ODD = [
    None, True, False, 0, -1, 2, 1.5, np.nan, np.inf, -np.inf, 1e39, "text", "", b"bytes", [], {}, (), [1, 2], {"a": 1},
    {1: 2}, object(), lambda *_: 0, np.float32(0.5), np.zeros(()), np.zeros(0), np.zeros(3), np.zeros((2, 5)),
    np.full((2, 5), np.nan), np.full((2, 5), 1e39), np.zeros((3, 5)), np.zeros((2, 2, 5)), np.array(["a", "b"]),
    np.array([None, 1], dtype=object), np.zeros((2, 5)) * 1j, np.zeros((2, 5), bool), np.zeros((2, 5), "M8[s]"),
    np.zeros((2, 0)), [[1, 2], [3]], range(3), set(), Path("nowhere"),
]  # fmt: skip


def replaced(arguments: Mapping[str, Any], values: Sequence[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each argument, and each entry of a dict, replaced by each value in turn; and what was replaced by what."""
    for name, given in arguments.items():
        for value in values:
            yield f"{name} = {value!r}", {**arguments, name: value}
        if isinstance(given, Mapping):
            for key in given:
                rest = {other: x for other, x in given.items() if other != key}
                yield f"{name} without {key}", {**arguments, name: rest}
                for value in values:
                    yield f"{name}[{key!r}] = {value!r}", {**arguments, name: {**given, key: value}}
            for key in (1, None, "unknown"):
                yield f"{name} with {key!r}", {**arguments, name: {**given, key: 1.0}}
