"""Time of one gradient of the log density with respect to parameters: direct likelihood against buffered transformer.

Of the shipped networks that have both, in JAX, in turns of several calls in one run: data as a study has them, observed
once (``net.observe``), all parameters given. Elapsed and processor time (of all cores together), and how long the first
call takes, compilation included. Beside it the direct likelihood in torch, as Pyro calls it; bar: at most twice the
processor time of JAX for 28 people.

Of learners also, in JAX, for 28 people with as many trials as those of the probabilistic selection task (113 to 360),
as `net.observe` lays them out and all padded to the longest; bar: 1.5 times faster.

    python benchmarks/likelihood_gradient.py [NAME ...] [--quick] [--out DIR]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import jax
import numpy as np
import torch
from gradient import LENGTHS

import ppl_buffer as pb
import ppl_buffer.pyro
from ppl_buffer.numpyro import JointPredictive
from ppl_buffer.schema import stack_value
from ppl_buffer.simulator import simulate_keywords
from ppl_buffer.workflow.cli.simulators import simulator_of

# Calls of a way in its turn, after one that is not timed: a sampler calls one way alone.
IN_A_ROW = 5
# People, and trials of each.
SIZES = {
    "noisy_q": (28, 360),
    "rlddm": (28, 360),
    "ddm": (14, 300),
    "collapsing_ddm": (14, 300),
    "multisensory_rho1": (15, 400),
    "multisensory_rho43": (15, 400),
}


def study(
    net: Any, way: str, subjects: int, trials: int, lengths: Sequence[int] | None = None
) -> tuple[dict[str, np.ndarray], Any]:
    """Parameters that the simulator's prior draws, and the trials that they make, all or so many of each, observed."""
    simulator, rng = simulator_of(net), np.random.default_rng(0)
    assert simulator is not None
    params = {name: np.asarray(x, np.float32) for name, x in simulator.prior(rng, subjects).items()}
    inputs = simulator.inputs(rng, subjects, trials)
    data = simulator.simulate(
        rng, params, inputs, **simulate_keywords(simulator.simulate, net.schema, subjects, trials)
    )
    feedback = {name: np.asarray(data[name], np.float32) for name in net.schema.feedback}
    value = np.asarray(stack_value(np, net.schema, data), np.float32)
    given: dict[str, Any] = {"feedback": feedback} if feedback else {}
    if lengths is not None:
        given["trial_mask"] = np.arange(trials) < np.asarray(lengths)[:, None]
    return params, net.observe(inputs, value, **given, likelihood=way)


def gradient_of(net: Any, way: str, params: dict[str, np.ndarray], seen: Any) -> Callable[[], Any]:
    """A function that computes the gradient in JAX."""

    def total(theta: Any, observed: Any) -> Any:
        joint = JointPredictive(net, observed, params=theta, validate_args=False, outside="ignore", likelihood=way)
        return joint.log_prob(observed.value).sum()

    compiled = jax.jit(jax.value_and_grad(total))
    return lambda: jax.block_until_ready(compiled(params, seen))


def gradient_in_torch(net: Any, values: dict[str, np.ndarray], seen: Any) -> Callable[[], Any]:
    """A function that computes the gradient of the direct likelihood in torch."""
    params = {name: torch.as_tensor(x).requires_grad_() for name, x in values.items()}

    def gradient() -> Any:
        joint = ppl_buffer.pyro.JointPredictive(
            net, seen, params=params, validate_args=False, outside="ignore", likelihood="direct"
        )
        return torch.autograd.grad(joint.log_prob(seen.value).sum(), list(params.values()))

    return gradient


def unequal(net: Any, repetitions: int, quick: bool) -> dict[str, Any]:
    """Milliseconds of the direct likelihood of people with different numbers of trials, laid out and padded."""
    lengths = [3, 7, 2, 7, 3] if quick else LENGTHS
    params, seen = study(net, "direct", len(lengths), max(lengths), lengths)
    layouts = {"laid out": seen, "padded": replace(seen, groups=None)}
    functions = {layout: gradient_of(net, "direct", params, data) for layout, data in layouts.items()}
    times = harness.interleaved(functions, repetitions, seconds=15.0, in_a_row=IN_A_ROW)
    milliseconds = {layout: 1e3 * taken["median"] for layout, taken in times.items()}
    return {
        "people": len(lengths),
        "trials": sum(lengths),
        "milliseconds": milliseconds,
        "times_faster": milliseconds["padded"] / milliseconds["laid out"],
    }


def measure(name: str, repetitions: int, quick: bool) -> dict[str, Any] | None:
    """Seconds of each way; None for a network that has one part alone."""
    net = pb.load(name, backend="jax")
    ways = harness.likelihoods(net)
    if len(ways) < 2:
        return None
    subjects, trials = (2, 7) if quick else SIZES[name]
    in_torch = pb.load(name, backend="torch")
    functions = {way: gradient_of(net, way, *study(net, way, subjects, trials)) for way in ways}
    functions["torch"] = gradient_in_torch(in_torch, *study(in_torch, "direct", subjects, trials))
    first = {}
    for way, function in functions.items():
        begun = time.perf_counter()
        function()
        first[way] = time.perf_counter() - begun
    times = harness.interleaved(functions, repetitions, seconds=30.0, in_a_row=IN_A_ROW)
    ratio = times["torch"]["processor"] / times["direct"]["processor"]
    bars = [harness.bar(f"{name}: processor time in torch over JAX", ratio, most=2.0)] if subjects == 28 else []
    lengths = unequal(net, repetitions, quick) if net.schema.ordered else None
    if lengths is not None:
        bars.append(harness.bar(f"{name}: unequal lengths, padded over laid out", lengths["times_faster"], least=1.5))
    return {
        "people": subjects,
        "trials": trials,
        "milliseconds": {way: 1e3 * times[way]["median"] for way in ways},
        "processor_milliseconds": {way: 1e3 * times[way]["processor"] for way in ways},
        "first_call_seconds": first,
        "times_faster": times["buffer"]["median"] / times["direct"]["median"],
        "times_less_processor": times["buffer"]["processor"] / times["direct"]["processor"],
        "torch_milliseconds": {kind: 1e3 * times["torch"][kind] for kind in ("median", "processor")},
        "torch_over_jax": ratio,
        "unequal_lengths": lengths,
        "bars": bars,
        "training_steps": harness.training_steps(net),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(SIZES), help=f"among {', '.join(SIZES)}; all by default")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="few people and trials; nothing is written")
    parser.add_argument("--out", type=Path, default=harness.RESULTS)
    options = parser.parse_args()
    measured = {name: measure(name, options.repetitions, options.quick) for name in options.names}
    figures = {name: row for name, row in measured.items() if row is not None}
    harness.print_table(
        "Gradient of the log density with respect to the parameters, observed, in JAX (milliseconds)",
        ["network", "people", "trials", "direct", "buffered", "times faster", "processor, direct", "buffered",
         "times less", "first call, direct (s)", "buffered (s)", "torch, direct", "processor"],
        [
            [name, x["people"], x["trials"], *(x["milliseconds"][way] for way in ("direct", "buffer")),
             x["times_faster"], *(x["processor_milliseconds"][way] for way in ("direct", "buffer")),
             x["times_less_processor"], *(x["first_call_seconds"][way] for way in ("direct", "buffer")),
             *x["torch_milliseconds"].values()]
            for name, x in figures.items()
        ],
    )  # fmt: skip
    layouts = {name: row["unequal_lengths"] for name, row in figures.items() if row["unequal_lengths"] is not None}
    if layouts:
        harness.print_table(
            "The same of people with different numbers of trials, direct likelihood, JAX (milliseconds)",
            ["network", "people", "trials", "laid out", "padded", "times faster"],
            [
                [name, x["people"], x["trials"], *x["milliseconds"].values(), x["times_faster"]]
                for name, x in layouts.items()
            ],
        )
    harness.print_bars([bar for row in figures.values() for bar in row["bars"]])
    for name, row in figures.items() if not options.quick else ():
        harness.write_results(f"{name}_gradient", row, options.out)


if __name__ == "__main__":
    main()
