"""References for the Gaussian-process functions: the exact density given the hyperparameters, and integrated over them.

Written from the model's equations and sharing no code with `ppl_buffer.simulators.gaussian_process`; the box of the
prior and the probabilities of the kernels are the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.linalg import eigh, solve_triangular
from scipy.special import gamma, kv, logsumexp

Array = Any

# Half-integer smoothness of the Matern kernels.
SMOOTHNESS = {"matern32": 1.5, "matern52": 2.5}


def correlation(kernel: str, distance: np.ndarray) -> np.ndarray:
    """Kernel of unit variance and lengthscale at a distance; Matern kernels by their polynomial for speed."""
    if kernel == "squared_exponential":
        return np.exp(-(distance**2) / 2)
    scaled = np.sqrt(2 * SMOOTHNESS[kernel]) * distance
    polynomial = 1 + scaled if kernel == "matern32" else 1 + scaled + scaled**2 / 3
    return polynomial * np.exp(-scaled)


def matern_by_bessel(smoothness: float, distance: np.ndarray) -> np.ndarray:
    """The Matern kernel of any smoothness, by its definition (Rasmussen & Williams 2006, equation 4.14)."""
    scaled = np.sqrt(2 * smoothness) * np.asarray(distance, float)
    safe = np.where(scaled > 0, scaled, 1.0)
    value = 2 ** (1 - smoothness) / gamma(smoothness) * safe**smoothness * kv(smoothness, safe)
    return np.where(scaled > 0, value, 1.0)


def prefix_log_density(params: Mapping[str, Array], x: Array, y: Array, kernels: Mapping[str, float]) -> np.ndarray:
    """log p(y_1, ..., y_k | all hyperparameters) for k = 1, ..., T, the kernel integrated out.

    Args:
        params: ``lengthscale``, ``variance`` and ``noise``, each (B,).
        x: (B, T).
        y: (B, T).
        kernels: prior probability of each kernel.

    Returns:
        (B, T).
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    size, trials = x.shape
    out = np.empty((size, trials))
    for row in range(size):
        lengthscale, variance, noise = (float(params[name][row]) for name in ("lengthscale", "variance", "noise"))
        distance = np.abs(x[row][:, None] - x[row]) / lengthscale
        by_kernel = []
        for kernel, probability in kernels.items():
            covariance = variance * correlation(kernel, distance) + noise**2 * np.eye(trials)
            factor = np.linalg.cholesky(covariance)
            white = solve_triangular(factor, y[row], lower=True, check_finite=False)
            terms = -0.5 * white**2 - np.log(np.diagonal(factor)) - 0.5 * np.log(2 * np.pi)
            by_kernel.append(np.log(probability) + terms.cumsum())
        out[row] = logsumexp(by_kernel, axis=0)
    return out


def log_evidence(
    x: Array,
    y: Array,
    kernels: Mapping[str, float],
    box: Mapping[str, Sequence[float]],
    nodes: Mapping[str, int] | None = None,
) -> np.ndarray:
    """log p(y) with hyperparameters and kernel integrated out, of data sets that share their inputs.

    One eigendecomposition serves all values of variance and noise, and all data sets: with K = U diag(l) U' the
    covariance variance * K + noise**2 I has the eigenvalues variance * l + noise**2 and the same vectors.

    Args:
        x: (T,), the same for all data sets.
        y: (B, T).
        kernels: prior probability of each kernel.
        box: bounds of the uniform priors of ``lengthscale``, ``variance`` and ``noise``.
        nodes: nodes of the quadrature for each of them: midpoints in the logarithm for lengthscale and noise, whose
            posteriors are narrow (the midpoint rule then converges exponentially), Gauss-Legendre for the variance.

    Returns:
        (B,).
    """
    nodes = {"lengthscale": 64, "variance": 20, "noise": 64} if nodes is None else nodes
    x, y = np.asarray(x, float), np.asarray(y, float)
    trials = len(x)
    lengthscales, log_weights = _log_midpoints(*box["lengthscale"], nodes["lengthscale"])
    noises, noise_weights = _log_midpoints(*box["noise"], nodes["noise"])
    point, weight = np.polynomial.legendre.leggauss(nodes["variance"])
    low, high = box["variance"]
    variances, variance_weights = low + (high - low) * (point + 1) / 2, np.log(weight / 2)
    variance, noise = (grid.ravel() for grid in np.meshgrid(variances, noises, indexing="ij"))
    inner = (variance_weights[:, None] + noise_weights).ravel()
    distance = np.abs(x[:, None] - x)
    pieces = []
    for kernel, probability in kernels.items():
        for lengthscale, log_weight in zip(lengthscales, log_weights, strict=True):
            values, vectors = eigh(
                correlation(kernel, distance / lengthscale), driver="evd", overwrite_a=True, check_finite=False
            )
            squares = (y @ vectors) ** 2
            # Eigenvalues of a smooth kernel that rounding made negative.
            spectrum = variance * np.maximum(values, 0)[:, None] + noise**2
            terms = squares @ (1 / spectrum) + np.log(spectrum).sum(0) + trials * np.log(2 * np.pi)
            pieces.append(np.log(probability) + log_weight + logsumexp(inner - 0.5 * terms, axis=1))
    return logsumexp(pieces, axis=0)


def _log_midpoints(low: float, high: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Midpoints in the logarithm, and log weights of the uniform distribution on [low, high] there."""
    step = np.log(high / low) / count
    values = low * np.exp(step * (np.arange(count) + 0.5))
    return values, np.log(values * step / (high - low))
