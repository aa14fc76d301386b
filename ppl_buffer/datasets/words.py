"""The words of a table that numbers of categories stood for, in columns beside them: ``choice`` and ``choice_word``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ppl_buffer.datasets.cells import Table, quoted
from ppl_buffer.datasets.text_files import is_number

_WORD = "_word"
# Name of a category -> {its number: what the table says}.
Codes = Mapping[str, Mapping[int, str]]


def word_columns(codes: Codes, numbers: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Columns of words, each (rows,), of the categories whose numbers are others in the table; '' of a missing one.

    Args:
        codes: as `TrialData.codes`.
        numbers: of each category, (rows,), NaN where it is missing.
    """
    columns = {}
    for name, said in codes.items():
        if name in numbers and not _are_numbers(said):
            texts = [quoted(said.get(int(x), "")) if np.isfinite(x) else "" for x in numbers[name].tolist()]
            columns[word_column(name)] = texts
    return columns


def read_words(
    table: Table, headings: Mapping[str, str], codes: Codes, numbers: Mapping[str, np.ndarray]
) -> dict[str, dict[int, str]]:
    """What columns of words say of the categories that have the model's own numbers in the table.

    Args:
        table: of trials.
        headings: name of a category -> its column, beside which the words may stand.
        codes: what the columns themselves say.
        numbers: of each category, (rows,), NaN where it is missing.

    Returns:
        name of the category -> {its number: its word}, of the columns that have one word a number and no word twice.
    """
    result = {}
    for name, heading in headings.items():
        if table.headings.count(word_column(heading)) != 1 or not _are_numbers(codes.get(name, {})):
            continue
        pairs = {
            (int(number), word)
            for number, word in zip(numbers[name].tolist(), table.column(word_column(heading)), strict=True)
            if np.isfinite(number)
        }
        said = dict(sorted(pairs))
        if all(said.values()) and len(pairs) == len(said) == len(set(said.values())):
            result[name] = said
    return result


def word_column(heading: str) -> str:
    """The column of words beside a column."""
    return f"{heading}{_WORD}"


def _are_numbers(said: Mapping[int, str]) -> bool:
    """Whether the table says the numbers themselves."""
    return all(is_number(text) and float(text) == number for number, text in said.items())
