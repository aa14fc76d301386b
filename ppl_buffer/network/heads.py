"""From a target's representation to the distribution of a trial's outcomes, in the user's units.

A trial with several outcomes factorises by the chain rule in the schema's order: a later outcome's head also reads the
earlier outcomes. Continuous outcomes are mixtures on the standardised unconstrained scale, integers the masses of such
mixtures (`ppl_buffer.network.mixtures`). Written once, over the array operations of either backend. Arrays are
(B, R, T): B data sets, R replicas of each, T trials; a representation is what `predict` returned, (B, R, T, W) with the
lower bounds of the trials behind, if there are any.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ppl_buffer.network.backend import Array, ArrayOps, Named
from ppl_buffer.network.bounds import innermost
from ppl_buffer.network.embeddings import features, join
from ppl_buffer.network.head_table import HeadTable, head_table
from ppl_buffer.network.lapse_mixture import LapseMixture, lapse_components, lapsed_trials, mix, with_lapse
from ppl_buffer.network.mixtures import Mixture, integer_cdf, integer_log_prob, integer_moments, mixture
from ppl_buffer.network.parts import Part
from ppl_buffer.schema import Categorical, Discrete, Integer, Interval, Positive, Variable

# Values of an integer up to which moments of a later outcome sum over all of them.
_MOST_PATHS = 32


class Scale(NamedTuple):
    """The scale of a continuous outcome's mixture: (unconstrain(value - lower_bound) - mean) / std.

    Attributes:
        lower_bound: (B, R, T) of an outcome that stays above a parameter, 0 where that is hidden; None of any other
            outcome.
        mean: (B, R, T), or a number.
        std: (B, R, T), or a number.
    """

    lower_bound: Array | None
    mean: Array | float
    std: Array | float


def head(net: Part, name: str, representation: Array, earlier: Mapping[str, Array]) -> Array:
    """Raw numbers (B, R, T, n) of one outcome's head, given the trial's earlier outcomes (B, R, T)."""
    representation = representation[..., : net.config.width]
    if not earlier:
        return net.ops.perceptron(net, f"heads.{name}", representation)
    variables = {key: net.schema.outcomes[key] for key in earlier}
    described = join(net, [representation, *features(net, variables, earlier)])
    return net.ops.perceptron(net, f"heads.{name}", described)


def outcome_scale(net: Part, name: str, representation: Array) -> Scale:
    """The scale of one continuous outcome, given a representation."""
    mean, std = net.standardization[name]
    lower_bounds = net.schema.lower_bounds
    if name not in lower_bounds:
        return Scale(None, mean, std)
    column = net.config.width + 2 * list(lower_bounds).index(name)
    lower_bound, given = representation[..., column], representation[..., column + 1]
    mean_above, std_above = net.standardization[net.schema.scale_above(name)]
    return Scale(lower_bound, mean + given * (mean_above - mean), std + given * (std_above - std))


def _standardize(net: Part, variable: Variable, value: Array, scale: Scale) -> tuple[Array, Array, Array | None]:
    """The value on the mixture's scale, the log-Jacobian, and whether it is above its lower bound (None = always)."""
    assert not isinstance(variable, Discrete)
    xp, above = net.ops.xp, None
    if scale.lower_bound is not None:
        above = value > scale.lower_bound
        # Where it is not, any legal number: nothing is read there, and its gradient stays finite.
        value = xp.where(above, value - scale.lower_bound, 1.0)
    standardized = (variable.unconstrain(xp, value) - scale.mean) / scale.std
    log_std = math.log(scale.std) if isinstance(scale.std, float) else xp.log(scale.std)
    return standardized, variable.log_slope(xp, value) - log_std, above


def _pick(net: Part, probabilities: Array, uniform: Array) -> Array:
    """Index of the category in whose share of [0, 1] the uniform number falls."""
    below = net.ops.xp.cumsum(probabilities, -1)[..., :-1]
    return (uniform[..., None] >= below).sum(-1)


def outcome_log_prob(
    net: Part, name: str, representation: Array, raw: Array, value: Array, table: HeadTable | None = None
) -> Array:
    """Log density (or log probability) of one outcome at `value` (B, R, T), given the raw head.

    With a `table` the raw head is that of its rows, and the table says which of them a trial reads.
    """
    ops, variable = net.ops, net.schema.outcomes[name]
    if table is not None and table.targets > 1 and isinstance(variable, Discrete):
        values = raw.shape[2] * variable.n
        if isinstance(variable, Categorical) or values <= value.shape[-1]:
            return table.pick_place(value_log_probs(net, name, raw), ops.number(net, value) - variable.low)
    if isinstance(variable, Categorical):
        log_probs = ops.log_softmax(raw)
        if table is not None:
            log_probs = table.pick(log_probs)
        is_value = value[..., None] == ops.arange(net, variable.n)
        return ops.xp.where(is_value, log_probs, 0.0).sum(-1)
    law, log_weights, means, scales = mixture(net, name, raw)
    log_scales = ops.xp.log(scales)
    if table is not None:
        log_weights, means, scales, log_scales = table.pick_each(log_weights, means, scales, log_scales)
    if isinstance(variable, Integer):
        return integer_log_prob(net, name, Mixture(law, log_weights, means, scales), ops.number(net, value))
    scale = outcome_scale(net, name, representation)
    if table is not None and scale.lower_bound is not None:
        scale = Scale(*map(table.of_targets, scale))
    standardized, jacobian, above = _standardize(net, variable, ops.number(net, value), scale)
    log_densities = law.log_density(ops, (standardized[..., None] - means) / scales, log_scales)
    log_prob = ops.logsumexp(log_weights + log_densities) + jacobian
    return log_prob if above is None else ops.xp.where(above, log_prob, -math.inf)


def value_log_probs(net: Part, name: str, raw: Array) -> Array:
    """Log probabilities (..., n) of all n values of a category or an integer, given the raw head."""
    variable = net.schema.outcomes[name]
    if isinstance(variable, Integer):
        values = net.ops.number(net, np.arange(variable.low, variable.high + 1))
        return integer_log_prob(net, name, mixture(net, name, raw[..., None, :]), values)
    return net.ops.log_softmax(raw)


def outcome_sample(net: Part, name: str, representation: Array, raw: Array, noise: Array) -> Array:
    """Draw one outcome from two uniform numbers (B, R, T, 2): which category or component, and where in it."""
    ops, variable = net.ops, net.schema.outcomes[name]
    if isinstance(variable, Categorical):
        return ops.number(net, _pick(net, ops.softmax(raw), noise[..., 0]))
    law, log_weights, means, scales = mixture(net, name, raw)
    component = _pick(net, ops.xp.exp(log_weights), noise[..., 0])
    standard = law.quantile(ops, noise[..., 1])
    scale = outcome_scale(net, name, representation)
    standardized = ops.take_last(means, component) + ops.take_last(scales, component) * standard
    value = variable.constrain(ops.xp, standardized * scale.std + scale.mean)
    if isinstance(variable, Interval):
        # Far in its tails a component reaches what rounds to a bound, which is no legal value.
        value = ops.xp.clip(value, *innermost(variable.low, variable.high, ops.xp.finfo(value.dtype).bits))
    return value if scale.lower_bound is None else scale.lower_bound + value


def outcome_cdf(net: Part, name: str, representation: Array, raw: Array, value: Array, uniform: Array) -> Array:
    """Distribution function of one outcome at `value`; a category or integer gets a `uniform` place inside its step."""
    ops, variable = net.ops, net.schema.outcomes[name]
    if isinstance(variable, Categorical):
        probabilities, categories = ops.softmax(raw), ops.arange(net, variable.n)
        below = ops.xp.where(categories < value[..., None], probabilities, 0.0).sum(-1)
        step = ops.xp.where(categories == value[..., None], probabilities, 0.0).sum(-1)
        return below + uniform * step
    components = mixture(net, name, raw)
    if isinstance(variable, Integer):
        return integer_cdf(net, name, components, ops.number(net, value), uniform)
    law, log_weights, means, scales = components
    scale = outcome_scale(net, name, representation)
    standardized, _, above = _standardize(net, variable, ops.number(net, value), scale)
    cdf = (ops.xp.exp(log_weights) * law.cdf(ops, (standardized[..., None] - means) / scales)).sum(-1)
    return cdf if above is None else ops.xp.where(above, cdf, 0.0)


def outcome_log_tail(net: Part, name: str, representation: Array, raw: Array, bound: Array, *, upper: bool) -> Array:
    """Log probability of one continuous outcome above (`upper`), or up to, a bound (B, R, T), which may be infinite."""
    ops, variable, finite = net.ops, net.schema.outcomes[name], bound < math.inf
    law, log_weights, means, scales = mixture(net, name, raw)
    scale = outcome_scale(net, name, representation)
    standardized, _, above = _standardize(net, variable, ops.xp.where(finite, bound, variable.fill), scale)
    residuals = (standardized[..., None] - means) / scales
    tail = ops.logsumexp(log_weights + law.log_cdf(ops, -residuals if upper else residuals))
    if above is not None:
        tail = ops.xp.where(above, tail, 0.0 if upper else -math.inf)
    return ops.xp.where(finite, tail, -math.inf if upper else 0.0)


def outcome_moments(net: Part, name: str, representation: Array, raw: Array) -> tuple[Array, Array]:
    """First and second moment (B, R, T) of one outcome, in the user's units; infinite where there is none."""
    ops, variable = net.ops, net.schema.outcomes[name]
    if isinstance(variable, Categorical):
        probabilities = ops.softmax(raw)
        codes = ops.number(net, np.arange(variable.n))
        return (probabilities * codes).sum(-1), (probabilities * codes**2).sum(-1)
    components = mixture(net, name, raw)
    if isinstance(variable, Integer):
        return integer_moments(net, name, components)
    law, log_weights, means, scales = components
    scale = outcome_scale(net, name, representation)
    mean, std = (x if isinstance(x, float) else x[..., None] for x in (scale.mean, scale.std))
    means, scales = means * std + mean, scales * std
    if isinstance(variable, Positive):
        first = law.mean_exponential(ops, means, scales)
        second = law.mean_exponential(ops, 2 * means, 2 * scales)
    elif isinstance(variable, Interval):
        nodes, shares = (ops.number(net, x) for x in law.rule())
        values = variable.constrain(ops.xp, means[..., None] + scales[..., None] * nodes)
        first, second = (values * shares).sum(-1), (values**2 * shares).sum(-1)
    else:
        first, second = means, means**2 + law.variance * scales**2
    if scale.lower_bound is not None:
        lower_bound = scale.lower_bound[..., None]
        finite = ops.xp.isfinite(second)
        second = ops.xp.where(finite, lower_bound**2 + 2 * lower_bound * first + second, second)
        first = lower_bound + first
    mixing = ops.xp.exp(log_weights)
    # A component that has no moment and a weight of 0 counts nothing.
    return tuple(ops.xp.where(mixing > 0, mixing * moment, 0.0).sum(-1) for moment in (first, second))


def trial_log_prob(
    net: Part,
    representation: Array,
    outcomes: Mapping[str, Array],
    lapse: LapseMixture | None = None,
    index: Array | None = None,
) -> Array:
    """Log density (B, R, K) of each trial's outcomes (B, R, K), all of them together.

    Args:
        net: the network.
        representation: (B, R, T, W); T is K, or 1 where trials do not differ, or the number of targets.
        outcomes: dict name -> (B, R, K).
        lapse: the whole trial may be a lapse, at a rate that broadcasts against (B, R, K).
        index: (B, r, K), which target each trial is; None where T is K or 1.
    """
    names, targets = list(net.schema.outcomes), representation.shape[2]
    trials, each = max(outcomes[name].shape[-1] for name in names), representation
    log_probs = []
    for position, name in enumerate(names):
        earlier = {key: outcomes[key] for key in names[:position]}
        table = None
        if earlier or index is not None:
            table = head_table(net, targets, earlier, index, trials)
        if table is not None:
            raw = head(net, name, table.repeat(representation), table.codes)
            log_probs.append(outcome_log_prob(net, name, representation, raw, outcomes[name], table))
            continue
        if index is not None and each.shape[2] != trials and targets > 1:
            each = net.ops.take_rows(representation, index)
        raw = head(net, name, each, earlier)
        log_probs.append(outcome_log_prob(net, name, each, raw, outcomes[name]))
    return with_lapse(net, log_probs, outcomes, lapse_components(net, lapse))


def trial_sample(
    net: Part, representation: Array, noise: Array, lapse: LapseMixture | None = None
) -> tuple[Named, Array]:
    """Draw each trial's outcomes, and the log density that they were drawn from.

    Args:
        net: the network.
        representation: (B, R, T, W).
        noise: uniform numbers (B, R, T, 2 * n_outcomes + 1): two an outcome, then one that decides about a lapse.
        lapse: the whole trial may be a lapse, at a rate that broadcasts against (B, R, T).

    Returns:
        dict name -> (B, R, T), and (B, R, T).
    """
    components = lapse_components(net, lapse)
    lapsed = lapsed_trials(components, noise[..., 2 * len(net.schema.outcomes)])
    outcomes: Named = {}
    log_probs = []
    for index, name in enumerate(net.schema.outcomes):
        uniform = noise[..., 2 * index : 2 * index + 2]
        raw = head(net, name, representation, outcomes)
        value = outcome_sample(net, name, representation, raw, uniform)
        for component, where in lapsed:
            value = net.ops.xp.where(where, component.sample(name, uniform[..., 0]), value)
        outcomes[name] = value
        log_probs.append(outcome_log_prob(net, name, representation, raw, value))
    return outcomes, with_lapse(net, log_probs, outcomes, components)


def trial_cdf(
    net: Part,
    representation: Array,
    outcomes: Mapping[str, Array],
    uniform: Array,
    lapse: LapseMixture | None = None,
) -> Array:
    """Distribution function of each outcome given the trial's earlier outcomes: (B, R, T, n_outcomes).

    Args:
        net: the network.
        representation: (B, R, T, W).
        outcomes: dict name -> (B, R, T), of all outcomes or the first of them; T is 1 where an outcome is the same for
            all values of the others.
        uniform: (B, R, T, n_outcomes), the place inside the step of a category or integer.
        lapse: the whole trial may be a lapse, at a rate that broadcasts against (B, R, T).
    """
    ops, components = net.ops, lapse_components(net, lapse)
    names = [name for name in net.schema.outcomes if name in outcomes]
    columns = []
    # Log densities of the trial's earlier outcomes, by the model and as a lapse of each kind.
    log_prob = ops.zeros(net, ())
    log_lapses = [log_prob for _ in components]
    for index, name in enumerate(names):
        value = ops.number(net, outcomes[name])
        raw = head(net, name, representation, {key: outcomes[key] for key in names[:index]})
        cdf = outcome_cdf(net, name, representation, raw, value, uniform[..., index])
        before = log_prob
        for kind, component in enumerate(components):
            # What the trial's earlier outcomes say of whether it is a lapse.
            mixed = mix(ops, before, log_lapses[kind], component.rate)
            share = component.rate * ops.xp.exp(log_lapses[kind] - mixed)
            cdf, before = cdf + share * (component.cdf(name, value, uniform[..., index]) - cdf), mixed
            log_lapses[kind] = log_lapses[kind] + component.log_prob(name, value)
        if components:
            log_prob = log_prob + outcome_log_prob(net, name, representation, raw, value)
        columns.append(cdf)
    shape = ops.xp.broadcast_shapes(*(tuple(x.shape) for x in columns))
    return ops.xp.stack([ops.xp.broadcast_to(x, shape) for x in columns], -1)


def trial_moments(net: Part, representation: Array, lapse: LapseMixture | None = None) -> tuple[Array, Array]:
    """Mean and variance of each outcome, (B, R, T, n_outcomes) each; a category counts as its code.

    Earlier outcomes of the trial are summed out. Where there is no variance, or no mean, it is infinite.

    Raises:
        NotImplementedError: if an outcome follows a continuous one, whose integral has no closed form, or an integer of
            more than 32 values.
    """
    ops, schema = net.ops, net.schema
    components = lapse_components(net, lapse)
    # Every path through the earlier categories and integers, with its probability.
    paths: list[tuple[Named, Array]] = [({}, ops.ones(net, ()))]
    means, variances = [], []
    for name, variable in schema.outcomes.items():
        first = second = ops.zeros(net, ())
        longer: list[tuple[Named, Array]] = []
        for earlier, probability in paths:
            for key in earlier:
                _check_summable(name, schema.outcomes[key])
            raw = head(net, name, representation, earlier)
            moments = outcome_moments(net, name, representation, raw)
            first, second = first + probability * moments[0], second + probability * moments[1]
            if isinstance(variable, Categorical) or (isinstance(variable, Integer) and variable.n <= _MOST_PATHS):
                chances = ops.xp.exp(value_log_probs(net, name, raw))
                for index in range(variable.n):
                    path = {**earlier, name: ops.xp.full_like(chances[..., 0], variable.low + index)}
                    longer.append((path, probability * chances[..., index]))
            else:
                longer.append(({**earlier, name: moments[0]}, probability))
        paths = longer
        for component in components:
            lapse_first, lapse_second = component.moments(name)
            first = _lapsed_moment(ops, first, lapse_first, component.rate)
            second = _lapsed_moment(ops, second, lapse_second, component.rate)
        means.append(first)
        variances.append(ops.xp.where(ops.xp.isfinite(second), second - first**2, second))
    return ops.xp.stack(means, -1), ops.xp.stack(variances, -1)


def _check_summable(name: str, earlier: Variable) -> None:
    """Refuse the moments of an outcome behind one over whose values nobody can sum."""
    if isinstance(earlier, Integer) and earlier.n > _MOST_PATHS:
        what = f"an integer of {earlier.n} values, more than {_MOST_PATHS}"
    elif not isinstance(earlier, Discrete):
        what = "a continuous outcome"
    else:
        return
    raise NotImplementedError(f"mean of {name!r}: it follows {what}; draw samples instead")


def _lapsed_moment(ops: ArrayOps, moment: Array, lapsed: float, rate: Array | float) -> Array:
    """A moment of outcomes some of which are lapses; an infinite one stays infinite."""
    finite = ops.xp.isfinite(moment)
    usable = ops.xp.where(finite, moment, 0.0)
    return ops.xp.where(finite | (rate >= 1), usable + rate * (lapsed - usable), moment)
