"""A new person's data under a fitted population, and K-fold scores of people, against quadrature."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

import ppl_buffer as pb
from ppl_buffer.inference.population import population_evidence
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from tests.inference.test_evidence import REPORT_RECORD
from tests.networks import REPORT, data, network

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
