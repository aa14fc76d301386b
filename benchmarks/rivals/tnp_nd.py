"""TNP-ND: a set predictor whose head gives all targets one normal distribution.

Nguyen & Grover (2022), "Transformer neural processes", arXiv 2207.04179: the non-diagonal variant. Targets read the
context, then, in three layers of the head, each other, and give a mean and a row h of 20 numbers each. With the rows in
a matrix H, the Cholesky factor of their covariance is the lower triangle of H H'. A factor that is made so belongs to
the order of the targets: of two targets the first has the variance |h_1|^4, and the second the variance
(h_1 h_2)^2 + |h_2|^4, so that each has another variance where the two change places. `by_diagonal` instead takes the
covariance H H' + diag(s^2), which permutes with the targets, as a joint distribution of a set of points must.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .backbone import Backbone, Pairs, one
from .batch import Batch
from .layers import LEAST_SCALE, Layer, Perceptron, Sizes, initialise

_RANK = 20
_LAYERS = 3


class TNPND(nn.Module):
    """The network.

    Args:
        sizes: of the network.
        seed: of the weights.
        by_diagonal: the covariance is a matrix of low rank and a diagonal; else its factor is the lower triangle.
    """

    def __init__(self, sizes: Sizes, seed: int, by_diagonal: bool = False) -> None:
        super().__init__()
        self.by_diagonal = by_diagonal
        self.backbone = Backbone(sizes)
        self.backbone.head.requires_grad_(False)  # not used
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(_LAYERS))
        self.norm_joint = nn.LayerNorm(sizes.width)
        self.mean = Perceptron(sizes.width, sizes.mlp, 1)
        self.rows = Perceptron(sizes.width, sizes.mlp, _RANK + int(by_diagonal))
        initialise(self, sizes, seed)

    def distribution(self, context: Pairs, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, M) and Cholesky factor (B, M, M) of the targets."""
        tokens = self.backbone.represent(self.backbone.encode(context), x)
        mean = self.mean(tokens)[..., 0]
        for layer in self.layers:
            tokens = layer(tokens, [layer.keys_values(tokens)])
        rows = self.rows(self.norm_joint(tokens))
        low = rows[..., :_RANK] / math.sqrt(_RANK)
        product = low @ low.mT
        if not self.by_diagonal:
            return mean, product.tril() + LEAST_SCALE * torch.eye(x.shape[1], device=x.device)
        scale = functional.softplus(rows[..., _RANK]) + LEAST_SCALE
        # Small diagonals beside large products: in double precision.
        factor = torch.linalg.cholesky(product.double() + torch.diag_embed(scale.double() ** 2))
        return mean, factor.to(mean.dtype)

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log density a point of all points after the context, jointly."""
        return -self.log_prob(batch.context, *batch.rest).mean()

    def log_prob(self, context: Pairs, x: Tensor, y: Tensor) -> Tensor:
        """Log density (B, M) of each target given the context and the targets before it."""
        mean, factor = self.distribution(context, x)
        return _log_prob(factor, torch.linalg.solve_triangular(factor, (y - mean)[..., None], upper=False)[..., 0])

    @torch.no_grad()
    def sample(self, context: Pairs, x: Tensor, noise: Tensor) -> Pairs:
        """Draws and their log densities, each (S, M): one pass for all."""
        mean, factor = self.distribution(one(context), x[None])
        white = torch.special.ndtri(noise[..., 1])
        return mean + white @ factor[0].mT, _log_prob(factor, white)


def _log_prob(factor: Tensor, white: Tensor) -> Tensor:
    """Terms (..., M) of the log density, in order, of what a Cholesky factor made of standard normal numbers."""
    return -0.5 * white**2 - factor.diagonal(dim1=-2, dim2=-1).log() - 0.5 * math.log(2 * math.pi)
