"""Plots that scientists of choices and response times look at, and the statistics behind them.

Every ``plot_...`` lays data over what a fitted model generates: 50 % and 90 % bands of the same statistic over data
sets drawn from the posterior. Statistics are functions of their own, of arrays alone, so that a number can be had
without a picture. Statistics of one trial given earlier ones (`repetition`, `post_error_slowing`, `autocorrelation`,
`learning_curve`) are those that a model of independent trials cannot get right.

Data are a dict name -> (people, trials), or a `ppl_buffer.datasets.TrialData`; what a model generates is a dict name ->
(draws, people, trials), such as `ppl_buffer.posterior_predictive` makes; NaN where there is no trial. Names that the
generated data lack (a condition) are taken from the data. Figures are made without pyplot:
``axes.figure.savefig(...)``. `Evidence.plot` draws model evidence against the number of orders, ``check.plot()`` of
`ppl_buffer.diagnostics` calibration.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
_LEVELS = ((90, 0.22), (50, 0.42))
_DATA, _MODEL, _GRID = "#1a1a1a", "#2f6fb0", "#b8b8b8"
_CHOICES = ("#d1772e", "#2f6fb0", "#3c9a5f", "#8d5ab5", "#b5443c")


# Statistics -----------------------------------------------------------------------------------------------------------


def columns(data: Any) -> Arrays:
    """Columns of trials as numbers, dict name -> (*S, people, trials), NaN where there is no trial.

    Args:
        data: a dict of arrays, or a `ppl_buffer.datasets.TrialData`, whose mask then counts.
    """
    if isinstance(data, Mapping):
        return {name: np.asarray(value, dtype=float) for name, value in data.items()}
    groups = {**data.inputs, **data.outcomes, **data.feedback}
    return {name: np.where(data.trial_mask, np.asarray(value, float), np.nan) for name, value in groups.items()}


def quantiles(values: np.ndarray, levels: Sequence[float] = QUANTILES) -> np.ndarray:
    """Quantiles along the last axis, NaN left out: (..., n) -> (..., levels), linear between order statistics."""
    ordered = np.sort(values, axis=-1)  # NaN comes last
    last = np.maximum(np.isfinite(values).sum(-1, keepdims=True) - 1, 0)
    place = np.asarray(levels) * last
    below = np.floor(place).astype(int)
    low = np.take_along_axis(ordered, below, -1)
    high = np.take_along_axis(ordered, np.minimum(below + 1, last), -1)
    return low + (place - below) * (high - low)


def _mean(values: np.ndarray, axis: int | tuple[int, ...] = -1) -> np.ndarray:
    """Mean without NaN; NaN where nothing is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis)


def _median(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Median without NaN; NaN where nothing is left."""
    return quantiles(np.moveaxis(values, axis, -1), (0.5,))[..., 0]


def _where(name: str, value: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    try:
        value, other = np.broadcast_arrays(value, other)
    except ValueError:
        raise ValueError(
            f"{name}: expected a shape that broadcasts to {np.shape(other)}, got {np.shape(value)}"
        ) from None
    return value, other


def defective_density(rt: np.ndarray, edges: np.ndarray, choice: np.ndarray | None = None, n: int = 2) -> np.ndarray:
    """Densities of response times by choice, whose integrals are the shares of the choices.

    Args:
        rt: response times (or any outcome), (*S, people, trials), NaN where there is no trial.
        edges: of the bins, (bins + 1,), increasing; what lies outside of them belongs to no bin, but counts as a trial.
        choice: choices 0 to n - 1 of the same shape; None = no choice, n = 1.
        n: number of choices.

    Returns:
        (*S, n, bins), over all people's trials together.
    """
    n = 1 if choice is None else n
    rt, picked = _where("choice", np.zeros_like(rt) if choice is None else choice, rt)[::-1]
    bins, lead = len(edges) - 1, rt.shape[:-2]
    flat, picked = rt.reshape(-1, rt.shape[-2] * rt.shape[-1]), picked.reshape(-1, rt.shape[-2] * rt.shape[-1])
    exists = np.isfinite(flat) & np.isfinite(picked)
    cell = np.searchsorted(edges, np.where(exists, flat, edges[0] - 1), side="right") - 1
    inside = exists & (cell >= 0) & (cell < bins)
    row = np.broadcast_to(np.arange(len(flat))[:, None], flat.shape)
    code = (row * n + np.where(inside, picked, 0).astype(int)) * bins + np.where(inside, cell, 0)
    counts = np.bincount(code[inside], minlength=len(flat) * n * bins).reshape(len(flat), n, bins)
    total = np.maximum(exists.sum(1), 1)[:, None, None]
    return (counts / (total * np.diff(edges))).reshape(*lead, n, bins)


def quantile_probability(
    rt: np.ndarray, choice: np.ndarray, n: int = 2, levels: Sequence[float] = QUANTILES, least: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the choices and quantiles of their response times, means over people.

    Args:
        rt: (*S, people, trials), NaN where there is no trial.
        choice: choices 0 to n - 1, same shape.
        n: number of choices.
        levels: of the quantiles.
        least: people with fewer responses of a kind have no part in its quantiles.

    Returns:
        shares (*S, n), quantiles (*S, n, levels).
    """
    rt, choice = _where("choice", rt, choice)
    shares, times = [], []
    for index in range(n):
        this = np.where(np.isfinite(choice) & np.isfinite(rt), choice == index, np.nan)
        shares.append(_mean(_mean(this)))
        mine = np.where(this == 1, rt, np.nan)
        enough = (np.isfinite(mine).sum(-1) >= least)[..., None]
        times.append(_mean(np.where(enough, quantiles(mine, levels), np.nan), -2))
    return np.stack(shares, -1), np.stack(times, -2)


def conditional_accuracy(rt: np.ndarray, correct: np.ndarray, bins: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy as a function of response time: each person's trials, from fast to slow, in bins of equal size.

    Args:
        rt: (*S, people, trials), NaN where there is no trial.
        correct: 1 or 0, same shape.
        bins: number of bins.

    Returns:
        mean response time and share of correct responses of each bin, (*S, bins) each, means over people.
    """
    rt, correct = _where("correct", rt, correct)
    rt = np.where(np.isfinite(correct), rt, np.nan)
    order = np.argsort(rt, axis=-1, kind="stable")
    rt, correct = np.take_along_axis(rt, order, -1), np.take_along_axis(correct, order, -1)
    count = np.isfinite(rt).sum(-1, keepdims=True)
    rank = np.arange(rt.shape[-1])
    cell = np.where(rank < count, rank * bins // np.maximum(count, 1), -1)
    parts = [cell == index for index in range(bins)]
    return tuple(  # type: ignore[return-value]
        np.stack([_mean(_mean(np.where(part, x, np.nan))) for part in parts], -1) for x in (rt, correct)
    )


def learning_curve(correct: np.ndarray, cue: np.ndarray | None = None, width: int = 5) -> np.ndarray:
    """Share of correct responses by how often the cue was seen before, over all people's trials.

    Args:
        correct: 1 or 0, (*S, people, trials), NaN where there is no trial; of other numbers, the curve is their mean.
        cue: what was shown, (people, trials) integers from 0; None = always the same.
        width: presentations in a bin.

    Returns:
        (*S, cues, bins). Bins that fewer than half of the people reach are left out.
    """
    people = correct.shape[-2:]
    shown = np.zeros(people) if cue is None else np.asarray(cue, dtype=float)
    exists = np.isfinite(correct.reshape(-1, *people)[0]) & np.isfinite(shown)
    curves = []
    for index in range(int(shown[exists].max()) + 1):
        this = (shown == index) & exists
        seen = np.cumsum(this, axis=1) - 1
        bins = int(np.median(this.sum(1))) // width
        cells = [this & (seen // width == number) for number in range(bins)]
        curves.append([correct[..., cell].mean(-1) for cell in cells])
    shortest = min(len(curve) for curve in curves)
    if not shortest:
        raise ValueError(f"width: expected at most as many as a person saw of every cue, got {width}")
    return np.stack([np.stack(curve[:shortest], -1) for curve in curves], -2)


def _by_cue(value: np.ndarray, cue: np.ndarray | None) -> np.ndarray:
    """Trials of each cue in a row of their own: (*S, people, trials) -> (*S, people, cues, most), NaN at the end."""
    if cue is None:
        return value[..., None, :]
    cue = np.asarray(cue, dtype=float)
    number = int(np.nanmax(cue)) + 1
    rows = np.full((*value.shape[:-1], number, value.shape[-1]), np.nan)
    for person in range(cue.shape[0]):
        for index in range(number):
            where = np.flatnonzero(cue[person] == index)
            rows[..., person, index, : len(where)] = value[..., person, where]
    return rows


def repetition(choice: np.ndarray, lags: int = 8, cue: np.ndarray | None = None) -> np.ndarray:
    """Share of trials with the choice made `lag` trials before: (*S, lags), for lags 1, 2, ..., a mean over people.

    Args:
        choice: (*S, people, trials), NaN where there is no trial.
        lags: greatest lag.
        cue: (people, trials): lags are counted among the trials of the same cue.
    """
    rows = _by_cue(choice, cue)
    found = []
    for lag in range(1, lags + 1):
        now, before = rows[..., lag:], rows[..., :-lag]
        same = np.where(np.isfinite(now + before), now == before, np.nan)
        found.append(_mean(_mean(same, (-2, -1))))
    return np.stack(found, -1)


def post_error_slowing(rt: np.ndarray, correct: np.ndarray, lags: int = 5) -> np.ndarray:
    """How much slower people are `lag` trials after an error than after a correct response: (*S, lags), lags 1, 2, ...

    Args:
        rt: (*S, people, trials), NaN where there is no trial.
        correct: 1 or 0, same shape.
        lags: greatest lag.

    Returns:
        differences of mean response times, means over people, in the unit of `rt`.
    """
    rt, correct = _where("correct", rt, correct)
    found = []
    for lag in range(1, lags + 1):
        later, before = rt[..., lag:], correct[..., :-lag]
        after = [_mean(np.where(before == kind, later, np.nan)) for kind in (0, 1)]
        found.append(_mean(after[0] - after[1]))
    return np.stack(found, -1)


def autocorrelation(value: np.ndarray, lags: int = 8) -> np.ndarray:
    """Autocorrelation of an outcome (of response times better their logarithm): (*S, lags), a mean over people.

    Args:
        value: (*S, people, trials), NaN where there is no trial.
        lags: greatest lag; the first is 1.
    """
    centered = value - _mean(value)[..., None]
    variance = _mean(centered**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack(
            [_mean(_mean(centered[..., lag:] * centered[..., :-lag]) / variance) for lag in range(1, lags + 1)], -1
        )


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
        ValueError: if the shapes do not fit.
    """
    truth, draws = np.asarray(truth, float), np.asarray(draws, float)
    if truth.ndim != 1 or draws.ndim != 2 or draws.shape[1] != len(truth):
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


# Drawing --------------------------------------------------------------------------------------------------------------


def _panels(axes: Any, count: int, size: tuple[float, float] = (3.5, 3.1), most: int = 4, share_y: bool = True) -> Any:
    """`count` axes, an array: those given, or those of a new figure."""
    if axes is None:
        from matplotlib.figure import Figure

        wide = min(count, most)
        rows = math.ceil(count / wide)
        figure = Figure(figsize=(size[0] * wide + 0.5, size[1] * rows), layout="constrained")
        grid = figure.subplots(rows, wide, squeeze=False, sharey=share_y)
        for spare in grid.flat[count:]:
            spare.set_axis_off()
        axes = grid.flat[:count]
    axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(axes) < count:
        raise ValueError(f"axes: expected {count}, one a panel, got {len(axes)}")
    for panel in axes[:count]:
        panel.spines[["top", "right"]].set_visible(False)
    return axes[:count]


def bands(axes: Any, x: Any, curves: np.ndarray, *, color: str = _MODEL, label: str = "model", **step: Any) -> None:
    """Draw the central 50 % and 90 % of curves (draws, points) at points x."""
    for level, shade in _LEVELS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # points where no draw has a value
            low, high = np.nanpercentile(curves, [50 - level / 2, 50 + level / 2], axis=0)
        text = f"{label}, {level} %" if label else None
        axes.fill_between(x, low, high, color=color, alpha=shade, lw=0, label=text, **step)


def _names(given: Sequence[str] | None, count: int, stem: str) -> list[str]:
    names = [f"{stem} = {index}" for index in range(count)] if given is None else list(given)
    if len(names) < count:
        raise ValueError(f"labels of {stem}: expected {count}, got {names}")
    return names


def _pick(data: Arrays, replicated: Arrays | None, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """A column of the data, and of the generated data (that of the data where they have none)."""
    if name not in data:
        raise ValueError(f"data: expected a column {name!r}, got {list(data)}")
    if replicated is None:
        return data[name], None
    exists = np.isfinite(data[name])
    drawn = replicated.get(name, data[name])
    return data[name], np.where(exists, drawn, np.nan) if np.shape(drawn)[-2:] == exists.shape else drawn


def _both(data: Any, replicated: Any) -> tuple[Arrays, Arrays | None]:
    return columns(data), None if replicated is None else columns(replicated)


def _categories(values: np.ndarray) -> list[int]:
    return [int(value) for value in np.unique(values[np.isfinite(values)])]


def plot_response_times(
    data: Any,
    replicated: Any = None,
    *,
    rt: str = "rt",
    choice: str | None = "choice",
    condition: str | None = None,
    choice_labels: Sequence[str] | None = None,
    condition_labels: Sequence[str] | None = None,
    bins: int = 40,
    axes: Any = None,
) -> Any:
    """Densities of response times (or another outcome) by choice and condition, a panel a condition.

    Areas are the shares of the choices. Of two choices the first, 0, hangs below the axis.

    Args:
        data: see this module's docstring.
        replicated: what the model generates; None = data alone.
        rt: name of the outcome.
        choice: name of the choices, integers from 0; None = no choice.
        condition: name of a condition, integers from 0; None = one panel.
        choice_labels: names of the choices.
        condition_labels: names of the conditions.
        bins: number of bins, up to the 99th percentile of the data.
        axes: matplotlib axes, one a panel; by default those of a new figure.

    Returns:
        the axes, an array.
    """
    data, replicated = _both(data, replicated)
    time, times = _pick(data, replicated, rt)
    picked, picks = (None, None) if choice is None else _pick(data, replicated, choice)
    groups = np.zeros_like(time) if condition is None else data[condition]
    found = _categories(groups)
    n = 1 if picked is None else max(2, int(np.nanmax(picked)) + 1)
    low, high = np.nanpercentile(time, [0 if np.nanmin(time) >= 0 else 1, 99])
    edges = np.linspace(0.0 if 0 <= low < 0.35 * high else low, high, bins + 1)
    panels = _panels(axes, len(found))
    titles = _names(condition_labels, max(found) + 1, condition or "")
    labels = _names(choice_labels, n, choice or rt)
    for panel, group in zip(panels, found, strict=True):
        here = groups == group

        def density(value: np.ndarray, chosen: np.ndarray | None, here: np.ndarray = here) -> np.ndarray:
            return defective_density(np.where(here, value, np.nan), edges, chosen, n)

        observed = density(time, picked)
        drawn = None if times is None else density(times, picks)
        for index in range(n):
            sign = -1 if n == 2 and index == 0 else 1
            color = _MODEL if n == 1 else _CHOICES[index % len(_CHOICES)]
            if drawn is not None:
                curves = sign * drawn[:, index]
                curves = np.concatenate([curves, curves[:, -1:]], -1)
                bands(panel, edges, curves, color=color, label="", step="post")
                panel.fill_between([], [], color=color, alpha=0.5, lw=0, label=f"model, {labels[index]}")
            panel.stairs(sign * observed[index], edges, color=_DATA, lw=1.1, label="data" if index == n - 1 else None)
        if n == 2:
            panel.axhline(0.0, color=_DATA, lw=0.7)
            panel.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        panel.set(xlabel=_time_label(rt), xlim=(edges[0], edges[-1]))
        if condition is not None:
            panel.set_title(titles[group])
    panels[0].set_ylabel("density (area = share of the choice)" if n > 1 else "density")
    panels[0].legend(frameon=False, fontsize="small")
    return panels


def _time_label(name: str) -> str:
    return "response time (s)" if name == "rt" else name


def plot_quantile_probability(
    data: Any,
    replicated: Any = None,
    *,
    rt: str = "rt",
    choice: str = "choice",
    condition: str | None = None,
    levels: Sequence[float] = QUANTILES,
    least: int = 5,
    axes: Any = None,
) -> Any:
    """Quantile-probability plot: quantiles of response times against the share of the response, by condition.

    Each condition has a column for each choice at its share of the responses; quantiles of one level are joined. The
    model's are clouds, a dot a drawn data set, joined at their medians.

    Args:
        data: see this module's docstring.
        replicated: what the model generates; None = data alone.
        rt: name of the response times.
        choice: name of the choices, integers from 0.
        condition: name of a condition, integers from 0; None = there is one.
        levels: of the quantiles.
        least: people with fewer responses of a kind have no part in its quantiles.
        axes: matplotlib axes; by default those of a new figure.

    Returns:
        the axes.
    """
    data, replicated = _both(data, replicated)
    time, times = _pick(data, replicated, rt)
    picked, picks = _pick(data, replicated, choice)
    groups = np.zeros_like(time) if condition is None else data[condition]
    n = max(2, int(np.nanmax(picked)) + 1)
    panel = _panels(axes, 1, (5.0, 4.2))[0]

    def points(value: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [
            quantile_probability(np.where(groups == group, value, np.nan), chosen, n, levels, least)
            for group in _categories(groups)
        ]
        return np.concatenate([x for x, _ in found], -1), np.concatenate([y for _, y in found], -2)

    shares, observed = points(time, picked)
    if times is not None and picks is not None:
        x, y = points(times, picks)
        middle = _median(x, 0)
        order = np.argsort(middle)
        for level in range(len(levels)):
            panel.scatter(x, y[..., level], s=7, color=_MODEL, alpha=0.3, lw=0)
            panel.plot(middle[order], _median(y[..., level], 0)[order], color=_MODEL, lw=1, alpha=0.8)
        panel.scatter([], [], s=14, color=_MODEL, alpha=0.6, lw=0, label="model")
    order = np.argsort(shares)
    for level in range(len(levels)):
        panel.plot(shares[order], observed[order, level], "o", color=_DATA, ms=4.5, mfc="white", mew=1.2)
    panel.plot([], [], "o", color=_DATA, ms=4.5, mfc="white", mew=1.2, label="data")
    last = int(order[-1])
    for level, probability in enumerate(levels):
        if np.isfinite(observed[last, level]):
            panel.annotate(
                f"{probability:.0%}", (shares[last], observed[last, level]), xytext=(14, 0), textcoords="offset points",
                va="center", fontsize="small", color="0.35",
            )  # fmt: skip
    panel.set(xlabel="share of the response", ylabel="response time (s), quantiles", xlim=(-0.03, 1.12))
    panel.legend(frameon=False, loc="upper left", fontsize="small")
    return panel


def plot_conditional_accuracy(
    data: Any, replicated: Any = None, *, rt: str = "rt", correct: str = "choice", bins: int = 5, axes: Any = None
) -> Any:
    """Conditional accuracy function: accuracy of fast and of slow responses.

    Args:
        data: see this module's docstring.
        replicated: what the model generates; None = data alone.
        rt: name of the response times.
        correct: name of a column of 0 and 1.
        bins: number of bins, of equal size for each person.
        axes: matplotlib axes; by default those of a new figure.

    Returns:
        the axes.
    """
    data, replicated = _both(data, replicated)
    time, times = _pick(data, replicated, rt)
    right, rights = _pick(data, replicated, correct)
    panel = _panels(axes, 1, (4.2, 3.4))[0]
    if times is not None and rights is not None:
        x, y = conditional_accuracy(times, rights, bins)
        bands(panel, _median(x, 0), y)
    panel.plot(*conditional_accuracy(time, right, bins), "o-", color=_DATA, ms=4.5, lw=1.1, label="data")
    panel.set(xlabel="response time (s), from fast to slow", ylabel=f"share of {correct} = 1")
    panel.legend(frameon=False, fontsize="small")
    return panel


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
        data: see this module's docstring.
        replicated: what the model generates; None = data alone.
        correct: name of a column of 0 and 1.
        cue: name of what was shown, integers from 0; None = always the same.
        cue_labels: names of the cues.
        width: presentations in a bin.
        axes: matplotlib axes, one a cue; by default those of a new figure.

    Returns:
        the axes, an array.
    """
    data, replicated = _both(data, replicated)
    right, rights = _pick(data, replicated, correct)
    shown = None if cue is None else data[cue]
    observed = learning_curve(right, shown, width)
    drawn = None if rights is None else learning_curve(rights, shown, width)
    panels = _panels(axes, len(observed))
    titles = _names(cue_labels, len(observed), cue or "")
    centers = width * (np.arange(observed.shape[-1]) + 0.5)
    for index, panel in enumerate(panels):
        if drawn is not None:
            bands(panel, centers, drawn[:, index])
        panel.plot(centers, observed[index], "o-", color=_DATA, ms=4, lw=1.1, label="data")
        panel.axhline(0.5, color=_GRID, lw=0.8, ls=":", zorder=0)
        panel.set(xlabel="times seen" if cue is None else f"times this {cue} was seen")
        if cue is not None:
            panel.set_title(titles[index])
    panels[0].set_ylabel(f"share of {correct} = 1")
    panels[0].legend(frameon=False, loc="lower right", fontsize="small")
    return panels


def _plot_lags(axes: Any, observed: np.ndarray, drawn: np.ndarray | None, y: str, zero: bool) -> Any:
    panel = _panels(axes, 1, (4.2, 3.2))[0]
    lags = np.arange(1, len(observed) + 1)
    if zero:
        panel.axhline(0.0, color=_GRID, lw=0.8, zorder=0)
    if drawn is not None:
        bands(panel, lags, drawn)
    panel.plot(lags, observed, "o-", color=_DATA, ms=4.5, lw=1.1, label="data")
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
        data: see this module's docstring.
        replicated: what the model generates; None = data alone.
        choice: name of the choices.
        cue: name of what was shown: lags are then counted among the trials of the same cue.
        lags: greatest lag.
        axes: matplotlib axes; by default those of a new figure.

    Returns:
        the axes.
    """
    data, replicated = _both(data, replicated)
    shown = None if cue is None else data[cue]
    picked, picks = _pick(data, replicated, choice)
    drawn = None if picks is None else repetition(picks, lags, shown)
    panel = _plot_lags(axes, repetition(picked, lags, shown), drawn, f"same {choice} as before (share)", False)
    if cue is not None:
        panel.set_xlabel(f"lag (trials of the same {cue})")
    return panel


def plot_post_error_slowing(
    data: Any, replicated: Any = None, *, rt: str = "rt", correct: str = "choice", lags: int = 5, axes: Any = None
) -> Any:
    """Lag plot of post-error slowing: how much slower responses are 1, 2, ... trials after an error.

    Args:
        data: see this module's docstring.
        replicated: what the model generates; None = data alone.
        rt: name of the response times.
        correct: name of a column of 0 (an error) and 1.
        lags: greatest lag.
        axes: matplotlib axes; by default those of a new figure.

    Returns:
        the axes.
    """
    data, replicated = _both(data, replicated)
    time, times = _pick(data, replicated, rt)
    right, rights = _pick(data, replicated, correct)
    drawn = None if times is None or rights is None else post_error_slowing(times, rights, lags)
    observed = post_error_slowing(time, right, lags)
    return _plot_lags(axes, observed, drawn, f"response time after {correct} = 0\nminus after 1 (s)", True)


def plot_autocorrelation(
    data: Any, replicated: Any = None, *, value: str = "rt", log: bool = True, lags: int = 8, axes: Any = None
) -> Any:
    """Lag plot of the autocorrelation of an outcome.

    Args:
        data: see this module's docstring.
        replicated: what the model generates; None = data alone.
        value: name of the outcome.
        log: take its logarithm, as suits response times.
        lags: greatest lag.
        axes: matplotlib axes; by default those of a new figure.

    Returns:
        the axes.
    """
    data, replicated = _both(data, replicated)
    number, numbers = _pick(data, replicated, value)
    if log:
        number, numbers = np.log(number), None if numbers is None else np.log(numbers)
    drawn = None if numbers is None else autocorrelation(numbers, lags)
    what = f"{'log ' if log else ''}{'response time' if value == 'rt' else value}"
    return _plot_lags(axes, autocorrelation(number, lags), drawn, f"autocorrelation of {what}", True)


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
    found = recovery(truth, draws)
    truth = np.asarray(truth, float)
    panel = _panels(axes, 1, (3.8, 3.8))[0]
    ends = np.array([min(truth.min(), found.low.min()), max(truth.max(), found.high.max())])
    panel.plot(ends, ends, color=_GRID, lw=1, zorder=0)
    panel.vlines(truth, found.low, found.high, color=_MODEL, alpha=0.3, lw=1.2)
    panel.plot(truth, found.mean, "o", color=_MODEL, ms=4, mew=0)
    figures = f"r = {found.correlation:.2f}\ncontraction {found.contraction:.2f}\ncoverage {found.coverage:.0%} of 90 %"
    panel.text(0.04, 0.97, figures, transform=panel.transAxes, va="top", fontsize="small")
    panel.set(xlabel="truth", ylabel="posterior mean, 90 % interval", title=name)
    return panel


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
        draws: (draws, people).
        group: draws of the group's value, any shape: its median and 90 % interval are drawn across.
        labels: of the people, shown where there are at most 30.
        name: of the parameter.
        axes: matplotlib axes; by default those of a new figure.

    Returns:
        the axes.
    """
    low, lower, middle, upper, high = np.percentile(draws, [5, 25, 50, 75, 95], axis=0)
    order = np.argsort(middle)
    row = np.arange(len(order))
    panel = _panels(axes, 1, (3.4, max(2.6, 0.16 * len(order) + 1.0)))[0]
    if group is not None:
        a, b, c = np.percentile(group, [5, 50, 95])
        panel.axvspan(a, c, color=_MODEL, alpha=0.15, lw=0, label="group, 90 %")
        panel.axvline(b, color=_MODEL, lw=1.2)
    panel.hlines(row, low[order], high[order], color="0.6", lw=1.2)
    panel.hlines(row, lower[order], upper[order], color="0.25", lw=3)
    panel.plot(middle[order], row, "o", color="white", mec=_DATA, ms=4, mew=1.0)
    panel.set(xlabel=name, ylabel="person, sorted", ylim=(-0.8, len(order) - 0.2))
    if labels is not None and len(order) <= 30:
        panel.set_yticks(row, [str(labels[index]) for index in order], fontsize="x-small")
        panel.set_ylabel("person")
    else:
        panel.set_yticks([])
    return panel


def plot_traces(draws: Mapping[str, np.ndarray], *, axes: Any = None) -> Any:
    """Chains of each quantity, and their histograms: they should look alike.

    Args:
        draws: name -> (chains, draws).
        axes: matplotlib axes, two a quantity; by default those of a new figure.

    Returns:
        the axes, (quantities, 2).
    """
    if axes is None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 1.55 * len(draws) + 0.5), layout="constrained")
        axes = figure.subplots(len(draws), 2, squeeze=False, width_ratios=(3, 1))
    grid = np.asarray(axes, dtype=object).reshape(len(draws), 2)
    for (name, chains), (left, right) in zip(draws.items(), grid, strict=True):
        edges = np.histogram_bin_edges(chains, bins=30)
        for index, values in enumerate(chains):
            color = _CHOICES[(index + 1) % len(_CHOICES)]
            left.plot(values, lw=0.6, color=color, alpha=0.85, label=f"chain {index + 1}")
            right.hist(values, edges, density=True, histtype="step", lw=1.3, color=color)
        left.set_ylabel(name)
        right.set_yticks([])
        for panel in (left, right):
            panel.spines[["top", "right"]].set_visible(False)
    grid[-1, 0].set_xlabel("draw after warm-up")
    grid[-1, 1].set_xlabel("value")
    grid[0, 0].legend(frameon=False, ncols=len(next(iter(draws.values()))), fontsize="small", loc="upper right")
    return grid
