"""Error and calibration of a network's likelihood against the simulator that it should be the likelihood of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from ppl_buffer.checks import check_flag, check_integer, check_seed
from ppl_buffer.diagnostics.bands import check_level, uniformity
from ppl_buffer.diagnostics.data_sets import DataSets
from ppl_buffer.diagnostics.dependence import dependence_statistics
from ppl_buffer.diagnostics.error import (
    LikelihoodTest,
    MeasuredError,
    check_tolerance,
    measure_error,
    simulators_log_likelihood,
)
from ppl_buffer.diagnostics.output import data_frame, panels
from ppl_buffer.diagnostics.paired import paired
from ppl_buffer.diagnostics.simulations import check_pair, sets_to_simulate, simulate_legal, trials_to_simulate
from ppl_buffer.diagnostics.statistics import Arrays, Statistic, outcome_statistics
from ppl_buffer.network.backend import Environment
from ppl_buffer.network.estimated_error import EstimatedError
from ppl_buffer.network.network import Network
from ppl_buffer.simulator import Simulator, WithEnvironment
from ppl_buffer.training.draws import draw_params

if TYPE_CHECKING:
    import pandas

# Equal parts of a parameter's distribution in which coverage is looked at.
_PARTS = 5
_COVERAGES = (0.5, 0.9)
# Data sets whose calibration is looked at, and for which there are rollouts, which cost most.
_MOST_CALIBRATED, _MOST_ROLLOUTS = 1000, 200
_NOTHING = {"nats": math.nan, **{f"coverage_{100 * c:.0f}": math.nan for c in _COVERAGES}, "effect": math.nan}


@dataclass(frozen=True, repr=False)
class LikelihoodCheck:
    """How a network's likelihood compares with its simulator. Made by `check_likelihood`.

    Attributes:
        params: dict name -> (sets,), what the data sets were simulated with.
        pit: dict outcome -> (sets, K), conditional distribution function at each simulated outcome, of at most 1,000
            data sets.
        simulated: dict statistic -> (sets,), of those of the simulator's data sets that rollouts were compared with.
        rollouts: dict statistic -> (sets,), of the network's own, at the same parameters and inputs; empty where they
            were not asked for.
        rows: the comparisons, as dicts; `table` has them as a table.
        level: probability that a perfect network passes.
        likelihood: whether an error of the likelihood shows, and how large it is.
        stated: what the network's record says of its error; None where nothing was measured.
        dropped: simulated data sets that were left out, since they held values that are not legal.
    """

    params: Arrays
    pit: Arrays
    simulated: Arrays
    rollouts: Arrays
    rows: list[dict[str, Any]]
    level: float
    likelihood: LikelihoodTest
    stated: EstimatedError | None
    dropped: int = 0

    def __repr__(self) -> str:
        return f"LikelihoodCheck({self.verdict})"

    @property
    def passed(self) -> bool:
        """Whether no comparison gave a difference that a perfect network would not show, or one that is tolerated."""
        return all(row["passed"] for row in self.rows)

    @property
    def error(self) -> MeasuredError:
        """In nats a trial: exact, or a lower bound where the simulator does not know its likelihood."""
        return self.likelihood.error

    @property
    def verdict(self) -> str:
        """Passed or failed, the error in nats a trial, and what failed."""
        failed = [f"{row['comparison']}: {row['what']}" for row in self.rows if not row["passed"]]
        words = [f"{'FAILED' if failed else 'passed'}; error: {self.likelihood.describe(self.level)}"]
        if self.stated is not None:
            words.append(f"the training's own estimate: {self.stated}")
        if failed:
            more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
            words.append(f"{len(failed)} of {len(self.rows)} comparisons fail ({', '.join(failed[:3])}{more})")
        return "; ".join(words)

    @property
    def table(self) -> pandas.DataFrame:
        """One row for each comparison.

        Columns: ``comparison`` ("error" that is known, or "residual", what the history predicts beyond the network;
        "PIT" of all trials, "coverage" in a part of a parameter's range, "rollouts" against the simulator), ``what``,
        ``nats`` (a trial: the error, or its lower bound), ``coverage_50`` and ``coverage_90`` (share of outcomes inside
        the network's central intervals), ``effect`` (mean difference between simulator and rollouts, in standard
        deviations of the simulator's), ``p`` (of the single comparison), ``passed`` (at the level that all share).
        """
        return data_frame(self.rows)

    def plot(self) -> Any:
        """Draw the error, the PIT of each outcome, coverage over the parameters' ranges, and effects; a figure."""
        calibration = [row for row in self.rows if row["comparison"] not in ("error", "residual")]
        share = 1 - (1 - self.level) / 2 / len(calibration)
        coverage = [row for row in self.rows if row["comparison"] == "coverage"]
        effects = [row for row in self.rows if row["comparison"] == "rollouts"]
        figure, axes = panels(1 + len(self.pit) + bool(coverage) + bool(effects), height=4.0)
        remaining = list(axes[0])
        self.likelihood.plot(remaining.pop(0), self.level, self.stated)
        for name, values in self.pit.items():
            panel = remaining.pop(0)
            uniformity(values, level=share).plot(panel)
            panel.set(title=f"PIT of {name}", xlabel="distribution function", ylabel="share below, minus uniform")
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
    sets: int = 3000,
    trials: int | None = None,
    context: int = 0,
    statistics: Mapping[str, Statistic] | None = None,
    rollouts: bool = True,
    environment: Environment | None = None,
    tolerance: float = 0.002,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> LikelihoodCheck:
    """Error and calibration of a network's likelihood, given all parameters, against fresh simulations.

    *Error*: where the simulator has a `log_likelihood`, the Kullback-Leibler divergence itself, in nats a trial, which
    may be `tolerance`. *Residual*, where it has none: whether any function of parameters, inputs and history (moving
    averages of what happened, what the network's heads read of each trial, and products) predicts outcomes better than
    the network; by how much, on data sets that it was not fitted on, is a lower bound of the error. A network that
    reads too little of the history is calibrated all the same, and this is what sees it.

    *PIT*: the conditional distribution functions at simulated outcomes (randomised for categories), of 1,000 data sets,
    are uniform and independent where the network is right. *Coverage*: the same within each fifth of each parameter's
    distribution. *Rollouts*: the network's own data sets against the simulator's at the same parameters and inputs, 200
    of them: a Wilcoxon signed-rank test of each statistic, and a regression of the differences on the parameters. The
    statistics: log density, by how much the likelihood prefers larger to smaller values of each parameter (most
    sensitive to a network that uses it wrongly), simple ones of the outcomes, how outcomes depend on earlier ones and
    on feedback, and `statistics`.

    Half of 1 - `level` goes to the error, half is divided among all other comparisons. More data sets find smaller
    errors: no network is perfect, and `error` says how far off one is.

    Args:
        net: a trained network of either backend.
        simulator: what it should be the likelihood of; see `ppl_buffer.Simulator`. Parameters come from its `prior`. Of
            a `ppl_buffer.StoredSimulations` the pairs that are held out serve.
        sets: number of data sets; of stored ones at most as many as are held out.
        trials: trials of each; by default 100, or as many as the training covered.
        context: points of each data set that are given as a context, beside the trials; exchangeable models only.
        statistics: name -> function of data sets, dict name -> (sets, K) of inputs, outcomes and feedback, that
            returns (sets,).
        rollouts: whether to compare rollouts.
        environment: gives feedback on the network's own outcomes, as for `JointPredictive`; by default the simulator's
            method of that name.
        tolerance: nats a trial that are no failure, where the simulator's log likelihood tells the error.
        level: probability that a perfect network passes.
        seed: of everything random.
        progress: show a progress bar.

    Returns:
        the check: `passed`, `error`, `table`, `plot()`.

    Raises:
        ValueError: if the network or the simulator is of observed data, the simulator's schema is not the network's,
            an argument does not fit, or rollouts need an environment and none is given.
    """
    check_pair(net, simulator)
    check_level(level)
    check_flag("rollouts", rollouts)
    seed, schema, tolerance = check_seed(seed), net.schema, check_tolerance(tolerance)
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
    sets = sets_to_simulate(simulator, sets, context + trials, 2 * _PARTS)
    rng = np.random.default_rng(seed)
    params, data, dropped = simulate_legal(simulator, rng, sets, context + trials, partial(draw_params, simulator))
    simulated = DataSets(
        net,
        params,
        {name: x[:, context:] for name, x in data.items()},
        {name: x[:, :context] for name, x in data.items()} if context else None,
    )
    uniform = rng.random((sets, trials, len(schema.outcomes)))
    compared = simulated.first(_MOST_ROLLOUTS)
    with tqdm(
        total=sets + 3 * rollouts * compared.shape[0], disable=not progress, unit="data set", desc="likelihood"
    ) as bar:
        lower, upper = simulated.bounds(bar.update)
        tested = measure_error(simulated, lower, upper, simulators_log_likelihood(simulator), tolerance)
        tables: tuple[Arrays, Arrays] = {}, {}
        if rollouts:
            generated = compared.generate(environment, seed)
            bar.update(compared.shape[0])
            tables = tuple(_statistics(x, statistics, bar.update) for x in (compared, generated))  # type: ignore
    pit = {name: lower[name] + uniform[..., i] * (upper[name] - lower[name]) for i, name in enumerate(schema.outcomes)}
    calibrated, pit = ({name: x[:_MOST_CALIBRATED] for name, x in part.items()} for part in (params, pit))
    rows = [
        {"comparison": comparison, "what": what, **_NOTHING, "nats": nats, "p": p, "passed": passed}
        for comparison, what, nats, p, passed in tested.rows(level)
    ]
    rows += _rows(calibrated, pit, *tables, (1 + level) / 2)
    part = "likelihood" if net.preferred_likelihood == "direct" else "buffer"
    stated = None if net.record is None else net.record.errors.get(part)
    return LikelihoodCheck(params, pit, *tables, rows, level, tested, stated, dropped)


def _statistics(sets: DataSets, more: Mapping[str, Statistic] | None, update: Callable[[int], Any]) -> Arrays:
    """All statistics that simulator and rollouts are compared by: name -> (sets,)."""
    schema = sets.net.schema
    simple = outcome_statistics(schema, sets.data, more)
    return {**sets.scores(update), **simple, **dependence_statistics(schema, sets.data)}


def _rows(params: Arrays, pit: Arrays, simulated: Arrays, rollouts: Arrays, level: float) -> list[dict[str, Any]]:
    """The comparisons of distribution functions and rollouts, at a level that all of them share."""
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
            {"comparison": comparison, "what": what, **_NOTHING, **inside, "p": result.p, "passed": result.passed}
        )  # fmt: skip
    for name, generated in rollouts.items():
        few = {param: x[: len(generated)] for param, x in params.items()}
        effect, p = paired(simulated[name], generated, few)
        rows.append(
            {"comparison": "rollouts", "what": name, **_NOTHING, "effect": effect, "p": p, "passed": p >= 1 - share}
        )
    return rows
