"""A fit trial by trial, as a table for the analysis of neural data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ppl_buffer.files import to_numpy
from ppl_buffer.inference.trialwise import sequential_posterior, trial_regressors
from ppl_buffer.network.lapses import Lapse
from ppl_buffer.schema import stack_value
from ppl_buffer.workflow.fitting import Fit
from ppl_buffer.workflow.hierarchical import RATE

if TYPE_CHECKING:
    import pandas

# Posterior draws that expectations are averaged over.
_DRAWS = 100


def trial_table(fit: Fit, *, sequential: bool = False, seed: int = 0, progress: bool = True) -> pandas.DataFrame:
    """What the fitted model expected of each trial: see `ppl_buffer.trial_regressors`.

    Args:
        fit: what `ppl_buffer.workflow.fit` returned.
        sequential: also ``mean_NAME`` and ``sd_NAME`` of each parameter given the trials so far, from the prior of the
            training: see `ppl_buffer.sequential_posterior`. A rate of lapses that was estimated is at its mean.
        seed: of these.
        progress: show progress bars.

    Returns:
        a row a trial that exists, under the labels of the people.
    """
    data, subjects = fit.trials.observe(fit.net), len(fit.trials.subjects)
    estimated = fit.lapse is not None and fit.lapse.prior is not None
    params = _params(fit, [*fit.net.schema.params, *[RATE] * estimated])
    lapse = fit.lapse
    if estimated and lapse is not None:
        lapse = lapse.at(params[RATE].astype(np.float32))
    if any(x.ndim == 3 for x in params.values()):
        table = _by_trial(fit, params, lapse, progress)
    else:
        params = {name: params[name] for name in fit.net.schema.params}
        table = trial_regressors(fit.net, data, params, lapse=lapse, subjects=fit.trials.subjects, progress=progress)
    if not sequential:
        return table
    if estimated and lapse is not None:
        lapse = lapse.at(fit.draws(RATE).reshape(-1, subjects).mean(0).astype(np.float32))
    so_far = sequential_posterior(
        fit.net, data, lapse=lapse, subjects=fit.trials.subjects, seed=seed, progress=progress
    )  # fmt: skip
    return table.merge(so_far, on=["subject", "trial"], how="left", validate="one_to_one")


def _params(fit: Fit, names: list[str]) -> dict[str, np.ndarray]:
    """Parameters at some draws, name -> (draws, subjects), or (draws, subjects, K) where formulas let them vary."""
    if fit.params is not None:
        return fit.params(_DRAWS)
    flat = {name: fit.draws(name).reshape(-1, len(fit.trials.subjects)) for name in names}
    total = len(flat[names[0]])
    index = np.linspace(0, total - 1, min(_DRAWS, total)).astype(int)
    return {name: flat[name][index] for name in names}


def _by_trial(fit: Fit, params: dict[str, np.ndarray], lapse: Lapse | None, progress: bool) -> pandas.DataFrame:
    """The same where parameters vary by trial, which are then independent: each is a data set of one."""
    trials, exists = fit.trials, fit.trials.trial_mask

    def alone(values: np.ndarray) -> np.ndarray:
        wide = values if values.ndim == 3 else np.broadcast_to(values[..., None], (*values.shape, exists.shape[1]))
        return wide[:, exists]

    outcomes = {name: np.asarray(x, np.float32)[exists][:, None] for name, x in trials.outcomes.items()}
    data = fit.net.observe(
        {name: trials.inputs[name][exists][:, None] for name in fit.net.schema.inputs},
        stack_value(np, fit.net.schema, outcomes),
        feedback={name: trials.feedback[name][exists][:, None] for name in fit.net.schema.feedback},
    )
    given = {name: alone(params[name]) for name in fit.net.schema.params}
    if lapse is not None and to_numpy(lapse.rate).ndim == 2:
        lapse = lapse.at(alone(np.asarray(lapse.rate)))
    elif lapse is not None and to_numpy(lapse.rate).ndim == 1:
        lapse = lapse.at(alone(np.asarray(lapse.rate)[None])[0])
    table = trial_regressors(fit.net, data, given, lapse=lapse, progress=progress)
    row, place = np.nonzero(exists)
    return table.assign(subject=np.asarray(trials.subjects)[row], trial=1 + place)
