"""NUTS for many simulated data sets at once: chains in lock step, on the scale where the prior is standard normal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ppl_buffer.diagnostics.simulations import observe_sets, simulate_legal
from ppl_buffer.diagnostics.statistics import Arrays
from ppl_buffer.inference.chunks import map_chunks
from ppl_buffer.inference.importance import draws_a_round, fit_proposal
from ppl_buffer.inference.normal_scores import REACH, NormalScores
from ppl_buffer.network.backend import Array
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.prior import Prior
from ppl_buffer.simulator import Simulator

# Trials that are scored at once.
_TRIALS_AT_ONCE = 200_000
# At most 7 gradients a transition: whitened posteriors need few, and chains in lock step wait for the longest tree.
_DEPTH = 3
# How often a start that the data rule out is brought nearer to the middle of what the posterior is taken for.
_HALVINGS = 12


@dataclass(frozen=True)
class Chains:
    """NUTS for the data sets of a batch, a chain each, in lock step: compiled functions of a whole batch.

    Attributes:
        scale: of the scores (..., P) that the chains move in.
        warm: calls of `advance` before draws are kept.
        thin: transitions in a call of `advance`.
        log_likelihood: parameters (n, B) and data -> (n, B).
        begin: seeds (B,), first positions (B, P), data, location and Cholesky factor of the scores -> states.
        advance: states, data, location and factor -> states, scores (B, P), their log likelihood (B,), share of
            divergent transitions and mean number of gradients (B,).
    """

    scale: NormalScores
    warm: int
    thin: int
    log_likelihood: Callable[..., Any]
    begin: Callable[..., Any]
    advance: Callable[..., Any]


@lru_cache(maxsize=4)
def compile_chains(net: Network, priors: tuple[tuple[str, str], ...], thin: int, warm: int) -> Chains:
    """The programs of a network and priors (names, and descriptions as JSON): kept, since compiling takes long."""
    import jax
    import jax.numpy as jnp
    from numpyro.infer.hmc import hmc

    from ppl_buffer.numpyro.distribution import JointPredictive

    scale = NormalScores({name: Prior.from_dict(json.loads(text)) for name, text in priors})

    def log_likelihood(params: Mapping[str, Array], data: ObservedTrials) -> Any:
        return JointPredictive(net, data, params=params, outside="ignore", validate_args=False).log_prob(data.value)

    def sampler(key: Any, first: Any, data: ObservedTrials, location: Any, factor: Any) -> Any:
        def potential(white: Any) -> Any:
            scores = location + factor @ white
            return 0.5 * (scores**2).sum() - log_likelihood(scale.interpolate(jnp, scores), data)

        start, step = hmc(potential, algo="NUTS")
        state = start(first, warm * thin, step_size=0.5, adapt_mass_matrix=False, max_tree_depth=_DEPTH, rng_key=key)
        return state, step

    def begin(seed: Any, first: Any, data: ObservedTrials, location: Any, factor: Any) -> Any:
        return sampler(jax.random.PRNGKey(seed), first, data, location, factor)[0]

    def advance(state: Any, data: ObservedTrials, location: Any, factor: Any) -> Any:
        # The kernel wants a start to be made before it; nobody uses it, and the compiler drops it.
        _, step = sampler(state.rng_key, state.z, data, location, factor)

        def one(carry: Any, _: Any) -> Any:
            moved = step(carry)
            return moved, (moved.diverging, moved.num_steps)

        state, (diverging, steps) = jax.lax.scan(one, state, None, thin)
        scores = location + factor @ state.z
        # The potential is the prior's part less this.
        fit = 0.5 * (scores**2).sum() - state.potential_energy
        return state, scores, fit, diverging.mean(), steps.mean()

    return Chains(
        scale, warm, thin, jax.jit(log_likelihood), jax.jit(jax.vmap(begin)), jax.jit(jax.vmap(advance))
    )  # fmt: skip


def fit_batch(
    net: Network,
    simulator: Simulator,
    chains: Chains,
    rng: np.random.Generator,
    batch: int,
    trials: int,
    draws: int,
    update: Callable[[int], Any],
    taken: int = 0,
) -> Arrays:
    """Simulate a batch of data sets and draw from their posteriors.

    Args:
        net: a network of JAX.
        simulator: draws the data.
        chains: of the network.
        rng: source of all randomness.
        batch: number of data sets B.
        trials: of each.
        draws: number of draws D that are kept of each chain.
        update: is told how many transitions were made.
        taken: data sets in the batches before, where they are stored ones.

    Returns:
        ``truth`` (B, P), ``draws`` (D, B, P), ``log_likelihood`` (B,) at the truth, ``log_likelihoods`` (D, B) at the
        draws, ``divergences`` (B,), ``steps``, the mean number of gradients a transition.
    """
    scale = chains.scale
    names, dims = list(scale.priors), len(scale.priors)

    def prior(rng: np.random.Generator, size: int) -> Arrays:
        scores = np.clip(rng.standard_normal((size, dims)), -REACH, REACH)
        params = scale.interpolate(np, scores)
        return {name: params[name].astype(np.float32).astype(float) for name in names}

    params, data, _ = simulate_legal(simulator, rng, batch, trials, prior, taken)
    # Groups of similar length cannot be mapped over.
    observed = replace(observe_sets(net, data, None, np.arange(batch)), groups=None)
    at_once = min(draws_a_round(dims), max(1, _TRIALS_AT_ONCE // (batch * trials)))

    def densities(conditioned: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log likelihoods (n, batch) at parameters (n, batch), by one compiled program."""

        def of_chunk(indices: np.ndarray) -> np.ndarray:
            part = {name: conditioned[name][indices].astype(np.float32) for name in names}
            return np.asarray(chains.log_likelihood(part, observed), float)

        return map_chunks(of_chunk, len(conditioned[names[0]]), at_once)

    def log_likelihood(points: np.ndarray) -> np.ndarray:
        result = densities(scale.interpolate(np, points))
        return np.where(np.isfinite(result), result, -1e30)

    proposal = fit_proposal(log_likelihood, batch, dims, rng)
    location, factor = (x.astype(np.float32) for x in (proposal.location, proposal.scale))
    seeds = rng.integers(2**31, size=batch).astype(np.uint32)

    def possible(white: np.ndarray) -> np.ndarray:
        points = location + (factor @ white[..., None])[..., 0]
        return np.isfinite(densities(scale.interpolate(np, points[None]))[0])

    first = possible_starts(rng.standard_normal((batch, dims)).astype(np.float32), possible)
    state = chains.begin(seeds, first, observed, location, factor)
    kept = []
    for number in range(chains.warm + draws):
        state, *result = chains.advance(state, observed, location, factor)
        if number >= chains.warm:
            kept.append([np.asarray(x) for x in result])
        update(chains.thin)
    scores, fit, diverging, steps = (np.stack(x) for x in zip(*kept, strict=True))
    sampled = scale.interpolate(np, scores)
    return {
        "truth": np.stack([params[name] for name in names], -1),
        "draws": np.stack([sampled[name] for name in names], -1),
        "log_likelihood": densities({name: x[None] for name, x in params.items()})[0],
        "log_likelihoods": fit,
        "divergences": diverging.mean(0),
        "steps": steps.mean(),
    }


def possible_starts(first: np.ndarray, possible: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Starts (B, P), those that are not possible halved until they are: a chain would never leave such a place.

    Args:
        first: starts, about 0.
        possible: which of starts (B, P) have a density, (B,) bool.
    """
    first = first.copy()
    for _ in range(_HALVINGS):
        wrong = ~possible(first)
        if not wrong.any():
            break
        first[wrong] /= 2
    return first
