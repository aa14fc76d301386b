"""A tiny network, and the simulator of which it is exactly the likelihood."""

from __future__ import annotations

import numpy as np

import ppl_buffer as pb
from ppl_buffer.network.config import weight_shapes
from ppl_buffer.prior import Prior
from ppl_buffer.schema import split_value
from tests.networks import SLIDER, Record, draw_group, standardization, weights

PRIORS = {"mu": Prior.uniform(-2.0, 2.0)}
RECORD = Record(box={"mu": (-2.0, 2.0)}, priors=PRIORS, trials=23, context=0, simulator="own")


class Own:
    """The simulator of which a network is exactly the likelihood: its own rollouts, parameters shifted if asked."""

    def __init__(self, net, priors, shift=None, environment=None):
        self.net, self.schema, self.priors, self.shift = net, net.schema, priors, shift or {}
        self.environment = environment
        self.calls = 0

    def prior(self, rng, size):
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def inputs(self, rng, size, trials):
        return draw_group(rng, self.schema.inputs, (size, trials))

    def simulate(self, rng, params, inputs, trials=None):
        self.calls += 1
        conditioned = {name: np.asarray(x + self.shift.get(name, 0.0), np.float32)[None] for name, x in params.items()}
        trials = trials or next(iter(inputs.values())).shape[1]
        drawn = pb.posterior_predictive(
            self.net, inputs, conditioned, trials=trials, environment=self.environment, seed=int(rng.integers(2**31)),
            progress=False,
        )  # fmt: skip
        return split_value(self.schema, drawn.value[0]) | {name: x[0] for name, x in drawn.feedback.items()}


def telling(backend: str):
    """A tiny network whose outcomes say something about its parameter."""
    known = {name: x * (3 if name.endswith("position.out.weight") else 1) for name, x in weights(SLIDER).items()}
    if backend == "jax":
        from ppl_buffer.network.jax.weights import JaxNetwork

        return JaxNetwork(SLIDER.schema, SLIDER.config, standardization(SLIDER.schema), known, RECORD)
    import torch

    from ppl_buffer.network.torch.weights import TorchNetwork

    net = TorchNetwork(SLIDER.schema, SLIDER.config, standardization(SLIDER.schema), record=RECORD)
    assert set(known) == set(weight_shapes(SLIDER.schema, SLIDER.config))
    with torch.no_grad():
        for name, value in known.items():
            net.weights[name].copy_(torch.as_tensor(value))
    return net.eval().requires_grad_(False)
