"""Batch dimensions as data sets (B) and replicas (R), and what moves arrays between the two, for both backends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from types import ModuleType
from typing import NamedTuple

import numpy as np

from ppl_buffer.network.backend import Array, Named, Own

# Share of the work of padding that another layout may cost at most.
_WORTH_WHILE = 0.8


def map_leaves(function: Callable[[Array], Array], tree: Own) -> Own:
    """Apply a function to every array of nested dataclasses, dicts, lists and tuples."""
    if tree is None or isinstance(tree, (bool, int, str)):
        return tree
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{f.name: map_leaves(function, getattr(tree, f.name)) for f in fields(tree)})
    if isinstance(tree, Mapping):
        return {key: map_leaves(function, value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(map_leaves(function, value) for value in tree)
    return function(tree)


def select(tree: Own, batch_shape: Sequence[int], index: Array) -> Own:
    """The data sets that an index over the batch dimensions selects.

    Args:
        tree: arrays (*batch_shape, ...), with size 1 where data sets share.
        batch_shape: batch dimensions.
        index: whole numbers, slices, booleans, or a tuple of them, as NumPy takes them. While numbers are being traced
            nobody can look at them, and one that is out of range is not seen.

    Raises:
        IndexError: if there are no such data sets, or the index is none.
        ValueError: if it selects no data set.
    """
    batch_shape = tuple(batch_shape)
    items = tuple(map(_as_index, index if isinstance(index, tuple) else (index,)))
    if not all([item is None or isinstance(item, _PLAIN_INDEX) for item in items]):
        return map_leaves(lambda x: x[_of_shared(items, x.shape[: len(batch_shape)], batch_shape)], tree)
    try:
        positions = np.asarray(np.arange(math.prod(batch_shape)).reshape(batch_shape)[items])
    except (IndexError, ValueError, OverflowError) as error:
        raise IndexError(
            f"index: expected whole numbers, slices or booleans that select data sets of a batch of shape "
            f"{batch_shape}, got {index!r} ({error})"
        ) from None
    if not positions.size:
        raise ValueError(f"index: expected at least one data set of a batch of shape {batch_shape}, got {index!r}")
    axes = np.unravel_index(positions, batch_shape) if batch_shape else ()
    # Numbers instead of arrays without dimensions, which libraries do not all take for numbers.
    places: list[Array] = [int(x) if positions.ndim == 0 else x for x in axes]

    def take(x: Array) -> Array:
        lead, tail = x.shape[: len(batch_shape)], x.shape[len(batch_shape) :]
        return x[_of_shared(places, lead, batch_shape)].reshape((*positions.shape, *tail))

    return map_leaves(take, tree)


_PLAIN_INDEX = (int, slice, type(Ellipsis), np.ndarray)


def _as_index(item: Array) -> Array:
    """What is no number or slice as an array of NumPy; what cannot be one, such as a traced array, as it is."""
    if item is None or isinstance(item, _PLAIN_INDEX):
        return item
    try:
        array = np.asarray(item)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(item, Sequence):
            raise IndexError(f"index: expected whole numbers, slices or booleans, got {item!r} ({error})") from None
        return item
    return array if array.size else array.astype(int)


def _of_shared(items: Sequence[Array], lead: Sequence[int], batch_shape: Sequence[int]) -> tuple[Array, ...]:
    """An index of arrays that have size 1 where data sets share: the first place there, whatever the index says."""
    return tuple(
        [
            item if axis >= len(lead) or lead[axis] == batch_shape[axis] else slice(None) if isinstance(item, slice)
            else item * 0
            for axis, item in enumerate(items)
        ]
    )  # fmt: skip


def pad_dims(value: Array, ndim: int, trailing: int) -> Array:
    """Insert leading dimensions of size 1 so that `ndim` dimensions stand before the `trailing` ones."""
    missing = ndim + trailing - value.ndim
    return value.reshape((1,) * missing + tuple(value.shape)) if missing > 0 else value


def pad_last(xp: ModuleType, value: Array, missing: int, fill: float | bool) -> Array:
    """Append `missing` fill values on the last axis, in the array's own type."""
    more = xp.full_like(value[..., :1], fill)
    return xp.concatenate([value, xp.broadcast_to(more, (*value.shape[:-1], missing))], -1)


def common_batch_shape(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Broadcast the batch shapes of several arguments.

    Raises:
        ValueError: if they do not broadcast; it says which argument has which.
    """
    try:
        return tuple(np.broadcast_shapes(*shapes.values()))
    except ValueError:
        given = ", ".join(f"{name} has {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"arguments: expected batch dimensions that broadcast, but {given}") from None


def broadcast_shape(shapes: Sequence[Sequence[int]], argument: str) -> tuple[int, ...]:
    """Broadcast the batch shapes that one argument brings together.

    Raises:
        ValueError: if they do not broadcast.
    """
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        raise ValueError(
            f"{argument}: expected batch dimensions that broadcast, got {[tuple(shape) for shape in shapes]}"
        ) from None


def broadcasts_to(shape: Sequence[int], target: Sequence[int]) -> bool:
    """Whether an array of one shape can be expanded to another."""
    try:
        return tuple(np.broadcast_shapes(tuple(shape), tuple(target))) == tuple(target)
    except ValueError:
        return False


def length_groups(lengths: np.ndarray, most: int = 4) -> list[np.ndarray]:
    """Split sequences of different lengths into at most `most` groups, so that padding costs least.

    The cost of a sequence padded to T trials is counted as T (T + 256): attention grows with the square, the rest with
    the length. Each group costs a compiled copy of the network, so that a small saving is not worth any.

    Returns:
        the indices of each group's sequences, or nothing where one group is about as good.
    """
    order = np.argsort(lengths, kind="stable")
    ends = np.unique(lengths[order], return_index=False)
    if len(ends) > 64:
        ends = np.unique(np.quantile(lengths, np.linspace(0, 1, 64), method="higher"))
    counts = np.searchsorted(lengths[order], ends, side="right")
    cost = ends * (ends + 256.0)
    # best[j]: least cost of the sequences up to ends[j], and where its last group begins.
    best = cost * counts
    cuts: list[list[int]] = [[] for _ in ends]
    for _ in range(most - 1):
        new_best, new_cuts = best.copy(), list(cuts)
        for j in range(len(ends)):
            for i in range(j):
                total = best[i] + cost[j] * (counts[j] - counts[i])
                if total < new_best[j]:
                    new_best[j], new_cuts[j] = total, [*cuts[i], i]
        best, cuts = new_best, new_cuts
    if best[-1] > _WORTH_WHILE * cost[-1] * len(lengths):
        return []
    edges = [0, *(int(counts[i]) for i in cuts[-1]), len(lengths)]
    return [np.sort(order[a:b]) for a, b in zip(edges, edges[1:], strict=False)]


class EndToEndRows(NamedTuple):
    """Where the trials of sequences stand that are laid end to end in rows.

    Attributes:
        owner: (N, K), which sequence each place of a row is of.
        source: (N, K), which of its trials stands there; its last at a place that is left over.
        begins: (N, K) bool, places of the first trials of sequences that stand behind another.
        taken: (N, K) bool, which places are not left over.
        place: (B, K), where each trial stands, counted over rows and places; 0 behind the end of a sequence.
    """

    owner: np.ndarray
    source: np.ndarray
    begins: np.ndarray
    taken: np.ndarray
    place: np.ndarray


def rows_end_to_end(lengths: np.ndarray) -> EndToEndRows | None:
    """Lay sequences end to end in few rows, each as long as the longest sequence; None where that saves little."""
    longest, most = int(lengths.max()), int(_WORTH_WHILE * len(lengths))
    rows: list[list[int]] = []
    # First fit, the longest first.
    left = np.full(len(lengths), longest)
    for index in np.argsort(-lengths, kind="stable"):
        first = int(np.argmax(left >= lengths[index]))
        if first == most:
            return None
        if first == len(rows):
            rows.append([])
        rows[first].append(int(index))
        left[first] -= lengths[index]
    owner, source = (np.zeros((len(rows), longest), int) for _ in range(2))
    begins, taken = (np.zeros((len(rows), longest), bool) for _ in range(2))
    place = np.zeros((len(lengths), longest), int)
    for number, row in enumerate(rows):
        stop = 0
        for index in row:
            start, stop = stop, stop + int(lengths[index])
            owner[number, start:], source[number, start:] = index, lengths[index] - 1
            source[number, start:stop] = np.arange(stop - start)
            begins[number, start], taken[number, start:stop] = start > 0, True
            place[index, : stop - start] = number * longest + np.arange(start, stop)
    return EndToEndRows(owner, source, begins, taken, place)


class BatchLayout:
    """Sorts batch dimensions into data sets (B) and replicas (R), and moves arrays to (B, R, ...) and back.

    A leading dimension along which the shared arrays (a context, an observed buffer) vary tells data sets apart. Along
    the others whatever is shared is stored once, and read by all replicas.

    Args:
        xp: array namespace of the backend.
        lead: sizes of the leading dimensions.
        shared: leading shapes of the shared arrays, none longer than `lead`.
    """

    def __init__(self, xp: ModuleType, lead: Sequence[int], shared: Iterable[Sequence[int]]) -> None:
        self.xp = xp
        self.lead = tuple(lead)
        depth = len(self.lead)
        varies = [False] * depth
        for shape in shared:
            for axis, size in enumerate(shape, depth - len(shape)):
                varies[axis] = varies[axis] or size > 1
        axes = range(depth)
        self.order = [axis for axis in axes if varies[axis]] + [axis for axis in axes if not varies[axis]]
        self.sizes = tuple([self.lead[axis] for axis in self.order])
        self.sets = sum(varies)
        self.batch = math.prod(self.sizes[: self.sets])
        self.replicas = math.prod(self.sizes[self.sets :])
        self._in_order = self.order == list(axes)

    def _move(self, value: Array) -> Array:
        return value if self._in_order else self.xp.moveaxis(value, self.order, list(range(len(self.order))))

    def fold(self, values: Mapping[str, Array], trailing: int, replicate: bool = False) -> Named:
        """Arrange arrays (*lead, *trailing) to (B, r, *trailing); r is 1 for all of them where none varies over R."""
        depth = len(self.lead)
        moved: Named = {}
        alike = not replicate
        for name, value in values.items():
            missing = depth + trailing - value.ndim
            if missing > 0:
                value = value.reshape((1,) * missing + tuple(value.shape))
            moved[name] = value if self._in_order else self._move(value)
            alike = alike and math.prod(tuple(moved[name].shape[self.sets : depth])) == 1
        replicas = 1 if alike else self.replicas
        sizes = self.sizes[: self.sets] + (1,) * (depth - self.sets) if alike else self.sizes
        for name, value in moved.items():
            tail = tuple(value.shape[depth:])
            moved[name] = self.xp.broadcast_to(value, (*sizes, *tail)).reshape((self.batch, replicas, *tail))
        return moved

    def fold_trials(
        self, groups: Mapping[str, Named], mask: Array, replicate: bool = False
    ) -> tuple[dict[str, Named], Array]:
        """Groups of trials and which of them exist as (B, r, K), r the same for all."""
        flat: Named = {"mask": mask}
        for group, values in groups.items():
            for name, value in values.items():
                flat[f"{group}.{name}"] = value
        folded = self.fold(flat, 1, replicate)
        trials: dict[str, Named] = {}
        for group, values in groups.items():
            trials[group] = {}
            for name in values:
                trials[group][name] = folded[f"{group}.{name}"]
        return trials, folded["mask"]

    def fold_shared(self, tree: Own, batch_shape: Sequence[int]) -> Own:
        """Arrange arrays (*batch_shape, ...), alike along R, to (B, ...)."""
        depth, ndim = len(self.lead), len(batch_shape)
        if tuple(batch_shape) == (self.batch,) and (self.sets == 0 or self.order[: self.sets] == [depth - 1]):
            return tree

        def put(value: Array) -> Array:
            tail = tuple(value.shape[ndim:])
            value = self._move(value.reshape((1,) * (depth - ndim) + tuple(value.shape)))
            value = value.reshape(tuple(value.shape[: self.sets]) + tail)
            return self.xp.broadcast_to(value, (*self.sizes[: self.sets], *tail)).reshape((self.batch, *tail))

        return map_leaves(put, tree)

    def unfold(self, value: Array) -> Array:
        """Bring a result (B, R or 1, *trailing) back to (*lead, *trailing)."""
        tail = tuple(value.shape[2:])
        value = self.xp.broadcast_to(value, (self.batch, self.replicas, *tail)).reshape((*self.sizes, *tail))
        return value if self._in_order else self.xp.moveaxis(value, list(range(len(self.order))), self.order)
