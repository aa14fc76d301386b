"""The weights that a training returns are the running average of those that its steps reached."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch

import ppl_buffer as pb
from ppl_buffer.training.loop import train
from ppl_buffer.training.optimizers import average_weights
from ppl_buffer.training.trainer import Trainer
from tests.training.cases import SMALL, TINY, Shift


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
