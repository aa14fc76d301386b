"""EEG of people whom a network never saw, beside a stationary Gaussian: interpolated, forecast, a channel made up for.

    python benchmarks/eeg.py --data DIR [--tasks channels,missing] [--splits 0] [--folder DIR] [--quick]

Table E3 of Hassan et al. (ICLR 2026, arXiv 2510.09477) on the seven frontal channels of 16 people of the UCI EEG
database (Zhang et al. 1995), with what it lacks: a reference, and the task of people with a bad electrode.

- ``channels``: an instant is a trial with the seven channels as its outcomes, one given those before it. Given some
  instants, others anywhere (interpolation), or what comes next (forecasting). Joint densities are of one pass, in
  random order and in that of time, of a mixture of random orders, and of one that is half in the order of time, as
  the training was.
- ``missing``: the outcome is one of the channels; which, and the other six at the same instant and how they changed
  since the sample before are inputs. Given what was seen of the channel up to some instant, the rest of it; and given
  what was seen before and after a stretch of the same length, that stretch. Each sample alone, and means over windows
  of 150 ms in draws of the whole stretch.

Forecasts are also made by dilated convolutions from left to right (`rivals/single_task.py`), trained on whole
recordings, which can do nothing else.

In each of four splits two people are for the test, two for the end of the training, twelve to learn from; channels are
standardised over the twelve. The Gaussian has the mean and the covariances of all pairs of channels at all lags of
these twelve: its densities given any part of a recording are exact. What was trained or measured already (in --folder)
is not done again, and an interrupted training goes on.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

import harness  # noqa: E402
from eeg_gaussian import StationaryGaussian  # noqa: E402
from eeg_recordings import PEOPLE, PLACE, Recordings, columns, read, simulator  # noqa: E402
from rivals.single_task import DilatedConvolutions, fit  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.predictive import density  # noqa: E402
from ppl_buffer.predictive.query import Query  # noqa: E402
from ppl_buffer.pyro import JointPredictive  # noqa: E402

TASKS = ("channels", "missing")
# Enough for the people who end the training: channels as outcomes are over-fitted by 36,000.
STEPS = 20_000
CONFIG = pb.Config(width=64, depth=4, heads=4, mlp=128, components=8)
# Shares of the recordings of a training that are forecast, or have a gap.
PRACTISED = {"channels": {"forecasting": 0.4}, "missing": {"forecasting": 0.3, "gap_filling": 0.3}}


def trained(task: str, recordings: Recordings, run: Path, quick: bool) -> Any:
    """A network, trained now or before."""
    if not (run / "done").exists():
        sizes: dict[str, Any] = {"trials": (16, 64), "context": (4, 160), "targets": 32, "batch_size": 16}
        config = CONFIG
        if quick:
            sizes = {"trials": (5, 5), "context": (3, 3), "targets": 4, "batch_size": 2, "held_out": 4}
            config = pb.Config(width=12, depth=2, heads=2, mlp=16, components=3)
        pb.train(
            simulator(task, recordings), config, steps=3 if quick else STEPS, out=run, optimizer="muon",
            learning_rate=2e-3, **PRACTISED[task], in_order=0.5, order_by="time", context_free_fraction=0.1,
            workers=0, patience=12, progress=not quick, **sizes,
        )  # fmt: skip
        (run / "done").touch()
    return pb.load(run / "best.safetensors", backend="torch")


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    contexts: tuple[int, ...] = (8, 16, 32, 64, 128, 192)
    targets: tuple[int, ...] = (16, 64)
    recordings: int = 120
    orders: int = 8
    draws: int = 50
    every: int = 3
    window: int = 38
    end: tuple[int, int] = (160, 256)
    within: tuple[int, int] = (80, 176)

    @property
    def lost(self) -> dict[str, tuple[int, int]]:
        """First sample of a stretch of a channel that is missing, and the first after it."""
        return {"to the end": self.end, "within": self.within}


QUICK = Settings(
    contexts=(7,), targets=(5,), recordings=3, orders=2, draws=3, window=5, end=(250, 256), within=(100, 107)
)


def designs(rng: np.random.Generator, kind: str, size: int, targets: int) -> np.ndarray:
    """Which of 256 samples are given and to be predicted, in random order: (size + targets,)."""
    if kind == "interpolation":
        return rng.permutation(256)[: size + targets]
    return np.concatenate([np.arange(size), size + rng.permutation(targets)])


def score_channels(net: Any, recordings: Recordings, settings: Settings) -> list[dict[str, Any]]:
    """Nats a target and channel of people in the test, by kind, sizes and what predicts."""
    gaussian, rows = StationaryGaussian.fit(recordings.learnt), []
    x = recordings.of(recordings.test)[: settings.recordings].swapaxes(1, 2)
    for kind in ("interpolation", "forecasting"):
        for targets in settings.targets:
            for size in (size for size in settings.contexts if size + targets <= 256):
                rng = np.random.default_rng([size, targets])
                # Recordings in groups of ten that share a design.
                groups = [x[start : start + 10] for start in range(0, len(x), 10)]
                scores = [
                    channel_scores(net, gaussian, group, designs(rng, kind, size, targets), size, settings.orders)
                    for group in groups
                ]
                means = {key: np.concatenate([each[key] for each in scores]) for key in scores[0]}
                row = {name: float(value.mean()) for name, value in means.items()}
                rows.append({"kind": kind, "targets": targets, "context": size, **row})
    return rows


def score_convolutions(recordings: Recordings, settings: Settings, quick: bool) -> list[dict[str, Any]]:
    """Nats a target and channel of the same forecasts, in the order of time."""
    torch.manual_seed(0)
    learnt, validation, test = (
        torch.as_tensor(x, dtype=torch.float32)
        for x in (recordings.learnt, recordings.of(recordings.validation), recordings.of(recordings.test))
    )
    net, epochs = fit(
        DilatedConvolutions(learnt.shape[1]), learnt[:20] if quick else learnt, validation, batch=16,
        patience=1 if quick else 6,
    )  # fmt: skip
    with torch.no_grad():
        log_prob = net.log_prob(test[: settings.recordings]).numpy() / learnt.shape[1]
    return [
        {"targets": targets, "context": size, "dilated convolutions": float(log_prob[:, size : size + targets].mean()),
         "epochs": epochs}
        for targets in settings.targets
        for size in settings.contexts
        if size + targets <= 256
    ]  # fmt: skip


def channel_scores(
    net: Any, gaussian: StationaryGaussian, x: np.ndarray, places: np.ndarray, size: int, orders: int
) -> dict[str, np.ndarray]:
    """Log densities (R,) of the targets of recordings (R, 256, 7), per target and channel."""
    time = torch.as_tensor(places / 256, dtype=torch.float32)
    values = torch.as_tensor(x[:, places], dtype=torch.float32)
    names = list(net.schema.outcomes)
    context = {name: values[:, :size, i] for i, name in enumerate(names)}
    context["time"] = time[:size].expand(len(x), size)
    targets, value = {"time": time[size:].expand(len(x), -1)}, values[:, size:]
    query = Query.build(net, targets, context=context)
    in_time = torch.as_tensor(np.argsort(places[size:]))
    ordered = Query.build(net, {"time": targets["time"][:, in_time]}, context=context)
    mixture = JointPredictive(net, targets, context=context, orders=orders)
    with torch.no_grad():
        result = {
            "apart": density.marginals(query, value).sum(-1),
            "one pass": density.conditionals(query, value).sum(-1),
            "one pass, in time": density.conditionals(ordered, value[:, in_time]).sum(-1),
            "orders": mixture.log_prob(value),
        }
        # As in training: half of it in the order of time, half in any.
        both = torch.logaddexp(result["one pass, in time"], result["orders"]) - math.log(2)
        result["time and orders"] = both
    known = gaussian.log_density(x, places[:size], places[size:])
    count = (len(places) - size) * len(names)
    return {name: np.asarray(value, dtype=float) / count for name, value in {**result, **known}.items()}


def score_missing(net: Any, recordings: Recordings, settings: Settings) -> list[dict[str, Any]]:
    """Of a stretch of each channel: nats a sample, root mean square error, share in the 90 % intervals."""
    gaussian = StationaryGaussian.fit(recordings.learnt)
    return [
        {"stretch": name} | row
        for name, stretch in settings.lost.items()
        for row in score_stretch(net, gaussian, recordings, settings, stretch)
    ]


def score_stretch(
    net: Any, gaussian: StationaryGaussian, recordings: Recordings, settings: Settings, stretch: tuple[int, int]
) -> list[dict[str, Any]]:
    """The same of one stretch, by channel."""
    rows, (start, stop) = [], stretch
    x = recordings.of(recordings.test)[: settings.recordings]
    outcomes, inputs = columns(x, recordings.time)
    data = {
        name: torch.as_tensor(np.array(value), dtype=torch.float32) for name, value in {**inputs, **outcomes}.items()
    }
    context = {name: torch.cat([value[:, :start], value[:, stop:]], 1) for name, value in data.items()}
    lost = {name: value[:, start:stop] for name, value in data.items()}
    value = lost.pop("voltage")
    joint, apart, pit, mean, windows = [], [], [], [], []
    for first in range(0, len(value), len(x)):
        part = slice(first, first + len(x))
        given = {name: each[part] for name, each in context.items()}
        query = Query.build(net, {name: each[part] for name, each in lost.items()}, context=given)
        alone = JointPredictive(net, {name: each[part].T[..., None] for name, each in lost.items()}, context=given)
        with torch.no_grad():
            joint.append(density.conditionals(query, value[part]).mean(-1))
            apart.append(density.marginals(query, value[part]).mean(-1))
            pit.append(alone.pit(value[part].T[..., None])[..., 0].T)
            mean.append(alone.mean[..., 0].T)
        some = slice(first, first + len(x), settings.every)
        some_lost, some_given = ({name: each[some] for name, each in group.items()} for group in (lost, context))
        windows.append(covered_windows(net, some_lost, some_given, value[some], settings))
    for channel, name in enumerate(recordings.names):
        true = x[:, channel, start:stop]
        known = gaussian.missing(x, channel, start, stop)
        ours = {"joint": joint[channel], "apart": apart[channel]}
        row = {"channel": name, **{key: float(each.mean()) for key, each in ours.items()}}
        row["rmse"] = float(np.sqrt(((mean[channel].numpy() - true) ** 2).mean()))
        row["covered"] = float((np.abs(pit[channel].numpy() - 0.5) < 0.45).mean())
        row["windows covered"] = windows[channel]
        rows.append(row | {f"Gaussian {key}": each for key, each in known.items()})
    return rows


def covered_windows(
    net: Any, lost: dict[str, torch.Tensor], given: dict[str, torch.Tensor], value: torch.Tensor, settings: Settings
) -> float:
    """Share of the means over windows of `value` (R, T) within their 90 % intervals, over draws of all T together."""
    torch.manual_seed(0)
    with torch.no_grad():
        draws = JointPredictive(net, lost, context=given).sample((settings.draws,))
    last = value.shape[1] // settings.window * settings.window
    predicted, true = (x[..., :last].unflatten(-1, (-1, settings.window)).mean(-1).numpy() for x in (draws, value))
    low, high = np.quantile(predicted, [0.05, 0.95], axis=0)
    return float(((low < true) & (true < high)).mean())


def measure(
    task: str, net: Any, recordings: Recordings, settings: Settings, run: Path, quick: bool
) -> dict[str, list[dict[str, Any]]]:
    """Rows by what they are of, measured now or before."""
    scorers: dict[str, dict[str, Callable[[], list[dict[str, Any]]]]] = {
        "missing": {"missing": lambda: score_missing(net, recordings, settings)},
        "channels": {
            "channels": lambda: score_channels(net, recordings, settings),
            "convolutions": lambda: score_convolutions(recordings, settings, quick),
        },
    }
    measured = {}
    for kind, score in scorers[task].items():
        kept = run / f"{kind}.json"
        if not kept.exists():
            with warnings.catch_warnings():
                # People in the test have values that those to learn from had not: that is the test.
                warnings.simplefilter("ignore", UserWarning)
                rows = score()
            kept.write_text(json.dumps(rows))
        measured[kind] = json.loads(kept.read_text())
    return measured


def means(rows: Sequence[dict[str, Any]], by: Sequence[str], leave_out: Sequence[str]) -> list[dict[str, Any]]:
    """Means of all numbers over the rows that agree in some columns."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    numbers = [name for name in rows[0] if name not in {*by, *leave_out}]
    return [
        dict(zip(by, key, strict=True)) | {name: float(np.mean([row[name] for row in group])) for name in numbers}
        for key, group in groups.items()
    ]


def above_gaussian(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with one column more: by how much the joint density is above the Gaussian's."""
    return [row | {"above the Gaussian": row["time and orders"] - row["Gaussian"]} for row in rows]


def print_rows(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """A table of rows that have the same columns."""
    harness.print_table(title, list(rows[0]), [list(row.values()) for row in rows])


def bars(scores: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What the figures should be."""
    result = []
    rows = means(scores["channels"], ["kind"], ["targets", "context", "split"]) if "channels" in scores else []
    for row in above_gaussian(rows):
        what = f"joint density of {row['kind']} above the Gaussian's, nats"
        result.append(harness.bar(what, row["above the Gaussian"], least=0.0))
    for row in means(scores["missing"], ["stretch"], ["split", "channel"]) if "missing" in scores else ():
        what = f"distance of the coverage of 90 % intervals from 0.9, {row['stretch']}"
        result.append(harness.bar(what, abs(row["covered"] - 0.9), most=0.03))
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not trained, measure, print, write."""
    options = harness.parse(__doc__, arguments, data="", tasks=",".join(TASKS), splits="0,1,2,3", folder="")
    if not options.data:
        raise SystemExit(f"--data: expected a folder that holds {PLACE}")
    settings = QUICK if options.quick else Settings()
    # What a quick run leaves would be taken for the real thing later.
    folder = Path(options.folder or tempfile.mkdtemp(prefix="eeg-")) / ("quick" if options.quick else "")
    splits = [int(split) for split in options.splits.split(",")]
    scores: dict[str, list[dict[str, Any]]] = {}
    trainings: dict[str, dict[str, int]] = {}
    for task in options.tasks.split(","):
        for split in splits:
            recordings = read(Path(options.data), split)
            run = folder / f"{task}-{split}"
            net = trained(task, recordings, run, options.quick)
            trainings[f"{task}, split {split}"] = harness.training_steps(net)
            measured = measure(task, net, recordings, settings, run, options.quick)
            for kind, rows in measured.items():
                scores.setdefault(kind, []).extend({"split": split, **row} for row in rows)
    if "channels" in scores:
        rows = means(scores["channels"], ["kind", "targets", "context"], ["split"])
        print_rows("People who were never seen: nats a target and channel", above_gaussian(rows))
        for title, by in {"mean over contexts": "targets", "by context": "context", "by split": "split"}.items():
            left_out = [name for name in ("targets", "context", "split") if name != by]
            print_rows(f"The same, {title}", above_gaussian(means(scores["channels"], ["kind", by], left_out)))
        rows = means(scores["convolutions"], ["targets"], ["context", "split", "epochs"])
        print_rows("Forecasts by dilated convolutions, in time, mean over contexts", rows)
    if "missing" in scores:
        print_rows(
            "A missing channel: nats a sample of a stretch", means(scores["missing"], ["stretch", "channel"], ["split"])
        )
        print_rows("The same, by split", means(scores["missing"], ["stretch", "split"], ["channel"]))
    met = bars(scores)
    harness.print_bars(met)
    if not options.quick:
        results = {"training_steps": trainings, "people": PEOPLE, "scores": scores, "bars": met}
        harness.write_results("eeg", results, options.out)


if __name__ == "__main__":
    main()
