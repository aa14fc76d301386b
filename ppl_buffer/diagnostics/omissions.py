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


def take_omissions(data: ObservedTrials, columns: Arrays) -> Arrays:
    """The share of omissions (..., subjects) as a statistic, where there are deadlines; takes them out of the times."""
    if data.missing is None or data.missing.timed is None:
        return {}
    time = columns[data.missing.timed]
    omitted = np.where(to_numpy(data.trial_mask), np.isposinf(time), np.nan)
    columns[data.missing.timed] = np.where(np.isposinf(time), np.nan, time)
    return {"share of omissions": np.nanmean(omitted, -1)}
