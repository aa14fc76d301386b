"""Learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppl_buffer.plots.arguments import both, codes, pick
from ppl_buffer.plots.categories import category, label_names, words_of
from ppl_buffer.plots.drawing import DATA, GRID, bands, make_panels, outline
from ppl_buffer.plots.envelopes import envelope
from ppl_buffer.plots.statistics import learning_curve


def plot_learning_curves(
    data: Any,
    replicated: Any = None,
    *,
    correct: str = "choice",
    cue: str | None = None,
    cue_labels: Sequence[str] | None = None,
    width: int = 5,
    axes: Any = None,
) -> Any:
    """Learning curves: share of correct responses by how often the cue was seen, a panel a cue.

    Args:
        data: see `ppl_buffer.plots`.
        replicated: what the model generates; None = data alone.
        correct: name of a column of 0 and 1.
        cue: name of what was shown, integers from 0; None = always the same.
        cue_labels: names of the cues; by default the words of the table, where there are any, or numbers.
        width: presentations in a bin.
        axes: matplotlib axes, one a cue; by default those of a new figure.

    Returns:
        the axes, an array.

    Raises:
        ValueError: if a column is missing, or shapes or values do not fit.
    """
    words = words_of(data)
    data, replicated = both(data, replicated)
    (right,), again = pick(data, replicated, correct)
    shown = None if cue is None else codes(data, cue)
    # A response that is not known was a presentation all the same: bins are the same in all data sets.
    exists = None if again is None else np.isfinite(right) | np.isfinite(again[0]).any(0)
    observed = learning_curve(right, shown, width, exists)
    generated = None if again is None else learning_curve(again[0], shown, width, exists)
    panels = make_panels(axes, len(observed))
    titles = label_names(cue_labels, len(observed), cue or "", words)
    centers = width * (np.arange(observed.shape[-1]) + 0.5)
    # All cues together are one curve.
    whole = None if generated is None else envelope(generated.reshape(len(generated), -1))
    for index, panel in enumerate(panels):
        if generated is not None and whole is not None:
            bands(panel, centers, generated[:, index])
            outline(panel, centers, *(shares.reshape(observed.shape)[index] for shares in whole.shares))
        panel.plot(centers, observed[index], "o-", color=DATA, ms=4, lw=1.1, label="data")
        panel.axhline(0.5, color=GRID, lw=0.8, ls=":", zorder=0)
        panel.set(xlabel="times seen")
        if cue is not None:
            panel.set_title(titles[index])
    panels[0].set_ylabel(f"share of {category(correct, 1, words)}")
    panels[-1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small")
    return panels
