"""The trained box: from the real line into the range of each parameter that training covered, and back.

A parameter's value is its lower bound plus a share of the way to its upper bound; the share is a logistic function of a
real number that ends short of 0 and of 1 by a margin, so that no rounding reaches a bound, which may not be legal.

Where a data set has a bound of its own, as the fastest response is one of the non-decision time, the value is a smooth
minimum of that number's value and the bound. So a number means the same in all data sets until it comes near to the
bound. (A share of the way to each data set's own bound would not: a population of such shares takes longer
non-decision times in whoever responds later, and takes them out of the boundary.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ppl_buffer.checks import check_choice
from ppl_buffer.network.arguments import NetworkLike, Trained, as_floating, check_names
from ppl_buffer.network.backend import Array, Named, Own, backend_of
from ppl_buffer.network.layout import common_batch_shape
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.schema import split_value

# The share of a range at either end that nothing is mapped into.
MARGIN = 1e-4
# The least share between the margins that is told from 0 on the way back: real numbers end at about -14 and 14.
_LEAST_SHARE = 1e-6
# How sharp the minimum with a bound is: half of the way to it a value is 0.05 % smaller, at nine tenths 4 %.
SHARPNESS = 8


@dataclass(frozen=True)
class _Range:
    """Where a parameter may lie.

    Attributes:
        low: (...), its lower bound.
        width: how far above that the trained range ends.
        limit: (...), how far above it a bound of a data set lies, at most `width`; None where there is none.
    """

    low: Array
    width: float
    limit: Array | None = None


def upper_bounds(net: NetworkLike, seen: ObservedTrials) -> Named:
    """See `Network.upper_bounds`."""
    if not isinstance(seen, ObservedTrials):
        raise ValueError(f"seen: expected what net.observe(...) returns, got {type(seen).__name__}")
    check_names("seen", seen.outcomes, net.schema.outcomes)
    xp = net.ops.xp
    bounds: Named = {}
    if net.schema.lapse_rate:  # any outcome may be a lapse
        return bounds
    for outcome, name in net.schema.lower_bounds.items():
        known = seen.trial_mask
        if seen.missing is not None:
            known = known & xp.isfinite(split_value(net.schema, seen.value)[outcome])
        least = xp.amin(xp.where(known, seen.outcomes[outcome], float("inf")), -1)
        bounds[name] = xp.minimum(bounds[name], least) if name in bounds else least
    return bounds


def checked_upper_bounds(net: NetworkLike, seen: ObservedTrials) -> Named:
    """The same, refused where a parameter that was trained could not lie below."""
    bounded = isinstance(seen, ObservedTrials) and bool(net.schema.lower_bounds)
    bounds: Named = backend_of(net).one_program(_upper_bounds, (net,), seen) if bounded else upper_bounds(net, seen)
    for name, bound in bounds.items():
        _check_above(net, name, bound, trained_range(net, name)[0])
    return bounds


def _upper_bounds(settings: Own, seen: Own) -> Named:
    (net,) = settings
    return upper_bounds(net, seen)


def into_box(
    net: NetworkLike, name: str, x: Array, params: Mapping[str, Array] | None, below: Array | ObservedTrials | None
) -> Array:
    """See `Network.into_box`."""
    real = as_floating(net, "x", x)
    bounds = _range(net, name, params, below)
    common_batch_shape({"x": tuple(real.shape), "params, below": _shape(bounds)})
    return bounds.low + above_low(net.ops.sigmoid(real), bounds.width, bounds.limit)


def above_low(share: Array, width: float, limit: Array | None) -> Array:
    """How far above its lower bound a parameter lies, (...): arithmetic alone, for arrays of any library.

    Args:
        share: (...), from 0 to 1.
        width: of the trained range.
        limit: (...), up to a data set's bound, at most `width`; None = there is none.
    """
    unbounded = width * (MARGIN + (1 - 2 * MARGIN) * share)
    if limit is None:
        return unbounded
    # The bound is reached where the trained range ends, and both are the same where the bound is that end.
    return unbounded * (1 + (unbounded / limit) ** SHARPNESS - (unbounded / width) ** SHARPNESS) ** (-1 / SHARPNESS)


def from_box(
    net: NetworkLike, name: str, value: Array, params: Mapping[str, Array] | None, below: Array | ObservedTrials | None
) -> Array:
    """See `Network.from_box`."""
    xp, ops = net.ops.xp, net.ops
    number = as_floating(net, "value", value)
    bounds = _range(net, name, params, below)
    common_batch_shape({"value": tuple(number.shape), "params, below": _shape(bounds)})
    share = (number - bounds.low) / (bounds.width if bounds.limit is None else bounds.limit)
    known = ops.to_concrete(share)
    if known is not None and not ((known >= -MARGIN) & (known <= 1 + MARGIN)).all():
        raise ValueError(
            f"value: expected {name} inside its trained range ({_describe(net, name)}), got "
            f"{_first(number, ~((known >= -MARGIN) & (known <= 1 + MARGIN)), net):g}"
        )
    if bounds.limit is not None:
        # The inverse of the smooth minimum.
        share = xp.clip(share, 0.0, 1 - _LEAST_SHARE) * bounds.limit / bounds.width
        wider = (share * bounds.width / bounds.limit) ** SHARPNESS - share**SHARPNESS
        share = share * (1 - wider) ** (-1 / SHARPNESS)
    inside = xp.clip((share - MARGIN) / (1 - 2 * MARGIN), _LEAST_SHARE, 1 - _LEAST_SHARE)
    return xp.log(inside) - xp.log1p(-inside)


def _check_above(net: NetworkLike, name: str, bound: Array, low: Array) -> None:
    """Refuse upper bounds of a parameter, where they are known, that leave it no room."""
    known, least = net.ops.to_concrete(bound), net.ops.to_concrete(low)
    if known is None or least is None or (known > least).all():
        return
    wrong = ~(known > least)
    where = np.flatnonzero(wrong)
    index = f", data set {', '.join(map(str, where[:5]))}{' ...' * (len(where) > 5)}" if wrong.ndim else ""
    raise ValueError(
        f"below: expected bounds above {float(np.max(least)):g}, the least {name} that the network was trained on, "
        f"got {_first(bound, wrong, net):g} ({len(where)} of {wrong.size}{index}); leave out responses that are too "
        f"fast to be decisions (trial_mask), or, with a lapse rate, give no bound"
    )


def _describe(net: NetworkLike, name: str) -> str:
    """The trained range of a parameter in words."""
    low, high, origin = trained_range(net, name)
    return f"{low:g} to {high:g}" + ("" if origin is None else f" above {origin}")


def trained_range(net: Trained, name: str) -> tuple[float, float, str | None]:
    """Lower and upper end of what training covered of a parameter, or of its difference from the parameter named third.

    Raises:
        ValueError: if the network was not trained, or knows no such parameter.
    """
    if net.record is None:
        raise ValueError("net: expected a trained network, which knows its range, got an untrained one")
    check_choice("name", name, tuple(net.record.box))
    prior = net.record.priors.get(name)
    if prior is None or prior.relative_to is None:
        return (*net.record.box[name], None)
    return (*prior.range(), prior.relative_to)


def _range(
    net: NetworkLike, name: str, params: Mapping[str, Array] | None, below: Array | ObservedTrials | None
) -> _Range:
    low, high, origin = trained_range(net, name)
    given = {} if params is None else params
    check_names("params", given, net.schema.params, subset=True)
    if isinstance(below, ObservedTrials):
        below = upper_bounds(net, below).get(name)
    base: Array = low
    if origin is not None:
        if origin not in given:
            raise ValueError(f"params: expected the value of {origin!r}, from which {name!r} counts, got {list(given)}")
        base = low + as_floating(net, f"params[{origin!r}]", given[origin])
    if below is None:
        return _Range(base, high - low)
    bound = as_floating(net, "below", below)
    common_batch_shape({"params": tuple(np.shape(base)), "below": tuple(bound.shape)})
    _check_above(net, name, bound, base)
    # No rounding reaches the bound.
    return _Range(base, high - low, net.ops.xp.clip((1 - MARGIN) * (bound - base), None, high - low))


def _shape(bounds: _Range) -> tuple[int, ...]:
    return tuple(np.shape(bounds.low if bounds.limit is None else bounds.limit))


def _first(value: Array, wrong: np.ndarray, net: NetworkLike) -> float:
    """The first number that is wrong."""
    return float(np.broadcast_to(np.asarray(net.ops.to_concrete(value)), wrong.shape)[wrong].flat[0])
