"""What all plots share: panels, colours, bands of what a model generates."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ppl_buffer.extras import needs
from ppl_buffer.plots.statistics import Arrays, columns

DATA, MODEL, GRID = "#1a1a1a", "#2f6fb0", "#b8b8b8"
CHOICES = ("#d1772e", "#2f6fb0", "#3c9a5f", "#8d5ab5", "#b5443c")
_LEVELS = ((90, 0.22), (50, 0.42))


def make_panels(
    axes: Any, count: int, size: tuple[float, float] = (3.5, 3.1), most: int = 4, share_y: bool = True
) -> Any:
    """`count` axes, an array: those given, or those of a new figure."""
    if axes is None:
        with needs("a plot", "arviz"):
            from matplotlib.figure import Figure
        columns = min(count, most)
        rows = math.ceil(count / columns)
        figure = Figure(figsize=(size[0] * columns + 0.5, size[1] * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=share_y)
        for spare in grid.flat[count:]:
            spare.set_axis_off()
        axes = grid.flat[:count]
    axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(axes) < count:
        raise ValueError(f"axes: expected {count}, one a panel, got {len(axes)}")
    for panel in axes[:count]:
        panel.spines[["top", "right"]].set_visible(False)
    return axes[:count]


def bands(axes: Any, x: Any, curves: np.ndarray, *, color: str = MODEL, label: str = "model", **step: Any) -> None:
    """Draw the central 50 % and 90 % of curves (draws, points) at points x."""
    for level, shade in _LEVELS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # points where no draw has a value
            low, high = np.nanpercentile(curves, [50 - level / 2, 50 + level / 2], axis=0)
        text = f"{label}, {level} %" if label else None
        axes.fill_between(x, low, high, color=color, alpha=shade, lw=0, label=text, **step)


def label_names(given: Sequence[str] | None, count: int, stem: str) -> list[str]:
    """Names of the categories 0 to count - 1: those given, or "stem = 0" and so on."""
    names = [f"{stem} = {index}" for index in range(count)] if given is None else list(given)
    if len(names) < count:
        raise ValueError(f"labels of {stem}: expected {count}, got {names}")
    return names


def pick(data: Arrays, replicated: Arrays | None, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """A column of the data, and of the generated data (that of the data where they have none)."""
    if name not in data:
        raise ValueError(f"data: expected a column {name!r}, got {list(data)}")
    if replicated is None:
        return data[name], None
    exists = np.isfinite(data[name])
    generated = replicated.get(name, data[name])
    same = np.shape(generated)[-2:] == exists.shape
    return data[name], np.where(exists, generated, np.nan) if same else generated


def both(data: Any, replicated: Any) -> tuple[Arrays, Arrays | None]:
    """Data, and what a model generates (or None), as columns."""
    return columns(data), None if replicated is None else columns(replicated)


def categories(values: np.ndarray) -> list[int]:
    """The categories that occur, in order."""
    return [int(value) for value in np.unique(values[np.isfinite(values)])]
