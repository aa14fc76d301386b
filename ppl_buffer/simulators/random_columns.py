"""Random columns of tables: features as tables have them, cells that are missing, and the scale that a user gives them.

Columns depend on each other, are skewed or have heavy tails, few levels or many zeros, or follow a hidden time. NumPy,
batched over tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import ndtr

# Shares of the tables: columns that are mixtures of common factors, bent functions of each other, or of a hidden time.
_MIXED, _BENT, _SERIES = 0.8, 0.3, 0.3
# Waves that a column of a series is made of.
_WAVES = 6
# Share of the tables without missing cells; of the others' columns, those that have some.
_COMPLETE, _INCOMPLETE_COLUMNS = 0.5, 0.6
# Share of the tables that are put on the scale of their first rows in the order of the first column.
_WINDOW = 0.25
# Fewest rows behind a scale: in number where they are random, as a share where they come first.
_LEAST_ROWS, _LEAST_SHARE = 6, 1 / 3


def _skewed(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    return np.exp(z * rng.choice([-1, 1], (len(z), 1)) * rng.uniform(0.3, 1.0, (len(z), 1)))


def _heavy(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    # Tukey's h.
    return z * np.exp(rng.uniform(0.02, 0.15, (len(z), 1)) * z**2)


def _two_peaks(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    return z + np.sign(z) * rng.uniform(0.5, 3.0, (len(z), 1))


def _levels(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    skew, levels = np.exp(rng.uniform(-0.7, 0.7, (len(z), 1))), rng.integers(2, 25, (len(z), 1))
    return np.floor(ndtr(z) ** skew * levels)


def _many_zeros(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    return np.maximum(z - rng.uniform(-1.0, 0.7, (len(z), 1)), 0)


# How a column that is about standard normal becomes one of a table, and how often.
_MARGINALS: tuple[tuple[float, Callable[[np.random.Generator, np.ndarray], np.ndarray]], ...] = (
    (0.30, lambda rng, z: z),
    (0.15, lambda rng, z: ndtr(z)),
    (0.15, _skewed),
    (0.10, _heavy),
    (0.10, _two_peaks),
    (0.13, _levels),
    (0.07, _many_zeros),
)


def draw_columns(rng: np.random.Generator, size: int, rows: int, columns: int) -> np.ndarray:
    """Features of tables whose rows are independent draws from a law of each table's own: (size, rows, columns).

    Each is standardised over its rows; a column that happens to be constant is 0.
    """
    z = rng.standard_normal((size, rows, columns))
    strength = (rng.uniform(0, 1, (size, 1, 1)) * (rng.random((size, 1, 1)) < _MIXED)) ** 0.5
    mix = np.eye(columns) + strength * rng.standard_normal((size, columns, columns))
    z = z @ (mix / np.linalg.norm(mix, axis=1, keepdims=True))
    bent = np.flatnonzero(rng.random(size) < _BENT)
    z[bent] += 1.5 * np.tanh(z[bent] @ rng.standard_normal((len(bent), columns, columns)))
    series = np.flatnonzero(rng.random(size) < _SERIES)
    z[series] = _series(rng, len(series), rows, columns)
    by_column = standardised(z, 1).transpose(0, 2, 1).reshape(size * columns, rows)
    shares = np.array([share for share, _ in _MARGINALS])
    kind = rng.choice(len(shares), len(by_column), p=shares)
    for index, (_, marginal) in enumerate(_MARGINALS):
        columns_of_kind = np.flatnonzero(kind == index)
        by_column[columns_of_kind] = marginal(rng, by_column[columns_of_kind])
    return standardised(by_column.reshape(size, columns, rows).transpose(0, 2, 1), 1)


def _series(rng: np.random.Generator, size: int, rows: int, columns: int) -> np.ndarray:
    """Columns that are smooth functions of a hidden time, with little noise; the first may be the time itself."""
    time = rng.random((size, rows, 1))
    frequency = rng.exponential(rng.uniform(0.3, 3.0, (size, 1, 1, 1)), (size, 1, columns, _WAVES))
    phase = rng.uniform(0, 2 * np.pi, frequency.shape)
    amplitude = rng.standard_normal(frequency.shape)
    z = (amplitude * np.cos(2 * np.pi * frequency * time[..., None] + phase)).sum(-1)
    noise = np.exp(rng.uniform(np.log(0.01), np.log(1.0), (size, 1, columns)))
    z = standardised(z, 1) + noise * rng.standard_normal(z.shape)
    shown = np.flatnonzero(rng.random(size) < 0.5)
    z[shown, :, 0] = np.sqrt(12) * (time[shown, :, 0] - 0.5)
    return z


def draw_missing(rng: np.random.Generator, size: int, rows: int, columns: int) -> np.ndarray:
    """Which cells are missing, by chance alone: (size, rows, columns), in about half of the tables none."""
    incomplete = (rng.random((size, 1, 1)) >= _COMPLETE) & (rng.random((size, 1, columns)) < _INCOMPLETE_COLUMNS)
    rate = incomplete * rng.beta(1, 3, (size, 1, columns))
    return rng.random((size, rows, columns)) < rate


def fill_cells(rng: np.random.Generator, x: np.ndarray, observed: np.ndarray, candidates: int = 16) -> np.ndarray:
    """Values for missing cells: of the row that is most alike, among a few random rows that have the cell.

    So filled, columns depend on each other about as they do in the rows that are complete (a hot deck).

    Args:
        rng: the only source of randomness.
        x: (size, rows, columns).
        observed: likewise, bool. Where a column has no observed cell at all, 0 is filled in.
        candidates: random rows to choose among.
    """
    size, rows, _ = x.shape
    incomplete = np.flatnonzero((observed.any(1, keepdims=True) & ~observed).any((1, 2)))
    x = np.where(observed, x, 0.0)
    if not len(incomplete):
        return x
    values, seen = x[incomplete], observed[incomplete]
    tables = np.arange(len(incomplete))[:, None, None]
    donors = rng.integers(0, rows, (len(incomplete), rows, candidates))
    theirs, have = values[tables, donors], seen[tables, donors]
    both = seen[:, :, None] & have
    # Of rows that have few cells in common, the mean over these.
    distance = (both * (values[:, :, None] - theirs) ** 2).sum(-1) / np.maximum(both.sum(-1), 1)
    distance = np.where(have, distance[..., None], np.inf)
    nearest = distance.argmin(2)
    filled = np.take_along_axis(theirs, nearest[:, :, None], 2)[:, :, 0]
    x[incomplete] = np.where(seen, values, filled)
    return x


def standardised(x: np.ndarray, axis: int | Sequence[int]) -> np.ndarray:
    """Values less their mean, over their standard deviation, along an axis; what is constant becomes 0."""
    axis = axis if isinstance(axis, int) else tuple(axis)
    x = x - x.mean(axis, keepdims=True)
    spread = np.sqrt((x**2).mean(axis, keepdims=True))
    return np.where(spread > 1e-9, x / np.maximum(spread, 1e-9), 0.0)


def scale_rows(rng: np.random.Generator, first: np.ndarray) -> np.ndarray:
    """Rows by which a user would have standardised a table, who knows only some of them: (size, rows) bool.

    A random number of random rows; in some tables those that come first in the order of the first column, as before a
    forecast.

    Args:
        rng: the only source of randomness.
        first: (size, rows), the first column.
    """
    size, rows = first.shape
    window = rng.random((size, 1)) < _WINDOW
    least = np.where(window, _LEAST_SHARE * rows, min(_LEAST_ROWS, rows))
    count = np.exp(rng.uniform(np.log(least), np.log(rows + 1)))
    rank = np.where(window, first, rng.random((size, rows))).argsort(1, kind="stable").argsort(1)
    return rank < count


def on_scale_of(x: np.ndarray, observed: np.ndarray, rows: np.ndarray, largest: float) -> np.ndarray:
    """Columns less their mean over some rows, over their standard deviation there: (size, rows, columns).

    Args:
        x: (size, rows, columns).
        observed: likewise, bool: cells that count. The others become 0.
        rows: (size, rows) bool.
        largest: magnitude that no cell exceeds: the standard deviation is raised where one would.
    """
    seen = observed & rows[..., None]
    # Where hardly a cell is known, all are.
    seen = np.where(seen.sum(1, keepdims=True) < 2, observed, seen)
    count = np.maximum(seen.sum(1, keepdims=True), 1)
    mean = np.where(seen, x, 0).sum(1, keepdims=True) / count
    x = np.where(observed, x - mean, 0)
    spread = np.sqrt(np.where(seen, x**2, 0).sum(1, keepdims=True) / count)
    spread = np.maximum(spread, np.abs(x).max(1, keepdims=True, initial=0) / largest)
    return np.where(spread > 1e-9, x / np.maximum(spread, 1e-9), 0.0)
