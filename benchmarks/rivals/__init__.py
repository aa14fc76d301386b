"""Other networks that predict points of a function jointly, and ours: trained alike, asked the same.

Torch alone, and no part of the package. Each is a module with a ``loss(batch)``, and is used through objects with

- ``log_prob(context, x, y)``: the log density (B, M) of each target given the context and, where the network is joint,
  the targets before it; ``context`` is a pair of arrays (B, N), N >= 0, ``x`` and ``y`` are (B, M);
- ``sample(context, x, noise)``: draws and the log densities that they were drawn from, each (S, M), of one data set:
  ``context`` a pair of arrays (N,), ``x`` (M,), ``noise`` uniform numbers (S, M, 2). Randomness is an argument.

All numbers are on a standardised scale.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn

from .backbone import Pairs
from .causal import CausalSequence
from .cnp import CNP
from .layers import Sizes
from .lbanp import LATENTS, BufferedLBANP, InBlocks
from .ours import Apart, Buffered, Ours
from .tnp_a import TNPA, PublishedSampler
from .tnp_d import Reencoding, SetPredictor
from .tnp_nd import TNPND


class Joint(Protocol):
    """A way to use a trained network."""

    def log_prob(self, context: Pairs, x: Tensor, y: Tensor) -> Tensor:
        """Log densities (B, M)."""
        ...

    def sample(self, context: Pairs, x: Tensor, noise: Tensor) -> Pairs:
        """Draws and their log densities, each (S, M)."""
        ...


# Network -> how it is made, of sizes and a seed.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "ours": Ours,
    "tnp_d": SetPredictor,
    "tnp_a": TNPA,
    "inctnp": CausalSequence,
    "decoder": partial(CausalSequence, positions=True),
    "tnp_nd": TNPND,
    "tnp_nd_diagonal": partial(TNPND, by_diagonal=True),
    "cnp": CNP,
    "lbanp": partial(SetPredictor, latents=LATENTS),
    "lbanp_buffer": BufferedLBANP,
}
# LBANP with fewer latents, and with more.
LBANP_SIZES = {
    f"{name}_{latents}": partial(make_network, latents=latents)
    for latents in (8, 32)
    for name, make_network in (("lbanp", SetPredictor), ("lbanp_buffer", BufferedLBANP))
}
# Of ours: in one pass, in blocks of the size of the buffer in training, by re-encoding, and targets one by one.
OURS, OURS_IN_BLOCKS, OURS_REENCODED, OURS_APART = (
    "ours, one pass", "ours, block 16", "ours, block 1", "ours, apart",
)  # fmt: skip
# Way to use a network -> the network, and how it is made of it.
_USES: dict[str, tuple[str, Callable[[Any], Joint]]] = {
    OURS: ("ours", partial(Buffered, block=None)),
    OURS_IN_BLOCKS: ("ours", partial(Buffered, block=16)),
    "ours, block 4": ("ours", partial(Buffered, block=4)),
    OURS_REENCODED: ("ours", partial(Buffered, block=1)),
    OURS_APART: ("ours", Apart),
    "TNP-D, independent": ("tnp_d", lambda net: net),
    "TNP-D, autoregressive": ("tnp_d", Reencoding),
    "TNP-A, published sampler": ("tnp_a", PublishedSampler),
    "TNP-A, cached": ("tnp_a", lambda net: net),
    "incTNP-Seq": ("inctnp", lambda net: net),
    "decoder-only": ("decoder", lambda net: net),
    "TNP-ND": ("tnp_nd", lambda net: net),
    "TNP-ND, low rank and diagonal": ("tnp_nd_diagonal", lambda net: net),
    "CNP, autoregressive": ("cnp", lambda net: net),
}
# After how many targets each draw has a context of its own to encode: from there on time is proportional to the draws.
OWN_CONTEXT_AFTER = {
    "TNP-D, autoregressive": 1, "TNP-A, published sampler": 0, OURS_REENCODED: 1, "ours, block 4": 4,
    OURS_IN_BLOCKS: 16,
}  # fmt: skip
for _latents, _called in ((LATENTS, "LBANP"), (8, "LBANP of 8 latents"), (32, "LBANP of 32 latents")):
    _end = "" if _latents == LATENTS else f"_{_latents}"
    _USES |= {
        f"{_called}, independent": (f"lbanp{_end}", lambda net: net),
        f"{_called}, autoregressive": (f"lbanp{_end}", Reencoding),
        f"{_called} with a buffer": (f"lbanp_buffer{_end}", partial(InBlocks, block=16)),
        f"{_called} with a buffer, block 1": (f"lbanp_buffer{_end}", partial(InBlocks, block=1)),
    }
    OWN_CONTEXT_AFTER |= {
        f"{_called}, autoregressive": 1, f"{_called} with a buffer": 16, f"{_called} with a buffer, block 1": 1,
    }  # fmt: skip


def make(name: str, sizes: Sizes, seed: int = 0) -> nn.Module:
    """A network with its first weights."""
    return {**NETWORKS, **LBANP_SIZES}[name](sizes, seed)


def uses(name: str, net: nn.Module) -> dict[str, Joint]:
    """The ways to use a network."""
    return {label: make_use(net) for label, (network, make_use) in _USES.items() if network == name}
