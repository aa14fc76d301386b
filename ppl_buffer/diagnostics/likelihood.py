"""Calibration of a network's likelihood against the simulator that it should be the likelihood of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from ppl_buffer.checks import check_flag, check_integer, check_seed
from ppl_buffer.diagnostics.bands import check_level, uniformity
from ppl_buffer.diagnostics.output import data_frame, panels
from ppl_buffer.diagnostics.simulations import check_pair, observe_sets, simulate_legal, trials_to_simulate
from ppl_buffer.diagnostics.statistics import Arrays, Statistic, outcome_statistics
from ppl_buffer.files import to_numpy
from ppl_buffer.inference.chunks import chunks
from ppl_buffer.inference.simulation import posterior_predictive
from ppl_buffer.network.backend import Environment, backend_of
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.schema import Schema, split_value
from ppl_buffer.simulator import Simulator, WithEnvironment
from ppl_buffer.training.draws import draw_params

if TYPE_CHECKING:
    import pandas

# Trials that are scored at once.
_TRIALS_AT_ONCE = 200_000
# Equal parts of a parameter's distribution in which coverage is looked at.
_PARTS = 5
_COVERAGES = (0.5, 0.9)
# Part of a parameter's trained range by which it is moved either way to see whether the data prefer that.
_STEP = 0.05


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
        return data_frame(self.rows)

    def plot(self) -> Any:
        """Draw the PIT of each outcome, coverage over each parameter's range, and the effects; a matplotlib figure."""
        share = 1 - (1 - self.level) / len(self.rows)
        coverage = [row for row in self.rows if row["comparison"] == "coverage"]
        effects = [row for row in self.rows if row["comparison"] == "rollouts"]
        figure, axes = panels(len(self.pit) + bool(coverage) + bool(effects), height=4.0)
        for panel, (name, values) in zip(axes[0], self.pit.items(), strict=False):
            uniformity(values, level=share).plot(panel)
            panel.set(title=f"PIT of {name}", xlabel="distribution function", ylabel="share below, minus uniform")
        remaining = list(axes[0, len(self.pit) :])
        if coverage:
            _plot_coverage(remaining.pop(0), coverage)
        if effects:
            _plot_effects(remaining.pop(0), effects)
        return figure


def _plot_coverage(panel: Any, rows: list[dict[str, Any]]) -> None:
    """Draw the coverage in each part of each parameter's range."""
    index = np.arange(len(rows))
    for probability, color in zip(_COVERAGES, ("C0", "C1"), strict=True):
        panel.axhline(probability, color="0.6", linewidth=0.8)
        panel.plot(index, [row[f"coverage_{100 * probability:.0f}"] for row in rows], ".", color=color)
    bad = [i for i, row in enumerate(rows) if not row["passed"]]
    panel.plot(bad, [rows[i]["coverage_50"] for i in bad], "x", color="C3")
    # The table names every part; a label for each would not fit.
    params = np.array([row["what"].split(" ")[0] for row in rows])
    names = list(dict.fromkeys(params))
    panel.set_xticks([index[params == name].mean() for name in names], names, rotation=90, fontsize=8)
    for edge in index[1:][params[1:] != params[:-1]]:
        panel.axvline(edge - 0.5, color="0.85", linewidth=0.8)
    panel.set(title="coverage", ylim=(0, 1), ylabel="share in the 50 % and 90 % interval")
    panel.set_xlabel("parameters, each from low to high")


def _plot_effects(panel: Any, rows: list[dict[str, Any]]) -> None:
    """Draw the difference between simulator and rollouts in each statistic."""
    index = np.arange(len(rows))
    panel.barh(index, [row["effect"] for row in rows], color=["C0" if row["passed"] else "C3" for row in rows])
    panel.axvline(0.0, color="0.5", linewidth=0.8)
    panel.set_yticks(index, [row["what"] for row in rows], fontsize=6)
    panel.set(title="simulator minus rollouts", xlabel="standard deviations")


def check_likelihood(
    net: Network,
    simulator: Simulator,
    *,
    sets: int = 200,
    trials: int | None = None,
    context: int = 0,
    statistics: Mapping[str, Statistic] | None = None,
    rollouts: bool = True,
    environment: Environment | None = None,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> LikelihoodCheck:
    """Calibration of a network's likelihood, given all parameters, against fresh simulations.

    Three comparisons. *PIT*: the conditional distribution functions at simulated outcomes (randomised for categories)
    are uniform and independent where the network is right. *Coverage*: the same within each fifth of each parameter's
    distribution. *Rollouts*: the network's own data sets against the simulator's at the same parameters and inputs, a
    Wilcoxon signed-rank test of each statistic: log density, by how much the likelihood prefers larger to smaller
    values of each parameter (most sensitive to a network that uses it wrongly), simple statistics of the outcomes,
    and `statistics`. The level is divided among all comparisons.

    More data sets find smaller errors: no network is perfect, and the table's effects say how far off one is.

    Args:
        net: a trained network of either backend.
        simulator: what it should be the likelihood of; see `ppl_buffer.Simulator`. Parameters come from its `prior`.
        sets: number of data sets.
        trials: trials of each; by default 100, or as many as the training covered.
        context: points of each data set that are given as a context, beside the trials; exchangeable models only.
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
    check_pair(net, simulator)
    check_level(level)
    check_flag("rollouts", rollouts)
    seed, schema = check_seed(seed), net.schema
    sets = check_integer("sets", sets, 2 * _PARTS)
    trials = trials_to_simulate(net, trials)
    context = check_integer("context", context, 0)
    if context and schema.ordered:
        raise ValueError("context: expected 0 for an ordered model, whose past belongs in the buffer")
    if environment is None and isinstance(simulator, WithEnvironment):
        environment = simulator.environment
    if rollouts and schema.feedback and environment is None:
        raise ValueError(
            f"environment: expected a function that gives {list(schema.feedback)} on the network's own outcomes, since "
            "the simulator has none; pass one, or rollouts=False to compare distribution functions alone"
        )
    rng = np.random.default_rng(seed)
    params, data, dropped = simulate_legal(simulator, rng, sets, context + trials, partial(draw_params, simulator))
    simulated = _DataSets(
        net,
        params,
        {name: x[:, context:] for name, x in data.items()},
        {name: x[:, :context] for name, x in data.items()} if context else None,
    )
    uniform = rng.random((sets, trials, len(schema.outcomes)), dtype=np.float32)
    parts = len(simulated.chunks)
    with tqdm(total=parts * (1 + 2 * rollouts), disable=not progress, unit="part", desc="likelihood") as bar:
        pit, simulated_table = simulated.compare(uniform, statistics, bar.update)
        rollout_table: Arrays = {}
        if rollouts:
            generated = simulated.generate(environment, seed)
            bar.update(parts)
            rollout_table = generated.compare(None, statistics, bar.update)[1]
    rows = _rows(params, pit, simulated_table, rollout_table, level)
    return LikelihoodCheck(params, pit, simulated_table, rollout_table, rows, level, dropped)


@dataclass(frozen=True)
class _DataSets:
    """Data sets (sets, K) at parameters (sets,), as the network sees them; in chunks, since they may be many."""

    net: Network
    params: Arrays
    data: Arrays
    context: Arrays | None

    @cached_property
    def chunks(self) -> list[np.ndarray]:
        """Indices of the data sets that are scored at once."""
        sets, trials = next(iter(self.data.values())).shape
        return list(chunks(sets, min(sets, max(1, _TRIALS_AT_ONCE // (trials * (2 * len(self.params) + 1))))))

    def compare(
        self,
        uniform: np.ndarray | None,
        statistics: Mapping[str, Statistic] | None,
        update: Callable[[int], Any],
    ) -> tuple[Arrays, Arrays]:
        """Distribution functions at the outcomes, name -> (sets, K), and statistics, name -> (sets,).

        Args:
            uniform: (sets, K, outcomes), what randomises distribution functions of categories; None = these functions
                are not computed.
            statistics: the user's.
            update: is told of each chunk.
        """
        schema = self.net.schema
        pit = None if uniform is None else np.empty(uniform.shape)
        scores = np.empty((2 * len(schema.params) + 1, len(next(iter(self.data.values())))))
        for indices in self.chunks:
            params = {name: x[indices] for name, x in self.params.items()}
            observed = observe_sets(self.net, self.data, self.context, indices)
            if pit is not None and uniform is not None:
                query = Query.build(self.net, observed, params=params, outside="ignore")
                noise = backend_of(self.net).ops.number(self.net, uniform[indices])
                values = to_numpy(density.cdf_values(query, observed.value, noise))
                pit[indices] = values.reshape(len(indices), *pit.shape[1:])
            scores[:, indices] = _moved_scores(self.net, observed, params)
            update(1)
        by_outcome: Arrays = {}
        if pit is not None:
            # Rounding may leave a distribution function a little above 1.
            by_outcome = {name: np.clip(pit[..., i], 0.0, 1.0) for i, name in enumerate(schema.outcomes)}
        return by_outcome, {**_score_statistics(schema, scores), **outcome_statistics(schema, self.data, statistics)}

    def generate(self, environment: Environment | None, seed: int) -> _DataSets:
        """The network's own rollouts at the same parameters, inputs and contexts."""
        schema = self.net.schema
        trials = next(iter(self.data.values())).shape[1]
        inputs = {name: self.data[name] for name in schema.inputs}
        generated = posterior_predictive(
            self.net, inputs, {name: np.asarray(x, np.float32)[None] for name, x in self.params.items()},
            trials=trials, environment=environment, context=self.context, seed=seed, progress=False,
        )  # fmt: skip
        feedback = {name: x[0] for name, x in generated.feedback.items()}
        return replace(self, data={**inputs, **split_value(schema, generated.value[0]), **feedback})


def _moved_scores(net: Network, observed: ObservedTrials, params: Arrays) -> np.ndarray:
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


def _range(net: Network, name: str, values: np.ndarray) -> tuple[float, float]:
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


def _rows(params: Arrays, pit: Arrays, simulated: Arrays, rollouts: Arrays, level: float) -> list[dict[str, Any]]:
    """The comparisons, at a level that all of them share."""
    sets = len(next(iter(pit.values())))
    cells: list[tuple[str, str, np.ndarray]] = [("PIT", name, values) for name, values in pit.items()]
    size = sets // _PARTS
    for name, values in params.items():
        order = np.argsort(values, kind="stable")
        for part in range(_PARTS):
            # Equal sizes, so that one simulated band serves all; what is left over of a division is in no part.
            indices = order[part * size : (part + 1) * size]
            label = f"{name} {values[indices].min():.3g} to {values[indices].max():.3g}"
            for outcome, x in pit.items():
                cells.append(("coverage", label + f", {outcome}" * (len(pit) > 1), x[indices]))
    share = 1 - (1 - level) / (len(cells) + len(rollouts))
    rows: list[dict[str, Any]] = []
    for comparison, what, values in cells:
        result = uniformity(values, level=share)
        inside = {f"coverage_{100 * c:.0f}": float((np.abs(values - 0.5) <= c / 2).mean()) for c in _COVERAGES}
        rows.append(
            {"comparison": comparison, "what": what, **inside, "effect": math.nan, "p": result.p,
             "passed": result.passed}
        )  # fmt: skip
    for name, generated in rollouts.items():
        effect, p = _paired(simulated[name], generated)
        nothing = {f"coverage_{100 * c:.0f}": math.nan for c in _COVERAGES}
        rows.append(
            {"comparison": "rollouts", "what": name, **nothing, "effect": effect, "p": p, "passed": p >= 1 - share}
        )
    return rows


def _paired(simulated: np.ndarray, generated: np.ndarray) -> tuple[float, float]:
    """Mean difference in standard deviations, and p of a signed-rank test that the pairs are exchangeable."""
    from scipy.stats import wilcoxon

    known = np.isfinite(simulated) & np.isfinite(generated)
    difference = (simulated - generated)[known]
    if not np.any(difference):
        return 0.0, 1.0
    effect = float(difference.mean() / max(simulated[known].std(), 1e-30))
    # Differences of 0 count half for either side.
    return effect, float(wilcoxon(difference, zero_method="zsplit", method="approx").pvalue)
