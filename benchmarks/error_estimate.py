"""Is the error that a training states the true one, and what does it do to posteriors?

Four simulators whose likelihoods are known, which they hide from the training: it has draws alone, and states what its
law of learning makes of them. Each is trained to several numbers of steps in turn, and after each the stated error is
compared with the true one, by fresh data and the exact likelihood. Then posteriors of fresh data sets under the
network's likelihood are compared with exact ones, by importance sampling: how far posterior means are off over
sqrt(2 K KL / P), with K trials and P parameters, is the factor in `EstimatedError.posterior_shift`.

    python benchmarks/error_estimate.py [--quick] [--out DIR] [--folder DIR] [--models ddm,rlddm] [--sets 12]
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import harness
import numpy as np
from scipy.special import ndtr

import ppl_buffer as pb
from ppl_buffer.inference.importance import fit_proposal, normalize
from ppl_buffer.network.config import Config
from ppl_buffer.schema import Schema, stack_value
from ppl_buffer.training.error import measured_error

Named = dict[str, np.ndarray]
SIMULATORS: dict[str, Any] = {
    "forgetting_q": pb.simulators.ForgettingQ(),
    "ddm": pb.simulators.DriftDiffusion(),
    "two_step": pb.simulators.TwoStep(),
    "rlddm": pb.simulators.RLDriftDiffusion(),
}
# Where a network is past its first plateau: no law of learning says how long that will last.
STEPS = {
    "forgetting_q": (240, 480, 960, 1920),
    "ddm": (240, 480, 960, 1920),
    "two_step": (700, 1400, 2800),
    "rlddm": (700, 1400, 2800),
}
TRIALS = 80
# Bars: of the stated errors so many are right within a factor of two; the factor of posterior shifts lies between.
SHARE, FACTORS = 0.8, (0.35, 0.65)


class Hidden:
    """A simulator of which nothing is known but draws.

    Args:
        simulator: which.
    """

    def __init__(self, simulator: Any) -> None:
        self.schema: Schema = simulator.schema
        self._simulator = simulator

    def prior(self, rng: np.random.Generator, size: int) -> Named:
        return self._simulator.prior(rng, size)

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Named:
        return self._simulator.inputs(rng, size, trials)

    def simulate(self, rng: np.random.Generator, params: Named, inputs: Named, trials: int) -> Named:
        return self._simulator.simulate(rng, params, inputs, **({} if inputs else {"trials": trials}))


def fresh(simulator: Any, size: int, seed: int) -> tuple[Named, Named]:
    """Parameters (size,) and data (size, TRIALS), in the precision in which a network reads them."""
    rng = np.random.default_rng([57, seed])
    params = {name: x.astype(np.float32).astype(float) for name, x in simulator.prior(rng, size).items()}
    inputs = simulator.inputs(rng, size, TRIALS)
    data = {**inputs, **simulator.simulate(rng, params, inputs, **({} if inputs else {"trials": TRIALS}))}
    return params, {name: np.asarray(x, np.float32).astype(float) for name, x in data.items()}


def exact(simulator: Any, params: Named, data: Named) -> np.ndarray:
    """Log likelihood (n, size) of data (size, TRIALS) given parameters (n, size)."""
    shape = next(iter(params.values())).shape
    flat = {name: x.reshape(-1) for name, x in params.items()}
    many = {name: np.broadcast_to(x, (*shape, TRIALS)).reshape(-1, TRIALS) for name, x in data.items()}
    for name in many:
        if isinstance({**simulator.schema.inputs, **simulator.schema.outcomes}.get(name), pb.Categorical):
            many[name] = many[name].astype(int)
    with np.errstate(all="ignore"):
        return np.nan_to_num(simulator.log_likelihood(flat, many).sum(-1).reshape(shape), nan=-np.inf)


def computed(net: Any, params: Named, data: Named) -> np.ndarray:
    """The same by a network."""
    import torch

    from ppl_buffer.pyro import JointPredictive

    def tensor(x: np.ndarray) -> Any:
        return torch.as_tensor(np.asarray(x), dtype=torch.float32)

    schema = net.schema
    value = tensor(stack_value(np, schema, data))
    inputs, feedback = ({name: tensor(data[name]) for name in group} for group in (schema.inputs, schema.feedback))
    seen = net.observe(inputs, value, feedback=feedback or None)
    rows = []
    with torch.no_grad():
        for start in range(0, len(next(iter(params.values()))), 50):
            part = {name: tensor(x[start : start + 50]) for name, x in params.items()}
            joint = JointPredictive(net, seen, params=part, outside="ignore", validate_args=False)
            rows.append(joint.log_prob(value).numpy().astype(float))
    return np.concatenate(rows)


def true_error(net: Any, simulator: Any, size: int) -> tuple[float, float]:
    """Nats a trial, by fresh data, and the standard error."""
    params, data = fresh(simulator, size, 0)
    one = {name: x[None] for name, x in params.items()}
    excess = (exact(simulator, one, data) - computed(net, one, data))[0] / TRIALS
    return measured_error(excess, np.full(size, TRIALS))


class Posteriors:
    """Points near the exact posteriors of fresh data sets, and their weights.

    Args:
        simulator: which.
        sets: how many data sets.
    """

    def __init__(self, simulator: Any, sets: int) -> None:
        self._simulator = simulator
        _, self._data = fresh(simulator, sets, 1)
        dims = len(simulator.priors)
        proposal = fit_proposal(
            lambda scores: exact(simulator, self._params(scores), self._data), sets, dims, np.random.default_rng(58)
        )
        self.points, self.params = proposal.points, self._params(proposal.points)
        self._total = np.maximum(exact(simulator, self.params, self._data), -1e30)
        self.weights = normalize(self._total + proposal.log_ratio)
        self.mean, self.std = self._moments(self.weights)
        self._log_ratio = proposal.log_ratio

    def _params(self, scores: np.ndarray) -> Named:
        below = np.clip(ndtr(scores), 1e-6, 1 - 1e-6)
        return {name: prior.quantile(below[..., i]) for i, (name, prior) in enumerate(self._simulator.priors.items())}

    def _moments(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = np.stack(list(self.params.values()), -1)
        mean = np.einsum("nb,nbp->bp", weights, values)
        return mean, np.sqrt(np.einsum("nb,nbp->bp", weights, (values - mean) ** 2))

    def shift(self, net: Any) -> float:
        """Mean absolute shift of the network's posterior means, in exact posterior standard deviations."""
        total = np.where(self._total > -1e29, computed(net, self.params, self._data), -1e30)
        return float(np.abs((self._moments(normalize(total + self._log_ratio))[0] - self.mean) / self.std).mean())


def rungs(name: str, steps: tuple[int, ...], folder: Path, sizes: dict[str, int]) -> list[dict[str, Any]]:
    """What was stated and what is true after so many steps of one training."""
    simulator, rows = SIMULATORS[name], []
    posteriors = Posteriors(simulator, sizes["sets"])
    for count in steps:
        net = pb.train(
            Hidden(simulator), Config(likelihood_width=sizes["width"]), steps=count, parts="likelihood",
            out=folder / name, trials=(32, 128), workers=0, progress=False,
        )  # fmt: skip
        stated = net.record.estimated_error
        true, noise = true_error(net, simulator, sizes["fresh"])
        shift = posteriors.shift(net)
        bound = math.sqrt(2 * TRIALS * max(true, 1e-9) / len(simulator.schema.params))
        rows.append(
            {
                "model": name, "steps": count, "true": true, "noise": noise,
                "estimated": None if stated is None else stated.nats_per_trial,
                "low": None if stated is None else stated.low, "high": None if stated is None else stated.high,
                "shift": shift, "factor": shift / bound,
            }
        )  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, print and write."""
    options = harness.parse(__doc__, folder="", models=",".join(SIMULATORS), sets=12)
    sizes = {"width": 64, "fresh": 1000, "sets": options.sets}
    ladder = {name: STEPS[name] for name in options.models.split(",")}
    if options.quick:
        sizes, ladder = {"width": 8, "fresh": 40, "sets": 2}, {name: (30,) for name in list(ladder)[:1]}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [row for name, steps in ladder.items() for row in rungs(name, steps, folder, sizes)]
    harness.print_table("What a training states of its error", list(rows[0]), [list(row.values()) for row in rows])
    stated = [row for row in rows if row["estimated"] is not None]
    right = [row["true"] / 2 <= row["estimated"] <= 2 * row["true"] for row in stated]
    inside = [row["low"] <= row["true"] <= row["high"] for row in stated]
    factor = float(np.median([row["factor"] for row in rows]))
    bars = [
        harness.bar("stated errors within a factor of two of the true one", float(np.mean(right or [0])), least=SHARE),
        harness.bar(
            "intervals (of probability 0.8) that hold the true error", float(np.mean(inside or [0])), least=0.6
        ),
        harness.bar("posterior shift over sqrt(2 K KL / P), median", factor, least=FACTORS[0]),
        harness.bar("posterior shift over sqrt(2 K KL / P), median", factor, most=FACTORS[1]),
    ]
    harness.print_bars(bars)
    harness.write_results("error_estimate", {"rows": rows, "trials": TRIALS, "sizes": sizes, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
