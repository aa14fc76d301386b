"""Curves by the levels of a condition: what is right on average and wrong in each level is seen."""

from __future__ import annotations

import numpy as np
import pytest

from ppl_buffer.diagnostics.conditions import Condition, condition_curves, condition_of
from ppl_buffer.diagnostics.curves import outcome_curves
from tests.diagnostics.test_curves import DECISION, LEARNING, learners

PEOPLE, TRIALS = 7, 90


def times(rng: np.random.Generator, *lead: int, hard: np.ndarray | float = 0.0) -> dict[str, np.ndarray]:
    """Choices, and response times of which hard trials may be slower, easy ones faster."""
    shape = (*lead, PEOPLE, TRIALS)
    rt = 0.3 + rng.gamma(2.0, 0.2, shape) * np.exp(np.broadcast_to(hard, shape))
    return {"choice": (rng.random(shape) < 0.6).astype(float), "rt": rt}


def test_covariates_have_levels_or_halves() -> None:
    exists = np.array([[True, True, True], [True, True, False]])
    word = condition_of(np.array([["low", "high", "low"], ["high", "high", ""]]), exists)
    assert word is not None and word.labels == ("high", "low") and word.by_trial
    np.testing.assert_array_equal(word.codes, [[1, 0, 1], [0, 0, np.nan]])
    number = condition_of(np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 9.0]]), exists)
    assert number is not None and number.labels == ("0", "1") and not number.by_trial
    # The padded trial's value is no level, and the same value everywhere none either.
    assert condition_of(np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 9.0]]), exists) is None
    many = np.arange(20.0).reshape(2, 10)
    half = condition_of(many, np.ones((2, 10), bool))
    assert half is None  # the halves are two people, not trials
    half = condition_of(many.T.reshape(2, 10), np.ones((2, 10), bool))
    assert half is not None and half.labels == ("lower half", "upper half")
    np.testing.assert_array_equal(half.codes, many.T.reshape(2, 10) > 9.5)
    assert condition_of(np.array([list("abcdefghij")] * 2), np.ones((2, 10), bool)) is None
    named = condition_of(np.array([[0, 1, 2], [0, 1, 2]]), exists, {0: "AB", 1: "CD"})
    assert named is not None and named.labels == ("AB", "CD", "2")


def test_conditions_call_choices_by_their_words() -> None:
    rng = np.random.default_rng(5)
    data, again = times(rng), times(rng, 3)
    condition = Condition(("one", "two"), np.broadcast_to(np.arange(TRIALS) % 2, (PEOPLE, TRIALS)), True)
    words = {"choice": {0: "left", 1: "right"}}
    curves = condition_curves(DECISION, data, again, {"day": condition}, 0.95, words)
    points = curves["quantiles of rt by day"].points
    assert points[0] == "day = one, share of choice = left" and points[-1] == "day = two, 90%, choice = right"


def test_an_effect_that_the_model_lacks_is_seen_by_level_and_not_on_average() -> None:
    rng = np.random.default_rng(5)
    hard = rng.permuted(np.arange(TRIALS) % 2 + np.zeros((PEOPLE, TRIALS), int), axis=1)
    condition = Condition(("easy", "hard"), hard.astype(float), True)
    # The model has as wide a mixture, whatever the trial.
    mixed = rng.permuted(np.broadcast_to(hard, (150, PEOPLE, TRIALS)), axis=-1)
    replicated = times(rng, 150, hard=0.4 * mixed - 0.2)
    data = times(rng, hard=0.4 * hard - 0.2)
    assert outcome_curves(DECISION, data, replicated, 0.95)["quantiles of rt"].envelope.p > 0.05
    curves = condition_curves(DECISION, data, replicated, {"conflict": condition}, 0.95)
    assert list(curves) == ["quantiles of rt by conflict"]
    curve = curves["quantiles of rt by conflict"]
    assert curve.envelope.p < 0.02 and ("hard" in (worst := curve.points[curve.envelope.worst]) or "easy" in worst)
    # By hand: the median of one level's times, averaged over people.
    slow = [np.median(data["rt"][i][(hard[i] == 1) & (data["choice"][i] == 0)]) for i in range(PEOPLE)]
    place = curve.points.index("conflict = hard, 50%, choice = 0")
    assert curve.observed[place] == pytest.approx(np.mean(slow))
    again = times(rng, 150, hard=0.4 * hard - 0.2)
    right = condition_curves(DECISION, data, again, {"conflict": condition}, 0.95)
    assert right["quantiles of rt by conflict"].envelope.p > 0.05


def test_learning_curves_of_a_session_are_those_of_its_data_sets() -> None:
    rng = np.random.default_rng(3)
    drawn = [learners(rng, 0.7) for _ in range(60)]
    replicated = {name: np.stack([x[name] for x in drawn]) for name in ("choice", "reward")}
    data = learners(rng, 0.7)
    day = np.where(np.arange(9) < 4, 0.0, 1.0)[:, None] + np.zeros((9, 80))
    curves = condition_curves(LEARNING, data, replicated, {"day": Condition(("one", "two"), day, False)}, 0.95)
    assert set(curves) == {"shares of choice by day", "learning curve of choice by day"}
    curve = curves["learning curve of choice by day"]
    place = curve.points.index("day = two, pair = 1, presentation 1 to 4")
    assert curve.observed[place] == pytest.approx(data["choice"][4:, 1:8:2].mean())
    shares = curves["shares of choice by day"]
    assert shares.observed[shares.points.index("day = one, share of choice = 1")] == pytest.approx(
        data["choice"][:4].mean()
    )
