"""Joint prediction in JAX: one-pass density, rollout, blocks, leave-one-out.

`ppl_buffer/torch/joint.py` says what the shapes are; this file mirrors it function by function. Loops over trials are
scans, so that the compiled program does not grow with their number. Functions that do the work are compiled once for
each network and set of shapes; inside somebody else's jit they are inlined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl_buffer.network.heads import trial_cdf, trial_log_prob, trial_moments, trial_sample
from ppl_buffer.network.jax.cache import Cache, allocate
from ppl_buffer.network.jax.network import (
    EncodedParams,
    PreparedTargets,
    encode,
    extend,
    predict,
    prepare,
    step,
)
from ppl_buffer.network.jax.network import encode_params as _encode_params
from ppl_buffer.network.jax.ops import Array
from ppl_buffer.network.jax.weights import JaxNetwork
from ppl_buffer.network.observed import EncodedContext, LengthGroup, ObservedTrials

Trials = Mapping[str, Mapping[str, Array]]

Environment = Callable[[Any, dict[str, Any], dict[str, Any], Any], Mapping[str, Any]]

# Trials of several data sets that are observed together on a processor with a cache of a megabyte or so a core.
_TOKENS_AT_ONCE = 2048

encode_params = jax.jit(_encode_params, static_argnums=0)

for _holder in (EncodedContext, LengthGroup, ObservedTrials):
    jax.tree_util.register_dataclass(_holder)


@partial(jax.jit, static_argnums=0)
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


def _in_chunks(function: Callable[..., Any], shape: Sequence[int], *arguments: Any) -> Any:
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


@partial(jax.jit, static_argnums=0)
def prepare_joint(net: JaxNetwork, cache: Cache, trials: Trials, valid: Array) -> PreparedTargets:
    """Everything about a joint density that the parameters do not change: target k sees the trials before it."""

    def some(cache: Cache, trials: Trials, valid: Array) -> PreparedTargets:
        full = extend(net, cache, trials, valid)
        visible = cache.size + jnp.arange(valid.shape[-1])
        return prepare(net, full, trials["inputs"], visible, valid.shape, causal_offset=cache.size)

    return _in_chunks(some, valid.shape, cache, trials, valid)


@partial(jax.jit, static_argnums=0)
def prepare_marginal(net: JaxNetwork, cache: Cache, inputs: Mapping[str, Array], valid: Array) -> PreparedTargets:
    """Targets that see what the cache holds and none of each other: the set predictor."""
    visible = jnp.full((valid.shape[-1],), cache.size)
    return prepare(net, cache, inputs, visible, valid.shape)


@partial(jax.jit, static_argnums=0)
def conditionals(
    net: JaxNetwork,
    prepared: PreparedTargets,
    params: EncodedParams,
    outcomes: Mapping[str, Array],
    valid: Array,
    lapse: Array | None,
) -> Array:
    """Log density (B, R, K) of each trial given what it sees (paper, equation 5); 0 where there is no trial."""
    log_probs = trial_log_prob(net, predict(net, prepared, params), outcomes, lapse)
    return jnp.where(valid, log_probs, 0.0)


@partial(jax.jit, static_argnums=0)
def one_step(
    net: JaxNetwork,
    prepared: PreparedTargets,
    params: EncodedParams,
    outcomes: Mapping[str, Array],
    valid: Array,
    lapse: Array | None,
    noise: Array,
) -> Array:
    """`conditionals`, and beside each a draw of the trial's outcomes given what it sees: (B, R, K, 1 + n_outcomes).

    `noise` (B, R, K, schema.noise_size) are uniform numbers.
    """

    def some(*sets: Any) -> Array:
        prepared, params, outcomes, valid, lapse, noise = sets
        representation = predict(net, prepared, params)
        log_probs = jnp.where(valid, trial_log_prob(net, representation, outcomes, lapse), 0.0)
        drawn, _ = trial_sample(net, representation, noise[..., : 2 * len(net.schema.outcomes) + 1], lapse)
        return jnp.stack(jnp.broadcast_arrays(log_probs, *drawn.values()), -1)

    return _in_chunks(some, noise.shape[:-1], prepared, params, outcomes, valid, lapse, noise)


@partial(jax.jit, static_argnums=0)
def cdf(
    net: JaxNetwork,
    prepared: PreparedTargets,
    params: EncodedParams,
    outcomes: Mapping[str, Array],
    uniform: Array,
    lapse: Array | None,
) -> Array:
    """Distribution function (B, R, K, n_outcomes) of each trial's outcomes given what the trial sees."""
    return trial_cdf(net, predict(net, prepared, params), outcomes, uniform, lapse)


@partial(jax.jit, static_argnums=0)
def moments(
    net: JaxNetwork, prepared: PreparedTargets, params: EncodedParams, lapse: Array | None
) -> tuple[Array, Array]:
    """Mean and variance (B, R, K, n_outcomes) of each trial's outcomes given what the trial sees."""
    return trial_moments(net, predict(net, prepared, params), lapse)


def _trial(values: Mapping[str, Array], start: Any, count: int) -> dict[str, Array]:
    return {name: jax.lax.dynamic_slice_in_dim(value, start, count, axis=-1) for name, value in values.items()}


@partial(jax.jit, static_argnames=("net", "environment", "independent"))
def rollout(
    net: JaxNetwork,
    cache: Cache,
    inputs: Mapping[str, Array],
    valid: Array,
    params: EncodedParams,
    noise: Array,
    lapse: Array | None,
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
        lapse: (B, R or 1, 1), or None.
        environment: gives the feedback on a drawn outcome.
        independent: trials do not depend on each other: no buffer, one pass.

    Returns:
        outcomes and feedback, each dict name -> (B, R, K), and the log densities (B, R, K) they were drawn from.
    """
    shape = noise.shape[:3]
    schema = net.schema
    split = 2 * len(schema.outcomes) + 1
    valid = jnp.broadcast_to(valid, shape)
    inputs = {name: jnp.broadcast_to(value, shape) for name, value in inputs.items()}
    if independent:
        representation = predict(net, prepare_marginal(net, cache, inputs, valid), params)
        outcomes, log_probs = trial_sample(net, representation, noise[..., :split], lapse)
        feedback = respond(net, environment, 0, inputs, outcomes, noise[..., split:])
        return outcomes, feedback, jnp.where(valid, log_probs, 0.0)
    start = cache.size
    # One trial enters the buffer while the next one is predicted. Nothing enters before the first: an empty place.
    entering = jnp.pad(valid, ((0, 0), (0, 0), (1, 0)))

    def one(state: Any, k: Array) -> tuple[Any, Any]:
        realised, last = state
        here = _trial(inputs, k, 1)
        uniform = jax.lax.dynamic_slice_in_dim(noise, k, 1, axis=2)
        exists = jax.lax.dynamic_slice_in_dim(entering, k, 1, axis=-1)
        # The context stays out of the carry: the loop reads it and never copies it.
        representation, cache = step(net, Cache(context, *realised), last, exists, here, params, start + k)
        drawn, log_prob = trial_sample(net, representation, uniform[..., :split], lapse)
        learned = respond(net, environment, k, here, drawn, uniform[..., split:])
        last = {"inputs": here, "outcomes": drawn, "feedback": learned}
        return ((cache.buffer, cache.valid), last), jax.tree.map(lambda x: x[..., 0], (drawn, learned, log_prob))

    room = allocate(net, cache, shape)
    context = room.context
    nobody = _unrealised(net, _trial(inputs, 0, 1), (*shape[:2], 1))
    _, steps = jax.lax.scan(one, ((room.buffer, room.valid), nobody), jnp.arange(shape[2]))
    outcomes, feedback, log_probs = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), steps)
    return outcomes, feedback, jnp.where(valid, log_probs, 0.0)


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


def respond(
    net: JaxNetwork,
    environment: Environment | None,
    trial: Any,
    inputs: dict[str, Array],
    outcomes: dict[str, Array],
    uniform: Array,
) -> dict[str, Array]:
    """Feedback on a trial's outcomes; empty where there is none to give."""
    if environment is None or not net.schema.feedback:
        return {}
    given = environment(trial, inputs, outcomes, uniform)
    return {name: jnp.asarray(given[name]).astype(net.dtype) for name in net.schema.feedback}


def join_trials(first: Trials | None, second: Trials) -> Trials:
    """Trials of `first`, then of `second`; their replicas are brought to the same number."""
    if first is None:
        return second
    return jax.tree.map(join_arrays, {group: dict(first[group]) for group in second}, dict(second))


def join_arrays(first: Array, second: Array) -> Array:
    """Concatenate (B, r, N) and (B, R, K) along the trials."""
    replicas = max(first.shape[1], second.shape[1])
    parts = [jnp.broadcast_to(part, (part.shape[0], replicas, part.shape[2])) for part in (first, second)]
    return jnp.concatenate(parts, -1)


def _pad_to_blocks(values: Any, block: int) -> Any:
    """Fill up the last block by repeating the last trial; its mask says that it does not exist."""

    def pad(x: Array) -> Array:
        missing = -x.shape[2] % block
        return jnp.pad(x, ((0, 0), (0, 0), (0, missing), *((0, 0),) * (x.ndim - 3)), mode="edge")

    return jax.tree.map(pad, values)


def _merged(
    net: JaxNetwork, context: Trials | None, context_valid: Array | None, merged: Trials, merged_valid: Array
) -> Cache:
    # Trials that do not exist, or not yet, are masked: one shape serves every block.
    if context is None or context_valid is None:
        return start_cache(net, merged, merged_valid)
    return start_cache(net, join_trials(context, merged), join_arrays(context_valid, merged_valid))


@partial(jax.jit, static_argnames=("net", "block"))
def block_conditionals(
    net: JaxNetwork,
    context: Trials | None,
    context_valid: Array | None,
    trials: Trials,
    valid: Array,
    params: EncodedParams,
    lapse: Array | None,
    block: int,
) -> Array:
    """`conditionals`, with every full block of `block` trials merged into the context and encoded anew.

    With `block` = 1 this is the exact autoregression that re-encodes everything at each step (paper, equation 2).
    """
    count = valid.shape[-1]
    trials = _pad_to_blocks(trials, block)
    index = jnp.arange(count + -count % block)
    exists = _pad_to_blocks(valid, block) & (index < count)

    def one(start: Array) -> Array:
        cache = _merged(net, context, context_valid, trials, exists & (index < start))
        here = {group: _trial(values, start, block) for group, values in trials.items()}
        valid_here = jax.lax.dynamic_slice_in_dim(exists, start, block, axis=-1)
        return conditionals(
            net, prepare_joint(net, cache, here, valid_here), params, here["outcomes"], valid_here, lapse
        )

    blocks = jax.lax.map(one, jnp.arange(0, index.size, block))
    return jnp.moveaxis(blocks, 0, -2).reshape(*blocks.shape[1:-1], -1)[..., :count]


@partial(jax.jit, static_argnames=("net", "environment", "block"))
def block_rollout(
    net: JaxNetwork,
    context: Trials | None,
    context_valid: Array | None,
    inputs: Mapping[str, Array],
    valid: Array,
    params: EncodedParams,
    noise: Array,
    lapse: Array | None,
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
    done: Any = _unrealised(net, inputs, noise.shape[:3])

    def step(done: Any, start: Array) -> tuple[Any, Array]:
        cache = _merged(net, context, context_valid, done, exists & (index < start))
        here = _trial(inputs, start, block)
        valid_here = jax.lax.dynamic_slice_in_dim(exists, start, block, axis=-1)
        noise_here = jax.lax.dynamic_slice_in_dim(noise, start, block, axis=2)
        outcomes, feedback, log_prob = rollout(
            net, cache, here, valid_here, params, noise_here, lapse, environment, False
        )
        drawn = {"outcomes": outcomes, "feedback": feedback}
        new = {
            group: {
                name: jax.lax.dynamic_update_slice_in_dim(done[group][name], value, start, 2)
                for name, value in values.items()
            }
            for group, values in drawn.items()
        }
        return {"inputs": inputs, **new}, log_prob

    done, log_probs = jax.lax.scan(step, done, jnp.arange(0, index.size, block))
    log_probs = jnp.moveaxis(log_probs, 0, -2).reshape(*noise.shape[:3])
    outcomes, feedback = (
        {name: value[..., :count] for name, value in done[group].items()} for group in ("outcomes", "feedback")
    )
    return outcomes, feedback, log_probs[..., :count]


@partial(jax.jit, static_argnums=0)
def leave_one_out(
    net: JaxNetwork,
    context: Trials | None,
    context_valid: Array | None,
    trials: Trials,
    valid: Array,
    params: EncodedParams,
    lapse: Array | None,
) -> Array:
    """Log density (B, R, K) of each trial given the context and all other trials, as a set; 0 where there is none."""
    index = jnp.arange(valid.shape[-1])

    def one(k: Array) -> Array:
        cache = _merged(net, context, context_valid, trials, valid & (index != k))
        here = {group: _trial(values, k, 1) for group, values in trials.items()}
        valid_here = jax.lax.dynamic_slice_in_dim(valid, k, 1, axis=-1)
        prepared = prepare_marginal(net, cache, here["inputs"], valid_here)
        return conditionals(net, prepared, params, here["outcomes"], valid_here, lapse)[..., 0]

    return jnp.moveaxis(jax.lax.map(one, index), 0, -1)
