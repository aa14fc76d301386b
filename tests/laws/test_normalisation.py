"""Densities integrate to one, and means and variances are their integrals."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

import jax
import jax.numpy as jnp
import torch

from ppl_buffer.network.embeddings import features
from ppl_buffer.schema import Discrete, Interval, Positive
from tests.laws.cases import BACKENDS, EVERY, first_told, numbers, scored
from tests.networks import CONTAMINATED, DECISION, DIRECT, LEARNING, REPORT, SLIDER, array, data, network

pytestmark = pytest.mark.usefixtures("quick_compilation")


def grid(variable, points=1201):
    """Places (n,) on the user's scale, and weights of a sum or of the trapezoidal rule over all legal values."""
    if isinstance(variable, Discrete):
        return variable.low + np.arange(variable.n, dtype=float), np.ones(variable.n)
    even = np.linspace(-1, 1, points)
    if isinstance(variable, Positive):
        places = np.exp(14 * even)
    elif isinstance(variable, Interval):
        places = variable.low + (variable.high - variable.low) / (1 + np.exp(-14 * even))
    else:
        places = np.sinh(5 * even)
    if variable.lapse_range is not None:
        # The edges of the lapse density are jumps: the rule needs a point on each side.
        edges = np.array(
            [variable.lapse_range[0], np.nextafter(np.float32(variable.lapse_range[1]), np.float32(np.inf))]
        )
        inside = np.array(
            [np.nextafter(np.float32(variable.lapse_range[0]), np.float32(-np.inf)), variable.lapse_range[1]]
        )
        both = np.concatenate([edges, inside])
        places = np.union1d(places, both[variable.contains(np, both)])
    weights = np.zeros_like(places)
    weights[:-1] += np.diff(places) / 2
    weights[1:] += np.diff(places) / 2
    return places, weights


def outcome_grid(schema):
    """Values (S, n_outcomes) of one trial, and weights (S,)."""
    places, weights = zip(*(grid(variable) for variable in schema.outcomes.values()), strict=True)
    values = np.stack([x.ravel() for x in np.meshgrid(*places, indexing="ij")], -1)
    return values, np.prod([x.ravel() for x in np.meshgrid(*weights, indexing="ij")], 0)


def on_grid(case, given, trial):
    """Values (S, 1, K, ...) in which one trial's outcomes run over the grid, and the weights."""
    values, weights = outcome_grid(case.schema)
    value = np.repeat(given.value[None], len(values), 0).astype(np.float32)
    if case.schema.event_shape_tail:
        value[:, :, trial] = values[:, None]
    else:
        value[:, :, trial] = values
    return value, weights


def integral(log_density, weights):
    return (np.exp(log_density.astype(float)) * weights[:, None]).sum(0)


@pytest.mark.parametrize("lapse", [None, 0.3])
@pytest.mark.parametrize("case", EVERY, ids=repr)
def test_unit_integral(case, lapse):
    if lapse and not case.has_lapse:
        pytest.skip("no lapse density")
    given = data(case, batch=1, trials=3)
    value, weights = on_grid(case, given, 1)
    value = array("torch", value)
    for conditioned in ({},) if case in DIRECT else (first_told(given), {}):
        distribution = scored(case, "torch", given, lapse=lapse, **conditioned)
        assert integral(numbers(distribution.conditionals(value))[..., 1], weights) == pytest.approx(1, abs=2e-3)
        assert integral(numbers(distribution.marginals(value))[..., 1], weights) == pytest.approx(1, abs=2e-3)
        if not case.schema.ordered:
            left_out = distribution.leave_one_out(value)
            assert integral(numbers(left_out)[..., 1], weights) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("case", [REPORT, DECISION, SLIDER], ids=repr)
def test_unit_integral_in_jax(case):
    given = data(case, batch=1, trials=3)
    value, weights = on_grid(case, given, 1)
    found = scored(case, "jax", given).conditionals(array("jax", value))
    assert integral(numbers(found)[..., 1], weights) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("case", [case for case in EVERY if case is not CONTAMINATED], ids=repr)
@pytest.mark.parametrize("lapse", [None, 0.3])
def test_mean_and_variance_are_the_integrals_over_the_marginals(case, lapse):
    if lapse and not case.has_lapse:
        pytest.skip("no lapse density")
    given = data(case, batch=1, trials=3)
    value, weights = on_grid(case, given, 1)
    distribution = scored(case, "torch", given, lapse=lapse)
    density = np.exp(numbers(distribution.marginals(array("torch", value)))[..., 1].astype(float))[:, 0] * weights
    columns, _ = outcome_grid(case.schema)
    for index, name in enumerate(case.schema.outcomes):
        mean, variance = (numbers(x)[0, 1, ...].reshape(-1)[index] for x in (distribution.mean, distribution.variance))
        first = (columns[:, index] * density).sum()
        assert mean == pytest.approx(first, rel=5e-3, abs=5e-3), name
        assert variance == pytest.approx(((columns[:, index] - first) ** 2 * density).sum(), rel=2e-2, abs=5e-3), name


def by_delay(backend, given, value):
    """Conditionals with a lapse, and the gradient of their sum by each data set's delay."""

    def compute(delay):
        params = {**{name: array(backend, x) for name, x in given.params.items()}, "delay": delay}
        return scored(DECISION, backend, given, params=params, lapse=0.25).conditionals(array(backend, value))

    if backend == "jax":
        delay = jnp.asarray(given.params["delay"])
        return compute(delay), jax.grad(lambda delay: compute(delay).sum())(delay)
    delay = torch.tensor(given.params["delay"], requires_grad=True)
    found = compute(delay)
    return numbers(found), torch.autograd.grad(found.sum(), delay)[0].numpy()


@pytest.mark.parametrize("backend", BACKENDS)
def test_fine_scales_stand_behind_the_others_the_coarsest_first(backend):
    net = network(LEARNING, backend)
    columns = {"pair": [2.0, 0.0, 1.0], "delay": [0.3, -1.7, 0.101], "reward": [0.0, 2.0, -1e-3]}
    x = {name: np.array(values) for name, values in columns.items()}
    variables = {**LEARNING.schema.inputs, **LEARNING.schema.feedback}
    found = features(net, variables, {name: array(backend, values) for name, values in x.items()})
    z = [(x[name] - net.standardization[name][0]) / net.standardization[name][1] for name in ("delay", "reward")]
    fine = [np.arcsinh(scale * each) / np.arcsinh(scale) for scale in (10, 100) for each in z]
    expected = np.stack([*np.eye(3)[[2, 0, 1]].T, *z, *fine], -1)
    np.testing.assert_allclose(np.concatenate([numbers(each) for each in found], -1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_an_outcome_below_a_told_bound_has_density_zero_and_finite_gradients(backend):
    given = data(DECISION, trials=5)
    value = given.value.copy()
    value[0, 2, 1] = 0.7 * given.params["delay"][0]
    distribution = scored(DECISION, backend, given)
    found = numbers(distribution.conditionals(array(backend, value)))
    assert np.isneginf(found[0, 2]) and np.isfinite(np.delete(found.ravel(), 2)).all()
    assert numbers(distribution.pit(array(backend, value)))[0, 2, 1] == 0
    # A lapse may fall there; what is below the bound then adds nothing to the bound's gradient.
    with_lapse, gradient = by_delay(backend, given, value)
    assert with_lapse[0, 2] == pytest.approx(np.log(0.25 / 2 / 10), rel=1e-5)
    elsewhere = by_delay(backend, given, given.value)[1]
    assert np.isfinite(gradient).all() and gradient[1] == pytest.approx(elsewhere[1]) and gradient[0] != elsewhere[0]
    hidden = {name: x for name, x in given.params.items() if name != "delay"}
    marginal = scored(DECISION, backend, given, params=hidden)
    assert np.isfinite(numbers(marginal.conditionals(array(backend, value)))).all()


def test_mean_of_an_outcome_after_a_continuous_one_is_refused():
    given = data(CONTAMINATED)
    with pytest.raises(NotImplementedError, match="'button': it follows a continuous outcome"):
        _ = scored(CONTAMINATED, "torch", given).mean
