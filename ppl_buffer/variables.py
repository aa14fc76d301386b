"""The kinds of a variable, and the scale each lives on.

Every transform here works on NumPy, torch and JAX arrays: functions take the array namespace as ``xp``
(``numpy``, ``torch`` or ``jax.numpy``), so that the two backends and the simulators share one definition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ppl_buffer.checks import check_flag, check_integer, check_number, is_integer

Array = Any

# Bounds of integers: beyond, single precision does not tell a value from the middle between it and the next.
_LARGEST = 2**22


def finite(name: str, value: float) -> float:
    """A finite number; ValueError otherwise, in which `name` is what it is called."""
    return check_number(name, value, "a finite number", lambda x: True)


def checked_range(name: str, value: tuple[float, float]) -> tuple[float, float]:
    """A pair (low, high) of finite numbers in order.

    Raises:
        ValueError: if it is none; `name` is what it is called.
    """
    try:
        low, high = value
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected a pair (low, high), got {value!r}") from None
    low, high = finite(name, low), finite(name, high)
    if not low < high:
        raise ValueError(f"{name}: expected low < high, got ({low}, {high})")
    return low, high


# Octaves of an input beyond which neighbours in single precision are a whole wave apart.
_MOST_OCTAVES = 20
# Standard deviations of an input that the longest wave spans: a little more than the range of evenly spread inputs.
_LONGEST_WAVE = 4.0


def _checked_frequencies(value: object) -> int | tuple[float, ...]:
    expected = f"a number of octaves from 1 to {_MOST_OCTAVES}, or frequencies above 0, each once"
    if is_integer(value):
        if value <= _MOST_OCTAVES:
            return int(value)
    elif isinstance(value, (Sequence, np.ndarray)) and len(value) and not isinstance(value, str):
        numbers = tuple(check_number("frequencies", x, expected, lambda x: x > 0) for x in value)
        if len({*numbers}) == len(numbers):
            return numbers
    raise ValueError(f"frequencies: expected {expected}, got {value!r}")


@dataclass(frozen=True)
class Real:
    """A real number.

    Args:
        lapse_range: range (low, high) of the uniform density that a lapse follows, in the variable's units.
        frequencies: for an input, such as a time or a place: the network reads it at finer scales too. Of an input x
            with mean m over the training data it reads, beside the standardised value, for each frequency f

                sin(2 pi f (x - m)),    cos(2 pi f (x - m)),

            without which it hardly tells neighbours apart in a signal that turns many times (random Fourier features,
            Rahimi & Recht 2007; Tancik et al. 2020, arXiv 2006.10739). Either the frequencies themselves, in waves per
            unit of the input: hertz of a time in seconds. Or a number n of octaves, whatever the unit: 1, 2, 4, ...,
            2^(n-1) waves over 4 standard deviations of the input, a little more than the range of evenly spread ones.
            The highest should turn once within the finest detail of the outcomes; waves faster than half the density
            of the points only say which point it is.

    Raises:
        ValueError: if a range is not in order, or frequencies are neither.
    """

    lapse_range: tuple[float, float] | None = None
    frequencies: int | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.lapse_range is not None:
            object.__setattr__(self, "lapse_range", checked_range("lapse_range", self.lapse_range))
        if self.frequencies is not None:
            object.__setattr__(self, "frequencies", _checked_frequencies(self.frequencies))

    def waves(self, std: float) -> tuple[float, ...]:
        """Frequencies in waves per standard deviation `std` of the input; none where none were asked for."""
        if self.frequencies is None:
            return ()
        if isinstance(self.frequencies, int):
            return tuple(2.0**octave / _LONGEST_WAVE for octave in range(self.frequencies))
        return tuple(frequency * std for frequency in self.frequencies)

    def unconstrain(self, xp: ModuleType, value: Array) -> Array:
        """Map a value to the unconstrained scale."""
        return value

    def constrain(self, xp: ModuleType, unconstrained: Array) -> Array:
        """Inverse of `unconstrain`."""
        return unconstrained

    def log_slope(self, xp: ModuleType, value: Array) -> Array:
        """Log derivative of `unconstrain` at a value: the log-Jacobian that a density carries."""
        return xp.zeros_like(value)

    def contains(self, xp: ModuleType, value: Array) -> Array:
        """Whether each value is legal: boolean array."""
        return xp.isfinite(value)

    @property
    def fill(self) -> float:
        """A legal value, for places where there is no trial."""
        return 0.0

    @property
    def description(self) -> str:
        """What a legal value is, for an error message."""
        return "a finite real number"


@dataclass(frozen=True)
class Positive:
    """A number above zero (a response time, a scale); the network sees its logarithm.

    Args:
        lapse_range: range (low, high) of the uniform density that a lapse follows, in the variable's units.
        above: for an outcome, the parameter that it always exceeds: a response time its non-decision time. Where the
            parameter is conditioned on, the head describes the logarithm of the difference, and the density is 0
            below; where it is hidden, the logarithm of the outcome.
    """

    lapse_range: tuple[float, float] | None = None
    above: str | None = None

    def __post_init__(self) -> None:
        if self.lapse_range is not None:
            low, high = checked_range("lapse_range", self.lapse_range)
            if low < 0:
                raise ValueError(f"lapse_range: expected a range of positive numbers, got ({low}, {high})")
            object.__setattr__(self, "lapse_range", (low, high))

    def unconstrain(self, xp: ModuleType, value: Array) -> Array:
        """Map a value to the unconstrained scale."""
        return xp.log(value)

    def constrain(self, xp: ModuleType, unconstrained: Array) -> Array:
        """Inverse of `unconstrain`."""
        return xp.exp(unconstrained)

    def log_slope(self, xp: ModuleType, value: Array) -> Array:
        """Log derivative of `unconstrain` at a value: the log-Jacobian that a density carries."""
        return -xp.log(value)

    def contains(self, xp: ModuleType, value: Array) -> Array:
        """Whether each value is legal: boolean array."""
        return xp.isfinite(value) & (value > 0)

    @property
    def fill(self) -> float:
        """A legal value, for places where there is no trial."""
        return 1.0

    @property
    def description(self) -> str:
        """What a legal value is, for an error message."""
        return "a number above 0"


@dataclass(frozen=True)
class Interval:
    """A number between two bounds.

    Args:
        low: lower bound.
        high: upper bound.
        closed: the bounds themselves are legal. Only for parameters: the network then reads the value on its
            linear scale, since the logit has no value at a bound.

    Raises:
        ValueError: if the bounds are not finite or not in order.
    """

    low: float
    high: float
    closed: bool = False

    def __post_init__(self) -> None:
        low, high = checked_range("Interval", (self.low, self.high))
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        object.__setattr__(self, "closed", check_flag("closed", self.closed))

    @property
    def lapse_range(self) -> tuple[float, float]:
        """A lapse is uniform over the interval."""
        return self.low, self.high

    def unconstrain(self, xp: ModuleType, value: Array) -> Array:
        """Map a value to the unconstrained scale."""
        if self.closed:
            return value
        return xp.log(value - self.low) - xp.log(self.high - value)

    def constrain(self, xp: ModuleType, unconstrained: Array) -> Array:
        """Inverse of `unconstrain`."""
        if self.closed:
            return unconstrained
        # The logistic function through tanh, which every namespace has and which never overflows.
        return self.low + (self.high - self.low) * 0.5 * (xp.tanh(0.5 * unconstrained) + 1)

    def log_slope(self, xp: ModuleType, value: Array) -> Array:
        """Log derivative of `unconstrain` at a value: the log-Jacobian that a density carries."""
        if self.closed:
            return xp.zeros_like(value)
        return math.log(self.high - self.low) - xp.log(value - self.low) - xp.log(self.high - value)

    def contains(self, xp: ModuleType, value: Array) -> Array:
        """Whether each value is legal: boolean array."""
        if self.closed:
            return (value >= self.low) & (value <= self.high)
        return (value > self.low) & (value < self.high)

    @property
    def fill(self) -> float:
        """A legal value, for places where there is no trial."""
        return 0.5 * (self.low + self.high)

    @property
    def description(self) -> str:
        """What a legal value is, for an error message."""
        brackets = "[]" if self.closed else "()"
        return f"a number in {brackets[0]}{self.low:g}, {self.high:g}{brackets[1]}"


@dataclass(frozen=True)
class Categorical:
    """One of n categories, coded 0 to n - 1.

    Args:
        n: number of categories, at least 2.

    Raises:
        ValueError: if n is not an integer above 1.
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", check_integer("Categorical: n", self.n, 2))

    @property
    def low(self) -> int:
        """The first code."""
        return 0

    def contains(self, xp: ModuleType, value: Array) -> Array:
        """Whether each value is legal: boolean array."""
        return (value >= 0) & (value < self.n) & (value == xp.floor(value))

    @property
    def fill(self) -> float:
        """A legal value, for places where there is no trial."""
        return 0.0

    @property
    def description(self) -> str:
        """What a legal value is, for an error message."""
        return f"an integer from 0 to {self.n - 1}"


@dataclass(frozen=True)
class Integer:
    """A whole number between two bounds that are legal themselves: a rating, a count, confidence in per cent.

    Its values have an order and distances, which the codes of `Categorical` have not: the network reads the number,
    and the probabilities of an outcome are the masses of a mixture of logistic distributions around the values
    (Salimans et al. 2017, arXiv 1701.05517), however many there are. A lapse is uniform over all of them.

    Not for parameters: a density is differentiated by these.

    Args:
        low: lowest value.
        high: highest value.

    Raises:
        ValueError: if the bounds are no integers, not in order, or beyond 2^22, where single precision ends to tell
            halves apart.

    Example:
        >>> import ppl_buffer as pb
        >>> pb.Schema(params={"bias": pb.Real()}, outcomes={"rating": pb.Integer(1, 7)}).outcomes["rating"].n
        7
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", check_integer("Integer: low", self.low, -_LARGEST))
        object.__setattr__(self, "high", check_integer("Integer: high", self.high, self.low + 1))
        if self.high > _LARGEST:
            raise ValueError(f"Integer: high: expected an integer of at most {_LARGEST}, got {self.high}")

    @property
    def n(self) -> int:
        """Number of values."""
        return self.high - self.low + 1

    def unconstrain(self, xp: ModuleType, value: Array) -> Array:
        """The number itself: mixtures of logistic distributions need no bounds."""
        return value

    def constrain(self, xp: ModuleType, unconstrained: Array) -> Array:
        """The nearest legal value of any number."""
        return xp.clip(xp.round(unconstrained), self.low, self.high)

    def contains(self, xp: ModuleType, value: Array) -> Array:
        """Whether each value is legal: boolean array."""
        return (value >= self.low) & (value <= self.high) & (value == xp.floor(value))

    @property
    def fill(self) -> float:
        """A legal value, for places where there is no trial."""
        return float((self.low + self.high) // 2)

    @property
    def description(self) -> str:
        """What a legal value is, for an error message."""
        return f"an integer from {self.low} to {self.high}"


Continuous = Real | Positive | Interval
# Of finitely many values: `n` of them, from `low` on.
Discrete = Integer | Categorical
# What a network reads as a standardised number.
Numeric = Continuous | Integer
Variable = Continuous | Discrete
