"""A quick fit of a hierarchical model by normal distributions: where NUTS starts, and on which scales it moves.

Each subject's likelihood is taken for normal around the mode of that subject's posterior, and mean and spread of the
population are found by a few rounds of expectation and maximisation. It costs some hundred gradients, where a sampler
that finds out by itself needs thousands, and it tells how much the data say about each subject, by which a subject's
parameters are written (`ppl_buffer.workflow.transport`), and of the population, which scales the steps there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from tqdm.auto import tqdm

Array = np.ndarray
# Function of parameters (P, S): the subjects' negative log likelihoods (S,), and the gradient of their sum (P, S).
Loss = Callable[[Array], tuple[Array, Array]]

# Steps of a curvature by differences, and when rounds end.
_DIFFERENCE, _ROUNDS, _CLOSE = 0.05, 15, 0.02
# Of Levenberg and Marquardt: the damping to begin with, and its factors after a step that gained and one that did not.
_DAMPING, _LESS, _MORE = 0.1, 0.2, 5.0
# What is said of the spread before the data: as much as by so many subjects.
_SUBJECTS_BEFORE = 2
# What is known of subjects is rounded to such parts, so that another machine writes them alike.
_PARTS = 20


@dataclass(frozen=True)
class QuickFit:
    """A population of S subjects with P parameters, on the unconstrained scale.

    Attributes:
        mean: (P,), of the population.
        spread: (P,), standard deviation of the population.
        modes: (P, S), of the subjects.
        roots: (S, P, P), lower triangular F, in twentieths: the likelihood of a subject's parameters x is about
            exp(b'x - x'Hx / 2) with H = F F'.
        pulls: (S, P), the vectors b, in twentieths.
        mean_covariance: (P, P), how well the population's mean is known.
        spread_covariance: (P, P), how well the logarithm of its spread is.
    """

    mean: Array
    spread: Array
    modes: Array
    roots: Array
    pulls: Array
    mean_covariance: Array
    spread_covariance: Array


def quick_fit(
    loss: Loss,
    starts: Array,
    mean_scales: Array,
    spread_median: float,
    spread_scale: float,
    *,
    progress: bool = False,
) -> QuickFit:
    """Fit a population whose mean is Normal(0, mean_scales) and whose spread is log-normal.

    Args:
        loss: see `Loss`.
        starts: (P, S), where to begin: all subjects are moved alike from there, and then each alone.
        mean_scales: (P,).
        spread_median: of the prior of the spread.
        spread_scale: standard deviation of its logarithm.
        progress: show a progress bar.
    """
    modes, subjects = _mode_if_alike(loss, starts, mean_scales), starts.shape[1]
    mean, spread = modes.mean(1), np.full(len(modes), spread_median)
    damping = np.full(subjects, _DAMPING)
    for _ in tqdm(range(_ROUNDS), desc="quick fit", disable=not progress, leave=False):
        curvatures = _curvatures(loss, modes)
        modes, damping, step = _towards_modes(loss, modes, curvatures, mean, spread, damping)
        # The mean's own prior counts as a fraction of a subject.
        mean = modes.sum(1) / (subjects + (spread / mean_scales) ** 2)
        uncertain = np.diagonal(np.linalg.inv(curvatures + np.diag(spread**-2.0)), axis1=1, axis2=2)
        squares = ((modes.T - mean) ** 2 + uncertain).sum(0) + _SUBJECTS_BEFORE * spread_median**2
        before, spread = spread, np.sqrt(squares / (subjects + _SUBJECTS_BEFORE))
        if step < _CLOSE and np.abs(spread / before - 1).max() < _CLOSE:
            break
    curvatures, slopes = _curvatures(loss, modes), loss(modes)[1]
    roots = np.linalg.cholesky(curvatures + _ridge(curvatures))
    pulls = np.einsum("spq,qs->sp", curvatures, modes) - slopes.T
    means, spreads = _population_covariances(spread, curvatures, mean_scales, spread_scale)
    return QuickFit(mean, spread, modes, _rounded(roots), _rounded(pulls), means, spreads)


def _towards_modes(
    loss: Loss, modes: Array, curvatures: Array, mean: Array, spread: Array, damping: Array
) -> tuple[Array, Array, float]:
    """Modes (P, S) one step nearer, of the subjects for whom the step is one; dampings (S,); the longest step."""

    def negative_log_posterior(at: Array) -> tuple[Array, Array]:
        values, slopes = loss(at)
        apart = (at - mean[:, None]) / spread[:, None]
        return values + 0.5 * (apart**2).sum(0), slopes + apart / spread[:, None]

    value, slope = negative_log_posterior(modes)
    precision = curvatures + np.diag(spread**-2.0)
    damped = precision + np.diagonal(precision, axis1=1, axis2=2)[:, None] * np.eye(len(mean)) * damping[:, None, None]
    step = np.linalg.solve(damped, slope.T[..., None])[..., 0].T
    # A comparison with what is not a number is false: such a step is none.
    gains = negative_log_posterior(modes - step)[0] <= value
    return modes - np.where(gains, step, 0.0), damping * np.where(gains, _LESS, _MORE), float(np.abs(step).max())


def _mode_if_alike(loss: Loss, starts: Array, mean_scales: Array) -> Array:
    """The mode (P, S) if subjects differed as much as their starts do."""

    def negative_log_posterior(by: Array) -> tuple[float, Array]:
        values, gradient = loss(starts + by[:, None])
        mean = starts.mean(1) + by
        return values.sum() + 0.5 * ((mean / mean_scales) ** 2).sum(), gradient.sum(1) + mean / mean_scales**2

    still = np.zeros(len(mean_scales))
    moved = minimize(negative_log_posterior, still, jac=True, method="BFGS", options={"gtol": 0.5}).x
    return starts + moved[:, None]


def _curvatures(loss: Loss, at: Array) -> Array:
    """Second derivatives (S, P, P) of the subjects' negative log likelihoods; none is negative.

    Subjects do not depend on each other, so that one difference of gradients serves all of them.
    """
    steps = _DIFFERENCE * np.eye(len(at))[..., None]
    rows = [(loss(at + step)[1] - loss(at - step)[1]) / (2 * _DIFFERENCE) for step in steps]
    # Where the likelihood has no slope, nothing is known of it.
    curvatures = np.nan_to_num(np.stack(rows).transpose(2, 0, 1), nan=0.0, posinf=0.0, neginf=0.0)
    eigenvalues, vectors = np.linalg.eigh(0.5 * (curvatures + curvatures.transpose(0, 2, 1)))
    return (vectors * np.maximum(eigenvalues, 0.0)[:, None]) @ vectors.transpose(0, 2, 1)


def _population_covariances(
    spread: Array, curvatures: Array, mean_scales: Array, spread_scale: float
) -> tuple[Array, Array]:
    """Of means and of log spreads, (P, P) each: the inverse of what subjects with normal likelihoods tell.

    An estimate of a subject's parameters has the covariance V = D^2 + H^-1 around the mean. Its Fisher information is
    V^-1 for the mean, and tr(V^-1 V_k V^-1 V_l) / 2 for log spreads, where V_k, the derivative by the k-th, has the
    element 2 s_k^2 alone; means and spreads share none.
    """
    eye = np.eye(len(spread))
    precision = np.linalg.solve(eye + curvatures * spread**2, curvatures)
    squares = np.outer(spread**2, spread**2)
    means = np.linalg.inv(np.diag(mean_scales**-2.0) + precision.sum(0))
    spreads = np.linalg.inv(eye * spread_scale**-2 + 2 * squares * (precision**2).sum(0))
    return means, spreads


def _ridge(curvatures: Array) -> Array:
    """What makes positive semidefinite matrices (S, P, P) definite."""
    size = curvatures.shape[1]
    return (1e-6 + 1e-9 * np.trace(curvatures, axis1=1, axis2=2))[:, None, None] * np.eye(size)


def _rounded(values: Array) -> Array:
    return np.round(_PARTS * values) / _PARTS
