"""Forgetting Q-learning against a plain loop, and its bandit against what it says of itself."""

import numpy as np
import pytest

from ppl_buffer.simulators import ForgettingQ
from ppl_buffer.simulators.chance import happens
from tests.references import forgetting_q as reference


def simulated(simulator, size, trials, seed=0, **fixed):
    """Parameters, data, and the choice probabilities."""
    rng = np.random.default_rng(seed)
    params = simulator.prior(rng, size) | {name: np.full(size, value) for name, value in fixed.items()}
    data, probabilities = simulator.simulate_with_probabilities(
        rng, params, simulator.inputs(rng, size, trials), trials
    )
    return params, data, probabilities["choice"]


def test_likelihood_and_probabilities_are_those_of_the_plain_loop():
    simulator = ForgettingQ()
    params, data, probabilities = simulated(simulator, 13, 41)
    likelihood = simulator.log_likelihood(params, data)
    log_prob = np.log(np.take_along_axis(probabilities, data["choice"][..., None], -1)[..., 0])
    np.testing.assert_allclose(log_prob, likelihood, rtol=1e-9)
    for row in range(13):
        one = {name: float(value[row]) for name, value in params.items()}
        expected = reference.log_probabilities(one, data["choice"][row].tolist(), data["reward"][row].tolist())
        np.testing.assert_allclose(likelihood[row], expected, rtol=1e-9)


def test_choices_follow_their_probabilities_and_so_do_those_drawn_again():
    simulator = ForgettingQ()
    params, data, probabilities = simulated(simulator, 1500, 80, seed=1)
    chance = probabilities[..., 1]
    again = simulator.resample_outcomes(np.random.default_rng(2), params, data, 2)["choice"]
    assert again.shape == (1500, 80, 2)
    np.testing.assert_allclose(probabilities.sum(-1), 1)
    for low in np.linspace(0, 0.9, 10):
        inside = (chance >= low) & (chance < low + 0.1)
        error = np.sqrt((chance * (1 - chance))[inside].sum()) / inside.sum()
        for draws in (data["choice"], again[..., 0], again[..., 1]):
            assert abs(draws[inside].mean() - chance[inside].mean()) < 4 * error


def test_rewards_follow_the_better_arm_and_it_reverses():
    simulator = ForgettingQ(reward_probability=0.9, reversal_probability=0.1)
    _, data, _ = simulated(simulator, 4000, 50, seed=3, beta=0.0, perseveration=0.0)
    # The arm that a reward speaks for.
    better = np.where(data["reward"] == 1, data["choice"], 1 - data["choice"])
    assert abs(better[:, 0].mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)
    for lag in (1, 2, 5):
        # Both rewards tell the truth or both lie, and the arm is better still or again.
        honest = 0.9**2 + 0.1**2
        stays = 0.5 + 0.5 * (1 - 2 * 0.1) ** lag
        expected = honest * stays + (1 - honest) * (1 - stays)
        share = (better[:, lag:] == better[:, :-lag]).mean()
        assert abs(share - expected) < 0.006


@pytest.mark.parametrize(
    "arguments", [{"reward_probability": 0.5}, {"reversal_probability": 0}, {"reward_probability": "x"}]
)
def test_wrong_probabilities_are_refused_by_name(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ForgettingQ(**arguments)


def test_what_an_event_leaves_of_its_random_number_is_uniform():
    rng = np.random.default_rng(0)
    probability = np.repeat([0.03, 0.5, 0.8], 20_000)
    happened, rest = happens(rng.random(probability.size), probability)
    for value in (0.03, 0.5, 0.8):
        for event in (0, 1):
            part = rest[(probability == value) & (happened == event)]
            share = (probability == value).sum() * (value if event else 1 - value)
            assert abs(len(part) - share) < 4 * np.sqrt(20_000 * value * (1 - value))
            # Kolmogorov-Smirnov distance from the uniform distribution, at about p = 1e-4.
            distance = np.abs(np.sort(part) - (np.arange(len(part)) + 0.5) / len(part)).max()
            assert distance < 2.2 / np.sqrt(len(part))
