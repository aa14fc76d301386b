"""Attention of the buffered transformer in JAX: one softmax over segments of keys and values that are stored apart.

What a token may read (Hassan et al. 2026, requirements R1 to R4) is a list of segments: a context token reads the
context alone (R1, R3), a buffer token the context and the buffer up to itself (R2), a target the context and a prefix
of the buffer (R4). Keys of all segments belong into one softmax, although they are stored apart, since replicas (draws,
orders, parameter values) share some of them. The softmax is taken by parts (online softmax, Milakov & Gimelshein 2018):
with scores s_n and values v_n, a segment gives

    max = max_n s_n,    sum = sum_n exp(s_n - max),    output = sum_n exp(s_n - max) v_n,

and `merge` brings two such parts, 1 and 2, to the same maximum m = max(max_1, max_2):

    sum = sum_1 exp(max_1 - m) + sum_2 exp(max_2 - m),    output likewise,    attention = output / sum.

Flash attention (Dao et al. 2022) walks so over blocks of keys, flash decoding (Dao et al. 2023) merges parts that were
computed side by side.

A causal read hides half of the square of queries and keys. It is cut into strips of queries, which read no keys behind
the last one that the strip sees: most of the hidden half is never computed, and the scores of a strip stay in the
processor's cache.

Tokens are (B, R, T): B data sets, R replicas of each, T tokens; H heads of D numbers; N keys; r = R, or 1 where
replicas share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from ppl_buffer.network.jax.derivatives import row_sum, spread_rows
from ppl_buffer.network.jax.ops import Array

# Queries of a causal read that are computed together.
_QUERIES_AT_ONCE = 64

# Largest score of a query that sees nothing.
_HIDDEN = -1e30


@jax.tree_util.register_dataclass
@dataclass
class KVSegment:
    """Keys and values of one kind of token at one layer, as other tokens read them.

    Attributes:
        keys: (B, H, r, E, N). E is the head's size D, and counters + 2 more in an ordered buffer. This order is the one
            of a product with queries: XLA would copy keys (N, E) into it each time.
        values: (B, H, r, N, D).
        mask: who sees what, broadcast against (B, 1, R, T, N), T = 1 with `causal_offset`; None = everybody sees
            everything.
        counts: (B, r, N, G), what the counters say at each token, itself included; an ordered buffer only.
        causal_offset: if not None, query t sees none but the first `causal_offset` + t keys, whatever the mask says.
        filled: of an allocated buffer, how many places hold tokens, the others being hidden by the mask; None = all.
            It may change within a compiled loop, and then decides how many keys are read.
        apart: read by a softmax of its own.
    """

    keys: Array
    values: Array
    mask: Array | None = None
    counts: Array | None = None
    causal_offset: int | None = field(default=None, metadata={"static": True})
    filled: int | Array | None = None
    apart: bool = field(default=False, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass
class PartialAttention:
    """Attention over some segments, before it is merged with the rest inside the same softmax.

    Attributes:
        max: largest score, (B, H, R, T, 1).
        sum: sum of exp(score - max), (B, H, R, T, 1).
        output: sum of exp(score - max) * value, (B, H, R, T, D).
    """

    max: Array
    sum: Array
    output: Array

    def mean(self) -> Array:
        """What the queries read: the mean of the values, (B, H, R, T, D)."""
        return self.output * spread_rows(1 / self.sum, self.output.shape[-1])


def attention(query: Array, segments: Sequence[KVSegment]) -> Array:
    """Mean (B, H, R, T, D) of the values that queries (B, H, R, T, E) read in segments, by one softmax."""
    return partial_attention(query, segments).mean()


def partial_attention(query: Array, segments: Sequence[KVSegment]) -> PartialAttention:
    """`attention` before the division, to be merged with what the queries read elsewhere."""
    return merge([_read(query, segment) for segment in segments])


def merge(parts: Sequence[PartialAttention]) -> PartialAttention:
    """Bring what the same queries read in several segments into one softmax."""
    if len(parts) == 1:
        return parts[0]
    top = parts[0].max
    for part in parts[1:]:
        top = jnp.maximum(top, part.max)
    scales = [jnp.exp(part.max - top) for part in parts]
    size = parts[0].output.shape[-1]
    total, output = parts[0].sum * scales[0], parts[0].output * spread_rows(scales[0], size)
    for part, scale in zip(parts[1:], scales[1:], strict=True):
        total, output = total + part.sum * scale, output + part.output * spread_rows(scale, size)
    return PartialAttention(top, total, output)


def replicate(x: Array, count: int, axis: int) -> Array:
    """Repeat an axis of size 1 `count` times; a longer one stays as it is."""
    shape = list(x.shape)
    shape[axis] = max(count, shape[axis])
    return jnp.broadcast_to(x, shape)


def _read(query: Array, segment: KVSegment) -> PartialAttention:
    query = query[..., : segment.keys.shape[-2]]
    if segment.causal_offset is not None:
        return _read_strips(query, segment)
    if segment.filled is not None:
        return _read_filled(query, segment)
    if segment.keys.size == segment.keys.shape[1] * segment.keys.shape[3] and segment.mask is None:
        return _read_one_key(query, segment)
    return _read_whole(query, segment)


def _read_strips(query: Array, segment: KVSegment) -> PartialAttention:
    """A causal `_read`, some queries at a time, each strip with the keys that its last query sees."""
    assert segment.causal_offset is not None
    starts = range(0, query.shape[3], _QUERIES_AT_ONCE)
    parts = []
    for start, strip in zip(starts, jnp.split(query, list(starts[1:]), 3), strict=True):
        stop = start + strip.shape[3]
        seen = segment.causal_offset + stop - 1
        mask = jnp.arange(seen) < segment.causal_offset + jnp.arange(start, stop)[:, None]
        if segment.mask is not None:
            mask = mask & segment.mask[..., :seen]
        parts.append(_read_whole(strip, KVSegment(segment.keys[..., :seen], segment.values[:, :, :, :seen], mask)))
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x, 3), *parts)


def _read_filled(query: Array, segment: KVSegment) -> PartialAttention:
    """`_read` the filled places of a segment, and of the others, which the mask hides, less than a quarter."""
    filled, places = segment.filled, segment.values.shape[3]
    assert filled is not None
    ends = sorted({-(-places * quarter // 4) for quarter in range(1, 5)})

    def read_first(end: int) -> Callable[[Array, Array, Array, Array | None], PartialAttention]:
        def branch(query: Array, keys: Array, values: Array, mask: Array | None) -> PartialAttention:
            mask = None if mask is None else mask[..., :end]
            return _read_whole(query, KVSegment(keys[..., :end], values[:, :, :, :end], mask))

        return branch

    which = sum((jnp.asarray(filled > end, int) for end in ends[:-1]), jnp.zeros((), int))
    branches = [read_first(end) for end in ends]
    return jax.lax.switch(which, branches, query, segment.keys, segment.values, segment.mask)


def _read_one_key(query: Array, segment: KVSegment) -> PartialAttention:
    """`_read` a single key that all share, such as the null token's: no matrix product is needed."""
    score = row_sum(query * segment.keys.mT)
    top = jax.lax.stop_gradient(score)
    weight = jnp.exp(score - top)
    return PartialAttention(top, weight, spread_rows(weight, segment.values.shape[-1]) * segment.values)


def _read_whole(query: Array, segment: KVSegment) -> PartialAttention:
    keys, values = segment.keys, segment.values
    replicas, count = query.shape[2:4]
    # Shared keys are read by all replicas in one product a head.
    shared = keys.shape[2] == 1 and replicas > 1
    if shared:
        query = query.reshape(*query.shape[:2], 1, replicas * count, -1)
    scores = query @ keys
    if shared:
        scores = scores.reshape(*scores.shape[:2], replicas, count, -1)
    if segment.mask is not None:
        scores = jnp.where(segment.mask, scores, -math.inf)
    # Any finite shift gives the same result, so no gradient goes through it; the initial value serves rows that see
    # nothing, and a segment that holds nothing.
    top = jax.lax.stop_gradient(scores).max(-1, keepdims=True, initial=_HIDDEN)
    weights = jnp.exp(scores - top)
    total = row_sum(weights)
    if shared:
        folded = weights.reshape(*weights.shape[:2], 1, replicas * count, -1)
        output = (folded @ values).reshape(*weights.shape[:2], replicas, count, -1)
    else:
        output = weights @ values
    return PartialAttention(top, total, output)
