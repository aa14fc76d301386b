"""Chains of a sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_buffer.extras import needs
from ppl_buffer.plots.arguments import finite_draws
from ppl_buffer.plots.drawing import CHOICES, make_panels


def plot_traces(draws: Mapping[str, np.ndarray], *, axes: Any = None) -> Any:
    """Chains of each quantity, and their histograms: they should look alike.

    Args:
        draws: name -> (chains, draws).
        axes: matplotlib axes, two a quantity; by default those of a new figure.

    Returns:
        the axes, (quantities, 2).

    Raises:
        ValueError: if draws are no finite numbers of this shape, or there are too few axes.
    """
    if not isinstance(draws, Mapping) or not draws:
        raise ValueError(f"draws: expected a dict name -> (chains, draws), not empty, got {draws!r}")
    draws = {name: finite_draws(f"draws[{name!r}]", x, ("chains", "draws")) for name, x in draws.items()}
    if axes is None:
        with needs("a plot", "arviz"):
            from matplotlib.figure import Figure
        figure = Figure(figsize=(9, 1.55 * len(draws) + 0.5), layout="constrained")
        axes = figure.subplots(len(draws), 2, squeeze=False, width_ratios=(3, 1))
    grid = make_panels(axes, 2 * len(draws)).reshape(len(draws), 2)
    for (name, chains), (left, right) in zip(draws.items(), grid, strict=True):
        edges = np.histogram_bin_edges(chains, bins=30)
        for index, values in enumerate(chains):
            color = CHOICES[(index + 1) % len(CHOICES)]
            left.plot(values, lw=0.6, color=color, alpha=0.85, label=f"chain {index + 1}")
            right.hist(values, edges, density=True, histtype="step", lw=1.3, color=color)
        left.set_ylabel(name)
        right.set_yticks([])
        for panel in (left, right):
            panel.spines[["top", "right"]].set_visible(False)
    grid[-1, 0].set_xlabel("draw after warm-up")
    grid[-1, 1].set_xlabel("value")
    grid[0, 0].legend(frameon=False, ncols=len(next(iter(draws.values()))), fontsize="small",
                      loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)  # fmt: skip
    return grid
