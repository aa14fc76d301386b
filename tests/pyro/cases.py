"""Tiny networks with random weights, arguments for any batch shape, and a hierarchical model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import ppl_buffer as pb
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.pyro import JointPredictive

LEARNING = pb.Schema(
    params={"alpha": pb.Interval(0, 1), "beta": pb.Positive()},
    inputs={"pair": pb.Categorical(3)},
    outcomes={"choice": pb.Categorical(2)},
    feedback={"reward": pb.Real()},
    ordered=True,
)

TIMED = pb.Schema(
    params={"drift": pb.Real()},
    inputs={"side": pb.Real()},
    outcomes={"choice": pb.Categorical(3), "rt": pb.Positive(lapse_range=(0, 10))},
    ordered=True,
)

CURVE = pb.Schema(
    params={"mu": pb.Real(), "tau": pb.Positive()},
    inputs={"x": pb.Real()},
    outcomes={"y": pb.Real(lapse_range=(-9, 9))},
)

RATING = pb.Schema(params={"shift": pb.Real()}, outcomes={"rating": pb.Interval(2, 7)}, independent=True)

PEOPLE, TRIALS = 5, 7


def random_network(schema: pb.Schema, record: pb.TrainingRecord | None = None, spread: float = 0.3) -> TorchNetwork:
    """A tiny network whose weights are random, and large enough that everything it reads matters.

    The smaller the `spread`, the smoother the density.
    """
    variables = {**schema.params, **schema.inputs, **schema.outcomes, **schema.feedback}
    standardization = {name: (0.1, 1.3) for name, v in variables.items() if not isinstance(v, pb.Categorical)}
    config = pb.Config(width=12, depth=3, heads=3, mlp=17, components=5, contextual_positions=2, likelihood_width=0)
    net = TorchNetwork(schema, config, standardization, seed=0, record=record)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in net.weights.values():
            weight.add_(spread * torch.randn(weight.shape, generator=generator))
    return net.eval().requires_grad_(False)


def reward(trial: Any, inputs: dict, outcomes: dict, uniform: Any) -> dict:
    """Option 1 is rewarded more often."""
    return {"reward": 1.0 * (uniform[..., 0] < 0.3 + 0.4 * outcomes["choice"])}


@dataclass(frozen=True)
class Case:
    """One network, and arguments for any batch shape.

    `params` maps a parameter to a function that draws values (*batch,) of it.
    """

    net: TorchNetwork
    params: dict[str, Callable[[tuple[int, ...]], Any]]
    trials: int = TRIALS

    def draw_params(self, batch: tuple[int, ...] = (PEOPLE,)) -> dict[str, Any]:
        return {name: draw(batch) for name, draw in self.params.items()}

    def arguments(self, batch: tuple[int, ...] = (PEOPLE,)) -> dict[str, Any]:
        schema, rng = self.net.schema, np.random.default_rng(3)
        inputs = {}
        for name, variable in schema.inputs.items():
            discrete = isinstance(variable, pb.Categorical)
            shape = (*batch, self.trials)
            inputs[name] = torch.as_tensor(rng.integers(0, variable.n, shape) if discrete else rng.normal(size=shape))
        arguments: dict[str, Any] = {"inputs": inputs}
        if not inputs:
            arguments["trials"] = self.trials
        if schema.feedback:
            arguments["environment"] = reward
            arguments["feedback"] = {"reward": torch.as_tensor(rng.integers(0, 2, (*batch, self.trials)))}
        return arguments

    def distribution(self, batch: tuple[int, ...] = (PEOPLE,), **more: Any) -> JointPredictive:
        arguments = {**self.arguments(batch), "params": self.draw_params(batch), **more}
        return JointPredictive(self.net, **arguments)


def _uniform(low: float, high: float, seed: int) -> Callable[[tuple[int, ...]], Any]:
    return lambda batch: low + (high - low) * torch.rand(batch, generator=torch.Generator().manual_seed(seed))


CASES = {
    "learning": Case(random_network(LEARNING), {"alpha": _uniform(0.1, 0.9, 5), "beta": _uniform(0.5, 4, 6)}),
    "timed": Case(random_network(TIMED), {"drift": _uniform(-2, 2, 7)}),
    "curve": Case(random_network(CURVE), {"mu": _uniform(-1, 1, 8)}),
    "rating": Case(random_network(RATING), {"shift": _uniform(-1, 1, 9)}),
}


def close(actual: Any, expected: Any, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def _derivative(function: Callable[[Any], Any], at: Any, step: float) -> Any:
    return (function(at + step) - function(at - step)) / (2 * step)


def learners(data: Any, batch_size: int | None = None, observed: bool = True) -> None:
    """Hierarchical in alpha, one beta for all."""
    centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
    beta = pyro.sample("beta", dist.LogNormal(0.5, 0.3))
    with pyro.plate("people", PEOPLE, subsample_size=batch_size) as index:
        alpha = torch.sigmoid(pyro.sample("logit", dist.Normal(centre, 1.0)))
        part = data if batch_size is None else data[index]
        d = JointPredictive(CASES["learning"].net, part, params={"alpha": alpha, "beta": beta}, environment=reward)
        pyro.sample("y", d, obs=part.value if observed else None)


def latents(**more: Any) -> dict[str, Any]:
    return {"centre": torch.tensor(0.2), "beta": torch.tensor(1.7), "logit": torch.linspace(-1, 1, PEOPLE), **more}
