"""Derivatives that are written by hand, against differences, the library's and NumPy's."""

import numpy as np
import pytest
import torch

from ppl_buffer.network.torch.derivatives import recurrent_unit

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


def step_by_step(
    read: torch.Tensor,
    which: np.ndarray,
    own: np.ndarray,
    begins: np.ndarray | None,
    slots: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The library's unit, each sequence's own state picked by hand: states before the steps, and behind them."""
    place, before = list(slots.unbind(1)), []
    for k in range(STEPS):
        if begins is not None:
            place = [torch.where(torch.as_tensor(begins[k])[:, None], 0.0, state) for state in place]
        read_by, picked = (
            [torch.as_tensor(x[k, :, state])[:, None] for state in range(len(place))] for x in (which, own)
        )
        shown = place[0] if len(place) == 1 else sum(map(torch.where, read_by, place, [torch.zeros(())] * len(place)))
        before.append(shown)
        after = torch.gru_cell(read[k], shown, torch.eye(3 * WIDTH), weight, torch.zeros(3 * WIDTH), bias)
        place = [torch.where(each, after, state) for each, state in zip(picked, place, strict=True)]
    return torch.stack(before), torch.stack(place, 1)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(("states", "anew"), [(1, False), (3, False), (1, True), (3, True)])
def test_first_and_second_derivatives_in_jax_are_torchs(states: int, anew: bool) -> None:
    jax = pytest.importorskip("jax")
    from ppl_buffer.network.jax.derivatives import recurrent_unit as unit_of_jax

    rng = np.random.default_rng(0)
    shapes = [(STEPS, SEQUENCES, 3 * WIDTH), (SEQUENCES, states, WIDTH), (3 * WIDTH, WIDTH), (3 * WIDTH,)]
    arrays, along = ([rng.normal(size=shape).astype(np.float32) for shape in shapes] for _ in range(2))
    shown = rng.integers(0, states, (STEPS, SEQUENCES))[..., None] == np.arange(states)
    own = shown & (rng.random((STEPS, SEQUENCES, 1)) < 0.7)  # else there is no such step: it reads, and changes nothing
    begins = rng.random((STEPS, SEQUENCES)) < 0.3 if anew else None
    ours = [torch.as_tensor(array).requires_grad_() for array in arrays]
    expected = step_by_step(ours[0], shown, own, begins, *ours[1:])
    weights = [rng.normal(size=tuple(x.shape)).astype(np.float32) for x in expected]
    total = sum((torch.as_tensor(weight) * x).sum() for weight, x in zip(weights, expected, strict=True))
    first = torch.autograd.grad(total, ours, create_graph=True)
    second = torch.autograd.grad(sum((x * torch.as_tensor(y)).sum() for x, y in zip(first, along, strict=True)), ours)

    def weighted(read, *others):
        states = unit_of_jax(read, shown, own, begins, *others)
        return sum((weight * x).sum() for weight, x in zip(weights, states, strict=True)), states

    @jax.jit
    def gradients(given, along):
        gradient = jax.grad(weighted, (0, 1, 2, 3), has_aux=True)
        return jax.jvp(lambda *at: gradient(*at)[0], given, along), gradient(*given)[1]

    (by_jax, twice), states_of_jax = gradients(tuple(arrays), tuple(along))
    for value, theirs in zip([*states_of_jax, *by_jax, *twice], [*expected, *first, *second], strict=True):
        np.testing.assert_allclose(value, theirs.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("quick_compilation")
def test_repeating_for_trials_is_broadcasting_with_its_derivatives() -> None:
    jax = pytest.importorskip("jax")
    from ppl_buffer.network.jax.derivatives import repeat_for_trials

    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=(2, 3, 7, 5)).astype(np.float32)

    def total(x):
        return (weights * jax.numpy.sin(repeat_for_trials(x, 7))).sum()

    np.testing.assert_array_equal(repeat_for_trials(x, 7), np.broadcast_to(x[:, :, None], weights.shape))
    np.testing.assert_allclose(jax.grad(total)(x), weights.sum(2) * np.cos(x), rtol=1e-5)
    np.testing.assert_allclose(jax.jvp(total, (x,), (x,))[1], (weights.sum(2) * np.cos(x) * x).sum(), rtol=1e-5)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("sets", [5, 131])
def test_repeating_for_owners_is_reading_rows_with_its_derivatives(sets: int) -> None:
    jax = pytest.importorskip("jax")
    from ppl_buffer.network.jax.derivatives import repeat_for_owners

    rng = np.random.default_rng(0)
    owner = np.array([[1, 1, 0, 3, 3, 3, 3], [4, 4, 4, 4, 4, 1, 1]])  # nobody is number 2
    x, weights = (rng.normal(size=shape).astype(np.float32) for shape in ((sets, 3, 11), (2, 3, 7, 11)))

    def total(x):
        return (weights * jax.numpy.sin(repeat_for_owners(x, owner))).sum()

    by_hand = np.zeros_like(x)
    for row, place in np.ndindex(owner.shape):
        by_hand[owner[row, place]] += weights[row, :, place]
        np.testing.assert_array_equal(repeat_for_owners(x, owner)[row, :, place], x[owner[row, place]])
    np.testing.assert_allclose(jax.grad(total)(x), by_hand * np.cos(x), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jax.jvp(total, (x,), (x,))[1], (by_hand * np.cos(x) * x).sum(), rtol=1e-4)


@pytest.mark.usefixtures("quick_compilation")
def test_sums_of_rows_and_their_transpose_are_numpys() -> None:
    jax = pytest.importorskip("jax")
    from ppl_buffer.network.jax.derivatives import row_sum, spread_rows

    rng = np.random.default_rng(0)
    x, row, weights = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 5), (2, 3, 1), (2, 3, 5)))
    np.testing.assert_allclose(row_sum(x), x.sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(spread_rows(row, 5), np.broadcast_to(row, x.shape))
    by_x = jax.grad(lambda x: (row * jax.numpy.sin(row_sum(x))).sum())(x)
    expected = np.broadcast_to(row * np.cos(x.sum(-1, keepdims=True)), x.shape)
    np.testing.assert_allclose(by_x, expected, rtol=1e-4, atol=1e-6)
    by_row = jax.grad(lambda row: (weights * jax.numpy.sin(spread_rows(row, 5))).sum())(row)
    np.testing.assert_allclose(by_row, weights.sum(-1, keepdims=True) * np.cos(row), rtol=1e-4, atol=1e-6)
