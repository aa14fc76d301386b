"""All of a joint predictive that is known when a model is written, and functions of the values that come later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from ppl_buffer.network.backend import Array, Environment
from ppl_buffer.network.jax.weights import JaxNetwork
from ppl_buffer.network.lapses import Lapse
from ppl_buffer.network.layout import broadcasts_to
from ppl_buffer.network.observed import EncodedContext, ObservedTrials
from ppl_buffer.predictive import density, sampling
from ppl_buffer.predictive.query import Query
from ppl_buffer.schema import Discrete, split_value

# The lowest number above zero: the normal quantile of 0 is infinite.
_LEAST = float(jnp.finfo(jnp.float32).tiny)


@dataclass(frozen=True)
class Options:
    """The arguments of a joint predictive that hold no values of the model."""

    trials: int | None = None
    context: Mapping[str, Array] | EncodedContext | None = None
    feedback: Mapping[str, Array] | None = None
    trial_mask: Array = None
    orders: int | Array | None = None
    block: int | None = None
    environment: Environment | None = None
    outside: str = "warn"
    likelihood: str = "auto"


@dataclass(frozen=True, eq=False, repr=False)
class Definition:
    """A joint predictive whose parameters are still to come, as arrays in the order `params`, `trial_params`, lapse.

    Attributes:
        net: the network.
        inputs: dict name -> (*B, K), or observed trials.
        options: all other arguments.
        params: names of the parameters that are given.
        trial_params: names of those that vary by trial.
        lapse: the ranges of lapses, whose rate comes later; None without lapses.
        known: a query of the same shapes, whose parameters are examples.
    """

    net: JaxNetwork
    inputs: Mapping[str, Array] | ObservedTrials
    options: Options
    params: tuple[str, ...]
    trial_params: tuple[str, ...]
    lapse: Lapse | None
    known: Query

    @classmethod
    def build(
        cls,
        net: JaxNetwork,
        inputs: Mapping[str, Array] | ObservedTrials,
        options: Options,
        params: Mapping[str, np.ndarray],
        trial_params: Mapping[str, np.ndarray],
        lapse: Lapse | None,
    ) -> Definition:
        """Check everything once, with examples of the values that come later: arrays of their shapes."""
        known = Query.build(net, inputs, params=params, trial_params=trial_params or None, lapse=lapse, **vars(options))
        if known.missing is not None:
            raise ValueError(
                "inputs: expected trials observed without missing answers, since PyMC takes NaN in observed values for "
                "values to sample; use NumPyro or Pyro, or leave such trials out (trial_mask)"
            )
        ranges = None if lapse is None else Lapse(0.0, lapse.ranges)
        return cls(net, inputs, options, tuple(params), tuple(trial_params), ranges, known)

    def __repr__(self) -> str:
        given = [*self.params, *self.trial_params, *([] if self.lapse is None else ["lapse"])]
        return f"{self.known.trials} trials given {', '.join(given) or 'no parameter'}"

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(K,) for one outcome, (K, n_outcomes) for several."""
        return self.known.event_shape

    @property
    def trailing(self) -> list[int]:
        """Number of dimensions of each array behind its batch dimensions."""
        return [0] * len(self.params) + [1] * len(self.trial_params) + [0] * (self.lapse is not None)

    @property
    def signature(self) -> str:
        """Dimensions of the arrays that come later and of a value, in the words of NumPy's generalised functions."""
        values = self.known.trials
        if isinstance(self.inputs, ObservedTrials) and self.inputs.condition_count is not None:
            values = self.inputs.condition_count
        arrays = [f"({values})" if dims else "()" for dims in self.trailing]
        return f"{','.join(arrays)}->({','.join(map(str, self.event_shape))})"

    @cached_property
    def data_shape(self) -> tuple[int, ...]:
        """Batch dimensions of all that is known, the values that come later left out."""
        return replace(self.known, params={}, trial_params={}, condition_params={}, lapse=None).batch_shape

    @property
    def is_discrete(self) -> bool:
        """Whether a value holds whole numbers alone."""
        return all(isinstance(variable, Discrete) for variable in self.net.schema.outcomes.values())

    @property
    def fill(self) -> np.ndarray:
        """A legal value of one data set, of the event's shape."""
        fills = [variable.fill for variable in self.net.schema.outcomes.values()]
        return np.broadcast_to(fills if len(self.event_shape) > 1 else fills[0], self.event_shape)

    def arrays_of(self, inputs: Sequence[Array]) -> list[Array]:
        """The parameters among the inputs of a random variable: the generator and the size come before them."""
        return list(inputs[2:])

    def query(self, arrays: Sequence[Array]) -> Query:
        """The query at given values of the parameters."""
        named = dict(zip((*self.params, *self.trial_params), arrays, strict=self.lapse is None))
        return Query.build(
            self.net,
            self.inputs,
            params={name: named[name] for name in self.params},
            trial_params={name: named[name] for name in self.trial_params} or None,
            lapse=None if self.lapse is None else self.lapse.at(arrays[-1]),
            check=False,
            **vars(self.options),
        )

    def is_observed(self, value: np.ndarray) -> bool:
        """Whether a value is the one that was observed, so that what was computed of it can be read again."""
        observed = self.known.observed
        if observed is None or self.options.block is not None or self.options.orders is not None:
            return False
        known = np.asarray(observed.snapshot)
        if known.shape != value.shape:
            return False
        exists = np.asarray(observed.trial_mask)
        exists = exists[..., None] if len(self.event_shape) > 1 else exists
        return bool(np.all((value.astype(known.dtype) == known) | ~exists))

    # Functions of arrays ------------------------------------------------------------------------------------------

    @cached_property
    def log_density_observed(self) -> Callable[..., Array]:
        """Log density (*B,) of what was observed, as a function of the arrays."""
        observed = self.known.observed
        assert observed is not None
        return lambda *arrays: density.log_prob(self.query(arrays), observed.value, True)

    @cached_property
    def log_density(self) -> Callable[..., Array]:
        """Log density (*B,) as a function of a value and the arrays."""
        return lambda value, *arrays: density.log_prob(self.query(arrays), value, False)

    @cached_property
    def conditionals_observed(self) -> Callable[..., Array]:
        """Log densities (*B, K) of the trials that were observed, as a function of the arrays."""
        observed = self.known.observed
        assert observed is not None
        return lambda *arrays: density.conditionals(self.query(arrays), observed.value, True)

    @cached_property
    def conditionals(self) -> Callable[..., Array]:
        """Log densities (*B, K) of the trials as a function of a value and the arrays."""
        return lambda value, *arrays: density.conditionals(self.query(arrays), value, False)

    @cached_property
    def _rollout(self) -> Callable[..., Array]:
        return jax.jit(lambda noise, *arrays: sampling.rollout(self.query(arrays), noise)[0])

    def draw(self, rng: np.random.Generator, arrays: Sequence[np.ndarray], size: Sequence[int]) -> np.ndarray:
        """Draw a value (*size, *event) by the rollout.

        Raises:
            ValueError: if the schema has feedback and there is no environment.
        """
        noise = rng.random(sampling.noise_shape(self.known, (), size), np.float32)
        value = np.asarray(self._rollout(np.maximum(noise, _LEAST), *arrays))
        return np.round(value).astype(np.int64) if self.is_discrete else value

    def check_value(self, value: np.ndarray) -> np.ndarray:
        """A value to observe, legal numbers where there is no trial.

        Raises:
            ValueError: if its last dimensions are not the event shape, or a trial that exists has no outcome.
        """
        lead = value.ndim - len(self.event_shape)
        if (
            lead < 0
            or value.shape[lead:] != self.event_shape
            or not broadcasts_to(self.known.batch_shape, value.shape[:lead])
        ):
            expected = (*self.known.batch_shape, *self.event_shape)
            raise ValueError(f"observed: expected shape {expected}, or one that it broadcasts to, got {value.shape}")
        mask = self.known.trial_mask
        if mask is not None:
            exists = np.asarray(mask)
            value = np.where(exists[..., None] if len(self.event_shape) > 1 else exists, value, self.fill)
        for name, column in split_value(self.net.schema, value).items():
            if np.isnan(column).any():
                raise ValueError(
                    f"observed: expected an outcome {name!r} in every trial, got NaN; give trial_mask to say which "
                    f"trials there are"
                )
        return value
