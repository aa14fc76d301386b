"""The particle filter of learners with lost trials, against a sum over everything that these may have been."""

import importlib
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the script asks networks")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from ppl_buffer.simulators import NoisyQTasks
from ppl_buffer.simulators.noisy_q_tasks import RewardTasks
from tests.references import noisy_q


def test_filtered_probabilities_are_sums_over_what_was_lost(monkeypatch):
    # One task that is known, and no learning noise: what is left to the particles is what was lost.
    chances, particles = np.array([[0.8, 0.3], [0.6, 0.1], [0.5, 0.5]]), 2**13

    def known(self, rng, size):
        return RewardTasks(np.broadcast_to(chances, (size, 3, 2)), np.zeros(size), np.full(size, -1.0))

    monkeypatch.setattr(NoisyQTasks, "tasks", known)
    pair, choice = np.array([0, 1, 0, 0, 1, 0, 1]), np.array([1, 0, 0, 1, 1, 0, 1])
    reward = np.array([1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0])
    lost = np.array([False, False, True, False, True, False, False])
    params = {"alpha": 0.6, "beta": 3.0, "kappa": 0.7, "zeta": 0.0}

    def joint(last, option):
        """Probability of what was seen up to a trial, and of an option on it."""
        total = 0.0
        for hidden in itertools.product((0, 1), (-1.0, 1.0), repeat=int(lost[:last].sum())):
            options, rewards = choice[: last + 1].copy(), reward[: last + 1].copy()
            options[:last][lost[:last]], rewards[:last][lost[:last]] = hidden[::2], hidden[1::2]
            options[last] = option
            one = {name: np.array([value]) for name, value in params.items()}
            by_option = noisy_q.exact_log_probabilities(one, pair[None, : last + 1], options[None], rewards[None])[0]
            chance = chances[pair[:last], options[:last]]
            gains = np.where(rewards[:last] == 1, chance, 1 - chance)
            total += np.exp(by_option[np.arange(last + 1), options].sum()) * gains.prod()
        return total

    expected = [joint(last, 1) / (joint(last, 0) + joint(last, 1)) for last in range(len(pair))]
    script, data = importlib.import_module("noisy_q_missing"), {"choice": choice, "reward": reward}
    actual = script.filtered(np.random.default_rng(2), params, pair, data, lost, particles)
    np.testing.assert_allclose(actual, expected, atol=0.01)
    assert np.ptp(expected) > 0.3
