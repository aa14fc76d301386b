"""How well a fit predicts what it has not seen: scores by Pareto smoothed importance sampling, without refits.

A person's parameters change much where that person's data are left out, which no importance weights of whole posterior
draws can follow. So they are integrated out first: of each draw of the population, the likelihood of a person's data is
averaged over the parameters that such a population has (`left_out_subjects`), and only the population is reweighted
(Merkle, Furr & Rabe-Hesketh 2019, Psychometrika 84, 802).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ppl_buffer.arviz import terms
from ppl_buffer.network.lapses import Lapse
from ppl_buffer.network.network import Network
from ppl_buffer.scores import Score, psis_loo
from ppl_buffer.workflow.hierarchical import scores
from ppl_buffer.workflow.left_out_subjects import (
    effects_of_design,
    effects_of_population,
    first_appearance,
    left_out_log_likelihood,
)
from ppl_buffer.workflow.sampled import Sampled

if TYPE_CHECKING:
    from xarray import DataArray


def prediction_scores(posterior: object, sampled: Sampled, net: Network, lapse: Lapse | None) -> dict[str, Score]:
    """Scores of a fit: "loo" of single trials, and "logo" of people where these come from one population.

    Args:
        posterior: what `ppl_buffer.arviz.from_samples` returned.
        sampled: the draws, and what they are of.
        net: the network.
        lapse: of the model.
    """
    by_trial = terms.log_likelihood(posterior, None)
    result = {"loo": psis_loo("loo", by_trial)}
    # In the order of the data, which labels have no other.
    sets = list(dict.fromkeys(by_trial.coords["subject"].values.tolist()))
    table = terms.by_subject(by_trial, "subject").sel(subject=sets).transpose("chain", "draw", "subject")
    flat = {name: np.asarray(x, float).reshape(-1, *x.shape[2:]) for name, x in sampled.draws.sites.items()}
    if sampled.design is not None:
        table = _by_person(table, sampled.design.persons)
        effects, population = effects_of_design(sampled.design, sampled.centring, flat)
    elif sampled.normal is not None:
        effects, population = effects_of_population(flat, scores(net, lapse), sampled.normal)
    else:
        return result
    values = left_out_log_likelihood(effects, population, table.values.reshape(-1, table.sizes["subject"]))
    return {**result, "logo": psis_loo("logo", table.copy(data=values.reshape(table.shape)))}


def _by_person(table: DataArray, persons: np.ndarray) -> DataArray:
    """Sums over the data sets of each person, (chain, draw, subject); checksums of their data too."""
    import xarray

    labels, index = first_appearance(persons)
    coords: dict[str, object] = {"subject": labels}

    def total(values: np.ndarray) -> np.ndarray:
        return np.stack([values[..., index == place].sum(-1) for place in range(len(labels))], -1)

    if "outcomes" in table.coords:
        coords["outcomes"] = ("subject", total(table.coords["outcomes"].values))
    return xarray.DataArray(total(table.values), dims=table.dims, coords=coords)
