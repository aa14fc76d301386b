"""Do the checks see what is wrong? A ladder of under-trained networks of four simulators, five sizes of error each.

The rungs are one training of the direct likelihood, annealed after so many steps. Of each: the exact error by the
simulator's likelihood, what the training itself estimated, and, over seeds, how often `check_likelihood` fails it
where the simulator hides its likelihood (the residual test) and where it shows it; and the held-out gain, the lower
bound of the error. The same with the exact likelihood in the network's place says how often a right one fails.

    python benchmarks/ladder.py [--quick] [--out DIR] [--folder DIR] [--models two_step,ddm] [--seeds 10]
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from harness import bar, parse, print_bars, print_table, write_results

import ppl_buffer as pb
from ppl_buffer.network.config import Config

SIMULATORS: dict[str, Any] = {
    "two_step": pb.simulators.TwoStep(),
    "forgetting_q": pb.simulators.ForgettingQ(),
    "ddm": pb.simulators.DriftDiffusion(),
    "rlddm": pb.simulators.RLDriftDiffusion(),
}
STEPS = {
    "two_step": (200, 400, 700, 1100, 1700),
    "forgetting_q": (60, 120, 240, 480, 960),
    "ddm": (60, 120, 240, 480, 960),
    "rlddm": (100, 200, 400, 700, 1200),
}


def rungs(name: str, steps: tuple[int, ...], folder: Path) -> Iterator[tuple[int, Any]]:
    """The networks of one training, annealed after so many steps; those that are in the folder are loaded."""
    for count in steps:
        kept = folder / f"{name}_{count}.safetensors"
        if not kept.exists():
            run = folder / name
            pb.train(
                SIMULATORS[name], Config(likelihood_width=64), steps=count, parts="likelihood", out=run, workers=0,
                progress=False,
            )  # fmt: skip
            shutil.copy(run / "best.safetensors", kept)
        yield count, pb.load(kept, backend="torch")
