"""Draws of a simulator, checked: what is not legal is counted and dropped. NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppl_buffer.schema import Categorical, Discrete, Schema, Variable
from ppl_buffer.simulator import (
    Arrays,
    Simulator,
    WithPredictions,
    WithProbabilities,
    WithProposal,
    WithResampling,
    WithStoredSets,
    WithSymmetries,
    simulate_keywords,
)
from ppl_buffer.stored import Runs
from ppl_buffer.training.simulator_errors import inside

# Training stops above this share of data sets with values that are not numbers, once this many were drawn.
MOST_DROPPED = 0.05

_LEAST_SIMULATED = 200


@dataclass
class RejectionCounts:
    """How many data sets were simulated and how many of them dropped.

    Attributes:
        simulated: all data sets.
        dropped: data sets that held a value that is no number or not a legal one.
        variables: variable -> data sets in which it was the cause.
    """

    simulated: int = 0
    dropped: int = 0
    variables: dict[str, int] = field(default_factory=dict)

    def add(self, other: RejectionCounts) -> None:
        """Count what `other` counted."""
        self.simulated += other.simulated
        self.dropped += other.dropped
        for name, count in other.variables.items():
            self.variables[name] = self.variables.get(name, 0) + count

    def check(self) -> None:
        """Refuse to go on where too much is dropped.

        Raises:
            ValueError: if more than 5 % of at least 200 data sets were dropped.
        """
        if self.simulated >= _LEAST_SIMULATED and self.dropped > MOST_DROPPED * self.simulated:
            raise ValueError(
                f"simulator: expected values that are finite and legal in all but {MOST_DROPPED:.0%} of the data "
                f"sets, but {self._causes()}; training on the rest would silently change the prior and the model"
            )

    def exhausted(self, batch: str) -> ValueError:
        """The error for a batch that could not be filled with legal data sets."""
        return ValueError(
            f"simulator: expected values that are finite and legal, but of the data sets of {batch} {self._causes()}"
        )

    def _causes(self) -> str:
        causes = ", ".join(f"{name} in {count}" for name, count in sorted(self.variables.items()))
        return f"{self.dropped} of {self.simulated} are not ({causes})"


def gives_probabilities(simulator: Simulator) -> bool:
    """Whether the loss of the first outcome, at least, can use the simulator's own probabilities."""
    schema = simulator.schema
    first = next(iter(schema.outcomes.values()))
    return isinstance(simulator, WithProbabilities) and isinstance(first, Discrete) and not schema.lapse_rate


@dataclass(frozen=True, eq=False)
class Seen:
    """What the targets of exchangeable data sets see.

    Args:
        trials: inputs and outcomes, dict name -> (size, trials).
        visible: (size, targets), of which each target sees the first so many.
    """

    trials: Arrays
    visible: np.ndarray


def resample(
    simulator: Simulator,
    rng: np.random.Generator,
    params: Arrays,
    data: Arrays,
    count: int,
    seen: Seen | None = None,
) -> Arrays:
    """Outcomes drawn `count` times more given the same past: dict name -> (size, trials, count).

    Where a draw is not legal the trial's own outcomes stand in for it.

    Args:
        simulator: what draws.
        rng: the only source of randomness.
        params: dict name -> (size,).
        data: inputs, outcomes and feedback, each (size, trials).
        count: how often.
        seen: by each trial, where it depends on those; else None.
    """
    schema = simulator.schema
    size, trials = next(iter(data[name].shape for name in schema.outcomes))
    shape = (size, trials, count)
    if seen is not None:
        assert isinstance(simulator, WithPredictions)
        inputs = as_given(schema, {name: data[name] for name in schema.inputs})
        past = as_given(schema, seen.trials)
        with inside("predict_outcomes", {"params": params, "inputs": inputs, "seen": past, "count": count}):
            again = simulator.predict_outcomes(rng, as_given(schema, params), inputs, past, seen.visible, count)
        returned = _checked("predict_outcomes", again, schema.outcomes, shape)
    elif isinstance(simulator, WithResampling):
        with inside("resample_outcomes", {"params": params, "data": data, "count": count}):
            again = simulator.resample_outcomes(rng, as_given(schema, params), as_given(schema, data), count)
        returned = _checked("resample_outcomes", again, schema.outcomes, shape)
    else:
        inputs = {name: np.repeat(data[name], count, axis=1) for name in schema.inputs}
        wide = (size, trials * count)
        simulated = _call(schema, "simulate", simulator.simulate, rng, params, inputs, wide)
        again = _checked("simulate", simulated, _simulated_variables(schema), wide)
        returned = {name: again[name].reshape(shape) for name in schema.outcomes}
    good = np.ones(shape, dtype=bool)
    for name, variable in schema.outcomes.items():
        good &= legal(variable, returned[name].astype(np.float32))
    return {name: np.where(good, x, data[name][..., None]) for name, x in returned.items()}


def augment_data(simulator: Simulator, rng: np.random.Generator, data: Arrays) -> Arrays:
    """Data sets as likely as these, by the simulator's symmetries, checked; the same ones where it has none.

    Raises:
        ValueError: if what the simulator returns does not fit, or is not legal.
    """
    if not isinstance(simulator, WithSymmetries):
        return data
    schema = simulator.schema
    variables = {**schema.inputs, **_simulated_variables(schema)}
    with inside("augment", {"data": data}):
        again = simulator.augment(rng, as_given(schema, data))
    returned = _checked("augment", again, variables, next(iter(data.values())).shape)
    for name, variable in variables.items():
        if not legal(variable, returned[name].astype(np.float32)).all():
            raise ValueError(f"simulator.augment: expected {name!r} to be {variable.description} everywhere")
    return returned


def draw_trials(
    simulator: Simulator, rng: np.random.Generator, params: Arrays, inputs: Arrays
) -> tuple[Arrays, np.ndarray, RejectionCounts]:
    """Outcomes (n,) of one trial for each of the parameters (n,) and inputs (n,); which are legal (n,), and counts."""
    schema = simulator.schema
    shape = (len(next(iter({**params, **inputs}.values()))), 1)
    wide = {name: x[:, None] for name, x in inputs.items()}
    simulated = _call(schema, "simulate", simulator.simulate, rng, params, wide, shape)
    returned = _checked("simulate", simulated, _simulated_variables(schema), shape)
    good, counts = find_legal(schema, params, {**wide, **returned})
    return {name: returned[name][:, 0] for name in schema.outcomes}, good, counts


def _call(
    schema: Schema,
    name: str,
    method: Callable[..., Any],
    rng: np.random.Generator,
    params: Arrays,
    inputs: Arrays,
    shape: tuple[int, int],
) -> Any:
    """Call the method of that name, which simulates; where no array has the shape (size, trials), keywords do."""
    keywords = simulate_keywords(method, schema, *shape)
    with inside(name, {"params": params, "inputs": inputs, **keywords}):
        return method(rng, as_given(schema, params), as_given(schema, inputs), **keywords)


def as_given(schema: Schema, arrays: Arrays) -> Arrays:
    """What a simulator gets: copies, since it may work in place; whole numbers as such, which index an array."""
    variables: Mapping[str, Variable] = {**schema.params, **schema.inputs, **_simulated_variables(schema)}
    given = {}
    for name, x in arrays.items():
        # Where a whole number is none the data set will be dropped.
        whole = isinstance(variables[name], Discrete)
        given[name] = np.where(np.isfinite(x), x, variables[name].fill).astype(np.int64) if whole else x.copy()
    return given


def _simulated_variables(schema: Schema) -> Mapping[str, Variable]:
    """The variables that a simulation returns."""
    return {**schema.outcomes, **schema.feedback}


def draw_params(simulator: Simulator, rng: np.random.Generator, size: int) -> Arrays:
    """Checked draws of the parameters by the simulator's ``prior``: dict name -> (size,)."""
    with inside("prior", {"size": size}):
        params = simulator.prior(rng, size)
    return _checked("prior", params, simulator.schema.params, (size,))


def draw_proposal(simulator: Simulator, rng: np.random.Generator, size: int) -> Arrays:
    """Checked draws of the parameters by the simulator's ``proposal``: dict name -> (size,)."""
    assert isinstance(simulator, WithProposal)
    with inside("proposal", {"size": size}):
        params = simulator.proposal(rng, size)
    return _checked("proposal", params, simulator.schema.params, (size,))


def draw_inputs(simulator: Simulator, rng: np.random.Generator, size: int, trials: int) -> Arrays:
    """Checked draws of the inputs: dict name -> (size, trials)."""
    with inside("inputs", {"size": size, "trials": trials}):
        inputs = simulator.inputs(rng, size, trials)
    return _checked("inputs", inputs, simulator.schema.inputs, (size, trials))


def draw_data(
    simulator: Simulator, rng: np.random.Generator, params: Arrays, size: int, trials: int, probabilities: bool = True
) -> tuple[Arrays, Arrays]:
    """Checked inputs, outcomes and feedback, each (size, trials), and the outcomes' probabilities (size, trials, n).

    Without `probabilities` they are not asked for, and the data come from `simulate`.
    """
    schema = simulator.schema
    shape = (size, trials)
    inputs = draw_inputs(simulator, rng, size, trials)
    if not (probabilities and gives_probabilities(simulator)):
        simulated = _call(schema, "simulate", simulator.simulate, rng, params, inputs, shape)
        return {**inputs, **_checked("simulate", simulated, _simulated_variables(schema), shape)}, {}
    assert isinstance(simulator, WithProbabilities)
    method = "simulate_with_probabilities"
    pair = _call(schema, method, simulator.simulate_with_probabilities, rng, params, inputs, shape)
    if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[1], Mapping):
        raise ValueError(f"simulator.{method}: expected (data, probabilities), got {type(pair).__name__}")
    data = {**inputs, **_checked(method, pair[0], _simulated_variables(schema), shape)}
    first, known_of = next(iter(schema.outcomes)), _discrete(schema)
    if first not in pair[1] or not set(pair[1]) <= set(known_of):
        others = "" if len(known_of) == 1 else f", and of no others than {list(known_of)}"
        raise ValueError(
            f"simulator.{method}: expected probabilities of {first!r}{others}, got those of {sorted(pair[1])}"
        )
    chances = {}
    for name in pair[1]:
        chances[name] = _numbers(method, name, pair[1][name], (*shape, known_of[name].n))
        known = np.isfinite(chances[name]).all(-1)
        if not (np.abs(chances[name].sum(-1) - 1)[known] < 1e-3).all() or (chances[name][known] < 0).any():
            raise ValueError(f"simulator.{method}: expected probabilities of {name!r} that sum to 1")
        # Where a probability is no number the data set must go: the outcome is marked, and dropped as any other.
        data[name] = np.where(known, data[name], np.nan)
    return data, chances


def draw_stored(
    simulator: WithStoredSets,
    schema: Schema,
    rng: np.random.Generator,
    size: int,
    trials: int,
    *,
    held_out: bool,
    runs: Runs | None = None,
) -> tuple[Arrays, Arrays]:
    """Checked parameters (size,) and data (size, trials) of data sets in store, of those that are held out or not."""
    params, data = simulator.stored_sets.draw(rng, size, trials, held_out, runs)
    variables = {**schema.inputs, **_simulated_variables(schema)}
    method = "stored_sets"
    return _checked(method, params, schema.params, (size,)), _checked(method, data, variables, (size, trials))


def draw_together(simulator: Simulator, rng: np.random.Generator, size: int, trials: int) -> tuple[Arrays, Arrays]:
    """Checked parameters (size,) under the prior and data (size, trials) given them, or stored ones of the training."""
    if isinstance(simulator, WithStoredSets):
        return draw_stored(simulator, simulator.schema, rng, size, trials, held_out=False)
    params = draw_params(simulator, rng, size)
    return params, draw_data(simulator, rng, params, size, trials, probabilities=False)[0]


def _discrete(schema: Schema) -> dict[str, Discrete]:
    return {name: variable for name, variable in schema.outcomes.items() if isinstance(variable, Discrete)}


def legal(variable: Variable, value: np.ndarray) -> np.ndarray:
    """Which float32 values a network can read: legal, and finite on the unconstrained scale."""
    with np.errstate(all="ignore"):
        inside = np.isfinite(value) & variable.contains(np, value)
        if isinstance(variable, Categorical):
            return inside
        return inside & np.isfinite(variable.unconstrain(np, value))


def find_legal(schema: Schema, params: Arrays, data: Arrays) -> tuple[np.ndarray, RejectionCounts]:
    """Which data sets (size,) hold legal values alone, as the network will read them, and the count of the others."""
    size = len(next(iter({**params, **data}.values())))
    good, causes = np.ones(size, dtype=bool), {}
    for group, values in ((schema.params, params), ({**schema.inputs, **schema.outcomes, **schema.feedback}, data)):
        for name, variable in group.items():
            # As the network will read them: a number just inside a bound may lie on it in float32.
            fine = legal(variable, values[name].astype(np.float32)).reshape(size, -1).all(1)
            if not fine.all():
                causes[name] = int((~fine).sum())
            good &= fine
    return good, RejectionCounts(size, int((~good).sum()), causes)


def _checked(method: str, returned: Any, variables: Mapping[str, Variable], shape: tuple[int, ...]) -> Arrays:
    if not isinstance(returned, Mapping):
        raise ValueError(f"simulator.{method}: expected a dict of arrays, got {type(returned).__name__}")
    if set(returned) != set(variables):
        raise ValueError(f"simulator.{method}: expected {list(variables)}, got {sorted(map(str, returned))}")
    arrays = {}
    for name, variable in variables.items():
        values = _numbers(method, name, returned[name], shape)
        if isinstance(variable, Discrete):
            wrong = values[np.isfinite(values) & ~variable.contains(np, values)]
            if wrong.size:
                raise ValueError(
                    f"simulator.{method}: expected {name!r} to be {variable.description}, got {wrong.flat[0]:g}"
                )
        arrays[name] = values
    return arrays


def _numbers(method: str, name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    if np.ma.is_masked(values):
        raise ValueError(f"simulator.{method}: expected numbers in all of {name!r}, got an array with masked ones")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"simulator.{method}: expected an array of numbers for {name!r}, got {error}") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"simulator.{method}: expected {name!r} to hold real numbers, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"simulator.{method}: expected {name!r} of shape {shape}, got {array.shape}")
    return array.astype(float)
