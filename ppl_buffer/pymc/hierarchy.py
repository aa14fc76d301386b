"""Hierarchies by formula in a model of PyMC: variables of coefficients and random effects, and what they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from ppl_buffer.formulas.labels import labelled
from ppl_buffer.formulas.priors import CORRELATION_CONCENTRATION
from ppl_buffer.formulas.tables import SUBJECT_COLUMN
from ppl_buffer.formulas.terms import Centring, Design, Effect, Grouping, check_design
from ppl_buffer.network.backend import Array, Named
from ppl_buffer.network.network import Network
from ppl_buffer.pymc.priors import site_distribution
from ppl_buffer.pymc.symbolic import SymbolicNetwork


def hierarchical_params(
    net: Network, design: Design, centring: Mapping[str, Centring] | None = None
) -> tuple[Named, Named]:
    """Make what formulas are made of, inside a model; the ``params`` and ``trial_params`` of `JointPredictive`.

    Variables, for each parameter: ``{name}_mean`` (the population's average) and ``{name}~{term}`` (coefficients, on
    the real line), ``{name}_spread`` and ``{name}_offset`` of ``(1 | subject)``, ``{name}~{term}|{factor}_spread`` and
    ``_offset`` of other random effects; deterministic: ``{name}_Intercept`` (where all columns are 0),
    ``{name}_group`` (the median subject) and ``{name}`` (each data set, at the mean of its trials), in natural units.

    Where effects are correlated, ``{name}|{factor}_correlation``, the Cholesky factor of their correlation matrix, is
    deterministic as well: it is made of ``{name}|{factor}_partial``, partial correlations that count from 0 to 1.

    Dimensions are ``subject``, the data sets (a model's own labels of it stay), and ``{site}_level`` of coefficients
    and factors with labels, which the design knows.

    Args:
        net: a trained network.
        design: what `ppl_buffer.formulas.design` made.
        centring: name of a random effect -> how its offsets are written; None = non-centred. The posterior is the same.

    Returns:
        parameters in natural units that each data set has, dict name -> (S,), and those that vary by trial, dict name
        -> (S, K), or (S, C) of a design `at_conditions`; it is empty where none does.

    Raises:
        ValueError: if an argument is something else, or the model has another number of labels of a dimension.
        TypeError: if there is no model on the stack.
    """
    return natural_params(net, design, *linear_predictors(net, design, centring))


def natural_params(
    net: Network, design: Design, linear: Mapping[str, Array], averages: Mapping[str, Array]
) -> tuple[Named, Named]:
    """What `hierarchical_params` returns, of what `linear_predictors` did; deterministic variables in natural units.

    Args:
        net: a trained network.
        design: what `ppl_buffer.formulas.design` made.
        linear: name -> (R,), of all parameters that are estimated.
        averages: name -> ().
    """
    symbolic = SymbolicNetwork(net)
    params, by_trial = design.natural(symbolic, linear)
    for name, value in design.group(symbolic, averages).items():
        if name in design.parameters:
            pm.Deterministic(f"{name}_group", value)
    for name, value in design.typical(symbolic, linear).items():
        if name in design.parameters:
            pm.Deterministic(name, value, dims=SUBJECT_COLUMN)
    return params, by_trial


def linear_predictors(
    net: Network, design: Design, centring: Mapping[str, Centring] | None = None
) -> tuple[Named, Named]:
    """Make the variables that formulas are made of; what they say on the real line.

    Args:
        net: a trained network.
        design: what `ppl_buffer.formulas.design` made.
        centring: as `hierarchical_params` takes it.

    Returns:
        linear predictors of the design's rows, dict name -> (R,), and of the population's average, dict name -> ().

    Raises:
        ValueError: as `hierarchical_params`.
        TypeError: if there is no model on the stack.
    """
    centring = check_design(net, design).checked_centring(centring)
    symbolic, variables = SymbolicNetwork(net), _Variables(design)
    linear: Named = {}
    averages: Named = {}
    for name, one in design.parameters.items():
        values = {site.name: variables.sample(site.name, site_distribution(site)) for site in one.sites}
        effects: Named = {}
        for grouping in one.groupings:
            effects |= variables.effects(grouping, centring)
        linear[name] = one.linear(symbolic, values, effects)
        averages[name] = one.averaged(symbolic, values)
        if one.intercept and len(one.centres) > 1:
            pm.Deterministic(f"{name}_Intercept", one.uncentred(symbolic, values))
    return linear, averages


class _Variables:
    """Variables of a design in the model on the stack, whose dimensions get its labels.

    Args:
        design: the design.
    """

    def __init__(self, design: Design) -> None:
        self._model = pm.modelcontext(None)
        coords, self._dims = labelled(design)
        for name, labels in ({SUBJECT_COLUMN: _data_sets(design)} | coords).items():
            _add_labels(self._model, name, labels)

    def sample(self, name: str, distribution: TensorVariable, dims: Sequence[str] | None = None) -> TensorVariable:
        """A variable of the model."""
        return self._model.register_rv(distribution, name, dims=self._dims.get(name) or dims)

    def effects(self, grouping: Grouping, centring: Mapping[str, Centring]) -> Named:
        """Random effects of one factor, dict name of the effect -> (G, q)."""
        spreads, offsets, effects = [], [], dict[str, Array]()
        for effect in grouping.effects:
            spread = self.sample(effect.spread.name, site_distribution(effect.spread)).reshape((effect.spread.size,))
            known = None if grouping.correlation else centring.get(effect.site)
            ratio, scale = spread, pt.ones_like(spread)
            if known is not None:
                ratio = (spread / known.spread) ** (1 - known.share)
                scale = spread / ratio
            offset = self._offset(grouping, effect, scale)
            effects[effect.site] = ratio * offset
            spreads.append(spread)
            offsets.append(offset)
        if grouping.correlation is None:
            return effects
        factor = self._correlation(grouping.correlation, grouping.size)
        together = pt.concatenate(offsets, -1) @ factor.T * pt.concatenate(spreads)
        ends = np.cumsum([effect.spread.size for effect in grouping.effects])
        return {
            effect.site: together[:, end - effect.spread.size : end]
            for effect, end in zip(grouping.effects, ends, strict=True)
        }

    def _correlation(self, name: str, size: int) -> TensorVariable:
        """Cholesky factor (Q, Q) of an LKJ correlation matrix, by its C-vine.

        Row i of the factor has, before its diagonal, the partial correlations of effect i with the effects j before it
        given those before j, times what the former ones leave. They are independent, Beta on (-1, 1) (Lewandowski,
        Kurowicka & Joe 2009, Journal of Multivariate Analysis 100, 1989-2001, section 2). `pm.LKJCholeskyCov` is the
        same distribution up to a constant, and would take the spreads' priors into itself.
        """
        rows, columns = np.tril_indices(size, -1)
        concentration = CORRELATION_CONCENTRATION + (size - 2 - columns) / 2
        halves = pm.Beta.dist(concentration, concentration, shape=len(columns))
        partial = 2 * self.sample(f"{name.removesuffix('_correlation')}_partial", halves) - 1
        matrix = pt.zeros((size, size))[rows, columns].set(partial)
        # What is left of each row's length before each column.
        left = pt.concatenate([pt.ones((size, 1)), pt.sqrt(pt.cumprod(1 - matrix**2, axis=1))[:, :-1]], axis=1)
        return pm.Deterministic(name, (matrix + pt.eye(size)) * left)

    def _offset(self, grouping: Grouping, effect: Effect, scale: Array) -> TensorVariable:
        """Offsets (G, q) of one effect, normal with a scale of (q,) or (G, q)."""
        wide = pt.broadcast_to(scale, (len(grouping.levels), effect.spread.size))
        single = effect.spread.shape == ()
        distribution = pm.Normal.dist(0.0, wide[:, 0] if single else wide)
        offset = self.sample(effect.offset, distribution, [grouping.plate])
        return offset[:, None] if single else offset


def _data_sets(design: Design) -> np.ndarray:
    """Labels of the data sets: whose they are, where everybody has one."""
    labels = np.asarray(design.persons)
    return labels if len(set(labels)) == len(labels) else np.arange(len(labels))


def _add_labels(model: pm.Model, name: str, labels: np.ndarray) -> None:
    """A dimension of a model, which may have it.

    Raises:
        ValueError: if it has another length there.
    """
    if name not in model.coords:
        model.add_coord(name, labels.tolist())
        return
    size = int(model.dim_lengths[name].eval())
    if size != len(labels):
        raise ValueError(f"coords[{name!r}]: expected {len(labels)} labels, as the design has, got {size}")
