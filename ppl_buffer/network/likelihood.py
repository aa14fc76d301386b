"""The direct likelihood: outcomes given all parameters, without a set of tokens. Written once, over a backend's arrays.

Where all parameters are given, independent trials depend on their inputs and the parameters alone: a perceptron of both
stands in front of the heads. The trials of an ordered model depend on those before them as well, through the state h of
a gated recurrent unit (Cho et al. 2014, arXiv 1406.1078). With e(theta) the embedded parameters, and u_k = [h_k-1,
inputs of trial k],

    g_k = SiLU(A trial_k + B e(theta)),    h_k = GRU(g_k, h_k-1),    h_0 = 0,
    r_k = SiLU((C u_k) (1 + D e(theta)) + E e(theta)),

and the heads read r_k (a featurewise linear modulation, Perez et al. 2018, arXiv 1709.07871). So a density costs K
small products in place of attention over all pairs of trials, and a rollout keeps a state in place of a cache. What a
trial means for the state depends on the parameters: that they meet it before the recurrent unit, with a nonlinearity in
between, halves the error at equal time; so does, where a trial has several categories, their combination as one
category more; so does the modulation.

Where the inputs have categories, s_k that of trial k (a pair of symbols, a context), most of what is learnt is about
the one that is shown. Then h is in two parts: c is common, and each category has a slot of its own,

    c_k = GRU(g_k, c_k-1),    S_k[s_k] = GRU'([g_k, c_k-1], S_k-1[s_k]),    S_k[s] = S_k-1[s] elsewhere,

and what is read before trial k is h_k-1 = [c_k-1, S_k-1[s_k]]. One map serves all slots, which need not be kept apart
in one vector.

A network with `Config.likelihood_missing` reads in trial_k also which outcomes and feedback were lost, a 0 or 1 each,
and zeros in the place of these. Trained on data sets that lost some, its density of an outcome is that given what was
seen of the trials before.

Parameters that change from trial to trial (`Config.likelihood_trial_params`) are theta_k: those of trial k decide what
is chosen there, and what the trial means for the state.

Arrays are (B, R, K): B data sets, R replicas of each (draws, parameter values), K trials, r = R or 1 where replicas
share; W is the width, E that of the embedded parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ppl_buffer.network.backend import Array, Trials
from ppl_buffer.network.bounds import nearest_legal
from ppl_buffer.network.config import INDEPENDENT_LAYERS, cells, crossed, flagged, slotted, state_widths
from ppl_buffer.network.embeddings import (
    combination,
    features,
    join,
    lower_bounds_of,
    standardize,
    with_lower_bounds,
    within_range,
)
from ppl_buffer.network.network import Network
from ppl_buffer.network.parts import Part
from ppl_buffer.schema import Variable


@dataclass
class PreparedSequence:
    """Trials as far as they do not depend on the parameters.

    Attributes:
        inputs: (B, r, K, G), what is known before the response; None where the schema has no inputs.
        pairs: (B, r, K, W), the realised trials as the state reads them; None where no trial is seen by a later one.
        slot: (B, r, K), the slot of the state that each trial reads; None where it has none.
        valid: (B, r, K) bool, which trials exist.
        index: (B, r, K), which of T targets each trial is, where those that are alike are one; `inputs` are then
            (B, r, T, G). None where each trial is a target.
        condition: (B, r, T), whose parameters each target has; None where all have the same, or each its own.
        owner: (B, K), whose parameters each trial has, where B rows hold data sets laid end to end, which `begins`
            (B, r, K) says of their first trials; both None where each row is a data set.
    """

    inputs: Array | None
    pairs: Array | None
    slot: Array | None
    valid: Array
    index: Array | None = None
    condition: Array | None = None
    owner: Array | None = None
    begins: Array | None = None


@dataclass
class Conditions:
    """What all trials of a data set are conditioned on.

    Attributes:
        params: (B, R, E), the embedded parameters e(theta); (B, R, K, E) where they vary by trial, (B, R, T, E) where
            they do by target, (B, R, 1, E) of one of those trials.
        state: (B, R, W), recurrent state before the first trial, its common part and all slots one behind the other;
            None where trials are independent.
        lower_bounds: (B, R, 1 or K, 2 F), as the heads take them; None without such outcomes.
    """

    params: Array
    state: Array | None
    lower_bounds: Array | None


def prepare_sequence(net: Network, trials: Trials, valid: Array) -> PreparedSequence:
    """Everything about trials (B, r, K) that the parameters do not change; each trial is seen by those after it."""
    pairs = pair_features(net, trials) if net.schema.ordered else None
    inputs = trials["inputs"]
    return PreparedSequence(input_features(net, inputs), pairs, slot_of(net, inputs), valid)


def prepare_alone(
    net: Network, inputs: Mapping[str, Array], valid: Array, index: Array | None = None
) -> PreparedSequence:
    """Trials (B, r, K) that see none of each other; those that are alike one target (B, r, T), as the `index` says."""
    return PreparedSequence(input_features(net, inputs), None, slot_of(net, inputs), valid, index)


def targets_of(net: Network, prepared: PreparedSequence, conditions: Conditions) -> PreparedSequence:
    """The same with a target for each trial, where its parameters are its own."""
    index, params = prepared.index, conditions.params
    assert index is not None
    if params.ndim == 3 or params.shape[2] != index.shape[2]:
        return prepared
    inputs = None if prepared.inputs is None else net.ops.take_rows(prepared.inputs, index)
    return replace(prepared, inputs=inputs, index=None)


def encode_conditions(
    net: Network,
    params: Mapping[str, Array],
    history: Trials | None = None,
    history_valid: Array | None = None,
) -> Conditions:
    """Embed all parameters (B, R), and let an ordered model's trials before these, (B, r, N), move the state.

    Args:
        net: the network.
        params: dict name -> (B, R), in natural units; (B, R, K) where they vary by trial.
        history: inputs, outcomes and feedback, each dict name -> (B, r, N), and a group of ``params`` where these vary;
            or None.
        history_valid: (B, r, N) bool, which of them exist.
    """
    ops, state = net.ops, None
    embedded = _embed(net, params)
    if net.schema.ordered:
        first = embedded if embedded.ndim == 3 else embedded[:, :, 0]
        state = ops.xp.broadcast_to(ops.xp.zeros_like(first[..., :1]), (*first.shape[:2], state_size(net)))
        if history is not None and history_valid is not None:
            then = _embed(net, history["params"]) if "params" in history else embedded
            state = _run(net, _seen(net, history, history_valid), then, state)[1]
    return Conditions(embedded, state, lower_bounds_of(net, params, None))


def conditions_of_rows(net: Network, conditions: Conditions, rows: PreparedSequence) -> Conditions:
    """What the trials of rows are conditioned on, in which data sets are laid end to end, each from the state 0."""
    ops, owner, bounds = net.ops, rows.owner, conditions.lower_bounds
    assert owner is not None and conditions.state is not None
    state = ops.xp.zeros_like(conditions.state[:1])
    state = ops.xp.broadcast_to(state, (owner.shape[0], *state.shape[1:]))
    own = None if bounds is None else for_owners(net, bounds[:, :, 0], owner)
    return replace(conditions, state=state, lower_bounds=own)


def for_owners(net: Network, x: Array, owner: Array) -> Array:
    """What data sets have once, (B, R, F), for the trials of rows, (N, R, K, F); (1, R, 1, F) where all share it."""
    return x[:, :, None] if x.shape[0] == 1 else net.ops.repeat_for_owners(x, owner)


def _embed(net: Network, params: Mapping[str, Array]) -> Array:
    """The embedded parameters e(theta): (B, R, E) of dict name -> (B, R), (B, R, K, E) of (B, R, K)."""
    part, ops = net.likelihood, net.ops
    named = ops.number_each(net, params)
    if not named:
        return ops.perceptron(part, "params", ops.no_constant_folding(ops.ones(net, (1, 1, 1))))
    values = standardize(part, net.schema.params, nearest_legal(net, named))
    described = within_range(part, ops.xp.stack([values[name] for name in net.schema.params], -1))
    return ops.perceptron(part, "params", described)


def conditions_at(conditions: Conditions, trial: Array | int) -> Conditions:
    """The conditions of one of the trials, whose parameters may be its own."""
    params, bounds = conditions.params, conditions.lower_bounds
    if params.ndim == 3:
        return conditions
    own = None if bounds is None else bounds[:, :, trial][:, :, None]
    return replace(conditions, params=params[:, :, trial][:, :, None], lower_bounds=own)


def state_size(net: Network) -> int:
    """Numbers of the recurrent state: its common part, and all slots."""
    common, apart, slots = state_widths(net.schema, net.config)
    return common + apart * slots


def slot_of(net: Network, inputs: Mapping[str, Array]) -> Array | None:
    """The slot of the state (B, r, K) that trials of these inputs read; None where it has none."""
    categories = slotted(net.schema, net.config)
    if not categories:
        return None
    return combination(net, [x.n for x in categories.values()], [inputs[name] for name in categories])


def _run(net: Network, prepared: PreparedSequence, params: Array, state: Array) -> tuple[Array, Array]:
    """What each of the trials reads of the state before it, (B, R, K, W), and the state (B, R, S) after all of them.

    Args:
        net: the network.
        prepared: trials with their pairs.
        params: (B, R, E), the embedded parameters.
        state: (B, R, S), before the first trial.
    """
    part, ops, pairs, slot = net.likelihood, net.ops, prepared.pairs, prepared.slot
    assert pairs is not None
    common, slots = (state, None) if slot is None else _split(net, state)
    trial = ops.silu(pairs + ops.linear_for_trials(part, "trial.params", params, pairs.shape[2], prepared.owner))
    states = ops.recurrent(part, "recurrent", trial, common, prepared.valid, prepared.begins)
    first = ops.xp.broadcast_to(common[:, :, None], (*states.shape[:2], 1, states.shape[3]))
    before, after = ops.xp.concatenate([first, states[:, :, :-1]], 2), states[:, :, -1]
    if slot is None:
        return before, after
    read = ops.xp.concatenate([trial, before], -1)
    own, slots = ops.recurrent_slots(part, "slots", read, slots, slot, prepared.valid, prepared.begins)
    after = ops.xp.concatenate([after, slots.reshape(*slots.shape[:2], -1)], -1)
    return ops.xp.concatenate([before, own], -1), after


def _split(net: Network, state: Array) -> tuple[Array, Array]:
    """The common part (B, R, W) of a state, and its slots (B, R, C, W)."""
    weights = net.likelihood.weights
    common, apart = (weights[f"{unit}.state.weight"].shape[-1] for unit in ("recurrent", "slots"))
    return state[..., :common], state[..., common:].reshape(*state.shape[:2], -1, apart)


def what_is_read(net: Network, state: Array, slot: Array | None) -> Array:
    """What trials (B, r, K) read of one state (B, R, S): (B, R, K, W), or (B, R, 1, W) where there are no slots."""
    if slot is None:
        return state[:, :, None]
    ops, (common, slots) = net.ops, _split(net, state)
    own = (slot[..., None] == ops.arange(net.likelihood, slots.shape[2]))[..., None]
    shown = ops.xp.where(own, slots[:, :, None], 0.0).sum(3)
    return join(net.likelihood, [common[:, :, None], shown])


def read_sequence(net: Network, prepared: PreparedSequence, conditions: Conditions) -> Array:
    """Representation (B, R, K, W) of each trial for the heads of `net.likelihood`, its lower bounds behind.

    It is (B, R, 1, W) where trials do not differ, having no inputs and no past, and (B, R, T, W) of targets.
    """
    states, state = None, conditions.state
    if state is not None:
        if prepared.pairs is not None and prepared.pairs.shape[2] > 1:
            states = _run(net, prepared, conditions.params, state)[0]
        else:
            states = what_is_read(net, state, prepared.slot)
    return read_states(net, states, prepared.inputs, conditions, prepared.owner)


def spread(net: Network, representation: Array, shape: Sequence[int]) -> Array:
    """A representation (B, R, K or 1, W) of trials that do not differ, for each of the trials (B, r, K)."""
    lead = net.ops.xp.broadcast_shapes(tuple(shape), tuple(representation.shape[:-1]))
    return net.ops.xp.broadcast_to(representation, (*lead, representation.shape[-1]))


def read_states(
    net: Network, states: Array | None, inputs: Array | None, conditions: Conditions, owner: Array | None = None
) -> Array:
    """Representation (B, R, K, W) of trials; (B, R, 1, W) where they do not differ.

    Args:
        net: the network.
        states: (B, R, K or 1, W), what trials read of the state before them; None where trials are independent.
        inputs: (B, r, K, G), or None.
        conditions: from `encode_conditions`.
        owner: see `PreparedSequence`.
    """
    part, ops = net.likelihood, net.ops
    read = [x for x in (states, inputs) if x is not None]
    params, count = conditions.params, 1
    if read:
        trial = ops.linear(part, "read.trial", join(part, read))
        count = trial.shape[2]
    shift = ops.linear_for_trials(part, "read.shift", params, count, owner)
    if read:
        shift = trial * (1 + ops.linear_for_trials(part, "read.scale", params, count, owner)) + shift
    hidden = ops.silu(shift)
    if not net.schema.ordered:
        for index in range(INDEPENDENT_LAYERS):
            hidden = hidden + ops.silu(ops.linear(part, f"layers.{index}", hidden))
    return with_lower_bounds(part, hidden, conditions.lower_bounds)


def next_state(net: Network, pairs: Trials, exists: Array, conditions: Conditions, state: Array) -> Array:
    """The recurrent state (B, R, S) after one more trial (B, R, 1), where it `exists` (B, R, 1)."""
    return _run(net, _seen(net, pairs, exists), conditions.params, state)[1]


def _seen(net: Network, trials: Trials, valid: Array) -> PreparedSequence:
    """Trials as the state reads them, of which nothing is to be predicted."""
    return PreparedSequence(None, pair_features(net, trials), slot_of(net, trials["inputs"]), valid)


def in_time(outcomes: Mapping[str, Array], limits: Mapping[str, Array], exists: Array) -> Array:
    """Which trials (B, R, 1) later ones read: those that exist and have no outcome above its limit."""
    for name, limit in limits.items():
        exists = exists & (outcomes[name] <= limit)
    return exists


def pair_features(net: Network, trials: Trials) -> Array:
    """Realised trials (B, r, K) as the state reads them, A trial_k: (B, r, K, W).

    Beside inputs, outcomes and feedback they may say what was `lost`, dict name -> (B, r, K) bool: where it was, the
    numbers in its place are not read.
    """
    schema, part = net.schema, net.likelihood
    variables = {**schema.inputs, **schema.outcomes, **schema.feedback}
    values = {**trials["inputs"], **trials["outcomes"], **trials["feedback"]}
    lost, flags = trials.get("lost", {}), flagged(schema, net.config)
    described = _described(part, variables, values, lost)
    if flags:
        nothing = net.ops.xp.zeros_like(described[..., 0])
        columns = [net.ops.number(part, lost[name]) if name in lost else nothing for name in flags]
        described = net.ops.xp.concatenate([described, net.ops.xp.stack(columns, -1)], -1)
    return net.ops.linear(part, "trial.pair", described)


def input_features(net: Network, inputs: Mapping[str, Array]) -> Array | None:
    """Numbers (B, r, K, G) that describe what is known before the response; None where nothing is."""
    return _described(net.likelihood, net.schema.inputs, inputs, {}) if net.schema.inputs else None


def _described(
    part: Part, variables: Mapping[str, Variable], values: Mapping[str, Array], lost: Mapping[str, Array]
) -> Array:
    """Numbers (..., F) that describe variables (...), and which combination of categories they are; 0 of what is lost.

    A combination is lost where one of its categories is.
    """
    described = features(part, variables, values, lost)
    categories = crossed(variables)
    if categories:
        sizes = [variable.n for variable in categories.values()]
        cell = combination(part, sizes, [values[name] for name in categories])
        combined = part.ops.number(part, cell[..., None] == part.ops.arange(part, cells(categories)))
        for name in categories:
            if name in lost:
                combined = part.ops.xp.where(lost[name][..., None], 0.0, combined)
        described.append(combined)
    return part.ops.xp.concatenate(described, -1)
