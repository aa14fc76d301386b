"""Statistics of data sets: simple ones of the outcomes, and those of the user."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np

from ppl_buffer.checks import check_mapping, check_numbers
from ppl_buffer.plots.categories import Words, category
from ppl_buffer.schema import Categorical, Schema

Arrays = dict[str, np.ndarray]
# A function of data sets, dict name -> (*S, B, K) of inputs, outcomes and feedback, NaN where there is no trial, that
# returns one number a data set, (*S, B).
Statistic = Callable[[Arrays], np.ndarray]


def outcome_statistics(
    schema: Schema, data: Arrays, more: Mapping[str, Statistic] | None = None, words: Words | None = None
) -> Arrays:
    """Simple statistics of the outcomes, and those of the user.

    Args:
        schema: of the data.
        data: name -> (*S, B, K) of inputs, outcomes and feedback, NaN where there is no trial.
        more: the user's.
        words: of categories, by which statistics are then called.

    Returns:
        dict name -> (*S, B).

    Raises:
        ValueError: if a user's statistic returns another shape.
    """
    table: Arrays = {}
    with warnings.catch_warnings():
        # A data set may have no trial that a statistic asks for.
        warnings.simplefilter("ignore", RuntimeWarning)
        for name, variable in schema.outcomes.items():
            if isinstance(variable, Categorical):
                table |= _of_categories(name, data[name], variable.n, words)
            else:
                table |= _of_numbers(name, data[name])
        for name, function in check_mapping("statistics", more).items():
            if not callable(function):
                raise ValueError(f"statistics[{name!r}]: expected a function, got {type(function).__name__}")
            result = check_numbers(f"statistics[{name!r}]", function(data))
            expected = next(iter(data.values())).shape[:-1]
            if result.shape != expected:
                raise ValueError(f"statistics[{name!r}]: expected an array of shape {expected}, got {result.shape}")
            table[name] = result
    return table


def _of_categories(name: str, value: np.ndarray, categories: int, words: Words | None) -> Arrays:
    table: Arrays = {}
    for index in range(1, categories):
        share = np.where(np.isnan(value), np.nan, value == index)
        table[f"share of {category(name, index, words)}"] = np.nanmean(share, -1)
    later, earlier = value[..., 1:], value[..., :-1]
    same = np.where(np.isnan(later + earlier), np.nan, later == earlier)
    table[f"repetitions of {name}"] = np.nanmean(same, -1)
    return table


def _of_numbers(name: str, value: np.ndarray) -> Arrays:
    centered = value - np.nanmean(value, -1, keepdims=True)
    product = np.nanmean(centered[..., 1:] * centered[..., :-1], -1)
    return {
        f"mean of {name}": np.nanmean(value, -1),
        f"standard deviation of {name}": np.nanstd(value, -1),
        f"autocorrelation of {name}": product / np.maximum(np.nanvar(value, -1), 1e-30),
    }
