"""A new person's data under a fitted population, and K-fold scores of people, against quadrature."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

import ppl_buffer as pb
from ppl_buffer.inference.population import population_evidence
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from tests.formulas.cases import Deciders
from tests.inference.test_evidence import REPORT_RECORD
from tests.networks import GUESS, REPORT, data, network

pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("quick_compilation")
SUBJECTS, TRIALS = 5, 7


def observed():
    net, given = network(REPORT, "torch", REPORT_RECORD), data(REPORT, batch=SUBJECTS, trials=TRIALS)
    return net, net.observe(given.inputs, given.value)


def posterior_of(fitted):
    """What a refit might find, other for other people."""
    rng = np.random.default_rng(int(fitted.sum()))
    return {"mu": rng.normal(0.4, 0.5, 37)}, {"mu": np.exp(rng.normal(0.0, 0.3, 37))}


def by_quadrature(net, seen, means, spreads, lapse=None):
    """Log density of each person's data, by a sum over a grid of the person's parameter."""
    grid = np.linspace(-9, 9, 901)
    mu = np.asarray(net.into_box("mu", grid.astype("f4")))
    query = Query.build(net, seen, params={"mu": mu[:, None]}, lapse=lapse, outside="ignore")
    log_likelihood = np.asarray(density.log_prob(query, seen.value), dtype=float)
    people = norm(np.asarray(means["mu"])[:, None], np.asarray(spreads["mu"])[:, None]).pdf(grid).mean(0)
    return logsumexp(log_likelihood + np.log(people)[:, None], axis=0) + np.log(grid[1] - grid[0])


def test_a_persons_parameters_are_integrated_over_the_population():
    net, seen = observed()
    means, spreads = posterior_of(np.arange(3))
    result = population_evidence(net, seen, means, spreads)
    assert np.ptp(by_quadrature(net, seen, means, spreads)) > 0.5
    np.testing.assert_allclose(result.log_evidence, by_quadrature(net, seen, means, spreads), atol=0.03)
    with pytest.raises(ValueError, match=r"means: expected draws of \['mu'\]"):
        population_evidence(net, seen, {}, spreads)
    with pytest.raises(ValueError, match="spreads: expected positive numbers"):
        population_evidence(net, seen, means, {"mu": -spreads["mu"]})


def test_people_may_have_means_and_spreads_of_their_own():
    """As a formula says them: each person's evidence is that under the person's own population."""
    net, seen = observed()
    means, spreads = posterior_of(np.arange(3))
    shift, factor = np.linspace(-3, 3, SUBJECTS), np.linspace(0.5, 1.2, SUBJECTS)
    own = {"mu": means["mu"][:, None] + shift}, {"mu": spreads["mu"][:, None] * factor}
    result = population_evidence(net, seen, *own).log_evidence
    expected = np.array([
        by_quadrature(net, seen, {"mu": own[0]["mu"][:, person]}, {"mu": own[1]["mu"][:, person]})[person]
        for person in range(SUBJECTS)
    ])  # fmt: skip
    assert np.abs(expected - by_quadrature(net, seen, means, spreads)).max() > 0.1
    np.testing.assert_allclose(result, expected, atol=0.03)
    # A spread that all share goes with means that differ, and chains may be apart.
    mixed = population_evidence(net, seen, own[0], {"mu": spreads["mu"]}).log_evidence
    apart = population_evidence(net, seen, {"mu": own[0]["mu"][None]}, {"mu": spreads["mu"][None]}).log_evidence
    np.testing.assert_array_equal(mixed, apart)
    with pytest.raises(ValueError, match=r"means: expected draws of \['mu'\].*NAME_Intercept plus the coefficients"):
        population_evidence(net, seen, {"mu~group": means["mu"]}, spreads)
    with pytest.raises(ValueError, match=r"means\['mu'\]: expected draws, or \(draws, 5\) of people, got shape"):
        population_evidence(net, seen, {"mu": np.zeros((2, 3, 4))}, spreads)


def test_each_fold_is_scored_by_a_population_fitted_without_it():
    pytest.importorskip("xarray")
    net, seen = observed()
    asked = []

    def refit(kept):
        asked.append(set(kept.tolist()))
        return posterior_of(kept)

    score = pb.scores.kfold(net, seen, refit, folds=3, draws=600, subjects=list("abcde"), progress=False)
    left_out = [set(range(SUBJECTS)) - kept for kept in asked]
    assert sorted(map(len, left_out)) == [1, 2, 2] and set.union(*left_out) == set(range(SUBJECTS))
    for kept, fold in zip(asked, left_out, strict=True):
        means, spreads = posterior_of(np.array(sorted(kept)))
        expected = by_quadrature(net, seen, means, spreads)
        for person in fold:
            assert float(score.pointwise.sel(subject="abcde"[person])) == pytest.approx(expected[person], abs=0.04)
    assert "people of other folds" in str(score) and score.difference(score) == (0.0, 0.0)
    with pytest.raises(ValueError, match="folds: expected 2 to 5, the number of people, got 6"):
        pb.scores.kfold(net, seen, refit, folds=6, progress=False)


def test_a_rate_of_lapses_that_people_have_from_the_population_is_integrated_too():
    net, seen = observed()
    means, spreads = posterior_of(np.arange(3))
    lapse, rng = pb.Lapse(pb.Prior.uniform(0.0, 0.6)), np.random.default_rng(5)
    means, spreads = means | {"lapse": rng.normal(0.3, 0.2, 37)}, spreads | {"lapse": np.exp(rng.normal(-1, 0.1, 37))}
    result = population_evidence(net, seen, means, spreads, lapse=lapse)
    # A grid of the person's parameter and rate, of which the rate is uniform where its score is standard normal.
    score = np.linspace(-3, 3, 25)
    terms = []
    for x in score:
        grid = np.linspace(-9, 9, 181)
        mu = np.asarray(net.into_box("mu", grid.astype("f4")))[:, None]
        query = Query.build(net, seen, params={"mu": mu}, lapse=lapse.at(0.6 * norm.cdf(x)), outside="ignore")
        people = norm(means["mu"][:, None], spreads["mu"][:, None]).pdf(grid)
        people = (people * norm(means["lapse"][:, None], spreads["lapse"][:, None]).pdf(x)).mean(0)
        log_likelihood = np.asarray(density.log_prob(query, seen.value), dtype=float)
        terms.append(logsumexp(log_likelihood + np.log(people)[:, None], axis=0))
    expected = logsumexp(terms, axis=0) + np.log(grid[1] - grid[0]) + np.log(score[1] - score[0])
    without = by_quadrature(net, seen, means, spreads)
    assert np.abs(expected - without).max() > 0.1
    np.testing.assert_allclose(result.log_evidence, expected, atol=0.04)
    with pytest.raises(ValueError, match=r"means: expected draws of \['mu', 'lapse'\]"):
        population_evidence(net, seen, *posterior_of(np.arange(3)), lapse=lapse)


def test_a_non_decision_time_stays_below_the_bounds_of_the_fit():
    case, rng = Deciders(), np.random.default_rng(6)
    net, seen, lapse = case.net("torch"), case.seen("torch"), pb.Lapse(0.2)
    centers = {"drift": 0.0, "delay": 0.5, "bound": 0.0}
    means = {name: x + 0.1 * rng.normal(size=31) for name, x in centers.items()}
    spreads = {name: np.full(31, 0.15) for name in means}
    fastest = np.where(case.mask, case.rt, np.inf).min(1)
    default = population_evidence(net, seen, means, spreads, lapse=lapse)
    same = population_evidence(net, seen, means, spreads, lapse=lapse, below={"delay": fastest})
    np.testing.assert_allclose(same.log_evidence, default.log_evidence, rtol=1e-5)
    # The fastest of them may be a lapse: the next one bounds the decision, and draws of the population say the rest.
    second = np.sort(np.where(case.mask, case.rt, np.inf), 1)[:, 1]
    wider = population_evidence(net, seen, means, spreads, lapse=lapse, below={"delay": second})
    people, params = rng.integers(0, 31, 5_000), {}
    for name in net.schema.params:
        x = (means[name][people] + spreads[name][people] * rng.normal(size=5_000))[:, None].astype("f4")
        params[name] = net.into_box(name, x, params, below=second.astype("f4") if name == "delay" else None)
    query = Query.build(net, seen, params=params, lapse=lapse, outside="ignore")
    simple = logsumexp(np.asarray(density.log_prob(query, seen.value), dtype=float), axis=0) - np.log(5_000)
    np.testing.assert_allclose(wider.log_evidence, simple, atol=0.1)
    assert np.abs(wider.log_evidence - default.log_evidence).max() > 0.1
    for wrong, message in (
        ({"drift": fastest[:2]}, r"below\['drift'\]: expected 5 numbers above -1, one a person"),
        ({"delay": 0 * fastest}, r"below\['delay'\]: expected 5 numbers above 0.1"),
        ({"speed": fastest}, r"below: expected parameters of \['drift', 'delay', 'bound'\], got 'speed'"),
    ):
        with pytest.raises(ValueError, match=message):
            population_evidence(net, seen, means, spreads, below=wrong)


def test_what_varies_within_people_is_added_trial_by_trial():
    """Items with effects of their own, draws of which belong to draws of the population: against quadrature."""
    rng, draws = np.random.default_rng(5), 11
    net = network(GUESS, "torch", REPORT_RECORD)
    value = np.clip(rng.normal(0.4, 0.8, (SUBJECTS, TRIALS)), -1.9, 2.9).astype(np.float32)
    seen = net.observe({}, value)
    means, spreads = {"mu": rng.normal(0.4, 0.5, draws)}, {"mu": np.exp(rng.normal(-0.5, 0.3, draws))}
    offsets = {"mu": rng.normal(0.0, 1.0, (draws, SUBJECTS, TRIALS))}
    grid = np.linspace(-9, 9, 901)
    terms = []
    for draw in range(draws):
        real = grid[:, None, None] + offsets["mu"][draw]
        mu = np.asarray(net.into_box("mu", real.astype("f4")))
        query = Query.build(net, seen, trial_params={"mu": mu}, outside="ignore")
        log_likelihood = np.asarray(density.log_prob(query, seen.value), dtype=float)
        terms.append(log_likelihood + norm(means["mu"][draw], spreads["mu"][draw]).logpdf(grid)[:, None])
    expected = logsumexp(terms, axis=(0, 1)) - np.log(draws) + np.log(grid[1] - grid[0])
    result = population_evidence(net, seen, means, spreads, offsets=offsets, draws=4000).log_evidence
    np.testing.assert_allclose(result, expected, atol=0.06)
    assert np.abs(population_evidence(net, seen, means, spreads).log_evidence - expected).max() > 0.3
    with pytest.raises(ValueError, match=r"offsets\['mu'\]: expected \(draws, people, trials\), \(11, 5, 7\)"):
        population_evidence(net, seen, means, spreads, offsets={"mu": offsets["mu"][:, :, :3]})
    with pytest.raises(ValueError, match=r"offsets: expected parameters of \['mu'\], got 'nu'"):
        population_evidence(net, seen, means, spreads, offsets={"nu": offsets["mu"]})
    # A refit returns them as a third dict.
    asked = []

    def refit(kept):
        left_out = np.setdiff1d(np.arange(SUBJECTS), kept)
        asked.append(left_out)
        return means, spreads, {"mu": offsets["mu"][:, left_out]}

    score = pb.scores.kfold(net, seen, refit, folds=2, draws=4000, progress=False)
    np.testing.assert_allclose(score.pointwise.values, expected, atol=0.06)
    with pytest.raises(ValueError, match="refit: expected draws of means and of spreads, .* got dict"):
        pb.scores.kfold(net, seen, lambda kept: means, folds=2, progress=False)
