"""Training the networks of the zoo
================================

Train a network of the zoo: from a simulator to a checkpoint, with the settings that made the shipped one.

A run is resumable: stop it at any time, call it again with the same folder, and it goes on. When it has finished, the
best checkpoint is in OUT/best.safetensors; `benchmarks/` holds a script that measures each network. What one learns:
what a training run for a simulator of one's own looks like, and which options matter for trials that depend on each
other (`noisy_q`, `rlddm`), for trials that do not (`ddm`, `collapsing_ddm`, `multisensory_*`) and for a random function
(`gp`).

::

    python examples/train_zoo.py noisy_q                             # hours on one processor core
    python examples/train_zoo.py multisensory_rho43 --start multisensory_rho1
    python examples/train_zoo.py multisensory_rho1 --start runs/first/best.safetensors --distillation runs/lessons
    python examples/train_zoo.py rlddm --start runs/rlddm/best.safetensors --refine --out runs/refined
    python examples/train_zoo.py ddm --out runs/quick --quick        # seconds, to see it work
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import ppl_buffer as pb

# Name -> the simulator, and where a run differs from the settings that all share.
RECIPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "noisy_q": (pb.simulators.NoisyQ(), {"steps": 24_000, "batch_size": 22, "trials": (80, 400)}),
    # As many targets as buffer trials; each sees a part of the buffer of uniform length, so one size serves all.
    "gp": (pb.simulators.GaussianProcess(), {"steps": 6_000, "trials": (64, 64), "context": (0, 1024)}),
    # The evidence of 400 trials in one pass reads them all through the buffer, without a context.
    "multisensory_rho1": (
        pb.simulators.MultisensoryCausalInference(rho=1),
        {
            "steps": 17_000,
            "trials": (16, 400),
            "context": (0, 400),
            "context_free_fraction": 0.7,
            "outcome_samples": 16,
        },
    ),
    "multisensory_rho43": (
        pb.simulators.MultisensoryCausalInference(rho=4 / 3),
        {
            "steps": 15_500,
            "trials": (16, 400),
            "context": (0, 400),
            "context_free_fraction": 0.7,
            "outcome_samples": 16,
        },
    ),
    # Many parameter values with few trials each: all that a likelihood of independent trials learns from.
    "ddm": (
        pb.simulators.DriftDiffusion(),
        {
            "steps": 7_500,
            "batch_size": 64,
            "trials": (8, 256),
            "context": (0, 256),
            "likelihood_weight": 0.9,
            "outcome_samples": 8,
        },
    ),
    "collapsing_ddm": (
        pb.simulators.CollapsingDriftDiffusion(),
        {"steps": 4_000, "batch_size": 64, "trials": (8, 256), "context": (0, 256)},
    ),
    # Half of the batches tell all, so that 0.8 weighs the other sets as 0.9 did without those.
    "rlddm": (
        pb.simulators.RLDriftDiffusion(),
        {"steps": 34_000, "trials": (40, 400), "likelihood_weight": 0.8, "outcome_samples": 4},
    ),
}
# Steps more at a lower rate, for a network that has had those above; docs/design.md says what they give, and the card
# which of them the shipped network has had.
REFINED: dict[str, dict[str, Any]] = {
    "rlddm": {
        "steps": 9_000,
        "learning_rate": 4e-4,
        "outcome_samples": 1,
        "likelihood_weight": 0.7,
        "use_log_likelihood": True,
    }
}
# For a joint density that is nearer to the model's evidence: steps more, most of their batches from data in which the
# model need not hold, by a network that grows for it. The shipped networks have had such steps after those above; their
# cards say which, and docs/design.md what each gave.
TAUGHT: dict[str, tuple[Any, dict[str, Any]]] = {
    name: (
        pb.simulators.MultisensoryDepartures(rho, precise=0.3),
        {
            "steps": 7_000,
            "batch_size": 20,
            "trials": (100, 400),
            "context_free_fraction": 0.8,
            "outcome_samples": 8,
            "learning_rate": 5e-4,
            "warmup": 200,
            "distillation_share": 0.65,
            "likelihood_weight": 0.7,
        },
    )
    for name, rho in (("multisensory_rho1", 1), ("multisensory_rho43", 4 / 3))
}
GROWN = {"depth": 6, "asinh_scales": 2}
LESSONS, QUICK_LESSONS = {"sets": 600, "trials": 400}, {"sets": 4, "trials": 16}
COMMON = {"batch_size": 32, "condition_masks": 2, "learning_rate": 2e-3, "warmup": 100, "evaluate_every": 250}
QUICK = {"steps": 20, "batch_size": 8, "trials": (5, 16), "held_out": 16, "evaluate_every": 10}


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description="Train a network of the zoo.")
    parser.add_argument("name", nargs="?", choices=list(RECIPES), default="noisy_q")
    parser.add_argument("--out", default=None, help="run folder; by default runs/NAME")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", default=None, help="a checkpoint, or a name of the zoo, to start from")
    parser.add_argument("--refine", action="store_true", help="the last steps of a network to start from")
    parser.add_argument(
        "--distillation", default=None, help="folder of lessons, prepared with the network to start from"
    )
    parser.add_argument("--minutes", type=float, default=None, help="stop after this time; call again to go on")
    parser.add_argument("--quick", action="store_true", help="a tiny network for a few steps")
    options = parser.parse_args()
    simulator, recipe = RECIPES[options.name]
    settings = {**COMMON, **recipe, **(QUICK if options.quick else {})}
    config: pb.Config | None = pb.Config(width=64, depth=4, heads=4, mlp=128)
    if options.quick:
        config = pb.Config(width=16, depth=3, heads=2, mlp=32, components=5, contextual_positions=2)
    if options.start is not None:
        config = None
    if options.refine:
        if options.start is None or options.name not in REFINED:
            parser.error(f"--refine needs --start, and one of {list(REFINED)}")
        settings = {**settings, **REFINED[options.name], **(QUICK if options.quick else {})}
    if options.distillation is not None:
        if options.start is None or options.name not in TAUGHT:
            parser.error(f"--distillation needs --start, and one of {list(TAUGHT)}")
        source, taught = TAUGHT[options.name]
        size = QUICK_LESSONS if options.quick else LESSONS
        start = pb.load(options.start)
        config = replace(start.config, **GROWN)
        distillation = pb.prepare_distillation(start, source, out=options.distillation, **size)
        settings = {**settings, **taught, "distillation": distillation, **(QUICK if options.quick else {})}
    if options.steps is not None:
        settings["steps"] = options.steps
    pb.train(
        simulator,
        config,
        seed=options.seed,
        out=options.out or f"runs/{options.name}",
        optimizer="muon",
        start=options.start,
        minutes=options.minutes,
        **settings,
    )


if __name__ == "__main__":
    main()
