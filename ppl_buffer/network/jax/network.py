"""The buffered transformer in JAX: embeddings, the layer, and the three verbs encode, extend and predict.

`ppl_buffer/torch/network.py` says what the shapes are and why; this file mirrors it function by function. All of it
can be traced by jit, vmap and grad.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from ppl_buffer.network.embeddings import embed_pairs, embed_params, embed_targets, linear, norm, perceptron
from ppl_buffer.network.jax.ops import Array
from ppl_buffer.network.jax.weights import JaxNetwork
from ppl_buffer.network.masks import prefix_mask

# Queries of a causal read that are computed together.
_QUERIES_AT_ONCE = 64


@jax.tree_util.register_dataclass
@dataclass
class KVSegment:
    """Keys and values of one kind of token at one layer, as other tokens read them.

    Attributes:
        keys: (B, H, r, E, N), r = R or 1. E is the head's size, and counters + 2 more in an ordered buffer. This order
            is the one of a product with queries: XLA would copy keys (N, E) into it each time.
        values: (B, H, r, N, D).
        mask: who sees what, broadcast against (B, 1, R, T, N), T = 1 with `stairs`; None = everybody sees everything.
        counts: (B, r, N, G), what the counters say at each token, itself included; an ordered buffer only.
        stairs: if not None, query t sees none but the first `stairs` + t keys; `read` skips what is hidden.
    """

    keys: Array
    values: Array
    mask: Array | None = None
    counts: Array | None = None
    stairs: int | None = field(default=None, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass
class PartialAttention:
    """Attention over some segments, before it is joined with the rest inside the same softmax.

    Attributes:
        top: largest score, (B, H, R, T, 1).
        total: sum of exp(score - top), (B, H, R, T, 1).
        weighted: sum of exp(score - top) * value, (B, H, R, T, D).
    """

    top: Array
    total: Array
    weighted: Array


@jax.tree_util.register_dataclass
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
    valid: Array | None = None

    @property
    def size(self) -> int:
        """Number of buffer tokens."""
        return self.buffer[0].values.shape[3] if self.buffer else 0


def _heads(net: JaxNetwork, x: Array) -> Array:
    """(B, R, T, H * D) -> (B, H, R, T, D)."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], net.config.heads, -1), -2, 1)


def _merge_heads(x: Array) -> Array:
    """(B, H, R, T, D) -> (B, R, T, H * D)."""
    x = jnp.moveaxis(x, 1, -2)
    return x.reshape(*x.shape[:-2], -1)


def counts_before(segment: KVSegment, visible: Array) -> Array:
    """What the counters say to a token that sees the first `visible` (T,) buffer tokens: (B, r, T, G)."""
    assert segment.counts is not None
    counts = jnp.take(segment.counts, jnp.maximum(visible - 1, 0), axis=2)
    return jnp.where(visible[:, None] > 0, counts, 0)


def read(query: Array, segment: KVSegment) -> PartialAttention:
    """Let queries (B, H, R, T, E) read one segment. Shared keys are read by all replicas in one product a head."""
    if segment.stairs is None:
        return _read(query, segment)
    # Half of a causal square is hidden. In strips of queries most of that half is never computed, and the scores of
    # a strip stay in the processor's cache.
    count = query.shape[3]
    starts = range(0, count, _QUERIES_AT_ONCE)
    parts = []
    for start, strip_query in zip(starts, jnp.split(query, list(starts[1:]), 3), strict=True):
        stop = start + strip_query.shape[3]
        seen = segment.stairs + stop - 1
        mask = jnp.arange(seen) < segment.stairs + jnp.arange(start, stop)[:, None]
        if segment.mask is not None:
            mask = mask & segment.mask[..., :seen]
        strip = KVSegment(segment.keys[..., :seen], segment.values[:, :, :, :seen], mask)
        parts.append(_read(strip_query, strip))
    if len(parts) == 1:
        return parts[0]
    return PartialAttention(
        jnp.concatenate([part.top for part in parts], 3),
        jnp.concatenate([part.total for part in parts], 3),
        jnp.concatenate([part.weighted for part in parts], 3),
    )


def _read(query: Array, segment: KVSegment) -> PartialAttention:
    keys, values = segment.keys, segment.values
    query = query[..., : keys.shape[-2]]
    replicas, count = query.shape[2:4]
    shared = keys.shape[2] == 1 and replicas > 1
    if shared:
        query = query.reshape(*query.shape[:2], 1, replicas * count, -1)
    scores = query @ keys
    if shared:
        scores = scores.reshape(*scores.shape[:2], replicas, count, -1)
    if segment.mask is not None:
        scores = jnp.where(segment.mask, scores, -math.inf)
    # Any finite shift gives the same result, so no gradient goes through it; the clamp serves rows that see nothing.
    top = jnp.maximum(jax.lax.stop_gradient(scores).max(-1, keepdims=True), -1e30)
    weights = jnp.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    if shared:
        folded = weights.reshape(*weights.shape[:2], 1, replicas * count, -1)
        weighted = (folded @ values).reshape(*weights.shape[:2], replicas, count, -1)
    else:
        weighted = weights @ values
    return PartialAttention(top, total, weighted)


def read_part(query: Array, segment: KVSegment, count: int | Array) -> PartialAttention:
    """`read` the first `count` keys of a segment, and of the others, which the mask hides, less than a quarter."""
    places = segment.values.shape[3]
    ends = sorted({-(-places * quarter // 4) for quarter in range(1, 5)})

    def read_first(end: int) -> Callable[[Array, KVSegment], PartialAttention]:
        def branch(query: Array, segment: KVSegment) -> PartialAttention:
            mask = None if segment.mask is None else segment.mask[..., :end]
            return _read(query, KVSegment(segment.keys[..., :end], segment.values[:, :, :, :end], mask))

        return branch

    which = sum((jnp.asarray(count > end, int) for end in ends[:-1]), jnp.zeros((), int))
    return jax.lax.switch(which, [read_first(end) for end in ends], query, segment)


def join(readings: Sequence[PartialAttention]) -> PartialAttention:
    """Bring readings of several segments into one softmax."""
    top = readings[0].top
    for reading in readings[1:]:
        top = jnp.maximum(top, reading.top)
    scales = [jnp.exp(reading.top - top) for reading in readings]
    total = sum(reading.total * scale for reading, scale in zip(readings, scales, strict=True))
    weighted = sum(reading.weighted * scale for reading, scale in zip(readings, scales, strict=True))
    return PartialAttention(top, total, weighted)  # type: ignore[arg-type]


def query_keys(net: JaxNetwork, layer: str, x: Array, reference: Array | None) -> Array:
    """Queries (B, H, R, T, E) of normalised tokens x (B, R, T, W).

    In an ordered model a query carries slopes s and its own counts c: against a key with counts c' the score gains
    s * (c' - c), which is at most zero; see `docs/design.md`, "Distances that count".
    """
    query = _heads(net, linear(net, f"{layer}.query", x)) / math.sqrt(net.config.width // net.config.heads)
    if reference is None:
        return query
    slopes = _heads(net, jax.nn.softplus(linear(net, f"{layer}.slope", x)))
    here = (slopes * reference[:, None]).sum(-1, keepdims=True)
    return jnp.concatenate([query, slopes, -here], -1)


def own_segment(
    net: JaxNetwork,
    layer: str,
    x: Array,
    counts: Array | None = None,
    mask: Array | None = None,
    stairs: int | None = None,
) -> KVSegment:
    """Keys and values of normalised tokens x (B, R, T, W)."""
    keys, values = jnp.split(linear(net, f"{layer}.key_value", x), 2, -1)
    keys, values = _heads(net, keys).mT, _heads(net, values)
    if counts is not None:
        spread = jnp.broadcast_to(counts.mT[:, None], (*keys.shape[:-2], counts.shape[-1], keys.shape[-1]))
        keys = jnp.concatenate([keys, spread, jnp.ones_like(spread[..., :1, :])], -2)
    return KVSegment(keys, values, mask, counts, stairs)


def null_segment(net: JaxNetwork, layer: str) -> KVSegment:
    """The learned token that everybody sees. In an ordered model it stands before the first trial: all counts 0."""
    keys, values = net.weights[f"{layer}.null_key"], net.weights[f"{layer}.null_value"]
    if net.schema.ordered:
        counts = jnp.zeros((keys.shape[0], net.config.contextual_positions + 1), keys.dtype)
        keys = jnp.concatenate([keys, counts, jnp.ones_like(counts[:, :1])], -1)
    return KVSegment(keys[None, :, None, :, None], values[None, :, None, None, :])


def read_null(net: JaxNetwork, layer: str, query: Array) -> PartialAttention:
    """Let queries read the null token: a single key needs no matrix product."""
    null = null_segment(net, layer)
    score = (query * null.keys.mT).sum(-1, keepdims=True)
    top = jax.lax.stop_gradient(score)
    weight = jnp.exp(score - top)
    return PartialAttention(top, weight, weight * null.values)


def finish_layer(net: JaxNetwork, layer: str, tokens: Array, reading: PartialAttention) -> Array:
    """Merge what the heads read into the tokens, then the layer's perceptron."""
    heads = reading.weighted / reading.total
    tokens = tokens + linear(net, f"{layer}.merge", _merge_heads(heads))
    return tokens + perceptron(net, f"{layer}.mlp", norm(net, f"{layer}.norm_mlp", tokens))


def run(
    net: JaxNetwork,
    tokens: Array,
    reads: Mapping[int, Sequence[KVSegment]],
    layers: Iterable[int],
    *,
    attend: bool = False,
    own: Array | None = None,
    causal: bool = False,
    keep: bool = False,
    room: Sequence[KVSegment] | None = None,
    at: int | Array = 0,
    count_from: Mapping[int, Array] | None = None,
    valid: Array | None = None,
) -> tuple[Array, list[KVSegment]]:
    """Push tokens (B, R, T, W) through layers.

    Args:
        net: the network.
        tokens: (B, R, T, W).
        reads: layer -> segments that the tokens read.
        layers: indices of the layers to run.
        attend: the tokens read each other.
        own: mask of that, broadcast against (B, 1, R, T, T), or (B, 1, R, T, N) with `room`; None = all see all.
        causal: no token sees a later one; `own` then says which of them exist, (B, 1, r, 1, T).
        keep: return the segments that the tokens themselves make.
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
        x = norm(net, f"{layer}.norm_attention", tokens)
        reference = None if count_from is None else count_from[index]
        counts = None
        if valid is not None:
            learned = jax.nn.sigmoid(linear(net, f"{layer}.counter", x))
            steps = jnp.concatenate([jnp.ones_like(x[..., :1]), learned], -1) * valid[..., None]
            counts = jnp.cumsum(steps, -2) if reference is None else jnp.cumsum(steps, -2) + reference
            reference = counts
        elif net.schema.ordered and reference is None:
            reference = jnp.zeros((1, 1, 1, net.config.contextual_positions + 1), x.dtype)
        query = query_keys(net, layer, x, reference)
        others = list(reads.get(index, ()))
        if room is not None:
            pairs = own_segment(net, layer, x[:, :, ::2], None if counts is None else counts[:, :, ::2])
            segments.append(_enter(room[index], pairs, at))
            filled = replace(segments[-1], mask=own)
            if index == net.config.depth - 1:
                tokens, query = tokens[:, :, 1::2], query[:, :, :, 1::2]
                others, filled = [_targets_alone(segment) for segment in others], _targets_alone(filled)
        elif attend or keep:
            mine = own_segment(net, layer, x, counts, own, 1 if causal else None)
            segments.append(mine)
            if attend:
                others.append(mine)
        readings = [read_null(net, layer, query), *(read(query, segment) for segment in others)]
        if room is not None:
            readings.append(read_part(query, filled, at + pairs.values.shape[3]))
        tokens = finish_layer(net, layer, tokens, join(readings))
    return tokens, segments


def encode(net: JaxNetwork, context: Mapping[str, Mapping[str, Array]], valid: Array | None) -> Cache:
    """Encode a context (arrays (B, r, N)) of which `valid` (B, r, N) exist, None = all (R1, R3): a set, all see all."""
    tokens = embed_pairs(net, context, "context")
    mask = None
    if valid is not None:
        tokens, mask = _replicate(tokens, valid.shape[1], 1), valid[:, None, :, None, :]
    _, segments = run(net, tokens, {}, range(net.config.depth), attend=True, own=mask, keep=True)
    return Cache(context=segments)


def allocate(net: JaxNetwork, cache: Cache, shape: Sequence[int]) -> Cache:
    """Add room for K more trials to the buffer, `shape` = (B, R, K); `step` fills it."""
    batch, replicas, count = shape
    heads, size = net.config.heads, net.config.width // net.config.heads
    contextual_positions = net.config.contextual_positions + 1

    def empty(*shape: int) -> Array:
        return jnp.zeros(shape, net.dtype)

    segments = []
    for index in range(net.config.depth):
        room = KVSegment(
            empty(batch, heads, replicas, size + (contextual_positions + 1) * net.schema.ordered, count),
            empty(batch, heads, replicas, count, size),
            None,
            empty(batch, replicas, count, contextual_positions) if net.schema.ordered else None,
        )
        segments.append(_enter(cache.buffer[index], room, None) if cache.buffer else room)
    valid = jnp.zeros((batch, replicas, count), bool)
    return Cache(cache.context, segments, _place(cache.valid, valid, None, 1) if cache.buffer else valid)


def extend(net: JaxNetwork, cache: Cache, pairs: Mapping[str, Mapping[str, Array]], valid: Array) -> Cache:
    """Let realised trials enter the buffer, causally (R2).

    Args:
        net: the network.
        cache: what was encoded and realised before.
        pairs: inputs, outcomes and feedback, each dict name -> (B, R, T).
        valid: (B, R, T) bool, which of them stand for a trial.
    """
    tokens = embed_pairs(net, pairs, "buffer")
    depth = net.config.depth
    reads: dict[int, list[KVSegment]] = {index: cache.context[index : index + 1] for index in range(depth)}
    count_from = None
    if cache.buffer:
        assert cache.valid is not None
        mask = cache.valid[:, None, :, None, :]
        for index in range(depth):
            reads[index].append(replace(cache.buffer[index], mask=mask))
        count_from = _reached(net, cache, jnp.asarray([cache.size]))
    _, new = run(
        net,
        tokens,
        reads,
        range(depth),
        attend=True,
        own=valid[:, None, :, None, :],
        causal=True,
        keep=True,
        count_from=count_from,
        valid=valid.astype(tokens.dtype) if net.schema.ordered else None,
    )
    if cache.buffer:
        new = [_enter(old, segment, None) for old, segment in zip(cache.buffer, new, strict=True)]
        valid = _place(cache.valid, valid, None, 1)
    return Cache(cache.context, [KVSegment(x.keys, x.values, None, x.counts) for x in new], valid)


def _reached(net: JaxNetwork, cache: Cache, visible: Array) -> dict[int, Array] | None:
    """Counts that the buffer has reached after its first `visible` (T,) tokens, by layer; None without counts."""
    if not (net.schema.ordered and cache.buffer):
        return None
    return {index: counts_before(segment, visible) for index, segment in enumerate(cache.buffer)}


def step(
    net: JaxNetwork,
    cache: Cache,
    pairs: Mapping[str, Mapping[str, Array]],
    exists: Array,
    inputs: Mapping[str, Array],
    params: EncodedParams,
    at: int | Array,
) -> tuple[Array, Cache]:
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
    tokens = jnp.stack([embed_pairs(net, pairs, "buffer"), embed_targets(net, inputs, shape)], 3)
    tokens = tokens.reshape(*shape[:2], 2 * shape[2], -1)
    turn = jnp.arange(2 * shape[2])
    reads = {index: cache.context[index : index + 1] for index in range(depth)}
    targets = (turn % 2 == 1).reshape(1, 1, 1, -1, 1)
    for index, segment in enumerate(params.segments, depth - net.config.param_depth):
        mask = targets if segment.mask is None else targets & segment.mask
        reads[index] = [*reads[index], replace(segment, mask=mask)]
    valid = _place(cache.valid, exists, at, 1)
    counting = jnp.stack([exists, jnp.zeros_like(exists)], 3).reshape(*tokens.shape[:3])
    tokens, buffer = run(
        net,
        tokens,
        reads,
        range(depth),
        own=prefix_mask(jnp, at + turn // 2 + 1, valid),
        room=cache.buffer,
        at=at,
        count_from=_reached(net, cache, jnp.asarray([at])),
        valid=counting.astype(tokens.dtype) if net.schema.ordered else None,
    )
    return _with_floors(norm(net, "norm_out", tokens), params), Cache(cache.context, buffer, valid)


def _targets_alone(segment: KVSegment) -> KVSegment:
    """The same as targets see it, where pairs and targets come in turn."""
    mask = segment.mask
    return segment if mask is None or mask.shape[3] == 1 else replace(segment, mask=mask[:, :, :, 1::2])


def _replicate(x: Array, replicas: int, axis: int) -> Array:
    shape = list(x.shape)
    shape[axis] = max(replicas, shape[axis])
    return jnp.broadcast_to(x, shape)


def _place(old: Any, new: Array, at: int | Array | None, replicas: int, axis: int | None = None) -> Array:
    """Write `new` into `old` at index `at` of the token axis, by default the one after `replicas`, or append it."""
    axis = replicas + 1 if axis is None else axis
    if at is None:
        return jnp.concatenate([_replicate(old, new.shape[replicas], replicas), new], axis)
    return jax.lax.dynamic_update_slice_in_dim(old, new, at, axis)


def _enter(old: KVSegment, new: KVSegment, at: int | Array | None) -> KVSegment:
    counts = None if new.counts is None else _place(old.counts, new.counts, at, 1)
    return KVSegment(_place(old.keys, new.keys, at, 2, 4), _place(old.values, new.values, at, 2), None, counts)


@jax.tree_util.register_dataclass
@dataclass
class EncodedParams:
    """What targets read of the parameters.

    Attributes:
        segments: one segment for each of the top `param_depth` layers; empty where nothing is told.
        lower_bounds: (B, R, 1, 2 F), for each of the F outcomes that stay above a parameter: its value and 1, or 0 and 0
            where it is hidden. None without such outcomes.
    """

    segments: list[KVSegment]
    lower_bounds: Array | None


@jax.tree_util.register_dataclass
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

    tokens: Array
    query: Array
    reading: PartialAttention
    reads: dict[int, list[KVSegment]]
    count_from: dict[int, Array] | None


def prepare(
    net: JaxNetwork,
    cache: Cache,
    inputs: Mapping[str, Array],
    visible: Array,
    shape: Sequence[int],
    stairs: int | None = None,
) -> PreparedTargets:
    """Push targets with inputs (B, R, T) through the layers that do not read the parameters (R4, R5).

    Args:
        net: the network.
        cache: what was encoded and realised.
        inputs: dict name -> (B, R, T).
        visible: how many buffer tokens each target sees: (T,), or (B, R, T) in an exchangeable model.
        shape: (B, R, T).
        stairs: where `visible` is `stairs`, `stairs` + 1, ...: this number, which saves time.
    """
    depth = net.config.depth
    first = depth - net.config.param_depth
    tokens = embed_targets(net, inputs, shape)
    reads: dict[int, list[KVSegment]] = {index: cache.context[index : index + 1] for index in range(depth)}
    if cache.buffer:
        assert cache.valid is not None
        mask = prefix_mask(jnp, visible, cache.valid) if stairs is None else cache.valid[:, None, :, None, :]
        for index in range(depth):
            reads[index].append(replace(cache.buffer[index], mask=mask, stairs=stairs))
    count_from = _reached(net, cache, visible)
    tokens, _ = run(net, tokens, reads, range(first), count_from=count_from)
    layer = f"layers.{first}"
    reference = None if count_from is None else count_from[first]
    if net.schema.ordered and reference is None:
        reference = jnp.zeros((1, 1, 1, net.config.contextual_positions + 1), tokens.dtype)
    query = query_keys(net, layer, norm(net, f"{layer}.norm_attention", tokens), reference)
    reading = join([read_null(net, layer, query), *(read(query, segment) for segment in reads[first])])
    above = {index: reads[index] for index in range(first + 1, depth)}
    return PreparedTargets(tokens, query[..., : net.config.width // net.config.heads], reading, above, count_from)


def encode_params(net: JaxNetwork, params: Mapping[str, Array], conditioned: Array | None = None) -> EncodedParams:
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


def _floors(net: JaxNetwork, params: Mapping[str, Array], conditioned: Array | None) -> Array | None:
    """`EncodedParams.floors`."""
    columns, given = [], [name for name in net.schema.params if name in params]
    for name in net.schema.lower_bounds.values():
        value = known = jnp.zeros((1, 1), net.dtype)
        if name in params:
            value = params[name].astype(net.dtype)
            known = (
                jnp.ones_like(value) if conditioned is None else conditioned[..., given.index(name)].astype(net.dtype)
            )
        columns += [value * known, known]
    return jnp.stack(jnp.broadcast_arrays(*columns), -1)[:, :, None] if columns else None


def _with_floors(representation: Array, params: EncodedParams) -> Array:
    """A representation with the floors of its trials behind, where the heads find them."""
    if params.lower_bounds is None:
        return representation
    lead = representation.shape[:-1]
    lower_bounds = jnp.broadcast_to(params.lower_bounds, (*lead, params.lower_bounds.shape[-1]))
    return jnp.concatenate([representation, lower_bounds], -1)


def predict(net: JaxNetwork, prepared: PreparedTargets, params: EncodedParams) -> Array:
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
        reading = join([reading, read(query, conditioned[0])])
        reads = {index: [*reads[index], conditioned[index - first]] for index in range(first + 1, depth)}
    tokens = finish_layer(net, f"layers.{first}", tokens, reading)
    tokens, _ = run(net, tokens, reads, range(first + 1, depth), count_from=prepared.count_from)
    return _with_floors(norm(net, "norm_out", tokens), params)
