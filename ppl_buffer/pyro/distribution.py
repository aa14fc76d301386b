"""`JointPredictive` for Pyro: a buffered transformer as a distribution of all trials of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from ppl_buffer.network.observed import EncodedContext, ObservedTrials, broadcasts_to
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.ppl.docstring import ARGUMENTS
from ppl_buffer.predictive import LOOKAHEAD, Predictive, Speculation, check_sampling
from ppl_buffer.schema import Categorical, Schema, split_value


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


class JointPredictive(Predictive, dist.TorchDistribution):  # type: ignore[misc]  # noqa: D101
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
        net: TorchNetwork,
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
        cls, net: TorchNetwork, inputs: Mapping[str, tuple[int, ...]], *, trials: int | None = None, **shapes: Any
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

    def sample(self, sample_shape: Sequence[int] = torch.Size(), *, method: str = "rollout") -> Tensor:
        """Draw values (*sample_shape, *batch, *event).

        Args:
            sample_shape: how many draws.
            method: "rollout", trial after trial; or "speculative", many trials in one pass, which draws from the same
                distribution and may be faster for few draws: see `speculative_rollout`.

        Raises:
            ValueError: if the model has feedback and no `environment` supplies it, or the method is unknown or cannot
                be used with `block`.
        """
        check_sampling(method)
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

        See `speculative_rollout` for what it is and where it gains.

        Args:
            sample_shape: how many draws.
            generator: of all random numbers; None = torch's global one.
            lookahead: number of trials that are tested in one pass.

        Raises:
            ValueError: if the model has feedback and no `environment` supplies it, the distribution has a `block`, or
                `lookahead` is below 1.
        """
        shape = self.noise_shape(tuple(sample_shape))
        with torch.no_grad():
            noise = self._positive(torch.rand(shape, generator=generator, device=self.net.device, dtype=self.net.dtype))
            return Speculation(*self.speculative_rollout(noise, generator, lookahead))

    def sample_with_feedback(self, sample_shape: Sequence[int] = torch.Size()) -> tuple[Tensor, dict[str, Tensor]]:
        """`sample`, and the feedback that the environment gave: dict name -> (*sample_shape, *batch, K)."""
        with torch.no_grad():
            noise = torch.rand(self.noise_shape(tuple(sample_shape)), device=self.net.device, dtype=self.net.dtype)
            value, feedback, _ = self.rollout(self._positive(noise))
        return value, feedback

    @staticmethod
    def _positive(noise: Tensor) -> Tensor:
        # The normal quantile of 0 is infinite.
        return noise.clamp(min=torch.finfo(noise.dtype).tiny)

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
        if not broadcasts_to(self.batch_shape, batch_shape):
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
        if not broadcasts_to(shape, self.batch_shape):
            raise ValueError(
                f"mask: expected a mask of data sets, of shape {tuple(self.batch_shape)}, got {shape}; it would "
                f"multiply the joint density. To leave out trials give trial_mask to JointPredictive"
            )
        return super().mask(mask)
