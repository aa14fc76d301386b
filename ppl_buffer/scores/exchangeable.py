"""The score that an exchangeable network gives by itself, without a posterior."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ppl_buffer.arviz import terms
from ppl_buffer.files import to_numpy
from ppl_buffer.network.arguments import as_floating, require_buffer, trials_of_value
from ppl_buffer.network.backend import Array, backend_of
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import EncodedContext
from ppl_buffer.predictive import density
from ppl_buffer.predictive.program import in_one_program
from ppl_buffer.predictive.query import Query
from ppl_buffer.scores.score import Score


def leave_one_out(
    net: Network,
    inputs: Mapping[str, Array],
    value: Array,
    *,
    feedback: Mapping[str, Array] | None = None,
    trial_mask: Array | None = None,
    context: Mapping[str, Array] | EncodedContext | None = None,
) -> Score:
    """Score of each trial from all others of its set, by an exchangeable network that is conditioned on no parameters.

    One conditioning, no posterior: log p(y_i | x, y without i), with every parameter integrated over the network's
    training prior (not over a prior that a model of yours has).

    Args:
        net: a network of either backend.
        inputs: dict name -> (*B, K); {} where the schema has none.
        value: outcomes, (*B, K) or (*B, K, n_outcomes).
        feedback: dict name -> (*B, K).
        trial_mask: (*B, K) bool; False = no such trial.
        context: points that are always seen, dict of arrays (*B, N), or what ``net.encode(...)`` returned.

    Raises:
        ValueError: if the model is ordered, the network has no buffered transformer, or names, shapes or values do not
            fit the schema.
    """
    import xarray

    backend_of(net)
    require_buffer(net, "net: expected one with a buffered transformer, which infers parameters from other trials")
    value = as_floating(net, "value", value)
    tail, count = len(net.schema.event_shape_tail), len(net.schema.outcomes)
    query = Query.build(
        net, inputs, trials=trials_of_value(net, value), feedback=feedback, trial_mask=trial_mask,
        context=context,
    )  # fmt: skip
    log_probs = to_numpy(in_one_program(density.leave_one_out, query, value)).astype(float)
    exists = np.ones(log_probs.shape, dtype=bool)
    if query.trial_mask is not None:
        exists = np.broadcast_to(to_numpy(query.trial_mask), log_probs.shape)
    batch = ["subject"] if log_probs.ndim == 2 else [f"batch_dim_{axis}" for axis in range(log_probs.ndim - 1)]
    indices = zip([*batch, "trial"], np.nonzero(exists), strict=True)
    coords = {name: ("observation", index) for name, index in indices}
    if not np.isfinite(log_probs[exists]).all():
        raise ValueError(f"value: expected legal outcomes {net.schema.outcomes}, got others, which have no density")
    outcomes = np.broadcast_to(
        to_numpy(value).reshape(*value.shape[: value.ndim - tail], -1), (*log_probs.shape, count)
    )
    coords["outcomes"] = ("observation", terms.checksums_of_rows(outcomes[exists]))
    return Score("leave_one_out", xarray.DataArray(log_probs[exists], dims="observation", coords=coords))
