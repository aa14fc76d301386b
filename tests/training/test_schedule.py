"""How long a training is: by steps, by a clock, and on from where it was before its decay."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

from dataclasses import replace

from ppl_buffer.findings import FindingWarning
from ppl_buffer.training import loop
from ppl_buffer.training.loop import train
from ppl_buffer.training.optimizers import set_learning_rate
from ppl_buffer.training.schedule import DECAY, Schedule, begin_decay, seconds_for, warm_up
from ppl_buffer.training.stopwatch import Stopwatch
from tests.training.cases import SMALL, TINY, ChoiceTime, same_arrays, state_of

BOTH = replace(TINY, likelihood_width=8)


class Clock:
    """Every look at it takes some time."""

    def __init__(self, tick):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(0.4)
    monkeypatch.setattr(loop, "Stopwatch", lambda: Stopwatch(clock))
    return clock


@pytest.fixture
def rates(monkeypatch):
    """The learning rates of all steps."""
    seen = []

    def watched(optimizers, rate):
        seen.append(rate)
        set_learning_rate(optimizers, rate)

    monkeypatch.setattr("ppl_buffer.training.trainer.set_learning_rate", watched)
    return seen


def test_the_rate_stays_and_falls_to_zero():
    schedule = Schedule(200.0)
    begun = (1 - DECAY) * 200
    factors = [schedule.factor(done) for done in range(201)]
    np.testing.assert_allclose(factors[: round(begun) + 1], 1)
    np.testing.assert_allclose(np.diff(factors[round(begun) :]), -1 / (200 - begun))
    assert factors[-1] == 0 and not schedule.decays(begun - 1) and schedule.decays(begun)
    assert begin_decay(30.0).decays(30.0) and begin_decay(30.0).factor(30.0) == pytest.approx(1)
    assert [warm_up(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1] and warm_up(0, 0) == 1


def test_the_time_of_the_parts():
    assert seconds_for(90, "likelihood", 1, 0) == 90 and seconds_for(90, "buffer", 1, 0) == 90
    assert seconds_for(90, "likelihood", 2, 0) == pytest.approx(30)
    # What the first did not need is the second's, and its own share whatever that took in earlier calls.
    assert seconds_for(90, "buffer", 2, 10) == 80 and seconds_for(90, "buffer", 2, 90) == pytest.approx(60)


def test_a_stopwatch_does_not_count_a_sleep():
    times = iter([0.0, 1.0, 4.0, 9000.0, 9001.0, 9301.0])
    watch = Stopwatch(lambda: next(times))
    assert [watch.seconds() for _ in range(3)] == [1, 4, 64]
    # A simulator that is as slow counts from its second batch on.
    assert [watch.seconds() for _ in range(2)] == [65, 365]


def test_more_steps_go_on_from_before_the_decay(tmp_path):
    call = {"config": TINY, "warmup": 2, "learning_rate": 1e-2, **SMALL, "evaluate_every": 10}
    train(ChoiceTime(), steps=10, out=tmp_path / "parts", **call)
    first = state_of(tmp_path / "parts", name="before_decay.safetensors")
    assert first[0]["progress"]["step"] == 6
    train(ChoiceTime(), steps=20, out=tmp_path / "parts", **call)
    train(ChoiceTime(), steps=20, out=tmp_path / "whole", **call)
    for name in ("state.safetensors", "before_decay.safetensors"):
        one, other = (state_of(tmp_path / folder, name=name) for folder in ("parts", "whole"))
        same_arrays(one[1], other[1])
        assert one[0]["progress"]["held_out"] == other[0]["progress"]["held_out"]
    with pytest.raises(ValueError, match="steps was 20, is 10"):
        train(ChoiceTime(), steps=10, out=tmp_path / "parts", **call)
    with pytest.raises(ValueError, match="steps was 20, is None"):
        train(ChoiceTime(), minutes=5, out=tmp_path / "parts", **call)


def test_the_rate_is_at_zero_when_the_time_is_over(clock, rates, tmp_path):
    call = {"config": BOTH, "out": tmp_path, **SMALL, "evaluate_every": None, "warmup": 2}
    net = train(ChoiceTime(), minutes=1, **call)
    assert clock.now < 60 + 2
    likelihood, buffer = (state_of(tmp_path, part)[0] for part in ("likelihood", "buffer"))
    count = likelihood["progress"]["step"]
    assert count > 15 and buffer["progress"]["step"] == len(rates) - count > 30
    for part, of_the_part in (("likelihood", rates[:count]), ("buffer", rates[count:])):
        of_the_part = np.array(of_the_part) / max(of_the_part)
        assert of_the_part[-1] < 0.25 and (np.diff(of_the_part[3:]) <= 0).all()
        share = np.mean(of_the_part[2:] < 1)
        assert abs(share - DECAY) < 0.12, part
    assert likelihood["progress"]["finished"] and 15 < likelihood["planned"]["total"] <= 20
    assert [stage.part for stage in net.record.stages] == ["likelihood", "buffer"]
    # The same call does nothing more; one with more minutes goes on from where the rate was constant.
    steps = len(rates)
    train(ChoiceTime(), minutes=1, **call)
    assert len(rates) == steps
    clock.now = 0.0
    train(ChoiceTime(), minutes=2, **call)
    assert clock.now < 60 + 5
    again = state_of(tmp_path, "likelihood")[0]
    assert rates[steps] == max(rates[:count]) and again["progress"]["step"] > 1.5 * count
    assert again["progress"]["best"] <= likelihood["progress"]["best"]


def test_what_is_left_of_the_time_is_what_the_same_call_takes(clock, tmp_path, monkeypatch):
    from tests.training.test_resume import Interrupted, raise_interrupt

    call = {"config": TINY, "out": tmp_path, **SMALL, "evaluate_every": None, "batch_size": 5, "warmup": 0}
    with pytest.raises(KeyboardInterrupt):
        train(Interrupted(40, raise_interrupt), minutes=1, **call)
    used = clock.now
    assert 5 < used < 50
    train(Interrupted(10**9, raise_interrupt), minutes=1, **call)
    assert clock.now < 60 + 4 and state_of(tmp_path)[0]["progress"]["finished"]


def test_a_time_too_short_for_a_step_leaves_a_warning(clock, tmp_path):
    clock.tick = 10.0
    with pytest.warns(FindingWarning, match="a call with more minutes goes on .* The network is untrained"):
        train(ChoiceTime(), TINY, minutes=0.1, out=tmp_path, **SMALL)
