"""Model evidence from a trained network, and comparison of models by it. Works with networks of either backend.

Two estimators of log p(y | model) from one network. *Autoregressive*: with no parameter told the network's joint
density is the evidence itself (paper, equation 5), averaged over orders of the trials where they are exchangeable.
*Importance*: the likelihood, all parameters told, integrated over the prior. On data like those that the model
generates they agree. Where people depart from the model, the first has to predict from a past that it never saw in
training, while the likelihood of a trial given parameters stays a function that it knows: trust the second, and read
the difference as a sign that the data lie outside the model. A network that was trained on such data as well, as
lessons, may agree with itself all the same: agreement says that the number is right, not that the model fits.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from ppl_buffer.files import to_numpy
from ppl_buffer.network.arguments import as_floating
from ppl_buffer.network.backend import backend_of
from ppl_buffer.predictive import Predictive
from ppl_buffer.prior import Prior
from ppl_buffer.schema import split_value

if TYPE_CHECKING:
    import pandas

METHODS = ("autoregressive", "importance")
# Orders of the trials, and trials under parameter draws, that are computed at once.
_ORDERS_AT_ONCE = 16
_TRIALS_AT_ONCE = 200_000
# The proposal of importance sampling: degrees of freedom of its Student t, and the share of draws that come from the
# prior instead, so that no region of the prior can have an unbounded weight.
_FREEDOM = 5.0
_DEFENSE = 0.1
# While the proposal is being fitted: draws of a round for each parameter (at least five parameters' worth), the share
# of as many draws that must count under the tempered likelihood, and how many of the last rounds' draws are used.
_DRAWS_A_ROUND = 20
_EFFECTIVE_SHARE = 0.3
_ROUNDS_KEPT = 6
_MOST_ROUNDS = 40
# Below this effective number of draws the standard error itself cannot be trusted.
_FEWEST_EFFECTIVE = 100.0
# In the tails of the prior that this leaves out no float32 parameter can be told from the edge of its range.
_TAIL = 1e-6
# Nats by which the two estimators may differ beyond their Monte-Carlo errors: the networks have errors of their own.
_DISAGREEMENT = 3.0


@dataclass(frozen=True)
class Evidence:
    """Log evidence of data sets, natural logarithm.

    Attributes:
        log_evidence: (*B,).
        standard_error: (*B,), Monte-Carlo standard error of `log_evidence`, from the spread over orders or draws; 0
            where there is one order and nothing is left to chance.
        terms: (R, *B), logarithms whose mean exponential is the evidence: joint log densities by order, or importance
            weights by draw.
        method: "autoregressive" or "importance".
    """

    log_evidence: np.ndarray
    standard_error: np.ndarray
    terms: np.ndarray
    method: str

    @property
    def effective_sample_size(self) -> np.ndarray:
        """(*B,), how many equal terms would have the same standard error."""
        weight = np.exp(self.terms - self.terms.max(0))
        return weight.sum(0) ** 2 / (weight**2).sum(0)

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
    net: Any,
    inputs: Mapping[str, Any],
    value: Any,
    *,
    params: Mapping[str, Any] | None = None,
    feedback: Mapping[str, Any] | None = None,
    trial_mask: Any = None,
    method: str = "autoregressive",
    orders: int = 128,
    block: int | None = None,
    draws: int = 2000,
    prior: Mapping[str, Prior] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Evidence:
    """Log evidence log p(value | model): the parameters that are not told are integrated over their prior.

    Args:
        net: a trained network of either backend.
        inputs: dict name -> (*B, K); {} where the schema has none.
        value: outcomes, (*B, K) or (*B, K, n_outcomes).
        params: parameters to tell, dict name -> (*B,): the evidence of a model in which they have these values.
        feedback: dict name -> (*B, K).
        trial_mask: (*B, K) bool; False = no such trial.
        method: "autoregressive" or "importance"; see this module's docstring.
        orders: random orders of the trials that the autoregressive method averages over. An ordered model's trials
            have one order: there it is not used.
        block: merge realised trials into the context after every `block` of them; None = all trials in one buffer.
            Autoregressive method, exchangeable models only.
        draws: parameter draws of the importance method.
        prior: parameter -> prior, for the importance method; by default those that the network was trained with. The
            autoregressive method knows only these.
        seed: of the orders or draws.
        progress: show a progress bar.

    Returns:
        the estimates, with their Monte-Carlo standard errors.

    Raises:
        ValueError: if the method is unknown, all parameters are told to the importance method, no prior is known of
            one that is not, or the data do not fit the network.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {list(METHODS)}, got {method!r}")
    for name, number in (("orders", orders), ("draws", draws)):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
            raise ValueError(f"{name}: expected an integer of at least 1, got {number!r}")
    conditioned = dict(params or {})
    if method == "autoregressive":
        if prior is not None:
            raise ValueError(
                "prior: expected None for the autoregressive method, in whose network the training prior is fixed; use "
                "method='importance'"
            )
        terms = _by_order(net, inputs, value, conditioned, feedback, trial_mask, int(orders), block, seed, progress)
    else:
        if block is not None:
            raise ValueError("block: expected None for the importance method, which needs no order of the trials")
        terms = _by_draw(net, inputs, value, conditioned, feedback, trial_mask, prior, int(draws), seed, progress)
    return _summarize(terms, method)


def _summarize(terms: np.ndarray, method: str) -> Evidence:
    count = len(terms)
    top = terms.max(0)
    weight = np.exp(terms - np.where(np.isfinite(top), top, 0.0))
    mean = weight.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = top + np.log(mean)
        # Of the logarithm of a mean, by the delta method.
        error = np.where(count > 1, weight.std(0, ddof=min(1, count - 1)) / (mean * np.sqrt(count)), 0.0)
    evidence = Evidence(estimate, error, terms, method)
    if method == "importance" and (evidence.effective_sample_size < _FEWEST_EFFECTIVE).any():
        warnings.warn(
            f"log_evidence: the importance draws are worth only {evidence.effective_sample_size.min():.0f} independent "
            f"ones for some data sets; raise draws, and read standard_error as a lower bound",
            stacklevel=3,
        )
    return evidence


def _by_order(
    net: Any,
    inputs: Mapping[str, Any],
    value: Any,
    conditioned: Mapping[str, Any],
    feedback: Any,
    trial_mask: Any,
    orders: int,
    block: int | None,
    seed: int,
    progress: bool,
) -> np.ndarray:
    """Joint log density of the trials under each of some random orders: (orders, *B)."""
    joint = backend_of(net)
    value = as_floating(joint, net, "value", value)
    trials = value.shape[-1 - len(net.schema.event_shape_tail)]

    def make(**more: Any) -> Predictive:
        return Predictive(
            net,
            inputs,
            trials=trials,
            params=conditioned,
            feedback=feedback,
            trial_mask=trial_mask,
            block=block,
            **more,
        )

    if net.schema.ordered or (net.schema.independent and len(conditioned) == len(net.schema.params)):
        return _numpy(make().joint_log_prob(value))[None]
    rng = np.random.default_rng(seed)
    permutations = np.stack([rng.permutation(trials) for _ in range(orders)])
    chunks = []
    with tqdm(total=orders, disable=not progress, unit="order", desc="log evidence") as bar:
        for start in range(0, orders, _ORDERS_AT_ONCE):
            chunk = permutations[start : start + _ORDERS_AT_ONCE]
            chunks.append(_numpy(make(orders=chunk).log_prob_by_order(value)))
            bar.update(len(chunk))
    return np.concatenate(chunks)


def _by_draw(
    net: Any,
    inputs: Mapping[str, Any],
    value: Any,
    conditioned: Mapping[str, Any],
    feedback: Any,
    trial_mask: Any,
    prior: Mapping[str, Prior] | None,
    draws: int,
    seed: int,
    progress: bool,
) -> np.ndarray:
    """Log importance weights of parameter draws: (draws, *B)."""
    names = [name for name in net.schema.params if name not in conditioned]
    if not names:
        raise ValueError("params: expected at least one parameter to integrate over, but all are told")
    priors = _priors(net, prior, names)
    known = {name: to_numpy(value) for name, value in conditioned.items()}
    data = net.observe(inputs, value, feedback=feedback, trial_mask=trial_mask)
    batch = data.batch_shape
    size = int(np.prod(batch, dtype=int))
    # A round's draws in pieces of one size.
    count = draws_a_round(len(names))
    at_once = math.ceil(count / math.ceil(count * size * data.trials / _TRIALS_AT_ONCE))
    below = _below_outcomes(net, priors, value, trial_mask, size)
    rng = np.random.default_rng(seed)
    bar = tqdm(disable=not progress, unit="draw", desc="log evidence")

    def log_likelihood(normal: np.ndarray) -> np.ndarray:
        """(n, size) of parameters given as scores (n, size, P), under which the prior is standard normal."""
        pieces = []
        for start in range(0, len(normal), at_once):
            piece = normal[start : start + at_once]
            # The last piece is filled up, so that one compiled program serves all.
            missing = at_once - len(piece)
            full = np.concatenate([piece, np.repeat(piece[-1:], missing, 0)])
            chosen = from_scores(priors, full, batch, known, below)
            predictive = Predictive(net, data, params={**conditioned, **chosen}, outside="ignore", check=False)
            total = _numpy(predictive.joint_log_prob(data.value)).reshape(len(full), size)[: len(piece)]
            pieces.append(np.where(np.isnan(total), -np.inf, total))
            bar.update(len(piece))
        return np.concatenate(pieces)

    with bar:
        weights = importance_weights(log_likelihood, size, len(names), draws, rng)
    with np.errstate(divide="ignore"):
        weights = weights + sum(np.log(probability) for probability in below.values())
    return weights.reshape(draws, *batch)


def from_scores(
    priors: Mapping[str, Prior],
    scores: np.ndarray,
    batch: tuple[int, ...],
    known: Mapping[str, np.ndarray] | None = None,
    below: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Parameters (n, *batch) at scores (n, size, P), under which their prior is standard normal.

    Args:
        priors: of the parameters, in the order of the scores.
        scores: (n, size, P).
        batch: shape of `size` data sets.
        known: parameters that a prior may be relative to, beside those of `priors`: name -> (*batch).
        below: name -> (size,), the lower part of its prior that the scores range over, a probability.
    """
    from scipy.special import ndtr

    chosen: dict[str, np.ndarray] = {}
    for index, (name, prior) in enumerate(priors.items()):
        probability = np.clip(ndtr(scores[..., index]) * (below or {}).get(name, 1.0), _TAIL, 1 - _TAIL)
        values = prior.quantile(probability).reshape(len(scores), *batch)
        if prior.relative_to is not None:
            values = values + np.asarray({**(known or {}), **chosen}[prior.relative_to])
        chosen[name] = values.astype(np.float32)
    return chosen


def _below_outcomes(
    net: Any, priors: Mapping[str, Prior], value: Any, trial_mask: Any, size: int
) -> dict[str, np.ndarray]:
    """Prior probability (size,) that a parameter lies below all the outcomes that must exceed it, by parameter.

    Elsewhere the likelihood is 0. Few draws of the whole prior would count, and a proposal fitted to them may end on a
    single one; so the integral is taken over this part.
    """
    found: dict[str, np.ndarray] = {}
    if net.schema.lapse_rate:  # then there are outcomes below as well
        return found
    for outcome, name in net.schema.lower_bounds.items():
        if name in priors and priors[name].relative_to is None:
            seen = to_numpy(split_value(net.schema, value)[outcome])
            exists = True if trial_mask is None else to_numpy(trial_mask).astype(bool)
            least = np.where(exists, seen, np.inf).min(-1).reshape(size)
            found[name] = np.minimum(priors[name].cdf(least), found.get(name, 1.0))
    return found


def _priors(net: Any, given: Mapping[str, Prior] | None, names: Sequence[str]) -> dict[str, Prior]:
    """The prior of each parameter that is integrated over."""
    known = {} if net.record is None else dict(net.record.priors)
    unknown = [name for name in given or {} if name not in names]
    if unknown:
        raise ValueError(f"prior: expected parameters that are integrated over, {list(names)}, got {unknown}")
    known.update(given or {})
    missing = [name for name in names if known.get(name) is None]
    if missing:
        raise ValueError(f"prior: expected a prior of {missing[0]!r}, of which the network's record knows none")
    return {name: known[name] for name in names}


def importance_weights(
    log_likelihood: Callable[[np.ndarray], np.ndarray], size: int, dims: int, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Log importance weights under a standard normal prior, by a proposal fitted in tempered rounds.

    Each round draws from a Student t (and, for a tenth, from the prior), tempers the likelihood until enough of the
    draws count, those of the rounds before among them, and fits the next round's location and covariance to them
    (adaptive multiple importance sampling: Cornuet, Marin, Mira & Robert 2012, Scand. J. Stat. 39, 798). The draws of
    the estimate itself, at full likelihood, come last and share none with the fit.

    Args:
        log_likelihood: scores (n, size, dims) -> (n, size).
        size: data sets, each with a proposal of its own.
        dims: parameters.
        draws: of the last round.
        rng: source of randomness.

    Returns:
        (draws, size): their mean exponential is an unbiased estimate of the evidence.
    """
    proposal = fit_proposal(log_likelihood, size, dims, rng)
    location, scale = proposal.location, proposal.scale
    points = _propose(location, scale, draws, rng)
    log_prior = _log_normal(points)
    return log_likelihood(points) + log_prior - _log_proposal(points, location, scale, log_prior)


def draws_a_round(dims: int) -> int:
    """Draws that `fit_proposal` evaluates at once."""
    return _DRAWS_A_ROUND * max(5, dims)


@dataclass
class _Round:
    """Draws of one proposal, and their log densities (n, size) under those of all rounds that are still used."""

    location: np.ndarray
    scale: np.ndarray
    points: np.ndarray
    log_prior: np.ndarray
    total: np.ndarray
    under: deque[np.ndarray]

    def log_proposal(self, location: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return _log_proposal(self.points, location, scale, self.log_prior)


@dataclass(frozen=True)
class Proposal:
    """A proposal like the posterior of each data set, and the draws that it was fitted to.

    Attributes:
        location: (size, dims).
        scale: (size, dims, dims), Cholesky factor of the covariance.
        points: (n, size, dims), draws of the rounds that were kept.
        log_ratio: (n, size), log density of the prior over that of the mixture which `points` are draws of.
    """

    location: np.ndarray
    scale: np.ndarray
    points: np.ndarray
    log_ratio: np.ndarray


def fit_proposal(
    log_likelihood: Callable[[np.ndarray], np.ndarray],
    size: int,
    dims: int,
    rng: np.random.Generator,
    *,
    draws: int | None = None,
    kept: int | None = _ROUNDS_KEPT,
) -> Proposal:
    """Fit proposals to posteriors; see `importance_weights`.

    Args:
        log_likelihood: scores (n, size, dims) -> (n, size).
        size: data sets.
        dims: parameters.
        rng: source of randomness.
        draws: of a round; `draws_a_round(dims)` by default.
        kept: of how many of the last rounds the draws are used. None = of all: a ladder from the prior to the
            posterior, which also covers the posteriors given a part of the data.
    """
    location, scale = np.zeros((size, dims)), np.broadcast_to(np.eye(dims), (size, dims, dims))
    power, settled, count = np.zeros(size), 0, draws_a_round(dims) if draws is None else draws
    rounds: deque[_Round] = deque(maxlen=kept)
    for _ in range(_MOST_ROUNDS):
        points = _propose(location, scale, count, rng)
        total = np.maximum(log_likelihood(points), -1e30)
        new = _Round(location, scale, points, _log_normal(points), total, deque(maxlen=kept))
        new.under.extend(new.log_proposal(each.location, each.scale) for each in rounds)
        rounds.append(new)
        for each in rounds:
            each.under.append(each.log_proposal(location, scale))
        # All rounds have as many draws: together they are draws of the mixture of their proposals.
        mixture = np.concatenate([np.logaddexp.reduce(list(each.under)) for each in rounds]) - np.log(len(rounds))
        log_ratio = np.concatenate([each.log_prior for each in rounds]) - mixture
        points, total = (np.concatenate([getattr(each, name) for each in rounds]) for name in ("points", "total"))
        power = _temper(total, log_ratio, power, _EFFECTIVE_SHARE * count)
        weight = normalize(power * total + log_ratio)
        location = np.einsum("nb,nbp->bp", weight, points)
        centered = points - location
        covariance = np.einsum("nb,nbp,nbq->bpq", weight, centered, centered)
        scale = np.linalg.cholesky(covariance + 1e-6 * np.eye(dims))
        settled = settled + 1 if (power == 1).all() else 0
        if settled == 2:
            break
    return Proposal(location, scale, points, log_ratio)


def _propose(location: np.ndarray, scale: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws (n, size, P) of the proposal."""
    size, dims = location.shape
    normal = rng.standard_normal((count, size, dims))
    spread = np.sqrt(_FREEDOM / rng.chisquare(_FREEDOM, (count, size, 1)))
    fitted = location + spread * np.einsum("bpq,nbq->nbp", scale, normal)
    return np.where(rng.random((count, size, 1)) < _DEFENSE, rng.standard_normal(fitted.shape), fitted)


def _log_normal(points: np.ndarray) -> np.ndarray:
    """Log density (n, size) of points (n, size, P) under the standard normal prior."""
    return -0.5 * (points**2).sum(-1) - 0.5 * points.shape[-1] * np.log(2 * np.pi)


def _log_proposal(points: np.ndarray, location: np.ndarray, scale: np.ndarray, log_prior: np.ndarray) -> np.ndarray:
    """Log density (n, size) of points (n, size, P) under the proposal that `_propose` draws from."""
    from scipy.special import gammaln

    dims = points.shape[-1]
    whitened = np.linalg.solve(scale, np.moveaxis(points - location, 0, -1))
    distance = np.moveaxis((whitened**2).sum(1), -1, 0)
    log_determinant = np.log(np.diagonal(scale, axis1=1, axis2=2)).sum(1)
    student = (
        gammaln(0.5 * (_FREEDOM + dims)) - gammaln(0.5 * _FREEDOM) - 0.5 * dims * np.log(_FREEDOM * np.pi)
        - log_determinant - 0.5 * (_FREEDOM + dims) * np.log1p(distance / _FREEDOM)
    )  # fmt: skip
    return np.logaddexp(np.log1p(-_DEFENSE) + student, np.log(_DEFENSE) + log_prior)


def normalize(log_weight: np.ndarray) -> np.ndarray:
    """Weights that sum to 1 over the first axis."""
    weight = np.exp(log_weight - log_weight.max(0))
    return weight / weight.sum(0)


def _temper(total: np.ndarray, log_ratio: np.ndarray, least: np.ndarray, wanted: float) -> np.ndarray:
    """Largest power (size,) of the likelihood, at most 1, at which `wanted` draws count, or the `least` one."""

    def enough(power: np.ndarray) -> np.ndarray:
        return 1 / (normalize(power * total + log_ratio) ** 2).sum(0) >= wanted

    low, high = least, np.ones(len(least))
    full = enough(high)
    for _ in range(40):
        # Likelihoods of hundreds of trials are steep: halve on a logarithmic scale as soon as there is one.
        middle = np.where(low > 0, np.sqrt(low * high), 0.5 * high)
        good = enough(middle)
        low, high = np.where(good, middle, low), np.where(good, high, middle)
    return np.where(full, 1.0, low)


def compare(
    nets: Mapping[str, Any],
    inputs: Mapping[str, Any],
    value: Any,
    *,
    method: str = "both",
    prior_probabilities: Mapping[str, float] | None = None,
    **arguments: Any,
) -> pandas.DataFrame:
    """Compare models of the same data by their evidence.

    Args:
        nets: model name -> trained network.
        inputs: dict name -> (*B, K).
        value: outcomes, (*B, K) or (*B, K, n_outcomes).
        method: "autoregressive", "importance", or "both": the latter also warns where the two disagree, since the data
            then lie outside what the model generates, and decides by importance sampling.
        prior_probabilities: model name -> prior probability; equal by default.
        **arguments: further arguments of `log_evidence`.

    Returns:
        one row for each data set and model, with ``log_evidence``, ``standard_error``, ``log_bayes_factor`` (against
        the data set's best model, at most 0) and ``probability`` (of the model given the data set); with "both"
        also ``autoregressive``, ``importance`` and ``disagreement`` (the first minus the second).

    Raises:
        ValueError: if fewer than two networks are given, prior probabilities do not fit, or as `log_evidence` says.
    """
    import pandas

    if not isinstance(nets, Mapping) or len(nets) < 2:
        raise ValueError(f"nets: expected a dict of at least two networks, got {nets!r}")
    methods = METHODS if method == "both" else (method,)
    weights = np.ones(len(nets))
    if prior_probabilities is not None:
        if set(prior_probabilities) != set(nets):
            raise ValueError(
                f"prior_probabilities: expected one for each of {list(nets)}, got {list(prior_probabilities)}"
            )
        weights = np.array([float(prior_probabilities[name]) for name in nets])
        if not (weights >= 0).all() or not weights.sum() > 0:
            raise ValueError(f"prior_probabilities: expected numbers of at least 0, got {dict(prior_probabilities)}")
    rows = []
    for name, net in nets.items():
        results = {each: log_evidence(net, inputs, value, method=each, **arguments) for each in methods}
        for index in np.ndindex(results[methods[-1]].log_evidence.shape):
            row: dict[str, Any] = {"data_set": index if len(index) != 1 else index[0], "model": name}
            row["log_evidence"] = float(results[methods[-1]].log_evidence[index])
            row["standard_error"] = float(results[methods[-1]].standard_error[index])
            if len(methods) > 1:
                row.update({each: float(result.log_evidence[index]) for each, result in results.items()})
                row["disagreement"] = row[METHODS[0]] - row[METHODS[1]]
                error = float(np.hypot(*(result.standard_error[index] for result in results.values())))
                row["outside"] = abs(row["disagreement"]) > _DISAGREEMENT + 2 * error
            rows.append(row)
    table = pandas.DataFrame(rows)
    if table.get("outside", pandas.Series(dtype=bool)).any():
        worst = table.loc[table["disagreement"].abs().idxmax()]
        warnings.warn(
            f"compare: the two estimators of the evidence disagree for {int(table['outside'].sum())} of {len(table)} "
            f"pairs of data set and model (most for {worst['model']!r}, by {worst['disagreement']:+.1f} nats): the "
            "data lie outside what the model generates. The table decides by importance sampling; check the fit",
            stacklevel=2,
        )
    log_prior = table["model"].map(dict(zip(nets, np.log(np.maximum(weights / weights.sum(), 1e-300)), strict=True)))
    log_posterior = table["log_evidence"] + log_prior
    best = table.groupby("data_set")["log_evidence"].transform("max")
    table.insert(4, "log_bayes_factor", table["log_evidence"] - best)
    shifted = np.exp(log_posterior - log_posterior.groupby(table["data_set"]).transform("max"))
    table.insert(5, "probability", shifted / shifted.groupby(table["data_set"]).transform("sum"))
    return table


def _numpy(array: Any) -> np.ndarray:
    return np.asarray(to_numpy(array), dtype=float)
