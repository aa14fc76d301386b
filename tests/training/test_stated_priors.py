"""Priors that a simulator states are those that it draws from."""

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer.simulator import name_of
from ppl_buffer.training.stated_priors import DRAWS, check_priors
from tests.test_simulator import SHIPPED


class Two:
    """Two parameters, the second above the first."""

    schema = pb.Schema(params={"low": pb.Real(), "high": pb.Positive()}, outcomes={"y": pb.Real()}, independent=True)
    priors = {
        "low": pb.Prior("Normal", {"loc": 1.0, "scale": 0.5}),
        "high": pb.Prior("LogNormal", {"loc": 0.0, "scale": 0.5}),
    }

    def prior(self, rng, size):
        return {"low": rng.normal(1, 0.5, size), "high": rng.lognormal(0, 0.5, size)}


def two(**members):
    return type("Mine", (Two,), members)()


@pytest.mark.parametrize("simulator", SHIPPED, ids=name_of)
def test_shipped_priors_are_those_that_are_drawn(simulator):
    if isinstance(simulator, pb.simulators.MultisensoryDepartures):
        # Its observers depart from the prior too: a source of distillation sets, nothing to train a likelihood on.
        with pytest.raises(ValueError, match=r"simulator.priors\['log_sigma_V_low'\]"):
            check_priors(simulator)
        return
    check_priors(simulator)


def test_each_wrong_prior_is_named_with_what_was_drawn():
    check_priors(two())
    wrong = {
        "low": pb.Prior("Normal", {"loc": 1.0, "scale": 0.55}),
        "high": pb.Prior("LogNormal", {"loc": 0.05, "scale": 0.5}),
    }
    for name, prior in wrong.items():
        message = rf"simulator.priors\['{name}'\]: expected what prior\(\) draws from, got {prior.family}\(loc="
        with pytest.raises(ValueError, match=message):
            check_priors(two(priors={**Two.priors, name: prior}))
    # Shares by hand: 31 % of the draws from Normal(1, 0.5) lie below 0.75, where Normal(1.5, 0.5) has 7 %.
    with pytest.raises(ValueError, match=r"drawn values (6\d|7\d|5\d)% are at most 1\.\d+, where it has (2|3)\d%"):
        check_priors(two(priors={"low": pb.Prior("Normal", {"loc": 1.5, "scale": 0.5})}))


def test_a_relative_prior_is_of_the_difference():
    relative = {**Two.priors, "high": pb.Prior("Uniform", {"low": 0.0, "high": 1.0}, relative_to="low")}

    def prior(self, rng, size):
        low = rng.normal(1, 0.5, size)
        return {"low": low, "high": low + rng.uniform(0, 1, size)}

    check_priors(two(priors=relative, prior=prior))
    with pytest.raises(ValueError, match=r"priors\['high'\].*drawn differences from 'low'"):
        check_priors(two(priors=relative))


def test_parameters_that_hang_together_are_not_independent():
    def prior(self, rng, size):
        common = rng.normal(size=size)
        low = 1 + 0.5 * (0.2 * common + np.sqrt(0.96) * rng.normal(size=size))
        return {"low": low, "high": np.exp(0.5 * (0.4 * common + np.sqrt(0.84) * rng.normal(size=size)))}

    with pytest.raises(ValueError, match=r"draws independently, .* 'low' and 'high' correlate by 0\.0[789]"):
        check_priors(two(prior=prior))


def test_right_priors_are_hardly_ever_refused():
    """Of 200 draws of everything: none may be refused, where a level of 0.05 would refuse nineteen in twenty."""
    rng = np.random.default_rng(4)
    for _ in range(200):
        check_priors(two(), Two().prior(rng, DRAWS // 10))


def test_training_refuses_them(tmp_path):
    pytest.importorskip("torch", reason="training needs torch")
    from tests.training.cases import SMALL, TINY, Shift

    wrong = type("Wrong", (Shift,), {"priors": {"mu": pb.Prior("Normal", {"loc": 0.0, "scale": 1.0})}})
    with pytest.raises(ValueError, match=r"simulator.priors\['mu'\]: expected what prior\(\) draws from"):
        pb.train(wrong(), TINY, steps=2, out=tmp_path, **SMALL)
