"""How well a fit predicts what it has not seen: scores by Pareto smoothed importance sampling, without refits.

A person's parameters change much where that person's data are left out, which no importance weights of whole posterior
draws can follow. So they are integrated out first: of each draw of the population, the likelihood of a person's data is
averaged over the parameters that such a population has, and only the population is reweighted (Merkle, Furr &
Rabe-Hesketh 2019, Psychometrika 84, 802). Without formulas the likelihood is computed at points of its own; with them
it depends on coefficients too, so that the draws themselves have to do (`left_out_subjects`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import gammaln, logsumexp

from ppl_buffer.arviz import terms
from ppl_buffer.inference.chunks import map_chunks
from ppl_buffer.inference.normal_scores import NormalScores
from ppl_buffer.network.lapses import Lapse
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.numpyro import JointPredictive
from ppl_buffer.scores import Score, psis_loo
from ppl_buffer.workflow.hierarchical import RATE, Box, scores
from ppl_buffer.workflow.left_out_subjects import first_appearance, left_out_log_likelihood
from ppl_buffer.workflow.sampled import Sampled

if TYPE_CHECKING:
    from xarray import DataArray

    from ppl_buffer.workflow.quick_fit import QuickFit

# Parameters of each person that the likelihood is averaged over, those that are evaluated at once, and the degrees of
# freedom of the distribution that they are drawn from.
_POINTS, _AT_ONCE, _FREEDOM = 240, 40, 5.0


def prediction_scores(
    posterior: object,
    sampled: Sampled,
    net: Network,
    data: ObservedTrials,
    box: Box,
    lapse: Lapse | None,
    seed: int = 0,
) -> dict[str, Score]:
    """Scores of a fit: "loo" of single trials, and "logo" of people where these come from one population.

    Args:
        posterior: what `ppl_buffer.arviz.from_samples` returned.
        sampled: the draws, and what they are of.
        net: the network.
        data: what was observed.
        box: maps into the trained range.
        lapse: of the model.
        seed: of the points that people's parameters are integrated with.
    """
    by_trial = terms.log_likelihood(posterior, None)
    result = {"loo": psis_loo("loo", by_trial)}
    # In the order of the data, which labels have no other.
    sets = list(dict.fromkeys(by_trial.coords["subject"].values.tolist()))
    table = terms.by_subject(by_trial, "subject").sel(subject=sets).transpose("chain", "draw", "subject")
    if sampled.design is not None:
        table = _by_person(table, sampled.design.persons)
        flat = {name: np.asarray(x).reshape(-1, *x.shape[2:]) for name, x in sampled.draws.sites.items()}
        values = left_out_log_likelihood(
            sampled.design, sampled.centring, flat, table.values.reshape(-1, table.sizes["subject"])
        )
    elif sampled.normal is not None:
        names = scores(net, lapse)
        means, spreads, places = population(sampled.draws.sites, names, sampled.normal)
        log_likelihood = partial(_log_likelihood, net, data, box, lapse, names)
        values = marginal_log_likelihood(log_likelihood, places, means, spreads, np.random.default_rng(seed))
    else:
        return result
    return {**result, "logo": psis_loo("logo", table.copy(data=values.reshape(table.shape)))}


def _by_person(table: DataArray, persons: np.ndarray) -> DataArray:
    """Sums over the data sets of each person, (chain, draw, subject); checksums of their data too."""
    import xarray

    labels, index = first_appearance(persons)
    coords: dict[str, object] = {"subject": labels}

    def total(values: np.ndarray) -> np.ndarray:
        return np.stack([values[..., index == place].sum(-1) for place in range(len(labels))], -1)

    if "outcomes" in table.coords:
        coords["outcomes"] = ("subject", total(table.coords["outcomes"].values))
    return xarray.DataArray(total(table.values), dims=table.dims, coords=coords)


def population(
    sites: Mapping[str, np.ndarray], names: list[str], fit: QuickFit
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means and spreads of the population (S, P), and people's parameters (S, subjects, P), on the logistic scale."""
    flat = {name: np.asarray(x, dtype=float).reshape(-1, *x.shape[2:]) for name, x in sites.items()}
    means = np.stack([flat[f"{name}_mean"] for name in names], -1)
    spreads = np.stack([flat[f"{name}_spread"] for name in names], -1)
    places = []
    for index, name in enumerate(names):
        shares = fit.centring[:, index]
        pulled = means @ shares.T
        ratio = (spreads[:, index, None] / float(fit.spread[index])) ** (1 - shares[:, index])
        places.append(means[:, index, None] + ratio * (flat[f"{name}_offset"] - pulled))
    return means, spreads, np.stack(places, -1)


def marginal_log_likelihood(
    log_likelihood: Callable[[np.ndarray], np.ndarray],
    places: np.ndarray,
    means: np.ndarray,
    spreads: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Log likelihood (S, subjects) of each person's data under each draw of the population, parameters integrated out.

    By importance sampling: each person has points of their own, drawn from a Student t about the draws of that person's
    parameters, at which the likelihood is computed once for all draws of the population.

    Args:
        log_likelihood: points (n, subjects, P) -> (n, subjects).
        places: draws of people's parameters, (S, subjects, P).
        means: of the normal population, (S, P).
        spreads: its standard deviations, (S, P).
        rng: source of randomness.
    """
    subjects, dims = places.shape[1:]
    location = places.mean(0)
    centered = places - location
    covariance = np.einsum("sip,siq->ipq", centered, centered) / len(places)
    scale = np.linalg.cholesky(covariance + 1e-9 * np.eye(dims))
    normal = rng.standard_normal((_POINTS, subjects, dims))
    stretch = np.sqrt(_FREEDOM / rng.chisquare(_FREEDOM, (_POINTS, subjects)))
    points = location + stretch[..., None] * np.einsum("ipq,nip->niq", scale.transpose(0, 2, 1), normal)
    distance = (stretch[..., None] * normal) ** 2
    log_proposal = (
        gammaln(0.5 * (_FREEDOM + dims)) - gammaln(0.5 * _FREEDOM) - 0.5 * dims * np.log(_FREEDOM * np.pi)
        - np.log(np.diagonal(scale, axis1=1, axis2=2)).sum(1)
        - 0.5 * (_FREEDOM + dims) * np.log1p(distance.sum(-1) / _FREEDOM)
    )  # fmt: skip
    weight = log_likelihood(points) - log_proposal
    precision = spreads**-2.0
    constant = -0.5 * (means**2 * precision).sum(1) - np.log(spreads).sum(1) - 0.5 * dims * np.log(2 * np.pi)
    result = np.empty((len(means), subjects))
    for person in range(subjects):
        own = points[:, person]
        log_density = constant[:, None] + (means * precision) @ own.T - 0.5 * precision @ (own**2).T
        result[:, person] = logsumexp(log_density + weight[:, person], axis=1) - np.log(_POINTS)
    return result


def _log_likelihood(
    net: Network, data: ObservedTrials, box: Box, lapse: Lapse | None, names: list[str], points: np.ndarray
) -> np.ndarray:
    """Log likelihood (n, subjects) of people's data at parameters (n, subjects, P) on the logistic scale."""

    @jax.jit
    def at(places: jax.Array, data: ObservedTrials) -> jax.Array:
        named = dict(zip(names, jnp.moveaxis(places, -1, 0), strict=True))
        lapses = lapse
        if lapse is not None and lapse.prior is not None:
            lapses = lapse.at(NormalScores({RATE: lapse.prior}).interpolate(jnp, places[..., -1:])[RATE])
        return JointPredictive(net, data, params=box(named), lapse=lapses).log_prob(data.value)

    def of_chunk(indices: np.ndarray) -> np.ndarray:
        values = np.asarray(at(jnp.asarray(points[indices], jnp.float32), data), dtype=float)
        return np.where(np.isnan(values), -np.inf, values)

    return map_chunks(of_chunk, len(points), _AT_ONCE)
