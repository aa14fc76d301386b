"""The terms of a fit's log likelihood, a table (chain, draw, ...): which person's, which trial's, and of what data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp

from ppl_buffer.arviz.versions import groups_of, smooth_log_weights

if TYPE_CHECKING:
    import pandas
    from xarray import DataArray, Dataset


def log_likelihood(data: Any, var_name: str | None) -> DataArray:
    """The log likelihood of each trial, (chain, draw, ...), and as its coordinate `outcomes` the data's checksums.

    Raises:
        ValueError: if there is no such log likelihood, it is not finite, or two of its terms have the same labels.
    """
    groups = groups_of(data)
    if "log_likelihood" not in groups:
        raise ValueError(f"data: expected a group log_likelihood, as from_mcmc makes it, got {list(groups)}")
    names = list(groups["log_likelihood"].data_vars)
    if len(names) != 1 if var_name is None else not isinstance(var_name, str) or var_name not in names:
        raise ValueError(f"var_name: expected one of {names}, got {var_name!r}")
    table = groups["log_likelihood"][names[0] if var_name is None else var_name]
    missing = [dim for dim in ("chain", "draw") if dim not in table.dims]
    if missing:
        raise ValueError(f"data: expected a log likelihood with dimensions chain and draw, got {list(table.dims)}")
    _check_labels(table)
    _check_finite(table)
    observed = checksums(groups.get("observed_data"), table)
    return table if observed is None else table.assign_coords(outcomes=observed)


def checksums(observed: Dataset | None, table: DataArray) -> tuple[list[str], np.ndarray] | None:
    """A checksum of each term's outcomes, as (dimensions, integers in their shape); None where the data are not told.

    Args:
        observed: the group observed_data, or None.
        table: log likelihood (chain, draw, ...).
    """
    dims = [dim for dim in table.dims if dim not in ("chain", "draw")]
    variables = [] if observed is None else [observed[name] for name in sorted(observed.data_vars)]
    variables = [variable.transpose(*dims) for variable in variables if set(variable.dims) == set(dims)]
    if not variables or any(variable.shape != table.isel(chain=0, draw=0).shape for variable in variables):
        return None
    rows = np.stack([variable.values.reshape(-1) for variable in variables], -1)
    return dims, checksums_of_rows(rows).reshape(variables[0].shape)


def checksums_of_rows(numbers: np.ndarray) -> np.ndarray:
    """A checksum of each row of numbers (n, columns) in single precision: (n,) integers."""
    import pandas

    # Adding 0 makes -0 and 0 alike, which differ in their bits.
    frame = pandas.DataFrame(numbers.astype(np.float32) + np.float32(0))
    return pandas.util.hash_pandas_object(frame, index=False).to_numpy()


def observations(table: DataArray) -> DataArray:
    """The same as (sample, observation)."""
    table = table.stack(sample=("chain", "draw"))
    others = [dim for dim in table.dims if dim != "sample"]
    if len(others) == 1 and others[0].endswith("observation"):
        table = table.rename({others[0]: "observation"})
    else:
        table = table.stack(observation=others).reset_index("observation")
    return table.transpose("sample", "observation")


def by_subject(table: DataArray, subject: str) -> DataArray:
    """Sums over the trials of each person: (chain, draw, subject).

    Raises:
        ValueError: if there is no such coordinate.
    """
    others = [dim for dim in table.dims if dim not in ("chain", "draw")]
    if subject not in table.coords or not set(table.coords[subject].dims) <= set(others) or not others:
        coords = [name for name, coord in table.coords.items() if set(coord.dims) & set(others)]
        raise ValueError(
            f"data: expected a log likelihood with people, a coordinate {subject!r}, got {coords or others}; "
            f"subject=... names another"
        )
    if is_missing(table.coords[subject].values).any():
        raise ValueError(f"data: expected a label of everybody in {subject!r}, got missing ones")
    outcomes = table.coords["outcomes"] if "outcomes" in table.coords else None
    rest = [dim for dim in others if dim != subject]

    def total(values: DataArray) -> DataArray:
        return values.sum(rest) if subject in table.dims else values.groupby(subject).sum()

    sums = total(table.drop_vars("outcomes", errors="ignore"))
    return sums if outcomes is None else sums.assign_coords(outcomes=total(outcomes.drop_vars("outcomes")))


def trial_order(coords: Mapping[str, DataArray], count: int, trial: str | None = None) -> np.ndarray:
    """What sorts the observations of a data set in time: numbers of trials; without them the order in the table.

    Args:
        coords: coordinate name -> labels of the observations.
        count: number of observations.
        trial: the coordinate of the trials; None = the one that is called so.

    Raises:
        ValueError: if observations have labels, but none says which trial.
    """
    trials = [coord.values for name, coord in coords.items() if is_trial(name, trial)]
    if trial is not None and not trials:
        raise ValueError(f"trial: expected one of the coordinates {list(coords)}, got {trial!r}")
    others = [name for name in coords if name != "observation"]
    if not trials and len(others) > 1:
        raise ValueError(f"data: expected a coordinate 'trial', which tells the order of the trials, got {others}")
    # Text does not sort as trials follow each other: "10" comes before "9".
    return trials[0] if trials and trials[0].dtype.kind in "iufM" else np.arange(count)


def data_sets(coords: Mapping[str, DataArray], count: int, trial: str | None) -> np.ndarray:
    """A number for the data set of each observation: what the coordinates but the trial's tell apart."""
    import pandas

    data_set = np.zeros(count, dtype=int)
    for name, coord in coords.items():
        if name != "observation" and not is_trial(name, trial):
            code, labels = pandas.factorize(coord.values, use_na_sentinel=False)
            data_set = data_set * len(labels) + code
    return data_set


def future_left_out(log_likelihood: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the trials from `first` on, and Pareto k, by the log likelihood (S, trials) of one data set."""
    future = np.cumsum(log_likelihood[:, ::-1], axis=1)[:, ::-1][:, first:]
    log_weights, pareto_k = smooth_log_weights(-future.T)
    return logsumexp(log_weights + log_likelihood[:, first:].T, axis=1), pareto_k


def is_missing(labels: np.ndarray) -> np.ndarray:
    """Which labels are None or no number."""
    import pandas

    return np.asarray(pandas.isna(labels))


def is_trial(name: str, stated: str | None = None) -> bool:
    """Whether a coordinate of this name says which trial a term is of; with several sites, `site_trial` does."""
    return name == stated if stated is not None else name == "trial" or name.endswith("_trial")


def term_labels(terms: DataArray) -> pandas.MultiIndex | None:
    """What tells terms apart, in the order of their values: a label for each coordinate; None where there is none."""
    import pandas

    names = [
        name
        for name, coord in terms.coords.items()
        if set(coord.dims) & set(terms.dims) and name not in ("chain", "draw", "sample", "outcomes")
    ]
    named = [name for name in names if not name.endswith("observation")] or names
    if not named or not terms.size:
        return None
    labels = {"trial" if is_trial(name) else name: terms.coords[name].broadcast_like(terms) for name in sorted(named)}
    return pandas.MultiIndex.from_arrays(
        [x.transpose(*terms.dims).values.reshape(-1) for x in labels.values()], names=list(labels)
    )


def label_text(names: Sequence[object], label: Sequence[object]) -> str:
    """A label for messages, such as "subject 3, trial 7"."""
    return ", ".join(f"{name} {value!s}" for name, value in zip(names, label, strict=True))


def _check_labels(table: DataArray) -> None:
    """Refuse terms of the same labels: they would be taken for one person's."""
    labels = term_labels(table.isel(chain=0, draw=0))
    if labels is not None and labels.has_duplicates:
        twice = labels[labels.duplicated()][0]
        raise ValueError(
            f"data: expected each {' and '.join(map(str, labels.names))} once, got {label_text(labels.names, twice)} "
            f"several times; give everybody a label of their own (coords=... of from_mcmc)"
        )


def _check_finite(table: DataArray) -> None:
    """Refuse terms without a finite log likelihood: no importance weights can be made of them."""
    finite = np.isfinite(table)
    if not bool(finite.all()):
        wrong = (~finite).any([dim for dim in table.dims if dim not in ("chain", "draw")])
        bad = ~finite.all(("chain", "draw"))
        labels = term_labels(bad)
        first = int(np.flatnonzero(bad.values.reshape(-1))[0])
        place = f"term {first}" if labels is None else label_text(labels.names, labels[first])
        raise ValueError(
            f"data: expected finite log likelihoods, got others at {int(wrong.sum())} of {wrong.size} draws in "
            f"{int(bad.sum())} of {bad.size} terms, first at {place}: these draws rule out what was observed there"
        )
