"""A Pyro model run again at every draw of a posterior, and what its samplers recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from tqdm.auto import tqdm

from ppl_buffer.files import to_numpy
from ppl_buffer.findings import ignore_findings
from ppl_buffer.network.layout import map_leaves
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
from ppl_buffer.pyro.simulator import seeded


def _run(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], sample: Mapping[str, Any]
) -> dict[str, Any]:
    """Sample sites of a model, some of them fixed to a sample; without those of plates."""
    trace = poutine.trace(poutine.condition(model, data=dict(sample))).get_trace(*args, **kwargs)
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and type(site["fn"]).__name__ == "_Subsample":
            check_plate(name, site["fn"].size, len(site["value"]))
    return {name: site for name, site in prune_subsample_sites(trace).nodes.items() if site["type"] == "sample"}


def _is_latent(site: Mapping[str, Any]) -> bool:
    return not site["is_observed"] and not _is_deterministic(site)


def _is_deterministic(site: Mapping[str, Any]) -> bool:
    return bool(site["infer"].get("_deterministic", False))


def trace_posterior(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    samples: Mapping[str, Any],
    progress: bool = False,
) -> PosteriorTrace:
    """Run a model at each of S draws of its latent sites, one after another.

    Args:
        model: the model.
        args: its arguments.
        kwargs: its keyword arguments.
        samples: dict name -> (S, *shape); sites that are not latent are ignored.
        progress: show a progress bar.

    Raises:
        ValueError: if draws of a latent site are missing, a plate subsamples, or data depend on latent variables.
    """
    draws = {name: torch.as_tensor(value).detach() for name, value in samples.items()}
    count = len(next(iter(draws.values()))) if draws else 1
    # A single draw outside the trained range says little of the posterior. What a sampler drew without validation, as
    # Pyro's do, is not validated afterwards.
    with seeded(0), ignore_findings(), pyro.validation_enabled(False):
        sites = _sort_sites(_run(model, args, kwargs, {}), samples)
        results = []
        for draw in tqdm(range(count), disable=not progress, desc="posterior trace", unit="draw"):
            results.append(_run_at_draw(model, args, kwargs, sites, {name: draws[name][draw] for name in sites.latent}))
    return sites.posterior_trace(*map(_stack, zip(*results, strict=True)))


def _sort_sites(trace: Mapping[str, Any], samples: Mapping[str, Any]) -> ModelSites:
    latent = [name for name, site in trace.items() if _is_latent(site)]
    check_samples(samples, latent)
    deterministic = [name for name, site in trace.items() if _is_deterministic(site)]
    return ModelSites.sort(
        latent=latent,
        deterministic=deterministic,
        observed={name: site for name, site in trace.items() if name not in (*latent, *deterministic)},
        plates={
            name: {frame.dim: (frame.name, frame.size) for frame in site["cond_indep_stack"] if frame.vectorized}
            for name, site in trace.items()
        },
        batch_ndim={name: len(site["fn"].batch_shape) for name, site in trace.items() if name not in deterministic},
    )


def _run_at_draw(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    sites: ModelSites,
    sample: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Values, log densities and what varies of the joint predictives, at one draw of the latent sites."""
    trace = _run(model, args, kwargs, sample)
    by_site = {}
    for name, site in sites.joint_sites.items():
        joint = unwrap_joint(trace[name]["fn"])
        assert joint is not None
        pairs = zip(fixed_leaves(joint.query), fixed_leaves(site.query), strict=True)
        if not all(a is b or torch.equal(a, b) for a, b in pairs):
            raise varying_data_error(name)
        by_site[name] = map_leaves(to_numpy, varying(joint.query))
    values = {name: to_numpy(trace[name]["value"]) for name in [*sites.latent, *sites.deterministic]}
    log_probs = {
        name: to_numpy(trace[name]["fn"].log_prob(trace[name]["value"])) for name in [*sites.latent, *sites.observed]
    }
    return values, log_probs, by_site


def _stack(trees: Sequence[Any]) -> Any:
    """Equal nested dicts of arrays as one, whose arrays have a new first dimension."""
    first = trees[0]
    if isinstance(first, Mapping):
        return {name: _stack([tree[name] for tree in trees]) for name in first}
    return None if first is None else np.stack(trees)


def prior_samples(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Draws (draws, *shape) of a model's latent and deterministic sites from the prior."""
    results = []
    with seeded(seed), ignore_findings(), pyro.validation_enabled(False):
        for _ in range(draws):
            kept = _run(model, args, kwargs, {}).items()
            results.append(
                {name: to_numpy(site["value"]) for name, site in kept if _is_latent(site) or _is_deterministic(site)}
            )
    return _stack(results)


def guide_samples(
    svi: Any, params: Any, args: Sequence[Any], kwargs: Mapping[str, Any], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Draws (draws, *shape) of what a guide samples, at the parameter store's values, or at `params` name -> value."""
    guide = svi.guide if params is None else poutine.substitute(svi.guide, data=dict(params))
    results = []
    with seeded(seed):
        for _ in range(draws):
            nodes = poutine.trace(guide).get_trace(*args, **kwargs).nodes
            results.append({name: to_numpy(site["value"]) for name, site in nodes.items() if site["type"] == "sample"})
    return _stack(results)


def sampled_model(mcmc: Any) -> Callable[..., Any] | None:
    """The model whose posterior an MCMC run samples; None where it samples a potential function."""
    return mcmc.kernel.model


def sampler_statistics(mcmc: Any) -> dict[str, np.ndarray]:
    """What a sampler recorded, dict name -> (chain, draw): Pyro's keep which draws diverged, and no more."""
    divergences = mcmc.diagnostics().get("divergences")
    if divergences is None:
        return {}
    diverging = np.zeros(next(iter(mcmc.get_samples(group_by_chain=True).values())).shape[:2], dtype=bool)
    for chain, draws in divergences.items():
        diverging[int(chain.split()[-1]), draws] = True
    return {"diverging": diverging}
