"""What a head's raw numbers are: mixtures of normal or of logistic distributions, and their masses at whole numbers.

A component is a standard law X, shifted and scaled: mean + scale * X on the standardised unconstrained scale of an
outcome. Written once, over the array operations of either backend. Arrays are (..., components).

An integer y has the mass that a mixture of logistic distributions puts between y - 1/2 and y + 1/2; the first value has
all below, the last all above, so that the masses sum to 1 (Salimans et al. 2017, arXiv 1701.05517).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from ppl_buffer.network.backend import Array, ArrayOps
from ppl_buffer.network.parts import Part
from ppl_buffer.schema import Integer, Variable

# Smallest scale of a component of a continuous outcome, standardised: a density stays finite at repeated values.
_LEAST_SCALE = 1e-3
# Smallest scale of an integer's component, in steps from one value to the next. A mass cannot exceed 1 however narrow a
# component is, but one narrower than this is the same to single precision (its value has all but 2e-7 of the mass),
# while its gradients, which grow with the inverse of the scale, do harm.
_LEAST_STEPS = 1 / 32
# Values of an integer up to which moments are sums over all of them.
_MOST_SUMMED = 1024
# Nodes of the Gauss-Hermite rule.
_HERMITE_NODES = 32
# Half the length and the step of the trapezoidal rule for the logistic distribution.
_HALF_LENGTH, _STEP = 17.0, 0.5


class Law(ABC):
    """A standard distribution, of which all components of a mixture are shifted and scaled copies."""

    @property
    @abstractmethod
    def variance(self) -> float:
        """Of the standard distribution, whose mean is 0."""

    @abstractmethod
    def log_density(self, ops: ArrayOps, residuals: Array, log_scales: Array) -> Array:
        """Log density of components at standardised distances from their means."""

    @abstractmethod
    def cdf(self, ops: ArrayOps, residuals: Array) -> Array:
        """Distribution function of the standard distribution."""

    @abstractmethod
    def log_cdf(self, ops: ArrayOps, residuals: Array) -> Array:
        """Its logarithm, exact far out; of the upper tail at the same numbers negated, since it is symmetric."""

    @abstractmethod
    def quantile(self, ops: ArrayOps, uniform: Array) -> Array:
        """Its inverse."""

    @abstractmethod
    def mean_exponential(self, ops: ArrayOps, means: Array, scales: Array) -> Array:
        """Mean of the exponential of components; infinite where it does not exist."""

    @abstractmethod
    def rule(self) -> tuple[np.ndarray, np.ndarray]:
        """Places (n,) and weights (n,), which sum to 1, of a rule for means under the standard distribution."""


class Normal(Law):
    """The normal distribution."""

    @property
    def variance(self) -> float:
        """Of the standard distribution."""
        return 1.0

    def log_density(self, ops: ArrayOps, residuals: Array, log_scales: Array) -> Array:
        """Log density of components at standardised distances from their means."""
        return -0.5 * residuals**2 - log_scales - 0.5 * math.log(2 * math.pi)

    def cdf(self, ops: ArrayOps, residuals: Array) -> Array:
        """Distribution function of the standard distribution."""
        return ops.ndtr(residuals)

    def log_cdf(self, ops: ArrayOps, residuals: Array) -> Array:
        """Its logarithm."""
        return ops.log_ndtr(residuals)

    def quantile(self, ops: ArrayOps, uniform: Array) -> Array:
        """Its inverse."""
        return ops.ndtri(uniform)

    def mean_exponential(self, ops: ArrayOps, means: Array, scales: Array) -> Array:
        """Mean of a log-normal variable."""
        return ops.xp.exp(means + 0.5 * scales**2)

    def rule(self) -> tuple[np.ndarray, np.ndarray]:
        """The Gauss-Hermite rule."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(_HERMITE_NODES)
        return nodes, weights / weights.sum()


class Logistic(Law):
    """The logistic distribution, whose distribution function is one hyperbolic tangent, and its tails exponential."""

    @property
    def variance(self) -> float:
        """Of the standard distribution."""
        return math.pi**2 / 3

    def log_density(self, ops: ArrayOps, residuals: Array, log_scales: Array) -> Array:
        """Log density of components at standardised distances from their means."""
        return -residuals - 2 * ops.softplus(-residuals) - log_scales

    def cdf(self, ops: ArrayOps, residuals: Array) -> Array:
        """Distribution function of the standard distribution."""
        return ops.sigmoid(residuals)

    def log_cdf(self, ops: ArrayOps, residuals: Array) -> Array:
        """Its logarithm."""
        return -ops.softplus(-residuals)

    def quantile(self, ops: ArrayOps, uniform: Array) -> Array:
        """Its inverse."""
        return ops.xp.log(uniform) - ops.xp.log1p(-uniform)

    def mean_exponential(self, ops: ArrayOps, means: Array, scales: Array) -> Array:
        """Mean of a log-logistic variable, exp(mean) pi s / sin(pi s); it has one for scales s below 1 alone."""
        xp, exists = ops.xp, scales < 1
        return xp.where(exists, xp.exp(means) / xp.sinc(xp.where(exists, scales, 0.0)), math.inf)

    def rule(self) -> tuple[np.ndarray, np.ndarray]:
        """The trapezoidal rule: its error falls exponentially with the step for functions without poles near by."""
        nodes = np.arange(-_HALF_LENGTH, _HALF_LENGTH + _STEP / 2, _STEP)
        weights = 1 / np.cosh(nodes / 2) ** 2
        return nodes, weights / weights.sum()


LAWS: dict[str, Law] = {"normal": Normal(), "logistic": Logistic()}


class Mixture(NamedTuple):
    """Components (..., components) on the standardised scale.

    Attributes:
        law: what each is a copy of.
        log_weights: logarithms of the components' probabilities.
        means: of the components.
        scales: factors of the standard distribution.
    """

    law: Law
    log_weights: Array
    means: Array
    scales: Array


def mixture(net: Part, name: str, raw: Array) -> Mixture:
    """The mixture of one outcome's raw head (..., 3 * components)."""
    variable = net.schema.outcomes[name]
    logits, means, scales = net.ops.chunk(raw, 3)
    law, least = LAWS[net.config.head], _LEAST_SCALE
    if isinstance(variable, Integer):
        law, least = LAWS["logistic"], _LEAST_STEPS / net.standardization[name][1]
    return Mixture(law, net.ops.log_softmax(logits), means, net.ops.softplus(scales) + least)


def integer_log_prob(net: Part, name: str, components: Mixture, value: Array) -> Array:
    """Log probability (...) of whole numbers (...), which the user's units count.

    With a and b the standardised upper and lower edge of a value, F(a) - F(b) = F(a) F(-b) (1 - exp(b - a)), and each
    factor's logarithm is finite, and has finite derivatives, wherever the edges are.
    """
    ops, (low, high, _), (mean, std) = net.ops, _values(net, name), net.standardization[name]
    value, scales = value[..., None], components.scales
    upper, lower = (((value + half - mean) / std - components.means) / scales for half in (0.5, -0.5))
    not_first, not_last = value > low, value < high
    log_below = ops.xp.where(not_last, -ops.softplus(-upper), 0.0)
    log_above = ops.xp.where(not_first, -ops.softplus(lower), 0.0)
    log_between = ops.xp.where(not_first & not_last, ops.xp.log(-ops.xp.expm1(-1 / (std * scales))), 0.0)
    return ops.logsumexp(components.log_weights + log_below + log_above + log_between)


def integer_cdf(net: Part, name: str, components: Mixture, value: Array, uniform: Array) -> Array:
    """Distribution function (...) just below whole numbers (...), plus the share `uniform` of their probabilities."""
    ops, (low, high, _), (mean, std) = net.ops, _values(net, name), net.standardization[name]
    weights = ops.xp.exp(components.log_weights)

    def below(edge: Array) -> Array:
        residuals = ((edge[..., None] - mean) / std - components.means) / components.scales
        return (weights * components.law.cdf(ops, residuals)).sum(-1)

    first = ops.xp.where(value > low, below(value - 0.5), 0.0)
    last = ops.xp.where(value < high, below(value + 0.5), 1.0)
    return first + uniform * (last - first)


def integer_moments(net: Part, name: str, components: Mixture) -> tuple[Array, Array]:
    """First and second moment (...) of an integer.

    Of the distance d from the lowest value, E d = sum of P(d > k) and E d^2 = sum of (2 k + 1) P(d > k) over k from 0.
    Of more than 1,024 values the rounding is left out, which moves a mean by less than half a step.
    """
    ops, (low, high, n), (mean, std) = net.ops, _values(net, name), net.standardization[name]
    weights, means, scales = ops.xp.exp(components.log_weights), components.means, components.scales
    if n > _MOST_SUMMED:
        nodes, shares = (ops.number(net, x) for x in components.law.rule())
        places = means[..., None] + scales[..., None] * nodes
        distance = ops.xp.clip(places * std + mean, low, high) - low
        first, second = ((weights * (x * shares).sum(-1)).sum(-1) for x in (distance, distance**2))
    else:
        steps = np.arange(n - 1)
        edges = ops.number(net, (low + steps + 0.5 - mean) / std)
        above = components.law.cdf(ops, (means[..., None] - edges) / scales[..., None])
        exceeds = (weights[..., None] * above).sum(-2)
        first, second = exceeds.sum(-1), (exceeds * ops.number(net, 2 * steps + 1)).sum(-1)
    return low + first, low**2 + 2 * low * first + second


def _values(net: Part, name: str) -> tuple[int, int, int]:
    """Lowest and highest value of an integer, and their number."""
    variable: Variable = net.schema.outcomes[name]
    assert isinstance(variable, Integer)
    return variable.low, variable.high, variable.n
