"""From a target's representation to the distribution of a trial's outcomes, in the user's units.

A trial with several outcomes factorises by the chain rule in the schema's order: a later outcome's head also reads
the earlier outcomes. Continuous outcomes are mixtures of Gaussians on the standardised unconstrained scale.
`ppl_buffer/jax/heads.py` mirrors this file function by function.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ppl_buffer.network.torch.network import features, perceptron
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.schema import Categorical, Interval, Positive

# Smallest standard deviation of a Gaussian on the standardised scale: a density stays finite at repeated values.
_LEAST_SCALE = 1e-3
# Gauss-Hermite nodes for the moments of an outcome on an interval.
_QUADRATURE_NODES = 32


class Scale(NamedTuple):
    """The scale of a continuous outcome's mixture: (unconstrain(value - floor) - mean) / deviation.

    Attributes:
        lower_bound: lower bound (B, R, T) of an outcome that stays above a parameter, 0 where that is hidden; None of any
            other outcome.
        mean: (B, R, T), or a number.
        std: (B, R, T), or a number.
    """

    lower_bound: Tensor | None
    mean: Tensor | float
    std: Tensor | float


def head(net: TorchNetwork, name: str, representation: Tensor, earlier: Mapping[str, Tensor]) -> Tensor:
    """Raw numbers (B, R, T, n) of one outcome's head, given the trial's earlier outcomes (B, R, T)."""
    representation = representation[..., : net.config.width]
    if not earlier:
        return perceptron(net, f"heads.{name}", representation)
    known = {key: net.schema.outcomes[key] for key in earlier}
    described = [representation, *features(net, known, earlier)]
    lead = torch.broadcast_shapes(*(x.shape[:-1] for x in described))
    return perceptron(net, f"heads.{name}", torch.cat([x.expand(*lead, x.shape[-1]) for x in described], -1))


def outcome_scale(net: TorchNetwork, name: str, representation: Tensor) -> Scale:
    """The scale of one continuous outcome, given what `predict` returned."""
    mean, std = net.standardization[name]
    lower_bounds = net.schema.lower_bounds
    if name not in lower_bounds:
        return Scale(None, mean, std)
    column = net.config.width + 2 * list(lower_bounds).index(name)
    lower_bound, conditioned = representation[..., column], representation[..., column + 1]
    told_mean, told_deviation = net.standardization[net.schema.scale_above(name)]
    return Scale(lower_bound, mean + conditioned * (told_mean - mean), std + conditioned * (told_deviation - std))


def _standardize(variable: Any, value: Tensor, scale: Scale) -> tuple[Tensor, Tensor, Tensor | None]:
    """The value on the mixture's scale, the log-Jacobian, and whether the value is above its floor (None = always)."""
    above = None
    if scale.lower_bound is not None:
        above = value > scale.lower_bound
        # Where it is not, any legal number: nothing is read there, and its gradient stays finite.
        value = torch.where(above, value - scale.lower_bound, 1.0)
    standardized = (variable.unconstrain(torch, value) - scale.mean) / scale.std
    log_deviation = scale.std.log() if isinstance(scale.std, Tensor) else math.log(scale.std)
    return standardized, variable.log_slope(torch, value) - log_deviation, above


def mixture(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log weights, means and standard deviations, each (..., components), of a raw head."""
    logits, means, scales = raw.chunk(3, -1)
    return logits.log_softmax(-1), means, functional.softplus(scales) + _LEAST_SCALE


def outcome_log_prob(net: TorchNetwork, name: str, representation: Tensor, raw: Tensor, value: Tensor) -> Tensor:
    """Log density (or log probability) of one outcome at `value` (B, R, T), given the raw head."""
    variable = net.schema.outcomes[name]
    if isinstance(variable, Categorical):
        log_probs = raw.log_softmax(-1)
        chosen = value[..., None] == torch.arange(variable.n, device=value.device)
        return torch.where(chosen, log_probs, 0.0).sum(-1)
    value = value.to(net.dtype)
    log_weights, means, scales = mixture(raw)
    scale = outcome_scale(net, name, representation)
    standardized, jacobian, above = _standardize(variable, value, scale)
    residuals = (standardized[..., None] - means) / scales
    log_normal = -0.5 * residuals**2 - scales.log() - 0.5 * math.log(2 * math.pi)
    log_prob = (log_weights + log_normal).logsumexp(-1) + jacobian
    return log_prob if above is None else torch.where(above, log_prob, -math.inf)


def outcome_sample(net: TorchNetwork, name: str, representation: Tensor, raw: Tensor, noise: Tensor) -> Tensor:
    """Draw one outcome from two uniform numbers (B, R, T, 2): which category or Gaussian, and where in it."""
    variable = net.schema.outcomes[name]
    if isinstance(variable, Categorical):
        return _pick(raw.log_softmax(-1).exp(), noise[..., 0]).to(net.dtype)
    log_weights, means, scales = mixture(raw)
    component = _pick(log_weights.exp(), noise[..., 0])[..., None]
    normal = torch.special.ndtri(noise[..., 1])
    scale = outcome_scale(net, name, representation)
    standardized = means.gather(-1, component)[..., 0] + scales.gather(-1, component)[..., 0] * normal
    value = variable.constrain(torch, standardized * scale.std + scale.mean)
    return value if scale.lower_bound is None else scale.lower_bound + value


def _pick(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Index of the category in whose share of [0, 1] the uniform number falls."""
    below = probabilities.cumsum(-1)[..., :-1]
    return (uniform[..., None] >= below).sum(-1)


def outcome_cdf(
    net: TorchNetwork, name: str, representation: Tensor, raw: Tensor, value: Tensor, uniform: Tensor
) -> Tensor:
    """Distribution function of one outcome at `value`; a category gets a `uniform` place inside its step."""
    variable = net.schema.outcomes[name]
    if isinstance(variable, Categorical):
        probabilities = raw.log_softmax(-1).exp()
        categories = torch.arange(variable.n, device=value.device)
        below = torch.where(categories < value[..., None], probabilities, 0.0).sum(-1)
        at = torch.where(categories == value[..., None], probabilities, 0.0).sum(-1)
        return below + uniform * at
    log_weights, means, scales = mixture(raw)
    scale = outcome_scale(net, name, representation)
    standardized, _, above = _standardize(variable, value.to(net.dtype), scale)
    cdf = (log_weights.exp() * torch.special.ndtr((standardized[..., None] - means) / scales)).sum(-1)
    return cdf if above is None else torch.where(above, cdf, 0.0)


def lapse_log_prob(variable: Any, value: Tensor) -> Tensor:
    """Log density of a lapse: uniform over the categories, or over the range that the schema states."""
    if isinstance(variable, Categorical):
        return torch.full_like(value, -math.log(variable.n))
    low, high = variable.lapse_range
    inside = (value >= low) & (value <= high)
    return torch.where(inside, -math.log(high - low), -math.inf)


def lapse_sample(variable: Any, uniform: Tensor) -> Tensor:
    """Draw a lapse."""
    if isinstance(variable, Categorical):
        return (uniform * variable.n).floor().clamp(max=variable.n - 1)
    low, high = variable.lapse_range
    return low + (high - low) * uniform


def lapse_cdf(variable: Any, value: Tensor, uniform: Tensor) -> Tensor:
    """Distribution function of a lapse."""
    if isinstance(variable, Categorical):
        return (value + uniform) / variable.n
    low, high = variable.lapse_range
    return ((value - low) / (high - low)).clamp(0, 1)


def total_lapse_rate(net: TorchNetwork, lapse: Tensor | None) -> Tensor | float | None:
    """Probability of a lapse: what the schema knows of, and what the user adds; None = none."""
    known = net.schema.lapse_rate
    if lapse is None:
        return known or None
    return 1 - (1 - known) * (1 - lapse)


def mix(log_prob: Tensor, log_lapse: Tensor, rate: Tensor | float) -> Tensor:
    """log((1 - rate) exp(log_prob) + rate exp(log_lapse)), with a finite gradient at rate = 0."""
    top = torch.maximum(log_prob, log_lapse).detach()
    return top + ((1 - rate) * (log_prob - top).exp() + rate * (log_lapse - top).exp()).log()


def trial_log_prob(
    net: TorchNetwork, representation: Tensor, outcomes: Mapping[str, Tensor], lapse: Tensor | None = None
) -> Tensor:
    """Log density (B, R, T) of each trial's outcomes (B, R, T), all of them together.

    Args:
        net: the network.
        representation: from `predict`.
        outcomes: dict name -> (B, R, T).
        lapse: probability that the whole trial is a lapse, broadcast against (B, R, T).
    """
    names = list(net.schema.outcomes)
    log_probs = []
    for index, name in enumerate(names):
        raw = head(net, name, representation, {key: outcomes[key] for key in names[:index]})
        log_probs.append(outcome_log_prob(net, name, representation, raw, outcomes[name]))
    return _with_lapse(net, log_probs, outcomes, total_lapse_rate(net, lapse))


def _with_lapse(
    net: TorchNetwork, log_probs: Sequence[Tensor], outcomes: Mapping[str, Tensor], rate: Tensor | float | None
) -> Tensor:
    """Log density of a trial from those of its outcomes."""
    if rate is None:
        return _total(log_probs)
    return mix(_total(log_probs), _total(_lapse_log_probs(net, outcomes)), rate)


def _total(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _lapse_log_probs(net: TorchNetwork, outcomes: Mapping[str, Tensor]) -> list[Tensor]:
    schema = net.schema
    return [lapse_log_prob(variable, outcomes[name].to(net.dtype)) for name, variable in schema.outcomes.items()]


def trial_sample(
    net: TorchNetwork, representation: Tensor, noise: Tensor, lapse: Tensor | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Draw each trial's outcomes, and the log density that they were drawn from.

    Args:
        net: the network.
        representation: from `predict`.
        noise: uniform numbers (B, R, T, 2 * n_outcomes + 1): two an outcome, then one that decides about a lapse.
        lapse: probability that the whole trial is a lapse, broadcast against (B, R, T).

    Returns:
        dict name -> (B, R, T), and (B, R, T).
    """
    rate = total_lapse_rate(net, lapse)
    lapsed = None if rate is None else noise[..., 2 * len(net.schema.outcomes)] < rate
    outcomes: dict[str, Tensor] = {}
    log_probs = []
    for index, (name, variable) in enumerate(net.schema.outcomes.items()):
        uniform = noise[..., 2 * index : 2 * index + 2]
        raw = head(net, name, representation, outcomes)
        value = outcome_sample(net, name, representation, raw, uniform)
        if lapsed is not None:
            value = torch.where(lapsed, lapse_sample(variable, uniform[..., 0]), value)
        outcomes[name] = value
        log_probs.append(outcome_log_prob(net, name, representation, raw, value))
    return outcomes, _with_lapse(net, log_probs, outcomes, rate)


def trial_cdf(
    net: TorchNetwork,
    representation: Tensor,
    outcomes: Mapping[str, Tensor],
    uniform: Tensor,
    lapse: Tensor | None = None,
) -> Tensor:
    """Distribution function of each outcome given the trial's earlier outcomes: (B, R, T, n_outcomes).

    Args:
        net: the network.
        representation: from `predict`.
        outcomes: dict name -> (B, R, T).
        uniform: (B, R, T, n_outcomes), the place inside the step of a category.
        lapse: probability that the whole trial is a lapse, broadcast against (B, R, T).
    """
    rate = total_lapse_rate(net, lapse)
    names = list(net.schema.outcomes)
    columns = []
    conditioned = told_lapse = torch.zeros((), device=net.device, dtype=net.dtype)
    for index, name in enumerate(names):
        variable, value = net.schema.outcomes[name], outcomes[name].to(net.dtype)
        raw = head(net, name, representation, {key: outcomes[key] for key in names[:index]})
        cdf = outcome_cdf(net, name, representation, raw, value, uniform[..., index])
        if rate is not None:
            # What the trial's earlier outcomes say of whether it is a lapse.
            share = rate * (told_lapse - mix(conditioned, told_lapse, rate)).exp()
            cdf = cdf + share * (lapse_cdf(variable, value, uniform[..., index]) - cdf)
            conditioned = conditioned + outcome_log_prob(net, name, representation, raw, value)
            told_lapse = told_lapse + lapse_log_prob(variable, value)
        columns.append(cdf)
    return torch.stack(columns, -1)


def trial_moments(net: TorchNetwork, representation: Tensor, lapse: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and variance of each outcome, (B, R, T, n_outcomes) each; a category counts as its code.

    Earlier outcomes of the trial are summed out.

    Raises:
        NotImplementedError: if an outcome follows a continuous one, whose integral has no closed form.
    """
    schema = net.schema
    rate = total_lapse_rate(net, lapse)
    # Every path through the earlier categories, with its probability.
    paths: list[tuple[dict[str, Tensor], Tensor]] = [({}, torch.ones((), device=net.device, dtype=net.dtype))]
    means, variances = [], []
    for name, variable in schema.outcomes.items():
        first = second = torch.zeros((), device=net.device, dtype=net.dtype)
        longer = []
        for earlier, probability in paths:
            if any(not isinstance(schema.outcomes[key], Categorical) for key in earlier):
                raise NotImplementedError(f"mean of {name!r}: it follows a continuous outcome; draw samples instead")
            raw = head(net, name, representation, earlier)
            moments = outcome_moments(net, name, representation, raw)
            first, second = first + probability * moments[0], second + probability * moments[1]
            if isinstance(variable, Categorical):
                chances = raw.log_softmax(-1).exp()
                for code in range(variable.n):
                    here = {**earlier, name: torch.full_like(chances[..., 0], code)}
                    longer.append((here, probability * chances[..., code]))
            else:
                longer.append(({**earlier, name: moments[0]}, probability))
        paths = longer
        if rate is not None:
            lapse_first, lapse_second = lapse_moments(variable)
            first, second = first + rate * (lapse_first - first), second + rate * (lapse_second - second)
        means.append(first)
        variances.append(second - first**2)
    return torch.stack(means, -1), torch.stack(variances, -1)


def outcome_moments(net: TorchNetwork, name: str, representation: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """First and second moment of one outcome, in the user's units."""
    variable = net.schema.outcomes[name]
    if isinstance(variable, Categorical):
        probabilities = raw.log_softmax(-1).exp()
        codes = torch.arange(variable.n, device=raw.device, dtype=net.dtype)
        return (probabilities * codes).sum(-1), (probabilities * codes**2).sum(-1)
    log_weights, means, scales = mixture(raw)
    scale = outcome_scale(net, name, representation)
    mean, std = (x if isinstance(x, float) else x[..., None] for x in (scale.mean, scale.std))
    means, scales = means * std + mean, scales * std
    if isinstance(variable, Positive):
        first, second = (means + 0.5 * scales**2).exp(), (2 * means + 2 * scales**2).exp()
    elif isinstance(variable, Interval):
        nodes, shares = np.polynomial.hermite_e.hermegauss(_QUADRATURE_NODES)
        places = means[..., None] + scales[..., None] * torch.as_tensor(nodes, device=raw.device, dtype=net.dtype)
        values = variable.constrain(torch, places)
        share = torch.as_tensor(shares / shares.sum(), device=raw.device, dtype=net.dtype)
        first, second = (values * share).sum(-1), (values**2 * share).sum(-1)
    else:
        first, second = means, means**2 + scales**2
    if scale.lower_bound is not None:
        lower_bound = scale.lower_bound[..., None]
        first, second = lower_bound + first, lower_bound**2 + 2 * lower_bound * first + second
    weights = log_weights.exp()
    return (weights * first).sum(-1), (weights * second).sum(-1)


def lapse_moments(variable: Any) -> tuple[float, float]:
    """First and second moment of a lapse."""
    if isinstance(variable, Categorical):
        codes = np.arange(variable.n)
        return float(codes.mean()), float((codes**2).mean())
    low, high = variable.lapse_range
    return (low + high) / 2, (low**2 + low * high + high**2) / 3
