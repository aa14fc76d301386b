"""The simulator with collapsing boundaries against a numerical density, and that density against what is exact."""

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import trapezoid

from ppl_buffer.simulators import CollapsingDriftDiffusion
from tests.references import drift_diffusion
from tests.references.collapsing_drift_diffusion import CollapsingDensity

SETTINGS = [
    {"drift": 0.0, "boundary": 1.0, "starting_point": 0.5, "non_decision_time": 0.3, "collapse": 3.0},
    {"drift": 1.3, "boundary": 1.7, "starting_point": 0.37, "non_decision_time": 0.21, "collapse": 0.7},
    {"drift": -2.9, "boundary": 4.7, "starting_point": 0.13, "non_decision_time": 1.9, "collapse": 2.9},
    {"drift": 0.4, "boundary": 5.0, "starting_point": 0.61, "non_decision_time": 0.05, "collapse": 0.05},
    {"drift": -0.2, "boundary": 0.6, "starting_point": 0.9, "non_decision_time": 0.7, "collapse": 0.0},
]
NAMES = list(SETTINGS[0])


def rows(settings):
    """Settings as a simulator takes them: dict name -> (size,)."""
    return {name: np.array([setting[name] for setting in settings]) for name in NAMES}


def prior_draws(size, seed=0):
    """Parameters from the prior, a third of them with boundaries that stay."""
    params = CollapsingDriftDiffusion().prior(np.random.default_rng(seed), size)
    params["collapse"][::3] = 0.0
    return params


def probability(density, choice):
    """Of a choice, whatever the time: (size, 1)."""
    shape = density.offset.shape
    return density.distribution_function(np.full(shape, choice), np.full(shape, np.inf))


# The reference ----------------------------------------------------------------------------------------------------


def test_density_without_collapse_is_the_exact_one():
    params = prior_draws(37) | {"collapse": np.zeros(37)}
    density = CollapsingDensity(params)
    column = {name: value[:, None] for name, value in params.items() if name != "collapse"}
    rt = column["non_decision_time"] + column["boundary"] ** 2 * np.geomspace(3e-4, 30, 211)
    for option in (0, 1):
        choice = np.full(rt.shape, option)
        exact = drift_diffusion.log_density(column, option, rt)
        distance = np.where(option, 1 - column["starting_point"], column["starting_point"])
        # Earlier a driftless path has arrived with probability e**-18, and nothing has to be exact.
        begun = rt - column["non_decision_time"] > (column["boundary"] * distance) ** 2 / 36
        np.testing.assert_allclose(density.log_density(choice, rt)[begun], exact[begun], rtol=0, atol=1e-5)
        distribution = drift_diffusion.distribution_function(column, option, rt)
        np.testing.assert_allclose(density.distribution_function(choice, rt), distribution, rtol=0, atol=1e-6)


def test_half_the_step_changes_nothing():
    params = prior_draws(31, seed=1)
    data = CollapsingDriftDiffusion().simulate(np.random.default_rng(1), params, {}, 101)
    coarse, fine = (CollapsingDensity(params, ratio).log_density(data["choice"], data["rt"]) for ratio in (1.01, 1.005))
    np.testing.assert_allclose(coarse, fine, rtol=0, atol=2e-4)


def test_laws_that_hold_for_any_boundaries():
    """Probabilities add up to one, and evidence is fair: what it gains is drift times time, and exp(-2 v X) stays."""
    params = prior_draws(43, seed=2)
    density = CollapsingDensity(params)
    drift, boundary, start, offset, collapse = (params[name][:, None] for name in NAMES)
    time = boundary**2 * np.geomspace(1e-4, 40, 8001)
    half = 0.5 * boundary * np.exp(-collapse * time)
    total = moved = exponential = 0.0
    for option, sign in ((0, -1), (1, 1)):
        choice = np.full(time.shape, option)
        share = np.exp(density.log_density(choice, offset + time))

        def mean(values, share=share):
            return trapezoid(values * share * time, np.log(time))

        total = total + mean(1.0)
        evidence = sign * half - boundary * (start - 0.5)
        moved = moved + mean(evidence - drift * time)
        exponential = exponential + mean(np.exp(-2 * drift * evidence))
    np.testing.assert_allclose(total, 1, atol=1e-4)
    np.testing.assert_allclose(sum(probability(density, option) for option in (0, 1)), 1, atol=1e-4)
    np.testing.assert_allclose(moved, 0, atol=1e-4)
    np.testing.assert_allclose(exponential, 1, atol=1e-3)


def test_distribution_function_is_the_integral_of_the_density():
    density = CollapsingDensity(rows(SETTINGS))
    rt = density.offset + np.linspace(0.01, 2, 20_001)
    for option in (0, 1):
        choice = np.full(rt.shape, option)
        distribution = density.distribution_function(choice, rt)
        integral = trapezoid(np.exp(density.log_density(choice, rt)), rt)
        np.testing.assert_allclose(distribution[:, -1] - distribution[:, 0], integral, atol=1e-5)


def test_no_response_is_faster_than_the_non_decision_time():
    log_density = CollapsingDensity(rows(SETTINGS[1:2])).log_density(np.ones((1, 3)), np.array([[0.1, 0.21, 0.22]]))
    assert (log_density[0, :2] == -np.inf).all() and np.isfinite(log_density[0, 2])


@pytest.mark.parametrize("row", [1, 3])
def test_distribution_agrees_with_pyddm(row):
    pyddm = pytest.importorskip("pyddm")
    setting, step = SETTINGS[row] | {"starting_point": 0.5}, 1e-3
    model = pyddm.Model(
        drift=pyddm.DriftConstant(drift=setting["drift"]),
        noise=pyddm.NoiseConstant(noise=1),
        bound=pyddm.BoundCollapsingExponential(B=0.5 * setting["boundary"], tau=setting["collapse"]),
        overlay=pyddm.OverlayNonDecision(nondectime=setting["non_decision_time"]),
        dx=1e-3, dt=step, T_dur=3,
    )  # fmt: skip
    theirs, density = model.solve_numerical_implicit(), CollapsingDensity(rows([setting]))
    rt = theirs.t_domain[None]
    for option, name in ((0, "error"), (1, "correct")):
        ours = density.distribution_function(np.full(rt.shape, option), rt)[0]
        np.testing.assert_allclose(np.cumsum(theirs.pdf(name)) * step, ours, atol=2e-3)


# The simulator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", range(len(SETTINGS)))
def test_draws_follow_the_density(row):
    setting, trials = rows(SETTINGS[row : row + 1]), 50_000
    data = CollapsingDriftDiffusion().simulate(np.random.default_rng(row), setting, {}, trials)
    density = CollapsingDensity(setting)
    for option in (0, 1):
        expected, mask = probability(density, option).item(), data["choice"] == option
        assert abs(mask.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / trials)
        share = density.distribution_function(data["choice"], data["rt"])[mask] / expected
        assert len(share) < 20 or stats.kstest(share, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("collapses", [False, True])
def test_draws_follow_the_density_all_over_the_box(collapses):
    """Without collapse the density is the exact series, which knows nothing of the numerical one."""
    size, trials = 211, 223
    params = CollapsingDriftDiffusion().prior(np.random.default_rng(1), size)
    params["collapse"] *= collapses
    data = CollapsingDriftDiffusion().simulate(np.random.default_rng(2), params, {}, trials)
    if collapses:
        density = CollapsingDensity(params)
        upper = probability(density, 1)
        distribution = density.distribution_function(data["choice"], data["rt"])
    else:
        column = {name: value[:, None] for name, value in params.items() if name != "collapse"}
        upper = drift_diffusion.distribution_function(column, 1, np.inf)
        distribution = drift_diffusion.distribution_function(column, data["choice"], data["rt"], nodes=160)
    share = distribution / np.where(data["choice"] == 1, upper, 1 - upper)
    for option in (0, 1):
        assert stats.kstest(share[data["choice"] == option], "uniform").pvalue > 1e-3
    assert abs(data["choice"].sum() - trials * upper.sum()) < 4 * np.sqrt(trials * (upper * (1 - upper)).sum())


def test_legal_values_far_outside_the_box_are_simulated():
    extremes = [
        {"drift": 80.0, "boundary": 40.0, "collapse": 0.0},
        {"drift": -80.0, "starting_point": 1e-9},
        {"drift": 0.0, "boundary": 1e-3},
        {"starting_point": 1e-17},
        {"starting_point": 1 - 1e-16},
        {"boundary": 100.0, "collapse": 3.0},
        {"collapse": 1e-300},
    ]
    data = CollapsingDriftDiffusion().simulate(
        np.random.default_rng(0), rows([SETTINGS[1] | x for x in extremes]), {}, 101
    )
    assert np.isfinite(data["rt"]).all() and (data["rt"] >= 0.21).all()
    assert (data["choice"][[0, 4]] == 1).all() and (data["choice"][[1, 3]] == 0).all()
    np.testing.assert_allclose(data["rt"][0], 0.21 + 0.63 * 40 / 80, rtol=0.2)
    # When the boundaries are this close, no path stays between them for long.
    assert (data["rt"][5] < 0.21 + np.log(100 / 0.1) / 3).all()


def test_the_generator_is_the_only_source_of_randomness():
    params = prior_draws(11)
    first, again, other = (
        CollapsingDriftDiffusion().simulate(np.random.default_rng(seed), params, {}, 23)["rt"] for seed in (3, 3, 4)
    )
    assert first.shape == (11, 23)
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_prior_fills_its_box():
    draws = CollapsingDriftDiffusion().prior(np.random.default_rng(0), 20_000)
    box = [(-3, 3), (0.6, 5), (0.1, 0.9), (0, 2), (0, 3)]
    assert list(draws) == NAMES == list(CollapsingDriftDiffusion().schema.params)
    for (low, high), values in zip(box, draws.values(), strict=True):
        assert stats.kstest((values - low) / (high - low), "uniform").pvalue > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drift": np.inf}, r"params\['drift'\]: expected a finite real number, got inf"),
        ({"boundary": 0.0}, r"params\['boundary'\]: expected a number above 0, got 0"),
        ({"starting_point": 1.0}, r"params\['starting_point'\]: expected a number in \(0, 1\), got 1"),
        ({"collapse": -0.1}, r"params\['collapse'\]: expected a number in \[0, 3\], got -0.1"),
    ],
)
def test_illegal_parameters_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        CollapsingDriftDiffusion().simulate(np.random.default_rng(0), rows([SETTINGS[0], SETTINGS[1] | change]), {}, 3)


def test_the_number_of_trials_is_asked_for():
    with pytest.raises(ValueError, match="trials: expected a number"):
        CollapsingDriftDiffusion().simulate(np.random.default_rng(0), rows(SETTINGS), {})
