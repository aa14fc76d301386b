"""Density of choice and response time in a race of Wiener processes with a single boundary each.

The passage time of an accumulator with drift v to the boundary b is inverse Gaussian with the mean b / v and the shape
b^2. Its survival function is written as in Tillman, Van Zandt & Logan (2020), a difference of two normal probabilities,
of logarithms here: nothing is shared with `ppl_buffer.simulators.racing_diffusion`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from scipy.special import log_ndtr

Array = Any


def log_density(
    params: Mapping[str, Array],
    choice: Array,
    rt: Array,
    xp: ModuleType = np,
    log_cdf: Callable[[Array], Array] = log_ndtr,
) -> Array:
    """Log density of choice and response time together; all arrays broadcast.

    Args:
        params: dict of ``drift_1``, ``drift_2``, ..., ``boundary`` and ``non_decision_time``.
        choice: the winner, 0 for that of ``drift_1``.
        rt: seconds; the density is 0 up to the non-decision time.
        xp: `numpy`, or `jax.numpy`, where it is differentiable (in double precision if that is switched on).
        log_cdf: logarithm of the normal distribution function, of the same arrays.
    """
    boundary, options = params["boundary"], len(params) - 2
    possible = rt > params["non_decision_time"]
    # A harmless time where there is no density keeps the gradient free of NaN.
    time = xp.where(possible, rt - params["non_decision_time"], 1.0)
    total: Array = 0.0
    for option in range(options):
        drift = params[f"drift_{option + 1}"]
        wins = _log_wald(xp, time, drift, boundary)
        loses = _log_survival(xp, log_cdf, time, drift, boundary)
        total = total + xp.where(xp.asarray(choice) == option, wins, loses)
    return xp.where(possible, total, -xp.inf)


def _log_wald(xp: ModuleType, time: Array, drift: Array, boundary: Array) -> Array:
    shape = boundary**2
    return 0.5 * xp.log(shape / (2 * np.pi * time**3)) - 0.5 * shape * (1 - time * drift / boundary) ** 2 / time


def _log_survival(
    xp: ModuleType, log_cdf: Callable[[Array], Array], time: Array, drift: Array, boundary: Array
) -> Array:
    scaled = boundary / xp.sqrt(time)
    below = log_cdf(scaled * (1 - time * drift / boundary))
    # Mirror images of those that crossed; by rounding they may be as many as all.
    mirrored = 2 * drift * boundary + log_cdf(-scaled * (1 + time * drift / boundary)) - below
    return below + xp.log1p(-xp.exp(xp.minimum(mirrored, -xp.finfo(mirrored.dtype).eps)))
