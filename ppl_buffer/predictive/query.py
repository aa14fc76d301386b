"""All that a joint predictive distribution is asked: the network and its arguments, checked once and then frozen."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from ppl_buffer.checks import check_choice, is_integer
from ppl_buffer.network.arguments import (
    all_exist,
    check_params,
    check_trial_params,
    check_value_shape,
    choose_likelihood,
    count_existing,
    require_buffer,
    require_given,
)
from ppl_buffer.network.backend import Array, Environment, Named, backend_of
from ppl_buffer.network.distinct import at_trials
from ppl_buffer.network.lapse_mixture import Ranges
from ppl_buffer.network.lapses import Lapse, check_lapse
from ppl_buffer.network.layout import broadcast_shape, common_batch_shape, map_leaves, pad_dims, pad_last
from ppl_buffer.network.missing import Missing, missing_of
from ppl_buffer.network.missing_rule import MissingRule, require_direct
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import EncodedContext, ObservedTrials, warn_longer
from ppl_buffer.network.trials import check_environment
from ppl_buffer.network.unfamiliar import warn_unfamiliar
from ppl_buffer.predictive.orders import permutations
from ppl_buffer.predictive.outside import check_batch, check_range
from ppl_buffer.predictive.trials import checked_data, observed_data

_OUTSIDE = ("warn", "error", "-inf", "ignore")
# Arguments that hold arrays, and the number of dimensions behind their batch dimensions.
_TRAILING = {
    "inputs": 1, "params": 0, "trial_params": 1, "condition_params": 1, "feedback": 1, "trial_mask": 1, "deadline": 1,
    "lapse": 0,
}  # fmt: skip


@dataclass
class History:
    """Trials of an ordered model that were realised before those that are predicted.

    Attributes:
        trials: inputs, outcomes and feedback, each dict name -> (*B, N), and a group of ``params`` where these vary.
        mask: (*B, N) bool, which of them exist.
    """

    trials: dict[str, Named]
    mask: Array


@dataclass(frozen=True, eq=False)
class Query:
    """The network, and everything that its joint predictive distribution of K trials depends on.

    `build` makes one from a user's arguments. All data have the same number of batch dimensions, of size 1 where an
    argument has no such dimension.

    Attributes:
        net: the network.
        trials: number of trials K.
        inputs: dict name -> (*B, K).
        params: the parameters that are conditioned on, dict name -> (*B,).
        trial_params: those that vary by trial, dict name -> (*B, K).
        condition_params: the same by condition, dict name -> (*B, C), where trials were observed with conditions.
        context: the encoded context, or None.
        feedback: dict name -> (*B, K), or None where none was given.
        trial_mask: (*B, K) bool, which trials exist; None = all.
        missing: what missing answers mean; None where there are none.
        deadline: (*B, K) or (*B, 1), of the time that `missing` names, or None.
        lapse: (*B,), probability of a lapse, or None.
        lapse_ranges: over which those lapses are uniform, where that is not the schema's range.
        observed: what `net.observe` returned, where it was given in place of inputs.
        history: trials before these, of an ordered model.
        orders: permutations of the trials to average over, or None.
        block: number of trials that are merged into the context together, or None.
        environment: gives the feedback on a drawn outcome, or None.
        outside: what happens where parameters leave the trained range.
        likelihood: which part of the network computes where all parameters are given, "direct" or "buffer".
    """

    net: Network
    trials: int
    inputs: Named
    params: Named
    trial_params: Named = field(default_factory=dict)
    condition_params: Named = field(default_factory=dict)
    context: EncodedContext | None = None
    feedback: Named | None = None
    trial_mask: Array | None = None
    missing: MissingRule | None = None
    deadline: Array | None = None
    lapse: Array | None = None
    lapse_ranges: Ranges = ()
    observed: ObservedTrials | None = None
    history: History | None = None
    orders: tuple[tuple[int, ...], ...] | None = None
    block: int | None = None
    environment: Environment | None = None
    outside: str = "warn"
    likelihood: str = "buffer"

    @classmethod
    def build(
        cls,
        net: Network,
        inputs: Mapping[str, Array] | ObservedTrials,
        *,
        trials: int | None = None,
        params: Mapping[str, Array] | None = None,
        trial_params: Mapping[str, Array] | None = None,
        context: Mapping[str, Array] | EncodedContext | None = None,
        feedback: Mapping[str, Array] | None = None,
        trial_mask: Array | None = None,
        missing: Missing | None = None,
        orders: int | Array | None = None,
        block: int | None = None,
        environment: Environment | None = None,
        lapse: Array | Lapse | None = None,
        outside: str = "warn",
        likelihood: str = "auto",
        history: History | None = None,
        check: bool = True,
        later: Collection[str] = (),
        expand: bool = True,
    ) -> Query:
        """Check the arguments, which are those of `JointPredictive`.

        Args:
            net: the network.
            inputs: dict name -> (*B, K), or what ``net.observe(...)`` returned.
            trials: number of trials; needed only where there are no inputs.
            params: dict name -> (*B,), any subset of the schema's.
            trial_params: dict name -> (*B, K); (*B, C) of trials observed with conditions.
            context: dict name -> (*B, N), or what ``net.encode(...)`` returned.
            feedback: dict name -> (*B, K).
            trial_mask: (*B, K) bool.
            missing: what missing answers mean, or None.
            orders: number of permutations to average over, or the permutations (R, K).
            block: number of trials to merge into the context together.
            environment: function (trial, inputs, outcomes, uniform) -> feedback.
            lapse: (*B,) probability, or a `Lapse`.
            outside: "warn", "error", "-inf" or "ignore".
            likelihood: "direct", "buffer" or "auto".
            history: trials before these, from `ppl_buffer.predictive.sampling.condition`.
            check: whether to look at the values of the parameters.
            later: parameters that whoever asks will give later.
            expand: give all data the same number of batch dimensions; `in_one_program` does so too, for less.

        Raises:
            ValueError: if an argument's names, shapes or values do not fit the schema.
        """
        backend_of(net)  # or it is no network
        schema = net.schema
        if not isinstance(outside, str) or outside not in _OUTSIDE:
            check_choice("outside", outside, _OUTSIDE)
        if isinstance(inputs, ObservedTrials):
            data = observed_data(
                net, inputs, trials, feedback=feedback, trial_mask=trial_mask, context=context, missing=missing
            )
        else:
            data = checked_data(net, inputs, trials, feedback, trial_mask, context, missing)
        arrays, numbers = check_params(net, {} if params is None else params, check, outside != "ignore")
        by_trial: Named = {}
        by_condition: Named = {}
        if trial_params is not None:
            if isinstance(inputs, ObservedTrials) and inputs.condition_count is not None:
                by_condition, _ = check_params(net, trial_params, False, argument="trial_params")
                trial_params = at_trials(net, by_condition, inputs.conditions, inputs.condition_count)
            by_trial, more = check_trial_params(
                net, trial_params, arrays, data["trials"], data["trial_mask"], check, outside != "ignore"
            )
            numbers = {**{name: x if x is None else x[..., None] for name, x in numbers.items()}, **more}
            later = {*later, *by_trial}
        alone = schema.independent and {*arrays, *later} >= set(schema.params)
        length = data["trials"] + (0 if history is None else history.mask.shape[-1])
        if not alone and net.record is not None and length > net.record.trials:
            length = count_existing(net, data["trials"], data["trial_mask"])
            length += 0 if history is None else count_existing(net, history.mask.shape[-1], history.mask)
            warn_longer(net, "trials", length, "trials")
        direct = {*arrays, *later} >= set(schema.params) and choose_likelihood(net, likelihood) == "direct"
        require_given(net, by_trial, {*arrays, *later}, direct)
        if data.get("missing") is not None:
            _require_likelihood(net, {*arrays, *later}, orders, block, direct)
        if check and outside != "ignore" and not (direct and "observed" in data):
            seen, known = {group: data.get(group) or {} for group in ("inputs", "feedback")}, "observed" in data
            warn_unfamiliar(net, seen, data["trial_mask"], direct, known, stacklevel=5)
        rate, ranges = (None, ()) if lapse is None else check_lapse(net, lapse)
        if orders is not None:
            if schema.ordered:
                raise ValueError("orders: expected none for an ordered model, whose trials have one order")
            orders = tuple(map(tuple, permutations(orders, data["trials"]).tolist()))
        if block is not None:
            if schema.ordered:
                raise ValueError("block: expected none for an ordered model, whose past belongs in the buffer")
            if not is_integer(block):
                raise ValueError(f"block: expected a number of trials of at least 1, got {block!r}")
            block = int(block)
        if environment is not None:
            check_environment(environment, schema)
        if check and net.record is not None and outside in ("warn", "error"):
            check_range(net.record, numbers, outside, by_trial)
        query = cls(
            net, params=arrays, trial_params=by_trial, condition_params=by_condition, lapse=rate, lapse_ranges=ranges,
            history=history, block=block, orders=orders, environment=environment, outside=outside,
            likelihood=choose_likelihood(net, likelihood), **data,
        )  # fmt: skip
        if not query.direct and len({*arrays, *later}) < len(schema.params):
            require_buffer(net, f"params: expected all of {list(schema.params)}, got {list(arrays)}")
        if len(query.batch_shape) == 2 or 0 in query.batch_shape:
            check_batch(query.batch_shape, query.params if check else {}, [*query.inputs.values(), query.trial_mask])
        return query.expanded(len(query.batch_shape)) if expand else query

    # What it says ---------------------------------------------------------------------------------------------

    @cached_property
    def event_shape(self) -> tuple[int, ...]:
        """(K,) for one outcome, (K, n_outcomes) for several."""
        count = len(self.net.schema.outcomes)
        return (self.trials,) if count == 1 else (self.trials, count)

    @cached_property
    def batch_shape(self) -> tuple[int, ...]:
        """Batch dimensions *B of the data as they are now: a language may have stacked or sliced them."""
        shapes: dict[str, tuple[int, ...]] = {}
        for argument, trailing in _TRAILING.items():
            data = getattr(self, argument)
            if isinstance(data, dict):
                for name, x in data.items():
                    shapes[f"{argument}[{name!r}]"] = tuple(x.shape[: x.ndim - trailing])
            elif data is not None:
                shapes[argument] = tuple(data.shape[: data.ndim - trailing])
        if self.context is not None:
            shapes["context"] = tuple(self.context.mask.shape[:-1])
        if self.observed is not None:
            shapes["observed"] = tuple(self.observed.trial_mask.shape[:-1])
        if self.history is not None:
            shapes["history"] = tuple(self.history.mask.shape[:-1])
        different = set(shapes.values())
        if len(different) == 1:
            return different.pop()
        try:
            return common_batch_shape(shapes)
        except ValueError as error:
            by_trial = [name for name, x in self.params.items() if self.trials > 1 and x.shape[-1:] == (self.trials,)]
            if not by_trial:
                raise
            raise ValueError(
                f"{error}. A parameter has one value a data set: where params[{by_trial[0]!r}] varies by trial, give "
                f"it as trial_params"
            ) from None

    def leading_shape(self, value: Array) -> tuple[int, ...]:
        """Leading dimensions (*sample, *batch) that a value and the data have together.

        Raises:
            ValueError: if the value does not end with the event shape, or its other dimensions do not fit.
        """
        try:
            shape = tuple(value.shape)
        except AttributeError:
            raise ValueError(f"value: expected an array of the network's library, got {type(value).__name__}") from None
        if shape == (*self.batch_shape, *self.event_shape):
            return self.batch_shape
        check_value_shape(value, self.event_shape)
        return broadcast_shape([value.shape[: value.ndim - len(self.event_shape)], self.batch_shape], "value")

    @cached_property
    def independent(self) -> bool:
        """Whether all parameters are given of a model whose trials are then independent: no buffer is needed."""
        return self.net.schema.independent and self._all_given

    @cached_property
    def direct(self) -> bool:
        """Whether the direct likelihood computes: all parameters are given, and nobody asked for the buffer."""
        return self.likelihood == "direct" and self._all_given

    @property
    def _all_given(self) -> bool:
        return len(self.params) + len(self.trial_params) == len(self.net.schema.params)

    @property
    def params_by_trial(self) -> Named:
        """All parameters with a trial axis, (*B, K), where some vary by trial; else none."""
        if not self.trial_params:
            return {}
        ops = self.net.ops
        shared = {name: ops.xp.broadcast_to(x[..., None], (*x.shape, self.trials)) for name, x in self.params.items()}
        return {**shared, **self.trial_params}

    def matches(self, value: Array) -> bool:
        """Whether a value is known to be the observed one, so that what was computed of that can be reused.

        Compiled programs hide it: ask before.
        """
        if self.observed is None or self.block is not None or self.orders is not None:
            return False
        return self.net.ops.same(value, self.observed.value, self.observed.snapshot)

    def missing_at(self, deadline: Array | None) -> Missing | None:
        """The same missing answers with other deadlines; None where there are none."""
        return missing_of(self.missing, deadline)

    def lapse_at(self, rate: Array | None) -> Lapse | None:
        """The same lapses at another rate; None of None."""
        return None if rate is None else Lapse(rate, {name: (low, high) for name, low, high in self.lapse_ranges})

    # Other queries --------------------------------------------------------------------------------------------

    def expanded(self, ndim: int) -> Query:
        """The same with `ndim` batch dimensions in all data: those that are missing get size 1, in front."""
        changes: dict[str, Array] = {}
        for argument, trailing in _TRAILING.items():
            data = getattr(self, argument)
            if isinstance(data, dict):
                if any([x.ndim < ndim + trailing for x in data.values()]):
                    changes[argument] = {name: pad_dims(x, ndim, trailing) for name, x in data.items()}
            elif data is not None and data.ndim < ndim + trailing:
                changes[argument] = pad_dims(data, ndim, trailing)
        if self.context is not None and self.context.mask.ndim <= ndim:
            changes["context"] = self.context.expanded(ndim)
        if self.observed is not None and self.observed.trial_mask.ndim <= ndim:
            changes["observed"] = self.observed.expanded(ndim)
        if self.history is not None and self.history.mask.ndim <= ndim:
            changes["history"] = map_leaves(lambda x: pad_dims(x, ndim, 1), self.history)
        return replace(self, **changes) if changes else self

    def permuted(self, orders: Array, ndim: int) -> Query:
        """The same with its trials reordered, as indices `orders` that broadcast against `ndim` batch dimensions say.

        What was observed has another order, and is left out.
        """

        def permute(x: Array) -> Array:
            return self.net.ops.take_along(pad_dims(x, ndim, 1), orders, -1)

        return replace(
            self,
            inputs={name: permute(x) for name, x in self.inputs.items()},
            trial_params={name: permute(x) for name, x in self.trial_params.items()},
            condition_params={},
            feedback=None if self.feedback is None else {name: permute(x) for name, x in self.feedback.items()},
            trial_mask=None if self.trial_mask is None else permute(self.trial_mask),
            observed=None,
            orders=None,
        )

    def padded(self, trials: int) -> Query:
        """The same with more trials, which do not exist. What was observed is left out."""
        xp, schema, more = self.net.ops.xp, self.net.schema, trials - self.trials
        mask = self.trial_mask
        if mask is None:
            mask = all_exist(self.net, self.trials, len(self.batch_shape))
        orders = self.orders
        if orders is not None:
            orders = tuple((*order, *range(self.trials, trials)) for order in orders)
        feedback = self.feedback
        if feedback is not None:
            feedback = {name: pad_last(xp, x, more, schema.feedback[name].fill) for name, x in feedback.items()}
        return replace(
            self,
            trials=trials,
            inputs={name: pad_last(xp, x, more, schema.inputs[name].fill) for name, x in self.inputs.items()},
            trial_params={
                name: pad_last(xp, x, more, schema.params[name].fill) for name, x in self.trial_params.items()
            },
            condition_params={},
            feedback=feedback,
            trial_mask=pad_last(xp, mask, more, False),
            deadline=self.deadline
            if self.deadline is None or self.deadline.shape[-1] == 1
            else pad_last(xp, self.deadline, more, float("inf")),
            orders=orders,
            observed=None,
        )


def _require_likelihood(net: Network, given: Collection[str], orders: object, block: object, direct: bool) -> None:
    """Refuse missing answers where the network would read them among the trials of the past."""
    hidden = [name for name in net.schema.params if name not in given]
    if hidden or orders is not None or block is not None:
        what = f"hides {hidden}" if hidden else "has orders or a block"
        raise ValueError(
            f"missing: expected a likelihood, all parameters given and no order of exchangeable trials, got one that "
            f"{what}: its network reads the outcomes of other trials and was not trained on missing ones; leave such "
            "trials out (trial_mask)"
        )
    require_direct(net, direct)
