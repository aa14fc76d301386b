"""Random functions of several features, of many kinds: what outcomes of random tables are made of.

NumPy, batched over tables. Every kind is a function (rng, x, relevance) -> f: features x (size, rows, columns), about
standardised; relevance (size, columns), 0 of a feature that the function does not depend on; values f (size, rows), on
no particular scale.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ppl_buffer.simulators.random_columns import standardised

# Units of the random networks, random Fourier features of the smooth functions, trees and their splits.
_UNITS, _FEATURES, _TREES, _SPLITS = 12, 40, 6, 3
# Number of kinds whose sum a function is, and how often.
_COUNTS = (0.5, 0.3, 0.2)

_ACTIVATIONS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    np.tanh,
    lambda z: np.maximum(z, 0),
    np.sin,
    np.abs,
    lambda z: np.exp(-(z**2)),
    lambda z: z / (1 + np.abs(z)),
)


def _linear(rng: np.random.Generator, x: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    return _projected(rng, x, relevance, 1)[..., 0]


def _projected(rng: np.random.Generator, x: np.ndarray, relevance: np.ndarray, outputs: int) -> np.ndarray:
    """Random linear maps of the features: (size, rows, outputs)."""
    return x @ (relevance[..., None] * rng.standard_normal((*relevance.shape, outputs)))


def _network(rng: np.random.Generator, x: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """One or two hidden layers, of an activation that is the table's own."""
    size = len(x)
    gain = np.exp(rng.uniform(-1.0, 1.0, (size, 1, 1)))
    z = gain * _projected(rng, x, relevance, _UNITS) + gain * rng.standard_normal((size, 1, _UNITS))
    kind, deep = rng.integers(len(_ACTIVATIONS), size=size), rng.random(size) < 0.5
    for index, activation in enumerate(_ACTIVATIONS):
        z[kind == index] = activation(z[kind == index])
        both = deep & (kind == index)
        weights = rng.standard_normal((both.sum(), _UNITS, _UNITS)) / np.sqrt(_UNITS)
        z[both] = activation(2 * gain[both] * standardised(z[both] @ weights, 1))
    return (z @ rng.standard_normal((size, _UNITS, 1)))[..., 0]


def _smooth(rng: np.random.Generator, x: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """About a draw of a Gaussian process, by random Fourier features (Rahimi & Recht 2007).

    Of a squared-exponential kernel, or of a Matern one, whose spectral density is Student's t.
    """
    size = len(x)
    lengthscale = np.exp(rng.uniform(np.log(0.25), np.log(4.0), (size, 1, 1)))
    degrees = rng.choice([3.0, 5.0, np.inf], (size, 1, 1))
    finite = np.where(np.isinf(degrees), 1.0, degrees)
    stretch = np.where(np.isinf(degrees), 1.0, np.sqrt(finite / rng.chisquare(finite, (size, 1, _FEATURES))))
    frequency = rng.standard_normal((*relevance.shape, _FEATURES)) * relevance[..., None] * stretch / lengthscale
    phase = rng.uniform(0, 2 * np.pi, (size, 1, _FEATURES))
    angle = (x.astype(np.float32) @ frequency.astype(np.float32)) + phase.astype(np.float32)
    return (np.cos(angle) @ rng.standard_normal((size, _FEATURES, 1)))[..., 0]


def _steps(rng: np.random.Generator, x: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """A sum of trees, each of which asks the same questions on all its branches."""
    size, rows, columns = x.shape
    splits = (size, _TREES * _SPLITS)
    feature = (relevance[:, None] * rng.random((*splits, columns))).argmax(-1)
    values = np.take_along_axis(x, feature[:, None], 2)
    threshold = np.take_along_axis(values, rng.integers(0, rows, splits)[:, None], 1)
    side = (values > threshold).reshape(size, rows, _TREES, _SPLITS)
    leaf = side @ (2 ** np.arange(_SPLITS)) + 2**_SPLITS * np.arange(_TREES)
    height = np.exp(rng.standard_normal((size, _TREES, 1))) * rng.standard_normal((size, _TREES, 2**_SPLITS))
    return np.take_along_axis(height.reshape(size, -1), leaf.reshape(size, -1), 1).reshape(leaf.shape).sum(-1)


def _interaction(rng: np.random.Generator, x: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """A product of two linear functions, each of few features."""
    sparse = [relevance * (rng.random(relevance.shape) < 0.6) + 1e-3 * relevance for _ in range(2)]
    shift = rng.standard_normal((2, len(x), 1))
    return (_linear(rng, x, sparse[0]) + shift[0]) * (_linear(rng, x, sparse[1]) + shift[1])


def _periodic(rng: np.random.Generator, x: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """A wave along one feature, as of an hour or a season."""
    feature = (relevance * rng.random(relevance.shape)).argmax(-1)[:, None, None]
    frequency = np.exp(rng.uniform(np.log(0.1), np.log(1.2), (len(x), 1)))
    angle = 2 * np.pi * frequency * np.take_along_axis(x, feature, 2)[..., 0]
    phase, weight = rng.uniform(0, 2 * np.pi, (2, len(x), 1)), rng.uniform(0, 0.8, (len(x), 1))
    return np.sin(angle + phase[0]) + weight * np.sin(2 * angle + phase[1])


# Kinds of functions, and how often each is part of one.
_KINDS: tuple[tuple[float, Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]], ...] = (
    (0.24, _linear),
    (0.22, _network),
    (0.24, _smooth),
    (0.14, _steps),
    (0.09, _interaction),
    (0.07, _periodic),
)


def draw_function(rng: np.random.Generator, x: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """A random function of each table's features: a sum of one to three kinds, standardised over the rows.

    Args:
        rng: the only source of randomness.
        x: (size, rows, columns), about standardised.
        relevance: (size, columns), at least 0: how much each feature tells, compared with the others.

    Returns:
        (size, rows); 0 where the function happens to be constant.
    """
    size = len(x)
    shares = np.array([share for share, _ in _KINDS])
    count = rng.choice(len(_COUNTS), (size, 1), p=_COUNTS) + 1
    # Without replacement, by the exponential race.
    race = rng.exponential(1.0, (size, len(shares))) / shares
    taken = race.argsort(1).argsort(1) < count
    weight = taken * rng.exponential(1.0, taken.shape) * rng.choice([-1, 1], taken.shape)
    total = np.zeros(x.shape[:2])
    for index, (_, kind) in enumerate(_KINDS):
        tables = np.flatnonzero(taken[:, index])
        if not len(tables):
            continue
        values = standardised(kind(rng, x[tables], relevance[tables]), 1)
        total[tables] += weight[tables, index, None] * values
    return standardised(total, 1)
