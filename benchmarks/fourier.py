"""What frequencies of an input buy: a rhythm of 6 to 14 hertz in a second, as in an EEG, learnt with and without them.

Signals are draws of a Gaussian process over time, a rhythm whose phase drifts, seen with noise:

    cov(y_s, y_t) = exp(-(s - t)^2 / (2 * 0.2^2)) cos(2 pi f (s - t)) + 0.1^2 [s = t],    f ~ Uniform(6, 14) hertz,

so that the exact density is known. The same transformer learns it for the same number of steps from times as they are,
with finer scales near their mean (`Config(asinh_scales=3)`), with octaves of its spread, and with octaves of a hertz.
Measured is the divergence from the exact joint density of 16 times, f given, after contexts of 0 and 48 other times.

    python benchmarks/fourier.py [--steps 1000] [--quick] [--out DIR]
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from harness import bar, parse, print_bars, print_table, write_results

import ppl_buffer as pb
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query

SEED, DATA_SETS, TARGETS, CONTEXTS = 29, 256, 16, (0, 48)
CORRELATION_TIME, NOISE = 0.2, 0.1
BAR = 0.5  # share of the divergence without frequencies, after the larger context


class Rhythm:
    """A rhythm whose frequency is a parameter and whose phase drifts, at random times of a second."""

    priors = {"frequency": pb.Prior.uniform(6.0, 14.0)}
    in_process = True

    def __init__(self, frequencies: int | tuple[float, ...] | None) -> None:
        self.schema = pb.Schema(
            params={"frequency": pb.Positive()},
            inputs={"time": pb.Real(frequencies=frequencies)},
            outcomes={"signal": pb.Real()},
        )

    def prior(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        return {"frequency": self.priors["frequency"].sample(rng, size)}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> dict[str, np.ndarray]:
        return {"time": rng.uniform(0.0, 1.0, (size, trials))}

    def simulate(
        self, rng: np.random.Generator, params: dict[str, np.ndarray], inputs: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        factor = np.linalg.cholesky(covariance(params["frequency"], inputs["time"]))
        return {"signal": np.einsum("bij,bj->bi", factor, rng.standard_normal(inputs["time"].shape))}


def covariance(frequency: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Covariance (B, T, T) of signals at times (B, T)."""
    apart = times[:, :, None] - times[:, None]
    rhythm = np.exp(-0.5 * (apart / CORRELATION_TIME) ** 2) * np.cos(2 * np.pi * frequency[:, None, None] * apart)
    return rhythm + NOISE**2 * np.eye(times.shape[1])


def exact(frequency: np.ndarray, times: np.ndarray, signal: np.ndarray, context: int) -> np.ndarray:
    """Log density (B,) of the signal behind the first `context` times, given these."""
    factor = np.linalg.cholesky(covariance(frequency, times))
    white = np.linalg.solve(factor, signal[..., None])[..., 0]
    terms = -0.5 * white**2 - np.log(np.diagonal(factor, axis1=1, axis2=2)) - 0.5 * np.log(2 * np.pi)
    return terms[:, context:].sum(-1)


def divergence(net: Any, data: dict[str, np.ndarray], context: int) -> tuple[float, float]:
    """KL(exact || network) a target, and its standard error over data sets."""
    read = {name: torch.as_tensor(x, dtype=torch.float32) for name, x in data.items()}
    trials = slice(context, None)
    before = {name: read[name][:, :context] for name in ("time", "signal")} if context else None
    query = Query.build(net, {"time": read["time"][:, trials]}, params={"frequency": read["frequency"]}, context=before)
    with torch.no_grad():
        joint = density.log_prob(query, read["signal"][:, trials]).numpy().astype(float)
    gap = (exact(data["frequency"], data["time"], data["signal"], context) - joint) / TARGETS
    return float(gap.mean()), float(gap.std(ddof=1) / np.sqrt(len(gap)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, print and write."""
    options = parse(__doc__, arguments, steps=1000)
    torch.set_num_threads(1)
    steps, sets = (20, 16) if options.quick else (options.steps, DATA_SETS)
    ways: dict[str, tuple[int | tuple[float, ...] | None, int]] = {
        "the time alone": (None, 0),
        "asinh_scales=3": (None, 3),
        "frequencies=6": (6, 0),
        "frequencies=(1, 2, 4, 8, 16)": ((1.0, 2.0, 4.0, 8.0, 16.0), 0),
    }
    tests = {}
    for context in CONTEXTS:
        rng, simulator = np.random.default_rng([SEED, context]), Rhythm(None)
        params = simulator.prior(rng, sets)
        times = simulator.inputs(rng, sets, context + TARGETS)
        tests[context] = {**params, **times, **simulator.simulate(rng, params, times)}
    rows = []
    for name, (frequencies, scales) in ways.items():
        config = pb.Config(width=32, depth=3, heads=4, mlp=64, components=5, asinh_scales=scales, likelihood_width=0)
        begun = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            net = pb.train(
                Rhythm(frequencies), config, steps=steps, trials=(16, 24), context=(0, 64), batch_size=16, held_out=32,
                out=folder, progress=False,
            )  # fmt: skip
        row: dict[str, Any] = {"inputs": name, "steps": steps, "processor seconds": time.process_time() - begun}
        for context, data in tests.items():
            row[f"KL, context of {context}"], row[f"error, {context}"] = divergence(net, data, context)
        rows.append(row)
        print(*row.values(), flush=True)
    entropy = {
        context: float(-exact(data["frequency"], data["time"], data["signal"], context).mean() / TARGETS)
        for context, data in tests.items()
    }
    print_table(f"Nats a target; the exact entropy is {entropy}", list(rows[0]), [list(row.values()) for row in rows])
    last = f"KL, context of {CONTEXTS[-1]}"
    ratio = rows[-1][last] / rows[0][last]
    bars = [bar("divergence with frequencies by that without, at equal steps", ratio, most=BAR)]
    print_bars(bars)
    write_results(
        "fourier", {"entropy": {str(n): x for n, x in entropy.items()}, "rows": rows, "bars": bars}, options.out
    )


if __name__ == "__main__":
    main()
