"""A gated recurrent unit along sequences whose derivative is written by hand.

Automatic differentiation of the library's unit keeps a node for each operation of each step, which on a processor takes
longer than the arithmetic where sequences are few. Here the steps of the derivative are three operations each, and all
that does not depend on the order is computed for all steps at once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.nn import functional

_sigmoid_backward, _tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward


def recurrent_unit(x: Tensor, start: Tensor, *maps: Tensor) -> Tensor:
    """States (N, K, W) of a gated recurrent unit along sequences (N, K, F), which starts from (N, W).

    Args:
        x: the sequences.
        start: the states before them.
        *maps: weights and biases as `torch.gru` takes them: of the input (3 W, F), of the state (3 W, W), biases (3 W,)
            of both.
    """
    needed = torch.is_grad_enabled() and any(each.requires_grad for each in (x, start, *maps))
    # Graphics processors have the whole sequence in one kernel, and a recorded program differentiates what it saw.
    if needed and x.device.type == "cpu" and not torch.jit.is_tracing():
        return _States.apply(x, start, *maps)  # type: ignore[no-any-return, no-untyped-call]
    return _by_library(x, start, *maps)


def _by_library(x: Tensor, start: Tensor, *maps: Tensor) -> Tensor:
    return torch.gru(x, start[None], maps, True, 1, 0.0, torch.is_grad_enabled(), False, True)[0]


class _States(torch.autograd.Function):
    """States of the unit.

    With r, z and n the thirds of the affine maps, h' = n + z (h - n), r = sigmoid(r_x + r_h), z = sigmoid(z_x + z_h),
    n = tanh(n_x + r n_h). Steps come first, (K, N, ...), so that what a step reads is one block of memory.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: FunctionCtx, x: Tensor, start: Tensor, of_input: Tensor, of_state: Tensor, bias: Tensor, state_bias: Tensor
    ) -> Tensor:
        (sequences, steps), width = x.shape[:2], start.shape[1]
        read = functional.linear(x.transpose(0, 1), of_input, bias)
        states = read.new_empty(steps + 1, sequences, width)
        gates, new, kept = (read.new_empty(steps, sequences, k * width) for k in (2, 1, 3))
        states[0] = start
        each = states.unbind(0)
        by_step = zip(
            each[:-1], each[1:], kept.unbind(0), *_parts(read, 2 * width), *_parts(kept, 2 * width),
            gates.unbind(0), *_parts(gates, width), new.unbind(0), strict=True,
        )  # fmt: skip
        transposed = of_state.t()
        for before, after, h, gates_x, n_x, gates_h, n_h, gate, r, z, n in by_step:
            torch.addmm(state_bias, before, transposed, out=h)
            torch.add(gates_x, gates_h, out=gate).sigmoid_()
            torch.addcmul(n_x, r, n_h, out=n).tanh_()
            torch.lerp(n, before, z, out=after)
        ctx.save_for_backward(x, start, of_input, of_state, bias, state_bias, states, gates, new, kept)
        return states[1:].transpose(0, 1)

    @staticmethod
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        arguments, (states, gates, new, kept) = saved[:6], saved[6:]
        if torch.is_grad_enabled():  # a derivative of this derivative is wanted
            wanted = [each for each in arguments if each.requires_grad]
            by_wanted = iter(torch.autograd.grad(_by_library(*arguments), wanted, gradient, create_graph=True))
            return tuple(next(by_wanted) if each.requires_grad else None for each in arguments)
        x, _, of_input, of_state, *_ = arguments
        needs: tuple[bool, ...] = ctx.needs_input_grad
        before, width = states[:-1], new.shape[2]
        (r, z), by_new = (gates[..., :width], gates[..., width:]), _tanh_backward(1 - gates[..., width:], new)
        # Derivatives of a state by the three maps of the state before it, then times that of the result.
        by_kept = torch.empty_like(kept)
        _sigmoid_backward(by_new * kept[..., 2 * width :], r, grad_input=by_kept[..., :width])
        _sigmoid_backward(before - new, z, grad_input=by_kept[..., width : 2 * width])
        torch.mul(by_new, r, out=by_kept[..., 2 * width :])
        by_after, by_before = torch.empty_like(new), states.new_zeros(new.shape[1:])
        by_step = zip(
            gradient.unbind(1), by_after.unbind(0), by_after.unsqueeze(2).unbind(0), z.unbind(0), by_kept.unbind(0),
            by_kept.unflatten(2, (3, width)).unbind(0), strict=True,
        )  # fmt: skip
        for own, total, of_all, carried, maps, by_map in reversed(list(by_step)):
            torch.add(own, by_before, out=total)
            by_map.mul_(of_all)
            by_before = torch.mul(total, carried, out=by_before).addmm_(maps, of_state)
        by_new.mul_(by_after)
        return (
            _through(by_kept, by_new, of_input).transpose(0, 1) if needs[0] else None,
            by_before if needs[1] else None,
            _by_weight(by_kept, by_new, x) if needs[2] else None,
            by_kept.flatten(0, 1).t() @ before.flatten(0, 1) if needs[3] else None,
            torch.cat([by_kept[..., : 2 * width].sum((0, 1)), by_new.sum((0, 1))]) if needs[4] else None,
            by_kept.sum((0, 1)) if needs[5] else None,
        )


def _parts(x: Tensor, width: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The first `width` numbers and the others, step by step."""
    return x[..., :width].unbind(0), x[..., width:].unbind(0)


def _through(by_kept: Tensor, by_new: Tensor, of_input: Tensor) -> Tensor:
    """Derivative by the input (K, N, F): gates read it as they read the state, the third part by itself."""
    gates = 2 * by_new.shape[2]
    by_gates = by_kept.flatten(0, 1)[:, :gates] @ of_input[:gates]
    return by_gates.addmm_(by_new.flatten(0, 1), of_input[gates:]).unflatten(0, by_new.shape[:2])


def _by_weight(by_kept: Tensor, by_new: Tensor, x: Tensor) -> Tensor:
    """Derivative by the map of the input (3 W, F)."""
    flat, gates = x.transpose(0, 1).flatten(0, 1), 2 * by_new.shape[2]
    return torch.cat([by_kept.flatten(0, 1)[:, :gates].t() @ flat, by_new.flatten(0, 1).t() @ flat])
