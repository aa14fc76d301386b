"""A NumPyro model run again at every draw of a posterior, and what its samplers recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import numpy as np
from jax import random
from numpyro import handlers
from numpyro.infer import Predictive as GuidePredictive
from numpyro.primitives import Messenger

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

# Arrays of JAX, distributions of NumPyro, and what holds them.
Tree: TypeAlias = Any
Model: TypeAlias = Callable[..., object]
# The sampler's extra fields by ArviZ's names.
_STATISTICS = {
    "potential_energy": "lp",
    "num_steps": "n_steps",
    "accept_prob": "acceptance_rate",
    "adapt_state.step_size": "step_size",
}


def _run(
    model: Model, args: Sequence[Tree], kwargs: Mapping[str, Tree], sample: Mapping[str, Tree], key: Tree
) -> dict[str, Tree]:
    """Sites of a model, some of them fixed to a sample."""
    seeded = handlers.seed(handlers.substitute(_WholePlates(model), data=sample), key)
    return handlers.trace(seeded).get_trace(*args, **kwargs)


class _WholePlates(Messenger):  # type: ignore[misc]
    """Refuses plates that show a part of the data, before anything is done with the part."""

    def process_message(self, msg: dict[str, Tree]) -> None:
        """Called by NumPyro with each site before it has a value."""
        if msg["type"] == "plate":
            size, used = msg["args"]
            check_plate(msg["name"], size, size if used is None else used)


def _is_latent(site: Mapping[str, Tree]) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def _is_deterministic(site: Mapping[str, Tree]) -> bool:
    return site["type"] == "deterministic"


def trace_posterior(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    samples: Mapping[str, Any],
    progress: bool = False,
) -> PosteriorTrace:
    """Run a model at each of S draws of its latent sites; all draws in one program.

    Args:
        model: the model.
        args: its arguments.
        kwargs: its keyword arguments.
        samples: dict name -> (S, *shape); sites that are not latent are ignored.
        progress: not used: it takes one vectorised run.

    Raises:
        ValueError: if draws of a latent site are missing, a plate subsamples, or data depend on latent variables.
    """
    known: dict[str, Tree] = {}

    def at_first(draw: Mapping[str, Tree]) -> dict[str, Tree]:
        """What observed sites hold at one draw: the distribution where it is a joint predictive, and the value."""
        trace = _run(model, args, kwargs, draw, random.PRNGKey(0))
        known.update(_sorted_sites(trace, samples))
        sites = {name: trace[name] for name in known["observed"]}
        return {name: (site["fn"] if unwrap_joint(site["fn"]) else None, site["value"]) for name, site in sites.items()}

    def everything(draws: Mapping[str, Tree]) -> Tree:
        observed = at_first({name: value[0] for name, value in draws.items()})
        run = partial(_run_at_draw, model, args, kwargs, known, list(observed))
        latent = {name: draws[name] for name in known["latent"]}
        return observed, _at_all_draws(run, latent) if latent else jax.tree.map(lambda x: x[None], run({})[:3])

    # A single draw outside the trained range says little of the posterior.
    with ignore_findings():
        observed, results = _in_one_program(everything, {name: np.asarray(x) for name, x in samples.items()})
    known["observed"] = {name: {"fn": fn, "value": value} for name, (fn, value) in observed.items()}
    return ModelSites.sort(**known).posterior_trace(*results)


def _at_all_draws(run: Callable[..., Tree], draws: Mapping[str, Tree]) -> Tree:
    """What `_run_at_draw` returns but for the data, at each of the draws; refuses data that are not alike at all."""
    try:
        return jax.vmap(run, out_axes=(0, 0, 0, None))(draws)[:3]
    except ValueError:
        # If anything else is wrong it is wrong here too.
        for name in jax.eval_shape(jax.vmap(run), draws)[3]:
            try:
                jax.eval_shape(jax.vmap(lambda draw, name=name: run(draw)[3][name], out_axes=None), draws)
            except ValueError:
                raise varying_data_error(name) from None
        raise


def _in_one_program(function: Callable[..., Tree], *arguments: Tree) -> Tree:
    """What a function of arrays returns, its arrays those of NumPy: compiled whole, not operation by operation.

    Arrays that it reads beside its arguments are none of the program, which serves other data of the same shapes too.
    """
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    beside = [x if isinstance(x, jax.Array) else np.asarray(x) for x in traced.consts]
    run = jax.jit(partial(jax.core.eval_jaxpr, traced.jaxpr))
    return jax.tree.unflatten(jax.tree.structure(shapes), jax.device_get(run(beside, *jax.tree.leaves(arguments))))


def _sorted_sites(trace: Mapping[str, Tree], samples: Mapping[str, Tree]) -> dict[str, Tree]:
    """The arguments of `ModelSites.sort` but for the observed sites, which are names."""
    latent = [name for name, site in trace.items() if _is_latent(site)]
    check_samples(samples, latent)
    kept = {name: site for name, site in trace.items() if site["type"] in ("sample", "deterministic")}
    return {
        "latent": latent,
        "deterministic": [name for name, site in kept.items() if _is_deterministic(site)],
        "observed": [name for name, site in kept.items() if site["type"] == "sample" and site["is_observed"]],
        "plates": {
            name: {frame.dim: (frame.name, frame.size) for frame in site["cond_indep_stack"]}
            for name, site in kept.items()
        },
        "batch_ndim": {name: len(site["fn"].batch_shape) for name, site in kept.items() if site["type"] == "sample"},
    }


def _run_at_draw(
    model: Model,
    args: Sequence[Tree],
    kwargs: Mapping[str, Tree],
    known: Mapping[str, Tree],
    observed: Sequence[str],
    sample: Mapping[str, Tree],
) -> tuple[dict[str, Tree], dict[str, Tree], dict[str, Tree], dict[str, Tree]]:
    """Values, log densities, what varies of the joint predictives, and their data, at one draw of the latent sites."""
    trace = _run(model, args, kwargs, sample, random.PRNGKey(0))
    by_site, log_probs, data = {}, {}, {}
    for name in [*known["latent"], *observed]:
        joint = unwrap_joint(trace[name]["fn"])
        if joint is None or name not in observed:
            log_probs[name] = trace[name]["fn"].log_prob(trace[name]["value"])
            continue
        by_site[name], data[name] = varying(joint.query), fixed_leaves(joint.query)
    values = {name: trace[name]["value"] for name in [*known["latent"], *known["deterministic"]]}
    return values, log_probs, by_site, data


def prior_samples(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Draws (draws, *shape) of a model's latent and deterministic sites from the prior."""

    def draw(key: Tree) -> dict[str, Tree]:
        trace = _run(model, args, kwargs, {}, key)
        return {name: site["value"] for name, site in trace.items() if _is_latent(site) or _is_deterministic(site)}

    def every(key: Tree) -> dict[str, Tree]:
        return jax.vmap(draw)(random.split(key, draws))

    return _in_one_program(every, random.PRNGKey(seed))


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
