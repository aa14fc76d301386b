"""Fresh data sets of a simulator for the checks of a network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ppl_buffer.checks import check_integer
from ppl_buffer.diagnostics.statistics import Arrays
from ppl_buffer.findings import Finding, ignore_findings, warn_of
from ppl_buffer.network.arguments import require_likelihood
from ppl_buffer.network.backend import backend_of
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.simulator import Simulator, WithStoredSets
from ppl_buffer.training.abilities import check_simulator
from ppl_buffer.training.draws import RejectionCounts, draw_data, draw_stored, find_legal


def check_pair(net: Network, simulator: Simulator) -> None:
    """Refuse what is no network, no simulator, a simulator of another schema, or observed data in place of either.

    Warns where stored simulations are not divided as they were in the network's training.
    """
    backend_of(net)
    require_likelihood(net.record)
    check_simulator(simulator)
    if simulator.schema != net.schema:
        raise ValueError(
            f"simulator: expected the network's schema {net.schema}, got {simulator.schema}: it is the simulator of "
            "another network"
        )
    if not isinstance(simulator, WithStoredSets):
        return
    stored = simulator.stored_sets.summary
    if not stored.simulated:
        raise ValueError(
            f"simulator: expected one whose likelihood the network could be, got {stored}, of which nobody knows any"
        )
    if net.record is not None and net.record.stored is not None and net.record.stored != stored:
        text = (
            f"the network was trained on {net.record.stored}, and these are others, or divided by another seed: of "
            "those that are held out here it may have seen some, and a check on them says less"
        )
        warn_of(Finding("simulator", text), stacklevel=3)


def trials_to_simulate(net: Network, trials: int | None, most: int = 100) -> int:
    """The number of trials asked for; by default `most`, or as many as the training covered."""
    if trials is None:
        return most if net.record is None else min(most, net.record.trials)
    return check_integer("trials", trials)


def sets_to_simulate(simulator: Simulator, sets: int, trials: int, least: int) -> int:
    """The number of data sets asked for; of stored ones at most those that are held out.

    Args:
        simulator: what draws them.
        sets: asked for.
        trials: of each.
        least: that a check needs.

    Raises:
        ValueError: if there are too few.
    """
    if not isinstance(simulator, WithStoredSets):
        return sets
    count = len(simulator.stored_sets.indices(held_out=True, trials=trials))
    if count < least:
        raise ValueError(
            f"sets: expected {least} data sets of {trials} trials or more that are held out, got {count} of "
            f"{simulator.stored_sets.summary}; store more of them, hold out a larger share, or ask for fewer trials"
        )
    return min(sets, count)


def simulate_legal(
    simulator: Simulator,
    rng: np.random.Generator,
    sets: int,
    trials: int,
    prior: Callable[[np.random.Generator, int], Arrays],
    taken: int = 0,
) -> tuple[Arrays, Arrays, int]:
    """Parameters and data sets that are legal throughout, and how many others were left out.

    Of stored simulations those that are held out, in a fixed order.

    Args:
        simulator: draws the data.
        rng: source of randomness.
        sets: number of data sets.
        trials: of each.
        prior: of a generator and a size; draws parameters, dict name -> (size,).
        taken: how many stored ones have served before.

    Returns:
        parameters, name -> (sets,); data, name -> (sets, trials); number of data sets left out.
    """
    if isinstance(simulator, WithStoredSets):
        fixed = np.random.default_rng(0)
        params, data = draw_stored(simulator, simulator.schema, fixed, taken + sets, trials, held_out=True)
        return {name: x[taken:] for name, x in params.items()}, {name: x[taken:] for name, x in data.items()}, 0
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
    # A simulator's rarest values lie outside what training saw of it, and are in no other unit.
    with ignore_findings():
        return net.observe(
            {name: data[name][indices] for name in schema.inputs},
            np.stack(columns, -1) if schema.event_shape_tail else columns[0],
            feedback={name: data[name][indices] for name in schema.feedback},
            context=None if context is None else {name: x[indices] for name, x in context.items()},
            likelihood=likelihood,
        )
