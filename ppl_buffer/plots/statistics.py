"""Statistics of choices and response times: functions of arrays (*S, subjects, trials), NaN where there is no trial."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from ppl_buffer.checks import check_integer
from ppl_buffer.plots.arguments import check_codes, check_levels, trials

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)


def quantiles(values: np.ndarray, levels: Sequence[float] = QUANTILES) -> np.ndarray:
    """Quantiles along the last axis, NaN left out: (..., n) -> (..., levels), linear between order statistics.

    Raises:
        ValueError: if a level is no probability.
    """
    probabilities = check_levels(levels)
    if not values.shape[-1]:
        return np.full((*values.shape[:-1], len(probabilities)), np.nan)
    ordered = np.sort(values, axis=-1)  # NaN comes last
    last = np.maximum(np.isfinite(values).sum(-1, keepdims=True) - 1, 0)
    place = probabilities * last
    below = np.floor(place).astype(int)
    low = np.take_along_axis(ordered, below, -1)
    high = np.take_along_axis(ordered, np.minimum(below + 1, last), -1)
    return low + (place - below) * (high - low)


def mean(values: np.ndarray, axis: int | tuple[int, ...] = -1) -> np.ndarray:
    """Mean without NaN; NaN where nothing is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis)


def median(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Median without NaN; NaN where nothing is left."""
    return quantiles(np.moveaxis(values, axis, -1), (0.5,))[..., 0]


def broadcast(name: str, value: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays of trials in the same shape.

    Raises:
        ValueError: if they have none in common, or are no numbers (..., subjects, trials).
    """
    value, other = trials(name, value), trials("rt", other)
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
        rt: response times (or any outcome), (*S, subjects, trials), NaN where there is no trial.
        edges: of the bins, (bins + 1,), increasing; what lies outside of them belongs to no bin, but counts as a trial.
        choice: choices 0 to n - 1 of the same shape; None = no choice, n = 1.
        n: number of choices.

    Returns:
        (*S, n, bins), over all people's trials together.

    Raises:
        ValueError: if shapes or values do not fit.
    """
    n = 1 if choice is None else check_integer("n", n)
    choices, rt = broadcast("choice", np.zeros_like(rt) if choice is None else choice, rt)
    choices, edges = check_codes("choice", choices, n - 1), np.asarray(edges, dtype=float)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise ValueError(f"edges: expected at least two numbers that increase, got {edges}")
    bins, lead = len(edges) - 1, rt.shape[:-2]
    times, choices = (x.reshape(-1, rt.shape[-2] * rt.shape[-1]) for x in (rt, choices))
    exists = np.isfinite(times) & np.isfinite(choices)
    cell = np.searchsorted(edges, np.where(exists, times, edges[0] - 1), side="right") - 1
    inside = exists & (cell >= 0) & (cell < bins)
    row = np.broadcast_to(np.arange(len(times))[:, None], times.shape)
    code = (row * n + np.where(inside, choices, 0).astype(int)) * bins + np.where(inside, cell, 0)
    counts = np.bincount(code[inside], minlength=len(times) * n * bins).reshape(len(times), n, bins)
    total = np.maximum(exists.sum(1), 1)[:, None, None]
    return (counts / (total * np.diff(edges))).reshape(*lead, n, bins)


def quantile_probability(
    rt: np.ndarray, choice: np.ndarray, n: int = 2, levels: Sequence[float] = QUANTILES, least: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the choices and quantiles of their response times, means over people.

    Args:
        rt: (*S, subjects, trials), NaN where there is no trial.
        choice: choices 0 to n - 1, same shape.
        n: number of choices.
        levels: of the quantiles.
        least: people with fewer responses of a kind have no part in its quantiles.

    Returns:
        shares (*S, n), quantiles (*S, n, levels).

    Raises:
        ValueError: if shapes or values do not fit.
    """
    n, least = check_integer("n", n), check_integer("least", least)
    choice, rt = broadcast("choice", choice, rt)
    choice = check_codes("choice", choice, n - 1)
    shares, times = [], []
    for index in range(n):
        made = np.where(np.isfinite(choice) & np.isfinite(rt), choice == index, np.nan)
        shares.append(mean(mean(made)))
        rt_of_choice = np.where(made == 1, rt, np.nan)
        enough = (np.isfinite(rt_of_choice).sum(-1) >= least)[..., None]
        times.append(mean(np.where(enough, quantiles(rt_of_choice, levels), np.nan), -2))
    return np.stack(shares, -1), np.stack(times, -2)


def conditional_accuracy(rt: np.ndarray, correct: np.ndarray, bins: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy as a function of response time: each person's trials, from fast to slow, in bins of equal size.

    Args:
        rt: (*S, subjects, trials), NaN where there is no trial.
        correct: 1 or 0, same shape.
        bins: number of bins.

    Returns:
        mean response time and share of correct responses of each bin, (*S, bins) each, means over people.

    Raises:
        ValueError: if shapes or values do not fit.
    """
    bins = check_integer("bins", bins)
    correct, rt = broadcast("correct", correct, rt)
    correct = check_codes("correct", correct, 1)
    rt = np.where(np.isfinite(correct), rt, np.nan)
    order = np.argsort(rt, axis=-1, kind="stable")
    rt, correct = np.take_along_axis(rt, order, -1), np.take_along_axis(correct, order, -1)
    count = np.isfinite(rt).sum(-1, keepdims=True)
    rank = np.arange(rt.shape[-1])
    cell = np.where(rank < count, rank * bins // np.maximum(count, 1), -1)
    parts = [cell == index for index in range(bins)]
    return tuple(  # type: ignore[return-value]
        np.stack([mean(mean(np.where(part, x, np.nan))) for part in parts], -1) for x in (rt, correct)
    )


def learning_curve(
    correct: np.ndarray, cue: np.ndarray | None = None, width: int = 5, exists: np.ndarray | None = None
) -> np.ndarray:
    """Share of correct responses by how often the cue was seen before, over all people's trials.

    Args:
        correct: 1 or 0, (*S, subjects, trials), NaN where there is no trial; of other numbers, the curve is their mean.
        cue: what was shown, (subjects, trials) integers from 0; None = always the same.
        width: presentations in a bin.
        exists: (subjects, trials) bool, which trials were presentations, whether or not a response is known; None =
            those of a number, in the first of S.

    Returns:
        (*S, cues, bins). Bins that fewer than half of the people reach are left out.
    """
    width, correct = check_integer("width", width), trials("correct", correct)
    shape = correct.shape[-2:]
    if not correct.size:
        raise ValueError(f"correct: expected at least one trial, got shape {correct.shape}")
    shown = np.zeros(shape) if cue is None else _of_trials("cue", cue, shape)
    exists = (np.isfinite(correct.reshape(-1, *shape)[0]) if exists is None else exists) & np.isfinite(shown)
    if not exists.any():
        raise ValueError("correct: expected at least one trial, got none")
    curves = []
    for index in range(int(shown[exists].max()) + 1):
        of_cue = (shown == index) & exists
        seen = np.cumsum(of_cue, axis=1) - 1
        bins = int(np.median(of_cue.sum(1))) // width
        cells = [of_cue & (seen // width == number) for number in range(bins)]
        curves.append([mean(correct[..., cell]) for cell in cells])
    shortest = min(len(curve) for curve in curves)
    if not shortest:
        raise ValueError(f"width: expected at most as many as a person saw of every cue, got {width}")
    return np.stack([np.stack(curve[:shortest], -1) for curve in curves], -2)


def _of_trials(name: str, codes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Categories of the data's trials, (subjects, trials)."""
    checked = check_codes(name, codes)
    if checked.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, as the data have it, got {checked.shape}")
    if not np.isfinite(checked).any():
        raise ValueError(f"{name}: expected at least one trial, got none")
    return checked


def _by_cue(value: np.ndarray, cue: np.ndarray | None) -> np.ndarray:
    """Trials of each cue in a row of their own: (*S, subjects, trials) -> (*S, subjects, cues, trials), NaN last."""
    if cue is None:
        return value[..., None, :]
    cue = _of_trials("cue", cue, value.shape[-2:])
    number = int(np.nanmax(cue)) + 1
    rows = np.full((*value.shape[:-1], number, value.shape[-1]), np.nan)
    for subject in range(cue.shape[0]):
        for index in range(number):
            places = np.flatnonzero(cue[subject] == index)
            rows[..., subject, index, : len(places)] = value[..., subject, places]
    return rows


def repetition(choice: np.ndarray, lags: int = 8, cue: np.ndarray | None = None) -> np.ndarray:
    """Share of trials with the choice made `lag` trials before: (*S, lags), for lags 1, 2, ..., a mean over people.

    Args:
        choice: (*S, subjects, trials), NaN where there is no trial.
        lags: greatest lag.
        cue: (subjects, trials): lags are counted among the trials of the same cue.

    Raises:
        ValueError: if shapes or values do not fit.
    """
    lags = check_integer("lags", lags)
    rows = _by_cue(trials("choice", choice), cue)
    shares = []
    for lag in range(1, lags + 1):
        now, before = rows[..., lag:], rows[..., :-lag]
        same = np.where(np.isfinite(now + before), now == before, np.nan)
        shares.append(mean(mean(same, (-2, -1))))
    return np.stack(shares, -1)


def post_error_slowing(rt: np.ndarray, correct: np.ndarray, lags: int = 5) -> np.ndarray:
    """How much slower people are `lag` trials after an error than after a correct response: (*S, lags), lags 1, 2, ...

    Args:
        rt: (*S, subjects, trials), NaN where there is no trial.
        correct: 1 or 0, same shape.
        lags: greatest lag.

    Returns:
        differences of mean response times, means over people, in the unit of `rt`.

    Raises:
        ValueError: if shapes or values do not fit.
    """
    lags = check_integer("lags", lags)
    correct, rt = broadcast("correct", correct, rt)
    correct = check_codes("correct", correct, 1)
    differences = []
    for lag in range(1, lags + 1):
        later, before = rt[..., lag:], correct[..., :-lag]
        after = [mean(np.where(before == kind, later, np.nan)) for kind in (0, 1)]
        differences.append(mean(after[0] - after[1]))
    return np.stack(differences, -1)


def autocorrelation(value: np.ndarray, lags: int = 8) -> np.ndarray:
    """Autocorrelation of an outcome (of response times better their logarithm): (*S, lags), a mean over people.

    Args:
        value: (*S, subjects, trials), NaN where there is no trial.
        lags: greatest lag; the first is 1.

    Raises:
        ValueError: if shapes or values do not fit.
    """
    lags, value = check_integer("lags", lags), trials("value", value)
    centered = value - mean(value)[..., None]
    variance = mean(centered**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack(
            [mean(mean(centered[..., lag:] * centered[..., :-lag]) / variance) for lag in range(1, lags + 1)], -1
        )
