"""Data sets of unequal length, prepared so that little of what is computed is padding."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ppl_buffer.network.arguments import NetworkLike
from ppl_buffer.network.backend import Array, Named, Own, backend_of
from ppl_buffer.network.layout import length_groups, map_leaves, rows_end_to_end


@dataclass
class LengthGroup:
    """Data sets with about as many trials, without the padding that the longest of all needs.

    Attributes:
        indices: (g,), which of the data sets, counted over all batch dimensions.
        prepared: their targets as far as they do not depend on the parameters, arrays (g, ...), T trials each.
    """

    indices: Array
    prepared: Own


@dataclass
class EndToEnd:
    """Sequences of the direct likelihood, laid end to end in rows as long as the longest.

    The state begins anew in each. So one program serves all lengths: it is compiled but once, however many there are.

    Attributes:
        prepared: the rows (N, 1, K, ...).
        source: (N, K), which trial stands at each place, counted over data sets and their trials.
        place: (B, K), where each trial stands, counted over rows and places; 0 of one that does not exist.
    """

    prepared: Own
    source: Array
    place: Array


def lay_end_to_end(net: NetworkLike, sequence: Own, trial_mask: Array) -> EndToEnd | None:
    """Sequences that were prepared for the direct likelihood once more, in rows that hold little padding.

    Args:
        net: the network.
        sequence: arrays (*B, 1, K, ...).
        trial_mask: (*B, K) bool, which trials exist.

    Returns:
        None where the padding is about as good or the mask is traced, and in torch, where a step costs about the same
        for few sequences as for many.
    """
    exists = None if net.backend == "torch" else net.ops.to_concrete(trial_mask)
    rows = None if exists is None else rows_end_to_end(_lengths(exists))
    if exists is None or rows is None:
        return None
    prepared = backend_of(net).one_program(_rows, None, (sequence, rows))
    return EndToEnd(prepared, rows.owner * exists.shape[-1] + rows.source, rows.place)


def _rows(settings: None, arrays: Own) -> Own:
    """Sequences (*B, 1, K, ...) laid end to end, (N, 1, K, ...)."""
    sequence, rows = arrays
    lead = sequence.valid.ndim - 2
    laid = map_leaves(lambda x: x.reshape((-1, *x.shape[lead + 1 :]))[rows.owner, rows.source][:, None], sequence)
    return replace(laid, valid=laid.valid & rows.taken[:, None], owner=rows.owner, begins=rows.begins[:, None])


def _lengths(exists: np.ndarray) -> np.ndarray:
    """Of the data sets of a mask (*B, K), counted over all batch dimensions, up to the last trial; 1 at least."""
    return np.where(exists, np.arange(1, exists.shape[-1] + 1), 1).max(-1).reshape(-1)


def group_by_length(net: NetworkLike, trials: dict[str, Named], trial_mask: Array) -> list[LengthGroup] | None:
    """Prepare data sets of similar length together, each group only as long as its longest sequence.

    Args:
        net: the network.
        trials: inputs, outcomes and feedback, each dict name -> (*B, K).
        trial_mask: (*B, K) bool, which trials exist.

    Returns:
        None where one group is about as good, or the mask is traced.
    """
    exists = net.ops.to_concrete(trial_mask)
    if exists is None:
        return None
    lengths = _lengths(exists)
    groups = []
    for each in length_groups(lengths):
        indices, settings = net.ops.array(net, each), (net, int(lengths[each].max()))
        prepared = backend_of(net).one_program(_prepared_group, settings, (trials, trial_mask, indices))
        groups.append(LengthGroup(indices, prepared))
    return groups or None


def _prepared_group(settings: Own, arrays: Own) -> Own:
    """Targets of some data sets of trials (*B, K), of no more than so many trials."""
    (net, length), (trials, valid, indices) = settings, arrays
    backend = backend_of(net)

    def part(x: Array) -> Array:
        return x.reshape((-1, 1, x.shape[-1]))[indices][..., :length]

    return backend.prepare_joint(net, backend.Cache(), map_leaves(part, trials), part(valid))
