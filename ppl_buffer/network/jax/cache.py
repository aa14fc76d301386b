"""What predictions read in JAX: context and buffer, how they are filled, and who sees how much.

Tokens are (B, R, T): B data sets, R replicas of each, T tokens; r = R, or 1 where replicas share.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from ppl_buffer.network.jax.attention import KVSegment, replicate
from ppl_buffer.network.jax.layer import counts_before
from ppl_buffer.network.jax.ops import Array
from ppl_buffer.network.jax.weights import JaxNetwork
from ppl_buffer.network.masks import prefix_mask


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


def allocate(net: JaxNetwork, cache: Cache, shape: Sequence[int]) -> Cache:
    """Add places for K more trials to the buffer, `shape` = (B, R, K); `step` fills them."""
    batch, replicas, count = shape
    heads, size = net.config.heads, net.config.width // net.config.heads
    count_size = net.config.contextual_positions + 1
    buffer = []
    for index in range(net.config.depth):
        places = KVSegment(
            net.ops.zeros(net, (batch, heads, replicas, size + (count_size + 1) * net.schema.ordered, count)),
            net.ops.zeros(net, (batch, heads, replicas, count, size)),
            None,
            net.ops.zeros(net, (batch, replicas, count, count_size)) if net.schema.ordered else None,
            apart=net.config.buffer_apart,
        )
        buffer.append(enter(cache.buffer[index], places, None) if cache.buffer else places)
    valid = jnp.zeros((batch, replicas, count), bool)
    return Cache(cache.context, buffer, place(cache.valid, valid, None, 1, 2) if cache.buffer else valid)


def first_tokens(
    segment: KVSegment, count: int | Array, mask: Array | None, causal_offset: int | None = None
) -> KVSegment:
    """The first `count` tokens of a buffer, of which mask and offset say who sees them."""
    filled = None if isinstance(count, int) and count == segment.values.shape[3] else count
    return KVSegment(segment.keys, segment.values, mask, None, causal_offset, filled, segment.apart)


def reads(
    cache: Cache, layers: Iterable[int], visible: Array | None = None, causal_offset: int | None = None
) -> dict[int, list[KVSegment]]:
    """Context and buffer, by layer; target t sees the first `visible` buffer tokens, None = all."""
    mask = None
    if cache.buffer:
        assert cache.valid is not None
        everybody = visible is None or causal_offset is not None
        mask = mask_of(cache.valid) if everybody else prefix_mask(jnp, visible, cache.valid)
    read = {index: list(cache.context[index : index + 1]) for index in layers}
    for index in layers:
        buffer = cache.buffer[index : index + 1]
        read[index] += [first_tokens(segment, cache.size, mask, causal_offset) for segment in buffer]
    return read


def mask_of(valid: Array | None) -> Array | None:
    """Mask of tokens that see those of (B, r, N) which are `valid`; None = all of them."""
    return None if valid is None else valid[:, None, :, None, :]


def counts_reached(net: JaxNetwork, cache: Cache, visible: Array) -> dict[int, Array] | None:
    """Counts that the buffer has reached after its first `visible` (T,) tokens, by layer; None without counts."""
    if not (net.schema.ordered and cache.buffer):
        return None
    return {index: counts_before(segment, visible) for index, segment in enumerate(cache.buffer)}


def enter(old: KVSegment, new: KVSegment, position: int | Array | None) -> KVSegment:
    """A buffer's segment with new tokens at `position`, or behind all others."""
    counts = None if new.counts is None else place(old.counts, new.counts, position, 1, 2)
    keys, values = place(old.keys, new.keys, position, 2, 4), place(old.values, new.values, position, 2, 3)
    return KVSegment(keys, values, None, counts, apart=old.apart)


def place(old: Array | None, new: Array, position: int | Array | None, replicas: int, axis: int) -> Array:
    """Write `new` into `old` at an index of the token axis, or append it; `replicas` is that axis."""
    assert old is not None
    if position is None:
        return jnp.concatenate([replicate(old, new.shape[replicas], replicas), new], axis)
    return jax.lax.dynamic_update_slice_in_dim(old, new, position, axis)
