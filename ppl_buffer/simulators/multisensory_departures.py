"""Observers who depart from the model of audio-visual causal inference, each in ways of their own."""

from __future__ import annotations

import numpy as np

from ppl_buffer.simulator import Arrays
from ppl_buffer.simulators.causal_inference import causal_inference
from ppl_buffer.simulators.multisensory import LAPSE, LAPSE_RANGE, VISUAL, AudioVisualTask

# The widest report that stays inside the lapses' range.
_WIDEST = 44.9
# Logarithms of degrees: of the widest sources of a near observer, and of the most noise of a precise one.
_NEAR, _PRECISE = np.log(3.0), np.log(0.8)


class MultisensoryDepartures(AudioVisualTask):
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

    For distillation sets: see `ppl_buffer.prepare_distillation`. The parameters of such a data set mean little.

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
        params = self.proposal(rng, size)
        for name, share, most in (("log_sigma_S", self.near, _NEAR), ("log_sigma_M", self.precise, _PRECISE)):
            lowest = rng.uniform(self.priors[name].arguments["low"], most, size)
            params[name] = np.where(rng.random(size) < share, lowest, params[name])
        return params

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """Draw reports: {"response": (size, trials)}; arguments as of the model's."""
        auditory = np.asarray(inputs["r_type"]) == 1
        level = np.asarray(inputs["V_level"], dtype=int)
        draw = _Departures(rng, auditory.shape, self.share, self.extent)
        beyond = draw.some(0.2, 1.0)
        own = {
            name: np.asarray(params[name], dtype=float)[:, None] + beyond * draw.normal(0.5)
            for name in self.schema.params
        }
        draw.start_varying()
        log_visual = np.take_along_axis(np.concatenate([own[name] for name in VISUAL], 1), level, 1)
        percepts = self._perceive(draw, own["log_sigma_A"], log_visual, inputs)
        estimate = _estimate(draw, own, log_visual, *percepts, auditory)
        response = _report(draw, own["log_sigma_M"], estimate, auditory, level)
        return {"response": np.where(draw.departs, np.clip(response, -_WIDEST, _WIDEST), response)}

    def _perceive(
        self, draw: _Departures, log_auditory: np.ndarray, log_visual: np.ndarray, inputs: Arrays
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where the sound and the flash are perceived, (size, trials)."""
        rng, shape = draw.rng, draw.shape
        growth = draw.some(0.5, np.abs(draw.normal(0.06)))
        hearing = np.exp(draw.by_trial(log_auditory)) * (1 + growth * np.abs(inputs["s_A"]))
        visual = np.exp(draw.by_trial(log_visual)) * (1 + growth * np.abs(inputs["s_V"]))
        stretched = np.exp(draw.normal(0.2)) * np.where(rng.random(draw.column) < 0.5, 1.0, 4 / 3)
        stretch = draw.some(0.6, stretched, self.rho)
        x_auditory = stretch * (inputs["s_A"] + hearing * rng.standard_normal(shape)) + draw.some(0.4, draw.normal(2.0))
        x_visual = inputs["s_V"] + visual * rng.standard_normal(shape)
        x_visual = draw.some(0.4, np.exp(draw.normal(0.1)), 1.0) * x_visual + draw.some(0.3, draw.normal(1.0))
        return x_auditory, x_visual


class _Departures:
    """Draws of how observers depart from the model, each in ways of their own: columns (size, 1).

    Args:
        rng: the only source of randomness.
        shape: (size, trials).
        share: of the observers that depart.
        extent: factor of the sizes of departures.
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], share: float, extent: float) -> None:
        self.rng, self.shape, self.extent = rng, shape, extent
        self.column = (shape[0], 1)
        self.departs = rng.random(self.column) < share
        self._varying = np.zeros(self.column)

    def normal(self, scale: float) -> np.ndarray:
        """The size of a departure of each observer."""
        return self.extent * scale * self.rng.standard_normal(self.column)

    def some(self, probability: float, value: np.ndarray | float, otherwise: np.ndarray | float = 0.0) -> np.ndarray:
        """The value for this share of those who depart."""
        return np.where(self.departs & (self.rng.random(self.column) < probability), value, otherwise)

    def start_varying(self) -> None:
        """Draw by how much each observer's parameters vary from trial to trial."""
        self._varying = self.some(0.4, np.abs(self.normal(0.4)))

    def by_trial(self, value: np.ndarray) -> np.ndarray:
        """A parameter (size, 1) as it is on each trial, (size, trials)."""
        return value + self._varying * self.rng.standard_normal(self.shape)


def _estimate(
    draw: _Departures,
    own: Arrays,
    log_visual: np.ndarray,
    x_auditory: np.ndarray,
    x_visual: np.ndarray,
    auditory: np.ndarray,
) -> np.ndarray:
    """What the observer makes of the percepts: where that which is asked for seems to be, (size, trials)."""
    rng, shape = draw.rng, draw.shape
    expected = draw.some(0.4, draw.normal(4.0))
    asked = auditory ^ (rng.random(shape) < draw.some(0.3, 0.3 * rng.random(draw.column)))
    same, together, apart = causal_inference(
        x_auditory - expected,
        x_visual - expected,
        variance_auditory=np.exp(2 * (own["log_sigma_A"] + draw.some(0.3, draw.normal(0.4)))),
        variance_visual=np.exp(2 * (log_visual + draw.some(0.3, draw.normal(0.4)))),
        variance_source=np.exp(2 * own["log_sigma_S"]),
        logit_same=draw.by_trial(own["logit_p_same"]) + draw.some(0.4, draw.normal(1.5)) * (2 * asked - 1),
        auditory=asked,
    )
    strategy = np.where(draw.departs, rng.random(draw.column), 0.0)
    choices = [same, same > 0.5, rng.random(shape) < same, np.ones(shape), np.zeros(shape)]
    same = np.select([strategy < edge for edge in (0.5, 0.65, 0.8, 0.9, 1.0)], choices)
    return expected + same * together + (1 - same) * apart


def _report(
    draw: _Departures, log_motor: np.ndarray, estimate: np.ndarray, auditory: np.ndarray, level: np.ndarray
) -> np.ndarray:
    """What is reported, lapses included, (size, trials)."""
    rng, shape, column = draw.rng, draw.shape, draw.column
    # Expanded to the sides where the exponent is above 0, compressed where it is below.
    bent = estimate * (0.1 + np.abs(estimate) / 15.0) ** draw.some(0.4, draw.normal(0.15))
    by_question = np.exp(draw.some(0.8, np.abs(draw.normal(0.2))) * rng.standard_normal((shape[0], 6)))
    stretched = np.take_along_axis(by_question, 3 * auditory + level, 1)
    estimate = draw.some(0.5, np.exp(draw.normal(0.15)), 1.0) * stretched * bent + draw.some(0.5, draw.normal(1.0))
    motor = np.exp(draw.by_trial(log_motor) + draw.some(0.5, draw.normal(0.4)) * (2 * auditory - 1))
    motor = motor * (1 + draw.some(0.4, np.abs(draw.normal(0.05))) * np.abs(estimate))
    freedom = draw.some(0.3, np.exp(rng.uniform(0.7, 3.0, column)), np.inf)
    # A normal draw over the root of a chi-squared one, which tends to 1 as the degrees of freedom grow.
    finite = np.broadcast_to(np.where(np.isfinite(freedom), freedom, 1.0), shape)
    spread = np.where(np.isfinite(freedom), np.sqrt(finite / rng.chisquare(finite)), 1.0)
    response = estimate + motor * spread * rng.standard_normal(shape)
    lapse = draw.some(0.6, 0.1 * rng.random(column) * rng.random(column), LAPSE)
    uniform = rng.uniform(*LAPSE_RANGE, shape)
    elsewhere = draw.normal(5.0) + np.exp(rng.uniform(1.0, 3.0, column)) * rng.standard_normal(shape)
    lapsed = np.where(draw.some(0.5, 1.0) > 0, np.clip(elsewhere, -_WIDEST, _WIDEST), uniform)
    return np.where(rng.random(shape) < lapse, lapsed, response)
