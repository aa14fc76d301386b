"""Which trials of an exchangeable data set are its context, its buffer and its targets, and who sees what. NumPy alone.

In a data set as the paper has it (Hassan et al. 2026, arXiv 2510.09477) all three are disjoint and in random order. A
network that knows no others interpolates: its targets lie among the points that it sees. Further kinds put the trials
in the order of an input, time for instance:

- where it *forecasts*, the context is all trials before a frontier, and buffer and targets come after it;
- where it *fills a gap*, buffer and targets are a stretch, and the context is all trials before and after it;
- where the buffer is *in order*, its trials follow each other along the input, and a target sees those before it.

The last is independent of the others. Where it holds in a forecast or a gap, the buffer is what comes right after the
frontier, or at the beginning of the gap, and targets are any of the trials there, those of the buffer among them: each
sees the context and the buffer before it, never itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppl_buffer.schema import Categorical, Schema
from ppl_buffer.simulator import Arrays

# Share of the targets that see the context and nothing of the buffer, as in the paper.
DEFAULT_CONTEXT_ONLY = 0.5


@dataclass(frozen=True)
class Sizes:
    """How many data sets there are, and trials in each.

    Args:
        data_sets: B.
        context: N; may be 0.
        trials: K, of the buffer.
        targets: T.
    """

    data_sets: int
    context: int
    trials: int
    targets: int

    @property
    def total(self) -> int:
        """Trials that each data set is drawn with."""
        return self.context + self.trials + self.targets


@dataclass(frozen=True, eq=False)
class Kinds:
    """Which data sets of a batch forecast, which fill a gap, and which have a buffer in order.

    Args:
        order_by: the input that puts trials in order.
        forecasts: (B,) bool: the context ends where buffer and targets begin.
        fills: (B,) bool: buffer and targets lie between two parts of the context; never where it forecasts.
        in_order: (B,) bool: the buffer is in order.
    """

    order_by: str
    forecasts: np.ndarray
    fills: np.ndarray
    in_order: np.ndarray

    @property
    def stretches(self) -> np.ndarray:
        """(B,) bool: buffer and targets are a stretch in which nothing of the context lies."""
        return self.forecasts | self.fills


@dataclass(frozen=True)
class Roles:
    """Places of trials in each data set, and what its targets see.

    Attributes:
        context: (B, N).
        buffer: (B, K), in the order in which its trials were realised.
        targets: (B, T).
        visible: (B, 1, T): each target sees the context and the first so many trials of the buffer.
    """

    context: np.ndarray
    buffer: np.ndarray
    targets: np.ndarray
    visible: np.ndarray

    def seen(self, data: Arrays) -> tuple[Arrays, np.ndarray]:
        """Context and buffer in a row, name -> (B, N + K), and how many of these each target sees, (B, T)."""
        places = np.concatenate([self.context, self.buffer], axis=1)
        trials = {name: np.take_along_axis(x, places, 1) for name, x in data.items()}
        return trials, self.context.shape[1] + self.visible[:, 0]


def check_roles(
    schema: Schema,
    targets: int | None,
    forecasting: float,
    gap_filling: float,
    in_order: float,
    order_by: str | None,
    context_only: float,
) -> None:
    """Refuse targets of their own number, and shares of data sets or targets, that a schema does not allow.

    Raises:
        ValueError: if the schema is ordered, there is no continuous input to put its trials in order by or it is not
            clear which, or it is named and nothing is to be put in order, or forecasts and gaps are more than all.
    """
    if schema.ordered:
        given = {"targets": targets or 0, "forecasting": forecasting, "gap_filling": gap_filling, "in_order": in_order}
        for name, value in {**given, "context_only": context_only - DEFAULT_CONTEXT_ONLY}.items():
            if value:
                raise ValueError(
                    f"{name}: expected none for an ordered schema, where every trial is a target that sees those "
                    f"before it, got {context_only if name == 'context_only' else value!r}"
                )
    if forecasting + gap_filling > 1:
        raise ValueError(
            f"gap_filling: expected a share of the data sets that do not forecast, at most {1 - forecasting:g}, got "
            f"{gap_filling!r}"
        )
    if forecasting or gap_filling or in_order:
        order_input(schema, order_by)
    elif order_by is not None:
        raise ValueError(
            f"order_by: expected None where forecasting, gap_filling and in_order are all 0, got {order_by!r}; set one "
            "of them"
        )


def order_input(schema: Schema, order_by: str | None) -> str:
    """The input that trials are put in order by: the one that is named, or the only one that is continuous.

    Raises:
        ValueError: if there is none, or several and none is named.
    """
    names = [name for name, variable in schema.inputs.items() if not isinstance(variable, Categorical)]
    if not names:
        raise ValueError(
            "forecasting, gap_filling, in_order: expected 0 for a schema without a continuous input, since nothing "
            "puts its trials in order"
        )
    if order_by is None and len(names) == 1:
        return names[0]
    if order_by not in names:
        raise ValueError(f"order_by: expected a continuous input, one of {names}, got {order_by!r}")
    return order_by


def draw_kinds(
    rng: np.random.Generator, size: int, order_by: str, forecasting: float, gap_filling: float, in_order: float
) -> Kinds:
    """Each of `size` data sets forecasts, or fills a gap, and has its buffer in order, with these probabilities."""
    kind, follows = rng.random(size), rng.random(size) < in_order
    forecasts = kind < forecasting
    return Kinds(order_by, forecasts, ~forecasts & (kind < forecasting + gap_filling), follows)


def assign_roles(
    rng: np.random.Generator,
    sizes: Sizes,
    data: Arrays,
    kinds: Kinds | None = None,
    context_only: float = DEFAULT_CONTEXT_ONLY,
) -> Roles:
    """Draw who is what in each data set, and what its targets see.

    A share of the targets see the context alone. Where the buffer is in order, the others see all of it that comes
    before them; elsewhere a prefix of uniform length. Without a context no target is a special case: it sees all that
    comes before it, or a prefix of any length, the empty one as often as any other; unless no target at all is to see
    a buffer.

    Args:
        rng: the only source of randomness.
        sizes: of the data sets.
        data: the data sets, name -> (B, total).
        kinds: of the data sets; None = nothing is put in order.
        context_only: share of the targets that see the context and nothing of the buffer.
    """
    size, context, trials = sizes.data_sets, sizes.context, sizes.trials
    # The simulator may give its inputs in some order, a grid for instance.
    places = _shuffled(rng, size, sizes.total)
    visible = visible_trials(rng, sizes, context_only)
    if kinds is None:
        seen, buffer, targets = np.split(places, [context, context + trials], axis=1)
        return Roles(seen, buffer, targets, visible)
    stretches, follows = kinds.stretches[:, None], kinds.in_order[:, None]
    # From here on a trial is known by its rank. Equal inputs are ranked by chance, since the places are shuffled.
    by_rank = np.argsort(np.take_along_axis(data[kinds.order_by], places, 1), axis=1, kind="stable")
    ranks = np.argsort(by_rank, axis=1)
    # Where a stretch begins: after all of the context, or anywhere in it.
    begin, length = np.full((size, 1), context), sizes.total - context
    if kinds.fills.any():
        begin = np.where(kinds.fills[:, None], rng.integers(0, context + 1, (size, 1)), begin)
    within = begin + _shuffled(rng, size, length)
    around = np.arange(context) + length * (np.arange(context) >= begin)
    ranks = np.where(stretches, np.concatenate([around, within], 1), ranks)
    seen, buffer, targets = np.split(ranks, [context, context + trials], axis=1)
    buffer = np.where(follows, np.sort(buffer, 1), buffer)
    buffer = np.where(follows & stretches, begin + np.arange(trials), buffer)
    earlier = (buffer[:, None] < targets[..., None]).sum(-1)[:, None]
    if context or context_only == 1:
        earlier = np.where(visible == 0, 0, earlier)
    places = np.take_along_axis(places, by_rank, 1)
    seen, buffer, targets = (np.take_along_axis(places, part, 1) for part in (seen, buffer, targets))
    return Roles(seen, buffer, targets, np.where(follows[..., None], earlier, visible))


def _shuffled(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """The numbers from 0 to `count` - 1 in random order, `size` times: (size, count)."""
    return rng.permuted(np.broadcast_to(np.arange(count), (size, count)), axis=1)


def visible_trials(rng: np.random.Generator, sizes: Sizes, context_only: float) -> np.ndarray:
    """How many trials of a buffer in random order each target sees: (B, 1, T)."""
    shape = (sizes.data_sets, 1, sizes.targets)
    if not sizes.context:
        # Without a context the one-pass density sees each prefix once, and the empty one is no special case.
        return rng.integers(0, sizes.trials if context_only < 1 else 1, shape)
    visible = rng.integers(1, sizes.trials + 1, shape)
    return np.where(rng.random(shape) < context_only, 0, visible)
