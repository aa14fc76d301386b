"""What a category is called in pictures and texts: by its word in the table of the data, else by its number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ppl_buffer.datasets.trials import TrialData

# Letters of a word in a picture.
_LONGEST = 24
# Name of a category -> {its number: its word}.
Words = Mapping[str, Mapping[int, str]]


def category(name: str, index: int, words: Words | None = None) -> str:
    """``choice = 1``, or with a word ``choice = right``.

    Args:
        name: of the category.
        index: its number.
        words: of all categories; None = there are none.
    """
    word = {} if words is None else words.get(name, {})
    return f"{name} = {word.get(index, index)}"


def words_of(data: object) -> Words:
    """Words of data, as matplotlib reads them: those that a `TrialData` keeps of its table; of plain arrays none."""
    if not isinstance(data, TrialData):
        return {}
    return {name: {number: _drawn(word) for number, word in words.items()} for name, words in data.words.items()}


def _drawn(word: str) -> str:
    """A word that fits into a picture, in which a dollar sign begins no formula."""
    return (word if len(word) <= _LONGEST else f"{word[: _LONGEST - 1]}…").replace("$", r"\$")


def label_names(given: Sequence[str] | None, count: int, stem: str, words: Words | None = None) -> list[str]:
    """Names of the categories 0 to count - 1: those given, or "stem = 0" and so on, or "stem = word".

    Raises:
        ValueError: if there are too few, or they are no list.
    """
    if given is None:
        return [category(stem, index, words) for index in range(count)]
    if isinstance(given, str) or not isinstance(given, (Sequence, np.ndarray)) or len(given) < count:
        raise ValueError(f"labels of {stem}: expected a list of {count}, got {given!r}")
    return [str(name) for name in given]
