"""Can a network be trusted: calibration of its likelihood and of the posteriors it leads to, and data beyond its depth.

`check_likelihood` compares the network with its simulator: conditional distribution functions of fresh simulations must
be uniform, and the network's own rollouts must look like them. `check_posterior` is simulation-based calibration over
NUTS fits (Talts, Betancourt, Simpson, Vehtari & Gelman 2018, arXiv 1804.06788). Both judge by the simultaneous bands of
Säilynoja, Bürkner & Vehtari (2022, Statistics and Computing 32, 32), at a level that all comparisons of a check share.

`outside` and `check_data` look at a fit to real data: parameters where the network was not trained, and data that it
would not generate.

Importing this module needs neither torch nor JAX. `check_posterior` samples with NumPyro, whatever the network's
backend.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import math
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from ppl_buffer.files import to_numpy, write_atomic
from ppl_buffer.inference.simulation import posterior_predictive
from ppl_buffer.network.backend import backend_of
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Schema, split_value
from ppl_buffer.simulator import name_of
from ppl_buffer.training.draws import RejectionCounts, check_simulator, draw_data, draw_params, find_legal

if TYPE_CHECKING:
    import pandas

Arrays = dict[str, np.ndarray]
# A function of data sets, dict name -> (*S, B, K) of inputs, outcomes and feedback, NaN where there is no trial, that
# returns one number a data set, (*S, B).
Statistic = Callable[[Arrays], np.ndarray]

# Simulations behind a simultaneous band, and the least number of them beyond its critical value.
_SIMULATIONS, _LEAST_BEYOND = 10_000, 30
# Places at which an empirical distribution function is compared: more see finer structure and less of the coarse one.
_POINTS = 50
# Trials that are scored at once.
_TRIALS_AT_ONCE = 200_000
# Equal parts of a parameter's distribution in which coverage is looked at.
_PARTS = 5
_COVERAGES = (0.5, 0.9)
# Part of a parameter's trained range by which it is moved either way to see whether the data prefer that.
_STEP = 0.05
# Beyond these normal scores no float32 parameter can be told from the edge of its range.
_REACH = 4.75
_GRID = 2001
# Share of a rank's draws that must be worth independent ones.
_FEWEST_EFFECTIVE = 0.5
# At most 7 gradients a transition: whitened posteriors need few, and chains in lock step wait for the longest tree.
_DEPTH = 3


# Uniformity ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Uniformity:
    """Empirical distribution function of numbers that should be uniform, and its simultaneous band.

    Attributes:
        points: (P,), where it is evaluated.
        ecdf: (P,), share of the numbers up to each point.
        lower: (P,), lower end of the band.
        upper: (P,), upper end of the band.
        p: probability that uniform numbers leave a pointwise band at least as wide somewhere.
        passed: whether it lies inside the band at every point.
    """

    points: np.ndarray
    ecdf: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    p: float
    passed: bool

    def plot(self, axes: Any) -> Any:
        """Draw the empirical minus the uniform distribution function, and the band, on matplotlib axes."""
        x = np.concatenate([[0.0], self.points, [1.0]])
        lower, middle, upper = (
            np.concatenate([[0.0], y - self.points, [0.0]]) for y in (self.lower, self.ecdf, self.upper)
        )
        axes.fill_between(x, lower, upper, color="0.85", linewidth=0)
        axes.axhline(0.0, color="0.5", linewidth=0.8)
        axes.plot(x, middle, color="C0" if self.passed else "C3")
        axes.set_xlim(0, 1)
        return axes


def uniformity(values: Any, *, steps: int | None = None, level: float = 0.95, seed: int = 0) -> Uniformity:
    """Compare numbers in [0, 1] with the uniform distribution, by a simultaneous band of their distribution function.

    The band is that of Säilynoja, Bürkner & Vehtari (2022): at each point the interval of a binomial distribution, at a
    pointwise level chosen by simulation so that the whole function stays inside with probability `level`.

    Args:
        values: independent numbers, any shape.
        steps: where the numbers can only be (i + 1/2) / steps, i = 0 .. steps - 1 (ranks): this number, so that the
            function is evaluated between the steps alone.
        level: probability that uniform numbers stay inside the band.
        seed: of the simulation behind the band.

    Raises:
        ValueError: if there are no numbers, some lie outside [0, 1], or the level is not between 0 and 1.
    """
    values = np.asarray(to_numpy(values), dtype=float).ravel()
    if not values.size or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("values: expected numbers in [0, 1], at least one")
    _check_level(level)
    count = len(values)
    most = 2 * _POINTS
    cells = _POINTS if steps is None else max(n for n in range(1, min(steps, most) + 1) if steps % n == 0)
    if cells < 2:
        raise ValueError(f"steps: expected a number with a divisor of at least 2 and at most {most}, got {steps}")
    points = np.arange(1, cells) / cells
    below = np.searchsorted(np.sort(values), points, side="right")
    least = _least_tails(count, cells, max(_SIMULATIONS, math.ceil(_LEAST_BEYOND / (1 - level))), seed)
    # A little less, so that rounding does not put a count that has just this probability outside.
    critical = float(np.quantile(least, 1 - level, method="lower")) * (1 - 1e-9)
    own = float(_tails(below, count, points).min())
    from scipy.stats import binom

    # The narrowest counts whose tail probability is not below the critical one.
    lower = binom.ppf(critical / 2, count, points)
    upper = count - binom.ppf(critical / 2, count, 1 - points)
    p = (1 + np.searchsorted(least, own, side="right")) / (1 + len(least))
    return Uniformity(points, below / count, lower / count, upper / count, float(p), bool(own >= critical))


def _tails(below: np.ndarray, count: int, points: np.ndarray) -> np.ndarray:
    """Twice the smaller binomial tail probability of each count."""
    from scipy.special import bdtr, bdtrc

    at_most = bdtr(below, count, points)
    at_least = np.where(below > 0, bdtrc(np.maximum(below, 1) - 1, count, points), 1.0)
    return 2 * np.minimum(at_most, at_least)


_known_tails: dict[tuple[int, int, int, int], np.ndarray] = {}


def _least_tails(count: int, cells: int, simulations: int, seed: int) -> np.ndarray:
    """Sorted least tail probabilities of simulated uniform samples (simulations,)."""
    key = (count, cells, simulations, seed)
    if key not in _known_tails:
        # How many numbers fall into each cell says all that the function at the points between them depends on.
        drawn = np.random.default_rng(seed).multinomial(count, np.full(cells, 1 / cells), size=simulations)
        below, points = drawn.cumsum(1)[:, :-1], np.arange(1, cells) / cells
        if count < simulations:
            table = _tails(np.arange(count + 1)[:, None], count, points)
            tails = np.take_along_axis(table, below, 0)
        else:
            tails = _tails(below, count, points)
        _known_tails[key] = np.sort(tails.min(1))
    return _known_tails[key]


def _check_level(level: float) -> None:
    if not isinstance(level, (int, float)) or not 0 < level < 1:
        raise ValueError(f"level: expected a probability between 0 and 1, got {level!r}")


def _check_count(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    return int(value)


def _frame(rows: list[dict[str, Any]]) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame(rows)


def _figure(columns: int, rows: int = 1, height: float = 2.6) -> tuple[Any, np.ndarray]:
    # Without pyplot: nothing global, and no window.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * columns + 0.4, height * rows + 0.4), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


# Likelihood ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LikelihoodCheck:
    """How a network's likelihood compares with its simulator. Made by `check_likelihood`.

    Attributes:
        params: dict name -> (sets,), what the data sets were simulated with.
        pit: dict outcome -> (sets, K), conditional distribution function at each simulated outcome.
        simulated: dict statistic -> (sets,), of the simulator's data sets.
        rollouts: dict statistic -> (sets,), of the network's own, at the same parameters and inputs; empty where they
            were not asked for.
        rows: the comparisons, as dicts; `table` has them as a table.
        level: probability that a perfect network passes.
        dropped: simulated data sets that were left out, since they held values that are not legal.
    """

    params: Arrays
    pit: Arrays
    simulated: Arrays
    rollouts: Arrays
    rows: list[dict[str, Any]]
    level: float
    dropped: int = 0

    @property
    def passed(self) -> bool:
        """Whether no comparison gave a difference that a perfect network would not show."""
        return all(row["passed"] for row in self.rows)

    @property
    def table(self) -> pandas.DataFrame:
        """One row for each comparison.

        Columns: ``comparison`` ("PIT" of all trials, "coverage" in a part of a parameter's range, "rollouts" against
        the simulator), ``what``, ``coverage_50`` and ``coverage_90`` (share of outcomes inside the network's central
        intervals), ``effect`` (mean difference between simulator and rollouts, in standard deviations of the
        simulator's), ``p`` (of the single comparison), ``passed`` (at the level that all of them share).
        """
        return _frame(self.rows)

    def plot(self) -> Any:
        """Draw the PIT of each outcome, coverage over each parameter's range, and the effects; a matplotlib figure."""
        share = 1 - (1 - self.level) / len(self.rows)
        coverage = [row for row in self.rows if row["comparison"] == "coverage"]
        effects = [row for row in self.rows if row["comparison"] == "rollouts"]
        figure, axes = _figure(len(self.pit) + bool(coverage) + bool(effects), height=4.0)
        for panel, (name, values) in zip(axes[0], self.pit.items(), strict=False):
            uniformity(values, level=share).plot(panel)
            panel.set(title=f"PIT of {name}", xlabel="distribution function", ylabel="share below, minus uniform")
        panels = list(axes[0, len(self.pit) :])
        if coverage:
            panel = panels.pop(0)
            index = np.arange(len(coverage))
            for probability, color in zip(_COVERAGES, ("C0", "C1"), strict=True):
                column = [row[f"coverage_{100 * probability:.0f}"] for row in coverage]
                panel.axhline(probability, color="0.6", linewidth=0.8)
                panel.plot(index, column, ".", color=color)
            bad = [i for i, row in enumerate(coverage) if not row["passed"]]
            panel.plot(bad, [coverage[i]["coverage_50"] for i in bad], "x", color="C3")
            # The table names every part; a label for each would not fit.
            owners = np.array([row["what"].split(" ")[0] for row in coverage])
            names = list(dict.fromkeys(owners))
            panel.set_xticks([index[owners == name].mean() for name in names], names, rotation=90, fontsize=8)
            for edge in index[1:][owners[1:] != owners[:-1]]:
                panel.axvline(edge - 0.5, color="0.85", linewidth=0.8)
            panel.set(title="coverage", ylim=(0, 1), ylabel="share in the 50 % and 90 % interval")
            panel.set_xlabel("parameters, each from low to high")
        if effects:
            panel = panels.pop(0)
            index = np.arange(len(effects))
            colors = ["C0" if row["passed"] else "C3" for row in effects]
            panel.barh(index, [row["effect"] for row in effects], color=colors)
            panel.axvline(0.0, color="0.5", linewidth=0.8)
            panel.set_yticks(index, [row["what"] for row in effects], fontsize=6)
            panel.set(title="simulator minus rollouts", xlabel="standard deviations")
        return figure


def check_likelihood(
    net: Any,
    simulator: Any,
    *,
    sets: int = 200,
    trials: int | None = None,
    context: int = 0,
    statistics: Mapping[str, Statistic] | None = None,
    rollouts: bool = True,
    environment: Callable[..., Any] | None = None,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> LikelihoodCheck:
    """Calibration of a network's likelihood, all parameters told, against fresh simulations.

    Three comparisons. *PIT*: the conditional distribution functions at simulated outcomes (randomised for categories)
    are uniform and independent where the network is right. *Coverage*: the same within each fifth of each parameter's
    distribution. *Rollouts*: the network's own data sets against the simulator's at the same parameters and inputs, a
    Wilcoxon signed-rank test of each statistic: log density, by how much the likelihood prefers larger to smaller
    values of each parameter (most sensitive to a network that reads it wrongly), simple statistics of the outcomes,
    and `statistics`. The level is divided among all comparisons.

    More data sets find smaller errors: no network is perfect, and the table's effects say how far off one is.

    Args:
        net: a trained network of either backend.
        simulator: what it should be the likelihood of; see `ppl_buffer.Simulator`. Parameters come from its `prior`.
        sets: number of data sets.
        trials: trials of each; by default 100, or as many as the training covered.
        context: points of each data set that are told as a context, beside the trials; exchangeable models only.
        statistics: name -> function of data sets, dict name -> (sets, K) of inputs, outcomes and feedback, that
            returns (sets,).
        rollouts: whether to compare rollouts.
        environment: gives feedback on the network's own outcomes, as for `JointPredictive`; by default the simulator's
            method of that name.
        level: probability that a perfect network passes.
        seed: of everything random.
        progress: show a progress bar.

    Returns:
        the check: `passed`, `table`, `plot()`.

    Raises:
        ValueError: if the simulator's schema is not the network's, an argument does not fit, or rollouts need an
            environment and none is given.
    """
    _check_pair(net, simulator)
    _check_level(level)
    schema = net.schema
    sets = _check_count("sets", sets, 2 * _PARTS)
    trials = _trials(net, trials)
    context = _check_count("context", context, 0)
    if context and schema.ordered:
        raise ValueError("context: expected 0 for an ordered model, whose past belongs in the buffer")
    environment = environment or getattr(simulator, "environment", None)
    if rollouts and schema.feedback and environment is None:
        raise ValueError(
            f"environment: expected a function that gives {list(schema.feedback)} on the network's own outcomes, since "
            "the simulator has none; pass one, or rollouts=False to compare distribution functions alone"
        )
    rng = np.random.default_rng(seed)
    params, data, dropped = _simulate(
        simulator, rng, sets, context + trials, lambda rng, size: draw_params(simulator, rng, size)
    )
    known = {name: x[:, :context] for name, x in data.items()} if context else None
    data = {name: x[:, context:] for name, x in data.items()}
    chunk = min(sets, max(1, _TRIALS_AT_ONCE // (trials * (2 * len(schema.params) + 1))))
    parts = [np.arange(first, first + chunk) for first in range(0, sets - chunk + 1, chunk)]
    if sets % chunk:
        # The last part reaches back, so that one compiled program serves all of them.
        parts.append(np.arange(sets - chunk, sets))
    uniform = rng.random((sets, trials, len(schema.outcomes)), dtype=np.float32)
    pit = np.empty((sets, trials, len(schema.outcomes)))
    scores = np.empty((2, 2 * len(schema.params) + 1, sets))
    both = [data]
    with tqdm(total=len(parts) * (2 + rollouts), disable=not progress, unit="part", desc="likelihood") as bar:
        for members in parts:
            mine = {name: x[members] for name, x in params.items()}
            observed = _observe(net, data, known, members)
            query = Query.build(net, observed, params=mine, outside="ignore")
            place = backend_of(net).ops.number(net, uniform[members])
            values = to_numpy(density.cdf_values(query, observed.value, place))
            pit[members] = values.reshape(len(members), trials, -1)
            scores[0][:, members] = _moved_scores(net, observed, mine)
            bar.update()
        if rollouts:
            conditioned = {name: np.asarray(x, np.float32)[None] for name, x in params.items()}
            again = posterior_predictive(
                net, {name: data[name] for name in schema.inputs}, conditioned, trials=trials, environment=environment,
                context=known, seed=seed, progress=False,
            )  # fmt: skip
            outcomes = split_value(schema, again.value[0])
            feedback = {name: x[0] for name, x in again.feedback.items()}
            both.append({**{name: data[name] for name in schema.inputs}, **outcomes, **feedback})
            bar.update(len(parts))
            for members in parts:
                mine = {name: x[members] for name, x in params.items()}
                scores[1][:, members] = _moved_scores(net, _observe(net, both[1], known, members), mine)
                bar.update()
    # Rounding may leave a distribution function a little above 1.
    by_outcome = {name: np.clip(pit[..., i], 0.0, 1.0) for i, name in enumerate(schema.outcomes)}
    tables = [
        {**_score_statistics(schema, scores[i]), **_statistics(schema, values, statistics)}
        for i, values in enumerate(both)
    ]
    rollout_table = tables[1] if rollouts else {}
    rows = _likelihood_rows(params, by_outcome, tables[0], rollout_table, level)
    return LikelihoodCheck(params, by_outcome, tables[0], rollout_table, rows, level, dropped)


def _check_pair(net: Any, simulator: Any) -> None:
    backend_of(net)
    check_simulator(simulator)
    if simulator.schema != net.schema:
        raise ValueError(
            f"simulator: expected the network's schema {net.schema}, got {simulator.schema}: it is the simulator of "
            "another network"
        )


def _trials(net: Any, trials: int | None, most: int = 100) -> int:
    if trials is None:
        return most if net.record is None else min(most, net.record.trials)
    return _check_count("trials", trials)


def _simulate(
    simulator: Any,
    rng: np.random.Generator,
    sets: int,
    trials: int,
    prior: Callable[[np.random.Generator, int], Any],
) -> tuple[Any, Arrays, int]:
    """Parameters and data sets that are legal throughout, and how many others were left out.

    `prior` draws parameters, dict name -> (size,).
    """
    chosen: list[tuple[Arrays, Arrays]] = []
    counts, found = RejectionCounts(), 0
    while found < sets:
        params = prior(rng, sets)
        data = draw_data(simulator, rng, params, sets, trials, probabilities=False)[0]
        good, count = find_legal(simulator.schema, params, data)
        counts.add(count)
        counts.check()
        if not good.any():
            raise counts.exhausted("a check")
        chosen.append(tuple({name: x[good] for name, x in group.items()} for group in (params, data)))  # type: ignore[arg-type]
        found += int(good.sum())
    joined = [
        {name: np.concatenate([pair[i][name] for pair in chosen])[:sets] for name in chosen[0][i]} for i in range(2)
    ]
    return joined[0], joined[1], counts.dropped


def _observe(net: Any, data: Arrays, context: Arrays | None, members: np.ndarray) -> ObservedTrials:
    """Some of the data sets, prepared."""
    schema = net.schema
    columns = [data[name][members].astype(np.float32) for name in schema.outcomes]
    return net.observe(
        {name: data[name][members] for name in schema.inputs},
        np.stack(columns, -1) if schema.event_shape_tail else columns[0],
        feedback={name: data[name][members] for name in schema.feedback},
        context=None if context is None else {name: x[members] for name, x in context.items()},
    )


def _moved_scores(net: Any, observed: ObservedTrials, params: Arrays) -> np.ndarray:
    """Log densities (1 + 2 P, sets) at the parameters, and with each parameter in turn moved up and down."""
    base = {name: np.asarray(x, np.float32) for name, x in params.items()}
    moved = {name: np.repeat(x[None], 1 + 2 * len(base), 0) for name, x in base.items()}
    for index, name in enumerate(base):
        low, high = _range(net, name, base[name])
        step = _STEP * (high - low)
        # Short of the very bounds, which may not be legal.
        edge = (low + 1e-3 * (high - low), high - 1e-3 * (high - low))
        for row, direction in ((1 + 2 * index, 1), (2 + 2 * index, -1)):
            moved[name][row] = np.clip(base[name] + direction * step, *edge)
    query = Query.build(net, observed, params=moved, outside="ignore")
    return to_numpy(density.log_prob(query, observed.value))


def _range(net: Any, name: str, values: np.ndarray) -> tuple[float, float]:
    box = net.box.get(name)
    return box if box is not None else (float(values.min()), float(values.max()) + 1e-6)


def _score_statistics(schema: Schema, scores: np.ndarray) -> Arrays:
    table = {"log density": scores[0]}
    for index, name in enumerate(schema.params):
        with np.errstate(invalid="ignore"):
            # Minus infinity on both sides says nothing.
            table[f"preference for larger {name}"] = np.nan_to_num(
                scores[1 + 2 * index] - scores[2 + 2 * index], nan=0.0, posinf=1e30, neginf=-1e30
            )
    return table


def _statistics(schema: Schema, data: Arrays, more: Mapping[str, Statistic] | None) -> Arrays:
    """Simple statistics of the outcomes, and those of the user: dict name -> (*S, B)."""
    table: Arrays = {}
    with warnings.catch_warnings():
        # A data set may have no trial that a statistic asks for.
        warnings.simplefilter("ignore", RuntimeWarning)
        for name, variable in schema.outcomes.items():
            value = data[name]
            following = value[..., 1:], value[..., :-1]
            if isinstance(variable, Categorical):
                for category in range(1, variable.n):
                    share = np.where(np.isnan(value), np.nan, value == category)
                    table[f"share of {name} = {category}"] = np.nanmean(share, -1)
                same = np.where(np.isnan(following[0] + following[1]), np.nan, following[0] == following[1])
                table[f"repetitions of {name}"] = np.nanmean(same, -1)
            else:
                centered = value - np.nanmean(value, -1, keepdims=True)
                table[f"mean of {name}"] = np.nanmean(value, -1)
                table[f"standard deviation of {name}"] = np.nanstd(value, -1)
                product = np.nanmean(centered[..., 1:] * centered[..., :-1], -1)
                table[f"autocorrelation of {name}"] = product / np.maximum(np.nanvar(value, -1), 1e-30)
        for name, function in (more or {}).items():
            result = np.asarray(function(data), dtype=float)
            expected = next(iter(data.values())).shape[:-1]
            if result.shape != expected:
                raise ValueError(f"statistics[{name!r}]: expected an array of shape {expected}, got {result.shape}")
            table[name] = result
    return table


def _likelihood_rows(
    params: Arrays, pit: Arrays, simulated: Arrays, rollouts: Arrays, level: float
) -> list[dict[str, Any]]:
    sets = len(next(iter(pit.values())))
    cells: list[tuple[str, str, np.ndarray]] = [("PIT", name, values) for name, values in pit.items()]
    size = sets // _PARTS
    for name, values in params.items():
        order = np.argsort(values, kind="stable")
        for part in range(_PARTS):
            # Equal sizes, so that one simulated band serves all; what is left over of a division is in no part.
            members = order[part * size : (part + 1) * size]
            label = f"{name} {values[members].min():.3g} to {values[members].max():.3g}"
            for outcome, x in pit.items():
                cells.append(("coverage", label + f", {outcome}" * (len(pit) > 1), x[members]))
    share = 1 - (1 - level) / (len(cells) + len(rollouts))
    rows: list[dict[str, Any]] = []
    for comparison, what, values in cells:
        result = uniformity(values, level=share)
        inside = {f"coverage_{100 * c:.0f}": float((np.abs(values - 0.5) <= c / 2).mean()) for c in _COVERAGES}
        rows.append(
            {"comparison": comparison, "what": what, **inside, "effect": math.nan, "p": result.p,
             "passed": result.passed}
        )  # fmt: skip
    for name, drawn in rollouts.items():
        effect, p = _paired(simulated[name], drawn)
        nothing = {f"coverage_{100 * c:.0f}": math.nan for c in _COVERAGES}
        rows.append(
            {"comparison": "rollouts", "what": name, **nothing, "effect": effect, "p": p, "passed": p >= 1 - share}
        )
    return rows


def _paired(simulated: np.ndarray, drawn: np.ndarray) -> tuple[float, float]:
    """Mean difference in standard deviations, and p of a signed-rank test that the pairs are exchangeable."""
    from scipy.stats import wilcoxon

    known = np.isfinite(simulated) & np.isfinite(drawn)
    difference = (simulated - drawn)[known]
    if not np.any(difference):
        return 0.0, 1.0
    effect = float(difference.mean() / max(simulated[known].std(), 1e-30))
    # Differences of 0 count half for either side.
    return effect, float(wilcoxon(difference, zero_method="zsplit", method="approx").pvalue)


# Posterior ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PosteriorCheck:
    """Simulation-based calibration. Made by `check_posterior`.

    Attributes:
        truth: dict parameter -> (sets,), what the data sets were simulated with.
        draws: dict parameter -> (draws, sets), posterior draws.
        ranks: dict quantity -> (sets,), number of draws below the truth: the parameters, and ``log_likelihood``.
        effective: dict quantity -> (sets,), effective number of those draws.
        divergences: (sets,), share of divergent transitions.
        steps: mean number of gradients a transition.
        level: probability that perfect posteriors pass.
    """

    truth: Arrays
    draws: Arrays
    ranks: Arrays
    effective: Arrays
    divergences: np.ndarray
    steps: float
    level: float

    @cached_property
    def bands(self) -> dict[str, Uniformity]:
        """Ranks of each quantity against the uniform distribution, at the level that all quantities share."""
        share = 1 - (1 - self.level) / len(self.ranks)
        count = len(next(iter(self.draws.values()))) + 1
        return {name: uniformity((rank + 0.5) / count, steps=count, level=share) for name, rank in self.ranks.items()}

    @property
    def passed(self) -> bool:
        """Whether the ranks of every quantity lie inside their simultaneous band."""
        return all(band.passed for band in self.bands.values())

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `table`, as dicts."""
        rows = []
        count = len(next(iter(self.draws.values()))) + 1
        for name, band in self.bands.items():
            place = (self.ranks[name] + 0.5) / count
            contraction = math.nan
            if name in self.truth and len(self.truth[name]) > 1:
                contraction = float(np.median(1 - self.draws[name].var(0) / self.truth[name].var()))
            rows.append(
                {
                    "quantity": name,
                    "mean_rank": float(place.mean()),
                    "rank_spread": float(place.std() * math.sqrt(12)),
                    "contraction": contraction,
                    "effective_draws": float(np.median(self.effective[name])),
                    "p": band.p,
                    "passed": band.passed,
                }
            )
        return rows

    @property
    def table(self) -> pandas.DataFrame:
        """One row for each quantity.

        Columns: ``mean_rank`` (0.5 where right; below it the posteriors lie too high), ``rank_spread`` (1 where right;
        above it the posteriors are too narrow), ``contraction`` (median share of the prior variance that the data take
        away), ``effective_draws`` (median), ``p`` (of the single quantity), ``passed`` (at the level shared by all).
        """
        return _frame(self.rows)

    def plot(self) -> Any:
        """Draw the ranks' distribution functions minus the uniform one, with their bands; a matplotlib figure."""
        columns = min(3, len(self.bands))
        figure, axes = _figure(columns, math.ceil(len(self.bands) / columns))
        for panel in axes.flat[len(self.bands) :]:
            panel.set_axis_off()
        for panel, (name, band) in zip(axes.flat, self.bands.items(), strict=False):
            band.plot(panel)
            panel.set(title=name, xlabel="rank of the truth", ylabel="share below, minus uniform")
        return figure

    def tarp(self, *, seed: int = 0) -> tuple[float, float]:
        """TARP: coverage of all parameters jointly (Lemos, Coogan, Hezaveh & Perreault-Levasseur 2023), by sbi.

        Args:
            seed: of the reference points.

        Returns:
            what `sbi.diagnostics.check_tarp` returns: area between coverage and diagonal above a half (positive where
            posteriors are too wide, negative where too narrow), and the p-value of a Kolmogorov-Smirnov test of the two
            curves. The test sees a point for every ten data sets and finds only gross errors: look at the area.

        Raises:
            ImportError: if sbi is not installed.
        """
        try:
            import torch

            import ppl_buffer.sbi  # noqa: F401  # first: it imports sbi with torch's checks left as they are
            from sbi.diagnostics import check_tarp, run_tarp  # isort: skip
        except ImportError as error:
            raise ImportError("PosteriorCheck.tarp needs sbi: pip install 'ppl-buffer[sbi]'") from error
        truth = torch.as_tensor(np.stack(list(self.truth.values()), -1), dtype=torch.float32)
        draws = torch.as_tensor(np.stack(list(self.draws.values()), -1), dtype=torch.float32)

        class Drawn:
            """A posterior that has been sampled already."""

            def sample_batched(self, *arguments: Any, **keywords: Any) -> Any:
                return draws

        index = torch.arange(len(truth), dtype=torch.float32)[:, None]
        scale, place = truth.std(0), truth.mean(0)
        noise = np.random.default_rng(seed).standard_normal(truth.shape)
        references = place + scale * torch.as_tensor(noise, dtype=torch.float32)
        coverage, levels = run_tarp(
            truth, index, Drawn(), references=references, num_posterior_samples=len(draws), show_progress_bar=False,
            use_batched_sampling=True,
        )  # fmt: skip
        area, p = check_tarp(coverage, levels)
        return float(area), float(p)


@dataclass(frozen=True)
class _Settings:
    """What a folder of finished batches must agree on."""

    network: str
    priors: dict[str, Any]
    trials: int
    draws: int
    thin: int
    warmup: int
    batch: int
    seed: int
    simulator: str

    def check(self, folder: Path) -> None:
        """Write the settings into the folder, or refuse a folder of other settings."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "settings.json"
        mine = json.loads(json.dumps(self.__dict__))
        if path.exists():
            theirs = json.loads(path.read_text())
            different = [name for name in mine if mine[name] != theirs.get(name)]
            if different:
                raise ValueError(
                    f"out: expected a new folder, or one of the same check, but {str(folder)!r} holds batches of other "
                    f"{', '.join(different)}; take another folder, or delete this one"
                )
        else:
            write_atomic(path, json.dumps(mine, indent=2).encode())


def check_posterior(
    net: Any,
    simulator: Any,
    *,
    sets: int = 200,
    trials: int | None = None,
    draws: int = 99,
    thin: int = 2,
    warmup: int = 50,
    priors: Mapping[str, Prior] | None = None,
    batch: int = 50,
    out: str | os.PathLike[str] | None = None,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> PosteriorCheck:
    """Simulation-based calibration of the posteriors that a network leads to, by NumPyro's NUTS.

    Data sets are simulated at parameters from the prior and fitted; where the network and the sampler are right, the
    truth's rank among posterior draws is uniform. Ranked are the parameters and the log likelihood, which sees errors
    that no single parameter shows (Modrák et al. 2023, Bayesian Analysis). A chain for each data set; the chains of a
    batch run in lock step in one compiled program, on the scale on which the prior is standard normal, whitened by an
    importance-sampling fit, so that they are short and of equal cost.

    Args:
        net: a trained network. One of torch is copied to JAX for the fits.
        simulator: what it should be the likelihood of; see `ppl_buffer.Simulator`. Its `prior` is not used.
        sets: number of data sets.
        trials: trials of each; by default 100, or as many as the training covered.
        draws: draws that the truth is ranked among. One less than a number with many divisors suits the bands.
        thin: transitions of NUTS for each of them: as many as make them nearly independent.
        warmup: transitions before them, to find the step size.
        priors: parameter -> prior, of those whose prior shall be another than the training's. A parameter without any
            gets the uniform one over its trained range.
        batch: data sets in a program.
        out: folder for the results of finished batches. A check that is called again with the same folder goes on where
            it was interrupted, and with more `sets` extends it. Without a folder an interruption loses all.
        level: probability that perfect posteriors pass.
        seed: of everything random.
        progress: show a progress bar.

    Returns:
        the check: `passed`, `table`, `plot()`, `tarp()`.

    Raises:
        ImportError: if NumPyro is not installed.
        ValueError: if the simulator's schema is not the network's, an argument does not fit, or the folder holds
            batches of another check.
    """
    if importlib.util.find_spec("numpyro") is None:
        raise ImportError("check_posterior samples with NumPyro: pip install 'ppl-buffer[numpyro]'")
    _check_pair(net, simulator)
    _check_level(level)
    sets = _check_count("sets", sets, 2)
    trials = _trials(net, trials)
    batch = min(_check_count("batch", batch), sets) if out is None else _check_count("batch", batch)
    for name, number in (("draws", draws), ("thin", thin), ("warmup", warmup)):
        _check_count(name, number)
    net = _as_jax(net)
    # Whole calls of the one program that advances the chains.
    warm = math.ceil(warmup / thin)
    scale = _NormalScale(_all_priors(net, priors))
    folder = None if out is None else Path(out)
    settings = _Settings(
        _digest(net), {name: prior.to_dict() for name, prior in scale.priors.items()}, trials, draws, thin, warmup,
        batch, seed, name_of(simulator),
    )  # fmt: skip
    if folder is not None:
        settings.check(folder)
    count = math.ceil(sets / batch)
    described = tuple((name, json.dumps(prior.to_dict())) for name, prior in scale.priors.items())
    chains = _chains(net, described, thin, warm)
    length = (warm + draws) * thin
    results = []
    with tqdm(total=count * length, disable=not progress, unit="transition", desc="posterior") as bar:
        for index in range(count):
            path = None if folder is None else folder / f"batch-{index:04d}.npz"
            result = None if path is None else _read(path)
            if result is None:
                # Each batch has random numbers of its own, so that it matters not which were done before.
                rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
                result = _fit_batch(net, simulator, chains, rng, batch, trials, draws, bar)
                if path is not None:
                    content = io.BytesIO()
                    np.savez(content, **result)  # type: ignore[arg-type]
                    write_atomic(path, content.getvalue())
            bar.update((index + 1) * length - bar.n)
            results.append(result)
    axis = {"draws": 1, "log_likelihoods": 1}
    joined = {key: np.concatenate([x[key] for x in results], axis.get(key, 0)) for key in results[0] if key != "steps"}
    check = _ranked(joined, list(scale.priors), sets, level, float(np.mean([x["steps"] for x in results])), seed)
    poor = [name for name, x in check.effective.items() if np.median(x) < _FEWEST_EFFECTIVE * draws]
    if poor:
        warnings.warn(
            f"check_posterior: the {draws} draws of {', '.join(poor)} are worth fewer than half as many independent "
            f"ones, which by itself makes ranks uneven; raise thin (now {thin})",
            stacklevel=2,
        )
    return check


def _as_jax(net: Any) -> Any:
    if net.backend == "jax":
        return net
    from ppl_buffer.network.jax.weights import JaxNetwork

    weights = {name: to_numpy(weight) for name, weight in net.weights.items()}
    return JaxNetwork(net.schema, net.config, net.standardization, weights, net.record)


def _digest(net: Any) -> str:
    digest = hashlib.sha256()
    for name in sorted(net.weights):
        digest.update(name.encode() + np.ascontiguousarray(to_numpy(net.weights[name])).tobytes())
    return digest.hexdigest()


def _all_priors(net: Any, given: Mapping[str, Prior] | None) -> dict[str, Prior]:
    """The prior of every parameter, in the schema's order."""
    unknown = [name for name in given or {} if name not in net.schema.params]
    if unknown:
        raise ValueError(f"priors: expected parameters among {list(net.schema.params)}, got {unknown}")
    if not net.schema.params:
        raise ValueError("net: expected a network with parameters, got one that has none")
    known = {} if net.record is None else dict(net.record.priors)
    priors: dict[str, Prior] = {}
    for name in net.schema.params:
        prior = (given or {}).get(name) or known.get(name)
        if prior is None:
            if name not in net.box:
                raise ValueError(f"priors: expected a prior of {name!r}, of which the network's record knows none")
            prior = Prior.uniform(*net.box[name])
        priors[name] = prior
    return priors


class _NormalScale:
    """Parameters as functions of scores under which their prior is standard normal.

    A table for each parameter serves every family, in NumPy and in JAX alike.
    """

    def __init__(self, priors: Mapping[str, Prior]) -> None:
        from scipy.special import ndtr

        self.priors = dict(priors)
        self.grid = np.linspace(-_REACH, _REACH, _GRID)
        self.tables = {name: prior.quantile(ndtr(self.grid)) for name, prior in self.priors.items()}

    def params(self, xp: Any, scores: Any) -> dict[str, Any]:
        """Dict name -> (...), from scores (..., P)."""
        params: dict[str, Any] = {}
        for index, (name, prior) in enumerate(self.priors.items()):
            params[name] = xp.interp(scores[..., index], self.grid, self.tables[name])
            if prior.relative_to is not None:
                params[name] = params[name] + params[prior.relative_to]
        return params


@dataclass(frozen=True)
class _Chains:
    """NUTS for the data sets of a batch, a chain each, in lock step: compiled functions of a whole batch.

    Attributes:
        scale: of the scores (..., P) that the chains move in.
        warm: calls of `advance` before draws are kept.
        thin: transitions in a call of `advance`.
        log_likelihood: parameters (n, B) and data -> (n, B).
        begin: seeds (B,), first positions (B, P), data, location and spread of the scores -> states.
        advance: states, data, location and spread -> states, scores (B, P), their log likelihood (B,), share of
            divergent transitions and mean number of gradients (B,).
    """

    scale: _NormalScale
    warm: int
    thin: int
    log_likelihood: Callable[..., Any]
    begin: Callable[..., Any]
    advance: Callable[..., Any]


@lru_cache(maxsize=4)
def _chains(net: Any, priors: tuple[tuple[str, str], ...], thin: int, warm: int) -> _Chains:
    """The programs of a network and priors (names, and descriptions as JSON): kept, since compiling takes long."""
    import jax
    import jax.numpy as jnp
    from numpyro.infer.hmc import hmc

    from ppl_buffer.numpyro import JointPredictive

    scale = _NormalScale({name: Prior.from_dict(json.loads(text)) for name, text in priors})

    def log_likelihood(params: Mapping[str, Any], data: ObservedTrials) -> Any:
        return JointPredictive(net, data, params=params, outside="ignore", validate_args=False).log_prob(data.value)

    def sampler(key: Any, first: Any, data: ObservedTrials, place: Any, spread: Any) -> Any:
        def potential(white: Any) -> Any:
            scores = place + spread @ white
            return 0.5 * (scores**2).sum() - log_likelihood(scale.params(jnp, scores), data)

        start, step = hmc(potential, algo="NUTS")
        state = start(first, warm * thin, step_size=0.5, adapt_mass_matrix=False, max_tree_depth=_DEPTH, rng_key=key)
        return state, step

    def begin(seed: Any, first: Any, data: ObservedTrials, place: Any, spread: Any) -> Any:
        return sampler(jax.random.PRNGKey(seed), first, data, place, spread)[0]

    def advance(state: Any, data: ObservedTrials, place: Any, spread: Any) -> Any:
        # The kernel wants a start to be made before it; nobody uses it, and the compiler drops it.
        _, step = sampler(state.rng_key, state.z, data, place, spread)

        def one(carry: Any, _: Any) -> Any:
            moved = step(carry)
            return moved, (moved.diverging, moved.num_steps)

        state, (diverging, steps) = jax.lax.scan(one, state, None, thin)
        scores = place + spread @ state.z
        # The potential is the prior's part less this.
        fit = 0.5 * (scores**2).sum() - state.potential_energy
        return state, scores, fit, diverging.mean(), steps.mean()

    return _Chains(
        scale, warm, thin, jax.jit(log_likelihood), jax.jit(jax.vmap(begin)), jax.jit(jax.vmap(advance))
    )  # fmt: skip


def _fit_batch(
    net: Any,
    simulator: Any,
    chains: _Chains,
    rng: np.random.Generator,
    batch: int,
    trials: int,
    draws: int,
    bar: Any,
) -> Arrays:
    """Simulate a batch of data sets and draw from their posteriors."""
    from ppl_buffer.inference.importance import draws_a_round, fit_proposal

    scale = chains.scale
    names, dims = list(scale.priors), len(scale.priors)

    def prior(rng: np.random.Generator, size: int) -> Arrays:
        scores = np.clip(rng.standard_normal((size, dims)), -_REACH, _REACH)
        params = scale.params(np, scores)
        return {name: params[name].astype(np.float32).astype(float) for name in names}

    params, data, _ = _simulate(simulator, rng, batch, trials, prior)
    # Groups of people cannot be mapped over.
    observed = replace(_observe(net, data, None, np.arange(batch)), groups=None)
    at_once = min(draws_a_round(dims), max(1, _TRIALS_AT_ONCE // (batch * trials)))

    def densities(conditioned: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log likelihoods (n, batch) at parameters (n, batch), by one compiled program."""
        parts = []
        count = len(conditioned[names[0]])
        for first in range(0, count, at_once):
            piece = {name: conditioned[name][first : first + at_once].astype(np.float32) for name in names}
            missing = at_once - len(piece[names[0]])
            full = {name: np.concatenate([x, np.repeat(x[-1:], missing, 0)]) for name, x in piece.items()}
            parts.append(np.asarray(chains.log_likelihood(full, observed), float)[: at_once - missing])
        return np.concatenate(parts)

    def log_likelihood(points: np.ndarray) -> np.ndarray:
        result = densities(scale.params(np, points))
        return np.where(np.isfinite(result), result, -1e30)

    proposal = fit_proposal(log_likelihood, batch, dims, rng)
    place, spread = (x.astype(np.float32) for x in (proposal.location, proposal.scale))
    seeds = rng.integers(2**31, size=batch).astype(np.uint32)
    first = rng.standard_normal((batch, dims)).astype(np.float32)
    state = chains.begin(seeds, first, observed, place, spread)
    kept = []
    for number in range(chains.warm + draws):
        state, *result = chains.advance(state, observed, place, spread)
        if number >= chains.warm:
            kept.append([np.asarray(x) for x in result])
        bar.update(chains.thin)
    scores, fit, diverging, steps = (np.stack(x) for x in zip(*kept, strict=True))
    drawn = scale.params(np, scores)
    return {
        "truth": np.stack([params[name] for name in names], -1),
        "draws": np.stack([drawn[name] for name in names], -1),
        "log_likelihood": densities({name: x[None] for name, x in params.items()})[0],
        "log_likelihoods": fit,
        "divergences": diverging.mean(0),
        "steps": steps.mean(),
    }


def _read(path: Path) -> Arrays | None:
    """The results of a finished batch, or None where it is not finished."""
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _ranked(joined: Arrays, names: list[str], sets: int, level: float, steps: float, seed: int) -> PosteriorCheck:
    """Ranks of the truth among the draws, of the first `sets` data sets."""
    from numpyro.diagnostics import effective_sample_size

    truth = {name: joined["truth"][:sets, i] for i, name in enumerate(names)}
    draws = {name: joined["draws"][:, :sets, i] for i, name in enumerate(names)}
    rng = np.random.default_rng(seed)
    ranks, effective = {}, {}
    pairs = {name: (truth[name], draws[name]) for name in names}
    pairs["log_likelihood"] = (joined["log_likelihood"][:sets], joined["log_likelihoods"][:, :sets])
    for name, (true, drawn) in pairs.items():
        ties = (drawn == true).sum(0)
        ranks[name] = (drawn < true).sum(0) + rng.integers(0, ties + 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            # A chain that never moved is worth one draw.
            effective[name] = np.nan_to_num(np.asarray(effective_sample_size(drawn[None])), nan=1.0)
    return PosteriorCheck(truth, draws, ranks, effective, joined["divergences"][:sets], steps, level)


# A fit to real data -------------------------------------------------------------------------------------------------


def outside(net: Any, posterior: Any, *, warn: float = 0.01) -> dict[str, float]:
    """Share of posterior draws outside the range that the network was trained on, by parameter.

    There the likelihood is an extrapolation, and no diagnostic of the sampler can tell.

    Args:
        net: a trained network of either backend.
        posterior: draws of parameters in natural units: a dict name -> (draws, ...) as ``MCMC.get_samples()`` gives;
            or what ArviZ holds, with a group ``posterior``. Other names in it are ignored.
        warn: share from which on a parameter is warned of.

    Returns:
        dict parameter -> share of its draws, over everybody. Where a parameter's prior is relative to another, their
        difference has an entry too, ``"b - a"``.

    Raises:
        ValueError: if the network was not trained, or the posterior holds none of its parameters.
    """
    if net.record is None:
        raise ValueError("net: expected a trained network, which knows its range, got an untrained one")
    draws = _draws(net, posterior)
    shares: dict[str, float] = {}
    ranges: list[tuple[str, np.ndarray, tuple[float, float]]] = []
    for name, value in draws.items():
        if name in net.box:
            ranges.append((name, value, net.box[name]))
        prior = net.record.priors.get(name)
        origin = None if prior is None else prior.relative_to
        if origin in draws and "low" in prior.arguments:
            ranges.append((f"{name} - {origin}", value - draws[origin], prior.range()))
    for name, value, (low, high) in ranges:
        beyond = ~((value >= low) & (value <= high))
        shares[name] = float(beyond.mean())
        if shares[name] > warn:
            by_unit = beyond.mean(0)
            who = ""
            if by_unit.ndim:
                worst = np.unravel_index(int(by_unit.argmax()), by_unit.shape)
                place = ", ".join(map(str, worst))
                who = f" (most at index {place}: {by_unit[worst]:.0%})"
            side = "below" if (value < low).mean() > (value > high).mean() else "above"
            warnings.warn(
                f"outside: {shares[name]:.1%} of the draws of {name!r}{who} lie outside [{low:g}, {high:g}], where the "
                f"network was trained, mostly {side}; its likelihood there is an extrapolation. Use a prior inside the "
                f"range (net.prior()), or train on a wider one",
                stacklevel=2,
            )
    return shares


def _draws(net: Any, posterior: Any) -> Arrays:
    """The network's parameters in a posterior: dict name -> (draws, ...)."""
    chains = False
    if hasattr(posterior, "get_samples"):
        posterior = posterior.get_samples()
    if not isinstance(posterior, dict):
        # ArviZ's InferenceData and DataTree, or the dataset of their group.
        posterior = getattr(posterior, "posterior", posterior)
        chains = True
    found = {}
    for name in net.schema.params:
        if name in posterior:
            value = posterior[name]
            array = np.asarray(value.values if chains else to_numpy(value), dtype=float)
            found[name] = array.reshape((-1, *array.shape[2:])) if chains else array
    if not found:
        raise ValueError(
            f"posterior: expected draws of some of {list(net.schema.params)}, in natural units, got {list(posterior)}"
        )
    return found


@dataclass(frozen=True)
class DataCheck:
    """Observed data among data sets that the fitted model generates. Made by `check_data`.

    Attributes:
        observed: dict statistic -> (draws, people), of the observed data at each draw.
        replicated: dict statistic -> (draws, people), of data sets generated at each draw.
        level: probability below which a posterior predictive p-value is called extreme is one minus this.
    """

    observed: Arrays
    replicated: Arrays
    level: float

    def p_values(self, name: str) -> np.ndarray:
        """(people,), share of draws at which the generated data sets have at least the observed value of a statistic.

        Ties count half.
        """
        return _exceeds(self.observed[name], self.replicated[name])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `table`, as dicts."""
        from scipy.stats import binom

        rows = []
        tail = (1 - self.level) / 2
        for name, observed in self.observed.items():
            replicated = self.replicated[name]
            known = np.isfinite(observed).all(0) & np.isfinite(replicated).all(0)
            every = (observed[:, known].mean(1), replicated[:, known].mean(1))
            p = float(_exceeds(*(x[:, None] for x in every))[0])
            single = self.p_values(name)[known]
            beyond = int(((single < tail) | (single > 1 - tail)).sum())
            # Everybody together by the statistic's mean, and people one by one by how many are extreme.
            most = int(binom.ppf(0.99, known.sum(), 1 - self.level)) if known.sum() > 1 else int(known.sum())
            rows.append(
                {
                    "statistic": name,
                    "observed": float(every[0].mean()),
                    "generated": float(every[1].mean()),
                    "low": float(np.quantile(every[1], tail)),
                    "high": float(np.quantile(every[1], 1 - tail)),
                    "p": p,
                    "people": int(known.sum()),
                    "people_extreme": beyond,
                    "passed": bool(tail <= p <= 1 - tail and beyond <= most),
                }
            )
        return rows

    @property
    def table(self) -> pandas.DataFrame:
        """One row for each statistic.

        Columns: ``observed`` and ``generated`` (mean over people and draws), ``low`` and ``high`` (central interval of
        what is generated), ``p`` (posterior predictive p-value of the mean over people), ``people``,
        ``people_extreme`` (how many have an extreme p-value of their own), ``passed``.
        """
        return _frame(self.rows)

    @property
    def passed(self) -> bool:
        """Whether the data look like the model's by every statistic."""
        return all(row["passed"] for row in self.rows)

    def plot(self) -> Any:
        """Draw each person's observed value of a statistic against what the model generates; a matplotlib figure."""
        columns = min(3, len(self.observed))
        figure, axes = _figure(columns, math.ceil(len(self.observed) / columns))
        for panel in axes.flat[len(self.observed) :]:
            panel.set_axis_off()
        tail = (1 - self.level) / 2
        for panel, row in zip(axes.flat, self.rows, strict=False):
            name = row["statistic"]
            middle = np.median(self.replicated[name], 0)
            low, high = np.quantile(self.replicated[name], [tail, 1 - tail], axis=0)
            seen = self.observed[name].mean(0)
            panel.errorbar(seen, middle, yerr=np.maximum([middle - low, high - middle], 0), fmt=".", color="C0", lw=0.8)
            panel.axline((float(np.mean(seen)),) * 2, slope=1, color="0.5", linewidth=0.8)
            panel.set(title=f"{name} (p = {row['p']:.2f})", xlabel="observed", ylabel="generated")
        return figure


def _exceeds(observed: np.ndarray, replicated: np.ndarray) -> np.ndarray:
    return ((replicated > observed) + 0.5 * (replicated == observed)).mean(0)


def check_data(
    net: Any,
    data: ObservedTrials,
    posterior: Any,
    *,
    statistics: Mapping[str, Statistic] | None = None,
    environment: Callable[..., Any] | None = None,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> DataCheck:
    """Compare observed data with data sets that the network generates at posterior draws: posterior predictive checks.

    The statistics are the log density (a discrepancy: of observed and generated data at the same draw), simple ones of
    the outcomes, and the user's. A posterior predictive p-value near 0 or 1 says that the model does not generate such
    data. The data were used to fit, so that the values lie nearer to 1/2 than uniform ones: a pass proves little, an
    extreme one much.

    Args:
        net: a trained network of either backend.
        data: what ``net.observe(...)`` returned; one batch dimension, the people.
        posterior: draws of all parameters of each person, in natural units: dict name -> (draws, people), or what ArviZ
            holds.
        statistics: name -> function of data sets, dict name -> (*draws, people, K) of inputs, outcomes and feedback,
            NaN where there is no trial, that returns (*draws, people).
        environment: gives feedback on generated outcomes, as for `JointPredictive`.
        draws: number of draws that are used, evenly spaced.
        level: of the central intervals and of what is called extreme.
        seed: of the generated data.
        progress: show a progress bar.

    Returns:
        the check: `passed`, `table`, `plot()`, `p_values(name)`. A statistic that fails is also warned of.

    Raises:
        ValueError: if the posterior lacks a parameter or has other shapes, or feedback is needed and no environment
            supplies it.
    """
    schema = net.schema
    if not isinstance(data, ObservedTrials) or len(data.batch_shape) != 1:
        raise ValueError("data: expected what net.observe(...) returned of trials (people, K)")
    _check_level(level)
    people = data.batch_shape[0]
    chosen = _draws(net, posterior)
    missing = [name for name in schema.params if name not in chosen]
    if missing:
        raise ValueError(f"posterior: expected draws of {list(schema.params)}, but {missing} are missing")
    total = len(next(iter(chosen.values())))
    wrong = {name: x.shape for name, x in chosen.items() if x.shape != (total, people)}
    if wrong:
        raise ValueError(f"posterior: expected shapes ({total}, {people}), draws and people, got {wrong}")
    index = np.linspace(0, total - 1, min(_check_count("draws", draws), total)).astype(int)
    theta = {name: x[index].astype(np.float32) for name, x in chosen.items()}
    generated = posterior_predictive(net, data, theta, environment=environment, seed=seed, progress=progress)
    exists = to_numpy(data.trial_mask)

    def blank(value: Any) -> np.ndarray:
        return np.where(exists, np.asarray(to_numpy(value), dtype=float), np.nan)

    inputs = {name: blank(x) for name, x in data.inputs.items()}
    feedback = {name: blank(x) for name, x in data.feedback.items()}
    seen = {**inputs, **{name: blank(x) for name, x in split_value(schema, data.value).items()}, **feedback}
    shape = (len(index), people, data.trials)
    again = {
        **{name: np.broadcast_to(x, shape) for name, x in inputs.items()},
        **split_value(schema, generated.value),
        **generated.feedback,
    }
    at_once = max(1, _TRIALS_AT_ONCE // (people * data.trials))
    densities = []
    for first in range(0, len(index), at_once):
        # The last part reaches back, so that one compiled program serves all of them.
        begin = max(0, min(first, len(index) - at_once))
        part = {name: x[begin : begin + at_once] for name, x in theta.items()}
        query = Query.build(net, data, params=part, outside="ignore")
        result = to_numpy(density.log_prob(query, data.value))
        densities.append(result[first - begin :])
    repeated = {name: np.broadcast_to(x, shape[:2]) for name, x in _statistics(schema, seen, statistics).items()}
    check = DataCheck(
        {"log density": np.concatenate(densities), **repeated},
        {"log density": np.nansum(generated.log_prob, -1), **_statistics(schema, again, statistics)},
        level,
    )
    for row in check.rows:
        if not row["passed"]:
            warnings.warn(
                f"check_data: {row['statistic']!r} is {row['observed']:.4g} in the data, and {row['low']:.4g} to "
                f"{row['high']:.4g} in what the fitted model generates (p = {row['p']:.3f}; extreme for "
                f"{row['people_extreme']} of {row['people']} people): the data lie outside what the model can do. Look "
                "at plot(), and at the data for mistakes of coding; then extend the model (a lapse, another parameter)",
                stacklevel=2,
            )
    return check
