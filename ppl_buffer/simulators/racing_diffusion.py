"""The racing diffusion model of choices among several options and response times, with its exact likelihood.

Tillman, Van Zandt & Logan (2020), Psychonomic Bulletin & Review 27, 911-936: an accumulator for each option, a Wiener
process with drift and a single boundary; the first one there is the response. The time that an accumulator takes is
inverse Gaussian (Wald), so that the density of a response is the Wald density of the winner times the survival
functions of the losers.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import erfcx, ndtr

from ppl_buffer.checks import check_number
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Interval, Positive, Schema
from ppl_buffer.simulator import Arrays
from ppl_buffer.simulators.drift_diffusion import check_params, inverse_gaussian

_OPTIONS = range(2, 5)
# Of legal drifts: an accumulator with a negative one might never arrive.
_FASTEST = 20.0


def log_passage_density(time: np.ndarray, drift: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    """Log density of the time in which evidence first reaches a single boundary, in nats; arguments broadcast.

    Args:
        time: seconds since the evidence started, above 0.
        drift: evidence a second, at least 0, of a diffusion with unit variance a second.
        boundary: how far it is, above 0.
    """
    return np.log(boundary) - 0.5 * np.log(2 * math.pi * time**3) - 0.5 * (boundary - drift * time) ** 2 / time


def log_passage_survival(time: np.ndarray, drift: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    """Log probability that evidence takes longer than this to a single boundary; arguments as `log_passage_density`.

    The probability is Phi(-a) - exp(2 drift boundary) Phi(-c) with a, c = (drift time -+ boundary) / sqrt(time). Since
    exp(2 drift boundary) is exp((c^2 - a^2) / 2), both terms share the factor exp(-a^2 / 2), in which alone something
    could underflow or overflow; what is left of them are values of the scaled complementary error function.
    """
    root = np.sqrt(time)
    first, second = (drift * time - boundary) / root, (drift * time + boundary) / root
    of_second = 0.5 * erfcx(second / math.sqrt(2))
    # Before the boundary is reached on average, most are still on their way.
    late = first > 0
    arrived = ndtr(np.minimum(first, 0.0)) + np.exp(-0.5 * first**2) * of_second
    left = 0.5 * erfcx(np.maximum(first, 0.0) / math.sqrt(2)) - of_second
    in_time = np.log1p(-np.where(late, 0.0, arrived))
    return np.where(late, np.log(np.where(late, left, 1.0)) - 0.5 * first**2, in_time)


class RacingDiffusion:
    """Choices among several options, and response times, by a race of accumulators.

    The evidence for each option starts at 0 and moves as dX = ``drift_k`` dt + dW, with unit variance a second
    (diffusion constant 1), independently of the others. The option whose evidence reaches ``boundary`` first is chosen;
    the response time is that moment plus ``non_decision_time``. Given all parameters the trials are independent. The
    evidence has no variability in where it starts: its survival function has a closed form too, but that is a
    difference over the range of the starts and over the drift, either of which may be 0.

    Outcomes: ``choice``, 0 for the option of ``drift_1``, 1 for that of ``drift_2``, and so on; ``rt`` in seconds.

    Parameters, uniform over the box in `priors`:
        ``drift_1``, ``drift_2``, ...: evidence a second for each option; 0, which is legal and trained, is none.
        ``boundary``: evidence that a choice takes, the same for all options.
        ``non_decision_time``: seconds for everything but the decision; no response is faster.

    Args:
        options: how many, from 2 to 4.

    Raises:
        ValueError: if `options` is none of these.
    """

    def __init__(self, options: int = 3) -> None:
        legal = f"an integer from {_OPTIONS[0]} to {_OPTIONS[-1]}"
        self.options = int(check_number("options", options, legal, lambda x: x in _OPTIONS))
        drifts = [f"drift_{number}" for number in range(1, self.options + 1)]
        self.priors = {
            **{name: Prior.uniform(0.0, 6.0) for name in drifts},
            "boundary": Prior.uniform(0.3, 4.0),
            "non_decision_time": Prior.uniform(0.0, 1.0),
        }
        self.schema = Schema(
            params={
                **{name: Interval(0, _FASTEST, closed=True) for name in drifts},
                "boundary": Positive(),
                "non_decision_time": Positive(),
            },
            outcomes={
                "choice": Categorical(self.options),
                "rt": Positive(above="non_decision_time", lapse_range=(0, 20)),
            },
            independent=True,
        )

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def proposal(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters, all drifts together slow more often than under the prior: dict name -> (size,).

        There decisions take longest and drifts near 0 matter, which the prior seldom has side by side.
        """
        params, share = self.prior(rng, size), rng.random(size)
        return {name: share * x if name.startswith("drift_") else x for name, x in params.items()}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Nothing is shown: {}."""
        return {}

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays, trials: int | None = None) -> Arrays:
        """Draw ``choice`` from 0 to the number of options - 1 and ``rt`` in seconds, each (size, trials).

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: {}.
            trials: number of trials.

        Raises:
            ValueError: if a parameter is missing or not legal, or `trials` is not given.
        """
        if trials is None:
            raise ValueError("trials: expected a number, since there are no inputs, got None")
        drifts, boundary, non_decision_time = self._race(params)
        shape = (len(boundary), trials, self.options)
        distance, speed = (np.broadcast_to(x, shape).ravel() for x in (boundary[..., None], drifts))
        time = inverse_gaussian(rng, distance, speed).reshape(shape)
        return {"choice": time.argmin(-1), "rt": non_decision_time + time.min(-1)}

    def log_likelihood(self, params: Arrays, data: Arrays) -> np.ndarray:
        """Log density of each trial's choice and response time together, (size, trials).

        Args:
            params: dict name -> (size,).
            data: ``choice`` and ``rt``, each (size, trials).
        """
        drifts, boundary, non_decision_time = self._race(params)
        time = np.asarray(data["rt"], dtype=float) - non_decision_time
        possible = time > 0
        arguments = np.where(possible, time, 1.0)[..., None], drifts, boundary[..., None]
        won = np.asarray(data["choice"])[..., None] == np.arange(self.options)
        total = np.where(won, log_passage_density(*arguments), log_passage_survival(*arguments)).sum(-1)
        return np.where(possible, total, -np.inf)

    def _race(self, params: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Drifts (size, 1, options), boundary (size, 1) and non-decision time (size, 1)."""
        *drifts, boundary, non_decision_time = (x[:, None] for x in check_params(self.schema, params).values())
        return np.stack(drifts, -1), boundary, non_decision_time
