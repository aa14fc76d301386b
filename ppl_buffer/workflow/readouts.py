"""A fit trial by trial, as a table for the analysis of neural data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ppl_buffer.inference.draws import by_variation
from ppl_buffer.inference.trialwise import sequential_posterior, trial_regressors
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
    stays, varies = by_variation({name: params[name] for name in fit.net.schema.params})
    table = trial_regressors(
        fit.net, data, stays, trial_params=varies, lapse=lapse, subjects=fit.trials.subjects, progress=progress
    )
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
