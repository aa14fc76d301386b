"""Scores by refits: what is left out is predicted by a posterior that never saw it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import logsumexp
from tqdm.auto import tqdm

from ppl_buffer.arviz import terms
from ppl_buffer.checks import check_integer, check_mapping, check_number, check_numbers, check_seed
from ppl_buffer.files import to_numpy
from ppl_buffer.formulas.build import RATE
from ppl_buffer.inference.chunks import map_chunks
from ppl_buffer.inference.draws import by_variation
from ppl_buffer.inference.population import checked_bounds, estimated_rate, population_evidence
from ppl_buffer.inference.trialwise import subject_count
from ppl_buffer.network.backend import Array
from ppl_buffer.network.lapses import Lapse, checked_lapse
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.predictive import density
from ppl_buffer.predictive.program import in_one_program
from ppl_buffer.predictive.query import Query
from ppl_buffer.schema import split_value
from ppl_buffer.scores.score import Score

# Draws of a population's means and spreads, and of what varies within people, or of all parameters.
Population = tuple[Mapping[str, Array], ...]
Refitted = Mapping[str, Array] | Population
# Trials that are scored at once.
_TRIALS_AT_ONCE = 200_000


def kfold(
    net: Network,
    data: ObservedTrials,
    refit: Callable[[np.ndarray], Population],
    *,
    folds: int = 10,
    draws: int = 1000,
    subjects: Sequence[object] | np.ndarray | None = None,
    lapse: Array | Lapse | None = None,
    below: Mapping[str, Array] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Score:
    """Score of all trials of a person, from a population fitted to the people of the other folds.

    Args:
        net: a network.
        data: what ``net.observe(...)`` returned; one batch dimension, the people.
        refit: fits the people at indices (n,), such as ``data[indices]``, and returns posterior draws of the
            population's means and spreads, dicts parameter -> (S,), of what ``net.into_box(name, x, below=data)`` maps,
            or (S, people left out) where formulas say another of each, in the order of
            ``numpy.setdiff1d(numpy.arange(people), indices)``; where the rate of lapses has a prior also of "lapse", on
            the scale on which that prior is standard normal. They are the sites NAME_mean and NAME_spread of
            `ppl_buffer.workflow.fit`; in place of the former, by formulas, NAME_Intercept plus coefficients times a
            person's columns. Where a parameter varies within people, by conditions or items that all have, a third
            dict of what is added on each trial, parameter -> (S, people left out, K).
        folds: groups of people, each of which is left out once.
        draws: that people's parameters are integrated with.
        subjects: labels of the people; by default numbers from 0.
        lapse: the lapses that were fitted: a rate, a number or (people,), or a `ppl_buffer.Lapse`, such as
            ``fit.lapse``, whose rate may have a prior.
        below: parameter -> (people,), what it stays below, such as ``fit.box.ceilings``; by default each person's
            fastest response (all outcomes that lie above it), which lapses need not respect.
        seed: of the folds and of the draws.
        progress: show a bar.

    Raises:
        ValueError: if there are fewer people than folds, `refit` returns other draws, or another argument is wrong.
    """
    import xarray

    size, seed = subject_count(net, data, subjects), check_seed(seed)
    lapses, bounds = _checked_lapses(net, lapse, size), None if below is None else checked_bounds(net, below, size)
    if not 2 <= check_integer("folds", folds) <= size:
        raise ValueError(f"folds: expected 2 to {size}, the number of people, got {folds}")
    fold, elpd = np.random.default_rng(seed).permutation(np.arange(size) % folds), np.empty(size)
    for index in tqdm(range(folds), disable=not progress, desc="fit without a fold", unit="fold"):
        population, left_out = refit(np.flatnonzero(fold != index)), np.flatnonzero(fold == index)
        elpd[left_out] = _of_people(net, data, population, left_out, lapses, bounds, draws, seed)
    labels = list(range(size) if subjects is None else subjects)
    return Score("kfold", xarray.DataArray(elpd, dims="subject", coords={"subject": labels}))


def reloo(
    score: Score,
    net: Network,
    data: ObservedTrials,
    refit: Callable[[np.ndarray], Refitted],
    *,
    threshold: float | None = None,
    draws: int = 1000,
    lapse: Array | Lapse | None = None,
    below: Mapping[str, Array] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Score:
    """The same score with exact terms where importance sampling failed: each of those is left out of a fit of its own.

    Args:
        score: a "loo" of a model whose trials are independent, given the parameters, or a "logo"; such as
            ``fit.scores["loo"]`` or what `loo` and `logo` return.
        net: the network.
        data: what ``net.observe(...)`` returned of all trials; one batch dimension, the people.
        refit: of "loo", fits the trials where a mask (people, K) is true (``net.observe(..., trial_mask=keep)``), and
            returns posterior draws of all parameters in natural units, dict name -> (S,), (S, people), or (S, people,
            K) of those that vary by trial; and of "lapse" where the rate of lapses has a prior. Of "logo", what
            `kfold` takes: it fits the people at indices (n,), and returns draws of the population's means and spreads,
            (S,), or (S, 1) of the person left out, and where parameters vary within people of what is added, (S, 1,
            K).
        threshold: of Pareto k, above which a term is replaced; by default `Score.threshold`, at most 0.7.
        draws: of "logo", that people's parameters are integrated with.
        lapse: the lapses that were fitted, as in `kfold`.
        below: of "logo", as in `kfold`; of "loo" the fit without a trial says what parameters stay below.
        seed: of these draws.
        progress: show a bar.

    Returns:
        the score, Pareto k 0 in the terms that were replaced, and `Score.refitted` of them in all.

    Raises:
        ValueError: if the score is of another kind, its terms are not those of the data, or `refit` returns other
            draws.
    """
    size, seed = subject_count(net, data, None), check_seed(seed)
    kinds = ("loo", "logo") if net.schema.independent else ("logo",)
    if not isinstance(score, Score) or score.kind not in kinds or score.pareto_k is None:
        got = f"one of kind {score.kind!r}" if isinstance(score, Score) else type(score).__name__
        raise ValueError(f"score: expected a Score by importance sampling, of kind {' or '.join(map(repr, kinds))} "
                         f"of this model, got {got}")  # fmt: skip
    lapses, places = _checked_lapses(net, lapse, size), _places(score, net, data)
    bounds = None if below is None else checked_bounds(net, below, size)

    def of_trial(term: int) -> float:
        keep = np.array(to_numpy(data.trial_mask), dtype=bool)
        subject, trial = np.argwhere(keep)[places[term]]
        keep[subject, trial] = False
        params = _checked_draws([*net.schema.params, *estimated_rate(net, lapses)], refit(keep), keep.shape)
        each = _conditionals(net, data[np.array([subject])], params, subject, _lapses_of(lapses, np.array([subject])))
        return float(logsumexp(each[:, trial]) - np.log(len(each)))

    def of_person(term: int) -> float:
        left_out = np.array([places[term]])
        population = refit(np.delete(np.arange(size), left_out))
        return float(_of_people(net, data, population, left_out, lapses, bounds, draws, seed)[0])

    return replace_terms(score, of_trial if score.kind == "loo" else of_person, threshold, progress)


def _of_people(
    net: Network,
    data: ObservedTrials,
    population: Refitted,
    left_out: np.ndarray,
    lapse: Lapse | None,
    bounds: Mapping[str, np.ndarray] | None,
    draws: int,
    seed: int,
) -> np.ndarray:
    """Log density of people's trials, (people left out,), under a population that was fitted without them.

    Raises:
        ValueError: if the population is not two or three dicts of draws.
    """
    if not isinstance(population, tuple) or len(population) not in (2, 3):
        got = f"{len(population)} of them" if isinstance(population, tuple) else type(population).__name__
        raise ValueError(
            f"refit: expected draws of means and of spreads, and where parameters vary within people of what is added "
            f"on each trial, got {got}"
        )
    means, spreads, *more = population
    evidence = population_evidence(
        net, data[left_out], means, spreads, offsets=more[0] if more else None, lapse=_lapses_of(lapse, left_out),
        below=_bounds_of(bounds, left_out), draws=draws, seed=seed,
    )  # fmt: skip
    return evidence.log_evidence


def replace_terms(score: Score, exact: Callable[[int], float], threshold: float | None, progress: bool) -> Score:
    """A score with other values of the terms whose Pareto k is too large.

    Args:
        score: with Pareto k.
        exact: index of a term, all dimensions in one -> its value.
        threshold: of Pareto k; None = that of the score.
        progress: show a bar.
    """
    assert score.pareto_k is not None
    limit = score.threshold if threshold is None else check_number("threshold", threshold, "a number", lambda x: True)
    elpd, pareto_k = (np.array(x.values, dtype=float) for x in (score.pointwise, score.pareto_k))
    # A shape that is no number is none to trust.
    terms = np.flatnonzero(~(pareto_k.reshape(-1) <= limit))
    for term in tqdm(terms, disable=not progress, desc="fit without a term", unit="fit"):
        elpd.reshape(-1)[term], pareto_k.reshape(-1)[term] = exact(int(term)), 0.0
    return replace(
        score, pointwise=score.pointwise.copy(data=elpd), pareto_k=score.pareto_k.copy(data=pareto_k),
        refitted=score.refitted + len(terms),
    )  # fmt: skip


def _places(score: Score, net: Network, data: ObservedTrials) -> np.ndarray:
    """Of each term, which trial of all that exist it is, or which person, (terms,).

    Raises:
        ValueError: if the terms are not those of the data.
    """
    exists = np.asarray(to_numpy(data.trial_mask), dtype=bool)
    values = split_value(net.schema, np.asarray(to_numpy(data.value)))
    sums = terms.checksums_of_rows(np.stack([values[name][exists] for name in sorted(values)], -1))
    if score.kind == "logo":
        row = np.nonzero(exists)[0]
        sums = np.stack([sums[row == subject].sum(dtype=sums.dtype) for subject in range(len(exists))])
    if score.pointwise.size != len(sums):
        sessions = score.kind == "logo" and score.pointwise.size < len(sums)
        why = (
            "; a person who did several data sets (sessions) is one term, and means and spreads of a population do not "
            "tell it: score data sets, or leave high Pareto k as it is"
        )
        raise ValueError(
            f"data: expected those of the score, {score.pointwise.size} terms, got {len(sums)}{why * sessions}"
        )
    if "outcomes" not in score.pointwise.coords:
        return np.arange(len(sums))
    theirs = score.pointwise.coords["outcomes"].values.reshape(-1).astype(sums.dtype)
    # People may come in the order of their labels; those whose trials are the same stay in the data's.
    ours, other = np.argsort(sums, kind="stable"), np.argsort(theirs, kind="stable")
    places = np.empty(len(sums), dtype=int)
    places[other] = ours
    if (score.kind == "loo" and not np.array_equal(theirs, sums)) or not np.array_equal(theirs, sums[places]):
        raise ValueError("data: expected those of the score, of the same people and trials, got other outcomes")
    return np.arange(len(sums)) if score.kind == "loo" else places


def _checked_draws(names: Sequence[str], given: Refitted, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Draws of all parameters, and of the rate of lapses where it is one of the names: (S, people) or (S, people, K).

    Raises:
        ValueError: if one is missing, or has another shape.
    """
    if isinstance(given, tuple):
        raise ValueError(f"refit: expected a dict of draws, got a tuple of {len(given)}")
    columns = {name: check_numbers(f"refit: {name!r}", x) for name, x in check_mapping("refit", given).items()}
    missing = [name for name in names if name not in columns]
    if missing:
        raise ValueError(f"refit: expected draws of {list(names)}, but {missing} are missing")
    first = columns[names[0]]
    count = len(first) if first.ndim else 0
    params = {}
    for name in names:
        x = columns[name]
        if not count or x.shape not in ((count,), (count, *shape[:1]), (count, *shape)):
            raise ValueError(
                f"refit: expected {name!r} of shape (draws,), (draws, {shape[0]}) or (draws, {shape[0]}, {shape[1]}), "
                f"as many draws of all, got {x.shape}"
            )
        params[name] = np.broadcast_to(x[:, None], (count, shape[0])) if x.ndim == 1 else x
    return params


def _conditionals(
    net: Network, person: ObservedTrials, params: Mapping[str, np.ndarray], subject: int, lapse: Lapse | None
) -> np.ndarray:
    """Log density (S, K) of a person's trials at draws (S, people) or (S, people, K) of everybody's parameters."""
    own = {name: x[:, [subject]].astype(np.float32) for name, x in params.items()}

    def of_chunk(indices: np.ndarray) -> np.ndarray:
        part = {name: x[indices] for name, x in own.items()}
        there = lapse if lapse is None or lapse.prior is None else lapse.at(part.pop(RATE))
        stays, varies = by_variation(part)
        query = Query.build(net, person, params=stays, trial_params=varies, lapse=there, outside="ignore", expand=False)
        made = in_one_program(density.conditionals, query, person.value, reuse=query.matches(person.value))
        return np.asarray(to_numpy(made), dtype=float)[:, 0]

    count = len(next(iter(own.values())))
    return map_chunks(of_chunk, count, min(count, max(1, _TRIALS_AT_ONCE // person.trials)))


def _checked_lapses(net: Network, lapse: Array | Lapse | None, size: int) -> Lapse | None:
    """Lapses whose rate is known, or has a prior.

    Raises:
        ValueError: if it is no rate, or the model has a parameter of the name of one that is estimated.
    """
    given = Lapse.of(lapse)
    estimated_rate(net, given)
    return None if given is None else checked_lapse(net, given, (size,))


def _lapses_of(lapse: Lapse | None, indices: np.ndarray) -> Lapse | None:
    """Those of some people."""
    rate = None if lapse is None or lapse.prior is not None else to_numpy(lapse.rate)
    return lapse if lapse is None or rate is None or rate.ndim == 0 else lapse.at(rate[indices])


def _bounds_of(bounds: Mapping[str, np.ndarray] | None, indices: np.ndarray) -> dict[str, np.ndarray] | None:
    """Those of some people."""
    return None if bounds is None else {name: x[indices] for name, x in bounds.items()}
