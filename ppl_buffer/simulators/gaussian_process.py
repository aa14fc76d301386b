"""Random smooth functions seen with noise: draws of Gaussian processes, whose joint density is known exactly.

Kernels and ranges are those of Hassan et al. (ICLR 2026, arXiv 2510.09477), appendix D.2; the noise differs, see
`GaussianProcess`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.stats.qmc import Sobol

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
        lengthscale, variance = (np.asarray(params[name], dtype=float) for name in ("lengthscale", "variance"))
        noise = np.broadcast_to(params["noise"] if self.noise is None else self.noise, (size,)).astype(float)
        kernel = rng.choice(len(self.kernels), size, p=list(self.kernels.values()))
        normal = rng.standard_normal((size, trials))
        y = np.empty((size, trials))
        diagonal = np.arange(trials)
        chunk = max(1, _AT_ONCE // max(trials, 1) ** 2)
        for index, name in enumerate(self.kernels):
            sets = np.flatnonzero(kernel == index)
            for start in range(0, len(sets), chunk):
                rows = sets[start : start + chunk]
                distance = np.abs(x[rows, :, None] - x[rows, None, :]) / lengthscale[rows, None, None]
                covariance = variance[rows, None, None] * _CORRELATIONS[name](distance)
                covariance[:, diagonal, diagonal] += noise[rows, None] ** 2
                y[rows] = np.einsum("bij,bj->bi", np.linalg.cholesky(covariance), normal[rows])
        return {"y": y}
