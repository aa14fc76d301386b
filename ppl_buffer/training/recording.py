"""What a checkpoint says of its training: the record of a part, and of parts that were trained one after the other."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import torch

from ppl_buffer.network.digest import weights_digest
from ppl_buffer.network.estimated_error import EstimatedError
from ppl_buffer.network.record import StageRecord, TrainingRecord
from ppl_buffer.training.parts import BUFFER
from ppl_buffer.training.plan import TrainingPlan
from ppl_buffer.training.progress import Progress
from ppl_buffer.training.standardization import Survey
from ppl_buffer.version import __version__


def part_record(
    plan: TrainingPlan, survey: Survey, at: Progress, seconds: float, loss: float, error: EstimatedError | None
) -> TrainingRecord:
    """What the weights of a part were trained on: the stages of the network that they started from, and this one.

    Args:
        plan: of the part.
        survey: of the simulator.
        at: where the training is.
        seconds: that it took.
        loss: held-out loss of these weights, in nats a trial.
        error: of their likelihood, as far as one can tell.
    """
    options = plan.fingerprint()
    for name in ("simulator", "schema", "config", "start"):
        options.pop(name)
    stage = StageRecord(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={
            "ppl_buffer": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": str(torch.__version__),
        },
        start=None if plan.begins_with is None else weights_digest(plan.begins_with),
        **{name: options.pop(name) for name in ("seed", "learning_rate")},
        steps=max(at.step, 1) if plan.steps is None else plan.steps,
        step=at.step,
        held_out_loss=loss if math.isfinite(loss) else None,
        data_sets=at.counts.simulated,
        dropped_data_sets=at.counts.dropped,
        skipped_updates=at.skipped,
        options=options,
        part=plan.part,
        seconds=round(seconds, 3),
    )
    return TrainingRecord(
        box=survey.box,
        priors=survey.priors,
        trials=plan.batches.trials[1],
        context=0 if plan.simulator.schema.ordered or plan.part != BUFFER else plan.batches.context[1],
        simulator=plan.name,
        stages=(*_stages(None if plan.start is None else plan.start.record), stage),
        ranges=survey.ranges,
        errors={} if error is None else {plan.part: error},
        stored=plan.stored,
    )


def join_records(start: TrainingRecord | None, parts: Sequence[TrainingRecord]) -> TrainingRecord:
    """The record of a network whose parts were trained one after the other, each by a stage of its own.

    Args:
        start: of the network that all of them started from.
        parts: of each part, in turn; those that `start` had before, and that were not trained, are missing.
    """
    errors: dict[str, EstimatedError] = {}
    if start is not None and start.simulator == parts[-1].simulator:
        moved = {record.stages[-1].part for record in parts if record.stages[-1].step > 0}
        # What a part was off by before it went on learning, or as another simulator's, is nothing to state.
        errors |= {part: error for part, error in start.errors.items() if part not in moved}
    for record in parts:
        errors |= record.errors
    return replace(
        parts[-1],
        trials=max(record.trials for record in parts),
        context=max(record.context for record in parts),
        stages=(*_stages(start), *(record.stages[-1] for record in parts)),
        errors=errors,
    )


def _stages(record: TrainingRecord | None) -> tuple[StageRecord, ...]:
    return () if record is None else record.stages
