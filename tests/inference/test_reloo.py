"""Terms of a score by fits without them, against exact leave-one-out."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

pytest.importorskip("arviz")
xarray = pytest.importorskip("xarray")
pytest.importorskip("torch")

import ppl_buffer as pb  # noqa: E402
from ppl_buffer import scores  # noqa: E402
from ppl_buffer.arviz import container  # noqa: E402
from ppl_buffer.inference.population import population_evidence  # noqa: E402
from ppl_buffer.network.lapses import Lapse  # noqa: E402
from ppl_buffer.predictive import density  # noqa: E402
from ppl_buffer.predictive.query import Query  # noqa: E402
from ppl_buffer.scores.refits import replace_terms  # noqa: E402
from tests.formulas.cases import Deciders  # noqa: E402
from tests.inference.test_population import SUBJECTS, by_quadrature, observed, posterior_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_a_term_that_importance_sampling_misses_becomes_that_of_the_conjugate_model():
    """Normal data about a normal mean, the last of which is known best, and tells most of it."""
    rng, prior, count = np.random.default_rng(2), 3.0, 11
    noise = np.append(np.ones(count - 1), 0.12)
    y = np.append(rng.normal(size=count - 1), 1.2)

    def without(index):
        """Mean and standard deviation of the posterior of the mean."""
        kept = np.delete(np.arange(count), index)
        precision = prior**-2 + (noise[kept] ** -2).sum()
        return (y[kept] * noise[kept] ** -2).sum() / precision, precision**-0.5

    mu = rng.normal(*without([]), (2, 500))
    coords = {"subject": [f"s{index}" for index in range(count)]}
    score = scores.psis_loo("loo", xarray.DataArray(
        norm(mu[..., None], noise).logpdf(y), dims=("chain", "draw", "subject"), coords=coords
    ))  # fmt: skip
    mean, std = without(count - 1)
    expected = norm(mean, np.hypot(noise[-1], std)).logpdf(y[-1])
    assert np.flatnonzero(score.pareto_k.values > score.threshold).tolist() == [count - 1]

    def exact(index):
        mean, std = without(index)
        draws = norm(mean, std).ppf((np.arange(4001) + 0.5) / 4001)
        return logsumexp(norm(draws, noise[index]).logpdf(y[index])) - np.log(4001)

    again = replace_terms(score, exact, None, False)
    assert abs(float(score.pointwise[-1]) - expected) > 0.3
    assert float(again.pointwise[-1]) == pytest.approx(expected, abs=0.03)
    np.testing.assert_array_equal(again.pointwise[:-1], score.pointwise[:-1])
    assert again.refitted == 1 and again.doubtful == 0 and "1 fitted again without them" in str(again)
    assert again.difference(score)[0] == pytest.approx(float(again.pointwise[-1] - score.pointwise[-1]))


@pytest.mark.filterwarnings("ignore:loo. Pareto k is above")
def test_trials_are_left_out_of_fits_of_their_own():
    case, grid = Deciders(), np.linspace(-0.9, 1.4, 401)
    net, seen = case.net("torch"), case.seen("torch")
    others = {"delay": 0.2, "bound": 1.5}

    def each_at(values):
        """Log density (draws, people, K) of the trials at values of the drift that all share."""
        params = {"drift": values[:, None], **{name: np.full((1, 1), x) for name, x in others.items()}}
        params = {name: x.astype(np.float32) for name, x in params.items()}
        query = Query.build(net, seen, params=params, outside="ignore")
        return np.asarray(density.conditionals(query, seen.value), dtype=float)

    on_grid, log_prior = each_at(grid), norm(0.2, 0.5).logpdf(grid)

    def weights(keep):
        log_posterior = log_prior + np.where(keep, on_grid, 0.0).sum((1, 2))
        return np.exp(log_posterior - logsumexp(log_posterior))

    def refit(keep):
        places = (np.arange(997) + 0.5) / 997
        drift = np.interp(places, np.cumsum(weights(keep)), grid)
        return {"drift": drift, **{name: np.full((997, len(keep)), x) for name, x in others.items()}}

    draws = refit(case.mask)["drift"]
    values = each_at(draws)[:, case.mask].reshape(1, len(draws), -1)
    subject, trial = np.nonzero(case.mask)
    coords = {"subject": ("observation", subject), "trial": ("observation", trial)}
    outcomes = {"rt": case.value[..., 1], "choice": case.value[..., 0]}
    score = scores.loo(container({
        "log_likelihood": xarray.Dataset({"trials": (("chain", "draw", "observation"), values)}, coords),
        "observed_data": xarray.Dataset({name: ("observation", x[case.mask]) for name, x in outcomes.items()}, coords),
    }))  # fmt: skip
    limit = float(np.sort(score.pareto_k.values)[-4])
    again = scores.reloo(score, net, seen, refit, threshold=limit, progress=False)
    replaced = score.pareto_k.values > limit
    assert again.refitted == replaced.sum() == 3
    for index in np.flatnonzero(replaced):
        keep = case.mask.copy()
        keep[subject[index], trial[index]] = False
        expected = np.log(weights(keep) @ np.exp(on_grid[:, subject[index], trial[index]]))
        assert float(again.pointwise[index]) == pytest.approx(expected, abs=0.003)
    np.testing.assert_array_equal(again.pointwise.values[~replaced], score.pointwise.values[~replaced])
    # With a rate of lapses that the fit has estimated, each term is a mean over its draws too.
    lapse = pb.Lapse(pb.Prior.uniform(0.0, 0.5), {"rt": (0.0, 3.0)})
    rates = np.linspace(0.0, 0.4, 997)[np.random.default_rng(0).permutation(997)]
    mixed = scores.reloo(
        score, net, seen, lambda keep: {**refit(keep), "lapse": rates}, threshold=limit, lapse=lapse, progress=False
    )
    index = int(np.flatnonzero(replaced)[0])
    keep = case.mask.copy()
    keep[subject[index], trial[index]] = False
    of_model = each_at(refit(keep)["drift"])[:, subject[index], trial[index]]
    # A lapse is either of two choices, at any time.
    expected = np.log(np.mean((1 - rates) * np.exp(of_model) + rates / 2 / 3.0))
    assert float(mixed.pointwise[index]) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match=r"refit: expected draws of .*'lapse'\], but \['lapse'\] are missing"):
        scores.reloo(score, net, seen, refit, threshold=limit, lapse=lapse, progress=False)
    with pytest.raises(ValueError, match=r"refit: expected draws of \['drift', 'delay', 'bound'\], but"):
        scores.reloo(score, net, seen, lambda keep: {"drift": draws}, threshold=limit, progress=False)
    with pytest.raises(ValueError, match="data: expected those of the score, of the same people and trials"):
        scores.reloo(score, net, seen[[1, 0, 2, 3, 4]], refit, progress=False)


def test_people_are_left_out_of_fits_of_their_own():
    net, seen = observed()
    lapse = Lapse(0.1)
    rng = np.random.default_rng(1)
    values = rng.normal(size=(1, 200, SUBJECTS, 7)) * np.array([0.1, 0.1, 9.0, 0.1, 9.0])[:, None]
    labels = ["e", "b", "d", "a", "c"]
    coords = {"subject": ("observation", np.repeat(labels, 7)), "trial": ("observation", np.tile(np.arange(7), 5))}
    flat = (("chain", "draw", "observation"), values.reshape(1, 200, -1))
    rating = ("observation", np.asarray(seen.value).reshape(-1))
    with pytest.warns(UserWarning, match="Pareto k"):
        score = scores.logo(container({
            "log_likelihood": xarray.Dataset({"rating": flat}, coords),
            "observed_data": xarray.Dataset({"rating": rating}, coords),
        }))  # fmt: skip
    # The score has people in another order than the data.
    assert score.pointwise.subject.values.tolist() == sorted(labels) and score.doubtful == 2
    again = scores.reloo(score, net, seen, posterior_of, draws=600, lapse=lapse, progress=False)
    assert again.refitted == 2
    for person in (2, 4):
        means, spreads = posterior_of(np.delete(np.arange(SUBJECTS), person))
        expected = by_quadrature(net, seen, means, spreads, lapse)[person]
        assert float(again.pointwise.sel(subject=labels[person])) == pytest.approx(expected, abs=0.04)
    assert float(again.pointwise.sel(subject="b")) == float(score.pointwise.sel(subject="b"))
    with pytest.raises(
        ValueError, match="score: expected a Score by importance sampling, of kind 'logo' of this model"
    ):
        scores.reloo(scores.Score("loo", score.pointwise, score.pareto_k), net, seen, posterior_of)
    estimated = pb.Lapse(pb.Prior.uniform(0.0, 0.2))

    def with_rate(kept):
        means, spreads = posterior_of(kept)
        return means | {"lapse": np.zeros(37)}, spreads | {"lapse": np.full(37, 0.3)}

    again = scores.reloo(score, net, seen, with_rate, draws=600, lapse=estimated, progress=False)
    for person in (2, 4):
        population = with_rate(np.delete(np.arange(SUBJECTS), person))
        one = population_evidence(net, seen[[person]], *population, lapse=estimated, draws=600, seed=0)
        assert float(again.pointwise.sel(subject=labels[person])) == pytest.approx(float(one.log_evidence[0]), rel=1e-6)
    with pytest.raises(ValueError, match=r"means: expected draws of \['mu', 'lapse'\]"):
        scores.reloo(score, net, seen, posterior_of, lapse=estimated, progress=False)
    halves = scores.Score("logo", score.pointwise[:3], score.pareto_k[:3] + 9)
    with pytest.raises(ValueError, match="3 terms, got 5; a person who did several data sets"):
        scores.reloo(halves, net, seen, posterior_of, progress=False)
