"""What predictions read in torch: context and buffer, how they are filled, and who sees how much.

Tokens are (B, R, T): B data sets, R replicas of each, T tokens; r = R, or 1 where replicas share.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from ppl_buffer.network.masks import prefix_mask
from ppl_buffer.network.torch.attention import KVSegment, replicate
from ppl_buffer.network.torch.layer import counts_before, null_segment, zero_segment
from ppl_buffer.network.torch.weights import TorchNetwork


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
        return self.buffer[0].keys.shape[3] - self.buffer[0].prefix_length if self.buffer else 0


def allocate(net: TorchNetwork, cache: Cache, shape: Sequence[int]) -> Cache:
    """Add places for K more trials to the buffer, `shape` = (B, R, K); `step` fills them."""
    batch, replicas, count = shape

    def with_places(parts: Sequence[Tensor]) -> Tensor:
        """Keys or values (b, H, r, N, E) for all data sets and replicas, one after another, and the empty places."""
        full = [x.expand(batch, -1, replicas, -1, -1) for x in parts]
        places = full[0].new_zeros((*full[0].shape[:3], count, full[0].shape[-1]))
        return torch.cat([*full, places], 3)

    context: list[KVSegment] = []
    buffer: list[KVSegment] = []
    for index in range(net.config.depth):
        apart, history = net.config.buffer_apart, cache.buffer[index : index + 1]
        prefix = [zero_segment(net) if apart else null_segment(net, f"layers.{index}")]
        for segment in cache.context[index : index + 1]:
            elsewhere = apart or segment.keys.shape[2] < replicas or segment.mask is not None
            (context if elsewhere else prefix).append(segment)
        keys, values = (with_places([getattr(x, part) for x in (*prefix, *history)]) for part in ("keys", "values"))
        counts = None
        if net.schema.ordered:
            places = keys.new_zeros((batch, replicas, count, net.config.contextual_positions + 1))
            reached = [x.counts.expand(batch, replicas, -1, -1) for x in history if x.counts is not None]
            counts = torch.cat([*reached, places], 2)
        before = sum(x.keys.shape[3] for x in prefix)
        buffer.append(KVSegment(keys, values, None, counts, prefix_length=before, apart=apart))
    valid = torch.zeros((batch, replicas, count), dtype=torch.bool, device=net.device)
    return Cache(context, buffer, place(cache.valid, valid, None, 1, 2) if cache.buffer else valid)


def first_tokens(segment: KVSegment, count: int, mask: Tensor | None, causal_offset: int | None = None) -> KVSegment:
    """The first `count` tokens of a buffer, of which mask and offset say who sees them."""
    prefix = segment.prefix_length
    if prefix and mask is not None:
        mask = functional.pad(mask, (prefix, 0), value=True)
    keys, values = segment.keys[:, :, :, : prefix + count], segment.values[:, :, :, : prefix + count]
    offset = None if causal_offset is None else prefix + causal_offset
    return KVSegment(keys, values, mask, None, offset, prefix, segment.apart)


def reads(
    cache: Cache, layers: Iterable[int], visible: Tensor | None = None, causal_offset: int | None = None
) -> dict[int, list[KVSegment]]:
    """Context and buffer, by layer; target t sees the first `visible` buffer tokens, None = all."""
    mask = None
    if cache.buffer:
        assert cache.valid is not None
        everybody = visible is None or causal_offset is not None
        mask = mask_of(cache.valid) if everybody else prefix_mask(torch, visible, cache.valid)
    read = {index: list(cache.context[index : index + 1]) for index in layers}
    for index in layers:
        buffer = cache.buffer[index : index + 1]
        read[index] += [first_tokens(segment, cache.size, mask, causal_offset) for segment in buffer]
    return read


def mask_of(valid: Tensor | None) -> Tensor | None:
    """Mask of tokens that see those of (B, r, N) which are `valid`; None where it is known to hide nothing."""
    if valid is None:
        return None
    try:
        if not torch.jit.is_tracing() and valid.all():
            return None
    except RuntimeError:  # torch.func.vmap hides the numbers
        pass
    return valid[:, None, :, None, :]


def counts_reached(net: TorchNetwork, cache: Cache, visible: Tensor) -> dict[int, Tensor] | None:
    """Counts that the buffer has reached after its first `visible` (T,) tokens, by layer; None without counts."""
    if not (net.schema.ordered and cache.buffer):
        return None
    return {index: counts_before(segment, visible) for index, segment in enumerate(cache.buffer)}


def enter(old: KVSegment, new: KVSegment, position: int | None) -> KVSegment:
    """A buffer's segment with new tokens at `position`, or behind all others."""
    counts = None if new.counts is None else place(old.counts, new.counts, position, 1, 2)
    index = None if position is None else old.prefix_length + position
    keys, values = place(old.keys, new.keys, index, 2, 3), place(old.values, new.values, index, 2, 3)
    return KVSegment(keys, values, None, counts, prefix_length=old.prefix_length, apart=old.apart)


def place(old: Tensor | None, new: Tensor, position: int | None, replicas: int, axis: int) -> Tensor:
    """Write `new` into `old`, in place, at an index of the token axis, or append it; `replicas` is that axis."""
    assert old is not None
    if position is None:
        return torch.cat([replicate(old, new.shape[replicas], replicas), new], axis)
    old.narrow(axis, position, new.shape[axis]).copy_(new)
    return old
