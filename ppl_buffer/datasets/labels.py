"""Who is who: the label of the person whose trial each row of a table is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ppl_buffer.datasets.cells import Table, is_missing, short
from ppl_buffer.datasets.columns import listed
from ppl_buffer.findings import Finding, warn_of

_SHOWN = 5


def read_labels(table: Table, columns: Sequence[str]) -> np.ndarray:
    """Labels as text, (rows,): what is written differently is somebody else, blanks around it aside.

    Args:
        table: of trials.
        columns: that tell people apart; of several, the label joins them by a slash.

    Raises:
        ValueError: if a label is empty, joined ones cannot be told apart, or there are fewer than two trials of a
            person.
    """
    parts = [table.column(column) for column in columns]
    for column, cells in zip(columns, parts, strict=True):
        empty = is_missing(cells)
        if empty.any():
            what = next(cell for cell, bad in zip(cells, empty, strict=True) if bad)
            also = (
                f" (it says {what!r}, which many programs write for no value: rename who is called that)"
                if what
                else ""
            )
            raise ValueError(
                f"{table.source}: column {column!r} (subject) is empty in {table.where(empty)}{also}; fill it or "
                "delete the row"
            )
    cells_of = list(zip(*parts, strict=True))
    labels = ["/".join(cells) for cells in cells_of]
    if len(set(labels)) < len(set(cells_of)):
        raise ValueError(
            f"{table.source}: columns {listed(columns)} hold slashes, so that joined by a slash they give two people "
            "one label; write the labels without"
        )
    _check_counts(labels, columns, table)
    _say_alike(labels, columns, table)
    return np.array(labels, dtype=str)


def _check_counts(labels: list[str], columns: Sequence[str], table: Table) -> None:
    """Every subject has two trials or more."""
    names, counts = np.unique(labels, return_counts=True)
    column = listed(columns)
    if counts.max() < 2:
        raise ValueError(
            f"{table.source}: every subject has one trial, since column {column} has {len(names)} different values in "
            f"{len(labels)} rows. A subject does many trials: --subject must name the column that tells people apart"
        )
    if counts.min() < 2:
        few = [label for label in dict.fromkeys(labels) if label in set(names[counts < 2])]
        raise ValueError(
            f"{table.source}: subject {', '.join(few[:_SHOWN])} has one trial, from which nothing can be learnt; "
            f"delete {'these rows' if len(few) > 1 else 'this row'}, or check column {column}"
        )


def _say_alike(labels: list[str], columns: Sequence[str], table: Table) -> None:
    """Say which people's labels are the same number, or differ in capitals alone."""
    groups: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        groups.setdefault(short(label).casefold(), []).append(label)
    alike = [group for group in groups.values() if len(group) > 1]
    if alike:
        shown = "; ".join(listed(group) for group in alike[:_SHOWN])
        warn_of(
            Finding(
                "table",
                f"{table.source}: column {listed(columns)}: {shown} are read as different people, since labels are "
                "text. Write them alike where they are one",
                "subject",
            ),
            stacklevel=4,
        )
