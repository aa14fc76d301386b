"""Trial by trial: what a fitted model expects, how surprised it is, and what it has learnt of a person so far.

Regressors for neural data (model-based analysis: O'Doherty, Hampton & Kim 2007, Ann. N. Y. Acad. Sci. 1104, 35), as
tables with a row a trial of each person.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp
from tqdm.auto import tqdm

from ppl_buffer.checks import check_integer, check_mapping, check_seed
from ppl_buffer.files import to_numpy
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.inference.chunks import chunks, map_chunks, new_in_chunks
from ppl_buffer.inference.draws import (
    align_lapse,
    by_variation,
    conditioned_params,
    flat_draws,
    sample_shape,
    varying_params,
)
from ppl_buffer.inference.importance import fit_proposal
from ppl_buffer.inference.normal_scores import NormalScores
from ppl_buffer.network.arguments import require_likelihood
from ppl_buffer.network.backend import Array, backend_of
from ppl_buffer.network.lapses import Lapse, check_lapse, checked_lapse
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.predictive import density
from ppl_buffer.predictive.program import in_one_program
from ppl_buffer.predictive.query import Query
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Schema, split_value

if TYPE_CHECKING:
    import pandas

# Trials under parameter draws that are computed at once, and draws of a round of the sequential posterior by default.
_TRIALS_AT_ONCE = 200_000
# Below this effective number of draws a posterior mean given the trials so far is not to be trusted.
_FEWEST_EFFECTIVE = 30.0
# No parameter can be called so: names are identifiers.
_LAPSE = "probability of a lapse"


def trial_regressors(
    net: Network,
    data: ObservedTrials,
    params: Mapping[str, Array] | None = None,
    *,
    trial_params: Mapping[str, Array] | None = None,
    lapse: Array | Lapse | None = None,
    subjects: Sequence[object] | np.ndarray | None = None,
    progress: bool = True,
) -> pandas.DataFrame:
    """What a model expected of each trial before it was seen, and how surprising it was.

    Probabilities and densities are averaged over the draws of the parameters, which a fit has from all trials; the past
    that a trial is predicted from is the observed one.

    Args:
        net: a network of either backend.
        data: what ``net.observe(...)`` returned; one batch dimension, the subjects.
        params: posterior draws, dict name -> (draws, subjects), or (draws,) for what all share; other sites of a model
            may be there too, and are ignored. None: parameters are integrated over the training prior given the
            trials so far, by a network with a buffered transformer.
        trial_params: dict name -> (draws, subjects, K): those that vary by trial, beside all others in `params`.
        lapse: the lapses that were fitted: their rate, or a `ppl_buffer.Lapse` of such a rate, (draws, subjects) or
            fewer dimensions.
        subjects: their labels; by default numbers from 0.
        progress: show a progress bar.

    Returns:
        a row a trial that exists, with ``subject``, ``trial`` (from 1), inputs, outcomes and feedback, and

        - ``surprise``: -log2 of the probability, or density in the units of the data, of all outcomes of the trial
          given the past, in bits; ``surprise_NAME`` of the first outcome alone where there are several and it is a
          category;
        - ``p_NAME_C``: probability of category C of the first outcome;
        - ``mean_NAME``, ``sd_NAME``: of each other outcome, whatever the first will be; they are missing where an
          outcome follows a continuous one, and infinite where there is none.

    Raises:
        ValueError: if names or shapes do not fit, or the data are not of subjects.
    """
    size = subject_count(net, data, subjects)
    given = {} if params is None else conditioned_params(net.schema, params, trial_params or ())
    varying = varying_params(net, trial_params, given, data.trials, data.trial_mask)
    lead = sample_shape(given, (size,), varying) if given or varying else (1,)
    count, draws = math.prod(lead), flat_draws(given, varying, lead, (size,))
    lapses = Lapse.of(lapse)
    if lapses is not None:
        rate = np.asarray(to_numpy(check_lapse(net, lapses)[0]), np.float32)
        draws[_LAPSE] = align_lapse(rate, lead, (size,)).reshape(count, size)
    sums = _Expectations(net.schema, (size, data.trials))
    at_once = min(count, max(1, _TRIALS_AT_ONCE // (size * data.trials)))
    with tqdm(total=count, disable=not progress, unit="draw", desc="trial by trial") as bar:
        for indices, added in zip(chunks(count, at_once), new_in_chunks(count, at_once), strict=True):
            part = {name: x[indices] for name, x in draws.items()}
            there = None if lapses is None else lapses.at(part.pop(_LAPSE))
            stays, varies = by_variation(part)
            query = Query.build(
                net, data, params=stays, trial_params=varies, lapse=there, outside="ignore", check=False, expand=False
            )
            sums.add(query, data.value, added)
            bar.update(added)
    return _table(net.schema, data, subjects, sums.columns(split_value(net.schema, to_numpy(data.value))))


def sequential_posterior(
    net: Network,
    data: ObservedTrials,
    *,
    prior: Mapping[str, Prior] | None = None,
    lapse: Array | Lapse | None = None,
    draws: int = 200,
    subjects: Sequence[object] | np.ndarray | None = None,
    seed: int = 0,
    progress: bool = True,
) -> pandas.DataFrame:
    """What is known of each parameter after each trial: its posterior mean and sd given the trials so far.

    By importance sampling: one set of draws, from the prior to the posterior of all trials (adaptive multiple
    importance sampling: Cornuet, Marin, Mira & Robert 2012, Scand. J. Stat. 39, 798), serves all trials, weighted by
    the likelihood of the trials so far. It needs a likelihood alone, so that a network of either part will do. (The
    draws of a particle filter would have to be moved after each resampling, since parameters do not change.)

    Args:
        net: a network of either backend.
        data: what ``net.observe(...)`` returned; one batch dimension, the subjects.
        prior: parameter -> `ppl_buffer.Prior`; by default that of the training.
        lapse: known lapses: their rate, or a `ppl_buffer.Lapse` of such a rate, one or (subjects,).
        draws: of each round, of which there are several.
        subjects: their labels; by default numbers from 0.
        seed: of the draws.
        progress: show a progress bar.

    Returns:
        a row a trial that exists, with ``subject``, ``trial`` (from 1), and ``mean_NAME`` and ``sd_NAME`` of each
        parameter given this trial and all before it; ``effective_sample_size`` says how many independent draws they
        rest on. Shift rows by one for what was known before a trial.

    Raises:
        ValueError: if no prior of a parameter is known, the rate of lapses is not, or the data are not of subjects.
    """
    size = subject_count(net, data, subjects)
    if net.record is not None:
        require_likelihood(net.record)
    if data.context is not None:
        raise ValueError("data: expected trials observed without a context")
    seed, draws = check_seed(seed), check_integer("draws", draws, least=10)
    scale, lapses = NormalScores(_priors(net, prior)), Lapse.of(lapse)
    if lapses is not None and lapses.prior is not None:
        raise ValueError("lapse: expected a known rate, got one with a prior")
    lapses = checked_lapse(net, lapses, (size,))
    params: list[dict[str, np.ndarray]] = []
    by_trial: list[np.ndarray] = []
    at_once = min(draws, max(1, _TRIALS_AT_ONCE // (size * data.trials)))
    bar = tqdm(disable=not progress, unit="draw", desc="given the trials so far")

    def log_likelihood(scores: np.ndarray) -> np.ndarray:
        values = scale.params(scores, (size,))

        def conditionals(indices: np.ndarray) -> np.ndarray:
            part = {name: x[indices] for name, x in values.items()}
            query = Query.build(net, data, params=part, lapse=lapses, outside="ignore", check=False, expand=False)
            log_probs = in_one_program(density.conditionals, query, data.value, reuse=query.matches(data.value))
            return np.maximum(to_numpy(log_probs), -1e6).astype(np.float32)

        params.append(values)
        by_trial.append(map_chunks(conditionals, len(scores), at_once, bar.update))
        return by_trial[-1].sum(-1, dtype=float)

    with bar:
        proposal = fit_proposal(
            log_likelihood, size, len(scale.priors), np.random.default_rng(seed), draws=draws, kept=None
        )
    values = {name: np.concatenate([piece[name] for piece in params]).astype(float) for name in scale.priors}
    columns, effective = _weighted(values, np.concatenate(by_trial), proposal.log_ratio)
    exists = to_numpy(data.trial_mask).astype(bool)
    if (effective[exists] < _FEWEST_EFFECTIVE).any():
        share = float((effective[exists] < _FEWEST_EFFECTIVE).mean())
        text = (
            f"sequential_posterior: after {share:.1%} of the trials the draws are worth fewer than "
            f"{_FEWEST_EFFECTIVE:.0f} independent ones (effective_sample_size); raise draws"
        )
        warn_of(Finding("sampling", text, share=share))
    return _table(None, data, subjects, {**columns, "effective_sample_size": effective})


def _weighted(
    values: Mapping[str, np.ndarray], by_trial: np.ndarray, log_ratio: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Posterior means and sds (P, K) given the trials so far, and how many draws they rest on (P, K).

    Args:
        values: parameter -> draws (n, P).
        by_trial: log likelihood of each trial, (n, P, K).
        log_ratio: log density of the prior over that of the draws, (n, P).
    """
    _, size, trials = by_trial.shape
    columns = {f"{kind}_{name}": np.empty((size, trials)) for name in values for kind in ("mean", "sd")}
    effective = np.empty((size, trials))
    for person in range(size):
        log_weight = log_ratio[:, person, None] + by_trial[:, person].cumsum(1, dtype=float)
        weight = np.exp(log_weight - log_weight.max(0))
        weight /= weight.sum(0)
        effective[person] = 1 / (weight**2).sum(0)
        for name, draws in values.items():
            mean = draws[:, person] @ weight
            columns[f"mean_{name}"][person] = mean
            columns[f"sd_{name}"][person] = np.sqrt(((draws[:, person, None] - mean) ** 2 * weight).sum(0))
    return columns, effective


class _Expectations:
    """Sums over draws of what each trial (P, K) was expected to be.

    Args:
        schema: of the data.
        shape: (P, K).
    """

    def __init__(self, schema: Schema, shape: tuple[int, int]) -> None:
        self.first, variable = next(iter(schema.outcomes.items()))
        self.categories = variable.n if isinstance(variable, Categorical) else 0
        self.outcomes = list(schema.outcomes)
        self.others = [name for name in schema.outcomes if not (self.categories and name == self.first)]
        self.count = 0
        self.log_density = np.full(shape, -np.inf)
        self.probability = np.zeros((*shape, self.categories))
        self.first_moment = np.zeros((*shape, len(schema.outcomes)))
        self.second_moment = np.zeros((*shape, len(schema.outcomes)))

    def add(self, query: Query, value: Array, added: int) -> None:
        """Add the last `added` draws of a query's parameters."""
        shape = self.log_density.shape

        def last(array: Array, *tail: int) -> np.ndarray:
            """As (draws, P, K, ...): a query without parameters has one draw."""
            return to_numpy(array).astype(float).reshape(-1, *shape, *tail)[-added:]

        reuse = query.matches(value)
        log_density = logsumexp(last(in_one_program(density.conditionals, query, value, reuse=reuse)), axis=0)
        self.log_density = np.logaddexp(self.log_density, log_density)
        self.count += added
        if self.categories:
            probability = in_one_program(density.one_step_probabilities, query, value, reuse=reuse)
            self.probability += last(probability, self.categories).sum(0)
        if self.others:
            try:
                moments = in_one_program(density.one_step_moments, query, value, reuse=reuse)
                mean, variance = (last(x, len(self.outcomes)) for x in moments)
            except NotImplementedError:
                self.others = []
                return
            self.first_moment += mean.sum(0)
            self.second_moment += (mean**2 + variance).sum(0)

    def columns(self, outcomes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Columns (P, K) by name, given the outcomes (P, K) that were observed."""
        result = {"surprise": -(self.log_density - np.log(self.count)) / np.log(2)}
        if self.categories:
            probability = self.probability / self.count
            if len(self.outcomes) > 1:
                code = np.clip(outcomes[self.first].astype(int), 0, self.categories - 1)
                observed = np.take_along_axis(probability, code[..., None], -1)[..., 0]
                with np.errstate(divide="ignore"):
                    result[f"surprise_{self.first}"] = -np.log2(observed)
            result |= {f"p_{self.first}_{index}": probability[..., index] for index in range(self.categories)}
        for name in self.others:
            index = self.outcomes.index(name)
            mean, second = (x[..., index] / self.count for x in (self.first_moment, self.second_moment))
            with np.errstate(invalid="ignore"):
                result[f"mean_{name}"] = mean
                result[f"sd_{name}"] = np.sqrt(np.maximum(second - mean**2, 0.0))
        return result


def subject_count(net: Network, data: ObservedTrials, subjects: Sequence[object] | np.ndarray | None) -> int:
    """The number of subjects.

    Raises:
        ValueError: if the data are not what the network observed of subjects, or their labels are too few.
    """
    backend_of(net)
    if not isinstance(data, ObservedTrials) or len(data.batch_shape) != 1:
        raise ValueError("data: expected what net.observe(...) returned of trials (subjects, K)")
    size = data.batch_shape[0]
    if subjects is not None:
        listed = (
            list(subjects) if isinstance(subjects, (Sequence, np.ndarray)) and not isinstance(subjects, str) else []
        )
        if len(listed) != size or not all(isinstance(label, Hashable) for label in listed):
            raise ValueError(f"subjects: expected a list of {size} labels, got {subjects!r}")
    return size


def _priors(net: Network, given: Mapping[str, Prior] | None) -> dict[str, Prior]:
    """The prior of each parameter: the given one, or that of the training."""
    stated = {} if net.record is None else net.record.priors
    given = check_mapping("prior", given)
    unknown = [name for name in given if name not in net.schema.params]
    if unknown:
        raise ValueError(f"prior: expected parameters of {list(net.schema.params)}, got {unknown}")
    priors = {}
    for name in net.schema.params:
        prior = given.get(name, stated.get(name))
        if not isinstance(prior, Prior):
            raise ValueError(f"prior[{name!r}]: expected a ppl_buffer.Prior, got {prior!r}")
        priors[name] = prior
    return priors


def _table(
    schema: Schema | None,
    data: ObservedTrials,
    subjects: Sequence[object] | np.ndarray | None,
    columns: Mapping[str, np.ndarray],
) -> pandas.DataFrame:
    """Columns (P, K) as a table with a row a trial that exists, and the data beside them where there is a schema."""
    import pandas

    exists = to_numpy(data.trial_mask).astype(bool)
    labels = np.arange(len(exists)) if subjects is None else np.asarray(subjects)
    person, trial = np.nonzero(exists)
    table: dict[str, np.ndarray] = {"subject": labels[person], "trial": trial + 1}
    if schema is not None:
        outcomes = split_value(schema, to_numpy(data.value))
        for group in (data.inputs, outcomes, data.feedback):
            for name, values in group.items():
                table.setdefault(name, np.broadcast_to(to_numpy(values), exists.shape)[exists])
    return pandas.DataFrame({**table, **{name: np.asarray(x)[exists] for name, x in columns.items()}})
