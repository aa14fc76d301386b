"""The multisensory observer: the simulator against the quadrature, and the quadrature against brute force."""

import numpy as np
import pytest
import scipy.stats

from ppl_buffer.simulators import MultisensoryCausalInference, MultisensoryDepartures
from ppl_buffer.training.standardization import trained_box
from tests import networks
from tests.references import multisensory as reference

RHOS = [1.0, 4 / 3]
SETTING = {
    "log_sigma_V_low": -0.2,
    "log_sigma_V_med": 0.9,
    "log_sigma_V_high": 1.7,
    "log_sigma_A": 1.6,
    "log_sigma_S": 2.4,
    "log_sigma_M": 0.1,
    "logit_p_same": 0.8,
}


def simulated(rho, sets, trials, seed=0, **fixed):
    """Parameters, inputs and reports, each (sets,) or (sets, trials)."""
    simulator, rng = MultisensoryCausalInference(rho), np.random.default_rng(seed)
    params = simulator.prior(rng, sets)
    inputs = simulator.inputs(rng, sets, trials)
    for group in (params, inputs):
        group.update({name: np.full_like(x, fixed[name]) for name, x in group.items() if name in fixed})
    return params, inputs, simulator.simulate(rng, params, inputs)["response"]


def row(arrays, index):
    return {name: x[index] for name, x in arrays.items()}


def density(grid, rho, params=SETTING, **trial):
    """Exact density of reports on a grid, of one kind of trial."""
    inputs = {name: np.full(len(grid), value) for name, value in trial.items()}
    return np.exp(reference.log_likelihood(params, inputs, grid, rho))


# The reference ------------------------------------------------------------------------------------------------------


def estimate(params, trial, eps_a, eps_v, rho):
    """The observer's estimate, from Gaussian densities word by word, for arrays of noise in standard deviations."""
    sigma = {name.removeprefix("log_sigma_"): np.exp(value) for name, value in params.items()}
    level = ("V_low", "V_med", "V_high")[trial["V_level"]]
    a, v, s = sigma["A"], sigma[level], sigma["S"]
    x_a, x_v = rho * (trial["s_A"] + a * eps_a), trial["s_V"] + v * eps_v
    grid = np.linspace(-90, 90, 451)
    source = scipy.stats.norm.pdf(grid, 0, s)
    hears = scipy.stats.norm.pdf(x_a[..., None], grid, a)
    sees = scipy.stats.norm.pdf(x_v[..., None], grid, v)
    both, asked = hears * sees * source, (hears if trial["r_type"] else sees) * source
    step = grid[1] - grid[0]
    one = both.sum(-1) * step
    two = (hears * source).sum(-1) * (sees * source).sum(-1) * step**2
    same = 1 / (1 + np.exp(-params["logit_p_same"]) * two / one)
    return same * (both @ grid) / both.sum(-1) + (1 - same) * (asked @ grid) / asked.sum(-1)


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("r_type", [0, 1])
def test_quadrature_agrees_with_brute_force_from_the_definition(rho, r_type):
    trial = {"r_type": r_type, "s_A": 5.0, "s_V": -6.3, "V_level": 1}
    halton = scipy.stats.norm.ppf(scipy.stats.qmc.Halton(2, seed=3).random(3_000))
    means = estimate(SETTING, trial, halton[:, 0], halton[:, 1], rho)
    reports = np.array([-12.0, -4.0, 0.0, 3.0, 7.0, 52.0])
    motor = np.exp(SETTING["log_sigma_M"])
    brute = 0.98 * scipy.stats.norm.pdf(reports[:, None], means, motor).mean(-1) + 0.02 / 90 * (np.abs(reports) <= 45)
    np.testing.assert_allclose(density(reports, rho, **trial)[:5], brute[:5], rtol=0.01, atol=1e-4)
    assert density(reports, rho, **trial)[5] < 1e-12  # no lapse goes there


@pytest.mark.parametrize("rho", RHOS)
def test_halving_the_step_changes_a_log_likelihood_by_less_than_1e_4(rho):
    params, inputs, response = simulated(rho, 11, 13, seed=5)
    for index in range(11):
        arguments = row(params, index), row(inputs, index), response[index], rho
        np.testing.assert_allclose(
            reference.log_likelihood(*arguments), reference.log_likelihood(*arguments, finer=2), rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("r_type", [0, 1])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_density_integrates_to_one(rho, r_type, level):
    # Cells whose borders are those of the lapses' range.
    grid = np.linspace(-90, 90, 3601)[:-1] + 0.025
    total = density(grid, rho, r_type=r_type, s_A=10.0, s_V=-7.1, V_level=level).sum() * 0.05
    assert abs(total - 1) < 1e-6


def test_without_noise_of_the_flash_or_one_source_the_density_is_gaussian():
    # Certain of two sources: a report of the sound is a shrunken percept, whose scale tells rho.
    params = {**SETTING, "logit_p_same": -60.0}
    a, s, motor = (np.exp(params[f"log_sigma_{name}"]) for name in "ASM")
    shrink = s**2 / (s**2 + a**2)
    grid = np.linspace(-40, 40, 17)
    for rho in RHOS:
        normal = scipy.stats.norm(rho * shrink * 10.0, np.hypot(rho * shrink * a, motor))
        expected = 0.98 * normal.pdf(grid) + 0.02 / 90
        actual = density(grid, rho, params, r_type=1, s_A=10.0, s_V=-7.1, V_level=2)
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


# The simulator ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", RHOS)
def test_reports_follow_the_exact_distribution(rho):
    sets, trials = 3, 6_000
    params, inputs, response = simulated(rho, sets, trials, seed=1, s_A=10.0, s_V=-4.0, **SETTING)
    step = 0.1
    grid = np.arange(-80, 80, step)
    for r_type in (0, 1):
        for level in (0, 1, 2):
            drawn = response[(inputs["r_type"] == r_type) & (inputs["V_level"] == level)]
            assert len(drawn) > 2_500
            exact = density(grid, rho, r_type=r_type, s_A=10.0, s_V=-4.0, V_level=level)
            below = (np.cumsum(exact) - 0.5 * exact) * step
            assert scipy.stats.kstest(drawn, lambda x, below=below: np.interp(x, grid, below)).pvalue > 1e-3


@pytest.mark.parametrize("rho", RHOS)
def test_log_likelihood_is_the_references(rho):
    simulator, rng = MultisensoryCausalInference(rho), np.random.default_rng(11)
    params, inputs = simulator.proposal(rng, 23), simulator.inputs(rng, 23, 7)
    response = simulator.simulate(rng, params, inputs)["response"]
    # Reports that nobody makes, and those which not even a lapse explains.
    response[:, 0] += np.linspace(-40, 40, 23)
    response[:3, 1] = 44.9, -44.9, 60.0
    actual = simulator.log_likelihood(params, {**inputs, "response": response})
    finer = [reference.log_likelihood(row(params, i), row(inputs, i), response[i], rho, finer=1.5) for i in range(23)]
    assert actual.shape == (23, 7)
    within = np.abs(response) <= 45
    np.testing.assert_allclose(actual[within], np.stack(finer)[within], rtol=0, atol=3e-4)
    assert within.mean() > 0.8 and (actual[~within] < -4.5).all()


@pytest.mark.parametrize("rho", RHOS)
def test_likelihood_is_a_density_of_reports(rho):
    # One trial, its reports on a grid: data sets of many trials and one observer.
    grid = np.linspace(-45, 45, 601)[:-1] + 0.075
    for level, sources in ((0, 0.5), (2, 4.5)):
        params = {name: np.array([value]) for name, value in {**SETTING, "log_sigma_S": sources}.items()}
        trial = {"r_type": 1, "s_A": 5.0, "s_V": -7.1, "V_level": level}
        inputs = {name: np.full((1, len(grid)), value) for name, value in trial.items()}
        total = np.exp(MultisensoryCausalInference(rho).log_likelihood(params, {**inputs, "response": grid[None]}))
        # What lies beyond is that which no lapse reaches.
        assert 0.999 < total.sum() * 0.15 < 1 + 1e-5


def test_rho_stretches_reports_of_sounds():
    slopes = []
    for rho in RHOS:
        _, inputs, response = simulated(rho, 1, 20_000, seed=2, r_type=1, **{**SETTING, "logit_p_same": -60.0})
        slopes.append(np.polyfit(inputs["s_A"][0], response[0], 1)[0])
    np.testing.assert_allclose(slopes[1] / slopes[0], 4 / 3, rtol=0.02)


def test_the_data_tell_the_true_rho():
    gain = []
    for rho, other in (RHOS, RHOS[::-1]):
        params, inputs, response = simulated(rho, 5, 120, seed=4, **SETTING)
        for index in range(5):
            data = row(params, index), row(inputs, index), response[index]
            gain.append(reference.log_likelihood(*data, rho).sum() - reference.log_likelihood(*data, other).sum())
    assert np.mean(gain) > 2 and np.mean(np.array(gain) > 0) > 0.8


def test_prior_is_that_of_the_reference():
    size = 20_011
    draws = MultisensoryCausalInference().prior(np.random.default_rng(0), size)
    expected = reference.from_scores(np.random.default_rng(1).standard_normal((size, 7)))
    assert list(draws) == list(expected) == list(SETTING) == list(MultisensoryCausalInference.schema.params)
    for name in draws:
        assert scipy.stats.ks_2samp(draws[name], expected[name]).pvalue > 1e-3
    low, medium, high = (draws[f"log_sigma_V_{level}"] for level in ("low", "med", "high"))
    for change, loc, scale in ((low, 0, 1.5), (medium - low, 1, 1), (high - medium, 0.75, 0.5)):
        assert scipy.stats.kstest(change, scipy.stats.truncnorm(-2, 2, loc, scale).cdf).pvalue > 1e-3
        assert abs(change - loc).max() <= 2 * scale
    # The range that counts as trained holds what the sums can reach, and names what each is relative to.
    box, priors = trained_box(MultisensoryCausalInference())
    assert box["log_sigma_V_low"] == (-3.0, 3.0) and box["log_sigma_A"] == (0.75, 2.75)
    assert box["log_sigma_V_med"] == (-4.0, 6.0) and box["log_sigma_V_high"] == (-4.25, 7.75)
    assert [prior.relative_to for prior in priors.values()][:4] == [None, "log_sigma_V_low", "log_sigma_V_med", None]


def test_inputs_are_those_of_the_experiment():
    inputs = MultisensoryCausalInference().inputs(np.random.default_rng(0), 41, 503)
    sound, flash = inputs["s_A"].ravel(), inputs["s_V"].ravel()
    values, counts = np.unique(sound, return_counts=True)
    assert values.tolist() == [-15, -10, -5, 0, 5, 10, 15] and scipy.stats.chisquare(counts).pvalue > 1e-3
    together = sound == flash
    assert scipy.stats.binomtest(int(together.sum()), together.size, 0.5).pvalue > 1e-3
    assert scipy.stats.kstest(flash[~together], scipy.stats.uniform(-20, 40).cdf).pvalue > 1e-3
    combinations = np.bincount((3 * inputs["r_type"] + inputs["V_level"]).ravel())
    assert len(combinations) == 6 and scipy.stats.chisquare(combinations).pvalue > 1e-3
    assert abs(np.corrcoef(together, inputs["V_level"].ravel())[0, 1]) < 0.03


def test_the_generator_is_the_only_source_of_randomness():
    (_, _, first), (_, _, again), (_, _, other) = (simulated(1.0, 3, 7, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan"), float("inf"), "1", True])
def test_refuses(rho):
    with pytest.raises(ValueError, match="rho: expected a finite number above 0, got"):
        MultisensoryCausalInference(rho)


def test_the_two_models_have_names_of_their_own():
    names = [MultisensoryCausalInference(rho).name for rho in RHOS]
    assert names == ["MultisensoryCausalInference(rho=1)", "MultisensoryCausalInference(rho=1.333)"]


@pytest.mark.parametrize("rho", RHOS)
def test_trials_seen_in_a_mirror_are_as_likely(rho):
    params, inputs, response = simulated(rho, 7, 3)
    mirrored = MultisensoryCausalInference(rho).augment(np.random.default_rng(3), {**inputs, "response": response})
    sign = mirrored["response"][:, 0] / response[:, 0]
    assert set(sign) == {-1.0, 1.0}
    for index in range(7):
        values = [
            reference.log_likelihood(row(params, index), {name: data[name][index] for name in inputs}, y[index], rho)
            for data, y in ((inputs, response), (mirrored, mirrored["response"]))
        ]
        np.testing.assert_allclose(*values, rtol=1e-5)


# Observers who depart from it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", RHOS)
def test_observers_who_do_not_depart_follow_the_exact_distribution(rho):
    rng, trials = np.random.default_rng(6), 9_001
    params = {name: np.array([value]) for name, value in SETTING.items()}
    trial = {"r_type": 1, "s_A": 10.0, "s_V": -4.0, "V_level": 1}
    inputs = {name: np.full((1, trials), value) for name, value in trial.items()}
    drawn = MultisensoryDepartures(rho, share=0.0).simulate(rng, params, inputs)["response"][0]
    grid = np.arange(-80, 80, 0.1)
    exact = density(grid, rho, **trial)
    below = (np.cumsum(exact) - 0.5 * exact) * 0.1
    assert scipy.stats.kstest(drawn, lambda x: np.interp(x, grid, below)).pvalue > 1e-3


def test_observers_depart_by_their_share_and_each_in_ways_of_their_own():
    sets, trials = 211, 503
    params = {name: np.full(sets, value) for name, value in SETTING.items()}
    trial = {"r_type": 1, "s_A": 10.0, "s_V": -4.0, "V_level": 1}
    inputs = {name: np.full((sets, trials), value) for name, value in trial.items()}
    grid = np.arange(-80, 80, 0.1)
    exact = density(grid, 1.0, **trial)
    below = (np.cumsum(exact) - 0.5 * exact) * 0.1
    found = {}
    for share in (0.0, 0.6, 1.0):
        drawn = MultisensoryDepartures(share=share).simulate(np.random.default_rng(7), params, inputs)["response"]
        assert np.isfinite(drawn).all()
        values = [scipy.stats.kstest(row, lambda x: np.interp(x, grid, below)).pvalue for row in drawn]
        found[share] = np.mean(np.array(values) < 1e-3)
    # With this many trials nearly every departure shows.
    assert found[0.0] < 0.02 and found[1.0] > 0.85 and abs(found[0.6] / found[1.0] - 0.6) < 0.12


@pytest.mark.parametrize(("near", "precise"), [(0.0, 0.0), (0.3, 0.2)])
def test_half_of_the_observers_are_spread_over_the_range_of_the_prior_and_some_are_near_or_precise(near, precise):
    simulator, size = MultisensoryDepartures(near=near, precise=precise), 20_011
    drawn = simulator.prior(np.random.default_rng(8), size)
    lowest = {"log_sigma_S": (near, np.log(3)), "log_sigma_M": (precise, np.log(0.8))}
    assert list(drawn) == list(simulator.schema.params)
    for name, prior in simulator.priors.items():
        x = drawn[name] - (drawn[prior.relative_to] if prior.relative_to else 0.0)
        loc, scale = prior.arguments["loc"], prior.arguments["scale"]
        low, (share, most) = loc - 2 * scale, lowest.get(name, (0.0, loc))
        parts = [
            ((1 - share) / 2, scipy.stats.uniform(low, 4 * scale)),
            ((1 - share) / 2, scipy.stats.truncnorm(-2, 2, loc=loc, scale=scale)),
            (share, scipy.stats.uniform(low, most - low)),
        ]
        tested = scipy.stats.kstest(x, lambda x, parts=parts: sum(weight * part.cdf(x) for weight, part in parts))
        assert tested.pvalue > 1e-4, name


def test_reports_are_stretched_by_the_question():
    # Without noise an observer reports where the flash was, whatever its level.
    sets, trials = 307, 53
    params = {name: np.full(sets, -20.0) for name in SETTING} | {"log_sigma_S": np.full(sets, 4.5)}
    inputs = {
        name: np.full((sets, 3 * trials), value) for name, value in {"r_type": 0, "s_A": 10.0, "s_V": 10.0}.items()
    }
    inputs["V_level"] = np.tile(np.repeat(np.arange(3), trials), (sets, 1))
    spread = {}
    for share, extent in ((0.0, 1.0), (1.0, 1.0), (1.0, 0.5)):
        simulator = MultisensoryDepartures(share=share, extent=extent)
        drawn = simulator.simulate(np.random.default_rng(9), params, inputs)["response"]
        middle = np.median(drawn.reshape(sets, 3, trials), -1)
        spread[share, extent] = np.median(np.ptp(middle, axis=1) / middle.mean(1))
    assert spread[0.0, 1.0] < 0.01
    assert spread[1.0, 1.0] > 0.1
    assert 0.35 < spread[1.0, 0.5] / spread[1.0, 1.0] < 0.65


def test_some_observers_now_and_then_report_what_was_not_asked_for():
    # Without noise, and sure of two sources, an observer reports the flash, at the other side of the sound.
    sets, trials = 401, 211
    params = {name: np.full(sets, -20.0) for name in SETTING} | {"log_sigma_S": np.full(sets, 4.5)}
    values = {"r_type": 0, "s_A": -15.0, "s_V": 15.0, "V_level": 0}
    inputs = {name: np.full((sets, trials), value) for name, value in values.items()}
    found = {}
    for share in (0.0, 1.0):
        drawn = MultisensoryDepartures(share=share).simulate(np.random.default_rng(10), params, inputs)["response"]
        # Of lapses, 2 % as a rule, a third lie there.
        found[share] = (((-30 < drawn) & (drawn < -8)).mean(1) > 0.04).mean()
    assert found[0.0] < 0.02
    assert 0.2 < found[1.0] < 0.4


@pytest.mark.parametrize(("name", "most"), [("share", 1), ("near", 1), ("precise", 1), ("extent", 2)])
def test_departures_refuse_what_is_out_of_range(name, most):
    for value in (most + 0.2, -0.1):
        with pytest.raises(ValueError, match=f"{name}: expected a number from 0 to {most}, got {value}"):
            MultisensoryDepartures(**{name: value})


# A network of it ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["torch", "jax"])
def trained(request):
    """Backend, case and network with random weights, whose record is that of a training run."""
    pytest.importorskip({"torch": "pyro", "jax": "numpyro"}[request.param])
    box, priors = trained_box(MultisensoryCausalInference())
    record = networks.Record(box=box, priors=priors, trials=7, context=5, simulator="none")
    case = networks.Case("multisensory", MultisensoryCausalInference.schema)
    return request.param, case, networks.network(case, request.param, record)


def test_net_prior_gives_a_function_of_the_parameter_that_it_is_relative_to(trained):
    backend, _, net = trained
    prior, scores = net.prior(), np.random.default_rng(0).standard_normal((5, 7))
    values = {name: x.astype(np.float32) for name, x in reference.from_scores(scores).items()}
    log_density = 0.0
    for name, value in values.items():
        origin = net.record.priors[name].relative_to
        given = prior[name] if origin is None else prior[name](networks.array(backend, values[origin]))
        log_density = log_density + np.asarray(given.log_prob(networks.array(backend, value)))
    means, scales = np.array([0, 1, 0.75, 1.75, 2.5, 0, 1.5]), np.array([1.5, 1, 0.5, 0.5, 1, 0.5, 1.5])
    columns = np.stack(list(values.values()), -1)
    columns[:, 1:3] -= columns[:, :2].copy()
    expected = scipy.stats.truncnorm.logpdf(columns, -2, 2, means, scales).sum(-1)
    np.testing.assert_allclose(log_density, expected, rtol=1e-4)


def test_differences_beyond_the_prior_count_as_outside_of_what_was_trained(trained):
    backend, case, net = trained
    given = networks.data(case, batch=2, trials=7, points=5, context=False)
    # Each within its own range; the second data set's medium noise is below the low one by more than was trained.
    params = {name: np.full(2, value, dtype=np.float32) for name, value in SETTING.items()}
    params["log_sigma_V_med"] = np.array([-1.1, -1.3], dtype=np.float32)
    params["log_sigma_V_high"] = params["log_sigma_V_med"] + 0.5
    with pytest.raises(ValueError, match=r"log_sigma_V_med - log_sigma_V_low'\]: 50% of the values lie outside"):
        networks.joint_predictive(case, backend, given.inputs, net, params=params, outside="error")
    density = networks.joint_predictive(case, backend, given.inputs, net, params=params, outside="-inf")
    finite = np.isfinite(np.asarray(density.log_prob(networks.array(backend, given.value))))
    assert finite.tolist() == [True, False]
    # Where the other parameter is not given there is nothing to compare with.
    del params["log_sigma_V_low"]
    networks.joint_predictive(case, backend, given.inputs, net, params=params, outside="error")
