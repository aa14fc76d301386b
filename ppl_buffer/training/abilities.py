"""What a simulator has: its members, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Discrete, Schema
from ppl_buffer.simulator import (
    OPTIONAL,
    REQUIRED,
    Simulator,
    WithAtoms,
    WithLogLikelihood,
    WithPredictions,
    WithPriors,
    WithProposal,
    WithResampling,
    WithStoredSets,
    public_names,
)
from ppl_buffer.training.draws import gives_probabilities, legal
from ppl_buffer.training.simulator_calls import check_calls

# What members were called until version 0.1, and their names today.
FORMER_NAMES = {
    "told_prior": "proposal",
    "special_values": "atoms",
    "redraw": "resample_outcomes",
    "log_density": "log_likelihood",
}


def check_simulator(simulator: Simulator) -> None:
    """Refuse an object that lacks a member of the protocol, or has optional ones that do not fit its schema.

    Warns of members that look like misspelt ones.

    Raises:
        ValueError: naming the member.
    """
    if isinstance(simulator, type):
        raise ValueError(
            f"simulator: expected an object, got the class {simulator.__name__}; write {simulator.__name__}()"
        )
    names = public_names(simulator)
    schema = simulator.schema if "schema" in names else None
    if not isinstance(schema, Schema):
        raise ValueError(f"simulator.schema: expected a Schema, got {schema!r}")
    methods = [name for name in REQUIRED if name != "schema"]
    methods += [name for name, protocol in OPTIONAL.items() if isinstance(simulator, protocol) and _is_method(name)]
    for method in methods:
        if method not in names or not callable(getattr(simulator, method)):
            raise ValueError(f"simulator.{method}: expected a method, but {type(simulator).__name__} has none")
    stated = priors_of(simulator)
    for name, prior in stated.items():
        if not isinstance(prior, Prior):
            raise ValueError(f"simulator.priors[{name!r}]: expected a Prior, got {prior!r}")
        order = list(schema.params)
        earlier = [other for other in order[: order.index(name)] if other in stated]
        if prior.relative_to is not None and prior.relative_to not in earlier:
            raise ValueError(
                f"simulator.priors[{name!r}]: expected a prior relative to an earlier parameter that has a prior, "
                f"one of {earlier}, got {prior.relative_to!r}"
            )
    for name, value in atoms_of(simulator).items():
        variable = schema.params[name]
        if not bool(np.all(legal(variable, np.asarray(value, dtype=np.float32)))):
            raise ValueError(f"simulator.atoms[{name!r}]: expected {variable.description}, got {value!r}")
    check_calls(simulator, schema)
    for finding in misspelt_members(simulator):
        warn_of(finding, stacklevel=3)


def _is_method(member: str) -> bool:
    return callable(vars(OPTIONAL[member]).get(member))


def atoms_of(simulator: Simulator) -> Mapping[str, float]:
    """The simulator's point masses, or none."""
    return _keyed_by_params(simulator, "atoms", simulator.atoms) if isinstance(simulator, WithAtoms) else {}


def priors_of(simulator: Simulator) -> Mapping[str, Prior]:
    """The simulator's priors, or none."""
    return _keyed_by_params(simulator, "priors", simulator.priors) if isinstance(simulator, WithPriors) else {}


def _keyed_by_params(simulator: Simulator, member: str, values: Any) -> Mapping[str, Any]:
    values = {} if values is None else values
    if not isinstance(values, Mapping) or not set(values) <= set(simulator.schema.params):
        raise ValueError(
            f"simulator.{member}: expected a dict keyed by parameters {list(simulator.schema.params)}, got {values!r}"
        )
    return values


def has_proposal(simulator: Simulator) -> bool:
    """Whether the sets that are conditioned on all parameters draw them from a distribution of their own."""
    return isinstance(simulator, WithProposal) and bool(simulator.schema.params)


def learns_log_likelihood(simulator: Simulator) -> bool:
    """Whether a likelihood learns best from the simulator's own: it has one, and an outcome whose draws are noise.

    Of categories and integers the probabilities tell more, where the simulator knows those of all.
    """
    outcomes = simulator.schema.outcomes.values()
    exact = gives_probabilities(simulator) and all(isinstance(variable, Discrete) for variable in outcomes)
    return isinstance(simulator, WithLogLikelihood) and bool(simulator.schema.params) and not exact


def check_use_log_likelihood(simulator: Simulator) -> None:
    """Refuse to learn a likelihood that nobody can compute.

    Raises:
        ValueError: if the simulator has no method ``log_likelihood``, or its schema no parameters.
    """
    if not (isinstance(simulator, WithLogLikelihood) and simulator.schema.params):
        raise ValueError(
            f"use_log_likelihood: expected False, or a simulator with parameters and a method log_likelihood, got "
            f"True with {type(simulator).__name__}"
        )


def check_outcome_samples(simulator: Simulator, outcome_samples: int) -> None:
    """Refuse to draw outcomes again where the simulator cannot.

    Raises:
        ValueError: if `outcome_samples` is above 1 and trials depend on each other, but there is no method
            ``resample_outcomes``, of ordered trials, or ``predict_outcomes``, of exchangeable ones.
    """
    if outcome_samples > 1 and isinstance(simulator, WithStoredSets):
        raise ValueError(
            f"outcome_samples: expected 1 with {type(simulator).__name__}, whose outcomes are stored and cannot be "
            f"drawn again, got {outcome_samples}"
        )
    if outcome_samples == 1 or simulator.schema.independent or draws_again(simulator):
        return
    method = "resample_outcomes" if simulator.schema.ordered else "predict_outcomes"
    raise ValueError(
        f"outcome_samples: expected 1, or a simulator with a method {method}, since trials of "
        f"{type(simulator).__name__} depend on each other, got {outcome_samples}"
    )


def draws_again(simulator: Simulator) -> bool:
    """Whether a simulator whose trials depend on each other can draw their outcomes again."""
    return isinstance(simulator, WithResampling if simulator.schema.ordered else WithPredictions)


def misspelt_members(simulator: object) -> list[Finding]:
    """Members that nobody reads and that look as if they were meant to be: nearly a protocol's, or a former name.

    A name counts as nearly another one if it is one letter off, two where the other one is longer than six, three where
    it is longer than twenty, whatever the case and the underscores; or if it is the first six letters or more of it.
    Members beside which the right one stands are the simulator's own business.
    """
    names = public_names(simulator)
    meant = {name: name for name in (*REQUIRED, *OPTIONAL)} | FORMER_NAMES
    findings = []
    for member in names:
        if member in REQUIRED or member in OPTIONAL:
            continue
        close = {name: edit_distance(_letters(member), _letters(name)) for name in meant}
        near = [name for name, distance in close.items() if distance <= 1 + (len(name) > 6) + (len(name) > 20)]
        near = near or [name for name in OPTIONAL if len(member) >= 6 and _letters(name).startswith(_letters(member))]
        if not near:
            continue
        right = meant[min(near, key=close.__getitem__)]
        if right not in names:
            text = (
                f"simulator.{member}: nothing reads a member of this name of {type(simulator).__name__}; write {right}"
                f" ({_documented_in(right)})"
            )
            findings.append(Finding("simulator", text, parameter=member))
    return findings


def _letters(name: str) -> str:
    return name.lower().replace("_", "")


def _documented_in(member: str) -> str:
    protocol = OPTIONAL.get(member, Simulator)
    return f"see ppl_buffer.simulator.{protocol.__name__}"


def edit_distance(first: str, second: str) -> int:
    """Levenshtein's distance: letters to insert, delete or replace."""
    row = list(range(len(second) + 1))
    for index, letter in enumerate(first, start=1):
        before, row = row, [index]
        for column, other in enumerate(second, start=1):
            row.append(min(before[column] + 1, row[-1] + 1, before[column - 1] + (letter != other)))
    return row[-1]
