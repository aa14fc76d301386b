"""A hierarchical fit, and all that is found out about it: what the command line and the demo share."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_buffer.arviz import from_samples, groups_of, import_arviz
from ppl_buffer.datasets.trials import TrialData
from ppl_buffer.diagnostics import DataCheck, check_data, outside
from ppl_buffer.files import to_numpy
from ppl_buffer.findings import Finding, FindingWarning
from ppl_buffer.network.lapses import Lapse, checked_lapse
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.schema import Interval, Positive
from ppl_buffer.scores import Score
from ppl_buffer.workflow.hierarchical import RATE, Box, Sampler, model, observe, quick, sample, scores
from ppl_buffer.workflow.prediction import prediction_scores

if TYPE_CHECKING:
    import pandas

# Of the folder of a fit: its draws, while they are made and afterwards.
DRAWS_FILE = "draws.safetensors"
# Part of the trained range that counts as its edge.
_EDGE = 0.02
# What an effective sample size and R-hat should be (Vehtari et al. 2021, Bayesian Analysis 16, 667-718), by quantity.
LEAST_EFFECTIVE, MOST_R_HAT, MOST_DIVERGING = 400, 1.01, 0.01
# Above these, or with fewer effective draws, a posterior is not to be read at all.
_HOPELESS_R_HAT, _HOPELESS_DIVERGING, _HOPELESS_EFFECTIVE = 1.05, 0.05, 100


@dataclass(frozen=True, eq=False)
class Fit:
    """A finished fit, and all that was found out about it. Made by `fit`.

    Attributes:
        net: the network.
        trials: what was fitted.
        box: the range that subjects' parameters were looked for in.
        posterior: what `ppl_buffer.arviz.from_samples` returned.
        replicated: data sets drawn from the posterior, dict outcome -> (draws, subjects, K), NaN where there is no
            trial; empty where feedback is needed and no environment gives it.
        check: posterior predictive checks, or None where there are no data sets to check against.
        outside: parameter -> share of posterior draws outside the trained range.
        summary: a row a quantity: mean, sd, interval, effective sample sizes, R-hat.
        diverging: share of divergent transitions.
        deepest: share of transitions that used as many gradients as they may.
        findings: what the checks on the way found.
        settings: of the fit, by name.
        seconds: that sampling took.
        reused: how many draws of each chain were there already, from an earlier call with the same folder.
        lapse: the lapses of the model, with the ranges that were used: what `log_evidence` and `compare` want for the
            same model. None = there are none.
        scores: how well it predicts what was left out, kind of score -> `ppl_buffer.scores.Score`: "loo" of each trial
            one step ahead, and with one population "logo" of each person from the others, whose parameters are
            integrated over the population.
    """

    net: Network
    trials: TrialData
    box: Box
    posterior: Any
    replicated: dict[str, np.ndarray]
    check: DataCheck | None
    outside: dict[str, float]
    summary: pandas.DataFrame
    diverging: float
    deepest: float
    findings: list[Finding]
    settings: dict[str, Any]
    seconds: float
    reused: int = 0
    lapse: Lapse | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)

    @property
    def record(self) -> TrainingRecord:
        """What the network was trained on."""
        assert self.net.record is not None  # or there would be no box
        return self.net.record

    @property
    def hierarchical(self) -> bool:
        """Whether subjects were taken as draws from one population."""
        return bool(self.settings["hierarchical"])

    def draws(self, name: str) -> np.ndarray:
        """Posterior draws of a site: (chains, draws, ...)."""
        return np.asarray(groups_of(self.posterior)["posterior"][name].values)

    @property
    def r_hat(self) -> float:
        """The worst R-hat of any quantity; NaN with a single chain, infinite where a quantity never moves."""
        values = self.summary["r_hat"].astype(float)
        return float(values.max() if values.isna().all() else values.fillna(np.inf).max())

    @property
    def effective(self) -> float:
        """The least effective sample size, in the bulk or the tails, of any quantity; 0 where it is not known."""
        return float(self.summary[["ess_bulk", "ess_tail"]].astype(float).fillna(0.0).min().min())

    @property
    def converged(self) -> bool:
        """Whether R-hat, effective sample size and divergences are all as they should be."""
        return self.r_hat <= MOST_R_HAT and self.effective >= LEAST_EFFECTIVE and self.diverging < MOST_DIVERGING

    @property
    def readable(self) -> bool:
        """Whether means and spreads can be read at least; a single chain has no R-hat to tell."""
        return (
            not self.r_hat > _HOPELESS_R_HAT
            and self.diverging < _HOPELESS_DIVERGING
            and self.effective >= _HOPELESS_EFFECTIVE
        )

    def edge(self, name: str) -> float:
        """Share of a parameter's draws at an edge of the trained range beyond which other values would be legal.

        Draws that pile up there say that the data ask for values that the network does not know.
        """
        value = self.draws(name)
        if name in self.box.origins:
            value = value - self.draws(self.box.origins[name])
        low, high = self.box.bounds[name]
        place = (value - low) / (high - low)
        variable = self.net.schema.params[name]
        natural = (-np.inf, np.inf)
        if isinstance(variable, Interval):
            natural = (variable.low, variable.high)
        elif isinstance(variable, Positive):
            natural = (0.0, np.inf)
        beyond = np.zeros(place.shape, dtype=bool)
        if low > natural[0]:
            beyond |= place < _EDGE
        if high < natural[1] and name not in self.box.ceilings:
            beyond |= place > 1 - _EDGE
        return float(beyond.mean())


def fit(
    net: Network,
    trials: TrialData,
    *,
    environment: Callable[..., Any] | None = None,
    hierarchical: bool = True,
    lapse: float | Lapse | None = None,
    predictive_draws: int = 200,
    seed: int = 0,
    progress: bool = True,
    out: Path | str | None = None,
    **sampler: Any,
) -> Fit:
    """Fit subjects' trials, convert the posterior to ArviZ, and check the model against the data.

    Args:
        net: a trained network, loaded with backend "jax"; ``net.preferring("buffer")`` is fitted by that part.
        trials: what `ppl_buffer.datasets.read_trials` or a loader of `ppl_buffer.datasets` returned.
        environment: gives the feedback on drawn outcomes, as `JointPredictive` asks for it; without one a model with
            feedback is not compared with data sets of its own.
        hierarchical: subjects come from one population; a single one never does.
        lapse: probability that a trial is a lapse; or a `ppl_buffer.Lapse`, whose rate is estimated where it has a
            prior. Where it states no range of an outcome, a lapse is uniform up to the slowest response in the trials
            (`Lapse.of_data`).
        predictive_draws: data sets drawn from the posterior.
        seed: of everything random.
        progress: show progress bars.
        out: folder in which ``draws.safetensors`` keeps the draws while they are made, made if it does not exist. An
            interrupt or an error leaves all so far; the same call, or one for more draws, goes on from them.
        **sampler: options of NUTS: `ppl_buffer.workflow.hierarchical.Sampler`.

    Raises:
        ValueError: if the trials do not fit the network.
    """
    hierarchical = hierarchical and len(trials.subjects) > 1
    options = Sampler(**sampler)
    lapses, findings = _lapses(net, trials, lapse)
    box = Box.of(net, trials, lapses)
    data, unfamiliar = _observe(net, trials)
    began = time.perf_counter()
    normal = quick(net, data, box, lapses, progress=progress)
    draws = sample(
        net, data, box, normal, options, hierarchical=hierarchical, lapse=lapses, seed=seed, progress=progress,
        path=None if out is None else _draws_file(Path(out)),
    )  # fmt: skip
    seconds = time.perf_counter() - began
    can_generate = environment is not None or not net.schema.feedback
    estimates = scores(net, lapses)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        posterior = from_samples(
            model,
            draws.sites,
            language="numpyro",
            args=(net, data, box, hierarchical, lapses, normal),
            statistics=draws.statistics,
            environment=environment,
            predictive_draws=predictive_draws if can_generate else 0,
            coords={"subject": trials.subjects, "trial": np.arange(1, trials.trial_mask.shape[1] + 1)},
            seed=seed,
            progress=progress,
        )
        replicated = _replicated(posterior, trials, net.schema.outcomes)
        shares = outside(net, posterior)
        check = None
        by_draw = {name: draws.sites[name].reshape(-1, len(trials.subjects)) for name in estimates}
        known = lapses if lapses is None or lapses.prior is None else lapses.at(by_draw[RATE])
        if can_generate:
            check = check_data(
                net, data, by_draw, environment=environment, lapse=known, draws=predictive_draws, seed=seed,
                progress=progress,
            )  # fmt: skip
        summary = _summarize(posterior, estimates, hierarchical)
    rate = None if known is None else float(np.mean(to_numpy(known.rate)))
    settings = {"hierarchical": hierarchical, "lapse": rate, "seed": seed, "predictive_draws": predictive_draws}
    return Fit(
        net=net,
        trials=trials,
        box=box,
        posterior=posterior,
        replicated=replicated,
        check=check,
        outside=shares,
        summary=summary,
        diverging=float(np.mean(draws.fields["diverging"])),
        deepest=float(np.mean(draws.fields["num_steps"] >= 2**options.tree_depth - 1)),
        # What other packages announce of their own is not about this fit.
        findings=[*findings, *unfamiliar, *_findings(caught)],
        settings={**settings, "likelihood": net.preferred_likelihood, **asdict(options)},
        seconds=seconds,
        reused=draws.reused,
        lapse=lapses,
        scores=prediction_scores(posterior, draws.sites, net, data, box, lapses, normal if hierarchical else None),
    )


def _draws_file(folder: Path) -> Path:
    """Where the draws are kept, in a folder that is made if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / DRAWS_FILE


def _lapses(net: Network, trials: TrialData, lapse: float | Lapse | None) -> tuple[Lapse | None, list[Finding]]:
    """The lapses, with the ranges of the data where none are stated, and what is to be said of them."""
    given = Lapse.of(lapse)
    if given is None:
        return None, []
    given = given.of_data(net.schema, trials.outcomes, trials.trial_mask)
    return (
        checked_lapse(net, given, (len(trials.subjects),)),
        given.findings(net.schema, trials.outcomes, trials.trial_mask),
    )


def _observe(net: Network, trials: TrialData) -> tuple[ObservedTrials, list[Finding]]:
    """The trials as the network has observed them, and what it found, which is warned of at once too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        data = observe(net, trials)
    for warning in caught:
        warnings.warn(warning.message, stacklevel=3)
    return data, _findings(caught)


def _findings(caught: Iterable[warnings.WarningMessage]) -> list[Finding]:
    """The findings among warnings, each once."""
    findings = [warning.message.finding for warning in caught if isinstance(warning.message, FindingWarning)]
    return list(dict.fromkeys(findings))


def _replicated(posterior: Any, trials: TrialData, outcomes: Iterable[str]) -> dict[str, np.ndarray]:
    """Outcomes of the posterior predictive, (draws, subjects, K) each."""
    predictive = groups_of(posterior).get("posterior_predictive")
    if predictive is None:
        return {}
    total = trials.trial_counts.sum()
    return {name: trials.pad(predictive[name].values.reshape(-1, total)) for name in outcomes}


def _summarize(posterior: Any, names: list[str], hierarchical: bool) -> pandas.DataFrame:
    kinds = ("group", "mean", "spread") if hierarchical else ()
    wanted = [f"{name}_{kind}" for kind in kinds for name in names] + names
    return import_arviz().summary(posterior, var_names=wanted, round_to="none")
