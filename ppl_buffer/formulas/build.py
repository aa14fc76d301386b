"""From formulas to a design: what the library `formulae` makes of them, with priors, names and rows of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ppl_buffer.checks import check_flag, check_mapping
from ppl_buffer.extras import needs
from ppl_buffer.files import to_numpy
from ppl_buffer.formulas import priors as defaults
from ppl_buffer.formulas.ceilings import row_ceilings
from ppl_buffer.formulas.levels import TRIAL
from ppl_buffer.formulas.parsing import check_fixed, split_formulas, variables_of
from ppl_buffer.formulas.priors import Site, check_prior, effect_scales
from ppl_buffer.formulas.tables import SUBJECT_COLUMN, Covariates, Rows
from ppl_buffer.formulas.terms import Design, Effect, Evaluate, Grouping, ParameterDesign
from ppl_buffer.network.config import takes_trial_params
from ppl_buffer.network.lapses import Lapse
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.prior import Prior
from ppl_buffer.schema import split_value

if TYPE_CHECKING:
    from formulae.matrices import CommonEffectsMatrix, DesignMatrices, GroupEffectsMatrix
    from formulae.terms.terms import GroupSpecificTerm, Term

# The hierarchy of a parameter without a formula, and of one person alone.
DEFAULT, ALONE = f"1 + (1 | {SUBJECT_COLUMN})", "1"
# A rate of lapses that is estimated may have a formula too.
RATE = "lapse"


def design(
    net: Network,
    seen: ObservedTrials,
    formulas: Sequence[str] = (),
    covariates: Mapping[str, object] | None = None,
    *,
    subjects: object = None,
    fixed: Mapping[str, float] | None = None,
    priors: Mapping[str, Prior] | None = None,
    correlated: bool = False,
    lapse: Lapse | None = None,
) -> Design:
    """How the parameters of a model depend on covariates, groups and subjects, by formulas.

    A formula is that of lme4, brms and Bambi: ``"drift ~ condition + age + (1 + condition | subject)"``. Terms are
    evaluated by the library formulae, on a row a data set, or a row a trial where a covariate varies within data sets.
    Parameters are on the real line that `Network.into_box` maps into the trained range. A parameter without a formula
    is ``1 + (1 | subject)``, one without a term ``( | )`` is shared.

    Columns are centred where there is an intercept, which is then called ``{parameter}_mean``: what the population has
    on average over the data sets.

    Args:
        net: a trained network.
        seen: what ``net.observe(...)`` returned; one batch dimension, the S data sets.
        formulas: one for each parameter at most.
        covariates: name -> (S,), or (S, K) where one varies within data sets; numbers or text.
        subjects: (S,) labels of the subjects whose the data sets are; None = each is somebody else's.
        fixed: parameter -> its value, in natural units, which is not estimated.
        priors: site -> prior in place of the default, such as ``{"drift~condition": Prior("Normal", {"loc": 0.0,
            "scale": 0.3})}``.
        correlated: whether random effects of one factor in one formula are correlated.
        lapse: what lapses are, where non-decision times have to stay below the fastest responses.

    Raises:
        ValueError: if a formula cannot be read, names what there is not, or lets a parameter vary within data sets
            whose trials depend on each other; or if another argument is wrong.
        ImportError: if formulae is not installed.
    """
    if not isinstance(seen, ObservedTrials) or len(seen.batch_shape) != 1:
        raise ValueError("seen: expected what net.observe(...) returned of trials (data sets, K)")
    if lapse is not None and not isinstance(lapse, Lapse):
        raise ValueError(f"lapse: expected None or a ppl_buffer.Lapse, got {lapse!r}")
    mask = np.asarray(to_numpy(seen.trial_mask), dtype=bool)
    table = Covariates.of(check_mapping("covariates", covariates), mask, subjects)
    rate = [RATE] if lapse is not None and lapse.prior is not None else []
    constants = check_fixed(net, fixed)
    stated = split_formulas(formulas, [*net.schema.params, *rate], constants)
    default = DEFAULT if len(set(table.persons)) > 1 else ALONE
    names = [name for name in [*net.schema.params, *rate] if name not in constants]
    made = {}
    for name in names:
        one = _Formula(name, stated.get(name, default), table, check_flag("correlated", correlated)).design()
        _check_level(net, one, table)
        made[name] = replace(one, ceilings=_ceilings(net, seen, one, lapse))
    used = sorted({variable for one in made.values() for variable in variables_of(one.formula)} & set(table.values))
    levels = {variable: table.level(variable) for variable in used}
    result = Design(made, constants, len(mask), mask, table.persons, levels)
    _check_names(result, net)
    return _with_priors(result, check_mapping("priors", priors))


def _check_level(net: Network, one: ParameterDesign, table: Covariates) -> None:
    """Refuse parameters that vary within a data set where they may not."""
    able = takes_trial_params(net.schema, net.config) and net.preferred_likelihood == "direct"
    if not one.by_trial or (able and one.name != RATE):
        return
    names = [name for name in sorted(variables_of(one.formula)) if table.level(name) == TRIAL]
    if one.name == RATE:
        why = "a rate of lapses is that of a data set"
    elif net.schema.ordered and not net.config.likelihood_trial_params:
        why = (
            "trials of this model depend on each other, and what one means for the next was learnt for parameters that "
            "stay (a network trained with Config(likelihood_trial_params=True) knows others)"
        )
    elif not (net.schema.ordered or net.schema.independent):
        why = "trials of this model depend on each other"
    else:
        why = "its direct likelihood, which parameters that vary by trial need, is not there or not preferred"
    raise ValueError(
        f"formulas: '{one.name} ~ {one.formula}': {', '.join(map(repr, names))} varies within a data set, but {why}. "
        f"If each block or session begins anew, make it a data set of its own: session={names[0]!r} (--session "
        f"{names[0]}) where the table is read"
    )


def _ceilings(net: Network, seen: ObservedTrials, one: ParameterDesign, lapse: Lapse | None) -> np.ndarray | None:
    for outcome, name in net.schema.lower_bounds.items():
        if name == one.name:
            given = seen.outcomes if seen.missing is None else split_value(net.schema, seen.value)
            value = np.asarray(to_numpy(given[outcome]), dtype=float)
            mask = np.asarray(to_numpy(seen.trial_mask), dtype=bool)
            fastest = row_ceilings(net.schema, outcome, value, mask, one.rows, lapse)
            return np.minimum(fastest, net.box[name][1]).astype(np.float32)
    return None


def _check_names(made: Design, net: Network) -> None:
    """Refuse sites of one name."""
    names = [site.name for one in made.parameters.values() for site in one.all_sites()]
    names += [f"{name}_group" for name in made.parameters] + list(net.schema.params)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"formulas: terms would be called {', '.join(map(repr, twice))}, which something else is called; rename "
            f"the column"
        )


def _with_priors(made: Design, given: Mapping[str, Prior]) -> Design:
    """The same with priors of the user's."""
    unknown = [name for name in given if name not in made.sites]
    if unknown:
        raise ValueError(
            f"priors: expected names of coefficients or spreads, {', '.join(map(repr, made.sites))}, got "
            f"{', '.join(map(repr, unknown))}"
        )
    checked = {name: check_prior(f"priors[{name!r}]", made.sites[name], prior) for name, prior in given.items()}

    def of(site: Site) -> Site:
        return replace(site, prior=checked.get(site.name))

    parameters = {}
    for name, one in made.parameters.items():
        groupings = tuple(
            replace(each, effects=tuple(replace(effect, spread=of(effect.spread)) for effect in each.effects))
            for each in one.groupings
        )
        parameters[name] = replace(one, sites=tuple(of(site) for site in one.sites), groupings=groupings)
    return replace(made, parameters=parameters)


@dataclass(frozen=True, eq=False)
class _Formula:
    """One parameter's formula, evaluated.

    Args:
        name: of the parameter.
        text: after the tilde.
        table: of covariates.
        correlated: whether random effects are.
    """

    name: str
    text: str
    table: Covariates
    correlated: bool

    def design(self) -> ParameterDesign:
        """Its design."""
        names = variables_of(self.text)
        self.table.check(names, f"{self.name} ~ {self.text}")
        rows = self.table.rows(names)
        matrices = self._matrices(rows)
        counts = np.bincount(rows.data_set)
        weights = 1.0 / counts[rows.data_set] / len(counts)
        sites, columns, intercept = self._common(matrices.common, weights)
        groupings = self._groupings(matrices.group, rows, weights)
        if not sites and not groupings:
            raise ValueError(f"formulas: expected a term, got '{self.name} ~ {self.text}'")
        centres = np.where(np.arange(columns.shape[1]) == 0, 0.0, weights @ columns) * intercept
        # Rows that are alike in all are one.
        effects = [effect.columns for each in groupings for effect in each.effects]
        key = np.concatenate([columns, *effects, *(each.index[:, None] for each in groupings)], 1)
        _, first, row = np.unique(key, axis=0, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first, kind="stable"), kind="stable")
        first, row = np.sort(first), rank[row.reshape(-1)]
        small = tuple(
            replace(
                each,
                index=each.index[first],
                effects=tuple(replace(effect, columns=effect.columns[first]) for effect in each.effects),
            )
            for each in groupings
        )
        variables, shares = self._variables(matrices.common, rows, weights)
        return ParameterDesign(
            name=self.name, formula=self.text, rows=row[rows.place], weights=np.bincount(row, weights),
            matrix=columns[first] - centres, centres=centres, sites=sites, groupings=small,
            variables=variables, shares=shares, evaluate=_evaluation(matrices.common, len(centres)),
            intercept=intercept,
        )  # fmt: skip

    def _matrices(self, rows: Rows) -> DesignMatrices:
        with needs("a formula", "data"):
            import pandas
            from formulae import design_matrices
        # A formula without a variable has rows all the same.
        frame = pandas.DataFrame(rows.columns or {SUBJECT_COLUMN: self.table.persons[rows.data_set]})
        try:
            return design_matrices(self.text, frame, na_action="error", extra_namespace={"np": np})
        except Exception as error:  # whatever the library and what the formula calls raise
            raise ValueError(f"formulas: '{self.name} ~ {self.text}' cannot be evaluated: {error}") from None

    def _common(
        self, common: CommonEffectsMatrix | None, weights: np.ndarray
    ) -> tuple[tuple[Site, ...], np.ndarray, bool]:
        """Sites of the coefficients, all their columns, and whether the first is an intercept."""
        if common is None:
            return (), np.zeros((len(weights), 0)), False
        sites, columns, intercept = [], [], False
        for name, term in common.terms.items():
            theirs = _two_dimensional(term.data)
            if not theirs.shape[1]:
                raise ValueError(
                    f"formulas: '{self.name} ~ {self.text}': {name!r} is the same everywhere, which tells nothing "
                    "of its effect; leave the term out, or fit data in which it varies"
                )
            columns.append(theirs)
            if term.kind == "intercept":
                intercept = True
                scale = 1.0 if self.name == RATE else defaults.MEAN_SCALE
                sites.append(Site(f"{self.name}_mean", (), np.array(scale), means=True))
                continue
            # Without an intercept a factor has a column for each of its levels: the means of groups.
            means = theirs.shape[1] > 1 and np.allclose(theirs.sum(1), 1.0)
            scales = defaults.MEAN_SCALE if means else defaults.EFFECT_SCALE * effect_scales(theirs, weights)
            sites.append(_site(f"{self.name}~{_flat(name)}", term, theirs, scales, means=means))
        _check_rank(np.concatenate(columns, 1), f"{self.name} ~ {self.text}")
        return tuple(sites), np.concatenate(columns, 1), intercept

    def _groupings(self, group: GroupEffectsMatrix | None, rows: Rows, weights: np.ndarray) -> tuple[Grouping, ...]:
        by_factor: dict[str, list[GroupSpecificTerm]] = {}
        for term in () if group is None else group.terms.values():
            by_factor.setdefault(term.factor.name, []).append(term)
        return tuple(self._grouping(factor, terms, rows, weights) for factor, terms in by_factor.items())

    def _grouping(self, factor: str, terms: Sequence[GroupSpecificTerm], rows: Rows, weights: np.ndarray) -> Grouping:
        index, labels = _by_first_appearance(_two_dimensional(terms[0].factor.data).argmax(1), terms[0].groups)
        if len(labels) < 2:
            raise ValueError(
                f"formulas: '{self.name} ~ {self.text}': {factor!r} has one level, {labels[0]!r}, which tells nothing "
                f"of how levels differ; leave the term out"
            )
        effects = []
        for term in terms:
            columns = _two_dimensional(term.expr.data)
            whole = term.kind == "intercept" or (columns.shape[1] > 1 and np.allclose(columns.sum(1), 1.0))
            median = (
                defaults.SPREAD_MEDIAN if whole else defaults.EFFECT_SPREAD_MEDIAN * effect_scales(columns, weights)
            )
            what = "1" if term.kind == "intercept" else _flat(term.expr.name)
            own = (what, factor) == ("1", SUBJECT_COLUMN)
            site = self.name if own else f"{self.name}~{what}|{_flat(factor)}"
            spread = _site(f"{site}_spread", term.expr, columns, median, positive=True)
            effects.append(Effect(site, spread, columns))
        size = sum(effect.spread.size for effect in effects)
        alone = len(labels) == len(self.table.persons) and np.array_equal(index, rows.data_set)
        return Grouping(
            factor=factor, plate=SUBJECT_COLUMN if alone else f"{factor}_level", levels=labels, index=index,
            effects=tuple(effects),
            correlation=f"{self.name}|{factor}_correlation" if self.correlated and size > 1 else None,
        )  # fmt: skip

    def _variables(
        self, common: CommonEffectsMatrix | None, rows: Rows, weights: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Values that the variables of the common terms have together, each (n,), and their shares."""
        terms = () if common is None else common.terms.values()
        named = dict.fromkeys(str(name) for term in terms for name in sorted(map(str, term.var_names)))
        names = [name for name in named if name in rows.columns]
        if not names:
            return {}, np.ones(1)
        codes = np.stack([np.unique(rows.columns[name], return_inverse=True)[1] for name in names], 1)
        _, first, row = np.unique(codes, axis=0, return_index=True, return_inverse=True)
        return {name: rows.columns[name][first] for name in names}, np.bincount(row.reshape(-1), weights)


def _flat(term: str) -> str:
    """A term as a part of a name: files of results take a slash for a folder."""
    return term.replace("/", " over ")


def _two_dimensional(values: object) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    return array[:, None] if array.ndim == 1 else array


def _site(
    name: str, term: Term, columns: np.ndarray, scale: object, positive: bool = False, means: bool = False
) -> Site:
    """A site of a term's columns: a number where there is one, of a number."""
    count = columns.shape[1]
    if count == 1 and term.kind not in ("categoric", "interaction"):
        return Site(name, (), np.asarray(scale, dtype=float).reshape(-1)[:1].reshape(()), positive, means=means)
    levels = list(term.levels or ()) if term.kind == "categoric" else []
    labels = levels if len(levels) == count else list(term.labels)
    if len(labels) != count:
        labels = [str(index + 1) for index in range(count)]
    return Site(
        name, tuple(map(str, labels)), np.broadcast_to(np.asarray(scale, float), (count,)), positive, means=means
    )


def _by_first_appearance(index: np.ndarray, labels: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Levels in the order of their first row, without those that have none."""
    used, first, code = np.unique(index, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), dtype=int)
    rank[order] = np.arange(len(order))
    return rank[code.reshape(-1)], tuple(str(labels[used[place]]) for place in order)


def _check_rank(columns: np.ndarray, formula: str) -> None:
    """Refuse coefficients that no data tell apart."""
    rank = np.linalg.matrix_rank(columns / np.maximum(np.abs(columns).max(0), 1e-30))
    if rank < columns.shape[1]:
        raise ValueError(
            f"formulas: {formula!r}: its {columns.shape[1]} coefficients cannot be told apart (rank {rank}): a column "
            f"is constant, or the sum of others; leave a term out"
        )


def _evaluation(common: CommonEffectsMatrix | None, count: int) -> Evaluate:
    """A function of other values of the variables, that makes the columns of the common terms."""

    def evaluate(variables: Mapping[str, np.ndarray]) -> np.ndarray:
        import pandas

        frame = pandas.DataFrame(dict(variables))
        if common is None or not count:
            return np.zeros((len(frame), 0))
        columns = [_two_dimensional(term.eval_new_data(frame)) for term in common.terms.values()]
        rows = max(len(x) for x in columns)
        return np.concatenate([np.broadcast_to(x, (rows, x.shape[1])) for x in columns], 1)

    return evaluate
