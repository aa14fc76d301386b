"""Columns of a table that the model does not read: rows by a condition, and covariates for formulas."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ppl_buffer.datasets.cells import Table, is_missing, to_numbers
from ppl_buffer.datasets.columns import listed
from ppl_buffer.extras import needs

if TYPE_CHECKING:
    import pandas


def select_rows(table: Table, where: object) -> tuple[Table, int]:
    """The rows of a table for which a condition holds, and how many it leaves out.

    Args:
        table: of trials.
        where: an expression of pandas about the table's own columns, such as "instruction == 'speed' and rt < 3";
            None = all rows. A name that is no identifier stands in backquotes.

    Raises:
        ValueError: if it is no condition, or holds for no row.
    """
    if where is None:
        return table, 0
    if not isinstance(where, str) or not where.strip():
        raise ValueError(f"where: expected a condition on columns, such as \"instruction == 'speed'\", got {where!r}")
    try:
        keep = np.asarray(_frame(table).eval(where, engine="python"))
    except Exception as error:  # whatever Python says of an expression
        raise ValueError(
            f"where: {where!r} cannot be evaluated ({type(error).__name__}: {error}); the columns are "
            f"{listed(table.headings)}, and text stands in quotes: instruction == 'speed'"
        ) from None
    if keep.dtype != bool or keep.shape != (len(table),):
        raise ValueError(f"where: expected a condition that is true or false of each row, got {where!r}")
    if not keep.any():
        raise ValueError(f"where: {where!r} holds for none of {len(table)} rows")
    rows = np.flatnonzero(keep).tolist()
    cells = [[column[row] for row in rows] for column in table.cells]
    return replace(table, cells=cells, places=[table.places[row] for row in rows]), int((~keep).sum())


def read_covariates(table: Table, used: Collection[str]) -> dict[str, np.ndarray]:
    """The columns that are not used otherwise, each (rows,): numbers where all filled cells are, else text.

    A missing number is NaN, missing text is empty. Columns without a name, or with that of another, are left out.

    Args:
        table: of trials.
        used: headings of columns that the model reads.
    """
    names = [name for name in table.headings if name and name not in used and table.headings.count(name) == 1]
    return {name: _values(table, name) for name in names}


def _frame(table: Table) -> pandas.DataFrame:
    with needs("where", "data"):
        import pandas
    return pandas.DataFrame(read_covariates(table, ()))


def _values(table: Table, name: str) -> np.ndarray:
    cells = table.column(name)
    missing = is_missing(cells)
    with suppress(ValueError):  # commas that may mean one thing or another: text, then
        numbers = to_numbers(cells, name)
        if not missing.all() and not np.isnan(numbers[~missing]).any():
            return numbers
    return np.where(missing, "", np.array(cells, dtype=str))
