"""Noise of the training gradient: what drawing each target's outcomes again takes away, and what hidden parameters add.

For the zoo's trained networks, whose mean gradient is near zero: the variance of the gradient over batches, summed over
all weights, and the time of a step's loss and gradient. "all parameters given" and "some hidden" are the two condition
masks of each data set in training; "outcome_samples" is the option of that name of `train`. Ratios are those to one
draw, in the same batches.

    python benchmarks/gradient_noise.py [--quick] [--out DIR] [--batches 60]
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from harness import parse, print_table, write_results

import ppl_buffer as pb
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import HELD_OUT, Tree, make_batch, map_arrays
from ppl_buffer.training.loss import Loss

CASES = {
    "ddm": (pb.simulators.DriftDiffusion(), BatchOptions(64, (8, 256), (0, 256))),
    "rlddm": (pb.simulators.RLDriftDiffusion(), BatchOptions(32, (40, 400))),
    "multisensory_rho1": (pb.simulators.MultisensoryCausalInference(1.0), BatchOptions(32, (16, 400), (0, 400))),
}
REDRAWS = (1, 4, 16)


def one_set(batch: Tree, index: int) -> Tree:
    """The batch with one of its condition masks alone."""
    kept = slice(index, index + 1)
    masks = {name: batch[name][:, kept] for name in ("conditioned", "visible") if name in batch}
    return {**batch, **masks}


def measure(name: str, batches: int, outcome_samples: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of one network: condition mask, outcome samples, variance, seconds."""
    simulator, settings = CASES[name]
    net = pb.load(name, backend="torch").requires_grad_(True)
    loss, rows = Loss(net), []
    for index, condition in enumerate(("all parameters given", "some hidden")):
        for count in outcome_samples:
            gradients, taken = [], 0.0
            for step in range(batches):
                # Of the held-out batches, since each has both condition masks.
                batch = make_batch(simulator, replace(settings, outcome_samples=count), 11, step, HELD_OUT)
                assert batch.data is not None
                data = one_set(map_arrays(torch.as_tensor, batch.data), index)
                net.zero_grad()
                start = time.perf_counter()
                loss(data).backward()
                taken += time.perf_counter() - start
                parts = [torch.zeros_like(x) if x.grad is None else x.grad for x in net.parameters()]
                gradients.append(torch.cat([x.flatten() for x in parts]))
            variance = float(torch.stack(gradients).var(0).sum())
            rows.append(
                {
                    "network": name,
                    "set": condition,
                    "outcome_samples": count,
                    "variance": variance,
                    "seconds": taken / batches,
                }
            )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse(__doc__, arguments, batches=60)
    rows: list[dict[str, Any]] = []
    for name in CASES:
        rows += measure(name, 2 if options.quick else options.batches, REDRAWS[:2] if options.quick else REDRAWS)
    for row in rows:
        one = next(x for x in rows if (x["network"], x["set"], x["outcome_samples"]) == (row["network"], row["set"], 1))
        row["variance ratio"], row["time ratio"] = row["variance"] / one["variance"], row["seconds"] / one["seconds"]
    print_table(
        "Variance of the gradient, summed over the weights", list(rows[0]), [list(row.values()) for row in rows]
    )
    write_results("gradient_noise", {"batches": options.batches, "rows": rows}, options.out)


if __name__ == "__main__":
    main()
