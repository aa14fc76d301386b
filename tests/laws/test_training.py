"""What is trained is what is used: the loss of a batch is that of the densities that users are given."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch

from ppl_buffer import Config, simulators
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.predictive.density import conditionals, marginals
from ppl_buffer.predictive.query import Query
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import make_batch, map_arrays
from ppl_buffer.training.likelihood_batches import make_likelihood_batches
from ppl_buffer.training.loss import Loss
from ppl_buffer.training.standardization import standardize

CONFIG = Config(
    width=12, depth=2, heads=3, mlp=14, components=5, param_depth=1, contextual_positions=2, likelihood_width=11
)
SIMULATORS = [
    simulators.AngleDriftDiffusion(), simulators.CollapsingDriftDiffusion(), simulators.Confidence(),
    simulators.Discounting(), simulators.DriftDiffusion(), simulators.ForgettingQ(),
    simulators.MultisensoryCausalInference(), simulators.NoisyQTasks(), simulators.QLearning(),
    simulators.RacingDiffusion(), simulators.RLDriftDiffusion(), simulators.TwoStep(),
]  # fmt: skip
# In place of outcomes as they were drawn, which is what a density is asked about.
REPLACING = ("probabilities", "resampled", "conditioned_log_likelihood")


def trained_on(simulator, options, part):
    """A network and a batch of one of its parts, all parameters given."""
    make = make_batch if part == "buffer" else lambda *a: make_likelihood_batches(*a, count=1)[0]
    data = map_arrays(torch.as_tensor, make(simulator, options, 0, 0).data)
    net = TorchNetwork(simulator.schema, CONFIG, standardize(simulator, options)[0], seed=4)
    data["conditioned"] = torch.ones_like(data["conditioned"][:, :1])
    return net, {name: x for name, x in data.items() if name not in REPLACING}


def queried(net, data, group, part, **more):
    given = {kind: {name: x[:, 0] for name, x in named.items()} for kind, named in group.items()}
    outcomes = given["outcomes"]
    columns = list(outcomes.values())
    value = torch.stack(columns, -1) if len(columns) > 1 else columns[0]
    trials = next(iter(outcomes.values())).shape[-1]
    likelihood = "buffer" if part == "buffer" else "direct"
    query = Query.build(
        net, given["inputs"], trials=trials, params=data["params"], feedback=given["feedback"] or None,
        likelihood=likelihood, outside="ignore", **more,
    )  # fmt: skip
    return query, value


@pytest.mark.parametrize("part", ["buffer", "likelihood"])
@pytest.mark.parametrize("simulator", SIMULATORS, ids=lambda simulator: type(simulator).__name__)
def test_loss_is_that_of_the_density_that_is_used(simulator, part):
    schema = simulator.schema
    context = (2, 2) if part == "buffer" and not schema.ordered else (0, 0)
    net, data = trained_on(simulator, BatchOptions(batch_size=3, trials=(5, 5), context=context), part)
    more = {}
    if context[1]:
        # Each target before any of the buffer.
        data["visible"] = torch.zeros_like(data["visible"][:, :1])
        more["context"] = {name: x[:, 0] for named in data["context"].values() for name, x in named.items()}
    with torch.no_grad():
        loss = Loss(net, part=part).by_set(data)[0]
        group = data["buffer"] if schema.ordered else {**data["targets"], "feedback": {}}
        query, value = queried(net, data, group, part, **more)
        log_prob = (marginals if context[1] else conditionals)(query, value)
    assert loss.shape == log_prob.shape[:1] and np.isfinite(loss.numpy()).all()
    torch.testing.assert_close(loss, -log_prob.mean(-1), rtol=1e-4, atol=1e-5)
