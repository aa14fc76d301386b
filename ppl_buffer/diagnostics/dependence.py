"""Statistics of how trials depend on each other: what outcomes make of those before them, and of the feedback."""

from __future__ import annotations

import numpy as np

from ppl_buffer.diagnostics.statistics import Arrays
from ppl_buffer.schema import Categorical, Schema

_LAGS = (2, 5)


def dependence_statistics(schema: Schema, data: Arrays) -> Arrays:
    """Lagged relations of the outcomes with themselves, with feedback and within a cue.

    Args:
        schema: of the data.
        data: name -> (sets, K) of inputs, outcomes and feedback.

    Returns:
        dict name -> (sets,); empty for trials that are independent given the parameters.
    """
    table: Arrays = {}
    trials = next(iter(data.values())).shape[-1]
    if schema.independent or trials <= 2 * max(_LAGS):
        return table
    for name, variable in schema.outcomes.items():
        for lag in _LAGS:
            table[f"{name}, {lag} trials apart"] = _related(variable, data[name], lag).mean(-1)
        again = _related(variable, data[name], 1)
        for source in schema.feedback:
            table[f"{name} again after larger {source}"] = _covariance(again, data[source][..., :-1])
        for source, shown in schema.inputs.items():
            if isinstance(shown, Categorical):
                same = data[source][..., 1:] == data[source][..., :-1]
                table[f"{name} again where {source} repeats"] = _covariance(again, 1.0 * same)
        for other in schema.outcomes:
            if other != name:
                table[f"{name} again after larger {other}"] = _covariance(again, data[other][..., :-1])
    return table


def _related(variable: object, value: np.ndarray, lag: int) -> np.ndarray:
    """Whether categories are the same a lag apart, or the product of centred numbers: (sets, K - lag)."""
    later, earlier = value[..., lag:], value[..., :-lag]
    if isinstance(variable, Categorical):
        return 1.0 * (later == earlier)
    centered = value - value.mean(-1, keepdims=True)
    return centered[..., lag:] * centered[..., :-lag] / np.maximum(value.var(-1, keepdims=True), 1e-30)


def _covariance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first * second).mean(-1) - first.mean(-1) * second.mean(-1)
