"""Whether XLA's options shorten the wait for a first draw: compilation and sampling of the demo's chains by option.

The two programs that a fit of simulated people by `noisy_q` waits for (the likelihood with its slope, and the chains),
lowered once and compiled with each of the options. Then sampling: each option's chains take the same few transitions
from the same state, in turn, and time is counted a gradient, since rounding may change the trees.

    python benchmarks/compiler_options.py [--quick] [--out DIR] [--repeats 5] [--compilations 1]

An option is worth taking where it saves at least 15 % of the processor's time of compiling and sampling takes at most
3 % longer: the older emitters of fused loops are, and a fit takes them. Times are the processor's: what others do on
the machine changes them least.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any
from unittest.mock import patch

import jax
import numpy as np
from harness import bar, parse, print_bars, print_table, write_results

import ppl_buffer as pb
from ppl_buffer.workflow import chains, hierarchical
from ppl_buffer.workflow.compilation import SHORT_COMPILATION

OPTIONS: dict[str, dict[str, Any]] = {
    # XLA's default, in words: that without options is compiled already.
    "as it is": {"xla_backend_optimization_level": 3},
    "no expensive passes": {"xla_llvm_disable_expensive_passes": True},
    "level 1": {"xla_backend_optimization_level": 1},
    "level 0": {"xla_backend_optimization_level": 0},
    # What a fit is compiled with.
    "older emitters of loops": SHORT_COMPILATION,
}
# Of a fit: what is compiled before the quick fit, and what while it runs.
PROGRAMS = ("likelihood", "chains", "beginning")


def lowered(subjects: int, trials: int, draws: int) -> tuple[list[Any], tuple[Any, ...]]:
    """The programs of a fit before they are compiled, and the arguments of the chains' program after warm-up."""
    task, rng = pb.simulators.NoisyQ(), np.random.default_rng(0)
    net = pb.load("noisy_q", backend="jax")
    inputs = task.inputs(rng, subjects, trials)
    given = task.simulate(rng, task.prior(rng, subjects), inputs)
    seen = net.observe(inputs, given["choice"], feedback={"reward": given["reward"]})
    programs: list[Any] = []
    compile_one = jax.stages.Lowered.compile

    def remembered(program: Any, **_: Any) -> Any:
        programs.append(program)
        # Without options, or JAX would give back what it has compiled before.
        return compile_one(program)

    class Now:
        """Does at once what it is asked to do in the background."""

        def __init__(self, _: int) -> None: ...

        def submit(self, function: Any, *given: Any) -> Future[Any]:
            done: Future[Any] = Future()
            done.set_result(function(*given))
            return done

        def shutdown(self, wait: bool) -> None: ...

    arguments: list[Any] = []
    sampler = chains.Sampler(chains=1, warmup=draws, draws=1)
    with (
        patch.object(jax.stages.Lowered, "compile", remembered),
        patch.object(chains, "ThreadPoolExecutor", Now),
        patch("ppl_buffer.workflow.sampling.ThreadPoolExecutor", Now),
        patch.object(chains, "run_chains", lambda *given, **more: arguments.extend(given)),
    ):
        prepared = chains.prepare(net, seen, hierarchical.Box.of(net), sampler)
        prepared.sample(prepared.quick())
    kept, start, data, mass = arguments
    state = kept.begin(start, data, mass)
    done = 0
    while done < draws:
        state, _ = kept.advance(state, min(32, draws - done), data, mass)
        done += 32
    return programs, (state, (data, mass))


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile and sample with each option, print and write."""
    options = parse(__doc__, arguments, repeats=5, compilations=1)
    jax.config.update("jax_enable_compilation_cache", False)
    sizes = (3, 7, 4) if options.quick else (13, 120, 40)
    programs, (state, given) = lowered(*sizes)
    compiling: dict[str, dict[str, float]] = {}
    advance: dict[str, Any] = {}
    for name, selected in OPTIONS.items():
        compiling[name] = {}
        for kind, program in zip(PROGRAMS, programs, strict=True):
            times = []
            for _ in range(1 if options.quick else options.compilations):
                began = time.process_time()
                made = program.compile(compiler_options=selected)
                times.append(time.process_time() - began)
            compiling[name][kind] = min(times)
            if kind == "chains":
                advance[name] = made
    count = np.int32(2 if options.quick else 8)
    gradients: dict[str, list[float]] = {name: [] for name in OPTIONS}
    for turn in range(1 + options.repeats):
        for name, program in advance.items():
            began = time.process_time()
            _, store = jax.device_get(program(state, count, given))
            taken = (time.process_time() - began) / store["fields"]["num_steps"][:, :count].sum()
            if turn:
                gradients[name].append(taken)
    rows, first = [], None
    for name in OPTIONS:
        total, gradient = sum(compiling[name].values()), statistics.median(gradients[name])
        first = first or (total, gradient)
        rows.append([name, *compiling[name].values(), total / first[0], 1e3 * gradient, gradient / first[1]])
    columns = [*(f"{kind} (s)" for kind in PROGRAMS), "compiling, ratio", "gradient (ms)", "gradient, ratio"]
    print_table("Options of XLA", ["option", *columns], rows)
    worth = [row[0] for row in rows[1:] if row[4] <= 0.85 and row[6] <= 1.03]
    # The best of those that leave sampling as fast, else of all.
    best = min([row for row in rows[1:] if row[6] <= 1.03] or rows[1:], key=lambda row: row[4])
    bars = [
        bar(f"compilation, {best[0]} over as it is", best[4], most=0.85),
        bar(f"a gradient of sampling, {best[0]} over as it is", best[6], most=1.03),
    ]
    print_bars(bars)
    results = {row[0]: dict(zip(columns, row[1:], strict=True)) for row in rows}
    write_results(
        "compiler_options", {"sizes": sizes, "options": results, "worth taking": worth, "bars": bars}, options.out
    )


if __name__ == "__main__":
    main()
