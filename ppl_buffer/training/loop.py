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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tqdm.auto import tqdm

from ppl_buffer.checks import check_flag, check_path
from ppl_buffer.extras import needs
from ppl_buffer.files import make_folder
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.network import checkpoint
from ppl_buffer.network.config import Config
from ppl_buffer.network.network import Network
from ppl_buffer.network.record import StageRecord
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.simulator import Simulator
from ppl_buffer.training.abilities import check_simulator
from ppl_buffer.training.batches import BatchOptions
from ppl_buffer.training.distillation import DistillationSets
from ppl_buffer.training.environment import try_environment
from ppl_buffer.training.loading import (
    Share,
    held_out_batches,
    make_loader,
    next_share,
    start_workers,
    to_device,
    with_possible_workers,
)
from ppl_buffer.training.lock import locked
from ppl_buffer.training.options import OptimizationOptions, RunOptions, TrainingPlan, make_plan
from ppl_buffer.training.randomness import check_randomness
from ppl_buffer.training.trainer import BEST, Trainer, forget_run

# Seconds between two writes of the state and the loss curve, beside those of the state at each evaluation.
_SAVE_EVERY = 60.0
# Steps between two agreements of several processes on whether to stop.
_AGREE_EVERY = 10
# Share of dropped data sets from which on the user is told: fewer change nothing that could be measured.
_FEW_DROPPED = 1e-3


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
    start: Network | str | os.PathLike[str] | None = None,
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
    record); more than one in a thousand is warned of, more than 5 % end the run.

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
            about a third of the steps on small networks.
        condition_masks: choices of parameters that each data set is conditioned on: the first holds all parameters,
            each other none or a random subset (Gloeckler et al. 2024, arXiv 2404.09636). 1 trains the likelihood
            alone.
        likelihood_weight: weight in the loss of the first of these, the likelihood, in (0, 1); the others share the
            rest. By default all count the same. Where parameters are hidden the gradient is far noisier: 0.9 trains a
            better likelihood in the same number of steps.
        context_free_fraction: share of the batches without a context, where the least context is 0. Raise it for the
            evidence of many trials in one pass, which starts without one.
        outcome_samples: how often the outcomes of a target are drawn, each time given the same parameters and past:
            most of the gradient's noise is theirs, and a further sample costs the heads alone. For simulators whose
            trials are independent given the parameters, or that have a method ``resample_outcomes``.
        use_log_likelihood: where all parameters are conditioned on, learn the simulator's own ``log_likelihood`` in
            place of draws. For the last steps of a likelihood, with `start` and a low learning rate; early in a
            training it may cost more than it gives.
        start: a trained network, or what `load` takes, to start from instead of random weights: fine-tuning, or the
            network of a similar simulator. Its schema must be the same; `config` is taken from it, unless one is given
            with more layers (`depth`) or more `asinh_scales`: then the network grows, and predicts the same at first.
            The record of the result goes on from the start's (`TrainingRecord.stages`).
        distillation: what `prepare_distillation` returned, or its folder: data sets in which the model need not hold,
            to learn what the model predicts after them, and what density it gives them. They come to the batches
            beside simulated ones, and to the held-out loss, which is then not comparable with that of a run without.
        distillation_share: share of the batches that come from distillation sets.
        held_out: data sets for the held-out loss, the same in all runs of the same settings.
        evaluate_every: steps between two evaluations.
        devices: number of processes that share each batch. Above 1, Lightning Fabric starts them afresh: the
            simulator must be importable, and a script must call `train` under ``if __name__ == "__main__":``.
        accelerator: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
        workers: background processes that simulate; 0 simulates in the training process.
        resume: go on with the run in `out`. False starts it anew.
        progress: show a progress bar.
        minutes: save the state and return after this time; the same call goes on. For machines with a time limit. A
            warning says so; it also says if no evaluation came before, so that the network is untrained.

    Returns:
        the best averaged weights, frozen, on the CPU, with their `TrainingRecord` in ``net.record``.

    Raises:
        ValueError: if an argument or what the simulator returns does not fit, too many data sets had to be dropped,
            another call is training in `out`, or it holds a run with other settings or of a simulator that drew
            other data.
        FloatingPointError: if the gradient is no number in step after step.
        KeyboardInterrupt: on Ctrl-C, after the state was saved.
    """
    check_simulator(simulator)
    batches = BatchOptions(
        batch_size, trials, context, condition_masks, context_free_fraction, outcome_samples, use_log_likelihood
    )
    optimization = OptimizationOptions(steps, learning_rate, warmup, weight_decay, optimizer, likelihood_weight)
    run = RunOptions(check_path("out", out), held_out, evaluate_every, devices, accelerator, workers, progress, minutes)
    plan = with_possible_workers(
        make_plan(simulator, config, seed, batches, optimization, run, start, distillation, distillation_share)
    )
    check_flag("resume", resume)
    check_randomness(simulator)
    try_environment(simulator)
    make_folder("out", run.out)
    device = _device(accelerator)
    with locked(run.out):
        if not resume:
            forget_run(run.out)
        ended = _run(plan, device) if devices == 1 else _launch(plan, device)
    if ended == "interrupted":
        raise KeyboardInterrupt(f"training stopped; its state is in {run.out}, and the same call goes on")
    net = checkpoint.load(run.out / BEST, backend="torch")
    assert isinstance(net, TorchNetwork)
    if ended == "time":
        warn_of(_out_of_time(plan, net))
    assert net.record is not None
    stage = net.record.stages[-1]
    if stage.dropped_data_sets > _FEW_DROPPED * stage.data_sets:
        warn_of(_dropped(stage))
    return net


def _dropped(stage: StageRecord) -> Finding:
    """What to know of a network whose training left data sets out."""
    share = stage.dropped_data_sets / stage.data_sets
    text = (
        f"{stage.dropped_data_sets} of {stage.data_sets} simulated data sets ({share:.1%}) were left out, since they "
        "held values that are no numbers or not legal: the network knows the model given that this does not happen, "
        "which is another likelihood and another prior. Let the simulator return legal values, or narrow its prior"
    )
    return Finding("simulator", text, share=share)


def _out_of_time(plan: TrainingPlan, net: TorchNetwork) -> Finding:
    """What to know of a network whose training was stopped by `minutes`."""
    text = f"training stopped after minutes={plan.run.minutes}; the same call goes on with the run in {plan.run.out}"
    assert net.record is not None
    if net.record.stages[-1].step == 0:
        weights = "random weights" if plan.start is None else "the weights of start"
        text += (
            f". The network is untrained: it has {weights}, since the first evaluation comes after "
            f"{plan.run.evaluate_every} steps (evaluate_every). Do not use it"
        )
    return Finding("training", text)


def _device(accelerator: str) -> torch.device:
    available = torch.cuda.is_available()
    if accelerator == "cuda" and not available:
        raise ValueError("accelerator: expected 'auto' or 'cpu' on a machine without CUDA, got 'cuda'")
    return torch.device("cuda" if available and accelerator != "cpu" else "cpu")


def _launch(plan: TrainingPlan, device: torch.device) -> str:
    """Run the plan in several processes; returns how it ended."""
    with needs("training on several devices", "train"):
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    # Spawned processes work from any function, with threads and with CUDA. Not every batch uses every weight: there
    # may be no context in it.
    strategy = DDPStrategy(start_method="spawn", find_unused_parameters=True)
    fabric = Fabric(accelerator=device.type, devices=plan.run.devices, strategy=strategy)
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


def _run(plan: TrainingPlan, device: torch.device, fabric: Any = None) -> str:
    """Train until the plan is done, the time is over or the user interrupts: "finished", "time" or "interrupted"."""
    deadline = math.inf if plan.run.minutes is None else time.monotonic() + 60 * plan.run.minutes
    rank, processes = (0, 1) if fabric is None else (fabric.global_rank, fabric.world_size)
    trainer = Trainer(plan, device)
    if trainer.at.step == plan.steps:
        return "finished"
    model: Any = trainer.loss
    optimizers: list[Any] = list(trainer.optimizers)
    if fabric is not None:
        model, *optimizers = fabric.setup(trainer.loss, *trainer.optimizers)
    held_out = held_out_batches(plan, device) if rank == 0 else []
    if rank == 0 and not trainer.resumed:
        trainer.evaluate(held_out)
        trainer.save()
    saved = time.monotonic()
    bar = tqdm(total=plan.steps, initial=trainer.at.step, disable=not plan.run.progress or rank > 0, unit="step")
    ended = "finished"
    with bar, _interrupts() as interrupts:
        batches = start_workers(make_loader(plan, trainer.at.step, rank, processes))
        while trainer.at.step < plan.steps:
            stop = "interrupted" if interrupts else "time" if time.monotonic() > deadline else ""
            if fabric is None or trainer.at.step % _AGREE_EVERY == 0:
                stop = stop if fabric is None else _agree(fabric, stop)
                if stop:
                    ended = stop
                    break
            try:
                share = _wait(batches, interrupts, deadline)
            except KeyboardInterrupt:
                ended = "interrupted"
                break
            if share is None:
                if fabric is not None:
                    # The others wait for this process in the middle of a step, and end with it.
                    raise TimeoutError(f"process {rank} still waited for the simulator when the training was to stop")
                ended = "interrupted" if interrupts else "time"
                break
            loss = _step(trainer, model, optimizers, share, fabric)
            if rank > 0:
                continue
            bar.update()
            due = time.monotonic() - saved > _SAVE_EVERY
            if trainer.at.step % plan.run.evaluate_every == 0 or trainer.at.step == plan.steps:
                trainer.evaluate(held_out)
            elif not due:
                continue
            trainer.save()
            if due:
                trainer.draw()
                saved = time.monotonic()
            bar.set_postfix(loss=f"{loss:.4f}", best_held_out=f"{trainer.at.best:.4f}", refresh=False)
        del batches  # ends the workers
    if rank == 0:
        trainer.save()
        trainer.draw()
    return ended


def _wait(batches: Iterator[Share], interrupts: list[int], deadline: float) -> Share | None:
    """The next batch; None if the time is over or Ctrl-C comes before: a simulator may never return."""
    while True:
        share = next_share(batches)
        if share is not None or interrupts or time.monotonic() > deadline:
            return share


def _step(trainer: Trainer, model: Any, optimizers: list[Any], share: Share, fabric: Any) -> float:
    """Count what was dropped, and update; returns the loss."""
    batch, counts, weight = share
    trainer.at.counts.add(counts)
    trainer.at.counts.check()
    if batch is None:
        raise counts.exhausted(f"step {trainer.at.step}")
    return trainer.update(model, optimizers, to_device(batch, trainer.net.device), weight, fabric)


def _agree(fabric: Any, stop: str) -> str:
    """The same decision in all processes: whether any of them wants to stop, and why."""
    reasons = ["", "time", "interrupted"]
    wanted = torch.tensor(float(reasons.index(stop)), device=fabric.device)
    gathered = fabric.all_gather(wanted)
    return reasons[int(gathered.max())]
