"""How well a network knows the noisy Q-learner in tasks of other kinds than the probabilistic selection task.

What is likely given the parameters and the past is the same in every task; which pasts a network has seen is not. KL a
trial by kind of task, over data sets from the prior: at zeta = 0 against the exact recursion, above against a particle
filter, of the network's direct likelihood and of its buffered transformer.

    python benchmarks/noisy_q_tasks.py [--checkpoint noisy_q] [--backend torch] [--quick] [--out DIR]
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np
from noisy_q_accuracy import DataSets, likelihood_figures, reference

import ppl_buffer as pb
from ppl_buffer.simulators.noisy_q_tasks import RewardTasks

TRIALS, PARTICLES, BAR, SEED = 120, 2048, 0.0015, 60
PAIRS = (0.8, 0.7, 0.6)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of task: how rewards come about in each data set, and which pairs are shown."""

    tasks: Callable[[np.random.Generator, int], RewardTasks]
    pairs: Callable[[np.random.Generator, int], np.ndarray]


def selection(unrewarded: float = 0.0, reversal: float = 0.0) -> Callable[[np.random.Generator, int], RewardTasks]:
    """The selection task's probabilities, with another code or with reversals."""

    def tasks(rng: np.random.Generator, size: int) -> RewardTasks:
        better = np.broadcast_to(PAIRS, (size, 3))
        return RewardTasks(np.stack([1 - better, better], -1), np.full(size, reversal), np.full(size, unrewarded))

    return tasks


def bandit(rng: np.random.Generator, size: int) -> RewardTasks:
    """Any two probabilities of a reward, 0 or 1."""
    return RewardTasks(rng.random((size, 3, 2)), np.zeros(size), np.zeros(size))


def interleaved(rng: np.random.Generator, size: int) -> np.ndarray:
    """Three pairs in random order."""
    return pb.simulators.NoisyQ().inputs(rng, size, TRIALS)["pair"]


def one(rng: np.random.Generator, size: int) -> np.ndarray:
    """One pair alone."""
    return np.zeros((size, TRIALS), dtype=int)


def any_pairs(rng: np.random.Generator, size: int) -> np.ndarray:
    """As `NoisyQTasks` draws them."""
    return pb.simulators.NoisyQTasks().inputs(rng, size, TRIALS)["pair"]


KINDS = {
    "selection task": Kind(selection(), interleaved),
    "rewards of -1 and 1": Kind(selection(unrewarded=-1.0), interleaved),
    "reversals": Kind(selection(reversal=0.05), interleaved),
    "a bandit of two arms": Kind(bandit, one),
    "of all kinds": Kind(pb.simulators.NoisyQTasks().tasks, any_pairs),
}


def draw(kind: Kind, size: int, noisy: bool, stream: int) -> DataSets:
    """Data sets of a kind of task."""
    rng, simulator = np.random.default_rng([SEED, stream, noisy]), pb.simulators.NoisyQTasks()
    params = simulator.prior(rng, size)
    if not noisy:
        params["zeta"] = np.zeros(size)
    pair = kind.pairs(rng, size)
    data, *_ = simulator.play(rng, params, {"pair": pair}, kind.tasks(rng, size))
    return DataSets(params, pair, data["choice"], data["reward"])


def log_probabilities(data: DataSets, noisy: bool) -> np.ndarray:
    """Of both options, (datasets, K, 2)."""
    if noisy:
        return reference.particle_filter(data.params, *data.trials, PARTICLES, SEED).log_probabilities
    return reference.exact_log_probabilities(data.params, *data.trials)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="noisy_q", help="a name of the zoo, or a path")
    parser.add_argument("--backend", choices=harness.BACKENDS, default="torch")
    parser.add_argument("--quick", action="store_true", help="few data sets; nothing is written")
    parser.add_argument("--out", type=Path, default=harness.RESULTS)
    options = parser.parse_args()
    net = pb.load(options.checkpoint, backend=options.backend)
    figures: dict[str, Any] = {}
    for stream, (name, kind) in enumerate(KINDS.items()):
        for noisy, size in ((False, 200), (True, 50)):
            data = draw(kind, 10 if options.quick else size, noisy, stream)
            truth = log_probabilities(data, noisy)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that such data are unlike the training's is what is measured
                ways = {way: likelihood_figures(net, data, truth, way) for way in harness.likelihoods(net)}
            figures[f"{name}, zeta {'> 0' if noisy else '= 0'}"] = ways
    harness.print_table(
        f"{options.checkpoint}: KL a trial, data sets of {TRIALS} trials (nats; bar {BAR})",
        ["task", "likelihood", "KL", "standard error", "worst data set"],
        [
            [name, way, x["kl_per_trial"], x["kl_per_trial_standard_error"], x["kl_per_trial_worst_data_set"]]
            for name, ways in figures.items()
            for way, x in ways.items()
        ],
    )
    if not options.quick:
        results = {"checkpoint": options.checkpoint, "training_steps": harness.training_steps(net)}
        harness.write_results("noisy_q_tasks", {**results, "figures": figures, "bar": BAR}, options.out)


if __name__ == "__main__":
    main()
