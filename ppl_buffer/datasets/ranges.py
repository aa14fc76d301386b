"""Values of a table against those that a network was trained on, a subject at a time: units, codes, sentinels."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ppl_buffer.datasets.cells import short
from ppl_buffer.datasets.columns import TableColumn, listed, recode_option
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.network.network import Network
from ppl_buffer.network.ranges import FEW, ValueRange, ranges_of
from ppl_buffer.network.unfamiliar import Unfamiliar, find_unfamiliar
from ppl_buffer.schema import Categorical, Positive, Schema
from ppl_buffer.simulator import Simulator
from ppl_buffer.training.abilities import check_simulator
from ppl_buffer.training.draws import draw_together

OUTSIDE = ("error", "warn", "ignore")
# Standard deviations of the training's distribution (of a logarithm) that count as trained where no more is known.
_FAR = 4.0
# Data sets of a simulator that stand in for what a network's record does not say, and their trials.
_DATA_SETS, _TRIALS = 100, 50


def check_ranges(
    columns: Mapping[str, TableColumn],
    values: Mapping[str, np.ndarray],
    net: Network,
    scale: Mapping[str, float],
    simulator: Simulator | None = None,
    outside: str = "error",
) -> None:
    """Refuse what can hardly be data, and warn of what lies outside the trained range.

    Args:
        columns: variable -> its column.
        values: variable -> (rows,), checked numbers.
        net: the network, whose record says what it was trained on.
        scale: variable -> factor that the numbers were multiplied by.
        simulator: what it was trained on, for networks whose record does not say it.
        outside: "error", "warn" (of mistakes as well) or "ignore".

    Raises:
        ValueError: if the values of a subject have another unit or another code than the network's, look like a code
            for a missing value, or lie far outside of all that it was trained on. The message says what to write.
    """
    ranges = {} if outside == "ignore" else _trained_ranges(net, simulator)
    if not ranges:
        return
    labels = next(iter(columns.values())).subject
    names, subject = np.unique(labels, return_inverse=True)
    places = np.argsort(subject, kind="stable")
    counts = np.bincount(subject)
    trial = np.empty(len(subject), dtype=int)
    trial[places] = np.arange(len(subject)) - np.repeat(np.cumsum(counts) - counts, counts)
    exists = np.arange(counts.max()) < counts[:, None]
    padded = {name: np.full(exists.shape, np.nan) for name in values}
    for name, numbers in values.items():
        padded[name][subject, trial] = numbers
    for one in find_unfamiliar(net.schema, ranges, padded, exists):
        rows = one.where[subject, trial]
        whose = [str(names[index]) for index in one.data_sets]
        text = _message(one, columns[one.name], values[one.name], rows, whose, scale.get(one.name))
        if one.plain and outside == "error":
            raise ValueError(text)
        warn_of(Finding("outside_range", text, parameter=one.name, share=float(rows.mean())), stacklevel=3)


def _trained_ranges(net: Network, simulator: Simulator | None) -> Mapping[str, ValueRange]:
    """What the network's record says, or else its simulator, or else the scale of positive variables."""
    ranges = {} if net.record is None else net.record.familiar(net.preferred_likelihood == "direct")
    if ranges:
        return ranges
    schema = net.schema
    if simulator is not None:
        check_simulator(simulator)
        rng = np.random.default_rng(0)
        _, data = draw_together(simulator, rng, _DATA_SETS, _TRIALS)
        return ranges_of(schema, data)
    return _ranges_of_scales(schema, net.standardization)


def _ranges_of_scales(schema: Schema, scales: Mapping[str, tuple[float, float]]) -> dict[str, ValueRange]:
    """Ranges of positive variables from the mean and standard deviation of their logarithm."""
    ranges = {}
    for name, variable in {**schema.inputs, **schema.outcomes, **schema.feedback}.items():
        if isinstance(variable, Positive) and name in scales:
            mean, std = scales[name]
            ends = math.exp(mean - _FAR * std), math.exp(mean + _FAR * std)
            ranges[name] = ValueRange(*ends, ((0.5, math.exp(mean)),), medians=ends, spreads=(0.0, ends[1]))
    return ranges


def _message(
    one: Unfamiliar,
    column: TableColumn,
    values: np.ndarray,
    rows: np.ndarray,
    whose: list[str],
    scale: float | None,
) -> str:
    """What is wrong in which rows of whom, and what to write."""
    everybody = len(whose) == len(set(column.subject))
    who = "" if everybody else f" of subject{'s' * (len(whose) > 1)} {', '.join(whose[:5])}"
    who += " and others" if len(whose) > 5 and not everybody else ""
    trained = f"the model was trained on {one.trained}"
    where = column.table.where(rows)
    if one.cause == "code":
        return f"{column.title}{who} {_codes(one, column, values, rows)}"
    if one.cause == "missing":
        codes = " and ".join(f"{value:g}" for value in one.values[:2])
        return (
            f"{column.title} is {codes} in {where} (subject {', '.join(whose[:3])}), and {trained}: this looks like "
            "a code for a missed response or a missing value. Delete these rows, or fill in what happened"
            f"{column.kept_by(f'{one.values[0]:g}')}"
        )
    if one.cause == "unit":
        middle = f"{column.title}{who} has a median of {np.median(values[rows]):.4g}, while {trained}"
        if one.factor is None:
            return f"{middle}: check the unit (pixels, say), and convert it by --scale {one.name}=FACTOR"
        if scale is not None and math.isclose(scale * one.factor, 1):
            return f"{middle}: leave out --scale {one.name}={scale:g}"
        unit = f"these look like {one.unit}"
        if rows.all():
            return f"{middle}: {unit}; write: --scale {one.name}={one.factor * (scale or 1):.6g}"
        return f"{middle}: {unit}. Multiply them by {one.factor:.6g} in the table, in {where}"
    mild = "" if one.plain else "; predictions there are extrapolations"
    some = ", ".join(f"{value:g}" for value in one.values[:3])
    text = f"{column.title}{who} is {some} in {where}, outside of what {trained.removeprefix('the ')}{mild}"
    return f"{text}: check these values, and the unit; --outside warn reads them all the same" if one.plain else text


def _codes(one: Unfamiliar, column: TableColumn, values: np.ndarray, rows: np.ndarray) -> str:
    """What to do about a variable that holds other values than the few of training."""
    known = [value for value, share in zip(one.seen.values, one.seen.shares, strict=True) if share > 0]
    theirs = np.isin(column.subject, np.unique(column.subject[rows]))
    cells = [short(cell) for cell in column.cells]
    texts = {value: cell for value, cell in sorted(zip(values[theirs].tolist(), np.array(cells)[theirs], strict=True))}
    message = (
        f"holds {listed(list(texts.values())[:8])}, but the model was trained with "
        f"{listed(f'{value:g}' for value in known)} alone and knows nothing of other values"
    )
    if len(texts) > FEW:
        return f"{message}. Is it the right model? It needs one that was trained on such values"
    others = {value: cell for value, cell in zip(values[~theirs].tolist(), np.array(cells)[~theirs], strict=True)}
    if isinstance(column.variable, Categorical):
        return f"{message}; write: {recode_option(one.name, {next(iter(texts.values())): '...'})}"
    if len(texts) != len(known):
        codes = {cell: f"{value:g}" if value in known else "..." for value, cell in texts.items()}
    else:
        codes = {cell: f"{value:g}" for cell, value in zip(texts.values(), known, strict=True)}
    if any(codes.get(cell, f"{value:g}") != f"{value:g}" for value, cell in others.items()):
        return (
            f"{message}, and others have {listed(sorted(others.values()))}. Write the same code for all into the table"
        )
    codes |= {cell: f"{value:g}" for value, cell in sorted(others.items())}
    return f"{message}; write: {recode_option(one.name, codes)}"
