"""Padded trials: whose shapes agree, and which are put and selected as they are."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("pandas")

import pandas

from ppl_buffer.datasets import TrialData

LABELS = np.array(["b", "a", "b", "b"])
TRIALS = TrialData.from_rows(LABELS, inputs={"x": np.arange(4) / 2}, outcomes={"y": np.arange(4)}, feedback={}, fill={})


def test_rows_of_a_filtered_data_frame():
    frame = pandas.DataFrame({"id": ["z", *LABELS], "y": [7, *range(4)]}, dtype="category").iloc[1:]
    trials = TrialData.from_rows(frame["id"], inputs={}, outcomes={"y": frame["y"]}, feedback={}, fill={"y": 9})
    assert trials.subjects.tolist() == ["b", "a"]
    assert trials.outcomes["y"].tolist() == [[0, 2, 3], [1, 9, 9]]


@pytest.mark.parametrize(
    ("subject", "y", "said"),
    [
        ([], [], "subject: expected the label of each row, got none"),
        (["a", None], [0, 1], "subject: expected the label of each row, got a row without"),
        (["a", "b"], [0, 1, 2], "y: expected a value in each of 2 rows"),
    ],
)
def test_rows_that_do_not_fit(subject, y, said):
    with pytest.raises(ValueError, match=said):
        TrialData.from_rows(np.array(subject, object), inputs={}, outcomes={"y": np.array(y)}, feedback={}, fill={})


def test_shapes_that_disagree():
    for change, said in (
        ({"trial_mask": np.ones((2, 3))}, "trial_mask: expected booleans"),
        ({"trial_mask": np.ones(2, dtype=bool)}, "trial_mask: expected booleans"),
        ({"subjects": np.array(["a"])}, "subjects: expected 2 labels"),
        ({"trial_counts": np.array([3, 2])}, "trial_counts: expected the trials of trial_mask, .3, 1., got .3, 2."),
        ({"outcomes": {"y": np.zeros((2, 4))}}, r"outcomes\['y'\]: expected shape"),
    ):
        with pytest.raises(ValueError, match=said):
            dataclasses.replace(TRIALS, **change)


def test_select():
    assert TRIALS.select(np.array([1])).outcomes["y"].tolist() == [[1]]
    assert TRIALS.select([False, True]).subjects.tolist() == ["a"]
    assert TRIALS.select([1, 0, 1]).trial_counts.tolist() == [1, 3, 1]
    assert TRIALS.select([-1]).inputs["x"].tolist() == [[0.5]]
    for wrong in ([], [2], [-3], [0, 2], [0, -3], 0, [0.0], ["a"], [True], np.zeros((1, 1), int), [False, False]):
        with pytest.raises(ValueError, match="indices: expected a list of rows from 0 to 1, or 2 booleans"):
            TRIALS.select(wrong)
    # Trials that lie behind a gap are not cut off.
    mask = np.array([[True, True, True], [False, False, True]])
    assert dataclasses.replace(TRIALS, trial_mask=mask).select([1]).outcomes["y"].shape == (1, 3)
