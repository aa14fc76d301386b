import json

import numpy as np
import pytest
import scipy.stats

from ppl_buffer.prior import Prior

# Every family beside SciPy's parametrisation of the same distribution.
FAMILIES = [
    (Prior.uniform(-2.0, 5.0), scipy.stats.uniform(-2, 7)),
    (Prior("Normal", {"loc": 1.5, "scale": 0.3}), scipy.stats.norm(1.5, 0.3)),
    (Prior("LogNormal", {"loc": 0.7, "scale": 0.4}), scipy.stats.lognorm(0.4, scale=np.exp(0.7))),
    (Prior("HalfNormal", {"scale": 2.3}), scipy.stats.halfnorm(scale=2.3)),
    (Prior("Gamma", {"concentration": 3.1, "rate": 1.7}), scipy.stats.gamma(3.1, scale=1 / 1.7)),
    (Prior("Beta", {"concentration1": 2.2, "concentration0": 5.3}), scipy.stats.beta(2.2, 5.3)),
]
IDS = [prior.family for prior, _ in FAMILIES]


@pytest.mark.parametrize(("prior", "reference"), FAMILIES, ids=IDS)
def test_draws_follow_the_distribution(prior, reference):
    draws = prior.sample(np.random.default_rng(7), 20_011)
    assert draws.shape == (20_011,)
    assert abs(draws.mean() - reference.mean()) < 5 * reference.std() / np.sqrt(draws.size)
    np.testing.assert_allclose(draws.std(), reference.std(), rtol=0.05)
    assert scipy.stats.kstest(draws, reference.cdf).pvalue > 1e-3


@pytest.mark.parametrize(("prior", "reference"), FAMILIES, ids=IDS)
def test_box_holds_all_of_a_uniform_and_nearly_all_of_the_rest(prior, reference):
    low, high = prior.box()
    if prior.family == "Uniform":
        assert (low, high) == (-2.0, 5.0)
    else:
        np.testing.assert_allclose([reference.cdf(low), reference.sf(high)], 1e-4, rtol=0.4)
    assert prior.box() == (low, high)


@pytest.mark.parametrize("package", ["numpyro", "pyro"])
@pytest.mark.parametrize(("prior", "reference"), FAMILIES, ids=IDS)
def test_the_languages_build_the_same_distribution(prior, reference, package):
    module = pytest.importorskip(f"{package}.distributions")
    values = reference.ppf([0.03, 0.31, 0.5, 0.83, 0.99]).astype(np.float32)
    if package == "pyro":
        values = pytest.importorskip("torch").as_tensor(values)
    log_prob = prior.distribution(module).log_prob(values)
    np.testing.assert_allclose(np.asarray(log_prob), reference.logpdf(np.asarray(values)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("prior", "reference"), FAMILIES, ids=IDS)
def test_survives_json(prior, reference):
    assert Prior.from_dict(json.loads(json.dumps(prior.to_dict()))) == prior


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        ("Cauchy", {"loc": 0, "scale": 1}, "family: expected one of .*'Uniform'.*, got 'Cauchy'"),
        ("Normal", {"loc": 0}, r"arguments of Normal: expected \['loc', 'scale'\], got \['loc'\]"),
        ("Normal", {"mean": 0, "scale": 1}, r"arguments of Normal: expected .* got \['mean', 'scale'\]"),
        ("Normal", {"loc": float("nan"), "scale": 1}, "loc of Normal: expected a finite number, got nan"),
        ("Normal", {"loc": "zero", "scale": 1}, "loc of Normal: expected a finite number, got 'zero'"),
        ("Normal", {"loc": 0, "scale": 0}, "scale of Normal: expected a finite number above 0, got 0"),
        ("Gamma", {"concentration": 2, "rate": -1}, "rate of Gamma: expected a finite number above 0, got -1"),
        ("Beta", {"concentration1": 2, "concentration0": float("inf")}, "concentration0 of Beta: expected a finite"),
        ("Uniform", {"low": 1, "high": 1}, "arguments of Uniform: expected low < high"),
    ],
)
def test_refuses(family, arguments, message):
    with pytest.raises(ValueError, match=message):
        Prior(family, arguments)
