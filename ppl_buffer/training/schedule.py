"""The learning rate of a training: warm-up, constant, and a decay to zero at the end of the steps or of the time."""

from __future__ import annotations

from dataclasses import dataclass

from ppl_buffer.training.parts import LIKELIHOOD

# Share of a training in which the learning rate falls to zero.
DECAY = 0.4
# Totals that differ by less than this share of themselves are the same: what a call has left of its time depends on
# how long it took to begin.
_SAME = 0.05
# Share of the time for the direct likelihood, where the buffered transformer is trained as well: it learns faster.
_LIKELIHOOD_SHARE = 1 / 3


@dataclass(frozen=True)
class Schedule:
    """Constant, then a line down to zero (Hu et al. 2024, arXiv 2404.06395).

    Until the decay begins nothing depends on how long the training is to be: a longer one goes on from there.

    Args:
        total: length of the training, in steps or in seconds; what else is called done is in the same unit.
    """

    total: float

    def decays(self, done: float) -> bool:
        """Whether the learning rate falls."""
        return done >= (1 - DECAY) * self.total

    def factor(self, done: float) -> float:
        """The learning rate over its peak."""
        return min(1.0, max(0.0, (self.total - done) / (DECAY * self.total)))

    def longer_than(self, other: Schedule) -> bool:
        """Whether this one has something to add to the other."""
        return self.total > (1 + _SAME) * other.total


def begin_decay(done: float) -> Schedule:
    """The schedule whose decay begins now."""
    return Schedule(done / (1 - DECAY))


def warm_up(step: int, steps: int) -> float:
    """The learning rate over its peak in the first steps: a line that reaches 1 in the last of them."""
    return min(1.0, (step + 1) / steps) if steps else 1.0


def seconds_for(seconds: float, part: str, parts: int, used: float) -> float:
    """How much of a training's time is for one of its parts.

    Args:
        seconds: for the whole training.
        part: which.
        parts: how many there are.
        used: by the parts before.
    """
    if parts == 1:
        return seconds
    if part == LIKELIHOOD:
        return _LIKELIHOOD_SHARE * seconds
    return max(seconds - used, (1 - _LIKELIHOOD_SHARE) * seconds)
