"""A hierarchical model of subjects, by NumPyro's NUTS.

Each subject has parameters of their own inside the box that the network was trained on, drawn from a population: normal
on the logistic scale that the box is mapped from, with an unknown mean and spread. A parameter that an outcome always
exceeds (a non-decision time) is also bounded by that subject's fastest response, or, where that may be a lapse, by the
fastest that a decision must have made; one whose prior was relative to another one lies that far from it. A rate of
lapses that is estimated has its prior on the scale on which this is standard normal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random
from jax.typing import ArrayLike
from numpyro.infer import NUTS, init_to_median

from ppl_buffer.datasets.trials import TrialData
from ppl_buffer.formulas.build import RATE
from ppl_buffer.formulas.ceilings import fastest_decision
from ppl_buffer.formulas.priors import MEAN_SCALE, SPREAD_MEDIAN, SPREAD_SCALE
from ppl_buffer.inference.normal_scores import NormalScores
from ppl_buffer.network.arguments import require_likelihood
from ppl_buffer.network.box import trained_range
from ppl_buffer.network.lapses import Lapse
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.numpyro import JointPredictive
from ppl_buffer.prior import Prior
from ppl_buffer.schema import stack_value
from ppl_buffer.version import __version__
from ppl_buffer.workflow.quick_fit import QuickFit, quick_fit
from ppl_buffer.workflow.sampling import Draws, Kept, fingerprint, run_chains


@dataclass(frozen=True, eq=False)
class Box:
    """Maps the unconstrained scale into the range of parameters that a network was trained on.

    Attributes:
        net: the network, whose `into_box` it is.
        ceilings: parameter -> (subjects,), what it must stay below for each subject: the fastest response that cannot
            be a lapse.
    """

    net: Network
    ceilings: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, net: Network, trials: TrialData | None = None, lapse: Lapse | None = None) -> Box:
        """The box of a network, and the ceilings that subjects' responses set.

        Raises:
            ValueError: if the network was not trained, or a response is faster than any that the model allows.
        """
        if net.record is None:
            raise ValueError("net: expected a trained network, which knows its range, got an untrained one")
        require_likelihood(net.record)
        ceilings = {}
        for outcome, name in net.schema.lower_bounds.items():
            if trials is None:
                continue
            value = np.asarray(trials.outcomes[outcome], dtype=float)
            fastest = fastest_decision(net.schema, outcome, value, trials.trial_mask, lapse)
            low, high = net.box[name]
            if (fastest <= low).any():
                worst = int(fastest.argmin())
                raise ValueError(
                    f"{outcome}: the fastest response of subject {trials.subjects[worst]} is {fastest[worst]:g}, but "
                    f"{name} is at least {low:g} in this model; delete responses that are too fast to be decisions, or "
                    "allow for lapses (lapse=0.02)"
                )
            ceilings[name] = np.minimum(fastest, high).astype(np.float32)
        return cls(net, ceilings)

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Parameter -> (low, high), in the order of the schema."""
        return {name: trained_range(self.net, name)[:2] for name in self.net.schema.params}

    @property
    def origins(self) -> dict[str, str]:
        """Parameter -> the earlier parameter that its bounds count from."""
        origins = {name: trained_range(self.net, name)[2] for name in self.net.schema.params}
        return {name: origin for name, origin in origins.items() if origin is not None}

    def __call__(self, unconstrained: Mapping[str, ArrayLike], group: bool = False) -> dict[str, jax.Array]:
        """Parameters in natural units of numbers on the logistic scale, dict name -> array.

        Args:
            unconstrained: parameter -> (...), any real numbers; (..., subjects) where there are ceilings.
            group: whether the numbers are the group's, whose ceiling is the median subject's.
        """
        values: dict[str, jax.Array] = {}
        for name in self.net.schema.params:
            ceiling = self.ceilings.get(name)
            below = np.median(ceiling) if group and ceiling is not None else ceiling
            values[name] = self.net.into_box(name, unconstrained[name], values, below=below)
        return values


def observe(net: Network, trials: TrialData) -> ObservedTrials:
    """What `net.observe` makes of the trials."""
    outcomes = {name: np.asarray(x, np.float32) for name, x in trials.outcomes.items()}
    return net.observe(
        {name: trials.inputs[name] for name in net.schema.inputs},
        stack_value(np, net.schema, outcomes),
        feedback={name: trials.feedback[name] for name in net.schema.feedback},
        trial_mask=trials.trial_mask,
    )


def scores(net: Network, lapse: Lapse | None) -> list[str]:
    """What a fit estimates, on whatever scale: the parameters, and the rate of lapses where it has a prior."""
    if lapse is None or lapse.prior is None:
        return list(net.schema.params)
    if RATE in net.schema.params:
        raise ValueError(f"lapse: expected a known rate, since the model has a parameter {RATE!r} of its own")
    return [*net.schema.params, RATE]


def _mean_scale(name: str) -> float:
    """Standard deviation of a group mean's prior."""
    return 1.0 if name == RATE else MEAN_SCALE


def lapse_rate(prior: Prior, score: ArrayLike) -> jax.Array:
    """Rates of lapses at scores (...) under which their prior is standard normal."""
    return NormalScores({RATE: prior}).interpolate(jnp, jnp.asarray(score)[..., None])[RATE]


def write_subjects(
    means: Mapping[str, jax.Array], spreads: Mapping[str, jax.Array], subjects: int, fit: QuickFit | None
) -> dict[str, jax.Array]:
    """Sites of offsets, written as the quick fit says; the parameters that they make, name -> (subjects,)."""
    parameters, together = {}, jnp.stack([jnp.asarray(mean) for mean in means.values()])
    for index, (name, mean) in enumerate(means.items()):
        pulled, ratio = jnp.asarray(0.0), spreads[name]
        if fit is not None:
            shares = jnp.asarray(fit.centring[:, index])
            pulled = shares @ together
            ratio = (spreads[name] / float(fit.spread[index])) ** (1 - shares[:, index])
        with numpyro.plate("subject", subjects):
            offset = numpyro.sample(f"{name}_offset", dist.Normal(pulled, spreads[name] / ratio))
        parameters[name] = mean + ratio * (offset - pulled)
    return parameters


def model(
    net: Network,
    data: ObservedTrials,
    box: Box,
    hierarchical: bool = True,
    lapse: Lapse | None = None,
    fit: QuickFit | None = None,
) -> None:
    """The NumPyro model of subjects whose trials `net.observe` has prepared.

    Args:
        net: a trained network, loaded with backend "jax".
        data: what `observe` returned: one batch dimension, the subjects.
        box: maps into the trained range.
        hierarchical: subjects come from one population. Otherwise each has a prior of their own, nearly even in the
            box.
        lapse: what a lapse is, and how often; a rate with a prior is estimated.
        fit: by which offsets are written so that a sampler moves fast; None = non-centred. The posterior is the same.

    Sites, for each parameter: ``{name}`` (subjects, natural units); hierarchical also ``{name}_group`` (the median
    subject, natural units), ``{name}_mean`` and ``{name}_spread`` (logistic scale). The same for ``lapse``, a rate that
    is estimated: its prior is that of the median subject, or of each subject alone; mean and spread are on the scale on
    which it is standard normal.
    """
    subjects = data.batch_shape[0]
    names = scores(net, lapse)
    means: dict[str, jax.Array] = {}
    if hierarchical:
        spreads = {}
        for name in names:
            means[name] = numpyro.sample(f"{name}_mean", dist.Normal(0.0, _mean_scale(name)))
            spreads[name] = numpyro.sample(f"{name}_spread", dist.LogNormal(np.log(SPREAD_MEDIAN), SPREAD_SCALE))
        unconstrained = write_subjects(means, spreads, subjects, fit)
    else:
        with numpyro.plate("subject", subjects):
            offsets = {name: numpyro.sample(f"{name}_offset", dist.Normal(0.0, 1.0)) for name in names}
        unconstrained = {name: _mean_scale(name) * offset for name, offset in offsets.items()}
    if hierarchical:
        for name, value in box(means, group=True).items():
            numpyro.deterministic(f"{name}_group", value)
    params = {name: numpyro.deterministic(name, value) for name, value in box(unconstrained).items()}
    if lapse is not None and lapse.prior is not None:
        if hierarchical:
            numpyro.deterministic(f"{RATE}_group", lapse_rate(lapse.prior, means[RATE]))
        with numpyro.plate("subject", subjects):
            lapse = lapse.at(numpyro.deterministic(RATE, lapse_rate(lapse.prior, unconstrained[RATE])))
    site = next(iter(net.schema.outcomes)) if len(net.schema.outcomes) == 1 else "trials"
    with numpyro.plate("subject", subjects):
        numpyro.sample(site, JointPredictive(net, data, params=params, lapse=lapse), obs=data.value)


def quick(
    net: Network, data: ObservedTrials, box: Box, lapse: Lapse | None = None, *, progress: bool = False
) -> QuickFit:
    """The quick fit of `model`: see `ppl_buffer.workflow.quick_fit`.

    A sampler finds out from its own warm-up how well everything is known, at several thousand gradients; a fit of
    normal distributions tells it for a few hundred.
    """
    names = scores(net, lapse)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def loss(places: jax.Array, data: ObservedTrials) -> tuple[jax.Array, jax.Array]:
        named = dict(zip(names, places, strict=True))
        lapses = lapse if lapse is None or lapse.prior is None else lapse.at(lapse_rate(lapse.prior, named[RATE]))
        values = -JointPredictive(net, data, params=box(named), lapse=lapses).log_prob(data.value)
        return values.sum(), values

    def evaluate(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (_, values), gradient = loss(jnp.asarray(places, jnp.float32), data)
        return np.asarray(values, dtype=float), np.asarray(gradient, dtype=float)

    scales = np.array([_mean_scale(name) for name in names])
    return quick_fit(evaluate, data.batch_shape[0], scales, SPREAD_MEDIAN, SPREAD_SCALE, progress=progress)


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
    """Draw from the posterior of `model` with NUTS.

    Args:
        net: a trained network, loaded with backend "jax".
        data: what `observe` returned.
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
    sampler = sampler or Sampler()
    names, chains = scores(net, lapse), sampler.chains
    kernel = NUTS(
        partial(model, net, box=box, hierarchical=hierarchical, lapse=lapse, fit=fit),
        init_strategy=init_to_median(num_samples=3),
        step_size=0.3,
        target_accept_prob=sampler.target_accept,
        max_tree_depth=sampler.tree_depth,
        **(_mass_matrix(names, fit) if hierarchical else {}),
    )
    key = random.PRNGKey(seed)
    about = {"sampler": asdict(sampler) | {"draws": None}, "hierarchical": hierarchical, "seed": seed}
    about |= {"lapse": repr(lapse)}
    written = {"fit/centring": fit.centring, "fit/spread": fit.spread}
    return run_chains(
        kernel,
        data,
        random.split(key, chains) if chains > 1 else key[None],
        _first_values(names, fit, chains, seed, hierarchical),
        warmup=sampler.warmup,
        draws=sampler.draws,
        kept=None if path is None else Kept(path, draws_fingerprint(net, data, box, about, written)),
        progress=progress,
    )


def draws_fingerprint(
    net: Network, data: ObservedTrials, box: Box, about: Mapping[str, object], more: Mapping[str, np.ndarray]
) -> str:
    """Of all that the draws depend on but their number; `more` arrays are the model's own."""
    versions = {module.__name__: module.__version__ for module in (jax, numpyro)} | {"ppl_buffer": __version__}
    arrays = {**data.inputs, **data.feedback, "value": data.value, "trial_mask": data.trial_mask, **box.ceilings}
    return fingerprint(
        {
            **about,
            "net": net.digest,
            "likelihood": net.preferred_likelihood,
            "bounds": box.bounds,
            "origins": box.origins,
            "versions": versions,
        },
        {name: np.asarray(x) for name, x in {**arrays, **more}.items()},
    )


def _sites(names: list[str], kind: str) -> tuple[str, ...]:
    return tuple(f"{name}_{kind}" for name in names)


def _first_values(names: list[str], fit: QuickFit, chains: int, seed: int, hierarchical: bool) -> dict[str, jax.Array]:
    """Where chains begin, apart, or R-hat could not tell whether they have met: site -> (chains, ...)."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((len(names), chains, fit.modes.shape[1]))
    first: dict[str, np.ndarray] = {}
    if hierarchical:
        means = rng.multivariate_normal(fit.mean, fit.mean_covariance, chains).T
        wide = np.sqrt(fit.spread_variance)[:, None]
        log_spreads = np.log(fit.spread)[:, None] + wide * rng.standard_normal((len(names), chains))
        first |= dict(zip(_sites(names, "mean"), means, strict=True))
        first |= dict(zip(_sites(names, "spread"), log_spreads, strict=True))
        # As the population's distribution has them, given the mean.
        centres = np.einsum("spq,qc->pcs", fit.centring, means)
        offsets = centres + fit.spread[:, None, None] * noise
    else:
        scales = np.array([_mean_scale(name) for name in names])[:, None, None]
        offsets = (fit.modes[:, None] + 0.3 * noise) / scales
    first |= dict(zip(_sites(names, "offset"), offsets, strict=True))
    return {site: jnp.asarray(value, jnp.float32) for site, value in first.items()}


def _mass_matrix(names: list[str], fit: QuickFit) -> dict[str, Any]:
    """How NUTS scales its steps, as its arguments: known from the quick fit, so that warm-up need not find out."""
    means, spreads, offsets = (_sites(names, kind) for kind in ("mean", "spread", "offset"))
    count, parameters, _ = fit.subject_covariance.shape
    # Of all subjects' first parameter, all subjects' second, ...; subjects are not correlated.
    blocks = np.einsum("spq,st->psqt", fit.subject_covariance, np.eye(count)).reshape(2 * [parameters * count])
    return {
        "inverse_mass_matrix": {
            means: jnp.asarray(fit.mean_covariance, jnp.float32),
            spreads: jnp.asarray(fit.spread_variance, jnp.float32),
            offsets: jnp.asarray(blocks, jnp.float32),
        },
        "dense_mass": [means, offsets],
        "adapt_mass_matrix": False,
    }
