"""Time of one gradient of the log density with respect to people's parameters: observed once against in full.

Of the buffered transformer; `likelihood_gradient.py` sets the direct likelihood beside it. Three ways to the same
numbers, interleaved in one run, in both backends:

- in full: everything is computed each time, padded to the longest person;
- observed: ``net.observe`` has computed what the parameters do not change;
- observed, no groups: the same without putting people of similar length together.

First with the shipped network on the 28 people of the probabilistic selection task (113 to 360 trials; simulated people
of the same lengths where the data are absent), in JAX. Then with random weights of the paper's size and of the zoo's:
one person, 28 people with as many trials each, and 28 people whose numbers of trials are spread as those of the data,
the longest having K.

    python benchmarks/gradient.py [--quick] [--out DIR] [--checkpoint noisy_q] [--repetitions 15]
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from harness import (
    BACKENDS,
    bar,
    config_of,
    interleaved,
    joint_predictive,
    parse,
    print_bars,
    print_table,
    random_network,
    to_backend,
    write_results,
)

import ppl_buffer as pb
from ppl_buffer.datasets import selection_task

# Trials of the 28 people, for the case that their data are absent.
LENGTHS = [113, 119, *[120] * 11, 179, *[180] * 5, 238, *[240] * 3, 274, 338, 359, 360, 360]
PARAMS = {"alpha": 0.2, "beta": 3.0, "kappa": 0.1, "zeta": 0.2}


@dataclasses.dataclass
class People:
    """Inputs, choices, feedback and trial mask of some people, and where they come from."""

    inputs: dict[str, np.ndarray]
    choice: np.ndarray
    feedback: dict[str, np.ndarray]
    mask: np.ndarray
    source: str


def simulated(lengths: Sequence[int]) -> People:
    """People who did so many trials."""
    simulator, rng = pb.simulators.NoisyQ(), np.random.default_rng(0)
    inputs = simulator.inputs(rng, len(lengths), max(lengths))
    outcomes = simulator.simulate(rng, simulator.prior(rng, len(lengths)), inputs)
    mask = np.arange(max(lengths)) < np.asarray(lengths)[:, None]
    return People(inputs, outcomes["choice"], {"reward": outcomes["reward"]}, mask, "simulated")


def task_subjects() -> People:
    """The people of the selection task, or simulated ones."""
    try:
        data = selection_task()
    except (OSError, ValueError, ImportError):
        return simulated(LENGTHS)
    task = "probabilistic selection task"
    return People(data.inputs, data.outcomes["choice"], data.feedback, data.trial_mask, task)


def spread(trials: int) -> list[int]:
    """Numbers of trials spread as those of the 28 people, the longest `trials`."""
    return [round(length * trials / max(LENGTHS)) for length in LENGTHS]


def gradients(net: Any, data: People) -> dict[str, Callable[[], tuple[Any, dict[str, Any]]]]:
    """The three ways: name -> function that returns the log density and its gradient, when they are computed."""
    distribution = joint_predictive(net.backend)
    arrays = to_backend(
        net,
        {"inputs": data.inputs, "value": data.choice.astype(np.float32), "feedback": data.feedback, "mask": data.mask},
    )
    theta = to_backend(net, {name: np.full(len(data.choice), x, np.float32) for name, x in PARAMS.items()})
    given = {"feedback": arrays["feedback"], "trial_mask": arrays["mask"]}
    grouped = net.observe(arrays["inputs"], arrays["value"], **given, likelihood="buffer")
    padded = dataclasses.replace(grouped, groups=None)

    def full(theta: Any, data: Any) -> Any:
        arguments = {
            "params": theta,
            "feedback": data["feedback"],
            "trial_mask": data["mask"],
            "validate_args": False,
            "likelihood": "buffer",
        }
        return distribution(net, data["inputs"], **arguments).log_prob(data["value"]).sum()

    def observed(theta: Any, data: Any) -> Any:
        arguments = {"params": theta, "validate_args": False, "likelihood": "buffer"}
        return distribution(net, data, **arguments).log_prob(data.value).sum()

    ways = {"in full": (full, arrays), "observed": (observed, grouped), "observed, no groups": (observed, padded)}
    if grouped.groups is None:
        del ways["observed, no groups"]
    maker = _jax_gradient if net.backend == "jax" else _torch_gradient
    return {name: maker(function, theta, given) for name, (function, given) in ways.items()}


def _jax_gradient(function: Callable[..., Any], theta: Any, data: Any) -> Callable[[], Any]:
    import jax

    # Data are arguments, not constants: the compiler must not compute ahead what is to be measured.
    compiled = jax.jit(jax.value_and_grad(function))
    return lambda: jax.block_until_ready(compiled(theta, data))


def _torch_gradient(function: Callable[..., Any], theta: Any, data: Any) -> Callable[[], Any]:
    import torch

    def call() -> Any:
        leaves = {name: x.clone().requires_grad_() for name, x in theta.items()}
        value = function(leaves, data)
        slopes = torch.autograd.grad(value, list(leaves.values()))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return value, dict(zip(leaves, slopes, strict=True))

    return call


def measure(net: Any, data: People, repetitions: int, seconds: float) -> dict[str, Any]:
    """Time the three ways, and compare what they compute."""
    ways = gradients(net, data)
    compile_seconds, answers = {}, {}
    for name, way in ways.items():
        start = time.perf_counter()
        answers[name] = way()[1]
        compile_seconds[name] = time.perf_counter() - start
    error = max(float(abs(answers[name][key] - answers["in full"][key]).max()) for name in ways for key in PARAMS)
    times = interleaved(ways, repetitions, seconds=seconds)
    return {
        "people": len(data.choice),
        "data": data.source,
        "longest": data.mask.shape[1],
        "seconds": times,
        "first_call_seconds": compile_seconds,
        "observed_over_full": times["in full"]["median"] / times["observed"]["median"],
        "largest_gradient_difference": error,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse(__doc__, arguments, checkpoint="noisy_q", repetitions=15)
    net = pb.load(options.checkpoint, backend="jax")
    data = simulated([7, 5]) if options.quick else task_subjects()
    shipped = measure(net, data, options.repetitions, 60.0)
    rows = [{"network": options.checkpoint, "backend": "jax", "lengths": "as they are", **shipped}]
    cases: list[tuple[str, list[int]]] = []
    for trials in (120, 400):
        cases += [("alike", [trials]), ("alike", [trials] * 28), ("spread", spread(trials))]
    if options.quick:
        cases = [("alike", [5]), ("spread", [3, 7, 2, 7])]
    for size in ("tiny",) if options.quick else ("paper", "zoo"):
        for backend in BACKENDS:
            random = random_network(config_of(size), backend, net.schema)
            for kind, lengths in cases:
                measured = measure(random, simulated(lengths), 2 if options.quick else 7, 10.0)
                rows.append({"network": f"{size}'s size", "backend": backend, "lengths": kind, **measured})
                print(f"{backend} {size} {kind} {len(lengths)}: {measured['observed_over_full']:.1f} times", flush=True)
    print_table(
        "Gradient of the log density with respect to the parameters",
        ["network", "backend", "people", "K", "lengths", "way", "milliseconds", "times faster", "first call (s)"],
        [
            [row["network"], row["backend"], row["people"], row["longest"], row["lengths"], name,
             1e3 * taken["median"], row["seconds"]["in full"]["median"] / taken["median"],
             row["first_call_seconds"][name]]
            for row in rows
            for name, taken in row["seconds"].items()
        ],
    )  # fmt: skip
    largest = max(row["largest_gradient_difference"] for row in rows)
    print(f"largest difference of a gradient: {largest:.1e}")
    bars = [bar(f"gradient, observed over full, {options.checkpoint}, jax", shipped["observed_over_full"], least=4)]
    for row in rows[1:]:
        if options.quick or (row["people"] == 28 and row["longest"] == 400):
            what = f"{row['people']} people, K={row['longest']}, lengths {row['lengths']}, {row['backend']}"
            what = f"gradient, observed over full, {what}, {row['network']}"
            bars.append(bar(what, row["observed_over_full"], least=6))
    print_bars(bars)
    # The shipped network's figures stand at the top: its card is written from them.
    write_results(
        "gradient", {**shipped, "checkpoint": options.checkpoint, "cells": rows, "bar": 4.0, "bars": bars}, options.out
    )


if __name__ == "__main__":
    main()
