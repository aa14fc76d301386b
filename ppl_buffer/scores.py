"""Scores of how well a fitted model predicts, each under the name of what it measures.

With trials that depend on each other "leave one out" can mean several things. All scores are sums of log predictive
densities (elpd, in nats; higher is better); they differ in what is left out and in what the prediction may see:

| score | predicts | sees | computed by |
|---|---|---|---|
| `loo` | trial t | the trials before it; parameters from all *other factors* | PSIS-LOO |
| `logo` | all trials of a person | the other people | PSIS-LOO |
| `lfo` | trial t | the person's trials before it, and the other people | PSIS-LFO |
| `kfold` | all trials of a person | people of other folds | refits |
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

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp
from tqdm.auto import tqdm

from ppl_buffer.arviz import terms
from ppl_buffer.arviz.versions import container, groups_of, smooth_log_weights
from ppl_buffer.checks import check_integer, check_seed
from ppl_buffer.files import to_numpy
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.inference.population import population_evidence
from ppl_buffer.inference.trialwise import subject_count
from ppl_buffer.network.arguments import as_floating, require_buffer, trials_of_value
from ppl_buffer.network.backend import Array, backend_of
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import EncodedContext, ObservedTrials
from ppl_buffer.predictive import density
from ppl_buffer.predictive.program import in_one_program
from ppl_buffer.predictive.query import Query

if TYPE_CHECKING:
    from xarray import DataArray

MEANING = {
    "loo": "each trial one step ahead, in sample: later trials have informed the parameters",
    "logo": "all trials of a person together, from the other people",
    "kfold": "all trials of a person together, from people of other folds",
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
        pointwise: the terms of the sum: one a trial, or one a person. Its coordinates say whose
            trial it is; a coordinate `outcomes`, where there is one, holds a checksum of what was observed.
        pareto_k: of the same shape: diagnostic of the importance sampling; None where there is none.
        draws: number of posterior draws; None where there are none.
    """

    kind: str
    pointwise: DataArray
    pareto_k: DataArray | None = None
    draws: int | None = None

    @property
    def elpd(self) -> float:
        """The sum, in nats."""
        return float(self.pointwise.sum())

    @property
    def standard_error(self) -> float:
        """Standard error of the sum, from the spread of its terms as if they were independent; NaN of a single term."""
        return _error_of_sum(self.pointwise.values)

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

        Terms are paired by their labels, in whatever order they are.

        Args:
            other: score of the same kind, of the same trials.

        Returns:
            the difference in nats, this model's minus the other's, and its standard error from the spread of the
            pairs' differences as if they were independent (NaN of a single pair).

        Raises:
            ValueError: if the kinds, the labels of people and trials, or the observed outcomes differ.
        """
        if not isinstance(other, Score):
            raise ValueError(f"other: expected a Score, got {type(other).__name__}")
        if other.kind != self.kind:
            raise ValueError(f"other: expected a score of the same kind {self.kind!r}, got {other.kind!r}")
        difference = self.pointwise.values.reshape(-1) - other.pointwise.values.reshape(-1)[_pairs(self, other)]
        return float(difference.sum()), _error_of_sum(difference)

    def __str__(self) -> str:
        error = "unknown" if math.isnan(self.standard_error) else f"{self.standard_error:.1f}"
        text = f"{self.kind}: elpd {self.elpd:.1f} (standard error {error}), {MEANING[self.kind]}"
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


def kfold(
    net: Network,
    data: ObservedTrials,
    refit: Callable[[np.ndarray], tuple[Mapping[str, Array], Mapping[str, Array]]],
    *,
    folds: int = 10,
    draws: int = 1000,
    subjects: Sequence[object] | np.ndarray | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Score:
    """Score of all trials of a person, from a population fitted to the people of the other folds.

    Args:
        net: a network.
        data: what ``net.observe(...)`` returned; one batch dimension, the people.
        refit: fits the people at indices (n,), such as ``data[indices]``, and returns posterior draws of the
            population's means and spreads, dicts parameter -> (S,), of what ``net.into_box(name, x, below=data)`` maps.
        folds: groups of people, each of which is left out once.
        draws: that people's parameters are integrated with.
        subjects: labels of the people; by default numbers from 0.
        seed: of the folds and of the draws.
        progress: show a bar.

    Raises:
        ValueError: if there are fewer people than folds, or `refit` returns other draws.
    """
    import xarray

    size, seed = subject_count(net, data, subjects), check_seed(seed)
    if not 2 <= check_integer("folds", folds) <= size:
        raise ValueError(f"folds: expected 2 to {size}, the number of people, got {folds}")
    fold, elpd = np.random.default_rng(seed).permutation(np.arange(size) % folds), np.empty(size)
    for index in tqdm(range(folds), disable=not progress, desc="fit without a fold", unit="fold"):
        means, spreads = refit(np.flatnonzero(fold != index))
        left_out = np.flatnonzero(fold == index)
        elpd[left_out] = population_evidence(net, data[left_out], means, spreads, draws=draws, seed=seed).log_evidence
    labels = list(range(size) if subjects is None else subjects)
    return Score("kfold", xarray.DataArray(elpd, dims="subject", coords={"subject": labels}))


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
        ValueError: if the model is ordered, the network has no buffered transformer, or names, shapes or values do not
            fit the schema.
    """
    import xarray

    backend_of(net)
    require_buffer(net, "net: expected one with a buffered transformer, which infers parameters from other trials")
    value = as_floating(net, "value", value)
    tail, count = len(net.schema.event_shape_tail), len(net.schema.outcomes)
    query = Query.build(
        net, inputs, trials=trials_of_value(net, value), feedback=feedback, trial_mask=trial_mask,
        context=context,
    )  # fmt: skip
    log_probs = to_numpy(in_one_program(density.leave_one_out, query, value)).astype(float)
    exists = np.ones(log_probs.shape, dtype=bool)
    if query.trial_mask is not None:
        exists = np.broadcast_to(to_numpy(query.trial_mask), log_probs.shape)
    batch = ["subject"] if log_probs.ndim == 2 else [f"batch_dim_{axis}" for axis in range(log_probs.ndim - 1)]
    indices = zip([*batch, "trial"], np.nonzero(exists), strict=True)
    coords = {name: ("observation", index) for name, index in indices}
    if not np.isfinite(log_probs[exists]).all():
        raise ValueError(f"value: expected legal outcomes {net.schema.outcomes}, got others, which have no density")
    outcomes = np.broadcast_to(
        to_numpy(value).reshape(*value.shape[: value.ndim - tail], -1), (*log_probs.shape, count)
    )
    coords["outcomes"] = ("observation", terms.checksums_of_rows(outcomes[exists]))
    return Score("leave_one_out", xarray.DataArray(log_probs[exists], dims="observation", coords=coords))


def _pairs(one: Score, other: Score) -> np.ndarray:
    """For each term of a score, the index of the other's term of the same labels and outcomes."""
    labels, theirs = terms.term_labels(one.pointwise), terms.term_labels(other.pointwise)
    if labels is None or theirs is None or list(labels.names) != list(theirs.names):
        names = [None if index is None else list(index.names) for index in (labels, theirs)]
        raise ValueError(f"other: expected a score whose terms are labelled by {names[0]}, got {names[1]}")
    for index, argument in ((labels, "this score"), (theirs, "other")):
        if index.has_duplicates:
            twice = terms.label_text(index.names, index[index.duplicated()][0])
            raise ValueError(f"{argument}: expected each label once, got {twice} several times")
    lacks, more = labels.difference(theirs, sort=False), theirs.difference(labels, sort=False)
    if len(lacks) or len(more):
        parts = [
            f"{what} {len(index)} of its {len(whole)} terms, such as {terms.label_text(index.names, index[0])}"
            for what, index, whole in (("lacks", lacks, labels), ("has more,", more, theirs))
            if len(index)
        ]
        raise ValueError(f"other: expected a score of the same trials, got one that {' and '.join(parts)}")
    pairs = theirs.get_indexer(labels)
    if "outcomes" in one.pointwise.coords and "outcomes" in other.pointwise.coords:
        ours, others = (x.pointwise.coords["outcomes"].values.reshape(-1) for x in (one, other))
        differ = np.flatnonzero(ours != others[pairs])
        if len(differ):
            raise ValueError(
                f"other: expected a score of the same data, got other outcomes in {len(differ)} of {len(ours)} terms, "
                f"such as {terms.label_text(labels.names, labels[differ[0]])}; where people are in another order, give "
                "from_mcmc their labels, coords={'subject': [...]}"
            )
    return pairs


def _error_of_sum(values: np.ndarray) -> float:
    """Standard error of a sum of independent values, from their spread; NaN of a single one."""
    return float(np.sqrt(values.size * values.var())) if values.size > 1 else math.nan


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
