"""What is read of the fits of both languages, and which fits are refused."""

import numpy as np
import pytest

from ppl_buffer.arviz import EXTRA_FIELDS, from_mcmc, from_svi, groups_of
from ppl_buffer.inference.simulation import posterior_predictive
from tests.arviz.models import PERSON, QUIET, TRIAL, draws, finished, learners, reference, simple
from tests.networks import FUNCTION, HABIT, LEARNING, array, data, network

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_svi_of_numpyro():
    numpyro = pytest.importorskip("numpyro")
    import jax
    from numpyro.infer.autoguide import AutoNormal

    given = data(FUNCTION, batch=2, trials=5, points=3)
    model = simple("jax", given, context=given.context)
    svi = numpyro.infer.SVI(model, AutoNormal(model), numpyro.optim.Adam(0.01), numpyro.infer.Trace_ELBO())
    params = svi.get_params(svi.init(jax.random.PRNGKey(0)))
    with pytest.raises(ValueError, match="params: expected what the guide was fitted to"):
        from_svi(svi)
    groups = groups_of(from_svi(svi, params, draws=13, predictive_draws=0, **QUIET))
    assert set(groups["posterior"].data_vars) == {"mu"} and dict(groups["posterior"].sizes) == {"chain": 1, "draw": 13}
    assert "posterior_predictive" not in groups and "sample_stats" not in groups
    spread = groups["posterior"]["mu"].values.std()
    assert 0.02 < spread < 0.3  # AutoNormal begins at a standard deviation of 0.1


def test_svi_of_pyro():
    pyro = pytest.importorskip("pyro")
    from pyro.infer.autoguide import AutoNormal

    model, seen = learners("torch")
    with pyro.get_param_store().scope():
        guide = AutoNormal(model)
        svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), pyro.infer.Trace_ELBO())
        svi.step(seen)
        groups = groups_of(from_svi(svi, args=(seen,), draws=3, environment=LEARNING.environment, **QUIET))
    assert set(groups["posterior"].data_vars) == {"mean", "offset", "alpha", "beta"}
    alpha = groups["posterior"]["alpha"].values[0]
    expected = reference("torch", alpha)[:, PERSON, TRIAL]
    np.testing.assert_allclose(groups["log_likelihood"]["y"].values[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", ["direct", "buffer"])
def test_terms_and_new_data_sets_are_of_the_part_that_the_model_asked_for(part):
    pyro = pytest.importorskip("pyro")
    import torch

    from ppl_buffer.pyro import JointPredictive

    given, net = data(HABIT), network(HABIT, "torch")
    inputs, value = array("torch", given.inputs), array("torch", given.value)
    asked = []

    def model():
        pyro.sample("unused", pyro.distributions.Normal(torch.zeros(()), 1.0))
        with pyro.plate("people", 3):
            pyro.sample("trials", JointPredictive(net, inputs, likelihood=part), obs=value)

    def simulate(net, *arguments, **more):
        asked.append(net.preferred_likelihood)
        return posterior_predictive(net, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppl_buffer.arviz.rollouts.posterior_predictive", simulate)
        groups = groups_of(from_mcmc(finished("pyro", model, draws(("unused", ()))), predictive_draws=2, **QUIET))
    expected = JointPredictive(net, inputs, likelihood=part).conditionals(value)
    found = groups["log_likelihood"]["trials"].values
    np.testing.assert_allclose(found[0, 0].ravel(), expected.numpy().ravel(), rtol=1e-4, atol=1e-5)
    assert set(asked) == {part}


def test_what_nuts_recorded():
    numpyro = pytest.importorskip("numpyro")
    import jax
    import numpyro.distributions as dist

    def model():
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(mu, 1), obs=0.7)

    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(model, max_tree_depth=3), num_warmup=3, num_samples=7, progress_bar=False
    )
    with pytest.raises(ValueError, match="mcmc: expected a finished run"):
        from_mcmc(mcmc, **QUIET)
    mcmc.run(jax.random.PRNGKey(0), extra_fields=EXTRA_FIELDS)
    stats = groups_of(from_mcmc(mcmc, predictive_draws=0, **QUIET))["sample_stats"]
    assert set(stats.data_vars) == {
        "diverging", "energy", "lp", "n_steps", "acceptance_rate", "step_size", "tree_depth"
    }  # fmt: skip
    assert dict(stats.sizes) == {"chain": 1, "draw": 7}
    depth, steps = stats["tree_depth"].values, stats["n_steps"].values
    assert ((2 ** (depth - 1) <= steps) & (steps <= 2**depth - 1)).all()
    assert (stats["lp"].values < 0).all() and (stats["energy"].values >= -stats["lp"].values - 1e-3).all()


def test_what_cannot_be_converted_is_refused():
    numpyro = pytest.importorskip("numpyro")
    import numpyro.distributions as dist

    from ppl_buffer.numpyro import JointPredictive

    net, given = network(FUNCTION, "jax"), data(FUNCTION, batch=2, trials=5)
    samples = draws(("mu", ()))
    good = simple("jax", given)
    with pytest.raises(ValueError, match=r"mcmc: expected an MCMC object of NumPyro or Pyro, got dict"):
        from_mcmc({})
    with pytest.raises(ValueError, match=r"missing \['mu'\]"):
        from_mcmc(finished("numpyro", good, draws(("nu", ()))), **QUIET)
    with pytest.raises(ValueError, match=r"dims: expected names among .* got \['nu'\]"):
        from_mcmc(finished("numpyro", good, samples), dims={"nu": ["person"]}, **QUIET)
    with pytest.raises(ValueError, match=r"coords\['subject'\]: expected 2 labels"):
        from_mcmc(finished("numpyro", good, samples), coords={"subject": [1, 2, 3]}, **QUIET)
    with pytest.raises(ValueError, match="predictive_draws: expected an integer of at least 0, got -1"):
        from_mcmc(finished("numpyro", good, samples), predictive_draws=-1, **QUIET)

    def part():
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        with numpyro.plate("set", 2, subsample_size=1) as index:
            inputs = {"x": given.inputs["x"][index]}
            numpyro.sample("y", JointPredictive(net, inputs, params={"mu": mu}), obs=given.value[index])

    with pytest.raises(ValueError, match="plate 'set' shows 1 of 2"):
        from_mcmc(finished("numpyro", part, samples), **QUIET)

    def latent_inputs():
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        numpyro.sample("y", JointPredictive(net, {"x": given.inputs["x"] + mu}), obs=given.value)

    with pytest.raises(ValueError, match="data of site 'y' .* not to depend on latent"):
        from_mcmc(finished("numpyro", latent_inputs, samples), **QUIET)
