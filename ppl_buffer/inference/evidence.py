"""Model evidence from a trained network. Works with networks of either backend.

Two estimators of log p(y | model) from one network. *Autoregressive*: conditioned on no parameter, the network's joint
density is the evidence itself (Hassan et al. 2026, arXiv 2510.09477, equation 5), averaged over orders of the trials
where they are exchangeable. *Importance*: the likelihood, given all parameters, integrated over the prior. On data like
those that the model generates they agree. Where people depart from the model, the first has to predict from a past that
it never saw in training, while the likelihood of a trial given parameters stays a function that it knows: trust the
second, and read the difference as a sign that the data lie outside the model. A network that was trained on such data
as well, by distillation, may agree with itself all the same: agreement says that the number is right, not that the
model fits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ppl_buffer.checks import check_choice, check_integer, check_mapping, check_seed
from ppl_buffer.extras import needs
from ppl_buffer.files import to_numpy
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.inference.chunks import map_chunks
from ppl_buffer.inference.importance import draws_a_round, importance_weights
from ppl_buffer.inference.normal_scores import NormalScores
from ppl_buffer.inference.ties import split_ties
from ppl_buffer.inference.trial_arguments import TrialArguments
from ppl_buffer.network.arguments import (
    as_floating,
    check_outcomes,
    check_params,
    check_value_shape,
    require_buffer,
    require_likelihood,
    trials_of_value,
)
from ppl_buffer.network.backend import Array, backend_of
from ppl_buffer.network.lapses import Lapse, checked_lapse, may_be_lapses
from ppl_buffer.network.missing import Missing, check_events
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials, observe_trials
from ppl_buffer.predictive import density
from ppl_buffer.predictive.program import in_one_program
from ppl_buffer.predictive.query import Query
from ppl_buffer.prior import Prior
from ppl_buffer.schema import split_value

METHODS = ("autoregressive", "importance")
# No parameter can be called so: names are identifiers.
_LAPSE = "probability of a lapse"
# Orders of the trials, and trials under parameter draws, that are computed at once.
_ORDERS_AT_ONCE = 16
_TRIALS_AT_ONCE = 200_000
# Below this effective number of draws the standard error itself cannot be trusted.
_FEWEST_EFFECTIVE = 100.0


@dataclass(frozen=True)
class Evidence:
    """Log evidence of data sets, natural logarithm.

    Attributes:
        log_evidence: (*B,).
        standard_error: (*B,), Monte-Carlo standard error of `log_evidence`, from the spread over orders or draws; 0
            where there is one order and nothing is left to chance, infinite where every term rules the data out.
        terms: (R, *B), logarithms whose mean exponential is the evidence: joint log densities by order, or importance
            weights by draw.
        method: "autoregressive" or "importance".
    """

    log_evidence: np.ndarray
    standard_error: np.ndarray
    terms: np.ndarray
    method: str

    @classmethod
    def of_terms(cls, terms: np.ndarray, method: str) -> Evidence:
        """The logarithm of the mean exponential of terms (R, *B)."""
        count = len(terms)
        top = terms.max(0)
        weight = np.exp(terms - np.where(np.isfinite(top), top, 0.0))
        mean = weight.mean(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            estimate = top + np.log(mean)
            # Of the logarithm of a mean, by the delta method.
            error = np.where(count > 1, weight.std(0, ddof=min(1, count - 1)) / (mean * np.sqrt(count)), 0.0)
            error = np.where(np.isneginf(top) & (count > 1), np.inf, error)
        return cls(estimate, error, terms, method)

    @property
    def effective_sample_size(self) -> np.ndarray:
        """(*B,), how many equal terms would have the same standard error; 0 where every term rules the data out."""
        top = self.terms.max(0)
        weight = np.exp(self.terms - np.where(np.isfinite(top), top, 0.0))
        return weight.sum(0) ** 2 / np.maximum((weight**2).sum(0), 1e-300)

    @property
    def findings(self) -> list[Finding]:
        """What a user should know of the estimates: importance draws that are worth too little."""
        if self.method != "importance" or not (self.effective_sample_size < _FEWEST_EFFECTIVE).any():
            return []
        text = (
            f"log_evidence: the importance draws are worth only {self.effective_sample_size.min():.0f} independent "
            f"ones for some data sets; raise draws, and read standard_error as a lower bound"
        )
        return [Finding("sampling", text)]

    def running(self) -> np.ndarray:
        """(R, *B), the estimate from the first 1, 2, ..., R terms."""
        counts = np.arange(1, len(self.terms) + 1).reshape(-1, *(1,) * (self.terms.ndim - 1))
        return np.logaddexp.accumulate(self.terms, axis=0) - np.log(counts)

    def plot(self, axes: Any = None) -> Any:
        """Draw the estimate of each data set against the number of orders or draws: it should have settled.

        Args:
            axes: matplotlib axes to draw on; by default a new figure's, made without pyplot.

        Returns:
            the axes.
        """
        if axes is None:
            with needs("Evidence.plot", "arviz"):
                from matplotlib.figure import Figure
            axes = Figure(figsize=(6, 4), layout="constrained").add_subplot()
        running = self.running().reshape(len(self.terms), -1)
        error = self.standard_error.reshape(-1)
        count = np.arange(1, len(running) + 1)
        for index in range(running.shape[1]):
            (line,) = axes.plot(count, running[:, index] - running[-1, index], linewidth=1)
            axes.fill_between(count[[0, -1]], -error[index], error[index], color=line.get_color(), alpha=0.1, lw=0)
        axes.axhline(0.0, color="0.5", linewidth=0.8)
        axes.set_xscale("log")
        unit = "orders" if self.method == "autoregressive" else "draws"
        axes.set(xlabel=f"number of {unit}", ylabel="log evidence minus its final estimate (nats)")
        return axes


def log_evidence(
    net: Network,
    inputs: Mapping[str, Array] | ObservedTrials,
    value: Array,
    *,
    params: Mapping[str, Array | str] | None = None,
    feedback: Mapping[str, Array] | None = None,
    trial_mask: Array | None = None,
    missing: Missing | None = None,
    method: str = "importance",
    orders: int = 128,
    block: int | None = None,
    draws: int = 2000,
    prior: Mapping[str, Prior] | None = None,
    lapse: Array | Lapse | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Evidence:
    """Log evidence log p(value | model): the parameters that are not given are integrated over their prior.

    Args:
        net: a trained network of either backend.
        inputs: dict name -> (*B, K), {} where the schema has none; or what ``net.observe(...)`` returned, whose
            inputs, feedback, trial mask and (for the autoregressive method) context then count.
        value: outcomes, (*B, K) or (*B, K, n_outcomes).
        params: parameters to condition on, dict name -> (*B,): the evidence of a model in which they have these values.
            For the importance method also the name of another parameter, which it equals: of one learning rate in place
            of two, whose prior is that other's.
        feedback: dict name -> (*B, K).
        trial_mask: (*B, K) bool; False = no such trial.
        missing: a `ppl_buffer.Missing`, where outcomes may be missing; the autoregressive method knows none unless all
            parameters are given.
        method: "importance", the one to trust, or "autoregressive", which needs no draws of parameters; see this
            module's docstring.
        orders: random orders of the trials that the autoregressive method averages over. An ordered model's trials
            have one order: there it is not used.
        block: merge realised trials into the context after every `block` of them; None = all trials in one buffer.
            Autoregressive method, exchangeable models only.
        draws: parameter draws of the importance method.
        prior: parameter -> prior, for the importance method; by default those that the network was trained with. The
            autoregressive method knows only these.
        lapse: probability (*B,) that a trial is a lapse; or a `ppl_buffer.Lapse`, which states what a lapse looks like
            and whose rate may have a prior, over which it is integrated. The autoregressive method, whose network has
            learned from a past without them, takes lapses only where all parameters are given.
        seed: of the orders or draws.
        progress: show a progress bar.

    Returns:
        the estimates, with their Monte-Carlo standard errors.

    Raises:
        ValueError: if the method is unknown, or autoregressive and the network has no buffered transformer, all
            parameters are given to the importance method, no prior is known of one that is not, lapses are given to
            the autoregressive method, or the data do not fit the network.
    """
    backend_of(net)
    require_likelihood(net.record)
    check_choice("method", method, METHODS)
    orders, draws, seed = check_integer("orders", orders), check_integer("draws", draws), check_seed(seed)
    data = TrialArguments.of(inputs, value, feedback, trial_mask, missing)
    conditioned, ties = split_ties(net, params)
    if method == "autoregressive":
        if ties:
            raise ValueError(f"params: expected numbers for the autoregressive method, got the names {ties}")
        if prior is not None:
            raise ValueError(
                "prior: expected None for the autoregressive method, in whose network the training prior is fixed; use "
                "method='importance'"
            )
        if len(conditioned) < len(net.schema.params):
            require_buffer(net, "method: expected 'importance'")
        lapses = _checked_lapse(net, lapse, conditioned)
        terms = _densities_by_order(net, data, conditioned, orders, block, lapses, seed, progress)
    else:
        if block is not None:
            raise ValueError("block: expected None for the importance method, which needs no order of the trials")
        terms = _weights_by_draw(net, data, conditioned, ties, prior, draws, lapse, seed, progress)
    evidence = Evidence.of_terms(terms, method)
    for finding in evidence.findings:
        warn_of(finding)
    return evidence


def _densities_by_order(
    net: Network,
    data: TrialArguments,
    conditioned: Mapping[str, Array],
    orders: int,
    block: int | None,
    lapse: Lapse | None,
    seed: int,
    progress: bool,
) -> np.ndarray:
    """Joint log density of the trials under each of some random orders: (orders, *B)."""
    value = as_floating(net, "value", data.value)
    trials = trials_of_value(net, value)

    query = Query.build(
        net, data.inputs, trials=trials, params=conditioned, context=data.context, feedback=data.feedback,
        trial_mask=data.trial_mask, missing=data.missing, block=block, lapse=lapse, expand=False,
    )  # fmt: skip
    check_value_shape(value, query.event_shape)
    if query.missing is None:
        check_outcomes(net, value, data.trial_mask)
    else:
        check_events(net, value, query.trial_mask, query.missing, query.deadline, query.feedback)
    if net.schema.ordered or (net.schema.independent and len(conditioned) == len(net.schema.params)):
        return _numpy(in_one_program(density.log_prob, query, value, reuse=False))[None]
    rng = np.random.default_rng(seed)
    permutations = np.stack([rng.permutation(trials) for _ in range(orders)])

    def of_chunk(indices: np.ndarray) -> np.ndarray:
        return _numpy(in_one_program(density.log_prob_by_order, query, value, permutations[indices]))

    at_once = math.ceil(orders / math.ceil(orders / _ORDERS_AT_ONCE))
    with tqdm(total=orders, disable=not progress, unit="order", desc="log evidence") as bar:
        return map_chunks(of_chunk, orders, at_once, bar.update)


def _weights_by_draw(
    net: Network,
    data: TrialArguments,
    conditioned: Mapping[str, Array],
    ties: Mapping[str, str],
    prior: Mapping[str, Prior] | None,
    draws: int,
    lapse: Array | Lapse | None,
    seed: int,
    progress: bool,
) -> np.ndarray:
    """Log importance weights of parameter draws: (draws, *B)."""
    names = [name for name in net.schema.params if name not in conditioned and name not in ties]
    lapses = Lapse.of(lapse)
    rate_prior = None if lapses is None else lapses.prior
    if not names and rate_prior is None:
        raise ValueError(
            "params: expected at least one parameter to integrate over, but all are given; use method='autoregressive'"
        )
    if data.context is not None:
        raise ValueError(
            "inputs: expected trials observed without a context for the importance method, which has no draws of the "
            "parameters given one; use method='autoregressive'"
        )
    priors = _priors(net, prior, names)
    if rate_prior is not None:
        priors[_LAPSE] = rate_prior
    scale = NormalScores(priors)
    check_params(net, conditioned, check=True)
    known = {name: to_numpy(value) for name, value in conditioned.items()}
    observed = observe_trials(
        net, data.inputs, data.value, feedback=data.feedback, trial_mask=data.trial_mask, context=None,
        missing=data.missing, purpose="likelihood",
    )  # fmt: skip
    batch = observed.batch_shape
    size = math.prod(batch)
    # A round's draws in chunks of one size.
    count = draws_a_round(len(priors))
    at_once = math.ceil(count / math.ceil(count * size * observed.trials / _TRIALS_AT_ONCE))
    lapses = checked_lapse(net, lapses, batch)
    below = _below_outcomes(net, priors, data, batch, lapses)
    bar = tqdm(disable=not progress, unit="draw", desc="log evidence")

    def log_likelihood(scores: np.ndarray) -> np.ndarray:
        """(n, size) of parameters given as scores (n, size, P), under which the prior is standard normal."""

        def of_chunk(indices: np.ndarray) -> np.ndarray:
            params = {**conditioned, **scale.params(scores[indices], batch, known, below)}
            params |= {name: params[other] for name, other in ties.items()}
            rate = params.pop(_LAPSE, None)
            there = lapses if lapses is None or rate is None else lapses.at(rate)
            query = Query.build(net, observed, params=params, lapse=there, outside="ignore", check=False, expand=False)
            total = _numpy(in_one_program(density.log_prob, query, observed.value, reuse=True)).reshape(at_once, size)
            return np.where(np.isnan(total), -np.inf, total)

        return map_chunks(of_chunk, len(scores), at_once, bar.update)

    with bar:
        weights = importance_weights(log_likelihood, size, len(priors), draws, np.random.default_rng(seed))
    with np.errstate(divide="ignore"):
        weights = weights + sum(np.log(probability) for probability in below.values())
    return weights.reshape(draws, *batch)


def _below_outcomes(
    net: Network, priors: Mapping[str, Prior], data: TrialArguments, batch: tuple[int, ...], lapse: Lapse | None
) -> dict[str, np.ndarray]:
    """Prior probability (size,) that a parameter lies below all the outcomes that must exceed it, by parameter.

    An outcome that may be a lapse need not exceed it. Elsewhere the likelihood is 0. Few draws of the whole prior would
    count, and a proposal fitted to them may end on a single one; so the integral is taken over this part.
    """
    probabilities: dict[str, np.ndarray] = {}
    exists = True if data.trial_mask is None else to_numpy(data.trial_mask).astype(bool)
    for outcome, name in net.schema.lower_bounds.items():
        if name in priors and priors[name].relative_to is None:
            observed = to_numpy(split_value(net.schema, data.value)[outcome])
            # A time that was lost, or did not come, bounds nothing.
            observed = np.where(np.isfinite(observed), observed, np.inf)
            bounding = exists & ~may_be_lapses(net.schema, outcome, observed, lapse)
            least = np.where(bounding, observed, np.inf).min(-1)
            probabilities[name] = np.minimum(
                priors[name].cdf(np.broadcast_to(least, batch).reshape(-1)), probabilities.get(name, 1.0)
            )
    return probabilities


def _checked_lapse(net: Network, lapse: Array | Lapse | None, conditioned: Mapping[str, Array]) -> Lapse | None:
    """Lapses that the autoregressive method can compute with.

    Raises:
        ValueError: if a parameter is hidden, or the rate.
    """
    lapses = Lapse.of(lapse)
    if lapses is not None and (lapses.prior is not None or len(conditioned) < len(net.schema.params)):
        raise ValueError(
            "lapse: expected None for the autoregressive method, whose network infers parameters from a past without "
            "lapses; use method='importance'"
        )
    return lapses


def _priors(net: Network, given: Mapping[str, Prior] | None, names: Sequence[str]) -> dict[str, Prior]:
    """The prior of each parameter that is integrated over."""
    given = check_mapping("prior", given)
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ValueError(f"prior: expected parameters that are integrated over, {list(names)}, got {unknown}")
    stated = {} if net.record is None else net.record.priors
    priors: dict[str, Prior] = {}
    for name in names:
        prior = given.get(name, stated.get(name))
        if prior is None:
            raise ValueError(
                f"prior: expected a prior of {name!r}, of which the network's record knows none: give "
                f"prior={{{name!r}: ppl_buffer.Prior(...)}}, or state `priors` in the simulator and train on for a "
                "minute, which writes them into the record"
            )
        priors[name] = _checked_prior(name, prior)
    return priors


def _checked_prior(name: str, prior: object) -> Prior:
    if not isinstance(prior, Prior):
        raise ValueError(f"prior[{name!r}]: expected a ppl_buffer.Prior, got {type(prior).__name__}")
    return prior


def _numpy(array: Any) -> np.ndarray:
    return np.asarray(to_numpy(array), dtype=float)
