"""A batch of functions seen at points, the same for all rivals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .backbone import Pairs


@dataclass(frozen=True)
class Batch:
    """Disjoint points of each of B functions, on the standardised scale.

    Attributes:
        context: x and y, each (B, N).
        buffer: x and y, each (B, K).
        targets: x and y, each (B, T).
        visible: (B, T), how much of the buffer a target sees; only for networks that have a buffer, of which a point
            of the buffer is a target too, and sees those before it.
    """

    context: Pairs
    buffer: Pairs
    targets: Pairs
    visible: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        context, buffer, targets = ((x.to(device), y.to(device)) for x, y in (self.context, self.buffer, self.targets))
        return Batch(context, buffer, targets, self.visible.to(device))

    @cached_property
    def rest(self) -> Pairs:
        """Buffer and targets, each (B, K + T): all that is predicted."""
        return join_pairs(self.buffer, self.targets)

    @cached_property
    def rest_visible(self) -> Tensor:
        """(B, K + T), how much of the buffer each point of `rest` sees."""
        size, count = self.buffer[0].shape
        return torch.cat([torch.arange(count, device=self.visible.device).expand(size, -1), self.visible], 1)

    @cached_property
    def whole(self) -> Pairs:
        """All points, each (B, N + K + T)."""
        return join_pairs(self.context, self.rest)


def join_pairs(first: Pairs, second: Pairs) -> Pairs:
    """Pairs behind each other."""
    return torch.cat([first[0], second[0]], 1), torch.cat([first[1], second[1]], 1)
