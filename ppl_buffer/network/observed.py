"""Contexts that are encoded and trials that are observed once, before the parameters are known."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ppl_buffer.network.arguments import (
    NetworkLike,
    all_exist,
    arrange_outcomes,
    as_floating,
    as_mask,
    check_names,
    check_trial_arrays,
    check_value_shape,
    choose_likelihood,
    count_existing,
    count_trials,
    refuse_empty,
    require_buffer,
    require_feedback,
)
from ppl_buffer.network.backend import Array, Named, Own, backend_of
from ppl_buffer.network.distinct import DistinctInputs, check_conditions, distinct_inputs
from ppl_buffer.network.groups import EndToEnd, LengthGroup, group_by_length, lay_end_to_end
from ppl_buffer.network.layout import (
    BatchLayout,
    broadcast_shape,
    common_batch_shape,
    map_leaves,
    select,
)
from ppl_buffer.network.missing import Missing, check_missing, checked_legal
from ppl_buffer.network.missing_rule import MissingRule, gaps, known_feedback, pass_over, require_direct
from ppl_buffer.network.unfamiliar import warn_unfamiliar
from ppl_buffer.schema import split_value


@dataclass
class EncodedContext:
    """A context that a network has encoded, to be shared between distributions. Made by `net.encode`.

    Attributes:
        trials: inputs, outcomes and feedback of the context, each dict name -> (*B, N).
        mask: (*B, N) bool, which of them exist.
        cache: what predictions read, arrays (*B, ...).
        digest: `Network.digest` of the network, since another one can make nothing of it.
    """

    trials: dict[str, Named]
    mask: Array
    cache: Own
    digest: str = field(metadata={"static": True})

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Batch dimensions *B of the context."""
        return tuple(self.mask.shape[:-1])

    @property
    def size(self) -> int:
        """Number of context points N, those that do not exist included."""
        return self.mask.shape[-1]

    def __getitem__(self, index: Array) -> EncodedContext:
        """The same of some data sets: indexes the batch dimensions.

        Raises:
            IndexError: if there are no such data sets.
            ValueError: if it selects none.
        """
        return select(self, self.batch_shape, index)

    def expanded(self, ndim: int) -> EncodedContext:
        """The same with `ndim` batch dimensions, those that it lacks of size 1 and in front."""
        missing = ndim - len(self.batch_shape)
        return self if missing <= 0 else map_leaves(lambda x: x.reshape((1,) * missing + tuple(x.shape)), self)


@dataclass
class ObservedTrials:
    """Observed trials, and all that a network computes of them before it knows the parameters. Made by `net.observe`.

    Index it over its batch dimensions to take some of the data sets: ``data[idx]`` inside a subsampling plate. That
    also drops `groups`, which `jax.vmap` and `scan` over data sets cannot take apart: give them
    ``data[jnp.arange(n)]``.

    Attributes:
        inputs: dict name -> (*B, K).
        value: (*B, K) or (*B, K, n_outcomes), as given.
        feedback: dict name -> (*B, K).
        trial_mask: (*B, K) bool, which trials exist.
        context: the encoded context, or None.
        outcomes: dict name -> (*B, K), columns of `value` in the network's number type, legal where no trial is.
        legal: (*B, K) bool, which trials hold legal outcomes or do not exist; None where all were seen to do so.
        prepared: targets as far as they do not depend on the parameters, arrays (*B, ...); None where they were
            observed for the direct likelihood.
        alone: the same with an empty buffer, where the schema's trials are independent given all parameters; trials
            with the same inputs are one target of them where that saves work.
        sequence: what the direct likelihood reads, arrays (*B, ...); None where they were observed for the buffer.
        snapshot: a copy of `value` that nobody else can change.
        digest: `Network.digest` of the network, since another one can make nothing of it.
        groups: with less padding, where that saves work: `prepared` once more in groups of data sets of similar
            length, or `sequence`, in JAX, laid end to end.
        deadline: (*B, K), or (*B, 1) where all trials have the same; None without one.
        missing: what missing answers mean; None where there are none.
        conditions: (*B, K), which of the conditions each trial is of, where trials of one have the same parameters.
        condition_count: how many there are; None without.
    """

    inputs: Named
    value: Array
    feedback: Named
    trial_mask: Array
    context: EncodedContext | None
    outcomes: Named
    legal: Array | None
    prepared: Own | None
    alone: Own | None
    sequence: Own | None
    snapshot: Array
    digest: str = field(metadata={"static": True})
    groups: list[LengthGroup] | EndToEnd | None = None
    deadline: Array | None = None
    missing: MissingRule | None = field(default=None, metadata={"static": True})
    conditions: Array | None = None
    condition_count: int | None = field(default=None, metadata={"static": True})

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Batch dimensions *B."""
        return tuple(self.trial_mask.shape[:-1])

    @property
    def trials(self) -> int:
        """Number of trials K, those that do not exist included."""
        return self.trial_mask.shape[-1]

    def __getitem__(self, index: Array) -> ObservedTrials:
        """The same of some data sets: indexes the batch dimensions.

        Raises:
            IndexError: if there are no such data sets.
            ValueError: if it selects none.
        """
        # A context that the data sets share has fewer dimensions, or dimensions of size 1.
        context = None if self.context is None else self.context.expanded(len(self.batch_shape))
        return select(replace(self, context=context, groups=None), self.batch_shape, index)

    def expanded(self, ndim: int) -> ObservedTrials:
        """The same with `ndim` batch dimensions, those that it lacks of size 1 and in front.

        `value` stays the array that it is, since a model passes it as `obs=`.
        """
        missing = ndim - len(self.batch_shape)
        if missing <= 0:
            return self
        padded = map_leaves(lambda x: x.reshape((1,) * missing + tuple(x.shape)), replace(self, groups=None))
        return replace(padded, value=self.value, groups=self.groups)


def encode_context(
    net: NetworkLike, context: Mapping[str, Array] | EncodedContext, mask: Array | None = None
) -> EncodedContext:
    """Encode a context of which the points in `mask` exist (None = all); see `Network.encode`."""
    if isinstance(context, EncodedContext):
        if context.digest != net.digest:
            refuse_other_network("context", "encode")
        return context
    backend, xp, schema = backend_of(net), net.ops.xp, net.schema
    if schema.ordered:
        raise ValueError(
            "context: expected none for an ordered model, whose past belongs in the buffer; use "
            "JointPredictive(...).condition(value) to predict from a history"
        )
    groups = {"inputs": schema.inputs, "outcomes": schema.outcomes, "feedback": schema.feedback}
    require_buffer(net, "context: expected none")
    check_names("context", context, [name for variables in groups.values() for name in variables])
    count: int | None = None
    trials: dict[str, Named] = {}
    for group, variables in groups.items():
        part = {name: context[name] for name in variables}
        trials[group] = check_trial_arrays(net, "context", part, variables, count, mask)
        for value in trials[group].values():
            count = value.shape[-1]
    if count == 0:
        raise ValueError("context: expected at least one point, got 0; leave the argument out to predict without one")
    assert count is not None
    warn_longer(net, "context", count, "context")
    points = {name: x for values in trials.values() for name, x in values.items()}
    warn_unfamiliar(net, {"context": points}, mask, direct=False)
    shapes = [value.shape[:-1] for group in trials.values() for value in group.values()]
    batch = broadcast_shape(shapes if mask is None else [*shapes, mask.shape[:-1]], "context")
    if 0 in batch:
        refuse_empty("context", batch)
    # Where all points exist nobody needs a mask, and reading the context takes less time.
    whole = mask is None
    if mask is None:
        mask = xp.ones_like(next(iter(trials["outcomes"].values()))) > 0
    trials = {
        group: {name: xp.broadcast_to(value, (*batch, count)) for name, value in values.items()}
        for group, values in trials.items()
    }
    mask = xp.broadcast_to(mask, (*batch, count))
    layout = BatchLayout(xp, batch, [batch])
    folded = {group: layout.fold(values, 1) for group, values in trials.items()}
    cache = backend.start_cache(net, folded, None if whole else layout.fold({"mask": mask}, 1)["mask"])
    return EncodedContext(trials, mask, map_leaves(lambda x: x.reshape((*batch, *x.shape[1:])), cache), net.digest)


def refuse_other_network(argument: str, verb: str) -> None:
    """Raise the error for what another network has observed or encoded."""
    raise ValueError(
        f"{argument}: expected what this network has {verb}d, got what another one has, whose weights, scales, sizes "
        f"or schema differ; call {verb} of the network that is to use it"
    )


def warn_longer(net: NetworkLike, argument: str, count: int, field: str) -> None:
    """Say that there are more trials or points than the network was trained with."""
    if net.record is None:
        return
    trained = net.record.context if field == "context" else net.record.trials
    if count > trained:
        what = "points" if field == "context" else "trials"
        warnings.warn(
            f"{argument}: {count} {what}, but the network was trained with at most {trained}; its predictions there "
            f"are extrapolations",
            stacklevel=4,
        )


def observe_trials(
    net: NetworkLike,
    inputs: Mapping[str, Array],
    value: Array,
    *,
    feedback: Mapping[str, Array] | None,
    trial_mask: Array | None,
    context: Mapping[str, Array] | EncodedContext | None,
    likelihood: str = "auto",
    missing: Missing | None = None,
    conditions: Array | None = None,
    purpose: str = "any",
) -> ObservedTrials:
    """See `Network.observe`.

    The purpose is "any"; or "again" of data that are known already: nothing is said of what the training covered; or
    "likelihood" where all parameters will be given: trials that are then independent get no buffer, which takes longest
    to compile and to fill.
    """
    known, all_given = purpose == "again", purpose == "likelihood"
    schema, likelihood = net.schema, choose_likelihood(net, likelihood)
    tail = len(schema.event_shape_tail)
    value = as_floating(net, "value", value)
    if value.ndim < 1 + tail:
        raise ValueError(f"value: expected shape (*batch, trials{', n_outcomes' * tail}), got {tuple(value.shape)}")
    require_feedback(net, feedback, "observe data")
    trials = count_trials(net, inputs, value.shape[-1 - tail])
    mask = None if trial_mask is None else as_mask(net, "trial_mask", trial_mask, trials)
    given = {
        "inputs": check_trial_arrays(net, "inputs", inputs, schema.inputs, trials, mask),
        "feedback": check_trial_arrays(
            net, "feedback", {} if feedback is None else feedback, schema.feedback, trials, mask,
            missing is not None and schema.ordered,
        ),
    }  # fmt: skip
    encoded = None if context is None else encode_context(net, context)
    if not (schema.independent or known):
        # Otherwise it is a matter of the parameters: where all are given, nothing depends on how many trials there are.
        warn_longer(net, "trials", count_existing(net, trials, mask), "trials")
    numbered, count = None, None
    if conditions is not None:
        numbered, count = check_conditions(net, conditions, trials, likelihood)
    shapes = {f"{group}[{k!r}]": x.shape[:-1] for group, values in given.items() for k, x in values.items()}
    if mask is not None:
        shapes["trial_mask"] = mask.shape[:-1]
    if numbered is not None:
        shapes["conditions"] = numbered.shape[:-1]
    if encoded is not None:
        shapes["context"] = encoded.batch_shape
    beside = common_batch_shape(shapes)
    check_value_shape(value, (trials, *schema.event_shape_tail))
    # Looked at as NumPy's: a backend that compiles would do so for each operation.
    numbers = net.ops.to_concrete(value)
    rule, deadline = (None, None) if missing is None else check_missing(net, missing, trials, mask)
    legal = checked_legal(net, value, numbers, mask, rule, deadline, given["feedback"])
    if rule is not None:
        require_direct(net, likelihood == "direct")
    if not known:
        columns = split_value(schema, value if numbers is None else numbers)
        warn_unfamiliar(net, {**given, "value": columns}, mask, likelihood == "direct")
    limits = () if deadline is None else deadline.shape[:-1]
    batch = broadcast_shape([value.shape[: value.ndim - 1 - tail], beside, limits], "value")
    if 0 in batch:
        refuse_empty("value", batch)
    encoded = None if encoded is None else encoded.expanded(len(beside))
    apart = schema.independent and (likelihood == "buffer" or schema.inputs or numbered is not None)
    distinct = distinct_inputs(net, given["inputs"], mask, batch, trials, numbered) if apart else None
    nameless = None if encoded is None else replace(encoded, digest="")
    settings = (net, likelihood, all_given, batch, trials, rule)
    arrays = (given, value, mask, legal, nameless, distinct)
    observed = replace(backend_of(net).one_program(_observed, settings, arrays), digest=net.digest, context=encoded)
    if deadline is not None:
        deadline = net.ops.xp.broadcast_to(deadline, (*batch, deadline.shape[-1]))
    if numbered is not None:
        numbered = net.ops.array(net, np.broadcast_to(numbered, (*batch, trials)))
    observed = replace(observed, deadline=deadline, missing=rule, conditions=numbered, condition_count=count)
    return observed if encoded is not None else replace(observed, groups=_with_less_padding(net, observed))


def _with_less_padding(net: NetworkLike, observed: ObservedTrials) -> list[LengthGroup] | EndToEnd | None:
    """`ObservedTrials.groups`; what is missing is scored apart, without."""
    if observed.sequence is not None and net.schema.ordered and observed.missing is None:
        return lay_end_to_end(net, observed.sequence, observed.trial_mask)
    if observed.prepared is None:
        return None
    seen = {"inputs": observed.inputs, "outcomes": observed.outcomes, "feedback": observed.feedback}
    return group_by_length(net, seen, observed.trial_mask)


def _observed(settings: Own, arrays: Own) -> ObservedTrials:
    """Checked trials as `ObservedTrials`, but for their groups."""
    (net, likelihood, all_given, batch, trials, rule), (given, value, mask, legal, context, distinct) = settings, arrays
    xp, layout = net.ops.xp, BatchLayout(net.ops.xp, batch, [batch])
    outcomes = arrange_outcomes(net, value, mask)
    exists = all_exist(net, trials, len(batch)) if mask is None else mask
    groups = {**given, "outcomes": outcomes}
    if missing := gaps(xp, net.schema, rule, split_value(net.schema, value), given["feedback"]):
        groups |= {**missing, "feedback": known_feedback(xp, net.schema, given["feedback"])}
    folded, valid = layout.fold_trials(groups, exists)
    valid = pass_over(folded, valid)
    read = _what_is_read(net, layout, folded, valid, context, likelihood, all_given, distinct)

    def broadcast(values: Named) -> Named:
        return {name: xp.broadcast_to(x, (*batch, trials)) for name, x in values.items()}

    value = net.ops.copy(xp.broadcast_to(value, (*batch, trials, *net.schema.event_shape_tail)))
    return ObservedTrials(
        inputs=broadcast(given["inputs"]),
        value=value,
        feedback=broadcast(given["feedback"]),
        trial_mask=xp.broadcast_to(exists, (*batch, trials)),
        context=context,
        outcomes=broadcast(outcomes),
        legal=None if legal is None else xp.broadcast_to(legal, (*batch, trials)),
        **{name: map_leaves(lambda x: x.reshape((*batch, *x.shape[1:])), tree) for name, tree in read.items()},
        snapshot=net.ops.copy(value),
        # One program serves several networks, whose names it does not know.
        digest="",
    )


def _what_is_read(
    net: NetworkLike,
    layout: BatchLayout,
    trials: dict[str, Named],
    valid: Array,
    context: EncodedContext | None,
    likelihood: str,
    all_given: bool,
    distinct: DistinctInputs | None,
) -> dict[str, Own]:
    """`ObservedTrials.prepared`, `alone` and `sequence` of trials (B, r, K), each (B, ...) or None."""
    backend, inputs, index = backend_of(net), trials["inputs"], None
    if distinct is not None:
        inputs, index = net.ops.number_each(net, distinct.inputs), net.ops.array(net, distinct.index)
    if likelihood == "direct":
        if not net.schema.ordered:
            sequence = backend.prepare_alone(net, inputs, valid, index)
            if distinct is not None and distinct.condition is not None:
                sequence = replace(sequence, condition=net.ops.array(net, distinct.condition))
        else:
            sequence = backend.prepare_sequence(net, trials, valid)
        return {"prepared": None, "alone": None, "sequence": sequence}
    cache = backend.Cache() if context is None else layout.fold_shared(context.cache, context.batch_shape)
    alone, independent = None, net.schema.independent
    prepared = None if all_given and independent else backend.prepare_joint(net, cache, trials, valid)
    if distinct is not None:
        count = max([1, *(x.shape[-1] for x in inputs.values())])
        alone = replace(backend.prepare_marginal(net, cache, inputs, valid[..., :count]), index=index)
    elif independent:
        alone = backend.prepare_marginal(net, cache, inputs, valid)
    return {"prepared": prepared, "alone": alone, "sequence": None}
