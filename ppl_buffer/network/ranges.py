"""Where the values of inputs, outcomes and feedback lay in the training data: what a network has seen of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ppl_buffer.schema import Categorical, Schema, Variable

QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
# A continuous variable that takes no more values than this in thousands of trials takes only these.
FEW = 5


@dataclass(frozen=True)
class ValueRange:
    """Where the values of one variable lay in the training data, in the variable's units.

    Args:
        low: the smallest.
        high: the largest.
        quantiles: pairs (level, value), levels from 0.001 to 0.999; none for a category.
        medians: least and greatest median of a data set; None for a category.
        spreads: least and greatest distance of a data set's quantiles 0.1 and 0.9; None for a category.
        values: all values, where there are few: the codes of a category, rewards of 0 and 1. Else none.
        shares: how often each of `values` occurred; 0 for a code that never did.
    """

    low: float
    high: float
    quantiles: tuple[tuple[float, float], ...] = ()
    medians: tuple[float, float] | None = None
    spreads: tuple[float, float] | None = None
    values: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()

    @classmethod
    def of(cls, variable: Variable, data_sets: Iterable[np.ndarray]) -> ValueRange:
        """The range of a variable in simulated data.

        Args:
            variable: what the values are of.
            data_sets: (trials,) values of each data set; the rows of an array (data sets, trials) do.
        """
        rows = [np.asarray(row, dtype=float) for row in data_sets]
        pooled = np.concatenate(rows)
        low, high = float(pooled.min()), float(pooled.max())
        if isinstance(variable, Categorical):
            shares = np.bincount(pooled.astype(int), minlength=variable.n) / pooled.size
            return cls(low, high, values=tuple(map(float, range(variable.n))), shares=tuple(map(float, shares)))
        tenths = np.array([np.quantile(row, (0.1, 0.5, 0.9)) for row in rows])
        medians, spreads = tenths[:, 1], tenths[:, 2] - tenths[:, 0]
        values, counts = np.unique(pooled, return_counts=True)
        few = len(values) <= FEW
        return cls(
            low,
            high,
            quantiles=tuple(zip(QUANTILES, np.quantile(pooled, QUANTILES).tolist(), strict=True)),
            medians=(float(medians.min()), float(medians.max())),
            spreads=(float(spreads.min()), float(spreads.max())),
            values=tuple(values.tolist()) if few else (),
            shares=tuple((counts / pooled.size).tolist()) if few else (),
        )

    def to_dict(self) -> dict[str, object]:
        """A JSON-ready description."""
        return {name: value for name, value in vars(self).items() if value not in ((), None)}

    @classmethod
    def from_dict(cls, description: Mapping[str, object]) -> ValueRange:
        """Read what `to_dict` wrote."""
        return cls(**{name: _as_tuples(value) for name, value in description.items()})  # type: ignore[arg-type]


def ranges_of(schema: Schema, data: Mapping[str, Iterable[np.ndarray]]) -> dict[str, ValueRange]:
    """The range of every input, outcome and feedback in simulated data: name -> data sets of (trials,)."""
    variables = {**schema.inputs, **schema.outcomes, **schema.feedback}
    return {name: ValueRange.of(variable, data[name]) for name, variable in variables.items()}


def _as_tuples(value: object) -> object:
    """Lists of JSON as the tuples that they were."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
