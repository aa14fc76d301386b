"""What is done to arrays, under the same names in both backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ppl_buffer.network.backend import Array as AnyArray
from ppl_buffer.network.backend import Own
from ppl_buffer.network.foreign import plain
from ppl_buffer.network.jax import derivatives
from ppl_buffer.network.jax.derivatives import recurrent_unit, repeat_for_trials, row_sum, spread_rows

Array = jax.Array

xp = jnp

Tree = TypeVar("Tree")


def _array(value: AnyArray) -> Array:
    if isinstance(value, jax.Array):
        return value
    value = plain(value)
    if isinstance(value, np.ndarray | np.generic):
        return _copied(value, jax.dtypes.canonicalize_dtype(value.dtype))
    return jnp.asarray(value)


def _copied(value: np.ndarray | np.generic, dtype: np.dtype) -> Array:
    """Numbers of NumPy as JAX's own. With the type said, JAX 0.10 compiles no program for it."""
    return jnp.asarray(np.array(value, dtype), dtype=dtype)


def number(net: Own, value: AnyArray) -> Array:
    """The same array in the network's number type."""
    if not isinstance(value, jax.Array):
        value = plain(value)
        if isinstance(value, np.ndarray | np.generic):
            return _copied(value, net.dtype)
    return jnp.asarray(value).astype(net.dtype)


def array(net: Own, value: AnyArray) -> Array:
    """The same array, of booleans or whole numbers, as the backend's."""
    return _array(value)


def filled(value: Array, exists: Array, fill: float) -> Array:
    """A value (..., K), with another number in the trials that do not exist."""
    if isinstance(value, jax.core.Tracer) or isinstance(exists, jax.core.Tracer):
        return jnp.where(exists, value, fill)
    # By NumPy, or a program would be compiled for each shape.
    return _copied(np.where(np.asarray(exists), np.asarray(value), fill), value.dtype)


def floating(net: Own, value: AnyArray) -> Array:
    """An array-like as floating-point numbers: doubles stay doubles, integers take the network's type."""
    if isinstance(value, np.ndarray | np.generic) and plain(value).dtype.kind != "f":
        return number(net, value)
    array = _array(value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(net.dtype)


def number_each(net: Own, named: Mapping[str, AnyArray]) -> dict[str, Array]:
    """`number` of each of some named arrays."""
    return {name: number(net, value) for name, value in named.items()}


def floating_each(net: Own, named: Mapping[str, AnyArray]) -> dict[str, Array]:
    """`floating` of each of some named arrays.

    Raises:
        TypeError: if one is complex.
    """
    arrays = {name: _array(value) for name, value in named.items()}
    for name, array in arrays.items():
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise TypeError(f"{name}: expected real numbers, got complex ones")
    return {name: floating(net, array) for name, array in arrays.items()}


def to_concrete(value: AnyArray) -> np.ndarray | None:
    """The numbers as NumPy for a check that cannot be traced; None while they are being traced."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def to_concrete_each(named: Mapping[str, Array]) -> dict[str, np.ndarray | None]:
    """`to_concrete` of each of some named arrays."""
    return {name: to_concrete(value) for name, value in named.items()}


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


def take_along(value: Array, indices: AnyArray, axis: int) -> Array:
    """Reorder along an axis; `indices` broadcast against `value`."""
    value, indices = jnp.broadcast_arrays(value, jnp.asarray(indices))
    return jnp.take_along_axis(value, indices, axis=axis)


def pick_rows(table: np.ndarray, index: Array) -> Array:
    """Rows of a table of integers, chosen by an array of whole numbers."""
    return jnp.asarray(table)[index.astype(int)]


def take_rows(value: Array, index: Array) -> Array:
    """Of each trial (B, r, K) the row (n,) of (B, R, T, n) that its index, a whole number, says: (B, R, K, n)."""
    if value.shape[2] == 1:
        return jnp.broadcast_to(value, (*value.shape[:2], index.shape[2], value.shape[3]))
    return jnp.take_along_axis(value, index[..., None].astype(int), axis=2)


def copy(value: Array) -> Array:
    """A copy that shares no memory with an array of NumPy that somebody else has."""
    if isinstance(value, jax.core.Tracer):
        return jnp.array(value, copy=True)
    return _copied(np.asarray(value), value.dtype)


def no_constant_folding(tree: Tree) -> Tree:
    """Hide numbers that are known while compiling: XLA would spend minutes on folding what depends on them alone."""
    return jax.lax.optimization_barrier(tree)


def part(tree: Tree, start: int | Array, count: int) -> Tree:
    """`count` trials from `start` on of every array (B, R, K, ...) of a pytree."""
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, count, axis=2), tree)


def map_chunks(function: Callable[[Array], Array], rows: np.ndarray | Array, size: int) -> Array:
    """A function (n, ...) -> (n, ...) of all rows, a loop over chunks of one size: the program has one of them."""
    if len(rows) <= size:
        return function(jnp.asarray(rows))
    count = -(-len(rows) // size)
    size = -(-len(rows) // count)
    # The last chunk is filled up with rows of the first.
    places = np.arange(count * size).reshape(count, size) % len(rows)
    results = jax.lax.map(function, jnp.asarray(rows)[places])
    return results.reshape(count * size, *results.shape[2:])[: len(rows)]


def pad_trials(value: Array, trials: int) -> Array:
    """Fill (B, R, T) with zeros up to (B, R, trials)."""
    return jnp.pad(value, ((0, 0), (0, 0), (0, trials - value.shape[-1])))


def log_mean_exp(value: Array, axis: int) -> Array:
    """Logarithm of the mean of exponentials along an axis."""
    return jax.nn.logsumexp(value, axis) - float(np.log(value.shape[axis]))


def zeros(net: Own, shape: Sequence[int]) -> Array:
    """Zeros in the network's number type, where its weights are."""
    return jnp.zeros(shape, net.dtype)


def ones(net: Own, shape: Sequence[int]) -> Array:
    """Ones in the network's number type, where its weights are."""
    return jnp.ones(shape, net.dtype)


def arange(net: Own, count: int) -> Array:
    """Whole numbers (count,) from 0, where the network's weights are."""
    return jnp.arange(count)


def linear(net: Own, name: str, x: Array) -> Array:
    """Affine map of the last axis by the network's weights of a name."""
    return x @ net.weights[f"{name}.weight"].T + net.weights[f"{name}.bias"]


def linear_for_trials(net: Own, name: str, x: Array, trials: int, owner: Array | None = None) -> Array:
    """`linear` of (B, R, F) for trials, (B, R, trials, W), or those of `owner`; or of (B, R, K, F)."""
    mapped = linear(net, name, x)
    if owner is not None and len(x) > 1:
        return repeat_for_owners(mapped, owner)
    return repeat_for_trials(mapped, trials) if x.ndim == 3 else mapped


def perceptron(net: Own, name: str, x: Array) -> Array:
    """One hidden layer with the SiLU nonlinearity, smooth as a gradient sampler wants it."""
    return linear(net, f"{name}.out", jax.nn.silu(linear(net, f"{name}.hidden", x)))


def silu(x: Array) -> Array:
    """The SiLU nonlinearity: x * sigmoid(x)."""
    return jax.nn.silu(x)


def repeat_for_owners(x: Array, owner: Array) -> Array:
    """What a data set has once, (B, R, F), for each trial of rows (N, K) that are of data set `owner`: (N, R, K, F)."""
    return derivatives.repeat_for_owners(x, owner)


def recurrent(net: Own, name: str, x: Array, state: Array, valid: Array, begins: Array | None = None) -> Array:
    """States (B, R, K, W) of a gated recurrent unit after each step; a step that does not exist changes nothing.

    With r, z and n the thirds of the affine maps, h' = (1 - z) n + z h, r = sigmoid(r_x + r_h),
    z = sigmoid(z_x + z_h), n = tanh(n_x + r n_h).

    Args:
        net: the weights.
        name: of the maps: ``name.input`` of the step's numbers, ``name.state`` of the state.
        x: (B, r, K, F), the steps' numbers.
        state: (B, R, W), before the first step.
        valid: (B, r, K) bool, which steps exist.
        begins: (B, r, K) bool, which steps begin another sequence, from 0; before these the state returned is that 0.
    """
    # One state, which all steps are of.
    before, behind = _along(net, name, x, state[:, :, None], valid[..., None], valid[..., None], begins)
    after = jnp.concatenate([before[1:], behind[None, :, :, 0]])
    return jnp.moveaxis(after, 0, 2)


def recurrent_slots(
    net: Own, name: str, x: Array, slots: Array, slot: Array, valid: Array, begins: Array | None = None
) -> tuple[Array, Array]:
    """A gated recurrent unit, as in `recurrent`, each step of which reads and changes one of several states.

    Args:
        net: the weights.
        name: of the maps.
        x: (B, r, K, F), the steps' numbers.
        slots: (B, R, C, W), the states before the first step.
        slot: (B, r, K) whole numbers, the state that each step is of.
        valid: (B, r, K) bool, which steps exist.
        begins: (B, r, K) bool, which steps begin another sequence, from 0.

    Returns:
        (B, R, K, W), each step's own state before it, also of one that does not exist, and (B, R, C, W), the states
        behind the last step.
    """
    shown = slot[..., None] == jnp.arange(slots.shape[2])
    before, behind = _along(net, name, x, slots, shown, shown & valid[..., None], begins)
    return jnp.moveaxis(before, 0, 2), behind


def _along(
    net: Own, name: str, x: Array, slots: Array, shown: Array, own: Array, begins: Array | None
) -> tuple[Array, Array]:
    """`recurrent_unit` of a name along steps (B, r, K, F), each of which is of one of the states (B, R, C, W)."""
    lead = jnp.broadcast_shapes(x.shape[:2], slots.shape[:2], own.shape[:2])

    def by_step(each: Array) -> Array:
        return jnp.moveaxis(jnp.broadcast_to(each, (*lead, *each.shape[2:])), 2, 0)

    anew = None if begins is None else by_step(begins)
    read, shown, own = map(by_step, (linear(net, f"{name}.input", x), shown, own))
    slots = jnp.broadcast_to(slots, (*lead, *slots.shape[2:]))
    maps = (net.weights[f"{name}.state.{leaf}"] for leaf in ("weight", "bias"))
    return recurrent_unit(read, shown, own, anew, slots, *maps)


def norm(net: Own, name: str, x: Array) -> Array:
    """Layer normalisation over the last axis."""
    size = x.shape[-1]
    centered = x - spread_rows(row_sum(x) / size, size)
    scale = jax.lax.rsqrt(row_sum(centered**2) / size + 1e-5)
    return centered * spread_rows(scale, size) * net.weights[f"{name}.weight"] + net.weights[f"{name}.bias"]


def softplus(x: Array) -> Array:
    """Softplus: log(1 + exp(x))."""
    return jax.nn.softplus(x)


def sigmoid(x: Array) -> Array:
    """Logistic function: 1 / (1 + exp(-x))."""
    return jax.nn.sigmoid(x)


def softmax(x: Array) -> Array:
    """Probabilities of logits, along the last axis."""
    return jax.nn.softmax(x, -1)


def log_softmax(x: Array) -> Array:
    """Log probabilities of logits, along the last axis."""
    return jax.nn.log_softmax(x, -1)


def logsumexp(x: Array) -> Array:
    """Logarithm of the sum of exponentials over the last axis."""
    return jax.nn.logsumexp(x, -1)


def ndtr(x: Array) -> Array:
    """Distribution function of the standard normal."""
    return jax.scipy.special.ndtr(x)


def log_ndtr(x: Array) -> Array:
    """Logarithm of the distribution function of the standard normal, exact far out."""
    return jax.scipy.special.log_ndtr(x)


def ndtri(x: Array) -> Array:
    """Quantile of the standard normal."""
    return jax.scipy.special.ndtri(x)


def stop_gradient(x: Array) -> Array:
    """The same numbers, which no derivative goes through."""
    return jax.lax.stop_gradient(x)


def chunk(x: Array, count: int) -> Sequence[Array]:
    """Equal pieces of the last axis."""
    return jnp.split(x, count, -1)


def take_last(x: Array, index: Array) -> Array:
    """Elements of the last axis, picked by whole numbers."""
    return jnp.take_along_axis(x, index[..., None], -1)[..., 0]
