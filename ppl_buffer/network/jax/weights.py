"""The weights of a buffered transformer in jax."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import jax.numpy as jnp

from ppl_buffer.network.backend import Array as AnyArray
from ppl_buffer.network.config import Config, weight_shapes
from ppl_buffer.network.digest import network_digest
from ppl_buffer.network.jax import ops
from ppl_buffer.network.jax.ops import Array
from ppl_buffer.network.network import Network
from ppl_buffer.schema import Schema

if TYPE_CHECKING:
    from ppl_buffer.network.record import TrainingRecord


class JaxNetwork(Network):
    """The weights of a buffered transformer, frozen, and what they were trained on.

    It compares and hashes by identity, so that a compiled function keeps one version for each network.

    Args:
        schema: what a data set holds.
        config: sizes.
        standardization: name -> (mean, standard deviation) of each continuous variable on its unconstrained scale.
        weights: name -> array, named and shaped as `ppl_buffer.network.config.weight_shapes` says.
        record: what the training covered; None for a network that was not trained.
    """

    backend = "jax"
    ops = ops

    def __init__(
        self,
        schema: Schema,
        config: Config,
        standardization: Mapping[str, tuple[float, float]],
        weights: Mapping[str, AnyArray],
        record: TrainingRecord | None = None,
    ) -> None:
        self.schema = schema
        self.config = config
        self.standardization = dict(standardization)
        self.record = record
        self.weights: dict[str, Array] = {
            name: jnp.asarray(weights[name], dtype=jnp.float32) for name in weight_shapes(schema, config)
        }
        self.anchor = next(iter(self.weights.values()))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of schema, sizes, standardization and weights."""
        return network_digest(self)
