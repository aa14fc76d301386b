"""What moves the weights: AdamW, Muon, and the average of the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ppl_buffer.network.config import is_of_buffer
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.training.options import OptimizationOptions

# Muon's learning rate over AdamW's: its updates are orthogonal matrices, whose entries are small.
_MUON_RATE = 5.0
_EMA_DECAY = 0.999
# Matrices inside the layers that are no maps from tokens to tokens.
_ADAMW = ("counter.weight", "slope.weight", "buffer_adapter.down.weight", "buffer_adapter.up.weight")


def make_optimizers(options: OptimizationOptions, net: TorchNetwork) -> list[torch.optim.Optimizer]:
    """AdamW for all weights that learn; or Muon for the matrices inside the layers and AdamW for the others.

    AdamW is that of Loshchilov & Hutter (2019, arXiv 1711.05101), Muon that of Jordan et al. (2024,
    https://kellerjordan.github.io/posts/muon).
    """
    names = [name for name in net.weights if options.learns == "all" or is_of_buffer(name)]
    inner = [
        name
        for name in names
        if options.optimizer == "muon" and name.startswith("layers.") and name.endswith("weight")
        and net.weights[name].ndim == 2 and not name.endswith(_ADAMW)
    ]  # fmt: skip
    rest = [name for name in names if name not in inner]
    decayed = [name for name in rest if name.endswith("weight") and net.weights[name].ndim == 2]
    groups = [
        {"params": [net.weights[name] for name in decayed], "weight_decay": options.weight_decay},
        {"params": [net.weights[name] for name in rest if name not in decayed], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, options.learning_rate, betas=(0.9, 0.99), fused=True)
    ]
    if inner:
        matrices = [net.weights[name] for name in inner]
        optimizers.append(torch.optim.Muon(matrices, options.learning_rate, weight_decay=options.weight_decay))
    return optimizers


def set_learning_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Give all optimisers AdamW's learning rate; Muon's is five times as large."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * (_MUON_RATE if "momentum" in group else 1)


def average_weights(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
    """Exponential moving average that forgets the first weights quickly: its decay grows with the updates made."""
    decay = min(_EMA_DECAY, (1 + int(count)) / (10 + int(count)))
    get_ema_multi_avg_fn(decay)(averaged, current, count)
