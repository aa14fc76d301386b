"""A buffer for a set predictor that was trained without one: a network of ours."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch

from ppl_buffer.checks import check_choice, check_integer
from ppl_buffer.network.network import Network
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.simulator import Simulator
from ppl_buffer.training.buffered_module import APART, LOW_RANK
from ppl_buffer.training.loop import train
from ppl_buffer.training.parts import BUFFER
from ppl_buffer.training.start import grow, load_start

ALL = "all"
WAYS = (APART, LOW_RANK, ALL)


def add_buffer(
    net: Network | str | os.PathLike[str], simulator: Simulator, way: str = LOW_RANK, *, rank: int = 8, **options: Any
) -> TorchNetwork:
    """Teach a network that predicts each target alone, given a context, to predict targets jointly.

    Such a network is a set predictor, or prior-data fitted network: `train(context_only=1.0)` trains one. Realised
    targets then enter a causal buffer (Hassan et al. 2026), whose tokens begin as those of the context.

    Args:
        net: a torch network of an exchangeable model, or what `load` takes.
        simulator: what draws the data sets.
        way: what learns.

            - ``"apart"``: a read of the buffer of its own in each layer, whose result is added and starts at zero;
            - ``"low_rank"``: an addition of rank `rank` to the keys and values of the buffer's tokens (low-rank
              adaptation, Hu et al. 2022, arXiv 2106.09685), which are read beside the others in one softmax;
            - ``"all"``: no new weights, and all of them learn.

            In the first two ways nothing else learns: what the network predicts without a buffer stays as it is, to
            the last bit.
        rank: of ``"low_rank"``.
        options: of `train`, such as `steps`, `minutes`, `out`, `trials`. Targets that see the context alone teach a
            buffer nothing: in the first two ways there are none by default.

    Returns:
        what `train` returns.

    Raises:
        ValueError: if the network is of an ordered model, or has weights for its buffer already, or an argument does
            not fit.
    """
    check_choice("way", way, WAYS)
    check_integer("rank", rank, 1)
    _refuse_others(net)
    start = load_start(net, simulator, None)
    if start.schema.ordered:
        raise ValueError("net: expected a network of an exchangeable model; in an ordered one the past is all buffer")
    if BUFFER not in start.parts or start.config.buffer_rank or start.config.buffer_apart:
        raise ValueError(
            f"net: expected a transformer without weights for a buffer of its own, got parts {start.parts} with "
            f"buffer_rank={start.config.buffer_rank}, buffer_apart={start.config.buffer_apart}"
        )
    config = replace(start.config, buffer_rank=rank if way == LOW_RANK else 0, buffer_apart=way == APART)
    grown = TorchNetwork(start.schema, config, start.standardization, seed=options.get("seed", 0), record=start.record)
    grow(start, grown)
    with torch.no_grad():
        grown.weights["role.buffer"].copy_(grown.weights["role.context"])
        for index in range(config.depth if way == APART else 0):
            for leaf in ("query.weight", "query.bias", "key_value.weight", "key_value.bias"):
                grown.weights[f"layers.{index}.buffer_{leaf}"].copy_(grown.weights[f"layers.{index}.{leaf}"])
    if way != ALL:
        options = {"learns": "buffer", "context_only": 0.0, **options}
    return train(simulator, start=grown, parts=BUFFER, **options)


def _refuse_others(net: object) -> None:
    if isinstance(net, torch.nn.Module) and not isinstance(net, TorchNetwork):
        raise ValueError(
            f"net: expected a network of ppl_buffer, got {type(net).__name__}, a torch module of yours: "
            "`add_buffer_to_module` adds a buffer to one"
        )
