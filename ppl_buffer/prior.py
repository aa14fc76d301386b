"""Prior distributions that a checkpoint can store and every probabilistic programming language can rebuild."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Family -> the names of its arguments, which NumPyro's and Pyro's classes of the same name take as well.
FAMILIES: dict[str, tuple[str, ...]] = {
    "Uniform": ("low", "high"),
    "Normal": ("loc", "scale"),
    "TruncatedNormal": ("loc", "scale", "low", "high"),
    "LogNormal": ("loc", "scale"),
    "HalfNormal": ("scale",),
    "Gamma": ("concentration", "rate"),
    "Beta": ("concentration1", "concentration0"),
}
# Families that can be moved by another parameter's value, and their arguments that move.
_MOVABLE = ("Uniform", "Normal", "TruncatedNormal")
_LOCATIONS = ("loc", "low", "high")
# Less of a normal distribution than this between its bounds is refused: draws are made by rejection.
_LEAST_MASS = 0.01


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
        if self.family not in FAMILIES:
            raise ValueError(f"family: expected one of {sorted(FAMILIES)}, got {self.family!r}")
        expected = FAMILIES[self.family]
        if set(self.arguments) != set(expected):
            raise ValueError(f"arguments of {self.family}: expected {list(expected)}, got {sorted(self.arguments)}")
        arguments = {name: self.arguments[name] for name in expected}
        for name, value in arguments.items():
            positive = name not in ("loc", "low", "high")
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or (positive and value <= 0):
                raise ValueError(
                    f"{name} of {self.family}: expected a finite number{' above 0' if positive else ''}, got {value!r}"
                )
        if "low" in arguments and not arguments["low"] < arguments["high"]:
            raise ValueError(f"arguments of {self.family}: expected low < high, got {arguments}")
        if self.family == "TruncatedNormal":
            below_low, below_high = _masses(arguments)
            if below_high - below_low < _LEAST_MASS:
                raise ValueError(
                    f"arguments of TruncatedNormal: expected bounds with at least {_LEAST_MASS:.0%} of the normal "
                    f"distribution between them, got {arguments}"
                )
        if self.relative_to is not None and self.family not in _MOVABLE:
            raise ValueError(f"relative_to: expected None or a family among {list(_MOVABLE)}, got {self.family!r}")
        object.__setattr__(self, "arguments", {name: float(value) for name, value in arguments.items()})

    @classmethod
    def uniform(cls, low: float, high: float) -> Prior:
        """The uniform distribution on [low, high]."""
        return cls("Uniform", {"low": low, "high": high})

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Draw `size` values, or differences from the parameter that they are relative to: (size,)."""
        a = self.arguments
        match self.family:
            case "Uniform":
                return rng.uniform(a["low"], a["high"], size)
            case "Normal":
                return rng.normal(a["loc"], a["scale"], size)
            case "TruncatedNormal":
                draws = np.empty(size)
                missing = np.arange(size)
                while len(missing):
                    new = rng.normal(a["loc"], a["scale"], len(missing))
                    draws[missing] = new
                    missing = missing[(new < a["low"]) | (new > a["high"])]
                return draws
            case "LogNormal":
                return rng.lognormal(a["loc"], a["scale"], size)
            case "HalfNormal":
                return np.abs(rng.normal(0.0, a["scale"], size))
            case "Gamma":
                return rng.gamma(a["concentration"], 1 / a["rate"], size)
            case _:
                return rng.beta(a["concentration1"], a["concentration0"], size)

    def quantile(self, probability: np.ndarray) -> np.ndarray:
        """The values (or differences) below which the prior has the given probabilities in (0, 1); any shape."""
        from scipy import special

        a, u = self.arguments, probability
        match self.family:
            case "Uniform":
                return a["low"] + (a["high"] - a["low"]) * u
            case "Normal":
                return a["loc"] + a["scale"] * special.ndtri(u)
            case "TruncatedNormal":
                below_low, below_high = _masses(a)
                return a["loc"] + a["scale"] * special.ndtri(below_low + (below_high - below_low) * u)
            case "LogNormal":
                return np.exp(a["loc"] + a["scale"] * special.ndtri(u))
            case "HalfNormal":
                return a["scale"] * special.ndtri(0.5 + 0.5 * u)
            case "Gamma":
                return special.gammaincinv(a["concentration"], u) / a["rate"]
            case _:
                return special.betaincinv(a["concentration1"], a["concentration0"], u)

    def cumulative(self, value: np.ndarray) -> np.ndarray:
        """The prior's probability of lying below values (or differences), any shape: the inverse of `quantile`."""
        from scipy import special

        a, x = self.arguments, np.asarray(value, dtype=float)
        # Of what is never below 0, nothing lies below less.
        positive = np.maximum(x, 0.0)
        match self.family:
            case "Uniform":
                return np.clip((x - a["low"]) / (a["high"] - a["low"]), 0.0, 1.0)
            case "Normal":
                return special.ndtr((x - a["loc"]) / a["scale"])
            case "TruncatedNormal":
                below_low, below_high = _masses(a)
                below = special.ndtr((x - a["loc"]) / a["scale"])
                return np.clip((below - below_low) / (below_high - below_low), 0.0, 1.0)
            case "LogNormal":
                with np.errstate(divide="ignore"):
                    return special.ndtr((np.log(positive) - a["loc"]) / a["scale"])
            case "HalfNormal":
                return 2 * special.ndtr(positive / a["scale"]) - 1
            case "Gamma":
                return special.gammainc(a["concentration"], a["rate"] * positive)
            case _:
                return special.betainc(a["concentration1"], a["concentration0"], np.clip(x, 0.0, 1.0))

    def box(self) -> tuple[float, float]:
        """Interval that a training run can be said to have covered: all between bounds, else 99.98 % of the mass.

        Of a prior that is relative to a parameter it is the interval of the difference.
        """
        if "low" in self.arguments:
            return self.arguments["low"], self.arguments["high"]
        # A fixed, large sample keeps this module free of a special function for each family.
        draws = self.sample(np.random.default_rng(0), 1_000_000)
        low, high = np.quantile(draws, [1e-4, 1 - 1e-4])
        return float(low), float(high)

    def distribution(self, module: Any) -> Any:
        """The same distribution in `numpyro.distributions` or `pyro.distributions`.

        Where the prior is relative to a parameter: a function that takes that parameter's value and returns the
        distribution.
        """
        family = getattr(module, self.family, None)
        if family is None:
            # Pyro has no truncated normal distribution.
            family = importlib.import_module("ppl_buffer.pyro").TruncatedNormal
        if self.relative_to is None:
            return family(**self.arguments)

        def given(value: Any) -> Any:
            return family(**{name: x + value if name in _LOCATIONS else x for name, x in self.arguments.items()})

        return given

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description."""
        return {"family": self.family, "arguments": dict(self.arguments), "relative_to": self.relative_to}

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Prior:
        """Read what `to_dict` wrote."""
        # Files from before there were relative priors lack the entry.
        return cls(description["family"], description["arguments"], description.get("relative_to"))


def _masses(arguments: Mapping[str, float]) -> tuple[float, float]:
    """Probability that the whole normal distribution lies below `low`, and below `high`."""
    standard = ((arguments[bound] - arguments["loc"]) / arguments["scale"] for bound in ("low", "high"))
    below_low, below_high = (0.5 * math.erfc(-x / math.sqrt(2)) for x in standard)
    return below_low, below_high
