"""The training of one part of a network: all that a step changes, in the run folder and back."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from ppl_buffer import files
from ppl_buffer.files import write_atomic
from ppl_buffer.network import checkpoint
from ppl_buffer.network.estimated_error import EstimatedError
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.training.batches import Tree
from ppl_buffer.training.draws import RejectionCounts
from ppl_buffer.training.error import estimate_error
from ppl_buffer.training.loading import HeldOutBatches
from ppl_buffer.training.log import loss_curve, loss_table
from ppl_buffer.training.loss import Loss
from ppl_buffer.training.optimizers import average_weights, make_optimizers, set_learning_rate
from ppl_buffer.training.parts import LIKELIHOOD
from ppl_buffer.training.plan import TrainingPlan
from ppl_buffer.training.progress import Progress
from ppl_buffer.training.recording import part_record
from ppl_buffer.training.schedule import Schedule, begin_decay, warm_up
from ppl_buffer.training.sketch import check_same_simulator
from ppl_buffer.training.snapshots import Snapshots, Table
from ppl_buffer.training.standardization import Survey
from ppl_buffer.training.start import grow
from ppl_buffer.training.state import (
    BEFORE_DECAY,
    BEST,
    CURVE,
    LOG,
    STATE,
    KeptState,
    check_same_run,
    read_state,
    write_state,
)

_LARGEST_NORM = 1.0
# The error of weights that are this far in a training is that of the last.
_END = 0.9


class Trainer:
    """The network of a part, its optimisers, its averaged copy and how far they are: made anew, or as they were kept.

    Args:
        plan: what was asked for.
        survey: what was found out of the simulator.
        device: where to train.
        offered: how long the training is to be in all, in steps or in seconds.
        kept: the state to go on from; None = begin.

    Raises:
        ValueError: if the folder holds a run of other settings, or a damaged one, or the simulator draws other data
            than when it began.
    """

    def __init__(
        self, plan: TrainingPlan, survey: Survey, device: torch.device, offered: float, kept: KeptState | None = None
    ) -> None:
        self.plan, self.folder, self.survey = plan, plan.folder, survey
        if kept is not None:
            check_same_run(plan, kept)
        check_same_simulator(
            self.folder, plan.sketch, begins=kept is None, advice="choose another folder, or resume=False"
        )
        self.at = Progress(counts=RejectionCounts(**asdict(survey.counts)))
        self.net = TorchNetwork(plan.simulator.schema, plan.config, survey.standardization, seed=plan.seed).to(device)
        if plan.begins_with is not None:
            grow(plan.begins_with, self.net)
        self.optimizers = make_optimizers(plan.optimization, self.net)
        learning = {id(weight) for each in self.optimizers for group in each.param_groups for weight in group["params"]}
        for weight in self.net.weights.values():
            weight.requires_grad_(id(weight) in learning)
        likelihood_weight = plan.optimization.likelihood_weight
        self.loss = Loss(self.net, likelihood_weight, plan.part)
        self.averaged = AveragedModel(self.net, multi_avg_fn=average_weights)
        self.averaged_net: TorchNetwork = self.averaged.module  # type: ignore[assignment]
        self.averaged_loss = Loss(self.averaged_net, likelihood_weight, plan.part)
        self.schedule, self.seconds, self._reserved = Schedule(offered), 0.0, 0.0
        self.table = Table()
        self.snapshots: Snapshots | None = None
        self.error: EstimatedError | None = None
        self._target: float | None = None  # the one that was reached
        self._judged = math.inf  # what the last weights were judged by
        self.resumed = kept is not None
        if kept is not None:
            self._go_on(kept, offered)

    @property
    def done(self) -> float:
        """How far the training is, in the unit of its schedule: steps or seconds."""
        if self.plan.steps is not None:
            return self.at.step
        total = self.schedule.total
        return self.seconds * total / (total - min(self._reserved, total / 3))

    def update(
        self,
        model: torch.nn.Module,
        optimizers: list[torch.optim.Optimizer],
        batch: Tree,
        weight: float,
        fabric: Any = None,
    ) -> float:
        """One step; returns its loss.

        Args:
            model: the loss as a module, as Fabric wraps it where there are several processes.
            optimizers: likewise.
            batch: this process's data sets.
            weight: of their mean loss.
            fabric: Lightning's, or None.

        Raises:
            FloatingPointError: if too many gradients were no numbers.
        """
        at, optimization = self.at, self.plan.optimization
        factor = self.schedule.factor(self.done) * warm_up(at.step, int(optimization.warmup))
        set_learning_rate(optimizers, float(optimization.learning_rate) * factor)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = model(batch) * weight
        if not loss.requires_grad:
            pass  # nobody sees a buffer, and nothing else learns
        elif fabric is None:
            loss.backward()
        else:
            fabric.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), _LARGEST_NORM)
        value = float(loss.detach())
        if math.isfinite(float(norm)):
            for optimizer in optimizers:
                optimizer.step()
            self.averaged.update_parameters(self.net)
        else:
            at.skip()
        at.advance(value)
        return value

    def evaluate(self, held_out: HeldOutBatches) -> bool:
        """Note what the averaged weights make of held-out data; returns whether they are the best so far, and written.

        Where the estimated error is below the target, the decay begins.
        """
        total, given = 0.0, [np.zeros(0)]
        with torch.no_grad():
            for batch, terms in held_out.batches:
                if "log_predictive" in batch:
                    total += float(self.averaged_loss(batch)) * terms
                    continue
                by_set = self.averaged_loss.by_set(batch)
                total += float(self.averaged_loss.mean(by_set)) * terms
                # Of stored data sets all that the loss is of: whether a training over-fits is seen by it.
                rows = by_set[0] if self.plan.stored is None else by_set.mean(0)
                given.append(rows.cpu().double().numpy())
            rehearsal = [float(self.averaged_loss(batch)) for batch in held_out.rehearsal]
        loss = total / sum(terms for _, terms in held_out.batches)
        at, target = self.at, self.plan.run.target
        self.table.append(at.step, self.seconds, self.schedule.factor(self.done), np.concatenate(given))
        if len(held_out.sets.trials):
            self.snapshots = self.table.snapshots(self.plan.part, held_out.sets, at.finished)
            if self.plan.stored is None:
                # The law of learning supposes that no data set comes twice.
                self.error = estimate_error(self.snapshots, self.plan.error_before)
                at.given.append([at.step, float(self.snapshots.means[-1])])
        if self.error is not None and target is not None and not at.decaying and self.error.nats_per_trial <= target:
            self.schedule, self._target = begin_decay(self.done), target
        # What the held-out data know nothing of counts as well, in the share that it has in the training.
        self._judged = sum(rehearsal) / len(rehearsal) if rehearsal else loss
        better = at.evaluate(loss, self._judged, first=not (self.folder / BEST).exists())
        if better:
            self._write_best(loss)
        elif self.plan.stored is not None and self.snapshots and self.snapshots.overfits(self.plan.run.patience):
            at.overfit()
            self.schedule = Schedule(max(self.done, 1e-3))
        return better

    def _write_best(self, loss: float) -> None:
        """Write the averaged weights, whose held-out loss this is, as those that the run has come to."""
        record = part_record(self.plan, self.survey, self.at, self.seconds, loss, self.error)
        checkpoint.write(self.averaged_net, record, self.folder / BEST)

    def finish(self, held_out: HeldOutBatches) -> None:
        """The last evaluation; where the best weights are from the end, their checkpoint states the last estimate."""
        self.at.finish()
        better = self.evaluate(held_out)
        snapshots = self.snapshots
        annealed = self.plan.part == LIKELIHOOD and self.plan.stored is None
        if not better and annealed and snapshots is not None and snapshots.ends_as_good():
            # Annealed weights are better than the noise of few held-out trials can tell.
            self._write_best(self.at.keep_last(self._judged))
        elif not better and self.error is not None:
            path = self.folder / BEST
            best = checkpoint.load(path, backend="torch")
            assert best.record is not None
            if best.record.stages[-1].step < _END * self.at.step:
                # Of an earlier, shorter training, which stated an error of its own.
                return
            checkpoint.write(best, replace(best.record, errors={self.plan.part: self.error}), path)

    def begin_decay(self, write: bool) -> None:
        """Note that the learning rate falls from now on; `write` the state from which a longer training goes on."""
        self.at.begin_decay()
        if write:
            self.save(BEFORE_DECAY)

    def look(self, seconds: float, total: float) -> None:
        """Note how long the training has taken, and how long it is to be."""
        self.seconds, self.schedule = seconds, Schedule(total)

    def reserve(self, seconds: float) -> None:
        """Set seconds of the training aside, at most a third: for the last evaluation, when the rate is at zero."""
        self._reserved = seconds

    def save(self, name: str = STATE) -> None:
        """Write the state, and the log."""
        arrays: dict[str, np.ndarray] = {}
        for weight_name, weight in self.net.weights.items():
            arrays[f"weights/{weight_name}"] = files.to_numpy(weight)
            arrays[f"averaged/{weight_name}"] = files.to_numpy(self.averaged_net.weights[weight_name])
            for key, value in self._moments(weight).items():
                arrays[f"optimizer/{key}/{weight_name}"] = files.to_numpy(value)
        arrays |= {f"snapshots/{key}": array for key, array in self.table.arrays().items()}
        description = {
            "settings": self.plan.fingerprint(),
            "standardization": {key: list(pair) for key, pair in self.net.standardization.items()},
            "averaged": int(self.averaged.n_averaged),
            "progress": {**asdict(self.at), "best": self.at.best if math.isfinite(self.at.best) else None},
            "planned": {"steps": self.plan.steps, "total": self.schedule.total, "target": self._target},
            "error": None if self.error is None else self.error.to_dict(),
            "seconds": self.seconds,
        }
        write_state(self.folder / name, description, arrays)
        write_atomic(self.folder / LOG, loss_table(self.at.losses, self.at.held_out, self.at.given).encode())

    def draw(self) -> None:
        """Write the loss curve."""
        title = f"{self.plan.name}: {self.plan.part}"
        curve = loss_curve(self.at.losses, self.at.held_out, self.at.given, title)
        write_atomic(self.folder / CURVE, curve)

    def _moments(self, weight: Tensor) -> dict[str, Any]:
        """What the weight's optimiser remembers of it; nothing of one that does not learn."""
        by_weight = {id(w): o.state for o in self.optimizers for group in o.param_groups for w in group["params"]}
        return by_weight[id(weight)][weight] if id(weight) in by_weight else {}

    def _go_on(self, kept: KeptState, offered: float) -> None:
        """Take over a kept state, or that before its decay where the training is to be longer."""
        self.schedule, undecayed = kept.schedule(self.plan, offered)
        longer = self.schedule.total != kept.description["planned"]["total"]
        self.seconds, best = float(kept.description["seconds"]), kept.description["progress"]["best"]
        if not undecayed:
            self._target = kept.description["planned"]["target"]
        else:
            before = read_state(self.folder, BEFORE_DECAY)
            if before is None:
                raise ValueError(
                    f"out: {str(self.folder / BEFORE_DECAY)!r} is missing, from which a longer training goes on; "
                    "resume=False starts anew"
                )
            kept = before
        self._restore(kept)
        # Un-annealed weights are for a while no better than those that are kept.
        self.at.go_on(math.inf if best is None else best, undecayed, longer)

    def _restore(self, kept: KeptState) -> None:
        description, arrays = kept.description, kept.arrays
        try:
            with torch.no_grad():
                for name, weight in self.net.weights.items():
                    weight.copy_(torch.from_numpy(arrays[f"weights/{name}"]))
                    self.averaged_net.weights[name].copy_(torch.from_numpy(arrays[f"averaged/{name}"]))
            self.averaged.n_averaged.fill_(description["averaged"])
            for key, array in arrays.items():
                if key.startswith("optimizer/"):
                    _, moment, name = key.split("/")
                    weight = self.net.weights[name]
                    self._moments(weight)[moment] = torch.as_tensor(array).clone().to(weight.device)
            self.table = Table({k.removeprefix("snapshots/"): x for k, x in arrays.items() if k.startswith("snap")})
            at, error = dict(description["progress"]), description["error"]
            at["best"] = math.inf if at["best"] is None else at["best"]
            self.at = Progress(**{**at, "counts": RejectionCounts(**at["counts"])})
            self.error = None if error is None else EstimatedError.from_dict(error)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"out: the run state {str(kept.path)!r} is damaged ({error!r}); resume=False starts anew"
            ) from error
