"""How much JAX compiles, a program for each shape, and on which devices it runs: programs sharded over several."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial, wraps
from typing import TypeVar, cast

import jax
import numpy as np

from ppl_buffer.network.backend import Array, Named, Own
from ppl_buffer.network.jax.weights import JaxNetwork

# Lengths of sequences that programs are compiled for: a third apart, so that padding costs at most about that.
_BUCKETS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)


Function = TypeVar("Function", bound=Callable[..., object])


def compiled(*static: str) -> Callable[[Function], Function]:
    """Compile a function of `net` once for each network, set of shapes, and value of the `static` arguments."""

    def decorate(function: Function) -> Function:
        program = jax.jit(function, static_argnames=("net", *static))

        @wraps(function)
        def run(net: JaxNetwork, *arguments: Own, **more: Own) -> Own:
            # A network whose weights are traced tells no programs apart.
            return (function if net.traced else program)(net, *arguments, **more)

        # The type of the function, which a checker would lose.
        return cast(Function, run)

    return decorate


def one_program(function: Callable[[Own, Own], Own], static: Hashable, arrays: Own) -> Own:
    """`function` of settings and of a tree of arrays, compiled whole once for each of the settings and of the shapes.

    The weights of networks among the settings are arguments of the program: another network of their shapes needs none
    of its own. What the function returns must not hold what tells these apart.

    Done one by one, each kind of operation is compiled for each shape: small programs that take longer than the work.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arrays)):
        # Somebody else compiles, vectorises or differentiates.
        return function(static, arrays)
    nets: list[JaxNetwork] = []
    outlined = _outlined(static, nets)
    return _program(function, outlined, [net.weights for net in nets], arrays)


class _Outline:
    """In the place of a network among settings: networks that differ in their weights alone share programs."""

    def __init__(self, net: JaxNetwork) -> None:
        self.net = net

    def __hash__(self) -> int:
        return hash(self.net.outline)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Outline) and self.net.outline == other.net.outline


def _outlined(static: Own, nets: list[JaxNetwork]) -> Own:
    """Settings with outlines in the place of networks, which are added to a list."""
    if isinstance(static, JaxNetwork):
        nets.append(static)
        return _Outline(static)
    return tuple(_outlined(x, nets) for x in static) if type(static) is tuple else static


def _with_weights(outlined: Own, weights: Iterator[Mapping[str, Array]]) -> Own:
    """Settings with networks again, of these weights."""
    if isinstance(outlined, _Outline):
        return outlined.net.at(next(weights))
    return tuple(_with_weights(x, weights) for x in outlined) if type(outlined) is tuple else outlined


@partial(jax.jit, static_argnames=("function", "outlined"))
def _program(function: Callable[[Own, Own], Own], outlined: Hashable, weights: list[Named], arrays: Own) -> Own:
    return function(_with_weights(outlined, iter(weights)), arrays)


def bucket(trials: int) -> int:
    """The number of trials to pad sequences of so many trials to, so that few programs serve all lengths."""
    return next((size for size in _BUCKETS if size >= trials), trials)


def workers() -> int:
    """Chunks to compute at the same time: a program on a processor uses one core well, an accelerator has one queue."""
    if jax.default_backend() != "cpu":
        return 1
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def on_processor(net: JaxNetwork) -> bool:
    """Whether the network runs on a processor, not an accelerator."""
    return jax.default_backend() == "cpu"


def rollout_memory() -> float:
    """Gigabytes of buffers that are best filled at a time: on a processor as many as its cache holds, or few more."""
    return 0.05 if jax.default_backend() == "cpu" else 2.0


def on_devices(
    run: Callable[[JaxNetwork, Mapping[str, Array], Array], Own],
    net: JaxNetwork,
    devices: Sequence[jax.Device],
    params: Mapping[str, Array],
    noise: Array,
) -> Own:
    """Run one program with the draws, the first axis of parameters and noise, sharded over devices.

    Args:
        run: function of network, parameters and noise.
        net: the network; its weights are copied to every device.
        devices: JAX devices, or none to leave everything where it is.
        params: dict name -> (draws, ...).
        noise: (draws, ...).

    Returns:
        what `run` returns.
    """
    if not devices:
        return run(net, params, noise)
    draws = len(noise)
    if draws % len(devices):
        # A sharded axis is cut into equal pieces.
        params = {name: _fill(x, -draws % len(devices)) for name, x in params.items()}
        noise = _fill(noise, -draws % len(devices))
    mesh = jax.sharding.Mesh(np.array(devices), ("draws",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("draws"))
    params = {name: jax.device_put(x, sharding) for name, x in params.items()}
    return jax.tree.map(lambda x: x[:draws], run(net, params, jax.device_put(noise, sharding)))


def _fill(value: Array, missing: int) -> np.ndarray:
    return np.concatenate([value, np.repeat(value[-1:], missing, 0)])
