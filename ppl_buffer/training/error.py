"""How far a part's likelihood is from the simulator's: what the simulator offers, or else a law of learning.

The loss of held-out data sets is their entropy, which nobody knows, plus the Kullback-Leibler divergence from the
simulator to the network. What a stretch of the training gained on the *same* data sets is free of the entropy, and of
most of the noise. While a network learns, the divergence falls about as a power of the effort, effort^-0.9 or so, of
averaged weights at the full rate as of those whose rate falls to zero at the end: so the gain of the last stretches
tells what is left. From half of the effort to the end it is about as large as what is left.

A small Bayesian calculation puts this together. With K the divergence of the last weights and u the logarithm of their
effort over that of an earlier snapshot, the logarithm of that snapshot's divergence over K is

    exponent * u + bend(u) + wander(u),

where exponent and K have the priors below, the bend is an integrated Brownian motion, and the wander a Brownian one.
Bends are small where a training is under way, and large where it has just come off a plateau, having found out what the
history means: the law is a mixture of both. The noise of the gains is their covariance over data sets.

It is asked twice: of the last snapshots, those of the decay among them, and of the last at the full rate alone, to be
carried on to the end. Each may say too much: the decay also takes away the noise of the learning rate, which learning
would not have, and further back there may be a plateau. So the smaller answer counts.

What no effort would mend the law does not see: a network too small for its simulator, or one that still rests on such a
plateau, has a floor under its divergence, which is in none of the differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ppl_buffer.network.estimated_error import EstimatedError
from ppl_buffer.training.snapshots import Snapshots

# Mean and standard deviation of the exponent, and of the logarithm of the divergence in nats; standard deviations of
# the wander and of the bend's slope at u = 1, the latter of either component, and the probability of the second one.
# Chosen on runs of three simulators with known likelihoods, tested on others: benchmarks/error_estimate.py.
_EXPONENT, _DIVERGENCE = (0.8, 0.3), (math.log(0.005), 2.0)
_WANDER, _BENDS, _SECOND = 0.1, (0.6, 3.0), 0.25
# Snapshots are used whose effort is less than that of the last by a factor of at least this; and by one of at most so
# much, at such distances in u: of all snapshots, and of those at the full rate.
_NEAREST = 1.05
_ALL, _FULL_RATE = (1.5, 0.1), (2.0, 0.2)
# The grid of the divergence, and that of the exponent in standard deviations.
_GRID = np.exp(np.linspace(math.log(1e-5), math.log(2.0), 160))
_STEPS = np.linspace(-2.5, 2.5, 21)
# Of the interval and of its middle; half the width of the interval in standard errors.
_LEVELS, _WIDTH = (0.1, 0.5, 0.9), 1.28
# Sets from which on a noise is known well enough.
_LEAST_SETS = 16
# Of the log likelihood ratios of data sets: above it their ratios are ruled by a few, and the noise is small anyway.
_MOST_VARIANCE = 1.0
# Where the error is measured: its standard error over data sets of other lengths and with rarer outcomes than the
# held-out ones, over the error itself: benchmarks/ladder.py.
_ELSEWHERE = 0.1


@dataclass(frozen=True, eq=False)
class LearningLaw:
    """What is known of a divergence, and of how it falls.

    Args:
        divergences: (G,) nats a trial.
        exponents: (E,).
        probabilities: (G, E), which sum to 1.
    """

    divergences: np.ndarray
    exponents: np.ndarray
    probabilities: np.ndarray

    def quantiles(self, *levels: float) -> list[float]:
        """Quantiles of the divergence."""
        return _quantiles(self.divergences, self.probabilities.sum(1), levels)

    def at_most(self, bound: float) -> LearningLaw:
        """The same, given that the divergence is no more than this."""
        kept = self.probabilities * (self.divergences <= max(bound, self.divergences[0]))[:, None]
        return LearningLaw(self.divergences, self.exponents, kept / kept.sum())

    def carried_on(self, factor: float) -> LearningLaw:
        """The law at an effort so many times as large, where learning goes on at the exponent to expect."""
        exponent = float(self.probabilities.sum(0) @ self.exponents)
        return LearningLaw(self.divergences * factor**-exponent, self.exponents, self.probabilities)

    def after(self, factor: float) -> float:
        """The divergence to expect once the effort is so many times as large."""
        later = self.divergences[:, None] * factor**-self.exponents
        order = later.ravel().argsort()
        return _quantiles(later.ravel()[order], self.probabilities.ravel()[order], [0.5])[0]


def _quantiles(values: np.ndarray, weights: np.ndarray, levels: object) -> list[float]:
    middles = weights.cumsum() - 0.5 * weights
    return [float(x) for x in np.exp(np.interp(levels, middles, np.log(values)))]  # type: ignore[call-overload]


def learning_law(snapshots: Snapshots) -> LearningLaw | None:
    """What the gains of a training tell of the divergence of its last weights; None while there are too few."""
    last = _law(snapshots, _ALL)
    full = int((snapshots.rates >= 1).sum())
    if last is None or not 0 < full < len(snapshots.steps):
        return last
    before = _law(snapshots.until(full), _FULL_RATE)
    if before is None:
        return last
    carried = before.carried_on(float(snapshots.steps[-1] / snapshots.steps[full - 1]))
    return min(last, carried, key=lambda law: law.quantiles(0.5)[0])


def _law(snapshots: Snapshots, reach: tuple[float, float]) -> LearningLaw | None:
    """The law of some snapshots; of those that reach so far back, at such distances."""
    used, distances = _used(snapshots.steps.astype(float), *reach)
    if not used or len(snapshots.held_out.trials) < _LEAST_SETS:
        return None
    gains, noise = _gains(snapshots, used)
    exponents = _EXPONENT[0] + _EXPONENT[1] * _STEPS
    nearer, farther = np.minimum.outer(distances, distances), np.maximum.outer(distances, distances)
    components = [
        math.log(share) + _log_evidence(gains, noise, distances[:, None] * exponents, _WANDER**2 * nearer + bend)
        for share, bend in zip(
            (1 - _SECOND, _SECOND),
            [bend**2 * nearer**2 * (3 * farther - nearer) / 6 for bend in _BENDS],
            strict=True,
        )
    ]
    log_probability = np.logaddexp(*components) - 0.5 * _STEPS**2
    log_probability -= 0.5 * ((np.log(_GRID) - _DIVERGENCE[0]) / _DIVERGENCE[1])[:, None] ** 2
    probability = np.exp(log_probability - log_probability.max())
    return LearningLaw(_GRID, exponents, probability / probability.sum())


def _log_evidence(gains: np.ndarray, noise: np.ndarray, expected: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Log density (G, E) of the gains, for each divergence of the grid and each exponent.

    Args:
        gains: (S,).
        noise: (S, S), their covariance.
        expected: (S, E), logarithms of the snapshots' divergences over the last one.
        spread: (S, S), the covariance of these.
    """
    out = np.empty((len(_GRID), expected.shape[1]))
    for row, divergence in enumerate(_GRID):
        # A snapshot that seems to be better than the last is worse all the same, by less than the noise.
        earlier = np.maximum(divergence + gains, 0.5 * divergence)
        scale = np.maximum(earlier, divergence)
        root = np.linalg.cholesky(spread + noise / np.outer(scale, scale) + 1e-9 * np.eye(len(gains)))
        away = np.linalg.solve(root, np.log(earlier / divergence)[:, None] - expected)
        out[row] = -0.5 * (away**2).sum(0) - np.log(np.diag(root)).sum() - np.log(scale).sum()
    return out


def _used(steps: np.ndarray, farthest: float, apart: float) -> tuple[list[int], np.ndarray]:
    """Which snapshots the law looks at, and their distances u from the last."""
    used: list[int] = []
    distances: list[float] = []
    for index in range(len(steps) - 2, -1, -1):
        if steps[index] <= 0 or farthest * steps[index] < steps[-1]:
            break
        distance = math.log(steps[-1] / steps[index])
        if distance >= (distances[-1] + apart if distances else math.log(_NEAREST)):
            used.append(index)
            distances.append(distance)
    return used, np.array(distances)


def _gains(snapshots: Snapshots, used: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """How much better the last weights are than these, in nats a trial, and the covariance of its noise."""
    trials = snapshots.held_out.trials.astype(float)
    differences = snapshots.losses[used] - snapshots.losses[-1]
    gains = differences @ trials / trials.sum()
    scatter = (differences - gains[:, None]) * trials / trials.sum()
    return gains, scatter @ scatter.T


def estimate_error(snapshots: Snapshots, before: EstimatedError | None = None) -> EstimatedError | None:
    """The error of the last weights, by the best of what is known; None while too little is.

    By the simulator's log likelihood it is measured, and the interval is that of the noise of the held-out data sets,
    and of a tenth of the error for what these do not show: longer data sets, and rare outcomes.
    So it is by probabilities of all outcomes, if the simulator has a likelihood too. If it has none, they may be
    given states that nobody observes: then they tell an upper bound, and that the draws are no noise; the law decides.

    Args:
        snapshots: of the training.
        before: that of the network which it began with, where that learnt from the same simulator.
    """
    held_out, law, part = snapshots.held_out, learning_law(snapshots), snapshots.part
    if held_out.entropy is not None:
        bound, spread = _mean(snapshots.losses[-1] - held_out.entropy, held_out.trials)
        if held_out.log_likelihood is not None:
            return _measured(bound, spread, "probabilities", part)
        if law is None:
            return None
        low, middle, high = law.at_most(bound + _WIDTH * spread).quantiles(*_LEVELS)
        if bound <= law.quantiles(*_LEVELS)[-1]:
            # No sign of such states.
            middle = high = bound
        estimate = _estimate([low, middle, high + _WIDTH * spread], "probabilities", part)
        return _since_start(estimate, before, snapshots, bound + _WIDTH * spread)
    if held_out.log_likelihood is not None:
        error, spread = measured_error(held_out.log_likelihood + snapshots.losses[-1], held_out.trials)
        return _measured(error, spread, "likelihood", part)
    if law is None:
        return None
    return _since_start(_estimate(law.quantiles(*_LEVELS), "snapshots", part), before, snapshots)


def _since_start(
    estimate: EstimatedError, before: EstimatedError | None, snapshots: Snapshots, most: float = math.inf
) -> EstimatedError:
    """At least what the start was off by less what was gained since, but no more than `most`.

    Where training goes on from its end it gains little, from which the law alone would infer that little is left.
    """
    if before is None or snapshots.steps[0] > 0:
        return estimate
    gains, noise = _gains(snapshots, [0])
    half = _WIDTH * math.sqrt(float(noise[0, 0]))
    left = [before.low - gains[0] - half, before.nats_per_trial - gains[0], before.high - gains[0] + half]
    known = [estimate.low, estimate.nats_per_trial, estimate.high]
    return _estimate([max(x, min(y, most)) for x, y in zip(known, left, strict=True)], estimate.method, estimate.part)


def _measured(error: float, spread: float, method: str, part: str) -> EstimatedError:
    half = _WIDTH * math.hypot(spread, _ELSEWHERE * error)
    return _estimate([error - half, error, error + half], method, part)


def _estimate(quantiles: list[float], method: str, part: str) -> EstimatedError:
    low, middle, high = (max(x, 0.0) for x in quantiles)
    return EstimatedError(middle, min(low, middle), max(middle, high), method, part)


def measured_error(excess: np.ndarray, trials: np.ndarray) -> tuple[float, float]:
    """The divergence where the likelihood is known, and its standard error, in nats a trial.

    The mean of the excess log likelihoods has a large noise, and that noise a handle: of data that the simulator draws,
    the likelihood ratio exp(-excess) of network to simulator has the mean 1. What the ratios' mean is off by is taken
    out, by regression: the error of a good network is then known to a tenth by a few hundred data sets. (Of a poor one
    the mean alone is as good, and the ratios are ruled by a few data sets.)

    Args:
        excess: (M,), of each data set, the simulator's log likelihood less the network's, in nats a trial.
        trials: (M,).
    """
    known = np.isfinite(excess)
    trials, total = trials[known].astype(float), excess[known] * trials[known]
    controlled = total
    if 0 < total.var() < _MOST_VARIANCE:
        ratio = np.exp(-total)
        slope = ((total - total.mean()) * (ratio - ratio.mean())).mean() / ratio.var()
        controlled = total - slope * (ratio - 1)
    error = controlled.sum() / trials.sum()
    return float(error), float(np.sqrt(((controlled - error * trials) ** 2).sum()) / trials.sum())


def _mean(values: np.ndarray, trials: np.ndarray) -> tuple[float, float]:
    """The mean over trials of numbers (M,) of data sets, and its standard error."""
    share = trials / trials.sum()
    mean = float(values @ share)
    return mean, float(np.sqrt((((values - mean) * share) ** 2).sum()))


def summary(error: EstimatedError, snapshots: Snapshots, trials: int, parameters: int) -> str:
    """What a training comes to, in a line: the error, what it means for a data set, and what more time would give.

    Args:
        error: of the last weights.
        snapshots: of the training.
        trials: of the data set.
        parameters: how many the simulator has.
    """
    text = f"{snapshots.part}: {error}; {error.meaning(trials, parameters)}"
    law, minutes = learning_law(snapshots), float(snapshots.seconds[-1]) / 60
    if law is None or not snapshots.finished or error.nats_per_trial == 0:
        return text
    middle = law.quantiles(0.5)[0]
    # What the law knows nothing of stays.
    later = error.nats_per_trial - min(error.nats_per_trial, middle) * (1 - law.after(2.0) / middle)
    return f"{text}; {_duration(minutes)} more would give about {later:.2g}"


def _duration(minutes: float) -> str:
    return f"{60 * minutes:.0f} seconds" if minutes < 1.5 else f"{minutes:.0f} minutes"
