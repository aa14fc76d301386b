"""A family of Q-learners with two to four options: choices and rewards, with the likelihood known exactly.

Two learning rates (Frank, Moustafa, Haughey, Curran & Hutchison 2007, PNAS 104, 16311-16316), forgetting of what was
not chosen (Ito & Doya 2009, Journal of Neuroscience 29, 9861-9874), perseveration (Lau & Glimcher 2005, Journal of the
Experimental Analysis of Behavior 84, 555-579) and lapses: each has a value at which it is not there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ppl_buffer.checks import check_number
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Integer, Interval, Positive, Real, Schema
from ppl_buffer.simulator import AnyArray, AnyArrays, Arrays
from ppl_buffer.simulators.by_trial import by_trial
from ppl_buffer.simulators.chance import digit, happens
from ppl_buffer.simulators.drift_diffusion import check_params

FEWEST_OPTIONS, MOST_OPTIONS = 2, 4
# Share of the proposal's data sets that have one learning rate.
_ONE_RATE = 0.25


class ReversingArms:
    """Two to four arms, one of which is better until another one is: an environment with a state.

    Which arm is better is left to chance on the first trial; when it changes, each of the others is as likely.

    Args:
        reward_probability: of the better arm; the others have the complement. A reward is 1, none is 0.
        reversal_probability: that another arm becomes the better one after a trial.

    Raises:
        ValueError: if a probability is not above 0 and below 1.
    """

    # Which arm is the better one; drawn on the first trial.
    initial_state = {"better": 0.0}

    def __init__(self, reward_probability: float = 0.8, reversal_probability: float = 0.03) -> None:
        given = {"reward_probability": reward_probability, "reversal_probability": reversal_probability}
        self.reward_probability, self.reversal_probability = (
            check_number(name, value, "a number above 0 and below 1", lambda x: 0 < x < 1)
            for name, value in given.items()
        )

    def __call__(
        self, trial: AnyArray, inputs: AnyArrays, outcomes: AnyArrays, uniform: AnyArray, state: AnyArrays
    ) -> tuple[AnyArrays, AnyArrays]:
        """The reward of a choice, 1.0 or 0.0, and which arm is better after it, each (...).

        Args:
            trial: index of the trial.
            inputs: ``options``, how many arms there are, (...).
            outcomes: ``choice``, (...).
            uniform: numbers uniform in (0, 1), (..., 1).
            state: ``better`` before the trial, (...).
        """
        first, options, chance = 1.0 * (trial == 0), inputs["options"], uniform[..., 0]
        start, rest = digit(chance, options)
        better, chance = first * start + (1 - first) * state["better"], first * rest + (1 - first) * chance
        right = 1.0 * (outcomes["choice"] == better)
        reward, chance = happens(chance, right * self.reward_probability + (1 - right) * (1 - self.reward_probability))
        reverses, chance = happens(chance, self.reversal_probability)
        moved = better + 1 + digit(chance, options - 1)[0]
        moved = moved - options * (moved >= options)
        return {"reward": reward}, {"better": reverses * moved + (1 - reverses) * better}


class QLearning:
    """Q-learning with two learning rates, forgetting, perseveration and lapses, of two to four options.

    On trial k there are ``options_k`` options, 0, 1, ..., and option i of them is chosen with probability

        (1 - lapse) * softmax_i(beta * Q[i] + perseveration * (i was chosen on trial k - 1)) + lapse / options_k;

    those from ``options_k`` on have probability 0. A reward ``reward_k`` follows, any number in [-1, 1]: 0 and 1, -1
    and 1, or points as a share of the most that there are. The chosen value learns, the others fade to 0, where all
    began,

        Q[chosen] <- Q[chosen] + alpha * (reward - Q[chosen]),
        Q[other] <- Q[other] - forgetting * Q[other],

    where alpha is alpha_positive if the reward exceeds Q[chosen], else alpha_negative. Given the parameters and the
    past nothing is left to chance but the choice itself, so that its probability is known exactly. That is why no noise
    of the learning itself is in this family: with it there is no exact likelihood (`NoisyQ`).

    Values that begin at q in place of 0 are no other model: all values less q are those of rewards less q. So subtract
    it. Rewards of 0 and 1 and values that begin at 0.5, as in `ForgettingQ`, are rewards of -0.5 and 0.5.

    Input: ``options``, an integer from 2 to 4, the same on all trials of a data set. Outcome: ``choice``. Feedback:
    ``reward``.

    Parameters, with the priors in `priors`, and the value at which each is not there, so that a smaller model remains:
        ``alpha_positive``, ``alpha_negative``: learning rates in (0, 1); one rate where both are equal.
        ``forgetting``: in [0, 1]; 0 = none.
        ``beta``: inverse temperature, above 0; near 0 values do not count.
        ``perseveration``: in log-odds; 0 = none. Below 0 choices alternate.
        ``lapse``: probability of a choice at random, in [0, 1]; 0 = never.

    In a task that gives rewards by `environment`, by default those of `ReversingArms`.

    Args:
        environment: what gives the rewards, see `ppl_buffer.simulator.StatefulEnvironment`.
    """

    priors = {
        "alpha_positive": Prior.uniform(0.0, 1.0),
        "alpha_negative": Prior.uniform(0.0, 1.0),
        "forgetting": Prior.uniform(0.0, 1.0),
        "beta": Prior.uniform(0.0, 10.0),
        "perseveration": Prior.uniform(-2.0, 2.0),
        "lapse": Prior.uniform(0.0, 0.2),
    }
    # The smaller models have no mass under the prior, but are what one compares with.
    atoms = {"forgetting": 0.0, "perseveration": 0.0, "lapse": 0.0}
    # Its methods take parameters (size, trials) too.
    trial_params = True
    schema = Schema(
        params={
            "alpha_positive": Interval(0, 1),
            "alpha_negative": Interval(0, 1),
            "forgetting": Interval(0, 1, closed=True),
            "beta": Positive(),
            "perseveration": Real(),
            "lapse": Interval(0, 1, closed=True),
        },
        inputs={"options": Integer(FEWEST_OPTIONS, MOST_OPTIONS)},
        outcomes={"choice": Categorical(MOST_OPTIONS)},
        feedback={"reward": Real()},
        ordered=True,
    )

    def __init__(self, environment: ReversingArms | None = None) -> None:
        self.environment = ReversingArms() if environment is None else environment

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Draw how many options there are, {"options": (size, trials)}: 2, 3 or 4, the same on all trials."""
        return draw_options(rng, size, trials)

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """Draw ``choice`` in {0, ..., options - 1} and ``reward``, each (size, trials).

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: {"options": (size, trials)}.

        Raises:
            ValueError: if a parameter is missing or not legal, or so is a number of options.
        """
        return self.simulate_with_probabilities(rng, params, inputs)[0]

    def simulate_with_probabilities(
        self, rng: np.random.Generator, params: Arrays, inputs: Arrays
    ) -> tuple[Arrays, Arrays]:
        """`simulate`, and the choice probabilities given the parameters and the trials before.

        Returns:
            the data, and {"choice": (size, trials, 4)}.
        """
        size, trials = np.shape(inputs["options"])
        uniform = rng.random((trials, size, 1))
        state: AnyArrays = {name: np.full(size, value) for name, value in self.environment.initial_state.items()}

        def reward(k: int, choice: np.ndarray) -> np.ndarray:
            nonlocal state
            shown = {"options": np.asarray(inputs["options"])[:, k]}
            given, state = self.environment(k, shown, {"choice": choice}, uniform[k], state)
            return given["reward"]

        return play(rng, params, inputs, reward)

    def log_likelihood(self, params: Arrays, data: Arrays) -> np.ndarray:
        """Log probability of each choice given the trials before it, (size, trials); -inf where it was no option.

        Args:
            params: dict name -> (size,).
            data: ``options``, ``choice`` and ``reward``, each (size, trials).
        """
        return log_likelihood(params, data)


def draw_options(rng: np.random.Generator, size: int, trials: int) -> Arrays:
    """{"options": (size, trials)}: 2, 3 or 4, as often each, the same on all trials of a data set."""
    count = rng.integers(FEWEST_OPTIONS, MOST_OPTIONS + 1, (size, 1))
    return {"options": np.repeat(count, trials, axis=1)}


def propose(rng: np.random.Generator, size: int) -> Arrays:
    """Draw parameters as `QLearning.prior` does, some with one learning rate, which no atom says: name -> (size,)."""
    params = {name: prior.sample(rng, size) for name, prior in QLearning.priors.items()}
    one_rate = rng.random(size) < _ONE_RATE
    params["alpha_negative"] = np.where(one_rate, params["alpha_positive"], params["alpha_negative"])
    return params


def play(
    rng: np.random.Generator,
    params: Arrays,
    inputs: Arrays,
    reward: Callable[[int, np.ndarray], np.ndarray],
) -> tuple[Arrays, Arrays]:
    """Choices and rewards of a Q-learner, whoever rewards it.

    Args:
        rng: of the choices.
        params: dict name -> (size,).
        inputs: {"options": (size, trials)}.
        reward: ``reward(trial, choice)`` of the choices (size,) in a trial: (size,).

    Returns:
        ``choice`` and ``reward``, each (size, trials), and the choices' probabilities, {"choice": (size, trials, 4)}.
    """
    options = np.asarray(inputs["options"]).astype(int)
    choices, rewards = np.empty(options.shape, dtype=int), np.empty(options.shape)
    uniform = rng.random(options.shape[::-1])

    def respond(k: int, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # The last option of those there are takes what rounding leaves.
        below = (uniform[k][:, None] >= np.cumsum(probability, -1)[:, :-1]).sum(-1)
        choices[:, k] = np.minimum(below, options[:, k] - 1)
        rewards[:, k] = reward(k, choices[:, k])
        return choices[:, k], rewards[:, k]

    probabilities = choice_probabilities(params, options, respond)
    return {"choice": choices, "reward": rewards}, {"choice": probabilities}


def log_likelihood(params: Arrays, data: Arrays) -> np.ndarray:
    """As `QLearning.log_likelihood` says."""
    choice, reward = np.asarray(data["choice"]).astype(int), np.asarray(data["reward"], dtype=float)
    options = np.asarray(data["options"]).astype(int)
    probabilities = choice_probabilities(params, options, lambda k, _: (choice[:, k], reward[:, k]))
    with np.errstate(divide="ignore"):
        return np.log(np.take_along_axis(probabilities, choice[..., None], -1)[..., 0])


def choice_probabilities(
    params: Arrays, options: np.ndarray, respond: Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Choice probabilities, (size, trials, 4).

    Args:
        params: dict name -> (size,).
        options: how many there are, (size, trials).
        respond: ``respond(trial, probabilities (size, 4))`` gives the trial's choices and rewards, (size,).

    Raises:
        ValueError: if a parameter is missing or not legal, or a number of options is none from 2 to 4.
    """
    if not ((options >= FEWEST_OPTIONS) & (options <= MOST_OPTIONS)).all():
        raise ValueError(
            f"inputs['options']: expected integers from {FEWEST_OPTIONS} to {MOST_OPTIONS}, got {np.unique(options)}"
        )
    checked = by_trial(check_params(QLearning.schema, params), QLearning.schema.params, options.shape[1])
    arms, rows = np.arange(MOST_OPTIONS), np.arange(len(options))
    values, previous = np.zeros((2, len(options), MOST_OPTIONS))
    probabilities = np.empty((*options.shape, MOST_OPTIONS))
    for k in range(options.shape[1]):
        positive, negative, forgetting, beta, perseveration, lapse = (x[:, k, None] for x in checked.values())
        count = options[:, k, None]
        log_odds = np.where(arms < count, beta * values + perseveration * previous, -np.inf)
        weight = np.exp(log_odds - log_odds.max(-1, keepdims=True))
        softmax = weight / weight.sum(-1, keepdims=True)
        probabilities[:, k] = (1 - lapse) * softmax + lapse * (arms < count) / count
        choice, reward = respond(k, probabilities[:, k])
        error = reward[:, None] - values[rows, choice][:, None]
        learned = values[rows, choice] + (np.where(error > 0, positive, negative) * error)[:, 0]
        values = (1 - forgetting) * values
        values[rows, choice] = learned
        previous = 1.0 * (arms == choice[:, None])
    return probabilities
