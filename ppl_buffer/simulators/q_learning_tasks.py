"""The family of Q-learners in tasks of many kinds: any code of rewards, bandits, reversals, drifts and blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ppl_buffer.simulator import Arrays
from ppl_buffer.simulators.q_learning import (
    MOST_OPTIONS,
    QLearning,
    draw_options,
    log_likelihood,
    play,
    propose,
)

# How the probabilities of a reward change: each kind as often.
KINDS = ("constant", "reversals", "drift", "blocks")
# What stands for no reward and for one, less what values begin at.
CODES = ((0.0, 1.0), (-0.5, 0.5), (-1.0, 1.0))
# Shares of the tasks: one better option and complementary others; rewards that are amounts; any two rewards.
_ONE_BETTER, _AMOUNTS, _ANY_TWO = 0.5, 1 / 3, 0.25
# The most often that options change places, a trial; standard deviations of a drift's steps; lengths of blocks.
_MOST_REVERSALS, _STEPS, _BLOCKS = 0.1, (0.01, 0.1), (10, 60)


@dataclass(frozen=True)
class RewardPaths:
    """How rewards come about, a task a data set.

    The reward of an option whose probability is p is low + (high - low) x, where x is 1 with probability p, else 0; or,
    of a task with amounts, x = p + spread * min(p, 1 - p) * u with u uniform in (-1, 1).

    Attributes:
        probabilities: (size, trials, 4), of each option on each trial.
        low: (size,), the least reward.
        high: (size,), the greatest.
        amounts: (size,) bool, whether rewards are amounts.
        spread: (size,), of the amounts.
    """

    probabilities: np.ndarray
    low: np.ndarray
    high: np.ndarray
    amounts: np.ndarray
    spread: np.ndarray

    def reward(self, trial: int, choice: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Of the choices (size,) on a trial, from numbers uniform in (0, 1), (size,)."""
        chance = self.probabilities[np.arange(len(choice)), trial, choice]
        amount = chance + self.spread * np.minimum(chance, 1 - chance) * (2 * uniform - 1)
        share = np.where(self.amounts, amount, uniform < chance)
        return self.low + (self.high - self.low) * share


class QLearningTasks:
    """`QLearning`, each data set in a task of its own: the same parameters and the same likelihood, other experiences.

    What is likely given the parameters and the past does not depend on how rewards come about; which pasts a network
    has seen does. A task has 2, 3 or 4 options. In half of them one is better and the others have the complement of its
    probability of a reward, else each has any. The probabilities stay, change places at up to one trial in ten, drift
    in Gaussian steps, reflected at 0 and 1, or are new in each block of 10 to 60 trials. Rewards are 0 and 1, -0.5 and
    0.5, -1 and 1, or any two numbers in [-1, 1]; in a third of the tasks amounts between the two.

    It gives no feedback on choices that it did not draw (`ppl_buffer.simulator.WithEnvironment`): an environment knows
    one trial, not the task. So records call it ``QLearning``, which has one, and against which a network is checked.
    """

    name = "QLearning"
    priors = QLearning.priors
    atoms = QLearning.atoms
    schema = QLearning.schema
    trial_params = QLearning.trial_params

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def proposal(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters, more often of models with one learning rate: dict name -> (size,)."""
        return propose(rng, size)

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Draw how many options there are, {"options": (size, trials)}: 2, 3 or 4, the same on all trials."""
        return draw_options(rng, size, trials)

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """Draw tasks, and in them ``choice`` in {0, ..., options - 1} and ``reward`` in [-1, 1], each (size, trials).

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: {"options": (size, trials)}.
        """
        return self.simulate_with_probabilities(rng, params, inputs)[0]

    def simulate_with_probabilities(
        self, rng: np.random.Generator, params: Arrays, inputs: Arrays
    ) -> tuple[Arrays, Arrays]:
        """`simulate`, and the choice probabilities given the parameters and the trials before.

        Returns:
            the data, and {"choice": (size, trials, 4)}.
        """
        return play_tasks(rng, params, inputs, draw_tasks(rng, inputs))

    def log_likelihood(self, params: Arrays, data: Arrays) -> np.ndarray:
        """Log probability of each choice given the trials before it, (size, trials), as `QLearning` has it."""
        return log_likelihood(params, data)


def play_tasks(rng: np.random.Generator, params: Arrays, inputs: Arrays, tasks: RewardPaths) -> tuple[Arrays, Arrays]:
    """Draw choices and rewards in given tasks: as `QLearningTasks.simulate_with_probabilities` returns them."""
    uniform = rng.random(np.shape(inputs["options"])[::-1])
    return play(rng, params, inputs, lambda k, choice: tasks.reward(k, choice, uniform[k]))


def draw_tasks(
    rng: np.random.Generator,
    inputs: Arrays,
    kind: str | None = None,
    code: tuple[float, float] | None = None,
    amounts: bool | None = None,
) -> RewardPaths:
    """Draw how rewards come about in each data set.

    Args:
        rng: the only source of randomness.
        inputs: {"options": (size, trials)}.
        kind: of all tasks, one of `KINDS`; any by default.
        code: rewards (low, high) of all tasks; any by default.
        amounts: whether rewards are amounts between the two; in a third of the tasks by default.
    """
    options = np.asarray(inputs["options"]).astype(int)
    size, trials = options.shape
    kinds = rng.integers(len(KINDS), size=size) if kind is None else np.full(size, KINDS.index(kind))
    start = _probabilities(rng, options[:, 0], 1)[:, 0]
    paths = np.repeat(start[:, None], trials, axis=1)
    for number, change in enumerate((None, _reversals, _drift, _blocks)):
        rows = np.flatnonzero(kinds == number)
        if change is not None and len(rows):
            paths[rows] = change(rng, paths[rows], options[rows, 0])
    low, high = np.transpose(CODES)[:, rng.integers(len(CODES), size=size)]
    either = np.sort(rng.uniform(-1.0, 1.0, (2, size)), axis=0)
    low, high = np.where(rng.random(size) < _ANY_TWO, either, (low, high))
    if code is not None:
        low, high = np.full(size, code[0]), np.full(size, code[1])
    between, spread = rng.random((size,)) < _AMOUNTS, rng.random((size,))
    if amounts is not None:
        between = np.full(size, amounts)
    return RewardPaths(paths, low, high, between, spread)


def _probabilities(rng: np.random.Generator, options: np.ndarray, count: int) -> np.ndarray:
    """Probabilities of a reward, (size, count, 4), `count` of each task whose number of options is (size,)."""
    size = len(options)
    any_ = rng.random((size, count, MOST_OPTIONS))
    best = np.floor(rng.random((size, count)) * options[:, None])
    better = 0.5 + 0.5 * rng.random((size, count, 1))
    one_better = np.where(np.arange(MOST_OPTIONS) == best[..., None], better, 1 - better)
    return np.where(rng.random((size, 1, 1)) < _ONE_BETTER, one_better, any_)


def _reversals(rng: np.random.Generator, paths: np.ndarray, options: np.ndarray) -> np.ndarray:
    """Options change places in a circle, all by as many places."""
    size, trials, _ = paths.shape
    happens = rng.random((size, trials)) < rng.uniform(0.0, _MOST_REVERSALS, (size, 1))
    places = 1 + np.floor(rng.random((size, trials)) * (options[:, None] - 1))
    moved = np.cumsum(np.where(happens, places, 0), axis=1).astype(int)
    arms = np.arange(MOST_OPTIONS)
    index = np.where(arms < options[:, None, None], (arms + moved[..., None]) % options[:, None, None], arms)
    return np.take_along_axis(paths, index, -1)


def _drift(rng: np.random.Generator, paths: np.ndarray, options: np.ndarray) -> np.ndarray:
    """Gaussian walks from the first probabilities on, reflected at 0 and 1."""
    size, trials, _ = paths.shape
    steps = rng.uniform(*_STEPS, (size, 1, 1)) * rng.standard_normal((size, trials, MOST_OPTIONS))
    return 1 - np.abs((paths[:, :1] + np.cumsum(steps, axis=1)) % 2 - 1)


def _blocks(rng: np.random.Generator, paths: np.ndarray, options: np.ndarray) -> np.ndarray:
    """New probabilities in each block of trials."""
    size, trials, _ = paths.shape
    length = np.exp(rng.uniform(math.log(_BLOCKS[0]), math.log(_BLOCKS[1]), (size, 1)))
    block = (np.arange(trials) / length).astype(int)
    new = _probabilities(rng, options, block.max() + 1)
    return np.take_along_axis(new, block[..., None], 1)
