"""A gradient before and after the process keeps the memory that it has freed, each in a process of its own, JAX.

What a compiled program works in is one block. Blocks above 32 MB are given back to the system after each call, and
cleared by the system in the next. `ppl-buffer fit` keeps them (`ppl_buffer.workflow.cli.memory`); whoever calls the
library can by the environment (`MALLOC_MMAP_MAX_=0`, `MALLOC_TRIM_THRESHOLD_=2147483647`). Linux with glibc, whose
thresholds depend on what a process has freed before: hence fresh ones.

28 people with 360 trials each, and with as many as those of the probabilistic selection task have (113 to 360): both
parts of `noisy_q`, observed, milliseconds.

    python benchmarks/kept_memory.py [--quick] [--out DIR] [--repetitions 15]
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def measure(part: str, lengths: str, subjects: int, trials: int, repetitions: int) -> tuple[float, float]:
    """Milliseconds of a gradient in this process, before and after."""
    import likelihood_gradient
    from gradient import LENGTHS
    from harness import interleaved

    import ppl_buffer as pb
    from ppl_buffer.workflow.cli.memory import keep_memory

    net, own = pb.load("noisy_q", backend="jax"), None if lengths == "equal" else LENGTHS[:subjects]
    longest = trials if own is None else max(own)
    study = likelihood_gradient.study(net, part, subjects, longest, own)
    way = {"gradient": likelihood_gradient.gradient_of(net, part, *study)}

    def milliseconds() -> float:
        return 1e3 * interleaved(way, repetitions, in_a_row=likelihood_gradient.IN_A_ROW)["gradient"]["median"]

    before = milliseconds()
    if not keep_memory():
        raise SystemExit("this system's C library does not say how memory is kept")
    return before, milliseconds()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    from harness import parse, print_table, write_results

    options = parse(__doc__, arguments, repetitions=15)
    sizes = (2, 7, 1) if options.quick else (28, 360, options.repetitions)
    rows: list[dict[str, Any]] = []
    for part in ("direct", "buffer"):
        for lengths in ("equal", "unequal"):
            command = [sys.executable, __file__, "--child", part, lengths, *map(str, sizes)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            before, after = json.loads(done.stdout.splitlines()[-1])
            rows.append({"part": part, "lengths": lengths, "given back": before, "kept": after})
    print_table(
        f"Gradient of {sizes[0]} people by what becomes of memory (milliseconds)",
        [*rows[0], "times faster"],
        [[*row.values(), row["given back"] / row["kept"]] for row in rows],
    )
    write_results("kept_memory", {"people": sizes[0], "trials": sizes[1], "rows": rows}, options.out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(*sys.argv[2:4], *map(int, sys.argv[4:7]))))
    else:
        main()
