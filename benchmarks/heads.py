"""Mixtures of normal and of logistic components as heads, at equal steps: divergence from the truth, and time.

The direct likelihood of the audio-visual observer (`pb.simulators.MultisensoryCausalInference`), whose continuous
reports have several peaks, shoulders where the observer changes his mind, and lapses that the schema knows of. Each
head, with 5 and with 20 components, is trained for as many steps from the same seed: on the same draws. Measured: the
Kullback-Leibler divergence a trial, KL(exact || network), on data sets of observers under the prior whose likelihood is
computed by quadrature (`tests/references/multisensory.py`); and, in turn, the time of the density, of the distribution
function and of a draw, of so many trials at once.

    python benchmarks/heads.py [--quick] [--out DIR] [--steps 3000] [--sets 60]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import interleaved, parse, print_table, settled, uniforms, write_results

import ppl_buffer as pb
from ppl_buffer.network import heads
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.references.multisensory import log_likelihood  # noqa: E402

TRIALS, SEED = 50, 0
HEADS = [("normal", 5), ("normal", 20), ("logistic", 5), ("logistic", 20)]
# Steps of the quadrature, divided by this: its error is then far below that of a network.
FINER = 0.5


def test_sets(count: int) -> tuple[Any, Any, np.ndarray]:
    """Parameters (count,), data (count, K), and the exact log density (count, K) of each report."""
    simulator, rng = pb.simulators.MultisensoryCausalInference(), np.random.default_rng(SEED + 1)
    params = simulator.prior(rng, count)
    inputs = simulator.inputs(rng, count, TRIALS)
    data = {**inputs, **simulator.simulate(rng, params, inputs)}
    exact = [
        log_likelihood({name: x[i] for name, x in params.items()}, {name: x[i] for name, x in inputs.items()},
                       data["response"][i], simulator.rho, FINER)
        for i in range(count)
    ]  # fmt: skip
    return params, data, np.stack(exact)


def trained(head: str, components: int, steps: int) -> tuple[Any, float]:
    """A network's direct likelihood, and the processor time of its training."""
    config, begun = pb.Config(depth=0, components=components, head=head), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        net = pb.train(
            pb.simulators.MultisensoryCausalInference(), config, parts="likelihood", steps=steps, seed=SEED,
            out=folder, trials=(TRIALS, TRIALS), workers=0, progress=False,
        )  # fmt: skip
    return net, time.process_time() - begun


def divergence(net: Any, params: Any, data: Any, exact: np.ndarray) -> tuple[float, float]:
    """KL(exact || network) a trial, with q / p - 1 as its control variate, and its standard error over data sets."""
    inputs = {name: torch.as_tensor(data[name]) for name in net.schema.inputs}
    given = {name: torch.as_tensor(x) for name, x in params.items()}
    query = Query.build(net, inputs, params=given, outside="ignore")
    log_q = density.conditionals(query, torch.as_tensor(data["response"])).detach().numpy()
    by_set = (exact - log_q + np.expm1(log_q - exact)).mean(-1)
    return float(by_set.mean()), float(by_set.std(ddof=1) / np.sqrt(len(by_set)))


def times(networks: dict[str, Any], trials: int, repeats: int) -> dict[str, dict[str, float]]:
    """Microseconds a trial of what a head does, of all networks in turn: name -> what -> time."""
    noise = torch.as_tensor(uniforms(1, 1, trials, 2))
    functions = {}
    for name, net in networks.items():
        raw = torch.randn((1, 1, trials, 3 * net.config.components), generator=torch.Generator().manual_seed(SEED))
        value = torch.randn((1, 1, trials), generator=torch.Generator().manual_seed(SEED + 1))
        for what, function, argument in (
            ("density", heads.outcome_log_prob, (value,)),
            ("cdf", heads.outcome_cdf, (value, noise[..., 0])),
            ("draw", heads.outcome_sample, (noise,)),
        ):
            functions[f"{name}/{what}"] = settled("torch", function, net.likelihood, "response", raw, raw, *argument)
    taken = interleaved(functions, repeats=repeats)
    return {
        name: {what: taken[f"{name}/{what}"]["median"] / trials * 1e6 for what in ("density", "cdf", "draw")}
        for name in networks
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, print and write."""
    options = parse(__doc__, arguments, steps=3000, sets=60)
    steps, sets, trials, repeats = (20, 2, 100, 3) if options.quick else (options.steps, options.sets, 10_000, 30)
    params, data, exact = test_sets(sets)
    networks, rows = {}, {}
    for head, components in HEADS:
        name = f"{head}, {components}"
        networks[name], seconds = trained(head, components, steps)
        error, standard_error = divergence(networks[name], params, data, exact)
        rows[name] = {"kl": error, "standard_error": standard_error, "training_processor_seconds": seconds}
    for name, taken in times(networks, trials, repeats).items():
        rows[name] |= {f"{what}_microseconds": value for what, value in taken.items()}
    columns = ["head, components", "KL a trial", "SE", "training, s", "density, us", "cdf, us", "draw, us"]
    print_table(
        f"{steps} steps, {sets} data sets of {TRIALS} trials", columns, [[k, *v.values()] for k, v in rows.items()]
    )
    write_results("heads", {"steps": steps, "sets": sets, "trials": TRIALS, "heads": rows}, options.out)


if __name__ == "__main__":
    main()
