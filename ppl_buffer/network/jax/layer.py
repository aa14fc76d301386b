"""One layer of the buffered transformer in JAX: what goes into attention, and what is made of its result.

Distances in an ordered model are counts (contextual position encoding, Golovneva et al. 2024, arXiv 2405.18719). Every
buffer token adds 1 to the first of G counters and a gate sigmoid(w_g x + b_g) to each of the others, which learn what
to count. A query with counts c gives a key with counts c' the score

    q k' / sqrt(D) + s (c' - c),    s = softplus(W x + b) >= 0,

whose slopes s, here the query's own, are those of ALiBi (Press et al. 2022): a key loses weight with what was counted
since. Counts are D + G + 1 columns of queries (q, s, -s c) and keys (k', c', 1), so that one product does it all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ppl_buffer.network.jax.attention import KVSegment, attention
from ppl_buffer.network.jax.derivatives import row_sum
from ppl_buffer.network.jax.ops import Array, linear, norm, perceptron
from ppl_buffer.network.jax.weights import JaxNetwork


def _split_heads(net: JaxNetwork, x: Array) -> Array:
    """(B, R, T, H * D) -> (B, H, R, T, D)."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], net.config.heads, -1), -2, 1)


def _merge_heads(x: Array) -> Array:
    """(B, H, R, T, D) -> (B, R, T, H * D)."""
    x = jnp.moveaxis(x, 1, -2)
    return x.reshape(*x.shape[:-2], -1)


def queries(net: JaxNetwork, layer: str, x: Array, counts: Array | None) -> Array:
    """Queries (B, H, R, T, E) of normalised tokens x (B, R, T, W); `counts` (B, r, T or 1, G) in an ordered model."""
    query = _split_heads(net, linear(net, f"{layer}.query", x)) / math.sqrt(net.config.width // net.config.heads)
    if counts is None:
        return query
    slopes = _split_heads(net, jax.nn.softplus(linear(net, f"{layer}.slope", x)))
    reached = row_sum(slopes * counts[:, None])
    return jnp.concatenate([query, slopes, -reached], -1)


def key_values(
    net: JaxNetwork,
    layer: str,
    x: Array,
    counts: Array | None = None,
    mask: Array | None = None,
    causal_offset: int | None = None,
    of_buffer: bool = False,
) -> KVSegment:
    """Keys and values of normalised tokens x (B, R, T, W); `counts` (B, R, T, G) of tokens of an ordered buffer."""
    apart = of_buffer and net.config.buffer_apart
    both = linear(net, f"{layer}.buffer_key_value" if apart else f"{layer}.key_value", x)
    if of_buffer and net.config.buffer_rank:
        low_rank = x @ net.weights[f"{layer}.buffer_adapter.down.weight"].T
        both = both + low_rank @ net.weights[f"{layer}.buffer_adapter.up.weight"].T
    keys, values = jnp.split(both, 2, -1)
    keys, values = _split_heads(net, keys).mT, _split_heads(net, values)
    if counts is not None:
        spread = jnp.broadcast_to(counts.mT[:, None], (*keys.shape[:-2], counts.shape[-1], keys.shape[-1]))
        keys = jnp.concatenate([keys, spread, jnp.ones_like(spread[..., :1, :])], -2)
    return KVSegment(keys, values, mask, counts, causal_offset, apart=apart)


def null_segment(net: JaxNetwork, layer: str) -> KVSegment:
    """The learned token that everybody sees. In an ordered model it stands before the first trial: all counts 0."""
    keys, values = net.weights[f"{layer}.null_key"], net.weights[f"{layer}.null_value"]
    if net.schema.ordered:
        counts = jnp.zeros((keys.shape[0], net.config.contextual_positions + 1), keys.dtype)
        keys = jnp.concatenate([keys, counts, jnp.ones_like(counts[:, :1])], -1)
    return KVSegment(keys[None, :, None, :, None], values[None, :, None, None, :])


def with_null(net: JaxNetwork, layer: str, segments: Sequence[KVSegment]) -> Sequence[KVSegment]:
    """Segments and the null token."""
    return [null_segment(net, layer), *segments]


def read_apart(net: JaxNetwork, layer: str, x: Array, segments: Sequence[KVSegment]) -> Array:
    """What normalised tokens x (B, R, T, W) read in a buffer that is read apart: (B, R, T, W), to be added to them.

    A key of zeros with a value of zeros stands before it: a token that sees nothing of the buffer reads exact zeros.
    """
    query = _split_heads(net, linear(net, f"{layer}.buffer_query", x))
    query = query / math.sqrt(net.config.width // net.config.heads)
    joined = _merge_heads(attention(query, [zero_segment(net), *segments]))
    return joined @ net.weights[f"{layer}.buffer_merge.weight"].T


def zero_segment(net: JaxNetwork) -> KVSegment:
    """What everybody sees before a buffer that is read apart: nothing."""
    shape = (1, net.config.heads, 1, net.config.width // net.config.heads)
    return KVSegment(net.ops.zeros(net, (*shape, 1)), net.ops.zeros(net, (*shape[:3], 1, shape[3])), apart=True)


def no_counts(net: JaxNetwork, x: Array) -> Array:
    """Counts (1, 1, 1, G) before the first trial, for tokens x."""
    return jnp.zeros((1, 1, 1, net.config.contextual_positions + 1), x.dtype)


def count_tokens(net: JaxNetwork, layer: str, x: Array, counted: Array, before: Array | None) -> Array:
    """Counts (B, R, T, G) at buffer tokens x (B, R, T, W), themselves included.

    Args:
        net: the network.
        layer: name of the layer.
        x: normalised tokens.
        counted: (B, R, T), 1 for a token that counts and 0 for one that does not.
        before: (B, r, 1, G), counts reached before these tokens; None = none.
    """
    gates = jax.nn.sigmoid(linear(net, f"{layer}.counter", x))
    counts = jnp.cumsum(jnp.concatenate([jnp.ones_like(x[..., :1]), gates], -1) * counted[..., None], -2)
    return counts if before is None else counts + before


def counts_before(segment: KVSegment, visible: Array) -> Array:
    """Counts (B, r, T, G) that a buffer's first `visible` (T,) tokens have reached."""
    assert segment.counts is not None
    counts = jnp.take(segment.counts, jnp.maximum(visible - 1, 0), axis=2)
    return jnp.where(visible[:, None] > 0, counts, 0)


def finish_layer(net: JaxNetwork, layer: str, tokens: Array, heads: Array) -> Array:
    """Add what the heads read (B, H, R, T, D) to the tokens, then the layer's perceptron."""
    tokens = tokens + linear(net, f"{layer}.merge", _merge_heads(heads))
    return tokens + perceptron(net, f"{layer}.mlp", norm(net, f"{layer}.norm_mlp", tokens))
