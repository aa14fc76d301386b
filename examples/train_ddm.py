"""Train the shipped network `ddm`: a likelihood for the drift-diffusion model with across-trial drift variability.

The run is resumable: stop it at any time, call it again with the same folder, and it goes on. When it has finished, the
best checkpoint is in OUT/best.safetensors. What one learns: how a network for independent trials with two outcomes,
a choice and a response time, is trained, and how a special value (no drift variability) comes in.

    python examples/train_ddm.py --out runs/ddm                # hours on one processor core
    python examples/train_ddm.py --out runs/quick --quick      # seconds, to see it work
"""

from __future__ import annotations

import argparse

import ppl_buffer as pb


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/ddm", help="run folder")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=None, help="stop after this time; call again to go on")
    parser.add_argument("--quick", action="store_true", help="a tiny network for a few steps")
    options = parser.parse_args()
    simulator = pb.simulators.DriftDiffusion()
    if options.quick:
        pb.train(
            simulator,
            pb.Config(width=16, depth=2, heads=2, mlp=32, components=5),
            steps=20,
            seed=options.seed,
            out=options.out,
            batch_size=8,
            trials=(8, 8),
            context=(0, 32),
            held_out=16,
            evaluate_every=10,
            optimizer="muon",
        )
        return
    pb.train(
        simulator,
        pb.Config(width=64, depth=4, heads=4, mlp=128),
        steps=options.steps,
        seed=options.seed,
        out=options.out,
        batch_size=32,
        # As many targets as buffer trials; each sees a part of the buffer of uniform length, so one size serves all.
        trials=(64, 64),
        context=(0, 512),
        told_sets=2,
        learning_rate=2e-3,
        warmup=100,
        optimizer="muon",
        evaluate_every=250,
        minutes=options.minutes,
    )


if __name__ == "__main__":
    main()
