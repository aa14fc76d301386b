"""The parts of a network, which are trained one after the other: the direct likelihood and the buffered transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ppl_buffer.network.config import DIRECT_SIZES, Config, parts_of, without_likelihood
from ppl_buffer.network.estimated_error import PARTS
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.schema import Schema

LIKELIHOOD, BUFFER = PARTS
# What `train` can be asked for.
ASKED = ("all", *PARTS)


def trained_parts(schema: Schema, config: Config, asked: str) -> tuple[str, ...]:
    """The parts that a training consists of, in this order.

    Args:
        schema: the simulator's.
        config: the whole network's sizes.
        asked: "all", or one of the parts.

    Raises:
        ValueError: if a network of these sizes has no such part.
    """
    parts = parts_of(schema, config)
    if asked == "all" and parts:
        return parts
    if asked not in parts:
        raise ValueError(
            f"parts: expected 'all' or one of {list(parts)}, which a network of this schema (ordered={schema.ordered}, "
            f"independent={schema.independent}) with likelihood_width={config.likelihood_width} and "
            f"depth={config.depth} has, got {asked!r}"
        )
    return (asked,)


def part_config(config: Config, part: str) -> Config:
    """Sizes of a network that has this part alone; what it does not use has its default value."""
    if part == BUFFER:
        return without_likelihood(config)
    return Config(
        depth=0,
        likelihood_width=config.likelihood_width,
        likelihood_slots=config.likelihood_slots,
        likelihood_missing=config.likelihood_missing,
        likelihood_trial_params=config.likelihood_trial_params,
        components=config.components,
        head=config.head,
        asinh_scales=config.asinh_scales,
    )


def join(networks: Sequence[TorchNetwork]) -> TorchNetwork:
    """One network with all parts of these; where several have the same, that of the last of them.

    Args:
        networks: with the same schema and standardization, on any device.
    """
    by_part = {part: net for net in networks for part in net.parts}
    if len(by_part) == 1 or len({id(net) for net in by_part.values()}) == 1:
        return networks[-1]
    direct, buffer = by_part[LIKELIHOOD], by_part[BUFFER]
    config = replace(buffer.config, **{name: getattr(direct.config, name) for name in DIRECT_SIZES})
    net = TorchNetwork(buffer.schema, config, buffer.standardization)
    with torch.no_grad():
        for name, weight in net.weights.items():
            of_the_direct = name.startswith(f"{LIKELIHOOD}.")
            weight.copy_((direct if of_the_direct else buffer).weights[name])
    return net.eval().requires_grad_(False)
