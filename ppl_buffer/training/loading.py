"""The batches of a run as tensors: made by background workers, shared between processes, held out."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.simulator import WithLogLikelihood
from ppl_buffer.training.batches import Batch, Tree, map_arrays
from ppl_buffer.training.draws import RejectionCounts
from ppl_buffer.training.log_likelihoods import known_log_likelihood
from ppl_buffer.training.parts import LIKELIHOOD
from ppl_buffer.training.plan import TrainingPlan
from ppl_buffer.training.snapshots import HeldOut

# Of the direct likelihood, which is fast, so many times more data sets are held out: its error is estimated from their
# differences.
_MORE = 4
# Processes that simulate for a GPU, at most: each keeps a few batches.
_MOST_WORKERS = 8
# Seconds after which whoever waits for a batch looks up.
_PATIENCE = 1.0
# A process's data sets, the count of the whole batch, and the weight of the mean loss over these data sets.
Share = tuple[Tree | None, RejectionCounts, float]


class BatchShares(Dataset):
    """The batches of a run from a step on, or one process's share of them; the index is that of a block of steps."""

    def __init__(self, plan: TrainingPlan, rank: int, processes: int, start: int = 0) -> None:
        self.plan, self.rank, self.processes, self.start = plan, rank, processes, start

    def __getitem__(self, block: int) -> list[Share]:
        """The shares of the block's steps."""
        first = max(0, self.start - block * self.plan.block)
        return [self._share(batch) for batch in self.plan.batches_of(block)[first:]]

    def _share(self, batch: Batch) -> Share:
        """This process's data sets as tensors, the count of the whole batch, and the weight of its mean loss."""
        if batch.data is None:
            return None, batch.counts, 1.0
        size = _size(batch)
        edges = [round(size * k / self.processes) for k in range(self.processes + 1)]
        rows = slice(edges[self.rank], edges[self.rank + 1])
        # Processes average their gradients: the weight makes that the mean over all data sets.
        weight = (rows.stop - rows.start) * self.processes / size
        return map_arrays(lambda x: torch.as_tensor(x[rows]), batch.data), batch.counts, weight


def _size(batch: Batch) -> int:
    assert batch.data is not None
    return len(next(iter(batch.data["targets"]["outcomes"].values())))


def _untouched(item: Any) -> Any:
    return item


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the training process decides what follows from it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def start_method() -> str:
    """How workers begin: by a fork on Linux, whatever Python's default is there; elsewhere as Python does."""
    return "fork" if sys.platform == "linux" else multiprocessing.get_start_method()


def suited_workers(device: torch.device, devices: int) -> int:
    """How many processes simulate where nobody says: a GPU takes a few milliseconds a step, many simulators more.

    Args:
        device: where a training process computes.
        devices: number of these processes, each of which has simulators of its own.
    """
    if device.type == "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min(cores // devices - 1, _MOST_WORKERS))


def with_possible_workers(plan: TrainingPlan) -> TrainingPlan:
    """The plan, without workers where they begin afresh and its simulator cannot be sent to them; a warning says so."""
    if not plan.run.workers or start_method() == "fork":
        return plan
    # What was defined in a notebook is nowhere to be imported from.
    bound = type(plan.simulator).__module__ == "__main__" and "__file__" not in vars(sys.modules["__main__"])
    try:
        ForkingPickler.dumps(BatchShares(plan, 0, 1))
    except Exception:  # whatever the parts of a simulator raise
        bound = True
    if not bound:
        return plan
    text = (
        f"simulator: {type(plan.simulator).__name__} cannot be sent to worker processes, which begin afresh on this "
        "system, so it simulates in the training process, which is slower. Define it in a module of its own, or write "
        "workers=0"
    )
    warn_of(Finding("training", text), stacklevel=3)
    return replace(plan, run=replace(plan.run, workers=0))


def make_loader(plan: TrainingPlan, start: int, rank: int, processes: int) -> DataLoader:
    """What makes the batches from step `start` on, each block of them in one of the workers."""
    end = sys.maxsize if plan.steps is None else -(-plan.steps // plan.block)
    return DataLoader(
        BatchShares(plan, rank, processes, start),
        batch_size=None,
        sampler=range(start // plan.block, end),
        num_workers=plan.run.workers,
        prefetch_factor=(4 if plan.block == 1 else 2) if plan.run.workers else None,
        timeout=_PATIENCE if plan.run.workers else 0,
        multiprocessing_context=start_method() if plan.run.workers else None,
        collate_fn=_untouched,
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # else it would draw from the user's
    )


class Shares(Iterator[Share]):
    """The batches of blocks, one by one."""

    def __init__(self, blocks: Iterator[list[Share]]) -> None:
        self._blocks, self._made = blocks, deque[Share]()

    def __next__(self) -> Share:
        if not self._made:
            self._made.extend(next(self._blocks))
        return self._made.popleft()


def start_workers(loader: DataLoader) -> Iterator[Share]:
    """Start the workers; their batches come in the order of the steps."""
    with warnings.catch_warnings():
        # JAX and Python warn of any fork in a program with threads. A worker runs the simulator alone, and one that
        # cannot live with a fork says so by `in_process`.
        warnings.filterwarnings("ignore", message=r".*fork\(\)")
        return Shares(iter(loader))


def next_share(batches: Iterator[Share]) -> Share | None:
    """The next batch; None if the workers have none yet, after a second."""
    try:
        return next(batches)
    except RuntimeError as error:
        # What a worker raised begins otherwise.
        if not str(error).startswith("DataLoader timed out"):
            raise
        return None


def to_device(batch: Tree, device: torch.device) -> Tree:
    """The same batch where the network is."""
    return batch if device.type == "cpu" else map_arrays(lambda x: x.to(device, non_blocking=True), batch)


@dataclass(frozen=True)
class HeldOutBatches:
    """Fixed batches that do not depend on the run's seed.

    Args:
        batches: each with its number of loss terms.
        sets: their data sets with all parameters given, distillation sets aside.
        rehearsal: batches made as those of the training are, where it is to learn what the others know nothing of.
    """

    batches: list[tuple[Tree, int]]
    sets: HeldOut
    rehearsal: list[Tree]


def held_out_batches(plan: TrainingPlan, device: torch.device) -> HeldOutBatches:
    """The held-out data of a part.

    Raises:
        ValueError: if the simulator gives too few legal data sets.
    """
    batches: list[tuple[Tree, int]] = []
    trials, entropy, log_likelihood = [], [], []
    wanted, data_sets = int(plan.run.held_out) * (_MORE if plan.part == LIKELIHOOD else 1), 0
    for step in range(wanted):
        if data_sets >= wanted:
            break
        batch = plan.held_out_batch(step)
        if batch.data is None:
            raise batch.counts.exhausted("the held-out loss")
        data, size = batch.data, _size(batch)
        data_sets += size
        terms = next(iter(data["targets"]["outcomes"].values())).size
        if "log_predictive" not in data:
            trials.append(np.full(size, terms / size))
            entropy.append(_entropy(plan, data))
            log_likelihood.append(_log_likelihood(plan, data))
            if entropy[-1] is None and log_likelihood[-1] is not None:
                # It is compared with the network's at the same outcomes, those that were drawn first.
                data = {key: x for key, x in data.items() if key not in ("probabilities", "resampled")}
        batches.append((to_device(map_arrays(torch.as_tensor, data), device), terms))
    sets = HeldOut(_joined(trials), _known(entropy), _known(log_likelihood))
    made = [plan.rehearsal_batch(number).data for number in range(len(batches) if plan.rehearses else 0)]
    rehearsal = [to_device(map_arrays(torch.as_tensor, data), device) for data in made if data is not None]
    return HeldOutBatches(batches, sets, rehearsal)


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([*pieces, np.zeros(0)])


def _known(pieces: list[np.ndarray | None]) -> np.ndarray | None:
    known = [piece for piece in pieces if piece is not None]
    return _joined(known) if known and len(known) == len(pieces) else None


def _entropy(plan: TrainingPlan, data: Tree) -> np.ndarray | None:
    """Of the simulator's probabilities, (size,) in nats a trial; None where there are none of an outcome."""
    known = data.get("probabilities", {})
    if len(known) < len(plan.simulator.schema.outcomes):
        return None
    all_of_them = (probabilities.astype(float) for probabilities in known.values())
    return np.sum([-(p * np.log(np.maximum(p, 1e-300))).sum(-1).mean((1, 2)) for p in all_of_them], axis=0)


def _log_likelihood(plan: TrainingPlan, data: Tree) -> np.ndarray | None:
    """The simulator's own, (size,) in nats a trial; None where it has none, or targets lack their feedback."""
    simulator, schema = plan.simulator, plan.simulator.schema
    groups = data["targets"] if schema.feedback == {} else data["buffer"] if schema.ordered else None
    if not isinstance(simulator, WithLogLikelihood) or groups is None or not schema.params:
        return None
    trials = {name: x[:, 0] for group in groups.values() for name, x in group.items()}
    return known_log_likelihood(simulator, schema, data["params"], trials).mean(1)
