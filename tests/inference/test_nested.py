"""Smaller models of one network: parameters at known values, and parameters that equal another one."""

import numpy as np
import pytest
import scipy.special

import ppl_buffer as pb
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from tests.inference.test_evidence import LEARNING_RECORD
from tests.networks import LEARNING, array, data, network

pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("quick_compilation")


def learners(batch):
    """A network, and the arguments of its trials."""
    given = data(LEARNING, batch=batch, trials=5)
    options = {"feedback": given.feedback, "method": "importance", "draws": 700, "progress": False}
    return network(LEARNING, "torch", LEARNING_RECORD), (given.inputs, given.value), options


def test_a_parameter_that_equals_another_has_the_prior_of_that_one():
    net, task, rng = pb.load("noisy_q", backend="torch"), pb.simulators.NoisyQ(), np.random.default_rng(0)
    inputs = task.inputs(rng, 2, 30)
    truth = {"alpha": [0.2, 0.8], "beta": [5.0, 5.0], "kappa": [0.3, 0.3], "zeta": [0.2, 0.1]}
    played = task.simulate(rng, {name: np.array(x) for name, x in truth.items()}, inputs)
    known = {"beta": 5.0, "kappa": 0.3}
    options = {"feedback": {"reward": played["reward"]}, "draws": 300, "progress": False}
    tied = pb.log_evidence(net, inputs, played["choice"], params={**known, "zeta": "alpha"}, **options)
    # The prior is uniform: the evidence is the mean likelihood over midpoints.
    alpha = ((np.arange(101) + 0.5) / 101).astype(np.float32)[:, None]
    theta = {"alpha": alpha, "zeta": alpha, **{name: np.full_like(alpha, x) for name, x in known.items()}}
    query = Query.build(net, inputs, params=theta, feedback=options["feedback"], outside="ignore")
    terms = np.asarray(density.log_prob(query, array("torch", played["choice"])), dtype=float)
    expected = scipy.special.logsumexp(terms, 0) - np.log(101)
    assert (tied.standard_error < 0.03).all()
    np.testing.assert_allclose(tied.log_evidence, expected, atol=0.1)
    apart = pb.log_evidence(net, inputs, played["choice"], params=known, **options).log_evidence
    assert np.abs(apart - expected).max() > 0.3  # two parameters in place of one are another model


def test_the_shipped_family_is_each_of_its_smaller_models():
    """Against the exact likelihoods of `ForgettingQ` and, without forgetting, of plain Q-learning."""
    net, task, rng = pb.load("q_learning", backend="torch"), pb.simulators.ForgettingQ(), np.random.default_rng(1)
    smaller = task.prior(rng, 60)
    forgotten = {name: np.asarray(x, np.float32) for name, x in smaller.items()}
    plain = forgotten | {name: np.zeros(60, np.float32) for name in ("forgetting", "perseveration")}
    plain["alpha_negative"] = plain["alpha_positive"]
    for params in (forgotten, plain):
        played = task.simulate(rng, params, {}, 100)
        exact = task.log_likelihood({name: x.astype(float) for name, x in params.items()}, played)
        known = {**params, "lapse": np.zeros(60, np.float32)}
        # Its values begin at 0.5, those of the family at 0.
        feedback, inputs = {"reward": played["reward"] - 0.5}, {"options": np.full((60, 100), 2)}
        query = Query.build(net, inputs, params=known, feedback=feedback)
        difference = exact - np.asarray(density.conditionals(query, array("torch", played["choice"])))
        assert -0.0005 < difference.mean() < 0.002


def test_models_of_one_network_are_compared_by_what_is_fixed_in_them():
    net, trials, options = learners(3)
    fixed = {"no noise": {"zeta": 0.0}, "one rate": {"zeta": "alpha"}}
    table = pb.compare({"all": net, **dict.fromkeys(fixed, net)}, *trials, fixed=fixed, params={"beta": 2.0}, **options)
    for name in ("all", *fixed):
        alone = pb.log_evidence(net, *trials, params={"beta": 2.0, **fixed.get(name, {})}, **options)
        rows = table[table["model"] == name]
        np.testing.assert_allclose(rows["log_evidence"], alone.log_evidence, rtol=1e-9)
    # Values may differ by data set.
    one, many = (
        pb.log_evidence(net, *trials, params={"beta": 2.0, "zeta": zeta}, **options).log_evidence
        for zeta in (0.4, np.array([0.4, 0.1, 0.4], np.float32))
    )
    np.testing.assert_allclose(one[[0, 2]], many[[0, 2]], rtol=1e-5)


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"other": {}}, r"fixed: expected models among \['a', 'b'\], got \['other'\]"),
        ({"a": 3}, r"fixed\['a'\]: expected a dict of names, got int"),
        ({"a": {"zeta": "beta", "beta": 1.0}}, r"params\['zeta'\]: expected numbers, or the name of a parameter"),
        ({"a": {"zeta": "zeta"}}, r"integrated over, \['alpha', 'beta'\], got 'zeta'"),
        ({"a": {"gain": "alpha"}}, r"params\['gain'\]: expected numbers, or the name"),
    ],
)
def test_what_cannot_be_fixed_is_refused_by_name(fixed, message):
    net, trials, options = learners(2)
    with pytest.raises(ValueError, match=message):
        pb.compare({"a": net, "b": net}, *trials, fixed=fixed, **options)


def test_the_autoregressive_method_knows_no_parameters_that_are_equal():
    net, trials, options = learners(2)
    with pytest.raises(ValueError, match=r"params: expected numbers for the autoregressive method"):
        pb.log_evidence(net, *trials, params={"zeta": "alpha"}, **{**options, "method": "autoregressive"})


def test_both_methods_are_the_importance_method_where_parameters_are_equal():
    net, trials, options = learners(2)
    both = {**options, "method": "both", "draws": 150}
    table = pb.compare({"a": net, "b": net}, *trials, fixed={"a": {"zeta": "alpha"}}, params={"beta": 2.0}, **both)
    assert "autoregressive" not in table and len(table) == 4
