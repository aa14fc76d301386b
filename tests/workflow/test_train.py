"""The command `train`: from a module to a checkpoint."""

import textwrap
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("typer")

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.workflow.cli.simulators import simulator_of  # noqa: E402
from tests.workflow.commands import run  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_train_goes_from_a_module_to_a_checkpoint(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    (tmp_path / "my_coin_module.py").write_text(
        textwrap.dedent(
            """
            import numpy as np

            import ppl_buffer as pb

            class Coin:
                schema = pb.Schema(
                    params={"p": pb.Interval(0, 1)}, outcomes={"side": pb.Categorical(2)}, independent=True
                )
                priors = {"p": pb.Prior("Uniform", {"low": 0.1, "high": 0.9})}
                def prior(self, rng, size):
                    return {"p": rng.uniform(0.1, 0.9, size)}
                def inputs(self, rng, size, trials):
                    return {}
                def simulate(self, rng, params, inputs, trials):
                    return {"side": (rng.random((len(params["p"]), trials)) < params["p"][:, None]).astype(int)}
                def log_likelihood(self, params, data):
                    p = params["p"][:, None]
                    return np.log(np.where(data["side"] == 1, p, 1 - p))
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    done = run("train", "my_coin_module:Coin", "--steps", 2, "--width", 8, "--depth", 1, "--heads", 2, "--mlp", 8,
               "--batch-size", 3, "--trials", "5-7", "--context", "0-3", "--targets", 4, "--held-out", 4,
               "--outcome-samples", 3, "--likelihood-weight", 0.8, "--no-progress")  # fmt: skip
    assert done.exit_code == 0, done.output
    net = pb.load(tmp_path / "runs" / "Coin" / "Coin.safetensors", backend="torch")
    assert list(net.schema.params) == ["p"] and net.config.width == 8 and net.record.trials == 7
    assert net.record.provenance["outcome_samples"] == 3 and net.record.provenance["likelihood_weight"] == 0.8
    assert net.record.provenance["targets"] == 4
    assert simulator_of(net) is None
    coin = simulator_of(net, "my_coin_module:Coin")
    pb.prepare_distillation(net, coin, sets=2, trials=5, out="distillation", progress=False)
    done = run("train", "my_coin_module:Coin", "--steps", 2, "--out", "distilled", "--start",
               "runs/Coin/Coin.safetensors", "--depth", 3, "--asinh-scales", 1, "--distillation", "distillation",
               "--batch-size", 3, "--trials", "2-5", "--use-log-likelihood", "--held-out", 4,
               "--no-progress")  # fmt: skip
    assert done.exit_code == 0, done.output
    distilled = pb.load("distilled/Coin.safetensors", backend="torch")
    assert (
        distilled.record.provenance["distillation"]["sets"] == 4 and distilled.record.provenance["use_log_likelihood"]
    )
    assert not net.record.provenance["use_log_likelihood"]
    assert distilled.config == replace(net.config, depth=3, asinh_scales=1)
    done = run("train", "my_coin_module:Coin", "--start", "runs/Coin/Coin.safetensors", "--mlp", 16)
    assert done.exit_code == 1 and "config: expected none, or that of start" in done.output
    done = run("train", "my_coin_module:Coin", "--forecasting", 0.5, "--gap-filling", 0.2,
               "--in-order", 0.5, "--order-by", "time")  # fmt: skip
    assert done.exit_code == 1 and "a schema without a continuous input" in " ".join(done.output.split())
    assert simulator_of(net, "my_coin_module:Coin").schema == net.schema
    done = run("train", "my_coin_module:Coin", "--steps", 2, "--parts", "head")
    assert done.exit_code == 1 and "parts: expected one of ['all', 'likelihood', 'buffer'], got 'head'" in done.output
    for wrong, said in (("my_coin_module", "my_module:MySimulator"), ("no_such_module_here:X", "no module"),
                        ("my_coin_module:Dice", "has no 'Dice'")):  # fmt: skip
        done = run("train", wrong)
        assert done.exit_code == 1 and said in done.output


def test_train_and_check_take_a_file_of_simulations(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    rate = rng.uniform(0.1, 0.9, 211)
    sides = (rng.random((211, 9)) < rate[:, None]).astype(int)
    np.savez(tmp_path / "coin.npz", **{"params/rate": rate, "outcomes/side": sides}, ordered=0)
    monkeypatch.chdir(tmp_path)
    done = run("train", "coin.npz", "--steps", 1, "--width", 8, "--depth", 1, "--heads", 2, "--mlp", 8,
               "--batch-size", 3, "--held-out", 4, "--no-progress")  # fmt: skip
    assert done.exit_code == 0, done.output
    path = tmp_path / "runs" / "coin" / "coin.safetensors"
    net = pb.load(path, backend="torch")
    assert net.record.trials == 3 and net.record.context == 3 and net.record.stored.data_sets == 190
    assert simulator_of(net, "coin.npz").stored_sets.summary == net.record.stored
