"""Audio-visual localisation by causal inference: a continuous report that is cheap to draw and dearer to score.

The observer is that of Kording, Beierholm, Ma, Quartz, Tenenbaum & Shams (2007), "Causal inference in multisensory
perception", PLoS ONE 2, e943, as Hassan et al. (ICLR 2026, arXiv 2510.09477), appendix D.3, fit it to the experiment of
Liu, Holland, Ma & Acerbi (2026), PLOS Computational Biology 22, e1014251.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Real, Schema
from ppl_buffer.simulator import Arrays
from ppl_buffer.simulators.causal_inference import AudioVisualTrials, causal_inference, report_density

LAPSE = 0.02
LAPSE_RANGE = (-45.0, 45.0)
VISUAL = ("log_sigma_V_low", "log_sigma_V_med", "log_sigma_V_high")


def _normal(loc: float, scale: float, relative_to: str | None = None) -> Prior:
    """A normal distribution truncated two standard deviations from its mean."""
    bounds = {"low": loc - 2 * scale, "high": loc + 2 * scale}
    return Prior("TruncatedNormal", {"loc": loc, "scale": scale, **bounds}, relative_to)


_PRIORS = {
    "log_sigma_V_low": _normal(0.0, 1.5),
    "log_sigma_V_med": _normal(1.0, 1.0, relative_to="log_sigma_V_low"),
    "log_sigma_V_high": _normal(0.75, 0.5, relative_to="log_sigma_V_med"),
    "log_sigma_A": _normal(1.75, 0.5),
    "log_sigma_S": _normal(2.5, 1.0),
    "log_sigma_M": _normal(0.0, 0.5),
    "logit_p_same": _normal(1.5, 1.5),
}
# Over the same range, its ends as often as its middle.
_SPREAD = {
    name: Prior("Uniform", {end: prior.arguments[end] for end in ("low", "high")}, prior.relative_to)
    for name, prior in _PRIORS.items()
}


class AudioVisualTask(ABC):
    """The experiment, and parameters of observers in it: the base of simulators of their reports.

    Args:
        rho: stretch of the auditory percept. 1 = none; 4/3 maps the range of the sounds, 30 degrees, to that of the
            flashes, 40 degrees.

    Raises:
        ValueError: if rho is not a finite number above 0.
    """

    priors = _PRIORS
    schema = Schema(
        params={name: Real() for name in priors},
        inputs={"r_type": Categorical(2), "s_A": Real(), "s_V": Real(), "V_level": Categorical(3)},
        outcomes={"response": Real(lapse_range=LAPSE_RANGE)},
        ordered=False,
        independent=True,
        lapse_rate=LAPSE,
    )

    def __init__(self, rho: float = 1.0) -> None:
        if isinstance(rho, bool) or not isinstance(rho, (int, float)) or not (math.isfinite(rho) and rho > 0):
            raise ValueError(f"rho: expected a finite number above 0, got {rho!r}")
        self.rho = float(rho)

    @abstractmethod
    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""

    @abstractmethod
    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """Draw reports: {"response": (size, trials)}."""

    def proposal(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters, half of the sets from the prior, half uniform over its range: dict name -> (size,)."""
        uniform = rng.random(size) < 0.5
        usual, spread = (draw_in_turn(priors, rng, size) for priors in (self.priors, _SPREAD))
        return {name: np.where(uniform, spread[name], usual[name]) for name in usual}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Draw trials as in the experiment: dict of ``r_type``, ``s_A``, ``s_V``, ``V_level``, each (size, trials).

        The sound is at -15, -10, ..., 15 degrees; the flash is there too in half of the trials, and else uniform on
        [-20, 20]. Report and noise level are drawn independently, each value equally often on average.
        """
        shape = (size, trials)
        sound = 5.0 * rng.integers(-3, 4, shape)
        flash = np.where(rng.random(shape) < 0.5, sound, rng.uniform(-20.0, 20.0, shape))
        return {"r_type": rng.integers(0, 2, shape), "s_A": sound, "s_V": flash, "V_level": rng.integers(0, 3, shape)}

    def augment(self, rng: np.random.Generator, data: Arrays) -> Arrays:
        """Mirror half of the data sets: left and right are alike to the model.

        Args:
            rng: the only source of randomness.
            data: inputs and reports, dict name -> (size, trials).
        """
        sign = np.where(rng.random((len(data["response"]), 1)) < 0.5, -1.0, 1.0)
        return {name: sign * x if name in ("s_A", "s_V", "response") else x for name, x in data.items()}


class MultisensoryCausalInference(AudioVisualTask):
    """Where a sound or a flash seems to be, to an observer who asks whether both have the same source.

    On each trial a sound at ``s_A`` and a flash at ``s_V`` (degrees) are perceived at

        x_A = rho * (s_A + eps_A),  eps_A ~ Normal(0, sigma_A),        x_V = s_V + eps_V,  eps_V ~ Normal(0, sigma_V),

    with sigma_V that of the flash's noise level. The observer takes x_A for Normal(s_A, sigma_A) and x_V for
    Normal(s_V, sigma_V), and believes that sources are Normal(0, sigma_S), and one for both (C = 1) with probability
    p_same. What is asked for is estimated by the mean over both cases,

        s_hat = p(C = 1 | x_A, x_V) E[s | x_A, x_V, C = 1] + p(C = 2 | x_A, x_V) E[s_A or s_V | x_A or x_V, C = 2],

    and reported as Normal(s_hat, sigma_M); in 2 % of the trials the report is uniform on [-45, 45] instead. The
    trials are independent given the parameters, and the likelihood of one is an integral over eps_A and eps_V.
    `log_likelihood` has it by quadrature, a tenth of a millisecond a trial, without a gradient.

    Inputs: ``r_type``, which report is asked for (0: where the flash was, BV; 1: where the sound was, BA); ``s_A``,
    ``s_V``; ``V_level``, the noise of the flash (0 low, 1 medium, 2 high). Outcome: ``response``, degrees.

    Parameters: ``log_sigma_V_low``, ``log_sigma_V_med``, ``log_sigma_V_high`` (a flash's noise at each level),
    ``log_sigma_A``, ``log_sigma_S``, ``log_sigma_M``, natural logarithms of degrees; ``logit_p_same``. Their priors are
    normal, truncated two standard deviations from the mean; that of a flash's noise is relative to the noise at the
    level below.

    Args:
        rho: stretch of the auditory percept. 1 = none; 4/3 maps the range of the sounds, 30 degrees, to that of the
            flashes, 40 degrees. It is known, not a parameter: one network a value.

    Raises:
        ValueError: if rho is not a finite number above 0.
    """

    def __init__(self, rho: float = 1.0) -> None:
        super().__init__(rho)
        self.name = f"MultisensoryCausalInference(rho={self.rho:.4g})"

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        return draw_in_turn(self.priors, rng, size)

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """Draw reports: {"response": (size, trials)}.

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: dict name -> (size, trials), any stimuli, not only those of `inputs`.
        """
        trial = _trials(params, inputs)
        shape = trial.auditory.shape
        x_auditory = self.rho * (trial.sound + trial.hearing * rng.standard_normal(shape))
        x_visual = trial.flash + trial.seeing * rng.standard_normal(shape)
        variances = trial.hearing**2, trial.seeing**2, trial.source_variance
        same, together, apart = causal_inference(x_auditory, x_visual, *variances, trial.logit_same, trial.auditory)
        estimate = same * together + (1 - same) * apart
        response = estimate + trial.motor * rng.standard_normal(shape)
        return {"response": np.where(rng.random(shape) < LAPSE, rng.uniform(*LAPSE_RANGE, shape), response)}

    def log_likelihood(self, params: Arrays, data: Arrays) -> np.ndarray:
        """Log density of each report, lapses included, (size, trials), within about 1e-4.

        Args:
            params: dict name -> (size,).
            data: inputs and ``response``, each (size, trials).
        """
        response = np.asarray(data["response"], dtype=float)
        density = report_density(_trials(params, data), response, self.rho)
        low, high = LAPSE_RANGE
        lapse = np.where((response >= low) & (response <= high), LAPSE / (high - low), 0.0)
        with np.errstate(divide="ignore"):  # where neither a lapse nor the observer can go
            return np.log((1 - LAPSE) * density + lapse)


def _trials(params: Arrays, inputs: Arrays) -> AudioVisualTrials:
    """Trials (size, trials) of observers with these parameters, (size,)."""
    level = np.asarray(inputs["V_level"], dtype=int)
    seeing = np.take_along_axis(np.stack([params[name] for name in VISUAL], -1), level, 1)
    names = ("log_sigma_A", "log_sigma_M", "log_sigma_S", "logit_p_same")
    hearing, motor, sources, logit_same = (
        np.broadcast_to(np.asarray(params[name], dtype=float)[:, None], level.shape) for name in names
    )
    return AudioVisualTrials(
        sound=np.asarray(inputs["s_A"], dtype=float),
        flash=np.asarray(inputs["s_V"], dtype=float),
        auditory=np.asarray(inputs["r_type"]) == 1,
        hearing=np.exp(hearing),
        seeing=np.exp(seeing),
        motor=np.exp(motor),
        source_variance=np.exp(2 * sources),
        logit_same=logit_same,
    )


def draw_in_turn(priors: Mapping[str, Prior], rng: np.random.Generator, size: int) -> Arrays:
    """Draws (size,) of parameters, each from its prior, which may be relative to an earlier one."""
    params: Arrays = {}
    for name, prior in priors.items():
        start = 0.0 if prior.relative_to is None else params[prior.relative_to]
        params[name] = start + prior.sample(rng, size)
    return params
