"""Log probability of a choice and a confidence rating under metacognitive noise, by quadrature over the noisy evidence.

Written from the model's definition and sharing no code with `ppl_buffer.simulators.confidence`, which has Owen's
function. Given y, the copy that confidence is read from, the evidence x of the choice is normal:

    p(choice = 1, y) = Normal(y; mu, 1 + s^2) Phi((mu s^2 + y) / (s sqrt(1 + s^2))),

both measured from the criterion. This is integrated over the y of each rating but the lowest, whose probability is what
the choice has left.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from scipy.special import ndtr

Array = Any
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(80)
# Standard deviations of y beyond its mean, or beyond the last confidence criterion, where nothing is left.
_FAR = 9.0


def log_probability(
    params: Mapping[str, Array],
    data: Mapping[str, Array],
    xp: ModuleType = np,
    cdf: Any = ndtr,
    nodes: tuple[np.ndarray, np.ndarray] = (_NODES, _WEIGHTS),
) -> Array:
    """Log probability of each trial's choice and rating together, (..., trials).

    Args:
        params: dict of ``sensitivity``, ``criterion``, ``metacognitive_noise`` and the increments, each (...).
        data: dict of ``stimulus``, ``choice`` and ``rating``, each (..., trials).
        xp: `numpy`, or `jax.numpy`, where it is differentiable.
        cdf: the distribution function of the standard normal distribution, of arrays of `xp`.
        nodes: nodes and weights of a quadrature on [-1, 1].
    """
    column = {name: xp.asarray(x)[..., None] for name, x in params.items()}
    # Just above 0 where it is 0: the quadrature has the limit.
    noise = xp.maximum(column["metacognitive_noise"], 1e-6)
    criteria, number = [0.0 * noise], 1
    while f"increment_{number}" in column:
        criteria.append(criteria[-1] + column[f"increment_{number}"])
        number += 1
    mean = 0.5 * column["sensitivity"] * data["stimulus"] - column["criterion"]
    mean = xp.where(data["choice"] == 1, mean, -mean)
    spread = xp.sqrt(1 + noise**2)
    ends = [*criteria, xp.maximum(criteria[-1], mean) + _FAR * spread]
    above = []
    for low, high in zip(ends[1:-1], ends[2:], strict=True):
        y = 0.5 * (low + high)[..., None] + 0.5 * (high - low)[..., None] * nodes[0]
        scaled = (y - mean[..., None]) / spread[..., None]
        density = xp.exp(-0.5 * scaled**2) / (spread[..., None] * (2 * np.pi) ** 0.5)
        chosen = cdf((mean * noise**2 / (noise * spread))[..., None] + y / (noise * spread)[..., None])
        above.append(0.5 * (high - low) * (density * chosen * nodes[1]).sum(-1))
    lowest = cdf(mean) - sum(above)
    probability = xp.stack([lowest, *above], -1)
    picked = xp.asarray(data["rating"])[..., None] - 1 == np.arange(len(ends) - 1)
    return xp.log(xp.where(picked, probability, 0.0).sum(-1))
