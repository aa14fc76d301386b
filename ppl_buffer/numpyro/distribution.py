"""`JointPredictive` for NumPyro: a buffered transformer as a distribution of all trials of a data set."""

from __future__ import annotations

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

from ppl_buffer.checks import check_flag
from ppl_buffer.network.arguments import as_floating
from ppl_buffer.network.jax.execution import bucket
from ppl_buffer.network.jax.weights import JaxNetwork
from ppl_buffer.network.layout import pad_last
from ppl_buffer.network.missing import Missing
from ppl_buffer.network.missing_rule import MissingRule
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import EncodedContext, ObservedTrials
from ppl_buffer.ppl.docstring import ARGUMENTS
from ppl_buffer.ppl.joint import JointPredictiveBase, infer_shapes
from ppl_buffer.ppl.support import TrialSupportBase
from ppl_buffer.predictive import density, sampling
from ppl_buffer.predictive.query import History, Query
from ppl_buffer.predictive.sampling import LOOKAHEAD, Speculation
from ppl_buffer.schema import Schema, split_value, stack_value

Array = jax.Array

jax.tree_util.register_dataclass(History)
# The network is static and compared by identity, so that nothing stacks, reshapes or differentiates its weights.
jax.tree_util.register_dataclass(
    Query,
    data_fields=[
        "inputs",
        "params",
        "trial_params",
        "condition_params",
        "context",
        "feedback",
        "trial_mask",
        "deadline",
        "lapse",
        "observed",
        "history",
    ],
    meta_fields=[
        "net",
        "trials",
        "missing",
        "lapse_ranges",
        "orders",
        "block",
        "environment",
        "outside",
        "likelihood",
    ],
)


class TrialSupport(TrialSupportBase, constraints.ParameterFreeConstraint):  # type: ignore[misc]
    """Values whose every existing trial holds legal outcomes.

    It depends on no parameter, so that joint predictives can be components of a mixture.

    Args:
        schema: whose outcomes the columns are.
        trials: number of trials K.
        trial_mask: (*B, K) bool, or None where all trials exist.
        missing: what missing answers mean; None where there are none.
    """

    def __init__(self, schema: Schema, trials: int, trial_mask: Any = None, missing: MissingRule | None = None) -> None:
        self.schema = schema
        self.trials = trials
        self.trial_mask = trial_mask
        self.missing = missing

    def __call__(self, x: Any) -> Any:
        """Whether each value is legal: (*batch,)."""
        value, mask = jnp.asarray(x), self.trial_mask
        if mask is not None and jnp.ndim(mask) > value.ndim - self.event_dim + 1:
            # One value of many data sets, or of all components of a mixture: a density knows which trials it has.
            mask = _exists_in_all(mask)
        return self._legal_trials(jnp.float32, jnp, value, mask).all(-1)

    def feasible_like(self, prototype: Any) -> Any:
        """A legal value of the prototype's shape."""
        fills = [variable.fill for variable in self.schema.outcomes.values()]
        fill = jnp.asarray(fills, jnp.result_type(float)) if self.schema.event_shape_tail else fills[0]
        return jnp.broadcast_to(fill, jnp.shape(prototype))

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[tuple[str, ...], dict[str, Any]]]:
        """The mask is data, the schema is not."""
        return (self.trial_mask,), (
            ("trial_mask",),
            {"schema": self.schema, "trials": self.trials, "missing": self.missing},
        )

    def __eq__(self, other: object) -> bool:
        return self.eq(other)

    def eq(self, other: object, static: bool = False) -> bool:
        """Whether another constraint has the same outcomes and as many trials."""
        if not isinstance(other, TrialSupport):
            return False
        return (self.schema, self.trials, self.missing) == (other.schema, other.trials, other.missing)


class JointPredictive(JointPredictiveBase, dist.Distribution):  # type: ignore[misc]  # noqa: D101
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
    pytree_data_fields = ("query",)

    def __init__(
        self,
        net: Network,
        inputs: Mapping[str, Any] | ObservedTrials | Query,
        *,
        trials: int | None = None,
        params: Mapping[str, Any] | None = None,
        trial_params: Mapping[str, object] | None = None,
        context: Mapping[str, Any] | EncodedContext | None = None,
        feedback: Mapping[str, Any] | None = None,
        trial_mask: Any = None,
        missing: Missing | None = None,
        orders: Any = None,
        block: int | None = None,
        environment: Callable[..., Any] | None = None,
        lapse: Any = None,
        outside: str = "warn",
        likelihood: str = "auto",
        validate_args: bool | None = None,
        _batch_shape: Sequence[int] | None = None,
    ) -> None:
        if not isinstance(net, JaxNetwork):
            raise ValueError(f"net: expected a network loaded with backend='jax', got {type(net).__name__}")
        if validate_args is not None:
            check_flag("validate_args", validate_args)
        self.query = inputs if isinstance(inputs, Query) else Query.build(
            net, inputs, trials=trials, params=params, trial_params=trial_params, context=context, feedback=feedback,
            trial_mask=trial_mask, missing=missing, orders=orders, block=block, environment=environment, lapse=lapse,
            outside=outside, likelihood=likelihood, check=validate_args is not False,
        )  # fmt: skip
        batch = self.query.batch_shape if _batch_shape is None else tuple(_batch_shape)
        dist.Distribution.__init__(self, batch, self.query.event_shape, validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> TrialSupport:
        """Legal outcomes in every existing trial."""
        mask = self.query.trial_mask
        if mask is not None and mask.shape[-2:-1] == (1,) != tuple(self.batch_shape[-1:]):
            # The last dimension may be a mixture's, which values do not have.
            mask = _exists_in_all(mask)
        return TrialSupport(self.net.schema, self.query.trials, mask, self.query.missing)

    @classmethod
    def infer_shapes(  # type: ignore[override]
        cls, net: Network, inputs: Mapping[str, tuple[int, ...]], *, trials: int | None = None, **shapes: Any
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Batch and event shape from the arguments' shapes: dicts name -> shape, or shapes."""
        return infer_shapes(net, inputs, trials, shapes)

    def _with(self, query: Query, batch_shape: Sequence[int] | None = None) -> JointPredictive:
        return JointPredictive(query.net, query, validate_args=self._validate_args, _batch_shape=batch_shape)

    def _as_array(self, value: Any) -> Array:
        return value if isinstance(value, Array) else as_floating(self.net, "value", value)

    def _compute(self, function: Callable[..., Any], *arrays: Any, **static: Any) -> Any:
        if _is_traced(self.query, *arrays):
            return function(self.query, *arrays, **static)
        return _compiled(self.query, function, tuple(static.items()), *arrays)

    def _score(self, function: Callable[..., Any], value: Array, **static: Any) -> Array:
        query, size = self.query, bucket(self.query.trials)
        if query.observed is not None or size == query.trials or _is_traced(query, value):
            return self._compute(function, value, **static)
        # Sequences of many lengths go through few programs: what is added does not exist, and is cut off again.
        columns = split_value(query.net.schema, value)
        for name, x in columns.items():
            columns[name] = pad_last(jnp, x, size - query.trials, query.net.schema.outcomes[name].fill)
        longer = stack_value(jnp, query.net.schema, columns)
        result = _compiled(query.padded(size), function, tuple(static.items()), longer)
        return result if function is density.log_prob else result[..., : query.trials]

    @validate_sample
    def log_prob(self, value: Any, intermediates: Any = None) -> Array:
        """Joint log density of all trials, averaged over `orders` where given: (*sample, *batch)."""
        given, value = value, self._as_array(value)
        shape, reuse = self._full_shape(value), self.query.matches(value)
        if self._validate_args is not False and not reuse:
            # Inside a compiled program JAX's own copy of the observed numbers is hidden.
            self._warn_of_value(given if isinstance(given, np.ndarray | Array) else value)
        return jnp.broadcast_to(self._score(density.log_prob, value, reuse=reuse), shape)

    def pit(self, value: Any, rng_key: Any = None) -> Array:
        """Conditional distribution function at each outcome, uniform under the model: (*sample, *batch, K).

        With several outcomes a trial the result is (*sample, *batch, K, n_outcomes), each given the earlier ones.
        A category gets a random place inside its step, and so does an omission, which counts as the first outcome's
        last value, from `rng_key` (by default a fixed one). NaN for outcomes that are missing.

        Raises:
            ValueError: if an outcome is not legal. Where the numbers are not known yet its place is NaN.
        """
        return self._pit(value, partial(random.uniform, random.PRNGKey(0) if rng_key is None else rng_key))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = (), *, method: str = "rollout") -> Array:
        """Draw values (*sample_shape, *batch, *event).

        Args:
            key: of the random numbers.
            sample_shape: how many draws.
            method: "rollout", trial after trial; or "speculative", many trials in one pass, which draws from the same
                distribution and may be faster for few draws: see `ppl_buffer.predictive.sampling.speculative_rollout`.

        Raises:
            ValueError: if the model has feedback and no `environment` supplies it, or the method is unknown or cannot
                be used with `block`.
        """
        sampling.check_method(method)
        if method == "speculative":
            return self.speculate(key, sample_shape).value
        return self.sample_with_feedback(key, sample_shape)[0]

    def speculate(self, key: Any, sample_shape: tuple[int, ...] = (), *, lookahead: int = LOOKAHEAD) -> Speculation:
        """Draw values as `sample(method="speculative")` does, and tell how many drafts were accepted.

        See `ppl_buffer.predictive.sampling.speculative_rollout` for what it is and where it gains.

        Args:
            key: of the random numbers.
            sample_shape: how many draws.
            lookahead: number of trials that are tested in one pass.

        Raises:
            ValueError: if the model has feedback and no `environment` supplies it, the distribution has a `block`, or
                `lookahead` is below 1.
        """
        assert is_prng_key(key)
        noise, source = _noise_and_key(key, self._noise_shape(sample_shape))
        return Speculation(*self._compute(sampling.speculative_rollout, noise, source, lookahead=lookahead))

    def sample_with_feedback(self, key: Any, sample_shape: tuple[int, ...] = ()) -> tuple[Array, dict[str, Array]]:
        """`sample`, and the feedback that the environment gave: dict name -> (*sample_shape, *batch, K)."""
        assert is_prng_key(key)
        value, feedback, _ = self._compute(sampling.rollout, _noise(key, self._noise_shape(sample_shape)))
        self._warn_of("environment", feedback)
        return value, feedback

    def expand(self, batch_shape: Sequence[int]) -> JointPredictive:
        """The same with batch dimensions expanded to `batch_shape`; data are not copied."""
        return self._expand(batch_shape)

    def mask(self, mask: Any) -> Any:
        """Mask data sets, as in NumPyro; trials are masked by `trial_mask`.

        Raises:
            ValueError: if it is no mask, or has dimensions that the batch shape has not.
        """
        boolean = isinstance(mask, bool) or isinstance(mask, np.bool_ | np.ndarray | Array) and mask.dtype == np.bool_
        self._check_mask(jnp.shape(mask) if boolean else None, mask)
        return super().mask(mask)


def _exists_in_all(mask: Array) -> Array:
    """Which trials (K,) exist in all data sets of a mask (*B, K)."""
    return mask.all(tuple(range(mask.ndim - 1)))


def _is_traced(*arrays: Any) -> bool:
    """Whether somebody else compiles, vectorises or differentiates."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arrays))


def _noise(key: Any, shape: tuple[int, ...]) -> Array:
    # The lowest number above zero: the normal quantile of 0 is infinite.
    return random.uniform(key, shape, jnp.float32, minval=float(jnp.finfo(jnp.float32).tiny))


@partial(jax.jit, static_argnames="shape")
def _noise_and_key(key: Any, shape: tuple[int, ...]) -> tuple[Array, Array]:
    first, source = random.split(key)
    return _noise(first, shape), source


@partial(jax.jit, static_argnames=("function", "static"))
def _compiled(query: Query, function: Callable[..., Any], static: tuple[tuple[str, Any], ...], *arrays: Any) -> Any:
    return function(query, *arrays, **dict(static))


@promote_batch_shape.register
def _promote(d: JointPredictive) -> JointPredictive:
    return d._with(d.query, np.broadcast_shapes(d.batch_shape, d.query.batch_shape))
