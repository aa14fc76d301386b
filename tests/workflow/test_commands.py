"""The commands `evidence`, `compare`, `check` and `zoo`, and what is said of mistakes."""

import os
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("typer")
pandas = pytest.importorskip("pandas")

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.datasets import read_trials  # noqa: E402
from tests.datasets.tables import COUNTS, table_of_trials  # noqa: E402
from tests.networks import Case, network  # noqa: E402
from tests.workflow.commands import COLUMNS, run  # noqa: E402
from tests.workflow.conftest import TASK, record_of  # noqa: E402

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
    both = ["--model", checkpoint, "--model", twin, "--method", "autoregressive"]
    families = ["--family", f"one={checkpoint}", "--family", f"other={twin}"]
    done = run("compare", table, *both, *families, *common)
    assert done.exit_code == 0 and "families are equally frequent" in done.output, done.output
    rows = pandas.read_csv(tmp_path / "out" / "comparison.csv")
    np.testing.assert_allclose(rows[["probability", "assignment"]], 0.5, atol=0.02)
    assert list(pandas.read_csv(tmp_path / "out" / "families.csv")["family"]) == ["one", "other"]
    np.testing.assert_allclose(pandas.read_csv(tmp_path / "out" / "models.csv")["protected_exceedance"], 0.5, atol=0.02)
    for wrong in (f"one={checkpoint}", "one", f"one={checkpoint},{twin}"):
        done = run("compare", table, *both, "--family", wrong, *common)
        assert done.exit_code == 1 and "expected" in done.output, done.output
    done = run("compare", table, "--model", checkpoint, *common)
    assert done.exit_code == 1 and "two different ones" in done.output


@pytest.mark.filterwarnings("ignore:log_evidence. the importance draws are worth only")
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
    done = run("zoo", "two_step")
    assert (
        done.exit_code == 0 and "noisy_q" not in done.output and "transition is common, ``common`` = 1" in done.output
    )
    assert run("zoo", "three_step").exit_code == 1 and "NAME: expected one of" in run("zoo", "three_step").output


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
        (["--columns", COLUMNS, "--likelihood", "neither"], "likelihood: expected one of"),
    ):
        done = run(*common, *more)
        assert done.exit_code == 1 and said in done.output and "Traceback" not in done.output
    assert not (tmp_path / "out").exists()
    done = run("evidence", tmp_path / "none.csv", "--model", checkpoint)
    assert done.exit_code == 1 and "no such file" in done.output


def test_a_command_takes_the_part_of_the_network_that_it_was_told(tmp_path, monkeypatch):
    sizes = pb.Config(width=4, depth=1, heads=1, mlp=4, components=2, param_depth=1, likelihood_width=4)
    both, alone = tmp_path / "both.safetensors", tmp_path / "alone.safetensors"
    for path, config in ((both, sizes), (alone, replace(sizes, depth=0))):
        pb.save(network(Case("two parts", TASK.schema, config=config), "jax", record_of(TASK)), path)
    table = tmp_path / "trials.csv"
    table_of_trials().to_csv(table, index=False)
    common = ["--columns", COLUMNS, "--out", tmp_path / "out", "--no-progress"]
    found = []

    def refuse(net, *arguments, **more):
        found.append(net.preferred_likelihood)
        raise ValueError("enough")

    monkeypatch.setattr("ppl_buffer.workflow.cli.evidence.log_evidence", refuse)
    monkeypatch.setattr("ppl_buffer.inference.comparison.log_evidence", refuse)
    monkeypatch.setattr("ppl_buffer.diagnostics.check_likelihood", refuse)
    monkeypatch.setattr("ppl_buffer.workflow.fitting.fit", refuse)
    twin = tmp_path / "twin.safetensors"
    twin.write_bytes(both.read_bytes())
    for command in (
        ["evidence", table, "--model", both, *common],
        ["compare", table, "--model", both, "--model", twin, *common],
        ["check", both, "--simulator", "ppl_buffer.simulators:NoisyQ", "--out", tmp_path / "out"],
        ["fit", table, "--model", both, "--simulator", "ppl_buffer.simulators:NoisyQ", *common],
    ):
        for told in ([], ["--likelihood", "buffer"]):
            done = run(*command, *told)
            assert done.exit_code == 1 and "enough" in done.output, done.output
        assert found[-2:] == ["direct", "buffer"], command
    monkeypatch.undo()
    done = run("evidence", table, "--model", alone, "--method", "autoregressive", *common)
    assert done.exit_code == 1 and "method: expected 'importance', since this network has a direct" in done.output
    done = run("evidence", table, "--model", alone, "--likelihood", "buffer", *common)
    assert done.exit_code == 1 and "this network has no buffered transformer" in done.output


def test_what_names_no_simulator_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some_module_of_mine.py").write_text(
        "import ppl_buffer as pb\nclass Full(pb.simulators.NoisyQ):\n    def __init__(self, size): ...\nthing = 3\n"
    )
    # A file that is called as a library neither takes its place nor goes unnoticed.
    (tmp_path / "numpy.py").write_text("raise RuntimeError('not this one')\n")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    for spec, said in (
        ("os:system", "which has no schema, prior, inputs, simulate"),
        ("../x:Y", "expected my_module:MySimulator"),
        ("some_module_of_mine.py:Full", "there is no module 'some_module_of_mine.py'"),
        ("some_module_of_mine:Full", "a class without arguments"),
        ("some_module_of_mine:thing", "which has no schema"),
        ("numpy:Full", "give that another name"),
    ):
        for command in (["check", "noisy_q", "--simulator", spec], ["train", spec]):
            done = run(*command)
            assert done.exit_code == 1 and said in done.output, (spec, done.output)
    assert sys.path[-1] == str(tmp_path)


def test_a_folder_for_results_that_is_a_file_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for command in (
        ["fit", "no.csv", "--model", "noisy_q"],
        ["evidence", "no.csv", "--model", "noisy_q"],
        ["compare", "no.csv", "--model", "noisy_q", "--model", "ddm"],
        ["check", "noisy_q"],
        ["demo", "--simulated"],
    ):
        for out in (tmp_path / "file", tmp_path / "file" / "below"):
            done = run(*command, "--out", out)
            assert done.exit_code == 1 and "--out: expected a folder" in done.output, done.output


@pytest.mark.filterwarnings("always")
def test_an_interrupt_ends_with_130_and_one_line_that_says_what_is_kept(tmp_path, capsys):
    import typer

    from ppl_buffer.workflow.cli.errors import plain_errors

    def said(kept=None, error=None):
        with pytest.raises(typer.Exit) as end, plain_errors(kept):
            raise error or KeyboardInterrupt
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return end.value.exit_code, text

    assert said() == (130, "Interrupted: nothing was written.\n")
    draws = tmp_path / "draws.safetensors"
    assert "nothing was written" in said(draws)[1]
    draws.write_bytes(b"")
    assert said(draws) == (
        130, f"Interrupted: what was done is kept in {draws}, and the same command goes on from there.\n"
    )  # fmt: skip
    assert said(draws, KeyboardInterrupt("training stopped"))[1] == "Interrupted: training stopped.\n"
    assert said(draws, PermissionError(13, "Permission denied"))[0] == 1
    # What should not happen keeps its traceback, and says what is kept; a warning is said once.
    with pytest.raises(TypeError), plain_errors(draws):
        for _ in range(3):
            warnings.warn("twice the same", stacklevel=1)
        raise TypeError
    text = capsys.readouterr().err
    assert text.count("Warning: twice the same") == 1 and f"kept in {draws}" in text


@pytest.mark.parametrize(
    ("app", "code", "output"), [("typer.echo('\u65e5\u672c')", 0, "??"), ("sys.exit(130)", 130, "")]
)
def test_a_terminal_of_few_letters_shows_the_rest_and_an_interrupt_ends_at_once(app, code, output):
    program = (
        f"import sys, typer, ppl_buffer.workflow.cli.app as module; module.app = lambda: {app}; "
        "from ppl_buffer.workflow.cli import main; main()"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1:strict"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout.strip()) == (code, output), done.stderr
