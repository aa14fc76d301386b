"""Sites of several kinds: their dimensions and names, and what is left out of their groups."""

import numpy as np
import pytest

from ppl_buffer.arviz import from_mcmc, groups_of, one_step_ahead
from ppl_buffer.arviz.rollouts import evenly_spaced
from ppl_buffer.findings import FindingWarning
from ppl_buffer.network.lapses import Lapse
from ppl_buffer.schema import Categorical, Real, Schema
from tests.arviz.models import PEOPLE, QUIET, draws, finished, learners, ppl_of, simple
from tests.networks import DECISION, FUNCTION, TINY, Case, array, data, network

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_equal_lengths_keep_both_dimensions_and_other_observations_their_own():
    given = data(FUNCTION, batch=2, trials=5, points=3)
    model = simple("torch", given, context=given.context)
    samples = draws(("mu", ()))
    groups = groups_of(
        from_mcmc(finished("pyro", model, samples), predictive_draws=6, dims={"extra": ["item"]}, **QUIET)
    )
    assert groups["log_likelihood"]["y"].dims == ("chain", "draw", "subject", "trial")
    assert groups["observed_data"]["y"].dims == ("subject", "trial")
    assert groups["observed_data"]["extra"].dims == ("item",)
    expected = -0.5 * ((np.arange(4) - samples["mu"][..., None]) ** 2).sum(-1) - 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(groups["log_likelihood"]["extra"], expected, rtol=1e-4)
    # Rollouts of some of the draws, evenly spaced, say which ones they are.
    assert groups["posterior_predictive"].draw.values.tolist() == [0, 6, 12]
    assert groups["posterior_predictive"]["y"].dims == ("chain", "draw", "subject", "trial")


@pytest.mark.parametrize(
    ("backend", "language"), [("torch", "pyro"), pytest.param("jax", "numpyro", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("missing", [False, True])
def test_a_regression_on_trials_has_a_dimension_of_trials(backend, language, missing):
    """Each trial a data set of its own: its plate keeps its name, and there is no dimension of one trial beside it."""
    ppl, dist, joint = ppl_of(backend)
    net, given = network(DECISION, backend), data(DECISION, batch=6, trials=1, context=False)
    exists = np.arange(6)[:, None] != (3 if missing else 6)
    slope, others = array(backend, np.linspace(-1, 1, 6, dtype=np.float32)), {"delay": 0.2, "bound": 1.5}
    seen = net.observe(array(backend, given.inputs), array(backend, given.value), trial_mask=array(backend, exists))

    def model():
        drift = ppl.sample("slope", dist.Normal(0.0, 1.0)) * slope
        with ppl.plate("trials", 6):
            ppl.sample("response", joint(net, seen, params={"drift": drift, **others}), obs=seen.value)

    samples = draws(("slope", ()))
    groups = groups_of(from_mcmc(finished(language, model, samples), predictive_draws=4, **QUIET))
    dims = ("observation",) if missing else ("trials",)
    for group, name in (("log_likelihood", "response"), ("one_step_ahead", "rt"), ("posterior_predictive", "choice")):
        assert groups[group][name].dims == ("chain", "draw", *dims)
    assert groups["observed_data"]["rt"].dims == dims and set(groups["log_likelihood"].coords) >= {"trials"}
    found = groups["log_likelihood"]["response"]
    assert found["trials"].values.tolist() == ([0, 1, 2, 4, 5] if missing else list(range(6)))
    # Each term against the density of that trial alone.
    one = joint(
        net, {"coherence": array(backend, given.inputs["coherence"][4])}, trials=1,
        params={"drift": array(backend, samples["slope"][1, 2]) * slope[4], **others},
    )  # fmt: skip
    expected = float(one.log_prob(array(backend, given.value[4])))
    np.testing.assert_allclose(found.sel(trials=4)[1, 2] if not missing else found[1, 2, 3], expected, rtol=1e-4)


def test_draws_of_the_posterior_are_evenly_spaced_over_every_chain():
    np.testing.assert_array_equal(evenly_spaced(2, 13, 6), [[0, 6, 12], [13, 19, 25]])
    np.testing.assert_array_equal(evenly_spaced(2, 3, None), [[0, 1, 2], [3, 4, 5]])


def test_every_draw_has_new_data_of_its_own():
    model = simple("torch", data(FUNCTION, batch=2, trials=5))
    samples = {"mu": np.zeros((2, 13), np.float32)}
    groups = groups_of(from_mcmc(finished("pyro", model, samples), **QUIET))
    for name in ("one_step_ahead", "posterior_predictive"):
        # The draws of the parameter are all alike: what was drawn at them is not.
        drawn = groups[name]["y"].values.reshape(26, 10)
        assert len(np.unique(drawn, axis=0)) == 26 and len(np.unique(drawn)) == 260


def test_two_sites_have_names_of_their_own():
    ppl, dist, joint = ppl_of("torch")
    net, given = network(FUNCTION, "torch"), data(FUNCTION, batch=2, trials=5)
    other, value = {"x": given.inputs["x"][0, :3]}, array("torch", given.value)

    def model():
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        with ppl.plate("set", 2):
            ppl.sample("far", joint(net, given.inputs, params={"mu": mu}), obs=value)
        ppl.sample("near", joint(net, other, params={"mu": mu}), obs=value[1, :3])

    groups = groups_of(from_mcmc(finished("pyro", model, draws(("mu", ()))), predictive_draws=0, **QUIET))
    assert {name: x.dims[2:] for name, x in groups["log_likelihood"].data_vars.items()} == {
        "far_y": ("subject", "far_trial"), "near_y": ("near_trial",)
    }  # fmt: skip
    assert set(groups["constant_data"].data_vars) == {"far_x", "near_x"}


def test_feedback_without_an_environment_leaves_new_data_out_and_says_so():
    pytest.importorskip("pyro")
    model, seen = learners("torch")
    run = finished(
        "pyro", model, {k: x[:1, :2] for k, x in draws(("mean", ()), ("offset", (PEOPLE,))).items()}, (seen,)
    )
    with pytest.warns(
        FindingWarning, match=r"posterior_predictive: left out, since site 'y' needs an environment"
    ) as warned:
        groups = groups_of(from_mcmc(run, **QUIET))
    assert [warning.message.finding.kind for warning in warned] == ["left_out"]
    assert "posterior_predictive" not in groups and "one_step_ahead" in groups
    with pytest.raises(ValueError, match="group one_step_ahead"):
        one_step_ahead(from_mcmc(run, log_likelihood=False, predictive_draws=0, **QUIET))


def test_nothing_conditioned_and_a_lapse_rate_that_is_sampled():
    ppl, dist, joint = ppl_of("torch")
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
    groups = groups_of(from_mcmc(finished("pyro", model, rates, (True,)), **QUIET))
    assert groups["log_likelihood"]["button"].dims == ("chain", "draw", "subject", "trial")
    probability = np.exp(groups["log_likelihood"]["button"].values[0])
    np.testing.assert_allclose(probability[3], 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(probability[1], 0.75 * probability[0] + 0.25 / 3, rtol=1e-4)
    plain = groups_of(from_mcmc(finished("pyro", model, rates, (False,)), **QUIET))
    for draw in range(4):
        np.testing.assert_allclose(np.exp(plain["log_likelihood"]["button"][0, draw]), probability[0], rtol=1e-4)
    assert plain["posterior_predictive"]["button"].values.max() <= 2


def test_the_range_of_lapses_is_the_models_in_every_group():
    ppl, dist, joint = ppl_of("torch")
    given = data(FUNCTION, batch=2, trials=3, context=False)
    net, value = network(FUNCTION, "torch"), array("torch", given.value)
    params = {"mu": 0.3, "sigma": 1.0}

    def model(ranges):
        rate = ppl.sample("rate", dist.Beta(1.0, 9.0))
        lapse = Lapse(rate, ranges)
        told = {name: x * value.new_ones(2) for name, x in params.items()}
        ppl.sample("y", joint(net, array("torch", given.inputs), params=told, lapse=lapse).to_event(1), obs=value)

    rates, low, high = {"rate": np.array([[0.0, 1.0]], np.float32)}, -20.0, 30.0
    groups = groups_of(from_mcmc(finished("pyro", model, rates, ({"y": (low, high)},)), **QUIET))
    np.testing.assert_allclose(groups["log_likelihood"]["y"][0, 1], -np.log(high - low), rtol=1e-5)
    assert (
        np.abs(groups["posterior_predictive"]["y"][0, 1]).max() > 9 < np.abs(groups["one_step_ahead"]["y"][0, 1]).max()
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"coords": {"subjekt": ["a", "b"]}},
            r"coords: expected dimensions among .*'subject'.*'set'.*got \['subjekt'\]",
        ),
        (
            {"coords": {"subject": ["a", "a"]}},
            r"coords\['subject'\]: expected a different label at each place, got 'a'",
        ),
        ({"coords": {"subject": ["a", None]}}, r"coords\['subject'\]: expected a list of labels, none of them missing"),
        ({"coords": {"subject": "ab"}}, r"coords\['subject'\]: expected a list of labels"),
        ({"coords": {"trial": [3, 2, 1]}}, r"coords\['trial'\]: expected numbers that increase"),
        ({"dims": {"extra": "item"}}, r"dims\['extra'\]: expected a list of different names, got 'item'"),
        ({"dims": {"extra": ["subject"]}}, r"coords\['subject'\]: expected 4 labels for 'extra', got 2"),
    ],
)
def test_labels_that_fit_no_dimension_are_refused(options, text):
    model = simple("torch", data(FUNCTION, batch=2, trials=3))
    with pytest.raises(ValueError, match=text):
        from_mcmc(finished("pyro", model, draws(("mu", ()))), **QUIET, **options)
