"""Batches of the direct likelihood's training: every parameter is given, nothing is seen but the past. NumPy alone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ppl_buffer.simulator import Simulator
from ppl_buffer.training.abilities import check_outcome_samples, has_proposal
from ppl_buffer.training.batches import (
    REHEARSAL,
    TRAINING,
    Batch,
    BatchOptions,
    Tree,
    add_targets,
    draw,
    generator,
    log_uniform,
    map_arrays,
    ordered_batch,
)
from ppl_buffer.training.draws import RejectionCounts
from ppl_buffer.training.missing import draw_lost

# Trials of a data set where they are independent, and data sets for each one that was asked for: many parameter values
# with few trials each.
_FEW_TRIALS, _MANY_SETS = 8, 8
# By how much the number of data sets grows in the course of the training, at most; and steps of it for each time its
# first size: at first many steps count, at the end little noise.
_GROWTH, _SLOWLY = 4.0, 750
# Share of this time in which the longest sequence grows from the shortest: short ones teach most in the same time.
_LENGTHENING = 0.5
# Share of the batches whose parameters come from the simulator's proposal, where it has one.
_PROPOSED = 0.5
# Steps whose batches are drawn at once: a simulator in NumPy needs a fifth of the time for a data set among 500.
BLOCK = 16


def make_likelihood_batches(
    simulator: Simulator, options: BatchOptions, seed: int, block: int, stream: int = TRAINING, count: int = BLOCK
) -> list[Batch]:
    """The batches of a block of `count` steps: whole sequences where trials depend on each other, else a few trials.

    Their data are as those of `make_batch`, with one condition mask, which holds all parameters. The targets are the
    trials of the buffer, each of which sees those before it. Where outcomes may be missing, of ordered models, the
    buffer also has a group ``lost``: name -> (B, 1, trials) bool. The targets are then the same: what was lost was
    made, and its density is that given what was seen. In some batches, of networks that take them, parameters change:
    they are then (B, trials). Nothing is lost or changes in data sets that are held out, but in those of a rehearsal.

    Raises:
        ValueError: if outcomes are to be drawn again and the simulator cannot.
    """
    schema = simulator.schema
    check_outcome_samples(simulator, options.outcome_samples)
    rng, as_trained = generator(seed, stream, block), stream in (TRAINING, REHEARSAL)
    trials, size = _shape(rng, options, schema.ordered, count * block if stream == TRAINING else None)
    # Not of the held-out loss: the error is a mean under the prior.
    propose = stream == TRAINING and has_proposal(simulator) and rng.random() < _PROPOSED
    conditioned = np.ones((count * size, 1, len(schema.params)), dtype=bool)
    # Of few blocks only: parameters with a trial axis cost time.
    changing = as_trained and 0 < options.changing_fraction and rng.random() < options.changing_fraction
    data_sets, counts = draw(
        simulator, seed, block, stream, count * size, trials, conditioned, propose, changing=changing
    )
    if data_sets is None:
        return [Batch(None, counts)] * count
    params, data, probabilities = data_sets
    arrays = ordered_batch(schema, params, conditioned, data, probabilities)
    lost = None
    if options.missing_fraction and as_trained:
        lost = draw_lost(rng, schema, options.missing_fraction, count * size, trials)
        arrays["buffer"]["lost"] = {name: x[:, None] for name, x in lost.items()}
    add_targets(simulator, options, rng, arrays, params, data, lost=lost, training=as_trained)
    # What was dropped counts for the first batch.
    counted = [replace(counts, simulated=counts.simulated - (count - 1) * size)]
    counted += [RejectionCounts(size) for _ in range(count - 1)]
    rows = [slice(index * size, (index + 1) * size) for index in range(count)]
    return [Batch(_part(arrays, part), own) for part, own in zip(rows, counted, strict=True)]


def _part(arrays: Tree, rows: slice) -> Tree:
    return map_arrays(lambda x: x[rows], arrays)


def _shape(rng: np.random.Generator, options: BatchOptions, ordered: bool, step: int | None) -> tuple[int, int]:
    """Trials of each data set, and data sets, of the batch of a step; None = of one that is held out."""
    if step is None:
        options, step = replace(options, growing=0), 0
    grown = min(1.0, step / options.growing) if options.growing else 1.0
    growth = _growth(options) ** grown
    low, high = options.trials
    if not ordered:
        return min(_FEW_TRIALS, high), round(_MANY_SETS * options.batch_size * growth)
    longest = round(low + (high - low) * min(1.0, grown / _LENGTHENING))
    trials = log_uniform(rng, low, longest)
    return trials, max(1, round(options.batch_size * growth * math.sqrt(low * longest) / trials))


def _growth(options: BatchOptions) -> float:
    """By how much the number of data sets grows: in a short training every step counts."""
    return min(_GROWTH, max(1.0, options.growing / _SLOWLY)) if options.growing else _GROWTH


def relative_work(options: BatchOptions, ordered: bool, grown: float) -> float:
    """Trials in a typical batch over those in the first, when a share of the growth is over."""
    growth = _growth(options) ** grown
    if not ordered:
        return growth
    low, high = options.trials
    return growth * math.sqrt((low + (high - low) * min(1.0, grown / _LENGTHENING)) / low)
