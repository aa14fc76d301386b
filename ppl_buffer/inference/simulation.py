"""Draws of whole data sets under many parameter draws: posterior and prior predictive simulation at scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ppl_buffer.checks import check_integer, check_number, check_seed, is_integer
from ppl_buffer.files import to_numpy
from ppl_buffer.inference.chunks import chunks, new_in_chunks, run_groups
from ppl_buffer.inference.draws import (
    align_lapse,
    by_variation,
    conditioned_params,
    flat_draws,
    sample_shape,
    varying_params,
)
from ppl_buffer.inference.streams import uniform_streams
from ppl_buffer.inference.subjects import flatten_leaves, flatten_trials, last_trials, rows_of_similar_length
from ppl_buffer.network.arguments import check_params
from ppl_buffer.network.backend import Array, Environment, backend_of
from ppl_buffer.network.lapses import Lapse, check_lapse
from ppl_buffer.network.missing import Missing
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import EncodedContext, ObservedTrials
from ppl_buffer.network.unfamiliar import warn_unfamiliar
from ppl_buffer.predictive import sampling
from ppl_buffer.predictive.program import in_one_program
from ppl_buffer.predictive.query import Query
from ppl_buffer.schema import Schema

_FLOAT_BYTES = 4
# A rollout holds its buffer, and for a moment its successor.
_COPIES = 2


@dataclass(frozen=True)
class Simulated:
    """Simulated data sets; NumPy arrays, NaN where there is no trial, and omissions as `ppl_buffer.Missing` has them.

    Attributes:
        value: outcomes, (*S, *B, K) or (*S, *B, K, n_outcomes).
        feedback: dict name -> (*S, *B, K), what the environment gave.
        log_prob: (*S, *B, K), log density of each trial given the simulated trials before it.
    """

    value: np.ndarray
    feedback: dict[str, np.ndarray]
    log_prob: np.ndarray


def posterior_predictive(
    net: Network,
    inputs: Mapping[str, Array] | ObservedTrials,
    params: Mapping[str, Array] | None = None,
    *,
    trial_params: Mapping[str, Array] | None = None,
    draws: int | None = None,
    trials: int | None = None,
    trial_mask: Array | None = None,
    missing: Missing | None = None,
    context: Mapping[str, Array] | EncodedContext | None = None,
    environment: Environment | None = None,
    lapse: Array | Lapse | None = None,
    seed: int = 0,
    memory: float | None = None,
    devices: Sequence[Any] | None = None,
    progress: bool = True,
) -> Simulated:
    """Simulate data sets under posterior draws of their parameters, in chunks that fit the memory.

    People of similar length are rolled out together, so that padding costs little. A draw depends on the seed, its own
    index and its data set alone: neither chunks nor devices nor the backend change it.

    Args:
        net: a network of either backend.
        inputs: dict name -> (*B, K), or what ``net.observe(...)`` returned, whose inputs, trial mask, deadlines and
            context then count.
        params: dict name -> (*S, *B): parameters to condition on, draws first, as ``MCMC.get_samples()`` has them, or
            (*S,) for one that all data sets share. Any subset of the schema's; where all are given, other sites of a
            model may be there too, and are ignored.
        trial_params: dict name -> (*S, *B, K): those that vary by trial, beside all others in `params`.
        draws: number of draws; needed only without `params`.
        trials: number of trials K; needed only where there are no inputs.
        trial_mask: (*B, K) bool; False = no such trial.
        missing: a `ppl_buffer.Missing` whose deadline the simulated data have too: what comes later is an omission.
            Nothing is lost in them. What was observed with one need not be given it again.
        context: points to predict from, dict of arrays (*B, N), or what ``net.encode(...)`` returned.
        environment: gives the feedback on drawn outcomes; see `JointPredictive`.
        lapse: probability of a lapse, (*S, *B) or fewer dimensions; or a `Lapse` of such a rate.
        seed: of the draws.
        memory: gigabytes that a chunk of draws may take for its buffers; None = what is fastest: about a processor's
            cache in JAX, where chunks are computed on all cores at once, else 2.
        devices: devices to share the draws: of JAX (one program, the draws sharded over them) or of torch (a copy of
            the network on each). None = the device that the network is on.
        progress: show a progress bar.

    Returns:
        the simulated data sets.

    Raises:
        ValueError: if shapes do not fit, the number of draws is not known, or feedback is needed and no environment
            supplies it.
    """
    if memory is not None:
        memory = check_number("memory", memory, "gigabytes above 0", lambda x: x > 0)
    seed, devices = check_seed(seed), check_devices(devices)
    # Checks the arguments and broadcasts the data; parameters come chunk by chunk.
    given = {} if params is None else conditioned_params(net.schema, params, trial_params or ())
    check_params(net, given, check=True)
    whole = Query.build(
        net, inputs, trials=trials, trial_mask=trial_mask, missing=missing, context=context, environment=environment,
        later={*given, *(trial_params or ())},
    )  # fmt: skip
    batch, size = whole.batch_shape, math.prod(whole.batch_shape)
    varying = varying_params(net, trial_params, given, whole.trials, whole.trial_mask)
    lead = _sample_shape(given, varying, batch, draws)
    count, conditioned = math.prod(lead), flat_draws(given, varying, lead, batch)
    if lapse is not None:
        rate = np.asarray(to_numpy(check_lapse(net, lapse)[0]), np.float32)
        conditioned[_LAPSE] = align_lapse(rate, lead, batch).reshape(count, size)
    rollouts = _Rollouts(whole, conditioned, environment, Lapse.of(lapse), seed, devices)
    memory = backend_of(net).rollout_memory() if memory is None else memory
    results = _empty_results(net.schema, (count, size, whole.trials))
    # Devices that are named share each chunk.
    workers = 1 if devices else backend_of(net).workers()
    with tqdm(total=count * size, disable=not progress, unit="data set", desc="simulation") as bar:
        groups = [rollouts.work(results, subjects, count, memory) for subjects in rows_of_similar_length(rollouts.mask)]
        run_groups(groups, workers, bar.update)
    some = {name: x[:_LOOKED_AT] for name, x in results.feedback.items()}
    warn_unfamiliar(net, {"environment": some}, rollouts.mask, rollouts.direct, stacklevel=3)
    shape = (*lead, *batch, whole.trials)
    return Simulated(
        results.value.reshape((*shape, *net.schema.event_shape_tail)),
        {name: x.reshape(shape) for name, x in results.feedback.items()},
        results.log_prob.reshape(shape),
    )


def check_devices(devices: Sequence[Any] | None) -> list[Any]:
    """Devices, of JAX or of torch, which that library looks at.

    Raises:
        ValueError: if they are no list.
    """
    if devices is not None and not isinstance(devices, (list, tuple)):
        raise ValueError(f"devices: expected a list of devices, got {devices!r}")
    return list(devices or [])


# Draws whose feedback is compared with that of the training.
_LOOKED_AT = 20
# No parameter can be called so: names are identifiers.
_LAPSE = "probability of a lapse"


def _empty_results(schema: Schema, shape: tuple[int, ...]) -> Simulated:
    """Arrays (S, P, K) to write into, NaN wherever nothing will be written."""
    return Simulated(
        np.full((*shape, len(schema.outcomes)), np.nan, np.float32),
        {name: np.full(shape, np.nan, np.float32) for name in schema.feedback},
        np.full(shape, np.nan, np.float32),
    )


class _Rollouts:
    """Rollouts of data sets whose batch dimensions are made one, P in number, some draws and some subjects at a time.

    Args:
        whole: the data of everybody, without parameters.
        conditioned: name -> (S, P), what each draw is conditioned on, the probability of a lapse among it; (S, P, K)
            of what varies by trial.
        environment: gives the feedback on drawn outcomes.
        lapse: what a lapse looks like, or None; its rate is among `conditioned`.
        seed: of the draws.
        devices: devices that share each chunk.
    """

    def __init__(
        self,
        whole: Query,
        conditioned: Mapping[str, np.ndarray],
        environment: Environment | None,
        lapse: Lapse | None,
        seed: int,
        devices: Sequence[Any],
    ) -> None:
        batch = whole.batch_shape
        self.net, self.trials, self.size = whole.net, whole.trials, math.prod(batch)
        self.conditioned, self.environment, self.lapse = conditioned, environment, lapse
        self.seed, self.devices = seed, devices
        self.direct = self.net.preferred_likelihood == "direct" and set(self.net.schema.params) <= set(conditioned)
        self.inputs = {name: flatten_trials(x, batch, whole.trials) for name, x in whole.inputs.items()}
        exists = True if whole.trial_mask is None else whole.trial_mask
        self.mask = flatten_trials(exists, batch, whole.trials)
        self.missing_at = whole.missing_at
        self.deadline = None if whole.deadline is None else flatten_trials(whole.deadline, batch, whole.trials)
        self.context = None
        if whole.context is not None:
            depth = len(whole.context.batch_shape)
            self.context = flatten_leaves(backend_of(self.net).ops, whole.context, depth, batch)
        self.noise_shape = sampling.noise_shape(whole)[-2:]

    def work(self, results: Simulated, subjects: np.ndarray, count: int, memory: float) -> Iterator[Callable[[], int]]:
        """Pieces of work that write all draws of some subjects into the results, and return how many data sets."""
        longest = int(last_trials(self.mask[subjects]).max())
        length = min(backend_of(self.net).bucket(longest), self.trials)
        at_once = _draws_at_once(self.net, self.direct, len(subjects), length, memory, count)

        def piece(draws: np.ndarray, added: int) -> int:
            self._simulate(results, draws, subjects, length)
            return added * len(subjects)

        for draws, added in zip(chunks(count, at_once), new_in_chunks(count, at_once), strict=True):
            yield partial(piece, draws, added)

    def _simulate(self, results: Simulated, draws: np.ndarray, subjects: np.ndarray, length: int) -> None:
        """Write some draws of some subjects, of at most so many trials, into the results."""
        exists = self.mask[subjects, :length]
        inputs = {name: x[subjects, :length] for name, x in self.inputs.items()}
        context = None if self.context is None else self.context[subjects]
        missing = self.missing_at(None if self.deadline is None else self.deadline[subjects, :length])

        def rollout(net: Network, conditioned: Mapping[str, Array], noise: Any) -> Any:
            params, by_trial = by_variation({name: x for name, x in conditioned.items() if name != _LAPSE})
            lapse = None if self.lapse is None else self.lapse.at(conditioned[_LAPSE])
            query = Query.build(
                net, inputs, trials=length, params=params, trial_params=by_trial, trial_mask=exists,
                missing=missing, context=context, lapse=lapse, environment=self.environment, outside="ignore",
                check=False, expand=False,
            )  # fmt: skip
            return in_one_program(sampling.rollout, query, noise)

        conditioned = {name: x[draws][:, subjects] for name, x in self.conditioned.items()}
        conditioned = {name: x if x.ndim == 2 else x[..., :length] for name, x in conditioned.items()}
        noise = _noise(self.seed, draws, self.size, self.noise_shape)[:, subjects, :length]
        value, feedback, log_prob = backend_of(self.net).on_devices(rollout, self.net, self.devices, conditioned, noise)
        sampling.check_feedback(self.net, feedback, exists, self.deadline is not None)
        rows = np.ix_(draws, subjects, np.arange(length))
        value = to_numpy(value).reshape((*noise.shape[:3], results.value.shape[-1]))
        results.value[rows] = np.where(exists[..., None], value, np.nan)
        results.log_prob[rows] = np.where(exists, to_numpy(log_prob), np.nan)
        for name, x in feedback.items():
            results.feedback[name][rows] = np.where(exists, to_numpy(x), np.nan)


def _sample_shape(
    params: Mapping[str, np.ndarray], by_trial: Mapping[str, np.ndarray], batch: tuple[int, ...], draws: int | None
) -> tuple[int, ...]:
    """Leading shape *S of parameters (*S, *B), and (*S, *B, K) of those by trial."""
    if not (params or by_trial):
        if not is_integer(draws):
            raise ValueError(f"draws: expected their number, since no parameters tell it, got {draws!r}")
        return (int(draws),)  # type: ignore[arg-type]
    lead = sample_shape(params, batch, by_trial)
    if draws is not None and check_integer("draws", draws) != math.prod(lead):
        raise ValueError(f"draws: expected None, or {math.prod(lead)} as in params, got {draws!r}")
    return lead


def _draws_at_once(net: Network, direct: bool, subjects: int, length: int, memory: float, count: int) -> int:
    """Draws whose buffers, or states of the direct likelihood, fit the memory, in chunks of equal size."""
    config = net.config
    numbers = 2 * config.width + (config.heads * (config.contextual_positions + 2) if net.schema.ordered else 0)
    # A direct likelihood keeps a state in place of a buffer, and passes over all trials where they are independent.
    numbers = config.likelihood_width if direct else config.depth * numbers
    needed = _COPIES * _FLOAT_BYTES * subjects * length * numbers
    most = max(1, int(memory * 1e9 / needed))
    return math.ceil(count / math.ceil(count / most))


def _noise(seed: int, draws: np.ndarray, size: int, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform numbers (draws, size, *shape), each draw's from a stream of its own."""
    seeds = (np.random.SeedSequence(seed, spawn_key=(int(draw),)) for draw in draws)
    return uniform_streams(seeds, (size, *shape))
