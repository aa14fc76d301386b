"""Random regression tables: a prior over how an outcome depends on one to five features, cells of which may be missing.

What a network learns from them is regression itself, for any table (prior-fitted networks, Mueller et al. 2022, arXiv
2112.10510; Hollmann et al. 2023, arXiv 2207.01848; of joint predictions Hassan et al. 2026, arXiv 2510.09477,
appendix D.5). The prior is our own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Real, Schema
from ppl_buffer.simulator import Arrays
from ppl_buffer.simulators.random_columns import (
    draw_columns,
    draw_missing,
    fill_cells,
    on_scale_of,
    scale_rows,
    standardised,
)
from ppl_buffer.simulators.random_functions import draw_function

COLUMNS = 5
# Rows behind the scale of a shorter table, which is the beginning of one of so many.
_FEWEST = 16
# How often a table has one, two, ... features.
_SIZES = (0.15, 0.15, 0.2, 0.2, 0.3)
# Magnitude, in standard deviations, beyond which there are no features and no outcomes.
LARGEST_FEATURE, _LARGEST_OUTCOME = 10.0, 20.0
# Share of the features that an outcome depends on; share of the tables whose outcome depends on one that is not shown,
# has noise that depends on the features, is a skewed function of what it would be, or is noise alone.
_RELEVANT, _UNSEEN, _HETEROSCEDASTIC, _SKEWED, _NOISE_ALONE = 0.75, 0.2, 0.4, 0.2, 0.03


class RegressionTable:
    """Tables of one to five features and a real outcome, with rows in no order.

    Features depend on each other, are skewed or have heavy tails, few levels or many zeros, or are smooth functions of
    a hidden time. The outcome is a random function of them and noise: a sum of one to three of linear functions, small
    random networks, smooth functions, trees, products and waves. Noise has a standard deviation of 0.01 to 3 of the
    function's, may depend on the features, be heavy-tailed or skewed, or come from a feature that is not shown.

    Features are the inputs ``x1`` to ``x5``, each with a category ``x1_missing`` to ``x5_missing`` that is 1 where the
    cell is missing; there the value is 0. A table of fewer features lacks the last ones in all of its rows. Half of the
    tables lack no other cell; in the rest cells are missing by chance. What the outcome of such a row depends on is
    the value of a row that is like it.

    Features and outcome ``y`` are on the scale that a user gives them who knows only some of the rows, the context:
    mean 0 and standard deviation 1 over a random number of the rows, in a quarter of the tables over those that come
    first in the order of ``x1``. Features are then cut off at a magnitude of 10; of outcomes none exceeds 20.

    There are no parameters: the network is one of regression, not of a model.
    """

    schema = Schema(
        inputs={
            **{f"x{index}": Real() for index in range(1, COLUMNS + 1)},
            **{f"x{index}_missing": Categorical(2) for index in range(1, COLUMNS + 1)},
        },
        outcomes={"y": Real()},
        ordered=False,
        independent=False,
    )
    priors: Mapping[str, Prior] = {}

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """No parameters: {}."""
        return {}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Draw features, and which cells are missing: dict name -> (size, trials)."""
        x = draw_columns(rng, size, max(trials, _FEWEST), COLUMNS)
        count = rng.choice(COLUMNS, (size, 1, 1), p=_SIZES) + 1
        absent = np.broadcast_to(np.arange(COLUMNS) >= count, x.shape)
        missing = absent | draw_missing(rng, *x.shape)
        x = on_scale_of(x, ~missing, scale_rows(rng, x[..., 0]), np.inf)
        x = np.clip(x, -LARGEST_FEATURE, LARGEST_FEATURE)[:, :trials]
        missing = missing[:, :trials]
        values = {f"x{index + 1}": x[..., index] for index in range(COLUMNS)}
        return values | {f"x{index + 1}_missing": missing[..., index].astype(np.int64) for index in range(COLUMNS)}

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """Draw how the outcome depends on the features, and the outcomes: {"y": (size, trials)}.

        Args:
            rng: the only source of randomness.
            params: {}.
            inputs: dict name -> (size, trials); any numbers, not only those of `inputs`.
        """
        names = [f"x{index}" for index in range(1, COLUMNS + 1)]
        shown = np.stack([np.asarray(inputs[name], dtype=float) for name in names], -1)
        observed = np.stack([np.asarray(inputs[f"{name}_missing"]) == 0 for name in names], -1)
        trials = shown.shape[1]
        if trials < _FEWEST:
            more = np.broadcast_to(observed.any(1, keepdims=True), (len(shown), _FEWEST - trials, COLUMNS))
            shown = np.concatenate([shown, more * rng.standard_normal(more.shape)], 1)
            observed = np.concatenate([observed, more], 1)
        filled = standardised(fill_cells(rng, shown, observed), 1)
        y = draw_outcome(rng, filled, np.any(observed, axis=1))
        rows = scale_rows(rng, np.where(observed[..., 0], shown[..., 0], 0))
        y = on_scale_of(y[..., None], np.ones((*y.shape, 1), bool), rows, _LARGEST_OUTCOME)[..., 0]
        return {"y": y[:, :trials]}


def draw_outcome(rng: np.random.Generator, x: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Outcomes of complete tables, before they are put on a scale: (size, rows).

    Args:
        rng: the only source of randomness.
        x: (size, rows, columns), standardised.
        present: (size, columns) bool; an outcome depends on no other column.
    """
    size, rows, columns = x.shape
    # A feature more, that is not shown: a number or one of two groups.
    unseen = rng.standard_normal((size, rows, 1))
    unseen = np.where(rng.random((size, 1, 1)) < 0.5, unseen, np.sign(unseen))
    x = np.concatenate([x * present[:, None], unseen], -1)
    relevant = present & (rng.random((size, columns)) < _RELEVANT)
    # At least one.
    first = (present * rng.random((size, columns))).argmax(1)
    relevant[np.arange(size), first] = present[np.arange(size), first]
    relevance = np.concatenate([relevant, rng.random((size, 1)) < _UNSEEN], -1) * np.exp(
        rng.uniform(-1.5, 0.5, (size, columns + 1))
    )
    function = draw_function(rng, x, relevance) * (rng.random((size, 1)) >= _NOISE_ALONE)
    y = function + _noise(rng, x[..., :-1], relevance[:, :-1])
    skewed = np.flatnonzero(rng.random(size) < _SKEWED)
    # Bounded, so that few outcomes do not decide the scale.
    bounded = 4 * np.tanh(standardised(y[skewed], 1) / 4)
    y[skewed] = np.exp(rng.uniform(0.2, 0.8, (len(skewed), 1)) * bounded)
    return y


def _noise(rng: np.random.Generator, x: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Noise beside a function of standard deviation 1: (size, rows)."""
    size, rows, _ = x.shape
    shape = (size, rows)
    normal = rng.standard_normal(shape)
    kinds = np.stack([
        normal,
        rng.standard_t(4, shape) / np.sqrt(2),
        rng.laplace(size=shape) / np.sqrt(2),
        rng.exponential(size=shape) - 1,
        normal * np.where(rng.random(shape) < 0.05, 5.0, 1.0),
    ])  # fmt: skip
    kind = rng.choice(len(kinds), size, p=[0.6, 0.1, 0.1, 0.1, 0.1])
    spread = np.clip(np.exp(np.log(0.25) + 1.2 * rng.standard_normal((size, 1))), 0.01, 3.0)
    varies = np.flatnonzero(rng.random(size) < _HETEROSCEDASTIC)
    strength = rng.uniform(0.2, 1.0, (len(varies), 1))
    spread = np.broadcast_to(spread, shape).copy()
    function = draw_function(rng, x[varies], relevance[varies])
    spread[varies] *= np.exp(strength * np.clip(function, -2.5, 2.5))
    return spread * kinds[kind, np.arange(size)]
