"""Draws from either model of subjects, the default hierarchy or formulas, and what the rest of a fit asks of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ppl_buffer.formulas.labels import labelled
from ppl_buffer.formulas.terms import Centring, Design
from ppl_buffer.network.lapses import Lapse
from ppl_buffer.network.missing import missing_of
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials, observe_trials
from ppl_buffer.workflow.chains import Sampler, prepare
from ppl_buffer.workflow.formula_fit import formula_model, params_at, quick_design_fit, sample_design
from ppl_buffer.workflow.hierarchical import RATE, Box, model, scores
from ppl_buffer.workflow.quick_fit import QuickFit
from ppl_buffer.workflow.sampling import Draws

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Sampled:
    """Posterior draws, and the model that they are of.

    Attributes:
        draws: of all sites.
        model: of NumPyro.
        args: its arguments.
        quantities: sites that a summary shows.
        hierarchical: whether subjects are taken as draws from one population.
        params: a number of draws -> parameters (and rates of lapses) in natural units at so many of them, evenly
            spaced: dict name -> (draws, S), or (draws, S, K) of those that vary by trial.
        design: what formulas made; None where there were none.
        normal: the quick fit of the default hierarchy; None of any other model.
        coords: dimension -> labels, beside those of subjects and trials.
        dims: site -> names of its dimensions, where plates do not tell them.
        centring: with formulas, site of a random effect -> how its offsets are written.
    """

    draws: Draws
    model: Callable[..., None]
    args: tuple[object, ...]
    quantities: list[str]
    hierarchical: bool
    params: Callable[[int], Arrays]
    design: Design | None = None
    coords: Arrays = field(default_factory=dict)
    dims: dict[str, list[str]] = field(default_factory=dict)
    normal: QuickFit | None = None
    centring: Mapping[str, Centring] = field(default_factory=dict)


def sample_by_subject(
    net: Network,
    data: ObservedTrials,
    box: Box,
    sampler: Sampler,
    lapse: Lapse | None,
    *,
    hierarchical: bool,
    seed: int,
    progress: bool,
    path: Path | None,
) -> Sampled:
    """Draws from the default hierarchy, or of each subject alone: the arguments are those of `chains.sample`."""
    prepared = prepare(net, data, box, sampler, hierarchical=hierarchical, lapse=lapse)
    normal = prepared.quick(progress)
    draws = prepared.sample(normal, seed=seed, progress=progress, path=path)
    names, subjects = scores(net, lapse), data.batch_shape[0]

    def params(count: int) -> Arrays:
        return {name: draws.sites[name].reshape(-1, subjects) for name in names}

    kinds = ("group", "mean", "spread") if hierarchical else ()
    quantities = [f"{name}_{kind}" for kind in kinds for name in names] + names
    args = (net, data, box, hierarchical, lapse, normal)
    population = normal if hierarchical else None
    return Sampled(draws, model, args, quantities, hierarchical, params, normal=population)


def sample_by_formula(
    net: Network,
    data: ObservedTrials,
    design: Design,
    sampler: Sampler,
    lapse: Lapse | None,
    *,
    seed: int,
    progress: bool,
    path: Path | None,
) -> Sampled:
    """Draws from the model that formulas describe: the arguments are those of `formula_fit.sample_design`."""
    data = _by_condition(net, data, design)
    normal = quick_design_fit(net, data, design, lapse, progress=progress)
    draws = sample_design(net, data, design, normal, sampler, lapse=lapse, seed=seed, progress=progress, path=path)
    names = list(design.parameters)

    def params(count: int) -> Arrays:
        flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in draws.sites.items()}
        total = len(flat[names[0]])
        index = np.linspace(0, total - 1, min(count, total)).astype(int)
        some = {name: x[index] for name, x in flat.items()}
        rates = {RATE: some[RATE]} if RATE in names else {}
        return {**params_at(net, design, normal.centring, some), **rates}

    sites = [f"{name}_group" for name in names] + list(design.sites)
    sites += [name for name in (f"{name}_Intercept" for name in names) if name in draws.sites]
    args = (net, data, design, lapse, normal.centring)
    coords, dims = labelled(design)
    return Sampled(
        draws, formula_model, args, [*sites, *names], True, params, design, coords, dims, centring=normal.centring
    )


def _by_condition(net: Network, data: ObservedTrials, design: Design) -> ObservedTrials:
    """The same trials, those of which all parameters are alike as one condition, which is computed once."""
    if design.conditions is None:
        return data
    return observe_trials(
        net, data.inputs, data.value, feedback=data.feedback or None, trial_mask=data.trial_mask, context=None,
        missing=missing_of(data.missing, data.deadline), conditions=design.conditions, purpose="again",
    )  # fmt: skip
