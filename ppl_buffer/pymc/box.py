"""The trained box in PyMC's models: real numbers mapped into the range of each parameter that training covered."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from ppl_buffer.checks import check_numbers
from ppl_buffer.network.backend import Array
from ppl_buffer.network.box import MARGIN, above_low, checked_upper_bounds, trained_range
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials


def into_box(
    net: Network,
    name: str,
    x: Array,
    params: Mapping[str, Array] | None = None,
    *,
    below: Array | ObservedTrials | None = None,
) -> TensorVariable:
    """Map real numbers into the trained range of a parameter, by a logistic function: `Network.into_box` for tensors.

    In a hierarchical model, where people come from a normal distribution on the real line::

        theta[name] = into_box(net, name, mean + spread * offset, theta, below=seen)

    Args:
        net: a trained network.
        name: the parameter.
        x: real numbers (...), a tensor of the model.
        params: values of other parameters, dict name -> (...); needed where the prior of this one is relative to
            another. More may be given.
        below: what a non-decision time has to stay below: numbers (...), or what ``net.observe(...)`` returned, whose
            fastest responses then count.

    Returns:
        values in natural units.

    Raises:
        ValueError: if the network was not trained or knows no such parameter, the parameter that its prior is relative
            to is missing, or observed responses leave no room above the lower bound.
    """
    low, high, origin = trained_range(net, name)
    base: Array = low
    if origin is not None:
        if params is None or origin not in params:
            raise ValueError(f"params: expected the value of {origin!r}, from which {name!r} counts, got {params}")
        base = low + pt.as_tensor_variable(params[origin])
    limit: Array = None
    if isinstance(below, ObservedTrials):
        below = checked_upper_bounds(net, below).get(name)
        below = None if below is None else np.asarray(below)
    if below is not None:
        bound = below if isinstance(below, pt.TensorVariable) else check_numbers("below", below)
        limit = pt.minimum((1 - MARGIN) * (pt.as_tensor_variable(bound) - base), high - low)
    return base + above_low(pt.sigmoid(pt.as_tensor_variable(x)), high - low, limit)
