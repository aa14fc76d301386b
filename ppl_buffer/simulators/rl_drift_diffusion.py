"""Q-learning whose values drive a diffusion: choices, response times and rewards of a learner.

The model is the reinforcement-learning drift-diffusion model of Pedersen, Frank & Biele (2017), Psychonomic Bulletin &
Review 24, 1234-1251, as in HDDM (Pedersen & Frank 2020, Computational Brain & Behavior 3, 458-471).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import special

from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Interval, Positive, Real, Schema
from ppl_buffer.simulator import Arrays
from ppl_buffer.simulators.by_trial import by_trial
from ppl_buffer.simulators.drift_diffusion import (
    check_params,
    choice_probability,
    decision_log_density,
    decision_time,
)
from ppl_buffer.simulators.resampling import resample
from ppl_buffer.simulators.selection_task import SelectionTask

# Of the filter behind the training targets that follow a lost trial.
_PARTICLES = 32
# Beta distributions of the prior's quantiles, for the proposal: the network is least accurate at the ends of the
# box, and errors weigh most where a trial tells most, at large scaling and boundary.
_PROPOSAL_QUANTILES = {
    "alpha_positive": (0.5, 0.5),
    "alpha_negative": (0.5, 0.5),
    "scaling": (1.0, 0.5),
    "boundary": (1.0, 0.5),
    "non_decision_time": (0.5, 0.5),
}


class RLDriftDiffusion(SelectionTask):
    """Q-learning over `pairs` pairs of symbols, each decision a diffusion.

    On trial k the pair ``pair_k`` is shown. Evidence starts half way between two boundaries that are ``boundary``
    apart and moves, with unit variance a second, at the drift

        scaling * (Q[pair_k, 1] - Q[pair_k, 0]),

    until it reaches the upper one (``choice_k`` = 1) or the lower one (0); the response time ``rt_k`` is that moment
    plus ``non_decision_time``. A reward ``reward_k`` in {0, 1} follows, and the chosen value alone is updated,

        Q <- Q + alpha * (reward - Q),    alpha = alpha_positive if reward > Q, else alpha_negative.

    All values start at 0.5.

    Parameters, uniform over the box in `priors`: learning rates ``alpha_positive`` and ``alpha_negative`` in (0, 1);
    ``scaling`` above 0, the drift at a difference of values of 1; ``boundary``, the separation of the boundaries
    (HDDM's a; twice the a of HSSM); ``non_decision_time`` in seconds. The box is that of HSSM's model
    ``2AB_RescorlaWagner_DDM``, with its a doubled.

    Args:
        pairs: number of symbol pairs.
        reward_probabilities: for each pair, the probability of a reward for its better symbol; the other symbol is
            rewarded with the complement. Option 1 is the better symbol. By default 0.8, 0.7, 0.6, repeated.

    Raises:
        ValueError: if `pairs` is below 1, or the reward probabilities do not fit it or lie outside [0, 1].
    """

    priors = {
        "alpha_positive": Prior.uniform(0.0, 1.0),
        "alpha_negative": Prior.uniform(0.0, 1.0),
        "scaling": Prior.uniform(0.0, 10.0),
        "boundary": Prior.uniform(0.6, 5.0),
        "non_decision_time": Prior.uniform(0.0, 2.0),
    }
    # Its methods take parameters (size, trials) too.
    trial_params = True

    def __init__(self, pairs: int = 3, reward_probabilities: Sequence[float] | None = None) -> None:
        super().__init__(pairs, reward_probabilities)
        self.schema = Schema(
            params={
                "alpha_positive": Interval(0, 1),
                "alpha_negative": Interval(0, 1),
                "scaling": Positive(),
                "boundary": Positive(),
                "non_decision_time": Positive(),
            },
            inputs=self.input_variables,
            outcomes={"choice": Categorical(2), "rt": Positive(above="non_decision_time", lapse_range=(0, 20))},
            feedback={"reward": Real()},
            ordered=True,
        )

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def proposal(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters, half of the sets from the prior, half nearer the ends of its box: dict name -> (size,)."""
        near_ends = rng.random(size) < 0.5
        params = self.prior(rng, size)
        for name, (low, high) in _PROPOSAL_QUANTILES.items():
            # A learning rate of 1 to machine precision is not legal.
            quantile = np.clip(rng.beta(low, high, size), 1e-6, 1 - 1e-6)
            params[name] = np.where(near_ends, self.priors[name].quantile(quantile), params[name])
        return params

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays, trials: int | None = None) -> Arrays:
        """Draw ``choice`` in {0, 1}, ``rt`` in seconds and ``reward`` in {0, 1}, each (size, trials).

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: dict name -> (size, trials).
            trials: number of trials; needed only where there are no inputs (`pairs=1`).

        Raises:
            ValueError: if a parameter is missing or not legal, or `trials` is needed and not given.
        """
        return self.simulate_with_probabilities(rng, params, inputs, trials)[0]

    def simulate_with_probabilities(
        self, rng: np.random.Generator, params: Arrays, inputs: Arrays, trials: int | None = None
    ) -> tuple[Arrays, Arrays]:
        """`simulate`, and the choice probabilities given the parameters and the trials before.

        Returns:
            the data, and {"choice": (size, trials, 2)}.
        """
        size = len(params["scaling"])
        pair = self.shown(inputs, size, trials)
        trials = pair.shape[1]
        checked = self._checked(params, trials)
        choice = np.empty((size, trials), dtype=int)
        reward, upper = np.empty((size, trials)), np.empty((size, trials))
        choice_uniform, reward_uniform = rng.random((trials, size)), rng.random((trials, size, 1))

        def respond(k: int, drift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            upper[:, k] = choice_probability(drift, checked["boundary"][:, k], 0.5)
            choice[:, k] = option = (choice_uniform[k] < upper[:, k]).astype(int)
            shown = {"pair": pair[:, k]}
            reward[:, k] = self.environment(k, shown, {"choice": option}, reward_uniform[k])["reward"]
            return option, reward[:, k]

        drift = self._drifts(checked, pair, respond)
        # Nothing is learnt from the time that a choice took: all of them at once.
        time = decision_time(rng, drift, checked["boundary"], 0.5, choice)
        data = {"choice": choice, "rt": checked["non_decision_time"] + time, "reward": reward}
        return data, {"choice": np.stack([1 - upper, upper], axis=-1)}

    def resample_outcomes(self, rng: np.random.Generator, params: Arrays, data: Arrays, count: int) -> Arrays:
        """Draw every response `count` times more, given the trials before it as they were.

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            data: inputs, ``choice`` and ``reward``, each (size, trials).
            count: how often.

        Returns:
            ``choice`` and ``rt``, each (size, trials, count).
        """
        checked = self._checked(params, np.shape(data["choice"])[1])
        drift, choice = self._observed_drifts(checked, data)
        drift, boundary = drift[..., None], checked["boundary"][..., None]
        uniform = rng.random((*choice.shape, count))
        again = (uniform < choice_probability(drift, boundary, 0.5)).astype(int)
        rt = checked["non_decision_time"][..., None] + decision_time(rng, drift, boundary, 0.5, again)
        return {"choice": again, "rt": rt}

    def log_likelihood(self, params: Arrays, data: Arrays) -> np.ndarray:
        """Log density of each trial's choice and response time together, given the trials before it, (size, trials).

        Args:
            params: dict name -> (size,).
            data: inputs, ``choice``, ``rt`` and ``reward``, each (size, trials).
        """
        checked = self._checked(params, np.shape(data["choice"])[1])
        drift, choice = self._observed_drifts(checked, data)
        time = data["rt"] - checked["non_decision_time"]
        return decision_log_density(time, drift, checked["boundary"], 0.5, choice)

    def seen_log_likelihood(self, rng: np.random.Generator, params: Arrays, data: Arrays, lost: Arrays) -> np.ndarray:
        """Log density of each trial's choice and response time given what was seen before it, (size, trials).

        Before anything is lost it is exact; afterwards an estimate, by a particle filter for each data set.

        Args:
            rng: of the particle filters.
            params: dict name -> (size,).
            data: inputs, ``choice``, ``rt`` and ``reward``, each (size, trials): as they were drawn, lost or not.
            lost: ``choice``, ``rt`` and ``reward``, each (size, trials) bool: what nobody saw.
        """
        known = self.log_likelihood(params, data)
        some = np.any([x.any(1) for x in lost.values()], axis=0)
        if some.any():
            rows = ({name: np.asarray(x)[some] for name, x in each.items()} for each in (params, data, lost))
            known[some] = self._filter(rng, *rows)
        return known

    def _filter(self, rng: np.random.Generator, params: Arrays, data: Arrays, lost: Arrays) -> np.ndarray:
        """`seen_log_likelihood` of data sets that lost something.

        By a conditional particle filter (Andrieu, Doucet & Holenstein 2010, JRSS B 72, 269-342), whose particles are
        what may have been lost and the values that follow from it; the first has what was drawn.
        """
        (size, trials), rows = np.shape(data["choice"]), np.arange(len(data["choice"]))
        params, pair = self._checked(params, trials), self.shown(data, size, trials)
        rewarded = np.asarray(self.reward_probabilities)[pair]
        time = data["rt"] - params["non_decision_time"]
        values = np.full((size, self.pairs, 2, _PARTICLES), 0.5)
        log_weight = np.full((size, _PARTICLES), -np.log(_PARTICLES))
        known = np.empty((size, trials))
        for k in range(trials):
            # Each (size, 1), beside the particles.
            of_trial = {name: x[:, k, None] for name, x in {**params, **data}.items()}
            unseen = {name: x[:, k, None] for name, x in lost.items()}
            boundary, choice = of_trial["boundary"], of_trial["choice"].astype(int)
            options = values[rows, pair[:, k]]
            drift = of_trial["scaling"] * (options[:, 1] - options[:, 0])
            made = decision_log_density(time[:, k, None], drift, boundary, 0.5, choice)
            known[:, k] = special.logsumexp(log_weight + made, axis=1)
            # Half way between the boundaries: the time that a choice takes does not depend on which it is.
            log_chance = -np.logaddexp(0.0, (1 - 2 * choice) * drift * boundary)
            # A time that was rounded onto its bound has no density, and tells nothing.
            timed = ~unseen["rt"] & (time[:, k, None] > 0)
            log_weight += np.where(timed, made - log_chance, 0.0) + np.where(unseen["choice"], 0.0, log_chance)
            upper = rng.random(drift.shape) < choice_probability(drift, boundary, 0.5)
            option = np.where(unseen["choice"], upper, choice)
            option[:, :1] = choice
            chance = np.where(option == 1, rewarded[:, k, None], 1 - rewarded[:, k, None])
            reward = np.where(unseen["reward"], rng.random(drift.shape) < chance, of_trial["reward"])
            reward[:, :1] = of_trial["reward"]
            with np.errstate(divide="ignore"):
                of_reward = np.log(np.where(reward == 1, chance, 1 - chance))
            log_weight += np.where(unseen["reward"], 0.0, of_reward)
            log_weight -= special.logsumexp(log_weight, axis=1, keepdims=True)
            error = reward - np.where(option == 1, options[:, 1], options[:, 0])
            step = np.where(error > 0, of_trial["alpha_positive"], of_trial["alpha_negative"]) * error
            values[rows, pair[:, k]] = options + step[:, None] * (option[:, None] == np.arange(2)[:, None])
            poor = np.flatnonzero(np.exp(2 * log_weight).sum(1) * _PARTICLES > 2)
            if len(poor):
                parent = resample(np.exp(log_weight[poor]), rng.random((len(poor), 1)))
                values[poor] = np.take_along_axis(values[poor], parent[:, None, None], -1)
                log_weight[poor] = -np.log(_PARTICLES)
        return known

    def _checked(self, params: Arrays, trials: int) -> Arrays:
        """The parameters, checked, dict name -> (size, trials)."""
        return by_trial(check_params(self.schema, params), self.schema.params, trials)

    def _observed_drifts(self, params: Arrays, data: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """The drift of each trial given the trials before it as they were, and its choice: both (size, trials)."""
        choice, reward = np.asarray(data["choice"], dtype=int), np.asarray(data["reward"], dtype=float)
        pair = self.shown(data, *choice.shape)
        return self._drifts(params, pair, lambda k, _: (choice[:, k], reward[:, k])), choice

    def _drifts(
        self,
        params: Arrays,
        pair: np.ndarray,
        respond: Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]],
    ) -> np.ndarray:
        """The drift of each trial (size, trials); ``respond(trial, drift)`` gives its choices and rewards, (size,).

        The parameters are (size, trials).
        """
        size, trials = pair.shape
        rows = np.arange(size)
        values = np.full((size, self.pairs, 2), 0.5)
        drift = np.empty((size, trials))
        for k in range(trials):
            shown = pair[:, k]
            drift[:, k] = params["scaling"][:, k] * (values[rows, shown, 1] - values[rows, shown, 0])
            option, reward = respond(k, drift[:, k])
            error = reward - values[rows, shown, option]
            rate = np.where(error > 0, params["alpha_positive"][:, k], params["alpha_negative"][:, k])
            values[rows, shown, option] += rate * error
        return drift
