"""A lapse is mixed into each trial."""

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

import jax
import jax.numpy as jnp
import torch
from scipy import stats

import ppl_buffer as pb
from ppl_buffer.network.lapse_mixture import LapseComponent
from ppl_buffer.predictive import sampling
from ppl_buffer.schema import Discrete
from tests.laws.cases import BACKENDS, WITH_LAPSE, conditionals, numbers, replaced, scored, uniform
from tests.networks import CONTAMINATED, FUNCTION, LAPSELESS, LEARNING, SLIDER, array, data, network, rollout

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("case", WITH_LAPSE, ids=repr)
def test_lapse_is_mixed_into_each_trial(case):
    given = data(case)
    rate = np.array([0.0, 0.25, 1.0], np.float32)
    plain = conditionals(case, "torch", given).astype(float)
    lapse = np.zeros(plain.shape)
    columns = np.moveaxis(given.value, -1, 0) if case.schema.event_shape_tail else [given.value]
    for variable, column in zip(case.schema.outcomes.values(), columns, strict=True):
        if isinstance(variable, Discrete):
            lapse -= math.log(variable.n)
        else:
            low, high = variable.lapse_range
            lapse += np.where((column >= low) & (column <= high), -math.log(high - low), -np.inf)
    known = case.schema.lapse_rate
    if known:
        plain = np.log((np.exp(plain) - known * np.exp(lapse)) / (1 - known))
    total = 1 - (1 - known) * (1 - rate[:, None])
    by_hand = np.log((1 - total) * np.exp(plain) + total * np.exp(lapse))
    np.testing.assert_allclose(conditionals(case, "torch", given, lapse=rate), by_hand, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_by_lapse_is_finite_at_none(backend):
    given = data(FUNCTION)
    value = given.value.copy()
    # Out of reach of the lapse, and of the network as well.
    value[0, 0], value[1, 1] = 9.5, 60.0

    def density(lapse):
        return scored(FUNCTION, backend, given, lapse=lapse).log_prob(array(backend, value)).sum()

    if backend == "jax":
        gradient = jax.jit(jax.grad(density))(jnp.zeros(3))
    else:
        lapse = torch.zeros(3, requires_grad=True)
        density(lapse).backward()
        gradient = lapse.grad
    assert np.isfinite(numbers(gradient)).all() and (numbers(gradient) != 0).all()


RANGES = {"learning": {"rt": (0.2, 1.4)}, "function": {"y": (-0.8, 0.9)}, "contaminated": {"rt": (0.5, 1.7)},
          "lapseless": {"y": (-1.0, 2.0)}, "slider": {"position": (-1.0, 1.5)}}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "backend"),
    [
        *((case, "torch") for case in (LEARNING, FUNCTION, CONTAMINATED, LAPSELESS, SLIDER)),
        (FUNCTION, "jax"),
        pytest.param(CONTAMINATED, "jax", marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_a_range_for_the_data_at_hand_stands_in_for_the_schemas(case, backend):
    given, ranges = data(case), RANGES[case.name]
    rate = np.array([0.0, 0.25, 1.0], np.float32)
    # Without the user's lapses, but with those that the schema knows of: these keep their range.
    plain = conditionals(case, backend, given).astype(float)
    columns = np.moveaxis(given.value, -1, 0) if case.schema.event_shape_tail else [given.value]
    lapse = np.ones(plain.shape)
    for (name, variable), column in zip(case.schema.outcomes.items(), columns, strict=True):
        low, high = ranges.get(name, (0.0, 1.0))
        within = stats.uniform(low, high - low).pdf(column)
        lapse = lapse * (1 / variable.n if isinstance(variable, Discrete) else within)
    assert (lapse == 0).any() and (lapse > 0).any()
    with np.errstate(divide="ignore"):
        by_hand = np.log((1 - rate[:, None]) * np.exp(plain) + rate[:, None] * lapse)
    np.testing.assert_allclose(
        conditionals(case, backend, given, lapse=pb.Lapse(rate, ranges)), by_hand, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("case", [LEARNING, CONTAMINATED], ids=repr)
def test_draws_distribution_functions_and_moments_have_the_range_of_the_density(case):
    given, ranges = data(case, batch=1, trials=3), RANGES[case.name]
    ((name, (low, high)),) = ranges.items()
    column = list(case.schema.outcomes).index(name)
    always = scored(case, "torch", given, environment=case.environment, feedback=None, lapse=pb.Lapse(1.0, ranges))
    values, _, log_probs = rollout("torch", always, uniform(always, (400,)))
    assert stats.kstest(values[..., column].ravel(), stats.uniform(low, high - low).cdf).pvalue > 1e-3
    others = [math.log(x.n) for x in case.schema.outcomes.values() if isinstance(x, Discrete)]
    np.testing.assert_allclose(log_probs, -math.log(high - low) - sum(others), rtol=1e-5)
    if case is LEARNING:
        np.testing.assert_allclose(numbers(always.mean)[..., column], (low + high) / 2, rtol=1e-5)
        np.testing.assert_allclose(numbers(always.variance)[..., column], (high - low) ** 2 / 12, rtol=1e-4)
    lapse = pb.Lapse(0.3, ranges)
    source = scored(case, "torch", given, environment=case.environment, feedback=None, lapse=lapse)
    noise = np.random.default_rng(8).random(sampling.noise_shape(source.query, (1500,)))
    value, feedback, log_probs = rollout("torch", source, noise)
    known = scored(case, "torch", replaced(given, feedback=feedback), lapse=lapse, trials=3)
    np.testing.assert_allclose(numbers(known.conditionals(array("torch", value))), log_probs, rtol=1e-3, atol=1e-3)
    pit = numbers(known.pit(array("torch", value))).reshape(1500, -1)
    for each in pit.T:
        assert stats.kstest(each, "uniform").pvalue > 1e-4
    assert np.abs(np.corrcoef(pit.T) - np.eye(pit.shape[1])).max() < 4.5 / math.sqrt(1500)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_slowest_response_itself_may_be_a_lapse(backend):
    # In double precision as a table has it, in single precision as the network reads it.
    slowest = 7.000000123456789
    for high in (slowest, float(np.float32(slowest))):
        lapse = LapseComponent(network(LEARNING, backend), 1.0, {"rt": (0.0, high)})
        found = numbers(lapse.log_prob("rt", array(backend, np.array([slowest], np.float32))))
        np.testing.assert_allclose(found, -math.log(high), rtol=1e-6)


@pytest.mark.parametrize(
    ("lapse", "said"),
    [
        (lambda: pb.Lapse(0.1, {"choice": (0, 1)}), r"expected ranges of the continuous outcomes \['rt'\]"),
        (lambda: pb.Lapse(0.1, {"x": (0, 1)}), "got 'x'"),
        (lambda: pb.Lapse(0.1, {"rt": (-1, 1)}), "expected a range of a number above 0"),
        (lambda: pb.Lapse(0.1, {"rt": (2, 1)}), r"ranges\['rt'\]: expected low < high"),
        (lambda: pb.Lapse(0.1, {"rt": 2}), r"ranges\['rt'\]: expected a pair"),
        (lambda: pb.Lapse(0.1, (0, 1)), "ranges: expected a dict"),
        (lambda: pb.Lapse(1.5), "lapse: expected a probability"),
        (lambda: pb.Lapse("a tenth"), "lapse: expected an array of numbers"),
        (lambda: pb.Lapse(), "lapse: expected a known rate, got a prior; sample the rate"),
        (lambda: pb.Lapse(pb.Prior("Normal", {"loc": 0.1, "scale": 0.1})), r"all mass in \[0, 1\]"),
        (lambda: pb.Lapse(pb.Prior.uniform(0.0, 1.1)), r"all mass in \[0, 1\]"),
    ],
)
def test_lapses_that_cannot_be_are_refused(lapse, said):
    with pytest.raises(ValueError, match=said):
        scored(LEARNING, "torch", data(LEARNING), lapse=lapse())
