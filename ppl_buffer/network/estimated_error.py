"""How far a network's likelihood is from the simulator's, as far as one could tell: what its record states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ppl_buffer.checks import check_choice, check_number
from ppl_buffer.findings import counted

# Parts of a network that compute a likelihood, the one that `likelihood="auto"` prefers first.
PARTS = ("likelihood", "buffer")
PART_NAMES = {"likelihood": "direct likelihood", "buffer": "buffered transformer"}
METHODS = ("snapshots", "likelihood", "probabilities", "continuation")
# Mean shift of posterior means over its bound; see `EstimatedError.posterior_shift`.
_SHIFT = 0.5


@dataclass(frozen=True)
class EstimatedError:
    """The Kullback-Leibler divergence of a trial from the simulator to the network, where all parameters are given.

    It is the mean over data sets that the simulator draws: parameters from the prior, lengths as in the training.

    Args:
        nats_per_trial: the estimate.
        low: lower end of an interval that holds the truth with a probability of about 0.8.
        high: its upper end.
        method: how it was found. ``"snapshots"``: from what the last stretch of the training gained, on held-out data
            sets, by a law of learning; what a network of this size can never learn it does not see. ``"continuation"``:
            the same, with a short further training. ``"likelihood"``: by the simulator's own log likelihood, on
            held-out data sets. ``"probabilities"``: by its probabilities of the first outcome, the other outcomes by
            the law.
        part: of the network that it was found for, ``"likelihood"`` (direct) or ``"buffer"``.

    Raises:
        ValueError: if a number is negative or not finite, they are not in order, or a word is another.
    """

    nats_per_trial: float
    low: float
    high: float
    method: str
    part: str = "likelihood"

    def __post_init__(self) -> None:
        low = check_number("low", self.low, "a number of at least 0", lambda x: x >= 0)
        nats = check_number("nats_per_trial", self.nats_per_trial, f"a number of at least {low:g}", lambda x: x >= low)
        check_number("high", self.high, f"a number of at least {nats:g}", lambda x: x >= nats)
        check_choice("method", self.method, METHODS)
        check_choice("part", self.part, PARTS)

    def __str__(self) -> str:
        return f"about {self.nats_per_trial:.2g} ({self.low:.2g} to {self.high:.2g}) nats a trial"

    def posterior_shift(self, trials: int, parameters: int) -> float:
        """How far posterior means are off, in posterior standard deviations: the mean over parameters and data sets.

        Where the network's likelihood is that of the model at slightly other parameters, its divergence over K trials
        is half the squared distance, in posterior standard deviations, between posteriors: summed over P parameters the
        squared shifts are 2 K KL. That is the most that a divergence can do to posterior means at its first order; what
        of an error points in no parameter's direction does less. Networks of known error come to about half of it, as
        a mean of absolute shifts (0.3 to 0.9, by the model): 0.5 sqrt(2 K KL / P).

        Args:
            trials: of the data set.
            parameters: that are inferred from it.
        """
        return _SHIFT * math.sqrt(2 * trials * self.nats_per_trial / max(parameters, 1))

    def meaning(self, trials: int, parameters: int) -> str:
        """What the error means for a data set of so many trials and a posterior of so many parameters, in words."""
        total, shift = trials * self.nats_per_trial, self.posterior_shift(trials, parameters)
        return (
            f"a data set of {counted(trials, 'trial')} is off by {total:.2g} nats; expect posterior means off by about "
            f"{shift:.1g} sd"
        )

    def to_dict(self) -> dict[str, float | str]:
        """A JSON-ready description."""
        return asdict(self)

    @classmethod
    def from_dict(cls, description: Mapping[str, float | str]) -> EstimatedError:
        """Read what `to_dict` wrote."""
        return cls(**description)  # type: ignore[arg-type]


def nearest(errors: Mapping[str, EstimatedError]) -> EstimatedError | None:
    """The least error of the parts that were measured, of equal ones the direct likelihood's; None without any."""
    measured = [errors[part] for part in PARTS if part in errors]
    return min(measured, key=lambda error: error.nats_per_trial, default=None)
