"""The steps of a run: one part of the network after the other, each until its steps or its time are over."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tqdm.auto import tqdm

from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.training.best import write_best
from ppl_buffer.training.choices import Options, choose, with_options
from ppl_buffer.training.error import summary
from ppl_buffer.training.loading import (
    HeldOutBatches,
    Share,
    held_out_batches,
    make_loader,
    next_share,
    start_workers,
    to_device,
)
from ppl_buffer.training.plan import TrainingPlan
from ppl_buffer.training.schedule import seconds_for
from ppl_buffer.training.standardization import Survey, survey
from ppl_buffer.training.state import KeptState, read_state
from ppl_buffer.training.stopwatch import Stopwatch
from ppl_buffer.training.trainer import Trainer

# Seconds between two writes of the state and the loss curve, beside those of the state at each evaluation.
_SAVE_EVERY = 60.0
# Steps between two agreements of several processes on the time and on whether to stop.
_AGREE_EVERY = 10
# Evaluations of a part whose length is a time: at most so many, and at most this share of the time.
_EVALUATIONS, _EVALUATION_SHARE = 24, 0.05
# Seconds to write the last files.
_WRITING = 0.5

FINISHED, TIME, INTERRUPTED = "finished", "time", "interrupted"


@dataclass(frozen=True)
class Crew:
    """Who trains: a device, or several processes, and what tells them to stop.

    Args:
        device: of this process.
        stopwatch: started when the call began.
        interrupts: not empty after Ctrl-C.
        fabric: Lightning's, where there are several processes.
    """

    device: torch.device
    stopwatch: Stopwatch
    interrupts: Sequence[int]
    fabric: Any = None

    @property
    def rank(self) -> int:
        """Which process this is."""
        return 0 if self.fabric is None else self.fabric.global_rank

    @property
    def processes(self) -> int:
        """How many there are."""
        return 1 if self.fabric is None else self.fabric.world_size

    def share(self, compute: Callable[[], Options]) -> Options:
        """What the first process computes, in all of them."""
        if self.fabric is None:
            return compute()
        return self.fabric.broadcast(compute() if self.rank == 0 else None, src=0)

    def agree(self, step: int, numbers: Sequence[float]) -> list[float] | None:
        """The largest of each number over the processes; None where this is no step to agree in."""
        if self.fabric is None:
            return list(numbers)
        if step % _AGREE_EVERY:
            return None
        gathered = self.fabric.all_gather(torch.tensor(list(numbers), dtype=torch.float64, device=self.device))
        return [float(x) for x in gathered.reshape(self.processes, -1).amax(0)]


def run_parts(plans: Sequence[TrainingPlan], crew: Crew) -> str:
    """Train all parts: "finished", or "time" or "interrupted" where a later call goes on."""
    kept = {plan.part: read_state(plan.folder) for plan in plans}
    known = _known_survey(plans, list(kept.values()))
    used = 0.0
    for plan in plans:
        offered = float(plan.steps or 0) or _offered(plan, plans, kept[plan.part], used, crew)
        part = Part(plan, known, kept[plan.part], offered, crew)
        ended = part.train()
        if ended != FINISHED:
            return ended
        used += part.trainer.seconds
    return FINISHED


def _known_survey(plans: Sequence[TrainingPlan], kept: Sequence[KeptState | None]) -> Survey:
    """What is known of the simulator, on the scales that weights of this run have a meaning on."""
    first = plans[0]
    known = survey(first.simulator, first.batches, plans[-1].distillation)
    if first.start is not None:
        return replace(known, standardization=first.start.standardization)
    for state in kept:
        if state is not None:
            # As they were, to the last bit, should this machine round differently.
            scales = state.description["standardization"]
            return replace(known, standardization={name: (mean, std) for name, (mean, std) in scales.items()})
    return known


def _offered(
    plan: TrainingPlan, plans: Sequence[TrainingPlan], kept: KeptState | None, used: float, crew: Crew
) -> float:
    """Seconds for a part's training in all, so that this call takes no more than its minutes."""
    assert plan.run.minutes is not None
    seconds = 60 * float(plan.run.minutes)
    before = 0.0 if kept is None else float(kept.description["seconds"])
    own = seconds_for(seconds, plan.part, len(plans), used)
    return max(min(own, before + seconds - crew.stopwatch.seconds()), 1e-3)


class Part:
    """The training of one part in this call.

    Args:
        plan: what was asked for.
        known: of the simulator.
        kept: what the folder holds of a run.
        offered: how long the training is to be in all, in steps or in seconds.
        crew: who trains.
    """

    def __init__(self, plan: TrainingPlan, known: Survey, kept: KeptState | None, offered: float, crew: Crew) -> None:
        self._crew, self._begun = crew, crew.stopwatch.seconds()
        plan.folder.mkdir(exist_ok=True)
        settings = None if kept is None else kept.settings
        self.plan = with_options(plan, crew.share(lambda: choose(plan, settings, known, crew.device, offered)))
        self.trainer = Trainer(self.plan, known, crew.device, offered, kept)
        self._before = self.trainer.seconds
        limited = plan.steps is not None and plan.run.minutes is not None
        self._deadline = 60 * float(plan.run.minutes or 0) if limited else math.inf
        self._evaluated = self._saved = self._before
        self._evaluation, self._step_seconds = 0.0, 0.0

    def train(self) -> str:
        """Train until it is over: how it ended."""
        trainer, crew = self.trainer, self._crew
        if trainer.at.finished:
            return FINISHED
        model: torch.nn.Module = trainer.loss
        optimizers = list(trainer.optimizers)
        if crew.fabric is not None:
            model, *optimizers = crew.fabric.setup(trainer.loss, *trainer.optimizers)
        held_out = held_out_batches(self.plan, crew.device) if crew.rank == 0 else None
        if held_out is not None and not trainer.resumed:
            self._evaluate(held_out)
            trainer.save()
        with self._bar() as bar:
            batches = start_workers(make_loader(self.plan, trainer.at.step, crew.rank, crew.processes))
            ended = self._steps(model, optimizers, batches, held_out, bar)
            del batches  # ends the workers
        if held_out is not None:
            if ended == FINISHED:
                trainer.finish(held_out)
                write_best(self.plan)
            if trainer.at.overfitted:
                warn_of(_overfitted(trainer), stacklevel=3)
            trainer.save()
            trainer.draw()
            if ended == FINISHED and trainer.error is not None and self.plan.run.progress:
                assert trainer.snapshots is not None
                # Of independent trials the direct likelihood learns from data sets of a few, as no experiment has them.
                trials, parameters = self.plan.batches.trials[1], len(self.plan.simulator.schema.params)
                tqdm.write(summary(trainer.error, trainer.snapshots, trials, parameters))
        return ended

    def _steps(
        self,
        model: torch.nn.Module,
        optimizers: list[torch.optim.Optimizer],
        batches: Iterator[Share],
        held_out: HeldOutBatches | None,
        bar: tqdm,
    ) -> str:
        trainer, crew = self.trainer, self._crew
        while True:
            stop = self._look()
            if stop:
                return stop
            try:
                share = self._wait(batches)
            except KeyboardInterrupt:
                return INTERRUPTED
            if share is None:
                if crew.fabric is not None:
                    # The others wait for this process in the middle of a step, and end with it.
                    raise TimeoutError(f"process {crew.rank} still waited for the simulator when it was to stop")
                return self._look()
            if not trainer.at.decaying and trainer.schedule.decays(trainer.done):
                trainer.begin_decay(write=held_out is not None)
            loss = _step(trainer, model, optimizers, share, crew.fabric)
            if held_out is None:
                continue
            self._keep(held_out)
            self._show(bar, loss)

    def _look(self) -> str:
        """Look at the clock: why to stop, or nothing."""
        trainer, crew, at = self.trainer, self._crew, self.trainer.at
        elapsed = crew.stopwatch.seconds()
        reason = 2.0 if crew.interrupts else 1.0 if elapsed > self._deadline else 0.0
        seconds = self._before + elapsed - self._begun
        # Of the totals the least: where a target was reached the training of all gets shorter.
        agreed = crew.agree(at.step, (reason, seconds, -trainer.schedule.total))
        if agreed is not None:
            self._step_seconds = max(0.9 * self._step_seconds, (agreed[1] - trainer.seconds) / _steps_between(crew))
            reason = agreed[0]
            trainer.look(agreed[1], -agreed[2])
            if reason:
                return (TIME, INTERRUPTED)[int(reason) - 1]
        ahead = 0.0 if self.plan.steps is not None else self._step_seconds
        return FINISHED if trainer.done + ahead >= trainer.schedule.total else ""

    def _wait(self, batches: Iterator[Share]) -> Share | None:
        """The next batch; None if the time is over or Ctrl-C comes before: a simulator may never return."""
        while True:
            share = next_share(batches)
            if share is not None or (self._crew.fabric is None and self._look()):
                return share

    def _keep(self, held_out: HeldOutBatches) -> None:
        """Evaluate and save, where it is time to."""
        trainer, every = self.trainer, self.plan.run.evaluate_every
        done = trainer.done >= trainer.schedule.total
        if every is None:
            interval = max(trainer.schedule.total / _EVALUATIONS, self._evaluation / _EVALUATION_SHARE)
            evaluate = trainer.seconds - self._evaluated >= interval
        else:
            evaluate = trainer.at.step % every == 0
        due = trainer.seconds - self._saved > _SAVE_EVERY
        if evaluate and not done:
            self._evaluate(held_out)
        elif not due:
            return
        trainer.save()
        if due:
            trainer.draw()
            self._saved = trainer.seconds

    def _evaluate(self, held_out: HeldOutBatches) -> None:
        trainer, stopwatch = self.trainer, self._crew.stopwatch
        begun = stopwatch.seconds()
        if trainer.evaluate(held_out):
            write_best(self.plan, begun=trainer.at.step > 0)
        self._evaluation = stopwatch.seconds() - begun
        self._evaluated = trainer.seconds
        if self.plan.steps is None:
            trainer.reserve(1.5 * self._evaluation + _WRITING)

    def _bar(self) -> tqdm:
        """The progress bar: of steps, or of the time."""
        hidden = not self.plan.run.progress or self._crew.rank > 0
        described = {"desc": self.plan.part, "disable": hidden}
        if self.plan.steps is not None:
            return tqdm(total=self.plan.steps, initial=self.trainer.at.step, unit="step", **described)
        shape = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        return tqdm(total=round(self.trainer.schedule.total, 1), initial=self._before, bar_format=shape, **described)

    def _show(self, bar: tqdm, loss: float) -> None:
        trainer = self.trainer
        bar.update((trainer.at.step if self.plan.steps is not None else round(trainer.seconds, 1)) - bar.n)
        to_go = "?" if trainer.error is None else f"{trainer.error.nats_per_trial:.2g}"
        bar.set_postfix(nats_to_go=to_go, step=trainer.at.step, loss=f"{loss:.4f}", refresh=False)


def _overfitted(trainer: Trainer) -> Finding:
    """What to know of a training that ended before its time."""
    at = trainer.at
    best, least = min(at.held_out, key=lambda row: row[1])
    text = (
        f"the training of the {trainer.plan.part} part over-fitted {trainer.plan.stored}: after step {best:.0f} it "
        f"predicted held-out data ever worse ({least:.4f} nats a trial then, {at.held_out[-1][1]:.4f} at step "
        f"{at.step}), so it ended there; the weights of step {best:.0f} are kept. More data sets help, or a smaller "
        "network"
    )
    if best > 0:
        text += f"; or steps={round(4 / 3 * best)}, so that the learning rate has fallen by then"
    return Finding("training", text)


def _steps_between(crew: Crew) -> int:
    return 1 if crew.fabric is None else _AGREE_EVERY


def _step(
    trainer: Trainer, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], share: Share, fabric: Any
) -> float:
    """Count what was dropped, and update; returns the loss."""
    batch, counts, weight = share
    trainer.at.counts.add(counts)
    trainer.at.counts.check()
    if batch is None:
        raise counts.exhausted(f"step {trainer.at.step}")
    return trainer.update(model, optimizers, to_device(batch, trainer.net.device), weight, fabric)
