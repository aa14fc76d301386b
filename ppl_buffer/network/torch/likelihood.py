"""The direct likelihood in torch: what `ppl_buffer.network.likelihood` computes, and the rollout, which is a loop."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ppl_buffer.network import likelihood
from ppl_buffer.network.backend import Environment, Trials
from ppl_buffer.network.heads import trial_sample
from ppl_buffer.network.lapse_mixture import LapseMixture
from ppl_buffer.network.likelihood import Conditions, PreparedSequence
from ppl_buffer.network.torch.ops import part
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.network.trials import initial_state, respond, split_noise


def prepare_sequence(net: TorchNetwork, trials: Trials, valid: Tensor) -> PreparedSequence:
    """See `ppl_buffer.network.likelihood.prepare_sequence`."""
    return likelihood.prepare_sequence(net, trials, valid)


def prepare_alone(
    net: TorchNetwork, inputs: Mapping[str, Tensor], valid: Tensor, index: Tensor | None = None
) -> PreparedSequence:
    """See `ppl_buffer.network.likelihood.prepare_alone`."""
    return likelihood.prepare_alone(net, inputs, valid, index)


def encode_conditions(
    net: TorchNetwork,
    params: Mapping[str, Tensor],
    history: Trials | None = None,
    history_valid: Tensor | None = None,
) -> Conditions:
    """See `ppl_buffer.network.likelihood.encode_conditions`."""
    return likelihood.encode_conditions(net, params, history, history_valid)


@torch.no_grad()
def rollout_sequence(
    net: TorchNetwork,
    conditions: Conditions,
    inputs: Mapping[str, Tensor],
    valid: Tensor,
    noise: Tensor,
    lapse: LapseMixture | None,
    environment: Environment | None,
    limits: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
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
    valid = valid.expand(shape)
    inputs, limits = ({name: value.expand(shape) for name, value in group.items()} for group in (inputs, limits))
    if conditions.state is None:
        representation = likelihood.read_sequence(net, prepare_alone(net, inputs, valid), conditions)
        representation = likelihood.spread(net, representation, shape)
        outcomes, log_probs = trial_sample(net.likelihood, representation, noise, lapse)
        feedback, _ = respond(net, environment, 0, inputs, outcomes, chance)
        return outcomes, feedback, torch.where(valid, log_probs, 0.0)
    state, remembered = conditions.state.expand(*shape[:2], -1), initial_state(net, environment, shape)
    steps = []
    for k in range(shape[2]):
        shown, exists = part(inputs, k, 1), valid[..., k : k + 1]
        described = likelihood.input_features(net, shown)
        read = likelihood.what_is_read(net, state, likelihood.slot_of(net, shown))
        own = likelihood.conditions_at(conditions, k)
        representation = likelihood.read_states(net, read, described, own)
        outcomes, log_prob = trial_sample(net.likelihood, representation, part(noise, k, 1), lapse)
        chances, exists = part(chance, k, 1), likelihood.in_time(outcomes, part(limits, k, 1), exists)
        feedback, remembered = respond(net, environment, k, shown, outcomes, chances, remembered, exists)
        pairs = {"inputs": shown, "outcomes": outcomes, "feedback": feedback}
        state = likelihood.next_state(net, pairs, exists, own, state)
        steps.append((outcomes, feedback, log_prob))
    outcomes = {name: torch.cat([each[0][name] for each in steps], -1) for name in net.schema.outcomes}
    feedback = {name: torch.cat([each[1][name] for each in steps], -1) for name in net.schema.feedback}
    log_probs = torch.cat([each[2] for each in steps], -1)
    return outcomes, feedback, torch.where(valid, log_probs, 0.0)
