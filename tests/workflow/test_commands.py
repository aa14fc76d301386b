"""The commands `evidence`, `compare`, `check` and `zoo`, and what is said of mistakes."""

import numpy as np
import pytest

pytest.importorskip("typer")
pandas = pytest.importorskip("pandas")

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.datasets import read_trials  # noqa: E402
from tests.datasets.tables import COUNTS, table_of_trials  # noqa: E402
from tests.workflow.commands import COLUMNS, run  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_evidence_and_compare(checkpoint, tmp_path):
    table = tmp_path / "trials.csv"
    table_of_trials().to_csv(table, index=False)
    common = ["--columns", COLUMNS, "--out", tmp_path / "out", "--no-progress"]
    done = run("evidence", table, "--model", checkpoint, "--method", "autoregressive", *common)
    assert done.exit_code == 0, done.output
    rows = pandas.read_csv(tmp_path / "out" / "evidence.csv")
    assert list(rows["subject"]) == ["s0", "s1", "s2"] and list(rows["trials"]) == list(COUNTS)
    net = pb.load(checkpoint)
    trials = read_trials(table, net, columns=dict(x.split("=") for x in COLUMNS.split(",")))
    direct = pb.log_evidence(
        net, trials.inputs, trials.outcomes["choice"].astype(np.float32), feedback=trials.feedback,
        trial_mask=trials.trial_mask, method="autoregressive", progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(rows["log_evidence"], direct.log_evidence, rtol=1e-5)
    assert (tmp_path / "out" / "evidence.png").stat().st_size > 5000
    twin = tmp_path / "twin.safetensors"
    twin.write_bytes(checkpoint.read_bytes())
    done = run("compare", table, "--model", checkpoint, "--model", twin, "--method", "autoregressive", *common)
    assert done.exit_code == 0, done.output
    rows = pandas.read_csv(tmp_path / "out" / "comparison.csv")
    np.testing.assert_allclose(rows["probability"], 0.5)
    done = run("compare", table, "--model", checkpoint, *common)
    assert done.exit_code == 1 and "two different ones" in done.output


def test_evidence_and_compare_with_lapses(checkpoint, tmp_path):
    table, twin = tmp_path / "trials.csv", tmp_path / "twin.safetensors"
    table_of_trials().to_csv(table, index=False)
    twin.write_bytes(checkpoint.read_bytes())
    net = pb.load(checkpoint)
    trials = read_trials(table, net, columns=dict(x.split("=") for x in COLUMNS.split(",")))
    common = ["--columns", COLUMNS, "--out", tmp_path / "out", "--no-progress", "--draws", 250]
    for rate, lapse, words in (("0.1", 0.1, "10.0% lapses"), ("estimate", pb.Lapse(), "their rate integrated out")):
        done = run("evidence", table, "--model", checkpoint, "--lapse", rate, *common)
        assert done.exit_code == 0 and words in done.output, done.output
        direct = pb.log_evidence(
            net, trials.inputs, trials.outcomes["choice"].astype(np.float32), feedback=trials.feedback,
            trial_mask=trials.trial_mask, draws=250, lapse=lapse, progress=False,
        )  # fmt: skip
        rows = pandas.read_csv(tmp_path / "out" / "evidence.csv")
        np.testing.assert_allclose(rows["log_evidence"], direct.log_evidence, rtol=1e-5)
    both = ["--model", checkpoint, "--model", twin, "--lapse", "estimate", *common]
    assert run("compare", table, *both).exit_code == 0
    rows = pandas.read_csv(tmp_path / "out" / "comparison.csv")
    np.testing.assert_allclose(rows["log_evidence"][:3], direct.log_evidence, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lapse", "2"], "--lapse: expected a probability, such as 0.02, or 'estimate', got '2'"),
        (["--lapse", "often"], "got 'often'"),
        (["--lapse-range", "rt=0,2"], "--lapse-range: expected a rate as well"),
        (["--lapse", "0.1", "--lapse-range", "rt=0"], "--lapse-range: expected NAME=LOW,HIGH, got 'rt=0'"),
        (["--lapse", "0.1", "--lapse-range", "rt=0,2"], "lapse: expected ranges of the continuous outcomes [], got"),
        (["--lapse", "0.1", "--method", "autoregressive"], "a past without lapses; use method='importance'"),
    ],
)
def test_lapses_that_cannot_be_are_refused_in_a_line(options, message, checkpoint, tmp_path):
    table = tmp_path / "trials.csv"
    table_of_trials().to_csv(table, index=False)
    done = run("evidence", table, "--model", checkpoint, "--columns", COLUMNS, "--out", tmp_path / "out", *options)
    assert done.exit_code == 1 and message in done.output.replace("\n", " "), done.output


def test_check_fails_a_network_that_was_never_trained(checkpoint, tmp_path):
    done = run("check", checkpoint, "--sets", 20, "--trials", 20, "--out", tmp_path, "--no-progress")
    assert done.exit_code == 1
    assert "likelihood: FAILED" in done.output
    table = pandas.read_csv(tmp_path / "likelihood.csv")
    assert not table["passed"].all()
    assert (tmp_path / "likelihood.png").exists()


def test_zoo_lists_the_shipped_networks():
    if not len(pb.zoo()):
        pytest.skip("no network is shipped")
    done = run("zoo")
    assert done.exit_code == 0
    assert "noisy_q" in done.output and "choice (an integer from 0 to 1)" in done.output


def test_mistakes_on_the_command_line_have_no_traceback(checkpoint, tmp_path):
    table = table_of_trials()
    table["response"] = 2 * table["response"] - 1
    path = tmp_path / "trials.csv"
    table.to_csv(path, index=False)
    common = ["evidence", path, "--model", checkpoint, "--out", tmp_path / "out"]
    for more, said in (
        (["--columns", COLUMNS], "--recode choice:-1=0,1=1"),
        (["--columns", "choice"], "expected NAME=VALUE"),
        (["--columns", COLUMNS, "--recode", "choice"], "expected NAME:OLD=NEW"),
        (["--columns", COLUMNS, "--scale", "reward=x"], "expected numbers"),
    ):
        done = run(*common, *more)
        assert done.exit_code == 1 and said in done.output and "Traceback" not in done.output
    assert not (tmp_path / "out").exists()
    done = run("evidence", tmp_path / "none.csv", "--model", checkpoint)
    assert done.exit_code == 1 and "no such file" in done.output
