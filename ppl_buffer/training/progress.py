"""Where a part's training is, beside its arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ppl_buffer.training.draws import RejectionCounts

# Updates whose gradient was no number are left out; more of them than this end the run.
_MOST_SKIPPED = 10


@dataclass
class Progress:
    """What a step changes that is no array."""

    step: int = 0
    best: float = math.inf
    skipped: int = 0
    window: list[float] = field(default_factory=lambda: [0.0, 0])  # sum and number of losses since the last log row
    losses: list[list[float]] = field(default_factory=list)  # [step, mean loss since the row before]
    held_out: list[list[float]] = field(default_factory=list)  # [step, held-out loss of the averaged weights]
    given: list[list[float]] = field(default_factory=list)  # the same, of data sets with all parameters given
    counts: RejectionCounts = field(default_factory=RejectionCounts)
    decaying: bool = False  # the learning rate falls: the state before that is kept in a file of its own
    finished: bool = False  # it has fallen to zero
    overfitted: bool = False  # held-out data were predicted ever worse, which ended the training

    def skip(self) -> None:
        """Leave out an update.

        Raises:
            FloatingPointError: if too many were left out.
        """
        self.skipped += 1
        if self.skipped > _MOST_SKIPPED and self.skipped > 0.01 * self.step:
            raise FloatingPointError(
                f"the gradient was no number in {self.skipped} of {self.step + 1} steps; lower learning_rate, or look "
                "for extreme values in what the simulator returns"
            )

    def advance(self, loss: float) -> None:
        """Count a step and its loss."""
        self.step += 1
        if math.isfinite(loss):
            self.window[0] += loss
            self.window[1] += 1
        if self.step % _log_every(self.step) == 0:
            self.note()

    def note(self) -> None:
        """Note the mean loss since the last time."""
        if self.window[1]:
            self.losses.append([self.step, self.window[0] / self.window[1]])
        self.window = [0.0, 0]

    def begin_decay(self) -> None:
        """From now on the learning rate falls."""
        self.decaying = True

    def finish(self) -> None:
        """The learning rate has fallen to zero."""
        self.finished = True
        self.note()

    def go_on(self, best: float, undecayed: bool, longer: bool) -> None:
        """Go on from a kept state.

        Args:
            best: what the best weights of the run were judged by.
            undecayed: whether the state is that before the decay.
            longer: whether the training is to be longer than it was.
        """
        self.best = best
        self.decaying = self.decaying and not undecayed
        self.finished = self.finished and not longer

    def keep_last(self, judged: float) -> float:
        """Count the last weights, judged so, as the best ones; returns their held-out loss."""
        self.best = judged
        return self.held_out[-1][1]

    def overfit(self) -> None:
        """More steps would only do harm."""
        self.overfitted = True

    def evaluate(self, loss: float, judged: float, first: bool) -> bool:
        """Note a held-out loss; returns whether its weights are to be kept: the best so far, or the first.

        Args:
            loss: the held-out loss.
            judged: by what weights are compared: the same, or the loss of a rehearsal.
            first: whether there are no others.
        """
        if math.isfinite(loss):
            self.held_out.append([self.step, loss])
        keep = first or judged < self.best
        if keep:
            self.best = judged if math.isfinite(judged) else math.inf
        return keep


def _log_every(step: int) -> int:
    """Steps between two rows of the log: a thousandth of those made, to one figure."""
    return int(10 ** max(0, len(str(step)) - 3))
