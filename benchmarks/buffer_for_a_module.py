"""What a buffer keeps of joint prediction that a set predictor which is not ours gets later: TNP-D, on functions.

    python benchmarks/buffer_for_a_module.py [--steps 2000] [--added 500,1000] [--folder DIR] [--quick] [--out DIR]

A TNP-D (`rivals/tnp_d.py`) learns functions drawn from Gaussian processes, one target at a time; then
`add_buffer_to_module` teaches it to predict targets jointly, in each of its ways. What was trained already (in
--folder) is not trained again; buffers are trained anew.

Measured on one order of 16 targets, on the same functions after contexts of 8 to 128 points: the share of the gain of
re-encoding that is kept,

    (joint in one pass - each target alone) / (joint by re-encoding - each target alone),

where the last two are of the module by itself; and by how much what is predicted without a buffer has changed.

Bars, after the most steps: a share of 0.75 where the buffer is read apart, 0.9 of low rank; no change of what is
predicted without a buffer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

import harness  # noqa: E402
import rivals  # noqa: E402
from paper_tasks import BUFFER, CONTEXT, TASKS, Task, TestSets, test_sets  # noqa: E402
from rivals.added import Shown  # noqa: E402
from rivals.backbone import Pairs  # noqa: E402
from rivals.layers import Sizes  # noqa: E402
from rivals.tnp_d import Reencoding, SetPredictor  # noqa: E402
from rivals.training import train  # noqa: E402

import ppl_buffer as pb  # noqa: E402

WAYS = {"apart": 0.75, "low_rank": 0.9}


@dataclass(frozen=True)
class Settings:
    """What is trained and measured."""

    sizes: Sizes = Sizes()
    batch: int = 16
    context: tuple[int, int] = CONTEXT
    buffer: int = BUFFER
    datasets: int = 128
    contexts: tuple[int, ...] = (8, 16, 32, 64, 128)
    targets: int = 16


QUICK = Settings(
    Sizes(width=32, depth=2, heads=2, mlp=16, components=3), batch=2, context=(2, 7), buffer=3, datasets=3,
    contexts=(7,), targets=3,
)  # fmt: skip


def train_alone(task: Task, settings: Settings, steps: int, folder: Path) -> SetPredictor:
    """The set predictor, trained now or before."""
    net = rivals.make("tnp_d", replace(settings.sizes, waves=task.waves), seed=0)
    assert isinstance(net, SetPredictor)
    train(net, partial(task.batch, 0, settings.batch), folder / f"tnp_d-{steps}.safetensors", steps=steps)
    return net


def add_buffer(net: SetPredictor, task: Task, settings: Settings, way: str, steps: int) -> pb.BufferedModule:
    """The module with a buffer, trained."""

    def draw(rng: np.random.Generator, size: int, points: int) -> Pairs:
        return task.standardised(*task.draw(rng, size, points))

    return pb.add_buffer_to_module(
        Shown(net), draw, way, steps=steps, context=settings.context, targets=settings.buffer, batch_size=settings.batch
    )


def pairs_of(sets: TestSets) -> tuple[Pairs, Tensor, Tensor]:
    """Context and targets, in the first order, on the standardised scale."""
    x, y = sets.task.standardised(sets.x, sets.y)
    n, order = sets.context, sets.orders[0]
    return (x[:, :n], y[:, :n]), x[:, n:][:, order], y[:, n:][:, order]


@torch.no_grad()
def measure(net: SetPredictor, buffered: dict[tuple[str, int], pb.BufferedModule], sets: Sequence[TestSets]) -> Any:
    """Rows of the table; of no steps, a buffer of low rank is the context read causally."""
    data = [pairs_of(each) for each in sets]
    by_itself, anew = (
        np.stack([way.log_prob(*each).double().numpy() for each in data]) for way in (net, Reencoding(net))
    )
    whole = (anew - by_itself).mean((0, 2))
    rows = []
    for (way, steps), each in buffered.items():
        joint = np.stack([each.conditionals(*part).double().numpy() for part in data])
        marginals = np.stack([each.marginals(*part).double().numpy() for part in data])
        gain = (joint - by_itself).mean((0, 2))
        share = gain.mean() / whole.mean()
        # Of a ratio of two means over the same functions.
        error = (gain - share * whole).std(ddof=1) / np.sqrt(len(gain)) / abs(whole.mean())
        rows.append({
            "way": way, "steps": steps, "weights that learn": sum(x.numel() for x in each.added.parameters()),
            "share kept": float(share), "standard error": float(error), "gain of re-encoding": float(whole.mean()),
            "change without a buffer": float(np.abs(marginals - by_itself).max()),
        })  # fmt: skip
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, print, write."""
    options = harness.parse(__doc__, arguments, steps=2000, added="500,1000", folder="runs/buffer_for_a_module")
    torch.set_num_threads(1)
    settings, steps, folder = Settings(), options.steps, Path(options.folder)
    added = [int(count) for count in options.added.split(",")]
    if options.quick:
        settings, steps, added, folder = QUICK, 2, [2], options.out / "quick"
    task = TASKS["gp"]
    net = train_alone(task, settings, steps, folder)
    example = pairs_of(test_sets(task, 2, (4,), 3, orders=1)[0])[0]
    buffered = {("low_rank", 0): pb.BufferedModule(Shown(net), example)}
    for way in WAYS:
        for count in added:
            buffered[way, count] = add_buffer(net, task, settings, way, count)
    sets = test_sets(task, settings.datasets, settings.contexts, settings.targets, orders=1)
    rows = measure(net, buffered, sets)
    weights = sum(x.numel() for x in net.parameters())
    harness.print_table(f"TNP-D, {weights} weights, {steps} steps", list(rows[0]), [list(row.values()) for row in rows])
    last = {row["way"]: row for row in rows if row["steps"] == max(added)}
    bars = [harness.bar(f"{way}: share kept", last[way]["share kept"], least=least) for way, least in WAYS.items()]
    drift = max(row["change without a buffer"] for row in rows)
    bars.append(harness.bar("change without a buffer", drift, most=0.0))
    harness.print_bars(bars)
    content = {"settings": asdict(settings), "steps": steps, "weights": weights, "rows": rows, "bars": bars}
    harness.write_results("buffer_for_a_module", content, options.out)


if __name__ == "__main__":
    main()
