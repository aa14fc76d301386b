"""The noisy Q-learner in tasks of many kinds: two codes of rewards, any probabilities, reversals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppl_buffer.simulator import Arrays
from ppl_buffer.simulators.noisy_q import NoisyQ, learn, without_noise

# Shares of the tasks: rewards of -1 and 1, complementary probabilities, reversals, pairs in blocks.
_SIGNED, _COMPLEMENTARY, _REVERSING, _BLOCKED = 0.5, 0.5, 0.5, 0.25
# The most often that a pair reverses, a trial.
_MOST_REVERSALS = 0.1


@dataclass(frozen=True)
class RewardTasks:
    """How rewards come about, a task a data set.

    Attributes:
        probabilities: (size, pairs, 2), of a reward for each symbol, before any reversal.
        reversal: (size,), probability that the symbols of the pair shown exchange their probabilities before a trial.
        unrewarded: (size,), what stands for no reward, 0 or -1; a reward is 1.
    """

    probabilities: np.ndarray
    reversal: np.ndarray
    unrewarded: np.ndarray


class NoisyQTasks:
    """`NoisyQ`, each data set in a task of its own: the same parameters and the same likelihood, other experiences.

    What is likely given the parameters and the past does not depend on how rewards come about; which pasts a network
    has seen does. A task has one to `pairs` pairs, interleaved or (one in four) in blocks; rewards of 0 and 1 or of -1
    and 1; probabilities of a reward that add up to 1 for the symbols of a pair, or any two numbers, as in a bandit; and
    in half of the tasks the symbols of a pair exchange their probabilities now and then, at up to one trial in ten.

    It gives no feedback on choices that it did not draw (`ppl_buffer.simulator.WithEnvironment`): an environment knows
    one trial, not the task. So records call it ``NoisyQ``, which has one, and against which a network is checked.

    Args:
        pairs: greatest number of symbol pairs.

    Raises:
        ValueError: if `pairs` is below 2.
    """

    name = "NoisyQ"
    priors = NoisyQ.priors
    atoms = NoisyQ.atoms
    trial_params = NoisyQ.trial_params

    def __init__(self, pairs: int = 3) -> None:
        if isinstance(pairs, bool) or not isinstance(pairs, int) or pairs < 2:
            raise ValueError(f"pairs: expected an integer of at least 2, got {pairs!r}")
        self.pairs = pairs
        self.schema = NoisyQ(pairs).schema

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Draw which pair is shown: {"pair": (size, trials)}; of one to all pairs, each equally often up to one."""
        names = rng.permuted(np.broadcast_to(np.arange(self.pairs), (size, self.pairs)), axis=1)
        count = rng.integers(1, self.pairs + 1, (size, 1))
        shown = np.take_along_axis(names, np.arange(trials) % count, axis=1)
        in_blocks = np.take_along_axis(names, np.arange(trials) * count // max(trials, 1), axis=1)
        blocked = rng.random((size, 1)) < _BLOCKED
        return {"pair": np.where(blocked, in_blocks, rng.permuted(shown, axis=1))}

    def tasks(self, rng: np.random.Generator, size: int) -> RewardTasks:
        """Draw how rewards come about in each of `size` data sets."""
        probabilities = rng.random((size, self.pairs, 2))
        complementary = rng.random(size) < _COMPLEMENTARY
        probabilities[complementary, :, 1] = 1 - probabilities[complementary, :, 0]
        reversal = rng.uniform(0.0, _MOST_REVERSALS, size) * (rng.random(size) < _REVERSING)
        return RewardTasks(probabilities, reversal, np.where(rng.random(size) < _SIGNED, -1.0, 0.0))

    def play(
        self, rng: np.random.Generator, params: Arrays, inputs: Arrays, tasks: RewardTasks
    ) -> tuple[Arrays, np.ndarray, np.ndarray]:
        """Draw choices and rewards in given tasks.

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: ``pair`` (size, trials).
            tasks: of the data sets.

        Returns:
            ``choice`` in {0, 1} and ``reward``, and the probability of option 1 given the learning noise that was
            drawn, each (size, trials); and this noise, (trials, size).
        """
        pair = np.asarray(inputs["pair"], dtype=int)
        size, trials = pair.shape
        uniform, rewarded, reversed_ = rng.random((3, trials, size))
        noise = rng.standard_normal((trials, size))
        rows = np.arange(size)
        swapped = np.zeros((size, self.pairs), dtype=int)

        def reward(k: int, choice: np.ndarray) -> np.ndarray:
            shown = pair[:, k]
            swapped[rows, shown] ^= reversed_[k] < tasks.reversal
            chance = tasks.probabilities[rows, shown, choice ^ swapped[rows, shown]]
            return np.where(rewarded[k] < chance, 1.0, tasks.unrewarded)

        return *learn(params, pair, reward, uniform, noise), noise

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """Draw tasks, and in them ``choice`` in {0, 1} and ``reward`` in {-1, 0, 1}, each (size, trials).

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: ``pair`` (size, trials).
        """
        return self.play(rng, params, inputs, self.tasks(rng, len(params["alpha"])))[0]

    def simulate_with_probabilities(
        self, rng: np.random.Generator, params: Arrays, inputs: Arrays
    ) -> tuple[Arrays, Arrays]:
        """`simulate`, and the choice probabilities as `NoisyQ.simulate_with_probabilities` gives them.

        Returns:
            the data, and {"choice": (size, trials, 2)}.
        """
        data, probability, noise = self.play(rng, params, inputs, self.tasks(rng, len(params["alpha"])))
        return data, {"choice": without_noise(rng, params, inputs["pair"], data, probability, noise)}
