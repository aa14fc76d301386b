"""What all plots share: panels, colours, bands of what a model generates."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from ppl_buffer.extras import needs
from ppl_buffer.plots.arguments import band_curves

DATA, MODEL, GRID = "#1a1a1a", "#2f6fb0", "#b8b8b8"
CHOICES = ("#d1772e", "#2f6fb0", "#3c9a5f", "#8d5ab5", "#b5443c")
_LEVELS = ((90, 0.22), (50, 0.42))


def make_panels(
    axes: Any, count: int, size: tuple[float, float] = (3.5, 3.1), most: int = 4, share_y: bool = True
) -> Any:
    """`count` axes, an array: those given, or those of a new figure.

    Raises:
        ValueError: if there are fewer, or they are no axes.
    """
    with needs("a plot", "arviz"):
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure
    if axes is None:
        columns = min(count, most)
        rows = math.ceil(count / columns)
        figure = Figure(figsize=(size[0] * columns + 0.5, size[1] * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=share_y)
        for spare in grid.flat[count:]:
            spare.set_axis_off()
        axes = grid.flat[:count]
    axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(axes) < count or not all(isinstance(panel, Axes) for panel in axes):
        kinds = sorted({type(panel).__name__ for panel in axes})
        raise ValueError(f"axes: expected {count} of matplotlib, one a panel, got {len(axes)} of {kinds}")
    for panel in axes[:count]:
        panel.spines[["top", "right"]].set_visible(False)
    return axes[:count]


def bands(axes: Any, x: Any, curves: np.ndarray, *, color: str = MODEL, label: str = "model", **step: Any) -> None:
    """Draw the central 50 % and 90 % of curves (draws, points) at points x.

    Raises:
        ValueError: if there are no curves, or they have another number of points.
    """
    curves = band_curves(curves, len(x))
    for level, shade in _LEVELS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # points where no draw has a value
            low, high = np.nanpercentile(curves, [50 - level / 2, 50 + level / 2], axis=0)
        text = f"{label}, {level} %" if label else None
        axes.fill_between(x, low, high, color=color, alpha=shade, lw=0, label=text, **step)


def legend_above(axes: Any, columns: int = 2) -> None:
    """A legend above the panel, where it hides nothing."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, frameon=False, fontsize="small", borderaxespad=0.2
    )


def outline(axes: Any, x: Any, low: np.ndarray, high: np.ndarray, label: str | None = "model, 95 % of curves") -> None:
    """Draw the ends of the band that so many whole curves stay inside, by which a check judges the data's."""
    for end in (low, high):
        axes.plot(x, end, color=MODEL, lw=0.8, ls="--", alpha=0.7, label=label if end is low else None)
