"""The probabilistic selection task (Frank, Seeberger & O'Reilly 2004, Science 306, 1940-1943): what learners see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from ppl_buffer.schema import Categorical, Variable
from ppl_buffer.simulator import AnyArray, AnyArrays, Arrays


class SelectionTask(ABC):
    """Pairs of symbols, one pair a trial, with rewards in {0, 1}: the base of simulators of learners in this task.

    Args:
        pairs: number of symbol pairs.
        reward_probabilities: for each pair, the probability of a reward for its better symbol; the other symbol is
            rewarded with the complement. Option 1 is the better symbol. By default 0.8, 0.7, 0.6, repeated.

    Raises:
        ValueError: if `pairs` is below 1, or the reward probabilities do not fit it or lie outside [0, 1].
    """

    def __init__(self, pairs: int = 3, reward_probabilities: Sequence[float] | None = None) -> None:
        if isinstance(pairs, bool) or not isinstance(pairs, int) or pairs < 1:
            raise ValueError(f"pairs: expected an integer of at least 1, got {pairs!r}")
        if reward_probabilities is None:
            reward_probabilities = [(0.8, 0.7, 0.6)[index % 3] for index in range(pairs)]
        probabilities = np.asarray(reward_probabilities, dtype=float)
        if probabilities.shape != (pairs,):
            raise ValueError(f"reward_probabilities: expected {pairs} numbers, got shape {probabilities.shape}")
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise ValueError(f"reward_probabilities: expected numbers in [0, 1], got {probabilities.tolist()}")
        self.pairs = pairs
        self.reward_probabilities = tuple(probabilities.tolist())

    @property
    def input_variables(self) -> dict[str, Variable]:
        """The schema's inputs: which pair is shown, if there are several."""
        return {"pair": Categorical(self.pairs)} if self.pairs > 1 else {}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Draw which pair is shown, each pair equally often up to one, in random order: {"pair": (size, trials)}."""
        if self.pairs == 1:
            return {}
        balanced = np.broadcast_to(np.arange(trials) % self.pairs, (size, trials))
        return {"pair": rng.permuted(balanced, axis=1)}

    @abstractmethod
    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays, trials: int | None = None) -> Arrays:
        """Draw choices and rewards, each (size, trials)."""

    def shown(self, inputs: Arrays, size: int, trials: int | None) -> np.ndarray:
        """Which pair is shown, (size, trials), whether there are inputs or not.

        Raises:
            ValueError: if there are none, and no number of trials.
        """
        if self.pairs > 1:
            return np.asarray(inputs["pair"], dtype=int)
        if trials is None:
            raise ValueError("trials: expected a number where there are no inputs, got None")
        return np.zeros((size, trials), dtype=int)

    def environment(self, trial: AnyArray, inputs: AnyArrays, outcomes: AnyArrays, uniform: AnyArray) -> AnyArrays:
        """Reward choices, as `JointPredictive(environment=...)` asks for it; any backend's arrays.

        Args:
            trial: index of the trial; not used, the reward probabilities are constant.
            inputs: the trial's inputs, each (...).
            outcomes: the trial's outcomes, each (...); only ``choice`` is used.
            uniform: numbers uniform in (0, 1), (..., 1): one for each feedback variable.

        Returns:
            {"reward": (...)}, 1 or 0.
        """
        choice = outcomes["choice"]
        # Arithmetic instead of indexing, so that one line serves NumPy, torch and JAX, traced or not.
        better = 0.0 * choice
        for index, probability in enumerate(self.reward_probabilities):
            shown = 1.0 if self.pairs == 1 else 1.0 * (inputs["pair"] == index)
            better = better + shown * probability
        chance = choice * better + (1 - choice) * (1 - better)
        return {"reward": 1.0 * (uniform[..., 0] < chance)}
