"""Lapses mixed into the densities of trials, written once over the array operations of either backend.

A lapse is independent for each outcome of a trial. Arrays have any shape; `uniform` are uniform numbers of the same
shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import NamedTuple, TypeAlias

import numpy as np

from ppl_buffer.network.backend import Array, ArrayOps
from ppl_buffer.network.parts import Part
from ppl_buffer.schema import Discrete, Schema

# Outcome, lowest and highest value of a lapse, where they are not the schema's.
Ranges: TypeAlias = tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, eq=False)
class LapseMixture:
    """The lapses that a user adds to a network's densities, as heads take them.

    Attributes:
        rate: probability of a lapse, broadcast against the trials.
        ranges: those that are not the schema's.
    """

    rate: Array
    ranges: Ranges = ()

    def map(self, function: Callable[[Array], Array]) -> LapseMixture:
        """The same with a function of the rate in its place."""
        return replace(self, rate=function(self.rate))


class LapseComponent(NamedTuple):
    """One kind of lapse of a network's trials.

    Attributes:
        net: the network.
        rate: probability of this kind among all trials that are of no later kind.
        ranges: outcome -> (low, high), of every continuous outcome.
    """

    net: Part
    rate: Array | float
    ranges: Mapping[str, tuple[float, float]]

    def log_prob(self, name: str, value: Array) -> Array:
        """Log density of a lapse's outcome."""
        xp, variable = self.net.ops.xp, self.net.schema.outcomes[name]
        if isinstance(variable, Discrete):
            return xp.full_like(value, -math.log(variable.n))
        low, high = self.ranges[name]
        inside = (value >= low) & (value <= high)
        return xp.where(inside, -math.log(high - low), -math.inf)

    def sample(self, name: str, uniform: Array) -> Array:
        """Draw a lapse's outcome."""
        xp, variable = self.net.ops.xp, self.net.schema.outcomes[name]
        if isinstance(variable, Discrete):
            return variable.low + xp.clip(xp.floor(uniform * variable.n), None, variable.n - 1)
        low, high = self.ranges[name]
        return low + (high - low) * uniform

    def cdf(self, name: str, value: Array, uniform: Array) -> Array:
        """Distribution function of a lapse's outcome; a category or integer gets a `uniform` place inside its step."""
        variable = self.net.schema.outcomes[name]
        if isinstance(variable, Discrete):
            return (value - variable.low + uniform) / variable.n
        low, high = self.ranges[name]
        return self.net.ops.xp.clip((value - low) / (high - low), 0, 1)

    def moments(self, name: str) -> tuple[float, float]:
        """First and second moment of a lapse's outcome, in its units."""
        variable = self.net.schema.outcomes[name]
        if isinstance(variable, Discrete):
            codes = variable.low + np.arange(variable.n)
            return float(codes.mean()), float((codes**2).mean())
        low, high = self.ranges[name]
        return (low + high) / 2, (low**2 + low * high + high**2) / 3


def lapse_ranges(schema: Schema, ranges: Ranges = ()) -> dict[str, tuple[float, float]]:
    """Range of a lapse of each continuous outcome that has one: the user's, or else the schema's."""
    known = {
        name: variable.lapse_range
        for name, variable in schema.outcomes.items()
        if not isinstance(variable, Discrete) and variable.lapse_range is not None
    }
    return known | {name: (low, high) for name, low, high in ranges}


def lapse_components(net: Part, lapse: LapseMixture | None) -> list[LapseComponent]:
    """Kinds of lapses, mixed in one after another: those that the schema knows of, and those of the user."""
    known = net.schema.lapse_rate
    if lapse is None:
        return [LapseComponent(net, known, lapse_ranges(net.schema))] if known else []
    ranges = lapse_ranges(net.schema, lapse.ranges)
    if known and lapse.ranges:
        return [LapseComponent(net, known, lapse_ranges(net.schema)), LapseComponent(net, lapse.rate, ranges)]
    return [LapseComponent(net, 1 - (1 - known) * (1 - lapse.rate), ranges)]


def mix(ops: ArrayOps, log_prob: Array, log_lapse: Array, rate: Array | float) -> Array:
    """Mixture log((1 - rate) exp(log_prob) + rate exp(log_lapse)), with a finite gradient, at rates of 0 and 1 too.

    Where neither can be the mixture is -inf, and its gradient 0.
    """
    xp = ops.xp
    top = ops.stop_gradient(xp.maximum(log_prob, log_lapse))
    top = xp.where(top > -math.inf, top, 0.0)
    total = (1 - rate) * xp.exp(log_prob - top) + rate * xp.exp(log_lapse - top)
    possible = total > 0
    return xp.where(possible, top + xp.log(xp.where(possible, total, 1.0)), -math.inf)


def with_lapse(
    net: Part, log_probs: Sequence[Array], outcomes: Mapping[str, Array], components: Sequence[LapseComponent]
) -> Array:
    """Log density of a trial from those of its outcomes and the kinds of lapses."""
    total = reduce(add, log_probs)
    for lapse in components:
        log_lapses = [lapse.log_prob(name, net.ops.number(net, outcomes[name])) for name in net.schema.outcomes]
        total = mix(net.ops, total, reduce(add, log_lapses), lapse.rate)
    return total


def lapsed_trials(components: Sequence[LapseComponent], uniform: Array) -> list[tuple[LapseComponent, Array]]:
    """Each kind of lapse, and which trials are one of that kind, by a uniform number a trial."""
    lapsed: list[tuple[LapseComponent, Array]] = []
    share: Array = None
    for lapse in reversed(components):
        if share is None:
            share = lapse.rate
            lapsed.append((lapse, uniform < share))
        else:
            more = share + (1 - share) * lapse.rate
            lapsed.append((lapse, (uniform >= share) & (uniform < more)))
            share = more
    return lapsed
