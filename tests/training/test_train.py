"""Training as a whole: what it reaches, records and leaves alone."""

import csv
import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch
from scipy import stats

import ppl_buffer as pb
from ppl_buffer.findings import FindingWarning
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.training import batches, loading
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import HELD_OUT, make_batch
from ppl_buffer.training.loop import train
from ppl_buffer.training.loss import Loss
from tests.training.cases import (
    SMALL,
    TINY,
    ChoiceTime,
    Known,
    Shift,
    arrays_of,
    loss_of,
    same_run,
    tensors,
)


def exact_loss(batches):
    """Of `Shift`: a target given mu, or given the mean of what it sees."""
    terms = []
    for batch in batches:
        data = batch.data
        y = data["targets"]["outcomes"]["y"].astype(float)
        none = np.zeros((len(y), 1, 0))
        context = data["context"]["outcomes"]["y"] if "context" in data else none
        buffer = data["buffer"]["outcomes"]["y"]
        sums = np.concatenate([np.zeros((len(y), 1, 1)), buffer.cumsum(-1)], -1)
        visible = np.broadcast_to(data["visible"], (*data["conditioned"].shape[:2], y.shape[-1]))
        seen = np.take_along_axis(np.broadcast_to(sums, (*visible.shape[:2], sums.shape[-1])), visible, -1)
        seen = seen + context.sum(-1, keepdims=True)
        count = visible + context.shape[-1]
        precision = 1 / 4 + count
        conditioned = data["conditioned"]
        mean = np.where(conditioned, data["params"]["mu"][:, None, None], seen / precision)
        variance = np.where(conditioned, 1.0, 1 + 1 / precision)
        terms.append((0.5 * np.log(2 * np.pi * variance) + 0.5 * (y - mean) ** 2 / variance).ravel())
    return np.concatenate(terms).mean()


@pytest.mark.slow
def test_a_known_likelihood_is_learnt_faster_than_draws(tmp_path):
    """Root-mean-square error of the log density of a trial at the same number of steps, from the same weights."""
    rng = np.random.default_rng(5)
    mu = rng.normal(0, 2, (211, 1))
    y = mu + rng.normal(size=(211, 7))
    errors = []
    settings = {"batch_size": 32, "trials": (7, 13), "held_out": 16, "evaluate_every": 200, "progress": False}
    settings |= {"steps": 400, "learning_rate": 5e-3, "seed": 3, "workers": 0}
    for known in (False, True):
        net = train(Known(), TINY, out=tmp_path / f"known {known}", use_log_likelihood=known, **settings)
        with torch.no_grad():
            query = Query.build(net, {}, trials=7, params={"mu": mu[:, 0]})
            conditioned = density.conditionals(query, torch.as_tensor(y))
        errors.append(np.sqrt(np.mean((conditioned.numpy() - stats.norm.logpdf(y, mu)) ** 2)))
        assert net.record.provenance["use_log_likelihood"] is known
    assert errors[1] < 0.8 * errors[0]
    with pytest.raises(ValueError, match="use_log_likelihood: expected False, or a simulator .*, got True with Shift"):
        train(Shift(), TINY, out=tmp_path / "unknown", use_log_likelihood=True, **settings)


def test_exchangeable_training_reaches_the_exact_density(tmp_path):
    settings = {"batch_size": 24, "trials": (2, 6), "context": (0, 4)}
    config = pb.Config(width=16, depth=2, heads=2, mlp=32, components=3, param_depth=2, likelihood_width=0)
    net = train(
        Shift(),
        config,
        steps=400,
        seed=1,
        out=tmp_path,
        **{**SMALL, **settings, "evaluate_every": 100},
        learning_rate=1e-2,
    )
    batches = [make_batch(Shift(), BatchOptions(**settings), 99, step, HELD_OUT) for step in range(40)]
    with torch.no_grad():
        terms = [
            (loss_of(net, tensors(b)), b.data["conditioned"].shape[0] * b.data["visible"].shape[-1]) for b in batches
        ]
    loss = sum(value * count for value, count in terms) / sum(count for _, count in terms)
    assert -0.005 < loss - exact_loss(batches) < 0.03


def test_ordered_training_learns_and_leaves_its_record(tmp_path):
    net = train(ChoiceTime(), TINY, steps=60, learning_rate=1e-2, out=tmp_path / "new" / "run", **SMALL)
    record = net.record
    assert record.simulator == "ChoiceTime" and record.trials == 7 and record.context == 0
    assert record.priors == {"a": None, "b": None}
    low, high = record.box["a"]
    assert low == 0.0 and 0.89 < high < 0.9  # 0 is the atom
    assert 0.1 < record.box["b"][0] < 0.5 and 2.5 < record.box["b"][1] < 6
    assert list(record.ranges) == ["cue", "choice", "rt", "reward"]
    assert np.allclose(record.ranges["cue"].shares, 1 / 3, atol=0.05) and record.ranges["choice"].values == (0.0, 1.0)
    # A response time exceeds b, and is b + 1 or so at its median; the reward is a uniform number where choice is 1.
    assert 0.5 < record.ranges["rt"].low < 1.5 and 1.2 < record.ranges["rt"].medians[0] < 2
    assert record.ranges["reward"].low == 0 and 0.99 < record.ranges["reward"].high < 1
    with open(tmp_path / "new" / "run" / "buffer" / "log.csv", newline="") as file:
        log = list(csv.DictReader(file))
    held_out = {int(row["step"]): float(row["held_out"]) for row in log if row["held_out"]}
    assert list(held_out) == [0, *range(3, 61, 3)]
    assert min(held_out.values()) == record.provenance["held_out_loss"] < held_out[0] - 0.5
    assert record.provenance["step"] == min(held_out, key=held_out.get)
    assert (tmp_path / "new" / "run" / "buffer" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert not net.training and not any(weight.requires_grad for weight in net.parameters())
    assert not list((tmp_path / "new" / "run").glob(".*"))


def test_schema_without_parameters_and_inputs(tmp_path):
    class Drift:
        schema = pb.Schema(outcomes={"y": pb.Real()})

        def prior(self, rng, size):
            return {}

        def inputs(self, rng, size, trials):
            return {}

        def simulate(self, rng, params, inputs, trials, size):
            return {"y": rng.normal(size=(size, 1)) + rng.normal(size=(size, trials))}

    net = train(Drift(), TINY, steps=4, out=tmp_path, **SMALL)
    assert net.record.box == {} and net.record.context == 64


def test_standardization_is_that_of_the_variables(tmp_path):
    net = train(Shift(), TINY, steps=1, out=tmp_path, **SMALL)
    mean, std = net.standardization["y"]
    assert abs(mean) < 0.5 and abs(std - math.sqrt(5)) < 0.4
    assert abs(net.standardization["mu"][1] - 2) < 0.3


def test_an_outcome_above_a_parameter_has_a_scale_for_the_difference(tmp_path):
    net = train(ChoiceTime(), TINY, steps=1, out=tmp_path, **SMALL)
    settings = BatchOptions(SMALL["batch_size"], SMALL["trials"])
    params, trials, _ = batches.draw(ChoiceTime(), 0, 0, batches.STANDARDIZATION, 256, settings.typical_trials)[0]
    for name, expected in (("rt", trials["rt"]), ("rt - b", trials["rt"] - params["b"][:, None])):
        known = (np.log(expected).mean(), np.log(expected).std())
        assert net.standardization[name] == pytest.approx(known, rel=1e-5)


def test_seeds_differ_and_repeat(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(ChoiceTime(), TINY, steps=4, seed=seed, out=tmp_path / name, **{**SMALL, "workers": int(name == "b")})
    same_run(tmp_path / "a", tmp_path / "b")
    one, other = (arrays_of(tmp_path / name / "best.safetensors") for name in "ac")
    assert not np.array_equal(one["embed.pair.hidden.weight"], other["embed.pair.hidden.weight"])


def test_training_leaves_the_users_randomness_alone(tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    train(ChoiceTime(), TINY, steps=2, out=tmp_path, **{**SMALL, "workers": 1})
    assert torch.equal(torch.rand(3), expected[0])
    np.testing.assert_array_equal(np.random.rand(3), expected[1])


def test_endless_gradients_are_left_out_then_stop(tmp_path, monkeypatch):
    """A loss that is no number now and then costs that update only."""
    forward, calls = Loss.forward, []

    def sometimes(self, batch):
        calls.append(self)
        loss = forward(self, batch)
        return loss * math.nan if self.training and len(calls) % 5 == 0 else loss

    monkeypatch.setattr(Loss, "forward", sometimes)
    net = train(ChoiceTime(), TINY, steps=12, out=tmp_path / "a", **{**SMALL, "evaluate_every": 12})
    assert 1 <= net.record.provenance["skipped_updates"] <= 3
    assert math.isfinite(net.record.provenance["held_out_loss"])
    monkeypatch.setattr(Loss, "forward", lambda self, batch: forward(self, batch) * math.nan)
    with pytest.raises(FloatingPointError, match="the gradient was no number in 11 of 11 steps"):
        train(ChoiceTime(), TINY, steps=40, out=tmp_path / "b", **SMALL)


def test_a_simulator_that_cannot_be_sent_to_workers_simulates_in_the_training_process(tmp_path, monkeypatch):
    """On macOS, on Windows and in notebooks there, workers begin afresh and import what they are sent."""

    class Local(ChoiceTime):
        name = "ChoiceTime"

    train(ChoiceTime(), TINY, steps=3, out=tmp_path / "a", **SMALL)
    monkeypatch.setattr(loading, "start_method", lambda: "spawn")
    with pytest.warns(FindingWarning, match="simulator: Local cannot be sent to worker processes") as caught:
        train(Local(), TINY, steps=3, out=tmp_path / "b", **{**SMALL, "workers": 1})
    assert caught[0].filename == __file__
    same_run(tmp_path / "a", tmp_path / "b")


def test_a_gpu_gets_more_processes_that_simulate(monkeypatch):
    monkeypatch.setattr(loading.os, "sched_getaffinity", lambda _: range(5), raising=False)
    gpu = torch.device("cuda")
    assert loading.suited_workers(torch.device("cpu"), 1) == 1
    assert loading.suited_workers(gpu, 1) == 4 and loading.suited_workers(gpu, 2) == 1
    monkeypatch.setattr(loading.os, "sched_getaffinity", lambda _: range(1), raising=False)
    assert loading.suited_workers(gpu, 1) == 1 and loading.suited_workers(gpu, 3) == 1
    monkeypatch.setattr(loading.os, "sched_getaffinity", lambda _: range(113), raising=False)
    assert loading.suited_workers(gpu, 1) == 8


@pytest.mark.slow
def test_workers_that_begin_afresh_draw_the_same(tmp_path, monkeypatch):
    train(ChoiceTime(), TINY, steps=3, out=tmp_path / "a", **SMALL)
    monkeypatch.setattr(loading, "start_method", lambda: "spawn")
    train(ChoiceTime(), TINY, steps=3, out=tmp_path / "b", **{**SMALL, "workers": 1})
    same_run(tmp_path / "a", tmp_path / "b")
