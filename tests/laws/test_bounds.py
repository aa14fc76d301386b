"""At an open bound the density is that of the nearest legal value, beyond it -inf; nothing is ever NaN."""

import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

import jax.numpy as jnp
import torch

from ppl_buffer.findings import FindingWarning
from ppl_buffer.network.lapse_mixture import mix
from ppl_buffer.predictive import density, sampling
from tests.laws.cases import BACKENDS, close, numbers, observed, replaced, scored, uniform
from tests.networks import (
    DECISION,
    DIRECT,
    DISCRIMINATION,
    FUNCTION,
    LEARNING,
    RESPONDING,
    SLIDER,
    array,
    data,
    joint_predictive,
    network,
    rollout,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

NEXT_TO_1, LEAST = np.nextafter(np.float32(1), np.float32(0)), np.float32(1e-30)
# Parameter, values of three data sets, and the nearest legal ones; None = none is near.
ON_BOUNDS = {
    "alpha": (LEARNING, [0, 1, NEXT_TO_1], [LEAST, NEXT_TO_1, NEXT_TO_1]),
    "alpha beyond": (LEARNING, [-0.1, 1.1, np.nan], None),
    "beta": (LEARNING, [0, -0.0, 1e-35], [LEAST, LEAST, LEAST]),
    "beta beyond": (LEARNING, [-1, np.inf, np.nan], None),
    "zeta": (LEARNING, [0, 1, 0.5], [0, 1, 0.5]),
    "zeta beyond": (LEARNING, [-0.01, 1.01, np.nan], None),
    "delay": (DECISION, [0, 0, 1e-38], [LEAST, LEAST, LEAST]),
    "delay beyond": (DECISION, [-1, np.inf, np.nan], None),
    "drift beyond": (DECISION, [np.inf, -np.inf, np.nan], None),
    "alpha of a direct likelihood": (RESPONDING, [0, 1, NEXT_TO_1], [LEAST, NEXT_TO_1, NEXT_TO_1]),
    "alpha of it beyond": (RESPONDING, [-0.1, 1.1, np.nan], None),
    "delay of it": (DISCRIMINATION, [0, 0, 1e-38], [LEAST, LEAST, LEAST]),
    "drift of it beyond": (DISCRIMINATION, [np.inf, -np.inf, np.nan], None),
}


@jax.jit
def jax_gradient(distribution, value):
    def total(query):
        log_prob = density.log_prob(query, value)
        return jnp.where(jnp.isfinite(log_prob), log_prob, 0.0).sum(), log_prob

    gradient, log_prob = jax.grad(total, has_aux=True, allow_int=True)(distribution.query)
    return log_prob, gradient.params


def log_prob_and_gradient(case, backend, params):
    """Log density of the case's data, and its gradient with respect to the parameters, which nobody looks at."""
    given = data(case, context=False)
    distribution = joint_predictive(
        case, backend, given.inputs, params=params, feedback=given.feedback or None, trials=7, validate_args=False
    )
    value = array(backend, given.value)
    if backend == "jax":
        return jax.tree.map(numbers, jax_gradient(distribution, value))
    tensors = distribution.query.params
    for tensor in tensors.values():
        tensor.requires_grad_()
    log_prob = distribution.log_prob(value)
    log_prob.sum().backward()
    return numbers(log_prob), {name: numbers(tensor.grad) for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        pytest.param(name, backend, marks=[pytest.mark.slow] if backend == "jax" and case in DIRECT else [])
        for name, (case, *_) in ON_BOUNDS.items()
        for backend in BACKENDS
    ],
)
def test_parameters_on_and_beyond_their_bounds(name, backend):
    case, given, nearest = ON_BOUNDS[name]
    name = name.split()[0]
    params = data(case, context=False).params
    log_prob, gradient = log_prob_and_gradient(case, backend, params | {name: np.array(given, np.float32)})
    assert all(np.isfinite(x).all() for x in gradient.values())
    if nearest is None:
        assert (log_prob == -np.inf).all() and not any(x.any() for x in gradient.values())
        return
    expected, other = log_prob_and_gradient(case, backend, params | {name: np.array(nearest, np.float32)})
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(log_prob, expected)
    if name not in case.schema.lower_bounds.values():
        # Outcomes are compared with a lower bound, whose gradient is not 0 there.
        np.testing.assert_array_equal(gradient[name], np.where(np.array(given, np.float32) == nearest, other[name], 0))
    for untouched in set(params) - {name}:
        np.testing.assert_array_equal(gradient[untouched], other[untouched])


def test_only_what_depends_on_impossible_parameters_is_lost():
    """One of two rows of draws, one data set of three; trials that do not exist add nothing whatever is given."""
    given = data(LEARNING)
    mask = np.arange(7) < np.array([7, 0, 3])[:, None]
    alpha = np.stack([given.params["alpha"], given.params["alpha"]])
    before = scored(LEARNING, "torch", given, trial_mask=mask, params=given.params | {"alpha": alpha})
    alpha = alpha.copy()
    alpha[0, 1:] = np.nan
    after = scored(
        LEARNING, "torch", given, trial_mask=mask, params=given.params | {"alpha": alpha}, validate_args=False
    )
    value = array("torch", given.value)
    expected = numbers(before.conditionals(value))
    expected[0, 2, :3] = -np.inf
    np.testing.assert_array_equal(numbers(after.conditionals(value)), expected)
    # There is nothing to draw, and no distribution function.
    noise = uniform(after).astype(np.float32)
    drawn, feedback, _ = rollout("torch", replaced_environment(after), noise)
    for result in (drawn[..., 1], feedback["reward"], numbers(after.pit(value))[..., 0], numbers(after.mean)[..., 0]):
        np.testing.assert_array_equal(np.isnan(result), expected == -np.inf)


def replaced_environment(distribution):
    distribution.query = sampling.replace(distribution.query, environment=LEARNING.environment)
    return distribution


def test_outcomes_are_legal_or_not_in_the_networks_precision():
    """Legal in double precision, and no number of the network's: refused, or without density, never another value's."""
    given = data(SLIDER)
    value = given.value.astype(np.float64)
    value[1, 3] = 3 - 1e-9
    slider = scored(SLIDER, "torch", given, validate_args=False)
    expected = numbers(slider.conditionals(torch.tensor(given.value))).astype(float)
    expected[1, 3] = -np.inf
    np.testing.assert_allclose(numbers(slider.conditionals(torch.tensor(value)))[:, :4], expected[:, :4], rtol=1e-6)
    assert numbers(slider.log_prob(torch.tensor(value)))[1] == -np.inf
    message = r"value: expected a number in \(-2, 3\), got 2.999999999 .*single precision, where this is 3.0"
    with pytest.raises(ValueError, match=message):
        slider.net.observe({}, value)
    with pytest.raises(ValueError, match=r"value: expected a number in .*single precision, where this is 3.0"):
        scored(SLIDER, "torch", given, validate_args=True).log_prob(torch.tensor(value))
    times = data(DECISION)
    value = times.value.astype(np.float64)
    for time in (1e39, 1e-60):
        value[0, 0, 1] = time
        distribution = scored(DECISION, "torch", times, validate_args=False)
        assert numbers(distribution.conditionals(torch.tensor(value)))[0, 0] == -np.inf
        with pytest.raises(ValueError, match=r"value\['rt'\]: expected a number above 0, got 1e.*single precision"):
            observed(DECISION, "torch", replaced(times, value=value))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("large", [1e21, 3e38])
def test_values_far_beyond_all_others_are_never_nan(large, backend):
    given = data(FUNCTION, context=False)
    ordinary = numbers(scored(FUNCTION, backend, given).conditionals(array(backend, given.value)))
    value = given.value.copy()
    value[1, 2] = -large
    found = numbers(scored(FUNCTION, backend, given).conditionals(array(backend, value)))
    np.testing.assert_array_equal(found[[0, 2]], ordinary[[0, 2]])
    np.testing.assert_array_equal(found[1, :2], ordinary[1, :2])
    assert found[1, 2] == -np.inf and np.isfinite(found[1, 3:]).all()
    params = given.params | {"mu": np.array([large, -large, 0], np.float32)}
    inputs = {"x": np.where(np.arange(7) == 3, np.float32(large), given.inputs["x"])}
    far = scored(FUNCTION, backend, replaced(given, params=params, inputs=inputs), validate_args=False)
    assert np.isfinite(numbers(far.conditionals(array(backend, given.value)))).all()


def test_doubles_that_round_onto_a_bound_are_legal_parameters():
    given = data(LEARNING)
    double = np.array([1 - 1e-9, 1e-60, 0.5])
    checked = scored(LEARNING, "torch", given, params=given.params | {"alpha": double}, validate_args=True)
    nearest = scored(LEARNING, "torch", given, params=given.params | {"alpha": np.array([NEXT_TO_1, LEAST, 0.5], "f4")})
    value = array("torch", given.value)
    close(checked.log_prob(value), nearest.log_prob(value), rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_parameter_on_an_open_bound_is_told_and_goes_on(backend):
    """Where values are checked too: rounding brings a logistic function onto 0 and 1 in the middle of a run."""
    given = data(LEARNING)
    with pytest.warns(
        FindingWarning, match=r"params\['alpha'\]: expected a number in \(0, 1\), got 1\.0 \(1 of 3\)"
    ) as told:
        found = scored(
            LEARNING, backend, given, params=given.params | {"alpha": np.array([0.4, 1.0, 0.5])}, validate_args=True
        )
    finding = told[0].message.finding
    assert (finding.kind, finding.parameter, finding.share) == ("outside_box", "alpha", 1 / 3)
    assert "test_bounds.py" in told[0].filename or "networks.py" in told[0].filename
    nearest = scored(LEARNING, backend, given, params=given.params | {"alpha": np.array([0.4, NEXT_TO_1, 0.5])})
    value = array(backend, given.value)
    np.testing.assert_allclose(numbers(found.log_prob(value)), numbers(nearest.log_prob(value)), rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mixture_of_which_one_part_or_none_can_be(backend):
    """Log density by the model, as a lapse, rate; a response may be below the ceiling and outside the lapses' range."""
    ops, inf = network(DECISION, backend).ops, np.inf
    model, lapse, rate = np.array(
        [[-inf, -2, 0], [-3, -inf, 0], [-inf, -2, 0.5], [-3, -inf, 1], [-inf, -inf, 0.1], [-3, -2, 0.25]], np.float32
    ).T
    with np.errstate(divide="ignore"):
        expected = np.log((1 - rate) * np.exp(model) + rate * np.exp(lapse))
    given = [array(backend, x) for x in (model, lapse, rate)]

    def total(*arguments):
        mixed = mix(ops, *arguments)
        return ops.xp.where(mixed > -inf, mixed, 0.0).sum(), mixed

    if backend == "jax":
        (_, mixed), gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(*given)
    else:
        possible, mixed = total(*(x.requires_grad_() for x in given))
        gradients = torch.autograd.grad(possible, given)
    np.testing.assert_allclose(numbers(mixed), expected, rtol=1e-6)
    by_model, by_lapse, by_rate = map(numbers, gradients)
    np.testing.assert_array_equal(by_model > 0, (rate < 1) & (model > -inf))
    np.testing.assert_array_equal(by_lapse > 0, (rate > 0) & (lapse > -inf))
    assert np.isfinite([by_model, by_lapse, by_rate]).all()
