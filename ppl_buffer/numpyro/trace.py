"""A NumPyro model run again at every draw of a posterior, and what its samplers recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro import handlers
from numpyro.infer import Predictive as _GuidePredictive

from ppl_buffer.ppl.trace import (
    ObservedSite,
    PosteriorTrace,
    check_plate,
    check_samples,
    fixed_leaves,
    observed_site,
    unwrap_joint,
    varying,
    varying_data_error,
)


def _trace(model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], key: Any, fixed: Any) -> Any:
    seeded = handlers.seed(handlers.substitute(model, data=fixed), key)
    return handlers.trace(seeded).get_trace(*args, **kwargs)


def _is_latent(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def replay(
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
    trace = _trace(model, args, kwargs, random.PRNGKey(0), first)
    for name, site in trace.items():
        if site["type"] == "plate":
            check_plate(name, site["args"][0], len(site["value"]))
    latent = [name for name, site in trace.items() if _is_latent(site)]
    check_samples(samples, latent)
    deterministic = [name for name, site in trace.items() if site["type"] == "deterministic"]
    trials: dict[str, ObservedSite] = {}
    others: list[str] = []
    for name, site in trace.items():
        if site["type"] == "sample" and site["is_observed"]:
            found = observed_site(site["fn"], site["value"])
            if found is not None:
                trials[name] = found
            elif jnp.size(site["value"]):  # `numpyro.factor` observes nothing
                others.append(name)

    def one(sample: dict[str, Any]) -> Any:
        again = _trace(model, args, kwargs, random.PRNGKey(0), sample)
        conditioned = {}
        for name in trials:
            joint = unwrap_joint(again[name]["fn"])
            assert joint is not None
            if any(isinstance(leaf, jax.core.Tracer) for leaf in fixed_leaves(joint)):
                raise varying_data_error(name)
            conditioned[name] = varying(joint)
        values = {name: again[name]["value"] for name in [*latent, *deterministic]}
        scored = {name: again[name]["fn"].log_prob(again[name]["value"]) for name in [*latent, *others]}
        return values, scored, conditioned

    drawn = {name: jnp.asarray(samples[name]) for name in latent}
    # Not compiled: what does not depend on the draws stays concrete, and is computed once.
    values, scored, conditioned = jax.device_get(
        jax.vmap(one)(drawn) if drawn else jax.tree.map(lambda x: x[None], one({}))
    )
    for name, site in trials.items():
        site.params, site.lapse = conditioned[name]["params"], conditioned[name]["lapse"]
    return PosteriorTrace(
        values={name: np.asarray(value) for name, value in values.items()},
        log_prior={name: np.asarray(scored[name]) for name in latent},
        trials=trials,
        observed={name: np.asarray(trace[name]["value"]) for name in others},
        log_likelihood={name: np.asarray(scored[name]) for name in others},
        plates={
            name: {frame.dim: (frame.name, frame.size) for frame in site["cond_indep_stack"]}
            for name, site in trace.items()
            if site["type"] in ("sample", "deterministic")
        },
        batch_ndim={name: len(trace[name]["fn"].batch_shape) for name in [*latent, *others, *trials]},
    )


def prior_samples(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Draws (draws, *shape) of a model's latent and deterministic sites from the prior."""

    def one(key: Any) -> dict[str, Any]:
        trace = _trace(model, args, kwargs, key, {})
        kept = {name: site for name, site in trace.items() if _is_latent(site) or site["type"] == "deterministic"}
        return {name: site["value"] for name, site in kept.items()}

    return jax.device_get(jax.vmap(one)(random.split(random.PRNGKey(seed), draws)))


def guide_samples(
    svi: Any, params: Any, args: Sequence[Any], kwargs: Mapping[str, Any], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Draws (draws, *shape) of what a guide samples, at its fitted `params`."""
    predictive = _GuidePredictive(svi.guide, params=params, num_samples=draws)
    return {name: np.asarray(x) for name, x in predictive(random.PRNGKey(seed), *args, **kwargs).items()}


def sampler_statistics(mcmc: Any) -> dict[str, np.ndarray]:
    """What a sampler recorded, dict name -> (chain, draw), under ArviZ's names."""
    names = {
        "potential_energy": "lp",
        "num_steps": "n_steps",
        "accept_prob": "acceptance_rate",
        "adapt_state.step_size": "step_size",
    }
    found = {}
    for name, value in mcmc.get_extra_fields(group_by_chain=True).items():
        if hasattr(value, "ndim") and value.ndim == 2:
            found[names.get(name, name)] = np.asarray(value)
    if "lp" in found:
        found["lp"] = -found["lp"]
    if "n_steps" in found:
        # A tree of depth d takes from 2^(d - 1) to 2^d - 1 steps.
        found["tree_depth"] = np.log2(found["n_steps"]).astype(int) + 1
    return found
