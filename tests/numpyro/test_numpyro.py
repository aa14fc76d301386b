"""What NumPyro demands of a distribution: its transformations, effect handlers and inference algorithms."""

import pickle
import warnings

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("jax", reason="NumPyro runs on JAX")
pytest.importorskip("numpyro", reason="tests of the NumPyro distribution")

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import random
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions.batch_util import promote_batch_shape, vmap_over
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, log_likelihood
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import log_density

import ppl_buffer as pb
from ppl_buffer.numpyro import JointPredictive, TrialSupport, simulator_from_model
from ppl_buffer.numpyro.distribution import _compiled
from tests.networks import (
    CASES,
    DECISION,
    FUNCTION,
    FUNCTION_RECORD,
    LEARNING,
    REPORT,
    array,
    data,
    network,
    quick_compilation,  # noqa: F401
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def make(case, given, **more):
    options = {name: array("jax", x) for name, x in given.arguments(**more).items()}
    return JointPredictive(network(case, "jax"), array("jax", given.inputs), **options)


@pytest.fixture(scope="module")
def reports():
    """An ordered model of one category, three people, and what is computed of them by the plainest path."""
    given = data(REPORT)
    value = jnp.asarray(given.value)
    return given, value, np.asarray(make(REPORT, given).log_prob(value))


@pytest.fixture(scope="module")
def seen():
    """The same three people, of whom one did two trials only, observed once."""
    given = data(REPORT)
    mask = np.arange(7) < np.array([7, 2, 7])[:, None]
    return network(REPORT, "jax").observe(given.inputs, given.value, trial_mask=mask)


def hierarchical(data, subsample_size=None):
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    with numpyro.plate("people", 3, subsample_size=subsample_size) as index:
        mu = numpyro.sample("mu", dist.Normal(mean, 1))
        some = data if subsample_size is None else data[index]
        numpyro.sample("y", JointPredictive(network(REPORT, "jax"), some, params={"mu": mu}), obs=some.value)


# Shapes, support, attributes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample_shape", [(), (5, 2)])
@pytest.mark.parametrize("key", [random.PRNGKey, random.key])
def test_sample_shapes_with_either_kind_of_key(sample_shape, key):
    given = data(DECISION)
    distribution = make(DECISION, given)
    assert (distribution.batch_shape, distribution.event_shape, distribution.event_dim) == ((3,), (7, 2), 2)
    drawn = distribution.sample(key(1), sample_shape)
    assert drawn.shape == (*sample_shape, 3, 7, 2)
    assert len(np.unique(np.asarray(drawn[..., 1]))) == drawn[..., 1].size
    np.testing.assert_array_equal(drawn, distribution.sample(key(1), sample_shape))
    assert distribution.log_prob(drawn).shape == (*sample_shape, 3)
    assert distribution.conditionals(drawn).shape == (*sample_shape, 3, 7)
    assert distribution.pit(drawn).shape == (*sample_shape, 3, 7, 2)
    assert distribution.mean.shape == distribution.variance.shape == (3, 7, 2)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_infer_shapes_agrees_with_the_distribution(case):
    given = data(case)
    made = make(case, given, lapse=np.full((2, 1), 0.1, np.float32) if case.has_lapse else None)
    shapes = {
        "inputs": {name: x.shape for name, x in given.inputs.items()},
        "params": {name: x.shape for name, x in given.params.items()},
        "feedback": {name: x.shape for name, x in given.feedback.items()},
    }
    if case.has_lapse:
        shapes["lapse"] = (2, 1)
    inferred = JointPredictive.infer_shapes(network(case, "jax"), shapes.pop("inputs"), trials=7, **shapes)
    assert inferred == (made.batch_shape, made.event_shape)


def test_draws_are_not_reparameterised(reports):
    given, _, _ = reports
    distribution = make(REPORT, given)
    for one in (distribution, distribution.mask(True), distribution.to_event(1), distribution.expand((2, 3))):
        assert not one.has_rsample
    with pytest.raises(NotImplementedError):
        distribution.rsample(random.PRNGKey(0))
    assert not distribution.has_enumerate_support


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_support(case):
    given = data(case)
    mask = np.ones((3, 7), bool)
    mask[1, 4] = False
    support = make(case, given, trial_mask=mask).support
    assert support.event_dim == len(make(case, given).event_shape)
    assert support.is_discrete == (case is REPORT)
    value = jnp.asarray(given.value)
    np.testing.assert_array_equal(support(value), [True, True, True])
    np.testing.assert_array_equal(support(value.at[0, 4].set(jnp.nan)), [False, True, True])
    np.testing.assert_array_equal(support(value.at[1, 4].set(jnp.nan)), [True, True, True])
    feasible = support.feasible_like(value)
    assert feasible.shape == value.shape and bool(support(feasible).all())
    children, structure = jax.tree.flatten(support)
    again = jax.tree.unflatten(structure, children)
    assert again == support and again != TrialSupport(case.schema, 8)
    np.testing.assert_array_equal(again(value.at[1, 4].set(jnp.nan)), [True, True, True])
    # A class that answers these questions before anybody made one of it.
    assert JointPredictive.has_rsample is False and JointPredictive.reparametrized_params == []


def test_values_out_of_support_warn_and_have_no_density(reports):
    given, value, known = reports
    distribution = make(REPORT, given, validate_args=True)
    for bad in (5.0, -1.0, 0.5, np.nan):
        with pytest.warns(UserWarning, match="Out-of-support"):
            found = distribution.log_prob(value.at[1, 3].set(bad))
        np.testing.assert_allclose(found, [known[0], -np.inf, known[2]], rtol=1e-5)


# Transformations -----------------------------------------------------------------------------------------------------


def test_jit_of_construction_and_of_the_distribution(reports):
    given, value, known = reports
    inside = jax.jit(lambda params, value: make(REPORT, given, params=params).log_prob(value))
    np.testing.assert_allclose(inside(array("jax", given.params), value), known, rtol=1e-5)
    distribution = make(REPORT, given)
    handed = jax.jit(lambda d, v: (d, d.log_prob(v)))(distribution, value)
    assert isinstance(handed[0], JointPredictive) and handed[0].net is distribution.net
    np.testing.assert_allclose(handed[1], known, rtol=1e-5)
    np.testing.assert_allclose(handed[0].log_prob(value), known, rtol=1e-5)


def test_pytree_round_trip():
    given = data(LEARNING)
    mask = np.ones((3, 7), bool)
    distribution = make(LEARNING, given, trial_mask=mask, lapse=0.1, environment=LEARNING.environment)
    leaves, structure = jax.tree.flatten(distribution)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    # Weights are no leaves: they would be stacked by scan, and differentiated.
    assert sum(leaf.size for leaf in leaves) < 200
    again = jax.tree.unflatten(structure, leaves)
    assert (again.batch_shape, again.event_shape) == (distribution.batch_shape, distribution.event_shape)
    assert again.net is distribution.net and again.environment is distribution.environment
    value = jnp.asarray(given.value)
    np.testing.assert_array_equal(again.log_prob(value), distribution.log_prob(value))
    _ = distribution.support
    assert jax.tree.structure(distribution) == structure


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
    axes = vmap_over(made, params={"mu": 0}, inputs={"cue": 0})
    assert jax.tree.structure(axes) is not None


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


@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 3), (2, 4, 3)])
def test_expand(reports, shape):
    given, value, known = reports
    distribution = make(REPORT, given)
    expanded = distribution.expand(shape)
    assert isinstance(expanded, JointPredictive)
    assert (expanded.batch_shape, expanded.event_shape) == (shape, (7,))
    assert distribution.batch_shape == (3,)
    np.testing.assert_allclose(expanded.log_prob(value), np.broadcast_to(known, shape), rtol=1e-5)
    again = expanded.expand((5, *shape))
    assert again.batch_shape == (5, *shape)
    with pytest.raises(ValueError, match=r"batch_shape: expected one that .* broadcasts to, got \(2,\)"):
        distribution.expand((2,))


def test_expanded_draws_differ():
    given = data(DECISION)
    drawn = make(DECISION, given).expand((2, 3)).sample(random.PRNGKey(0))
    assert drawn.shape == (2, 3, 7, 2)
    assert (drawn[0, ..., 1] != drawn[1, ..., 1]).all()


def test_to_event_and_mask(reports):
    given, value, known = reports
    distribution = make(REPORT, given)
    independent = distribution.to_event(1)
    assert (independent.batch_shape, independent.event_shape) == ((), (3, 7))
    np.testing.assert_allclose(independent.log_prob(value), known.sum(), rtol=1e-5)
    people = jnp.array([True, False, True])
    np.testing.assert_allclose(distribution.mask(people).log_prob(value), known * people, rtol=1e-5)
    np.testing.assert_allclose(distribution.mask(False).log_prob(value), 0 * known)


def test_a_mask_of_trials_is_refused(reports):
    given, _, _ = reports
    mask = np.ones((3, 7), bool)
    with pytest.raises(
        ValueError, match=r"mask: expected a mask of data sets, of shape \(3,\), got \(3, 7\).*trial_mask"
    ):
        make(REPORT, given).mask(mask)


def test_masked_people_of_nans_leave_the_gradient_finite(reports):
    given, value, _ = reports
    value = value.at[1].set(jnp.nan)

    def density(mu):
        return make(REPORT, given, params={"mu": mu}).mask(jnp.array([True, False, True])).log_prob(value).sum()

    gradient = jax.jit(jax.grad(density))(jnp.asarray(given.params["mu"]))
    assert np.isfinite(gradient).all() and gradient[1] == 0 and (gradient[jnp.array([0, 2])] != 0).all()


def test_pickle(reports):
    given, value, known = reports
    distribution = make(REPORT, given)
    again = pickle.loads(pickle.dumps(distribution))
    np.testing.assert_allclose(again.log_prob(value), known, rtol=1e-5)


# Derivatives and numbers ---------------------------------------------------------------------------------------------


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
    with jax.enable_x64(True):
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


def test_parameters_outside_the_box_are_met_under_jit():
    """Numbers that are being traced cannot be looked at: no warning, and the density still follows `outside`."""
    net = network(FUNCTION, "jax", FUNCTION_RECORD)
    given = data(FUNCTION)
    inputs, value = array("jax", given.inputs), jnp.asarray(given.value)

    def density(mu):
        return JointPredictive(net, inputs, params={"mu": mu}, outside="-inf").log_prob(value)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = jax.jit(density)(jnp.array([0.0, 2.1, -1.9]))
    np.testing.assert_array_equal(np.isfinite(found), [True, False, True])


# Models --------------------------------------------------------------------------------------------------------------


def test_plates_scale_a_subsample(seen):
    params = {"mean": jnp.array(0.1), "mu": jnp.array([0.3, -0.2, 0.8])}
    full = log_density(hierarchical, (seen,), {}, params)[1]
    y = full["y"]["fn"].log_prob(full["y"]["value"])
    assert y.shape == (3,)
    seeded = handlers.seed(handlers.substitute(hierarchical, data={"mean": params["mean"]}), 3)
    trace = handlers.trace(seeded).get_trace(seen, subsample_size=2)
    index = trace["people"]["value"]
    assert trace["y"]["scale"] == pytest.approx(3 / 2)
    drawn = trace["mu"]["value"]
    by_hand = JointPredictive(network(REPORT, "jax"), seen, params={"mu": jnp.zeros(3).at[index].set(drawn)})
    np.testing.assert_allclose(
        trace["y"]["fn"].log_prob(trace["y"]["value"]), by_hand.log_prob(seen.value)[index], rtol=1e-5
    )
    scaled = handlers.scale(handlers.substitute(handlers.seed(hierarchical, 3), data=params), scale=2.5)
    assert handlers.trace(scaled).get_trace(seen)["y"]["scale"] == 2.5


@pytest.mark.parametrize(("key", "parallel"), [(random.PRNGKey, False), (random.key, True)])
def test_prior_and_posterior_predictive(parallel, key):
    given = data(DECISION)
    net = network(DECISION, "jax")

    def model():
        with numpyro.plate("people", 3):
            params = {
                "drift": numpyro.sample("drift", dist.Normal(0, 1)),
                "bound": numpyro.sample("bound", dist.LogNormal(0, 0.3)),
            }
            numpyro.sample("y", JointPredictive(net, array("jax", given.inputs), params=params))

    prior = Predictive(model, num_samples=4, parallel=parallel)(key(0))
    assert prior["y"].shape == (4, 3, 7, 2)
    times = np.asarray(prior["y"][..., 1])
    assert np.isfinite(times).all() and len(np.unique(times)) == times.size
    posterior = {name: prior[name].reshape(2, 2, 3) for name in ("drift", "bound")}
    predicted = Predictive(model, posterior, batch_ndims=2, parallel=parallel)(key(1))
    assert predicted["y"].shape == (2, 2, 3, 7, 2)


def test_log_likelihood_of_posterior_draws(seen):
    draws = {"mean": jnp.zeros(5), "mu": jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32))}
    found = log_likelihood(hierarchical, draws, seen)["y"]
    assert found.shape == (5, 3)
    fast = JointPredictive(network(REPORT, "jax"), seen, params={"mu": draws["mu"]})
    np.testing.assert_allclose(found, fast.log_prob(seen.value), rtol=1e-4)


@pytest.mark.parametrize("chain_method", ["vectorized", pytest.param("sequential", marks=pytest.mark.slow)])
def test_nuts(seen, chain_method):
    calls = []

    def counted(data):
        calls.append(1)
        hierarchical(data)

    mcmc = MCMC(
        NUTS(counted, max_tree_depth=3), num_warmup=50, num_samples=20, num_chains=2, chain_method=chain_method,
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(random.PRNGKey(0), seen)
    draws = mcmc.get_samples(group_by_chain=True)
    assert draws["mu"].shape == (2, 20, 3)
    assert np.isfinite(draws["mu"]).all() and np.asarray(draws["mu"]).std(1).min() > 0.1
    # The program is traced a few times to set up; if every step traced it, there would be hundreds of calls.
    assert len(calls) < 20


def test_nuts_finds_what_a_grid_finds():
    """One parameter, one data set: the posterior by NUTS against the posterior by quadrature."""
    given = data(REPORT, batch=1, trials=7)
    net, value = network(REPORT, "jax"), jnp.asarray(given.value[0])
    seen = net.observe({"cue": given.inputs["cue"][0]}, value)

    def model():
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        numpyro.sample("y", JointPredictive(net, seen, params={"mu": mu}), obs=seen.value)

    mcmc = MCMC(NUTS(model), num_warmup=200, num_samples=1500, progress_bar=False)
    mcmc.run(random.PRNGKey(1))
    draws = np.asarray(mcmc.get_samples()["mu"])
    places = jnp.linspace(-5, 5, 401)
    # The plain path, without what was observed.
    plain = JointPredictive(net, {"cue": jnp.asarray(given.inputs["cue"][0])}, params={"mu": places})
    log_weights = np.asarray(plain.log_prob(value) + dist.Normal(0, 1).log_prob(places), float)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    mean = (weights * places).sum()
    std = np.sqrt((weights * (places - mean) ** 2).sum())
    assert abs(draws.mean() - mean) < 0.15 * std
    assert 0.9 < draws.std() / std < 1.1
    # The comparison could fail: the likelihood has moved the posterior away from the prior.
    assert abs(mean) + abs(std - 1) > 0.05


def test_svi_with_subsampling(seen):
    guide = AutoNormal(lambda data: hierarchical(data, subsample_size=2))
    svi = SVI(lambda data: hierarchical(data, subsample_size=2), guide, numpyro.optim.Adam(0.05), Trace_ELBO())
    result = svi.run(random.PRNGKey(0), 30, seen, progress_bar=False)
    assert np.isfinite(result.losses).all()
    assert result.losses[-10:].mean() < result.losses[:5].mean()
    # Frozen weights are no parameters of anything.
    assert all("weight" not in name for name in result.params)


def test_sampling_with_feedback_in_a_model():
    given = data(LEARNING)
    distribution = make(LEARNING, given, feedback=None, environment=LEARNING.environment)
    value, feedback = distribution.sample_with_feedback(random.PRNGKey(0))
    assert value.shape == (3, 7, 2) and feedback["reward"].shape == (3, 7)
    by_choice = feedback["reward"] - 0.4 * value[..., 0]
    assert ((by_choice >= -0.3) & (by_choice <= 0.7)).all() and np.asarray(by_choice).std() > 0.1


# Programs as simulators ----------------------------------------------------------------------------------------------


def regression(inputs, trials):
    slope = numpyro.sample("slope", dist.Normal(0.5, 2.0))
    scale = numpyro.sample("scale", dist.LogNormal(-1.0, 0.3))
    bias = numpyro.sample("bias", dist.Uniform(-1, 3))
    shift = numpyro.sample("shift", dist.Normal(bias, 0.1))
    with numpyro.plate("trials", trials):
        effort = numpyro.sample("effort", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(slope * inputs["x"] + shift + effort, scale))
        numpyro.sample("choice", dist.Bernoulli(logits=bias + inputs["cue"]))
        numpyro.sample("time", dist.LogNormal(0.0, scale))
        numpyro.sample("place", dist.Beta(2.0, 1 + scale))
        numpyro.sample("kind", dist.Categorical(probs=jnp.array([0.2, 0.3, 0.5])))


SOURCES = {
    "x": (pb.Real(), lambda rng, size, trials: rng.normal(size=(size, trials))),
    "cue": (pb.Categorical(3), lambda rng, size, trials: rng.integers(0, 3, (size, trials))),
}
OUTCOMES = {"choice": None, "y": None, "time": pb.Positive(lapse_range=(0, 5)), "place": None, "kind": None}


@pytest.fixture(scope="module")
def simulator():
    return simulator_from_model(regression, outcomes=OUTCOMES, inputs=SOURCES, independent=True)


def test_schema_and_priors_of_a_program(simulator):
    assert simulator.schema == pb.Schema(
        params={"slope": pb.Real(), "scale": pb.Positive(), "bias": pb.Interval(-1, 3), "shift": pb.Real()},
        inputs={"x": pb.Real(), "cue": pb.Categorical(3)},
        outcomes={
            "choice": pb.Categorical(2),
            "y": pb.Real(),
            "time": pb.Positive(lapse_range=(0, 5)),
            "place": pb.Interval(0, 1),
            "kind": pb.Categorical(3),
        },
        independent=True,
    )
    # The prior of `shift` depends on another parameter.
    assert simulator.priors == {
        "slope": pb.Prior("Normal", {"loc": 0.5, "scale": 2.0}),
        "scale": pb.Prior("LogNormal", {"loc": -1.0, "scale": 0.3}),
        "bias": pb.Prior.uniform(-1, 3),
    }
    assert (simulator.name, simulator.in_process) == ("regression", True)


def test_a_program_is_drawn_from_as_predictive_draws(simulator):
    rng = np.random.default_rng(0)
    params = simulator.prior(rng, 3001)
    inputs = simulator.inputs(rng, 3001, 5)
    drawn = simulator.simulate(rng, params, inputs)
    assert {name: x.shape for name, x in drawn.items()} == dict.fromkeys(OUTCOMES, (3001, 5))
    one = {"x": jnp.asarray(inputs["x"][0]), "cue": jnp.asarray(inputs["cue"][0])}
    reference = Predictive(regression, num_samples=3000, parallel=True)(random.PRNGKey(5), one, 5)
    for name in params:
        assert stats.ks_2samp(params[name], np.asarray(reference[name])).pvalue > 1e-3, name
    # The joint distribution with the parameters, not the margins alone, at fixed inputs.
    fixed = {name: np.repeat(x[:1], 3001, 0) for name, x in inputs.items()}
    drawn = simulator.simulate(rng, params, fixed)
    known = {**params, **{name: x[:, 1] for name, x in drawn.items()}}
    expected = {name: np.asarray(reference[name]) for name in params}
    expected |= {name: np.asarray(reference[name])[:, 1] for name in drawn}
    ours, theirs = (np.corrcoef(np.stack(list(x.values()))) for x in (known, {k: expected[k] for k in known}))
    assert np.abs(ours - theirs).max() < 5 * np.sqrt(2 / 3000)
    for name, x in drawn.items():
        assert stats.ks_2samp(x[:, 1], expected[name]).pvalue > 1e-3, name
    # Trials differ from each other.
    assert abs(np.corrcoef(drawn["kind"][:, 0], drawn["kind"][:, 1])[0, 1]) < 0.1


def test_draws_of_a_program_depend_on_the_generator_alone(simulator):
    def draw(seed):
        rng = np.random.default_rng(seed)
        params, inputs = simulator.prior(rng, 6), simulator.inputs(rng, 6, 11)
        return {**params, **simulator.simulate(rng, params, inputs)}

    first, again, other = draw(1), draw(1), draw(2)
    for name, x in first.items():
        np.testing.assert_array_equal(x, again[name])
        assert (x != other[name]).any()


def test_programs_that_do_not_fit_are_refused():
    def scalar(inputs, trials):
        numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0, 1)), 1))

    def observed(inputs, trials):
        with numpyro.plate("trials", trials):
            numpyro.sample("y", dist.Normal(0, 1), obs=jnp.zeros(trials))

    def moving(inputs, trials):
        scale = numpyro.sample("scale", dist.LogNormal(0, 1))
        with numpyro.plate("trials", trials):
            numpyro.sample("y", dist.Uniform(0, scale))

    def counting(inputs, trials):
        with numpyro.plate("trials", trials):
            numpyro.sample("y", dist.Poisson(3.0))

    def late(inputs, trials):
        with numpyro.plate("trials", trials):
            effort = numpyro.sample("effort", dist.Normal(0, 1))
        mu = numpyro.sample("mu", dist.Normal(effort.mean(), 1))
        with numpyro.plate("trials", trials):
            numpyro.sample("y", dist.Normal(mu, 1))

    for model, message in {
        scalar: r"outcomes: expected a site of shape \(trials,\).*'y' has shape \(\)",
        observed: "outcomes: .*'y' is observed",
        moving: "support of 'y' that does not depend on latent values",
        counting: "support of 'y' to be real, positive",
        late: "expected scalar latent sites before all others.*'mu' after",
    }.items():
        with pytest.raises(ValueError, match=message):
            simulator_from_model(model, outcomes=["y"])
    with pytest.raises(ValueError, match=r"outcomes: expected names of sample sites .*'z'"):
        simulator_from_model(moving, outcomes="z")
    with pytest.raises(ValueError, match=r"inputs\['x'\]: expected a pair"):
        simulator_from_model(moving, outcomes=["y"], inputs={"x": pb.Real()})
    with pytest.raises(ValueError, match=r"inputs\['x'\]: expected its function to give \(1, 8\), got \(8,\)"):
        simulator_from_model(
            moving, outcomes=["y"], inputs={"x": (pb.Real(), lambda rng, size, trials: np.ones(trials))}
        )


def conjugate(inputs, trials):
    mu = numpyro.sample("mu", dist.Normal(0.5, 1.5))
    with numpyro.plate("trials", trials):
        numpyro.sample("y", dist.Normal(mu, 0.7))


def test_a_network_trained_on_a_conjugate_program_knows_its_evidence(tmp_path):
    pytest.importorskip("torch", reason="training needs torch")
    simulator = simulator_from_model(conjugate, outcomes=["y"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pb.train(
            simulator, pb.Config(width=16, depth=2, heads=2, mlp=32, components=3, param_depth=1), steps=250,
            out=tmp_path, trials=(4, 8), context=(0, 4), batch_size=32, held_out=32, evaluate_every=125, workers=0,
            progress=False,
        )  # fmt: skip
    net = pb.load(tmp_path / "best.safetensors", backend="jax")
    assert net.record.simulator == "conjugate"
    assert net.prior()["mu"].loc == 0.5
    rng = np.random.default_rng(9)
    mu = rng.normal(0.5, 1.5, 200)
    y = (mu[:, None] + rng.normal(0, 0.7, (200, 8))).astype(np.float32)
    evidence = np.asarray(JointPredictive(net, {}, trials=8).log_prob(y))
    covariance = 1.5**2 + 0.7**2 * np.eye(8)
    exact = stats.multivariate_normal(np.full(8, 0.5), covariance).logpdf(y)
    conditioned = np.asarray(JointPredictive(net, {}, trials=8, params={"mu": mu}).log_prob(y))
    exact_told = stats.norm(mu[:, None], 0.7).logpdf(y).sum(1)
    # Ignoring the other trials would cost more than half a nat a trial; the network may lose a small part of that.
    alone = stats.norm(0.5, np.hypot(1.5, 0.7)).logpdf(y).sum(1)
    assert (exact - alone).mean() / 8 > 0.5
    assert abs((exact - evidence).mean()) / 8 < 0.05
    assert abs((exact_told - conditioned).mean()) / 8 < 0.05
