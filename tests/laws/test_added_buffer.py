"""A buffer that was added to a set predictor obeys the laws, and leaves what is predicted without it as it is."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

from ppl_buffer.network.config import Config, weight_shapes
from tests.laws import test_draws, test_mirror
from tests.laws.cases import conditionals, first_told, numbers, scored
from tests.networks import FLAT, FUNCTION, LEARNING, SLIDER, TINY, Case, array, data, network, standardization, weights

pytestmark = pytest.mark.usefixtures("quick_compilation")

ADAPTED = Case("adapted", FUNCTION.schema, config=replace(TINY, buffer_rank=2))
APART = Case("apart", SLIDER.schema, config=replace(FLAT, buffer_apart=True))
ADDED = [ADAPTED, APART]


def without(case):
    """Sizes of the network that the buffer is added to."""
    return replace(case.config, buffer_rank=0, buffer_apart=False)


def with_weights(case, config, changed):
    """A torch network with the weights of a case, but for some."""
    import torch

    from ppl_buffer.network.torch.weights import TorchNetwork

    net = TorchNetwork(case.schema, config, standardization(case.schema))
    with torch.no_grad():
        for name, weight in net.weights.items():
            weight.copy_(torch.as_tensor(changed.get(name, weights(case)[name])))
    return net.eval().requires_grad_(False)


def everything_without_a_buffer(case, net, backend):
    given = data(case)
    distribution = scored(case, backend, given, net=net, **first_told(given))
    value = array(backend, given.value)
    return [numbers(distribution.marginals(value)), numbers(distribution.leave_one_out(value))]


@pytest.mark.parametrize("case", ADDED, ids=repr)
def test_without_a_buffer_the_network_is_the_one_that_it_was_added_to(case):
    base = with_weights(case, without(case), {})
    before = everything_without_a_buffer(case, base, "torch")
    for was, now in zip(before, everything_without_a_buffer(case, network(case, "torch"), "torch"), strict=True):
        np.testing.assert_array_equal(was, now)
    given = data(case)
    joint = {name: conditionals(case, "torch", given, net=net, **first_told(given)) for name, net in
             (("base", base), ("added", network(case, "torch")))}  # fmt: skip
    # The first trial sees an empty buffer, if among others that do not.
    np.testing.assert_allclose(joint["base"][:, 0], joint["added"][:, 0], rtol=2e-6, atol=1e-6)
    assert (joint["base"][:, 1:] != joint["added"][:, 1:]).all()


@pytest.mark.parametrize(("case", "ending"), [(ADAPTED, "buffer_adapter.up.weight"), (APART, "buffer_merge.weight")])
def test_what_is_added_starts_at_nothing(case, ending):
    added = [name for name in weight_shapes(case.schema, case.config) if name.endswith(ending)]
    assert len(added) == case.config.depth
    zero = with_weights(case, case.config, {name: np.zeros_like(weights(case)[name]) for name in added})
    given = data(case)
    joint = conditionals(case, "torch", given, net=zero, **first_told(given))
    if case is APART:
        # Nothing of the buffer is read: every trial is predicted as if it were the first.
        marginals = scored(case, "torch", given, net=zero, **first_told(given)).marginals(array("torch", given.value))
        np.testing.assert_array_equal(joint, numbers(marginals))
    else:
        base = with_weights(case, without(case), {})
        np.testing.assert_array_equal(joint, conditionals(case, "torch", given, net=base, **first_told(given)))


@pytest.mark.parametrize("variant", ["plain", "mask", "block of 3"])
@pytest.mark.parametrize("case", ADDED, ids=repr)
def test_one_pass_equals_rollout(case, variant):
    test_draws.check_one_pass(case, "torch", test_draws.ROLLOUTS[variant])


@pytest.mark.parametrize("case", ADDED, ids=repr)
def test_both_backends_compute_the_same_numbers(case):
    test_mirror.test_mirror_of_densities(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", ADDED, ids=repr)
def test_both_backends_draw_and_differentiate_alike(case):
    test_mirror.test_mirror_of_draws(case)
    test_mirror.test_mirror_of_gradients(case)


def test_sizes_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="buffer_rank: expected 0 where the buffer is read apart"):
        Config(buffer_rank=4, buffer_apart=True)
    with pytest.raises(ValueError, match="buffer_apart"):
        Config(buffer_apart=2)
    for more in ({"latents": 3}, {"buffer_rank": 4}, {"buffer_apart": True}):
        with pytest.raises(ValueError, match="for an ordered schema"):
            weight_shapes(LEARNING.schema, replace(TINY, **more))
