"""The drift-diffusion model of choices and response times, with drift that varies from trial to trial.

The model is that of Ratcliff (1978), Psychological Review 85, 59-108, in the parameters of Navarro & Fuss (2009),
Journal of Mathematical Psychology 53, 222-230, and of HDDM (Wiecki, Sofer & Frank 2013, Frontiers in Neuroinformatics
7, 14). Simulation is exact: there is no time step.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np

from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Interval, Positive, Real, Schema
from ppl_buffer.simulator import Arrays

# Scaled time at which the acceptance probability changes from images of the start to sines. There, two pairs of images
# and three sines leave errors of 1e-13.
_SWITCH = 0.45
_IMAGES, _SINES = 2, 3
# Nobody is accepted so late (e**-490); it keeps powers and exponentials in range.
_LATEST = 100.0
# Nodes of the integral over the drift, in standard deviations from its mean: the trapezoidal rule is exact to 1e-8 for
# a boundary times a drift variability of 12.5, the corner of the prior.
_NODES = np.linspace(-8.0, 8.0, 201)
_WEIGHTS = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()


def choice_probability(drift: Any, boundary: Any, starting_point: Any) -> np.ndarray:
    """Probability that evidence reaches the upper boundary first; arguments broadcast.

    Args:
        drift: evidence a second, of a diffusion with unit variance a second.
        boundary: separation of the two boundaries.
        starting_point: where evidence starts, as a share of the separation.
    """
    drift, start = np.asarray(drift, dtype=float), np.asarray(starting_point, dtype=float)
    steepness = 2 * np.abs(drift) * boundary
    # (1 - exp(-2 v a z)) / (1 - exp(-2 v a)), without an exponential of a positive number; z where v is 0.
    flat = steepness < 1e-8
    safe = np.where(flat, 1.0, steepness)
    ratio = np.where(flat, start, np.expm1(-safe * start) / np.expm1(-safe))
    return np.where(drift >= 0, 1.0, np.exp(-steepness * (1 - start))) * ratio


def decision_time(rng: np.random.Generator, drift: Any, boundary: Any, starting_point: Any, choice: Any) -> np.ndarray:
    """Draw how long the evidence takes to the boundary that it reaches first, in seconds; arguments broadcast.

    The draws are exact, but for rounding. A path from less than half way from its boundary is drawn as if the other
    boundary were not there: its time is inverse Gaussian. It is accepted with the probability that such a path has not
    touched the other boundary, a series that converges at once. A path from further away crosses the middle, where it
    starts anew; its first part is a path in half the interval, treated in the same way.

    Args:
        rng: the only source of randomness.
        drift: evidence a second, any finite number; given the choice only its size matters.
        boundary: separation of the boundaries, above 0.
        starting_point: where evidence starts, as a share of the separation, in (0, 1).
        choice: which boundary is reached, 1 = upper, 0 = lower.
    """
    # A start closer to a boundary than this would round to the boundary, which no path leaves.
    start = np.clip(starting_point, 1e-12, 1 - 1e-12)
    speed, width, start, choice = np.broadcast_arrays(np.abs(drift), boundary, start, choice)
    distance = np.where(choice == 1, 1 - start, start).ravel()
    speed, width = speed.ravel(), width.ravel().astype(float)
    row = np.arange(distance.size)
    # The path's legs: row, relative distance of at most 1/2, interval.
    rows, distances, widths = [], [], []
    while row.size:
        near = distance <= 0.5
        rows.append(row)
        distances.append(np.where(near, distance, 0.5))
        widths.append(width)
        row, distance, width = row[~near], 2 * distance[~near] - 1, 0.5 * width[~near]
    row, width = np.concatenate(rows), np.concatenate(widths)
    time = width**2 * _passage(rng, np.concatenate(distances), speed[row] * width)
    return np.bincount(row, time, minlength=choice.size).reshape(choice.shape)


def decision_log_density(time: Any, drift: Any, boundary: Any, starting_point: Any, choice: Any) -> np.ndarray:
    """Log density of reaching the boundary that was chosen first, and at this time, in nats; arguments broadcast.

    Args:
        time: seconds since the evidence started, of at most 100 squares of the boundary, which no path outlasts; the
            density is 0 up to 0.
        drift: evidence a second, of a diffusion with unit variance a second.
        boundary: separation of the boundaries, above 0.
        starting_point: where evidence starts, as a share of the separation, in (0, 1).
        choice: which boundary is reached, 1 = upper, 0 = lower.
    """
    time, drift, width, start, choice = np.broadcast_arrays(time, drift, boundary, starting_point, choice)
    possible = time > 0
    # On the scale on which the boundaries are 1 apart.
    scaled = np.where(possible, time, 1.0) / width**2
    distance, towards = np.where(choice == 1, 1 - start, start), np.where(choice == 1, drift, -drift) * width
    alone = np.log(distance) - 0.5 * np.log(2 * math.pi * scaled**3) - 0.5 * (distance - towards * scaled) ** 2 / scaled
    untouched = _untouched(scaled.ravel(), distance.ravel()).reshape(scaled.shape)
    return np.where(possible, alone + np.log(untouched) - 2 * np.log(width), -np.inf)


def _passage(rng: np.random.Generator, distance: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Time to a boundary at `distance` of at most 1/2, of paths that reach it before the other one at 1 - distance."""
    time = np.empty(distance.size)
    waiting = np.arange(distance.size)
    while waiting.size:
        near, fast = distance[waiting], speed[waiting]
        proposed = inverse_gaussian(rng, near, fast)
        accepted = rng.random(waiting.size) < _untouched(proposed, near)
        time[waiting[accepted]] = proposed[accepted]
        waiting = waiting[~accepted]
    return time


def inverse_gaussian(rng: np.random.Generator, distance: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Time to a single boundary at `distance` of paths with unit variance and drift `speed` of at least 0 towards it.

    Michael, Schucany & Haas (1976), The American Statistician 30, 88-90, with the smaller root written so that nothing
    cancels and drift 0 is legal.
    """
    ahead = distance * speed
    square = rng.standard_normal(distance.size) ** 2
    smaller = 1 / (ahead + 0.5 * square + np.sqrt(square * (ahead + 0.25 * square)))
    larger = rng.random(distance.size) * (1 + ahead * smaller) > 1
    smaller[larger] = 1 / (ahead[larger] ** 2 * smaller[larger])
    return distance**2 * smaller


def _untouched(time: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Probability that a path first at `distance` at `time` stayed above distance - 1; the drift does not matter."""
    out = np.empty(time.size)
    early = time < _SWITCH
    t, d = time[early], distance[early]
    total = np.ones(t.size)
    for image in range(1, _IMAGES + 1):
        share = 2 * image / d
        total += (1 + share) * np.exp(-2 * image * (image + d) / t) + (1 - share) * np.exp(-2 * image * (image - d) / t)
    out[early] = total
    t, d = np.minimum(time[~early], _LATEST), distance[~early]
    total = np.zeros(t.size)
    for sine in range(1, _SINES + 1):
        total += sine * np.sin(sine * math.pi * d) * np.exp(-0.5 * (sine * math.pi) ** 2 * t)
    out[~early] = math.pi * total * np.sqrt(2 * math.pi * t**3) / d * np.exp(0.5 * d**2 / t)
    return out


def check_params(schema: Schema, params: Arrays) -> Arrays:
    """The parameters as float arrays, in the schema's order.

    Raises:
        ValueError: if one is missing or not legal; with a number that is not, exact sampling would never end.
    """
    checked = {}
    for name, variable in schema.params.items():
        if name not in params:
            raise ValueError(f"params: expected {list(schema.params)}, got {list(params)}")
        values = np.asarray(params[name], dtype=float)
        illegal = values[~variable.contains(np, values)]
        if illegal.size:
            raise ValueError(f"params[{name!r}]: expected {variable.description}, got {illegal.flat[0]:g}")
        checked[name] = values
    return checked


class Diffusion(ABC):
    """Base of simulators of independent decisions by a diffusion between two boundaries.

    A subclass states `priors` and `schema`, whose parameters and outcomes begin with those below, and says in `decide`
    how long evidence takes, and to which boundary.
    """

    priors: dict[str, Prior] = {
        "drift": Prior.uniform(-3.0, 3.0),
        "boundary": Prior.uniform(0.6, 5.0),
        "starting_point": Prior.uniform(0.1, 0.9),
        "non_decision_time": Prior.uniform(0.0, 2.0),
    }
    schema = Schema(
        params={
            "drift": Real(),
            "boundary": Positive(),
            "starting_point": Interval(0, 1),
            "non_decision_time": Positive(),
        },
        outcomes={"choice": Categorical(2), "rt": Positive(above="non_decision_time", lapse_range=(0, 20))},
        independent=True,
    )

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Nothing is shown: {}."""
        return {}

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays, trials: int | None = None) -> Arrays:
        """Draw ``choice`` in {0, 1} and ``rt`` in seconds, each (size, trials).

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
        checked = {name: values[:, None] for name, values in check_params(self.schema, params).items()}
        non_decision_time = checked.pop("non_decision_time")
        choice, time = self.decide(rng, (len(non_decision_time), trials), **checked)
        return {"choice": choice, "rt": non_decision_time + time}

    @abstractmethod
    def decide(
        self, rng: np.random.Generator, shape: tuple[int, int], **params: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choices and decision times in seconds, both of `shape` (size, trials); each parameter is (size, 1)."""


class DriftDiffusion(Diffusion):
    """Choices between two options, and response times.

    Evidence X starts at ``starting_point * boundary`` and moves as dX = v dt + dW, with unit variance a second, until
    it leaves the interval from 0 to ``boundary``: at the top ``choice`` is 1, at the bottom 0. The response time is
    that moment plus ``non_decision_time``. The drift v of each trial is Normal(drift, drift_variability**2). Given
    all parameters the trials are independent.

    Parameters, uniform over the box in `priors`:
        ``drift``: mean evidence a second.
        ``boundary``: separation of the two boundaries (HDDM's a; twice the a of HSSM and ssm-simulators).
        ``starting_point``: share of the separation, in (0, 1); 0.5 is unbiased.
        ``non_decision_time``: seconds for everything but the decision; no response is faster.
        ``drift_variability``: standard deviation of the drift across trials; 0 is legal and trained.

    The box is that of the likelihood networks of HDDM and HSSM for this model, ``ddm_sdv`` (Fengler, Govindarajan,
    Chen & Frank 2021, eLife 10, e65074), with their a doubled.

    Args:
        drift: the ends of the drift's prior, for a box as wide as another study's.

    Raises:
        ValueError: if these are not two finite numbers, the smaller one first.
    """

    priors = Diffusion.priors | {"drift_variability": Prior.uniform(0.0, 2.5)}
    # Most people fit the model without it.
    atoms = {"drift_variability": 0.0}
    schema = replace(
        Diffusion.schema, params={**Diffusion.schema.params, "drift_variability": Interval(0, 2.5, closed=True)}
    )

    def __init__(self, drift: tuple[float, float] = (-3.0, 3.0)) -> None:
        ends = np.asarray(drift, dtype=float)
        if ends.shape != (2,) or not np.isfinite(ends).all() or not ends[0] < ends[1]:
            raise ValueError(f"drift: expected two finite numbers, the smaller one first, got {drift!r}")
        self.priors = type(self).priors | {"drift": Prior.uniform(*ends.tolist())}

    def decide(
        self, rng: np.random.Generator, shape: tuple[int, int], **params: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Diffusion.decide`."""
        boundary, start = params["boundary"], params["starting_point"]
        drift = params["drift"] + params["drift_variability"] * rng.standard_normal(shape)
        choice = (rng.random(shape) < choice_probability(drift, boundary, start)).astype(int)
        return choice, decision_time(rng, drift, boundary, start, choice)

    def simulate_with_probabilities(
        self, rng: np.random.Generator, params: Arrays, inputs: Arrays, trials: int | None = None
    ) -> tuple[Arrays, Arrays]:
        """`simulate`, and the choice probabilities given the parameters, the trials' drifts integrated out.

        Returns:
            the data, and {"choice": (size, trials, 2)}.
        """
        data = self.simulate(rng, params, inputs, trials)
        drift, boundary, start, _, variability = (
            np.asarray(params[name], dtype=float)[:, None] for name in self.schema.params
        )
        upper = choice_probability(drift + variability * _NODES, boundary, start) @ _WEIGHTS
        probability = np.broadcast_to(upper[:, None], data["choice"].shape)
        return data, {"choice": np.stack([1 - probability, probability], axis=-1)}

    def log_likelihood(self, params: Arrays, data: Arrays) -> np.ndarray:
        """Log density of each trial's choice and response time together, (size, trials).

        Args:
            params: dict name -> (size,).
            data: ``choice`` and ``rt``, each (size, trials).
        """
        checked = {name: values[:, None] for name, values in check_params(self.schema, params).items()}
        drift, boundary, start, non_decision_time, variability = checked.values()
        time, choice = data["rt"] - non_decision_time, data["choice"]
        # At drift v the density is that at 0 times exp(v w - v^2 t / 2), w the way from the start to the boundary: a
        # normal integral over v.
        at_rest = decision_log_density(time, 0.0, boundary, start, choice)
        way, spread = boundary * np.where(choice == 1, 1 - start, -start), 1 + variability**2 * np.maximum(time, 0.0)
        exponent = drift * way - 0.5 * drift**2 * np.maximum(time, 0.0) + 0.5 * (variability * way) ** 2
        return at_rest + exponent / spread - 0.5 * np.log(spread)
