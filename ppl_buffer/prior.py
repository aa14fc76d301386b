"""Prior distributions that a checkpoint can store and every probabilistic programming language can rebuild."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import special

from ppl_buffer.checks import check_choice, check_mapping, check_number

# Arguments that move with the value of the parameter that a prior is relative to.
LOCATIONS = ("loc", "low", "high")
# Less of a normal distribution than this between its bounds is refused: draws are made by rejection.
_LEAST_MASS = 0.01

Array = np.ndarray


@dataclass(frozen=True)
class Family:
    """A family of distributions, by functions that take its arguments after their own.

    Attributes:
        arguments: their names, which NumPyro's and Pyro's classes of the same name take as well.
        draw: of a generator and a number of draws.
        quantile: of probabilities, any shape.
        cdf: of values, any shape.
        movable: whether it can be moved by another parameter's value.
    """

    arguments: tuple[str, ...]
    draw: Callable[..., Array]
    quantile: Callable[..., Array]
    cdf: Callable[..., Array]
    movable: bool = False


def _masses(loc: float, scale: float, low: float, high: float) -> tuple[float, float]:
    """Probability that the whole normal distribution lies below `low`, and below `high`."""
    below_low, below_high = (0.5 * math.erfc(-(x - loc) / scale / math.sqrt(2)) for x in (low, high))
    return below_low, below_high


def _draw_truncated_normal(
    rng: np.random.Generator, size: int, loc: float, scale: float, low: float, high: float
) -> Array:
    draws = np.empty(size)
    missing = np.arange(size)
    while len(missing):
        new = rng.normal(loc, scale, len(missing))
        draws[missing] = new
        missing = missing[(new < low) | (new > high)]
    return draws


def _truncated_normal_quantile(u: Array, loc: float, scale: float, low: float, high: float) -> Array:
    below_low, below_high = _masses(loc, scale, low, high)
    return loc + scale * special.ndtri(below_low + (below_high - below_low) * u)


def _truncated_normal_cdf(x: Array, loc: float, scale: float, low: float, high: float) -> Array:
    below_low, below_high = _masses(loc, scale, low, high)
    below = special.ndtr((x - loc) / scale)
    return np.clip((below - below_low) / (below_high - below_low), 0.0, 1.0)


def _log_normal_cdf(x: Array, loc: float, scale: float) -> Array:
    with np.errstate(divide="ignore"):
        return special.ndtr((np.log(np.maximum(x, 0.0)) - loc) / scale)


# SciPy's frozen distributions parametrise some of these otherwise, and would round differently.
FAMILIES: dict[str, Family] = {
    "Uniform": Family(
        ("low", "high"),
        draw=lambda rng, size, low, high: rng.uniform(low, high, size),
        quantile=lambda u, low, high: low + (high - low) * u,
        cdf=lambda x, low, high: np.clip((x - low) / (high - low), 0.0, 1.0),
        movable=True,
    ),
    "Normal": Family(
        ("loc", "scale"),
        draw=lambda rng, size, loc, scale: rng.normal(loc, scale, size),
        quantile=lambda u, loc, scale: loc + scale * special.ndtri(u),
        cdf=lambda x, loc, scale: special.ndtr((x - loc) / scale),
        movable=True,
    ),
    "TruncatedNormal": Family(
        ("loc", "scale", "low", "high"),
        draw=_draw_truncated_normal,
        quantile=_truncated_normal_quantile,
        cdf=_truncated_normal_cdf,
        movable=True,
    ),
    "LogNormal": Family(
        ("loc", "scale"),
        draw=lambda rng, size, loc, scale: rng.lognormal(loc, scale, size),
        quantile=lambda u, loc, scale: np.exp(loc + scale * special.ndtri(u)),
        cdf=_log_normal_cdf,
    ),
    "HalfNormal": Family(
        ("scale",),
        draw=lambda rng, size, scale: np.abs(rng.normal(0.0, scale, size)),
        quantile=lambda u, scale: scale * special.ndtri(0.5 + 0.5 * u),
        cdf=lambda x, scale: 2 * special.ndtr(np.maximum(x, 0.0) / scale) - 1,
    ),
    "Gamma": Family(
        ("concentration", "rate"),
        draw=lambda rng, size, concentration, rate: rng.gamma(concentration, 1 / rate, size),
        quantile=lambda u, concentration, rate: special.gammaincinv(concentration, u) / rate,
        cdf=lambda x, concentration, rate: special.gammainc(concentration, rate * np.maximum(x, 0.0)),
    ),
    "Beta": Family(
        ("concentration1", "concentration0"),
        draw=lambda rng, size, concentration1, concentration0: rng.beta(concentration1, concentration0, size),
        quantile=lambda u, concentration1, concentration0: special.betaincinv(concentration1, concentration0, u),
        cdf=lambda x, concentration1, concentration0: special.betainc(
            concentration1, concentration0, np.clip(x, 0.0, 1.0)
        ),
    ),
}


@dataclass(frozen=True)
class Prior:
    """One parameter's prior distribution.

    Args:
        family: Uniform, Normal, TruncatedNormal, LogNormal, HalfNormal, Gamma or Beta.
        arguments: the family's arguments, named as NumPyro and Pyro name them. A TruncatedNormal has the ``loc`` and
            ``scale`` of the whole normal distribution and the bounds ``low`` and ``high``.
        relative_to: name of a parameter that comes earlier in the schema: the difference from its value is what has
            this distribution. Uniform, Normal and TruncatedNormal only.

    Raises:
        ValueError: if the family is unknown, its arguments do not fit, or it cannot be relative to a parameter.
    """

    family: str
    arguments: Mapping[str, float]
    relative_to: str | None = None

    def __post_init__(self) -> None:
        check_choice("family", self.family, tuple(sorted(FAMILIES)))
        expected = FAMILIES[self.family].arguments
        given = check_mapping(f"arguments of {self.family}", self.arguments)
        if set(given) != set(expected):
            raise ValueError(f"arguments of {self.family}: expected {list(expected)}, got {sorted(given)}")
        arguments = {name: self.arguments[name] for name in expected}
        for name, value in arguments.items():
            if name in LOCATIONS:
                check_number(f"{name} of {self.family}", value, "a finite number", lambda x: True)
            else:
                check_number(f"{name} of {self.family}", value, "a finite number above 0", lambda x: x > 0)
        if "low" in arguments and not arguments["low"] < arguments["high"]:
            raise ValueError(f"arguments of {self.family}: expected low < high, got {arguments}")
        if self.family == "TruncatedNormal":
            below_low, below_high = _masses(**arguments)
            if below_high - below_low < _LEAST_MASS:
                raise ValueError(
                    f"arguments of TruncatedNormal: expected bounds with at least {_LEAST_MASS:.0%} of the normal "
                    f"distribution between them, got {arguments}"
                )
        if self.relative_to is not None and not str(self.relative_to).isidentifier():
            raise ValueError(f"relative_to: expected the name of a parameter, got {self.relative_to!r}")
        if self.relative_to is not None and not FAMILIES[self.family].movable:
            movable = [name for name, family in FAMILIES.items() if family.movable]
            raise ValueError(f"relative_to: expected None or a family among {movable}, got {self.family!r}")
        object.__setattr__(self, "arguments", {name: float(value) for name, value in arguments.items()})

    @classmethod
    def uniform(cls, low: float, high: float) -> Prior:
        """The uniform distribution on [low, high]."""
        return cls("Uniform", {"low": low, "high": high})

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Draw `size` values, or differences from the parameter that they are relative to: (size,)."""
        return FAMILIES[self.family].draw(rng, size, **self.arguments)

    def quantile(self, probability: np.ndarray) -> np.ndarray:
        """The values (or differences) below which the prior has the given probabilities in (0, 1); any shape."""
        return FAMILIES[self.family].quantile(probability, **self.arguments)

    def cdf(self, value: np.ndarray) -> np.ndarray:
        """The prior's probability of lying below values (or differences), any shape: the inverse of `quantile`."""
        return FAMILIES[self.family].cdf(np.asarray(value, dtype=float), **self.arguments)

    def range(self) -> tuple[float, float]:
        """Interval that a training run can be said to have covered: all between bounds, else 99.98 % of the mass.

        Of a prior that is relative to a parameter it is the interval of the difference.
        """
        if "low" in self.arguments:
            return self.arguments["low"], self.arguments["high"]
        return self._range_of_draws

    @cached_property
    def _range_of_draws(self) -> tuple[float, float]:
        # Of draws, not of `quantile`: trained networks carry ranges that were found so.
        draws = self.sample(np.random.default_rng(0), 1_000_000)
        low, high = np.quantile(draws, [1e-4, 1 - 1e-4])
        return float(low), float(high)

    def moved(self, origin: Any) -> dict[str, Any]:
        """The family's arguments where the parameter that this prior is relative to has the value `origin`, any array.

        Only of a prior that is relative to a parameter.
        """
        return {name: x + origin if name in LOCATIONS else x for name, x in self.arguments.items()}

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description."""
        return {"family": self.family, "arguments": dict(self.arguments), "relative_to": self.relative_to}

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Prior:
        """Read what `to_dict` wrote."""
        # Files from before there were relative priors lack the entry.
        return cls(description["family"], description["arguments"], description.get("relative_to"))
