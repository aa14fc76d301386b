"""Reference for the multisensory observer: the exact likelihood by quadrature, and the prior as a map.

Written from the model's equations, sharing no code with `ppl_buffer.simulators.multisensory`. A trial's density is an
integral over two normal variables, the noise of the auditory and of the visual percept. The trapezoid rule converges
exponentially on it once a step is shorter than the integrand's narrowest place: where the estimate moves fast in units
of the motor noise, or turns from following one percept to following both. The steps are chosen from the sharpest such
place, so that halving them changes a trial's log density by less than 1e-4 nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

LAPSE, LAPSE_RANGE = 0.02, (-45.0, 45.0)
NAMES = (
    "log_sigma_V_low", "log_sigma_V_med", "log_sigma_V_high", "log_sigma_A", "log_sigma_S", "log_sigma_M",
    "logit_p_same",
)  # fmt: skip
# Mean and standard deviation of each parameter's normal prior, truncated at two standard deviations; the second and
# third are those of the difference from the parameter before.
_PRIOR = np.array([(0.0, 1.5), (1.0, 1.0), (0.75, 0.5), (1.75, 0.5), (2.5, 1.0), (0.0, 0.5), (1.5, 1.5)])
_TRUNCATION = 2.0
# The integral leaves out noise beyond so many standard deviations.
_REACH = 6.0
# Step of the trapezoid rule, in widths of the integrand's narrowest place; how much a turn of the estimate narrows it.
_STEP, _TURN = 0.7, 4.0
# Grid on which the narrowest place is looked for: nodes a dimension.
_COARSE = 48
# Numbers in an array at once: they stay in the processor's cache.
_AT_ONCE = 2**16
_Params = Mapping[str, Any]


def from_scores(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Parameters whose prior is the model's where the scores (*B, 7) are standard normal: dict name -> (*B,)."""
    below = ndtr(-_TRUNCATION)
    values = _PRIOR[:, 0] + _PRIOR[:, 1] * ndtri(below + (1 - 2 * below) * ndtr(scores))
    values[..., :3] = values[..., :3].cumsum(-1)
    return {name: values[..., index] for index, name in enumerate(NAMES)}


class _Observer:
    """One observer at one task and one noise level: the estimate as a function of the percepts."""

    def __init__(self, params: _Params, auditory: bool, level: int) -> None:
        self.auditory = auditory
        self.motor = math.exp(params["log_sigma_M"])
        self.hearing, self.seeing = math.exp(params["log_sigma_A"]), math.exp(params[NAMES[level]])
        a, v, s = self.hearing**2, self.seeing**2, math.exp(2 * params["log_sigma_S"])
        precision = 1 / a + 1 / v + 1 / s
        # Mean of the source given one percept or both: weights of the auditory and of the visual percept.
        self.together = 1 / a / precision, 1 / v / precision
        self.apart = (s / (s + a), 0.0) if auditory else (0.0, s / (s + v))
        # Log density of both percepts with one source minus that with two: two bivariate Gaussians, of covariance
        # [[a + s, s], [s, v + s]] and [[a + s, 0], [0, v + s]].
        determinant = (a + s) * (v + s) - s * s
        self.constant = params["logit_p_same"] - 0.5 * math.log(determinant / ((a + s) * (v + s)))
        self.square_a = -0.5 * s * s / (determinant * (a + s))
        self.square_v = -0.5 * s * s / (determinant * (v + s))
        self.product = s / determinant

    def log_odds(self, x_a: np.ndarray, x_v: np.ndarray) -> np.ndarray:
        """Of one source against two."""
        squares = (self.constant + self.square_a * x_a**2) + self.square_v * x_v**2
        return squares + (self.product * x_a) * x_v

    def estimate(self, x_a: np.ndarray, x_v: np.ndarray) -> np.ndarray:
        """The mean over both cases."""
        odds = self.log_odds(x_a, x_v)
        np.negative(odds, out=odds)
        with np.errstate(over="ignore"):  # certain of two sources
            np.exp(odds, out=odds)
        odds += 1
        shift = (self.together[0] - self.apart[0]) * x_a + (self.together[1] - self.apart[1]) * x_v
        shift /= odds
        shift += self.apart[0] * x_a if self.auditory else self.apart[1] * x_v
        return shift

    def slopes(self, x_a: np.ndarray, x_v: np.ndarray) -> tuple[np.ndarray, ...]:
        """Derivatives by the auditory and the visual percept: of the estimate, and of the log odds near its turns.

        The latter are 0 where one case is certain or both give much the same estimate, in motor standard deviations
        that is: what is left are the places where the estimate turns from one line to another.
        """
        odds = self.log_odds(x_a, x_v)
        same = 0.5 + 0.5 * np.tanh(0.5 * odds)
        shift = (self.together[0] - self.apart[0]) * x_a + (self.together[1] - self.apart[1]) * x_v
        odds_a, odds_v = 2 * self.square_a * x_a + self.product * x_v, 2 * self.square_v * x_v + self.product * x_a
        change = same * (1 - same) * shift
        by_a = self.apart[0] + same * (self.together[0] - self.apart[0]) + change * odds_a
        by_v = self.apart[1] + same * (self.together[1] - self.apart[1]) + change * odds_v
        turning = (np.abs(odds) < 4) * np.minimum(1, np.abs(shift) / self.motor)
        return by_a, by_v, turning * odds_a, turning * odds_v


def log_likelihood(
    params: _Params, inputs: Mapping[str, np.ndarray], response: np.ndarray, rho: float, finer: float = 1.0
) -> np.ndarray:
    """log p(response_k | parameters, inputs), lapses included, exact to 1e-4 nats.

    Args:
        params: dict name -> number: one parameter setting.
        inputs: dict of ``r_type``, ``s_A``, ``s_V``, ``V_level``, each (K,).
        response: (K,), degrees.
        rho: stretch of the auditory percept.
        finer: divides the steps of the quadrature; 0.4 is enough at parameters that describe people.

    Returns:
        (K,).
    """
    density = np.empty(len(response))
    for auditory in (False, True):
        for level in range(3):
            rows = np.flatnonzero((inputs["r_type"] == auditory) & (inputs["V_level"] == level))
            if len(rows):
                observer = _Observer(params, auditory, level)
                stimuli = inputs["s_A"][rows], inputs["s_V"][rows]
                density[rows] = _density(observer, *stimuli, response[rows], rho, finer)
    low, high = LAPSE_RANGE
    lapse = np.where((response >= low) & (response <= high), LAPSE / (high - low), 0.0)
    with np.errstate(divide="ignore"):  # where neither a lapse nor the observer can go
        return np.log((1 - LAPSE) * density + lapse)


def _density(
    observer: _Observer, s_a: np.ndarray, s_v: np.ndarray, response: np.ndarray, rho: float, finer: float
) -> np.ndarray:
    """Density of reports without lapses, (K,), of trials of one task and one noise level."""
    sharpness = _sharpness(observer, s_a, s_v, rho)
    (eps_a, weight_a), (eps_v, weight_v) = (_nodes(greatest, finer) for greatest in sharpness)
    out = np.empty(len(response))
    chunk = max(1, _AT_ONCE // (len(eps_a) * len(eps_v)))
    for start in range(0, len(response), chunk):
        rows = slice(start, start + chunk)
        x_a = rho * (s_a[rows, None, None] + observer.hearing * eps_a[:, None])
        x_v = s_v[rows, None, None] + observer.seeing * eps_v
        residual = observer.estimate(x_a, x_v)
        residual -= response[rows, None, None]
        residual *= residual
        residual *= -0.5 / observer.motor**2
        np.exp(residual, out=residual)
        out[rows] = residual @ weight_v @ weight_a
    return out / (math.sqrt(2 * math.pi) * observer.motor)


def _nodes(sharpness: float, finer: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the trapezoid rule for a normal variable, for an integrand of the given log curvature."""
    narrowest = 1 / math.sqrt(sharpness)
    count = 2 * math.ceil(finer * _REACH / (_STEP * narrowest)) + 1
    nodes = np.linspace(-_REACH, _REACH, count)
    weights = np.exp(-0.5 * nodes**2)
    return nodes, weights / weights.sum()


def _sharpness(observer: _Observer, s_a: np.ndarray, s_v: np.ndarray, rho: float) -> tuple[float, float]:
    """Greatest curvature of the log integrand along the auditory and along the visual noise, in any of the trials."""
    coarse = np.linspace(0, 1, _COARSE)
    deviation_a, deviation_v = rho * observer.hearing, observer.seeing
    x_a = rho * s_a.min() - 4 * deviation_a + (rho * np.ptp(s_a) + 8 * deviation_a) * coarse[:, None]
    x_v = s_v.min() - 4 * deviation_v + (np.ptp(s_v) + 8 * deviation_v) * coarse
    by_a, by_v, turn_a, turn_v = observer.slopes(x_a, x_v)
    motor = observer.motor
    along_a = (deviation_a * by_a / motor) ** 2 + _TURN * (deviation_a * turn_a) ** 2
    along_v = (deviation_v * by_v / motor) ** 2 + _TURN * (deviation_v * turn_v) ** 2
    return 1 + float(along_a.max()), 1 + float(along_v.max())
