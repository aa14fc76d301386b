"""A joint predictive as a latent site: the transform against derivatives, and what a sampler would see."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyro")

import pyro
import torch
from pyro.infer.mcmc.util import initialize_model
from torch.distributions import biject_to, transform_to

from ppl_buffer.pyro import OutcomeTransform, TrialSupport
from ppl_buffer.schema import Interval, Positive, Real, Schema
from tests.networks import FUNCTION, LEARNING, data, joint_predictive

BOUNDED = Schema(outcomes={"a": Positive(), "b": Interval(-1, 4), "c": Real()})
ONE = Schema(outcomes={"a": Interval(2, 3)})


def make(case, given, **more):
    return joint_predictive(case, "torch", given.inputs, **given.arguments(**more))


@pytest.mark.parametrize(("schema", "tail"), [(BOUNDED, (3,)), (ONE, ())])
def test_the_transform_leads_to_legal_outcomes_and_back(schema, tail):
    transform = biject_to(TrialSupport(schema))
    x = torch.tensor(np.random.default_rng(0).normal(size=(2, 5, *tail)), dtype=torch.float32)
    y = transform(x)
    assert transform.codomain.check(y).all() and isinstance(transform, OutcomeTransform)
    torch.testing.assert_close(transform.inv(y), x, atol=1e-5, rtol=1e-4)
    jacobians = [torch.autograd.functional.jacobian(transform, row) for row in x]
    expected = torch.stack([one.reshape(row.numel(), -1).slogdet()[1] for one, row in zip(jacobians, x, strict=True)])
    torch.testing.assert_close(transform.log_abs_det_jacobian(x, y), expected, rtol=1e-4, atol=1e-4)
    assert transform == transform and transform != transform_to(TrialSupport(schema))


def test_a_sampler_sees_the_joint_density():
    given = data(FUNCTION, batch=1)
    _, energy, transforms, _ = initialize_model(lambda: pyro.sample("y", make(FUNCTION, given).to_event(1)))
    assert isinstance(transforms["y"].inv.base_transform, OutcomeTransform)
    value = torch.as_tensor(given.value).requires_grad_()
    seen = energy({"y": value})
    torch.testing.assert_close(seen, -make(FUNCTION, given).log_prob(value).sum())
    (slope,) = torch.autograd.grad(seen, value)
    assert (slope != 0).all()


def test_what_cannot_be_latent_is_refused():
    with pytest.raises(ValueError, match=r"outcomes: expected continuous ones .* got \['choice'\]"):
        biject_to(make(LEARNING, data(LEARNING)).support)
    with pytest.raises(ValueError, match="trial_mask: expected None"):
        biject_to(make(FUNCTION, data(FUNCTION), trial_mask=np.ones((3, 7), bool)).support)
