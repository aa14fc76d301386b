"""How many programs a fit and a comparison compile, and how soon they are done, each in a process of its own.

`ppl-buffer demo --simulated` with `noisy_q`: "cold", nothing is kept from before; "kept", the same command again;
"other people", simulated ones of the same numbers of trials, whose programs should be the kept ones. Programs are
counted by JAX's own events, at the stage in which their compilation ends (some are compiled in the background); a
program that is read from the folder where JAX keeps it counts too. "First draw" is counted from the start of the
process. Seconds are the clock's and, beside them, the processor's, which other users of the machine change less: with
one core they are how long one waits, with two the chains' program is compiled beside the quick fit.

Then `pb.compare` of the two theories of multisensory perception, both methods, for three simulated people of 61 trials:
as it is, and operation by operation, nothing kept of either; "again" is the same call once more.

    python benchmarks/compilations.py [--quick] [--out DIR] [--draws 100]

Bars, on two cores that nobody else uses: at most 40 programs; the first draw within 12 seconds cold, and within 5 with
kept programs. Of the comparison: at most 3 programs for both networks, which are of one shape, and the same evidence to
a thousandth.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

BEGAN = time.perf_counter()
COMPARISONS = ("as it is", "operation by operation")
RUNS = ("cold", "kept", "other people")
COMPILED = "/jax/core/compile/backend_compile_duration"
# Functions of `ppl_buffer.workflow.fitting` and the stage that begins with each; before the first: the table.
STAGES = {
    "_observe": "observation", "sample_by_subject": "quick fit", "_to_arviz": "conversion", "_check": "check",
    "prediction_scores": "scores",
}  # fmt: skip


class Clock:
    """Programs, and seconds of the clock and of the processor, by stage."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self.first_draw: dict[str, float] = {}
        self._stage = "import"
        self._since = (BEGAN, 0.0)
        self._row()

    def _row(self) -> dict[str, float]:
        blank = {"programs": 0, "compilation": 0.0, "seconds": 0.0, "processor_seconds": 0.0}
        return self.stages.setdefault(self._stage, blank)

    def begin(self, stage: str) -> None:
        """End the stage, and begin another one."""
        now, row = (time.perf_counter(), time.process_time()), self._row()
        row["seconds"] += now[0] - self._since[0]
        row["processor_seconds"] += now[1] - self._since[1]
        self._stage, self._since = stage, now
        self._row()

    def compiled(self, event: str, seconds: float, **_: object) -> None:
        """JAX calls this with everything that it times."""
        if event == COMPILED:
            self._row()["programs"] += 1
            self._row()["compilation"] += seconds

    def has_draws(self) -> None:
        """There are draws."""
        if not self.first_draw:
            self.first_draw = {"seconds": time.perf_counter() - BEGAN, "processor_seconds": time.process_time()}


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Tell the clock where a fit is."""
    fitting = importlib.import_module("ppl_buffer.workflow.fitting")
    sampling = importlib.import_module("ppl_buffer.workflow.sampling")

    def begins(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def begun(*arguments: Any, **more: Any) -> Any:
            clock.begin(stage)
            return function(*arguments, **more)

        return begun

    class Bar(sampling.tqdm):  # type: ignore[misc]
        def update(self, count: float = 1) -> bool | None:
            clock.has_draws()
            return super().update(count)

    def run_chains(*arguments: Any, **more: Any) -> Any:
        clock.begin("chains")
        return function(*arguments, **more)

    chains = importlib.import_module("ppl_buffer.workflow.chains")
    function = chains.run_chains
    with ExitStack() as patches:
        for name, stage in STAGES.items():
            patches.enter_context(patch.object(fitting, name, begins(stage, getattr(fitting, name))))
        patches.enter_context(patch.object(chains, "run_chains", run_chains))
        patches.enter_context(patch.object(sampling, "tqdm", Bar))
        yield


def demo(subjects: int, seed: int, draws: int, folder: str) -> None:
    """Run the demo in this process, and print what was counted as a last line of JSON."""
    clock = Clock()
    import jax
    import numpyro

    numpyro.set_host_device_count(2)
    jax.monitoring.register_event_duration_secs_listener(clock.compiled)
    command = importlib.import_module("ppl_buffer.workflow.cli.demo")
    with watched(clock):
        clock.begin("table")
        command.demo(
            subjects=str(subjects), simulated=True, out=Path(folder), warmup=draws, draws=draws,
            predictive_draws=min(150, draws), seed=seed, progress=False,
        )  # fmt: skip
    clock.begin("end")
    del clock.stages["end"]
    print(json.dumps({"stages": clock.stages, "first draw": clock.first_draw}))


def comparison(subjects: int, trials: int, draws: int, orders: int, by_operation: bool) -> None:
    """Compare two networks in this process, twice, and print what was counted as a last line of JSON."""
    import warnings

    import jax
    import numpy as np

    import ppl_buffer as pb
    from ppl_buffer.predictive.query import Query

    def operations(function: Callable[..., Any], query: Query, *arrays: Any, **settings: Any) -> Any:
        return function(query.expanded(len(query.batch_shape)), *arrays, **settings)

    clock, theory, rng = Clock(), pb.simulators.MultisensoryCausalInference(), np.random.default_rng(0)
    jax.monitoring.register_event_duration_secs_listener(clock.compiled)
    nets = {name: pb.load(f"multisensory_{name}", backend="jax") for name in ("rho1", "rho43")}
    inputs = theory.inputs(rng, subjects, trials)
    value = theory.simulate(rng, theory.prior(rng, subjects), inputs)["response"]
    evidence: list[float] = []
    with ExitStack() as patches, warnings.catch_warnings(action="ignore"):
        if by_operation:
            patches.enter_context(patch("ppl_buffer.inference.evidence.in_one_program", operations))
        for stage in ("first", "again"):
            clock.begin(stage)
            table = pb.compare(nets, inputs, value, draws=draws, orders=orders, progress=False)
            evidence = [*table["autoregressive"], *table["importance"]]
    clock.begin("end")
    print(json.dumps({"stages": {name: clock.stages[name] for name in ("first", "again")}, "evidence": evidence}))


def compare(options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Compare as it is and operation by operation, nothing kept of either; print; results and bars."""
    from harness import bar, in_own_process, print_table

    sizes = (2, 5, 40, 18) if options.quick else (3, 61, 1000, 128)
    compared: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for index, way in enumerate(COMPARISONS):
            with patch.dict(os.environ, {"JAX_COMPILATION_CACHE_DIR": f"{place}/{index}"}):
                compared[way] = in_own_process("compilations.py", "--comparison", *sizes, index)
    columns = ["programs", "compilation", "seconds", "processor_seconds"]
    rows = [
        [way, stage, *(row[column] for column in columns)]
        for way, measured in compared.items()
        for stage, row in measured["stages"].items()
    ]
    print_table(f"compare; load {os.getloadavg()[0]:.1f}", ["way", "call", *columns], rows)
    one, other = (compared[way] for way in COMPARISONS)
    apart = max(abs(x - y) for x, y in zip(one["evidence"], other["evidence"], strict=True))
    programs = one["stages"]["first"]["programs"]
    bars = [
        bar("programs that a comparison of two networks compiles", programs, most=3),
        bar("evidence, as it is over operation by operation, the largest ratio", math.exp(apart), most=1.001),
    ]
    return {"people, trials, draws, orders": sizes, **compared}, bars


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo three times and the comparison twice, print and write."""
    from harness import bar, in_own_process, parse, print_bars, print_table, write_results

    options = parse(__doc__, arguments, draws=100)
    subjects, draws = (3, 4) if options.quick else (13, options.draws)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        kept = {
            "JAX_COMPILATION_CACHE_DIR": f"{place}/kept",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": str(options.quick),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        }
        with patch.dict(os.environ, kept):
            for index, run in enumerate(RUNS):
                seed = int(run == "other people")
                results[run] = in_own_process("compilations.py", "--child", subjects, seed, draws, f"{place}/{index}")
            compared, more = compare(options)
    columns = ["programs", "compilation", "seconds", "processor_seconds"]
    for run, measured in results.items():
        rows = [[stage, *(row[column] for column in columns)] for stage, row in measured["stages"].items()]
        measured["programs"] = sum(int(row["programs"]) for row in measured["stages"].values())
        print_table(f"{run}: {measured['programs']} programs", ["stage", *columns], rows)
    first = [[run, *measured["first draw"].values()] for run, measured in results.items()]
    print_table(f"First draw; load {os.getloadavg()[0]:.1f}", ["run", "seconds", "processor seconds"], first)
    bars = [bar("programs that the demo compiles", results["cold"]["programs"], most=40)]
    for run, most in zip(RUNS, (12, 5, 5), strict=True):
        seconds = results[run]["first draw"]["seconds"]
        bars.append(bar(f"seconds to the first draw of the demo, {run}", seconds, most=most))
    bars += more
    print_bars(bars)
    sizes = {"people": subjects, "draws": draws, "load_average": os.getloadavg()[0]}
    write_results("compilations", {**sizes, "runs": results, "comparison": compared, "bars": bars}, options.out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        demo(*map(int, sys.argv[2:5]), sys.argv[5])
    elif sys.argv[1:2] == ["--comparison"]:
        comparison(*map(int, sys.argv[2:6]), bool(int(sys.argv[6])))
    else:
        main()
