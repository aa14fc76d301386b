"""JAX's transformations, derivatives and number types."""

import numpy as np
import pytest

pytest.importorskip("jax", reason="NumPyro runs on JAX")
pytest.importorskip("numpyro", reason="tests of the NumPyro distribution")

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from numpyro.distributions.batch_util import promote_batch_shape, vmap_over
from numpyro.infer.util import log_density

from ppl_buffer.numpyro import JointPredictive
from ppl_buffer.numpyro.distribution import _compiled
from tests.networks import FUNCTION, REPORT, array, data, network
from tests.numpyro.cases import make
from tests.precision import double_precision

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_jit_of_construction_and_of_the_distribution(reports):
    given, value, known = reports
    inside = jax.jit(lambda params, value: make(REPORT, given, params=params).log_prob(value))
    np.testing.assert_allclose(inside(array("jax", given.params), value), known, rtol=1e-5)
    distribution = make(REPORT, given)
    handed = jax.jit(lambda d, v: (d, d.log_prob(v)))(distribution, value)
    assert isinstance(handed[0], JointPredictive) and handed[0].net is distribution.net
    np.testing.assert_allclose(handed[1], known, rtol=1e-5)
    np.testing.assert_allclose(handed[0].log_prob(value), known, rtol=1e-5)


def test_vmap_over_parameters(reports):
    given, value, known = reports
    mapped = jax.jit(jax.vmap(lambda mu, cue, value: JointPredictive(
        network(REPORT, "jax"), {"cue": cue}, params={"mu": mu}).log_prob(value)))  # fmt: skip
    found = mapped(jnp.asarray(given.params["mu"]), jnp.asarray(given.inputs["cue"]), value)
    np.testing.assert_allclose(found, known, rtol=1e-5)


def test_distribution_made_inside_vmap(reports):
    given, value, known = reports

    def build(mu, cue):
        return JointPredictive(network(REPORT, "jax"), {"cue": cue}, params={"mu": mu})

    made = jax.vmap(build)(jnp.asarray(given.params["mu"]), jnp.asarray(given.inputs["cue"]))
    assert made.batch_shape == ()
    promoted = promote_batch_shape(made)
    assert (promoted.batch_shape, promoted.event_shape) == ((3,), (7,))
    assert made.batch_shape == ()
    np.testing.assert_allclose(promoted.log_prob(value), known, rtol=1e-5)
    found = jax.vmap(lambda d, v: d.log_prob(v))(made, value)
    np.testing.assert_allclose(found, known, rtol=1e-5)
    # The query is all of a distribution's data.
    axes = vmap_over(made, query=0)
    found = jax.vmap(lambda d, v: d.log_prob(v), in_axes=(axes, 0))(made, value)
    np.testing.assert_allclose(found, known, rtol=1e-5)


def test_lax_map_and_scan_carry(reports):
    given, value, known = reports
    distribution = make(REPORT, given)

    def run(distribution, params):
        def body(carry, mu):
            return carry, carry.log_prob(value).sum() + mu

        _, scanned = jax.lax.scan(body, distribution, params)
        mapped = jax.lax.map(lambda mu: make(REPORT, given, params={"mu": mu}).log_prob(value), params[:, None])
        return scanned, mapped

    shifts = jnp.array([0.0, 1.0])
    scanned, mapped = jax.jit(run)(distribution, shifts)
    np.testing.assert_allclose(scanned, known.sum() + shifts, rtol=1e-5)
    for shift, found in zip(shifts, mapped, strict=True):
        by_hand = make(REPORT, given, params={"mu": np.full(3, shift, np.float32)}).log_prob(value)
        np.testing.assert_allclose(found, by_hand, rtol=1e-5)


def test_contrib_scan_over_blocks(reports):
    """Blocks of trials in a scan of NumPyro, with a parameter that drifts from block to block."""
    given, value, _ = reports
    net = network(REPORT, "jax")
    cues, values = jnp.asarray(given.inputs["cue"]), value

    def model():
        def step(mu, block):
            cue, observed = block
            mu = numpyro.sample("mu", dist.Normal(mu, 1.0))
            numpyro.sample("y", JointPredictive(net, {"cue": cue}, params={"mu": mu}), obs=observed)
            return mu, mu

        scan(step, jnp.zeros(()), (cues, values))

    drift = jnp.array([0.3, -0.4, 0.9])
    found = jax.jit(lambda drift: log_density(model, (), {}, {"mu": drift})[0])(drift)
    steps = dist.Normal(jnp.array([0.0, 0.3, -0.4]), 1.0).log_prob(drift).sum()
    by_hand = make(REPORT, given, params={"mu": np.asarray(drift)}).log_prob(value).sum()
    np.testing.assert_allclose(found, steps + by_hand, rtol=1e-5)


def test_gradient_by_parameters_against_finite_differences():
    given = data(FUNCTION, batch=1, context=False)
    value = jnp.asarray(given.value)
    density = jax.jit(lambda params: make(FUNCTION, given, params=params).log_prob(value).sum())
    gradient = jax.jit(jax.grad(lambda params: make(FUNCTION, given, params=params).log_prob(value).sum()))
    params = array("jax", given.params)
    step = 1e-2
    for name, found in gradient(params).items():
        up, down = (float(density({**params, name: params[name] + sign * step})) for sign in (1, -1))
        assert float(found[0]) == pytest.approx((up - down) / (2 * step), rel=0.02, abs=5e-3), name


def test_double_precision_arguments_keep_their_type(reports):
    given, value, known = reports
    with double_precision():
        mu = jnp.asarray(given.params["mu"], jnp.float64)
        density = jax.jit(lambda mu: make(REPORT, given, params={"mu": mu}).log_prob(value))
        found = density(mu)
        gradient = jax.jit(jax.grad(lambda mu: density(mu).sum()))(mu)
        assert found.dtype == gradient.dtype == jnp.float64
        np.testing.assert_allclose(found, known, rtol=1e-4)
        assert network(REPORT, "jax").weights["norm_out.weight"].dtype == jnp.float32


def test_equal_shapes_are_compiled_once(reports):
    given, value, known = reports
    make(REPORT, given).log_prob(value)
    before = _compiled._cache_size()
    for seed in (1, 2):
        other = data(REPORT, seed=seed)
        found = make(REPORT, other).log_prob(jnp.asarray(other.value))
        assert (np.asarray(found) != known).all()
    assert _compiled._cache_size() == before
