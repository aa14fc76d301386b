"""Confidence with metacognitive noise against quadrature, signal detection theory, and its own draws."""

import numpy as np
import pytest
from scipy import stats

from ppl_buffer.simulators import Confidence
from tests.references import confidence as reference


def simulated(simulator, size, trials, seed=0, **fixed):
    """Parameters, a third of them without metacognitive noise, and inputs with outcomes and their probabilities."""
    rng = np.random.default_rng(seed)
    params = simulator.prior(rng, size)
    params["metacognitive_noise"][::3] = 0.0
    params |= {name: np.full(size, value) for name, value in fixed.items()}
    inputs = simulator.inputs(rng, size, trials)
    data, probabilities = simulator.simulate_with_probabilities(rng, params, inputs)
    return params, {**inputs, **data}, probabilities


@pytest.mark.parametrize("ratings", [2, 4, 5])
def test_likelihood_and_probabilities_are_those_of_the_quadrature(ratings):
    simulator = Confidence(ratings)
    params, data, probabilities = simulated(simulator, 101, 13)
    expected = reference.log_probability(params, data)
    np.testing.assert_allclose(simulator.log_likelihood(params, data), expected, atol=1e-8)
    for name, code in (("choice", data["choice"]), ("rating", data["rating"] - 1)):
        np.testing.assert_allclose(probabilities[name].sum(-1), 1, atol=1e-12)
        expected = expected - np.log(np.take_along_axis(probabilities[name], code[..., None], -1)[..., 0])
    np.testing.assert_allclose(expected, 0, atol=1e-8)


def test_finer_quadrature_changes_nothing():
    params, data, _ = simulated(Confidence(), 53, 7, seed=4)
    finer = reference.log_probability(params, data, nodes=np.polynomial.legendre.leggauss(200))
    np.testing.assert_allclose(reference.log_probability(params, data), finer, atol=1e-8)


def test_probabilities_of_all_answers_sum_to_one():
    simulator = Confidence(3)
    params, data, _ = simulated(simulator, 41, 11, seed=1)
    total = np.zeros((41, 11))
    for choice, rating in np.ndindex(2, 3):
        answer = {"choice": np.full((41, 11), choice), "rating": np.full((41, 11), 1 + rating)}
        total += np.exp(simulator.log_likelihood(params, data | answer))
    np.testing.assert_allclose(total, 1, atol=1e-12)


def test_without_metacognitive_noise_it_is_signal_detection():
    params, data, probabilities = simulated(Confidence(), 31, 17, seed=2, metacognitive_noise=0.0)
    mean = 0.5 * params["sensitivity"][:, None] * data["stimulus"]
    steps = np.cumsum([np.zeros(31), *(params[f"increment_{number}"] for number in (1, 2, 3))], 0)
    for row, trial in np.ndindex(31, 17):
        edges, criterion = [*steps[:, row], np.inf], params["criterion"][row]
        one = data["choice"][row, trial] == 1
        below = stats.norm.cdf([criterion + x if one else criterion - x for x in edges], mean[row, trial])
        chance = np.abs(np.diff(below))
        np.testing.assert_allclose(probabilities["rating"][row, trial], chance / chance.sum(), atol=1e-9)


def test_draws_follow_the_quadrature():
    """Every answer of five people to two stimuli; noise in the confidence alone, a bias, and uneven criteria."""
    simulator, trials = Confidence(), 40_009
    params = simulator.prior(np.random.default_rng(5), 5)
    params["metacognitive_noise"] = np.array([0.0, 0.3, 0.8, 1.4, 2.0])
    stimulus = np.tile([-1.0, 0.31], trials)[None, :trials] * np.ones((5, 1))
    data = simulator.simulate(np.random.default_rng(6), params, {"stimulus": stimulus})
    for row, shown in np.ndindex(5, 2):
        one = {name: x[row] for name, x in params.items()}
        where = slice(shown, None, 2)
        answers = {"choice": np.repeat([0, 1], 4), "rating": np.tile([1, 2, 3, 4], 2)}
        expected = np.exp(reference.log_probability(one, answers | {"stimulus": np.full(8, stimulus[row, shown])}))
        code = 4 * data["choice"][row, where] + data["rating"][row, where] - 1
        assert stats.chisquare(np.bincount(code, minlength=8), expected / expected.sum() * code.size).pvalue > 1e-4


def test_left_and_right_are_alike():
    simulator = Confidence()
    params, data, _ = simulated(simulator, 19, 5, seed=3)
    mirrored = data | {"stimulus": -data["stimulus"], "choice": 1 - data["choice"]}
    other = simulator.log_likelihood(params | {"criterion": -params["criterion"]}, mirrored)
    np.testing.assert_allclose(simulator.log_likelihood(params, data), other, rtol=1e-9)


def test_inputs_are_what_they_say():
    stimulus = Confidence().inputs(np.random.default_rng(0), 211, 97)["stimulus"]
    size = stimulus.size
    assert abs((stimulus > 0).mean() - 0.5) < 2 / np.sqrt(size)
    full = np.abs(stimulus) == 1
    assert abs(full.mean() - 0.5) < 2 / np.sqrt(size)
    assert stats.kstest(np.abs(stimulus[~full]), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("ratings", [1, 2.5, True])
def test_a_number_of_ratings_that_is_none_is_refused(ratings):
    with pytest.raises(ValueError, match="ratings: expected an integer of at least 2, got"):
        Confidence(ratings)


def test_illegal_parameters_are_refused():
    params, data, _ = simulated(Confidence(), 2, 3)
    params["increment_2"][1] = 0.0
    with pytest.raises(ValueError, match=r"params\['increment_2'\]: expected a number above 0, got 0"):
        Confidence().simulate(np.random.default_rng(0), params, data)
