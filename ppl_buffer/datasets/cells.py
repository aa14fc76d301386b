"""The cells of a table as text, and what numbers they are."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ppl_buffer.datasets.text_files import is_number, read_text
from ppl_buffer.extras import needs

# How programs write that there is no value.
MISSING = {"", "na", "nan", "n/a", "#n/a", "#na", "<na>", "nat", "null", "none", "."}
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+", re.ASCII)
_TRUTH = {"true": 1.0, "false": 0.0}
# What a spreadsheet takes for a formula at the beginning of a cell.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


@dataclass(frozen=True, eq=False)
class Table:
    """A table of text.

    Attributes:
        source: what messages call it.
        headings: names of the columns, without blanks around them; a name may come twice.
        cells: the columns, each (rows,).
        places: (rows,) line of the file, or label of the data frame's row.
        place: what a place is called.
        to_text: how a cell becomes text.
        index_names: of a data frame.
    """

    source: str
    headings: list[str]
    cells: Sequence[Sequence[object]]
    places: Sequence[object]
    place: str
    to_text: Callable[[object], str]
    index_names: list[str]

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, heading: str) -> bool:
        return heading in self.headings

    def column(self, heading: str) -> list[str]:
        """The cells of a column as text, (rows,); '' where empty.

        Raises:
            ValueError: if the table has two columns of that name.
        """
        which = [index for index, name in enumerate(self.headings) if name == heading]
        if len(which) > 1:
            raise ValueError(
                f"{self.source}: there are {len(which)} columns {heading!r} (the "
                f"{' and the '.join(f'{index + 1}.' for index in which)}): rename or delete those that do not count"
            )
        return self._texts(which[0])

    def _texts(self, index: int) -> list[str]:
        texts = self._known.get(index)
        if texts is None:
            texts = self._known[index] = [self.to_text(cell) for cell in self.cells[index]]
        return texts

    @cached_property
    def _known(self) -> dict[int, list[str]]:
        return {}

    def rows(self, which: np.ndarray, without: str | None = None) -> list[tuple[str, ...]]:
        """All cells of some rows, for comparing rows; columns that have no name, or that of `without`, left out."""
        named = [column for column, name in zip(self.cells, self.headings, strict=True) if name not in ("", without)]
        return [tuple(self.to_text(column[row]) for column in named) for row in which.tolist()]

    def where(self, bad: ArrayLike) -> str:
        """Where rows are bad: 'lines 5, 32'."""
        places = [self.places[row] for row in np.flatnonzero(np.asarray(bad)).tolist()]
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        return f"{self.place}{'s' * (len(places) > 1)} {', '.join(map(str, places[:3]))}{more}"

    def where_both(self, one: int, other: int) -> str:
        """Where two rows are."""
        return self.where(np.isin(np.arange(len(self)), (one, other)))


def read_cells(table: object) -> Table:
    """A CSV file or a data frame as a table of text.

    Raises:
        ValueError: if it is neither, or has no rows.
        FileNotFoundError: if there is no such file.
        ImportError: if pandas is not installed.
    """
    with needs("read_trials", "data"):
        import pandas
    if isinstance(table, pandas.DataFrame):
        if not len(table):
            raise ValueError("table: expected a row a trial, got a data frame without rows")
        return Table(
            source="table",
            headings=[str(name).strip() for name in table.columns],
            cells=[table.iloc[:, index].astype(object).tolist() for index in range(table.shape[1])],
            places=table.index.tolist(),
            place="row",
            to_text=text_of,
            index_names=[str(name) for name in table.index.names if name is not None],
        )
    if not isinstance(table, str | os.PathLike):
        raise ValueError(
            f"table: expected the path of a CSV file or a pandas data frame, got {type(table).__name__}; what pandas "
            "can read or convert, pass as a data frame"
        )
    path = Path(table)
    if path.is_dir():
        raise ValueError(f"{path}: expected a CSV file, got a folder")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    text = read_text(path)
    cells = list(zip(*text.rows, strict=True))
    return Table(str(path), text.headings, cells, text.lines, "line", unquoted, [])


def text_of(cell: object) -> str:
    """A cell of a data frame as a person would type it: 1, not 1.0; '' where there is no value."""
    if type(cell) is int:
        return str(cell)
    if cell is None or str(cell) in ("<NA>", "NaT"):
        return ""
    if isinstance(cell, float | np.floating):
        if math.isnan(cell):
            return ""
        number = float(cell)
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
    return str(cell).strip()


def short(text: str) -> str:
    """A cell as a code: 1.0 and 01 as 1, whatever is no number as it is."""
    if re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        return str(int(text)) if len(text) < 1000 else text
    return text_of(float(text)) if is_number(text) else text


def quoted(text: str) -> str:
    """Text that no spreadsheet takes for a formula, by an apostrophe before it where need be; see `unquoted`."""
    return f"'{text}" if _FORMULA.match(text) and not is_number(text) else text


def unquoted(cell: object) -> str:
    """What `quoted` was given."""
    text = str(cell)
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def is_missing(texts: Iterable[str]) -> np.ndarray:
    """Whether each cell says that there is no value, (cells,)."""
    return np.array([text.lower() in MISSING for text in texts], dtype=bool)


def to_numbers(texts: Sequence[str], title: str) -> np.ndarray:
    """The numbers that cells stand for, (cells,); NaN where one is no number.

    A column of true and false counts as 1 and 0. A comma is a decimal comma where it can be nothing else.

    Args:
        texts: cells.
        title: of the column, for messages.

    Raises:
        ValueError: if commas may separate thousands, or come beside points.
    """
    different = {text: text.replace("\N{MINUS SIGN}", "-") for text in dict.fromkeys(texts)}
    filled = {text for text in different if text.lower() not in MISSING}
    if filled and all(text.lower() in _TRUTH for text in filled):
        return np.array([_TRUTH.get(text.lower(), math.nan) for text in texts])
    commas = [text for text, number in different.items() if _COMMA.fullmatch(number) or _THOUSANDS.fullmatch(number)]
    if commas:
        points = [text for text, number in different.items() if "." in number and is_number(number)]
        if points:
            raise ValueError(
                f"{title} holds {commas[0]!r} beside {points[0]!r}: write all numbers with a decimal point, and none "
                "between thousands"
            )
        if all(_THOUSANDS.fullmatch(different[text]) for text in commas):
            raise ValueError(
                f"{title} holds {commas[0]!r}, which may be {commas[0].replace(',', '')} or "
                f"{commas[0].replace(',', '.')}: write numbers with a decimal point, and none between thousands"
            )
        different = {text: number.replace(",", ".") for text, number in different.items()}
    known = {text: float(number) if is_number(number) else math.nan for text, number in different.items()}
    return np.array([known[text] for text in texts], dtype=float)
