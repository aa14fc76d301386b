"""Random functions predicted jointly: our network and its rivals against the exact density, at equal steps and time.

    python benchmarks/paper.py --task sawtooth [--rivals ours,tnp_d] [--steps 4000] [--seconds 1800]
        [--batch 16] [--targets 16,128] [--rounds 3] [--quick]

Tables E1 and E2 of Hassan et al. (ICLR 2026, arXiv 2510.09477), with what these lack: the exact joint density of the
same data sets, all that is hidden integrated out; newer rivals; and processor time. All networks are trained by one
loop on the same batches (`rivals/training.py`), for so many steps, and once more for so many seconds of updates; with
``--steps 0 --seconds`` for so many seconds alone, whose results are in a file of their own. What was trained already
(in --folder) is not trained again, and an interrupted training goes on. With ``--steps 0`` alone times are measured, of
untrained networks: medians of --rounds in which all take turns; there a script that is not part of this project can
call `main` with implementations of others.

The buffer holds 16 points in training. Of more targets "one pass" has them all in it; in "block 16" every 16 of them
join the context, which is how the source predicts 128, and what the bars are about.

"One order" is the density of the targets in one random order, "R orders" that of the mixture over R of them, which adds
up to log(R) / targets to what depends on order. Orders and data sets are the same for all rows.

Bars, of our network at equal steps, with a buffer of at most 16: at most 0.02 nats a target below the exact density
(`gp`), or 0.05 (`sawtooth`); at least 0.9, or 0.8, of the gain of re-encoding kept; at equal steps and at equal time no
rival nearer to the exact density and faster at drawing. The shipped networks of the same functions, which were trained
longer, stand beside the table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

import harness  # noqa: E402
import rivals  # noqa: E402
from paper_scores import as_trained, dominated, figures, joint_log_densities, share_kept, times_in_rounds  # noqa: E402
from paper_tasks import BUFFER, CONTEXT, TARGETS, TASKS, Task, TestSets, test_sets  # noqa: E402
from rivals.layers import Sizes  # noqa: E402
from rivals.training import train  # noqa: E402

BARS = {"gp": (0.02, 0.9), "gp_precise": (0.02, 0.9), "sawtooth": (0.05, 0.8)}


@dataclass(frozen=True)
class Settings:
    """What is trained and measured."""

    sizes: Sizes = Sizes()
    batch: int = 16
    seed: int = 0
    datasets: int = 128
    contexts: tuple[int, ...] = (8, 16, 32, 64, 128)
    targets: tuple[int, ...] = (16,)
    orders: int = 8
    draws: int = 256
    timed: tuple[tuple[int, int], ...] = ((64, 16), (64, 64), (1024, 16), (1024, 64))

    def functions(self, targets: int) -> int:
        """Data sets of a test: of more than 16 targets fewer, down to 32, since re-encoding takes a pass for each."""
        return max(min(self.datasets, 32), min(self.datasets, 16 * self.datasets // targets))


QUICK = Settings(
    Sizes(width=12, depth=2, heads=2, mlp=16, components=3), batch=2, datasets=3, contexts=(8,), targets=(5, 19),
    orders=2, draws=3, timed=((7, 5),),
)  # fmt: skip


def trained(
    name: str, task_name: str, settings: Settings, folder: Path, *, steps: int | None, seconds: float | None
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A network, trained now or before, and how far."""
    task = TASKS[task_name]
    budget = f"{steps}-steps" if steps is not None else f"{seconds:g}-seconds"
    net = rivals.make(name, replace(settings.sizes, waves=task.waves), settings.seed)
    batches = partial(task.batch, settings.seed, settings.batch)
    path = folder / f"{task_name}-{budget}-of-{settings.batch}" / f"{name}.safetensors"
    progress = train(net, batches, path, steps=steps, seconds=seconds)
    weights = sum(weight.numel() for weight in net.parameters())
    # None where nobody counted, as of what was trained on another machine.
    return net, {"weights": weights, "steps": progress.step, "seconds": round(progress.seconds, 1) or None}


def score(net_name: str, net: torch.nn.Module, sets: Sequence[TestSets]) -> dict[str, dict[str, Any]]:
    """Figures of each way to use a network."""
    return {
        label: figures([joint_log_densities(use, each) for each in sets], sets)
        for label, use in rivals.uses(net_name, net).items()
    }


def measure(
    task: Task, settings: Settings, nets: Mapping[str, torch.nn.Module], public: Mapping[str, rivals.Joint], rounds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Processor times of each way to use a network, by size: seconds for a density, and for all draws."""
    uses = {label: use for name, net in nets.items() for label, use in rivals.uses(name, net).items()}
    return times_in_rounds({**uses, **public}, task, settings.timed, settings.draws, rounds)


def print_scores(title: str, result: Mapping[str, Any]) -> None:
    """The table of one budget and number of targets."""
    rows = [
        [label, row["one order"]["log density"], row["one order"]["below exact"], row["one order"]["standard error"],
         row["one order"]["median below exact"], row["R orders"]["log density"], row["R orders"]["below exact"]]
        for label, row in result["scores"].items()
    ]  # fmt: skip
    first = next(iter(result["scores"].values()))
    columns = ["", "one order", "below exact", "s.e.", "median", f"{first['orders']} orders", "below exact"]
    harness.print_table(f"{title}: nats a target; exact {first['exact']:.3f}", columns, rows)
    shares = [[label, *by_orders.values()] for label, by_orders in result["share kept"].items()]
    harness.print_table("Share of the gain of re-encoding that is kept", ["", "one order", columns[5]], shares)


def print_times(seconds: Mapping[str, Mapping[str, Any]], draws: int) -> None:
    """Milliseconds for a density, seconds for draws."""
    sizes = list(next(iter(seconds.values())))
    rows = [[label, *(1e3 * by_size[size]["density"] for size in sizes),
             *(by_size[size]["sampling"] for size in sizes)] for label, by_size in seconds.items()]  # fmt: skip
    columns = ["", *(f"ms, {size}" for size in sizes), *(f"s, {size}" for size in sizes)]
    harness.print_table(f"Processor time of one joint density (ms), and of {draws} draws (s)", columns, rows)


def time_of(seconds: Mapping[str, Mapping[str, Any]], settings: Settings, targets: int) -> tuple[str, dict[str, float]]:
    """The size nearest to so many targets, after the smallest context, and label -> seconds for draws there."""
    n, m = min(settings.timed, key=lambda size: (size[0], abs(size[1] - targets)))
    size = f"N={n}, M={m}"
    return size, {label: by_size[size]["sampling"] for label, by_size in seconds.items()}


def draw_figure(path: Path, results: Mapping[str, Any], seconds: Mapping[str, Any], settings: Settings) -> None:
    """Distance from the exact density against the time for draws, a number for each way, which the legend tells."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shape = len(results), len(settings.targets)
    figure, panels = pyplot.subplots(*shape, figsize=(5 * shape[1] + 2, 5 * shape[0]), squeeze=False)
    handles: dict[int, Any] = {}
    for row, (budget, result) in zip(panels, results.items(), strict=True):
        for panel, targets in zip(row, settings.targets, strict=True):
            size, sampling = time_of(seconds, settings, targets)
            scores = result["targets"][str(targets)]["scores"]
            below = {label: scored["one order"]["below exact"] for label, scored in scores.items()}
            for index, (label, scored) in enumerate(scores.items(), start=1):
                if label != rivals.OURS and scored == scores.get(rivals.OURS):
                    continue  # a block that holds all targets is one pass
                color = "C3" if label.startswith("ours") else "C0"
                style = {"marker": f"${index}$", "markersize": 9 if index < 10 else 13, "color": color}
                (point,) = panel.plot(sampling[label], below[label], linestyle="", label=label, **style)
                handles.setdefault(index, point)
            panel.set(xscale="log", xlabel=f"processor seconds for {settings.draws} draws, {size}")
            panel.set_yscale("log" if min(below.values()) > 0 else "linear")
            panel.set_title(f"{budget}, {targets} targets")
            panel.set_ylabel("nats a target below the exact density, one order")
    in_order = [handles[index] for index in sorted(handles)]
    legend = figure.legend(handles=in_order, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight", bbox_extra_artists=[legend])
    pyplot.close(figure)


def bars_of(task_name: str, by_targets: Mapping[str, Any], equal_steps: bool) -> list[dict[str, Any]]:
    """What our network must reach, where it was measured; at equal time, that nothing is nearer and faster."""
    bars, (most, least) = [], BARS[task_name]
    for targets, result in by_targets.items():
        label = as_trained(int(targets))
        if label not in result["scores"]:
            continue
        if equal_steps:
            what = f"{targets} targets, {label}"
            below = result["scores"][label]["one order"]["below exact"]
            bars.append(harness.bar(f"{what}: nats a target below exact", below, most=most))
            share = result["share kept"][label]["one order"]
            if share is not None:
                bars.append(harness.bar(f"{what}: share of the gain of re-encoding kept", share, least=least))
        for ours, better in result["dominated"].items():
            bars.append(harness.bar(f"{targets} targets: rivals nearer and faster than {ours}", len(better), most=0))
    return bars


def score_shipped(task: Task, sets: Mapping[int, Sequence[TestSets]]) -> dict[str, dict[str, Any]]:
    """Figures of the shipped network of the same functions, by targets: trained longer, and by its own recipe."""
    if not task.shipped:
        return {}
    use = task.make_shipped()
    scores = {
        str(targets): figures([joint_log_densities(use, each) for each in of_targets], of_targets)
        for targets, of_targets in sets.items()
    }
    rows = [
        [
            targets,
            *(row[which][name] for which in ("one order", "R orders") for name in ("below exact", "standard error")),
        ]
        for targets, row in scores.items()
    ]
    columns = ["targets", "one order", "s.e.", "R orders", "s.e."]
    harness.print_table(f"Shipped {task.shipped}, one pass: nats a target below the exact density", columns, rows)
    return scores


def compare(
    options: argparse.Namespace,
    settings: Settings,
    budgets: Mapping[str, Mapping[str, Any]],
    sets: Mapping[int, Sequence[TestSets]],
    folder: Path,
) -> tuple[dict[str, Any], dict[str, torch.nn.Module]]:
    """Train with each budget, score and print: what was measured, and the last networks."""
    results, nets = {}, {}
    for budget, length in budgets.items():
        training, by_targets = {}, {str(targets): {"scores": {}} for targets in settings.targets}
        for name in options.rivals.split(","):
            nets[name], training[name] = trained(name, options.task, settings, folder, **length)
            for targets, each in sets.items():
                by_targets[str(targets)]["scores"] |= score(name, nets[name], each)
        trainings = [[name, row["weights"], row["steps"], row["seconds"]] for name, row in training.items()]
        harness.print_table(f"Training, {budget}", ["", "weights", "steps", "processor seconds"], trainings)
        for targets, result in by_targets.items():
            result["share kept"] = {
                label: {which: share_kept(result["scores"], which, label) for which in ("one order", "R orders")}
                for label in dict.fromkeys([rivals.OURS, as_trained(int(targets))])
            }
            print_scores(f"{budget}, {targets} targets", result)
        results[budget] = {"training": training, "targets": by_targets}
    return results, nets


def main(arguments: Sequence[str] | None = None, public: Mapping[str, rivals.Joint] | None = None) -> None:
    """Train what is not trained, measure, print, write, draw.

    Args:
        arguments: of the command line; None = those of the process.
        public: label -> way to use an implementation of others, of the same sizes, to be timed with ours and the rivals
            (``--steps 0``).
    """
    options = harness.parse(
        __doc__, arguments, task="sawtooth", rivals=",".join(rivals.NETWORKS), steps=4000, seconds=0.0,
        folder="runs/paper", datasets=128, orders=8, targets="16", rounds=1, batch=16,
    )  # fmt: skip
    torch.set_num_threads(1)
    counts = tuple(int(count) for count in options.targets.split(","))
    settings = Settings(batch=options.batch, datasets=options.datasets, orders=options.orders, targets=counts)
    budgets: dict[str, dict[str, Any]] = {}
    if options.steps:
        budgets[f"{options.steps} steps"] = {"steps": options.steps, "seconds": None}
    if options.seconds:
        budgets[f"{options.seconds:g} seconds"] = {"steps": None, "seconds": options.seconds}
    folder = Path(options.folder)
    if options.quick:
        settings, folder = QUICK, options.out / "quick"
        if options.steps:
            budgets = {"2 steps": {"steps": 2, "seconds": None}}
        elif options.seconds:
            budgets = {"0.3 seconds": {"steps": None, "seconds": 0.3}}
    task = TASKS[options.task]
    sizes = {"context": CONTEXT, "buffer": BUFFER, "targets": TARGETS, "waves": task.waves}
    content: dict[str, Any] = {"task": options.task, "settings": {**asdict(settings), "training": sizes}}
    if not budgets:
        nets = {
            name: rivals.make(name, replace(settings.sizes, waves=task.waves)) for name in options.rivals.split(",")
        }
        content["seconds"] = measure(task, settings, nets, public or {}, options.rounds)
        content |= {"rounds": options.rounds, "implementations of others": list(public or {})}
        print_times(content["seconds"], settings.draws)
        harness.write_results("paper_times", content, options.out)
        return
    sets = {
        targets: test_sets(task, settings.functions(targets), settings.contexts, targets, settings.orders)
        for targets in settings.targets
    }
    results, nets = compare(options, settings, budgets, sets, folder)
    shipped = score_shipped(task, sets)
    seconds = measure(task, settings, nets, {}, options.rounds)
    print_times(seconds, settings.draws)
    for result in results.values():
        for targets, by_target in result["targets"].items():
            by_target["dominated"] = dominated(by_target["scores"], time_of(seconds, settings, int(targets))[1])
    bars = bars_of(options.task, next(iter(results.values()))["targets"], equal_steps=bool(options.steps))
    for targets, row in shipped.items():
        what = f"{targets} targets, shipped {task.shipped}, one pass: nats a target below exact"
        bars.append(harness.bar(what, row["one order"]["below exact"], most=BARS[options.task][0]))
    harness.print_bars(bars)
    content |= {"budgets": results, "shipped": shipped, "seconds": seconds, "bars": bars}
    name = f"paper_{options.task}" if options.steps else f"paper_{options.task}_seconds"
    harness.write_results(name, content, options.out)
    draw_figure(options.out / f"{name}.png", results, seconds, settings)


if __name__ == "__main__":
    main()
