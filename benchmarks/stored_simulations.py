"""How many stored simulations a likelihood needs: its divergence from the simulator by their number.

The direct likelihood of `ForgettingQ`, whose exact likelihood is known, learned from draws alone (the simulator's own
probabilities are not stored): from so many pairs of parameters and data of 100 trials, drawn again and again, and from
fresh draws, by the same steps. A tenth of the pairs is held out, and a training that over-fits ends; then also by as
many steps as its warning advises.

    python benchmarks/stored_simulations.py [--quick] [--out DIR] [--steps 1000]
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import bar, parse, print_bars, print_table, write_results

import ppl_buffer as pb
from ppl_buffer.diagnostics import compare_likelihood
from ppl_buffer.findings import FindingWarning
from ppl_buffer.simulator import Arrays

TRIALS, SIZES = 100, (1000, 4000, 16000)


class Draws:
    """`ForgettingQ` as one has it whose probabilities nobody wrote down."""

    schema = pb.simulators.ForgettingQ.schema

    def __init__(self) -> None:
        self._simulator = pb.simulators.ForgettingQ()
        self.priors = self._simulator.priors

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """As the simulator's."""
        return self._simulator.prior(rng, size)

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """As the simulator's."""
        return self._simulator.inputs(rng, size, trials)

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays, trials: int, size: int) -> Arrays:
        """As the simulator's."""
        return self._simulator.simulate(rng, params, inputs, trials)


def stored(size: int, seed: int) -> pb.StoredSimulations:
    """So many simulations, as a file from elsewhere would have them."""
    rng, simulator = np.random.default_rng(seed), pb.simulators.ForgettingQ()
    schema = simulator.schema
    params, inputs = simulator.prior(rng, size), simulator.inputs(rng, size, TRIALS)
    data = simulator.simulate(rng, params, inputs, trials=TRIALS)
    outcomes, feedback = ({name: data[name] for name in group} for group in (schema.outcomes, schema.feedback))
    return pb.StoredSimulations(params, outcomes, inputs, feedback, schema=schema, prior=simulator.priors)


def measure(simulator: Any, steps: int, sets: int) -> dict[str, Any]:
    """Train on it, and compare with the simulator's own likelihood on new data sets."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FindingWarning)
        net = pb.train(
            simulator, steps=steps, parts="likelihood", trials=(20, TRIALS), out=folder, workers=0, progress=False
        )
    compared = compare_likelihood(net, pb.simulators.ForgettingQ(), sets=sets, trials=TRIALS, progress=False)
    error, stage = compared.errors["direct"], net.record.stages[-1]
    return {
        "nats": error.nats_per_trial, "se": error.standard_error, "step": stage.step, "seconds": stage.seconds,
        "over_fitted": any("over-fitted" in str(one.message) for one in caught),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse(__doc__, arguments, steps=1000)
    sizes, steps, sets = ((200,), 3, 20) if options.quick else (SIZES, options.steps, 500)
    results = {}
    for size in sizes:
        simulations = stored(size, size)
        one = results[f"{size:,} stored"] = measure(simulations, steps, sets)
        if one["over_fitted"]:
            advised = round(4 / 3 * one["step"])  # as the warning says
            results[f"{size:,} stored, in {advised} steps"] = measure(simulations, advised, sets)
    results["fresh draws"] = measure(Draws(), steps, sets)
    rows = [
        (name, f"{one['nats']:.4f} ± {one['se']:.4f}", one["step"], "yes" if one["over_fitted"] else "no")
        for name, one in results.items()
    ]
    print_table("Stored simulations", ("simulations", "KL a trial (nats)", "weights of step", "over-fitted"), rows)
    largest, fresh = (results[name]["nats"] for name in (f"{sizes[-1]:,} stored", "fresh draws"))
    bars = [bar(f"{sizes[-1]:,} stored simulations: KL over that of fresh draws", largest / fresh, most=1.5)]
    print_bars(bars)
    write_results("stored_simulations", {"steps": steps, "results": results, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
