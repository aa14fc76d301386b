"""The direct likelihood: outcomes given all parameters, without a set of tokens. Written once, over a backend's arrays.

Where all parameters are given, what a trial depends on is known in closed form. Independent trials depend on their
inputs and the parameters alone: a perceptron of both stands in front of the heads. The trials of an ordered model
depend on those before them as well, through a recurrent state (gated recurrent unit, Cho et al. 2014, arXiv 1406.1078)
that the parameters e(theta) steer,

    h_k = GRU(h_k-1, [trial k, e(theta)]),    h_0 = tanh(A e(theta) + a),

and trial k is read from h_k-1, its inputs and e(theta). So a density costs K small products in place of attention over
all pairs of trials, and a rollout keeps a state in place of a cache.

Arrays are (B, R, K): B data sets, R replicas of each (draws, parameter values), K trials, r = R or 1 where replicas
share; W is the width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ppl_buffer.network.backend import Array, Trials
from ppl_buffer.network.bounds import nearest_legal
from ppl_buffer.network.config import INDEPENDENT_LAYERS
from ppl_buffer.network.embeddings import features, lower_bounds_of, standardize, with_lower_bounds, within_range
from ppl_buffer.network.network import Network
from ppl_buffer.network.parts import Part
from ppl_buffer.schema import Variable


@dataclass
class PreparedSequence:
    """Trials as far as they do not depend on the parameters.

    Attributes:
        inputs: (B, r, K, G), what is known before the response; None where the schema has no inputs.
        pairs: (B, r, K, F), the realised trials; None where no trial is seen by a later one.
        valid: (B, r, K) bool, which trials exist.
    """

    inputs: Array | None
    pairs: Array | None
    valid: Array


@dataclass
class Conditions:
    """What all trials of a data set are conditioned on.

    Attributes:
        params: (B, R, W), the embedded parameters e(theta).
        state: (B, R, W), recurrent state before the first trial; None where trials are independent.
        lower_bounds: (B, R, 1, 2 F), as the heads take them; None without such outcomes.
    """

    params: Array
    state: Array | None
    lower_bounds: Array | None


def prepare_sequence(net: Network, trials: Trials, valid: Array) -> PreparedSequence:
    """Everything about trials (B, r, K) that the parameters do not change; each trial is seen by those after it."""
    pairs = pair_features(net, trials) if net.schema.ordered else None
    return PreparedSequence(input_features(net, trials["inputs"]), pairs, valid)


def prepare_alone(net: Network, inputs: Mapping[str, Array], valid: Array) -> PreparedSequence:
    """Trials (B, r, K) that see none of each other."""
    return PreparedSequence(input_features(net, inputs), None, valid)


def encode_conditions(
    net: Network,
    params: Mapping[str, Array],
    history: Trials | None = None,
    history_valid: Array | None = None,
) -> Conditions:
    """Embed all parameters (B, R), and let an ordered model's trials before these, (B, r, N), move the state.

    Args:
        net: the network.
        params: dict name -> (B, R), in natural units.
        history: inputs, outcomes and feedback, each dict name -> (B, r, N); or None.
        history_valid: (B, r, N) bool, which of them exist.
    """
    part, ops = net.likelihood, net.ops
    named = ops.number_each(net, params)
    if named:
        values = standardize(part, net.schema.params, nearest_legal(net, named))
        described = ops.xp.stack([within_range(part, values[name]) for name in net.schema.params], -1)
    else:
        described = ops.no_constant_folding(ops.ones(net, (1, 1, 1)))
    embedded = ops.perceptron(part, "params", described)
    state = None
    if net.schema.ordered:
        state = ops.xp.tanh(ops.linear(part, "start", embedded))
        if history is not None and history_valid is not None:
            states = ops.recurrent(part, "recurrent", pair_features(net, history), embedded, state, history_valid)
            state = states[:, :, -1]
    return Conditions(embedded, state, lower_bounds_of(net, params, None))


def read_sequence(net: Network, prepared: PreparedSequence, conditions: Conditions) -> Array:
    """Representation (B, R, K, W) of each trial for the heads of `net.likelihood`, its lower bounds behind."""
    states = None
    if conditions.state is not None:
        states = conditions.state[:, :, None]
        if prepared.pairs is not None and prepared.pairs.shape[2] > 1:
            later = net.ops.recurrent(
                net.likelihood, "recurrent", prepared.pairs[:, :, :-1], conditions.params, conditions.state,
                prepared.valid[..., :-1],
            )  # fmt: skip
            first = net.ops.xp.broadcast_to(states, (*later.shape[:2], 1, later.shape[3]))
            states = net.ops.xp.concatenate([first, later], 2)
    return read_states(net, states, prepared.inputs, conditions, prepared.valid.shape)


def read_states(
    net: Network, states: Array | None, inputs: Array | None, conditions: Conditions, shape: tuple[int, ...]
) -> Array:
    """Representation (B, R, K, W) of trials.

    Args:
        net: the network.
        states: (B, R, K or 1, W), the recurrent state before each trial; None where trials are independent.
        inputs: (B, r, K, G), or None.
        conditions: from `encode_conditions`.
        shape: (B, r, K) of the trials.
    """
    part, xp = net.likelihood, net.ops.xp
    read = [x for x in (states, inputs, conditions.params[:, :, None]) if x is not None]
    lead = xp.broadcast_shapes(tuple(shape), *(tuple(x.shape[:-1]) for x in read))
    hidden = xp.concatenate([xp.broadcast_to(x, (*lead, x.shape[-1])) for x in read], -1)
    hidden = net.ops.silu(net.ops.linear(part, "read.0", hidden))
    if not net.schema.ordered:
        for index in range(1, INDEPENDENT_LAYERS):
            hidden = hidden + net.ops.silu(net.ops.linear(part, f"read.{index}", hidden))
    return with_lower_bounds(part, hidden, conditions.lower_bounds)


def next_state(net: Network, pairs: Trials, exists: Array, conditions: Conditions, state: Array) -> Array:
    """The recurrent state (B, R, W) after one more trial (B, R, 1), where it `exists` (B, R, 1)."""
    x = pair_features(net, pairs)
    return net.ops.recurrent(net.likelihood, "recurrent", x, conditions.params, state, exists)[:, :, 0]


def pair_features(net: Network, trials: Trials) -> Array:
    """Numbers (B, r, K, F) that describe realised trials (B, r, K)."""
    schema = net.schema
    variables = {**schema.inputs, **schema.outcomes, **schema.feedback}
    return _joined(net.likelihood, variables, {**trials["inputs"], **trials["outcomes"], **trials["feedback"]})


def input_features(net: Network, inputs: Mapping[str, Array]) -> Array | None:
    """Numbers (B, r, K, G) that describe what is known before the response; None where nothing is."""
    return _joined(net.likelihood, net.schema.inputs, inputs) if net.schema.inputs else None


def _joined(part: Part, variables: Mapping[str, Variable], values: Mapping[str, Array]) -> Array:
    return part.ops.xp.concatenate(features(part, variables, values), -1)
