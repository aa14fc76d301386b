"""Runs that stop: interrupted, out of time, killed, or of other settings."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch
from safetensors.numpy import save as to_safetensors

import ppl_buffer as pb
from ppl_buffer.files import read_arrays
from ppl_buffer.training.loop import train
from tests.training.cases import (
    SMALL,
    TINY,
    ChoiceTime,
    Shift,
    held_out_batches,
    same_run,
)


class Interrupted(ChoiceTime):
    """Ctrl-C arrives when the batch of one of the steps is made."""

    in_process = True
    name = "ChoiceTime"

    def __init__(self, after, how):
        self.after, self.how, self.calls = after, how, 0

    def simulate_with_probabilities(self, rng, params, inputs):
        self.calls += 1
        if self.calls == self.after:
            self.how()
        return super().simulate_with_probabilities(rng, params, inputs)


class Threshold(ChoiceTime):
    name = "ChoiceTime"
    in_process = True


def raise_interrupt():
    raise KeyboardInterrupt


def send_interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_a_run_of_the_first_version_is_refused(tmp_path):
    train(ChoiceTime(), TINY, steps=2, out=tmp_path, **SMALL)
    path = tmp_path / "state.safetensors"
    description, arrays = read_arrays(path, "ppl_buffer_run", 2)
    content = {"ppl_buffer_run": json.dumps({**description, "format": 1})}
    path.write_bytes(to_safetensors(arrays, metadata=content))
    with pytest.raises(ValueError, match="out: .* holds a run that version 0.1 of ppl_buffer began .* resume=False"):
        train(ChoiceTime(), TINY, steps=2, out=tmp_path, **SMALL)
    train(ChoiceTime(), TINY, steps=2, out=tmp_path, resume=False, **SMALL)


@pytest.mark.parametrize(("how", "optimizer"), [(raise_interrupt, "adamw"), (send_interrupt, "muon")])
def test_interrupted_run_ends_where_the_other_does(how, optimizer, tmp_path):
    settings = {**SMALL, "optimizer": optimizer}
    train(Threshold(), TINY, steps=11, out=tmp_path / "whole", **settings)
    before = signal.getsignal(signal.SIGINT)
    # Calls of the simulator: 1 the pilot, then the held-out batches, then one a step.
    held_out = len([None for _ in held_out_batches()])
    for after in (1 + held_out + 5, 1 + held_out + 3):
        with pytest.raises(KeyboardInterrupt, match="the same call goes on"):
            train(Interrupted(after, how), TINY, steps=11, out=tmp_path / "parts", **settings)
        pb.load(tmp_path / "parts" / "best.safetensors", backend="torch")
    step = read_arrays(tmp_path / "parts" / "state.safetensors", "ppl_buffer_run", 2)[0]["progress"]["step"]
    assert step == (6 if how is raise_interrupt else 8)
    assert signal.getsignal(signal.SIGINT) is before
    train(Threshold(), TINY, steps=11, out=tmp_path / "parts", **settings)
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_limited_time_then_the_same_call_goes_on(tmp_path):
    train(ChoiceTime(), TINY, steps=7, out=tmp_path / "whole", **SMALL)
    with pytest.warns(UserWarning, match=r"training stopped after minutes=1e-09; the same call goes on"):
        net = train(ChoiceTime(), TINY, steps=7, out=tmp_path / "parts", **SMALL, minutes=1e-9)
    assert net.record.provenance["step"] == 0
    train(ChoiceTime(), TINY, steps=7, out=tmp_path / "parts", **SMALL, minutes=60)
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_finished_run_is_not_run_again(tmp_path):
    train(ChoiceTime(), TINY, steps=4, out=tmp_path, **SMALL)
    before = (tmp_path / "state.safetensors").stat().st_mtime_ns
    train(ChoiceTime(), TINY, steps=4, out=tmp_path, **SMALL)
    assert (tmp_path / "state.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 5}, "steps was 4, is 5"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"batch_size": 6}, "batch_size was 5, is 6"),
        ({"config": pb.Config(width=16)}, "config was .*'width': 12.* is .*'width': 16"),
        ({"simulator": Shift()}, "schema was .* simulator was 'ChoiceTime', is 'Shift'"),
    ],
)
def test_folder_of_another_run_is_refused(changes, message, tmp_path):
    call = {"simulator": ChoiceTime(), "config": TINY, "steps": 4, "out": tmp_path, **SMALL}
    train(**call)
    kept = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(ValueError, match=message):
        train(**{**call, **changes})
    assert (tmp_path / "state.safetensors").read_bytes() == kept
    train(**{**call, **changes}, resume=False)
    assert (tmp_path / "state.safetensors").read_bytes() != kept


def test_simulator_that_changed_its_mind_is_refused(tmp_path):
    train(pb.simulators.NoisyQ(), TINY, steps=2, out=tmp_path, **SMALL)
    other = pb.simulators.NoisyQ(reward_probabilities=(0.6, 0.6, 0.6))
    with pytest.raises(ValueError, match="the simulator draws other data .* 'reward'"):
        train(other, TINY, steps=2, out=tmp_path, **SMALL)


def test_damaged_state_is_refused(tmp_path):
    train(ChoiceTime(), TINY, steps=2, out=tmp_path, **SMALL)
    whole = (tmp_path / "state.safetensors").read_bytes()
    (tmp_path / "state.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="damaged"):
        train(ChoiceTime(), TINY, steps=2, out=tmp_path, **SMALL)


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    pytest.importorskip("lightning_fabric")
    # An odd batch: the processes' shares differ.
    call = {"config": TINY, "steps": 6, **SMALL, "batch_size": 7, "accelerator": "cpu"}
    one = train(ChoiceTime(), out=tmp_path / "one", **call)
    two = train(ChoiceTime(), out=tmp_path / "two", **call, devices=2)
    assert two.record.provenance["step"] == 6
    for name, weight in one.weights.items():
        torch.testing.assert_close(two.weights[name], weight, rtol=1e-3, atol=1e-5, msg=name)
    losses = [np.loadtxt(tmp_path / name / "log.csv", delimiter=",", skiprows=1, usecols=0) for name in ("one", "two")]
    np.testing.assert_array_equal(*losses)


@pytest.mark.slow
def test_killed_run_leaves_files_that_load_and_go_on(tmp_path):
    script = (
        "import sys, ppl_buffer as pb, torch; torch.set_num_threads(1);"
        "pb.train(pb.simulators.NoisyQ(), pb.Config(width=12, depth=2, heads=3, mlp=14, param_depth=1), steps=60,"
        "out=sys.argv[1], batch_size=5, trials=(3, 7), held_out=11, evaluate_every=1, progress=False)"
    )
    folder = tmp_path / "killed"
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script, str(folder)])
        deadline = time.monotonic() + 60
        while not (folder / "state.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(np.random.default_rng().uniform(0, 1))
        process.kill()
        process.wait()
        pb.load(folder / "best.safetensors", backend="torch")
        json.dumps(read_arrays(folder / "state.safetensors", "ppl_buffer_run", 2)[0])
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True)
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "whole")], check=True)
    same_run(folder, tmp_path / "whole")
