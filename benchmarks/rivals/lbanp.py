"""LBANP: the context is read through a few latent tokens a layer; and the same with a buffer.

Feng et al. (2023), "Latent bottlenecked attentive neural processes", arXiv 2211.08458: latents read the context, then
each other, and targets read the latents of the same layer, so a target costs the same after any context. With a buffer
(Hassan et al. 2026, arXiv 2510.09477), realised pairs read the latents and the pairs before them, targets the latents
and a prefix of the pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .backbone import Backbone, Pairs, joint_log_prob, one, rollout
from .batch import Batch, join_pairs
from .layers import Sizes, initialise

LATENTS = 16  # a layer, unless another number is named


class BufferedLBANP(nn.Module):
    """The network with a buffer.

    Args:
        sizes: of the network.
        seed: of the weights.
        latents: tokens that stand for the context.
    """

    def __init__(self, sizes: Sizes, seed: int, latents: int = LATENTS) -> None:
        super().__init__()
        self.backbone = Backbone(sizes, latents=latents)
        initialise(self, sizes, seed)

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log density of buffer and targets, each given the context and a prefix of the buffer."""
        cache = self.backbone.extend(self.backbone.encode(batch.context), batch.buffer)
        x, y = batch.rest
        return -self.backbone.head.log_prob(self.backbone.represent(cache, x, batch.rest_visible), y).mean()


class InBlocks:
    """The network with a buffer, as it is used.

    Args:
        net: the network.
        block: after so many realised pairs the buffer is full: they join the context, which is encoded anew.
    """

    def __init__(self, net: BufferedLBANP, block: int) -> None:
        self.net, self.block = net, block

    def log_prob(self, context: Pairs, x: Tensor, y: Tensor) -> Tensor:
        """Log density (B, M) of each target given the context and the targets before it, a pass a block."""
        blocks = []
        for start in range(0, x.shape[1], self.block):
            known = join_pairs(context, (x[:, :start], y[:, :start]))
            part = slice(start, start + self.block)
            blocks.append(joint_log_prob(self.net.backbone, known, x[:, part], y[:, part]))
        return torch.cat(blocks, 1)

    @torch.no_grad()
    def sample(self, context: Pairs, x: Tensor, noise: Tensor) -> Pairs:
        """Draws and their log densities, each (S, M); behind the first block each draw has a context of its own."""
        known, blocks = one(context), []
        for part, uniform in zip(x.split(self.block), noise.split(self.block, 1), strict=True):
            blocks.append(rollout(self.net.backbone, known, part, uniform))
            drawn_pairs = part.expand(len(noise), -1), blocks[-1][0]
            known = join_pairs(tuple(each.expand(len(noise), -1) for each in known), drawn_pairs)
        y, log_probs = (torch.cat(parts, 1) for parts in zip(*blocks, strict=True))
        return y, log_probs
