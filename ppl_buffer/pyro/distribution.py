"""`JointPredictive` for Pyro: a buffered transformer as a distribution of all trials of a data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from ppl_buffer.checks import check_flag
from ppl_buffer.network.arguments import as_floating
from ppl_buffer.network.backend import Array
from ppl_buffer.network.missing import Missing
from ppl_buffer.network.missing_rule import MissingRule
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import EncodedContext, ObservedTrials
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.ppl.docstring import ARGUMENTS
from ppl_buffer.ppl.joint import JointPredictiveBase, infer_shapes
from ppl_buffer.ppl.support import TrialSupportBase
from ppl_buffer.predictive import density, sampling
from ppl_buffer.predictive.query import Query
from ppl_buffer.predictive.sampling import LOOKAHEAD, Speculation
from ppl_buffer.schema import Schema


class TrialSupport(TrialSupportBase, constraints.Constraint):  # type: ignore[misc, override]
    """Values whose every existing trial holds legal outcomes.

    Args:
        schema: whose outcomes the columns are.
        trial_mask: (*B, K) bool, or None where all trials exist.
        missing: what missing answers mean; None where there are none.
    """

    def __init__(self, schema: Schema, trial_mask: Tensor | None = None, missing: MissingRule | None = None) -> None:
        self.schema = schema
        self.trial_mask = trial_mask
        self.missing = missing
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is legal: (*batch,)."""
        return self._legal_trials(Tensor.float, torch, value, self.trial_mask).all(-1)


class JointPredictive(JointPredictiveBase, dist.TorchDistribution):  # type: ignore[misc]  # noqa: D101
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
        if not isinstance(net, TorchNetwork):
            raise ValueError(f"net: expected a network loaded with backend='torch', got {type(net).__name__}{_of(net)}")
        if net.training:
            raise ValueError("net: expected a network in evaluation mode, got one in training mode; call net.eval()")
        # Pyro's samplers and compiled inference switch validation off: a step too far is no mistake of the user's.
        if validate_args is not None:
            check_flag("validate_args", validate_args)
        check = JointPredictive._validate_args if validate_args is None else validate_args
        self.query = inputs if isinstance(inputs, Query) else Query.build(
            net, inputs, trials=trials, params=params, trial_params=trial_params, context=context, feedback=feedback,
            trial_mask=trial_mask, missing=missing, orders=orders, block=block, environment=environment, lapse=lapse,
            outside=outside, likelihood=likelihood, check=check,
        )  # fmt: skip
        batch = torch.Size(self.query.batch_shape if _batch_shape is None else _batch_shape)
        event = torch.Size(self.query.event_shape)
        dist.TorchDistribution.__init__(self, batch, event, validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> TrialSupport:
        """Legal outcomes in every existing trial."""
        return TrialSupport(self.net.schema, self.query.trial_mask, self.query.missing)

    @classmethod
    def infer_shapes(  # type: ignore[override]
        cls, net: Network, inputs: Mapping[str, tuple[int, ...]], *, trials: int | None = None, **shapes: Any
    ) -> tuple[torch.Size, torch.Size]:
        """Batch and event shape from the arguments' shapes: dicts name -> shape, or shapes."""
        batch, event = infer_shapes(net, inputs, trials, shapes)
        return torch.Size(batch), torch.Size(event)

    def _with(self, query: Query, batch_shape: Sequence[int] | None = None) -> JointPredictive:
        return JointPredictive(query.net, query, validate_args=self._validate_args, _batch_shape=batch_shape)

    def _as_array(self, value: Array) -> Tensor:
        return value if isinstance(value, Tensor) else as_floating(self.net, "value", value)

    def _compute(self, function: Callable[..., Any], *arrays: Any, **static: Any) -> Any:
        return function(self.query, *arrays, **static)

    def _score(self, function: Callable[..., Any], value: Tensor, **static: Any) -> Tensor:
        return function(self.query, value, **static)

    def log_prob(self, value: Array) -> Tensor:
        """Joint log density of all trials, averaged over `orders` where given: (*sample, *batch)."""
        if not isinstance(value, Tensor):
            value = self._as_array(value)
        shape, reuse = self._full_shape(value), self.query.matches(value)
        if self._validate_args and not reuse:
            try:
                self._validate_sample(value)
            except ValueError as error:
                self._check_value(value)
                # Legal numbers, but not in the precision that the network computes in.
                raise ValueError(f"value: {error}") from None
            self._warn_of_value(value)
        return density.log_prob(self.query, value, reuse).expand(shape)

    def pit(self, value: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Conditional distribution function at each outcome, uniform under the model: (*sample, *batch, K).

        With several outcomes a trial the result is (*sample, *batch, K, n_outcomes), each given the earlier ones.
        A category gets a random place inside its step, and so does an omission, which counts as the first outcome's
        last value, from `generator` (by default a fixed one). NaN for outcomes that are missing.

        Raises:
            ValueError: if an outcome is not legal. Where the numbers are not known yet its place is NaN.
        """

        def draw_uniform(shape: tuple[int, ...]) -> Tensor:
            return _uniform(self.net, shape, generator, seed=0)

        return self._pit(value, draw_uniform)

    def _noise(self, sample_shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        noise = _uniform(self.net, self._noise_shape(sample_shape), generator)
        # The normal quantile of 0 is infinite.
        return noise.clamp(min=torch.finfo(noise.dtype).tiny)

    def sample(self, sample_shape: Sequence[int] = torch.Size(), *, method: str = "rollout") -> Tensor:
        """Draw values (*sample_shape, *batch, *event).

        Args:
            sample_shape: how many draws.
            method: "rollout", trial after trial; or "speculative", many trials in one pass, which draws from the same
                distribution and may be faster for few draws: see `ppl_buffer.predictive.sampling.speculative_rollout`.

        Raises:
            ValueError: if the model has feedback and no `environment` supplies it, or the method is unknown or cannot
                be used with `block`.
        """
        sampling.check_method(method)
        if method == "speculative":
            return self.speculate(sample_shape).value
        return self.sample_with_feedback(sample_shape)[0]

    def speculate(
        self,
        sample_shape: Sequence[int] = torch.Size(),
        *,
        generator: torch.Generator | None = None,
        lookahead: int = LOOKAHEAD,
    ) -> Speculation:
        """Draw values as `sample(method="speculative")` does, and tell how many drafts were accepted.

        See `ppl_buffer.predictive.sampling.speculative_rollout` for what it is and where it gains.

        Args:
            sample_shape: how many draws.
            generator: of all random numbers; None = torch's global one.
            lookahead: number of trials that are tested in one pass.

        Raises:
            ValueError: if the model has feedback and no `environment` supplies it, the distribution has a `block`, or
                `lookahead` is below 1.
        """
        with torch.no_grad():
            noise = self._noise(sample_shape, generator)
            return Speculation(*sampling.speculative_rollout(self.query, noise, generator, lookahead))

    def sample_with_feedback(self, sample_shape: Sequence[int] = torch.Size()) -> tuple[Tensor, dict[str, Tensor]]:
        """`sample`, and the feedback that the environment gave: dict name -> (*sample_shape, *batch, K)."""
        with torch.no_grad():
            value, feedback, _ = sampling.rollout(self.query, self._noise(sample_shape))
        self._warn_of("environment", feedback)
        return value, feedback

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> JointPredictive:
        """The same with batch dimensions expanded to `batch_shape`; data are not copied."""
        return self._expand(batch_shape)

    def mask(self, mask: Any) -> Any:
        """Mask data sets, as in Pyro; trials are masked by `trial_mask`.

        Raises:
            ValueError: if it is no mask, or has dimensions that the batch shape has not.
        """
        self._check_mask(
            tuple(mask.shape) if isinstance(mask, Tensor) else () if isinstance(mask, bool) else None, mask
        )
        return super().mask(mask)


def _uniform(net: Network, shape: Sequence[int], generator: torch.Generator | None, seed: int | None = None) -> Tensor:
    """Uniform numbers where the network is: from a generator, or one with a seed, or torch's global one."""
    assert isinstance(net, TorchNetwork)
    if generator is None and seed is not None:
        generator = torch.Generator(device=net.device).manual_seed(seed)
    return torch.rand(tuple(shape), generator=generator, device=net.device, dtype=net.dtype)


def _of(net: object) -> str:
    """Where the distribution of a module with a buffer is, which is no network."""
    module = isinstance(net, torch.nn.Module)
    return "; a module with a buffer has one of its own, joint.distribution(context, inputs)" if module else ""


# Inputs and outcomes.
_Pairs = tuple[Tensor, Tensor]


class _JointModule(Protocol):
    """What predicts outcomes jointly given a context: a `ppl_buffer.BufferedModule`."""

    def log_prob(self, context: _Pairs, inputs: Tensor, outcomes: Tensor, block: int | None = None) -> Tensor:
        """Joint log density (B,) of outcomes (B, K, ...)."""
        ...

    def rollout(self, context: _Pairs, inputs: Tensor, draws: int = 1, block: int | None = None) -> _Pairs:
        """Draws of outcomes (S, B, K, ...), and their log densities (S, B, K)."""
        ...


class ModulePredictive(dist.TorchDistribution):  # type: ignore[misc]
    """Joint distribution of the outcomes of K targets given a context, by a module with a buffer.

    Batch shape is (B,), the data sets; event shape that of a data set's outcomes, (K,) or (K, ...). The module is kept
    by reference and never enters the parameter store.

    Args:
        module: what `ppl_buffer.add_buffer_to_module` returned, or a `ppl_buffer.BufferedModule`.
        context: inputs and outcomes of what is known, (B, N, ...) each.
        inputs: (B, K, ...) of the targets.
        block: as of `BufferedModule.conditionals`.
        validate_args: whether shapes of values are checked; by default as of `torch.distributions`.

    Raises:
        ValueError: if shapes do not go together.
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False
    has_enumerate_support = False

    def __init__(
        self,
        module: _JointModule,
        context: _Pairs,
        inputs: Tensor,
        *,
        block: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not (isinstance(context, (tuple, list)) and len(context) == 2 and all(map(torch.is_tensor, context))):
            raise ValueError(f"context: expected inputs and outcomes, two tensors, got {type(context).__name__}")
        if not torch.is_tensor(inputs) or inputs.ndim < 2:
            got = tuple(inputs.shape) if torch.is_tensor(inputs) else type(inputs).__name__
            raise ValueError(f"inputs: expected a tensor of shape (data sets, targets, ...), got {got}")
        if len({len(inputs), *map(len, context)}) > 1:
            raise ValueError(
                f"inputs: expected {len(context[0])} data sets, as of the context's inputs and outcomes, got "
                f"{len(inputs)} and {len(context[1])}"
            )
        self.module, self.context, self.inputs, self.block = module, (context[0], context[1]), inputs, block
        event = torch.Size((inputs.shape[1], *context[1].shape[2:]))
        super().__init__(torch.Size(inputs.shape[:1]), event, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """Real numbers: what else the module's own distribution may refuse, it says itself."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: object = None) -> ModulePredictive:
        """The same data sets; or one data set (1,) as several, (B,).

        Raises:
            ValueError: if there are several data sets, of another number.
        """
        shape = torch.Size(batch_shape)
        if shape == self.batch_shape:
            return self
        if len(shape) == 1 and len(self.inputs) == 1:
            context = (self.context[0].expand(*shape, *self.context[0].shape[1:]),
                       self.context[1].expand(*shape, *self.context[1].shape[1:]))  # fmt: skip
            inputs = self.inputs.expand(*shape, *self.inputs.shape[1:])
            return ModulePredictive(self.module, context, inputs, block=self.block)
        raise ValueError(
            f"batch_shape: expected {tuple(self.batch_shape)}, the data sets of the context, got {tuple(shape)}; give "
            "the module one data set for each"
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Joint log density (*S, B) of outcomes (*S, B, K, ...)."""
        if self._validate_args:
            self._validate_sample(value)
        event = len(self.event_shape)
        lead = value.shape[: value.ndim - event - 1]
        count = math.prod(lead)
        value = value.expand(*lead, *self.batch_shape, *self.event_shape).reshape(-1, *self.event_shape)
        context, inputs = [x.repeat(count, *[1] * (x.ndim - 1)) for x in self.context], self.inputs
        inputs = inputs.repeat(count, *[1] * (inputs.ndim - 1))
        return self.module.log_prob((context[0], context[1]), inputs, value, self.block).reshape(
            *lead, len(self.inputs)
        )

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws (*sample_shape, B, K, ...)."""
        shape = torch.Size(sample_shape)
        outcomes, _ = self.module.rollout(self.context, self.inputs, max(1, math.prod(shape)), self.block)
        return outcomes.reshape(*shape, *self.batch_shape, *self.event_shape)
