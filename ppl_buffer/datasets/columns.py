"""A column of a table as numbers that a network reads, checked: words, codes, units."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ppl_buffer.schema import Categorical, Positive, Variable

if TYPE_CHECKING:
    import pandas

# Standard deviations of the training's distribution (of a logarithm) beyond which a median has another unit.
_FAR = 4.0
# A variable that takes no more values than this in simulations takes only these.
_FEW = 5


@dataclass(frozen=True, eq=False)
class TableColumn:
    """A column of a table that holds a variable of the schema.

    Attributes:
        name: of the variable.
        variable: what it may hold.
        cells: (rows,).
        subject: (rows,) label of the subject of each row.
        source: the table, for messages.
    """

    name: str
    variable: Variable
    cells: pandas.Series
    subject: pandas.Series
    source: str

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"{self.source}: column {str(self.cells.name)!r} ({self.name})"


def read_column(
    column: TableColumn,
    *,
    is_input: bool = False,
    recode: Mapping[str, float] | None = None,
    scale: float | None = None,
    trained: tuple[float, float] | None = None,
    examples: np.ndarray | None = None,
) -> np.ndarray:
    """Checked numbers of a column, (rows,).

    Args:
        column: of the table.
        is_input: whether words count in alphabetical order where their number is that of the categories.
        recode: value in the table, as text -> number.
        scale: factor.
        trained: mean and standard deviation of the variable in training; of a positive one's logarithm.
        examples: values that the simulator gives: where they are few, others are refused.

    Raises:
        ValueError: if a cell is empty, no legal value, in another unit or another code. The message says what to write.
    """
    _check_filled(column)
    if recode is None and is_input and isinstance(column.variable, Categorical):
        recode = _by_alphabet(column)
    numbers = _to_numbers(column, recode)
    if scale is not None:
        numbers = numbers * scale
    _check_legal(column, numbers)
    if isinstance(column.variable, Positive) and trained is not None:
        _check_unit(column, numbers, *trained)
    if examples is not None:
        _check_examples(column, numbers, np.unique(examples))
    return numbers


def missing_column(name: str | None, column: str, available: list[str], source: str) -> ValueError:
    """What to say where a column is missing: of a variable, or (None) of the subjects."""
    like = difflib.get_close_matches(column.lower(), [str(x).lower() for x in available], 1, 0.5)
    guess = next((str(x) for x in available if like and str(x).lower() == like[0]), "COLUMN")
    write = f"--subject {guess}" if name is None else f"--columns {name}={guess}"
    what = "tells people apart" if name is None else f"holds the model's {name!r}"
    return ValueError(
        f"{source}: there is no column {column!r}; the columns are {listed(available)}. Say which one {what}: {write}"
    )


def listed(names: Iterable[Any]) -> str:
    """Names in quotes, for messages."""
    return ", ".join(repr(str(name)) for name in names)


def lines(bad: ArrayLike, offset: int = 2) -> str:
    """Where a column is bad, as line numbers of the file (the first line holds the names)."""
    where = np.flatnonzero(np.asarray(bad))
    more = f" and {len(where) - 3} more" if len(where) > 3 else ""
    return f"line{'s' * (len(where) > 1)} {', '.join(str(row + offset) for row in where[:3])}{more}"


def _check_filled(column: TableColumn) -> None:
    empty = column.cells.isna().to_numpy()
    if empty.any():
        raise ValueError(
            f"{column.title} is empty (NaN) in {lines(empty)}, subject {column.subject[empty].iloc[0]}. A trial "
            "without it cannot be used: delete these rows if nothing happened on these trials, or fill in what did"
        )


def _to_numbers(column: TableColumn, recode: Mapping[str, float] | None) -> np.ndarray:
    """The cells as finite numbers; categories as codes."""
    import pandas

    name, variable, cells = column.name, column.variable, column.cells
    if recode is not None:
        table = {_text(key): float(value) for key, value in recode.items()}
        texts = [_text(value) for value in cells]
        unknown = sorted({text for text in texts if text not in table})
        if unknown:
            raise ValueError(
                f"{column.title} holds {listed(unknown[:8])}, for which --recode {name}:... gives no number"
            )
        numbers = np.array([table[text] for text in texts])
    else:
        numbers = pandas.to_numeric(cells, errors="coerce").to_numpy(dtype=float)
    words = ~np.isfinite(numbers)
    if isinstance(variable, Categorical) and (words.any() or not variable.contains(np, numbers).all()):
        raise ValueError(f"{column.title} {_codes(name, variable, cells)}")
    if words.any():
        raise ValueError(
            f"{column.title} should be numbers, but holds {str(cells[words].iloc[0])!r} in {lines(words)}. "
            f"Write numbers, or say what the words stand for: --recode {name}:WORD=NUMBER,..."
        )
    return numbers


def _codes(name: str, variable: Categorical, cells: pandas.Series) -> str:
    """What to do about categories that are not 0 to n - 1."""
    import pandas

    numbers = pandas.to_numeric(cells, errors="coerce")
    values = (cells if numbers.isna().any() else numbers).unique()
    texts = [_text(value) for value in sorted(values, key=lambda x: (isinstance(x, str), x))]
    expected = " or ".join(map(str, range(variable.n))) if variable.n < 4 else f"0 to {variable.n - 1}"
    message = f"holds {listed(texts[:8])}{' ...' if len(texts) > 8 else ''}, but should be coded {expected}"
    if len(texts) > variable.n:
        return (
            f"{message}. The model knows {variable.n} categories and the column has {len(texts)}: is it the right "
            f"column? Otherwise join categories by --recode {name}:..., or train a model that has more"
        )
    codes = ",".join(f"{value}={code}" for code, value in enumerate(texts))
    return f"{message}. If {texts[0]!r} is what the model calls 0, write: --recode {name}:{codes}"


def _by_alphabet(column: TableColumn) -> dict[str, float] | None:
    """Numbers for an input of as many words as the model knows categories, in alphabetical order; says so."""
    words = sorted({_text(value) for value in column.cells})
    assert isinstance(column.variable, Categorical)
    if len(words) != column.variable.n or any(_is_number(word) for word in words):
        return None
    codes = {word: float(code) for code, word in enumerate(words)}
    text = ",".join(f"{word}={code:g}" for word, code in codes.items())
    warnings.warn(
        f"{column.name}: the words of column {str(column.cells.name)!r} count in alphabetical order, as by "
        f"--recode {column.name}:{text}",
        stacklevel=4,
    )
    return codes


def _check_legal(column: TableColumn, numbers: np.ndarray) -> None:
    wrong = ~np.asarray(column.variable.contains(np, numbers), dtype=bool)
    if wrong.any():
        raise ValueError(
            f"{column.title} should be {column.variable.description}, but is {numbers[wrong][0]:g} in {lines(wrong)}. "
            "Delete these rows if they are codes for a missed response; else check the column"
        )


def _check_unit(column: TableColumn, numbers: np.ndarray, mean: float, std: float) -> None:
    """Refuse numbers that are powers of ten away from those of training."""
    middle = float(np.log(np.median(numbers)))
    if abs(middle - mean) < _FAR * std:
        return
    message = (
        f"{column.title} has a median of {math.exp(middle):.4g}, while the model was trained on values about "
        f"{math.exp(mean):.2g}"
    )
    if abs(middle - math.log(1000) - mean) < abs(middle - mean):
        raise ValueError(
            f"{message}: these look like milliseconds, and the model reads seconds; write: --scale {column.name}=0.001"
        )
    raise ValueError(f"{message}: check its unit, and convert it by --scale {column.name}=FACTOR")


def _check_examples(column: TableColumn, numbers: np.ndarray, known: np.ndarray) -> None:
    """Refuse values of a variable that takes a few others only."""
    if len(known) > _FEW or not len(np.setdiff1d(numbers, known)):
        return
    texts = sorted(set(map(_text, column.cells)))
    values = dict(zip(texts, known, strict=False)) if len(texts) <= len(known) else {}
    codes = ",".join(f"{key}={value:g}" for key, value in values.items()) or f"{_text(column.cells.iloc[0])}=..."
    raise ValueError(
        f"{column.title} holds {listed(texts[:8])}, but the model was trained with {listed(map(_text, known))} alone "
        f"and knows nothing of other values; write: --recode {column.name}:{codes}"
    )


def _text(value: Any) -> str:
    """A cell as a person would type it: 1, not 1.0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value).strip()
    return f"{number:g}" if math.isfinite(number) else str(value)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
