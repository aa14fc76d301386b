"""Mixtures of normal and of logistic components, and their masses at whole numbers, against SciPy."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

pytest.importorskip("torch")
pytest.importorskip("jax")

import jax
import torch

from ppl_buffer.network import heads
from ppl_buffer.network.config import Config
from ppl_buffer.network.jax import ops as jax_ops
from ppl_buffer.network.lapse_mixture import LapseMixture
from ppl_buffer.network.mixtures import LAWS, integer_cdf, integer_moments, mixture
from ppl_buffer.network.torch import ops as torch_ops
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.schema import Categorical, Integer, Interval, Positive, Real, Schema
from tests.networks import GRADING, array, network

COMPONENTS = 3
SCALES = {"y": (1.7, 2.3)}
# A few values, many, and so many that moments are no longer sums over all of them.
INTEGERS = [Integer(-2, 8), Integer(0, 255), Integer(1000, 9000)]


def part(variable, mean_and_std=SCALES["y"], head="normal"):
    """A network whose weights nobody reads, in double precision."""
    config = Config(width=2, depth=1, heads=1, mlp=2, components=COMPONENTS, param_depth=1, head=head)
    return TorchNetwork(Schema(outcomes={"y": variable}), config, {"y": mean_and_std}).double()


def raw_head(shape=(1, 1, 1), seed=0, spread=1.0):
    return torch.as_tensor(spread * np.random.default_rng(seed).normal(size=(*shape, 3 * COMPONENTS)))


def as_scipy(net, raw):
    """Weights, means and scales of the components in the user's units."""
    components = mixture(net, "y", raw)
    mean, std = net.standardization["y"]
    weights, means, scales = (x.detach().numpy().reshape(-1) for x in components[1:])
    return np.exp(weights), means * std + mean, scales * std


def masses(net, raw):
    """Probabilities (n,) of all values as differences of SciPy's distribution function."""
    variable = net.schema.outcomes["y"]
    weights, means, scales = as_scipy(net, raw)
    inner = np.arange(variable.low, variable.high)[:, None] + 0.5
    below = np.concatenate([[0.0], (weights * stats.logistic.cdf(inner, means, scales)).sum(-1), [1.0]])
    return np.diff(below)


def scales_of(variable):
    return variable.fill + 0.3, variable.n / 5


@pytest.mark.parametrize("variable", INTEGERS, ids=repr)
def test_probabilities_of_an_integer_are_differences_of_the_distribution_function(variable):
    net, raw = part(variable, scales_of(variable)), raw_head()
    expected = masses(net, raw)
    log_probs = heads.value_log_probs(net, "y", raw)[0, 0, 0].detach().numpy()
    np.testing.assert_allclose(np.exp(log_probs), expected, rtol=1e-7, atol=1e-14)
    assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("raw_scale", [-40.0, 0.0, 60.0])
def test_in_single_precision_probabilities_sum_to_one_and_gradients_are_finite_far_in_the_tails(raw_scale):
    variable = Integer(-2, 300)
    net = part(variable, (2.0, 5.0)).float()
    for place in (-3000.0, 0.0, 0.7, 29.9, 5000.0):
        raw = torch.tensor([0.1, -0.3, 0.2, place, place, place, *[raw_scale] * 3])[None, None, None].requires_grad_()
        log_probs = heads.value_log_probs(net, "y", raw)
        assert torch.isfinite(log_probs).all()
        assert float(log_probs.detach().exp().sum()) == pytest.approx(1, abs=2e-5)
        (gradient,) = torch.autograd.grad(log_probs.sum(), raw)
        assert torch.isfinite(gradient).all() and (gradient != 0).any()


def test_a_narrow_component_has_all_its_mass_on_one_value():
    """The least scale loses nothing: the value in whose middle a component lies has all of it in single precision."""
    net = part(Integer(0, 6), (3.0, 1.5)).float()
    raw = torch.tensor([0.0, 0.0, 0.0, *[(2.0 - 3.0) / 1.5] * 3, -90.0, -90.0, -90.0])[None, None, None]
    log_probs = heads.value_log_probs(net, "y", raw)[0, 0, 0].detach().numpy()
    assert np.exp(log_probs[2]) == pytest.approx(1, abs=3e-7)


@pytest.mark.parametrize("variable", INTEGERS, ids=repr)
def test_moments_of_an_integer_are_sums_over_its_values(variable):
    mean, std = scales_of(variable)
    net, raw = part(variable, (mean, std)), raw_head(seed=1)
    values, probabilities = np.arange(variable.low, variable.high + 1), masses(net, raw)
    first, second = (float(x.detach()) for x in integer_moments(net, "y", mixture(net, "y", raw)))
    expected = (values * probabilities).sum(), (values**2 * probabilities).sum()
    # Above 1,024 values the rounding is left out, and a rule has nodes on either side of the bounds.
    tolerance = {"rtol": 1e-10} if variable.n <= 1024 else {"rtol": 2e-3}
    np.testing.assert_allclose((first, second), expected, **tolerance)


def test_draws_of_an_integer_have_its_probabilities():
    variable, draws = Integer(-2, 8), 20_000
    net, raw = part(variable, scales_of(variable)), raw_head(seed=2)
    noise = torch.as_tensor(np.random.default_rng(3).random((draws, 1, 1, 2)))
    wide = raw.expand(draws, 1, 1, -1)
    drawn = heads.outcome_sample(net, "y", wide, wide, noise).detach().numpy().ravel()
    assert variable.contains(np, drawn).all()
    counts = np.bincount(drawn.astype(int) - variable.low, minlength=variable.n)
    expected = draws * masses(net, raw)
    assert expected.min() > 10
    assert stats.chisquare(counts, expected / expected.sum() * draws).pvalue > 1e-3


def test_the_distribution_function_of_an_integer_steps_from_0_to_1():
    variable = Integer(-2, 8)
    net, raw = part(variable, scales_of(variable)), raw_head(seed=4)
    values = torch.arange(variable.low, variable.high + 1.0, dtype=torch.float64)
    components = mixture(net, "y", raw[0, 0])
    below, at, between = (
        integer_cdf(net, "y", components, values, torch.as_tensor(place)).detach().numpy() for place in (0.0, 1.0, 0.25)
    )
    steps = masses(net, raw)
    np.testing.assert_allclose(at, steps.cumsum(), atol=1e-12)
    np.testing.assert_allclose(below, steps.cumsum() - steps, atol=1e-12)
    np.testing.assert_allclose(between, below + 0.25 * steps, atol=1e-12)


SCIPY = {"normal": stats.norm, "logistic": stats.logistic}


@pytest.mark.parametrize("head", list(LAWS))
def test_a_law_is_scipys(head):
    law, reference, x = LAWS[head], SCIPY[head], np.linspace(-9, 9, 23)
    numbers = torch.as_tensor(x)
    np.testing.assert_allclose(law.log_density(torch_ops, numbers, torch.zeros(())), reference.logpdf(x), rtol=1e-12)
    np.testing.assert_allclose(law.cdf(torch_ops, numbers), reference.cdf(x), rtol=1e-9, atol=1e-15)
    uniform = np.linspace(0.001, 0.999, 17)
    np.testing.assert_allclose(law.quantile(torch_ops, torch.as_tensor(uniform)), reference.ppf(uniform), rtol=1e-9)
    assert law.variance == pytest.approx(reference.var())
    nodes, shares = law.rule()
    assert (nodes**2 * shares).sum() == pytest.approx(reference.var(), rel=2e-4) and shares.sum() == pytest.approx(1)
    # Far in the tails of single precision, forward and backward.
    far = torch.tensor([-1e6, 1e6], requires_grad=True)
    log_density = law.log_density(torch_ops, far, torch.zeros(()))
    (gradient,) = torch.autograd.grad(log_density.sum(), far)
    assert torch.isfinite(log_density).all() and torch.isfinite(gradient).all()


@pytest.mark.parametrize("head", list(LAWS))
@pytest.mark.parametrize("variable", [Real(), Positive(), Interval(-2, 3)], ids=repr)
def test_moments_of_a_continuous_outcome_are_integrals(variable, head):
    # Scales at which the square of a log-logistic variable still has a mean.
    net, raw = part(variable, (0.2, 0.3), head), raw_head(seed=5)
    raw[..., 2 * COMPONENTS :] -= 1.0
    weights, means, scales = as_scipy(net, raw)
    law = SCIPY[head]

    def integral(power):
        def integrand(u):
            value = variable.constrain(np, law.ppf(u, means, scales))
            return float((weights * value**power).sum())

        return integrate.quad(integrand, 0, 1, epsrel=1e-8, limit=200)[0]

    found = [float(x.detach()) for x in heads.outcome_moments(net, "y", raw, raw)]
    np.testing.assert_allclose(found, [integral(1), integral(2)], rtol=2e-5)


def test_a_draw_from_far_in_the_tails_stays_inside_the_interval():
    net = part(Interval(-2, 3), (0.0, 1.0), "logistic").float()
    raw = torch.tensor([0.0] * 6 + [3.0] * 3).expand(2, 1, 1, -1)
    noise = torch.tensor([[0.5, 1e-7], [0.5, 1 - 1e-7]])[:, None, None]
    drawn = heads.outcome_sample(net, "y", raw, raw, noise)
    assert drawn.flatten().tolist() == [
        np.nextafter(np.float32(-2), np.float32(0)),
        np.nextafter(np.float32(3), np.float32(0)),
    ]
    assert torch.isfinite(heads.outcome_log_prob(net, "y", raw, raw, drawn)).all()


def with_head(net, raw):
    """A network whose head puts out these numbers, whatever it reads."""
    with torch.no_grad():
        net.weights["heads.y.out.weight"].zero_()
        net.weights["heads.y.out.bias"].copy_(raw)
    return net


def test_a_log_logistic_outcome_may_have_no_variance_and_no_mean():
    def mean_and_variance(*scales):
        raw = torch.zeros(3 * COMPONENTS, dtype=torch.float64)
        raw[2 * COMPONENTS :] = torch.as_tensor(np.log(np.expm1(np.array(scales) - 1e-3)))
        net = with_head(part(Positive(), (0.0, 1.0), "logistic"), raw)
        lapse = LapseMixture(0.1, (("y", 0.0, 2.0),))
        read = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
        return [[float(x.detach()) for x in heads.trial_moments(net, read, lapse)] for lapse in (None, lapse)]

    exact = np.mean([math.pi * s / math.sin(math.pi * s) for s in (0.3, 0.2, 0.7)])
    plain, lapsed = mean_and_variance(0.3, 0.2, 0.7)
    assert plain == [pytest.approx(exact), math.inf] and lapsed == [pytest.approx(0.9 * exact + 0.1), math.inf]
    assert mean_and_variance(0.3, 1.2, 0.7) == [[math.inf, math.inf]] * 2


@pytest.mark.usefixtures("quick_compilation")
def test_both_backends_compute_the_same_numbers():
    rng = np.random.default_rng(8)
    raw = rng.normal(size=(1, 1, 4, 15)).astype(np.float32)
    u = rng.uniform(0.01, 0.99, (2, 1, 1, 4)).astype(np.float32)
    z = rng.normal(size=(2, 1, 1, 4)).astype(np.float32)
    value = np.array([[[-2.0, 3.0, 5.0, 8.0]]], np.float32)

    def everything(backend):
        net, ops = network(GRADING, backend), torch_ops if backend == "torch" else jax_ops

        def compute(raw, u, value, z):
            noise = ops.xp.stack([u[0], u[1]], -1)
            of_integers = [
                heads.value_log_probs(net, "grade", raw),
                heads.outcome_cdf(net, "grade", raw, raw, value, u[0]),
                *heads.outcome_moments(net, "grade", raw, raw),
                heads.outcome_sample(net, "grade", raw, raw, noise),
            ]
            of_laws = [
                numbers
                for law in LAWS.values()
                for numbers in (
                    law.log_density(ops, z[0], z[1]),
                    law.cdf(ops, z[0]),
                    law.quantile(ops, u[0]),
                    law.mean_exponential(ops, z[0], 2 * u[1]),
                )
            ]
            return of_integers + of_laws

        compiled = jax.jit(compute) if backend == "jax" else compute
        return compiled(*(array(backend, x) for x in (raw, u, value, z)))

    for one, other in zip(everything("torch"), everything("jax"), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_later_outcome_has_no_mean_behind_an_integer_of_many_values():
    schema = Schema(outcomes={"level": Integer(0, 32), "side": Categorical(2)})
    net = TorchNetwork(schema, Config(width=2, depth=1, heads=1, mlp=2, param_depth=1), {"level": (16.0, 9.0)})
    with pytest.raises(NotImplementedError, match="mean of 'side': it follows an integer of 33 values, more than 32"):
        heads.trial_moments(net, torch.zeros(1, 1, 1, 2))
