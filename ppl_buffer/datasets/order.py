"""The order in which each person did their trials: what a table says of it, and where it says nothing certain."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ppl_buffer.datasets.cells import Table, to_numbers
from ppl_buffer.datasets.columns import listed
from ppl_buffer.datasets.copies import SubjectRows, check_copies
from ppl_buffer.findings import Finding, warn_of

# Names of columns that number trials, and those of blocks, the longer ones first; without capitals and punctuation.
_TRIALS = re.compile(r"trials?(number|num|no|nr|idx|index|count(er)?|thisn)?|(number|index)oftrial")
_BLOCKS = tuple(re.compile(f"{name}s?(number|num|no|nr|idx|index|id)?") for name in ("session", "run", "block"))
_DATES = re.compile(r"\d{4}-\d\d-\d\d.*|\d\d:\d\d:\d\d.*", re.ASCII)
AS_IT_LIES = "file"
_WHY_FILE = f"if the rows lie in the order in which they were done: --order {AS_IT_LIES}"
_SKIPPED = 0.1  # share of the numbers of trials that may be absent
_SHOWN = 5


@dataclass(frozen=True)
class _Numbering:
    """Columns that number trials (None where there is none), that name or number blocks, and those of subjects."""

    trial: str | None
    parts: list[str]
    blocks: list[str]
    subject: list[str]

    @classmethod
    def of(cls, table: Table, subject_columns: Sequence[str], used: Mapping[str, str]) -> _Numbering:
        """By the names of columns that are not used otherwise."""
        otherwise = [heading for name, heading in used.items() if not _TRIALS.fullmatch(_plain(name))]
        plain = {
            name: _plain(name)
            for name in table.headings
            if name and name not in otherwise and name not in subject_columns
        }
        trial = next((name for name, text in plain.items() if _TRIALS.fullmatch(text)), None)
        parts = [name for pattern in _BLOCKS for name, text in plain.items() if pattern.fullmatch(text)]
        blocks = [name for name in parts if not np.isnan(_numbers(table, name)).any()]
        return cls(trial, parts, blocks, list(subject_columns))


def trial_order(
    table: Table,
    labels: np.ndarray,
    order: str | Sequence[str] | None,
    *,
    subject_columns: Sequence[str],
    ordered: bool,
    used: Mapping[str, str],
) -> np.ndarray:
    """Rows in the order in which each person did them, (rows,).

    Args:
        table: of trials.
        labels: (rows,) of the person of each row.
        order: columns whose numbers give the order, the one that changes most slowly first; 'file' = rows as they
            lie; None = columns whose names say that they number trials or blocks.
        subject_columns: those that tell people apart.
        ordered: whether the model reads trials in order.
        used: variable of the model -> its column, which numbers trials only if the variable is called so.

    Raises:
        ValueError: if the order is not certain, or rows come twice.
    """
    rows = np.arange(len(labels))
    if order == AS_IT_LIES:
        return rows
    subjects = _rows_of_subjects(labels)
    if order is not None:
        return _sorted_by(table, [order] if isinstance(order, str) else list(order), subjects)
    numbering = _Numbering.of(table, subject_columns, used)
    check_copies(table, subjects, numbering.trial, next(iter(used.values())), otherwise=_WHY_FILE)
    if not ordered:
        return rows
    if numbering.trial is None:
        _check_blocks(table, numbering.blocks, subjects)
    else:
        rows = _by_trial(table, numbering.trial, numbering, subjects)
    _say_blocks(table, numbering, subjects)
    return rows


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _rows_of_subjects(labels: np.ndarray) -> SubjectRows:
    """Rows of each label as they lie."""
    unique, code = np.unique(labels, return_inverse=True)
    by_subject = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])
    return dict(zip(unique.tolist(), by_subject, strict=True))


def _numbers(table: Table, column: str) -> np.ndarray:
    return to_numbers(table.column(column), f"{table.source}: column {column!r}")


def _by_trial(table: Table, trial: str, numbering: _Numbering, subjects: SubjectRows) -> np.ndarray:
    """Sorted by the number of the trial, which each person has once."""
    numbers = _numbers(table, trial)
    absent = np.isnan(numbers)
    if absent.any():
        raise ValueError(
            f"{table.source}: column {trial!r} has no number in {table.where(absent)}, so that the order of the trials "
            f"is not certain: write numbers, or, {_WHY_FILE}"
        )
    order = np.arange(len(table))
    moved, gaps = [], []
    for label, rows in subjects.items():
        values = numbers[rows]
        if len(np.unique(values)) < len(values):
            raise _restarts(table, trial, numbering, label, rows)
        if (np.diff(values) < 0).any():
            moved.append(label)
            order[rows] = rows[np.argsort(values)]
        steps = np.diff(np.sort(values))
        if len(np.unique(steps)) > 1 and len(values) < (1 - _SKIPPED) * (1 + np.ptp(values)):
            gaps.append(label)
    if moved:
        _say(
            f"{table.source}: rows of {_who(moved)} did not lie in the order of column {trial!r}, and were sorted "
            f"by it; {_WHY_FILE}"
        )
    if gaps:
        _say(
            f"{table.source}: the numbers of column {trial!r} skip more than {_SKIPPED:.0%} of the trials of "
            f"{_who(gaps)}. The model reads trials in order and takes it that nothing happened between two rows; "
            "do not leave out trials from which somebody learnt"
        )
    return order


def _restarts(table: Table, trial: str, numbering: _Numbering, label: str, rows: np.ndarray) -> ValueError:
    """What to do where a person has a number of a trial more than once."""
    values = _numbers(table, trial)[rows]
    seen: dict[float, int] = {}
    again = next(index for index, value in enumerate(values.tolist()) if seen.setdefault(value, index) != index)
    where = table.where_both(rows[seen[float(values[again])]], rows[again])
    message = (
        f"{table.source}: subject {label} has trial {values[again]:g} of column {trial!r} more than once ({where}), so "
        "that the order of the trials is not certain"
    )
    columns = {block: _numbers(table, block)[rows] for block in numbering.blocks}
    telling = [block for block, numbers in columns.items() if len(np.unique(numbers)) > 1]
    keys = set(zip(*(columns[block] for block in telling), values, strict=True))
    if telling and len(keys) == len(rows):
        return ValueError(
            f"{message}: it starts again in every {' and '.join(telling)}. If a person goes on from one to the next, "
            f"write --order {shlex.quote(','.join([*telling, trial]))}; if each begins anew, as another person would, "
            f"write --subject {shlex.quote(','.join([*numbering.subject, *telling]))}, or --session "
            f"{shlex.quote(','.join(telling))}, where whose they are should stay known; {_WHY_FILE}"
        )
    return ValueError(
        f"{message}. Add a column of blocks or sessions that tells them apart and write --order BLOCK,{trial}, or "
        f"delete copies; {_WHY_FILE}"
    )


def _check_blocks(table: Table, blocks: list[str], subjects: SubjectRows) -> None:
    """Refuse rows that do not lie in the order of their blocks, where nothing numbers the trials."""
    if not blocks:
        return
    numbers = np.stack([_numbers(table, block) for block in blocks], axis=-1)
    for label, rows in subjects.items():
        keys = [tuple(row) for row in numbers[rows].tolist()]
        if any(later < earlier for earlier, later in itertools.pairwise(keys)):
            raise ValueError(
                f"{table.source}: rows of subject {label} do not lie in the order of {listed(blocks)}, and no column "
                f"numbers the trials. To sort by it, write --order {shlex.quote(','.join(blocks))}; {_WHY_FILE}"
            )


def _say_blocks(table: Table, numbering: _Numbering, subjects: SubjectRows) -> None:
    """Say that a person goes on from one block to the next."""
    for part in numbering.parts:
        cells = np.array(table.column(part), dtype=object)
        if any(len(set(cells[rows])) > 1 for rows in subjects.values()):
            anew = shlex.quote(",".join([*numbering.subject, part]))
            going_on = AS_IT_LIES if numbering.trial is None else shlex.quote(numbering.trial)
            _say(
                f"{table.source}: column {part!r} divides the trials of a person, who is taken to go on from one to "
                f"the next: --order {going_on} says so. If each begins anew, as another person would, write --subject "
                f"{anew}, or --session {shlex.quote(part)}, where whose they are should stay known"
            )
            return


def _sorted_by(table: Table, columns: list[str], subjects: SubjectRows) -> np.ndarray:
    """Sorted by columns that the user names; rows that these do not tell apart must lie together."""
    keys = np.stack([_key(table, column) for column in columns])
    order = np.arange(len(table))
    for label, rows in subjects.items():
        order[rows] = rows[np.lexsort(keys[::-1, rows])]
        last: dict[tuple[float, ...], int] = {}
        for index, key in enumerate(map(tuple, keys[:, rows].T.tolist())):
            if last.get(key, index - 1) != index - 1:
                raise ValueError(
                    f"{table.source}: order: {listed(columns)} do not tell trials of subject {label} apart "
                    f"({table.where_both(rows[last[key]], rows[index])}): delete copies, or name a column more"
                )
            last[key] = index
    return order


def _key(table: Table, column: str) -> np.ndarray:
    """Numbers by which to sort."""
    if column not in table:
        raise ValueError(
            f"{table.source}: order: there is no column {column!r}; the columns are {listed(table.headings)}"
        )
    cells = table.column(column)
    if all(_DATES.fullmatch(cell) for cell in cells):
        return np.unique(cells, return_inverse=True)[1].astype(float)
    numbers = _numbers(table, column)
    bad = np.isnan(numbers)
    if bad.any():
        raise ValueError(
            f"{table.source}: order: column {column!r} should be numbers, or dates such as 2026-01-31 10:30:00, but "
            f"holds {cells[np.flatnonzero(bad)[0]]!r} in {table.where(bad)}"
        )
    return numbers


def _who(labels: list[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return f"subject{'s' * (len(labels) > 1)} {', '.join(labels[:_SHOWN])}{more}"


def _say(text: str) -> None:
    warn_of(Finding("table", text), stacklevel=6)
