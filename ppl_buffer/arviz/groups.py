"""Which groups a conversion makes, and what each of them holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ppl_buffer.arviz.dimensions import DimensionNames
from ppl_buffer.arviz.layout import Labelled
from ppl_buffer.arviz.likelihood import order_finding, score_trials
from ppl_buffer.arviz.rollouts import evenly_spaced, roll_out, rollout_finding
from ppl_buffer.checks import check_flag, check_integer, check_mapping, check_seed
from ppl_buffer.findings import Finding
from ppl_buffer.inference.simulation import Simulated
from ppl_buffer.network.backend import Environment
from ppl_buffer.ppl.trace import ObservedSite, PosteriorTrace
from ppl_buffer.schema import split_value

Group = dict[str, Labelled]


@dataclass(frozen=True)
class Settings:
    """`Options`, checked, with their defaults."""

    environment: Environment | Mapping[str, Environment] | None = None
    predictive_draws: int | None = None
    prior_draws: int = 500
    prior_predictive_draws: int = 0
    log_likelihood: bool = True
    coords: Mapping[str, Any] | None = None
    dims: Mapping[str, Sequence[str]] | None = None
    seed: int = 0
    memory: float | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if self.predictive_draws is not None:
            check_integer("predictive_draws", self.predictive_draws, least=0)
        check_integer("prior_draws", self.prior_draws, least=0)
        if check_integer("prior_predictive_draws", self.prior_predictive_draws, least=0) > self.prior_draws:
            raise ValueError(
                f"prior_predictive_draws: expected at most the {self.prior_draws} prior_draws, got "
                f"{self.prior_predictive_draws}"
            )
        check_seed(self.seed)
        check_flag("log_likelihood", self.log_likelihood)
        for argument, names in (("coords", self.coords), ("dims", self.dims)):
            check_mapping(argument, names)

    def environment_of(self, name: str, site: ObservedSite) -> Environment | None:
        """What gives the feedback on a site's drawn outcomes."""
        environment = self.environment.get(name) if isinstance(self.environment, Mapping) else self.environment
        return environment or site.query.environment


@dataclass(frozen=True)
class Scored:
    """What a conversion computed of a joint site.

    Attributes:
        log_probs: log density of each trial given those before it, (S, *B, K).
        draws: which of the S draws have new data sets, (chain, some of the draws).
        simulated: the new data sets, (*draws.shape, *B, K).
    """

    log_probs: np.ndarray | None = None
    draws: np.ndarray | None = None
    simulated: Simulated | None = None


class GroupBuilder:
    """The groups of a traced model: dict name -> variables.

    Args:
        traced: the model at all draws.
        chains: number of chains.
        draws: number of draws of each chain.
        settings: what to compute.

    Attributes:
        scored: joint site -> what was computed of it, once there are `groups`.

    Raises:
        ValueError: if `coords` or `dims` do not fit the model.
    """

    def __init__(self, traced: PosteriorTrace, chains: int, draws: int, settings: Settings) -> None:
        self._traced, self._settings = traced, settings
        self._chains, self._draws = chains, draws
        self.scored: dict[str, Scored] = {}
        self._names = DimensionNames(traced, settings.coords or {}, settings.dims or {})

    def left_out(self) -> list[Finding]:
        """What the groups will not hold, and why."""
        findings = []
        for name, site in self._traced.joint_sites.items():
            if self._settings.log_likelihood:
                findings.append(order_finding(site))
            if self._settings.predictive_draws != 0:
                findings.append(rollout_finding(name, site, self._settings.environment_of(name, site)))
        return [finding for finding in findings if finding is not None]

    def groups(
        self,
        prior: Mapping[str, np.ndarray],
        statistics: Mapping[str, np.ndarray],
        at_prior: PosteriorTrace | None = None,
    ) -> dict[str, Group]:
        """All groups, some of which may be empty.

        Args:
            prior: draws (draws, *shape) of the prior.
            statistics: of the sampler, (chain, draw).
            at_prior: the model at those draws of the prior that get a data set; None = none do.

        Raises:
            ValueError: if `coords` or `dims` do not fit the shape of a site.
        """
        names, traced = self._names, self._traced
        groups: dict[str, Group] = {
            "posterior": names.labelled(self._all_by_chain(traced.values)),
            "log_prior": names.labelled(self._all_by_chain(traced.log_prior), batch_only=True),
            "sample_stats": names.labelled(statistics),
            "prior": names.labelled({name: value[None] for name, value in prior.items()}),
            "log_likelihood": {},
            "one_step_ahead": {},
            "posterior_predictive": {},
            "prior_predictive": {},
            "observed_data": names.labelled(traced.observed, sampled=False),
            "constant_data": {},
        }
        if self._settings.log_likelihood:
            groups["log_likelihood"] = names.labelled(self._all_by_chain(traced.log_likelihood), batch_only=True)
        for name, site in traced.joint_sites.items():
            for group, variables in self._trial_groups(name, site).items():
                groups[group] |= variables
        for name, site in ({} if at_prior is None else at_prior.joint_sites).items():
            groups["prior_predictive"] |= self._prior_predictive(name, site)
        return groups

    def _prior_predictive(self, name: str, site: ObservedSite) -> Group:
        """Data sets of a joint site at draws of the prior; none where they cannot be drawn."""
        settings = self._settings
        environment = settings.environment_of(name, site)
        if rollout_finding(name, site, environment) is not None:
            return {}
        draws = np.arange(settings.prior_predictive_draws)[None]
        simulated = roll_out(site, environment, draws, settings.seed, settings.memory, settings.progress)
        return self._names.layouts[name].variables(split_value(site.query.net.schema, simulated.value))

    def _by_chain(self, values: np.ndarray) -> np.ndarray:
        """An array (S, ...) as (chain, draw, ...)."""
        return values.reshape(self._chains, self._draws, *values.shape[1:])

    def _all_by_chain(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: self._by_chain(value) for name, value in values.items()}

    def _trial_groups(self, name: str, site: ObservedSite) -> dict[str, Group]:
        """What the groups hold of one joint site."""
        layout, settings = self._names.layouts[name], self._settings
        outcomes = split_value(site.query.net.schema, site.value)
        groups = {"observed_data": layout.variables(outcomes), "constant_data": layout.constant(site)}
        scored = Scored()
        if settings.log_likelihood:
            log_probs, steps = score_trials(site, self._chains * self._draws, settings.seed, settings.progress)
            scored = replace(scored, log_probs=log_probs)
            groups["log_likelihood"] = {layout.score: layout.variable(self._by_chain(log_probs))}
            if steps is not None:
                # A view one step ahead looks the log likelihood of each outcome up by this name.
                groups["one_step_ahead"] = layout.variables(self._all_by_chain(steps), log_likelihood=layout.score)
        environment = settings.environment_of(name, site)
        if settings.predictive_draws != 0 and rollout_finding(name, site, environment) is None:
            draws = evenly_spaced(self._chains, self._draws, settings.predictive_draws)
            simulated = roll_out(site, environment, draws, settings.seed, settings.memory, settings.progress)
            scored = replace(scored, draws=draws, simulated=simulated)
            values = split_value(site.query.net.schema, simulated.value)
            groups["posterior_predictive"] = {
                key: variable._replace(coords={**variable.coords, "draw": draws[0] % self._draws})
                for key, variable in layout.variables(values).items()
            }
        self.scored[name] = scored
        return groups
