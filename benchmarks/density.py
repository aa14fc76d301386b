"""Time of a joint log density: one pass against K evaluations, one after another, in both backends.

One data set of K trials after a context of N points. The reference (`reencoding.py`) evaluates target k with the
context and the k - 1 pairs before it encoded as one context. All K are evaluated, none is extrapolated; in JAX, small
contexts are evaluated several together, since nothing has to be waited for.

    python benchmarks/density.py [--quick] [--out DIR] [--seconds 15]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import reencoding
from harness import (
    BACKENDS,
    bar,
    config_of,
    density_of,
    interleaved,
    normals,
    parse,
    print_bars,
    print_table,
    random_network,
    settled,
    to_backend,
    write_results,
)

# The cells with a bar: so many trials, whatever the context.
TRIALS, CONTEXT = 128, 64


def measure(backend: str, size: str, context: int, trials: int, seconds: float) -> dict[str, Any]:
    """Time one cell in one backend."""
    net = random_network(config_of(size), backend)
    known, x, y = (to_backend(net, array) for array in (normals(context, 2), normals(trials), normals(trials)))
    ways = {
        "one pass": settled(backend, density_of(net), known, x, y),
        "sequential": settled(backend, reencoding.conditionals(net), known, x, y),
    }
    answers = [float(np.asarray(to_numpy(way())).sum()) for way in ways.values()]
    times = interleaved(ways, repeats=9, warmup=1, seconds=seconds)
    one_pass, sequential = (times[name]["median"] for name in ways)
    return {
        "backend": backend,
        "size": size,
        "context": context,
        "trials": trials,
        "one_pass_seconds": one_pass,
        "sequential_seconds": sequential,
        "ratio": sequential / one_pass,
        # The numbers differ, and should: later trials are in a buffer here, in the context there.
        "log_densities": answers,
        "times": times,
    }


def to_numpy(array: Any) -> np.ndarray:
    """An array of either backend, from any device."""
    return np.asarray(array.cpu() if hasattr(array, "cpu") else array)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse(__doc__, arguments, seconds=15.0)
    cells = [("paper", n, k) for n in (CONTEXT, 256) for k in (16, TRIALS, 400)] + [("zoo", CONTEXT, TRIALS)]
    if options.quick:
        cells = [("tiny", 5, 7)]
    rows = [measure(backend, *cell, options.seconds) for cell in cells for backend in BACKENDS]
    print_table(
        "Joint log density of K trials, medians",
        ["size", "backend", "N", "K", "one pass (ms)", "sequential (ms)", "times faster"],
        [
            [*(row[key] for key in ("size", "backend", "context", "trials")), 1e3 * row["one_pass_seconds"],
             1e3 * row["sequential_seconds"], row["ratio"]]
            for row in rows
        ],
    )  # fmt: skip
    bars = [
        bar(
            f"one-pass over sequential density, K={row['trials']}, N={row['context']}, {row['backend']}, "
            f"{row['size']}'s size",
            row["ratio"],
            least=30,
        )
        for row in rows
        if options.quick or row["trials"] == TRIALS
    ]
    print_bars(bars)
    write_results("density", {"cells": rows, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
