"""Functions of parameters, inputs and history that might predict outcomes: what a residual test looks at. NumPy alone.

Static ones are known before a data set begins, or of the trial itself: the parameters, the inputs, how many trials
there were, what the network predicts, and the trial's earlier outcomes. Those of the history are moving averages, at
several time scales, of what happened on the trials before: outcomes, feedback, the network's own surprise, and their
products, over all trials and over those that showed the same category.
"""

from __future__ import annotations

import itertools

import numpy as np

from ppl_buffer.diagnostics.statistics import Arrays
from ppl_buffer.schema import Categorical, Schema, Variable

# Shares of a moving average that a trial later are still there: the last trial alone, two trials, five, twenty.
DECAYS = (0.0, 0.5, 0.8, 0.95)
# Categories beyond these share a column; columns of the history beyond these are their first principal components.
_MOST_CATEGORIES, _MOST_HISTORY = 8, 32
# Standard deviations beyond which a value counts as no further away.
_FARTHEST = 4.0


def static_features(schema: Schema, params: Arrays, data: Arrays, outcome: str, predicted: np.ndarray) -> np.ndarray:
    """What is known of each trial without its past, standardised: (sets, K, columns).

    Args:
        schema: of the data.
        params: name -> (sets,).
        data: name -> (sets, K) of inputs and outcomes.
        outcome: the one that is predicted; those before it are known.
        predicted: (sets, K, columns), what the network says of it.
    """
    shape = data[outcome].shape
    columns: list[np.ndarray] = [np.broadcast_to(_scores(x)[:, None], shape) for x in params.values()]
    if schema.ordered:
        columns.append(np.broadcast_to(_standardized(np.log1p(np.arange(shape[1], dtype=float))), shape))
    for name, variable in schema.inputs.items():
        columns += _coded(variable, data[name])
    for name in itertools.takewhile(lambda other: other != outcome, schema.outcomes):
        columns += _coded_outcome(schema, name, params, data)
    return np.concatenate([np.stack(columns, -1) if columns else np.empty((*shape, 0)), predicted], -1)


def history_features(schema: Schema, params: Arrays, data: Arrays, surprise: np.ndarray) -> np.ndarray:
    """Moving averages of the trials before each, standardised: (sets, K, columns); no column for independent trials.

    Principal components where there are many, the first ones first.

    Args:
        schema: of the data.
        params: name -> (sets,).
        data: name -> (sets, K) of inputs, outcomes and feedback.
        surprise: (sets, K, outcomes), how the network was off on each trial, standardised.
    """
    shape = surprise.shape[:2]
    if schema.independent:
        return np.empty((*shape, 0))
    happened = _happened(schema, params, data, surprise)
    groups: list[np.ndarray | None] = [None]
    for name, variable in schema.inputs.items():
        if isinstance(variable, Categorical) and variable.n == 2:
            code = _coded(variable, data[name])[0]
            happened += [code * x for x in happened]
        elif isinstance(variable, Categorical) and variable.n <= _MOST_CATEGORIES:
            groups.append(data[name].astype(int))
    channels = np.stack(happened, -1).astype(np.float32)
    averages = [_moving_averages(channels, decay, group) for group in groups for decay in DECAYS]
    return principal_components(np.concatenate(averages, -1))


def in_turn(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Columns (..., n) and (..., m), one of each in turn until one has no more: (..., n + m)."""
    places = np.concatenate([np.arange(x.shape[-1]) for x in (features, others)])
    return np.concatenate([features, others], -1)[..., np.argsort(places, kind="stable")]


def _happened(schema: Schema, params: Arrays, data: Arrays, surprise: np.ndarray) -> list[np.ndarray]:
    """What happened on each trial, (sets, K) each: outcomes, feedback, surprises, and products."""
    outcomes = [_coded_outcome(schema, name, params, data) for name in schema.outcomes]
    feedback = [x for name, variable in schema.feedback.items() for x in _coded(variable, data[name])]
    made = [x for columns in outcomes for x in columns]
    made += [x * y for one, other in itertools.combinations(outcomes, 2) for x in one for y in other]
    made += list(np.moveaxis(surprise, -1, 0))
    return made + feedback + [x * y for x in made for y in feedback]


def _moving_averages(channels: np.ndarray, decay: float, group: np.ndarray | None) -> np.ndarray:
    """Averages of the trials before each, the recent ones weighing more, of its own group if given: as `channels`."""
    sets, trials, count = channels.shape
    rows, groups = np.arange(sets), 1 if group is None else int(group.max()) + 1
    total, weight = np.zeros((sets, groups, count), np.float32), np.full((sets, groups), 1e-9, np.float32)
    averages = np.empty_like(channels)
    place = np.zeros(sets, dtype=int)
    for k in range(trials):
        if group is not None:
            place = group[:, k]
        averages[:, k] = total[rows, place] / weight[rows, place, None]
        total[rows, place] = decay * total[rows, place] + channels[:, k]
        weight[rows, place] = decay * weight[rows, place] + 1
    return averages


def principal_components(features: np.ndarray) -> np.ndarray:
    """The first principal components of the standardised features, standardised, those of largest variance first."""
    flat = _standardized(features.reshape(-1, features.shape[-1]), 0)
    vectors = np.linalg.eigh((flat.T @ flat).astype(float))[1][:, ::-1][:, :_MOST_HISTORY]
    components = _standardized(flat @ vectors.astype(flat.dtype), 0)
    return components.reshape(*features.shape[:-1], -1)


def _coded_outcome(schema: Schema, name: str, params: Arrays, data: Arrays) -> list[np.ndarray]:
    """An outcome as numbers: what lies above a bound of its own by how far it does."""
    value = data[name]
    if name in schema.lower_bounds:
        value = np.maximum(value - params[schema.lower_bounds[name]][:, None], 1e-6)
    return _coded(schema.outcomes[name], value)


def _coded(variable: Variable, value: np.ndarray) -> list[np.ndarray]:
    """Values as standardised numbers, a column for each category but the first; as `value` each."""
    if isinstance(variable, Categorical):
        return [_standardized(1.0 * (value == code)) for code in range(1, min(variable.n, _MOST_CATEGORIES + 1))]
    with np.errstate(all="ignore"):
        return [_standardized(np.nan_to_num(variable.unconstrain(np, np.asarray(value, dtype=float))))]


def _scores(values: np.ndarray) -> np.ndarray:
    """Ranks, scaled to mean 0 and variance 1."""
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return np.sqrt(3) * ((2 * ranks + 1) / len(values) - 1)


def _standardized(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Mean 0 and variance 1, nothing farther away than a few standard deviations; 0 where nothing varies."""
    centered = values - values.mean(axis)
    spread = centered.std(axis)
    return np.clip(centered / np.where(spread > 1e-9, spread, 1.0), -_FARTHEST, _FARTHEST)
