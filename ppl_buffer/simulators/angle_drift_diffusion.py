"""The drift-diffusion model with boundaries that collapse along straight lines: the model ``angle`` of HSSM.

Its density has a formula, which is as cheap as that of the model without collapse (Anderson 1960, The Annals of
Mathematical Statistics 31, 165-197, has it for the Wiener process between any two straight lines). With half the
separation b = b0 - c t, c = tan(angle), the evidence y from the middle, scaled as z = y / b, is in the time s, with
ds = dt / b^2 and s = t / (b0 b), a diffusion with unit variance between boundaries at -1 and 1, and drift
v b + c b z. Girsanov's theorem turns this drift into a factor that depends on the end of the path alone:

    p(+-, t) = b^-2 sqrt(b / b0) exp(c (b - y0^2 / b0) / 2 + v (+-b - y0) - v^2 t / 2) f(s; y0 / b0),

where f is the density of leaving [-1, 1] at that end without drift.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ppl_buffer.prior import Prior
from ppl_buffer.schema import Interval
from ppl_buffer.simulator import Arrays
from ppl_buffer.simulators.collapsing_drift_diffusion import first_passage
from ppl_buffer.simulators.drift_diffusion import Diffusion, check_params, decision_log_density

# Scaled time beyond which nobody is left (e**-480).
_LATEST = 390.0


class AngleDriftDiffusion(Diffusion):
    """Choices between two options, and response times, under boundaries that close in at a constant speed.

    Evidence X starts at ``starting_point * boundary`` and moves as dX = ``drift`` dt + dW, with unit variance a
    second. After t seconds the boundaries are ``boundary - 2 tan(angle) t`` apart, around the middle ``boundary / 2``;
    they meet when that is 0, and no decision takes longer. When X hits the upper one ``choice`` is 1, at the lower one
    0; the response time is that moment plus ``non_decision_time``. Given all parameters the trials are independent.

    Parameters, uniform over the box in `priors`:
        ``drift``: evidence a second.
        ``boundary``: separation of the two boundaries at the start (twice the a of HSSM and ssm-simulators).
        ``starting_point``: share of that separation, in (0, 1); 0.5 is unbiased.
        ``non_decision_time``: seconds for everything but the decision; no response is faster.
        ``angle``: of the boundaries, in radians (theta of HSSM and ssm-simulators); 0, no collapse, is trained too.
    """

    priors = Diffusion.priors | {"angle": Prior.uniform(0.0, 1.3)}
    # Whether boundaries collapse at all is what one asks first.
    atoms = {"angle": 0.0}
    schema = replace(Diffusion.schema, params={**Diffusion.schema.params, "angle": Interval(0, 1.3, closed=True)})

    def proposal(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters, wide and fast boundaries more often than the prior does: dict name -> (size,).

        There most paths reach a boundary shortly before both meet, at densities that change fast with the parameters.
        """
        params = self.prior(rng, size)
        return params | {name: self.priors[name].quantile(np.sqrt(rng.random(size))) for name in ("boundary", "angle")}

    def decide(
        self, rng: np.random.Generator, shape: tuple[int, int], **params: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Diffusion.decide`."""
        scaled = {**params, "angle": np.tan(params["angle"])}
        each = (np.broadcast_to(values, shape).ravel() for values in scaled.values())
        choice, time = first_passage(rng, _shrunk, _longest, *each)
        return choice.reshape(shape), time.reshape(shape)

    def log_likelihood(self, params: Arrays, data: Arrays) -> np.ndarray:
        """Log density of each trial's choice and response time together, (size, trials).

        Args:
            params: dict name -> (size,).
            data: ``choice`` and ``rt``, each (size, trials).
        """
        checked = {name: values[:, None] for name, values in check_params(self.schema, params).items()}
        drift, boundary, start, non_decision_time, angle = checked.values()
        time, speed, first = np.asarray(data["rt"], dtype=float) - non_decision_time, np.tan(angle), 0.5 * boundary
        half, evidence = first - speed * time, boundary * (start - 0.5)
        possible = (time > 0) & (half > 0)
        half = np.where(possible, half, first)
        scaled = np.minimum(np.where(possible, time, 1.0) / (first * half), _LATEST)
        end = np.where(np.asarray(data["choice"]) == 1, half, -half)
        exponent = 0.5 * speed * (half - evidence**2 / first) + drift * (end - evidence) - 0.5 * drift**2 * time
        driftless = decision_log_density(scaled, 0.0, 2.0, start, data["choice"])
        return np.where(possible, driftless + exponent - 1.5 * np.log(half) - 0.5 * np.log(first), -np.inf)


def _shrunk(half: np.ndarray, speed: np.ndarray, step: np.ndarray) -> np.ndarray:
    return half - speed * step


def _longest(half: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Half of the time until the boundaries meet: they are straight."""
    with np.errstate(divide="ignore"):
        return 0.5 * half / speed
