"""Data unlike any that a network was trained on: which values, and whether their cause is plain.

Each data set is judged by itself: one subject in milliseconds stands out of thirty in seconds, which no median over all
of them would show. What is found is a record; `warn_unfamiliar` says it of arrays, and a reader of tables in its own
words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ppl_buffer.findings import Finding, counted, warn_of
from ppl_buffer.network.arguments import NetworkLike
from ppl_buffer.network.backend import Array, Named
from ppl_buffer.network.ranges import ValueRange
from ppl_buffer.schema import Integer, Positive, Schema, Variable

# What programs write where there was no response.
MISSING_CODES = (-1, -9, 9, *(sign * code for code in (88, 99, 888, 999, 8888, 9999, 88888, 99999) for sign in (1, -1)))
# Shares of the trained range by which values may exceed it unnoticed: the tails of outcomes are drawn too rarely for
# their ends to be known. Of positive variables, of the range of the logarithm, and at most a factor of 3.
_MARGIN, _OUTCOME_MARGIN, _MOST_MARGIN = 0.1, 0.25, math.log(3)
# Factor beyond the medians (of positive variables) or the spreads of all simulated data sets that has another unit.
_OTHER_MEDIAN, _OTHER_SPREAD = 3.0, 5.0
# Fewest trials and different values whose spread says something.
_LEAST_TRIALS, _LEAST_VALUES = 10, 3
# A factor beyond the range of a positive variable that is no tail of anything.
_FAR = 10.0
_RADIAN = 180 / math.pi
# How far beyond the trained range the largest of a few values has another unit.
_PLAINLY = 2.0
# Ratio of the 99 % quantile to that of 1 %, or the least one above 0: beyond, other units lie among the trained values.
_MAGNITUDES = 1000.0
# Words of names that say that a variable is a time.
_TIMES = ("rt", "time", "latency", "duration", "delay", "soa", "onset")


@dataclass(frozen=True, eq=False)
class Unfamiliar:
    """Values of one variable that the training had nothing like, for one cause.

    Attributes:
        name: of the variable.
        cause: "unit" (the values of a data set have another unit), "missing" (codes for a missing value), "code"
            (other values of a variable that takes a few), "range" (outside the trained range, no cause known).
        where: (data sets, trials) bool, the trials concerned.
        values: up to eight of the values, ascending.
        plain: whether this can hardly be data: a mistake whose cause is known, or values far outside the range.
        factor: what turns the values into the model's unit; None where that is not known.
        unit: what they seem to be, and what the model reads; empty where that is not known.
        seen: the trained range.
    """

    name: str
    cause: str
    where: np.ndarray
    values: tuple[float, ...]
    plain: bool
    seen: ValueRange
    factor: float | None = None
    unit: str = ""

    @property
    def data_sets(self) -> np.ndarray:
        """Indices of the data sets concerned."""
        return np.flatnonzero(self.where.any(1))

    @property
    def trained(self) -> str:
        """What the network was trained on, in words."""
        if self.seen.values:
            known = [f"{x:g}" for x, share in zip(self.seen.values, self.seen.shares, strict=True) if share > 0]
            return f"{', '.join(known)} alone"
        return f"values from {self.seen.low:.3g} to {self.seen.high:.3g}"

    def describe(self, batch_shape: tuple[int, ...] = ()) -> str:
        """What is wrong and what to do, of arrays whose batch dimensions *B are the data sets."""
        some = ", ".join(f"{value:.4g}" for value in self.values[:4]) + ", ..." * (len(self.values) > 4)
        place = _place(self.data_sets, batch_shape)
        if self.cause == "unit" and self.factor is not None:
            return f"values such as {some}{place} look like {self.unit}; multiply them by {self.factor:.4g}"
        if self.cause == "unit":
            return (
                f"values such as {some}{place} have another unit than the network's, which was trained on "
                f"{self.trained}; convert them"
            )
        if self.cause == "missing":
            return (
                f"{some}{place} looks like a code for a missing value, and the network was trained on {self.trained}; "
                "leave these trials out (trial_mask)"
            )
        if self.cause == "code":
            return (
                f"holds {some}{place}, but the network was trained on {self.trained} and knows nothing of other "
                "values; recode them"
            )
        values = int(self.where.sum())
        lie = "lies" if values == 1 else "lie"
        return (
            f"{counted(values, 'value')}{place}, such as {some}, {lie} outside the trained range, {self.trained}; "
            "predictions there are extrapolations. Check them, or train on a wider range"
        )


def find_unfamiliar(
    schema: Schema, ranges: Mapping[str, ValueRange], data: Mapping[str, np.ndarray], exists: np.ndarray
) -> list[Unfamiliar]:
    """All that is unlike the training data, by variable; a data set's trials have one cause a variable, or two.

    Args:
        schema: what the variables are.
        ranges: what was seen in training, by variable.
        data: name -> (data sets, trials); variables without a range are left out.
        exists: (data sets, trials) bool. Values that are not legal count as absent.
    """
    variables: dict[str, Variable] = {**schema.inputs, **schema.outcomes, **schema.feedback}
    result: list[Unfamiliar] = []
    for name, seen in ranges.items():
        if name not in data:
            continue
        variable, numbers = variables[name], np.asarray(data[name], dtype=float)
        with np.errstate(invalid="ignore"):
            values = np.where(exists & variable.contains(np, numbers), numbers, np.nan)
        if not np.isfinite(values).any():
            continue
        if seen.values:
            result += _of_codes(name, seen, values)
        else:
            result += _of_numbers(name, variable, seen, values, name in schema.outcomes)
    return result


def warn_unfamiliar(
    net: NetworkLike,
    groups: Mapping[str, Named],
    exists: Array | None,
    direct: bool,
    known: bool = False,
    stacklevel: int = 4,
) -> None:
    """Say which arrays are unlike the training data; one finding a variable and cause, which names the data sets.

    Args:
        net: the network; one without a record, or with one from before ranges were kept, knows nothing.
        groups: how messages call the arrays ("inputs") -> name -> (*B, K). Arrays that are being traced are left out.
        exists: (*B, K) bool, which trials exist; None = all.
        direct: whether the direct likelihood computes, which may have seen other data than the buffered transformer.
        known: whether the arrays were looked at when they were observed: then the part that computes matters alone.
        stacklevel: of the warnings.
    """
    record = net.record
    if record is None or not record.ranges or (known and not record.likelihood_ranges):
        return
    ranges = record.familiar(direct)
    mask = None if exists is None else net.ops.to_concrete(exists)
    if exists is not None and mask is None:
        return
    for group, arrays in groups.items():
        numbers = {name: x for name, array in arrays.items() if (x := net.ops.to_concrete(array)) is not None}
        shapes = [x.shape for x in numbers.values()] + ([] if mask is None else [mask.shape])
        if not numbers:
            continue
        shape = np.broadcast_shapes(*shapes)
        if 0 in shape:
            continue
        flat = {name: np.broadcast_to(x, shape).reshape(-1, shape[-1]) for name, x in numbers.items()}
        there = np.broadcast_to(True if mask is None else mask, shape).reshape(-1, shape[-1])
        for one in find_unfamiliar(net.schema, ranges, flat, there):
            text = f"{group}[{one.name!r}]: {one.describe(shape[:-1])}"
            share = float(one.where.sum() / max(there.sum(), 1))
            warn_of(Finding("outside_range", text, parameter=one.name, share=share), stacklevel=stacklevel)


def trained_bounds(variable: Variable, seen: ValueRange, is_outcome: bool = False) -> tuple[float, float]:
    """Where the trained range ends, with a margin for what was too rare to be drawn."""
    logarithmic = isinstance(variable, Positive)
    ends = np.array([seen.low, seen.high, seen.low, seen.high])
    if seen.quantiles:
        ends[2:] = seen.quantiles[0][1], seen.quantiles[-1][1]
    low, high, central_low, central_high = np.log(ends) if logarithmic else ends
    margin = (_OUTCOME_MARGIN if is_outcome else _MARGIN) * (high - low)
    margin = min(margin, _MOST_MARGIN) if logarithmic else margin
    # One wild value in training says little of what lies between it and all the others.
    half = (central_high - central_low) / 2
    bounds = max(low - margin, min(central_low - half, low)), min(high + margin, max(central_high + half, high))
    return (math.exp(bounds[0]), math.exp(bounds[1])) if logarithmic else bounds


def _place(data_sets: np.ndarray, batch_shape: tuple[int, ...]) -> str:
    """In which data sets; nothing where there is only one."""
    total = math.prod(batch_shape)
    if total == 1:
        return ""
    if len(data_sets) == total:
        return f" in all {total} data sets"
    indices = [np.unravel_index(index, batch_shape) for index in data_sets[:5]]
    named = ", ".join(str(tuple(map(int, index))) if len(index) > 1 else str(int(index[0])) for index in indices)
    more = ", ..." if len(data_sets) > 5 else ""
    return f" in data set{'s' * (len(data_sets) > 1)} {named}{more} of {total}"


def _examples(values: np.ndarray) -> tuple[float, ...]:
    different = np.unique(values[np.isfinite(values)])
    return tuple(different[np.linspace(0, len(different) - 1, min(8, len(different))).astype(int)].tolist())


def _rarely(bad: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rows, (data sets, 1), of whose trials less than half are bad."""
    return bad.sum(1, keepdims=True) < 0.5 * np.isfinite(values).sum(1, keepdims=True)


def _of_codes(name: str, seen: ValueRange, values: np.ndarray) -> Iterator[Unfamiliar]:
    """A variable that took a few values in training."""
    known = np.array([value for value, share in zip(seen.values, seen.shares, strict=True) if share > 0])
    same = np.isclose(values[..., None], known, rtol=1e-5, atol=1e-6)
    bad = np.isfinite(values) & ~same.any(-1)
    if not bad.any():
        return
    # A data set of -1 and 1 has another code; one of -1, 0 and 1 has the trained one, and something missing. One with
    # other values beside has neither.
    other = bad & ~np.isin(values, MISSING_CODES)
    coded = same.any(1).all(1) & ~other.any(1)
    missing = bad & coded[:, None] & _rarely(bad, values)
    rest = bad & ~missing
    if missing.any():
        yield Unfamiliar(name, "missing", missing, _examples(values[missing]), True, seen)
    if rest.any():
        rows = values[rest.any(1)]
        yield Unfamiliar(name, "code", rest, _examples(rows), True, seen)


def _of_numbers(
    name: str, variable: Variable, seen: ValueRange, values: np.ndarray, is_outcome: bool
) -> Iterator[Unfamiliar]:
    """A continuous variable."""
    low, high = trained_bounds(variable, seen, is_outcome)
    with np.errstate(invalid="ignore"):
        outside = (values < low) | (values > high)
        beyond = (values < seen.low) | (values > seen.high)
    code = np.isin(values, MISSING_CODES)
    # Not where 888 stands among other milliseconds.
    alone = (outside & ~code).sum(1, keepdims=True) <= (beyond & code).sum(1, keepdims=True)
    missing = beyond & code & alone
    missing &= _rarely(missing, values)
    if missing.any():
        yield Unfamiliar(name, "missing", missing, _examples(values[missing]), True, seen)
        values, outside = np.where(missing, np.nan, values), outside & ~missing
    factors: dict[float, np.ndarray] = {}
    for index, factor in _other_units(name, variable, seen, values, outside, (low, high)):
        factors.setdefault(factor, np.zeros(values.shape, dtype=bool))[index] = np.isfinite(values[index])
    rest = outside & ~sum(factors.values(), np.zeros(values.shape, dtype=bool))
    if _is_time(name, variable) and rest.any() and not _many_magnitudes(seen):
        # A block of one's trials that another program wrote.
        milliseconds = rest & (values / 1000 >= seen.low) & (values / 1000 <= seen.high)
        factors[0.001] = factors.get(0.001, False) | milliseconds
        rest &= ~milliseconds
    for factor, where in factors.items():
        if where.any():
            unit = _unit(name, variable, factor)
            yield Unfamiliar(name, "unit", where, _examples(values[where]), True, seen, factor, unit)
    width = high - low
    far = (low / _FAR, high * _FAR) if isinstance(variable, Positive) else (low - width, high + width)
    most = ~_rarely(rest, values)
    for cause, where in (("unit", rest & most), ("range", rest & ~most)):
        if where.any():
            plain = bool(((values[where] < far[0]) | (values[where] > far[1])).any())
            yield Unfamiliar(name, cause if plain else "range", where, _examples(values[where]), plain, seen)


def _other_units(
    name: str,
    variable: Variable,
    seen: ValueRange,
    values: np.ndarray,
    outside: np.ndarray,
    bounds: tuple[float, float],
) -> Iterator[tuple[int, float]]:
    """Data sets whose values have another unit, and what turns them into the one of the training."""
    if seen.medians is None or seen.spreads is None or _many_magnitudes(seen):
        return
    ordered, count, rows = np.sort(values, 1), np.isfinite(values).sum(1), np.arange(len(values))

    def at(level: float) -> np.ndarray:
        return ordered[rows, np.rint(level * np.maximum(count - 1, 0)).astype(int)]

    with np.errstate(invalid="ignore"):
        mostly = outside.sum(1) > 0.5 * count
        enough = (count >= _LEAST_TRIALS) & ((np.diff(ordered, axis=1) > 0).sum(1) >= _LEAST_VALUES - 1)
        spread = at(0.9) - at(0.1)
        narrow = enough & (spread > 0) & (spread < seen.spreads[0] / _OTHER_SPREAD)
        usual = np.median(spread[enough]) if enough.any() else 0.0
        narrower = enough & (spread > 0) & (spread < usual / _RADIAN * 3)
        least, most = seen.medians[0] / _OTHER_MEDIAN, seen.medians[1] * _OTHER_MEDIAN
        middle = at(0.5)
        suspect = mostly | ((middle < least) | (middle > most) if isinstance(variable, Positive) else narrow | narrower)
    for index in np.flatnonzero(suspect & (count > 0)):
        least_spread, most_spread = seen.spreads[0] / 2, seen.spreads[1] * 2
        if narrower[index]:
            # One subject in radians among others in degrees.
            least_spread, most_spread = usual / 3, usual * 3
        for factor in _factors(name, variable, seen, bool(narrow[index] | narrower[index])):
            if isinstance(variable, Positive):
                fits = least <= factor * middle[index] <= most
            else:
                ends = np.array([at(0.0)[index], at(1.0)[index]])
                fits = bounds[0] <= factor * ends[0] and factor * ends[1] <= bounds[1]
                if enough[index]:
                    fits = fits and least_spread <= factor * spread[index] <= most_spread
                elif factor < 1:
                    # Of a few values, one a little outside is no evidence of a unit.
                    fits = fits and np.abs(ends).max() > _PLAINLY * max(abs(seen.low), abs(seen.high))
            if fits:
                yield int(index), factor
                break


def _factors(name: str, variable: Variable, seen: ValueRange, narrow: bool) -> tuple[float, ...]:
    """Factors between usual units, the likeliest first."""
    if isinstance(variable, Integer):
        # In another unit it would be no whole number.
        return ()
    if isinstance(variable, Positive):
        return (0.001, 0.01, 1000.0, 100.0) if _is_time(name, variable) else (0.01, 0.001, 100.0, 1000.0)
    largest, time = max(abs(seen.low), abs(seen.high)), _is_time(name, variable)
    if narrow:
        # Places that reach beyond a full circle are no radians.
        fractions = seen.low >= 0 and 10 < largest <= 105
        return (1000.0,) * time + (100.0,) * fractions + (_RADIAN,) * (2 * math.pi < largest <= 360)
    # A quarter of a circle, half of one or a whole one.
    angle = any(0.98 < largest / part / math.pi <= 1.01 for part in (0.5, 1, 2))
    return (0.001,) * time + (0.01,) * (seen.low >= 0 and largest <= 1.01) + (1 / _RADIAN,) * angle


def _many_magnitudes(seen: ValueRange) -> bool:
    """Whether training values spread over so many orders of magnitude that they tell nothing of a unit: delays, say."""
    above = [x for level, x in seen.quantiles if 0.01 <= level <= 0.99 and x > 0]
    return seen.low >= 0 and bool(above) and above[-1] > _MAGNITUDES * above[0]


def _is_time(name: str, variable: Variable) -> bool:
    above = isinstance(variable, Positive) and variable.above is not None
    return above or any(word in _TIMES for word in name.lower().split("_"))


def _unit(name: str, variable: Variable, factor: float) -> str:
    """What values seem to be that a factor turns into what the model reads."""
    if factor == _RADIAN:
        return "radians, and the model reads degrees"
    if factor == 1 / _RADIAN:
        return "degrees, and the model reads radians"
    if factor in (0.001, 1000.0) and _is_time(name, variable):
        pair = ("milliseconds", "seconds") if factor < 1 else ("seconds", "milliseconds")
        return f"{pair[0]}, and the model reads {pair[1]}"
    if factor in (0.01, 100.0):
        pair = ("per cent", "fractions") if factor < 1 else ("fractions", "per cent")
        return f"{pair[0]}, and the model reads {pair[1]}"
    return f"numbers in {'thousandths' if factor < 1 else 'thousands'} of the model's unit"
