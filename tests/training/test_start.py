"""Training that starts from a trained network."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch

import ppl_buffer as pb
from ppl_buffer.network import checkpoint
from ppl_buffer.network.digest import weights_digest
from ppl_buffer.network.estimated_error import EstimatedError
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import make_batch
from ppl_buffer.training.loop import train
from tests.training.cases import (
    SMALL,
    TINY,
    ChoiceTime,
    Shift,
    loss_of,
    tensors,
)


@pytest.mark.parametrize("simulator", [Shift(), ChoiceTime()], ids=["exchangeable", "ordered"])
def test_a_network_that_grows_predicts_the_same_at_first_and_uses_what_is_new(simulator, tmp_path):
    small = train(simulator, TINY, steps=3, out=tmp_path / "small", **SMALL)
    batch = tensors(make_batch(simulator, BatchOptions(SMALL["batch_size"], SMALL["trials"]), 7, 3))
    config = replace(TINY, depth=5, asinh_scales=2)
    settings = {"learning_rate": 1e-12, "weight_decay": 0.0, "start": small, **SMALL}
    grown = train(simulator, config, steps=1, out=tmp_path / "still", **settings)
    assert grown.config == config
    assert loss_of(grown, batch) == pytest.approx(loss_of(small, batch), abs=1e-5)
    # Again from what has grown, by scales alone: what was read stays in its columns.
    more, settings["start"] = replace(config, asinh_scales=3), grown
    again = train(simulator, more, steps=1, out=tmp_path / "again", **settings)
    assert loss_of(again, batch) == pytest.approx(loss_of(small, batch), abs=1e-5)
    settings |= {"start": small, "learning_rate": 1e-2}
    moved = train(simulator, config, steps=30, out=tmp_path / "moved", **settings)
    new = [f"layers.{index}.{leaf}.weight" for index in (1, 2, 3) for leaf in ("merge", "mlp.out")]
    for name in new:
        assert grown.weights[name].abs().max() < 1e-6 < moved.weights[name].abs().max()
    columns = small.weights["embed.pair.hidden.weight"].shape[1]
    assert moved.weights["embed.pair.hidden.weight"][:, columns:].abs().amax(0).min() > 1e-6


def test_an_error_goes_on_from_that_of_the_start(tmp_path):
    """Of the same simulator, less what was gained; another one's is nobody's, and that of moved weights unknown."""
    settings = {**SMALL, "held_out": 32, "evaluate_every": 2}
    first = train(Shift(), TINY, steps=3, out=tmp_path / "first", **settings)
    stated = EstimatedError(0.07, 0.06, 0.08, "snapshots", "buffer")
    checkpoint.write(first, replace(first.record, errors={"buffer": stated}), tmp_path / "stated.safetensors")
    settings["start"] = tmp_path / "stated.safetensors"
    slow = {"learning_rate": 1e-4, "warmup": 0, **settings}
    net = train(Shift(), steps=12, out=tmp_path / "again", **slow)
    assert net.record.stages[-1].step > 0
    assert net.record.errors["buffer"].nats_per_trial == pytest.approx(0.07, abs=0.01)
    assert "buffer" not in train(Shift(), steps=1, out=tmp_path / "short", **slow).record.errors
    Other = type("Other", (Shift,), {})
    errors = train(Other(), steps=12, out=tmp_path / "other", **slow).record.errors
    assert "buffer" not in errors or errors["buffer"].nats_per_trial < 0.05
    # Weights that never moved are the start's.
    still = train(Shift(), steps=2, out=tmp_path / "still", **{**settings, "learning_rate": 1e3, "warmup": 0})
    assert still.record.stages[-1].step == 0 and still.record.errors == {"buffer": stated}


def test_start_from_a_trained_network(tmp_path):
    first = train(Shift(), TINY, steps=3, seed=1, out=tmp_path / "first", **SMALL)
    checkpoint = tmp_path / "first" / "best.safetensors"
    rate = {"learning_rate": 1e-12, "weight_decay": 0.0, "seed": 2}
    again = train(Shift(), steps=2, out=tmp_path / "again", start=checkpoint, **rate, **SMALL)
    # With steps that go nowhere, what comes out is what it started from, on the same scales.
    for name, weight in first.weights.items():
        np.testing.assert_allclose(again.weights[name], weight, atol=1e-6, err_msg=name)
    assert again.standardization == first.standardization
    other = train(Shift(), TINY, steps=2, out=tmp_path / "other", **rate, **SMALL)
    assert any(not np.allclose(other.weights[name], weight, atol=1e-3) for name, weight in first.weights.items())
    with pytest.raises(ValueError, match="out: .* start"):
        train(Shift(), TINY, steps=2, out=tmp_path / "again", **rate, **SMALL)
    with pytest.raises(ValueError, match="start: expected a network with the simulator's schema"):
        train(ChoiceTime(), steps=2, out=tmp_path / "wrong", start=first, **SMALL)
    for config in (replace(TINY, width=18), replace(TINY, depth=1), replace(TINY, depth=3, mlp=15)):
        with pytest.raises(ValueError, match="config: expected none, or that of start"):
            train(Shift(), config, steps=2, out=tmp_path / "wrong", start=first, **SMALL)
    with pytest.raises(ValueError, match="start: expected a torch network or the name of a checkpoint, got int"):
        train(Shift(), steps=2, out=tmp_path / "wrong", start=3, **SMALL)


def test_the_record_goes_on_from_that_of_the_start(tmp_path):
    first = train(Shift(), TINY, steps=3, seed=1, out=tmp_path / "first", **SMALL)
    settings = {**SMALL, "trials": (2, 5), "learning_rate": 1e-3}
    second = train(Shift(), steps=2, seed=2, out=tmp_path / "second", start=first, **settings)
    third = train(Shift(), steps=4, seed=3, out=tmp_path / "third", start=second, outcome_samples=2, **settings)
    # Weights mean something on the scales that they were trained on alone, whatever the data of later stages are.
    assert third.standardization == second.standardization == first.standardization
    assert len(first.record.stages) == 1 and second.record.stages[:1] == first.record.stages
    stages = third.record.stages
    assert stages[:2] == second.record.stages and len(stages) == 3
    assert [stage.start for stage in stages] == [None, weights_digest(first), weights_digest(second)]
    assert [(stage.seed, stage.steps, stage.learning_rate) for stage in stages] == [
        (1, 3, 2e-3),
        (2, 2, 1e-3),
        (3, 4, 1e-3),
    ]
    assert [stage.options["trials"] for stage in stages] == [[3, 7], [2, 5], [2, 5]]
    assert [stage.options["outcome_samples"] for stage in stages] == [1, 1, 2]
    assert third.record.provenance["seed"] == 3 and third.record.provenance["outcome_samples"] == 2
    assert all(stage.versions["torch"] == str(torch.__version__) and stage.date for stage in stages)
    assert pb.load(tmp_path / "third" / "best.safetensors", backend="torch").record == third.record


def test_the_held_out_loss_is_of_the_same_data_for_all_seeds(tmp_path):
    first = train(Shift(), TINY, steps=1, out=tmp_path / "first", **SMALL)
    losses = []
    for seed in (1, 2):
        train(Shift(), steps=1, seed=seed, out=tmp_path / str(seed), start=first, **SMALL)
        log = np.genfromtxt(tmp_path / str(seed) / "buffer" / "log.csv", delimiter=",", names=True)
        losses.append((log["held_out"][0], log["loss"][-1]))
    # Before the first step both are the same network; the batches that they learn from differ.
    assert losses[0][0] == losses[1][0] and losses[0][1] != losses[1][1]
