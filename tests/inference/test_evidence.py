"""Model evidence against closed forms, quadrature over the parameters, and the definition over orders."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
from scipy.integrate import trapezoid

import ppl_buffer as pb
from ppl_buffer.inference.evidence import Evidence
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.prior import Prior
from tests.networks import (
    CONTAMINATED,
    DECISION,
    FUNCTION,
    FUNCTION_RECORD,
    LEARNING,
    REPORT,
    Record,
    array,
    data,
    network,
)

pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("quick_compilation")

REPORT_RECORD = Record(
    box={"mu": (-3.0, 3.0)},
    priors={"mu": Prior("Normal", {"loc": 0.3, "scale": 0.8})},
    trials=11,
    context=0,
    simulator="none",
)
LEARNING_PRIORS = {"alpha": Prior.uniform(0.1, 0.9), "beta": Prior.uniform(0.5, 3.0), "zeta": Prior.uniform(0.0, 1.0)}
LEARNING_RECORD = Record(
    box={name: prior.range() for name, prior in LEARNING_PRIORS.items()},
    priors=LEARNING_PRIORS,
    trials=11,
    context=0,
    simulator="none",
)
QUIET = {"progress": False}


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_importance_method_is_the_integral_over_the_prior(backend):
    pytest.importorskip(backend)
    net, given = network(REPORT, backend, REPORT_RECORD), data(REPORT, batch=3, trials=7)
    found = pb.log_evidence(net, given.inputs, given.value, method="importance", draws=1500, **QUIET)
    prior = scipy.stats.norm(0.3, 0.8)
    grid = np.linspace(*prior.interval(1 - 1e-9), 801)[:, None]
    likelihood = Query.build(net, given.inputs, params={"mu": grid.astype(np.float32)}, outside="ignore")
    terms = np.asarray(density.log_prob(likelihood, array(backend, given.value)), dtype=float) + prior.logpdf(grid)
    expected = np.log(trapezoid(np.exp(terms), grid, axis=0))
    assert found.log_evidence.shape == (3,) and found.terms.shape == (1500, 3)
    assert (found.standard_error < 0.05).all()
    np.testing.assert_allclose(found.log_evidence, expected, atol=0.15)
    assert (np.abs(found.log_evidence - expected) < 5 * found.standard_error).all()


def test_a_prior_of_ones_own_replaces_the_trained_one():
    net, given = network(REPORT, "torch", REPORT_RECORD), data(REPORT, batch=2, trials=7)
    narrow = {"mu": Prior("Normal", {"loc": -0.9, "scale": 1e-4})}
    found = pb.log_evidence(net, given.inputs, given.value, method="importance", prior=narrow, draws=300, **QUIET)
    there = Query.build(net, given.inputs, params={"mu": np.full(2, -0.9, np.float32)})
    expected = np.asarray(density.log_prob(there, array("torch", given.value)))
    assert (np.abs(found.log_evidence - expected) < 5 * found.standard_error).all()
    assert (found.standard_error < 0.05).all()


def test_a_prior_can_be_relative_to_another_parameter():
    record = Record(
        box={"mu": (-2.0, 2.0), "sigma": (0.1, 5.0)},
        priors={"mu": Prior.uniform(0.4, 1.7), "sigma": Prior("Uniform", {"low": 0.2, "high": 0.9}, "mu")},
        trials=11,
        context=13,
        simulator="none",
    )
    net, given = network(FUNCTION, "torch", record), data(FUNCTION, batch=2, trials=5, context=False)
    found = pb.log_evidence(net, given.inputs, given.value, method="importance", draws=1500, **QUIET)
    # The density of a uniform prior is constant: the evidence is the mean likelihood over a grid of midpoints.
    mu, above = np.meshgrid(0.4 + 1.3 * (np.arange(60) + 0.5) / 60, 0.2 + 0.7 * (np.arange(60) + 0.5) / 60)
    grid = {"mu": mu.reshape(-1, 1).astype(np.float32), "sigma": (mu + above).reshape(-1, 1).astype(np.float32)}
    likelihood = Query.build(net, given.inputs, params=grid, outside="ignore")
    terms = np.asarray(density.log_prob(likelihood, array("torch", given.value)), dtype=float)
    expected = scipy.special.logsumexp(terms, 0) - np.log(len(terms))
    assert (np.abs(found.log_evidence - expected) < 5 * found.standard_error + 1e-3).all()
    assert (found.standard_error < 0.05).all()


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_parameter_below_all_outcomes_is_integrated_up_to_the_least_of_them(backend):
    pytest.importorskip(backend)
    priors = {"drift": Prior.uniform(-1.0, 1.0), "delay": Prior("Gamma", {"concentration": 2.0, "rate": 0.5}),
              "bound": Prior.uniform(1.0, 2.0)}  # fmt: skip
    record = Record(box={name: prior.range() for name, prior in priors.items()}, priors=priors, trials=11, context=0,
                    simulator="none")  # fmt: skip
    net, given = network(DECISION, backend, record), data(DECISION, batch=2, trials=5, context=False)
    value = np.array(given.value)
    value[..., 1] = np.abs(value[..., 1]) + np.array([[0.4], [1.7]])
    value[0, 3, 1] = 0.01  # no such trial
    exists = np.array([[True, True, True, False, True], [True] * 5])
    conditioned = {"drift": np.zeros(2, np.float32), "bound": np.full(2, 1.5, np.float32)}
    found = pb.log_evidence(net, given.inputs, value, params=conditioned, trial_mask=exists, draws=500, **QUIET)
    assert np.isfinite(found.terms).all()
    for row in range(2):
        least = value[row, exists[row], 1].min()
        grid = least * (np.arange(4000) + 0.5) / 4000
        delay = np.stack([grid, grid], -1).astype(np.float32)
        theta = {**{name: x[None] for name, x in conditioned.items()}, "delay": delay}
        likelihood = Query.build(net, given.inputs, params=theta, trial_mask=exists, outside="ignore")
        terms = np.asarray(density.log_prob(likelihood, array(backend, value)), dtype=float)[:, row]
        prior = scipy.stats.gamma(2.0, scale=2.0).logpdf(grid)
        expected = scipy.special.logsumexp(terms + prior) + np.log(least / 4000)
        assert abs(found.log_evidence[row] - expected) < 5 * found.standard_error[row] + 1e-3
    assert (found.standard_error < 0.1).all()


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_autoregressive_method_averages_densities_over_orders(backend):
    pytest.importorskip(backend)
    net, given = network(FUNCTION, backend, FUNCTION_RECORD), data(FUNCTION, batch=2, trials=5, context=False)
    orders = 19
    found = pb.log_evidence(net, given.inputs, given.value, orders=orders, seed=3, method="autoregressive", **QUIET)
    rng = np.random.default_rng(3)
    by_order = []
    for order in [rng.permutation(5) for _ in range(orders)]:
        turned = Query.build(net, {"x": given.inputs["x"][:, order]})
        terms = density.conditionals(turned, array(backend, given.value[:, order]))
        by_order.append(np.asarray(terms, dtype=float).sum(-1))
    np.testing.assert_allclose(found.terms, by_order, rtol=1e-4, atol=1e-4)
    densities = np.exp(by_order)
    np.testing.assert_allclose(found.log_evidence, np.log(densities.mean(0)), rtol=1e-4)
    relative = densities.std(0, ddof=1) / densities.mean(0) / np.sqrt(orders)
    np.testing.assert_allclose(found.standard_error, relative, rtol=1e-3)
    np.testing.assert_allclose(found.running()[-1], found.log_evidence)
    np.testing.assert_allclose(found.running()[:2], [by_order[0], np.log(densities[:2].mean(0))], rtol=1e-4)


def test_blocks_reach_the_reencoding_autoregression():
    net, given = network(FUNCTION, "torch", FUNCTION_RECORD), data(FUNCTION, batch=2, trials=5, context=False)
    found = pb.log_evidence(net, given.inputs, given.value, orders=1, block=1, seed=4, method="autoregressive", **QUIET)
    order = np.random.default_rng(4).permutation(5)
    x, y = given.inputs["x"][:, order], given.value[:, order]
    total = np.zeros(2)
    for k in range(5):
        past = {"x": x[:, :k], "y": y[:, :k]} if k else None
        one = Query.build(net, {"x": x[:, k : k + 1]}, context=past)
        total += np.asarray(density.log_prob(one, array("torch", y[:, k : k + 1])))
    np.testing.assert_allclose(found.log_evidence, total, rtol=1e-4)
    assert found.standard_error.tolist() == [0, 0]


def test_an_ordered_model_has_one_order_and_parameters_can_be_given():
    net, given = network(LEARNING, "torch"), data(LEARNING, batch=3, trials=7)
    conditioned = {"alpha": given.params["alpha"]}
    found = pb.log_evidence(
        net, given.inputs, given.value, feedback=given.feedback, params=conditioned, method="autoregressive", **QUIET
    )
    expected = Query.build(net, given.inputs, params=conditioned, feedback=given.feedback)
    expected = density.log_prob(expected, array("torch", given.value))
    np.testing.assert_allclose(found.log_evidence, expected, rtol=1e-6)
    assert found.terms.shape == (1, 3) and found.standard_error.tolist() == [0, 0, 0]


def test_trials_that_do_not_exist_change_nothing():
    net, given = network(CONTAMINATED, "torch"), data(CONTAMINATED, batch=2, trials=7, context=False)
    mask = np.arange(7) < np.array([[7], [4]])
    other = np.where(mask[..., None], given.value, given.value[:, ::-1])
    found = [
        pb.log_evidence(
            net, given.inputs, x, feedback=given.feedback, trial_mask=mask, orders=3, method="autoregressive", **QUIET
        )
        for x in (given.value, other)
    ]
    np.testing.assert_allclose(found[0].log_evidence, found[1].log_evidence, rtol=1e-6)


def test_all_parameters_given_of_an_independent_model_is_its_likelihood():
    net, given = network(DECISION, "torch"), data(DECISION, batch=3, trials=7, context=False)
    found = pb.log_evidence(net, given.inputs, given.value, params=given.params, method="autoregressive", **QUIET)
    query = Query.build(net, given.inputs, params=given.params)
    expected = density.marginals(query, array("torch", given.value)).sum(-1)
    np.testing.assert_allclose(found.log_evidence, expected, rtol=1e-5)


def test_standard_error_is_the_spread_of_repetitions():
    net, given = network(FUNCTION, "torch", FUNCTION_RECORD), data(FUNCTION, batch=1, trials=5, context=False)
    found = [
        pb.log_evidence(net, given.inputs, given.value, orders=24, seed=seed, method="autoregressive", **QUIET)
        for seed in range(40)
    ]
    spread = np.std([x.log_evidence[0] for x in found], ddof=1)
    stated = np.mean([x.standard_error[0] for x in found])
    assert 0.6 < stated / spread < 1.6


def test_few_effective_draws_are_announced():
    net, given = network(REPORT, "torch", REPORT_RECORD), data(REPORT, batch=1, trials=7)
    with pytest.warns(UserWarning, match="worth only .* independent"):
        pb.log_evidence(net, given.inputs, given.value, draws=20, **QUIET)


def test_evidence_is_plotted_against_the_number_of_terms():
    terms = np.random.default_rng(5).normal(size=(11, 2))
    axes = Evidence(np.zeros(2), np.ones(2), terms, "autoregressive").plot()
    assert axes.get_xlabel() == "number of orders" and len(axes.lines) == 3
    assert axes.lines[0].get_ydata()[-1] == 0


@pytest.mark.parametrize("method", ["autoregressive", "importance"])
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_observed_trials_serve_as_inputs(backend, method):
    pytest.importorskip(backend)
    net, given = network(REPORT, backend, REPORT_RECORD), data(REPORT, batch=2, trials=5)
    mask = np.arange(5) < np.array([[5], [3]])
    observed = net.observe(given.inputs, given.value, trial_mask=mask)
    options = {"method": method, "draws": 300, "orders": 7, **QUIET}
    found = pb.log_evidence(net, observed, observed.value, **options)
    expected = pb.log_evidence(net, given.inputs, given.value, trial_mask=mask, **options)
    np.testing.assert_allclose(found.log_evidence, expected.log_evidence, rtol=1e-6)
    with pytest.raises(ValueError, match="trial_mask: expected none beside observed data"):
        pb.log_evidence(net, observed, observed.value, trial_mask=mask, **options)


def test_a_context_is_for_the_autoregressive_method_alone():
    net, given = network(FUNCTION, "torch", FUNCTION_RECORD), data(FUNCTION, batch=2, trials=5, points=4)
    observed = net.observe(given.inputs, given.value, context=given.context)
    found = pb.log_evidence(net, observed, observed.value, method="autoregressive", orders=3, seed=2, **QUIET)
    rng = np.random.default_rng(2)
    for term, order in zip(found.terms, [rng.permutation(5) for _ in range(3)], strict=True):
        turned = Query.build(net, {"x": given.inputs["x"][:, order]}, context=given.context)
        expected = density.log_prob(turned, array("torch", given.value[:, order]))
        np.testing.assert_allclose(term, expected, rtol=1e-4)
    with pytest.raises(ValueError, match="inputs: expected trials observed without a context"):
        pb.log_evidence(net, observed, observed.value, **QUIET)


@pytest.mark.parametrize("method", ["autoregressive", "importance"])
@pytest.mark.parametrize(("outcome", "illegal"), [(0, 2.0), (1, -0.4), (1, np.nan)])
def test_outcomes_that_cannot_be_are_refused(method, outcome, illegal):
    net, given = network(LEARNING, "torch", LEARNING_RECORD), data(LEARNING, batch=2, trials=5)
    value = given.value.copy()
    value[1, 4, outcome] = illegal
    with pytest.raises(ValueError, match=rf"value\['{'choice' if outcome == 0 else 'rt'}'\]: expected .*\(1 of 10\)"):
        pb.log_evidence(net, given.inputs, value, feedback=given.feedback, method=method, draws=400, **QUIET)
    # What stands where there is no trial is not looked at.
    mask = np.arange(5) < np.array([[5], [4]])
    found = pb.log_evidence(
        net, given.inputs, value, feedback=given.feedback, trial_mask=mask, method=method, draws=400, **QUIET
    )
    assert np.isfinite(found.log_evidence).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"params": {"sigma": np.array([-1.0, 1.0])}}, r"params\['sigma'\]: expected a number above 0, got -1\.0"),
        ({"method": "bridge"}, r"method: expected one of \['autoregressive', 'importance'\], got 'bridge'"),
        ({"method": "autoregressive", "orders": 0}, "orders: expected an integer of at least 1, got 0"),
        ({"method": "importance", "draws": 2.5}, "draws: expected an integer of at least 1, got 2.5"),
        ({"method": "importance", "block": 2}, "block: expected None for the importance method"),
        ({"method": "autoregressive", "prior": {}}, "prior: expected None for the autoregressive method"),
        ({"method": "importance"}, "prior: expected a prior of 'sigma'.*, or state `priors` in the simulator"),
        (
            {"method": "importance", "prior": {"tau": Prior.uniform(0, 1)}},
            r"prior: expected parameters that are integrated over, \['mu', 'sigma'\], got \['tau'\]",
        ),
        (
            {"method": "importance", "params": {"mu": np.zeros(2, np.float32), "sigma": np.ones(2, np.float32)}},
            "params: expected at least one parameter to integrate over",
        ),
        ({"method": "autoregressive", "params": {"nu": 1.0}}, "params: "),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    net, given = network(FUNCTION, "torch", FUNCTION_RECORD), data(FUNCTION, batch=2, trials=5)
    with pytest.raises(ValueError, match=message):
        pb.log_evidence(net, given.inputs, given.value, **QUIET, **arguments)


RATE_PRIOR = Prior("Beta", {"concentration1": 1.5, "concentration0": 6.0})


@pytest.mark.parametrize("lapse", [0.2, pb.Lapse(RATE_PRIOR)], ids=["known", "integrated"])
def test_lapses_are_part_of_the_evidence(lapse):
    net, given = network(REPORT, "torch", REPORT_RECORD), data(REPORT, batch=3, trials=7)
    found = pb.log_evidence(net, given.inputs, given.value, lapse=lapse, draws=1500, **QUIET)
    prior = scipy.stats.norm(0.3, 0.8)
    grid = np.linspace(*prior.interval(1 - 1e-9), 201)[:, None]
    # Places in the middle of shares of the rate's prior, all as probable.
    rates = np.array([0.2]) if isinstance(lapse, float) else RATE_PRIOR.quantile((np.arange(100) + 0.5) / 100)
    likelihood = Query.build(net, given.inputs, params={"mu": grid.astype(np.float32)}, outside="ignore")
    # What each trial is without lapses: parameters told, it does not matter whether those before it were lapses.
    each = np.asarray(density.conditionals(likelihood, array("torch", given.value)), dtype=float)[None]
    by_rate = rates[:, None, None, None]
    terms = np.log((1 - by_rate) * np.exp(each) + by_rate / 5).sum(-1) + prior.logpdf(grid)
    expected = np.log(trapezoid(np.exp(terms).mean(0), grid, axis=0))
    assert (np.abs(found.log_evidence - expected) < 5 * found.standard_error + 1e-3).all()
    assert (found.standard_error < 0.05).all()
    if isinstance(lapse, pb.Lapse):
        alone = pb.log_evidence(
            net, given.inputs, given.value, params={"mu": grid[100].repeat(3)}, lapse=lapse, **QUIET
        )
        expected = np.log(np.exp(terms[:, 100] - prior.logpdf(grid[100])).mean(0))
        assert (np.abs(alone.log_evidence - expected) < 5 * alone.standard_error + 1e-3).all()


def test_a_response_that_may_be_a_lapse_bounds_no_parameter():
    priors = {"drift": Prior.uniform(-1.0, 1.0), "delay": Prior("Gamma", {"concentration": 2.0, "rate": 0.5}),
              "bound": Prior.uniform(1.0, 2.0)}  # fmt: skip
    record = Record(box={name: prior.range() for name, prior in priors.items()}, priors=priors, trials=11, context=0,
                    simulator="none")  # fmt: skip
    net, given = network(DECISION, "torch", record), data(DECISION, batch=2, trials=5, context=False)
    value = np.array(given.value)
    # The fast response of the first may be a lapse, that of the second is too fast for one.
    value[..., 1] = [[0.2, 2.4, 2.2, 3.0, 2.1], [0.09, 2.4, 2.2, 3.0, 2.1]]
    conditioned = {"drift": np.zeros(2, np.float32), "bound": np.full(2, 1.5, np.float32)}
    lapse = pb.Lapse(0.05, {"rt": (0.1, 4.0)})
    found = pb.log_evidence(net, given.inputs, value, params=conditioned, lapse=lapse, draws=2000, **QUIET)
    for row, top in enumerate((12.0, 0.09)):
        grid = top * (np.arange(4000) + 0.5) / 4000
        theta = {**{name: x[None] for name, x in conditioned.items()}, "delay": np.stack([grid, grid], -1)}
        theta = {name: x.astype(np.float32) for name, x in theta.items()}
        likelihood = Query.build(net, given.inputs, params=theta, lapse=lapse, outside="ignore")
        terms = np.asarray(density.log_prob(likelihood, array("torch", value)), dtype=float)[:, row]
        expected = scipy.special.logsumexp(terms + scipy.stats.gamma(2.0, scale=2.0).logpdf(grid)) + np.log(top / 4000)
        assert abs(found.log_evidence[row] - expected) < 5 * found.standard_error[row] + 1e-2
    assert (found.standard_error < 0.1).all()


@pytest.mark.parametrize(
    ("lapse", "said"),
    [
        ("often", "lapse: expected an array of numbers"),
        (True, "lapse: expected a probability, got True"),
        (np.full(3, 0.1), r"lapse: expected one rate, or rates of shape \(2,\), got shape \(3,\)"),
        (1.2, "lapse: expected a probability, got 1.2"),
        (pb.Lapse(ranges={"rt": (0, 1)}), "lapse: expected ranges of the continuous outcomes"),
    ],
)
def test_lapses_that_cannot_be_have_no_evidence(lapse, said):
    net, given = network(REPORT, "torch", REPORT_RECORD), data(REPORT, batch=2, trials=7)
    with pytest.raises(ValueError, match=said):
        pb.log_evidence(net, given.inputs, given.value, lapse=lapse, **QUIET)


def test_the_autoregressive_method_takes_lapses_where_it_can():
    net, given = network(REPORT, "torch", REPORT_RECORD), data(REPORT, batch=2, trials=7)
    options = {"method": "autoregressive", **QUIET}
    for lapse, params in ((0.1, {}), (pb.Lapse(RATE_PRIOR), given.params)):
        with pytest.raises(ValueError, match="a past without lapses; use method='importance'"):
            pb.log_evidence(net, given.inputs, given.value, params=params, lapse=lapse, **options)
    found = pb.log_evidence(net, given.inputs, given.value, params=given.params, lapse=0.1, **options)
    expected = density.log_prob(
        Query.build(net, given.inputs, params=given.params, lapse=0.1), array("torch", given.value)
    )
    np.testing.assert_allclose(found.log_evidence, expected, rtol=1e-6)
