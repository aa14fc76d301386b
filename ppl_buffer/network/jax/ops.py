"""What is done to arrays, under the same names in both backends."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

xp = jnp


def number(net: Any, value: Any) -> Array:
    """The same array in the network's number type."""
    return jnp.asarray(value).astype(net.dtype)


def floating(net: Any, value: Any) -> Array:
    """Any array-like as floating-point numbers: doubles stay doubles, integers take the network's type."""
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(net.dtype)


def to_concrete(value: Any) -> np.ndarray | None:
    """The numbers as NumPy for a check that cannot be traced; None while they are being traced."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def same(value: Array, known: Array, snapshot: Array) -> bool:
    """Whether `value` is known to hold the numbers of `snapshot`; False where tracing hides them."""
    if value is known:
        return True
    if value.shape != known.shape or isinstance(value, jax.core.Tracer) or isinstance(snapshot, jax.core.Tracer):
        return False
    # NaN may stand where there is no trial, and only there.
    return np.array_equal(np.asarray(value), np.asarray(snapshot).reshape(value.shape), equal_nan=True)


def cast(value: Array, like: Array) -> Array:
    """Give a result the floating type of an argument, so that sums are kept in the user's precision."""
    return value.astype(like.dtype) if jnp.issubdtype(like.dtype, jnp.floating) else value


def take_along(value: Array, indices: Any, axis: int) -> Array:
    """Reorder along an axis; `indices` broadcast against `value`."""
    value, indices = jnp.broadcast_arrays(value, jnp.asarray(indices))
    return jnp.take_along_axis(value, indices, axis=axis)


def pick_rows(table: np.ndarray, index: Array) -> Array:
    """Rows of a table of integers, chosen by an array of whole numbers."""
    return jnp.asarray(table)[index.astype(int)]


def copy(value: Array) -> Array:
    """A copy that shares no memory with an array of NumPy."""
    return jnp.array(value, copy=True)


def no_constant_folding(tree: Any) -> Any:
    """Hide numbers that are known while compiling: XLA would spend minutes on folding what depends on them alone."""
    return jax.lax.optimization_barrier(tree)


def pad_trials(value: Array, trials: int) -> Array:
    """Fill (B, R, T) with zeros up to (B, R, trials)."""
    return jnp.pad(value, ((0, 0), (0, 0), (0, trials - value.shape[-1])))


def log_mean_exp(value: Array, axis: int) -> Array:
    """Logarithm of the mean of exponentials along an axis."""
    return jax.nn.logsumexp(value, axis) - float(np.log(value.shape[axis]))
