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
    """Pareto smoothed, normalised log weights (n, S) of importance sampling, and Pareto k (n,).

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
    return np.asarray(weights), np.asarray(pareto_k)
