"""Write into the records of shipped networks where the values of their training data lay.

`ppl_buffer.train` collects these ranges itself; transformers that are older than their recipes are older than that too.
Data sets are simulated at a fixed seed by the recipe's simulator. The arrays stay as they are, byte for byte.

    python benchmarks/add_ranges.py [NAME ...] [--out FOLDER]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import ppl_buffer as pb
from ppl_buffer.network import checkpoint
from ppl_buffer.network.ranges import ValueRange, ranges_of
from ppl_buffer.training.batches import STANDARDIZATION, draw
from ppl_buffer.workflow.recipes import BUFFER, Recipe, make_simulator, recipe_names

PRETRAINED = Path(pb.__file__).parent / "pretrained"
DATA_SETS, MOST_TRIALS, SEED = 2000, 128, 0


def simulate(simulator: Any, trials: int) -> dict[str, np.ndarray]:
    """Simulated data sets: name -> (data sets, trials)."""
    data_sets, counts = draw(simulator, SEED, 0, STANDARDIZATION, DATA_SETS, trials)
    if data_sets is None:
        raise counts.exhausted("the ranges")
    return data_sets[1]


def ranges(name: str) -> dict[str, ValueRange]:
    """The range of every input, outcome and feedback of a network's training data."""
    simulator = make_simulator(Recipe.read(name).simulator)
    record = pb.load(name, backend="torch").record
    return ranges_of(simulator.schema, simulate(simulator, min(MOST_TRIALS, record.trials)))


def older() -> list[str]:
    """The networks whose transformers are older than their recipes."""
    return [name for name in recipe_names() if BUFFER in Recipe.read(name).earlier]


def main() -> None:
    """Read the options and write the files."""
    parser = argparse.ArgumentParser(description="Write the ranges of the training data into shipped networks.")
    parser.add_argument("names", nargs="*", help="by default those whose transformers are older than their recipes")
    parser.add_argument("--out", type=Path, default=PRETRAINED)
    options = parser.parse_args()
    for name in options.names or older():
        net = pb.load(name, backend="torch")
        assert net.record is not None
        checkpoint.write(net, replace(net.record, ranges=ranges(name)), options.out / f"{name}.safetensors")
        print(f"Written: {options.out / name}.safetensors")


if __name__ == "__main__":
    main()
