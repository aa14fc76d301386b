"""Streams of uniform numbers that outcomes are drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

# Open at both ends, since a head turns them into normal numbers.
_LOWEST, _HIGHEST = np.float32(1e-7), np.float32(1 - 1e-7)


def uniform_streams(seeds: Iterable[Any], shape: Sequence[int]) -> np.ndarray:
    """Uniform numbers in (0, 1), single precision, (n, *shape).

    Args:
        seeds: n seeds, each of a stream of its own: what `numpy.random.default_rng` takes.
        shape: of the numbers of one stream.
    """
    streams = [np.random.default_rng(seed).random(tuple(shape), dtype=np.float32) for seed in seeds]
    return np.clip(np.stack(streams), _LOWEST, _HIGHEST)
