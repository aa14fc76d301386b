"""What held-out data say of a part's likelihood in the course of its training. NumPy alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Columns of a table of snapshots.
_COLUMNS = ("steps", "seconds", "rates", "losses")


@dataclass(frozen=True)
class HeldOut:
    """The held-out data sets of a part that are conditioned on all parameters, and what the simulator knows of them.

    Args:
        trials: (M,), of each set.
        entropy: (M,), the loss of the simulator's own probabilities of all outcomes, in nats a trial: that of a
            perfect network where they depend on parameters and history alone, and less than that where they depend on
            more. None = not known.
        log_likelihood: (M,), the simulator's, in nats a trial; None = not known.
    """

    trials: np.ndarray
    entropy: np.ndarray | None = None
    log_likelihood: np.ndarray | None = None


@dataclass(frozen=True)
class Snapshots:
    """Held-out losses of a part's averaged weights in the course of its training, always of the same data sets.

    Args:
        part: ``"likelihood"`` or ``"buffer"``.
        steps: (S,), after which.
        seconds: (S,), of training.
        rates: (S,), the learning rate over its peak: 1, and falling to 0 in the decay.
        losses: (S, M), in nats a trial, of each data set with all parameters given.
        held_out: the data sets.
        finished: whether the decay is done.
    """

    part: str
    steps: np.ndarray
    seconds: np.ndarray
    rates: np.ndarray
    losses: np.ndarray
    held_out: HeldOut
    finished: bool = False

    def until(self, count: int) -> Snapshots:
        """The first snapshots alone."""
        steps, seconds, rates = self.steps[:count], self.seconds[:count], self.rates[:count]
        return Snapshots(self.part, steps, seconds, rates, self.losses[:count], self.held_out)

    @property
    def means(self) -> np.ndarray:
        """(S,) mean loss of a trial."""
        return self.losses @ (self.held_out.trials / self.held_out.trials.sum())

    def ends_as_good(self) -> bool:
        """Whether the last weights are not clearly worse than the best."""
        return self._as_good(-1)

    def overfits(self, patience: int) -> bool:
        """Whether each of the last so many weights is clearly worse than the best, which came before them."""
        return len(self.steps) > patience and not any(self._as_good(-back) for back in range(1, patience + 1))

    def _as_good(self, index: int) -> bool:
        """Whether weights are not clearly worse than the best: by at most two standard errors.

        Those of the difference on the same data sets, each of which counts by its trials.
        """
        weights = self.held_out.trials / self.held_out.trials.sum()
        means = self.means
        if not math.isfinite(means[index]):
            return False
        differences = self.losses[index] - self.losses[int(np.nanargmin(means))]
        mean = float(differences @ weights)
        return mean <= 2 * math.sqrt(float(((differences - mean) ** 2) @ weights**2))


class Table:
    """The snapshots of a run so far, as arrays that a file keeps.

    Args:
        arrays: what `arrays` returned; none = no snapshot yet.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray] | None = None) -> None:
        self._columns = dict(arrays or {})

    def append(self, step: int, seconds: float, rate: float, losses: np.ndarray) -> None:
        """Add a snapshot: after which step and time, at which share of the peak learning rate, and the losses (M,)."""
        row = (np.array([step]), np.array([seconds]), np.array([rate]), losses[None])
        for name, value in zip(_COLUMNS, row, strict=True):
            self._columns[name] = np.concatenate([self._columns[name], value]) if name in self._columns else value

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Name -> array, with a row a snapshot."""
        return self._columns

    def snapshots(self, part: str, held_out: HeldOut, finished: bool) -> Snapshots:
        """The snapshots, at least one."""
        steps, seconds, rates, losses = (self._columns[name] for name in _COLUMNS)
        return Snapshots(part, steps, seconds, rates, losses, held_out, finished)
