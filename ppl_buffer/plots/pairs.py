"""A posterior's quantities against each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ppl_buffer.extras import needs
from ppl_buffer.plots.arguments import finite_draws
from ppl_buffer.plots.drawing import MODEL, make_panels

# Draws that are shown as points.
_POINTS = 800


def plot_pairs(draws: Mapping[str, np.ndarray], *, axes: object = None) -> np.ndarray:
    """Draws of each two quantities: points below the diagonal, histograms on it, correlations above.

    Args:
        draws: name -> (chains, draws), two or more quantities, all of one shape.
        axes: matplotlib axes, as many as the square of quantities; by default those of a new figure.

    Returns:
        the axes, (quantities, quantities).

    Raises:
        ValueError: if draws are no finite numbers of one shape, or there are too few quantities or axes.
    """
    if not isinstance(draws, Mapping) or len(draws) < 2:
        raise ValueError(f"draws: expected a dict of two or more names -> (chains, draws), got {draws!r}")
    flat = {name: finite_draws(f"draws[{name!r}]", x, ("chains", "draws")).ravel() for name, x in draws.items()}
    if len({x.shape for x in flat.values()}) > 1:
        raise ValueError(f"draws: expected one shape, got { {name: np.shape(x) for name, x in draws.items()} }")
    names, count = list(flat), len(flat)
    if axes is None:
        with needs("a plot", "arviz"):
            from matplotlib.figure import Figure
        figure = Figure(figsize=(1.7 * count + 0.6, 1.5 * count + 0.4), layout="constrained")
        axes = figure.subplots(count, count, squeeze=False, sharex="col")
    grid: np.ndarray = make_panels(axes, count**2).reshape(count, count)
    shown = np.linspace(0, len(flat[names[0]]) - 1, min(_POINTS, len(flat[names[0]]))).astype(int)
    for row, below in enumerate(names):
        for column, beside in enumerate(names):
            panel = grid[row, column]
            if row == column:
                panel.hist(flat[below], bins=30, color=MODEL, alpha=0.5)
            elif row > column:
                panel.plot(flat[beside][shown], flat[below][shown], ".", color=MODEL, ms=2, alpha=0.35)
            else:
                panel.set_axis_off()
                varies = flat[below].std() > 0 and flat[beside].std() > 0
                text = f"{np.corrcoef(flat[below], flat[beside])[0, 1]:+.2f}" if varies else "–"
                panel.text(0.5, 0.5, text, ha="center", va="center", transform=panel.transAxes)
            panel.tick_params(labelsize="x-small")
            if column or row == column:
                panel.set_yticks([])
            if row == count - 1:
                panel.set_xlabel(beside, fontsize="small")
            if column == 0 and row:
                panel.set_ylabel(below, fontsize="small")
    return grid
