"""Posterior predictive simulation in one call against the sum of its rollouts, in both backends.

People as in the selection task (28, of 120 to 360 trials) are simulated again under posterior draws by the shipped
`noisy_q`: once by `ppl_buffer.posterior_predictive`, once by a rollout of each person alone, all of its draws at once
and at its own length. What the call adds is chunks, noise from streams of its own, padding to common lengths and the
results' arrays.

A thousand draws take minutes: with `--repeats 1` each way runs once, its compilation included.

    python benchmarks/posterior_predictive.py [--quick] [--out DIR] [--draws 1000] [--repeats 3]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import (
    BACKENDS,
    bar,
    interleaved,
    joint_predictive,
    parse,
    print_bars,
    print_table,
    to_backend,
    write_results,
)

import ppl_buffer as pb
from ppl_buffer.predictive import sampling

LENGTHS = np.repeat([120, 180, 240, 360], [13, 6, 4, 5])
BAR = 1.5


def rollouts(net: Any, task: Any, inputs: dict[str, np.ndarray], params: dict[str, np.ndarray], lengths: Any) -> None:
    """A rollout of each person alone."""
    rng = np.random.default_rng(0)
    for person, length in enumerate(lengths):
        given = to_backend(net, {name: x[person, :length].astype(np.float32) for name, x in inputs.items()})
        own = to_backend(net, {name: x[:, person] for name, x in params.items()})
        joint = joint_predictive(net.backend)(net, given, params=own, environment=task.environment, outside="ignore")
        noise = rng.random(sampling.noise_shape(joint.query), dtype=np.float32) * 0.998 + 0.001
        value, *_ = sampling.rollout(joint.query, to_backend(net, noise))
        np.asarray(value)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse(__doc__, arguments, draws=1000, repeats=3)
    draws, lengths = (3, np.array([5, 7, 7])) if options.quick else (options.draws, LENGTHS)
    task, rng = pb.simulators.NoisyQ(), np.random.default_rng(1)
    inputs = task.inputs(rng, len(lengths), int(lengths.max()))
    mask = np.arange(lengths.max()) < lengths[:, None]
    params = task.prior(rng, draws * len(lengths))
    params = {name: x.reshape(draws, -1).astype(np.float32) for name, x in params.items()}
    rows, bars, results = [], [], []
    for backend in BACKENDS:
        net = pb.load("noisy_q", backend=backend)
        times = interleaved(
            {
                "one call": lambda net=net: pb.posterior_predictive(
                    net, inputs, params, trial_mask=mask, environment=task.environment, progress=False
                ),
                "sum of rollouts": lambda net=net: rollouts(net, task, inputs, params, lengths),
            },
            repeats=options.repeats,
            warmup=int(options.repeats > 1),
        )
        one, apart = (times[name]["median"] for name in ("one call", "sum of rollouts"))
        rows.append([backend, draws, len(lengths), one, apart, one / apart])
        results.append({"backend": backend, "draws": draws, "people": len(lengths), "seconds": times})
        print(rows[-1], flush=True)
        bars.append(bar(f"posterior predictive over the sum of its rollouts, {backend}", one / apart, most=BAR))
    columns = ["backend", "draws", "people", "one call (s)", "sum of rollouts (s)", "ratio"]
    print_table(f"Simulation of {int(lengths.sum())} trials a draw", columns, rows)
    print_bars(bars)
    write_results("posterior_predictive", {"times": results, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
