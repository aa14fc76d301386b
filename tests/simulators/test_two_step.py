"""The two-step task's hybrid model against a plain loop, and its task against what it says of itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ppl_buffer.simulators import ForgettingQ, TwoStep
from tests.references import two_step as reference

SIMULATOR = TwoStep()
ALL = ("common", "choice_1", "choice_2", "reward")


def simulated(size, trials, seed=0, **fixed):
    """Parameters, data with inputs, and the probabilities of both choices."""
    rng = np.random.default_rng(seed)
    params = SIMULATOR.prior(rng, size) | {name: np.full(size, value) for name, value in fixed.items()}
    inputs = SIMULATOR.inputs(rng, size, trials)
    data, probabilities = SIMULATOR.simulate_with_probabilities(rng, params, inputs)
    return params, inputs | data, probabilities


def chosen(probabilities, choice):
    return np.take_along_axis(probabilities, choice[..., None], -1)[..., 0]


@pytest.fixture(scope="module")
def small():
    return simulated(13, 41)


@pytest.fixture(scope="module")
def large():
    return simulated(1500, 80, seed=1)


def test_likelihood_and_probabilities_are_those_of_the_plain_loop(small):
    params, data, probabilities = small
    total = SIMULATOR.log_likelihood(params, data)
    for row in range(13):
        one = {name: float(value[row]) for name, value in params.items()}
        expected = np.array(reference.log_probabilities(one, *(data[name][row].tolist() for name in ALL)))
        np.testing.assert_allclose(total[row], expected.sum(-1), rtol=1e-9)
        for index, name in enumerate(("choice_1", "choice_2")):
            log_prob = np.log(chosen(probabilities[name], data[name])[row])
            np.testing.assert_allclose(log_prob, expected[:, index], rtol=1e-9)


def test_the_reference_in_jax_agrees_and_skips_trials_that_do_not_exist(small):
    params, data, _ = small
    padded = [np.insert(data[name], [0, 3, 3, 41], 1, axis=1) for name in ALL]
    mask = np.insert(np.ones((13, 41), bool), [0, 3, 3, 41], False, axis=1)
    result = np.asarray(reference.exact_conditionals_jax(params, *padded, mask))
    np.testing.assert_allclose(result[mask].reshape(13, 41), SIMULATOR.log_likelihood(params, data), atol=1e-4)
    assert not result[~mask].any()


def test_choices_follow_their_probabilities_and_so_do_those_drawn_again(large):
    params, data, probabilities = large
    again = SIMULATOR.resample_outcomes(np.random.default_rng(3), params, data, 2)
    for name in ("choice_1", "choice_2"):
        np.testing.assert_allclose(probabilities[name].sum(-1), 1)
        chance = probabilities[name][..., 1]
        assert again[name].shape == (*chance.shape, 2)
        for low in np.linspace(0, 0.9, 10):
            inside = (chance >= low) & (chance < low + 0.1)
            error = np.sqrt((chance * (1 - chance))[inside].sum()) / inside.sum()
            assert abs(data[name][inside].mean() - chance[inside].mean()) < 4 * error
    chance = probabilities["choice_1"][..., 1]
    error = np.sqrt((chance * (1 - chance)).sum() / 2) / chance.size
    assert abs(again["choice_1"].mean() - chance.mean()) < 4 * error
    # Where the first choice came out as it was, the second one is drawn in the same state.
    same = again["choice_1"] == data["choice_1"][..., None]
    chance = np.broadcast_to(probabilities["choice_2"][..., 1:], same.shape)[same]
    assert abs(again["choice_2"][same].mean() - chance.mean()) < 4 * 0.5 / np.sqrt(same.sum())


def test_a_second_choice_that_follows_another_first_one_is_drawn_in_the_other_state():
    """One state has values, the other one none: there, and there alone, both options are equally likely."""
    size = 400
    params = {name: np.full(size, 0.5) for name in SIMULATOR.schema.params} | {"beta_2": np.full(size, 60.0)}
    params["alpha_2"] = np.full(size, 0.99)
    past = {"common": 1, "choice_1": 1, "choice_2": 1, "reward": 1.0}
    data = {name: np.full((size, 2), value) for name, value in past.items()}
    again = SIMULATOR.resample_outcomes(np.random.default_rng(0), params, data, 7)
    first, second = (again[name][:, 1] for name in ("choice_1", "choice_2"))
    assert (second[first == 1] == 1).all()
    assert abs(second[first == 0].mean() - 0.5) < 4 * 0.5 / np.sqrt((first == 0).sum())


def test_the_likelihood_sums_to_one_over_both_choices(small):
    params, data, _ = small
    last = {name: value[:, :9].copy() for name, value in data.items()}
    total = 0.0
    for first in (0, 1):
        for second in (0, 1):
            last["choice_1"][:, -1], last["choice_2"][:, -1] = first, second
            total = total + np.exp(SIMULATOR.log_likelihood(params, last)[:, -1])
    np.testing.assert_allclose(total, 1)


def test_transitions_and_rewards_are_those_of_the_task():
    # A learner who never learns visits all arms equally often.
    _, data, _ = simulated(4000, 60, seed=2, beta_1=0.0, beta_2=0.0, perseveration=0.0)
    common, choice, reward = data["common"], data["choice_1"], data["reward"]
    assert abs(common.mean() - 0.7) < 4 * np.sqrt(0.21 / common.size)
    # Nobody can see the transition before the first choice.
    assert abs(np.corrcoef(common.ravel(), choice.ravel())[0, 1]) < 4 / np.sqrt(common.size)
    assert set(np.unique(reward)) == {0.0, 1.0}
    state = np.where(common == 1, choice, 1 - choice)
    arm = 2 * state + data["choice_2"]
    # Walks stay around one half, and an arm that was rewarded is rewarded again more often than one that was not.
    assert abs(reward.mean() - 0.5) < 0.01
    same = arm[:, 1:] == arm[:, :-1]
    after_gain, after_loss = (reward[:, 1:][same & (reward[:, :-1] == x)].mean() for x in (1, 0))
    # The difference is the variance of the reward probability over that of the reward, 1/4. At the start there are six
    # places 0.1 apart; in the end the walk is anywhere, at 21 places 0.025 apart.
    start, end = 4 * 0.1**2 * (6**2 - 1) / 12, 4 * 0.025**2 * (21**2 - 1) / 12
    assert end - 0.01 < after_gain - after_loss < start + 0.01
    for index in range(4):
        assert abs(reward[arm == index].mean() - 0.5) < 0.02


def test_walks_stay_in_their_range_and_move_by_one_step():
    environment = SIMULATOR.environment
    rng = np.random.default_rng(4)
    size, state, before = 500, {name: np.full(500, value) for name, value in environment.initial_state.items()}, None
    for trial in range(60):
        inputs, outcomes = (
            {"common": rng.integers(0, 2, size)},
            {f"choice_{i}": rng.integers(0, 2, size) for i in (1, 2)},
        )
        _, state = environment(trial, inputs, outcomes, rng.random((size, 1)), state)
        walks = np.stack(list(state.values()))
        assert walks.min() > 0.25 - 1e-9 and walks.max() < 0.75 + 1e-9
        if before is not None:
            np.testing.assert_allclose(np.abs(walks - before), 0.025, atol=1e-9)
        before = walks
    np.testing.assert_allclose(np.corrcoef(walks)[np.triu_indices(4, 1)], 0, atol=4 / np.sqrt(size))


def test_the_environment_serves_every_backend():
    rng = np.random.default_rng(5)
    inputs = {"common": rng.integers(0, 2, 101)}
    outcomes = {"choice_1": rng.integers(0, 2, 101), "choice_2": rng.integers(0, 2, 101)}
    uniform = rng.random((101, 1)).astype(np.float32)
    for simulator in (SIMULATOR, ForgettingQ()):
        given = outcomes | {"choice": outcomes["choice_1"]}
        environment = simulator.environment
        start = {name: np.float32(value) for name, value in environment.initial_state.items()}
        for trial in (0, 3):
            expected = environment(trial, inputs, given, uniform, start)
            traced = jax.jit(environment)(jnp.asarray(trial), inputs, given, uniform, start)
            tensors = jax.tree.map(torch.as_tensor, (inputs, given, uniform, start))
            for other in (traced, environment(trial, *tensors)):
                for ours, theirs in zip(expected, other, strict=True):
                    for name, value in ours.items():
                        np.testing.assert_allclose(np.asarray(theirs[name]), value, atol=1e-6)
