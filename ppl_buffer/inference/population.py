"""Evidence of a new person's data under a fitted population, the person's parameters integrated out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import logsumexp

from ppl_buffer.checks import check_integer, check_mapping, check_numbers
from ppl_buffer.files import to_numpy
from ppl_buffer.inference.chunks import map_chunks
from ppl_buffer.inference.evidence import Evidence
from ppl_buffer.inference.importance import draws_a_round, importance_weights
from ppl_buffer.network.backend import Array, Own, backend_of
from ppl_buffer.network.box import checked_upper_bounds
from ppl_buffer.network.lapses import Lapse
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query

# Draws of the population that its density is averaged over.
_DRAWS = 200


def population_evidence(
    net: Network,
    data: ObservedTrials,
    means: Mapping[str, Array],
    spreads: Mapping[str, Array],
    *,
    lapse: Lapse | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Evidence:
    """Log density of all trials of each person, averaged over a population's posterior and over its people.

    In the population, numbers that ``net.into_box(name, ..., below=data)`` maps into the trained range are normal. The
    integral is by importance sampling with a fitted proposal, see `ppl_buffer.log_evidence`.

    Args:
        net: a network of either backend.
        data: what ``net.observe(...)`` returned; one batch dimension, the people.
        means: parameter -> (S,), posterior draws of the population's mean.
        spreads: parameter -> (S,), of its standard deviation.
        lapse: of a known rate, a number or (people,).
        draws: of the importance sampling.
        seed: of these.

    Raises:
        ValueError: if a parameter is missing, numbers of draws differ, or a spread is not positive.
    """
    names, draws = list(net.schema.params), check_integer("draws", draws)
    mean, spread = (_stacked(argument, names, given) for argument, given in (("means", means), ("spreads", spreads)))
    if mean.shape != spread.shape or not (spread > 0).all():
        raise ValueError(f"spreads: expected positive numbers, as many as means, {mean.shape}, got {spread.shape}")
    some = np.linspace(0, len(mean) - 1, min(_DRAWS, len(mean))).astype(int)
    mean, spread = mean[some], spread[some]
    # The proposal is fitted where a normal distribution of the population's first two moments is standard.
    center = mean.mean(0)
    scale = np.sqrt(mean.var(0) + (spread**2).mean(0))
    backend, size, count = backend_of(net), data.batch_shape[0], draws_a_round(len(names))
    # Compiled programs see no number: what has to be refused is refused before, and so is a value that was changed.
    checked_upper_bounds(net, data)
    ranges = None if lapse is None else tuple(lapse.ranges.items())
    settings = (net, net.ops.same(data.value, data.value, data.snapshot), ranges)
    rate = None if lapse is None else np.asarray(to_numpy(lapse.rate), np.float32)

    def log_joint(scores: np.ndarray) -> np.ndarray:
        """(n, size), likelihood times the population's density over that of the standard normal distribution."""
        places = center + scale * scores
        distance = ((places[..., None, :] - mean) / spread) ** 2
        population = logsumexp(-0.5 * distance.sum(-1) - np.log(spread).sum(-1), axis=-1) - np.log(len(mean))

        def likelihood(indices: np.ndarray) -> np.ndarray:
            total = backend.one_program(_log_likelihood, settings, (data, places[indices].astype(np.float32), rate))
            return np.nan_to_num(to_numpy(total).astype(float), nan=-np.inf)

        reference = -0.5 * (scores**2).sum(-1) - np.log(scale).sum()
        return map_chunks(likelihood, len(scores), count) + population - reference

    terms = importance_weights(log_joint, size, len(names), draws, np.random.default_rng(seed))
    return Evidence.of_terms(terms, "importance")


def _log_likelihood(settings: Own, arrays: Own) -> Array:
    """Log density (n, size) of observed data at places (n, size, P) on the scale of the population."""
    (net, reuse, ranges), (data, places, rate) = settings, arrays
    lapse = None if ranges is None else Lapse(rate, dict(ranges))
    params: dict[str, Array] = {}
    for index, name in enumerate(net.schema.params):
        params[name] = net.into_box(name, places[..., index], params, below=data)
    query = Query.build(net, data, params=params, lapse=lapse, outside="ignore", check=False, expand=False)
    return density.log_prob(query.expanded(2), data.value, reuse)


def _stacked(argument: str, names: list[str], given: Mapping[str, Array]) -> np.ndarray:
    """Draws of all parameters, (S, P)."""
    missing = [name for name in names if name not in check_mapping(argument, given)]
    if missing:
        raise ValueError(f"{argument}: expected draws of {names}, but {missing} are missing")
    columns = [check_numbers(f"{argument}[{name!r}]", given[name]).reshape(-1) for name in names]
    if len({column.shape for column in columns}) > 1 or not columns[0].size:
        raise ValueError(f"{argument}: expected as many draws of each parameter, got {[len(x) for x in columns]}")
    return np.stack(columns, -1)
