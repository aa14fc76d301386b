"""An environment is tried before training, as drawing from the network will ask it."""

import warnings

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

from ppl_buffer.findings import FindingWarning
from ppl_buffer.simulator import WithEnvironment
from ppl_buffer.training.environment import try_environment
from tests.test_simulator import SHIPPED, Counting


class Walk:
    initial_state = {"level": 0.0}

    def __call__(self, trial, inputs, outcomes, uniform, state):
        return {"points": 1.0 * (uniform[..., 0] < 0.5)}, {"level": state["level"] + 1}


def with_environment(environment):
    return type("Mine", (Counting,), {"environment": staticmethod(environment)})()


@pytest.mark.parametrize(
    "simulator",
    [*(simulator for simulator in SHIPPED if isinstance(simulator, WithEnvironment)), Counting()],
    ids=lambda simulator: type(simulator).__name__,
)
def test_environments_that_are_right_pass(simulator):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try_environment(simulator)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (lambda t, i, o, u: u[..., 0], "expected a dict of the feedback \\['points'\\] in return, got ndarray"),
        (lambda t, i, o, u: {"point": u[..., 0]}, "expected a dict of the feedback .* got \\['point'\\]"),
        (lambda t, i, o, u: {"points": "many"}, "expected numbers for 'points' in return, .* got 'many'"),
        (lambda t, i, o, u: {"points": np.ones(3)}, "in the shape \\(16, 1, 1\\) of the trial's outcomes, got shape"),
        (
            lambda t, i, o, u: {"points": 2.0 * o["choice"]},
            "expected 'points' to be a category, an integer",
        ),
        (type("Odd", (Walk,), {"__call__": lambda *_: {"points": 1.0}})(), "expected \\(feedback, state\\) in return"),
        (type("Odd", (Walk,), {"__call__": lambda *_: ({"points": 1.0}, {})})(), "expected a dict of the state"),
    ],
)
def test_what_is_no_feedback_is_said_before_training(environment, message):
    with pytest.raises(ValueError, match=f"simulator.environment: .*{message}"):
        try_environment(with_environment(environment))


def test_an_environment_for_another_library_is_warned_of():
    def environment(trial, inputs, outcomes, uniform):
        raise TypeError("expected a Tensor")

    with pytest.warns(FindingWarning, match="could not be tried with NumPy's arrays.*expected a Tensor"):
        try_environment(with_environment(environment))
