"""Share of the machine's float32 matrix-product rate of rollout, joint density and gradient, in both backends.

The gradient is that by people's parameters, of observed trials, with the schema of `noisy_q`: of one person with 120
trials, and of 28 with as many as those of the probabilistic selection task (113 to 360; padding is not counted).

The operations counted are those that the algorithm needs and no others (`flops.py`). The rate is that of the product
of two 2048 x 2048 matrices, timed in turn with the rest, of the backend whose product is faster.

    python benchmarks/efficiency.py [--quick] [--out DIR] [--seconds 15]
"""

from __future__ import annotations

from collections.abc import Sequence

import flops
from gradient import LENGTHS, gradients, simulated
from harness import (
    BACKENDS,
    FUNCTION,
    bar,
    config_of,
    density_of,
    draws_of,
    interleaved,
    matrix_product,
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

from ppl_buffer.simulators import NoisyQ

# The shares that are aimed at; of the gradient the more, the more people there are.
LEAST = {"rollout": 0.35, "log_prob": 0.35, "gradient, 1 person": 0.2, "gradient, 28 people": 0.3}
# Trials of each person whose gradient is computed.
PEOPLE = {"gradient, 1 person": [120], "gradient, 28 people": LENGTHS}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse(__doc__, arguments, seconds=15.0)
    size = 64 if options.quick else 2048
    context, trials, draws = (16, 3, 7) if options.quick else (1024, 16, 256)
    scored, sets = (11, 3) if options.quick else (400, 64)
    measured, products, schema = [], {}, NoisyQ().schema
    for name in ("tiny",) if options.quick else ("paper", "zoo"):
        config = config_of(name)
        for backend in BACKENDS:
            net = random_network(config, backend)
            known, x, noise, inputs, value = (
                to_backend(net, array)
                for array in (
                    normals(context, 2), normals(trials), uniforms(draws, trials, 3), normals(sets, scored),
                    normals(sets, scored),
                )
            )  # fmt: skip
            ways = {
                "product": matrix_product(backend, size),
                "rollout": settled(backend, draws_of(net), known, x, noise),
                "log_prob": settled(backend, density_of(net), None, inputs, value),
            }
            times = interleaved(ways, repeats=9, seconds=options.seconds)
            learner = random_network(config, backend, schema)
            cases = {"gradient, 1 person": [7], "gradient, 28 people": [5, 7]} if options.quick else PEOPLE
            slopes = {way: gradients(learner, simulated(lengths))["observed"] for way, lengths in cases.items()}
            # A sampler calls nothing else.
            times |= interleaved(slopes, repeats=9, seconds=options.seconds, in_a_row=5)
            needed = {
                "rollout": flops.rollout(config, FUNCTION, context, trials, draws),
                "log_prob": sets * flops.decode(config, FUNCTION, 0, scored),
                **{
                    way: sum(flops.observed_gradient(config, schema, each) for each in lengths)
                    for way, lengths in cases.items()
                },
            }
            products[f"{backend}, {name}"] = 2 * size**3 / times["product"]["median"]
            for way, count in needed.items():
                seconds = times[way]["median"]
                measured.append(
                    {"size": name, "backend": backend, "way": way, "flops": count, "seconds": seconds,
                     "flops_per_second": count / seconds}
                )  # fmt: skip
    rate = max(products.values())
    for row in measured:
        row["share"] = row["flops_per_second"] / rate
    print_table(
        f"Efficiency: rollout N={context}, K={trials}, S={draws}; log_prob of {sets} data sets, K={scored}; "
        f"matrix product {rate / 1e9:.4g} GFLOP/s",
        ["size", "backend", "what", "GFLOP", "seconds", "GFLOP/s", "share (%)"],
        [
            [row["size"], row["backend"], row["way"], row["flops"] / 1e9, row["seconds"],
             row["flops_per_second"] / 1e9, 100 * row["share"]]
            for row in measured
        ],
    )  # fmt: skip
    bars = [
        bar(f"share of the matrix-product rate, {row['way']}, {row['backend']}, {row['size']}'s size", row["share"],
            least=LEAST[row["way"]])
        for row in measured
    ]  # fmt: skip
    print_bars(bars)
    write_results("efficiency", {"matrix_products": products, "cells": measured, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
