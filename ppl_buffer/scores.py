"""Scores of how well a fitted model predicts, each under the name of what it measures.

With trials that depend on each other "leave one out" can mean several things. All scores are sums of log predictive
densities (elpd, in nats; higher is better); they differ in what is left out and in what the prediction may see:

| score | predicts | sees | computed by |
|---|---|---|---|
| `loo` | trial t | the trials before it; parameters from all *other factors* | PSIS-LOO |
| `logo` | all trials of a person | the other people | PSIS-LOO |
| `lfo` | trial t | the person's trials before it, and the other people | PSIS-LFO |
| `leave_one_out` | trial i of a set | all other trials of the set | the network, exactly |

- `loo` is what `az.loo` computes of a result of `ppl_buffer.arviz`. It is one step ahead and *in sample*: trial
  t leaves the posterior as a factor, yet stays in the history of later trials, and these inform the parameters. Good
  for comparing what two models say of the next response; slightly optimistic as a forecast.
- `lfo` is the honest forecast: neither trial t nor any later one of that person informs the prediction.
- `logo` is about new people. Parameters of a person that are weakly tied to the population make the importance
  weights heavy-tailed, which Pareto k shows.
- `leave_one_out` is for exchangeable models alone, where a trial has no place in an order. The network integrates all
  parameters over *its training prior*: there is no posterior and no sampling.

The first three reweight the draws of one posterior by Pareto smoothed importance sampling (Vehtari, Simpson, Gelman,
Yao & Gabry 2024). Where that fails `pareto_k` says: terms above `Score.threshold` are not to be trusted.
`lfo` follows Buerkner, Gabry & Vehtari (2020), "Approximate leave-future-out cross-validation for Bayesian time series
models", without their refits: where k is high, a score of early trials needs a posterior of early trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp
from tqdm.auto import tqdm

from ppl_buffer.arviz.versions import container, groups_of, smooth_log_weights
from ppl_buffer.checks import check_integer
from ppl_buffer.files import to_numpy
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.network.backend import Array, backend_of
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import EncodedContext
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query

MEANING = {
    "loo": "each trial one step ahead, in sample: later trials have informed the parameters",
    "logo": "all trials of a person together, from the other people",
    "lfo": "each trial from the person's earlier trials and the other people",
    "leave_one_out": "each trial from all others of its set, over the network's training prior",
}

# What to do where the importance weights of a score are not to be trusted.
_ADVICE = {
    "loo": "single trials change the posterior much; look at those with high pareto_k",
    "logo": "the posterior of a person's parameters differs much with and without that person's data; refit "
    "without these people, or compare models by `loo` or `lfo`",
    "lfo": "the posterior without the future differs much from the whole one; leave more trials unscored "
    "(first=...), or refit to the first trials",
}


@dataclass(frozen=True)
class Score:
    """A sum of log predictive densities, and what it is made of.

    Attributes:
        kind: which score, a key of `MEANING`.
        pointwise: `xarray.DataArray`, the terms of the sum: one a trial, or one a person.
        pareto_k: `xarray.DataArray` of the same shape: diagnostic of the importance sampling; None where there is none.
        draws: number of posterior draws; None where there are none.
    """

    kind: str
    pointwise: Any
    pareto_k: Any = None
    draws: int | None = None

    @property
    def elpd(self) -> float:
        """The sum, in nats."""
        return float(self.pointwise.sum())

    @property
    def standard_error(self) -> float:
        """Standard error of the sum, from the spread of its terms as if they were independent."""
        return float(np.sqrt(self.pointwise.size * self.pointwise.var()))

    @property
    def threshold(self) -> float:
        """Largest Pareto k at which that number of draws is enough: min(1 - 1 / log10(draws), 0.7)."""
        return 0.7 if self.draws is None else min(1 - 1 / np.log10(max(self.draws, 2)), 0.7)

    @property
    def doubtful(self) -> int:
        """Number of terms whose Pareto k is above the threshold."""
        return 0 if self.pareto_k is None else int((self.pareto_k > self.threshold).sum())

    def difference(self, other: Score) -> tuple[float, float]:
        """How much better this model predicts than another: difference of the sums, and its standard error.

        Args:
            other: score of the same kind, of the same trials.

        Raises:
            ValueError: if the kinds or the trials differ.
        """
        if other.kind != self.kind:
            raise ValueError(f"other: expected a score of the same kind {self.kind!r}, got {other.kind!r}")
        if other.pointwise.shape != self.pointwise.shape:
            raise ValueError(
                f"other: expected a score of the same trials, {self.pointwise.shape}, got {other.pointwise.shape}"
            )
        terms = self.pointwise.values - other.pointwise.values
        return float(terms.sum()), float(np.sqrt(terms.size * terms.var()))

    def __str__(self) -> str:
        text = f"{self.kind}: elpd {self.elpd:.1f} (standard error {self.standard_error:.1f}), {MEANING[self.kind]}"
        if self.pareto_k is not None:
            text += f"; Pareto k above {self.threshold:.2f} in {self.doubtful} of {self.pareto_k.size} terms"
        return text


def loo(data: Any, *, var_name: str | None = None) -> Score:
    """Score of each trial one step ahead, in sample; the sum that `az.loo` gives.

    Args:
        data: what `ppl_buffer.arviz.from_mcmc` or `from_svi` returned.
        var_name: variable of the group log_likelihood, where there are several.

    Raises:
        ValueError: if there is no such log likelihood.
    """
    return _checked(_loo("loo", _log_likelihood(data, var_name)))


def logo(data: Any, *, var_name: str | None = None) -> Score:
    """Score of all trials of a person together, from the other people.

    Args:
        data: what `ppl_buffer.arviz.from_mcmc` or `from_svi` returned.
        var_name: variable of the group log_likelihood, where there are several.

    Raises:
        ValueError: if there is no such log likelihood, or no people in it.
    """
    return _checked(_loo("logo", _by_subject(_log_likelihood(data, var_name))))


def by_subject(data: Any, *, var_name: str | None = None) -> Any:
    """The same result with one log likelihood a person, for `az.loo` and `az.compare` of `logo` scores.

    Args:
        data: what `ppl_buffer.arviz.from_mcmc` or `from_svi` returned.
        var_name: variable of the group log_likelihood, where there are several.

    Raises:
        ValueError: if there is no such log likelihood, or no people in it.
    """
    table = _log_likelihood(data, var_name)
    groups = groups_of(data)
    groups["log_likelihood"] = _by_subject(table).to_dataset(name=table.name)
    return container(groups)


def lfo(data: Any, *, first: int = 0, var_name: str | None = None, progress: bool = True) -> Score:
    """Score of each trial from the person's earlier trials and the other people: leave-future-out, one trial ahead.

    Of one person at a time the trial and all later ones are removed from the posterior, by importance weights on its
    draws; other people stay. (Where people did several data sets each, of one data set at a time.) There are no refits:
    early trials of long sequences, where most of a person's data are removed, have high Pareto k.

    Args:
        data: what `ppl_buffer.arviz.from_mcmc` or `from_svi` returned.
        first: number of trials of each person that are not scored.
        var_name: variable of the group log_likelihood, where there are several.
        progress: show a progress bar.

    Raises:
        ValueError: if there is no such log likelihood, or `first` leaves no trial.
    """
    import xarray

    first = check_integer("first", first, least=0)
    table = _observations(_log_likelihood(data, var_name))
    log_likelihood = table.values  # (S, observations)
    count = log_likelihood.shape[1]
    coords = {name: coord for name, coord in table.coords.items() if coord.dims == ("observation",)}
    trial = next((coord.values for name, coord in coords.items() if name.endswith("trial")), np.arange(count))
    data_set = _data_sets(coords, count)
    elpd, pareto_k = np.full(count, np.nan), np.full(count, np.nan)
    for label in tqdm(np.unique(data_set), disable=not progress, desc="leave future out", unit="person"):
        indices = np.flatnonzero(data_set == label)
        indices = indices[np.argsort(trial[indices], kind="stable")]
        scored = indices[first:]
        if len(scored):
            elpd[scored], pareto_k[scored] = _future_left_out(log_likelihood[:, indices].astype(float), first)
    exists = ~np.isnan(elpd)
    if not exists.any():
        raise ValueError(f"first: expected fewer trials than people did, got {first}")
    terms, shapes = (xarray.DataArray(x, dims="observation", coords=coords)[exists] for x in (elpd, pareto_k))
    return _checked(Score("lfo", terms, shapes, len(log_likelihood)))


def _data_sets(coords: Mapping[str, Any], count: int) -> np.ndarray:
    """A number for the data set of each observation: what the coordinates but the trial's tell apart."""
    data_set = np.zeros(count, dtype=int)
    for name, coord in coords.items():
        if name != "observation" and not name.endswith("trial"):
            labels, code = np.unique(coord.values, return_inverse=True)
            data_set = data_set * len(labels) + code
    return data_set


def _future_left_out(log_likelihood: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the trials from `first` on, and Pareto k, by the log likelihood (S, trials) of one data set."""
    future = np.cumsum(log_likelihood[:, ::-1], axis=1)[:, ::-1][:, first:]
    log_weights, pareto_k = smooth_log_weights(-future.T)
    return logsumexp(log_weights + log_likelihood[:, first:].T, axis=1), pareto_k


def leave_one_out(
    net: Network,
    inputs: Mapping[str, Array],
    value: Array,
    *,
    feedback: Mapping[str, Array] | None = None,
    trial_mask: Array | None = None,
    context: Mapping[str, Array] | EncodedContext | None = None,
) -> Score:
    """Score of each trial from all others of its set, by an exchangeable network that is conditioned on no parameters.

    One conditioning, no posterior: log p(y_i | x, y without i), with every parameter integrated over the network's
    training prior (not over a prior that a model of yours has).

    Args:
        net: a network of either backend.
        inputs: dict name -> (*B, K); {} where the schema has none.
        value: outcomes, (*B, K) or (*B, K, n_outcomes).
        feedback: dict name -> (*B, K).
        trial_mask: (*B, K) bool; False = no such trial.
        context: points that are always seen, dict of arrays (*B, N), or what ``net.encode(...)`` returned.

    Raises:
        ValueError: if the model is ordered, or names, shapes or values do not fit the schema.
    """
    import xarray

    value = backend_of(net).ops.floating(net, value)
    tail = len(net.schema.event_shape_tail)
    query = Query.build(
        net, inputs, trials=value.shape[value.ndim - 1 - tail], feedback=feedback, trial_mask=trial_mask,
        context=context,
    )  # fmt: skip
    log_probs = to_numpy(density.leave_one_out(query, value)).astype(float)
    exists = np.ones(log_probs.shape, dtype=bool)
    if query.trial_mask is not None:
        exists = np.broadcast_to(to_numpy(query.trial_mask), log_probs.shape)
    batch = ["subject"] if log_probs.ndim == 2 else [f"batch_dim_{axis}" for axis in range(log_probs.ndim - 1)]
    indices = zip([*batch, "trial"], np.nonzero(exists), strict=True)
    coords = {name: ("observation", index) for name, index in indices}
    return Score("leave_one_out", xarray.DataArray(log_probs[exists], dims="observation", coords=coords))


def _log_likelihood(data: Any, var_name: str | None) -> Any:
    """The log likelihood of each trial: (chain, draw, ...)."""
    groups = groups_of(data)
    if "log_likelihood" not in groups:
        raise ValueError(f"data: expected a group log_likelihood, as from_mcmc makes it, got {list(groups)}")
    names = list(groups["log_likelihood"].data_vars)
    if var_name is None and len(names) > 1 or var_name is not None and var_name not in names:
        raise ValueError(f"var_name: expected one of {names}, got {var_name!r}")
    return groups["log_likelihood"][names[0] if var_name is None else var_name]


def _observations(table: Any) -> Any:
    """The same as (sample, observation)."""
    table = table.stack(sample=("chain", "draw"))
    others = [dim for dim in table.dims if dim != "sample"]
    if len(others) == 1 and others[0].endswith("observation"):
        table = table.rename({others[0]: "observation"})
    else:
        table = table.stack(observation=others).reset_index("observation")
    return table.transpose("sample", "observation")


def _by_subject(table: Any) -> Any:
    """Sums over the trials of each person: (chain, draw, subject)."""
    others = [dim for dim in table.dims if dim not in ("chain", "draw")]
    if "subject" not in table.coords:
        raise ValueError(f"data: expected a log likelihood with people, a coordinate 'subject', got {others}")
    if "subject" in table.dims:
        return table.sum([dim for dim in others if dim != "subject"])
    return table.groupby("subject").sum()


def _loo(kind: str, table: Any) -> Score:
    """PSIS-LOO of the terms of a table (chain, draw, ...)."""
    import xarray

    stacked = table.stack(sample=("chain", "draw"))
    others = [dim for dim in stacked.dims if dim != "sample"]
    stacked = stacked.transpose(*others, "sample")
    values = stacked.values.astype(float)
    flat = values.reshape(-1, values.shape[-1])
    log_weights, pareto_k = smooth_log_weights(-flat)
    coords = {name: coord for name, coord in stacked.coords.items() if "sample" not in coord.dims}

    def labelled(x: np.ndarray) -> Any:
        return xarray.DataArray(x.reshape(values.shape[:-1]), dims=others, coords=coords)

    return Score(kind, labelled(logsumexp(log_weights + flat, axis=1)), labelled(pareto_k), values.shape[-1])


def _checked(score: Score) -> Score:
    """The score, with a warning where its importance weights are not to be trusted."""
    if score.doubtful:
        text = (
            f"{score.kind}: Pareto k is above {score.threshold:.2f} in {score.doubtful} of {score.pareto_k.size} "
            f"terms, whose estimates are not to be trusted: {_ADVICE[score.kind]}"
        )
        warn_of(Finding("sampling", text, share=score.doubtful / score.pareto_k.size), stacklevel=3)
    return score
