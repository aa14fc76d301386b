"""How often JAX compiles: a program for a NUTS run, few programs for sequences of many lengths."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
numpyro = pytest.importorskip("numpyro")

import jax.numpy as jnp  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro.infer import MCMC, NUTS  # noqa: E402

import ppl_buffer.numpyro.distribution as numpyro_backend  # noqa: E402
from ppl_buffer.numpyro import JointPredictive  # noqa: E402
from ppl_buffer.predictive import density  # noqa: E402
from ppl_buffer.predictive.query import Query  # noqa: E402
from tests.networks import FUNCTION, REPORT, array, data, network  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_a_nuts_run_compiles_one_program(compilations):
    net = network(REPORT, "jax")

    def model(seen):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        numpyro.sample("rating", JointPredictive(net, seen, params={"mu": mu}), obs=seen.value)

    people = data(REPORT, batch=2, trials=7)
    seen = [net.observe({"cue": people.inputs["cue"][i]}, jnp.asarray(people.value[i])) for i in range(2)]
    mcmc = MCMC(NUTS(model, max_tree_depth=2), num_warmup=3, num_samples=5, progress_bar=False, jit_model_args=True)
    mcmc.run(jax.random.PRNGKey(0), seen[0])
    # The first run also compiled small programs that make keys and starting points.
    compilations.clear()
    mcmc.run(jax.random.PRNGKey(0), seen[1])
    assert len(compilations) == 1


def test_few_programs_serve_sequences_of_many_lengths(compilations):
    net = network(FUNCTION, "jax")
    given = data(FUNCTION, batch=2, trials=13, context=False)

    def score(trials):
        joint = JointPredictive(net, {"x": jnp.asarray(given.inputs["x"][:, :trials])}, validate_args=False)
        value = jnp.asarray(given.value[:, :trials])
        return joint.log_prob(value), joint.conditionals(value)

    programs = numpyro_backend._compiled._cache_size
    before = programs()
    for trials in (9, 11, 10, 13):
        total, conditionals = score(trials)
        assert conditionals.shape == (2, trials)
        np.testing.assert_allclose(conditionals.sum(-1), total, rtol=1e-5)
        exact = Query.build(network(FUNCTION, "torch"), {"x": given.inputs["x"][:, :trials]})
        value = array("torch", given.value[:, :trials])
        np.testing.assert_allclose(conditionals, density.conditionals(exact, value), rtol=1e-3, atol=1e-4)
    # One program of each method for 9 to 16 trials.
    assert programs() - before == 2
