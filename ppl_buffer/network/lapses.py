"""How often a trial is a lapse, and what a lapse looks like, as users say it.

A lapse is a trial whose outcomes have nothing to do with the model: uniform over the values of a category or an
integer, or over a range, which is the schema's (`lapse_range`) unless the user states one for the data at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ppl_buffer.files import to_numpy
from ppl_buffer.findings import Finding, counted
from ppl_buffer.network.arguments import as_floating
from ppl_buffer.network.backend import Array, Named
from ppl_buffer.network.lapse_mixture import Ranges, lapse_ranges
from ppl_buffer.network.layout import broadcasts_to
from ppl_buffer.network.network import Network
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Discrete, Interval, Positive, Schema
from ppl_buffer.variables import checked_range

# Most people never lapse, or in one trial of a hundred.
RATE_PRIOR = Prior("Beta", {"concentration1": 1.0, "concentration0": 19.0})


@dataclass(frozen=True, eq=False)
class Lapse:
    """How often a trial is a lapse, and what a lapse looks like. Wherever a rate alone can be given, this can be.

    A range should hold whatever a lapse can do in the experiment: from 0 to the deadline, or to the slowest response.
    Over a range that is wider than that lapses cost the likelihood more than they should, and data sets that are drawn
    hold outcomes that nobody can have had.

    Args:
        rate: probability that a trial is a lapse, a number or (*B,). Or a `Prior` of it, on [0, 1]: then
            `ppl_buffer.workflow.fit` estimates the rate, and `log_evidence` and `compare` integrate over it. In a model
            of yours sample the rate, and give the sampled value.
        ranges: outcome -> (low, high), over which a lapse is uniform, in the outcome's units. For an outcome that is
            not named, the `lapse_range` of the schema counts.

    Raises:
        ValueError: if a range is no pair of finite numbers in order, or the prior has values beyond [0, 1].
    """

    rate: Array | Prior = RATE_PRIOR
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.ranges, Mapping):
            raise ValueError(f"ranges: expected a dict of outcome to (low, high), got {self.ranges!r}")
        ranges = {name: checked_range(f"ranges[{name!r}]", bounds) for name, bounds in self.ranges.items()}
        object.__setattr__(self, "ranges", ranges)
        if isinstance(self.rate, Prior):
            low, high = self.rate.cdf(np.array([-1e-12, 1.0]))
            if low > 0 or high < 1 - 1e-9 or self.rate.relative_to is not None:
                raise ValueError(f"rate: expected a probability, or a prior with all mass in [0, 1], got {self.rate!r}")

    @classmethod
    def of(cls, lapse: Array | Lapse | None) -> Lapse | None:
        """The same of a rate alone; None of None."""
        return lapse if lapse is None or isinstance(lapse, Lapse) else cls(lapse)

    @property
    def prior(self) -> Prior | None:
        """Prior of a rate that is to be estimated; None of one that is known."""
        return self.rate if isinstance(self.rate, Prior) else None

    def at(self, rate: Array) -> Lapse:
        """The same lapses at another rate."""
        return Lapse(rate, self.ranges)

    def of_data(self, schema: Schema, outcomes: Named, trial_mask: np.ndarray | None = None) -> Lapse:
        """The same with the range of the data for each continuous outcome that has none: up to the slowest response.

        An outcome above 0 counts from 0, one on an interval has all of it, a real number reaches from the lowest to the
        highest. Values that are missing (NaN, or infinity of a time) have no part in it: such a lapse omits nothing.

        Args:
            schema: of the data.
            outcomes: name -> (*B, K).
            trial_mask: (*B, K) bool, which trials exist; None = all.
        """
        ranges = {}
        for name, variable in schema.outcomes.items():
            if isinstance(variable, Discrete) or name in self.ranges:
                continue
            value = to_numpy(outcomes[name]).astype(float)
            seen = value if trial_mask is None else value[np.broadcast_to(to_numpy(trial_mask), value.shape)]
            seen = seen[np.isfinite(seen)]  # what was lost or omitted has no range
            if isinstance(variable, Interval):
                ranges[name] = (variable.low, variable.high)
            elif seen.size:
                ranges[name] = (0.0 if isinstance(variable, Positive) else float(seen.min()), float(seen.max()))
        return Lapse(self.rate, {**ranges, **self.ranges})

    def findings(self, schema: Schema, outcomes: Named, trial_mask: np.ndarray) -> list[Finding]:
        """What a user should know of the stated ranges: outcomes beyond them, which no lapse can explain.

        Args:
            schema: of the data.
            outcomes: name -> (*B, K).
            trial_mask: (*B, K) bool, which trials exist.
        """
        findings = []
        for name, (low, high) in lapse_ranges(schema, check_ranges(schema, self.ranges)).items():
            seen = to_numpy(outcomes[name])[trial_mask]
            seen = seen[np.isfinite(seen)]
            beyond = seen[(seen < low) | (seen > high)]
            if beyond.size:
                lie, they = ("lies", "it counts") if beyond.size == 1 else ("lie", "they count")
                text = (
                    f"lapse: {beyond.size} of {counted(seen.size, 'value')} of {name!r} {lie} outside [{low:g}, "
                    f"{high:g}], the range of a lapse (from {beyond.min():g} to {beyond.max():g}): {they} as "
                    "decisions, however unlikely. State a range that holds all that people can have done"
                )
                findings.append(Finding("lapse", text, parameter=name, share=beyond.size / seen.size))
        return findings


def checked_lapse(net: Network, lapse: Array | Lapse | None, batch: tuple[int, ...]) -> Lapse | None:
    """A user's lapses for data sets of batch shape *B, where a rate may have a prior.

    Raises:
        ValueError: as `check_lapse`, or if there are not as many rates as data sets.
    """
    given = Lapse.of(lapse)
    if given is None:
        return None
    if given.prior is not None:
        check_ranges(net.schema, given.ranges)
        return given
    rate, _ = check_lapse(net, given)
    if not broadcasts_to(tuple(rate.shape), batch):
        raise ValueError(f"lapse: expected one rate, or rates of shape {batch}, got shape {tuple(rate.shape)}")
    return given


def check_lapse(net: Network, lapse: Array | Lapse) -> tuple[Array, Ranges]:
    """A user's lapses as rates (*B,) of the backend, and the ranges that are not the schema's.

    Raises:
        ValueError: if the rate is no probability or still to be estimated, or a range does not fit its outcome or is
            missing.
    """
    given = lapse if isinstance(lapse, Lapse) else Lapse(lapse)
    if given.prior is not None:
        raise ValueError(
            "lapse: expected a known rate, got a prior; sample the rate in your model and write lapse=pb.Lapse(rate, "
            "ranges), or let ppl_buffer.workflow.fit estimate it"
        )
    ranges = check_ranges(net.schema, given.ranges)
    if isinstance(given.rate, (bool, np.bool_)):
        raise ValueError(f"lapse: expected a probability, got {given.rate}")
    rate = as_floating(net, "lapse", given.rate)
    known = net.ops.to_concrete(rate)
    if known is not None and not ((known >= 0) & (known <= 1)).all():
        raise ValueError(f"lapse: expected a probability, got {known!s}")
    return rate, ranges


def check_ranges(schema: Schema, ranges: Mapping[str, tuple[float, float]]) -> Ranges:
    """A user's ranges of lapses, those that are the schema's own left out.

    Raises:
        ValueError: if a name is no continuous outcome, a range holds values that the outcome cannot take, or an outcome
            has no range at all.
    """
    continuous = {name: x for name, x in schema.outcomes.items() if not isinstance(x, Discrete)}
    for name, (low, high) in ranges.items():
        variable = continuous.get(name)
        if variable is None:
            raise ValueError(f"lapse: expected ranges of the continuous outcomes {list(continuous)}, got {name!r}")
        outside = isinstance(variable, Positive) and low < 0
        if isinstance(variable, Interval):
            outside = low < variable.low or high > variable.high
        if outside:
            raise ValueError(f"lapse: expected a range of {variable.description} for {name!r}, got ({low}, {high})")
    for name, variable in continuous.items():
        if name not in ranges and variable.lapse_range is None:
            raise ValueError(
                f"lapse: expected every outcome to state the range of a lapse, but {name!r} has none; write "
                f"pb.Lapse(rate, ranges={{{name!r}: (low, high)}})"
            )
    stated = lapse_ranges(schema)
    return tuple((name, *bounds) for name, bounds in ranges.items() if stated.get(name) != bounds)


def may_be_lapses(schema: Schema, name: str, value: np.ndarray, lapse: Lapse | None) -> np.ndarray:
    """Which values of a continuous outcome a lapse may be: boolean array.

    Args:
        schema: of the data.
        name: of the outcome.
        value: (*B, K).
        lapse: the user's, or None; its rate a number, (*B,) or a prior.
    """
    value = np.asarray(value)
    possible = np.zeros(value.shape, dtype=bool)
    if schema.lapse_rate:
        low, high = lapse_ranges(schema)[name]
        possible |= (value >= low) & (value <= high)
    if lapse is not None:
        low, high = lapse_ranges(schema, check_ranges(schema, lapse.ranges))[name]
        happens = np.asarray(lapse.prior is not None or to_numpy(lapse.rate) > 0)
        possible |= (value >= low) & (value <= high) & happens[..., None]
    return possible
