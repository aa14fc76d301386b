"""`JointPredictive` for NumPyro: a buffered transformer as a distribution of all trials of a data set."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import random
from numpyro.distributions import constraints
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.distributions.util import is_prng_key, validate_sample

from ppl_buffer.network.jax.execution import bucket
from ppl_buffer.network.jax.weights import JaxNetwork
from ppl_buffer.network.layout import pad_last
from ppl_buffer.network.observed import EncodedContext, ObservedTrials, broadcasts_to
from ppl_buffer.ppl.docstring import ARGUMENTS
from ppl_buffer.predictive import LOOKAHEAD, Predictive, Speculation, check_sampling
from ppl_buffer.schema import Categorical, Schema, split_value

Array = jax.Array

# Methods that reuse what was computed of an observed value.
_SCORES = ("joint_log_prob", "conditionals", "cdf_values")

# Methods that take a value, and whose result has the trials on its last axis, if on any.
_BY_TRIAL = ("joint_log_prob", "conditionals", "marginals", "leave_one_out")


class TrialSupport(constraints.Constraint):
    """Values whose every existing trial holds legal outcomes.

    Args:
        schema: whose outcomes the columns are.
        trial_mask: (*B, K) bool, or None where all trials exist.
    """

    def __init__(self, schema: Schema, trials: int, trial_mask: Any = None) -> None:
        self.schema = schema
        self.trials = trials
        self.trial_mask = trial_mask

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        """1 for one outcome, 2 for several."""
        return 1 + len(self.schema.event_shape_tail)

    @property
    def is_discrete(self) -> bool:  # type: ignore[override]
        """Whether every outcome is categorical."""
        return all(isinstance(variable, Categorical) for variable in self.schema.outcomes.values())

    def __call__(self, x: Any) -> Any:
        """Whether each value is legal: (*batch,)."""
        legal = jnp.ones((), bool)
        for name, column in split_value(self.schema, jnp.asarray(x)).items():
            legal = legal & self.schema.outcomes[name].contains(jnp, column)
        if self.trial_mask is not None:
            legal = legal | ~self.trial_mask
        return legal.all(-1)

    def feasible_like(self, prototype: Any) -> Any:
        """A legal value of the prototype's shape."""
        fills = [variable.fill for variable in self.schema.outcomes.values()]
        fill = jnp.asarray(fills, jnp.result_type(float)) if self.schema.event_shape_tail else fills[0]
        return jnp.broadcast_to(fill, jnp.shape(prototype))

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[tuple[str, ...], dict[str, Any]]]:
        """The mask is data, the schema is not."""
        return (self.trial_mask,), (("trial_mask",), {"schema": self.schema, "trials": self.trials})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrialSupport) and self.schema == other.schema and self.trials == other.trials


class JointPredictive(Predictive, dist.Distribution):  # type: ignore[misc]  # noqa: D101
    __doc__ = f"""Joint predictive distribution of the outcomes of K trials, by a buffered transformer.

    `sample` is the cached autoregressive rollout, `log_prob` the one-pass joint density (Hassan et al. 2026, equations
    3 and 5). Batch shape is *B, the broadcast batch dimensions of all arguments; event shape is (K,), or
    (K, n_outcomes) with columns in the schema's order and categories as integers 0..n-1 in the value's type.

    The network is kept by identity, outside the pytree's leaves. Draws are not reparameterised: as a guide's site use
    `TraceGraph_ELBO`, since NumPyro's `Trace_ELBO` drops the score term without a word.

    {ARGUMENTS}
    Raises:
        ValueError: if an argument's names, shapes or values do not fit the schema.
    """

    arg_constraints: dict[str, Any] = {}
    reparametrized_params: list[str] = []
    has_rsample = False
    pytree_data_fields = Predictive.data_fields
    pytree_aux_fields = Predictive.static_fields

    def __init__(
        self,
        net: JaxNetwork,
        inputs: Mapping[str, Any] | ObservedTrials,
        *,
        trials: int | None = None,
        params: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | EncodedContext | None = None,
        feedback: Mapping[str, Any] | None = None,
        trial_mask: Any = None,
        orders: Any = None,
        block: int | None = None,
        environment: Callable[..., Any] | None = None,
        lapse: Any = None,
        outside: str = "warn",
        validate_args: bool | None = None,
        _history: dict[str, Any] | None = None,
    ) -> None:
        if getattr(net, "backend", None) != "jax":
            raise ValueError(f"net: expected a network loaded with backend='jax', got {type(net).__name__}")
        batch = self.set_up(
            net, inputs, trials=trials, params=params, context=context, feedback=feedback, trial_mask=trial_mask,
            orders=orders, block=block, environment=environment, lapse=lapse, outside=outside, history=_history,
            check=validate_args is not False,
        )  # fmt: skip
        event = (self.trials, *net.schema.event_shape_tail)
        dist.Distribution.__init__(self, batch, event, validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> TrialSupport:
        """Legal outcomes in every existing trial."""
        return TrialSupport(self.net.schema, self.trials, self.trial_mask)

    @classmethod
    def infer_shapes(  # type: ignore[override]
        cls, net: JaxNetwork, inputs: Mapping[str, tuple[int, ...]], *, trials: int | None = None, **shapes: Any
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Batch and event shape from the arguments' shapes: dicts name -> shape, or shapes."""
        lead = [shape[:-1] for shape in inputs.values()]
        for name, shape in shapes.items():
            trailing = 0 if name in ("params", "lapse") else 1
            given = shape.values() if isinstance(shape, Mapping) else [shape]
            lead += [one[: len(one) - trailing] for one in given]
        count = trials if trials is not None else next(iter(inputs.values()))[-1]
        return tuple(np.broadcast_shapes(*lead)), (count, *net.schema.event_shape_tail)

    def _full_shape(self, value: Array) -> tuple[int, ...]:
        lead = jnp.shape(value)[: jnp.ndim(value) - self.event_dim]
        return np.broadcast_shapes(lead, self.batch_shape, self.data_batch_shape())

    def _call(self, method: str, *arrays: Any, **static: Any) -> Any:
        """Run a method of `Predictive`, compiled where nobody else compiles."""
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((self, arrays))):
            return getattr(Predictive, method)(self, *arrays, **static)
        size = bucket(self.trials)
        if method in _BY_TRIAL and self.observed is None and size > self.trials:
            # Sequences of many lengths go through few programs: what is added does not exist, and is cut off again.
            columns = split_value(self.net.schema, arrays[0])
            fills = {name: self.net.schema.outcomes[name].fill for name in columns}
            longer = {name: pad_last(jnp, x, size - self.trials, fills[name]) for name, x in columns.items()}
            value = longer[next(iter(longer))] if len(longer) == 1 else jnp.stack(list(longer.values()), -1)
            padded = self.padded(size)
            padded._event_shape = (size, *self._event_shape[1:])
            result = padded._call(method, value, *arrays[1:], **static)
            return result if method == "joint_log_prob" else result[..., : self.trials]
        # Identity with the observed value gets lost in compilation: find it out before.
        observed = method in _SCORES and self._is_observed(arrays[0])
        return _compiled(self, method, observed, tuple(static.items()), *arrays)

    @validate_sample
    def log_prob(self, value: Any, intermediates: Any = None) -> Array:
        """Joint log density of all trials, averaged over `orders` where given: (*sample, *batch)."""
        value = jnp.asarray(value)
        self.check_value_shape(value)
        return jnp.broadcast_to(self._call("joint_log_prob", value), self._full_shape(value))

    def conditionals(self, value: Any, orders: int = 0) -> Array:
        """Log density of each trial given the trials before it: (*sample, *batch, K). They sum to `log_prob`.

        Raises:
            ValueError: if the distribution averages over `orders`, or feedback is missing.
        """
        if orders:
            return Predictive.conditionals(self, value, orders)
        result = self._call("conditionals", jnp.asarray(value))
        return jnp.broadcast_to(result, (*self._full_shape(value), self.trials))

    def marginals(self, value: Any) -> Array:
        """Log density of each trial alone, with an empty buffer: (*sample, *batch, K)."""
        return jnp.broadcast_to(self._call("marginals", jnp.asarray(value)), (*self._full_shape(value), self.trials))

    def leave_one_out(self, value: Any) -> Array:
        """Log density of each trial given all other trials (and the context): (*sample, *batch, K).

        Raises:
            ValueError: if the model is ordered.
        """
        result = self._call("leave_one_out", jnp.asarray(value))
        return jnp.broadcast_to(result, (*self._full_shape(value), self.trials))

    def pit(self, value: Any, rng_key: Any = None) -> Array:
        """Conditional distribution function at each outcome, uniform under the model: (*sample, *batch, K).

        With several outcomes a trial the result is (*sample, *batch, K, n_outcomes), each given the earlier ones.
        A category gets a random place inside its step, from `rng_key` (by default a fixed one).
        """
        value = jnp.asarray(value)
        key = random.PRNGKey(0) if rng_key is None else rng_key
        shape = (*self._full_shape(value), self.trials, len(self.net.schema.outcomes))
        result = self._call("cdf_values", value, random.uniform(key, shape))
        return jnp.broadcast_to(result, shape if self.net.schema.event_shape_tail else shape[:-1])

    def condition(self, value: Any) -> JointPredictive:
        """Distribution of the following trials given the outcomes of the first ones, (*sample, *batch, first, ...)."""
        inputs, arguments = self.conditioned(value)
        history = arguments.pop("history", None)
        return JointPredictive(self.net, inputs, **arguments, validate_args=self._validate_args, _history=history)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = (), *, method: str = "rollout") -> Array:
        """Draw values (*sample_shape, *batch, *event).

        Args:
            key: of the random numbers.
            sample_shape: how many draws.
            method: "rollout", trial after trial; or "speculative", many trials in one pass, which draws from the same
                distribution and may be faster for few draws: see `speculative_rollout`.

        Raises:
            ValueError: if the model has feedback and no `environment` supplies it, or the method is unknown or cannot
                be used with `block`.
        """
        check_sampling(method)
        if method == "speculative":
            return self.speculate(key, sample_shape).value
        return self.sample_with_feedback(key, sample_shape)[0]

    def speculate(self, key: Any, sample_shape: tuple[int, ...] = (), *, lookahead: int = LOOKAHEAD) -> Speculation:
        """Draw values as `sample(method="speculative")` does, and tell how many drafts were accepted.

        See `speculative_rollout` for what it is and where it gains.

        Args:
            key: of the random numbers.
            sample_shape: how many draws.
            lookahead: number of trials that are tested in one pass.

        Raises:
            ValueError: if the model has feedback and no `environment` supplies it, the distribution has a `block`, or
                `lookahead` is below 1.
        """
        assert is_prng_key(key)
        noise, source = _noise_and_key(key, self.noise_shape(sample_shape))
        return Speculation(*self._call("speculative_rollout", noise, source, lookahead=lookahead))

    def sample_with_feedback(self, key: Any, sample_shape: tuple[int, ...] = ()) -> tuple[Array, dict[str, Array]]:
        """`sample`, and the feedback that the environment gave: dict name -> (*sample_shape, *batch, K)."""
        assert is_prng_key(key)
        value, feedback, _ = self._call("rollout", _noise(key, self.noise_shape(sample_shape)))
        return value, feedback

    def _moments(self) -> tuple[Array, Array]:
        moments = self._call("marginal_moments")
        shape = (*np.broadcast_shapes(self.batch_shape, self.data_batch_shape()), *self.event_shape)
        return jnp.broadcast_to(moments[0], shape), jnp.broadcast_to(moments[1], shape)

    @property
    def mean(self) -> Array:
        """Mean of each outcome alone, with an empty buffer: (*batch, *event)."""
        return self._moments()[0]

    @property
    def variance(self) -> Array:
        """Variance of each outcome alone, with an empty buffer: (*batch, *event)."""
        return self._moments()[1]

    def expand(self, batch_shape: Sequence[int]) -> JointPredictive:
        """The same with batch dimensions expanded to `batch_shape`; data are not copied."""
        batch_shape = tuple(batch_shape)
        if not broadcasts_to(self.batch_shape, batch_shape):
            raise ValueError(f"batch_shape: expected one that {self.batch_shape} broadcasts to, got {batch_shape}")
        expanded = copy.copy(self)
        expanded.pad_batch(len(batch_shape))
        expanded._batch_shape = batch_shape
        return expanded

    def mask(self, mask: Any) -> Any:
        """Mask data sets, as in NumPyro; trials are masked by `trial_mask`.

        Raises:
            ValueError: if the mask has dimensions that the batch shape has not.
        """
        shape = jnp.shape(mask)
        if not broadcasts_to(shape, self.batch_shape):
            raise ValueError(
                f"mask: expected a mask of data sets, of shape {self.batch_shape}, got {shape}; it would multiply the "
                f"joint density. To leave out trials give trial_mask to JointPredictive"
            )
        return super().mask(mask)


def _noise(key: Any, shape: tuple[int, ...]) -> Array:
    # The lowest number above zero: the normal quantile of 0 is infinite.
    return random.uniform(key, shape, jnp.float32, minval=float(jnp.finfo(jnp.float32).tiny))


@partial(jax.jit, static_argnames="shape")
def _noise_and_key(key: Any, shape: tuple[int, ...]) -> tuple[Array, Array]:
    first, source = random.split(key)
    return _noise(first, shape), source


@partial(jax.jit, static_argnames=("method", "observed", "static"))
def _compiled(
    distribution: JointPredictive, method: str, observed: bool, static: tuple[tuple[str, Any], ...], *arrays: Any
) -> Any:
    distribution._known = observed
    return getattr(Predictive, method)(distribution, *arrays, **dict(static))


@promote_batch_shape.register
def _promote(d: JointPredictive) -> JointPredictive:
    promoted = copy.copy(d)
    promoted._batch_shape = np.broadcast_shapes(d.batch_shape, d.data_batch_shape())
    return promoted
