"""Fresh data sets of a simulator for the checks of a network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ppl_buffer.checks import check_integer
from ppl_buffer.diagnostics.statistics import Arrays
from ppl_buffer.network.backend import backend_of
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.simulator import Simulator
from ppl_buffer.training.abilities import check_simulator
from ppl_buffer.training.draws import RejectionCounts, draw_data, find_legal


def check_pair(net: Network, simulator: Simulator) -> None:
    """Refuse what is no network, no simulator, or a simulator of another schema."""
    backend_of(net)
    check_simulator(simulator)
    if simulator.schema != net.schema:
        raise ValueError(
            f"simulator: expected the network's schema {net.schema}, got {simulator.schema}: it is the simulator of "
            "another network"
        )


def trials_to_simulate(net: Network, trials: int | None, most: int = 100) -> int:
    """The number of trials asked for; by default `most`, or as many as the training covered."""
    if trials is None:
        return most if net.record is None else min(most, net.record.trials)
    return check_integer("trials", trials)


def simulate_legal(
    simulator: Simulator,
    rng: np.random.Generator,
    sets: int,
    trials: int,
    prior: Callable[[np.random.Generator, int], Arrays],
) -> tuple[Arrays, Arrays, int]:
    """Parameters and data sets that are legal throughout, and how many others were left out.

    Args:
        simulator: draws the data.
        rng: source of randomness.
        sets: number of data sets.
        trials: of each.
        prior: of a generator and a size; draws parameters, dict name -> (size,).

    Returns:
        parameters, name -> (sets,); data, name -> (sets, trials); number of data sets left out.
    """
    legal: list[tuple[Arrays, Arrays]] = []
    counts, enough = RejectionCounts(), 0
    while enough < sets:
        params = prior(rng, sets)
        data = draw_data(simulator, rng, params, sets, trials, probabilities=False)[0]
        good, count = find_legal(simulator.schema, params, data)
        counts.add(count)
        counts.check()
        if not good.any():
            raise counts.exhausted("a check")
        legal.append(({name: x[good] for name, x in params.items()}, {name: x[good] for name, x in data.items()}))
        enough += int(good.sum())
    joined = [
        {name: np.concatenate([pair[i][name] for pair in legal])[:sets] for name in legal[0][i]} for i in range(2)
    ]
    return joined[0], joined[1], counts.dropped


def observe_sets(
    net: Network, data: Arrays, context: Arrays | None, indices: np.ndarray, likelihood: str = "auto"
) -> ObservedTrials:
    """Some of the data sets, prepared by the network.

    Args:
        net: the network.
        data: name -> (sets, K) of inputs, outcomes and feedback.
        context: name -> (sets, N), or None.
        indices: of the data sets.
        likelihood: for which part of the network, as `net.observe` takes it.
    """
    schema = net.schema
    columns = [data[name][indices].astype(np.float32) for name in schema.outcomes]
    return net.observe(
        {name: data[name][indices] for name in schema.inputs},
        np.stack(columns, -1) if schema.event_shape_tail else columns[0],
        feedback={name: data[name][indices] for name in schema.feedback},
        context=None if context is None else {name: x[indices] for name, x in context.items()},
        likelihood=likelihood,
    )
