"""Posteriors of all subjects side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppl_buffer.plots.arguments import finite_draws
from ppl_buffer.plots.categories import label_names
from ppl_buffer.plots.drawing import DATA, MODEL, make_panels

# Characters of a label; longer ones would leave no room for the picture.
_LONGEST = 20


def plot_subjects(
    draws: np.ndarray,
    *,
    group: np.ndarray | None = None,
    labels: Sequence[Any] | None = None,
    name: str = "",
    axes: Any = None,
) -> Any:
    """Everybody's posterior of one parameter, sorted: median, 50 % and 90 % interval.

    Args:
        draws: (draws, subjects).
        group: draws of the group's value, any shape: its median and 90 % interval are drawn across.
        labels: of the subjects, shown where there are at most 30.
        name: of the parameter.
        axes: matplotlib axes; by default those of a new figure.

    Returns:
        the axes.

    Raises:
        ValueError: if draws are no finite numbers of this shape, or there are too few labels.
    """
    draws = finite_draws("draws", draws, ("draws", "subjects"))
    names = None if labels is None else label_names(labels, draws.shape[1], "subjects")
    low, lower, middle, upper, high = np.percentile(draws, [5, 25, 50, 75, 95], axis=0)
    order = np.argsort(middle)
    row = np.arange(len(order))
    panel = make_panels(axes, 1, (3.4, max(2.6, 0.16 * len(order) + 1.0)))[0]
    if group is not None:
        start, center, end = np.percentile(finite_draws("group", np.ravel(group), ("draws",)), [5, 50, 95])
        panel.axvspan(start, end, color=MODEL, alpha=0.15, lw=0, label="group, 90 %")
        panel.axvline(center, color=MODEL, lw=1.2)
    panel.hlines(row, low[order], high[order], color="0.6", lw=1.2)
    panel.hlines(row, lower[order], upper[order], color="0.25", lw=3)
    panel.plot(middle[order], row, "o", color="white", mec=DATA, ms=4, mew=1.0)
    panel.set(xlabel=name, ylabel="person, sorted", ylim=(-0.8, len(order) - 0.2))
    if names is not None and len(order) <= 30:
        shown = [names[index] for index in order]
        shown = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in shown]
        # Labels are people's names, in which a dollar sign begins no formula.
        panel.set_yticks(row, shown, fontsize="x-small", parse_math=False)
        panel.set_ylabel("person")
    else:
        panel.set_yticks([])
    return panel
