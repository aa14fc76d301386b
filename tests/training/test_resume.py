"""Runs that stop: interrupted, out of time, killed, or of other settings."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch

import ppl_buffer as pb
from ppl_buffer.files import read_arrays
from ppl_buffer.findings import FindingWarning
from ppl_buffer.training.lock import locked
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


def test_a_run_of_an_earlier_version_is_refused(tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"whatever it held")
    with pytest.raises(ValueError, match="out: .* holds a run that an earlier version .* began .* resume=False"):
        train(ChoiceTime(), TINY, steps=2, out=tmp_path, **SMALL)
    train(ChoiceTime(), TINY, steps=2, out=tmp_path, resume=False, **SMALL)
    assert not (tmp_path / "state.safetensors").exists()


@pytest.mark.parametrize(("how", "optimizer"), [(raise_interrupt, "adamw"), (send_interrupt, "muon")])
def test_interrupted_run_ends_where_the_other_does(how, optimizer, tmp_path):
    settings = {**SMALL, "optimizer": optimizer}
    train(Threshold(), TINY, steps=11, out=tmp_path / "whole", **settings)
    before = signal.getsignal(signal.SIGINT)
    # Calls of the simulator: 1 for the scales, 4 to be compared with later, then the held-out batches, then one a step.
    before_steps = 1 + 4 + len([None for _ in held_out_batches()])
    for after in (before_steps + 5, before_steps + 3):
        with pytest.raises(KeyboardInterrupt, match="the same call goes on"):
            train(Interrupted(after, how), TINY, steps=11, out=tmp_path / "parts", **settings)
        pb.load(tmp_path / "parts" / "best.safetensors", backend="torch")
    step = read_arrays(tmp_path / "parts" / "buffer" / "state.safetensors", "ppl_buffer_run", 3)[0]["progress"]["step"]
    assert step == (6 if how is raise_interrupt else 8)
    assert signal.getsignal(signal.SIGINT) is before
    train(Threshold(), TINY, steps=11, out=tmp_path / "parts", **settings)
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_fewer_steps_are_taken_until_the_rate_would_fall(tmp_path):
    """Nothing depends on how many there are to be until then: 6 of 10 steps, the other 4 being the decay."""
    call = {"config": TINY, "warmup": 2, **SMALL}
    train(Threshold(), steps=10, out=tmp_path / "whole", **call)
    before_steps = 1 + 4 + len([None for _ in held_out_batches()])
    for name, done in (("parts", 6), ("later", 7)):
        with pytest.raises(KeyboardInterrupt):
            train(Interrupted(before_steps + 1 + done, raise_interrupt), steps=20, out=tmp_path / name, **call)
    train(Threshold(), steps=10, out=tmp_path / "parts", **call)
    same_run(tmp_path / "whole", tmp_path / "parts")
    with pytest.raises(ValueError, match="steps was 20, is 10, and 7 are done"):
        train(Threshold(), steps=10, out=tmp_path / "later", **call)


def test_limited_time_then_the_same_call_goes_on(tmp_path):
    train(ChoiceTime(), TINY, steps=7, out=tmp_path / "whole", **SMALL)
    with pytest.warns(FindingWarning, match=r"training stopped after minutes=1e-09; the same call goes on") as caught:
        net = train(ChoiceTime(), TINY, steps=7, out=tmp_path / "parts", **SMALL, minutes=1e-9)
    assert net.record.provenance["step"] == 0
    assert "The network is untrained: it has random weights, since no evaluation came before the end" in str(
        caught[0].message
    )
    train(ChoiceTime(), TINY, steps=7, out=tmp_path / "parts", **SMALL, minutes=60)
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_finished_run_is_not_run_again(tmp_path):
    train(ChoiceTime(), TINY, steps=4, out=tmp_path, **SMALL)
    before = (tmp_path / "buffer" / "state.safetensors").stat().st_mtime_ns
    train(ChoiceTime(), TINY, steps=4, out=tmp_path, **SMALL)
    assert (tmp_path / "buffer" / "state.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 3}, "steps was 4, is 3"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"batch_size": 6}, "batch_size was 5, is 6"),
        ({"config": replace(TINY, width=15)}, "config was .*'width': 12.* is .*'width': 15"),
        ({"simulator": Shift()}, "schema was .* simulator was 'ChoiceTime', is 'Shift'"),
    ],
)
def test_folder_of_another_run_is_refused(changes, message, tmp_path):
    call = {"simulator": ChoiceTime(), "config": TINY, "steps": 4, "out": tmp_path, **SMALL}
    train(**call)
    kept = (tmp_path / "buffer" / "state.safetensors").read_bytes()
    with pytest.raises(ValueError, match=message):
        train(**{**call, **changes})
    assert (tmp_path / "buffer" / "state.safetensors").read_bytes() == kept
    train(**{**call, **changes}, resume=False)
    assert (tmp_path / "buffer" / "state.safetensors").read_bytes() != kept


def test_simulator_that_changed_its_mind_is_refused(tmp_path):
    train(pb.simulators.NoisyQ(), TINY, steps=2, out=tmp_path, **SMALL)
    other = pb.simulators.NoisyQ(reward_probabilities=(0.6, 0.6, 0.6))
    with pytest.raises(ValueError, match=r"out: the simulator draws other data .* 'reward' in"):
        train(other, TINY, steps=2, out=tmp_path, **SMALL)
    train(other, TINY, steps=2, out=tmp_path, resume=False, **SMALL)


class Swapped(ChoiceTime):
    """The corrected simulator: choices change their codes, and neither a mean nor a spread of a number changes."""

    name = "ChoiceTime"

    def simulate_with_probabilities(self, rng, params, inputs):
        data, known = super().simulate_with_probabilities(rng, params, inputs)
        return {**data, "choice": 1 - data["choice"]}, {"choice": known["choice"][..., ::-1]}


class Late(ChoiceTime):
    """The corrected simulator: what it says of probabilities alone."""

    name = "ChoiceTime"

    def simulate_with_probabilities(self, rng, params, inputs):
        data, known = super().simulate_with_probabilities(rng, params, inputs)
        return data, {"choice": 0.9 * known["choice"] + 0.05}


@pytest.mark.parametrize(("corrected", "what"), [(Swapped(), "'choice' in 100%"), (Late(), "'choice' in 9")])
def test_a_corrected_simulator_of_the_same_name_is_not_given_the_old_network(corrected, what, tmp_path):
    call = {"config": TINY, "steps": 2, "out": tmp_path, **SMALL}
    train(ChoiceTime(), **call)
    train(ChoiceTime(), **call)
    with pytest.raises(ValueError, match=f"out: the simulator draws other data .* {what}.* resume=False"):
        train(corrected, **call)


def test_a_simulator_with_randomness_of_its_own_is_warned_of(tmp_path):
    class Loose(ChoiceTime):
        name = "ChoiceTime"

        def simulate_with_probabilities(self, rng, params, inputs):
            return super().simulate_with_probabilities(np.random.default_rng(), params, inputs)

    call = {"config": TINY, "steps": 2, "out": tmp_path, **SMALL}
    train(Loose(), **call)
    with pytest.warns(FindingWarning, match="all its randomness has to come from rng"):
        train(Loose(), **call)


def test_damaged_state_is_refused(tmp_path):
    train(ChoiceTime(), TINY, steps=2, out=tmp_path, **SMALL)
    whole = (tmp_path / "buffer" / "state.safetensors").read_bytes()
    (tmp_path / "buffer" / "state.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="damaged"):
        train(ChoiceTime(), TINY, steps=2, out=tmp_path, **SMALL)


class Hanging(ChoiceTime):
    """Never returns in a worker."""

    home = os.getpid()

    def simulate_with_probabilities(self, rng, params, inputs):
        while os.getpid() != self.home:
            time.sleep(60)
        return super().simulate_with_probabilities(rng, params, inputs)


@pytest.mark.parametrize("how", ["time", "interrupt"])
def test_a_simulator_that_hangs_in_its_worker_does_not_keep_the_training(how, tmp_path, monkeypatch):
    # How long torch lets a worker end by itself.
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    call = {"config": TINY, "steps": 7, "out": tmp_path, **SMALL, "workers": 1}
    begun = time.monotonic()
    if how == "time":
        with pytest.warns(FindingWarning, match="training stopped after minutes=0.01; the same call goes on"):
            train(Hanging(), **call, minutes=0.01)
    else:
        timer = threading.Timer(3.0, send_interrupt)
        timer.start()
        with pytest.raises(KeyboardInterrupt, match="the same call goes on"):
            train(Hanging(), **call)
        timer.join()
    assert time.monotonic() - begun < 30
    assert read_arrays(tmp_path / "buffer" / "state.safetensors", "ppl_buffer_run", 3)[0]["progress"]["step"] == 0


def test_a_folder_has_one_run_at_a_time(tmp_path):
    class Impatient(ChoiceTime):
        def simulate_with_probabilities(self, rng, params, inputs):
            with pytest.raises(ValueError, match="out: another call of this process is training in"):
                train(ChoiceTime(), TINY, steps=4, out=tmp_path, **SMALL)
            return super().simulate_with_probabilities(rng, params, inputs)

    train(Impatient(), TINY, steps=1, out=tmp_path, **SMALL)
    files = ["best.safetensors", "log.csv", "loss.png", "sketch.json", "state.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "buffer"]
    assert sorted(path.name for path in (tmp_path / "buffer").iterdir()) == files


def test_another_process_is_kept_out_until_it_ends_or_is_killed(tmp_path):
    script = (
        "import sys, pathlib; from ppl_buffer.training.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdin=-1, stdout=-1) as other:
        assert other.stdout.readline() == b"in\n"
        message = f"out: another call is training in .* .process {other.pid} on .*; wait until it ends, or choose"
        for _ in range(2):
            with pytest.raises(ValueError, match=message):
                train(ChoiceTime(), TINY, steps=1, out=tmp_path, **SMALL)
        other.kill()
    with locked(tmp_path):
        assert (tmp_path / "run.lock").exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    pytest.importorskip("lightning_fabric")
    # An odd batch: the processes' shares differ.
    call = {"config": TINY, "steps": 6, **SMALL, "batch_size": 7, "accelerator": "cpu", "optimizer": "adamw"}
    one = train(ChoiceTime(), out=tmp_path / "one", **call)
    two = train(ChoiceTime(), out=tmp_path / "two", **call, devices=2)
    assert two.record.provenance["step"] == 6
    for name, weight in one.weights.items():
        torch.testing.assert_close(two.weights[name], weight, rtol=1e-3, atol=1e-5, msg=name)
    losses = [
        np.loadtxt(tmp_path / name / "buffer" / "log.csv", delimiter=",", skiprows=1, usecols=0)
        for name in ("one", "two")
    ]
    np.testing.assert_array_equal(*losses)


@pytest.mark.slow
def test_killed_run_leaves_files_that_load_and_go_on(tmp_path):
    script = (
        "import sys, ppl_buffer as pb, torch; torch.set_num_threads(1);"
        "sizes = pb.Config(width=12, depth=2, heads=3, mlp=14, param_depth=1, likelihood_width=8);"
        "pb.train(pb.simulators.NoisyQ(), sizes, steps=60,"
        "out=sys.argv[1], batch_size=5, trials=(3, 7), held_out=11, evaluate_every=1, progress=False)"
    )
    folder = tmp_path / "killed"
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script, str(folder)])
        deadline = time.monotonic() + 60
        while not (folder / "likelihood" / "state.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(np.random.default_rng().uniform(0, 1))
        process.kill()
        process.wait()
        pb.load(folder / "best.safetensors", backend="torch")
        json.dumps(read_arrays(folder / "likelihood" / "state.safetensors", "ppl_buffer_run", 3)[0])
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True)
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "whole")], check=True)
    same_run(folder, tmp_path / "whole", ("likelihood", "buffer"))
