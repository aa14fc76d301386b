"""What `train` was asked for, checked: options by subject, and the plan that holds them all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ppl_buffer.checks import check_choice, check_flag, check_integer, check_number, check_path, check_seed
from ppl_buffer.network.config import Config
from ppl_buffer.network.digest import weights_digest
from ppl_buffer.network.network import Network
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.simulator import Simulator, WithInProcess, name_of
from ppl_buffer.training.abilities import atoms_of, check_outcome_samples, check_use_log_likelihood, has_proposal
from ppl_buffer.training.batches import HELD_OUT, SOURCE, TRAINING, Batch, BatchOptions, generator, make_batch
from ppl_buffer.training.distillation import DistillationSets, make_distillation_batch
from ppl_buffer.training.sketch import Sketch, sketch
from ppl_buffer.training.start import load_start

OPTIMIZERS = ("adamw", "muon")
ACCELERATORS = ("auto", "cpu", "cuda")
# Batches that tell whether a simulator is what it was.
_SKETCHED = 4


@dataclass(frozen=True)
class OptimizationOptions:
    """How the weights move; the arguments of `train` say what each option is.

    Raises:
        ValueError: if a number is out of its range, or the optimiser unknown.
    """

    steps: int
    learning_rate: float = 2e-3
    warmup: int | None = None
    weight_decay: float = 0.01
    optimizer: str = "adamw"
    likelihood_weight: float | None = None

    def __post_init__(self) -> None:
        check_integer("steps", self.steps, 1)
        if self.warmup is not None:
            check_integer("warmup", self.warmup, 0)
        check_number("learning_rate", self.learning_rate, "a number above 0", lambda x: x > 0)
        check_number("weight_decay", self.weight_decay, "a number of at least 0", lambda x: x >= 0)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        if self.likelihood_weight is not None:
            check_number("likelihood_weight", self.likelihood_weight, "a number in (0, 1) or None", lambda x: 0 < x < 1)

    @property
    def warmup_steps(self) -> int:
        """Steps of linear warm-up: by default a twentieth of all, at most 1000."""
        return min(1000, int(self.steps) // 20) if self.warmup is None else int(self.warmup)


@dataclass(frozen=True)
class RunOptions:
    """Where and how a run takes place, which changes none of its numbers; the arguments of `train` say more.

    `held_out` and `evaluate_every` decide which of the weights are kept as the best.

    Raises:
        ValueError: if a number is out of its range, or the accelerator unknown.
    """

    out: Path
    held_out: int = 256
    evaluate_every: int = 500
    devices: int = 1
    accelerator: str = "auto"
    workers: int = 1
    progress: bool = True
    minutes: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("held_out", 1), ("evaluate_every", 1), ("devices", 1), ("workers", 0)):
            check_integer(name, getattr(self, name), least)
        check_choice("accelerator", self.accelerator, ACCELERATORS)
        check_flag("progress", self.progress)
        if self.minutes is not None:
            check_number("minutes", self.minutes, "a number above 0", lambda x: x > 0)


@dataclass(frozen=True)
class TrainingPlan:
    """All that every process of a run needs to know.

    Args:
        simulator: what draws the data sets.
        config: the network's sizes.
        seed: of the initial weights and of all data.
        batches: what decides the shape of batches.
        optimization: how the weights move.
        run: where and how.
        start: the network to start from; None = random weights.
        distillation: sets that batches come from beside simulated ones.
        distillation_share: of the batches.
    """

    simulator: Simulator
    config: Config
    seed: int
    batches: BatchOptions
    optimization: OptimizationOptions
    run: RunOptions
    start: TorchNetwork | None = None
    distillation: DistillationSets | None = None
    distillation_share: float = 0.5

    @property
    def name(self) -> str:
        """The simulator's name."""
        return name_of(self.simulator)

    @property
    def steps(self) -> int:
        """Optimisation steps of the whole run."""
        return int(self.optimization.steps)

    def batch(self, step: int, stream: int = TRAINING) -> Batch:
        """The batch of a step, of simulated data or of distillation sets; held-out ones are the same for all seeds."""
        seed = 0 if stream == HELD_OUT else self.seed
        if self.distillation is not None and generator(seed, stream, step, SOURCE).random() < self.distillation_share:
            return make_distillation_batch(self.simulator, self.distillation, self.batches, seed, step, stream)
        return make_batch(self.simulator, self.batches, seed, step, stream)

    def sketch(self) -> Sketch:
        """What the simulator makes of the first batches, distillation sets aside: all that the loss reads of it."""
        made = (make_batch(self.simulator, self.batches, self.seed, step).data for step in range(_SKETCHED))
        parts = ("params", "context", "buffer", "targets", "resampled", "conditioned_log_likelihood", "probabilities")
        return sketch({part: data[part] for part in parts if part in data} for data in made if data is not None)

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for a run to go on, JSON-ready."""
        optimization = self.optimization
        described = {
            "simulator": self.name,
            "schema": self.simulator.schema.to_dict(),
            "atoms": dict(atoms_of(self.simulator)),
            "config": self.config.to_dict(),
            **asdict(self.batches),
            "steps": self.steps,
            "seed": self.seed,
            "learning_rate": float(optimization.learning_rate),
            "warmup": optimization.warmup_steps,
            "weight_decay": float(optimization.weight_decay),
            "optimizer": optimization.optimizer,
            "held_out": int(self.run.held_out),
            "evaluate_every": int(self.run.evaluate_every),
            "likelihood_weight": optimization.likelihood_weight,
            "start": None if self.start is None else weights_digest(self.start),
        }
        if has_proposal(self.simulator):
            described["proposal"] = True
        if self.distillation is not None:
            described["distillation"] = {
                **self.distillation.description,
                "sets": len(self.distillation),
                "share": self.distillation_share,
            }
        return json.loads(json.dumps(described))


def make_plan(
    simulator: Simulator,
    config: Config | None,
    seed: int,
    batches: BatchOptions,
    optimization: OptimizationOptions,
    run: RunOptions,
    start: Network | str | os.PathLike[str] | None,
    distillation: DistillationSets | str | os.PathLike[str] | None,
    distillation_share: float,
) -> TrainingPlan:
    """Check what the parts of a plan demand of each other, and put them together.

    Args:
        simulator: a checked one.
        config: the network's sizes; None = those of `start`, or the default.
        seed: of the run.
        batches: see `TrainingPlan`.
        optimization: see `TrainingPlan`.
        run: see `TrainingPlan`.
        start: a torch network, what `load` takes, or None.
        distillation: sets, their folder, or None.
        distillation_share: of the batches.

    Raises:
        ValueError: if the simulator, the network to start from or the sets do not fit.
    """
    check_seed(seed)
    if config is not None and not isinstance(config, Config):
        raise ValueError(f"config: expected a ppl_buffer.Config or None, got {config!r}")
    check_number("distillation_share", distillation_share, "a number in (0, 1)", lambda x: 0 < x < 1)
    check_outcome_samples(simulator, batches.outcome_samples)
    if batches.use_log_likelihood:
        check_use_log_likelihood(simulator)
    if batches.least_size(simulator.schema) < run.devices:
        raise ValueError(
            f"devices: expected at most {batches.least_size(simulator.schema)}, the data sets in a batch of the "
            f"longest sequences, got {run.devices}; raise batch_size"
        )
    begun = None if start is None else load_start(start, simulator, config)
    if isinstance(simulator, WithInProcess) and simulator.in_process:
        run = replace(run, workers=0)
    return TrainingPlan(
        simulator=simulator,
        config=config or (Config() if begun is None else begun.config),
        seed=int(seed),
        batches=batches,
        optimization=optimization,
        run=run,
        start=begun,
        distillation=None if distillation is None else _load_distillation(distillation, simulator),
        distillation_share=float(distillation_share),
    )


def _load_distillation(
    distillation: DistillationSets | str | os.PathLike[str], simulator: Simulator
) -> DistillationSets:
    if isinstance(distillation, DistillationSets):
        sets = distillation
    else:
        sets = DistillationSets(check_path("distillation", distillation))
    teacher, name = sets.description.get("network"), name_of(simulator)
    if teacher != name:
        raise ValueError(f"distillation: expected sets of a network of {name!r}, got sets of one of {teacher!r}")
    schema, first = simulator.schema, sets[0]
    expected = {*schema.params, *schema.inputs, *schema.outcomes, *schema.feedback}
    if {*first.params, *first.data} != expected:
        raise ValueError(
            f"distillation: expected sets that hold {sorted(expected)}, as the simulator's schema does, got "
            f"{sorted({*first.params, *first.data})}"
        )
    return sets
