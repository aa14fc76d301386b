"""A hierarchical fit of people to a network's model, by NumPyro's NUTS: what the command line and the demo share.

Each person has parameters of their own inside the box that the network was trained on, drawn from a population: normal
on the logistic scale that the box is mapped from, with an unknown mean and spread, written non-centred. A parameter
that an outcome always exceeds (a non-decision time) is also bounded by that person's fastest response; one whose prior
was relative to another one lies that far from it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random
from numpyro.infer import MCMC, NUTS, init_to_median
from scipy.optimize import minimize

from ppl_buffer.arviz import EXTRA_FIELDS, from_mcmc, groups_of, import_arviz
from ppl_buffer.datasets import TrialData
from ppl_buffer.diagnostics import DataCheck, check_data, outside
from ppl_buffer.numpyro import JointPredictive
from ppl_buffer.schema import Interval, Positive, stack_value

if TYPE_CHECKING:
    import pandas

# Priors of the population, on the scale that `Box` maps into the trained box. A mean of scale 1.5 covers the box nearly
# evenly. People do differ: a spread of exactly 0 is not plausible, and would be a hard place for a sampler.
MEAN_SCALE, SPREAD_MEDIAN, SPREAD_SCALE = 1.5, 0.5, 0.7
# Part of the trained range that counts as its edge.
_EDGE = 0.02
# What an effective sample size and R-hat should be (Vehtari et al. 2021, Bayesian Analysis 16, 667-718), by quantity.
LEAST_EFFECTIVE, MOST_R_HAT, MOST_DIVERGING = 400, 1.01, 0.01
# Above either of these a posterior is not to be read at all.
_HOPELESS_R_HAT, _HOPELESS_DIVERGING = 1.05, 0.05
# The mapping ends short of the very bounds, which may not be legal.
_MARGIN = 1e-4


@dataclass(frozen=True, eq=False)
class Box:
    """Maps numbers into the range of parameters that a network was trained on.

    Attributes:
        bounds: parameter -> (low, high), in the order of the schema.
        origins: parameter -> the earlier parameter that its bounds count from.
        ceilings: parameter -> (people,), what it must stay below for each person: the fastest response.
    """

    bounds: Mapping[str, tuple[float, float]]
    origins: Mapping[str, str]
    ceilings: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, net: Any, trials: TrialData | None = None) -> Box:
        """The box of a network, and the ceilings that people's responses set.

        Raises:
            ValueError: if the network was not trained, or a response is faster than any that the model allows.
        """
        if net.record is None:
            raise ValueError("net: expected a trained network, which knows its range, got an untrained one")
        bounds, origins, ceilings = {}, {}, {}
        for name in net.schema.params:
            prior = net.record.priors.get(name)
            if prior is not None and prior.relative_to is not None:
                bounds[name], origins[name] = prior.range(), prior.relative_to
            else:
                bounds[name] = net.box[name]
        for outcome, name in net.schema.lower_bounds.items():
            if trials is None:
                continue
            fastest = np.where(trials.trial_mask, trials.outcomes[outcome], np.inf).min(1)
            low, high = bounds[name]
            if (fastest <= low).any():
                worst = int(fastest.argmin())
                raise ValueError(
                    f"{outcome}: the fastest response of subject {trials.subjects[worst]} is {fastest[worst]:g}, but "
                    f"{name} is at least {low:g} in this model; delete responses that are too fast to be decisions"
                )
            ceilings[name] = np.minimum(fastest, high).astype(np.float32)
        return cls(bounds, origins, ceilings)

    def __call__(self, unconstrained: Mapping[str, Any], person: bool = True) -> dict[str, Any]:
        """Parameters in natural units of numbers on the logistic scale, dict name -> array.

        Args:
            unconstrained: parameter -> (...), any real numbers; (..., people) where there are ceilings.
            person: whether the numbers are people's. For the group a ceiling is the median person's.
        """
        values: dict[str, Any] = {}
        for name, (low, high) in self.bounds.items():
            share = _MARGIN + (1 - 2 * _MARGIN) * jax.nn.sigmoid(unconstrained[name])
            ceiling: Any = self.ceilings.get(name)
            top = high if ceiling is None else ceiling if person else float(np.median(ceiling))
            values[name] = low + (top - low) * share
            if name in self.origins:
                values[name] = values[name] + values[self.origins[name]]
        return values


def observe(net: Any, trials: TrialData) -> Any:
    """What `net.observe` makes of the trials."""
    outcomes = {name: np.asarray(x, np.float32) for name, x in trials.outcomes.items()}
    return net.observe(
        {name: trials.inputs[name] for name in net.schema.inputs},
        stack_value(np, net.schema, outcomes),
        feedback={name: trials.feedback[name] for name in net.schema.feedback},
        trial_mask=trials.trial_mask,
    )


def model(net: Any, data: Any, box: Box, hierarchical: bool = True, lapse: float | None = None) -> None:
    """The NumPyro model of people whose trials `net.observe` has prepared.

    Args:
        net: a trained network, loaded with backend "jax".
        data: what `observe` returned: one batch dimension, the people.
        box: maps into the trained range.
        hierarchical: people come from one population. Otherwise each has a prior of their own, nearly even in the box.
        lapse: probability that a trial is a lapse.

    Sites, for each parameter: ``{name}`` (people, natural units); hierarchical also ``{name}_group`` (the median
    person, natural units), ``{name}_mean`` and ``{name}_spread`` (logistic scale).
    """
    people = data.batch_shape[0]
    means, persons = {}, {}
    for name in box.bounds:
        spread: Any = MEAN_SCALE
        means[name] = 0.0
        if hierarchical:
            means[name] = numpyro.sample(f"{name}_mean", dist.Normal(0.0, MEAN_SCALE))
            spread = numpyro.sample(f"{name}_spread", dist.LogNormal(np.log(SPREAD_MEDIAN), SPREAD_SCALE))
        with numpyro.plate("person", people):
            offset = numpyro.sample(f"{name}_offset", dist.Normal(0.0, 1.0))
        persons[name] = means[name] + spread * offset
    if hierarchical:
        for name, value in box(means, person=False).items():
            numpyro.deterministic(f"{name}_group", value)
    params = {name: numpyro.deterministic(name, value) for name, value in box(persons).items()}
    site = next(iter(net.schema.outcomes)) if len(net.schema.outcomes) == 1 else "trials"
    with numpyro.plate("person", people):
        numpyro.sample(site, JointPredictive(net, data, params=params, lapse=lapse), obs=data.value)


def start(net: Any, data: Any, box: Box, lapse: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mode and covariance of the group means if all people were alike: where NUTS starts and how it scales its steps.

    The group means are correlated and far better known than their prior says. A sampler finds that out from its own
    warm-up, at several hundred gradients; a fit of a few numbers tells it for thirty.

    Returns:
        (P,) and (P, P), on the logistic scale.
    """
    names = list(box.bounds)

    @jax.jit
    @jax.value_and_grad
    def loss(mean: Any) -> Any:
        alike = jnp.broadcast_to(mean[:, None], (len(names), data.batch_shape[0]))
        params = box(dict(zip(names, alike, strict=True)))
        likelihood = JointPredictive(net, data, params=params, lapse=lapse).log_prob(data.value).sum()
        return 0.5 * ((mean / MEAN_SCALE) ** 2).sum() - likelihood

    def evaluate(mean: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = loss(jnp.asarray(mean, jnp.float32))
        return float(value), np.asarray(gradient, dtype=float)

    mode = minimize(evaluate, np.zeros(len(names)), jac=True, method="BFGS", options={"gtol": 0.5}).x
    step = 0.05 * np.eye(len(mode))
    hessian = np.stack([(evaluate(mode + h)[1] - evaluate(mode - h)[1]) / 0.1 for h in step])
    eigenvalues, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    # Never wider than the prior, also where the curvature says nothing.
    return mode, (vectors / np.maximum(eigenvalues, MEAN_SCALE**-2)) @ vectors.T


def sample(
    net: Any,
    data: Any,
    box: Box,
    *,
    hierarchical: bool = True,
    lapse: float | None = None,
    chains: int = 2,
    warmup: int = 200,
    draws: int = 350,
    target_accept: float = 0.8,
    tree_depth: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> MCMC:
    """Draw from the posterior of `model` with NUTS.

    Chains run at once where JAX has a device for each: call ``numpyro.set_host_device_count(chains)`` before anything
    else uses JAX.

    Args:
        net: a trained network, loaded with backend "jax".
        data: what `observe` returned.
        box: maps into the trained range.
        hierarchical: see `model`.
        lapse: see `model`.
        chains: number of chains, which begin apart from each other.
        warmup: warm-up draws of each chain.
        draws: kept draws of each chain.
        target_accept: of NUTS: nearer to 1 for smaller steps, where there are divergences.
        tree_depth: of NUTS: at most 2 ** depth - 1 gradients a draw.
        seed: of everything random.
        progress: show a progress bar.

    Returns:
        the finished run, as `ppl_buffer.arviz.from_mcmc` takes it.
    """
    people, names = data.batch_shape[0], list(box.bounds)
    mode, covariance = start(net, data, box, lapse)
    rng = np.random.default_rng(seed)
    means, spreads, offsets = (tuple(f"{name}_{kind}" for name in names) for kind in ("mean", "spread", "offset"))
    # Chains begin apart from each other, or R-hat could not tell whether they have met.
    around = rng.multivariate_normal(mode, 4 * covariance, chains).T
    first = {name: rng.standard_normal((chains, people)) for name in offsets}
    mass: dict[str, Any] = {}
    if hierarchical:
        first |= dict(zip(means, around, strict=True))
        first |= {name: np.log(SPREAD_MEDIAN) + SPREAD_SCALE * rng.standard_normal(chains) for name in spreads}
        mass = {
            "inverse_mass_matrix": {
                # People differ, so the group means are known less well than for people who are all alike.
                means: jnp.asarray(2 * covariance, jnp.float32),
                spreads: jnp.full(len(names), 0.2),
                offsets: jnp.full(len(names) * people, 0.8),
            },
            "dense_mass": [means],
            "adapt_mass_matrix": False,
        }
    else:
        first = {
            name: (place[:, None] + 0.3 * first[name]) / MEAN_SCALE for name, place in zip(offsets, around, strict=True)
        }
    if chains == 1:
        first = {name: value[0] for name, value in first.items()}
    kernel = NUTS(
        partial(model, net, data, box, hierarchical, lapse),
        init_strategy=init_to_median(num_samples=3),
        step_size=0.3,
        target_accept_prob=target_accept,
        max_tree_depth=tree_depth,
        **mass,
    )
    mcmc = MCMC(kernel, num_warmup=warmup, num_samples=draws, num_chains=chains, progress_bar=progress)
    init_params = {name: jnp.asarray(value, jnp.float32) for name, value in first.items()}
    mcmc.run(random.PRNGKey(seed), init_params=init_params, extra_fields=EXTRA_FIELDS)
    jax.block_until_ready(mcmc.get_samples())
    return mcmc


@dataclass(frozen=True, eq=False)
class Fit:
    """A finished fit, and all that was found out about it. Made by `fit`.

    Attributes:
        net: the network.
        trials: what was fitted.
        box: the range that people's parameters were looked for in.
        posterior: what `ppl_buffer.arviz.from_mcmc` returned.
        replicated: data sets drawn from the posterior, dict outcome -> (draws, people, K), NaN where there is no trial;
            empty where feedback is needed and no environment gives it.
        check: posterior predictive checks, or None where there are no data sets to check against.
        outside: parameter -> share of posterior draws outside the trained range.
        summary: a row a quantity: mean, sd, interval, effective sample sizes, R-hat.
        diverging: share of divergent transitions.
        deepest: share of transitions that used as many gradients as they may.
        warned: what was warned of on the way.
        settings: of the sampler, by name.
        seconds: that sampling took.
    """

    net: Any
    trials: TrialData
    box: Box
    posterior: Any
    replicated: dict[str, np.ndarray]
    check: DataCheck | None
    outside: dict[str, float]
    summary: pandas.DataFrame
    diverging: float
    deepest: float
    warned: list[str]
    settings: dict[str, Any]
    seconds: float

    @property
    def hierarchical(self) -> bool:
        """Whether people were taken as draws from one population."""
        return bool(self.settings["hierarchical"])

    def draws(self, name: str) -> np.ndarray:
        """Posterior draws of a site: (chains, draws, ...)."""
        return np.asarray(groups_of(self.posterior)["posterior"][name].values)

    @property
    def r_hat(self) -> float:
        """The worst R-hat of any quantity; NaN with a single chain."""
        return float(self.summary["r_hat"].astype(float).max())

    @property
    def effective(self) -> float:
        """The least effective sample size, in the bulk or the tails, of any quantity."""
        return float(self.summary[["ess_bulk", "ess_tail"]].astype(float).min().min())

    @property
    def converged(self) -> bool:
        """Whether R-hat, effective sample size and divergences are all as they should be."""
        return self.r_hat <= MOST_R_HAT and self.effective >= LEAST_EFFECTIVE and self.diverging < MOST_DIVERGING

    @property
    def readable(self) -> bool:
        """Whether means and spreads can be read at least; of a single chain only the divergences tell."""
        return not self.r_hat > _HOPELESS_R_HAT and self.diverging < _HOPELESS_DIVERGING

    def edge(self, name: str) -> float:
        """Share of a parameter's draws at an edge of the trained range beyond which other values would be legal.

        Draws that pile up there say that the data ask for values that the network does not know.
        """
        value = self.draws(name)
        if name in self.box.origins:
            value = value - self.draws(self.box.origins[name])
        low, high = self.box.bounds[name]
        place = (value - low) / (high - low)
        variable = self.net.schema.params[name]
        natural = (-np.inf, np.inf)
        if isinstance(variable, Interval):
            natural = (variable.low, variable.high)
        elif isinstance(variable, Positive):
            natural = (0.0, np.inf)
        beyond = np.zeros(place.shape, dtype=bool)
        if low > natural[0]:
            beyond |= place < _EDGE
        if high < natural[1] and name not in self.box.ceilings:
            beyond |= place > 1 - _EDGE
        return float(beyond.mean())


def fit(
    net: Any,
    trials: TrialData,
    *,
    environment: Callable[..., Any] | None = None,
    hierarchical: bool = True,
    replicates: int = 200,
    seed: int = 0,
    progress: bool = True,
    lapse: float | None = None,
    **sampling: Any,
) -> Fit:
    """Fit people's trials, convert the posterior to ArviZ, and check the model against the data.

    Args:
        net: a trained network, loaded with backend "jax".
        trials: what `ppl_buffer.datasets.tables.read_trials` or a loader of `ppl_buffer.datasets` returned.
        environment: gives the feedback on drawn outcomes, as `JointPredictive` asks for it; without one a model with
            feedback is not compared with data sets of its own.
        hierarchical: people come from one population; a single person never does.
        replicates: data sets drawn from the posterior.
        seed: of everything random.
        progress: show progress bars.
        lapse: probability that a trial is a lapse.
        **sampling: further arguments of `sample`.

    Raises:
        ValueError: if the trials do not fit the network.
    """
    hierarchical = hierarchical and len(trials.subjects) > 1
    box, data = Box.of(net, trials), observe(net, trials)
    began = time.perf_counter()
    mcmc = sample(
        net, data, box, hierarchical=hierarchical, lapse=lapse, seed=seed, progress=progress, **sampling
    )  # fmt: skip
    seconds = time.perf_counter() - began
    can_generate = environment is not None or not net.schema.feedback
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        posterior = from_mcmc(
            mcmc,
            environment=environment,
            predictive_draws=replicates if can_generate else 0,
            coords={"subject": trials.subjects, "trial": np.arange(1, trials.trial_mask.shape[1] + 1)},
            seed=seed,
            progress=progress,
        )
        shares = outside(net, posterior)
        check = None
        if can_generate and lapse:
            check = _check_outcomes(trials, _padded(groups_of(posterior), net.schema.outcomes, trials.trial_mask))
        elif can_generate:
            check = check_data(
                net, data, mcmc.get_samples(), environment=environment, draws=replicates, seed=seed, progress=progress
            )
        summary = _summarize(posterior, list(box.bounds), hierarchical)
    depth = sampling.get("tree_depth", 4)
    fields = mcmc.get_extra_fields()
    groups = groups_of(posterior)
    # What others announce of their own is not about this fit.
    ours = [str(w.message) for w in caught if str(w.message).startswith(("check_data", "outside", "posterior_pred"))]
    return Fit(
        net=net,
        trials=trials,
        box=box,
        posterior=posterior,
        replicated=_padded(groups, net.schema.outcomes, trials.trial_mask),
        check=check,
        outside=shares,
        summary=summary,
        diverging=float(np.mean(fields["diverging"])),
        deepest=float(np.mean(np.asarray(fields["num_steps"]) >= 2**depth - 1)),
        warned=ours,
        settings={"hierarchical": hierarchical, "lapse": lapse, "seed": seed, "replicates": replicates, **sampling},
        seconds=seconds,
    )


def _summarize(posterior: Any, names: list[str], hierarchical: bool) -> pandas.DataFrame:
    kinds = ("group", "mean", "spread") if hierarchical else ()
    wanted = [f"{name}_{kind}" for kind in kinds for name in names] + names
    return import_arviz().summary(posterior, var_names=wanted, round_to="none")


def _check_outcomes(trials: TrialData, replicated: Mapping[str, np.ndarray], level: float = 0.95) -> DataCheck:
    """Means and spreads of outcomes against drawn data sets: a check that holds with lapses too."""
    observed, drawn = {}, {}
    for name, again in replicated.items():
        seen = np.where(trials.trial_mask, trials.outcomes[name], np.nan)
        for what, statistic in (("mean", np.nanmean), ("standard deviation", np.nanstd)):
            drawn[f"{what} of {name}"] = statistic(again, -1)
            observed[f"{what} of {name}"] = np.broadcast_to(statistic(seen, -1), again.shape[:-1])
    return DataCheck(observed, drawn, level)


def _padded(groups: Mapping[str, Any], outcomes: Any, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Outcomes of the posterior predictive with every trial at its place: (draws, people, K)."""
    if "posterior_predictive" not in groups:
        return {}
    padded = {}
    for name in outcomes:
        drawn = groups["posterior_predictive"][name].values
        flat = drawn.reshape(drawn.shape[0] * drawn.shape[1], -1)
        padded[name] = np.full((len(flat), *mask.shape), np.nan)
        padded[name][:, mask] = flat
    return padded
