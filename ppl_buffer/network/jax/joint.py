"""Joint prediction in JAX: one-pass density, rollout, blocks, leave-one-out.

All arrays are (B, R, K): B data sets, R replicas of each, K trials; an array that replicas share has R = 1. Trials
are dicts ``{"inputs": ..., "outcomes": ..., "feedback": ...}`` of dicts name -> (B, R, K). Loops over trials are scans,
so that the compiled program does not grow with their number. Functions that do the work are compiled once for each
network and set of shapes; inside somebody else's jit they are inlined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ppl_buffer.network.backend import Environment, Own, Trials
from ppl_buffer.network.groups import EndToEnd, LengthGroup
from ppl_buffer.network.heads import trial_cdf, trial_log_prob, trial_moments, trial_sample
from ppl_buffer.network.jax import ops
from ppl_buffer.network.jax.cache import Cache, allocate
from ppl_buffer.network.jax.execution import compiled
from ppl_buffer.network.jax.network import EncodedParams, PreparedTargets, encode, extend, predict, prepare, step
from ppl_buffer.network.jax.network import encode_params as _encode_params
from ppl_buffer.network.jax.ops import Array, part
from ppl_buffer.network.jax.weights import JaxNetwork
from ppl_buffer.network.lapse_mixture import LapseMixture
from ppl_buffer.network.likelihood import Conditions, PreparedSequence, read_sequence, spread, targets_of
from ppl_buffer.network.observed import EncodedContext, ObservedTrials
from ppl_buffer.network.parts import Part
from ppl_buffer.network.trials import initial_state, join_arrays, join_trials, respond, split_noise

Tree = TypeVar("Tree")

# Trials of several data sets that are observed together on a processor with a cache of a megabyte or so a core.
_TOKENS_AT_ONCE = 2048

encode_params = compiled()(_encode_params)

for _holder in (EncodedContext, LengthGroup, EndToEnd, ObservedTrials):
    jax.tree_util.register_dataclass(_holder)
jax.tree_util.register_dataclass(LapseMixture, data_fields=["rate"], meta_fields=["ranges"])


@compiled()
def start_cache(
    net: JaxNetwork,
    context: Trials | None,
    context_valid: Array | None,
    history: Trials | None = None,
    history_valid: Array | None = None,
) -> Cache:
    """Encode a context, of which `context_valid` exist (None = all), and let a history enter the buffer."""
    cache = Cache() if context is None else encode(net, context, context_valid)
    if history is not None and history_valid is not None:
        cache = extend(net, cache, history, history_valid)
    return cache


@compiled()
def prepare_joint(net: JaxNetwork, cache: Cache, trials: Trials, valid: Array) -> PreparedTargets:
    """Everything about a joint density that the parameters do not change: target k sees the trials before it."""

    def some(cache: Cache, trials: Trials, valid: Array) -> PreparedTargets:
        full = extend(net, cache, trials, valid)
        visible = cache.size + jnp.arange(valid.shape[-1])
        return prepare(net, full, trials["inputs"], visible, valid.shape, causal_offset=cache.size)

    return _in_chunks(some, valid.shape, cache, trials, valid)


@compiled()
def prepare_marginal(net: JaxNetwork, cache: Cache, inputs: Mapping[str, Array], valid: Array) -> PreparedTargets:
    """Targets that see what the cache holds and none of each other: the set predictor."""
    return prepare(net, cache, inputs, None, valid.shape)


def represent_targets(
    net: JaxNetwork, prepared: PreparedTargets | PreparedSequence, params: EncodedParams | Conditions
) -> tuple[Part, Array, Array | None]:
    """The part of the network that prepared the trials, what it says of their targets, and which of them each trial is.

    Returns:
        part, representation (B, R, T, W) for its heads, and index (B, r, K); None where T is K, or 1 for all trials.
    """
    if isinstance(prepared, PreparedSequence):
        assert isinstance(params, Conditions)
        if prepared.index is not None:
            prepared = targets_of(net, prepared, params)
        return net.likelihood, read_sequence(net, prepared, params), prepared.index
    assert isinstance(params, EncodedParams)
    return net, predict(net, prepared, params), prepared.index


def represent(
    net: JaxNetwork,
    prepared: PreparedTargets | PreparedSequence,
    params: EncodedParams | Conditions,
    each: bool = True,
) -> tuple[Part, Array]:
    """The part of the network that prepared the trials, and their representation (B, R, K, W) for its heads.

    Unless `each` trial needs its own, it is (B, R, 1, W) where trials do not differ.
    """
    reader, representation, index = represent_targets(net, prepared, params)
    if index is not None and (each or representation.shape[2] > 1):
        return reader, ops.take_rows(representation, index)
    if each and isinstance(prepared, PreparedSequence):
        return reader, spread(net, representation, prepared.valid.shape)
    return reader, representation


@compiled()
def conditionals(
    net: JaxNetwork,
    prepared: PreparedTargets | PreparedSequence,
    params: EncodedParams | Conditions,
    outcomes: Mapping[str, Array],
    valid: Array,
    lapse: LapseMixture | None,
) -> Array:
    """Log density (B, R, K) of each trial given what it sees (paper, equation 5); 0 where there is no trial."""
    reader, representation, index = represent_targets(net, prepared, params)
    log_probs = trial_log_prob(reader, representation, outcomes, lapse, index)
    return jnp.where(valid, log_probs, 0.0)


@compiled()
def representations(
    net: JaxNetwork, prepared: PreparedTargets | PreparedSequence, params: EncodedParams | Conditions
) -> Array:
    """What the heads read of each trial: (B, R, K, W)."""
    return represent(net, prepared, params)[1]


@compiled()
def one_step(
    net: JaxNetwork,
    prepared: PreparedTargets | PreparedSequence,
    params: EncodedParams | Conditions,
    outcomes: Mapping[str, Array],
    valid: Array,
    lapse: LapseMixture | None,
    noise: Array,
) -> Array:
    """`conditionals`, and beside each a draw of the trial's outcomes given what it sees: (B, R, K, 1 + n_outcomes).

    `noise` (B, R, K, schema.noise_size) are uniform numbers.
    """

    def some(
        prepared: PreparedTargets | PreparedSequence,
        params: EncodedParams | Conditions,
        outcomes: Mapping[str, Array],
        valid: Array,
        lapse: LapseMixture | None,
        noise: Array,
    ) -> Array:
        reader, representation = represent(net, prepared, params)
        log_probs = jnp.where(valid, trial_log_prob(reader, representation, outcomes, lapse), 0.0)
        outcomes, _ = trial_sample(reader, representation, split_noise(net, noise)[0], lapse)
        return jnp.stack(jnp.broadcast_arrays(log_probs, *outcomes.values()), -1)

    return _in_chunks(some, noise.shape[:-1], prepared, params, outcomes, valid, lapse, noise)


@compiled()
def cdf(
    net: JaxNetwork,
    prepared: PreparedTargets | PreparedSequence,
    params: EncodedParams | Conditions,
    outcomes: Mapping[str, Array],
    uniform: Array,
    lapse: LapseMixture | None,
) -> Array:
    """Distribution function (B, R, K, n_outcomes) of each trial's outcomes given what the trial sees."""
    return trial_cdf(*represent(net, prepared, params), outcomes, uniform, lapse)


@compiled()
def moments(
    net: JaxNetwork,
    prepared: PreparedTargets | PreparedSequence,
    params: EncodedParams | Conditions,
    lapse: LapseMixture | None,
) -> tuple[Array, Array]:
    """Mean and variance (B, R, K, n_outcomes) of each trial's outcomes given what the trial sees."""
    return trial_moments(*represent(net, prepared, params), lapse)


@compiled("environment", "independent")
def rollout(
    net: JaxNetwork,
    cache: Cache,
    inputs: Mapping[str, Array],
    valid: Array,
    params: EncodedParams,
    noise: Array,
    lapse: LapseMixture | None,
    environment: Environment | None,
    independent: bool,
) -> tuple[dict[str, Array], dict[str, Array], Array]:
    """Draw the trials one after another, each realised outcome entering the buffer (paper, equation 3).

    Args:
        net: the network.
        cache: what was encoded and realised before.
        inputs: dict name -> (B, r, K).
        valid: (B, r, K), which trials exist.
        params: from `encode_params`.
        noise: uniform numbers (B, R, K, schema.noise_size).
        lapse: its rate (B, R or 1, 1); or None.
        environment: gives the feedback on a drawn outcome.
        independent: trials do not depend on each other: no buffer, one pass.

    Returns:
        outcomes and feedback, each dict name -> (B, R, K), and the log densities (B, R, K) they were drawn from.
    """
    shape = noise.shape[:3]
    noise, chance = split_noise(net, noise)
    valid = jnp.broadcast_to(valid, shape)
    inputs = {name: jnp.broadcast_to(value, shape) for name, value in inputs.items()}
    if independent:
        representation = predict(net, prepare_marginal(net, cache, inputs, valid), params)
        outcomes, log_probs = trial_sample(net, representation, noise, lapse)
        feedback, _ = respond(net, environment, 0, inputs, outcomes, chance)
        return outcomes, feedback, jnp.where(valid, log_probs, 0.0)
    start = cache.size
    # One trial enters the buffer while the next one is predicted. Nothing enters before the first: an empty place.
    entering = jnp.pad(valid, ((0, 0), (0, 0), (1, 0)))

    def draw(state: Own, k: Array) -> tuple[Own, Own]:
        realised, pairs, remembered = state
        shown, exists = part(inputs, k, 1), part(entering, k, 1)
        # The context stays out of the carry: the loop reads it and never copies it.
        filled = Cache(allocated.context, *realised)
        representation, filled = step(net, filled, pairs, exists, shown, params, start + k)
        outcomes, log_prob = trial_sample(net, representation, part(noise, k, 1), lapse)
        chances, exists = part((chance, valid), k, 1)
        feedback, remembered = respond(net, environment, k, shown, outcomes, chances, remembered, exists)
        pairs = {"inputs": shown, "outcomes": outcomes, "feedback": feedback}
        trial = jax.tree.map(lambda x: x[..., 0], (outcomes, feedback, log_prob))
        return ((filled.buffer, filled.valid), pairs, remembered), trial

    allocated = allocate(net, cache, shape)
    nobody = _unrealised(net, part(inputs, 0, 1), (*shape[:2], 1))
    first = ((allocated.buffer, allocated.valid), nobody, initial_state(net, environment, shape))
    _, steps = jax.lax.scan(draw, first, jnp.arange(shape[2]))
    outcomes, feedback, log_probs = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), steps)
    return outcomes, feedback, jnp.where(valid, log_probs, 0.0)


@compiled("block")
def block_conditionals(
    net: JaxNetwork,
    context: Trials | None,
    context_valid: Array | None,
    trials: Trials,
    valid: Array,
    params: EncodedParams,
    lapse: LapseMixture | None,
    block: int,
) -> Array:
    """`conditionals`, with every full block of `block` trials merged into the context and encoded anew.

    With `block` = 1 this is the exact autoregression that re-encodes everything at each step (paper, equation 2).
    """
    count = valid.shape[-1]
    trials = _pad_to_blocks(trials, block)
    index = jnp.arange(count + -count % block)
    exists = _pad_to_blocks(valid, block) & (index < count)

    def score(start: Array) -> Array:
        cache = _merged(net, context, context_valid, trials, exists & (index < start))
        scored, valid = part(trials, start, block), part(exists, start, block)
        prepared = prepare_joint(net, cache, scored, valid)
        return conditionals(net, prepared, params, scored["outcomes"], valid, lapse)

    blocks = jax.lax.map(score, jnp.arange(0, index.size, block))
    return jnp.moveaxis(blocks, 0, -2).reshape(*blocks.shape[1:-1], -1)[..., :count]


@compiled("environment", "block")
def block_rollout(
    net: JaxNetwork,
    context: Trials | None,
    context_valid: Array | None,
    inputs: Mapping[str, Array],
    valid: Array,
    params: EncodedParams,
    noise: Array,
    lapse: LapseMixture | None,
    environment: Environment | None,
    block: int,
) -> tuple[dict[str, Array], dict[str, Array], Array]:
    """`rollout`, with every full block of `block` drawn trials merged into the context and encoded anew."""
    count = noise.shape[2]
    shape = noise.shape[:3]
    noise = _pad_to_blocks(noise, block)
    inputs = _pad_to_blocks({name: jnp.broadcast_to(value, shape) for name, value in inputs.items()}, block)
    index = jnp.arange(noise.shape[2])
    exists = _pad_to_blocks(jnp.broadcast_to(valid, shape), block) & (index < count)
    done = _unrealised(net, inputs, noise.shape[:3])

    def draw(done: Own, start: Array) -> tuple[Own, Array]:
        cache = _merged(net, context, context_valid, done, exists & (index < start))
        shown, valid, uniform = part((inputs, exists, noise), start, block)
        outcomes, feedback, log_prob = rollout(net, cache, shown, valid, params, uniform, lapse, environment, False)
        new = {"outcomes": outcomes, "feedback": feedback}
        written = jax.tree.map(
            lambda old, block: jax.lax.dynamic_update_slice_in_dim(old, block, start, 2),
            {group: {name: done[group][name] for name in values} for group, values in new.items()},
            new,
        )
        return {"inputs": inputs, **written}, log_prob

    done, log_probs = jax.lax.scan(draw, done, jnp.arange(0, index.size, block))
    log_probs = jnp.moveaxis(log_probs, 0, -2).reshape(*noise.shape[:3])
    outcomes, feedback = (
        {name: value[..., :count] for name, value in done[group].items()} for group in ("outcomes", "feedback")
    )
    return outcomes, feedback, log_probs[..., :count]


@compiled()
def leave_one_out(
    net: JaxNetwork,
    context: Trials | None,
    context_valid: Array | None,
    trials: Trials,
    valid: Array,
    params: EncodedParams,
    lapse: LapseMixture | None,
) -> Array:
    """Log density (B, R, K) of each trial given the context and all other trials, as a set; 0 where there is none."""
    index = jnp.arange(valid.shape[-1])

    def score(k: Array) -> Array:
        cache = _merged(net, context, context_valid, trials, valid & (index != k))
        scored, exists = part(trials, k, 1), part(valid, k, 1)
        prepared = prepare_marginal(net, cache, scored["inputs"], exists)
        return conditionals(net, prepared, params, scored["outcomes"], exists, lapse)[..., 0]

    return jnp.moveaxis(jax.lax.map(score, index), 0, -1)


def _merged(
    net: JaxNetwork, context: Trials | None, context_valid: Array | None, merged: Trials, merged_valid: Array
) -> Cache:
    """A cache of the context and trials that are merged into it; those that are not, or not yet, are masked."""
    if context is None or context_valid is None:
        return start_cache(net, merged, merged_valid)
    joined = join_trials(net.ops, context, merged)
    return start_cache(net, joined, join_arrays(net.ops, context_valid, merged_valid))


def _unrealised(net: JaxNetwork, inputs: Mapping[str, Array], shape: Sequence[int]) -> dict[str, dict[str, Array]]:
    """Trials (B, R, K) that are still to be drawn: they hold any legal value, behind a mask."""
    legal = {"outcomes": net.schema.outcomes, "feedback": net.schema.feedback}
    return {
        "inputs": dict(inputs),
        **{
            group: {name: jnp.full(shape, variable.fill, net.dtype) for name, variable in variables.items()}
            for group, variables in legal.items()
        },
    }


def _pad_to_blocks(values: Tree, block: int) -> Tree:
    """Fill up the last block by repeating the last trial; its mask says that it does not exist."""

    def pad(x: Array) -> Array:
        missing = -x.shape[2] % block
        return jnp.pad(x, ((0, 0), (0, 0), (0, missing), *((0, 0),) * (x.ndim - 3)), mode="edge")

    return jax.tree.map(pad, values)


def _in_chunks(function: Callable[..., Tree], shape: Sequence[int], *arguments: Own) -> Tree:
    """`function` of some data sets at a time, so that what it computes in between stays in the processor's cache.

    `shape` is that of the trials, data sets first, as in every array of the arguments.
    """
    sets, tokens = shape[0], int(np.prod(shape))
    if jax.default_backend() != "cpu" or sets == 1 or tokens < 2 * _TOKENS_AT_ONCE:
        return function(*arguments)
    chunks = min(sets, -(-tokens // _TOKENS_AT_ONCE))
    size = -(-sets // chunks)
    chunks = -(-sets // size)

    def split(x: Array) -> Array:
        # The last chunk is filled up with copies of the last data set.
        x = jnp.broadcast_to(x, (sets, *x.shape[1:]))
        x = jnp.pad(x, ((0, chunks * size - sets), *((0, 0),) * (x.ndim - 1)), mode="edge")
        return x.reshape(chunks, size, *x.shape[1:])

    out = jax.lax.map(lambda chunk: function(*chunk), jax.tree.map(split, arguments))
    return jax.tree.map(lambda x: x.reshape(chunks * size, *x.shape[2:])[:sets], out)
