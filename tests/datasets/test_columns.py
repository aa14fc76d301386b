"""Cells of a column as the numbers that they stand for."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("pandas")

import pandas

from ppl_buffer.datasets import read_trials
from ppl_buffer.findings import FindingWarning
from ppl_buffer.network.config import Config
from ppl_buffer.simulators import TwoStep
from tests.datasets.tables import COLUMNS, NOISY_Q, RLDDM, read, table_of_trials

RIGHT = read(table_of_trials(), net=RLDDM, simulator=None)


def read_rt(table, **more):
    return read(table, net=RLDDM, simulator=None, **more)


def same(trials):
    return all(
        np.array_equal(values, getattr(trials, group)[name])
        for group in ("inputs", "outcomes", "feedback")
        for name, values in getattr(RIGHT, group).items()
    )


def refused(table, *said, **more):
    with pytest.raises(ValueError) as error:
        read_rt(table, **more)
    for text in said:
        assert text in str(error.value)


@pytest.mark.parametrize("kind", [bool, "boolean", "category", "Int64", "Float64", "string", "int8", object])
def test_columns_of_any_kind_of_a_data_frame(kind):
    table = table_of_trials()
    table["response"] = table["response"].astype(bool if kind == "boolean" else int).astype(kind)
    table["rt"] = table["rt"].astype(object if kind in (bool, "boolean", "int8", "Int64") else kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(read_rt(table))


def test_single_precision_keeps_its_value():
    table = table_of_trials()
    table["rt"] = table["rt"].astype("float32")
    assert np.array_equal(read_rt(table).outcomes["rt"][0], table["rt"][:20].astype(float))


def test_missing_values_of_any_kind():
    for value in (None, np.nan, pandas.NA, pandas.NaT, "", " ", "NA", "n/a", "."):
        table = table_of_trials().astype({"rt": object})
        table.at[4, "rt"] = value
        refused(table, "column 'rt' (rt) is empty (NaN) in row 4, subject s0")


def test_times_are_no_numbers():
    table = table_of_trials()
    refused(table.assign(rt=pandas.to_timedelta(table["rt"], unit="s")), "should be numbers")
    refused(table.assign(rt=pandas.Timestamp("2026-01-01")), "should be numbers")


def test_headings_of_a_data_frame():
    table = table_of_trials()
    assert same(read_rt(table.rename(columns={"subject": " subject ", "cond": "cond\t"})))
    refused(table.set_index("subject"), "'subject' is the index: pass table.reset_index()")
    refused(pandas.concat([table, table["rt"]], axis=1), "there are 2 columns 'rt' (the 5. and the 6.)")
    twice = pandas.concat([table, table["subject"]], axis=1)
    refused(twice, "there are 2 columns 'subject'")
    # Columns by number, as without names.
    numbered = table.set_axis(range(5), axis=1)
    columns = {"pair": "1", "choice": "2", "reward": "3", "rt": "4"}
    assert same(read_trials(numbered, RLDDM, columns=columns, subject="0"))


def test_all_missing_columns_at_once():
    table = table_of_trials().rename(columns={"response": "resp", "feedback": "fb", "subject": "subj_idx"})
    refused(table, "no column 'subject', 'response', 'feedback'", "--subject subj_idx",
            "--columns choice=resp,reward=COLUMN")  # fmt: skip
    refused(table.rename(columns={"resp": "Response (key)"}), "--columns 'choice=Response (key),reward=COLUMN'")


def test_true_and_false():
    table = table_of_trials()
    table["feedback"] = table["feedback"].astype(bool)
    words = table["response"].map({0: "FALSE", 1: "TRUE"})
    assert same(read_rt(table)) and same(read_rt(table.assign(response=words)))
    assert same(read_rt(table, recode={"reward": {"True": 1, "False": 0}}))
    assert same(read_rt(table, recode={"reward": {True: 1, False: 0}}))
    swapped = read_rt(table, recode={"reward": {"True": 0, "False": 1}})
    np.testing.assert_array_equal(swapped.feedback["reward"][0], 1 - RIGHT.feedback["reward"][0])


def test_codes_that_are_numbers():
    table = table_of_trials()
    shifted = table.assign(cond=(table["cond"] + 1).astype(float))
    for codes in ({"1": 0, "2": 1, "3": 2}, {1: 0, 2: 1, 3: 2}, {1.0: 0, "02": 1, " 3 ": 2}):
        assert same(read_rt(shifted, recode={"pair": codes}))
    # Written differently, they are different codes where the codes say so.
    written = table.assign(cond=table["cond"].map({0: "1.1", 1: "1.10", 2: "7"}))
    assert same(read_rt(written, recode={"pair": {"1.1": 0, "1.10": 1, "7": 2}}))
    long = table.assign(cond=table["cond"] + 12345678)
    refused(long, "'12345678', '12345679', '12345680'", "--recode pair:12345678=0,12345679=1,12345680=2")
    assert same(read_rt(long, recode={"pair": {"12345678": 0, "12345679": 1, "12345680": 2}}))


def test_codes_that_mean_no_value_elsewhere():
    table = table_of_trials()
    table["cond"] = table["cond"].map({0: "None", 1: "NA", 2: "two, or more"})
    assert same(read_rt(table, recode={"pair": {"None": 0, "NA": 1, "two, or more": 2}}))
    refused(table, "is empty (NaN)")
    refused(table, "'two, or more', for which --recode pair:... gives no number", recode={"pair": {"None": 0, "NA": 1}})


def test_suggested_options_can_be_pasted():
    table = table_of_trials()
    table["response"] = table["response"].map({0: "left, then", 1: "it's a=b"})
    refused(table, """--recode 'choice:"it'"'"'s a=b"=0,"left, then"=1'""")


@pytest.mark.parametrize("factor", [0, 0.0, float("nan"), float("inf"), "0.001", None, [1]])
def test_factors_that_are_none(factor):
    with pytest.raises(ValueError, match="scale: rt: expected a factor other than 0"):
        read_rt(table_of_trials(), scale={"rt": factor})


def test_response_times_whose_sign_is_the_choice():
    table = table_of_trials()
    signed = table.assign(rt=table["rt"] * np.where(table["response"] == 1, 1, -1))
    refused(signed, "should be a number above 0", "% are negative", "--signed rt=choice")
    assert same(read_rt(signed.drop(columns="response"), signed={"rt": "choice"}))
    assert same(read_rt(signed, signed={"rt": "choice"}))
    milliseconds = signed.assign(rt=1000 * signed["rt"]).drop(columns="response")
    refused(milliseconds, "--scale rt=0.001", signed={"rt": "choice"})
    scaled = read_rt(milliseconds, signed={"rt": "choice"}, scale={"rt": 0.001})
    np.testing.assert_allclose(scaled.outcomes["rt"], RIGHT.outcomes["rt"])
    np.testing.assert_array_equal(scaled.outcomes["choice"], RIGHT.outcomes["choice"])
    refused(table, "is not what the sign of rt says", signed={"rt": "choice"})
    refused(signed.assign(rt=signed["rt"] * (signed.index > 0)), "should be a number above 0, but is 0 in row 0",
            signed={"rt": "choice"})  # fmt: skip
    for wrong in ({"choice": "rt"}, {"rt": "pair"}, {"rt": "reward"}):
        refused(table, "signed: expected a positive outcome and one of two categories", signed=wrong)
    with pytest.raises(ValueError, match="signed: the model has no 'rt'"):
        read(table, signed={"rt": "choice"})
    # One negative number, again and again, is a code for no response.
    missed = table.copy()
    missed.loc[[3, 9, 30], "rt"] = -1
    refused(missed, "Delete these rows if they are codes for a missed response")


def test_typographic_minus_and_decimal_commas():
    table = table_of_trials().astype({"response": object, "rt": object})
    table["response"] = table["response"].map({0: "\N{MINUS SIGN}1", 1: "1"})
    table["rt"] = [f"{value:.2f}".replace(".", ",") for value in table["rt"]]
    trials = read_rt(table, recode={"choice": {"\N{MINUS SIGN}1": 0, "1": 1}})
    np.testing.assert_allclose(trials.outcomes["rt"], RIGHT.outcomes["rt"])
    np.testing.assert_array_equal(trials.outcomes["choice"], RIGHT.outcomes["choice"])


def test_of_two_words_the_name_of_the_variable_is_one():
    """Common transitions are 1, whatever the alphabet says of the other word."""
    task = TwoStep()
    net = SimpleNamespace(schema=task.schema, config=Config(), standardization={"reward": (0.5, 0.5)}, record=None)
    columns = {"common": ["Common", "rare"] * 4, "choice_1": [0, 1] * 4, "choice_2": [0, 1] * 4, "reward": [0, 1] * 4}
    table = pandas.DataFrame({"subject": "a", **columns})
    with pytest.warns(FindingWarning, match=r"as what is common \(1\).*--recode common:Common=1,rare=0"):
        trials = read_trials(table, net, simulator=task)
    assert trials.inputs["common"].tolist() == [[1, 0] * 4] and trials.words["common"] == {0: "rare", 1: "Common"}


def test_the_words_of_other_programs_are_suggested():
    table = table_of_trials().rename(columns={"response": "key_press", "feedback": "points", "cond": "cue"})
    with pytest.raises(ValueError, match="--columns pair=cue,choice=key_press,reward=points"):
        read_trials(table, NOISY_Q)


def test_a_column_of_another_number_is_not_suggested():
    task = TwoStep()
    net = SimpleNamespace(schema=task.schema, config=Config(), standardization={"reward": (0.5, 0.5)}, record=None)
    table = pandas.DataFrame({"subjID": [1, 1], "level1_choice": 1, "level2_choice": 1, "transition": 1, "reward": 1})
    with pytest.raises(ValueError, match="--subject subjID --columns common=transition,choice_1=level1_choice,choice_2="
                       "level2_choice$"):  # fmt: skip
        read_trials(table, net)


def test_the_alphabet_is_a_finding():
    table = table_of_trials()
    table["cond"] = table["cond"].map({0: "AB ", 1: "CD", 2: "EF"})
    with pytest.warns(FindingWarning, match="alphabetical order, as by --recode pair:AB=0,CD=1,EF=2"):
        assert same(read_rt(table))
    assert COLUMNS["pair"] == "cond" and NOISY_Q.schema.inputs["pair"].n == 3
    # Numbers, and numbers among words, are no alphabet; nor are words of an outcome.
    for words in ({0: "1", 1: "2", 2: "3"}, {0: "1", 1: "b", 2: "c"}):
        refused(table_of_trials().assign(cond=table_of_trials()["cond"].map(words)), "should be coded 0 or 1 or 2")
    refused(table_of_trials().assign(response=table_of_trials()["response"].map({0: "a", 1: "b"})), "coded 0 or 1")
