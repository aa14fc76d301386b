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
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ppl_buffer.checks import check_integer, check_seed
from ppl_buffer.diagnostics.bands import check_level
from ppl_buffer.diagnostics.chains import compile_chains, fit_batch
from ppl_buffer.diagnostics.data_sets import DataSets
from ppl_buffer.diagnostics.error import (
    LikelihoodTest,
    MeasuredError,
    check_tolerance,
    measure_error,
    simulators_log_likelihood,
)
from ppl_buffer.diagnostics.ranks import PosteriorCheck
from ppl_buffer.diagnostics.simulations import check_pair, sets_to_simulate, simulate_legal, trials_to_simulate
from ppl_buffer.diagnostics.statistics import Arrays
from ppl_buffer.extras import needs
from ppl_buffer.files import to_numpy, write_atomic
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.network.digest import weights_digest
from ppl_buffer.network.network import Network
from ppl_buffer.prior import Prior
from ppl_buffer.simulator import Simulator, WithStoredSets, name_of
from ppl_buffer.training.abilities import priors_of
from ppl_buffer.training.draws import draw_data
from ppl_buffer.training.sketch import Sketch, check_same_simulator, sketch

# Share of a rank's draws that must be worth independent ones.
_FEWEST_EFFECTIVE = 0.5
_SETTINGS = "settings.json"
# Data sets that tell whether a simulator is what it was.
_SKETCHED = 40
_FEWEST_TESTED = 10


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
    likelihood_sets: int = 3000,
    tolerance: float = 0.002,
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

    Ranks see an error of the likelihood only as far as it moves the posteriors of so few data sets. So the likelihood
    is also tested, on many more data sets from the same prior, for what `check_likelihood` calls error and residual:
    half of 1 - `level` is for the ranks, half for that.

    Args:
        net: a trained network. One of torch is copied to JAX for the fits.
        simulator: what it should be the likelihood of; see `ppl_buffer.Simulator`. Its `prior` is not used. Of a
            `ppl_buffer.StoredSimulations` whose prior was stated the pairs that are held out serve.
        sets: number of data sets; of stored ones at most as many as are held out.
        trials: trials of each; by default 100, or as many as the training covered.
        draws: draws that the truth is ranked among. One less than a number with many divisors suits the bands.
        thin: transitions of NUTS for each of them: as many as make them nearly independent.
        warmup: transitions before them, to find the step size.
        priors: parameter -> prior, of those whose prior shall be another than the training's. A parameter without any
            gets the uniform one over its trained range.
        batch: data sets in a program.
        out: folder for the results of finished batches. A check that is called again with the same folder goes on where
            it was interrupted, and with more `sets` extends it. Without a folder an interruption loses all.
        likelihood_sets: data sets on which the likelihood is tested, at least 10; 0 leaves that out.
        tolerance: nats a trial that are no failure, where the simulator's log likelihood tells the error.
        level: probability that perfect posteriors pass.
        seed: of everything random.
        progress: show a progress bar.

    Returns:
        the check: `passed`, `error`, `table`, `plot()`, `tarp()`.

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
    trials = trials_to_simulate(net, trials)
    sets = sets_to_simulate(simulator, check_integer("sets", sets, 2), trials, 2)
    batch = check_integer("batch", batch) if out is not None else min(check_integer("batch", batch), sets)
    for name, number in (("draws", draws), ("thin", thin), ("warmup", warmup)):
        check_integer(name, number)
    likelihood_sets = check_integer("likelihood_sets", likelihood_sets, 0)
    if 0 < likelihood_sets < _FEWEST_TESTED:
        raise ValueError(f"likelihood_sets: expected 0, or at least {_FEWEST_TESTED}, got {likelihood_sets}")
    tolerance, given = check_tolerance(tolerance), net
    net = _as_jax(net)
    stated = _all_priors(net, priors)
    if isinstance(simulator, WithStoredSets):
        if stated != dict(priors_of(simulator)):
            raise ValueError(
                "priors: expected those that the stored simulations were drawn from, which have to be stated when they "
                f"are read (prior=...), got {stated} where {dict(priors_of(simulator))} were stated: ranks are uniform "
                "under the prior of the simulations alone"
            )
        batch = min(batch, sets)
        sets -= sets % batch  # no stored one serves in two batches
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
    if not likelihood_sets:
        return check
    tested = _test_likelihood(given, simulator, stated, likelihood_sets, settings, None if out is None else Path(out))
    return replace(check, likelihood=replace(tested, tolerance=tolerance))


def _test_likelihood(
    net: Network,
    simulator: Simulator,
    priors: Mapping[str, Prior],
    sets: int,
    settings: _Settings,
    folder: Path | None,
) -> LikelihoodTest:
    """The test of the likelihood at parameters from the priors; kept in the folder, if there is one."""
    path = None if folder is None else folder / f"likelihood-{sets}.json"
    if path is not None and path.exists():
        stored = json.loads(path.read_text())
        return LikelihoodTest(MeasuredError(**stored["error"]), stored["residuals"], stored["tolerance"])
    sets = sets_to_simulate(simulator, sets, settings.trials, _FEWEST_TESTED)
    rng = np.random.default_rng([settings.seed, sets])
    params, data, _ = simulate_legal(simulator, rng, sets, settings.trials, partial(_draw, priors))
    simulated = DataSets(net, params, data)
    tested = measure_error(simulated, *simulated.bounds(), simulators_log_likelihood(simulator), 0.0)
    if path is not None:
        write_atomic(path, json.dumps(asdict(tested), indent=2).encode())
    return tested


def _draw(priors: Mapping[str, Prior], rng: np.random.Generator, size: int) -> Arrays:
    """Parameters from the priors, some of them relative to earlier ones: name -> (size,)."""
    params: Arrays = {}
    for name, prior in priors.items():
        origin = 0.0 if prior.relative_to is None else params[prior.relative_to]
        params[name] = origin + prior.sample(rng, size)
    return params


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
                    net, simulator, chains, rng, settings.batch, settings.trials, settings.draws, bar.update,
                    index * settings.batch,
                )  # fmt: skip
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
    if isinstance(simulator, WithStoredSets):
        return sketch(simulator.stored_sets.draw(rng, _SKETCHED, settings.trials, True))
    params = _draw({name: Prior.from_dict(x) for name, x in settings.priors.items()}, rng, _SKETCHED)
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
