"""A table with an outcome as what a network of regression tables reads: on the scale of its known rows, and back."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ppl_buffer.checks import check_numbers
from ppl_buffer.simulator import Arrays
from ppl_buffer.simulators.regression_table import COLUMNS, LARGEST_FEATURE

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class TableScale:
    """The scale on which a network trained on `ppl_buffer.simulators.RegressionTable` reads a table.

    It is that of the known rows, the network's context: nothing of the rows that are to be predicted goes into it.

        scale = TableScale.of(known[["age", "dose"]], known["response"])
        net = pb.load("table")
        context = scale.context(known[["age", "dose"]], known["response"])
        predictive = JointPredictive(net, scale.inputs(new[["age", "dose"]]), context=context)

    is a joint distribution of standardised outcomes. In their own units it is, in Pyro or NumPyro,

        TransformedDistribution(predictive, AffineTransform(scale.outcome_mean, scale.outcome_std))

    A feature is a number; leave cells that are missing NaN. A few categories may be numbers too, best in an order that
    means something.

    Attributes:
        columns: names of the features, where they came as a data frame.
        mean: (features,), of the known cells of each.
        std: (features,), likewise; infinite of a feature that is constant or unknown in all of these rows: it counts
            as missing.
        outcome_mean: of the known rows.
        outcome_std: likewise.
    """

    columns: tuple[str, ...] | None
    mean: np.ndarray
    std: np.ndarray
    outcome_mean: float
    outcome_std: float

    @classmethod
    def of(cls, features: ArrayLike | pandas.DataFrame, outcome: ArrayLike) -> TableScale:
        """The scale of known rows.

        Args:
            features: (rows, features), at most five; NaN where a cell is missing. A data frame, or an array.
            outcome: (rows,).

        Raises:
            ValueError: if there are too many features, what is no number, fewer than two rows, or the outcome is
                constant or missing somewhere.
        """
        columns, x = _read_features(features)
        y = _read_outcome(outcome, len(x))
        if len(y) < 2 or not np.ptp(y):
            raise ValueError(f"outcome: expected values that differ, to know their scale, got {y[:3].tolist()}")
        seen = ~np.isnan(x)
        count = np.maximum(seen.sum(0), 1)
        mean = np.where(seen, x, 0.0).sum(0) / count
        std = np.sqrt((np.where(seen, x - mean, 0.0) ** 2).sum(0) / count)
        # What rounding leaves of a constant is none.
        std = np.where(std > 1e-9 * np.maximum(1e-300, np.abs(mean)), std, np.inf)
        return cls(columns, mean, std, float(y.mean()), float(y.std()))

    def inputs(self, features: ArrayLike | pandas.DataFrame) -> Arrays:
        """Rows as the network's inputs: ``x1`` to ``x5``, ``x1_missing`` to ``x5_missing``, each (rows,).

        Standardised features, cut off at a magnitude of 10; 0 where a cell is missing or the table has no such feature.

        Args:
            features: (rows, features), the same as those of the known rows, in the same order.

        Raises:
            ValueError: if they are others, or no numbers.
        """
        columns, x = _read_features(features)
        if x.shape[1] != len(self.mean) or None not in (columns, self.columns) and columns != self.columns:
            known = list(self.columns) if self.columns else f"{len(self.mean)} columns"
            raise ValueError(
                f"features: expected those of the known rows, {known}, got {list(columns) if columns else x.shape}"
            )
        missing = np.ones((len(x), COLUMNS), bool)
        missing[:, : x.shape[1]] = unknown = np.isnan(x) | np.isinf(self.std)
        values = np.zeros(missing.shape)
        values[:, : x.shape[1]] = np.where(unknown, 0.0, (x - self.mean) / self.std)
        values = np.clip(values, -LARGEST_FEATURE, LARGEST_FEATURE)
        inputs = {f"x{index + 1}": values[:, index] for index in range(COLUMNS)}
        return inputs | {f"x{index + 1}_missing": missing[:, index].astype(np.int64) for index in range(COLUMNS)}

    def context(self, features: ArrayLike | pandas.DataFrame, outcome: ArrayLike) -> Arrays:
        """Known rows as a network's context: `inputs`, and the standardised outcome ``y``."""
        inputs = self.inputs(features)
        return {**inputs, "y": self.standardise(_read_outcome(outcome, len(inputs["x1"])))}

    def standardise(self, outcome: ArrayLike) -> np.ndarray:
        """Outcomes in their own units, of any shape, as the network has them."""
        return (check_numbers("outcome", outcome) - self.outcome_mean) / self.outcome_std

    def in_units(self, standardised: ArrayLike) -> np.ndarray:
        """Inverse of `standardise`: outcomes of the network in their own units."""
        return check_numbers("standardised", standardised) * self.outcome_std + self.outcome_mean

    @property
    def log_slope(self) -> float:
        """Log derivative of `standardise`: to be added, for each row, to a log density of the network's."""
        return -math.log(self.outcome_std)


def _read_features(features: ArrayLike | pandas.DataFrame) -> tuple[tuple[str, ...] | None, np.ndarray]:
    """Names of the columns, where there are any, and the cells: (rows, columns)."""
    library, columns = sys.modules.get("pandas"), None
    if library is not None and isinstance(features, library.DataFrame):
        columns = tuple(map(str, features.columns))
        cells = [_read_column(name, features.iloc[:, index]) for index, name in enumerate(columns)]
        x = np.stack(cells, 1) if cells else np.zeros((len(features), 0))
    else:
        x = check_numbers("features", features)
    if x.ndim != 2 or not 1 <= x.shape[1] <= COLUMNS:
        raise ValueError(f"features: expected (rows, features) with one to {COLUMNS} features, got shape {x.shape}")
    if np.isinf(x).any():
        raise ValueError("features: expected finite numbers, and NaN where a cell is missing, got an infinite one")
    return columns, x


def _read_column(name: str, column: pandas.Series) -> np.ndarray:
    try:
        return np.asarray(column.astype("Float64").to_numpy(dtype=float, na_value=np.nan))
    except (TypeError, ValueError):
        raise ValueError(
            f"features: expected numbers in the column {name!r}, got {column.dtype}; write a time as hours or days, a "
            "category as a number"
        ) from None


def _read_outcome(outcome: ArrayLike, rows: int) -> np.ndarray:
    y = check_numbers("outcome", outcome)
    if y.shape != (rows,) or not np.isfinite(y).all():
        got = f"shape {y.shape}" if y.shape != (rows,) else "one that is missing; leave such rows out"
        raise ValueError(f"outcome: expected a finite number for each of {rows} rows, got {got}")
    return y
