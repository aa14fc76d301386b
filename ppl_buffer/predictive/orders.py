"""Orders in which exchangeable trials are taken."""

from __future__ import annotations

import numpy as np

from ppl_buffer.network.backend import Array

# More orders than anybody averages over would take hours to write down.
_MOST_ORDERS = 100_000


def permutations(orders: int | Array, trials: int) -> np.ndarray:
    """Orders of the trials: (R, K). A number gives the natural order and R - 1 fixed random ones.

    Raises:
        ValueError: if a number is below 1 or beyond all use, or an array does not hold permutations of the trials.
    """
    if isinstance(orders, (int, np.integer)) and not isinstance(orders, bool):
        if orders < 1:
            raise ValueError(f"orders: expected at least 1, got {orders}")
        if orders > _MOST_ORDERS:
            raise ValueError(f"orders: expected at most {_MOST_ORDERS}, got {orders}")
        rng = np.random.default_rng(0)
        return np.stack([np.arange(trials), *(rng.permutation(trials) for _ in range(orders - 1))])
    try:
        array = np.asarray(orders)
    except ValueError:
        array = np.zeros(0)  # rows of different lengths
    if array.ndim != 2 or array.shape[1] != trials or not (np.sort(array, 1) == np.arange(trials)).all():
        raise ValueError(f"orders: expected a number, or permutations of 0..{trials - 1} in rows, got {orders!r}")
    return array.astype(int)
