"""Trials of which some outcomes are missing, as events: their log probabilities and distribution functions.

Of a trial y with choices c and a time t, p(c, t) = p(c) p(t | c), what is seen may be less than y:

    a choice whose time was lost       p(c) P(t <= d | c)
    a time whose choice was lost       sum over c of p(c) p(t | c)
    an omission before a deadline d    sum over c of p(c) P(t > d | c)
    a choice w that was withheld       p(w) + sum over the other c of p(c) P(t > d | c)

with d infinite where there is no deadline (Tobin 1958, Econometrica 26, 24-36, for censored times; Gomez, Ratcliff &
Perea 2007, J Exp Psychol General 136, 389-413, for choices that are withheld). Sums run over all outcomes that are
discrete and come before others; what comes last, or is followed by lost outcomes alone, integrates to 1. Lapses are
mixed in as events of their own.

Written once, over the array operations of either backend; arrays are (B, R, T), as in `ppl_buffer.network.heads`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from ppl_buffer.network.backend import Array, ArrayOps, Named
from ppl_buffer.network.heads import head, outcome_cdf, outcome_log_prob, outcome_log_tail, value_log_probs
from ppl_buffer.network.lapse_mixture import LapseComponent, LapseMixture, lapse_components, mix
from ppl_buffer.network.missing import summed_outcomes
from ppl_buffer.network.missing_rule import MissingRule
from ppl_buffer.network.parts import Part
from ppl_buffer.schema import Discrete, Schema


@dataclass(frozen=True)
class TrialEvents:
    """What is missing of trials, beside their outcomes, which hold legal numbers in its place.

    Attributes:
        rule: what missing answers mean.
        lost: dict outcome -> (B, r, T) bool, NaN in the value; all but the time where a response was omitted.
        omitted: (B, r, T) bool, no response before the deadline; None without one.
        deadline: (B, r, T or 1), infinite where there is none; None without one.
    """

    rule: MissingRule
    lost: Named
    omitted: Array | None
    deadline: Array | None


@dataclass(frozen=True)
class _Path:
    """Values of the summed outcomes, and what else the outcomes after them are conditioned on.

    Attributes:
        codes: value of each summed outcome so far.
        earlier: all outcomes so far, (B, R, T) each.
        log_prob: (B, R, T), log probability of what was seen of them, with these values.
    """

    codes: dict[str, int]
    earlier: Named
    log_prob: Array

    def is_withheld(self, rule: MissingRule) -> bool:
        """Whether nobody would see a response with these values."""
        return rule.withheld is not None and self.codes.get(rule.withheld[0]) == rule.withheld[1]


def event_log_prob(
    net: Part,
    representation: Array,
    outcomes: Mapping[str, Array],
    events: TrialEvents,
    lapse: LapseMixture | None = None,
) -> Array:
    """Log probability (B, R, T) of what was seen of each trial; a density of the continuous outcomes among it.

    Args:
        net: the part of the network.
        representation: (B, R, T, W), or T = 1 where trials do not differ.
        outcomes: dict name -> (B, r, T).
        events: what is missing of them.
        lapse: the whole trial may be a lapse, at a rate that broadcasts against (B, R, T).
    """
    paths = [_Path({}, {}, net.ops.zeros(net, ()))]
    for name in net.schema.outcomes:
        paths = [longer for path in paths for longer in _extended(net, representation, outcomes, events, path, name)]
    total = _log_sum(net.ops, [path.log_prob for path in paths])
    for component in lapse_components(net, lapse):
        total = mix(net.ops, total, _lapse_log_prob(net, component, outcomes, events), component.rate)
    return total


def _extended(
    net: Part, representation: Array, outcomes: Mapping[str, Array], events: TrialEvents, path: _Path, name: str
) -> list[_Path]:
    """A path and one outcome more: a path for each of its values, or one for all."""
    xp, variable = net.ops.xp, net.schema.outcomes[name]
    value, lost = outcomes[name], events.lost[name]
    raw = head(net, name, representation, path.earlier)
    if name in summed_outcomes(net.schema):
        assert isinstance(variable, Discrete)
        log_probs, longer = value_log_probs(net, name, raw), []
        for index in range(variable.n):
            code = variable.low + index
            seen = xp.where(lost | (value == code), log_probs[..., index], -math.inf)
            earlier = {**path.earlier, name: xp.full_like(log_probs[..., 0], code)}
            longer.append(_Path({**path.codes, name: code}, earlier, path.log_prob + seen))
        return longer
    seen = outcome_log_prob(net, name, representation, raw, value)
    if name != events.rule.timed:
        seen = xp.where(lost, 0.0, seen)
    else:
        seen = xp.where(lost, outcome_log_tail(net, name, representation, raw, events.deadline, upper=False), seen)
        if path.is_withheld(events.rule):
            # Any time: nobody sees it, and whoever sees a response has not seen this choice.
            seen = xp.where(events.omitted, 0.0, -math.inf)
        else:
            late = outcome_log_tail(net, name, representation, raw, events.deadline, upper=True)
            seen = xp.where(events.omitted, late, seen)
    return [_Path(path.codes, {**path.earlier, name: value}, path.log_prob + seen)]


def _log_sum(ops: ArrayOps, terms: Sequence[Array]) -> Array:
    """Logarithm of the sum of exponentials of arrays that broadcast, with a finite gradient; -inf where all are."""
    xp = ops.xp
    if len(terms) == 1:
        return terms[0]
    shape = xp.broadcast_shapes(*(tuple(x.shape) for x in terms))
    stacked = xp.stack([xp.broadcast_to(x, shape) for x in terms], -1)
    top = ops.stop_gradient(xp.amax(stacked, -1))
    top = xp.where(top > -math.inf, top, 0.0)
    total = xp.exp(stacked - top[..., None]).sum(-1)
    possible = total > 0
    return xp.where(possible, top + xp.log(xp.where(possible, total, 1.0)), -math.inf)


def _lapse_log_prob(net: Part, lapse: LapseComponent, outcomes: Mapping[str, Array], events: TrialEvents) -> Array:
    """Log probability of what was seen of each trial, if it is a lapse of this kind."""
    ops, rule = net.ops, events.rule
    xp, total = ops.xp, ops.zeros(net, ())
    for name in net.schema.outcomes:
        density = lapse.log_prob(name, ops.number(net, outcomes[name]))
        if name != rule.timed:
            total = total + xp.where(events.lost[name], 0.0, density)
            continue
        before = lapse.cdf(name, events.deadline, 0.0)
        # That a choice is the one that is withheld, where nothing says which it was.
        share = 0.0 if rule.withheld is None else _lapse_chance(net.schema, rule.withheld[:1])
        total = total + xp.where(events.lost[name], _log(xp, before), density)
        if rule.withheld is not None:
            total = total + xp.where(events.lost[rule.withheld[0]], math.log1p(-share), 0.0)
        total = xp.where(events.omitted, _log(xp, share + (1 - share) * (1 - before)), total)
    return total


def _lapse_chance(schema: Schema, names: Iterable[str]) -> float:
    """Probability of each combination of these discrete outcomes, if a trial is a lapse."""
    chance = 1.0
    for name in names:
        variable = schema.outcomes[name]
        assert isinstance(variable, Discrete)
        chance /= variable.n
    return chance


def _log(xp: ModuleType, probability: Array) -> Array:
    """Logarithm, -inf of 0, of numbers that no parameter changes."""
    return xp.where(probability > 0, xp.log(xp.where(probability > 0, probability, 1.0)), -math.inf)


def has_event_cdf(schema: Schema) -> bool:
    """Whether all outcomes but the last are discrete, with few enough values to sum over."""
    return len(summed_outcomes(schema)) == len(schema.outcomes) - 1


def event_cdf(
    net: Part,
    representation: Array,
    outcomes: Mapping[str, Array],
    events: TrialEvents,
    uniform: Array,
    lapse: LapseMixture | None = None,
) -> Array:
    """Distribution function (B, R, T, n_outcomes) of each outcome given the trial's earlier ones that are known.

    An omission is the first outcome's last value, and like a category has a `uniform` place inside its step; all other
    outcomes count given that there was a response. NaN for outcomes that were lost, or that an omission leaves open.

    Args:
        net: the part of the network, whose schema `has_event_cdf`.
        representation: (B, R, T, W).
        outcomes: dict name -> (B, r, T).
        events: what is missing of them.
        uniform: (B, R, T, n_outcomes), the place inside a step.
        lapse: the whole trial may be a lapse, at a rate that broadcasts against (B, R, T).
    """
    xp, names = net.ops.xp, list(net.schema.outcomes)
    last, cells = names[-1], _cells(net, representation, outcomes, events, uniform[..., -1], lapse)
    omission = 1 - sum(within for _, within, _ in cells) if events.rule.timed is not None else 0.0
    columns = []
    for index, name in enumerate(names):
        below = step = whole = 0.0
        for codes, within, up_to in cells:
            fits = True
            for earlier in names[:index]:
                fits = fits & (events.lost[earlier] | (outcomes[earlier] == codes[earlier]))
            share = xp.where(fits, within, 0.0) if index else within
            whole = whole + share
            if name == last:
                below = below + (xp.where(fits, up_to, 0.0) if index else up_to)
            else:
                below = below + xp.where(outcomes[name] > codes[name], share, 0.0)
                step = step + xp.where(outcomes[name] == codes[name], share, 0.0)
        place = uniform[..., index]
        if index == 0:
            result = below + place * step
            if events.omitted is not None:
                result = xp.where(events.omitted, whole + place * omission, result)
        else:
            result = (below + place * step) / whole
        unknown = events.lost[name]
        if index == 0 and events.omitted is not None:
            unknown = unknown & ~events.omitted
        elif events.omitted is not None:
            unknown = unknown | events.omitted
        columns.append(xp.where(unknown, math.nan, result))
    shape = xp.broadcast_shapes(*(tuple(x.shape) for x in columns))
    return xp.stack([xp.broadcast_to(x, shape) for x in columns], -1)


def _cells(
    net: Part,
    representation: Array,
    outcomes: Mapping[str, Array],
    events: TrialEvents,
    uniform: Array,
    lapse: LapseMixture | None,
) -> list[tuple[dict[str, int], Array, Array]]:
    """Values of all outcomes but the last; the probability of each with a response; and with the last one's value."""
    ops, schema = net.ops, net.schema
    *names, last = list(schema.outcomes)
    paths: list[_Path] = [_Path({}, {}, ops.zeros(net, ()))]
    nothing = {name: outcomes[name] != outcomes[name] for name in schema.outcomes}
    everything = TrialEvents(MissingRule(), {name: ~x for name, x in nothing.items()}, None, None)
    for name in names:
        paths = [
            longer for path in paths for longer in _extended(net, representation, outcomes, everything, path, name)
        ]
    cells = []
    for path in paths:
        raw = head(net, last, representation, path.earlier)
        probability = ops.xp.exp(path.log_prob)
        up_to = probability * outcome_cdf(net, last, representation, raw, outcomes[last], uniform)
        within = probability
        if events.rule.timed is not None:
            tail = outcome_log_tail(net, last, representation, raw, events.deadline, upper=False)
            within = probability * ops.xp.exp(tail)
        for component in lapse_components(net, lapse):
            chance = _lapse_chance(schema, names)
            seen = 1.0 if events.rule.timed is None else component.cdf(last, events.deadline, 0.0)
            within = within + component.rate * (chance * seen - within)
            value = ops.number(net, outcomes[last])
            up_to = up_to + component.rate * (chance * component.cdf(last, value, uniform) - up_to)
        if path.is_withheld(events.rule):
            within, up_to = 0.0 * within, 0.0 * up_to
        cells.append((path.codes, within, up_to))
    return cells
