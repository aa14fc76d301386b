"""The direct likelihood in JAX: what `ppl_buffer.network.likelihood` computes, compiled, and the rollout, a scan."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from ppl_buffer.network import likelihood
from ppl_buffer.network.backend import Environment, Own, Trials
from ppl_buffer.network.heads import trial_sample
from ppl_buffer.network.jax.execution import compiled
from ppl_buffer.network.jax.ops import Array, part
from ppl_buffer.network.jax.weights import JaxNetwork
from ppl_buffer.network.lapse_mixture import LapseMixture
from ppl_buffer.network.likelihood import Conditions, PreparedSequence
from ppl_buffer.network.trials import initial_state, respond, split_noise

for _holder in (PreparedSequence, Conditions):
    jax.tree_util.register_dataclass(_holder)


@compiled()
def prepare_sequence(net: JaxNetwork, trials: Trials, valid: Array) -> PreparedSequence:
    """See `ppl_buffer.network.likelihood.prepare_sequence`."""
    return likelihood.prepare_sequence(net, trials, valid)


@compiled()
def prepare_alone(
    net: JaxNetwork, inputs: Mapping[str, Array], valid: Array, index: Array | None = None
) -> PreparedSequence:
    """See `ppl_buffer.network.likelihood.prepare_alone`."""
    return likelihood.prepare_alone(net, inputs, valid, index)


@compiled()
def encode_conditions(
    net: JaxNetwork,
    params: Mapping[str, Array],
    history: Trials | None = None,
    history_valid: Array | None = None,
) -> Conditions:
    """See `ppl_buffer.network.likelihood.encode_conditions`."""
    return likelihood.encode_conditions(net, params, history, history_valid)


@compiled("environment")
def rollout_sequence(
    net: JaxNetwork,
    conditions: Conditions,
    inputs: Mapping[str, Array],
    valid: Array,
    noise: Array,
    lapse: LapseMixture | None,
    environment: Environment | None,
    limits: Mapping[str, Array],
) -> tuple[dict[str, Array], dict[str, Array], Array]:
    """Draw the trials one after another, each realised outcome moving the state.

    Args:
        net: the network.
        conditions: from `encode_conditions`.
        inputs: dict name -> (B, r, K).
        valid: (B, r, K), which trials exist.
        noise: uniform numbers (B, R, K, schema.noise_size).
        lapse: its rate (B, R or 1, 1); or None.
        environment: gives the feedback on a drawn outcome.
        limits: dict name -> (B, r, K), above which an outcome is an omission, and its trial passed over by later ones.

    Returns:
        outcomes and feedback, each dict name -> (B, R, K), and the log densities (B, R, K) they were drawn from.
    """
    shape = tuple(noise.shape[:3])
    noise, chance = split_noise(net, noise)
    valid = jnp.broadcast_to(valid, shape)
    inputs, limits = ({name: jnp.broadcast_to(x, shape) for name, x in group.items()} for group in (inputs, limits))
    if conditions.state is None:
        representation = likelihood.read_sequence(net, prepare_alone(net, inputs, valid), conditions)
        representation = likelihood.spread(net, representation, shape)
        outcomes, log_probs = trial_sample(net.likelihood, representation, noise, lapse)
        feedback, _ = respond(net, environment, 0, inputs, outcomes, chance)
        return outcomes, feedback, jnp.where(valid, log_probs, 0.0)

    def draw(before: Own, k: Array) -> tuple[Own, Own]:
        state, remembered = before
        shown, exists = part(inputs, k, 1), part(valid, k, 1)
        described = likelihood.input_features(net, shown)
        read = likelihood.what_is_read(net, state, likelihood.slot_of(net, shown))
        own = likelihood.conditions_at(conditions, k)
        representation = likelihood.read_states(net, read, described, own)
        outcomes, log_prob = trial_sample(net.likelihood, representation, part(noise, k, 1), lapse)
        chances, exists = part(chance, k, 1), likelihood.in_time(outcomes, part(limits, k, 1), exists)
        feedback, remembered = respond(net, environment, k, shown, outcomes, chances, remembered, exists)
        pairs = {"inputs": shown, "outcomes": outcomes, "feedback": feedback}
        state = likelihood.next_state(net, pairs, exists, own, state)
        return (state, remembered), jax.tree.map(lambda x: x[..., 0], (outcomes, feedback, log_prob))

    start = jnp.broadcast_to(conditions.state, (*shape[:2], conditions.state.shape[-1]))
    first = (start, initial_state(net, environment, shape))
    _, steps = jax.lax.scan(draw, first, jnp.arange(shape[2]))
    outcomes, feedback, log_probs = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), steps)
    return outcomes, feedback, jnp.where(valid, log_probs, 0.0)
