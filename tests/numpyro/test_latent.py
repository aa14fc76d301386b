"""A joint predictive as a latent site: the transform against derivatives, and what a sampler would see."""

import numpy as np
import pytest

pytest.importorskip("jax", reason="NumPyro runs on JAX")
pytest.importorskip("numpyro", reason="tests of the NumPyro distribution")

import jax
import jax.numpy as jnp
import numpyro
from numpyro.distributions.transforms import biject_to
from numpyro.infer.util import potential_energy

from ppl_buffer.numpyro import OutcomeTransform, TrialSupport
from ppl_buffer.schema import Interval, Positive, Real, Schema
from tests.networks import FUNCTION, LEARNING, data
from tests.numpyro.cases import make

pytestmark = pytest.mark.usefixtures("quick_compilation")
BOUNDED = Schema(outcomes={"a": Positive(), "b": Interval(-1, 4), "c": Real()})
ONE = Schema(outcomes={"a": Interval(2, 3)})


@pytest.mark.parametrize(("schema", "tail"), [(BOUNDED, (3,)), (ONE, ())])
def test_the_transform_leads_to_legal_outcomes_and_back(schema, tail):
    transform = biject_to(TrialSupport(schema, 5))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, *tail)), jnp.float32)
    y = transform(x)
    assert transform.codomain(y).all() and isinstance(transform, OutcomeTransform)
    np.testing.assert_allclose(transform.inv(y), x, atol=1e-5)
    flat = jax.jacobian(lambda u: transform(u.reshape(x.shape[1:])).ravel())
    expected = [jnp.linalg.slogdet(flat(row.ravel()))[1] for row in x]
    np.testing.assert_allclose(transform.log_abs_det_jacobian(x, y), expected, rtol=1e-4)
    assert jax.tree_util.tree_map(lambda leaf: leaf, transform) == transform


def test_a_sampler_sees_the_joint_density():
    given = data(FUNCTION, batch=1)

    def model():
        numpyro.sample("y", make(FUNCTION, given).to_event(1))

    numbers = {"y": jnp.asarray(given.value)}
    energy = potential_energy(model, (), {}, numbers)
    np.testing.assert_allclose(energy, -make(FUNCTION, given).log_prob(given.value).sum(), rtol=1e-5)


def test_what_cannot_be_latent_is_refused():
    given = data(LEARNING)
    with pytest.raises(ValueError, match=r"outcomes: expected continuous ones .* got \['choice'\]"):
        biject_to(make(LEARNING, given).support)
    with pytest.raises(ValueError, match="trial_mask: expected None"):
        biject_to(make(FUNCTION, data(FUNCTION), trial_mask=np.ones((3, 7), bool)).support)
