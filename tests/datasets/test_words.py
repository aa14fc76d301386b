"""The words of a table: in what is written and read again, and in what a check says of the data."""

import warnings

import numpy as np
import pytest

pytest.importorskip("pandas")

from ppl_buffer import diagnostics  # noqa: E402
from ppl_buffer.datasets import read_trials, write_trials  # noqa: E402
from ppl_buffer.findings import FindingWarning, counted  # noqa: E402
from tests.datasets.tables import NOISY_Q, TASK, read, table_of_trials  # noqa: E402

CUES = {"AB": 0, "CD": 1, "EF": 2}


def in_words():
    """The table with words for cues and choices, one of which a spreadsheet would take for a formula."""
    table = table_of_trials()
    table["cond"] = np.array(list(CUES))[table["cond"]]
    table["response"] = np.array(["-links", "rechts"])[table["response"]]
    table["note"] = np.where(table["cond"] == "AB", "=1+1", "plain")
    return read(table, recode={"pair": CUES, "choice": {"-links": 0, "rechts": 1}})


def test_words_are_written_and_read_again(tmp_path):
    trials, path = in_words(), tmp_path / "again.csv"
    assert trials.words == {"pair": {0: "AB", 1: "CD", 2: "EF"}, "choice": {0: "-links", 1: "rechts"}}
    write_trials(trials, path)
    assert "'-links" in path.read_text() and "'=1+1" in path.read_text()
    again = read_trials(path, NOISY_Q, simulator=TASK)
    assert again.words == trials.words and again.codes == trials.codes
    assert "choice_word" not in again.covariates and "pair_word" not in again.covariates
    for name, values in {**trials.inputs, **trials.outcomes, **trials.covariates}.items():
        same = {**again.inputs, **again.outcomes, **again.covariates}[name]
        np.testing.assert_array_equal(same[trials.trial_mask], values[trials.trial_mask])
    # Twice makes no difference.
    write_trials(again, tmp_path / "twice.csv")
    assert read_trials(tmp_path / "twice.csv", NOISY_Q, simulator=TASK).codes == trials.codes


def test_a_column_that_only_looks_like_words_is_a_covariate():
    table = table_of_trials()
    table["response_word"] = np.where(np.arange(len(table)) % 2, "a", "b")
    trials = read(table)
    assert "choice" not in trials.words and "response_word" in trials.covariates


def test_a_check_names_the_words_of_the_table():
    pytest.importorskip("torch")
    import ppl_buffer as pb

    trials, net = in_words(), pb.load("noisy_q", backend="torch")
    seen = trials.observe(net)
    value = net.observe(
        trials.inputs, trials.outcomes["choice"], feedback=trials.feedback, trial_mask=trials.trial_mask
    ).value
    np.testing.assert_array_equal(seen.value, value)
    draws = {name: np.full((2, len(trials.subjects)), x) for name, x in
             {"alpha": 0.01, "beta": 9.0, "kappa": 2.0, "zeta": 0.01}.items()}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FindingWarning)
        check = diagnostics.check_data(net, trials, draws, environment=TASK.environment, draws=2, progress=False)
    assert "share of choice = rechts" in check.observed
    assert "learning curve of choice = rechts" in check.curves
    with pytest.raises(ValueError, match="outcomes: expected .*'rt'.*, which the network reads"):
        trials.observe(pb.load("ddm", backend="torch"))


def test_counts_of_one():
    assert [counted(n, "person") for n in (0, 1, 2)] == ["0 people", "1 person", "2 people"]
    assert counted(1, "statistic") == "1 statistic" and counted(1200, "trial") == "1,200 trials"
