"""The trained box: maps from and to the real line, upper bounds that observed outcomes set, bounded priors."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from ppl_buffer.prior import Prior
from ppl_buffer.schema import Interval, Positive, Schema
from tests.networks import FLAT, Case, Record, array, network

RACE = Case(
    "race",
    Schema(
        params={"delay": Positive(), "low": Interval(0, 1), "high": Positive(), "weight": Positive()},
        outcomes={"rt": Positive(above="delay")},
        independent=True,
    ),
    config=FLAT,
)
HALF_NORMAL = Prior("HalfNormal", {"scale": 0.4})
PRIORS = {
    "delay": Prior.uniform(0.1, 2.0),
    "low": Prior.uniform(0.0, 1.0),
    "high": Prior("TruncatedNormal", {"loc": 0.5, "scale": 0.4, "low": 0.25, "high": 2.0}, relative_to="low"),
    "weight": None,
}
BOX = {"delay": (0.1, 2.0), "low": (0.0, 1.0), "high": (0.25, 3.0), "weight": (0.5, 4.0)}
RT = np.array([[0.9, 0.4, 0.31], [3.0, 2.5, 0.6], [0.2, 0.6, 0.7]], np.float32)
MASK = np.array([[True, True, True], [True, True, False], [False, True, True]])


pytestmark = pytest.mark.usefixtures("quick_compilation")


def record(delay=PRIORS["delay"], box=BOX):
    return Record(box=box, priors={**PRIORS, "delay": delay}, trials=5, context=0, simulator="race")


RECORD, UNBOUNDED = record(), record(Prior("LogNormal", {"loc": -1.0, "scale": 0.5}))
HALF = record(HALF_NORMAL, {**BOX, "delay": (0.0, 1.5)})


@pytest.fixture(params=["torch", "jax"])
def backend(request):
    pytest.importorskip("pyro" if request.param == "torch" else "numpyro")
    return request.param


@pytest.fixture
def net(backend):
    return network(RACE, backend, RECORD)


def observe(net, rt=RT, mask=MASK):
    return net.observe({}, array(net.backend, rt), trial_mask=array(net.backend, mask))


def numbers(x):
    return np.asarray(x, dtype=float)


def test_into_box_is_logistic_and_keeps_off_the_bounds(net):
    x = np.array([-200.0, -3.0, 0.0, 1.5, 200.0], np.float32)
    share = 1e-4 + (1 - 2e-4) * expit(x.astype(float))
    value = numbers(net.into_box("weight", array(net.backend, x)))
    np.testing.assert_allclose(value, 0.5 + 3.5 * share, rtol=1e-6)
    assert (value > 0.5).all() and (value < 4.0).all()


def test_into_box_is_differentiable(net):
    at = 0.7
    share = expit(at)
    if net.backend == "jax":
        import jax

        slope = jax.grad(lambda x: net.into_box("weight", x))(at)
    else:
        import torch

        x = torch.tensor(at, requires_grad=True)
        net.into_box("weight", x).backward()
        slope = x.grad
    np.testing.assert_allclose(numbers(slope), 3.5 * (1 - 2e-4) * share * (1 - share), rtol=1e-5)


def test_a_relative_parameter_counts_from_the_other(net):
    x, low = np.array([-1.0, 0.4], np.float32), np.array([0.2, 0.9], np.float32)
    value = net.into_box("high", array(net.backend, x), {"low": array(net.backend, low)})
    np.testing.assert_allclose(numbers(value), low + 0.25 + 1.75 * (1e-4 + (1 - 2e-4) * expit(x)), rtol=1e-5)
    with pytest.raises(ValueError, match=r"params: expected the value of 'low', from which 'high' counts"):
        net.into_box("high", array(net.backend, x))


def test_fastest_responses_are_upper_bounds(net):
    seen, x = observe(net), np.array([0.3, -3.0, 60.0], np.float32)
    np.testing.assert_array_equal(numbers(net.upper_bounds(seen)["delay"]), RT[[0, 1, 2], [2, 1, 1]])
    # The smooth minimum of what a number means without a bound and the bound; the second one lies beyond the range.
    free, room = 1.9 * (1e-4 + (1 - 2e-4) * expit(x.astype(float))), 0.9999 * (np.array([0.31, 9.0, 0.6]) - 0.1)
    expected = 0.1 + np.where(room > 1.9, free, (free**-8.0 + room**-8.0 - 1.9**-8.0) ** (-1 / 8))
    assert (expected < [0.31, 2.0, 0.6]).all()
    for below in (seen, array(net.backend, np.array([RT[0, 2], 9.0, RT[2, 1]], np.float32))):
        value = numbers(net.into_box("delay", array(net.backend, x), below=below))
        np.testing.assert_allclose(value, expected, rtol=3e-6)
        assert (value < [0.31, 2.0, 0.6]).all()
    # No outcome has to exceed the others.
    plain = numbers(net.into_box("low", array(net.backend, x)))
    np.testing.assert_array_equal(numbers(net.into_box("low", array(net.backend, x), below=seen)), plain)


def test_responses_that_may_be_lapses_bound_nothing(net):
    outcomes = {name: replace(x, lapse_range=(0.0, 5.0)) for name, x in RACE.schema.outcomes.items()}
    case = replace(RACE, name="lapsing race", schema=replace(RACE.schema, outcomes=outcomes, lapse_rate=0.05))
    lapsing = network(case, net.backend, RECORD)
    x = array(net.backend, np.zeros(3, np.float32))
    seen = observe(lapsing)
    assert lapsing.upper_bounds(seen) == {}
    np.testing.assert_allclose(numbers(lapsing.into_box("delay", x, below=seen)), (0.1 + 2.0) / 2, rtol=1e-6)


def test_from_box_is_the_inverse(net):
    x = np.array([-9.0, -2.3, 8.0], np.float32)
    seen, low = observe(net), array(net.backend, np.array([0.1, 0.5, 0.8], np.float32))
    for name, below in (("delay", seen), ("delay", None), ("high", None), ("weight", None)):
        value = net.into_box(name, array(net.backend, x), {"low": low}, below=below)
        back = net.from_box(name, value, {"low": low}, below=below)
        # So far above the bound that the last one has, no number is told from another.
        expected = x if below is None else x[:2]
        np.testing.assert_allclose(numbers(back)[: len(expected)], expected, atol=0.02, err_msg=name)
        assert numbers(back)[2] > 1.0
    # A bound itself, which training covered: the nearest that is reached.
    ends = numbers(net.from_box("weight", array(net.backend, np.array([0.5, 4.0], np.float32))))
    assert np.isfinite(ends).all() and (np.abs(ends) > 13).all()


def test_the_least_of_several_outcomes_bounds_a_parameter_and_lapses_bound_none():
    pytest.importorskip("torch")
    twice = {name: Positive(above="delay", lapse_range=(0, 9)) for name in ("first", "second")}
    value = np.array([[[0.9, 0.5], [0.3, 0.8]], [[0.9, 0.5], [0.6, 0.8]]], np.float32)
    for lapse_rate, expected in ((0.0, {"delay": [0.3, 0.5]}), (0.01, {})):
        schema = Schema(params={"delay": Positive()}, outcomes=twice, lapse_rate=lapse_rate)
        net = network(Case(f"twice {lapse_rate}", schema, config=FLAT), "torch", RECORD)
        found = net.upper_bounds(net.observe({}, array("torch", value)))
        assert {name: numbers(x).round(6).tolist() for name, x in found.items()} == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: net.into_box("speed", 0.0), r"name: expected one of \['delay', 'low', 'high', 'weight'\]"),
        (lambda net: net.into_box("low", "x"), "x: expected an array of numbers, got str"),
        (lambda net: net.into_box("low", 0.0, {"speed": 1.0}), r"params: expected any of .* \(unknown \['speed'\]\)"),
        (lambda net: net.into_box("delay", 0.0, below=np.array([0.4, 0.05])), r"below: expected bounds above 0\.1, the "
         r"least delay .* got 0\.05.* \(1 of 2, data set 1\)"),
        (lambda net: net.into_box("weight", 0.0, below=0.5), r"below: expected bounds above 0\.5, .* 0\.5 \(1 of 1\)"),
        (lambda net: net.prior({}), r"seen: expected what net\.observe\(\.\.\.\) returns, got dict"),
        (lambda net: net.from_box("weight", 0.4), r"value: expected weight inside its trained range .* got 0\.4"),
        (lambda net: net.from_box("weight", 4.1), r"value: expected weight inside its trained range \(0\.5 to 4\)"),
        (lambda net: net.from_box("high", 3.1, {"low": 1.0}), r"trained range \(0\.25 to 2 above low\), got 3\.1"),
        (lambda net: net.prior(observe(net, 0.3 * RT)), r"below: expected bounds above 0\.1.*data set 0\)"),
        (lambda net: network(RACE, net.backend).into_box("low", 0.0), "net: expected a trained network"),
        (lambda net: network(RACE, net.backend, UNBOUNDED).prior(observe(net)), "seen: expected None: delay has to "
         "stay below the observed outcomes, but its prior is LogNormal, which has no form with an upper bound; use"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(net, call, message):
    with pytest.raises(ValueError, match=message):
        call(net)


def log_densities(net, prior, value):
    if net.backend == "jax":
        import jax

        return numbers(jax.jit(prior.log_prob)(value))
    return numbers(prior.log_prob(array(net.backend, value)))


@pytest.mark.parametrize("told", [RECORD, HALF], ids=["Uniform", "HalfNormal"])
def test_a_prior_ends_at_the_fastest_response(backend, told):
    net = network(RACE, backend, told)
    seen = observe(net)
    whole, bounded = net.prior(), net.prior(seen)
    assert whole["delay"].batch_shape == () and tuple(bounded["delay"].batch_shape) == (3,)
    low, high = told.box["delay"]
    value, bounds = np.array([0.3, 1.2, 0.55], np.float32), np.array([RT[0, 2], min(2.5, high), RT[2, 1]], dtype=float)
    exact = stats.uniform(low, high - low) if told is RECORD else stats.halfnorm(scale=0.4)
    # What remains of the training prior: its density over its probability below the bound.
    np.testing.assert_allclose(
        log_densities(net, bounded["delay"], value), exact.logpdf(value) - np.log(exact.cdf(bounds)), rtol=1e-5
    )
    support = bounded["delay"].support
    np.testing.assert_allclose(numbers(support.upper_bound), bounds, rtol=1e-6)
    for name in ("low", "weight"):
        one = np.array(0.8, np.float32)
        assert log_densities(net, bounded[name], one) == log_densities(net, whole[name], one)
