"""References for the noisy Q-learner: exact recursion, particle filter, and model evidence by importance sampling.

Written from the model's equations and sharing no code with `ppl_buffer.simulators.noisy_q`; only the box of the prior
is read from there. Two facts make the noisy likelihood cheap and its estimate precise:

- A choice depends on the values of the pair shown and on the previous choice, which is observed. Given the parameters,
  the likelihood is therefore a product over pairs, each with a hidden state of two numbers: one small filter a pair.
- Within a filter the noise of all particles is a randomly shifted lattice, and particles are sorted before they are
  resampled (array-RQMC: L'Ecuyer, Lecot & Tuffin 2008; Gerber & Chopin 2015). Each particle's noise stays normal, so
  that the likelihood estimate is still unbiased, with a fraction of the variance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import lgamma, log, pi
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import ndtri

from ppl_buffer.simulators.noisy_q import NoisyQ

Array = Any
_NAMES = ("alpha", "beta", "kappa", "zeta")
_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)
# Importance proposal: degrees of freedom of the Student t, and the share of draws that come from the prior instead, so
# that no region of the prior can have an unbounded weight.
_FREEDOM = 5.0
_DEFENSE = 0.1


def exact_log_probabilities(params: Mapping[str, Array], pair: Array, choice: Array, reward: Array) -> np.ndarray:
    """Log probability of each option at zeta = 0, given all trials before.

    Args:
        params: dict of ``alpha``, ``beta``, ``kappa``, each (*B,); what `zeta` says is ignored.
        pair: (*B, K) which pair is shown. Batch dimensions broadcast against those of the parameters.
        choice: (*B, K) in {0, 1}.
        reward: (*B, K).

    Returns:
        (*B, K, 2).
    """
    alpha, beta, kappa = (np.asarray(params[name], float) for name in _NAMES[:3])
    pair, choice, reward = np.asarray(pair, int), np.asarray(choice, int), np.asarray(reward, float)
    shape = np.broadcast_shapes(alpha.shape, beta.shape, kappa.shape, pair.shape[:-1], choice.shape[:-1])
    # One array an option and a pair: everything is elementwise, whatever the batch dimensions.
    values = [[np.full(shape, 0.5), np.full(shape, 0.5)] for _ in range(pair.max(initial=0) + 1)]
    out = np.empty((*shape, pair.shape[-1], 2))
    for k in range(pair.shape[-1]):
        advantage = np.zeros(shape)
        for index, (worse, better) in enumerate(values):
            advantage = np.where(pair[..., k] == index, better - worse, advantage)
        stay = 2.0 * choice[..., k - 1] - 1.0 if k else 0.0
        logit = beta * advantage + kappa * stay
        out[..., k, 0], out[..., k, 1] = -np.logaddexp(0.0, logit), -np.logaddexp(0.0, -logit)
        for index, options in enumerate(values):
            for option in (0, 1):
                moves = (pair[..., k] == index) & (choice[..., k] == option)
                moved = (1 - alpha) * options[option] + alpha * reward[..., k]
                options[option] = np.where(moves, moved, options[option])
    return out


def exact_conditionals(params: Mapping[str, Array], pair: Array, choice: Array, reward: Array) -> np.ndarray:
    """log p(choice_k | past) at zeta = 0: (*B, K). Arguments as `exact_log_probabilities` takes them."""
    log_probabilities = exact_log_probabilities(params, pair, choice, reward)
    return np.where(np.asarray(choice) == 1, log_probabilities[..., 1], log_probabilities[..., 0])


def exact_conditionals_jax(
    params: Mapping[str, Array],
    pair: Array,
    choice: Array,
    reward: Array,
    trial_mask: Array | None = None,
    pairs: int = 3,
) -> Array:
    """`exact_conditionals`, differentiable in the parameters and traceable.

    Args:
        params: dict of ``alpha``, ``beta``, ``kappa``, each (datasets,).
        pair: (datasets, K).
        choice: (datasets, K).
        reward: (datasets, K).
        trial_mask: (datasets, K), False = no such trial: zero, and nothing is learnt from it.
        pairs: number of pairs.

    Returns:
        (datasets, K).
    """
    pair, choice = jnp.asarray(pair, int), jnp.asarray(choice, int)
    mask = jnp.ones(pair.shape, bool) if trial_mask is None else jnp.asarray(trial_mask, bool)

    def one(alpha: Array, beta: Array, kappa: Array, *data: Array) -> Array:
        def step(carry: tuple[Array, Array], trial: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
            values, stay = carry
            shown, chosen, rewarded, real = trial
            sign = 2.0 * chosen - 1.0
            logit = beta * (values[shown, 1] - values[shown, 0]) + kappa * stay
            log_prob = jnp.where(real, jax.nn.log_sigmoid(sign * logit), 0.0)
            target = (jnp.arange(pairs)[:, None] == shown) & (jnp.arange(2) == chosen) & real
            values = values + alpha * jnp.where(target, rewarded - values, 0.0)
            return (values, jnp.where(real, sign, stay)), log_prob

        return lax.scan(step, (jnp.full((pairs, 2), 0.5), jnp.zeros(())), data)[1]

    arguments = (*(jnp.asarray(params[name], float) for name in _NAMES[:3]), pair, choice)
    return jax.vmap(one)(*arguments, jnp.asarray(reward, float), mask)


class Filtered(NamedTuple):
    """What a particle filter says of each data set.

    Attributes:
        log_probabilities: (datasets, K, 2), log probability of each option given all trials before.
        conditionals: (datasets, K), that of the option chosen.
        total: (datasets,), their sum: log of an unbiased estimate of the likelihood.
    """

    log_probabilities: np.ndarray
    conditionals: np.ndarray
    total: np.ndarray


class _Split(NamedTuple):
    """Trials taken apart by pair: (datasets, pairs, L) each, L the most often that a pair is shown."""

    trial: np.ndarray
    real: np.ndarray
    choice: np.ndarray
    reward: np.ndarray
    stay: np.ndarray


def _split(pair: Array, choice: Array, reward: Array) -> _Split:
    pair, choice, reward = np.asarray(pair, int), np.asarray(choice, int), np.asarray(reward, float)
    shown = pair[:, None, :] == np.arange(pair.max(initial=0) + 1)[:, None]
    # A stable sort puts the trials of the pair first, in their order.
    trial = np.argsort(~shown, axis=-1, kind="stable")[..., : shown.sum(-1).max()]
    real = np.take_along_axis(shown, trial, -1)
    stay = np.concatenate([np.zeros((len(choice), 1)), 2.0 * choice[:, :-1] - 1.0], -1)
    rows = np.arange(len(pair))[:, None, None]
    return _Split(trial, real, choice[rows, trial], reward[rows, trial], stay[rows, trial])


def filter_pair(
    theta: Array, real: Array, choice: Array, reward: Array, stay: Array, uniform: Array, particles: int
) -> tuple[Array, Array]:
    """Filter the values of one pair of one data set.

    Args:
        theta: (4,), in the order of `_NAMES`.
        real: (L,), whether there is such a trial; `choice`, `reward` and `stay` likewise (see `_Split`).
        choice: (L,).
        reward: (L,).
        stay: (L,).
        uniform: (L, 2), uniform numbers in (0, 1): the shift of a trial's lattice, and the offset of its resampling.
        particles: number of particles.

    Returns:
        log probabilities of option 0 and of option 1, each (L,).
    """
    lattice = jnp.asarray(np.arange(particles) * _GOLDEN % 1.0, jnp.float32)
    index = jnp.arange(particles, dtype=jnp.int32)
    levels = min(2**30 // particles, 2**20)
    alpha, beta, kappa, zeta = theta

    def step(carry: tuple[Array, ...], trial: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
        worse, better = carry
        real, choice, reward, stay, (shift, offset) = trial
        # Sorted by what decides the choice, neighbours are alike, and the lattice spreads their noise evenly. One
        # integer holds the rounded rank and the particle's index: sorting integers is many times faster.
        advantage = better - worse
        rank = ((jnp.clip(advantage, -4.0, 4.0) + 4.0) * (levels / 8)).astype(jnp.int32)
        order = lax.sort(rank * particles + index) % particles
        logit = beta * advantage[order] + kappa * stay
        log_options = jax.nn.log_sigmoid(-logit), jax.nn.log_sigmoid(logit)
        probabilities = tuple(jax.nn.logsumexp(option) - jnp.log(particles) for option in log_options)
        # Systematic resampling at every trial: of sorted particles, it costs next to no variance.
        below = jnp.cumsum(jnp.exp(jnp.where(choice == 1, log_options[1], log_options[0])))
        below = jnp.concatenate([jnp.zeros(1), below[:-1] / below[-1] * particles])
        first = jnp.ceil(below - offset).astype(jnp.int32)
        ancestor = order[lax.cummax(jnp.zeros_like(index).at[first].max(index, mode="drop"))]
        moved = worse[ancestor], better[ancestor]
        noise = ndtri(jnp.clip((lattice + shift) % 1.0, 1e-7, 1 - 1e-7))
        chosen = jnp.where(choice == 1, moved[1], moved[0])
        error = reward - chosen
        chosen = chosen + alpha * error + zeta * jnp.abs(error) * noise
        after = jnp.where(choice == 1, moved[0], chosen), jnp.where(choice == 1, chosen, moved[1])
        carry = jnp.where(real, after[0], worse), jnp.where(real, after[1], better)
        return carry, probabilities

    start = jnp.full((particles,), 0.5)
    return lax.scan(step, (start, start), (real, choice, reward, stay, uniform))[1]


@partial(jax.jit, static_argnames="particles")
def _filter(theta: Array, split: _Split, key: Array, particles: int) -> tuple[Array, Array]:
    """Filter the values of every pair of every data set, for several parameter vectors each.

    Args:
        theta: (datasets, draws, 4).
        split: the trials of each pair.
        key: of the random numbers.
        particles: number of particles a pair.

    Returns:
        log probabilities of option 0 and of option 1, each (datasets, draws, pairs, L).
    """

    def one(theta: Array, real: Array, choice: Array, reward: Array, stay: Array, key: Array) -> tuple[Array, Array]:
        uniform = jax.random.uniform(key, (len(real), 2))
        return filter_pair(theta, real, choice, reward, stay, uniform, particles)

    by_pair = jax.vmap(one, (None, 0, 0, 0, 0, 0))
    by_draw = jax.vmap(by_pair, (0, None, None, None, None, 0))

    def dataset(arguments: tuple[Array, ...]) -> tuple[Array, Array]:
        theta, key, *data = arguments
        keys = jax.random.split(key, (len(theta), len(data[0])))
        return by_draw(theta, *data, keys)

    keys = jax.random.split(key, len(theta))
    return lax.map(dataset, (theta, keys, split.real, split.choice, split.reward, split.stay))


def particle_filter(
    params: Mapping[str, Array], pair: Array, choice: Array, reward: Array, particles: int, seed: int
) -> Filtered:
    """Log conditionals under learning noise, in single precision.

    Args:
        params: dict of ``alpha``, ``beta``, ``kappa``, ``zeta``, each (datasets,).
        pair: (datasets, K).
        choice: (datasets, K) in {0, 1}.
        reward: (datasets, K).
        particles: number of particles a pair.
        seed: of the random numbers.
    """
    split = _split(pair, choice, reward)
    theta = np.stack([np.asarray(params[name], np.float32) for name in _NAMES], -1)[:, None]
    by_pair = np.stack([np.asarray(x)[:, 0] for x in _filter(theta, split, jax.random.key(seed), particles)], -1)
    log_probabilities = np.empty((*np.shape(choice), 2))
    rows = np.broadcast_to(np.arange(len(theta))[:, None, None], split.trial.shape)
    log_probabilities[rows[split.real], split.trial[split.real]] = by_pair[split.real]
    conditionals = np.where(np.asarray(choice) == 1, log_probabilities[..., 1], log_probabilities[..., 0])
    return Filtered(log_probabilities, conditionals, conditionals.sum(-1))


def log_evidence_exact(
    pair: Array, choice: Array, reward: Array, draws: int = 4000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """log p(choices | zeta = 0), the other parameters integrated over their prior.

    Args:
        pair: (datasets, K).
        choice: (datasets, K) in {0, 1}.
        reward: (datasets, K).
        draws: parameter draws of the last round; the rounds that fit the proposal take as many each.
        seed: of the random numbers.

    Returns:
        estimate and its standard error, (datasets,) each.
    """
    pair, choice, reward = (np.asarray(x)[:, None] for x in (pair, choice, reward))

    def log_likelihood(params: dict[str, np.ndarray]) -> np.ndarray:
        return exact_conditionals(params, pair, choice, reward).sum(-1)

    return _importance(log_likelihood, _NAMES[:3], len(pair), draws, seed)


def log_evidence_noisy(
    pair: Array, choice: Array, reward: Array, draws: int = 2000, particles: int = 64, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """log p(choices), all four parameters integrated over their prior.

    Importance sampling whose weights hold an unbiased estimate of the likelihood in its place, which leaves the
    evidence unbiased (pseudo-marginal importance sampling).

    Args:
        pair: (datasets, K).
        choice: (datasets, K) in {0, 1}.
        reward: (datasets, K).
        draws: parameter draws of the last round; the rounds that fit the proposal take as many each.
        particles: of each likelihood estimate.
        seed: of the random numbers.

    Returns:
        estimate and its standard error, (datasets,) each.
    """
    split = _split(pair, choice, reward)
    keys = iter(jax.random.split(jax.random.key(seed), 8))

    def log_likelihood(params: dict[str, np.ndarray]) -> np.ndarray:
        theta = np.stack([params[name].astype(np.float32) for name in _NAMES], -1)
        log_zero, log_one = (np.asarray(x, float) for x in _filter(theta, split, next(keys), particles))
        chosen = np.where(split.choice[:, None] == 1, log_one, log_zero)
        return (chosen * split.real[:, None]).sum((-1, -2))

    return _importance(log_likelihood, _NAMES, len(split.real), draws, seed)


def _importance(
    log_likelihood: Callable[[dict[str, np.ndarray]], np.ndarray],
    names: tuple[str, ...],
    datasets: int,
    draws: int,
    seed: int,
    rounds: int = 3,
) -> tuple[np.ndarray, np.ndarray]:
    """Log evidence by adaptive importance sampling in the logits of the prior's box.

    The first round draws from the prior; each later one from a Student t distribution fitted to the round before,
    mixed with the prior. Only the last round enters the estimate.

    Args:
        log_likelihood: function of dict name -> (datasets, draws) that returns (datasets, draws).
        names: parameters to integrate over; the prior of each must be uniform.
        datasets: number of data sets.
        draws: a round.
        seed: of the draws.
        rounds: number of rounds.

    Returns:
        log evidence and its standard error (of the log, by the delta method), (datasets,) each.
    """
    rng = np.random.default_rng(seed)
    low, high = np.array([NoisyQ.priors[name].range() for name in names]).T
    size = len(names)
    location, factor = np.zeros((datasets, size)), np.zeros((datasets, size, size))
    log_weight = np.zeros((datasets, draws))
    for index in range(rounds):
        z = rng.logistic(size=(datasets, draws, size))  # the logit of a uniform number
        if index:
            normal = rng.standard_normal(z.shape)
            spread = np.sqrt(_FREEDOM / rng.chisquare(_FREEDOM, (datasets, draws, 1)))
            student = location[:, None] + spread * np.einsum("dij,dmj->dmi", factor, normal)
            z = np.where(rng.random((datasets, draws, 1)) < _DEFENSE, z, student)
        share = 0.5 * (1 + np.tanh(0.5 * z))
        values = low + (high - low) * share
        log_prior = -(np.logaddexp(0, z) + np.logaddexp(0, -z)).sum(-1)
        log_proposal = log_prior
        if index:
            residual = np.linalg.solve(factor, np.swapaxes(z - location[:, None], -1, -2))
            log_student = -0.5 * (_FREEDOM + size) * np.log1p((residual**2).sum(-2) / _FREEDOM)
            log_student += _log_student_constant(size) - np.log(np.einsum("dii->di", factor)).sum(-1)[:, None]
            log_proposal = np.logaddexp(np.log(_DEFENSE) + log_prior, np.log1p(-_DEFENSE) + log_student)
        params = {name: values[..., column] for column, name in enumerate(names)}
        log_weight = log_likelihood(params) + log_prior - log_proposal
        weight = _tempered(log_weight, least=20.0 * size)
        location = np.einsum("dm,dmi->di", weight, z)
        centred = z - location[:, None]
        covariance = np.einsum("dm,dmi,dmj->dij", weight, centred, centred)
        factor = np.linalg.cholesky(covariance + 1e-3 * np.eye(size))
    top = log_weight.max(-1, keepdims=True)
    weight = np.exp(log_weight - top)
    mean = weight.mean(-1)
    return top[:, 0] + np.log(mean), weight.std(-1, ddof=1) / mean / np.sqrt(draws)


def _log_student_constant(size: int) -> float:
    """Log density at its mode of the multivariate Student t with unit scale."""
    return lgamma((_FREEDOM + size) / 2) - lgamma(_FREEDOM / 2) - 0.5 * size * log(_FREEDOM * pi)


def _tempered(log_weight: np.ndarray, least: float) -> np.ndarray:
    """Normalised weights, raised to the largest power up to 1 at which `least` draws are effective in each row."""
    out = np.empty_like(log_weight)
    for row, logs in enumerate(log_weight):
        power = 1.0
        while True:
            weight = np.exp(power * (logs - logs.max()))
            weight /= weight.sum()
            if 1 / (weight**2).sum() >= least or power < 1e-3:
                break
            power *= 0.8
        out[row] = weight
    return out
