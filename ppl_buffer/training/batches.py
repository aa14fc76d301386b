"""Batches of simulated data sets, and who sees what in them. NumPy alone.

A batch is a function of (simulator, settings, seed, step) and of nothing else: workers, processes and interruptions
cannot change it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_buffer.schema import Schema
from ppl_buffer.simulator import Arrays, Simulator
from ppl_buffer.training.draws import (
    RejectionCounts,
    atoms,
    check_outcome_samples,
    draw_data,
    draw_params,
    find_legal,
    has_proposal,
    log_density,
    resample,
)

# Streams of random numbers that never meet.
TRAINING, HELD_OUT, PILOT, LESSONS = 0, 1, 2, 3
# In place of the number of an attempt: decides where a step's data come from. Attempts are fewer.
CHOICE = 1000
# Redraws of the dropped data sets of one batch, before the simulator is declared broken.
TRIES = 20
# Probability that a told-set tells nothing at all, and that it tells just the parameters with a special value;
# otherwise it tells each parameter with probability 1/2.
_TELL_NOTHING = 0.35
_TELL_SPECIAL = 0.25
# Probability that a parameter with a special value takes it, where it is told.
_SPECIAL = 0.5
# Share of the batches that tell all parameters of all data sets, where these have a distribution of their own.
_TELL_ALL = 0.5
_CONTEXT_ONLY = 0.5

# No variable can be called so: names are identifiers.
_PROBABILITIES = "first outcome's probabilities"

Tree = dict[str, Any]


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


@dataclass(frozen=True)
class BatchOptions:
    """What decides the shape of batches.

    Args:
        batch_size: data sets in a batch of typical size; longer sequences come in smaller batches.
        trials: least and greatest number of trials of a sequence (ordered) or of a buffer (exchangeable).
        context: least and greatest size of the context; exchangeable only. Sizes of both are drawn log-uniformly.
        condition_masks: sets of told parameters that each data set is used with.
        context_free_fraction: share of the batches without a context, where the least context is 0: likelihoods and evidence in
            one pass start without one.
        outcome_samples: how often the outcomes of a target are drawn, each time given the same parameters and past; the loss
            is the mean over them.
        use_log_likelihood: where all parameters are told, batches hold the simulator's own log density.

    Raises:
        ValueError: if a number is not an integer, too small, or a range not in order, or a share not in [0, 1].
    """

    batch_size: int = 32
    trials: tuple[int, int] = (32, 128)
    context: tuple[int, int] = (0, 64)
    condition_masks: int = 2
    context_free_fraction: float = 0.25
    outcome_samples: int = 1
    use_log_likelihood: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "condition_masks", "outcome_samples"):
            value = getattr(self, name)
            if not _is_count(value, 1):
                raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
        for name, least in (("trials", 1), ("context", 0)):
            value = getattr(self, name)
            pair = tuple(value) if isinstance(value, (tuple, list)) else ()
            if len(pair) != 2 or not all(_is_count(x, least) for x in pair) or pair[0] > pair[1]:
                raise ValueError(f"{name}: expected (least, greatest), integers of at least {least}, got {value!r}")
            object.__setattr__(self, name, (int(pair[0]), int(pair[1])))
        if not 0 <= self.context_free_fraction <= 1:
            raise ValueError(f"context_free_fraction: expected a share from 0 to 1, got {self.context_free_fraction!r}")

    @property
    def typical_trials(self) -> int:
        """Geometric mean of the range of trials."""
        return round(math.sqrt(self.trials[0] * self.trials[1]))

    def size(self, schema: Schema, trials: int, context: int) -> int:
        """Data sets in a batch of so many trials: data sets times trials stay about constant."""
        typical = math.sqrt(self.trials[0] * self.trials[1])
        if not schema.ordered:
            typical += math.sqrt(max(self.context[0], 1) * self.context[1])
        return max(1, round(self.batch_size * typical / (trials + context)))

    def least_size(self, schema: Schema) -> int:
        """Data sets in the smallest batch."""
        return self.size(schema, self.trials[1], 0 if schema.ordered else self.context[1])


@dataclass
class Batch:
    """One batch.

    Attributes:
        data: arrays in nested dicts, the data set first: ``params`` name -> (B,), ``conditioned`` (B, R, P) bool (absent
            without parameters), ``context`` (absent if empty) and ``buffer``, each group -> name -> (B, 1, trials),
            ``targets`` with ``inputs`` and ``outcomes``, ``resampled`` name -> (B, 1, T, redraws - 1), the targets'
            outcomes drawn again (absent where there are none), ``conditioned_log_likelihood`` (B, 1, T), the model's own of the
            targets, all told (absent unless it is to be learnt), ``probabilities`` (B, 1, T, n) where the simulator
            knows them, and ``visible`` (B, R or 1, T), the buffer tokens that a target sees (absent where target t
            sees the first t). None if the simulator gave too few legal data sets.
        counts: data sets drawn and dropped.
    """

    data: Tree | None
    counts: RejectionCounts


def make_batch(simulator: Simulator, settings: BatchOptions, seed: int, step: int, stream: int = TRAINING) -> Batch:
    """The batch of a step.

    Raises:
        ValueError: if outcomes are to be drawn again and the simulator cannot.
    """
    schema = simulator.schema
    check_outcome_samples(simulator, settings.outcome_samples)
    rng = generator(seed, stream, step)
    trials = log_uniform(rng, *settings.trials)
    context = 0 if schema.ordered else context_size(rng, settings)
    size = settings.size(schema, trials, context)
    # Not of the held-out loss: what it compares are predictions under the prior.
    condition_all = stream == TRAINING and has_proposal(simulator) and rng.random() < _TELL_ALL
    if condition_all:
        conditioned = np.ones((size, 1, len(schema.params)), dtype=bool)
    else:
        special = [name in atoms(simulator) for name in schema.params]
        conditioned = condition_masks(rng, size, settings.condition_masks, len(schema.params), special)
    # An exchangeable model has as many targets as buffer trials, none of them the same.
    total = trials if schema.ordered else context + 2 * trials
    drawn, counts = draw(
        simulator, seed, step, stream, size, total, conditioned, "proposal" if condition_all else "prior"
    )
    if drawn is None:
        return Batch(None, counts)
    params, data, probabilities = drawn
    if schema.ordered:
        arrays, chosen = _ordered(schema, params, conditioned, data, probabilities), data
    else:
        arrays, chosen = _exchangeable(schema, rng, params, conditioned, data, probabilities, context, trials)
    # Not of the held-out loss: it stays what it is, nats of a trial.
    known = stream == TRAINING and settings.use_log_likelihood
    if known:
        arrays["conditioned_log_likelihood"] = log_density(simulator, params, chosen).astype(np.float32)[:, None]
    # Of the set that tells all, which has its density, no outcome is drawn again.
    if settings.outcome_samples > 1 and conditioned.shape[1] > int(known):
        again = resample(simulator, rng, params, chosen, settings.outcome_samples - 1)
        arrays["resampled"] = {name: x.astype(np.float32)[:, None] for name, x in again.items()}
    return Batch(arrays, counts)


def log_uniform(rng: np.random.Generator, low: int, high: int) -> int:
    """An integer from `low` to `high`."""
    return min(max(round(math.exp(rng.uniform(math.log(low), math.log(high)))), low), high)


def context_size(rng: np.random.Generator, settings: BatchOptions) -> int:
    """How many trials of an exchangeable model are the context."""
    # Log-uniform as well: what a context tells grows with its logarithm, and large ones are slow.
    low, high = settings.context
    if high > 0 and (low > 0 or rng.random() >= settings.context_free_fraction):
        return log_uniform(rng, max(low, 1), high)
    return 0


def generator(seed: int, stream: int, step: int, attempt: int = 0) -> np.random.Generator:
    """The random numbers of a step."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, step, attempt)))


def condition_masks(
    rng: np.random.Generator, size: int, sets: int, params: int, special: Sequence[bool] = ()
) -> np.ndarray:
    """Which parameters each told-set tells: (size, sets, params) bool; (size, 1, 0) without parameters.

    The first set tells all. Each other tells nothing with probability 0.35, just the parameters that have a `special`
    value (if any has) with probability 0.25, else each parameter with probability 1/2.
    """
    if not params:
        return np.ones((size, 1, 0), dtype=bool)
    conditioned = rng.random((size, sets, params)) < 0.5
    kind = rng.random((size, sets, 1))
    conditioned &= kind >= _TELL_NOTHING
    if any(special):
        conditioned = np.where(kind >= 1 - _TELL_SPECIAL, np.asarray(special), conditioned)
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
    prior: str = "prior",
) -> tuple[tuple[Arrays, Arrays, np.ndarray | None] | None, RejectionCounts]:
    """Draw `size` legal data sets; those with illegal values are drawn again, from a seed of their own.

    Args:
        simulator: what draws.
        seed: of the run.
        step: of the run.
        stream: TRAINING, HELD_OUT or PILOT.
        size: data sets.
        trials: trials of each.
        conditioned: (size, R, P) bool: what may take a special value. None = nothing.
        prior: the simulator's method that draws parameters.

    Returns:
        (parameters (size,), data (size, trials), probabilities), or None if too few were legal; and the counts.
    """
    schema, counts = simulator.schema, RejectionCounts()
    params: list[Arrays] = []
    data: list[Arrays] = []
    missing = np.arange(size)
    places = []
    for attempt in range(1, TRIES + 1):
        rng = generator(seed, stream, step, attempt)
        new_params = draw_params(simulator, rng, len(missing), prior)
        if conditioned is not None:
            for name, value in atoms(simulator).items():
                always_told = conditioned[missing, :, list(schema.params).index(name)].all(1)
                chosen = always_told & (rng.random(len(missing)) < _SPECIAL)
                new_params[name] = np.where(chosen, value, new_params[name])
        new_data, probabilities = draw_data(simulator, rng, new_params, len(missing), trials)
        good, new = find_legal(schema, new_params, new_data)
        counts.add(new)
        if probabilities is not None:
            new_data[_PROBABILITIES] = probabilities
        params.append({name: x[good] for name, x in new_params.items()})
        data.append({name: x[good] for name, x in new_data.items()})
        places.append(missing[good])
        missing = missing[~good]
        if not len(missing):
            break
    else:
        return None, counts
    # Each data set goes back to its place: its told-sets were drawn for it.
    order = np.argsort(np.concatenate(places))
    joined_params, joined = _join(params, order), _join(data, order)
    return (joined_params, joined, joined.pop(_PROBABILITIES, None)), counts


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


def _ordered(
    schema: Schema, params: Arrays, conditioned: np.ndarray, data: Arrays, probabilities: np.ndarray | None
) -> Tree:
    """Teacher forcing: the whole sequence is the buffer, and every trial a target that sees those before it."""
    batch = _common(params, conditioned)
    batch["buffer"], batch["targets"] = trial_arrays(schema, data, PAIR), trial_arrays(schema, data, TARGET)
    if probabilities is not None:
        batch["probabilities"] = probabilities.astype(np.float32)[:, None]
    return batch


def _exchangeable(
    schema: Schema,
    rng: np.random.Generator,
    params: Arrays,
    conditioned: np.ndarray,
    data: Arrays,
    probabilities: np.ndarray | None,
    context: int,
    trials: int,
) -> tuple[Tree, Arrays]:
    """Disjoint context, buffer and targets; half of the targets see the context only, the others a buffer prefix.

    Returns the batch, and the targets' data, each (B, T).

    Without a context every target sees a prefix, the empty one as often as any other.
    """
    batch = _common(params, conditioned)
    size, total = len(conditioned), context + 2 * trials
    # The simulator may give its inputs in some order, a grid for instance.
    shuffle = rng.permuted(np.broadcast_to(np.arange(total), (size, total)), axis=1)
    parts = {"context": slice(context), "buffer": slice(context, context + trials)}
    for part, where in parts.items():
        if part == "buffer" or context:
            chosen = {name: np.take_along_axis(x, shuffle[:, where], 1) for name, x in data.items()}
            batch[part] = trial_arrays(schema, chosen, PAIR)
    places = shuffle[:, context + trials :]
    chosen = {name: np.take_along_axis(x, places, 1) for name, x in data.items()}
    batch["targets"] = trial_arrays(schema, chosen, TARGET)
    if probabilities is not None:
        batch["probabilities"] = np.take_along_axis(probabilities, places[..., None], 1).astype(np.float32)[:, None]
    visible = visible_trials(rng, size, trials, context)
    if schema.independent and schema.params:
        # Where all is told the buffer is skipped in use, so it is skipped in training.
        visible = np.where(conditioned.all(-1, keepdims=True), 0, visible)
    batch["visible"] = visible
    return batch, chosen


def visible_trials(rng: np.random.Generator, size: int, trials: int, context: int) -> np.ndarray:
    """How many trials of the buffer each target sees: (size, 1, trials), one target for each trial of the buffer."""
    if not context:
        # Without a context the one-pass density sees each prefix once, and the empty one is no special case.
        return rng.integers(0, trials, (size, 1, trials))
    visible = rng.integers(1, trials + 1, (size, 1, trials))
    return np.where(rng.random(visible.shape) < _CONTEXT_ONLY, 0, visible)


def map_arrays(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """Apply a function to every array of nested dicts."""
    return {key: map_arrays(function, x) if isinstance(x, dict) else function(x) for key, x in tree.items()}
