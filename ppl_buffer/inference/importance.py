"""Importance sampling under a standard normal prior, by proposals that are fitted in tempered rounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

# The proposal: degrees of freedom of its Student t, and the share of draws that come from the prior instead, so that no
# region of the prior can have an unbounded weight.
_FREEDOM = 5.0
_DEFENSE = 0.1
# While the proposal is being fitted: draws of a round for each parameter (at least five parameters' worth), the share
# of as many draws that must count under the tempered likelihood, and how many of the last rounds' draws are used.
_DRAWS_A_ROUND = 20
_EFFECTIVE_SHARE = 0.3
_ROUNDS_KEPT = 6
_MOST_ROUNDS = 40


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
        kept: of how many of the last rounds the draws are used. None = of all: from the prior to the posterior, which
            also covers the posteriors given a part of the data.
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
        points = np.concatenate([each.points for each in rounds])
        total = np.concatenate([each.total for each in rounds])
        power = temper(total, log_ratio, power, _EFFECTIVE_SHARE * count)
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


def temper(total: np.ndarray, log_ratio: np.ndarray, least: np.ndarray, wanted: float) -> np.ndarray:
    """Largest power (size,) of the likelihood, at most 1, at which `wanted` draws count, or the `least` one.

    Args:
        total: (n, size), log likelihoods of draws.
        log_ratio: (n, size), log density of the prior over that of the proposal.
        least: (size,), powers that are enough already.
        wanted: effective number of draws.
    """

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
