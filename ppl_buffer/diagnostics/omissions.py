"""What was lost or omitted of observed trials, so that they are compared with generated ones as like with like."""

from __future__ import annotations

import numpy as np

from ppl_buffer.diagnostics.statistics import Arrays
from ppl_buffer.files import to_numpy
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.schema import Schema, split_value


def complete_trials(schema: Schema, data: ObservedTrials) -> np.ndarray:
    """Which trials (subjects, K) have lost no outcome; those of an omission have lost none."""
    return np.asarray(~lost_outcomes(schema, data).any(0))


def lost_outcomes(schema: Schema, data: ObservedTrials) -> np.ndarray:
    """Which outcomes were lost, (n_outcomes, subjects, K); those of an omission were not."""
    columns = [np.asarray(to_numpy(x), dtype=float) for x in split_value(schema, data.value).values()]
    omitted = np.isposinf(np.stack(columns)).any(0)
    return np.isnan(np.stack(columns)) & ~omitted & to_numpy(data.trial_mask)


def lost_feedback(schema: Schema, data: ObservedTrials) -> Arrays:
    """Where feedback was lost, name -> (subjects, K); there is none where there was no response."""
    lost = {name: np.isnan(to_numpy(x)) & to_numpy(data.trial_mask) for name, x in data.feedback.items()}
    if data.missing is None or data.missing.timed is None:
        return lost
    omitted = np.isposinf(to_numpy(split_value(schema, data.value)[data.missing.timed]))
    return {name: x & ~omitted for name, x in lost.items()}


def lose_alike(schema: Schema, data: ObservedTrials, generated: Arrays) -> Arrays:
    """Generated outcomes and feedback without what the observed trials lost, unless there was no response."""
    omitted = np.isposinf(np.stack([generated[name] for name in schema.outcomes])).any(0)
    lost = {**dict(zip(schema.outcomes, lost_outcomes(schema, data), strict=True)), **lost_feedback(schema, data)}
    return {name: np.where(lost[name] & ~omitted, np.nan, x) for name, x in generated.items()}


def follows_losses(schema: Schema, data: ObservedTrials) -> bool:
    """Whether later trials were predicted from a past that lost something, as those of no generated data set are."""
    if data.missing is None or schema.independent:
        return False
    return bool(lost_outcomes(schema, data).any() or any(x.any() for x in lost_feedback(schema, data).values()))


def take_omissions(data: ObservedTrials, columns: Arrays) -> Arrays:
    """The share of omissions (..., subjects) as a statistic, where there are deadlines; takes them out of the times."""
    if data.missing is None or data.missing.timed is None:
        return {}
    time = columns[data.missing.timed]
    omitted = np.where(to_numpy(data.trial_mask), np.isposinf(time), np.nan)
    columns[data.missing.timed] = np.where(np.isposinf(time), np.nan, time)
    return {"share of omissions": np.nanmean(omitted, -1)}
