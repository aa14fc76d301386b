"""Answers that are missing: what users say of them, and what of a trial they leave.

In a value NaN is an outcome that was lost, and infinity, in the column of a time, a response that had not come at the
deadline. What is left of such a trial is an event, and its likelihood the probability of that event.

Where later trials depend on it, they read that something was lost, and pass over a trial without a response.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType

import numpy as np

from ppl_buffer.checks import is_integer
from ppl_buffer.files import to_numpy
from ppl_buffer.network.arguments import NetworkLike, as_floating, check_outcomes, legal_trials
from ppl_buffer.network.backend import Array, Named
from ppl_buffer.network.missing_rule import UNREAD, MissingRule, allows_lost, require_flags
from ppl_buffer.schema import Categorical, Discrete, Positive, Real, Schema, split_value

# Combinations of a trial's choices that are summed over.
_MOST_PATHS = 32


@dataclass(frozen=True, eq=False)
class Missing:
    """That answers may be missing, and what it means; without it they are refused, since NaN may be an accident.

    In the value of a trial, NaN is an outcome that was *lost*: it happened, and nobody knows which it was. The trial's
    likelihood is that of the rest: of a choice without its time P(choice), of a time without its choice the density
    summed over the choices. Whether an outcome was lost must not depend on what it was (Rubin 1976, Biometrika 63,
    581-592). Where nothing is left of a trial, it goes into ``trial_mask``.

    Infinity as the time, with NaN as everything else, is an *omission*: no response before the deadline, whose
    likelihood is P(time > deadline), all choices together. In a go/no-go task one of the choices is made by not
    responding; with ``withheld`` the likelihood of a trial without a response is P(that choice, or time > deadline).

    With a deadline a lost time lies before it, and data sets that are drawn have omissions where the model is too slow.

    Where trials depend on those before them, a lost outcome was made, and learnt from as the model has it; its feedback
    may be lost as well, NaN in ``feedback``. A network knows what follows from it if it was trained with
    ``Config(likelihood_missing=True)``. Of an omission nothing is learnt there: later trials pass over it.

    Args:
        deadline: in the unit of the time, a number or (*B, K); infinite where there is none. None = no trial is an
            omission.
        withheld: the choice that is made by not responding, {outcome: category}.
        outcome: which outcome is the time; needed only where the schema has several positive ones, or none.

    Raises:
        ValueError: if there is a choice that is withheld and no deadline, or not one outcome and category.
    """

    deadline: Array | float | None = None
    withheld: Mapping[str, int] = field(default_factory=dict)
    outcome: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.withheld, Mapping) or len(self.withheld) > 1:
            raise ValueError(f"withheld: expected one choice, {{outcome: category}}, got {self.withheld!r}")
        for name, code in self.withheld.items():
            if not isinstance(name, str) or not is_integer(code, least=0):
                raise ValueError(f"withheld: expected {{outcome: category}}, got {self.withheld!r}")
        if not isinstance(self.outcome, str | None):
            raise ValueError(f"outcome: expected the name of an outcome, got {self.outcome!r}")
        if self.deadline is None and (self.withheld or self.outcome is not None):
            raise ValueError(
                "deadline: expected the time after which a response counts as none, since there is a choice that is "
                "withheld or an outcome that is the time, got None"
            )

    def rule(self, schema: Schema) -> MissingRule:
        """What that means in a schema.

        Raises:
            ValueError: if its trials depend on each other without an order, it has no such outcome or category, or a
                choice is withheld where later trials learn from it.
        """
        if not (schema.independent or schema.ordered):
            raise ValueError(
                "missing: expected None for a model whose trials depend on each other beyond the parameters, without "
                "an order: what others know of a trial whose outcome was lost no network was trained on. Leave such "
                "trials out (trial_mask)"
            )
        if self.deadline is None:
            return MissingRule()
        timed = self._timed(schema)
        if schema.ordered and self.withheld:
            raise ValueError(
                f"withheld: expected no choice that is made by not responding where later trials depend on it: what "
                f"they learn from a response that may have been withheld or late is not known, got {self.withheld!r}"
            )
        for name, code in self.withheld.items():
            variable = schema.outcomes.get(name)
            names = [key for key, x in schema.outcomes.items() if isinstance(x, Categorical)]
            before = name in summed_outcomes(schema) and _is_before(schema, name, timed)
            if not isinstance(variable, Categorical) or code >= variable.n or not before:
                raise ValueError(
                    f"withheld: expected a category of a choice that comes before {timed!r} in the schema, of "
                    f"{names}, got {dict(self.withheld)}"
                )
            return MissingRule(timed, (name, int(code)))
        return MissingRule(timed)

    def _timed(self, schema: Schema) -> str:
        positive = [name for name, x in schema.outcomes.items() if isinstance(x, Positive)]
        possible = [name for name, x in schema.outcomes.items() if isinstance(x, Positive | Real)]
        name = positive[0] if self.outcome is None and len(positive) == 1 else self.outcome
        if name not in possible:
            raise ValueError(
                f"outcome: expected the name of the outcome that the deadline is of, one of {possible}, got "
                f"{self.outcome!r}"
            )
        return str(name)

    def at(self, deadline: Array | None) -> Missing:
        """The same with other deadlines."""
        return Missing(deadline, self.withheld, self.outcome)

    def omitted(self, schema: Schema, outcomes: Mapping[str, Array]) -> np.ndarray | None:
        """Which trials (*B, K) are omissions, as NumPy booleans; None without a deadline."""
        timed = self.rule(schema).timed
        return None if timed is None else np.isposinf(np.asarray(to_numpy(outcomes[timed]), dtype=float))


def _is_before(schema: Schema, name: str, other: str) -> bool:
    names = list(schema.outcomes)
    return names.index(name) < names.index(other)


def missing_of(rule: MissingRule | None, deadline: Array | None) -> Missing | None:
    """What a user would have said of such a rule; None of None."""
    if rule is None:
        return None
    return Missing(deadline, {} if rule.withheld is None else dict([rule.withheld]), rule.timed)


def check_missing(
    net: NetworkLike, missing: Missing, trials: int, trial_mask: Array | None
) -> tuple[MissingRule, Array | None]:
    """What a user says of missing answers as a rule, and deadlines (*B, K or 1) in the network's number type.

    Raises:
        ValueError: if it does not fit the schema, or a deadline is no number that the time can exceed.
    """
    if not isinstance(missing, Missing):
        raise ValueError(f"missing: expected a ppl_buffer.Missing, got {type(missing).__name__}")
    rule = missing.rule(net.schema)
    timed = rule.timed
    if timed is None:
        require_flags(net)
        return rule, None
    rule = replace(rule, lost=allows_lost(net))
    ops = net.ops
    deadline = ops.number(net, as_floating(net, "deadline", missing.deadline))
    if deadline.ndim == 0:
        deadline = deadline[None]
    if deadline.shape[-1] not in (1, trials):
        raise ValueError(f"deadline: expected a number or shape (*batch, {trials}), got {tuple(deadline.shape)}")
    if trial_mask is not None and deadline.shape[-1] > 1:
        # Where there is no trial any number will do.
        deadline = ops.xp.where(trial_mask, deadline, float("inf"))
    known = ops.to_concrete(deadline)
    least = 0.0 if isinstance(net.schema.outcomes[timed], Positive) else -np.inf
    if known is not None and not (known > least).all():
        raise ValueError(
            f"deadline: expected numbers{' above 0' * (least == 0)}, infinite where there is no deadline, got "
            f"{known[~(known > least)].flat[0]}"
        )
    return rule, deadline


def summed_outcomes(schema: Schema) -> list[str]:
    """Discrete outcomes before others over all of whose values a density can be summed."""
    names, paths = [], 1
    for name in list(schema.outcomes)[:-1]:
        variable = schema.outcomes[name]
        if isinstance(variable, Discrete) and paths * variable.n <= _MOST_PATHS:
            names.append(name)
            paths *= variable.n
    return names


def contradictions(
    xp: ModuleType, schema: Schema, columns: Mapping[str, Array], rule: MissingRule, deadline: Array | None
) -> Iterator[tuple[Array, str, str]]:
    """Trials (..., K) that cannot be, as (which, outcome, what was expected).

    Args:
        xp: array namespace.
        schema: of the outcomes.
        columns: name -> (..., K), in the number type that the network computes in.
        rule: of missing answers.
        deadline: (*B, K), or None where nobody asks.
    """
    lost = {name: xp.isnan(column) for name, column in columns.items()}
    names, infinite = list(columns), float("inf")
    nothing = None
    for name, column in columns.items():
        variable = schema.outcomes[name]
        usable = variable.contains(xp, column) | lost[name]
        more = "NaN where it was lost" if rule.lost else "NaN without a response"
        if name == rule.timed:
            usable, more = usable | (column == infinite), f"{more}, infinity where it did not come before the deadline"
        yield ~usable, name, f"{variable.description}, {more}"
        nothing = lost[name] if nothing is None else nothing & lost[name]
    if not rule.lost:
        assert rule.timed is not None
        for name in names:
            unread = lost[name] & (columns[rule.timed] != infinite)
            yield unread, name, f"a number where there was a response, since {UNREAD}"
    elif schema.independent:
        yield (
            nothing, names[0], "an outcome that is known, or infinity as the time of a response that did not come "
            "before the deadline; trials of which nothing is known go into trial_mask",
        )  # fmt: skip
    for index, name in enumerate(names[:-1]):
        if name not in summed_outcomes(schema):
            for later in names[index + 1 :]:
                text = f"NaN where {name!r}, which it depends on, was lost: there is no sum over all values of that"
                yield lost[name] & ~lost[later], later, text
    if rule.timed is None:
        return
    time = columns[rule.timed]
    omitted = time == infinite
    for name in names:
        if name != rule.timed:
            yield omitted & ~lost[name], name, "NaN where no response came before the deadline"
    if rule.withheld is not None:
        name, code = rule.withheld
        yield columns[name] == code, name, f"NaN for {code}, the choice that is withheld (and infinity as the time)"
    if deadline is None:
        return
    yield omitted & (deadline == infinite), rule.timed, "a finite time on trials without a deadline"
    yield ~omitted & (time > deadline), rule.timed, "at most the deadline, or infinity for a response after it"


def legal_events(
    cast: Callable[[Array], Array],
    xp: ModuleType,
    schema: Schema,
    value: Array,
    trial_mask: Array | None,
    rule: MissingRule,
    deadline: Array | None,
) -> Array:
    """Which trials (..., K) of a value do not exist, or can be, with missing answers."""
    columns = {name: cast(column) for name, column in split_value(schema, value).items()}
    wrong: Array = None
    for bad, _, _ in contradictions(xp, schema, columns, rule, deadline):
        wrong = bad if wrong is None else wrong | bad
    legal = ~wrong
    return legal if trial_mask is None else legal | ~trial_mask


def check_events(
    net: NetworkLike,
    value: Array,
    trial_mask: Array | None,
    rule: MissingRule,
    deadline: Array | None,
    feedback: Mapping[str, Array] | None = None,
) -> None:
    """Refuse a value whose trials cannot be, where they can be looked at, and feedback that is lost and may not be.

    Raises:
        ValueError: naming the outcome, what was expected and what came.
    """
    known = net.ops.to_concrete(net.ops.number(net, value))
    exists = None if trial_mask is None else net.ops.to_concrete(trial_mask)
    bounds = None if deadline is None else net.ops.to_concrete(deadline)
    if known is None or (trial_mask is not None and exists is None) or (deadline is not None and bounds is None):
        return
    columns = split_value(net.schema, known)
    with np.errstate(invalid="ignore"):
        for bad, name, expected in contradictions(np, net.schema, columns, rule, bounds):
            wrong = bad if exists is None else bad & exists
            if wrong.any():
                argument = f"value[{name!r}]" if net.schema.event_shape_tail else "value"
                got = np.broadcast_to(columns[name], wrong.shape)[wrong].flat[0]
                raise ValueError(f"{argument}: expected {expected}, got {got} ({wrong.sum()} of {wrong.size})")
    if rule.lost or rule.timed is None:
        return
    for name, numbers in (feedback or {}).items():
        values = net.ops.to_concrete(numbers)
        if values is None:
            continue
        unread = np.isnan(values) & ~np.isposinf(columns[rule.timed]) & (True if exists is None else exists)
        if unread.any():
            raise ValueError(
                f"feedback[{name!r}]: expected a number where there was a response, since {UNREAD}, got nan "
                f"({unread.sum()} of {unread.size})"
            )


def checked_legal(
    net: NetworkLike,
    value: Array,
    numbers: np.ndarray | None,
    mask: Array | None,
    rule: MissingRule | None,
    deadline: Array | None,
    feedback: Mapping[str, Array],
) -> Array | None:
    """Which trials (..., K) hold legal outcomes or do not exist; None where the numbers could be checked at once."""
    ops, cast = net.ops, partial(net.ops.number, net)
    if rule is None:
        check_outcomes(net, value, mask)
    else:
        check_events(net, value, mask, rule, deadline, feedback)
    if numbers is not None and all(ops.to_concrete(x) is not None for x in (mask, deadline) if x is not None):
        return None
    if rule is None:
        return legal_trials(cast, ops.xp, net.schema, value, mask)
    return legal_events(cast, ops.xp, net.schema, value, mask, rule, deadline)


def censored(xp: ModuleType, rule: MissingRule, deadline: Array, outcomes: Mapping[str, Array]) -> Named:
    """Outcomes (..., K) as they are seen with a deadline: what comes later, or is withheld, is an omission."""
    assert rule.timed is not None
    unseen = outcomes[rule.timed] > deadline
    if rule.withheld is not None:
        unseen = unseen | (outcomes[rule.withheld[0]] == rule.withheld[1])
    return {
        name: xp.where(unseen, float("inf") if name == rule.timed else float("nan"), x) for name, x in outcomes.items()
    }
