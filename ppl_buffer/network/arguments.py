"""Checks of what a user passes to a network: names, shapes, legal values. Nothing here imports torch or jax."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from types import ModuleType
from typing import Protocol

import numpy as np

from ppl_buffer.checks import check_choice
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.network.backend import Array, ArrayOps, Named, Own
from ppl_buffer.network.config import Config
from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.schema import Categorical, Interval, Schema, Variable, split_value

_PARTS = {"direct": "likelihood", "buffer": "buffer"}
_LIKELIHOODS = ("auto", *_PARTS)


class Trained(Protocol):
    """What was trained, and knows on what."""

    @property
    def record(self) -> TrainingRecord | None:
        """What the training covered; None without a training."""


class NetworkLike(Protocol):
    """What checks and layouts need of a network; `ppl_buffer.network.network.Network` is one."""

    backend: str
    ops: ArrayOps
    schema: Schema
    config: Config
    record: TrainingRecord | None

    @property
    def parts(self) -> tuple[str, ...]:
        """What the network has: "likelihood" and "buffer"."""

    @property
    def preferred_likelihood(self) -> str:
        """What computes where all parameters are given: "direct" or "buffer"."""

    @property
    def dtype(self) -> Own:
        """Number type of the weights."""

    @property
    def digest(self) -> str:
        """What tells networks apart."""


def check_names(argument: str, given: Mapping[str, Array], expected: Iterable[str], subset: bool = False) -> None:
    """Refuse a dict whose names are not the schema's."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{argument}: expected a dict of name to array, got {type(given).__name__}")
    expected = list(expected)
    unknown = [name for name in given if name not in expected]
    missing = [] if subset else [name for name in expected if name not in given]
    if unknown or missing:
        some = "any of " if subset else ""
        problems = [f"unknown {unknown}"] * bool(unknown) + [f"missing {missing}"] * bool(missing)
        raise ValueError(f"{argument}: expected {some}{expected}, got {list(given)} ({', '.join(problems)})")


def check_legal(
    net: NetworkLike,
    argument: str,
    variable: Variable,
    value: Array,
    mask: Array | None = None,
    may_be_lost: bool = False,
) -> None:
    """Refuse values that the variable cannot take, where they can be looked at and stand for a trial.

    Judged as the network sees them: a number may lie below a bound and round onto it. NaN is what was lost, where
    anything may be.
    """
    given, numbers = net.ops.to_concrete(value), net.ops.to_concrete(net.ops.number(net, value))
    exists = None if mask is None else net.ops.to_concrete(mask)
    if given is None or numbers is None or (mask is not None and exists is None):
        return
    with np.errstate(invalid="ignore"):
        bad = ~np.asarray(variable.contains(np, numbers))
    if may_be_lost:
        bad = bad & ~np.isnan(numbers)
    if exists is not None:
        try:
            bad = bad & exists
        except ValueError:
            raise ValueError(
                f"{argument}: expected a shape that broadcasts with that of trial_mask, {exists.shape}, got {bad.shape}"
            ) from None
    if bad.any():
        culprit, rounded = (np.broadcast_to(x, bad.shape)[bad].flat[0] for x in (given, numbers))
        hint = ""
        if variable.contains(np, culprit):
            hint = f"; the network computes in single precision, where this is {rounded!s}"
        if isinstance(variable, Categorical) and set(np.unique(numbers[np.isfinite(numbers)])) <= {-1, 1}:
            hint = "; categories are coded from 0, so -1 and 1 must be recoded as 0 and 1"
        got = f"got {culprit!s} ({bad.sum()} of {bad.size}){hint}"
        raise ValueError(f"{argument}: expected {variable.description}, {got}")


def check_outcomes(net: NetworkLike, value: Array, mask: Array | None) -> None:
    """Refuse a value whose outcomes cannot be, where they can be looked at and stand for a trial."""
    numbers = net.ops.to_concrete(value)
    # Columns of NumPy: a backend that compiles would do so for each.
    for name, column in split_value(net.schema, value if numbers is None else numbers).items():
        argument = f"value[{name!r}]" if net.schema.event_shape_tail else "value"
        check_legal(net, argument, net.schema.outcomes[name], column, mask)


def check_trial_arrays(
    net: NetworkLike,
    argument: str,
    given: Mapping[str, Array],
    variables: Mapping[str, Variable],
    trials: int | None,
    mask: Array | None,
    may_be_lost: bool = False,
) -> Named:
    """Turn a dict name -> (*B, K) into arrays of the backend, K alike in all of them, illegal fill values replaced.

    Where values `may_be_lost`, NaN in a trial that exists stays.
    """
    check_names(argument, given, variables)
    arrays: Named = {}
    for name, variable in variables.items():
        value = as_floating(net, f"{argument}[{name!r}]", given[name])
        if value.ndim == 0:
            raise ValueError(f"{argument}[{name!r}]: expected shape (*batch, trials), got a scalar")
        if trials is None:
            trials = value.shape[-1]
        if value.shape[-1] != trials:
            raise ValueError(
                f"{argument}[{name!r}]: expected {trials} trials on the last axis, got shape {tuple(value.shape)}"
            )
        check_legal(net, f"{argument}[{name!r}]", variable, value, mask, may_be_lost)
        value = net.ops.number(net, value)
        arrays[name] = value if mask is None else net.ops.filled(value, mask, variable.fill)
    return arrays


def _as_number(convert: Callable[[Own, Array], Array], net: NetworkLike, argument: str, value: Array) -> Array:
    if value is None:
        # NumPy would take it for no number.
        raise ValueError(f"{argument}: expected an array of numbers, got None")
    if "complex" in str(getattr(value, "dtype", type(value))):
        raise ValueError(f"{argument}: expected an array of real numbers, got complex ones")
    try:
        return convert(net, value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{argument}: expected an array of numbers, got {type(value).__name__} ({error})") from None


def as_floating(net: NetworkLike, argument: str, value: Array) -> Array:
    """A floating-point array of the backend; doubles stay doubles."""
    return _as_number(net.ops.floating, net, argument, value)


def as_mask(net: NetworkLike, argument: str, value: Array, trials: int) -> Array:
    """A boolean (*B, K) array of the backend."""
    given = value
    if not hasattr(value, "dtype"):
        try:
            given = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{argument}: expected an array of booleans, got {value!r} ({error})") from None
    if "bool" not in str(given.dtype):
        raise ValueError(f"{argument}: expected booleans, True where there is a trial, got {given.dtype}")
    mask = _as_number(net.ops.array, net, argument, given)
    if mask.ndim == 0 or mask.shape[-1] != trials:
        raise ValueError(f"{argument}: expected shape (*batch, {trials}), got {tuple(mask.shape)}")
    return mask


def check_params(
    net: NetworkLike, params: Mapping[str, Array], check: bool, warn: bool = True, argument: str = "params"
) -> tuple[Named, dict[str, np.ndarray | None]]:
    """Any subset of the parameters as floating-point arrays in the schema's order, and their numbers where known.

    Without `check` nobody looks at the numbers; without `warn` it is not said that one lies on an open bound.
    """
    ops, schema = net.ops, net.schema
    check_names(argument, params, schema.params, subset=True)
    given = {name: params[name] for name in schema.params if name in params}
    try:
        arrays = ops.floating_each(net, given)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        # Once more, one by one, to say which of them is no array of real numbers.
        arrays = {name: as_floating(net, f"{argument}[{name!r}]", value) for name, value in given.items()}
    if not check:
        return arrays, dict.fromkeys(arrays)
    numbers = ops.to_concrete_each(arrays)
    for name, known in numbers.items():
        if known is not None and not schema.params[name].contains(np, known).all():
            _check_bounds(net, name, known, warn, argument)
    return arrays, numbers


def check_trial_params(
    net: NetworkLike,
    trial_params: Mapping[str, Array],
    params: Collection[str],
    trials: int,
    trial_mask: Array | None,
    check: bool,
    warn: bool,
) -> tuple[Named, dict[str, np.ndarray | None]]:
    """Parameters (*B, K) that vary by trial, beside the `params` that do not, as `check_params` returns them.

    Where there is no trial a legal number stands in, and NaN among the numbers that are known: nobody looks at it.

    Raises:
        ValueError: if one is given twice, has no value for each trial, or trials depend on each other.
    """
    arrays, _ = check_params(net, trial_params, False, argument="trial_params")
    for name, array in arrays.items():
        if name in params:
            raise ValueError(f"trial_params: expected parameters that params does not hold, got {name!r} in both")
        if tuple(array.shape[-1:]) != (trials,):
            raise ValueError(
                f"trial_params[{name!r}]: expected shape (*batch, {trials}), one value a trial, got "
                f"{tuple(array.shape)}; what is alike in all trials belongs in params"
            )
    if arrays and net.schema.ordered and not net.config.likelihood_trial_params:
        raise ValueError(
            f"trial_params: expected none for a network trained on parameters that stay, got {list(arrays)}; train one "
            f"with Config(likelihood_trial_params=True), or, if each block begins anew, make it a data set of its own"
        )
    if arrays and not (net.schema.ordered or net.schema.independent):
        raise ValueError(
            f"trial_params: expected none for exchangeable trials that depend on each other, got {list(arrays)}"
        )
    if trial_mask is not None:
        where, schema = net.ops.xp.where, net.schema
        arrays = {name: where(trial_mask, x, schema.params[name].fill) for name, x in arrays.items()}
    arrays, numbers = check_params(net, arrays, check, warn, "trial_params")
    exists = None if trial_mask is None else net.ops.to_concrete(trial_mask)
    if exists is not None:
        numbers = {name: x if x is None else np.where(exists, x, np.nan) for name, x in numbers.items()}
    return arrays, numbers


def require_given(net: NetworkLike, trial_params: Collection[str], given: Collection[str], direct: bool) -> None:
    """Refuse parameters that vary by trial where another one is hidden, or nothing but the buffer computes."""
    missing = [name for name in net.schema.params if name not in given]
    if trial_params and missing:
        raise ValueError(f"trial_params: expected all other parameters in params, but {missing} are not there")
    if trial_params and not direct:
        raise ValueError(
            "trial_params: expected the direct likelihood to compute, got a network without one, or likelihood="
            "'buffer'; make each trial a data set of its own, with trials=1"
        )


def _check_bounds(net: NetworkLike, name: str, numbers: np.ndarray, warn: bool, argument: str) -> None:
    """Refuse values that a parameter cannot take; say so where one lies on an open bound, for which rounding suffices.

    The density there is that of the nearest number inside, so that a model that gets there goes on.
    """
    variable = net.schema.params[name]
    bounds = (variable.low, variable.high) if isinstance(variable, Interval) else (0.0,)
    on_bound = np.isin(numbers, np.asarray(bounds, numbers.dtype))
    check_legal(net, f"{argument}[{name!r}]", variable, numbers, ~on_bound)
    if not warn:
        return
    text = (
        f"{argument}[{name!r}]: expected {variable.description}, got {numbers[on_bound].flat[0]!s} "
        f"({on_bound.sum()} of {on_bound.size}); the density there is that of the nearest number inside. net.into_box "
        f"keeps off the bounds"
    )
    warn_of(Finding("outside_box", text, parameter=name, share=float(on_bound.mean())), stacklevel=6)


def count_trials(net: NetworkLike, inputs: Mapping[str, Array], trials: int | None) -> int:
    """Number of trials K: as given, or else the size of the inputs' last axis."""
    check_names("inputs", inputs, net.schema.inputs)
    if trials is None:
        if not inputs:
            raise ValueError("trials: expected a number, since the schema has no inputs to tell it; got None")
        name, first = next(iter(inputs.items()))
        try:
            shape = tuple(first.shape) if hasattr(first, "shape") else np.shape(first)
        except ValueError as error:
            raise ValueError(f"inputs[{name!r}]: expected an array of numbers, got {first!r} ({error})") from None
        if not shape:
            raise ValueError(f"inputs[{name!r}]: expected shape (*batch, trials), got {first!r}")
        trials = shape[-1]
    if trials is None or isinstance(trials, bool) or not isinstance(trials, (int, np.integer)) or trials < 1:
        raise ValueError(f"trials: expected at least 1 trial, got {trials!r}")
    return int(trials)


def trials_of_value(net: NetworkLike, value: Array) -> int:
    """Number of trials K of a value (..., K) or (..., K, n_outcomes).

    Raises:
        ValueError: if it has fewer dimensions.
    """
    tail = net.schema.event_shape_tail
    if value.ndim < 1 + len(tail):
        raise ValueError(
            f"value: expected shape ({', '.join(['*batch', 'trials', *map(str, tail)])}), got {tuple(value.shape)}"
        )
    return int(value.shape[value.ndim - 1 - len(tail)])


def count_existing(net: NetworkLike, trials: int, mask: Array | None) -> int:
    """Most trials that exist of any data set; all of them where the mask (*B, K) is not known yet."""
    exists = None if mask is None else net.ops.to_concrete(mask)
    return trials if exists is None else int(np.max(exists.sum(-1), initial=0))


def check_value_shape(value: Array, event_shape: tuple[int, ...]) -> None:
    """Refuse a value whose trailing dimensions are not the event shape."""
    if value.ndim < len(event_shape) or tuple(value.shape[value.ndim - len(event_shape) :]) != event_shape:
        raise ValueError(f"value: expected shape (*sample, *batch, *{event_shape}), got {tuple(value.shape)}")


def refuse_empty(argument: str, batch_shape: tuple[int, ...]) -> None:
    """Raise the error for batch dimensions that hold no data set."""
    raise ValueError(f"{argument}: expected at least one data set, got a batch of shape {tuple(batch_shape)}")


def arrange_outcomes(net: NetworkLike, value: Array, trial_mask: Array | None) -> Named:
    """Outcomes (..., K) of a value in the network's number type, with legal numbers wherever nothing can be scored."""
    ops, schema = net.ops, net.schema
    outcomes = ops.number_each(net, split_value(schema, value))
    for name, number in outcomes.items():
        variable = schema.outcomes[name]
        usable = variable.contains(ops.xp, number)
        if trial_mask is not None:
            # What stands where there is no trial may be legal and still too large: 0 times infinity is no number.
            usable = usable & trial_mask
        outcomes[name] = ops.xp.where(usable, number, variable.fill)
    return outcomes


def all_exist(net: NetworkLike, trials: int, ndim: int) -> Array:
    """A trial mask of `ndim` batch dimensions of size 1 in which all trials exist."""
    return net.ops.array(net, np.ones((1,) * ndim + (trials,), dtype=bool))


def legal_trials(
    cast: Callable[[Array], Array], xp: ModuleType, schema: Schema, value: Array, trial_mask: Array | None
) -> Array:
    """Which trials (..., K) of a value do not exist, or hold legal outcomes in the number type of `cast`."""
    legal: Array = None
    for name, column in split_value(schema, value).items():
        contains = schema.outcomes[name].contains(xp, cast(column))
        legal = contains if legal is None else legal & contains
    return legal if trial_mask is None else legal | ~trial_mask


def require_feedback(net: NetworkLike, given: Mapping[str, Array] | None, purpose: str) -> None:
    """Refuse to go on without the feedback that a schema has."""
    if net.schema.feedback and given is None:
        raise ValueError(
            f"feedback: expected {list(net.schema.feedback)} to {purpose}, since later trials depend on it; got none"
        )


def choose_likelihood(net: NetworkLike, likelihood: str) -> str:
    """Which part computes where all parameters are given: "direct" or "buffer".

    Raises:
        ValueError: if `likelihood` is neither nor "auto", or the network has no such part.
    """
    if not isinstance(likelihood, str) or likelihood not in _LIKELIHOODS:
        check_choice("likelihood", likelihood, _LIKELIHOODS)
    if likelihood == "auto":
        return net.preferred_likelihood
    if _PARTS[likelihood] not in net.parts:
        missing = "direct likelihood" if likelihood == "direct" else "buffered transformer"
        raise ValueError(f"likelihood: expected 'auto', since this network has no {missing}, got {likelihood!r}")
    return likelihood


def require_likelihood(record: TrainingRecord | None) -> None:
    """Refuse what takes the likelihood of a model, where a network's record says that it learned from observed data."""
    if record is not None and record.stored is not None and record.observed:
        raise ValueError(
            f"net: expected the network of a simulator, got one that was trained on {record.stored}: it has no "
            "parameters and is the likelihood of no model, but predicts another of them (JointPredictive, given a "
            "context or the trials before)"
        )


def require_buffer(net: NetworkLike, expected: str) -> None:
    """Refuse what only a buffered transformer answers, where the network has none."""
    if "buffer" not in net.parts:
        raise ValueError(
            f"{expected}, since this network has a direct likelihood alone; train its buffered transformer as well "
            f"(train with parts='all' goes on in the same folder)"
        )
