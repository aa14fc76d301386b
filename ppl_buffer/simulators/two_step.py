"""The two-step task and its hybrid model: two choices and a reward a trial, planned, learned or both.

Daw, Gershman, Seymour, Dayan & Dolan (2011), "Model-based influences on humans' choices and striatal prediction
errors", Neuron 69, 1204-1215.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Interval, Positive, Real, Schema
from ppl_buffer.simulator import AnyArray, AnyArrays, Arrays
from ppl_buffer.simulators.by_trial import by_trial
from ppl_buffer.simulators.chance import digit, happens

# Option i of the first stage leads to state i of the second one with this probability, else to the other one.
_COMMON = 0.7
# Between which the reward probabilities walk, and by how much they move from trial to trial.
_LOWEST, _HIGHEST, _STEP = 0.25, 0.75, 0.025
# How far apart the places are where they may start, and their number.
_APART = 0.1
_STARTS = round((_HIGHEST - _LOWEST) / _APART) + 1
_ARMS = ((0, 0), (0, 1), (1, 0), (1, 1))


class RewardWalks:
    """Rewards with probabilities that walk, each of the four (state, option) by itself: an environment with a state.

    The walks start between 0.25 and 0.75, at any of six places 0.1 apart, and go up or down by 0.025 after each trial,
    the standard deviation of the Gaussian steps of Daw et al.
    """

    # The reward probability of each option in each state; drawn on the first trial.
    initial_state = {f"option {option} in state {place}": 0.5 for place, option in _ARMS}

    def __call__(
        self,
        trial: AnyArray,
        inputs: AnyArrays,
        outcomes: AnyArrays,
        uniform: AnyArray,
        state: AnyArrays,
    ) -> tuple[AnyArrays, AnyArrays]:
        """The reward of a trial, 1.0 or 0.0, and the reward probabilities after it, each (...).

        Args:
            trial: index of the trial.
            inputs: ``common``, (...).
            outcomes: ``choice_1`` and ``choice_2``, each (...).
            uniform: numbers uniform in (0, 1), (..., 1).
            state: the reward probabilities before the trial, each (...).
        """
        first, reached = 1.0 * (trial == 0), state_after(outcomes["choice_1"], inputs["common"])
        chance, probability, walks = uniform[..., 0], 0.0, {}
        for name, (place, option) in zip(self.initial_state, _ARMS, strict=True):
            start, rest = digit(chance, _STARTS)
            chance = first * rest + (1 - first) * chance
            walks[name] = first * (_LOWEST + _APART * start) + (1 - first) * state[name]
            taken = 1.0 * (reached == place) * (outcomes["choice_2"] == option)
            probability = probability + taken * walks[name]
        reward, chance = happens(chance, probability)
        for name, walk in walks.items():
            up, chance = digit(chance, 2)
            moved = walk + _STEP * (2 * up - 1)
            walks[name] = _HIGHEST - abs(_HIGHEST - (_LOWEST + abs(moved - _LOWEST)))
        return {"reward": reward}, walks


class TwoStep:
    """The hybrid of model-based and model-free learning in the two-step task.

    On trial k one of two options is chosen, ``choice_1``. It leads to one of two states: option i to state i where the
    transition is common, ``common`` = 1, which it is with probability 0.7, else (``common`` = 0) to the other state.
    There one of two options is chosen, ``choice_2``, and rewarded, or not, ``reward`` in {0, 1}. The four reward
    probabilities (state, option) walk: by 0.025 up or down after every trial, reflected at 0.25 and 0.75.

    Option 1 is chosen with the log-odds

        first stage:   beta_1 * (model_based * planned + (1 - model_based) * learned) + perseveration * previous
        second stage:  beta_2 * (Q2[state, 1] - Q2[state, 0])

    with learned = Q1[1] - Q1[0], planned = (0.7 - 0.3) * (max Q2[1, :] - max Q2[0, :]), the difference of what the
    options lead to, and previous = +1 after a first choice of option 1, -1 after option 0, 0 on the first trial. Then

        Q1[choice_1] <- Q1[choice_1] + alpha_1 * (q - Q1[choice_1]) + alpha_1 * eligibility * (reward - q)
        q            <- q + alpha_2 * (reward - q),      q = Q2[state, choice_2], all on the right before the trial.

    All values start at 0. Given the parameters and the past both choices' probabilities are known exactly.

    The transition is an *input*: the computer draws it whatever the person does, and nobody sees it before the first
    choice, so that the joint density of both choices given the transition is that of the first choice, which does not
    depend on it, times that of the second choice in the state that it leads to. The state's own probability, which no
    parameter changes, is left out, as it is from the usual likelihood of this task.

    Parameters, uniform over the box in `priors`: learning rates ``alpha_1`` and ``alpha_2`` in (0, 1); inverse
    temperatures ``beta_1`` and ``beta_2`` above 0; the weight of the ``model_based`` values in (0, 1);
    ``perseveration`` in log-odds, which is pi in hBayesDM and beta_1 * p in Daw et al.; ``eligibility``, lambda, in
    (0, 1).
    """

    priors = {
        "alpha_1": Prior.uniform(0.0, 1.0),
        "alpha_2": Prior.uniform(0.0, 1.0),
        "beta_1": Prior.uniform(0.0, 10.0),
        "beta_2": Prior.uniform(0.0, 10.0),
        "model_based": Prior.uniform(0.0, 1.0),
        "perseveration": Prior.uniform(-2.0, 3.0),
        "eligibility": Prior.uniform(0.0, 1.0),
    }
    # Its methods take parameters (size, trials) too.
    trial_params = True
    schema = Schema(
        params={
            "alpha_1": Interval(0, 1),
            "alpha_2": Interval(0, 1),
            "beta_1": Positive(),
            "beta_2": Positive(),
            "model_based": Interval(0, 1),
            "perseveration": Real(),
            "eligibility": Interval(0, 1),
        },
        inputs={"common": Categorical(2)},
        outcomes={"choice_1": Categorical(2), "choice_2": Categorical(2)},
        feedback={"reward": Real()},
        ordered=True,
    )

    environment = RewardWalks()

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Draw which transitions are common: {"common": (size, trials)}, 1 with probability 0.7."""
        return {"common": (rng.random((size, trials)) < _COMMON).astype(int)}

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """Draw ``choice_1``, ``choice_2`` and ``reward``, all in {0, 1}, each (size, trials).

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: {"common": (size, trials)}.
        """
        return self.simulate_with_probabilities(rng, params, inputs)[0]

    def simulate_with_probabilities(
        self, rng: np.random.Generator, params: Arrays, inputs: Arrays
    ) -> tuple[Arrays, Arrays]:
        """`simulate`, and the probabilities of both choices given the parameters and what came before.

        Returns:
            the data, and {"choice_1": (size, trials, 2), "choice_2": (size, trials, 2)}; those of the second choice in
            the state that the first one led to.
        """
        common = np.asarray(inputs["common"], dtype=int)
        size, trials = common.shape
        choices, reward = np.empty((2, size, trials), dtype=int), np.empty((size, trials))
        uniform, reward_uniform = rng.random((trials, 2, size)), rng.random((trials, size, 1))
        rows, state = np.arange(size), {name: np.zeros(size) for name in self.environment.initial_state}
        upper = np.empty((2, size, trials))

        def respond(k: int, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            nonlocal state
            upper[0, :, k] = special.expit(first)
            choices[0, :, k] = uniform[k, 0] < upper[0, :, k]
            upper[1, :, k] = special.expit(second[rows, state_after(choices[0, :, k], common[:, k])])
            choices[1, :, k] = uniform[k, 1] < upper[1, :, k]
            outcomes = {"choice_1": choices[0, :, k], "choice_2": choices[1, :, k]}
            given, state = self.environment(k, {"common": common[:, k]}, outcomes, reward_uniform[k], state)
            reward[:, k] = given["reward"]
            return choices[0, :, k], choices[1, :, k], reward[:, k]

        self._log_odds(params, common, respond)
        data = {"choice_1": choices[0], "choice_2": choices[1], "reward": reward}
        chances = np.stack([1 - upper, upper], axis=-1)
        return data, {"choice_1": chances[0], "choice_2": chances[1]}

    def resample_outcomes(self, rng: np.random.Generator, params: Arrays, data: Arrays, count: int) -> Arrays:
        """Draw both choices of every trial `count` times more, given the trials before it as they were.

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            data: ``common``, ``choice_1``, ``choice_2`` and ``reward``, each (size, trials).
            count: how often.

        Returns:
            ``choice_1`` and ``choice_2``, each (size, trials, count).
        """
        first, second = self._observed_log_odds(params, data)
        uniform = rng.random((2, *first.shape, count))
        choice_1 = (uniform[0] < special.expit(first)[..., None]).astype(int)
        state = state_after(choice_1, np.asarray(data["common"], dtype=int)[..., None])
        choice_2 = (uniform[1] < np.take_along_axis(special.expit(second), state, -1)).astype(int)
        return {"choice_1": choice_1, "choice_2": choice_2}

    def log_likelihood(self, params: Arrays, data: Arrays) -> np.ndarray:
        """Log probability of both choices of each trial together, given the trials before it, (size, trials).

        Args:
            params: dict name -> (size,).
            data: ``common``, ``choice_1``, ``choice_2`` and ``reward``, each (size, trials).
        """
        first, second = self._observed_log_odds(params, data)
        choice_1, choice_2, common = (np.asarray(data[name], dtype=int) for name in ("choice_1", "choice_2", "common"))
        reached = np.take_along_axis(second, state_after(choice_1, common)[..., None], -1)[..., 0]
        return special.log_expit((2 * choice_1 - 1) * first) + special.log_expit((2 * choice_2 - 1) * reached)

    def _observed_log_odds(self, params: Arrays, data: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """`_log_odds` given the trials before each as they were."""
        choice_1, choice_2, common = (np.asarray(data[name], dtype=int) for name in ("choice_1", "choice_2", "common"))
        reward = np.asarray(data["reward"], dtype=float)
        return self._log_odds(params, common, lambda k, *_: (choice_1[:, k], choice_2[:, k], reward[:, k]))

    def _log_odds(
        self,
        params: Arrays,
        common: np.ndarray,
        respond: Callable[[int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds of option 1: of the first stage (size, trials), and in both states of the second (size, trials, 2).

        Args:
            params: dict name -> (size,).
            common: which transitions are common, (size, trials).
            respond: function (trial, log-odds of the first stage, of the second) -> both choices and the reward.
        """
        alpha_1, alpha_2, beta_1, beta_2, weight, perseveration, eligibility = by_trial(
            params, self.schema.params, common.shape[1]
        ).values()
        size, trials = common.shape
        rows, previous = np.arange(size), np.zeros(size)
        stage_1, stage_2 = np.zeros((size, 2)), np.zeros((size, 2, 2))
        first, second = np.empty((size, trials)), np.empty((size, trials, 2))
        for k in range(trials):
            best = stage_2.max(-1)
            planned = (2 * _COMMON - 1) * (best[:, 1] - best[:, 0])
            learned = stage_1[:, 1] - stage_1[:, 0]
            value = weight[:, k] * planned + (1 - weight[:, k]) * learned
            first[:, k] = beta_1[:, k] * value + perseveration[:, k] * previous
            second[:, k] = beta_2[:, k, None] * (stage_2[..., 1] - stage_2[..., 0])
            choice_1, choice_2, reward = respond(k, first[:, k], second[:, k])
            state = state_after(choice_1, common[:, k])
            reached = stage_2[rows, state, choice_2]
            surprise = reached - stage_1[rows, choice_1] + eligibility[:, k] * (reward - reached)
            stage_1[rows, choice_1] += alpha_1[:, k] * surprise
            stage_2[rows, state, choice_2] += alpha_2[:, k] * (reward - reached)
            previous = 2.0 * choice_1 - 1
        return first, second


def state_after(choice: AnyArray, common: AnyArray) -> AnyArray:
    """The state, 0 or 1, that a first choice leads to where the transition is common (1) or rare (0)."""
    return choice * common + (1 - choice) * (1 - common)
