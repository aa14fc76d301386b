"""Joint predictive distributions of simulators, as distributions for Pyro and NumPyro.

This file is the table of contents. A name is imported when it is first asked for, so that a NumPyro user needs no
torch, a Pyro user no JAX, and neither waits for plots or tables.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ppl_buffer.extras import needs
from ppl_buffer.network.priors import register_priors
from ppl_buffer.version import __version__

if TYPE_CHECKING:
    from ppl_buffer import arviz as arviz
    from ppl_buffer import datasets as datasets
    from ppl_buffer import diagnostics as diagnostics
    from ppl_buffer import formulas as formulas
    from ppl_buffer import numpyro as numpyro
    from ppl_buffer import plots as plots
    from ppl_buffer import pymc as pymc
    from ppl_buffer import pyro as pyro
    from ppl_buffer import sbi as sbi
    from ppl_buffer import scores as scores
    from ppl_buffer import simulators as simulators
    from ppl_buffer import workflow as workflow
    from ppl_buffer.datasets.dataset_simulator import DatasetSimulator
    from ppl_buffer.datasets.stored_simulations import StoredSimulations
    from ppl_buffer.inference.comparison import compare
    from ppl_buffer.inference.compression import compress, decompress
    from ppl_buffer.inference.evidence import Evidence, log_evidence
    from ppl_buffer.inference.random_effects import RandomEffects, random_effects
    from ppl_buffer.inference.simulation import Simulated, posterior_predictive
    from ppl_buffer.inference.trialwise import sequential_posterior, trial_regressors
    from ppl_buffer.network.checkpoint import load, save
    from ppl_buffer.network.config import Config
    from ppl_buffer.network.lapses import Lapse
    from ppl_buffer.network.missing import Missing
    from ppl_buffer.network.publishing import publish
    from ppl_buffer.network.record import TrainingRecord
    from ppl_buffer.network.zoo import zoo
    from ppl_buffer.prior import Prior
    from ppl_buffer.schema import Categorical, Integer, Interval, Positive, Real, Schema
    from ppl_buffer.simulator import Simulator
    from ppl_buffer.training.added_buffer import add_buffer
    from ppl_buffer.training.buffered_module import BufferedModule
    from ppl_buffer.training.distillation import DistillationSets, prepare_distillation
    from ppl_buffer.training.loop import train
    from ppl_buffer.training.module_training import add_buffer_to_module

__all__ = [
    "BufferedModule",
    "Categorical",
    "Config",
    "DatasetSimulator",
    "DistillationSets",
    "Evidence",
    "Integer",
    "Interval",
    "Lapse",
    "Missing",
    "Positive",
    "Prior",
    "RandomEffects",
    "Real",
    "Schema",
    "Simulated",
    "Simulator",
    "StoredSimulations",
    "TrainingRecord",
    "__version__",
    "add_buffer",
    "add_buffer_to_module",
    "compare",
    "compress",
    "decompress",
    "load",
    "log_evidence",
    "posterior_predictive",
    "prepare_distillation",
    "publish",
    "random_effects",
    "save",
    "sequential_posterior",
    "train",
    "trial_regressors",
    "zoo",
]

_MODULES = (
    "arviz",
    "datasets",
    "diagnostics",
    "formulas",
    "numpyro",
    "plots",
    "pymc",
    "pyro",
    "sbi",
    "scores",
    "simulators",
    "workflow",
)

# The module that defines each name.
_HOME = {
    "BufferedModule": "training.buffered_module",
    "Categorical": "schema",
    "Config": "network.config",
    "DatasetSimulator": "datasets.dataset_simulator",
    "DistillationSets": "training.distillation",
    "Evidence": "inference.evidence",
    "Integer": "schema",
    "Interval": "schema",
    "Lapse": "network.lapses",
    "Missing": "network.missing",
    "Positive": "schema",
    "Prior": "prior",
    "RandomEffects": "inference.random_effects",
    "Real": "schema",
    "Schema": "schema",
    "Simulated": "inference.simulation",
    "Simulator": "simulator",
    "StoredSimulations": "datasets.stored_simulations",
    "TrainingRecord": "network.record",
    "add_buffer": "training.added_buffer",
    "add_buffer_to_module": "training.module_training",
    "compare": "inference.comparison",
    "compress": "inference.compression",
    "decompress": "inference.compression",
    "load": "network.checkpoint",
    "log_evidence": "inference.evidence",
    "posterior_predictive": "inference.simulation",
    "prepare_distillation": "training.distillation",
    "publish": "network.publishing",
    "random_effects": "inference.random_effects",
    "save": "network.checkpoint",
    "sequential_posterior": "inference.trialwise",
    "train": "training.loop",
    "trial_regressors": "inference.trialwise",
    "zoo": "network.zoo",
}


def _numpyro_priors(record: "TrainingRecord", below: dict[str, object]) -> dict[str, Any]:
    from ppl_buffer.numpyro.priors import prior_distributions

    return prior_distributions(record, below)


def _pyro_priors(record: "TrainingRecord", below: dict[str, object]) -> dict[str, Any]:
    from ppl_buffer.pyro.priors import prior_distributions

    return prior_distributions(record, below)


register_priors("jax", _numpyro_priors)
register_priors("torch", _pyro_priors)

if not TYPE_CHECKING:  # a type checker that saw this function would believe in every name

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with needs(f"{__name__}.{name}", "train"):  # all other names need no optional library
            module = import_module(f"{__name__}.{_HOME[name]}")
        return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES})
