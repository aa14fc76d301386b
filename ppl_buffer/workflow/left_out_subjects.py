"""Likelihoods of subjects under a fitted hierarchy, their own random effects integrated out, from its draws alone.

Of each draw s of the population (coefficients, spreads, effects that subjects share) the likelihood of a subject's data
is wanted with that subject's effects u integrated over the population, L(s) = E[p(y | s, u)], u ~ p(u | s) (Merkle,
Furr & Rabe-Hesketh 2019, Psychometrika 84, 802). The draws hold u too, from its posterior given s. Where g(u | s) is a
normalised density near to that posterior,

    1 / L(s) = E[g(u | s) / (p(y | s, u) p(u | s))]    (Gelfand & Dey 1994, JRSS B 56, 501),

so that p(y | s, u) p(u | s) / g(u | s) stands for L(s) in leave-one-out: its inverse reweights the draws to a target
without the subject, in which u is distributed as g says. No likelihood is computed again, whatever the model.

Only effects whose levels no other subject has are integrated; what subjects share (items) the others tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from ppl_buffer.formulas.terms import Centring, Design, Grouping, ParameterDesign
from ppl_buffer.workflow.quick_fit import QuickFit

Sites = Mapping[str, np.ndarray]

# Of the regression of effects on the population: how many draws its prior is worth, in which nothing depends on it.
_RIDGE = 1.0
_LOG_2PI = np.log(2 * np.pi)


@dataclass(frozen=True, eq=False)
class EffectDraws:
    """Random effects of one factor at S draws.

    Attributes:
        owner: (G,) index of the subject who alone has each level; -1 where several have it.
        values: (S, G, Q), the effects, on the scale on which their posterior depends least on the spreads.
        log_prior: (S, G), log density of these, given spreads and correlations.
    """

    owner: np.ndarray
    values: np.ndarray
    log_prior: np.ndarray

    @classmethod
    def of(
        cls, design: Design, one: ParameterDesign, grouping: Grouping, centring: Mapping[str, Centring], sites: Sites
    ) -> EffectDraws:
        """Of the draws of all latent sites, name -> (S, ...).

        Args:
            design: what formulas made.
            one: the design of a parameter.
            grouping: one of its groupings.
            centring: site of an effect -> how its offsets are written.
            sites: the draws.
        """
        spreads, offsets, shares, known = [], [], [], []
        for effect in grouping.effects:
            spread = _flat(sites[effect.spread.name], 1)
            written = centring.get(effect.site)
            offset = sites[effect.offset].reshape(len(spread), len(grouping.levels), -1)
            share = np.zeros(offset.shape[1:]) if written is None else written.share
            spreads.append(spread)
            offsets.append(offset)
            shares.append(share)
            known.append(np.ones(spread.shape[1:]) if written is None else written.spread)
        spread, share = np.concatenate(spreads, -1)[:, None], np.concatenate(shares, -1)
        ratio = (spread / np.concatenate(known)) ** (1 - share)
        offset = np.concatenate(offsets, -1)
        owner = _owners(design, one, grouping)
        if grouping.correlation is None:
            scale = spread / ratio
            standard = offset / scale
            return cls(owner, offset, -(0.5 * (standard**2 + _LOG_2PI) + np.log(scale)).sum(-1))
        # Offsets are standard normal, and the effects u = F z s are those of a Cholesky factor F.
        factor = np.asarray(sites[grouping.correlation], float)
        values = offset @ factor.transpose(0, 2, 1) * spread / ratio
        slopes = np.log(spread / ratio).sum(-1) + np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(-1)[:, None]
        return cls(owner, values, -0.5 * (offset**2 + _LOG_2PI).sum(-1) - slopes)


def effects_of_design(
    design: Design, centring: Mapping[str, Centring], sites: Sites
) -> tuple[list[EffectDraws], np.ndarray]:
    """All random effects of a design, and its coefficients and log spreads, (S, P).

    Args:
        design: what formulas made.
        centring: site of an effect -> how the offsets of its draws are written.
        sites: draws of all latent sites, name -> (S, ...).
    """
    effects = [
        EffectDraws.of(design, one, grouping, centring, sites)
        for one in design.parameters.values() for grouping in one.groupings
    ]  # fmt: skip
    columns = {name: _flat(sites[name], 1) for name in design.sites}
    columns = {name: np.log(x) if design.sites[name].positive else x for name, x in columns.items()}
    return effects, np.concatenate(list(columns.values()), 1)


def effects_of_population(sites: Sites, names: Sequence[str], fit: QuickFit) -> tuple[list[EffectDraws], np.ndarray]:
    """The same of the hierarchy without formulas, in which each subject has an offset of each parameter.

    Args:
        sites: draws of all latent sites, name -> (S, ...).
        names: of the parameters, as the quick fit has them.
        fit: by which offsets are written.
    """
    means, spreads = (np.stack([sites[f"{name}_{kind}"] for name in names], -1) for kind in ("mean", "spread"))
    offsets = np.stack([sites[f"{name}_offset"] for name in names], -1)
    log_prior = np.zeros(offsets.shape[:2])
    for index in range(len(names)):
        shares, spread = fit.centring[:, index], spreads[:, [index]]
        scale = spread / (spread / fit.spread[index]) ** (1 - shares[:, index])
        standard = (offsets[..., index] - means @ shares.T) / scale
        log_prior -= 0.5 * (standard**2 + _LOG_2PI) + np.log(scale)
    return [EffectDraws(np.arange(offsets.shape[1]), offsets, log_prior)], np.concatenate([means, np.log(spreads)], 1)


def left_out_log_likelihood(
    effects: Sequence[EffectDraws], population: np.ndarray, log_likelihood: np.ndarray
) -> np.ndarray:
    """What stands for the log likelihood of each subject's data, own effects integrated out, (S, subjects).

    Args:
        effects: all random effects.
        population: (S, P), what the effects are regressed on.
        log_likelihood: of each subject's data at these draws, (S, subjects).
    """
    draws, result = len(log_likelihood), np.array(log_likelihood, dtype=float)
    for subject in range(result.shape[1]):
        own = [(each, each.owner == subject) for each in effects if (each.owner == subject).any()]
        if not own:
            continue
        values = np.concatenate([each.values[:, levels].reshape(draws, -1) for each, levels in own], 1)
        result[:, subject] += np.sum([each.log_prior[:, levels].sum(1) for each, levels in own], axis=0)
        result[:, subject] -= conditional_normal(values, population)
    return result


def conditional_normal(values: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Log density (S,) of draws (S, Q) under the normal distribution that their regression on others (S, P) says."""
    draws, dims = values.shape
    scale = np.maximum(values.std(0), 1e-12)
    standard = (values - values.mean(0)) / scale
    on = (given - given.mean(0)) / np.maximum(given.std(0), 1e-12)
    slopes = np.linalg.solve(on.T @ on + _RIDGE * np.eye(on.shape[1]), on.T @ standard)
    rest = standard - on @ slopes
    root = np.linalg.cholesky(rest.T @ rest / draws + 1e-9 * np.eye(dims))
    distance = (solve_triangular(root, rest.T, lower=True) ** 2).sum(0)
    return -0.5 * (distance + dims * _LOG_2PI) - np.log(np.diag(root)).sum() - np.log(scale).sum()


def _flat(values: np.ndarray, lead: int) -> np.ndarray:
    return np.asarray(values, float).reshape(*values.shape[:lead], -1)


def _owners(design: Design, one: ParameterDesign, grouping: Grouping) -> np.ndarray:
    """Index of the subject who alone has each level of a factor, (G,); -1 where several have it."""
    _, subject = first_appearance(design.persons)
    level = grouping.index[one.rows]
    if level.ndim == 1:
        level = np.broadcast_to(level[:, None], design.trial_mask.shape)
    there = np.zeros((len(grouping.levels), subject.max() + 1), dtype=bool)
    of_trial = np.broadcast_to(subject[:, None], level.shape)
    there[level[design.trial_mask], of_trial[design.trial_mask]] = True
    return np.where(there.sum(1) == 1, there.argmax(1), -1)


def first_appearance(labels: np.ndarray) -> tuple[list[object], np.ndarray]:
    """Different labels in the order in which they come, and the index of each (n,)."""
    different = list(dict.fromkeys(np.asarray(labels).tolist()))
    place = {label: index for index, label in enumerate(different)}
    return different, np.array([place[label] for label in np.asarray(labels).tolist()])
