"""Which simulator a network was trained on: a shipped one, or the user's own."""

from __future__ import annotations

import importlib
import os
import re
import sys
from contextlib import suppress
from types import ModuleType

from ppl_buffer.datasets.stored_simulations import StoredSimulations
from ppl_buffer.extras import MissingLibraryError
from ppl_buffer.network.network import Network
from ppl_buffer.schema import Schema
from ppl_buffer.simulator import Simulator, WithPriors, name_of, public_names
from ppl_buffer.simulators import (
    AngleDriftDiffusion,
    CollapsingDriftDiffusion,
    Confidence,
    Discounting,
    DriftDiffusion,
    ForgettingQ,
    GaussianProcess,
    MultisensoryCausalInference,
    NoisyQ,
    QLearning,
    RacingDiffusion,
    RegressionTable,
    RLDriftDiffusion,
    Sawtooth,
    TwoStep,
    from_ssms,
)

# What records call a model of ssm-simulators.
_OF_SSMS = re.compile(r"from_ssms\('(\w+)'\)")


def named_simulator(spec: str) -> Simulator:
    """The simulator ``module:Class`` or ``module:object``, or stored simulations in an ``.npz`` file.

    After the installed modules, the working folder is searched.

    Raises:
        ValueError: if there is no such module or file, it has no such name, or what it names is no simulator.
    """
    if spec.endswith(".npz"):
        return StoredSimulations.from_npz(spec)
    module, colon, name = spec.partition(":")
    if not (colon and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(
            "simulator: expected my_module:MySimulator, the name of a module (my_module.py in the working folder) and "
            f"of what is in it, or an .npz file of stored simulations, got {spec!r}"
        )
    folder = os.getcwd()
    # At the end: a file of the working folder that is called as a library must not take its place.
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"simulator: there is no module {module!r} in {folder} or among the installed ones") from None
    if name not in vars(imported):
        raise ValueError(f"simulator: module {module!r} has no {name!r} ({_where(imported, folder)})")
    simulator = vars(imported)[name]
    if isinstance(simulator, type):
        try:
            simulator = simulator()
        except TypeError as error:
            raise ValueError(
                f"simulator: expected a class without arguments, or an object made of it, got {spec} ({error})"
            ) from None
    lacking = [member for member in ("schema", "prior", "inputs", "simulate") if member not in public_names(simulator)]
    if lacking or not isinstance(simulator.schema, Schema):
        raise ValueError(
            f"simulator: expected an object with schema (a Schema), prior, inputs and simulate, got {spec}, which has "
            f"{'no ' + ', '.join(lacking) if lacking else 'another schema'} ({_where(imported, folder)})"
        )
    return simulator


def _where(module: ModuleType, folder: str) -> str:
    """Where a module was found, which may be another than the user thinks of."""
    path, own = str(vars(module).get("__file__", "built in")), os.path.join(folder, f"{module.__name__}.py")
    another = os.path.exists(own) and os.path.realpath(path) != os.path.realpath(own)
    return f"the module is {path}{f', not {own}: give that another name' if another else ''}"


def simulator_of(net: Network, spec: str | None = None) -> Simulator | None:
    """The simulator that a network was trained on: the one named, or a shipped one of the stored name; else None.

    Of several shipped ones, the one that draws its parameters as the network's did. Of a learner that was trained in
    tasks of all kinds, which records call by the model's name, the model in one task: whoever fits another names a
    simulator of it.

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
        DriftDiffusion(drift=(-6.0, 6.0)),
        CollapsingDriftDiffusion(),
        AngleDriftDiffusion(),
        *(RacingDiffusion(options=number) for number in (2, 3, 4)),
        Discounting(),
        Confidence(),
        RLDriftDiffusion(),
        ForgettingQ(),
        QLearning(),
        TwoStep(),
        GaussianProcess(),
        Sawtooth(),
        RegressionTable(),
        *(MultisensoryCausalInference(rho=rho) for rho in (1, 4 / 3)),
    ]
    if net.record is None:
        return None
    of_ssms = _OF_SSMS.fullmatch(net.record.simulator)
    if of_ssms is not None:
        # Where the package is not installed there is none.
        with suppress(MissingLibraryError):
            shipped.append(from_ssms(of_ssms[1], bounds=net.record.box))
    fitting = [one for one in shipped if name_of(one) == net.record.simulator and one.schema == net.schema]
    priors = dict(net.record.priors)
    same = [one for one in fitting if isinstance(one, WithPriors) and dict(one.priors) == priors]
    return next(iter(same + fitting), None)
