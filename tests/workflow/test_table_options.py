"""The options of a command as the arguments of `read_trials`."""

import numpy as np
import pytest

pytest.importorskip("typer")
pandas = pytest.importorskip("pandas")

from ppl_buffer import load  # noqa: E402
from ppl_buffer.workflow.cli import tables  # noqa: E402
from ppl_buffer.workflow.cli.tables import TableOptions, write_rows  # noqa: E402
from tests.datasets.tables import RLDDM, read, table_of_trials  # noqa: E402
from tests.workflow.commands import COLUMNS, run  # noqa: E402

RIGHT = read(table_of_trials(), net=RLDDM, simulator=None)


def test_options_reach_the_table(tmp_path, capsys):
    table = table_of_trials().rename(columns={"subject": "who, really", "response": "key: 1=left"})
    table["half"] = 1 + table.groupby("who, really").cumcount() // 10
    table["trial"] = table.groupby(["who, really", "half"]).cumcount()
    table["rt"] = 1000 * table["rt"] * np.where(table["key: 1=left"] == 1, 1, -1)
    table["cond"] = table["cond"].map({0: "no, one", 1: "a=b", 2: "c:d"})
    path = tmp_path / "trials.csv"
    table[::-1].to_csv(path, index=False)
    options = TableOptions(
        subject='"who, really"',
        order="half,trial",
        columns="reward=feedback,pair=cond,choice=key: 1=left",
        recode=["pair:no, one=0,a=b=1", "pair:c:d=2"],
        scale=["rt=0.001"],
        signed="rt=choice",
    )
    trials = options.read(path, RLDDM, None)
    assert trials.subjects.tolist() == ["s2", "s1", "s0"]
    for group in ("inputs", "outcomes", "feedback"):
        for name, values in getattr(RIGHT, group).items():
            np.testing.assert_allclose(getattr(trials, group)[name][::-1], values)
    assert list(options.given)[:6] == ["subject", "order", "columns", "recode", "scale", "signed"]
    assert TableOptions("subject", None, "", None, None, "").given["signed"] is None
    assert capsys.readouterr().err == ""


def test_what_is_said_of_a_table(tmp_path, capsys):
    path = tmp_path / "trials.csv"
    table = table_of_trials()
    table["trial"] = table.groupby("subject").cumcount()
    table[::-1].to_csv(path, index=False)
    options = TableOptions("subject", None, COLUMNS, None, None, "")
    assert options.read(path, RLDDM, None).trial_counts.tolist() == [19, 17, 20]
    assert "were sorted by it" in capsys.readouterr().err
    assert len(options.read_for(path, [(RLDDM, None), (RLDDM, None)])) == 2
    assert capsys.readouterr().err.count("were sorted by it") == 1
    options = TableOptions("subject", "file", COLUMNS, None, None, "")
    options.read(path, RLDDM, None)
    assert capsys.readouterr().err == ""


def test_tables_in_doubt_end_in_one_line(checkpoint, tmp_path):
    table = table_of_trials()
    path = tmp_path / "trials.csv"
    for change, more, said in (
        (lambda: pandas.concat([table, table]), [], "pasted twice"),
        (lambda: table.assign(trial=1), [], "--order file"),
        (lambda: table, ["--scale", "reward=0"], "factor other than 0"),
        (lambda: table, ["--order", "trial"], "no column 'trial'"),
        (lambda: table, ["--signed", "rt=choice"], "no 'rt'"),
        (lambda: table.iloc[:0], [], "names of columns alone"),
    ):
        change().to_csv(path, index=False)
        done = run("evidence", path, "--model", checkpoint, "--out", tmp_path / "out", "--columns", COLUMNS, *more)
        assert done.exit_code == 1 and said in done.output and "Traceback" not in done.output
    path.write_text("")
    done = run("fit", path, "--model", checkpoint, "--out", tmp_path / "out")
    assert done.exit_code == 1 and "the file is empty" in done.output
    assert not (tmp_path / "out").exists()


def test_results_are_no_formulas(tmp_path):
    rows = pandas.DataFrame({"subject": ["=1+1", "a", "-2"], "trials": [1, 2, 3], "x": [-0.1, np.nan, 1e-9]})
    write_rows(rows, tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text() == "subject,trials,x\n'=1+1,1,-0.1\na,2,\n-2,3,1e-09\n"


@pytest.mark.parametrize(
    ("gaps", "likelihood", "part"),
    [({"missing": ["empty"]}, "auto", "direct"), ({"deadline": "2"}, "auto", "direct"), ({}, "auto", "buffer"),
     ({"missing": ["empty"]}, "buffer", "buffer")],
)  # fmt: skip
def test_where_answers_may_be_missing_the_part_that_reads_it_computes(monkeypatch, gaps, likelihood, part):
    # As if its record said that the transformer is nearer to the truth.
    net = load("rlddm").preferring("buffer")
    monkeypatch.setattr(tables, "load", lambda model, backend: net)
    options = TableOptions("subject", None, "", None, None, "", **gaps)
    assert options.load("rlddm", likelihood).preferred_likelihood == part
