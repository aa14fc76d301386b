"""Resampling of conditional particle filters, which make training targets without bias. NumPy alone."""

from __future__ import annotations

import numpy as np


def resample(weight: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Which particles (filters, particles) survive systematic resampling; the first one does, in the first place.

    The offset is drawn given that it survives, in proportion to how often it does (conditional systematic resampling;
    Chopin & Singh 2015, Bernoulli 21, 1855-1883).

    Args:
        weight: (filters, particles), of sum 1.
        uniform: (filters, 1) in [0, 1).
    """
    particles = weight.shape[1]
    offset = uniform * weight[:, :1] * particles % 1.0
    # All filters in one search: each has an interval of its own.
    lane = np.arange(len(weight))[:, None]
    wanted = (np.arange(particles) + offset) / particles
    index = np.searchsorted((weight.cumsum(1) + lane).ravel(), (wanted + lane).ravel())
    return np.clip(index.reshape(wanted.shape) - lane * particles, 0, particles - 1)
