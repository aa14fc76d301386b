"""Effective samples a second of a hierarchical fit: NUTS with the network against Metropolis within Gibbs by particles.

Simulated people of `noisy_q`, 120 trials each, with learning noise; the model, its priors and the data are those of
`hierarchical_fit.py`. NUTS is what `ppl_buffer.workflow.fit` runs, with the network's direct likelihood. The rival
samples the same posterior under the simulator's own likelihood, which it estimates without bias, in one compiled
program for all chains and people:

- each person's four parameters, given the group, by pseudo-marginal Metropolis-Hastings (Andrieu & Roberts 2009): a
  random walk with a covariance and a scale for each person, adapted in the warm-up. The estimate is that of
  `particles.people_by_pair`, which knows that pairs are independent, by twice the fewest particles (a power of two)
  that bring its standard deviation to 1.4;
- the group's means exactly, and its spreads by Metropolis-Hastings with the means integrated out, several moves a
  sweep: next to the filters they cost nothing;
- mean and spread of one parameter, offsets of the people held (Yu & Meng 2011: interweaving), in every sweep. The
  random numbers of all filters are held too, as far as correlated pseudo-marginal moves can go (Deligiannidis, Doucet &
  Pitt 2018), since the noise of all people's estimates adds up: hence twice as many particles.

Compared is the least effective sample size, bulk or tail (ArviZ), of the group's means (natural units) and spreads,
for a second of processor time after the warm-up and without compilation, which are stated beside it. Both must find the
same posterior: differences of means are printed in Monte Carlo standard errors and in posterior deviations.

    python benchmarks/hierarchical_particles.py [--quick] [--out DIR] [--subjects 28] [--draws 500] [--sweeps 24000]

Bar: 10 times the effective samples a second for 28 people.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import bar, parse, print_bars, print_table, write_results
from hierarchical_fit import effective, simulated
from particles import ACCEPTANCE, MOST_PARTICLES, Array, people_by_pair, tune, walk_factor

import ppl_buffer as pb
from ppl_buffer.arviz.versions import import_arviz
from ppl_buffer.datasets import TrialData
from ppl_buffer.workflow import chains
from ppl_buffer.workflow.chains import Sampler
from ppl_buffer.workflow.hierarchical import MEAN_SCALE, SPREAD_MEDIAN, SPREAD_SCALE, Box

CHAINS = 4
# How often spreads move in a sweep, and steps of a mean and a log spread that take the people along.
SPREAD_MOVES, MEAN_STEP, SPREAD_STEP = 5, 0.1, 0.3
# Of the warm-up: rounds, and sweeps of each.
ROUNDS, LENGTH = 8, 125
Sites = dict[str, np.ndarray]


def sample_nuts(net: Any, trials: TrialData, sampler: Sampler, seed: int) -> dict[str, Any]:
    """Draws by `chains.sample`, in three calls that each go on from the one before.

    The first is compilation and warm-up, the second compilation and nearly all draws, the third compilation alone.
    """
    began, box, data = time.process_time(), Box.of(net, trials), trials.observe(net)
    fit = chains.quick(net, data, box)
    seconds = [time.process_time() - began]
    with tempfile.TemporaryDirectory() as place:
        for draws in (1, sampler.draws, sampler.draws + 1):
            options = Sampler(sampler.chains, sampler.warmup, draws)
            began = time.process_time()
            kept = chains.sample(net, data, box, fit, options, seed=seed, progress=False, path=Path(place) / "draws")
            seconds.append(time.process_time() - began)
    quick, warm, drawing, compiling = seconds
    return {
        "draws": kept.sites,
        "seconds": drawing - compiling,
        "warmup_seconds": quick + warm - compiling,
        "compile_seconds": compiling,
        "note": f"{kept.fields['num_steps'].mean():.1f} gradients a draw",
    }


def normal(u: Array, means: Array, spreads: Array) -> Array:
    """Log density, but for a constant, of people's parameters (C, S, 4) in populations (C, 4): (C, S)."""
    deviations = (u - means[:, None]) / spreads[:, None]
    return -0.5 * (deviations**2).sum(-1) - jnp.log(spreads).sum(-1)[:, None]


def group_prior(means: Array, log_spreads: Array) -> Array:
    """Log density, but for a constant, of means and log spreads (C, 4): (C,)."""
    deviations = means / MEAN_SCALE, (log_spreads - math.log(SPREAD_MEDIAN)) / SPREAD_SCALE
    return -0.5 * (deviations[0] ** 2 + deviations[1] ** 2).sum(-1)


def draw_group(u: Array, log_spreads: Array, key: Array) -> tuple[Array, Array]:
    """Means and log spreads of the populations, (C, 4) each, given people's parameters (C, S, 4)."""
    subjects = u.shape[1]
    centre, square = u.mean(1), u.var(1) * subjects
    walk, accept, mean = jax.random.split(key, 3)

    def log_density(log_spreads: Array) -> Array:
        # Of the people, their mean integrated out, and of the prior, LogNormal.
        variance = jnp.exp(2 * log_spreads)
        total = MEAN_SCALE**2 + variance / subjects
        data = -0.5 * (square / variance + centre**2 / total + jnp.log(total)) - (subjects - 1) * log_spreads
        return data - 0.5 * ((log_spreads - math.log(SPREAD_MEDIAN)) / SPREAD_SCALE) ** 2

    width = 2.4 / math.sqrt(2 * subjects)
    steps = width * jax.random.normal(walk, (SPREAD_MOVES, *log_spreads.shape))
    thresholds = jnp.log(jax.random.uniform(accept, steps.shape))
    for step, threshold in zip(steps, thresholds, strict=True):
        moved = log_spreads + step
        log_spreads = jnp.where(threshold < log_density(moved) - log_density(log_spreads), moved, log_spreads)
    precision = subjects * jnp.exp(-2 * log_spreads) + MEAN_SCALE**-2
    means = subjects * centre * jnp.exp(-2 * log_spreads) / precision
    return means + jax.random.normal(mean, means.shape) / jnp.sqrt(precision), log_spreads


def sample_particles(net: Any, trials: TrialData, places: np.ndarray, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Draws by particles.

    Args:
        net: names the parameters and their ranges.
        trials: of the people.
        places: (S, 4), where the number of particles is chosen and chains begin, on the logistic scale.
        sizes: ``rounds``, ``length`` and ``sweeps``.
    """
    names, box = list(net.schema.params), Box.of(net, trials)
    log_likelihood, shape = people_by_pair(trials.inputs["pair"], trials.outcomes["choice"], trials.feedback["reward"])

    def estimate(u: Array, uniform: Array, particles: int) -> Array:
        values = box({name: u[..., index] for index, name in enumerate(names)})
        return log_likelihood(jnp.stack([values[name] for name in names], -1), uniform, particles)

    def fresh(u: Array, key: Array, particles: int) -> Array:
        return estimate(u, jax.random.uniform(key, (*u.shape[:2], *shape)), particles)

    particles, std = tune(fresh, places, MOST_PARTICLES)
    particles *= 2

    def interweave(state: Any, index: Array, key: Array) -> tuple[Any, Array]:
        """A move of mean and spread of a parameter, which all people follow."""
        u, uniform, log_likelihoods, means, log_spreads = state
        step, accept = jax.random.split(key)
        steps = jax.random.normal(step, (2, CHAINS, 1)) * (jnp.arange(u.shape[-1]) == index)
        moved, log_moved = means + MEAN_STEP * steps[0], log_spreads + SPREAD_STEP * steps[1]
        follow = moved[:, None] + (u - means[:, None]) * jnp.exp(log_moved - log_spreads)[:, None]
        proposed = estimate(follow, uniform, particles)
        ratio = (proposed - log_likelihoods).sum(-1) + group_prior(moved, log_moved) - group_prior(means, log_spreads)
        accepted = jnp.log(jax.random.uniform(accept, ratio.shape)) < ratio
        after = follow, uniform, proposed, moved, log_moved
        take = [jnp.where(jnp.expand_dims(accepted, range(1, x.ndim)), x, y) for x, y in zip(after, state, strict=True)]
        return tuple(take), accepted

    @jax.jit
    def run(state: Any, key: Array, factor: Array, log_scale: Array, rate: float) -> Any:
        def sweep(carry: Any, turn: tuple[Array, Array]) -> tuple[Any, Any]:
            (u, uniform, log_likelihoods, means, log_spreads), log_scale = carry
            index, key = turn
            walk, numbers, accept, group, together = jax.random.split(key, 5)
            steps = jnp.einsum("sij,csj->csi", factor, jax.random.normal(walk, u.shape))
            moved, renewed = u + jnp.exp(log_scale)[:, None] * steps, jax.random.uniform(numbers, uniform.shape)
            proposed, spreads = estimate(moved, renewed, particles), jnp.exp(log_spreads)
            ratio = proposed - log_likelihoods + normal(moved, means, spreads) - normal(u, means, spreads)
            accepted = jnp.log(jax.random.uniform(accept, ratio.shape)) < ratio
            u = jnp.where(accepted[..., None], moved, u)
            uniform = jnp.where(accepted[..., None, None, None], renewed, uniform)
            log_likelihoods = jnp.where(accepted, proposed, log_likelihoods)
            log_scale = log_scale + rate * (accepted.mean(0) - ACCEPTANCE)
            means, log_spreads = draw_group(u, log_spreads, group)
            state, followed = interweave((u, uniform, log_likelihoods, means, log_spreads), index, together)
            return (state, log_scale), (state[0], *state[3:], accepted, followed)

        turns = jnp.arange(sizes["length"]) % len(names), jax.random.split(key, sizes["length"])
        return jax.lax.scan(sweep, (state, log_scale), turns)

    subjects, size = places.shape
    uniform = jax.random.uniform(jax.random.key(5), (CHAINS, subjects, *shape))
    u = jnp.asarray(places, jnp.float32) + 0.5 * jax.random.normal(jax.random.key(4), (CHAINS, subjects, size))
    group = jnp.zeros((CHAINS, size)), jnp.full((CHAINS, size), math.log(SPREAD_MEDIAN))
    state = u, uniform, jnp.full((CHAINS, subjects), -jnp.inf), *group
    factor = jnp.tile(0.5 * jnp.eye(size), (subjects, 1, 1))
    log_scale = jnp.full(subjects, math.log(2.38 / math.sqrt(size)))
    start = time.process_time()
    jax.block_until_ready(run(state, jax.random.key(6), factor, log_scale, 0.0))
    # A warm-up's round takes as long as this one but for the compilation.
    compiled = time.process_time()
    for index in range(sizes["rounds"]):
        (state, log_scale), (u, *_) = run(state, jax.random.key(100 + index), factor, log_scale, 0.05)
        factor = walk_factor(u)
    warm = time.process_time()
    group_draws, accepted = [], []
    for index in range(max(1, sizes["sweeps"] // sizes["length"])):
        (state, log_scale), (_, *group, own, together) = run(
            state, jax.random.key(10_000 + index), factor, log_scale, 0.0
        )
        group_draws.append([np.asarray(x) for x in group])
        accepted.append([float(own.mean()), float(together.mean())])
    seconds = time.process_time() - warm
    means, log_spreads = (np.concatenate(x).transpose(2, 1, 0) for x in zip(*group_draws, strict=True))
    groups = box(dict(zip(names, means, strict=True)), group=True)
    sites = {f"{name}_group": np.asarray(x) for name, x in groups.items()}
    sites |= {f"{name}_spread": np.exp(x) for name, x in zip(names, log_spreads, strict=True)}
    return {
        "draws": sites,
        "seconds": seconds,
        "warmup_seconds": warm - compiled,
        "compile_seconds": compiled - start - (warm - compiled) / sizes["rounds"],
        "note": "{} particles (deviation {:.2f} with half), {:.0%} and {:.0%} accepted".format(
            particles, std, *np.mean(accepted, 0)
        ),
    }


def agreement(runs: Sequence[Mapping[str, Any]], sites: Sequence[str]) -> list[dict[str, Any]]:
    """Of each site: mean and deviation under both, their difference, and the ratio of deviations."""
    arviz, rows = import_arviz(), []
    for site in sites:
        first, second = (run["draws"][site] for run in runs)
        error = math.hypot(*(float(arviz.mcse(run["draws"][site], method="mean")) for run in runs))
        gap = float(first.mean() - second.mean())
        rows.append(
            {
                "quantity": site,
                "NUTS": [float(first.mean()), float(first.std())],
                "particles": [float(second.mean()), float(second.std())],
                "difference / Monte Carlo error": gap / error,
                "difference / sd": gap / float(second.std()),
                "sd ratio": float(first.std() / second.std()),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample, print, write."""
    options = parse(__doc__, arguments, subjects="28", draws=500, sweeps=24_000)
    sampler = Sampler(warmup=200, draws=options.draws)
    sizes = {"rounds": ROUNDS, "length": LENGTH, "sweeps": options.sweeps}
    if options.quick:
        options.subjects, sampler = "3", Sampler(warmup=5, draws=10)
        sizes = {"rounds": 2, "length": 10, "sweeps": 20}
    net, results, bars = pb.load("noisy_q", backend="jax"), [], []
    sites = [f"{name}_{kind}" for name in net.schema.params for kind in ("group", "spread")]
    for subjects in map(int, options.subjects.split(",")):
        trials = simulated("noisy_q", net, subjects, seed=1)
        runs = {"NUTS, network": sample_nuts(net, trials, sampler, seed=1)}
        logits = [net.from_box(name, runs["NUTS, network"]["draws"][name]).mean((0, 1)) for name in net.schema.params]
        runs["particles"] = sample_particles(net, trials, np.stack(logits, -1), sizes)
        rows = {}
        for name, run in runs.items():
            least = effective(run["draws"], sites)
            rate = min(least["bulk"], least["tail"]) / run["seconds"]
            times = {key: run[key] for key in ("seconds", "warmup_seconds", "compile_seconds", "note")}
            rows[name] = {"draws": run["draws"][sites[0]].size, **least, "ESS/s": rate, **times}
        agreed = agreement(list(runs.values()), sites)
        for title, table in (
            (f"{subjects} people", [{"": name, **row} for name, row in rows.items()]),
            ("Both", agreed),
        ):
            shown = [[str(np.round(x, 3)) if isinstance(x, list) else x for x in row.values()] for row in table]
            print_table(title, list(table[0]), shown)
        ratio = rows["NUTS, network"]["ESS/s"] / rows["particles"]["ESS/s"]
        bars.append(bar(f"{subjects} people: effective samples a second, network over particles", ratio, least=10))
        results.append({"subjects": subjects, "methods": rows, "agreement": agreed})
    print_bars(bars)
    write_results("hierarchical_particles", {"trials": 120, "data": results, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
