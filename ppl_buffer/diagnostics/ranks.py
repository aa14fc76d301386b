"""Ranks of the truth among posterior draws, and what they say of the posteriors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_buffer.diagnostics.bands import Uniformity, uniformity
from ppl_buffer.diagnostics.error import LikelihoodTest, MeasuredError
from ppl_buffer.diagnostics.output import data_frame, panels
from ppl_buffer.diagnostics.statistics import Arrays

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class PosteriorCheck:
    """Simulation-based calibration. Made by `check_posterior`.

    Attributes:
        truth: dict parameter -> (sets,), what the data sets were simulated with.
        draws: dict parameter -> (draws, sets), posterior draws.
        ranks: dict quantity -> (sets,), number of draws below the truth: the parameters, and ``log_likelihood``.
        effective: dict quantity -> (sets,), effective number of those draws.
        divergences: (sets,), share of divergent transitions.
        steps: mean number of gradients a transition.
        level: probability that perfect posteriors pass.
        likelihood: the error of the likelihood behind them; None where it was not asked for.
    """

    truth: Arrays
    draws: Arrays
    ranks: Arrays
    effective: Arrays
    divergences: np.ndarray
    steps: float
    level: float
    likelihood: LikelihoodTest | None = None

    def __repr__(self) -> str:
        return f"PosteriorCheck({self.verdict})"

    @property
    def verdict(self) -> str:
        """Passed or failed, what failed, and the error of the likelihood in nats a trial."""
        failed = [row["quantity"] for row in self.rows if not row["passed"]]
        words = [f"FAILED ({', '.join(failed)})" if failed else "passed"]
        if self.likelihood is not None:
            words.append(f"error of the likelihood: {self.likelihood.describe(self.level)}")
        return "; ".join(words)

    @property
    def error(self) -> MeasuredError | None:
        """Of the likelihood, in nats a trial: exact, or a lower bound; None where it was not asked for."""
        return None if self.likelihood is None else self.likelihood.error

    @property
    def _ranks_level(self) -> float:
        """Of all ranks together: half of what may fail by chance is the likelihood's, where it is looked at."""
        return self.level if self.likelihood is None else (1 + self.level) / 2

    @cached_property
    def bands(self) -> dict[str, Uniformity]:
        """Ranks of each quantity against the uniform distribution, at the level that all quantities share."""
        share = 1 - (1 - self._ranks_level) / len(self.ranks)
        count = len(next(iter(self.draws.values()))) + 1
        return {name: uniformity((rank + 0.5) / count, steps=count, level=share) for name, rank in self.ranks.items()}

    @property
    def passed(self) -> bool:
        """Whether the ranks of every quantity lie inside their band, and no error of the likelihood shows."""
        return all(row["passed"] for row in self.rows)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `table`, as dicts."""
        rows = []
        count = len(next(iter(self.draws.values()))) + 1
        for name, band in self.bands.items():
            rank = (self.ranks[name] + 0.5) / count
            contraction = math.nan
            if name in self.truth and len(self.truth[name]) > 1:
                contraction = float(np.median(1 - self.draws[name].var(0) / self.truth[name].var()))
            rows.append(
                {
                    "quantity": name,
                    "mean_rank": float(rank.mean()),
                    "rank_spread": float(rank.std() * math.sqrt(12)),
                    "contraction": contraction,
                    "effective_draws": float(np.median(self.effective[name])),
                    "p": band.p,
                    "passed": band.passed,
                }
            )
        for comparison, what, _, p, passed in [] if self.likelihood is None else self.likelihood.rows(self.level):
            unknown = dict.fromkeys(("mean_rank", "rank_spread", "contraction", "effective_draws"), math.nan)
            rows.append({"quantity": f"likelihood, {comparison}: {what}", **unknown, "p": p, "passed": passed})
        return rows

    @property
    def table(self) -> pandas.DataFrame:
        """One row for each quantity.

        Columns: ``mean_rank`` (0.5 where right; below it the posteriors lie too high), ``rank_spread`` (1 where right;
        above it the posteriors are too narrow), ``contraction`` (median share of the prior variance that the data take
        away), ``effective_draws`` (median), ``p`` (of the single quantity), ``passed`` (at the level shared by all).
        The last rows are of the likelihood: its error, or what the history predicts beyond it.
        """
        return data_frame(self.rows)

    def plot(self) -> Any:
        """Draw the ranks' distribution functions minus the uniform one, with their bands; a matplotlib figure."""
        count = len(self.bands) + (self.likelihood is not None)
        columns = min(3, count)
        figure, axes = panels(columns, math.ceil(count / columns))
        for panel in axes.flat[count:]:
            panel.set_axis_off()
        for panel, (name, band) in zip(axes.flat, self.bands.items(), strict=False):
            band.plot(panel)
            panel.set(title=name, xlabel="rank of the truth", ylabel="share below, minus uniform")
        if self.likelihood is not None:
            self.likelihood.plot(axes.flat[count - 1], self.level)
        return figure

    def tarp(self, *, seed: int = 0) -> tuple[float, float]:
        """TARP: coverage of all parameters jointly (Lemos, Coogan, Hezaveh & Perreault-Levasseur 2023), by sbi.

        Args:
            seed: of the reference points.

        Returns:
            what `sbi.diagnostics.check_tarp` returns: area between coverage and diagonal above a half (positive where
            posteriors are too wide, negative where too narrow), and the p-value of a Kolmogorov-Smirnov test of the two
            curves. The test sees a point for every ten data sets and finds only gross errors: look at the area.

        Raises:
            ImportError: if sbi is not installed.
        """
        from ppl_buffer.sbi import LikelihoodEstimator  # noqa: F401  # first: it keeps torch's checks as they are

        import torch  # isort: skip
        from sbi.diagnostics import check_tarp, run_tarp  # isort: skip

        truth = torch.as_tensor(np.stack(list(self.truth.values()), -1), dtype=torch.float32)
        draws = torch.as_tensor(np.stack(list(self.draws.values()), -1), dtype=torch.float32)

        class Sampled:
            """A posterior that has been sampled already, as sbi calls one."""

            def sample_batched(self, *arguments: Any, **keywords: Any) -> Any:
                return draws

        index = torch.arange(len(truth), dtype=torch.float32)[:, None]
        scale, center = truth.std(0), truth.mean(0)
        noise = np.random.default_rng(seed).standard_normal(truth.shape)
        references = center + scale * torch.as_tensor(noise, dtype=torch.float32)
        coverage, levels = run_tarp(
            truth, index, Sampled(), references=references, num_posterior_samples=len(draws), show_progress_bar=False,
            use_batched_sampling=True,
        )  # fmt: skip
        area, p = check_tarp(coverage, levels)
        return float(area), float(p)
