"""`JointPredictive` for Pyro: a buffered transformer as a distribution of all trials of a data set."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import constraints

from ppl_buffer.checkpoint import TrainingRecord
from ppl_buffer.predictive import ARGUMENTS, Encoded, Observed, Predictive
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Schema, Variable
from ppl_buffer.torch.network import Network
from ppl_buffer.training.from_model import (
    MODEL_ARGUMENTS,
    PROBE_TRIALS,
    InputSource,
    ModelSimulator,
    Site,
    probe_inputs,
)
from ppl_buffer.trials import split_value


class TrialSupport(constraints.Constraint):
    """Values whose every existing trial holds legal outcomes.

    Args:
        schema: whose outcomes the columns are.
        trial_mask: (*B, K) bool, or None where all trials exist.
    """

    def __init__(self, schema: Schema, trial_mask: Tensor | None = None) -> None:
        self.schema = schema
        self.trial_mask = trial_mask
        super().__init__()

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        """1 for one outcome, 2 for several."""
        return 1 + len(self.schema.event_shape_tail)

    @property
    def is_discrete(self) -> bool:  # type: ignore[override]
        """Whether every outcome is categorical."""
        return all(isinstance(variable, Categorical) for variable in self.schema.outcomes.values())

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is legal: (*batch,)."""
        legal = torch.ones((), dtype=torch.bool, device=value.device)
        for name, column in split_value(self.schema, value).items():
            legal = legal & self.schema.outcomes[name].contains(torch, column)
        if self.trial_mask is not None:
            legal = legal | ~self.trial_mask
        return legal.all(-1)


class JointPredictive(Predictive, dist.TorchDistribution):  # type: ignore[misc]
    __doc__ = f"""Joint predictive distribution of the outcomes of K trials, by a buffered transformer.

    `sample` is the cached autoregressive rollout, `log_prob` the one-pass joint density (Hassan et al. 2026, equations
    3 and 5). Batch shape is *B, the broadcast batch dimensions of all arguments; event shape is (K,), or
    (K, n_outcomes) with columns in the schema's order and categories as integers 0..n-1 in the value's type.

    The network is kept by reference and frozen: it never enters the parameter store. Draws are not reparameterised;
    as a guide's site Pyro's `Trace_ELBO` adds the score term.

    {ARGUMENTS}
    Raises:
        ValueError: if an argument's names, shapes or values do not fit the schema, or the network is in training
            mode.
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False
    has_enumerate_support = False

    def __init__(
        self,
        net: Network,
        inputs: Mapping[str, Any] | Observed,
        *,
        trials: int | None = None,
        params: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | Encoded | None = None,
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
        if getattr(net, "backend", None) != "torch":
            raise ValueError(f"net: expected a network loaded with backend='torch', got {type(net).__name__}")
        if net.training:
            raise ValueError("net: expected a network in evaluation mode, got one in training mode; call net.eval()")
        batch = self.set_up(
            net, inputs, trials=trials, params=params, context=context, feedback=feedback, trial_mask=trial_mask,
            orders=orders, block=block, environment=environment, lapse=lapse, outside=outside, history=_history,
            check=validate_args is not False,
        )  # fmt: skip
        event = torch.Size((self.trials, *net.schema.event_shape_tail))
        dist.TorchDistribution.__init__(self, torch.Size(batch), event, validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> TrialSupport:
        """Legal outcomes in every existing trial."""
        return TrialSupport(self.net.schema, self.trial_mask)

    @classmethod
    def infer_shapes(  # type: ignore[override]
        cls, net: Network, inputs: Mapping[str, tuple[int, ...]], *, trials: int | None = None, **shapes: Any
    ) -> tuple[torch.Size, torch.Size]:
        """Batch and event shape from the arguments' shapes: dicts name -> shape, or shapes."""
        lead = [tuple(shape[:-1]) for shape in inputs.values()]
        for name, shape in shapes.items():
            trailing = 0 if name in ("params", "lapse") else 1
            given = shape.values() if isinstance(shape, Mapping) else [shape]
            lead += [tuple(one[: len(one) - trailing]) for one in given]
        count = trials if trials is not None else next(iter(inputs.values()))[-1]
        return torch.Size(np.broadcast_shapes(*lead)), torch.Size((count, *net.schema.event_shape_tail))

    def _full_shape(self, value: Tensor) -> tuple[int, ...]:
        lead = tuple(value.shape[: value.ndim - self.event_dim])
        return np.broadcast_shapes(lead, tuple(self.batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Joint log density of all trials, averaged over `orders` where given: (*sample, *batch)."""
        self.check_value_shape(value)
        if self._validate_args:
            self._validate_sample(value)
        return self.joint_log_prob(value).expand(self._full_shape(value))

    def conditionals(self, value: Tensor, orders: int = 0) -> Tensor:
        """Log density of each trial given the trials before it: (*sample, *batch, K). They sum to `log_prob`.

        Raises:
            ValueError: if the distribution averages over `orders`, or feedback is missing.
        """
        result = super().conditionals(value, orders)
        return result if orders else result.expand(*self._full_shape(value), self.trials)

    def marginals(self, value: Tensor) -> Tensor:
        """Log density of each trial alone, with an empty buffer: (*sample, *batch, K)."""
        return super().marginals(value).expand(*self._full_shape(value), self.trials)

    def leave_one_out(self, value: Tensor) -> Tensor:
        """Log density of each trial given all other trials (and the context): (*sample, *batch, K).

        Raises:
            ValueError: if the model is ordered.
        """
        return super().leave_one_out(value).expand(*self._full_shape(value), self.trials)

    def pit(self, value: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Conditional distribution function at each outcome, uniform under the model: (*sample, *batch, K).

        With several outcomes a trial the result is (*sample, *batch, K, n_outcomes), each given the earlier ones.
        A category gets a random place inside its step, from `generator` (by default a fixed one).
        """
        if generator is None:
            generator = torch.Generator(device=self.net.device).manual_seed(0)
        shape = (*self._full_shape(value), self.trials, len(self.net.schema.outcomes))
        uniform = torch.rand(shape, generator=generator, device=self.net.device, dtype=self.net.dtype)
        return self.cdf_values(value, uniform).expand(shape if self.net.schema.event_shape_tail else shape[:-1])

    def condition(self, value: Tensor) -> JointPredictive:
        """Distribution of the following trials given the outcomes of the first ones, (*sample, *batch, first, ...)."""
        inputs, arguments = self.conditioned(value)
        history = arguments.pop("history", None)
        return JointPredictive(self.net, inputs, **arguments, validate_args=self._validate_args, _history=history)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Draw values (*sample_shape, *batch, *event) by the cached rollout.

        Raises:
            ValueError: if the model has feedback and no `environment` supplies it.
        """
        return self.sample_with_feedback(sample_shape)[0]

    def sample_with_feedback(self, sample_shape: Sequence[int] = torch.Size()) -> tuple[Tensor, dict[str, Tensor]]:
        """`sample`, and the feedback that the environment gave: dict name -> (*sample_shape, *batch, K)."""
        with torch.no_grad():
            noise = torch.rand(self.noise_shape(tuple(sample_shape)), device=self.net.device, dtype=self.net.dtype)
            # The normal quantile of 0 is infinite.
            value, feedback, _ = self.rollout(noise.clamp(min=torch.finfo(noise.dtype).tiny))
        return value, feedback

    @property
    def mean(self) -> Tensor:
        """Mean of each outcome alone, with an empty buffer: (*batch, *event)."""
        return self.marginal_moments()[0].expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """Variance of each outcome alone, with an empty buffer: (*batch, *event)."""
        return self.marginal_moments()[1].expand(self.batch_shape + self.event_shape)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> JointPredictive:
        """The same with batch dimensions expanded to `batch_shape`; data are not copied."""
        expanded = self._get_checked_instance(JointPredictive, _instance)
        batch_shape = torch.Size(batch_shape)
        if np.broadcast_shapes(tuple(batch_shape), tuple(self.batch_shape)) != tuple(batch_shape):
            raise ValueError(
                f"batch_shape: expected one that {tuple(self.batch_shape)} broadcasts to, got {tuple(batch_shape)}"
            )
        for name in (*self.data_fields, *self.static_fields, "_observed_value"):
            setattr(expanded, name, getattr(self, name))
        expanded.pad_batch(len(batch_shape))
        dist.TorchDistribution.__init__(expanded, batch_shape, self.event_shape, validate_args=False)
        expanded._validate_args = self._validate_args
        return expanded

    def mask(self, mask: Any) -> Any:
        """Mask data sets, as in Pyro; trials are masked by `trial_mask`.

        Raises:
            ValueError: if the mask has dimensions that the batch shape has not.
        """
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else ()
        try:
            fits = np.broadcast_shapes(shape, tuple(self.batch_shape)) == tuple(self.batch_shape)
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"mask: expected a mask of data sets, of shape {tuple(self.batch_shape)}, got {shape}; it would "
                f"multiply the joint density. To leave out trials give trial_mask to JointPredictive"
            )
        return super().mask(mask)


def prior_distributions(record: TrainingRecord) -> dict[str, dist.Distribution]:
    """The training priors of a record as Pyro distributions; see `ppl_buffer.predictive.NetworkVerbs.prior`."""
    priors = {name: record.priors.get(name) or Prior.uniform(*box) for name, box in record.box.items()}
    return {name: prior.distribution(dist) for name, prior in priors.items()}


# Data sets of the run that finds out whether a model can draw many of them at once: a prime, unlike any other size.
_TRIAL_RUN_SIZE = 3
# The dimension of the plate over data sets: left of the trials, or the only one where trials are an event dimension.
_LAYOUTS = (-2, -1)


def simulator_from_model(
    model: Callable[..., Any],
    *,
    outcomes: Sequence[str] | Mapping[str, Variable],
    inputs: Mapping[str, InputSource] | None = None,
    ordered: bool = False,
    independent: bool = False,
    name: str | None = None,
) -> ModelSimulator:
    shown = probe_inputs(inputs)
    # Fixed seeds: that a model varies with them is what the probes are for.
    first, second = (_run(model, seed, {}, shown, PROBE_TRIALS) for seed in (0, 1))

    def draw(
        rng: np.random.Generator, names: Sequence[str], params: Any, given: Any, size: int, trials: int
    ) -> dict[str, np.ndarray]:
        seed = int(rng.integers(2**63))
        if layout is not None:
            sites = _run_together(model, seed, params, given, size, trials, layout)
            return {key: _data_sets_first(sites[key]["value"], size, layout).numpy() for key in names}
        drawn: dict[str, list[np.ndarray]] = {key: [] for key in names}
        with _seeded(seed):
            for index in range(size):
                sites = _run(model, None, *({k: x[index] for k, x in group.items()} for group in (params, given)), trials)
                for key in names:
                    drawn[key].append(sites[key]["value"].numpy())
        return {key: np.stack(values) for key, values in drawn.items()}

    simulator = ModelSimulator(
        [{key: _site(site) for key, site in probe.items()} for probe in (first, second)],
        draw,
        outcomes=outcomes,
        inputs=inputs,
        ordered=ordered,
        independent=independent,
        name=name or getattr(model, "__name__", type(model).__name__),
    )
    layout = next((dim for dim in _LAYOUTS if _draws_together(model, simulator, dim)), None)
    if layout is None:
        warnings.warn(
            f"model: {simulator.name} cannot draw many data sets at once, so they are drawn one after another, which "
            f"is slow. Written so that its arrays may have one more dimension on the left (parameters (size, 1), "
            f"inputs (size, trials)), it would be fast",
            stacklevel=2,
        )
    return simulator


simulator_from_model.__doc__ = f"""A Pyro model as a simulator that `ppl_buffer.train` can learn from.

    Many data sets are drawn in one run of the model, inside a plate over data sets, if such a run has the density of
    as many single ones; a model that is not written for it is run for one data set after another, with a warning.
    Draws depend on the generator that the simulator is given alone, and leave torch's own and the parameter store as
    they were. Models run on the CPU. {MODEL_ARGUMENTS}"""


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """A run of a model that leaves no trace: random numbers, parameter store and effect handlers stay as they were."""
    store = pyro.get_param_store()
    # Not torch.manual_seed, which would seed every other device too.
    with torch.random.fork_rng(devices=[]), store.scope(store.get_state()), poutine.block(), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        yield


def _tensor(array: Any) -> Tensor:
    """An array as a model wants it: integers for categories, else numbers of the default type."""
    tensor = torch.as_tensor(array)
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor


def _run(
    model: Callable[..., Any], seed: int | None, fixed: Mapping[str, Any], given: Mapping[str, Any], trials: int
) -> dict[str, Any]:
    """Sample sites by name of one run for one data set; without a seed it is the caller who runs it `_seeded`."""
    if seed is not None:
        with _seeded(seed):
            return _run(model, None, fixed, given, trials)
    conditioned = poutine.condition(model, data={key: _tensor(x) for key, x in fixed.items()})
    trace = poutine.trace(conditioned).get_trace({key: _tensor(x) for key, x in given.items()}, trials)
    trace = prune_subsample_sites(trace)
    return {key: site for key, site in trace.nodes.items() if site["type"] == "sample"}


def _run_together(
    model: Callable[..., Any],
    seed: int,
    params: Mapping[str, Any],
    given: Mapping[str, Any],
    size: int,
    trials: int,
    layout: int,
) -> dict[str, Any]:
    """Sample sites by name of one run for `size` data sets, in a plate at dimension `layout`."""
    wide = {key: np.reshape(x, (size, *(1,) * (-layout - 1))) for key, x in params.items()}
    together = pyro.plate("_data_sets", size, dim=layout)(model)
    return _run(together, seed, wide, given, trials)


def _data_sets_first(value: Tensor, size: int, layout: int) -> Tensor:
    """A site's value (size,) of a scalar, (size, trials, ...) of an array."""
    return value[:, 0] if layout == -2 and tuple(value.shape) == (size, 1) else value


def _site(site: Mapping[str, Any]) -> Site:
    return Site(site["fn"], tuple(site["value"].shape), site["is_observed"])


def _draws_together(model: Callable[..., Any], simulator: ModelSimulator, layout: int) -> bool:
    """Whether a run for many data sets has the density of single runs at the same values, site by site."""
    size, trials = _TRIAL_RUN_SIZE, PROBE_TRIALS
    given = simulator.inputs(np.random.default_rng(0), size, trials)
    try:
        sites = _run_together(model, 0, {}, given, size, trials, layout)
        for index in range(size):
            values = {key: _data_sets_first(site["value"], size, layout)[index] for key, site in sites.items()}
            alone = _run(model, 0, values, {key: x[index] for key, x in given.items()}, trials)
            for key, site in sites.items():
                if tuple(alone[key]["value"].shape) != tuple(alone[key]["fn"].shape()):
                    return False
                together = site["fn"].log_prob(site["value"])
                expected = alone[key]["fn"].log_prob(alone[key]["value"])
                if together.shape[0] != size or not torch.allclose(
                    together[index].sum(), expected.sum(), rtol=1e-4, atol=1e-4, equal_nan=True
                ):
                    return False
    except (RuntimeError, ValueError, IndexError, TypeError, KeyError, NotImplementedError):
        # Whatever a model raises that was written for one data set.
        return False
    return True
