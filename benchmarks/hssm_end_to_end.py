"""From nothing to a posterior of the drift-diffusion model: this package beside HSSM, each in its own environment.

Simulated data: 200 trials of one person or, with `--subjects 1,14`, also 300 trials of each of 14 people in a
hierarchy, which takes HSSM's network more than several minutes. Both sides have the same priors
(`end_to_end/problem.py`), no lapses, drift variability 0, the same numbers of chains, of warm-up and of kept draws,
acceptance 0.8, trees of at most 10 doublings, one core, chains one after another. Each fit is a process of its own, and
all of it counts: imports, compilation, warm-up, draws. Seconds are of processor time (a machine is seldom quiet for so
long); the result file has wall seconds beside them.

- "first": nothing was compiled before;
- "again": with the programs that JAX and PyTensor kept from the first fit, which either side can be told to;
- "sampling": "again" less the same process with a single draw, warm-up included.

The last two are of one person alone; with 14 people "first" is nearly all sampling. Effective sample sizes are ArviZ's,
bulk or tail, the least of all quantities: parameters of one person, means and spreads of people.

HSSM runs its likelihood network (LAN) in single precision, as its tutorials do, and its analytical likelihood. The
network is ``ddm.onnx`` of Hugging Face's franklab/HSSM, which is also among ``tests/fixtures`` of HSSM's repository;
`--hssm-network` names the file. "ppl_buffer, fit" is what `ppl_buffer.workflow.fit` samples: a quick fit before NUTS,
trees of at most 5 doublings, drift variability as a fifth parameter, and means and spreads on scales of its own.

    python benchmarks/hssm_end_to_end.py [--quick] [--out DIR] [--hssm-python PATH] [--hssm-network PATH]
        [--subjects 1]

Without `--hssm-python`, the interpreter of an environment in which HSSM is installed, only our side is measured.

Bars: seconds of at most those of HSSM's fastest way, first and again.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from end_to_end.problem import RANGES
from harness import bar, parse, print_bars, print_table, write_results

import ppl_buffer as pb
from ppl_buffer.arviz.versions import import_arviz

FOLDER = Path(__file__).parent / "end_to_end"
CHAINS = 2
# By number of people: trials of each, warm-up, kept draws of a chain.
SIZES = {1: (200, 1000, 1000), 14: (300, 300, 300)}
# On the scale of the ranges' generalised logit: means and spreads of the simulated people.
TRUTH = {
    "drift": (0.4, 0.5),
    "boundary": (-0.8, 0.4),
    "starting_point": (0.0, 0.3),
    "non_decision_time": (-1.7, 0.3),
}


def simulated(subjects: int, trials: int) -> dict[str, np.ndarray]:
    """``choice`` and ``rt``, (subjects, trials) each."""
    rng, simulator = np.random.default_rng([4, subjects]), pb.simulators.DriftDiffusion()
    params = {"drift_variability": np.zeros(subjects)}
    for name, (low, high) in RANGES.items():
        mean, spread = TRUTH[name]
        params[name] = low + (high - low) / (1 + np.exp(-mean - spread * rng.standard_normal(subjects)))
    data = simulator.simulate(rng, params, {}, trials)
    return {"choice": data["choice"], "rt": data["rt"].astype(np.float32)}


def sides(options: Any, subjects: int) -> dict[str, list[str]]:
    """Name of a side -> its command, without data and numbers."""
    ours = [sys.executable, str(FOLDER / "side_ours.py")]
    ways = {"ppl_buffer": [*ours, "--sampler=numpyro"]}
    if subjects > 1:
        ways["ppl_buffer, fit"] = [*ours, "--sampler=fit"]
    if options.hssm_python:
        theirs = [options.hssm_python, str(FOLDER / "side_hssm.py")]
        if options.hssm_network:
            network = f"--likelihood={Path(options.hssm_network).absolute()}"
            ways["HSSM, network"] = [*theirs, network, "--sampler=numpyro"]
        ways["HSSM, analytical, NumPyro"] = [*theirs, "--likelihood=analytical", "--sampler=numpyro"]
        ways["HSSM, analytical, PyMC"] = [*theirs, "--likelihood=analytical", "--sampler=pymc"]
    return ways


def timed(command: Sequence[str], cache: Path) -> dict[str, Any]:
    """What a side prints, and the seconds of the whole process."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(FOLDER.parents[1]),
        "JAX_COMPILATION_CACHE_DIR": str(cache / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "PYTENSOR_FLAGS": f"base_compiledir={cache / 'pytensor'}",
    }
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": seconds, "processor_seconds": processor}


def measured(command: Sequence[str], size: tuple[int, int], data: Path, single: bool) -> dict[str, Any]:
    """Figures of a side.

    Args:
        command: without data and numbers.
        size: warm-up and draws.
        data: file of the data.
        single: whether the same is fitted again, and a single draw made.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)

        def run(warmup: int, draws: int, cache: str) -> dict[str, Any]:
            numbers = [f"--chains={CHAINS}", f"--warmup={warmup}", f"--draws-each={draws}"]
            return timed([*command, str(data), str(folder / "draws.npz"), *numbers], folder / cache)

        runs = {}
        if single:
            run(1, 1, "short")
            runs["one draw"] = run(1, 1, "short")
        runs["first"] = run(*size, "long")
        if single:
            runs["again"] = run(*size, "long")
        with np.load(folder / "draws.npz") as stored:
            draws = dict(stored)
    seconds = {name: x["processor_seconds"] for name, x in runs.items()}
    times: dict[str, float | None] = {"first": seconds["first"], "again": None, "sampling": None}
    if single:
        times |= {"again": seconds["again"], "sampling": seconds["again"] - seconds["one draw"]}
    arviz = import_arviz()
    effective = min(float(arviz.ess(x, method=way)) for x in draws.values() for way in ("bulk", "tail"))
    return {
        **times,
        "gradients a draw": runs["first"]["gradients_per_draw"],
        "least ESS": effective,
        **{f"ESS/s {name}": None if taken is None else effective / taken for name, taken in times.items()},
        "R-hat": max(float(arviz.rhat(x)) for x in draws.values()),
        "divergences": runs["first"]["divergences"],
        "runs": runs,
        "mean and sd": {name: [float(x.mean()), float(x.std())] for name, x in draws.items()},
    }


def show(title: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Print figures, and posterior means and deviations."""
    columns = [name for name in next(iter(rows.values())) if name not in ("runs", "mean and sd")]
    print_table(title, ["", *columns], [[side, *(row[name] for name in columns)] for side, row in rows.items()])
    quantities = list(next(iter(rows.values()))["mean and sd"])
    print_table(
        "Posterior mean (sd)",
        ["", *rows],
        [
            [name, *("{:.3f} ({:.3f})".format(*row["mean and sd"][name]) for row in rows.values())]
            for name in quantities
        ],
    )


def compared(title: str, rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Our seconds over those of the fastest way of HSSM, where that was measured."""
    theirs = [row for side, row in rows.items() if side.startswith("HSSM")]
    ours, bars = rows["ppl_buffer"], []
    for kind in ("first", "again"):
        if theirs and ours[kind] is not None:
            value = ours[kind] / min(row[kind] for row in theirs)
            bars.append(bar(f"{title}, {kind}: seconds over those of HSSM's fastest way", value, most=1))
    return bars


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, print, write."""
    options = parse(__doc__, arguments, **{"hssm-python": "", "hssm-network": ""}, subjects="1")
    results: dict[str, Any] = {}
    bars = []
    for subjects in map(int, "1" if options.quick else options.subjects.split(",")):
        trials, *size = (11, 3, 5) if options.quick else SIZES[subjects]
        title, rows = f"{subjects} x {trials} trials", {}
        results[title] = {"warmup": size[0], "draws": size[1], "sides": rows}
        with tempfile.TemporaryDirectory() as place:
            data = Path(place) / "data.npz"
            np.savez(data, **simulated(subjects, trials))
            for side, command in sides(options, subjects).items():
                rows[side] = measured(command, tuple(size), data, single=subjects == 1 and not options.quick)
                print(f"{title}, {side}: {rows[side]['first']:.1f} s", flush=True)
                # Several people take long: what was measured is kept.
                write_results("hssm_end_to_end", {"chains": CHAINS, "data": results, "bars": bars}, options.out)
        show(title, rows)
        bars += compared(title, rows)
        write_results("hssm_end_to_end", {"chains": CHAINS, "data": results, "bars": bars}, options.out)
    print_bars(bars)


if __name__ == "__main__":
    main()
