"""What the field's pictures show, as curves: data against generated data sets by simultaneous bands."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_buffer.diagnostics.statistics import Arrays
from ppl_buffer.plots.categories import Words, category
from ppl_buffer.plots.envelopes import Envelope, envelope
from ppl_buffer.plots.statistics import (
    QUANTILES,
    autocorrelation,
    conditional_accuracy,
    learning_curve,
    post_error_slowing,
    quantile_probability,
    quantiles,
    repetition,
)
from ppl_buffer.schema import Categorical, Positive, Schema

# More categories of an input than this are no panels of a picture.
MOST_PANELS = 6
# Presentations of a cue that count as the first ones, and trials from which on lags are looked at.
_FIRST, _LEAST_TRIALS = 5, 10
Points = tuple[list[str], np.ndarray]

# Stands among the data, whose names are identifiers: which trials there are, (subjects, K) bool.
_EXISTS = "whether there is a trial"


@dataclass(frozen=True)
class Curve:
    """A curve of the data among those of data sets that the model generates.

    Attributes:
        points: (P,), what each point is.
        observed: (P,), of the data, all people together.
        replicated: (draws, P), of generated data sets.
        level: share of whole curves inside the band.
    """

    points: list[str]
    observed: np.ndarray
    replicated: np.ndarray
    level: float

    @property
    def envelope(self) -> Envelope:
        """The simultaneous band, and how far out the data are."""
        return envelope(self.replicated, self.observed, self.level)

    def plot(self, axes: Any) -> None:
        """Draw the data's curve and the band on matplotlib axes."""
        band, places = self.envelope, np.arange(len(self.points))
        axes.fill_between(places, band.low, band.high, color="0.85", linewidth=0)
        axes.plot(places, band.middle, color="0.5", linewidth=0.8)
        outside = band.used & ((self.observed < band.low) | (self.observed > band.high))
        axes.plot(places, self.observed, ".-", color="C0", lw=0.8)
        axes.plot(places[outside], self.observed[outside], ".", color="C3")
        axes.set(xlabel=f"{self.points[0]} ... {self.points[-1]}")


def shown_cue(schema: Schema) -> str | None:
    """The input that pictures have panels for: the first of a few categories."""
    few = [name for name, x in schema.inputs.items() if isinstance(x, Categorical) and x.n <= MOST_PANELS]
    return few[0] if few else None


def shown_outcomes(schema: Schema) -> tuple[str | None, str | None]:
    """The choice and the number (a response time, if there is one) that pictures show."""
    choice = next((name for name, x in schema.outcomes.items() if isinstance(x, Categorical)), None)
    numbers = [name for name, x in schema.outcomes.items() if not isinstance(x, Categorical)]
    times = [name for name in numbers if isinstance(schema.outcomes[name], Positive)]
    return choice, next(iter(times or numbers), None)


def curve_width(trials: int, cues: int) -> int:
    """Presentations in a bin of a learning curve: ten bins, where people saw each of so many cues often enough."""
    return max(1, trials // cues // 10)


def outcome_curves(
    schema: Schema, observed: Arrays, replicated: Arrays, level: float, words: Words | None = None
) -> dict[str, Curve]:
    """Every picture's curve that the outcomes allow: name -> curve.

    Args:
        schema: of the data.
        observed: name -> (subjects, K) of inputs, outcomes and feedback, NaN where there is no trial.
        replicated: name -> (draws, subjects, K) of the same names.
        level: share of whole curves inside a band.
        words: of categories, by which curves and points are then called.
    """
    return paired_curves(schema, lambda data: _curves(schema, data, words), observed, replicated, level)


def paired_curves(
    schema: Schema,
    make: Callable[[Arrays], Iterator[tuple[str, Points]]],
    observed: Arrays,
    replicated: Arrays,
    level: float,
) -> dict[str, Curve]:
    """Curves of the data with those of generated data sets, name -> curve; without those that have no point.

    Args:
        schema: of the data.
        make: of data, name -> (..., subjects, K): pairs of a name and points, with inputs (subjects, K).
        observed: see `outcome_curves`.
        replicated: see `outcome_curves`.
        level: see `outcome_curves`.
    """
    # Responses may be missing of some data sets and not of others, which have the same trials.
    known = [np.isfinite(data[name]) for data in (observed, replicated) for name in schema.outcomes]
    exists = np.any([x.reshape(-1, *x.shape[-2:]).any(0) for x in known], 0)
    inputs = {**{name: observed[name] for name in schema.inputs}, _EXISTS: exists}
    curves = {}
    with warnings.catch_warnings():
        # A data set may have no trial that a curve asks for.
        warnings.simplefilter("ignore", RuntimeWarning)
        for (name, (points, seen)), (_, (_, again)) in zip(
            make({**observed, **inputs}), make({**replicated, **inputs}), strict=True
        ):
            curve = Curve(points, seen, again, level)
            if curve.envelope.used.any():
                curves[name] = curve
    return curves


def _curves(schema: Schema, data: Arrays, words: Words | None) -> Iterator[tuple[str, Points]]:
    choice, number = shown_outcomes(schema)
    cue = shown_cue(schema)
    shown = None if cue is None else data[cue]
    trials = int(np.median(data[_EXISTS].sum(-1)))
    enough = trials > _LEAST_TRIALS
    binary = choice is not None and schema.outcomes[choice] == Categorical(2)
    if choice is not None and schema.ordered and schema.feedback:
        yield from learning_points(schema, data, choice, cue, trials, words)
    if number is not None:
        variable = None if cue is None else schema.inputs[cue]
        cells: dict[str, np.ndarray | None] = {"": None}
        if isinstance(variable, Categorical) and cue is not None and shown is not None:
            cells = {f"{category(cue, index, words)}, ": shown == index for index in range(variable.n)}
        yield f"quantiles of {number}", quantile_points(schema, data, number, choice, cells, words)
    if number is not None and choice is not None and isinstance(schema.outcomes[number], Positive) and binary:
        times, accuracy = conditional_accuracy(data[number], data[choice])
        labels = [f"{part} of five by speed" for part in ("first", "second", "third", "fourth", "last")]
        yield f"{_which(choice, 1, words, 2)} by speed of response", (labels, accuracy)
        slowing = post_error_slowing(data[number], data[choice])
        yield f"slowing after {category(choice, 0, words)}", (_lags(slowing), slowing)
    if choice is not None and enough:
        repeated = repetition(data[choice], cue=shown if schema.ordered else None)
        yield f"repetition of {choice}", (_lags(repeated), repeated)
    if number is not None and enough:
        values = data[number]
        related = autocorrelation(np.log(values) if isinstance(schema.outcomes[number], Positive) else values)
        yield f"autocorrelation of {number} by lag", (_lags(related), related)


def _lags(values: np.ndarray) -> list[str]:
    return [f"lag {lag}" for lag in range(1, values.shape[-1] + 1)]


def _which(choice: str, index: int, words: Words | None, categories: int) -> str:
    """A choice; of two without words the second one needs no number."""
    return category(choice, index, words) if categories > 2 or words and choice in words else choice


def learning_points(
    schema: Schema, data: Arrays, choice: str, cue: str | None, trials: int, words: Words | None = None
) -> Iterator[tuple[str, Points]]:
    """Learning curves and the very first trials, by cue, of each choice but the first."""
    variable, outcome = None if cue is None else schema.inputs[cue], schema.outcomes[choice]
    assert isinstance(outcome, Categorical)
    cues = variable.n if isinstance(variable, Categorical) else 1
    shown = None if cue is None else data[cue]
    for number in range(1, outcome.n):
        made = np.where(np.isfinite(data[choice]), data[choice] == number, np.nan)
        which = _which(choice, number, words, outcome.n)
        for name, width, most in (("learning curve", curve_width(trials, cues), None), ("first trials", 1, _FIRST)):
            try:
                curve = learning_curve(made, shown, width, data[_EXISTS])[..., :most]
            except ValueError:
                # Some cue was shown to hardly anybody.
                continue
            labels = [
                f"{'' if cue is None else f'{category(cue, index, words)}, '}presentation {1 + width * place}"
                + (f" to {width * (place + 1)}" if width > 1 else "")
                for index in range(curve.shape[-2]) for place in range(curve.shape[-1])
            ]  # fmt: skip
            yield f"{name} of {which}", (labels, curve.reshape(*curve.shape[:-2], -1))


def quantile_points(
    schema: Schema,
    data: Arrays,
    number: str,
    choice: str | None,
    cells: Mapping[str, np.ndarray | None],
    words: Words | None = None,
) -> Points:
    """Quantiles of an outcome, means over people, by choice, and the shares of the choices, in each of some cells.

    Args:
        schema: of the data.
        data: name -> (..., subjects, K).
        number: the outcome.
        choice: the choices, or None.
        cells: what labels begin with -> the trials that count, (subjects, K); None = all.
        words: of categories.
    """
    labels, columns = [], []
    for where, cell in cells.items():
        values = data[number] if cell is None else np.where(cell, data[number], np.nan)
        if choice is None:
            columns.append(np.nanmean(quantiles(values), -2))
            labels += [f"{where}{level:.0%}" for level in QUANTILES]
            continue
        outcome = schema.outcomes[choice]
        assert isinstance(outcome, Categorical)
        shares, times = quantile_probability(values, data[choice], outcome.n)
        columns += [shares, times.reshape(*times.shape[:-2], -1)]
        names = [category(choice, index, words) for index in range(outcome.n)]
        labels += [f"{where}share of {name}" for name in names]
        labels += [f"{where}{level:.0%}, {name}" for name in names for level in QUANTILES]
    return labels, np.concatenate(columns, -1)
