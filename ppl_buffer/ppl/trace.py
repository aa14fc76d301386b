"""A model run again at every posterior draw: what its sites hold, in terms that both languages share.

`ppl_buffer.numpyro.trace` and `ppl_buffer.pyro.trace` run the models; `ppl_buffer.arviz` reads the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from ppl_buffer.files import to_numpy
from ppl_buffer.network.backend import Array
from ppl_buffer.network.layout import map_leaves
from ppl_buffer.ppl.joint import JointPredictiveBase
from ppl_buffer.predictive.query import Query


@dataclass(frozen=True)
class ObservedSite:
    """A site whose distribution is a `JointPredictive`, under whatever wrappers.

    Attributes:
        query: what the distribution at the first draw holds, with all batch dimensions *B of the site.
        value: observed outcomes, (*B, K) or (*B, K, n_outcomes).
        exists: (*B, K) bool, which trials count: those that exist, of data sets that no mask leaves out.
        params: dict name -> (S, *b), conditioned parameters at each draw; b broadcasts to B and has as many dimensions.
        trial_params: dict name -> (S, *b, K), those that vary by trial.
        lapse: (S, *b), or None.
    """

    query: Query
    value: np.ndarray
    exists: np.ndarray
    params: dict[str, np.ndarray] = field(default_factory=dict)
    trial_params: dict[str, np.ndarray] = field(default_factory=dict)
    lapse: np.ndarray | None = None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Batch dimensions *B of the site."""
        return tuple(self.exists.shape[:-1])

    @property
    def trials(self) -> int:
        """Number of trials K, those that do not exist included."""
        return self.exists.shape[-1]


@dataclass(frozen=True)
class PosteriorTrace:
    """What a model's sites hold at each of S draws; NumPy arrays.

    Attributes:
        values: latent and deterministic sites, (S, *shape).
        log_prior: latent sites, log density on the user's scale, (S, *batch).
        joint_sites: sites whose distribution is a `JointPredictive`.
        observed: other observed sites, value (*shape).
        log_likelihood: of those, (S, *batch).
        plates: site -> its plates, dict negative batch dimension -> (name, size).
        batch_ndim: site -> its number of batch dimensions; deterministic sites have no entry.
    """

    values: dict[str, np.ndarray]
    log_prior: dict[str, np.ndarray]
    joint_sites: dict[str, ObservedSite]
    observed: dict[str, np.ndarray]
    log_likelihood: dict[str, np.ndarray]
    plates: dict[str, dict[int, tuple[str, int]]]
    batch_ndim: dict[str, int]


class Language(Protocol):
    """What `ppl_buffer.arviz` asks of a language: the functions of `numpyro.trace` and of `pyro.trace`."""

    def trace_posterior(
        self,
        model: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        samples: Mapping[str, Any],
        progress: bool = False,
    ) -> PosteriorTrace:
        """Run a model at each of S draws (S, *shape) of its latent sites."""

    def prior_samples(
        self, model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], draws: int, seed: int
    ) -> dict[str, np.ndarray]:
        """Draws (draws, *shape) of a model's latent and deterministic sites from the prior."""

    def guide_samples(
        self, svi: Any, params: Any, args: Sequence[Any], kwargs: Mapping[str, Any], draws: int, seed: int
    ) -> dict[str, np.ndarray]:
        """Draws (draws, *shape) of what a guide samples."""

    def sampled_model(self, mcmc: Any) -> Callable[..., Any] | None:
        """The model whose posterior an MCMC run samples; None where it samples a potential function."""

    def sampler_statistics(self, mcmc: Any) -> dict[str, np.ndarray]:
        """What a sampler recorded, dict name -> (chain, draw), under ArviZ's names."""


@dataclass(frozen=True)
class ModelSites:
    """The sites of one run of a model, sorted by what they are.

    Attributes:
        latent: names of the sites that were sampled.
        deterministic: names of the deterministic sites.
        joint_sites: observed sites whose distribution is a `JointPredictive`.
        observed: values of the other observed sites.
        plates: as in `PosteriorTrace`.
        batch_ndim: as in `PosteriorTrace`.
    """

    latent: list[str]
    deterministic: list[str]
    joint_sites: dict[str, ObservedSite]
    observed: dict[str, np.ndarray]
    plates: dict[str, dict[int, tuple[str, int]]]
    batch_ndim: dict[str, int]

    @classmethod
    def sort(
        cls,
        latent: list[str],
        deterministic: list[str],
        observed: Mapping[str, Mapping[str, Any]],
        plates: dict[str, dict[int, tuple[str, int]]],
        batch_ndim: Mapping[str, int],
    ) -> ModelSites:
        """Tell the joint predictives among the observed sites (dict name -> "fn" and "value") from the others."""
        sites = {name: observed_site(site["fn"], site["value"]) for name, site in observed.items()}
        joint_sites = {name: site for name, site in sites.items() if site is not None}
        values = {name: to_numpy(site["value"]) for name, site in observed.items() if name not in joint_sites}
        # What `factor` makes observes nothing.
        others = {name: value for name, value in values.items() if value.size}
        ndim = {name: batch_ndim[name] for name in [*latent, *others, *joint_sites]}
        return cls(latent, deterministic, joint_sites, others, plates, ndim)

    def posterior_trace(
        self,
        values: Mapping[str, np.ndarray],
        log_probs: Mapping[str, np.ndarray],
        varying: Mapping[str, Mapping[str, Any]],
    ) -> PosteriorTrace:
        """The trace of all draws, from what each site holds at each of them.

        Args:
            values: of latent and deterministic sites, (S, *shape).
            log_probs: of latent and of other observed sites, (S, *batch).
            varying: joint site -> what `varying` returns, with a leading dimension S.
        """
        return PosteriorTrace(
            values={name: np.asarray(value) for name, value in values.items()},
            log_prior={name: np.asarray(log_probs[name]) for name in self.latent},
            joint_sites={name: replace(site, **varying[name]) for name, site in self.joint_sites.items()},
            observed=self.observed,
            log_likelihood={name: np.asarray(log_probs[name]) for name in self.observed},
            plates=self.plates,
            batch_ndim=self.batch_ndim,
        )


def unwrap_joint(distribution: Any) -> JointPredictiveBase | None:
    """The joint predictive inside a site's distribution, expanded to all of its batch dimensions; None if it is none.

    Looks through `expand`, `to_event` and `mask`, in any order and of both languages.
    """
    layers = _layers(distribution)
    if not layers:
        return None
    joint = layers[-1]
    lead = (*distribution.batch_shape, *distribution.event_shape)
    lead = lead[: len(lead) - _event_dim(joint)]
    return joint if tuple(joint.batch_shape) == lead else joint.expand(lead)


def _layers(distribution: Any) -> list[Any]:
    """A distribution, what it wraps, and so on down to a joint predictive; empty if there is none below."""
    layers = [distribution]
    while not isinstance(layers[-1], JointPredictiveBase):
        if hasattr(layers[-1], "transforms") or not hasattr(layers[-1], "base_dist"):
            return []
        layers.append(layers[-1].base_dist)
    return layers


def observed_site(distribution: Any, value: Any) -> ObservedSite | None:
    """The trials of an observed site without what depends on draws; None if its distribution is no joint predictive."""
    joint = unwrap_joint(distribution)
    if joint is None:
        return None
    lead, event = tuple(joint.batch_shape), _event_dim(joint)
    exists = np.ones((*lead, joint.query.trials), dtype=bool)
    if joint.query.trial_mask is not None:
        exists = exists & to_numpy(joint.query.trial_mask)
    for wrapper in _layers(distribution)[:-1]:
        mask = getattr(wrapper, "_mask", None)
        if mask is not None:
            mask = np.asarray(mask if isinstance(mask, bool) else to_numpy(mask))
            # A mask of sets of data sets, made into an event by `to_event`, holds for all of a set.
            missing = len(wrapper.event_shape) - event
            exists = exists & mask.reshape((*mask.shape, *(1,) * missing, 1))
    numbers = to_numpy(value)
    shape = (*lead, *numbers.shape[numbers.ndim - event :])
    return ObservedSite(joint.query, np.broadcast_to(numbers, shape), exists)


def _event_dim(joint: JointPredictiveBase) -> int:
    return len(joint.query.event_shape)


def varying(query: Query) -> dict[str, Any]:
    """What of a query may differ between draws: its conditioned parameters, and its lapse rate or None."""
    return {"params": query.params, "trial_params": query.trial_params, "lapse": query.lapse}


def fixed_leaves(query: Query) -> list[Array]:
    """Arrays of a query that must be alike at all draws."""
    leaves: list[Array] = []
    for data in (query.inputs, query.context, query.feedback, query.trial_mask, query.deadline, query.history):
        map_leaves(leaves.append, data)
    return leaves


def check_samples(samples: Mapping[str, Any], latent: Sequence[str]) -> None:
    """Refuse draws that lack a latent site of the model."""
    missing = [name for name in latent if name not in samples]
    if missing:
        raise ValueError(
            f"samples: expected draws of every latent site of the model, got {list(samples)} (missing {missing}); "
            f"draw marginalised discrete sites first (infer_discrete), and give the arguments that the model had"
        )


def check_plate(name: str, size: int, used: int) -> None:
    """Refuse a plate that shows a part of the data."""
    if used != size:
        raise ValueError(
            f"model: expected all data, but plate {name!r} shows {used} of {size}; give args and kwargs with which "
            f"the model does not subsample"
        )


def varying_data_error(name: str) -> ValueError:
    """Of a site whose data depend on latent variables."""
    return ValueError(
        f"model: expected the data of site {name!r} (inputs, feedback, trial_mask, context) not to depend on latent "
        f"variables, but they do; only params and lapse may"
    )
