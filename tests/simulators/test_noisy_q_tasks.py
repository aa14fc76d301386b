"""The noisy Q-learner in random tasks: the likelihood of `NoisyQ`, the tasks are of the kinds that it says."""

import numpy as np
import pytest

from ppl_buffer.simulator import WithEnvironment
from ppl_buffer.simulators import NoisyQ, NoisyQTasks
from ppl_buffer.simulators.noisy_q_tasks import RewardTasks
from tests.references import noisy_q as reference


def simulated(size, trials, seed=0, **fixed):
    """Parameters, pairs, choices and rewards, and the simulator's own probabilities."""
    simulator, rng = NoisyQTasks(), np.random.default_rng(seed)
    params = simulator.prior(rng, size) | {name: np.full(size, value) for name, value in fixed.items()}
    pair = simulator.inputs(rng, size, trials)["pair"]
    data, probabilities = simulator.simulate_with_probabilities(rng, params, {"pair": pair})
    return params, (pair, data["choice"], data["reward"]), probabilities["choice"]


def test_probabilities_are_those_of_the_same_learner_whatever_the_task():
    params, data, probabilities = simulated(53, 40, zeta=0.0)
    np.testing.assert_allclose(probabilities, np.exp(reference.exact_log_probabilities(params, *data)), rtol=1e-9)
    # Under noise they come from the filters that `NoisyQ` has, which average over the noise that was drawn.
    params, data, probabilities = simulated(7, 20, seed=1)
    assert (params["zeta"] > 0).all()
    np.testing.assert_allclose(probabilities.sum(-1), 1)
    np.testing.assert_allclose(probabilities[:, 0], 0.5)


def test_rewards_have_two_codes_and_pairs_come_in_turn_or_in_blocks():
    _, (pair, _, reward), _ = simulated(400, 31, zeta=0.0)
    codes = [set(np.unique(row)) for row in reward]
    assert {-1.0, 0.0} not in codes and not any({-1.0, 0.0} <= code for code in codes)
    assert 120 < sum(-1.0 in code for code in codes) < 280
    counts = np.array([len(np.unique(row)) for row in pair])
    assert set(counts) == {1, 2, 3}
    changes = (np.diff(pair, axis=1) != 0).sum(1)
    in_blocks = changes[counts == 3] == 2
    assert 0.1 < in_blocks.mean() < 0.45
    # Each pair equally often, up to one.
    for row in pair[counts == 3]:
        assert np.ptp(np.bincount(row, minlength=3)) <= 1


def test_rewards_follow_the_probabilities_of_the_task_and_reverse():
    size, trials = 3000, 30
    rng, simulator = np.random.default_rng(2), NoisyQTasks(2)
    params = simulator.prior(rng, size)
    inputs = {"pair": np.zeros((size, trials), int)}
    chances = np.broadcast_to([0.9, 0.3], (size, 2, 2))
    still, always = (RewardTasks(chances, np.full(size, rate), np.full(size, -1.0)) for rate in (0.0, 1.0))
    for tasks, reverses in ((still, False), (always, True)):
        data, *_ = simulator.play(rng, params, inputs, tasks)
        # Where it reverses before each trial, the symbols have exchanged their probabilities in every other one.
        option = data["choice"] ^ ((np.arange(trials) + 1) % 2 * reverses)
        for index, chance in enumerate((0.9, 0.3)):
            rewards = data["reward"][option == index]
            assert set(np.unique(rewards)) == {-1.0, 1.0}
            assert abs((rewards == 1).mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / rewards.size)
    drawn = simulator.tasks(rng, 4000)
    assert 0.4 < (drawn.reversal > 0).mean() < 0.6 and drawn.reversal.max() < 0.1
    assert 0.4 < np.isclose(drawn.probabilities.sum(-1), 1).all(-1).mean() < 0.6


def test_it_serves_the_networks_of_the_usual_task_and_gives_no_feedback_of_its_own():
    simulator = NoisyQTasks()
    assert simulator.schema == NoisyQ().schema and simulator.priors == NoisyQ.priors
    assert not isinstance(simulator, WithEnvironment)
    with pytest.raises(ValueError, match="pairs: expected an integer of at least 2, got 1"):
        NoisyQTasks(1)
