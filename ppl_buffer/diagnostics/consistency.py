"""Exchangeable trials have no order: by how much a network's joint density depends on one all the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ppl_buffer.checks import check_integer, check_seed
from ppl_buffer.diagnostics.output import data_frame, panels
from ppl_buffer.files import to_numpy
from ppl_buffer.inference.streams import uniform_streams
from ppl_buffer.network.arguments import as_floating, check_outcomes, check_value_shape, trials_of_value
from ppl_buffer.network.backend import Array, backend_of
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import EncodedContext
from ppl_buffer.predictive import density, sampling
from ppl_buffer.predictive.program import in_one_program
from ppl_buffer.predictive.query import Query

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Consistency:
    """How much the joint density of exchangeable trials depends on their order. Made by `consistency`.

    Let p_s be the joint density of a data set's K trials in order s, and m = (p_1 + ... + p_G) / G their mixture over
    G random orders. A rule of prediction that is Bayesian about exchangeable trials has p_s = m for all s.

    Attributes:
        by_order: (G, *B), log p_s of each data set, in nats.
        trials: (*B,), number of trials K of each.
        from_mixture: whether the data sets were drawn from the mixture; else they were given.
    """

    by_order: np.ndarray
    trials: np.ndarray
    from_mixture: bool

    def __repr__(self) -> str:
        source = "drawn from the mixture" if self.from_mixture else "given"
        return (
            f"Consistency(divergence of one order from {len(self.by_order)}: {self.divergence:.3g} ± "
            f"{self.standard_error:.1g} nats a trial; spread over orders: {self.spread:.3g} nats a trial; "
            f"{self.trials.size} data sets, {source})"
        )

    @property
    def divergences(self) -> np.ndarray:
        """(*B,), log m less the mean of log p_s over the orders, a trial, in nats; never negative."""
        top = self.by_order.max(0)
        mixture = top + np.log(np.exp(self.by_order - top).mean(0))
        return np.maximum(mixture - self.by_order.mean(0), 0.0) / self.trials

    @property
    def divergence(self) -> float:
        """The mean of `divergences` over data sets, in nats a trial.

        Of data sets drawn from the mixture it estimates the mean over the orders s of KL(m || p_s) / K, the "implicit
        Bayesianness" of Mortimer et al. (ICML 2026, arXiv 2602.18955). Of given ones it is by how much averaging over
        the orders (``orders=``) raises the log density.
        """
        return float(self.divergences.mean())

    @property
    def standard_error(self) -> float:
        """Of `divergence`, over data sets; NaN of a single one."""
        values = self.divergences
        return float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation of log p_s over orders, a trial, in nats: root mean square over data sets."""
        return float(np.sqrt((self.by_order.var(0, ddof=1) / self.trials**2).mean()))

    @property
    def table(self) -> pandas.DataFrame:
        """One row a data set: ``trials``, ``log_density`` of the mixture, ``divergence`` and ``spread``, a trial."""
        trials, divergences = self.trials.reshape(-1), self.divergences.reshape(-1)
        by_order = self.by_order.reshape(len(self.by_order), -1)
        mixture = by_order.mean(0) + trials * divergences
        columns = {
            "trials": trials,
            "log_density": mixture,
            "divergence": divergences,
            "spread": by_order.std(0, ddof=1) / trials,
        }
        return data_frame([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])

    def plot(self) -> Figure:
        """Draw log p_s less its mean over orders, a trial, of all data sets and orders; a matplotlib figure."""
        figure, axes = panels(1)
        apart = (self.by_order - self.by_order.mean(0)) / self.trials
        axes[0, 0].hist(apart.reshape(-1), 40, color="C0")
        axes[0, 0].set(xlabel="log density of an order\nless the mean (nats a trial)", ylabel="orders, data sets")
        axes[0, 0].locator_params(axis="x", nbins=5)
        return figure


def consistency(
    net: Network,
    inputs: Mapping[str, Array],
    value: Array | None = None,
    *,
    trials: int | None = None,
    params: Mapping[str, Array] | None = None,
    context: Mapping[str, Array] | EncodedContext | None = None,
    feedback: Mapping[str, Array] | None = None,
    trial_mask: Array | None = None,
    orders: int = 32,
    seed: int = 0,
) -> Consistency:
    """Measure how much a network's joint density of exchangeable trials depends on their order.

    A causal buffer predicts each trial from those before it, so that nothing but training makes all orders agree.
    Where they do not, one order is one answer among several, and `JointPredictive(orders=...)` averages over them.

    Args:
        net: a network of an exchangeable model, of either backend.
        inputs: dict name -> (*B, K), which hold the batch of data sets *B; {} where the schema has none.
        value: outcomes, (*B, K) or (*B, K, n_outcomes). By default each data set is drawn from the mixture over the
            orders, where the divergence is one of Kullback and Leibler; of data that are given it says what averaging
            over the orders is worth on these.
        trials: number of trials K, where nothing else tells it.
        params: the parameters that are conditioned on, dict name -> (*B,) in natural units.
        context: dict of inputs, outcomes and feedback, each (*B, N), or what ``net.encode(...)`` returned.
        feedback: dict name -> (*B, K), of the value.
        trial_mask: (*B, K) bool; False = no such trial.
        orders: number G of random orders, at least 2.
        seed: of the orders and the draws.

    Returns:
        `divergence` and its `standard_error`, `spread`, `table`, `plot()`.

    Raises:
        ValueError: if the model is ordered, nothing is there to be drawn since the schema has feedback, or an argument
            does not fit.
    """
    backend_of(net)  # or it is no network
    if net.schema.ordered:
        raise ValueError("net: expected that of an exchangeable model; the trials of an ordered one have one order")
    if value is None and net.schema.feedback:
        raise ValueError(
            f"value: expected outcomes, since nobody supplies the feedback {list(net.schema.feedback)} on drawn ones, "
            f"got None"
        )
    orders, seed = check_integer("orders", orders, 2), check_seed(seed)
    if value is not None:
        value = as_floating(net, "value", value)
        trials = trials_of_value(net, value) if trials is None else trials
    query = Query.build(
        net, inputs, trials=trials, params=params, context=context, feedback=feedback, trial_mask=trial_mask
    )
    rng = np.random.default_rng(seed)
    permutations = [tuple(rng.permutation(query.trials).tolist()) for _ in range(orders)]
    orders_of_trials, from_mixture = np.asarray(permutations), value is None
    if from_mixture:
        noise = uniform_streams([[seed, 1]], sampling.noise_shape(replace(query, orders=tuple(permutations))))[0]
        value = in_one_program(sampling.rollout, query, noise, orders_of_trials)[0]
    else:
        check_value_shape(value, query.event_shape)
        check_outcomes(net, value, query.trial_mask)
    by_order = to_numpy(in_one_program(density.log_prob_by_order, query, value, orders_of_trials)).astype(float)
    counts = np.full((1,) * by_order[0].ndim, query.trials)
    if query.trial_mask is not None:
        counts = np.maximum(to_numpy(query.trial_mask).sum(-1), 1)
    return Consistency(by_order, np.broadcast_to(counts, by_order.shape[1:]), from_mixture)
