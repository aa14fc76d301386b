"""Particle filters of the noisy Q-learner in JAX, and what the samplers that use them share.

`effective_samples.py` samples one person with them, `hierarchical_particles.py` many people at once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.references import noisy_q  # noqa: E402

Array = jax.Array
# Function of theta (C, 4), a key and a number of particles: log of an unbiased likelihood estimate, (C,).
LogLikelihood = Callable[[Array, Array, int], Array]
# Function of theta (C, S, 4) of S people, uniform numbers (C, S, *shape) and a number of particles: the same of each
# person, (C, S).
LogLikelihoods = Callable[[Array, Array, int], Array]
# Of a random walk whose target is estimated: below the 0.234 of an exact one.
ACCEPTANCE = 0.2
# Standard deviation of the log likelihood's estimate that costs least (Doucet et al. 2015: 1.0 to 1.7).
DEVIATION = 1.4
MOST_PARTICLES = 4096


def people_by_pair(pair: np.ndarray, choice: np.ndarray, reward: np.ndarray) -> tuple[LogLikelihoods, tuple[int, ...]]:
    """The filter of the reference figures: one for each pair, noise from a lattice over sorted particles.

    Args:
        pair: (S, K).
        choice: (S, K) in {0, 1}.
        reward: (S, K).

    Returns:
        the estimate, and the shape of the uniform numbers that it takes for each person.
    """
    split = noisy_q._split(pair, choice, reward)
    trials = [jnp.asarray(x, jnp.float32) for x in (split.choice, split.reward, split.stay)]
    real = jnp.asarray(split.real)

    def log_likelihood(theta: Array, uniform: Array, particles: int) -> Array:
        def one(theta: Array, uniform: Array, real: Array, *trials: Array) -> Array:
            options = noisy_q.filter_pair(theta, real, *trials, uniform, particles)
            return jnp.where(real, jnp.where(trials[0] == 1, options[1], options[0]), 0.0).sum()

        by_pair = jax.vmap(one, (None, *5 * [0]))
        by_person = jax.vmap(by_pair)
        by_chain = jax.vmap(by_person, (0, 0, *4 * [None]))
        return by_chain(theta, uniform, real, *trials).sum(-1)

    return log_likelihood, (*split.real.shape[1:], 2)


def by_pair(data: dict[str, np.ndarray]) -> LogLikelihood:
    """The same of one person, from ``pair``, ``choice`` and ``reward``, (K,) each."""
    of_people, shape = people_by_pair(*(data[name][None] for name in ("pair", "choice", "reward")))

    def log_likelihood(theta: Array, key: Array, particles: int) -> Array:
        uniform = jax.random.uniform(key, (len(theta), 1, *shape))
        return of_people(theta[:, None], uniform, particles)[:, 0]

    return log_likelihood


def bootstrap(data: dict[str, np.ndarray]) -> LogLikelihood:
    """The textbook's filter of one person, for the whole state of a learner."""
    pairs = int(data["pair"].max()) + 1
    stay = np.concatenate([[0.0], 2.0 * data["choice"][:-1] - 1.0])
    trials = (data["pair"], data["choice"], data["reward"], stay)

    def one(theta: Array, key: Array, particles: int) -> Array:
        alpha, beta, kappa, zeta = theta
        normal_key, uniform_key = jax.random.split(key)
        normal = jax.random.normal(normal_key, (len(stay), particles))
        uniform = jax.random.uniform(uniform_key, (len(stay),))

        def step(values: Array, trial: tuple[Array, ...]) -> tuple[Array, Array]:
            pair, choice, reward, stay, normal, uniform = trial
            shown = values[pair]
            sign = 2.0 * choice - 1.0
            log_weight = jax.nn.log_sigmoid(sign * (beta * (shown[1] - shown[0]) + kappa * stay))
            total = jax.nn.logsumexp(log_weight)
            # Systematic resampling: `first` is where the copies of each particle begin.
            below = jnp.cumsum(jnp.exp(log_weight - total)) * particles
            first = jnp.ceil(jnp.concatenate([jnp.zeros(1), below[:-1]]) - uniform).astype(int)
            index = jnp.arange(particles)
            ancestor = jax.lax.cummax(jnp.zeros(particles, int).at[first].max(index, mode="drop"))
            values = values[:, :, ancestor]
            old = values[pair, choice]
            error = reward - old
            values = values.at[pair, choice].set(old + alpha * error + zeta * jnp.abs(error) * normal)
            return values, total - math.log(particles)

        start = jnp.full((pairs, 2, particles), 0.5)
        return jax.lax.scan(step, start, (*map(jnp.asarray, trials), normal, uniform))[1].sum()

    def log_likelihood(theta: Array, key: Array, particles: int) -> Array:
        keys = jax.random.split(key, len(theta))
        return jax.vmap(lambda theta, key: one(theta, key, particles))(theta, keys)

    return log_likelihood


def tune(log_likelihood: LogLikelihood, theta: np.ndarray, most: int) -> tuple[int, float]:
    """The fewest particles that estimate the log likelihood well enough, and the standard deviation of the estimate.

    Args:
        log_likelihood: the estimate; where it is of several people, (C, S), the mean variance counts.
        theta: where, (4,) or (S, 4).
        most: particles.
    """
    estimate = jax.jit(log_likelihood, static_argnums=2)
    repeated = jnp.broadcast_to(jnp.asarray(theta, jnp.float32), (200, *np.shape(theta)))
    particles = 4
    while True:
        std = float(jnp.sqrt(jnp.var(estimate(repeated, jax.random.key(3), particles), 0).mean()))
        if std <= DEVIATION or particles >= most:
            return particles, std
        particles *= 2


def walk_factor(z: Array) -> Array:
    """Cholesky factor of the covariance of places that a walk has been at, without its first quarter.

    Args:
        z: (iterations, chains, ..., size).

    Returns:
        (..., size, size).
    """
    places = np.asarray(z, float)[len(z) // 4 :]
    places = places.reshape(-1, *places.shape[2:])
    centred = places - places.mean(0)
    covariance = np.einsum("n...i,n...j->...ij", centred, centred) / (len(places) - 1)
    return jnp.asarray(np.linalg.cholesky(covariance + 1e-4 * np.eye(places.shape[-1])), jnp.float32)
