"""Densities of a query: joint, trial by trial, alone, left out; distribution functions and moments.

Shapes: a value is (*sample, *batch, *event), event (K,) or (K, n_outcomes). Results have all dimensions of the value
and of the query's data; a language broadcasts them to those that it has beyond.

Outcomes and parameters that cannot be have density 0, wherever nobody could refuse them before; whatever else is asked
of such parameters is NaN.

Where a value is known to be the observed one, what was computed of that is read again. Functions that can do so take
`reuse`: None asks `query.matches(value)`; a language that compiles asks before, since compilation hides the answer.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ppl_buffer.network.arguments import legal_trials, require_feedback
from ppl_buffer.network.backend import Array, Own
from ppl_buffer.network.events import has_event_cdf
from ppl_buffer.network.groups import EndToEnd, LengthGroup
from ppl_buffer.network.layout import map_leaves, pad_dims
from ppl_buffer.network.likelihood import conditions_of_rows, for_owners
from ppl_buffer.network.missing import censored, legal_events
from ppl_buffer.predictive.folding import FoldedQuery, fold, fold_context, joint_targets, marginal_targets
from ppl_buffer.predictive.outside import trained_ranges
from ppl_buffer.predictive.query import Query
from ppl_buffer.schema import Categorical

# Orders that are evaluated at once: enough to keep a processor busy, few enough to fit its memory.
_ORDERS_AT_ONCE = 16


def log_prob(query: Query, value: Array, reuse: bool | None = None) -> Array:
    """Log density of all trials together, averaged over `orders` where given: (*sample, *batch)."""
    ops = query.net.ops
    if query.orders is None:
        total = conditionals(query, value, reuse).sum(-1)
    else:
        total = ops.log_mean_exp(log_prob_by_order(query, value), 0)
    if query.outside == "-inf" and query.net.record is not None:
        for _, param, low, high in trained_ranges(query.net.record, query.params_by_trial or query.params):
            inside = (param >= low) & (param <= high)
            if query.trial_params:
                inside = (inside if query.trial_mask is None else inside | ~query.trial_mask).all(-1)
            total = ops.xp.where(inside, total, -float("inf"))
    return total


def log_prob_by_order(query: Query, value: Array, orders: Array | None = None) -> Array:
    """Log density of all trials together under each of some orders: (orders, *sample, *batch).

    Args:
        query: the query.
        value: (*sample, *batch, *event).
        orders: permutations (orders, K) in place of the query's; one program then serves all of as many.
    """
    if orders is None and query.orders is None:
        raise ValueError("orders: expected a number or permutations when the distribution was made, got None")
    ops = query.net.ops
    tail = len(query.event_shape) - 1
    lead = query.leading_shape(value)

    def of_chunk(chunk: Array) -> Array:
        chunk = chunk.reshape((-1, *(1,) * len(lead), query.trials))
        permuted = query.permuted(chunk, len(lead) + 1)
        padded = pad_dims(value, len(lead) + 1, 1 + tail)
        reordered = ops.take_along(padded, chunk[..., None] if tail else chunk, -1 - tail)
        return _conditionals(permuted, reordered, False, order_dims=1).sum(-1)

    return ops.map_chunks(of_chunk, np.asarray(query.orders) if orders is None else orders, _ORDERS_AT_ONCE)


def conditionals(query: Query, value: Array, reuse: bool | None = None) -> Array:
    """Log density of each trial given the trials before it: (*sample, *batch, K).

    They sum to `log_prob`; a trial that does not exist contributes 0 (Hassan et al. 2026, equation 5).

    Raises:
        ValueError: if the query averages over `orders`, or feedback is missing.
    """
    if query.orders is not None:
        raise ValueError("orders: expected None for conditionals, which follow one order of the trials")
    return _conditionals(query, value, query.matches(value) if reuse is None else reuse)


def _conditionals(query: Query, value: Array, reuse: bool, order_dims: int = 0) -> Array:
    """`conditionals`, where the first `order_dims` dimensions of the value number orders of the trials."""
    net, groups = query.net, query.observed.groups if reuse and query.observed is not None else None
    folded = fold(query, query.leading_shape(value), value, reuse, order_dims)
    if query.block is not None and not query.independent:
        require_feedback(net, query.feedback, "compute a density")
        context, exists = fold_context(query, folded)
        block = min(query.block, query.trials)
        result = folded.backend.block_conditionals(
            net, context, exists, folded.trials, folded.valid, folded.params, folded.lapse, block
        )
    elif groups and not query.independent and _is_grouped(query, folded, groups):
        result = (_end_to_end if isinstance(groups, EndToEnd) else _group_conditionals)(query, folded)
    else:
        targets = joint_targets(query, folded, reuse)
        if folded.events is not None:
            result = _seen(query, folded, targets)
        else:
            result = folded.backend.conditionals(
                net, targets, folded.params, folded.trials["outcomes"], folded.valid, folded.lapse
            )
    return _finish(query, value, folded, result, reuse)


def _seen(query: Query, folded: FoldedQuery, targets: Own) -> Array:
    """Log densities (B, R, K) of trials, as far as they were seen."""
    backend, outcomes = folded.backend, folded.trials["outcomes"]
    if folded.events is not None:
        return backend.event_log_probs(
            query.net, targets, folded.params, outcomes, folded.events, folded.valid, folded.lapse
        )
    return backend.conditionals(query.net, targets, folded.params, outcomes, folded.valid, folded.lapse)


def marginals(query: Query, value: Array) -> Array:
    """Log density of each trial alone, with an empty buffer: (*sample, *batch, K)."""
    folded = fold(query, query.leading_shape(value), value)
    targets = marginal_targets(query, folded)
    return _finish(query, value, folded, _seen(query, folded, targets))


def leave_one_out(query: Query, value: Array) -> Array:
    """Log density of each trial given the context and all other trials: (*sample, *batch, K).

    Raises:
        ValueError: if the model is ordered: a trial's future is no context.
    """
    if query.net.schema.ordered:
        raise ValueError("leave_one_out: expected an exchangeable model; an ordered one has no set of other trials")
    lead = query.leading_shape(value)
    if query.independent:
        return marginals(query, value)
    require_feedback(query.net, query.feedback, "compute a density")
    folded = fold(query, lead, value)
    context, exists = fold_context(query, folded)
    result = folded.backend.leave_one_out(
        query.net, context, exists, folded.trials, folded.valid, folded.params, folded.lapse
    )
    return _finish(query, value, folded, result)


def cdf_values(query: Query, value: Array, uniform: Array, reuse: bool | None = None) -> Array:
    """Distribution function of each outcome given all that came before it: (*sample, *batch, K[, n_outcomes]).

    `uniform` (*sample, *batch, K, n_outcomes) places a category inside its step, and an omission. NaN where an outcome
    is missing or not legal.
    """
    if query.orders is not None or query.block is not None:
        raise ValueError("orders, block: expected None for pit, which follows one order of the trials")
    reuse = query.matches(value) if reuse is None else reuse
    folded = fold(query, query.leading_shape(value), value, reuse)
    targets = joint_targets(query, folded, reuse)
    places = folded.layout.fold({"uniform": uniform}, 2, replicate=True)["uniform"]
    outcomes = folded.trials["outcomes"]
    if folded.events is None:
        values = folded.backend.cdf(query.net, targets, folded.params, outcomes, places, folded.lapse)
    else:
        if not has_event_cdf(query.net.schema):
            raise ValueError(
                f"missing: expected None for pit, which sums over what was lost where all outcomes but the last are "
                f"discrete and have few values, got outcomes {list(query.net.schema.outcomes)}"
            )
        values = folded.backend.event_cdf(
            query.net, targets, folded.params, outcomes, folded.events, places, folded.lapse
        )
    result = folded.layout.unfold(folded.where_possible(values, float("nan")))
    legal = _legal_trials(query, value, reuse)
    if legal is not None:
        result = query.net.ops.xp.where(legal[..., None], result, float("nan"))
    return result if len(query.event_shape) > 1 else result[..., 0]


def representations(query: Query, value: Array, reuse: bool | None = None) -> Array:
    """What the network says of each trial before its heads put it in words: (*sample, *batch, K, W).

    Functions of the parameters, the inputs, and the trials before it.
    """
    reuse = query.matches(value) if reuse is None else reuse
    folded = fold(query, query.leading_shape(value), value, reuse)
    targets = joint_targets(query, folded, reuse)
    return folded.layout.unfold(folded.backend.representations(query.net, targets, folded.params))


def one_step_ahead(query: Query, value: Array, noise: Array, reuse: bool | None = None) -> tuple[Array, Array]:
    """`conditionals`, and a draw of each trial given the trials before it as they are in `value`, in one pass.

    Args:
        query: the query.
        value: (*sample, *batch, *event).
        noise: uniform numbers in (0, 1), (*sample, *batch, K, schema.noise_size).
        reuse: see above.

    Returns:
        log densities (*sample, *batch, K) and draws (*sample, *batch, *event).

    Raises:
        ValueError: if the query has `orders` or a `block`, or feedback is missing.
    """
    net = query.net
    if query.orders is not None or query.block is not None:
        raise ValueError("orders, block: expected None for one_step_ahead, which follows one order of the trials")
    noise = net.ops.number(net, noise)
    reuse = query.matches(value) if reuse is None else reuse
    folded = fold(query, query.leading_shape(value), value, reuse)
    targets = joint_targets(query, folded, reuse)
    places = folded.layout.fold({"noise": noise}, 2, replicate=True)["noise"]
    both = folded.backend.one_step(
        net, targets, folded.params, folded.trials["outcomes"], folded.valid, folded.lapse, places
    )
    draws = seen_draws(query, folded.layout.unfold(folded.where_possible(both[..., 1:], float("nan"))))
    log_probs = both[..., 0] if folded.events is None else _seen(query, folded, targets)
    log_probs = _finish(query, value, folded, log_probs, reuse)
    return log_probs, draws if len(query.event_shape) > 1 else draws[..., 0]


def one_step_moments(query: Query, value: Array, reuse: bool | None = None) -> tuple[Array, Array]:
    """Mean and variance of each outcome given the trials before it in `value`: (*sample, *batch, *event) each.

    Raises:
        ValueError: if the query has `orders` or a `block`, or feedback is missing.
        NotImplementedError: if an outcome follows a continuous one of the same trial.
    """
    folded, targets = _one_step_targets(query, value, reuse)
    moments = folded.backend.moments(query.net, targets, folded.params, folded.lapse)
    mean, variance = (folded.layout.unfold(folded.where_possible(x, float("nan"))) for x in moments)
    return (mean, variance) if len(query.event_shape) > 1 else (mean[..., 0], variance[..., 0])


def one_step_probabilities(query: Query, value: Array, reuse: bool | None = None) -> Array:
    """Probability of each category of the first outcome given the trials before it: (*sample, *batch, K, categories).

    Raises:
        ValueError: if the first outcome is no category, the query has `orders` or a `block`, or feedback is missing.
    """
    net = query.net
    name, variable = next(iter(net.schema.outcomes.items()))
    if not isinstance(variable, Categorical):
        raise ValueError(f"outcomes: expected a category as the first of them, got {name}: {variable}")
    folded, targets = _one_step_targets(query, value, reuse)
    top = net.ops.number(net, np.ones((1, 1, 1, 1)))
    below = None
    columns = []
    for category in range(variable.n):
        outcomes = {name: net.ops.number(net, np.full((1, 1, 1), category))}
        cdf = folded.backend.cdf(net, targets, folded.params, outcomes, top, folded.lapse)
        columns.append(cdf if below is None else cdf - below)
        below = cdf
    probabilities = net.ops.xp.concatenate(columns, -1)
    return folded.layout.unfold(folded.where_possible(probabilities, float("nan")))


def _one_step_targets(query: Query, value: Array, reuse: bool | None) -> tuple[FoldedQuery, Own]:
    """The folded query, and targets that see the trials before them as they are in `value`."""
    if query.orders is not None or query.block is not None:
        raise ValueError("orders, block: expected None for one step ahead, which follows one order of the trials")
    reuse = query.matches(value) if reuse is None else reuse
    folded = fold(query, query.leading_shape(value), value, reuse)
    return folded, joint_targets(query, folded, reuse)


def marginal_moments(query: Query) -> tuple[Array, Array]:
    """Mean and variance of each outcome alone, with an empty buffer: (*batch, *event) each.

    Raises:
        ValueError: if there is a deadline: a time that did not come has no mean.
    """
    if query.deadline is not None:
        raise ValueError("deadline: expected None for a mean or variance, which omissions do not have; draw samples")
    folded = fold(query, query.batch_shape)
    targets = marginal_targets(query, folded)
    moments = folded.backend.moments(query.net, targets, folded.params, folded.lapse)
    mean, variance = (folded.layout.unfold(folded.where_possible(x, float("nan"))) for x in moments)
    return (mean, variance) if len(query.event_shape) > 1 else (mean[..., 0], variance[..., 0])


def _finish(query: Query, value: Array, folded: FoldedQuery, result: Array, reuse: bool = False) -> Array:
    """Log densities (B, R, K) unfolded, in the user's precision, -inf where a parameter or an outcome cannot be."""
    ops = query.net.ops
    result = folded.layout.unfold(folded.where_possible(result, -float("inf")))
    for like in (*query.params.values(), *query.trial_params.values(), query.lapse, value):
        if like is not None and str(like.dtype).endswith("64"):
            result = ops.cast(result, like)
            break
    legal = _legal_trials(query, value, reuse)
    return result if legal is None else ops.xp.where(legal, result, -float("inf"))


def _legal_trials(query: Query, value: Array, reuse: bool) -> Array | None:
    """Which trials hold legal outcomes or do not exist; None where all were seen to do so."""
    if reuse and query.observed is not None:
        return query.observed.legal
    net, cast = query.net, partial(query.net.ops.number, query.net)
    if query.missing is not None:
        return legal_events(cast, net.ops.xp, net.schema, value, query.trial_mask, query.missing, query.deadline)
    return legal_trials(cast, net.ops.xp, net.schema, value, query.trial_mask)


def seen_draws(query: Query, draws: Array) -> Array:
    """Drawn outcomes (..., K, n_outcomes) with omissions where the deadline was over."""
    if query.missing is None or query.deadline is None:
        return draws
    xp, names = query.net.ops.xp, list(query.net.schema.outcomes)
    columns = {name: draws[..., index] for index, name in enumerate(names)}
    return xp.stack(list(censored(xp, query.missing, query.deadline, columns).values()), -1)


def _is_grouped(query: Query, folded: FoldedQuery, groups: list[LengthGroup] | EndToEnd) -> bool:
    """Whether the data sets that were observed in groups are the ones that are now folded."""
    if query.direct and (query.history is not None or folded.params.params.ndim > 3):
        # The state does not begin at 0, or parameters vary by trial.
        return False
    if isinstance(groups, EndToEnd):
        return groups.place.ndim == 2 and folded.layout.batch == groups.place.shape[0]
    # A transformation of the language may have stacked the arrays, or batch dimensions been added.
    return all([group.indices.ndim == 1 for group in groups]) and folded.layout.batch == sum(
        [group.indices.shape[0] for group in groups]
    )


def _group_conditionals(query: Query, folded: FoldedQuery) -> Array:
    """Log densities (B, R, K) of observed data sets, group by group of similar length."""
    assert query.observed is not None and isinstance(query.observed.groups, list)
    backend, results = folded.backend, []
    for group in query.observed.groups:
        length = group.prepared.tokens.shape[2]
        outcomes, valid, params = map_leaves(
            partial(_take, group), (folded.trials["outcomes"], folded.valid, folded.params)
        )
        lapse = None if folded.lapse is None else folded.lapse.map(partial(_take, group))
        outcomes = {name: x[..., :length] for name, x in outcomes.items()}
        prepared = backend.ops.no_constant_folding(group.prepared)
        part = backend.conditionals(query.net, prepared, params, outcomes, valid[..., :length], lapse)
        results.append(backend.ops.pad_trials(part, query.trials))
    xp = backend.ops.xp
    indices = xp.concatenate([group.indices for group in query.observed.groups], 0)
    return xp.concatenate(results, 0)[xp.argsort(indices)]


def _end_to_end(query: Query, folded: FoldedQuery) -> Array:
    """Log densities (B, R, K) of observed data sets, which are laid end to end."""
    assert query.observed is not None and isinstance(query.observed.groups, EndToEnd)
    backend, xp = folded.backend, folded.backend.ops.xp
    groups = backend.ops.no_constant_folding(query.observed.groups)
    rows, owner = groups.prepared, groups.prepared.owner
    outcomes = {name: x.reshape(-1)[groups.source][:, None] for name, x in folded.trials["outcomes"].items()}
    lapse = None if folded.lapse is None else folded.lapse.map(lambda x: for_owners(query.net, x, owner)[..., 0])
    params = conditions_of_rows(query.net, folded.params, rows)
    part = backend.conditionals(query.net, rows, params, outcomes, rows.valid, lapse)
    by_place = xp.moveaxis(part, 1, 2).reshape(-1, part.shape[1])[groups.place]
    result = backend.ops.pad_trials(xp.moveaxis(by_place, 2, 1), query.trials)
    return xp.where(folded.valid, result, 0.0)


def _take(group: LengthGroup, x: Array) -> Array:
    """The rows of a group's data sets; what all data sets have in common has one row."""
    return x if x.shape[0] == 1 else x[group.indices]
