"""One hierarchy by formula, fitted by NumPyro and by PyMC: posterior means and standard deviations side by side.

The group is one of `formula_recovery.py`: people who decide as `ddm` says, with a condition within people, a group and
a covariate between them; random effects of the drift are correlated. NumPyro's side is what `ppl_buffer.workflow.fit`
runs: effects centred as far as the data say, scales of steps from a quick fit, single precision. PyMC's is the model of
its page in the documentation, `ppl_buffer.pymc.hierarchical_params`: offsets, PyMC's own warm-up, double precision
outside of the network; sampled by NumPyro's NUTS (``--sampler numpyro``) or by PyMC's own (``--sampler pymc``). So
that the two share the density, and no part of a sampler's settings. Needs PyMC: see `make test-neighbours`.

    python benchmarks/pymc_hierarchy.py [--quick] [--out DIR] [--subjects 13] [--trials 60] [--draws 600] [--chains 2]
        [--sampler numpyro] [--seed 1]

Bars, of all effects: means differ by at most 0.15 posterior standard deviations, and by at most 3.5 Monte Carlo errors
of the difference; standard deviations by at most 15 % and 3.5 Monte Carlo errors.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from formula_recovery import FIXED, TEXTS, simulated
from harness import bar, parse, print_bars, print_table, write_results

import ppl_buffer as pb
from ppl_buffer import formulas
from ppl_buffer.arviz.versions import import_arviz
from ppl_buffer.workflow.chains import Sampler
from ppl_buffer.workflow.formula_fit import quick_design_fit, sample_design

Draws = Mapping[str, np.ndarray]
# Before PyMC's side knows the scales of its steps, trees would grow eight times as large.
DEPTH = 7


def by_numpyro(net: Any, seen: Any, design: Any, options: Any) -> tuple[Draws, float]:
    """Draws (chains, draws, ...) of all sites, and the share that diverged."""
    sampler = Sampler(warmup=options.warmup, draws=options.draws, chains=options.chains)
    draws = sample_design(net, seen, design, quick_design_fit(net, seen, design), sampler, seed=options.seed)
    return draws.sites, float(np.mean(draws.fields["diverging"]))


def by_pymc(net: Any, seen: Any, design: Any, options: Any) -> tuple[Draws, float]:
    """The same."""
    import pymc as pm

    from ppl_buffer.pymc import JointPredictive, hierarchical_params

    with pm.Model():
        params, by_trial = hierarchical_params(net, design)
        JointPredictive("response", net, seen, params=params, trial_params=by_trial, observed=seen.value)
        more = {"cores": 1}
        if options.sampler == "numpyro":
            depth = {"nuts_kwargs": {"max_tree_depth": DEPTH}}
            more = {"nuts_sampler": "numpyro", "nuts_sampler_kwargs": {"chain_method": "vectorized", **depth}}
        result = pm.sample(options.draws, tune=options.tune, chains=options.chains, random_seed=options.seed, **more)
    draws = {name: np.asarray(values) for name, values in result.posterior.items()}
    return draws, float(result.sample_stats["diverging"].mean())


def effects(draws: Draws, design: Any) -> dict[str, np.ndarray]:
    """Coefficients, spreads, correlations and the median subject: name -> (chains, draws)."""
    numbers = {}
    for name in [*design.sites, *(f"{name}_group" for name in design.parameters)]:
        flat = np.asarray(draws[name], float).reshape(*draws[name].shape[:2], -1)
        labels = getattr(design.sites.get(name), "labels", ()) or [""]
        numbers |= {f"{name} {label}".strip(): flat[..., index] for index, label in enumerate(labels)}
    for one in design.parameters.values():
        for grouping in one.groupings:
            if grouping.correlation is not None:
                numbers[grouping.correlation] = np.asarray(draws[grouping.correlation], float)[..., 1, 0]
    return numbers


def monte_carlo_errors(x: np.ndarray) -> tuple[float, float]:
    """Of the mean, and of the logarithm of the standard deviation, of draws (chains, draws)."""
    squares, effective = (x - x.mean()) ** 2, import_arviz().ess
    of_mean = x.std() / np.sqrt(float(effective(x, method="mean")))
    return float(of_mean), float(squares.std() / (2 * x.var()) / np.sqrt(float(effective(squares, method="mean"))))


def compared(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row an effect: moments of both, and how far they are apart, in posterior standard deviations."""
    arviz, rows = import_arviz(), []
    for name, x in one.items():
        y = other[name]
        sd = float(np.sqrt((x.var() + y.var()) / 2))
        of_mean, of_sd = np.hypot(monte_carlo_errors(x), monte_carlo_errors(y))
        rows.append({
            "effect": name, "NumPyro mean": float(x.mean()), "PyMC mean": float(y.mean()),
            "NumPyro sd": float(x.std()), "PyMC sd": float(y.std()),
            "difference / sd": float(y.mean() - x.mean()) / sd, "its error": float(of_mean) / sd,
            "log sd ratio": float(np.log(y.std() / x.std())), "error of that": float(of_sd),
            "NumPyro bulk": float(arviz.ess(x, method="bulk")), "PyMC bulk": float(arviz.ess(y, method="bulk")),
            "R-hat": max(float(arviz.rhat(z)) for z in (x, y)),
        })  # fmt: skip
    return rows


def bars_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the largest differences have to stay below."""

    def most(what: str, error: str | None = None) -> float:
        return max(abs(row[what]) / (1.0 if error is None else row[error]) for row in rows)

    return [
        bar("largest difference of means, in sd", most("difference / sd"), most=0.15),
        bar("largest difference of means, in its Monte Carlo error", most("difference / sd", "its error"), most=3.5),
        bar("largest log ratio of sds", most("log sd ratio"), most=0.15),
        bar("largest log ratio of sds, in its Monte Carlo error", most("log sd ratio", "error of that"), most=3.5),
        bar("largest R-hat", max(row["R-hat"] for row in rows), most=1.01),
    ]


def side(name: str, options: Any) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, float]]:
    """One side's effects, how it came to them, and the effects that the group was made with."""
    if options.quick:
        import jax

        jax.config.update("jax_disable_most_optimizations", True)
    began, processor = time.perf_counter(), time.process_time()
    net = pb.load("ddm", backend="jax")
    seen, covariates, truth = simulated(net, options.subjects, options.trials, options.seed)
    design = formulas.design(net, seen, TEXTS, covariates, fixed=FIXED, correlated=True)
    draws, divergences = {"NumPyro": by_numpyro, "PyMC": by_pymc}[name](net, seen, design, options)
    how = {"divergences": divergences, "seconds": time.perf_counter() - began}
    return effects(draws, design), how | {"processor seconds": time.process_time() - processor}, truth


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, fit twice, compare, write."""
    options = parse(
        __doc__, arguments, subjects=13, trials=60, draws=600, chains=2, sampler="numpyro", seed=1, warmup=150, tune=300
    )  # fmt: skip
    if options.quick:
        options.subjects, options.trials, options.draws, options.chains = 4, 15, 20, 2
        options.warmup = options.tune = 15
    # Each in a process of its own: PyMC switches JAX to double precision.
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        (one, how, truth), (other, how_other, _) = pool.map(side, ("NumPyro", "PyMC"), (options, options))
    rows, sides = compared(one, other), {"NumPyro": how, "PyMC": how_other}
    print_table("The same posterior", list(rows[0]), [list(row.values()) for row in rows])
    print_table("How", ["side", *how], [[name, *values.values()] for name, values in sides.items()])
    bars = bars_of(rows)
    print_bars(bars)
    sizes = {name: getattr(options, name) for name in ("subjects", "trials", "draws", "chains", "sampler", "seed")}
    results = {**sizes, "formulas": TEXTS, "truth": truth, "rows": rows, "sides": sides, "bars": bars}
    write_results("pymc_hierarchy", results, options.out)


if __name__ == "__main__":
    main()
