"""A hierarchy by formula, sampled by NumPyro's NUTS: the model, its quick fit, where chains start and how they step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import random
from numpyro import handlers
from numpyro.distributions import biject_to

from ppl_buffer.formulas.priors import Site
from ppl_buffer.formulas.terms import Centring, Design, Grouping
from ppl_buffer.network.backend import Named
from ppl_buffer.network.lapses import Lapse
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.numpyro import JointPredictive, linear_predictors, natural_params, site_distribution
from ppl_buffer.workflow.chains import Sampler, draws_fingerprint
from ppl_buffer.workflow.compilation import compiled_at_first
from ppl_buffer.workflow.design_fit import DesignFit, design_fit
from ppl_buffer.workflow.hierarchical import RATE, Box, lapse_rate
from ppl_buffer.workflow.sampling import Draws, Kept, Programs, run_chains

# With more coefficients and effects than this, steps are scaled by the variance of each, not by the covariance.
_MOST_TOGETHER = 1500
# How far apart chains start, in standard deviations of the quick fit.
_APART = 1.5


def formula_model(
    net: Network,
    data: ObservedTrials,
    design: Design,
    lapse: Lapse | None = None,
    centring: Mapping[str, Centring] | None = None,
) -> None:
    """The NumPyro model of data sets whose parameters formulas describe.

    Args:
        net: a trained network, loaded with backend "jax".
        data: what `net.observe` returned: one batch dimension, the data sets. Trials that were observed with the
            design's ``conditions`` are computed by condition.
        design: what `ppl_buffer.formulas.design` made of them.
        lapse: what a lapse is, and how often; a rate with a prior is estimated.
        centring: how offsets are written; None = non-centred. The posterior is the same.

    Sites: those of `ppl_buffer.numpyro.hierarchical_params`; the same of ``lapse``, a rate that is estimated, on the
    scale on which its prior is standard normal.
    """
    if data.conditions is not None:
        design = design.at_conditions
    linear, averages = linear_predictors(net, design, centring)
    params, by_trial = natural_params(net, design, linear, averages)
    if RATE in design.parameters and lapse is not None and lapse.prior is not None:
        numpyro.deterministic(f"{RATE}_group", lapse_rate(lapse.prior, averages[RATE]))
        rates = lapse_rate(lapse.prior, linear[RATE][design.parameters[RATE].rows])
        with numpyro.plate("subject", design.data_sets):
            lapse = lapse.at(numpyro.deterministic(RATE, rates))
    site = next(iter(net.schema.outcomes)) if len(net.schema.outcomes) == 1 else "trials"
    with numpyro.plate("subject", design.data_sets):
        made = JointPredictive(net, data, params=params, trial_params=by_trial or None, lapse=lapse)
        numpyro.sample(site, made, obs=data.value)


def quick_design_fit(
    net: Network, data: ObservedTrials, design: Design, lapse: Lapse | None = None, *, progress: bool = False
) -> DesignFit:
    """The quick fit of `formula_model`."""
    if data.conditions is not None:
        design = design.at_conditions

    @compiled_at_first
    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def loss(predictors: Named, data: ObservedTrials) -> tuple[jax.Array, jax.Array]:
        params, by_trial = design.natural_at(net, predictors)
        lapses = lapse
        if lapse is not None and lapse.prior is not None:
            lapses = lapse.at(lapse_rate(lapse.prior, predictors[RATE]))
        made = JointPredictive(
            net, data, params=params, trial_params=by_trial or None, lapse=lapses, validate_args=False
        )
        values = -made.log_prob(data.value)
        return values.sum(), values

    def evaluate(predictors: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        single = {name: jnp.asarray(x, jnp.float32) for name, x in predictors.items()}
        (_, values), gradients = loss(single, data)
        return np.asarray(values, float), {name: np.asarray(x, float) for name, x in gradients.items()}

    ceilings = {
        name: np.where(design.trial_mask, one.ceilings[one.rows], np.inf).min(1)
        if one.by_trial
        else one.ceilings[one.rows]
        for name, one in design.parameters.items()
        if one.ceilings is not None
    }
    return design_fit(evaluate, design, Box(net, ceilings).starts(), progress=progress)


def sample_design(
    net: Network,
    data: ObservedTrials,
    design: Design,
    fit: DesignFit,
    sampler: Sampler,
    *,
    lapse: Lapse | None = None,
    seed: int = 0,
    progress: bool = True,
    path: Path | None = None,
) -> Draws:
    """Draw from the posterior of `formula_model` with NUTS; the arguments are those of `chains.sample`."""
    chains, key = sampler.chains, random.PRNGKey(seed)
    start = random.split(key, chains) if chains > 1 else key[None], _first_values(design, fit, chains, seed)
    mass, dense = _mass_matrix(design, fit)
    programs = Programs(
        partial(formula_model, net, design=design, lapse=lapse, centring=fit.centring), sampler.warmup, start, data,
        mass, _options(sampler, dense),
    )  # fmt: skip
    about = {"sampler": asdict(sampler) | {"draws": None}, "seed": seed, "lapse": repr(lapse), **_description(design)}
    kept = None
    if path is not None:
        kept = Kept(path, draws_fingerprint(net, data, Box(net, {}), about, _arrays(design, fit)))
    return run_chains(programs, start, data, mass, draws=sampler.draws, kept=kept, progress=progress)


def _options(sampler: Sampler, dense: list[tuple[str, ...]]) -> dict[str, object]:
    """Of NUTS."""
    return {
        "step_size": 0.3, "target_accept_prob": sampler.target_accept, "max_tree_depth": sampler.tree_depth,
        "dense_mass": dense, "adapt_mass_matrix": False,
    }  # fmt: skip


def params_at(
    net: Network, design: Design, centring: Mapping[str, Centring] | None, sites: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Parameters in natural units at draws of the sites: name -> (draws, S), or (draws, S, K) of those by trial.

    Args:
        net: the network.
        design: what formulas made.
        centring: that of the draws.
        sites: name -> (draws, ...), all latent ones.
    """

    def at(values: Mapping[str, jax.Array]) -> Named:
        with handlers.block(), handlers.substitute(data=dict(values)):
            linear, _ = linear_predictors(net, design, centring)
        params, by_trial = design.natural(net, linear)
        return {**params, **by_trial}

    latent = {name: jnp.asarray(sites[name]) for name in _latent_sites(design)}
    return {name: np.asarray(x) for name, x in jax.lax.map(jax.jit(at), latent).items()}


def _latent_sites(design: Design) -> list[str]:
    """Names of coefficients, spreads, offsets and correlations."""
    groupings = [each for one in design.parameters.values() for each in one.groupings]
    offsets = [effect.offset for each in groupings for effect in each.effects]
    return [*design.sites, *offsets, *(each.correlation for each in groupings if each.correlation)]


def _description(design: Design) -> dict[str, object]:
    """What draws depend on of a design, beside its arrays."""
    priors = {name: site.description() for name, site in design.sites.items()}
    correlations = [name for name in _latent_sites(design) if name.endswith("_correlation")]
    return {"formulas": design.formulas, "fixed": dict(design.fixed), "priors": priors, "correlations": correlations}


def _arrays(design: Design, fit: DesignFit) -> dict[str, np.ndarray]:
    """The arrays of a design, and how its offsets are written."""
    arrays: dict[str, np.ndarray] = {}
    for name, one in design.parameters.items():
        arrays |= {f"{name}/rows": one.rows, f"{name}/matrix": one.matrix, f"{name}/centres": one.centres}
        if one.ceilings is not None:
            arrays[f"{name}/ceilings"] = one.ceilings
        for each in one.groupings:
            arrays[f"{name}/{each.factor}"] = each.index
            arrays |= {f"{name}/{effect.site}": effect.columns for effect in each.effects}
    for site, written in fit.centring.items():
        arrays |= {f"{site}/share": written.share, f"{site}/spread": written.spread}
    return arrays


def _slope(site: Site, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A site's value (q,) on the unconstrained scale of its prior, and how fast that grows with it, (q,).

    Of a spread: how fast with its logarithm.
    """
    prior = site_distribution(site)
    to = biject_to(prior.base_dist.support if site.shape else prior.support)
    inside = value
    if site.prior is not None:
        # A mode of the quick fit may lie outside the prior's bounds.
        low, high = site.prior.quantile(np.array([0.01, 0.99]))
        inside = np.clip(value, low, high)
    number = jnp.asarray(inside, jnp.float32)
    unconstrained = to.inv(number)
    growth = 1 / jax.vmap(jax.grad(lambda x: to(x)))(unconstrained)
    return np.asarray(unconstrained), np.asarray(growth * (number if site.positive else 1.0))


def _in_units_of_spread(design: Design, fit: DesignFit) -> np.ndarray:
    """By what the numbers of the quick fit are divided, (N,): correlated effects are in units of their spread."""
    units = np.ones(len(fit.mode))
    correlated = {
        effect.site
        for one in design.parameters.values() for each in one.groupings if each.correlation for effect in each.effects
    }  # fmt: skip
    for block in fit.effects:
        if block.name in correlated:
            units[block.part] = np.broadcast_to(fit.spreads[block.name], block.shape).reshape(-1)
    return units


def _stretches(design: Design, fit: DesignFit) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Modes of the coefficients on their unconstrained scales, and what stretches all of the vector, (N,)."""
    stretch = 1.0 / _in_units_of_spread(design, fit)
    modes = {}
    for block in fit.coefficients:
        site = design.sites[block.name]
        modes[block.name], stretch[block.part] = _slope(site, fit.mode[block.part])
    return modes, stretch


def _groupings(design: Design) -> list[Grouping]:
    return [each for one in design.parameters.values() for each in one.groupings]


def _mass_matrix(design: Design, fit: DesignFit) -> tuple[dict[tuple[str, ...], jax.Array], list[tuple[str, ...]]]:
    """How NUTS scales its steps, known from the quick fit, so that warm-up need not find out.

    Returns:
        its `inverse_mass_matrix`, blocks by their sites; and those that are matrices.
    """
    _, stretch = _stretches(design, fit)
    together = tuple([block.name for block in fit.coefficients] + [f"{block.name}_offset" for block in fit.effects])
    dense = len(fit.mode) <= _MOST_TOGETHER
    scaled = fit.covariance * stretch * stretch[:, None]
    matrices = {together: jnp.asarray(scaled if dense else np.diag(scaled), jnp.float32)}
    for block in fit.effects:
        site = design.sites[f"{block.name}_spread"]
        growth = _slope(site, fit.spreads[block.name])[1]
        matrices[(site.name,)] = jnp.asarray(fit.spread_variances[block.name] * growth**2, jnp.float32)
    for each in _groupings(design):
        if each.correlation:
            # A correlation of n levels is known to about 1 / sqrt(n).
            size = each.size * (each.size - 1) // 2
            matrices[(each.correlation,)] = jnp.full(size, 1 / (len(each.levels) + 3), jnp.float32)
    return matrices, [together] if dense else []


def _first_values(design: Design, fit: DesignFit, chains: int, seed: int) -> dict[str, jax.Array]:
    """Where chains begin, apart, or R-hat could not tell whether they have met: site -> (chains, ...)."""
    rng = np.random.default_rng(seed)
    modes, stretch = _stretches(design, fit)
    root = np.linalg.cholesky(fit.covariance + 1e-9 * np.eye(len(fit.mode)))
    moved = _APART * stretch * (rng.standard_normal((chains, len(fit.mode))) @ root.T)
    first: dict[str, np.ndarray] = {}
    for block in fit.coefficients:
        shape = (chains, *design.sites[block.name].shape)
        first[block.name] = (modes[block.name] + moved[:, block.part]).reshape(shape)
    for block in fit.effects:
        site = design.sites[f"{block.name}_spread"]
        offsets = fit.mode[block.part] * stretch[block.part] + moved[:, block.part]
        shape = block.shape if site.shape else block.shape[:1]
        first[f"{block.name}_offset"] = offsets.reshape((chains, *shape))
        middle, growth = _slope(site, fit.spreads[block.name])
        wide = growth * np.sqrt(fit.spread_variances[block.name]) * rng.standard_normal((chains, site.size))
        first[site.name] = (middle + wide).reshape((chains, *site.shape))
    for each in _groupings(design):
        if each.correlation:
            first[each.correlation] = 0.3 * rng.standard_normal((chains, each.size * (each.size - 1) // 2))
    return {site: jnp.asarray(value, jnp.float32) for site, value in first.items()}
