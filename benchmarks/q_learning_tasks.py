"""How well a network knows the family of Q-learners by task: options, rewards and how these change; smaller models.

KL(exact || network) a trial over data sets from the prior, all parameters given, at two lengths. Each row fixes one
thing of the task, or makes the model one of its smaller ones, and leaves the rest as training draws it. The reference
is the exact recursion of `tests/references/q_learning.py`.

    python benchmarks/q_learning_tasks.py [--checkpoint q_learning] [--backend torch] [--quick] [--out DIR]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
import numpy as np
from likelihood_accuracy import conditionals, exact_q_learning

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `tests.references`, which is not installed

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.simulators.q_learning_tasks import CODES, KINDS, draw_tasks, play_tasks  # noqa: E402

LENGTHS, SETS, BAR, SEED = (120, 360), 200, 0.001, 61


@dataclass(frozen=True)
class Row:
    """What is the same in all data sets of a row.

    Attributes:
        options: how many there are; any by default.
        task: arguments of `draw_tasks`.
        params: parameters with known values.
        one_rate: both learning rates are equal.
    """

    options: int | None = None
    task: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, float] = field(default_factory=dict)
    one_rate: bool = False


ROWS = {
    "any task": Row(),
    **{f"{count} options": Row(options=count) for count in (2, 3, 4)},
    **{f"rewards {low:g} and {high:g}": Row(task={"code": (low, high), "amounts": False}) for low, high in CODES},
    "amounts between -1 and 1": Row(task={"code": (-1.0, 1.0), "amounts": True}),
    **{f"probabilities: {kind}": Row(task={"kind": kind}) for kind in KINDS},
    **{f"{name} = {value:g}": Row(params={name: value}) for name, value in pb.simulators.QLearning.atoms.items()},
    "one learning rate": Row(one_rate=True),
    "all of these (Rescorla-Wagner)": Row(params=pb.simulators.QLearning.atoms, one_rate=True),
}


def draw(row: Row, size: int, trials: int, stream: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Parameters (size,) and data (size, trials), in the single precision in which the network reads them."""
    rng, simulator = np.random.default_rng([SEED, stream, trials]), pb.simulators.QLearningTasks()
    params = simulator.prior(rng, size) | {name: np.full(size, value) for name, value in row.params.items()}
    if row.one_rate:
        params["alpha_negative"] = params["alpha_positive"]
    inputs = simulator.inputs(rng, size, trials)
    if row.options is not None:
        inputs = {"options": np.full((size, trials), row.options)}
    params = {name: x.astype(np.float32) for name, x in params.items()}
    data, _ = play_tasks(rng, params, inputs, draw_tasks(rng, inputs, **row.task))
    return params, {name: x.astype(np.float32) for name, x in {**inputs, **data}.items()}


def measure(net: Any, row: Row, size: int, trials: int, stream: int, way: str) -> dict[str, float]:
    """KL a trial, its standard error, the worst data set, and the mean probability of what is no option."""
    params, data = draw(row, size, trials, stream)
    by_set = (exact_q_learning(params, data) - conditionals(net, params, data, way)).mean(-1)
    figures = {
        "kl_per_trial": float(by_set.mean()),
        "standard_error": float(by_set.std(ddof=1) / np.sqrt(size)),
        "worst_set": float(by_set.max()),
    }
    if row.options is not None and row.options < net.schema.outcomes["choice"].n:
        # The last option stands for those that are not there.
        wrong = data | {"choice": np.full_like(data["choice"], row.options)}
        figures["probability_of_no_option"] = float(np.exp(conditionals_of_wrong(net, params, data, wrong, way)).mean())
    return figures


def conditionals_of_wrong(
    net: Any, params: Mapping[str, np.ndarray], data: Mapping[str, np.ndarray], wrong: dict[str, np.ndarray], way: str
) -> np.ndarray:
    """Log probability of a wrong choice on the first trial and, after the trials as they were, on the last one."""
    first = {name: x[:, :1] for name, x in wrong.items()}
    last = {name: np.array(x) for name, x in data.items()}
    last["choice"][:, -1] = wrong["choice"][:, -1]
    return np.concatenate([conditionals(net, params, first, way), conditionals(net, params, last, way)[:, -1:]], -1)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="q_learning", help="a name of the zoo, or a path")
    parser.add_argument("--backend", choices=harness.BACKENDS, default="torch")
    parser.add_argument("--quick", action="store_true", help="few data sets; nothing is written")
    parser.add_argument("--out", type=Path, default=harness.RESULTS)
    options = parser.parse_args()
    net = pb.load(options.checkpoint, backend=options.backend)
    size = 10 if options.quick else SETS
    figures = {
        f"{name}, {trials} trials": {
            way: measure(net, row, size, trials, stream, way) for way in harness.likelihoods(net)
        }
        for trials in LENGTHS
        for stream, (name, row) in enumerate(ROWS.items())
    }
    harness.print_table(
        f"{options.checkpoint}: KL a trial, {size} data sets (nats; bar {BAR})",
        ["task", "likelihood", "KL", "standard error", "worst data set", "no option"],
        [
            [name, way, x["kl_per_trial"], x["standard_error"], x["worst_set"], x.get("probability_of_no_option")]
            for name, ways in figures.items()
            for way, x in ways.items()
        ],
    )
    if not options.quick:
        results = {"checkpoint": options.checkpoint, "training_steps": harness.training_steps(net)}
        harness.write_results("q_learning_tasks", {**results, "figures": figures, "bar": BAR}, options.out)


if __name__ == "__main__":
    main()
