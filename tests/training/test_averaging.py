"""What moves the weights, and that a training returns the running average of those that its steps reached."""

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch

import ppl_buffer as pb
from ppl_buffer.training.loop import train
from ppl_buffer.training.optimizers import average_weights, make_optimizers, set_learning_rate
from ppl_buffer.training.options import OptimizationOptions
from ppl_buffer.training.progress import Progress
from ppl_buffer.training.trainer import Trainer
from tests.training.cases import SMALL, TINY, ChoiceTime, Shift, network


def average(history):
    """By hand: the first weights, then each with a share of 9 / (10 + n), at least 0.001, n those before."""
    mean = history[0].astype(float)
    for count, weights in enumerate(history[1:], start=1):
        share = max(9 / (10 + count), 0.001)
        mean = (1 - share) * mean + share * weights
    return mean


def test_the_average_is_exponential_and_soon_forgets_the_first_weights():
    rng = np.random.default_rng(0)
    history = rng.normal(size=(30, 4))
    averaged = torch.tensor(history[0])
    for count, weights in enumerate(history[1:], start=1):
        average_weights([averaged], [torch.tensor(weights)], count)
    np.testing.assert_allclose(averaged.numpy(), average(history), rtol=1e-6)
    long = torch.zeros(1, dtype=torch.float64)
    average_weights([long], [torch.ones(1, dtype=torch.float64)], 10**6)
    np.testing.assert_allclose(long.numpy(), 0.001, rtol=1e-6)


def test_training_returns_the_average_not_the_last_weights(tmp_path, monkeypatch):
    history, update = [], Trainer.update

    def watched(self, *arguments):
        loss = update(self, *arguments)
        history.append({name: weight.detach().numpy().copy() for name, weight in self.net.weights.items()})
        return loss

    monkeypatch.setattr(Trainer, "update", watched)
    settings = {**SMALL, "evaluate_every": 12, "learning_rate": 1e-2}
    net = train(Shift(), TINY, steps=12, out=tmp_path, warmup=0, **settings)
    assert len(history) == 12 and net.record.provenance["step"] == 12
    apart = 0.0
    for name, weight in net.weights.items():
        expected = average([step[name] for step in history])
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-4, atol=1e-6, err_msg=name)
        apart = max(apart, float(np.abs(weight.numpy() - history[-1][name]).max()))
    # And these are others than the last ones.
    assert apart > 1e-3
    assert pb.load(tmp_path / "best.safetensors", backend="torch").digest == net.digest


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_matrices_decay(optimizer):
    """Biases, norms and single vectors keep their size: weight decay is for what multiplies activations."""
    net = network(ChoiceTime())
    names = {id(weight): name for name, weight in net.weights.items()}
    decay = {}
    for one in make_optimizers(OptimizationOptions(steps=1, weight_decay=0.3, optimizer=optimizer), net):
        for group in one.param_groups:
            decay |= {names[id(weight)]: group["weight_decay"] for weight in group["params"]}
    assert decay.keys() == net.weights.keys()
    matrices = {name for name, weight in net.weights.items() if name.endswith("weight") and weight.ndim == 2}
    assert {name for name, value in decay.items() if value == 0.3} == matrices
    assert {value for name, value in decay.items() if name not in matrices} == {0.0}


def test_muon_moves_five_times_as_fast_as_adamw():
    optimizers = make_optimizers(OptimizationOptions(steps=1, optimizer="muon"), network(ChoiceTime()))
    set_learning_rate(optimizers, 0.02)
    rates = {type(one).__name__: {group["lr"] for group in one.param_groups} for one in optimizers}
    assert rates == {"AdamW": {0.02}, "Muon": {0.1}}


def test_only_better_weights_than_the_best_so_far_are_kept():
    at = Progress()
    kept = []
    for step, loss in enumerate([2.0, 3.0, 1.5, 1.5, math.nan, 1.4, 9.0]):
        at.step = step
        kept.append(at.evaluate(loss, loss, first=step == 0))
    assert kept == [True, False, True, False, False, True, False]
    assert at.best == 1.4 and at.held_out == [[0, 2.0], [1, 3.0], [2, 1.5], [3, 1.5], [5, 1.4], [6, 9.0]]


def test_a_training_that_gets_worse_returns_what_was_best(tmp_path):
    settings = {**SMALL, "evaluate_every": 2, "learning_rate": 0.5}
    with np.errstate(all="ignore"):
        net = train(Shift(), TINY, steps=10, out=tmp_path, warmup=0, **settings)
    losses = np.genfromtxt(tmp_path / "buffer" / "log.csv", delimiter=",", names=True)
    held_out = losses[~np.isnan(losses["held_out"])]
    best = held_out[held_out["held_out"].argmin()]
    assert held_out["held_out"][-1] > best["held_out"] + 0.1
    assert net.record.provenance["step"] == best["step"] < 10
    assert net.record.provenance["held_out_loss"] == pytest.approx(best["held_out"], rel=1e-6)
