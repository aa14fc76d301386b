"""The shipped networks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import overload

from ppl_buffer.network.checkpoint import read_description, shipped
from ppl_buffer.network.estimated_error import PARTS
from ppl_buffer.network.parts import LIKELIHOOD as DIRECT


@dataclass(frozen=True)
class ZooEntry:
    """One shipped network.

    Attributes:
        name: what `load` takes.
        simulator: what it was trained on.
        parts: "likelihood", which computes where all parameters are given, and "buffer", which answers everything else.
        weights: how many numbers it has.
        bytes: size of the file.
        measured: figures of its card, as its benchmarks wrote them; empty if there are none.
    """

    name: str
    simulator: str
    parts: tuple[str, ...]
    weights: int
    bytes: int
    measured: Mapping[str, float]


class Zoo(Sequence[ZooEntry]):
    """The shipped networks: a sequence of `ZooEntry` that prints as a table."""

    def __init__(self, entries: Sequence[ZooEntry]) -> None:
        self._entries = tuple(entries)

    @overload
    def __getitem__(self, index: int) -> ZooEntry: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ZooEntry]: ...

    def __getitem__(self, index: int | slice) -> ZooEntry | Sequence[ZooEntry]:
        """The entry at an index, or those of a slice."""
        return self._entries[index]

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._entries)

    def __iter__(self) -> Iterator[ZooEntry]:
        """Go through the entries."""
        return iter(self._entries)

    def __repr__(self) -> str:
        rows = [("name", "simulator", "parts", "weights", "size", "measured")]
        for entry in self:
            figures = ", ".join(f"{name} {_figure(value)}" for name, value in entry.measured.items())
            size = f"{entry.bytes / 1e6:.2f} MB"
            rows.append((entry.name, entry.simulator, " + ".join(entry.parts), f"{entry.weights:,}", size, figures))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = ["  ".join([*(cell.ljust(n) for cell, n in zip(row, widths, strict=False)), row[5]]) for row in rows]
        return "\n".join(line.rstrip() for line in lines)


def _figure(value: float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def zoo() -> Zoo:
    """The shipped networks: name, simulator, parts, number of weights, size of the file and what was measured."""
    entries = []
    for name, file in sorted(shipped().items()):
        with resources.as_file(file) as path:
            description, arrays = read_description(path)
            size = path.stat().st_size
        figures = resources.files("ppl_buffer") / "pretrained" / f"{name}.json"
        measured = json.loads(figures.read_text(encoding="utf-8")) if figures.is_file() else {}
        simulator = (description.get("record") or {}).get("simulator", "")
        direct = {key.startswith(DIRECT) for key in arrays}
        parts = tuple(part for part, present in zip(PARTS, (True, False), strict=True) if present in direct)
        entries.append(ZooEntry(name, simulator, parts, sum(array.size for array in arrays.values()), size, measured))
    return Zoo(entries)
