"""What is said of tables with mistakes, and that a table without is read as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pandas")

from ppl_buffer.datasets import TrialData, read_trials, simulated_selection_task, write_trials
from tests.datasets.tables import COUNTS, NOISY_Q, RLDDM, TASK, read, table_of_trials


def test_a_clean_table_is_read_in_its_order():
    table = table_of_trials()
    trials = read(table)
    assert list(trials.subjects) == ["s0", "s1", "s2"] and list(trials.trial_counts) == list(COUNTS)
    assert trials.trial_mask.sum() == len(table)
    np.testing.assert_array_equal(trials.outcomes["choice"][trials.trial_mask], table["response"])
    np.testing.assert_array_equal(trials.inputs["pair"][trials.trial_mask], table["cond"])
    # Rows of several people may alternate.
    mixed = read(table.sample(frac=1, random_state=0).sort_index(key=lambda index: index % 17, kind="stable"))
    assert sorted(mixed.trial_counts) == sorted(COUNTS)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_of_columns(tmp_path, separator):
    path = tmp_path / "trials.csv"
    table_of_trials().to_csv(path, index=False, sep=separator)
    np.testing.assert_array_equal(read(path).outcomes["choice"], read(table_of_trials()).outcomes["choice"])


def refused(table, *said, **more):
    with pytest.raises(ValueError) as error:
        read(table, **more)
    for text in said:
        assert text in str(error.value)


def test_choices_coded_minus_one_and_one():
    table = table_of_trials()
    table["response"] = 2 * table["response"] - 1
    refused(table, "'-1', '1'", "should be coded 0 or 1", "--recode choice:-1=0,1=1")
    fixed = read(table, recode={"choice": {"-1": 0, "1": 1}})
    np.testing.assert_array_equal(fixed.outcomes["choice"], read(table_of_trials()).outcomes["choice"])


def test_choices_in_words():
    table = table_of_trials()
    table["response"] = table["response"].map({0: "left", 1: "right"})
    refused(table, "'left', 'right'", "--recode choice:left=0,right=1")
    fixed = read(table, recode={"choice": {"left": 0, "right": 1}})
    np.testing.assert_array_equal(fixed.outcomes["choice"], read(table_of_trials()).outcomes["choice"])
    refused(table, "'right'", "gives no number", recode={"choice": {"left": 0}})


def test_words_of_an_input_count_in_alphabetical_order():
    table = table_of_trials()
    table["cond"] = table["cond"].map({0: "AB", 1: "CD", 2: "EF"})
    with pytest.warns(UserWarning, match="AB=0,CD=1,EF=2"):
        trials = read(table)
    np.testing.assert_array_equal(trials.inputs["pair"], read(table_of_trials()).inputs["pair"])


def test_milliseconds():
    table = table_of_trials()
    table["rt"] *= 1000
    refused(table, "milliseconds", "median of", "--scale rt=0.001", net=RLDDM, simulator=None)
    fixed = read(table, net=RLDDM, simulator=None, scale={"rt": 0.001})
    np.testing.assert_allclose(fixed.outcomes["rt"], read(table_of_trials(), net=RLDDM, simulator=None).outcomes["rt"])


def test_missing_columns():
    refused(table_of_trials().rename(columns={"response": "responses"}), "no column 'response'", "'responses'",
            "--columns choice=responses")  # fmt: skip
    refused(table_of_trials().rename(columns={"subject": "id"}), "no column 'subject'", "--subject id")
    with pytest.raises(ValueError, match="no 'speed'.*--columns NAME=COLUMN"):
        read_trials(table_of_trials(), NOISY_Q, columns={"speed": "rt"})


def test_empty_cells():
    table = table_of_trials()
    table["response"] = table["response"].astype(float)
    table.loc[[3, 30], "response"] = np.nan
    refused(table, "column 'response' (choice) is empty (NaN) in rows 3, 30", "subject s0",
            "delete these rows", "--where 'response.notna()'")  # fmt: skip


def test_negative_response_times():
    table = table_of_trials()
    table.loc[4, "rt"] = -1
    refused(table, "a number above 0", "-1", "row 4", "missed response", net=RLDDM, simulator=None)


def test_one_trial():
    table = table_of_trials()
    refused(table.head(COUNTS[0] + 1), "subject s1 has one trial", "delete this row")
    table["subject"] = np.arange(len(table))
    refused(table, "every subject has one trial", "--subject")


def test_pairs_not_counted_from_0():
    table = table_of_trials()
    table["cond"] += 1
    refused(table, "'1', '2', '3'", "should be coded 0 or 1 or 2", "--recode pair:1=0,2=1,3=2")
    table["cond"] = np.arange(len(table)) % 5
    refused(table, "knows 3 categories and the column has 5")


def test_rewards_that_the_simulator_never_gives():
    table = table_of_trials()
    table["feedback"] = 2 * table["feedback"] - 1
    refused(table, "'-1', '1'", "--recode reward:-1=0,1=1")


def test_what_is_written_is_read_again(tmp_path):
    trials = simulated_selection_task().select(np.array([3, 0, 7]))
    write_trials(trials, tmp_path / "trials.csv")
    again = read_trials(tmp_path / "trials.csv", NOISY_Q, simulator=TASK)
    np.testing.assert_array_equal(again.subjects, trials.subjects.astype(str))
    np.testing.assert_array_equal(again.trial_mask, trials.trial_mask)
    for name, values in {**trials.inputs, **trials.outcomes, **trials.feedback}.items():
        same = {**again.inputs, **again.outcomes, **again.feedback}[name]
        np.testing.assert_array_equal(same[trials.trial_mask], values[trials.trial_mask])


def test_numbers_of_trials_are_put_at_their_places():
    trials = TrialData.from_rows(
        np.array(["b", "a", "b", "b"]), inputs={}, outcomes={"y": np.arange(4)}, feedback={}, fill={"y": 9}
    )
    assert trials.subjects.tolist() == ["b", "a"] and trials.trial_counts.tolist() == [3, 1]
    assert trials.outcomes["y"].tolist() == [[0, 2, 3], [1, 9, 9]]
    padded = trials.pad(np.array([[5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 3.0, 4.0]]))
    np.testing.assert_array_equal(padded[0], [[5, 6, 7], [8, np.nan, np.nan]])
    assert padded.shape == (2, 2, 3)


@pytest.mark.parametrize("argument", ["subject", "order", "columns", "recode", "scale", "signed", "outside"])
@pytest.mark.parametrize("value", [3, b"x", 1.5, True, [1], ("subject", "subject"), {3: 4}, {"choice": None}, object()])
def test_arguments_of_another_kind(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument}\b.*(expected|the model has no)"):
        read_trials(table_of_trials(), NOISY_Q, **{argument: value})


def test_the_page_on_tables_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "howto" / "tables.md").read_text()
    names = {}
    with pytest.warns(UserWarning, match="'007', '7' are read as different people"):
        exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], names)
    assert names["trials"].subjects.tolist() == ["007", "7"] and capsys.readouterr().out == "['007' '7'] [4 4]\n"
    np.testing.assert_array_equal(names["trials"].outcomes["choice"], [[0, 0, 1, 0], [1, 0, 0, 1]])


def test_a_network_that_is_none():
    for wrong in (None, "noisy_q", TASK.schema):
        with pytest.raises(ValueError, match="net: expected a network from ppl_buffer.load"):
            read_trials(table_of_trials(), wrong)
    with pytest.raises(ValueError, match="recode: choice: a: expected a number, got nan"):
        read(table_of_trials(), recode={"choice": {"a": float("nan")}})
