"""Default priors of a hierarchy, on the real line that `Network.into_box` maps into the trained range.

A mean of scale 1.5 covers the range nearly evenly. People do differ: a spread of exactly 0 is not plausible, and would
be a hard place for a sampler.

Effects are Normal(0, 1): of a difference between two categories, and of two standard deviations of a number, which is
what a difference between two equally frequent categories is (Gelman 2008, Statistics in Medicine 27, 2865-2873). So
large an effect leads from the middle of the range to three quarters of it; it is twice the spread that people have by
the median of its prior. People differ less in an effect than in the parameter: the spread of an effect has half the
median.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppl_buffer.prior import Prior

MEAN_SCALE, SPREAD_MEDIAN, SPREAD_SCALE = 1.5, 0.5, 0.7
EFFECT_SCALE, EFFECT_SPREAD_MEDIAN = 1.0, 0.25
# Concentration of the correlations of random effects (Lewandowski, Kurowicka & Joe 2009): above 1, so that near zero
# they are likelier than near one.
CORRELATION_CONCENTRATION = 2.0
_POSITIVE = ("Gamma", "HalfNormal", "LogNormal")


@dataclass(frozen=True, eq=False)
class Site:
    """A latent site of a formula: a coefficient, or the spread of a random effect.

    Attributes:
        name: of the site.
        labels: of its values, such as levels of a factor; () = one number.
        scale: () or (labels,): by default a coefficient is Normal(0, scale), and a spread has this median.
        positive: whether it is a spread.
        prior: in place of the default.
        means: whether the coefficients are means of groups, not differences.
    """

    name: str
    labels: tuple[str, ...]
    scale: np.ndarray
    positive: bool = False
    prior: Prior | None = None
    means: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """() or (labels,)."""
        return self.scale.shape

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return int(self.scale.size)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of a normal distribution like the prior, (size,); of a spread's logarithm."""
        if self.prior is None:
            flat = self.scale.reshape(-1)
            return (np.log(flat), np.full(self.size, SPREAD_SCALE)) if self.positive else (np.zeros(self.size), flat)
        low, middle, high = self.prior.quantile(np.array([0.1587, 0.5, 0.8413]))
        if self.positive:
            low, middle, high = np.log([low, middle, high])
        return np.full(self.size, middle), np.full(self.size, (high - low) / 2)

    def description(self) -> str:
        """Its prior in words."""
        if self.prior is not None:
            arguments = ", ".join(f"{name} {value:g}" for name, value in self.prior.arguments.items())
            return f"{self.prior.family}({arguments})"
        if np.ptp(self.scale) > 0:
            size = f"{self.scale.min():.3g} to {self.scale.max():.3g}"
        else:
            size = f"{self.scale.flat[0]:.3g}"
        return f"LogNormal(median {size}, {SPREAD_SCALE:g})" if self.positive else f"Normal(0, {size})"


def check_prior(argument: str, site: Site, prior: object) -> Prior:
    """A prior that a site can have.

    Raises:
        ValueError: if it is none, counts from another parameter, or allows a spread to be negative.
    """
    if not isinstance(prior, Prior) or prior.relative_to is not None:
        raise ValueError(f"{argument}: expected a ppl_buffer.Prior that counts from no parameter, got {prior!r}")
    if site.positive and prior.family not in _POSITIVE and prior.arguments.get("low", -1.0) < 0:
        raise ValueError(f"{argument}: expected a prior of numbers above 0, such as {_POSITIVE}, got {prior}")
    return prior


def effect_scales(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What a change of 1 in each column (R, C) counts as, (C,): 1 of a coded one, else 1 / (2 sd) of the column.

    Args:
        columns: of a design.
        weights: (R,), which sum to 1.
    """
    coded = np.isin(columns, (-1.0, 0.0, 1.0)).all(0)
    mean = weights @ columns
    spread = np.sqrt(np.maximum(weights @ (columns - mean) ** 2, 0.0))
    return np.where(coded | (spread == 0), 1.0, 1.0 / (2.0 * np.where(spread == 0, 1.0, spread)))
