"""Time and peak memory of drawing dependent outcomes: rollout against re-encoding at every step, in both backends.

The rollout encodes a context of N points once and lets S draws of K targets enter a buffer. The reference
(`reencoding.py`) encodes context and drawn pairs anew at every step. Both start from the raw context, use the same
weights and the same noise, and are timed in turn.

The largest cells of the reference take many minutes. Where the whole would take longer than --limit seconds, single
steps of some of its draws are timed at three context sizes (steps cost alike but for the size, draws are independent)
and added up; the table's column "reference" says of how many steps and draws. Memory is the highest resident memory of
a process of its own beside what it holds before: for the reference at its last step, with all draws as one batch, or
as many of them together as is fastest.

    python benchmarks/rollout.py [--quick] [--out DIR] [--limit 5]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flops
import reencoding
from harness import (
    BACKENDS,
    FUNCTION,
    bar,
    config_of,
    draws_of,
    in_own_process,
    interleaved,
    normals,
    parse,
    print_bars,
    print_table,
    random_network,
    settled,
    to_backend,
    uniforms,
    write_results,
)

# Size of the network, N, K, S.
Cell = tuple[str, int, int, int]
LARGE: Cell = ("paper", 1024, 16, 256)
SMALL: Cell = ("paper", 64, 16, 1)
MEGABYTE = 2**20


def cells(quick: bool) -> list[Cell]:
    """What is measured: all of the paper's size, the two cells with a bar at the zoo's size too."""
    if quick:
        return [("tiny", 5, 3, 2), ("tiny", 16, 3, 7)]
    grid = [("paper", n, k, s) for n in (64, 256, 1024) for k in (16, 64) for s in (1, 64, 256)]
    return [*grid, ("zoo", *SMALL[1:]), ("zoo", *LARGE[1:])]


def measure(backend: str, cell: Cell, limit: float) -> dict[str, Any]:
    """Time one cell in one backend."""
    size, context, trials, draws = cell
    config = config_of(size)
    net = random_network(config, backend)
    known, x, noise = (
        to_backend(net, array) for array in (normals(context, 2), normals(trials), uniforms(draws, trials, 3))
    )
    rollout = settled(backend, draws_of(net), known, x, noise)
    sizes = reencoding.step_sizes(backend, context, trials)
    # A few draws tell what a step of the largest context takes, and whether all can be afforded.
    part = min(draws, max(4, 4 * reencoding.draws_at_once(net, sizes[-1])))
    step = reencoding.one_step(net)

    def one(points: int, count: int) -> Any:
        pairs = to_backend(net, normals(count, points, 2))
        return settled(backend, step, pairs, to_backend(net, normals(count)), to_backend(net, uniforms(count, 2)))

    probe = interleaved({"step": one(sizes[-1], part)}, repeats=1, warmup=1)["step"]["median"] * draws / part
    whole = probe * trials <= limit
    if whole:
        reference = settled(backend, reencoding.rollout(net), known, x, noise[..., :2])
        times = interleaved({"rollout": rollout, "reference": reference}, repeats=9, seconds=4 * limit)
        seconds = times["reference"]["median"]
        how = "all"
    else:
        # Contexts of the steps are alike but for the pairs drawn so far.
        timed = sorted({sizes[1], sizes[len(sizes) // 2], sizes[-1]})
        ways = {"rollout": rollout, "shared": one(context, 1), **{str(n): one(n, part) for n in timed}}
        times = interleaved(ways, repeats=5, seconds=4 * limit)
        steps = {n: times[str(n)]["median"] * draws / part for n in timed}
        seconds = reencoding.estimate_rollout(sizes, steps, times["shared"]["median"])
        how = f"{len(timed)} of {trials} steps, {part} of {draws} draws"
    theory = flops.reencode(config, FUNCTION, context, trials, draws) / flops.rollout(
        config, FUNCTION, context, trials, draws
    )
    return {
        "backend": backend,
        "size": size,
        "context": context,
        "trials": trials,
        "draws": draws,
        "rollout_seconds": times["rollout"]["median"],
        "reference_seconds": seconds,
        "ratio": seconds / times["rollout"]["median"],
        "flop_ratio": theory,
        "reference_measured": how,
        "times": times,
    }


# Draws of the reference in one batch whose memory is measured. JAX keeps all scores: 256 draws take 14 GB.
LARGEST_BATCH = {"torch": 256, "jax": 64}


def measure_memory(backend: str, cell: Cell, largest: int) -> dict[str, Any]:
    """Peak memory of one cell; the reference's batch of all draws from `largest` of them where there are more."""
    size, context, trials, draws = cell

    def peak(way: str, count: int, at_once: int) -> int:
        return in_own_process("memory.py", backend, way, size, context, trials, count, at_once)

    part = min(draws, largest)
    batch = peak("reencoding", part, part)
    if part < draws:
        # What each further draw adds.
        half = peak("reencoding", part // 2, part // 2)
        batch += (batch - half) // (part - part // 2) * (draws - part)
    rollout = peak("rollout", draws, 0)
    return {
        "backend": backend,
        "size": size,
        "context": context,
        "trials": trials,
        "draws": draws,
        "rollout_bytes": rollout,
        "reference_bytes": batch,
        "reference_bytes_in_chunks": peak("reencoding", draws, 0),
        "ratio": batch / max(rollout, 1),
        "reference_measured": "all draws" if part == draws else f"from {part // 2} and {part} of {draws} draws",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse(__doc__, arguments, limit=5.0)
    rows, memory = [], []
    for cell in cells(options.quick):
        for backend in BACKENDS:
            rows.append(measure(backend, cell, options.limit))
            print(f"{backend} {cell}: {rows[-1]['ratio']:.1f} times", flush=True)
    print_table(
        "Rollout against re-encoding at every step, medians",
        ["size", "backend", "N", "K", "S", "rollout (s)", "reference (s)", "times faster", "by FLOPs", "reference"],
        [
            [
                row[key]
                for key in (
                    "size", "backend", "context", "trials", "draws", "rollout_seconds", "reference_seconds", "ratio",
                    "flop_ratio", "reference_measured",
                )
            ]
            for row in rows
        ],
    )  # fmt: skip
    memory_cells = cells(True)[:1] if options.quick else [LARGE, ("paper", 256, 16, 64)]
    for cell in memory_cells:
        for backend in BACKENDS:
            memory.append(measure_memory(backend, cell, 2 if options.quick else LARGEST_BATCH[backend]))
    print_table(
        "Peak memory (MB)",
        ["size", "backend", "N", "K", "S", "rollout", "reference", "ratio", "in chunks", "reference measured"],
        [
            [*(row[key] for key in ("size", "backend", "context", "trials", "draws")),
             *(row[key] / MEGABYTE for key in ("rollout_bytes", "reference_bytes")), row["ratio"],
             row["reference_bytes_in_chunks"] / MEGABYTE, row["reference_measured"]]
            for row in memory
        ],
    )  # fmt: skip
    bars = []
    for row in rows:
        cell = tuple(row[key] for key in ("size", "context", "trials", "draws"))
        named = f"rollout over re-encoding, N={cell[1]}, K={cell[2]}, S={cell[3]}, {row['backend']}, {cell[0]}'s size"
        for which, least in ((LARGE, 250), (SMALL, 5)):
            if cell[1:] == (cells(True)[which is LARGE] if options.quick else which)[1:]:
                bars.append(bar(named, row["ratio"], least=least))
    for row in memory[: len(BACKENDS)]:
        named = f"peak memory, re-encoding (all draws in one batch) over rollout, N={row['context']}, S={row['draws']}"
        bars.append(bar(f"{named}, {row['backend']}", row["ratio"], least=20))
    print_bars(bars)
    write_results("rollout", {"cells": rows, "memory": memory, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
