"""Our own network among its rivals: the package's weights, loss, densities and draws, trained by the rivals' loop.

Trained here and not by `ppl_buffer.train`, so that it has the rivals' very batches, optimiser, rate and number of
steps; what a user's call adds (condition masks, standardisation, early stopping) would be differences in training and
not in who reads whom.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import ppl_buffer as pb
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.predictive import density, sampling
from ppl_buffer.predictive.query import Query
from ppl_buffer.training.loss import Loss

from .backbone import Pairs
from .batch import Batch
from .layers import LONGEST_WAVE, Sizes


class Ours(nn.Module):
    """The buffered transformer, in one pass for any number of targets."""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        super().__init__()
        config = pb.Config(
            width=sizes.width, depth=sizes.depth, heads=sizes.heads, mlp=sizes.mlp, components=sizes.components,
            param_depth=1, likelihood_width=0,
        )  # fmt: skip
        # In waves a unit of x: the rivals' sines and cosines, to the last bit.
        frequencies = tuple(2.0**octave / LONGEST_WAVE for octave in range(sizes.waves)) or None
        schema = pb.Schema(inputs={"x": pb.Real(frequencies=frequencies)}, outcomes={"y": pb.Real()})
        self.backbone = TorchNetwork(schema, config, {"x": (0.0, 1.0), "y": (0.0, 1.0)}, seed=seed)
        self._loss = Loss(self.backbone)

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log density of buffer and targets, each given the context and a prefix of the buffer."""
        groups = {"context": batch.context, "buffer": batch.buffer, "targets": batch.rest}
        tree = {
            name: {"inputs": {"x": x[:, None]}, "outcomes": {"y": y[:, None]}, "feedback": {}}
            for name, (x, y) in groups.items()
        }
        return self._loss({**tree, "params": {}, "visible": batch.rest_visible[:, None]})


def _query(net: Ours, context: Pairs, x: Tensor, block: int | None) -> Query:
    known = {"x": context[0], "y": context[1]} if context[0].shape[-1] else None
    block = None if block is None else min(block, x.shape[-1])
    return Query.build(net.backbone, {"x": x}, context=known, block=block)


def _draw(query: Query, noise: Tensor) -> Pairs:
    # The package has one more number, for lapses.
    y, _, log_probs = sampling.rollout(query, nn.functional.pad(noise, (0, 1), value=0.5))
    return y, log_probs


class Buffered:
    """The network as it is used.

    Args:
        net: the network.
        block: realised targets that enter the buffer before they join the context; None = all: one pass.
    """

    def __init__(self, net: Ours, block: int | None = None) -> None:
        self.net, self.block = net, block

    @torch.no_grad()
    def log_prob(self, context: Pairs, x: Tensor, y: Tensor) -> Tensor:
        """Log density (B, M) of each target given the context and the targets before it."""
        return density.conditionals(_query(self.net, context, x, self.block), y)

    @torch.no_grad()
    def sample(self, context: Pairs, x: Tensor, noise: Tensor) -> Pairs:
        """Draws and their log densities, each (S, M)."""
        return _draw(_query(self.net, context, x, self.block), noise)


class Apart:
    """The network as a set predictor: targets one by one, before an empty buffer."""

    def __init__(self, net: Ours) -> None:
        self.net = net

    @torch.no_grad()
    def log_prob(self, context: Pairs, x: Tensor, y: Tensor) -> Tensor:
        """Log density (B, M) of each target given the context."""
        return density.marginals(_query(self.net, context, x, None), y)

    @torch.no_grad()
    def sample(self, context: Pairs, x: Tensor, noise: Tensor) -> Pairs:
        """Draws and their log densities, each (S, M): a data set for each target."""
        known = (context[0].expand(len(x), -1), context[1].expand(len(x), -1))
        y, log_probs = _draw(_query(self.net, known, x[:, None], None), noise[:, :, None])
        return y[..., 0], log_probs[..., 0]


class Shipped:
    """A shipped network of the same functions, which its own recipe trained, in one pass.

    Args:
        name: in the zoo.
        scale_of_x: what x is in its own units where it is 1 on the standardised scale.
        location: of y.
        scale: of y.
    """

    def __init__(self, name: str, scale_of_x: float, location: float, scale: float) -> None:
        self._net = pb.load(name, backend="torch")
        self._scale_of_x, self._location, self._scale = scale_of_x, location, scale

    @torch.no_grad()
    def log_prob(self, context: Pairs, x: Tensor, y: Tensor) -> Tensor:
        """Log density (B, M) of each target given the context and the targets before it."""
        known = {"x": context[0] * self._scale_of_x, "y": context[1] * self._scale + self._location}
        query = Query.build(self._net, {"x": x * self._scale_of_x}, context=known)
        return density.conditionals(query, y * self._scale + self._location) + math.log(self._scale)
