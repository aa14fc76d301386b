"""Draws follow the density, and it integrates to one."""

from __future__ import annotations

import pytest
from scipy import stats

pytest.importorskip("torch")
pytest.importorskip("pyro")

import pyro
import torch

from tests.pyro.cases import CASES, TRIALS, Case, close

# Below this the draws do not follow the density: a correct program falls below once in a thousand runs of the file.
LEAST_P = 1e-4
DRAWS = 700


@pytest.mark.parametrize("name", ["learning", "curve", "timed"])
def test_draws_follow_the_density(name: str) -> None:
    """Rosenblatt: the conditional distribution function of every draw is uniform, at each trial."""
    case = Case(CASES[name].net, CASES[name].params, trials=3)
    d = case.distribution(())
    value, feedback = d.sample_with_feedback((DRAWS,))
    if feedback:
        d = case.distribution((), feedback=feedback)
    places = d.pit(value).reshape(DRAWS, case.trials, -1)
    for trial in range(case.trials):
        for outcome in range(places.shape[-1]):
            assert stats.kstest(places[:, trial, outcome].numpy(), "uniform").pvalue > LEAST_P
    # The test has power: read in the wrong order the same draws are not uniform.
    if name == "curve":
        inputs = {"x": case.arguments(())["inputs"]["x"].flip(-1)}
        wrong = case.distribution((), inputs=inputs).pit(value)
        assert min(stats.kstest(wrong[:, k].numpy(), "uniform").pvalue for k in range(3)) < LEAST_P


def test_pit_of_categories_is_that_of_the_density(learning: Case) -> None:
    d = learning.distribution(())
    value = d.sample()
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand((TRIALS, 1), generator=generator)[:, 0]
    places = d.pit(value)
    for k in range(TRIALS):
        changed = value.clone()
        changed[k] = 0.0
        zero = d.conditionals(changed)[k].exp()
        expected = uniform[k] * zero if value[k] == 0 else zero + uniform[k] * (1 - zero)
        close(places[k], expected)


def test_slope_of_the_distribution_function_is_the_density(curve: Case) -> None:
    d = curve.distribution(())
    value = d.sample().requires_grad_()
    places, density = d.pit(value), d.conditionals(value).exp()
    for k in range(TRIALS):
        (slope,) = torch.autograd.grad(places[k], value, retain_graph=True)
        close(slope[k], density[k], 1e-4)


@pytest.mark.parametrize("lapse", [None, 0.2])
def test_a_trial_integrates_to_one(lapse: float | None) -> None:
    case = CASES["timed"]
    grid = torch.linspace(-12, 9, 4001)
    d = case.distribution((), inputs={"side": torch.tensor([0.3, -0.4])}, lapse=lapse)
    total = 0.0
    for choice in range(3):
        rt = grid.exp()
        pair = torch.stack([torch.full_like(rt, choice), rt], -1)
        first = torch.tensor([1.0, 0.7]).expand_as(pair)
        density = d.conditionals(torch.stack([first, pair], -2))[:, 1].exp()
        total += float(torch.trapezoid(density * rt, grid))
    assert total == pytest.approx(1.0, abs=1e-3)


def test_moments_are_those_of_draws(curve: Case) -> None:
    d = curve.distribution(())
    draws = d.sample((3000,))[:, 0]  # the first trial sees an empty buffer
    assert float(draws.mean()) == pytest.approx(float(d.mean[0]), abs=4 * float(draws.std()) / 3000**0.5)
    assert float(draws.var()) == pytest.approx(float(d.variance[0]), rel=0.2)


def test_sampling_is_reproducible_and_leaves_the_seed_to_pyro(case: Case) -> None:
    d = case.distribution()
    pyro.set_rng_seed(3)
    first = d.sample((2,))
    pyro.set_rng_seed(3)
    assert torch.equal(first, d.sample((2,)))
    assert not torch.equal(first, d.sample((2,)))
    state = torch.get_rng_state()
    d.log_prob(first), d.pit(first), d.conditionals(first), d.mean  # noqa: B018
    assert torch.equal(state, torch.get_rng_state())
