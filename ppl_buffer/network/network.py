"""What a user does with a trained network, alike in both backends."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from ppl_buffer.network.arguments import choose_likelihood
from ppl_buffer.network.backend import Array, ArrayOps
from ppl_buffer.network.box import checked_upper_bounds, from_box, into_box, upper_bounds
from ppl_buffer.network.config import Config, flagged, parts_of, weight_shapes
from ppl_buffer.network.estimated_error import PART_NAMES, EstimatedError, nearest
from ppl_buffer.network.missing import Missing
from ppl_buffer.network.observed import EncodedContext, ObservedTrials, encode_context, observe_trials
from ppl_buffer.network.parts import LikelihoodPart, likelihood_part
from ppl_buffer.network.priors import priors_of
from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.schema import Schema


class Network(ABC):
    """A trained network: a buffered transformer and a direct likelihood, or either alone.

    It holds the weights, what a data set of it holds, and what it was trained on.

    Attributes:
        backend: name of the backend that computes with it, "torch" or "jax".
        ops: what that backend does to arrays.
        schema: what a data set holds.
        config: sizes.
        standardization: name -> (mean, standard deviation) of each continuous variable on its unconstrained scale.
        weights: name -> array.
        anchor: one of the weights: its number type, and where it is, are those of all.
        record: what the training covered; None for a network that was not trained.
    """

    backend: str
    ops: ArrayOps
    schema: Schema
    config: Config
    standardization: dict[str, tuple[float, float]]
    weights: dict[str, Array]
    anchor: Array
    record: TrainingRecord | None

    @property
    def dtype(self) -> Any:
        """Number type of the weights: data are cast to it."""
        return self.anchor.dtype

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """What the network has: "likelihood", a direct likelihood, and "buffer", a buffered transformer."""
        return parts_of(self.schema, self.config)

    @cached_property
    def likelihood(self) -> LikelihoodPart:
        """The direct likelihood, as heads take it.

        Raises:
            ValueError: if the network has none.
        """
        return likelihood_part(self)

    @cached_property
    def preferred_likelihood(self) -> str:
        """What computes where all parameters are given, unless somebody says otherwise: "direct" or "buffer".

        The direct likelihood, unless the record says that the buffered transformer's is nearer to the simulator's; or
        what `preferring` was told.
        """
        if "likelihood" not in self.parts:
            return "buffer"
        errors = {} if self.record is None else self.record.errors
        closer = nearest(errors) if set(self.parts) <= set(errors) else None
        return "direct" if closer is None or closer.part == "likelihood" else "buffer"

    @property
    def estimated_error(self) -> EstimatedError | None:
        """How far the preferred part is from the simulator, as far as one could tell; None where nobody measured it."""
        part = "likelihood" if self.preferred_likelihood == "direct" else "buffer"
        return None if self.record is None else self.record.errors.get(part)

    def preferring(self, likelihood: str) -> Self:
        """The same network with another part as the one that computes where all parameters are given.

        Whatever is then asked of it (a distribution, evidence, simulation, a fit, a check) takes this part, unless an
        argument says otherwise. Weights and digest are the same, so that what one of the two has observed or encoded
        serves the other::

            both = [net.preferring(part) for part in ("direct", "buffer")]

        Args:
            likelihood: "direct", "buffer", or "auto", which changes nothing.

        Raises:
            ValueError: if the network has no such part.
        """
        part = choose_likelihood(self, likelihood)
        if part not in self._by_likelihood:
            self._by_likelihood[part] = copy.copy(self)._told(part)
        return self._by_likelihood[part]

    @cached_property
    def _by_likelihood(self) -> dict[str, Self]:
        """This network by the part that it prefers, and the others like it: programs are compiled once for each."""
        return {self.preferred_likelihood: self}

    def _told(self, likelihood: str) -> Self:
        self.__dict__["preferred_likelihood"] = likelihood
        return self

    def __repr__(self) -> str:
        record = self.record
        error = self.estimated_error
        weights = sum(math.prod(shape) for shape in weight_shapes(self.schema, self.config).values())
        observed = record is not None and record.observed
        named = {**PART_NAMES, "likelihood": "direct predictive"} if observed else PART_NAMES
        parts = " and ".join(named[part] for part in self.parts)
        names = [f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in self.box.items()] or list(
            self.schema.params
        )
        order = "in order" if self.schema.ordered else "in any order"
        known = "nobody has measured it" if error is None else f"{error}, {PART_NAMES[error.part]}"
        known = "there is no model that it could be off from" if observed else known
        gaps = ", also after lost outcomes" if flagged(self.schema, self.config) else ""
        trained = [] if record is None or record.stored is None else [f"  trained on {record.stored}"]
        lines = [
            f"<{'untrained' if record is None else record.simulator}: {parts}, {weights:,} weights, in {self.backend}",
            *trained,
            f"  parameters {', '.join(names) or 'none'}",
            f"  trials     {order}{'' if record is None else f', up to {record.trials}'}{gaps}",
            f"  error      {known}>",
        ]
        return "\n".join(lines)

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
        likelihood: str = "auto",
        missing: Missing | None = None,
        conditions: Array | None = None,
    ) -> ObservedTrials:
        """Compute once all of a joint density that the parameters do not change.

        Pass the result in place of `inputs`; `log_prob` at this very value then runs the top layers alone.

        Warns (`ppl_buffer.findings.Finding` "outside_range") of data unlike those of the training, by variable and
        cause, and names the data sets: another unit, another code, codes for missing values, values outside the range.

        Args:
            inputs: dict name -> (*B, K); {} where the schema has none.
            value: outcomes, (*B, K) or (*B, K, n_outcomes).
            feedback: dict name -> (*B, K).
            trial_mask: (*B, K) bool; False = no such trial.
            context: dict of inputs, outcomes and feedback, each (*B, N), or what `encode` returned.
            likelihood: for which part of the network: "direct", "buffer", or "auto", the one that a `JointPredictive`
                takes by itself where all parameters are given. The other part, and distributions with hidden
                parameters, then compute from the data anew: slower, and the same numbers.
            missing: a `ppl_buffer.Missing`, where the value has outcomes that were lost (NaN) or responses that did not
                come before a deadline (infinity); without it both are refused. With all parameters given. Where trials
                depend on those before them, feedback may be NaN as well, and the network has to read what was lost
                (`Config.likelihood_missing`).
            conditions: (*B, K) whole numbers from 0 to C - 1, where the trials of one condition have the same
                parameters: `trial_params` are then (*B, C). Models whose trials are independent given the parameters,
                of which the network then computes once a condition in place of once a trial; and networks with
                `Config.likelihood_trial_params`.

        Raises:
            ValueError: if names, shapes or values do not fit the schema, or the network has no such part.
        """
        return observe_trials(
            self, inputs, value, feedback=feedback, trial_mask=trial_mask, context=context, likelihood=likelihood,
            missing=missing, conditions=conditions,
        )  # fmt: skip

    @property
    def box(self) -> dict[str, tuple[float, float]]:
        """Range of each parameter that the training covered; empty for a network that was not trained."""
        return {} if self.record is None else dict(self.record.box)

    def into_box(
        self,
        name: str,
        x: Array,
        params: Mapping[str, Array] | None = None,
        *,
        below: Array | ObservedTrials | None = None,
    ) -> Array:
        """Map real numbers into the trained range of a parameter, by a logistic function; differentiable.

        The values stay away from the very bounds, by a ten-thousandth of the range, so that all of them are
        legal. Under a bound of a data set (`below`) a number means what it means without one, until its value
        comes near to the bound: the value is the smooth minimum (v^-8 + b^-8 - r^-8)^(-1/8) of what it would
        be, v, and the bound b, where v, b and the upper end r of the range count from the lower end. In a
        hierarchical model, where people come from a normal distribution on the real line::

            theta[name] = net.into_box(name, mean + spread * offset, theta, below=seen)

        Args:
            name: the parameter.
            x: real numbers, (...).
            params: values of other parameters, dict name -> (...); needed where the prior of this one is relative to
                another, which comes earlier in the schema. More may be given.
            below: what a non-decision time has to stay below: numbers (...), or what ``net.observe(...)`` returned,
                whose fastest responses (`upper_bounds`) then count, (*B,). Of observed trials nothing is read for a
                parameter that no outcome has to exceed. Where lapses may be faster than the non-decision time, give
                none.

        Returns:
            values in natural units, of the shape that all arguments broadcast to.

        Raises:
            ValueError: if the network was not trained or knows no such parameter, the parameter that its prior is
                relative to is missing, or `below` leaves no room above the lower bound.
        """
        return into_box(self, name, x, params, below)

    def from_box(
        self,
        name: str,
        value: Array,
        params: Mapping[str, Array] | None = None,
        *,
        below: Array | ObservedTrials | None = None,
    ) -> Array:
        """Inverse of `into_box`: the real numbers that it maps to values, (...), in natural units.

        Where to start a sampler, or where a known value lies on the scale of a hierarchy. What lies nearer to a bound
        than `into_box` gets counts as the nearest value that it reaches, near -14 or 14.

        Raises:
            ValueError: as `into_box`, or if a value lies outside the range.
        """
        return from_box(self, name, value, params, below)

    def upper_bounds(self, seen: ObservedTrials) -> dict[str, Array]:
        """What each parameter has to stay below that an outcome always exceeds: each data set's least such outcome.

        Args:
            seen: what ``net.observe(...)`` returned.

        Returns:
            dict name -> (*B,), infinite where a data set has no trial; empty where the schema has no such parameter, or
            a known rate of lapses, which need not exceed anything.

        Raises:
            ValueError: if these are no observed trials, or their outcomes have other names.
        """
        return upper_bounds(self, seen)

    def prior(self, seen: ObservedTrials | None = None) -> dict[str, Any]:
        """Training prior of each parameter: distributions of NumPyro (JAX network) or Pyro (torch network).

        A parameter whose simulator declared no prior gets the uniform distribution over its trained range. One whose
        prior is relative to another parameter gets a function of that one's value that returns the distribution;
        ``net.record.priors[name].relative_to`` names it. In a NumPyro model::

            prior = net.prior()
            low = numpyro.sample("log_sigma_V_low", prior["log_sigma_V_low"])
            medium = numpyro.sample("log_sigma_V_med", prior["log_sigma_V_med"](low))

        No response is faster than its non-decision time. Under a prior that reaches beyond the fastest response a
        sampler may find nowhere to start; `prior(seen)` ends there, for each data set, and is what remains of the
        training prior. (With a lapse rate responses may be faster: give no `seen`.)

        Args:
            seen: what ``net.observe(...)`` returned, whose fastest responses (`upper_bounds`) bound these priors,
                which then have its batch shape *B.

        Raises:
            ValueError: if the network was not trained, a response is faster than the prior allows, or a prior that has
                to be bounded is of a family that cannot be, or relative to another parameter.
        """
        if self.record is None:
            raise ValueError("net: expected a trained network, which knows its prior, got an untrained one")
        below = {} if seen is None else checked_upper_bounds(self, seen)
        return priors_of(self.record, self.backend, below)
