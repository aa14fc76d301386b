"""What the history predicts beyond a network: nothing where it is right, and a bound of its error where it is not."""

from __future__ import annotations

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer.diagnostics.residual import ResidualTest, find_residuals
from ppl_buffer.simulators import ForgettingQ

LEARNER = ForgettingQ()


def learners(rng: np.random.Generator, sets: int, trials: int, **known: float) -> tuple[ResidualTest, float]:
    """The test of an exact likelihood at parameters multiplied by `known`, and its Kullback-Leibler divergence."""
    params = LEARNER.prior(rng, sets)
    data, chances = LEARNER.simulate_with_probabilities(rng, params, {}, trials)
    right = chances["choice"][..., 1]
    wrong = {name: x * known.get(name, 1.0) for name, x in params.items()}
    sure = np.exp(LEARNER.log_likelihood(wrong, data))
    p = np.clip(np.where(data["choice"] == 1, sure, 1 - sure), 1e-9, 1 - 1e-9)
    error = right * np.log(np.maximum(right, 1e-12) / p) + (1 - right) * np.log(np.maximum(1 - right, 1e-12) / (1 - p))
    lower = {"choice": np.where(data["choice"] == 1, 1 - p, 0.0)}
    upper = {"choice": np.where(data["choice"] == 1, 1.0, 1 - p)}
    return find_residuals(LEARNER.schema, params, data, lower, upper), float(error.mean())


def test_a_wrong_learning_rate_is_seen_and_bounds_the_error() -> None:
    found, error = learners(np.random.default_rng(0), 400, 60, alpha_positive=0.7)
    assert 0.002 < error < 0.008
    assert found.residuals[0].p < 1e-4 and found.residuals[0].what == "choice"
    assert -2 * found.standard_error < found.gain < error + 2 * found.standard_error


def test_what_is_right_passes_as_often_as_it_should() -> None:
    rng = np.random.default_rng(1)
    p = np.array([learners(rng, 60, 30)[0].residuals[0].p for _ in range(40)])
    assert (p < 0.1).sum() <= 10 and (p < 0.5).mean() > 0.2


@pytest.mark.slow
def test_small_p_are_as_rare_as_they_say() -> None:
    rng = np.random.default_rng(2)
    tests = [learners(rng, 300, 60)[0] for _ in range(100)]
    p = np.array([test.residuals[0].p for test in tests])
    # Binomial: 5 of 100 are expected, more than 11 in one of 250 cases.
    assert (p < 0.05).sum() <= 11
    # Nothing is gained; a bound at two standard errors is above 0 in few.
    assert sum(test.gain > 2 * test.standard_error for test in tests) <= 7


def test_what_a_network_reads_is_looked_at_beside_the_history() -> None:
    """Whether two choices in a row were the same moves the next one: no moving average of the choices says so."""
    schema = pb.Schema(params={"mu": pb.Real()}, outcomes={"choice": pb.Categorical(2)}, ordered=True)
    rng = np.random.default_rng(5)
    sets, trials = 300, 53
    mu, uniform = rng.normal(size=sets), rng.random((sets, trials))
    choice, same = np.zeros((sets, trials), dtype=int), np.zeros((sets, trials))
    for k in range(trials):
        same[:, k] = choice[:, k - 1] == choice[:, k - 2] if k > 1 else 0.5
        choice[:, k] = uniform[:, k] < 0.5 + 0.2 * (same[:, k] - 0.5)
    bounds = {"choice": np.where(choice == 1, 0.5, 0.0)}, {"choice": np.where(choice == 1, 1.0, 0.5)}
    # The network knows it, mixed with other things, but does not say it.
    mixed = np.stack([same, *rng.normal(size=(4, sets, trials))], -1) @ rng.normal(size=(5, 5))
    tests = [find_residuals(schema, {"mu": mu}, {"choice": choice}, *bounds, read) for read in (None, mixed)]
    assert tests[1].residuals[0].p < 1e-12 < 1e-4 < tests[0].residuals[0].p
    error = 0.6 * np.log(1.2) + 0.4 * np.log(0.8)
    assert 0.6 * error < tests[1].gain < error + 3 * tests[1].standard_error
    assert tests[0].gain < 0.2 * error


def test_the_shape_of_a_continuous_outcome_is_named() -> None:
    schema = pb.Schema(params={"mu": pb.Real()}, outcomes={"x": pb.Real(), "y": pb.Categorical(3)}, independent=True)
    rng = np.random.default_rng(3)
    params, shape = {"mu": rng.normal(size=400)}, (400, 20)
    from scipy.special import ndtr

    # A little wider than the network says where mu is positive; and a category that it believes to be rarer.
    noise = rng.normal(size=shape)
    x = ndtr(noise * np.where(params["mu"] > 0, 1.15, 1.0)[:, None])
    y = rng.choice(3, size=shape, p=[0.25, 0.35, 0.4])
    edges = np.array([0.0, 0.3, 0.6, 1.0])
    data = {"x": noise, "y": y}
    test = find_residuals(schema, params, data, {"x": x, "y": edges[y]}, {"x": x, "y": edges[y + 1]})
    p = {residual.what: residual.p for residual in test.residuals}
    assert list(p) == ["location of x", "spread of x", "skewness of x", "tails of x", "location of y", "spread of y"]
    assert p["spread of x"] < 1e-6 and p["location of x"] > 1e-3 and p["skewness of x"] > 1e-3
    assert min(p["location of y"], p["spread of y"]) < 1e-6
    truth = 0.5 * (np.log(1 / 1.15**2) + 1.15**2 - 1) / 2 + float(
        np.dot([0.25, 0.35, 0.4], np.log([0.25 / 0.3, 0.35 / 0.3, 1.0]))
    )
    assert 0.4 * truth < test.gain < truth + 3 * test.standard_error
