"""What decides the shape of batches. NumPy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ppl_buffer.checks import check_flag, check_integer, check_number, is_integer
from ppl_buffer.schema import Schema
from ppl_buffer.training.roles import DEFAULT_CONTEXT_ONLY, Sizes


@dataclass(frozen=True)
class BatchOptions:
    """What decides the shape of batches.

    Args:
        batch_size: data sets in a batch of typical size; longer sequences come in smaller batches.
        trials: least and greatest number of trials of a sequence (ordered) or of a buffer (exchangeable).
        context: least and greatest size of the context; exchangeable only. Sizes of both are drawn log-uniformly.
        condition_masks: choices of parameters to condition on that each data set is used with.
        context_free_fraction: share of the batches without a context, where the least context is 0: likelihoods and
            evidence in one pass start without one.
        outcome_samples: how often the outcomes of a target are drawn, each time given the same parameters and past;
            the loss is the mean over them.
        use_log_likelihood: where all parameters are conditioned on, batches hold the simulator's own log likelihood.
        growing: steps in which the batches of the direct likelihood grow to their size; 0 = they have it at once.
        targets: of an exchangeable data set; None = as many as trials of its buffer.
        forecasting: share of the exchangeable data sets whose context ends where buffer and targets begin, in the order
            of an input.
        gap_filling: share of those whose buffer and targets are a stretch, with the context on both sides of it.
        in_order: share of the exchangeable data sets whose buffer is in that order.
        order_by: the input; None = the only continuous one.
        context_only: share of the targets of an exchangeable data set that see nothing of its buffer.
        missing_fraction: share of the direct likelihood's data sets in which outcomes and feedback are lost by chance.
        changing_fraction: share of the direct likelihood's batches in which parameters change from trial to trial.

    Raises:
        ValueError: if a number is not an integer, too small, or a range not in order, or a share not in [0, 1].
    """

    batch_size: int = 32
    trials: tuple[int, int] = (32, 128)
    context: tuple[int, int] = (0, 64)
    condition_masks: int = 2
    context_free_fraction: float = 0.25
    outcome_samples: int = 1
    use_log_likelihood: bool = False
    growing: int = 0
    targets: int | None = None
    forecasting: float = 0.0
    gap_filling: float = 0.0
    in_order: float = 0.0
    order_by: str | None = None
    context_only: float = DEFAULT_CONTEXT_ONLY
    missing_fraction: float = 0.0
    changing_fraction: float = 0.0

    def __post_init__(self) -> None:
        for name in ("batch_size", "condition_masks", "outcome_samples"):
            check_integer(name, getattr(self, name), 1)
        for name, least in (("trials", 1), ("context", 0)):
            value = getattr(self, name)
            pair = tuple(value) if isinstance(value, (tuple, list)) else ()
            if len(pair) != 2 or not all(is_integer(x, least) for x in pair) or pair[0] > pair[1]:
                raise ValueError(f"{name}: expected (least, greatest), integers of at least {least}, got {value!r}")
            object.__setattr__(self, name, (int(pair[0]), int(pair[1])))
        shares = "context_free_fraction", "forecasting", "gap_filling", "in_order", "context_only"
        for name in (*shares, "missing_fraction", "changing_fraction"):
            check_number(name, getattr(self, name), "a share from 0 to 1", lambda x: 0 <= x <= 1)
        check_flag("use_log_likelihood", self.use_log_likelihood)
        check_integer("growing", self.growing, 0)
        if self.targets is not None:
            check_integer("targets", self.targets, 1)

    @property
    def typical_trials(self) -> int:
        """Geometric mean of the range of trials."""
        return round(math.sqrt(self.trials[0] * self.trials[1]))

    def size(self, schema: Schema, trials: int, context: int) -> int:
        """Data sets in a batch of so many trials: data sets times trials stay about constant."""
        typical = math.sqrt(self.trials[0] * self.trials[1])
        if not schema.ordered:
            typical += math.sqrt(max(self.context[0], 1) * self.context[1])
        # As many targets as buffer trials are part of what these cost.
        own = self.targets or 0
        return max(1, round(self.batch_size * (typical + own) / (trials + context + own)))

    def sizes(self, data_sets: int, trials: int, context: int) -> Sizes:
        """Trials of exchangeable data sets by what they are."""
        return Sizes(data_sets, context, trials, trials if self.targets is None else self.targets)

    def most_trials(self, schema: Schema) -> int:
        """Trials that a data set of the largest batch holds: context, buffer and targets of an exchangeable model."""
        return self.trials[1] if schema.ordered else self.sizes(1, self.trials[1], self.context[1]).total

    def least_size(self, schema: Schema) -> int:
        """Data sets in the smallest batch."""
        return self.size(schema, self.trials[1], 0 if schema.ordered else self.context[1])
