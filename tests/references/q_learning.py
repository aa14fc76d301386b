"""The family of Q-learners, one trial after another: in plain Python for one person, and in JAX for derivatives.

Written from the equations, in log-odds, and sharing no code with `ppl_buffer.simulators.q_learning`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Array = Any


def log_probabilities(
    params: Mapping[str, float], options: Sequence[int], choice: Sequence[int], reward: Sequence[float]
) -> list[list[float]]:
    """Log probabilities of the options of each trial of one person, given all before: a list a trial."""
    lapse = params["lapse"]
    values = dict.fromkeys(range(4), 0.0)
    out, last = [], None
    for count, taken, gain in zip(options, choice, reward, strict=True):
        odds = [
            params["beta"] * values[arm] + (params["perseveration"] if arm == last else 0.0) for arm in range(count)
        ]
        out.append([])
        for arm in range(count):
            by_value = 1.0 / sum(math.exp(other - odds[arm]) for other in odds)
            out[-1].append(math.log(by_value + lapse * (1.0 / count - by_value)))
        for arm in values:
            if arm == taken:
                surprise = gain - values[arm]
                values[arm] += surprise * (params["alpha_positive"] if surprise > 0 else params["alpha_negative"])
            else:
                values[arm] *= 1 - params["forgetting"]
        last = taken
    return out


def conditionals_jax(params: Mapping[str, Array], options: Array, choice: Array, reward: Array) -> Array:
    """Log probability of each choice of one person given all before, (K,), with derivatives."""
    arms = jnp.arange(4)

    def step(carry: tuple[Array, Array], trial: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        values, previous = carry
        count, taken, gain = trial
        log_odds = jnp.where(arms < count, params["beta"] * values + params["perseveration"] * previous, -1e30)
        by_value = jax.nn.log_softmax(log_odds)[taken]
        # Mixed on the log scale: no derivative divides by 0 where there are no lapses.
        log_prob = by_value + jnp.log1p(params["lapse"] * jnp.expm1(jnp.minimum(-jnp.log(count) - by_value, 80.0)))
        own = arms == taken
        surprise = gain - values
        rate = jnp.where(surprise > 0, params["alpha_positive"], params["alpha_negative"])
        moved = jnp.where(own, values + rate * surprise, (1 - params["forgetting"]) * values)
        return (moved, own * 1.0), log_prob

    trials = (jnp.asarray(options), jnp.asarray(choice).astype(int), jnp.asarray(reward))
    return lax.scan(step, (jnp.zeros(4), jnp.zeros(4)), trials)[1]
