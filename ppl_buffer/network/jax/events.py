"""Trials of which some outcomes are missing, in JAX: log probabilities of what was seen, distribution functions."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from ppl_buffer.network.events import TrialEvents, event_log_prob
from ppl_buffer.network.events import event_cdf as trial_event_cdf
from ppl_buffer.network.jax.execution import compiled
from ppl_buffer.network.jax.joint import represent
from ppl_buffer.network.jax.network import EncodedParams, PreparedTargets
from ppl_buffer.network.jax.ops import Array
from ppl_buffer.network.jax.weights import JaxNetwork
from ppl_buffer.network.lapse_mixture import LapseMixture
from ppl_buffer.network.likelihood import Conditions, PreparedSequence

jax.tree_util.register_dataclass(TrialEvents, data_fields=["lost", "omitted", "deadline"], meta_fields=["rule"])


@compiled()
def event_log_probs(
    net: JaxNetwork,
    prepared: PreparedTargets | PreparedSequence,
    params: EncodedParams | Conditions,
    outcomes: Mapping[str, Array],
    events: TrialEvents,
    valid: Array,
    lapse: LapseMixture | None,
) -> Array:
    """Log probability (B, R, K) of what was seen of each trial, given what it sees; 0 where there is no trial."""
    log_probs = event_log_prob(*represent(net, prepared, params, each=False), outcomes, events, lapse)
    return jnp.where(valid, log_probs, 0.0)


@compiled()
def event_cdf(
    net: JaxNetwork,
    prepared: PreparedTargets | PreparedSequence,
    params: EncodedParams | Conditions,
    outcomes: Mapping[str, Array],
    events: TrialEvents,
    uniform: Array,
    lapse: LapseMixture | None,
) -> Array:
    """Distribution function (B, R, K, n_outcomes) of what was seen of each trial; NaN for outcomes that are missing."""
    return trial_event_cdf(*represent(net, prepared, params), outcomes, events, uniform, lapse)
