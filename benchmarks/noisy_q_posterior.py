"""Posteriors from the network's likelihood against posteriors from the exact one: plain Q-learning, NUTS on both.

Data sets of 120 trials are drawn from the prior at zeta = 0, where the likelihood is an exact recursion. Learning
rate, inverse temperature and stickiness of each are sampled with NumPyro's NUTS, once with the exact likelihood and
once with the network told zeta = 0: a chain for each data set, all of them in one program. With --reweight the
network's posterior is computed from the exact one's draws instead, weighted by the ratio of the two likelihoods: a
minute instead of a quarter of an hour, and no Monte Carlo error of a second chain.

    python benchmarks/noisy_q_posterior.py [--checkpoint noisy_q] [--sets 20] [--draws 700] [--reweight]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from harness import print_table, write_results
from numpyro.diagnostics import effective_sample_size
from numpyro.distributions import biject_to
from numpyro.infer.hmc import hmc

import ppl_buffer as pb
from ppl_buffer.numpyro import JointPredictive

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.references.noisy_q import exact_conditionals_jax  # noqa: E402

NAMES = ("alpha", "beta", "kappa")
TRIALS = 120
WARMUP = 300


def sample(
    log_likelihood: Callable[[dict[str, Any], Any], Any], sets: int, draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Posterior draws (draws, sets) of each parameter: a NUTS chain with a mass matrix of its own for each data set.

    `log_likelihood` takes the parameters of one data set and its index. The chains run side by side in one program.
    """
    priors = {name: pb.simulators.NoisyQ.priors[name].distribution(dist) for name in NAMES}
    transforms = {name: biject_to(prior.support) for name, prior in priors.items()}

    def chain(key: Any, index: Any) -> Any:
        def potential(unconstrained: dict[str, Any]) -> Any:
            total, theta = 0.0, {"zeta": jnp.zeros(())}
            for name, transform in transforms.items():
                theta[name] = transform(unconstrained[name])
                total += priors[name].log_prob(theta[name])
                total += transform.log_abs_det_jacobian(unconstrained[name], theta[name])
            return -total - log_likelihood(theta, index)

        start, step = hmc(potential, algo="NUTS")
        first = {name: jnp.zeros(()) for name in NAMES}
        state = start(first, WARMUP, target_accept_prob=0.85, dense_mass=True, max_tree_depth=5, rng_key=key)
        state = jax.lax.fori_loop(0, WARMUP, lambda _, state: step(state), state)

        def draw(state: Any, _: Any) -> Any:
            state = step(state)
            return state, state.z

        drawn = jax.lax.scan(draw, state, None, draws)[1]
        return {name: transforms[name](x) for name, x in drawn.items()}

    keys = jax.random.split(jax.random.PRNGKey(seed), sets)
    chains = jax.jit(jax.vmap(chain))(keys, jnp.arange(sets))
    return {name: np.asarray(x).T for name, x in chains.items()}


def ratios(net: Any, data: Any, draws: dict[str, np.ndarray], *trials: np.ndarray) -> np.ndarray:
    """Normalised ratios (draws, sets) of the network's likelihood and the exact one."""
    count, sets = draws["alpha"].shape
    at_once = 20

    @jax.jit
    def log_ratio(theta: dict[str, Any]) -> Any:
        told = {**theta, "zeta": jnp.zeros_like(theta["alpha"])}
        exact = jax.vmap(lambda one: exact_conditionals_jax(one, *trials).sum(-1))(told)
        return JointPredictive(net, data, params=told).log_prob(data.value) - exact

    parts = [
        log_ratio({name: jnp.asarray(x[first : first + at_once]) for name, x in draws.items()})
        for first in range(0, count - count % at_once, at_once)
    ]
    logs = np.concatenate([np.asarray(part) for part in parts])
    logs = np.concatenate([logs, np.full((count - len(logs), sets), -np.inf)])
    weights = np.exp(logs - logs.max(0))
    return weights / weights.sum(0)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="noisy_q", help="name in the zoo, or a path")
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--draws", type=int, default=700, help="kept draws; four times as many of the exact posterior")
    parser.add_argument("--reweight", action="store_true", help="weight the exact posterior's draws instead of NUTS")
    options = parser.parse_args()
    simulator, rng = pb.simulators.NoisyQ(), np.random.default_rng(20)
    truth = {**simulator.prior(rng, options.sets), "zeta": np.zeros(options.sets)}
    inputs = simulator.inputs(rng, options.sets, TRIALS)
    drawn = simulator.simulate(rng, truth, inputs)
    choice, reward = drawn["choice"], drawn["reward"]
    net = pb.load(options.checkpoint, backend="jax")
    data = net.observe(inputs, choice.astype(np.float32), feedback={"reward": reward})

    arrays = [jnp.asarray(x) for x in (inputs["pair"], choice, reward)]

    def exact(theta: dict[str, Any], index: Any) -> Any:
        one = {name: x[None] for name, x in theta.items()}
        return exact_conditionals_jax(one, *(x[index][None] for x in arrays)).sum()

    def network(theta: dict[str, Any], index: Any) -> Any:
        mine = data[index]
        return JointPredictive(net, mine, params=theta).log_prob(mine.value)

    posteriors, seconds, weights = {}, {}, None
    start = time.perf_counter()
    posteriors["exact"] = sample(exact, options.sets, 4 * options.draws, seed=1)  # the reference is cheap
    seconds["exact"] = time.perf_counter() - start
    start = time.perf_counter()
    if options.reweight:
        posteriors["network"] = {name: x[::2] for name, x in posteriors["exact"].items()}
        weights = ratios(net, data, posteriors["network"], inputs["pair"], choice, reward)
    else:
        posteriors["network"] = sample(network, options.sets, options.draws, seed=1)
    seconds["network"] = time.perf_counter() - start
    rows, results = [], {}
    for name in NAMES:
        reference, amortized = posteriors["exact"][name], posteriors["network"][name]
        effective = [float(effective_sample_size(x[None]).min()) for x in (reference, amortized)]
        if weights is not None:
            # The same draws under both likelihoods: what differs is the likelihood alone.
            reference = amortized
            effective[1] = float((1 / (weights**2).sum(0)).min())
        mean = np.average(amortized, axis=0, weights=weights)
        sd = np.sqrt(np.average((amortized - mean) ** 2, axis=0, weights=weights))
        shift = np.abs(mean - reference.mean(0)) / reference.std(0)
        ratio = sd / reference.std(0)
        results[name] = {
            "mean_shift_in_sd": float(shift.mean()),
            "largest_mean_shift_in_sd": float(shift.max()),
            "sd_ratio": float(ratio.mean()),
            "least_sd_ratio": float(ratio.min()),
            "greatest_sd_ratio": float(ratio.max()),
            "least_effective_draws": effective,
        }
        rows.append([name, shift.mean(), shift.max(), ratio.mean(), ratio.min(), ratio.max(), min(effective)])
    shift = float(np.mean([result["mean_shift_in_sd"] for result in results.values()]))
    ratio = float(np.mean([result["sd_ratio"] for result in results.values()]))
    rows.append(["average", shift, None, ratio, None, None, None])
    print_table(
        f"Posterior of {options.sets} data sets of {TRIALS} trials, network against exact likelihood "
        "(bars: mean shift 0.1 sd, sd ratio 0.9 to 1.1, on average)",
        ["parameter", "|mean shift| (sd)", "largest", "sd ratio", "least", "greatest", "least ESS"],
        [[float(x) if isinstance(x, np.floating) else x for x in row] for row in rows],
    )
    write_results(
        "noisy_q_posterior",
        {
            "checkpoint": options.checkpoint,
            "training_step": None if net.record is None else net.record.provenance.get("step"),
            "sets": options.sets,
            "draws": options.draws,
            "network_posterior_by": "reweighting" if options.reweight else "NUTS",
            "parameters": results,
            "mean_shift_in_sd": shift,
            "sd_ratio": ratio,
            "bars": {"mean_shift_in_sd": 0.1, "sd_ratio": [0.9, 1.1]},
            "seconds": seconds,
        },
    )


if __name__ == "__main__":
    main()
