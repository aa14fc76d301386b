"""Frequencies of models in a population, against the exact posterior by quadrature over the simplex."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import dirichlet

pandas = pytest.importorskip("pandas")

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.inference.random_effects import exceedance_probabilities  # noqa: E402

METHODS = ("sampling", "variational")


def simplex(models, nodes):
    """Shares (n, K) of two or three models, and log weights under a flat prior, by Gauss-Legendre quadrature."""
    place, weight = np.polynomial.legendre.leggauss(nodes)
    place, weight = (place + 1) / 2, weight / 2
    if models == 2:
        return np.stack([place, 1 - place], 1), np.log(weight)
    first, rest = (x.reshape(-1) for x in np.meshgrid(place, place, indexing="ij"))
    shares = np.stack([first, (1 - first) * rest, (1 - first) * (1 - rest)], 1)
    # The flat density on the triangle is 2, the Jacobian of the map 1 - first.
    return shares, np.log(np.outer(weight, weight).reshape(-1) * 2 * (1 - first))


def exact(log_evidence, nodes=120):
    """Columns of the table, assignments and omnibus risk of the whole model, by quadrature."""
    size, models = log_evidence.shape
    shares, log_weight = simplex(models, nodes)
    by_model = np.log(shares)[:, None] + log_evidence
    by_person = logsumexp(by_model, axis=2)
    log_joint = log_weight + by_person.sum(1)
    different = logsumexp(log_joint)
    weight = np.exp(log_joint - different)
    best = shares.argmax(1)
    equal = (logsumexp(log_evidence, axis=1) - np.log(models)).sum()
    mean, risk = weight @ shares, 1 / (1 + np.exp(different - equal))
    exceedance = np.array([weight[best == k].sum() for k in range(models)])
    return {
        "frequency": mean,
        "frequency_sd": np.sqrt(weight @ (shares - mean) ** 2),
        "exceedance": exceedance,
        "protected_exceedance": (1 - risk) * exceedance + risk / models,
        "assignments": np.einsum("g,gnk->nk", weight, np.exp(by_model - by_person[..., None])),
        "risk": risk,
    }


def named(log_evidence):
    return {f"model {k}": column for k, column in enumerate(log_evidence.T)}


@cache
def examples(models):
    """Weak and strong evidence of few and of more people, the first model ahead, and what follows from it."""
    rng, cases = np.random.default_rng(models), []
    for size, spread in product((5, 13), (0.7, 3.0)):
        log_evidence = spread * rng.normal(size=(size, models)) + np.array([spread, *np.zeros(models - 1)])
        cases.append((log_evidence, exact(log_evidence)))
    return cases


@pytest.mark.parametrize("models", [2, 3])
def test_sampling_gives_the_exact_posterior(models):
    for log_evidence, truth in examples(models):
        result = pb.random_effects(named(log_evidence))
        for name in ("frequency", "frequency_sd", "exceedance", "protected_exceedance"):
            np.testing.assert_allclose(result.table[name], truth[name], atol=0.016, err_msg=name)
        np.testing.assert_allclose(result.assignments, truth["assignments"], atol=0.016)
        assert result.omnibus_risk == pytest.approx(truth["risk"], rel=0.05)


def test_sampling_is_exact_for_many_people_too():
    # Resampled on the way: one person of weak evidence after another.
    rng = np.random.default_rng(5)
    log_evidence = rng.normal(size=(101, 2)) + np.array([0.9, 0.0])
    result, truth = pb.random_effects(named(log_evidence)), exact(log_evidence, nodes=400)
    np.testing.assert_allclose(result.table["frequency"], truth["frequency"], atol=0.01)
    np.testing.assert_allclose(result.table["frequency_sd"], truth["frequency_sd"], rtol=0.05)
    assert result.omnibus_risk == pytest.approx(truth["risk"], rel=0.2)


@pytest.mark.parametrize("models", [2, 3])
def test_the_variational_posterior_is_near_the_exact_one(models):
    for log_evidence, truth in examples(models):
        result = pb.random_effects(named(log_evidence), method="variational")
        np.testing.assert_allclose(result.table["frequency"], truth["frequency"], atol=0.08)
        # Too bold where evidence is weak; and the free energy is a lower bound, by which equal frequencies look more
        # probable than they are. Protected, most of it cancels.
        np.testing.assert_allclose(result.table["exceedance"], truth["exceedance"], atol=0.2)
        assert truth["risk"] - 1e-9 <= result.omnibus_risk <= truth["risk"] + 0.3
        np.testing.assert_allclose(result.table["protected_exceedance"], truth["protected_exceedance"], atol=0.06)


@pytest.mark.parametrize("method", METHODS)
def test_decisive_evidence_counts_people(method):
    # 7, 3 and 1 people whose evidence leaves no doubt, whatever is added to each person's.
    assignment = np.repeat([0, 1, 2], [7, 3, 1])
    log_evidence = np.where(assignment[:, None] == np.arange(3), 0.0, -60.0) - np.arange(11.0)[:, None]
    result, truth = pb.random_effects(named(log_evidence), method=method), exact(log_evidence)
    posterior = dirichlet([8, 4, 2])
    np.testing.assert_allclose(result.table["frequency"], posterior.mean(), atol=0.003)
    np.testing.assert_allclose(result.table["frequency_sd"], np.sqrt(posterior.var()), rtol=0.02)
    np.testing.assert_allclose(result.table["exceedance"], truth["exceedance"], atol=0.01)
    np.testing.assert_allclose(result.omnibus_risk, truth["risk"], rtol=1e-6)
    np.testing.assert_allclose(result.assignments, assignment[:, None] == np.arange(3), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_where_all_models_are_alike_nothing_is_more_frequent(method):
    result = pb.random_effects(named(np.full((17, 3), -123.0)), method=method)
    # Such data say nothing: both hypotheses stay as probable as they were, or look worse by the lower bound.
    assert result.omnibus_risk == pytest.approx(0.5, abs=1e-6) if method == "sampling" else result.omnibus_risk > 0.8
    np.testing.assert_allclose(result.table["protected_exceedance"], 1 / 3, atol=0.01)
    np.testing.assert_allclose(result.assignments, 1 / 3, atol=0.015)


@pytest.mark.parametrize("method", METHODS)
def test_where_all_people_are_alike_one_model_holds(method):
    result = pb.random_effects(named(np.tile([-50.0, -90.0], (23, 1))), method=method)
    assert result.omnibus_risk < 1e-4 and (result.table[["exceedance", "protected_exceedance"]].iloc[0] > 0.999).all()


@pytest.mark.parametrize("method", METHODS)
def test_constants_and_orders_change_nothing(method):
    rng = np.random.default_rng(3)
    log_evidence = 3 * rng.normal(size=(7, 3))
    one = pb.random_effects(named(log_evidence), method=method)
    moved = pb.random_effects(named(log_evidence - 1e4 * rng.random((7, 1))), method=method)
    np.testing.assert_allclose(moved.table["exceedance"], one.table["exceedance"], atol=1e-6)
    assert moved.omnibus_risk == pytest.approx(one.omnibus_risk, rel=1e-6)
    subjects, order = rng.permutation(7), [2, 0, 1]
    mixed = pb.random_effects(named(log_evidence[subjects][:, order]), method=method)
    np.testing.assert_allclose(mixed.table["exceedance"], one.table["exceedance"].to_numpy()[order], atol=0.016)
    np.testing.assert_allclose(mixed.assignments, one.assignments.to_numpy()[subjects][:, order], atol=0.016)


@pytest.mark.parametrize("concentration", [[3.0, 5.0], [1.0, 1.0, 1.0], [0.4, 2.0, 7.0, 7.5], [40.0, 1.5, 38.0]])
def test_exceedance_probabilities_are_shares_of_dirichlet_draws(concentration):
    draws = dirichlet(concentration).rvs(200_000, random_state=5)
    share = np.bincount(draws.argmax(1), minlength=len(concentration)) / len(draws)
    np.testing.assert_allclose(exceedance_probabilities(np.array(concentration)), share, atol=0.005)


def test_families_share_their_models_people():
    # Eleven people, each explained by one of three models of a family or by a fourth model alone.
    assignment = np.repeat([0, 1, 2, 3], [3, 2, 2, 4])
    log_evidence = np.where(assignment[:, None] == np.arange(4), 0.0, -60.0)
    names = list(named(log_evidence))
    families = {"learning": names[:3], "guessing": names[3:]}
    result = pb.random_effects(named(log_evidence), families=families)
    # Flat over families, which split their prior count among their models.
    np.testing.assert_allclose(
        result.table["frequency"], np.array([3, 2, 2, 4]) / 13 + np.array([1, 1, 1, 3]) / 39, atol=3e-3
    )
    np.testing.assert_allclose(result.family_table["frequency"], [8 / 13, 5 / 13], atol=0.003)
    # As two models that explain seven and four people.
    two = exact(np.where((assignment == 3)[:, None] == np.array([False, True]), 0.0, -60.0))
    np.testing.assert_allclose(result.family_table["exceedance"], two["exceedance"], atol=0.01)
    # A family of many models is no more probable for that.
    alike = pb.random_effects(named(np.zeros((5, 4))), families=families)
    np.testing.assert_allclose(alike.family_table["frequency"], 0.5, atol=0.01)
    assert alike.omnibus_risk == pytest.approx(0.5)
    assert "families are equally frequent" in str(result) and "learning" in str(result)


def test_it_reads_what_compare_returns():
    rows = [(one, model, value) for one, values in {"b": (-3.0, -9.0), "a": (-8.0, -np.inf)}.items()
            for model, value in zip(("slow", "fast"), values, strict=True)]  # fmt: skip
    result = pb.random_effects(pandas.DataFrame(rows, columns=["data_set", "model", "log_evidence"]))
    assert list(result.assignments.columns) == ["slow", "fast"] and list(result.assignments.index) == ["b", "a"]
    assert result.assignments.loc["a", "fast"] == 0 and np.isfinite(result.omnibus_risk)
    again = pb.random_effects({"slow": [-3, -8], "fast": [-9, -np.inf]})
    pandas.testing.assert_frame_equal(result.table, again.table)


@pytest.mark.parametrize(
    ("evidence", "options", "message"),
    [
        ({"a": [1.0]}, {}, "evidence: expected at least two models"),
        ({"a": [1.0], "b": [1.0, 2.0]}, {}, r"evidence: expected one log evidence a person, \(N,\)"),
        ({"a": [1.0], "b": [np.nan]}, {}, "evidence: expected a number of every model"),
        ({"a": [-np.inf], "b": [-np.inf]}, {}, "evidence 0 in all"),
        ({"a": [1.0], "b": ["x"]}, {}, "evidence"),
        ({"a": [1.0], "b": [2.0]}, {"families": {"one": ["a"], "two": ["a", "b"]}}, "families: expected two or more"),
        ({"a": [1.0], "b": [2.0]}, {"families": {"one": "a", "two": ["b"]}}, r"families\['one'\]: expected a list of"),
        ({"a": [1.0], "b": [2.0]}, {"families": {"one": ["a"], "two": ["b"]}, "method": "variational"}, "method"),
        (pandas.DataFrame({"model": ["a"]}), {}, r"lacks \['data_set', 'log_evidence'\]"),
        (pandas.DataFrame({"data_set": [0, 0], "model": ["a", "a"], "log_evidence": [1, 2]}), {}, "one row for each"),
    ],
)
def test_bad_evidence_is_refused(evidence, options, message):
    with pytest.raises(ValueError, match=message):
        pb.random_effects(evidence, **options)
