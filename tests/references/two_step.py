"""The hybrid model of the two-step task as Daw et al. (2011) write it, one trial after another, and in JAX.

Written from the equations with a table of values, and sharing no code with `ppl_buffer.simulators.two_step`.
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
    params: Mapping[str, float],
    common: Sequence[int],
    choice_1: Sequence[int],
    choice_2: Sequence[int],
    reward: Sequence[float],
) -> list[tuple[float, float]]:
    """Of each trial of one person, the log probabilities of its first and of its second choice, given all before."""
    first = {"a": 0.0, "b": 0.0}
    second = {("A", 0): 0.0, ("A", 1): 0.0, ("B", 0): 0.0, ("B", 1): 0.0}
    transition = {("a", "A"): 0.7, ("a", "B"): 0.3, ("b", "A"): 0.3, ("b", "B"): 0.7}
    out = []
    last = None
    for shared, option, choice, gain in zip(common, choice_1, choice_2, reward, strict=True):
        action = "ab"[option]
        utility = {}
        for a in "ab":
            planned = sum(transition[a, s] * max(second[s, 0], second[s, 1]) for s in "AB")
            hybrid = params["model_based"] * planned + (1 - params["model_based"]) * first[a]
            # The stickiness is split between the options, so that it changes the log-odds by itself, not twice.
            stay = 0.0 if last is None else 0.5 * params["perseveration"] * (1 if a == last else -1)
            utility[a] = params["beta_1"] * hybrid + stay
        log_first = utility[action] - math.log(sum(math.exp(u) for u in utility.values()))
        state = {"a": "A", "b": "B"}[action] if shared else {"a": "B", "b": "A"}[action]
        values = [params["beta_2"] * second[state, c] for c in (0, 1)]
        log_second = values[choice] - math.log(sum(math.exp(v) for v in values))
        out.append((log_first, log_second))
        to_second = second[state, choice] - first[action]
        to_reward = gain - second[state, choice]
        first[action] += params["alpha_1"] * to_second
        second[state, choice] += params["alpha_2"] * to_reward
        first[action] += params["alpha_1"] * params["eligibility"] * to_reward
        last = action
    return out


def exact_conditionals_jax(
    params: Mapping[str, Array], common: Array, choice_1: Array, choice_2: Array, reward: Array, trial_mask: Array
) -> Array:
    """Log probability of both choices of each trial (people, K), differentiable in the parameters and traceable.

    Args:
        params: dict of all seven parameters, each (people,).
        common: (people, K), and so are the others.
        choice_1: 0 or 1.
        choice_2: 0 or 1.
        reward: 0 or 1.
        trial_mask: False = no such trial: zero, and nothing is learnt from it.
    """

    def one_trial(state: Array, trial: Array) -> tuple[Array, Array]:
        first, second, last = state
        shared, one, two, gain, exists = trial
        best = second.max(-1)
        planned = jnp.stack([0.7 * best[:, 0] + 0.3 * best[:, 1], 0.3 * best[:, 0] + 0.7 * best[:, 1]], -1)
        weight = params["model_based"][:, None]
        hybrid = weight * planned + (1 - weight) * first
        log_odds = params["beta_1"] * (hybrid[:, 1] - hybrid[:, 0]) + params["perseveration"] * last
        there = jnp.where((one == shared)[:, None], second[:, 1], second[:, 0])
        log_odds_2 = params["beta_2"] * (there[:, 1] - there[:, 0])
        log_prob = jax.nn.log_sigmoid((2 * one - 1) * log_odds) + jax.nn.log_sigmoid((2 * two - 1) * log_odds_2)
        old_first = jnp.where(one == 1, first[:, 1], first[:, 0])
        old_second = jnp.where(two == 1, there[:, 1], there[:, 0])
        to_reward = gain - old_second
        to_first = old_second - old_first + params["eligibility"] * to_reward
        chosen = jax.nn.one_hot(one, 2) * exists[:, None]
        arm = jax.nn.one_hot(jnp.where(one == shared, 1, 0), 2)[:, :, None] * jax.nn.one_hot(two, 2)[:, None]
        first = first + (params["alpha_1"] * to_first)[:, None] * chosen
        second = second + (params["alpha_2"] * to_reward * exists)[:, None, None] * arm
        return (first, second, jnp.where(exists, 2 * one - 1, last)), jnp.where(exists, log_prob, 0.0)

    people = len(params["alpha_1"])
    start = jnp.zeros((people, 2)), jnp.zeros((people, 2, 2)), jnp.zeros(people, dtype=int)
    columns = [jnp.asarray(x, int).T for x in (common, choice_1, choice_2)]
    columns += [jnp.asarray(reward, float).T, jnp.asarray(trial_mask, bool).T]
    return lax.scan(one_trial, start, tuple(columns))[1].T
