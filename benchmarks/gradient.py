"""Time of one gradient of the log density with respect to people's parameters: observed once against in full.

The data are the 28 people of the probabilistic selection task (113 to 360 trials; simulated people of the same lengths
where the data are absent). Three ways to the same numbers, interleaved in one run:

- in full: everything is computed each time, padded to the longest person;
- observed: ``net.observe`` has computed what the parameters do not change;
- observed, no groups: the same without putting people of similar length together.

    python benchmarks/gradient.py [--checkpoint noisy_q] [--repetitions 15]
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import interleaved, print_table, write_results

import ppl_buffer as pb
from ppl_buffer.datasets import selection_task
from ppl_buffer.numpyro import JointPredictive

# Trials of the 28 people, for the case that their data are absent.
LENGTHS = [113, 119, *[120] * 11, 179, *[180] * 5, 238, *[240] * 3, 274, 338, 359, 360, 360]


def people() -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray], np.ndarray, str]:
    """Inputs, choices, feedback and trial mask of 28 people, and where they come from."""
    try:
        data = selection_task()
    except (OSError, ValueError, ImportError):
        simulator, rng = pb.simulators.NoisyQ(), np.random.default_rng(0)
        inputs = simulator.inputs(rng, len(LENGTHS), max(LENGTHS))
        drawn = simulator.simulate(rng, simulator.prior(rng, len(LENGTHS)), inputs)
        mask = np.arange(max(LENGTHS)) < np.asarray(LENGTHS)[:, None]
        return inputs, drawn["choice"], {"reward": drawn["reward"]}, mask, "simulated"
    return data.inputs, data.outcomes["choice"], data.feedback, data.trial_mask, "probabilistic selection task"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="noisy_q", help="name in the zoo, or a path")
    parser.add_argument("--repetitions", type=int, default=15)
    options = parser.parse_args()
    net = pb.load(options.checkpoint, backend="jax")
    inputs, choice, feedback, mask, source = people()
    count = len(choice)
    params = {"alpha": 0.2, "beta": 3.0, "kappa": 0.1, "zeta": 0.2}
    theta = {name: jnp.full(count, value) for name, value in params.items()}
    arrays = jax.tree.map(jnp.asarray, (inputs, choice.astype(np.float32), feedback, mask))

    def full(theta: Any, inputs: Any, value: Any, feedback: Any, mask: Any) -> Any:
        joint = JointPredictive(net, inputs, params=theta, feedback=feedback, trial_mask=mask, validate_args=False)
        return joint.log_prob(value).sum()

    def observed(theta: Any, data: Any) -> Any:
        return JointPredictive(net, data, params=theta, validate_args=False).log_prob(data.value).sum()

    grouped = net.observe(arrays[0], arrays[1], feedback=arrays[2], trial_mask=arrays[3])
    padded = dataclasses.replace(grouped, groups=None)
    # Data are arguments, not constants: the compiler must not compute ahead what is to be measured.
    full_gradient = jax.jit(jax.value_and_grad(full))
    observed_gradient = jax.jit(jax.value_and_grad(observed))
    ways = {
        "in full": lambda: jax.block_until_ready(full_gradient(theta, *arrays)),
        "observed": lambda: jax.block_until_ready(observed_gradient(theta, grouped)),
        "observed, no groups": lambda: jax.block_until_ready(observed_gradient(theta, padded)),
    }
    compile_seconds, answers = {}, {}
    for name, way in ways.items():
        start = time.perf_counter()
        answers[name] = way()
        compile_seconds[name] = time.perf_counter() - start
    error = max(
        float(jnp.abs(answers[name][1][key] - answers["in full"][1][key]).max()) for name in ways for key in theta
    )
    times = interleaved(ways, options.repetitions)
    seconds = {name: taken["median"] for name, taken in times.items()}
    rows = [
        [name, 1e3 * seconds[name], seconds["in full"] / seconds[name], compile_seconds[name]] for name in ways
    ]
    print_table(
        f"Gradient of the log density, {count} people ({source}), padded to {mask.shape[1]} trials",
        ["way", "milliseconds", "times faster", "first call (s)"],
        rows,
    )
    print(f"largest difference of a gradient: {error:.1e}; bar: observed at least 4 times faster than in full")
    write_results(
        "gradient",
        {
            "people": count,
            "data": source,
            "checkpoint": options.checkpoint,
            "seconds": times,
            "first_call_seconds": compile_seconds,
            "observed_over_full": seconds["in full"] / seconds["observed"],
            "bar": 4.0,
            "largest_gradient_difference": error,
        },
    )


if __name__ == "__main__":
    main()
