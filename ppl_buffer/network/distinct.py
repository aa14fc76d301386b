"""Which trials of a data set have the same inputs: where they see nothing of each other, they are one target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ppl_buffer.network.arguments import NetworkLike
from ppl_buffer.network.backend import Array, Named, backend_of
from ppl_buffer.network.config import takes_trial_params
from ppl_buffer.network.head_table import MOST_ROWS

# Stands among the inputs, whose names are identifiers.
_CONDITION = "condition of a trial"


class DistinctInputs(NamedTuple):
    """The inputs of data sets without repetitions.

    Attributes:
        inputs: dict name -> (B, 1, T), each combination once; data sets with fewer repeat their first.
        index: (B, 1, K), which of them each trial has.
        condition: (B, 1, T), the condition of each; None where there are none, or they are the targets themselves.
    """

    inputs: Named
    index: Array
    condition: Array | None = None


class DistinctRows(NamedTuple):
    """Trials of data sets without repetitions.

    Attributes:
        row: (S, K), which of the rows each trial is.
        first: (S, U), the first trial of each; data sets with fewer repeat their first.
    """

    row: np.ndarray
    first: np.ndarray


def distinct_inputs(
    net: NetworkLike,
    inputs: Named,
    mask: Array | None,
    batch: Sequence[int],
    trials: int,
    conditions: np.ndarray | None = None,
) -> DistinctInputs | None:
    """The different inputs of each data set; None where they are traced, or too many to gain anything.

    Args:
        net: the network, whose backend says how many targets to make, so that few programs serve all data.
        inputs: dict name -> (*b, K), whose batch dimensions broadcast to `batch`.
        mask: (*b, K) bool, which trials exist; None = all.
        batch: *B, whose product is the number of data sets B.
        trials: K.
        conditions: (*b, K), of `check_conditions`; trials of different ones are not alike.
    """
    known, exists = net.ops.to_concrete_each(inputs), None if mask is None else net.ops.to_concrete(mask)
    if any(x is None for x in known.values()) or (mask is not None and exists is None):
        return None
    size, shape = math.prod(batch), (*batch, trials)
    given = {name: x for name, x in known.items() if x is not None}
    if conditions is not None:
        if not given:
            index = np.broadcast_to(conditions, shape).reshape(size, 1, trials)
            return DistinctInputs({}, index) if conditions.max() + 1 <= MOST_ROWS * trials else None
        given[_CONDITION] = conditions
    columns = {name: np.broadcast_to(x, shape).reshape(size, trials) for name, x in given.items()}
    if exists is not None:
        exists = np.broadcast_to(exists, shape).reshape(size, trials)
    index, first = distinct_rows(columns.values(), exists, (size, trials))
    count = first.shape[1]
    # Padded, so that few programs serve all people; the least bucket of trials is more than a few conditions need.
    count = min(1 << (count - 1).bit_length(), backend_of(net).bucket(count))
    if count > MOST_ROWS * trials:
        return None
    first = np.concatenate([first, np.repeat(first[:, :1], count - first.shape[1], 1)], 1)
    kept = {name: np.take_along_axis(column, first, -1)[:, None] for name, column in columns.items()}
    condition = kept.pop(_CONDITION, None)
    return DistinctInputs(kept, index[:, None], condition)


def distinct_rows(columns: Iterable[np.ndarray], exists: np.ndarray | None, shape: tuple[int, int]) -> DistinctRows:
    """The trials of each data set that differ in some of the columns (S, K).

    Args:
        columns: numbers that trials have.
        exists: (S, K) bool; what does not exist may be taken for any other trial; None = all exist.
        shape: (S, K).
    """
    size, trials = shape
    code = np.zeros(shape, dtype=np.int64)
    for column in columns:
        if exists is not None:
            any_other = exists.argmax(-1)[:, None]
            column = np.where(exists, column, np.take_along_axis(column, any_other, -1))
        # Numbered anew after each column, so that numbers stay small.
        code = _numbered(code * (size * trials + 1) + _numbered(column))
    # Those that exist first: what stands in the others is no row.
    order = code.argsort(-1, kind="stable") if exists is None else np.lexsort((~exists, code), axis=-1)
    in_order = np.take_along_axis(code, order, -1)
    new = np.concatenate([np.ones((size, 1), dtype=bool), in_order[:, 1:] != in_order[:, :-1]], -1)
    rank = new.cumsum(-1) - 1
    index = np.empty_like(rank)
    np.put_along_axis(index, order, rank, -1)
    first = np.repeat(order[:, :1], int(rank.max()) + 1, 1)
    row, place = np.nonzero(new)
    first[row, rank[row, place]] = order[row, place]
    return DistinctRows(index, first)


def check_conditions(net: NetworkLike, conditions: Array, trials: int, likelihood: str) -> tuple[np.ndarray, int]:
    """Conditions of trials (*B, K) as whole numbers from 0, and how many there are.

    Raises:
        ValueError: if they are none, are not known yet, or the parameters of this model's trials cannot differ.
    """
    if not takes_trial_params(net.schema, net.config) or likelihood != "direct":
        raise ValueError(
            "conditions: expected None unless the direct likelihood computes, for a model whose trials are independent "
            "given the parameters or of a network with Config(likelihood_trial_params=True); the trials of others have "
            "the same parameters"
        )
    known = net.ops.to_concrete(conditions)
    if known is None or known.dtype.kind not in "biuf" or (known != np.floor(known)).any() or (known < 0).any():
        got = "numbers that are not known yet" if known is None else repr(conditions)
        raise ValueError(f"conditions: expected whole numbers from 0, got {got}")
    if known.ndim == 0 or known.shape[-1] != trials or not known.size:
        raise ValueError(f"conditions: expected shape (*batch, {trials}), got {known.shape}")
    return known.astype(np.int64), int(known.max()) + 1


def at_trials(net: NetworkLike, values: Mapping[str, Array], conditions: Array, count: int) -> Named:
    """Parameters (*B, K) of trials from those of their conditions (*B, C).

    Args:
        net: the network.
        values: dict name -> (*B, C).
        conditions: (*b, K).
        count: C.

    Raises:
        ValueError: if one does not have a value for each condition.
    """
    xp, spread = net.ops.xp, {}
    for name, value in values.items():
        if tuple(value.shape[-1:]) != (count,):
            raise ValueError(
                f"trial_params[{name!r}]: expected shape (*batch, {count}), one value for each of the conditions that "
                f"observe was given, got {tuple(value.shape)}"
            )
        lead = xp.broadcast_shapes(tuple(value.shape[:-1]), tuple(conditions.shape[:-1]))
        rows = xp.broadcast_to(value, (*lead, count)).reshape((-1, 1, count, 1))
        index = xp.broadcast_to(conditions, (*lead, conditions.shape[-1])).reshape((-1, 1, conditions.shape[-1]))
        spread[name] = net.ops.take_rows(rows, index).reshape((*lead, conditions.shape[-1]))
    return spread


def _numbered(values: np.ndarray) -> np.ndarray:
    """The same array with its different values numbered from 0."""
    return np.unique(values, return_inverse=True)[1].reshape(values.shape)
