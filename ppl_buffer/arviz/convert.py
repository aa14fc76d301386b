"""Conversion of a finished fit: what users call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

import numpy as np

from ppl_buffer.arviz.dimensions import dataset
from ppl_buffer.arviz.groups import GroupBuilder, Scored, Settings
from ppl_buffer.arviz.language import language_name, language_of
from ppl_buffer.arviz.versions import arviz_version, container
from ppl_buffer.checks import check_integer
from ppl_buffer.files import to_numpy
from ppl_buffer.findings import warn_of
from ppl_buffer.network.backend import Array, Environment
from ppl_buffer.version import __version__

# Give these to NumPyro's ``mcmc.run(..., extra_fields=EXTRA_FIELDS)``: it keeps nothing that was not asked for.
EXTRA_FIELDS = ("diverging", "energy", "potential_energy", "num_steps", "accept_prob", "adapt_state.step_size")


class Options(TypedDict, total=False):
    """What both `from_mcmc` and `from_svi` may be given.

    Attributes:
        environment: gives the feedback on drawn outcomes, see `JointPredictive`; for several sites a dict site ->
            function. Without one, models with feedback have no posterior_predictive.
        predictive_draws: posterior draws that get a data set in posterior_predictive, evenly spaced; None = all of
            them, which `az.loo_pit` of this group needs; 0 = none, no such group. Rollouts take most of the time.
        prior_draws: draws of the prior, 500 by default; 0 = no such group.
        prior_predictive_draws: draws of the prior that get a data set in prior_predictive, the first of those; 0, the
            default, = no such group. Models with feedback need an environment.
        log_likelihood: whether to compute log_likelihood and one_step_ahead (by default True).
        coords: dimension -> labels, such as ``{"subject": [3, 7, 12]}``.
        dims: variable -> names of its dimensions after chain and draw, where plates do not tell them.
        seed: of all draws.
        memory: gigabytes that a chunk of rollouts may take; see `ppl_buffer.posterior_predictive`.
        progress: show progress bars (by default True).
    """

    environment: Environment | Mapping[str, Environment] | None
    predictive_draws: int | None
    prior_draws: int
    prior_predictive_draws: int
    log_likelihood: bool
    coords: Mapping[str, Any]
    dims: Mapping[str, Sequence[str]]
    seed: int
    memory: float | None
    progress: bool


def from_mcmc(
    mcmc: Any, *, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Unpack[Options]
) -> Any:
    """Convert a finished MCMC run of NumPyro or Pyro.

    Args:
        mcmc: the run, of a model that observes `JointPredictive` sites.
        args: arguments of the model; None = those of the run.
        kwargs: keyword arguments of the model; None = those of the run.
        **options: see `Options`.

    Returns:
        `arviz.InferenceData` with ArviZ 0.2x, `xarray.DataTree` with 1.x.

    Raises:
        ValueError: if the run is not finished, the model's plates subsample or its data depend on latent variables,
            or `coords` or `dims` do not fit.
        ImportError: if ArviZ is not installed.
    """
    name = language_name("mcmc", mcmc)
    language = language_of(name)
    if getattr(mcmc, "_args", None) is None:
        raise ValueError("mcmc: expected a finished run, got one that was not run; call mcmc.run first")
    model = language.sampled_model(mcmc)
    if model is None:
        raise ValueError("mcmc: expected a run of a model, got one of a potential function")
    samples = mcmc.get_samples(group_by_chain=True)
    args, kwargs = mcmc._args if args is None else args, mcmc._kwargs if kwargs is None else kwargs
    statistics = language.sampler_statistics(mcmc)
    return from_samples(model, samples, language=name, args=args, kwargs=kwargs, statistics=statistics, **options)


def from_svi(
    svi: Any,
    params: Any = None,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    draws: int = 1000,
    **options: Unpack[Options],
) -> Any:
    """Convert a fit of variational inference by NumPyro or Pyro: draws of the guide, as one chain.

    Args:
        svi: the `SVI` object, whose model and guide count.
        params: fitted parameters, ``svi.run(...).params`` of NumPyro; None = those in Pyro's parameter store.
        args: arguments of model and guide: all people, no subsampling.
        kwargs: keyword arguments of model and guide.
        draws: number of draws from the guide.
        **options: see `Options`.

    Returns:
        `arviz.InferenceData` with ArviZ 0.2x, `xarray.DataTree` with 1.x.

    Raises:
        ValueError: as `from_mcmc`, or if NumPyro's `params` are missing.
        ImportError: if ArviZ is not installed.
    """
    name = language_name("svi", svi)
    if name == "numpyro" and params is None:
        raise ValueError("params: expected what the guide was fitted to, svi.run(...).params, got None")
    draws = check_integer("draws", draws)
    values = language_of(name).guide_samples(svi, params, args, kwargs or {}, draws, options.get("seed", 0))
    samples = {site: value[None] for site, value in values.items()}
    return from_samples(svi.model, samples, language=name, args=args, kwargs=kwargs, **options)


def from_samples(
    model: Callable[..., Any],
    samples: Mapping[str, Any],
    *,
    language: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    statistics: Mapping[str, np.ndarray] | None = None,
    **options: Unpack[Options],
) -> Any:
    """Convert draws of a model's latent sites, wherever they come from.

    Args:
        model: a model of NumPyro or Pyro that observes `JointPredictive` sites.
        samples: dict name -> (chain, draw, *shape), for every latent site; others are ignored.
        language: "numpyro" or "pyro".
        args: arguments of the model.
        kwargs: keyword arguments of the model.
        statistics: of the sampler, dict name -> (chain, draw): group sample_stats.
        **options: see `Options`.

    Returns:
        `arviz.InferenceData` with ArviZ 0.2x, `xarray.DataTree` with 1.x.

    Raises:
        ValueError: as `from_mcmc`.
        ImportError: if ArviZ is not installed.
    """
    return convert(model, samples, language=language, args=args, kwargs=kwargs, statistics=statistics, **options)[0]


def convert(
    model: Callable[..., object],
    samples: Mapping[str, Array],
    *,
    language: str,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    statistics: Mapping[str, np.ndarray] | None = None,
    **options: Unpack[Options],
) -> tuple[Any, dict[str, Scored]]:
    """What `from_samples` returns, and the numbers of each joint site that it was made of, for whoever goes on."""
    module, settings = language_of(language), Settings(**options)
    arviz_version()
    arrays = {name: to_numpy(value) for name, value in samples.items()}
    if not arrays:
        raise ValueError("samples: expected draws of at least one latent site, got none")
    chains, draws = next(iter(arrays.values())).shape[:2]
    flat = {name: value.reshape(chains * draws, *value.shape[2:]) for name, value in arrays.items()}
    traced = module.trace_posterior(model, args, kwargs or {}, flat, progress=settings.progress)
    builder = GroupBuilder(traced, chains, draws, settings)
    for finding in builder.left_out():
        warn_of(finding)
    prior: dict[str, np.ndarray] = {}
    if settings.prior_draws:
        prior = module.prior_samples(model, args, kwargs or {}, settings.prior_draws, settings.seed)
    at_prior = None
    if settings.prior_predictive_draws:
        some = {name: value[: settings.prior_predictive_draws] for name, value in prior.items()}
        at_prior = module.trace_posterior(model, args, kwargs or {}, some, progress=settings.progress)
    groups = builder.groups(prior, statistics or {}, at_prior)
    about = {"inference_library": language, "creation_library": f"ppl_buffer {__version__}"}
    filled = {name: dataset(variables).assign_attrs(about) for name, variables in groups.items() if variables}
    return container(filled), builder.scored
