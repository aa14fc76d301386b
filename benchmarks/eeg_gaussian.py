"""A stationary Gaussian of several channels: the reference of `eeg.py`, exact given any part of a recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve
from scipy.stats import norm

# Added to the variances, which are 1: what rounding of the recording to steps makes up for.
_JITTER = 1e-6
_LOG_TWO_PI = np.log(2 * np.pi)


@dataclass(frozen=True)
class StationaryGaussian:
    """Zero mean, and covariances that depend on the lag alone.

    Attributes:
        covariance: (T, C, T, C), of samples and channels.
    """

    covariance: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray) -> StationaryGaussian:
        """Of recordings (R, C, T), standardised: the mean product at each lag, over T, which is positive definite."""
        size, channels, samples = x.shape
        spectrum = np.fft.rfft(x, 2 * samples, axis=2)
        by_frequency = np.einsum("rcf,rdf->cdf", spectrum.conj(), spectrum) / (size * samples)
        by_lag = np.fft.irfft(by_frequency, 2 * samples, axis=2)
        lag = np.arange(samples)[None] - np.arange(samples)[:, None]
        covariance = by_lag[:, :, lag].transpose(2, 0, 3, 1)
        covariance = covariance + _JITTER * np.eye(channels * samples).reshape(covariance.shape)
        return cls(covariance)

    def log_density(self, x: np.ndarray, given: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
        """Of some samples of recordings (R, T, C) given others: (R,) jointly, the channels apart, and all apart."""
        channels = x.shape[2]
        mean, covariance = self._conditional(x, given, targets)
        away = x[:, targets] - mean
        count = len(targets)
        parallel = sum(_log_normal(away[..., c], covariance[:, c][:, :, c]) for c in range(channels))
        variance = np.einsum("tctc->tc", covariance)
        apart = -0.5 * (away**2 / variance + np.log(variance) + _LOG_TWO_PI).sum((1, 2))
        flat = covariance.reshape(count * channels, -1)
        return {
            "Gaussian": _log_normal(away.reshape(len(x), -1), flat),
            "Gaussian, channels apart": parallel,
            "Gaussian, apart": apart,
        }

    def missing(self, x: np.ndarray, channel: int, start: int, stop: int | None = None) -> dict[str, float]:
        """Of one channel of recordings (R, C, T) from a sample on, to the end or another sample, given the rest.

        Returns:
            the figures of `score_missing`.
        """
        size, channels, samples = x.shape
        lost = np.zeros((samples, channels), dtype=bool)
        lost[start:stop, channel] = True
        lost = lost.ravel()
        covariance = self.covariance.reshape(lost.size, -1)
        flat = x.swapaxes(1, 2).reshape(size, -1)
        mean, rest = _condition(covariance, ~lost, lost, flat[:, ~lost])
        away, std = flat[:, lost] - mean, np.sqrt(np.diag(rest))
        return {
            "joint": float(_log_normal(away, rest).mean() / lost.sum()),
            "apart": float(norm.logpdf(away, scale=std).mean()),
            "rmse": float(np.sqrt((away**2).mean())),
            "covered": float((np.abs(norm.cdf(away / std) - 0.5) < 0.45).mean()),
        }

    def _conditional(self, x: np.ndarray, given: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means (R, K, C) of samples given others, and their covariance (K, C, K, C)."""
        size, samples, channels = x.shape
        place = np.arange(samples * channels).reshape(samples, channels)
        covariance = self.covariance.reshape(place.size, -1)
        known, wanted = place[given].ravel(), place[targets].ravel()
        mean, rest = _condition(covariance, known, wanted, x[:, given].reshape(size, -1))
        shape = (len(targets), channels)
        return mean.reshape(size, *shape), rest.reshape(*shape, *shape)


def _condition(
    covariance: np.ndarray, known: np.ndarray, wanted: np.ndarray, value: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (R, W) and covariance of some numbers given the values (R, K) of others."""
    root = np.linalg.cholesky(covariance[np.ix_(known, known)])
    across = covariance[np.ix_(known, wanted)]
    weights = cho_solve((root, True), across)
    return value @ weights, covariance[np.ix_(wanted, wanted)] - across.T @ weights


def _log_normal(away: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Log density (R,) of numbers (R, W) that are so far from their mean."""
    root = np.linalg.cholesky(covariance)
    scaled = np.linalg.solve(root, away.T)
    return -0.5 * (scaled**2).sum(0) - np.log(np.diag(root)).sum() - 0.5 * len(root) * _LOG_TWO_PI
