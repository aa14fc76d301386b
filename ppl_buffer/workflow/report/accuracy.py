"""What is known of a network's own error, and what it means for the data that were fitted."""

from __future__ import annotations

from dataclasses import dataclass

from ppl_buffer.network.checkpoint import load
from ppl_buffer.network.zoo import zoo
from ppl_buffer.workflow.fitting import Fit
from ppl_buffer.workflow.report.fragments import table

# Shifts of posterior means, in posterior standard deviations, from which on a report says to look closer, and not to
# trust the fit.
_LARGE_SHIFT, _HOPELESS_SHIFT = 0.25, 1.0
_HOW = {
    "snapshots": "estimated from what the last stretch of its training gained",
    "continuation": "estimated from what a further training gained",
    "likelihood": "measured by the simulator's own likelihood",
    "probabilities": "measured by the simulator's own probabilities",
}


@dataclass(frozen=True)
class Accuracy:
    """How far a fit's likelihood is from the simulator's.

    Attributes:
        statement: what is known, a sentence; empty where a card says it.
        doubt: why the fit may not be trusted; empty where nothing speaks against it.
        hopeless: whether the error is so large that the posterior is not to be used.
        name: of the shipped network that it is; empty where it is none of these.
        card: the figures of the network's card, HTML; empty where it is none of the shipped ones.
    """

    statement: str
    doubt: str
    hopeless: bool
    name: str
    card: str


def accuracy(fit: Fit) -> Accuracy:
    """What is known of the likelihood that a fit rests on."""
    error = fit.net.estimated_error
    name, card = _shipped(fit)
    if error is None:
        # A network of which nothing was measured is not to be trusted, however well its chains mix.
        doubt = (
            "Its record does not say how far this network's likelihood is from the simulator's; its card, below, says "
            "what was measured of it."
            if card
            else "Nobody has measured how far this network's likelihood is from the simulator's. Train it with a "
            "version that estimates its error, or check it: ppl-buffer check."
        )
        return Accuracy("", doubt, False, name, card)
    trials, parameters = int(fit.trials.trial_counts.max()), len(fit.net.schema.params)
    shift = error.posterior_shift(trials, parameters)
    statement = (
        f"The network's likelihood is off by {error}, {_HOW[error.method]}: {error.meaning(trials, parameters)} where "
        "it is fitted by itself."
    )
    doubt = "" if shift <= _LARGE_SHIFT else (
        f"{statement} That is {'too much to use it' if shift > _HOPELESS_SHIFT else 'much'}: train the network longer."
    )  # fmt: skip
    return Accuracy("" if doubt else statement, doubt, shift > _HOPELESS_SHIFT, name, card)


def _shipped(fit: Fit) -> tuple[str, str]:
    """Name and figures of the shipped network that it is; empty where it is none."""
    record = fit.record
    for entry in zoo():
        # The same training run, not only the same simulator.
        if entry.simulator == record.simulator and entry.measured and load(entry.name).record == record:
            rows = [(name, value) for name, value in entry.measured.items() if isinstance(value, (int, float))]
            figures = table(("", ""), rows)
            return entry.name, f"<details><summary>What was measured of this network</summary>{figures}</details>"
    return "", ""
