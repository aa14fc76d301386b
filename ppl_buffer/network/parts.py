"""The two parts of a network, and what embeddings and heads need of either.

The buffered transformer has the weights of a network but for those whose names begin with ``likelihood.``; these are
the direct likelihood's, which reads them under the names that remain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from ppl_buffer.network.backend import Array, ArrayOps, Own
from ppl_buffer.network.config import Config
from ppl_buffer.schema import Schema

LIKELIHOOD = "likelihood."


class Part(Protocol):
    """Weights, and what their numbers mean; a network is one, and so is its direct likelihood."""

    @property
    def ops(self) -> ArrayOps:
        """What is done to arrays."""

    @property
    def schema(self) -> Schema:
        """What a data set holds."""

    @property
    def config(self) -> Config:
        """Sizes; `width` is that of the representation that the heads read."""

    @property
    def standardization(self) -> dict[str, tuple[float, float]]:
        """Name -> (mean, standard deviation) of each continuous variable on its unconstrained scale."""

    @property
    def weights(self) -> dict[str, Array]:
        """Name -> array."""

    @property
    def anchor(self) -> Array:
        """Any of the weights: its number type, and where it is, are those of all."""

    @property
    def dtype(self) -> Own:
        """Number type of the weights."""


@dataclass(frozen=True, eq=False)
class LikelihoodPart:
    """The direct likelihood of a network (`ppl_buffer.network.likelihood`), as the heads take it.

    Attributes:
        net: the network.
        config: sizes, those of its layers in place of the transformer's.
        weights: name -> array, without the prefix that they have in the network.
    """

    net: Part
    config: Config
    weights: dict[str, Array]

    @property
    def ops(self) -> ArrayOps:
        """What is done to arrays."""
        return self.net.ops

    @property
    def schema(self) -> Schema:
        """What a data set holds."""
        return self.net.schema

    @property
    def standardization(self) -> dict[str, tuple[float, float]]:
        """The network's."""
        return self.net.standardization

    @property
    def anchor(self) -> Array:
        """One of the network's weights."""
        return self.net.anchor

    @property
    def dtype(self) -> Own:
        """Number type of the weights: data are cast to it."""
        return self.net.anchor.dtype

    @property
    def device(self) -> Own:
        """Where the weights are."""
        return self.net.anchor.device


def likelihood_part(net: Part) -> LikelihoodPart:
    """The direct likelihood of a network.

    Raises:
        ValueError: if it has none.
    """
    weights = {name.removeprefix(LIKELIHOOD): x for name, x in net.weights.items() if name.startswith(LIKELIHOOD)}
    if not weights:
        raise ValueError("net: expected a network with a direct likelihood, got one without")
    width = net.config.likelihood_width
    return LikelihoodPart(net, replace(net.config, width=width, mlp=width, heads=1), weights)
