"""Response times: by choice, as quantiles, and how accuracy depends on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppl_buffer.checks import check_integer
from ppl_buffer.plots.arguments import both, categories, codes, number_of_choices, pick
from ppl_buffer.plots.categories import category, label_names, words_of
from ppl_buffer.plots.drawing import CHOICES, DATA, MODEL, bands, legend_above, make_panels, outline
from ppl_buffer.plots.envelopes import envelope
from ppl_buffer.plots.statistics import QUANTILES, conditional_accuracy, defective_density, median, quantile_probability

# Of the data's quantiles, a choice each.
_MARKERS = "os^Dv"


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

    Areas are the shares of the choices. Of two choices the first, 0, hangs below the axis; of more, each has a colour.

    Args:
        data: see `ppl_buffer.plots`.
        replicated: what the model generates; None = data alone.
        rt: name of the outcome.
        choice: name of the choices, integers from 0; None = no choice.
        condition: name of a condition, integers from 0; None = one panel.
        choice_labels: names of the choices; by default the words of the table, where there are any, or numbers.
        condition_labels: names of the conditions, likewise.
        bins: number of bins, up to the 99th percentile of the data. Of fewer whole numbers, such as ratings, each has
            a bin.
        axes: matplotlib axes, one a panel; by default those of a new figure.

    Returns:
        the axes, an array.

    Raises:
        ValueError: if a column is missing, or shapes or values do not fit.
    """
    words = words_of(data)
    data, replicated = both(data, replicated)
    bins = check_integer("bins", bins)
    observed_columns, again = pick(data, replicated, *((rt,) if choice is None else (rt, choice)))
    times = observed_columns[0]
    groups = np.zeros_like(times) if condition is None else codes(data, condition)
    conditions = categories(groups)
    n = 1 if choice is None else number_of_choices(data, replicated, choice)
    edges = _edges(times, bins)
    panels = make_panels(axes, len(conditions))
    titles = label_names(condition_labels, max(conditions) + 1, condition or "", words)
    labels = label_names(choice_labels, n, choice or rt, words)

    def density(group: int, times: np.ndarray, choices: np.ndarray | None = None) -> np.ndarray:
        return defective_density(np.where(groups == group, times, np.nan), edges, choices, n)

    for panel, group in zip(panels, conditions, strict=True):
        observed = density(group, *observed_columns)
        generated = None if again is None else density(group, *again)
        for index in range(n):
            sign = -1 if n == 2 and index == 0 else 1
            color = MODEL if n == 1 else CHOICES[index % len(CHOICES)]
            if generated is not None:
                curves = sign * generated[:, index]
                curves = np.concatenate([curves, curves[:, -1:]], -1)
                bands(panel, edges, curves, color=color, label="", step="post")
                which = "model" if choice is None else f"model, {labels[index]}"
                panel.fill_between([], [], color=color, alpha=0.5, lw=0, label=which)
            # Lines of two choices lie on two sides, those of more on each other.
            style = {"color": DATA, "lw": 1.1} if n <= 2 else {"color": color, "lw": 1.8}
            label = "data" if n <= 2 else "data: lines of these colours"
            panel.stairs(sign * observed[index], edges, label=label if index == n - 1 else None, **style)
        if n == 2:
            panel.axhline(0.0, color=DATA, lw=0.7)
            panel.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        panel.set(xlabel=_time_label(rt), xlim=(edges[0], edges[-1]))
        if condition is not None:
            panel.set_title(titles[group])
    panels[0].set_ylabel("density (area = share of the choice)" if n > 1 else "density")
    panels[-1].legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return panels


def _edges(times: np.ndarray, bins: int) -> np.ndarray:
    """Edges of the bins."""
    least, most = np.nanmin(times), np.nanmax(times)
    if most - least < bins and (np.isnan(times) | (times == np.floor(times))).all():
        return np.arange(least, most + 2) - 0.5
    low, high = np.nanpercentile(times, [0 if least >= 0 else 1, 99])
    return np.linspace(0.0 if 0 <= low < 0.35 * high else low, high, bins + 1)


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
    model's are clouds, a dot a drawn data set, joined at their medians. Markers of the data tell the choices apart.

    Args:
        data: see `ppl_buffer.plots`.
        replicated: what the model generates; None = data alone.
        rt: name of the response times.
        choice: name of the choices, integers from 0.
        condition: name of a condition, integers from 0; None = there is one.
        levels: of the quantiles.
        least: subjects with fewer responses of a kind have no part in its quantiles.
        axes: matplotlib axes; by default those of a new figure.

    Returns:
        the axes.

    Raises:
        ValueError: if a column is missing, or shapes or values do not fit.
    """
    words = words_of(data)
    data, replicated = both(data, replicated)
    observed_columns, again = pick(data, replicated, rt, choice)
    groups = np.zeros_like(observed_columns[0]) if condition is None else codes(data, condition)
    n = number_of_choices(data, replicated, choice)
    panel = make_panels(axes, 1, (5.0, 4.2))[0]

    def points(times: np.ndarray, choices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shares (*S, conditions * n) and quantiles (*S, conditions * n, levels)."""
        columns = [
            quantile_probability(np.where(groups == group, times, np.nan), choices, n, levels, least)
            for group in categories(groups)
        ]
        return np.concatenate([x for x, _ in columns], -1), np.concatenate([y for _, y in columns], -2)

    shares, observed = points(*observed_columns)
    if again is not None:
        x, y = points(*again)
        middle = median(x, 0)
        order = np.argsort(middle)
        for level in range(len(levels)):
            panel.scatter(x, y[..., level], s=7, color=MODEL, alpha=0.3, lw=0)
            panel.plot(middle[order], median(y[..., level], 0)[order], color=MODEL, lw=1, alpha=0.8)
        panel.scatter([], [], s=14, color=MODEL, alpha=0.6, lw=0, label="model")
    for index in range(n):
        # Conditions follow each other, and in each its choices.
        style: dict[str, Any] = {"color": DATA, "ms": 4.5, "mfc": "white", "mew": 1.2}
        style |= {"marker": _MARKERS[index % len(_MARKERS)], "ls": ""}
        for level in range(len(levels)):
            panel.plot(shares[index::n], observed[index::n, level], **style)
        panel.plot([], [], label=f"data, {category(choice, index, words)}", **style)
    last = int(np.argsort(shares)[-1])
    for level, probability in enumerate(levels):
        if np.isfinite(observed[last, level]):
            panel.annotate(
                f"{probability:.0%}", (shares[last], observed[last, level]), xytext=(14, 0), textcoords="offset points",
                va="center", fontsize="small", color="0.35",
            )  # fmt: skip
    panel.set(xlabel="share of the response", ylabel="response time (s), quantiles", xlim=(-0.03, 1.12))
    legend_above(panel)
    return panel


def plot_conditional_accuracy(
    data: Any, replicated: Any = None, *, rt: str = "rt", correct: str = "choice", bins: int = 5, axes: Any = None
) -> Any:
    """Conditional accuracy function: accuracy of fast and of slow responses.

    Args:
        data: see `ppl_buffer.plots`.
        replicated: what the model generates; None = data alone.
        rt: name of the response times.
        correct: name of a column of 0 and 1.
        bins: number of bins, of equal size for each person.
        axes: matplotlib axes; by default those of a new figure.

    Returns:
        the axes.

    Raises:
        ValueError: if a column is missing, or shapes or values do not fit.
    """
    words = words_of(data)
    data, replicated = both(data, replicated)
    observed, again = pick(data, replicated, rt, correct)
    panel = make_panels(axes, 1, (4.2, 3.4))[0]
    if again is not None:
        x, y = conditional_accuracy(again[0], again[1], bins)
        whole = envelope(y)
        bands(panel, median(x, 0), y)
        outline(panel, median(x, 0), *whole.shares)
    panel.plot(*conditional_accuracy(observed[0], observed[1], bins), "o-", color=DATA, ms=4.5, lw=1.1, label="data")
    panel.set(xlabel="response time (s), from fast to slow", ylabel=f"share of {category(correct, 1, words)}")
    legend_above(panel)
    return panel
