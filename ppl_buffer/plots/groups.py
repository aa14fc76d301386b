"""Trials out of ArviZ's groups, as plots take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ppl_buffer.checks import check_numbers

if TYPE_CHECKING:
    from xarray import DataArray

_SAMPLE = ("chain", "draw")


def holds_groups(data: object) -> bool:
    """Whether data are a converted fit: what `ppl_buffer.arviz.from_mcmc` returns is a mapping of groups."""
    return isinstance(data, Mapping) and not isinstance(data, dict) and "observed_data" in data


def columns_of_groups(data: object) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
    """Columns of the observed trials (subjects, trials), and of the generated ones (draws, subjects, trials), or None.

    Raises:
        ValueError: if trials have other dimensions than people and trials.
    """
    from ppl_buffer.arviz import groups_of

    groups = groups_of(data)
    observed: dict[str, np.ndarray] = {}
    for group in ("observed_data", "constant_data"):
        if group in groups:
            observed |= {str(name): _column(str(name), x) for name, x in groups[group].data_vars.items()}
    if "posterior_predictive" not in groups:
        return observed, None
    predictive = groups["posterior_predictive"].data_vars.items()
    return observed, {str(name): _column(str(name), x) for name, x in predictive}


def _column(name: str, variable: DataArray) -> np.ndarray:
    """A variable as ([draws,] subjects, trials), NaN where there is no trial."""
    sample = [dim for dim in _SAMPLE if dim in variable.dims]
    rest = [dim for dim in variable.dims if dim not in _SAMPLE]
    values = check_numbers(name, variable.transpose(*sample, *rest).values)
    values = values.reshape((-1, *values.shape[len(sample) :]) if sample else values.shape)
    if rest == ["trial"]:
        return values[..., None, :]
    if len(rest) == 2 and rest[-1] == "trial":
        return values
    if rest != ["observation"] or "subject" not in variable.coords:
        raise ValueError(f"data: expected trials of people, dimensions (subject, trial), got {name!r} of {rest}")
    labels = variable.coords["subject"].values.tolist()
    rows = {label: row for row, label in enumerate(dict.fromkeys(labels))}
    person = np.array([rows[label] for label in labels])
    # Observations of a person follow each other.
    place = np.empty(len(person), dtype=int)
    for row in range(len(rows)):
        place[person == row] = np.arange((person == row).sum())
    padded = np.full((*values.shape[:-1], len(rows), place.max() + 1), np.nan)
    padded[..., person, place] = values
    return padded
