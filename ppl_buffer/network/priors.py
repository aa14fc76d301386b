"""Which function writes a network's training priors in the language that goes with its backend.

A network knows no language, so the package's table of contents says it here, by functions that import when called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppl_buffer.network.backend import Named
    from ppl_buffer.network.record import TrainingRecord

_PRIORS: dict[str, Callable[[TrainingRecord, Named], dict[str, Any]]] = {}


def register_priors(backend: str, function: Callable[[TrainingRecord, Named], dict[str, Any]]) -> None:
    """Say what gives the priors of a record as distributions of the language that goes with a backend.

    The function's second argument are the parameters that have to stay below numbers, dict name -> (*B,).
    """
    _PRIORS[backend] = function


def priors_of(record: TrainingRecord, backend: str, below: Named) -> dict[str, Any]:
    """Training prior of each parameter, as distributions of the language that goes with a backend."""
    return _PRIORS[backend](record, below)


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
