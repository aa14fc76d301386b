"""What a TNP-D shows to a buffer that `ppl_buffer.add_buffer_to_module` adds to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import KeyValues, Layer, MixtureHead
from .tnp_d import SetPredictor


@dataclass(frozen=True)
class Outcomes:
    """Distributions of targets, whose representation the head reads."""

    head: MixtureHead
    representation: Tensor

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density (B, T)."""
        return self.head.log_prob(self.representation, value)

    def sample(self) -> Tensor:
        """Outcomes (B, T)."""
        return self.head.draw(self.representation, torch.rand((*self.representation.shape[:-1], 2)))[0]


class Shown(nn.Module):
    """What a set predictor shows to a buffer: the protocol `ppl_buffer.training.set_predictor.SetPredictor`."""

    def __init__(self, net: SetPredictor) -> None:
        super().__init__()
        self.backbone = net.backbone

    def encode(self, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer, the null token's before the context's."""
        cache = self.backbone.encode((x, y))
        return [
            (torch.cat([null_key, read.keys], 2), torch.cat([null_value, read.values], 2))
            for read, layer in zip(cache.context, self.backbone.layers, strict=True)
            for null_key, null_value in [layer.null.expand(-1, len(x), -1, -1, -1)]
        ]

    def embed_pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """Tokens of points."""
        return self.backbone.pair_tokens((x, y), "context", 0)

    def embed_targets(self, x: Tensor) -> Tensor:
        """Tokens of targets."""
        return self.backbone.target_tokens(x)

    def queries(self, layer: int, tokens: Tensor) -> Tensor:
        """Queries."""
        return self._layer(layer).queries(tokens)

    def keys_values(self, layer: int, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values."""
        made: KeyValues = self._layer(layer).keys_values(tokens)
        return made.keys, made.values

    def finish(self, layer: int, tokens: Tensor, read: Tensor) -> Tensor:
        """Tokens after the layer."""
        return self._layer(layer).finish(tokens, read)

    def predict(self, tokens: Tensor) -> Outcomes:
        """The head's mixtures."""
        return Outcomes(self.backbone.head, self.backbone.norm_out(tokens))

    def _layer(self, index: int) -> Layer:
        layer = self.backbone.layers[index]
        assert isinstance(layer, Layer)
        return layer
