"""Simulators that are known exactly, small runs, and comparisons of batches and of runs."""

import math

import numpy as np
import torch

import ppl_buffer as pb
from ppl_buffer.files import read_arrays
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import HELD_OUT, make_batch, map_arrays
from ppl_buffer.training.loss import Loss

TINY = pb.Config(
    width=12, depth=2, heads=3, mlp=14, components=5, param_depth=1, contextual_positions=2, likelihood_width=0
)


class Shift:
    """y = mu + Normal(0, 1), mu ~ Normal(0, 2): everything about it is known exactly."""

    schema = pb.Schema(params={"mu": pb.Real()}, outcomes={"y": pb.Real()}, independent=True)
    priors = {"mu": pb.Prior("Normal", {"loc": 0.0, "scale": 2.0})}
    share_of_nan = 0.0
    in_process = True

    def prior(self, rng, size):
        return {"mu": rng.normal(0, 2, size)}

    def inputs(self, rng, size, trials):
        return {}

    def simulate(self, rng, params, inputs, trials):
        y = params["mu"][:, None] + rng.normal(size=(len(params["mu"]), trials))
        y[rng.random(len(y)) < self.share_of_nan, -1] = np.nan
        return {"y": y}


class ChoiceTime:
    """Ordered, with a choice, a response time and feedback; the simulator knows its own choice probabilities."""

    schema = pb.Schema(
        params={"a": pb.Interval(0, 1, closed=True), "b": pb.Positive()},
        inputs={"cue": pb.Categorical(3)},
        outcomes={"choice": pb.Categorical(2), "rt": pb.Positive(above="b")},
        feedback={"reward": pb.Real()},
        ordered=True,
    )
    atoms = {"a": 0.0}

    def prior(self, rng, size):
        return {"a": rng.uniform(0.2, 0.9, size), "b": rng.lognormal(0, 0.3, size)}

    def inputs(self, rng, size, trials):
        return {"cue": rng.integers(0, 3, (size, trials))}

    def simulate_with_probabilities(self, rng, params, inputs):
        one = 1 / (1 + np.exp(-params["b"][:, None] * (inputs["cue"] - 1)))
        choice = (rng.random(one.shape) < one).astype(int)
        rt = params["b"][:, None] + np.exp(rng.normal(params["a"][:, None] * choice, 0.2))
        data = {"choice": choice, "rt": rt, "reward": choice * rng.random(one.shape)}
        return data, {"choice": np.stack([1 - one, one], -1)}

    def simulate(self, rng, params, inputs):
        return ChoiceTime.simulate_with_probabilities(self, rng, params, inputs)[0]


class Known(Shift):
    """Shift, which says how likely its outcomes are."""

    def log_likelihood(self, params, data):
        return -0.5 * (data["y"] - params["mu"][:, None]) ** 2 - 0.5 * math.log(2 * math.pi)


SMALL = {"batch_size": 5, "trials": (3, 7), "held_out": 11, "evaluate_every": 3, "progress": False, "workers": 0}


def arrays_of(path, key="ppl_buffer"):
    return read_arrays(path, key, 1, 2, 3)[1]


def same_arrays(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def state_of(folder, part="buffer", name="state.safetensors"):
    """Description and arrays of a part's state, without what a clock said."""
    description, arrays = read_arrays(folder / part / name, "ppl_buffer_run", 3)
    description.pop("seconds")
    arrays.pop("snapshots/seconds", None)
    return description, arrays


def same_run(first, second, parts=("buffer",)):
    """Two run folders hold the same run, to the last bit."""
    same_arrays(arrays_of(first / "best.safetensors"), arrays_of(second / "best.safetensors"))
    for part in parts:
        states = [state_of(folder, part) for folder in (first, second)]
        same_arrays(states[0][1], states[1][1])
        assert states[0][0] == states[1][0]
        assert (first / part / "log.csv").read_text() == (second / part / "log.csv").read_text()


def loss_of(net, data):
    with torch.no_grad():
        return float(Loss(net)(data))


def tensors(batch):
    return map_arrays(torch.as_tensor, batch.data)


def flat(tree, path=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{key}/")
        else:
            yield f"{path}{key}", np.asarray(value)


def same_batches(first, second):
    first, second = dict(flat(first)), dict(flat(second))
    same_arrays(first, second)


def network(simulator, seed=0):
    return TorchNetwork(simulator.schema, TINY, dict.fromkeys(simulator.schema.standardized, (0.3, 1.7)), seed=seed)


def held_out_batches():
    size = 0
    for step in range(11):
        if size >= 11:
            return
        batch = make_batch(ChoiceTime(), BatchOptions(batch_size=5, trials=(3, 7)), 0, step, HELD_OUT)
        size += len(batch.data["conditioned"])
        yield batch
