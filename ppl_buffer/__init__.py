"""Joint predictive distributions of simulators, as distributions for Pyro and NumPyro."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ppl_buffer import diagnostics, simulators
from ppl_buffer.inference.evidence import Evidence, compare, log_evidence
from ppl_buffer.inference.simulation import Simulated, posterior_predictive
from ppl_buffer.network.checkpoint import load, save
from ppl_buffer.network.config import Config
from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.network.zoo import zoo
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Interval, Positive, Real, Schema
from ppl_buffer.simulator import Simulator
from ppl_buffer.training.distillation import DistillationSets, prepare_distillation

if TYPE_CHECKING:
    from ppl_buffer.training.loop import train

__version__ = "0.1.0"

__all__ = [
    "Categorical",
    "Config",
    "Evidence",
    "Interval",
    "DistillationSets",
    "Positive",
    "Prior",
    "Real",
    "Schema",
    "Simulated",
    "Simulator",
    "TrainingRecord",
    "__version__",
    "compare",
    "diagnostics",
    "load",
    "log_evidence",
    "posterior_predictive",
    "prepare_distillation",
    "save",
    "simulators",
    "train",
    "zoo",
]

# Names whose modules need a backend: found when first asked for, so that a NumPyro user needs no torch.
_LAZY = {"train": "ppl_buffer.training.loop"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        try:
            return getattr(import_module(_LAZY[name]), name)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise ImportError(f"ppl_buffer.{name} needs torch: pip install 'ppl-buffer[train]'") from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
