"""Sequences of unequal length, laid out with little padding for the direct likelihood: this changes no number."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given as all_of
from hypothesis import strategies

from ppl_buffer.network.groups import EndToEnd
from ppl_buffer.network.layout import rows_end_to_end
from tests.laws.cases import BACKENDS, close, numbers, observed, on_both, scored
from tests.networks import HABIT, RESPONDING, UNDIVIDED, array, data, joint_predictive, network

pytestmark = pytest.mark.usefixtures("quick_compilation")

TAKING = replace(RESPONDING, name="responding, taking", config=replace(RESPONDING.config, likelihood_trial_params=True))
# The short sequences do not come first, and a trial in the middle of the long one does not exist.
MASK = np.arange(7) < np.array([2, 7, 4])[:, None]
MASK[1, 3] = False


@on_both([RESPONDING, UNDIVIDED, HABIT], quick=[RESPONDING])
def test_unequal_lengths_change_no_number(case, backend):
    given = data(case)
    seen = observed(case, backend, given, trial_mask=MASK)
    if backend == "jax":
        assert isinstance(seen.groups, EndToEnd) and seen.groups.source.shape == (2, 7)
    else:
        assert seen.groups is None
    value = array(backend, given.value)
    lapse = np.array([0.1, 0.2, 0.3], np.float32)
    draws = {name: np.stack([x, x[::-1]])[:, None] for name, x in given.params.items()}
    everybody = {name: x[1] for name, x in given.params.items()}
    for params, rate in ((given.params, lapse), (draws, lapse), (everybody, np.float32(0.2)), (given.params, None)):
        more = {"params": params} if rate is None else {"params": params, "lapse": rate}
        fast, slow = (
            joint_predictive(case, backend, seen, **more),
            scored(case, backend, given, trial_mask=MASK, **more),
        )
        close(fast.conditionals(seen.value), slow.conditionals(value), atol=1e-5)
    part = joint_predictive(case, backend, seen[1:], params={name: x[1:] for name, x in given.params.items()})
    close(part.log_prob(seen.value[1:]), numbers(slow.log_prob(value))[1:], atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_slopes_are_those_of_padded_sequences(backend):
    given = data(RESPONDING)
    seen = observed(RESPONDING, backend, given, trial_mask=MASK)
    weights = np.random.default_rng(5).normal(size=MASK.shape).astype(np.float32)

    def total(params, data):
        joint = joint_predictive(RESPONDING, backend, data, params=params, validate_args=False)
        return (array(backend, weights) * joint.conditionals(data.value)).sum()

    def slopes(data):
        if backend == "jax":
            return jax.grad(total)(jax.tree.map(jnp.asarray, given.params), data)
        params = {name: torch.tensor(x, requires_grad=True) for name, x in given.params.items()}
        return dict(zip(params, torch.autograd.grad(total(params, data), list(params.values())), strict=True))

    found, expected = slopes(seen), slopes(replace(seen, groups=None))
    for name in given.params:
        assert np.abs(numbers(expected[name])).min() > 1e-3
        np.testing.assert_allclose(numbers(found[name]), numbers(expected[name]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_that_vary_by_trial_are_read_at_their_trials(backend):
    given = data(TAKING)
    seen = observed(TAKING, backend, given, trial_mask=MASK)
    rng, params = np.random.default_rng(2), dict(given.params)
    by_trial = {"beta": (params.pop("beta")[:, None] + rng.normal(size=MASK.shape)).astype(np.float32)}
    fast = joint_predictive(TAKING, backend, seen, params=params, trial_params=by_trial)
    slow = scored(TAKING, backend, given, trial_mask=MASK, params=params, trial_params=by_trial)
    close(fast.conditionals(seen.value), slow.conditionals(array(backend, given.value)), atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("slots", [False, True])
def test_sequences_in_a_row_are_those_alone(slots, backend):
    net, rng = network(RESPONDING, backend), np.random.default_rng(4)
    ops, part, lengths = net.ops, net.likelihood, (3, 2, 6)
    unit = "slots" if slots else "recurrent"
    width, features = (part.weights[f"{unit}.{kind}.weight"].shape[-1] for kind in ("state", "input"))
    x = rng.normal(size=(2, 1, sum(lengths), features)).astype(np.float32)
    slot, valid = rng.integers(0, 3, x.shape[:3]), rng.random(x.shape[:3]) < 0.8
    begins = np.broadcast_to(np.isin(np.arange(11), [3, 5]), x.shape[:3])

    def run(x, slot, valid, *begins):
        state = np.zeros((2, 1, 3, width) if slots else (2, 1, width), np.float32)
        arguments = [array(backend, each) for each in ((x, state, slot, valid) if slots else (x, state, valid))]
        function = ops.recurrent_slots if slots else ops.recurrent
        states = function(part, unit, *arguments, *(array(backend, each) for each in begins))
        return numbers(states[0] if slots else states)

    found, start = run(x, slot, valid, begins), 0
    for length in lengths:
        of_one = slice(start, start + length)
        alone = run(x[:, :, of_one], slot[:, :, of_one], valid[:, :, of_one])
        # A state is that before a step of its slot; otherwise that behind it, but where the next begins anew.
        kept = length - (not slots and start + length < sum(lengths))
        close(found[:, :, of_one][:, :, :kept], alone[:, :, :kept], atol=1e-6)
        assert not found[:, :, of_one][:, :, kept:].any()
        start += length


@all_of(strategies.lists(strategies.integers(1, 13), min_size=1, max_size=11))
def test_every_trial_has_a_place_of_its_own(lengths):
    lengths = np.array(lengths)
    rows, longest = rows_end_to_end(lengths), lengths.max()
    if rows is None:
        # First fit fills all rows but one at least by half.
        assert lengths.sum() > 0.5 * longest * (0.8 * len(lengths) - 1)
        return
    assert rows.taken.sum() == lengths.sum() and len(rows.owner) <= 0.8 * len(lengths)
    for index, length in enumerate(lengths):
        places = rows.place[index, :length]
        assert (np.diff(places) == 1).all() and places[0] // longest == places[-1] // longest
        assert (rows.owner.flat[places] == index).all() and rows.taken.flat[places].all()
        np.testing.assert_array_equal(rows.source.flat[places], np.arange(length))
        assert rows.begins.flat[places].tolist() == [places[0] % longest > 0] + [False] * (length - 1)
