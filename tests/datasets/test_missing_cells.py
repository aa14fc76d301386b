"""Tables with missing outcomes: empty cells, codes and time-outs, each by an option, refused by name without it."""

from types import SimpleNamespace

import numpy as np
import pandas
import pytest

from ppl_buffer.datasets import read_trials
from ppl_buffer.datasets.tables import write_trials
from ppl_buffer.findings import FindingWarning
from ppl_buffer.network.config import Config
from ppl_buffer.simulators import DriftDiffusion, RLDriftDiffusion
from ppl_buffer.workflow.cli.parsing import read_deadline, read_missing

DDM = SimpleNamespace(schema=DriftDiffusion().schema, standardization={}, record=None)
RLDDM = SimpleNamespace(schema=RLDriftDiffusion().schema, config=Config(), standardization={}, record=None)
READING = SimpleNamespace(
    schema=RLDriftDiffusion().schema, config=Config(likelihood_missing=True), standardization={}, record=None
)
NAN, LATE = np.nan, np.inf


def table(choices, times, **more):
    """Two people who did the same trials."""
    rows = {"subject": ["a"] * len(times) + ["b"] * len(times), "choice": [*choices, *choices], "rt": [*times, *times]}
    return pandas.DataFrame({**rows, **{name: [*x, *x] for name, x in more.items()}})


def outcomes(trials, subject=0):
    return np.stack([trials.outcomes["choice"][subject], trials.outcomes["rt"][subject]], -1)


def same(trials, expected):
    for subject in (0, 1):
        np.testing.assert_allclose(outcomes(trials, subject), np.array(expected, float), rtol=1e-12)


WHOLE, NO_TIME, NO_CHOICE, NOTHING = (1, 0.7), (0, NAN), (NAN, 0.9), (NAN, NAN)


def test_each_kind_of_missing_cell_is_read_by_its_option():
    rows = [WHOLE, NO_TIME, NO_CHOICE]
    frame = table(*zip(*rows, strict=True))
    with pytest.raises(ValueError, match=r"is empty \(NaN\) in row.*--missing choice=empty"):
        read_trials(frame, DDM)
    trials = read_trials(frame, DDM, missing="empty")
    same(trials, rows)
    assert trials.missing is not None and trials.missing.deadline is None
    coded = table([1, 0, -1], [0.7, -999, 0.9])
    with pytest.raises(ValueError, match=r"Delete the rows with -1 .*--missing choice=-1"):
        read_trials(coded, DDM)
    with pytest.raises(ValueError, match=r"number above 0, but is -999 .*--missing rt=-999"):
        read_trials(coded, DDM, missing={"choice": -1})
    same(read_trials(coded, DDM, missing={"choice": "-1", "rt": -999}), rows)
    same(read_trials(coded, DDM, missing=[-1, "-999"]), rows)
    words = table(["right", "left", "missed"], [700, "missed", 900])
    same(
        read_trials(words, DDM, missing="missed", recode={"choice": {"left": 0, "right": 1}}, scale={"rt": 0.001}), rows
    )


def test_a_time_out_needs_a_deadline():
    rows = [WHOLE, NOTHING, NO_TIME]
    frame = table(*zip(*rows, strict=True))
    with pytest.raises(ValueError, match=r"no outcome is known in rows 1, 4.*--deadline TIME"):
        read_trials(frame, DDM, missing="empty")
    trials = read_trials(frame, DDM, missing="empty", deadline=1.5)
    same(trials, [WHOLE, (NAN, LATE), NO_TIME])
    assert trials.missing.deadline == 1.5
    # In milliseconds the deadline is one as well; some tasks write it as the time.
    frame = table([1, NAN, 0], [700, 1500, NAN])
    trials = read_trials(frame, DDM, missing="empty", deadline=1500, scale={"rt": 0.001})
    same(trials, [WHOLE, (NAN, LATE), NO_TIME])
    assert trials.missing.deadline == 1.5
    frame = table([1, NAN, 0], [0.7, NAN, 2.5], limit=[1.0, 2.0, 2.0])
    with pytest.raises(ValueError, match=r"rt is 2.5 in rows 2, 5, after the deadline of 2"):
        read_trials(frame, DDM, missing="empty", deadline="limit")
    with pytest.raises(ValueError, match="deadline: there is no column 'limits'"):
        read_trials(frame, DDM, missing="empty", deadline="limits")
    frame["limit"] = [1.0, 2.0, NAN, 1.1, 2.2, NAN]
    trials = read_trials(frame, DDM, missing="empty", deadline="limit")
    np.testing.assert_array_equal(trials.missing.deadline, [[1, 2, LATE], [1.1, 2.2, LATE]])
    np.testing.assert_array_equal(trials.select([1]).missing.deadline, [[1.1, 2.2, LATE]])


def test_a_choice_may_be_made_by_not_responding():
    frame = table([1, 0, 1, NAN], [0.7, NAN, NAN, NAN])
    arguments = {"missing": "empty", "deadline": 1.5, "withheld": {"choice": 0}}
    trials = read_trials(frame, DDM, **arguments)
    same(trials, [WHOLE, (NAN, LATE), (1, NAN), (NAN, LATE)])
    assert dict(trials.missing.withheld) == {"choice": 0}
    with pytest.raises(ValueError, match=r"rt is 0.6 in row.*where choice is 0, the choice that is made by not"):
        read_trials(table([1, 0], [0.7, 0.6]), DDM, **arguments)


def test_signs_of_lost_times_are_lost():
    frame = table([1, 1], [0.7, NAN]).drop(columns="choice")
    trials = read_trials(frame, DDM, missing="empty", deadline=2.0, signed={"rt": "choice"})
    same(trials, [WHOLE, (NAN, LATE)])


def test_what_is_written_is_read_again(tmp_path):
    trials = read_trials(table(*zip(WHOLE, NOTHING, NO_TIME, NO_CHOICE, strict=True)), DDM, missing="empty", deadline=2)
    write_trials(trials, tmp_path / "trials.csv")
    again = read_trials(tmp_path / "trials.csv", DDM, missing="empty", deadline="deadline")
    np.testing.assert_array_equal(outcomes(again), outcomes(trials))
    assert again.missing.deadline == 2.0


def test_an_ordered_model_says_what_can_be_done():
    frame = table([1, NAN, 0], [0.7, 0.8, 0.9], reward=[1, 0, 1], pair=[0] * 3)
    with pytest.raises(ValueError, match=r"missing: expected None, since trials depend .*likelihood_missing=True"):
        read_trials(frame, RLDDM, missing="empty")
    with pytest.raises(
        ValueError, match=r"choice\) is missing in rows 1, 4, where there was a response: trials depend"
    ):
        read_trials(frame, RLDDM, missing="empty", deadline=2)
    with pytest.raises(ValueError, match="withheld: expected no choice that is made by not responding"):
        read_trials(frame, RLDDM, missing="empty", deadline=2, withheld={"choice": 0})


def test_a_response_that_did_not_come_needs_no_network_that_reads_it():
    frame = table([1, NAN, 0], [0.7, NAN, 0.9], reward=[1, NAN, 1], pair=[0] * 3)
    trials = read_trials(frame, RLDDM, missing="empty", deadline=2)
    same(trials, [WHOLE, (NAN, LATE), (0, 0.9)])
    np.testing.assert_array_equal(trials.feedback["reward"][0], [1, NAN, 1])


def test_feedback_may_be_lost_where_the_network_reads_it():
    frame = table([1, NAN, NAN, 0], [0.7, 0.8, NAN, NAN], reward=[1, -9, NAN, 1], pair=[0] * 4)
    with pytest.warns(FindingWarning, match=r"no outcome is known in rows 2, 6. They count as lost: .*learnt from it"):
        trials = read_trials(frame, READING, missing=["empty", -9])
    same(trials, [WHOLE, (NAN, 0.8), NOTHING, NO_TIME])
    np.testing.assert_array_equal(trials.feedback["reward"][0], [1, NAN, NAN, 1])
    assert trials.missing is not None and trials.missing.deadline is None
    with pytest.raises(ValueError, match=r"reward\) is empty \(NaN\) in rows 2, 6.*--missing reward=empty"):
        read_trials(frame, READING, missing={"choice": "empty", "rt": "empty", "reward": -9})


def test_what_is_no_outcome_is_refused():
    with pytest.raises(ValueError, match="missing: expected outcomes of the model, 'choice', 'rt', got 'reward'"):
        read_trials(table([1, NAN], [0.7, 0.8]), DDM, missing={"reward": "empty"})


def test_options_of_the_command_line():
    assert read_missing(["empty,-999"], ["choice", "rt"]) == {"choice": ["empty", "-999"], "rt": ["empty", "-999"]}
    assert read_missing(["choice=-1", "rt=empty"], ["choice", "rt"]) == {"choice": ["-1"], "rt": ["empty"]}
    assert read_missing([], ["rt"]) is None
    assert read_deadline("1.5") == 1.5 and read_deadline("limit") == "limit" and read_deadline(None) is None
    with pytest.raises(ValueError, match="--missing: expected a code, or NAME=CODE of an outcome"):
        read_missing(["cue=1"], ["rt"])
