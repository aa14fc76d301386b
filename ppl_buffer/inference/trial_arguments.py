"""Trials as users give them to what computes evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ppl_buffer.network.backend import Array
from ppl_buffer.network.missing import Missing, missing_of
from ppl_buffer.network.observed import EncodedContext, ObservedTrials


@dataclass(frozen=True)
class TrialArguments:
    """Trials as a user gives them, of whatever backend: the arguments of `observe`."""

    inputs: Mapping[str, Array]
    value: Array
    feedback: Mapping[str, Array] | None
    trial_mask: Array | None
    missing: Missing | None = None
    context: EncodedContext | None = None

    @classmethod
    def of(
        cls,
        inputs: Mapping[str, Array] | ObservedTrials,
        value: Array,
        feedback: Mapping[str, Array] | None,
        trial_mask: Array | None,
        missing: Missing | None = None,
    ) -> TrialArguments:
        """The same, taken out of observed trials where these are given in place of inputs.

        Raises:
            ValueError: if feedback, a trial mask or missing answers are given beside observed trials.
        """
        if not isinstance(inputs, ObservedTrials):
            return cls(inputs, value, feedback, trial_mask, missing)
        for argument, given in (("feedback", feedback), ("trial_mask", trial_mask), ("missing", missing)):
            if given is not None:
                raise ValueError(f"{argument}: expected none beside observed data; give it to observe instead")
        missing = missing_of(inputs.missing, inputs.deadline)
        return cls(inputs.inputs, value, inputs.feedback or None, inputs.trial_mask, missing, inputs.context)
