"""What `orders` and `block` buy, and what they cost: the shipped `gp` against the exact Gaussian process.

Functions at random places, the hyperparameters integrated out, 32 targets after a context of 16. The density of the
targets is averaged over 1, 8 or 32 orders of them, with all targets in one buffer, or with every 16, 4 or 1 of them
merged into the context and encoded anew. Divergence from the exact density in nats a target, with its standard error
over functions, and processor time.

    python benchmarks/orders_and_blocks.py [--quick] [--out DIR]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `tests.references`, which is not installed

from function_accuracy import Processes, Settings, draw, exact  # noqa: E402
from harness import bar, parse, print_bars, print_table, training_steps, write_results  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.predictive import density  # noqa: E402
from ppl_buffer.predictive.query import Query  # noqa: E402

CONTEXT, TARGETS, FUNCTIONS, SEED = 16, 32, 48, 13
ORDERS, BLOCKS = (1, 8, 32), (None, 16, 4, 1)


def by_order(net: Any, data: Any, orders: np.ndarray, block: int | None) -> np.ndarray:
    """Log density of the targets given the context, in each order: (orders, functions)."""
    x, y = (torch.as_tensor(array, dtype=torch.float32) for array in (data.x, data.y))
    before, after = slice(None, data.context), slice(data.context, None)
    query = Query.build(
        net, {"x": x[:, after]}, context={"x": x[:, before], "y": y[:, before]}, orders=orders, block=block
    )
    with torch.no_grad():
        return density.log_prob_by_order(query, y[:, after]).numpy().astype(float)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    options = parse(__doc__, arguments)
    torch.set_num_threads(1)
    functions, targets = (4, 6) if options.quick else (FUNCTIONS, TARGETS)
    net, processes = pb.load("gp", backend="torch"), Processes()
    settings = Settings(evidence_datasets=functions, targets=targets, seed=SEED)
    data = draw(processes, settings, CONTEXT, conditioned=False)
    truth, rng = exact(processes, data, conditioned=False), np.random.default_rng(SEED)
    orders = np.stack([rng.permutation(targets) for _ in range(ORDERS[-1])])
    rows: list[dict[str, Any]] = []
    for block in BLOCKS:
        begun = time.process_time()
        log_probs = by_order(net, data, orders, block)
        seconds = (time.process_time() - begun) / log_probs.size
        row: dict[str, Any] = {"block": "all" if block is None else str(block)}
        for count in ORDERS:
            mixed = np.logaddexp.reduce(log_probs[:count], axis=0) - np.log(count)
            gap = (truth - mixed) / targets
            row[f"KL, {count} orders"] = float(gap.mean())
            row[f"error, {count}"] = float(gap.std(ddof=1) / np.sqrt(functions))
        row["milliseconds an order"] = 1000 * seconds
        rows.append(row)
    print_table("Nats a target; time of one function in one order", list(rows[0]), [list(x.values()) for x in rows])
    one_pass, exactly = rows[0], rows[-1]
    what = "one buffer and 32 orders: divergence less that of re-encoding in one order"
    bars = [bar(what, one_pass["KL, 32 orders"] - exactly["KL, 1 orders"], most=0.0)]
    print_bars(bars)
    sizes = {"functions": functions, "targets": targets, "context": CONTEXT, "seed": SEED}
    results = {"checkpoint": "gp", "training_steps": training_steps(net), **sizes, "rows": rows, "bars": bars}
    write_results("orders_and_blocks", results, options.out)


if __name__ == "__main__":
    main()
