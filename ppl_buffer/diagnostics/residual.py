"""Does any function of parameters, inputs and history predict outcomes better than a network does? NumPy and SciPy.

Under the network the deviations of outcomes from what it predicts have mean 0 and a known variance, whatever came
before. So their sums with any features of the past, U, have mean 0 and a known covariance H, and

    U' (H + ridge)^-1 U

is a weighted sum of chi-squared numbers: a score test (Rao 1948), on all simulated trials. By how much a correction
that is fitted on half of the data sets improves the log density of the other half is a lower bound of the network's
Kullback-Leibler divergence from the simulator, and needs no likelihood.

The deviations: of a binary outcome y, y - p; of any other, orthonormal polynomials of the network's distribution
function (Neyman's smooth test), of a category or an integer averaged over its step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ppl_buffer.diagnostics.history import history_features, in_turn, principal_components, static_features
from ppl_buffer.diagnostics.statistics import Arrays
from ppl_buffer.schema import Categorical, Discrete, Schema

# What the polynomials of a distribution function see.
_SHAPES = ("location", "spread", "skewness", "tails")
# Nearer to 0 and 1 no probability is believed.
_LEAST = 1e-6
# Ridge of the score test, and those among which a correction chooses; in means of the diagonal.
_RIDGE, _RIDGES = 0.01, (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
# Blocks of data sets: half of them fit a correction, by cross-validation within, the others judge it.
_FOLDS = 8
_NODES = 32
# Data sets for each feature: with fewer, information that depends on the outcomes makes small p too frequent.
_SETS_A_FEATURE = 4
# Features of the history with which it is worth to form products.
_FEWEST_CROSSED = 4


@dataclass(frozen=True)
class Residual:
    """One way in which one outcome may deviate from what a network predicts.

    Attributes:
        outcome: its name.
        shape: "" of a binary outcome; else which polynomial of the distribution function.
        statistic: of the score test.
        p: its probability under a right network.
        corrections: (sets, K), by the features; fitted on other data sets than these.
    """

    outcome: str
    shape: str
    statistic: float
    p: float
    corrections: np.ndarray

    @property
    def what(self) -> str:
        """What deviates, in words."""
        return f"{self.shape} of {self.outcome}" if self.shape else self.outcome


@dataclass(frozen=True)
class ResidualTest:
    """What functions of the history predict beyond a network. Made by `find_residuals`.

    Attributes:
        residuals: one for each way in which an outcome may deviate.
        gains: (sets,), held-out gain of the corrections in log density, in nats a trial.
    """

    residuals: list[Residual]
    gains: np.ndarray

    @cached_property
    def gain(self) -> float:
        """Mean held-out gain, in nats a trial: the network's error is this, or more."""
        return float(self.gains.mean())

    @cached_property
    def standard_error(self) -> float:
        """Of the gain. Both halves say much the same, since each judges what the other found: that of one half."""
        return float(self.gains.std() / math.sqrt(len(self.gains) / 2))


def find_residuals(
    schema: Schema, params: Arrays, data: Arrays, lower: Arrays, upper: Arrays, read: np.ndarray | None = None
) -> ResidualTest:
    """Test whether features of parameters, inputs and history predict outcomes better than a network.

    Args:
        schema: of the data.
        params: name -> (sets,), of the simulation.
        data: name -> (sets, K) of inputs, outcomes and feedback, simulated.
        lower: outcome -> (sets, K), the network's distribution function just below the outcome, given all before it.
        upper: the same at the outcome; equal to `lower` where the outcome is continuous.
        read: (sets, K, W), what the network's heads read of each trial: features beside those of the history. A network
            that was trained too little knows more than it says.
    """
    deviations = {name: _deviations(schema, name, data[name], lower[name], upper[name]) for name in schema.outcomes}
    surprise = np.stack([rows[0].value / np.sqrt(rows[0].variance + 0.01) for rows in deviations.values()], -1)
    history = history_features(schema, params, data, surprise)
    if read is not None:
        history = in_turn(principal_components(read), history)
    residuals, gains = [], np.zeros(len(surprise))
    for name, rows in deviations.items():
        features = _Features(static_features(schema, params, data, name, rows[0].predicted), history)
        tested = _residuals(name, rows, features)
        residuals += tested
        by_trial = _gains(rows, [x.corrections for x in tested], data[name], lower[name], upper[name])
        gains += by_trial.mean(-1)
    return ResidualTest(residuals, gains)


@dataclass(frozen=True)
class _Deviation:
    """Numbers (sets, K) of mean 0 under the network, their variance, and columns (sets, K, n) of what it predicts."""

    shape: str
    value: np.ndarray
    variance: np.ndarray
    predicted: np.ndarray


def _deviations(schema: Schema, name: str, value: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> list[_Deviation]:
    variable, nothing = schema.outcomes[name], np.empty((*value.shape, 0))
    if isinstance(variable, Categorical) and variable.n == 2:
        p = _probability(value, lower, upper)
        return [_Deviation("", value - p, p * (1 - p), np.sqrt(3) * (2 * p - 1)[..., None])]
    shapes = len(_SHAPES) if not isinstance(variable, Discrete) else min(len(_SHAPES), variable.n - 1)
    rows = []
    for degree in range(1, shapes + 1):
        average = _averaged_polynomial(degree, lower, upper)
        variance = average**2 if isinstance(variable, Discrete) else np.ones_like(average)
        rows.append(_Deviation(_SHAPES[degree - 1], average, variance, nothing))
    return rows


def _probability(value: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Probability of the second of two categories."""
    step = np.clip(upper - lower, _LEAST, 1 - _LEAST)
    return np.where(value == 1, step, 1 - step)


def _polynomial(degree: int, at: np.ndarray) -> np.ndarray:
    """Legendre polynomial, orthonormal on (0, 1)."""
    from scipy.special import eval_legendre

    return math.sqrt(2 * degree + 1) * eval_legendre(degree, 2 * at - 1)


def _averaged_polynomial(degree: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The polynomial's mean between two values of the distribution function, which may be equal."""
    nodes, weights = np.polynomial.legendre.leggauss(3)
    places = lower[..., None] + (upper - lower)[..., None] * (nodes + 1) / 2
    return _polynomial(degree, np.clip(places, 0.0, 1.0)) @ (weights / 2)


@dataclass(frozen=True)
class _Features:
    """1, static features, their products with each other and with those of the history; of few data sets no products.

    Attributes:
        static: (sets, K, columns).
        history: (sets, K, columns).
    """

    static: np.ndarray
    history: np.ndarray

    def of(self, fold: int) -> np.ndarray:
        """Those of one block of data sets: (its trials, columns)."""
        sets, trials = self.static.shape[:2]
        static, history = (x[fold::_FOLDS].astype(np.float32) for x in (self.static, self.history))
        shape = static.shape[:-1]
        one = np.concatenate([np.ones((*shape, 1), np.float32), static], -1)
        most, known, past = sets // _SETS_A_FEATURE, one.shape[-1], history.shape[-1]
        first, second = np.triu_indices(known)
        crossed = min((most - len(first)) // known, past)
        if crossed < min(_FEWEST_CROSSED, past):
            columns = np.concatenate([one, history], -1)[..., : max(most, 2)]
            return columns.reshape(-1, columns.shape[-1])
        columns = np.empty((*shape, len(first) + known * crossed), np.float32)
        np.multiply(one[..., first], one[..., second], out=columns[..., : len(first)])
        for index in range(known):
            start = len(first) + index * crossed
            np.multiply(one[..., index, None], history[..., :crossed], out=columns[..., start : start + crossed])
        return columns.reshape(-1, columns.shape[-1])


def _residuals(outcome: str, rows: list[_Deviation], features: _Features) -> list[Residual]:
    """Score tests and cross-fitted corrections of the deviations of one outcome."""
    sums: list[list[np.ndarray]] = [[] for _ in rows]
    information: list[list[np.ndarray]] = [[] for _ in rows]
    for fold in range(_FOLDS):
        columns = features.of(fold)
        for index, row in enumerate(rows):
            value, variance = (x[fold::_FOLDS].ravel().astype(np.float32) for x in (row.value, row.variance))
            sums[index].append((columns.T @ value).astype(float))
            # Of numbers with one known variance the information is the same.
            shared = index > 0 and np.array_equal(row.variance, rows[0].variance)
            product = information[0][fold] if shared else (columns.T * variance) @ columns
            information[index].append(np.asarray(product, dtype=float))
    tests = [_score_test(np.sum(u, 0), np.sum(h, 0)) for u, h in zip(sums, information, strict=True)]
    weights = [
        [_fit(np.stack(u[1 - half :: 2]), np.stack(h[1 - half :: 2])) for half in (0, 1)]
        for u, h in zip(sums, information, strict=True)
    ]
    corrections = np.zeros((len(rows), *rows[0].value.shape))
    for fold in range(_FOLDS):
        both = np.stack([pair[fold % 2] for pair in weights], -1)
        if both.any():
            values = features.of(fold) @ both.astype(np.float32)
            corrections[:, fold::_FOLDS] = np.moveaxis(values.reshape(*corrections[0, fold::_FOLDS].shape, -1), -1, 0)
    return [
        Residual(outcome, row.shape, *test, values) for row, test, values in zip(rows, tests, corrections, strict=True)
    ]


def _score_test(sums: np.ndarray, information: np.ndarray) -> tuple[float, float]:
    """Ridge score statistic, and its p by a gamma distribution of the same mean, variance and skewness."""
    from scipy.special import gammaincc

    values, vectors = np.linalg.eigh(information)
    values = np.maximum(values, 0.0)
    ridge = _RIDGE * values.mean()
    weights = values / (values + ridge)
    statistic = float(((vectors.T @ sums) ** 2 / (values + ridge)).sum())
    mean, variance, third = weights.sum(), 2 * (weights**2).sum(), 8 * (weights**3).sum()
    shape = 4 * variance**3 / third**2
    place = shape + (statistic - mean) / math.sqrt(variance) * math.sqrt(shape)
    return statistic, float(gammaincc(shape, max(place, 0.0)))


def _fit(sums: np.ndarray, information: np.ndarray) -> np.ndarray:
    """Weights of the features (columns,), from blocks of data sets; ridge and size by cross-validation.

    The size shrinks a correction by what is expected of it on other data, to nothing where that is nothing.
    """
    best, weights = 0.0, np.zeros(sums.shape[1])
    total, full = sums.sum(0), information.sum(0)
    scale = np.trace(full) / len(full)
    for ridge in _RIDGES:
        linear = square = 0.0
        for index in range(len(sums)):
            rest = _solve(full - information[index], total - sums[index], ridge * scale)
            linear += float(rest @ sums[index])
            square += float(rest @ information[index] @ rest)
        size = min(max(linear, 0.0) / max(square, 1e-30), 1.0)
        gain = size * linear - 0.5 * size**2 * square
        if gain > best:
            best, weights = gain, size * _solve(full, total, ridge * scale)
    return weights


def _solve(information: np.ndarray, sums: np.ndarray, ridge: float) -> np.ndarray:
    from scipy.linalg import solve

    return solve(information + ridge * np.eye(len(sums)), sums, assume_a="pos")


def _gains(
    rows: list[_Deviation], corrections: list[np.ndarray], value: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """By how much the corrected density of each outcome exceeds the network's, in nats: (sets, K).

    A correction tilts the density by the exponential of itself times what deviates, and normalises it.
    """
    if not rows[0].shape:
        p = _probability(value, lower, upper)
        log_odds = np.log(p) - np.log1p(-p)
        sign = 2.0 * value - 1
        return np.logaddexp(0.0, -sign * log_odds) - np.logaddexp(0.0, -sign * (log_odds + corrections[0]))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    nodes, weights = (nodes + 1) / 2, weights / 2
    exponent = sum(x[..., None] * _polynomial(i, nodes) for i, x in enumerate(corrections, start=1))
    normalizer = np.log(np.exp(exponent) @ weights)
    few, few_weights = np.polynomial.legendre.leggauss(5)
    places = np.clip(lower[..., None] + (upper - lower)[..., None] * (few + 1) / 2, 0.0, 1.0)
    tilted = sum(x[..., None] * _polynomial(i, places) for i, x in enumerate(corrections, start=1))
    return np.log(np.exp(tilted) @ (few_weights / 2)) - normalizer
