"""Time and memory of a fit's conversion to ArviZ: 28 people, 4 chains of 500 draws, every trial's log likelihood.

The people of the probabilistic selection task (simulated ones of the same lengths where the data are absent), the
shipped network, draws spread over its box: time does not depend on what they are. Measured are the conversion with log
likelihood and draws one step ahead, `az.loo` of the result, and a few rollouts apart (`predictive_draws`). Beside the
clock's time stands the processor's: on a machine that others use, only that says what the work takes.

    python benchmarks/arviz_conversion.py [--quick] [--out DIR] [--checkpoint noisy_q] [--draws 500] [--rollouts 20]
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpyro
from gradient import simulated, task_subjects
from harness import bar, parse, print_bars, print_table, write_results

import ppl_buffer as pb
from ppl_buffer.arviz import from_samples, groups_of, import_arviz
from ppl_buffer.numpyro import JointPredictive

CHAINS = 4


def timed(function: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What a function returns, and the seconds it took."""
    clock, processor = time.perf_counter(), time.process_time()
    result = function()
    return result, {"seconds": time.perf_counter() - clock, "processor_seconds": time.process_time() - processor}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse(__doc__, arguments, checkpoint="noisy_q", draws=500, rollouts=20)
    net = pb.load(options.checkpoint, backend="jax")
    data = simulated([7, 5, 6]) if options.quick else task_subjects()
    draws, rollouts = (5, 4) if options.quick else (options.draws, options.rollouts)
    seen = net.observe(data.inputs, data.choice.astype(np.float32), feedback=data.feedback, trial_mask=data.mask)

    def model() -> None:
        with numpyro.plate("people", len(data.choice)):
            params = {name: numpyro.sample(name, prior) for name, prior in net.prior().items()}
            numpyro.sample("choice", JointPredictive(net, seen, params=params), obs=seen.value)

    rng = np.random.default_rng(0)
    shape = (CHAINS, draws, len(data.choice))
    samples = {name: rng.uniform(low, high, shape).astype(np.float32) for name, (low, high) in net.box.items()}
    quiet = {"language": "numpyro", "prior_draws": 0}
    result, conversion = timed(lambda: from_samples(model, samples, predictive_draws=0, **quiet))
    az = import_arviz()
    score, loo = timed(lambda: az.loo(result))
    elpd = float(score["elpd_loo"] if "elpd_loo" in score else score.elpd)
    _, rolled = timed(
        lambda: from_samples(
            model, samples, predictive_draws=rollouts, log_likelihood=False,
            environment=pb.simulators.NoisyQ().environment, **quiet,
        )
    )  # fmt: skip
    total = {key: conversion[key] + loo[key] for key in conversion}
    kilobyte = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte / 1e9
    trials, cores = int(data.mask.sum()), len(os.sched_getaffinity(0))
    parts = {"conversion": conversion, "az.loo": loo, "both": total, f"{rollouts} rollouts of everybody": rolled}
    print_table(
        f"{len(data.choice)} people, {trials} trials ({data.source}), {CHAINS} x {draws} draws, {cores} cores, "
        f"load {os.getloadavg()[0]:.1f}",
        ["what", "seconds", "processor seconds"],
        [[name, *part.values()] for name, part in parts.items()],
    )
    assert groups_of(result)["log_likelihood"]["choice"].shape == (CHAINS, draws, trials)
    bars = [
        bar("conversion and az.loo, seconds", total["seconds"], most=60),
        bar("conversion and az.loo, processor seconds a core of two", total["processor_seconds"] / 2, most=60),
        bar("peak memory of the process, GB", peak, most=4),
    ]
    print_bars(bars)
    write_results(
        "arviz_conversion",
        {
            "checkpoint": options.checkpoint,
            "people": len(data.choice),
            "trials": trials,
            "draws": CHAINS * draws,
            "data": data.source,
            "cores": cores,
            "load_average": os.getloadavg()[0],
            "parts": parts,
            "peak_gigabytes": peak,
            "elpd": elpd if np.isfinite(elpd) else None,
            "bars": bars,
        },
        options.out,
    )


if __name__ == "__main__":
    main()
