"""Outside the range that a network was trained on it says so."""

import warnings

import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

from tests.laws.cases import BACKENDS, numbers
from tests.networks import FUNCTION, FUNCTION_RECORD, array, data, joint_predictive, network

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(params=BACKENDS)
def trained(request):
    return request.param, network(FUNCTION, request.param, FUNCTION_RECORD)


def test_inside_the_box_nothing_is_said(trained):
    backend, net = trained
    given = data(FUNCTION, trials=11, points=13)
    params = {"mu": np.array([-2.0, 0.0, 2.0]), "sigma": np.array([0.5, 1.0, 3.0])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        joint_predictive(FUNCTION, backend, given.inputs, net, **given.arguments(params=params))


def test_parameters_outside_the_box_are_announced(trained):
    backend, net = trained
    given = data(FUNCTION)
    params = {"mu": np.array([0.0, 2.5, 0.0]), "sigma": np.ones(3)}
    arguments = given.arguments(params=params)
    with pytest.warns(UserWarning, match=r"params\['mu'\]: 33% of the values lie outside \[-2, 2\]"):
        joint_predictive(FUNCTION, backend, given.inputs, net, **arguments)
    with pytest.raises(ValueError, match=r"params\['mu'\]: 33% of the values"):
        joint_predictive(FUNCTION, backend, given.inputs, net, **arguments, outside="error")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ignored = joint_predictive(FUNCTION, backend, given.inputs, net, **arguments, outside="ignore")
        refused = joint_predictive(FUNCTION, backend, given.inputs, net, **arguments, outside="-inf")
    value = array(backend, given.value)
    known = numbers(ignored.log_prob(value))
    assert np.isfinite(known).all()
    np.testing.assert_allclose(numbers(refused.log_prob(value)), np.where([1, 0, 1], known, -np.inf), rtol=1e-5)


def test_more_than_was_trained_on_is_announced(trained):
    backend, net = trained
    long, wide = data(FUNCTION, trials=12), data(FUNCTION, points=14)
    with pytest.warns(UserWarning, match="trials: 12 trials.*at most 11"):
        joint_predictive(FUNCTION, backend, long.inputs, net, **long.arguments(params=None))
    with pytest.warns(UserWarning, match="trials: 12 trials.*at most 11"):
        net.observe(array(backend, long.inputs), array(backend, long.value))
    with pytest.warns(UserWarning, match="context: 14 points.*at most 13"):
        joint_predictive(FUNCTION, backend, wide.inputs, net, **wide.arguments(params=None))
    with pytest.warns(UserWarning, match="context: 14 points.*at most 13"):
        net.encode(array(backend, wide.context))


def test_prior_of_a_trained_network(trained):
    backend, net = trained
    prior = net.prior()
    assert net.box == FUNCTION_RECORD.box
    assert type(prior["mu"]).__name__ == "Normal" and float(prior["mu"].scale) == 0.5
    assert (float(prior["sigma"].low), float(prior["sigma"].high)) == (0.5, 3.0)
    assert type(prior["mu"]).__module__.split(".")[0] == {"jax": "numpyro", "torch": "pyro"}[backend]
