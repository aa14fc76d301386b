"""Model evidence of two theories of multisensory perception: the networks against the exact likelihood.

For people's data (30 sets of 400 trials, each under rho = 1 and rho = 4/3) and for sets drawn from the models (30 from
each, under their own), the log evidence by the autoregressive estimator, with blocks of several sizes, and by
importance sampling with the network's likelihood. The truth is that of `multisensory_evidence_truth.py`. The estimates
of each method are kept in a file of its own as soon as they are known. Writes a table, JSON and two pictures: log
evidence and the difference of the two theories against the truth, and the estimate in one pass against the number of
orders.

    python benchmarks/multisensory_evidence.py [--rho1 PATH] [--rho43 PATH] [--suffix _mine] [--parts FOLDER]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import numpy as np
from multisensory_evidence_truth import RHOS, simulated

import ppl_buffer as pb
from ppl_buffer.datasets import audiovisual_localization
from ppl_buffer.files import write_atomic
from ppl_buffer.network.observed import choose_likelihood

GROUPS = ("people", "simulated")


@dataclass(frozen=True)
class Method:
    """An estimator, and how many random orders or draws it averages over."""

    method: str = "autoregressive"
    block: int | None = None
    count: int = 32


# A block of 400 is all trials in one pass. The smaller the block, the more often the context is encoded again.
METHODS = {
    "K = 400": Method(),
    "K = 64": Method(block=64),
    "K = 16": Method(block=16),
    "block = 1": Method(block=1, count=4),
    "importance": Method("importance", count=600),
}
STABILITY_ORDERS = 128
BARS = {
    "people, importance: RMSE": 2.0,
    "people, importance: RMSE of the difference": 1.2,
    "people, importance: R^2 of the difference": 0.96,
    "people, K = 400: RMSE": 3.4,
    "simulated, K = 400: RMSE": 1.5,
    "simulated, K = 16 over K = 400: RMSE": 1.1,
}


def estimate(nets: dict[str, Any], sets: dict[str, Any], method: Method) -> dict[str, Any]:
    """Log evidence and its standard error of each set, by rho, and the time for one set."""
    estimates: dict[str, Any] = {}
    seconds = []
    for name in RHOS:
        inputs, response = sets[name]
        rows = []
        for row in range(len(response)):
            begun = time.perf_counter()
            one = {key: np.asarray(x[row]) for key, x in inputs.items()}
            options: dict[str, Any] = {"orders": method.count, "block": method.block}
            if method.method == "importance":
                options = {"draws": method.count}
            result = pb.log_evidence(
                nets[name], one, response[row], method=method.method, seed=row, progress=False, **options
            )
            seconds.append(time.perf_counter() - begun)
            rows.append([float(result.log_evidence), float(result.standard_error)])
        estimates[name] = rows
    return {"estimates": estimates, "seconds": float(np.median(seconds))}


def truths(group: str) -> dict[str, np.ndarray]:
    """By rho, (sets,) in the order of the data."""
    file = harness.RESULTS / f"multisensory_{'evidence' if group == 'people' else 'simulated'}_truth.json"
    sets = json.loads(file.read_text())["results"]["sets"]
    return {
        name: np.array([one["log_evidence"] for one in sorted(sets, key=lambda one: one["row"]) if one["rho"] == name])
        for name in RHOS
    }


def r_squared(truth: np.ndarray, estimates: np.ndarray) -> float:
    """Share of the truth's variance that the estimates explain."""
    return float(1 - ((estimates - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


def summarize(group: str, measured: dict[str, Any], truth: dict[str, np.ndarray]) -> dict[str, float]:
    """Errors of one method on one group of sets."""
    values = {name: np.array(rows)[:, 0] for name, rows in measured["estimates"].items()}
    error = np.concatenate([values[name] - truth[name] for name in RHOS])
    summary = {"rmse": float(np.sqrt((error**2).mean())), "mean_error": float(error.mean())}
    summary["median_absolute_error"] = float(np.median(np.abs(error)))
    both = [np.concatenate([x[name] for name in RHOS]) for x in (truth, values)]
    summary["r_squared"] = r_squared(*both)
    if group == "people":
        differences = [x["1"] - x["4/3"] for x in (truth, values)]
        summary["difference_rmse"] = float(np.sqrt(((differences[1] - differences[0]) ** 2).mean()))
        summary["difference_r_squared"] = r_squared(*differences)
    return {**summary, "seconds": measured["seconds"]}


def draw(by_method: dict[str, Any], truth: dict[str, np.ndarray], path: Path) -> None:
    """Log evidence (left) and its difference between the theories (right) against the truth, people's data."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, (method, result) in enumerate(by_method.items()):
        values = {name: np.array(rows)[:, 0] for name, rows in result["estimates"].items()}
        style = {"s": 22, "alpha": 0.75, "color": f"C{index}", "label": method, "linewidths": 0}
        left.scatter(*(np.concatenate([x[name] for name in RHOS]) for x in (truth, values)), **style)
        right.scatter(*(x["1"] - x["4/3"] for x in (truth, values)), **style)
    for axes, title in ((left, "log evidence"), (right, "log evidence, rho = 1 minus rho = 4/3")):
        ends = axes.get_xlim()
        axes.plot(ends, ends, color="0.6", linewidth=0.8, zorder=0)
        axes.set(title=title, xlabel="exact likelihood (nats)", ylabel="network (nats)")
    left.legend(frameon=False)
    figure.savefig(path, dpi=130)


def draw_stability(nets: dict[str, Any], inputs: dict[str, Any], response: np.ndarray, path: Path) -> None:
    """The estimate in one pass against the number of orders: the first sets of four people, both theories."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    rows = np.arange(0, min(8, len(response)), 2)
    some = {name: np.asarray(x)[rows] for name, x in inputs.items()}
    for axes, name in zip(figure.subplots(1, 2, sharey=True), RHOS, strict=True):
        pb.log_evidence(
            nets[name], some, response[rows], method="autoregressive", orders=STABILITY_ORDERS, progress=False
        ).plot(axes)
        axes.set_title(f"rho = {name}")
        axes.label_outer()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Estimate what is missing; print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rho1", default="multisensory_rho1", help="name in the zoo, or a path")
    parser.add_argument("--rho43", default="multisensory_rho43", help="name in the zoo, or a path")
    parser.add_argument("--data", default=None, help="file or folder of the audio-visual data")
    parser.add_argument("--parts", default="runs/multisensory_evidence", help="folder of the methods' estimates")
    parser.add_argument("--suffix", default="", help="of the results' names, for networks that are not the zoo's")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), help="to estimate by")
    parser.add_argument("--groups", nargs="+", default=list(GROUPS), choices=GROUPS, help="to estimate of")
    options = parser.parse_args()
    nets = {"1": pb.load(options.rho1, backend="torch"), "4/3": pb.load(options.rho43, backend="torch")}
    parts = Path(options.parts)
    parts.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}

    def part(group: str, name: str) -> Path:
        return parts / f"{group}_{name.replace(' ', '').replace('=', '')}.json"

    for group in options.groups:
        if group == "people":
            data = audiovisual_localization(options.data)
            sets = dict.fromkeys(RHOS, (data.inputs, data.outcomes["response"]))
        else:
            sets = {name: simulated(name) for name in RHOS}
        for name in options.methods:
            if not part(group, name).exists():
                print(f"{group}, {name}", flush=True)
                write_atomic(part(group, name), json.dumps(estimate(nets, sets, METHODS[name])).encode())
        if group == "people":
            draw_stability(nets, *sets["1"], harness.RESULTS / f"multisensory_stability{options.suffix}.png")
    for group in GROUPS:
        # All that is known, also from earlier calls.
        measured = {name: json.loads(part(group, name).read_text()) for name in METHODS if part(group, name).exists()}
        if not measured:
            continue
        truth = truths(group)
        summaries = {name: summarize(group, result, truth) for name, result in measured.items()}
        results[group] = {"methods": summaries, "estimates": {name: x["estimates"] for name, x in measured.items()}}
        columns = list(next(iter(summaries.values())))
        harness.print_table(
            f"Log evidence of {group} sets against the exact likelihood (nats; seconds for one set)",
            ["method", "orders or draws", *columns],
            [[name, METHODS[name].count, *row.values()] for name, row in summaries.items()],
        )
        if group == "people":
            shown = {name: measured[name] for name in ("K = 400", "importance") if name in measured}
            draw(shown, truth, harness.RESULTS / f"multisensory_evidence{options.suffix}.png")
    results["bars"] = BARS
    results["training_steps"] = {name: harness.training_steps(net) for name, net in nets.items()}
    results["importance_likelihood"] = choose_likelihood(nets["1"], "auto")
    harness.write_results(f"multisensory_evidence{options.suffix}", results)


if __name__ == "__main__":
    main()
