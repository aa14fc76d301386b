"""What differs between ArviZ 0.2x and 1.x: containers, imports and the smoothing of importance weights."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import logsumexp

from ppl_buffer.extras import MissingLibraryError

# A Pareto tail is fitted to a fifth of the draws, and to no fewer than five.
_FEWEST_DRAWS = 25
# Differences of log weights that are none.
_EQUAL = 1e-3


def arviz_version() -> int:
    """Major version of the installed ArviZ.

    Raises:
        ImportError: if there is none.
    """
    # The parts of ArviZ 1 can be installed without the whole.
    for name, least in (("arviz", 0), ("arviz-base", 1)):
        try:
            return max(least, int(importlib.metadata.version(name).split(".")[0]))
        except importlib.metadata.PackageNotFoundError:
            continue
    raise MissingLibraryError("ppl_buffer.arviz needs arviz: pip install 'ppl-buffer[arviz]'", name="arviz")


def import_arviz() -> Any:
    """The module arviz; 0.2x announces version 1 on import, which no user of this library can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz


def groups_of(data: Any) -> dict[str, Any]:
    """Group name -> `xarray.Dataset` of an `InferenceData` or a `DataTree`.

    Raises:
        ValueError: if it is neither.
    """
    if hasattr(data, "children"):
        return {name: node.to_dataset() for name, node in data.children.items()}
    if not callable(getattr(data, "groups", None)):
        raise ValueError(f"data: expected what from_mcmc or from_svi returned, got {type(data).__name__}")
    return {name: data[name] for name in data.groups()}


def container(groups: Mapping[str, Any]) -> Any:
    """What the installed ArviZ works with, of group name -> `xarray.Dataset`."""
    if arviz_version() >= 1:
        import xarray

        return xarray.DataTree.from_dict(dict(groups))
    return import_arviz().InferenceData(**groups)


def smooth_log_weights(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pareto smoothed, normalised log weights (n, S) of importance sampling, and Pareto k (n,); 0 of an equal tail.

    Vehtari, Simpson, Gelman, Yao & Gabry (2024), "Pareto smoothed importance sampling".
    """
    if arviz_version() < 1:
        weights, pareto_k = import_arviz().psislw(log_weights)
    elif log_weights.shape[-1] < _FEWEST_DRAWS:
        # ArviZ 0.2x smooths nothing there and says so by k; 1.x raises an error of its insides.
        weights = log_weights - logsumexp(log_weights, axis=-1, keepdims=True)
        pareto_k = np.full(weights.shape[:-1], np.inf)
    else:
        from arviz_stats.base import array_stats

        # 1.x takes log likelihoods, the negative of what 0.2x takes.
        weights, pareto_k = array_stats.psislw(-log_weights, axis=-1)
    pareto_k = np.asarray(pareto_k)
    return np.asarray(weights), np.where(np.isinf(pareto_k) & _bounded(log_weights), 0.0, pareto_k)


def _bounded(log_weights: np.ndarray) -> np.ndarray:
    """Whether the largest weights (n, S), as many as make a tail, are equal, (n,): their tail ends there.

    So it is of a trial that is a lapse at nearly every draw. ArviZ can fit no Pareto distribution to such a tail, and
    says so by an infinite k, although few weights are as safe.
    """
    draws = log_weights.shape[-1]
    if draws < _FEWEST_DRAWS:
        return np.zeros(log_weights.shape[:-1], dtype=bool)
    tail = int(np.ceil(min(0.2 * draws, 3 * np.sqrt(draws))))
    largest = np.partition(log_weights, draws - tail, axis=-1)[..., draws - tail :]
    return np.ptp(largest, axis=-1) < _EQUAL
