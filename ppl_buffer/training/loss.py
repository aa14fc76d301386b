"""The training loss in torch, written with the network's own functions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from ppl_buffer.network import heads
from ppl_buffer.network.lapse_mixture import lapse_components, with_lapse
from ppl_buffer.network.likelihood import encode_conditions, prepare_sequence, read_sequence
from ppl_buffer.network.parts import Part
from ppl_buffer.network.torch.cache import Cache
from ppl_buffer.network.torch.network import encode, encode_params, extend, predict, prepare
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.training.batches import Tree
from ppl_buffer.training.parts import BUFFER, LIKELIHOOD

# Ten nats in the sum of 400 trials. From here on an error costs its size, not its square: else one distillation set in
# forty, of an observer whom no network can follow, has most of the loss.
_LARGE_ERROR = 0.5


class Loss(torch.nn.Module):
    """Mean negative log density of a trial, in nats, over a batch's condition masks, data sets, targets and samples.

    Where the batch knows the model's own log density of the targets (distillation sets; and where all parameters are
    conditioned on, of simulators that compute it), these are not counted in the mean. Instead, Huber's loss of the
    network's log densities is added: of each trial, and of the first n trials, divided by the root of n. Near the truth
    half the squared error of a draw's log density is, on average, the Kullback-Leibler divergence; but it has no noise,
    it counts for data that the model does not draw, and errors of one sign that add up over trials cost more. The
    direct likelihood learns from the first of the two alone: in the same time it comes to half the error.

    What the model says given the whole past is not its density given what was seen of it. So where a trial follows one
    that lost something, the direct likelihood learns from the log density given what was seen, if the simulator knows
    it. If not, it learns from outcomes as they were drawn, or from the probabilities that these were drawn from, whose
    mean over what was lost is the right one; never from the log density given the whole past.

    Args:
        net: the network.
        likelihood_weight: weight of the first condition mask, which holds all parameters; the others share the rest.
            None = all count the same.
        part: of the network that learns.
    """

    def __init__(self, net: TorchNetwork, likelihood_weight: float | None = None, part: str = BUFFER) -> None:
        super().__init__()
        self.net, self.likelihood_weight, self.part = net, likelihood_weight, part
        self._heads: Part = net.likelihood if part == LIKELIHOOD else net

    def forward(self, batch: Tree) -> Tensor:
        """The loss of a batch of `TrainingPlan.batch`, as tensors."""
        representation = self._read(batch)
        if "log_predictive" in batch:
            log_prob = self._log_prob(batch, representation)
            return _error(log_prob[0] - batch["log_predictive"]) - log_prob[1:].mean()
        if "conditioned_log_likelihood" not in batch:
            return self.mean(self._by_set(batch, representation))
        truth = batch["conditioned_log_likelihood"]
        log_likelihood = heads.trial_log_prob(self._heads, representation[:, :1], batch["targets"]["outcomes"])
        # Rounded to single precision, an outcome may lie on its bound, where nothing is to be learnt.
        error = torch.where(truth.isfinite(), log_likelihood - truth.clamp(min=torch.finfo(truth.dtype).min), 0.0)
        if self.part == LIKELIHOOD:
            known = torch.where(truth.isnan(), -log_likelihood, _trial_error(error)).mean()
        else:
            known = _error(error)
        first = known.expand(1, len(truth))
        if representation.shape[1] == 1:
            return first.mean()
        return self.mean(torch.cat([first, self._by_set(batch, representation[:, 1:])]))

    def by_set(self, batch: Tree) -> Tensor:
        """(R, B): the mean negative log density of a trial, of each condition mask and data set."""
        return self._by_set(batch, self._read(batch))

    def mean(self, by_set: Tensor) -> Tensor:
        """The loss over condition masks and data sets, (R, B)."""
        by_mask = by_set.mean(1)
        if self.likelihood_weight is None or len(by_mask) == 1:
            return by_mask.mean()
        return self.likelihood_weight * by_mask[0] + (1 - self.likelihood_weight) * by_mask[1:].mean()

    def _by_set(self, batch: Tree, representation: Tensor) -> Tensor:
        log_prob = self._log_prob(batch, representation).mean(-1)
        return -log_prob.flatten(0, -3).mean(0).T if log_prob.ndim > 2 else -log_prob.T

    def _log_prob(self, batch: Tree, representation: Tensor) -> Tensor:
        """Log density (..., B, R, T) of each target, with an axis of outcome samples in front where there are more."""
        outcomes = batch["targets"]["outcomes"]
        if "resampled" in batch:
            # One more axis in front, which the heads broadcast the representation against.
            outcomes = {
                name: torch.cat([x[None], batch["resampled"][name].movedim(-1, 0)]) for name, x in outcomes.items()
            }
        return _log_prob(self._heads, representation, outcomes, batch.get("probabilities", {}))

    def _read(self, batch: Tree) -> Tensor:
        """What the heads read, (B, R, T, width)."""
        return (_read_sequence if self.part == LIKELIHOOD else _read_buffer)(self.net, batch)


def _read_sequence(net: TorchNetwork, batch: Tree) -> Tensor:
    """The targets' representation in the direct likelihood: they are the trials of the buffer, one after the other."""
    prepared = prepare_sequence(net, batch["buffer"], _all_valid(batch["buffer"]))
    params = {name: x[:, None] for name, x in batch["params"].items()}
    return read_sequence(net, prepared, encode_conditions(net, params))


def _read_buffer(net: TorchNetwork, batch: Tree) -> Tensor:
    """The targets' representation in the buffered transformer."""
    targets = batch["targets"]
    cache = Cache()
    if "context" in batch:
        cache = encode(net, batch["context"], _all_valid(batch["context"]))
    if "buffer" in batch:
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
    return predict(net, prepared, encode_params(net, params, conditioned))


def _trial_error(error: Tensor) -> Tensor:
    """Huber's loss of the error of each log density of a trial, in nats."""
    return 2 * functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=_LARGE_ERROR)


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
    net: Part, representation: Tensor, outcomes: Mapping[str, Tensor], probabilities: Mapping[str, Tensor]
) -> Tensor:
    """Log density (..., B, R, T) of each trial; the simulator's probabilities stand in for the outcomes drawn.

    Those of a later outcome are given the earlier ones as they were drawn first: for further samples of these they say
    nothing. The lapses that the schema states are mixed in.
    """
    names = list(net.schema.outcomes)
    resampled = outcomes[names[0]].ndim == representation.ndim
    log_probs: list[Tensor] = []
    for index, name in enumerate(names):
        raw = heads.head(net, name, representation, {key: outcomes[key] for key in names[:index]})
        if name not in probabilities:
            log_prob = heads.outcome_log_prob(net, name, representation, raw, outcomes[name])
        elif index and resampled:
            later = heads.outcome_log_prob(net, name, representation, raw[1:], outcomes[name][1:])
            log_prob = torch.cat([(probabilities[name] * heads.value_log_probs(net, name, raw[:1])).sum(-1), later])
        else:
            log_prob = (probabilities[name] * heads.value_log_probs(net, name, raw)).sum(-1)
        log_probs.append(log_prob)
    # Outcomes whose probabilities are known hold no lapses.
    total = with_lapse(net, log_probs, outcomes, lapse_components(net, None))
    assert isinstance(total, Tensor)
    return total
