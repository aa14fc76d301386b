"""Rows are read in the order in which each person did the trials, or the table is refused."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("pandas")

import pandas

from ppl_buffer.datasets import read_trials, write_trials
from ppl_buffer.findings import FindingWarning
from ppl_buffer.network.config import Config
from ppl_buffer.schema import Categorical, Positive, Schema
from ppl_buffer.simulators import DriftDiffusion
from tests.datasets.tables import NOISY_Q, RLDDM, read, table_of_trials

DDM = SimpleNamespace(schema=DriftDiffusion().schema, standardization={}, record=None)


def numbered(start=1):
    table = table_of_trials()
    return table.assign(trial=table.groupby("subject").cumcount() + start)


def read_rt(table, **more):
    """Response times, which rise by 0.01 s a trial, in the order read."""
    return read(table, net=RLDDM, simulator=None, **more).outcomes["rt"]


RIGHT = read_rt(table_of_trials())


def silently(table, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_rt(table, **more)


def refused(table, *said, **more):
    with pytest.raises(ValueError) as error:
        read_rt(table, **more)
    for text in said:
        assert text in str(error.value)


@pytest.mark.parametrize("heading", ["trial", "Trial", "trial_number", "trial number", "trialNum", "trials.thisN"])
def test_rows_are_sorted_by_the_number_of_the_trial(heading):
    table = numbered().rename(columns={"trial": heading})
    assert np.array_equal(silently(table), RIGHT)
    alternating = table.sort_values([heading, "subject"])
    assert np.array_equal(silently(alternating), RIGHT)
    for wrong in (table.sample(frac=1, random_state=1).sort_values("subject", kind="stable"), table[::-1]):
        with pytest.warns(FindingWarning, match=rf"not lie in the order of column '{heading}'.*sorted.*--order file"):
            read_times = read_rt(wrong)
        people = read(wrong, net=RLDDM, simulator=None, order=heading).subjects
        assert np.array_equal(read_times[np.argsort(people)], RIGHT)
    # As it lies, where the user says so.
    assert np.array_equal(silently(table[::-1], order="file")[-1, :20], RIGHT[0, ::-1])


def test_only_those_are_named_who_are_out_of_order():
    table = numbered()
    table.loc[[20, 21]] = table.loc[[21, 20]].to_numpy()
    with pytest.warns(FindingWarning, match="rows of subject s1 did not lie"):
        assert np.array_equal(read_rt(table), RIGHT)


def test_numbers_that_start_again():
    table = numbered()
    table["trial"] = (table["trial"] - 1) % 10
    refused(table, "subject s0 has trial 0 of column 'trial' more than once (rows 0, 10)", "--order BLOCK,trial",
            "--order file")  # fmt: skip
    table["block"] = 1 + table.groupby("subject").cumcount() // 10
    refused(table, "starts again in every block", "--order block,trial", "--subject subject,block")
    assert np.array_equal(silently(table, order=("block", "trial")), RIGHT)
    assert np.array_equal(silently(table[::-1], order=("block", "trial"))[::-1], RIGHT)
    blocks = read(table, net=RLDDM, simulator=None, subject=("subject", "block"))
    assert blocks.subjects.tolist() == ["s0/1", "s0/2", "s1/1", "s1/2", "s2/1", "s2/2"]
    assert blocks.trial_counts.tolist() == [10, 10, 10, 7, 10, 9]
    assert np.array_equal(blocks.outcomes["rt"][0], RIGHT[0, :10])
    # Sessions of blocks of trials.
    table["session"], table["block"], table["trial"] = table["block"], 1 + table["trial"] // 5, table["trial"] % 5
    refused(table, "starts again in every session and block", "--order session,block,trial")
    assert np.array_equal(silently(table, order=("session", "block", "trial")), RIGHT)
    refused(table, "order: 'trial', 'block' do not tell trials of subject s0 apart", order=("trial", "block"))


def test_blocks_out_of_order_without_numbers_of_trials():
    table = table_of_trials()
    table["block"] = 1 + table.groupby("subject").cumcount() // 10
    later = table.sort_values("block", ascending=False, kind="stable").sort_values("subject", kind="stable")
    refused(later, "subject s0 do not lie in the order of 'block'", "--order block")
    assert np.array_equal(silently(later, order="block"), RIGHT)


def test_that_a_person_goes_on_from_block_to_block_is_said():
    table = table_of_trials()
    table["Block"] = 1 + table.groupby("subject").cumcount() // 10
    for change, option in (
        (table, "--order file"),
        (table.assign(Block=table["Block"].map({1: "practice", 2: "main"})), "--order file"),
        (table.assign(trial=numbered()["trial"]), "--order trial"),
    ):
        with pytest.warns(FindingWarning, match=f"go on .* {option} says so.*begins anew.*--subject subject,Block"):
            assert np.array_equal(read_rt(change), RIGHT)
    assert np.array_equal(silently(table, order="file"), RIGHT)
    assert np.array_equal(silently(table.assign(trial=numbered()["trial"]), order="trial"), RIGHT)
    assert read(table, net=RLDDM, simulator=None, subject=("subject", "Block")).trial_counts.max() == 10
    silently(table.assign(Block=1))


@pytest.mark.parametrize("net", [RLDDM, DDM])
def test_what_was_pasted_twice(net):
    columns = {"choice": "response"} if net is DDM else None
    for table in (table_of_trials(), numbered()):
        twice = pandas.concat([table, table], ignore_index=True)
        with pytest.raises(ValueError, match=r"pasted twice\? Delete copies"):
            read(twice, net=net, simulator=None) if columns is None else read_trials(twice, net, columns=columns)
        with pytest.raises(ValueError, match="pasted twice"):
            part = pandas.concat([table, table[table["subject"] == "s1"]], ignore_index=True)
            read(part, net=net, simulator=None) if columns is None else read_trials(part, net, columns=columns)
    assert silently(pandas.concat([table_of_trials()] * 2), order="file").shape == (3, 40)
    refused(pandas.concat([table_of_trials()] * 3), "60 rows of subject s0 are 3 times the same 20")
    # Without response times somebody may do the same twice; of many rows that are all alike it is said.
    same = pandas.DataFrame({"subject": 1, "cond": [0, 1, 2] * 8, "response": 1, "feedback": 1})
    with pytest.warns(FindingWarning, match="24 rows of subject 1 are 4 times the same 6"):
        assert read(same, simulator=None).trial_counts.tolist() == [24]


def test_choices_that_are_alike_in_two_blocks_are_no_copies():
    rng = np.random.default_rng(0)
    table = pandas.DataFrame({"subject": 1, "trial": np.tile(np.arange(30), 3), "choice": rng.integers(0, 2, 90)})
    net = SimpleNamespace(schema=Schema(outcomes={"choice": Categorical(2)}), standardization={})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_trials(table, net, outside="ignore").trial_counts.tolist() == [90]
    # Ten in line are; a file may be pasted into itself anywhere.
    copied = pandas.concat([table, table[40:50]], ignore_index=True)
    with pytest.raises(ValueError, match="the same row twice.*rows 40, 90"):
        read_trials(copied, net, outside="ignore")
    assert read_trials(copied[:-1], net, outside="ignore").trial_counts.tolist() == [99]
    # Response times are never the same.
    table["rt"] = rng.gamma(3, 0.2, 90)
    with pytest.raises(ValueError, match="the same row twice.*rows 7, 90"):
        read_trials(pandas.concat([table, table[7:8]], ignore_index=True), net, outside="ignore")


def test_an_exchangeable_model_asks_for_no_order():
    table = numbered()
    table["trial"] %= 7
    trials = read_trials(table, DDM, columns={"choice": "response"})
    assert np.array_equal(trials.outcomes["rt"], RIGHT)


def test_numbers_of_trials_that_are_none():
    table = numbered()
    refused(table.assign(trial="first"), "column 'trial' has no number in rows 0, 1, 2 and 53 more", "--order file")
    # A column that the model reads is none.
    columns = {"choice": "response", "reward": "feedback", "pair": "trial"}
    trials = read_trials(table.assign(trial=table["cond"]), RLDDM, columns=columns)
    assert np.array_equal(trials.outcomes["rt"], RIGHT)


def test_a_model_that_reads_the_number_of_the_trial(tmp_path):
    schema = Schema(inputs={"trial": Positive()}, outcomes={"choice": Categorical(2)}, ordered=True)
    net = SimpleNamespace(schema=schema, config=Config(), standardization={})
    table = numbered()
    with pytest.warns(FindingWarning, match="sorted by it"):
        trials = read_trials(table[::-1], net, columns={"choice": "response"}, outside="ignore")
    assert trials.inputs["trial"][0].tolist() == [*range(1, 20), 1]
    write_trials(trials, tmp_path / "trials.csv")
    again = read_trials(tmp_path / "trials.csv", net, outside="ignore")
    np.testing.assert_array_equal(again.inputs["trial"], trials.inputs["trial"])
    np.testing.assert_array_equal(again.outcomes["choice"], trials.outcomes["choice"])


def test_trials_that_were_left_out():
    table = numbered()
    with pytest.warns(FindingWarning, match="skip more than 10% of the trials of subject s0"):
        assert read_rt(table.drop([3, 4, 8])).shape == (3, 19)
    # Few, or every second: another counter.
    silently(table.drop([3]))
    silently(table.drop([3, 8]))
    silently(table.assign(trial=2 * table["trial"]))


def test_order_by_dates():
    table = table_of_trials()
    table["time"] = pandas.Timestamp("2026-01-31 10:30") + pandas.to_timedelta(np.arange(len(table)), unit="min")
    assert np.array_equal(silently(table[::-1], order="time")[::-1], RIGHT)
    mixed = table.assign(time=table["time"].astype(str).where(table.index != 7, "later"))
    refused(mixed, "column 'time' should be numbers, or dates", order="time")
    refused(table, "column 'subject' should be numbers, or dates", "'s0'", order="subject")
    refused(table, "order: there is no column 'onset'", order="onset")
    refused(table, "order: expected the name of a column", order=())


def test_what_is_written_keeps_its_order(tmp_path):
    trials = read(table_of_trials())
    write_trials(trials, tmp_path / "trials.csv")
    table = pandas.read_csv(tmp_path / "trials.csv").sample(frac=1, random_state=0)
    table = table.sort_values("subject", kind="stable")
    with pytest.warns(FindingWarning, match="sorted by it"):
        again = read_trials(table, NOISY_Q)
    np.testing.assert_array_equal(again.inputs["pair"], trials.inputs["pair"])
    np.testing.assert_array_equal(again.outcomes["choice"], trials.outcomes["choice"])
