"""How a trial depends on those before it: repetition, slowing after errors, autocorrelation."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppl_buffer.plots.arguments import both, codes, pick
from ppl_buffer.plots.categories import category, words_of
from ppl_buffer.plots.drawing import DATA, GRID, bands, legend_above, make_panels, outline
from ppl_buffer.plots.envelopes import envelope
from ppl_buffer.plots.statistics import autocorrelation, post_error_slowing, repetition


def _plot_lags(axes: Any, observed: np.ndarray, generated: np.ndarray | None, y: str, zero: bool) -> Any:
    panel = make_panels(axes, 1, (4.2, 3.2))[0]
    lags = np.arange(1, len(observed) + 1)
    if zero:
        panel.axhline(0.0, color=GRID, lw=0.8, zorder=0)
    if generated is not None:
        whole = envelope(generated)
        bands(panel, lags, generated)
        outline(panel, lags, *((whole.low, whole.high) if zero else whole.shares))
    panel.plot(lags, observed, "o-", color=DATA, ms=4.5, lw=1.1, label="data")
    panel.set(xlabel="lag (trials)", ylabel=y)
    panel.xaxis.get_major_locator().set_params(integer=True)
    legend_above(panel)
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

    Raises:
        ValueError: if a column is missing, or shapes or values do not fit.
    """
    data, replicated = both(data, replicated)
    shown = None if cue is None else codes(data, cue)
    (choices,), again = pick(data, replicated, choice)
    generated = None if again is None else repetition(again[0], lags, shown)
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

    Raises:
        ValueError: if a column is missing, or shapes or values do not fit.
    """
    words = words_of(data)
    data, replicated = both(data, replicated)
    (times, right), again = pick(data, replicated, rt, correct)
    generated = None if again is None else post_error_slowing(again[0], again[1], lags)
    observed = post_error_slowing(times, right, lags)
    error, other = (category(correct, index, words) for index in (0, 1))
    return _plot_lags(axes, observed, generated, f"response time after {error}\nminus after {other} (s)", True)


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

    Raises:
        ValueError: if a column is missing, or shapes or values do not fit.
    """
    data, replicated = both(data, replicated)
    (numbers,), again = pick(data, replicated, value)
    if log:
        numbers = _logarithm(f"data[{value!r}]", numbers)
        again = None if again is None else [_logarithm(f"replicated[{value!r}]", again[0])]
    generated = None if again is None else autocorrelation(again[0], lags)
    what = f"{'log ' if log else ''}{'response time' if value == 'rt' else value}"
    return _plot_lags(axes, autocorrelation(numbers, lags), generated, f"autocorrelation of {what}", True)


def _logarithm(argument: str, values: np.ndarray) -> np.ndarray:
    if (values <= 0).any():
        raise ValueError(f"{argument}: expected positive numbers, whose logarithm is taken, got others; or log=False")
    return np.log(values)
