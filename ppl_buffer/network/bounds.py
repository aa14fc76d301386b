"""Parameters at whose numbers nobody can look: rounding has brought some onto an open bound, others cannot be.

A sampler's transformation reaches the bound itself: in single precision the logistic function of 17 is 1. There the
density is that of the nearest legal value, and its gradient with respect to the parameter is 0. With what is no
parameter at all, NaN or beyond a bound, the density is 0; a legal number stands in, so that gradients stay finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from ppl_buffer.network.backend import Array, Named
from ppl_buffer.network.parts import Part
from ppl_buffer.schema import Interval, Positive

# The nearest legal value to a bound at 0: smaller ones have gradients that are too large for single precision.
_LEAST = 1e-30


def nearest_legal(net: Part, params: Mapping[str, Array]) -> Named:
    """Legal parameters: the nearest value in place of an open bound, any legal one in place of what cannot be.

    Args:
        net: the network.
        params: dict name -> array in the network's number type.
    """
    xp, legal = net.ops.xp, {}
    for name, value in params.items():
        variable = net.schema.params[name]
        if isinstance(variable, Interval):
            low, high = variable.low, variable.high
            if not variable.closed:
                low, high = innermost(low, high, xp.finfo(value.dtype).bits)
            value = xp.where(value >= low, value, low)
            legal[name] = xp.where(value <= high, value, high)
        elif isinstance(variable, Positive):
            legal[name] = xp.where(xp.isfinite(value) & (value >= _LEAST), value, _LEAST)
        else:
            legal[name] = xp.where(xp.isfinite(value), value, variable.fill)
    return legal


def can_be(net: Part, params: Mapping[str, Array]) -> Array | None:
    """Whether all parameters are finite and none lies beyond a bound: booleans of their shape; None without any."""
    xp, possible = net.ops.xp, None
    for name, value in params.items():
        variable = net.schema.params[name]
        if isinstance(variable, Interval):
            fits = (value >= variable.low) & (value <= variable.high)
        else:
            fits = xp.isfinite(value)
            if isinstance(variable, Positive):
                fits = fits & (value >= 0)
        possible = fits if possible is None else possible & fits
    return possible


@lru_cache
def innermost(low: float, high: float, bits: int) -> tuple[float, float]:
    """The smallest and the largest number strictly between two bounds."""
    number = np.float64 if bits == 64 else np.float32
    first, last = np.nextafter(number(low), number(high)), np.nextafter(number(high), number(low))
    return float(first) if low else _LEAST, float(last) if high else -_LEAST
