"""Joint prediction in torch: one-pass density, rollout, blocks, leave-one-out.

All arrays are (B, R, K): B data sets, R replicas of each, K trials; an array that replicas share has R = 1. Trials
are dicts ``{"inputs": ..., "outcomes": ..., "feedback": ...}`` of dicts name -> (B, R, K).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from ppl_buffer.network.backend import Environment, Trials
from ppl_buffer.network.heads import trial_cdf, trial_log_prob, trial_moments, trial_sample
from ppl_buffer.network.lapse_mixture import LapseMixture
from ppl_buffer.network.likelihood import Conditions, PreparedSequence, read_sequence, spread, targets_of
from ppl_buffer.network.parts import Part
from ppl_buffer.network.torch import ops
from ppl_buffer.network.torch.cache import Cache, allocate
from ppl_buffer.network.torch.network import EncodedParams, PreparedTargets, encode, extend, predict, prepare, step
from ppl_buffer.network.torch.ops import part
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.network.trials import initial_state, join_arrays, join_trials, respond, split_noise

Tree = TypeVar("Tree")


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


def represent_targets(
    net: TorchNetwork, prepared: PreparedTargets | PreparedSequence, params: EncodedParams | Conditions
) -> tuple[Part, Tensor, Tensor | None]:
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
    net: TorchNetwork,
    prepared: PreparedTargets | PreparedSequence,
    params: EncodedParams | Conditions,
    each: bool = True,
) -> tuple[Part, Tensor]:
    """The part of the network that prepared the trials, and their representation (B, R, K, W) for its heads.

    Unless `each` trial needs its own, it is (B, R, 1, W) where trials do not differ.
    """
    reader, representation, index = represent_targets(net, prepared, params)
    if index is not None and (each or representation.shape[2] > 1):
        return reader, ops.take_rows(representation, index)
    if each and isinstance(prepared, PreparedSequence):
        return reader, spread(net, representation, prepared.valid.shape)
    return reader, representation


def conditionals(
    net: TorchNetwork,
    prepared: PreparedTargets | PreparedSequence,
    params: EncodedParams | Conditions,
    outcomes: Mapping[str, Tensor],
    valid: Tensor,
    lapse: LapseMixture | None,
) -> Tensor:
    """Log density (B, R, K) of each trial given what it sees (paper, equation 5); 0 where there is no trial."""
    reader, representation, index = represent_targets(net, prepared, params)
    log_probs = trial_log_prob(reader, representation, outcomes, lapse, index)
    return torch.where(valid, log_probs, 0.0)


def representations(
    net: TorchNetwork, prepared: PreparedTargets | PreparedSequence, params: EncodedParams | Conditions
) -> Tensor:
    """What the heads read of each trial: (B, R, K, W)."""
    return represent(net, prepared, params)[1]


def one_step(
    net: TorchNetwork,
    prepared: PreparedTargets | PreparedSequence,
    params: EncodedParams | Conditions,
    outcomes: Mapping[str, Tensor],
    valid: Tensor,
    lapse: LapseMixture | None,
    noise: Tensor,
) -> Tensor:
    """`conditionals`, and beside each a draw of the trial's outcomes given what it sees: (B, R, K, 1 + n_outcomes).

    `noise` (B, R, K, schema.noise_size) are uniform numbers.
    """
    reader, representation = represent(net, prepared, params)
    log_probs = torch.where(valid, trial_log_prob(reader, representation, outcomes, lapse), 0.0)
    outcomes, _ = trial_sample(reader, representation, split_noise(net, noise)[0], lapse)
    return torch.stack(torch.broadcast_tensors(log_probs, *outcomes.values()), -1)


def cdf(
    net: TorchNetwork,
    prepared: PreparedTargets | PreparedSequence,
    params: EncodedParams | Conditions,
    outcomes: Mapping[str, Tensor],
    uniform: Tensor,
    lapse: LapseMixture | None,
) -> Tensor:
    """Distribution function (B, R, K, n_outcomes) of each trial's outcomes given what the trial sees."""
    return trial_cdf(*represent(net, prepared, params), outcomes, uniform, lapse)


def moments(
    net: TorchNetwork,
    prepared: PreparedTargets | PreparedSequence,
    params: EncodedParams | Conditions,
    lapse: LapseMixture | None,
) -> tuple[Tensor, Tensor]:
    """Mean and variance (B, R, K, n_outcomes) of each trial's outcomes given what the trial sees."""
    return trial_moments(*represent(net, prepared, params), lapse)


@torch.no_grad()
def rollout(
    net: TorchNetwork,
    cache: Cache,
    inputs: Mapping[str, Tensor],
    valid: Tensor,
    params: EncodedParams,
    noise: Tensor,
    lapse: LapseMixture | None,
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
        lapse: its rate (B, R or 1, 1); or None.
        environment: gives the feedback on a drawn outcome.
        independent: trials do not depend on each other: no buffer, one pass.

    Returns:
        outcomes and feedback, each dict name -> (B, R, K), and the log densities (B, R, K) they were drawn from.
    """
    shape = noise.shape[:3]
    noise, chance = split_noise(net, noise)
    valid = valid.expand(shape)
    inputs = {name: value.expand(shape) for name, value in inputs.items()}
    if independent:
        representation = predict(net, prepare_marginal(net, cache, inputs, valid), params)
        outcomes, log_probs = trial_sample(net, representation, noise, lapse)
        feedback, _ = respond(net, environment, 0, inputs, outcomes, chance)
        return outcomes, feedback, torch.where(valid, log_probs, 0.0)
    start = cache.size
    allocated = allocate(net, cache, (*shape[:2], shape[2] - 1))
    pairs: dict[str, dict[str, Tensor]] = {}
    state, steps = initial_state(net, environment, shape), []
    for k in range(shape[2]):
        shown = part(inputs, k, 1)
        if k == 0:
            representation = predict(net, prepare_marginal(net, cache, shown, valid[..., :1]), params)
        else:
            # One trial enters the buffer while the next one is predicted.
            exists = valid[..., k - 1 : k]
            representation, allocated = step(net, allocated, pairs, exists, shown, params, start + k - 1)
        outcomes, log_prob = trial_sample(net, representation, part(noise, k, 1), lapse)
        chances, exists = part((chance, valid), k, 1)
        feedback, state = respond(net, environment, k, shown, outcomes, chances, state, exists)
        pairs = {"inputs": shown, "outcomes": outcomes, "feedback": feedback}
        steps.append((outcomes, feedback, log_prob))
    outcomes = {name: torch.cat([each[0][name] for each in steps], -1) for name in net.schema.outcomes}
    feedback = {name: torch.cat([each[1][name] for each in steps], -1) for name in net.schema.feedback}
    log_probs = torch.cat([each[2] for each in steps], -1)
    return outcomes, feedback, torch.where(valid, log_probs, 0.0)


def block_conditionals(
    net: TorchNetwork,
    context: Trials | None,
    context_valid: Tensor | None,
    trials: Trials,
    valid: Tensor,
    params: EncodedParams,
    lapse: LapseMixture | None,
    block: int,
) -> Tensor:
    """`conditionals`, with every full block of `block` trials merged into the context and encoded anew.

    With `block` = 1 this is the exact autoregression that re-encodes everything at each step (paper, equation 2).
    """
    parts = []
    for start in range(0, valid.shape[-1], block):
        count = min(block, valid.shape[-1] - start)
        merged = part(trials, 0, start) if start else None
        cache = _merged(net, context, context_valid, merged, valid[..., :start])
        scored, exists = part(trials, start, count), part(valid, start, count)
        prepared = prepare_joint(net, cache, scored, exists)
        parts.append(conditionals(net, prepared, params, scored["outcomes"], exists, lapse))
    return torch.cat(parts, -1)


@torch.no_grad()
def block_rollout(
    net: TorchNetwork,
    context: Trials | None,
    context_valid: Tensor | None,
    inputs: Mapping[str, Tensor],
    valid: Tensor,
    params: EncodedParams,
    noise: Tensor,
    lapse: LapseMixture | None,
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
        count = min(block, shape[2] - start)
        cache = _merged(net, context, context_valid, done, valid[..., :start])
        shown, exists, uniform = part((inputs, valid, noise), start, count)
        outcomes, feedback, log_prob = rollout(net, cache, shown, exists, params, uniform, lapse, environment, False)
        done = join_trials(net.ops, done, {"inputs": shown, "outcomes": outcomes, "feedback": feedback})
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
    lapse: LapseMixture | None,
) -> Tensor:
    """Log density (B, R, K) of each trial given the context and all other trials, as a set; 0 where there is none."""
    parts = []
    for k in range(valid.shape[-1]):
        others = valid.clone()
        others[..., k] = False
        cache = _merged(net, context, context_valid, trials, others)
        scored, exists = part(trials, k, 1), part(valid, k, 1)
        prepared = prepare_marginal(net, cache, scored["inputs"], exists)
        parts.append(conditionals(net, prepared, params, scored["outcomes"], exists, lapse))
    return torch.cat(parts, -1)


def _merged(
    net: TorchNetwork, context: Trials | None, context_valid: Tensor | None, merged: Trials | None, merged_valid: Tensor
) -> Cache:
    """A cache of the context and trials that are merged into it."""
    if merged is None:
        return start_cache(net, context, context_valid)
    if context is None:
        return start_cache(net, merged, merged_valid)
    if context_valid is None:
        context_valid = torch.ones_like(next(iter(context["outcomes"].values())), dtype=torch.bool)
    joined = join_trials(net.ops, context, merged)
    return start_cache(net, joined, join_arrays(net.ops, context_valid, merged_valid))
