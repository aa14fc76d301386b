"""Simulation at scale against rollouts one by one: same numbers, whatever the chunks, devices and backend."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer.inference.simulation import _noise
from ppl_buffer.predictive import density, sampling
from ppl_buffer.predictive.query import Query
from tests.networks import CONTAMINATED, DECISION, FUNCTION, FUNCTION_RECORD, LAPSELESS, LEARNING, REPORT, data, network

pytestmark = pytest.mark.usefixtures("quick_compilation")
QUIET = {"progress": False}


def theta(case, draws, batch, seed=1):
    """Parameter draws (draws, batch)."""
    flat = data(case, batch=draws * batch, seed=seed).params
    return {name: x.reshape(draws, batch) for name, x in flat.items()}


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_simulation_is_a_rollout_for_each_draw_and_data_set(backend):
    pytest.importorskip(backend)
    net, given, params = network(LEARNING, backend), data(LEARNING, batch=3, trials=7), theta(LEARNING, 5, 3)
    mask = np.arange(7) < np.array([[7], [2], [5]])
    found = pb.posterior_predictive(
        net, given.inputs, params, trial_mask=mask, environment=LEARNING.environment, seed=4, **QUIET
    )
    assert found.value.shape == (5, 3, 7, 2) and found.log_prob.shape == found.feedback["reward"].shape == (5, 3, 7)
    shape = sampling.noise_shape(Query.build(net, given.inputs))
    noise = _noise(4, np.arange(5), 3, shape[-2:])
    for draw, person in [(0, 0), (4, 1), (2, 2)]:
        length = int(mask[person].sum())
        one = Query.build(
            net,
            {name: x[person, :length] for name, x in given.inputs.items()},
            params={name: x[draw, person] for name, x in params.items()},
            environment=LEARNING.environment,
        )
        value, feedback, log_prob = sampling.rollout(one, noise[draw, person, :length])
        np.testing.assert_allclose(found.value[draw, person, :length], np.asarray(value), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.log_prob[draw, person, :length], np.asarray(log_prob), rtol=1e-3, atol=1e-4)
        reward = np.asarray(feedback["reward"])
        np.testing.assert_allclose(found.feedback["reward"][draw, person, :length], reward, rtol=1e-4, atol=1e-5)
        assert np.isnan(found.value[draw, person, length:]).all()


def test_chunks_and_devices_change_nothing():
    pytest.importorskip("torch")
    net, given, params = network(LEARNING, "torch"), data(LEARNING, batch=2, trials=7), theta(LEARNING, 11, 2)
    ways = [{}, {"memory": 3e-5}, {"devices": ["cpu", "cpu", "cpu"]}, {"memory": 1e-9, "devices": ["cpu", "cpu"]}]
    found = [
        pb.posterior_predictive(net, given.inputs, params, environment=LEARNING.environment, **way, **QUIET)
        for way in ways
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other.value, found[0].value, rtol=1e-5)
        np.testing.assert_allclose(other.log_prob, found[0].log_prob, rtol=1e-4, atol=1e-5)


def test_both_backends_draw_the_same():
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    given, params = data(REPORT, batch=2, trials=7), theta(REPORT, 13, 2)
    torch, jax = (
        pb.posterior_predictive(network(REPORT, backend), given.inputs, params, seed=2, **QUIET)
        for backend in ("torch", "jax")
    )
    np.testing.assert_array_equal(torch.value, jax.value)
    np.testing.assert_allclose(torch.log_prob, jax.log_prob, rtol=1e-4, atol=1e-4)


def test_sample_dimensions_are_kept_and_observed_data_serve_as_inputs():
    pytest.importorskip("torch")
    net, given = network(CONTAMINATED, "torch"), data(CONTAMINATED, batch=3, trials=7, points=5)
    params = {"speed": np.random.default_rng(0).lognormal(size=(2, 5, 3))}
    observed = net.observe(given.inputs, given.value, feedback=given.feedback, context=given.context)
    plain = pb.posterior_predictive(
        net, given.inputs, params, context=given.context, environment=CONTAMINATED.environment, **QUIET
    )
    again = pb.posterior_predictive(net, observed, params, environment=CONTAMINATED.environment, **QUIET)
    assert plain.value.shape == (2, 5, 3, 7, 2)
    np.testing.assert_array_equal(plain.value, again.value)


def test_prior_predictive_needs_the_number_of_draws_alone():
    pytest.importorskip("torch")
    net, given = network(FUNCTION, "torch", FUNCTION_RECORD), data(FUNCTION, batch=2, trials=5)
    found = pb.posterior_predictive(net, given.inputs, draws=17, **QUIET)
    assert found.value.shape == (17, 2, 5)
    query = Query.build(net, given.inputs)
    expected = density.conditionals(query, net.weights["role.param"].new_tensor(found.value))
    np.testing.assert_allclose(found.log_prob, expected, rtol=1e-3, atol=1e-4)
    lapsed = pb.posterior_predictive(net, given.inputs, draws=17, lapse=1.0, **QUIET)
    # A lapse is uniform on [-9, 9].
    np.testing.assert_allclose(lapsed.log_prob, -np.log(18), rtol=1e-5)
    narrow = pb.posterior_predictive(net, given.inputs, draws=17, lapse=pb.Lapse(1.0, {"y": (0.5, 0.75)}), **QUIET)
    np.testing.assert_allclose(narrow.log_prob, -np.log(0.25), rtol=1e-5)
    assert narrow.value.min() >= 0.5 and narrow.value.max() <= 0.75 and narrow.value.std() > 0.05


def test_draws_of_a_whole_hierarchy_serve_as_they_are():
    """Other sites are ignored, and what all people share is taken by draws, also where there are as many people."""
    pytest.importorskip("torch")
    net, given = network(DECISION, "torch"), data(DECISION, batch=4, trials=3, context=False)
    rng = np.random.default_rng(0)
    drift, delay, bound = rng.normal(size=(4, 4)), rng.lognormal(-2, 0.5, size=4), rng.lognormal(size=(4, 4))
    samples = {"drift_mean": rng.normal(size=4), "drift": drift, "delay": delay, "bound": bound}
    found = pb.posterior_predictive(net, given.inputs, samples, **QUIET)
    spread = {"drift": drift, "delay": np.repeat(delay[:, None], 4, axis=1), "bound": bound}
    np.testing.assert_array_equal(found.value, pb.posterior_predictive(net, given.inputs, spread, **QUIET).value)
    # No response is faster than its draw's non-decision time.
    assert (found.value[..., 1] > delay[:, None, None]).all()


def test_draws_that_all_people_share():
    pytest.importorskip("torch")
    net, given = network(REPORT, "torch"), data(REPORT, batch=3, trials=4)
    mu = np.random.default_rng(0).normal(size=5)
    shared = pb.posterior_predictive(net, given.inputs, {"mu": mu}, **QUIET)
    whole = pb.posterior_predictive(net, given.inputs, {"mu": np.repeat(mu[:, None], 3, axis=1)}, **QUIET)
    np.testing.assert_array_equal(shared.value, whole.value)
    # Of two batch dimensions, and draws by chain.
    inputs = {name: np.stack([x, x]) for name, x in given.inputs.items()}
    by_chain = {"mu": np.repeat(mu.reshape(5, 1, 1, 1), 2, axis=1) * np.ones((2, 3))}
    assert pb.posterior_predictive(net, inputs, by_chain, **QUIET).value.shape == (5, 2, 2, 3, 4)
    assert pb.posterior_predictive(net, inputs, {"mu": mu}, **QUIET).value.shape == (5, 2, 3, 4)


SHARDED = """
import json, os, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
sys.path.insert(0, sys.argv[1])
import jax, jax.numpy as jnp, numpy as np
import ppl_buffer as pb
from ppl_buffer.numpyro import JointPredictive
from tests.networks import LEARNING, data, network
from tests.inference.test_simulation import theta
jax.config.update("jax_disable_most_optimizations", True)
net, given, params = network(LEARNING, "jax"), data(LEARNING, batch=3, trials=7), theta(LEARNING, 5, 3)
devices = jax.devices()
found = [
    pb.posterior_predictive(net, given.inputs, params, environment=LEARNING.environment, devices=way, progress=False)
    for way in (None, devices)
]
mesh = jax.sharding.Mesh(np.array(devices), ("draws",))
place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("draws"))
even = {name: jnp.asarray(x[:4]) for name, x in params.items()}
spread = {name: jax.device_put(x, place) for name, x in even.items()}
observed = net.observe(given.inputs, jnp.asarray(given.value), feedback=given.feedback)

@jax.jit
def scored(conditioned, observed):
    return JointPredictive(net, observed, params=conditioned, validate_args=False).log_prob(observed.value)

densities = [scored(conditioned, observed) for conditioned in (even, spread)]
print(json.dumps({
    "devices": len(devices),
    "used": len(densities[1].sharding.device_set),
    "rollout": float(np.abs(found[0].value - found[1].value).max()),
    "log_prob": float(jnp.abs(densities[0] - densities[1]).max()),
}))
"""


def test_jax_shards_draws_over_devices():
    pytest.importorskip("jax")
    root = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", SHARDED, root], capture_output=True, text=True, timeout=600, env={**os.environ}
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["devices"] == found["used"] == 2
    assert found["rollout"] < 1e-5 and found["log_prob"] < 1e-4


@pytest.mark.parametrize(
    ("case", "params", "arguments", "message"),
    [
        (REPORT, None, {}, "draws: expected their number, since no parameters tell it, got None"),
        (REPORT, {"mu": np.zeros((5, 3))}, {}, r"params: expected shapes .*, or .*got {'mu': \(5, 3\)}"),
        (REPORT, {"mu": np.zeros(2)}, {}, "params: expected shapes"),
        (REPORT, {"mu": np.zeros((5, 2))}, {"draws": 6}, "draws: expected None, or 5 as in params, got 6"),
        (REPORT, {"mu": np.zeros((5, 2))}, {"memory": 0}, "memory: expected gigabytes above 0, got 0"),
        (REPORT, {"nu": np.zeros((5, 2))}, {}, r"params: expected any of \['mu'\].*\['mu'\] are not, while \['nu'\]"),
        (DECISION, {"drift": np.zeros((5, 2)), "delay": -np.ones((5, 2)), "bound": np.ones((5, 2))}, {},
         r"params\['delay'\]: expected a number above 0, got -1\.0 \(10 of 10\)"),
        (REPORT, {"mu": np.zeros((0, 2))}, {}, "params: expected shapes"),
        (REPORT, np.zeros((5, 2)), {}, "params: expected a dict of name to array, got ndarray"),
        (DECISION, {"drift": np.zeros((2, 2)), "delay": np.ones(2), "bound": np.ones((2, 2))}, {"lapse": np.zeros(2)},
         r"lapse: expected a rate, or shape \(2, 2\), \(2, 1\) for a rate of each draw, or \(1, 2\) for"),
        (LEARNING, None, {"draws": 3}, "environment: expected a function that gives"),
        (LAPSELESS, None, {"draws": 3, "lapse": 0.1}, "lapse: "),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(case, params, arguments, message):
    pytest.importorskip("torch")
    given = data(case, batch=2, trials=5)
    with pytest.raises(ValueError, match=message):
        pb.posterior_predictive(network(case, "torch"), given.inputs, params, **arguments, **QUIET)


def test_a_network_of_the_direct_likelihood_alone_simulates():
    pytest.importorskip("torch")
    alone = replace(LEARNING, name="learning, direct", config=replace(LEARNING.config, depth=0, likelihood_width=6))
    net, given = network(alone, "torch"), data(LEARNING)
    whole, *pieces = (
        pb.posterior_predictive(
            net, given.inputs, theta(LEARNING, 5, 3), environment=LEARNING.environment, memory=memory, **QUIET
        )
        for memory in (1.0, 3e-5)
    )
    assert whole.value.shape == (5, 3, 7, 2)
    np.testing.assert_allclose(pieces[0].value, whole.value, rtol=1e-5)
