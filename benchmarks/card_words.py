"""What was measured of a network, in words: for its card, and for the table of all networks in docs/zoo.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppl_buffer.network.card import WAYS, markdown

ZOO = Path(__file__).resolve().parents[1] / "docs" / "zoo.md"
BEGIN, END = "<!-- table: written by benchmarks/make_card.py -->", "<!-- end of the table -->"


@dataclass(frozen=True)
class Words:
    """How far a network is from the truth and how long it takes, in words without a full stop; empty = not measured."""

    error: str = ""
    time: str = ""


def plain(value: float, digits: int = 3) -> str:
    """A number with so many digits, never with an exponent: 0.0000219."""
    if 0 < abs(value) < 1e-3:
        return np.format_float_positional(value, precision=digits, fractional=False, trim="-")
    return f"{value:.{digits}g}"


def nats(value: float) -> str:
    """An amount of nats with two digits."""
    return f"{value:.1f} nats" if 0.95 <= value < 1.05 else f"{plain(value, 2)} nats"


def error_in_words(figures: Sequence[Any], way: str) -> str:
    """How far the log likelihood of whole data sets is off, and posterior means, by one way of the network."""
    totals: dict[int, float] = {}
    shifts: dict[str, float] = {}
    for figure in figures:
        total = re.search(r"RMSE of the total, (\d+) trials", figure.name)
        if total and way in figure.measured:
            trials = int(total.group(1))
            totals[trials] = max(totals.get(trials, 0.0), figure.measured[way])
        if figure.name.startswith("posterior against exact") and figure.name.endswith("mean shift in sd"):
            shifts[figure.name] = figure.measured.get(way, np.nan)
    if not totals:
        return ""
    (trials, first), *others = sorted(totals.items())
    words = [f"in {trials} trials the log likelihood is off by about {nats(first)}"]
    words += [f"in {count} by {plain(value, 2)}" for count, value in others]
    # Exact draws with weights have less noise than two runs of NUTS, and come last.
    known = [value for value in shifts.values() if np.isfinite(value)]
    if known:
        words.append(f"posterior means by {plain(known[-1], 2)} posterior standard deviations")
    return ", ".join(words)


def time_in_words(figures: Sequence[Any], way: str) -> str:
    """How long a gradient takes."""
    for figure in figures:
        measured = re.fullmatch(r"gradient, (\d+) data sets of (\d+) trials: milliseconds", figure.name)
        if measured and way in figure.measured:
            sets, trials = measured.groups()
            return f"a gradient for {sets} people of {trials} trials takes {plain(figure.measured[way], 2)} ms"
    return ""


def words_of(figures: Sequence[Any], way: str) -> Words:
    """A network's figures in words, by the way of it that computes where both could."""
    return Words(error_in_words(figures, way), time_in_words(figures, way))


def section(words: Words, figures: Sequence[Any], way: str) -> str:
    """The section of a card: sentences, with what they rest on."""
    sentences = [f"{text[0].upper()}{text[1:]}." for text in (words.error, words.time) if text]
    if words.error and figures:
        sentences.insert(
            1, f"(Root mean squares over data sets of the prior, the worst case of the table; {WAYS[way]}.)"
        )
    bars = [part for figure in figures for part in figure.met.split(" / ") if part]
    if bars:
        sentences.append(f"Of {len(bars)} bars that were stated before measuring {bars.count('yes')} are met.")
    return " ".join(sentences)


def purpose(about: str) -> str:
    """What a network is for: the first clause of what its recipe says."""
    clause = re.split(r"[.:](?:\s|$)", re.sub(r"\s*\(`[^`]*`[^)]*\)", "", " ".join(about.split())))[0]
    return clause.strip()


COLUMNS = ("network", "what for", "how far from the truth", "calibration", "how fast")


def zoo_row(name: str, about: str, words: Words, calibration: str) -> list[str]:
    """A network's row of the table in docs/zoo.md."""
    return [f"[`{name}`](cards/{name}.md)", purpose(about), words.error, calibration, words.time or "not measured"]


def with_rows(page: str, rows: Sequence[Sequence[str]]) -> str:
    """The page with these rows in its table, in the order of their names; other networks' rows stay."""
    before, table, after = re.split(f"({re.escape(BEGIN)}.*?{re.escape(END)})", page, flags=re.DOTALL)
    kept = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| [`")]
    merged = {row[0]: list(row) for row in (*kept, *rows)}
    written = markdown(COLUMNS, [merged[name] for name in sorted(merged)])
    return f"{before}{BEGIN}\n\n{written}\n\n{END}{after}"
