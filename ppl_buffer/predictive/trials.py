"""The trials of a query, taken from what was observed or from arrays: the fields that they fill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppl_buffer.network.arguments import as_mask, check_trial_arrays, count_trials
from ppl_buffer.network.backend import Array
from ppl_buffer.network.missing import Missing, check_missing
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import EncodedContext, ObservedTrials, encode_context, refuse_other_network


def observed_data(net: Network, observed: ObservedTrials, trials: int | None, **others: Array) -> dict[str, Any]:
    """The fields of a query that observed trials fill; refuses arguments that were already given to `observe`."""
    if observed.digest != net.digest:
        refuse_other_network("inputs", "observe")
    for argument, given in others.items():
        if given is not None:
            raise ValueError(f"{argument}: expected none beside observed data; give it to observe instead")
    count = observed.trial_mask.shape[-1]
    if trials is not None and trials != count:
        raise ValueError(f"trials: expected {count}, as many as were observed, got {trials}")
    return {
        "trials": count,
        "inputs": observed.inputs,
        "feedback": observed.feedback,
        "trial_mask": observed.trial_mask,
        "context": observed.context,
        "observed": observed,
        "missing": observed.missing,
        "deadline": observed.deadline,
    }


def checked_data(
    net: Network,
    inputs: Mapping[str, Array],
    trials: int | None,
    feedback: Mapping[str, Array] | None,
    trial_mask: Array | None,
    context: Mapping[str, Array] | EncodedContext | None,
    missing: Missing | None,
) -> dict[str, Any]:
    """The same fields of trials that were not observed before."""
    schema = net.schema
    trials = count_trials(net, inputs, trials)
    mask = None if trial_mask is None else as_mask(net, "trial_mask", trial_mask, trials)
    data: dict[str, Any] = {"trials": trials, "trial_mask": mask}
    data["inputs"] = check_trial_arrays(net, "inputs", inputs, schema.inputs, trials, mask)
    if feedback is not None:
        may_be_lost = missing is not None and schema.ordered
        data["feedback"] = check_trial_arrays(net, "feedback", feedback, schema.feedback, trials, mask, may_be_lost)
    if context is not None:
        data["context"] = encode_context(net, context)
    if missing is not None:
        data["missing"], data["deadline"] = check_missing(net, missing, trials, mask)
    return data
