"""Time of drawing dependent outcomes with trained networks: speculative rollout against rollout, in both backends.

Both draw from the same distribution, through `JointPredictive.sample`. Draws of smooth functions start from a context
of N points that is encoded beforehand; those of a learner from nothing, with an environment that pays for its choices.
Data sets and seeds change from call to call, since the number of passes depends on them. The table also says how many
drafts were accepted, and in how many passes all were settled, on the average.

    python benchmarks/speculative.py [--quick] [--out DIR] [--gp gp] [--learner noisy_q]
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
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
    settled,
    to_backend,
    write_results,
)

import ppl_buffer as pb

# N, K, S of the smooth functions; the first has a bar.
FUNCTIONS = [(1024, 64, 1), (1024, 16, 1), (64, 64, 1), (16, 64, 1), (1024, 64, 8), (1024, 64, 64)]
# K, S of the learner.
LEARNERS = [(120, 1), (120, 8)]
SETS = 5
BAR = 2.0


def functions(net: Any, context: int, trials: int) -> list[Any]:
    """Distributions of K points of a smooth function given N others, one a data set."""
    simulator, rng = pb.simulators.GaussianProcess(), np.random.default_rng(0)
    x = simulator.inputs(rng, SETS, context + trials)
    y = simulator.simulate(rng, simulator.prior(rng, SETS), x)["y"].astype(np.float32)
    x = x["x"].astype(np.float32)
    joints = []
    for places, values in zip(x, y, strict=True):
        encoded = net.encode(to_backend(net, {"x": places[:context], "y": values[:context]}))
        joints.append(joint_predictive(net.backend)(net, to_backend(net, {"x": places[context:]}), context=encoded))
    return joints


def reward(trial: Any, inputs: Any, outcomes: Any, uniform: Any) -> dict[str, Any]:
    """One option of each pair pays in four of five trials, the other in one of five."""
    return {"reward": 1.0 * (uniform[..., 0] < 0.2 + 0.6 * outcomes["choice"])}


def learners(net: Any, trials: int) -> list[Any]:
    """Distributions of a learner's choices, one a set of parameters from the prior."""
    simulator, rng = pb.simulators.NoisyQ(), np.random.default_rng(0)
    params, inputs = simulator.prior(rng, SETS), simulator.inputs(rng, SETS, trials)
    joints = []
    for index in range(SETS):
        learner = to_backend(net, {name: np.float32(x[index]) for name, x in params.items()})
        shown = to_backend(net, {name: x[index].astype(np.float32) for name, x in inputs.items()})
        joint = joint_predictive(net.backend)
        # The direct likelihood would draw them one by one: it has nothing to speculate with.
        joints.append(joint(net, shown, params=learner, environment=reward, outside="ignore", likelihood="buffer"))
    return joints


def measure(backend: str, joints: list[Any], draws: int, repeats: int) -> dict[str, Any]:
    """Time both ways of drawing, and count accepted drafts and passes."""

    def call(verb: str, *arguments: Any, **more: Any) -> Callable[[], Any]:
        calls = itertools.count()

        def one() -> Any:
            seed = next(calls)
            function = getattr(joints[seed % len(joints)], verb)
            if backend == "jax":
                import jax

                return function(jax.random.PRNGKey(seed), *arguments, **more)
            import torch

            torch.manual_seed(seed)
            return function(*arguments, **more)

        return settled(backend, one)

    times = interleaved(
        {
            "rollout": call("sample", (draws,)),
            "speculative": call("sample", (draws,), method="speculative"),
        },
        repeats,
        seconds=60,
    )
    speculate = call("speculate", (draws,))
    runs = [speculate() for _ in range(repeats)]
    seconds = {name: taken["median"] for name, taken in times.items()}
    return {
        "seconds": times,
        "times_faster": seconds["rollout"] / seconds["speculative"],
        "acceptance_rate": float(np.mean([x.acceptance_rate for x in runs])),
        "passes": float(np.mean([x.passes for x in runs])),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse(__doc__, arguments, gp="gp", learner="noisy_q")
    repeats = 2 if options.quick else 20
    cells: list[tuple[str, int | None, int, int]] = [("function", *cell) for cell in FUNCTIONS]
    cells += [("learner", None, *cell) for cell in LEARNERS]
    if options.quick:
        cells = [("function", 16, 5, 1), ("learner", None, 7, 2)]
    results, rows, bars = [], [], []
    for backend in BACKENDS:
        nets = {"function": pb.load(options.gp, backend=backend), "learner": pb.load(options.learner, backend=backend)}
        for kind, context, trials, draws in cells:
            net = nets[kind]
            joints = learners(net, trials) if context is None else functions(net, context, trials)
            measured = measure(backend, joints, draws, repeats)
            results.append(
                {"backend": backend, "kind": kind, "context": context, "trials": trials, "draws": draws, **measured}
            )
            seconds = {name: 1e3 * taken["median"] for name, taken in measured["seconds"].items()}
            rows.append(
                [backend, kind, context, trials, draws, seconds["rollout"], seconds["speculative"]]
                + [measured["times_faster"], measured["acceptance_rate"], measured["passes"]]
            )
            if (kind, context, trials, draws) == cells[0]:
                what = f"{backend}: speculative over plain rollout, N={context}, K={trials}, S={draws}"
                bars.append(bar(what, measured["times_faster"], least=BAR))
    print_table(
        "Drawing by speculative rollout",
        ["backend", "network", "N", "K", "S", "rollout (ms)", "speculative (ms)", "times faster", "accepted", "passes"],
        rows,
    )
    print_bars(bars)
    write_results(
        "speculative", {"gp": options.gp, "learner": options.learner, "cells": results, "bars": bars}, options.out
    )


if __name__ == "__main__":
    main()
