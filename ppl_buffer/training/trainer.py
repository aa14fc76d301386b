"""The state of one training run: all that a step changes, in the run folder and back."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save as to_safetensors
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ppl_buffer import files
from ppl_buffer import simulator as protocol
from ppl_buffer.files import write_atomic
from ppl_buffer.network import checkpoint
from ppl_buffer.network.config import Config
from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.simulator import Simulator
from ppl_buffer.training import draws
from ppl_buffer.training.batches import HELD_OUT, SOURCE, TRAINING, Batch, BatchOptions, Tree, generator, make_batch
from ppl_buffer.training.distillation import DistillationSets, make_distillation_batch
from ppl_buffer.training.draws import RejectionCounts
from ppl_buffer.training.loss import Loss
from ppl_buffer.training.standardization import standardize, trained_box

STATE, BEST, LOG, CURVE = "state.safetensors", "best.safetensors", "log.csv", "loss.png"
_KEY, _FORMAT = "ppl_buffer_run", 1
# Share of the peak learning rate at which the cosine ends.
_LAST_RATE = 0.02
_LARGEST_NORM = 1.0
# Muon's learning rate over AdamW's: its updates are orthogonal matrices, whose entries are small.
_MUON_RATE = 5.0
_EMA_DECAY = 0.999
_LOG_ROWS = 1000
# Updates whose gradient was no number are left out; more of them than this end the run.
_MOST_SKIPPED = 10


@dataclass(frozen=True)
class TrainingPlan:
    """What `train` was asked for, checked; what every process of a run needs."""

    simulator: Simulator
    config: Config
    settings: BatchOptions
    steps: int
    seed: int
    out: Path
    learning_rate: float
    warmup: int
    weight_decay: float
    optimizer: str
    held_out: int
    evaluate_every: int
    workers: int
    progress: bool
    minutes: float | None
    likelihood_weight: float | None = None
    start: TorchNetwork | None = None
    distillation: DistillationSets | None = None
    distillation_share: float = 0.5

    @property
    def name(self) -> str:
        """The simulator's name."""
        return protocol.name_of(self.simulator)

    def batch(self, step: int, stream: int = TRAINING) -> Batch:
        """The batch of a step: of simulated data sets, or of lessons. The held-out ones are the same for all seeds."""
        seed = 0 if stream == HELD_OUT else self.seed
        if self.distillation is not None and generator(seed, stream, step, SOURCE).random() < self.distillation_share:
            return make_distillation_batch(self.simulator, self.distillation, self.settings, seed, step, stream)
        return make_batch(self.simulator, self.settings, seed, step, stream)

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        plain = (
            "steps", "seed", "learning_rate", "warmup", "weight_decay", "optimizer", "held_out", "evaluate_every",
            "likelihood_weight",
        )  # fmt: skip
        described = {
            "simulator": self.name,
            "schema": self.simulator.schema.to_dict(),
            "atoms": dict(draws.atoms_of(self.simulator)),
            "config": self.config.to_dict(),
            **asdict(self.settings),
            **{name: getattr(self, name) for name in plain},
            "start": None if self.start is None else checkpoint.digest(self.start),
        }
        if draws.has_proposal(self.simulator):
            described["proposal"] = True
        if self.distillation is not None:
            described["distillation"] = {
                **self.distillation.description,
                "sets": len(self.distillation),
                "share": self.distillation_share,
            }
        return json.loads(json.dumps(described))


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


class Trainer:
    """The network, its optimiser, its averaged copy and how far they are: made anew, or read from the run folder."""

    def __init__(self, plan: TrainingPlan, device: torch.device) -> None:
        self.plan = plan
        path = plan.out / STATE
        description, arrays = files.read_arrays(path, _KEY, _FORMAT) if path.exists() else ({}, {})
        if description:
            _refuse_other(plan, description["settings"])
        standardization, counts = standardize(plan.simulator, plan.settings)
        if plan.start is not None:
            # Its weights mean something on its own scales alone.
            standardization = plan.start.standardization
        if description:
            _refuse_changed(plan, description["standardization"], standardization)
            # As it was, to the last bit, should this machine round differently.
            standardization = {name: (mean, spread) for name, (mean, spread) in description["standardization"].items()}
        counts.check()
        self.at = Progress(counts=counts)
        box, priors = trained_box(plan.simulator)
        self.box, self.priors = box, priors
        self.net = TorchNetwork(plan.simulator.schema, plan.config, standardization, seed=plan.seed).to(device)
        if plan.start is not None:
            _grow(plan.start, self.net)
        self.loss = Loss(self.net, plan.likelihood_weight)
        self.averaged = AveragedModel(self.net, multi_avg_fn=_average)
        self.averaged_net: TorchNetwork = self.averaged.module  # type: ignore[assignment]
        self.averaged_loss = Loss(self.averaged_net, plan.likelihood_weight)
        self.optimizers = make_optimizers(plan, self.net)
        self.resumed = bool(description)
        if self.resumed:
            self._restore(description, arrays)

    def update(self, model: Any, optimizers: list[Any], batch: Tree, weight: float, fabric: Any) -> float:
        """One step; returns its loss."""
        plan, at = self.plan, self.at
        rate = learning_rate_at(at.step, plan.steps, plan.warmup, plan.learning_rate)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * (_MUON_RATE if "momentum" in group else 1)
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
            at.skipped += 1
            if at.skipped > _MOST_SKIPPED and at.skipped > 0.01 * at.step:
                raise FloatingPointError(
                    f"the gradient was no number in {at.skipped} of {at.step + 1} steps; lower learning_rate, or look "
                    "for extreme values in what the simulator returns"
                )
        at.step += 1
        if math.isfinite(value):
            at.window[0] += value
            at.window[1] += 1
        if at.step % max(1, plan.steps // _LOG_ROWS) == 0 or at.step == plan.steps:
            if at.window[1]:
                at.losses.append([at.step, at.window[0] / at.window[1]])
            at.window = [0.0, 0]
        return value

    def evaluate(self, batches: list[tuple[Tree, int]]) -> None:
        """Held-out loss of the averaged weights; they are written to the run folder if they are the best so far."""
        total = 0.0
        with torch.no_grad():
            for batch, terms in batches:
                total += float(self.averaged_loss(batch)) * terms
        loss = total / sum(terms for _, terms in batches)
        if math.isfinite(loss):
            self.at.held_out.append([self.at.step, loss])
        if loss < self.at.best or not (self.plan.out / BEST).exists():
            self.at.best = loss if math.isfinite(loss) else math.inf
            net = self.averaged_net
            net.record = self._record(loss)
            checkpoint.save(net, self.plan.out / BEST)

    def _record(self, loss: float) -> TrainingRecord:
        plan, at = self.plan, self.at
        from ppl_buffer import __version__

        ordered = plan.simulator.schema.ordered
        return TrainingRecord(
            box=self.box,
            priors=self.priors,
            trials=plan.settings.trials[1],
            context=0 if ordered else plan.settings.context[1],
            simulator=plan.name,
            provenance={
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "versions": {
                    "ppl_buffer": __version__,
                    "python": platform.python_version(),
                    "numpy": np.__version__,
                    "torch": str(torch.__version__),
                },
                "step": at.step,
                "held_out_loss": loss if math.isfinite(loss) else None,
                "data_sets": at.counts.drawn,
                "dropped_data_sets": at.counts.dropped,
                "skipped_updates": at.skipped,
                **{k: x for k, x in plan.fingerprint().items() if k not in ("schema", "config", "simulator")},
            },
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
        content = to_safetensors(arrays, metadata={_KEY: json.dumps(description, allow_nan=False)})
        write_atomic(self.plan.out / STATE, content)
        write_atomic(self.plan.out / LOG, self._table().encode())

    def _moments(self, weight: Tensor) -> dict[str, Any]:
        """What the weight's optimiser remembers of it."""
        mine = next(o for o in self.optimizers if any(w is weight for g in o.param_groups for w in g["params"]))
        return mine.state[weight]

    def _restore(self, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        path = self.plan.out / STATE
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
            raise ValueError(
                f"out: the run state {str(path)!r} is damaged ({error!r}); resume=False starts anew"
            ) from error

    def _table(self) -> str:
        rows: dict[int, dict[str, float]] = {}
        for column, pairs in (("loss", self.at.losses), ("held_out", self.at.held_out)):
            for step, value in pairs:
                rows.setdefault(int(step), {})[column] = value
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["step", "loss", "held_out"])
        for step in sorted(rows):
            writer.writerow([step, rows[step].get("loss", ""), rows[step].get("held_out", "")])
        return text.getvalue()

    def draw(self) -> None:
        """Write the loss curve."""
        # No pyplot: its figures belong to the user.
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        for label, pairs, style in (("training", self.at.losses, "-"), ("held out, averaged", self.at.held_out, "o-")):
            axes.plot([step for step, _ in pairs], [x for _, x in pairs], style, label=label, linewidth=1, markersize=3)
        axes.set(xlabel="step", ylabel="negative log density of a trial (nats)", title=self.plan.name)
        axes.legend()
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=120)
        write_atomic(self.plan.out / CURVE, image.getvalue())


def make_optimizers(plan: TrainingPlan, net: TorchNetwork) -> list[torch.optim.Optimizer]:
    """AdamW for all weights, or beside Muon (Jordan et al. 2024) for the matrices inside the layers."""
    names = list(net.weights)
    inner = [
        name
        for name in names
        if plan.optimizer == "muon" and name.startswith("layers.") and name.endswith("weight")
        and net.weights[name].ndim == 2 and not name.endswith(("counter.weight", "slope.weight"))
    ]  # fmt: skip
    rest = [name for name in names if name not in inner]
    decayed = [name for name in rest if name.endswith("weight") and net.weights[name].ndim == 2]
    groups = [
        {"params": [net.weights[name] for name in decayed], "weight_decay": plan.weight_decay},
        {"params": [net.weights[name] for name in rest if name not in decayed], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, plan.learning_rate, betas=(0.9, 0.98), fused=True)
    ]
    if inner:
        matrices = [net.weights[name] for name in inner]
        optimizers.append(torch.optim.Muon(matrices, plan.learning_rate, weight_decay=plan.weight_decay))
    return optimizers


def _grow(start: TorchNetwork, net: TorchNetwork) -> None:
    """Give a network the weights of one that has fewer layers or scales, so that it predicts the same."""
    # New layers stand below those that read the parameters, which costs the likelihood nothing (R5).
    first, added = start.config.depth - start.config.param_depth, net.config.depth - start.config.depth
    with torch.no_grad():
        for index in range(first, first + added):
            for leaf in ("merge", "mlp.out"):
                net.weights[f"layers.{index}.{leaf}.weight"].zero_()
        for name, trained in start.weights.items():
            path = name.split(".")
            if path[0] == "layers" and int(path[1]) >= first:
                path[1] = str(int(path[1]) + added)
            weight = net.weights[".".join(path)]
            weight.zero_()  # the columns that read new scales
            weight[..., : trained.shape[-1]] = trained


def _average(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
    """Exponential moving average that forgets the first weights quickly: its decay grows with the updates made."""
    decay = min(_EMA_DECAY, (1 + int(count)) / (10 + int(count)))
    get_ema_multi_avg_fn(decay)(averaged, current, count)


def learning_rate_at(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up, then a cosine down to 2 % of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    fraction = (step - warmup) / max(1, steps - warmup)
    return peak * (_LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * fraction)))


def _refuse_other(plan: TrainingPlan, settings: Mapping[str, Any]) -> None:
    mine = plan.fingerprint()
    different = [
        f"{name} was {settings.get(name)!r}, is {mine.get(name)!r}"
        for name in sorted({*mine, *settings})
        if mine.get(name) != settings.get(name)
    ]
    if different:
        raise ValueError(
            f"out: expected a folder without a run, or with one of the same settings, but in {str(plan.out)!r} "
            f"{'; '.join(different)}. Choose another folder, or resume=False to start anew"
        )


def _refuse_changed(plan: TrainingPlan, before: Mapping[str, Any], now: Mapping[str, tuple[float, float]]) -> None:
    """A simulator whose name and schema are the same may still draw other data: its pilot simulation tells."""
    for name, (mean, std) in now.items():
        was = before[name]
        if abs(was[0] - mean) > 0.01 * was[1] or abs(was[1] - std) > 0.01 * was[1]:
            raise ValueError(
                f"out: the simulator draws other data than when the run in {str(plan.out)!r} began: mean and standard "
                f"deviation of {name!r} were {was}, are {[mean, std]}. Choose another folder, or resume=False"
            )
