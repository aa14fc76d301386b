"""Training the networks of the zoo
================================

Train a network of the zoo anew: from its simulator to a checkpoint, by the recipe that stands beside the shipped one.

A recipe (``ppl_buffer/pretrained/NAME.toml``) lists the stages of a training: each is a call of `ppl_buffer.train` that
starts from the network of the stage before, the first one from random weights or from another network of the zoo.
``ppl-buffer zoo --train NAME`` runs them in turn; this script does the same, and shows what a recipe says. Stop it at
any time, call it again with the same folder, and it goes on. When it has finished, the network is in
OUT/NAME.safetensors, with the lineage of all stages in its record; ``make zoo-NAME`` also measures it and writes its
card.

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
from collections.abc import Mapping

from ppl_buffer.workflow.recipes import Recipe, recipe_names, train_recipe


# %%
# What a recipe says
# ------------------
def describe(options: Mapping[str, object]) -> str:
    """Options in a line; of tables of their own, the names alone."""
    return ", ".join(name if isinstance(x, Mapping) else f"{name}={x}" for name, x in options.items())


# %%
# From the seed to a checkpoint
# -----------------------------
def run(name: str, out: str, minutes: float, quick: bool) -> None:
    """Show the recipe of a network and run it; an earlier run in the same folder goes on."""
    recipe = Recipe.read(name)
    origin = "" if recipe.start is None else f" that starts from {recipe.start}"
    print(f"{describe(recipe.simulator)}: a network{origin} of {recipe.sizes()}")
    for number, stage in enumerate(recipe.stages, start=1):
        print(f"Stage {number}: {describe(stage)}")
    path = train_recipe(recipe, out, quick=quick, minutes=minutes)
    print("The time is over; the same call goes on." if path is None else f"Written: {path}")


# %%
# Which network
# -------------
#
# In a notebook the defaults of the options hold: change them here.
def main() -> None:
    """Read the options and run the recipe."""
    parser = argparse.ArgumentParser(description="Train a network of the zoo by its recipe.")
    parser.add_argument("name", nargs="?", choices=recipe_names(), default="noisy_q")
    parser.add_argument("--out", default=None, help="folder of the stages' runs; by default runs/NAME")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time; call again to go on")
    parser.add_argument("--quick", action="store_true", help="a tiny network, a few steps a stage")
    options = parser.parse_args([] if "ipykernel" in sys.modules else None)
    run(options.name, options.out or f"runs/{options.name}", options.minutes, options.quick)


if __name__ == "__main__":
    main()
