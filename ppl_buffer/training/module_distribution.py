"""A set predictor with a buffer, a torch module that is not ours, as a distribution of Pyro."""

from __future__ import annotations

import math
from typing import Any, Protocol

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

Pairs = tuple[Tensor, Tensor]


class JointModule(Protocol):
    """What predicts outcomes jointly given a context: a `ppl_buffer.BufferedModule`."""

    def log_prob(self, context: Pairs, inputs: Tensor, outcomes: Tensor, block: int | None = None) -> Tensor:
        """Joint log density (B,) of outcomes (B, K, ...)."""
        ...

    def rollout(self, context: Pairs, inputs: Tensor, draws: int = 1, block: int | None = None) -> Pairs:
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
        module: JointModule,
        context: Pairs,
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
        """The same data sets under more batch dimensions, (*more, B).

        Raises:
            ValueError: if the last dimension is not that of the data sets.
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
