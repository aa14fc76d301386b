"""A hierarchical fit, and all that is found out about it: what the command line and the demo share."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_buffer.arviz import groups_of, import_arviz
from ppl_buffer.arviz.convert import convert
from ppl_buffer.arviz.groups import Scored
from ppl_buffer.datasets.trials import TrialData
from ppl_buffer.diagnostics import DataCheck, outside
from ppl_buffer.diagnostics.conditions import Condition
from ppl_buffer.diagnostics.data import compare_data
from ppl_buffer.diagnostics.omissions import complete_trials
from ppl_buffer.files import to_numpy
from ppl_buffer.findings import Finding, FindingWarning
from ppl_buffer.formulas.build import design as build_design
from ppl_buffer.formulas.terms import Design
from ppl_buffer.inference.simulation import Simulated
from ppl_buffer.network.backend import Environment
from ppl_buffer.network.lapses import Lapse, checked_lapse
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Interval, Positive
from ppl_buffer.scores import Score
from ppl_buffer.workflow.chains import Sampler
from ppl_buffer.workflow.conditions import conditions_of
from ppl_buffer.workflow.hierarchical import RATE, Box
from ppl_buffer.workflow.prediction import prediction_scores
from ppl_buffer.workflow.sampled import Sampled, sample_by_formula, sample_by_subject

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
            trial or no response; empty where feedback is needed and no environment gives it.
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
        design: what formulas made of the parameters; None where there were none.
        params: with formulas a function of a number of draws: parameters (and rates of lapses) in natural units at so
            many draws, evenly spaced, dict name -> (draws, S), or (draws, S, K) of those that vary by trial.
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
    design: Design | None = None
    params: Callable[[int], dict[str, np.ndarray]] | None = None

    @property
    def names(self) -> list[str]:
        """The model's parameters that were estimated."""
        fixed = {} if self.design is None else self.design.fixed
        return [name for name in self.net.schema.params if name not in fixed]

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
    environment: Environment | None = None,
    hierarchical: bool = True,
    lapse: float | Lapse | None = None,
    formulas: Sequence[str] = (),
    fixed: Mapping[str, float] | None = None,
    priors: Mapping[str, Prior] | None = None,
    correlated: bool = False,
    predictive_draws: int = 200,
    seed: int = 0,
    progress: bool = True,
    out: Path | str | None = None,
    **sampler: Any,
) -> Fit:
    """Fit subjects' trials, convert the posterior to ArviZ, and check the model against the data.

    Args:
        net: a trained network, loaded with backend "jax"; ``net.preferring("buffer")`` is fitted by that part.
        trials: what `ppl_buffer.datasets.read_trials` or a loader of `ppl_buffer.datasets` returned; with
            `TrialData.missing` where answers are missing.
        environment: gives the feedback on drawn outcomes, as `JointPredictive` asks for it; without one a model with
            feedback is not compared with data sets of its own.
        hierarchical: subjects come from one population; a single one never does. Otherwise each is fitted alone, and
            so is each data set of a subject who has several.
        lapse: probability that a trial is a lapse; or a `ppl_buffer.Lapse`, whose rate is estimated where it has a
            prior. Where it states no range of an outcome, a lapse is uniform up to the slowest response in the trials
            (`Lapse.of_data`).
        formulas: how parameters depend on the trials' covariates and inputs, such as ``"drift ~ condition + age + (1 +
            condition | subject)"``; one without a formula is ``1 + (1 | subject)``. See `ppl_buffer.formulas.design`,
            which takes the next three as well.
        fixed: parameter -> its value, which is not estimated.
        priors: coefficient or spread -> its prior.
        correlated: whether random effects of one factor in one formula are correlated.
        predictive_draws: data sets drawn from the posterior.
        seed: of everything random.
        progress: show progress bars.
        out: folder in which ``draws.safetensors`` keeps the draws while they are made, made if it does not exist. An
            interrupt or an error leaves all so far; the same call, or one for more draws, goes on from them.
        **sampler: options of NUTS: `ppl_buffer.workflow.chains.Sampler`.

    Raises:
        ValueError: if the trials do not fit the network.
    """
    options = Sampler(**sampler)
    lapses, findings = _lapses(net, trials, lapse)
    box = Box.of(net, trials, lapses)
    data, unfamiliar = _observe(net, trials)
    began = time.perf_counter()
    path = None if out is None else _draws_file(Path(out))
    by_formula = bool(formulas or fixed or priors or correlated)
    if by_formula and not hierarchical:
        raise ValueError(
            "hierarchical: expected True with formulas, fixed, priors or correlated: formulas say themselves what "
            "subjects share, got False"
        )
    if by_formula or (hierarchical and trials.persons is not None):
        subjects = trials.subjects if trials.persons is None else trials.persons
        design = build_design(
            net, data, formulas, {**trials.covariates, **trials.inputs}, subjects=subjects, fixed=fixed, priors=priors,
            correlated=correlated, lapse=lapses,
        )  # fmt: skip
        sampled = sample_by_formula(net, data, design, options, lapses, seed=seed, progress=progress, path=path)
    else:
        together = hierarchical and len(trials.subjects) > 1
        sampled = sample_by_subject(
            net, data, box, options, lapses, hierarchical=together, seed=seed, progress=progress,
            path=path,
        )  # fmt: skip
    seconds = time.perf_counter() - began
    can_generate = environment is not None or not net.schema.feedback
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        posterior, scored = _to_arviz(
            sampled, trials, environment, predictive_draws if can_generate else 0, seed, progress
        )
        replicated = _replicated(posterior, trials, net.schema.outcomes)
        shares = outside(net, posterior)
        check = _check(net, data, scored, trials, conditions_of(net.schema, sampled.design, trials))
        summary = import_arviz().summary(posterior, var_names=sampled.quantities, round_to="none")
    rate = None
    if lapses is not None:
        rate = float(np.mean(to_numpy(lapses.rate) if lapses.prior is None else sampled.draws.sites[RATE]))
    settings = {"hierarchical": sampled.hierarchical, "lapse": rate, "seed": seed, "predictive_draws": predictive_draws}
    return Fit(
        net=net,
        trials=trials,
        box=box,
        posterior=posterior,
        replicated=replicated,
        check=check,
        outside=shares,
        summary=summary,
        diverging=float(np.mean(sampled.draws.fields["diverging"])),
        deepest=float(np.mean(sampled.draws.fields["num_steps"] >= 2**options.tree_depth - 1)),
        # What other packages announce of their own is not about this fit.
        findings=[*findings, *unfamiliar, *_findings(caught)],
        settings={**settings, "likelihood": net.preferred_likelihood, **asdict(options)},
        seconds=seconds,
        reused=sampled.draws.reused,
        lapse=lapses,
        scores=prediction_scores(posterior, sampled, net, lapses),
        design=sampled.design,
        params=None if sampled.design is None else sampled.params,
    )


def _to_arviz(
    sampled: Sampled,
    trials: TrialData,
    environment: Environment | None,
    predictive_draws: int,
    seed: int,
    progress: bool,
) -> tuple[Any, dict[str, Scored]]:
    """What `from_samples` makes of the draws, and what it is made of."""
    return convert(
        sampled.model,
        sampled.draws.sites,
        language="numpyro",
        args=sampled.args,
        statistics=sampled.draws.statistics,
        environment=environment,
        predictive_draws=predictive_draws,
        coords={"subject": trials.subjects, "trial": np.arange(1, trials.trial_mask.shape[1] + 1), **sampled.coords},
        dims=sampled.dims,
        seed=seed,
        progress=progress,
    )


def _check(
    net: Network,
    data: ObservedTrials,
    scored: Mapping[str, Scored],
    trials: TrialData,
    conditions: Mapping[str, Condition],
) -> DataCheck | None:
    """The data against the data sets that the conversion has generated; None where it could not."""
    (site,) = scored.values()
    if site.simulated is None or site.draws is None or site.log_probs is None:
        return None
    made, feedback = site.simulated, site.simulated.feedback.items()

    def together(x: np.ndarray) -> np.ndarray:
        """Draws of all chains in one dimension."""
        return x.reshape((-1, *x.shape[2:]))

    generated = Simulated(together(made.value), {name: together(x) for name, x in feedback}, together(made.log_prob))
    log_probs = np.where(complete_trials(net.schema, data), site.log_probs[site.draws.reshape(-1)], 0.0)
    return compare_data(net.schema, data, generated, log_probs.sum(-1), conditions=conditions, words=trials.words)


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
        data = trials.observe(net)
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
    columns = {name: trials.pad(predictive[name].values.reshape(-1, total)) for name in outcomes}
    return {name: np.where(np.isinf(x), np.nan, x) for name, x in columns.items()}
