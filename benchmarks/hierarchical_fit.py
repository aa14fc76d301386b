"""Effective draws a gradient of a hierarchical fit: written by the quick fit, and as a program usually writes it.

Simulated people of `noisy_q` (120 trials each) and of `ddm` (300 trials). "Quick fit" is what `ppl_buffer.workflow.fit`
runs: parameters written so that they would be independent of means and spreads if likelihoods were normal, with scales
of steps that are known before the first draw. "Non-centred" is the same model with offsets, whose scales NumPyro's NUTS
finds out in its own warm-up (a dense block of the group means). Compared is the least effective sample size, bulk and
tail (ArviZ), of group means and spreads, for 1,000 gradients after warm-up; both have trees of at most 31 gradients and
an aim of acceptance of 0.8.

    python benchmarks/hierarchical_fit.py [--quick] [--out DIR] [--networks ddm,noisy_q] [--subjects 13] [--draws 500]
        [--seeds 2] [--starts 2]

How well two chains explore is also their luck: each data set is sampled from several starts. Bar: twice the effective
draws a gradient, in bulk and in the tails, in the mean over data sets and starts.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from harness import bar, parse, print_bars, print_table, write_results

import ppl_buffer as pb
from ppl_buffer.arviz.versions import import_arviz
from ppl_buffer.datasets import TrialData
from ppl_buffer.workflow import chains, hierarchical
from ppl_buffer.workflow.chains import Sampler
from ppl_buffer.workflow.hierarchical import Box
from ppl_buffer.workflow.sampling import Draws, Programs, run_chains

TRIALS = {"ddm": 300, "noisy_q": 120}
SIMULATORS = {"ddm": pb.simulators.DriftDiffusion, "noisy_q": pb.simulators.NoisyQ}
# Of the simulated people on the logistic scale of the box: a mean away from its middle, and how people differ.
MEAN, SPREAD = -0.5, 0.5
WAYS = ("quick fit", "non-centred")


def simulated(name: str, net: Any, subjects: int, seed: int) -> TrialData:
    """Data of so many people."""
    rng, simulator = np.random.default_rng([seed, 3]), SIMULATORS[name]()
    places = {each: (MEAN + SPREAD * rng.standard_normal(subjects)).astype(np.float32) for each in net.schema.params}
    params = {each: np.asarray(x, float) for each, x in Box.of(net)(places).items()}
    inputs = simulator.inputs(rng, subjects, TRIALS[name]) if net.schema.inputs else {}
    data = simulator.simulate(rng, params, inputs, **({} if inputs else {"trials": TRIALS[name]}))
    exists = np.ones((subjects, TRIALS[name]), bool)
    return TrialData(
        subjects=[f"person {index + 1}" for index in range(subjects)],
        trial_counts=exists.sum(1),
        inputs=inputs,
        outcomes={each: data[each] for each in net.schema.outcomes},
        feedback={each: data[each] for each in net.schema.feedback},
        trial_mask=exists,
    )


def sample(net: Any, trials: TrialData, way: str, sampler: Sampler, seed: int) -> tuple[Draws, float]:
    """Draws, and processor seconds of all."""
    began, box, data = time.process_time(), Box.of(net, trials), trials.observe(net)
    if way == "quick fit":
        fit = chains.quick(net, data, box)
        return chains.sample(net, data, box, fit, sampler, seed=seed, progress=False), _since(began)
    means = tuple(f"{name}_mean" for name in net.schema.params)
    options = {
        "target_accept_prob": sampler.target_accept, "max_tree_depth": sampler.tree_depth, "dense_mass": [means],
    }  # fmt: skip
    keys, rng = jax.random.split(jax.random.PRNGKey(seed), sampler.chains), np.random.default_rng(seed)
    shapes = {
        f"{name}_{kind}": shape
        for name in net.schema.params
        for kind, shape in (("mean", ()), ("spread", ()), ("offset", data.batch_shape))
    }
    first = {
        site: rng.uniform(-0.5, 0.5, (sampler.chains, *shape)).astype(np.float32) for site, shape in shapes.items()
    }
    model = partial(hierarchical.model, net, box=box)
    programs = Programs(model, sampler.warmup, (keys, first), data, options=options)
    return run_chains(programs, (keys, first), data, draws=sampler.draws, progress=False), _since(began)


def _since(began: float) -> float:
    return time.process_time() - began


def effective(draws: Mapping[str, Any], sites: Sequence[str]) -> dict[str, float]:
    """Least effective sample sizes and worst R-hat of sites, (chains, draws) each."""
    arviz = import_arviz()
    bulk, tail = (min(float(arviz.ess(draws[x], method=way)) for x in sites) for way in ("bulk", "tail"))
    return {"bulk": bulk, "tail": tail, "R-hat": max(float(arviz.rhat(draws[x])) for x in sites)}


def measured(net: Any, draws: Draws, seconds: float) -> dict[str, Any]:
    """Least effective sample sizes, and what they took."""
    least = effective(draws.sites, [f"{name}_{kind}" for name in net.schema.params for kind in ("group", "spread")])
    gradients = np.asarray(draws.fields["num_steps"])
    return {
        **least,
        "gradients a draw": float(gradients.mean()),
        "share at the cap": float((gradients >= 31).mean()),
        "divergences": float(np.mean(draws.fields["diverging"])),
        "bulk / 1000 gradients": 1e3 * least["bulk"] / float(gradients.sum()),
        "tail / 1000 gradients": 1e3 * least["tail"] / float(gradients.sum()),
        "processor seconds": seconds,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample, print, write."""
    options = parse(__doc__, arguments, networks="ddm,noisy_q", subjects=13, draws=500, seeds=2, starts=2)
    if options.quick:
        options.networks, options.subjects, options.draws, options.seeds, options.starts = "ddm", 3, 20, 1, 1
    results: dict[str, Any] = {}
    bars = []
    for name in options.networks.split(","):
        net, rows = pb.load(name, backend="jax"), []
        # Those of seed 0 were there when the quick fit was built.
        for seed in range(1, 1 + options.seeds):
            trials = simulated(name, net, options.subjects, seed)
            for start, way in itertools.product(range(1, 1 + options.starts), WAYS):
                warmup = 10 if options.quick else {"quick fit": 200, "non-centred": 500}[way]
                sampler = Sampler(warmup=warmup, draws=options.draws)
                draws, seconds = sample(net, trials, way, sampler, seed + 100 * (start - 1))
                facts = {"seed": seed, "start": start, "way": way, "warm-up": warmup}
                rows.append({**facts, **measured(net, draws, seconds)})
        columns = [*rows[0]]
        print_table(f"{name}, {options.subjects} people", columns, [[row[x] for x in columns] for row in rows])
        for kind in ("bulk", "tail"):
            by_way = [np.mean([row[f"{kind} / 1000 gradients"] for row in rows if row["way"] == way]) for way in WAYS]
            bars.append(bar(f"{name}: least {kind} effective draws a gradient, ratio", by_way[0] / by_way[1], least=2))
        results[name] = rows
    print_bars(bars)
    sizes = {"subjects": options.subjects, "trials": TRIALS, "draws": options.draws, "starts": options.starts}
    write_results("hierarchical_fit", {**sizes, "networks": results, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
