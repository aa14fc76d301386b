"""The state of one training run: all that a step changes, in the run folder and back."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from ppl_buffer import files
from ppl_buffer.files import pack_arrays, write_atomic
from ppl_buffer.network import checkpoint
from ppl_buffer.network.record import StageRecord, TrainingRecord
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.training.batches import Tree
from ppl_buffer.training.draws import RejectionCounts
from ppl_buffer.training.log import loss_curve, loss_table
from ppl_buffer.training.loss import Loss
from ppl_buffer.training.optimizers import average_weights, learning_rate_at, make_optimizers, set_learning_rate
from ppl_buffer.training.options import TrainingPlan
from ppl_buffer.training.sketch import FILE as SKETCH
from ppl_buffer.training.sketch import check_same_simulator
from ppl_buffer.training.standardization import standardize, trained_box
from ppl_buffer.training.start import grow
from ppl_buffer.version import __version__

STATE, BEST, LOG, CURVE = "state.safetensors", "best.safetensors", "log.csv", "loss.png"
# Version 2 differs from 1 in the words of the settings alone, which a run is compared by.
_KEY, _FORMAT = "ppl_buffer_run", 2
_LARGEST_NORM = 1.0
_LOG_ROWS = 1000
# Updates whose gradient was no number are left out; more of them than this end the run.
_MOST_SKIPPED = 10


@dataclass
class Progress:
    """Where a run is, beside its arrays."""

    step: int = 0
    best: float = math.inf
    skipped: int = 0
    window: list[float] = field(default_factory=lambda: [0.0, 0])  # sum and number of losses since the last log row
    losses: list[list[float]] = field(default_factory=list)  # [step, mean loss since the row before]
    held_out: list[list[float]] = field(default_factory=list)  # [step, held-out loss of the averaged weights]
    counts: RejectionCounts = field(default_factory=RejectionCounts)

    def skip(self) -> None:
        """Leave out an update.

        Raises:
            FloatingPointError: if too many were left out.
        """
        self.skipped += 1
        if self.skipped > _MOST_SKIPPED and self.skipped > 0.01 * self.step:
            raise FloatingPointError(
                f"the gradient was no number in {self.skipped} of {self.step + 1} steps; lower learning_rate, or look "
                "for extreme values in what the simulator returns"
            )

    def advance(self, loss: float, steps: int) -> None:
        """Count a step and its loss, of a run of so many steps."""
        self.step += 1
        if math.isfinite(loss):
            self.window[0] += loss
            self.window[1] += 1
        if self.step % max(1, steps // _LOG_ROWS) == 0 or self.step == steps:
            if self.window[1]:
                self.losses.append([self.step, self.window[0] / self.window[1]])
            self.window = [0.0, 0]

    def evaluate(self, loss: float, first: bool) -> bool:
        """Note a held-out loss; returns whether its weights are to be kept: the best so far, or the first."""
        if math.isfinite(loss):
            self.held_out.append([self.step, loss])
        keep = first or loss < self.best
        if keep:
            self.best = loss if math.isfinite(loss) else math.inf
        return keep


class Trainer:
    """The network, its optimisers, its averaged copy and how far they are: made anew, or read from the run folder.

    Args:
        plan: what was asked for.
        device: where to train.

    Raises:
        ValueError: if the folder holds a run of other settings or of another version, or a damaged one, or the
            simulator draws too much that is not legal.
    """

    def __init__(self, plan: TrainingPlan, device: torch.device) -> None:
        self.plan, self.folder = plan, plan.run.out
        description, arrays = _read_state(plan)
        standardization, self.ranges, counts = standardize(plan.simulator, plan.batches, plan.distillation)
        if plan.start is not None:
            # Its weights mean something on its own scales alone.
            standardization = plan.start.standardization
        check_same_simulator(
            self.folder, plan.sketch, begins=not description, advice="choose another folder, or resume=False"
        )
        if description:
            # As it was, to the last bit, should this machine round differently.
            standardization = {name: (mean, std) for name, (mean, std) in description["standardization"].items()}
        counts.check()
        self.at = Progress(counts=counts)
        self.box, self.priors = trained_box(plan.simulator)
        self.net = TorchNetwork(plan.simulator.schema, plan.config, standardization, seed=plan.seed).to(device)
        if plan.start is not None:
            grow(plan.start, self.net)
        likelihood_weight = plan.optimization.likelihood_weight
        self.loss = Loss(self.net, likelihood_weight)
        self.averaged = AveragedModel(self.net, multi_avg_fn=average_weights)
        self.averaged_net: TorchNetwork = self.averaged.module  # type: ignore[assignment]
        self.averaged_loss = Loss(self.averaged_net, likelihood_weight)
        self.optimizers = make_optimizers(plan.optimization, self.net)
        self.resumed = bool(description)
        if self.resumed:
            self._restore(description, arrays)

    def update(self, model: Any, optimizers: list[Any], batch: Tree, weight: float, fabric: Any) -> float:
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
        plan, at = self.plan, self.at
        optimization = plan.optimization
        rate = learning_rate_at(at.step, plan.steps, optimization.warmup_steps, float(optimization.learning_rate))
        set_learning_rate(optimizers, rate)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = model(batch) * weight
        if fabric is None:
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
        at.advance(value, plan.steps)
        return value

    def evaluate(self, batches: list[tuple[Tree, int]]) -> None:
        """Held-out loss of the averaged weights; they are written to the run folder if they are the best so far."""
        total = 0.0
        with torch.no_grad():
            for batch, terms in batches:
                total += float(self.averaged_loss(batch)) * terms
        loss = total / sum(terms for _, terms in batches)
        if self.at.evaluate(loss, first=not (self.folder / BEST).exists()):
            checkpoint.write(self.averaged_net, self._record(loss), self.folder / BEST)

    def _record(self, loss: float) -> TrainingRecord:
        """What these weights were trained on: the stages of the network that they started from, and this one."""
        plan, at = self.plan, self.at
        options = plan.fingerprint()
        for name in ("simulator", "schema", "config"):
            options.pop(name)
        stage = StageRecord(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            versions={
                "ppl_buffer": __version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "torch": str(torch.__version__),
            },
            **{name: options.pop(name) for name in ("start", "seed", "steps", "learning_rate")},
            step=at.step,
            held_out_loss=loss if math.isfinite(loss) else None,
            data_sets=at.counts.simulated,
            dropped_data_sets=at.counts.dropped,
            skipped_updates=at.skipped,
            options=options,
        )
        before = () if plan.start is None or plan.start.record is None else plan.start.record.stages
        return TrainingRecord(
            box=self.box,
            priors=self.priors,
            trials=plan.batches.trials[1],
            context=0 if plan.simulator.schema.ordered else plan.batches.context[1],
            simulator=plan.name,
            stages=(*before, stage),
            ranges=self.ranges,
        )

    def save(self) -> None:
        """Write the state and the log."""
        arrays: dict[str, np.ndarray] = {}
        for name, weight in self.net.weights.items():
            arrays[f"weights/{name}"] = files.to_numpy(weight)
            arrays[f"averaged/{name}"] = files.to_numpy(self.averaged_net.weights[name])
            for key, value in self._moments(weight).items():
                arrays[f"optimizer/{key}/{name}"] = files.to_numpy(value)
        at = {**asdict(self.at), "best": self.at.best if math.isfinite(self.at.best) else None}
        description = {
            "format": _FORMAT,
            "settings": self.plan.fingerprint(),
            "standardization": {name: list(pair) for name, pair in self.net.standardization.items()},
            "averaged": int(self.averaged.n_averaged),
            "progress": at,
        }
        write_atomic(self.folder / STATE, pack_arrays(_KEY, description, arrays))
        write_atomic(self.folder / LOG, loss_table(self.at.losses, self.at.held_out).encode())

    def draw(self) -> None:
        """Write the loss curve."""
        write_atomic(self.folder / CURVE, loss_curve(self.at.losses, self.at.held_out, self.plan.name))

    def _moments(self, weight: Tensor) -> dict[str, Any]:
        """What the weight's optimiser remembers of it."""
        by_weight = {id(w): o.state for o in self.optimizers for group in o.param_groups for w in group["params"]}
        return by_weight[id(weight)][weight]

    def _restore(self, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
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
            at = dict(description["progress"])
            at["best"] = math.inf if at["best"] is None else at["best"]
            self.at = Progress(**{**at, "counts": RejectionCounts(**at["counts"])})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            path = self.folder / STATE
            raise ValueError(
                f"out: the run state {str(path)!r} is damaged ({error!r}); resume=False starts anew"
            ) from error


def forget_run(folder: Path) -> None:
    """Delete the files of a run."""
    # The state goes first: without it the other files are only results.
    for name in (STATE, SKETCH, BEST, LOG, CURVE):
        (folder / name).unlink(missing_ok=True)


def _read_state(plan: TrainingPlan) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the run folder holds of a run of this plan; two empty dicts if it holds none.

    Raises:
        ValueError: if it holds another run, or a damaged one.
    """
    path = plan.run.out / STATE
    if not path.exists():
        return {}, {}
    description, arrays = files.read_arrays(path, _KEY, 1, _FORMAT)
    if description["format"] == 1:
        raise ValueError(
            f"out: {str(plan.run.out)!r} holds a run that version 0.1 of ppl_buffer began and only that version can go "
            "on with. Finish it there, choose another folder, or resume=False to start anew"
        )
    now, before = plan.fingerprint(), description["settings"]
    different = [
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in sorted({*now, *before})
        if now.get(name) != before.get(name)
    ]
    if different:
        raise ValueError(
            f"out: expected a folder without a run, or with one of the same settings, but in {str(plan.run.out)!r} "
            f"{'; '.join(different)}. Choose another folder, or resume=False to start anew"
        )
    return description, arrays
