"""Likelihoods of subjects under a fitted hierarchy, their own random effects integrated out, from its draws alone.

Of each draw s of the population (coefficients, spreads, effects that subjects share) the likelihood of a subject's data
is wanted with that subject's effects u integrated over the population, L(s) = E[p(y | s, u)], u ~ p(u | s) (Merkle,
Furr & Rabe-Hesketh 2019, Psychometrika 84, 802). The draws hold u too, from its posterior given s. Where g(u | s) is a
normalised density near to that posterior,

    1 / L(s) = E[g(u | s) / (p(y | s, u) p(u | s))]    (Gelfand & Dey 1994, JRSS B 56, 501),

so that p(y | s, u) p(u | s) / g(u | s) stands for L(s) in leave-one-out: its inverse reweights the draws to a target
without the subject, in which u is distributed as g says. No likelihood is computed again, whatever the model.

Only effects whose levels no other subject has are integrated, such as those of a subject's sessions; what subjects
share (items, days that all have) the others tell, and is part of s. So g is a regression of u on what coefficients, log
spreads and the effects that subjects share say, the latter as far as they bear on the subject's own trials. It is
fitted to other draws than those at which it is evaluated: where u has many elements, g would be too high at its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import solve_triangular

from ppl_buffer.formulas.terms import Centring, Design, Grouping, ParameterDesign
from ppl_buffer.workflow.quick_fit import QuickFit
from ppl_buffer.workflow.transport import parameters

Sites = Mapping[str, np.ndarray]

# Of the regression of effects on the population: how many draws its prior is worth, in which nothing depends on it and
# effects are independent; and how many parts of the draws are evaluated by a fit to the others.
_RIDGE, _FOLDS = 1.0, 10
_LOG_2PI = np.log(2 * np.pi)


@dataclass(frozen=True, eq=False)
class EffectDraws:
    """Random effects of one factor at S draws.

    Attributes:
        owner: (G,) index of the subject who alone has each level; -1 where several have it.
        values: (S, G, Q), the effects, on the scale on which their posterior depends least on the spreads.
        log_prior: (S, G), log density of these, given spreads and correlations.
        ratio: (S, G, Q), the effects on the scale of the linear predictor, in units of these values; 1 = they are.
        shared: (S, G, Q), of each column the sum of the effects that several subjects have over the trials of a level,
            as far as it points along that column (its least squares coefficient on it alone); None = there are none.
    """

    owner: np.ndarray
    values: np.ndarray
    log_prior: np.ndarray
    ratio: np.ndarray | float = 1.0
    shared: np.ndarray | None = None

    @property
    def linear(self) -> np.ndarray:
        """(S, G, Q), the effects on the scale of the linear predictor."""
        return self.values * self.ratio

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
            return cls(owner, offset, -(0.5 * (standard**2 + _LOG_2PI) + np.log(scale)).sum(-1), ratio)
        # Offsets are standard normal, and the effects u = F z s are those of a Cholesky factor F.
        factor = np.asarray(sites[grouping.correlation], float)
        values = offset @ factor.transpose(0, 2, 1) * spread / ratio
        slopes = np.log(spread / ratio).sum(-1) + np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(-1)[:, None]
        return cls(owner, values, -0.5 * (offset**2 + _LOG_2PI).sum(-1) - slopes, ratio)


def effects_of_design(
    design: Design, centring: Mapping[str, Centring], sites: Sites
) -> tuple[list[EffectDraws], np.ndarray]:
    """All random effects of a design, and its coefficients and log spreads, (S, P).

    Args:
        design: what formulas made.
        centring: site of an effect -> how the offsets of its draws are written.
        sites: draws of all latent sites, name -> (S, ...).
    """
    effects = []
    for one in design.parameters.values():
        theirs = [EffectDraws.of(design, one, grouping, centring, sites) for grouping in one.groupings]
        effects += _with_shared(design, one, theirs)
    columns = {name: _flat(sites[name], 1) for name in design.sites}
    columns = {name: np.log(x) if design.sites[name].positive else x for name, x in columns.items()}
    return effects, np.concatenate(list(columns.values()), 1)


def _with_shared(design: Design, one: ParameterDesign, effects: Sequence[EffectDraws]) -> list[EffectDraws]:
    """The effects of one parameter, with what those that subjects share say of the trials of each level."""
    if all((each.owner >= 0).all() for each in effects) or all((each.owner < 0).all() for each in effects):
        return list(effects)
    row = np.broadcast_to(one.rows if one.by_trial else one.rows[:, None], design.trial_mask.shape)
    counts = np.bincount(row[design.trial_mask], minlength=len(one.weights)).astype(float)
    columns = [np.concatenate([x.columns for x in grouping.effects], -1, dtype=float) for grouping in one.groupings]
    levels = [np.equal.outer(grouping.index, np.arange(len(grouping.levels))) * 1.0 for grouping in one.groupings]
    result = []
    for each, own, of_own in zip(effects, columns, levels, strict=True):
        total = np.zeros(each.values.shape)
        for other, theirs, of_other in zip(effects, columns, levels, strict=True):
            shared = of_other * (other.owner < 0)
            for place in range(theirs.shape[1]):
                weights = (counts * theirs[:, place])[:, None] * own
                along = np.einsum("rq,rg,rh->hgq", weights, of_own, shared, optimize=True)
                total += np.tensordot(other.linear[:, :, place], along, axes=([1], [0]))
        squares = np.einsum("rq,rg->gq", counts[:, None] * own**2, of_own)
        result.append(replace(each, shared=total / np.maximum(squares, 1e-12)))
    return result


def effects_of_population(sites: Sites, names: Sequence[str], fit: QuickFit) -> tuple[list[EffectDraws], np.ndarray]:
    """The same of the hierarchy without formulas, in which each subject has an offset of each parameter.

    Args:
        sites: draws of all latent sites, name -> (S, ...).
        names: of the parameters, as the quick fit has them.
        fit: by which offsets are written.
    """
    means, spreads = (np.stack([sites[f"{name}_{kind}"] for name in names], -1) for kind in ("mean", "spread"))
    offsets = np.stack([sites[f"{name}_offset"] for name in names], -1)
    log_prior = []

    def offset(index: int, middle: np.ndarray, scale: np.ndarray) -> np.ndarray:
        standard = (offsets[..., index] - middle) / scale
        log_prior.append(-0.5 * (standard**2 + _LOG_2PI) - np.log(scale))
        return offsets[..., index]

    parameters(np, fit, means, spreads, offset)
    effects = EffectDraws(np.arange(offsets.shape[1]), offsets, np.sum(log_prior, axis=0))
    return [effects], np.concatenate([means, np.log(spreads)], 1)


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
        shared = [each.shared[:, levels].reshape(draws, -1) for each, levels in own if each.shared is not None]
        result[:, subject] -= conditional_normal(values, np.concatenate([population, *shared], 1))
    return result


def conditional_normal(values: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Log density (S,) of draws (S, Q) under the normal distribution that their regression on others (S, P) says.

    Of each tenth of the draws by the regression of the other ones, so that the density is normalised whatever the draw.
    """
    draws, dims = values.shape
    scale = np.maximum(values.std(0), 1e-12)
    standard = (values - values.mean(0)) / scale
    on = (given - given.mean(0)) / np.maximum(given.std(0), 1e-12)
    result = np.empty(draws)
    # Neighbours of a chain are alike, and stay together.
    for part in np.array_split(np.arange(draws), min(_FOLDS, draws)):
        others = np.setdiff1d(np.arange(draws), part)
        center, given_center = standard[others].mean(0), on[others].mean(0)
        left, right = standard[others] - center, on[others] - given_center
        slopes = np.linalg.solve(right.T @ right + _RIDGE * np.eye(on.shape[1]), right.T @ left)
        rest = left - right @ slopes
        squares = rest.T @ rest / len(rest)
        independent = np.diag(np.diag(squares)) + 1e-9 * np.eye(dims)
        root = np.linalg.cholesky((len(rest) * squares + _RIDGE * independent) / (len(rest) + _RIDGE))
        away = standard[part] - center - (on[part] - given_center) @ slopes
        distance = (solve_triangular(root, away.T, lower=True) ** 2).sum(0)
        result[part] = -0.5 * (distance + dims * _LOG_2PI) - np.log(np.diag(root)).sum()
    return result - np.log(scale).sum()


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


def shared_factors(design: Design) -> list[str]:
    """Factors of random effects that have levels of several subjects, such as items that all have seen."""
    pairs = [(one, grouping) for one in design.parameters.values() for grouping in one.groupings]
    return list(dict.fromkeys(x.factor for one, x in pairs if (_owners(design, one, x) < 0).any()))


def first_appearance(labels: np.ndarray) -> tuple[list[object], np.ndarray]:
    """Different labels in the order in which they come, and the index of each (n,)."""
    different = list(dict.fromkeys(np.asarray(labels).tolist()))
    place = {label: index for index, label in enumerate(different)}
    return different, np.array([place[label] for label in np.asarray(labels).tolist()])
