"""A quick fit of a hierarchy by formula, by normal distributions: where NUTS starts, and on which scales it moves.

The same idea as `ppl_buffer.workflow.quick_fit`, for any linear predictors: with the spreads known, the posterior of
all coefficients and random effects together is taken for normal about its mode, whose curvature is the sum over data
sets of that of their likelihoods; the spreads follow by expectation and maximisation. Of a data set's likelihood the
curvature is known along the columns that its predictors are made of, by differences of gradients that all data sets
share.

Random effects u are written as z with u = r z, r = (s / s')^(1 - C), elementwise: C is the share that the data have in
each of them. That they are not correlated with the coefficients is not needed here, since steps are scaled by the
covariance of all together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from tqdm.auto import tqdm

from ppl_buffer.formulas.terms import Centring, Design

Array = np.ndarray
# Function of linear predictors, name -> (S,) or (S, K): negative log likelihoods (S,) of the data sets, and the
# gradient of their sum.
Loss = Callable[[Mapping[str, Array]], tuple[Array, Mapping[str, Array]]]

# Steps of a curvature by differences, and when rounds end.
_DIFFERENCE, _ROUNDS, _CLOSE = 0.05, 20, 0.02
# Of Levenberg and Marquardt: the damping to begin with, and its factors after a step that gained and one that did not.
_DAMPING, _LESS, _MORE = 0.1, 0.2, 5.0
# What is said of a spread before the data: as much as by so many levels.
_LEVELS_BEFORE = 2
# A posterior has longer tails than the normal distribution at its mode. Factors of variances.
_WIDER_MEANS, _WIDER_SPREADS = 2.0, 1.2


@dataclass(frozen=True)
class Block:
    """Numbers in a row of the vector of all coefficients and effects.

    Attributes:
        name: the site of coefficients, or an `Effect`'s.
        start: where they begin.
        shape: (q,) coefficients, or (G, q) effects.
    """

    name: str
    start: int
    shape: tuple[int, ...]

    @property
    def part(self) -> slice:
        """Where they are."""
        return slice(self.start, self.start + int(np.prod(self.shape)))


@dataclass(frozen=True)
class DesignFit:
    """A normal distribution of N coefficients and random effects, and their spreads.

    Attributes:
        coefficients: where each site's are.
        effects: where each effect's are.
        mode: (N,).
        covariance: (N, N), at the spreads.
        spreads: effect -> (q,), in thousandths.
        spread_variances: effect -> (q,), how well their logarithms are known.
        centring: effect -> how its offsets are written.
    """

    coefficients: list[Block]
    effects: list[Block]
    mode: Array
    covariance: Array
    spreads: dict[str, Array]
    spread_variances: dict[str, Array]
    centring: dict[str, Centring]


@dataclass(frozen=True)
class _Column:
    """A column of one parameter's predictors, and which number of the vector each data set multiplies it by."""

    direction: int
    index: Array


class _Problem:
    """The negative log posterior of the vector, given spreads.

    Attributes:
        directions: parameter and values, (S,) or (S, K), of each different column.
        columns: all columns.
    """

    def __init__(self, design: Design, loss: Loss) -> None:
        self.design, self.loss = design, loss
        self.coefficients: list[Block] = []
        self.effects: list[Block] = []
        self.directions: list[tuple[str, Array]] = []
        self.columns: list[_Column] = []
        self._known: dict[tuple[str, bytes], int] = {}
        means, scales, start = [], [], 0
        for one in design.parameters.values():
            for site in one.sites:
                self.coefficients.append(Block(site.name, start, (site.size,)))
                mean, scale = site.moments()
                means.append(mean)
                scales.append(scale)
                start += site.size
        self.means, self.scales = np.concatenate(means), np.concatenate(scales)
        for one in design.parameters.values():
            for grouping in one.groupings:
                for effect in grouping.effects:
                    shape = (len(grouping.levels), effect.spread.size)
                    self.effects.append(Block(effect.site, start, shape))
                    start += int(np.prod(shape))
        self.size = start
        self._add_columns()

    def _add_columns(self) -> None:
        starts = {block.name: block.start for block in [*self.coefficients, *self.effects]}
        sets = np.arange(self.design.data_sets)
        first = self.design.trial_mask.argmax(1)
        for name, one in self.design.parameters.items():
            place = 0
            for site in one.sites:
                for index in range(site.size):
                    self._add(name, one.matrix[one.rows, place], np.full(len(sets), starts[site.name] + index))
                    place += 1
            for grouping in one.groupings:
                level = grouping.index[one.rows]
                of_set = level if level.ndim == 1 else level[sets, first]
                within = level.ndim == 2 and (level != of_set[:, None]).any()
                for effect in grouping.effects:
                    size = effect.spread.size
                    for index in range(size):
                        values = effect.columns[one.rows, index]
                        if not within:
                            self._add(name, values, starts[effect.site] + size * of_set + index)
                            continue
                        for each in range(len(grouping.levels)):
                            at = np.full(len(sets), starts[effect.site] + size * each + index)
                            self._add(name, np.where(level == each, values, 0.0), at)

    def _add(self, name: str, values: Array, index: Array) -> None:
        key = (name, values.tobytes())
        if key not in self._known:
            self._known[key] = len(self.directions)
            self.directions.append((name, values))
        self.columns.append(_Column(self._known[key], index))

    def predictors(self, vector: Array) -> dict[str, Array]:
        """Linear predictors, name -> (S,) or (S, K)."""
        linear = {name: np.zeros(one.rows.shape) for name, one in self.design.parameters.items()}
        for column in self.columns:
            name, values = self.directions[column.direction]
            weight = vector[column.index]
            linear[name] += values * (weight if values.ndim == 1 else weight[:, None])
        return linear

    def nearest(self, starts: Mapping[str, Array], precision: Array, mean: Array) -> Array:
        """The vector (N,) whose predictors are nearest to starts, as far as the prior lets them."""
        sets, exists = np.arange(self.design.data_sets), self.design.trial_mask
        curvature, pull = np.diag(precision), np.zeros(self.size)
        for name, start in starts.items():
            matrix = np.zeros((len(sets), self.size))
            for column in self.columns:
                parameter, values = self.directions[column.direction]
                if parameter == name:
                    matrix[sets, column.index] += values if values.ndim == 1 else np.average(values, 1, exists)
            # As if each start had been seen with a small error.
            curvature = curvature + matrix.T @ matrix / _CLOSE**2
            pull += matrix.T @ (start - matrix @ mean) / _CLOSE**2
        return mean + np.linalg.solve(curvature, pull)

    def _slopes(self, gradients: Mapping[str, Array]) -> Array:
        """Along each direction, (S, D)."""
        slopes = []
        for name, values in self.directions:
            slope = gradients[name] * values
            slopes.append(slope if slope.ndim == 1 else slope.sum(1))
        return np.stack(slopes, 1)

    def value_and_gradient(self, vector: Array, precision: Array, mean: Array) -> tuple[float, Array]:
        """Negative log posterior where the prior is normal with (N,) precisions and means."""
        values, gradients = self.loss(self.predictors(vector))
        slopes, gradient = self._slopes(gradients), np.zeros(self.size)
        for column in self.columns:
            np.add.at(gradient, column.index, slopes[:, column.direction])
        apart = vector - mean
        return float(values.sum() + 0.5 * (precision * apart**2).sum()), gradient + precision * apart

    def curvature(self, vector: Array) -> Array:
        """Second derivatives (N, N) of the negative log likelihood; none is negative."""
        linear, rows = self.predictors(vector), []
        for name, values in self.directions:
            step = _DIFFERENCE / max(float(np.abs(values).max()), 1e-9)
            more, less = (
                self._slopes(self.loss({**linear, name: linear[name] + sign * step * values})[1]) for sign in (1, -1)
            )
            rows.append((more - less) / (2 * step))
        each = np.stack(rows, 1)
        values, vectors = np.linalg.eigh((each + each.transpose(0, 2, 1)) / 2)
        each = (vectors * np.maximum(values, 0.0)[:, None]) @ vectors.transpose(0, 2, 1)
        direction = [column.direction for column in self.columns]
        index = np.stack([column.index for column in self.columns], 1)
        total = np.zeros((self.size, self.size))
        for where, block in zip(index, each, strict=True):
            np.add.at(total, np.ix_(where, where), block[np.ix_(direction, direction)])
        return total


def design_fit(
    loss: Loss, design: Design, starts: Mapping[str, Array] | None = None, *, progress: bool = False
) -> DesignFit:
    """Fit a design by normal distributions.

    Args:
        loss: see `Loss`.
        design: what formulas made.
        starts: parameter -> (S,), which linear predictors to begin near to; the others begin at their priors' means.
        progress: show a progress bar.
    """
    problem = _Problem(design, loss)
    spreads = {block.name: _first_spread(design, block) for block in problem.effects}
    vector = _mode_if_alike(problem, problem.nearest(starts or {}, *_prior(problem, spreads)))
    damping = _DAMPING
    for _ in tqdm(range(_ROUNDS), desc="quick fit", disable=not progress, leave=False):
        precision, mean = _prior(problem, spreads)
        value, gradient = problem.value_and_gradient(vector, precision, mean)
        curvature = problem.curvature(vector) + np.diag(precision)
        step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), gradient)
        # A comparison with what is not a number is false: such a step is none.
        gains = problem.value_and_gradient(vector - step, precision, mean)[0] <= value
        vector, damping = (vector - step, damping * _LESS) if gains else (vector, damping * _MORE)
        before, spreads = spreads, _spreads(problem, vector, np.linalg.inv(curvature), spreads)
        change = max((np.abs(spreads[name] / before[name] - 1).max() for name in spreads), default=0.0)
        if gains and np.abs(step).max() < _CLOSE and change < _CLOSE:
            break
    spreads = {name: np.round(np.maximum(x, 0.001), 3) for name, x in spreads.items()}
    precision, _ = _prior(problem, spreads)
    return _finished(problem, vector, np.linalg.inv(problem.curvature(vector) + np.diag(precision)), spreads)


def _first_spread(design: Design, block: Block) -> Array:
    site = design.sites[f"{block.name}_spread"]
    return np.exp(site.moments()[0])


def _prior(problem: _Problem, spreads: Mapping[str, Array]) -> tuple[Array, Array]:
    """Precisions and means (N,) of the prior."""
    scale, mean = np.zeros(problem.size), np.zeros(problem.size)
    count = len(problem.means)
    scale[:count], mean[:count] = problem.scales, problem.means
    for block in problem.effects:
        scale[block.part] = np.broadcast_to(spreads[block.name], block.shape).reshape(-1)
    return scale**-2.0, mean


def _mode_if_alike(problem: _Problem, start: Array) -> Array:
    """The vector (N,) with the coefficients' mode, if levels differed as much as they do at the start."""
    count = len(problem.means)
    precision = np.ones(problem.size)
    precision[:count] = problem.scales**-2.0
    mean = np.concatenate([problem.means, start[count:]])

    def negative_log_posterior(coefficients: Array) -> tuple[float, Array]:
        value, gradient = problem.value_and_gradient(np.concatenate([coefficients, start[count:]]), precision, mean)
        return value, gradient[:count]

    options = {"gtol": 0.5}
    coefficients = minimize(negative_log_posterior, start[:count], jac=True, method="BFGS", options=options).x
    return np.concatenate([coefficients, start[count:]])


def _spreads(problem: _Problem, vector: Array, covariance: Array, before: Mapping[str, Array]) -> dict[str, Array]:
    """By expectation and maximisation, with the prior's median as much as some levels would say."""
    variances, spreads = np.diag(covariance), {}
    for block in problem.effects:
        squares = (vector[block.part] ** 2 + variances[block.part]).reshape(block.shape).sum(0)
        squares = squares + _LEVELS_BEFORE * _first_spread(problem.design, block) ** 2
        spreads[block.name] = np.sqrt(squares / (block.shape[0] + _LEVELS_BEFORE))
    return spreads


def _finished(problem: _Problem, vector: Array, covariance: Array, spreads: dict[str, Array]) -> DesignFit:
    """The fit, with shares in twentieths, so that rounding does not move what is kept of a fit."""
    variances = np.diag(covariance)
    centring, spread_variances = {}, {}
    for block in problem.effects:
        known = 1 - variances[block.part].reshape(block.shape) / spreads[block.name] ** 2
        share = np.round(20 * np.clip(known, 0.0, 1.0)) / 20
        centring[block.name] = Centring(spreads[block.name], share)
        # A normal sample of n tells 2 n of the logarithm of its standard deviation; noise leaves the share C^2 of it.
        precision = problem.design.sites[f"{block.name}_spread"].moments()[1] ** -2.0
        spread_variances[block.name] = _WIDER_SPREADS / (precision + 2 * (share**2).sum(0))
    # Coefficients are widened as they move together with the effects, which often make up for them.
    ridge = covariance[:, : len(problem.means)]
    along = ridge @ np.linalg.solve(ridge[: len(problem.means)], ridge.T)
    return DesignFit(
        coefficients=problem.coefficients,
        effects=problem.effects,
        mode=vector,
        covariance=covariance + (_WIDER_MEANS - 1) * along,
        spreads=spreads,
        spread_variances=spread_variances,
        centring=centring,
    )
