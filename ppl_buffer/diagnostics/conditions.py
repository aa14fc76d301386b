"""Data against generated data sets by the levels of a condition: a model may be right on average, and wrong in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from ppl_buffer.diagnostics.curves import (
    MOST_PANELS,
    Curve,
    Points,
    learning_points,
    paired_curves,
    quantile_points,
    shown_cue,
    shown_outcomes,
)
from ppl_buffer.diagnostics.statistics import Arrays
from ppl_buffer.plots.categories import Words, category
from ppl_buffer.plots.statistics import mean
from ppl_buffer.schema import Categorical, Schema


@dataclass(frozen=True, eq=False)
class Condition:
    """A covariate with a few levels. Made by `condition_of`.

    Attributes:
        labels: of its levels.
        codes: (subjects, K), index of the level of each trial; NaN where there is no trial.
        by_trial: whether it varies within data sets.
    """

    labels: tuple[str, ...]
    codes: np.ndarray
    by_trial: bool


def condition_of(
    values: np.ndarray, trial_mask: np.ndarray, words: Mapping[int, str] | None = None
) -> Condition | None:
    """The levels of a covariate; None where there is one level, or too many of them for a picture.

    Numbers that vary from trial to trial, and take many values, are divided at their median.

    Args:
        values: (subjects, K), numbers or text.
        trial_mask: (subjects, K) bool, which trials exist.
        words: of numbers, by which levels are then called.
    """
    different, index = np.unique(values[trial_mask], return_inverse=True)
    labels = [x if isinstance(x, str) else (words or {}).get(x, f"{x:g}") for x in different.tolist()]
    if len(different) > MOST_PANELS and different.dtype.kind in "iuf":
        middle = np.median(values[trial_mask])
        index = (values[trial_mask] > middle).astype(int)
        labels = ["lower half", "upper half"]
    if not 1 < len(labels) <= MOST_PANELS or len(np.unique(index)) < 2:
        return None
    codes = np.full(trial_mask.shape, np.nan)
    codes[trial_mask] = index
    by_trial = bool((np.nanmin(codes, 1) != np.nanmax(codes, 1)).any())
    if len(different) > MOST_PANELS and not by_trial:
        return None
    return Condition(tuple(labels), codes, by_trial)


def condition_curves(
    schema: Schema,
    observed: Arrays,
    replicated: Arrays,
    conditions: Mapping[str, Condition],
    level: float,
    words: Words | None = None,
) -> dict[str, Curve]:
    """What a picture shows by the levels of each condition: name -> curve, a block of points a level.

    Args:
        schema: of the data.
        observed: name -> (subjects, K) of inputs, outcomes and feedback, NaN where there is no trial.
        replicated: name -> (draws, subjects, K) of the same names.
        conditions: name -> its levels.
        level: share of whole curves inside a band.
        words: of categories, by which curves and points are then called.
    """
    curves: dict[str, Curve] = {}
    for name, condition in conditions.items():
        make = partial(_curves, schema, name, condition, words)
        curves |= paired_curves(schema, make, observed, replicated, level)
    return curves


def _curves(
    schema: Schema, name: str, condition: Condition, words: Words | None, data: Arrays
) -> Iterator[tuple[str, Points]]:
    choice, number = shown_outcomes(schema)
    masks = {f"{name} = {label}, ": condition.codes == index for index, label in enumerate(condition.labels)}
    if number is not None:
        yield f"quantiles of {number} by {name}", quantile_points(schema, data, number, choice, masks, words)
    elif choice is not None:
        outcome = schema.outcomes[choice]
        assert isinstance(outcome, Categorical)
        made = [np.where(np.isfinite(data[choice]), data[choice] == index, np.nan) for index in range(outcome.n)]
        labels = [f"{where}share of {category(choice, index, words)}" for where in masks for index in range(outcome.n)]
        shares = [mean(mean(np.where(mask, x, np.nan))) for mask in masks.values() for x in made]
        yield f"shares of {choice} by {name}", (labels, np.stack(shares, -1))
    if choice is None or not (schema.ordered and schema.feedback) or condition.by_trial:
        return
    parts: dict[str, list[Points]] = {}
    for where, mask in masks.items():
        rows = mask.any(-1)
        of_level = {key: x[..., rows, :] for key, x in data.items()}
        trials = int(np.median(mask[rows].sum(1)))
        learning = learning_points(schema, of_level, choice, shown_cue(schema), trials, words)
        for curve, (labels, values) in learning:
            if curve.startswith("learning curve"):
                parts.setdefault(curve, []).append(([f"{where}{label}" for label in labels], values))
    for curve, blocks in parts.items():
        if len(blocks) == len(masks):
            points = [x for labels, _ in blocks for x in labels]
            yield f"{curve} by {name}", (points, np.concatenate([x for _, x in blocks], -1))
