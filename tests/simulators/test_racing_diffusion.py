"""A race of accumulators: its density against SciPy's inverse Gaussian, against unity, and against draws."""

import numpy as np
import pytest
from scipy import stats

from ppl_buffer.simulators import RacingDiffusion
from ppl_buffer.simulators.racing_diffusion import log_passage_density, log_passage_survival
from tests.references import racing_diffusion as reference

SETTINGS = {
    2: {"drift_1": 2.3, "drift_2": 0.8, "boundary": 1.1, "non_decision_time": 0.17},
    3: {"drift_1": 1.9, "drift_2": 0.0, "drift_3": 1.2, "boundary": 1.7, "non_decision_time": 0.31},
    4: {"drift_1": 0.4, "drift_2": 5.3, "drift_3": 3.1, "drift_4": 3.7, "boundary": 2.9, "non_decision_time": 0.23},
}


def rows(setting):
    """A setting as a simulator takes it: dict name -> (1,)."""
    return {name: np.array([value]) for name, value in setting.items()}


def distribution(options):
    """Decision times, and the probability (options, times) of each choice until then, by the trapezoidal rule."""
    setting = SETTINGS[options]
    elapsed = np.geomspace(1e-3, 400, 20_011)
    simulator, rt = RacingDiffusion(options), elapsed[None] + setting["non_decision_time"]
    density = np.exp(
        [
            simulator.log_likelihood(rows(setting), {"choice": np.full(rt.shape, choice), "rt": rt})[0]
            for choice in range(options)
        ]
    )
    areas = 0.5 * (density[:, 1:] + density[:, :-1]) * np.diff(elapsed)
    return elapsed, np.concatenate([np.zeros((options, 1)), np.cumsum(areas, 1)], 1)


def test_passage_times_are_inverse_gaussian():
    rng, count = np.random.default_rng(5), 4999
    time, drift, boundary = (np.exp(rng.uniform(*ends, count)) for ends in ((-6, 6), (-4, 2), (-1, 1.5)))
    law = stats.invgauss(mu=1 / (drift * boundary), scale=boundary**2)
    np.testing.assert_allclose(log_passage_density(time, drift, boundary), law.logpdf(time), rtol=1e-9, atol=1e-9)
    survival = log_passage_survival(time, drift, boundary)
    np.testing.assert_allclose(survival, law.logsf(time), rtol=1e-9, atol=1e-9)
    # Far beyond what a probability can say.
    assert survival.min() < -2000


def test_without_drift_passage_times_are_levy():
    time = np.geomspace(5e-3, 1e5, 31)
    law = stats.levy(scale=1.3**2)
    np.testing.assert_allclose(log_passage_density(time, 0.0, 1.3), law.logpdf(time), rtol=1e-12)
    np.testing.assert_allclose(log_passage_survival(time, 0.0, 1.3), law.logsf(time), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("options", SETTINGS)
def test_one_of_the_options_wins_at_some_time(options):
    elapsed, share = distribution(options)
    np.testing.assert_allclose(share[:, -1].sum(), 1, atol=1e-6)
    # Nobody has won until a time, if no accumulator has arrived.
    setting = SETTINGS[options]
    drifts, times = np.array([setting[f"drift_{number + 1}"] for number in range(options)]), elapsed[[9001, 13_007]]
    nobody = np.exp(log_passage_survival(times[:, None], drifts, setting["boundary"]).sum(-1))
    np.testing.assert_allclose(1 - share[:, [9001, 13_007]].sum(0), nobody, atol=1e-6)


@pytest.mark.parametrize("options", SETTINGS)
def test_draws_follow_the_density(options):
    trials, setting = 20_011, SETTINGS[options]
    data = RacingDiffusion(options).simulate(np.random.default_rng(3), rows(setting), {}, trials)
    elapsed, share = distribution(options)
    counts = np.bincount(data["choice"][0], minlength=options)
    assert stats.chisquare(counts, trials * share[:, -1] / share[:, -1].sum()).pvalue > 1e-3
    for option in range(options):
        time = data["rt"][data["choice"] == option] - setting["non_decision_time"]
        law = share[option] / share[option, -1]
        assert stats.kstest(time, lambda t, law=law: np.interp(t, elapsed, law)).pvalue > 1e-3


def test_the_simulators_own_density_is_the_formula():
    simulator, rng = RacingDiffusion(), np.random.default_rng(0)
    params = simulator.prior(rng, 211)
    params["drift_2"][::3] = 0.0
    data = simulator.simulate(rng, params, {}, 13)
    # Before the non-decision time; and when each of the accumulators should have arrived long ago.
    data["rt"][4, 2], data["rt"][5, 3] = 0.9 * params["non_decision_time"][4], 60.0
    expected = reference.log_density({name: x[:, None] for name, x in params.items()}, data["choice"], data["rt"])
    actual = simulator.log_likelihood(params, data)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)
    assert np.isneginf(actual[4, 2]) and np.isneginf(actual).sum() == 1


def test_the_proposal_has_slow_drifts_more_often():
    simulator = RacingDiffusion()
    proposed = simulator.proposal(np.random.default_rng(7), 5003)
    assert list(proposed) == list(simulator.schema.params)
    for name, x in proposed.items():
        below = simulator.priors[name].cdf(x)
        # Of a product of two uniform numbers.
        level = below * (1 - np.log(below)) if name.startswith("drift_") else below
        assert stats.kstest(level, "uniform").pvalue > 1e-3, name
    drifts = np.stack([proposed[f"drift_{number}"] for number in (1, 2, 3)])
    assert np.corrcoef(drifts)[0, 1:].min() > 0.3


def test_options_have_no_order():
    simulator, rng = RacingDiffusion(4), np.random.default_rng(1)
    params = simulator.prior(rng, 17)
    data = simulator.simulate(rng, params, {}, 11)
    order = np.array([2, 0, 3, 1])
    exchanged = params | {f"drift_{place + 1}": params[f"drift_{old + 1}"] for place, old in enumerate(order)}
    moved = data | {"choice": np.argsort(order)[data["choice"]]}
    np.testing.assert_allclose(
        simulator.log_likelihood(exchanged, moved), simulator.log_likelihood(params, data), rtol=1e-12
    )


@pytest.mark.parametrize("options", [1, 5, 2.5, True, "three", None])
def test_other_numbers_of_options_are_refused(options):
    with pytest.raises(ValueError, match=r"options: expected an integer from 2 to 4, got "):
        RacingDiffusion(options)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"drift_2": np.array([-0.1])}, r"params\['drift_2'\]: expected a number in \[0, 20\], got -0.1"),
        ({"boundary": np.array([0.0])}, r"params\['boundary'\]: expected a number above 0, got 0"),
    ],
)
def test_illegal_parameters_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        RacingDiffusion().simulate(np.random.default_rng(0), rows(SETTINGS[3]) | params, {}, 7)
    with pytest.raises(ValueError, match="trials: expected a number, since there are no inputs, got None"):
        RacingDiffusion().simulate(np.random.default_rng(0), rows(SETTINGS[3]), {})
