"""What a training chooses where nobody said: by its part, and by what the machine does in a few timed steps."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import numpy as np
import torch

from ppl_buffer.files import Description
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.training.abilities import learns_log_likelihood
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import map_arrays
from ppl_buffer.training.likelihood_batches import relative_work
from ppl_buffer.training.loading import to_device
from ppl_buffer.training.loss import Loss
from ppl_buffer.training.optimizers import make_optimizers
from ppl_buffer.training.options import OptimizationOptions, RunOptions
from ppl_buffer.training.parts import BUFFER, LIKELIHOOD
from ppl_buffer.training.plan import TrainingPlan
from ppl_buffer.training.standardization import Survey

# Values of options by their names.
Options: TypeAlias = Description


@dataclass(frozen=True)
class _Defaults:
    batch_size: int
    learning_rate: float
    optimizer: str


_DEFAULTS = {LIKELIHOOD: _Defaults(32, 8e-3, "adamw"), BUFFER: _Defaults(32, 2e-3, "muon")}
# Weight of the condition masks that hold all parameters, where a direct likelihood answers for these.
_LIKELIHOOD_WEIGHT = 0.2
# In place of the steps in which batches grow, to see how they begin.
_FOR_EVER = 10**9
# Evaluations of a part of so many steps, and the steps between two of them at least and at most.
_EVALUATIONS, _SHORTEST, _LONGEST = 24, 50, 500
# Of the steps, at most 1000, the rate rises in.
_WARMUP_SHARE, _LONGEST_WARMUP = 0.05, 1000
# A batch is doubled, up to this size, while a step of the double takes less than so many times as long: on a processor
# never, on a GPU often.
_LARGEST_BATCH, _NEARLY_FREE = 512, 1.4
# It is halved, down to this size, while the time allows fewer steps than this.
_SMALLEST_BATCH, _FEW_STEPS = 8, 600
# Steps that are timed, after one that is not; share of the time for all of them.
_TIMED, _TIMING_SHARE = 2, 0.05


def choose(plan: TrainingPlan, kept: Options | None, known: Survey, device: torch.device, offered: float) -> Options:
    """Values of the options that nobody stated, JSON-ready.

    Args:
        plan: of a part.
        kept: the settings of the run that goes on, whose choices stay; None = it begins.
        known: of the simulator.
        device: where the training is.
        offered: steps or seconds of the training.
    """
    if not plan.open or kept is not None:
        return {name: value for name, value in (kept or {}).items() if name in plan.open}
    default = _DEFAULTS[plan.part]
    values: Options = {"learning_rate": default.learning_rate, "optimizer": default.optimizer}
    values["use_log_likelihood"] = plan.part == LIKELIHOOD and learns_log_likelihood(plan.simulator)
    if plan.steps is None:
        values |= {"batch_size": default.batch_size, "evaluate_every": None, "growing": _FOR_EVER}
        start = with_options(plan, {name: value for name, value in values.items() if name in plan.open})
        values["batch_size"], steps = _suited_batch(start, known, device, offered)
    else:
        steps = plan.steps
        values |= {"batch_size": default.batch_size}
        values |= {"evaluate_every": min(_LONGEST, max(_SHORTEST, plan.steps // _EVALUATIONS))}
    values["growing"] = int(steps) if plan.part == LIKELIHOOD else 0
    if plan.part == BUFFER and plan.with_likelihood and plan.batches.condition_masks > 1:
        values["likelihood_weight"] = _LIKELIHOOD_WEIGHT
    values["warmup"] = min(_LONGEST_WARMUP, int(_WARMUP_SHARE * steps))
    return {name: value for name, value in values.items() if name in plan.open}


def with_options(plan: TrainingPlan, values: Options) -> TrainingPlan:
    """The plan with these options."""
    batches, optimization, run = (
        {name: x for name, x in values.items() if name in {field.name for field in fields(options)}}
        for options in (BatchOptions, OptimizationOptions, RunOptions)
    )
    return replace(
        plan,
        batches=replace(plan.batches, **batches),
        optimization=replace(plan.optimization, **optimization),
        run=replace(plan.run, **run),
    )


def _suited_batch(plan: TrainingPlan, known: Survey, device: torch.device, seconds: float) -> tuple[int, float]:
    """A batch size that suits the machine and the time, and how many steps of it there will be."""
    deadline = time.monotonic() + _TIMING_SHARE * seconds
    fixed = "batch_size" not in plan.open
    size = plan.batches.batch_size
    step = _step_seconds(plan, known, device)
    while not fixed and size < _LARGEST_BATCH and time.monotonic() < deadline:
        double = _step_seconds(with_options(plan, {"batch_size": 2 * size}), known, device)
        if double > _NEARLY_FREE * step:
            break
        size, step = 2 * size, double
    while not fixed and size > _SMALLEST_BATCH and seconds < _FEW_STEPS * step:
        size, step = size // 2, step / 2
    return size, seconds / (step * _mean_growth(plan, known, device, size, step, seconds))


def _mean_growth(
    plan: TrainingPlan, known: Survey, device: torch.device, size: int, first: float, seconds: float
) -> float:
    """How long a step takes in the mean, over the first: batches grow."""
    if plan.part != LIKELIHOOD:
        return 1.0
    last = _step_seconds(with_options(plan, {"batch_size": size, "growing": 0}), known, device) / first
    ordered, whole = plan.simulator.schema.ordered, replace(plan.batches, growing=0)
    batches = replace(plan.batches, growing=max(1, int(seconds / first)))
    work = np.mean([relative_work(batches, ordered, grown) for grown in np.linspace(0, 1, 21)])
    # What does not grow with the work are the calls.
    return max(1.0, 1 + (last - 1) * (float(work) - 1) / (relative_work(whole, ordered, 1.0) - 1))


def _step_seconds(plan: TrainingPlan, known: Survey, device: torch.device) -> float:
    """How long a step takes, its batch included where no worker makes it meanwhile."""
    net = TorchNetwork(plan.simulator.schema, plan.config, known.standardization, seed=plan.seed).to(device)
    loss, optimizers = (
        Loss(net, plan.optimization.likelihood_weight, plan.part),
        make_optimizers(plan.optimization, net),
    )
    seconds = []
    for number in range(1 + _TIMED):
        begun = time.monotonic()
        batches = plan.batches_of(number)
        data, simulated = batches[0].data, time.monotonic()
        if data is None:
            continue
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss(to_device(map_arrays(torch.as_tensor, data), device)).backward()
        for optimizer in optimizers:
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ended, workers = time.monotonic(), plan.run.workers
        made = (simulated - begun) / len(batches) / max(workers, 1)
        step = ended - simulated
        seconds.append(max(made, step) if workers else made + step)
    return min(seconds[1:] or seconds or [1.0])
