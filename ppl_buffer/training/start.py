"""Training that starts from a trained network, which may grow."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from ppl_buffer.network import checkpoint
from ppl_buffer.network.config import DIRECT_SIZES, Config, cells, crossed, flagged
from ppl_buffer.network.network import Network
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.schema import Schema
from ppl_buffer.simulator import Simulator
from ppl_buffer.training.parts import BUFFER, LIKELIHOOD

# Sizes that may be larger than those of the network to start from.
_GROWING = ("depth", "asinh_scales", "likelihood_missing", "likelihood_trial_params")


def load_start(start: Network | str | os.PathLike[str], simulator: Simulator, config: Config | None) -> TorchNetwork:
    """The network to start from, checked.

    Args:
        start: a torch network, or what `load` takes.
        simulator: what draws the data sets.
        config: sizes of the network to train; None = those of the start.

    Raises:
        ValueError: if it is no torch network, has another schema, or cannot grow to these sizes.
    """
    net = checkpoint.load(start, backend="torch") if isinstance(start, (str, os.PathLike)) else start
    if not isinstance(net, TorchNetwork):
        raise ValueError(f"start: expected a torch network or the name of a checkpoint, got {type(net).__name__}")
    if net.schema != simulator.schema:
        raise ValueError(
            f"start: expected a network with the simulator's schema {simulator.schema.to_dict()}, "
            f"got {net.schema.to_dict()}"
        )
    if config is not None:
        grown = {name: getattr(config, name) for name in _GROWING}
        less = [name for name, size in grown.items() if size < getattr(net.config, name)]
        if less or _with_what_it_lacks(net, replace(net.config, **grown), config) != config:
            raise ValueError(
                f"config: expected none, or that of start, {net.config}, with depth or asinh_scales as large or "
                f"larger, with likelihood_missing, likelihood_trial_params or a part that it has not, got {config}"
            )
    return net


def _with_what_it_lacks(net: TorchNetwork, sizes: Config, config: Config) -> Config:
    """The sizes, those of a part that the network has not as in `config`: it begins with random weights."""
    if LIKELIHOOD not in net.parts:
        return replace(sizes, **{name: getattr(config, name) for name in DIRECT_SIZES})
    if BUFFER not in net.parts:
        kept = (*DIRECT_SIZES, "components", "asinh_scales", "head")
        return replace(config, **{name: getattr(sizes, name) for name in kept})
    return sizes


def _last_columns(schema: Schema, name: str) -> int:
    """Columns of a weight that stay behind the others where scales are added: they read combinations of categories."""
    if name == f"{LIKELIHOOD}.trial.pair.weight":
        return cells(crossed({**schema.inputs, **schema.outcomes, **schema.feedback}))
    return cells(crossed(schema.inputs)) if name == f"{LIKELIHOOD}.read.trial.weight" else 0


def grow(start: TorchNetwork, net: TorchNetwork) -> None:
    """Give a network the weights of one that has fewer layers or scales, so that it predicts the same."""
    # New layers stand below those that read the parameters, which costs the likelihood nothing: these alone run again
    # when the parameters change.
    first, added = start.config.depth - start.config.param_depth, net.config.depth - start.config.depth
    with torch.no_grad():
        for index in range(first, first + added):
            for leaf in ("merge", "mlp.out"):
                net.weights[f"layers.{index}.{leaf}.weight"].zero_()
        for name, trained in start.weights.items():
            path = name.split(".")
            if path[0] == "layers" and int(path[1]) >= first:
                path[1] = str(int(path[1]) + added)
            grown = ".".join(path)
            if grown not in net.weights:
                continue  # of a part that this network has not
            weight = net.weights[grown]
            weight.zero_()  # the columns that read new scales, or what is missing
            last = _last_columns(start.schema, name)
            flags = (_flag_columns(each, name) for each in (start, net))
            known, place = (x.shape[-1] - last - count for x, count in zip((trained, weight), flags, strict=True))
            behind = trained.shape[-1] - known
            weight[..., :known] = trained[..., :known]
            weight[..., place : place + behind] = trained[..., known:]


def _flag_columns(net: TorchNetwork, name: str) -> int:
    """Columns of a weight, behind all others, that read what is missing."""
    return len(flagged(net.schema, net.config)) if name == f"{LIKELIHOOD}.trial.pair.weight" else 0
