"""Whether a simulator takes its randomness from `rng`, all of it and nothing else."""

from __future__ import annotations

import numpy as np

from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.schema import Discrete
from ppl_buffer.simulator import Arrays, Simulator, WithStoredSets
from ppl_buffer.training.draws import draw_inputs, draw_params, draw_trials

# Data sets, of one trial each.
_SIZE = 64


def check_randomness(simulator: Simulator) -> None:
    """Look at draws from equal and from unequal random numbers.

    Warns where the same `rng` gives other draws: worker processes that share a global state repeat each other, and no
    run can be repeated.

    Args:
        simulator: a checked one.

    Raises:
        ValueError: if other random numbers give the same draws: a generator that is made anew from a fixed seed in
            every call, with which the network would learn a few data sets by heart.
    """
    schema = simulator.schema
    if isinstance(simulator, WithStoredSets) or not (schema.params or schema.inputs):
        return
    all_params = [draw_params(simulator, _rng(seed), _SIZE) for seed in (0, 0, 1)]
    first = all_params[0]
    if schema.params and _same(first, all_params[2]) and any(np.ptp(x) > 0 for x in first.values()):
        raise ValueError("simulator.prior: expected other draws from another rng, got the same: draw from rng alone")
    inputs = {name: x[:, 0] for name, x in draw_inputs(simulator, _rng(2), _SIZE, 1).items()}
    outcomes = [draw_trials(simulator, _rng(seed), first, inputs)[0] for seed in (3, 3, 4)]
    continuous = any(not isinstance(variable, Discrete) for variable in schema.outcomes.values())
    if continuous and _same(outcomes[0], outcomes[2]):
        raise ValueError(
            "simulator.simulate: expected other outcomes from another rng, got the same: draw from rng, without a seed "
            "of its own; outcomes without any randomness have no density"
        )
    loose = [
        method for method, draws in (("prior", all_params), ("simulate", outcomes)) if _different(draws[0], draws[1])
    ]
    if loose:
        text = (
            f"simulator.{loose[0]}: the same rng gives other draws in every call: all randomness has to come from rng. "
            "From a global state, worker processes draw the same data, and no run can be repeated or gone on with"
        )
        warn_of(Finding("simulator", text, parameter=loose[0]), stacklevel=3)


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(0, spawn_key=(seed,)))


def _shared(first: Arrays, second: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """The values of both that are numbers in both."""
    one, other = (np.concatenate([np.zeros(0), *(draws[name].ravel() for name in first)]) for draws in (first, second))
    usable = np.isfinite(one) & np.isfinite(other)
    return one[usable], other[usable]


def _same(first: Arrays, second: Arrays) -> bool:
    """Whether there are numbers to compare, and all are equal."""
    one, other = _shared(first, second)
    return one.size > 0 and bool((one == other).all())


def _different(first: Arrays, second: Arrays) -> bool:
    """Whether some numbers differ."""
    one, other = _shared(first, second)
    return bool((one != other).any())
