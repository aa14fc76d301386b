"""Which simulator a network was trained on: a shipped one, or the user's own."""

from __future__ import annotations

import importlib
import os
import sys

from ppl_buffer.network.network import Network
from ppl_buffer.simulator import Simulator, name_of
from ppl_buffer.simulators import (
    CollapsingDriftDiffusion,
    DriftDiffusion,
    GaussianProcess,
    MultisensoryCausalInference,
    NoisyQ,
    RLDriftDiffusion,
)


def named_simulator(spec: str) -> Simulator:
    """The simulator ``module:Class`` or ``module:object``; the working folder is searched too.

    Raises:
        ValueError: if there is no such module, or it has no such name.
    """
    module, colon, name = spec.partition(":")
    if not colon:
        raise ValueError(f"simulator: expected my_module:MySimulator, got {spec!r}")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        simulator = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise ValueError(f"simulator: there is no module {module!r} in {folder} or among the installed ones") from None
    except AttributeError:
        raise ValueError(f"simulator: module {module!r} has no {name!r}") from None
    return simulator() if isinstance(simulator, type) else simulator


def simulator_of(net: Network, spec: str | None = None) -> Simulator | None:
    """The simulator that a network was trained on: the one named, or a shipped one of the stored name; else None.

    Raises:
        ValueError: if the one named cannot be found, or has another schema.
    """
    if spec is not None:
        simulator = named_simulator(spec)
        if simulator.schema != net.schema:
            raise ValueError(f"simulator: expected the network's schema {net.schema}, got {simulator.schema}")
        return simulator
    shipped: list[Simulator] = [
        NoisyQ(),
        DriftDiffusion(),
        CollapsingDriftDiffusion(),
        RLDriftDiffusion(),
        GaussianProcess(),
        *(MultisensoryCausalInference(rho=rho) for rho in (1, 4 / 3)),
    ]
    for simulator in shipped:
        name = name_of(simulator)
        if net.record is not None and name == net.record.simulator and simulator.schema == net.schema:
            return simulator
    return None
