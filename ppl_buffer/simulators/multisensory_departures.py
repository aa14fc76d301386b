"""Observers who depart from the model of audio-visual causal inference, each in ways of their own."""

from __future__ import annotations

import numpy as np

from ppl_buffer.simulators.multisensory import (
    LAPSE,
    LAPSE_RANGE,
    VISUAL,
    Arrays,
    MultisensoryCausalInference,
    causal_inference,
)

# The widest report that stays inside the lapses' range.
_WIDEST = 44.9
# Logarithms of degrees: of the widest sources of a near observer, and of the most noise of a precise one.
_NEAR, _PRECISE = np.log(3.0), np.log(0.8)


class MultisensoryDepartures(MultisensoryCausalInference):
    """Data that look like those of `MultisensoryCausalInference`, and are not.

    A share of the observers follow the model to the letter. Each of the others departs from it in some of these ways,
    by an amount of their own: parameters that vary from trial to trial, or lie beyond the prior; noise that grows with
    eccentricity; percepts that are stretched or displaced; beliefs about their own noise that are wrong, or that
    sources are elsewhere; a belief in one source for both that depends on what is asked for; now and then a report of
    what was not asked for; another strategy (selection or matching of the more probable cause, always one source,
    always two); reports that are stretched, for each sense that is asked for and each noise of the flash by another
    factor; reports that are bent, displaced, heavy-tailed, or noisier for one sense than for the other or at the side;
    lapses that are rarer, more frequent, or not uniform.

    Half of all have parameters that are uniform over the range of the prior, which seldom draws its ends. Some more
    believe that all sources lie within a few degrees, and so report near the middle whatever happens: the prior seldom
    draws them, and their reports, all within a degree or two, are hard to tell apart. Some more hardly err when they
    report: each of their trials says much, and the smallest departure shows.

    For lessons: see `ppl_buffer.prepare_distillation`. The parameters of such a data set mean little.

    Args:
        rho: as of the model.
        share: of the observers that depart.
        near: share of the observers whose ``log_sigma_S`` is drawn from the lowest part of its range alone, sources
            with a standard deviation of at most three degrees.
        precise: share of the observers whose ``log_sigma_M`` is, too: a noise of at most 0.8 degrees.
        extent: factor of the sizes of all departures that have one; not of how many there are.

    Raises:
        ValueError: if rho is not a finite number above 0, a share not in [0, 1], or the extent not in [0, 2].
    """

    def __init__(
        self, rho: float = 1.0, share: float = 0.8, near: float = 0.2, precise: float = 0.0, extent: float = 1.0
    ) -> None:
        super().__init__(rho)
        arguments = {"share": share, "near": near, "precise": precise, "extent": extent}
        for name, value in arguments.items():
            most = 2 if name == "extent" else 1
            if not 0 <= value <= most:
                raise ValueError(f"{name}: expected a number from 0 to {most}, got {value!r}")
        self.share, self.near, self.precise, self.extent = (float(value) for value in arguments.values())
        described = ", ".join(f"{name}={value:.4g}" for name, value in arguments.items())
        self.name = f"MultisensoryDepartures(rho={self.rho:.4g}, {described})"

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        drawn = self.proposal(rng, size)
        for name, share, most in (("log_sigma_S", self.near, _NEAR), ("log_sigma_M", self.precise, _PRECISE)):
            lowest = rng.uniform(self.priors[name].arguments["low"], most, size)
            drawn[name] = np.where(rng.random(size) < share, lowest, drawn[name])
        return drawn

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """Draw reports: {"response": (size, trials)}; arguments as of the model's."""
        auditory = np.asarray(inputs["r_type"]) == 1
        shape = auditory.shape
        column = (shape[0], 1)
        departs = rng.random(column) < self.share

        def normal(scale: float) -> np.ndarray:
            return self.extent * scale * rng.standard_normal(column)

        def some(probability: float, value: np.ndarray | float, otherwise: np.ndarray | float = 0.0) -> np.ndarray:
            """The value for this share of those who depart."""
            return np.where(departs & (rng.random(column) < probability), value, otherwise)

        beyond = some(0.2, 1.0)
        own = {
            name: np.asarray(params[name], dtype=float)[:, None] + beyond * normal(0.5) for name in self.schema.params
        }
        varying = some(0.4, np.abs(normal(0.4)))

        def by_trial(value: np.ndarray) -> np.ndarray:
            return value + varying * rng.standard_normal(shape)

        # Percepts.
        level = np.asarray(inputs["V_level"], dtype=int)
        log_visual = np.take_along_axis(np.concatenate([own[name] for name in VISUAL], 1), level, 1)
        log_auditory = own["log_sigma_A"]
        growth = some(0.5, np.abs(normal(0.06)))
        hearing = np.exp(by_trial(log_auditory)) * (1 + growth * np.abs(inputs["s_A"]))
        visual = np.exp(by_trial(log_visual)) * (1 + growth * np.abs(inputs["s_V"]))
        stretch = some(0.6, np.exp(normal(0.2)) * np.where(rng.random(column) < 0.5, 1.0, 4 / 3), self.rho)
        x_auditory = stretch * (inputs["s_A"] + hearing * rng.standard_normal(shape)) + some(0.4, normal(2.0))
        x_visual = inputs["s_V"] + visual * rng.standard_normal(shape)
        x_visual = some(0.4, np.exp(normal(0.1)), 1.0) * x_visual + some(0.3, normal(1.0))
        # What the observer makes of them.
        expected = some(0.4, normal(4.0))
        asked = auditory ^ (rng.random(shape) < some(0.3, 0.3 * rng.random(column)))
        same, together, apart = causal_inference(
            x_auditory - expected,
            x_visual - expected,
            variance_auditory=np.exp(2 * (log_auditory + some(0.3, normal(0.4)))),
            variance_visual=np.exp(2 * (log_visual + some(0.3, normal(0.4)))),
            variance_source=np.exp(2 * own["log_sigma_S"]),
            logit_same=by_trial(own["logit_p_same"]) + some(0.4, normal(1.5)) * (2 * asked - 1),
            auditory=asked,
        )
        strategy = np.where(departs, rng.random(column), 0.0)
        choices = [same, same > 0.5, rng.random(shape) < same, np.ones(shape), np.zeros(shape)]
        same = np.select([strategy < edge for edge in (0.5, 0.65, 0.8, 0.9, 1.0)], choices)
        estimate = expected + same * together + (1 - same) * apart
        # What is reported.
        # Expanded to the sides where the exponent is above 0, compressed where it is below.
        bent = estimate * (0.1 + np.abs(estimate) / 15.0) ** some(0.4, normal(0.15))
        by_question = np.exp(some(0.8, np.abs(normal(0.2))) * rng.standard_normal((len(departs), 6)))
        stretched = np.take_along_axis(by_question, 3 * auditory + level, 1)
        estimate = some(0.5, np.exp(normal(0.15)), 1.0) * stretched * bent + some(0.5, normal(1.0))
        motor = np.exp(by_trial(own["log_sigma_M"]) + some(0.5, normal(0.4)) * (2 * auditory - 1))
        motor = motor * (1 + some(0.4, np.abs(normal(0.05))) * np.abs(estimate))
        freedom = some(0.3, np.exp(rng.uniform(0.7, 3.0, column)), np.inf)
        # A normal draw over the root of a chi-squared one, which tends to 1 as the degrees of freedom grow.
        finite = np.broadcast_to(np.where(np.isfinite(freedom), freedom, 1.0), shape)
        spread = np.where(np.isfinite(freedom), np.sqrt(finite / rng.chisquare(finite)), 1.0)
        response = estimate + motor * spread * rng.standard_normal(shape)
        lapse = some(0.6, 0.1 * rng.random(column) * rng.random(column), LAPSE)
        uniform = rng.uniform(*LAPSE_RANGE, shape)
        elsewhere = normal(5.0) + np.exp(rng.uniform(1.0, 3.0, column)) * rng.standard_normal(shape)
        lapsed = np.where(some(0.5, 1.0) > 0, np.clip(elsewhere, -_WIDEST, _WIDEST), uniform)
        response = np.where(rng.random(shape) < lapse, lapsed, response)
        return {"response": np.where(departs, np.clip(response, -_WIDEST, _WIDEST), response)}
