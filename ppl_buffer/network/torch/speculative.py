"""Lossless speculative rollout in torch: draws with exactly the rollout's distribution, many trials in one pass.

Every trial has a draft y and the density q that it was drawn from: at first its marginal, one pass for all trials. A
sweep lets the drafts enter the buffer and computes each trial's conditional p given the drafts before it, one pass
again. A draft stays with probability min(1, p(y) / q(y)) and is redrawn from the normalised positive part of p - q
otherwise. Either way it is now a draw from p, which becomes its q. Trials up to the first redrawn one, itself
included, are final; the next sweep begins behind it. The drafts after it are kept and brought up to date by the next
sweep, where speculative decoding throws them away (Leviathan, Kalman & Matias 2023; Chen et al. 2023).

Proof that draws are the rollout's. Let F be all random numbers spent on the trials before trial k, in all sweeps. F
determines q, p and which sweeps test trial k. Given F its draft is distributed as q: at first by construction, and
after a test since min(p, q) + max(p - q, 0) = p, where the second part weighs as much as the drafts that are redrawn.
The last test is made against the conditional given the final trials before k, which is what the rollout draws from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ppl_buffer.network.backend import Environment
from ppl_buffer.network.heads import trial_log_prob, trial_sample
from ppl_buffer.network.lapse_mixture import LapseMixture
from ppl_buffer.network.torch.cache import Cache, allocate
from ppl_buffer.network.torch.joint import prepare_marginal
from ppl_buffer.network.torch.network import EncodedParams, predict, step
from ppl_buffer.network.torch.ops import part
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.network.trials import respond, split_noise
from ppl_buffer.schema import Discrete

# Proposals at once for a trial that is redrawn, and the most of them. All n are refused with probability
# d (1 - d)^n < 1 / (e n), d being the chance that the trial is redrawn: less than densities are rounded by.
_PROPOSALS = 32
_MOST_PROPOSALS = 2**17
# Values of a single outcome up to which a table of all of them is cheaper than proposals.
_MOST_VALUES = 256

# Outcomes, dict name -> (B, R, T), and their log densities (B, R, T).
Draws = tuple[dict[str, Tensor], Tensor]


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

    target: Tensor
    outcomes: dict[str, Tensor]
    feedback: dict[str, Tensor]
    log_probs: Tensor
    kept: Tensor


@torch.no_grad()
def speculative_rollout(
    net: TorchNetwork,
    cache: Cache,
    inputs: Mapping[str, Tensor],
    valid: Tensor,
    params: EncodedParams,
    noise: Tensor,
    lapse: LapseMixture | None,
    environment: Environment | None,
    source: torch.Generator | None,
    lookahead: int | None,
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor, Tensor]:
    """Draw all trials with the distribution of `ppl_buffer.network.torch.joint.rollout`, in fewer passes.

    Args:
        net: the network.
        cache: what was encoded and realised before.
        inputs: dict name -> (B, r, K).
        valid: (B, r, K), which trials exist.
        params: from `encode_params`.
        noise: uniform numbers (B, R, K, schema.noise_size), for the first drafts and for the environment.
        lapse: its rate (B, R or 1, 1); or None.
        environment: gives the feedback on a drawn outcome.
        source: of the random numbers that test drafts and redraw them; None = torch's global one.
        lookahead: how many trials a sweep takes; None = trials do not depend on each other, first drafts are final.

    Returns:
        outcomes and feedback, each dict name -> (B, R, K); the log densities (B, R, K) they were drawn from; whether
        the draft (B, R, K) stayed in the test that made its trial final; the sweep (B, R, K) of that test, 0 = none.
    """
    shape = noise.shape[:3]
    count = shape[2]
    noise, chance = split_noise(net, noise)
    target = predict(net, prepare_marginal(net, cache, inputs, valid), params)
    target = target.expand(*shape, target.shape[-1])
    valid = valid.expand(shape)
    inputs = {name: value.expand(shape) for name, value in inputs.items()}
    outcomes, log_probs = trial_sample(net, target, noise, lapse)
    feedback = _respond(net, environment, 0, inputs, outcomes, chance)
    drafts = Drafts(target, outcomes, feedback, log_probs, torch.ones_like(log_probs, dtype=torch.bool))
    # How many trials are final. Nothing comes before the first: its marginal is its conditional.
    done = torch.full(shape[:2], count if lookahead is None else 1, device=noise.device)
    settled = torch.zeros(shape, dtype=done.dtype, device=noise.device)
    trial = torch.arange(count, device=noise.device)
    begun, turn = cache.size, 0
    if lookahead is not None and count > 1:
        cache = allocate(net, cache, (*shape[:2], count - 1))
    while (first := int(done.min())) < count:
        assert lookahead is not None
        size = min(lookahead, count - first)
        # The last final trial may have been redrawn: it enters the buffer anew, and those after it as their drafts.
        pairs = {"inputs": inputs, "outcomes": drafts.outcomes, "feedback": drafts.feedback}
        pairs, exists = part((pairs, valid), first - 1, size)
        shown, index = part(inputs, first, size), trial[first : first + size]
        target, cache = step(net, cache, pairs, exists, shown, params, begun + first - 1)
        tested = (index >= done[..., None]) & part(valid, first, size)
        swept = _update(net, part(drafts, first, size), target, tested, lapse, source)
        feedback = _respond(net, environment, first, shown, swept.outcomes, part(chance, first, size))
        drafts = _replace(drafts, replace(swept, feedback=feedback), first)
        final = torch.maximum(done, torch.where(tested & ~swept.kept, index + 1, first + size).amin(-1))
        turn += 1
        settled = torch.where((trial >= done[..., None]) & (trial < final[..., None]), turn, settled)
        done = final
    log_probs = torch.where(valid, drafts.log_probs, 0.0)
    return drafts.outcomes, drafts.feedback, log_probs, drafts.kept, torch.where(valid, settled, 0)


def _replace(drafts: Drafts, swept: Drafts, start: int) -> Drafts:
    """`drafts` with those from `start` on replaced by what a sweep made of them."""
    stop = start + swept.log_probs.shape[2]

    def put(old: Tensor, new: Tensor) -> Tensor:
        return torch.cat([old[:, :, :start], new, old[:, :, stop:]], 2)

    return Drafts(
        put(drafts.target, swept.target),
        {name: put(value, swept.outcomes[name]) for name, value in drafts.outcomes.items()},
        {name: put(value, swept.feedback[name]) for name, value in drafts.feedback.items()},
        put(drafts.log_probs, swept.log_probs),
        put(drafts.kept, swept.kept),
    )


def _respond(
    net: TorchNetwork,
    environment: Environment | None,
    first: int,
    inputs: dict[str, Tensor],
    outcomes: dict[str, Tensor],
    uniform: Tensor,
) -> dict[str, Tensor]:
    """Feedback (B, R, T) on the outcomes of the trials from `first` on, each asked for as the rollout would."""
    if environment is None or not net.schema.feedback:
        return {}
    steps = []
    for t in range(uniform.shape[2]):
        steps.append(respond(net, environment, first + t, *part((inputs, outcomes, uniform), t, 1))[0])
    return {name: torch.cat([step[name] for step in steps], -1) for name in net.schema.feedback}


def _update(
    net: TorchNetwork,
    drafts: Drafts,
    target: Tensor,
    tested: Tensor,
    lapse: LapseMixture | None,
    source: torch.Generator | None,
) -> Drafts:
    """Turn draws from q into draws from the densities p of `target` (B, R, T, W), where they are `tested` (B, R, T)."""
    log_probs = trial_log_prob(net, target, drafts.outcomes, lapse)
    kept = _uniform(net, tested.shape, source) < (log_probs - drafts.log_probs).exp()
    variables = list(net.schema.outcomes.values())
    few = len(variables) == 1 and isinstance(variables[0], Discrete) and variables[0].n <= _MOST_VALUES
    draw_again = _redraw_value if few else _redraw
    log_probs = torch.where(tested, log_probs, drafts.log_probs)
    outcomes, resampled = drafts.outcomes, tested & ~kept
    if resampled.any():
        outcomes, log_probs = draw_again(net, (outcomes, log_probs), target, drafts.target, resampled, lapse, source)
    return Drafts(
        torch.where(tested[..., None], target, drafts.target),
        outcomes,
        drafts.feedback,
        log_probs,
        torch.where(tested, kept, drafts.kept),
    )


def _uniform(net: TorchNetwork, shape: Sequence[int], source: torch.Generator | None) -> Tensor:
    uniform = torch.rand(tuple(shape), generator=source, device=net.device, dtype=net.dtype)
    # The normal quantile of 0 is infinite.
    return uniform.clamp(min=torch.finfo(net.dtype).tiny)


def _redraw_value(
    net: TorchNetwork,
    draws: Draws,
    target: Tensor,
    drafted: Tensor,
    resampled: Tensor,
    lapse: LapseMixture | None,
    source: torch.Generator | None,
) -> Draws:
    """`_redraw` for a single outcome of few values: from the table of max(p - q, 0)."""
    ((name, variable),) = net.schema.outcomes.items()
    assert isinstance(variable, Discrete)
    values = torch.arange(variable.low, variable.low + variable.n, device=net.device, dtype=net.dtype)
    lapse = None if lapse is None else lapse.map(lambda rate: rate[..., None])
    log_p, log_q = (trial_log_prob(net, x[..., None, :], {name: values}, lapse) for x in (target, drafted))
    surplus = (log_p.exp() - log_q.exp()).clamp(min=0)
    # Rounding may leave nothing where p and q are alike.
    surplus = torch.where(surplus.sum(-1, keepdim=True) > 0, surplus, log_p.exp())
    below = surplus.cumsum(-1)
    place = _uniform(net, resampled.shape, source)[..., None] * below[..., -1:]
    index = (place >= below[..., :-1]).sum(-1, keepdim=True)
    outcomes, log_probs = draws
    outcome = torch.where(resampled, variable.low + index[..., 0].to(net.dtype), outcomes[name])
    return {name: outcome}, torch.where(resampled, log_p.gather(-1, index)[..., 0], log_probs)


def _redraw(
    net: TorchNetwork,
    draws: Draws,
    target: Tensor,
    drafted: Tensor,
    resampled: Tensor,
    lapse: LapseMixture | None,
    source: torch.Generator | None,
) -> Draws:
    """Redraw outcomes from the normalised positive part of p - q: propose from p, take with probability 1 - q / p."""
    p, q = target[resampled], drafted[resampled]
    if lapse is not None:
        lapse = lapse.map(lambda rate: rate.expand(resampled.shape)[resampled])
    columns = [*draws[0].values(), draws[1]]
    redrawn = [column[resampled] for column in columns]
    waiting = torch.ones_like(redrawn[0], dtype=torch.bool)
    lead = (_PROPOSALS, *p.shape)
    for _ in range(0, _MOST_PROPOSALS, _PROPOSALS):
        noise = _uniform(net, (*lead[:2], 2 * len(draws[0]) + 2), source)
        proposed, log_p = trial_sample(net, p.expand(lead), noise[..., :-1], lapse)
        log_q = trial_log_prob(net, q.expand(lead), proposed, lapse)
        taken = noise[..., -1] < 1 - (log_q - log_p).exp()
        which = taken.to(torch.int8).argmax(0)[None]
        new = [column.gather(0, which)[0] for column in (*proposed.values(), log_p)]
        redrawn = [torch.where(waiting, x, old) for x, old in zip(new, redrawn, strict=True)]
        waiting = waiting & ~taken.any(0)
        if not waiting.any():
            break
    *outcomes, log_probs = (x.masked_scatter(resampled, y) for x, y in zip(columns, redrawn, strict=True))
    return dict(zip(draws[0], outcomes, strict=True)), log_probs
