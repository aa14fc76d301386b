"""The figures that checks state, by hand: statistics of outcomes, shares inside intervals, spreads of ranks."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer import diagnostics
from ppl_buffer.diagnostics.likelihood import _rows
from ppl_buffer.diagnostics.paired import paired
from ppl_buffer.diagnostics.posterior import _rank
from ppl_buffer.diagnostics.statistics import outcome_statistics

NAN = np.nan


def test_statistics_of_categories_and_numbers() -> None:
    schema = pb.Schema(outcomes={"key": pb.Categorical(3), "time": pb.Positive()}, ordered=True)
    key = np.array([[0, 1, 1, 2, 2], [2, 2, 2, NAN, NAN]])
    time = np.array([[1.0, 2.0, 4.0, 1.0, 2.0], [3.0, 5.0, 4.0, NAN, NAN]])
    table = outcome_statistics(schema, {"key": key, "time": time})
    expected = {
        "share of key = 1": [2 / 5, 0],
        "share of key = 2": [2 / 5, 1],
        "repetitions of key": [2 / 4, 1],
        "mean of time": [2, 4],
        "standard deviation of time": [np.sqrt(6 / 5), np.sqrt(2 / 3)],
        # Products of neighbours around the mean: (-1)(0) + (0)(2) + (2)(-1) + (-1)(0), and (-1)(1) + (1)(0).
        "autocorrelation of time": [-2 / 4 / (6 / 5), -1 / 2 / (2 / 3)],
    }
    assert set(table) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(table[name], values, err_msg=name)
    # Words of the table name the same shares; a category that the table never shows keeps its number.
    named = outcome_statistics(schema, {"key": key, "time": time}, words={"key": {0: "left", 1: "up"}})
    np.testing.assert_array_equal(named["share of key = up"], table["share of key = 1"])
    np.testing.assert_array_equal(named["share of key = 2"], table["share of key = 2"])


def test_coverage_is_the_share_inside_central_intervals() -> None:
    # 40 numbers at 0.0125, 0.0375, ...: 20 of them lie in the central half, 36 in the central nine tenths.
    grid = (np.arange(40) + 0.5) / 40
    pit = {"y": np.tile(grid, (10, 1))}
    rows = _rows({"mu": np.arange(10.0)}, pit, {}, {}, 0.95)
    assert [row["comparison"] for row in rows] == ["PIT"] + 5 * ["coverage"]
    assert {(row["coverage_50"], row["coverage_90"]) for row in rows} == {(0.5, 0.9)}
    assert rows[1]["what"] == "mu 0 to 1" and all(row["passed"] for row in rows)


def test_all_comparisons_share_one_level() -> None:
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(80):
        pairs = rng.normal(size=(2, 8, 25))
        simulated, rollouts = ({f"s{i}": x for i, x in enumerate(one)} for one in pairs)
        rows = _rows({"mu": rng.random(25)}, {"y": rng.random((25, 4))}, simulated, rollouts, 0.8)
        assert len(rows) == 1 + 5 + 8
        failed += not all(row["passed"] for row in rows)
    # A perfect network fails in a fifth of the checks at most; a level for each of 14 comparisons: in nearly all.
    assert 0.02 < failed / 80 < 0.3


def test_an_effect_is_in_standard_deviations_of_the_simulator() -> None:
    rng = np.random.default_rng(1)
    simulated = rng.normal(5.0, 4.0, 4000)
    effect, p = paired(simulated, rng.normal(3.0, 1.0, 4000), {"mu": rng.random(4000)})
    assert effect == pytest.approx(0.5, abs=0.06) and p < 1e-6
    assert paired(simulated, simulated, {"mu": rng.random(4000)}) == (0.0, 1.0)


def test_numbers_whose_squares_overflow_in_single_precision_have_an_effect() -> None:
    rng = np.random.default_rng(4)
    simulated, generated = (np.where(rng.random((2, 301)) < [[0.3], [0.1]], -1e30, 1.0)).astype(np.float32)
    shares = (simulated < 0).mean(), (generated < 0).mean()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        effect, p = paired(simulated, generated, {"mu": rng.random(301)})
    # What is impossible has a share, in standard deviations of a coin.
    assert effect == pytest.approx((shares[1] - shares[0]) / np.sqrt(shares[0] * (1 - shares[0])), rel=1e-5)
    assert p < 0.01


def test_differences_that_cancel_in_the_mean_show_over_a_parameter() -> None:
    rng = np.random.default_rng(2)
    mu, (simulated, generated) = rng.uniform(-1, 1, 200), rng.normal(size=(2, 200))
    assert paired(simulated + mu, generated, {})[1] > 0.05
    assert paired(simulated + mu, generated, {"mu": mu})[1] < 1e-4
    # Exchangeable pairs whose spread depends on the parameter: small p are as rare as they say.
    failed = sum(paired(*rng.normal(size=(2, 50)) * (1 + mu[:50]), {"mu": mu[:50]})[1] < 0.05 for _ in range(200))
    assert failed <= 18


def test_ranks_break_ties_at_random_and_their_spread_is_one_where_uniform() -> None:
    pytest.importorskip("numpyro")
    sets, draws = 600, 9
    rng = np.random.default_rng(2)
    values = rng.integers(0, 3, (draws + 1, sets)).astype(float)
    result = {
        "truth": values[0][:, None],
        "draws": values[1:][..., None],
        "log_likelihood": rng.normal(size=sets),
        "log_likelihoods": rng.normal(size=(draws, sets)),
        "divergences": np.zeros(sets),
        "steps": 3.0,
    }
    check = _rank([result], ["mu"], sets, 0.95, 0)
    # Numbers alike up to order: ranks are uniform on 0 to 9, although a third of the draws equals the truth.
    for name in ("mu", "log_likelihood"):
        counts = np.bincount(check.ranks[name], minlength=draws + 1)
        assert counts.shape == (draws + 1,) and np.abs(counts - sets / 10).max() < 4.5 * np.sqrt(sets / 10)
    row = check.rows[1]
    assert row["mean_rank"] == pytest.approx(0.5, abs=0.04) and row["rank_spread"] == pytest.approx(1.0, abs=0.06)


def test_contraction_is_of_variances() -> None:
    truth = {"mu": np.array([0.0, 2.0])}
    # The prior's variance is 1; posteriors of variance 1/4 take three quarters of it away.
    draws = {"mu": np.array([[-0.5, 1.5], [0.5, 2.5]])}
    ranks = {"mu": np.array([1, 1]), "log_likelihood": np.array([0, 2])}
    check = diagnostics.PosteriorCheck(
        truth, draws, ranks, {name: np.ones(2) for name in ranks}, np.zeros(2), 3.0, 0.95
    )
    assert check.rows[0]["contraction"] == pytest.approx(0.75)


def test_a_p_value_counts_both_tails_and_ties_half() -> None:
    # 1,000 draws of one person whose statistic is 0 to 999; 0, 20 and 500 are observed.
    replicated = np.arange(1000.0)[:, None]

    def row(value: float) -> dict:
        observed = np.full((1000, 1), value)
        return diagnostics.DataCheck({"s": observed}, {"s": replicated}, 0.95).rows[0]

    for value, p, passed in ((0, 0.9995, False), (20, 0.9795, False), (30, 0.9695, True), (500, 0.4995, True),
                             (980, 0.0195, False)):  # fmt: skip
        found = row(value)
        assert found["p"] == pytest.approx(p) and found["passed"] == passed
        assert found["subjects_extreme"] == (not passed) and found["subjects"] == 1
    assert (found["low"], found["high"]) == pytest.approx((24.975, 974.025))
    assert found["observed"] == 980 and found["generated"] == pytest.approx(499.5)


def test_four_of_twenty_may_be_extreme_and_five_may_not() -> None:
    replicated = np.random.default_rng(4).normal(size=(500, 20))
    # With probability 0.99 no more than 4 of 20 are extreme by chance, at 0.05 each.
    for extreme, passed in ((0, True), (4, True), (5, False)):
        # The others lie as far below, together: the mean over people is that of the model.
        value = np.where(np.arange(20) < extreme, 4.0, -4.0 * extreme / (20 - extreme))
        row = diagnostics.DataCheck({"s": np.tile(value, (500, 1))}, {"s": replicated}, 0.95).rows[0]
        assert 0.2 < row["p"] < 0.8 and row["subjects_extreme"] == extreme and row["passed"] == passed
