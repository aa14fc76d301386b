"""The drift-diffusion simulator against the exact density, and the density against laws that know nothing of series."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import trapezoid
from scipy.linalg import eigh_tridiagonal

from ppl_buffer.simulators import DriftDiffusion, drift_diffusion
from ppl_buffer.simulators.drift_diffusion import decision_log_density, decision_time
from tests.precision import double_precision
from tests.references import drift_diffusion as reference

SETTINGS = [
    {"drift": 0.0, "boundary": 1.0, "starting_point": 0.5, "non_decision_time": 0.3, "drift_variability": 0.0},
    {"drift": 1.3, "boundary": 1.7, "starting_point": 0.37, "non_decision_time": 0.21, "drift_variability": 0.0},
    {"drift": -2.9, "boundary": 4.7, "starting_point": 0.13, "non_decision_time": 1.9, "drift_variability": 0.6},
    {"drift": 0.4, "boundary": 0.7, "starting_point": 0.89, "non_decision_time": 0.05, "drift_variability": 2.3},
    {"drift": -0.2, "boundary": 2.6, "starting_point": 0.9, "non_decision_time": 0.7, "drift_variability": 1.1},
]
NAMES = list(SETTINGS[0])


def rows(settings):
    """Settings as a simulator takes them: dict name -> (size,)."""
    return {name: np.array([setting[name] for setting in settings]) for name in NAMES}


def column(params):
    """Parameters (size,) as (size, 1), against trials."""
    return {name: np.asarray(value)[:, None] for name, value in params.items()}


def prior_draws(size, seed=0):
    """Parameters from the prior, a third of them without drift variability."""
    params = DriftDiffusion().prior(np.random.default_rng(seed), size)
    params["drift_variability"][::3] = 0.0
    return params


# The reference ----------------------------------------------------------------------------------------------------


def test_density_integrates_to_one_over_choices_and_times():
    params = prior_draws(101)
    total = sum(reference.distribution_function(params, choice, np.inf) for choice in (0, 1))
    np.testing.assert_allclose(total, 1, atol=1e-9)


def test_more_terms_change_nothing():
    params = column(prior_draws(101))
    rt = params["non_decision_time"] + np.geomspace(1e-4, 300, 211)
    for choice in (0, 1):
        twice = reference.log_density(params, choice, rt, images=6, sines=8)
        np.testing.assert_allclose(reference.log_density(params, choice, rt), twice, rtol=0, atol=1e-11)


def test_the_two_series_are_the_same_function():
    time, distance = np.geomspace(0.05, 3, 23)[:, None], np.linspace(0.02, 0.98, 31)
    early = reference._log_early(np, time, distance, images=20)
    late = reference._log_late(np, time, distance, sines=40)
    np.testing.assert_allclose(early, late, atol=1e-9)


@pytest.mark.parametrize("setting", SETTINGS, ids=range(len(SETTINGS)))
@pytest.mark.parametrize("choice", [0, 1])
def test_the_simulators_own_density_is_that_of_the_reference(setting, choice):
    time = np.concatenate([[-0.3, 0.0], np.geomspace(0.003, 30, 97)])
    conditioned = [setting[name] for name in ("drift", "boundary", "starting_point")]
    found = decision_log_density(time, *conditioned, choice)
    without = {**setting, "drift_variability": 0.0, "non_decision_time": 0.0}
    np.testing.assert_allclose(found, reference.log_density(without, choice, time), rtol=1e-9, atol=1e-9)
    assert (found[:2] == -np.inf).all() and np.isfinite(found[2:]).all()


def test_the_simulators_log_likelihood_is_that_of_the_reference():
    """Over the wider box too, whose fast drifts leave the lower boundary to a choice in many thousands."""
    simulator = DriftDiffusion(drift=(-6.0, 6.0))
    params = simulator.prior(np.random.default_rng(3), 67)
    params["drift_variability"][::3] = 0.0
    data = simulator.simulate(np.random.default_rng(4), params, {}, 5)
    data["choice"][::5] = 1 - data["choice"][::5]
    data["rt"][7, 2] = 0.5 * params["non_decision_time"][7]
    found = simulator.log_likelihood(params, data)
    np.testing.assert_allclose(found, reference.log_density(column(params), data["choice"], data["rt"]), atol=1e-9)
    assert found[7, 2] == -np.inf


def test_choices_and_mean_decision_time_have_their_closed_form():
    params = prior_draws(31) | {"drift_variability": np.zeros(31)}
    drift, boundary, start = params["drift"], params["boundary"], params["starting_point"]
    upper = np.expm1(-2 * drift * boundary * start) / np.expm1(-2 * drift * boundary)
    np.testing.assert_allclose(reference.distribution_function(params, 1, np.inf), upper, rtol=1e-8)
    # Evidence moves by drift times time on average: from the start to either boundary.
    expected = boundary * (upper - start) / drift
    log_time = np.linspace(np.log(1e-6), np.log(1e3), 20_001)
    density = sum(
        np.exp(reference.log_density(column(params), choice, params["non_decision_time"][:, None] + np.exp(log_time)))
        for choice in (0, 1)
    )
    np.testing.assert_allclose(trapezoid(density * np.exp(2 * log_time), log_time), expected, rtol=1e-6)


@pytest.mark.parametrize("setting", SETTINGS[1:3])
def test_drift_variability_is_an_integral_over_the_drift(setting):
    setting = setting | {"drift_variability": 0.8}
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    fixed = setting | {"drift": setting["drift"] + 0.8 * nodes, "drift_variability": 0.0}
    rt = setting["non_decision_time"] + np.geomspace(0.05, 5, 17)[:, None]
    for choice in (0, 1):
        density = np.exp(reference.log_density(fixed, choice, rt)) @ weights / weights.sum()
        np.testing.assert_allclose(np.log(density), reference.log_density(setting, choice, rt[:, 0]), atol=1e-9)


@pytest.mark.parametrize("drift", [-0.9, 1.3])
def test_density_solves_the_fokker_planck_equation(drift):
    """The flux out of a fine grid of states that jump to their neighbours, each boundary a sink."""
    boundary, cells, cell = 1.7, 1000, 370
    step = boundary / cells
    up, down = 0.5 / step**2 + 0.5 * drift / step, 0.5 / step**2 - 0.5 * drift / step
    # With p_i = (up / down)^(i / 2) q_i the generator is symmetric.
    states = cells - 1
    values, vectors = eigh_tridiagonal(np.full(states, -(up + down)), np.full(states - 1, np.sqrt(up * down)))
    times = np.geomspace(0.03, 4, 19)
    start = vectors[cell - 1] * (up / down) ** (-cell / 2)
    modes = np.exp(times[:, None] * values) * start
    for choice, state, rate in ((1, states, up), (0, 1, down)):
        flux = rate * (up / down) ** (state / 2) * (modes @ vectors[state - 1])
        params = {"drift": drift, "boundary": boundary, "starting_point": cell / cells, "non_decision_time": 0.2}
        density = np.exp(reference.log_density(params, choice, 0.2 + times))
        np.testing.assert_allclose(flux, density, rtol=1e-3, atol=1e-5)


def test_no_response_is_faster_than_the_non_decision_time():
    rt = np.array([0.1, 0.21, 0.2100001])
    log_density = reference.log_density(SETTINGS[1], 1, rt)
    assert (log_density[:2] == -np.inf).all() and np.isfinite(log_density[2])


def test_density_in_jax_agrees_and_is_differentiable():
    params = prior_draws(41)
    choice = np.arange(41) % 2
    rt = params["non_decision_time"] + np.geomspace(0.02, 20, 41)
    rt[7] = 0.5 * params["non_decision_time"][7]

    @jax.jit
    def value_and_gradient(params):
        def total(params):
            log_density = reference.log_density(params, choice, rt, xp=jnp)
            return jnp.where(jnp.isfinite(log_density), log_density, 0.0).sum(), log_density

        return jax.grad(total, has_aux=True)(params)

    with double_precision():
        gradient, value = value_and_gradient({name: jnp.asarray(value) for name, value in params.items()})
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, reference.log_density(params, choice, rt), rtol=1e-10)
    for name in NAMES:
        slope = np.asarray(gradient[name])
        assert slope[7] == 0
        high, low = (
            reference.log_density(params | {name: params[name] + change}, choice, rt) for change in (1e-6, -1e-6)
        )
        others = np.arange(41) != 7
        expected = (high[others] - low[others]) / 2e-6
        np.testing.assert_allclose(slope[others], expected, rtol=1e-4, atol=1e-4)


# The simulator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", range(len(SETTINGS)))
def test_draws_follow_the_exact_density(row):
    setting, trials = SETTINGS[row], 20_000
    data = DriftDiffusion().simulate(np.random.default_rng(row), rows([setting]), {}, trials)
    choice, rt = data["choice"][0], data["rt"][0]
    for option in (0, 1):
        probability = float(reference.distribution_function(setting, option, np.inf))
        error = np.sqrt(probability * (1 - probability) / trials)
        assert abs((choice == option).mean() - probability) < 4 * error
        share = reference.distribution_function(setting, option, rt[choice == option], nodes=160) / probability
        assert len(share) < 20 or stats.kstest(share, "uniform").pvalue > 1e-3


def test_draws_follow_the_exact_density_all_over_the_box():
    trials = 83
    params = prior_draws(211, seed=1)
    data = DriftDiffusion().simulate(np.random.default_rng(2), params, {}, trials)
    upper = reference.distribution_function(params, 1, np.inf)
    probability = np.where(data["choice"] == 1, upper[:, None], 1 - upper[:, None])
    share = reference.distribution_function(column(params), data["choice"], data["rt"], nodes=160) / probability
    for option in (0, 1):
        assert stats.kstest(share[data["choice"] == option], "uniform").pvalue > 1e-3
    assert abs(data["choice"].sum() - trials * upper.sum()) < 4 * np.sqrt(trials * (upper * (1 - upper)).sum())


def test_probabilities_integrate_over_the_drift():
    corner = {"drift": 0.31, "boundary": 5.0, "starting_point": 0.9, "non_decision_time": 1.0, "drift_variability": 2.5}
    params = {name: np.append(value, corner[name]) for name, value in prior_draws(43).items()}
    data, probabilities = DriftDiffusion().simulate_with_probabilities(np.random.default_rng(0), params, {}, 5)
    assert probabilities["choice"].shape == (44, 5, 2)
    for option in (0, 1):
        expected = reference.distribution_function(params, option, np.inf)
        np.testing.assert_allclose(probabilities["choice"][:, :, option], np.repeat(expected[:, None], 5, 1), atol=1e-7)
    np.testing.assert_array_equal(data["rt"], DriftDiffusion().simulate(np.random.default_rng(0), params, {}, 5)["rt"])


def test_proposals_are_accepted_with_the_exact_ratio_of_densities():
    time, distance = np.geomspace(1e-3, 90, 301)[:, None], np.array([0.01, 0.1, 0.23, 0.37, 0.5])
    params = {"drift": 0.0, "boundary": 1.0, "starting_point": distance, "non_decision_time": 0.0}
    one_boundary = np.log(distance) - 0.5 * np.log(2 * np.pi * time**3) - 0.5 * distance**2 / time
    expected = np.exp(reference.log_density(params, 0, time) - one_boundary)
    accepted = drift_diffusion._untouched(*(x.ravel() for x in np.broadcast_arrays(time, distance)))
    np.testing.assert_allclose(accepted.reshape(expected.shape), expected, rtol=0, atol=1e-12)


def test_mean_decision_time_without_drift():
    # From a distance d to one boundary and e to the other, reaching the first takes (e^2 + 2 d e) / 3 on average.
    for start in (0.02, 0.5, 0.97):
        time = decision_time(np.random.default_rng(5), 0.0, 2.0, np.full(100_000, start), 1)
        distance, other = 2 * (1 - start), 2 * start
        expected = (distance**2 + 2 * distance * other) / 3
        assert abs(time.mean() - expected) < 4 * time.std() / np.sqrt(time.size)


def test_legal_values_far_outside_the_box_are_simulated():
    extremes = [
        {"drift": 80.0, "boundary": 40.0},
        {"drift": -80.0, "starting_point": 1e-9},
        {"drift": 0.0, "boundary": 1e-3},
        {"starting_point": 1e-17},
        {"starting_point": 1 - 1e-16},
        {"non_decision_time": 1e-20},
    ]
    data = DriftDiffusion().simulate(np.random.default_rng(0), rows([SETTINGS[1] | x for x in extremes]), {}, 101)
    assert np.isfinite(data["rt"]).all() and (data["rt"] > 0).all()
    assert (data["choice"][0] == 1).all() and (data["choice"][1] == 0).all()
    np.testing.assert_allclose(data["rt"][0], 0.21 + 0.63 * 40 / 80, rtol=0.2)


def test_the_generator_is_the_only_source_of_randomness():
    params = prior_draws(11)
    first, again, other = (
        DriftDiffusion().simulate(np.random.default_rng(seed), params, {}, 23)["rt"] for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_prior_fills_the_published_box():
    draws = DriftDiffusion().prior(np.random.default_rng(0), 20_000)
    box = [(-3, 3), (2 * 0.3, 2 * 2.5), (0.1, 0.9), (0, 2), (0, 2.5)]
    assert list(draws) == NAMES == list(DriftDiffusion().schema.params)
    for (low, high), values in zip(box, draws.values(), strict=True):
        share = np.sort((values - low) / (high - low))
        # Kolmogorov-Smirnov distance from the uniform distribution, at about p = 1e-4.
        assert np.abs(share - np.linspace(0, 1, 20_000)).max() < 2.2 / np.sqrt(20_000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drift": np.nan}, r"params\['drift'\]: expected a finite real number, got nan"),
        ({"boundary": 0.0}, r"params\['boundary'\]: expected a number above 0, got 0"),
        ({"starting_point": 1.0}, r"params\['starting_point'\]: expected a number in \(0, 1\), got 1"),
        ({"non_decision_time": -0.1}, r"params\['non_decision_time'\]: expected a number above 0, got -0.1"),
        ({"drift_variability": 2.6}, r"params\['drift_variability'\]: expected a number in \[0, 2.5\], got 2.6"),
    ],
)
def test_illegal_parameters_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        DriftDiffusion().simulate(np.random.default_rng(0), rows([SETTINGS[0], SETTINGS[1] | change]), {}, 3)


def test_what_is_missing_is_named():
    params = rows(SETTINGS)
    with pytest.raises(ValueError, match="trials: expected a number"):
        DriftDiffusion().simulate(np.random.default_rng(0), params, {})
    del params["drift"]
    with pytest.raises(ValueError, match=r"params: expected \['drift', .* got \['boundary'"):
        DriftDiffusion().simulate(np.random.default_rng(0), params, {}, 3)


@pytest.mark.parametrize("row", [0, 1, 4])
def test_draws_agree_with_ssm_simulators(row):
    """Its time steps let the evidence overshoot a boundary by 0.5826 sqrt(step) on average, as if both were further."""
    simulators = pytest.importorskip("ssms.basic_simulators.simulator")
    setting, trials, step = SETTINGS[row], 10_000, 1e-3
    theta = {"v": setting["drift"], "a": 0.5 * setting["boundary"], "z": setting["starting_point"]}
    theta |= {"t": setting["non_decision_time"], "sv": setting["drift_variability"]}
    theirs = simulators.simulator(
        theta=theta, model="ddm_sdv", n_samples=trials, delta_t=step, max_t=60, random_state=row
    )
    overshoot = 0.5826 * np.sqrt(step)
    boundary = setting["boundary"] + 2 * overshoot
    start = (setting["boundary"] * setting["starting_point"] + overshoot) / boundary
    wider = rows([setting | {"boundary": boundary, "starting_point": start}])
    ours = DriftDiffusion().simulate(np.random.default_rng(row), wider, {}, trials)
    for option, code in ((0, -1), (1, 1)):
        mine, other = ours["rt"][ours["choice"] == option], theirs["rts"][theirs["choices"] == code]
        assert abs(len(mine) - len(other)) < 4 * np.sqrt(trials / 2)
        assert stats.ks_2samp(mine, other).pvalue > 1e-3


def test_the_box_may_be_wider():
    wide, usual = DriftDiffusion(drift=(-6.0, 6.0)), DriftDiffusion()
    assert wide.priors["drift"].range() == (-6.0, 6.0) and usual.priors["drift"].range() == (-3.0, 3.0)
    drift = wide.prior(np.random.default_rng(0), 2000)["drift"]
    assert drift.min() < -5.9 and drift.max() > 5.9
    assert wide.schema == usual.schema and list(wide.priors) == NAMES


@pytest.mark.parametrize("drift", [(3.0, -3.0), (0.0,), (0.0, np.inf), 2.0])
def test_a_box_that_is_none_is_refused(drift):
    with pytest.raises(ValueError, match="drift: expected two finite numbers, the smaller one first"):
        DriftDiffusion(drift=drift)
