"""A column of a table as numbers that a network reads, checked: words, codes, units."""

from __future__ import annotations

import difflib
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ppl_buffer.datasets.cells import Table, is_missing, short, to_numbers
from ppl_buffer.datasets.text_files import is_number
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.network.unfamiliar import MISSING_CODES
from ppl_buffer.schema import Categorical, Interval, Positive, Variable

# Response times with a sign: at least so many different negative numbers are no code for a missed response.
_SIGNED = 3
# How tables call those who did the trials, without capitals and punctuation.
_SUBJECTS = ("participant", "participantid", "subjidx", "subj", "sub", "pid", "person", "id", "ppt", "workerid", "user")
# How tables call what models name otherwise.
_OTHER_NAMES = {
    "subject": _SUBJECTS,
    "choice": ("response", "resp", "key", "keypress", "answer", "decision", "chosen", "action"),
    "rt": ("reactiontime", "responsetime", "resprt", "latency", "rtms", "rts"),
    "reward": ("feedback", "outcome", "points", "money", "win", "gain", "payoff"),
    "pair": ("condition", "cond", "stimulus", "cue", "stimuluspair"),
    "common": ("transition",),
}


@dataclass(frozen=True, eq=False)
class TableColumn:
    """A column of a table that holds a variable of the schema.

    Attributes:
        name: of the variable.
        variable: what it may hold.
        heading: of the column.
        table: that has it.
        subject: (rows,) label of the subject of each row.
        can_be_missing: whether it is an outcome, or feedback, without which a trial can still be used.
    """

    name: str
    variable: Variable
    heading: str
    table: Table
    subject: np.ndarray
    can_be_missing: bool = False

    def kept_by(self, code: str) -> str:
        """What to write where cells are missing and the trials should count, as the end of a sentence."""
        if not self.can_be_missing:
            return ""
        return (
            f". To keep such trials, write --missing {self.name}={code}, and --deadline TIME where no response came in "
            "time"
        )

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"{self.table.source}: column {self.heading!r} ({self.name})"

    @property
    def cells(self) -> list[str]:
        """Text of each row, (rows,)."""
        return self.table.column(self.heading)


def read_column(
    column: TableColumn,
    *,
    is_input: bool = False,
    recode: Mapping[str, float] | None = None,
    scale: float | None = None,
    signed: bool = False,
    sign_codes: Sequence[str] = (),
) -> np.ndarray:
    """Checked numbers of a column, (rows,).

    Args:
        column: of the table.
        is_input: whether words count in alphabetical order where their number is that of the categories.
        recode: value in the table, as text -> number.
        scale: factor.
        signed: whether numbers have a sign that stands for another variable: they keep it, and are checked without.
        sign_codes: variables for which the sign may stand.

    Raises:
        ValueError: if a cell is empty or no legal value. The message says what to write.
    """
    cells = column.cells
    if recode is None and is_input and isinstance(column.variable, Categorical):
        recode = _by_alphabet(column)
    numbers = np.full(len(cells), np.nan) if recode is None else _recoded(column, recode)
    empty = is_missing(cells) & np.isnan(numbers)
    if empty.any():
        raise ValueError(
            f"{column.title} is empty (NaN) in {column.table.where(empty)}, subject {column.subject[empty][0]}. A "
            "trial without it cannot be used: delete these rows if nothing happened on these trials "
            f"(--where {shlex.quote(filled(column))}), or fill in what did{column.kept_by('empty')}"
        )
    if recode is None:
        numbers = _plain_numbers(column)
    if scale is not None:
        numbers = numbers * scale
    size = np.abs(numbers) if signed else numbers
    _check_legal(column, size, sign_codes)
    return numbers


def missing_columns(missing: Mapping[str, str], subject: Sequence[str], table: Table) -> ValueError:
    """What to say where columns are missing.

    Args:
        missing: variable -> the column that there is not.
        subject: columns that should tell people apart and that there are not.
        table: with the columns that there are.
    """
    columns = ",".join(f"{name}={_like(column, table, name)}" for name, column in missing.items())
    likely = ",".join(_like(column, table, column) for column in subject)
    write = [f"--subject {shlex.quote(likely)}"] * bool(subject)
    write += [f"--columns {shlex.quote(columns)}"] * bool(missing)
    absent = [*subject, *dict.fromkeys(missing.values())]
    which = [f"hold the model's {listed(missing)}"] * bool(missing) + ["tell people apart"] * bool(subject)
    index = [name for name in table.index_names if name in absent]
    hint = f" {listed(index)} is the index: pass table.reset_index()." if index else ""
    if any(map(is_number, table.headings)):
        hint += " The first row should hold names."
    elif len(table.headings) == 1:
        hint += " There is one column only: are columns separated by commas, semicolons or tabs?"
    return ValueError(
        f"{table.source}: there is no column {listed(absent)}; the columns are {listed(table.headings)}.{hint} Say "
        f"which ones {' and which '.join(which)}: {' '.join(write)}"
    )


def filled(column: TableColumn) -> str:
    """The condition for rows in which a column is filled, as --where takes it."""
    cells = column.cells
    name = column.heading if column.heading.isidentifier() else f"`{column.heading}`"
    numbers = all(is_number(cell) or none for cell, none in zip(cells, is_missing(cells), strict=True))
    return f"{name}.notna()" if numbers else f"{name} != ''"


def _like(column: str, table: Table, name: str) -> str:
    """The column that was probably meant, of a variable of that name."""
    # choice_1 is no level2_choice.
    number = re.findall(r"\d+", column)
    plain = {
        re.sub(r"[\W_]", "", heading.casefold()): heading
        for heading in table.headings
        if not number or re.findall(r"\d+", heading) in ([], number)
    }
    likely = difflib.get_close_matches(re.sub(r"[\W_]", "", column.casefold()), list(plain), 1, 0.6)
    if not likely:
        likely = [name for name in _OTHER_NAMES.get(name, ()) if name in plain]
    return plain[likely[0]] if likely else "COLUMN"


def listed(names: Iterable[object]) -> str:
    """Names in quotes, for messages."""
    return ", ".join(repr(str(name)) for name in names)


def recode_option(name: str, codes: Mapping[str, float | str]) -> str:
    """The option that gives these codes, as one writes it in a shell."""
    plain = [f'"{text}"' if re.search(r'[,="]', text) else text for text in codes]
    pairs = ",".join(f"{text}={code}" for text, code in zip(plain, codes.values(), strict=True))
    return f"--recode {shlex.quote(f'{name}:{pairs}')}"


def _recoded(column: TableColumn, recode: Mapping[str, float]) -> np.ndarray:
    """Numbers of coded cells, NaN where a cell is empty and has no code.

    Raises:
        ValueError: if a cell that is not empty has none.
    """
    table = {str(key).strip(): float(value) for key, value in recode.items()}
    # A code that is a number stands for the same number written otherwise, where no other code does.
    numeric = [short(text) for text in table]
    table |= {
        number: value for number, value in zip(numeric, table.values(), strict=True) if numeric.count(number) == 1
    } | table
    cells = [cell if cell in table else short(cell) for cell in column.cells]
    empty = is_missing(cells)
    unknown = sorted({cell for cell, none in zip(cells, empty, strict=True) if cell not in table and not none})
    if unknown:
        raise ValueError(
            f"{column.title} holds {listed(unknown[:8])}, for which --recode {column.name}:... gives no number"
        )
    return np.array([table.get(cell, math.nan) for cell in cells])


def _plain_numbers(column: TableColumn) -> np.ndarray:
    """The cells as finite numbers; categories as codes."""
    name, variable = column.name, column.variable
    numbers = to_numbers(column.cells, column.title)
    words = np.isnan(numbers)
    if isinstance(variable, Categorical) and (words.any() or not variable.contains(np, numbers).all()):
        raise ValueError(f"{column.title} {_codes(column, variable, numbers)}")
    if words.any():
        raise ValueError(
            f"{column.title} should be numbers, but holds {column.cells[np.flatnonzero(words)[0]]!r} in "
            f"{column.table.where(words)}. Write numbers, or say what the words stand for: "
            f"--recode {name}:WORD=NUMBER,..."
        )
    return numbers


def _codes(column: TableColumn, variable: Categorical, numbers: np.ndarray) -> str:
    """What to do about categories that are not 0 to n - 1."""
    name, texts = column.name, _sorted(column.cells)
    expected = " or ".join(map(str, range(variable.n))) if variable.n < 4 else f"0 to {variable.n - 1}"
    message = f"holds {listed(texts[:8])}{' ...' if len(texts) > 8 else ''}, but should be coded {expected}"
    if len(texts) > variable.n:
        other = ~np.asarray(variable.contains(np, numbers))
        if np.isin(numbers[other], MISSING_CODES).all():
            given = " and ".join(f"{code:g}" for code in np.unique(numbers[other]))
            where = column.table.where(other)
            kept = column.kept_by(f"{numbers[other][0]:g}")
            return f"{message}. Delete the rows with {given} ({where}) if these are codes for a missed response{kept}"
        theirs = list(dict.fromkeys(column.subject[other]))
        if not np.isnan(numbers).any() and len(theirs) < len(set(column.subject)):
            few = ", ".join(theirs[:5]) + (" and others" if len(theirs) > 5 else "")
            return f"{message}. Subject {few} alone has other codes: write those of the others into the table"
        return (
            f"{message}. The model knows {variable.n} categories and the column has {len(texts)}: is it the right "
            f"column? Otherwise join categories by --recode {name}:..., or train a model that has more"
        )
    codes = {text: code for code, text in enumerate(texts)}
    return f"{message}. If {texts[0]!r} is what the model calls 0, write: {recode_option(name, codes)}"


def _sorted(cells: Iterable[str]) -> list[str]:
    """Different cells, numbers first and by their size."""
    texts = list(dict.fromkeys(map(short, cells)))
    return sorted(texts, key=lambda text: (0, float(text), "") if is_number(text) else (1, 0.0, text))


def _by_alphabet(column: TableColumn) -> dict[str, float] | None:
    """Numbers for an input of as many words as the model knows categories, in alphabetical order; says so.

    Of two words the one that is the variable's own name is what it calls 1.
    """
    words = sorted(set(column.cells))
    assert isinstance(column.variable, Categorical)
    if len(words) != column.variable.n or any(map(is_number, words)) or is_missing(words).any():
        return None
    order, codes = "in alphabetical order", {word: code for code, word in enumerate(words)}
    own = [int(word.casefold() == column.name.casefold()) for word in words]
    if own in ([0, 1], [1, 0]):
        order, codes = f"as what is {column.name} (1) and what is not (0)", dict(zip(words, own, strict=True))
    text = f"{column.name}: the words of column {column.heading!r} count {order}, as by "
    text += f"{recode_option(column.name, codes)}: if this is not how the model numbers them, write how"
    warn_of(Finding("table", text, column.name), stacklevel=4)
    return {word: float(code) for word, code in codes.items()}


def _check_legal(column: TableColumn, numbers: np.ndarray, sign_codes: Sequence[str]) -> None:
    wrong = ~np.asarray(column.variable.contains(np, numbers), dtype=bool)
    if not wrong.any():
        return
    message = (
        f"{column.title} should be {column.variable.description}, but is {numbers[wrong][0]:g} in "
        f"{column.table.where(wrong)}. "
    )
    negative = numbers < 0
    if isinstance(column.variable, Positive) and len(np.unique(numbers[negative])) >= _SIGNED and sign_codes:
        raise ValueError(
            f"{message}Where its sign says which boundary was reached ({negative.mean():.0%} are negative), write "
            f"--signed {column.name}={sign_codes[0]}: {sign_codes[0]} is then read from the sign, negative as 0"
        )
    if isinstance(column.variable, Interval) and column.variable.contains(np, numbers / 100).all():
        raise ValueError(f"{message}If these are per cent, write: --scale {column.name}=0.01")
    kept = column.kept_by(f"{numbers[wrong][0]:g}")
    raise ValueError(f"{message}Delete these rows if they are codes for a missed response; else check the column{kept}")
