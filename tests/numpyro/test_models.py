"""The distribution in models: plates, predictive draws, likelihoods, feedback."""

import numpy as np
import pytest

pytest.importorskip("jax", reason="NumPyro runs on JAX")
pytest.importorskip("numpyro", reason="tests of the NumPyro distribution")

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import random
from numpyro import handlers
from numpyro.infer import Predictive, log_likelihood
from numpyro.infer.util import log_density

from ppl_buffer.numpyro import JointPredictive
from tests.networks import DECISION, LEARNING, REPORT, array, data, network
from tests.numpyro.cases import hierarchical, make

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_plates_scale_a_subsample(seen):
    params = {"mean": jnp.array(0.1), "mu": jnp.array([0.3, -0.2, 0.8])}
    full = log_density(hierarchical, (seen,), {}, params)[1]
    y = full["y"]["fn"].log_prob(full["y"]["value"])
    assert y.shape == (3,)
    seeded = handlers.seed(handlers.substitute(hierarchical, data={"mean": params["mean"]}), 3)
    trace = handlers.trace(seeded).get_trace(seen, subsample_size=2)
    index = trace["people"]["value"]
    assert trace["y"]["scale"] == pytest.approx(3 / 2)
    drawn = trace["mu"]["value"]
    by_hand = JointPredictive(network(REPORT, "jax"), seen, params={"mu": jnp.zeros(3).at[index].set(drawn)})
    np.testing.assert_allclose(
        trace["y"]["fn"].log_prob(trace["y"]["value"]), by_hand.log_prob(seen.value)[index], rtol=1e-5
    )
    scaled = handlers.scale(handlers.substitute(handlers.seed(hierarchical, 3), data=params), scale=2.5)
    assert handlers.trace(scaled).get_trace(seen)["y"]["scale"] == 2.5


@pytest.mark.parametrize(("key", "parallel"), [(random.PRNGKey, True), (random.key, False)])
def test_prior_and_posterior_predictive(parallel, key):
    given = data(DECISION)
    net = network(DECISION, "jax")

    def model():
        with numpyro.plate("people", 3):
            params = {
                "drift": numpyro.sample("drift", dist.Normal(0, 1)),
                "bound": numpyro.sample("bound", dist.LogNormal(0, 0.3)),
            }
            numpyro.sample("y", JointPredictive(net, array("jax", given.inputs), params=params))

    prior = Predictive(model, num_samples=4, parallel=parallel)(key(0))
    assert prior["y"].shape == (4, 3, 7, 2)
    times = np.asarray(prior["y"][..., 1])
    assert np.isfinite(times).all() and len(np.unique(times)) == times.size
    posterior = {name: prior[name].reshape(2, 2, 3) for name in ("drift", "bound")}
    predicted = Predictive(model, posterior, batch_ndims=2, parallel=parallel)(key(1))
    assert predicted["y"].shape == (2, 2, 3, 7, 2)


def test_log_likelihood_of_posterior_draws(seen):
    draws = {"mean": jnp.zeros(5), "mu": jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32))}
    found = log_likelihood(hierarchical, draws, seen)["y"]
    assert found.shape == (5, 3)
    fast = JointPredictive(network(REPORT, "jax"), seen, params={"mu": draws["mu"]})
    np.testing.assert_allclose(found, fast.log_prob(seen.value), rtol=1e-4)


def test_sampling_with_feedback_in_a_model():
    given = data(LEARNING)
    distribution = make(LEARNING, given, feedback=None, environment=LEARNING.environment)
    value, feedback = distribution.sample_with_feedback(random.PRNGKey(0))
    assert value.shape == (3, 7, 2) and feedback["reward"].shape == (3, 7)
    by_choice = feedback["reward"] - 0.4 * value[..., 0]
    assert ((by_choice >= -0.3) & (by_choice <= 0.7)).all() and np.asarray(by_choice).std() > 0.1
