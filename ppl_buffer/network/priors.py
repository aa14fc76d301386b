"""Which function writes a network's training priors in the language that goes with its backend.

A network knows no language, so the package's table of contents says it here, by functions that import when called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppl_buffer.network.record import TrainingRecord

_PRIORS: dict[str, Callable[[TrainingRecord], dict[str, Any]]] = {}


def register_priors(backend: str, function: Callable[[TrainingRecord], dict[str, Any]]) -> None:
    """Say what gives the priors of a record as distributions of the language that goes with a backend."""
    _PRIORS[backend] = function


def priors_of(record: TrainingRecord, backend: str) -> dict[str, Any]:
    """Training prior of each parameter, as distributions of the language that goes with a backend."""
    return _PRIORS[backend](record)
