"""Training the networks of the zoo
================================

Train a network of the zoo anew: from its simulator to a checkpoint, by the recipe that stands beside the shipped one.

A recipe (``ppl_buffer/pretrained/NAME.toml``) lists the stages of a training: each is a call of `ppl_buffer.train` that
starts from the network of the stage before. This script runs them in turn. Stop it at any time, call it again with the
same folder, and it goes on. When it has finished, the network is in OUT/NAME.safetensors, with the lineage of all
stages in its record; `benchmarks/` holds a script that measures each network.

What one learns: what the training of a simulator of one's own looks like, and which options matter for trials that
depend on each other (`noisy_q`, `rlddm`), for trials that do not (`ddm`, `collapsing_ddm`, `multisensory_*`) and for a
random function (`gp`); how a second stage learns a known likelihood (`rlddm`) or from distillation sets
(`multisensory_*`).

::

    python examples/train_zoo.py noisy_q                             # hours on one processor core
    python examples/train_zoo.py rlddm --minutes 50                  # the same call goes on
    python examples/train_zoo.py ddm --out runs/quick --quick        # seconds, to see it work
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import tomllib
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import ppl_buffer as pb
from ppl_buffer.network import checkpoint

RECIPES = resources.files("ppl_buffer") / "pretrained"
# In place of a recipe's sizes, to see it work.
QUICK_CONFIG = {"width": 16, "heads": 2, "mlp": 32, "components": 5, "contextual_positions": 2}
QUICK = {"steps": 20, "batch_size": 8, "trials": (5, 16), "held_out": 16, "evaluate_every": 10}
QUICK_SETS = {"sets": 4, "trials": 16}


# %%
# Recipes
# -------
def names() -> list[str]:
    """The networks that have a recipe."""
    return sorted(file.name.removesuffix(".toml") for file in RECIPES.iterdir() if file.name.endswith(".toml"))


def read_recipe(name: str) -> dict[str, Any]:
    """A network's recipe."""
    return tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))


def make_simulator(description: dict[str, Any]) -> Any:
    """A shipped simulator: its class by ``name``, and the arguments of this class."""
    arguments = dict(description)
    return getattr(pb.simulators, arguments.pop("name"))(**arguments)


# %%
# One stage
# ---------
def train_stage(
    simulator: Any, config: Any, stage: dict[str, Any], start: Any, out: Path, quick: bool, minutes: float | None
) -> Any:
    """Run one stage; what it made before is not made again.

    Args:
        simulator: of the network.
        config: sizes of the first stage's network.
        stage: options by the names of `ppl_buffer.train`'s arguments, and what only some stages have: ``config``
            (sizes to which the network grows), ``distillation`` (data sets to prepare with the network of the stage
            before), ``mean_with_start`` (the result is the mean of the weights before and after).
        start: the network of the stage before, or None.
        out: folder of the stage.
        quick: take a few small steps.
        minutes: stop after this time.
    """
    options = {name: tuple(x) if isinstance(x, list) else x for name, x in stage.items()}
    grown, sets = options.pop("config", {}), options.pop("distillation", None)
    mean_with_start = options.pop("mean_with_start", False)
    if start is not None:
        config = replace(start.config, **grown)
    if sets is not None:
        sets = dict(sets)
        size = {name: sets.pop(name) for name in ("sets", "trials", "seed")} | (QUICK_SETS if quick else {})
        source = make_simulator({"name": sets.pop("source"), **sets})
        options["distillation"] = pb.prepare_distillation(start, source, out=out / "distillation", **size)
    options |= QUICK if quick else {}
    net = pb.train(simulator, config, start=start, out=out, minutes=minutes, **options)
    return mean_of(start, net, out / "mean.safetensors") if mean_with_start else net


def mean_of(start: Any, net: Any, path: Path) -> Any:
    """The network whose weights are the mean of those before and after a stage; its record says so."""
    if start is None or start.config != net.config:
        raise ValueError("mean_with_start: expected a stage that starts from a network of the same sizes")
    *before, last = net.record.stages
    last = replace(last, options={**last.options, "mean_with_start": True})
    for name, weight in net.weights.items():
        weight.add_(start.weights[name]).div_(2)
    checkpoint.write(net, replace(net.record, stages=(*before, last)), path)
    return pb.load(path, backend="torch")


# %%
# All stages
# ----------
#
# In a notebook the defaults of the options hold: change them here.
def main() -> None:
    """Read the options and run the recipe."""
    parser = argparse.ArgumentParser(description="Train a network of the zoo by its recipe.")
    parser.add_argument("name", nargs="?", choices=names(), default="noisy_q")
    parser.add_argument("--out", default=None, help="folder of the stages' runs; by default runs/NAME")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time; call again to go on")
    parser.add_argument("--quick", action="store_true", help="a tiny network, a few steps a stage")
    options = parser.parse_args([] if "ipykernel" in sys.modules else None)
    deadline = time.monotonic() + 60 * options.minutes
    recipe, out = read_recipe(options.name), Path(options.out or f"runs/{options.name}")
    simulator = make_simulator(recipe["simulator"])
    config = pb.Config(**recipe["config"])
    if options.quick:
        config = replace(config, **QUICK_CONFIG)
    net = None
    for number, stage in enumerate(recipe["stages"], start=1):
        left = (deadline - time.monotonic()) / 60
        if left <= 0:
            print(f"The time is over before stage {number}; the same call goes on.")
            return
        folder = out / f"stage_{number}"
        print(f"Stage {number} of {len(recipe['stages'])}, in {folder}")
        minutes = None if math.isinf(left) else left
        net = train_stage(simulator, config, stage, net, folder, options.quick, minutes)
    if time.monotonic() < deadline:
        pb.save(net, out / f"{options.name}.safetensors")
        print(f"Written: {out / options.name}.safetensors")


if __name__ == "__main__":
    main()
