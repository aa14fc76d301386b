"""What formulas say: coefficients, means of groups and conditions in natural units, and differences between them."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ppl_buffer.extras import needs
from ppl_buffer.formulas import Effects, effects
from ppl_buffer.workflow.fitting import Fit
from ppl_buffer.workflow.report.fragments import Figures, images, percent, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Names of figures begin so.
PREFIX = "effects_"


def described(fit: Fit) -> list[str]:
    """Parameters whose formula has a covariate."""
    return [] if fit.design is None else [name for name, one in fit.design.parameters.items() if one.variables]


def effects_of(fit: Fit, name: str) -> Effects:
    """Coefficients and contrasts of a parameter at all draws."""
    assert fit.design is not None
    sites = [site.name for site in fit.design.parameters[name].sites]
    groups = [f"{each}_group" for each in fit.design.parameters]
    draws = {site: fit.draws(site) for site in dict.fromkeys([*sites, *groups])}
    return effects(fit.net, fit.design, name, {site: x.reshape(-1, *x.shape[2:]) for site, x in draws.items()})


def draw_effects(fit: Fit) -> Figures:
    """A figure a formula: means of groups and conditions, and the differences between them."""
    figures: Figures = {}
    for name in described(fit):
        estimates = effects_of(fit, name)
        if estimates.contrasts:
            figures[f"{PREFIX}{name}"] = _figure(name, estimates)
    return figures


def effects_section(fit: Fit, figures: Figures) -> tuple[str, bool, str, list[str]]:
    """The body of the section, whether a difference is clear, and the answer with its points."""
    assert fit.design is not None
    body, points = [], []
    for name, one in fit.design.parameters.items():
        body.append(f"<h3><code>{html.escape(f'{name} ~ {one.formula}')}</code></h3>")
        estimates = effects_of(fit, name) if one.variables else Effects({}, {}, {})
        if one.variables:
            head = ("difference, in natural units", "median", "90 % from", "to", "above 0")
            body.append(table(head, [_row(label, x) for label, x in estimates.contrasts.items()]))
            means = [_row(label, x)[:-1] for label, x in estimates.means.items()]
            body.append(table(("mean of the median person, where", "median", "90 % from", "to"), means))
            body.append(images(figures, [f"{PREFIX}{name}"]))
        body.append(_on_the_real_line(fit, name))
        for label, x in estimates.contrasts.items():
            low, middle, high = np.percentile(x, [5, 50, 95])
            if low > 0 or high < 0:
                points.append(f"{name}, {label}: {middle:.3g} ({low:.3g} to {high:.3g})")
    answer = "Differences whose 90 % interval is on one side of 0:" if points else (
        "No difference whose 90 % interval is on one side of 0."
    )  # fmt: skip
    return _about(fit) + "".join(body), bool(points), answer, [html.escape(point) for point in points]


def _row(label: str, draws: np.ndarray) -> tuple[str, float, float, float, str]:
    low, middle, high = np.percentile(draws, [5, 50, 95])
    return label, float(middle), float(low), float(high), percent(float((draws > 0).mean()))


def _on_the_real_line(fit: Fit, name: str) -> str:
    """Coefficients and spreads with their priors, in a table that can be opened."""
    assert fit.design is not None
    rows = []
    for site in fit.design.parameters[name].all_sites():
        draws = fit.draws(site.name)
        flat = draws.reshape(draws.shape[0] * draws.shape[1], -1)
        for label, x in zip(site.labels or ("",), flat.T, strict=True):
            rows.append((*_row(f"{site.name}[{label}]" if label else site.name, x), site.description()))
    head = ("on the real line", "median", "90 % from", "to", "above 0", "prior")
    return f"<details><summary>Coefficients and spreads</summary>{table(head, rows)}</details>"


def _about(fit: Fit) -> str:
    assert fit.design is not None
    facts = [f"{name} varies by {level}" for name, level in fit.design.levels.items() if name != level]
    facts += [f"{name} is {value:g}, and was not estimated" for name, value in fit.design.fixed.items()]
    note = (
        "A parameter is a linear predictor on the real line, which a logistic function maps into the trained range. "
        "Differences in natural units are those of the median person, where a covariate has one value everywhere and "
        "the others have theirs, averaged over data sets. Of a number that takes many values, one standard deviation "
        "above the mean is compared with one below."
    )
    said = f"{html.escape('; '.join(facts))}. " if facts else ""
    return f'<p class="soft">{note} {said}</p>'


def _figure(name: str, estimates: Effects) -> tuple[Figure, str]:
    with needs("a report", "cli"):
        from matplotlib.figure import Figure
    rows = max(len(estimates.means), len(estimates.contrasts))
    figure = Figure(figsize=(9.0, 1.4 + 0.32 * rows), layout="constrained")
    left, right = figure.subplots(1, 2)
    _intervals(left, estimates.means)
    left.set_xlabel(f"{name}, of the median person")
    _intervals(right, estimates.contrasts)
    right.axvline(0.0, color="0.5", linewidth=0.8)
    right.set_xlabel(f"difference in {name}")
    return figure, f"{name}: means of groups and conditions, and differences; median, 50 % (thick) and 90 % interval."


def _intervals(axes: Axes, draws: Mapping[str, np.ndarray]) -> None:
    """A line a label: median, 50 % and 90 % interval; the first one on top."""
    for place, values in enumerate(list(draws.values())[::-1]):
        low, lower, middle, upper, high = np.percentile(values, [5, 25, 50, 75, 95])
        axes.plot([low, high], [place, place], color="C0", linewidth=1.0)
        axes.plot([lower, upper], [place, place], color="C0", linewidth=3.0)
        axes.plot(middle, place, "o", color="C0", markersize=4)
    axes.set_yticks(range(len(draws)), list(draws)[::-1])
    axes.set_ylim(-0.7, len(draws) - 0.3)
