"""The people whom the model fits worst: a table, and a small picture of each."""

from __future__ import annotations

import numpy as np

from ppl_buffer.diagnostics.curves import shown_outcomes
from ppl_buffer.diagnostics.data import DataCheck
from ppl_buffer.plots import bands
from ppl_buffer.plots.categories import category
from ppl_buffer.plots.drawing import DATA, make_panels
from ppl_buffer.schema import Categorical
from ppl_buffer.workflow.fitting import Fit
from ppl_buffer.workflow.report.fragments import table

# People in the table, and those with a picture; pieces that a person's trials are divided into.
_LISTED, _PICTURES, _PIECES = 6, 8, 10


def worst_people(check: DataCheck) -> np.ndarray:
    """Indices of the people, worst first: by how many of their statistics are extreme, then by the most extreme one."""
    tails = tail_probabilities(check)
    extreme = (tails < (1 - check.level) / 2).sum(0)
    return np.lexsort((np.nanmin(tails, 0), -extreme))


def tail_probabilities(check: DataCheck) -> np.ndarray:
    """(statistics, people): the smaller of a posterior predictive p-value and its complement, NaN where unknown."""
    rows = []
    for name, observed in check.observed.items():
        p = check.p_values(name)
        known = np.isfinite(observed).all(0) & np.isfinite(check.replicated[name]).all(0)
        rows.append(np.where(known, np.minimum(p, 1 - p), np.nan))
    tails = np.stack(rows)
    return np.where(np.isnan(tails).all(0), 0.5, tails)


def table_of_misfits(fit: Fit) -> str:
    """A row for each of the people whom the model fits worst, by their most extreme statistic; HTML."""
    check = fit.check
    if check is None or len(fit.trials.subjects) < 2:
        return ""
    tails, names = tail_probabilities(check), list(check.observed)
    tail = (1 - check.level) / 2
    rows, bad = [], []
    for person in worst_people(check)[:_LISTED]:
        most = int(np.nanargmin(tails[:, person]))
        again = check.replicated[names[most]][:, person]
        low, high = np.quantile(again, [tail, 1 - tail])
        extreme = int((tails[:, person] < tail).sum())
        rows.append((fit.trials.subjects[person], int(fit.trials.trial_counts[person]), f"{extreme} of {len(names)}",
                     names[most], float(check.observed[names[most]][:, person].mean()), low, high,
                     float(check.p_values(names[most])[person])))  # fmt: skip
        bad.append(extreme > 0)
    by_chance = (1 - check.level) * np.isfinite(tails).sum()
    total = int((tails < tail).sum())
    are = "is" if total == 1 else "are"
    head = (
        "person",
        "trials",
        "extreme",
        "most extreme statistic",
        "data",
        f"model, {100 * check.level:g} % from",
        "to",
        "p",
    )
    return (
        f"<h3>The people whom it fits worst</h3>{table(head, rows, bad, words=(3,))}"
        f'<p class="soft">Of {np.isfinite(tails).sum()} statistics of single people {total} {are} extreme; about '
        f"{by_chance:.0f} would be by chance alone. A person who stands out may have done another task than the model: "
        "look at that person's trials.</p>"
    )


def draw_misfits(fit: Fit) -> tuple[object, str] | None:
    """A small picture of each of these people over the course of the trials, and a caption; None without a check."""
    check = fit.check
    if check is None or not fit.replicated or len(fit.trials.subjects) < 2:
        return None
    choice, number = shown_outcomes(fit.net.schema)
    binary = choice is not None and fit.net.schema.outcomes[choice] == Categorical(2)
    name = choice if binary else number
    if name is None:
        return None
    worst = worst_people(check)[:_PICTURES]
    panels = make_panels(None, len(worst), (2.5, 1.9), share_y=binary)
    for panel, person in zip(panels, worst, strict=True):
        count = int(np.flatnonzero(fit.trials.trial_mask[person])[-1]) + 1
        edges = np.unique(np.linspace(0, count, min(_PIECES, count) + 1).astype(int))
        centers = (edges[:-1] + edges[1:] + 1) / 2
        seen = fit.trials.outcomes[name][person]
        data = np.where(fit.trials.trial_mask[person] & np.isfinite(seen), seen, np.nan)
        bands(panel, centers, _pieces(fit.replicated[name][:, person], edges), label="")
        panel.plot(centers, _pieces(data, edges), "o-", color=DATA, ms=3, lw=1)
        # A label is a name, in which a dollar sign begins no formula.
        panel.set_title(str(fit.trials.subjects[person]), fontsize="small", parse_math=False)
        panel.tick_params(labelsize="x-small")
        panel.set_xlabel("trial", fontsize="x-small")
    what = f"share of {category(name, 1, fit.trials.words)}" if binary else f"mean of {name}"
    panels[0].set_ylabel(what, fontsize="x-small", parse_math=False)
    caption = (
        f"{what[0].upper()}{what[1:]} of the people whom the model fits worst, over their trials. Line: the data. "
        "Bands: 50 % and 90 % of data sets drawn from the posterior, point by point."
    )
    return panels[0].figure, caption


def _pieces(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Means (..., pieces) of trials (..., K) between edges; of no trial NaN."""
    spans = list(zip(edges[:-1], edges[1:], strict=True))
    sums = np.stack([np.nansum(values[..., first:last], -1) for first, last in spans], -1)
    counts = np.stack([np.isfinite(values[..., first:last]).sum(-1) for first, last in spans], -1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
