"""Lossless speculative rollout in JAX: draws with exactly the rollout's distribution, many trials in one pass.

`ppl_buffer.network.torch.speculative` says how and proves it. The loop over sweeps is one `while_loop`, whose sweeps
take the same number of trials each: one compilation serves every draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import random

from ppl_buffer.network.backend import Environment, Own
from ppl_buffer.network.heads import trial_log_prob, trial_sample
from ppl_buffer.network.jax.cache import Cache, allocate
from ppl_buffer.network.jax.execution import compiled
from ppl_buffer.network.jax.joint import prepare_marginal
from ppl_buffer.network.jax.network import EncodedParams, predict, step
from ppl_buffer.network.jax.ops import Array, part
from ppl_buffer.network.jax.weights import JaxNetwork
from ppl_buffer.network.lapse_mixture import LapseMixture
from ppl_buffer.network.trials import respond, split_noise
from ppl_buffer.schema import Discrete

# Proposals at once for a trial that is redrawn, and the most of them. All n are refused with probability
# d (1 - d)^n < 1 / (e n), d being the chance that the trial is redrawn: less than densities are rounded by.
_PROPOSALS = 64
_MOST_PROPOSALS = 2**17
# Values of a single outcome up to which a table of all of them is cheaper than proposals.
_MOST_VALUES = 256
# Trials that are given proposals at once, or a sixteenth of all.
_ROWS = 8

# Outcomes, dict name -> (B, R, T), and their log densities (B, R, T).
Draws = tuple[dict[str, Array], Array]


@jax.tree_util.register_dataclass
@dataclass
class Drafts:
    """Trials that are drawn, if not yet for good.

    Attributes:
        target: (B, R, K, W), representation of the density q that each was drawn from.
        outcomes: dict name -> (B, R, K).
        feedback: dict name -> (B, R, K), the environment's on these outcomes.
        log_probs: (B, R, K), log q of the outcomes.
        kept: (B, R, K) bool, whether the last test kept the draft.
    """

    target: Array
    outcomes: dict[str, Array]
    feedback: dict[str, Array]
    log_probs: Array
    kept: Array


@compiled("environment", "lookahead")
def speculative_rollout(
    net: JaxNetwork,
    cache: Cache,
    inputs: Mapping[str, Array],
    valid: Array,
    params: EncodedParams,
    noise: Array,
    lapse: LapseMixture | None,
    environment: Environment | None,
    source: Array,
    lookahead: int | None,
) -> tuple[dict[str, Array], dict[str, Array], Array, Array, Array]:
    """Draw all trials with the distribution of `ppl_buffer.network.jax.joint.rollout`, in fewer passes.

    Args:
        net: the network.
        cache: what was encoded and realised before.
        inputs: dict name -> (B, r, K).
        valid: (B, r, K), which trials exist.
        params: from `encode_params`.
        noise: uniform numbers (B, R, K, schema.noise_size), for the first drafts and for the environment.
        lapse: its rate (B, R or 1, 1); or None.
        environment: gives the feedback on a drawn outcome.
        source: key of the random numbers that test drafts and redraw them.
        lookahead: how many trials a sweep takes; None = trials do not depend on each other, first drafts are final.

    Returns:
        outcomes and feedback, each dict name -> (B, R, K); the log densities (B, R, K) they were drawn from; whether
        the draft (B, R, K) stayed in the test that made its trial final; the sweep (B, R, K) of that test, 0 = none.
    """
    shape = noise.shape[:3]
    count = shape[2]
    noise, chance = split_noise(net, noise)
    target = predict(net, prepare_marginal(net, cache, inputs, valid), params)
    target = jnp.broadcast_to(target, (*shape, target.shape[-1]))
    valid = jnp.broadcast_to(valid, shape)
    inputs = {name: jnp.broadcast_to(value, shape) for name, value in inputs.items()}
    outcomes, log_probs = trial_sample(net, target, noise, lapse)
    feedback = _respond(net, environment, 0, inputs, outcomes, chance)
    drafts = Drafts(target, outcomes, feedback, log_probs, jnp.ones(shape, bool))
    # How many trials are final. Nothing comes before the first: its marginal is its conditional.
    done = jnp.full(shape[:2], count if lookahead is None else 1)
    settled = jnp.zeros(shape, done.dtype)
    trial = jnp.arange(count)
    begun = cache.size

    def sweep(state: Own) -> Own:
        realised, drafts, done, settled, turn = state
        # All sweeps are of one size: the last may begin among trials that are final.
        first = jnp.minimum(done.min(), count - size)
        # The last final trial may have been redrawn: it enters the buffer anew, and those after it as their drafts.
        pairs = {"inputs": inputs, "outcomes": drafts.outcomes, "feedback": drafts.feedback}
        pairs, exists = part((pairs, valid), first - 1, size)
        shown, index = part(inputs, first, size), first + jnp.arange(size)
        # The context stays out of the carry: the loop reads it and never copies it.
        filled = Cache(allocated.context, *realised)
        target, filled = step(net, filled, pairs, exists, shown, params, begun + first - 1)
        tested = (index >= done[..., None]) & part(valid, first, size)
        swept = _update(net, part(drafts, first, size), target, tested, lapse, random.fold_in(source, turn))
        feedback = _respond(net, environment, first, shown, swept.outcomes, part(chance, first, size))
        drafts = _replace(drafts, replace(swept, feedback=feedback), first)
        final = jnp.maximum(done, jnp.where(tested & ~swept.kept, index + 1, first + size).min(-1))
        turn = turn + 1
        settled = jnp.where((trial >= done[..., None]) & (trial < final[..., None]), turn, settled)
        return (filled.buffer, filled.valid), drafts, final, settled, turn

    if lookahead is not None and count > 1:
        size = min(lookahead, count - 1)
        allocated = allocate(net, cache, (*shape[:2], count - 1))
        state = ((allocated.buffer, allocated.valid), drafts, done, settled, 0)
        _, drafts, _, settled, _ = jax.lax.while_loop(lambda state: state[2].min() < count, sweep, state)
    log_probs = jnp.where(valid, drafts.log_probs, 0.0)
    return drafts.outcomes, drafts.feedback, log_probs, drafts.kept, jnp.where(valid, settled, 0)


def _replace(drafts: Drafts, swept: Drafts, start: Array) -> Drafts:
    """`drafts` with those from `start` on replaced by what a sweep made of them."""
    return jax.tree.map(lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=2), drafts, swept)


def _respond(
    net: JaxNetwork,
    environment: Environment | None,
    first: int | Array,
    inputs: dict[str, Array],
    outcomes: dict[str, Array],
    uniform: Array,
) -> dict[str, Array]:
    """Feedback (B, R, T) on the outcomes of the trials from `first` on, each asked for as the rollout would."""
    if environment is None or not net.schema.feedback:
        return {}

    def answer(step: Own) -> dict[str, Array]:
        trial, inputs, outcomes, uniform = step
        inputs, outcomes = jax.tree.map(lambda x: x[..., None], (inputs, outcomes))
        given, _ = respond(net, environment, trial, inputs, outcomes, uniform[:, :, None])
        return {name: value[..., 0] for name, value in given.items()}

    trials = first + jnp.arange(uniform.shape[2])
    steps = jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0), (inputs, outcomes, uniform))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), jax.lax.map(answer, (trials, *steps)))


def _update(
    net: JaxNetwork, drafts: Drafts, target: Array, tested: Array, lapse: LapseMixture | None, source: Array
) -> Drafts:
    """Turn draws from q into draws from the densities p of `target` (B, R, T, W), where they are `tested` (B, R, T)."""
    test, redrawing = random.split(source)
    log_probs = trial_log_prob(net, target, drafts.outcomes, lapse)
    kept = _uniform(net, tested.shape, test) < jnp.exp(log_probs - drafts.log_probs)
    variables = list(net.schema.outcomes.values())
    few = len(variables) == 1 and isinstance(variables[0], Discrete) and variables[0].n <= _MOST_VALUES
    draw_again = _redraw_value if few else _redraw
    log_probs = jnp.where(tested, log_probs, drafts.log_probs)
    draws = (drafts.outcomes, log_probs)
    outcomes, log_probs = draw_again(net, draws, target, drafts.target, tested & ~kept, lapse, redrawing)
    return Drafts(
        jnp.where(tested[..., None], target, drafts.target),
        outcomes,
        drafts.feedback,
        log_probs,
        jnp.where(tested, kept, drafts.kept),
    )


def _uniform(net: JaxNetwork, shape: Sequence[int], source: Array) -> Array:
    # The normal quantile of 0 is infinite.
    return random.uniform(source, tuple(shape), net.dtype, minval=float(jnp.finfo(net.dtype).tiny))


def _redraw_value(
    net: JaxNetwork,
    draws: Draws,
    target: Array,
    drafted: Array,
    resampled: Array,
    lapse: LapseMixture | None,
    source: Array,
) -> Draws:
    """`_redraw` for a single outcome of few values: from the table of max(p - q, 0)."""
    ((name, variable),) = net.schema.outcomes.items()
    assert isinstance(variable, Discrete)
    values = jnp.arange(variable.low, variable.low + variable.n, dtype=net.dtype)
    lapse = None if lapse is None else lapse.map(lambda rate: rate[..., None])
    log_p, log_q = (trial_log_prob(net, x[..., None, :], {name: values}, lapse) for x in (target, drafted))
    surplus = jnp.maximum(jnp.exp(log_p) - jnp.exp(log_q), 0)
    # Rounding may leave nothing where p and q are alike.
    surplus = jnp.where(surplus.sum(-1, keepdims=True) > 0, surplus, jnp.exp(log_p))
    below = jnp.cumsum(surplus, -1)
    place = _uniform(net, resampled.shape, source)[..., None] * below[..., -1:]
    index = (place >= below[..., :-1]).sum(-1, keepdims=True)
    value = variable.low + index[..., 0].astype(net.dtype)
    redrawn = {name: value}, jnp.take_along_axis(log_p, index, -1)[..., 0]
    return jax.tree.map(lambda new, old: jnp.where(resampled, new, old), redrawn, draws)


def _redraw(
    net: JaxNetwork,
    draws: Draws,
    target: Array,
    drafted: Array,
    resampled: Array,
    lapse: LapseMixture | None,
    source: Array,
) -> Draws:
    """Redraw outcomes from the normalised positive part of p - q: propose from p, take with probability 1 - q / p."""
    shape, count = resampled.shape, resampled.size
    p, q = (x.reshape(count, 1, x.shape[-1]) for x in (target, drafted))
    if lapse is not None:
        lapse = lapse.map(lambda rate: jnp.broadcast_to(rate, shape).reshape(count, 1))
    # Few trials wait for their outcomes: a turn takes some of them, wherever they are.
    rows = min(count, max(_ROWS, count // 16))

    def propose(state: Own) -> Own:
        draws, left, turn = state
        places = jnp.nonzero(left, size=rows, fill_value=count)[0]
        index = jnp.minimum(places, count - 1)
        noise = _uniform(net, (rows, _PROPOSALS, 2 * len(net.schema.outcomes) + 2), random.fold_in(source, turn))
        lapsed = None if lapse is None else lapse.map(lambda rate: rate[index])
        proposed, log_p = trial_sample(net, p[index], noise[..., :-1], lapsed)
        log_q = trial_log_prob(net, q[index], proposed, lapsed)
        taken = noise[..., -1] < 1 - jnp.exp(log_q - log_p)
        which = jnp.argmax(taken, -1, keepdims=True)
        accepted = jax.tree.map(lambda x: jnp.take_along_axis(x, which, -1)[:, 0], (proposed, log_p))
        draws = jax.tree.map(lambda old, new: old.at[places].set(new, mode="drop"), draws, accepted)
        still = jnp.where(taken.any(-1), 0, left[index] - _PROPOSALS)
        return draws, left.at[places].set(still, mode="drop"), turn + 1

    draws = jax.tree.map(lambda x: x.reshape(count), draws)
    left = jnp.where(resampled, _MOST_PROPOSALS, 0).reshape(count)
    draws, _, _ = jax.lax.while_loop(lambda state: state[1].any(), propose, (draws, left, 0))
    return jax.tree.map(lambda x: x.reshape(shape), draws)
