"""``--fix`` of `evidence` and `compare`, and one network that stands for several models."""

import numpy as np
import pytest

pytest.importorskip("typer")
pandas = pytest.importorskip("pandas")

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.datasets import read_trials  # noqa: E402
from ppl_buffer.workflow.cli.fixed import read_fixed_models, read_fixed_values, read_models  # noqa: E402
from tests.datasets.tables import table_of_trials  # noqa: E402
from tests.workflow.commands import COLUMNS, run  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_models_have_the_names_that_they_are_given(tmp_path, monkeypatch):
    assert read_models(["q_learning", "one rate = q_learning"]) == {
        "q_learning": "q_learning",
        "one rate": "q_learning",
    }
    monkeypatch.chdir(tmp_path)
    (tmp_path / "width=8.safetensors").write_bytes(b"")
    assert read_models(["width=8.safetensors", "b=x"]) == {"width=8.safetensors": "width=8.safetensors", "b": "x"}
    for wrong in (["noisy_q"], ["noisy_q", "noisy_q"], ["a=noisy_q", "a=ddm"]):
        with pytest.raises(ValueError, match=r"two different ones or more.*--model NAME=NETWORK"):
            read_models(wrong)
    with pytest.raises(ValueError, match="--model: expected NETWORK or NAME=NETWORK, got '=x'"):
        read_models(["=x", "y"])


def test_what_is_fixed_is_of_one_model_or_of_all(checkpoint):
    net, twin = pb.load(checkpoint), pb.load(checkpoint)
    nets = {"q": net, "q: small": net, "twin": twin}
    fixed = read_fixed_models(["kappa=0.2", "q: small:zeta=0,alpha=beta", "twin: beta = 2"], nets)
    assert fixed == {
        "q": {"kappa": 0.2}, "q: small": {"kappa": 0.2, "zeta": 0.0, "alpha": "beta"}, "twin": {"kappa": 0.2, "beta": 2}
    }  # fmt: skip
    assert read_fixed_values([], net) == {}
    for wrong in ("gain=1", "zeta=gain", "zeta=zeta", "zeta=nan", "zeta=inf"):
        with pytest.raises(ValueError, match=rf"--fix: expected NAME=NUMBER, or NAME=OTHER.*'alpha'.*got '{wrong}'"):
            read_fixed_values([wrong], net)
    with pytest.raises(ValueError, match="--fix: expected each name once, got 'zeta' twice"):
        read_fixed_values(["zeta=0", "zeta=1"], net)
    with pytest.raises(ValueError, match="--fix: expected NAME=VALUE"):
        read_fixed_values(["zeta"], net)
    with pytest.raises(ValueError, match=r"--fix: expected MODEL:NAME=NUMBER of a model of .*'twin'.*got 'x:zeta=0'"):
        read_fixed_models(["x:zeta=0"], nets)
    with pytest.raises(ValueError, match="expected something else in 'q: small' than in 'q'.*got nothing in both"):
        read_fixed_models(["twin:zeta=0"], nets)


def test_commands_hand_on_what_is_fixed(checkpoint, tmp_path, monkeypatch):
    told = {}

    def stop(*_, **arguments):
        told.update(arguments)
        raise ValueError("enough")

    monkeypatch.setattr("ppl_buffer.workflow.cli.evidence.log_evidence", stop)
    monkeypatch.setattr("ppl_buffer.inference.comparison.compare", stop)
    table = tmp_path / "trials.csv"
    table_of_trials().to_csv(table, index=False)
    common = ["--columns", COLUMNS, "--out", tmp_path / "out", "--no-progress"]
    done = run("evidence", table, "--model", checkpoint, "--fix", "kappa=0.1", "--fix", "zeta=alpha", *common)
    assert done.exit_code == 1 and "enough" in done.output, done.output
    assert told["params"] == {"kappa": 0.1, "zeta": "alpha"}
    models = ["--model", f"whole={checkpoint}", "--model", f"one rate={checkpoint}"]
    done = run("compare", table, *models, "--fix", "kappa=0.1", "--fix", "one rate:zeta=alpha", *common)
    assert done.exit_code == 1 and "enough" in done.output, done.output
    assert told["fixed"] == {"whole": {"kappa": 0.1}, "one rate": {"kappa": 0.1, "zeta": "alpha"}}
    done = run("evidence", table, "--model", checkpoint, "--fix", "gain=1", *common)
    assert done.exit_code == 1 and "--fix: expected NAME=NUMBER" in done.output, done.output


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:log_evidence. the importance draws are worth only")
def test_the_command_line_compares_models_of_one_network(checkpoint, tmp_path):
    table = tmp_path / "trials.csv"
    table_of_trials().to_csv(table, index=False)
    common = ["--columns", COLUMNS, "--out", tmp_path / "out", "--no-progress", "--draws", 150]
    models = ["--model", f"whole={checkpoint}", "--model", f"one rate={checkpoint}"]
    done = run("compare", table, *models, "--fix", "kappa=0.1", "--fix", "one rate:zeta=alpha", *common)
    assert done.exit_code == 0, done.output
    net = pb.load(checkpoint)
    trials = read_trials(table, net, columns=dict(x.split("=") for x in COLUMNS.split(",")))
    options = {"feedback": trials.feedback, "trial_mask": trials.trial_mask, "draws": 150, "progress": False}
    expected = pb.compare(
        {"whole": net, "one rate": net}, trials.inputs, trials.outcomes["choice"].astype(np.float32),
        fixed={"one rate": {"zeta": "alpha"}}, params={"kappa": 0.1}, **options,
    )  # fmt: skip
    rows = pandas.read_csv(tmp_path / "out" / "comparison.csv")
    assert list(rows["model"]) == ["whole"] * 3 + ["one rate"] * 3
    np.testing.assert_allclose(rows["log_evidence"], expected["log_evidence"], rtol=1e-6)
    # Parameters that are equal are integrated by importance sampling alone, as lapses are.
    assert "autoregressive" not in expected
