"""The report's figures: chains, data against what the model generates, subjects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ppl_buffer.diagnostics.curves import curve_width, shown_cue
from ppl_buffer.extras import needs
from ppl_buffer.plots import (
    plot_autocorrelation,
    plot_conditional_accuracy,
    plot_learning_curves,
    plot_pairs,
    plot_post_error_slowing,
    plot_quantile_probability,
    plot_repetition,
    plot_response_times,
    plot_subjects,
    plot_traces,
)
from ppl_buffer.plots.categories import category
from ppl_buffer.schema import Categorical, Positive
from ppl_buffer.workflow.fitting import Fit
from ppl_buffer.workflow.report.conditions import draw_conditions
from ppl_buffer.workflow.report.effects import draw_effects
from ppl_buffer.workflow.report.fragments import Figures
from ppl_buffer.workflow.report.misfits import draw_misfits

_BANDS = "Line: the data. Bands: 50 % and 90 % of data sets drawn from the posterior, point by point."
_CURVES = f"{_BANDS} Between the dashed lines 95 % of their whole curves stay: what lies outside is no accident."


def draw_figures(fit: Fit) -> Figures:
    """Name of a file -> figure and caption: chains first, subjects last."""
    figures = {"traces": _traces(fit), **_predictive(fit), **draw_conditions(fit)}
    misfits = draw_misfits(fit)
    if misfits is not None:
        figures["misfits"] = misfits
    figures |= draw_effects(fit)
    figures["people"] = _subjects(fit)
    if fit.hierarchical and len(fit.names) > 1:
        figures["pairs"] = _pairs(fit)
    return figures


def _traces(fit: Fit) -> tuple[Any, str]:
    if fit.hierarchical:
        whose, draws = "the group", {name: fit.draws(f"{name}_group") for name in fit.names}
    else:
        whose = f"subject {fit.trials.subjects[0]}"
        draws = {name: fit.draws(name)[:, :, 0] for name in fit.names}
    axes = plot_traces(draws)
    return axes[0, 0].figure, f"Chains of {whose}. They should overlap, and look like noise without a trend."


def _pairs(fit: Fit) -> tuple[object, str]:
    axes = plot_pairs({name: fit.draws(f"{name}_group") for name in fit.names})
    return axes[0, 0].figure, (
        "The median person's parameters against each other, with their correlations in the posterior: near 1 or -1 the "
        "data tell a combination of the two, not each."
    )


def _subjects(fit: Fit) -> tuple[Any, str]:
    """Everybody's parameters, a panel each."""
    with needs("a report", "cli"):
        from matplotlib.figure import Figure
    names = fit.names
    # Four in a row, or three: no panel is left alone where that can be helped.
    columns = 4 if len(names) in (4, 7, 8) else min(3, len(names))
    rows = math.ceil(len(names) / columns)
    subjects = len(fit.trials.subjects)
    size = (3.5 * columns, rows * max(2.4, 0.15 * min(subjects, 60) + 1.0))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for spare in panels.flat[len(names) :]:
        spare.set_axis_off()
    for panel, name in zip(panels.flat, names, strict=False):
        draws = fit.draws(name).reshape(-1, subjects)
        group = fit.draws(f"{name}_group") if fit.hierarchical else None
        plot_subjects(draws, group=group, labels=list(fit.trials.subjects), name=name, axes=panel)
    across = "; across: the median person of the group." if fit.hierarchical else "."
    return (
        figure,
        f"Everybody's parameters: median, by which people are sorted, 50 % (thick) and 90 % interval (thin){across}",
    )


def _predictive(fit: Fit) -> Figures:
    """The field's plots that the model's outcomes allow."""
    schema = fit.net.schema
    data, replicated, words = fit.trials, fit.replicated or None, fit.trials.words
    choice = next((name for name, x in schema.outcomes.items() if isinstance(x, Categorical)), None)
    time = next((name for name, x in schema.outcomes.items() if isinstance(x, Positive)), None)
    number = next((name for name, x in schema.outcomes.items() if not isinstance(x, Categorical)), None)
    cue = shown_cue(schema)
    binary = choice is not None and schema.outcomes[choice] == Categorical(2)
    trials = int(np.median(fit.trials.trial_counts))
    figures: Figures = {}
    if schema.ordered and schema.feedback and choice is not None and binary:
        shown = None if cue is None else schema.inputs[cue]
        width = curve_width(trials, shown.n if isinstance(shown, Categorical) else 1)
        axes = plot_learning_curves(data, replicated, correct=choice, cue=cue, width=width)
        figures["learning_curves"] = (axes[0].figure, f"Learning. {_CURVES}")
    if number is not None:
        axes = plot_response_times(data, replicated, rt=number, choice=choice, condition=cue)
        what = "Response times" if number == "rt" else number
        by_choice = " by choice; the area is the share of the choice" if choice else ""
        figures["outcomes"] = (axes[0].figure, f"{what}{by_choice}. {_BANDS}")
    if time is not None and choice is not None:
        axes = plot_quantile_probability(data, replicated, rt=time, choice=choice, condition=cue)
        figures["quantile_probability"] = (
            axes.figure,
            "Quantiles of response times against the share of the response: open symbols are the data, dots drawn data "
            "sets.",
        )
        if binary:
            axes = plot_conditional_accuracy(data, replicated, rt=time, correct=choice)
            figures["conditional_accuracy"] = (axes.figure, f"Choices of fast and of slow responses. {_CURVES}")
            axes = plot_post_error_slowing(data, replicated, rt=time, correct=choice)
            slower = "Do people slow down after an error"
            if choice in words:
                slower = f"Are people slower after {category(choice, 0, words)} than after {category(choice, 1, words)}"
            figures["post_error_slowing"] = (axes.figure, f"{slower}? {_CURVES}")
    if choice is not None and trials > 10:
        axes = plot_repetition(data, replicated, choice=choice, cue=cue if schema.ordered else None)
        figures["repetition"] = (axes.figure, f"Repetition of choices. {_CURVES}")
    if number is not None and trials > 10:
        axes = plot_autocorrelation(data, replicated, value=number, log=time == number)
        figures["autocorrelation"] = (axes.figure, f"Do outcomes depend on those before? {_CURVES}")
    return figures
