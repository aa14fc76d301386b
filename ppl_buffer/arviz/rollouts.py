"""New data sets of a site at posterior draws."""

from __future__ import annotations

import numpy as np

from ppl_buffer.arviz.subjects import FlatSubjects
from ppl_buffer.findings import Finding
from ppl_buffer.inference.simulation import Simulated, posterior_predictive
from ppl_buffer.network.backend import Environment
from ppl_buffer.ppl.trace import ObservedSite


def rollout_finding(name: str, site: ObservedSite, environment: Environment | None) -> Finding | None:
    """Why no new data sets of a site can be drawn; None where they can."""
    query = site.query
    feedback = list(query.net.schema.feedback)
    if feedback and environment is None and not query.independent:
        reason = f"needs an environment that gives {feedback} on a drawn outcome"
    elif query.history is not None or query.block is not None:
        reason = "has a history or a block, which only its own method `sample` knows"
    else:
        return None
    return Finding("left_out", f"posterior_predictive: left out, since site {name!r} {reason}")


def evenly_spaced(chains: int, draws: int, wanted: int | None) -> np.ndarray:
    """Indices (chain, some of the draws) into all draws, evenly spaced; None = all of them."""
    each = draws if wanted is None else min(draws, -(-wanted // chains))
    within = np.linspace(0, draws - 1, each).round().astype(int)
    return np.arange(chains)[:, None] * draws + within


def roll_out(
    site: ObservedSite,
    environment: Environment | None,
    draws: np.ndarray,
    seed: int,
    memory: float | None,
    progress: bool,
) -> Simulated:
    """New data sets at some of the posterior draws: (*draws.shape, *B, K)."""
    subjects, rows = FlatSubjects.of(site), draws.reshape(-1)
    net = site.query.net.preferring(site.query.likelihood)
    simulated = posterior_predictive(
        net,
        subjects.inputs,
        {name: x[rows] for name, x in subjects.params.items()} or None,
        trial_params={name: x[rows] for name, x in subjects.trial_params.items()} or None,
        draws=None if subjects.params or subjects.trial_params else len(rows),
        trials=subjects.trials,
        trial_mask=subjects.mask,
        missing=subjects.missing,
        context=subjects.context,
        environment=environment,
        lapse=site.query.lapse_at(None if subjects.lapse is None else subjects.lapse[rows]),
        seed=seed,
        memory=memory,
        progress=progress,
    )
    shape = (*draws.shape, *site.exists.shape)
    return Simulated(
        simulated.value.reshape((*shape, *net.schema.event_shape_tail)),
        {name: x.reshape(shape) for name, x in simulated.feedback.items()},
        simulated.log_prob.reshape(shape),
    )
