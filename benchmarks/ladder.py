"""Do the checks see what is wrong? A ladder of under-trained networks of four simulators, five sizes of error each.

The rungs are one training of the direct likelihood, annealed after so many steps. Of each: the exact error by the
simulator's likelihood, what the training itself estimated, and, over seeds, how often `check_likelihood` fails it
where the simulator hides its likelihood, the p of the residual test among its comparisons, and its lower bound of the
error. Rollouts are left out. `check_posterior` tests the likelihood in the same way. And the
residual test of the exact likelihoods of the learners says how often a right network would fail. Of simulators that
are not asked for, the rows of an earlier run of the same size stay.

    python benchmarks/ladder.py [--quick] [--out DIR] [--folder DIR] [--models two_step,ddm] [--seeds 10]
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from harness import bar, parse, print_bars, print_table, write_results

import ppl_buffer as pb
from ppl_buffer.diagnostics import check_likelihood, compare_likelihood
from ppl_buffer.diagnostics.residual import find_residuals

SIMULATORS: dict[str, Any] = {
    "two_step": pb.simulators.TwoStep(),
    "forgetting_q": pb.simulators.ForgettingQ(),
    "ddm": pb.simulators.DriftDiffusion(),
    "rlddm": pb.simulators.RLDriftDiffusion(),
}
STEPS = {
    "two_step": (200, 400, 700, 1100, 1700),
    "forgetting_q": (60, 120, 240, 480, 960),
    "ddm": (60, 120, 240, 480, 960),
    "rlddm": (100, 200, 400, 700, 1200),
}
# Whose outcomes are binary, so that the exact probabilities can stand for a network.
LEARNERS = ("two_step", "forgetting_q")
# Nats a trial that the checks must see, and how often.
ERROR, POWER = 0.005, 0.9


def rungs(name: str, steps: tuple[int, ...], folder: Path) -> Iterator[tuple[int, Any]]:
    """The networks of one training, annealed after so many steps; those that are in the folder are loaded."""
    for count in steps:
        kept = folder / f"{name}_{count}.safetensors"
        if not kept.exists():
            run = folder / name
            pb.train(
                SIMULATORS[name], steps=count, parts="likelihood", out=run, workers=0,
                progress=False,
            )  # fmt: skip
            shutil.copy(run / "best.safetensors", kept)
        yield count, pb.load(kept, backend="torch")


class Hidden:
    """A simulator that keeps its likelihood and its probabilities to itself."""

    def __init__(self, simulator: Any) -> None:
        self._simulator, self.schema = simulator, simulator.schema
        self.prior, self.inputs, self.simulate = simulator.prior, simulator.inputs, simulator.simulate


def measure(net: Any, name: str, sets: int, trials: int, seeds: int) -> dict[str, Any]:
    """The exact error, the training's estimate, and what the checks say over seeds."""
    simulator = SIMULATORS[name]
    exact = compare_likelihood(net, simulator, sets=sets, trials=trials, seed=99, progress=False).errors["direct"]
    stated = net.record.estimated_error
    passed, smallest, bounds, seconds = [], [], [], []
    for seed in range(seeds):
        start = time.process_time()
        check = check_likelihood(
            net, Hidden(simulator), sets=sets, trials=trials, seed=seed, rollouts=False, progress=False
        )  # fmt: skip
        seconds.append(time.process_time() - start)
        p = list(check.likelihood.residuals.values())
        passed.append(check.passed)
        smallest.append(min(1.0, min(p) * len(p)))
        bounds.append(check.error.nats_per_trial)
    known = check_likelihood(net, simulator, sets=sets, trials=trials, rollouts=False, progress=False)
    return {
        "exact": exact.nats_per_trial,
        "standard_error": exact.standard_error,
        "stated": None if stated is None else stated.nats_per_trial,
        "stated_low": None if stated is None else stated.low,
        "stated_high": None if stated is None else stated.high,
        "failed": 1 - float(np.mean(passed)),
        "failed_by_residual": float(np.mean(np.array(smallest) < 0.025)),
        "median_p": float(np.median(smallest)),
        "largest_p": max(smallest),
        "lower_bound": float(np.mean(bounds)),
        "failed_where_known": not known.passed,
        "processor_seconds": float(np.median(seconds)),
    }


def right_networks(name: str, sets: int, trials: int, repeats: int) -> list[float]:
    """The p of the residual test, of all outcomes together, where the exact probabilities stand for a network's."""
    simulator, p_values = SIMULATORS[name], []
    for seed in range(repeats):
        rng = np.random.default_rng([7, seed])
        params = simulator.prior(rng, sets)
        inputs = simulator.inputs(rng, sets, trials)
        more = {} if inputs else {"trials": trials}
        data, chances = simulator.simulate_with_probabilities(rng, params, inputs, **more)
        upper = {outcome: np.cumsum(x, -1) for outcome, x in chances.items()}
        above = {outcome: np.where(data[outcome] == 1, 1.0, x[..., 0]) for outcome, x in upper.items()}
        below = {outcome: np.where(data[outcome] == 1, x[..., 0], 0.0) for outcome, x in upper.items()}
        test = find_residuals(simulator.schema, params, {**inputs, **data}, below, above)
        p_values.append(min(1.0, len(test.residuals) * min(residual.p for residual in test.residuals)))
    return p_values


def stated_bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How often the errors that trainings state are near the exact ones, and how often their intervals hold them."""
    near = [row["exact"] / 2 <= row["stated"] <= 2 * row["exact"] for row in rows]
    held = [row["stated_low"] <= row["exact"] <= row["stated_high"] for row in rows]
    return [
        bar("stated errors within a factor of two", float(np.mean(near or [True])), least=0.8),
        bar("stated intervals that hold the error", float(np.mean(held or [True])), least=0.7),
    ]


def earlier(out: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """What an earlier run of these sizes has written; nothing where there was none."""
    path = out / "ladder.json"
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    same = all(results.get(name) == size for name, size in sizes.items())
    return results if same else {"ladder": {}, "right_p": {}}


def main(arguments: list[str] | None = None) -> None:
    options = parse(__doc__, arguments, models=",".join(SIMULATORS), seeds=10, folder="", repeats=40)
    sets, trials, seeds, repeats = 3000, 100, options.seeds, options.repeats
    steps = STEPS
    if options.quick:
        sets, trials, seeds, repeats, steps = 40, 12, 1, 1, dict.fromkeys(STEPS, (2,))
    folder = Path(options.folder) if options.folder else Path(tempfile.mkdtemp(prefix="ladder-"))
    ladder: dict[str, dict[str, Any]] = {}
    for name in options.models.split(","):
        ladder[name] = {}
        for count, net in rungs(name, steps[name], folder):
            ladder[name][str(count)] = row = measure(net, name, sets, trials, seeds)
            print(f"{name}, {count} steps: " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    right = {name: right_networks(name, sets, trials, repeats) for name in ladder if name in LEARNERS}
    if not options.quick:
        before = earlier(options.out, {"sets": sets, "trials": trials, "seeds": seeds})
        ladder, right = before["ladder"] | ladder, before["right_p"] | right
    alarms = {name: float(np.mean(np.array(p) < 0.025)) for name, p in right.items()}
    columns = ["exact", "stated", "failed", "failed_by_residual", "median_p", "largest_p", "lower_bound"]
    columns += ["failed_where_known", "processor_seconds"]
    print_table(
        f"Under-trained networks, {seeds} checks of {sets} data sets of {trials} trials each",
        ["simulator", "steps", *columns],
        [
            [name, int(count), *(row[key] for key in columns)]
            for name, rows in ladder.items()
            for count, row in rows.items()
        ],
    )
    bad = [row for rows in ladder.values() for row in rows.values() if row["exact"] >= ERROR]
    bars = [
        bar(
            f"failed checks of networks wrong by {ERROR} nats or more",
            min((x["failed"] for x in bad), default=1.0),
            least=POWER,
        ),
        bar(
            "the same, where the likelihood is known",
            min((float(x["failed_where_known"]) for x in bad), default=1.0),
            least=POWER,
        ),
        *stated_bars([row for rows in ladder.values() for row in rows.values() if row["stated"] is not None]),
        *(bar(f"false alarms, {name}", share, most=0.05) for name, share in alarms.items()),
    ]
    print_bars(bars)
    if not options.quick:
        results = {"sets": sets, "trials": trials, "seeds": seeds, "ladder": ladder, "right_p": right, "bars": bars}
        write_results("ladder", results, options.out)


if __name__ == "__main__":
    main()
