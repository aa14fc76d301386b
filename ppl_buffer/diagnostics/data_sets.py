"""Data sets at known parameters, and what a network says of them; in chunks, since they may be many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ppl_buffer.diagnostics.simulations import observe_sets
from ppl_buffer.diagnostics.statistics import Arrays
from ppl_buffer.files import to_numpy
from ppl_buffer.inference.chunks import map_chunks
from ppl_buffer.inference.simulation import posterior_predictive
from ppl_buffer.network.backend import Environment, backend_of
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.predictive import density
from ppl_buffer.predictive.program import in_one_program
from ppl_buffer.predictive.query import Query
from ppl_buffer.schema import Discrete, Positive, split_value

# Trials that are scored at once.
_TRIALS_AT_ONCE = 100_000
# Part of a parameter's trained range by which it is moved either way to see whether the data prefer that.
_STEP = 0.05
Update = Callable[[int], Any]


@dataclass(frozen=True)
class DataSets:
    """Data sets (sets, K) at parameters (sets,), as the network sees them.

    Attributes:
        net: the network.
        params: name -> (sets,).
        data: name -> (sets, K) of inputs, outcomes and feedback.
        context: name -> (sets, N), or None.
        likelihood: the part of the network that computes, "direct", "buffer" or "auto".
    """

    net: Network
    params: Arrays
    data: Arrays
    context: Arrays | None = None
    likelihood: str = "auto"

    @property
    def shape(self) -> tuple[int, int]:
        """Number of data sets, and of trials of each."""
        sets, trials = next(iter(self.data.values())).shape
        return sets, trials

    def first(self, count: int) -> DataSets:
        """The first ones."""
        parts = [self.params, self.data, self.context or {}]
        params, data, context = ({name: x[:count] for name, x in part.items()} for part in parts)
        return replace(self, params=params, data=data, context=None if self.context is None else context)

    def bounds(self, update: Update | None = None) -> tuple[Arrays, Arrays]:
        """Distribution function of each outcome given all before it: just below the outcome, and at it.

        Args:
            update: is told of data sets that are done.

        Returns:
            two dicts outcome -> (sets, K); equal numbers where the outcome is continuous.
        """
        schema = self.net.schema
        steps = any(isinstance(x, Discrete) for x in schema.outcomes.values())

        def both(indices: np.ndarray) -> np.ndarray:
            observed, query = self._query(indices)
            shape = (len(indices), self.shape[1], len(schema.outcomes))
            places = [0.0, 1.0] if steps else [0.0]
            ops = backend_of(self.net).ops
            values = []
            for place in places:
                uniform = ops.number(self.net, np.full(shape, place, np.float32))
                value = in_one_program(density.cdf_values, query, observed.value, uniform, reuse=True)
                values.append(to_numpy(value).reshape(shape))
            # Rounding may leave a distribution function a little above 1.
            return np.clip(np.stack([values[0], values[-1]], -1), 0.0, 1.0)

        values = self._mapped(both, 2, update)
        lower, upper = ({name: values[..., i, end] for i, name in enumerate(schema.outcomes)} for end in (0, 1))
        return lower, upper

    def log_densities(self, update: Update | None = None) -> np.ndarray:
        """Log density of each trial given the trials before it and all parameters, (sets, K)."""

        def score(indices: np.ndarray) -> np.ndarray:
            observed, query = self._query(indices)
            return to_numpy(in_one_program(density.conditionals, query, observed.value, reuse=True))

        return self._mapped(score, 1, update)

    def representations(self, update: Update | None = None) -> np.ndarray:
        """What the network's heads read of each trial: numbers (sets, K, W) that depend on all before it."""

        def read(indices: np.ndarray) -> np.ndarray:
            observed, query = self._query(indices)
            return to_numpy(in_one_program(density.representations, query, observed.value, reuse=True))

        return self._mapped(read, 1, update)

    def scores(self, update: Update | None = None) -> Arrays:
        """Log density, and by how much it prefers larger to smaller values of each parameter: name -> (sets,)."""
        schema = self.net.schema

        def moved(indices: np.ndarray) -> np.ndarray:
            observed, query = self._query(indices, moved=True)
            return to_numpy(in_one_program(density.log_prob, query, observed.value, reuse=True)).T

        values = self._mapped(moved, 2 * len(schema.params) + 1, update)
        table = {"log density": values[:, 0]}
        for index, name in enumerate(schema.params):
            with np.errstate(invalid="ignore"):
                # Minus infinity on both sides says nothing.
                table[f"preference for larger {name}"] = np.nan_to_num(
                    values[:, 1 + 2 * index] - values[:, 2 + 2 * index], nan=0.0, posinf=1e30, neginf=-1e30
                )
        return table

    def generate(self, environment: Environment | None, seed: int) -> DataSets:
        """The network's own rollouts at the same parameters, inputs and contexts."""
        schema = self.net.schema
        inputs = {name: self.data[name] for name in schema.inputs}
        generated = posterior_predictive(
            self.net, inputs, {name: np.asarray(x, np.float32)[None] for name, x in self.params.items()},
            trials=self.shape[1], environment=environment, context=self.context, seed=seed, progress=False,
        )  # fmt: skip
        feedback = {name: x[0] for name, x in generated.feedback.items()}
        return replace(self, data={**inputs, **split_value(schema, generated.value[0]), **feedback})

    def _mapped(self, function: Callable[[np.ndarray], np.ndarray], passes: int, update: Update | None) -> np.ndarray:
        sets, trials = self.shape
        size = min(sets, max(1, _TRIALS_AT_ONCE // (trials * passes)))
        return map_chunks(function, sets, size, update)

    def _query(self, indices: np.ndarray, moved: bool = False) -> tuple[ObservedTrials, Query]:
        observed = observe_sets(self.net, self.data, self.context, indices, self.likelihood)
        params = {name: np.asarray(x[indices], np.float32) for name, x in self.params.items()}
        if moved:
            params = self._moved(params, indices)
        query = Query.build(
            self.net, observed, params=params, outside="ignore", likelihood=self.likelihood, expand=False
        )
        return observed, query

    def _moved(self, params: Arrays, indices: np.ndarray) -> Arrays:
        """Parameters (1 + 2 P, sets): as they are, and with each in turn moved up and down.

        One that outcomes lie above goes at most half the way to the least outcome, beyond which all data sets are
        equally impossible, whatever a network has learnt.
        """
        moved = {name: np.repeat(x[None], 1 + 2 * len(params), 0) for name, x in params.items()}
        for index, (name, base) in enumerate(params.items()):
            every = self.params[name]
            low, high = self.net.box.get(name, (float(every.min()), float(every.max()) + 1e-6))
            step = _STEP * (high - low)
            # Short of the very bounds, which may not be legal.
            edge = (low + 1e-3 * (high - low), high - 1e-3 * (high - low))
            for row, direction in ((1 + 2 * index, 1), (2 + 2 * index, -1)):
                moved[name][row] = np.clip(base + direction * step, *edge)
            least = self._least_above(name, indices)
            if least is not None:
                up = moved[name][1 + 2 * index]
                moved[name][1 + 2 * index] = np.where(least > base, np.minimum(up, (base + least) / 2), up)
        return moved

    def _least_above(self, param: str, indices: np.ndarray) -> np.ndarray | None:
        """Of each data set, (sets,), the least of the outcomes that lie above a parameter; None where none does."""
        bounded = [name for name, x in self.net.schema.outcomes.items() if isinstance(x, Positive) and x.above == param]
        values = [part[name][indices] for name in bounded for part in (self.data, self.context or {}) if name in part]
        return np.concatenate(values, -1).min(-1).astype(np.float32) if values else None
