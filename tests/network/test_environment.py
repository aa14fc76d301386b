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
    constant = respond(net, lambda t, i, o, u: {"reward": 0.25}, 0, inputs, outcomes, uniform)[0]["reward"]
    assert constant.shape == (3, 2, 1)
    np.testing.assert_array_equal(np.asarray(respond(net, reward, 0, inputs, outcomes, uniform)[0]["reward"]),
                                  np.full((3, 2, 1), np.float32(0.4) + np.float32(0.1) - np.float32(0.3)))  # fmt: skip
    given, state = respond(network(CONTAMINATED, backend), points, 0, {}, {"button": outcomes["choice"]}, uniform)
    assert given and not state


class Drifting:
    """`reward`, and a drift that choices and chance leave behind."""

    initial_state = {"drift": 0.3}

    def __call__(self, trial, inputs, outcomes, uniform, state):
        given = reward(trial, inputs, outcomes, uniform)["reward"] + state["drift"]
        return {"reward": given}, {"drift": 0.8 * state["drift"] + 0.2 * outcomes["choice"] - 0.1 * uniform[..., 0]}


# In JAX the program takes seconds to compile.
@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_an_environment_is_given_the_state_that_it_returned(backend):
    mask = np.ones((3, 7), dtype=bool)
    mask[1, 2:4] = mask[2, 5:] = False
    noise = np.random.default_rng(0).random((2, 3, 7, LEARNING.schema.noise_size)).astype(np.float32)
    value, feedback, log_probs = drawing(backend, Drifting(), trial_mask=mask)
    drift, expected = np.full((2, 3), 0.3), []
    for k in range(7):
        chance = noise[:, :, k, -1]
        expected.append(0.4 * value[:, :, k, 0] + chance - 0.3 + drift)
        # A trial that does not exist leaves the state as it was.
        drift = np.where(mask[:, k], 0.8 * drift + 0.2 * value[:, :, k, 0] - 0.1 * chance, drift)
    np.testing.assert_allclose(feedback["reward"], np.stack(expected, -1), atol=1e-5)
    # The network reads these rewards.
    given = data(LEARNING)
    known = {"reward": feedback["reward"]}
    joint = joint_predictive(LEARNING, "torch", given.inputs, params=given.params, feedback=known, trial_mask=mask)
    np.testing.assert_allclose(joint.conditionals(array("torch", value)), log_probs, atol=1e-4)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"reward": 1.0}, r"expected \(feedback, state\) in return, since it has an initial_state, got dict"),
        (({"reward": 1.0}, {}), r"expected a dict of the state \['drift'\] in return, got \[\]"),
        (({"reward": 1.0}, {"drift": "up"}), "expected numbers for 'drift' in return, got 'up'"),
        (({}, {"drift": 1.0}), r"expected a dict of the feedback \['reward'\] in return, got \[\]"),
    ],
)
def test_what_is_no_feedback_and_state_is_refused(returned, message):
    wrong = type("Wrong", (Drifting,), {"__call__": lambda self, *_: returned})
    with pytest.raises(ValueError, match=f"environment: {message}"):
        drawing("torch", wrong())


def test_a_state_is_refused_where_there_is_none():
    given = data(CONTAMINATED)
    if not CONTAMINATED.schema.ordered:
        with pytest.raises(ValueError, match="environment: expected one without a state for an exchangeable model"):
            joint_predictive(CONTAMINATED, "torch", given.inputs, params=given.params, environment=Drifting())
    learning = data(LEARNING)
    joint = joint_predictive(LEARNING, "torch", learning.inputs, params=learning.params, environment=Drifting())
    with pytest.raises(ValueError, match="environment: expected one without a state for a speculative rollout"):
        joint.sample((2,), method="speculative")
    for wrong, message in ((0.3, "expected a dict of names"), ({"drift": "up"}, "expected a finite number, got 'up'")):
        odd = type("Odd", (Drifting,), {"initial_state": wrong})()
        with pytest.raises(ValueError, match=f"environment.initial_state.*{message}"):
            joint_predictive(LEARNING, "torch", learning.inputs, params=learning.params, environment=odd)
