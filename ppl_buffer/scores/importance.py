"""Scores by importance sampling: the draws of one posterior are reweighted, and nothing is fitted again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp
from tqdm.auto import tqdm

from ppl_buffer.arviz import terms
from ppl_buffer.arviz.versions import container, groups_of, smooth_log_weights
from ppl_buffer.checks import check_integer
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.scores.score import Score

if TYPE_CHECKING:
    from xarray import DataArray

# What to do where the importance weights of a score are not to be trusted.
_ADVICE = {
    "loo": "single trials change the posterior much; look at those with high pareto_k, or refit "
    "without them (`reloo`, of independent trials)",
    "logo": "the posterior of a person's parameters differs much with and without that person's data; refit "
    "without these people (`reloo`), or compare models by `loo` or `lfo`",
    "lfo": "the posterior without the future differs much from the whole one; leave more trials unscored "
    "(first=...), or refit to the first trials",
}


def loo(data: Any, *, var_name: str | None = None) -> Score:
    """Score of each trial one step ahead, in sample; the sum that `az.loo` gives.

    Args:
        data: what `ppl_buffer.arviz.from_mcmc` or `from_svi` returned.
        var_name: variable of the group log_likelihood, where there are several.

    Raises:
        ValueError: if there is no such log likelihood.
    """
    return _checked(psis_loo("loo", terms.log_likelihood(data, var_name)))


def logo(data: Any, *, var_name: str | None = None, subject: str = "subject") -> Score:
    """Score of all trials of a person together, from the other people.

    Args:
        data: what `ppl_buffer.arviz.from_mcmc` or `from_svi` returned.
        var_name: variable of the group log_likelihood, where there are several.
        subject: coordinate that tells people apart: "subject" where a model has one plate, whatever its name; of
            several plates the name of the people's.

    Raises:
        ValueError: if there is no such log likelihood, or no people in it.
    """
    return _checked(psis_loo("logo", terms.by_subject(terms.log_likelihood(data, var_name), subject)))


def by_subject(data: Any, *, var_name: str | None = None, subject: str = "subject") -> Any:
    """The same result with one log likelihood a person, for `az.loo` and `az.compare` of `logo` scores.

    Args:
        data: what `ppl_buffer.arviz.from_mcmc` or `from_svi` returned.
        var_name: variable of the group log_likelihood, where there are several.
        subject: coordinate that tells people apart: "subject" where a model has one plate, whatever its name; of
            several plates the name of the people's.

    Raises:
        ValueError: if there is no such log likelihood, or no people in it.
    """
    table = terms.log_likelihood(data, var_name)
    groups = groups_of(data)
    groups["log_likelihood"] = (
        terms.by_subject(table, subject).drop_vars("outcomes", errors="ignore").to_dataset(name=table.name)
    )
    return container(groups)


def lfo(
    data: Any, *, first: int = 0, var_name: str | None = None, trial: str | None = None, progress: bool = True
) -> Score:
    """Score of each trial from the person's earlier trials and the other people: leave-future-out, one trial ahead.

    Of one person at a time the trial and all later ones are removed from the posterior, by importance weights on its
    draws; other people stay. (Where people did several data sets each, of one data set at a time.) There are no refits:
    early trials of long sequences, where most of a person's data are removed, have high Pareto k.

    Args:
        data: what `ppl_buffer.arviz.from_mcmc` or `from_svi` returned.
        first: number of trials of each person that are not scored.
        var_name: variable of the group log_likelihood, where there are several.
        trial: coordinate that numbers the trials, such as the plate of a regression on trials; by default "trial", or
            "site_trial" where a model has several sites. All other coordinates tell data sets apart.
        progress: show a progress bar.

    Raises:
        ValueError: if there is no such log likelihood, nothing says which trials are one person's, or `first` leaves no
            trial.
    """
    import xarray

    first = check_integer("first", first, least=0)
    table = terms.observations(terms.log_likelihood(data, var_name))
    log_likelihood = table.values  # (S, observations)
    count = log_likelihood.shape[1]
    coords = {name: coord for name, coord in table.coords.items() if coord.dims == ("observation",)}
    labels = {name: coord for name, coord in coords.items() if name != "outcomes"}
    order, data_set = terms.trial_order(labels, count, trial), terms.data_sets(labels, count, trial)
    if count == len(np.unique(data_set)) > 1:
        raise ValueError(
            f"data: expected people of several trials, but {list(labels)} tell all trials apart; trial=... names the "
            "coordinate that numbers the trials"
        )
    elpd, pareto_k = np.full(count, np.nan), np.full(count, np.nan)
    for label in tqdm(np.unique(data_set), disable=not progress, desc="leave future out", unit="person"):
        indices = np.flatnonzero(data_set == label)
        indices = indices[np.argsort(order[indices], kind="stable")]
        scored = indices[first:]
        if len(scored):
            elpd[scored], pareto_k[scored] = terms.future_left_out(log_likelihood[:, indices].astype(float), first)
    exists = ~np.isnan(elpd)
    if not exists.any():
        raise ValueError(f"first: expected fewer trials than people did, got {first}")
    scores, shapes = (xarray.DataArray(x, dims="observation", coords=coords)[exists] for x in (elpd, pareto_k))
    return _checked(Score("lfo", scores, shapes, len(log_likelihood)))


def psis_loo(kind: str, table: DataArray) -> Score:
    """PSIS-LOO of the terms of a table of log likelihoods (chain, draw, ...), without a warning.

    Args:
        kind: which score, a key of `MEANING`.
        table: log likelihood of each term at each draw.
    """
    import xarray

    stacked = table.stack(sample=("chain", "draw"))
    others = [dim for dim in stacked.dims if dim != "sample"]
    stacked = stacked.transpose(*others, "sample")
    values = stacked.values.astype(float)
    flat = values.reshape(-1, values.shape[-1])
    log_weights, pareto_k = smooth_log_weights(-flat)
    coords = {name: coord for name, coord in stacked.coords.items() if "sample" not in coord.dims}

    def labelled(x: np.ndarray) -> DataArray:
        return xarray.DataArray(x.reshape(values.shape[:-1]), dims=others, coords=coords)

    return Score(kind, labelled(logsumexp(log_weights + flat, axis=1)), labelled(pareto_k), values.shape[-1])


def _checked(score: Score) -> Score:
    """The score, with a warning where its importance weights are not to be trusted."""
    if score.pareto_k is not None and score.doubtful:
        text = (
            f"{score.kind}: Pareto k is above {score.threshold:.2f} in {score.doubtful} of {score.pareto_k.size} "
            f"terms, whose estimates are not to be trusted: {_ADVICE[score.kind]}"
        )
        warn_of(Finding("sampling", text, share=score.doubtful / score.pareto_k.size), stacklevel=3)
    return score
