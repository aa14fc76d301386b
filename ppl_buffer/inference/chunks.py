"""Work on many draws in chunks of one shape, so that one compiled program serves all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np


def chunks(count: int, size: int) -> Iterator[np.ndarray]:
    """Indices 0 .. count - 1 in arrays (size,).

    The last chunk reaches back over indices of the one before. Where there are fewer indices than `size`, the last
    index fills the chunk up. Work on an index must therefore be the same whenever it is done.
    """
    for start in range(0, count, size):
        first = max(0, min(start, count - size))
        yield np.minimum(np.arange(first, first + size), count - 1)


def new_in_chunks(count: int, size: int) -> list[int]:
    """How many indices each of `chunks` adds, for a progress bar."""
    return [min(size, count - start) for start in range(0, count, size)]


def map_chunks(
    function: Callable[[np.ndarray], np.ndarray],
    count: int,
    size: int,
    update: Callable[[int], Any] | None = None,
) -> np.ndarray:
    """Results (count, ...) of a function of indices (size,) that returns (size, ...).

    Args:
        function: of the indices of a chunk.
        count: number of indices.
        size: of a chunk.
        update: is told how many results each chunk added.
    """
    results: np.ndarray | None = None
    for indices, added in zip(chunks(count, size), new_in_chunks(count, size), strict=True):
        part = function(indices)
        if results is None:
            results = np.empty((count, *part.shape[1:]), part.dtype)
        results[indices] = part
        if update is not None:
            update(added)
    if results is None:
        raise ValueError(f"count: expected an integer of at least 1, got {count!r}")
    return results


def run_groups(
    groups: Iterable[Iterable[Callable[[], int]]], workers: int, update: Callable[[int], Any] | None = None
) -> None:
    """Do groups of work on several threads: the first piece of each group, which compiles, before all others.

    Args:
        groups: pieces of work, each of which returns how much it did. A group may prepare its pieces when asked.
        workers: number of threads; with one, all is done in the thread of the caller, whose modes (such as torch's
            no_grad) no other thread knows.
        update: is told how much each piece did.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        each: Callable[..., Iterator[int]] = pool.map if workers > 1 else map
        waiting = [iter(group) for group in groups]
        for done in each(lambda group: next(group)(), waiting):
            if update is not None:
                update(done)
        for done in each(lambda piece: piece(), chain(*waiting)):
            if update is not None:
                update(done)
    finally:
        # After an error or Ctrl-C nobody wants what was not begun.
        pool.shutdown(cancel_futures=True)
