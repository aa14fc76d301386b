"""Time of one gradient where parameters vary by trial: `trial_params`, a data set a trial, a network of LAN size.

Of `ddm` in JAX, drift and boundary of each trial by a covariate: the gradient of the summed log density with respect to
all parameters, (people,) or (people, trials). Beside it that of a perceptron of the size of the likelihood
approximation networks (three layers of 100, 100 and 120, tanh; Fengler et al. 2021, eLife 10:e65074), which takes seven
numbers a trial and has random weights. In turns in one run, several calls in a row; processor time and elapsed.

    python benchmarks/trial_params.py [--quick] [--out DIR]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np

import ppl_buffer as pb
from ppl_buffer.numpyro import JointPredictive

SIZES = ((1, 200), (1, 4000), (14, 300))
LAYERS = (7, 100, 100, 120, 1)
IN_A_ROW, REPETITIONS = 10, 15
BY_TRIAL = ("drift", "boundary")


def data_of(subjects: int, trials: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Parameters of each of the people, parameters of each trial, and the outcomes."""
    simulator, rng = pb.simulators.DriftDiffusion(), np.random.default_rng(0)
    count = subjects * trials
    every = {name: np.asarray(x, np.float32) for name, x in simulator.prior(rng, count).items()}
    shared = {name: x[:subjects] for name, x in every.items() if name not in BY_TRIAL}
    by_trial = {name: every[name].reshape(subjects, trials) for name in BY_TRIAL}
    flat = {name: np.repeat(x, trials) for name, x in shared.items()} | {name: every[name] for name in BY_TRIAL}
    outcomes = simulator.simulate(rng, flat, {}, trials=1)
    value = np.stack([outcomes["choice"], outcomes["rt"]], -1).reshape(subjects, trials, 2)
    return shared, by_trial, value.astype(np.float32)


def ways(net: Any, subjects: int, trials: int) -> dict[str, Callable[[], Any]]:
    """What is timed: name -> a call."""
    shared, by_trial, value = data_of(subjects, trials)
    weights = [
        jax.random.normal(jax.random.PRNGKey(index), pair) / np.sqrt(pair[0])
        for index, pair in enumerate(zip(LAYERS[:-1], LAYERS[1:], strict=True))
    ]

    def spread(params: Any) -> Any:
        return {name: jnp.broadcast_to(x[:, None], (subjects, trials)) for name, x in params.items()}

    def together(params: Any, trial_params: Any) -> Any:
        made = JointPredictive(
            net, {}, trials=trials, params=params, trial_params=trial_params, outside="ignore", validate_args=False
        )
        return made.log_prob(value).sum()

    def apart(params: Any, trial_params: Any) -> Any:
        every = {**spread(params), **trial_params}
        made = JointPredictive(net, {}, trials=1, params=every, outside="ignore", validate_args=False)
        return made.log_prob(value[:, :, None]).sum()

    def perceptron(params: Any, trial_params: Any) -> Any:
        every = {**spread(params), **trial_params}
        hidden = jnp.stack([*every.values(), value[..., 0], value[..., 1]], -1)
        for matrix in weights[:-1]:
            hidden = jnp.tanh(hidden @ matrix)
        return (hidden @ weights[-1]).sum()

    named = {"trial_params": together, "a data set a trial": apart, "a network of LAN size": perceptron}
    calls = {}
    for name, function in named.items():
        gradient = jax.jit(jax.value_and_grad(function, argnums=(0, 1)))
        calls[name] = lambda gradient=gradient: jax.block_until_ready(gradient(shared, by_trial))
    return calls


def timed(calls: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a call, medians over turns."""
    times = harness.interleaved(calls, repetitions, seconds=30.0, in_a_row=IN_A_ROW)
    return {name: {"elapsed": 1e3 * row["median"], "processor": 1e3 * row["processor"]} for name, row in times.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Time, print, write."""
    options = harness.parse(__doc__, arguments)
    net = pb.load("ddm", backend="jax")
    sizes, repetitions = (((2, 7),), 1) if options.quick else (SIZES, REPETITIONS)
    results = {f"{subjects} x {trials}": timed(ways(net, subjects, trials), repetitions) for subjects, trials in sizes}
    rows = [
        [size, name, row["processor"], row["elapsed"], row["processor"] / by_name["a network of LAN size"]["processor"]]
        for size, by_name in results.items()
        for name, row in by_name.items()
    ]
    columns = ["people x trials", "", "ms, processor", "ms, elapsed", "times a LAN"]
    harness.print_table("One gradient, parameters that vary by trial", columns, rows)
    most = max(
        by_name["trial_params"]["processor"] / by_name["a network of LAN size"]["processor"]
        for by_name in results.values()
    )
    measured = [harness.bar("trial_params against a network of LAN size, times", most, most=1.0)]
    harness.print_bars(measured)
    if not options.quick:
        harness.write_results("trial_params", {"milliseconds": results, "bars": measured}, options.out)


if __name__ == "__main__":
    main()
