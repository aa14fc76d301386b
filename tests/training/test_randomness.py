"""A simulator takes its randomness from `rng`: all of it, and nothing else."""

import warnings

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import ppl_buffer as pb
from ppl_buffer.findings import FindingWarning
from ppl_buffer.simulator import name_of
from ppl_buffer.training.randomness import check_randomness
from tests.test_simulator import SHIPPED
from tests.training.cases import SMALL, TINY, ChoiceTime, Shift


@pytest.mark.parametrize("simulator", [*SHIPPED, Shift(), ChoiceTime()], ids=name_of)
def test_shipped_simulators_draw_from_rng_alone(simulator):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_randomness(simulator)


class FixedPrior(Shift):
    def prior(self, rng, size):
        return super().prior(np.random.default_rng(0), size)


class FixedNoise(Shift):
    def simulate(self, rng, params, inputs, trials):
        return super().simulate(np.random.default_rng(0), params, inputs, trials)


class NoNoise(Shift):
    def simulate(self, rng, params, inputs, trials):
        return {"y": np.repeat(params["mu"][:, None], trials, 1)}


@pytest.mark.parametrize(
    ("simulator", "message"),
    [
        (FixedPrior(), "simulator.prior: expected other draws from another rng, got the same"),
        (FixedNoise(), "simulator.simulate: expected other outcomes from another rng, got the same"),
        (NoNoise(), "simulator.simulate: .* without any randomness have no density"),
    ],
)
def test_the_same_whatever_rng_is_refused(simulator, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        pb.train(simulator, TINY, steps=2, out=tmp_path, **SMALL)


class GlobalPrior(Shift):
    def prior(self, rng, size):
        return {"mu": np.random.normal(0, 2, size)}


class GlobalNoise(Shift):
    def simulate(self, rng, params, inputs, trials):
        return {"y": params["mu"][:, None] + np.random.normal(size=(len(params["mu"]), trials))}


@pytest.mark.parametrize(("simulator", "method"), [(GlobalPrior(), "prior"), (GlobalNoise(), "simulate")])
def test_randomness_of_its_own_is_warned_of(simulator, method, tmp_path):
    with pytest.warns(FindingWarning, match=rf"simulator.{method}: the same rng gives other draws") as caught:
        pb.train(simulator, TINY, steps=1, out=tmp_path, **SMALL)
    assert caught[0].filename == __file__ and caught[0].message.finding.parameter == method


def test_a_parameter_that_never_changes_is_no_fixed_seed():
    class Constant(Shift):
        priors = {}

        def prior(self, rng, size):
            return {"mu": np.ones(size)}

    check_randomness(Constant())


def test_a_choice_may_follow_from_what_is_given():
    class Rule(Shift):
        schema = pb.Schema(params={"mu": pb.Real()}, outcomes={"choice": pb.Categorical(2)}, independent=True)

        def simulate(self, rng, params, inputs, trials):
            return {"choice": np.repeat(params["mu"][:, None] > 0, trials, 1)}

    check_randomness(Rule())


def test_arrays_that_are_none_are_refused_by_name(tmp_path):
    class Masked(Shift):
        def simulate(self, rng, params, inputs, trials):
            y = super().simulate(rng, params, inputs, trials)["y"]
            return {"y": np.ma.masked_greater(y, 1.0)}

    class Ragged(Shift):
        def simulate(self, rng, params, inputs, trials):
            return {"y": [list(range(n)) for n in range(len(params["mu"]))]}

    with pytest.raises(ValueError, match="simulator.simulate: expected numbers in all of 'y', got an array"):
        pb.train(Masked(), TINY, steps=1, out=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="simulator.simulate: expected an array of numbers for 'y', got "):
        pb.train(Ragged(), TINY, steps=1, out=tmp_path, **SMALL)
