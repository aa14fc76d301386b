"""The buffered transformer in torch: embeddings, the layer, and the three verbs encode, extend and predict.

Tokens are (B, R, T, W): B data sets, R replicas of each (draws, orders, parameter values), T tokens of width W.
What replicas share (a context, an observed buffer) is stored once, with R = 1, and read by all of them through one
matrix product. Every mode of use is one call of `run`, which pushes tokens through the layers while they read
`Segment`s of keys and values that are already there; who may see whom is the list of segments and their masks.
`ppl_buffer/jax/network.py` mirrors this file function by function.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ppl_buffer.network.embeddings import embed_pairs, embed_params, embed_targets, linear, norm, perceptron
from ppl_buffer.network.masks import prefix_mask
from ppl_buffer.network.torch.weights import TorchNetwork

# Queries of a causal read that are computed together.
_QUERIES_AT_ONCE = 64

# Scores that a processor computes together: few enough to stay in a core's cache.
_SCORES_AT_ONCE = 2**18

# Score of a key that must not be seen: beside any other, its weight underflows to an exact zero.
_HIDDEN = -1e30

# Attention that also gives the logarithm of its total, which readings are joined by: torch's kernel for processors.
_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)

# Fewer queries a key than this, and the kernel takes longer than two products.
_FLASH_QUERIES = 32


@dataclass
class KVSegment:
    """Keys and values of one kind of token at one layer, as other tokens read them.

    Attributes:
        keys: (B, H, r, N, E), r = R or 1. E is the head's size, and counters + 2 more in an ordered buffer.
        values: (B, H, r, N, D).
        mask: who sees what, broadcast against (B, 1, R, T, N); None = everybody sees everything.
        counts: (B, r, N, G), what the counters say at each token, itself included; an ordered buffer only.
        stairs: if not None, query t sees none but the first `stairs` + t keys, whatever the mask says.
        front: of an allocated buffer, how many keys stand before its tokens for everybody to see: the null token, and a
            context that replicas do not share. So a rollout reads all of them at once.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None = None
    counts: Tensor | None = None
    stairs: int | None = field(default=None, metadata={"static": True})
    front: int = field(default=0, metadata={"static": True})


@dataclass
class PartialAttention:
    """Attention over some segments, before it is joined with the rest inside the same softmax.

    Attributes:
        top: a number near the largest score, (B, H, R, T, 1).
        total: sum of exp(score - top), (B, H, R, T, 1).
        weighted: sum of exp(score - top) * value, (B, H, R, T, D).
    """

    top: Tensor
    total: Tensor
    weighted: Tensor


@dataclass
class Cache:
    """What predictions read: segments of context and buffer, a pair a layer.

    Attributes:
        context: one segment a layer; empty without a context.
        buffer: one segment a layer; empty as long as nothing was realised.
        valid: (B, r, K), which buffer tokens stand for a trial.
    """

    context: list[KVSegment] = field(default_factory=list)
    buffer: list[KVSegment] = field(default_factory=list)
    valid: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of buffer tokens."""
        return self.buffer[0].keys.shape[3] - self.buffer[0].front if self.buffer else 0


def _heads(net: TorchNetwork, x: Tensor) -> Tensor:
    """(B, R, T, H * D) -> (B, H, R, T, D)."""
    return x.unflatten(-1, (net.config.heads, -1)).movedim(-2, 1)


def counts_before(segment: KVSegment, visible: Tensor) -> Tensor:
    """What the counters say to a token that sees the first `visible` (T,) buffer tokens: (B, r, T, G)."""
    assert segment.counts is not None
    padded = functional.pad(segment.counts, (0, 0, 1, 0))
    return padded[:, :, visible]


def attention(query: Tensor, segments: Sequence[KVSegment]) -> Tensor:
    """Mean (B, H, R, T, D) of the values that queries (B, H, R, T, E) read in segments, by one softmax."""
    joined = _concatenate(segments)
    if len(joined) == 1:
        return _read(query, joined[0], total=False)[0]
    reading = join([_reading(query, segment) for segment in joined])
    return reading.weighted / reading.total


def read(query: Tensor, segments: Sequence[KVSegment]) -> PartialAttention:
    """Let queries (B, H, R, T, E) read segments."""
    return join([_reading(query, segment) for segment in _concatenate(segments)])


def _reading(query: Tensor, segment: KVSegment) -> PartialAttention:
    mean, log_total = _read(query, segment, total=True)
    assert log_total is not None
    return PartialAttention(log_total, torch.ones_like(log_total), mean)


def _concatenate(segments: Sequence[KVSegment]) -> list[KVSegment]:
    """The same keys in one segment, or two: what replicas share stays stored once."""
    shared = [x for x in segments if x.keys.shape[2] == 1]
    private = [x for x in segments if x.keys.shape[2] > 1]
    return [x for group in (shared, private) for x in _concatenate_alike(group)]


def _concatenate_alike(group: list[KVSegment]) -> list[KVSegment]:
    if len(group) < 2:
        return group
    # What all queries see stands before stairs.
    *front, last = sorted(group, key=lambda x: x.stairs is not None)
    batch = max([x.keys.shape[0] for x in group])
    size = max([x.keys.shape[-1] for x in group])
    keys = torch.cat([_replicate(_widen(x.keys, size), batch, 0) for x in (*front, last)], 3)
    values = torch.cat([_replicate(x.values, batch, 0) for x in (*front, last)], 3)
    stairs = None if last.stairs is None else last.stairs + keys.shape[3] - last.keys.shape[3]
    return [KVSegment(keys, values, _concatenate_masks((*front, last)), None, stairs)]


def _widen(keys: Tensor, size: int) -> Tensor:
    # A parameter's keys have no counts: they add nothing to the score.
    return keys if keys.shape[-1] == size else functional.pad(keys, (0, size - keys.shape[-1]))


def _concatenate_masks(segments: Sequence[KVSegment]) -> Tensor | None:
    if all([x.mask is None for x in segments]):
        return None
    masks = []
    for segment in segments:
        shape = (1, 1, 1, 1, segment.keys.shape[3])
        mask = torch.ones(shape, dtype=torch.bool, device=segment.keys.device)
        masks.append(mask if segment.mask is None else segment.mask.expand(*segment.mask.shape[:-1], shape[-1]))
    lead = torch.broadcast_shapes(*(mask.shape[:-1] for mask in masks))
    return torch.cat([mask.expand(*lead, -1) for mask in masks], -1)


def _read(query: Tensor, segment: KVSegment, total: bool) -> tuple[Tensor, Tensor | None]:
    """Mean of the values (B, H, R, T, D), and with `total` the log of the sum of exp(score) (B, H, R, T, 1)."""
    query = query[..., : segment.keys.shape[-1]]
    batch, heads, replicas, count = query.shape[:4]
    if segment.stairs is not None and count > _QUERIES_AT_ONCE:
        # Half of a causal square is hidden: in strips of queries, most of that half is never computed.
        return _read_parts(query, segment, total, 3, _QUERIES_AT_ONCE)
    if _has_kernel(query, segment):
        return _read_with_kernel(query, segment)
    if query.device.type == "cpu":
        at_once = max(1, _SCORES_AT_ONCE // (heads * count * segment.keys.shape[3]))
        if batch > 1 and batch * replicas > at_once:
            return _read_parts(query, segment, total, 0, max(1, at_once // replicas))
        if replicas > at_once:
            return _read_parts(query, segment, total, 2, at_once)
    return _read_whole(query, segment, total)


def _read_parts(query: Tensor, segment: KVSegment, total: bool, axis: int, size: int) -> tuple[Tensor, Tensor | None]:
    """`_read`, `size` data sets (axis 0), replicas (2) or queries (3) at a time."""
    queries = query.split(size, axis)

    def pieces(x: Tensor | None) -> Sequence[Any]:
        return [x] * len(queries) if x is None or x.shape[axis] == 1 else x.split(size, axis)

    masks = pieces(segment.mask)
    if axis == 3:
        assert segment.stairs is not None
        parts = []
        for start, mask in zip(range(0, query.shape[3], size), masks, strict=True):
            stairs = segment.stairs + start
            seen = min(stairs + size, segment.stairs + query.shape[3]) - 1
            keys, values = segment.keys[:, :, :, :seen], segment.values[:, :, :, :seen]
            parts.append(KVSegment(keys, values, None if mask is None else mask[..., :seen], None, stairs))
    else:
        cut = zip(pieces(segment.keys), pieces(segment.values), masks, strict=True)
        parts = [KVSegment(keys, values, mask, None, segment.stairs) for keys, values, mask in cut]
    means, totals = zip(*(_read(*part, total) for part in zip(queries, parts, strict=True)), strict=True)
    return torch.cat(means, axis), torch.cat(totals, axis) if total else None


def _bias(query: Tensor, segment: KVSegment) -> Tensor | None:
    """What mask and stairs add to the scores, broadcast against (B, 1, R, T, N): adding costs less than choosing."""
    bias = None
    if segment.mask is not None:
        bias = torch.where(segment.mask, 0.0, _HIDDEN).to(query.dtype)
    if segment.stairs is not None and segment.stairs < segment.keys.shape[3]:
        seen = segment.stairs + torch.arange(query.shape[3], device=query.device)
        hidden = torch.arange(segment.keys.shape[3], device=query.device) >= seen[:, None]
        steps = (hidden * torch.tensor(_HIDDEN, dtype=query.dtype, device=query.device))[None, None, None]
        bias = steps if bias is None else bias + steps
    return bias


def _read_whole(query: Tensor, segment: KVSegment, total: bool) -> tuple[Tensor, Tensor | None]:
    keys, values, bias = segment.keys, segment.values, _bias(query, segment)
    replicas, count = query.shape[2:4]
    shared = keys.shape[2] == 1 and replicas > 1
    if shared:
        # All replicas in the rows of one product.
        query = query.flatten(2, 3)[:, :, None]
        if bias is not None:
            bias = bias.expand(-1, -1, replicas, count, -1).flatten(2, 3)[:, :, None]
    scores = query @ keys.mT
    if bias is not None:
        scores = scores + bias
    weights = scores.softmax(-1)
    mean = weights @ values
    # The largest weight is 1 / total: a maximum and a fused softmax take half the time of exponentials and their sum.
    log_total = scores.amax(-1, keepdim=True) - weights.amax(-1, keepdim=True).log() if total else None
    if shared:
        mean = mean.squeeze(2).unflatten(2, (replicas, count))
        log_total = None if log_total is None else log_total.squeeze(2).unflatten(2, (replicas, count))
    return mean, log_total


def _has_kernel(query: Tensor, segment: KVSegment) -> bool:
    """Whether torch's fused attention can read the segment, and is faster: it has no derivative of its total."""
    keys, values = segment.keys, segment.values
    return (
        _FLASH is not None
        and query.device.type == "cpu"
        and keys.shape[2] == 1
        and keys.shape[-1] == values.shape[-1]
        and query.shape[2] * query.shape[3] >= _FLASH_QUERIES
        and not (torch.is_grad_enabled() and (query.requires_grad or keys.requires_grad or values.requires_grad))
        and all([_is_plain(x) for x in (query, keys, values)])
    )


def _is_plain(x: Tensor) -> bool:
    """Whether a tensor holds numbers itself. The transforms of torch.func wrap them, and do not know the kernel."""
    try:
        return x.data_ptr() != 0
    except RuntimeError:
        return False


def _read_with_kernel(query: Tensor, segment: KVSegment) -> tuple[Tensor, Tensor]:
    replicas, count = query.shape[2:4]
    bias = _bias(query, segment)
    if bias is not None:
        bias = bias.expand(-1, -1, replicas, count, -1).flatten(2, 3)
    # The kernel checks no shapes: what data sets share has to be expanded.
    batch = max(query.shape[0], segment.keys.shape[0])
    query, keys, values = (
        x.expand(batch, -1, -1, -1) for x in (query.flatten(2, 3), segment.keys[:, :, 0], segment.values[:, :, 0])
    )
    assert _FLASH is not None
    mean, log_total = _FLASH(query, keys, values, attn_mask=bias, scale=1.0)
    return mean.unflatten(2, (replicas, count)), log_total.unflatten(2, (replicas, count))[..., None]


def join(readings: Sequence[PartialAttention]) -> PartialAttention:
    """Bring readings of several segments into one softmax."""
    if len(readings) == 1:
        return readings[0]
    top = readings[0].top
    for reading in readings[1:]:
        top = torch.maximum(top, reading.top)
    scales = [(reading.top - top).exp() for reading in readings]
    total = sum(reading.total * scale for reading, scale in zip(readings, scales, strict=True))
    weighted = sum(reading.weighted * scale for reading, scale in zip(readings, scales, strict=True))
    return PartialAttention(top, total, weighted)  # type: ignore[arg-type]


def query_keys(net: TorchNetwork, layer: str, x: Tensor, reference: Tensor | None) -> Tensor:
    """Queries (B, H, R, T, E) of normalised tokens x (B, R, T, W).

    In an ordered model a query carries slopes s and its own counts c: against a key with counts c' the score gains
    s * (c' - c), which is at most zero; see `docs/design.md`, "Distances that count".
    """
    query = _heads(net, linear(net, f"{layer}.query", x)) / math.sqrt(net.config.width // net.config.heads)
    if reference is None:
        return query
    slopes = _heads(net, functional.softplus(linear(net, f"{layer}.slope", x)))
    here = (slopes * reference[:, None]).sum(-1, keepdim=True)
    return torch.cat([query, slopes, -here], -1)


def own_segment(
    net: TorchNetwork,
    layer: str,
    x: Tensor,
    counts: Tensor | None = None,
    mask: Tensor | None = None,
    stairs: int | None = None,
) -> KVSegment:
    """Keys and values of normalised tokens x (B, R, T, W)."""
    keys, values = linear(net, f"{layer}.key_value", x).chunk(2, -1)
    keys, values = _heads(net, keys), _heads(net, values)
    if counts is not None:
        spread = counts[:, None].expand(-1, net.config.heads, -1, -1, -1)
        keys = torch.cat([keys, spread, torch.ones_like(spread[..., :1])], -1)
    return KVSegment(keys, values, mask, counts, stairs)


def null_segment(net: TorchNetwork, layer: str) -> KVSegment:
    """The learned token that everybody sees. In an ordered model it stands before the first trial: all counts 0."""
    keys, values = net.weights[f"{layer}.null_key"], net.weights[f"{layer}.null_value"]
    if net.schema.ordered:
        counts = keys.new_zeros((keys.shape[0], net.config.contextual_positions + 1))
        keys = torch.cat([keys, counts, torch.ones_like(counts[:, :1])], -1)
    return KVSegment(keys[None, :, None, None, :], values[None, :, None, None, :])


def finish_layer(net: TorchNetwork, layer: str, tokens: Tensor, heads: Tensor) -> Tensor:
    """Merge what the heads read (B, H, R, T, D) into the tokens, then the layer's perceptron."""
    tokens = tokens + linear(net, f"{layer}.merge", heads.movedim(1, -2).flatten(-2))
    return tokens + perceptron(net, f"{layer}.mlp", norm(net, f"{layer}.norm_mlp", tokens))


def run(
    net: TorchNetwork,
    tokens: Tensor,
    reads: Mapping[int, Sequence[KVSegment]],
    layers: Iterable[int],
    *,
    attend: bool = False,
    own: Tensor | None = None,
    causal: bool = False,
    keep: bool = False,
    room: Sequence[KVSegment] | None = None,
    at: int = 0,
    count_from: Mapping[int, Tensor] | None = None,
    valid: Tensor | None = None,
) -> tuple[Tensor, list[KVSegment]]:
    """Push tokens (B, R, T, W) through layers.

    Args:
        net: the network.
        tokens: (B, R, T, W).
        reads: layer -> segments that the tokens read; the null token comes by itself.
        layers: indices of the layers to run.
        attend: the tokens read each other.
        own: mask of that, broadcast against (B, 1, R, T, T), or (B, 1, R, T, at + T / 2) with `room`; None = all see
            all.
        causal: the tokens see none of each other's that come later.
        keep: return the segments that the tokens themselves make. Nobody reads the tokens after the last layer's keys:
            they stop there.
        room: one segment of N places a layer. The tokens are pairs and targets in turn, T / 2 of each; the pairs enter
            the room, then all tokens read it. The last layer goes on with the targets alone: nobody reads a pair there.
        at: first place in the room that the pairs take.
        count_from: layer -> counts (B, r, T or 1, G) that an ordered buffer had reached before these tokens.
        valid: (B, r, T) buffer tokens that count; given where `tokens` are buffer tokens of an ordered model.

    Returns:
        the tokens (with `room` the targets alone), and their segments (empty without `keep`), or the filled rooms.
    """
    segments = []
    for index in layers:
        layer = f"layers.{index}"
        last = index == net.config.depth - 1
        x = norm(net, f"{layer}.norm_attention", tokens)
        reference = None if count_from is None else count_from[index]
        counts = None
        if valid is not None:
            learned = linear(net, f"{layer}.counter", x).sigmoid()
            steps = torch.cat([torch.ones_like(x[..., :1]), learned], -1) * valid[..., None]
            counts = steps.cumsum(-2) if reference is None else steps.cumsum(-2) + reference
            reference = counts
        elif net.schema.ordered and reference is None:
            reference = x.new_zeros((1, 1, 1, net.config.contextual_positions + 1))
        others = list(reads.get(index, ()))
        if room is not None:
            pairs = own_segment(net, layer, x[:, :, ::2], None if counts is None else counts[:, :, ::2])
            segments.append(_enter(room[index], pairs, at))
            others.append(_first(segments[-1], at + pairs.keys.shape[3], own))
            if last:
                tokens, x, others = tokens[:, :, 1::2], x[:, :, 1::2], [_targets_alone(segment) for segment in others]
                reference = None if reference is None else reference[:, :, 1::2]
        elif attend or keep:
            mine = own_segment(net, layer, x, counts, own, 1 if causal else None)
            segments.append(mine)
            if attend:
                others.append(mine)
        if keep and last:
            break
        query = query_keys(net, layer, x, reference)
        tokens = finish_layer(net, layer, tokens, attention(query, _with_null(net, layer, others)))
    return tokens, segments


def _with_null(net: TorchNetwork, layer: str, segments: Sequence[KVSegment]) -> Sequence[KVSegment]:
    """Segments and the null token, which an allocated buffer has already."""
    return segments if any([segment.front for segment in segments]) else [null_segment(net, layer), *segments]


def _first(segment: KVSegment, count: int, mask: Tensor | None, stairs: int | None = None) -> KVSegment:
    """The first `count` tokens of a buffer, of which mask and stairs say who sees them."""
    front = segment.front
    if front and mask is not None:
        mask = functional.pad(mask, (front, 0), value=True)
    keys, values = segment.keys[:, :, :, : front + count], segment.values[:, :, :, : front + count]
    return KVSegment(keys, values, mask, None, None if stairs is None else front + stairs, front)


def _targets_alone(segment: KVSegment) -> KVSegment:
    """The same as targets see it, where pairs and targets come in turn."""
    mask = segment.mask
    return segment if mask is None or mask.shape[3] == 1 else replace(segment, mask=mask[:, :, :, 1::2])


def _mask(valid: Tensor | None) -> Tensor | None:
    """Mask of tokens that see those of (B, r, N) which are `valid`; None where it is known to hide nothing."""
    if valid is None:
        return None
    try:
        if not torch.jit.is_tracing() and valid.all():
            return None
    except RuntimeError:  # torch.func.vmap hides the numbers
        pass
    return valid[:, None, :, None, :]


def encode(net: TorchNetwork, context: Mapping[str, Mapping[str, Tensor]], valid: Tensor | None) -> Cache:
    """Encode a context (arrays (B, r, N)) of which `valid` (B, r, N) exist, None = all (R1, R3): a set, all see all."""
    tokens = embed_pairs(net, context, "context")
    if valid is not None:
        tokens = _replicate(tokens, valid.shape[1], 1)
    _, segments = run(net, tokens, {}, range(net.config.depth), attend=True, own=_mask(valid), keep=True)
    return Cache(context=segments)


def allocate(net: TorchNetwork, cache: Cache, shape: Sequence[int]) -> Cache:
    """Add room for K more trials to the buffer, `shape` = (B, R, K); `step` fills it."""
    batch, replicas, count = shape
    context: list[KVSegment] = []
    segments: list[KVSegment] = []
    for index in range(net.config.depth):
        front, history = [null_segment(net, f"layers.{index}")], cache.buffer[index : index + 1]
        for segment in cache.context[index : index + 1]:
            apart = segment.keys.shape[2] < replicas or segment.mask is not None
            (context if apart else front).append(segment)
        keys, values = (
            _make_room([getattr(x, part) for x in (*front, *history)], batch, replicas, count)
            for part in ("keys", "values")
        )
        counts = None
        if net.schema.ordered:
            places = keys.new_zeros((batch, replicas, count, net.config.contextual_positions + 1))
            reached = [x.counts.expand(batch, replicas, -1, -1) for x in history if x.counts is not None]
            counts = torch.cat([*reached, places], 2)
        segments.append(KVSegment(keys, values, None, counts, front=sum(x.keys.shape[3] for x in front)))
    valid = torch.zeros((batch, replicas, count), dtype=torch.bool, device=net.device)
    return Cache(context, segments, _place(cache.valid, valid, None, 1) if cache.buffer else valid)


def _make_room(parts: Sequence[Tensor], batch: int, replicas: int, count: int) -> Tensor:
    """Keys or values (b, H, r, N, E) for all data sets and replicas, one after another, and `count` empty places."""
    full = [x.expand(batch, -1, replicas, -1, -1) for x in parts]
    places = full[0].new_zeros((*full[0].shape[:3], count, full[0].shape[-1]))
    return torch.cat([*full, places], 3)


def extend(net: TorchNetwork, cache: Cache, pairs: Mapping[str, Mapping[str, Tensor]], valid: Tensor) -> Cache:
    """Let realised trials enter the buffer, causally (R2).

    Args:
        net: the network.
        cache: what was encoded and realised before.
        pairs: inputs, outcomes and feedback, each dict name -> (B, R, T).
        valid: (B, R, T) bool, which of them stand for a trial.
    """
    tokens = embed_pairs(net, pairs, "buffer")
    depth = net.config.depth
    _, new = run(
        net,
        tokens,
        _reads(cache, range(depth), cache.size),
        range(depth),
        attend=True,
        own=_mask(valid),
        causal=True,
        keep=True,
        count_from=_reached(net, cache, torch.tensor([cache.size], device=tokens.device)),
        valid=valid.to(tokens.dtype) if net.schema.ordered else None,
    )
    if cache.buffer:
        new = [_enter(old, segment, None) for old, segment in zip(cache.buffer, new, strict=True)]
        valid = _place(cache.valid, valid, None, 1)
    return Cache(cache.context, [KVSegment(x.keys, x.values, None, x.counts, front=x.front) for x in new], valid)


def _reads(
    cache: Cache, layers: Iterable[int], count: int, visible: Tensor | None = None, stairs: int | None = None
) -> dict[int, list[KVSegment]]:
    """Context and the first `count` buffer tokens, by layer; target t sees `visible` of them, None = all."""
    mask = None
    if cache.buffer:
        assert cache.valid is not None
        valid = cache.valid[..., :count]
        mask = _mask(valid) if visible is None or stairs is not None else prefix_mask(torch, visible, valid)
    reads = {index: list(cache.context[index : index + 1]) for index in layers}
    for index in layers:
        reads[index] += [_first(segment, count, mask, stairs) for segment in cache.buffer[index : index + 1]]
    return reads


def _reached(net: TorchNetwork, cache: Cache, visible: Tensor) -> dict[int, Tensor] | None:
    """Counts that the buffer has reached after its first `visible` (T,) tokens, by layer; None without counts."""
    if not (net.schema.ordered and cache.buffer):
        return None
    return {index: counts_before(segment, visible) for index, segment in enumerate(cache.buffer)}


def step(
    net: TorchNetwork,
    cache: Cache,
    pairs: Mapping[str, Mapping[str, Tensor]],
    exists: Tensor,
    inputs: Mapping[str, Tensor],
    params: EncodedParams,
    at: int,
) -> tuple[Tensor, Cache]:
    """Let T realised trials enter an allocated buffer and predict T targets, all in one pass.

    Target t sees the context and the first `at` + t + 1 places of the buffer, the t + 1 new trials included: what
    `extend`, `prepare` and `predict` do one after another.

    Args:
        net: the network.
        cache: from `allocate`.
        pairs: inputs, outcomes and feedback of the realised trials, each dict name -> (B, R, T).
        exists: (B, R, T) bool, which of them stand for a trial.
        inputs: dict name -> (B, R, T), of the targets.
        params: from `encode_params`.
        at: place in the buffer of the first of them.

    Returns:
        what `predict` returns, and the cache.
    """
    depth, shape = net.config.depth, exists.shape
    targets = embed_targets(net, inputs, shape)
    tokens = torch.stack([embed_pairs(net, pairs, "buffer"), targets.expand(*shape, -1)], 3).flatten(2, 3)
    turn = torch.arange(2 * shape[2], device=tokens.device)
    reads = {index: list(cache.context[index : index + 1]) for index in range(depth)}
    for index, segment in enumerate(params.segments, depth - net.config.param_depth):
        conditioned = (turn % 2 == 1)[:, None]
        mask = conditioned[None, None, None] if segment.mask is None else conditioned & segment.mask
        reads[index].append(replace(segment, mask=mask))
    valid = _place(cache.valid, exists, at, 1)
    own = _mask(valid[..., : at + shape[2]])
    if shape[2] > 1:
        own = prefix_mask(torch, at + turn // 2 + 1, valid[..., : at + shape[2]])
    counting = torch.stack([exists, torch.zeros_like(exists)], 3).flatten(2, 3) if net.schema.ordered else None
    tokens, buffer = run(
        net,
        tokens,
        reads,
        range(depth),
        own=own,
        room=cache.buffer,
        at=at,
        count_from=_reached(net, cache, torch.tensor([at], device=tokens.device)),
        valid=None if counting is None else counting.to(tokens.dtype),
    )
    return _with_floors(norm(net, "norm_out", tokens), params), Cache(cache.context, buffer, valid)


def _replicate(x: Tensor, replicas: int, axis: int) -> Tensor:
    if x.shape[axis] >= replicas:
        return x
    shape = list(x.shape)
    shape[axis] = replicas
    return x.expand(shape)


def _place(old: Any, new: Tensor, at: int | None, replicas: int) -> Tensor:
    """Write `new` into `old` at index `at` of the token axis, which follows the `replicas` axis, or append it."""
    axis = replicas + 1
    if at is None:
        return torch.cat([_replicate(old, new.shape[replicas], replicas), new], axis)
    old.narrow(axis, at, new.shape[axis]).copy_(new)
    return old


def _enter(old: KVSegment, new: KVSegment, at: int | None) -> KVSegment:
    counts = None if new.counts is None else _place(old.counts, new.counts, at, 1)
    place = None if at is None else old.front + at
    keys, values = _place(old.keys, new.keys, place, 2), _place(old.values, new.values, place, 2)
    return KVSegment(keys, values, None, counts, front=old.front)


@dataclass
class EncodedParams:
    """What targets read of the parameters.

    Attributes:
        segments: one segment for each of the top `param_depth` layers; empty where nothing is told.
        lower_bounds: (B, R, 1, 2 F), for each of the F outcomes that stay above a parameter: its value and 1, or 0 and 0
            where it is hidden. None without such outcomes.
    """

    segments: list[KVSegment]
    lower_bounds: Tensor | None


@dataclass
class PreparedTargets:
    """Target tokens as far as they do not depend on the parameters (R5).

    Attributes:
        tokens: (B, R, T, W), what enters the lowest layer that reads the parameters.
        query: (B, H, R, T, D), what that layer's queries say to the parameters' keys: no counts, hence no slopes.
        reading: that layer's attention over everything but the parameters.
        reads: segments that the layers above read, a list a layer.
        count_from: counts that ordered targets refer to, by layer.
    """

    tokens: Tensor
    query: Tensor
    reading: PartialAttention
    reads: dict[int, list[KVSegment]]
    count_from: dict[int, Tensor] | None


def prepare(
    net: TorchNetwork,
    cache: Cache,
    inputs: Mapping[str, Tensor],
    visible: Tensor | None,
    shape: Sequence[int],
    stairs: int | None = None,
) -> PreparedTargets:
    """Push targets with inputs (B, R, T) through the layers that do not read the parameters (R4, R5).

    Args:
        net: the network.
        cache: what was encoded and realised.
        inputs: dict name -> (B, R, T).
        visible: how many buffer tokens each target sees: (T,), or (B, R, T) in an exchangeable model; None = all.
        shape: (B, R, T).
        stairs: where `visible` is `stairs`, `stairs` + 1, ...: this number, which saves time.
    """
    depth = net.config.depth
    first = depth - net.config.param_depth
    tokens = embed_targets(net, inputs, shape)
    reads = _reads(cache, range(depth), cache.size, visible, stairs)
    seen = torch.tensor([cache.size], device=tokens.device) if visible is None else visible
    count_from = _reached(net, cache, seen)
    tokens, _ = run(net, tokens, reads, range(first), count_from=count_from)
    layer = f"layers.{first}"
    reference = None if count_from is None else count_from[first]
    if net.schema.ordered and reference is None:
        reference = tokens.new_zeros((1, 1, 1, net.config.contextual_positions + 1))
    query = query_keys(net, layer, norm(net, f"{layer}.norm_attention", tokens), reference)
    reading = read(query, _with_null(net, layer, reads[first]))
    above = {index: reads[index] for index in range(first + 1, depth)}
    return PreparedTargets(tokens, query[..., : net.config.width // net.config.heads], reading, above, count_from)


def encode_params(net: TorchNetwork, params: Mapping[str, Tensor], conditioned: Tensor | None = None) -> EncodedParams:
    """What targets read of the told parameters in the top `param_depth` layers and in the heads.

    Args:
        net: the network.
        params: dict name -> (B, R), in natural units. One that is left out has no token.
        conditioned: (B, R, P) bool, which of the given ones are told; None = all.
    """
    lower_bounds = _floors(net, params, conditioned)
    if not params:
        return EncodedParams([], lower_bounds)
    tokens = embed_params(net, params)
    mask = None if conditioned is None else conditioned[:, None, :, None, :]
    layers = range(net.config.depth - net.config.param_depth, net.config.depth)
    return EncodedParams(run(net, tokens, {}, layers, attend=True, own=mask, keep=True)[1], lower_bounds)


def _floors(net: TorchNetwork, params: Mapping[str, Tensor], conditioned: Tensor | None) -> Tensor | None:
    """`EncodedParams.floors`."""
    columns, given = [], [name for name in net.schema.params if name in params]
    for name in net.schema.lower_bounds.values():
        value = known = torch.zeros((1, 1), device=net.device, dtype=net.dtype)
        if name in params:
            value = params[name].to(net.dtype)
            known = torch.ones_like(value) if conditioned is None else conditioned[..., given.index(name)].to(net.dtype)
        columns += [value * known, known]
    return torch.stack(torch.broadcast_tensors(*columns), -1)[:, :, None] if columns else None


def _with_floors(representation: Tensor, params: EncodedParams) -> Tensor:
    """A representation with the floors of its trials behind, where the heads find them."""
    if params.lower_bounds is None:
        return representation
    lead = representation.shape[:-1]
    lower_bounds = params.lower_bounds.expand(*lead, -1)
    return torch.cat([representation, lower_bounds], -1)


def predict(net: TorchNetwork, prepared: PreparedTargets, params: EncodedParams) -> Tensor:
    """Let prepared targets read the parameters in the top layers: their representation for the heads.

    Args:
        net: the network.
        prepared: from `prepare`.
        params: from `encode_params`.

    Returns:
        (B, R, T, W), and behind the W numbers `EncodedParams.floors`, if there are any.
    """
    depth, config = net.config.depth, net.config
    first = depth - config.param_depth
    tokens, reading, reads = prepared.tokens, prepared.reading, prepared.reads
    conditioned = params.segments
    if conditioned:
        replicas = conditioned[0].keys.shape[2]
        query = _replicate(prepared.query, replicas, 2)
        tokens = _replicate(tokens, replicas, 1)
        reading = join([reading, read(query, conditioned[:1])])
        reads = {index: [*reads[index], conditioned[index - first]] for index in range(first + 1, depth)}
    tokens = finish_layer(net, f"layers.{first}", tokens, reading.weighted / reading.total)
    tokens, _ = run(net, tokens, reads, range(first + 1, depth), count_from=prepared.count_from)
    return _with_floors(norm(net, "norm_out", tokens), params)
