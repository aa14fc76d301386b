"""The plan of a training: all that was asked for, a part of the network at a time."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ppl_buffer.checks import check_choice, check_number, check_path, check_seed
from ppl_buffer.network.config import Config, parts_of
from ppl_buffer.network.digest import weights_digest
from ppl_buffer.network.estimated_error import EstimatedError
from ppl_buffer.network.network import Network
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.schema import Schema
from ppl_buffer.simulator import Simulator, WithInProcess, WithStoredSets, name_of
from ppl_buffer.stored import StoredData
from ppl_buffer.training.abilities import atoms_of, check_outcome_samples, check_use_log_likelihood, has_proposal
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import HELD_OUT, REHEARSAL, SOURCE, TRAINING, Batch, generator, make_batch
from ppl_buffer.training.distillation import DistillationSets, make_distillation_batch
from ppl_buffer.training.likelihood_batches import BLOCK, make_likelihood_batches
from ppl_buffer.training.options import OptimizationOptions, RunOptions
from ppl_buffer.training.parts import ASKED, BUFFER, LIKELIHOOD, part_config, trained_parts
from ppl_buffer.training.roles import check_roles
from ppl_buffer.training.sketch import Sketch, sketch
from ppl_buffer.training.start import load_start
from ppl_buffer.training.stored_lengths import check_stored_lengths

# Batches that tell whether a simulator is what it was.
_SKETCHED = 4
# Options that the direct likelihood does not know: it has no context, and no parameter is ever hidden from it.
_OF_THE_BUFFER = ("context", "condition_masks", "context_free_fraction", "likelihood_weight")
# Options, also of the buffer alone, that a run knows only where they are used.
_ROLES = ("targets", "forecasting", "gap_filling", "in_order", "order_by", "context_only")
_OFF = {"learns": "all"} | {name: getattr(BatchOptions(), name) for name in _ROLES}
# Options of the direct likelihood alone, likewise.
_OF_THE_LIKELIHOOD = ("missing_fraction", "changing_fraction")


@dataclass(frozen=True)
class TrainingPlan:
    """All that every process of a run needs to know of one of its parts.

    Args:
        simulator: what draws the data sets.
        config: sizes of the network of this part alone.
        seed: of the initial weights and of all data.
        batches: what decides the shape of batches.
        optimization: how the weights move.
        run: where, how and how long.
        start: the network to start from; None = random weights.
        distillation: sets that batches come from beside simulated ones.
        distillation_share: of the batches.
        part: ``"likelihood"`` or ``"buffer"``.
        open: names of options that nobody stated: a run begins with what suits it, and keeps it.
        with_likelihood: whether the whole network has a direct likelihood.
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
    part: str = BUFFER
    open: frozenset[str] = frozenset()
    with_likelihood: bool = False

    @property
    def name(self) -> str:
        """The simulator's name."""
        return name_of(self.simulator)

    @property
    def stored(self) -> StoredData | None:
        """What the stored data sets are that it draws from; None where a simulator draws new ones."""
        return self.simulator.stored_sets.summary if isinstance(self.simulator, WithStoredSets) else None

    @property
    def steps(self) -> int | None:
        """Optimisation steps; None = as many as the time allows."""
        return None if self.optimization.steps is None else int(self.optimization.steps)

    @property
    def begins_with(self) -> TorchNetwork | None:
        """The network that this part starts from; None = random weights."""
        return self.start if self.start is not None and self.part in self.start.parts else None

    @property
    def error_before(self) -> EstimatedError | None:
        """What this part of the start is off by, as its record says; None where it learnt from another simulator."""
        record = None if self.begins_with is None else self.begins_with.record
        return None if record is None or record.simulator != self.name else record.errors.get(self.part)

    @property
    def folder(self) -> Path:
        """Where the files of this part are."""
        return self.run.out / self.part

    @property
    def block(self) -> int:
        """Steps whose batches are made at once."""
        return BLOCK if self.part == LIKELIHOOD else 1

    def batches_of(self, block: int) -> list[Batch]:
        """The batches of a block of steps, of simulated data or of distillation sets."""
        if self.part == LIKELIHOOD:
            return make_likelihood_batches(self.simulator, self.batches, self.seed, block)
        return [self._batch(self.seed, block, TRAINING)]

    def held_out_batch(self, number: int) -> Batch:
        """A batch of held-out data, the same for all seeds."""
        return self._batch(0, number, HELD_OUT)

    @property
    def rehearses(self) -> bool:
        """Whether it is to learn what the held-out loss knows nothing of: losses of outcomes, changes of parameters."""
        return self.part == LIKELIHOOD and bool(self.batches.missing_fraction or self.batches.changing_fraction)

    def rehearsal_batch(self, number: int) -> Batch:
        """A batch made as those of the training are, the same for all seeds; nobody learns from it."""
        return self._batch(0, number, REHEARSAL)

    def sketch(self) -> Sketch:
        """What the simulator makes of the first batches, distillation sets aside: all that the loss reads of it."""
        alone = replace(self, distillation=None)
        made = (alone._batch(self.seed, step, TRAINING).data for step in range(_SKETCHED))
        parts = ("params", "context", "buffer", "targets", "resampled", "conditioned_log_likelihood", "probabilities")
        return sketch({part: data[part] for part in parts if part in data} for data in made if data is not None)

    def _batch(self, seed: int, step: int, stream: int) -> Batch:
        """A batch that is made alone."""
        if self.part == LIKELIHOOD:
            return make_likelihood_batches(self.simulator, self.batches, seed, step, stream, count=1)[0]
        if self.distillation is not None and generator(seed, stream, step, SOURCE).random() < self.distillation_share:
            return make_distillation_batch(self.simulator, self.distillation, self.batches, seed, step, stream)
        return make_batch(self.simulator, self.batches, seed, step, stream)

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for a run to go on, JSON-ready; how long it is to be may differ."""
        optimization = self.optimization
        described = {
            "simulator": self.name,
            "schema": self.simulator.schema.to_dict(),
            "atoms": dict(atoms_of(self.simulator)),
            "config": self.config.to_dict(),
            **asdict(self.batches),
            "seed": self.seed,
            "learning_rate": float(optimization.learning_rate),
            "warmup": int(optimization.warmup),
            "weight_decay": float(optimization.weight_decay),
            "optimizer": optimization.optimizer,
            "held_out": int(self.run.held_out),
            "evaluate_every": self.run.evaluate_every,
            "likelihood_weight": optimization.likelihood_weight,
            "learns": optimization.learns,
            "start": None if self.begins_with is None else weights_digest(self.begins_with),
        }
        if has_proposal(self.simulator):
            described["proposal"] = True
        if self.stored is not None:
            described["stored"] = self.stored.to_dict()
        if self.distillation is not None:
            described["distillation"] = {
                **self.distillation.description,
                "sets": len(self.distillation),
                "share": self.distillation_share,
            }
        unknown = {name for name, off in _OFF.items() if self.part == LIKELIHOOD or described[name] == off}
        unknown |= set(_OF_THE_BUFFER if self.part == LIKELIHOOD else _OF_THE_LIKELIHOOD)
        unknown |= {name for name in _OF_THE_LIKELIHOOD if not described[name]}
        described = {name: value for name, value in described.items() if name not in unknown}
        return json.loads(json.dumps(described))


def make_plans(asked: TrainingPlan, parts: str) -> tuple[TrainingPlan, ...]:
    """Check what the parts of a plan demand of each other; the plans of the network's parts, in the order of training.

    Args:
        asked: what was asked for, of the whole network.
        parts: "all" or the name of one.

    Raises:
        ValueError: if the simulator, the network to start from or the sets do not fit, or there is no such part.
    """
    simulator, batches, run = asked.simulator, asked.batches, asked.run
    check_seed(asked.seed)
    check_choice("parts", parts, ASKED)
    check_number("distillation_share", asked.distillation_share, "a number in (0, 1)", lambda x: 0 < x < 1)
    check_outcome_samples(simulator, batches.outcome_samples)
    if asked.optimization.learns == "buffer":
        check_learns(simulator.schema, asked.config, batches.context_only)
    check_roles(simulator.schema, **{name: getattr(batches, name) for name in _ROLES})
    if batches.use_log_likelihood:
        check_use_log_likelihood(simulator)
    if isinstance(simulator, WithStoredSets):
        check_stored_lengths(simulator.stored_sets, batches.most_trials(simulator.schema))
    if batches.least_size(simulator.schema) < run.devices:
        raise ValueError(
            f"devices: expected at most {batches.least_size(simulator.schema)}, the data sets in a batch of the "
            f"longest sequences, got {run.devices}; raise batch_size"
        )
    if isinstance(simulator, WithInProcess) and simulator.in_process:
        run = replace(run, workers=0)
    return tuple(
        replace(
            asked,
            run=run,
            part=part,
            config=part_config(asked.config, part),
            distillation=asked.distillation if part == BUFFER else None,
            with_likelihood=LIKELIHOOD in parts_of(simulator.schema, asked.config),
        )
        for part in trained_parts(simulator.schema, asked.config, parts)
    )


def check_learns(schema: Schema, config: Config, context_only: float) -> None:
    """Refuse to train what there is not.

    Raises:
        ValueError: if no weight is of the buffer alone, or no target sees one.
    """
    if schema.ordered or not (config.buffer_rank or config.buffer_apart):
        raise ValueError(
            "learns: expected 'all' for a network whose buffer has no weights of its own (buffer_rank=0, "
            "buffer_apart=False), got 'buffer'; see ppl_buffer.add_buffer"
        )
    if context_only == 1:
        raise ValueError("context_only: expected less than 1 where the buffer learns, got 1: no target would see it")


def choose_sizes(
    simulator: Simulator, config: Config | None, start: Network | str | os.PathLike[str] | None
) -> tuple[Config, TorchNetwork | None]:
    """The whole network's sizes, by default both parts, and the network to start from, checked.

    Raises:
        ValueError: if `config` is none, or the network does not fit.
    """
    if config is not None and not isinstance(config, Config):
        raise ValueError(f"config: expected a ppl_buffer.Config or None, got {config!r}")
    begun = None if start is None else load_start(start, simulator, config)
    return config or (Config() if begun is None else begun.config), begun


def load_distillation(
    distillation: DistillationSets | str | os.PathLike[str], simulator: Simulator
) -> DistillationSets:
    """Sets, or their folder, checked.

    Raises:
        ValueError: if they are of another simulator's network, or of another schema.
    """
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
