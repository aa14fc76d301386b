"""What a user does with a trained network, alike in both backends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from ppl_buffer.network.backend import Array, ArrayOps
from ppl_buffer.network.config import Config
from ppl_buffer.network.observed import EncodedContext, ObservedTrials, encode_context, observe_trials
from ppl_buffer.network.priors import priors_of
from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.schema import Schema


class Network(ABC):
    """A buffered transformer: its weights, what a data set of it holds, and what it was trained on.

    Attributes:
        backend: name of the backend that computes with it, "torch" or "jax".
        ops: what that backend does to arrays.
        schema: what a data set holds.
        config: sizes.
        standardization: name -> (mean, standard deviation) of each continuous variable on its unconstrained scale.
        weights: name -> array.
        record: what the training covered; None for a network that was not trained.
    """

    backend: str
    ops: ArrayOps
    schema: Schema
    config: Config
    standardization: dict[str, tuple[float, float]]
    weights: dict[str, Array]
    record: TrainingRecord | None

    @property
    @abstractmethod
    def dtype(self) -> Any:
        """Number type of the weights: data are cast to it."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of schema, sizes, standardization and weights, in hex: the same in both backends.

        What one network observed or encoded is of use to a network with this digest alone. It is computed when first
        asked for, and anew if a torch network's weights have changed since.
        """

    def encode(self, context: Mapping[str, Array]) -> EncodedContext:
        """Encode a context once, to share it between distributions.

        Args:
            context: dict of the schema's inputs, outcomes and feedback, each (*B, N).

        Raises:
            ValueError: if the model is ordered, or names, shapes or values do not fit the schema.
        """
        return encode_context(self, context)

    def observe(
        self,
        inputs: Mapping[str, Array],
        value: Array,
        *,
        feedback: Mapping[str, Array] | None = None,
        trial_mask: Array | None = None,
        context: Mapping[str, Array] | EncodedContext | None = None,
    ) -> ObservedTrials:
        """Compute once all of a joint density that the parameters do not change.

        Pass the result in place of `inputs`; `log_prob` at this very value then runs the top layers alone.

        Args:
            inputs: dict name -> (*B, K); {} where the schema has none.
            value: outcomes, (*B, K) or (*B, K, n_outcomes).
            feedback: dict name -> (*B, K).
            trial_mask: (*B, K) bool; False = no such trial.
            context: dict of inputs, outcomes and feedback, each (*B, N), or what `encode` returned.

        Raises:
            ValueError: if names, shapes or values do not fit the schema.
        """
        return observe_trials(self, inputs, value, feedback=feedback, trial_mask=trial_mask, context=context)

    @property
    def box(self) -> dict[str, tuple[float, float]]:
        """Range of each parameter that the training covered; empty for a network that was not trained."""
        return {} if self.record is None else dict(self.record.box)

    def prior(self) -> dict[str, Any]:
        """Training prior of each parameter: distributions of NumPyro (JAX network) or Pyro (torch network).

        A parameter whose simulator declared no prior gets the uniform distribution over its trained range. One whose
        prior is relative to another parameter gets a function of that one's value that returns the distribution;
        ``net.record.priors[name].relative_to`` names it. In a NumPyro model::

            prior = net.prior()
            low = numpyro.sample("log_sigma_V_low", prior["log_sigma_V_low"])
            medium = numpyro.sample("log_sigma_V_med", prior["log_sigma_V_med"](low))

        Raises:
            ValueError: if the network was not trained.
        """
        if self.record is None:
            raise ValueError("net: expected a trained network, which knows its prior, got an untrained one")
        return priors_of(self.record, self.backend)
