"""Columns that the model does not read: covariates and where they vary, sessions of a person, rows by a condition."""

import numpy as np
import pytest

pandas = pytest.importorskip("pandas")

from ppl_buffer.datasets import read_trials, write_trials  # noqa: E402
from tests.datasets.tables import COUNTS, NOISY_Q, TASK, read, table_of_trials  # noqa: E402


def table_with_covariates():
    """Ages of persons, two sessions of each with a dose, a condition of each trial, a number with a gap."""
    table = table_of_trials()
    number = table.groupby("subject").cumcount()
    table["age"] = table["subject"].map({"s0": 31, "s1": 20, "s2": 44})
    table["day"] = np.where(number < 9, "first", "second")
    table["dose"] = np.where((table["day"] == "first") == (table["subject"] == "s1"), 0.5, 2.0)
    table["cued"] = number % 3 == 0
    table["pulse"] = np.where(number == 4, np.nan, 60.0 + number)
    return table


def test_columns_that_the_model_does_not_read_are_covariates_with_levels():
    table = table_with_covariates()
    trials = read(table)
    assert set(trials.covariates) == {"subject", "rt", "age", "day", "dose", "cued", "pulse"}
    assert trials.levels == {
        "subject": "subject", "age": "subject", "rt": "trial", "day": "trial", "dose": "trial", "cued": "trial",
        "pulse": "trial",
    }  # fmt: skip
    for row, subject in enumerate(trials.subjects):
        theirs = table[table["subject"] == subject]
        exists = trials.trial_mask[row]
        np.testing.assert_array_equal(trials.covariates["pulse"][row][exists], theirs["pulse"])
        np.testing.assert_array_equal(trials.covariates["day"][row][exists], theirs["day"])
        np.testing.assert_array_equal(trials.covariates["cued"][row][exists], theirs["cued"])
    assert (trials.covariates["day"][~trials.trial_mask] == "").all()
    part = trials.select(np.array([2, 1]))
    np.testing.assert_array_equal(part.covariates["age"][:, 0], [44, 20])


def test_a_session_is_a_data_set_whose_person_is_known():
    table = table_with_covariates().sample(frac=1.0, random_state=3)
    table["trial"] = table.groupby(["subject", "day"]).cumcount()
    trials = read(table, session="day", order="trial")
    assert sorted(trials.subjects) == sorted(f"s{index}/{day}" for index in range(3) for day in ("first", "second"))
    assert trials.persons.tolist() == [label.split("/")[0] for label in trials.subjects]
    assert trials.levels | {"rt": "", "cued": "", "pulse": "", "trial": ""} == {
        "subject": "subject", "age": "subject", "day": "data set", "dose": "data set", "rt": "", "cued": "",
        "pulse": "", "trial": "",
    }  # fmt: skip
    assert trials.select(np.array([3])).persons[0] == trials.persons[3]
    assert trials.trial_counts.sum() == sum(COUNTS)
    with pytest.raises(ValueError, match="session: expected other columns than those of subject, got 'subject'"):
        read(table, session="subject")
    with pytest.raises(ValueError, match="there is no column 'dya'"):
        read(table, session="dya")


def test_rows_by_a_condition_are_counted():
    table = table_with_covariates()
    trials = read(table, where="day == 'second' and rt < 0.55 or `age` == 20")
    keep = ((table["day"] == "second") & (table["rt"] < 0.55)) | (table["age"] == 20)
    assert trials.trial_counts.sum() == keep.sum() and trials.excluded == (~keep).sum() > 0
    np.testing.assert_array_equal(trials.covariates["rt"][trials.trial_mask], table["rt"][keep])
    assert trials.select(np.array([0])).excluded == trials.excluded and read(table).excluded == 0
    for where, message in (
        ("dya == 1", "where: 'dya == 1' cannot be evaluated .*the columns are 'subject', 'cond'"),
        ("rt", "expected a condition that is true or false of each row, got 'rt'"),
        ("rt > 99", "holds for none of 56 rows"),
        ("", "expected a condition on columns"),
    ):
        with pytest.raises(ValueError, match=message):
            read(table, where=where)


def test_covariates_are_written_and_read_again(tmp_path):
    trials = read(table_with_covariates())
    write_trials(trials, tmp_path / "again.csv")
    again = read_trials(tmp_path / "again.csv", NOISY_Q, simulator=TASK)
    for name, values in trials.covariates.items():
        np.testing.assert_array_equal(again.covariates[name], values)
