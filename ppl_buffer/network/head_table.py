"""Rows of a head that several trials share: those with one target of the network and the same earlier outcomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ppl_buffer.network.backend import Array, ArrayOps, Named
from ppl_buffer.network.embeddings import combination
from ppl_buffer.network.parts import Part
from ppl_buffer.schema import Discrete

# Combinations of a trial's earlier outcomes that are worth a table.
_MOST_CELLS = 8
# From this share of trials on, what is saved pays for bringing rows back to the trials.
MOST_ROWS = 0.75


class HeadTable(NamedTuple):
    """Rows of a head: of each target one for each combination of the trial's earlier outcomes.

    Attributes:
        ops: what is done to arrays.
        targets: number of targets T.
        cells: number of combinations.
        codes: dict outcome -> (T * cells,), its value in each row.
        row: (B, R, K), which row a trial has.
    """

    ops: ArrayOps
    targets: int
    cells: int
    codes: Named
    row: Array

    def repeat(self, representation: Array) -> Array:
        """What the rows (B, R, T * cells, W) read of targets (B, R, T, W); one target is not repeated."""
        if self.targets == 1 or self.cells == 1:
            return representation
        sets, replicas, targets, width = representation.shape
        wide = self.ops.xp.broadcast_to(representation[:, :, :, None], (sets, replicas, targets, self.cells, width))
        return wide.reshape((sets, replicas, targets * self.cells, width))

    def pick(self, rows: Array) -> Array:
        """The row (B, R, K, n) that each trial has of rows (B, R, T * cells, n)."""
        if self.targets > 1:
            return self.ops.take_rows(rows, self.row)
        # Choosing is cheaper than to gather, whose derivative is slow.
        row, picked = self.row[..., None], rows[:, :, :1]
        for index in range(1, rows.shape[2]):
            picked = self.ops.xp.where(row == index, rows[:, :, index : index + 1], picked)
        return picked

    def pick_each(self, *rows: Array) -> list[Array]:
        """`pick` of several arrays (B, R, T * cells, n), at once where that takes less time."""
        if self.targets == 1:
            return [self.pick(x) for x in rows]
        together, start, parts = self.pick(self.ops.xp.concatenate(list(rows), -1)), 0, []
        for x in rows:
            parts.append(together[..., start : start + x.shape[-1]])
            start += x.shape[-1]
        return parts

    def pick_place(self, rows: Array, place: Array) -> Array:
        """One number (B, R, K) of each trial's row of (B, R, T * cells, n), at a place (B, R, K) from 0."""
        sets, replicas, count, size = rows.shape
        numbers = rows.reshape((sets, replicas, count * size, 1))
        return self.ops.take_rows(numbers, self.row * size + place)[..., 0]

    def of_targets(self, values: Array) -> Array:
        """Numbers (B, R, K) of the trials from those of the targets (B, R, T)."""
        repeated = self.repeat(values[..., None])
        return self.pick(repeated)[..., 0] if self.targets > 1 else values


def head_table(
    net: Part, targets: int, earlier: Mapping[str, Array], index: Array | None, trials: int
) -> HeadTable | None:
    """The table, where the earlier outcomes have few values, and it has fewer rows than there are trials.

    Args:
        net: the part of the network.
        targets: T, of the representation; without an index 1, or as many as trials.
        earlier: dict name -> (B, R, K), the trial's earlier outcomes.
        index: (B, r, K), which target each trial is; or None.
        trials: K.
    """
    known = [variable for name in earlier if isinstance(variable := net.schema.outcomes[name], Discrete)]
    sizes = [variable.n for variable in known]
    cells, shared = math.prod(sizes), targets == 1
    if len(sizes) < len(earlier) or cells > _MOST_CELLS or not (earlier if shared else index is not None):
        return None
    if cells >= trials if shared else targets * cells > MOST_ROWS * trials:
        return None
    combinations = np.indices(sizes).reshape(len(sizes), cells)
    lowest = [variable.low for variable in known]
    codes = {
        name: net.ops.number(net, np.tile(row + low, targets))
        for name, row, low in zip(earlier, combinations, lowest, strict=True)
    }
    row = combination(net, sizes, [value - low for value, low in zip(earlier.values(), lowest, strict=True)])
    if not shared:
        row = net.ops.number(net, index) * cells + row
    return HeadTable(net.ops, targets, cells, codes, row)
