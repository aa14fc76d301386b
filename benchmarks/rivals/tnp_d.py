"""TNP-D: a set predictor of targets one by one, and its autoregressive use.

Nguyen & Grover (2022), "Transformer neural processes", arXiv 2207.04179: the diagonal variant, in which context points
read each other and each target reads the context. Used autoregressively (Bruinsma et al. 2023, arXiv 2303.14468), a
realised target joins the context, which is then encoded anew: the same weights, another deployment.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from .backbone import Backbone, Pairs, draw_by_steps, marginal_log_prob, one, repeated
from .batch import Batch, join_pairs
from .layers import MixtureHead, Sizes, initialise


class SetPredictor(nn.Module):
    """Predicts each target given the context alone; TNP-D, or LBANP where the context is read through latents."""

    def __init__(self, sizes: Sizes, seed: int, latents: int = 0) -> None:
        super().__init__()
        self.backbone = Backbone(sizes, latents=latents)
        initialise(self, sizes, seed)

    @property
    def head(self) -> MixtureHead:
        """What reads a target's representation."""
        return self.backbone.head

    def represent(self, context: Pairs, x: Tensor) -> Tensor:
        """(B, T, W), of targets (B, T) given contexts (B, N)."""
        return self.backbone.represent(self.backbone.encode(context), x)

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log density of all points after the context."""
        return -self.log_prob(batch.context, *batch.rest).mean()

    def log_prob(self, context: Pairs, x: Tensor, y: Tensor) -> Tensor:
        """Log density (B, T) of each target given the context."""
        return marginal_log_prob(self.backbone, context, x, y)

    @torch.no_grad()
    def sample(self, context: Pairs, x: Tensor, noise: Tensor) -> Pairs:
        """Independent draws of all targets in one pass, and their log densities: each (S, M)."""
        return self.head.draw(self.represent(one(context), x[None]), noise)


class Predictor(Protocol):
    """A network that predicts targets given a context."""

    head: MixtureHead

    def represent(self, context: Pairs, x: Tensor) -> Tensor:
        """(B, T, W), of targets (B, T) given contexts (B, N)."""
        ...


class Reencoding:
    """A set predictor used autoregressively: each realised target joins the context, which is encoded anew.

    Args:
        net: predicts a target given a context.
    """

    def __init__(self, net: Predictor) -> None:
        self.net = net

    def log_prob(self, context: Pairs, x: Tensor, y: Tensor) -> Tensor:
        """Log density (B, M) of each target given the context and the targets before it: M passes."""
        steps = []
        for k in range(x.shape[1]):
            known = join_pairs(context, (x[:, :k], y[:, :k]))
            steps.append(self.net.head.log_prob(self.net.represent(known, x[:, k : k + 1]), y[:, k : k + 1]))
        return torch.cat(steps, 1)

    def sample(self, context: Pairs, x: Tensor, noise: Tensor) -> Pairs:
        """Draws and their log densities, each (S, M): S M passes, of which the first is the same for all."""

        def step(k: int, y: Tensor, uniform: Tensor) -> Pairs:
            before = (x[:k].expand(len(y), -1), y)
            known = join_pairs(repeated(context, len(y)), before)
            representation = self.net.represent(known, x[k].expand(len(y), 1))[:, 0]
            return self.net.head.draw(representation, uniform)

        return draw_by_steps(step, x, noise)
