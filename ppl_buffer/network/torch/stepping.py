"""One trial after another in torch, for whoever learns each outcome from elsewhere: a decoder of a compressed stream.

A rollout draws its outcomes and does all steps in one go. Here each step is a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ppl_buffer.network import likelihood
from ppl_buffer.network.backend import Trials
from ppl_buffer.network.likelihood import Conditions
from ppl_buffer.network.torch.cache import Cache, allocate
from ppl_buffer.network.torch.network import EncodedParams, step
from ppl_buffer.network.torch.weights import TorchNetwork


@torch.no_grad()
def start_steps(net: TorchNetwork, cache: Cache, shape: Sequence[int]) -> Cache:
    """A cache with places for trials that are realised one after another, `shape` = (B, R, K)."""
    return allocate(net, cache, shape)


@torch.no_grad()
def step_buffer(
    net: TorchNetwork,
    cache: Cache,
    pairs: Trials,
    exists: Tensor,
    inputs: Mapping[str, Tensor],
    params: EncodedParams,
    position: int,
) -> tuple[Tensor, Cache]:
    """A trial (B, R, 1), where it `exists`, enters the buffer: representation (B, R, 1, W) of the next."""
    return step(net, cache, pairs, exists, inputs, params, position)


@torch.no_grad()
def step_state(net: TorchNetwork, conditions: Conditions, pairs: Trials, exists: Tensor) -> Conditions:
    """A trial (B, R, 1), where it `exists`, moves the recurrent state of the direct likelihood."""
    assert conditions.state is not None
    return replace(conditions, state=likelihood.next_state(net, pairs, exists, conditions, conditions.state))
