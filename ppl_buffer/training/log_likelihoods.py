"""What simulators know of the likelihood, checked. NumPy alone."""

from __future__ import annotations

import numpy as np

from ppl_buffer.schema import Schema
from ppl_buffer.simulator import Arrays, WithLogLikelihood, WithSeenLogLikelihood
from ppl_buffer.training.draws import as_given
from ppl_buffer.training.simulator_errors import inside


def known_log_likelihood(simulator: WithLogLikelihood, schema: Schema, params: Arrays, data: Arrays) -> np.ndarray:
    """The simulator's log likelihood of each trial, (size, trials), checked, of the numbers as the network reads them.

    Args:
        simulator: one that has ``log_likelihood``.
        schema: the simulator's.
        params: dict name -> (size,).
        data: inputs, outcomes and feedback, each (size, trials).

    Raises:
        ValueError: if it is not of that shape, or +inf or NaN anywhere.
    """
    read = _as_read(schema, params, data)
    with inside("log_likelihood", {"params": params, "data": data}):
        returned = simulator.log_likelihood(*read)
    return _log_likelihood("log_likelihood", schema, data, returned)


def seen_log_likelihood(
    simulator: WithSeenLogLikelihood,
    rng: np.random.Generator,
    schema: Schema,
    params: Arrays,
    data: Arrays,
    lost: Arrays,
) -> np.ndarray:
    """`known_log_likelihood` given what was seen of the past.

    Args:
        simulator: one that has ``seen_log_likelihood``.
        rng: for it.
        schema: the simulator's.
        params: dict name -> (size,).
        data: inputs, outcomes and feedback, each (size, trials).
        lost: of outcomes and feedback, each (size, trials) bool.

    Raises:
        ValueError: if it is not of that shape, or +inf or NaN anywhere.
    """
    read = _as_read(schema, params, data)
    with inside("seen_log_likelihood", {"params": params, "data": data, "lost": lost}):
        returned = simulator.seen_log_likelihood(rng, *read, lost)
    return _log_likelihood("seen_log_likelihood", schema, data, returned)


def _as_read(schema: Schema, params: Arrays, data: Arrays) -> tuple[Arrays, Arrays]:
    """In double precision, but of numbers as rounded as the network reads them: near a bound that moves a density."""
    given_params, given_data = (
        as_given(schema, {name: x.astype(np.float32).astype(float) for name, x in values.items()})
        for values in (params, data)
    )
    return given_params, given_data


def _log_likelihood(method: str, schema: Schema, data: Arrays, returned: object) -> np.ndarray:
    """What a method returned, checked."""
    shape = next(iter(data[name].shape for name in schema.outcomes))
    log_likelihood = np.asarray(returned, dtype=float)
    wrong = np.isnan(log_likelihood) | np.isposinf(log_likelihood)
    if log_likelihood.shape != shape or wrong.any():
        raise ValueError(
            f"simulator.{method}: expected numbers below infinity, of shape {shape}, got shape {log_likelihood.shape} "
            f"with {int(wrong.sum())} others"
        )
    return log_likelihood
