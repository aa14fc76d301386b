"""Data sets of similar length, prepared together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppl_buffer.network.arguments import NetworkLike
from ppl_buffer.network.backend import Array, Named, Own, backend_of
from ppl_buffer.network.layout import length_groups, map_leaves


@dataclass
class LengthGroup:
    """Data sets with about as many trials, without the padding that the longest of all needs.

    Attributes:
        indices: (g,), which of the data sets, counted over all batch dimensions.
        prepared: their targets as far as they do not depend on the parameters, arrays (g, ...), T trials each.
    """

    indices: Array
    prepared: Own


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
    lengths = np.where(exists, np.arange(1, exists.shape[-1] + 1), 1).max(-1).reshape(-1)
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
