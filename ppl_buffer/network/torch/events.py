"""Trials of which some outcomes are missing, in torch: log probabilities of what was seen, distribution functions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ppl_buffer.network.events import TrialEvents, event_log_prob
from ppl_buffer.network.events import event_cdf as trial_event_cdf
from ppl_buffer.network.lapse_mixture import LapseMixture
from ppl_buffer.network.likelihood import Conditions, PreparedSequence
from ppl_buffer.network.torch.joint import represent
from ppl_buffer.network.torch.network import EncodedParams, PreparedTargets
from ppl_buffer.network.torch.weights import TorchNetwork


def event_log_probs(
    net: TorchNetwork,
    prepared: PreparedTargets | PreparedSequence,
    params: EncodedParams | Conditions,
    outcomes: Mapping[str, Tensor],
    events: TrialEvents,
    valid: Tensor,
    lapse: LapseMixture | None,
) -> Tensor:
    """Log probability (B, R, K) of what was seen of each trial, given what it sees; 0 where there is no trial."""
    log_probs = event_log_prob(*represent(net, prepared, params, each=False), outcomes, events, lapse)
    return torch.where(valid, log_probs, 0.0)


def event_cdf(
    net: TorchNetwork,
    prepared: PreparedTargets | PreparedSequence,
    params: EncodedParams | Conditions,
    outcomes: Mapping[str, Tensor],
    events: TrialEvents,
    uniform: Tensor,
    lapse: LapseMixture | None,
) -> Tensor:
    """Distribution function (B, R, K, n_outcomes) of what was seen of each trial; NaN for outcomes that are missing."""
    return trial_event_cdf(*represent(net, prepared, params), outcomes, events, uniform, lapse)
