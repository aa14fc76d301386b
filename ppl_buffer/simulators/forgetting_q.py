"""Q-learning that forgets, in a two-armed bandit that reverses: choices and rewards.

The model is the forgetting Q-learning of Ito & Doya (2009), "Validation of decision-making models and analysis of
decision variables in the rat basal ganglia", Journal of Neuroscience 29, 9861-9874, with a learning rate each for good
and bad news and with perseveration.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from ppl_buffer.checks import check_integer, check_number
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Interval, Positive, Real, Schema
from ppl_buffer.simulator import AnyArray, AnyArrays, Arrays
from ppl_buffer.simulators.by_trial import by_trial
from ppl_buffer.simulators.chance import happens


class ReversingBandit:
    """Two arms, of which one is better until they change places: an environment with a state.

    Args:
        reward_probability: of the better arm; the other one has the complement.
        reversal_probability: that the arms change places after a trial.
    """

    # Whether arm 1 is the better one; drawn on the first trial.
    initial_state = {"better": 0.0}

    def __init__(self, reward_probability: float, reversal_probability: float) -> None:
        self.reward_probability, self.reversal_probability = reward_probability, reversal_probability

    def __call__(
        self,
        trial: AnyArray,
        inputs: AnyArrays,
        outcomes: AnyArrays,
        uniform: AnyArray,
        state: AnyArrays,
    ) -> tuple[AnyArrays, AnyArrays]:
        """The reward of a choice, and which arm is better after it: ``reward`` and ``better``, 1.0 or 0.0, (...).

        Args:
            trial: index of the trial.
            inputs: not used.
            outcomes: the trial's outcomes, each (...); only ``choice`` is used.
            uniform: numbers uniform in (0, 1), (..., 1).
            state: ``better`` before the trial, (...).
        """
        first, choice = 1.0 * (trial == 0), outcomes["choice"]
        start, chance = happens(uniform[..., 0], 0.5)
        better = first * start + (1 - first) * state["better"]
        right = choice * better + (1 - choice) * (1 - better)
        reward, chance = happens(chance, right * self.reward_probability + (1 - right) * (1 - self.reward_probability))
        reverses, _ = happens(chance, self.reversal_probability)
        return {"reward": reward}, {"better": reverses * (1 - better) + (1 - reverses) * better}


class ForgettingQ:
    """Forgetting Q-learning in a bandit of two arms, one of which is better until it is not.

    On trial k option ``choice_k`` in {0, 1} is chosen, option 1 with probability

        logistic(beta * (Q[1] - Q[0]) + perseveration * previous),

    where previous is +1 after option 1, -1 after option 0, and 0 on the first trial. A reward ``reward_k`` in {0, 1}
    follows. The chosen value learns and the other one fades to where both began,

        Q[chosen] <- Q[chosen] + alpha * (reward - Q[chosen]),
        Q[other] <- Q[other] + forgetting * (0.5 - Q[other]),

    where alpha is alpha_positive if the reward exceeds Q[chosen], else alpha_negative. Both values start at 0.5. Given
    the parameters and the past nothing is left to chance but the choice itself, so that its probability, and with it
    the likelihood, is known exactly.

    Parameters, uniform over the box in `priors`: learning rates ``alpha_positive`` and ``alpha_negative`` and the rate
    of ``forgetting``, in (0, 1); inverse temperature ``beta`` above 0; ``perseveration`` in log-odds.

    The bandit: the better arm is rewarded with probability `reward_probability`, the other one with the complement.
    Which is better is left to chance on the first trial, and changes after any trial with probability
    `reversal_probability`.

    Args:
        reward_probability: of the better arm, above 0.5 and below 1.
        reversal_probability: above 0 and below 1.

    Raises:
        ValueError: if a probability is outside its range.
    """

    priors = {
        "alpha_positive": Prior.uniform(0.0, 1.0),
        "alpha_negative": Prior.uniform(0.0, 1.0),
        "forgetting": Prior.uniform(0.0, 1.0),
        "beta": Prior.uniform(0.0, 10.0),
        "perseveration": Prior.uniform(-2.0, 2.0),
    }
    # Its methods take parameters (size, trials) too.
    trial_params = True
    schema = Schema(
        params={
            "alpha_positive": Interval(0, 1),
            "alpha_negative": Interval(0, 1),
            "forgetting": Interval(0, 1),
            "beta": Positive(),
            "perseveration": Real(),
        },
        outcomes={"choice": Categorical(2)},
        feedback={"reward": Real()},
        ordered=True,
    )

    def __init__(self, reward_probability: float = 0.8, reversal_probability: float = 0.03) -> None:
        reward_probability = check_number(
            "reward_probability", reward_probability, "a number above 0.5 and below 1", lambda x: 0.5 < x < 1
        )
        reversal_probability = check_number(
            "reversal_probability", reversal_probability, "a number above 0 and below 1", lambda x: 0 < x < 1
        )
        self.environment = ReversingBandit(reward_probability, reversal_probability)

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Nothing is shown: an empty dict."""
        return {}

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays, trials: int | None = None) -> Arrays:
        """Draw ``choice`` and ``reward``, both in {0, 1}, each (size, trials).

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: not used.
            trials: their number, which no input tells.

        Raises:
            ValueError: if there is none.
        """
        return self.simulate_with_probabilities(rng, params, inputs, trials)[0]

    def simulate_with_probabilities(
        self, rng: np.random.Generator, params: Arrays, inputs: Arrays, trials: int | None = None
    ) -> tuple[Arrays, Arrays]:
        """`simulate`, and the choice probabilities given the parameters and the trials before.

        Returns:
            the data, and {"choice": (size, trials, 2)}.
        """
        trials, size = check_integer("trials", trials), len(params["beta"])
        choice, reward = np.empty((size, trials), dtype=int), np.empty((size, trials))
        choice_uniform, reward_uniform = rng.random((trials, size)), rng.random((trials, size, 1))
        state = {"better": np.zeros(size)}

        def respond(k: int, log_odds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            nonlocal state
            choice[:, k] = choice_uniform[k] < special.expit(log_odds)
            given, state = self.environment(k, {}, {"choice": choice[:, k]}, reward_uniform[k], state)
            reward[:, k] = given["reward"]
            return choice[:, k], reward[:, k]

        upper = special.expit(self._log_odds(params, trials, respond))
        return {"choice": choice, "reward": reward}, {"choice": np.stack([1 - upper, upper], axis=-1)}

    def resample_outcomes(self, rng: np.random.Generator, params: Arrays, data: Arrays, count: int) -> Arrays:
        """Draw every choice `count` times more, given the trials before it as they were.

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            data: ``choice`` and ``reward``, each (size, trials).
            count: how often.

        Returns:
            {"choice": (size, trials, count)}.
        """
        upper = special.expit(self._observed_log_odds(params, data))[..., None]
        return {"choice": (rng.random((*upper.shape[:2], count)) < upper).astype(int)}

    def log_likelihood(self, params: Arrays, data: Arrays) -> np.ndarray:
        """Log probability of each choice, given the trials before it, (size, trials).

        Args:
            params: dict name -> (size,).
            data: ``choice`` and ``reward``, each (size, trials).
        """
        return special.log_expit((2 * data["choice"] - 1) * self._observed_log_odds(params, data))

    def _observed_log_odds(self, params: Arrays, data: Arrays) -> np.ndarray:
        """Log-odds of option 1 on each trial, given the trials before it as they were, (size, trials)."""
        choice, reward = np.asarray(data["choice"], dtype=int), np.asarray(data["reward"], dtype=float)
        return self._log_odds(params, choice.shape[1], lambda k, _: (choice[:, k], reward[:, k]))

    def _log_odds(
        self, params: Arrays, trials: int, respond: Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]
    ) -> np.ndarray:
        """Log-odds of option 1, (size, trials); ``respond(trial, log_odds)`` gives its choices and rewards, (size,)."""
        alpha_positive, alpha_negative, forgetting, beta, perseveration = by_trial(
            params, self.schema.params, trials
        ).values()
        size = len(beta)
        rows, values, previous = np.arange(size), np.full((size, 2), 0.5), np.zeros(size)
        log_odds = np.empty((size, trials))
        for k in range(trials):
            difference = values[:, 1] - values[:, 0]
            log_odds[:, k] = beta[:, k] * difference + perseveration[:, k] * previous
            choice, reward = respond(k, log_odds[:, k])
            error = reward - values[rows, choice]
            rate = np.where(error > 0, alpha_positive[:, k], alpha_negative[:, k])
            values[rows, choice] += rate * error
            values[rows, 1 - choice] += forgetting[:, k] * (0.5 - values[rows, 1 - choice])
            previous = 2.0 * choice - 1
        return log_odds
