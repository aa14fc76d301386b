"""Conditioning on the first trials factorises the joint density."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

from tests.laws.cases import BACKENDS, DEPENDENT, close, conditionals, grow, replaced, scored, select, uniform
from tests.networks import HABIT, LEARNING, ORDERED, REPORT, RESPONDING, array, data, rollout

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("case", [*ORDERED, RESPONDING, HABIT], ids=repr)
@pytest.mark.parametrize("masked", [False, True])
def test_condition_factorises_an_ordered_joint_density(case, masked):
    given = data(case)
    mask = {"trial_mask": np.random.default_rng(4).random((3, 7)) < 0.6} if masked else {}
    distribution = scored(case, "torch", given, **mask)
    value = array("torch", given.value)
    full = distribution.conditionals(value)
    rest = distribution.condition(value[:, :3])
    assert tuple(rest.event_shape) == (4, *case.schema.event_shape_tail)
    close(rest.conditionals(value[:, 3:]), full[:, 3:], atol=1e-5)
    later = rest.condition(value[:, 3:5])
    close(later.conditionals(value[:, 5:]), full[:, 5:], atol=1e-5)
    close(distribution.log_prob(value), full[:, :3].sum(-1) + rest.log_prob(value[:, 3:]), atol=1e-4)


@pytest.mark.parametrize("case", [*ORDERED, RESPONDING, HABIT], ids=repr)
def test_draws_after_conditioning_continue_the_rollout(case):
    given = data(case)
    source = scored(case, "torch", given, environment=case.environment, feedback=None)
    noise = uniform(source)
    value, feedback, log_probs = rollout("torch", source, noise)
    known = scored(case, "torch", replaced(given, feedback=feedback), environment=case.environment)
    later = rollout("torch", known.condition(array("torch", value[:, :3])), noise[:, 3:])
    close(later, (value[:, 3:], {name: x[:, 3:] for name, x in feedback.items()}, log_probs[:, 3:]))


def test_condition_in_jax():
    given = data(LEARNING)
    both = []
    for backend in BACKENDS:
        value = array(backend, given.value)
        both.append(scored(LEARNING, backend, given).condition(value[:, :3]).conditionals(value[:, 3:]))
    close(*both)


@pytest.mark.parametrize("case", DEPENDENT, ids=repr)
def test_condition_of_an_exchangeable_model_joins_the_context(case):
    given = data(case)
    value = array("torch", given.value)
    rest = scored(case, "torch", given).condition(value[:, :3])
    by_hand = conditionals(case, "torch", select(case, given, [3, 4, 5, 6]), context=grow(case, given, 3))
    close(rest.conditionals(value[:, 3:]), by_hand, atol=1e-5)
    close(rest.conditionals(value[:, 3:])[:, :3], conditionals(case, "torch", given, block=3)[:, 3:6], atol=1e-5)


def test_condition_on_several_pasts_at_once():
    """A sample dimension of the past becomes a batch dimension of the future."""
    given = data(REPORT)
    distribution = scored(REPORT, "torch", given)
    pasts = array("torch", np.random.default_rng(0).integers(0, 5, (2, 3, 3)).astype(np.float32))
    rest = distribution.condition(pasts)
    assert tuple(rest.batch_shape) == (2, 3)
    future = array("torch", given.value[:, 3:])
    for s in range(2):
        close(rest.log_prob(future)[s], distribution.condition(pasts[s]).log_prob(future), atol=1e-5)
