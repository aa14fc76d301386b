"""The trace of a model at posterior draws: the same of both languages, and what it finds inside wrappers."""

import inspect
import warnings
from importlib import import_module

import numpy as np
import pytest

from ppl_buffer.arviz import from_mcmc, groups_of
from ppl_buffer.arviz.language import language_of
from ppl_buffer.findings import FindingWarning
from ppl_buffer.ppl.trace import Language, observed_site, unwrap_joint
from ppl_buffer.schema import Real, Schema
from tests.arviz.models import PEOPLE, QUIET, finished, learners, ppl_of
from tests.networks import FUNCTION, FUNCTION_RECORD, TINY, Case, array, data, joint_predictive, network

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("language", ["numpyro", "pyro"])
def test_both_languages_offer_the_same_functions(language):
    pytest.importorskip(language)
    module = import_module(f"ppl_buffer.{language}.trace")
    offered = {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }
    asked = dict(inspect.getmembers(Language, inspect.isfunction))
    asked = {name: function for name, function in asked.items() if not name.startswith("_")}
    assert set(offered) == set(asked)
    for name, function in asked.items():
        wanted = list(inspect.signature(function).parameters.values())[1:]
        assert list(inspect.signature(offered[name]).parameters.values()) == wanted


def test_draws_on_a_bound_are_taken_as_the_sampler_took_them():
    """Pyro's samplers do not validate; rounding brings a logistic function to 0 and 1."""
    pytest.importorskip("pyro")
    model, seen = learners("torch")
    samples = {"mean": np.array([[0.0, 300.0, -300.0]], np.float32), "offset": np.zeros((1, 3, PEOPLE), np.float32)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups = groups_of(from_mcmc(finished("pyro", model, samples, (seen,)), predictive_draws=0, **QUIET))
    alpha = groups["posterior"]["alpha"].values
    assert (alpha[0, 1] == 1).all() and (alpha[0, 2] == 0).all()
    assert np.isfinite(next(iter(groups["log_likelihood"].data_vars.values())).values).all()


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_single_draws_outside_the_trained_range_are_no_news(backend):
    ppl, dist, joint = ppl_of(backend)
    net, given = network(FUNCTION, backend, FUNCTION_RECORD), data(FUNCTION, batch=2, trials=5)
    value = array(backend, given.value)

    def model():
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        with ppl.plate("set", 2):
            ppl.sample("y", joint(net, given.inputs, params={"mu": mu}), obs=value)

    language = language_of({"jax": "numpyro", "torch": "pyro"}[backend])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        traced = language.trace_posterior(model, (), {}, {"mu": np.array([2.5, 0.5, -3.0], np.float32)})
    assert traced.joint_sites["y"].params["mu"].reshape(-1).tolist() == [2.5, 0.5, -3.0]
    with pytest.warns(FindingWarning) as warned:
        joint(net, given.inputs, params={"mu": array(backend, np.array([2.5, 0.5], np.float32))})
    assert [warning.filename for warning in warned] == [__file__]
    (finding,) = [warning.message.finding for warning in warned]
    assert (finding.kind, finding.parameter, finding.share) == ("outside_box", "mu", 0.5)


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


def test_draws_one_step_ahead_follow_the_observed_past():
    """Their probability integral transforms are uniform; those of whole rollouts would not be."""
    pytest.importorskip("torch")
    from scipy.stats import kstest

    from ppl_buffer.predictive import density
    from ppl_buffer.predictive.query import Query

    case = Case("drift", Schema(params={"mu": Real()}, outcomes={"y": Real()}, ordered=True), config=TINY)
    net, rng = network(case, "torch"), np.random.default_rng(2)
    value, count = np.array([[2.0, -1.0, 3.0]], np.float32), 2000
    conditioned = {"mu": np.full((count, 1), 0.3, np.float32)}
    seen = net.observe({}, value)
    log_probs, drawn = density.one_step_ahead(
        Query.build(net, seen, params=conditioned), seen.value, rng.random((count, 1, 3, 3))
    )
    one = Query.build(net, seen, params={"mu": np.full(1, 0.3, np.float32)})
    np.testing.assert_allclose(log_probs[5], density.conditionals(one, seen.value), rtol=1e-5)
    for trial in range(3):
        past = np.repeat(value, count, 0)
        past[:, trial] = drawn[:, 0, trial]
        # Later trials do not matter to this one's distribution function.
        alone = Query.build(net, {}, trials=3, params={"mu": conditioned["mu"][:, 0]})
        places = density.cdf_values(alone, array("torch", past), array("torch", np.zeros((count, 3, 1), np.float32)))
        assert kstest(np.asarray(places)[:, trial], "uniform").pvalue > 1e-3
