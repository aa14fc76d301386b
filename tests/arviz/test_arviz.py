"""A fit converted to ArviZ: numbers against densities computed one by one, names, ArviZ's functions on the result."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from tests.networks import (
    FUNCTION,
    LEARNING,
    TINY,
    Case,
    array,
    data,
    joint_predictive,
    network,
    quick_compilation,  # noqa: F401
)

pytest.importorskip("xarray")
pytestmark = pytest.mark.usefixtures("quick_compilation")

from ppl_buffer.arviz import (  # noqa: E402
    EXTRA_FIELDS,
    arviz_version,
    from_mcmc,
    from_svi,
    groups_of,
    import_arviz,
    one_step_ahead,
)
from ppl_buffer.ppl.trace import observed_site, unwrap_joint  # noqa: E402
from ppl_buffer.schema import Categorical, Real, Schema  # noqa: E402

try:
    arviz_version()
except ImportError:
    pytest.skip("ArviZ is not installed", allow_module_level=True)

# ArviZ 1 smooths importance weights of no fewer than 25 draws.
PEOPLE, TRIALS, DRAWS, CHAINS = 3, 7, 13, 2
MASK = np.arange(TRIALS) < np.array([[7], [2], [5]])
PERSON, TRIAL = np.nonzero(MASK)
GIVEN = data(LEARNING, batch=PEOPLE, trials=TRIALS)
QUIET = {"progress": False, "prior_draws": 5}


def finished(language, model, samples, args=()):
    """What `from_mcmc` reads of a sampler, with draws that need no sampling."""
    kernel = SimpleNamespace(model=model)
    contents = {
        "__module__": f"{language}.infer",
        "sampler": kernel,
        "kernel": kernel,
        "_args": args,
        "_kwargs": {},
        "get_samples": lambda self, group_by_chain: samples,
        "get_extra_fields": lambda self, group_by_chain: {},
        "diagnostics": lambda self: {},
    }
    return type("MCMC", (), contents)()


def draws(*sites, seed=0):
    """Draws (chain, draw, *shape) near standard normal."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(CHAINS, DRAWS, *shape)).astype(np.float32) for name, shape in sites}


def learners(backend):
    """A hierarchical model of people with 7, 2 and 5 trials, in either language."""
    net = network(LEARNING, backend)
    seen = net.observe(GIVEN.inputs, GIVEN.value, feedback=GIVEN.feedback, trial_mask=MASK)
    if backend == "jax":
        import jax
        import numpyro as ppl
        import numpyro.distributions as dist

        squash = jax.nn.sigmoid
    else:
        import pyro as ppl
        import pyro.distributions as dist
        import torch

        squash = torch.sigmoid

    def model(seen):
        mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
        people = ppl.plate("people", PEOPLE)
        with people:
            offset = ppl.sample("offset", dist.Normal(0.0, 2.0))
        alpha = ppl.deterministic("alpha", squash(mean + offset))
        with people:
            beta = ppl.deterministic("beta", 0.5 + alpha**2)
            conditioned = {"alpha": alpha, "beta": beta}
            ppl.sample("y", joint_predictive(LEARNING, backend, seen, params=conditioned), obs=seen.value)

    return model, seen


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(backend, alpha, **more):
    """Log densities (*S, people, trials) computed without anything that was observed before."""
    conditioned = {"alpha": alpha, "beta": 0.5 + alpha**2}
    one = joint_predictive(
        LEARNING, backend, GIVEN.inputs, params=conditioned, feedback=GIVEN.feedback, trial_mask=MASK, **more
    )
    return np.asarray(one.conditionals(array(backend, GIVEN.value)))


@pytest.fixture(scope="module", params=["jax", "torch"])
def converted(request):
    backend = request.param
    language = {"jax": "numpyro", "torch": "pyro"}[backend]
    pytest.importorskip(language)
    model, seen = learners(backend)
    samples = draws(("mean", ()), ("offset", (PEOPLE,)))
    result = from_mcmc(
        finished(language, model, samples, (seen,)),
        environment=LEARNING.environment,
        coords={"subject": [31, 5, 17]},
        **QUIET,
    )
    return backend, samples, result


def test_every_group_is_there_with_names(converted):
    groups = groups_of(converted[2])
    assert set(groups) == {
        "posterior", "prior", "log_prior", "log_likelihood", "posterior_predictive", "one_step_ahead",
        "observed_data", "constant_data",
    }  # fmt: skip
    posterior = groups["posterior"]
    assert {name: x.dims[2:] for name, x in posterior.data_vars.items()} == {
        "mean": (), "offset": ("subject",), "alpha": ("subject",), "beta": ("subject",)
    }  # fmt: skip
    assert posterior.subject.values.tolist() == [31, 5, 17]
    assert set(groups["prior"].data_vars) == set(posterior.data_vars) and groups["prior"].sizes["draw"] == 5
    for name in ("log_likelihood", "posterior_predictive", "one_step_ahead", "observed_data", "constant_data"):
        assert groups[name].sizes["observation"] == MASK.sum()
        assert groups[name].subject.values.tolist() == np.array([31, 5, 17])[PERSON].tolist()
        assert groups[name].trial.values.tolist() == TRIAL.tolist()
    assert list(groups["log_likelihood"].data_vars) == ["y"]
    assert set(groups["observed_data"].data_vars) == set(groups["posterior_predictive"].data_vars) == {"choice", "rt"}
    assert set(groups["constant_data"].data_vars) == {"pair", "delay", "reward"}


def test_log_likelihood_is_that_of_each_trial_given_those_before(converted):
    backend, samples, result = converted
    alpha = sigmoid(samples["mean"][..., None] + samples["offset"])
    expected = reference(backend, alpha)[..., PERSON, TRIAL]
    np.testing.assert_allclose(groups_of(result)["log_likelihood"]["y"].values, expected, rtol=1e-4, atol=1e-5)


def test_posterior_and_prior_densities(converted):
    _, samples, result = converted
    groups = groups_of(result)
    np.testing.assert_allclose(groups["posterior"]["mean"], samples["mean"])
    alpha = sigmoid(samples["mean"][..., None] + samples["offset"])
    np.testing.assert_allclose(groups["posterior"]["alpha"], alpha, rtol=1e-5)
    expected = -0.5 * (samples["offset"] / 2) ** 2 - np.log(2) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(groups["log_prior"]["offset"], expected, rtol=1e-4)
    prior = groups["prior"]
    np.testing.assert_allclose(prior["alpha"], sigmoid(prior["mean"] + prior["offset"]), rtol=1e-4)


def test_observed_data_are_split_by_outcome(converted):
    observed = groups_of(converted[2])["observed_data"]
    np.testing.assert_array_equal(observed["choice"], GIVEN.value[PERSON, TRIAL, 0])
    np.testing.assert_allclose(observed["rt"], GIVEN.value[PERSON, TRIAL, 1])
    assert observed["choice"].dtype.kind == "i"
    constant = groups_of(converted[2])["constant_data"]
    np.testing.assert_allclose(constant["reward"], GIVEN.feedback["reward"][PERSON, TRIAL])


def test_arviz_works_on_the_result(converted):
    result, az = converted[2], import_arviz()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few draws
        loo = az.loo(result)
        assert np.isfinite(loo.elpd_loo if arviz_version() < 1 else loo.elpd)
        table = az.compare({"a": result, "b": result})
        ahead = one_step_ahead(result)
        if arviz_version() < 1:
            pit = {name: az.loo_pit(ahead, y=name) for name in ("rt",)}
            assert az.loo_pit(result, y="rt").shape == (MASK.sum(),)
        else:
            pit = az.loo_pit(ahead)
            assert set(pit.data_vars) == {"choice", "rt"}
    assert list(table.index) == ["a", "b"]
    values = np.asarray(pit["rt"])
    assert values.shape == (MASK.sum(),) and ((values >= 0) & (values <= 1)).all()


def test_arviz_plots_the_result(converted):
    pytest.importorskip("matplotlib").use("Agg")
    backend, _, result = converted
    if backend == "torch":
        pytest.skip("the containers are alike: one of them is enough")
    import matplotlib.pyplot as plt

    az = import_arviz()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if arviz_version() < 1:
            az.plot_loo_pit(one_step_ahead(result), y="rt")
            az.plot_ppc(result, var_names=["rt"], num_pp_samples=5)
        else:
            az.plot_loo_pit(one_step_ahead(result), var_names=["rt"], backend="matplotlib")
            az.plot_ppc_dist(result, var_names=["rt"], num_samples=5, backend="matplotlib")
    assert plt.get_fignums()
    plt.close("all")


def test_a_file_keeps_the_result(converted, tmp_path):
    pytest.importorskip("h5netcdf")
    import xarray

    backend, _, result = converted
    if backend == "jax":
        pytest.skip("the containers are alike: one of them is enough")
    path = str(tmp_path / "fit.nc")
    result.to_netcdf(path)
    read = import_arviz().from_netcdf(path) if arviz_version() < 1 else xarray.open_datatree(path)
    before, after = groups_of(one_step_ahead(result)), groups_of(one_step_ahead(read))
    assert set(before) == set(after)
    for name in ("posterior_predictive", "log_likelihood"):
        xarray.testing.assert_equal(before[name], after[name])


def test_draws_one_step_ahead_follow_the_observed_past():
    """Their probability integral transforms are uniform; those of whole rollouts would not be."""
    pytest.importorskip("torch")
    from scipy.stats import kstest

    from ppl_buffer.predictive import Predictive

    case = Case("drift", Schema(params={"mu": Real()}, outcomes={"y": Real()}, ordered=True), config=TINY)
    net, rng = network(case, "torch"), np.random.default_rng(2)
    value, count = np.array([[2.0, -1.0, 3.0]], np.float32), 2000
    conditioned = {"mu": np.full((count, 1), 0.3, np.float32)}
    seen = net.observe({}, value)
    log_probs, drawn = Predictive(net, seen, params=conditioned).one_step_ahead(
        seen.value, rng.random((count, 1, 3, 3))
    )
    one = Predictive(net, seen, params={"mu": np.full(1, 0.3, np.float32)})
    np.testing.assert_allclose(log_probs[5], one.conditionals(seen.value), rtol=1e-5)
    for trial in range(3):
        past = np.repeat(value, count, 0)
        past[:, trial] = drawn[:, 0, trial]
        # Later trials do not matter to this one's distribution function.
        places = Predictive(net, {}, trials=3, params={"mu": conditioned["mu"][:, 0]}).cdf_values(
            array("torch", past), array("torch", np.zeros((count, 3, 1), np.float32))
        )
        assert kstest(np.asarray(places)[:, trial], "uniform").pvalue > 1e-3


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_distribution_is_found_inside_wrappers(backend):
    language = pytest.importorskip({"jax": "numpyro", "torch": "pyro"}[backend])
    assert language
    given = data(FUNCTION, batch=3, trials=5)
    mask = np.arange(5) < np.array([[5], [1], [4]])
    made = joint_predictive(FUNCTION, backend, given.inputs, params=given.params, trial_mask=mask)
    people = np.array([True, False, True])
    kept = array(backend, people) if backend == "jax" else array(backend, people.astype(np.float32)) > 0
    value = array(backend, np.broadcast_to(given.value, (2, 3, 5)).copy())
    for wrapped in (
        made.mask(kept).expand((2, 3)),
        made.expand((2, 3)).mask(kept).to_event(1),
        made.expand((2, 3)).mask(kept).to_event(2),
    ):
        site = observed_site(wrapped, value)
        assert site.batch_shape == (2, 3) and tuple(unwrap_joint(wrapped).batch_shape) == (2, 3)
        assert site.exists.tolist() == [(mask & people[:, None]).tolist()] * 2
    rows = made.expand((2, 3)).to_event(1).mask(array(backend, np.array([1.0, 0.0], np.float32)) > 0)
    assert observed_site(rows, value).exists.tolist() == [mask.tolist(), np.zeros_like(mask).tolist()]
    if backend == "jax":
        import numpyro.distributions as dist
    else:
        import pyro.distributions as dist
    assert observed_site(dist.Normal(0.0, 1.0).expand((3,)).to_event(1), value) is None


def language_of(backend):
    """The backend's language, its distributions and its `JointPredictive`."""
    if backend == "jax":
        ppl = pytest.importorskip("numpyro")
        import numpyro.distributions as dist

        from ppl_buffer.numpyro import JointPredictive
    else:
        ppl = pytest.importorskip("pyro")
        import pyro.distributions as dist

        from ppl_buffer.pyro import JointPredictive
    return ppl, dist, JointPredictive


def simple(backend, given, **more):
    """A model of sets of points that all have the same number of trials, and of four numbers beside them."""
    ppl, dist, joint = language_of(backend)
    net, value, items = network(FUNCTION, backend), array(backend, given.value), array(backend, np.arange(4.0))

    def model():
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        with ppl.plate("set", len(given.value)):
            ppl.sample("y", joint(net, given.inputs, params={"mu": mu}, **more), obs=value)
        ppl.sample("extra", dist.Normal(mu, 1.0).expand([4]).to_event(1), obs=items)

    return model


def test_equal_lengths_keep_both_dimensions_and_other_observations_their_own():
    given = data(FUNCTION, batch=2, trials=5, points=3)
    model = simple("torch", given, context=given.context)
    samples = draws(("mu", ()))
    found = groups_of(
        from_mcmc(finished("pyro", model, samples), predictive_draws=6, dims={"extra": ["item"]}, **QUIET)
    )
    assert found["log_likelihood"]["y"].dims == ("chain", "draw", "subject", "trial")
    assert found["observed_data"]["y"].dims == ("subject", "trial")
    assert found["observed_data"]["extra"].dims == ("item",)
    expected = -0.5 * ((np.arange(4) - samples["mu"][..., None]) ** 2).sum(-1) - 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(found["log_likelihood"]["extra"], expected, rtol=1e-4)
    # Rollouts of some of the draws, evenly spaced, say which ones they are.
    assert found["posterior_predictive"].draw.values.tolist() == [0, 6, 12]
    assert found["posterior_predictive"]["y"].dims == ("chain", "draw", "subject", "trial")


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
    found = groups_of(from_svi(svi, params, draws=13, predictive_draws=0, **QUIET))
    assert set(found["posterior"].data_vars) == {"mu"} and dict(found["posterior"].sizes) == {"chain": 1, "draw": 13}
    assert "posterior_predictive" not in found and "sample_stats" not in found
    spread = found["posterior"]["mu"].values.std()
    assert 0.02 < spread < 0.3  # AutoNormal begins at a standard deviation of 0.1


def test_svi_of_pyro():
    pyro = pytest.importorskip("pyro")
    from pyro.infer.autoguide import AutoNormal

    model, seen = learners("torch")
    with pyro.get_param_store().scope():
        guide = AutoNormal(model)
        svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), pyro.infer.Trace_ELBO())
        svi.step(seen)
        found = groups_of(from_svi(svi, args=(seen,), draws=3, environment=LEARNING.environment, **QUIET))
    assert set(found["posterior"].data_vars) == {"mean", "offset", "alpha", "beta"}
    alpha = found["posterior"]["alpha"].values[0]
    expected = reference("torch", alpha)[:, PERSON, TRIAL]
    np.testing.assert_allclose(found["log_likelihood"]["y"].values[0], expected, rtol=1e-4, atol=1e-5)


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


def test_two_sites_have_names_of_their_own():
    ppl, dist, joint = language_of("torch")
    net, given = network(FUNCTION, "torch"), data(FUNCTION, batch=2, trials=5)
    other, value = {"x": given.inputs["x"][0, :3]}, array("torch", given.value)

    def model():
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        with ppl.plate("set", 2):
            ppl.sample("far", joint(net, given.inputs, params={"mu": mu}), obs=value)
        ppl.sample("near", joint(net, other, params={"mu": mu}), obs=value[1, :3])

    found = groups_of(from_mcmc(finished("pyro", model, draws(("mu", ()))), predictive_draws=0, **QUIET))
    assert {name: x.dims[2:] for name, x in found["log_likelihood"].data_vars.items()} == {
        "far_y": ("subject", "far_trial"), "near_y": ("near_trial",)
    }  # fmt: skip
    assert set(found["constant_data"].data_vars) == {"far_x", "near_x"}


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


def test_feedback_without_an_environment_leaves_new_data_out_and_says_so():
    pytest.importorskip("pyro")
    model, seen = learners("torch")
    run = finished(
        "pyro", model, {k: x[:1, :2] for k, x in draws(("mean", ()), ("offset", (PEOPLE,))).items()}, (seen,)
    )
    with pytest.warns(UserWarning, match=r"posterior_predictive: left out, since site 'y' needs an environment"):
        found = groups_of(from_mcmc(run, **QUIET))
    assert "posterior_predictive" not in found and "one_step_ahead" in found
    with pytest.raises(ValueError, match="group one_step_ahead"):
        one_step_ahead(from_mcmc(run, log_likelihood=False, predictive_draws=0, **QUIET))


def test_nothing_told_and_a_lapse_rate_that_is_sampled():
    ppl, dist, joint = language_of("torch")
    schema = Schema(inputs={"cue": Real()}, outcomes={"button": Categorical(3)}, ordered=True)
    net = network(Case("buttons", schema, config=TINY), "torch")
    rng = np.random.default_rng(0)
    inputs = {"cue": rng.normal(size=(2, 3)).astype(np.float32)}
    value = array("torch", rng.integers(0, 3, (2, 3)).astype(np.float32))

    def model(with_lapse):
        rate = ppl.sample("rate", dist.Beta(1.0, 9.0))
        lapse = rate if with_lapse else None
        ppl.sample("y", joint(net, inputs, lapse=lapse).to_event(1), obs=value)

    rates = {"rate": np.full((1, 4), [[0.0, 0.25, 0.5, 1.0]], np.float32)}
    found = groups_of(from_mcmc(finished("pyro", model, rates, (True,)), **QUIET))
    assert found["log_likelihood"]["button"].dims == ("chain", "draw", "subject", "trial")
    probability = np.exp(found["log_likelihood"]["button"].values[0])
    np.testing.assert_allclose(probability[3], 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(probability[1], 0.75 * probability[0] + 0.25 / 3, rtol=1e-4)
    plain = groups_of(from_mcmc(finished("pyro", model, rates, (False,)), **QUIET))
    for draw in range(4):
        np.testing.assert_allclose(np.exp(plain["log_likelihood"]["button"][0, draw]), probability[0], rtol=1e-4)
    assert plain["posterior_predictive"]["button"].values.max() <= 2
