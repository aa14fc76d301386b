"""A NumPyro model run again at every draw of a posterior, and what its samplers recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro import handlers
from numpyro.infer import Predictive as GuidePredictive

from ppl_buffer.findings import ignore_findings
from ppl_buffer.ppl.trace import (
    ModelSites,
    PosteriorTrace,
    check_plate,
    check_samples,
    fixed_leaves,
    unwrap_joint,
    varying,
    varying_data_error,
)

# The sampler's extra fields by ArviZ's names.
_STATISTICS = {
    "potential_energy": "lp",
    "num_steps": "n_steps",
    "accept_prob": "acceptance_rate",
    "adapt_state.step_size": "step_size",
}


def _run(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], sample: Mapping[str, Any], key: Any
) -> dict[str, Any]:
    """Sites of a model, some of them fixed to a sample."""
    seeded = handlers.seed(handlers.substitute(model, data=sample), key)
    return handlers.trace(seeded).get_trace(*args, **kwargs)


def _is_latent(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def _is_deterministic(site: Mapping[str, Any]) -> bool:
    return site["type"] == "deterministic"


def trace_posterior(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    samples: Mapping[str, Any],
    progress: bool = False,
) -> PosteriorTrace:
    """Run a model at each of S draws of its latent sites; all draws in one go.

    Args:
        model: the model.
        args: its arguments.
        kwargs: its keyword arguments.
        samples: dict name -> (S, *shape); sites that are not latent are ignored.
        progress: not used: it takes one vectorised run.

    Raises:
        ValueError: if draws of a latent site are missing, a plate subsamples, or data depend on latent variables.
    """
    first = {name: jnp.asarray(value)[0] for name, value in samples.items()}
    # A single draw outside the trained range says little of the posterior.
    with ignore_findings():
        sites = _sort_sites(_run(model, args, kwargs, first, random.PRNGKey(0)), samples)
    run = partial(_run_at_draw, model, args, kwargs, sites)
    draws = {name: jnp.asarray(samples[name]) for name in sites.latent}
    # Not compiled: what does not depend on the draws stays concrete, and is computed once.
    results = jax.vmap(run)(draws) if draws else jax.tree.map(lambda x: x[None], run({}))
    return sites.posterior_trace(*jax.device_get(results))


def _sort_sites(trace: Mapping[str, Any], samples: Mapping[str, Any]) -> ModelSites:
    for name, site in trace.items():
        if site["type"] == "plate":
            check_plate(name, site["args"][0], len(site["value"]))
    latent = [name for name, site in trace.items() if _is_latent(site)]
    check_samples(samples, latent)
    kept = {name: site for name, site in trace.items() if site["type"] in ("sample", "deterministic")}
    return ModelSites.sort(
        latent=latent,
        deterministic=[name for name, site in kept.items() if _is_deterministic(site)],
        observed={name: site for name, site in kept.items() if site["type"] == "sample" and site["is_observed"]},
        plates={
            name: {frame.dim: (frame.name, frame.size) for frame in site["cond_indep_stack"]}
            for name, site in kept.items()
        },
        distributions={name: site["fn"] for name, site in kept.items() if site["type"] == "sample"},
    )


def _run_at_draw(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    sites: ModelSites,
    sample: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Values, log densities and what varies of the joint predictives, at one draw of the latent sites."""
    trace = _run(model, args, kwargs, sample, random.PRNGKey(0))
    by_site = {}
    for name in sites.joint_sites:
        joint = unwrap_joint(trace[name]["fn"])
        assert joint is not None
        if any(isinstance(leaf, jax.core.Tracer) for leaf in fixed_leaves(joint.query)):
            raise varying_data_error(name)
        by_site[name] = varying(joint.query)
    values = {name: trace[name]["value"] for name in [*sites.latent, *sites.deterministic]}
    log_probs = {name: trace[name]["fn"].log_prob(trace[name]["value"]) for name in [*sites.latent, *sites.observed]}
    return values, log_probs, by_site


def prior_samples(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Draws (draws, *shape) of a model's latent and deterministic sites from the prior."""

    def draw(key: Any) -> dict[str, Any]:
        trace = _run(model, args, kwargs, {}, key)
        return {name: site["value"] for name, site in trace.items() if _is_latent(site) or _is_deterministic(site)}

    return jax.device_get(jax.vmap(draw)(random.split(random.PRNGKey(seed), draws)))


def guide_samples(
    svi: Any, params: Any, args: Sequence[Any], kwargs: Mapping[str, Any], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Draws (draws, *shape) of what a guide samples, at its fitted `params`."""
    predictive = GuidePredictive(svi.guide, params=params, num_samples=draws)
    return {name: np.asarray(x) for name, x in predictive(random.PRNGKey(seed), *args, **kwargs).items()}


def sampled_model(mcmc: Any) -> Callable[..., Any] | None:
    """The model whose posterior an MCMC run samples; None where it samples a potential function."""
    return mcmc.sampler.model


def sampler_statistics(mcmc: Any) -> dict[str, np.ndarray]:
    """What a sampler recorded, dict name -> (chain, draw), under ArviZ's names."""
    statistics = {}
    for name, value in mcmc.get_extra_fields(group_by_chain=True).items():
        if hasattr(value, "ndim") and value.ndim == 2:
            statistics[_STATISTICS.get(name, name)] = np.asarray(value)
    if "lp" in statistics:
        statistics["lp"] = -statistics["lp"]
    if "n_steps" in statistics:
        # A tree of depth d takes from 2^(d - 1) to 2^d - 1 steps.
        statistics["tree_depth"] = np.log2(statistics["n_steps"]).astype(int) + 1
    return statistics
