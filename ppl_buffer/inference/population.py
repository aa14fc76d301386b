"""Evidence of a new person's data under a fitted population, the person's parameters integrated out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import logsumexp

from ppl_buffer.checks import check_integer, check_mapping, check_numbers
from ppl_buffer.files import to_numpy
from ppl_buffer.formulas.build import RATE
from ppl_buffer.inference.chunks import map_chunks
from ppl_buffer.inference.evidence import Evidence
from ppl_buffer.inference.importance import draws_a_round, importance_weights
from ppl_buffer.inference.normal_scores import NormalScores
from ppl_buffer.network.backend import Array, Own, backend_of
from ppl_buffer.network.box import checked_upper_bounds, trained_range
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
    offsets: Mapping[str, Array] | None = None,
    lapse: Lapse | None = None,
    below: Mapping[str, Array] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Evidence:
    """Log density of all trials of each person, averaged over a population's posterior and over its people.

    In the population, numbers that ``net.into_box(name, ..., below=data)`` maps into the trained range are normal. The
    integral is by importance sampling with a fitted proposal, see `ppl_buffer.log_evidence`.

    Args:
        net: a network of either backend.
        data: what ``net.observe(...)`` returned; one batch dimension, the people.
        means: parameter -> (S,), posterior draws of the population's mean, or (S, people) where it is another for each
            person, such as by a covariate. Where the rate of lapses has a prior also of "lapse", on the scale on which
            that prior is standard normal.
        spreads: parameter -> (S,) or (S, people), of its standard deviation.
        offsets: parameter -> (S, people, K), what is added to a person's number on each trial, on the same scale: the
            effects of what varies within people and is estimated for all of them, such as conditions or items. Draws
            of the same posterior, in the same order. The network has to take parameters that vary by trial.
        lapse: of a known rate, a number or (people,), or of one that people have from the population.
        below: parameter -> (people,), what it stays below in place of all outcomes that lie above it.
        draws: of the importance sampling.
        seed: of these.

    Raises:
        ValueError: if a parameter is missing, numbers of draws differ, a spread is not positive, or offsets have
            another shape.
    """
    draws, size = check_integer("draws", draws), data.batch_shape[0]
    names = [*net.schema.params, *estimated_rate(net, lapse)]
    mean, spread = (_stacked(argument, names, given, size) for argument, given in
                    (("means", means), ("spreads", spreads)))  # fmt: skip
    if mean.shape[1] != spread.shape[1] or not (spread > 0).all():
        raise ValueError(
            f"spreads: expected positive numbers, as many draws as of means, {mean.shape[1]}, got {spread.shape[1]}"
        )
    some = np.linspace(0, mean.shape[1] - 1, min(_DRAWS, mean.shape[1])).astype(int)
    by_trial = {} if offsets is None else _checked_offsets(net, data, offsets, mean.shape[1])
    by_trial = {name: x[some] for name, x in by_trial.items()}
    mean, spread = mean[:, some], spread[:, some]
    # The proposal is fitted where a normal distribution of the population's first two moments is standard.
    center = mean.mean(1)
    scale = np.sqrt(mean.var(1) + (spread**2).mean(1))
    backend, count = backend_of(net), draws_a_round(len(names))
    # Compiled programs see no number: what has to be refused is refused before, and so is a value that was changed.
    bounds = None if below is None else checked_bounds(net, below, size)
    if bounds is None:
        fastest = checked_upper_bounds(net, data)
        bounds = {name: np.asarray(to_numpy(x)) for name, x in fastest.items()} if by_trial else None
    rng = np.random.default_rng([seed, 1])
    ranges = None if lapse is None else tuple(lapse.ranges.items())
    settings = (net, net.ops.same(data.value, data.value, data.snapshot), ranges)
    known = None if lapse is None or lapse.prior is not None else np.asarray(to_numpy(lapse.rate), np.float32)
    estimated = None if lapse is None or lapse.prior is None else NormalScores({RATE: lapse.prior})

    def log_joint(scores: np.ndarray) -> np.ndarray:
        """(n, size), likelihood times the population's density over that of the standard normal distribution."""
        places = center + scale * scores
        which = rng.integers(len(some), size=len(scores)) if by_trial else None
        if which is None:
            distance = ((places[..., None, :] - mean) / spread) ** 2
            population = logsumexp(-0.5 * distance.sum(-1) - np.log(spread).sum(-1), axis=-1) - np.log(len(some))
        else:
            # The likelihood is that of one draw of the population's offsets: so is the density beside it.
            own_mean, own_spread = (x[:, which].swapaxes(0, 1) for x in (mean, spread))
            population = -0.5 * (((places - own_mean) / own_spread) ** 2).sum(-1) - np.log(own_spread).sum(-1)

        def likelihood(indices: np.ndarray) -> np.ndarray:
            part = places[indices].astype(np.float32)
            rate = known if estimated is None else estimated.interpolate(np, part[..., -1:])[RATE].astype(np.float32)
            added = {} if which is None else {name: x[which[indices]] for name, x in by_trial.items()}
            total = backend.one_program(_log_likelihood, settings, (data, part, rate, bounds, added))
            return np.nan_to_num(to_numpy(total).astype(float), nan=-np.inf)

        reference = -0.5 * (scores**2).sum(-1) - np.log(scale).sum(-1)
        return map_chunks(likelihood, len(scores), count) + population - reference

    terms = importance_weights(log_joint, size, len(names), draws, np.random.default_rng(seed))
    return Evidence.of_terms(terms, "importance")


def _log_likelihood(settings: Own, arrays: Own) -> Array:
    """Log density (n, size) of observed data at places (n, size, P) on the scale of the population."""
    (net, reuse, ranges), (data, places, rate, bounds, offsets) = settings, arrays
    lapse = None if ranges is None else Lapse(rate, dict(ranges))
    values: dict[str, Array] = {}
    for index, name in enumerate(net.schema.params):
        below = data if bounds is None else bounds.get(name)
        number = places[..., index]
        if offsets:
            # With an axis of trials, which is of size 1 where nothing varies.
            number = number[..., None] + offsets.get(name, 0.0)
            below = None if below is None else below[..., None]
        values[name] = net.into_box(name, number, values, below=below)
    several = {name for name, x in values.items() if offsets and x.shape[-1] > 1}
    params = {name: x[..., 0] if offsets else x for name, x in values.items() if name not in several}
    query = Query.build(
        net, data, params=params, trial_params={name: values[name] for name in several} or None, lapse=lapse,
        outside="ignore", check=False, expand=False,
    )  # fmt: skip
    return density.log_prob(query.expanded(2), data.value, reuse)


def estimated_rate(net: Network, lapse: Lapse | None) -> list[str]:
    """The name under which a rate of lapses is estimated; none where it is known.

    Raises:
        ValueError: if the model has a parameter of that name.
    """
    if lapse is None or lapse.prior is None:
        return []
    if RATE in net.schema.params:
        raise ValueError(f"lapse: expected a known rate, since the model has a parameter {RATE!r} of its own")
    return [RATE]


def checked_bounds(net: Network, below: Mapping[str, Array], size: int) -> dict[str, np.ndarray]:
    """What parameters stay below, name -> (size,).

    Raises:
        ValueError: if a name is no parameter's, or there are not as many numbers as people, above what was trained.
    """
    bounds = {}
    for name, given in check_mapping("below", below).items():
        if name not in net.schema.params:
            raise ValueError(f"below: expected parameters of {list(net.schema.params)}, got {name!r}")
        numbers = check_numbers(f"below[{name!r}]", given)
        low, _, origin = trained_range(net, name)
        if numbers.shape != (size,) or (origin is None and not (numbers > low).all()):
            raise ValueError(f"below[{name!r}]: expected {size} numbers above {low:g}, one a person, got {given!r}")
        bounds[name] = numbers.astype(np.float32)
    return bounds


def _checked_offsets(
    net: Network, data: ObservedTrials, offsets: Mapping[str, Array], draws: int
) -> dict[str, np.ndarray]:
    """What is added on each trial, name -> (S, people, K).

    Raises:
        ValueError: if a name is no parameter's, or it has another shape.
    """
    shape, checked = (draws, data.batch_shape[0], data.trials), {}
    for name, given in check_mapping("offsets", offsets).items():
        if name not in net.schema.params:
            raise ValueError(f"offsets: expected parameters of {list(net.schema.params)}, got {name!r}")
        numbers = check_numbers(f"offsets[{name!r}]", given)
        if numbers.shape != shape:
            raise ValueError(f"offsets[{name!r}]: expected (draws, people, trials), {shape}, got {numbers.shape}")
        checked[name] = numbers.astype(np.float32)
    return checked


def _stacked(argument: str, names: list[str], given: Mapping[str, Array], size: int) -> np.ndarray:
    """Draws of all parameters, (1, S, P), or (people, S, P) where those of one are (S, people)."""
    missing = [name for name in names if name not in check_mapping(argument, given)]
    if missing:
        raise ValueError(
            f"{argument}: expected draws of {names}, but {missing} are missing; after a fit by formulas the mean of a "
            "person is NAME_Intercept plus the coefficients times that person's columns, (draws, people), and the "
            "spread is NAME_spread or 'NAME~1|COLUMN_spread'"
        )
    columns = []
    for name in names:
        x = check_numbers(f"{argument}[{name!r}]", given[name])
        # Chains may be apart: (chains, draws) where all people have the same, (chains, draws, people) where not.
        own = x.ndim > 1 and x.shape[-1] == size
        if x.ndim > 2 and not own:
            raise ValueError(f"{argument}[{name!r}]: expected draws, or (draws, {size}) of people, got shape {x.shape}")
        columns.append(x.reshape(-1, size).T if own else x.reshape(1, -1))
    if len({x.shape[1] for x in columns}) > 1 or not columns[0].size:
        raise ValueError(
            f"{argument}: expected as many draws of each parameter, got {[x.shape[1] for x in columns]}, of {size} "
            "people left out"
        )
    return np.stack([np.broadcast_to(x, (max(map(len, columns)), x.shape[1])) for x in columns], -1)
