"""What a buffer that a trained set predictor gets later keeps of joint prediction: by way, weights and steps.

    python benchmarks/added_buffer.py [--steps 5000] [--added 500,1000,2000] [--folder DIR] [--quick] [--out DIR]

A transformer learns functions drawn from Gaussian processes, one target at a time (`train(context_only=1.0)`); then
`add_buffer` teaches it to predict targets jointly, in each of its ways, with low-rank additions of rank 4 and 8. What
was trained already (in --folder) is not trained again, and an interrupted training goes on. Of fewer steps the learning
rate falls to zero as well: each row is a training of its own, that goes on from the shorter one's before the fall.

Measured on one order of 16 targets, on the same functions after contexts of 8 to 128 points: the share of the gain of
re-encoding that is kept,

    (joint in one pass - each target alone) / (joint by re-encoding - each target alone),

where the last two are of the network without a buffer; the distance of the joint density from the exact one, with all
that is hidden integrated out; and by how much what is predicted without a buffer has changed.

Bars, after the most steps: a share of 0.75 where the buffer is read apart, 0.9 of low rank, 0.95 where everything
learns; no change of what is predicted without a buffer in the first two.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

import harness  # noqa: E402
from paper_tasks import BUFFER, CONTEXT, TARGETS, TASKS, TestSets, test_sets  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.network.config import is_of_buffer  # noqa: E402
from ppl_buffer.network.torch.weights import TorchNetwork  # noqa: E402
from ppl_buffer.predictive import density  # noqa: E402
from ppl_buffer.predictive.query import Query  # noqa: E402
from ppl_buffer.simulator import Arrays  # noqa: E402

# Label -> arguments of `add_buffer`, and the share to be kept.
WAYS: dict[str, tuple[dict[str, Any], float]] = {
    "apart": ({"way": "apart"}, 0.75),
    "low rank, 4": ({"way": "low_rank", "rank": 4}, 0.9),
    "low rank, 8": ({"way": "low_rank", "rank": 8}, 0.9),
    "all": ({"way": "all"}, 0.95),
}


@dataclass(frozen=True)
class Settings:
    """What is trained and measured."""

    config: pb.Config = pb.Config(likelihood_width=0)
    batch_size: int = 16
    buffer: int = BUFFER
    new: int = TARGETS
    context: tuple[int, int] = CONTEXT
    held_out: int = 64
    datasets: int = 128
    contexts: tuple[int, ...] = (8, 16, 32, 64, 128)
    targets: int = 16


QUICK = Settings(
    pb.Config(width=12, depth=2, heads=2, mlp=16, components=3, likelihood_width=0), batch_size=2, buffer=3, new=5,
    context=(2, 7), held_out=4, datasets=3, contexts=(7,), targets=3,
)  # fmt: skip


class Functions:
    """Draws of `GaussianProcess`, of whose lengthscale, variance and noise nobody is told: they are no parameters."""

    schema = pb.Schema(inputs={"x": pb.Real()}, outcomes={"y": pb.Real()})
    in_process = True

    def __init__(self) -> None:
        self._process = pb.simulators.GaussianProcess()

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """No parameters."""
        return {}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Places, as the simulator's."""
        return self._process.inputs(rng, size, trials)

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """A function for each data set."""
        return self._process.simulate(rng, self._process.prior(rng, len(inputs["x"])), inputs)


def train_all(settings: Settings, steps: int, added: Sequence[int], folder: Path) -> dict[str, Any]:
    """The network without a buffer, and label -> steps -> what came of it: trained now or before."""
    options = {
        "batch_size": settings.batch_size, "trials": (settings.buffer, settings.buffer), "targets": settings.new,
        "context": settings.context, "condition_masks": 1, "held_out": settings.held_out, "workers": 0,
        "progress": False,
    }  # fmt: skip
    base_folder = folder / f"base-{steps}"

    def make_base() -> TorchNetwork:
        return pb.train(
            Functions(), settings.config, parts="buffer", steps=steps, context_only=1.0, out=base_folder, **options
        )

    def add(name: str, count: int, way: dict[str, Any]) -> TorchNetwork:
        return pb.add_buffer(base, Functions(), steps=count, out=folder / name, **way, **options)

    base = stored(base_folder.with_suffix(".safetensors"), make_base)
    nets: dict[str, Any] = {"base": base}
    for label, (way, _) in WAYS.items():
        name = f"{label.replace(', ', '-').replace(' ', '_')}-after-{steps}"
        nets[label] = {
            count: stored(folder / f"{name}-{count}.safetensors", partial(add, name, count, way))
            for count in sorted(added)
        }
    return nets


def stored(path: Path, make: Callable[[], TorchNetwork]) -> TorchNetwork:
    """A checkpoint, made now unless it is there."""
    if not path.exists():
        print(f"training {path.stem}", flush=True)
        pb.save(make(), path)
    net = pb.load(str(path), backend="torch")
    assert isinstance(net, TorchNetwork)
    return net


def log_densities(net: TorchNetwork, sets: Sequence[TestSets], way: str) -> np.ndarray:
    """Log density of each target, in the first order: (contexts, datasets, targets).

    Args:
        net: the network.
        sets: one for each context.
        way: "one pass", "re-encoding" or "alone".
    """
    result = []
    for each in sets:
        n = each.context
        x, y = (
            torch.as_tensor(np.concatenate([part[:, :n], part[:, n:][:, each.orders[0]]], 1), dtype=torch.float32)
            for part in (each.x, each.y)
        )
        known, block = {"x": x[:, :n], "y": y[:, :n]}, 1 if way == "re-encoding" else None
        query = Query.build(net, {"x": x[:, n:]}, context=known, block=block)
        with torch.no_grad():
            score = density.marginals if way == "alone" else density.conditionals
            result.append(score(query, y[:, n:]).double().numpy())
    return np.stack(result)


def measure(base: TorchNetwork, nets: Mapping[str, Mapping[int, TorchNetwork]], sets: Sequence[TestSets]) -> Any:
    """Rows of the table, first those of the network without a buffer, and of how the later ways but one begin."""
    causal = copy.deepcopy(base)
    causal.weights["role.buffer"].copy_(causal.weights["role.context"])
    alone, reencoded = (log_densities(base, sets, way) for way in ("alone", "re-encoding"))
    exact = np.stack([each.exact for each in sets]) / alone.shape[2]

    def row(label: str, net: TorchNetwork, joint: np.ndarray, steps: int = 0) -> dict[str, Any]:
        per_set = joint.mean(2)
        gain, whole = ((part.mean(2) - alone.mean(2)).mean(0) for part in (joint, reencoded))
        share = gain.mean() / whole.mean()
        # Of a ratio of two means over the same functions.
        error = (gain - share * whole).std(ddof=1) / np.sqrt(len(gain)) / abs(whole.mean())
        drift = np.abs(log_densities(net, sets, "alone") - alone).max()
        learns = [x.numel() for name, x in net.weights.items() if label == "all" or is_of_buffer(name)]
        return {
            "way": label, "steps": steps, "weights that learn": sum(learns) if steps else 0, "share kept": float(share),
            "standard error": float(error), "log density": float(per_set.mean()),
            "below exact": float((exact - per_set).mean()), "change without a buffer": float(drift),
        }  # fmt: skip

    rows = [row("each alone", base, alone), row("re-encoding", base, reencoded)]
    rows.append(row("as a causal context", causal, log_densities(causal, sets, "one pass")))
    for label, by_steps in nets.items():
        rows += [row(label, net, log_densities(net, sets, "one pass"), steps) for steps, net in by_steps.items()]
    return rows


def bars_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each way must reach after the most steps."""
    last = {row["way"]: row for row in rows if row["steps"] == max(each["steps"] for each in rows)}
    bars = [harness.bar(f"{label}: share kept", last[label]["share kept"], least=least)
            for label, (_, least) in WAYS.items()]  # fmt: skip
    drifts = [row["change without a buffer"] for row in rows if row["way"] != "all"]
    return [*bars, harness.bar("apart, low rank: change without a buffer", max(drifts), most=0.0)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not trained, measure, print, write."""
    options = harness.parse(
        __doc__, arguments, steps=5000, added="500,1000,2000", folder="runs/added_buffer"
    )  # fmt: skip
    torch.set_num_threads(1)
    settings, steps, folder = Settings(), options.steps, Path(options.folder)
    added = [int(count) for count in options.added.split(",")]
    if options.quick:
        settings, steps, added, folder = QUICK, 2, [2], options.out / "quick"
    nets = train_all(settings, steps, added, folder)
    base = nets.pop("base")
    sets = test_sets(TASKS["gp"], settings.datasets, settings.contexts, settings.targets, orders=1)
    rows = measure(base, nets, sets)
    exact = float(np.mean([each.exact.mean() for each in sets]) / settings.targets)
    weights = sum(x.numel() for x in base.weights.values())
    title = f"{steps} steps without a buffer, {weights} weights; nats a target, exact {exact:.3f}"
    harness.print_table(title, list(rows[0]), [list(row.values()) for row in rows])
    bars = bars_of(rows)
    harness.print_bars(bars)
    content = {"settings": asdict(settings), "steps": steps, "weights": weights, "exact": exact, "rows": rows}
    harness.write_results("added_buffer", {**content, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
