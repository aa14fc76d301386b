"""Trials as arrays (B, R, K): joined, answered by an environment. Written once, over the operations of a backend."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ppl_buffer.network.backend import Array, ArrayOps, Environment, Named, Trials
from ppl_buffer.network.network import Network


def split_noise(net: Network, noise: Array) -> tuple[Array, Array]:
    """What of uniform numbers (B, R, K, schema.noise_size) draws the outcomes, and what the environment is given."""
    outcomes = 2 * len(net.schema.outcomes) + 1
    return noise[..., :outcomes], noise[..., outcomes:]


def respond(
    net: Network,
    environment: Environment | None,
    trial: Array | int,
    inputs: Mapping[str, Array],
    outcomes: Mapping[str, Array],
    uniform: Array,
) -> Named:
    """Feedback, dict name -> (B, R, T), on the outcomes (B, R, T) of a trial; empty where there is none to give.

    Raises:
        ValueError: if the environment returns other names, what is no array of numbers, or another shape.
    """
    if environment is None or not net.schema.feedback:
        return {}
    given: object = environment(trial, dict(inputs), dict(outcomes), uniform)
    names = list(net.schema.feedback)
    if not isinstance(given, Mapping) or set(given) != set(names):
        got = sorted(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        raise ValueError(f"environment: expected a dict of the feedback {names} in return, got {got}")
    shape = tuple(next(iter(outcomes.values())).shape)
    return {name: _feedback(net, name, given[name], shape) for name in names}


def _feedback(net: Network, name: str, given: Array, shape: tuple[int, ...]) -> Array:
    """One feedback that an environment gave, as numbers of the trial's shape."""
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
