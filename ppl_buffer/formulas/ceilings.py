"""What a parameter that an outcome always exceeds, a non-decision time, has to stay below."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppl_buffer.files import to_numpy
from ppl_buffer.network.lapses import Lapse, may_be_lapses
from ppl_buffer.schema import Schema

# More lapses than this probability allows for, and a rate in this tail of its prior, are taken for impossible.
_IMPROBABLE = 1e-4


def fastest_decision(
    schema: Schema, outcome: str, value: np.ndarray, exists: np.ndarray, lapse: Lapse | None
) -> np.ndarray:
    """The fastest response of each data set that is no lapse for sure: (S,), inf where all may be lapses.

    Those that may be a lapse count from the fastest on, as many as a subject can have made.

    Args:
        schema: of the model.
        outcome: the response time.
        value: (S, K), its values.
        exists: (S, K) bool, which trials exist.
        lapse: what a lapse is, and how often.
    """
    # A time that was lost, or did not come, is no fastest one.
    value = np.where(np.isfinite(value), value, np.inf)
    possible = exists & may_be_lapses(schema, outcome, value, lapse)
    decision = np.where(exists & ~possible, value, np.inf).min(1)
    rate: Any = 0.0
    if lapse is not None:
        rate = lapse.rate if lapse.prior is None else lapse.prior.quantile(np.array(1 - _IMPROBABLE))
    rate = 1 - (1 - schema.lapse_rate) * (1 - to_numpy(rate))
    # Takes long to import, and is needed with lapses alone.
    from scipy.stats import binom

    most = binom.ppf(1 - _IMPROBABLE, possible.sum(1), rate).astype(int)
    ordered = np.sort(np.where(possible, value, np.inf), 1)
    after = np.pad(ordered, ((0, 0), (0, 1)), constant_values=np.inf)[np.arange(len(value)), most]
    return np.minimum(decision, after)


def row_ceilings(
    schema: Schema, outcome: str, value: np.ndarray, exists: np.ndarray, rows: np.ndarray, lapse: Lapse | None
) -> np.ndarray:
    """The same of the trials of each design row, (R,): what shares a row shares its value.

    Args:
        schema: of the model.
        outcome: the response time.
        value: (S, K), its values.
        exists: (S, K) bool, which trials exist.
        rows: (S,) or (S, K), from 0 to R - 1.
        lapse: what a lapse is, and how often; of several rates the largest counts.
    """
    row = np.broadcast_to(rows if rows.ndim == 2 else rows[:, None], exists.shape)[exists]
    counts = np.bincount(row, minlength=int(rows.max()) + 1)
    order = np.argsort(row, kind="stable")
    place = np.empty(len(row), dtype=int)
    place[order] = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    there = np.arange(counts.max()) < counts[:, None]
    regrouped = np.full(there.shape, schema.outcomes[outcome].fill, dtype=float)
    regrouped[row, place] = value[exists]
    if lapse is not None and lapse.prior is None and to_numpy(lapse.rate).ndim:
        lapse = lapse.at(float(to_numpy(lapse.rate).max()))
    return fastest_decision(schema, outcome, regrouped, there, lapse)
