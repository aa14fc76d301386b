"""What is encoded once and shared changes no number: batch dimensions, contexts, observed data."""

import itertools

import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

import torch

from tests.laws.cases import (
    BACKENDS,
    EVERY,
    HOLES,
    close,
    conditionals,
    first_told,
    numbers,
    observed,
    on_both,
    replaced,
    scored,
    select,
)
from tests.networks import (
    DECISION,
    DISCRIMINATION,
    FUNCTION,
    LEARNING,
    RESPONDING,
    array,
    data,
    joint_predictive,
    network,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@on_both([LEARNING, FUNCTION])
def test_batch_dimensions_broadcast_whoever_has_them(case, backend):
    """Draws of parameters before the data sets, a dimension that some data lack, and one in the middle."""
    given = data(case)
    rng = np.random.default_rng(7)
    names = list(given.params)
    params = {names[0]: given.params[names[0]] + 0 * rng.random((2, 1, 1)), names[1]: rng.lognormal(size=(4, 1))}
    params[names[0]][1] *= 0.7
    params = {name: x.astype(np.float32) for name, x in params.items()}
    wide = scored(case, backend, given, params=params)
    assert tuple(wide.batch_shape) == (2, 4, 3)
    found = numbers(wide.log_prob(array(backend, given.value)))
    assert found.shape == (2, 4, 3)
    for i, j in itertools.product(range(2), range(4)):
        conditioned = {names[0]: params[names[0]][i, 0], names[1]: params[names[1]][j]}
        one = scored(case, "torch", given, params=conditioned).log_prob(array("torch", given.value))
        np.testing.assert_allclose(found[i, j], numbers(one), rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_encoded_context_is_shared(backend):
    given = data(FUNCTION)
    net = network(FUNCTION, backend)
    encoded = net.encode(array(backend, given.context))
    assert (encoded.batch_shape, encoded.size) == ((3,), 5)
    by_hand = conditionals(FUNCTION, backend, given)
    np.testing.assert_allclose(conditionals(FUNCTION, backend, given, context=encoded), by_hand, rtol=1e-5, atol=1e-6)
    second = select(FUNCTION, given, slice(None))
    second = replaced(second, **{k: {n: x[1] for n, x in getattr(given, k).items()} for k in ("inputs", "params")})
    second = replaced(second, value=given.value[1:2], context=encoded[1], feedback={})
    alone = scored(FUNCTION, backend, second).conditionals(array(backend, given.value[1]))
    np.testing.assert_allclose(numbers(alone), by_hand[1], rtol=1e-4, atol=1e-5)


@on_both(EVERY)
def test_observe_changes_no_number(case, backend):
    given = data(case)
    mask = np.random.default_rng(1).random((3, 7)) < 0.7
    seen = observed(case, backend, given, trial_mask=mask)
    assert (seen.batch_shape, seen.trials) == ((3,), 7)
    fast = joint_predictive(case, backend, seen, params=given.params)
    slow = scored(case, backend, given, trial_mask=mask)
    value, other = array(backend, given.value), array(backend, data(case, seed=1).value)
    for at in (seen.value, value):
        close(fast.conditionals(at), slow.conditionals(value), atol=1e-5)
    close(fast.conditionals(other), slow.conditionals(other), atol=1e-5)
    if backend == "torch":
        close(fast.pit(seen.value), slow.pit(value), atol=1e-5)
        close(fast.marginals(seen.value), slow.marginals(value), atol=1e-5)
        part = joint_predictive(case, backend, seen[1:], params={k: x[1:] for k, x in given.params.items()})
        close(part.log_prob(seen.value[1:]), slow.log_prob(value)[1:], atol=1e-5)


@on_both([LEARNING, FUNCTION, DECISION], quick=[])
def test_observe_in_groups_of_similar_length_changes_no_number(case, backend):
    given = data(case, context=False)
    # The short sequences do not come first, and a trial in the middle of the long one does not exist.
    mask = np.arange(7) < np.array([2, 7, 2])[:, None]
    mask[1, 3] = False
    seen = observed(case, backend, given, trial_mask=mask)
    assert [len(group.indices) for group in seen.groups] == [2, 1]
    value = array(backend, given.value)
    params = first_told(given)["params"]
    draws = {name: np.stack([x, x[::-1]])[:, None] for name, x in params.items()}
    lapse = np.array([0.1, 0.2, 0.3], np.float32)
    for conditioned in (params, draws):
        fast = joint_predictive(case, backend, seen, params=conditioned, lapse=lapse)
        slow = scored(case, backend, given, trial_mask=mask, params=conditioned, lapse=lapse)
        close(fast.conditionals(seen.value), slow.conditionals(value), atol=1e-5)
    part = joint_predictive(case, backend, seen[:2], params={k: x[:2] for k, x in params.items()}, lapse=lapse[:2])
    close(part.log_prob(seen.value[:2]), slow_log_prob(case, backend, given, mask, params, lapse)[:2], atol=1e-5)


def slow_log_prob(case, backend, given, mask, params, lapse):
    distribution = scored(case, backend, given, trial_mask=mask, params=params, lapse=lapse)
    return numbers(distribution.log_prob(array(backend, given.value)))


@pytest.mark.parametrize("case", [LEARNING, DECISION, RESPONDING, DISCRIMINATION], ids=repr)
def test_observed_data_serve_a_dimension_of_draws(case):
    given = data(case)
    seen = observed(case, "torch", given)
    params = {name: np.stack([x, x[::-1]])[:, None] for name, x in given.params.items()}
    fast, slow = joint_predictive(case, "torch", seen, params=params), scored(case, "torch", given, params=params)
    assert tuple(fast.batch_shape) == (2, 1, 3)
    close(fast.log_prob(seen.value), slow.log_prob(seen.value), atol=1e-5)
    close(fast.expand([5, 2, 1, 3]).log_prob(seen.value), slow.expand([5, 2, 1, 3]).log_prob(seen.value), atol=1e-5)


def test_observe_computes_less():
    """At the observed value nothing below the parameters is computed again; at any other value everything is."""
    given = data(LEARNING)
    # Trials that do not exist may hold anything, NaN too.
    value = given.value.copy()
    value[:, ~HOLES] = np.nan
    mask = np.broadcast_to(HOLES, (3, 7))
    seen = observed(LEARNING, "torch", replaced(given, value=value), trial_mask=mask)
    distribution = joint_predictive(LEARNING, "torch", seen, params=given.params)
    calls = []
    from ppl_buffer.network import torch as joint

    real = joint.prepare_joint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint, "prepare_joint", lambda *arguments: calls.append(1) or real(*arguments))
        distribution.log_prob(seen.value)
        distribution.log_prob(seen.value.clone())
        assert not calls
        distribution.log_prob(seen.value + torch.tensor([0.0, 1.0]))
        assert calls


def test_a_value_changed_in_place_is_not_the_observed_one():
    given = data(LEARNING)
    mine = torch.as_tensor(given.value)
    seen = network(LEARNING, "torch").observe(
        array("torch", given.inputs), mine, feedback=array("torch", given.feedback)
    )
    distribution = joint_predictive(LEARNING, "torch", seen, params=given.params)
    before = distribution.log_prob(seen.value)
    seen.value[0, 2, 1] += 0.5
    changed = seen.value.clone()
    slow = scored(LEARNING, "torch", replaced(given, value=changed.numpy()))
    close(distribution.log_prob(seen.value), slow.log_prob(changed), atol=1e-5)
    assert distribution.log_prob(seen.value)[0] != before[0]
    mine[1] = mine[0]
    close(distribution.log_prob(seen.value), slow.log_prob(changed), atol=1e-5)


def test_a_numpy_value_changed_in_place_does_not_change_what_was_observed():
    given = data(LEARNING)
    for backend in BACKENDS:
        mine = given.value.copy()
        seen = network(LEARNING, backend).observe(given.inputs, mine, feedback=given.feedback)
        distribution = joint_predictive(LEARNING, backend, seen, params=given.params)
        before = numbers(distribution.log_prob(seen.value))
        mine[:] = 1.0
        np.testing.assert_array_equal(numbers(distribution.log_prob(seen.value)), before)
