"""How people's parameters go together."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from ppl_buffer.workflow.fitting import Fit
from ppl_buffer.workflow.report.fragments import table

# Fewer people than this have no correlation worth a line.
_FEWEST = 4


def correlations(fit: Fit, names: list[str]) -> str:
    """A row for each two parameters, the strongest first: their correlation across people, HTML."""
    subjects = len(fit.trials.subjects)
    if subjects < _FEWEST or len(names) < 2:
        return ""
    values = {name: fit.draws(name).reshape(-1, subjects) for name in names}
    rows = []
    for one, other in combinations(names, 2):
        low, middle, high = np.nanpercentile(across_people(values[one], values[other]), [5, 50, 95])
        rows.append((one, other, middle, low, high))
    rows.sort(key=lambda row: -abs(row[2]))
    marks = [low * high > 0 for *_, low, high in rows]
    note = (
        "Correlation across people of their parameters, by draw. The population's prior has no correlations, so that "
        "these are drawn towards 0 where people's values are uncertain. In red: the 90 % interval leaves 0 out."
    )
    shown = table(("", "", "correlation", "90 % from", "to"), rows, marks, words=(1,))
    return f'<h3>How parameters go together</h3>{shown}<p class="soft">{note}</p>'


def across_people(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Correlation (draws,) across people of values (draws, people)."""
    one, other = (x - x.mean(1, keepdims=True) for x in (one, other))
    scale = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return np.where(scale > 0, (one * other).sum(1) / np.maximum(scale, 1e-300), np.nan)
