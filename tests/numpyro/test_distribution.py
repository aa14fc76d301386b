"""Shapes, support, attributes, pickling."""

import pickle
import warnings

import numpy as np
import pytest

pytest.importorskip("jax", reason="NumPyro runs on JAX")
pytest.importorskip("numpyro", reason="tests of the NumPyro distribution")

import jax
import jax.numpy as jnp
from jax import random

from ppl_buffer.numpyro import JointPredictive, TrialSupport
from tests.networks import CASES, DECISION, FUNCTION, FUNCTION_RECORD, LEARNING, REPORT, array, data, network
from tests.numpyro.cases import make

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("sample_shape", [(), (5, 2)])
@pytest.mark.parametrize("key", [random.PRNGKey, random.key])
def test_sample_shapes_with_either_kind_of_key(sample_shape, key):
    given = data(DECISION)
    distribution = make(DECISION, given)
    assert (distribution.batch_shape, distribution.event_shape, distribution.event_dim) == ((3,), (7, 2), 2)
    drawn = distribution.sample(key(1), sample_shape)
    assert drawn.shape == (*sample_shape, 3, 7, 2)
    assert len(np.unique(np.asarray(drawn[..., 1]))) == drawn[..., 1].size
    np.testing.assert_array_equal(drawn, distribution.sample(key(1), sample_shape))
    assert distribution.log_prob(drawn).shape == (*sample_shape, 3)
    assert distribution.conditionals(drawn).shape == (*sample_shape, 3, 7)
    assert distribution.pit(drawn).shape == (*sample_shape, 3, 7, 2)
    assert distribution.mean.shape == distribution.variance.shape == (3, 7, 2)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_infer_shapes_agrees_with_the_distribution(case):
    given = data(case)
    made = make(case, given, lapse=np.full((2, 1), 0.1, np.float32) if case.has_lapse else None)
    shapes = {
        "inputs": {name: x.shape for name, x in given.inputs.items()},
        "params": {name: x.shape for name, x in given.params.items()},
        "feedback": {name: x.shape for name, x in given.feedback.items()},
    }
    if case.has_lapse:
        shapes["lapse"] = (2, 1)
    inferred = JointPredictive.infer_shapes(network(case, "jax"), shapes.pop("inputs"), trials=7, **shapes)
    assert inferred == (made.batch_shape, made.event_shape)


def test_draws_are_not_reparameterised(reports):
    given, _, _ = reports
    distribution = make(REPORT, given)
    for one in (distribution, distribution.mask(True), distribution.to_event(1), distribution.expand((2, 3))):
        assert not one.has_rsample
    with pytest.raises(NotImplementedError):
        distribution.rsample(random.PRNGKey(0))
    assert not distribution.has_enumerate_support


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_support(case):
    given = data(case)
    mask = np.ones((3, 7), bool)
    mask[1, 4] = False
    support = make(case, given, trial_mask=mask).support
    assert support.event_dim == len(make(case, given).event_shape)
    assert support.is_discrete == (case is REPORT)
    value = jnp.asarray(given.value)
    np.testing.assert_array_equal(support(value), [True, True, True])
    np.testing.assert_array_equal(support(value.at[0, 4].set(jnp.nan)), [False, True, True])
    np.testing.assert_array_equal(support(value.at[1, 4].set(jnp.nan)), [True, True, True])
    feasible = support.feasible_like(value)
    assert feasible.shape == value.shape and bool(support(feasible).all())
    children, structure = jax.tree.flatten(support)
    again = jax.tree.unflatten(structure, children)
    assert again == support and again != TrialSupport(case.schema, 8)
    np.testing.assert_array_equal(again(value.at[1, 4].set(jnp.nan)), [True, True, True])
    # A class that answers these questions before anybody made one of it.
    assert JointPredictive.has_rsample is False and JointPredictive.reparametrized_params == []


def test_values_out_of_support_warn_and_have_no_density(reports):
    given, value, known = reports
    distribution = make(REPORT, given, validate_args=True)
    for bad in (5.0, -1.0, 0.5, np.nan):
        with pytest.warns(UserWarning, match="Out-of-support"):
            found = distribution.log_prob(value.at[1, 3].set(bad))
        np.testing.assert_allclose(found, [known[0], -np.inf, known[2]], rtol=1e-5)


def test_pytree_round_trip():
    given = data(LEARNING)
    mask = np.ones((3, 7), bool)
    distribution = make(LEARNING, given, trial_mask=mask, lapse=0.1, environment=LEARNING.environment)
    leaves, structure = jax.tree.flatten(distribution)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    # Weights are no leaves: they would be stacked by scan, and differentiated.
    assert sum(leaf.size for leaf in leaves) < 200
    again = jax.tree.unflatten(structure, leaves)
    assert (again.batch_shape, again.event_shape) == (distribution.batch_shape, distribution.event_shape)
    assert again.net is distribution.net and again.query.environment is distribution.query.environment
    value = jnp.asarray(given.value)
    np.testing.assert_array_equal(again.log_prob(value), distribution.log_prob(value))
    _ = distribution.support
    assert jax.tree.structure(distribution) == structure


def test_pickle(reports):
    given, value, known = reports
    distribution = make(REPORT, given)
    again = pickle.loads(pickle.dumps(distribution))
    np.testing.assert_allclose(again.log_prob(value), known, rtol=1e-5)


def test_parameters_outside_the_box_are_met_under_jit():
    """Numbers that are being traced cannot be looked at: no warning, and the density still follows `outside`."""
    net = network(FUNCTION, "jax", FUNCTION_RECORD)
    given = data(FUNCTION)
    inputs, value = array("jax", given.inputs), jnp.asarray(given.value)

    def density(mu):
        return JointPredictive(net, inputs, params={"mu": mu}, outside="-inf").log_prob(value)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = jax.jit(density)(jnp.array([0.0, 2.1, -1.9]))
    np.testing.assert_array_equal(np.isfinite(found), [True, False, True])
