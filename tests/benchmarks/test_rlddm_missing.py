"""The particle filter of learners by diffusion with lost trials, against a sum over all that these may have been."""

import importlib
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the script asks networks")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from tests.references import rl_drift_diffusion


def test_filtered_densities_are_sums_over_what_was_lost():
    rewarded, particles = np.array([0.9, 0.3, 0.6]), 2**13
    pair, choice = np.array([0, 1, 0, 0, 1, 0, 1]), np.array([1, 0, 0, 1, 1, 0, 1])
    reward = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    rt = np.array([0.71, 0.93, 1.31, 0.59, 0.83, 1.13, 0.67])
    lost = np.array([False, False, True, False, True, False, False])
    params = {
        "alpha_positive": 0.7, "alpha_negative": 0.4, "scaling": 3.0, "boundary": 1.3, "non_decision_time": 0.3
    }  # fmt: skip
    one = {name: np.array([value]) for name, value in params.items()}

    def log_parts(options, rewards, last):
        """Log of: the probability of choice 1 on trial `last`, and the density of all before it, for one history."""
        history = pair[None, : last + 1], options[None], rewards[None]
        drift = rl_drift_diffusion.exact_drifts(one, *history)[0]
        upper = 1 / (1 + np.exp(-drift * params["boundary"]))
        both = rl_drift_diffusion.exact_conditionals(one, *history[:2], rt[None, : last + 1], history[2])[0]
        made = np.where(options == 1, upper, 1 - upper)
        chance = np.where(options == 1, rewarded[pair[: last + 1]], 1 - rewarded[pair[: last + 1]])
        gains = np.where(rewards == 1, chance, 1 - chance)
        # Of a lost trial the time is integrated out; a reward that was seen is given.
        terms = np.where(lost[: last + 1], np.log(made * gains), both)
        return upper[last], terms[:last].sum(), both[last]

    expected = []
    for last in range(len(pair)):
        rows = []
        for hidden in itertools.product((0, 1), (0.0, 1.0), repeat=int(lost[:last].sum())):
            options, rewards = choice[: last + 1].copy(), reward[: last + 1].copy()
            options[:last][lost[:last]], rewards[:last][lost[:last]] = hidden[::2], hidden[1::2]
            rows.append(log_parts(options, rewards, last))
        upper, before, response = np.array(rows).T
        weight = np.exp(before) / np.exp(before).sum()
        expected.append((weight @ upper, np.log(weight @ np.exp(response))))
    script, data = importlib.import_module("rlddm_missing"), {"choice": choice, "rt": rt, "reward": reward}
    actual = script.filtered(np.random.default_rng(2), params, rewarded, pair, data, lost, particles)
    probability, log_density = np.array(expected).T
    np.testing.assert_allclose(actual[0], probability, atol=0.01)
    np.testing.assert_allclose(actual[1][~lost], log_density[~lost], atol=0.02)
    assert np.isnan(actual[1][lost]).all() and np.ptp(probability) > 0.3
