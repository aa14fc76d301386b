"""Simulation-based calibration of the posteriors that a network leads to.

Talts, Betancourt, Simpson, Vehtari & Gelman (2018), Validating Bayesian inference algorithms with simulation-based
calibration, arXiv 1804.06788. The fits are in `ppl_buffer.diagnostics.chains`.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from ppl_buffer.checks import check_integer, check_seed
from ppl_buffer.diagnostics.bands import Uniformity, check_level, uniformity
from ppl_buffer.diagnostics.chains import compile_chains, fit_batch
from ppl_buffer.diagnostics.output import data_frame, panels
from ppl_buffer.diagnostics.simulations import check_pair, trials_to_simulate
from ppl_buffer.diagnostics.statistics import Arrays
from ppl_buffer.extras import needs
from ppl_buffer.files import to_numpy, write_atomic
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.network.digest import weights_digest
from ppl_buffer.network.network import Network
from ppl_buffer.prior import Prior
from ppl_buffer.simulator import Simulator, name_of
from ppl_buffer.training.draws import draw_data
from ppl_buffer.training.sketch import Sketch, check_same_simulator, sketch

if TYPE_CHECKING:
    import pandas

# Share of a rank's draws that must be worth independent ones.
_FEWEST_EFFECTIVE = 0.5
_SETTINGS = "settings.json"
# Data sets that tell whether a simulator is what it was.
_SKETCHED = 40


@dataclass(frozen=True)
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
    """

    truth: Arrays
    draws: Arrays
    ranks: Arrays
    effective: Arrays
    divergences: np.ndarray
    steps: float
    level: float

    @cached_property
    def bands(self) -> dict[str, Uniformity]:
        """Ranks of each quantity against the uniform distribution, at the level that all quantities share."""
        share = 1 - (1 - self.level) / len(self.ranks)
        count = len(next(iter(self.draws.values()))) + 1
        return {name: uniformity((rank + 0.5) / count, steps=count, level=share) for name, rank in self.ranks.items()}

    @property
    def passed(self) -> bool:
        """Whether the ranks of every quantity lie inside their simultaneous band."""
        return all(band.passed for band in self.bands.values())

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
        return rows

    @property
    def table(self) -> pandas.DataFrame:
        """One row for each quantity.

        Columns: ``mean_rank`` (0.5 where right; below it the posteriors lie too high), ``rank_spread`` (1 where right;
        above it the posteriors are too narrow), ``contraction`` (median share of the prior variance that the data take
        away), ``effective_draws`` (median), ``p`` (of the single quantity), ``passed`` (at the level shared by all).
        """
        return data_frame(self.rows)

    def plot(self) -> Any:
        """Draw the ranks' distribution functions minus the uniform one, with their bands; a matplotlib figure."""
        columns = min(3, len(self.bands))
        figure, axes = panels(columns, math.ceil(len(self.bands) / columns))
        for panel in axes.flat[len(self.bands) :]:
            panel.set_axis_off()
        for panel, (name, band) in zip(axes.flat, self.bands.items(), strict=False):
            band.plot(panel)
            panel.set(title=name, xlabel="rank of the truth", ylabel="share below, minus uniform")
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


@dataclass(frozen=True)
class _Settings:
    """What a folder of finished batches must agree on."""

    network: str
    priors: dict[str, Any]
    trials: int
    draws: int
    thin: int
    warmup: int
    batch: int
    seed: int
    simulator: str
    likelihood: str

    def check(self, folder: Path) -> None:
        """Write the settings into the folder, or refuse a folder of other settings."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _SETTINGS
        settings = json.loads(json.dumps(asdict(self)))
        if path.exists():
            stored = json.loads(path.read_text())
            different = [name for name in settings if settings[name] != stored.get(name)]
            if different:
                raise ValueError(
                    f"out: expected a new folder, or one of the same check, but {str(folder)!r} holds batches of other "
                    f"{', '.join(different)}; take another folder, or delete this one"
                )
        else:
            write_atomic(path, json.dumps(settings, indent=2).encode())


def check_posterior(
    net: Network,
    simulator: Simulator,
    *,
    sets: int = 200,
    trials: int | None = None,
    draws: int = 99,
    thin: int = 2,
    warmup: int = 50,
    priors: Mapping[str, Prior] | None = None,
    batch: int = 50,
    out: str | os.PathLike[str] | None = None,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> PosteriorCheck:
    """Simulation-based calibration of the posteriors that a network leads to, by NumPyro's NUTS.

    Data sets are simulated at parameters from the prior and fitted; where the network and the sampler are right, the
    truth's rank among posterior draws is uniform. Ranked are the parameters and the log likelihood, which sees errors
    that no single parameter shows (Modrák et al. 2023, Bayesian Analysis). A chain for each data set; the chains of a
    batch run in lock step in one compiled program, on the scale on which the prior is standard normal, whitened by an
    importance-sampling fit, so that they are short and of equal cost.

    Args:
        net: a trained network. One of torch is copied to JAX for the fits.
        simulator: what it should be the likelihood of; see `ppl_buffer.Simulator`. Its `prior` is not used.
        sets: number of data sets.
        trials: trials of each; by default 100, or as many as the training covered.
        draws: draws that the truth is ranked among. One less than a number with many divisors suits the bands.
        thin: transitions of NUTS for each of them: as many as make them nearly independent.
        warmup: transitions before them, to find the step size.
        priors: parameter -> prior, of those whose prior shall be another than the training's. A parameter without any
            gets the uniform one over its trained range.
        batch: data sets in a program.
        out: folder for the results of finished batches. A check that is called again with the same folder goes on where
            it was interrupted, and with more `sets` extends it. Without a folder an interruption loses all.
        level: probability that perfect posteriors pass.
        seed: of everything random.
        progress: show a progress bar.

    Returns:
        the check: `passed`, `table`, `plot()`, `tarp()`.

    Raises:
        ImportError: if NumPyro is not installed.
        ValueError: if the simulator's schema is not the network's, an argument does not fit, or the folder holds
            batches of another check.
    """
    with needs("check_posterior", "numpyro"):
        import numpyro  # noqa: F401
    check_pair(net, simulator)
    check_level(level)
    seed = check_seed(seed)
    sets = check_integer("sets", sets, 2)
    trials = trials_to_simulate(net, trials)
    batch = check_integer("batch", batch) if out is not None else min(check_integer("batch", batch), sets)
    for name, number in (("draws", draws), ("thin", thin), ("warmup", warmup)):
        check_integer(name, number)
    net = _as_jax(net)
    stated = _all_priors(net, priors)
    settings = _Settings(
        weights_digest(net), {name: prior.to_dict() for name, prior in stated.items()}, trials, draws, thin, warmup,
        batch, seed, name_of(simulator), net.preferred_likelihood,
    )  # fmt: skip
    results = _fit(net, simulator, settings, math.ceil(sets / batch), None if out is None else Path(out), progress)
    check = _rank(results, list(stated), sets, level, seed)
    poor = [name for name, x in check.effective.items() if np.median(x) < _FEWEST_EFFECTIVE * draws]
    if poor:
        text = (
            f"check_posterior: the {draws} draws of {', '.join(poor)} are worth fewer than half as many independent "
            f"ones, which by itself makes ranks uneven; raise thin (now {thin})"
        )
        warn_of(Finding("sampling", text))
    return check


def _fit(
    net: Network, simulator: Simulator, settings: _Settings, batches: int, folder: Path | None, progress: bool
) -> list[Arrays]:
    """The results of all batches, those in the folder among them."""
    if folder is not None:
        begins = not (folder / _SETTINGS).exists()
        settings.check(folder)
        check_same_simulator(
            folder,
            lambda: _sketch(simulator, settings),
            begins=begins,
            advice="take another folder, or delete this one",
        )
    # Whole calls of the one program that advances the chains.
    warm = math.ceil(settings.warmup / settings.thin)
    described = tuple((name, json.dumps(prior)) for name, prior in settings.priors.items())
    chains = compile_chains(net, described, settings.thin, warm)
    length = (warm + settings.draws) * settings.thin
    results = []
    with tqdm(total=batches * length, disable=not progress, unit="transition", desc="posterior") as bar:
        for index in range(batches):
            path = None if folder is None else folder / f"batch-{index:04d}.npz"
            result = None if path is None else _load(path)
            if result is None:
                # Each batch has random numbers of its own, so that it matters not which were done before.
                rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(index,)))
                result = fit_batch(
                    net, simulator, chains, rng, settings.batch, settings.trials, settings.draws, bar.update
                )
                if path is not None:
                    content = io.BytesIO()
                    np.savez(content, **result)  # type: ignore[arg-type]
                    write_atomic(path, content.getvalue())
            bar.update((index + 1) * length - bar.n)
            results.append(result)
    return results


def _sketch(simulator: Simulator, settings: _Settings) -> Sketch:
    """What the simulator makes of a few parameters."""
    rng = np.random.default_rng(settings.seed)
    params = {name: np.zeros(0) for name in settings.priors}
    for name, described in settings.priors.items():
        prior = Prior.from_dict(described)
        origin = 0.0 if prior.relative_to is None else params[prior.relative_to]
        params[name] = origin + prior.sample(rng, _SKETCHED)
    return sketch([draw_data(simulator, rng, params, _SKETCHED, settings.trials, probabilities=False)[0]])


def _as_jax(net: Network) -> Any:
    if net.backend == "jax":
        return net
    from ppl_buffer.network.jax.weights import JaxNetwork

    weights = {name: to_numpy(weight) for name, weight in net.weights.items()}
    as_jax = JaxNetwork(net.schema, net.config, net.standardization, weights, net.record)
    return as_jax.preferring(net.preferred_likelihood)


def _all_priors(net: Network, given: Mapping[str, Prior] | None) -> dict[str, Prior]:
    """The prior of every parameter, in the schema's order: the given one, or that of the training."""
    given = given or {}
    unknown = [name for name in given if name not in net.schema.params]
    if unknown:
        raise ValueError(f"priors: expected parameters among {list(net.schema.params)}, got {unknown}")
    if not net.schema.params:
        raise ValueError("net: expected a network with parameters, got one that has none")
    priors: dict[str, Prior] = {}
    for name in net.schema.params:
        if name in given:
            priors[name] = given[name]
        elif net.record is not None and name in net.box:
            priors[name] = net.record.prior(name)
        else:
            raise ValueError(f"priors: expected a prior of {name!r}, of which the network's record knows none")
    return priors


def _load(path: Path) -> Arrays | None:
    """The results of a finished batch, or None where it is not finished."""
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _rank(results: list[Arrays], names: list[str], sets: int, level: float, seed: int) -> PosteriorCheck:
    """Ranks of the truth among the draws, of the first `sets` data sets of all batches."""
    from numpyro.diagnostics import effective_sample_size

    axis = {"draws": 1, "log_likelihoods": 1}
    joined = {key: np.concatenate([x[key] for x in results], axis.get(key, 0)) for key in results[0] if key != "steps"}
    truth = {name: joined["truth"][:sets, i] for i, name in enumerate(names)}
    draws = {name: joined["draws"][:, :sets, i] for i, name in enumerate(names)}
    rng = np.random.default_rng(seed)
    ranks, effective = {}, {}
    pairs = {name: (truth[name], draws[name]) for name in names}
    pairs["log_likelihood"] = (joined["log_likelihood"][:sets], joined["log_likelihoods"][:, :sets])
    for name, (true, sampled) in pairs.items():
        ties = (sampled == true).sum(0)
        ranks[name] = (sampled < true).sum(0) + rng.integers(0, ties + 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            # A chain that never moved is worth one draw.
            effective[name] = np.nan_to_num(np.asarray(effective_sample_size(sampled[None])), nan=1.0)
    steps = float(np.mean([x["steps"] for x in results]))
    return PosteriorCheck(truth, draws, ranks, effective, joined["divergences"][:sets], steps, level)
