"""Whether a record of training is one that a training can have left."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ppl_buffer.checks import check_choice, check_integer, check_number
from ppl_buffer.network.estimated_error import PARTS
from ppl_buffer.network.ranges import ValueRange
from ppl_buffer.network.record import StageRecord, TrainingRecord
from ppl_buffer.schema import Schema


def check_record(schema: Schema, record: TrainingRecord) -> None:
    """Refuse a record that no training on this schema leaves.

    Raises:
        ValueError: naming the part, what was expected and what came.
    """
    params = list(schema.params)
    for part, names in (("box", list(record.box)), ("priors", list(record.priors))):
        if sorted(names) != sorted(params):
            raise ValueError(f"record.{part}: expected that of the parameters {params}, got {names}")
    for name, (low, high) in record.box.items():
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ValueError(f"record.box[{name!r}]: expected (low, high), finite and in order, got ({low}, {high})")
    for name, prior in record.priors.items():
        earlier = params[: params.index(name)]
        if prior is not None and prior.relative_to is not None and prior.relative_to not in earlier:
            raise ValueError(
                f"record.priors[{name!r}]: expected it to be relative to one of {earlier}, got {prior.relative_to!r}"
            )
    for group, ranges in (("ranges", record.ranges), ("likelihood_ranges", record.likelihood_ranges)):
        strange = sorted(set(ranges) - {*schema.inputs, *schema.outcomes, *schema.feedback})
        if strange:
            raise ValueError(f"record.{group}: expected those of inputs, outcomes and feedback, got {strange}")
        for name, values in ranges.items():
            _check_range(f"record.{group}[{name!r}]", values)
    for part, error in record.errors.items():
        if error.part != part:
            raise ValueError(f"record.errors[{part!r}]: expected the error of this part, got that of {error.part!r}")
    for stage in record.stages:
        _check_stage(stage)
    if record.stored is not None:
        for part in ("data_sets", "held_out_data_sets", "groups", "held_out_groups"):
            check_integer(f"record.stored: {part}", vars(record.stored)[part], 1)
    for part, length, least in (("trials", record.trials, 1), ("context", record.context, 0)):
        if length < least:
            raise ValueError(f"record.{part}: expected an integer of at least {least}, got {length}")


def _check_range(what: str, values: ValueRange) -> None:
    low = check_number(f"{what}.low", values.low, "a finite number", lambda x: True)
    check_number(f"{what}.high", values.high, f"a number of at least {low:g}", lambda x: x >= low)
    for part, pairs in (("quantiles", values.quantiles), ("medians", [values.medians]), ("spreads", [values.spreads])):
        for pair in pairs:
            if pair is None:
                continue
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise ValueError(f"{what}.{part}: expected pairs of numbers, got {pair!r}")
            for number in pair:
                check_number(f"{what}.{part}", number, "finite numbers", lambda x: True)
    if len(values.values) != len(values.shares):
        raise ValueError(f"{what}: expected a share for each of the values {values.values}, got {values.shares}")
    for value, share in zip(values.values, values.shares, strict=True):
        check_number(f"{what}.values", value, "finite numbers", lambda x: True)
        check_number(f"{what}.shares", share, "numbers from 0 to 1", lambda x: 0 <= x <= 1)


def _check_stage(stage: StageRecord) -> None:
    for part, count, least in (
        ("seed", stage.seed, 0),
        ("steps", stage.steps, 1),
        ("step", stage.step, 0),
        ("data_sets", stage.data_sets, 0),
        ("dropped_data_sets", stage.dropped_data_sets, 0),
        ("skipped_updates", stage.skipped_updates, 0),
    ):
        check_integer(f"record.stages: {part}", count, least)
    check_number("record.stages: learning_rate", stage.learning_rate, "a number above 0", lambda x: x > 0)
    if stage.held_out_loss is not None:
        check_number("record.stages: held_out_loss", stage.held_out_loss, "a number or None", lambda x: True)
    if stage.seconds is not None:
        check_number("record.stages: seconds", stage.seconds, "a number of at least 0 or None", lambda x: x >= 0)
    check_choice("record.stages: part", stage.part, PARTS)
    for part, text in (("date", stage.date), ("start", stage.start or "")):
        if not isinstance(text, str):
            raise ValueError(f"record.stages: {part}: expected text, got {text!r}")
    for part, facts in (("versions", stage.versions), ("options", stage.options)):
        if not isinstance(facts, Mapping):
            raise ValueError(f"record.stages: {part}: expected a dict, got {facts!r}")
