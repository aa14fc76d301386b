"""Networks that read a data set as one causal sequence: a decoder, and incTNP, which knows no positions.

Mortimer et al. (2026), "Incremental transformer neural processes", arXiv 2602.18955 (incTNP-Seq): pair i reads pairs up
to itself, in the context too, the query of place j the pairs before it, and all prefixes of a sequence are trained at
once. Keys and values are kept, so a realised pair costs as much as a prediction. The decoder is the same with
positions, as language models have them (Vaswani et al. 2017, arXiv 1706.03762); the context comes in random order,
since it is a set.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .backbone import Backbone, Pairs, joint_log_prob, one, rollout
from .batch import Batch
from .layers import Sizes, initialise


class CausalSequence(nn.Module):
    """The network.

    Args:
        sizes: of the network.
        seed: of the weights.
        positions: whether tokens know their place: a decoder; else incTNP-Seq.
    """

    def __init__(self, sizes: Sizes, seed: int, positions: bool = False) -> None:
        super().__init__()
        self.backbone = Backbone(sizes, causal=True, positions=positions)
        initialise(self, sizes, seed)

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log density of every point of the sequence given those before it, the context's included."""
        x, y = batch.whole
        nothing = x[:, :0]
        return -self.log_prob((nothing, nothing), x, y).mean()

    def log_prob(self, context: Pairs, x: Tensor, y: Tensor) -> Tensor:
        """Log density (B, M) of each target given the context and the targets before it, in one pass."""
        return joint_log_prob(self.backbone, context, x, y)

    @torch.no_grad()
    def sample(self, context: Pairs, x: Tensor, noise: Tensor) -> Pairs:
        """Draws and their log densities, each (S, M)."""
        return rollout(self.backbone, one(context), x, noise)
