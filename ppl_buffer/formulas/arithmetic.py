"""What a design needs of a network: its ranges, and the arithmetic of one array library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Protocol

from ppl_buffer.network.arguments import Trained
from ppl_buffer.network.backend import Array, Own
from ppl_buffer.schema import Schema


class DesignOps(Protocol):
    """What is done to the arrays of a design; the operations of both backends are such ones."""

    @property
    def xp(self) -> ModuleType:
        """The array library, which has `concatenate`."""

    def floating(self, net: Own, value: Array) -> Array:
        """An array-like in floating point, the shape kept."""

    def cast(self, value: Array, like: Array) -> Array:
        """The same numbers in the floating type of another array."""

    def zeros(self, net: Own, shape: Sequence[int]) -> Array:
        """Zeros of a shape."""

    def ones(self, net: Own, shape: Sequence[int]) -> Array:
        """Ones of a shape."""


class DesignNetwork(Trained, Protocol):
    """A trained network as a design asks it; `ppl_buffer.network.network.Network` is one."""

    @property
    def ops(self) -> DesignOps:
        """Arithmetic of its arrays."""

    @property
    def schema(self) -> Schema:
        """What a data set holds."""

    def into_box(self, name: str, x: Array, params: Mapping[str, Array] | None = None, *, below: Array = None) -> Array:
        """Map real numbers into the trained range of a parameter; see `Network.into_box`."""
