"""From what a user passes to what a backend computes on: checks, batch dimensions, and the arrangement of arrays.

Nothing here imports torch or jax. Arrays are handled through the backend's `joint` module, which names the same few
operations in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from ppl_buffer.schema import Categorical, Schema, Variable

Array = Any
Named = dict[str, Array]


def check_names(argument: str, given: Mapping[str, Any], expected: Iterable[str], subset: bool = False) -> None:
    """Refuse a dict whose names are not the schema's."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{argument}: expected a dict of name to array, got {type(given).__name__}")
    expected = list(expected)
    unknown = [name for name in given if name not in expected]
    missing = [] if subset else [name for name in expected if name not in given]
    if unknown or missing:
        some = "any of " if subset else ""
        problems = [f"unknown {unknown}"] * bool(unknown) + [f"missing {missing}"] * bool(missing)
        raise ValueError(f"{argument}: expected {some}{expected}, got {list(given)} ({', '.join(problems)})")


def check_legal(joint: ModuleType, argument: str, variable: Variable, value: Array, mask: Array | None = None) -> None:
    """Refuse values that the variable cannot take, where they can be looked at and stand for a trial."""
    numbers = joint.concrete(value)
    exists = None if mask is None else joint.concrete(mask)
    if numbers is None or (mask is not None and exists is None):
        return
    with np.errstate(invalid="ignore"):
        bad = ~np.asarray(variable.contains(np, numbers))
    if exists is not None:
        bad = bad & exists
    if bad.any():
        culprit = np.broadcast_to(numbers, bad.shape)[bad].flat[0]
        hint = ""
        if isinstance(variable, Categorical) and set(np.unique(numbers[np.isfinite(numbers)])) <= {-1, 1}:
            hint = "; categories are coded from 0, so -1 and 1 must be recoded as 0 and 1"
        found = f"got {culprit!s} ({bad.sum()} of {bad.size}){hint}"
        raise ValueError(f"{argument}: expected {variable.description}, {found}")


def check_trial_arrays(
    joint: ModuleType,
    net: Any,
    argument: str,
    given: Mapping[str, Any],
    variables: Mapping[str, Variable],
    trials: int | None,
    mask: Array | None,
) -> Named:
    """Turn a dict name -> (*B, K) into arrays of the backend, K alike in all of them, illegal fill values replaced."""
    check_names(argument, given, variables)
    arrays: Named = {}
    for name, variable in variables.items():
        value = _as_number(joint.number, net, f"{argument}[{name!r}]", given[name])
        if value.ndim == 0:
            raise ValueError(f"{argument}[{name!r}]: expected shape (*batch, trials), got a scalar")
        if trials is None:
            trials = value.shape[-1]
        if value.shape[-1] != trials:
            raise ValueError(
                f"{argument}[{name!r}]: expected {trials} trials on the last axis, got shape {tuple(value.shape)}"
            )
        check_legal(joint, f"{argument}[{name!r}]", variable, value, mask)
        if mask is not None:
            value = joint.xp.where(mask, value, variable.fill)
        arrays[name] = value
    return arrays


def _as_number(convert: Callable[[Any, Any], Array], net: Any, argument: str, value: Any) -> Array:
    if "complex" in str(getattr(value, "dtype", type(value))):
        raise ValueError(f"{argument}: expected an array of real numbers, got complex ones")
    try:
        return convert(net, value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{argument}: expected an array of numbers, got {type(value).__name__} ({error})") from None


def as_floating(joint: ModuleType, net: Any, argument: str, value: Any) -> Array:
    """A floating-point array of the backend; doubles stay doubles."""
    return _as_number(joint.floating, net, argument, value)


def as_mask(joint: ModuleType, net: Any, argument: str, value: Any, trials: int) -> Array:
    """A boolean (*B, K) array of the backend."""
    given = value if hasattr(value, "dtype") else np.asarray(value)
    if "bool" not in str(given.dtype):
        raise ValueError(f"{argument}: expected booleans, True where there is a trial, got {given.dtype}")
    mask = _as_number(joint.number, net, argument, given) > 0
    if mask.ndim == 0 or mask.shape[-1] != trials:
        raise ValueError(f"{argument}: expected shape (*batch, {trials}), got {tuple(mask.shape)}")
    return mask


def split_value(schema: Schema, value: Array) -> Named:
    """Columns of a value (..., K) or (..., K, n_outcomes) by outcome, each (..., K)."""
    if len(schema.outcomes) == 1:
        return {name: value for name in schema.outcomes}
    return {name: value[..., index] for index, name in enumerate(schema.outcomes)}


def stack_value(xp: ModuleType, schema: Schema, outcomes: Mapping[str, Array]) -> Array:
    """Inverse of `split_value`: outcomes (..., K) as a value (..., K) or (..., K, n_outcomes)."""
    if len(schema.outcomes) == 1:
        return outcomes[next(iter(schema.outcomes))]
    return xp.stack([outcomes[name] for name in schema.outcomes], -1)


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


class Arrangement:
    """Sorts batch dimensions into data sets (B) and replicas (R), and moves arrays to (B, R, ...) and back.

    A leading dimension along which the shared arrays (a context, an observed buffer) vary tells data sets apart. Along
    the others whatever is shared is stored once, and read by all replicas.

    Args:
        joint: the backend.
        lead: sizes of the leading dimensions.
        shared: leading shapes of the shared arrays, each as long as `lead`.
    """

    def __init__(self, joint: ModuleType, lead: Sequence[int], shared: Iterable[Sequence[int]]) -> None:
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
        return self.joint.xp.moveaxis(value, self.order, list(range(len(self.order)))) if self.order else value

    def put(self, values: Mapping[str, Array], trailing: int, replicate: bool = False) -> Named:
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
            out[name] = self.joint.xp.broadcast_to(value, (*sizes, *tail)).reshape((self.batch, replicas, *tail))
        return out

    def put_shared(self, tree: Any, ndim: int) -> Any:
        """Arrange arrays (*batch, ...) with `ndim` batch dimensions, alike along R, to (B, ...)."""
        depth = len(self.lead)

        def put(value: Array) -> Array:
            tail = tuple(value.shape[ndim:])
            value = self._move(value.reshape((1,) * (depth - ndim) + tuple(value.shape)))
            value = value.reshape(tuple(value.shape[: self.sets]) + tail)
            sizes = [self.lead[axis] for axis in self.order[: self.sets]]
            return self.joint.xp.broadcast_to(value, (*sizes, *tail)).reshape((self.batch, *tail))

        return map_leaves(put, tree)

    def take(self, value: Array) -> Array:
        """Bring a result (B, R or 1, *trailing) back to (*lead, *trailing)."""
        tail = tuple(value.shape[2:])
        xp = self.joint.xp
        value = xp.broadcast_to(value, (self.batch, self.replicas, *tail))
        value = value.reshape((*(self.lead[axis] for axis in self.order), *tail))
        return xp.moveaxis(value, list(range(len(self.order))), self.order) if self.order else value
