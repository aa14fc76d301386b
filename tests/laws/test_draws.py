"""One pass gives the density of a rollout, draws from one context are independent, and PIT values are uniform."""

import math

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

import jax
import torch

from ppl_buffer.predictive import density, sampling
from ppl_buffer.schema import Categorical
from tests.laws.cases import EVERY, HOLES, close, conditionals, numbers, replaced, scored, told, uniform
from tests.networks import CONTAMINATED, LEARNING, array, data, rollout

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROLLOUTS = {
    "plain": {},
    "mask": {"trial_mask": np.broadcast_to(HOLES, (3, 7))},
    "lapse": {"lapse": np.array([0.1, 0.5, 0.9], dtype=np.float32)},
    "block of 1": {"block": 1},
    "block of 3": {"block": 3},
    "orders": {"orders": 5},
}


@pytest.mark.parametrize("variant", ROLLOUTS)
@pytest.mark.parametrize("case", EVERY, ids=repr)
def test_one_pass_equals_rollout(case, variant):
    options = ROLLOUTS[variant]
    if (variant == "lapse" and not case.has_lapse) or (case.schema.ordered and {"block", "orders"} & set(options)):
        pytest.skip("not for this schema")
    check_one_pass(case, "torch", options)


@pytest.mark.slow
@pytest.mark.parametrize("case", [LEARNING, CONTAMINATED], ids=repr)
def test_one_pass_equals_rollout_in_jax(case):
    check_one_pass(case, "jax", {**ROLLOUTS["mask"], **ROLLOUTS["lapse"]})


def check_one_pass(case, backend, options):
    given = data(case)
    source = scored(case, backend, given, environment=case.environment, feedback=None, **told(case, given), **options)
    value, feedback, log_probs = rollout(backend, source, uniform(source, (2,)))
    assert value.shape == (2, 3, 7, *case.schema.event_shape_tail)
    assert set(feedback) == set(case.schema.feedback)
    drawn = replaced(given, value=value, feedback=feedback)
    if "orders" in options:
        # Each draw follows one of the orders: which one is read off the first number of the last row of noise.
        noise = uniform(source, (2,))
        orders = np.array(source.query.orders)[np.floor(noise[..., -1, 0] * 5).astype(int)]
        flat = [(s, b) for s in range(2) for b in range(3)]
        for s, b in flat:
            order = orders[s, b]
            one = replaced(
                given,
                inputs={name: x[b, order] for name, x in given.inputs.items()},
                feedback={name: x[s, b, order] for name, x in feedback.items()},
                value=value[s, b, order],
                params={name: x[b] for name, x in given.params.items()},
                context={name: x[b] for name, x in given.context.items()},
            )
            again = scored(case, backend, one, trials=7, **told(case, one)).conditionals(array(backend, one.value))
            np.testing.assert_allclose(numbers(again), log_probs[s, b, order], rtol=1e-4, atol=1e-4)
        return
    again = conditionals(case, backend, drawn, trials=7, **told(case, given), **options)
    np.testing.assert_allclose(again, log_probs, rtol=1e-4, atol=1e-4)
    if "trial_mask" in options:
        assert (log_probs[..., ~HOLES] == 0).all()


@pytest.mark.parametrize("case", EVERY, ids=repr)
def test_draws_from_one_context_equal_independent_ones(case):
    given = data(case)
    source = scored(case, "torch", given, environment=case.environment)
    noise = uniform(source, (4,))
    together = rollout("torch", source, noise)
    for s in range(4):
        close(jax.tree.map(lambda x, s=s: x[s], together), rollout("torch", source, noise[s]), atol=1e-5)
    for b in range(3):
        one = replaced(given, **{
            key: None if group is None else {name: x[b] for name, x in group.items()}
            for key, group in vars(given).items() if key != "value"
        })  # fmt: skip
        alone = scored(case, "torch", one, trials=7, environment=case.environment)
        close(jax.tree.map(lambda x, b=b: x[:, b], together), rollout("torch", alone, noise[:, b]), atol=1e-5)


@pytest.mark.parametrize("case", EVERY, ids=repr)
@pytest.mark.parametrize("lapse", [None, 0.3])
def test_pit_of_draws_is_uniform(case, lapse):
    if lapse and not case.has_lapse:
        pytest.skip("no lapse density")
    given = data(case, batch=1, trials=5)
    source = scored(case, "torch", given, environment=case.environment, feedback=None, lapse=lapse)
    value, feedback, _ = rollout(
        "torch", source, np.random.default_rng(8).random(sampling.noise_shape(source.query, (1500,)))
    )
    known = scored(case, "torch", replaced(given, feedback=feedback), lapse=lapse, trials=5)
    pit = numbers(known.pit(array("torch", value)))
    assert pit.shape == (1500, 1, 5, *case.schema.event_shape_tail)
    columns = pit.reshape(1500, -1)
    for column in columns.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    # Transforms of a joint distribution that is right are independent as well.
    correlation = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlation).max() < 4.5 / math.sqrt(1500)


@pytest.mark.parametrize("case", EVERY, ids=repr)
def test_pit_brackets_the_noise_that_drew_a_category(case):
    first, variable = next(iter(case.schema.outcomes.items()))
    if not isinstance(variable, Categorical):
        pytest.skip("the first outcome is continuous")
    given = data(case)
    source = scored(case, "torch", given, environment=case.environment, feedback=None)
    noise = uniform(source, (11,))
    value, feedback, _ = rollout("torch", source, noise)
    known = scored(case, "torch", replaced(given, feedback=feedback), trials=7)
    shape = (*noise.shape[:-1], len(case.schema.outcomes))
    low, high = (
        numbers(density.cdf_values(known.query, array("torch", value), place))
        for place in (torch.zeros(shape), torch.ones(shape))
    )
    if case.schema.event_shape_tail:
        low, high = low[..., 0], high[..., 0]
    assert (low <= noise[..., 0] + 1e-5).all() and (noise[..., 0] <= high + 1e-5).all()
    assert (high - low > 0).all() and (high - low < 1).all()
