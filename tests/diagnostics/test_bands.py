"""Simultaneous bands hold what they promise, and find what is not uniform."""

from __future__ import annotations

import numpy as np
import pytest

from ppl_buffer import diagnostics


@pytest.mark.parametrize(("count", "steps"), [(53, None), (199, 20), (12_007, None)])
def test_a_band_holds_as_many_uniform_samples_as_it_says(count: int, steps: int | None) -> None:
    rng = np.random.default_rng(0)
    passed = []
    for _ in range(400):
        values = rng.random(count) if steps is None else (rng.integers(0, steps, count) + 0.5) / steps
        result = diagnostics.uniformity(values, steps=steps, level=0.8)
        inside = ((result.ecdf >= result.lower - 1e-12) & (result.ecdf <= result.upper + 1e-12)).all()
        assert inside == result.passed
        # Both come from one simulation, of 10,000 samples.
        assert result.passed == (result.p > 0.2) or abs(result.p - 0.2) < 0.01
        passed.append(result.passed)
    # A share of 400 trials at 0.8 has a standard deviation of 0.02; with few values the level can only be exceeded.
    assert abs(np.mean(passed) - 0.8) < 0.07


def test_a_band_holds_95_percent_unless_told_otherwise() -> None:
    rng = np.random.default_rng(3)
    passed = [diagnostics.uniformity(rng.random(101)).passed for _ in range(300)]
    # The share of 300 has a standard deviation of 0.013 at 0.95, and of 0.03 at a half.
    assert 0.9 < np.mean(passed) < 0.99
    result = diagnostics.uniformity(rng.random(101))
    assert result.passed == (result.p > 0.05)
    # The band of Kolmogorov's test at that level is as wide in the middle, within a fifth.
    assert (result.upper - result.lower)[24] / 2 == pytest.approx(1.36 / np.sqrt(101), rel=0.2)


def test_a_band_finds_what_is_not_uniform() -> None:
    rng = np.random.default_rng(1)
    assert not diagnostics.uniformity(rng.beta(1.2, 1.0, 5000)).passed
    assert not diagnostics.uniformity(np.full(20, 0.5)).passed
    # Of one number the function is a single step: no place of it is out of the ordinary but the very ends.
    assert diagnostics.uniformity([0.37]).passed


@pytest.mark.parametrize("values", [[], [0.2, 1.2], [np.nan]])
def test_a_band_refuses_what_no_probability_can_be(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values: expected numbers in"):
        diagnostics.uniformity(values)
