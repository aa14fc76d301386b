"""How often each model holds in a population: random-effects selection of models by everybody's evidence.

A sum of log evidences asks which one model made all people's data, and a single person can decide it. Here each
person's data come from a model of their own, r_k is the share of people that model k generates, and r has a Dirichlet
prior (Stephan, Penny, Daunizeau, Moran & Friston 2009, NeuroImage 46, 1004).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, entr, gammainc, gammainccinv, gammaincinv, gammaln, logsumexp, ndtr

from ppl_buffer.checks import check_choice, check_integer, check_mapping, check_numbers, check_seed

if TYPE_CHECKING:
    import pandas

METHODS = ("sampling", "variational")
# Where the variational posterior no longer moves, in people; and after how many rounds it has to.
_SETTLED, _MOST_ROUNDS = 1e-8, 100_000
# Places of the integral of exceedance probabilities, on the scale of normal scores.
_SCORES = np.linspace(-8.5, 8.5, 1701)


@dataclass(frozen=True, eq=False)
class RandomEffects:
    """What people's evidence says of how often each model holds. Made by `random_effects`.

    Attributes:
        table: a row a model: ``frequency``, the posterior mean of the share of people whose data it generates, with
            its posterior sd ``frequency_sd``; ``exceedance``, the probability that it is the most frequent one;
            ``protected_exceedance``, the same averaged with what equal frequencies would leave (Rigoux, Stephan,
            Friston & Daunizeau 2014, NeuroImage 84, 971, equation 7).
        assignments: a row a data set, a column a model: the probability that the model generated the data set.
        omnibus_risk: Bayesian omnibus risk, the posterior probability that all models (with families: all families)
            are equally frequent, so that what differs is chance (ibid., equation 8); 0.5 before the data.
        family_table: `table` of families; None where there are none.
    """

    table: pandas.DataFrame
    assignments: pandas.DataFrame
    omnibus_risk: float
    family_table: pandas.DataFrame | None

    def __str__(self) -> str:
        tables = [self.table] if self.family_table is None else [self.table, self.family_table]
        text = "\n".join(table.to_string(index=False, float_format="{:.3f}".format) for table in tables)
        what = "models" if self.family_table is None else "families"
        return f"{text}\nProbability that all {what} are equally frequent: {self.omnibus_risk:.3f}"


def random_effects(
    evidence: pandas.DataFrame | Mapping[str, ArrayLike],
    *,
    families: Mapping[str, Sequence[str]] | None = None,
    method: str = "sampling",
    draws: int = 20_000,
    seed: int = 0,
) -> RandomEffects:
    """How often each model holds in the population that people come from.

    Args:
        evidence: what `ppl_buffer.compare` returned; or model -> log evidences (N,) of the same people, wherever they
            come from, in nats.
        families: family -> names of its models, each model in one family. Families are then equally probable before
            the data, and models within each (Penny et al. 2010, PLoS Comput. Biol. 6, e1000709): many models are no
            advantage. By default each model stands for itself.
        method: "sampling" draws from the posterior itself, person after person with importance weights (sequential
            imputation: Kong, Liu & Wong 1994, J. Am. Stat. Assoc. 89, 278). "variational" is the approximation of
            Stephan et al. (2009) that SPM and the VBA toolbox compute, with the omnibus risk of Rigoux et al. (2014):
            where evidence is weak its ``exceedance`` is too bold and its omnibus risk too high. It has no families,
            which the approximation weighs by the number of their models.
        draws: of sampling.
        seed: of sampling.

    Raises:
        ValueError: if there are fewer than two models, a log evidence is missing, comes twice or is no number, all are
            minus infinity for a person, or families do not hold each model once or meet the variational method.
    """
    models, data_sets, log_evidence = _log_evidence(evidence)
    check_choice("method", method, METHODS)
    draws, seed = check_integer("draws", draws), check_seed(seed)
    grouped = checked_families(models, families)
    if grouped and method == "variational":
        raise ValueError("method: expected 'sampling' with families, got 'variational'")
    shares = _equal_shares(models, grouped)
    prior = shares * (len(grouped) or len(models))
    with np.errstate(divide="ignore"):
        equal = logsumexp(log_evidence + np.log(shares), axis=1).sum()
    family_columns = None
    if method == "variational":
        concentration, assignments = _variational(log_evidence, prior)
        different = _free_energy(log_evidence, prior, concentration, assignments)
        columns = _dirichlet_columns(concentration)
    else:
        sampled, assignments, different = _sample(log_evidence, prior, draws, np.random.default_rng(seed))
        columns = _sampled_columns(sampled)
        if grouped:
            rows = [[models.index(model) for model in family] for family in grouped.values()]
            family_columns = _sampled_columns(np.stack([sampled[:, row].sum(1) for row in rows], 1))
    import pandas

    # The posterior probability of one of two hypotheses of equal prior probability, without overflow.
    risk = float(np.exp(-np.logaddexp(0.0, different - equal)))
    return RandomEffects(
        _table("model", models, columns, risk, shares),
        pandas.DataFrame(
            assignments, index=pandas.Index(data_sets, name="data_set", tupleize_cols=False), columns=models
        ),
        risk,
        None
        if family_columns is None
        else _table("family", tuple(grouped), family_columns, risk, np.full(len(grouped), 1 / len(grouped))),
    )


def exceedance_probabilities(concentration: np.ndarray) -> np.ndarray:
    """Probability (K,) that each share of a Dirichlet distribution is the largest of all.

    Shares are gamma variables over their sum, so that it is one integral for each: over the k-th variable, of the
    probability that all others are below it (Soch & Allefeld 2016, arXiv 1611.01439). Places are quantiles of normal
    scores, on which the trapezoidal rule converges fast.

    Args:
        concentration: (K,), positive.
    """
    lower = gammaincinv(concentration[:, None], ndtr(_SCORES))
    upper = gammainccinv(concentration[:, None], ndtr(-_SCORES))
    places = np.where(_SCORES < 0, lower, upper)
    weights = np.exp(-0.5 * _SCORES**2)
    result = np.empty(len(concentration))
    for index in range(len(concentration)):
        others = np.delete(concentration, index)
        result[index] = (weights * gammainc(others[:, None], places[index]).prod(0)).sum()
    return result / result.sum()


def checked_families(models: Sequence[str], given: Mapping[str, Sequence[str]] | None) -> dict[str, tuple[str, ...]]:
    """The families; empty where there are none.

    Raises:
        ValueError: if they do not hold each model once.
    """
    families = {}
    for name, family in check_mapping("families", given).items():
        if isinstance(family, str) or not isinstance(family, Sequence):
            raise ValueError(f"families[{name!r}]: expected a list of models, got {family!r}")
        families[name] = tuple(family)
    listed = sorted(str(model) for family in families.values() for model in family)
    if families and (listed != sorted(models) or len(families) < 2 or not all(families.values())):
        raise ValueError(f"families: expected two or more that hold each of {list(models)} once, got {families}")
    return families


def _sample(
    log_evidence: np.ndarray, prior: np.ndarray, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """Draws (S, K) of the frequencies, assignments (N, K), and the log evidence of frequencies that may differ.

    Given the people before, the next one's model is a draw from Polya's urn, and the probability of the next one's data
    the factor of a draw's weight. The most certain people come first, so that weights differ little.
    """
    size, models = log_evidence.shape
    best = log_evidence.max(1, keepdims=True)
    likelihood = np.exp(log_evidence - best)
    counts = np.tile(prior, (draws, 1))
    log_weight, log_total = np.zeros(draws), float(best.sum())
    history = np.empty((size, draws), dtype=np.int16)
    for place, person in enumerate(np.argsort(likelihood.sum(1), kind="stable")):
        joint = counts * (likelihood[person] / (prior.sum() + place))
        total = joint.sum(1)
        share = rng.random(draws) * total
        model = np.minimum((share[:, None] >= joint.cumsum(1)).sum(1), models - 1)
        history[person] = model
        counts[np.arange(draws), model] += 1
        log_weight += np.log(total)
        weight = np.exp(log_weight - log_weight.max())
        if place == size - 1 or weight.sum() ** 2 < 0.5 * draws * (weight**2).sum():
            log_total += float(log_weight.max() + np.log(weight.mean()))
            weight, log_weight = weight / weight.sum(), np.zeros(draws)
            kept = np.searchsorted(weight.cumsum(), (np.arange(draws) + rng.random()) / draws).clip(max=draws - 1)
            counts, history = counts[kept], history[:, kept]
    gamma = rng.standard_gamma(counts)
    assignments = np.stack([np.bincount(row, minlength=models) for row in history]) / draws
    return gamma / gamma.sum(1, keepdims=True), assignments, log_total


def _variational(log_evidence: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dirichlet parameters (K,) and assignments (N, K) of the variational posterior (Stephan et al. 2009, eq. 14)."""
    concentration = prior
    for _ in range(_MOST_ROUNDS):
        unnormalized = log_evidence + digamma(concentration)
        assignments = np.exp(unnormalized - logsumexp(unnormalized, axis=1, keepdims=True))
        before, concentration = concentration, prior + assignments.sum(0)
        if np.abs(concentration - before).max() < _SETTLED:
            break
    return concentration, assignments


def _free_energy(
    log_evidence: np.ndarray, prior: np.ndarray, concentration: np.ndarray, assignments: np.ndarray
) -> float:
    """Lower bound of the log evidence of frequencies that may differ (Rigoux et al. 2014, appendix A)."""
    log_shares = digamma(concentration) - digamma(concentration.sum())
    # A person of whose data a model has no evidence is never assigned to it.
    fit = np.where(assignments > 0, assignments * np.where(assignments > 0, log_evidence + log_shares, 0.0), 0.0)
    expected = gammaln(prior.sum()) - gammaln(prior).sum() + ((prior - 1) * log_shares).sum() + fit.sum()
    entropy = gammaln(concentration).sum() - gammaln(concentration.sum()) - ((concentration - 1) * log_shares).sum()
    return float(expected + entropy + entr(assignments).sum())


def _equal_shares(models: Sequence[str], families: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Frequency (K,) of each model where all models, or all families and the models within each, are equally frequent.

    The mean of the prior, too.
    """
    if not families:
        return np.full(len(models), 1 / len(models))
    size = {model: len(family) for family in families.values() for model in family}
    return np.array([1 / (len(families) * size[model]) for model in models])


def _dirichlet_columns(concentration: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, sd and exceedance probability of Dirichlet shares."""
    total = concentration.sum()
    mean = concentration / total
    return mean, np.sqrt(mean * (1 - mean) / (total + 1)), exceedance_probabilities(concentration)


def _sampled_columns(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, sd and exceedance probability of shares (S, K)."""
    exceedance = np.bincount(shares.argmax(1), minlength=shares.shape[1]) / len(shares)
    return shares.mean(0), shares.std(0), exceedance


def _table(
    what: str,
    names: Sequence[str],
    columns: tuple[np.ndarray, np.ndarray, np.ndarray],
    risk: float,
    equal: np.ndarray,
) -> pandas.DataFrame:
    import pandas

    frequency, sd, exceedance = columns
    return pandas.DataFrame(
        {
            what: list(names),
            "frequency": frequency,
            "frequency_sd": sd,
            "exceedance": exceedance,
            "protected_exceedance": (1 - risk) * exceedance + risk * equal,
        }
    )


def _log_evidence(
    evidence: pandas.DataFrame | Mapping[str, ArrayLike],
) -> tuple[tuple[str, ...], tuple[object, ...], np.ndarray]:
    """Models, data sets, and log evidences (N, K)."""
    import pandas

    if isinstance(evidence, pandas.DataFrame):
        missing = [name for name in ("data_set", "model", "log_evidence") if name not in evidence]
        if missing:
            raise ValueError(f"evidence: expected the columns of a table by ppl_buffer.compare, but it lacks {missing}")
        if evidence.duplicated(["data_set", "model"]).any():
            raise ValueError("evidence: expected one row for each data set and model, got several")
        models = tuple(map(str, dict.fromkeys(evidence["model"])))
        data_sets = tuple(dict.fromkeys(evidence["data_set"]))
        cells = {(one, str(model)): value for one, model, value in
                 zip(evidence["data_set"], evidence["model"], evidence["log_evidence"], strict=True)}  # fmt: skip
        values = np.array([[cells.get((one, model), np.nan) for model in models] for one in data_sets], dtype=float)
    else:
        columns = {
            name: check_numbers(f"evidence[{name!r}]", column)
            for name, column in check_mapping("evidence", evidence).items()
        }
        shapes = {name: column.shape for name, column in columns.items()}
        if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 1:
            raise ValueError(f"evidence: expected one log evidence a person, (N,) for every model, got {shapes}")
        models, values = tuple(columns), np.stack(list(columns.values()), 1)
        data_sets = tuple(range(len(values)))
    if len(models) < 2 or not data_sets:
        raise ValueError(f"evidence: expected at least two models and one person, got {len(models)} models")
    if np.isnan(values).any() or np.isposinf(values).any():
        raise ValueError("evidence: expected a number of every model for each person, got some that are none")
    if np.isneginf(values).all(1).any():
        raise ValueError("evidence: expected people whose data some model can generate, got one with evidence 0 in all")
    return models, data_sets, values
