"""A sum of log predictive densities, and the difference of two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppl_buffer.arviz import terms
from ppl_buffer.findings import counted

if TYPE_CHECKING:
    from xarray import DataArray

MEANING = {
    "loo": "each trial one step ahead, in sample: later trials have informed the parameters",
    "logo": "all trials of a person together, from the other people",
    "kfold": "all trials of a person together, from people of other folds",
    "lfo": "each trial from the person's earlier trials and the other people",
    "leave_one_out": "each trial from all others of its set, over the network's training prior",
}


@dataclass(frozen=True)
class Score:
    """A sum of log predictive densities, and what it is made of.

    Attributes:
        kind: which score, a key of `MEANING`.
        pointwise: the terms of the sum: one a trial, or one a person. Its coordinates say whose
            trial it is; a coordinate `outcomes`, where there is one, holds a checksum of what was observed.
        pareto_k: of the same shape: diagnostic of the importance sampling; None where there is none.
        draws: number of posterior draws; None where there are none.
        refitted: how many terms are exact, by a fit without them (`reloo`); their Pareto k is 0.
    """

    kind: str
    pointwise: DataArray
    pareto_k: DataArray | None = None
    draws: int | None = None
    refitted: int = 0

    @property
    def elpd(self) -> float:
        """The sum, in nats."""
        return float(self.pointwise.sum())

    @property
    def standard_error(self) -> float:
        """Standard error of the sum, from the spread of its terms as if they were independent; NaN of a single term."""
        return _error_of_sum(self.pointwise.values)

    @property
    def threshold(self) -> float:
        """Largest Pareto k at which that number of draws is enough: min(1 - 1 / log10(draws), 0.7)."""
        return 0.7 if self.draws is None else min(1 - 1 / np.log10(max(self.draws, 2)), 0.7)

    @property
    def doubtful(self) -> int:
        """Number of terms whose Pareto k is above the threshold."""
        return 0 if self.pareto_k is None else int((self.pareto_k > self.threshold).sum())

    def difference(self, other: Score) -> tuple[float, float]:
        """How much better this model predicts than another: difference of the sums, and its standard error.

        Terms are paired by their labels, in whatever order they are.

        Args:
            other: score of the same kind, of the same trials.

        Returns:
            the difference in nats, this model's minus the other's, and its standard error from the spread of the
            pairs' differences as if they were independent (NaN of a single pair).

        Raises:
            ValueError: if the kinds, the labels of people and trials, or the observed outcomes differ.
        """
        if not isinstance(other, Score):
            raise ValueError(f"other: expected a Score, got {type(other).__name__}")
        if other.kind != self.kind:
            raise ValueError(f"other: expected a score of the same kind {self.kind!r}, got {other.kind!r}")
        difference = self.pointwise.values.reshape(-1) - other.pointwise.values.reshape(-1)[_pairs(self, other)]
        return float(difference.sum()), _error_of_sum(difference)

    def __str__(self) -> str:
        error = "unknown" if math.isnan(self.standard_error) else f"{self.standard_error:.1f}"
        text = f"{self.kind}: elpd {self.elpd:.1f} (standard error {error}), {MEANING[self.kind]}"
        if self.pareto_k is not None:
            text += f"; Pareto k above {self.threshold:.2f} in {self.doubtful} of {counted(self.pareto_k.size, 'term')}"
        if self.refitted:
            text += f"; {self.refitted} fitted again without them"
        return text


def _pairs(one: Score, other: Score) -> np.ndarray:
    """For each term of a score, the index of the other's term of the same labels and outcomes."""
    labels, theirs = terms.term_labels(one.pointwise), terms.term_labels(other.pointwise)
    if labels is None or theirs is None or list(labels.names) != list(theirs.names):
        names = [None if index is None else list(index.names) for index in (labels, theirs)]
        raise ValueError(f"other: expected a score whose terms are labelled by {names[0]}, got {names[1]}")
    for index, argument in ((labels, "this score"), (theirs, "other")):
        if index.has_duplicates:
            twice = terms.label_text(index.names, index[index.duplicated()][0])
            raise ValueError(f"{argument}: expected each label once, got {twice} several times")
    lacks, more = labels.difference(theirs, sort=False), theirs.difference(labels, sort=False)
    if len(lacks) or len(more):
        parts = [
            f"{what} {len(index)} of its {counted(len(whole), 'term')}, such as "
            f"{terms.label_text(index.names, index[0])}"
            for what, index, whole in (("lacks", lacks, labels), ("has more,", more, theirs))
            if len(index)
        ]
        raise ValueError(f"other: expected a score of the same trials, got one that {' and '.join(parts)}")
    pairs = theirs.get_indexer(labels)
    if "outcomes" in one.pointwise.coords and "outcomes" in other.pointwise.coords:
        ours, others = (x.pointwise.coords["outcomes"].values.reshape(-1) for x in (one, other))
        differ = np.flatnonzero(ours != others[pairs])
        if len(differ):
            raise ValueError(
                f"other: expected a score of the same data, got other outcomes in {len(differ)} of "
                f"{counted(len(ours), 'term')}, such as {terms.label_text(labels.names, labels[differ[0]])}; where "
                "people are in another order, give from_mcmc their labels, coords={'subject': [...]}"
            )
    return pairs


def _error_of_sum(values: np.ndarray) -> float:
    """Standard error of a sum of independent values, from their spread; NaN of a single one."""
    return float(np.sqrt(values.size * values.var())) if values.size > 1 else math.nan
