"""Simulators of learners whose parameters change from trial to trial, against loops over one person's trials."""

import numpy as np
import pytest

from ppl_buffer.simulators import (
    ForgettingQ,
    NoisyQ,
    NoisyQTasks,
    QLearning,
    QLearningTasks,
    RLDriftDiffusion,
    TwoStep,
)
from ppl_buffer.simulators.drift_diffusion import decision_log_density

SIZE, TRIALS = 5, 17
LEARNERS = [ForgettingQ(), NoisyQ(), NoisyQTasks(), QLearning(), QLearningTasks(), RLDriftDiffusion(), TwoStep()]


def named(simulator):
    return type(simulator).__name__


def draws(simulator, rng, params):
    """Data, and the probabilities of the choices."""
    inputs = simulator.inputs(rng, SIZE, TRIALS)
    keywords = {} if simulator.schema.inputs else {"trials": TRIALS}
    data, chances = simulator.simulate_with_probabilities(rng, params, inputs, **keywords)
    return {**inputs, **data}, chances


def logistic(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("simulator", LEARNERS, ids=named)
def test_parameters_that_stay_may_be_given_once_or_for_each_trial(simulator):
    assert simulator.trial_params is True
    params = simulator.prior(np.random.default_rng(1), SIZE)
    repeated = {name: np.repeat(x[:, None], TRIALS, 1) for name, x in params.items()}
    once, chances = draws(simulator, np.random.default_rng(2), params)
    again, same = draws(simulator, np.random.default_rng(2), repeated)
    for name, x in {**once, **chances}.items():
        np.testing.assert_array_equal(x, {**again, **same}[name])
    if hasattr(simulator, "log_likelihood"):
        np.testing.assert_array_equal(simulator.log_likelihood(params, once), simulator.log_likelihood(repeated, once))
    if hasattr(simulator, "resample_outcomes"):
        first, second = (
            simulator.resample_outcomes(np.random.default_rng(3), values, once, 3) for values in (params, repeated)
        )
        for name, x in first.items():
            np.testing.assert_array_equal(x, second[name])


@pytest.mark.parametrize("simulator", LEARNERS, ids=named)
def test_what_comes_later_changes_nothing_before(simulator):
    rng = np.random.default_rng(4)
    first, second = simulator.prior(rng, SIZE), simulator.prior(rng, SIZE)
    late = np.arange(TRIALS) >= 9
    mixed = {name: np.where(late, second[name][:, None], x[:, None]) for name, x in first.items()}
    once, chances = draws(simulator, np.random.default_rng(5), first)
    changed, others = draws(simulator, np.random.default_rng(5), mixed)
    once.pop("rt", None)  # all times come from one source, as many tries as each needs
    for name, x in {**once, **chances}.items():
        np.testing.assert_array_equal(x[:, :9], {**changed, **others}[name][:, :9])
    for name, x in chances.items():
        assert (x[:, 9:] != others[name][:, 9:]).any()


def own(params, subject):
    """One person's parameters, trial by trial: a dict for each trial."""
    return [{name: x[subject, k] for name, x in params.items()} for k in range(TRIALS)]


def drawn_by_trial(simulator, seed):
    """Parameters that are new on every trial, (SIZE, TRIALS), and data that were drawn with them."""
    rng = np.random.default_rng(seed)
    params = {name: x.reshape(SIZE, TRIALS) for name, x in simulator.prior(rng, SIZE * TRIALS).items()}
    if "zeta" in params:
        params["zeta"] = np.zeros((SIZE, TRIALS))
    data, chances = draws(simulator, rng, params)
    return params, data, chances


def test_forgetting_learners_against_a_loop():
    params, data, chances = drawn_by_trial(ForgettingQ(), 6)
    for subject in range(SIZE):
        value, previous = [0.5, 0.5], 0.0
        for k, at in enumerate(own(params, subject)):
            upper = logistic(at["beta"] * (value[1] - value[0]) + at["perseveration"] * previous)
            np.testing.assert_allclose(chances["choice"][subject, k, 1], upper)
            choice, reward = int(data["choice"][subject, k]), data["reward"][subject, k]
            error = reward - value[choice]
            value[choice] += at["alpha_positive" if error > 0 else "alpha_negative"] * error
            value[1 - choice] += at["forgetting"] * (0.5 - value[1 - choice])
            previous = 1.0 if choice else -1.0


def test_noisy_learners_without_noise_against_a_loop():
    params, data, chances = drawn_by_trial(NoisyQ(), 7)
    for subject in range(SIZE):
        value, previous = np.full((3, 2), 0.5), 0.0
        for k, at in enumerate(own(params, subject)):
            pair = data["pair"][subject, k]
            upper = logistic(at["beta"] * (value[pair, 1] - value[pair, 0]) + at["kappa"] * previous)
            np.testing.assert_allclose(chances["choice"][subject, k, 1], upper)
            choice, reward = int(data["choice"][subject, k]), data["reward"][subject, k]
            value[pair, choice] += at["alpha"] * (reward - value[pair, choice])
            previous = 1.0 if choice else -1.0


def test_noise_on_some_trials_is_that_of_these_trials():
    """Noise on the very last trial alone is never read: the probabilities are those without noise, exactly."""
    simulator, rng = NoisyQ(), np.random.default_rng(8)
    params = {name: np.repeat(x[:, None], TRIALS, 1) for name, x in simulator.prior(rng, SIZE).items()}
    params["zeta"] = np.where(np.arange(TRIALS) == TRIALS - 1, 0.7, np.zeros((SIZE, 1)))
    quiet = {**params, "zeta": np.zeros((SIZE, TRIALS))}
    _, with_noise = draws(simulator, np.random.default_rng(9), params)
    _, without = draws(simulator, np.random.default_rng(9), quiet)
    np.testing.assert_allclose(with_noise["choice"], without["choice"], rtol=1e-12)


def test_learners_by_diffusion_against_a_loop():
    simulator = RLDriftDiffusion()
    params, data, _ = drawn_by_trial(simulator, 10)
    made = simulator.log_likelihood(params, data)
    for subject in range(SIZE):
        value = np.full((3, 2), 0.5)
        for k, at in enumerate(own(params, subject)):
            pair, choice = data["pair"][subject, k], int(data["choice"][subject, k])
            drift = at["scaling"] * (value[pair, 1] - value[pair, 0])
            time = data["rt"][subject, k] - at["non_decision_time"]
            expected = decision_log_density(*map(np.array, (time, drift, at["boundary"], 0.5, choice)))
            np.testing.assert_allclose(made[subject, k], expected)
            error = data["reward"][subject, k] - value[pair, choice]
            value[pair, choice] += at["alpha_positive" if error > 0 else "alpha_negative"] * error


def test_the_family_of_learners_against_a_loop():
    simulator = QLearningTasks()
    params, data, chances = drawn_by_trial(simulator, 11)
    for subject in range(SIZE):
        value, previous = np.zeros(4), np.zeros(4)
        for k, at in enumerate(own(params, subject)):
            count = int(data["options"][subject, k])
            weight = np.exp(at["beta"] * value[:count] + at["perseveration"] * previous[:count])
            expected = (1 - at["lapse"]) * weight / weight.sum() + at["lapse"] / count
            np.testing.assert_allclose(chances["choice"][subject, k, :count], expected)
            choice, reward = int(data["choice"][subject, k]), data["reward"][subject, k]
            error = reward - value[choice]
            learned = value[choice] + at["alpha_positive" if error > 0 else "alpha_negative"] * error
            value *= 1 - at["forgetting"]
            value[choice], previous = learned, 1.0 * (np.arange(4) == choice)


def test_two_step_learners_against_a_loop():
    simulator = TwoStep()
    params, data, chances = drawn_by_trial(simulator, 12)
    for subject in range(SIZE):
        stage_1, stage_2, previous = np.zeros(2), np.zeros((2, 2)), 0.0
        for k, at in enumerate(own(params, subject)):
            planned = 0.4 * (stage_2[1].max() - stage_2[0].max())
            mixed = at["model_based"] * planned + (1 - at["model_based"]) * (stage_1[1] - stage_1[0])
            np.testing.assert_allclose(
                chances["choice_1"][subject, k, 1], logistic(at["beta_1"] * mixed + at["perseveration"] * previous)
            )
            one, two = int(data["choice_1"][subject, k]), int(data["choice_2"][subject, k])
            state = one if data["common"][subject, k] else 1 - one
            difference = stage_2[state, 1] - stage_2[state, 0]
            np.testing.assert_allclose(chances["choice_2"][subject, k, 1], logistic(at["beta_2"] * difference))
            reward, reached = data["reward"][subject, k], stage_2[state, two]
            stage_1[one] += at["alpha_1"] * (reached - stage_1[one] + at["eligibility"] * (reward - reached))
            stage_2[state, two] += at["alpha_2"] * (reward - reached)
            previous = 1.0 if one else -1.0
