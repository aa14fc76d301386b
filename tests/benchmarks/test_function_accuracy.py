"""The exact densities that networks of random functions are compared with, against draws from the prior."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("torch", reason="these benchmarks need torch")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import function_accuracy  # noqa: E402

SETTINGS = function_accuracy.Settings(datasets=7, evidence_datasets=5, targets=3)


def log_densities(params, directions, x, y):
    """Of points (n,) for each of the parameters and directions (S,)."""
    wave = directions[:, None] * params["frequency"][:, None] * x - params["phase"][:, None]
    return stats.norm.logpdf(y, wave % 1.0, params["noise"][:, None])


def test_waves_are_compared_with_the_mixture_over_both_directions():
    waves = function_accuracy.Sawtooths()
    data = function_accuracy.draw(waves, SETTINGS, 2, conditioned=True)
    assert data.x.shape == (7, 5) and len({tuple(row) for row in data.x}) == 7
    expected = []
    for index in range(7):
        params = {name: np.repeat(value[index], 2) for name, value in data.params.items()}
        each = log_densities(params, np.array([1.0, -1.0]), data.x[index], data.y[index])
        whole, context = (np.logaddexp.reduce(each[:, :size].sum(1)) for size in (5, 2))
        expected.append(whole - context)
    np.testing.assert_allclose(function_accuracy.exact(waves, data, conditioned=True), expected, atol=1e-9)


def test_waves_are_compared_with_what_is_integrated_over_the_prior():
    waves, rng = function_accuracy.Sawtooths(), np.random.default_rng(0)
    data = function_accuracy.draw(waves, SETTINGS, 2, conditioned=False)
    assert data.x.shape == (5, 5) and len({tuple(row) for row in data.x}) == 5
    params, directions = waves.simulator.prior(rng, 300_000), rng.choice([-1.0, 1.0], 300_000)
    expected = []
    for x, y in zip(data.x, data.y, strict=True):
        each = log_densities(params, directions, x, y)
        whole, context = (np.logaddexp.reduce(each[:, :size].sum(1)) for size in (5, 2))
        expected.append(whole - context)
    # 1 in some thousand draws fits five points: standard errors of some hundredths of a nat.
    np.testing.assert_allclose(function_accuracy.exact(waves, data, conditioned=False), expected, atol=0.15)


def test_functions_that_are_integrated_together_share_their_places():
    processes = function_accuracy.Processes()
    apart = function_accuracy.draw(processes, SETTINGS, 2, conditioned=True)
    together = function_accuracy.draw(processes, SETTINGS, 2, conditioned=False)
    assert len({tuple(row) for row in apart.x}) == 7 and len({tuple(row) for row in together.x}) == 1
    for data, conditioned in ((apart, True), (together, False)):
        exact = function_accuracy.exact(processes, data, conditioned)
        assert exact.shape == (len(data.x),) and np.isfinite(exact).all()
