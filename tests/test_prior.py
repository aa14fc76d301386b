import importlib
import json

import numpy as np
import pytest
import scipy.stats

from ppl_buffer.prior import Prior

# Every family beside SciPy's parametrisation of the same distribution.
FAMILIES = [
    (Prior.uniform(-2.0, 5.0), scipy.stats.uniform(-2, 7)),
    (Prior("Normal", {"loc": 1.5, "scale": 0.3}), scipy.stats.norm(1.5, 0.3)),
    (
        Prior("TruncatedNormal", {"loc": 1.5, "scale": 0.7, "low": 0.3, "high": 2.6}),
        scipy.stats.truncnorm((0.3 - 1.5) / 0.7, (2.6 - 1.5) / 0.7, 1.5, 0.7),
    ),
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
def test_cumulative_probabilities_are_the_distribution_s_own(prior, reference):
    values = np.concatenate([[-3.0, 0.0], reference.ppf([0.001, 0.13, 0.5, 0.77, 0.999]), [11.0]])
    np.testing.assert_allclose(prior.cdf(values), reference.cdf(values), atol=1e-10)
    np.testing.assert_allclose(prior.quantile(prior.cdf(values[2:7])), values[2:7], rtol=1e-9)


@pytest.mark.parametrize(("prior", "reference"), FAMILIES, ids=IDS)
def test_range_holds_all_between_bounds_and_nearly_all_of_the_rest(prior, reference):
    low, high = prior.range()
    if "low" in prior.arguments:
        np.testing.assert_allclose((low, high), reference.support(), rtol=1e-12)
    else:
        np.testing.assert_allclose([reference.cdf(low), reference.sf(high)], 1e-4, rtol=0.4)
    assert prior.range() == (low, high)


def distribution_of(package, prior):
    """The prior in a language."""
    pytest.importorskip(package)
    return importlib.import_module(f"ppl_buffer.{package}.priors").prior_distribution(prior)


@pytest.mark.parametrize("package", ["numpyro", "pyro"])
@pytest.mark.parametrize(("prior", "reference"), FAMILIES, ids=IDS)
def test_the_languages_build_the_same_distribution(prior, reference, package):
    values = reference.ppf([0.03, 0.31, 0.5, 0.83, 0.99]).astype(np.float32)
    if package == "pyro":
        values = pytest.importorskip("torch").as_tensor(values)
    log_prob = distribution_of(package, prior).log_prob(values)
    np.testing.assert_allclose(np.asarray(log_prob), reference.logpdf(np.asarray(values)), rtol=1e-4, atol=1e-5)


# What may be relative to another parameter, beside SciPy's distribution of the value where that one is at `origin`.
RELATIVE = [
    (Prior("Uniform", {"low": -2.0, "high": 5.0}, "a"), lambda origin: scipy.stats.uniform(origin - 2, 7)),
    (Prior("Normal", {"loc": 1.5, "scale": 0.3}, "a"), lambda origin: scipy.stats.norm(origin + 1.5, 0.3)),
    (
        Prior("TruncatedNormal", {"loc": 1.5, "scale": 0.7, "low": 0.3, "high": 2.6}, "a"),
        lambda origin: scipy.stats.truncnorm((0.3 - 1.5) / 0.7, (2.6 - 1.5) / 0.7, origin + 1.5, 0.7),
    ),
]


@pytest.mark.parametrize("package", ["numpyro", "pyro"])
@pytest.mark.parametrize(("prior", "reference"), RELATIVE, ids=[prior.family for prior, _ in RELATIVE])
def test_a_relative_prior_moves_with_the_other_parameter(prior, reference, package):
    origin = np.array([-1.0, 0.0, 3.5], dtype=np.float32)
    values = np.stack([reference(x).ppf([0.03, 0.5, 0.83, 0.99]) for x in origin], -1).astype(np.float32)
    convert = pytest.importorskip("torch").as_tensor if package == "pyro" else np.asarray
    distribution = distribution_of(package, prior)(convert(origin))
    assert tuple(distribution.batch_shape) == (3,)
    expected = np.stack([reference(x).logpdf(values[:, i]) for i, x in enumerate(origin)], -1)
    np.testing.assert_allclose(np.asarray(distribution.log_prob(convert(values))), expected, rtol=1e-4, atol=1e-5)


def test_pyros_truncated_normal_keeps_the_contract_of_a_distribution():
    torch = pytest.importorskip("torch")
    TruncatedNormal = pytest.importorskip("ppl_buffer.pyro").TruncatedNormal
    loc = torch.tensor([0.0, 2.0], requires_grad=True)
    distribution = TruncatedNormal(loc, 0.7, -0.5, torch.tensor([1.0, 1.5]))
    reference = [scipy.stats.truncnorm((-0.5 - x) / 0.7, (high - x) / 0.7, x, 0.7) for x, high in ((0, 1), (2, 1.5))]
    torch.manual_seed(0)
    draws = distribution.expand((3, 2)).sample((5003,))
    assert draws.shape == (5003, 3, 2) and distribution.support.check(draws).all()
    for column, expected in enumerate(reference):
        assert scipy.stats.kstest(draws[..., column].flatten().numpy(), expected.cdf).pvalue > 1e-3
    distribution.rsample().sum().backward()
    assert (loc.grad > 0).all()
    beyond = TruncatedNormal(0.0, 0.7, -0.5, 1.0, validate_args=False).log_prob(torch.tensor([-0.6, 1.1]))
    assert (beyond == -torch.inf).all()
    with pytest.raises(ValueError, match="support"):
        TruncatedNormal(0.0, 0.7, -0.5, 1.0, validate_args=True).log_prob(torch.tensor(1.1))


@pytest.mark.parametrize(("prior", "reference"), FAMILIES + RELATIVE, ids=IDS + ["relative"] * len(RELATIVE))
def test_survives_json(prior, reference):
    assert Prior.from_dict(json.loads(json.dumps(prior.to_dict()))) == prior


def test_reads_a_description_from_before_priors_could_be_relative():
    description = {"family": "Uniform", "arguments": {"low": 0.0, "high": 1.0}}
    assert Prior.from_dict(description) == Prior.uniform(0.0, 1.0)


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
        (["Normal"], {"loc": 0, "scale": 1}, r"family: expected one of .*, got \['Normal'\]"),
        ("Normal", 3, "arguments of Normal: expected a dict of names, got int"),
        ("Normal", {"loc": 0, "scale": None}, "scale of Normal: expected a finite number above 0, got None"),
        ("Uniform", {"low": 1, "high": 1}, "arguments of Uniform: expected low < high"),
        (
            "TruncatedNormal",
            {"loc": 0, "scale": 1, "low": 2, "high": -2},
            "arguments of TruncatedNormal: expected low < high",
        ),
        (
            "TruncatedNormal",
            {"loc": 0, "scale": 1, "low": 9, "high": 10},
            "arguments of TruncatedNormal: expected bounds with at least 1% of",
        ),
    ],
)
def test_refuses(family, arguments, message):
    with pytest.raises(ValueError, match=message):
        Prior(family, arguments)


def test_refuses_to_move_a_family_that_has_no_location():
    with pytest.raises(ValueError, match="relative_to: expected None or a family among .* got 'LogNormal'"):
        Prior("LogNormal", {"loc": 0, "scale": 1}, relative_to="a")
