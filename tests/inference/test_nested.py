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
