"""One trial after another in JAX, for whoever learns each outcome from elsewhere: a decoder of a compressed stream.

A rollout draws its outcomes and does all steps in one go. Here each step is a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ppl_buffer.network import likelihood
from ppl_buffer.network.backend import Trials
from ppl_buffer.network.jax.cache import Cache, allocate
from ppl_buffer.network.jax.execution import compiled
from ppl_buffer.network.jax.network import EncodedParams, step
from ppl_buffer.network.jax.ops import Array
from ppl_buffer.network.jax.weights import JaxNetwork
from ppl_buffer.network.likelihood import Conditions


def start_steps(net: JaxNetwork, cache: Cache, shape: Sequence[int]) -> Cache:
    """A cache with places for trials that are realised one after another, `shape` = (B, R, K)."""
    return allocate(net, cache, shape)


@compiled()
def step_buffer(
    net: JaxNetwork,
    cache: Cache,
    pairs: Trials,
    exists: Array,
    inputs: Mapping[str, Array],
    params: EncodedParams,
    position: Array | int,
) -> tuple[Array, Cache]:
    """A trial (B, R, 1), where it `exists`, enters the buffer: representation (B, R, 1, W) of the next."""
    return step(net, cache, pairs, exists, inputs, params, position)


@compiled()
def step_state(net: JaxNetwork, conditions: Conditions, pairs: Trials, exists: Array) -> Conditions:
    """A trial (B, R, 1), where it `exists`, moves the recurrent state of the direct likelihood."""
    assert conditions.state is not None
    return replace(conditions, state=likelihood.next_state(net, pairs, exists, conditions, conditions.state))
