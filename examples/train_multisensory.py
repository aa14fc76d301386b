"""Train the networks `multisensory_rho1` and `multisensory_rho43`: audio-visual localisation by causal inference.

One network a theory: does the observer hear places as they are (rho = 1), or stretched to the range of the flashes
(rho = 4/3)? Each then gives the likelihood of a person's reports and, with no parameter told, the model evidence that
decides between them. What one learns: how a simulator whose trials have no order, but a known rate of lapses, is
trained.

The run is resumable: stop it at any time, call it again with the same folder, and it goes on. When it has finished, the
best checkpoint is in OUT/best.safetensors.

    python examples/train_multisensory.py --rho 4/3                       # hours on one processor core
    python examples/train_multisensory.py --out runs/quick --quick        # seconds, to see it work
"""

from __future__ import annotations

import argparse
from fractions import Fraction

import ppl_buffer as pb


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rho", default="1", help="stretch of the auditory percept: a number or a fraction")
    parser.add_argument("--out", default=None, help="run folder; by default runs/multisensory_rho1 or _rho43")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=None, help="stop after this time; call again to go on")
    parser.add_argument("--quick", action="store_true", help="a tiny network for a few steps")
    options = parser.parse_args()
    out = options.out or f"runs/multisensory_rho{options.rho.replace('/', '')}"
    simulator = pb.simulators.MultisensoryCausalInference(rho=float(Fraction(options.rho)))
    if options.quick:
        pb.train(
            simulator,
            pb.Config(width=16, depth=3, heads=2, mlp=32),
            steps=20,
            seed=options.seed,
            out=out,
            batch_size=8,
            trials=(5, 16),
            context=(0, 24),
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
        out=out,
        batch_size=32,
        # The evidence of 400 trials in one pass reads them all through the buffer.
        trials=(16, 400),
        context=(0, 400),
        told_sets=2,
        learning_rate=2e-3,
        warmup=100,
        optimizer="muon",
        evaluate_every=250,
        minutes=options.minutes,
    )


if __name__ == "__main__":
    main()
