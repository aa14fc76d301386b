"""Effective samples a second for the noisy learner: NUTS with the network against a particle method.

One person of 120 trials drawn with learning noise (zeta = 0.3), four parameters with the prior of `NoisyQ`, four chains
each, vectorised. The network's likelihood is sampled by NumPyro's NUTS. The likelihood of the simulator itself is
sampled by particle-marginal Metropolis-Hastings (Andrieu, Doucet & Holenstein 2010), compiled in JAX: a random walk on
the unconstrained scale whose covariance and scale are adapted in the warm-up, with the fewest particles (a power of
two) that bring the standard deviation of the log likelihood's estimate, at the posterior mean, to 1.4 (Doucet et al.
2015 recommend 1.0 to 1.7). Two filters:

- bootstrap: all values of all pairs are one state, systematic resampling at every trial. It works for any simulator
  that can be run trial by trial;
- by pair: the filter behind this project's reference figures (`tests/references/noisy_q.py`), which knows that the
  pairs are independent given the parameters, and spreads the noise evenly over sorted particles.

Compared is the smallest bulk effective sample size (ArviZ) of the four parameters a second, after the warm-up and
without compilation; both are stated beside it.

    python benchmarks/effective_samples.py [--quick] [--out DIR] [--draws 1000] [--iterations 20000]
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from harness import bar, parse, print_bars, print_table, write_results
from numpyro.infer import MCMC, NUTS
from particles import ACCEPTANCE, MOST_PARTICLES, Array, LogLikelihood, bootstrap, by_pair, tune, walk_factor

import ppl_buffer as pb
from ppl_buffer.numpyro import JointPredictive
from ppl_buffer.numpyro.priors import prior_distribution

PRIORS = pb.simulators.NoisyQ.priors
CHAINS, ZETA = 4, 0.3


def person(trials: int) -> dict[str, np.ndarray]:
    """Pair, choice and reward (trials,) of one simulated person with learning noise."""
    simulator, rng = pb.simulators.NoisyQ(), np.random.default_rng(7)
    truth = {"alpha": 0.3, "beta": 5.0, "kappa": 0.2, "zeta": ZETA}
    inputs = simulator.inputs(rng, 1, trials)
    outcomes = simulator.simulate(rng, {name: np.array([value]) for name, value in truth.items()}, inputs)
    return {"pair": inputs["pair"][0], "choice": outcomes["choice"][0], "reward": outcomes["reward"][0]}


def smallest_ess(draws: dict[str, np.ndarray]) -> float:
    """Smallest bulk effective sample size over the parameters, of draws (chains, draws) each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of ArviZ, on its own future
        import arviz

    return min(float(arviz.ess(x, method="bulk")) for x in draws.values())


def sample_nuts(net: Any, data: dict[str, np.ndarray], warmup: int, draws: int) -> dict[str, Any]:
    """Sample the posterior with the network's likelihood."""
    observed = net.observe(
        {"pair": data["pair"]}, data["choice"].astype(np.float32), feedback={"reward": data["reward"]}
    )

    def model() -> None:
        theta = {name: numpyro.sample(name, prior_distribution(prior)) for name, prior in PRIORS.items()}
        numpyro.sample("choice", JointPredictive(net, observed, params=theta), obs=observed.value)

    sampler = MCMC(
        NUTS(model, target_accept_prob=0.85), num_warmup=warmup, num_samples=draws, num_chains=CHAINS,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    start = time.perf_counter()
    sampler.warmup(jax.random.key(0))
    jax.block_until_ready(sampler.last_state.z)
    warm = time.perf_counter()
    # The first run compiles, the second goes on from where the first ended.
    sampler.run(jax.random.key(1))
    jax.block_until_ready(sampler.last_state.z)
    compiled = time.perf_counter()
    sampler.post_warmup_state = sampler.last_state
    sampler.run(jax.random.key(2), extra_fields=("num_steps",))
    kept = {name: np.asarray(x) for name, x in sampler.get_samples(group_by_chain=True).items()}
    seconds = time.perf_counter() - compiled
    steps = float(np.asarray(sampler.get_extra_fields()["num_steps"]).mean())
    return {
        "draws": kept,
        "seconds": seconds,
        "warmup_seconds": warm - start,
        "compile_seconds": compiled - warm - seconds,
        "note": f"{steps:.1f} gradients a draw",
    }


LOW, HIGH = np.array([prior.range() for prior in PRIORS.values()], np.float32).T


def constrain(z: Array) -> Array:
    """Parameters in their box, of logits."""
    return LOW + (HIGH - LOW) * jax.nn.sigmoid(z)


def sample_pmmh(log_likelihood: LogLikelihood, particles: int, rounds: tuple[int, int], length: int) -> dict[str, Any]:
    """Sample the simulator's posterior; the likelihood of a proposal is an estimate, and that of the state is kept.

    Args:
        log_likelihood: the estimate.
        particles: of it.
        rounds: number of rounds that warm up, and that are kept.
        length: iterations of a round; covariances are adapted between rounds.
    """

    @jax.jit
    def run(state: Any, key: Array, factor: Array, log_scale: Array, rate: float) -> tuple[Any, Any]:
        def step(carry: Any, key: Array) -> tuple[Any, Any]:
            z, log_density, log_scale = carry
            walk, estimate, accept = jax.random.split(key, 3)
            moved = z + jnp.exp(log_scale) * jax.random.normal(walk, z.shape) @ factor.T
            log_prior = (jax.nn.log_sigmoid(moved) + jax.nn.log_sigmoid(-moved)).sum(-1)
            proposed = log_likelihood(constrain(moved), estimate, particles) + log_prior
            accepted = jnp.log(jax.random.uniform(accept, proposed.shape)) < proposed - log_density
            z = jnp.where(accepted[:, None], moved, z)
            log_density = jnp.where(accepted, proposed, log_density)
            log_scale = log_scale + rate * (accepted.mean() - ACCEPTANCE)
            return (z, log_density, log_scale), (z, accepted)

        return jax.lax.scan(step, (*state, log_scale), jax.random.split(key, length))

    size = len(PRIORS)
    state = jax.random.normal(jax.random.key(4), (CHAINS, size)), jnp.full(CHAINS, -jnp.inf)
    factor, log_scale = jnp.eye(size), jnp.log(jnp.asarray(2.38 / math.sqrt(size)))
    start = time.perf_counter()
    jax.block_until_ready(run(state, jax.random.key(5), factor, log_scale, 0.0))
    # A warm-up's round takes as long as this one but for the compilation.
    compiled = time.perf_counter()
    for index in range(rounds[0]):
        (*state, log_scale), (z, _) = run(tuple(state), jax.random.key(100 + index), factor, log_scale, 0.05)
        factor = walk_factor(z)
    warm = time.perf_counter()
    draws, accepted = [], []
    for index in range(rounds[1]):
        (*state, log_scale), (z, took) = run(tuple(state), jax.random.key(10_000 + index), factor, log_scale, 0.0)
        draws.append(np.asarray(constrain(z)))
        accepted.append(float(took.mean()))
    seconds = time.perf_counter() - warm
    kept = np.concatenate(draws)
    warmup_seconds = warm - compiled
    return {
        "draws": {name: kept[..., index].T for index, name in enumerate(PRIORS)},
        "seconds": seconds,
        "warmup_seconds": warmup_seconds,
        "compile_seconds": compiled - start - warmup_seconds / rounds[0],
        "note": f"{particles} particles, {np.mean(accepted):.0%} accepted",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse(__doc__, arguments, draws=1000, iterations=20_000)
    trials, warmup, draws, most = (11, 10, 20, 4) if options.quick else (120, 500, options.draws, MOST_PARTICLES)
    length, rounds = (20, (2, 2)) if options.quick else (500, (10, max(1, options.iterations // 500)))
    data = person(trials)
    net = pb.load("noisy_q", backend="jax")
    runs = {"NUTS, network": sample_nuts(net, data, warmup, draws)}
    centre = np.array([x.mean() for x in runs["NUTS, network"]["draws"].values()])
    for name, filter_ in (("bootstrap", bootstrap(data)), ("by pair", by_pair(data))):
        particles, std = tune(filter_, centre, most)
        runs[f"PMMH, {name} filter"] = sample_pmmh(filter_, particles, rounds, length)
        runs[f"PMMH, {name} filter"]["note"] += f", sd {std:.2f}"
    results: dict[str, Any] = {}
    for name, run in runs.items():
        ess = smallest_ess(run["draws"])
        summary = {key: [float(x.mean()), float(x.std())] for key, x in run["draws"].items()}
        results[name] = {
            "smallest_bulk_ess": ess,
            "effective_samples_per_second": ess / run["seconds"],
            "posterior_mean_and_sd": summary,
            "kept_draws": int(np.prod(next(iter(run["draws"].values())).shape)),
            **{key: run[key] for key in ("seconds", "warmup_seconds", "compile_seconds", "note")},
        }
    print_table(
        f"Posterior of one person of {trials} trials, {CHAINS} chains",
        ["method", "draws", "smallest ESS", "seconds", "ESS/s", "warm-up (s)", "compilation (s)", ""],
        [
            [name, row["kept_draws"], row["smallest_bulk_ess"], row["seconds"], row["effective_samples_per_second"],
             row["warmup_seconds"], row["compile_seconds"], row["note"]]
            for name, row in results.items()
        ],
    )  # fmt: skip
    print_table(
        "Posterior mean (sd)",
        ["method", *PRIORS],
        [
            [name, *(f"{mean:.3f} ({std:.3f})" for mean, std in row["posterior_mean_and_sd"].values())]
            for name, row in results.items()
        ],
    )
    rates = {name: row["effective_samples_per_second"] for name, row in results.items()}
    bars = [
        bar(f"effective samples a second, network over {name}", rates["NUTS, network"] / rate, least=100)
        for name, rate in rates.items()
        if name.startswith("PMMH")
    ]
    print_bars(bars)
    write_results("effective_samples", {"trials": trials, "methods": results, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
