"""Whether a simulator's environment gives the feedback that later draws will ask it for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.schema import Categorical, Variable
from ppl_buffer.simulator import Arrays, Simulator, StatefulEnvironment, WithEnvironment
from ppl_buffer.training.draws import draw_together, legal

# Data sets and their trials.
_SIZE, _TRIALS = 16, 3


def try_environment(simulator: Simulator) -> None:
    """Ask the environment about a few simulated trials, as drawing from the network will: training takes long.

    Warns where it cannot be asked with NumPy's arrays: it may be written for torch or for JAX alone.

    Args:
        simulator: a checked one.

    Raises:
        ValueError: if what it returns is not the schema's feedback, has another shape, or is not legal.
    """
    if not (isinstance(simulator, WithEnvironment) and simulator.schema.feedback):
        return
    schema, rng = simulator.schema, np.random.default_rng(0)
    _, data = draw_together(simulator, rng, _SIZE, _TRIALS)
    # As a rollout has them: categories in floating point, a number for each data set, replica and trial.
    named = {name: np.nan_to_num(data[name])[:, None] for name in (*schema.inputs, *schema.outcomes)}
    environment: object = simulator.environment
    remembers = isinstance(environment, StatefulEnvironment)
    state = dict(environment.initial_state) if isinstance(environment, StatefulEnvironment) else {}
    before = {name: np.full((_SIZE, 1, 1), value) for name, value in state.items()}
    for trial in range(_TRIALS):
        shown = {name: named[name][..., trial : trial + 1] for name in schema.inputs}
        outcomes = {name: named[name][..., trial : trial + 1] for name in schema.outcomes}
        arguments = (trial, shown, outcomes, rng.random((_SIZE, 1, 1, len(schema.feedback))))
        try:
            given: object = simulator.environment(*arguments, *([before] if remembers else []))
        except Exception as error:
            text = (
                f"simulator.environment: it could not be tried with NumPy's arrays before training ({error!r}); where "
                f"it is meant for torch or JAX alone, that is no fault"
            )
            warn_of(Finding("simulator", text, parameter="environment"), stacklevel=3)
            return
        if remembers:
            if not isinstance(given, tuple) or len(given) != 2:
                raise ValueError(
                    f"simulator.environment: expected (feedback, state) in return, since it has an initial_state, got "
                    f"{type(given).__name__}"
                )
            given, after = given
            before = _returned("the state", after, list(state))
        feedback = _returned("the feedback", given, list(schema.feedback))
        _check_legal(schema.feedback, feedback)


def _returned(what: str, given: object, names: Sequence[str]) -> Arrays:
    """What came under these names, as numbers of the trial's shape."""
    if not isinstance(given, Mapping) or set(given) != set(names):
        got = sorted(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        raise ValueError(f"simulator.environment: expected a dict of {what} {list(names)} in return, got {got}")
    shape, arrays = (_SIZE, 1, 1), {}
    for name in names:
        try:
            values = np.asarray(given[name], dtype=float)
            arrays[name] = np.broadcast_to(values, shape)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"simulator.environment: expected numbers for {name!r} in return, in the shape {shape} of the trial's "
                f"outcomes, got {_described(given[name])}"
            ) from None
    return arrays


def _described(value: object) -> str:
    """The shape of an array, or the value itself."""
    return f"shape {value.shape}" if isinstance(value, np.ndarray) else repr(value)


def _check_legal(variables: Mapping[str, Variable], feedback: Arrays) -> None:
    for name, variable in variables.items():
        values = feedback[name]
        wrong = values[~legal(variable, values.astype(np.float32))]
        if wrong.size:
            kind = "a category, " if isinstance(variable, Categorical) else ""
            raise ValueError(
                f"simulator.environment: expected {name!r} to be {kind}{variable.description}, got {wrong.flat[0]:g}"
            )
