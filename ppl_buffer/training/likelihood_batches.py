"""Batches of the direct likelihood's training: every parameter is given, nothing is seen but the past. NumPy alone."""

from __future__ import annotations

import math

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

# Trials of a data set where they are independent, and data sets for each one that was asked for: many parameter values
# with few trials each.
_FEW_TRIALS, _MANY_SETS = 4, 8
# By how much the number of data sets grows in the course of the training, of ordered trials and of independent ones: at
# first many steps count, at the end little noise.
_GROWTH, _INDEPENDENT_GROWTH = 4.0, 8.0
# Share of this time in which the longest sequence grows from the shortest: short ones teach most in the same time.
_LENGTHENING = 0.5
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
    trials, size = _shape(rng, options, schema.ordered, step if stream == TRAINING else options.growing)
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


def _shape(rng: np.random.Generator, options: BatchOptions, ordered: bool, step: int) -> tuple[int, int]:
    """Trials of each data set, and data sets, of the batch of a step."""
    grown = min(1.0, step / options.growing) if options.growing else 1.0
    low, high = options.trials
    if not ordered:
        return min(_FEW_TRIALS, high), round(_MANY_SETS * options.batch_size * _INDEPENDENT_GROWTH**grown)
    longest = round(low + (high - low) * min(1.0, grown / _LENGTHENING))
    trials = log_uniform(rng, low, longest)
    return trials, max(1, round(options.batch_size * _GROWTH**grown * math.sqrt(low * longest) / trials))


def relative_work(options: BatchOptions, ordered: bool, grown: float) -> float:
    """Trials in a typical batch over those in the first, when a share of the growth is over."""
    if not ordered:
        return _INDEPENDENT_GROWTH**grown
    low, high = options.trials
    return _GROWTH**grown * math.sqrt((low + (high - low) * min(1.0, grown / _LENGTHENING)) / low)
