"""The weights of a buffered transformer in jax."""

from __future__ import annotations

import json
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

    Attributes:
        traced: whether its weights are arguments of a program that is being compiled.
    """

    backend = "jax"
    ops = ops
    traced = False

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

    @cached_property
    def outline(self) -> str:
        """All that decides which program computes with it, but for the weights."""
        record = self.record
        described = {
            "schema": self.schema.to_dict(),
            "config": self.config.to_dict(),
            "standardization": {name: [float(x) for x in pair] for name, pair in self.standardization.items()},
            "likelihood": self.preferred_likelihood,
            "record": None if record is None else repr((record.box, record.priors, record.trials, record.context)),
        }
        return json.dumps(described, sort_keys=True)

    def at(self, weights: Mapping[str, Array]) -> JaxNetwork:
        """The same network with weights that a program takes as arguments."""
        other = JaxNetwork(self.schema, self.config, self.standardization, weights, self.record)
        other.__dict__.update(traced=True, digest=self.digest)
        return other._told(self.preferred_likelihood)
