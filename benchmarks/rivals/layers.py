"""What all rivals are made of: sizes, perceptrons, one attention layer, the mixture head, and how weights begin.

As in our network, so that rivals differ in who reads whom and in nothing else: layers normalise first (Xiong et al.
2020, arXiv 2002.04745), a learned null token stands before all keys, so that a token may read nothing else, and weights
begin alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST_SCALE = 1e-3
# Of a place, in its units.
LONGEST_WAVE = 4.0


@dataclass(frozen=True)
class Sizes:
    """Those of `ppl_buffer.Config`, under the same names; and how finely a place is read.

    Attributes:
        waves: sines and cosines of a place that are read beside it, an octave apart.
    """

    width: int = 64
    depth: int = 4
    heads: int = 4
    mlp: int = 128
    components: int = 20
    waves: int = 0

    @property
    def places(self) -> int:
        """Numbers that describe a place."""
        return 1 + 2 * self.waves


def place_features(x: Tensor, waves: int) -> Tensor:
    """(..., 1 + 2 waves): a place, and its sines and cosines at wavelengths 4, 2, 1, ... (Tancik et al. 2020)."""
    angles = x[..., None] * (2 * math.pi / LONGEST_WAVE) * 2.0 ** torch.arange(waves, device=x.device)
    return torch.cat([x[..., None], angles.sin(), angles.cos()], -1)


class KeyValues(NamedTuple):
    """What tokens show to others at one layer.

    Attributes:
        keys: (B, H, T, D); B = 1 where all data sets, or draws, read the same.
        values: (B, H, T, D).
        mask: who sees which of them, broadcast against (B, H, queries, T); None = all see all.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None = None


class Perceptron(nn.Module):
    """One hidden layer, or more."""

    def __init__(self, inputs: int, hidden: int, outputs: int, layers: int = 1) -> None:
        super().__init__()
        sizes = [inputs, *[hidden] * layers]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.out = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = functional.silu(layer(x))
        return self.out(x)


class Layer(nn.Module):
    """Attention to given keys and values and to a null token, and a perceptron."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, self.heads = sizes.width, sizes.heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value, self.merge = (nn.Linear(width, n * width) for n in (1, 2, 1))
        self.mlp = Perceptron(width, sizes.mlp, width)
        null = (2, 1, self.heads, 1, width // self.heads)
        self.null = nn.Parameter(torch.zeros(null))

    def keys_values(self, tokens: Tensor) -> KeyValues:
        """What tokens (B, T, W) show at this layer."""
        both = self.key_value(self.norm_attention(tokens)).unflatten(-1, (2 * self.heads, -1)).transpose(1, 2)
        return KeyValues(*both.chunk(2, 1))

    def queries(self, tokens: Tensor) -> Tensor:
        """Queries (B, H, T, D) of tokens (B, T, W)."""
        return self.query(self.norm_attention(tokens)).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, tokens: Tensor, read: Sequence[KeyValues]) -> Tensor:
        """Tokens (B, T, W) that have read."""
        query = self.queries(tokens)
        return self.finish(tokens, attend(query / math.sqrt(query.shape[-1]), [KeyValues(*self.null), *read]))

    def finish(self, tokens: Tensor, heads: Tensor) -> Tensor:
        """Tokens (B, T, W) whose heads have read (B, H, T, D)."""
        tokens = tokens + self.merge(heads.transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.norm_mlp(tokens))


def attend(query: Tensor, read: Sequence[KeyValues]) -> Tensor:
    """Mean (B, H, T, D) of the values that queries (B, H, T, D) read, by one softmax over all segments.

    By torch's fused attention, unless draws share a long segment, which they would then have a copy of each.
    """
    batch = len(query)
    if all(len(segment.keys) == batch or segment.keys.shape[2] == 1 for segment in read):
        keys, values = (
            torch.cat([part.expand(batch, -1, -1, -1) for part in parts], 2)
            for parts in zip(*(segment[:2] for segment in read), strict=True)
        )
        return functional.scaled_dot_product_attention(query, keys, values, attn_mask=_joined_mask(read), scale=1.0)
    scores = []
    for segment in read:
        score = _times_shared(query, segment.keys.mT)
        scores.append(score if segment.mask is None else score.masked_fill(~segment.mask, -math.inf))
    weights = torch.cat(scores, -1).softmax(-1).split([segment.keys.shape[2] for segment in read], -1)
    return sum(_times_shared(w, segment.values) for w, segment in zip(weights, read, strict=True))


def _joined_mask(read: Sequence[KeyValues]) -> Tensor | None:
    """The masks of segments behind each other."""
    lead = [segment.mask.shape[:-1] for segment in read if segment.mask is not None]
    if not lead:
        return None
    shape, device = torch.broadcast_shapes(*lead), read[0].keys.device
    everything = torch.ones((), dtype=torch.bool, device=device)
    masks = [everything if segment.mask is None else segment.mask for segment in read]
    return torch.cat(
        [mask.expand(*shape, segment.keys.shape[2]) for mask, segment in zip(masks, read, strict=True)], -1
    )


def _times_shared(x: Tensor, y: Tensor) -> Tensor:
    """X (B, H, T, E) @ y (B or 1, H, E, F); where all share y, as the rows of one product."""
    batch, count = x.shape[0], x.shape[2]
    if y.shape[0] == batch:
        return x @ y
    product = x.transpose(0, 1).flatten(1, 2) @ y[0]
    return product.unflatten(1, (batch, count)).transpose(0, 1)


class MixtureHead(nn.Module):
    """A mixture of Gaussians of one outcome."""

    def __init__(self, sizes: Sizes, inputs: int | None = None, layers: int = 1) -> None:
        super().__init__()
        self.perceptron = Perceptron(inputs or sizes.width, sizes.mlp, 3 * sizes.components, layers)

    def _mixture(self, representation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, means, scales = self.perceptron(representation).chunk(3, -1)
        return logits, means, functional.softplus(scales) + LEAST_SCALE

    def log_prob(self, representation: Tensor, y: Tensor) -> Tensor:
        """Log density (...) of outcomes (...) given representations (..., W)."""
        logits, means, scales = self._mixture(representation)
        log_normal = -0.5 * ((y[..., None] - means) / scales) ** 2 - scales.log() - 0.5 * math.log(2 * math.pi)
        return (logits.log_softmax(-1) + log_normal).logsumexp(-1)

    def draw(self, representation: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Outcomes and their log densities, each (...), from uniform numbers (..., 2)."""
        logits, means, scales = self._mixture(representation)
        below = logits.softmax(-1).cumsum(-1)[..., :-1]
        shape = torch.broadcast_shapes(below.shape[:-1], uniform.shape[:-1])
        component = (uniform[..., :1] >= below).sum(-1, keepdim=True)
        mean, scale = (part.expand(*shape, -1).gather(-1, component)[..., 0] for part in (means, scales))
        y = mean + scale * torch.special.ndtri(uniform[..., 1])
        return y, self.log_prob(representation, y)


@torch.no_grad()
def initialise(module: nn.Module, sizes: Sizes, seed: int) -> None:
    """Draw weights as our network does: matrices by their inputs, less where layers add up, little in the head."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        if "norm" in name:
            continue
        if name.endswith("bias"):
            weight.zero_()
            if "head" in name and "out" in name and len(weight) == 3 * sizes.components:
                weight[sizes.components : 2 * sizes.components] = torch.linspace(-1.5, 1.5, sizes.components)
            continue
        scale = 1 / math.sqrt(weight.shape[-1]) if name.endswith("weight") else 0.02
        if name.endswith(("merge.weight", "mlp.out.weight")):
            scale /= math.sqrt(2 * sizes.depth)
        if "head" in name and name.endswith("out.weight"):
            scale *= 0.1
        weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
