"""A network as designs need it, where values are tensors of a model in place of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import pytensor.tensor as pt
from pytensor import config
from pytensor.tensor.variable import TensorVariable

from ppl_buffer.network.backend import Array, Own
from ppl_buffer.network.network import Network
from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.pymc.box import into_box
from ppl_buffer.schema import Schema


class TensorOps:
    """Arithmetic of tensors, under the names of `ppl_buffer.formulas.arithmetic.DesignOps`."""

    xp: ModuleType = pt

    @staticmethod
    def floating(net: Own, value: Array) -> TensorVariable:
        """A tensor in PyTensor's number type."""
        return pt.as_tensor_variable(value).astype(config.floatX)

    @staticmethod
    def cast(value: Array, like: Array) -> TensorVariable:
        """The same numbers in the type of another tensor."""
        return value.astype(like.dtype)

    @staticmethod
    def zeros(net: Own, shape: Sequence[int]) -> TensorVariable:
        """Zeros of a shape."""
        return pt.zeros(tuple(shape), dtype=config.floatX)

    @staticmethod
    def ones(net: Own, shape: Sequence[int]) -> TensorVariable:
        """Ones of a shape."""
        return pt.ones(tuple(shape), dtype=config.floatX)


@dataclass(frozen=True)
class SymbolicNetwork:
    """A trained network's ranges, and the arithmetic of tensors.

    Args:
        net: the network.
    """

    net: Network

    @property
    def ops(self) -> TensorOps:
        """Arithmetic of tensors."""
        return TensorOps()

    @property
    def schema(self) -> Schema:
        """What a data set holds."""
        return self.net.schema

    @property
    def record(self) -> TrainingRecord | None:
        """What the training covered."""
        return self.net.record

    def into_box(
        self, name: str, x: Array, params: Mapping[str, Array] | None = None, *, below: Array = None
    ) -> TensorVariable:
        """Map tensors into the trained range of a parameter; see `Network.into_box`."""
        return into_box(self.net, name, x, params, below=below)
