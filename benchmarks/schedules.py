"""A gradient of shipped networks by the order in which XLA computes, each order in a process of its own, JAX.

By default XLA orders a program's operations so that many can run at once; in the other order, which its flag
``xla_cpu_enable_concurrency_optimized_scheduler`` chooses, what was just computed is used next, while it is in the
processor's cache. The flag is read when JAX starts, so that the package cannot set it for a user.

People with 360 trials each, and as many trials as those of the probabilistic selection task have (113 to 360): direct
likelihood and buffered transformer, observed, milliseconds.

    python benchmarks/schedules.py [--quick] [--out DIR] [--repetitions 9]
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

FLAG = "--xla_cpu_enable_concurrency_optimized_scheduler"
ORDERS = {"many at once": "true", "one after another": "false"}
NAMES = ("noisy_q", "rlddm")


def measure(people: int, trials: int, repetitions: int) -> dict[str, float]:
    """Milliseconds of each network, part and set of people in this process."""
    import likelihood_gradient
    from gradient import LENGTHS
    from harness import interleaved, likelihoods

    import ppl_buffer as pb

    ways = {}
    for name in NAMES:
        net = pb.load(name, backend="jax")
        for part in likelihoods(net):
            for lengths, kind in ((None, "equal"), (LENGTHS[:people], "unequal")):
                longest = trials if lengths is None else max(lengths)
                study = likelihood_gradient.study(net, part, people, longest, lengths)
                ways[f"{name}, {part}, {kind}"] = likelihood_gradient.gradient_of(net, part, *study)
    times = interleaved(ways, repetitions, seconds=60.0, in_a_row=likelihood_gradient.IN_A_ROW)
    return {way: 1e3 * taken["median"] for way, taken in times.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure in both orders, print and write."""
    from harness import in_own_process, parse, print_table, write_results

    options = parse(__doc__, arguments, repetitions=9)
    sizes = (2, 7, 1) if options.quick else (28, 360, options.repetitions)
    measured: dict[str, Any] = {}
    for order, value in ORDERS.items():
        flags = f"{os.environ.get('XLA_FLAGS', '')} {FLAG}={value}"
        with patch.dict(os.environ, {"XLA_FLAGS": flags}):
            measured[order] = in_own_process("schedules.py", "--child", *sizes)
    first, second = measured.values()
    print_table(
        f"Gradient of {sizes[0]} people by the order of XLA's operations (milliseconds)",
        ["network, part, trials", *ORDERS, "times faster"],
        [[way, first[way], second[way], first[way] / second[way]] for way in first],
    )
    write_results("schedules", {"people": sizes[0], "trials": sizes[1], "milliseconds": measured}, options.out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(*map(int, sys.argv[2:5]))))
    else:
        main()
