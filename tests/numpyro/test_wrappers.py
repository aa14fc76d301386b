"""Expanded, masked and independent distributions."""

import numpy as np
import pytest

pytest.importorskip("jax", reason="NumPyro runs on JAX")
pytest.importorskip("numpyro", reason="tests of the NumPyro distribution")

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import random

from ppl_buffer.numpyro import JointPredictive
from tests.networks import DECISION, REPORT, data, network
from tests.numpyro.cases import make

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 3), (2, 4, 3)])
def test_expand(reports, shape):
    given, value, known = reports
    distribution = make(REPORT, given)
    expanded = distribution.expand(shape)
    assert isinstance(expanded, JointPredictive)
    assert (expanded.batch_shape, expanded.event_shape) == (shape, (7,))
    assert distribution.batch_shape == (3,)
    np.testing.assert_allclose(expanded.log_prob(value), np.broadcast_to(known, shape), rtol=1e-5)
    again = expanded.expand((5, *shape))
    assert again.batch_shape == (5, *shape)
    with pytest.raises(ValueError, match=r"batch_shape: expected one that .* broadcasts to, got \(2,\)"):
        distribution.expand((2,))


def test_expanded_draws_differ():
    given = data(DECISION)
    drawn = make(DECISION, given).expand((2, 3)).sample(random.PRNGKey(0))
    assert drawn.shape == (2, 3, 7, 2)
    assert (drawn[0, ..., 1] != drawn[1, ..., 1]).all()


def test_to_event_and_mask(reports):
    given, value, known = reports
    distribution = make(REPORT, given)
    independent = distribution.to_event(1)
    assert (independent.batch_shape, independent.event_shape) == ((), (3, 7))
    np.testing.assert_allclose(independent.log_prob(value), known.sum(), rtol=1e-5)
    people = jnp.array([True, False, True])
    np.testing.assert_allclose(distribution.mask(people).log_prob(value), known * people, rtol=1e-5)
    np.testing.assert_allclose(distribution.mask(False).log_prob(value), 0 * known)


def test_a_mask_of_trials_is_refused(reports):
    given, _, _ = reports
    mask = np.ones((3, 7), bool)
    with pytest.raises(
        ValueError, match=r"mask: expected a mask of data sets, of shape \(3,\), got \(3, 7\).*trial_mask"
    ):
        make(REPORT, given).mask(mask)


def test_masked_people_of_nans_leave_the_gradient_finite(reports):
    given, value, _ = reports
    value = value.at[1].set(jnp.nan)

    def density(mu):
        return make(REPORT, given, params={"mu": mu}).mask(jnp.array([True, False, True])).log_prob(value).sum()

    gradient = jax.jit(jax.grad(density))(jnp.asarray(given.params["mu"]))
    assert np.isfinite(gradient).all() and gradient[1] == 0 and (gradient[jnp.array([0, 2])] != 0).all()


def test_a_mixture_of_two_strategies():
    """People follow one of two strategies: the mixture by hand, of whole sequences."""
    given = data(REPORT)
    strategies, weights = np.array([[0.3, -0.9], [1.2, 0.1], [-2.0, 0.4]], np.float32), np.array([[0.2, 0.8]] * 3)
    mask = np.arange(7) < np.array([7, 4, 7])[:, None]
    value = np.where(mask, given.value, -1.0)
    by_strategy = [
        make(REPORT, given, params={"mu": strategies[:, index]}, trial_mask=mask).log_prob(value) for index in (0, 1)
    ]
    net, inputs = network(REPORT, "jax"), {name: x[:, None] for name, x in given.inputs.items()}
    components = JointPredictive(net, inputs, params={"mu": strategies}, trial_mask=mask[:, None], validate_args=True)
    assert repr(components.support) == "TrialSupport(rating: an integer from 0 to 4)"
    mixture = dist.MixtureSameFamily(dist.Categorical(jnp.asarray(weights)), components, validate_args=True)
    expected = np.logaddexp(*(np.log(weights[:, index]) + by_strategy[index] for index in (0, 1)))
    np.testing.assert_allclose(mixture.log_prob(value), expected, rtol=1e-5)
    assert jax.eval_shape(mixture.log_prob, jnp.stack([value] * 4)).shape == (4, 3)
