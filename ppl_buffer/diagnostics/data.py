"""Observed data against data sets that the fitted model generates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_buffer.checks import check_integer
from ppl_buffer.datasets.trials import TrialData
from ppl_buffer.diagnostics.bands import check_level
from ppl_buffer.diagnostics.conditions import Condition, condition_curves
from ppl_buffer.diagnostics.curves import Curve, outcome_curves
from ppl_buffer.diagnostics.omissions import (
    complete_trials,
    follows_losses,
    lose_alike,
    take_omissions,
)
from ppl_buffer.diagnostics.output import data_frame, panels
from ppl_buffer.diagnostics.ranges import draws_of_params
from ppl_buffer.diagnostics.statistics import Arrays, Statistic, outcome_statistics
from ppl_buffer.files import to_numpy
from ppl_buffer.findings import Finding, counted, warn_of
from ppl_buffer.inference.chunks import map_chunks
from ppl_buffer.inference.draws import by_variation
from ppl_buffer.inference.simulation import Simulated, posterior_predictive
from ppl_buffer.network.backend import Array, Environment
from ppl_buffer.network.lapses import Lapse, check_lapse
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.plots.categories import Words
from ppl_buffer.predictive import density
from ppl_buffer.predictive.program import in_one_program
from ppl_buffer.predictive.query import Query
from ppl_buffer.schema import Schema, split_value

if TYPE_CHECKING:
    import pandas

# Trials that are scored at once.
_TRIALS_AT_ONCE = 200_000


@dataclass(frozen=True)
class DataCheck:
    """Observed data among data sets that the fitted model generates. Made by `check_data`.

    Attributes:
        observed: dict statistic -> (draws, subjects), of the observed data at each draw.
        replicated: dict statistic -> (draws, subjects), of data sets generated at each draw.
        level: probability below which a posterior predictive p-value is called extreme is one minus this.
        curves: dict name -> what a picture shows of all people together (learning curves, quantiles, lags), judged by
            a simultaneous band: so many whole curves of generated data sets stay inside.
    """

    observed: Arrays
    replicated: Arrays
    level: float
    curves: dict[str, Curve] = field(default_factory=dict)

    def p_values(self, name: str) -> np.ndarray:
        """(subjects,), share of draws at which the generated data sets have at least the observed value of a statistic.

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
            if not known.any():
                # Nobody has the trials that it asks for.
                continue
            every = (observed[:, known].mean(1), replicated[:, known].mean(1))
            p = float(_exceeds(*(x[:, None] for x in every))[0])
            single = self.p_values(name)[known]
            beyond = int(((single < tail) | (single > 1 - tail)).sum())
            # Everybody together by the statistic's mean, and subjects one by one by how many are extreme.
            most = int(binom.ppf(0.99, known.sum(), 1 - self.level)) if known.sum() > 1 else int(known.sum())
            rows.append(
                {
                    "statistic": name,
                    "where": "",
                    "observed": float(every[0].mean()),
                    "generated": float(every[1].mean()),
                    "low": float(np.quantile(every[1], tail)),
                    "high": float(np.quantile(every[1], 1 - tail)),
                    "p": p,
                    "subjects": int(known.sum()),
                    "subjects_extreme": beyond,
                    "passed": bool(tail <= p <= 1 - tail and beyond <= most),
                }
            )
        return rows + [self._row_of_curve(name, curve) for name, curve in self.curves.items()]

    def _row_of_curve(self, name: str, curve: Curve) -> dict[str, Any]:
        """A curve's row: its point that lies farthest out, and what the whole curve is worth."""
        band = curve.envelope
        numbers = {
            "observed": curve.observed, "generated": band.middle, "low": band.low, "high": band.high
        }  # fmt: skip
        return {
            "statistic": name,
            "where": curve.points[band.worst],
            **{column: float(x[band.worst]) for column, x in numbers.items()},
            "p": band.p,
            "subjects": next((x.shape[-1] for x in self.observed.values()), 0),
            "subjects_extreme": math.nan,
            "passed": band.p > 1 - self.level,
        }

    @property
    def table(self) -> pandas.DataFrame:
        """One row for each statistic.

        Columns: ``observed`` and ``generated`` (mean over subjects and draws), ``low`` and ``high`` (central interval
        of what is generated), ``p`` (posterior predictive p-value of the mean over subjects), ``subjects``,
        ``subjects_extreme`` (how many have an extreme p-value of their own), ``passed``. Of a curve the numbers are
        those of the point that lies farthest out, ``where``; ``low`` and ``high`` are its simultaneous band, ``p`` is
        the share of generated curves that leave their middle as far anywhere, and people are not judged one by one.
        """
        return data_frame(self.rows)

    @property
    def passed(self) -> bool:
        """Whether the data look like the model's by every statistic."""
        return all(row["passed"] for row in self.rows)

    @property
    def findings(self) -> list[Finding]:
        """What the fitted model does not generate: a record for each statistic that fails."""
        return [_finding(row) for row in self.rows if not row["passed"]]

    def plot(self) -> Any:
        """Draw subjects' statistics against what the model generates, and curves with their bands; a figure."""
        count = len(self.observed) + len(self.curves)
        columns = min(3, count)
        figure, axes = panels(columns, math.ceil(count / columns))
        for panel in axes.flat[count:]:
            panel.set_axis_off()
        tail = (1 - self.level) / 2
        for panel, row in zip(axes.flat, self.rows, strict=False):
            name = row["statistic"]
            panel.set_title(f"{name} (p = {row['p']:.2f})")
            if name in self.curves:
                self.curves[name].plot(panel)
                continue
            middle = np.median(self.replicated[name], 0)
            low, high = np.quantile(self.replicated[name], [tail, 1 - tail], axis=0)
            observed = self.observed[name].mean(0)
            panel.errorbar(
                observed, middle, yerr=np.maximum([middle - low, high - middle], 0), fmt=".", color="C0", lw=0.8
            )
            panel.axline((float(np.mean(observed)),) * 2, slope=1, color="0.5", linewidth=0.8)
            panel.set(xlabel="observed", ylabel="generated")
        return figure


def _exceeds(observed: np.ndarray, replicated: np.ndarray) -> np.ndarray:
    return ((replicated > observed) + 0.5 * (replicated == observed)).mean(0)


def check_data(
    net: Network,
    data: ObservedTrials | TrialData,
    posterior: Any,
    *,
    statistics: Mapping[str, Statistic] | None = None,
    environment: Environment | None = None,
    lapse: Array | Lapse | None = None,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> DataCheck:
    """Compare observed data with data sets that the network generates at posterior draws: posterior predictive checks.

    The statistics are the log density (a discrepancy: of observed and generated data at the same draw), simple ones of
    the outcomes, the user's, and the curves that the field's pictures show: learning curves by cue and the first
    trials, quantiles, lags. A posterior predictive p-value near 0 or 1 says that the model does not generate such
    data. The data were used to fit, so that the values lie nearer to 1/2 than uniform ones: a pass proves little, an
    extreme one much. Where the data were observed with a deadline the generated ones have it too, and the share of
    omissions is a statistic; what was lost of an observed trial is left out of a generated one.

    Args:
        net: a trained network of either backend.
        data: what ``net.observe(...)`` returned, one batch dimension, the subjects; or the trials of `read_trials`, by
            whose table categories are then called (``share of choice = right``).
        posterior: draws of all parameters of each subject, in natural units: dict name -> (draws, subjects), or
            (draws, subjects, K) of those that vary by trial; or what ArviZ holds.
        statistics: name -> function of data sets, dict name -> (*draws, subjects, K) of inputs, outcomes and feedback,
            NaN where there is no trial, no response or a value that was lost, that returns (*draws, subjects).
        environment: gives feedback on generated outcomes, as for `JointPredictive`.
        lapse: the lapses that were fitted: their rate, a number, (subjects,), or (draws, subjects) as in the posterior;
            or a `ppl_buffer.Lapse` of such a rate.
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
    words = data.words if isinstance(data, TrialData) else None
    data = data.observe(net) if isinstance(data, TrialData) else data
    if not isinstance(data, ObservedTrials) or len(data.batch_shape) != 1:
        raise ValueError("data: expected what net.observe(...) returned of trials (subjects, K), or a TrialData")
    check_level(level)
    params, index, total = _posterior_params(net, data, posterior, check_integer("draws", draws))
    lapses, rates = Lapse.of(lapse), None
    if lapses is not None:
        rates = to_numpy(check_lapse(net, lapses)[0])
        subjects = data.batch_shape[0]
        if rates.shape not in ((), (subjects,), (total, subjects)):
            raise ValueError(
                f"lapse: expected a rate, ({subjects},) or ({total}, {subjects}) of them, got shape {rates.shape}"
            )
        rates = rates[index] if rates.ndim == 2 else np.broadcast_to(rates, next(iter(params.values())).shape[:2])
        lapses = lapses.at(rates)
    generated = _generate(net, data, params, environment=environment, lapse=lapses, seed=seed, progress=progress)
    log_densities = _log_densities(net, data, params, lapses, rates)
    return compare_data(net.schema, data, generated, log_densities, statistics=statistics, level=level, words=words)


def compare_data(
    schema: Schema,
    data: ObservedTrials,
    generated: Simulated,
    log_densities: np.ndarray,
    *,
    statistics: Mapping[str, Statistic] | None = None,
    conditions: Mapping[str, Condition] | None = None,
    level: float = 0.95,
    words: Words | None = None,
) -> DataCheck:
    """`check_data` for whoever has the generated data sets.

    Args:
        schema: of the network.
        data: what was observed; one batch dimension, the subjects.
        generated: data sets (draws, subjects, K).
        log_densities: of the observed trials of which nothing was lost (`complete_trials`), (draws, subjects), at the
            same draws.
        statistics: see `check_data`.
        conditions: name -> levels, by which the pictures' curves are compared too.
        level: see `check_data`.
        words: of categories, by which statistics and curves are then called.
    """
    observed, replicated = _outcomes(schema, data, generated)
    omissions = take_omissions(data, observed), take_omissions(data, replicated)
    shape = generated.log_prob.shape[:2]
    seen = {**omissions[0], **outcome_statistics(schema, observed, statistics, words)}
    repeated = {name: np.broadcast_to(x, shape) for name, x in seen.items()}
    again = np.nansum(np.where(complete_trials(schema, data), generated.log_prob, np.nan), -1)
    # Generated trials know all of their past: their densities are others where the observed ones do not.
    densities = [{}, {}] if follows_losses(schema, data) else [{"log density": x} for x in (log_densities, again)]
    check = DataCheck(
        {**densities[0], **repeated},
        {**densities[1], **omissions[1], **outcome_statistics(schema, replicated, statistics, words)},
        level,
        outcome_curves(schema, observed, replicated, level, words)
        | condition_curves(schema, observed, replicated, conditions or {}, level, words),
    )
    for finding in check.findings:
        warn_of(finding)
    return check


def _posterior_params(net: Network, data: ObservedTrials, posterior: Any, most: int) -> tuple[Arrays, np.ndarray, int]:
    """At most so many draws of every parameter, name -> (draws, subjects[, K]); which they are, and of how many."""
    subjects = data.batch_shape[0]
    draws = draws_of_params(net, posterior)
    missing = [name for name in net.schema.params if name not in draws]
    if missing:
        raise ValueError(f"posterior: expected draws of {list(net.schema.params)}, but {missing} are missing")
    total = len(next(iter(draws.values())))
    legal = ((total, subjects), (total, subjects, data.trials))
    wrong = {name: x.shape for name, x in draws.items() if x.shape not in legal}
    if wrong:
        raise ValueError(f"posterior: expected shapes ({total}, {subjects}), draws and subjects, got {wrong}")
    index = np.linspace(0, total - 1, min(most, total)).astype(int)
    return {name: x[index].astype(np.float32) for name, x in draws.items()}, index, total


def _generate(
    net: Network,
    data: ObservedTrials,
    params: Arrays,
    *,
    environment: Environment | None,
    lapse: Lapse | None,
    seed: int,
    progress: bool,
) -> Simulated:
    """Data sets at draws of the parameters, (draws, subjects, K)."""
    stays, varies = by_variation(params)
    return posterior_predictive(
        net, data, stays, trial_params=varies, environment=environment, lapse=lapse, seed=seed, progress=progress
    )


def _outcomes(schema: Schema, data: ObservedTrials, generated: Simulated) -> tuple[Arrays, Arrays]:
    """Observed (subjects, K) and generated (draws, subjects, K) trials by name, NaN where there is no trial."""
    exists = to_numpy(data.trial_mask)

    def blank(values: Mapping[str, Array]) -> Arrays:
        return {name: np.where(exists, np.asarray(to_numpy(x), dtype=float), np.nan) for name, x in values.items()}

    inputs = blank(data.inputs)
    observed = {**inputs, **blank(split_value(schema, data.value)), **blank(data.feedback)}
    repeated = {name: np.broadcast_to(x, generated.log_prob.shape) for name, x in inputs.items()}
    again = {**split_value(schema, generated.value), **generated.feedback}
    return observed, {**repeated, **(again if data.missing is None else lose_alike(schema, data, again))}


def _log_densities(
    net: Network, data: ObservedTrials, params: Arrays, lapse: Lapse | None, rates: np.ndarray | None
) -> np.ndarray:
    """Log density of the observed trials of which nothing was lost, at each draw: (draws, subjects)."""
    complete = complete_trials(net.schema, data)
    count, subjects = next(iter(params.values())).shape[:2]

    def of_chunk(indices: np.ndarray) -> np.ndarray:
        part = {name: x[indices] for name, x in params.items()}
        there = None if lapse is None or rates is None else lapse.at(rates[indices])
        stays, varies = by_variation(part)
        query = Query.build(net, data, params=stays, trial_params=varies, lapse=there, outside="ignore", expand=False)
        reuse = query.matches(data.value)
        if complete.all():
            return to_numpy(in_one_program(density.log_prob, query, data.value, reuse=reuse))
        each = to_numpy(in_one_program(density.conditionals, query, data.value, reuse=reuse))
        return np.where(complete, each, 0.0).sum(-1)

    return map_chunks(of_chunk, count, min(count, max(1, _TRIALS_AT_ONCE // (subjects * data.trials))))


def _finding(row: Mapping[str, Any]) -> Finding:
    """What to say of a statistic that fails, by its row of the table."""
    of_curve = bool(row["where"])
    place = f" at {row['where']}" if of_curve else ""
    who = (
        f"p = {row['p']:.3f} of the whole curve"
        if of_curve
        else f"p = {row['p']:.3f}; extreme for {row['subjects_extreme']} of {counted(row['subjects'], 'person')}"
    )
    text = (
        f"check_data: {row['statistic']!r} is {row['observed']:.4g} in the data{place}, and "
        f"{row['low']:.4g} to {row['high']:.4g} in what the fitted model generates ({who}): the data lie outside what "
        "the model can do. Look at plot(), and at the data for mistakes of coding; then extend the model (a lapse, "
        "another parameter)"
    )
    share = None if of_curve or not row["subjects"] else row["subjects_extreme"] / row["subjects"]
    return Finding("data", text, parameter=row["statistic"], share=share)
