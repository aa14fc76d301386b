"""Simultaneous bands: where whole curves of generated data sets lie, so that one of the data is judged at a glance.

Myllymäki, Mrkvička, Grabarnik, Seijo & Hahn (2017), Global envelope tests for spatial processes, Journal of the Royal
Statistical Society B 79, 381-404: the directional quantile envelope.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Quantiles that measure the spread at a point, below the median and above it, and how wide they are for a normal one.
_TAIL, _NORMAL = 0.05, 1.6448536


@dataclass(frozen=True)
class Envelope:
    """Where whole curves lie. Made by `envelope`.

    Attributes:
        middle: (P,), the median at each point.
        low: (P,), lower end of the band: so many whole curves stay inside as the level says.
        high: (P,), upper end.
        used: (P,) bool, points where nearly all curves have a value; the others tell nothing.
        p: share of curves, that of the data counted, that leave their middle as far at some point as the data do; NaN
            without data.
        worst: the point where the data are farthest out, in widths of the band; -1 without data.
    """

    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    used: np.ndarray
    p: float = float("nan")
    worst: int = -1

    @property
    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end of a band of shares, from 0 to 1."""
        return np.clip(self.low, 0.0, 1.0), np.clip(self.high, 0.0, 1.0)


def envelope(curves: np.ndarray, observed: np.ndarray | None = None, level: float = 0.95) -> Envelope:
    """The simultaneous band of curves.

    Args:
        curves: (draws, P), NaN where one has no value.
        observed: (P,), the same of the data.
        level: share of whole curves inside the band.
    """
    used = np.isfinite(curves).mean(0) >= 0.9
    if observed is not None:
        used &= np.isfinite(observed)
    known = np.where(used, curves, 0.0)
    middle, tail, top = np.nanquantile(known, [0.5, _TAIL, 1 - _TAIL], axis=0)
    # Where a value is nearly always the same its quantiles are too.
    least = np.maximum(np.nanstd(known, 0), 1e-9)
    below, above = (np.maximum(x / _NORMAL, least) for x in (middle - tail, top - middle))

    def distances(values: np.ndarray) -> np.ndarray:
        """How far curves (..., P) are from the middle, in its spreads."""
        apart = values - middle
        return np.where(used & np.isfinite(values), np.maximum(apart / above, -apart / below), 0.0)

    own = distances(curves).max(-1, initial=0.0)
    most = float(np.quantile(own, level))
    middle_known = np.where(used, middle, np.nan)
    # Never beyond all curves: a share has no band above 1.
    low = np.maximum(middle_known - most * below, np.nanmin(known, 0))
    high = np.minimum(middle_known + most * above, np.nanmax(known, 0))
    if observed is None:
        return Envelope(middle_known, low, high, used)
    apart = distances(observed)
    p = (1 + int((own >= apart.max(initial=0.0)).sum())) / (1 + len(own))
    return Envelope(middle_known, low, high, used, p, int(apart.argmax()))
