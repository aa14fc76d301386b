"""Data sets (*B, K) as rows: all batch dimensions made one, and rows of similar length together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ppl_buffer.files import to_numpy
from ppl_buffer.network.backend import Array, ArrayOps
from ppl_buffer.network.layout import length_groups, map_leaves


def flatten_trials(value: Array, batch: Sequence[int], trials: int) -> np.ndarray:
    """Values of each trial, which broadcast to (*batch, trials), as (P, trials)."""
    return np.broadcast_to(to_numpy(value), (*batch, trials)).reshape(math.prod(batch), trials)


def flatten_leaves(ops: ArrayOps, tree: Any, ndim: int, batch: Sequence[int]) -> Any:
    """A tree of arrays whose first `ndim` dimensions broadcast to `batch`, with these made one: (P, ...).

    Args:
        ops: `ArrayOps` of the backend.
        tree: arrays of the backend, such as an encoded context; None stays None.
        ndim: number of its batch dimensions.
        batch: what they broadcast to.
    """

    def flatten(leaf: Array) -> Array:
        tail = tuple(leaf.shape[ndim:])
        return ops.xp.broadcast_to(leaf, (*batch, *tail)).reshape((-1, *tail))

    return map_leaves(flatten, tree)


def last_trials(mask: np.ndarray) -> np.ndarray:
    """Number of trials up to the last existing one, (P,), at least 1, by a mask (P, K)."""
    return np.where(mask, np.arange(1, mask.shape[-1] + 1), 1).max(-1)


def rows_of_similar_length(mask: np.ndarray) -> list[np.ndarray]:
    """Indices of rows (P, K) in groups that are padded to one length each."""
    return length_groups(last_trials(mask)) or [np.arange(len(mask))]
