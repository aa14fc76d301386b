"""Calibration of a shipped network: of its likelihood against the simulator, and of the posteriors by NUTS (SBC).

Data sets of 120 trials are drawn from the prior. The likelihood is checked by distribution functions, coverage over the
box and rollouts; the posterior by ranks of the truth among NUTS draws, a chain for each data set, 50 of them in one
program. Finished batches of fits are kept in --folder: call it again after an interruption and it goes on.

    python benchmarks/calibration.py [--quick] [--out DIR] [--model noisy_q] [--sets 200] [--thin 2] [--folder DIR]

`--thin`: transitions of NUTS for each draw. The check warns where the draws depend too much on each other.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import bar, parse, print_bars, print_table, training_steps, write_results

import ppl_buffer as pb
from ppl_buffer.diagnostics import LikelihoodCheck, PosteriorCheck, check_likelihood, check_posterior
from ppl_buffer.workflow.cli.simulators import simulator_of

TRIALS = 120
MINUTES, LEVEL = 30.0, 0.95


def rows(check: LikelihoodCheck | PosteriorCheck) -> list[dict[str, Any]]:
    """The rows of a check's table, JSON-ready: what is not a number is None."""
    return [{key: None if x != x else x for key, x in row.items()} for row in check.rows]


def show(title: str, check: LikelihoodCheck | PosteriorCheck) -> None:
    figures = rows(check)
    print_table(title, list(figures[0]), [list(row.values()) for row in figures])


def main(arguments: list[str] | None = None) -> None:
    options = parse(__doc__, arguments, model="noisy_q", sets=200, thin=2, folder="")
    sets, trials, draws, batch = options.sets, TRIALS, 99, 50
    if options.quick:
        sets, trials, draws, batch = 20, 24, 19, 20
    net = pb.load(options.model, backend="jax")
    simulator = simulator_of(net)
    trials = min(trials, net.record.trials)

    start = time.perf_counter()
    likelihood = check_likelihood(net, simulator, sets=sets, trials=trials, level=LEVEL)
    seconds = {"likelihood": time.perf_counter() - start}
    show(f"Likelihood of {options.model}: {sets} data sets of {trials} trials", likelihood)

    # Without a folder of the user's, one of our own; either keeps what was finished when it is interrupted.
    folder = Path(options.folder) if options.folder else Path(tempfile.mkdtemp(prefix="calibration-"))
    print(f"\nFinished batches: {folder} (pass it as --folder to go on)")
    start = time.perf_counter()
    posterior = check_posterior(
        net, simulator, sets=sets, trials=trials, draws=draws, thin=options.thin, batch=batch, out=folder, level=LEVEL
    )
    seconds["posterior"] = time.perf_counter() - start
    show(f"Ranks of the truth in {sets} posteriors (bands at {LEVEL:.0%} for all quantities together)", posterior)

    options.out.mkdir(parents=True, exist_ok=True)
    for name, check in (("likelihood", likelihood), ("posterior", posterior)):
        check.plot().savefig(options.out / f"calibration_{options.model}_{name}.png", dpi=120)
    bars = [
        bar("likelihood: comparisons that fail", sum(not row["passed"] for row in likelihood.rows), most=0),
        bar("posterior: quantities outside their band", sum(not row["passed"] for row in posterior.rows), most=0),
        bar("posterior: minutes", seconds["posterior"] / 60, most=MINUTES),
    ]
    print_bars(bars)
    write_results(
        f"calibration_{options.model}",
        {
            "model": options.model,
            "sets": sets,
            "trials": trials,
            "draws": draws,
            "thin": options.thin,
            "level": LEVEL,
            "training_steps": training_steps(net),
            "likelihood": rows(likelihood),
            "posterior": rows(posterior),
            "divergences": float(posterior.divergences.mean()),
            "gradients_a_transition": posterior.steps,
            "seconds": seconds,
            "bars": bars,
        },
        options.out,
    )
    if not options.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
