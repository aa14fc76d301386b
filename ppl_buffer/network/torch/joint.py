"""Joint prediction in torch: one-pass density, rollout, blocks, leave-one-out.

All arrays are (B, R, K): B data sets, R replicas of each, K trials; an array that replicas share has R = 1. Trials
are dicts ``{"inputs": ..., "outcomes": ..., "feedback": ...}`` of dicts name -> (B, R, K).
`ppl_buffer/jax/joint.py` mirrors this file function by function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ppl_buffer.network.heads import trial_cdf, trial_log_prob, trial_moments, trial_sample
from ppl_buffer.network.torch.cache import Cache, allocate
from ppl_buffer.network.torch.network import (
    EncodedParams,
    PreparedTargets,
    encode,
    extend,
    predict,
    prepare,
    step,
)
from ppl_buffer.network.torch.weights import TorchNetwork

Trials = Mapping[str, Mapping[str, Tensor]]

Environment = Callable[[Any, dict[str, Any], dict[str, Any], Any], Mapping[str, Any]]


def start_cache(
    net: TorchNetwork,
    context: Trials | None,
    context_valid: Tensor | None,
    history: Trials | None = None,
    history_valid: Tensor | None = None,
) -> Cache:
    """Encode a context, of which `context_valid` exist (None = all), and let a history enter the buffer."""
    cache = Cache() if context is None else encode(net, context, context_valid)
    if history is not None and history_valid is not None:
        cache = extend(net, cache, history, history_valid)
    return cache


def prepare_joint(net: TorchNetwork, cache: Cache, trials: Trials, valid: Tensor) -> PreparedTargets:
    """Everything about a joint density that the parameters do not change: target k sees the trials before it."""
    full = extend(net, cache, trials, valid)
    visible = cache.size + torch.arange(valid.shape[-1], device=valid.device)
    return prepare(net, full, trials["inputs"], visible, valid.shape, causal_offset=cache.size)


def prepare_marginal(net: TorchNetwork, cache: Cache, inputs: Mapping[str, Tensor], valid: Tensor) -> PreparedTargets:
    """Targets that see what the cache holds and none of each other: the set predictor."""
    return prepare(net, cache, inputs, None, valid.shape)


def conditionals(
    net: TorchNetwork,
    prepared: PreparedTargets,
    params: EncodedParams,
    outcomes: Mapping[str, Tensor],
    valid: Tensor,
    lapse: Tensor | None,
) -> Tensor:
    """Log density (B, R, K) of each trial given what it sees (paper, equation 5); 0 where there is no trial."""
    log_probs = trial_log_prob(net, predict(net, prepared, params), outcomes, lapse)
    return torch.where(valid, log_probs, 0.0)


def one_step(
    net: TorchNetwork,
    prepared: PreparedTargets,
    params: EncodedParams,
    outcomes: Mapping[str, Tensor],
    valid: Tensor,
    lapse: Tensor | None,
    noise: Tensor,
) -> Tensor:
    """`conditionals`, and beside each a draw of the trial's outcomes given what it sees: (B, R, K, 1 + n_outcomes).

    `noise` (B, R, K, schema.noise_size) are uniform numbers.
    """
    representation = predict(net, prepared, params)
    log_probs = torch.where(valid, trial_log_prob(net, representation, outcomes, lapse), 0.0)
    drawn, _ = trial_sample(net, representation, noise[..., : 2 * len(net.schema.outcomes) + 1], lapse)
    return torch.stack(torch.broadcast_tensors(log_probs, *drawn.values()), -1)


def cdf(
    net: TorchNetwork,
    prepared: PreparedTargets,
    params: EncodedParams,
    outcomes: Mapping[str, Tensor],
    uniform: Tensor,
    lapse: Tensor | None,
) -> Tensor:
    """Distribution function (B, R, K, n_outcomes) of each trial's outcomes given what the trial sees."""
    return trial_cdf(net, predict(net, prepared, params), outcomes, uniform, lapse)


def moments(
    net: TorchNetwork, prepared: PreparedTargets, params: EncodedParams, lapse: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Mean and variance (B, R, K, n_outcomes) of each trial's outcomes given what the trial sees."""
    return trial_moments(net, predict(net, prepared, params), lapse)


def trials_between(values: Mapping[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    """Some trials of arrays (..., K)."""
    return {name: value[..., start:stop] for name, value in values.items()}


@torch.no_grad()
def rollout(
    net: TorchNetwork,
    cache: Cache,
    inputs: Mapping[str, Tensor],
    valid: Tensor,
    params: EncodedParams,
    noise: Tensor,
    lapse: Tensor | None,
    environment: Environment | None,
    independent: bool,
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
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
    valid = valid.expand(shape)
    inputs = {name: value.expand(shape) for name, value in inputs.items()}
    if independent:
        representation = predict(net, prepare_marginal(net, cache, inputs, valid), params)
        outcomes, log_probs = trial_sample(net, representation, noise[..., :split], lapse)
        feedback = respond(net, environment, 0, inputs, outcomes, noise[..., split:])
        return outcomes, feedback, torch.where(valid, log_probs, 0.0)
    start = cache.size
    room = allocate(net, cache, (*shape[:2], shape[2] - 1))
    pairs: dict[str, dict[str, Tensor]] = {}
    steps = []
    for k in range(shape[2]):
        here = trials_between(inputs, k, k + 1)
        if k == 0:
            representation = predict(net, prepare_marginal(net, cache, here, valid[..., :1]), params)
        else:
            # One trial enters the buffer while the next one is predicted.
            representation, room = step(net, room, pairs, valid[..., k - 1 : k], here, params, start + k - 1)
        drawn, log_prob = trial_sample(net, representation, noise[:, :, k : k + 1, :split], lapse)
        learned = respond(net, environment, k, here, drawn, noise[:, :, k : k + 1, split:])
        pairs = {"inputs": here, "outcomes": drawn, "feedback": learned}
        steps.append((drawn, learned, log_prob))
    outcomes = {name: torch.cat([done[0][name] for done in steps], -1) for name in schema.outcomes}
    feedback = {name: torch.cat([done[1][name] for done in steps], -1) for name in schema.feedback}
    log_probs = torch.cat([done[2] for done in steps], -1)
    return outcomes, feedback, torch.where(valid, log_probs, 0.0)


def respond(
    net: TorchNetwork,
    environment: Environment | None,
    trial: int,
    inputs: dict[str, Tensor],
    outcomes: dict[str, Tensor],
    uniform: Tensor,
) -> dict[str, Tensor]:
    """Feedback on a trial's outcomes; empty where there is none to give."""
    if environment is None or not net.schema.feedback:
        return {}
    given = environment(trial, inputs, outcomes, uniform)
    return {name: torch.as_tensor(given[name], device=net.device).to(net.dtype) for name in net.schema.feedback}


def join_trials(first: Trials | None, second: Trials) -> Trials:
    """Trials of `first`, then of `second`; their replicas are brought to the same number."""
    if first is None:
        return second
    joined: dict[str, dict[str, Tensor]] = {}
    for group, values in second.items():
        joined[group] = {name: join_arrays(first[group][name], value) for name, value in values.items()}
    return joined


def join_arrays(first: Tensor, second: Tensor) -> Tensor:
    """Concatenate (B, r, N) and (B, R, K) along the trials."""
    replicas = max(first.shape[1], second.shape[1])
    parts = [part.expand(-1, replicas, -1) for part in (first, second)]
    return torch.cat(torch.broadcast_tensors(*parts) if parts[0].shape == parts[1].shape else parts, -1)


def block_conditionals(
    net: TorchNetwork,
    context: Trials | None,
    context_valid: Tensor | None,
    trials: Trials,
    valid: Tensor,
    params: EncodedParams,
    lapse: Tensor | None,
    block: int,
) -> Tensor:
    """`conditionals`, with every full block of `block` trials merged into the context and encoded anew.

    With `block` = 1 this is the exact autoregression that re-encodes everything at each step (paper, equation 2).
    """
    parts = []
    count = valid.shape[-1]
    for start in range(0, count, block):
        stop = min(start + block, count)
        merged = _part(trials, 0, start) if start else None
        cache = _merged(net, context, context_valid, merged, valid[..., :start])
        here = _part(trials, start, stop)
        prepared = prepare_joint(net, cache, here, valid[..., start:stop])
        parts.append(conditionals(net, prepared, params, here["outcomes"], valid[..., start:stop], lapse))
    return torch.cat(parts, -1)


def _part(trials: Trials, start: int, stop: int) -> dict[str, dict[str, Tensor]]:
    return {group: trials_between(values, start, stop) for group, values in trials.items()}


def _merged(
    net: TorchNetwork, context: Trials | None, context_valid: Tensor | None, merged: Trials | None, merged_valid: Tensor
) -> Cache:
    if merged is None:
        return start_cache(net, context, context_valid)
    if context is None:
        return start_cache(net, merged, merged_valid)
    if context_valid is None:
        context_valid = torch.ones_like(next(iter(context["outcomes"].values())), dtype=torch.bool)
    return start_cache(net, join_trials(context, merged), join_arrays(context_valid, merged_valid))


@torch.no_grad()
def block_rollout(
    net: TorchNetwork,
    context: Trials | None,
    context_valid: Tensor | None,
    inputs: Mapping[str, Tensor],
    valid: Tensor,
    params: EncodedParams,
    noise: Tensor,
    lapse: Tensor | None,
    environment: Environment | None,
    block: int,
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """`rollout`, with every full block of `block` drawn trials merged into the context and encoded anew."""
    shape = noise.shape[:3]
    valid = valid.expand(shape)
    inputs = {name: value.expand(shape) for name, value in inputs.items()}
    done: Trials | None = None
    log_probs = []
    for start in range(0, shape[2], block):
        stop = min(start + block, shape[2])
        cache = _merged(net, context, context_valid, done, valid[..., :start])
        here = trials_between(inputs, start, stop)
        outcomes, feedback, log_prob = rollout(
            net, cache, here, valid[..., start:stop], params, noise[:, :, start:stop], lapse, environment, False
        )
        done = join_trials(done, {"inputs": here, "outcomes": outcomes, "feedback": feedback})
        log_probs.append(log_prob)
    assert done is not None
    return dict(done["outcomes"]), dict(done["feedback"]), torch.cat(log_probs, -1)


def leave_one_out(
    net: TorchNetwork,
    context: Trials | None,
    context_valid: Tensor | None,
    trials: Trials,
    valid: Tensor,
    params: EncodedParams,
    lapse: Tensor | None,
) -> Tensor:
    """Log density (B, R, K) of each trial given the context and all other trials, as a set; 0 where there is none."""
    parts = []
    for k in range(valid.shape[-1]):
        others = valid.clone()
        others[..., k] = False
        cache = _merged(net, context, context_valid, trials, others)
        here = _part(trials, k, k + 1)
        prepared = prepare_marginal(net, cache, here["inputs"], valid[..., k : k + 1])
        parts.append(conditionals(net, prepared, params, here["outcomes"], valid[..., k : k + 1], lapse))
    return torch.cat(parts, -1)
