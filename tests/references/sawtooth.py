"""References for the sawtooth waves: the exact density given the parameters, and integrated over all that is hidden.

Written from the model's equations and sharing no code with `ppl_buffer.simulators.sawtooth`; the ranges of the prior
are the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import logsumexp

DIRECTIONS = (1.0, -1.0)


def prefix_log_density(params: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """log p(y_1, ..., y_k | all parameters) for k = 1, ..., T, the direction integrated out.

    Args:
        params: ``frequency``, ``phase`` and ``noise``, each (B,).
        x: (B, T).
        y: (B, T).

    Returns:
        (B, T).
    """
    frequency, phase, noise = (np.asarray(params[name], float)[:, None] for name in ("frequency", "phase", "noise"))
    by_direction = []
    for direction in DIRECTIONS:
        periods = direction * frequency * x - phase
        error = (y - (periods - np.floor(periods))) / noise
        terms = -0.5 * error**2 - np.log(noise) - 0.5 * math.log(2 * math.pi)
        by_direction.append(math.log(0.5) + terms.cumsum(1))
    return logsumexp(by_direction, axis=0)


def prefix_log_evidence(
    x: np.ndarray,
    y: np.ndarray,
    sizes: Sequence[int],
    box: Mapping[str, Sequence[float]],
    nodes: Mapping[str, int] | None = None,
) -> np.ndarray:
    """log p(y_1, ..., y_k) with parameters and direction integrated out, of one data set, for each k in `sizes`.

    By midpoints of frequency and phase and Gauss-Legendre nodes of the noise. The squared errors of a cell of the grid
    are summed once for all noises, and frequencies are left out that the points have ruled out. After 144 points with
    the least noise the posterior of the frequency is about 0.004 wide and that of the phase 0.005: the midpoint rule
    needs steps below that, and steps as small as an edge is sharp, where a point lies at a jump.

    Args:
        x: (T,).
        y: (T,).
        sizes: numbers of points, each from 1 to T.
        box: bounds of the uniform priors of ``frequency``, ``phase`` and ``noise``.
        nodes: how many of each; 1800, 720 and 8 by default.

    Returns:
        (len(sizes),).
    """
    nodes = {"frequency": 1800, "phase": 720, "noise": 8} if nodes is None else nodes
    frequencies, phases = (
        low + (high - low) * (np.arange(count) + 0.5) / count
        for (low, high), count in ((box[name], nodes[name]) for name in ("frequency", "phase"))
    )
    point, weight = np.polynomial.legendre.leggauss(nodes["noise"])
    low, high = box["noise"]
    noises, log_weights = low + (high - low) * (point + 1) / 2, np.log(weight / 2)
    # Sixty nats below the best with the largest noise, and more with less.
    worst = 60 * 2 * noises.max() ** 2
    total = {size: [] for size in sizes}
    for direction in DIRECTIONS:
        # Single precision: sums of some hundred squares near 0.01, to be divided by 0.005, are right to 0.002 nats.
        rows = frequencies
        squares = np.zeros((len(rows), len(phases)), np.float32)
        for k, (place, value) in enumerate(zip(x, y, strict=True), start=1):
            if k % 8 == 0:
                possible = squares.min(1) < squares.min() + worst
                rows, squares = rows[possible], squares[possible]
            start = direction * rows * place
            # The wave at phase 0, and from there down by the phase, once around.
            error = (start - np.floor(start))[:, None].astype(np.float32) - phases.astype(np.float32)
            error += error < 0
            error -= np.float32(value)
            error *= error
            squares += error
            if k in total:
                total[k].append([_sum_exp(squares, noise, k) for noise in noises])
    log_cells = math.log(2 * len(frequencies) * len(phases))
    return np.array([logsumexp(np.array(total[size]) + log_weights) - log_cells for size in sizes])


def _sum_exp(squares: np.ndarray, noise: float, count: int) -> float:
    """Log of the summed densities of all cells, given their squared errors and the noise."""
    least = float(squares.min())
    exponent = squares - np.float32(least)
    exponent *= np.float32(-0.5 / noise**2)
    np.exp(exponent, out=exponent)
    log_sum = math.log(float(exponent.sum(dtype=float)))
    return log_sum - 0.5 * least / noise**2 - count * math.log(noise * math.sqrt(2 * math.pi))
