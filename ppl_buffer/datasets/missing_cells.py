"""Cells of a table in which an outcome is missing: what users say of them, and the trials that they leave.

Only outcomes can be missing, and the feedback on them where later trials depend on it. A row that lacks some of them
lost these; one that lacks all outcomes, or whose time is past the deadline and lacks the others, is a response that did
not come before the deadline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ppl_buffer.checks import check_number
from ppl_buffer.datasets.cells import Table, is_missing, short, to_numbers
from ppl_buffer.datasets.columns import TableColumn, listed
from ppl_buffer.datasets.trials import TrialData
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.network.missing import Missing
from ppl_buffer.network.missing_rule import UNREAD, allows_lost, can_be_lost, require_flags
from ppl_buffer.network.network import Network
from ppl_buffer.schema import Schema

# What stands for empty cells among codes.
EMPTY = "empty"


@dataclass(frozen=True)
class MissingCells:
    """What is said of missing outcomes of a table.

    Attributes:
        codes: outcome or feedback -> texts of cells in which it is missing, `EMPTY` for empty ones.
        deadline: a number, or a column, in the unit of the table; None = there is none.
        withheld: the choice that is made by not responding.
        timed: the outcome that the deadline is of.
        allows_lost: whether the network can read what was lost.
    """

    codes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    deadline: float | str | None = None
    withheld: Mapping[str, int] = field(default_factory=dict)
    timed: str | None = None
    allows_lost: bool = True

    @classmethod
    def of(cls, net: Network, missing: object, deadline: object, withheld: Mapping[str, int] | None) -> MissingCells:
        """The arguments of `read_trials`, checked.

        Raises:
            ValueError: if one is of another kind, about a name that is no outcome, or trials depend on each other and
                the network does not read what is missing of them.
        """
        schema = net.schema
        if missing is None and deadline is None and withheld is None:
            return cls()
        if not isinstance(deadline, str | None):
            deadline = check_number("deadline", deadline, "a time above 0, or the name of a column", lambda x: x > 0)
        rule = Missing(1.0 if deadline is not None else None, withheld or {}).rule(schema)
        if rule.timed is None:
            require_flags(net)
        names = can_be_lost(schema)
        given = missing if isinstance(missing, Mapping) else dict.fromkeys(names, missing)
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(f"missing: expected outcomes of the model, {listed(names)}, got {listed(unknown)}")
        codes = {name: _codes(texts) for name, texts in given.items()}
        return cls(codes, deadline, dict(withheld or {}), rule.timed, allows_lost(net))

    def __bool__(self) -> bool:
        return bool(self.codes)

    def lost(self, column: TableColumn) -> np.ndarray:
        """Rows whose cell says that the outcome is missing, (rows,)."""
        codes, cells = self.codes.get(column.name, frozenset()), column.cells
        lost = np.array([cell in codes or short(cell) in codes for cell in cells], dtype=bool)
        return lost | is_missing(cells) if EMPTY in codes else lost

    def without(self, column: TableColumn, lost: np.ndarray) -> TableColumn:
        """The column without those rows.

        Raises:
            ValueError: if nothing is left.
        """
        rows = np.flatnonzero(~lost)
        if not rows.size:
            raise ValueError(f"{column.title} is missing in all rows: is it the right column?")
        return replace(column, table=_selected(column.table, rows), subject=column.subject[rows])

    def trials(
        self,
        schema: Schema,
        values: dict[str, np.ndarray],
        columns: Mapping[str, TableColumn],
        scales: Mapping[str, float],
    ) -> MissingRows:
        """Mark what was lost and what was omitted in the values, and say what it means.

        Args:
            schema: of the values.
            values: variable -> (rows,), NaN where an outcome is missing; changed in place.
            columns: variable -> its column.
            scales: variable -> factor; deadlines have that of the time.

        Raises:
            ValueError: if a row contradicts the deadline, has no outcome at all and there is none, or lost what the
                network cannot read.
        """
        table = next(iter(columns.values())).table
        outcomes = list(schema.outcomes)
        nothing = np.all([np.isnan(values[name]) for name in outcomes], 0)
        if self.timed is None and schema.ordered:
            if nothing.any():
                _warn_of_lost(table, nothing)
            return MissingRows(Missing(), None)
        if self.timed is None:
            if nothing.any():
                raise ValueError(
                    f"{table.source}: no outcome is known in {table.where(nothing)}. Where a response did not come "
                    "before a deadline, write it (or its column): --deadline TIME; else leave these rows out (--where)"
                )
            return MissingRows(Missing(), None)
        deadline = scales.get(self.timed, 1.0) * self._deadlines(table)
        time, title = values[self.timed], f"{table.source}: {self.timed}"
        others = [name for name in outcomes if name != self.timed]
        silent = np.all([np.isnan(values[name]) for name in others], 0) if others else np.zeros(len(time), dtype=bool)
        with np.errstate(invalid="ignore"):
            late = time >= deadline if others else time > deadline
        for name, code in self.withheld.items():
            withheld = values[name] == code
            if (withheld & ~np.isnan(time) & ~late).any():
                wrong = withheld & ~np.isnan(time) & ~late
                raise ValueError(
                    f"{title} is {time[wrong][0]:g} in {table.where(wrong)}, where {name} is {code}, the choice that "
                    "is made by not responding: leave --withheld out where responses tell the choice"
                )
            silent |= withheld & (np.isnan(time) | late)
        omitted = nothing | (silent & (np.isnan(time) | late))
        if not others:
            omitted = nothing | late
        beyond = ~omitted & (time > deadline)
        if beyond.any():
            raise ValueError(
                f"{title} is {time[beyond][0]:g} in {table.where(beyond)}, after the deadline of "
                f"{deadline[beyond][0]:g}: where such a response counts as none, write empty cells; else --deadline "
                "with a later time"
            )
        unlimited = omitted & ~np.isfinite(deadline)
        if unlimited.any():
            raise ValueError(f"{table.source}: no outcome is known in {table.where(unlimited)}, which has no deadline")
        for name in () if self.allows_lost else (*outcomes, *schema.feedback):
            lost = np.isnan(values[name]) & ~omitted
            if lost.any():
                raise ValueError(
                    f"{columns[name].title} is missing in {table.where(lost)}, where there was a response: {UNREAD}"
                )
        for name in outcomes:
            values[name] = np.where(omitted, math.inf if name == self.timed else math.nan, values[name])
        return MissingRows(Missing(1.0, self.withheld, self.timed), deadline)

    def _deadlines(self, table: Table) -> np.ndarray:
        """Deadlines (rows,) in the table's unit; infinite where a cell is empty."""
        if not isinstance(self.deadline, str):
            return np.full(len(table), self.deadline, dtype=float)
        if self.deadline not in table:
            raise ValueError(
                f"deadline: there is no column {self.deadline!r}; the columns are {listed(table.headings)}"
            )
        cells = table.column(self.deadline)
        numbers, empty = to_numbers(cells, f"{table.source}: column {self.deadline!r}"), is_missing(cells)
        numbers = np.where(empty, math.inf, numbers)
        if not (numbers > 0).all():
            raise ValueError(
                f"{table.source}: column {self.deadline!r} should be times above 0, empty where there is no deadline, "
                f"but is {cells[int(np.flatnonzero(~(numbers > 0))[0])]!r} in {table.where(~(numbers > 0))}"
            )
        return numbers


@dataclass(frozen=True)
class MissingRows:
    """What missing outcomes of a table's rows mean.

    Attributes:
        missing: the same with any deadline.
        deadline: (rows,), in the model's unit; None without one.
    """

    missing: Missing
    deadline: np.ndarray | None

    def of_trials(self, trials: TrialData, labels: np.ndarray, rows: np.ndarray) -> Missing:
        """The same of padded trials.

        Args:
            trials: made of the rows.
            labels: (rows,) label of the data set of each, in the order of the trials.
            rows: (rows,) which row of the table each is.
        """
        if self.deadline is None:
            return self.missing
        deadline = np.full(trials.trial_mask.shape, math.inf)
        for index, subject in enumerate(trials.subjects):
            deadline[index, trials.trial_mask[index]] = self.deadline[rows][labels == subject]
        finite = self.deadline[np.isfinite(self.deadline)]
        if np.isfinite(self.deadline).all() and (finite == finite[0]).all():
            return self.missing.at(float(finite[0]))
        return self.missing.at(deadline)


def _warn_of_lost(table: Table, rows: np.ndarray) -> None:
    """Say what a trial of which nothing is known means to a learner."""
    text = (
        f"{table.source}: no outcome is known in {table.where(rows)}. They count as lost: a choice was made, feedback "
        "came, and whoever did the trial learnt from it. Where there was no response, and nothing to learn from, "
        "delete these rows"
    )
    warn_of(Finding("table", text, share=float(rows.mean())), stacklevel=5)


def _codes(texts: object) -> frozenset[str]:
    """Codes as the cells of a table are compared with them."""
    listing = list(texts) if isinstance(texts, list | tuple | set | frozenset) else [] if texts is None else [texts]
    for text in listing:
        if isinstance(text, bool) or not isinstance(text, str | int | float | np.number):
            raise ValueError(
                f"missing: expected 'empty', a code or a list of them, or a dict of outcomes, got {texts!r}"
            )
    words = [str(text).strip() for text in listing]
    return frozenset({*words, *map(short, words)})


def _selected(table: Table, rows: np.ndarray) -> Table:
    which = rows.tolist()
    return replace(
        table,
        cells=[[column[row] for row in which] for column in table.cells],
        places=[table.places[row] for row in which],
    )
