"""A probabilistic program run again at every posterior draw: what its sites hold, in terms both languages share.

`ppl_buffer.numpyro.replay` and `ppl_buffer.pyro.replay` make it; `ppl_buffer.arviz` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppl_buffer.files import to_numpy
from ppl_buffer.network.layout import map_leaves
from ppl_buffer.predictive import Predictive

# Arguments of a joint predictive that may differ between draws.
_VARYING = ("params", "lapse")


@dataclass
class ObservedSite:
    """A site whose distribution is a `JointPredictive`, under whatever wrappers.

    Attributes:
        distribution: the distribution at the first draw, expanded to all batch dimensions *B of the site.
        value: observed outcomes, (*B, K) or (*B, K, n_outcomes).
        exists: (*B, K) bool, which trials count: those that exist, of data sets that no mask leaves out.
        params: dict name -> (S, *b), told parameters at each draw; b broadcasts to B and has as many dimensions.
        lapse: (S, *b), or None.
    """

    distribution: Predictive
    value: np.ndarray
    exists: np.ndarray
    params: dict[str, np.ndarray] = field(default_factory=dict)
    lapse: np.ndarray | None = None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Batch dimensions *B of the site."""
        return tuple(self.exists.shape[:-1])

    @property
    def trials(self) -> int:
        """Number of trials K, those that do not exist included."""
        return self.exists.shape[-1]


@dataclass
class PosteriorTrace:
    """What a program's sites hold at each of S draws; NumPy arrays.

    Attributes:
        values: latent and deterministic sites, (S, *shape).
        log_prior: latent sites, log density on the user's scale, (S, *batch).
        trials: sites whose distribution is a `JointPredictive`.
        observed: other observed sites, value (*shape).
        log_likelihood: of those, (S, *batch).
        plates: site -> its plates, dict negative batch dimension -> (name, size).
        batch_ndim: site -> its number of batch dimensions; deterministic sites have no entry.
    """

    values: dict[str, np.ndarray]
    log_prior: dict[str, np.ndarray]
    trials: dict[str, ObservedSite]
    observed: dict[str, np.ndarray]
    log_likelihood: dict[str, np.ndarray]
    plates: dict[str, dict[int, tuple[str, int]]]
    batch_ndim: dict[str, int]


def unwrap_joint(distribution: Any) -> Predictive | None:
    """The joint predictive inside a site's distribution, expanded to all of its batch dimensions; None if it is none.

    Looks through `expand`, `to_event` and `mask`, in any order and of both languages.
    """
    inner = distribution
    while not isinstance(inner, Predictive):
        if hasattr(inner, "transforms") or not hasattr(inner, "base_dist"):
            return None
        inner = inner.base_dist
    lead = (*distribution.batch_shape, *distribution.event_shape)
    lead = lead[: len(lead) - _event_dim(inner)]
    return inner if tuple(inner.batch_shape) == lead else inner.expand(lead)  # type: ignore[attr-defined]


def observed_site(distribution: Any, value: Any) -> ObservedSite | None:
    """The trials of an observed site, without what depends on draws; None if the distribution is no joint predictive.

    Raises:
        ValueError: if no outcomes were observed.
    """
    joint = unwrap_joint(distribution)
    if joint is None:
        return None
    lead, event = tuple(joint.batch_shape), _event_dim(joint)
    exists = np.ones((*lead, joint.trials), dtype=bool)
    if joint.trial_mask is not None:
        exists = exists & to_numpy(joint.trial_mask)
    inner = distribution
    while not isinstance(inner, Predictive):
        mask = getattr(inner, "_mask", None)
        if mask is not None:
            mask = np.asarray(mask if isinstance(mask, bool) else to_numpy(mask))
            # A mask of sets of data sets, made into an event by `to_event`, holds for all of a set.
            missing = len(inner.event_shape) - event
            exists = exists & mask.reshape((*mask.shape, *(1,) * missing, 1))
        inner = inner.base_dist
    numbers = to_numpy(value)
    shape = (*lead, *numbers.shape[numbers.ndim - event :])
    return ObservedSite(joint, np.broadcast_to(numbers, shape), exists)


def _event_dim(joint: Predictive) -> int:
    return 1 + len(joint.net.schema.event_shape_tail)


def varying(joint: Predictive) -> dict[str, Any]:
    """What of a joint predictive may differ between draws: dict of its told parameters, and its lapse rate or None."""
    return {name: getattr(joint, name) for name in _VARYING}


def fixed_leaves(joint: Predictive) -> list[Any]:
    """Arrays of a joint predictive that must be alike at all draws."""
    leaves: list[Any] = []
    for name in joint.data_fields:
        if name not in (*_VARYING, "observed"):
            map_leaves(leaves.append, getattr(joint, name))
    return leaves


def check_samples(samples: Mapping[str, Any], latent: Iterable[str]) -> None:
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
