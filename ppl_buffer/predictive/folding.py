"""A query as the backend takes it: its arrays brought to (B, R, ...), data sets and replicas of each.

What replicas share (a context, an observed buffer) has no R; `ppl_buffer.network.layout` says which dimension is which.
"""

from __future__ import annotations

from dataclasses import dataclass

from ppl_buffer.network.arguments import all_exist, arrange_outcomes, require_feedback
from ppl_buffer.network.backend import Array, Backend, Named, Own, Trials, backend_of
from ppl_buffer.network.bounds import can_be
from ppl_buffer.network.events import TrialEvents
from ppl_buffer.network.lapse_mixture import LapseMixture
from ppl_buffer.network.layout import BatchLayout
from ppl_buffer.network.missing_rule import MissingRule, gaps, known_feedback, pass_over
from ppl_buffer.predictive.query import Query
from ppl_buffer.schema import split_value


@dataclass(frozen=True)
class FoldedQuery:
    """The arrays of a query, sorted into data sets and replicas.

    Attributes:
        backend: the backend of its network.
        layout: which batch dimension is which.
        trials: inputs, outcomes (of the value that is scored; none for draws) and feedback, each dict name ->
            (B, r, K).
        valid: (B, r, K) bool, which trials exist.
        read: (B, r, K) bool, which of them later trials read: not those whose response was omitted.
        params: the encoded parameters.
        possible: (B, r, 1 or K) bool, where the parameters are such as can be; None without parameters.
        lapse: the user's lapses, their rate (B, r, 1); or None.
        events: which outcomes are missing; None where none may be, and for draws.
    """

    backend: Backend
    layout: BatchLayout
    trials: dict[str, Named]
    valid: Array
    read: Array
    params: Own
    possible: Array | None
    lapse: LapseMixture | None
    events: TrialEvents | None

    def where_possible(self, result: Array, otherwise: float) -> Array:
        """A result (B, R, K) or (B, R, K, n), with another number in trials whose parameters cannot be."""
        if self.possible is None:
            return result
        kept = self.possible | ~self.valid
        return self.backend.ops.xp.where(kept if result.ndim == 3 else kept[..., None], result, otherwise)


def fold(
    query: Query, lead: tuple[int, ...], value: Array | None = None, reuse: bool = False, order_dims: int = 0
) -> FoldedQuery:
    """Fold a query, and a value to score.

    Args:
        query: the query.
        lead: leading dimensions (*sample, *batch) of the result.
        value: (*sample, *batch, *event), or None for draws.
        reuse: the value is the observed one; what was computed of it is read again, and decides what a data set is.
        order_dims: so many of the leading dimensions number orders of the trials: replicas, although data differ.
    """
    net, shared = query.net, _shared_shapes(query, lead, reuse, order_dims)
    rule, feedback = query.missing, query.feedback or {}
    backend, by_trial = backend_of(net), query.params_by_trial
    params = net.ops.number_each(net, by_trial or query.params)
    layout = BatchLayout(net.ops.xp, lead, shared)
    outcomes: Named = {}
    if reuse and query.observed is not None:
        outcomes = query.observed.outcomes
    elif value is not None:
        outcomes = arrange_outcomes(net, value, query.trial_mask)
    mask = query.trial_mask
    if mask is None:
        mask = all_exist(net, query.trials, len(lead))
    missing: dict[str, Named] = {}
    if rule is not None and value is not None:
        missing = _missing_arrays(query, rule, value)
        feedback = known_feedback(net.ops.xp, net.schema, feedback)
    trials, valid = layout.fold_trials(
        {"inputs": query.inputs, "outcomes": outcomes, "feedback": feedback, **missing}, mask
    )
    events = None
    if rule is not None and missing:
        time = trials.pop("time")
        events = TrialEvents(rule, trials.pop("unknown"), time.get("omitted"), time.get("deadline"))
    read = pass_over(trials, valid) if missing else valid
    sequence = None if query.observed is None or not query.condition_params else query.observed.sequence
    if reuse and sequence is not None and sequence.index is not None:
        params, possible = _params_of_targets(query, layout, query.observed)
    else:
        params = layout.fold(params, 1 if by_trial else 0)
        possible = can_be(net, params)
        if possible is not None and not by_trial:
            possible = possible[..., None]
    if query.direct:
        history = query.history
        past = (None, None) if history is None else layout.fold_trials(history.trials, history.mask)
        encoded = backend.encode_conditions(net, params, *past)
    else:
        encoded = backend.encode_params(net, params)
    lapse = None
    if query.lapse is not None:
        rate = layout.fold({"lapse": net.ops.number(net, query.lapse)}, 0)["lapse"][..., None]
        lapse = LapseMixture(rate, query.lapse_ranges)
    return FoldedQuery(backend, layout, trials, valid, read, encoded, possible, lapse, events)


def _params_of_targets(query: Query, layout: BatchLayout, observed: Own) -> tuple[Named, Array | None]:
    """Parameters by target, (B, R, T), and in which trials (B, R, K) they can be; None without parameters."""
    net, xp, count = query.net, query.net.ops.xp, observed.condition_count
    same = {name: xp.broadcast_to(x[..., None], (*x.shape, count)) for name, x in query.params.items()}
    params = layout.fold(net.ops.number_each(net, {**same, **query.condition_params}), 1)
    places = observed.sequence.index, observed.sequence.condition
    index, condition = layout.fold_shared(places, observed.trial_mask.shape[:-1])
    if condition is not None:
        params = {name: net.ops.take_rows(x[..., None], condition)[..., 0] for name, x in params.items()}
    possible = can_be(net, params)
    return params, None if possible is None else net.ops.take_rows(possible[..., None], index)[..., 0]


def _missing_arrays(query: Query, rule: MissingRule, value: Array) -> dict[str, Named]:
    """Which outcomes of a value are unknown or omitted, the deadlines, and what later trials read; each (..., K)."""
    net, columns = query.net, split_value(query.net.schema, value)
    groups = gaps(net.ops.xp, net.schema, rule, columns, query.feedback or {})
    groups["unknown"] = {name: net.ops.xp.isnan(column) for name, column in columns.items()}
    groups["time"] = {}
    if rule.timed is not None:
        groups["time"] = {"omitted": columns[rule.timed] == float("inf"), "deadline": query.deadline}
    return groups


def _shared_shapes(query: Query, lead: tuple[int, ...], reuse: bool, order_dims: int) -> list[tuple[int, ...]]:
    """Batch shapes of what the replicas of a data set share."""
    if reuse and query.observed is not None:
        return [tuple(query.observed.trial_mask.shape[:-1])]
    if query.context is not None:
        return [tuple(query.context.mask.shape[:-1])]
    if query.history is not None:
        return [tuple(query.history.mask.shape[:-1])]
    arrays = [*query.inputs.values(), *(query.feedback or {}).values()]
    if query.deadline is not None:
        arrays.append(query.deadline)
    if query.trial_mask is not None:
        arrays.append(query.trial_mask)
    shapes = [tuple(x.shape[:-1]) for x in arrays]
    return [shape[order_dims:] if len(shape) == len(lead) else shape for shape in shapes]


def fold_cache(query: Query, folded: FoldedQuery) -> Own:
    """What the encoded context and the history let predictions read."""
    if query.context is not None:
        return folded.layout.fold_shared(query.context.cache, query.context.batch_shape)
    if query.history is not None:
        trials, valid = folded.layout.fold_trials(query.history.trials, query.history.mask)
        return folded.backend.start_cache(query.net, None, None, trials, valid)
    return folded.backend.Cache()


def fold_context(query: Query, folded: FoldedQuery) -> tuple[Trials | None, Array | None]:
    """The context's trials as (B, r, N) and which of them exist, for whoever encodes them anew."""
    if query.context is None:
        return None, None
    return folded.layout.fold_trials(query.context.trials, query.context.mask)


def joint_targets(query: Query, folded: FoldedQuery, reuse: bool) -> Own:
    """Targets that see the trials before them, prepared as far as they do not depend on the parameters."""
    if query.direct:
        if reuse and query.observed is not None and query.observed.sequence is not None:
            return _read_again(query.observed.sequence, query, folded)
        if not query.independent:
            require_feedback(query.net, query.feedback, "compute a density")
        return folded.backend.prepare_sequence(query.net, folded.trials, folded.read)
    if query.independent:
        return marginal_targets(query, folded, reuse)
    if reuse and query.observed is not None and query.observed.prepared is not None:
        return _read_again(query.observed.prepared, query, folded)
    require_feedback(query.net, query.feedback, "compute a density")
    return folded.backend.prepare_joint(query.net, fold_cache(query, folded), folded.trials, folded.valid)


def marginal_targets(query: Query, folded: FoldedQuery, reuse: bool = False) -> Own:
    """Targets that see the context and the history, and none of each other."""
    if query.direct:
        return folded.backend.prepare_alone(query.net, folded.trials["inputs"], folded.valid)
    if reuse and query.observed is not None and query.observed.alone is not None:
        return _read_again(query.observed.alone, query, folded)
    cache = fold_cache(query, folded)
    return folded.backend.prepare_marginal(query.net, cache, folded.trials["inputs"], folded.valid)


def _read_again(observed: Own, query: Query, folded: FoldedQuery) -> Own:
    """What was computed of the observed trials, as the layout folds it."""
    assert query.observed is not None
    prepared = folded.layout.fold_shared(observed, query.observed.trial_mask.shape[:-1])
    return folded.backend.ops.no_constant_folding(prepared)
