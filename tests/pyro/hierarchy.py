"""The hierarchy that the documentation teaches for Pyro, and a plate of people under `net.prior(seen)`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyro

import ppl_buffer as pb
from ppl_buffer.pyro import JointPredictive

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "hierarchies.md"


def documented_hierarchy() -> dict[str, Any]:
    """What the page's code for Pyro defines, on the data of its code for NumPyro: ``hierarchical`` among it."""
    task, rng, people, trials = pb.simulators.NoisyQ(), np.random.default_rng(1), 5, 60
    truth = task.prior(rng, people)
    inputs = task.inputs(rng, people, trials)
    names = {"pb": pb, "people": people, "inputs": inputs, "data": task.simulate(rng, truth, inputs)}
    (code,) = re.findall(r"```py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(compile(code, str(PAGE), "exec"), names)
    return names


def deciders(people: int = 8, trials: int = 60) -> Any:
    """A model of people who decide as the network `ddm` says, under its training prior below their responses."""
    task, rng = pb.simulators.DriftDiffusion(), np.random.default_rng(1)
    truth = task.prior(rng, people) | {"non_decision_time": rng.uniform(0.15, 0.4, people)}
    data = task.simulate(rng, truth, {}, trials)
    net = pb.load("ddm", backend="torch")
    seen = net.observe({}, np.stack([data["choice"], data["rt"]], -1).astype(np.float32))

    def model(bounded: bool = True) -> None:
        prior = net.prior(seen) if bounded else net.prior()
        with pyro.plate("people", people):
            params = {name: pyro.sample(name, one) for name, one in prior.items()}
            pyro.sample("response", JointPredictive(net, seen, params=params), obs=seen.value)

    return model
