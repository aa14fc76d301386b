"""One transformer over pairs and targets, of which the rivals are special cases: who reads whom decides.

Pairs (x, y) are tokens that show themselves, targets x tokens that nobody reads. A context is encoded as a set, or
causally, or by latent tokens; realised pairs may follow it, each of which reads the context and the pairs before it;
a target reads the context and the first `visible` of these pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .layers import KeyValues, Layer, MixtureHead, Perceptron, Sizes, place_features

# x and y, each (B, N).
Pairs = tuple[Tensor, Tensor]


@dataclass
class Cache:
    """What later tokens read, a segment a layer.

    Attributes:
        context: of the context.
        pairs: of what was realised after it.
        size: how many pairs stand in both, for positions.
    """

    context: list[KeyValues]
    pairs: list[KeyValues] = field(default_factory=list)
    size: int = 0


class Backbone(nn.Module):
    """Embeddings, layers, and a head.

    Args:
        sizes: of the network.
        causal: a pair of the context reads only those before it.
        positions: pairs and targets know their place in the sequence (sines and cosines, Vaswani et al. 2017).
        latents: tokens that stand for the context in each layer; 0 = the context's own pairs do.
    """

    def __init__(self, sizes: Sizes, causal: bool = False, positions: bool = False, latents: int = 0) -> None:
        super().__init__()
        self.causal, self.positions = causal, positions
        self.waves = sizes.waves
        self.embed_pair = Perceptron(sizes.places + 1, sizes.mlp, sizes.width)
        self.embed_target = Perceptron(sizes.places, sizes.mlp, sizes.width)
        self.role = nn.ParameterDict({name: torch.zeros(sizes.width) for name in ("context", "buffer", "target")})
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.depth))
        self.norm_out, self.head = nn.LayerNorm(sizes.width), MixtureHead(sizes)
        self.latents = nn.Parameter(torch.zeros((latents, sizes.width))) if latents else None
        self.layers_reading = nn.ModuleList(Layer(sizes) for _ in range(sizes.depth if latents else 0))

    def encode(self, context: Pairs) -> Cache:
        """Encode a context of N >= 0 pairs."""
        size = context[0].shape[1]
        tokens = self.pair_tokens(context, "context", 0)
        if self.latents is not None:
            return Cache(self._encode_latents(tokens), size=size)
        mask = torch.ones((size, size), dtype=torch.bool, device=tokens.device).tril() if self.causal else None
        made = []
        for layer in self.layers:
            made.append(layer.keys_values(tokens))
            tokens = layer(tokens, [made[-1]._replace(mask=mask)])
        return Cache(made, size=size)

    def _encode_latents(self, tokens: Tensor) -> list[KeyValues]:
        """Latents read the pairs, then each other; what later tokens read of a layer is what they show each other."""
        assert self.latents is not None
        latents, made = self.latents.expand(len(tokens), -1, -1), []
        for reading, layer in zip(self.layers_reading, self.layers, strict=True):
            latents = reading(latents, [reading.keys_values(tokens)])
            made.append(layer.keys_values(latents))
            latents = layer(latents, made[-1:])
        return made

    def extend(self, cache: Cache, pairs: Pairs) -> Cache:
        """Let pairs follow, causally; in a causal network they are no other tokens than the context's."""
        count = pairs[0].shape[1]
        tokens = self.pair_tokens(pairs, "context" if self.causal else "buffer", cache.size)
        mask = torch.ones((count, count), dtype=torch.bool, device=tokens.device).tril() if count > 1 else None
        made = []
        for index, layer in enumerate(self.layers):
            new, before = layer.keys_values(tokens), cache.pairs[index : index + 1]
            tokens = layer(tokens, [cache.context[index], *before, new._replace(mask=mask)])
            made.append(_join(before[0], new) if before else new)
        return Cache(cache.context, made, cache.size + count)

    def represent(self, cache: Cache, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """What the head reads of targets x (B, T): (B, T, W).

        Args:
            cache: what was encoded and realised.
            x: where.
            visible: (T,) or (B, T), how many of the realised pairs each target sees; None = all.
        """
        realised = cache.pairs[0].keys.shape[2] if cache.pairs else 0
        tokens = self.target_tokens(x)
        if self.positions:
            seen = torch.full((), realised, device=x.device) if visible is None else visible
            tokens = tokens + sines(cache.size - realised + seen, tokens.shape[-1])
        mask = None
        if visible is not None:
            mask = (torch.arange(realised, device=x.device) < visible[..., None])[..., None, :, :]
        for index, layer in enumerate(self.layers):
            pairs = [each._replace(mask=mask) for each in cache.pairs[index : index + 1]]
            tokens = layer(tokens, [cache.context[index], *pairs])
        return self.norm_out(tokens)

    def target_tokens(self, x: Tensor) -> Tensor:
        """Tokens (B, T, W) of targets x (B, T), as they enter the first layer; positions aside."""
        return self.embed_target(place_features(x, self.waves)) + self.role["target"]

    def pair_tokens(self, pairs: Pairs, role: str, start: int) -> Tensor:
        """Tokens (B, N, W) of pairs, as they enter the first layer, the first of which has the position `start`."""
        tokens = self.embed_pair(pair_features(pairs, self.waves)) + self.role[role]
        if self.positions:
            places = start + torch.arange(pairs[0].shape[1], device=tokens.device)
            tokens = tokens + sines(places, tokens.shape[-1])
        return tokens


def _join(first: KeyValues, second: KeyValues) -> KeyValues:
    return KeyValues(*(torch.cat([a, b], 2) for a, b in zip(first[:2], second[:2], strict=True)))


def pair_features(pairs: Pairs, waves: int) -> Tensor:
    """(B, N, numbers of a place + 1) of pairs (B, N)."""
    return torch.cat([place_features(pairs[0], waves), pairs[1][..., None]], -1)


def sines(places: Tensor, width: int) -> Tensor:
    """(..., width): sines and cosines of places, at wavelengths from 6 to 60,000."""
    rates = torch.exp(torch.arange(0, width, 2, device=places.device) * (-math.log(10_000.0) / width))
    angles = places[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


def marginal_log_prob(net: Backbone, context: Pairs, x: Tensor, y: Tensor) -> Tensor:
    """Log density (B, T) of each target given the context alone."""
    return net.head.log_prob(net.represent(net.encode(context), x), y)


def joint_log_prob(net: Backbone, context: Pairs, x: Tensor, y: Tensor) -> Tensor:
    """Log density (B, T) of each target given the context and the targets before it, in one pass."""
    cache = net.extend(net.encode(context), (x, y))
    return net.head.log_prob(net.represent(cache, x, torch.arange(x.shape[1], device=x.device)), y)


def one(context: Pairs) -> Pairs:
    """A single context (N,) as a batch of one."""
    return context[0][None], context[1][None]


def repeated(context: Pairs, count: int) -> Pairs:
    """A single context (N,) as a batch of so many."""
    return context[0].expand(count, -1), context[1].expand(count, -1)


@torch.no_grad()
def rollout(net: Backbone, context: Pairs, x: Tensor, noise: Tensor) -> Pairs:
    """Draw targets one after another, the context encoded once and each drawn pair entering the cache.

    Args:
        net: the network.
        context: (1, N) each, which all draws share, or (S, N).
        x: (M,).
        noise: uniform numbers (S, M, 2).

    Returns:
        outcomes and the log densities that they were drawn from, each (S, M).
    """
    cache, draws = net.encode(context), len(noise)
    steps = []
    for k in range(len(x)):
        # Where draws share a context they are the same before anything is drawn.
        representation = net.represent(cache, x[k].expand(draws if k else len(context[0]), 1))
        steps.append(net.head.draw(representation, noise[:, k : k + 1]))
        if k + 1 < len(x):
            cache = net.extend(cache, (x[k].expand(draws, 1), steps[-1][0]))
    y, log_probs = (torch.cat(parts, 1) for parts in zip(*steps, strict=True))
    return y, log_probs


@torch.no_grad()
def draw_by_steps(step: Callable[[int, Tensor, Tensor], Pairs], x: Tensor, noise: Tensor) -> Pairs:
    """Draw targets one after another without a cache.

    Args:
        step: (k, outcomes so far (S or 1, k), uniform numbers (S, 2)) -> outcome and log density, each (S,).
        x: (M,).
        noise: uniform numbers (S, M, 2).

    Returns:
        outcomes and the log densities that they were drawn from, each (S, M).
    """
    y = noise.new_zeros((len(noise), 0))
    log_probs = []
    for k in range(len(x)):
        outcome, log_prob = step(k, y if k else y[:1], noise[:, k])
        y = torch.cat([y, outcome[:, None]], 1)
        log_probs.append(log_prob)
    return y, torch.stack(log_probs, 1)
