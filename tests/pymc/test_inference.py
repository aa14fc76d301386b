"""PyMC's samplers find the posterior, and its posterior predictive draws and log likelihoods have the model's names."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.networks import REPORT, RESPONDING, array, data, network
from tests.rules.source import ROOT

pm = pytest.importorskip("pymc", reason="PyMC is not installed: `make test-neighbours` has it")

import jax.numpy as jnp  # noqa: E402
from scipy import stats  # noqa: E402

import ppl_buffer.numpyro  # noqa: E402
from ppl_buffer.pymc import JointPredictive, conditionals  # noqa: E402

SUBJECTS, TRIALS = 3, 7


def reports(observed=None):
    """Three people's ratings under a normal prior; a model of PyMC, and the data."""
    given = data(REPORT, batch=SUBJECTS, trials=TRIALS)
    net = network(REPORT, "jax")
    seen = net.observe(given.inputs, given.value)
    with pm.Model(coords={"subject": ["a", "b", "c"], "trial": range(TRIALS)}) as model:
        mu = pm.Normal("mu", 0, 1, dims="subject")
        rating = JointPredictive("rating", net, seen, params={"mu": mu}, observed=seen.value, dims=("subject", "trial"))
        pm.Deterministic("by_trial", conditionals(rating, seen.value), dims=("subject", "trial"))
    return model, net, seen


def exact_moments(net, seen):
    """Mean and standard deviation of each person's posterior, by quadrature."""
    grid = np.linspace(-6, 6, 601)
    joint = ppl_buffer.numpyro.JointPredictive(net, seen, params={"mu": jnp.asarray(grid)[:, None]})
    log_density = np.asarray(joint.log_prob(seen.value), float) + stats.norm.logpdf(grid)[:, None]
    weight = np.exp(log_density - log_density.max(0))
    weight /= weight.sum(0)
    mean = (weight * grid[:, None]).sum(0)
    return mean, np.sqrt((weight * (grid[:, None] - mean) ** 2).sum(0))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyMC's, about so few draws
def test_nuts_samples_the_posterior():
    model, net, seen = reports()
    with model:
        result = pm.sample(1500, tune=500, chains=2, cores=1, progressbar=False, random_seed=3)
        pm.compute_log_likelihood(result, progressbar=False)
        pm.sample_posterior_predictive(result, extend_inferencedata=True, progressbar=False, random_seed=5)
    mean, std = exact_moments(net, seen)
    drawn = result.posterior["mu"]
    np.testing.assert_allclose(drawn.mean(("chain", "draw")), mean, atol=0.15 * std.min())
    np.testing.assert_allclose(drawn.std(("chain", "draw")), std, rtol=0.15)
    assert result.log_likelihood["rating"].dims == ("chain", "draw", "subject")
    total = result.posterior["by_trial"].sum("trial")
    np.testing.assert_allclose(total, result.log_likelihood["rating"], rtol=1e-4)
    replicated = result.posterior_predictive["rating"]
    assert replicated.dims == ("chain", "draw", "subject", "trial") and replicated.dtype == np.int64
    joint = ppl_buffer.numpyro.JointPredictive(
        net, array("jax", data(REPORT).inputs), params={"mu": jnp.asarray(drawn.values[:, ::100])}
    )
    # The first trial's distribution is known, since no trial comes before.
    first = [np.exp(joint.conditionals(jnp.full((SUBJECTS, TRIALS), k)))[..., 0].mean((0, 1)) for k in range(5)]
    counted = [(replicated[:, ::1, :, 0] == k).mean(("chain", "draw")) for k in range(5)]
    np.testing.assert_allclose(counted, first, atol=0.05)


IN_JAX = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np, pymc as pm
from tests.pymc.test_inference import exact_moments, reports
model, net, seen = reports()
mean, std = exact_moments(net, seen)
with model:
    result = pm.sample(1500, tune=500, chains=2, nuts_sampler="numpyro", progressbar=False, random_seed=3,
                       nuts_sampler_kwargs={"chain_method": "vectorized"}, idata_kwargs={"log_likelihood": True})
    pm.sample_posterior_predictive(result, extend_inferencedata=True, progressbar=False, random_seed=5,
                                   var_names=["rating"])
drawn = result.posterior["mu"]
print(json.dumps({
    "mean": [drawn.mean(("chain", "draw")).values.tolist(), mean.tolist()],
    "std": [drawn.std(("chain", "draw")).values.tolist(), std.tolist()],
    "log_likelihood": float(abs(result.posterior["by_trial"].sum("trial") - result.log_likelihood["rating"]).max()),
    "predictive": dict(result.posterior_predictive["rating"].sizes),
}))
"""


@pytest.mark.slow
def test_numpyros_sampler_samples_the_posterior():
    # In a process of its own: PyMC switches JAX to double precision for all that is in the same one.
    done = subprocess.run(
        [sys.executable, "-c", IN_JAX], capture_output=True, text=True, cwd=ROOT, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    std = np.array(found["std"][1])
    np.testing.assert_allclose(*found["mean"], atol=0.15 * std.min())
    np.testing.assert_allclose(*found["std"], rtol=0.15)
    assert found["log_likelihood"] < 1e-3
    assert found["predictive"] == {"chain": 2, "draw": 1500, "subject": SUBJECTS, "trial": TRIALS}


def test_a_model_without_data_draws_its_prior_predictive():
    given = data(RESPONDING, batch=2, trials=5)
    with pm.Model():
        theta = {"alpha": pm.Beta("alpha", 2, 3), "delay": pm.LogNormal("delay", shape=2), "beta": pm.Normal("beta")}
        JointPredictive(
            "trial", network(RESPONDING, "jax"), given.inputs, params=theta, environment=RESPONDING.environment
        )
        drawn = pm.sample_prior_predictive(3, random_seed=1)
    trials = drawn.prior["trial"].values
    assert trials.shape == (1, 3, 2, 5, 2)
    assert set(np.unique(trials[..., 0])) <= {0, 1} and (trials[..., 1] > drawn.prior["delay"].values[..., None]).all()
