"""Priors as distributions of PyMC."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pymc as pm
from pytensor.tensor.variable import TensorVariable

from ppl_buffer.formulas.priors import SPREAD_SCALE, Site
from ppl_buffer.prior import Prior

# Family -> PyMC's distribution, and its words for the family's arguments.
_FAMILIES = {
    "Uniform": (pm.Uniform, {"low": "lower", "high": "upper"}),
    "Normal": (pm.Normal, {"loc": "mu", "scale": "sigma"}),
    "TruncatedNormal": (pm.TruncatedNormal, {"loc": "mu", "scale": "sigma", "low": "lower", "high": "upper"}),
    "LogNormal": (pm.LogNormal, {"loc": "mu", "scale": "sigma"}),
    "HalfNormal": (pm.HalfNormal, {"scale": "sigma"}),
    "Gamma": (pm.Gamma, {"concentration": "alpha", "rate": "beta"}),
    "Beta": (pm.Beta, {"concentration1": "alpha", "concentration0": "beta"}),
}


def prior_distribution(prior: Prior, shape: Sequence[int] = ()) -> TensorVariable:
    """So many independent values of a prior that counts from no parameter, as a variable that belongs to no model."""
    family, words = _FAMILIES[prior.family]
    return family.dist(**{words[name]: value for name, value in prior.arguments.items()}, shape=tuple(shape))


def site_distribution(site: Site) -> TensorVariable:
    """The prior of a coefficient or of a spread, () or (q,) numbers, as a variable that belongs to no model."""
    if site.prior is not None:
        return prior_distribution(site.prior, site.shape)
    if site.positive:
        return pm.LogNormal.dist(np.log(site.scale), SPREAD_SCALE, shape=site.shape)
    return pm.Normal.dist(0.0, site.scale, shape=site.shape)
