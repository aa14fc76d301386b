"""The family of Q-learners against a plain loop and against its smaller models, and its tasks against what they say."""

import jax
import numpy as np
import pytest

from ppl_buffer.simulator import WithEnvironment
from ppl_buffer.simulators import ForgettingQ, QLearning, QLearningTasks
from ppl_buffer.simulators.q_learning import ReversingArms
from ppl_buffer.simulators.q_learning_tasks import CODES, KINDS, draw_tasks, play_tasks
from tests.references import noisy_q
from tests.references import q_learning as reference


def simulated(simulator, size, trials, seed=0, **fixed):
    """Parameters, inputs with outcomes and rewards, and choice probabilities."""
    rng = np.random.default_rng(seed)
    params = simulator.prior(rng, size) | {name: np.full(size, value) for name, value in fixed.items()}
    inputs = simulator.inputs(rng, size, trials)
    data, probabilities = simulator.simulate_with_probabilities(rng, params, inputs)
    return params, {**inputs, **data}, probabilities["choice"]


@pytest.mark.parametrize("simulator", [QLearning(), QLearningTasks()], ids=["environment", "tasks"])
@pytest.mark.parametrize("fixed", [{}, QLearning.atoms], ids=["all", "smallest"])
def test_likelihood_and_probabilities_are_those_of_the_plain_loop(simulator, fixed):
    params, data, probabilities = simulated(simulator, 17, 41, **fixed)
    likelihood = simulator.log_likelihood(params, data)
    for row in range(17):
        one = {name: float(x[row]) for name, x in params.items()}
        columns = [data[name][row].tolist() for name in ("options", "choice", "reward")]
        count = columns[0][0]
        expected = np.array(reference.log_probabilities(one, *columns))
        np.testing.assert_allclose(np.log(probabilities[row, :, :count]), expected, rtol=1e-9)
        np.testing.assert_array_equal(probabilities[row, :, count:], 0)
        np.testing.assert_allclose(likelihood[row], expected[np.arange(41), columns[1]], rtol=1e-9)


def test_the_reference_with_derivatives_is_the_plain_loop():
    params, data, _ = simulated(QLearningTasks(), 5, 23, seed=1)
    with_derivatives = jax.jit(reference.conditionals_jax)
    for row in range(5):
        one = {name: float(x[row]) for name, x in params.items()}
        columns = [data[name][row] for name in ("options", "choice", "reward")]
        plain = np.array(reference.log_probabilities(one, *(x.tolist() for x in columns)))[np.arange(23), columns[1]]
        np.testing.assert_allclose(with_derivatives(one, *columns), plain, rtol=2e-4, atol=2e-5)


def test_smaller_models_remain_at_the_neutral_values():
    rng, size, trials = np.random.default_rng(2), 29, 37
    ito = ForgettingQ()
    theirs = ito.prior(rng, size)
    seen = ito.simulate(rng, theirs, {}, trials) | {"options": np.full((size, trials), 2)}
    ours = theirs | {"lapse": np.zeros(size)}
    # Their values begin at 0.5.
    above = seen | {"reward": seen["reward"] - 0.5}
    expected = ito.log_likelihood(theirs, seen)
    np.testing.assert_allclose(QLearning().log_likelihood(ours, above), expected, rtol=1e-10)
    # One learning rate, nothing forgotten: plain Q-learning, for one pair of symbols.
    plain = {"alpha": rng.random(size), "beta": 10 * rng.random(size), "kappa": rng.normal(size=size)}
    ours |= {"alpha_positive": plain["alpha"], "alpha_negative": plain["alpha"], "forgetting": np.zeros(size)}
    ours |= {"beta": plain["beta"], "perseveration": plain["kappa"]}
    pair = np.zeros((size, trials), int)
    noiseless = noisy_q.exact_conditionals(plain, pair, seen["choice"], seen["reward"])
    np.testing.assert_allclose(QLearning().log_likelihood(ours, above), noiseless, rtol=1e-9)


def test_choices_follow_their_probabilities():
    _, data, probabilities = simulated(QLearningTasks(), 1300, 61, seed=3)
    assert (data["choice"] < data["options"]).all()
    for option in range(4):
        chance, taken = probabilities[..., option], data["choice"] == option
        for low in np.linspace(0, 0.9, 10):
            inside = (chance > low) & (chance <= low + 0.1)
            error = np.sqrt((chance * (1 - chance))[inside].sum()) / inside.sum()
            assert abs(taken[inside].mean() - chance[inside].mean()) < 4 * error


def test_only_what_is_no_option_is_impossible():
    params, data, _ = simulated(QLearning(), 7, 11, seed=4)
    wrong = data | {"choice": np.where(np.arange(11) == 5, data["options"] % 4, data["choice"])}
    impossible = np.isneginf(QLearning().log_likelihood(params, wrong))
    np.testing.assert_array_equal(impossible[:, 5], data["options"][:, 0] < 4)
    assert not impossible[:, :5].any()
    with pytest.raises(ValueError, match=r"inputs\['options'\]: expected integers from 2 to 4, got \[5\]"):
        QLearning().log_likelihood(params, data | {"options": np.full((7, 11), 5)})
    with pytest.raises(ValueError, match="lapse"):
        QLearning().log_likelihood(params | {"lapse": np.full(7, 1.5)}, data)


def test_rewards_of_the_environment_speak_for_one_arm_until_another_is_better():
    simulator = QLearning(ReversingArms(reward_probability=0.9, reversal_probability=0.1))
    _, data, _ = simulated(simulator, 6000, 9, seed=5, beta=1e-6, perseveration=0.0)
    for count in (2, 3, 4):
        rows = data["options"][:, 0] == count
        choice, reward = data["choice"][rows], data["reward"][rows]
        # Rewarded twice at a lag for the same arm: it was better both times, once, or never.
        stays = 1 / count + (1 - 1 / count) * (1 - 0.1 * count / (count - 1)) ** np.array([1, 4])
        for lag, stay in zip((1, 4), stays, strict=True):
            both = choice[:, lag:] == choice[:, :-lag]
            again = (reward[:, lag:] * reward[:, :-lag])[both]
            expected = (stay * 0.81 + 2 * (1 - stay) * 0.09 + (count - 2 + stay) * 0.01) / count
            assert abs(again.mean() - expected) < 4 * np.sqrt(expected / again.size)


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_the_environment_serves_every_backend(library):
    module = pytest.importorskip(library)
    rng, environment = np.random.default_rng(10), ReversingArms(reversal_probability=0.5)
    options = rng.integers(2, 5, 301)
    choice, better = rng.integers(0, options), 1.0 * rng.integers(0, options)
    uniform = rng.random((301, 1))

    def answer(trial, *arrays):
        options, choice, uniform, better = arrays
        return environment(trial, {"options": options}, {"choice": choice}, uniform, {"better": better})

    arrays = [module.numpy.asarray(x) if library == "jax" else module.as_tensor(x)
              for x in (options, choice, uniform, better)]  # fmt: skip
    for trial in (0, 1):
        ours = answer(trial, options, choice, uniform, better)
        theirs = (module.jit(answer) if library == "jax" else answer)(trial, *arrays)
        for expected, given in zip(ours, theirs, strict=True):
            for name, values in expected.items():
                np.testing.assert_allclose(np.asarray(given[name]), values)
                assert set(np.unique(values)) <= {0.0, 1.0, 2.0, 3.0}
        assert (ours[1]["better"] < options).all()


def test_tasks_are_of_the_kinds_that_they_say():
    rng = np.random.default_rng(6)
    inputs = QLearningTasks().inputs(rng, 900, 67)
    assert [set(np.unique(row)) for row in inputs["options"][:3]] == [{count} for count in inputs["options"][:3, 0]]
    paths = {kind: draw_tasks(rng, inputs, kind).probabilities for kind in KINDS}
    assert all(((0 <= x) & (x <= 1)).all() for x in paths.values())
    moved = {kind: np.abs(np.diff(x, axis=1)) for kind, x in paths.items()}
    assert not moved["constant"].any()
    assert (moved["drift"] > 0).all() and 0.02 < moved["drift"].mean() < 0.08
    changes = {kind: (x > 0).any(-1).mean() for kind, x in moved.items()}
    assert 0.03 < changes["reversals"] < 0.07 and 1 / 60 < changes["blocks"] < 1 / 10
    stays = (np.diff(draw_tasks(rng, inputs).probabilities, axis=1) == 0).all((1, 2)).mean()
    assert 0.25 < stays < 0.32  # of four kinds one, and reversals that are too seldom
    for row in (0, 1, 2):
        count = inputs["options"][row, 0]
        # Options change places: their probabilities are the same ones, in another order.
        there = np.sort(paths["reversals"][row, :, :count], axis=-1)
        np.testing.assert_array_equal(there, np.broadcast_to(there[0], there.shape))


def test_rewards_have_the_codes_and_amounts_of_their_tasks():
    simulator, rng = QLearningTasks(), np.random.default_rng(7)
    assert not isinstance(simulator, WithEnvironment) and simulator.name == "QLearning"
    params, data, _ = simulated(simulator, 1200, 31, seed=8, beta=1e-6, perseveration=0.0)
    assert np.abs(data["reward"]).max() <= 1
    values = [set(np.unique(row)) for row in data["reward"]]
    amounts = np.mean([len(x) > 2 for x in values])
    codes = [np.mean([x == code for x in values]) for code in map(set, CODES)]
    assert abs(amounts - 1 / 3) < 0.06 and min(codes) > 0.1
    tasks = draw_tasks(rng, {"options": data["options"]}, "constant", (-0.3, 0.7), amounts=False)
    played, _ = play_tasks(rng, params, {"options": data["options"]}, tasks)
    chance = np.take_along_axis(tasks.probabilities, played["choice"][..., None], -1)[..., 0]
    assert set(np.unique(played["reward"])) == {-0.3, 0.7}
    for low in np.linspace(0, 0.75, 4):
        inside = (chance >= low) & (chance < low + 0.25)
        rewarded = (played["reward"] == 0.7)[inside]
        assert abs(rewarded.mean() - chance[inside].mean()) < 4 * 0.5 / np.sqrt(rewarded.size)


def test_the_proposal_draws_smaller_models_inside_the_same_box():
    params = QLearningTasks().proposal(np.random.default_rng(9), 4000)
    assert 0.2 < (params["alpha_positive"] == params["alpha_negative"]).mean() < 0.3
    for name, prior in QLearning.priors.items():
        low, high = prior.range()
        assert ((low <= params[name]) & (params[name] <= high)).all()
