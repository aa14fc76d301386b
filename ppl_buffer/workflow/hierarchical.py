"""A hierarchical model of subjects, which `ppl_buffer.workflow.chains` samples.

Each subject has parameters of their own inside the box that the network was trained on, drawn from a population: normal
on the logistic scale that the box is mapped from, with an unknown mean and spread. A parameter that an outcome always
exceeds (a non-decision time) is also bounded by that subject's fastest response, or, where that may be a lapse, by the
fastest that a decision must have made; one whose prior was relative to another one lies that far from it. A rate of
lapses that is estimated has its prior on the scale on which this is standard normal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike

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
from ppl_buffer.workflow.quick_fit import QuickFit
from ppl_buffer.workflow.transport import parameters

jax.tree_util.register_dataclass(QuickFit)

# Where fits begin, as a share of the way to a ceiling.
_NEAR = 0.9


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

    def starts(self) -> dict[str, np.ndarray]:
        """Where a fit begins on the unconstrained scale, of each parameter with ceilings: near to all of them.

        Subjects whose parameters were alike there would differ much in how well these agree with their responses.
        """
        starts = {}
        for name, ceiling in self.ceilings.items():
            low, _, origin = trained_range(self.net, name)
            if origin is None:
                value = jnp.asarray(low + _NEAR * (ceiling - low))
                starts[name] = np.asarray(self.net.from_box(name, value, below=jnp.asarray(ceiling)), float)
        return starts

    def __call__(self, unconstrained: Mapping[str, ArrayLike], group: bool = False) -> dict[str, jax.Array]:
        """Parameters in natural units of numbers on the logistic scale, dict name -> array.

        Args:
            unconstrained: parameter -> (...), any real numbers; (..., subjects) where there are ceilings.
            group: whether the numbers are the group's, which no ceiling is of.
        """
        values: dict[str, jax.Array] = {}
        for name in self.net.schema.params:
            below = None if group else self.ceilings.get(name)
            values[name] = self.net.into_box(name, unconstrained[name], values, below=below)
        return values


def scores(net: Network, lapse: Lapse | None) -> list[str]:
    """What a fit estimates, on whatever scale: the parameters, and the rate of lapses where it has a prior."""
    if lapse is None or lapse.prior is None:
        return list(net.schema.params)
    if RATE in net.schema.params:
        raise ValueError(f"lapse: expected a known rate, since the model has a parameter {RATE!r} of its own")
    return [*net.schema.params, RATE]


def mean_scale(name: str) -> float:
    """Standard deviation of a group mean's prior."""
    return 1.0 if name == RATE else MEAN_SCALE


def lapse_rate(prior: Prior, score: ArrayLike) -> jax.Array:
    """Rates of lapses at scores (...) under which their prior is standard normal."""
    return NormalScores({RATE: prior}).interpolate(jnp, jnp.asarray(score)[..., None])[RATE]


def write_subjects(
    means: Mapping[str, jax.Array], spreads: Mapping[str, jax.Array], subjects: int, fit: QuickFit | None
) -> dict[str, jax.Array]:
    """Sites of offsets, written as the quick fit says; the parameters that they make, name -> (subjects,)."""
    names = list(means)

    def offset(index: int, middle: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> jax.Array:
        with numpyro.plate("subject", subjects):
            return numpyro.sample(f"{names[index]}_offset", dist.Normal(middle, scale))

    if fit is None:
        return {name: means[name] + spreads[name] * offset(index) for index, name in enumerate(names)}
    mean, spread = (jnp.stack([jnp.asarray(of[name]) for name in names]) for of in (means, spreads))
    return dict(zip(names, parameters(jnp, jax.tree.map(jnp.asarray, fit), mean, spread, offset), strict=True))


def population(
    names: list[str], subjects: int, hierarchical: bool, fit: QuickFit | None
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The prior: sites of means and spreads, if there is a population, and of offsets.

    Returns:
        parameter -> mean, none where there is no population; parameter -> (subjects,), on the unconstrained scale.
    """
    means: dict[str, jax.Array] = {}
    if hierarchical:
        spreads = {}
        for name in names:
            means[name] = numpyro.sample(f"{name}_mean", dist.Normal(0.0, mean_scale(name)))
            spreads[name] = numpyro.sample(f"{name}_spread", dist.LogNormal(np.log(SPREAD_MEDIAN), SPREAD_SCALE))
        return means, write_subjects(means, spreads, subjects, fit)
    with numpyro.plate("subject", subjects):
        offsets = {name: numpyro.sample(f"{name}_offset", dist.Normal(0.0, 1.0)) for name in names}
    return means, {name: mean_scale(name) * offset for name, offset in offsets.items()}


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
        data: what `TrialData.observe` returned: one batch dimension, the subjects.
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
    means, unconstrained = population(scores(net, lapse), subjects, hierarchical, fit)
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
