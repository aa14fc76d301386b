"""The direct likelihood of a recipe from several seeds: does each give the same card?

The likelihood alone is trained by the recipe of a shipped network, from each seed, and measured as its card is
(`likelihood_accuracy.py`): divergence from the exact likelihood, in nats a trial, on the same data sets. The bar was
stated before measuring: that of no pair of seeds differs by more than two standard errors.

    python benchmarks/seeds.py [--name ddm] [--seeds 0,1,2] [--folder runs/seeds] [--quick] [--out DIR]
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import harness
import numpy as np
from likelihood_accuracy import CASES, likelihood

from ppl_buffer.network.network import Network
from ppl_buffer.simulator import WithAtoms
from ppl_buffer.workflow.recipes import LIKELIHOOD, Recipe, make_simulator, train_stage

SETS = 200
# Bar: standard errors of a difference.
MOST = 2.0


def train(name: str, seed: int, folder: Path, quick: bool) -> Network:
    """The direct likelihood of a recipe, from a seed; what was trained before is not trained again."""
    recipe, net = Recipe.read(name), None
    if recipe.start is not None:
        raise SystemExit(f"--name: expected a recipe from random weights, got {name}, which starts from {recipe.start}")
    simulator, config = make_simulator(recipe.simulator), replace(recipe.sizes(), depth=0)
    for number, stage in enumerate(recipe.likelihood, start=1):
        run = folder / f"{name}_{seed}_{number}"
        net = train_stage(simulator, config, {**stage, "seed": seed}, net, run, quick, LIKELIHOOD)
    assert net is not None
    return net


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, print, write."""
    options = harness.parse(__doc__, arguments, name="ddm", seeds="0,1,2", folder="runs/seeds")
    case, size = CASES[options.name], 11 if options.quick else SETS
    folder = options.out / "quick" if options.quick else Path(options.folder)
    special = (False, True) if isinstance(case.simulator, WithAtoms) else (False,)
    rows = []
    for seed in map(int, options.seeds.split(",")):
        net = train(options.name, seed, folder, options.quick)
        for trials, at_atom in itertools.product(case.trials, special):
            figures = likelihood(net, case, size, trials, at_atom)["direct"]
            kind = f"{trials} trials" + ", at the parameters with an atom" * at_atom
            rows.append({"data": kind, "seed": seed, **figures})
    columns = ["data", "seed", "kl_per_trial", "standard_error", "rmse_of_total"]
    title = f"{options.name}, direct likelihood: divergence from the exact one, nats a trial; {size} data sets"
    harness.print_table(title, columns, [[row[key] for key in columns] for row in rows])
    bars = []
    for kind in dict.fromkeys(row["data"] for row in rows):
        same = [row for row in rows if row["data"] == kind]
        apart = [
            abs(a["kl_per_trial"] - b["kl_per_trial"]) / np.hypot(a["standard_error"], b["standard_error"])
            for a, b in itertools.combinations(same, 2)
        ]
        bars.append(harness.bar(f"{kind}: greatest difference of two seeds, standard errors", max(apart), most=MOST))
    harness.print_bars(bars)
    harness.write_results("seeds", {"name": options.name, "sets": size, "rows": rows, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
