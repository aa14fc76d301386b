"""What the joint predictives of NumPyro and Pyro share: each holds a query, and `ppl_buffer.predictive` answers it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from operator import index
from typing import Any, TypeVar

import numpy as np

from ppl_buffer.network.arguments import check_outcomes
from ppl_buffer.network.backend import Array
from ppl_buffer.network.layout import broadcasts_to
from ppl_buffer.network.missing import check_events
from ppl_buffer.network.network import Network
from ppl_buffer.network.unfamiliar import warn_unfamiliar
from ppl_buffer.predictive import density, sampling
from ppl_buffer.predictive.query import Query
from ppl_buffer.schema import split_value

Self = TypeVar("Self", bound="JointPredictiveBase")


class JointPredictiveBase:
    """Joint predictive distribution of K trials, whatever the language. Its distribution class comes second.

    NumPyro's and Pyro's classes have different metaclasses, so that this one can have none: `abstractmethod` marks what
    a language adds.

    Attributes:
        query: the network and all arguments.
    """

    query: Query
    batch_shape: Any
    event_shape: Any

    @abstractmethod
    def _with(self: Self, query: Query, batch_shape: Sequence[int] | None = None) -> Self:
        """The same with another query, its batch shape by default that of the data."""

    @abstractmethod
    def _as_array(self, value: Any) -> Array:
        """A value as an array of the backend."""

    @abstractmethod
    def _compute(self, function: Callable[..., Any], *arrays: Array, **static: Any) -> Any:
        """A function of the query and of arrays."""

    @abstractmethod
    def _score(self, function: Callable[..., Array], value: Array, **static: Any) -> Array:
        """A function of the query and a value: `density.log_prob`, or one whose result ends with the trials."""

    @property
    def net(self) -> Network:
        """The network."""
        return self.query.net

    def _warn_of_value(self, value: Array) -> None:
        """Say where outcomes are unlike the training data."""
        numbers = self.net.ops.to_concrete(value)
        if numbers is not None:
            self._warn_of("value", split_value(self.net.schema, numbers))

    def _warn_of(self, group: str, arrays: Mapping[str, Array]) -> None:
        """Say which arrays (*B, K) of a group are unlike the training data."""
        if self.query.outside != "ignore":
            query = self.query
            warn_unfamiliar(self.net, {group: dict(arrays)}, query.trial_mask, query.direct, stacklevel=5)

    def _check_value(self, value: Array) -> None:
        """Refuse outcomes that cannot be, where they can be looked at."""
        query = self.query
        if query.missing is not None:
            check_events(self.net, value, query.trial_mask, query.missing, query.deadline, query.feedback)
        else:
            check_outcomes(self.net, value, query.trial_mask)

    # Densities ------------------------------------------------------------------------------------------------

    def _full_shape(self, value: Array) -> tuple[int, ...]:
        """(*sample, *batch) of a value, whose shape is checked."""
        return np.broadcast_shapes(self.query.leading_shape(value), tuple(self.batch_shape))

    def _by_trial(self, function: Callable[..., Array], value: Any, **static: Any) -> Array:
        value = self._as_array(value)
        shape = (*self._full_shape(value), self.query.trials)
        return self.net.ops.xp.broadcast_to(self._score(function, value, **static), shape)

    def conditionals(self, value: Any) -> Array:
        """Log density of each trial given the trials before it: (*sample, *batch, K). They sum to `log_prob`.

        Raises:
            ValueError: if the distribution averages over `orders`, or feedback is missing.
        """
        value = self._as_array(value)
        return self._by_trial(density.conditionals, value, reuse=self.query.matches(value))

    def marginals(self, value: Any) -> Array:
        """Log density of each trial alone, with an empty buffer: (*sample, *batch, K)."""
        return self._by_trial(density.marginals, value)

    def leave_one_out(self, value: Any) -> Array:
        """Log density of each trial given all other trials (and the context): (*sample, *batch, K).

        Raises:
            ValueError: if the model is ordered.
        """
        return self._by_trial(density.leave_one_out, value)

    def _pit(self, value: Any, draw_uniform: Callable[[tuple[int, ...]], Array]) -> Array:
        """Conditional distribution function at each outcome, a step's place from `draw_uniform` of a shape."""
        value = self._as_array(value)
        shape = (*self._full_shape(value), self.query.trials, len(self.net.schema.outcomes))
        self._check_value(value)
        result = self._compute(density.cdf_values, value, draw_uniform(shape), reuse=self.query.matches(value))
        return self.net.ops.xp.broadcast_to(result, shape if len(self.query.event_shape) > 1 else shape[:-1])

    def _moment(self, order: int) -> Array:
        moment = self._compute(density.marginal_moments)[order]
        batch = np.broadcast_shapes(tuple(self.batch_shape), self.query.batch_shape)
        return self.net.ops.xp.broadcast_to(moment, (*batch, *self.query.event_shape))

    @property
    def mean(self) -> Array:
        """Mean of each outcome alone, with an empty buffer: (*batch, *event)."""
        return self._moment(0)

    @property
    def variance(self) -> Array:
        """Variance of each outcome alone, with an empty buffer: (*batch, *event)."""
        return self._moment(1)

    # Other distributions --------------------------------------------------------------------------------------

    def condition(self: Self, value: Any) -> Self:
        """Distribution of the following trials given the outcomes of the first ones, (*sample, *batch, first, ...)."""
        return self._with(sampling.condition(self.query, value))

    def _expand(self: Self, batch_shape: Sequence[int]) -> Self:
        """The same with batch dimensions expanded to `batch_shape`; data are not copied."""
        shape = _checked_shape("batch_shape", batch_shape)
        if not broadcasts_to(self.batch_shape, shape):
            raise ValueError(f"batch_shape: expected one that {tuple(self.batch_shape)} broadcasts to, got {shape}")
        return self._with(self.query.expanded(len(shape)), shape)

    def _noise_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the uniform numbers of a rollout."""
        return sampling.noise_shape(self.query, _checked_shape("sample_shape", sample_shape), tuple(self.batch_shape))

    def _check_mask(self, shape: Sequence[int] | None, mask: object) -> None:
        """Refuse a mask of trials where the language takes one of data sets; and what has no shape, being no mask."""
        if shape is None:
            raise ValueError(f"mask: expected a boolean, or an array of booleans, got {mask!r}")
        if not broadcasts_to(shape, self.batch_shape):
            raise ValueError(
                f"mask: expected a mask of data sets, of shape {tuple(self.batch_shape)}, got {tuple(shape)}; it would "
                f"multiply the joint density. To leave out trials give trial_mask to JointPredictive"
            )


def _checked_shape(argument: str, shape: Sequence[int]) -> tuple[int, ...]:
    """A shape as a tuple of numbers; whatever is none is refused."""
    try:
        sizes = tuple(map(index, shape))
    except TypeError:
        sizes = (-1,)
    if any(size < 1 for size in sizes):
        raise ValueError(f"{argument}: expected whole numbers of at least 1 in a tuple, got {shape!r}")
    return sizes


def infer_shapes(
    net: Network, inputs: Mapping[str, Sequence[int]], trials: int | None, shapes: Mapping[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Batch and event shape from the shapes of a joint predictive's arguments: dicts name -> shape, or shapes."""
    lead = [tuple(shape[:-1]) for shape in inputs.values()]
    for name, shape in shapes.items():
        trailing = 0 if name in ("params", "lapse") else 1
        given = shape.values() if isinstance(shape, Mapping) else [shape]
        lead += [tuple(one[: len(one) - trailing]) for one in given]
    count = trials if trials is not None else next(iter(inputs.values()))[-1]
    return tuple(np.broadcast_shapes(*lead)), (count, *net.schema.event_shape_tail)
