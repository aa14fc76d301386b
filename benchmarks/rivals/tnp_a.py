"""TNP-A: all targets as pairs and once more as queries, each query reading the pairs before its own.

Nguyen & Grover (2022), "Transformer neural processes", arXiv 2207.04179: the autoregressive variant. Context points
read each other, pair m reads the context and the pairs up to itself, query m the context and the pairs before it: the
mask of a buffer that holds all targets. It is trained with every query before its own prefix, the first alone before
the context. Its published sampler computes everything anew for every point of every draw; since no pair reads a later
one, and nobody a query, keys and values can be kept, and the numbers are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .backbone import Backbone, Pairs, draw_by_steps, joint_log_prob, one, repeated, rollout
from .batch import Batch
from .layers import Sizes, initialise


class TNPA(nn.Module):
    """The network, with the sampler that keeps keys and values."""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        super().__init__()
        self.backbone = Backbone(sizes)
        initialise(self, sizes, seed)

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log density of all points after the context, each given those before it."""
        return -self.log_prob(batch.context, *batch.rest).mean()

    def log_prob(self, context: Pairs, x: Tensor, y: Tensor) -> Tensor:
        """Log density (B, M) of each target given the context and the targets before it, in one pass."""
        return joint_log_prob(self.backbone, context, x, y)

    def sample(self, context: Pairs, x: Tensor, noise: Tensor) -> Pairs:
        """Draws and their log densities, each (S, M)."""
        return rollout(self.backbone, one(context), x, noise)


class PublishedSampler:
    """TNP-A as it was published: a full pass over context, pairs and queries for every point of every draw."""

    def __init__(self, net: TNPA) -> None:
        self.net = net

    def log_prob(self, context: Pairs, x: Tensor, y: Tensor) -> Tensor:
        """As the network's own."""
        return self.net.log_prob(context, x, y)

    def sample(self, context: Pairs, x: Tensor, noise: Tensor) -> Pairs:
        """Draws and their log densities, each (S, M), by S M passes."""
        backbone, count = self.net.backbone, len(x)

        def step(k: int, y: Tensor, uniform: Tensor) -> Pairs:
            draws = len(uniform)
            known = torch.cat([y.expand(draws, -1), y.new_zeros((draws, count - k))], 1)
            places = x.expand(draws, -1)
            cache = backbone.encode(repeated(context, draws))
            cache = backbone.extend(cache, (places, known))
            representation = backbone.represent(cache, places, torch.arange(count, device=x.device))
            return backbone.head.draw(representation[:, k], uniform)

        return draw_by_steps(step, x, noise)
