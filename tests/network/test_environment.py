"""What an environment returns is checked: names, shapes, values, in every draw."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("jax")
pytest.importorskip("pyro", reason="distributions of both languages are drawn from")
pytest.importorskip("numpyro", reason="distributions of both languages are drawn from")

import ppl_buffer as pb
from ppl_buffer.predictive import sampling
from tests.networks import CONTAMINATED, LEARNING, array, data, joint_predictive, network, points, reward, rollout

WRONG = {
    "nothing": (lambda t, i, o, u: None, r"a dict of the feedback \['reward'\] in return, got NoneType"),
    "other names": (lambda t, i, o, u: {"rewards": u[..., 0]}, r"\['reward'\] in return, got \['rewards'\]"),
    "more names": (lambda t, i, o, u: {"reward": u[..., 0], "x": 1.0}, r"in return, got \['reward', 'x'\]"),
    "a word": (lambda t, i, o, u: {"reward": "high"}, "numbers for 'reward' in return, got 'high'"),
    "no trial": (
        lambda t, i, o, u: {"reward": u[:, 0, 0, 0]},
        r"the shape \(3, 2, 1\) .*, got \(3,\)",
    ),
    "a trial more": (lambda t, i, o, u: {"reward": np.zeros(2)}, r"the shape \(3, 2, 1\) of .*, got \(2,\)"),
}


def drawing(backend, environment, **arguments):
    given = data(LEARNING)
    joint = joint_predictive(LEARNING, backend, given.inputs, params=given.params, environment=environment, **arguments)
    noise = np.random.default_rng(0).random(sampling.noise_shape(joint.query, (2,)))
    return rollout(backend, joint, noise)


@pytest.mark.parametrize("backend", ["torch", "jax"])
@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_feedback_is_refused_in_drawing(name, backend):
    environment, message = WRONG[name]
    with pytest.raises(ValueError, match=f"environment: expected .*{message}"):
        drawing(backend, environment)


def test_a_value_that_cannot_be_is_refused_where_there_is_a_trial():
    def failing(trial, inputs, outcomes, uniform):
        given = reward(trial, inputs, outcomes, uniform)["reward"]
        return {"reward": given if trial != 4 else given * np.nan}

    message = r"environment: feedback 'reward': expected a finite real number, got nan \(6 of 42\)"
    with pytest.raises(ValueError, match=message):
        drawing("torch", failing)
    mask = np.ones((3, 7), dtype=bool)
    mask[:, 4:] = False
    drawing("torch", failing, trial_mask=mask)
    with pytest.raises(ValueError, match=r"environment: feedback 'reward': expected a finite real number, got nan"):
        given = data(LEARNING)
        params = {name: np.stack([x, x]) for name, x in given.params.items()}
        pb.posterior_predictive(network(LEARNING, "torch"), given.inputs, params, environment=failing, progress=False)
    # In JAX, where nothing is traced.
    with pytest.raises(ValueError, match="environment: feedback 'points': expected an integer from 0 to 1, got 2"):
        sampling.check_feedback(network(CONTAMINATED, "jax"), {"points": array("jax", np.array([0.0, 2.0]))}, None)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_constant_is_a_feedback(backend):
    given = data(LEARNING)
    # In JAX the programs of rollouts take seconds to compile: what is drawn there is compared elsewhere.
    if backend == "torch":
        _, feedback, _ = drawing(backend, lambda t, i, o, u: {"reward": 0.25})
        np.testing.assert_array_equal(feedback["reward"], np.full((2, 3, 7), 0.25, np.float32))
    from ppl_buffer.network.trials import respond

    outcomes = {name: array(backend, np.ones((3, 2, 1), np.float32)) for name in LEARNING.schema.outcomes}
    uniform = array(backend, np.full((3, 2, 1, 1), 0.1, np.float32))
    inputs = {name: array(backend, x[:, None, :1]) for name, x in given.inputs.items()}
    net = network(LEARNING, backend)
    constant = respond(net, lambda t, i, o, u: {"reward": 0.25}, 0, inputs, outcomes, uniform)["reward"]
    assert constant.shape == (3, 2, 1)
    np.testing.assert_array_equal(np.asarray(respond(net, reward, 0, inputs, outcomes, uniform)["reward"]),
                                  np.full((3, 2, 1), np.float32(0.4) + np.float32(0.1) - np.float32(0.3)))  # fmt: skip
    assert respond(network(CONTAMINATED, backend), points, 0, {}, {"button": outcomes["choice"]}, uniform)
