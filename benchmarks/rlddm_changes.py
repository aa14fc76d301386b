"""Learners by diffusion whose parameters change: divergence of the shipped direct likelihood from the exact one.

`rlddm` takes parameters that vary by trial. Learners are drawn from the prior, and some or all of their parameters are
drawn anew where a block of trials begins. The reference is the simulator's own likelihood, which is exact
(`tests/simulators/test_trial_params.py` holds it to a loop over trials).

Measured, in nats a trial: the Kullback-Leibler divergence from the exact probability of the choice to the network's,
given the choices and rewards before it; and the exact log density of choice and time less the network's, which has the
same mean as the divergence of both, but the noise of the responses that were drawn. The bar, on the first, is that of
parameters that stay.

    python benchmarks/rlddm_changes.py [--checkpoint rlddm] [--quick] [--out DIR]
"""

from __future__ import annotations

from collections.abc import Sequence

import harness
import numpy as np
import torch
from missing_history import divergence
from rlddm_missing import difference

import ppl_buffer as pb
from ppl_buffer.files import to_numpy
from ppl_buffer.network.network import Network
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.simulator import Arrays

SUBJECTS, TRIALS, SEED = 400, 120, 73
QUICK = (7, 24)
# Bar: nats a trial.
MOST = 0.001
LEARNING = ("alpha_positive", "alpha_negative")
EVERYTHING = (*LEARNING, "scaling", "boundary", "non_decision_time")
# What changes, and how often, trials; None = never.
DESIGNS: dict[str, tuple[tuple[str, ...], int | None]] = {
    "nothing": ((), None),
    "boundary, in two blocks": (("boundary",), 60),
    "scaling, in two blocks": (("scaling",), 60),
    "learning rates, in two blocks": (LEARNING, 60),
    "all, in two blocks": (EVERYTHING, 60),
    "all, in blocks of 20": (EVERYTHING, 20),
    "boundary, on each trial": (("boundary",), 1),
}


def params_of(rng: np.random.Generator, names: Sequence[str], block: int | None, subjects: int, trials: int) -> Arrays:
    """Parameters (subjects, trials) from the prior, those of `names` new in each block of so many trials."""
    simulator = pb.simulators.RLDriftDiffusion()
    blocks = 1 if block is None else -(-trials // block)
    values = {name: x.reshape(subjects, blocks) for name, x in simulator.prior(rng, subjects * blocks).items()}
    which = np.zeros(trials, int) if block is None else np.arange(trials) // block
    return {name: x[:, which if name in names else np.zeros(trials, int)] for name, x in values.items()}


def by_network(net: Network, params: Arrays, data: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Probability of choice 1 given what was before, and log density of choice and time, each (subjects, trials)."""
    arrays = {name: torch.as_tensor(x, dtype=torch.float32) for name, x in params.items()}
    reward = torch.as_tensor(data["reward"], dtype=torch.float32)
    query = Query.build(net, {"pair": data["pair"]}, trial_params=arrays, feedback={"reward": reward}, outside="ignore")
    value = torch.as_tensor(np.stack([data["choice"], data["rt"]], -1), dtype=torch.float32)
    # Single precision rounds what is nearly certain to certainty.
    rounding = float(np.finfo(np.float32).eps)
    probability = to_numpy(density.one_step_probabilities(query, value))[..., 1].astype(float)
    return probability.clip(rounding, 1 - rounding), to_numpy(density.conditionals(query, value, reuse=False))


def measure(net: Network, subjects: int, trials: int) -> list[dict[str, object]]:
    """The divergence in each design."""
    simulator, rows = pb.simulators.RLDriftDiffusion(), []
    for index, (design, (names, block)) in enumerate(DESIGNS.items()):
        rng = np.random.default_rng([SEED, index])
        params, inputs = params_of(rng, names, block, subjects, trials), simulator.inputs(rng, subjects, trials)
        simulated, chances = simulator.simulate_with_probabilities(rng, params, inputs)
        data = {**inputs, **simulated}
        probability, log_density = by_network(net, params, data)
        everywhere = np.ones(probability.shape, dtype=bool)
        figures = divergence(chances["choice"][..., 1], probability, everywhere)
        figures |= difference(simulator.log_likelihood(params, data), log_density, everywhere)
        rows.append({"changes": design, **figures})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, compare, print, write."""
    options = harness.parse(__doc__, arguments, checkpoint="rlddm")
    subjects, trials = QUICK if options.quick else (SUBJECTS, TRIALS)
    rows = measure(pb.load(options.checkpoint, backend="torch"), subjects, trials)
    harness.print_table(
        f"Divergence from the exact likelihood, nats a trial; {subjects} subjects, {trials} trials",
        ["what changes", "of the choice", "error", "of both", "error"],
        [[row["changes"], row["nats"], row["error"], row["of both"], row["its error"]] for row in rows],
    )
    bars = [
        harness.bar(f"divergence of the choice, {row['changes']}, nats a trial", row["nats"], most=MOST) for row in rows
    ]
    harness.print_bars(bars)
    results = {"subjects": subjects, "trials": trials, "rows": rows, "bar": MOST, "bars": bars}
    harness.write_results("rlddm_changes", results, options.out)


if __name__ == "__main__":
    main()
