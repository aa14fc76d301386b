"""From a finished fit to ArviZ: every group in one call, for NumPyro and Pyro, ArviZ 0.2x and 1.x.

``from_mcmc(mcmc)``, ``from_svi(svi, params)`` and ``from_samples(model, samples)`` return what the installed ArviZ
works with: `InferenceData` of 0.2x, `xarray.DataTree` of 1.x. Groups, with dimensions chain, draw, then the plates':

| group | holds |
|---|---|
| posterior, prior | latent and deterministic sites |
| log_prior | log density of each latent site, on the user's scale |
| sample_stats | what the sampler recorded (`EXTRA_FIELDS`) |
| log_likelihood | log p(trial given the trials before it, parameters): one number a trial |
| posterior_predictive | new data sets: whole rollouts |
| one_step_ahead | draws of each trial given the *observed* trials before it |
| observed_data, constant_data | outcomes; inputs and feedback |

Trials have the dimensions (subject, trial). Where people did different numbers of trials, padding is dropped and one
dimension ``observation`` remains, with the coordinates ``subject`` and ``trial``. Several outcomes of a trial (choice
and response time) are variables of their own; their log likelihood is one variable named as the site.

`az.loo` of the result scores one-step-ahead predictions, in sample: the removed trial stays in the history of later
ones. `ppl_buffer.scores` says what other scores there are, and what each of them claims.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, TypedDict, Unpack

import numpy as np
from tqdm.auto import tqdm

import ppl_buffer
from ppl_buffer.files import to_numpy
from ppl_buffer.inference.simulation import posterior_predictive
from ppl_buffer.network.backend import backend_of, execution_of
from ppl_buffer.network.layout import map_leaves
from ppl_buffer.network.observed import EncodedContext, length_groups
from ppl_buffer.ppl.trace import ObservedSite, PosteriorTrace
from ppl_buffer.predictive import Predictive
from ppl_buffer.schema import Categorical, split_value

Arrays = dict[str, np.ndarray]

# Give these to NumPyro's ``mcmc.run(..., extra_fields=EXTRA_FIELDS)``: it keeps nothing that was not asked for.
EXTRA_FIELDS = ("diverging", "energy", "potential_energy", "num_steps", "accept_prob", "adapt_state.step_size")

# Trials whose densities are computed together: few enough for the memory, enough that calls cost little.
_TRIALS_AT_ONCE = {"cpu": 1 << 15, "other": 1 << 20}


class Options(TypedDict, total=False):
    """What both `from_mcmc` and `from_svi` may be given.

    Attributes:
        environment: gives the feedback on drawn outcomes, see `JointPredictive`; for several sites a dict site ->
            function. Without one, models with feedback have no posterior_predictive.
        predictive_draws: posterior draws that get a data set in posterior_predictive, evenly spaced; None = all of
            them, which `az.loo_pit` of this group needs; 0 = none, no such group. Rollouts take most of the time.
        prior_draws: draws of the prior, 500 by default; 0 = no such group.
        log_likelihood: whether to compute log_likelihood and one_step_ahead (by default True).
        coords: dimension -> labels, such as ``{"subject": [3, 7, 12]}``.
        dims: variable -> names of its dimensions after chain and draw, where plates do not tell them.
        seed: of all draws.
        memory: gigabytes that a chunk of rollouts may take; see `ppl_buffer.posterior_predictive`.
        progress: show progress bars (by default True).
    """

    environment: Callable[..., Any] | Mapping[str, Callable[..., Any]] | None
    predictive_draws: int | None
    prior_draws: int
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
    name = _language("mcmc", mcmc)
    model = mcmc.sampler.model if name == "numpyro" else mcmc.kernel.model
    if getattr(mcmc, "_args", None) is None:
        raise ValueError("mcmc: expected a finished run, got one that was not run; call mcmc.run first")
    if model is None:
        raise ValueError("mcmc: expected a run of a model, got one of a potential function")
    language = importlib.import_module(f"ppl_buffer.{name}")
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
    name = _language("svi", svi)
    if name == "numpyro" and params is None:
        raise ValueError("params: expected what the guide was fitted to, svi.run(...).params, got None")
    guide_samples = importlib.import_module(f"ppl_buffer.{name}").guide_samples
    drawn = guide_samples(svi, params, args, kwargs or {}, draws, options.get("seed", 0))
    samples = {name: value[None] for name, value in drawn.items()}
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
    if language not in ("numpyro", "pyro"):
        raise ValueError(f"language: expected 'numpyro' or 'pyro', got {language!r}")
    arrays = {name: to_numpy(value) for name, value in samples.items()}
    module = importlib.import_module(f"ppl_buffer.{language}")
    return _convert(module, model, arrays, args, kwargs or {}, statistics or {}, **options)


def one_step_ahead(data: Any) -> Any:
    """A view of a result for checks of predictions one trial ahead: `az.loo_pit`, `az.plot_loo_pit`, `az.plot_ppc`.

    Its posterior_predictive are the draws of each trial given the *observed* trials before it, and its log_likelihood
    has a variable for each outcome, as `az.loo_pit` wants (with several outcomes all are the whole trial's: the trial
    is removed, not one outcome of it).

    Args:
        data: what `from_mcmc` or `from_svi` returned.

    Raises:
        ValueError: if it has no group one_step_ahead.
    """
    groups = groups_of(data)
    if "one_step_ahead" not in groups:
        raise ValueError(f"data: expected a group one_step_ahead, as from_mcmc makes it, got {list(groups)}")
    steps, scores = groups["one_step_ahead"], groups["log_likelihood"]
    groups["log_likelihood"] = scores.drop_vars(list(scores.data_vars)).assign(
        {name: scores[steps[name].attrs["log_likelihood"]] for name in steps.data_vars}
    )
    groups["posterior_predictive"] = steps
    groups["observed_data"] = groups["observed_data"][list(steps.data_vars)]
    return container(groups)


def groups_of(data: Any) -> dict[str, Any]:
    """Group name -> `xarray.Dataset` of an `InferenceData` or a `DataTree`."""
    if hasattr(data, "children"):
        return {name: node.to_dataset() for name, node in data.children.items()}
    return {name: data[name] for name in data.groups()}


def container(groups: Mapping[str, Any]) -> Any:
    """What the installed ArviZ works with, of group name -> `xarray.Dataset`."""
    if arviz_version() >= 1:
        import xarray

        return xarray.DataTree.from_dict(dict(groups))
    return import_arviz().InferenceData(**groups)


def arviz_version() -> int:
    """Major version of the installed ArviZ.

    Raises:
        ImportError: if there is none.
    """
    # The parts of ArviZ 1 can be installed without the whole.
    for name, parts in (("arviz", 0), ("arviz-base", 1)):
        try:
            return max(parts, int(importlib.metadata.version(name).split(".")[0]))
        except importlib.metadata.PackageNotFoundError:
            continue
    raise ImportError("ppl_buffer.arviz needs ArviZ: pip install 'ppl-buffer[arviz]'")


def import_arviz() -> Any:
    """The module arviz; 0.2x announces version 1 on import, which nobody here can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return importlib.import_module("arviz")


def _language(argument: str, fit: Any) -> str:
    name = type(fit).__module__.split(".")[0]
    if name not in ("numpyro", "pyro"):
        raise ValueError(
            f"{argument}: expected an {argument.upper()} object of NumPyro or Pyro, got {type(fit).__name__}; draws "
            f"from elsewhere can be given to from_samples"
        )
    return name


def _convert(
    language: Any,
    model: Callable[..., Any],
    samples: Arrays,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    statistics: Mapping[str, np.ndarray],
    *,
    environment: Callable[..., Any] | Mapping[str, Callable[..., Any]] | None = None,
    predictive_draws: int | None = None,
    prior_draws: int = 500,
    log_likelihood: bool = True,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    memory: float | None = None,
    progress: bool = True,
) -> Any:
    """See `from_mcmc`; `samples` are dict name -> (chain, draw, *shape)."""
    arviz_version()
    for argument, number in (("predictive_draws", predictive_draws), ("prior_draws", prior_draws)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
            raise ValueError(f"{argument}: expected a number of draws, got {number!r}")
    if not samples:
        raise ValueError("samples: expected draws of at least one latent site, got none")
    chains, draws = next(iter(samples.values())).shape[:2]
    flat = {name: value.reshape(chains * draws, *value.shape[2:]) for name, value in samples.items()}
    traced = language.replay(model, args, kwargs, flat, progress=progress)
    names = _Names(traced, coords or {}, dims or {})
    groups: dict[str, Any] = {}

    def lead(values: Mapping[str, np.ndarray]) -> Arrays:
        return {name: value.reshape(chains, draws, *value.shape[1:]) for name, value in values.items()}

    groups["posterior"] = names.dataset(lead(traced.values))
    groups["log_prior"] = names.dataset(lead(traced.log_prior), batch_only=True)
    if statistics:
        groups["sample_stats"] = names.dataset(statistics)
    if prior_draws:
        prior = language.prior_samples(model, args, kwargs, prior_draws, seed)
        groups["prior"] = names.dataset({name: value[None] for name, value in prior.items()})
    observed: dict[str, Any] = {}
    constant: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    steps: dict[str, Any] = {}
    again: dict[str, Any] = {}
    scored_by: dict[str, str] = {}
    for site_name, site in traced.trials.items():
        layout = names.layouts[site_name]
        observed |= layout.outcomes(split_value(site.distribution.net.schema, site.value))
        constant |= layout.constant(site)
        if log_likelihood:
            log_probs, drawn_steps = _score(site, seed, chains * draws, progress)
            scores[layout.score] = layout.variable(log_probs.reshape(chains, draws, *log_probs.shape[1:]))
            if drawn_steps is not None:
                drawn_steps = layout.outcomes(lead(drawn_steps))
                steps |= drawn_steps
                scored_by |= dict.fromkeys(drawn_steps, layout.score)
        if predictive_draws != 0:
            respond = environment.get(site_name) if isinstance(environment, Mapping) else environment
            respond = respond or site.distribution.environment
            if _can_roll_out(site_name, site, respond):
                chosen = _spread(chains, draws, predictive_draws)
                rolled = _rollouts(site, respond, chosen.reshape(-1), seed, memory, progress)
                rolled = {name: x.reshape(*chosen.shape, *x.shape[1:]) for name, x in rolled.items()}
                again |= layout.outcomes(rolled)
    groups |= {
        "log_likelihood": names.dataset(lead(traced.log_likelihood), scores, batch_only=True),
        "one_step_ahead": names.dataset({}, steps),
        "posterior_predictive": names.dataset({}, again),
        "observed_data": names.dataset(traced.observed, observed, sampled=False),
        "constant_data": names.dataset({}, constant, sampled=False),
    }
    if not log_likelihood:
        del groups["log_likelihood"]
    for name, score in scored_by.items():
        groups["one_step_ahead"][name].attrs["log_likelihood"] = score
    if again and predictive_draws:
        kept = _spread(chains, draws, predictive_draws)[0] % draws
        groups["posterior_predictive"] = groups["posterior_predictive"].assign_coords(draw=kept)
    about = {
        "inference_library": language.__name__.split(".")[-1],
        "creation_library": f"ppl_buffer {ppl_buffer.__version__}",
    }
    return container({name: group.assign_attrs(about) for name, group in groups.items() if group.data_vars})


def _spread(chains: int, draws: int, wanted: int | None) -> np.ndarray:
    """Indices (chain, some of the draws) into all draws, evenly spaced."""
    each = draws if wanted is None else min(draws, -(-wanted // chains))
    within = np.linspace(0, draws - 1, each).round().astype(int)
    return np.arange(chains)[:, None] * draws + within


# Names ----------------------------------------------------------------------------------------------------------------


class _Layout:
    """Names of one site's trials, and where the existing ones are.

    Args:
        name: of the site.
        site: its trials.
        lead: names of its batch dimensions; None = of size 1, and nobody's.
        several: whether there are other such sites, so that names must tell them apart.
        shared: outcome names that several sites have.
        labels: dimension -> labels.
    """

    def __init__(
        self,
        name: str,
        site: ObservedSite,
        lead: Sequence[str | None],
        several: bool,
        shared: set[str],
        labels: Mapping[str, np.ndarray],
    ) -> None:
        schema = site.distribution.net.schema
        own = f"{name}_" if several else ""
        trial = f"{own}trial"
        self.names = {key: f"{name}_{key}" if key in shared else key for key in _variables(site)}
        self.integers = {key for key, variable in _variables(site).items() if isinstance(variable, Categorical)}
        self.score = name if schema.event_shape_tail else self.names[next(iter(schema.outcomes))]
        kept = [size for size, dim in zip(site.batch_shape, lead, strict=True) if dim is not None]
        self.depth = 1 + len(site.batch_shape)
        self.exists = site.exists
        self.shape = (*kept, site.trials)
        rows = site.exists.reshape(-1, site.trials)
        dims = [dim for dim in lead if dim is not None]
        places = {dim: labels.get(dim, np.arange(size)) for dim, size in zip(dims, kept, strict=True)}
        places[trial] = labels.get(trial, np.arange(site.trials))
        for dim, size in zip([*dims, trial], self.shape, strict=True):
            if np.shape(places[dim]) != (size,):
                raise ValueError(f"coords[{dim!r}]: expected {size} labels, got shape {np.shape(places[dim])}")
        self.coords: dict[str, Any]
        if (rows == rows[0]).all():
            self.columns: np.ndarray | None = np.flatnonzero(rows[0])
            self.dims = (*dims, trial)
            self.coords = {**places, trial: places[trial][self.columns]}
        else:
            self.columns = None
            self.dims = (f"{own}observation",)
            index = np.nonzero(site.exists.reshape(self.shape))
            self.coords = {self.dims[0]: np.arange(len(index[0]))}
            for (dim, values), where in zip(places.items(), index, strict=True):
                self.coords[dim] = (self.dims[0], np.asarray(values)[where])

    def pick(self, value: np.ndarray) -> np.ndarray:
        """Existing trials of an array (*sample, *B, K)."""
        sample = value.shape[: value.ndim - self.depth]
        if self.columns is None:
            return value.reshape(*sample, -1)[..., self.exists.reshape(-1)]
        return value.reshape(*sample, *self.shape)[..., self.columns]

    def variable(self, value: np.ndarray) -> tuple[tuple[str, ...], np.ndarray, dict[str, Any]]:
        """Dimensions, existing trials and coordinates of an array (*sample, *B, K)."""
        picked = self.pick(value)
        sample = ("chain", "draw") if picked.ndim > len(self.dims) else ()
        return (*sample, *self.dims), picked, self.coords

    def outcomes(self, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Variables of the schema by their names here; categories as integers."""
        found = {}
        for name, column in columns.items():
            dims, value, coords = self.variable(np.asarray(column))
            found[self.names[name]] = (dims, value.astype(np.int8) if name in self.integers else value, coords)
        return found

    def constant(self, site: ObservedSite) -> dict[str, Any]:
        """Inputs and feedback."""
        given = {**site.distribution.inputs, **(site.distribution.feedback or {})}
        return self.outcomes({name: np.broadcast_to(to_numpy(x), site.exists.shape) for name, x in given.items()})


def _variables(site: ObservedSite) -> dict[str, Any]:
    schema = site.distribution.net.schema
    return {**schema.inputs, **schema.outcomes, **schema.feedback}


class _Names:
    """Names of all dimensions of a replayed model."""

    def __init__(self, traced: PosteriorTrace, coords: Mapping[str, Any], dims: Mapping[str, Sequence[str]]) -> None:
        self.traced = traced
        self.given = {name: tuple(given) for name, given in dims.items()}
        unknown = [name for name in self.given if name not in {*traced.values, *traced.observed}]
        if unknown:
            raise ValueError(f"dims: expected names among {[*traced.values, *traced.observed]}, got {unknown}")
        # People are the `subject` dimension, whatever their plate is called, where a site has no other one.
        self.rename: dict[str, str] = {}
        for name, site in traced.trials.items():
            plates = self._plates(name, len(site.batch_shape))
            wide = [plate for plate, size in zip(plates, site.batch_shape, strict=True) if plate or size > 1]
            if len(wide) == 1 and wide[0]:
                self.rename[wide[0]] = "subject"
        self.labels = {self.rename.get(name, name): np.asarray(given) for name, given in coords.items()}
        for plates_of in traced.plates.values():
            for plate, size in plates_of.values():
                self.labels.setdefault(self.rename.get(plate, plate), np.arange(size))
        counts: dict[str, int] = {}
        for site in traced.trials.values():
            for key in _variables(site):
                counts[key] = counts.get(key, 0) + 1
        shared = {key for key, count in counts.items() if count > 1}
        several = len(traced.trials) > 1
        self.batches: dict[str, list[str | None]] = {}
        self.layouts: dict[str, _Layout] = {}
        for name, site in traced.trials.items():
            self.batches[name] = self._batch_dims(name, site.batch_shape, people=True)
            self.layouts[name] = _Layout(name, site, self.batches[name], several, shared, self.labels)

    def _plates(self, name: str, ndim: int) -> list[str | None]:
        """Names of the plates at a site's batch dimensions."""
        plates = self.traced.plates.get(name, {})
        return [plates[axis - ndim][0] if axis - ndim in plates else None for axis in range(ndim)]

    def _batch_dims(self, name: str, shape: Sequence[int], people: bool = False) -> list[str | None]:
        """Names of a site's batch dimensions; None for one of size 1 that has no name."""
        plates = self._plates(name, len(shape))
        found: list[str | None] = [None if plate is None else self.rename.get(plate, plate) for plate in plates]
        unnamed = [axis for axis, size in enumerate(shape) if found[axis] is None and size > 1]
        for axis in unnamed:
            found[axis] = "subject" if people and len(unnamed) == 1 and "subject" not in found else f"{name}_dim_{axis}"
        return found

    def _dims(self, name: str, shape: Sequence[int], batch_only: bool) -> list[str | None]:
        """Names of a variable's dimensions after chain and draw; None for one to drop."""
        if name in self.given and not batch_only:
            if len(self.given[name]) != len(shape):
                raise ValueError(f"dims[{name!r}]: expected {len(shape)} names, got {list(self.given[name])}")
            return list(self.given[name])
        ndim = self.traced.batch_ndim.get(name)
        if ndim is None and self.traced.plates.get(name):
            ndim = len(shape)  # a deterministic site in a plate
        if ndim is None:
            # A told parameter that was computed from other sites, under its own name.
            for site_name, site in self.traced.trials.items():
                if name in site.params and tuple(shape) == site.batch_shape:
                    return self.batches[site_name]
            ndim = 0
        batch = self._batch_dims(name, shape[:ndim])
        return [*batch, *(f"{name}_dim_{axis}" for axis in range(ndim, len(shape)))]

    def dataset(
        self,
        values: Mapping[str, np.ndarray],
        made: Mapping[str, tuple[tuple[str, ...], np.ndarray, dict[str, Any]]] | None = None,
        *,
        batch_only: bool = False,
        sampled: bool = True,
    ) -> Any:
        """Variables with their dimensions and labels: `values` ([chain, draw,] *shape) of sites, `made` by layouts."""
        import xarray

        sample = ("chain", "draw") if sampled else ()
        variables: dict[str, Any] = {}
        coords: dict[str, Any] = {}
        for name, value in values.items():
            shape = value.shape[len(sample) :]
            dims = self._dims(name, shape, batch_only)
            kept = [(dim, size) for dim, size in zip(dims, shape, strict=True) if dim is not None]
            inner = tuple(size for _, size in kept)
            variables[name] = (
                (*sample, *(dim for dim, _ in kept)),
                value.reshape(value.shape[: len(sample)] + inner),
            )
            for dim, size in kept:
                labels = self.labels.get(dim, np.arange(size))
                if len(labels) != size:
                    raise ValueError(f"coords[{dim!r}]: expected {size} labels for {name!r}, got {len(labels)}")
                coords[dim] = labels
        for name, (where, value, places) in (made or {}).items():
            variables[name] = (where, value)
            coords |= places
        if variables and sampled:
            first = next(iter(variables.values()))[1]
            coords |= {dim: np.arange(size) for dim, size in zip(sample, first.shape, strict=False)}
        return xarray.Dataset(variables, coords=coords)


# Numbers --------------------------------------------------------------------------------------------------------------


class _People:
    """A site's trials with all batch dimensions made one, (P, K) each, for work on some of the people."""

    def __init__(self, site: ObservedSite) -> None:
        distribution = site.distribution
        joint = backend_of(distribution.net)
        batch = site.batch_shape
        self.site, self.count, self.trials = site, int(np.prod(batch)), site.trials

        def flatten(value: Any) -> np.ndarray:
            return np.broadcast_to(to_numpy(value), site.exists.shape).reshape(self.count, -1)

        self.mask = site.exists.reshape(self.count, -1)
        self.inputs = {name: flatten(x) for name, x in distribution.inputs.items()}
        self.feedback = {name: flatten(x) for name, x in (distribution.feedback or {}).items()}
        self.value = site.value.reshape(self.count, *site.value.shape[len(batch) :])

        def spread(x: Any) -> Any:
            tail = tuple(x.shape[len(batch) :])
            return joint.ops.xp.broadcast_to(x, (*batch, *tail)).reshape((-1, *tail))

        self.context: EncodedContext | None = map_leaves(spread, distribution.context)
        self.history: dict[str, Any] | None = map_leaves(spread, distribution.history)

    def conditioned(self, varying: np.ndarray) -> np.ndarray:
        """What is told at each draw, (S, *b), as (S, P)."""
        return np.broadcast_to(varying, (len(varying), *self.site.batch_shape)).reshape(len(varying), -1)


def _score(site: ObservedSite, seed: int, draws: int, progress: bool) -> tuple[np.ndarray, Arrays | None]:
    """Log density of each trial given those before it, (S, *B, K), and a draw of each such trial by outcome."""
    distribution = site.distribution
    net = distribution.net
    schema, execution = net.schema, execution_of(net)
    people = _People(site)
    params = {name: people.conditioned(x) for name, x in site.params.items()}
    lapse = None if site.lapse is None else people.conditioned(site.lapse)
    columns = len(schema.outcomes)
    log_probs = np.zeros((draws, people.count, people.trials), np.float32)
    steps = None
    if distribution.block is None:
        steps = np.zeros((draws, people.count, people.trials, columns), np.float32)
    if distribution.orders is not None:
        warnings.warn(
            "log_likelihood: the model averages over orders of the trials, which no single trial's density does; the "
            "trials are taken in the order of the data, so that they do not sum to the model's log density",
            stacklevel=4,
        )

    def chunks(members: np.ndarray) -> Iterator[Callable[[], int]]:
        """Work on some people, of similar length, a chunk of draws a call; returns how many data sets were done."""
        length = int(np.where(people.mask[members], np.arange(1, people.trials + 1), 1).max())
        length = min(execution.bucket(length), people.trials)
        given = {name: x[members, :length] for name, x in people.inputs.items()}
        feedback = {name: x[members, :length] for name, x in people.feedback.items()}
        exists, value = people.mask[members, :length], people.value[members, :length]
        data: Any = given
        known: dict[str, Any] = {"trials": length, "feedback": feedback, "trial_mask": exists}
        known["context"] = None if people.context is None else people.context[members]
        if people.history is not None:
            known["history"] = map_leaves(lambda x: x[members], people.history)
        elif distribution.block is None:
            data = net.observe(given, value, feedback=feedback, trial_mask=exists, context=known.pop("context"))
            data.groups = None
            value, known = data.value, {}
        value = backend_of(net).ops.floating(net, value)
        at_once = min(draws, max(1, _trials_at_once(net) // (len(members) * length)))
        if not params and lapse is None:
            # Nothing else says how many draws there are to be.
            value = backend_of(net).ops.xp.broadcast_to(value, (at_once, *value.shape))

        def work(start: int) -> int:
            # The last chunk reaches back, so that one compiled program serves all of them.
            first = max(0, min(start, draws - at_once))
            rows = slice(first, first + at_once)
            joint = Predictive(
                net, data, params={name: x[rows][:, members] for name, x in params.items()}, outside="ignore",
                lapse=None if lapse is None else lapse[rows][:, members], block=distribution.block, **known,
            )  # fmt: skip
            if steps is None:
                log_probs[rows, members, :length] = to_numpy(joint.conditionals(value))
            else:
                shape, group = (len(members), length, joint.noise_shape()[-1]), int(members[0])
                noise = np.stack([_uniform((seed, group, draw), shape) for draw in range(first, first + at_once)])
                found, drawn = joint.one_step_ahead(value, noise)
                log_probs[rows, members, :length] = to_numpy(found)
                steps[rows, members, :length] = to_numpy(drawn).reshape(at_once, len(members), length, columns)
            return (min(start + at_once, draws) - start) * len(members)

        for start in range(0, draws, at_once):
            yield lambda start=start: work(start)  # type: ignore[misc]

    lengths = np.where(people.mask, np.arange(1, people.trials + 1), 1).max(1)
    with (
        tqdm(total=draws * people.count, disable=not progress, unit="data set", desc="log likelihood") as bar,
        ThreadPoolExecutor(execution.workers()) as pool,
    ):
        waiting = [chunks(members) for members in length_groups(lengths) or [np.arange(people.count)]]
        # The first chunk of a group compiles; the others find the program ready.
        for done in pool.map(lambda group: next(group)(), waiting):
            bar.update(done)
        for done in pool.map(lambda work: work(), chain(*waiting)):
            bar.update(done)
    shape = (draws, *site.exists.shape)
    drawn = None
    if steps is not None:
        drawn = {name: steps[..., index].reshape(shape) for index, name in enumerate(schema.outcomes)}
    return log_probs.reshape(shape), drawn


def _uniform(seed: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    uniform = np.random.default_rng([1, *seed]).random(shape, dtype=np.float32)
    # Open at both ends: a head turns them into normal numbers.
    return np.clip(uniform, np.float32(1e-7), np.float32(1 - 1e-7))


def _on_processor(net: Any) -> bool:
    if net.backend == "torch":
        return str(net.device) == "cpu"
    return importlib.import_module("jax").default_backend() == "cpu"


def _trials_at_once(net: Any) -> int:
    return _TRIALS_AT_ONCE["cpu" if _on_processor(net) else "other"]


def _can_roll_out(name: str, site: ObservedSite, environment: Callable[..., Any] | None) -> bool:
    """Whether new data sets can be drawn; says why not."""
    distribution = site.distribution
    why = None
    if distribution.net.schema.feedback and environment is None and not distribution.independent:
        why = f"needs an environment that gives {list(distribution.net.schema.feedback)} on a drawn outcome"
    elif distribution.history is not None or distribution.block is not None:
        why = "has a history or a block, which only its own method `sample` knows"
    if why is not None:
        warnings.warn(f"posterior_predictive: left out, since site {name!r} {why}", stacklevel=4)
    return why is None


def _rollouts(
    site: ObservedSite,
    environment: Callable[..., Any] | None,
    chosen: np.ndarray,
    seed: int,
    memory: float | None,
    progress: bool,
) -> Arrays:
    """New data sets at the chosen draws, by outcome (S, *B, K)."""
    people, net = _People(site), site.distribution.net
    drawn = posterior_predictive(
        net,
        people.inputs,
        {name: people.conditioned(x)[chosen] for name, x in site.params.items()} or None,
        draws=None if site.params else len(chosen),
        trials=people.trials,
        trial_mask=people.mask,
        context=people.context,
        environment=environment,
        lapse=None if site.lapse is None else people.conditioned(site.lapse)[chosen],
        seed=seed,
        memory=memory,
        progress=progress,
    )
    shape = (len(chosen), *site.exists.shape)
    return {name: np.asarray(x).reshape(shape) for name, x in split_value(net.schema, drawn.value).items()}
