"""The drift-diffusion model with boundaries that collapse exponentially: urgency grows while evidence comes in.

The model is the one of PyDDM's ``BoundCollapsingExponential`` (Shinn, Lam & Murray 2020, eLife 9, e56938). Its
likelihood has no formula. Simulation takes time steps, but hardly depends on them: whether, and when, a path hits a
boundary between two steps is drawn from the law of the Brownian bridge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ppl_buffer.prior import Prior
from ppl_buffer.schema import Interval
from ppl_buffer.simulators.drift_diffusion import Diffusion, inverse_gaussian

# Longest step, as a share of the squared separation: even a path that is at one boundary reaches the other one within
# the step with a probability of only 2 Phi(-5) = 6e-7.
_SHARE = 1 / 25
# Within a step a boundary is taken as straight. The chord lies off the curve by at most collapse * step**2 / 8 times
# the speed of the boundary, that is, the boundary is late by at most this many seconds.
_LATE = 2e-5


class CollapsingDriftDiffusion(Diffusion):
    """Choices between two options, and response times, under boundaries that close in on each other.

    Evidence X starts at ``starting_point * boundary`` and moves as dX = ``drift`` dt + dW, with unit variance a
    second. After t seconds the boundaries are ``boundary * exp(-collapse * t)`` apart, around the middle
    ``boundary / 2``. When X hits the upper one ``choice`` is 1, at the lower one 0; the response time is that moment
    plus ``non_decision_time``. Given all parameters the trials are independent.

    Parameters, uniform over the box in `priors`:
        ``drift``: evidence a second.
        ``boundary``: separation of the two boundaries at the start (twice PyDDM's B).
        ``starting_point``: share of that separation, in (0, 1); 0.5 is unbiased.
        ``non_decision_time``: seconds for everything but the decision; no response is faster.
        ``collapse``: rate a second at which the boundaries close in; 0 is legal and trained.

    The separation halves every 0.69 / ``collapse`` seconds; without collapse this is the drift-diffusion model.
    """

    priors = Diffusion.priors | {"collapse": Prior.uniform(0.0, 3.0)}
    # Whether boundaries collapse at all is what one asks first.
    atoms = {"collapse": 0.0}
    schema = replace(Diffusion.schema, params={**Diffusion.schema.params, "collapse": Interval(0, 3, closed=True)})

    def decide(
        self, rng: np.random.Generator, shape: tuple[int, int], **params: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Diffusion.decide`."""
        each = (np.broadcast_to(values, shape).ravel() for values in params.values())
        choice, time = first_passage(rng, _shrunk, _longest, *each)
        return choice.reshape(shape), time.reshape(shape)


def _shrunk(half: np.ndarray, collapse: np.ndarray, step: np.ndarray) -> np.ndarray:
    return half * np.exp(-collapse * step)


def _longest(half: np.ndarray, collapse: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.sqrt(8 * _LATE / collapse)


def first_passage(
    rng: np.random.Generator,
    shrunk: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    longest: Callable[[np.ndarray, np.ndarray], np.ndarray],
    drift: np.ndarray,
    boundary: np.ndarray,
    start: np.ndarray,
    collapse: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Choices, and decision times in seconds, of paths between boundaries that close in.

    Args:
        rng: the only source of randomness.
        shrunk: half the separation after a step, from that before, `collapse` and the step in seconds.
        longest: the longest step in which a boundary is straight and does not close, from half the separation and
            `collapse`.
        drift: evidence a second, of a diffusion with unit variance a second; all arrays are (paths,).
        boundary: separation of the boundaries at the start.
        start: where evidence starts, as a share of the separation.
        collapse: what `shrunk` and `longest` take.
    """
    choice, time = np.empty(drift.size, dtype=int), np.empty(drift.size)
    path = np.arange(drift.size)
    # Evidence relative to the middle; the boundaries are at -half and half. A start closer to a boundary than this
    # would round to the boundary.
    half = 0.5 * boundary
    evidence = boundary * (np.clip(start, 1e-12, 1 - 1e-12) - 0.5)
    now = np.zeros(drift.size)
    while path.size:
        step = np.minimum(4 * _SHARE * half**2, longest(half, collapse))
        half_next = shrunk(half, collapse, step)
        moved = evidence + drift * step + np.sqrt(step) * rng.standard_normal(path.size)
        # Distances from each boundary before and after the step. Between them the path is a Brownian bridge, whatever
        # the drift, and hits a straight boundary with probability exp(-2 before after / step).
        above, above_next = half - evidence, half_next - moved
        below, below_next = half + evidence, half_next + moved
        upper = np.exp(np.minimum(-2 * above * above_next / step, 0.0))
        lower = np.exp(np.minimum(-2 * below * below_next / step, 0.0))
        # Either end of the unit interval stands for one boundary. Where they overlap the path ended beyond one of them;
        # that it hit the other one first is the less probable event.
        where = rng.random(path.size)
        at_upper, at_lower = where < upper, where >= 1 - lower
        hit = at_upper | at_lower
        up = at_upper[hit] & (~at_lower[hit] | (upper[hit] < lower[hit]))
        # A bridge that hits, does so after a share w / (1 + w) of the step, where w is inverse Gaussian.
        scale = np.sqrt(step[hit])
        before = np.where(up, above[hit], below[hit]) / scale
        after = np.abs(np.where(up, above_next[hit], below_next[hit])) / scale
        w = inverse_gaussian(rng, before, after)
        choice[path[hit]] = up
        time[path[hit]] = now[hit] + step[hit] * w / (1 + w)
        left = ~hit
        now = (now + step)[left]
        path, drift, collapse = path[left], drift[left], collapse[left]
        half, evidence = half_next[left], moved[left]
    return choice, time
