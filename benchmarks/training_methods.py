"""What is trained, and how, at equal processor time: divergence from the exact likelihood, all parameters given.

Five simulators whose likelihood is known: `two_step`, `forgetting_q`, `noisy_q` at zeta > 0 (by a particle filter),
`rlddm` and `ddm`. The buffered transformer, trained alone, against the direct likelihood, trained alone by the
defaults of `train`, and what its defaults are worth. Everything runs in one process on one thread, simulation and
evaluation included. The divergence is measured on data sets whose seed chose nothing.

    python benchmarks/training_methods.py [--only two_step,ddm] [--rows FILE] [--quick] [--out DIR]

`--rows` computes the comparison and the bars anew from a result file, and trains nothing.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `tests.references`, which is not installed

import noisy_q_accuracy  # noqa: E402
from harness import bar, parse, print_bars, print_table, write_results  # noqa: E402
from likelihood_accuracy import conditionals, exact_ddm, exact_rlddm  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.simulator import name_of  # noqa: E402

Named = dict[str, np.ndarray]
Row = dict[str, Any]
# Of the data sets that are measured on.
SEED, DATA_SETS, TRIALS = 71, 200, 120
# Seconds of training of the transformer, of the direct likelihood's defaults, and of what its defaults are worth.
TRANSFORMER, DIRECT, ABLATION, TWO_STEP = 90.0, (10.0, 30.0), 30.0, (240.0,)
TRANSFORMER_ALONE, DIRECT_ALONE = "transformer", "direct likelihood"
# Bars: times less time for the same divergence, the median over the simulators; divergence of the two-step task.
FASTER, TWO_STEP_BAR = 10.0, 0.001


@dataclass(frozen=True)
class Case:
    """A simulator, and what its network is measured on.

    Attributes:
        simulator: to train on.
        params: (data sets,), drawn from the prior.
        data: (data sets, trials).
        log_likelihood: the exact log density of each trial, (data sets, trials).
    """

    simulator: Any
    params: Named
    data: Named
    log_likelihood: np.ndarray


def cases(names: Sequence[str], size: int) -> dict[str, Case]:
    """The simulators with their test sets, `size` data sets each."""
    exact: dict[str, tuple[Any, Callable[[Named, Named], np.ndarray]]] = {
        "two_step": (pb.simulators.TwoStep(), pb.simulators.TwoStep().log_likelihood),
        "forgetting_q": (pb.simulators.ForgettingQ(), pb.simulators.ForgettingQ().log_likelihood),
        "rlddm": (pb.simulators.RLDriftDiffusion(), exact_rlddm),
        "ddm": (pb.simulators.DriftDiffusion(), exact_ddm),
    }
    out = {}
    for name in names:
        if name == "noisy_q":
            out[name] = noisy_case(size)
            continue
        simulator, log_likelihood = exact[name]
        rng = np.random.default_rng(SEED)
        params = simulator.prior(rng, size)
        inputs = simulator.inputs(rng, size, TRIALS)
        data = {**inputs, **simulator.simulate(rng, params, inputs, **({} if inputs else {"trials": TRIALS}))}
        # As the network reads them: near a bound rounding moves a density.
        read = [{key: x.astype(np.float32).astype(float) for key, x in named.items()} for named in (params, data)]
        whole = {key: x.astype(int) if np.all(x == np.round(x)) else x for key, x in read[1].items()}
        out[name] = Case(simulator, read[0], whole, log_likelihood(read[0], whole))
    return out


def noisy_case(size: int) -> Case:
    """The noisy Q-learner at zeta > 0, with the references that `noisy_q_accuracy.py` stored."""
    settings = noisy_q_accuracy.Settings()
    groups = noisy_q_accuracy.draw(settings)
    stored = noisy_q_accuracy.references(groups, settings, recompute=False)
    sets = groups["noisy"]
    data = {"pair": sets.pair, "choice": sets.choice, "reward": sets.reward}
    log_odds = stored["noisy_log_odds"].astype(float)
    log_likelihood = -np.logaddexp(0.0, -(2 * sets.choice - 1) * log_odds)
    params = {name: x[:size] for name, x in sets.params.items()}
    return Case(pb.simulators.NoisyQ(), params, {name: x[:size] for name, x in data.items()}, log_likelihood[:size])


def draws_alone(simulator: Any) -> Any:
    """The simulator as one of which nothing is known but its prior and how to draw."""
    return SimpleNamespace(
        name=name_of(simulator),
        schema=simulator.schema,
        priors=simulator.priors,
        prior=simulator.prior,
        inputs=simulator.inputs,
        simulate=simulator.simulate,
    )


def divergence(net: Any, case: Case) -> tuple[float, float]:
    """KL(exact || network) a trial, and its standard error over the data sets.

    The mean difference of the log densities, with (q / p - 1), whose mean is 0, as its control variate.
    """
    difference = case.log_likelihood - conditionals(net, case.params, case.data, "auto").astype(float)
    by_set = (difference + np.expm1(-difference)).mean(-1)
    return float(by_set.mean()), float(by_set.std(ddof=1) / np.sqrt(len(by_set)))


def train(case: Case, how: str, seconds: float, simulator: Any = None, **options: Any) -> Row:
    """Train for so many seconds; a row of the table."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        net = pb.train(
            simulator or case.simulator, minutes=seconds / 60, out=folder, workers=0, progress=False, **options
        )
    used = time.process_time() - start
    kl, error = divergence(net, case)
    steps = net.record.stages[-1].step
    row = {"simulator": name_of(case.simulator), "how": how, "seconds": used, "steps": steps}
    row |= {"kl": kl, "standard_error": error}
    print(*row.values(), flush=True)
    return row


def seconds_to(rows: Sequence[Row], kl: float) -> float:
    """Seconds in which these trainings of one kind reach a divergence; a line in the logarithms of both.

    Longer trainings than these are extrapolated, shorter ones to half of the shortest at most.
    """
    seconds, reached = (np.array([row[name] for row in rows]) for name in ("seconds", "kl"))
    slope, constant = np.polyfit(np.log(reached), np.log(seconds), 1)
    return max(float(np.exp(constant + slope * np.log(kl))), float(seconds.min()) / 2)


def measure(names: Sequence[str], quick: bool) -> list[Row]:
    """Train everything; a row of each training."""
    shorter, rows = 0.1 if quick else 1.0, []
    for name, case in cases(names, 20 if quick else DATA_SETS).items():
        rows.append(train(case, TRANSFORMER_ALONE, shorter * TRANSFORMER, parts="buffer"))
        for seconds in DIRECT + TWO_STEP * (name == "two_step"):
            rows.append(train(case, DIRECT_ALONE, shorter * seconds, parts="likelihood"))
        if name in ("two_step", "rlddm"):
            plain = draws_alone(case.simulator)
            rows.append(train(case, "from draws alone", shorter * ABLATION, plain, parts="likelihood"))
    return rows


def compare(rows: Sequence[Row]) -> list[Row]:
    """How many times less time the direct likelihood needs for the transformer's divergence; a row a simulator."""
    compared = []
    for name in dict.fromkeys(row["simulator"] for row in rows):
        kinds = [
            [row for row in rows if row["simulator"] == name and row["how"] == how]
            for how in (TRANSFORMER_ALONE, DIRECT_ALONE)
        ]
        transformer, needed = kinds[0][0], seconds_to(kinds[1], kinds[0][0]["kl"])
        compared.append(
            {
                "simulator": name,
                "kl": transformer["kl"],
                "transformer_seconds": transformer["seconds"],
                "direct_seconds": needed,
                "times_faster": transformer["seconds"] / needed,
            }
        )
    return compared


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse(__doc__, arguments, only="two_step,forgetting_q,rlddm,ddm,noisy_q", rows="")
    torch.set_num_threads(1)
    if options.rows:
        rows = json.loads(Path(options.rows).read_text())["results"]["rows"]
    else:
        rows = measure(options.only.split(","), options.quick)
    ratios = compare(rows)
    faster = float(np.median([row["times_faster"] for row in ratios]))
    bars = [bar("times less time, median over the simulators", faster, least=FASTER)]
    two_step = [row for row in rows if (row["simulator"], row["how"]) == ("TwoStep", DIRECT_ALONE)]
    if two_step:
        longest = max(two_step, key=lambda row: row["seconds"])
        bars.append(bar(f"TwoStep, KL after {longest['seconds']:.0f} s", longest["kl"], most=TWO_STEP_BAR))
    print_table("KL(exact || network) a trial, nats", list(rows[0]), [list(row.values()) for row in rows])
    print_table("Time to the transformer's divergence", list(ratios[0]), [list(row.values()) for row in ratios])
    print_bars(bars)
    write_results("training_methods", {"trials": TRIALS, "rows": rows, "ratios": ratios, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
