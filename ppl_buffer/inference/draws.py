"""Posterior draws of parameters, (*S, *B): draws first, as samplers return them. What all data sets share is (*S,)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ppl_buffer.checks import check_numbers
from ppl_buffer.files import to_numpy
from ppl_buffer.network.arguments import NetworkLike, check_trial_params
from ppl_buffer.network.backend import Array
from ppl_buffer.schema import Schema


def conditioned_params(
    schema: Schema, samples: Mapping[str, Array], by_trial: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """The parameters of a schema among the draws of a model's sites, each (*S, *B).

    Args:
        schema: of the model.
        samples: name -> draws; of None no parameter.
        by_trial: names of those that vary by trial, which are given elsewhere.

    Raises:
        ValueError: if there are sites of other names while a parameter is missing, so that one may be misspelt.
    """
    if not isinstance(samples, Mapping):
        raise ValueError(f"params: expected a dict of name to array, got {type(samples).__name__}")
    others = [name for name in samples if name not in schema.params]
    missing = [name for name in schema.params if name not in samples and name not in by_trial]
    if others and missing:
        raise ValueError(
            f"params: expected any of {list(schema.params)}; others are ignored where all of these are given, but "
            f"{missing} are not, while {others} are. To integrate over {missing}, leave out {others}"
        )
    given = {name: samples[name] for name in schema.params if name in samples}
    return {name: check_numbers(f"params[{name!r}]", value).astype(np.float32) for name, value in given.items()}


def varying_params(
    net: NetworkLike,
    trial_params: Mapping[str, Array] | None,
    params: Collection[str],
    trials: int,
    trial_mask: Array | None,
) -> dict[str, np.ndarray]:
    """Draws of parameters that vary by trial, checked: dict name -> (*S, *B, K).

    Raises:
        ValueError: if one is among the `params` as well, has no value for each trial, or the network takes none.
    """
    if trial_params is None:
        return {}
    arrays, _ = check_trial_params(net, trial_params, params, trials, trial_mask, True, True)
    return {name: np.asarray(to_numpy(x), np.float32) for name, x in arrays.items()}


def by_variation(draws: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array] | None]:
    """Draws (S, P) of what stays within data sets, and (S, P, K) of what varies by trial; None where nothing does.

    They are the ``params`` and ``trial_params`` of whatever takes both.
    """
    stays = {name: x for name, x in draws.items() if x.ndim == 2}
    varies = {name: x for name, x in draws.items() if x.ndim == 3}
    return stays, varies or None


def flat_draws(
    params: Mapping[str, np.ndarray],
    by_trial: Mapping[str, np.ndarray],
    lead: tuple[int, ...],
    batch: tuple[int, ...],
) -> dict[str, np.ndarray]:
    """Draws (*lead, *batch) with S draws of P data sets: name -> (S, P), or (S, P, K) of those by trial."""
    size = math.prod(lead), math.prod(batch)
    flat: dict[str, np.ndarray] = {name: align(x, lead, batch).reshape(size) for name, x in params.items()}
    for name, x in by_trial.items():
        flat[name] = np.broadcast_to(x, (*lead, *batch, x.shape[-1])).reshape(*size, -1)
    return flat


def sample_shape(
    params: Mapping[str, np.ndarray], batch: tuple[int, ...], by_trial: Mapping[str, np.ndarray] | None = None
) -> tuple[int, ...]:
    """Leading shape *S of parameters (*S, *B), some of which may be shared by all data sets: (*S,).

    Args:
        params: dict name -> (*S, *B).
        batch: *B.
        by_trial: dict name -> (*S, *B, K).

    Raises:
        ValueError: if the shapes do not fit, or nothing tells draws from data sets.
    """
    shapes = {name: value.shape for name, value in params.items()}
    shapes |= {name: value.shape[:-1] for name, value in (by_trial or {}).items()}
    longest = max(map(len, shapes.values()))
    whole = [shape for shape in shapes.values() if len(shape) == longest]
    lead = _broadcast([shape[: longest - len(batch)] for shape in whole]) if longest > len(batch) else None
    if longest == 1 <= len(batch) and set(shapes.values()) == {whole[0]} != {batch}:
        # Nobody has parameters of their own.
        lead = whole[0]
    if not lead or 0 in lead or any(not _fits(shape, lead, batch) for shape in shapes.values()):
        raise ValueError(
            f"params: expected shapes (*draws, *{batch}), or (*draws,) for what all data sets share, got {shapes}; of "
            f"one draw it is (1, *{batch})"
        )
    return lead


def align(value: np.ndarray, lead: tuple[int, ...], batch: tuple[int, ...]) -> np.ndarray:
    """Values as (*lead, *batch), of which they have the shape, or one that broadcasts to it, or (*lead,)."""
    if value.shape == lead:
        value = value.reshape((*lead, *(1,) * len(batch)))
    return np.broadcast_to(value, (*lead, *batch))


def align_lapse(rate: np.ndarray, lead: tuple[int, ...], batch: tuple[int, ...]) -> np.ndarray:
    """Lapse rates as (*lead, *batch).

    Raises:
        ValueError: if the shape does not fit, or may mean draws as well as data sets.
    """
    if not _fits(rate.shape, lead, batch) or (rate.shape == lead == batch):
        raise ValueError(
            f"lapse: expected a rate, or shape {(*lead, *batch)}, {(*lead, *(1,) * len(batch))} for a rate of each "
            f"draw, or {(*(1,) * len(lead), *batch)} for one of each data set, got {rate.shape}"
        )
    return align(rate, lead, batch)


def _fits(shape: tuple[int, ...], lead: tuple[int, ...], batch: tuple[int, ...]) -> bool:
    """Whether `align` takes values of a shape."""
    return shape == lead or _broadcast([shape, (*lead, *batch)]) == (*lead, *batch)


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        return None
