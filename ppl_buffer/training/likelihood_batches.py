"""Batches of the direct likelihood's training: every parameter is given, nothing is seen but the past. NumPy alone."""

from __future__ import annotations

import numpy as np

from ppl_buffer.simulator import Simulator
from ppl_buffer.training.abilities import check_outcome_samples, has_proposal
from ppl_buffer.training.batches import (
    TRAINING,
    Batch,
    BatchOptions,
    add_targets,
    draw,
    generator,
    log_uniform,
    ordered_batch,
)

# Trials of a data set where they are independent: many parameter values with few trials each.
_FEW_TRIALS = 8
# Share of the batches whose parameters come from the simulator's proposal, where it has one.
_PROPOSED = 0.5


def make_likelihood_batch(
    simulator: Simulator, options: BatchOptions, seed: int, step: int, stream: int = TRAINING
) -> Batch:
    """The batch of a step: whole sequences where trials depend on each other, else a few trials of each data set.

    Its data are as those of `make_batch`, with one condition mask, which holds all parameters. The targets are the
    trials of the buffer, each of which sees those before it.

    Raises:
        ValueError: if outcomes are to be drawn again and the simulator cannot.
    """
    schema = simulator.schema
    check_outcome_samples(simulator, options.outcome_samples)
    rng = generator(seed, stream, step)
    low, high = options.trials
    trials = log_uniform(rng, low, high) if schema.ordered else min(_FEW_TRIALS, high)
    size = max(1, round(options.batch_size * options.typical_trials / trials))
    # Not of the held-out loss: the error is a mean under the prior.
    propose = stream == TRAINING and has_proposal(simulator) and rng.random() < _PROPOSED
    conditioned = np.ones((size, 1, len(schema.params)), dtype=bool)
    data_sets, counts = draw(simulator, seed, step, stream, size, trials, conditioned, propose)
    if data_sets is None:
        return Batch(None, counts)
    params, data, probabilities = data_sets
    arrays = ordered_batch(schema, params, conditioned, data, probabilities)
    add_targets(simulator, options, rng, arrays, params, data, training=stream == TRAINING)
    return Batch(arrays, counts)
