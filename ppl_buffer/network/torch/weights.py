"""The weights of a buffered transformer in torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ppl_buffer.network.config import Config, weight_shapes
from ppl_buffer.network.digest import network_digest
from ppl_buffer.network.network import Network
from ppl_buffer.network.parts import LIKELIHOOD
from ppl_buffer.network.torch import ops
from ppl_buffer.schema import Categorical, Schema

if TYPE_CHECKING:
    from ppl_buffer.network.record import TrainingRecord


class TorchNetwork(Network, torch.nn.Module):
    """The weights of a buffered transformer, and what they were trained on.

    Args:
        schema: what a data set holds.
        config: sizes.
        standardization: name -> (mean, standard deviation) of each continuous variable on its unconstrained scale.
        seed: of the initial weights.
        record: what the training covered; None for a network that was not trained.
    """

    def __init__(
        self,
        schema: Schema,
        config: Config,
        standardization: Mapping[str, tuple[float, float]],
        seed: int = 0,
        record: TrainingRecord | None = None,
    ) -> None:
        super().__init__()
        self.record = record
        self.schema = schema
        self.config = config
        self.standardization = dict(standardization)
        self._digest: tuple[list[tuple[int, int]], str] = ([], "")
        generator = torch.Generator().manual_seed(seed)
        self.weights: dict[str, Tensor] = {}
        for name, shape in weight_shapes(schema, config).items():
            parameter = torch.nn.Parameter(_initial(name, shape, schema, config, generator))
            *path, leaf = name.split(".")
            module: torch.nn.Module = self
            for part in path:
                if part not in module._modules:
                    # Not add_module, which refuses the names of a module's own attributes.
                    module._modules[part] = torch.nn.Module()
                module = module._modules[part]  # type: ignore[assignment]
            module.register_parameter(leaf, parameter)
            self.weights[name] = parameter
        # Past the module, which would count it as one more parameter.
        self.__dict__["anchor"] = next(iter(self.weights.values()))

    backend = "torch"
    ops = ops

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.anchor.device

    @property
    def digest(self) -> str:
        """SHA-256 of schema, sizes, standardization and weights."""
        # Weights can be moved, copied and trained further: where they are and how often they were written tells.
        state = [
            (weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in self.weights.values()
        ]
        if state != self._digest[0]:
            self._digest = state, network_digest(self)
        return self._digest[1]


def _initial_recurrent(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A gated recurrent unit that keeps its state at first: rotations, and update gates that are nearly closed."""
    width = shape[0] // 3
    if name.endswith("bias"):
        bias = torch.zeros(shape)
        if ".state." in name:
            bias[width : 2 * width] = 1.0
        return bias
    if ".state." in name:
        gates = [torch.linalg.qr(torch.randn((width, width), generator=generator))[0] for _ in range(3)]
        return torch.cat(gates)
    return torch.randn(shape, generator=generator) / math.sqrt(shape[1])


def _initial(name: str, shape: tuple[int, ...], schema: Schema, config: Config, generator: torch.Generator) -> Tensor:
    if name.startswith(("likelihood.recurrent.", "likelihood.slots.")):
        return _initial_recurrent(name, shape, generator)
    if ".norm_" in name or name.startswith("norm_"):
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    if name.endswith("slope.bias"):
        # ALiBi's geometric slopes on the count of trials, a spread of slopes on the learned counters: an optimiser
        # that moves a bias by its learning rate would take thousands of steps to spread them itself. The bias is the
        # inverse of the softplus that it goes through.
        slopes = 0.003 * 100 ** torch.rand((config.heads, config.contextual_positions + 1), generator=generator)
        slopes[:, 0] = 2.0 ** -torch.linspace(1, 8, config.heads)
        return slopes.expm1().log().reshape(shape)
    if name.endswith("counter.bias"):
        return torch.full(shape, -1.0)
    if name.endswith("counter.weight"):
        return torch.randn(shape, generator=generator) * 2 / math.sqrt(shape[1])
    if name.endswith("bias"):
        bias = torch.zeros(shape)
        path = name.removeprefix(LIKELIHOOD).split(".")
        outcome = path[1] if path[0] == "heads" and path[-2] == "out" else None
        if outcome is not None and not isinstance(schema.outcomes[outcome], Categorical):
            # The mixture starts spread over the standardised scale: equal Gaussians would never part.
            count = config.components
            bias[count : 2 * count] = torch.linspace(-1.5, 1.5, count)
        return bias
    if name.startswith("role.") or name.endswith(("null_key", "null_value")):
        return torch.randn(shape, generator=generator) * 0.02
    scale = 1 / math.sqrt(shape[1])
    if name.endswith(("buffer_merge.weight", "buffer_adapter.up.weight")):
        return torch.zeros(shape)  # nothing is added to a network without them
    if name == "likelihood.read.scale.weight":
        scale *= 0.1  # the parameters modulate little at first
    if name.endswith(("merge.weight", "mlp.out.weight")):
        scale /= math.sqrt(2 * config.depth)
    if name.removeprefix(LIKELIHOOD).startswith("heads.") and name.endswith("out.weight"):
        scale *= 0.1
    return torch.randn(shape, generator=generator) * scale
