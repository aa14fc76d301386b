"""What missing answers mean to the trials after them, and which networks can read them.

Where trials depend on those before them, later ones read that an outcome or its feedback was lost, and pass over a
trial without a response.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

from ppl_buffer.network.arguments import NetworkLike
from ppl_buffer.network.backend import Array, Named
from ppl_buffer.network.config import flagged
from ppl_buffer.schema import Schema

UNREAD = (
    "trials depend on those before them, and this network was not trained to follow one that lost an outcome or its "
    "feedback. Train one that was: ppl_buffer.train(simulator, ppl_buffer.Config(depth=0, likelihood_missing=True)), "
    "or go on from this one: config=dataclasses.replace(net.config, likelihood_missing=True), start=net. A trial on "
    "which nothing happened goes into trial_mask; a response that did not come in time is infinity as the time"
)


@dataclass(frozen=True)
class MissingRule:
    """What missing answers mean in a schema, apart from the numbers of the deadlines.

    Attributes:
        timed: outcome that the deadline is of; None without one.
        withheld: outcome and category of the choice that is made by not responding; None where there is none.
        lost: whether outcomes may be lost: not where later trials depend on them and the network cannot read that.
    """

    timed: str | None = None
    withheld: tuple[str, int] | None = None
    lost: bool = True


def can_be_lost(schema: Schema) -> tuple[str, ...]:
    """Names of the outcomes, and of the feedback on them where later trials depend on it."""
    return (*schema.outcomes, *(schema.feedback if schema.ordered else ()))


def allows_lost(net: NetworkLike) -> bool:
    """Whether outcomes may be lost: no later trial reads them, or the network reads that they were lost."""
    return net.schema.independent or (net.schema.ordered and bool(flagged(net.schema, net.config)))


def require_flags(net: NetworkLike) -> None:
    """Refuse lost outcomes where later trials depend on them and the network does not read that they were lost.

    Raises:
        ValueError: which says how to train a network that does.
    """
    if not allows_lost(net):
        raise ValueError(f"missing: expected None, since {UNREAD}")


def require_direct(net: NetworkLike, direct: bool) -> None:
    """Refuse missing answers of an ordered model where the buffered transformer would compute.

    Raises:
        ValueError: which says how to ask for the direct likelihood.
    """
    if net.schema.ordered and not direct:
        raise ValueError(
            "missing: expected None, since the buffered transformer computes here, which does not read what is "
            "missing; take net.preferring('direct'), or likelihood='direct'"
        )


def gaps(
    xp: ModuleType,
    schema: Schema,
    rule: MissingRule | None,
    outcomes: Mapping[str, Array],
    feedback: Mapping[str, Array],
) -> dict[str, Named]:
    """What the trials after others read of their gaps, in groups of name -> (..., K) bool; none of independent trials.

    Args:
        xp: array namespace.
        schema: of the trials.
        rule: of missing answers, or None.
        outcomes: name -> (..., K), NaN where lost, infinity as a time that did not come.
        feedback: name -> (..., K), NaN where lost.

    Returns:
        ``lost``, where the network reads it, and ``omitted``, which trials they pass over.
    """
    if rule is None or not schema.ordered:
        return {}
    groups: dict[str, Named] = {}
    if rule.lost:
        groups["lost"] = {name: xp.isnan(x) for name, x in {**outcomes, **feedback}.items()}
    if rule.timed is not None:
        groups["omitted"] = {rule.timed: outcomes[rule.timed] == float("inf")}
    return groups


def pass_over(trials: dict[str, Named], exists: Array) -> Array:
    """Which trials those after them read: all that exist but those whose response was omitted, a group taken out."""
    for omitted in trials.pop("omitted", {}).values():
        exists = exists & ~omitted
    return exists


def known_feedback(xp: ModuleType, schema: Schema, feedback: Mapping[str, Array]) -> Named:
    """Feedback (..., K) with legal numbers where it was lost."""
    return {name: xp.where(xp.isnan(x), schema.feedback[name].fill, x) for name, x in feedback.items()}
