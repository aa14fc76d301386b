"""What a simulator returns: refused where it does not fit, dropped and counted where it is not legal."""

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import ppl_buffer as pb
from ppl_buffer.findings import FindingWarning
from ppl_buffer.training.draws import RejectionCounts
from ppl_buffer.training.loop import train
from tests.training.cases import (
    SMALL,
    TINY,
    ChoiceTime,
    Shift,
)


def wrong(method, change):
    class Wrong(ChoiceTime):
        pass

    original = getattr(ChoiceTime, method)
    setattr(Wrong, method, lambda self, *arguments: change(original(self, *arguments)))
    return Wrong()


def changed(data, **values):
    return {**data, **values}


SWP = "simulate_with_probabilities"


@pytest.mark.parametrize(
    ("simulator", "message"),
    [
        (wrong("prior", lambda x: list(x)), r"simulator.prior: expected a dict of arrays, got list"),
        (wrong("prior", lambda x: {"a": x["a"]}), r"simulator.prior: expected \['a', 'b'\], got \['a'\]"),
        (wrong("prior", lambda x: changed(x, b=x["b"][:, None])), r"simulator.prior: expected 'b' of shape \(\d+,\)"),
        (wrong("inputs", lambda x: {"cue": x["cue"] + 1}), r"simulator.inputs: expected 'cue' .* 0 to 2, got 3"),
        (wrong("inputs", lambda x: {"cue": x["cue"].astype(str)}), r"simulator.inputs: expected 'cue' to hold real"),
        (wrong(SWP, lambda x: x[0]), rf"simulator.{SWP}: expected \(data, probabilities\), got dict"),
        (wrong(SWP, lambda x: (changed(x[0], choice=x[0]["choice"] + 0.5), x[1])), r"expected 'choice' .*, got"),
        (wrong(SWP, lambda x: (x[0], {"rt": 1})), r"expected probabilities of 'choice', got those of \['rt'\]"),
        (wrong(SWP, lambda x: (x[0], {"choice": x[1]["choice"] / 2})), r"probabilities of 'choice' that sum to 1"),
        (wrong(SWP, lambda x: (x[0], {"choice": x[1]["choice"][..., 0]})), r"expected 'choice' of shape"),
    ],
)
def test_wrong_returns_are_refused_by_method(simulator, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(simulator, TINY, steps=2, out=tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"schema": None}, r"simulator.schema: expected a Schema, got None"),
        ({"simulate": None}, r"simulator.simulate: expected a method"),
        ({"priors": {"c": pb.Prior.uniform(0, 1)}}, r"simulator.priors: expected a dict keyed by parameters"),
        ({"priors": {"a": (0, 1)}}, r"simulator.priors\['a'\]: expected a Prior, got \(0, 1\)"),
        (
            {"priors": {"a": pb.Prior("Normal", {"loc": 0.0, "scale": 1.0}, relative_to="b")}},
            r"simulator.priors\['a'\]: expected a prior relative to an earlier parameter that has a prior, .* got 'b'",
        ),
        ({"atoms": {"b": 0.0}}, r"simulator.atoms\['b'\]: expected a number above 0, got 0.0"),
    ],
)
def test_wrong_members_are_refused(members, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(type("Wrong", (ChoiceTime,), members)(), TINY, steps=2, out=tmp_path, **SMALL)


class SomeNan(Shift):
    share_of_nan = 0.02


class ManyNan(Shift):
    share_of_nan = 0.2


class AllNan(Shift):
    share_of_nan = 1.0


def test_a_few_failed_data_sets_are_dropped_and_counted(tmp_path):
    with pytest.warns(FindingWarning, match=r"simulated data sets \([1-4]\.\d%\) were left out") as caught:
        net = train(SomeNan(), TINY, steps=20, out=tmp_path, **{**SMALL, "batch_size": 30})
    assert 0.005 < caught[0].message.finding.share < 0.05
    facts = net.record.provenance
    share = facts["dropped_data_sets"] / facts["data_sets"]
    assert facts["data_sets"] > 500 and 0.005 < share < 0.05
    assert math.isfinite(facts["held_out_loss"])


@pytest.mark.parametrize("simulator", [ManyNan(), AllNan()])
def test_many_failed_data_sets_stop_training(simulator, tmp_path):
    with pytest.raises(ValueError, match=r"all but 5% of the data sets, but \d+ of \d+ are not \(y in \d+\)"):
        train(simulator, TINY, steps=20, out=tmp_path, **SMALL)


def test_failures_that_begin_later_stop_training(tmp_path):
    class Tiring(Shift):
        def __init__(self, calls):
            self.calls = calls

        def simulate(self, rng, params, inputs, trials):
            self.calls -= 1
            y = super().simulate(rng, params, inputs, trials)["y"]
            y[: len(y) if self.calls < 0 else 0, 0] = np.inf
            return {"y": y}

    # Calls: three that look at the randomness, one for the scales, four to be compared with later.
    before = 3 + 4
    with pytest.raises(ValueError, match=r"data sets of the held-out loss \d+ of \d+ are not \(y in \d+\)"):
        train(Tiring(before + 1), TINY, steps=20, out=tmp_path, **SMALL)
    with pytest.raises(ValueError, match=r"all but 5% of the data sets, but \d+ of \d+ are not \(y in \d+\)"):
        train(Tiring(before + 9), TINY, steps=20, out=tmp_path, **SMALL)


def test_few_data_sets_decide_nothing():
    RejectionCounts(simulated=199, dropped=100).check()
    RejectionCounts(simulated=200, dropped=10).check()
    with pytest.raises(ValueError, match="11 of 200"):
        RejectionCounts(simulated=200, dropped=11).check()
