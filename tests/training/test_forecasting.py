"""Recordings: networks that saw forecasts in training forecast better, at equal steps; what that costs is printed."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("pyro", reason="densities are those of Pyro's distribution")

import torch

import ppl_buffer as pb
from ppl_buffer.pyro import JointPredictive
from ppl_buffer.training.loop import train

CONFIG = pb.Config(width=32, depth=3, heads=4, mlp=64, components=4, likelihood_width=0)
STEPS, RECORDINGS, FUTURE = 1000, 400, 8
OPTIONS = {"batch_size": 16, "trials": (FUTURE, FUTURE), "targets": 16, "context": (2, 32), "held_out": 64,
           "evaluate_every": STEPS, "workers": 0, "progress": False}  # fmt: skip
TIME = np.linspace(0, 4, 128)


def recordings(rng, size):
    """Sines of unknown frequency and phase, seen with noise at all times: (size, 128)."""
    frequency, phase = rng.uniform(0.25, 1, (size, 1)), rng.uniform(0, 2 * np.pi, (size, 1))
    return np.sin(2 * np.pi * frequency * TIME + phase) + rng.normal(0, 0.2, (size, len(TIME)))


def scores(net, points, ahead):
    """(RECORDINGS,): log density of 8 samples given others, in nats a sample: the next ones, or any after any."""
    rng = np.random.default_rng(99)
    y, count = recordings(rng, RECORDINGS), points + FUTURE
    if ahead:
        place = rng.integers(0, len(TIME) - count + 1, (RECORDINGS, 1)) + np.arange(count)
    else:
        place = rng.permuted(np.tile(np.arange(len(TIME)), (RECORDINGS, 1)), axis=1)[:, :count]
    time, y = (torch.as_tensor(x, dtype=torch.float32) for x in (TIME[place], np.take_along_axis(y, place, 1)))
    context = {"time": time[:, :points], "y": y[:, :points]}
    with torch.no_grad():
        joint = JointPredictive(net, {"time": time[:, points:]}, context=context).log_prob(y[:, points:])
    return joint.numpy() / FUTURE


@pytest.mark.slow
def test_forecasts_in_training_make_better_forecasts(tmp_path):
    simulator = pb.DatasetSimulator({"y": recordings(np.random.default_rng(1), 4000)}, {"time": TIME}, ordered=False)
    plain = train(simulator, CONFIG, steps=STEPS, out=tmp_path / "plain", **OPTIONS)
    other = train(simulator, CONFIG, steps=STEPS, out=tmp_path / "other", forecasting=0.25, in_order=0.5, **OPTIONS)
    for ahead in (True, False):
        for points in (4, 8, 16, 32):
            without, having = scores(plain, points, ahead), scores(other, points, ahead)
            gain = having - without
            error = gain.std() / np.sqrt(RECORDINGS)
            what = "the next 8 after a stretch of" if ahead else "any 8 given any"
            print(f"{what} {points}: {without.mean():.2f}, {having.mean():.2f}; gain {gain.mean():.2f} +- {error:.2f}")
            # Measured 0.25 to 0.32, and -0.01.
            assert gain.mean() > (max(0.1, 5 * error) if ahead else -0.05)
