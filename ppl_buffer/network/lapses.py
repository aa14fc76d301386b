"""Lapses: trials whose outcomes have nothing to do with the model, mixed into the density of a trial.

A lapse is uniform over the categories of an outcome, or over the range that the schema states (`lapse_range`), and
independent for each outcome of a trial. Arrays have any shape; `uniform` are uniform numbers of the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add

import numpy as np

from ppl_buffer.network.backend import Array, ArrayOps
from ppl_buffer.network.network import Network
from ppl_buffer.schema import Categorical, Variable


def _range(variable: Variable) -> tuple[float, float]:
    assert not isinstance(variable, Categorical) and variable.lapse_range is not None
    return variable.lapse_range


def total_lapse_rate(net: Network, lapse: Array | None) -> Array | float | None:
    """Probability of a lapse: what the schema knows of, and what the user adds; None = none."""
    known = net.schema.lapse_rate
    if lapse is None:
        return known or None
    return 1 - (1 - known) * (1 - lapse)


def mix(ops: ArrayOps, log_prob: Array, log_lapse: Array, rate: Array | float) -> Array:
    """Mixture log((1 - rate) exp(log_prob) + rate exp(log_lapse)), with a finite gradient at rate = 0."""
    xp = ops.xp
    top = ops.stop_gradient(xp.maximum(log_prob, log_lapse))
    return top + xp.log((1 - rate) * xp.exp(log_prob - top) + rate * xp.exp(log_lapse - top))


def lapse_log_prob(ops: ArrayOps, variable: Variable, value: Array) -> Array:
    """Log density of a lapse."""
    if isinstance(variable, Categorical):
        return ops.xp.full_like(value, -math.log(variable.n))
    low, high = _range(variable)
    inside = (value >= low) & (value <= high)
    return ops.xp.where(inside, -math.log(high - low), -math.inf)


def lapse_sample(ops: ArrayOps, variable: Variable, uniform: Array) -> Array:
    """Draw a lapse."""
    if isinstance(variable, Categorical):
        return ops.xp.clip(ops.xp.floor(uniform * variable.n), None, variable.n - 1)
    low, high = _range(variable)
    return low + (high - low) * uniform


def lapse_cdf(ops: ArrayOps, variable: Variable, value: Array, uniform: Array) -> Array:
    """Distribution function of a lapse; a category gets a `uniform` place inside its step."""
    if isinstance(variable, Categorical):
        return (value + uniform) / variable.n
    low, high = _range(variable)
    return ops.xp.clip((value - low) / (high - low), 0, 1)


def lapse_moments(variable: Variable) -> tuple[float, float]:
    """First and second moment of a lapse, in the variable's units."""
    if isinstance(variable, Categorical):
        codes = np.arange(variable.n)
        return float(codes.mean()), float((codes**2).mean())
    low, high = _range(variable)
    return (low + high) / 2, (low**2 + low * high + high**2) / 3


def with_lapse(
    net: Network, log_probs: Sequence[Array], outcomes: Mapping[str, Array], rate: Array | float | None
) -> Array:
    """Log density of a trial from those of its outcomes and the rate of lapses."""
    if rate is None:
        return reduce(add, log_probs)
    ops, variables = net.ops, net.schema.outcomes
    log_lapses = [lapse_log_prob(ops, variables[name], ops.number(net, outcomes[name])) for name in variables]
    return mix(ops, reduce(add, log_probs), reduce(add, log_lapses), rate)
