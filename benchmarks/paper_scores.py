"""What `paper.py` measures of a trained network: log densities beside the exact ones, and processor time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import rivals
import torch
from paper_tasks import BUFFER, Task, TestSets
from scipy.special import logsumexp

# Points in the contexts of the draws that are timed, where time is proportional to draws; more where they go through
# blocks together.
_POINTS, _BLOCK_POINTS = 2**11, 2**14


def joint_log_densities(use: rivals.Joint, sets: TestSets) -> np.ndarray:
    """Log density (R, size) of all targets together, in each order, in the units of y."""
    task, n = sets.task, sets.context
    x, y = task.standardised(sets.x, sets.y)
    totals = []
    with torch.no_grad():
        for order in torch.as_tensor(sets.orders):
            log_probs = use.log_prob((x[:, :n], y[:, :n]), x[:, n:][:, order], y[:, n:][:, order])
            totals.append(log_probs.sum(1).double().numpy())
    return np.stack(totals) - len(sets.orders[0]) * np.log(task.scale)


def figures(log_densities: Sequence[np.ndarray], sets: Sequence[TestSets]) -> dict[str, Any]:
    """Nats a target, mean over test sets of several contexts: of one order, and of the mean density over all R.

    Differences from the exact density are taken in each data set, standard errors over data sets, which are of the same
    functions for all contexts.
    """
    targets = sets[0].orders.shape[1]
    one = np.stack([each[0] for each in log_densities]) / targets
    many = np.stack([logsumexp(each, axis=0) - np.log(len(each)) for each in log_densities]) / targets
    exact = np.stack([each.exact for each in sets]) / targets
    result: dict[str, Any] = {"orders": len(log_densities[0])}
    for name, values in (("one order", one), ("R orders", many)):
        gap = exact - values
        result[name] = {
            "log density": float(values.mean()),
            "below exact": float(gap.mean()),
            "standard error": float(gap.mean(0).std(ddof=1) / np.sqrt(gap.shape[1])),
            "median below exact": float(np.median(gap, 1).mean()),
            "below exact by context": {str(s.context): float(g.mean()) for s, g in zip(sets, gap, strict=True)},
        }
    result["exact"] = float(exact.mean())
    return result


def as_trained(targets: int) -> str:
    """Our way for so many targets: one pass, or one for every block of them that the buffer held in training."""
    return rivals.OURS if targets <= BUFFER else rivals.OURS_IN_BLOCKS


def share_kept(rows: Mapping[str, Mapping[str, Any]], which: str, label: str) -> float | None:
    """(this way - apart) / (block 1 - apart): what of the gain of re-encoding a way of ours keeps, on one network."""
    labels = (label, rivals.OURS_REENCODED, rivals.OURS_APART)
    if not set(labels) <= set(rows):
        return None
    this, reencoded, apart = (rows[label][which]["log density"] for label in labels)
    return (this - apart) / (reencoded - apart) if reencoded != apart else None


def processor_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Median processor time of a call, of several after one that is not timed. Other work does not count."""
    if repeats > 1:
        function()
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        function()
        times.append(time.process_time() - begun)
    return statistics.median(times)


def times(label: str, use: rivals.Joint, task: Task, context: int, targets: int, draws: int) -> dict[str, float]:
    """Seconds for the density of one data set, and for so many draws of it.

    Where each draw has a context of its own few draws are timed, and the time is multiplied: a little too much, since
    draws share the first step, or block.
    """
    generator = torch.Generator().manual_seed(0)
    x, y = task.standardised(*task.draw(np.random.default_rng(0), 1, context + targets))
    known, later = (x[:, :context], y[:, :context]), (x[:, context:], y[:, context:])
    shared = rivals.OWN_CONTEXT_AFTER.get(label, targets)
    few = (_BLOCK_POINTS if shared > 1 else _POINTS) // context
    timed = draws if targets <= shared else min(draws, few)
    noise = torch.rand((timed, targets, 2), generator=generator).clamp(1e-4, 1 - 1e-4)
    repeats = 3 if targets <= shared else 1
    with torch.no_grad():
        density = processor_seconds(lambda: use.log_prob(known, *later), 3)
        sampling = processor_seconds(lambda: use.sample((known[0][0], known[1][0]), later[0][0], noise), repeats)
    return {"density": density, "sampling": sampling * draws / timed}


def times_in_rounds(
    uses: Mapping[str, rivals.Joint], task: Task, sizes: Sequence[tuple[int, int]], draws: int, rounds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Way -> size -> `times`, the medians of so many rounds, in each of which all are timed: what slows one slows all.

    Args:
        uses: label -> way to use a network.
        task: whose functions.
        sizes: points of the context, and targets.
        draws: how many.
        rounds: how often.
    """
    taken: dict[str, dict[str, list[dict[str, float]]]] = {
        label: {f"N={n}, M={m}": [] for n, m in sizes} for label in uses
    }
    for _ in range(rounds):
        for n, m in sizes:
            for label, use in uses.items():
                taken[label][f"N={n}, M={m}"].append(times(label, use, task, n, m, draws))
    return {
        label: {
            size: {what: statistics.median(each[what] for each in rows) for what in ("density", "sampling")}
            for size, rows in by_size.items()
        }
        for label, by_size in taken.items()
    }


def dominated(rows: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, float]) -> dict[str, list[str]]:
    """Of each of our ways, the rivals' that are nearer to the exact density (one order) and draw faster."""
    ours = [label for label in rows if label.startswith("ours")]
    gap = {label: row["one order"]["below exact"] for label, row in rows.items()}
    return {
        label: [
            other for other in rows if other not in ours and gap[other] < gap[label] and seconds[other] < seconds[label]
        ]
        for label in ours
    }
