"""Draws of whole data sets under many parameter draws: posterior and prior predictive simulation at scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ppl_buffer.files import to_numpy
from ppl_buffer.network.backend import backend_of, execution_of
from ppl_buffer.network.layout import map_leaves
from ppl_buffer.network.observed import EncodedContext, ObservedTrials, length_groups
from ppl_buffer.predictive import Predictive

_FLOAT_BYTES = 4
# A rollout holds its buffer, and for a moment its successor.
_COPIES = 2


@dataclass(frozen=True)
class Simulated:
    """Simulated data sets; NumPy arrays, NaN where there is no trial.

    Attributes:
        value: outcomes, (*S, *B, K) or (*S, *B, K, n_outcomes).
        feedback: dict name -> (*S, *B, K), what the environment gave.
        log_prob: (*S, *B, K), log density of each trial given the simulated trials before it.
    """

    value: np.ndarray
    feedback: dict[str, np.ndarray]
    log_prob: np.ndarray


def posterior_predictive(
    net: Any,
    inputs: Mapping[str, Any] | ObservedTrials,
    params: Mapping[str, Any] | None = None,
    *,
    draws: int | None = None,
    trials: int | None = None,
    trial_mask: Any = None,
    context: Mapping[str, Any] | EncodedContext | None = None,
    environment: Callable[..., Any] | None = None,
    lapse: Any = None,
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
        inputs: dict name -> (*B, K), or what ``net.observe(...)`` returned, whose inputs, trial mask and context then
            count.
        params: dict name -> (*S, *B): told parameters, draws first, as ``MCMC.get_samples()`` has them. Any subset of
            the schema's.
        draws: number of draws; needed only without `params`.
        trials: number of trials K; needed only where there are no inputs.
        trial_mask: (*B, K) bool; False = no such trial.
        context: points to predict from, dict of arrays (*B, N), or what ``net.encode(...)`` returned.
        environment: gives the feedback on drawn outcomes; see `JointPredictive`.
        lapse: probability of a lapse, (*S, *B) or fewer dimensions.
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
    if memory is not None and not memory > 0:
        raise ValueError(f"memory: expected gigabytes above 0, got {memory!r}")
    joint, schema, execution = backend_of(net), net.schema, execution_of(net)
    memory = execution.rollout_memory() if memory is None else memory
    # Checks the arguments and broadcasts the data; parameters come chunk by chunk.
    whole = Predictive(net, inputs, trials=trials, trial_mask=trial_mask, context=context, environment=environment)
    batch, size = whole.batch_shape, math.prod(whole.batch_shape)
    conditioned = {name: np.asarray(to_numpy(value), np.float32) for name, value in (params or {}).items()}
    lead = _sample_shape(conditioned, batch, draws)
    count = math.prod(lead)
    if lapse is not None:
        conditioned[_LAPSE] = np.asarray(to_numpy(lapse), np.float32)
    conditioned = {
        name: np.broadcast_to(value, (*lead, *batch)).reshape(count, size) for name, value in conditioned.items()
    }
    data = {
        name: np.broadcast_to(to_numpy(x), (*batch, whole.trials)).reshape(size, -1) for name, x in whole.inputs.items()
    }
    mask = np.ones((size, whole.trials), dtype=bool)
    if whole.trial_mask is not None:
        mask = np.broadcast_to(to_numpy(whole.trial_mask), (*batch, whole.trials)).reshape(size, -1)
    known = None if whole.context is None else _flatten(joint, whole.context, batch)
    columns = len(schema.outcomes)
    value = np.full((count, size, whole.trials, columns), np.nan, np.float32)
    feedback = {name: np.full((count, size, whole.trials), np.nan, np.float32) for name in schema.feedback}
    log_prob = np.full((count, size, whole.trials), np.nan, np.float32)

    def simulate(members: np.ndarray, length: int, chosen: np.ndarray) -> None:
        """Write the chosen draws of some people, of at most so many trials, into the results."""
        exists = mask[members, :length]
        given = {name: x[members, :length] for name, x in data.items()}
        here = None if known is None else known[members]

        def run(net: Any, theta: Mapping[str, Any], noise: Any) -> Any:
            conditioned = {name: x for name, x in theta.items() if name != _LAPSE}
            return Predictive(
                net, given, trials=length, params=conditioned, trial_mask=exists, context=here, lapse=theta.get(_LAPSE),
                environment=environment, outside="ignore",
            ).rollout(noise)  # fmt: skip

        theta = {name: x[chosen][:, members] for name, x in conditioned.items()}
        noise = _noise(seed, chosen, size, whole.noise_shape()[-2:])[:, members, :length]
        drawn, learned, densities = execution.on_devices(run, net, devices or [], theta, noise)
        rows = np.ix_(chosen, members, np.arange(length))
        drawn = to_numpy(drawn).reshape((len(chosen), *exists.shape, columns))
        value[rows] = np.where(exists[..., None], drawn, np.nan)
        log_prob[rows] = np.where(exists, to_numpy(densities), np.nan)
        for name, x in learned.items():
            feedback[name][rows] = np.where(exists, to_numpy(x), np.nan)

    def chunk(members: np.ndarray, length: int, start: int, at_once: int) -> int:
        """Simulate a chunk of draws; returns how many data sets it added."""
        # The last chunk reaches back, so that one compiled program serves all of them.
        first = max(0, min(start, count - at_once))
        simulate(members, length, np.arange(first, first + at_once))
        return (min(start + at_once, count) - start) * len(members)

    lengths = np.where(mask, np.arange(1, whole.trials + 1), 1).max(1)
    # Devices that are named share each chunk.
    workers = 1 if devices else execution.workers()
    with (
        tqdm(total=count * size, disable=not progress, unit="data set", desc="simulation") as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        waiting = []
        for members in length_groups(lengths) or [np.arange(size)]:
            length = min(execution.bucket(int(lengths[members].max())), whole.trials)
            at_once = _draws_at_once(net, len(members), length, memory, count)
            run = partial(chunk, members, length, at_once=at_once)
            waiting.append([partial(run, start) for start in range(0, count, at_once)])
        # A thread does not know the modes of its caller, such as torch's no_grad: none without need.
        each = pool.map if workers > 1 else map
        # The first chunk of a group compiles; the others find the program ready.
        for some in ([chunks[0] for chunks in waiting], [work for chunks in waiting for work in chunks[1:]]):
            for added in each(lambda work: work(), some):
                bar.update(added)
    shape = (*lead, *batch, whole.trials)
    return Simulated(
        value.reshape((*shape, columns) if schema.event_shape_tail else shape),
        {name: x.reshape(shape) for name, x in feedback.items()},
        log_prob.reshape(shape),
    )


# No parameter can be called so: names are identifiers.
_LAPSE = "probability of a lapse"


def _flatten(joint: Any, context: EncodedContext, batch: tuple[int, ...]) -> EncodedContext:
    """The context with its batch dimensions broadcast to those of the data, and made one."""
    depth = len(context.batch_shape)

    def flatten(x: Any) -> Any:
        tail = tuple(x.shape[depth:])
        return joint.ops.xp.broadcast_to(x, (*batch, *tail)).reshape((-1, *tail))

    return map_leaves(flatten, context)


def _sample_shape(conditioned: Mapping[str, np.ndarray], batch: tuple[int, ...], draws: int | None) -> tuple[int, ...]:
    """Leading shape *S of parameters (*S, *B)."""
    if not conditioned:
        if isinstance(draws, bool) or not isinstance(draws, (int, np.integer)) or draws < 1:
            raise ValueError(f"draws: expected their number, since no parameters tell it, got {draws!r}")
        return (int(draws),)
    try:
        shape = np.broadcast_shapes(*(value.shape for value in conditioned.values()), batch)
    except ValueError:
        shape = ()
    lead = tuple(shape[: len(shape) - len(batch)])
    if tuple(shape[len(lead) :]) != tuple(batch) or not lead:
        found = {name: value.shape for name, value in conditioned.items()}
        raise ValueError(f"params: expected shapes (*draws, *{tuple(batch)}), got {found}")
    if draws is not None and draws != math.prod(lead):
        raise ValueError(f"draws: expected None, or {math.prod(lead)} as in params, got {draws!r}")
    return lead


def _draws_at_once(net: Any, members: int, length: int, memory: float, count: int) -> int:
    """Draws whose buffers fit the memory, in chunks of equal size."""
    config = net.config
    numbers = 2 * config.width + (config.heads * (config.contextual_positions + 2) if net.schema.ordered else 0)
    needed = _COPIES * _FLOAT_BYTES * members * length * config.depth * numbers
    most = max(1, int(memory * 1e9 / needed))
    return math.ceil(count / math.ceil(count / most))


def _noise(seed: int, draws: np.ndarray, size: int, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform numbers (draws, size, *shape), each draw's from a stream of its own."""
    streams = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(draw),))) for draw in draws]
    uniform = np.stack([stream.random((size, *shape), dtype=np.float32) for stream in streams])
    # Open at both ends: a head turns them into normal numbers.
    return np.clip(uniform, np.float32(1e-7), np.float32(1 - 1e-7))
