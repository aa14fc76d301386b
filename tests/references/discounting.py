"""Log probability of a choice between two delayed amounts, from the hyperboloid as Myerson & Green (1995) write it.

Written from the model's equations and sharing no code with `ppl_buffer.simulators.discounting`: values are computed as
exponentials of logarithms, log probabilities by the softmax of both options.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

Array = Any


def log_probability(params: Mapping[str, Array], data: Mapping[str, Array], xp: ModuleType = np) -> Array:
    """Log probability of each choice; all arrays broadcast.

    Args:
        params: dict of ``log_rate``, ``exponent``, ``log_inverse_temperature`` and ``bias``.
        data: dict of both amounts, both delays, and ``choice``, 1 = the later amount.
        xp: `numpy`, or `jax.numpy`, where it is differentiable.
    """
    rate, beta = xp.exp(params["log_rate"]), xp.exp(params["log_inverse_temperature"])
    sooner, later = (
        beta * xp.exp(xp.log(data[f"amount_{name}"]) - params["exponent"] * xp.log1p(rate * data[f"delay_{name}"]))
        for name in ("sooner", "later")
    )
    later = later + params["bias"]
    chosen = xp.where(data["choice"] == 1, later, sooner)
    return chosen - xp.logaddexp(sooner, later)
