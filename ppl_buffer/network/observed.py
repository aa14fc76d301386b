"""Contexts that are encoded and trials that are observed once: all of a joint density that the parameters do not change."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ppl_buffer.network.arguments import as_floating, check_legal, check_names, check_trial_arrays
from ppl_buffer.network.backend import backend_of
from ppl_buffer.network.layout import Array, BatchLayout, Named, map_leaves
from ppl_buffer.schema import split_value


@dataclass
class EncodedContext:
    """A context that a network has encoded, to be shared between distributions. Made by `net.encode`.

    Attributes:
        trials: inputs, outcomes and feedback of the context, each dict name -> (*B, N).
        mask: (*B, N) bool, which of them exist.
        cache: what predictions read, arrays (*B, ...).
    """

    trials: dict[str, Named]
    mask: Array
    cache: Any

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Batch dimensions *B of the context."""
        return tuple(self.mask.shape[:-1])

    @property
    def size(self) -> int:
        """Number of context points N, those that do not exist included."""
        return self.mask.shape[-1]

    def __getitem__(self, index: Any) -> EncodedContext:
        """The same of some data sets: indexes the batch dimensions."""
        return map_leaves(lambda x: x[index], self)


@dataclass
class LengthGroup:
    """People with about as many trials, without the padding that the longest of all needs.

    Attributes:
        members: (g,), which of the data sets, counted over all batch dimensions.
        prepared: their targets as far as they do not depend on the parameters, arrays (g, ...), T trials each.
    """

    members: Array
    prepared: Any


@dataclass
class ObservedTrials:
    """Observed trials, and all that a network computes of them before it knows the parameters. Made by `net.observe`.

    Index it over its batch dimensions to take a part of the people: ``data[idx]`` inside a subsampling plate. That also
    drops `groups`, which `jax.vmap` and `scan` over the people cannot take apart: give them ``data[jnp.arange(n)]``.

    Attributes:
        inputs: dict name -> (*B, K).
        value: (*B, K) or (*B, K, n_outcomes), as given.
        feedback: dict name -> (*B, K).
        trial_mask: (*B, K) bool, which trials exist.
        context: the encoded context, or None.
        prepared: targets as far as they do not depend on the parameters, arrays (*B, ...).
        alone: the same with an empty buffer, where the schema's trials are independent given all parameters.
        snapshot: a copy of `value` that nobody else can change.
        groups: `prepared` once more, in groups of data sets of similar length, where that saves work.
    """

    inputs: Named
    value: Array
    feedback: Named
    trial_mask: Array
    context: EncodedContext | None
    prepared: Any
    alone: Any
    snapshot: Array
    groups: list[LengthGroup] | None = None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Batch dimensions *B."""
        return tuple(self.trial_mask.shape[:-1])

    @property
    def trials(self) -> int:
        """Number of trials K, those that do not exist included."""
        return self.trial_mask.shape[-1]

    def __getitem__(self, index: Any) -> ObservedTrials:
        """The same of some data sets: indexes the batch dimensions."""
        return map_leaves(lambda x: x[index], replace(self, groups=None))


def broadcast_shape(shapes: Sequence[Sequence[int]], argument: str) -> tuple[int, ...]:
    try:
        return tuple(np.broadcast_shapes(*map(tuple, shapes)))
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


def require_feedback(net: Any, given: Mapping[str, Any] | None, purpose: str) -> None:
    if net.schema.feedback and given is None:
        raise ValueError(
            f"feedback: expected {list(net.schema.feedback)} to {purpose}, since later trials depend on it; got none"
        )


def encode_context(net: Any, context: Mapping[str, Any] | EncodedContext, mask: Array | None = None) -> EncodedContext:
    """See `NetworkVerbs.encode`."""
    if isinstance(context, EncodedContext):
        return context
    joint, schema = backend_of(net), net.schema
    if schema.ordered:
        raise ValueError(
            "context: expected none for an ordered model, whose past belongs in the buffer; use "
            "JointPredictive(...).condition(value) to predict from a history"
        )
    variables = {**schema.inputs, **schema.outcomes, **schema.feedback}
    check_names("context", context, variables)
    count: Any = None
    trials = {}
    for group in ("inputs", "outcomes", "feedback"):
        part = {name: context[name] for name in getattr(schema, group)}
        trials[group] = check_trial_arrays(joint, net, "context", part, getattr(schema, group), count, mask)
        for value in trials[group].values():
            count = value.shape[-1]
    if count == 0:
        raise ValueError("context: expected at least one point, got 0; leave the argument out to predict without one")
    warn_longer(net, "context", count, "context")
    shapes = [value.shape[:-1] for group in trials.values() for value in group.values()]
    batch = broadcast_shape(shapes if mask is None else [*shapes, mask.shape[:-1]], "context")
    # Where all points exist nobody needs a mask, and reading the context takes less time.
    whole = mask is None
    if mask is None:
        mask = joint.ops.xp.ones_like(next(iter(trials["outcomes"].values()))) > 0
    trials = {
        group: {name: joint.ops.xp.broadcast_to(value, (*batch, count)) for name, value in values.items()}
        for group, values in trials.items()
    }
    mask = joint.ops.xp.broadcast_to(mask, (*batch, count))
    layout = BatchLayout(joint, batch, [batch])
    arranged = {group: layout.fold(values, 1) for group, values in trials.items()}
    cache = joint.start_cache(net, arranged, None if whole else layout.fold({"mask": mask}, 1)["mask"])
    return EncodedContext(trials, mask, map_leaves(lambda x: x.reshape((*batch, *x.shape[1:])), cache))


def warn_longer(net: Any, argument: str, count: int, field: str) -> None:
    if net.record is None:
        return
    trained = getattr(net.record, field)
    if count > trained:
        what = "points" if field == "context" else "trials"
        warnings.warn(
            f"{argument}: {count} {what}, but the network was trained with at most {trained}; its predictions there "
            f"are extrapolations",
            stacklevel=4,
        )


def observe_trials(
    net: Any,
    inputs: Mapping[str, Any],
    value: Any,
    *,
    feedback: Mapping[str, Any] | None,
    trial_mask: Any,
    context: Mapping[str, Any] | EncodedContext | None,
) -> ObservedTrials:
    """See `NetworkVerbs.observe`."""
    from ppl_buffer.predictive import Predictive

    joint, schema = backend_of(net), net.schema
    tail = len(schema.event_shape_tail)
    value = as_floating(joint, net, "value", value)
    if value.ndim < 1 + tail:
        raise ValueError(f"value: expected shape (*batch, trials{', n_outcomes' * tail}), got {tuple(value.shape)}")
    trials = value.shape[-1 - tail]
    require_feedback(net, feedback, "observe data")
    predictive = Predictive(net, inputs, trials=trials, context=context, feedback=feedback or {}, trial_mask=trial_mask)
    predictive.check_value_shape(value)
    mask = predictive.trial_mask
    if mask is None:
        mask = joint.ops.xp.ones_like(split_value(schema, value)[next(iter(schema.outcomes))]) > 0
    for name, column in split_value(schema, value).items():
        check_legal(joint, f"value[{name!r}]" if tail else "value", schema.outcomes[name], column, mask)
    batch = broadcast_shape([value.shape[: value.ndim - 1 - tail], predictive.batch_shape], "value")
    shape = (*batch, trials)
    mask = joint.ops.xp.broadcast_to(mask, shape)
    layout = BatchLayout(joint, batch, [batch])
    arranged, valid = predictive.arrange_trials(layout, value)
    cache = joint.Cache() if predictive.context is None else predictive.arrange_context(layout)
    prepared = joint.prepare_joint(net, cache, arranged, valid)
    alone = joint.prepare_marginal(net, cache, arranged["inputs"], valid) if schema.independent else None

    def spread(tree: Any) -> Any:
        return map_leaves(lambda x: x.reshape((*batch, *x.shape[1:])), tree)

    value = joint.ops.copy(joint.ops.xp.broadcast_to(value, (*shape, *schema.event_shape_tail)))
    return ObservedTrials(
        inputs={name: joint.ops.xp.broadcast_to(x, shape) for name, x in predictive.inputs.items()},
        value=value,
        feedback={name: joint.ops.xp.broadcast_to(x, shape) for name, x in (predictive.feedback or {}).items()},
        trial_mask=mask,
        context=predictive.context,
        prepared=spread(prepared),
        alone=spread(alone),
        snapshot=joint.ops.copy(value),
        groups=_group_by_length(net, arranged, valid) if predictive.context is None else None,
    )


def _group_by_length(net: Any, trials: dict[str, Named], valid: Array) -> list[LengthGroup] | None:
    """Prepare data sets of similar length together, each group only as long as its longest member."""
    joint = backend_of(net)
    exists = joint.ops.to_concrete(valid)
    if exists is None:
        return None
    lengths = np.where(exists, np.arange(1, exists.shape[-1] + 1), 1).max(-1)[:, 0]
    groups = []
    for members in length_groups(lengths):
        length = int(lengths[members].max())

        def part(x: Array, members: np.ndarray = members, length: int = length) -> Array:
            return x[members][..., :length]

        prepared = joint.prepare_joint(net, joint.Cache(), map_leaves(part, trials), part(valid))
        groups.append(LengthGroup(joint.ops.xp.asarray(members), prepared))
    return groups or None


def length_groups(lengths: np.ndarray, most: int = 4) -> list[np.ndarray]:
    """Split sequences of different lengths into at most `most` groups, so that padding costs least.

    The cost of a sequence padded to T trials is counted as T (T + 256): attention grows with the square, the rest with
    the length. Each group costs a compiled copy of the network, so that a small saving is not worth any.

    Returns:
        the members of each group, or nothing where one group is about as good.
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
    if best[-1] > 0.8 * cost[-1] * len(lengths):
        return []
    edges = [0, *(int(counts[i]) for i in cuts[-1]), len(lengths)]
    return [np.sort(order[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
