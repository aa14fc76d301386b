"""A network's likelihood beside the one that is known: how far apart, and where in the box of the parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from ppl_buffer.checks import check_integer, check_seed
from ppl_buffer.diagnostics.data_sets import DataSets
from ppl_buffer.diagnostics.error import LogLikelihood, MeasuredError, known_error, simulators_log_likelihood
from ppl_buffer.diagnostics.output import data_frame, panels
from ppl_buffer.diagnostics.simulations import check_pair, sets_to_simulate, simulate_legal, trials_to_simulate
from ppl_buffer.diagnostics.statistics import Arrays
from ppl_buffer.network.network import Network
from ppl_buffer.simulator import Simulator
from ppl_buffer.training.draws import draw_params

if TYPE_CHECKING:
    import pandas

# Equal parts of a parameter's distribution.
_PARTS = 5
# Part of a network, and how `likelihood=` calls it.
_LIKELIHOODS = {"likelihood": "direct", "buffer": "buffer"}


@dataclass(frozen=True, repr=False)
class LikelihoodComparison:
    """A network's log likelihood beside the exact one, on simulated data sets. Made by `compare_likelihood`.

    Attributes:
        params: dict name -> (sets,), what the data sets were simulated with.
        exact: (sets, K), log density of each trial given the trials before it.
        computed: dict "direct" or "buffer" -> (sets, K), the same by each part of the network.
    """

    params: Arrays
    exact: np.ndarray
    computed: Arrays

    def __repr__(self) -> str:
        words = [f"{part}: {error}, totals off by {self._rmse(part):.2g}" for part, error in self.errors.items()]
        return f"LikelihoodComparison({'; '.join(words)})"

    @property
    def errors(self) -> dict[str, MeasuredError]:
        """Kullback-Leibler divergence of a trial from the simulator to each part of the network."""
        return {part: known_error(self.exact, computed) for part, computed in self.computed.items()}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `table`, as dicts."""
        rows = []
        for where, indices in self._regions():
            row: dict[str, Any] = {"where": where}
            for part, computed in self.computed.items():
                error = known_error(self.exact[indices], computed[indices])
                row |= {f"{part}_nats": error.nats_per_trial, f"{part}_se": error.standard_error,
                        f"{part}_rmse": self._rmse(part, indices)}  # fmt: skip
            rows.append(row)
        return rows

    @property
    def table(self) -> pandas.DataFrame:
        """One row for all data sets, and one for each fifth of each parameter's distribution, the worst ones first.

        Columns, of each part of the network: ``nats``, Kullback-Leibler divergence a trial, ``se``, its standard error,
        and ``rmse``, root mean square error of a data set's log likelihood, in nats.
        """
        every, *regions = self.rows
        worst = [max(row[f"{part}_nats"] for part in self.computed) for row in regions]
        return data_frame([every, *(regions[i] for i in np.argsort(worst)[::-1])])

    def plot(self) -> Any:
        """Draw the divergence over the fifths of each parameter, a line for each part; a matplotlib figure."""
        columns = min(4, len(self.params))
        figure, axes = panels(columns, math.ceil(len(self.params) / columns))
        for panel in axes.flat[len(self.params) :]:
            panel.set_axis_off()
        every, *rows = self.rows
        bottom, top = 0.0, 0.0
        for index, (panel, name) in enumerate(zip(axes.flat, self.params, strict=False)):
            group = rows[index * _PARTS : (index + 1) * _PARTS]
            middles = [np.median(self.params[name][part]) for part in _fifths(self.params[name])]
            for color, part in zip(("C0", "C1"), self.computed, strict=False):
                nats, errors = (np.array([row[f"{part}_{key}"] for row in group]) for key in ("nats", "se"))
                panel.errorbar(middles, nats, errors, fmt="o-", color=color, markersize=3, label=part)
                panel.axhline(every[f"{part}_nats"], color=color, linewidth=0.8, linestyle="--")
                bottom, top = min(bottom, float((nats - errors).min())), max(top, float((nats + errors).max()))
            panel.set(xlabel=name)
        for panel in axes.flat[: len(self.params)]:
            panel.set_ylim(1.05 * bottom, 1.05 * top)
        for panel in axes[:, 0]:
            panel.set_ylabel("nats a trial")
        axes[0, 0].legend(frameon=False, fontsize=8)
        return figure

    def _rmse(self, part: str, indices: np.ndarray | slice = slice(None)) -> float:
        totals = (self.exact[indices] - self.computed[part][indices]).sum(-1)
        return float(np.sqrt((totals**2).mean()))

    def _regions(self) -> Iterator[tuple[str, np.ndarray]]:
        """All data sets, and those of each fifth of each parameter: a name and indices."""
        yield "everywhere", np.arange(len(self.exact))
        for name, values in self.params.items():
            for indices in _fifths(values):
                yield f"{name} {values[indices].min():.3g} to {values[indices].max():.3g}", indices


def _fifths(values: np.ndarray) -> list[np.ndarray]:
    return np.array_split(np.argsort(values, kind="stable"), _PARTS)


def compare_likelihood(
    net: Network,
    simulator: Simulator,
    log_likelihood: LogLikelihood | None = None,
    *,
    sets: int = 500,
    trials: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> LikelihoodComparison:
    """Compare a network's likelihood with one that is known: on average, of whole data sets, and over the box.

    Args:
        net: a trained network of either backend. All its parts that compute a likelihood are compared.
        simulator: draws the data sets; see `ppl_buffer.Simulator`. Parameters come from its `prior`.
        log_likelihood: function (params, data) -> (sets, K), the exact log density of each trial given the trials
            before it, in nats, of dicts of parameters (sets,) and of inputs, outcomes and feedback (sets, K). By
            default the simulator's own.
        sets: number of data sets.
        trials: trials of each; by default 100, or as many as the training covered.
        seed: of everything random.
        progress: show a progress bar.

    Returns:
        the comparison: `errors`, `table`, `plot()`.

    Raises:
        ValueError: if the simulator's schema is not the network's, nobody knows the likelihood, what it returns does
            not fit, or an argument does not.
    """
    check_pair(net, simulator)
    seed, sets = check_seed(seed), check_integer("sets", sets, 2 * _PARTS)
    trials = trials_to_simulate(net, trials)
    exact = log_likelihood or simulators_log_likelihood(simulator)
    if exact is None or not callable(exact):
        raise ValueError(
            f"log_likelihood: expected a function (params, data) -> (sets, K), since {type(simulator).__name__} has no "
            f"method log_likelihood, got {log_likelihood!r}"
        )
    sets = sets_to_simulate(simulator, sets, trials, 2 * _PARTS)
    rng = np.random.default_rng(seed)
    params, data, _ = simulate_legal(simulator, rng, sets, trials, partial(draw_params, simulator))
    params, data = ({name: x.astype(np.float32).astype(float) for name, x in part.items()} for part in (params, data))
    known = np.asarray(exact(params, data), dtype=float)
    if known.shape != (sets, trials):
        raise ValueError(f"log_likelihood: expected an array of shape {(sets, trials)}, got {known.shape}")
    parts = [_LIKELIHOODS[part] for part in net.parts]
    with tqdm(total=sets * len(parts), disable=not progress, unit="data set", desc="likelihood") as bar:
        computed = {part: DataSets(net, params, data, likelihood=part).log_densities(bar.update) for part in parts}
    return LikelihoodComparison(params, known, computed)
