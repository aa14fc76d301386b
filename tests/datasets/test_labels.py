"""Ids are text: nobody is merged with somebody else, and nobody is cut in two."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("pandas")

import pandas

from ppl_buffer.datasets import TrialData, read_trials, write_trials
from ppl_buffer.findings import FindingWarning
from tests.datasets.tables import NOISY_Q, read, table_of_trials


def csv(tmp_path, labels):
    """A file with five rows a label, which stands there as it is given."""
    table, path = table_of_trials(), tmp_path / "trials.csv"
    lines = [f"{label},{','.join(str(table[name][5 * index + row]) for name in ('cond', 'response', 'feedback'))}"
             for index, label in enumerate(labels) for row in range(5)]  # fmt: skip
    path.write_text("\n".join(["subject,cond,response,feedback", *lines]) + "\n")
    return path


@pytest.mark.parametrize("labels", [("1.1", "1.10"), ("007", "7"), ("1E2", "100"), ("S1", "s1")])
def test_what_is_written_differently_is_somebody_else(tmp_path, labels):
    with pytest.warns(FindingWarning, match=f"'{labels[0]}', '{labels[1]}' are read as different people"):
        trials = read(csv(tmp_path, labels))
    assert trials.subjects.tolist() == list(labels) and trials.trial_counts.tolist() == [5, 5]
    frame = pandas.read_csv(csv(tmp_path, labels), dtype={"subject": str})
    with pytest.warns(FindingWarning, match="different people"):
        assert read(frame).subjects.tolist() == list(labels)


def test_blanks_are_no_part_of_a_label(tmp_path):
    trials = read(csv(tmp_path, ["S1", "S1 ", "\tS1", "S2", "S2\N{NO-BREAK SPACE}", "S2"]))
    assert trials.subjects.tolist() == ["S1", "S2"] and trials.trial_counts.tolist() == [15, 15]
    frame = table_of_trials()
    frame.loc[frame.index[::2], "subject"] += " "
    assert read(frame).subjects.tolist() == ["s0", "s1", "s2"]


@pytest.mark.parametrize("convert", [int, float, "category", "string", "Int64", object])
def test_numbers_of_a_data_frame_are_labels_too(convert):
    frame = table_of_trials()
    frame["subject"] = frame["subject"].str[1:].astype(int).astype(convert)
    assert read(frame).subjects.tolist() == ["0", "1", "2"]


def test_long_numbers_stay_apart():
    frame = table_of_trials()
    frame["subject"] = 12345678901234567 + frame["subject"].str[1:].astype(int)
    assert read(frame).subjects.tolist() == ["12345678901234567", "12345678901234568", "12345678901234569"]


def test_unused_levels_and_filtered_rows():
    frame = table_of_trials()
    frame["subject"] = frame["subject"].astype("category")
    frame["cond"] = frame["cond"].astype("category")
    part = frame[frame["subject"] != "s1"]
    whole = read(table_of_trials())
    trials = read(part)
    assert trials.subjects.tolist() == ["s0", "s2"] and trials.trial_counts.tolist() == [20, 19]
    np.testing.assert_array_equal(trials.inputs["pair"], whole.inputs["pair"][[0, 2]])
    with pytest.raises(ValueError, match="should be coded 0 or 1, .* '2'|'0', '1', '2'"):
        read(part.assign(response=part["cond"]))


def test_rows_without_a_label(tmp_path):
    with pytest.raises(ValueError, match=r"column 'subject' \(subject\) is empty in lines 7, 8, 9 and 2 more; fill"):
        read(csv(tmp_path, ["a", "", "b"]))
    with pytest.raises(ValueError, match="it says 'NA'.*rename who is called that"):
        read(csv(tmp_path, ["a", "NA"]))


def test_labels_of_several_columns():
    frame = table_of_trials()
    frame["site"] = np.where(frame["subject"] == "s2", "x", "y")
    frame["subject"] = frame["subject"].map({"s0": "1", "s1": "2", "s2": "1"})
    assert read(frame, order="file").subjects.tolist() == ["1", "2"]
    assert read(frame, subject=["subject", "site"]).subjects.tolist() == ["1/y", "2/y", "1/x"]
    frame["subject"], frame["site"] = (frame["subject"].map({"1": "a/b", "2": "a"}),
                                       frame["subject"].map({"1": "c", "2": "b/c"}))  # fmt: skip
    with pytest.raises(ValueError, match="hold slashes"):
        read(frame, subject=["subject", "site"])
    for wrong in (None, 3, [], ["subject", None], np.array(["subject"])):
        with pytest.raises(ValueError, match="subject: expected the name of a column"):
            read(frame, subject=wrong)


def test_labels_that_a_spreadsheet_would_compute(tmp_path):
    labels = ["=1+1", "-x", "@sum", "+1a", "'=1", "''=1", "'quoted'", "-1", "plain", '=cmd|"/c calc"!A1', "a,b\nc"]
    trials = TrialData.from_rows(
        np.repeat(labels, 2),
        inputs={"pair": np.tile([0, 1], len(labels))},
        outcomes={"choice": np.tile([0, 1], len(labels))},
        feedback={"reward": np.ones(2 * len(labels))},
        fill={},
    )
    write_trials(trials, tmp_path / "trials.csv")
    written = pandas.read_csv(tmp_path / "trials.csv", dtype=str)["subject"]
    assert not any(label[0] in "=+@" or (label[0] == "-" and label != "-1") for label in written)
    assert set(written) >= {"'=1+1", "plain", "-1", "'quoted'"}
    assert read_trials(tmp_path / "trials.csv", NOISY_Q).subjects.tolist() == labels


def test_people_whom_a_table_could_not_tell_apart_are_not_written(tmp_path):
    trials = read(table_of_trials())
    for subjects in (np.array(["a", "a", "b"]), np.array([1, 1, 2])):
        with pytest.raises(ValueError, match="more than once"):
            write_trials(dataclasses.replace(trials, subjects=subjects), tmp_path / "trials.csv")
    with pytest.raises(ValueError, match="folder that exists"):
        write_trials(trials, tmp_path / "none" / "trials.csv")
    assert not list(tmp_path.iterdir())
