"""Some of the data sets that were observed or encoded: which an index selects, and who may use them."""

import functools

import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

import jax
import jax.numpy as jnp
import torch

from ppl_buffer.network.layout import map_leaves
from tests.laws.cases import BACKENDS, close, numbers, observed, replaced, scored
from tests.networks import FUNCTION, LEARNING, Case, array, data, joint_predictive, network, weights

pytestmark = pytest.mark.usefixtures("quick_compilation")

# What selects data sets of three, and which.
INDICES = {
    "a number": (1, 1),
    "a number from the end": (-1, 2),
    "a number of NumPy": (np.int64(2), 2),
    "a list": ([2, 0], [2, 0]),
    "an array": (np.array([2, 0, 0]), [2, 0, 0]),
    "a slice": (slice(1, 3), [1, 2]),
    "a slice backwards": (slice(None, None, -1), [2, 1, 0]),
    "booleans": (np.array([True, False, True]), [0, 2]),
    "a list of booleans": ([False, True, True], [1, 2]),
    "everything": (Ellipsis, [0, 1, 2]),
    "a tuple": (([1],), [1]),
}


def everything(tree):
    """All arrays of what was observed."""
    leaves = []
    map_leaves(lambda x: leaves.append(numbers(x)), tree)
    return leaves


@functools.cache
def of_three(backend):
    """Three data sets, each with a context of its own; and the same three with one context."""
    given = data(FUNCTION)
    shared = replaced(given, context={name: x[0] for name, x in given.context.items()})
    return observed(FUNCTION, backend, given), observed(FUNCTION, backend, shared), shared


# JAX compiles for each shape of an index.
@pytest.mark.parametrize(
    ("backend", "name"),
    [*(("torch", name) for name in INDICES), *(("jax", name) for name in ("a number", "a list", "booleans"))],
)
def test_an_index_selects_as_numpy_does(name, backend):
    index, expected = INDICES[name]
    own, shared, _ = of_three(backend)
    selected = own[index]
    assert selected.batch_shape == np.shape(expected) and selected.context.batch_shape == selected.batch_shape
    for x, y in zip(everything(own), everything(selected), strict=True):
        np.testing.assert_array_equal(y, x[expected])
    for x, y in zip(everything(own.context), everything(own.context[index]), strict=True):
        np.testing.assert_array_equal(y, x[expected])
    # One context for all of them is the context of each.
    part = shared[index]
    assert part.context.batch_shape == part.batch_shape == np.shape(expected)
    for x, y in zip(everything(shared.context), everything(part.context), strict=True):
        np.testing.assert_array_equal(y, np.broadcast_to(x[0], y.shape))


def test_people_who_share_a_context_keep_their_densities():
    _, seen, shared = of_three("torch")
    whole = scored(FUNCTION, "torch", shared).conditionals(array("torch", shared.value))
    for index in (1, [2, 0], slice(1, 3)):
        part = seen[index]
        params = {name: x[index] for name, x in shared.params.items()}
        distribution = joint_predictive(FUNCTION, "torch", part, params=params)
        close(distribution.conditionals(part.value), whole[index], atol=1e-5)
        # At another value the context is read anew.
        other = scored(FUNCTION, "torch", shared).conditionals(array("torch", shared.value) + 0.5)
        close(distribution.conditionals(part.value + 0.5), other[index], atol=1e-5)


def test_an_index_that_is_traced_selects_the_same():
    own, shared, _ = of_three("jax")
    for seen in (own, shared):
        for index in [jnp.array([2, 0])]:
            traced = jax.jit(lambda seen, index: seen[index])(seen, index)
            for x, y in zip(everything(seen[np.asarray(index)]), everything(traced), strict=True):
                np.testing.assert_array_equal(x, y)


def test_two_batch_dimensions():
    given = data(FUNCTION, batch=6, context=False)
    two = {name: x.reshape(2, 3, 7) for name, x in given.inputs.items()}
    seen = network(FUNCTION, "torch").observe(two, given.value.reshape(2, 3, 7), context=data(FUNCTION).context)
    # The context varies along the last batch dimension alone.
    for index in ((1, 2), (slice(None), 1), (1,), ([0, 1], [2, 0]), np.eye(2, 3) > 0, None):
        part = seen[index]
        expected = np.asarray(seen.value)[index]
        np.testing.assert_array_equal(part.value, expected)
        assert part.batch_shape == expected.shape[:-1]
        context = np.broadcast_to(np.asarray(seen.context.trials["outcomes"]["y"]), (2, 3, 5))[index]
        np.testing.assert_array_equal(part.context.trials["outcomes"]["y"], context)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("index", [3, -4, [0, 3], [True, False], (0, 0), "a", 1.5, [0.5], [[0], [1, 2]], {"a": 1}])
def test_an_index_of_nobody_is_refused(index, backend):
    for each in of_three(backend)[:2]:
        for holder in (each, each.context):
            if holder.batch_shape == (3,):
                with pytest.raises(IndexError, match="index: expected whole numbers, slices or booleans"):
                    holder[index]


@pytest.mark.parametrize("backend", BACKENDS)
def test_nobody_is_no_data(backend):
    seen = of_three(backend)[0]
    for index in ([], slice(5, 9), [False] * 3):
        with pytest.raises(ValueError, match="index: expected at least one data set"):
            seen[index]
    nobody = data(FUNCTION, batch=0)
    with pytest.raises(ValueError, match=r"value: expected at least one data set, got a batch of shape \(0,\)"):
        observed(FUNCTION, backend, replaced(nobody, context=None))
    with pytest.raises(ValueError, match="context: expected at least one data set"):
        network(FUNCTION, backend).encode(array(backend, nobody.context))
    with pytest.raises(ValueError, match="arguments: expected at least one data set"):
        joint_predictive(FUNCTION, backend, nobody.inputs)


# A network like the first one, with other weights.
TWIN = Case("twin", FUNCTION.schema)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_another_network_has_seen_is_refused(backend):
    given = data(FUNCTION)
    alone = replaced(given, context=None)
    seen, encoded = observed(FUNCTION, backend, alone), network(FUNCTION, backend).encode(given.context)
    for other in (TWIN, LEARNING):
        inputs = data(other).inputs
        with pytest.raises(ValueError, match="inputs: expected what this network has observed, got what another one"):
            joint_predictive(other, backend, seen)
        if not other.schema.ordered:
            for call in (joint_predictive, lambda case, b, inputs, context: observed(case, b, alone, context=context)):
                with pytest.raises(ValueError, match="context: expected what this network has encoded, got what"):
                    call(other, backend, inputs, context=encoded)
    # The same network, loaded twice, is the same network.
    assert weights(FUNCTION)["norm_out.bias"].shape == weights(TWIN)["norm_out.bias"].shape
    again = network.__wrapped__(FUNCTION, backend)
    joint_predictive(FUNCTION, backend, seen, net=again, params=given.params)
    joint_predictive(FUNCTION, backend, given.inputs, net=again, context=encoded)


@pytest.mark.parametrize("lengths", [[1, 1, 1], [0, 1, 7]], ids=str)
def test_sequences_of_one_trial_or_none(lengths):
    """A causal read of the first trial alone has no keys; JAX has no largest number of none."""
    given = data(LEARNING, trials=max(lengths))
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    expected = scored(LEARNING, "torch", given, trial_mask=mask).log_prob(array("torch", given.value))
    for backend in BACKENDS:
        seen = observed(LEARNING, backend, given, trial_mask=mask)
        distribution = joint_predictive(LEARNING, backend, seen, params=given.params)
        close(distribution.log_prob(seen.value), expected)
    assert (numbers(expected)[np.array(lengths) == 0] == 0).all() and torch.isfinite(expected).all()
