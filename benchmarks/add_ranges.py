"""Write into the shipped networks' records where the values of their training data lay.

`ppl_buffer.train` collects these ranges itself; the shipped weights are older. Data sets are simulated at a fixed seed
by the recipe's simulator, and by the source of the distillation sets where the record names one. The arrays stay as
they are, byte for byte.

    python benchmarks/add_ranges.py [NAME ...] [--out FOLDER]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import ppl_buffer as pb
from ppl_buffer.network import checkpoint
from ppl_buffer.network.ranges import ValueRange, ranges_of
from ppl_buffer.training.batches import STANDARDIZATION, draw
from ppl_buffer.training.draws import augment_data
from ppl_buffer.workflow.recipes import Recipe, make_simulator

PRETRAINED = Path(pb.__file__).parent / "pretrained"
DATA_SETS, MOST_TRIALS, SEED = 2000, 128, 0


def simulate(simulator: Any, trials: int) -> dict[str, np.ndarray]:
    """Simulated data sets: name -> (data sets, trials)."""
    data_sets, counts = draw(simulator, SEED, 0, STANDARDIZATION, DATA_SETS, trials)
    if data_sets is None:
        raise counts.exhausted("the ranges")
    return data_sets[1]


def source_of(described: str) -> Any:
    """The simulator that a record calls ``Name(argument=value, ...)``."""
    name, _, rest = described.removesuffix(")").partition("(")
    arguments = dict(argument.split("=") for argument in rest.split(", "))
    return make_simulator({"name": name, **{key: float(value) for key, value in arguments.items()}})


def ranges(name: str) -> dict[str, ValueRange]:
    """The range of every input, outcome and feedback of a network's training data."""
    simulator = make_simulator(Recipe.read(name).simulator)
    record = pb.load(name, backend="torch").record
    trials = min(MOST_TRIALS, record.trials)
    parts = [simulate(simulator, trials)]
    for stage in record.stages:
        distillation = stage.options.get("distillation")
        if distillation:
            source = source_of(distillation["source"])
            parts.append(augment_data(simulator, np.random.default_rng(SEED), simulate(source, trials)))
    return ranges_of(simulator.schema, {key: list(chain(*(part[key] for part in parts))) for key in parts[0]})


def main() -> None:
    """Read the options and write the files."""
    parser = argparse.ArgumentParser(description="Write the ranges of the training data into shipped networks.")
    parser.add_argument("names", nargs="*", help="by default all")
    parser.add_argument("--out", type=Path, default=PRETRAINED)
    options = parser.parse_args()
    for name in options.names or sorted(checkpoint.shipped()):
        net = pb.load(name, backend="torch")
        assert net.record is not None
        checkpoint.write(net, replace(net.record, ranges=ranges(name)), options.out / f"{name}.safetensors")
        print(f"Written: {options.out / name}.safetensors")


if __name__ == "__main__":
    main()
