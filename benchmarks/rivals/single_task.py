"""Networks of one task: pictures of a fixed size in raster order, and recordings from left to right.

- `MADE` (Germain, Gregor, Murray & Larochelle 2015, arXiv 1502.03509): a perceptron whose masks let the output of a
  pixel read those before it.
- `MaskedConvolutions` (van den Oord, Kalchbrenner & Kavukcuoglu 2016, arXiv 1601.06759, gated as in arXiv 1606.05328):
  convolutions that see above and to the left.
- `DilatedConvolutions` (van den Oord et al. 2016, arXiv 1609.03499): the next sample of all channels from those before.

None takes a context: what is given are the first pixels or samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class MaskedLinear(nn.Linear):
    """A linear map some of whose weights are zero for ever."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """(..., out) of (..., in)."""
        return functional.linear(x, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    """Categories in a row, each given those before it.

    Args:
        length: how many.
        levels: values of each.
        width: hidden units.
        depth: hidden layers.
    """

    def __init__(self, length: int, levels: int, width: int = 512, depth: int = 2) -> None:
        super().__init__()
        self.levels = levels
        # The unit's degree: how many values it may read.
        degrees = [torch.arange(length).repeat_interleave(levels) + 1]
        degrees += [torch.arange(width) % max(length - 1, 1) + 1] * depth
        masks = [(after[:, None] >= before).float() for before, after in zip(degrees[:-1], degrees[1:], strict=True)]
        masks.append((degrees[0][:, None] > degrees[-1]).float())
        self.layers = nn.ModuleList([MaskedLinear(mask) for mask in masks])

    def log_prob(self, x: Tensor) -> Tensor:
        """Log probability (B, length) of each value (B, length) given those before it."""
        hidden = functional.one_hot(x, self.levels).float().flatten(1)
        for layer in self.layers[:-1]:
            hidden = functional.relu(layer(hidden))
        logits = self.layers[-1](hidden).unflatten(1, (x.shape[1], self.levels))
        return logits.log_softmax(-1).gather(-1, x[..., None])[..., 0]


class MaskedConvolution(nn.Conv2d):
    """A convolution that sees above and to the left; with `itself`, its own place too."""

    def __init__(self, channels: int, out: int, size: int, itself: bool) -> None:
        super().__init__(channels, out, size, padding=size // 2)
        mask = torch.ones(size, size)
        mask[size // 2, size // 2 + itself :] = 0
        mask[size // 2 + 1 :] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """(B, out, H, W) of (B, channels, H, W)."""
        return functional.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class MaskedConvolutions(nn.Module):
    """Grey levels of pictures, each given those above and to the left of it.

    Args:
        side: of a picture, in pixels.
        levels: grey levels.
        width: channels.
        depth: gated convolutions after the first one.
    """

    def __init__(self, side: int, levels: int, width: int = 48, depth: int = 5) -> None:
        super().__init__()
        self.side, self.levels = side, levels
        self.first = MaskedConvolution(levels, width, 5, itself=False)
        self.layers = nn.ModuleList([MaskedConvolution(width, 2 * width, 3, itself=True) for _ in range(depth)])
        # Where a pixel is matters: the margins of the pictures are blank.
        self.place = nn.Parameter(torch.zeros(width, side, side))
        self.last = nn.Sequential(nn.ReLU(), nn.Conv2d(width, 2 * width, 1), nn.ReLU(), nn.Conv2d(2 * width, levels, 1))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log probability (B, pixels) of each pixel (B, pixels) in raster order given those before it."""
        pictures = functional.one_hot(x, self.levels).float().mT.unflatten(2, (self.side, self.side))
        hidden = self.first(pictures) + self.place
        for layer in self.layers:
            value, gate = layer(hidden).chunk(2, 1)
            hidden = hidden + value.tanh() * gate.sigmoid()
        logits = self.last(hidden).flatten(2).mT
        return logits.log_softmax(-1).gather(-1, x[..., None])[..., 0]


class DilatedConvolutions(nn.Module):
    """Samples of several channels given all samples before: of each a mixture of normal distributions.

    Channels of one instant are independent of each other given the past.

    Args:
        channels: of a recording.
        width: of the layers.
        dilations: of the layers, one after the other.
        components: of each mixture.
    """

    def __init__(
        self,
        channels: int,
        width: int = 48,
        dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64),
        components: int = 8,
    ) -> None:
        super().__init__()
        self.channels, self.dilations, self.components = channels, dilations, components
        self.first = nn.Conv1d(channels, width, 1)
        self.layers = nn.ModuleList([nn.Conv1d(width, 2 * width, 2, dilation=dilation) for dilation in dilations])
        self.mixing = nn.ModuleList([nn.Conv1d(width, 2 * width, 1) for _ in dilations])
        self.last = nn.Sequential(
            nn.ReLU(), nn.Conv1d(width, width, 1), nn.ReLU(), nn.Conv1d(width, 3 * components * channels, 1)
        )

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density (B, T) of each instant of recordings (B, channels, T) given those before it."""
        hidden, skipped = self.first(functional.pad(x, (1, 0))[..., :-1]), torch.zeros(())
        for layer, mix, dilation in zip(self.layers, self.mixing, self.dilations, strict=True):
            value, gate = layer(functional.pad(hidden, (dilation, 0))).chunk(2, 1)
            more, skip = mix(value.tanh() * gate.sigmoid()).chunk(2, 1)
            hidden, skipped = hidden + more, skipped + skip
        weight, mean, scale = self.last(skipped).unflatten(1, (3, self.components, self.channels)).unbind(1)
        away = (x[:, None] - mean) * (-scale).exp()
        log_density = -0.5 * away**2 - scale - 0.5 * math.log(2 * math.pi)
        return (weight.log_softmax(1) + log_density).logsumexp(1).sum(1)


def fit(
    net: nn.Module, train: Tensor, validation: Tensor, batch: int = 64, patience: int = 12, seed: int = 0
) -> tuple[nn.Module, int]:
    """Train by AdamW until the loss of the validation sets has not fallen for `patience` epochs; its best weights.

    Returns:
        the network, and how many epochs it took.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.01)
    best, least, since, epochs = dict(net.state_dict()), math.inf, 0, 0
    while since < patience:
        epochs += 1
        for rows in torch.randperm(len(train), generator=generator).split(batch):
            optimizer.zero_grad()
            (-net.log_prob(train[rows]).mean()).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        with torch.no_grad():
            loss = float(-net.log_prob(validation).mean())
        since += 1
        if loss < least:
            best, least, since = {name: x.clone() for name, x in net.state_dict().items()}, loss, 0
    net.load_state_dict(best)
    return net, epochs
