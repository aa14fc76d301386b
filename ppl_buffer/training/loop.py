"""The training loop in torch: from a simulator to a network, resumable at any moment.

Everything random is a function of (seed, step), and everything that a step changes is in the run's state file, so
that an interrupted run ends exactly where the uninterrupted one would have.
"""

from __future__ import annotations

import functools
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ppl_buffer.network import checkpoint
from ppl_buffer.network.config import Config
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.simulator import Simulator, WithInProcess, name_of
from ppl_buffer.training.batches import HELD_OUT, Batch, BatchOptions, Tree, map_arrays
from ppl_buffer.training.distillation import DistillationSets
from ppl_buffer.training.draws import RejectionCounts, check_outcome_samples, check_simulator, check_use_log_likelihood
from ppl_buffer.training.trainer import BEST, CURVE, LOG, STATE, Trainer, TrainingPlan

# Seconds between two writes of the state and the loss curve, beside those of the state at each evaluation.
_SAVE_EVERY = 60.0
# Steps between two agreements of several processes on whether to stop.
_AGREE_EVERY = 10


def train(
    simulator: Simulator,
    config: Config | None = None,
    *,
    steps: int,
    seed: int = 0,
    out: str | os.PathLike[str],
    batch_size: int = 32,
    trials: tuple[int, int] = (32, 128),
    context: tuple[int, int] = (0, 64),
    learning_rate: float = 2e-3,
    warmup: int | None = None,
    weight_decay: float = 0.01,
    optimizer: str = "adamw",
    condition_masks: int = 2,
    likelihood_weight: float | None = None,
    context_free_fraction: float = 0.25,
    outcome_samples: int = 1,
    use_log_likelihood: bool = False,
    start: Any = None,
    distillation: DistillationSets | str | os.PathLike[str] | None = None,
    distillation_share: float = 0.5,
    held_out: int = 256,
    evaluate_every: int = 500,
    devices: int = 1,
    accelerator: str = "auto",
    workers: int = 1,
    resume: bool = True,
    progress: bool = True,
    minutes: float | None = None,
) -> TorchNetwork:
    """Train a network on a simulator.

    The run folder `out` holds ``best.safetensors`` (the best averaged weights so far, a checkpoint for `load`),
    ``state.safetensors`` (all that a later call needs to go on), ``log.csv`` and ``loss.png``. Each is replaced
    atomically, so that a kill at any moment leaves files that load. The same call on the same folder goes on where
    the run stopped, and ends where it would have ended without the stop.

    Data sets with values that are no numbers, or not legal ones, are dropped and counted (in the checkpoint's
    provenance); more than 5 % of them end the run.

    Args:
        simulator: what draws the data sets; see `Simulator`.
        config: the network's sizes; `Config()` by default.
        steps: optimisation steps of the whole run.
        seed: of the initial weights and of all data. A batch depends on the seed and the step alone.
        out: the run folder, made if it does not exist.
        batch_size: data sets in a batch of typical length; longer sequences come in smaller batches.
        trials: least and greatest number of trials of a sequence, or of the buffer of an exchangeable model.
        context: least and greatest size of the context; ignored for an ordered schema.
        learning_rate: peak of the learning rate; a cosine ends at 2 % of it.
        warmup: steps of linear warm-up; by default a twentieth of `steps`, at most 1000.
        weight_decay: of the weight matrices.
        optimizer: ``"adamw"``, or ``"muon"``: Muon for the matrices inside the layers, AdamW for the rest. Muon needs
            about a third of the steps on small networks (`docs/design.md`).
        condition_masks: sets of told parameters for each data set: the first tells all parameters, each other none or a
            random subset. 1 trains the likelihood alone.
        likelihood_weight: weight in the loss of the set that tells all parameters, in (0, 1); the others share the rest. By
            default all count the same. Where parameters are hidden the gradient is far noisier: 0.9 trains a better
            likelihood in the same number of steps.
        context_free_fraction: share of the batches without a context, where the least context is 0. Raise it for the evidence of
            many trials in one pass, which starts without one.
        outcome_samples: how often the outcomes of a target are drawn, each time given the same parameters and past: most of
            the gradient's noise is theirs, and a redraw costs the heads alone. For simulators whose trials are
            independent given the parameters, or that have a method ``resample_outcomes``.
        use_log_likelihood: where all parameters are told, learn the simulator's own ``log_likelihood`` in place of draws. For
            the last steps of a likelihood, with `start` and a low learning rate; early in a training it may cost more
            than it gives (`docs/design.md`).
        start: a trained network, or what `load` takes, to start from instead of random weights: fine-tuning, or the
            network of a similar simulator. Its schema must be the same; `config` is taken from it, unless one is given
            with more layers (`depth`) or more `asinh_scales`: then the network grows, and predicts the same at first.
        distillation: what `prepare_distillation` returned, or its folder: data sets in which the model need not hold, to learn
            what the model predicts after them, and what density it gives them. They come to the batches beside
            simulated ones, and to the held-out loss, which is then not comparable with that of a run without.
        distillation_share: share of the batches that are lessons.
        held_out: data sets for the held-out loss, the same in all runs of the same settings.
        evaluate_every: steps between two evaluations.
        devices: number of processes that share each batch. Above 1, Lightning Fabric starts them afresh: the
            simulator must be importable, and a script must call `train` under ``if __name__ == "__main__":``.
        accelerator: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
        workers: background processes that simulate; 0 simulates in the training process.
        resume: go on with the run in `out`. False starts it anew.
        progress: show a progress bar.
        minutes: save the state and return after this time; the same call goes on. For machines with a time limit.

    Returns:
        the best averaged weights, frozen, on the CPU, with their `TrainingRecord` in ``net.record``.

    Raises:
        ValueError: if an argument or what the simulator returns does not fit, too many data sets had to be dropped,
            or `out` holds a run with other settings.
        FloatingPointError: if the gradient is no number in step after step.
        KeyboardInterrupt: on Ctrl-C, after the state was saved.
    """
    check_simulator(simulator)
    for name, value, least in (
        ("steps", steps, 1),
        ("seed", seed, 0),
        ("warmup", warmup, 0),
        ("held_out", held_out, 1),
        ("evaluate_every", evaluate_every, 1),
        ("devices", devices, 1),
        ("workers", workers, 0),
    ):
        optional = name == "warmup" and value is None
        if not optional and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least):
            raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate: expected a number above 0, got {learning_rate!r}")
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(f"weight_decay: expected a number of at least 0, got {weight_decay!r}")
    if optimizer not in ("adamw", "muon"):
        raise ValueError(f"optimizer: expected 'adamw' or 'muon', got {optimizer!r}")
    if likelihood_weight is not None and not 0 < likelihood_weight < 1:
        raise ValueError(f"likelihood_weight: expected a number in (0, 1) or None, got {likelihood_weight!r}")
    if not 0 < distillation_share < 1:
        raise ValueError(f"distillation_share: expected a number in (0, 1), got {distillation_share!r}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes: expected a number above 0, got {minutes!r}")
    start = None if start is None else _start_from(start, simulator, config)
    distillation = None if distillation is None else _lessons_for(distillation, simulator)
    device = _device(accelerator)
    settings = BatchOptions(
        batch_size, trials, context, condition_masks, context_free_fraction, outcome_samples, bool(use_log_likelihood)
    )
    check_outcome_samples(simulator, settings.outcome_samples)
    if use_log_likelihood:
        check_use_log_likelihood(simulator)
    if settings.least_size(simulator.schema) < devices:
        raise ValueError(
            f"devices: expected at most {settings.least_size(simulator.schema)}, the data sets in a batch of the "
            f"longest sequences, got {devices}; raise batch_size"
        )
    plan = TrainingPlan(
        simulator=simulator,
        config=config or (Config() if start is None else start.config),
        start=start,
        settings=settings,
        steps=int(steps),
        seed=int(seed),
        out=Path(out),
        learning_rate=float(learning_rate),
        warmup=min(1000, int(steps) // 20) if warmup is None else int(warmup),
        weight_decay=float(weight_decay),
        optimizer=optimizer,
        held_out=int(held_out),
        evaluate_every=int(evaluate_every),
        workers=0 if isinstance(simulator, WithInProcess) and simulator.in_process else int(workers),
        progress=progress,
        minutes=minutes,
        likelihood_weight=None if likelihood_weight is None else float(likelihood_weight),
        distillation=distillation,
        distillation_share=float(distillation_share),
    )
    plan.out.mkdir(parents=True, exist_ok=True)
    if not resume:
        # The state goes first: without it the other files are only results.
        for name in (STATE, BEST, LOG, CURVE):
            (plan.out / name).unlink(missing_ok=True)
    ended = _run(plan, device) if devices == 1 else _launch(plan, device, devices)
    if ended == "interrupted":
        raise KeyboardInterrupt(f"training stopped; its state is in {plan.out}, and the same call goes on")
    if ended == "time":
        warnings.warn(
            f"training stopped after minutes={minutes}; the same call goes on with the run in {plan.out}", stacklevel=2
        )
    return checkpoint.load(plan.out / BEST, backend="torch")


def _start_from(start: Any, simulator: Simulator, config: Config | None) -> TorchNetwork:
    net = checkpoint.load(start, backend="torch") if isinstance(start, (str, os.PathLike)) else start
    if not isinstance(net, TorchNetwork):
        raise ValueError(f"start: expected a torch network or the name of a checkpoint, got {type(net).__name__}")
    if net.schema != simulator.schema:
        raise ValueError(
            f"start: expected a network with the simulator's schema {simulator.schema.to_dict()}, "
            f"got {net.schema.to_dict()}"
        )
    if config is not None:
        grown = {name: getattr(config, name) for name in ("depth", "asinh_scales")}
        less = [name for name, size in grown.items() if size < getattr(net.config, name)]
        if less or replace(net.config, **grown) != config:
            raise ValueError(
                f"config: expected none, or that of start, {net.config}, with depth or asinh_scales as large or larger, "
                f"got {config}"
            )
    return net


def _lessons_for(distillation: Any, simulator: Simulator) -> DistillationSets:
    distillation = distillation if isinstance(distillation, DistillationSets) else DistillationSets(distillation)
    taught, name = distillation.description["network"], name_of(simulator)
    if taught != name:
        raise ValueError(f"distillation: expected sets of a network of {name!r}, got sets of one of {taught!r}")
    return distillation


def _device(accelerator: str) -> torch.device:
    if accelerator not in ("auto", "cpu", "cuda"):
        raise ValueError(f"accelerator: expected 'auto', 'cpu' or 'cuda', got {accelerator!r}")
    found = torch.cuda.is_available()
    if accelerator == "cuda" and not found:
        raise ValueError("accelerator: expected 'auto' or 'cpu' on a machine without CUDA, got 'cuda'")
    return torch.device("cuda" if found and accelerator != "cpu" else "cpu")


def _launch(plan: TrainingPlan, device: torch.device, devices: int) -> str:
    """Run the plan in several processes; returns how it ended."""
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    except ImportError as error:
        raise ImportError("devices above 1 need Lightning Fabric: pip install 'ppl-buffer[train]'") from error
    # Spawned processes work from any function, with threads and with CUDA. Not every batch uses every weight: there
    # may be no context in it.
    strategy = DDPStrategy(start_method="spawn", find_unused_parameters=True)
    fabric = Fabric(accelerator=device.type, devices=devices, strategy=strategy)
    with _interrupts():
        # Bound, not handed over as an argument: Fabric looks into dataclasses that are, and refuses frozen ones.
        return fabric.launch(functools.partial(_run_process, plan=plan))


def _run_process(fabric: Any, plan: TrainingPlan) -> str:
    return _run(plan, fabric.device, fabric)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collect Ctrl-C in a list instead of stopping in the middle of an update; a second one stops at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, previous)


class _Batches(Dataset):
    """The batches of a run, or one process's share of them; the index is the step."""

    def __init__(self, plan: TrainingPlan, rank: int, processes: int) -> None:
        self.plan, self.rank, self.processes = plan, rank, processes

    def __getitem__(self, step: int) -> tuple[Tree | None, RejectionCounts, float]:
        """This process's data sets as tensors, the count of the whole batch, and the weight of its mean loss."""
        batch = self.plan.batch(step)
        if batch.data is None:
            return None, batch.counts, 1.0
        size = _size(batch)
        edges = [round(size * k / self.processes) for k in range(self.processes + 1)]
        mine = slice(edges[self.rank], edges[self.rank + 1])
        # Processes average their gradients: the weight makes that the mean over all data sets.
        weight = (mine.stop - mine.start) * self.processes / size
        return map_arrays(lambda x: torch.as_tensor(x[mine]), batch.data), batch.counts, weight


def _size(batch: Batch) -> int:
    assert batch.data is not None
    return len(next(iter(batch.data["targets"]["outcomes"].values())))


def _untouched(item: Any) -> Any:
    return item


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the training process decides what follows from it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _loader(plan: TrainingPlan, start: int, rank: int, processes: int) -> DataLoader:
    return DataLoader(
        _Batches(plan, rank, processes),
        batch_size=None,
        sampler=range(start, plan.steps),
        num_workers=plan.workers,
        prefetch_factor=4 if plan.workers else None,
        collate_fn=_untouched,
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # else it would draw from the user's
    )


def _start(loader: DataLoader) -> Iterator[tuple[Tree | None, RejectionCounts, float]]:
    """Start the workers."""
    with warnings.catch_warnings():
        # JAX and Python warn of any fork in a program with threads. A worker runs the simulator alone, and one that
        # cannot live with a fork says so by `in_process`.
        warnings.filterwarnings("ignore", message=r".*fork\(\)")
        return iter(loader)


def _run(plan: TrainingPlan, device: torch.device, fabric: Any = None) -> str:
    """Train until the plan is done, the time is over or the user interrupts: "finished", "time" or "interrupted"."""
    deadline = math.inf if plan.minutes is None else time.monotonic() + 60 * plan.minutes
    rank, processes = (0, 1) if fabric is None else (fabric.global_rank, fabric.world_size)
    run = Trainer(plan, device)
    if run.at.step == plan.steps:
        return "finished"
    model: Any = run.loss
    optimizers: list[Any] = list(run.optimizers)
    if fabric is not None:
        model, *optimizers = fabric.setup(run.loss, *run.optimizers)
    held_out = _held_out(plan, device) if rank == 0 else []
    if rank == 0 and not run.resumed:
        run.evaluate(held_out)
        run.save()
    drawn = time.monotonic()
    bar = tqdm(total=plan.steps, initial=run.at.step, disable=not plan.progress or rank > 0, unit="step")
    ended = "finished"
    with bar, _interrupts() as interrupts:
        batches = _start(_loader(plan, run.at.step, rank, processes))
        while run.at.step < plan.steps:
            stop = "interrupted" if interrupts else "time" if time.monotonic() > deadline else ""
            if fabric is None or run.at.step % _AGREE_EVERY == 0:
                ended = stop if fabric is None else _agree(fabric, stop)
                if ended:
                    break
            try:
                batch, counts, weight = next(batches)
            except KeyboardInterrupt:
                ended = "interrupted"
                break
            run.at.counts.add(counts)
            run.at.counts.check()
            if batch is None:
                raise counts.exhausted(f"step {run.at.step}")
            loss = run.update(model, optimizers, _to(batch, device), weight, fabric)
            if rank > 0:
                continue
            bar.update()
            due = time.monotonic() - drawn > _SAVE_EVERY
            if run.at.step % plan.evaluate_every == 0 or run.at.step == plan.steps:
                run.evaluate(held_out)
            elif not due:
                continue
            run.save()
            if due:
                run.draw()
                drawn = time.monotonic()
            bar.set_postfix(loss=f"{loss:.4f}", best_held_out=f"{run.at.best:.4f}", refresh=False)
        else:
            ended = "finished"
        del batches  # ends the workers
    if rank == 0:
        run.save()
        run.draw()
    return ended


def _agree(fabric: Any, stop: str) -> str:
    """The same decision in all processes: whether any of them wants to stop, and why."""
    reasons = ["", "time", "interrupted"]
    wanted = torch.tensor(float(reasons.index(stop)), device=fabric.device)
    gathered = fabric.all_gather(wanted)
    return reasons[int(gathered.max())]


def _to(batch: Tree, device: torch.device) -> Tree:
    return batch if device.type == "cpu" else map_arrays(lambda x: x.to(device, non_blocking=True), batch)


def _held_out(plan: TrainingPlan, device: torch.device) -> list[tuple[Tree, int]]:
    """Fixed batches and their numbers of loss terms; they do not depend on the run's seed."""
    batches: list[tuple[Tree, int]] = []
    drawn = 0
    for step in range(plan.held_out):
        if drawn >= plan.held_out:
            break
        batch = plan.batch(step, HELD_OUT)
        if batch.data is None:
            raise batch.counts.exhausted("the held-out loss")
        drawn += _size(batch)
        terms = next(iter(batch.data["targets"]["outcomes"].values())).size
        batches.append((_to(map_arrays(torch.as_tensor, batch.data), device), terms))
    return batches
