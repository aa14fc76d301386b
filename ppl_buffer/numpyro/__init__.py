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
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.distributions.util import is_prng_key, validate_sample
from numpyro.infer import Predictive as _GuidePredictive

from ppl_buffer.network.jax.execution import bucket
from ppl_buffer.network.jax.weights import JaxNetwork
from ppl_buffer.network.layout import pad_last
from ppl_buffer.network.observed import EncodedContext, ObservedTrials, broadcasts_to
from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.ppl.docstring import ARGUMENTS
from ppl_buffer.ppl.simulator import (
    PROBE_TRIALS,
    InputSource,
    ModelSimulator,
    Site,
    probe_inputs,
)
from ppl_buffer.ppl.trace import (
    ObservedSite,
    PosteriorTrace,
    check_plate,
    check_samples,
    fixed_leaves,
    observed_site,
    unwrap_joint,
    varying,
    varying_data_error,
)
from ppl_buffer.predictive import LOOKAHEAD, Predictive, Speculation, check_sampling
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Schema, Variable, split_value

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


def prior_distributions(record: TrainingRecord) -> dict[str, Any]:
    """The training priors of a record as NumPyro distributions; see `ppl_buffer.predictive.NetworkVerbs.prior`."""
    priors = {name: record.priors.get(name) or Prior.uniform(*box) for name, box in record.box.items()}
    return {name: prior.distribution(dist) for name, prior in priors.items()}


def simulator_from_model(
    model: Callable[..., Any],
    *,
    outcomes: Sequence[str] | Mapping[str, Variable],
    inputs: Mapping[str, InputSource] | None = None,
    ordered: bool = False,
    independent: bool = False,
    name: str | None = None,
) -> ModelSimulator:
    """A NumPyro model as a simulator that `ppl_buffer.train` can learn from; data sets are drawn in one compiled call.

    Args:
        model: function (inputs, trials) that samples one data set: scalar latent sites, and outcome sites of shape
            (trials,), in a plate or with an event dimension. `inputs` is a dict name -> (trials,). How the first
            trials come about must not depend on how many follow.
        outcomes: names of the outcome sites, in the order in which the density factorises inside a trial; or a dict
            name -> variable, to state more than the site's support does (the range of a lapse); None = the support.
        inputs: dict name -> (variable, function (rng, size, trials) -> array (size, trials)).
        ordered: trial k depends on the trials before it.
        independent: exchangeable trials are independent once all parameters are told.
        name: stored in the checkpoint; by default the name of the function.

    Returns:
        the simulator. Its parameters are the continuous scalar latent sites. Other latent sites are drawn with the
        data and never told: the network integrates over them.

    Raises:
        ValueError: if an outcome is no site of the program, is observed in it or has another shape, a support fits
            no variable, or a parameter is sampled after a latent site that is none.
    """
    shown = probe_inputs(inputs)

    def run(key: Array, params: Mapping[str, Array], given: Mapping[str, Array], trials: int) -> dict[str, Any]:
        seeded = handlers.seed(handlers.substitute(model, data=dict(params)), key)
        trace = handlers.trace(seeded).get_trace(dict(given), trials)
        return {key: site for key, site in trace.items() if site["type"] == "sample"}

    def probe(seed: int) -> dict[str, Site]:
        sites = run(random.PRNGKey(seed), {}, {key: jnp.asarray(x) for key, x in shown.items()}, PROBE_TRIALS)
        return {key: Site(x["fn"], tuple(jnp.shape(x["value"])), x["is_observed"]) for key, x in sites.items()}

    @partial(jax.jit, static_argnames=("names", "trials"))
    def values(keys: Array, names: tuple[str, ...], params: Any, given: Any, trials: int) -> dict[str, Array]:
        def one(key: Array, params: Any, given: Any) -> dict[str, Array]:
            sites = run(key, params, given, trials)
            return {name: sites[name]["value"] for name in names}

        return jax.vmap(one)(keys, params, given)

    def draw(
        rng: np.random.Generator, names: Sequence[str], params: Any, given: Any, size: int, trials: int
    ) -> dict[str, np.ndarray]:
        # Sizes are rounded up to powers of two, so that few versions get compiled.
        sets, count = (1 << (number - 1).bit_length() for number in (size, trials))

        def pad(array: np.ndarray, *lengths: int) -> np.ndarray:
            return np.pad(array, [(0, to - now) for now, to in zip(array.shape, lengths, strict=True)], mode="edge")

        seed = random.wrap_key_data(jnp.asarray(rng.integers(0, 2**32, 2, dtype=np.uint32)), impl="threefry2x32")
        drawn = values(
            random.split(seed, sets),
            tuple(names),
            {key: pad(x, sets) for key, x in params.items()},
            {key: pad(x, sets, count) for key, x in given.items()},
            count,
        )
        return {key: np.asarray(x)[(slice(size), slice(trials))[: x.ndim]] for key, x in drawn.items()}

    return ModelSimulator(
        [probe(0), probe(1)],
        draw,
        outcomes=outcomes,
        inputs=inputs,
        ordered=ordered,
        independent=independent,
        name=name or str(getattr(model, "__name__", type(model).__name__)),
    )


def _trace(model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], key: Any, fixed: Any) -> Any:
    seeded = handlers.seed(handlers.substitute(model, data=fixed), key)
    return handlers.trace(seeded).get_trace(*args, **kwargs)


def _is_latent(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def replay(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    samples: Mapping[str, Any],
    progress: bool = False,
) -> PosteriorTrace:
    """Run a model at each of S draws of its latent sites; all draws in one go.

    Args:
        model: the model.
        args: its arguments.
        kwargs: its keyword arguments.
        samples: dict name -> (S, *shape); sites that are not latent are ignored.
        progress: not used: it takes one vectorised run.

    Raises:
        ValueError: if draws of a latent site are missing, a plate subsamples, or data depend on latent variables.
    """
    first = {name: jnp.asarray(value)[0] for name, value in samples.items()}
    trace = _trace(model, args, kwargs, random.PRNGKey(0), first)
    for name, site in trace.items():
        if site["type"] == "plate":
            check_plate(name, site["args"][0], len(site["value"]))
    latent = [name for name, site in trace.items() if _is_latent(site)]
    check_samples(samples, latent)
    deterministic = [name for name, site in trace.items() if site["type"] == "deterministic"]
    trials: dict[str, ObservedSite] = {}
    others: list[str] = []
    for name, site in trace.items():
        if site["type"] == "sample" and site["is_observed"]:
            found = observed_site(site["fn"], site["value"])
            if found is not None:
                trials[name] = found
            elif jnp.size(site["value"]):  # `numpyro.factor` observes nothing
                others.append(name)

    def one(sample: dict[str, Any]) -> Any:
        again = _trace(model, args, kwargs, random.PRNGKey(0), sample)
        conditioned = {}
        for name in trials:
            joint = unwrap_joint(again[name]["fn"])
            assert joint is not None
            if any(isinstance(leaf, jax.core.Tracer) for leaf in fixed_leaves(joint)):
                raise varying_data_error(name)
            conditioned[name] = varying(joint)
        values = {name: again[name]["value"] for name in [*latent, *deterministic]}
        scored = {name: again[name]["fn"].log_prob(again[name]["value"]) for name in [*latent, *others]}
        return values, scored, conditioned

    drawn = {name: jnp.asarray(samples[name]) for name in latent}
    # Not compiled: what does not depend on the draws stays concrete, and is computed once.
    values, scored, conditioned = jax.device_get(
        jax.vmap(one)(drawn) if drawn else jax.tree.map(lambda x: x[None], one({}))
    )
    for name, site in trials.items():
        site.params, site.lapse = conditioned[name]["params"], conditioned[name]["lapse"]
    return PosteriorTrace(
        values={name: np.asarray(value) for name, value in values.items()},
        log_prior={name: np.asarray(scored[name]) for name in latent},
        trials=trials,
        observed={name: np.asarray(trace[name]["value"]) for name in others},
        log_likelihood={name: np.asarray(scored[name]) for name in others},
        plates={
            name: {frame.dim: (frame.name, frame.size) for frame in site["cond_indep_stack"]}
            for name, site in trace.items()
            if site["type"] in ("sample", "deterministic")
        },
        batch_ndim={name: len(trace[name]["fn"].batch_shape) for name in [*latent, *others, *trials]},
    )


def prior_samples(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Draws (draws, *shape) of a model's latent and deterministic sites from the prior."""

    def one(key: Any) -> dict[str, Any]:
        trace = _trace(model, args, kwargs, key, {})
        kept = {name: site for name, site in trace.items() if _is_latent(site) or site["type"] == "deterministic"}
        return {name: site["value"] for name, site in kept.items()}

    return jax.device_get(jax.vmap(one)(random.split(random.PRNGKey(seed), draws)))


def guide_samples(
    svi: Any, params: Any, args: Sequence[Any], kwargs: Mapping[str, Any], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Draws (draws, *shape) of what a guide samples, at its fitted `params`."""
    predictive = _GuidePredictive(svi.guide, params=params, num_samples=draws)
    return {name: np.asarray(x) for name, x in predictive(random.PRNGKey(seed), *args, **kwargs).items()}


def sampler_statistics(mcmc: Any) -> dict[str, np.ndarray]:
    """What a sampler recorded, dict name -> (chain, draw), under ArviZ's names."""
    names = {
        "potential_energy": "lp",
        "num_steps": "n_steps",
        "accept_prob": "acceptance_rate",
        "adapt_state.step_size": "step_size",
    }
    found = {}
    for name, value in mcmc.get_extra_fields(group_by_chain=True).items():
        if hasattr(value, "ndim") and value.ndim == 2:
            found[names.get(name, name)] = np.asarray(value)
    if "lp" in found:
        found["lp"] = -found["lp"]
    if "n_steps" in found:
        # A tree of depth d takes from 2^(d - 1) to 2^d - 1 steps.
        found["tree_depth"] = np.log2(found["n_steps"]).astype(int) + 1
    return found
