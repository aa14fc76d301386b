"""The buffered transformer in torch: one function, `run`, and the four steps that are calls of it.

Tokens are (B, R, T, W): B data sets, R replicas of each (draws, orders, parameter values), T tokens of width W. What
replicas share (a context, an observed buffer) is stored once, with r = 1, and read by all of them. `run` pushes tokens
through the layers while they read segments of keys and values that are there already, and each other as
`SelfAttention` says. The steps of the method (Hassan et al. 2026, section 3) differ in these arguments alone:

| step | tokens | read | each other |
|---|---|---|---|
| 1. `encode` the context, once | N pairs | nothing | all, as a set (R1, R3) |
| 2. `extend` the buffer | K pairs | context, buffer so far | no later one (R2) |
| 3. `step`: a pair enters, a target is predicted | both in turn | context, buffer | no later pair, no target |
| 4. `prepare` and `predict` targets | T targets | context, a prefix of the buffer, parameters | none (R4) |

Parameters (`encode_params`) are tokens that read each other, and that targets read in the top `param_depth` layers: so
nothing below depends on them, and for observed data steps 1, 2 and `prepare` are computed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ppl_buffer.network.backend import Trials
from ppl_buffer.network.embeddings import (
    embed_pairs,
    embed_params,
    embed_targets,
    lower_bounds_of,
    with_lower_bounds,
)
from ppl_buffer.network.masks import prefix_mask
from ppl_buffer.network.torch.attention import (
    KVSegment,
    PartialAttention,
    attention,
    merge,
    partial_attention,
    replicate,
)
from ppl_buffer.network.torch.cache import Cache, counts_reached, enter, first_tokens, mask_of, place, reads
from ppl_buffer.network.torch.layer import (
    count_tokens,
    finish_layer,
    key_values,
    no_counts,
    queries,
    read_apart,
    with_null,
)
from ppl_buffer.network.torch.ops import norm
from ppl_buffer.network.torch.weights import TorchNetwork


@dataclass
class EncodedParams:
    """What targets read of the parameters.

    Attributes:
        segments: one segment for each of the top `param_depth` layers; empty where no parameter is given.
        lower_bounds: (B, R, 1, 2 F), for each of the F outcomes that stay above a parameter: its value and 1, or 0 and
            0 where it is hidden. None without such outcomes.
    """

    segments: list[KVSegment]
    lower_bounds: Tensor | None


@dataclass
class PreparedTargets:
    """Target tokens as far as they do not depend on the parameters (R5).

    Attributes:
        tokens: (B, R, T, W), what enters the lowest layer that reads the parameters.
        query: (B, H, R, T, D), what that layer's queries say to the parameters' keys: no counts, hence no slopes.
        partial: that layer's attention over everything but the parameters.
        read: segments that the layers above read, a list a layer.
        counts: counts that ordered targets refer to, by layer.
        index: (B, r, K), which of the T targets each trial is; None where each is its own.
    """

    tokens: Tensor
    query: Tensor
    partial: PartialAttention
    read: dict[int, list[KVSegment]]
    counts: dict[int, Tensor] | None
    index: Tensor | None = None


@dataclass(frozen=True)
class SelfAttention:
    """How tokens of one pass read each other.

    Attributes:
        mask: which of them exist, (B, 1, r, 1, T); with `kv_buffer` who sees which of its places, broadcast against
            (B, 1, R, T, position + T / 2). None = all see all.
        causal: no token sees a later one.
        counted: (B, r, T), 1 for buffer tokens of an ordered model that count and 0 for others; None = none counts.
        kv_buffer: one allocated segment a layer. The tokens are pairs and targets in turn, T / 2 of each: the pairs'
            keys and values enter the buffer, then all tokens read it. None = the tokens' segments are new ones.
        position: first place in `kv_buffer` that the pairs take.
    """

    mask: Tensor | None = None
    causal: bool = False
    counted: Tensor | None = None
    kv_buffer: Sequence[KVSegment] | None = None
    position: int = 0


def encode(net: TorchNetwork, context: Trials, valid: Tensor | None) -> Cache:
    """Step 1: encode a context (B, r, N), of which `valid` (B, r, N) exist, None = all; a set, all see all (R1, R3).

    Where the network has latent tokens, these read the embedded context in each layer, and each other, and stand for it
    from then on: time grows with N in place of its square (Feng et al. 2023, arXiv 2211.08458).
    """
    tokens = embed_pairs(net, context, "context")
    if valid is not None:
        tokens = replicate(tokens, valid.shape[1], 1)
    layers, mask = range(net.config.depth), mask_of(valid)
    if not net.config.latents:
        return Cache(context=run(net, tokens, layers, {}, SelfAttention(mask))[1])
    read: dict[int, list[KVSegment]] = {}
    for index in layers:
        layer = f"layers.{index}"
        read[index] = [key_values(net, layer, norm(net, f"{layer}.norm_attention", tokens), mask=mask)]
    latents = net.weights["latents"].expand(*tokens.shape[:2], -1, -1)
    return Cache(context=run(net, latents, layers, read, SelfAttention())[1])


def extend(net: TorchNetwork, cache: Cache, pairs: Trials, valid: Tensor) -> Cache:
    """Step 2: let realised trials enter the buffer, causally (R2).

    Args:
        net: the network.
        cache: what was encoded and realised before.
        pairs: inputs, outcomes and feedback, each dict name -> (B, R, T).
        valid: (B, R, T) bool, which of them stand for a trial.
    """
    tokens = embed_pairs(net, pairs, "buffer")
    layers = range(net.config.depth)
    counted = valid.to(tokens.dtype) if net.schema.ordered else None
    counts = counts_reached(net, cache, torch.full((1,), cache.size, device=tokens.device))
    itself = SelfAttention(mask_of(valid), causal=True, counted=counted)
    _, new = run(net, tokens, layers, reads(cache, layers), itself, counts)
    if cache.buffer:
        new = [enter(old, segment, None) for old, segment in zip(cache.buffer, new, strict=True)]
        valid = place(cache.valid, valid, None, 1, 2)
    return Cache(cache.context, [replace(x, mask=None, causal_offset=None) for x in new], valid)


def step(
    net: TorchNetwork,
    cache: Cache,
    pairs: Trials,
    exists: Tensor,
    inputs: Mapping[str, Tensor],
    params: EncodedParams,
    position: int,
) -> tuple[Tensor, Cache]:
    """Step 3: let T realised trials enter an allocated buffer and predict T targets, all in one pass.

    Target t sees the context and the first `position` + t + 1 places of the buffer, the t + 1 new trials included: what
    `extend`, `prepare` and `predict` do one after another.

    Args:
        net: the network.
        cache: from `allocate`.
        pairs: inputs, outcomes and feedback of the realised trials, each dict name -> (B, R, T).
        exists: (B, R, T) bool, which of them stand for a trial.
        inputs: dict name -> (B, R, T), of the targets.
        params: from `encode_params`.
        position: place in the buffer of the first of them.

    Returns:
        what `predict` returns, and the cache.
    """
    depth, shape = net.config.depth, exists.shape
    targets = embed_targets(net, inputs, shape)
    tokens = torch.stack([embed_pairs(net, pairs, "buffer"), targets.expand(*shape, -1)], 3).flatten(2, 3)
    turn = torch.arange(2 * shape[2], device=tokens.device)
    is_target = (turn % 2 == 1)[:, None]
    read = {index: list(cache.context[index : index + 1]) for index in range(depth)}
    for index, segment in enumerate(params.segments, depth - net.config.param_depth):
        sees = is_target[None, None, None] if segment.mask is None else is_target & segment.mask
        read[index].append(replace(segment, mask=sees))
    valid = place(cache.valid, exists, position, 1, 2)
    mask = mask_of(valid[..., : position + shape[2]])
    if shape[2] > 1:
        mask = prefix_mask(torch, position + turn // 2 + 1, valid[..., : position + shape[2]])
    counted = None
    if net.schema.ordered:
        counted = torch.stack([exists, torch.zeros_like(exists)], 3).flatten(2, 3).to(tokens.dtype)
    counts = counts_reached(net, cache, torch.tensor([position], device=tokens.device))
    each_other = SelfAttention(mask, counted=counted, kv_buffer=cache.buffer, position=position)
    tokens, buffer = run(net, tokens, range(depth), read, each_other, counts)
    representation = with_lower_bounds(net, norm(net, "norm_out", tokens), params.lower_bounds)
    return representation, Cache(cache.context, buffer, valid)


def prepare(
    net: TorchNetwork,
    cache: Cache,
    inputs: Mapping[str, Tensor],
    visible: Tensor | None,
    shape: Sequence[int],
    causal_offset: int | None = None,
) -> PreparedTargets:
    """Step 4, first half: targets (B, R, T) go through the layers that do not read the parameters (R4, R5).

    Args:
        net: the network.
        cache: what was encoded and realised.
        inputs: dict name -> (B, R, T).
        visible: how many buffer tokens each target sees: (T,), or (B, R, T) in an exchangeable model; None = all.
        shape: (B, R, T).
        causal_offset: where `visible` is `causal_offset`, `causal_offset` + 1, ...: this number, which saves time.
    """
    depth = net.config.depth
    first = depth - net.config.param_depth
    tokens = embed_targets(net, inputs, shape)
    read = reads(cache, range(depth), visible, causal_offset)
    seen = torch.full((1,), cache.size, device=tokens.device) if visible is None else visible
    counts = counts_reached(net, cache, seen)
    tokens, _ = run(net, tokens, range(first), read, None, counts)
    layer = f"layers.{first}"
    reached = None if counts is None else counts[first]
    if net.schema.ordered and reached is None:
        reached = no_counts(net, tokens)
    x = norm(net, f"{layer}.norm_attention", tokens)
    query, together = queries(net, layer, x, reached), [each for each in read[first] if not each.apart]
    if len(together) < len(read[first]):
        tokens = tokens + read_apart(net, layer, x, [each for each in read[first] if each.apart])
    partial = partial_attention(query, with_null(net, layer, together))
    above = {index: read[index] for index in range(first + 1, depth)}
    return PreparedTargets(tokens, query[..., : net.config.width // net.config.heads], partial, above, counts)


def predict(net: TorchNetwork, prepared: PreparedTargets, params: EncodedParams) -> Tensor:
    """Step 4, second half: prepared targets read the parameters in the top layers.

    Args:
        net: the network.
        prepared: from `prepare`.
        params: from `encode_params`.

    Returns:
        representation (B, R, T, W) for the heads, and behind the W numbers `EncodedParams.lower_bounds`, if any.
    """
    depth = net.config.depth
    first = depth - net.config.param_depth
    tokens, partial, read = prepared.tokens, prepared.partial, prepared.read
    if params.segments:
        query, replicas = prepared.query, params.segments[0].keys.shape[2]
        if replicas > 1:
            query, tokens = replicate(query, replicas, 2), replicate(tokens, replicas, 1)
        partial = merge([partial, partial_attention(query, params.segments[:1])])
        read = {index: [*read[index], params.segments[index - first]] for index in range(first + 1, depth)}
    tokens = finish_layer(net, f"layers.{first}", tokens, partial.mean())
    tokens, _ = run(net, tokens, range(first + 1, depth), read, None, prepared.counts)
    return with_lower_bounds(net, norm(net, "norm_out", tokens), params.lower_bounds)


def encode_params(net: TorchNetwork, params: Mapping[str, Tensor], conditioned: Tensor | None = None) -> EncodedParams:
    """What targets read of the given parameters in the top `param_depth` layers and in the heads.

    Args:
        net: the network.
        params: dict name -> (B, R), in natural units. One that is left out has no token.
        conditioned: (B, R, P) bool, which of them are given; None = all.
    """
    lower_bounds = lower_bounds_of(net, params, conditioned)
    if not params:
        return EncodedParams([], lower_bounds)
    mask = None if conditioned is None else conditioned[:, None, :, None, :]
    layers = range(net.config.depth - net.config.param_depth, net.config.depth)
    return EncodedParams(run(net, embed_params(net, params), layers, {}, SelfAttention(mask))[1], lower_bounds)


def run(
    net: TorchNetwork,
    tokens: Tensor,
    layers: Iterable[int],
    read: Mapping[int, Sequence[KVSegment]],
    self_attention: SelfAttention | None = None,
    counts: Mapping[int, Tensor] | None = None,
) -> tuple[Tensor, list[KVSegment]]:
    """Push tokens (B, R, T, W) through layers.

    Args:
        net: the network.
        tokens: (B, R, T, W).
        layers: indices of the layers to run.
        read: layer -> segments that the tokens read; the null token comes by itself.
        self_attention: how they read each other; None = they do not.
        counts: layer -> counts (B, r, T or 1, G) that an ordered buffer had reached before these tokens.

    Returns:
        the tokens, and the segments that they made, one a layer, or the filled buffer. Nobody reads pairs after the
        last layer's keys: the targets alone go on there, and tokens that are all pairs stop.
    """
    made: list[KVSegment] = []
    start = no_counts(net, tokens) if net.schema.ordered and counts is None else None
    for index in layers:
        layer, last = f"layers.{index}", index == net.config.depth - 1
        x = norm(net, f"{layer}.norm_attention", tokens)
        reached, own_counts = start if counts is None else counts[index], None
        if self_attention is not None and self_attention.counted is not None:
            before = None if counts is None else reached
            reached = own_counts = count_tokens(net, layer, x, self_attention.counted, before)
        segments = list(read.get(index, ()))
        if self_attention is not None and self_attention.kv_buffer is not None:
            own = None if own_counts is None else own_counts[:, :, ::2]
            pairs = key_values(net, layer, x[:, :, ::2], own, of_buffer=True)
            made.append(enter(self_attention.kv_buffer[index], pairs, self_attention.position))
            filled = self_attention.position + pairs.values.shape[3]
            segments.append(first_tokens(made[-1], filled, self_attention.mask))
            if last:
                tokens, x, segments = tokens[:, :, 1::2], x[:, :, 1::2], [_for_targets(each) for each in segments]
                reached = None if reached is None else reached[:, :, 1::2]
        elif self_attention is not None:
            offset, of_buffer = (1 if self_attention.causal else None), self_attention.causal
            made.append(key_values(net, layer, x, own_counts, self_attention.mask, offset, of_buffer))
            segments.append(made[-1])
            if last:
                break
        query, together = queries(net, layer, x, reached), [each for each in segments if not each.apart]
        if len(together) < len(segments):
            tokens = tokens + read_apart(net, layer, x, [each for each in segments if each.apart])
        tokens = finish_layer(net, layer, tokens, attention(query, with_null(net, layer, together)))
    return tokens, made


def _for_targets(segment: KVSegment) -> KVSegment:
    """The same as targets see it, where pairs and targets come in turn."""
    mask = segment.mask
    return segment if mask is None or mask.shape[3] == 1 else replace(segment, mask=mask[:, :, :, 1::2])
