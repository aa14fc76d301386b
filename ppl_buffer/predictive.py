"""The joint predictive distribution of a set of trials, as both probabilistic programming languages share it.

Shapes, checks and the ways of combining the backend's functions are here, once. Nothing here imports torch or jax.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ppl_buffer.network.arguments import as_floating, as_mask, check_legal, check_names, check_trial_arrays
from ppl_buffer.network.backend import Backend, backend_of
from ppl_buffer.network.layout import Array, BatchLayout, Named, map_leaves, pad_dims, pad_last
from ppl_buffer.network.observed import (
    EncodedContext,
    LengthGroup,
    ObservedTrials,
    broadcast_shape,
    encode_context,
    require_feedback,
    warn_longer,
)
from ppl_buffer.schema import split_value, stack_value

# Orders that are evaluated at once: enough to keep a processor busy, few enough to fit its memory.
_ORDERS_AT_ONCE = 16

_OUTSIDE = ("warn", "error", "-inf", "ignore")

_SAMPLING = ("rollout", "speculative")

# Trials that a speculative rollout tests in one pass: see `docs/design.md`.
LOOKAHEAD = 64


@dataclass
class Speculation:
    """Draws of a speculative rollout, and how many drafts it could keep. Made by `JointPredictive.speculate`.

    Attributes:
        value: (*sample, *batch, *event).
        feedback: dict name -> (*sample, *batch, K), what the environment gave.
        log_probs: (*sample, *batch, K), log densities that the trials were drawn from; they sum to `log_prob`.
        accepted: (*sample, *batch, K) bool, whether a trial's draft stayed in the test that settled it.
        settled: (*sample, *batch, K), which test that was, counted from 1; 0 where there is no trial, or the first
            draft needed no test.
    """

    value: Array
    feedback: Named
    log_probs: Array
    accepted: Array
    settled: Array

    @property
    def acceptance_rate(self) -> float:
        """Share of the tested trials whose draft stayed; 1 where nothing had to be tested."""
        tested = np.asarray(self.settled) > 0
        return float(np.asarray(self.accepted)[tested].mean()) if tested.any() else 1.0

    @property
    def passes(self) -> int:
        """Passes that tested drafts, for all draws together; one more made the first drafts."""
        return int(np.asarray(self.settled).max(initial=0))


def check_sampling(method: Any) -> None:
    """Refuse an unknown way of drawing values."""
    if method not in _SAMPLING:
        raise ValueError(f"method: expected one of {list(_SAMPLING)}, got {method!r}")


def permutations(orders: int | Any, trials: int) -> np.ndarray:
    """Orders of the trials: (R, K). A number gives the natural order and R - 1 fixed random ones.

    Raises:
        ValueError: if a number is below 1, or an array does not hold permutations of the trials.
    """
    if isinstance(orders, (int, np.integer)) and not isinstance(orders, bool):
        if orders < 1:
            raise ValueError(f"orders: expected at least 1, got {orders}")
        rng = np.random.default_rng(0)
        return np.stack([np.arange(trials), *(rng.permutation(trials) for _ in range(orders - 1))])
    array = np.asarray(orders)
    if array.ndim != 2 or array.shape[1] != trials or not (np.sort(array, 1) == np.arange(trials)).all():
        raise ValueError(f"orders: expected a number, or permutations of 0..{trials - 1} in rows, got {orders!r}")
    return array.astype(int)


def _put_trials(
    layout: BatchLayout, groups: Mapping[str, Named], mask: Array, replicate: bool = False
) -> tuple[dict[str, Named], Array]:
    """Trials and which of them exist as (B, r, K), r the same for all."""
    keys = {(group, name): f"{group}.{name}" for group, values in groups.items() for name in values}
    flat = {key: groups[group][name] for (group, name), key in keys.items()}
    placed = layout.fold({**flat, "mask": mask}, 1, replicate)
    trials: dict[str, Named] = {group: {} for group in groups}
    for (group, name), key in keys.items():
        trials[group][name] = placed[key]
    return trials, placed["mask"]


class Predictive:
    """Joint predictive distribution of K trials, without the clothes of a probabilistic programming language.

    The arguments are those of `JointPredictive`. Arrays that a subclass has to carry through its language's
    transformations are in the attributes named in `data_fields`, each with `batch_ndim` batch dimensions.
    """

    data_fields = ("inputs", "params", "context", "feedback", "trial_mask", "lapse", "observed", "history")
    static_fields = ("net", "trials", "orders", "block", "environment", "outside")

    net: Any
    trials: int
    inputs: Named
    params: Named
    context: EncodedContext | None
    feedback: Named | None
    trial_mask: Array | None
    lapse: Array | None
    observed: ObservedTrials | None
    history: dict[str, Any] | None
    orders: tuple[tuple[int, ...], ...] | None
    block: int | None
    environment: Callable[..., Any] | None
    outside: str
    # The array that observed data were given as, while `observed` holds it with more batch dimensions.
    _observed_value: Array | None = None
    # Whether the value is the observed one, where that was found out before tracing hid it.
    _known: bool | None = None

    def __init__(self, net: Any, inputs: Any, **arguments: Any) -> None:
        self.batch_shape = self.set_up(net, inputs, **arguments)

    def set_up(
        self,
        net: Any,
        inputs: Mapping[str, Any] | ObservedTrials,
        *,
        trials: int | None = None,
        params: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | EncodedContext | None = None,
        feedback: Mapping[str, Any] | None = None,
        trial_mask: Any = None,
        orders: Any = None,
        block: int | None = None,
        environment: Callable[..., Any] | None = None,
        lapse: Any = None,
        outside: str = "warn",
        history: dict[str, Any] | None = None,
        check: bool = True,
    ) -> tuple[int, ...]:
        """Check the arguments, set the attributes, and return the batch shape."""
        joint = backend_of(net)
        schema = net.schema
        self.net = net
        self.observed = inputs if isinstance(inputs, ObservedTrials) else None
        if isinstance(inputs, ObservedTrials):
            for argument, given in (("feedback", feedback), ("trial_mask", trial_mask), ("context", context)):
                if given is not None:
                    raise ValueError(f"{argument}: expected none beside observed data; give it to observe instead")
            if trials is not None and trials != inputs.trials:
                raise ValueError(f"trials: expected {inputs.trials}, as many as were observed, got {trials}")
            self.inputs, self.feedback, self.trials = inputs.inputs, inputs.feedback, inputs.trials
            self.trial_mask, self.context = inputs.trial_mask, inputs.context
        else:
            self.trials = self._count_trials(inputs, trials)
            self.trial_mask = None if trial_mask is None else as_mask(joint, net, "trial_mask", trial_mask, self.trials)
            mask = self.trial_mask
            self.inputs = check_trial_arrays(joint, net, "inputs", inputs, schema.inputs, self.trials, mask)
            self.feedback = None
            if feedback is not None:
                self.feedback = check_trial_arrays(joint, net, "feedback", feedback, schema.feedback, self.trials, mask)
            self.context = None if context is None else encode_context(net, context)
        self.history = history
        past = 0 if history is None else history["mask"].shape[-1]
        warn_longer(net, "trials", self.trials + past, "trials")
        self.params = self._check_params({} if params is None else params, check)
        self.lapse = None
        if lapse is not None:
            schema.require_lapse("lapse")
            self.lapse = as_floating(joint, net, "lapse", lapse)
            numbers = joint.ops.to_concrete(self.lapse)
            if numbers is not None and not ((numbers >= 0) & (numbers <= 1)).all():
                raise ValueError(f"lapse: expected a probability, got {numbers!s}")
        self.orders = self._check_orders(orders)
        self.block = self._check_block(block)
        if environment is not None and not callable(environment):
            raise ValueError(f"environment: expected a function, got {type(environment).__name__}")
        self.environment = environment
        if outside not in _OUTSIDE:
            raise ValueError(f"outside: expected one of {list(_OUTSIDE)}, got {outside!r}")
        self.outside = outside
        if check:
            self._check_box()
        return self._promote()

    def _count_trials(self, inputs: Mapping[str, Any], trials: int | None) -> int:
        schema = self.net.schema
        check_names("inputs", inputs, schema.inputs)
        if trials is None:
            if not inputs:
                raise ValueError("trials: expected a number, since the schema has no inputs to tell it; got None")
            first = next(iter(inputs.values()))
            shape = np.shape(first) if not hasattr(first, "shape") else tuple(first.shape)
            trials = shape[-1] if shape else None
        if trials is None or isinstance(trials, bool) or not isinstance(trials, (int, np.integer)) or trials < 1:
            raise ValueError(f"trials: expected at least 1 trial, got {trials!r}")
        return int(trials)

    def _check_params(self, params: Mapping[str, Any], check: bool) -> Named:
        joint, schema = backend_of(self.net), self.net.schema
        check_names("params", params, schema.params, subset=True)
        arrays = {}
        for name in schema.params:
            if name in params:
                arrays[name] = as_floating(joint, self.net, f"params[{name!r}]", params[name])
                if check:
                    check_legal(joint, f"params[{name!r}]", schema.params[name], arrays[name])
        return arrays

    def _check_orders(self, orders: Any) -> tuple[tuple[int, ...], ...] | None:
        if orders is None:
            return None
        if self.net.schema.ordered:
            raise ValueError("orders: expected none for an ordered model, whose trials have one order")
        return tuple(map(tuple, permutations(orders, self.trials).tolist()))

    def _check_block(self, block: Any) -> int | None:
        if block is None:
            return None
        if self.net.schema.ordered:
            raise ValueError("block: expected none for an ordered model, whose past belongs in the buffer")
        if isinstance(block, bool) or not isinstance(block, (int, np.integer)) or block < 1:
            raise ValueError(f"block: expected a number of trials of at least 1, got {block!r}")
        return int(block)

    def _check_box(self) -> None:
        if self.outside not in ("warn", "error"):
            return
        joint = backend_of(self.net)
        for name, value, (low, high) in self._trained_ranges():
            numbers = joint.ops.to_concrete(value)
            if numbers is None:
                continue
            share = float(np.mean((numbers < low) | (numbers > high)))
            if share:
                message = (
                    f"params[{name!r}]: {share:.0%} of the values lie outside [{low:g}, {high:g}], where the network "
                    f"was trained; its likelihood there is an extrapolation. Use a prior inside the range "
                    f"(net.prior()), or train on a wider one"
                )
                if self.outside == "error":
                    raise ValueError(message)
                warnings.warn(message, stacklevel=4)

    def _trained_ranges(self) -> Iterator[tuple[str, Array, tuple[float, float]]]:
        """Name, value and trained range of each parameter, and of the differences whose range the priors state."""
        record = self.net.record
        if record is None:
            return
        for name, value in self.params.items():
            if name in record.box:
                yield name, value, record.box[name]
            prior = record.priors.get(name)
            origin = None if prior is None else prior.relative_to
            if prior is not None and origin in self.params and "low" in prior.arguments:
                yield f"{name} - {origin}", value - self.params[origin], prior.range()

    # Batch dimensions -----------------------------------------------------------------------------------------

    def _leaves(self) -> list[tuple[str, Any, int]]:
        """Name, value and number of trailing dimensions of the data that are plain arrays or dicts of arrays."""
        leaves: list[tuple[str, Any, int]] = [("inputs", self.inputs, 1), ("params", self.params, 0)]
        for name, trailing in (("feedback", 1), ("trial_mask", 1), ("lapse", 0)):
            if getattr(self, name) is not None:
                leaves.append((name, getattr(self, name), trailing))
        return leaves

    def _batch_shapes(self) -> dict[str, tuple[int, ...]]:
        """Batch shape of each argument."""
        shapes = {}
        for name, value, trailing in self._leaves():
            named = {f"{name}[{key!r}]": x for key, x in value.items()} if isinstance(value, Mapping) else {name: value}
            shapes.update({key: tuple(array.shape[: array.ndim - trailing]) for key, array in named.items()})
        for name in ("context", "observed"):
            holder = getattr(self, name)
            if holder is not None:
                shapes[name] = holder.batch_shape
        if self.history is not None:
            shapes["history"] = tuple(self.history["mask"].shape[:-1])
        return shapes

    def _promote(self) -> tuple[int, ...]:
        """Give all data the same number of batch dimensions, of size 1 where they were missing."""
        shapes = self._batch_shapes()
        try:
            batch = tuple(np.broadcast_shapes(*shapes.values()))
        except ValueError:
            found = ", ".join(f"{name} has {shape}" for name, shape in shapes.items())
            raise ValueError(f"arguments: expected batch dimensions that broadcast, but {found}") from None
        self.pad_batch(len(batch))
        return batch

    def pad_batch(self, ndim: int) -> None:
        """Insert leading batch dimensions of size 1 into all data, up to `ndim` of them."""
        for name, value, trailing in self._leaves():
            if isinstance(value, Mapping):
                setattr(self, name, {key: pad_dims(array, ndim, trailing) for key, array in value.items()})
            else:
                setattr(self, name, pad_dims(value, ndim, trailing))
        for name in ("context", "observed"):
            holder = getattr(self, name)
            if holder is not None and len(holder.batch_shape) < ndim:
                missing = ndim - len(holder.batch_shape)
                groups = getattr(holder, "groups", None)
                plain = holder if groups is None else replace(holder, groups=None)

                def pad(x: Array, missing: int = missing) -> Array:
                    return x.reshape((1,) * missing + tuple(x.shape))

                padded = map_leaves(pad, plain)
                if isinstance(holder, ObservedTrials):
                    padded = replace(padded, groups=groups)
                    # A reshaped array is another array: keep the one that a model passes as `obs=`.
                    self._observed_value = holder.value
                setattr(self, name, padded)
        if self.history is not None:
            self.history = map_leaves(lambda x: pad_dims(x, ndim, 1), self.history)

    def data_batch_shape(self) -> tuple[int, ...]:
        """Batch shape that the data have now: a language may have stacked or sliced them."""
        return broadcast_shape([(), *self._batch_shapes().values()], "batch")

    def check_value_shape(self, value: Array) -> None:
        """Refuse a value whose trailing dimensions are not the event shape."""
        event = (self.trials, *self.net.schema.event_shape_tail)
        if tuple(value.shape[value.ndim - len(event) :]) != event or value.ndim < len(event):
            raise ValueError(f"value: expected shape (*sample, *batch, *{event}), got {tuple(value.shape)}")

    # Arrangement ----------------------------------------------------------------------------------------------

    def _arrangement(self, lead: tuple[int, ...], orders: int = 0, observed: bool = False) -> BatchLayout:
        """Arrange leading dimensions `lead`, the first `orders` of which number orders of the trials."""
        holders: list[tuple[int, ...]] = []
        if observed and self.observed is not None:
            holders.append(self.observed.batch_shape)
        elif self.context is not None:
            holders.append(self.context.batch_shape)
        elif self.history is not None:
            holders.append(tuple(self.history["mask"].shape[:-1]))
        else:
            for name, value, trailing in self._leaves():
                if name in ("inputs", "feedback", "trial_mask"):
                    for array in value.values() if isinstance(value, Mapping) else [value]:
                        shape = tuple(array.shape[: array.ndim - trailing])
                        holders.append(shape[orders:] if len(shape) == len(lead) else shape)
        shared = [(1,) * (len(lead) - len(shape)) + shape for shape in holders]
        return BatchLayout(backend_of(self.net), lead, shared)

    def arrange_trials(
        self, layout: BatchLayout, value: Array | None, replicate: bool = False
    ) -> tuple[dict[str, Named], Array]:
        """Inputs, outcomes and feedback as (B, r, K), and which trials exist; r is the same for all of them."""
        joint, schema = backend_of(self.net), self.net.schema
        columns = {} if value is None else split_value(schema, value)
        outcomes: Named = {}
        for name, column in columns.items():
            number = joint.ops.number(self.net, column)
            usable = schema.outcomes[name].contains(joint.ops.xp, number)
            if self.trial_mask is not None:
                # What stands where there is no trial may be legal and still too large: 0 times infinity is no number.
                usable = usable & self.trial_mask
            outcomes[name] = joint.ops.xp.where(usable, number, schema.outcomes[name].fill)
        depth = len(layout.lead)
        mask = self.trial_mask
        if mask is None:
            mask = pad_dims(self._all_exist(), depth, 1)
        groups = {"inputs": self.inputs, "outcomes": outcomes, "feedback": self.feedback or {}}
        return _put_trials(layout, groups, mask, replicate)

    def _all_exist(self) -> Array:
        joint = backend_of(self.net)
        return joint.ops.number(self.net, np.ones(self.trials)) > 0

    def arrange_context(self, layout: BatchLayout) -> Any:
        """What the encoded context and the history let predictions read."""
        joint = backend_of(self.net)
        if self.context is not None:
            return layout.fold_shared(self.context.cache, len(self.context.batch_shape))
        if self.history is not None:
            trials, valid = _put_trials(layout, self.history["trials"], self.history["mask"])
            return joint.start_cache(self.net, None, None, trials, valid)
        return joint.Cache()

    def _arrange_params(self, layout: BatchLayout) -> tuple[Any, Array | None]:
        joint = backend_of(self.net)
        params = {name: joint.ops.number(self.net, value) for name, value in self.params.items()}
        encoded = joint.encode_params(self.net, layout.fold(params, 0))
        lapse = None
        if self.lapse is not None:
            lapse = layout.fold({"lapse": joint.ops.number(self.net, self.lapse)}, 0)["lapse"][..., None]
        return encoded, lapse

    @property
    def independent(self) -> bool:
        """Whether all parameters are told of a model whose trials are then independent: no buffer is needed."""
        return self.net.schema.independent and len(self.params) == len(self.net.schema.params)

    def _permuted(self, orders: np.ndarray, lead: tuple[int, ...]) -> Predictive:
        """The same with its trials reordered: `orders` broadcasts against (*lead, K)."""
        joint = backend_of(self.net)
        other = object.__new__(Predictive)
        for name in (*self.data_fields, *self.static_fields):
            setattr(other, name, getattr(self, name))
        other.observed = other.orders = None

        def permute(array: Array) -> Array:
            return joint.ops.take_along(pad_dims(array, len(lead), 1), orders, -1)

        other.inputs = {name: permute(value) for name, value in self.inputs.items()}
        other.feedback = None if self.feedback is None else {k: permute(v) for k, v in self.feedback.items()}
        other.trial_mask = None if self.trial_mask is None else permute(self.trial_mask)
        return other

    def padded(self, trials: int) -> Any:
        """The same with more trials, which do not exist."""
        joint, schema = backend_of(self.net), self.net.schema
        missing = trials - self.trials
        other = copy.copy(self)
        other.trials, other.observed = trials, None

        def pad(array: Array, fill: Any) -> Array:
            return pad_last(joint.ops.xp, array, missing, fill)

        other.inputs = {name: pad(x, schema.inputs[name].fill) for name, x in self.inputs.items()}
        if self.feedback is not None:
            other.feedback = {name: pad(x, schema.feedback[name].fill) for name, x in self.feedback.items()}
        mask = self.trial_mask if self.trial_mask is not None else pad_dims(self._all_exist(), len(self.batch_shape), 1)
        other.trial_mask = pad(mask, False)
        if self.orders is not None:
            rest = tuple(range(self.trials, trials))
            other.orders = tuple((*order, *rest) for order in self.orders)
        return other

    # Densities ------------------------------------------------------------------------------------------------

    def _legal(self, value: Array) -> Array:
        """Which trials (..., K) hold legal outcomes, or do not exist."""
        joint, schema = backend_of(self.net), self.net.schema
        legal = None
        for name, column in split_value(schema, value).items():
            contains = schema.outcomes[name].contains(joint.ops.xp, column)
            legal = contains if legal is None else legal & contains
        return legal if self.trial_mask is None else legal | ~self.trial_mask

    def _cast(self, result: Array, value: Array) -> Array:
        joint = backend_of(self.net)
        for like in (*self.params.values(), *(() if self.lapse is None else (self.lapse,)), value):
            if str(like.dtype).endswith("64"):
                return joint.ops.cast(result, like)
        return result

    def _evaluate(self, value: Array, evaluate: Callable[..., Array], orders: int = 0) -> Array:
        """Arrange everything for `value`, let `evaluate` compute (B, R, K, ...), and bring it back to (*lead, K, ...).

        `evaluate` takes the arrangement, the trials, which of them exist, parameter segments, lapse, and whether the
        value is the one that was observed.
        """
        tail = len(self.net.schema.event_shape_tail)
        lead = broadcast_shape([value.shape[: value.ndim - 1 - tail], self.data_batch_shape()], "value")
        observed = self._is_observed(value)
        layout = self._arrangement(lead, orders, observed)
        trials, valid = self.arrange_trials(layout, value)
        segments, lapse = self._arrange_params(layout)
        return layout.unfold(evaluate(layout, trials, valid, segments, lapse, observed))

    def _is_observed(self, value: Array) -> bool:
        if self._known is not None:
            return self._known
        if self.observed is None or self.block is not None or self.orders is not None:
            return False
        joint = backend_of(self.net)
        known = self._observed_value if self._observed_value is not None else self.observed.value
        return joint.ops.same(value, known, self.observed.snapshot)

    def _grouped(self, layout: BatchLayout) -> bool:
        """Whether the data sets that were observed in groups are the ones that are now arranged."""
        if self.observed is None or not self.observed.groups:
            return False
        groups = self.observed.groups
        # A transformation of the language may have stacked the arrays, or batch dimensions been added.
        return all(group.members.ndim == 1 for group in groups) and layout.batch == sum(
            group.members.shape[0] for group in groups
        )

    def _group_conditionals(self, outcomes: Named, valid: Array, segments: Any, lapse: Array | None) -> Array:
        assert self.observed is not None and self.observed.groups is not None
        joint = backend_of(self.net)
        results = []
        for group in self.observed.groups:
            length = group.prepared.tokens.shape[2]

            def take(x: Array, group: LengthGroup = group) -> Array:
                # What all data sets have in common has one row.
                return x if x.shape[0] == 1 else x[group.members]

            mine = map_leaves(take, (outcomes, valid, segments, lapse))
            scored = {name: x[..., :length] for name, x in mine[0].items()}
            prepared = joint.ops.no_constant_folding(group.prepared)
            part = joint.conditionals(self.net, prepared, mine[2], scored, mine[1][..., :length], mine[3])
            results.append(joint.ops.pad_trials(part, self.trials))
        members = joint.ops.xp.concatenate([group.members for group in self.observed.groups], 0)
        return joint.ops.xp.concatenate(results, 0)[joint.ops.xp.argsort(members)]

    def _targets(
        self, layout: BatchLayout, trials: dict[str, Named], valid: Array, observed: bool, alone: bool = False
    ) -> Any:
        """Targets that see the trials before them, or with `alone` an empty buffer."""
        joint = backend_of(self.net)
        alone = alone or self.independent
        if observed and self.observed is not None:
            ready = self.observed.alone if alone else self.observed.prepared
            if ready is not None:
                return joint.ops.no_constant_folding(layout.fold_shared(ready, len(self.observed.batch_shape)))
        cache = self.arrange_context(layout)
        if alone:
            return joint.prepare_marginal(self.net, cache, trials["inputs"], valid)
        require_feedback(self.net, self.feedback, "compute a density")
        return joint.prepare_joint(self.net, cache, trials, valid)

    def _raw_context(self, layout: BatchLayout) -> tuple[Any, Any]:
        """The context's trials as (B, r, N), for whoever encodes them anew."""
        if self.context is None:
            return None, None
        return _put_trials(layout, self.context.trials, self.context.mask)

    def conditionals(self, value: Array, orders: int = 0) -> Array:
        """Log density of each trial given the trials before it: (*sample, *batch, K).

        They sum to `log_prob`; a trial that does not exist contributes 0.

        Raises:
            ValueError: if the distribution averages over `orders`, or feedback is missing.
        """
        joint = backend_of(self.net)
        if self.orders is not None:
            raise ValueError("orders: expected None for conditionals, which follow one order of the trials")
        self.check_value_shape(value)

        def evaluate(layout: Any, trials: Any, valid: Any, segments: Any, lapse: Any, observed: bool) -> Any:
            if self.block is not None and not self.independent:
                require_feedback(self.net, self.feedback, "compute a density")
                context, exists = self._raw_context(layout)
                return joint.block_conditionals(
                    self.net, context, exists, trials, valid, segments, lapse, min(self.block, self.trials)
                )
            if observed and not self.independent and self._grouped(layout):
                return self._group_conditionals(trials["outcomes"], valid, segments, lapse)
            targets = self._targets(layout, trials, valid, observed)
            return joint.conditionals(self.net, targets, segments, trials["outcomes"], valid, lapse)

        result = self._cast(self._evaluate(value, evaluate, orders), value)
        return joint.ops.xp.where(self._legal(value), result, -float("inf"))

    def one_step_ahead(self, value: Array, noise: Array) -> tuple[Array, Array]:
        """`conditionals`, and a draw of each trial given the trials before it as they are in `value`, in one pass.

        Args:
            value: (*sample, *batch, *event).
            noise: uniform numbers in (0, 1), (*sample, *batch, K, schema.noise_size).

        Returns:
            log densities (*sample, *batch, K) and draws (*sample, *batch, *event).

        Raises:
            ValueError: if the distribution has `orders` or a `block`, or feedback is missing.
        """
        joint = backend_of(self.net)
        if self.orders is not None or self.block is not None:
            raise ValueError("orders, block: expected None for one_step_ahead, which follows one order of the trials")
        self.check_value_shape(value)
        noise = joint.ops.number(self.net, noise)

        def evaluate(layout: Any, trials: Any, valid: Any, segments: Any, lapse: Any, observed: bool) -> Any:
            targets = self._targets(layout, trials, valid, observed)
            places = layout.fold({"noise": noise}, 2, replicate=True)["noise"]
            return joint.one_step(self.net, targets, segments, trials["outcomes"], valid, lapse, places)

        result = self._evaluate(value, evaluate)
        log_probs = joint.ops.xp.where(self._legal(value), result[..., 0], -float("inf"))
        return log_probs, result[..., 1:] if self.net.schema.event_shape_tail else result[..., 1]

    def joint_log_prob(self, value: Array) -> Array:
        """Log density of all trials together, averaged over `orders` where given: (*sample, *batch)."""
        joint = backend_of(self.net)
        if self.orders is None:
            total = self.conditionals(value).sum(-1)
        else:
            total = joint.ops.log_mean_exp(joint.ops.xp.concatenate(self._by_orders(value), 0), 0)
        if self.outside == "-inf":
            for _, param, (low, high) in self._trained_ranges():
                total = joint.ops.xp.where((param >= low) & (param <= high), total, -float("inf"))
        return total

    def _by_orders(self, value: Array) -> list[Array]:
        """Log densities of all trials together under each order, in chunks (orders, *sample, *batch)."""
        joint = backend_of(self.net)
        self.check_value_shape(value)
        tail = len(self.net.schema.event_shape_tail)
        lead = broadcast_shape([value.shape[: value.ndim - 1 - tail], self.data_batch_shape()], "value")
        orders = np.asarray(self.orders).reshape((-1, *(1,) * len(lead), self.trials))
        chunks = []
        for start in range(0, len(orders), _ORDERS_AT_ONCE):
            chunk = orders[start : start + _ORDERS_AT_ONCE]
            permuted = self._permuted(chunk, (len(chunk), *lead))
            padded = pad_dims(value, len(lead) + 1, 1 + tail)
            value_chunk = joint.ops.take_along(padded, chunk[..., None] if tail else chunk, -1 - tail)
            chunks.append(permuted.conditionals(value_chunk, orders=1).sum(-1))
        return chunks

    def log_prob_by_order(self, value: Array) -> Array:
        """Log density of all trials together under each of `orders`: (orders, *sample, *batch)."""
        if self.orders is None:
            raise ValueError("orders: expected a number or permutations when the distribution was made, got None")
        return backend_of(self.net).ops.xp.concatenate(self._by_orders(value), 0)

    def marginals(self, value: Array) -> Array:
        """Log density of each trial alone, with an empty buffer: (*sample, *batch, K)."""
        joint = backend_of(self.net)
        self.check_value_shape(value)

        def evaluate(layout: Any, trials: Any, valid: Any, segments: Any, lapse: Any, observed: bool) -> Any:
            targets = self._targets(layout, trials, valid, False, alone=True)
            return joint.conditionals(self.net, targets, segments, trials["outcomes"], valid, lapse)

        result = self._cast(self._evaluate(value, evaluate), value)
        return joint.ops.xp.where(self._legal(value), result, -float("inf"))

    def leave_one_out(self, value: Array) -> Array:
        """Log density of each trial given the context and all other trials: (*sample, *batch, K).

        Raises:
            ValueError: if the model is ordered: a trial's future is no context.
        """
        joint = backend_of(self.net)
        if self.net.schema.ordered:
            raise ValueError("leave_one_out: expected an exchangeable model; an ordered one has no set of other trials")
        self.check_value_shape(value)
        if self.independent:
            return self.marginals(value)
        require_feedback(self.net, self.feedback, "compute a density")

        def evaluate(layout: Any, trials: Any, valid: Any, segments: Any, lapse: Any, observed: bool) -> Any:
            context, exists = self._raw_context(layout)
            return joint.leave_one_out(self.net, context, exists, trials, valid, segments, lapse)

        result = self._cast(self._evaluate(value, evaluate), value)
        return joint.ops.xp.where(self._legal(value), result, -float("inf"))

    def cdf_values(self, value: Array, uniform: Array) -> Array:
        """Distribution function of each outcome given all that came before it: (*sample, *batch, K[, n_outcomes]).

        `uniform` (*sample, *batch, K, n_outcomes) places a category inside its step.
        """
        joint = backend_of(self.net)
        if self.orders is not None or self.block is not None:
            raise ValueError("orders, block: expected None for pit, which follows one order of the trials")
        self.check_value_shape(value)

        def evaluate(layout: Any, trials: Any, valid: Any, segments: Any, lapse: Any, observed: bool) -> Any:
            targets = self._targets(layout, trials, valid, observed)
            places = layout.fold({"uniform": uniform}, 2, replicate=True)["uniform"]
            return joint.cdf(self.net, targets, segments, trials["outcomes"], places, lapse)

        result = self._evaluate(value, evaluate)
        return result if self.net.schema.event_shape_tail else result[..., 0]

    def marginal_moments(self) -> tuple[Array, Array]:
        """Mean and variance of each outcome alone, with an empty buffer: (*batch, *event) each."""
        joint = backend_of(self.net)
        layout = self._arrangement(self.data_batch_shape())
        trials, valid = self.arrange_trials(layout, None)
        segments, lapse = self._arrange_params(layout)
        targets = self._targets(layout, trials, valid, False, alone=True)
        mean, variance = (layout.unfold(x) for x in joint.moments(self.net, targets, segments, lapse))
        return (mean, variance) if self.net.schema.event_shape_tail else (mean[..., 0], variance[..., 0])

    # Draws ----------------------------------------------------------------------------------------------------

    def noise_shape(self, sample_shape: Sequence[int] = ()) -> tuple[int, ...]:
        """Shape of the uniform numbers that `rollout` takes."""
        # Where each draw follows a random order, one more row of numbers picks it.
        rows = self.trials + (self.orders is not None)
        batch = broadcast_shape([self.batch_shape, self.data_batch_shape()], "batch")
        return (*sample_shape, *batch, rows, self.net.schema.noise_size)

    def rollout(self, noise: Array) -> tuple[Array, Named, Array]:
        """Draw the trials one after another from uniform numbers in (0, 1) of shape `noise_shape(sample_shape)`.

        The same numbers give the same draw in both backends.

        Returns:
            the value (*sample, *batch, *event), feedback name -> (*sample, *batch, K), and the log densities
            (*sample, *batch, K) that the trials were drawn from.

        Raises:
            ValueError: if the schema has feedback and no environment supplies it.
        """
        return self._draw(noise, backend_of(self.net).rollout)

    def speculative_rollout(
        self, noise: Array, source: Any, lookahead: int = LOOKAHEAD
    ) -> tuple[Array, Named, Array, Array, Array]:
        """Draw values of the same distribution as `rollout` does, many trials in one pass.

        Later trials are drafted before earlier ones are known, then tested and redrawn where the test says so; the
        backend's module `speculative` says how, and why the distribution is the rollout's. It gains where a pass over
        many trials costs little more than one over a single trial: few draws, in torch above all. Compiled by JAX for a
        CPU it gains for one draw from a large context alone. An environment is asked about drafts too, so that it must
        answer from its arguments and from nothing else.

        Args:
            noise: uniform numbers in (0, 1) of shape `noise_shape(sample_shape)`.
            source: a key (JAX) or a generator or None (torch) of the random numbers of tests and redraws.
            lookahead: number of trials that are tested in one pass.

        Returns:
            the fields of `Speculation`, in order.

        Raises:
            ValueError: if the distribution has a `block`: there, trials enter the context and nothing can be tested
                without encoding it anew; if `lookahead` is below 1; and as for `rollout`.
        """
        if self.block is not None:
            raise ValueError(
                f"block: expected None for a speculative rollout, got {self.block}: trials that enter the context "
                f"have to be encoded anew with all of it, which a test in one pass cannot do"
            )
        if isinstance(lookahead, bool) or not isinstance(lookahead, (int, np.integer)) or lookahead < 1:
            raise ValueError(f"lookahead: expected a number of trials of at least 1, got {lookahead!r}")
        speculative = backend_of(self.net).speculative_rollout
        return self._draw(noise, partial(speculative, source=source, lookahead=int(lookahead)))

    def _draw(self, noise: Array, rollout: Callable[..., Any]) -> tuple[Any, ...]:
        """Arrange everything for the backend's `rollout`, and bring back what it draws: see there."""
        joint, schema = backend_of(self.net), self.net.schema
        if schema.feedback and self.environment is None and not self.independent:
            raise ValueError(
                f"environment: expected a function that gives {list(schema.feedback)} on a drawn outcome, since later "
                f"trials depend on it; got None"
            )
        noise = joint.ops.number(self.net, noise)
        if self.orders is not None:
            return self._draw_in_random_order(noise, rollout)
        lead = tuple(noise.shape[:-2])
        layout = self._arrangement(lead)
        trials, valid = self.arrange_trials(layout, None)
        segments, lapse = self._arrange_params(layout)
        uniform = layout.fold({"noise": noise}, 2, replicate=True)["noise"]
        if self.block is not None and not self.independent:
            context, exists = self._raw_context(layout)
            drawn = joint.block_rollout(
                self.net, context, exists, trials["inputs"], valid, segments, uniform, lapse, self.environment,
                min(self.block, self.trials),
            )  # fmt: skip
        else:
            cache = self.arrange_context(layout)
            drawn = rollout(
                self.net, cache, trials["inputs"], valid, segments, uniform, lapse, self.environment, self.independent
            )
        outcomes, feedback = ({name: layout.unfold(x) for name, x in group.items()} for group in drawn[:2])
        return stack_value(joint.ops.xp, schema, outcomes), feedback, *(layout.unfold(x) for x in drawn[2:])

    def _draw_in_random_order(self, noise: Array, rollout: Callable[..., Any]) -> tuple[Any, ...]:
        """Each draw follows one of `orders`, so that draws have the order-averaged density."""
        joint, schema = backend_of(self.net), self.net.schema
        lead = tuple(noise.shape[:-2])
        orders = np.asarray(self.orders)
        index = joint.ops.xp.floor(noise[..., self.trials, 0] * len(orders))
        order = joint.ops.pick_rows(orders, index)
        value, feedback, *by_trial = self._permuted(order, lead)._draw(noise[..., : self.trials, :], rollout)
        back = joint.ops.xp.argsort(order, -1)
        tail = len(schema.event_shape_tail)
        value = joint.ops.take_along(value, back[..., None] if tail else back, -1 - tail)
        feedback = {name: joint.ops.take_along(x, back, -1) for name, x in feedback.items()}
        return value, feedback, *(joint.ops.take_along(x, back, -1) for x in by_trial)

    def conditioned(self, value: Array) -> tuple[Named, dict[str, Any]]:
        """Arguments of the distribution of the trials that follow the first ones, whose outcomes are `value`.

        In an ordered model the first trials enter the buffer; in an exchangeable one they join the context.
        """
        joint, schema = backend_of(self.net), self.net.schema
        tail = len(schema.event_shape_tail)
        value = joint.ops.floating(self.net, value)
        first = value.shape[-1 - tail] if value.ndim > tail else 0
        columns = list(schema.outcomes)
        if not 1 <= first < self.trials or (tail and value.shape[-1] != len(columns)):
            raise ValueError(
                f"value: expected outcomes of the first 1 to {self.trials - 1} trials, shape (*batch, trials"
                f"{f', {len(columns)}' * tail}), got {tuple(value.shape)}"
            )
        require_feedback(self.net, self.feedback, "condition on trials")
        mask = None if self.trial_mask is None else self.trial_mask[..., :first]
        outcomes = {}
        for name, column in split_value(schema, value).items():
            argument = f"value[{name!r}]" if tail else "value"
            check_legal(joint, argument, schema.outcomes[name], column, mask)
            number = joint.ops.number(self.net, column)
            outcomes[name] = number if mask is None else joint.ops.xp.where(mask, number, schema.outcomes[name].fill)
        past = {
            "inputs": {name: x[..., :first] for name, x in self.inputs.items()},
            "outcomes": outcomes,
            "feedback": {name: x[..., :first] for name, x in (self.feedback or {}).items()},
        }
        if mask is None:
            mask = joint.ops.xp.ones_like(next(iter(outcomes.values()))) > 0
        arguments: dict[str, Any] = {
            "trials": self.trials - first,
            "params": self.params,
            "feedback": None if self.feedback is None else {k: x[..., first:] for k, x in self.feedback.items()},
            "trial_mask": None if self.trial_mask is None else self.trial_mask[..., first:],
            "orders": None if self.orders is None else len(self.orders),
            "block": self.block,
            "environment": self.environment,
            "lapse": self.lapse,
            "outside": self.outside,
        }
        if schema.ordered:
            before = self.history
            trials, exists = (None, None) if before is None else (before["trials"], before["mask"])
            arguments["history"] = _append_trials(joint, trials, exists, past, mask)
        else:
            known = self.context
            trials, exists = (None, None) if known is None else (known.trials, known.mask)
            joined = _append_trials(joint, trials, exists, past, mask)
            context = {name: x for group in joined["trials"].values() for name, x in group.items()}
            arguments["context"] = encode_context(self.net, context, joined["mask"])
        return {name: x[..., first:] for name, x in self.inputs.items()}, arguments


def _append_trials(
    joint: Backend, trials: dict[str, Named] | None, mask: Array | None, more: dict[str, Named], more_mask: Array
) -> dict[str, Any]:
    """Trials (*batch, N) and those that follow, with batch dimensions broadcast, and which of them exist."""
    shapes = [x.shape[:-1] for group in more.values() for x in group.values()] + [more_mask.shape[:-1]]
    if mask is not None:
        shapes.append(mask.shape[:-1])
    batch = broadcast_shape(shapes, "value")

    def append(before: Array | None, after: Array) -> Array:
        parts = [after] if before is None else [before, after]
        wide = [joint.ops.xp.broadcast_to(x, (*batch, x.shape[-1])) for x in parts]
        return joint.ops.xp.concatenate(wide, -1)

    joined = {
        group: {name: append(None if trials is None else trials[group][name], x) for name, x in values.items()}
        for group, values in more.items()
    }
    return {"trials": joined, "mask": append(mask, more_mask)}
