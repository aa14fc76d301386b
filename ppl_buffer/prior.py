"""Prior distributions that a checkpoint can store and every probabilistic programming language can rebuild."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Family -> the names of its arguments, which NumPyro's and Pyro's classes of the same name take as well.
FAMILIES: dict[str, tuple[str, ...]] = {
    "Uniform": ("low", "high"),
    "Normal": ("loc", "scale"),
    "LogNormal": ("loc", "scale"),
    "HalfNormal": ("scale",),
    "Gamma": ("concentration", "rate"),
    "Beta": ("concentration1", "concentration0"),
}


@dataclass(frozen=True)
class Prior:
    """One parameter's prior distribution.

    Args:
        family: Uniform, Normal, LogNormal, HalfNormal, Gamma or Beta.
        arguments: the family's arguments, named as NumPyro and Pyro name them.

    Raises:
        ValueError: if the family is unknown or its arguments do not fit.
    """

    family: str
    arguments: Mapping[str, float]

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
        if self.family == "Uniform" and not arguments["low"] < arguments["high"]:
            raise ValueError(f"arguments of Uniform: expected low < high, got {arguments}")
        object.__setattr__(self, "arguments", {name: float(value) for name, value in arguments.items()})

    @classmethod
    def uniform(cls, low: float, high: float) -> Prior:
        """The uniform distribution on [low, high]."""
        return cls("Uniform", {"low": low, "high": high})

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Draw `size` values: (size,)."""
        a = self.arguments
        match self.family:
            case "Uniform":
                return rng.uniform(a["low"], a["high"], size)
            case "Normal":
                return rng.normal(a["loc"], a["scale"], size)
            case "LogNormal":
                return rng.lognormal(a["loc"], a["scale"], size)
            case "HalfNormal":
                return np.abs(rng.normal(0.0, a["scale"], size))
            case "Gamma":
                return rng.gamma(a["concentration"], 1 / a["rate"], size)
            case _:
                return rng.beta(a["concentration1"], a["concentration0"], size)

    def box(self) -> tuple[float, float]:
        """Interval that a training run can be said to have covered: all of a Uniform, else 99.98 % of the mass."""
        if self.family == "Uniform":
            return self.arguments["low"], self.arguments["high"]
        # A fixed, large sample keeps this module free of a special function for each family.
        draws = self.sample(np.random.default_rng(0), 1_000_000)
        low, high = np.quantile(draws, [1e-4, 1 - 1e-4])
        return float(low), float(high)

    def distribution(self, module: Any) -> Any:
        """The same distribution in `numpyro.distributions` or `pyro.distributions`."""
        return getattr(module, self.family)(**self.arguments)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description."""
        return {"family": self.family, "arguments": dict(self.arguments)}

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Prior:
        """Read what `to_dict` wrote."""
        return cls(description["family"], description["arguments"])
