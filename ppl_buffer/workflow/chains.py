"""Draws from the hierarchical model: a quick fit, then NumPyro's NUTS. What is compiled is compiled meanwhile.

Two programs take seconds to compile: the likelihood with its slope, and the chains. Neither has any numbers in it but
the network's, so that both are begun before the data are looked at, side by side, and serve other data of these shapes;
the quick fit runs while the second is compiled. Where the chains begin nothing is compiled for a slope: the first
program tells the likelihood and its slope there, and its tangent takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import random

from ppl_buffer.network.box import MARGIN, SHARPNESS
from ppl_buffer.network.lapses import Lapse
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.numpyro import JointPredictive
from ppl_buffer.version import __version__
from ppl_buffer.workflow.compilation import compile_lowered
from ppl_buffer.workflow.hierarchical import (
    RATE,
    SPREAD_MEDIAN,
    SPREAD_SCALE,
    Box,
    lapse_rate,
    mean_scale,
    model,
    population,
    scores,
)
from ppl_buffer.workflow.quick_fit import QuickFit, quick_fit
from ppl_buffer.workflow.sampling import Draws, Kept, Programs, fingerprint, run_chains
from ppl_buffer.workflow.transport import parameters

Arrays = dict[str, np.ndarray]
# Arrays of JAX in whatever holds them.
Tree = Any

# How far apart chains start, in standard deviations of the quick fit.
_APART = 1.4


class Likelihood:
    """The subjects' negative log likelihoods, and the slope of their sum, at places on the unconstrained scale.

    Args:
        net: a trained network, loaded with backend "jax".
        data: what `TrialData.observe` returned.
        box: maps into the trained range.
        lapse: what a lapse is, and how often; a rate with a prior is the last of the parameters.
    """

    def __init__(self, net: Network, data: ObservedTrials, box: Box, lapse: Lapse | None = None) -> None:
        names = scores(net, lapse)

        @jax.jit
        @partial(jax.value_and_grad, has_aux=True)
        def loss(places: jax.Array, given: tuple[ObservedTrials, Arrays]) -> tuple[jax.Array, jax.Array]:
            seen, ceilings = given
            named = dict(zip(names, places, strict=True))
            lapses = lapse if lapse is None or lapse.prior is None else lapse.at(lapse_rate(lapse.prior, named[RATE]))
            params = Box(net, ceilings)(named)
            values = -JointPredictive(net, seen, params=params, lapse=lapses).log_prob(seen.value)
            return values.sum(), values

        self._given = (data, dict(box.ceilings))
        shape = jax.ShapeDtypeStruct((len(names), *data.batch_shape), jnp.float32)
        pool = ThreadPoolExecutor(1)
        self._program = pool.submit(compile_lowered, loss.lower(shape, self._given))
        pool.shutdown(wait=False)

    def __call__(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (subjects,) and slopes (P, subjects) at places (P, subjects)."""
        (_, values), slopes = self._program.result()(np.asarray(places, np.float32), self._given)
        return np.asarray(values, dtype=float), np.asarray(slopes, dtype=float)


@dataclass(frozen=True)
class Sampler:
    """Options of NUTS.

    Chains run at once where JAX has a device for each, else one after another: call
    ``numpyro.set_host_device_count(chains)`` before anything else uses JAX.

    Attributes:
        chains: number of chains, which begin apart from each other.
        warmup: warm-up draws of each chain.
        draws: kept draws of each chain.
        target_accept: nearer to 1 for smaller steps, where there are divergences.
        tree_depth: at most 2 ** depth - 1 gradients a draw.
    """

    chains: int = 2
    warmup: int = 200
    draws: int = 800
    target_accept: float = 0.8
    tree_depth: int = 5


class _Tangent(NamedTuple):
    """The subjects' negative log likelihoods near a place.

    Attributes:
        place: (P, subjects).
        values: (subjects,), there.
        slopes: (P, subjects), there.
    """

    place: np.ndarray
    values: np.ndarray
    slopes: np.ndarray


@dataclass(frozen=True, eq=False)
class Prepared:
    """A hierarchical model of subjects, compiled or being compiled in the background. Made by `prepare`.

    Attributes:
        net: a trained network, loaded with backend "jax".
        data: what `TrialData.observe` returned.
        box: maps into the trained range.
        sampler: options of NUTS.
        hierarchical: see `ppl_buffer.workflow.hierarchical.model`.
        lapse: what a lapse is, and how often; a rate with a prior is estimated.
        likelihood: of the subjects.
        programs: of the chains.
    """

    net: Network
    data: ObservedTrials
    box: Box
    sampler: Sampler
    hierarchical: bool
    lapse: Lapse | None
    likelihood: Likelihood
    programs: Programs

    def quick(self, progress: bool = False) -> QuickFit:
        """The quick fit of the model, with a progress bar: see `ppl_buffer.workflow.quick_fit`."""
        return _quick(self.likelihood, scores(self.net, self.lapse), self.box, self.data.batch_shape[0], progress)

    def sample(self, fit: QuickFit, *, seed: int = 0, progress: bool = True, path: Path | None = None) -> Draws:
        """Draw from the posterior with NUTS: see `sample`."""
        names, chains, key = scores(self.net, self.lapse), self.sampler.chains, random.PRNGKey(seed)
        keys = np.asarray(random.split(key, chains) if chains > 1 else key[None])
        first, places = _first_values(names, fit, chains, seed, self.hierarchical)
        by_chain = zip(*map(self.likelihood, places), strict=True)
        values, slopes = (np.stack(x).astype(np.float32) for x in by_chain)
        about = {"sampler": asdict(self.sampler) | {"draws": None}, "hierarchical": self.hierarchical, "seed": seed}
        about |= {"lapse": repr(self.lapse)}
        written = {"fit/roots": fit.roots, "fit/pulls": fit.pulls}
        return run_chains(
            self.programs,
            (keys, first, _Tangent(places, values, slopes)),
            (self.data, dict(self.box.ceilings), jax.tree.map(np.float32, fit)),
            _mass_matrix(names, fit) if self.hierarchical else None,
            draws=self.sampler.draws,
            kept=None if path is None else Kept(path, draws_fingerprint(self.net, self.data, self.box, about, written)),
            progress=progress,
        )


def prepare(
    net: Network,
    data: ObservedTrials,
    box: Box,
    sampler: Sampler | None = None,
    *,
    hierarchical: bool = True,
    lapse: Lapse | None = None,
) -> Prepared:
    """Begin to compile what fits subjects; for the arguments see `Prepared`."""
    sampler, likelihood = sampler or Sampler(), Likelihood(net, data, box, lapse)
    programs = _programs(net, data, box, sampler, hierarchical, lapse)
    return Prepared(net, data, box, sampler, hierarchical, lapse, likelihood, programs)


def quick(
    net: Network, data: ObservedTrials, box: Box, lapse: Lapse | None = None, *, progress: bool = False
) -> QuickFit:
    """The quick fit of the model: see `ppl_buffer.workflow.quick_fit`.

    A sampler finds out from its own warm-up how well everything is known, at several thousand gradients; a fit of
    normal distributions tells it for a few hundred.
    """
    return _quick(Likelihood(net, data, box, lapse), scores(net, lapse), box, data.batch_shape[0], progress)


def _quick(likelihood: Likelihood, names: list[str], box: Box, subjects: int, progress: bool) -> QuickFit:
    scales, starts = np.array([mean_scale(name) for name in names]), np.zeros((len(names), subjects))
    for name, start in box.starts().items():
        starts[names.index(name)] = start
    return quick_fit(likelihood, starts, scales, SPREAD_MEDIAN, SPREAD_SCALE, progress=progress)


def _programs(
    net: Network, data: ObservedTrials, box: Box, sampler: Sampler, hierarchical: bool, lapse: Lapse | None
) -> Programs:
    """The programs of all chains. Of the quick fit and of where chains begin, which are to come, they need shapes."""
    names = scores(net, lapse)
    subjects, count, chains = data.batch_shape[0], len(names), sampler.chains

    def numbers(*shape: int) -> Tree:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    fit = QuickFit(
        mean=numbers(count),
        spread=numbers(count),
        modes=numbers(count, subjects),
        roots=numbers(subjects, count, count),
        pulls=numbers(subjects, count),
        mean_covariance=numbers(count, count),
        spread_covariance=numbers(count, count),
    )
    kinds = {"mean": (), "spread": (), "offset": (subjects,)} if hierarchical else {"offset": (subjects,)}
    first = {site: numbers(chains, *shape) for kind, shape in kinds.items() for site in _sites(names, kind)}
    tangent = _Tangent(numbers(chains, count, subjects), numbers(chains, subjects), numbers(chains, count, subjects))
    keys = jax.ShapeDtypeStruct((chains, 2), jnp.uint32)

    def at_all(given: Tree) -> None:
        model(net, given[0], Box(net, given[1]), hierarchical, lapse, given[2])

    def at_first(given: Tree, tangent: _Tangent) -> None:
        _, places = population(names, subjects, hierarchical, given[2])
        apart = jnp.stack([places[name] for name in names]) - tangent.place
        numpyro.factor("likelihood", -(tangent.values.sum() + (tangent.slopes * apart).sum()))

    options: dict[str, Tree] = {
        "step_size": 0.3, "target_accept_prob": sampler.target_accept, "max_tree_depth": sampler.tree_depth,
    }  # fmt: skip
    mass = None
    if hierarchical:
        # Known from the quick fit, so that warm-up need not find out.
        mass = jax.eval_shape(partial(_mass_matrix, names), fit)
        options |= {"adapt_mass_matrix": False, "dense_mass": [_sites(names, "mean"), _sites(names, "spread")]}
    given, start = (data, dict(box.ceilings), fit), (keys, first, tangent)
    return Programs(at_all, sampler.warmup, start, given, mass, options, at_first)


def sample(
    net: Network,
    data: ObservedTrials,
    box: Box,
    fit: QuickFit,
    sampler: Sampler | None = None,
    *,
    hierarchical: bool = True,
    lapse: Lapse | None = None,
    seed: int = 0,
    progress: bool = True,
    path: Path | None = None,
) -> Draws:
    """Draw from the posterior of the model with NUTS.

    Args:
        net: a trained network, loaded with backend "jax".
        data: what `TrialData.observe` returned.
        box: maps into the trained range.
        fit: from `quick`, with the same lapses.
        sampler: options of NUTS.
        hierarchical: see `model`.
        lapse: see `model`.
        seed: of everything random.
        progress: show a progress bar.
        path: file in which the draws are kept while they are made, of which an interrupt leaves all so far; the same
            call goes on from them, and so does one for more draws.

    Returns:
        draws of all sites.
    """
    prepared = prepare(net, data, box, sampler, hierarchical=hierarchical, lapse=lapse)
    return prepared.sample(fit, seed=seed, progress=progress, path=path)


def draws_fingerprint(
    net: Network, data: ObservedTrials, box: Box, about: Mapping[str, object], more: Mapping[str, np.ndarray]
) -> str:
    """Of all that the draws depend on but their number; `more` arrays are the model's own."""
    versions = {module.__name__: module.__version__ for module in (jax, numpyro)} | {"ppl_buffer": __version__}
    arrays = {**data.inputs, **data.feedback, "value": data.value, "trial_mask": data.trial_mask, **box.ceilings}
    arrays |= {} if data.deadline is None else {"deadline": data.deadline}
    missing = {} if data.missing is None else {"missing": repr(data.missing)}
    return fingerprint(
        {
            **about,
            **missing,
            "net": net.digest,
            "likelihood": net.preferred_likelihood,
            "bounds": box.bounds,
            "origins": box.origins,
            "ceilings": {"margin": MARGIN, "sharpness": SHARPNESS},
            "versions": versions,
        },
        {name: np.asarray(x) for name, x in {**arrays, **more}.items()},
    )


def _sites(names: list[str], kind: str) -> tuple[str, ...]:
    return tuple(f"{name}_{kind}" for name in names)


def _first_values(
    names: list[str], fit: QuickFit, chains: int, seed: int, hierarchical: bool
) -> tuple[Arrays, np.ndarray]:
    """Where chains begin, apart, or R-hat could not tell whether they have met.

    Returns:
        site -> (chains, ...), on the unconstrained scale; and the parameters that these make, (chains, P, subjects).
    """
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((len(names), chains, fit.modes.shape[1]))
    first: Arrays = {}
    if hierarchical:
        means = rng.multivariate_normal(fit.mean, _APART**2 * fit.mean_covariance, chains)
        log_spreads = rng.multivariate_normal(np.log(fit.spread), _APART**2 * fit.spread_covariance, chains)
        first |= dict(zip(_sites(names, "mean"), means.T, strict=True))
        first |= dict(zip(_sites(names, "spread"), log_spreads.T, strict=True))
        offsets = noise
        places = np.stack(parameters(np, fit, means, np.exp(log_spreads), lambda index, *_: offsets[index]), 1)
    else:
        scales = np.array([mean_scale(name) for name in names])[:, None, None]
        offsets = (fit.modes[:, None] + 0.3 * noise) / scales
        places = (scales * offsets).transpose(1, 0, 2)
    first |= dict(zip(_sites(names, "offset"), offsets, strict=True))
    return {site: value.astype(np.float32) for site, value in first.items()}, places.astype(np.float32)


def _mass_matrix(names: list[str], fit: QuickFit) -> dict[tuple[str, ...], Tree]:
    """How NUTS scales its steps: its `inverse_mass_matrix`, blocks by their sites."""
    means, spreads, offsets = (_sites(names, kind) for kind in ("mean", "spread", "offset"))
    return {
        means: fit.mean_covariance.astype(np.float32),
        spreads: fit.spread_covariance.astype(np.float32),
        # They are nearly standard normal.
        offsets: jnp.ones(fit.modes.size, np.float32),
    }
