"""What is done to arrays, under the same names in both backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ppl_buffer.network.backend import Array, Own
from ppl_buffer.network.foreign import plain
from ppl_buffer.network.layout import map_leaves
from ppl_buffer.network.torch.derivatives import recurrent_unit

xp = torch

# What closes a gate for good: its logistic function is exactly 1.
_CLOSED = 1e4

Tree = TypeVar("Tree")


def _tensor(net: Own, value: Array) -> Tensor:
    array = value if isinstance(value, Tensor) else plain(value)
    # Torch warns of arrays of NumPy that nobody may write to, such as JAX's.
    readable = array.copy() if isinstance(array, np.ndarray) and not array.flags.writeable else array
    return torch.as_tensor(readable, device=net.device)


def number(net: Own, value: Array) -> Tensor:
    """The same array in the network's number type."""
    # One call where the tensor is one already: this is half the work of most conversions.
    return (value if isinstance(value, Tensor) else _tensor(net, value)).to(net.anchor)


def array(net: Own, value: Array) -> Tensor:
    """The same array, of booleans or whole numbers, as the backend's."""
    return _tensor(net, value)


def filled(value: Tensor, exists: Tensor, fill: float) -> Tensor:
    """A value (..., K), with another number in the trials that do not exist."""
    return torch.where(exists, value, fill)


def floating(net: Own, value: Array) -> Tensor:
    """An array-like as floating-point numbers: doubles stay doubles, integers take the network's type."""
    tensor = _tensor(net, value)
    return tensor if tensor.is_floating_point() else tensor.to(net.dtype)


def number_each(net: Own, named: Mapping[str, Array]) -> dict[str, Tensor]:
    """`number` of each of some named arrays."""
    like = net.anchor
    return {
        name: (value if isinstance(value, Tensor) else _tensor(net, value)).to(like) for name, value in named.items()
    }


def floating_each(net: Own, named: Mapping[str, Array]) -> dict[str, Tensor]:
    """`floating` of each of some named arrays.

    Raises:
        TypeError: if one is complex.
    """
    like = net.anchor
    tensors = {}
    for name, value in named.items():
        tensor = value.to(like.device) if isinstance(value, Tensor) else _tensor(net, value)
        if tensor.is_complex():
            raise TypeError(f"{name}: expected real numbers, got complex ones")
        tensors[name] = tensor if tensor.is_floating_point() else tensor.to(like)
    return tensors


def to_concrete(value: Array) -> np.ndarray | None:
    """The numbers as NumPy for a check that cannot be traced; None while they are being traced."""
    if not isinstance(value, Tensor):
        return np.asarray(value)
    if torch.jit.is_tracing():
        return None
    try:
        return value.detach().cpu().numpy()
    except RuntimeError:  # the transforms of torch.func hide the numbers
        return None


def to_concrete_each(named: Mapping[str, Tensor]) -> dict[str, np.ndarray | None]:
    """`to_concrete` of each of some named tensors."""
    if torch.jit.is_tracing():
        return dict.fromkeys(named)
    try:
        return {name: value.detach().cpu().numpy() for name, value in named.items()}
    except RuntimeError:  # the transforms of torch.func hide the numbers, of some of them perhaps
        return {name: to_concrete(value) for name, value in named.items()}


def same(value: Tensor, known: Tensor, snapshot: Tensor) -> bool:
    """Whether `value` holds the numbers of `snapshot`. A tensor can change in place: identity would prove nothing.

    False where the answer would not hold later: for a value that is to be differentiated by, and for another tensor
    while a program is being traced, since the recorded program will see other numbers.
    """
    if value.shape != known.shape or value.requires_grad or (torch.jit.is_tracing() and value is not known):
        return False
    try:
        # NaN may stand where there is no trial, and only there.
        return torch.allclose(value.reshape(snapshot.shape), snapshot.to(value.dtype), rtol=0, atol=0, equal_nan=True)
    except RuntimeError:  # torch.func.vmap hides the numbers
        return False


def cast(value: Tensor, like: Tensor) -> Tensor:
    """Give a result the floating type of an argument, so that sums are kept in the user's precision."""
    return value.to(like.dtype) if like.dtype.is_floating_point else value


def take_along(value: Tensor, indices: Array, axis: int) -> Tensor:
    """Reorder along an axis; `indices` broadcast against `value`."""
    value, indices = torch.broadcast_tensors(value, torch.as_tensor(indices, device=value.device))
    return torch.take_along_dim(value, indices, dim=axis)


def pick_rows(table: np.ndarray, index: Tensor) -> Tensor:
    """Rows of a table of integers, chosen by an array of whole numbers."""
    return torch.as_tensor(table, device=index.device)[index.long()]


def take_rows(value: Tensor, index: Tensor) -> Tensor:
    """Of each trial (B, r, K) the row (n,) of (B, R, T, n) that its index, a whole number, says: (B, R, K, n)."""
    sets, replicas, rows, size = value.shape
    if rows == 1:
        return value.expand(sets, replicas, index.shape[2], size)
    start = rows * torch.arange(sets * replicas, device=value.device).reshape(sets, replicas, 1)
    return value.reshape(-1, size).index_select(0, (start + index.long()).reshape(-1)).reshape(sets, replicas, -1, size)


def copy(value: Tensor) -> Tensor:
    """A copy that shares no memory."""
    return value.detach().clone()


def no_constant_folding(tree: Tree) -> Tree:
    """What was computed before; JAX keeps a compiler from computing with it once more."""
    return tree


def part(tree: Tree, start: int, count: int) -> Tree:
    """`count` trials from `start` on of every array (B, R, K, ...) of dicts or dataclasses."""
    return map_leaves(lambda x: x.narrow(2, start, count), tree)


def map_chunks(function: Callable[[Array], Tensor], rows: np.ndarray | Tensor, size: int) -> Tensor:
    """A function (n, ...) -> (n, ...) of all rows, of no more than `size` at a time."""
    return torch.cat([function(rows[start : start + size]) for start in range(0, len(rows), size)])


def pad_trials(value: Tensor, trials: int) -> Tensor:
    """Fill (B, R, T) with zeros up to (B, R, trials)."""
    return functional.pad(value, (0, trials - value.shape[-1]))


def log_mean_exp(value: Tensor, axis: int) -> Tensor:
    """Logarithm of the mean of exponentials along an axis."""
    return value.logsumexp(axis) - float(np.log(value.shape[axis]))


def zeros(net: Own, shape: Sequence[int]) -> Tensor:
    """Zeros in the network's number type, where its weights are."""
    return torch.zeros(tuple(shape), device=net.device, dtype=net.dtype)


def ones(net: Own, shape: Sequence[int]) -> Tensor:
    """Ones in the network's number type, where its weights are."""
    return torch.ones(tuple(shape), device=net.device, dtype=net.dtype)


def arange(net: Own, count: int) -> Tensor:
    """Whole numbers (count,) from 0, where the network's weights are."""
    return torch.arange(count, device=net.anchor.device)


def linear(net: Own, name: str, x: Tensor) -> Tensor:
    """Affine map of the last axis by the network's weights of a name."""
    return functional.linear(x, net.weights[f"{name}.weight"], net.weights[f"{name}.bias"])


def linear_for_trials(net: Own, name: str, x: Tensor, trials: int, owner: Tensor | None = None) -> Tensor:
    """`linear` of (B, R, F) for trials, (B, R, 1, W), or those of `owner`; or of (B, R, K, F)."""
    if owner is not None and len(x) > 1:
        return repeat_for_owners(linear(net, name, x), owner)
    # All arithmetic repeats an axis of size 1.
    x, weights = x[:, :, None] if x.ndim == 3 else x, net.weights
    return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def perceptron(net: Own, name: str, x: Tensor) -> Tensor:
    """One hidden layer with the SiLU nonlinearity, smooth as a gradient sampler wants it."""
    weights = net.weights
    hidden = functional.silu(functional.linear(x, weights[f"{name}.hidden.weight"], weights[f"{name}.hidden.bias"]))
    return functional.linear(hidden, weights[f"{name}.out.weight"], weights[f"{name}.out.bias"])


def silu(x: Tensor) -> Tensor:
    """The SiLU nonlinearity: x * sigmoid(x)."""
    return functional.silu(x)


def repeat_for_owners(x: Tensor, owner: Tensor) -> Tensor:
    """What a data set has once, (B, R, F), for each trial of rows (N, K) that are of data set `owner`: (N, R, K, F)."""
    return x[owner].movedim(2, 1)


def recurrent(net: Own, name: str, x: Tensor, state: Tensor, valid: Tensor, begins: Tensor | None = None) -> Tensor:
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
    weights, steps = net.weights, x.shape[2]
    lead = torch.broadcast_shapes(x.shape[:2], state.shape[:2], valid.shape[:2])
    if begins is not None or not are_plain(x, state, valid):
        return _recurrent_by_steps(net, name, x, state.expand(*lead, -1), valid, begins)
    # One more number switches the gate z to 1 where there is no step: the library's unit knows no mask.
    missing = (~valid)[..., None].to(x.dtype)
    wide = torch.cat([part.expand(*lead, steps, -1) for part in (x, missing)], -1).flatten(0, 1)
    weight = weights[f"{name}.input.weight"]
    closed, width = torch.zeros_like(weight[:, :1]), weight.shape[0] // 3
    closed[width : 2 * width] = _CLOSED
    start = state.expand(*lead, width).reshape(-1, width)
    return _unit(net, name, torch.cat([weight, closed], 1), wide, start).unflatten(0, lead)


def recurrent_slots(
    net: Own, name: str, x: Tensor, slots: Tensor, slot: Tensor, valid: Tensor, begins: Tensor | None = None
) -> tuple[Tensor, Tensor]:
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
    steps, (count, width) = x.shape[2], slots.shape[2:]
    lead = torch.broadcast_shapes(x.shape[:2], slots.shape[:2], valid.shape[:2], slot.shape[:2])
    if begins is not None or not are_plain(x, slots, slot, valid):
        return _slots_by_steps(net, name, x, slots.expand(*lead, -1, -1), slot, valid, begins)
    # The steps of a slot are a sequence of their own, which the library's unit runs along; missing ones are in none.
    shown = slot[..., None] == torch.arange(count, device=slot.device)
    shown, own = (x.expand(*lead, steps, count).flatten(0, 1) for x in (shown, shown & valid[..., None]))
    before = own.cumsum(1) - own.long()
    # As many as there are steps where a recorded program will see other data.
    longest = steps if torch.jit.is_tracing() else max(int(own.sum(1).max()), 1)
    first = torch.arange(len(own) * count, device=slot.device).reshape(-1, 1, count)
    sequence, number = (shown * first).sum(-1), (shown * before).sum(-1)
    last = len(own) * count * longest  # a place for steps that do not exist
    where = torch.where(own.any(-1), sequence * longest + number, last)
    sequences = x.new_zeros(last + 1, x.shape[-1])
    sequences = sequences.index_copy(0, where.flatten(), x.expand(*lead, -1, -1).reshape(-1, x.shape[-1]))
    start = slots.expand(*lead, -1, -1).reshape(-1, width)
    sequences = sequences[:last].view(-1, longest, x.shape[-1])
    states = _unit(net, name, net.weights[f"{name}.input.weight"], sequences, start)
    states = torch.cat([start[:, None], states], 1)
    # A slot's states are one more than its steps.
    place = sequence * (longest + 1) + number
    after = states[torch.arange(len(states), device=slot.device), own.sum(1).flatten()]
    return states.flatten(0, 1)[place].unflatten(0, lead), after.view(*lead, count, width)


def _unit(net: Own, name: str, input_weight: Tensor, x: Tensor, start: Tensor) -> Tensor:
    """States (N, K, W) of the gated recurrent unit of a name along sequences (N, K, F), which starts from (N, W)."""
    weights = net.weights
    others = weights[f"{name}.state.weight"], weights[f"{name}.input.bias"], weights[f"{name}.state.bias"]
    return recurrent_unit(x, start, input_weight, *others)


def _recurrent_by_steps(net: Own, name: str, x: Tensor, state: Tensor, valid: Tensor, begins: Tensor | None) -> Tensor:
    """`recurrent` as a loop: the library's unit cannot begin anew, nor can torch.func map over it."""
    states: list[Tensor] = []
    by_step = linear(net, f"{name}.input", x)
    for k in range(x.shape[2]):
        if begins is not None:
            state = torch.where(begins[:, :, k, None], 0.0, state)
            states[-1:] = [state][: len(states)]
        state = torch.where(valid[:, :, k, None], _advance(net, name, by_step[:, :, k], state), state)
        states.append(state)
    return torch.stack(states, 2)


def _slots_by_steps(
    net: Own, name: str, x: Tensor, slots: Tensor, slot: Tensor, valid: Tensor, begins: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`recurrent_slots` as a loop."""
    states = []
    by_step = linear(net, f"{name}.input", x)
    shown = slot[..., None] == torch.arange(slots.shape[2], device=slots.device)
    own = shown & valid[..., None]
    for k in range(x.shape[2]):
        its_own = own[:, :, k, :, None]
        slots = slots if begins is None else torch.where(begins[:, :, k, None, None], 0.0, slots)
        state = torch.where(shown[:, :, k, :, None], slots, 0.0).sum(2)
        states.append(state)
        slots = torch.where(its_own, _advance(net, name, by_step[:, :, k], state)[:, :, None], slots)
    return torch.stack(states, 2), slots


def _advance(net: Own, name: str, read: Tensor, state: Tensor) -> Tensor:
    """The state (..., W) after a step, of which (..., 3 W) was read."""
    width, kept = state.shape[-1], linear(net, f"{name}.state", state)
    gates = torch.sigmoid(read[..., : 2 * width] + kept[..., : 2 * width])
    reset, update = gates[..., :width], gates[..., width:]
    new = torch.tanh(read[..., 2 * width :] + reset * kept[..., 2 * width :])
    return new + update * (state - new)


def are_plain(*tensors: Tensor) -> bool:
    """Whether tensors hold numbers themselves. The transforms of torch.func wrap them, and do not know all kernels."""
    try:
        return all([x.data_ptr() != 0 for x in tensors])
    except RuntimeError:
        return False


def norm(net: Own, name: str, x: Tensor) -> Tensor:
    """Layer normalisation over the last axis."""
    return functional.layer_norm(x, x.shape[-1:], net.weights[f"{name}.weight"], net.weights[f"{name}.bias"], eps=1e-5)


def softplus(x: Tensor) -> Tensor:
    """Softplus: log(1 + exp(x))."""
    return functional.softplus(x)


def sigmoid(x: Tensor) -> Tensor:
    """Logistic function: 1 / (1 + exp(-x))."""
    return torch.sigmoid(x)


def softmax(x: Tensor) -> Tensor:
    """Probabilities of logits, along the last axis."""
    return x.log_softmax(-1).exp()


def log_softmax(x: Tensor) -> Tensor:
    """Log probabilities of logits, along the last axis."""
    return x.log_softmax(-1)


def logsumexp(x: Tensor) -> Tensor:
    """Logarithm of the sum of exponentials over the last axis."""
    return x.logsumexp(-1)


def ndtr(x: Tensor) -> Tensor:
    """Distribution function of the standard normal."""
    return torch.special.ndtr(x)


def log_ndtr(x: Tensor) -> Tensor:
    """Logarithm of the distribution function of the standard normal, exact far out."""
    return torch.special.log_ndtr(x)


def ndtri(x: Tensor) -> Tensor:
    """Quantile of the standard normal."""
    return torch.special.ndtri(x)


def stop_gradient(x: Tensor) -> Tensor:
    """The same numbers, which no derivative goes through."""
    return x.detach()


def chunk(x: Tensor, count: int) -> Sequence[Tensor]:
    """Equal pieces of the last axis."""
    return x.chunk(count, -1)


def take_last(x: Tensor, index: Tensor) -> Tensor:
    """Elements of the last axis, picked by whole numbers."""
    return x.gather(-1, index[..., None])[..., 0]
