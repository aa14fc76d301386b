"""NumPyro programs as simulators."""

import warnings

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("jax", reason="NumPyro runs on JAX")
pytest.importorskip("numpyro", reason="tests of the NumPyro distribution")

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import random
from numpyro.infer import Predictive

import ppl_buffer as pb
from ppl_buffer.numpyro import JointPredictive, simulator_from_model

pytestmark = pytest.mark.usefixtures("quick_compilation")


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


def test_whole_numbers_that_do_not_begin_at_0_are_integers():
    def rating(inputs, trials):
        with numpyro.plate("trials", trials):
            numpyro.sample("y", dist.DiscreteUniform(1, 7))

    simulator = simulator_from_model(rating, outcomes=["y"])
    assert simulator.schema.outcomes == {"y": pb.Integer(1, 7)}


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
