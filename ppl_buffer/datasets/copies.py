"""Rows of a table that are there twice because somebody pasted them twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ppl_buffer.datasets.cells import Table
from ppl_buffer.findings import Finding, warn_of

SubjectRows = dict[str, np.ndarray]
# Rows that, if they come again one after the other, were probably pasted: by chance they hardly do.
_PASTED = 10


def check_copies(table: Table, subjects: SubjectRows, trial: str | None, column: str, *, otherwise: str) -> None:
    """Refuse rows that come twice; say where they may be what somebody did twice.

    Args:
        table: of trials.
        subjects: rows of each.
        trial: column that numbers trials, None where there is none.
        column: another, looked at first where there is none.
        otherwise: what to write if the rows are no copies.

    Raises:
        ValueError: if a person has rows twice, the number of the trial included, or has all rows several times.
    """
    first = np.array(table.column(column if trial is None else trial), dtype=object)
    for label, rows in subjects.items():
        # Most people are cleared by one column.
        if not _repeats(first[rows].tolist()) if trial is None else len(set(first[rows])) == len(rows):
            continue
        content = table.rows(rows)
        different = len(set(content))
        if trial is not None:
            # Where rows are told apart by what somebody did (a response time, say), one row is enough; where they are
            # alike but for their number, as choices are, it takes several in line.
            telling = len(set(table.rows(rows, without=trial))) > different / 2
            copy = _copied(content, 1 if telling else _PASTED)
            if copy is not None:
                raise ValueError(
                    f"{table.source}: subject {label} has the same row twice, the number of the trial included "
                    f"({table.where_both(rows[copy[0]], rows[copy[1]])}): was something pasted twice? Delete copies; "
                    f"{otherwise}"
                )
        elif times := _repeats(content):
            part = len(content) // times
            what = f"{table.source}: the {len(content)} rows of subject {label} are {times} times the same {part}"
            # Few different rows may be somebody who always does the same.
            if part >= _PASTED and different > part / 2:
                raise ValueError(f"{what}: was something pasted twice? Delete copies; {otherwise}")
            warn_of(Finding("table", f"{what}: was something pasted twice?"), stacklevel=5)


def _copied(rows: Sequence[object], length: int) -> tuple[int, int] | None:
    """The first of `length` rows in line that come again in line, and where they do."""
    places: dict[object, list[int]] = {}
    runs: dict[int, int] = {}  # by their distance: how many rows, up to the last one, are those so far before them
    for index, row in enumerate(rows):
        earlier = places.setdefault(row, [])
        runs = {index - place: runs.get(index - place, 0) + 1 for place in earlier}
        for distance, run in runs.items():
            if run >= length:
                return index - distance - length + 1, index - length + 1
        earlier.append(index)
    return None


def _repeats(rows: Sequence[object]) -> int:
    """How often the first part of some rows, as short as it may be, makes all of them; 0 where that is once."""
    for times in (4, 3, 2):
        part, rest = divmod(len(rows), times)
        if rest or part < _PASTED / 2:
            continue
        if all(rows[index] == rows[index % part] for index in range(part, len(rows))):
            return times
    return 0
