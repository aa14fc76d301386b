"""Attention of the buffered transformer in torch: one softmax over segments of keys and values that are stored apart.

What a token may read (Hassan et al. 2026, requirements R1 to R4) is a list of segments: a context token reads the
context alone (R1, R3), a buffer token the context and the buffer up to itself (R2), a target the context and a prefix
of the buffer (R4). Keys of all segments belong into one softmax, although they are stored apart, since replicas (draws,
orders, parameter values) share some of them. The softmax is taken by parts (online softmax, Milakov & Gimelshein 2018):
with scores s_n and values v_n, a segment gives

    max = max_n s_n,    sum = sum_n exp(s_n - max),    output = sum_n exp(s_n - max) v_n,

and `merge` brings two such parts, 1 and 2, to the same maximum m = max(max_1, max_2):

    sum = sum_1 exp(max_1 - m) + sum_2 exp(max_2 - m),    output likewise,    attention = output / sum.

Flash attention (Dao et al. 2022) walks so over blocks of keys, flash decoding (Dao et al. 2023) merges parts that were
computed side by side. Any number near the maximum serves as `max`: where torch gives the mean m and the logarithm l
of the total, the part is (l, 1, m).

A causal read hides half of the square of queries and keys. It is cut into strips of queries, which read no keys behind
the last one that the strip sees, so that most of the hidden half is never computed.

Tokens are (B, R, T): B data sets, R replicas of each, T tokens; H heads of D numbers; N keys; r = R, or 1 where
replicas share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from ppl_buffer.network.torch.ops import are_plain

# Queries of a causal read that are computed together: on a processor, and on an accelerator, where the half that is
# hidden costs less than more calls do.
_QUERIES_AT_ONCE, _QUERIES_ON_ACCELERATOR = 64, 512

# Scores that a processor computes together: few enough to stay in a core's cache.
_SCORES_AT_ONCE = 2**18

# Score of a key that must not be seen: beside any other, its weight underflows to an exact zero.
_HIDDEN = -1e30

# Attention that also gives the logarithm of its total, which parts are merged by: torch's kernel for processors.
_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)

# Fewer queries a key than this, and the kernel takes longer than two products.
_FLASH_QUERIES = 32


@dataclass
class KVSegment:
    """Keys and values of one kind of token at one layer, as other tokens read them.

    Attributes:
        keys: (B, H, r, N, E). E is the head's size D, and counters + 2 more in an ordered buffer.
        values: (B, H, r, N, D).
        mask: who sees what, broadcast against (B, 1, R, T, N); None = everybody sees everything.
        counts: (B, r, N, G), what the counters say at each token, itself included; an ordered buffer only.
        causal_offset: if not None, query t sees none but the first `causal_offset` + t keys, whatever the mask says.
        prefix_length: of an allocated buffer, how many keys stand before its tokens for everybody to see: the null
            token, and a context that replicas do not share. So a rollout reads all of them at once.
        apart: read by a softmax of its own.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None = None
    counts: Tensor | None = None
    causal_offset: int | None = field(default=None, metadata={"static": True})
    prefix_length: int = field(default=0, metadata={"static": True})
    apart: bool = field(default=False, metadata={"static": True})


@dataclass
class PartialAttention:
    """Attention over some segments, before it is merged with the rest inside the same softmax.

    Attributes:
        max: a number near the largest score, (B, H, R, T, 1).
        sum: sum of exp(score - max), (B, H, R, T, 1).
        output: sum of exp(score - max) * value, (B, H, R, T, D).
    """

    max: Tensor
    sum: Tensor
    output: Tensor

    def mean(self) -> Tensor:
        """What the queries read: the mean of the values, (B, H, R, T, D)."""
        return self.output / self.sum


def attention(query: Tensor, segments: Sequence[KVSegment]) -> Tensor:
    """Mean (B, H, R, T, D) of the values that queries (B, H, R, T, E) read in segments, by one softmax."""
    joined = _concatenate(segments)
    if len(joined) == 1:
        return _read(query, joined[0], total=False)[0]
    return merge([_read_part(query, segment) for segment in joined]).mean()


def partial_attention(query: Tensor, segments: Sequence[KVSegment]) -> PartialAttention:
    """`attention` before the division, to be merged with what the queries read elsewhere."""
    joined = segments if len(segments) == 1 else _concatenate(segments)
    parts = [_read_part(query, segment) for segment in joined]
    return parts[0] if len(parts) == 1 else merge(parts)


def merge(parts: Sequence[PartialAttention]) -> PartialAttention:
    """Bring what the same queries read in several segments into one softmax."""
    top = parts[0].max
    for part in parts[1:]:
        top = torch.maximum(top, part.max)
    scales = [(part.max - top).exp() for part in parts]
    total, output = parts[0].sum * scales[0], parts[0].output * scales[0]
    for part, scale in zip(parts[1:], scales[1:], strict=True):
        total, output = total + part.sum * scale, output + part.output * scale
    return PartialAttention(top, total, output)


def replicate(x: Tensor, count: int, axis: int) -> Tensor:
    """Repeat an axis of size 1 `count` times, without a copy; a longer one stays as it is."""
    if x.shape[axis] >= count:
        return x
    shape = list(x.shape)
    shape[axis] = count
    return x.expand(shape)


def _read_part(query: Tensor, segment: KVSegment) -> PartialAttention:
    mean, log_total = _read(query, segment, total=True)
    assert log_total is not None
    return PartialAttention(log_total, torch.ones_like(log_total), mean)


def _read(query: Tensor, segment: KVSegment, total: bool) -> tuple[Tensor, Tensor | None]:
    """Mean of the values (B, H, R, T, D), and with `total` the log of the sum of exp(score) (B, H, R, T, 1)."""
    query = query[..., : segment.keys.shape[-1]]
    batch, heads, replicas, count = query.shape[:4]
    strip = _QUERIES_AT_ONCE if query.device.type == "cpu" else _QUERIES_ON_ACCELERATOR
    if segment.causal_offset is not None and count > strip:
        return _read_strips(query, segment, total, strip)
    if _has_kernel(query, segment):
        return _read_with_kernel(query, segment)
    if query.device.type == "cpu":
        at_once = max(1, _SCORES_AT_ONCE // (heads * count * segment.keys.shape[3]))
        if batch > 1 and batch * replicas > at_once:
            return _read_pieces(query, segment, total, 0, max(1, at_once // replicas))
        if replicas > at_once:
            return _read_pieces(query, segment, total, 2, at_once)
    return _read_whole(query, segment, total)


def _read_strips(query: Tensor, segment: KVSegment, total: bool, size: int) -> tuple[Tensor, Tensor | None]:
    """A causal `_read`, `size` queries at a time, each strip with the keys that its last query sees."""
    assert segment.causal_offset is not None
    results = []
    for start in range(0, query.shape[3], size):
        strip = query[:, :, :, start : start + size]
        offset = segment.causal_offset + start
        seen = offset + strip.shape[3] - 1
        mask = segment.mask
        if mask is not None:
            mask = (mask if mask.shape[3] == 1 else mask[:, :, :, start : start + size])[..., :seen]
        keys, values = segment.keys[:, :, :, :seen], segment.values[:, :, :, :seen]
        results.append(_read(strip, KVSegment(keys, values, mask, None, offset), total))
    return _concatenate_results(results, 3)


def _read_pieces(query: Tensor, segment: KVSegment, total: bool, axis: int, size: int) -> tuple[Tensor, Tensor | None]:
    """`_read`, `size` data sets (axis 0) or replicas (axis 2) at a time."""
    queries = query.split(size, axis)

    def pieces(x: Tensor) -> Sequence[Tensor]:
        return [x] * len(queries) if x.shape[axis] == 1 else x.split(size, axis)

    masks = [None] * len(queries) if segment.mask is None else pieces(segment.mask)
    parts = zip(queries, pieces(segment.keys), pieces(segment.values), masks, strict=True)
    results = [
        _read(piece, KVSegment(keys, values, mask, None, segment.causal_offset), total)
        for piece, keys, values, mask in parts
    ]
    return _concatenate_results(results, axis)


def _concatenate_results(results: Sequence[tuple[Tensor, Tensor | None]], axis: int) -> tuple[Tensor, Tensor | None]:
    totals = [total for _, total in results if total is not None]
    return torch.cat([mean for mean, _ in results], axis), torch.cat(totals, axis) if totals else None


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


def _bias(query: Tensor, segment: KVSegment) -> Tensor | None:
    """What mask and causal offset add to the scores, broadcast against (B, 1, R, T, N): cheaper than choosing."""
    bias = None
    if segment.mask is not None:
        bias = torch.where(segment.mask, 0.0, _HIDDEN).to(query.dtype)
    if segment.causal_offset is not None and segment.causal_offset < segment.keys.shape[3]:
        seen = segment.causal_offset + torch.arange(query.shape[3], device=query.device)
        hidden = torch.arange(segment.keys.shape[3], device=query.device) >= seen[:, None]
        causal = (hidden.to(query.dtype) * _HIDDEN)[None, None, None]
        bias = causal if bias is None else bias + causal
    return bias


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
        and are_plain(query, keys, values)
    )


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


def _concatenate(segments: Sequence[KVSegment]) -> list[KVSegment]:
    """The same keys in one segment, or two: what replicas share stays stored once."""
    shared = [x for x in segments if x.keys.shape[2] == 1]
    private = [x for x in segments if x.keys.shape[2] > 1]
    return [one for group in (shared, private) for one in (group if len(group) < 2 else [_concatenate_alike(group)])]


def _concatenate_alike(group: list[KVSegment]) -> KVSegment:
    # What all queries see stands before a causal segment.
    group = [x for x in group if x.causal_offset is None] + [x for x in group if x.causal_offset is not None]
    last, batch = group[-1], max([x.keys.shape[0] for x in group])
    size = max([x.keys.shape[-1] for x in group])
    # A parameter's keys have no counts: they add nothing to the score.
    keys = [x.keys if x.keys.shape[-1] == size else functional.pad(x.keys, (0, size - x.keys.shape[-1])) for x in group]
    values = [x.values for x in group]
    if batch > 1:
        keys, values = ([replicate(x, batch, 0) for x in tensors] for tensors in (keys, values))
    joined = torch.cat(keys, 3)
    offset = None if last.causal_offset is None else last.causal_offset + joined.shape[3] - last.keys.shape[3]
    mask = None if all([x.mask is None for x in group]) else _concatenate_masks(group)
    return KVSegment(joined, torch.cat(values, 3), mask, None, offset)


def _concatenate_masks(segments: Sequence[KVSegment]) -> Tensor:
    masks = []
    for segment in segments:
        shape = (1, 1, 1, 1, segment.keys.shape[3])
        mask = torch.ones(shape, dtype=torch.bool, device=segment.keys.device)
        masks.append(mask if segment.mask is None else segment.mask.expand(*segment.mask.shape[:-1], shape[-1]))
    lead = torch.broadcast_shapes(*(mask.shape[:-1] for mask in masks))
    return torch.cat([mask.expand(*lead, -1) for mask in masks], -1)
