"""The training loss in torch, written with the network's own functions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from ppl_buffer.network import heads
from ppl_buffer.network.torch.cache import Cache
from ppl_buffer.network.torch.network import encode, encode_params, extend, predict, prepare
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.training.batches import Tree

# Ten nats in the sum of 400 trials. From here on an error costs its size, not its square: else one distillation set in
# forty, of an observer whom no network can follow, has most of the loss.
_LARGE_ERROR = 0.5


class Loss(torch.nn.Module):
    """Mean negative log density of a trial, in nats, over a batch's condition masks, data sets, targets and samples.

    Where the batch knows the model's own log density of the targets (distillation sets; and where all parameters are
    conditioned on, of simulators that compute it), these are not counted in the mean. Instead, Huber's loss of the
    network's log densities is added: of each trial, and of the first n trials, divided by the root of n. Near the truth
    half the squared error of a draw's log density is, on average, the Kullback-Leibler divergence; but it has no noise,
    it counts for data that the model does not draw, and errors of one sign that add up over trials cost more.

    Args:
        net: the network.
        likelihood_weight: weight of the first condition mask, which holds all parameters; the others share the rest.
            None = all count the same.
    """

    def __init__(self, net: TorchNetwork, likelihood_weight: float | None = None) -> None:
        super().__init__()
        self.net, self.likelihood_weight = net, likelihood_weight

    def forward(self, batch: Tree) -> Tensor:
        """The loss of a batch of `make_batch` or `make_distillation_batch`, as tensors."""
        net, targets = self.net, batch["targets"]
        cache = Cache()
        if "context" in batch:
            cache = encode(net, batch["context"], _all_valid(batch["context"]))
        cache = extend(net, cache, batch["buffer"], _all_valid(batch["buffer"]))
        size, _, count = _all_valid(targets).shape
        inputs = targets["inputs"]
        in_turn = "visible" not in batch
        if in_turn:
            # Targets that see 0, 1, 2, ... trials.
            visible, shape = torch.arange(count, device=net.device), (size, 1, count)
        else:
            visible, shape = batch["visible"], tuple(batch["visible"].shape)
            inputs = {name: x.expand(shape) for name, x in inputs.items()}
        prepared = prepare(net, cache, inputs, visible, shape, causal_offset=0 if in_turn else None)
        conditioned = batch.get("conditioned")  # absent without parameters
        params = (
            {}
            if conditioned is None
            else {name: x[:, None].expand(conditioned.shape[:2]) for name, x in batch["params"].items()}
        )
        representation = predict(net, prepared, encode_params(net, params, conditioned))
        outcomes = targets["outcomes"]
        if "resampled" in batch:
            # One more axis in front, which the heads broadcast the representation against.
            outcomes = {
                name: torch.cat([x[None], batch["resampled"][name].movedim(-1, 0)]) for name, x in outcomes.items()
            }
        probabilities = batch.get("probabilities")
        if "log_predictive" in batch:
            log_prob = _log_prob(net, representation, outcomes, probabilities)
            return _error(log_prob[0] - batch["log_predictive"]) - log_prob[1:].mean()
        known = "conditioned_log_likelihood" in batch
        from_draws = representation[:, 1:] if known else representation
        log_prob = _log_prob(net, from_draws, outcomes, probabilities)
        by_mask = -log_prob.movedim(-2, -1).flatten(0, -2).mean(0)
        if known:
            truth = batch["conditioned_log_likelihood"]
            log_likelihood = _log_prob(net, representation[:, :1], targets["outcomes"], None)
            # Rounded to single precision, an outcome may lie on its bound, where nothing is to be learnt.
            error = torch.where(truth.isfinite(), log_likelihood - truth.clamp(min=torch.finfo(truth.dtype).min), 0.0)
            by_mask = torch.cat([_error(error)[None], by_mask])
        if self.likelihood_weight is None or len(by_mask) == 1:
            return by_mask.mean()
        return self.likelihood_weight * by_mask[0] + (1 - self.likelihood_weight) * by_mask[1:].mean()


def _error(error: Tensor) -> Tensor:
    """Huber's loss of the errors of log densities of trials (..., T), plus that of their sums, in nats."""
    number = torch.arange(1, error.shape[-1] + 1, device=error.device)
    both = torch.stack([error, error.cumsum(-1) / number.sqrt()])
    # The mean over trials is that of both.
    return 2 * functional.huber_loss(both, torch.zeros_like(both), delta=_LARGE_ERROR)


def _all_valid(group: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
    """(B, 1, T) True: batches have no padding."""
    return torch.ones_like(next(iter(group["outcomes"].values())), dtype=torch.bool)


def _log_prob(
    net: TorchNetwork, representation: Tensor, outcomes: Mapping[str, Tensor], probabilities: Tensor | None
) -> Tensor:
    """Log density (..., B, R, T) of each trial; the simulator's probabilities stand in for the first outcome drawn."""
    if probabilities is None:
        return heads.trial_log_prob(net, representation, outcomes)
    names = list(net.schema.outcomes)
    total = (probabilities * heads.head(net, names[0], representation, {}).log_softmax(-1)).sum(-1)
    for index, name in enumerate(names[1:], start=1):
        raw = heads.head(net, name, representation, {key: outcomes[key] for key in names[:index]})
        total = total + heads.outcome_log_prob(net, name, representation, raw, outcomes[name])
    return total
