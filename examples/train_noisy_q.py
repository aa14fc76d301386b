"""Train the shipped network `noisy_q`: a likelihood for Q-learning with learning noise.

The run is resumable: stop it at any time, call it again with the same folder, and it goes on. When it has finished, the
best checkpoint is in OUT/best.safetensors; `benchmarks/noisy_q_accuracy.py --checkpoint OUT/best.safetensors` measures
it. What one learns: what a training run for a simulator of one's own looks like, and which options matter.

    python examples/train_noisy_q.py --out runs/noisy_q            # hours on one processor core
    python examples/train_noisy_q.py --out runs/quick --quick      # seconds, to see it work
"""

from __future__ import annotations

import argparse

import ppl_buffer as pb


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/noisy_q", help="run folder")
    parser.add_argument("--steps", type=int, default=24_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=None, help="stop after this time; call again to go on")
    parser.add_argument("--quick", action="store_true", help="a tiny network for a few steps")
    options = parser.parse_args()
    simulator = pb.simulators.NoisyQ()
    if options.quick:
        pb.train(
            simulator,
            pb.Config(width=16, depth=3, heads=2, mlp=32, counters=2),
            steps=20,
            seed=options.seed,
            out=options.out,
            batch_size=8,
            trials=(5, 20),
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
        batch_size=22,
        trials=(80, 400),
        told_sets=2,
        learning_rate=2e-3,
        warmup=100,
        optimizer="muon",
        evaluate_every=250,
        minutes=options.minutes,
    )


if __name__ == "__main__":
    main()
