"""Functions whose derivatives are written by hand, since what XLA makes of the automatic ones is slow.

They are rules for tangents, which are linear and which JAX transposes: derivatives of any order and direction work.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

Array = jax.Array

# Data sets for which a product costs less than to add up what trials say of them one by one.
_FEW = 128


def _sum_product(x: Array, y: Array) -> Array:
    """A product with ones, in full precision: it stands for a sum, and graphics processors round what they multiply."""
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def repeat_for_trials(x: Array, trials: int) -> Array:
    """What a data set has once, (B, R, F), for each of its trials: (B, R, trials, F)."""
    return jnp.broadcast_to(x[:, :, None], (*x.shape[:2], trials, x.shape[2]))


@repeat_for_trials.defjvp
def _repeat_derivative(trials: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # The transpose of this product sums over trials; a plain sum is fused with what follows, and ten times slower.
    ones = jnp.ones((*tangents[0].shape[:2], trials, 1), tangents[0].dtype)
    return repeat_for_trials(primals[0], trials), _sum_product(ones, tangents[0][:, :, None])


def row_sum(x: Array) -> Array:
    """The sum over the last axis, (..., 1): as a product, since XLA does not vectorise sums of rows."""
    return _sum_product(x, jnp.ones((x.shape[-1], 1), x.dtype))


def repeat_for_owners(x: Array, owner: Array) -> Array:
    """What a data set has once, (B, R, F), for each trial of rows (N, K) that are of data set `owner`: (N, R, K, F)."""
    return _read_rows(x, owner) if x.shape[0] > _FEW else _repeat_for_owners(x, owner)


def _read_rows(x: Array, owner: Array) -> Array:
    return jnp.moveaxis(x[owner], 2, 1)


# Whose derivative is a product with a matrix of all trials by all data sets.
_repeat_for_owners = jax.custom_jvp(_read_rows)


@_repeat_for_owners.defjvp
def _owners_derivative(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    # The transpose of a product; that of reading rows would add them up one by one.
    (x, owner), by_x = primals, tangents[0]
    which = (owner[..., None] == jnp.arange(x.shape[0])).astype(x.dtype)
    spread = _sum_product(which.reshape(-1, x.shape[0]), by_x.reshape(x.shape[0], -1))
    return _read_rows(x, owner), jnp.moveaxis(spread.reshape(*owner.shape, *x.shape[1:]), 2, 1)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def spread_rows(x: Array, size: int) -> Array:
    """A number a row, (..., 1), for each of its places: (..., size)."""
    return jnp.broadcast_to(x, (*x.shape[:-1], size))


@spread_rows.defjvp
def _spread_derivative(size: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # The transpose of this product is `row_sum`.
    return spread_rows(primals[0], size), _sum_product(tangents[0], jnp.ones((1, size), tangents[0].dtype))


def recurrent_unit(
    read: Array, shown: Array, own: Array, begins: Array | None, slots: Array, weight: Array, bias: Array
) -> tuple[Array, Array]:
    """States of a gated recurrent unit, each step of which reads and changes one of C states.

    With r, z and n the thirds of the affine maps, h' = n + z (h - n), r = sigmoid(r_x + r_h), z = sigmoid(z_x + z_h),
    n = tanh(n_x + r n_h).

    Args:
        read: (K, ..., 3 W), the affine map of each step's numbers.
        shown: (K, ..., C) bool, the state that each step reads; where there is one alone, all read it.
        own: (K, ..., C) bool, the state that each step changes; none where there is no step.
        begins: (K, ...) bool, the steps before which all states are 0; None = none.
        slots: (..., C, W), the states before the first step.
        weight: (3 W, W), of the map of the state.
        bias: (3 W,), of the map of the state.

    Returns:
        (K, ..., W), each step's own state before it, and (..., C, W), the states behind the last step.
    """
    return _states(read, shown, own, begins, slots, weight, bias)


def _step_by_step(
    read: Array, shown: Array, own: Array, begins: Array | None, slots: Array, weight: Array, bias: Array
) -> tuple[Array, Array]:
    """`recurrent_unit`, differentiated by JAX."""

    def step(slots: Array, trial: tuple[Array, Array, Array, Array | None]) -> tuple[Array, Array]:
        of_input, its_own, slots = trial[0], trial[2][..., None], _begun(slots, trial[3])
        before = _shown(slots, trial[1][..., None])
        gates, new = _parts(of_input, before @ weight.T + bias)
        after = new + gates[..., before.shape[-1] :] * (before - new)
        return jnp.where(its_own, after[..., None, :], slots), before

    slots, before = jax.lax.scan(step, slots, (read, shown, own, begins))
    return before, slots


def _begun(slots: Array, begins: Array | None) -> Array:
    """The states (..., C, W), 0 where a sequence begins, (...)."""
    return slots if begins is None else jnp.where(begins[..., None, None], 0.0, slots)


def _parts(read: Array, kept: Array) -> tuple[Array, Array]:
    """The gates r and z, (..., 2 W), and n, (..., W)."""
    width = read.shape[-1] // 3
    gates = jax.nn.sigmoid(read[..., : 2 * width] + kept[..., : 2 * width])
    return gates, jnp.tanh(read[..., 2 * width :] + gates[..., :width] * kept[..., 2 * width :])


def _shown(slots: Array, its_own: Array) -> Array:
    """The state (..., W) that a step reads; where there is one alone, all read it."""
    return slots[..., 0, :] if slots.shape[-2] == 1 else jnp.where(its_own, slots, 0.0).sum(-2)


def _fold(x: Array) -> Array:
    """The sum of the three thirds of the last axis."""
    return jnp.sum(jnp.stack(jnp.split(x, 3, -1)), 0)


def _derivative(
    primals: tuple[Array, ...], tangents: tuple[Array | SymbolicZero, ...]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Both results and their derivative along `tangents`.

    Automatic differentiation would store all that a step computes, and go through it again step by step. Here what does
    not depend on the order is computed for all steps at once, and a linear scan of few operations is left.
    """
    read, shown, own, begins, slots, weight, bias = primals
    by_read, *_, by_slots, by_weight, by_bias = tangents
    before, behind = _states(*primals)
    kept = before @ weight.T + bias
    gates, new = _parts(read, kept)
    width = new.shape[-1]
    reset, update = gates[..., :width], gates[..., width:]
    # Derivatives of the state after a step by the three thirds of each map.
    of_new = (1 - update) * (1 - new**2)
    of_reset = of_new * kept[..., 2 * width :] * reset * (1 - reset)
    of_update = (before - new) * update * (1 - update)
    of_kept = jnp.concatenate([of_reset, of_update, of_new * reset], -1)
    change = jnp.zeros_like(before)
    if not isinstance(by_read, SymbolicZero):
        change += _fold(jnp.concatenate([of_reset, of_update, of_new], -1) * by_read)
    if not isinstance(by_weight, SymbolicZero):
        change += _fold(of_kept * (before @ by_weight.T))
    if not isinstance(by_bias, SymbolicZero):
        change += _fold(of_kept * by_bias)

    def step(by_slots: Array, trial: tuple[Array, ...]) -> tuple[Array, Array]:
        change, update, of_kept, its_own = *trial[:3], trial[4][..., None]
        by_slots = _begun(by_slots, trial[5])
        by_before = _shown(by_slots, trial[3][..., None])
        by_after = update * by_before + _fold(of_kept * (by_before @ weight.T)) + change
        return jnp.where(its_own, by_after[..., None, :], by_slots), by_before

    start = jnp.zeros_like(slots) if isinstance(by_slots, SymbolicZero) else by_slots
    by_behind, by_before = jax.lax.scan(step, start, (change, update, of_kept, shown, own, begins))
    return (before, behind), (by_before, by_behind)


_states = _step_by_step
# Earlier versions cannot transpose a scan in a rule.
if jax.__version_info__ >= (0, 10):
    _states = jax.custom_jvp(_step_by_step)
    _states.defjvp(_derivative, symbolic_zeros=True)
