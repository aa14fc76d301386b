"""Checks of what a user passes to a network: names, shapes, legal values. Nothing here imports torch or jax."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ppl_buffer.network.backend import Array, Backend, Named
from ppl_buffer.schema import Categorical, Variable


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


def check_legal(joint: Backend, argument: str, variable: Variable, value: Array, mask: Array | None = None) -> None:
    """Refuse values that the variable cannot take, where they can be looked at and stand for a trial."""
    numbers = joint.ops.to_concrete(value)
    exists = None if mask is None else joint.ops.to_concrete(mask)
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
    joint: Backend,
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
        value = _as_number(joint.ops.number, net, f"{argument}[{name!r}]", given[name])
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
            value = joint.ops.xp.where(mask, value, variable.fill)
        arrays[name] = value
    return arrays


def _as_number(convert: Callable[[Any, Any], Array], net: Any, argument: str, value: Any) -> Array:
    if "complex" in str(getattr(value, "dtype", type(value))):
        raise ValueError(f"{argument}: expected an array of real numbers, got complex ones")
    try:
        return convert(net, value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{argument}: expected an array of numbers, got {type(value).__name__} ({error})") from None


def as_floating(joint: Backend, net: Any, argument: str, value: Any) -> Array:
    """A floating-point array of the backend; doubles stay doubles."""
    return _as_number(joint.ops.floating, net, argument, value)


def as_mask(joint: Backend, net: Any, argument: str, value: Any, trials: int) -> Array:
    """A boolean (*B, K) array of the backend."""
    given = value if hasattr(value, "dtype") else np.asarray(value)
    if "bool" not in str(given.dtype):
        raise ValueError(f"{argument}: expected booleans, True where there is a trial, got {given.dtype}")
    mask = _as_number(joint.ops.number, net, argument, given) > 0
    if mask.ndim == 0 or mask.shape[-1] != trials:
        raise ValueError(f"{argument}: expected shape (*batch, {trials}), got {tuple(mask.shape)}")
    return mask
