"""The exact probabilities of learners with lost trials, against a sum over everything that these may have been."""

import importlib
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the script trains networks")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import ppl_buffer as pb
from tests.references import forgetting_q


def rewards(choice, reward, high, change):
    """Probability of the rewards on these choices: of the better arm's paths one after another."""
    total = 0.0
    for better in itertools.product((0, 1), repeat=len(choice)):
        path = 0.5
        for before, after in itertools.pairwise(better):
            path *= change if before != after else 1 - change
        for arm, one, gain in zip(better, choice, reward, strict=True):
            chance = high if one == arm else 1 - high
            path *= chance if gain else 1 - chance
        total += path
    return total


def test_exact_probabilities_are_sums_over_what_was_lost():
    task, rng, length = pb.simulators.ForgettingQ(0.7, 0.11), np.random.default_rng(5), 6
    params = {"alpha_positive": 0.6, "alpha_negative": 0.3, "forgetting": 0.2, "beta": 3.7, "perseveration": 0.4}
    data = {"choice": rng.integers(0, 2, length), "reward": rng.integers(0, 2, length).astype(float)}
    lost = np.array([False, True, False, True, False, False])

    def joint(last, option):
        """Probability of what was seen up to a trial, and of an option on it."""
        total = 0.0
        for hidden in itertools.product((0, 1), repeat=2 * int(lost[:last].sum())):
            choice, reward = data["choice"][: last + 1].copy(), data["reward"][: last + 1].copy()
            choice[:last][lost[:last]], reward[:last][lost[:last]] = hidden[::2], hidden[1::2]
            choice[last] = option
            chosen = np.exp(sum(forgetting_q.log_probabilities(params, choice.tolist(), reward.tolist())))
            total += chosen * rewards(choice[:last], reward[:last], 0.7, 0.11)
        return total

    expected = [joint(last, 1) / (joint(last, 0) + joint(last, 1)) for last in range(length)]
    script = importlib.import_module("missing_history")
    np.testing.assert_allclose(script.exact(task, params, data, lost), expected, rtol=1e-10)
