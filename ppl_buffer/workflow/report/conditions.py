"""The predictive check by the levels of the conditions that formulas name: a picture a condition."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from ppl_buffer.diagnostics.conditions import Condition
from ppl_buffer.diagnostics.curves import Curve, shown_cue, shown_outcomes
from ppl_buffer.plots import QUANTILES
from ppl_buffer.plots.categories import category
from ppl_buffer.plots.drawing import DATA, GRID, MODEL, bands, make_panels, outline
from ppl_buffer.schema import Categorical
from ppl_buffer.workflow.conditions import conditions_of
from ppl_buffer.workflow.fitting import Fit
from ppl_buffer.workflow.report.fragments import Figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Names of figures begin so.
PREFIX = "by_"
_OUTSIDE = "#b5443c"
_NOTE = (
    "Circles: the data; lines: 50 % (thick) and 90 % of data sets drawn from the posterior. Between the ticks 95 % of "
    "the whole pictures of drawn data sets stay: a red circle lies outside."
)


def draw_conditions(fit: Fit) -> Figures:
    """Figures of each condition: choices and quantiles, and learning curves, by level."""
    figures: Figures = {}
    if fit.check is None or fit.design is None:
        return figures
    choice, number = shown_outcomes(fit.net.schema)
    for name, condition in conditions_of(fit.net.schema, fit.design, fit.trials).items():
        file = PREFIX + re.sub(r"\W+", "_", name)
        curves = fit.check.curves
        for kind in (f"quantiles of {number} by {name}", f"shares of {choice} by {name}"):
            if kind in curves:
                what = f"Choices and {number}" if choice and number else number or "Choices"
                figures[file] = (_by_level(fit, curves[kind], name, condition), f"{what} by {name}. {_NOTE}")
        learning = [curve for curve in curves if curve.startswith("learning curve") and curve.endswith(f" by {name}")]
        for place, curve in enumerate(learning):
            # Of each choice but the first.
            share = f"share of {category(str(choice), 1 + place, fit.trials.words)}"
            figures[f"{file}_learning{place or ''}"] = (
                _learning(fit, curves[curve], name, condition, share),
                f"{curve[0].upper()}{curve[1:]}. Line: the data. Bands: 50 % and 90 % of data sets drawn from the "
                "posterior; between the dashed lines 95 % of their whole curves stay.",
            )
    return figures


def _by_level(fit: Fit, curve: Curve, name: str, condition: Condition) -> object:
    """Panels of a condition's levels: shares of the choices, and quantiles of a number for each choice."""
    choice, number = shown_outcomes(fit.net.schema)
    outcome = None if choice is None else fit.net.schema.outcomes[choice]
    choices = outcome.n if isinstance(outcome, Categorical) else 0
    levels = len(condition.labels)
    points = np.arange(len(curve.points)).reshape(levels, -1)
    # Of two choices the share of one tells that of the other.
    shares = [points[:, index] for index in range(1 if choices == 2 else 0, choices)]
    count = len(QUANTILES)
    quantiles = [points[:, start : start + count] for start in range(choices, points.shape[1], count)]
    panels = make_panels(None, len(shares) + len(quantiles), (1.4 + 0.75 * levels, 3.1), share_y=False)
    for panel, index in zip(panels, shares, strict=False):
        _draw(panel, curve, index[:, None])
        what = category(str(choice), int(index[0] - points[0, 0]), fit.trials.words)
        panel.set_ylabel(f"share of {what}", parse_math=False)
    for place, index in enumerate(quantiles):
        panel = panels[len(shares) + place]
        _draw(panel, curve, index)
        panel.set_ylabel(f"{number}, {QUANTILES[0]:.0%} to {QUANTILES[-1]:.0%} quantiles")
        if choices:
            panel.set_title(category(str(choice), place, fit.trials.words), fontsize="medium", parse_math=False)
    times = panels[len(shares) :]
    limits = [limit for panel in times for limit in panel.get_ylim()]
    for panel in times:
        panel.set_ylim(min(limits), max(limits))
    for panel in panels:
        panel.set_xticks(range(levels), condition.labels, parse_math=False)
        panel.set_xlim(-0.6, levels - 0.4)
        panel.set_xlabel(name, parse_math=False)
    return panels[0].figure


def _draw(panel: Axes, curve: Curve, index: np.ndarray) -> None:
    """Points (levels, P) of a curve above their levels."""
    band = curve.envelope
    for level, row in enumerate(index):
        for point in row[band.used[row]]:
            again = curve.replicated[:, point]
            low, lower, upper, high = np.nanpercentile(again, [5, 25, 75, 95])
            ends, seen = (band.low[point], band.high[point]), curve.observed[point]
            panel.plot([level, level], [low, high], color=MODEL, lw=1.2, alpha=0.6)
            panel.plot([level, level], [lower, upper], color=MODEL, lw=5, alpha=0.4, solid_capstyle="butt")
            panel.plot([level, level], ends, "_", color=MODEL, ms=9, alpha=0.8)
            color = DATA if ends[0] <= seen <= ends[1] else _OUTSIDE
            panel.plot(level, seen, "o", color=color, ms=4.5, mfc="white", mew=1.3)


def _learning(fit: Fit, curve: Curve, name: str, condition: Condition, share: str) -> object:
    """A row a level, a panel a cue; `share` says of which choice."""
    schema, words = fit.net.schema, fit.trials.words
    cue = shown_cue(schema)
    shown = None if cue is None else schema.inputs[cue]
    cues = shown.n if isinstance(shown, Categorical) else 1
    band, blocks = curve.envelope, _blocks(curve, name, condition, cues)
    panels = make_panels(None, len(blocks), (3.0, 2.5), most=cues if cues > 1 else 4)
    for place, (panel, points) in enumerate(zip(panels, blocks, strict=True)):
        at = 1 + np.arange(len(points))
        low, high = (x[points] for x in band.shares)
        bands(panel, at, curve.replicated[:, points])
        outline(panel, at, low, high)
        panel.plot(at, curve.observed[points], "o-", color=DATA, ms=3.5, lw=1.1, label="data")
        panel.axhline(0.5, color=GRID, lw=0.8, ls=":", zorder=0)
        label = condition.labels[place // cues]
        of_cue = f", {category(str(cue), place % cues, words)}" if cues > 1 else ""
        panel.set_title(f"{name} = {label}{of_cue}", fontsize="small", parse_math=False)
        panel.set_xlabel("presentations, in bins", fontsize="small")
    for panel in panels[::cues] if cues > 1 else panels[:1]:
        panel.set_ylabel(share, fontsize="small", parse_math=False)
    last = panels[cues - 1] if cues > 1 else panels[-1]
    last.legend(frameon=False, fontsize="x-small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return panels[0].figure


def _blocks(curve: Curve, name: str, condition: Condition, cues: int) -> list[np.ndarray]:
    """Indices of the points of each level and cue, which follow each other."""
    starts = [f"{name} = {label}, " for label in condition.labels]
    of_level = [[i for i, point in enumerate(curve.points) if point.startswith(start)] for start in starts]
    return [part for points in of_level for part in np.array_split(np.array(points), cues)]
