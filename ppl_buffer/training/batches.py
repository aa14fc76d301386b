"""Batches of simulated data sets, and who sees what in them. NumPy alone.

A batch is a function of (simulator, options, seed, step) and of nothing else: workers, processes and interruptions
cannot change it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ppl_buffer.schema import Schema
from ppl_buffer.simulator import Arrays, Simulator, WithLogLikelihood, WithSeenLogLikelihood, WithStoredSets
from ppl_buffer.stored import Runs
from ppl_buffer.training.abilities import atoms_of, check_outcome_samples, has_proposal
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.changing_params import VALUES, mix
from ppl_buffer.training.draws import (
    RejectionCounts,
    Seen,
    augment_data,
    draw_data,
    draw_params,
    draw_proposal,
    draw_stored,
    find_legal,
    resample,
)
from ppl_buffer.training.log_likelihoods import known_log_likelihood, seen_log_likelihood
from ppl_buffer.training.roles import Kinds, Roles, assign_roles, draw_kinds, order_input

# Streams of random numbers that never meet. Of the last one are batches that nobody learns from, made as those of the
# training are.
TRAINING, HELD_OUT, STANDARDIZATION, DISTILLATION, REHEARSAL = 0, 1, 2, 3, 4
# In place of the number of an attempt: decides where a step's data come from. Attempts are fewer.
SOURCE = 1000
# Attempts to replace the dropped data sets of one batch, before the simulator is declared broken.
TRIES = 20
# Probability that a condition mask holds no parameter, and that it holds just the parameters with an atom; otherwise
# it holds each parameter with probability 1/2.
_NO_PARAMETER = 0.35
_ATOMS_ALONE = 0.25
# Probability that a parameter with an atom takes its value, where it is conditioned on.
_AT_ATOM = 0.5
# Share of the batches that condition all data sets on all parameters, where the simulator has a proposal for these.
_ALL_PARAMETERS = 0.5

# No variable can be called so: names are identifiers.
_PROBABILITIES = "probabilities of "

Tree = dict[str, Any]


@dataclass
class Batch:
    """One batch.

    Attributes:
        data: arrays in nested dicts, the data set first; None if the simulator gave too few legal data sets.

            - ``params``: name -> (B,);
            - ``conditioned``: (B, R, P) bool, the condition masks (absent without parameters);
            - ``context`` and ``buffer`` (absent if empty): each group -> name -> (B, 1, trials);
            - ``targets``: ``inputs`` and ``outcomes``, name -> (B, 1, T);
            - ``resampled``: name -> (B, 1, T, outcome_samples - 1), the targets' outcomes drawn again (absent where
              there are none);
            - ``conditioned_log_likelihood``: (B, 1, T), the simulator's own log likelihood of the targets given all
              parameters and what was seen of the past (absent unless it is to be learnt); NaN where something was
              lost and the simulator does not know it;
            - ``probabilities``: name -> (B, 1, T, n), of the outcomes of which the simulator knows them (absent where
              it knows none);
            - ``visible``: (B, R or 1, T), the number of buffer tokens that a target sees (absent where target t sees
              the first t).
        counts: data sets drawn and dropped.
    """

    data: Tree | None
    counts: RejectionCounts


def make_batch(simulator: Simulator, options: BatchOptions, seed: int, step: int, stream: int = TRAINING) -> Batch:
    """The batch of a step.

    Raises:
        ValueError: if outcomes are to be drawn again and the simulator cannot.
    """
    schema = simulator.schema
    check_outcome_samples(simulator, options.outcome_samples)
    rng = generator(seed, stream, step)
    trials = log_uniform(rng, *options.trials)
    context = 0 if schema.ordered else context_size(rng, options)
    size = options.size(schema, trials, context)
    # Not of the held-out loss: what it compares are predictions under the prior.
    propose = stream == TRAINING and has_proposal(simulator) and rng.random() < _ALL_PARAMETERS
    if propose:
        conditioned = np.ones((size, 1, len(schema.params)), dtype=bool)
    else:
        with_atom = [name in atoms_of(simulator) for name in schema.params]
        conditioned = condition_masks(rng, size, options.condition_masks, len(schema.params), with_atom)
    sizes, kinds = options.sizes(size, trials, context), None
    if options.forecasting or options.gap_filling or options.in_order:
        shares = options.forecasting, options.gap_filling, options.in_order
        kinds = draw_kinds(rng, size, order_input(schema, options.order_by), *shares)
    total = trials if schema.ordered else sizes.total
    data_sets, counts = draw(simulator, seed, step, stream, size, total, conditioned, propose, kinds)
    if data_sets is None:
        return Batch(None, counts)
    params, data, probabilities = data_sets
    seen = None
    if schema.ordered:
        arrays, targets = ordered_batch(schema, params, conditioned, data, probabilities), data
    else:
        roles = assign_roles(rng, sizes, data, kinds, options.context_only)
        if options.context_only == 1:
            roles = replace(roles, buffer=roles.buffer[:, :0])  # nobody reads it
        arrays, targets = _exchangeable(schema, roles, params, conditioned, data, probabilities)
        if options.outcome_samples > 1 and not schema.independent:
            seen = Seen(*roles.seen(data))
    add_targets(simulator, options, rng, arrays, params, targets, seen, training=stream == TRAINING)
    return Batch(arrays, counts)


def add_targets(
    simulator: Simulator,
    options: BatchOptions,
    rng: np.random.Generator,
    batch: Tree,
    params: Arrays,
    targets: Arrays,
    seen: Seen | None = None,
    lost: Arrays | None = None,
    *,
    training: bool,
) -> None:
    """Add to a batch what else is known of its targets: the log likelihood, outcomes drawn again.

    Args:
        simulator: what draws.
        options: whether and how often.
        rng: for the draws.
        batch: where they are added.
        params: (B,).
        targets: inputs, outcomes and feedback, (B, T).
        seen: by targets that depend on it, of an exchangeable model.
        lost: outcomes and feedback of an ordered model, each (B, T) bool. None = nothing.
        training: whether the batch is for training.
    """
    # Not of the held-out loss: it stays what it is, nats of a trial.
    known = training and options.use_log_likelihood
    if known:
        assert isinstance(simulator, WithLogLikelihood)
        log_likelihood = _given_what_was_seen(simulator, simulator.schema, rng, params, targets, lost)
        batch["conditioned_log_likelihood"] = log_likelihood.astype(np.float32)[:, None]
    masks = batch["conditioned"].shape[1] if params else 1
    # Of the first condition mask, which has its density, no outcome is drawn again.
    if options.outcome_samples > 1 and masks > int(known):
        again = resample(simulator, rng, params, targets, options.outcome_samples - 1, seen)
        batch["resampled"] = {name: x.astype(np.float32)[:, None] for name, x in again.items()}


def _given_what_was_seen(
    simulator: WithLogLikelihood,
    schema: Schema,
    rng: np.random.Generator,
    params: Arrays,
    data: Arrays,
    lost: Arrays | None,
) -> np.ndarray:
    """The log likelihood given what was seen of the past; NaN where the simulator does not know it.

    Args:
        simulator: what draws.
        schema: the simulator's.
        rng: for an estimate.
        params: (B,).
        data: (B, T).
        lost: (B, T) bool. None = nothing.
    """
    if lost is not None and isinstance(simulator, WithSeenLogLikelihood):
        return seen_log_likelihood(simulator, rng, schema, params, data, lost)
    known = known_log_likelihood(simulator, schema, params, data)
    if lost is None:
        return known
    some = np.stack(list(lost.values())).any(0)
    follows = (np.cumsum(some, -1) - some) > 0
    # An outcome on its bound teaches nothing, whatever was lost before.
    return np.where(follows & np.isfinite(known), np.nan, known)


def log_uniform(rng: np.random.Generator, low: int, high: int) -> int:
    """An integer from `low` to `high`."""
    return min(max(round(math.exp(rng.uniform(math.log(low), math.log(high)))), low), high)


def context_size(rng: np.random.Generator, options: BatchOptions) -> int:
    """How many trials of an exchangeable model are the context."""
    # Log-uniform as well: what a context says grows with its logarithm, and large ones are slow.
    low, high = options.context
    if high > 0 and (low > 0 or rng.random() >= options.context_free_fraction):
        return log_uniform(rng, max(low, 1), high)
    return 0


def generator(seed: int, stream: int, step: int, attempt: int = 0) -> np.random.Generator:
    """The random numbers of a step."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, step, attempt)))


def condition_masks(
    rng: np.random.Generator, size: int, masks: int, params: int, with_atom: Sequence[bool] = ()
) -> np.ndarray:
    """Which parameters each data set is conditioned on: (size, masks, params) bool; (size, 1, 0) without parameters.

    The first mask holds all. Each other holds none with probability 0.35, just the parameters `with_atom` (if there are
    any) with probability 0.25, else each parameter with probability 1/2.
    """
    if not params:
        return np.ones((size, 1, 0), dtype=bool)
    conditioned = rng.random((size, masks, params)) < 0.5
    kind = rng.random((size, masks, 1))
    conditioned &= kind >= _NO_PARAMETER
    if any(with_atom):
        conditioned = np.where(kind >= 1 - _ATOMS_ALONE, np.asarray(with_atom), conditioned)
    conditioned[:, 0] = True
    return conditioned


def draw(
    simulator: Simulator,
    seed: int,
    step: int,
    stream: int,
    size: int,
    trials: int,
    conditioned: np.ndarray | None = None,
    propose: bool = False,
    kinds: Kinds | None = None,
    changing: bool = False,
) -> tuple[tuple[Arrays, Arrays, Arrays] | None, RejectionCounts]:
    """Draw `size` legal data sets; those with illegal values are drawn again, from a seed of their own.

    Args:
        simulator: what draws.
        seed: of the run.
        step: of the run.
        stream: TRAINING, HELD_OUT, STANDARDIZATION, DISTILLATION or REHEARSAL.
        size: data sets.
        trials: trials of each.
        conditioned: (size, R, P) bool: which parameters may be at an atom. None = none.
        propose: draw the parameters from the simulator's proposal in place of its prior.
        kinds: of the data sets: of stored ones those that forecast or fill a gap are runs of trials without one.
        changing: let parameters change from trial to trial.

    Returns:
        (parameters (size,), or (size, trials) where they change; data (size, trials); probabilities (size, trials, n)),
        or None if too few were legal; and the counts.
    """
    schema, counts = simulator.schema, RejectionCounts()
    params: list[Arrays] = []
    data: list[Arrays] = []
    missing = np.arange(size)
    places = []
    for attempt in range(1, TRIES + 1):
        rng = generator(seed, stream, step, attempt)
        if isinstance(simulator, WithStoredSets):
            held_out = stream in (HELD_OUT, REHEARSAL)
            runs = None if kinds is None else Runs(kinds.order_by, kinds.stretches[missing])
            new_params, new_data = draw_stored(
                simulator, schema, rng, len(missing), trials, held_out=held_out, runs=runs
            )
            if not held_out:
                # There are no more of them, and by their symmetries each is several.
                new_data = augment_data(simulator, rng, new_data)
            probabilities: Arrays = {}
        else:
            always = None if conditioned is None else np.asarray(conditioned[missing].all(1))
            new_params = _draw_params(simulator, rng, len(missing), always, propose)
            if changing:
                others = [_draw_params(simulator, rng, len(missing), always, propose) for _ in range(VALUES - 1)]
                new_params = mix(simulator, rng, [new_params, *others], trials)
            new_data, probabilities = draw_data(simulator, rng, new_params, len(missing), trials)
        good, new = find_legal(schema, new_params, new_data)
        counts.add(new)
        new_data |= {_PROBABILITIES + name: x for name, x in probabilities.items()}
        params.append({name: x[good] for name, x in new_params.items()})
        data.append({name: x[good] for name, x in new_data.items()})
        places.append(missing[good])
        missing = missing[~good]
        if not len(missing):
            break
    else:
        return None, counts
    # Each data set goes back to its place: its condition masks were drawn for it.
    order = np.argsort(np.concatenate(places))
    joined_params, joined = _join(params, order), _join(data, order)
    known = [name for name in joined if name.startswith(_PROBABILITIES)]
    probabilities = {name.removeprefix(_PROBABILITIES): joined.pop(name) for name in known}
    return (joined_params, joined, probabilities), counts


def _draw_params(
    simulator: Simulator, rng: np.random.Generator, size: int, always: np.ndarray | None, propose: bool
) -> Arrays:
    """Parameters (size,), some at an atom where all masks hold them, as `always` says, (size, P)."""
    params = (draw_proposal if propose else draw_params)(simulator, rng, size)
    if always is not None:
        for name, value in atoms_of(simulator).items():
            at_atom = always[:, list(simulator.schema.params).index(name)] & (rng.random(size) < _AT_ATOM)
            params[name] = np.where(at_atom, value, params[name])
    return params


def _join(pieces: list[Arrays], order: np.ndarray) -> Arrays:
    return {name: np.concatenate([piece[name] for piece in pieces])[order] for name in pieces[0]}


def trial_arrays(schema: Schema, data: Arrays, groups: tuple[str, ...]) -> dict[str, Arrays]:
    """Group -> name -> float32 (B, 1, trials), as a batch holds them."""
    arrays = {name: x.astype(np.float32)[:, None] for name, x in data.items()}
    return {group: {name: arrays[name] for name in getattr(schema, group)} for group in groups}


PAIR = ("inputs", "outcomes", "feedback")
TARGET = ("inputs", "outcomes")


def _common(params: Arrays, conditioned: np.ndarray) -> Tree:
    if not params:
        return {"params": {}}
    return {"params": {name: x.astype(np.float32) for name, x in params.items()}, "conditioned": conditioned}


def ordered_batch(schema: Schema, params: Arrays, conditioned: np.ndarray, data: Arrays, probabilities: Arrays) -> Tree:
    """Teacher forcing: the whole sequence is the buffer, and every trial a target that sees those before it."""
    batch = _common(params, conditioned)
    batch["buffer"], batch["targets"] = trial_arrays(schema, data, PAIR), trial_arrays(schema, data, TARGET)
    if probabilities:
        batch["probabilities"] = {name: x.astype(np.float32)[:, None] for name, x in probabilities.items()}
    return batch


def _exchangeable(
    schema: Schema, roles: Roles, params: Arrays, conditioned: np.ndarray, data: Arrays, probabilities: Arrays
) -> tuple[Tree, Arrays]:
    """Context, buffer and targets of exchangeable data sets.

    Returns:
        the batch, and the targets' data, each (B, T).
    """
    batch = _common(params, conditioned)
    for part, places in (("context", roles.context), ("buffer", roles.buffer)):
        if places.shape[1]:
            rows = {name: np.take_along_axis(x, places, 1) for name, x in data.items()}
            batch[part] = trial_arrays(schema, rows, PAIR)
    targets = {name: np.take_along_axis(x, roles.targets, 1) for name, x in data.items()}
    batch["targets"] = trial_arrays(schema, targets, TARGET)
    if probabilities:
        places = roles.targets[..., None]
        probabilities = {name: np.take_along_axis(x, places, 1) for name, x in probabilities.items()}
        batch["probabilities"] = {name: x.astype(np.float32)[:, None] for name, x in probabilities.items()}
    batch["visible"] = roles.visible
    if schema.independent and schema.params:
        # Where all parameters are given the buffer is skipped in use, so it is skipped in training.
        batch["visible"] = np.where(conditioned.all(-1, keepdims=True), 0, roles.visible)
    return batch, targets


def map_arrays(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """Apply a function to every array of nested dicts."""
    return {key: map_arrays(function, x) if isinstance(x, dict) else function(x) for key, x in tree.items()}
