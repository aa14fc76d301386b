"""How much torch does at a time, and on which devices it runs; nothing is compiled."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from ppl_buffer.network.backend import Array, Own
from ppl_buffer.network.torch.weights import TorchNetwork


def one_program(function: Callable[[Own, Own], Own], static: Hashable, arrays: Own) -> Own:
    """`function` of settings and of a tree of arrays: nothing is compiled."""
    return function(static, arrays)


def bucket(trials: int) -> int:
    """The number of trials to pad sequences of so many trials to: none, since nothing is compiled."""
    return trials


def workers() -> int:
    """Chunks to compute at the same time: one, which torch spreads over all cores by itself."""
    return 1


def on_processor(net: TorchNetwork) -> bool:
    """Whether the network runs on a processor, not an accelerator."""
    return net.device.type == "cpu"


def rollout_memory() -> float:
    """Gigabytes of buffers that are best filled at a time: many, since every operation is called anew."""
    return 2.0


def on_devices(
    run: Callable[[TorchNetwork, Mapping[str, Array], Array], Own],
    net: TorchNetwork,
    devices: Sequence[torch.device],
    params: Mapping[str, Array],
    noise: Array,
) -> Own:
    """Run a copy of the network on each device with a share of the draws, the first axis of parameters and noise.

    Args:
        run: function of network, parameters and noise; returns a tuple or dict tree of arrays (draws, ...).
        net: the network.
        devices: torch devices, or none to leave everything where it is.
        params: dict name -> (draws, ...).
        noise: (draws, ...).

    Returns:
        what `run` returns, the shares put together on the network's own device.
    """
    if not devices:
        return run(net, params, noise)
    edges = np.linspace(0, len(noise), min(len(devices), len(noise)) + 1).round().astype(int)

    def share(place: tuple[torch.device, int, int]) -> Own:
        device, start, stop = place
        theta = {name: x[start:stop] for name, x in params.items()}
        # Threads are enough: torch lets go of the interpreter while it computes.
        try:
            moved = copy.deepcopy(net).to(device)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"devices: expected devices of torch that are there, got {device!r} ({error})") from None
        return run(moved, theta, noise[start:stop])

    with ThreadPoolExecutor(len(edges) - 1) as pool:
        shares = list(pool.map(share, zip(devices, edges[:-1], edges[1:], strict=False)))
    flat = [torch.utils._pytree.tree_flatten(x) for x in shares]
    leaves = [torch.cat([x.to(net.device) for x in parts]) for parts in zip(*(x[0] for x in flat), strict=True)]
    return torch.utils._pytree.tree_unflatten(leaves, flat[0][1])
