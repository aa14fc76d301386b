"""Draws from a query, and the query of the trials that follow realised ones.

Randomness is an argument: the same uniform numbers give the same draw in both backends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ppl_buffer.checks import check_choice, is_integer
from ppl_buffer.network.arguments import arrange_outcomes, as_floating, check_legal, require_feedback
from ppl_buffer.network.backend import Array, Named, Own, backend_of
from ppl_buffer.network.layout import BatchLayout, broadcast_shape
from ppl_buffer.network.missing import check_events
from ppl_buffer.network.missing_rule import gaps, known_feedback, pass_over
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import encode_context
from ppl_buffer.network.unfamiliar import warn_unfamiliar
from ppl_buffer.predictive import density
from ppl_buffer.predictive.folding import fold, fold_cache, fold_context
from ppl_buffer.predictive.orders import permutations
from ppl_buffer.predictive.query import History, Query
from ppl_buffer.schema import split_value, stack_value
from ppl_buffer.simulator import StatefulEnvironment

# Trials that a speculative rollout tests in one pass.
LOOKAHEAD = 64

_METHODS = ("rollout", "speculative")


@dataclass
class Speculation:
    """Draws of a speculative rollout, and how many drafts it could keep. Made by `JointPredictive.speculate`.

    Attributes:
        value: (*sample, *batch, *event).
        feedback: dict name -> (*sample, *batch, K), what the environment gave.
        log_probs: (*sample, *batch, K), log densities that the trials were drawn from; they sum to `log_prob`.
        accepted: (*sample, *batch, K) bool, whether a trial's draft stayed in the test that settled it.
        settled: (*sample, *batch, K), which test that was, counted from 1; 0 where there is no trial, or the first
            draft needed no test.
    """

    value: Array
    feedback: Named
    log_probs: Array
    accepted: Array
    settled: Array

    @property
    def acceptance_rate(self) -> float:
        """Share of the tested trials whose draft stayed; 1 where nothing had to be tested."""
        tested = np.asarray(self.settled) > 0
        return float(np.asarray(self.accepted)[tested].mean()) if tested.any() else 1.0

    @property
    def passes(self) -> int:
        """Passes that tested drafts, for all draws together; one more made the first drafts."""
        return int(np.asarray(self.settled).max(initial=0))


def check_method(method: str) -> None:
    """Refuse an unknown way of drawing values."""
    check_choice("method", method, _METHODS)


def noise_shape(query: Query, sample_shape: Sequence[int] = (), batch_shape: Sequence[int] = ()) -> tuple[int, ...]:
    """Shape of the uniform numbers that `rollout` takes.

    A language whose batch shape is wider than that of the data gives it as `batch_shape`: each of its elements is
    drawn by itself.
    """
    # Where each draw follows a random order, one more row of numbers picks it.
    rows = query.trials + (query.orders is not None)
    batch = broadcast_shape([batch_shape, query.batch_shape], "batch")
    return (*sample_shape, *batch, rows, query.net.schema.noise_size)


def rollout(query: Query, noise: Array, orders: Array | None = None) -> tuple[Array, Named, Array]:
    """Draw the trials one after another from uniform numbers in (0, 1) of shape `noise_shape(query, sample_shape)`.

    This is the cached autoregressive rollout (Hassan et al. 2026, equation 3).

    Args:
        query: the query.
        noise: uniform numbers.
        orders: permutations (R, K) in place of the query's; one program then serves all of as many.

    Returns:
        the value (*sample, *batch, *event), feedback name -> (*sample, *batch, K), and the log densities
        (*sample, *batch, K) that the trials were drawn from.

    Raises:
        ValueError: if the schema has feedback and no environment supplies it.
    """
    orders = query.orders if orders is None else orders
    rolled = _draw(query, noise, partial(backend_of(query.net).rollout, independent=query.independent), orders)
    return _as_seen(query, rolled)  # type: ignore[return-value]


def speculative_rollout(
    query: Query, noise: Array, source: Own, lookahead: int = LOOKAHEAD
) -> tuple[Array, Named, Array, Array, Array]:
    """Draw values of the same distribution as `rollout` does, many trials in one pass.

    Later trials are drafted before earlier ones are known, then tested and redrawn where the test says so; the
    backend's module `speculative` says how, and why the distribution is the rollout's. It gains where a pass over
    many trials costs little more than one over a single trial: few draws, in torch above all. Compiled by JAX for a
    CPU it gains for one draw from a large context alone. An environment is asked about drafts too, so that it must
    answer from its arguments and from nothing else.

    Args:
        query: the query.
        noise: uniform numbers in (0, 1) of shape `noise_shape(query, sample_shape)`.
        source: a key (JAX) or a generator or None (torch) of the random numbers of tests and redraws.
        lookahead: number of trials that are tested in one pass.

    Returns:
        the fields of `Speculation`, in order.

    Raises:
        ValueError: if the query has a `block`: there, trials enter the context and nothing can be tested without
            encoding it anew; if the environment has a state; if `lookahead` is below 1; and as for `rollout`.
    """
    if query.block is not None:
        raise ValueError(
            f"block: expected None for a speculative rollout, got {query.block}: trials that enter the context "
            f"have to be encoded anew with all of it, which a test in one pass cannot do"
        )
    if isinstance(query.environment, StatefulEnvironment):
        raise ValueError(
            f"environment: expected one without a state for a speculative rollout, since the state after a draft may "
            f"yet change, got {type(query.environment).__name__}"
        )
    if not is_integer(lookahead):
        raise ValueError(f"lookahead: expected a number of trials of at least 1, got {lookahead!r}")
    if query.direct:
        # A step of its state costs less than any draft: nothing is drafted, nothing has to be tested.
        value, by_trial, log_probs = rollout(query, noise)
        return value, by_trial, log_probs, log_probs == log_probs, log_probs * 0
    swept = None if query.independent else int(lookahead)
    rolled = _draw(
        query, noise, partial(backend_of(query.net).speculative_rollout, source=source, lookahead=swept), query.orders
    )
    return _as_seen(query, rolled)  # type: ignore[return-value]


def _as_seen(query: Query, rolled: tuple[Array, ...]) -> tuple[Array, ...]:
    """What was drawn, with omissions where a deadline was over, and the log densities of that."""
    if query.deadline is None:
        return rolled
    value, feedback, _, *more = rolled
    several = len(query.event_shape) > 1
    value = density.seen_draws(query, value if several else value[..., None])
    if query.net.schema.ordered and query.missing is not None:
        # Later trials have passed over these: no feedback came.
        omitted = value[..., list(query.net.schema.outcomes).index(str(query.missing.timed))] == float("inf")
        feedback = {name: query.net.ops.xp.where(omitted, float("nan"), x) for name, x in feedback.items()}
        realised = replace(query, feedback=feedback, observed=None)
        query = realised.expanded(len(realised.batch_shape))
    value = value if several else value[..., 0]
    return value, feedback, density.conditionals(query, value, reuse=False), *more


def _draw(
    query: Query, noise: Array, roll: Callable[..., tuple[Array, ...]], orders: Array | None
) -> tuple[Array, ...]:
    """Fold everything for the backend's function `roll`, and bring back what it draws; each draw in one of some orders.

    Draws then have the order-averaged density.
    """
    net, schema = query.net, query.net.schema
    if schema.feedback and query.environment is None and not query.independent:
        raise ValueError(
            f"environment: expected a function that gives {list(schema.feedback)} on a drawn outcome, since later "
            f"trials depend on it; got None"
        )
    noise = net.ops.number(net, noise)
    if orders is not None:
        return _draw_in_random_order(query, noise, roll, np.asarray(orders) if isinstance(orders, tuple) else orders)
    folded = fold(query, tuple(noise.shape[:-2]))
    layout, inputs = folded.layout, folded.trials["inputs"]
    uniform = layout.fold({"noise": noise}, 2, replicate=True)["noise"]
    if query.block is not None and not query.independent:
        context, exists = fold_context(query, folded)
        rolled = folded.backend.block_rollout(
            net, context, exists, inputs, folded.valid, folded.params, uniform, folded.lapse, query.environment,
            min(query.block, query.trials),
        )  # fmt: skip
    elif query.direct:
        rolled = folded.backend.rollout_sequence(
            net, folded.params, inputs, folded.valid, uniform, folded.lapse, query.environment, _limits(query, layout)
        )
    else:
        rolled = roll(
            net, fold_cache(query, folded), inputs, folded.valid, folded.params, uniform, folded.lapse,
            query.environment,
        )  # fmt: skip
    feedback = {name: layout.unfold(x) for name, x in rolled[1].items()}
    check_feedback(net, feedback, query.trial_mask)
    # Parameters that cannot be draw nothing.
    outcomes, feedback = (
        {name: layout.unfold(folded.where_possible(x, float("nan"))) for name, x in group.items()}
        for group in rolled[:2]
    )
    return stack_value(net.ops.xp, schema, outcomes), feedback, *(layout.unfold(x) for x in rolled[2:])


def _limits(query: Query, layout: BatchLayout) -> Named:
    """The time after which a response is an omission, name -> (B, r, K), where later trials pass over it; else none."""
    if query.deadline is None or query.missing is None or not query.net.schema.ordered:
        return {}
    xp, deadline = query.net.ops.xp, query.deadline
    deadline = xp.broadcast_to(deadline, (*deadline.shape[:-1], query.trials))
    return layout.fold({str(query.missing.timed): query.net.ops.number(query.net, deadline)}, 1)


def check_feedback(
    net: Network, feedback: Mapping[str, Array], trial_mask: Array | None, omissions: bool = False
) -> None:
    """Refuse what an environment gave that the feedback cannot be, where it can be looked at.

    Args:
        net: the network.
        feedback: dict name -> (*sample, *batch, K).
        trial_mask: (*batch, K) bool, which trials there are; None = all.
        omissions: whether trials may have none, NaN, since there was no response.

    Raises:
        ValueError: naming the feedback and the value.
    """
    for name, value in feedback.items():
        check_legal(net, f"environment: feedback {name!r}", net.schema.feedback[name], value, trial_mask, omissions)


def _draw_in_random_order(
    query: Query, noise: Array, roll: Callable[..., tuple[Array, ...]], orders: Array
) -> tuple[Array, ...]:
    """Each draw follows one of the orders (R, K)."""
    ops, tail = query.net.ops, len(query.event_shape) - 1
    index = ops.xp.floor(noise[..., query.trials, 0] * len(orders))
    order = ops.pick_rows(orders, index)
    permuted = query.permuted(order, noise.ndim - 2)
    value, feedback, *by_trial = _draw(permuted, noise[..., : query.trials, :], roll, None)
    back = ops.xp.argsort(order, -1)
    value = ops.take_along(value, back[..., None] if tail else back, -1 - tail)
    feedback = {name: ops.take_along(x, back, -1) for name, x in feedback.items()}
    return value, feedback, *(ops.take_along(x, back, -1) for x in by_trial)


def condition(query: Query, value: Array) -> Query:
    """The query of the trials that follow the first ones, whose outcomes are `value` (*sample, *batch, first, ...).

    In an ordered model the first trials enter the buffer; in an exchangeable one they join the context.

    Raises:
        ValueError: if `value` does not hold some of the trials, its values cannot be, or feedback is missing.
    """
    net, schema, tail = query.net, query.net.schema, len(query.event_shape) - 1
    value = as_floating(net, "value", value)
    first = value.shape[-1 - tail] if value.ndim > tail else 0
    if not 1 <= first < query.trials or (tail and value.shape[-1] != len(schema.outcomes)):
        raise ValueError(
            f"value: expected outcomes of the first 1 to {query.trials - 1} trials, shape (*batch, trials"
            f"{f', {len(schema.outcomes)}' * tail}), got {tuple(value.shape)}"
        )
    require_feedback(net, query.feedback, "condition on trials")
    past, mask = _realised(query, value, first)
    outcomes = past["outcomes"]
    if schema.ordered and query.outside != "ignore":
        # An exchangeable model's context is looked at where it is encoded.
        warn_unfamiliar(net, {"value": outcomes}, mask, query.direct)
    if mask is None:
        mask = net.ops.xp.ones_like(next(iter(outcomes.values()))) > 0
    context, history = query.context, query.history
    if schema.ordered:
        history = _append(net, history, past, mask)
    elif "buffer" in net.parts:
        before = None if context is None else History(context.trials, context.mask)
        joined = _append(net, before, past, mask)
        context = encode_context(
            net, {name: x for group in joined.trials.values() for name, x in group.items()}, joined.mask
        )
    rest = query.trials - first
    following = replace(
        query,
        trials=rest,
        inputs={name: x[..., first:] for name, x in query.inputs.items()},
        trial_params={name: x[..., first:] for name, x in query.trial_params.items()},
        condition_params={},
        feedback=None if query.feedback is None else {name: x[..., first:] for name, x in query.feedback.items()},
        trial_mask=None if query.trial_mask is None else query.trial_mask[..., first:],
        deadline=query.deadline
        if query.deadline is None or query.deadline.shape[-1] == 1
        else query.deadline[..., first:],
        context=context,
        history=history,
        observed=None,
        orders=None if query.orders is None else tuple(map(tuple, permutations(len(query.orders), rest).tolist())),
    )
    return following.expanded(len(following.batch_shape))


def _realised(query: Query, value: Array, first: int) -> tuple[dict[str, Named], Array | None]:
    """The first trials as those after them read them, groups of name -> (*batch, first), and which they read.

    Returns:
        legal numbers wherever nothing is read; None = all are.
    """
    net, schema, xp = query.net, query.net.schema, query.net.ops.xp
    mask = None if query.trial_mask is None else query.trial_mask[..., :first]
    columns = split_value(schema, value)
    past = {
        "inputs": {name: x[..., :first] for name, x in query.inputs.items()},
        "feedback": {name: x[..., :first] for name, x in (query.feedback or {}).items()},
    }
    if schema.ordered and query.trial_params:
        past["params"] = {name: x[..., :first] for name, x in query.params_by_trial.items()}
    if query.missing is not None and schema.ordered:
        deadline = query.deadline if query.deadline is None else query.deadline[..., :first]
        check_events(net, value, mask, query.missing, deadline, past["feedback"])
        past |= gaps(xp, schema, query.missing, columns, past["feedback"])
        past["feedback"] = known_feedback(xp, schema, past["feedback"])
        past["outcomes"] = arrange_outcomes(net, value, mask)
        exists = xp.ones_like(next(iter(columns.values()))) > 0 if mask is None else mask
        return past, pass_over(past, exists)
    if query.missing is not None:
        # Trials are independent given all parameters: those of which something is missing need not be known.
        complete = xp.isfinite(sum(columns.values()))
        mask = complete if mask is None else mask & complete
    past["outcomes"] = {}
    for name, column in columns.items():
        argument = f"value[{name!r}]" if schema.event_shape_tail else "value"
        check_legal(net, argument, schema.outcomes[name], column, mask)
        number = net.ops.number(net, column)
        past["outcomes"][name] = number if mask is None else xp.where(mask, number, schema.outcomes[name].fill)
    return past, mask


def _append(net: Network, before: History | None, more: dict[str, Named], more_mask: Array) -> History:
    """Trials (*batch, N), and those that follow, with batch dimensions broadcast."""
    xp = net.ops.xp
    shapes = [x.shape[:-1] for group in more.values() for x in group.values()] + [more_mask.shape[:-1]]
    if before is not None:
        shapes.append(before.mask.shape[:-1])
    batch = broadcast_shape(shapes, "value")

    def append(first: Array | None, second: Array) -> Array:
        parts = [second] if first is None else [first, second]
        return xp.concatenate([xp.broadcast_to(x, (*batch, x.shape[-1])) for x in parts], -1)

    joined = {
        group: {name: append(None if before is None else before.trials[group][name], x) for name, x in values.items()}
        for group, values in more.items()
    }
    return History(joined, append(None if before is None else before.mask, more_mask))
