"""Random smooth functions seen with noise: draws of Gaussian processes, whose joint density is known exactly.

Kernels and ranges are those of Hassan et al. (ICLR 2026, arXiv 2510.09477), appendix D.2; the noise differs, see
`GaussianProcess`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import ndtri

from ppl_buffer.checks import check_choice
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Positive, Real, Schema
from ppl_buffer.simulator import Arrays

# Correlation of two function values as a function of their distance in lengthscales.
_CORRELATIONS = {
    "squared_exponential": lambda r: np.exp(-0.5 * r**2),
    "matern32": lambda r: (1 + math.sqrt(3) * r) * np.exp(-math.sqrt(3) * r),
    "matern52": lambda r: (1 + math.sqrt(5) * r + 5 / 3 * r**2) * np.exp(-math.sqrt(5) * r),
}
_DESIGNS = ("uniform", "sobol")
# Below it, rounding in the Cholesky factor of some thousand points would add noise of its own.
_LEAST_NOISE = 1e-4
# Numbers in the covariance matrices that are factorised at once: few enough to stay small in memory.
_AT_ONCE = 2**22
# Of the levels of draws: finite numbers of standard deviations.
_LEAST_LEVEL = 1e-7


class GaussianProcess:
    """Functions of one input, drawn from a Gaussian process of mean zero and observed with Gaussian noise.

    Each data set draws its kernel k, and at the inputs x its outcomes y are Normal(0, C) with

        C_ij = variance * k(|x_i - x_j| / lengthscale) + noise**2 * (i == j).

    Inputs are on [-2, 2], see `design`. The points are exchangeable, but depend on each other given all parameters.

    Parameters: ``lengthscale``, uniform on [0.1, 1] in units of x; ``variance`` of the function, uniform on
    [0.5, 1.5]; ``noise``, the standard deviation of the observation noise. The kernel is no parameter, so that the
    density given all parameters is the mixture over the kernels.

    Args:
        noise: range of the uniform prior of the noise; or a number, which is then no parameter. The source has
            ``noise=10**-2.5`` (a variance of 1e-5), which asks of a network an accuracy of a thousandth of the
            function's range.
        kernels: probability of each kernel among ``"squared_exponential"``, ``"matern32"`` and ``"matern52"``.
        design: how inputs are drawn: ``"uniform"``, each by itself; or ``"sobol"``, a Sobol sequence (Sobol 1967) of
            all points of a data set, moved around the interval by a random distance and in random order, which
            leaves no gaps and has no clusters, whose points are easier to predict.

    Raises:
        ValueError: if the noise is below 1e-4 or its range not in order, a kernel or the design is unknown, or the
            probabilities are no distribution.
    """

    def __init__(
        self,
        noise: tuple[float, float] | float = (0.05, 0.5),
        kernels: Mapping[str, float] | None = None,
        design: str = "uniform",
    ) -> None:
        if kernels is None:
            kernels = {"squared_exponential": 0.4, "matern32": 0.3, "matern52": 0.3}
        if not kernels or not set(kernels) <= set(_CORRELATIONS):
            raise ValueError(f"kernels: expected names among {sorted(_CORRELATIONS)}, got {list(kernels)}")
        if min(kernels.values()) < 0 or not math.isclose(sum(kernels.values()), 1):
            raise ValueError(f"kernels: expected probabilities that sum to 1, got {dict(kernels)}")
        levels = tuple(noise) if isinstance(noise, (tuple, list)) else (noise,)
        if not all(isinstance(level, (int, float)) and _LEAST_NOISE <= level < math.inf for level in levels):
            raise ValueError(f"noise: expected standard deviations of at least {_LEAST_NOISE:g}, got {noise!r}")
        self.kernels = dict(kernels)
        self.design = check_choice("design", design, _DESIGNS)
        self.priors = {"lengthscale": Prior.uniform(0.1, 1.0), "variance": Prior.uniform(0.5, 1.5)}
        self.noise: float | None = None
        if isinstance(noise, (tuple, list)):
            if len(levels) != 2 or not levels[0] < levels[1]:
                raise ValueError(f"noise: expected a number or a range (low, high) with low < high, got {noise!r}")
            self.priors["noise"] = Prior.uniform(*levels)
        else:
            self.noise = float(noise)
        self.schema = Schema(
            params={name: Positive() for name in self.priors},
            inputs={"x": Real()},
            outcomes={"y": Real()},
            ordered=False,
            independent=False,
        )

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Draw where the function is seen: {"x": (size, trials)}, on [-2, 2]."""
        if self.design == "uniform":
            return {"x": rng.uniform(-2.0, 2.0, (size, trials))}
        # Takes long to import, and few need it.
        from scipy.stats.qmc import Sobol

        points = Sobol(1, scramble=False).random_base2(max(trials - 1, 0).bit_length())[:trials, 0]
        moved = (points + rng.random((size, 1))) % 1.0
        return {"x": 4.0 * rng.permuted(moved, axis=1) - 2.0}

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """Draw a function for each data set and observe it: {"y": (size, trials)}.

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: {"x": (size, trials)}; any numbers, not only those of `inputs`.
        """
        x = np.asarray(inputs["x"], dtype=float)
        size, trials = x.shape
        hyperparameters = self._hyperparameters(params, size)
        kernel = rng.choice(len(self.kernels), size, p=list(self.kernels.values()))
        normal = rng.standard_normal((size, trials))
        y = np.empty((size, trials))
        chunk = max(1, _AT_ONCE // max(trials, 1) ** 2)
        for index, name in enumerate(self.kernels):
            sets = np.flatnonzero(kernel == index)
            for start in range(0, len(sets), chunk):
                rows = sets[start : start + chunk]
                covariance = _covariance(name, x[rows], *(each[rows] for each in hyperparameters))
                y[rows] = np.einsum("bij,bj->bi", np.linalg.cholesky(covariance), normal[rows])
        return {"y": y}

    def predict_outcomes(
        self, rng: np.random.Generator, params: Arrays, inputs: Arrays, seen: Arrays, visible: np.ndarray, count: int
    ) -> Arrays:
        """Draw what is seen at further points, given points that were seen: {"y": (size, targets, count)}.

        Given these and the parameters it is a mixture over the kernels of normal distributions (Rasmussen & Williams
        2006, Gaussian Processes for Machine Learning, equations 2.23, 2.24 and 2.30). A target's draws are of evenly
        spread levels of theirs, which have less noise than as many that know nothing of each other.

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: {"x": (size, targets)}.
            seen: {"x": (size, trials), "y": likewise}.
            visible: (size, targets): each target sees the first so many of these.
            count: how often.
        """
        x, past, y = (np.asarray(each, dtype=float) for each in (inputs["x"], seen["x"], seen["y"]))
        size, targets = x.shape
        hyperparameters = zip(*self._hyperparameters(params, size), strict=True)
        # Of each data set and kernel, of each target: log weight, mean, standard deviation.
        moments = np.array(
            [
                [_predictive(name, of, past[row], y[row], x[row], visible[row]) for name in self.kernels]
                for row, of in enumerate(hyperparameters)
            ]
        )
        log_weight, mean, std = np.moveaxis(moments, (2, 1), (0, -1))
        weight = np.exp(log_weight - log_weight.max(-1, keepdims=True)) * list(self.kernels.values())
        below = (weight.cumsum(-1) / weight.sum(-1, keepdims=True))[..., None, :-1]
        level, other = (_spread_levels(rng, (size, targets, count)) for _ in range(2))
        kernel = (level[..., None] > below).sum(-1)
        return {"y": np.take_along_axis(mean, kernel, -1) + np.take_along_axis(std, kernel, -1) * ndtri(other)}

    def _hyperparameters(self, params: Arrays, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lengthscale, variance and noise, each (size,)."""
        noise = params["noise"] if self.noise is None else self.noise
        lengthscale, variance, noise = (
            np.broadcast_to(x, (size,)).astype(float) for x in (params["lengthscale"], params["variance"], noise)
        )
        return lengthscale, variance, noise


def _covariance(
    kernel: str, x: np.ndarray, lengthscale: np.ndarray, variance: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """Covariance (size, n, n) of what is seen at x (size, n)."""
    distance = np.abs(x[:, :, None] - x[:, None, :]) / lengthscale[:, None, None]
    covariance = variance[:, None, None] * _CORRELATIONS[kernel](distance)
    diagonal = np.arange(x.shape[1])
    covariance[:, diagonal, diagonal] += noise[:, None] ** 2
    return covariance


def _predictive(
    kernel: str,
    hyperparameters: tuple[float, float, float],
    past: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    visible: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one function: log density of what each target sees, up to a constant; its mean and standard deviation.

    Args:
        kernel: of the function.
        hyperparameters: lengthscale, variance and noise.
        past: (trials,), where it was seen.
        y: (trials,), what was seen.
        x: (targets,), where it is predicted.
        visible: (targets,), how many of the trials each target sees.
    """
    lengthscale, variance, noise = hyperparameters
    root = np.linalg.cholesky(_covariance(kernel, past[None], *(np.array([each]) for each in hyperparameters))[0])
    across = variance * _CORRELATIONS[kernel](np.abs(past[:, None] - x) / lengthscale)
    solved = solve_triangular(root, np.column_stack([across, y]), lower=True)
    weights, innovations = solved[:, :-1], solved[:, -1:]

    def seen(by_trial: np.ndarray) -> np.ndarray:
        """Sums over the first trials, as many as each target sees."""
        sums = np.concatenate([np.zeros((1, by_trial.shape[1])), by_trial.cumsum(0)])
        return np.take_along_axis(np.broadcast_to(sums, (len(sums), len(x))), visible[None], 0)[0]

    log_density = seen(-0.5 * innovations**2 - np.log(np.diag(root))[:, None])
    return log_density, seen(weights * innovations), np.sqrt(variance + noise**2 - seen(weights**2))


def _spread_levels(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in (0, 1), along the last axis one in each of equal parts, in random order."""
    parts = rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)
    return np.clip((parts + rng.random(shape)) / shape[-1], _LEAST_LEVEL, 1 - _LEAST_LEVEL)
