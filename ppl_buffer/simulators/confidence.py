"""Choices between two categories and the confidence in them: signal detection with metacognitive noise.

Confidence is read from the evidence once more, with noise that the choice did not have (Maniscalco & Lau 2016,
Neuroscience of Consciousness 2016, niw002; the Gaussian case of Shekhar & Rahnev 2021, Psychological Review 128,
45-70). Without that noise it is signal detection theory (Green & Swets 1966; Fleming & Lau 2014, Frontiers in Human
Neuroscience 8, 443). Probabilities have a formula.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, owens_t

from ppl_buffer.checks import check_integer
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Integer, Interval, Positive, Real, Schema
from ppl_buffer.simulator import Arrays
from ppl_buffer.simulators.drift_diffusion import check_params

# Stands for 0 where a formula divides by it; the formula is continuous there.
_NOTHING = 1e-12


class Confidence:
    """What people perceive, and how sure they are of it.

    Evidence x ~ Normal(``sensitivity`` * stimulus / 2, 1) comes from a stimulus in [-1, 1]: its sign is the category,
    its size the strength. ``choice`` is 1 where x exceeds ``criterion``, else 0. Confidence is rated by a noisy copy,

        y = x + metacognitive_noise * eta,    eta ~ Normal(0, 1),

    whose distance from the criterion on the side of the choice, y - criterion or criterion - y, is compared with the
    confidence criteria c_1 < c_2 < ...: ``rating`` is 1 + the number of them that it exceeds. They are stated by their
    increments, c_j = increment_1 + ... + increment_j, which keeps them in order. Where y lies on the other side of the
    criterion, as after an error that one becomes aware of, the rating is 1. Trials are independent given the
    parameters.

    Input: ``stimulus``. Outcomes: ``choice``, then ``rating`` from 1 to the number of ratings.

    Parameters, uniform over the box in `priors`:
        ``sensitivity``: d' between stimuli of -1 and 1.
        ``criterion``: of the choice, in standard deviations of the evidence; above 0 for a bias to category 0.
        ``metacognitive_noise``: in the same unit; 0, which is legal and trained, is signal detection theory.
        ``increment_1``, ``increment_2``, ...: of the confidence criteria, in the same unit.

    Args:
        ratings: number of ratings, at least 2.

    Raises:
        ValueError: if `ratings` is not an integer above 1.
    """

    # Ideal observers of themselves have no mass under the prior, but are what one compares with.
    atoms = {"metacognitive_noise": 0.0}

    def __init__(self, ratings: int = 4) -> None:
        self.ratings = check_integer("ratings", ratings, 2)
        increments = [f"increment_{number}" for number in range(1, self.ratings)]
        self.priors = {
            "sensitivity": Prior.uniform(0.0, 4.0),
            "criterion": Prior.uniform(-1.5, 1.5),
            "metacognitive_noise": Prior.uniform(0.0, 2.0),
            **{name: Prior.uniform(0.02, 1.5) for name in increments},
        }
        self.schema = Schema(
            params={
                "sensitivity": Positive(),
                "criterion": Real(),
                "metacognitive_noise": Interval(0, 2, closed=True),
                **{name: Positive() for name in increments},
            },
            inputs={"stimulus": Real()},
            outcomes={"choice": Categorical(2), "rating": Integer(1, self.ratings)},
            independent=True,
        )

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Draw stimuli, {"stimulus": (size, trials)}: either category, half of them of strength 1, the others uniform.

        An experiment with one strength has -1 and 1 alone; one with several states them relative to the largest.
        """
        strength = np.where(rng.random((size, trials)) < 0.5, 1.0, rng.random((size, trials)))
        return {"stimulus": strength * rng.choice([-1.0, 1.0], (size, trials))}

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """Draw ``choice`` in {0, 1} and ``rating`` from 1 to the number of ratings, each (size, trials).

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: dict name -> (size, trials).

        Raises:
            ValueError: if a parameter is missing or not legal.
        """
        mean, noise, criteria = self._evidence(params, inputs)
        x = mean + rng.standard_normal(mean.shape)
        y = x + noise * rng.standard_normal(mean.shape)
        choice = (x > 0).astype(int)
        distance = np.where(choice == 1, y, -y)
        return {"choice": choice, "rating": 1 + (distance[..., None] > criteria).sum(-1)}

    def simulate_with_probabilities(
        self, rng: np.random.Generator, params: Arrays, inputs: Arrays
    ) -> tuple[Arrays, Arrays]:
        """`simulate`, and the probabilities of choices, and of ratings given the choice that was drawn.

        Returns:
            the data, and {"choice": (size, trials, 2), "rating": (size, trials, ratings)}.
        """
        data = self.simulate(rng, params, inputs)
        return data, self._probabilities(params, inputs, data["choice"])

    def log_likelihood(self, params: Arrays, data: Arrays) -> np.ndarray:
        """Log probability of each trial's choice and rating together, (size, trials).

        Args:
            params: dict name -> (size,).
            data: ``stimulus``, ``choice`` and ``rating``, each (size, trials).
        """
        choice, rating = (np.asarray(data[name]).astype(int) for name in self.schema.outcomes)
        probabilities = self._probabilities(params, data, choice)
        terms = [
            np.take_along_axis(probabilities[name], code[..., None], -1)[..., 0]
            for name, code in (("choice", choice), ("rating", rating - 1))
        ]
        with np.errstate(divide="ignore"):
            return np.log(terms[0]) + np.log(terms[1])

    def _evidence(self, params: Arrays, inputs: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean evidence from the criterion (size, trials), noise (size, 1), confidence criteria (size, 1, ratings - 1).

        Raises:
            ValueError: if a parameter is missing or not legal.
        """
        sensitivity, criterion, noise, *increments = (x[:, None] for x in check_params(self.schema, params).values())
        mean = 0.5 * sensitivity * np.asarray(inputs["stimulus"], dtype=float) - criterion
        return mean, noise, np.cumsum(np.stack(increments, -1), -1)

    def _probabilities(self, params: Arrays, inputs: Arrays, choice: np.ndarray) -> Arrays:
        """Of either choice (size, trials, 2), and of the ratings given this one (size, trials, ratings)."""
        mean, noise, criteria = self._evidence(params, inputs)
        towards = np.where(choice == 1, mean, -mean)
        exceeded = exceedance(towards[..., None], noise[..., None], criteria)
        first, last = ndtr(towards)[..., None], np.zeros((*towards.shape, 1))
        # Of the order of rounding they may be below 0.
        each = np.maximum(-np.diff(np.concatenate([first, exceeded, last], -1), axis=-1), 0.0)
        return {"choice": np.stack([ndtr(-mean), ndtr(mean)], -1), "rating": each / each.sum(-1, keepdims=True)}


def exceedance(mean: np.ndarray, noise: np.ndarray, criterion: np.ndarray) -> np.ndarray:
    """Probability that x exceeds 0 and x + noise * eta a criterion above 0: x ~ Normal(mean, 1), eta ~ Normal(0, 1).

    A quadrant of the bivariate normal distribution, by Owen's T function (Owen 1956, The Annals of Mathematical
    Statistics 27, 1075-1090); arguments broadcast.
    """
    noise, mean, beyond = (np.where(np.abs(x) < _NOTHING, _NOTHING, x) for x in (noise, mean, mean - criterion))
    spread = np.sqrt(1 + noise**2)
    first, second = mean, beyond / spread
    corner = owens_t(first, -criterion / (mean * noise))
    corner = corner + owens_t(second, (mean * noise**2 + criterion) / (beyond * noise))
    opposite = np.where(first * second < 0, 0.5, 0.0)
    return 0.5 * (ndtr(first) + ndtr(second)) - corner - opposite
