"""Coverage of effects by formula: how often 90 % intervals hold what simulated groups of people were made with.

People decide as the drift-diffusion model says (`ddm`). Their drift depends on a condition that varies within people,
their boundary on a group and on a covariate, all on the real line that the trained range is mapped from; people differ
about what the formulas say. Each replicate draws its effects anew, and is fitted by what `ppl_buffer.workflow.fit`
runs with ``drift ~ hard + (1 + hard | subject)`` and ``boundary ~ group + age + (1 | subject)``.

    python benchmarks/formula_recovery.py [--quick] [--out DIR] [--replicates 16] [--subjects 10] [--trials 60]
        [--draws 250]

Bars: 90 % intervals of each effect hold the truth in 80 % or more, and posterior means regressed on the truth, through
0, have a slope within 0.1 of 1. (Errors that pull towards 0 cancel in their mean.)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from harness import bar, parse, print_bars, print_table, write_results
from hierarchical_fit import effective
from tqdm.auto import tqdm

import ppl_buffer as pb
from ppl_buffer import formulas
from ppl_buffer.workflow.chains import Sampler
from ppl_buffer.workflow.formula_fit import quick_design_fit, sample_design

TEXTS = ["drift ~ hard + (1 + hard | subject)", "boundary ~ group + age + (1 | subject)"]
# On the real line: the population's mean, and how people differ about it.
MEANS = {"drift": 0.25, "boundary": -1.0, "non_decision_time": -1.5}
SPREADS = {"drift": 0.15, "boundary": 0.2, "non_decision_time": 0.2, "hard": 0.08}
FIXED = {"starting_point": 0.5, "drift_variability": 0.2}
# How much effects vary between replicates.
EFFECTS = {"drift~hard": 0.2, "boundary~group": 0.5, "boundary~age": 0.02}
AGE = (45.0, 12.0)


def simulated(net: Any, subjects: int, trials: int, seed: int) -> tuple[Any, dict[str, np.ndarray], dict[str, float]]:
    """What a network observed of so many people, their covariates, and the effects they were made with."""
    rng = np.random.default_rng([seed, 5])
    truth = {name: float(scale * rng.standard_normal()) for name, scale in EFFECTS.items()}
    hard = rng.permuted(np.arange(trials) % 2 + np.zeros((subjects, trials), int), axis=1)
    covariates = {"hard": hard, "group": np.where(np.arange(subjects) % 2 == 1, "patient", "control")}
    covariates["age"] = np.round(AGE[0] + AGE[1] * rng.standard_normal(subjects))
    own = {name: spread * rng.standard_normal(subjects) for name, spread in SPREADS.items()}
    real = {name: np.repeat((mean + own[name])[:, None], trials, 1) for name, mean in MEANS.items()}
    real["drift"] = real["drift"] + (truth["drift~hard"] + own["hard"])[:, None] * hard
    patient = 1.0 * (covariates["group"] == "patient")
    real["boundary"] += (truth["boundary~group"] * patient + truth["boundary~age"] * (covariates["age"] - AGE[0]))[
        :, None
    ]
    params = {name: np.asarray(net.into_box(name, jnp.asarray(x, jnp.float32)), float) for name, x in real.items()}
    flat = {name: x.reshape(-1) for name, x in params.items()}
    flat |= {name: np.full(subjects * trials, x) for name, x in FIXED.items()}
    made = pb.simulators.DriftDiffusion().simulate(rng, flat, {}, trials=1)
    value = np.stack([made["choice"], made["rt"]], -1).reshape(subjects, trials, 2)
    return net.observe({}, value.astype(np.float32)), covariates, truth


def fitted(net: Any, options: Any, seed: int) -> list[dict[str, Any]]:
    """A row an effect."""
    began = time.process_time()
    seen, covariates, truth = simulated(net, options.subjects, options.trials, seed)
    design = formulas.design(net, seen, TEXTS, covariates, fixed=FIXED)
    sampler = Sampler(warmup=options.warmup, draws=options.draws)
    draws = sample_design(net, seen, design, quick_design_fit(net, seen, design), sampler, seed=seed, progress=False)
    flat = {name: x.reshape(*x.shape[:2], -1) for name, x in draws.sites.items()}
    least = effective({name: x[..., 0] for name, x in flat.items()}, list(truth))
    rows = []
    for name, expected in truth.items():
        values = flat[name].reshape(-1)
        low, high = np.quantile(values, [0.05, 0.95])
        rows.append({
            "replicate": seed, "effect": name, "truth": expected, "mean": float(values.mean()),
            "sd": float(values.std()), "held": bool(low <= expected <= high), "error": float(
                (values.mean() - expected) / values.std()), "least bulk": least["bulk"], "R-hat": least["R-hat"],
            "divergences": float(np.mean(draws.fields["diverging"])), "processor seconds": time.process_time() - began,
        })  # fmt: skip
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> tuple[list[list[Any]], list[dict[str, Any]]]:
    """A row of the printed table for each effect, and the bars."""
    table, bars = [], []
    for name in EFFECTS:
        theirs = [row for row in rows if row["effect"] == name]
        error, truth, mean = (np.array([row[key] for row in theirs]) for key in ("error", "truth", "mean"))
        held, slope = sum(row["held"] for row in theirs), float((truth * mean).sum() / (truth**2).sum())
        least, most = min(row["least bulk"] for row in theirs), max(row["R-hat"] for row in theirs)
        table.append([name, len(theirs), held, float(error.mean()), float(error.std()), slope, least, most])
        bars.append(bar(f"share of 90 % intervals of {name} that hold the truth", held / len(theirs), least=0.8))
        bars.append(bar(f"slope of means on truths, {name}, from 1", abs(slope - 1), most=0.1))
    return table, bars


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, fit, count, write."""
    options = parse(__doc__, arguments, replicates=16, subjects=10, trials=60, draws=250)
    options.warmup = 150
    if options.quick:
        options.replicates, options.subjects, options.trials, options.draws, options.warmup = 1, 4, 15, 10, 5
    net = pb.load("ddm", backend="jax")
    rows: list[dict[str, Any]] = []
    for seed in tqdm(range(1, 1 + options.replicates), desc="replicates"):
        rows += fitted(net, options, seed)
    table, bars = summary(rows)
    columns = ["effect", "replicates", "held", "mean error / sd", "sd of it", "slope", "least bulk", "R-hat"]
    print_table("90 % intervals that hold the truth; means regressed on truths through 0", columns, table)
    print_bars(bars)
    sizes = {name: getattr(options, name) for name in ("replicates", "subjects", "trials", "draws")}
    write_results("formula_recovery", {**sizes, "formulas": TEXTS, "rows": rows, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
