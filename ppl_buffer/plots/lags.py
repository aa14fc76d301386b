"""How a trial depends on those before it: repetition, slowing after errors, autocorrelation."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppl_buffer.plots.drawing import DATA, GRID, bands, both, make_panels, pick
from ppl_buffer.plots.statistics import autocorrelation, post_error_slowing, repetition


def _plot_lags(axes: Any, observed: np.ndarray, generated: np.ndarray | None, y: str, zero: bool) -> Any:
    panel = make_panels(axes, 1, (4.2, 3.2))[0]
    lags = np.arange(1, len(observed) + 1)
    if zero:
        panel.axhline(0.0, color=GRID, lw=0.8, zorder=0)
    if generated is not None:
        bands(panel, lags, generated)
    panel.plot(lags, observed, "o-", color=DATA, ms=4.5, lw=1.1, label="data")
    panel.set(xlabel="lag (trials)", ylabel=y)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.legend(frameon=False, fontsize="small")
    return panel


def plot_repetition(
    data: Any,
    replicated: Any = None,
    *,
    choice: str = "choice",
    cue: str | None = None,
    lags: int = 8,
    axes: Any = None,
) -> Any:
    """Lag plot of choice repetition: how often a choice is that of 1, 2, ... trials before.

    Args:
        data: see `ppl_buffer.plots`.
        replicated: what the model generates; None = data alone.
        choice: name of the choices.
        cue: name of what was shown: lags are then counted among the trials of the same cue.
        lags: greatest lag.
        axes: matplotlib axes; by default those of a new figure.

    Returns:
        the axes.
    """
    data, replicated = both(data, replicated)
    shown = None if cue is None else data[cue]
    choices, generated_choices = pick(data, replicated, choice)
    generated = None if generated_choices is None else repetition(generated_choices, lags, shown)
    panel = _plot_lags(axes, repetition(choices, lags, shown), generated, f"same {choice} as before (share)", False)
    if cue is not None:
        panel.set_xlabel(f"lag (trials of the same {cue})")
    return panel


def plot_post_error_slowing(
    data: Any, replicated: Any = None, *, rt: str = "rt", correct: str = "choice", lags: int = 5, axes: Any = None
) -> Any:
    """Lag plot of post-error slowing: how much slower responses are 1, 2, ... trials after an error.

    Args:
        data: see `ppl_buffer.plots`.
        replicated: what the model generates; None = data alone.
        rt: name of the response times.
        correct: name of a column of 0 (an error) and 1.
        lags: greatest lag.
        axes: matplotlib axes; by default those of a new figure.

    Returns:
        the axes.
    """
    data, replicated = both(data, replicated)
    times, generated_times = pick(data, replicated, rt)
    right, generated_right = pick(data, replicated, correct)
    generated = None
    if generated_times is not None and generated_right is not None:
        generated = post_error_slowing(generated_times, generated_right, lags)
    observed = post_error_slowing(times, right, lags)
    return _plot_lags(axes, observed, generated, f"response time after {correct} = 0\nminus after 1 (s)", True)


def plot_autocorrelation(
    data: Any, replicated: Any = None, *, value: str = "rt", log: bool = True, lags: int = 8, axes: Any = None
) -> Any:
    """Lag plot of the autocorrelation of an outcome.

    Args:
        data: see `ppl_buffer.plots`.
        replicated: what the model generates; None = data alone.
        value: name of the outcome.
        log: take its logarithm, as suits response times.
        lags: greatest lag.
        axes: matplotlib axes; by default those of a new figure.

    Returns:
        the axes.
    """
    data, replicated = both(data, replicated)
    numbers, generated_numbers = pick(data, replicated, value)
    if log:
        numbers = np.log(numbers)
        generated_numbers = None if generated_numbers is None else np.log(generated_numbers)
    generated = None if generated_numbers is None else autocorrelation(generated_numbers, lags)
    what = f"{'log ' if log else ''}{'response time' if value == 'rt' else value}"
    return _plot_lags(axes, autocorrelation(numbers, lags), generated, f"autocorrelation of {what}", True)
