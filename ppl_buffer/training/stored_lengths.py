"""How long the data sets of a training are where nobody states it, and whether stored ones are as long."""

from __future__ import annotations

from ppl_buffer.simulator import Simulator, WithStoredSets
from ppl_buffer.stored import StoredSets
from ppl_buffer.training.batch_options import BatchOptions

Range = tuple[int, int]


def choose_lengths(
    simulator: Simulator, trials: Range | None, context: Range | None, targets: int | None = None
) -> dict[str, Range]:
    """The ranges of trials and context by their names: those stated, else the usual ones as far as stored data go.

    Args:
        simulator: what draws the data sets.
        trials: of a sequence or of a buffer; None = not stated.
        context: likewise.
        targets: of an exchangeable data set; None = as many as trials.
    """
    usual = BatchOptions(targets=targets)
    longest, largest = usual.trials[1], usual.context[1]
    if isinstance(simulator, WithStoredSets):
        stored = simulator.stored_sets
        # A buffer comes with as many targets, unless their number is stated; a sequence is both.
        own = 0 if stored.ordered or targets is None else targets
        most, times = stored.typical_trials - own, 1 if stored.ordered or own else 2
        taken = most // (times + 1) if context is None else BatchOptions(context=context).context[1]
        taken = 0 if stored.ordered else taken
        longest = min(longest, max(1, (most - taken) // times))
        stated = longest if trials is None else BatchOptions(trials=trials).trials[1]
        largest = min(largest, max(0, most - times * stated))
    return {
        "trials": (min(usual.trials[0], max(1, longest // 2)), longest) if trials is None else trials,
        "context": (usual.context[0], largest) if context is None else context,
    }


def check_stored_lengths(stored: StoredSets, trials: int) -> None:
    """Refuse batches that no data set in store could fill.

    Args:
        stored: the data sets.
        trials: of a data set in the largest batch.

    Raises:
        ValueError: naming the longest ones.
    """
    longest = min(int(stored.lengths[stored.held_out == part].max()) for part in (False, True))
    if trials > longest:
        what = "trials" if stored.ordered else "trials, context"
        needed = "" if stored.ordered else ", context, buffer and targets together"
        raise ValueError(
            f"{what}: expected sizes that stored data sets reach, whose longest have {longest} trials, got {trials}"
            f"{needed}; batches draw from data sets that are long enough"
        )
