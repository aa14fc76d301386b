"""Which trials of a data set have the same inputs: where they see nothing of each other, they are one target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ppl_buffer.network.arguments import NetworkLike
from ppl_buffer.network.backend import Array, Named, backend_of

# From this share of targets on, what is saved pays for bringing them back to the trials.
_MOST = 0.75


class DistinctInputs(NamedTuple):
    """The inputs of data sets without repetitions.

    Attributes:
        inputs: dict name -> (B, 1, U), each combination once; data sets with fewer repeat their first.
        index: (B, 1, K), which of them each trial has.
    """

    inputs: Named
    index: Array


def distinct_inputs(
    net: NetworkLike, inputs: Named, mask: Array | None, batch: Sequence[int], trials: int
) -> DistinctInputs | None:
    """The different inputs of each data set; None where they are traced, or too many to gain anything.

    Args:
        net: the network, whose backend says how many targets to make, so that few programs serve all data.
        inputs: dict name -> (*b, K), whose batch dimensions broadcast to `batch`.
        mask: (*b, K) bool, which trials exist; None = all.
        batch: *B, whose product is the number of data sets B.
        trials: K.
    """
    known, exists = net.ops.to_concrete_each(inputs), None if mask is None else net.ops.to_concrete(mask)
    if any(x is None for x in known.values()) or (mask is not None and exists is None):
        return None
    size, shape = math.prod(batch), (*batch, trials)
    columns = {name: np.broadcast_to(x, shape).reshape(size, trials) for name, x in known.items() if x is not None}
    if exists is not None:
        # What does not exist may be taken for any other trial.
        there = np.broadcast_to(exists, shape).reshape(size, trials)
        any_other = there.argmax(-1)[:, None]
        columns = {name: np.where(there, x, np.take_along_axis(x, any_other, -1)) for name, x in columns.items()}
    code = np.zeros((size, trials), dtype=np.int64)
    for column in columns.values():
        # Numbered anew after each input, so that numbers stay small.
        code = _numbered(code * (size * trials + 1) + _numbered(column))
    order = code.argsort(-1, kind="stable")
    in_order = np.take_along_axis(code, order, -1)
    new = np.concatenate([np.ones((size, 1), dtype=bool), in_order[:, 1:] != in_order[:, :-1]], -1)
    rank = new.cumsum(-1) - 1
    count = int(rank.max()) + 1
    count = count if count == 1 else backend_of(net).bucket(count)
    if count > _MOST * trials:
        return None
    index = np.empty_like(rank)
    np.put_along_axis(index, order, rank, -1)
    first = np.broadcast_to(order[:, :1], (size, count)).copy()
    row, place = np.nonzero(new)
    first[row, rank[row, place]] = order[row, place]
    kept = {name: np.take_along_axis(column, first, -1)[:, None] for name, column in columns.items()}
    return DistinctInputs(kept, index[:, None])


def _numbered(values: np.ndarray) -> np.ndarray:
    """The same array with its different values numbered from 0."""
    return np.unique(values, return_inverse=True)[1].reshape(values.shape)
