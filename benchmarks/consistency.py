"""How much the joint density of a shipped network of exchangeable trials depends on their order: one number a card.

Data sets of the network's own recipe, no parameter given, some trials of each as a context: the divergence of single
orders from the mixture over 32 orders (`ppl_buffer.diagnostics.consistency`), of simulated data sets and of such as are
drawn from the mixture.

    python benchmarks/consistency.py [--name gp] [--quick] [--out DIR]
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from harness import parse, print_table, training_steps, write_results

import ppl_buffer as pb
from ppl_buffer.diagnostics import consistency
from ppl_buffer.diagnostics.simulations import simulate_legal
from ppl_buffer.training.draws import draw_params
from ppl_buffer.workflow.cli.simulators import simulator_of

SEED, DATA_SETS, TRIALS, CONTEXT, ORDERS = 37, 64, 64, 16, 32


def measure(name: str, sets: int, trials: int, context: int, orders: int) -> dict[str, Any]:
    """The figures of a network of the zoo."""
    net, rng = pb.load(name, backend="torch"), np.random.default_rng(SEED)
    simulator = simulator_of(net)
    if simulator is None or net.schema.ordered:
        raise ValueError(f"name: expected a network of the zoo whose trials are exchangeable, got {name!r}")
    assert net.record is not None
    trials = min(trials, net.record.trials)
    _, data, _ = simulate_legal(simulator, rng, sets, context + trials, partial(draw_params, simulator))
    data = {key: np.asarray(x, np.float32) for key, x in data.items()}
    columns = [data[key][:, context:] for key in net.schema.outcomes]
    given = {
        "inputs": {key: data[key][:, context:] for key in net.schema.inputs},
        "context": {key: data[key][:, :context] for key in (*net.schema.inputs, *net.schema.outcomes)},
    }
    figures = {}
    for way, value in (("simulated", columns[0] if len(columns) == 1 else np.stack(columns, -1)), ("drawn", None)):
        result = consistency(net, value=value, orders=orders, seed=SEED, trials=trials, **given)
        figures[way] = {
            "divergence": result.divergence, "standard_error": result.standard_error, "spread": result.spread,
        }  # fmt: skip
    sizes = {"datasets": sets, "trials": trials, "context": context, "orders": orders}
    return {"checkpoint": name, "training_steps": training_steps(net), **sizes, "figures": figures}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    options = parse(__doc__, arguments, name="gp")
    sizes = (4, 5, 3, 3) if options.quick else (DATA_SETS, TRIALS, CONTEXT, ORDERS)
    results = measure(options.name, *sizes)
    rows = [[way, *row.values()] for way, row in results["figures"].items()]
    title = f"{options.name}: one order against {results['orders']}, nats a trial of {results['trials']}"
    print_table(title, ["data sets", "divergence", "its error", "spread over orders"], rows)
    write_results(f"{options.name}_consistency", results, options.out)


if __name__ == "__main__":
    main()
