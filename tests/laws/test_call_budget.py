"""A ceiling on how many functions, and how many files, one density goes through.

Eager torch runs every one of these calls at each step of a sampler, and a reader who steps through them sees each.
Comprehensions and generators are not counted: newer versions of Python run them inside their function.
"""

import os
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="eager calls are torch's")
pytest.importorskip("pyro", reason="the distribution is Pyro's")

import torch

import ppl_buffer
from ppl_buffer.network.checkpoint import load
from ppl_buffer.pyro import JointPredictive
from ppl_buffer.simulators import NoisyQ

# At most so many calls of functions of the package, and changes of file from one such call to the next.
# The two recurrent units are in a file of their own, with their derivatives.
CALLS, FILE_CHANGES = 112, 68


def calls_of(function):
    """File and name of every function of the package that runs, in order."""
    root, calls = os.path.dirname(ppl_buffer.__file__), []

    def record(frame, event, argument):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(root):
            if code.co_name == "<lambda>" or not code.co_name.startswith("<"):
                calls.append((code.co_filename, code.co_name))

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        function()
    finally:
        sys.setprofile(before)
    return calls


def test_construction_and_log_density_of_observed_trials():
    """One subject of 120 trials: what a step of a sampler computes."""
    simulator, rng = NoisyQ(), np.random.default_rng(0)
    params, inputs = simulator.prior(rng, 1), simulator.inputs(rng, 1, 120)
    data = simulator.simulate(rng, params, inputs)
    net = load("noisy_q", backend="torch")
    observed = net.observe(inputs, data["choice"], feedback={"reward": data["reward"]})
    theta = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in params.items()}

    def score():
        return JointPredictive(net, observed, params=theta).log_prob(observed.value)

    # Once before, for what happens the first time alone.
    assert torch.isfinite(score()).all()
    calls = calls_of(score)
    changes = sum(one[0] != other[0] for one, other in zip(calls, calls[1:], strict=False))
    assert len(calls) <= CALLS and changes <= FILE_CHANGES, (len(calls), changes)
