"""Numbers that should be uniform, and the simultaneous band of their distribution function.

Säilynoja, Bürkner & Vehtari (2022), Graphical test for discrete uniformity and its applications in goodness-of-fit
evaluation and multiple sample comparison, Statistics and Computing 32, 32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_buffer.checks import check_integer, check_numbers, check_seed

# Simulations behind a simultaneous band, and the least number of them beyond its critical value.
_SIMULATIONS, _LEAST_BEYOND = 10_000, 30
# Places at which an empirical distribution function is compared: more see finer structure and less of the coarse one.
_POINTS = 50


@dataclass(frozen=True)
class Uniformity:
    """Empirical distribution function of numbers that should be uniform, and its simultaneous band.

    Attributes:
        points: (P,), where it is evaluated.
        ecdf: (P,), share of the numbers up to each point.
        lower: (P,), lower end of the band.
        upper: (P,), upper end of the band.
        p: probability that uniform numbers leave a pointwise band at least as wide somewhere.
        passed: whether it lies inside the band at every point.
    """

    points: np.ndarray
    ecdf: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    p: float
    passed: bool

    def plot(self, axes: Any) -> Any:
        """Draw the empirical minus the uniform distribution function, and the band, on matplotlib axes."""
        x = np.concatenate([[0.0], self.points, [1.0]])
        lower, middle, upper = (
            np.concatenate([[0.0], y - self.points, [0.0]]) for y in (self.lower, self.ecdf, self.upper)
        )
        axes.fill_between(x, lower, upper, color="0.85", linewidth=0)
        axes.axhline(0.0, color="0.5", linewidth=0.8)
        axes.plot(x, middle, color="C0" if self.passed else "C3")
        axes.set_xlim(0, 1)
        return axes


def uniformity(values: Any, *, steps: int | None = None, level: float = 0.95, seed: int = 0) -> Uniformity:
    """Compare numbers in [0, 1] with the uniform distribution, by a simultaneous band of their distribution function.

    The band is that of Säilynoja, Bürkner & Vehtari (2022): at each point the interval of a binomial distribution, at a
    pointwise level chosen by simulation so that the whole function stays inside with probability `level`.

    Args:
        values: independent numbers, any shape.
        steps: where the numbers can only be (i + 1/2) / steps, i = 0 .. steps - 1 (ranks): this number, so that the
            function is evaluated between the steps alone.
        level: probability that uniform numbers stay inside the band.
        seed: of the simulation behind the band.

    Raises:
        ValueError: if there are no numbers, some lie outside [0, 1], or the level is not between 0 and 1.
    """
    values, seed = check_numbers("values", values).ravel(), check_seed(seed)
    if steps is not None:
        steps = check_integer("steps", steps, 2)
    if not values.size or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("values: expected numbers in [0, 1], at least one")
    check_level(level)
    count = len(values)
    most = 2 * _POINTS
    cells = _POINTS if steps is None else max(n for n in range(1, min(steps, most) + 1) if steps % n == 0)
    if cells < 2:
        raise ValueError(f"steps: expected a number with a divisor of at least 2 and at most {most}, got {steps}")
    points = np.arange(1, cells) / cells
    below = np.searchsorted(np.sort(values), points, side="right")
    least = _least_tails(count, cells, max(_SIMULATIONS, math.ceil(_LEAST_BEYOND / (1 - level))), seed)
    # A little less, so that rounding does not put a count that has just this probability outside.
    critical = float(np.quantile(least, 1 - level, method="lower")) * (1 - 1e-9)
    own = float(_tails(below, count, points).min())
    from scipy.stats import binom

    # The narrowest counts whose tail probability is not below the critical one.
    lower = binom.ppf(critical / 2, count, points)
    upper = count - binom.ppf(critical / 2, count, 1 - points)
    p = (1 + np.searchsorted(least, own, side="right")) / (1 + len(least))
    return Uniformity(points, below / count, lower / count, upper / count, float(p), bool(own >= critical))


def _tails(below: np.ndarray, count: int, points: np.ndarray) -> np.ndarray:
    """Twice the smaller binomial tail probability of each count."""
    from scipy.special import bdtr, bdtrc

    at_most = bdtr(below, count, points)
    at_least = np.where(below > 0, bdtrc(np.maximum(below, 1) - 1, count, points), 1.0)
    return 2 * np.minimum(at_most, at_least)


_simulated_tails: dict[tuple[int, int, int, int], np.ndarray] = {}


def _least_tails(count: int, cells: int, simulations: int, seed: int) -> np.ndarray:
    """Sorted least tail probabilities of simulated uniform samples (simulations,)."""
    key = (count, cells, simulations, seed)
    if key not in _simulated_tails:
        # How many numbers fall into each cell says all that the function at the points between them depends on.
        counts = np.random.default_rng(seed).multinomial(count, np.full(cells, 1 / cells), size=simulations)
        below, points = counts.cumsum(1)[:, :-1], np.arange(1, cells) / cells
        if count < simulations:
            table = _tails(np.arange(count + 1)[:, None], count, points)
            tails = np.take_along_axis(table, below, 0)
        else:
            tails = _tails(below, count, points)
        _simulated_tails[key] = np.sort(tails.min(1))
    return _simulated_tails[key]


def check_level(level: float) -> None:
    """Refuse a level that is no probability strictly between 0 and 1."""
    if not isinstance(level, (int, float)) or not 0 < level < 1:
        raise ValueError(f"level: expected a probability between 0 and 1, got {level!r}")
