"""NUTS and SVI."""

import numpy as np
import pytest

pytest.importorskip("jax", reason="NumPyro runs on JAX")
pytest.importorskip("numpyro", reason="tests of the NumPyro distribution")

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import random
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal

from ppl_buffer.numpyro import JointPredictive
from tests.networks import REPORT, data, network
from tests.numpyro.cases import hierarchical

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("chain_method", ["vectorized", pytest.param("sequential", marks=pytest.mark.slow)])
def test_nuts(seen, chain_method):
    calls = []

    def counted(data):
        calls.append(1)
        hierarchical(data)

    mcmc = MCMC(
        NUTS(counted, max_tree_depth=3), num_warmup=50, num_samples=20, num_chains=2, chain_method=chain_method,
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(random.PRNGKey(0), seen)
    draws = mcmc.get_samples(group_by_chain=True)
    assert draws["mu"].shape == (2, 20, 3)
    assert np.isfinite(draws["mu"]).all() and np.asarray(draws["mu"]).std(1).min() > 0.1
    # The program is traced a few times to set up; if every step traced it, there would be hundreds of calls.
    assert len(calls) < 20


def test_nuts_finds_what_a_grid_finds():
    """One parameter, one data set: the posterior by NUTS against the posterior by quadrature."""
    given = data(REPORT, batch=1, trials=7)
    net, value = network(REPORT, "jax"), jnp.asarray(given.value[0])
    seen = net.observe({"cue": given.inputs["cue"][0]}, value)

    def model():
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        numpyro.sample("y", JointPredictive(net, seen, params={"mu": mu}), obs=seen.value)

    mcmc = MCMC(NUTS(model), num_warmup=200, num_samples=1500, progress_bar=False)
    mcmc.run(random.PRNGKey(1))
    draws = np.asarray(mcmc.get_samples()["mu"])
    places = jnp.linspace(-5, 5, 401)
    # The plain path, without what was observed.
    plain = JointPredictive(net, {"cue": jnp.asarray(given.inputs["cue"][0])}, params={"mu": places})
    log_weights = np.asarray(plain.log_prob(value) + dist.Normal(0, 1).log_prob(places), float)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    mean = (weights * places).sum()
    std = np.sqrt((weights * (places - mean) ** 2).sum())
    assert abs(draws.mean() - mean) < 0.15 * std
    assert 0.9 < draws.std() / std < 1.1
    # The comparison could fail: the likelihood has moved the posterior away from the prior.
    assert abs(mean) + abs(std - 1) > 0.05


def test_svi_with_subsampling(seen):
    guide = AutoNormal(lambda data: hierarchical(data, subsample_size=2))
    svi = SVI(lambda data: hierarchical(data, subsample_size=2), guide, numpyro.optim.Adam(0.05), Trace_ELBO())
    result = svi.run(random.PRNGKey(0), 30, seen, progress_bar=False)
    assert np.isfinite(result.losses).all()
    assert result.losses[-10:].mean() < result.losses[:5].mean()
    # Frozen weights are no parameters of anything.
    assert all("weight" not in name for name in result.params)
