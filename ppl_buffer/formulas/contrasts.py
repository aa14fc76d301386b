"""Coefficients in natural units: means of groups and conditions, and differences between them, at posterior draws."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ppl_buffer.files import to_numpy
from ppl_buffer.formulas.terms import Design, ParameterDesign
from ppl_buffer.network.box import trained_range
from ppl_buffer.network.network import Network

# A covariate with more levels is not compared level by level; of up to so many all pairs are.
_MOST_LEVELS, _ALL_PAIRS = 12, 4
# Numbers that are computed at once.
_AT_ONCE = 2_000_000


@dataclass(frozen=True, eq=False)
class Effects:
    """What a formula says of one parameter, at D draws.

    Attributes:
        coefficients: label -> (D,), on the real line that is mapped into the trained range.
        means: label -> (D,), natural units: the median subject's parameter where a covariate has one value in all
            trials and the others have those that they have, averaged over data sets.
        contrasts: label -> (D,), differences of such means.
    """

    coefficients: dict[str, np.ndarray]
    means: dict[str, np.ndarray]
    contrasts: dict[str, np.ndarray]


def effects(net: Network, design: Design, name: str, draws: Mapping[str, np.ndarray]) -> Effects:
    """Coefficients of a parameter, and what they mean in its own units.

    Of a covariate that is a number, other than 0 and 1 or two numbers, one standard deviation above and one below the
    mean are compared.

    Args:
        net: a trained network.
        design: what `design` made.
        name: of a parameter with a formula.
        draws: site -> (D, ...), of coefficients, and ``{origin}_group`` of a parameter that this one counts from.

    Raises:
        ValueError: if the design has no such parameter.
    """
    if name not in design.parameters:
        raise ValueError(f"name: expected one of {list(design.parameters)}, got {name!r}")
    one = design.parameters[name]
    coefficients: dict[str, np.ndarray] = {}
    for site in one.sites:
        flat = draws[site.name].reshape(len(draws[site.name]), -1)
        labels = [f"{site.name}[{label}]" for label in site.labels] or [site.name]
        coefficients |= dict(zip(labels, flat.T, strict=True))
    if name not in net.schema.params or not one.variables:
        return Effects(coefficients, {}, {})
    scale = _Natural(net, design, one, draws)
    means: dict[str, np.ndarray] = {}
    contrasts: dict[str, np.ndarray] = {}
    levels = {variable: _levels(values, one.shares) for variable, values in one.variables.items()}
    for variable, values in levels.items():
        theirs = {level: scale.mean({variable: level}) for level in values}
        means |= {f"{variable} = {_text(level)}": x for level, x in theirs.items()}
        contrasts |= _differences(variable, theirs)
    for left, right in _interactions(one, levels):
        joint = {(x, y): scale.mean({left: x, right: y}) for x in levels[left] for y in levels[right]}
        means |= {f"{left} = {_text(x)} ({right} = {_text(y)})": values for (x, y), values in joint.items()}
        for y in levels[right]:
            within = _differences(left, {x: joint[x, y] for x in levels[left]})
            contrasts |= {f"{label} ({right} = {_text(y)})": values for label, values in within.items()}
        for x in levels[left]:
            within = _differences(right, {y: joint[x, y] for y in levels[right]})
            contrasts |= {f"{label} ({left} = {_text(x)})": values for label, values in within.items()}
    return Effects(coefficients, means, contrasts)


class _Natural:
    """Means in natural units.

    Args:
        net: a trained network.
        design: of all parameters.
        one: of the parameter.
        draws: site -> (D, ...).
    """

    def __init__(self, net: Network, design: Design, one: ParameterDesign, draws: Mapping[str, np.ndarray]) -> None:
        self.net, self.one = net, one
        flat = [np.asarray(draws[site.name], float).reshape(len(draws[site.name]), -1) for site in one.sites]
        self.coefficients = np.concatenate(flat, 1)
        self.given: dict[str, np.ndarray] = {}
        origin = trained_range(net, one.name)[2]
        if origin is not None:
            value = design.fixed.get(origin, None)
            known = draws[f"{origin}_group"] if value is None else np.full(len(self.coefficients), value)
            self.given = {origin: np.asarray(known, np.float32)[:, None]}

    def mean(self, setting: Mapping[str, object]) -> np.ndarray:
        """The mean over the table's rows where some variables have these values, (D,)."""
        variables = dict(self.one.variables)
        for name, value in setting.items():
            variables[name] = np.full(len(self.one.shares), value, dtype=variables[name].dtype)
        columns = self.one.evaluate(variables) - self.one.centres
        columns, row = np.unique(columns, axis=0, return_inverse=True)
        shares = np.bincount(row.reshape(-1), self.one.shares)
        total, size = np.zeros(len(self.coefficients)), max(1, _AT_ONCE // len(self.coefficients))
        for start in range(0, len(columns), size):
            real = self.coefficients @ columns[start : start + size].T
            values = self.net.into_box(self.one.name, real.astype(np.float32), self.given or None)
            total += to_numpy(values) @ shares[start : start + size]
        return total


def _levels(values: np.ndarray, shares: np.ndarray) -> list[object]:
    """The values of a covariate that are compared."""
    different = np.unique(values)
    if len(different) <= 2 or (values.dtype.kind == "U" and len(different) <= _MOST_LEVELS):
        return list(different.tolist())
    if values.dtype.kind == "U":
        return []
    mean = float(shares @ values)
    spread = float(np.sqrt(shares @ (values - mean) ** 2))
    return [mean - spread, mean + spread]


def _differences(variable: str, means: Mapping[object, np.ndarray]) -> dict[str, np.ndarray]:
    """Differences between levels: of all pairs, or of many levels from the first one."""
    pairs: Sequence[tuple[object, object]] = list(itertools.combinations(means, 2))
    if len(means) > _ALL_PAIRS:
        pairs = pairs[: len(means) - 1]
    return {f"{variable}: {_text(more)} - {_subtracted(less)}": means[more] - means[less] for less, more in pairs}


def _interactions(one: ParameterDesign, levels: Mapping[str, list[object]]) -> list[tuple[str, str]]:
    """Pairs of variables that a term joins, both of which are compared."""
    pairs = []
    for left, right in itertools.combinations(levels, 2):
        joined = any(_joins(site.name.partition("~")[2], left, right) for site in one.sites)
        few = len(levels[left]) * len(levels[right])
        if joined and 0 < few <= _MOST_LEVELS:
            pairs.append((left, right))
    return pairs


def _joins(term: str, left: str, right: str) -> bool:
    """Whether a term is of two variables: ``a:b``, whatever is called on them."""
    parts = term.split(":")
    return any(left in part for part in parts) and any(right in part for part in parts) and len(parts) > 1


def _text(level: object) -> str:
    return f"{level:.3g}" if isinstance(level, float) else str(level)


def _subtracted(level: object) -> str:
    """A level after a minus: one that is negative stands in brackets."""
    text = _text(level)
    return f"({text})" if text.startswith("-") else text
