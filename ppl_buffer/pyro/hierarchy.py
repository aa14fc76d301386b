"""Hierarchies by formula in a model of Pyro: sites of coefficients and random effects, and what they make."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from ppl_buffer.formulas.priors import CORRELATION_CONCENTRATION, SPREAD_SCALE, Site
from ppl_buffer.formulas.terms import Centring, Design, Effect, Grouping, check_design
from ppl_buffer.network.backend import Array, Named
from ppl_buffer.network.network import Network
from ppl_buffer.pyro.priors import prior_distribution


def hierarchical_params(
    net: Network, design: Design, centring: Mapping[str, Centring] | None = None
) -> tuple[Named, Named]:
    """Sample what formulas are made of, inside a model; the ``params`` and ``trial_params`` of `JointPredictive`.

    Sites, for each parameter: ``{name}_mean`` (the population's average) and ``{name}~{term}`` (coefficients, on the
    real line), ``{name}_spread`` and ``{name}_offset`` of ``(1 | subject)``, ``{name}~{term}|{factor}_spread`` and
    ``_offset`` of other random effects; deterministic: ``{name}_Intercept`` (where all columns are 0),
    ``{name}_group`` (the median subject) and ``{name}`` (each data set, at the mean of its trials), in natural units.

    Args:
        net: a trained network.
        design: what `ppl_buffer.formulas.design` made.
        centring: site of a random effect -> how its offsets are written; None = non-centred. The posterior is the same.

    Plates are called after the factors, ``subject`` among them, so that a model's own plate of data sets needs another
    name.

    Returns:
        parameters in natural units that each data set has, dict name -> (S,), and those that vary by trial, dict name
        -> (S, K), or (S, C) of a design `at_conditions`; it is empty where none does.

    Raises:
        ValueError: if `net` or `design` is something else, or `centring` does not fit it.
    """
    return natural_params(net, design, *linear_predictors(net, design, centring))


def natural_params(
    net: Network, design: Design, linear: Mapping[str, Array], averages: Mapping[str, Array]
) -> tuple[Named, Named]:
    """What `hierarchical_params` returns, of what `linear_predictors` did; its deterministic sites in natural units.

    Args:
        net: a trained network.
        design: what `ppl_buffer.formulas.design` made.
        linear: name -> (R,), of all parameters that are estimated.
        averages: name -> ().
    """
    params, by_trial = design.natural(net, linear)
    for name, value in design.group(net, averages).items():
        if name in design.parameters:
            pyro.deterministic(f"{name}_group", value)
    for name, value in design.typical(net, linear).items():
        if name in design.parameters:
            pyro.deterministic(name, value)
    return params, by_trial


def linear_predictors(
    net: Network, design: Design, centring: Mapping[str, Centring] | None = None
) -> tuple[Named, Named]:
    """Sample what formulas are made of; what they say on the real line.

    Args:
        net: a network, for the arrays of its backend.
        design: what `ppl_buffer.formulas.design` made.
        centring: as `hierarchical_params` takes it.

    Returns:
        linear predictors of the design's rows, dict name -> (R,), and of the population's average, dict name -> ().

    Raises:
        ValueError: if `net` or `design` is something else, or `centring` does not fit it.
    """
    centring = check_design(net, design).checked_centring(centring)
    linear: Named = {}
    averages: Named = {}
    plates: dict[str, pyro.plate] = {}
    for name, one in design.parameters.items():
        values = {site.name: pyro.sample(site.name, site_distribution(site)) for site in one.sites}
        effects: Named = {}
        for grouping in one.groupings:
            effects |= _effects(grouping, centring, plates)
        linear[name] = one.linear(net, values, effects)
        averages[name] = one.averaged(net, values)
        if one.intercept and len(one.centres) > 1:
            pyro.deterministic(f"{name}_Intercept", one.uncentred(net, values))
    return linear, averages


def site_distribution(site: Site) -> dist.TorchDistribution:
    """The prior of a coefficient or of a spread, () or (q,) numbers in one event."""
    if site.prior is not None:
        distribution = prior_distribution(site.prior).expand(site.shape)
    elif site.positive:
        distribution = dist.LogNormal(_number(np.log(site.scale)), SPREAD_SCALE)
    else:
        distribution = dist.Normal(torch.zeros(site.shape), _number(site.scale))
    return distribution.to_event(len(site.shape))


def _effects(grouping: Grouping, centring: Mapping[str, Centring], plates: dict[str, pyro.plate]) -> Named:
    """Random effects of one factor, dict site of the effect -> (G, q). Pyro has a plate of a name once in a model."""
    if grouping.plate not in plates:
        plates[grouping.plate] = pyro.plate(grouping.plate, len(grouping.levels))
    spreads, offsets, effects = [], [], dict[str, Array]()
    for effect in grouping.effects:
        spread = pyro.sample(effect.spread.name, site_distribution(effect.spread)).reshape(-1)
        known = None if grouping.correlation else centring.get(effect.site)
        ratio, scale = spread, torch.ones_like(spread)
        if known is not None:
            ratio = (spread / _number(known.spread)) ** _number(1 - known.share)
            scale = spread / ratio
        offset = _offset(plates[grouping.plate], effect, scale)
        effects[effect.site] = ratio * offset
        spreads.append(spread)
        offsets.append(offset)
    if grouping.correlation is None:
        return effects
    factor = pyro.sample(grouping.correlation, dist.LKJCholesky(grouping.size, torch.tensor(CORRELATION_CONCENTRATION)))
    together = torch.cat(offsets, -1) @ factor.mT * torch.cat(spreads)
    parts = torch.split(together, [effect.spread.size for effect in grouping.effects], dim=-1)
    return {effect.site: part for effect, part in zip(grouping.effects, parts, strict=True)}


def _offset(plate: pyro.plate, effect: Effect, scale: Array) -> Array:
    """Offsets (G, q) of one effect, normal with a scale of (q,) or (G, q)."""
    wide = torch.broadcast_to(scale, (plate.size, effect.spread.size))
    with plate:
        if effect.spread.shape == ():
            return pyro.sample(effect.offset, dist.Normal(0.0, wide[:, 0]))[:, None]
        return pyro.sample(effect.offset, dist.Normal(0.0, wide).to_event(1))


def _number(values: np.ndarray) -> Array:
    """Numbers in torch's default type."""
    return torch.as_tensor(np.array(values), dtype=torch.get_default_dtype())
