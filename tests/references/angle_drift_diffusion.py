"""Density of choice and response time under boundaries that collapse along straight lines.

`log_density` is the formula, written over the series of `tests.references.drift_diffusion` and over any array
namespace, with the drift of the scaled evidence integrated along its end: it shares no code with
`ppl_buffer.simulators.angle_drift_diffusion`. `reached` knows nothing of it: the scaled evidence's Fokker-Planck
equation, with its drift, by implicit steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from scipy.linalg import solve_banded

from tests.references import drift_diffusion

Array = Any


def log_density(params: Mapping[str, Array], choice: Array, rt: Array, xp: ModuleType = np) -> Array:
    """Log density of choice and response time together; all arrays broadcast.

    Args:
        params: dict of ``drift``, ``boundary``, ``starting_point``, ``non_decision_time`` and ``angle``.
        choice: 1 = upper boundary, 0 = lower.
        rt: seconds; the density is 0 up to the non-decision time, and from where the boundaries have met.
        xp: `numpy`, or `jax.numpy`, where it is differentiable.
    """
    separation, start, drift = params["boundary"], params["starting_point"], params["drift"]
    closing = 2 * xp.tan(params["angle"])
    elapsed = rt - params["non_decision_time"]
    possible = (elapsed > 0) & (closing * elapsed < separation)
    elapsed = xp.where(possible, elapsed, 1e-3 * separation / (1 + closing))
    left = separation - closing * elapsed
    # In the time in which a separation of 1 stays, evidence as a share of the separation is a Brownian motion.
    unit = {"drift": 0.0, "boundary": 1.0, "starting_point": start, "non_decision_time": 0.0}
    scaled = xp.minimum(elapsed / (separation * left), 90.0)
    log_flux = drift_diffusion.log_density(unit, choice, scaled, xp=xp)
    from_middle = start - 0.5
    # Gains of the potentials of both drifts, that towards the boundaries and that of the evidence.
    towards = 0.5 * closing * (0.25 * left - separation * from_middle**2)
    side = xp.where(xp.asarray(choice) == 1, 0.5, -0.5)
    evidence = drift * (side * left - separation * from_middle) - 0.5 * drift**2 * elapsed
    return xp.where(possible, log_flux + towards + evidence - 1.5 * xp.log(left) - 0.5 * xp.log(separation), -xp.inf)


def reached(params: Mapping[str, float], times: np.ndarray, cells: int = 400, steps: int = 800) -> np.ndarray:
    """Probability that the lower and the upper boundary are reached within each decision time, (times, 2).

    Args:
        params: of one person.
        times: seconds since the evidence started, before the boundaries meet.
        cells: of the scaled evidence.
        steps: of the scaled time until the last of the times.
    """
    first, speed = 0.5 * params["boundary"], np.tan(params["angle"])
    scaled = times / (first * (first - speed * times))
    # Steps grow from the start, where all happens in a moment.
    grid = scaled.max() * np.linspace(0, 1, steps + 1) ** 2
    z = np.linspace(-1, 1, cells + 1)[1:-1]
    width = z[1] - z[0]
    density = np.zeros(cells - 1)
    place = (2 * params["starting_point"] - 1 - z[0]) / width
    density[int(place)], density[int(place) + 1] = 1 - place % 1, place % 1
    density /= width
    out, totals = np.zeros(2), [np.zeros(2)]
    for now, step in zip(grid[1:], np.diff(grid), strict=True):
        half = first / (1 + speed * first * now)
        push = half * (params["drift"] + speed * z)
        up, down = 0.5 / width**2 + 0.5 * push / width, 0.5 / width**2 - 0.5 * push / width
        # Rates out of each cell, to its right and to its left.
        bands = np.zeros((3, cells - 1))
        bands[0, 1:], bands[1], bands[2, :-1] = -step * down[1:], 1 + step * (up + down), -step * up[:-1]
        density = solve_banded((1, 1), bands, density)
        out = out + step * width * np.array([down[0] * density[0], up[-1] * density[-1]])
        totals.append(out)
    return np.stack([np.interp(scaled, grid, column) for column in np.array(totals).T], -1)
