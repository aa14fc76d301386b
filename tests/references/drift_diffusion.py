"""Exact density of choice and response time in the drift-diffusion model (Navarro & Fuss 2009).

Written from the model's equations and sharing no code with `ppl_buffer.simulators.drift_diffusion`. With the boundary
separation a, the distance d to the boundary that is reached (as a share of a), and the decision time u = s a^2, the
density is

    a^-2 f(s; d) * integral over v of Normal(v; eta, variability^2) exp(v a d - v^2 u / 2),

where eta is the drift towards that boundary, the integral has a closed form, and f, the density without drift, has two
series: images of the starting point, which converge fast early, and sines, which converge fast late.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log, pi
from types import ModuleType
from typing import Any

import numpy as np

Array = Any
# Scaled time at which the sines take over. There, the first image and the first sine that are left out are 1e-20 of
# the density.
_SWITCH = 0.45
_IMAGES, _SINES = 3, 4


def log_density(
    params: Mapping[str, Array],
    choice: Array,
    rt: Array,
    xp: ModuleType = np,
    images: int = _IMAGES,
    sines: int = _SINES,
) -> Array:
    """Log density of choice and response time together; all arrays broadcast.

    Args:
        params: dict of ``drift``, ``boundary`` and ``non_decision_time``, and, where they are not 0.5 and 0, of
            ``starting_point`` and ``drift_variability``.
        choice: 1 = upper boundary, 0 = lower.
        rt: seconds; the density is 0 up to the non-decision time.
        xp: `numpy`, or `jax.numpy`, where it is differentiable (in double precision if that is switched on).
        images: pairs of images in the early series.
        sines: of the late series.
    """
    drift, boundary, non_decision_time = params["drift"], params["boundary"], params["non_decision_time"]
    start, variance = params.get("starting_point", 0.5), params.get("drift_variability", 0.0) ** 2
    upper = xp.asarray(choice) == 1
    distance, towards = xp.where(upper, 1 - start, start), xp.where(upper, drift, -drift)
    possible = rt > non_decision_time
    # A harmless time where there is no density keeps the gradient free of NaN.
    time = xp.where(possible, rt - non_decision_time, 1.0)
    scaled = time / boundary**2
    driftless = xp.where(
        scaled < _SWITCH,
        _log_early(xp, xp.minimum(scaled, _SWITCH), distance, images),
        _log_late(xp, xp.maximum(scaled, _SWITCH), distance, sines),
    )
    path = boundary * distance
    spread = 1 + variance * time
    exponent = (variance * path**2 + 2 * towards * path - towards**2 * time) / (2 * spread)
    return xp.where(possible, driftless - 2 * xp.log(boundary) + exponent - 0.5 * xp.log(spread), -xp.inf)


def distribution_function(params: Mapping[str, Array], choice: Array, rt: Array, nodes: int = 800) -> np.ndarray:
    """Probability of this choice and a response time of at most `rt`; all arrays broadcast.

    Simpson's rule in the logarithm of the decision time, from where the density has not begun (e**-50 of its scale).

    Args:
        params: as `log_density` takes them.
        choice: 1 = upper boundary, 0 = lower.
        rt: seconds; infinity for the probability of the choice.
        nodes: even number of steps.
    """
    start, boundary, offset = params.get("starting_point", 0.5), params["boundary"], params["non_decision_time"]
    path = boundary * np.where(np.asarray(choice) == 1, 1 - start, start)
    first = np.log(0.01 * path**2)
    # e**-490 of the slowest decay is left after the last moment.
    last = np.log(np.clip(rt - offset, np.exp(first), 100 * boundary**2))
    weights = np.where(np.arange(nodes + 1) % 2, 4.0, 2.0)
    weights[[0, -1]] = 1.0
    total = 0.0
    for share, weight in zip(np.linspace(0, 1, nodes + 1), weights, strict=True):
        log_time = first + share * (last - first)
        total = total + weight * np.exp(log_density(params, choice, offset + np.exp(log_time)) + log_time)
    return total * (last - first) / (3 * nodes)


def _log_early(xp: ModuleType, time: Array, distance: Array, images: int) -> Array:
    """Log density without drift from images, the nearest of which stays outside the sum, so that nothing underflows."""
    total = 1.0
    for image in range(1, images + 1):
        share = 2 * image / distance
        total = total + (1 + share) * xp.exp(-2 * image * (image + distance) / time)
        total = total + (1 - share) * xp.exp(-2 * image * (image - distance) / time)
    first = xp.log(distance) - 0.5 * log(2 * pi) - 1.5 * xp.log(time) - 0.5 * distance**2 / time
    return first + xp.log(total)


def _log_late(xp: ModuleType, time: Array, distance: Array, sines: int) -> Array:
    """Log density without drift from sines, with the slowest decay outside the sum."""
    total = 0.0
    for sine in range(1, sines + 1):
        decay = 0.5 * pi**2 * (sine**2 - 1)
        total = total + sine * xp.sin(sine * pi * distance) * xp.exp(-decay * time)
    return log(pi) - 0.5 * pi**2 * time + xp.log(total)
