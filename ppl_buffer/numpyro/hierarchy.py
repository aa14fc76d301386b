"""Hierarchies by formula in a model of NumPyro: sites of coefficients and random effects, and what they make."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from ppl_buffer.formulas.priors import CORRELATION_CONCENTRATION, SPREAD_SCALE, Site
from ppl_buffer.formulas.tables import SUBJECT_COLUMN
from ppl_buffer.formulas.terms import Centring, Design, Effect, Grouping, check_design
from ppl_buffer.network.backend import Array, Named
from ppl_buffer.network.network import Network
from ppl_buffer.numpyro.priors import prior_distribution


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
            numpyro.deterministic(f"{name}_group", value)
    with numpyro.plate(SUBJECT_COLUMN, design.data_sets):
        for name, value in design.typical(net, linear).items():
            if name in design.parameters:
                numpyro.deterministic(name, value)
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
    for name, one in design.parameters.items():
        values = {site.name: numpyro.sample(site.name, site_distribution(site)) for site in one.sites}
        effects: Named = {}
        for grouping in one.groupings:
            effects |= _effects(grouping, centring)
        linear[name] = one.linear(net, values, effects)
        averages[name] = one.averaged(net, values)
        if one.intercept and len(one.centres) > 1:
            numpyro.deterministic(f"{name}_Intercept", one.uncentred(net, values))
    return linear, averages


def site_distribution(site: Site) -> dist.Distribution:
    """The prior of a coefficient or of a spread, () or (q,) numbers in one event."""
    if site.prior is not None:
        distribution = prior_distribution(site.prior).expand(site.shape)
    elif site.positive:
        distribution = dist.LogNormal(jnp.asarray(np.log(site.scale)), SPREAD_SCALE)
    else:
        distribution = dist.Normal(0.0, jnp.asarray(site.scale))
    return distribution.to_event(len(site.shape))


def _effects(grouping: Grouping, centring: Mapping[str, Centring]) -> Named:
    """Random effects of one factor, dict site of the effect -> (G, q)."""
    spreads, offsets, effects = [], [], dict[str, Array]()
    for effect in grouping.effects:
        spread = numpyro.sample(effect.spread.name, site_distribution(effect.spread)).reshape(-1)
        known = None if grouping.correlation else centring.get(effect.site)
        ratio, scale = spread, jnp.ones_like(spread)
        if known is not None:
            ratio = (spread / known.spread) ** (1 - known.share)
            scale = spread / ratio
        offset = _offset(grouping, effect, scale)
        effects[effect.site] = ratio * offset
        spreads.append(spread)
        offsets.append(offset)
    if grouping.correlation is None:
        return effects
    factor = numpyro.sample(grouping.correlation, dist.LKJCholesky(grouping.size, CORRELATION_CONCENTRATION))
    together = jnp.concatenate(offsets, -1) @ factor.T * jnp.concatenate(spreads)
    ends = np.cumsum([effect.spread.size for effect in grouping.effects])[:-1]
    parts = jnp.split(together, ends, axis=-1)
    return {effect.site: part for effect, part in zip(grouping.effects, parts, strict=True)}


def _offset(grouping: Grouping, effect: Effect, scale: Array) -> Array:
    """Offsets (G, q) of one effect, normal with a scale of (q,) or (G, q)."""
    levels = len(grouping.levels)
    wide = jnp.broadcast_to(scale, (levels, effect.spread.size))
    with numpyro.plate(grouping.plate, levels):
        if effect.spread.shape == ():
            return numpyro.sample(effect.offset, dist.Normal(0.0, wide[:, 0]))[:, None]
        return numpyro.sample(effect.offset, dist.Normal(0.0, wide).to_event(1))
