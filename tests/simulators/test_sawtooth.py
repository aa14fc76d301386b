"""Sawtooth waves against their law, the references against brute force, and the optimum against a stated figure."""

import math

import numpy as np
import pytest
from scipy import stats

import ppl_buffer as pb
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.simulators import Sawtooth
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import make_batch
from tests.references import sawtooth as reference

BOX = {name: prior.range() for name, prior in Sawtooth.priors.items()}


def simulated(datasets, trials, seed=0, **fixed):
    """Parameters, x and y of data sets from the prior, or with parameters at fixed values."""
    simulator, rng = Sawtooth(), np.random.default_rng(seed)
    params = simulator.prior(rng, datasets) | {name: np.full(datasets, value) for name, value in fixed.items()}
    x = simulator.inputs(rng, datasets, trials)["x"]
    return params, x, simulator.simulate(rng, params, {"x": x})["y"]


def test_a_wave_has_one_direction_and_its_own_parameters():
    datasets, trials = 1009, 13
    params, x, y = simulated(datasets, trials, seed=1)

    def errors(params):
        """In standard deviations, of the direction that fits better: (datasets, trials)."""
        frequency, phase, noise = (params[name][:, None] for name in ("frequency", "phase", "noise"))
        both = np.stack([(y - np.mod(sign * frequency * x - phase, 1)) / noise for sign in (1, -1)])
        rising = (both[0] ** 2).sum(1) < (both[1] ** 2).sum(1)
        return np.where(rising[:, None], both[0], both[1]), rising

    error, rising = errors(params)
    assert stats.kstest(error.ravel(), "norm").pvalue > 1e-3
    assert abs(rising.mean() - 0.5) < 4.5 * 0.5 / math.sqrt(datasets)
    # Those of another data set do not fit.
    for name in params:
        wrong = errors(params | {name: np.roll(params[name], 1)})[0]
        assert (wrong**2).mean() > 1.02 * (error**2).mean()


def test_prior_and_inputs_fill_their_box():
    simulator, rng = Sawtooth(), np.random.default_rng(2)
    params = simulator.prior(rng, 10_007)
    assert BOX == {"frequency": (3.0, 5.0), "phase": (0.0, 1.0), "noise": (0.05, 0.1)}
    for name, (low, high) in BOX.items():
        assert stats.kstest(params[name], "uniform", (low, high - low)).pvalue > 1e-3
    x = simulator.inputs(rng, 101, 103)["x"]
    assert x.shape == (101, 103) and stats.kstest(x.ravel(), "uniform", (-2, 4)).pvalue > 1e-3


def test_batches_use_the_buffer_whatever_is_given():
    """Given all parameters the direction is still hidden."""
    batch = make_batch(Sawtooth(), BatchOptions(batch_size=7, trials=(5, 5), context=(3, 11)), 0, 0).data
    assert (batch["visible"] > 0).any() and batch["conditioned"].all(-1).any()


def test_seeds():
    first, second, other = (simulated(11, 5, seed=seed)[2] for seed in (8, 8, 9))
    np.testing.assert_array_equal(first, second)
    assert (first != other).all()


def test_density_given_the_parameters_is_a_mixture_of_two_directions():
    params, x, y = simulated(5, 7, seed=3)
    prefixes = reference.prefix_log_density(params, x, y)
    for row in range(5):
        frequency, phase, noise = (params[name][row] for name in params)
        for size in (1, 4, 7):
            means = [np.mod(sign * frequency * x[row, :size] - phase, 1) for sign in (1, -1)]
            each = [stats.norm.pdf(y[row, :size], mean, noise).prod() for mean in means]
            np.testing.assert_allclose(prefixes[row, size - 1], math.log(sum(each) / 2), rtol=1e-9)


def test_evidence_is_the_mean_density_under_the_prior():
    """Of few points, by drawing the parameters from the simulator's own prior."""
    draws = 200_003
    _, x, y = simulated(2, 3, seed=4)
    params = Sawtooth().prior(np.random.default_rng(5), draws)
    for row in range(2):
        points = (np.broadcast_to(each[row], (draws, 3)) for each in (x, y))
        density = np.exp(reference.prefix_log_density(params, *points))
        evidence = np.exp(reference.prefix_log_evidence(x[row], y[row], (1, 3), BOX))
        error = density.std(0) / math.sqrt(draws)
        assert (error < 0.03 * evidence[[0, 0, 1]]).all()
        np.testing.assert_array_less(np.abs(density.mean(0)[[0, 2]] - evidence), 4.5 * error[[0, 2]])


def test_one_point_is_uniform_but_for_the_noise():
    """With a phase of which nothing is known, the wave at any one place is uniform on [0, 1]."""
    y = np.array([-0.13, 0.02, 0.5, 0.91, 1.07])
    noises = np.linspace(0.05, 0.1, 2001)
    expected = [(stats.norm.cdf(value / noises) - stats.norm.cdf((value - 1) / noises)).mean() for value in y]
    evidence = [reference.prefix_log_evidence(np.array([0.7]), y[i : i + 1], (1,), BOX)[0] for i in range(5)]
    np.testing.assert_allclose(np.exp(evidence), expected, rtol=1e-3)


@pytest.mark.slow
def test_grid_is_fine_enough_for_many_points():
    _, x, y = simulated(3, 144, seed=6, noise=0.05)
    fine = {"frequency": 4000, "phase": 1600, "noise": 12}
    for row in range(3):
        sizes = (8, 24, 128, 144)
        grids = [reference.prefix_log_evidence(x[row], y[row], sizes, BOX, nodes) for nodes in (None, fine)]
        np.testing.assert_allclose(np.diff(grids[0])[[0, 2]] / 16, np.diff(grids[1])[[0, 2]] / 16, atol=0.01)


@pytest.mark.slow
def test_the_best_that_can_be_reached():
    """16 targets after 8 to 128 points: 1.147 nats a target, 1.190 with all given (1.19 is the noise's own entropy)."""
    contexts, targets, datasets = (8, 16, 32, 64, 128), 16, 50
    params, x, y = simulated(datasets, contexts[-1] + targets, seed=7)
    known = reference.prefix_log_density(params, x, y)
    sizes = sorted({size for n in contexts for size in (n, n + targets)})
    hidden = np.array([reference.prefix_log_evidence(x[row], y[row], sizes, BOX) for row in range(datasets)])
    given = np.mean([known[:, n + targets - 1] - known[:, n - 1] for n in contexts], 0) / targets
    best = np.mean([hidden[:, sizes.index(n + targets)] - hidden[:, sizes.index(n)] for n in contexts], 0) / targets
    # The noise is told by the entropy of a normal distribution.
    noise = params["noise"]
    assert abs((given + np.log(noise * math.sqrt(2 * math.pi * math.e))).mean()) < 0.02
    # What is not known of the wave costs 0.043; less noisy than either figure, whose noise is that of the noise.
    lost = given - best
    assert abs(lost.mean() - 0.043) < 4 * lost.std() / math.sqrt(datasets) + 0.005
    assert abs(best.mean() - 1.147) < 4 * best.std() / math.sqrt(datasets)


# The shipped network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("context", "most", "least_gain"), [(0, 0.26, 0.6), (16, 0.14, 0.06)])
def test_the_network_is_near_the_exact_joint_density(context, most, least_gain):
    """Functions drawn anew, unlike those of the card; nothing given. The bars are twice what the card states."""
    torch = pytest.importorskip("torch")
    functions, targets = 11, 64
    _, x, y = simulated(functions, context + targets, seed=20 + context)
    sizes = (context or 1, context + targets)
    evidence = np.array([reference.prefix_log_evidence(*row, sizes, BOX) for row in zip(x, y, strict=True)])
    exact = evidence[:, 1] - evidence[:, 0] * (context > 0)
    points = {name: torch.tensor(value, dtype=torch.float32) for name, value in (("x", x), ("y", y))}
    query = Query.build(
        pb.load("sawtooth", backend="torch"),
        {"x": points["x"][:, context:]},
        context={name: value[:, :context] for name, value in points.items()} if context else None,
    )
    value = points["y"][:, context:]
    joint, apart = (each(query, value).sum(-1).numpy() for each in (density.conditionals, density.marginals))
    gap = (exact - joint) / targets
    # A divergence is never below zero; if it were, the reference would be wrong.
    assert -3 * gap.std(ddof=1) / math.sqrt(functions) < gap.mean() < most
    assert (joint - apart).mean() / targets > least_gain
