"""The training loss in torch, written with the network's own functions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ppl_buffer.torch import heads
from ppl_buffer.torch.network import Cache, Network, encode, encode_params, extend, predict, prepare
from ppl_buffer.training.curriculum import Tree


class Loss(torch.nn.Module):
    """Mean negative log density of a trial, in nats, over a batch's told-sets, data sets, targets and their redraws.

    Args:
        net: the network.
        told_weight: weight of the told-set that tells all parameters, the first; the others share the rest. None = all
            count the same.
    """

    def __init__(self, net: Network, told_weight: float | None = None) -> None:
        super().__init__()
        self.net, self.told_weight = net, told_weight

    def forward(self, batch: Tree) -> Tensor:
        """The loss of a batch of the curriculum, as tensors."""
        net, targets = self.net, batch["targets"]
        cache = Cache()
        if "context" in batch:
            cache = encode(net, batch["context"], _all_valid(batch["context"]))
        cache = extend(net, cache, batch["buffer"], _all_valid(batch["buffer"]))
        size, _, count = _all_valid(targets).shape
        inputs = targets["inputs"]
        if net.schema.ordered:
            visible, shape = torch.arange(count, device=net.device), (size, 1, count)
        else:
            visible, shape = batch["visible"], tuple(batch["visible"].shape)
            inputs = {name: x.expand(shape) for name, x in inputs.items()}
        prepared = prepare(net, cache, inputs, visible, shape, stairs=0 if net.schema.ordered else None)
        told = batch.get("told")  # absent without parameters
        params = (
            {} if told is None else {name: x[:, None].expand(told.shape[:2]) for name, x in batch["params"].items()}
        )
        representation = predict(net, prepared, encode_params(net, params, told))
        outcomes = targets["outcomes"]
        if "redrawn" in batch:
            # One more axis in front, which the heads broadcast the representation against.
            outcomes = {
                name: torch.cat([x[None], batch["redrawn"][name].movedim(-1, 0)]) for name, x in outcomes.items()
            }
        log_prob = _log_prob(net, representation, outcomes, batch.get("probabilities"))
        by_set = -log_prob.movedim(-2, -1).flatten(0, -2).mean(0)
        if self.told_weight is None or len(by_set) == 1:
            return by_set.mean()
        return self.told_weight * by_set[0] + (1 - self.told_weight) * by_set[1:].mean()


def _all_valid(group: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
    """(B, 1, T) True: the curriculum makes no padding."""
    return torch.ones_like(next(iter(group["outcomes"].values())), dtype=torch.bool)


def _log_prob(
    net: Network, representation: Tensor, outcomes: Mapping[str, Tensor], probabilities: Tensor | None
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
