"""A fit converted to ArviZ: numbers against densities computed one by one, names, ArviZ's functions on the result."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer.arviz import arviz_version, from_mcmc, groups_of, import_arviz, one_step_ahead
from ppl_buffer.arviz.layout import TrialLayout
from tests.arviz.models import (
    GIVEN,
    MASK,
    PEOPLE,
    PERSON,
    QUIET,
    TRIAL,
    TRIALS,
    draws,
    finished,
    learners,
    reference,
    sigmoid,
)
from tests.networks import LEARNING, network

pytestmark = pytest.mark.usefixtures("quick_compilation")


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


def test_whole_numbers_have_the_smallest_type_that_holds_them():
    outcomes = {"choice": pb.Categorical(2), "pain": pb.Integer(-100, 100), "grey": pb.Integer(0, 255)}
    net = SimpleNamespace(schema=pb.Schema(outcomes=outcomes))
    exists = np.ones((PEOPLE, TRIALS), dtype=bool)
    site = SimpleNamespace(query=SimpleNamespace(net=net), exists=exists, trials=TRIALS, batch_shape=(PEOPLE,))
    ends = {name: np.where(exists, variable.low + variable.n - 1, 0.0) for name, variable in outcomes.items()}
    found = TrialLayout("y", site, ["subject"], False, set(), {}).variables(ends)
    assert [x.values.dtype for x in found.values()] == [np.int8, np.int8, np.int16]
    assert [x.values.max() for x in found.values()] == [1, 100, 255]


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


def test_data_sets_of_the_prior_are_those_at_its_draws():
    backend, language = "torch", "pyro"
    pytest.importorskip(language)
    model, seen = learners(backend)
    fit = finished(language, model, draws(("mean", ()), ("offset", (PEOPLE,))), (seen,))
    few = {"predictive_draws": 0, "log_likelihood": False, "environment": LEARNING.environment, "seed": 3, **QUIET}
    groups = groups_of(from_mcmc(fit, prior_predictive_draws=4, **few))
    predictive = groups["prior_predictive"]
    assert predictive.sizes["draw"] == 4 and predictive.sizes["observation"] == MASK.sum()
    prior = {name: groups["prior"][name].values[0, :4] for name in ("alpha", "beta")}
    again = pb.posterior_predictive(
        network(LEARNING, backend), GIVEN.inputs, prior, trial_mask=MASK, environment=LEARNING.environment, seed=3,
        progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(predictive["choice"].values[0], again.value[..., 0][:, PERSON, TRIAL])
    np.testing.assert_allclose(predictive["rt"].values[0], again.value[..., 1][:, PERSON, TRIAL], rtol=1e-5)
    assert "prior_predictive" not in groups_of(from_mcmc(fit, **few))
    with pytest.raises(ValueError, match="prior_predictive_draws: expected at most the 5 prior_draws, got 6"):
        from_mcmc(fit, prior_predictive_draws=6, **few)
