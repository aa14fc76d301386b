"""A conditional neural process, used autoregressively: no attention, and a context that is a running mean.

Garnelo et al. (2018), "Conditional neural processes", arXiv 1807.01613; autoregressive use by Bruinsma et al. (2023),
"Autoregressive conditional neural processes", arXiv 2303.14468. The context is the mean of its pairs' embeddings
(Zaheer et al. 2017, arXiv 1703.06114), so a realised target joins it by one addition.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from .backbone import Pairs, one, pair_features
from .batch import Batch
from .layers import MixtureHead, Perceptron, Sizes, initialise, place_features

# Of its perceptrons, and their width over that of the others' tokens: as many weights as the others, nearly.
_LAYERS, _WIDER = 3, 4


class CNP(nn.Module):
    """The network, used autoregressively; it is trained on targets one by one."""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        super().__init__()
        width = _WIDER * sizes.width
        wide = replace(sizes, width=width, mlp=width)
        self.waves = sizes.waves
        self.embed = Perceptron(sizes.places + 1, width, width, _LAYERS)
        self.null = nn.Parameter(torch.zeros(width))
        self.head = MixtureHead(wide, inputs=width + sizes.places, layers=_LAYERS)
        initialise(self, wide, seed)

    def embedded(self, context: Pairs) -> Tensor:
        """The context's sum of embeddings (B, 1, W), that of a null pair included, so that it may be empty."""
        return self.embed(pair_features(context, self.waves)).sum(1, keepdim=True) + self.null

    def represent(self, context: Pairs, x: Tensor) -> Tensor:
        """(B, T, W), of targets (B, T) given contexts (B, N)."""
        mean = self.embedded(context) / (context[0].shape[1] + 1)
        return torch.cat([mean.expand(-1, x.shape[1], -1), place_features(x, self.waves)], -1)

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log density of all points after the context, each given the context alone."""
        x, y = batch.rest
        return -self.head.log_prob(self.represent(batch.context, x), y).mean()

    def log_prob(self, context: Pairs, x: Tensor, y: Tensor) -> Tensor:
        """Log density (B, M) of each target given the context and the targets before it, in one pass."""
        each = self.embed(pair_features((x, y), self.waves))
        sums = torch.cat([self.embedded(context), each[:, :-1]], 1).cumsum(1)
        counts = context[0].shape[1] + 1 + torch.arange(x.shape[1], device=x.device)
        return self.head.log_prob(torch.cat([sums / counts[:, None], place_features(x, self.waves)], -1), y)

    @torch.no_grad()
    def sample(self, context: Pairs, x: Tensor, noise: Tensor) -> Pairs:
        """Draws and their log densities, each (S, M): a step costs the same after any context."""
        total, count = self.embedded(one(context))[:, 0], len(context[0]) + 1
        steps = []
        for k in range(len(x)):
            place = place_features(x[k].expand(len(total)), self.waves)
            y, log_prob = self.head.draw(torch.cat([total / (count + k), place], -1), noise[:, k])
            steps.append((y, log_prob))
            total = total + self.embed(pair_features((x[k].expand(len(y)), y), self.waves))
        y, log_probs = (torch.stack(parts, 1) for parts in zip(*steps, strict=True))
        return y, log_probs
