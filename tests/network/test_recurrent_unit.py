"""The derivatives of torch's gated recurrent unit that are written by hand, against differences and the library's."""

import pytest
import torch

from ppl_buffer.network.torch.recurrent import recurrent_unit

SEQUENCES, STEPS, FEATURES, WIDTH = 3, 7, 5, 2


def arguments(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Sequences, what they start from, and the unit's maps."""
    shapes = [(SEQUENCES, STEPS, FEATURES), (SEQUENCES, WIDTH), (3 * WIDTH, FEATURES), (3 * WIDTH, WIDTH)]
    shapes += [(3 * WIDTH,), (3 * WIDTH,)]
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def library(x: torch.Tensor, start: torch.Tensor, *maps: torch.Tensor) -> torch.Tensor:
    unit = torch.nn.GRU(FEATURES, WIDTH, batch_first=True, dtype=x.dtype)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    inputs = (x, start[None])
    return torch.func.functional_call(unit, dict(zip(names, maps, strict=True)), inputs)[0]


def test_states_and_derivatives_are_the_librarys() -> None:
    ours, theirs = ([each.requires_grad_() for each in arguments()] for _ in range(2))
    states, expected = recurrent_unit(*ours), library(*theirs)
    torch.testing.assert_close(states, expected)
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1), dtype=states.dtype)
    gradients = torch.autograd.grad((weights * states).sum(), ours)
    torch.testing.assert_close(gradients, torch.autograd.grad((weights * expected).sum(), theirs))


@pytest.mark.parametrize("needed", [range(6), [0], [1], [2, 5], [3], [4]])
def test_first_and_second_derivatives_are_differences(needed: list[int]) -> None:
    given = arguments()
    for index in needed:
        given[index].requires_grad_()
    assert torch.autograd.gradcheck(recurrent_unit, given)
    if len(needed) > 1:
        assert torch.autograd.gradgradcheck(recurrent_unit, given)


def test_a_second_pass_through_the_same_graph_gives_the_same() -> None:
    given = [each.requires_grad_() for each in arguments(torch.float32)]
    total = recurrent_unit(*given).square().sum()
    first = torch.autograd.grad(total, given, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(total, given)))
