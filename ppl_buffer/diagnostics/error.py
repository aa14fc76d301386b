"""The error of a network's likelihood in nats a trial: exact, where the simulator knows its own; else a lower bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_buffer.checks import check_number
from ppl_buffer.diagnostics.data_sets import DataSets
from ppl_buffer.diagnostics.residual import find_residuals
from ppl_buffer.diagnostics.statistics import Arrays
from ppl_buffer.network.estimated_error import EstimatedError
from ppl_buffer.simulator import Simulator, WithLogLikelihood
from ppl_buffer.training.log_likelihoods import known_log_likelihood

# An interval of so many standard errors either way holds the truth with a probability of about 0.8.
_INTERVAL = 1.2816
LogLikelihood = Callable[[Arrays, Arrays], np.ndarray]


@dataclass(frozen=True)
class MeasuredError:
    """The Kullback-Leibler divergence from the simulator to the network given all parameters, as a check measured it.

    Attributes:
        nats_per_trial: the estimate; of a lower bound, the bound's.
        standard_error: of it, over data sets.
        method: ``"likelihood"``, by the simulator's own log likelihood; or ``"residual"``, what a function of the
            history predicts beyond the network, which bounds the error from below.
    """

    nats_per_trial: float
    standard_error: float
    method: str

    @property
    def low(self) -> float:
        """Lower end of an interval that holds the truth with a probability of about 0.8."""
        return max(0.0, self.nats_per_trial - _INTERVAL * self.standard_error)

    @property
    def high(self) -> float:
        """Its upper end; infinite where the error is only bounded from below."""
        if self.method == "residual":
            return math.inf
        return max(0.0, self.nats_per_trial + _INTERVAL * self.standard_error)

    def __str__(self) -> str:
        if self.method == "likelihood":
            return f"{self.nats_per_trial:.2g} ({self.low:.2g} to {self.high:.2g}) nats a trial"
        return f"at least {self.low:.2g} nats a trial"

    def p(self, tolerance: float) -> float:
        """Probability that an estimate is as large where the error is as large as is tolerated."""
        from scipy.stats import norm

        return float(norm.sf((self.nats_per_trial - tolerance) / max(self.standard_error, 1e-30)))


def check_tolerance(tolerance: float) -> float:
    """Refuse a tolerance that is no number of nats."""
    return check_number("tolerance", tolerance, "a number of nats a trial, at least 0", lambda x: x >= 0)


def known_error(exact: np.ndarray, computed: np.ndarray) -> MeasuredError:
    """The error from log densities (sets, K), the simulator's own and the network's."""
    by_set = (exact - computed).mean(-1)
    return MeasuredError(float(by_set.mean()), float(by_set.std(ddof=1) / math.sqrt(len(by_set))), "likelihood")


def simulators_log_likelihood(simulator: Simulator) -> LogLikelihood | None:
    """The simulator's own log likelihood, checked, of parameters (sets,) and data (sets, K); None where it has none."""
    if not isinstance(simulator, WithLogLikelihood):
        return None
    knowing, schema = simulator, simulator.schema
    return lambda params, data: known_log_likelihood(knowing, schema, params, data)


@dataclass(frozen=True)
class LikelihoodTest:
    """Whether an error of a likelihood shows, and how large it is. Made by `measure_error`.

    Attributes:
        error: as measured.
        residuals: what of the outcomes the history might predict beyond the network -> p; empty where the error is
            known.
        tolerance: nats a trial that are no failure, where the error is known.
    """

    error: MeasuredError
    residuals: dict[str, float]
    tolerance: float

    def rows(self, level: float) -> list[tuple[str, str, float, float, bool]]:
        """What it means for a verdict: comparison, what, nats a trial, p, passed.

        Args:
            level: probability that a right network passes a check; half of 1 - level is shared by these rows.
        """
        nats, chance = self.error.nats_per_trial, (1 - level) / 2
        if self.error.method == "likelihood":
            p = self.error.p(self.tolerance)
            return [("error", f"above {self.tolerance:g} nats a trial", nats, p, p >= chance)]
        return [("residual", what, nats, p, p >= chance / len(self.residuals)) for what, p in self.residuals.items()]

    def describe(self, level: float) -> str:
        """The error in words, at the level of a check."""
        if self.error.method == "likelihood" or self.error.low > 0:
            return str(self.error)
        return "none found" if all(row[-1] for row in self.rows(level)) else "found, its size too small to bound"

    def plot(self, panel: Any, level: float, stated: EstimatedError | None = None) -> None:
        """Draw what was measured, and what the network's record states, on matplotlib axes: nats a trial."""
        error, known = self.error, self.error.method == "likelihood"
        color = "C0" if all(row[-1] for row in self.rows(level)) else "C3"
        largest = max(error.nats_per_trial, error.low, self.tolerance, 0.0 if stated is None else stated.high)
        top = 1.3 * max(largest, error.high if known else 0.0)
        if known or error.low > 0:
            panel.plot([0, 0], [error.low, min(error.high, top)], color=color, linewidth=3, solid_capstyle="butt")
            panel.plot([0], [error.nats_per_trial if known else error.low], "_", color=color, markersize=16)
        else:
            words = self.describe(level).replace(" ", "\n")
            panel.text(0, 0.5 * top, words, color=color, ha="center", va="center")
        if stated is not None:
            panel.plot([1, 1], [stated.low, stated.high], color="0.5", linewidth=3, solid_capstyle="butt")
            panel.plot([1], [stated.nats_per_trial], "_", color="0.5", markersize=16)
        if known:
            panel.axhline(self.tolerance, color="0.6", linewidth=0.8, linestyle="--")
        ticks = ["exact" if known else "at least"] + ["training's\nestimate"] * (stated is not None)
        panel.set_xticks(range(len(ticks)), ticks)
        panel.set(title="error", ylabel="nats a trial", ylim=(0, top), xlim=(-0.7, len(ticks) - 0.3))


def measure_error(
    simulated: DataSets, lower: Arrays, upper: Arrays, log_likelihood: LogLikelihood | None, tolerance: float
) -> LikelihoodTest:
    """The error by the simulator's log likelihood, or else by a residual test.

    Args:
        simulated: data sets of the simulator.
        lower: what `DataSets.bounds` returned for them.
        upper: the same.
        log_likelihood: what `simulators_log_likelihood` returned.
        tolerance: nats a trial that are no failure, where the error is known.
    """
    if log_likelihood is not None and simulated.context is None:
        error = known_error(log_likelihood(simulated.params, simulated.data), simulated.log_densities())
        return LikelihoodTest(error, {}, tolerance)
    read = simulated.representations()
    test = find_residuals(simulated.net.schema, simulated.params, simulated.data, lower, upper, read)
    error = MeasuredError(max(0.0, test.gain), test.standard_error, "residual")
    return LikelihoodTest(error, {residual.what: residual.p for residual in test.residuals}, tolerance)
