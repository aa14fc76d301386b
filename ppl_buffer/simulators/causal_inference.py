"""Causal inference of an observer who hears and sees, and the density of the reports, by quadrature. NumPy alone.

The density of a report is an integral over what was heard and what was seen. The integrand is smooth, so that the
trapezoid rule converges exponentially once a step is shorter than its narrowest place (Trefethen & Weideman 2014, SIAM
Review 56, 385-458). How narrow this is depends on the trial by orders of magnitude: trials that need grids of one size
are computed together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache

import numpy as np

# Noise beyond so many standard deviations is left out.
_REACH = 5.5
# A step of the rule, in widths of the integrand's narrowest place: the error is of the order of exp(-2 pi^2 / step^2).
_STEP = 1.5
# Nodes of the grid on which the narrowest place is looked for, each way.
_COARSE = 17
# Nodes each way: the sizes of grids, each a factor of the one before. Who needs more than the largest is far outside
# the range of the prior.
_SIZES = tuple(2 * round(8 * 1.35**power) + 1 for power in range(19))
# Numbers in an array at once: they stay in the processor's cache.
_AT_ONCE = 2**15


@dataclass
class AudioVisualTrials:
    """Trials, and what is known of the observer in each: arrays of one shape, in degrees.

    Attributes:
        sound: where the sound was.
        flash: where the flash was.
        auditory: True where the report is of the sound.
        hearing: standard deviation of the auditory noise.
        seeing: of the visual noise.
        motor: of reports about the estimate.
        source_variance: variance of sources about 0, as the observer has it.
        logit_same: prior log odds of one source for both.
    """

    sound: np.ndarray
    flash: np.ndarray
    auditory: np.ndarray
    hearing: np.ndarray
    seeing: np.ndarray
    motor: np.ndarray
    source_variance: np.ndarray
    logit_same: np.ndarray

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> AudioVisualTrials:
        """The same function of each array."""
        return AudioVisualTrials(*(function(getattr(self, field.name)) for field in fields(self)))

    def rows(self, index: np.ndarray | slice, precision: type = float) -> AudioVisualTrials:
        """Some trials of arrays (N,), with two axes of nodes behind."""
        return self.map(lambda x: x[index, None, None].astype(bool if x.dtype == bool else precision))


def causal_inference(
    x_auditory: np.ndarray,
    x_visual: np.ndarray,
    variance_auditory: np.ndarray,
    variance_visual: np.ndarray,
    variance_source: np.ndarray,
    logit_same: np.ndarray,
    auditory: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether both percepts have the same source, and where the asked for one is in either case.

    Args:
        x_auditory: percept, degrees; all arguments broadcast.
        x_visual: percept, degrees.
        variance_auditory: of the percept about its source.
        variance_visual: likewise.
        variance_source: of sources about 0.
        logit_same: prior log odds of one source for both.
        auditory: True where the sound's position is asked for.

    Returns:
        the posterior probability of one source, and the estimates if there is one and if there are two.
    """
    a, v, s = variance_auditory, variance_visual, variance_source
    # Evidence for one source of both percepts against one source each.
    joint = a * v + s * (a + v)
    agreement = x_auditory * x_visual - 0.5 * s * (x_auditory**2 / (a + s) + x_visual**2 / (v + s))
    log_odds = logit_same + 0.5 * np.log((a + s) * (v + s) / joint) + s / joint * agreement
    # tanh never overflows.
    same = 0.5 * (1 + np.tanh(0.5 * log_odds))
    together = s * (x_auditory * v + x_visual * a) / joint
    apart = np.where(auditory, x_auditory * s / (a + s), x_visual * s / (v + s))
    return same, together, apart


def report_density(trials: AudioVisualTrials, response: np.ndarray, rho: float) -> np.ndarray:
    """Density of reports without lapses, of the shape of the reports; its logarithm within about 1e-4.

    It is that exact where no parameter is far outside the range of the model's prior.

    Args:
        trials: of any shape.
        response: reports, degrees, of that shape.
        rho: stretch of the auditory percept.
    """
    shape, response, flat = response.shape, response.ravel(), trials.map(np.ravel)
    density = np.empty(len(response))
    for rows, sizes in _grids(flat, rho):
        (noise_a, weight_a), (noise_v, weight_v) = (_nodes(size) for size in sizes)
        # Single precision: what it loses is less than what the rule does.
        some = flat.rows(rows, np.float32)
        same, together, apart = _inferred(some, *_percepts(some, noise_a[:, None], noise_v, rho))
        residual = apart + same * (together - apart)
        residual -= response[rows, None, None].astype(np.float32)
        residual /= some.motor
        residual *= residual
        residual *= np.float32(-0.5)
        np.exp(residual, out=residual)
        density[rows] = residual @ weight_v @ weight_a
    return (density / (math.sqrt(2 * math.pi) * flat.motor)).reshape(shape)


@cache
def _nodes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the rule for a standard normal variable."""
    nodes = np.linspace(-_REACH, _REACH, size, dtype=np.float32)
    weights = np.exp(-0.5 * nodes**2)
    return nodes, weights / weights.sum()


def _percepts(
    trials: AudioVisualTrials, noise_a: np.ndarray, noise_v: np.ndarray, rho: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where sound (N, A, 1) and flash (N, 1, V) are perceived, of trials of arrays (N, 1, 1).

    Args:
        trials: N of them.
        noise_a: nodes (A, 1) of the auditory noise, in its standard deviations.
        noise_v: nodes (V,) of the visual noise.
        rho: stretch of the auditory percept.
    """
    stretch = np.asarray(rho, trials.sound.dtype)
    return stretch * (trials.sound + trials.hearing * noise_a), trials.flash + trials.seeing * noise_v


def _inferred(trials: AudioVisualTrials, x_a: np.ndarray, x_v: np.ndarray) -> tuple[np.ndarray, ...]:
    """`causal_inference` of the trials' observers."""
    variances = trials.hearing**2, trials.seeing**2, trials.source_variance
    return causal_inference(x_a, x_v, *variances, trials.logit_same, trials.auditory)


def _grids(trials: AudioVisualTrials, rho: float) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Rows that need grids of one size, a few at a time, and nodes along the auditory and the visual noise."""
    count = len(trials.sound)
    wanted = np.empty((2, count))
    at_once = max(1, _AT_ONCE // _COARSE**2)
    for start in range(0, count, at_once):
        rows = slice(start, start + at_once)
        wanted[:, rows] = 2 * _REACH / _STEP * _sharpness(trials.rows(rows), rho) + 1
    sizes = np.searchsorted(_SIZES, wanted).clip(max=len(_SIZES) - 1)
    for pair in np.unique(sizes, axis=1).T:
        same_size = np.flatnonzero((sizes == pair[:, None]).all(0))
        auditory, visual = (_SIZES[index] for index in pair)
        at_once = max(1, _AT_ONCE // (auditory * visual))
        for start in range(0, len(same_size), at_once):
            yield same_size[start : start + at_once], (auditory, visual)


def _sharpness(trials: AudioVisualTrials, rho: float) -> np.ndarray:
    """How many times narrower than the noise the integrand is at its narrowest, (2, N): along either noise.

    Of normal reports about an estimate that moves with the noise, by so many motor standard deviations in one of the
    noise; and where it turns from one case to the other, by the width of the turn.
    """
    coarse = np.linspace(-4, 4, _COARSE)
    x_a, x_v = _percepts(trials, coarse[:, None], coarse, rho)
    same, together, apart = _inferred(trials, x_a, x_v)
    a, v, s = trials.hearing**2, trials.seeing**2, trials.source_variance
    joint = a * v + s * (a + v)
    moves = rho * trials.hearing / trials.motor, trials.seeing / trials.motor
    odds = (
        rho * trials.hearing * s / joint * (x_v - s * x_a / (a + s)),
        trials.seeing * s / joint * (x_a - s * x_v / (v + s)),
    )
    # A turn that lies between nodes is as steep as it can be.
    step = coarse[1] - coarse[0]
    between = np.abs(2 * same - 1) < np.tanh(0.5 * step * (np.abs(odds[0]) + np.abs(odds[1])))
    uncertain = np.where(between, 0.25, same * (1 - same))
    apart_moves = np.where(trials.auditory, s / (a + s), 0.0), np.where(trials.auditory, 0.0, s / (v + s))
    change = (together - apart) / trials.motor
    out = []
    for moved, by_odds, one, two in zip(moves, odds, (s * v / joint, s * a / joint), apart_moves, strict=True):
        slope = moved * (two + same * (one - two)) + uncertain * change * by_odds
        turn = 2 * np.where(between | (uncertain > 0.02), np.abs(by_odds), 0.0) * np.minimum(1, np.abs(change))
        out.append(np.sqrt(1 + (slope**2 + turn**2).max((1, 2))))
    return np.stack(out)
