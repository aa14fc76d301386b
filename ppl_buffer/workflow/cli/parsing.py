"""How the texts of options that describe a table are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

Value = TypeVar("Value")
# A comma before the next NAME=, outside of double quotes.
_COLUMN_PAIRS = re.compile(r',(?=\s*[A-Za-z_]\w*\s*=)(?=(?:[^"]*"[^"]*")*[^"]*$)')
# The shortest word that is followed by a number and a comma, or by a number and the end.
_NUMBER_PAIR = re.compile(
    r'\s*("(?:[^"]|"")*"|.+?)\s*=\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?:,\s*|$)', re.ASCII
)
_LISTED = re.compile(r'\s*(?:"(?:[^"]|"")*"|[^,]+)')


def read_pairs(option: str, text: str) -> dict[str, str]:
    """``choice=response,rt=time`` as a dict of model's name to column.

    A column may hold commas and equal signs; one that could be taken for another pair stands in double quotes.

    Raises:
        ValueError: if a part is no pair, or a name comes twice.
    """
    pairs: dict[str, str] = {}
    for part in filter(None, map(str.strip, _COLUMN_PAIRS.split(text.strip().strip(",")))):
        name, equal, value = part.partition("=")
        if not (equal and name.strip() and value.strip()):
            raise ValueError(f"--{option}: expected NAME=VALUE, separated by commas, got {part!r}")
        _add(option, pairs, name.strip(), _without_quotes(value.strip()))
    return pairs


def read_numbers(option: str, text: str) -> dict[str, float]:
    """``a=1,b=0.5`` as a dict of words to numbers.

    A word may hold colons, commas and equal signs; one that could be taken for several pairs stands in double quotes.

    Raises:
        ValueError: if a part is no pair, its value no number, or a word comes twice.
    """
    pairs: dict[str, float] = {}
    rest = text.strip().strip(",").strip()
    while rest:
        match = _NUMBER_PAIR.match(rest)
        if match is None:
            raise ValueError(f"--{option}: expected numbers after '=', as in WORD=NUMBER,WORD=NUMBER, got {rest!r}")
        _add(option, pairs, _without_quotes(match[1]), float(match[2]))
        rest = rest[match.end() :]
    return pairs


def read_codes(option: str, texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """``NAME:OLD=NEW,OLD=NEW``, several times, as a dict of name to codes.

    Raises:
        ValueError: if a text is of another form, or codes a name or word that another has coded.
    """
    codes: dict[str, dict[str, float]] = {}
    for text in texts:
        name, colon, rest = text.partition(":")
        if not (colon and name.strip() and rest.strip()):
            raise ValueError(f"--{option}: expected NAME:OLD=NEW,OLD=NEW, got {text!r}")
        for word, number in read_numbers(option, rest).items():
            _add(option, codes.setdefault(name.strip(), {}), word, number)
    return codes


def read_headings(option: str, text: str) -> list[str]:
    """``subject,session`` as the names of columns; one that holds a comma stands in double quotes.

    Raises:
        ValueError: if there is none.
    """
    names = [_without_quotes(part.strip()) for part in _LISTED.findall(text) if part.strip()]
    if not names:
        raise ValueError(f"--{option}: expected names of columns, separated by commas, got {text!r}")
    return names


def read_missing(texts: Sequence[str], outcomes: Sequence[str]) -> dict[str, list[str]] | None:
    """``empty``, ``-999`` or ``NAME=CODE``, several times or with commas between, as a dict of outcome to codes.

    Raises:
        ValueError: if there is no such outcome.
    """
    codes: dict[str, list[str]] = {}
    for part in [part.strip() for text in texts for part in _LISTED.findall(text) if part.strip()]:
        name, equal, code = part.partition("=")
        if equal and name.strip() not in outcomes:
            raise ValueError(
                f"--missing: expected a code, or NAME=CODE of an outcome of {list(outcomes)}, got {part!r}"
            )
        for outcome in [name.strip()] if equal else outcomes:
            codes.setdefault(outcome, []).append(_without_quotes((code if equal else part).strip()))
    return codes or None


def read_deadline(text: str | None) -> float | str | None:
    """A number, or the name of a column."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return _without_quotes(text.strip())


def _add(option: str, pairs: dict[str, Value], name: str, value: Value) -> None:
    if name in pairs:
        raise ValueError(f"--{option}: expected each name once, got {name!r} twice")
    pairs[name] = value


def _without_quotes(text: str) -> str:
    """A word out of its double quotes, if it stands in some."""
    return text[1:-1].replace('""', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text
