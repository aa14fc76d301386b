"""Boundaries that collapse along straight lines: draws against the formula, and that against a diffusion equation."""

import numpy as np
import pytest
from scipy import stats

from ppl_buffer.simulators import AngleDriftDiffusion, from_ssms
from tests.references import angle_drift_diffusion as reference
from tests.references import drift_diffusion

SETTINGS = [
    {"drift": 0.9, "boundary": 1.7, "starting_point": 0.37, "non_decision_time": 0.21, "angle": 0.6},
    {"drift": -1.4, "boundary": 3.9, "starting_point": 0.71, "non_decision_time": 0.9, "angle": 1.2},
    {"drift": -0.3, "boundary": 1.1, "starting_point": 0.5, "non_decision_time": 0.05, "angle": 0.1},
]


def rows(setting):
    """A setting as a simulator takes it: dict name -> (1,)."""
    return {name: np.array([value]) for name, value in setting.items()}


def distribution(setting):
    """Times, and the probability (times, 2) of each choice until then, by the trapezoidal rule in time."""
    closes = 0.5 * setting["boundary"] / np.tan(setting["angle"])
    last = min(closes, 9 * setting["boundary"] ** 2)
    elapsed = last * np.linspace(0, 1, 20_001)[1:-1] ** 2
    density = np.exp(
        [reference.log_density(setting, choice, elapsed + setting["non_decision_time"]) for choice in (0, 1)]
    )
    areas = 0.5 * (density[:, 1:] + density[:, :-1]) * np.diff(elapsed)
    return elapsed, np.concatenate([np.zeros((2, 1)), np.cumsum(areas, 1)], 1).T


@pytest.mark.parametrize("setting", SETTINGS, ids=range(len(SETTINGS)))
def test_formula_solves_the_diffusion_equation(setting):
    elapsed, share = distribution(setting)
    np.testing.assert_allclose(share[-1].sum(), 1, atol=1e-5)
    times = elapsed[[1500, 4000, 7000, 11_000]]
    for option in (0, 1):
        expected = np.interp(times, elapsed, share[:, option])
        np.testing.assert_allclose(reference.reached(setting, times)[:, option], expected, atol=1e-3)


@pytest.mark.parametrize("setting", SETTINGS, ids=range(len(SETTINGS)))
def test_draws_follow_the_formula(setting):
    trials = 20_011
    data = AngleDriftDiffusion().simulate(np.random.default_rng(3), rows(setting), {}, trials)
    elapsed, share = distribution(setting)
    assert abs(data["choice"].mean() - share[-1, 1]) < 4 * np.sqrt(share[-1].prod() / trials)
    for option in (0, 1):
        time = data["rt"][data["choice"] == option] - setting["non_decision_time"]
        assert stats.kstest(time, lambda t, o=option: np.interp(t, elapsed, share[:, o]) / share[-1, o]).pvalue > 1e-3


def test_the_simulators_own_density_is_the_formula():
    simulator, rng = AngleDriftDiffusion(), np.random.default_rng(0)
    params = simulator.prior(rng, 211)
    params["angle"][::3] = 0.0
    data = simulator.simulate(rng, params, {}, 13)
    assert (2 * np.tan(params["angle"]) * (data["rt"].max(1) - params["non_decision_time"]) < params["boundary"]).all()
    # Before the non-decision time, and after the boundaries have met.
    data["rt"][4, 2], data["rt"][5, 3] = 0.9 * params["non_decision_time"][4], 500.0
    expected = reference.log_density({name: x[:, None] for name, x in params.items()}, data["choice"], data["rt"])
    actual = simulator.log_likelihood(params, data)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)
    assert np.isneginf(actual[4, 2]) and np.isneginf(actual[5, 3]) and np.isneginf(actual).sum() == 2


def test_the_proposal_has_wide_and_fast_boundaries_more_often():
    simulator = AngleDriftDiffusion()
    proposed = simulator.proposal(np.random.default_rng(7), 5003)
    assert list(proposed) == list(simulator.schema.params)
    for name, x in proposed.items():
        power = 2 if name in ("boundary", "angle") else 1
        assert stats.kstest(simulator.priors[name].cdf(x) ** power, "uniform").pvalue > 1e-3, name


def test_without_an_angle_it_is_the_model_without_collapse():
    setting = SETTINGS[0] | {"angle": 0.0}
    rt = np.geomspace(0.25, 9, 41)
    for choice in (0, 1):
        plain = drift_diffusion.log_density(setting, choice, rt)
        np.testing.assert_allclose(reference.log_density(setting, choice, rt), plain, rtol=1e-9)


@pytest.mark.parametrize("row", [0, 2])
def test_draws_agree_with_ssm_simulators(row):
    """Its time steps let the evidence overshoot a boundary by 0.5826 sqrt(step) on average, as if both were further."""
    pytest.importorskip("ssms.basic_simulators.simulator")
    setting, trials, step = SETTINGS[row], 10_007, 1e-3
    theta = {"v": setting["drift"], "a": 0.5 * setting["boundary"], "z": setting["starting_point"]}
    theta |= {"t": setting["non_decision_time"], "theta": setting["angle"]}
    theirs = from_ssms("angle", delta_t=step).simulate(np.random.default_rng(row), rows(theta), {}, trials)
    overshoot = 0.5826 * np.sqrt(step)
    boundary = setting["boundary"] + 2 * overshoot
    start = (setting["boundary"] * setting["starting_point"] + overshoot) / boundary
    wider = rows(setting | {"boundary": boundary, "starting_point": start})
    ours = AngleDriftDiffusion().simulate(np.random.default_rng(row), wider, {}, trials)
    for option in (0, 1):
        one, other = (data["rt"][data["choice"] == option] for data in (ours, theirs))
        assert abs(len(one) - len(other)) < 4 * np.sqrt(trials / 2)
        assert stats.ks_2samp(one, other).pvalue > 1e-3
