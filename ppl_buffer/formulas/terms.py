"""What formulas make of the parameters: design rows, coefficients, random effects; and the arithmetic of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ppl_buffer.checks import check_mapping
from ppl_buffer.formulas.arithmetic import DesignNetwork
from ppl_buffer.formulas.priors import Site
from ppl_buffer.network.backend import Array, Named
from ppl_buffer.network.box import trained_range
from ppl_buffer.network.distinct import DistinctRows, distinct_rows
from ppl_buffer.network.head_table import MOST_ROWS
from ppl_buffer.network.network import Network

# Of a table with one column a variable: the columns of the common terms, (rows, C), without those of random effects.
Evaluate = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def _like(net: DesignNetwork, values: np.ndarray, like: Array) -> Array:
    """Numbers as an array of the backend, of the type of another one."""
    return net.ops.cast(net.ops.floating(net, values), like)


@dataclass(frozen=True)
class Centring:
    """How the offsets z of a random effect u are written: u = r z, z ~ Normal(0, s / r), r = (s / s')^(1 - C).

    Attributes:
        spread: (q,), s', the spreads that a quick fit has found.
        share: (G, q), C: 0 = offsets in units of the spread, 1 = the effects themselves.
    """

    spread: np.ndarray
    share: np.ndarray


@dataclass(frozen=True, eq=False)
class Effect:
    """A random effect: a term before the bar of ``(term | factor)``.

    Attributes:
        site: its sites are called ``{site}_spread`` and ``{site}_offset``.
        spread: the site of its spreads, () or (q,).
        columns: (R, q) of the design.
    """

    site: str
    spread: Site
    columns: np.ndarray

    @property
    def offset(self) -> str:
        """Name of the site of the levels' offsets, (G,) or (G, q)."""
        return f"{self.site}_offset"


@dataclass(frozen=True, eq=False)
class Grouping:
    """All random effects of one factor in one formula.

    Attributes:
        factor: its name.
        plate: name of the plate of its levels.
        levels: (G,) labels.
        index: (R,) level of each row.
        effects: the terms.
        correlation: name of the site of their correlations, the Cholesky factor of (Q, Q) for all Q columns; None =
            they are independent.
    """

    factor: str
    plate: str
    levels: tuple[str, ...]
    index: np.ndarray
    effects: tuple[Effect, ...]
    correlation: str | None = None

    @property
    def size(self) -> int:
        """Number of columns Q of all effects."""
        return sum(effect.spread.size for effect in self.effects)


@dataclass(frozen=True, eq=False)
class ParameterDesign:
    """The formula of one parameter, as arrays: R different rows, and which of them each data set or trial has.

    Attributes:
        name: of the parameter.
        formula: what stands after the tilde.
        rows: (S,) row of each data set, or (S, K) of each trial where the parameter varies within data sets.
        weights: (R,) share of each row where each data set counts the same; they sum to 1.
        matrix: (R, C), the columns of all coefficients; centred where there is an intercept.
        centres: (C,), what was taken off; that of the intercept is 0.
        sites: of the coefficients, in the order of the columns; the first is the mean where there is an intercept.
        groupings: the random effects.
        variables: of the common terms -> (n,), the values that they have together.
        shares: (n,), how often, where each data set counts the same.
        evaluate: makes the columns of the common terms of other values.
        ceilings: (R,), what the parameter must stay below, or None.
        intercept: whether there is one.
    """

    name: str
    formula: str
    rows: np.ndarray
    weights: np.ndarray
    matrix: np.ndarray
    centres: np.ndarray
    sites: tuple[Site, ...]
    groupings: tuple[Grouping, ...]
    variables: Mapping[str, np.ndarray]
    shares: np.ndarray
    evaluate: Evaluate
    ceilings: np.ndarray | None = None
    intercept: bool = True

    @property
    def by_trial(self) -> bool:
        """Whether it varies within data sets."""
        return self.rows.ndim == 2

    @property
    def plain(self) -> bool:
        """Whether it is the default hierarchy: a mean, and an offset of each subject."""
        effects = [effect for grouping in self.groupings for effect in grouping.effects]
        return self.matrix.shape[1] == 1 and self.intercept and len(effects) == 1

    def all_sites(self) -> list[Site]:
        """Coefficients and spreads."""
        effects = [effect for grouping in self.groupings for effect in grouping.effects]
        return [*self.sites, *(effect.spread for effect in effects)]

    def population(self, net: DesignNetwork, values: Mapping[str, Array]) -> Array:
        """What the coefficients alone say of each row, (R,): the sites' values by name, () or (q,)."""
        return self._coefficients(net, values, self.matrix)

    def averaged(self, net: DesignNetwork, values: Mapping[str, Array]) -> Array:
        """What the coefficients say of the average row, (): with an intercept its own value."""
        if self.intercept:
            return values[self.sites[0].name]
        return self._coefficients(net, values, self.weights @ self.matrix)

    def uncentred(self, net: DesignNetwork, values: Mapping[str, Array]) -> Array:
        """The intercept where all columns are 0 as they were before centring, ()."""
        off = np.where(np.arange(len(self.centres)) == 0, 1.0, -self.centres)
        return self._coefficients(net, values, off)

    def linear(self, net: DesignNetwork, values: Mapping[str, Array], effects: Mapping[str, Array]) -> Array:
        """What coefficients and random effects say of each row, (R,).

        Args:
            net: for the arrays of its backend.
            values: of the coefficients' sites by name.
            effects: site of each `Effect` -> (G, q), what its levels differ by.
        """
        total = self.population(net, values)
        for grouping in self.groupings:
            for effect in grouping.effects:
                theirs = net.ops.floating(net, effects[effect.site])[grouping.index]
                total = total + (_like(net, effect.columns, theirs) * theirs).sum(-1)
        return total

    def _coefficients(self, net: DesignNetwork, values: Mapping[str, Array], columns: np.ndarray) -> Array:
        """Columns (..., C) times the coefficients, (...)."""
        if not self.sites:
            return net.ops.zeros(net, columns.shape[:-1])
        parts = [net.ops.floating(net, values[site.name]).reshape((-1,)) for site in self.sites]
        coefficients = net.ops.xp.concatenate(parts)
        return _like(net, columns, coefficients) @ coefficients


@dataclass(frozen=True, eq=False)
class Design:
    """What formulas say of all parameters of a model, for S data sets of K trials. Made by `design`.

    Attributes:
        parameters: name -> its design, of all that are estimated.
        fixed: name -> value in natural units, of the others.
        data_sets: S.
        trial_mask: (S, K) bool; of a design `at_conditions` how many trials each condition has, (S, C).
        persons: (S,) label of the subject whose each data set is.
        levels: covariate that a formula names -> "subject", "data set" or "trial".
    """

    parameters: Mapping[str, ParameterDesign]
    fixed: Mapping[str, float]
    data_sets: int
    trial_mask: np.ndarray
    persons: np.ndarray
    levels: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def sites(self) -> dict[str, Site]:
        """Name -> site of all coefficients and spreads."""
        return {site.name: site for one in self.parameters.values() for site in one.all_sites()}

    @cached_property
    def _distinct(self) -> DistinctRows | None:
        """Trials that differ in the rows of some parameter; None where none or nearly all do."""
        rows = [one.rows for one in self.parameters.values() if one.by_trial]
        if not rows:
            return None
        sets, trials = self.trial_mask.shape
        distinct = distinct_rows(rows, self.trial_mask > 0, (sets, trials))
        return distinct if distinct.first.shape[1] <= MOST_ROWS * trials else None

    @property
    def conditions(self) -> np.ndarray | None:
        """(S, K), numbers from 0 that trials share where all their parameters are the same.

        None where no parameter varies within data sets, or nearly all trials differ.
        ``net.observe(..., conditions=design.conditions)`` lets the network compute once for each, of `at_conditions`.
        """
        return None if self._distinct is None else self._distinct.row

    @cached_property
    def at_conditions(self) -> Design:
        """The same of the `conditions` in place of trials: parameters that vary by trial are (S, C)."""
        if self._distinct is None:
            return self
        index, first = self._distinct
        counts = np.zeros(first.shape)
        np.add.at(counts, (np.arange(len(index))[:, None], index), self.trial_mask)
        parameters = {
            name: replace(one, rows=np.take_along_axis(one.rows, first, 1)) if one.by_trial else one
            for name, one in self.parameters.items()
        }
        return replace(self, parameters=parameters, trial_mask=counts)

    @property
    def formulas(self) -> list[str]:
        """The formulas of all estimated parameters, the default ones too."""
        return [f"{name} ~ {one.formula}" for name, one in self.parameters.items()]

    def checked_centring(self, centring: Mapping[str, Centring] | None) -> Mapping[str, Centring]:
        """How offsets are written, by the site of a random effect; empty for None.

        Raises:
            ValueError: if a name is none of the effects', a value no `Centring`, or its shapes are not the effect's.
        """
        given = check_mapping("centring", centring)
        groupings = [grouping for one in self.parameters.values() for grouping in one.groupings]
        shapes = {each.site: (len(one.levels), each.spread.size) for one in groupings for each in one.effects}
        for site, written in given.items():
            if site not in shapes:
                raise ValueError(f"centring: expected names of random effects, {', '.join(shapes)}, got {site!r}")
            if not isinstance(written, Centring):
                raise ValueError(f"centring[{site!r}]: expected a ppl_buffer.formulas.Centring, got {written!r}")
            got = np.shape(written.spread), np.shape(written.share)
            if got != (shapes[site][1:], shapes[site]):
                raise ValueError(
                    f"centring[{site!r}]: expected a spread {shapes[site][1:]} and a share {shapes[site]}, got shapes "
                    f"{got[0]} and {got[1]}"
                )
        return given

    def natural(self, net: DesignNetwork, linear: Mapping[str, Array]) -> tuple[Named, Named]:
        """Parameters in natural units: dict name -> (S,), and dict name -> (S, K) of those that vary by trial.

        Args:
            net: a trained network.
            linear: name -> (R,), linear predictors on the real line.
        """
        return self.natural_at(net, {name: linear[name][one.rows] for name, one in self.parameters.items()})

    def natural_at(self, net: DesignNetwork, real: Mapping[str, Array]) -> tuple[Named, Named]:
        """The same of linear predictors of data sets (S,) or trials (S, K), name -> as the parameter has them."""
        below = {name: one.ceilings[one.rows] for name, one in self.parameters.items() if one.ceilings is not None}
        values = self._into_box(net, real, below, (self.data_sets,))
        params = {name: x for name, x in values.items() if x.ndim == 1}
        return params, {name: x for name, x in values.items() if x.ndim == 2}

    def typical(self, net: DesignNetwork, linear: Mapping[str, Array]) -> Named:
        """One value of each parameter and data set in natural units, (S,): that at the mean of its rows."""
        real = {name: self._average(net, one, linear[name]) for name, one in self.parameters.items()}
        below = {}
        for name, one in self.parameters.items():
            if one.ceilings is not None:
                theirs = one.ceilings[one.rows]
                # A number of trials in place of True counts so often.
                counts = np.asarray(self.trial_mask, int) if one.by_trial else np.ones((len(theirs), 1), int)
                medians = [
                    np.median(np.repeat(x, n)) for x, n in zip(theirs.reshape(counts.shape), counts, strict=True)
                ]
                below[name] = np.array(medians, np.float32)
        return self._into_box(net, real, below, (self.data_sets,))

    def group(self, net: DesignNetwork, averages: Mapping[str, Array]) -> Named:
        """The median subject in natural units.

        Args:
            net: a trained network.
            averages: name -> (...), the population's average on the real line.
        """
        return self._into_box(net, averages, {}, ())

    def _average(self, net: DesignNetwork, one: ParameterDesign, linear: Array) -> Array:
        """Mean of each data set's rows, (S,)."""
        values = linear[one.rows]
        if not one.by_trial:
            return values
        mask = _like(net, self.trial_mask.astype(float), values)
        return (values * mask).sum(-1) / mask.sum(-1)

    def _into_box(
        self, net: DesignNetwork, real: Mapping[str, Array], below: Mapping[str, np.ndarray], shape: tuple[int, ...]
    ) -> Named:
        """Natural units of numbers on the real line; a parameter counts from another that comes earlier."""
        values: Named = {}
        for name in net.schema.params:
            if name in self.fixed:
                values[name] = self.fixed[name] * net.ops.ones(net, shape)
                continue
            number, ceiling, origin = real[name], below.get(name), trained_range(net, name)[2]
            given: Named = {}
            if origin is not None:
                given = {origin: values[origin]}
                if values[origin].ndim < number.ndim:
                    given = {origin: values[origin][..., None]}
                elif values[origin].ndim > number.ndim:
                    number, ceiling = number[..., None], None if ceiling is None else ceiling[..., None]
            values[name] = net.into_box(name, number, given, below=ceiling)
        return values


def check_design(net: object, design: object) -> Design:
    """The design, where it is one, for a network.

    Raises:
        ValueError: if either is something else.
    """
    if not isinstance(net, Network):
        raise ValueError(f"net: expected a trained network, got {type(net).__name__}")
    if not isinstance(design, Design):
        raise ValueError(f"design: expected what ppl_buffer.formulas.design made, got {type(design).__name__}")
    return design
