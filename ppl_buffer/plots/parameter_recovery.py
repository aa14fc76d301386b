"""Parameter recovery: are the parameters that data were simulated with found again?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_buffer.plots.arguments import finite_draws
from ppl_buffer.plots.drawing import GRID, MODEL, make_panels


@dataclass(frozen=True)
class Recovery:
    """How well parameters that data were simulated with are found again. Made by `recovery`.

    Attributes:
        mean: (sets,), posterior means.
        low: (sets,), lower ends of the central 90 % intervals.
        high: (sets,), upper ends.
        correlation: of posterior means with the truth.
        error: root mean squared error of the posterior means, in the parameter's unit.
        coverage: share of the intervals that hold the truth; 0.9 where posteriors are right.
        contraction: 1 - mean posterior variance / variance of the truth: the share of the uncertainty that data remove.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    correlation: float
    error: float
    coverage: float
    contraction: float


def recovery(truth: Any, draws: Any) -> Recovery:
    """Compare posterior draws of one parameter, (draws, sets), with the truth, (sets,).

    Raises:
        ValueError: if the shapes do not fit, or there are other than finite numbers.
    """
    truth, draws = finite_draws("truth", truth, ("sets",)), finite_draws("draws", draws, ("draws", "sets"))
    if draws.shape[1] != len(truth):
        raise ValueError(f"draws: expected a shape (draws, {len(truth)}), as truth has it, got {draws.shape}")
    mean = draws.mean(0)
    low, high = np.percentile(draws, [5, 95], axis=0)
    several = len(truth) > 1
    return Recovery(
        mean=mean,
        low=low,
        high=high,
        correlation=float(np.corrcoef(truth, mean)[0, 1]) if several else math.nan,
        error=float(np.sqrt(((mean - truth) ** 2).mean())),
        coverage=float(((truth >= low) & (truth <= high)).mean()),
        contraction=float(1 - draws.var(0).mean() / truth.var()) if several else math.nan,
    )


def plot_recovery(truth: Any, draws: Any, *, name: str = "", axes: Any = None) -> Any:
    """Posterior means and 90 % intervals against the truth, with correlation, coverage and contraction.

    Args:
        truth: what each data set was simulated with, (sets,).
        draws: posterior draws, (draws, sets).
        name: of the parameter.
        axes: matplotlib axes; by default those of a new figure.

    Returns:
        the axes.
    """
    result = recovery(truth, draws)
    truth = np.asarray(truth, float)
    panel = make_panels(axes, 1, (3.8, 3.8))[0]
    ends = np.array([min(truth.min(), result.low.min()), max(truth.max(), result.high.max())])
    panel.plot(ends, ends, color=GRID, lw=1, zorder=0)
    panel.vlines(truth, result.low, result.high, color=MODEL, alpha=0.3, lw=1.2)
    panel.plot(truth, result.mean, "o", color=MODEL, ms=4, mew=0)
    figures = (
        f"r = {result.correlation:.2f}\ncontraction {result.contraction:.2f}\ncoverage {result.coverage:.0%} of 90 %"
    )
    panel.text(0.04, 0.97, figures, transform=panel.transAxes, va="top", fontsize="small")
    panel.set(xlabel="truth", ylabel="posterior mean, 90 % interval", title=name)
    return panel
