"""Curves of pictures against generated ones: right data stay inside as often as the level says, others are found."""

from __future__ import annotations

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer.diagnostics.curves import outcome_curves
from ppl_buffer.plots.envelopes import envelope

LEARNING = pb.Schema(
    params={"alpha": pb.Interval(0, 1)},
    inputs={"pair": pb.Categorical(2)},
    outcomes={"choice": pb.Categorical(2)},
    feedback={"reward": pb.Real()},
    ordered=True,
)
DECISION = pb.Schema(
    params={"drift": pb.Real()}, outcomes={"choice": pb.Categorical(2), "rt": pb.Positive()}, independent=True
)


def test_the_band_holds_so_many_whole_curves_and_the_test_its_level() -> None:
    rng = np.random.default_rng(0)

    def walks(count: int) -> np.ndarray:
        """Correlated points of very different scales."""
        return rng.standard_normal((count, 25)).cumsum(1) * np.geomspace(0.01, 100, 25)

    curves = walks(4000)
    band = envelope(curves, level=0.9)
    inside = ((curves >= band.low) & (curves <= band.high)).all(1).mean()
    assert inside == pytest.approx(0.9, abs=0.002)
    fresh = walks(4000)
    assert ((fresh >= band.low) & (fresh <= band.high)).all(1).mean() == pytest.approx(0.9, abs=0.03)
    # With few draws too, a right curve has a small p-value as rarely as it should: 400 tests of 100 draws.
    values = np.array([envelope(walks(100), walks(1)[0]).p for _ in range(400)])
    assert (values <= 0.05).mean() == pytest.approx(0.05, abs=0.035)
    assert values.mean() == pytest.approx(0.5, abs=0.06)
    # One point far out is found, and named; points without a value tell nothing.
    odd = walks(1)[0]
    odd[7] = curves[:, 7].mean() + 6 * curves[:, 7].std()
    curves[:, 3] = np.nan
    found = envelope(curves, odd)
    assert found.p < 0.01 and found.worst == 7 and not found.used[3] and np.isnan(found.low[3])


def test_no_band_of_shares_reaches_beyond_them() -> None:
    """Nearly always right: deviations to the one side, as large as those to the other, would be above 1."""
    shares = np.random.default_rng(1).binomial(11, 0.97, (300, 17)) / 11
    band = envelope(shares)
    assert band.high.max() == 1 and band.low.min() >= 0
    assert ((shares >= band.low) & (shares <= band.high)).all(1).mean() >= 0.95


def learners(rng: np.random.Generator, early: float) -> dict[str, np.ndarray]:
    """Nine people who see two pairs in turn; those of pair 1 are chosen with probability `early` at first, then 0.7."""
    pair = np.broadcast_to(np.arange(80) % 2, (9, 80)).astype(float)
    share = np.where((pair == 1) & (np.arange(80) < 12), early, 0.7)
    choice = (rng.random((9, 80)) < share).astype(float)
    return {"pair": pair, "choice": choice, "reward": choice}


def test_first_trials_of_a_cue_that_no_model_data_show_are_found() -> None:
    rng = np.random.default_rng(1)
    drawn = [learners(rng, 0.7) for _ in range(120)]
    replicated = {name: np.stack([x[name] for x in drawn]) for name in ("choice", "reward")}
    right = outcome_curves(LEARNING, learners(rng, 0.7), replicated, 0.95)
    assert set(right) == {"learning curve of choice", "first trials of choice", "repetition of choice"}
    assert all(curve.envelope.p > 0.05 for curve in right.values())
    data = learners(rng, 0.3)
    wrong = outcome_curves(LEARNING, data, replicated, 0.95)
    curve = wrong["learning curve of choice"]
    # By hand: the share of choices at the first four presentations of pair 1, which are its bin.
    first = data["choice"][:, 1:8:2].mean()
    assert curve.observed[curve.points.index("pair = 1, presentation 1 to 4")] == pytest.approx(first)
    assert curve.envelope.p < 0.01 and curve.points[curve.envelope.worst] == "pair = 1, presentation 1 to 4"
    early = wrong["first trials of choice"]
    assert early.observed[early.points.index("pair = 1, presentation 3")] == data["choice"][:, 5].mean()
    assert early.envelope.p < 0.02 and early.points[early.envelope.worst].startswith("pair = 1")


def test_quantiles_and_lags_of_response_times_are_looked_at() -> None:
    rng = np.random.default_rng(2)

    def times(shape: tuple[int, ...], slow: float = 1.0) -> np.ndarray:
        values = 0.3 + rng.gamma(2.0, 0.2, shape)
        middle = np.quantile(values, 0.8)
        # Only the slow tail is another one: the mean hardly moves.
        return np.where(values > middle, middle + slow * (values - middle), values)

    replicated = {"choice": (rng.random((100, 6, 90)) < 0.6).astype(float), "rt": times((100, 6, 90))}
    data = {"choice": (rng.random((6, 90)) < 0.6).astype(float), "rt": times((6, 90))}
    data["rt"][0, 70:] = data["choice"][0, 70:] = np.nan
    names = {"quantiles of rt", "choice by speed of response", "slowing after choice = 0", "repetition of choice",
             "autocorrelation of rt by lag"}  # fmt: skip
    right = outcome_curves(DECISION, data, replicated, 0.95)
    assert set(right) == names and all(curve.envelope.p > 0.05 for curve in right.values())
    wrong = outcome_curves(DECISION, data | {"rt": times((6, 90), slow=0.1)}, replicated, 0.95)
    curve = wrong["quantiles of rt"]
    assert curve.envelope.p < 0.02 and curve.points[curve.envelope.worst].startswith("90%")
    related = data | {"rt": np.exp(0.3 * rng.standard_normal((6, 90)).cumsum(1) / 3)}
    assert outcome_curves(DECISION, related, replicated, 0.95)["autocorrelation of rt by lag"].envelope.p < 0.02


def test_words_name_curves_and_points_and_change_no_number() -> None:
    rng = np.random.default_rng(3)
    drawn = [learners(rng, 0.7) for _ in range(5)]
    replicated = {name: np.stack([x[name] for x in drawn]) for name in ("choice", "reward")}
    data = learners(rng, 0.7)
    numbers = outcome_curves(LEARNING, data, replicated, 0.95)
    words = {"choice": {0: "wrong", 1: "right"}, "pair": {0: "AB", 1: "CD"}}
    named = outcome_curves(LEARNING, data, replicated, 0.95, words)
    assert set(named) == {
        "learning curve of choice = right", "first trials of choice = right", "repetition of choice"
    }  # fmt: skip
    curve, other = named["learning curve of choice = right"], numbers["learning curve of choice"]
    assert "pair = CD, presentation 1 to 4" in curve.points
    np.testing.assert_array_equal(curve.observed, other.observed)
    times = {"choice": data["choice"][None], "rt": rng.gamma(2.0, 0.2, (1, *data["choice"].shape))}
    decided = outcome_curves(DECISION, {name: x[0] for name, x in times.items()}, times, 0.95, words)
    assert {"choice = right by speed of response", "slowing after choice = wrong"} <= set(decided)
    points = decided["quantiles of rt"].points
    assert points[:2] == ["share of choice = wrong", "share of choice = right"] and points[-1].endswith(
        "choice = right"
    )
