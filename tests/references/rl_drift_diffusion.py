"""Exact likelihood of the learner whose values drive a diffusion: the recursion of its values, and Navarro & Fuss.

Written from the model's equations and sharing no code with `ppl_buffer.simulators.rl_drift_diffusion`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.references.drift_diffusion import log_density

Array = Any


def exact_drifts(params: Mapping[str, Array], pair: Array, choice: Array, reward: Array) -> np.ndarray:
    """Drift of each trial towards option 1, given all trials before.

    Args:
        params: dict of ``alpha_positive``, ``alpha_negative``, ``scaling``, each (*B,).
        pair: (*B, K) which pair is shown. Batch dimensions broadcast against those of the parameters.
        choice: (*B, K) in {0, 1}.
        reward: (*B, K).

    Returns:
        (*B, K).
    """
    rates = [np.asarray(params[name], float) for name in ("alpha_positive", "alpha_negative")]
    scaling = np.asarray(params["scaling"], float)
    pair, choice, reward = np.asarray(pair, int), np.asarray(choice, int), np.asarray(reward, float)
    shape = np.broadcast_shapes(rates[0].shape, rates[1].shape, scaling.shape, pair.shape[:-1], choice.shape[:-1])
    values = {(shown, option): np.full(shape, 0.5) for shown in range(pair.max(initial=0) + 1) for option in (0, 1)}
    out = np.zeros((*shape, pair.shape[-1]))
    for k in range(pair.shape[-1]):
        for (shown, option), value in values.items():
            out[..., k] += np.where(pair[..., k] == shown, (2 * option - 1) * scaling * value, 0.0)
            error = reward[..., k] - value
            seen = (pair[..., k] == shown) & (choice[..., k] == option)
            values[shown, option] = value + np.where(seen, np.where(error > 0, *rates) * error, 0.0)
    return out


def exact_conditionals(params: Mapping[str, Array], pair: Array, choice: Array, rt: Array, reward: Array) -> np.ndarray:
    """log p(choice_k, rt_k | trials before k): (*B, K).

    Args:
        params: as `exact_drifts` takes them, and ``boundary`` and ``non_decision_time``, each (*B,).
        pair: (*B, K).
        choice: (*B, K) in {0, 1}.
        rt: (*B, K), seconds.
        reward: (*B, K).
    """
    conditioned = {name: np.asarray(params[name], float)[..., None] for name in ("boundary", "non_decision_time")}
    drift = exact_drifts(params, pair, choice, reward)
    return log_density({"drift": drift, **conditioned}, np.asarray(choice), np.asarray(rt, float))


def exact_conditionals_jax(
    params: Mapping[str, Array],
    pair: Array,
    choice: Array,
    rt: Array,
    reward: Array,
    trial_mask: Array | None = None,
    pairs: int = 3,
) -> Array:
    """`exact_conditionals`, differentiable in the parameters and traceable.

    Args:
        params: dict of all five parameters, each (datasets,).
        pair: (datasets, K).
        choice: (datasets, K).
        rt: (datasets, K).
        reward: (datasets, K).
        trial_mask: (datasets, K), False = no such trial: zero, and nothing is learnt from it.
        pairs: number of pairs.

    Returns:
        (datasets, K).
    """
    pair, choice = jnp.asarray(pair, int), jnp.asarray(choice, int)
    mask = jnp.ones(pair.shape, bool) if trial_mask is None else jnp.asarray(trial_mask, bool)

    def advantages(positive: Array, negative: Array, *data: Array) -> Array:
        def step(values: Array, trial: tuple[Array, ...]) -> tuple[Array, Array]:
            shown, chosen, rewarded, real = trial
            advantage = values[shown, 1] - values[shown, 0]
            error = rewarded - values
            target = (jnp.arange(pairs)[:, None] == shown) & (jnp.arange(2) == chosen) & real
            return values + jnp.where(target, jnp.where(error > 0, positive, negative) * error, 0.0), advantage

        return lax.scan(step, jnp.full((pairs, 2), 0.5), data)[1]

    theta = {name: jnp.asarray(value, float) for name, value in params.items()}
    learning = (theta["alpha_positive"], theta["alpha_negative"], pair, choice, jnp.asarray(reward, float), mask)
    decision = {
        "drift": theta["scaling"][:, None] * jax.vmap(advantages)(*learning),
        "boundary": theta["boundary"][:, None],
        "non_decision_time": theta["non_decision_time"][:, None],
    }
    # A masked trial may hold a response time that no parameters allow.
    rt = jnp.where(mask, jnp.asarray(rt, float), decision["non_decision_time"] + 1)
    return jnp.where(mask, log_density(decision, choice, rt, xp=jnp), 0.0)
