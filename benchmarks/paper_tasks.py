"""The tasks on which `paper.py` compares networks: their batches, their test sets and the exact joint densities.

Everything is on a standardised scale: a log density there is less by log(scale of y) than one in units of y, which the
scores are in. Test sets are drawn once, the same for all networks, and so are the orders.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `tests.references`, which is not installed

from rivals.batch import Batch  # noqa: E402
from rivals.ours import Shipped  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from tests.references import gaussian_process, sawtooth  # noqa: E402

# Of all tasks, as in the paper: points of the context, of the buffer, and targets in a batch of training.
CONTEXT, BUFFER, TARGETS = (4, 128), 16, 32
_X_SCALE = 2 / np.sqrt(3)
# Data sets that share their inputs, where the exact density is cheaper so.
_SHARING = 16
# Log density of a data set's points up to each of some sizes, everything hidden integrated out.
Evidence = Callable[[np.ndarray, np.ndarray, list[int]], np.ndarray]


@dataclass(frozen=True)
class Task:
    """Random functions.

    Attributes:
        simulator: what draws them.
        location: of y.
        scale: of y.
        waves: see `rivals.layers.Sizes`.
        shared: data sets that have the same inputs.
        evidence: function (x (T,), y (shared, T), sizes) -> (shared, len(sizes)).
        shipped: name of a shipped network of the same functions; "" = there is none.
    """

    simulator: Any
    location: float
    scale: float
    waves: int
    shared: int
    evidence: Evidence
    shipped: str = ""

    def draw(self, rng: np.random.Generator, size: int, points: int, shared: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """X and y (size, points) in their units, as single precision holds them; `shared` sets have the same x."""
        params = self.simulator.prior(rng, size)
        x = self.simulator.inputs(rng, -(-size // shared), points)["x"].repeat(shared, 0)[:size]
        x = _single(x / _X_SCALE) * _X_SCALE
        y = self.simulator.simulate(rng, params, {"x": x})["y"]
        return x, _single((y - self.location) / self.scale) * self.scale + self.location

    def make_shipped(self) -> Shipped:
        """The shipped network, as it is asked on the standardised scale."""
        return Shipped(self.shipped, _X_SCALE, self.location, self.scale)

    def standardised(self, x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
        """As the networks read them."""
        return _tensor(x / _X_SCALE), _tensor((y - self.location) / self.scale)

    def batch(self, seed: int, size: int, step: int) -> Batch:
        """The batch of a step: a function of seed and step."""
        rng = np.random.default_rng([seed, step])
        count = int(rng.integers(CONTEXT[0], CONTEXT[1] + 1))
        x, y = self.standardised(*self.draw(rng, size, count + BUFFER + TARGETS))
        # Half of the targets see the context alone, the others a prefix of the buffer of uniform length.
        visible = rng.integers(1, BUFFER + 1, (size, TARGETS)) * (rng.random((size, TARGETS)) < 0.5)
        ends = (0, count, count + BUFFER, count + BUFFER + TARGETS)
        parts = [(x[:, a:b], y[:, a:b]) for a, b in zip(ends[:-1], ends[1:], strict=True)]
        return Batch(*parts, visible=torch.as_tensor(visible))


@dataclass(frozen=True)
class TestSets:
    """Data sets of which the first `context` points are given.

    Attributes:
        task: what drew them.
        x: (size, context + targets), in its units.
        y: likewise.
        context: points that are given.
        orders: (R, targets), of the targets, the same in all data sets.
        exact: (size,), log density of the targets given the context, everything hidden integrated out.
    """

    task: Task
    x: np.ndarray
    y: np.ndarray
    context: int
    orders: np.ndarray
    exact: np.ndarray


def test_sets(
    task: Task, size: int, contexts: Sequence[int], targets: int, orders: int, seed: int = 1
) -> list[TestSets]:
    """Data sets and orders for a test, one for each context: of the same functions, whose next points are the targets.

    With more orders they begin with those of fewer.
    """
    rng = np.random.default_rng([seed, targets])
    x, y = task.draw(rng, size, max(contexts) + targets, task.shared)
    permutations = np.stack([rng.permutation(targets) for _ in range(orders)])
    sizes = sorted({end for context in contexts for end in (context, context + targets)})
    groups = [slice(start, start + task.shared) for start in range(0, size, task.shared)]
    evidence = np.concatenate([task.evidence(x[group][0], y[group], sizes) for group in groups])
    return [
        TestSets(task, x[:, : n + targets], y[:, : n + targets], n, permutations,
                 evidence[:, sizes.index(n + targets)] - evidence[:, sizes.index(n)])
        for n in contexts
    ]  # fmt: skip


def _single(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32).astype(float)


def _tensor(x: np.ndarray) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float32)


def _sawtooth_evidence(x: np.ndarray, y: np.ndarray, sizes: list[int]) -> np.ndarray:
    box = {name: prior.range() for name, prior in pb.simulators.Sawtooth.priors.items()}
    return np.stack([sawtooth.prefix_log_evidence(x, row, sizes, box) for row in y])


def _process_evidence(simulator: Any, nodes: dict[str, int]) -> Evidence:
    box = {name: prior.range() for name, prior in simulator.priors.items()}
    # A noise that is known: a range so narrow that it has one node.
    if simulator.noise is not None:
        box["noise"] = (simulator.noise, simulator.noise * (1 + 1e-6))

    def evidence(x: np.ndarray, y: np.ndarray, sizes: list[int]) -> np.ndarray:
        parts = [gaussian_process.log_evidence(x[:size], y[:, :size], simulator.kernels, box, nodes) for size in sizes]
        return np.stack(parts, 1)

    return evidence


_NOISY, _SMOOTH = pb.simulators.GaussianProcess(), pb.simulators.GaussianProcess(noise=10**-2.5)
TASKS = {
    "sawtooth": Task(pb.simulators.Sawtooth(), 0.5, 0.3, 6, 1, _sawtooth_evidence, shipped="sawtooth"),
    "gp": Task(_NOISY, 0.0, 1.0, 0, _SHARING,
               _process_evidence(_NOISY, {"lengthscale": 64, "variance": 20, "noise": 64}), shipped="gp"),
    # With the noise of the paper: the posterior of the lengthscale is narrower than with more.
    "gp_precise": Task(_SMOOTH, 0.0, 1.0, 0, _SHARING,
                       _process_evidence(_SMOOTH, {"lengthscale": 256, "variance": 20, "noise": 1})),
}  # fmt: skip
