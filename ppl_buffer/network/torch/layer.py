"""One layer of the buffered transformer in torch: what goes into attention, and what is made of its result.

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

import torch
from torch import Tensor
from torch.nn import functional

from ppl_buffer.network.torch.attention import KVSegment, attention
from ppl_buffer.network.torch.ops import norm, perceptron
from ppl_buffer.network.torch.weights import TorchNetwork


def queries(net: TorchNetwork, layer: str, x: Tensor, counts: Tensor | None) -> Tensor:
    """Queries (B, H, R, T, E) of normalised tokens x (B, R, T, W); `counts` (B, r, T or 1, G) in an ordered model."""
    weights, heads = net.weights, (net.config.heads, -1)
    query = functional.linear(x, weights[f"{layer}.query.weight"], weights[f"{layer}.query.bias"])
    # (B, R, T, H * D) -> (B, H, R, T, D), here and below
    query = query.unflatten(-1, heads).movedim(-2, 1) / math.sqrt(net.config.width // net.config.heads)
    if counts is None:
        return query
    slopes = functional.linear(x, weights[f"{layer}.slope.weight"], weights[f"{layer}.slope.bias"])
    slopes = functional.softplus(slopes).unflatten(-1, heads).movedim(-2, 1)
    reached = (slopes * counts[:, None]).sum(-1, keepdim=True)
    return torch.cat([query, slopes, -reached], -1)


def key_values(
    net: TorchNetwork,
    layer: str,
    x: Tensor,
    counts: Tensor | None = None,
    mask: Tensor | None = None,
    causal_offset: int | None = None,
    of_buffer: bool = False,
) -> KVSegment:
    """Keys and values of normalised tokens x (B, R, T, W); `counts` (B, R, T, G) of tokens of an ordered buffer."""
    weights, apart = net.weights, of_buffer and net.config.buffer_apart
    name = f"{layer}.buffer_key_value" if apart else f"{layer}.key_value"
    both = functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
    if of_buffer and net.config.buffer_rank:
        low_rank = functional.linear(x, weights[f"{layer}.buffer_adapter.down.weight"])
        both = both + functional.linear(low_rank, weights[f"{layer}.buffer_adapter.up.weight"])
    keys, values = both.unflatten(-1, (2 * net.config.heads, -1)).movedim(-2, 1).chunk(2, 1)
    if counts is not None:
        spread = counts[:, None].expand(-1, net.config.heads, -1, -1, -1)
        keys = torch.cat([keys, spread, torch.ones_like(spread[..., :1])], -1)
    return KVSegment(keys, values, mask, counts, causal_offset, apart=apart)


def null_segment(net: TorchNetwork, layer: str) -> KVSegment:
    """The learned token that everybody sees. In an ordered model it stands before the first trial: all counts 0."""
    keys, values = net.weights[f"{layer}.null_key"], net.weights[f"{layer}.null_value"]
    if net.schema.ordered:
        counts = keys.new_zeros((keys.shape[0], net.config.contextual_positions + 1))
        keys = torch.cat([keys, counts, torch.ones_like(counts[:, :1])], -1)
    return KVSegment(keys[None, :, None, None, :], values[None, :, None, None, :])


def with_null(net: TorchNetwork, layer: str, segments: Sequence[KVSegment]) -> Sequence[KVSegment]:
    """Segments and the null token, which an allocated buffer has already."""
    return segments if any([each.prefix_length for each in segments]) else [null_segment(net, layer), *segments]


def read_apart(net: TorchNetwork, layer: str, x: Tensor, segments: Sequence[KVSegment]) -> Tensor:
    """What normalised tokens x (B, R, T, W) read in a buffer that is read apart: (B, R, T, W), to be added to them.

    A key of zeros with a value of zeros stands before it: a token that sees nothing of the buffer reads exact zeros.
    """
    weights, heads = net.weights, (net.config.heads, -1)
    query = functional.linear(x, weights[f"{layer}.buffer_query.weight"], weights[f"{layer}.buffer_query.bias"])
    query = query.unflatten(-1, heads).movedim(-2, 1) / math.sqrt(net.config.width // net.config.heads)
    if not any([each.prefix_length for each in segments]):
        segments = [zero_segment(net), *segments]
    joined = attention(query, segments).movedim(1, -2).flatten(-2)
    return functional.linear(joined, weights[f"{layer}.buffer_merge.weight"])


def zero_segment(net: TorchNetwork) -> KVSegment:
    """What everybody sees before a buffer that is read apart: nothing."""
    zeros = net.ops.zeros(net, (1, net.config.heads, 1, 1, net.config.width // net.config.heads))
    return KVSegment(zeros, zeros, apart=True)


def no_counts(net: TorchNetwork, x: Tensor) -> Tensor:
    """Counts (1, 1, 1, G) before the first trial, for tokens x."""
    return x.new_zeros((1, 1, 1, net.config.contextual_positions + 1))


def count_tokens(net: TorchNetwork, layer: str, x: Tensor, counted: Tensor, before: Tensor | None) -> Tensor:
    """Counts (B, R, T, G) at buffer tokens x (B, R, T, W), themselves included.

    Args:
        net: the network.
        layer: name of the layer.
        x: normalised tokens.
        counted: (B, R, T), 1 for a token that counts and 0 for one that does not.
        before: (B, r, 1, G), counts reached before these tokens; None = none.
    """
    gates = functional.linear(x, net.weights[f"{layer}.counter.weight"], net.weights[f"{layer}.counter.bias"]).sigmoid()
    counts = (torch.cat([torch.ones_like(x[..., :1]), gates], -1) * counted[..., None]).cumsum(-2)
    return counts if before is None else counts + before


def counts_before(segment: KVSegment, visible: Tensor) -> Tensor:
    """Counts (B, r, T, G) that a buffer's first `visible` (T,) tokens have reached."""
    assert segment.counts is not None
    return functional.pad(segment.counts, (0, 0, 1, 0))[:, :, visible]


def finish_layer(net: TorchNetwork, layer: str, tokens: Tensor, heads: Tensor) -> Tensor:
    """Add what the heads read (B, H, R, T, D) to the tokens, then the layer's perceptron."""
    weights = net.weights
    # (B, H, R, T, D) -> (B, R, T, H * D)
    joined = heads.movedim(1, -2).flatten(-2)
    tokens = tokens + functional.linear(joined, weights[f"{layer}.merge.weight"], weights[f"{layer}.merge.bias"])
    return tokens + perceptron(net, f"{layer}.mlp", norm(net, f"{layer}.norm_mlp", tokens))
