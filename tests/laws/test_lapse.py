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

from ppl_buffer.schema import Categorical
from tests.laws.cases import BACKENDS, WITH_LAPSE, conditionals, numbers, scored
from tests.networks import FUNCTION, array, data

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("case", WITH_LAPSE, ids=repr)
def test_lapse_is_mixed_into_each_trial(case):
    given = data(case)
    rate = np.array([0.0, 0.25, 1.0], np.float32)
    plain = conditionals(case, "torch", given).astype(float)
    lapse = np.zeros(plain.shape)
    columns = np.moveaxis(given.value, -1, 0) if case.schema.event_shape_tail else [given.value]
    for variable, column in zip(case.schema.outcomes.values(), columns, strict=True):
        if isinstance(variable, Categorical):
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
