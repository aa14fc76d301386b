"""Which function writes a network's training priors in the language that goes with its backend.

A network knows no language, so the package's table of contents says it here, by functions that import when called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ppl_buffer.network.box import check_above, upper_bounds

if TYPE_CHECKING:
    from ppl_buffer.network.arguments import NetworkLike
    from ppl_buffer.network.backend import Array
    from ppl_buffer.network.observed import ObservedTrials
    from ppl_buffer.network.record import TrainingRecord


class PriorWriter(Protocol):
    """Writes the priors of a record in a language; `below` has numbers (*B,) that parameters have to stay below."""

    def __call__(self, record: TrainingRecord, below: Mapping[str, Array], /) -> dict[str, Any]:
        """Training prior of each parameter."""
        ...


_PRIORS: dict[str, PriorWriter] = {}


def register_priors(backend: str, function: PriorWriter) -> None:
    """Say what gives the priors of a record as distributions of the language that goes with a backend."""
    _PRIORS[backend] = function


def priors_of(net: NetworkLike, record: TrainingRecord, seen: ObservedTrials | None) -> dict[str, Any]:
    """See `Network.prior`."""
    below = {} if seen is None else upper_bounds(net, seen)
    below = {name: bound for name, bound in below.items() if name in record.box}
    for name, bound in below.items():
        check_above(net, name, bound, record.box[name][0])
    return _PRIORS[net.backend](record, below)


def bounded_above(record: TrainingRecord, name: str) -> tuple[str, dict[str, float]]:
    """Family and arguments of a prior, written so that a lower argument ``high`` cuts it off there.

    Raises:
        ValueError: if it is relative to another parameter, or of a family that is not written so.
    """
    prior = record.prior(name)
    advice = f"expected None: {name} has to stay below the observed outcomes, but its prior is %s; use net.into_box"
    if prior.relative_to is not None:
        raise ValueError(f"seen: {advice % f'relative to {prior.relative_to}'}")
    if prior.family == "HalfNormal":
        return "TruncatedNormal", {"loc": 0.0, **prior.arguments, "low": 0.0, "high": record.box[name][1]}
    if "high" not in prior.arguments:
        raise ValueError(f"seen: {advice % f'{prior.family}, which has no form with an upper bound'}")
    return prior.family, dict(prior.arguments)
