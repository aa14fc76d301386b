"""Trials as arrays (B, R, K): joined, answered by an environment. Written once, over the operations of a backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ppl_buffer.checks import check_mapping, check_number
from ppl_buffer.network.backend import Array, ArrayOps, Environment, Named, Trials
from ppl_buffer.network.network import Network
from ppl_buffer.schema import Schema
from ppl_buffer.simulator import StatefulEnvironment


def split_noise(net: Network, noise: Array) -> tuple[Array, Array]:
    """What of uniform numbers (B, R, K, schema.noise_size) draws the outcomes, and what the environment is given."""
    outcomes = 2 * len(net.schema.outcomes) + 1
    return noise[..., :outcomes], noise[..., outcomes:]


def check_environment(environment: object, schema: Schema) -> None:
    """Refuse what cannot be asked for feedback.

    Raises:
        ValueError: if it cannot be called, or has a state that is none, or one where trials have no order.
    """
    if not callable(environment):
        raise ValueError(f"environment: expected a function, got {type(environment).__name__}")
    if not isinstance(environment, StatefulEnvironment):
        return
    check_mapping("environment.initial_state", environment.initial_state)
    for name, value in environment.initial_state.items():
        check_number(f"environment.initial_state[{name!r}]", value, "a finite number", lambda _: True)
    if not schema.ordered:
        raise ValueError(
            f"environment: expected one without a state for an exchangeable model, whose trials have no order, got "
            f"{type(environment).__name__}"
        )


def initial_state(net: Network, environment: Environment | None, shape: Sequence[int]) -> Named:
    """What the environment remembers before the first trial, dict name -> (B, R, 1); empty if it has no state."""
    if not isinstance(environment, StatefulEnvironment) or not net.schema.feedback:
        return {}
    start = {name: net.ops.number(net, value) for name, value in environment.initial_state.items()}
    return {name: net.ops.xp.broadcast_to(value, (*shape[:2], 1)) for name, value in start.items()}


def respond(
    net: Network,
    environment: Environment | None,
    trial: Array | int,
    inputs: Mapping[str, Array],
    outcomes: Mapping[str, Array],
    uniform: Array,
    state: Mapping[str, Array] | None = None,
    exists: Array | bool = True,
) -> tuple[Named, Named]:
    """Feedback on the outcomes (B, R, T) of a trial, and the environment's state after it: dicts name -> (B, R, T).

    Empty where there is none to give; `state` is that before the trial, and after it where no trial `exists`.

    Raises:
        ValueError: if the environment returns other names, what is no array of numbers, or another shape.
    """
    if environment is None or not net.schema.feedback:
        return {}, {}
    shape = tuple(next(iter(outcomes.values())).shape)
    feedback = list(net.schema.feedback)
    if not isinstance(environment, StatefulEnvironment):
        given: object = environment(trial, dict(inputs), dict(outcomes), uniform)
        return _returned(net, "the feedback", given, feedback, shape), {}
    assert state is not None
    both: object = environment(trial, dict(inputs), dict(outcomes), uniform, dict(state))
    if not isinstance(both, tuple) or len(both) != 2:
        raise ValueError(
            f"environment: expected (feedback, state) in return, since it has an initial_state, got "
            f"{type(both).__name__}"
        )
    after = _returned(net, "the state", both[1], list(environment.initial_state), shape)
    kept = {name: net.ops.xp.where(exists, value, state[name]) for name, value in after.items()}
    return _returned(net, "the feedback", both[0], feedback, shape), kept


def _returned(net: Network, what: str, given: object, names: list[str], shape: tuple[int, ...]) -> Named:
    """What an environment gave under these names, as numbers of the trial's shape."""
    if not isinstance(given, Mapping) or set(given) != set(names):
        got = sorted(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        raise ValueError(f"environment: expected a dict of {what} {names} in return, got {got}")
    return {name: _numbers(net, name, given[name], shape) for name in names}


def _numbers(net: Network, name: str, given: Array, shape: tuple[int, ...]) -> Array:
    """One array that an environment gave, as numbers of the trial's shape."""
    try:
        value = net.ops.number(net, given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"environment: expected numbers for {name!r} in return, got {given!r} ({error})") from error
    if tuple(value.shape) == shape:
        return value
    try:
        fits = np.broadcast_shapes(tuple(value.shape), shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"environment: expected {name!r} in return in the shape {shape} of the trial's outcomes, got "
            f"{tuple(value.shape)}"
        )
    return net.ops.xp.broadcast_to(value, shape)


def join_trials(ops: ArrayOps, first: Trials | None, second: Trials) -> Trials:
    """Trials of `first`, then of `second`; their replicas are brought to the same number."""
    if first is None:
        return second
    return {
        group: {name: join_arrays(ops, first[group][name], value) for name, value in values.items()}
        for group, values in second.items()
    }


def join_arrays(ops: ArrayOps, first: Array, second: Array) -> Array:
    """Concatenate (B, r, N) and (B, R, K) along the trials."""
    replicas = max(first.shape[1], second.shape[1])
    parts = [ops.xp.broadcast_to(x, (x.shape[0], replicas, x.shape[2])) for x in (first, second)]
    return ops.xp.concatenate(parts, -1)
