"""How well a network knows random functions: its joint density of Gaussian processes or sawtooth waves, and the exact.

    python benchmarks/function_accuracy.py gp [--checkpoint gp] [--backend torch] [--quick]

After contexts of several sizes, the outcomes at 64 further points are scored in one pass, with all parameters given
(the exact density is a mixture over what is no parameter: the kernels, or the direction of the waves) and with none
given (the exact density integrates over their prior as well, by quadrature). Data sets are drawn from the prior, so
that the mean difference of the log densities is the Kullback-Leibler divergence KL(exact || network) of the joint
densities. "Apart" are the targets' own densities given the context, multiplied: what a set predictor without a buffer
gives.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `tests.references`, which is not installed

import harness  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.predictive import density  # noqa: E402
from ppl_buffer.predictive.query import Query  # noqa: E402
from tests.references import gaussian_process, sawtooth  # noqa: E402

# Numbers in the attention scores of data sets that are scored together.
_AT_ONCE = 2**22


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    seed: int = 30
    datasets: int = 128
    evidence_datasets: int = 64
    contexts: tuple[int, ...] = (0, 16, 128)
    targets: int = 64


SETTINGS = {"gp": Settings(contexts=(0, 16, 128, 1024)), "sawtooth": Settings()}
QUICK = Settings(datasets=12, evidence_datasets=6)


@dataclass(frozen=True)
class DataSets:
    """Parameters (datasets,), and points (datasets, context + targets) of which the first `context` are the context."""

    params: dict[str, np.ndarray]
    x: np.ndarray
    y: np.ndarray
    context: int


class Processes:
    """Gaussian processes and their exact densities. Data sets that are integrated share their inputs: it is cheaper."""

    shared = True

    def __init__(self) -> None:
        self.simulator = pb.simulators.GaussianProcess()

    def given_parameters(self, data: DataSets) -> np.ndarray:
        """Log density of the points up to each of them, all parameters given: (datasets, points)."""
        return gaussian_process.prefix_log_density(data.params, data.x, data.y, self.simulator.kernels)

    def integrated(self, data: DataSets, size: int) -> np.ndarray:
        """Log density of the first points, nothing given: (datasets,)."""
        box = {name: prior.range() for name, prior in self.simulator.priors.items()}
        return gaussian_process.log_evidence(data.x[0, :size], data.y[:, :size], self.simulator.kernels, box)


class Sawtooths:
    """Sawtooth waves and their exact densities."""

    shared = False

    def __init__(self) -> None:
        self.simulator = pb.simulators.Sawtooth()

    def given_parameters(self, data: DataSets) -> np.ndarray:
        """Log density of the points up to each of them, all parameters given: (datasets, points)."""
        return sawtooth.prefix_log_density(data.params, data.x, data.y)

    def integrated(self, data: DataSets, size: int) -> np.ndarray:
        """Log density of the first points, nothing given: (datasets,)."""
        box = {name: prior.range() for name, prior in self.simulator.priors.items()}
        pairs = zip(data.x[:, :size], data.y[:, :size], strict=True)
        return np.concatenate([sawtooth.prefix_log_evidence(x, y, [size], box) for x, y in pairs])


FUNCTIONS = {"gp": Processes, "sawtooth": Sawtooths}


def draw(functions: Processes | Sawtooths, settings: Settings, context: int, conditioned: bool) -> DataSets:
    """Data sets from the prior, whose parameters will be given or not."""
    rng = np.random.default_rng([settings.seed, context, not conditioned])
    size = settings.datasets if conditioned else settings.evidence_datasets
    params = functions.simulator.prior(rng, size)
    shared = functions.shared and not conditioned
    x = functions.simulator.inputs(rng, 1 if shared else size, context + settings.targets)["x"]
    # As the network reads them.
    x = np.broadcast_to(x, (size, x.shape[1])).astype(np.float32).astype(float)
    return DataSets(params, x, functions.simulator.simulate(rng, params, {"x": x})["y"], context)


def exact(functions: Processes | Sawtooths, data: DataSets, conditioned: bool) -> np.ndarray:
    """Exact log density of the targets given the context (and all parameters, if conditioned): (datasets,)."""
    if conditioned:
        prefixes = functions.given_parameters(data)
        return prefixes[:, -1] - (prefixes[:, data.context - 1] if data.context else 0.0)
    total = functions.integrated(data, data.x.shape[1])
    return total - functions.integrated(data, data.context) if data.context else total


def network(net: Any, data: DataSets, conditioned: bool) -> tuple[np.ndarray, np.ndarray]:
    """The network's log density of the targets, each (datasets,): jointly, and of all targets apart."""
    joint, apart = [], []
    chunk = max(1, _AT_ONCE // data.x.shape[1] ** 2)
    for start in range(0, len(data.x), chunk):
        part = slice(start, start + chunk)
        before, after = (part, slice(None, data.context)), (part, slice(data.context, None))
        query = Query.build(
            net,
            {"x": _native(net, data.x[after])},
            params={name: _native(net, value[part]) for name, value in data.params.items()} if conditioned else None,
            context={"x": _native(net, data.x[before]), "y": _native(net, data.y[before])} if data.context else None,
        )
        value = _native(net, data.y[after])
        joint.append(_numpy(density.conditionals(query, value)).sum(-1))
        apart.append(_numpy(density.marginals(query, value)).sum(-1))
    return np.concatenate(joint), np.concatenate(apart)


def _native(net: Any, array: np.ndarray) -> Any:
    """An array of the network's backend."""
    if net.backend == "torch":
        import torch

        return torch.as_tensor(array, dtype=torch.float32)
    import jax.numpy as jnp

    return jnp.asarray(array, dtype=jnp.float32)


def _numpy(array: Any) -> np.ndarray:
    return np.asarray(array.detach() if hasattr(array, "detach") else array, dtype=float)


def figures(net: Any, data: DataSets, log_density: np.ndarray, conditioned: bool) -> dict[str, float]:
    """Divergence of the network from the exact density, per target, over data sets."""
    targets = data.x.shape[1] - data.context
    joint, apart = network(net, data, conditioned)
    gap = (log_density - joint) / targets
    return {
        "entropy_per_target": float(-log_density.mean() / targets),
        "kl_per_target": float(gap.mean()),
        "kl_per_target_standard_error": float(gap.std(ddof=1) / np.sqrt(len(gap))),
        "kl_per_target_worst_data_set": float(gap.max()),
        "kl_per_target_apart": float((log_density - apart).mean() / targets),
    }


def measure(net: Any, functions: Processes | Sawtooths, settings: Settings) -> dict[str, dict[str, float]]:
    """All figures, by what is given and the size of the context."""
    out: dict[str, dict[str, float]] = {}
    for conditioned in (True, False):
        for context in settings.contexts:
            data = draw(functions, settings, context, conditioned)
            name = f"{'all parameters' if conditioned else 'no parameter'} given, context of {context}"
            out[name] = figures(net, data, exact(functions, data, conditioned), conditioned)
    return out


def rows(measured: Mapping[str, Mapping[str, float]]) -> list[list[Any]]:
    """The table: a row each."""
    keys = (
        "entropy_per_target", "kl_per_target", "kl_per_target_standard_error", "kl_per_target_worst_data_set",
        "kl_per_target_apart",
    )  # fmt: skip
    return [[name, *(row[key] for key in keys)] for name, row in measured.items()]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("functions", choices=sorted(FUNCTIONS), help="what the functions are, and the network of them")
    parser.add_argument("--checkpoint", default="", help="another network of these functions, a path")
    parser.add_argument("--backend", choices=("torch", "jax"), default="torch")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data sets, no large context, no file")
    arguments = parser.parse_args()
    name, settings = arguments.functions, QUICK if arguments.quick else SETTINGS[arguments.functions]
    checkpoint = arguments.checkpoint or name
    net = pb.load(checkpoint, backend=arguments.backend)
    measured = measure(net, FUNCTIONS[name](), settings)
    title = f"{checkpoint}, {arguments.backend}: nats a target, {settings.targets} targets"
    harness.print_table(title, ("", "exact entropy", "KL", "its error", "worst", "KL apart"), rows(measured))
    if not arguments.quick:
        results = {
            "checkpoint": checkpoint,
            "backend": arguments.backend,
            "training_steps": harness.training_steps(net),
            "settings": asdict(settings),
            "figures": measured,
        }
        harness.write_results(f"{name}_accuracy", results)


if __name__ == "__main__":
    main()
