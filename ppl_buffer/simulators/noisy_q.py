"""Q-learning over pairs of symbols with noisy updates: choices, rewards, an intractable likelihood.

The learning noise is that of Findling, Skvortsova, Dromnelle, Palminteri & Wyart (2019), "Computational noise in
reward-guided learning drives behavioral variability in volatile environments", Nature Neuroscience 22, 2066-2077.
The task is the probabilistic selection task (Frank, Seeberger & O'Reilly 2004, Science 306, 1940-1943).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Interval, Positive, Real, Schema
from ppl_buffer.simulator import Arrays
from ppl_buffer.simulators.by_trial import by_trial
from ppl_buffer.simulators.resampling import resample
from ppl_buffer.simulators.selection_task import SelectionTask

# Of the filter behind the training targets, which are unbiased whatever it is: their variance is what it buys.
_PARTICLES = 256
# Log-odds beyond which a choice counts as certain.
_STEEPEST = 30.0


class NoisyQ(SelectionTask):
    """Q-learning with learning noise over `pairs` pairs of symbols.

    On trial k the pair ``pair_k`` is shown and option ``choice_k`` in {0, 1} is chosen with probability

        softmax(beta * Q[pair_k, :] + kappa * (option was chosen on trial k - 1, whatever the pair)),

    a reward ``reward_k`` in {0, 1} follows, and the chosen value alone is updated,

        Q <- Q + alpha * delta + zeta * |delta| * epsilon,    delta = reward - Q,    epsilon ~ Normal(0, 1).

    All values start at 0.5. At zeta = 0 this is plain Q-learning, whose likelihood is exact; at zeta > 0 the
    likelihood integrates over the noise of every update.

    Parameters: learning rate ``alpha`` in (0, 1), inverse temperature ``beta`` above 0, choice stickiness ``kappa``
    in log-odds, learning noise ``zeta`` in [0, 1] (0 is legal). Their prior is uniform over the box in `priors`.

    Args:
        pairs: number of symbol pairs.
        reward_probabilities: for each pair, the probability of a reward for its better symbol; the other symbol is
            rewarded with the complement. Option 1 is the better symbol. By default 0.8, 0.7, 0.6, repeated.

    Raises:
        ValueError: if `pairs` is below 1, or the reward probabilities do not fit it or lie outside [0, 1].
    """

    priors = {
        "alpha": Prior.uniform(0.0, 1.0),
        "beta": Prior.uniform(0.0, 10.0),
        "kappa": Prior.uniform(-2.0, 2.0),
        "zeta": Prior.uniform(0.0, 1.0),
    }
    # Plain Q-learning has no mass under the prior, but is what many will compare with.
    atoms = {"zeta": 0.0}
    # Its methods take parameters (size, trials) too.
    trial_params = True

    def __init__(self, pairs: int = 3, reward_probabilities: Sequence[float] | None = None) -> None:
        super().__init__(pairs, reward_probabilities)
        self.schema = Schema(
            params={"alpha": Interval(0, 1), "beta": Positive(), "kappa": Real(), "zeta": Interval(0, 1, closed=True)},
            inputs=self.input_variables,
            outcomes={"choice": Categorical(2)},
            feedback={"reward": Real()},
            ordered=True,
        )

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays, trials: int | None = None) -> Arrays:
        """Draw choices and rewards: dict of ``choice`` (size, trials) in {0, 1} and ``reward`` (size, trials).

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: dict name -> (size, trials).
            trials: number of trials; needed only where there are no inputs (`pairs=1`).
        """
        return self._simulate(rng, params, inputs, trials)[0]

    def simulate_with_probabilities(
        self, rng: np.random.Generator, params: Arrays, inputs: Arrays, trials: int | None = None
    ) -> tuple[Arrays, Arrays]:
        """`simulate`, and the choice probabilities of an observer who knows the parameters and the history.

        Training on them in place of the drawn choices has the same expected gradient and far less variance. Where
        zeta is above 0 the observer does not know the learning noise either: these are then unbiased estimates of the
        probabilities, by particle filters one of whose paths is the noise that was drawn.

        Returns:
            the data, and {"choice": (size, trials, 2)}.
        """
        data, probability, noise = self._simulate(rng, params, inputs, trials)
        pair = self.shown(inputs, *data["choice"].shape)
        return data, {"choice": without_noise(rng, params, pair, data, probability, noise)}

    def _simulate(
        self, rng: np.random.Generator, params: Arrays, inputs: Arrays, trials: int | None
    ) -> tuple[Arrays, np.ndarray, np.ndarray]:
        """The data; the probability of option 1 given the values as they were, (size, trials); the noise."""
        pair = self.shown(inputs, len(params["alpha"]), trials)
        size, trials = pair.shape
        choice_uniform, reward_uniform = rng.random((trials, size)), rng.random((trials, size))
        noise = rng.standard_normal((trials, size))

        def reward(k: int, choice: np.ndarray) -> np.ndarray:
            shown = {"pair": pair[:, k]}
            return self.environment(k, shown, {"choice": choice}, reward_uniform[k][:, None])["reward"]

        return *learn(params, pair, reward, choice_uniform, noise), noise


def learn(
    params: Arrays,
    pair: np.ndarray,
    reward: Callable[[int, np.ndarray], np.ndarray],
    uniform: np.ndarray,
    noise: np.ndarray,
) -> tuple[Arrays, np.ndarray]:
    """Choices and rewards of the noisy Q-learner, whoever rewards it.

    Args:
        params: dict name -> (size,).
        pair: (size, trials), which pair is shown.
        reward: ``reward(trial, choice)`` of the choices (size,) in a trial: (size,).
        uniform: (trials, size) numbers in (0, 1), from which choices are drawn.
        noise: (trials, size) standard normal numbers, those of the updates.

    Returns:
        ``choice`` and ``reward``, and the probability of option 1 given the values as they were; each (size, trials).
    """
    size, trials = pair.shape
    alpha, beta, kappa, zeta = by_trial(params, NoisyQ.priors, trials).values()
    rows = np.arange(size)
    values = np.full((size, pair.max(initial=0) + 1, 2), 0.5)
    choices = np.empty((size, trials), dtype=int)
    rewards = np.empty((size, trials))
    probability = np.empty((size, trials))
    previous = np.zeros(size)  # +1 after option 1, -1 after option 0, 0 before the first trial
    for k in range(trials):
        shown = pair[:, k]
        logit = beta[:, k] * (values[rows, shown, 1] - values[rows, shown, 0]) + kappa[:, k] * previous
        probability[:, k] = 0.5 * (1 + np.tanh(0.5 * logit))
        choices[:, k] = choice = (uniform[k] < probability[:, k]).astype(int)
        rewards[:, k] = reward(k, choice)
        error = rewards[:, k] - values[rows, shown, choice]
        values[rows, shown, choice] += alpha[:, k] * error + zeta[:, k] * np.abs(error) * noise[k]
        previous = 2.0 * choice - 1
    return {"choice": choices, "reward": rewards}, probability


def without_noise(
    rng: np.random.Generator,
    params: Arrays,
    pair: np.ndarray,
    data: Arrays,
    probability: np.ndarray,
    noise: np.ndarray,
) -> np.ndarray:
    """Choice probabilities (size, trials, 2) of an observer who does not know the learning noise, without bias.

    The mean over all that may have been drawn, given parameters and history, is the probability, however few particles
    there are.

    Args:
        rng: of the particle filters, where zeta is above 0.
        params: dict name -> (size,).
        pair: (size, trials), which pair is shown.
        data: ``choice`` and ``reward``, each (size, trials).
        probability: (size, trials), of option 1 given the noise: the answer where zeta is 0.
        noise: (trials, size), standard normal: what `data` came about with.
    """
    params = by_trial(params, NoisyQ.priors, pair.shape[1])
    probability, noisy = probability.copy(), (params["zeta"] > 0).any(1)
    if noisy.any():
        rows = {name: x[noisy] for name, x in params.items()}
        choice, reward = data["choice"][noisy], data["reward"][noisy]
        probability[noisy] = _filter(rng, rows, pair[noisy], choice, reward, noise[:, noisy])
    return np.stack([1 - probability, probability], axis=-1)


def _filter(
    rng: np.random.Generator,
    params: Arrays,
    pair: np.ndarray,
    choice: np.ndarray,
    reward: np.ndarray,
    drawn_noise: np.ndarray,
) -> np.ndarray:
    """Unbiased estimates of p(choice_k = 1 | parameters (size, trials), trials before k), (size, trials).

    By conditional particle filters (Andrieu, Doucet & Holenstein 2010, JRSS B 72, 269-342): the first particle is the
    path that was drawn. Given the history that is a draw of the posterior of paths, which such a filter leaves as it
    is: one of the particles, taken by the weights, is another draw, and the weighted mean has the posterior's mean. A
    filter of free particles would have a bias, greatest where noise makes the values run away.

    The previous choice is observed, so that given the parameters the pairs are independent: a filter each.
    """
    (size, trials), pairs = choice.shape, pair.max(initial=0) + 1
    alpha, beta, kappa, zeta = (params[name] for name in NoisyQ.priors)
    rows = np.arange(size)
    values = np.full((size, pairs, 2, _PARTICLES), 0.5)
    weights = np.full((size, pairs, _PARTICLES), 1.0 / _PARTICLES)
    probability = np.empty((size, trials))
    previous = np.zeros((size, 1))
    offset = rng.random((trials, size, 1))
    for k in range(trials):
        shown, option = pair[:, k], choice[:, k]
        options, weight = values[rows, shown], weights[rows, shown]
        # Far-off values would make a choice impossible in floating point, and a filter of no weight.
        logit = beta[:, k, None] * (options[:, 1] - options[:, 0]) + kappa[:, k, None] * previous
        logit = np.clip(logit, -_STEEPEST, _STEEPEST)
        chance = 0.5 * (1 + np.tanh(0.5 * logit))
        probability[:, k] = (weight * chance).sum(1)
        weight *= np.where(option[:, None] == 1, chance, 1 - chance)
        weight /= weight.sum(1, keepdims=True)
        poor = np.flatnonzero((weight**2).sum(1) * _PARTICLES > 2)
        if len(poor):
            parent = resample(weight[poor], offset[k, poor])
            options[poor] = np.take_along_axis(options[poor], parent[:, None], -1)
            weight[poor] = 1.0 / _PARTICLES
        old = options[rows, option]
        error = reward[:, k, None] - old
        noise = rng.standard_normal((size, _PARTICLES))
        noise[:, 0] = drawn_noise[k]
        options[rows, option] = old + alpha[:, k, None] * error + zeta[:, k, None] * np.abs(error) * noise
        values[rows, shown], weights[rows, shown] = options, weight
        previous = 2.0 * option[:, None] - 1
    return probability
