"""How well a fit predicts what it has not seen: scores by Pareto smoothed importance sampling, without refits.

A person's parameters change much where that person's data are left out, which no importance weights of whole posterior
draws can follow. So they are integrated out first: of each draw of the population, the likelihood of a person's data is
averaged over the parameters that such a population has, and only the population is reweighted (Merkle, Furr &
Rabe-Hesketh 2019, Psychometrika 84, 802).
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

if TYPE_CHECKING:
    from ppl_buffer.workflow.quick_fit import QuickFit

# Parameters of each person that the likelihood is averaged over, those that are evaluated at once, and the degrees of
# freedom of the distribution that they are drawn from.
_POINTS, _AT_ONCE, _FREEDOM = 240, 40, 5.0


def prediction_scores(
    posterior: object,
    sites: Mapping[str, np.ndarray],
    net: Network,
    data: ObservedTrials,
    box: Box,
    lapse: Lapse | None,
    fit: QuickFit | None,
    seed: int = 0,
) -> dict[str, Score]:
    """Scores of a fit: "loo" of single trials, and "logo" of people where these come from one population.

    Args:
        posterior: what `ppl_buffer.arviz.from_samples` returned.
        sites: draws of the model's latent sites, (chains, draws, ...).
        net: the network.
        data: what was observed.
        box: maps into the trained range.
        lapse: of the model.
        fit: by which offsets are written; None = people are no draws from one population.
        seed: of the points that people's parameters are integrated with.
    """
    import xarray

    by_trial = terms.log_likelihood(posterior, None)
    result = {"loo": psis_loo("loo", by_trial)}
    if fit is None:
        return result
    names = scores(net, lapse)
    means, spreads, places = population(sites, names, fit)
    chains, draws = sites[f"{names[0]}_mean"].shape
    by_person = marginal_log_likelihood(
        partial(_log_likelihood, net, data, box, lapse, names), places, means, spreads, np.random.default_rng(seed)
    )
    # Labels of people, and checksums of their data, in the order of the data.
    subjects = list(dict.fromkeys(by_trial.coords["subject"].values.tolist()))
    like = terms.by_subject(by_trial, "subject").sel(subject=subjects)
    coords = {name: coord for name, coord in like.coords.items() if coord.dims == ("subject",)}
    table = xarray.DataArray(by_person.reshape(chains, draws, -1), dims=("chain", "draw", "subject"), coords=coords)
    return {**result, "logo": psis_loo("logo", table)}


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
