"""Batch dimensions as data sets (B) and replicas (R), and what moves arrays between the two. Nothing here imports torch or jax."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from ppl_buffer.network.backend import Array, Backend, Named


def map_leaves(function: Callable[[Array], Array], tree: Any) -> Any:
    """Apply a function to every array of nested dataclasses, dicts, lists and tuples."""
    if tree is None or isinstance(tree, (bool, int)):
        return tree
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{f.name: map_leaves(function, getattr(tree, f.name)) for f in fields(tree)})
    if isinstance(tree, Mapping):
        return {key: map_leaves(function, value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(map_leaves(function, value) for value in tree)
    return function(tree)


def pad_dims(value: Array, ndim: int, trailing: int) -> Array:
    """Insert leading dimensions of size 1 so that `ndim` dimensions stand before the `trailing` ones."""
    missing = ndim + trailing - value.ndim
    return value.reshape((1,) * missing + tuple(value.shape)) if missing > 0 else value


def pad_last(xp: ModuleType, value: Array, missing: int, fill: float | bool) -> Array:
    """Append `missing` fill values on the last axis, in the array's own type."""
    more = xp.full_like(value[..., :1], fill)
    return xp.concatenate([value, xp.broadcast_to(more, (*value.shape[:-1], missing))], -1)


class BatchLayout:
    """Sorts batch dimensions into data sets (B) and replicas (R), and moves arrays to (B, R, ...) and back.

    A leading dimension along which the shared arrays (a context, an observed buffer) vary tells data sets apart. Along
    the others whatever is shared is stored once, and read by all replicas.

    Args:
        joint: the backend.
        lead: sizes of the leading dimensions.
        shared: leading shapes of the shared arrays, each as long as `lead`.
    """

    def __init__(self, joint: Backend, lead: Sequence[int], shared: Iterable[Sequence[int]]) -> None:
        self.joint = joint
        self.lead = tuple(lead)
        varies = np.zeros(len(self.lead), dtype=bool)
        for shape in shared:
            varies |= np.asarray(shape, dtype=int).reshape(-1) > 1
        self.order = [*np.flatnonzero(varies).tolist(), *np.flatnonzero(~varies).tolist()]
        self.sets = int(varies.sum())
        self.batch = math.prod(self.lead[axis] for axis in self.order[: self.sets])
        self.replicas = math.prod(self.lead[axis] for axis in self.order[self.sets :])

    def _move(self, value: Array) -> Array:
        return self.joint.ops.xp.moveaxis(value, self.order, list(range(len(self.order)))) if self.order else value

    def fold(self, values: Mapping[str, Array], trailing: int, replicate: bool = False) -> Named:
        """Arrange arrays (*lead, *trailing) to (B, r, *trailing); r is 1 for all of them where none varies over R."""
        padded = {name: pad_dims(value, len(self.lead), trailing) for name, value in values.items()}
        moved = {name: self._move(value) for name, value in padded.items()}
        depth = len(self.lead)
        single = not replicate and all(
            math.prod(tuple(value.shape[self.sets : depth])) == 1 for value in moved.values()
        )
        sizes = [self.lead[axis] for axis in self.order]
        if single:
            sizes[self.sets :] = [1] * (depth - self.sets)
        replicas = 1 if single else self.replicas
        out = {}
        for name, value in moved.items():
            tail = tuple(value.shape[depth:])
            out[name] = self.joint.ops.xp.broadcast_to(value, (*sizes, *tail)).reshape((self.batch, replicas, *tail))
        return out

    def fold_shared(self, tree: Any, ndim: int) -> Any:
        """Arrange arrays (*batch, ...) with `ndim` batch dimensions, alike along R, to (B, ...)."""
        depth = len(self.lead)

        def put(value: Array) -> Array:
            tail = tuple(value.shape[ndim:])
            value = self._move(value.reshape((1,) * (depth - ndim) + tuple(value.shape)))
            value = value.reshape(tuple(value.shape[: self.sets]) + tail)
            sizes = [self.lead[axis] for axis in self.order[: self.sets]]
            return self.joint.ops.xp.broadcast_to(value, (*sizes, *tail)).reshape((self.batch, *tail))

        return map_leaves(put, tree)

    def unfold(self, value: Array) -> Array:
        """Bring a result (B, R or 1, *trailing) back to (*lead, *trailing)."""
        tail = tuple(value.shape[2:])
        xp = self.joint.ops.xp
        value = xp.broadcast_to(value, (self.batch, self.replicas, *tail))
        value = value.reshape((*(self.lead[axis] for axis in self.order), *tail))
        return xp.moveaxis(value, list(range(len(self.order))), self.order) if self.order else value
