"""The command line on a tiny network, and what it says of tables with mistakes."""

import base64
import re
import textwrap
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("typer")
pandas = pytest.importorskip("pandas")

from typer.testing import CliRunner  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.datasets import simulated_selection_task  # noqa: E402
from ppl_buffer.datasets.tables import read_trials  # noqa: E402
from ppl_buffer.network.config import Config  # noqa: E402
from ppl_buffer.workflow import cli  # noqa: E402
from ppl_buffer.workflow.cli import app, simulator_of  # noqa: E402
from tests.networks import (  # noqa: E402
    Case,
    Record,
    network,
    quick_compilation,  # noqa: F401
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

TASK = pb.simulators.NoisyQ()
MAP = "choice=response,reward=feedback,pair=cond"
PEOPLE, TRIALS = 3, 20
COUNTS = (20, 17, 19)


def people() -> "pandas.DataFrame":
    """Simulated people in the columns of the selection task."""
    rng = np.random.default_rng(0)
    inputs = TASK.inputs(rng, PEOPLE, TRIALS)
    params = {"alpha": [0.2, 0.3, 0.5], "beta": [4.0, 5.0, 3.0], "kappa": [0.1, 0.2, 0.3], "zeta": [0.1, 0.2, 0.1]}
    data = TASK.simulate(rng, {name: np.array(x) for name, x in params.items()}, inputs)
    rows = [
        {"subject": f"s{index}", "cond": inputs["pair"][index, k], "response": data["choice"][index, k],
         "feedback": int(data["reward"][index, k]), "rt": 0.4 + 0.01 * k}
        for index in range(PEOPLE) for k in range(COUNTS[index])
    ]  # fmt: skip
    return pandas.DataFrame(rows)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny network of the selection task, with random weights."""
    pytest.importorskip("jax")
    config = Config(width=8, depth=1, heads=2, mlp=8, components=2, param_depth=1, contextual_positions=1)
    record = Record(
        box={name: prior.range() for name, prior in TASK.priors.items()},
        priors=TASK.priors,
        trials=50,
        context=0,
        simulator="NoisyQ",
    )
    path = tmp_path_factory.mktemp("net") / "tiny.safetensors"
    pb.save(network(Case("tiny", TASK.schema, TASK.environment, config), "jax", record), path)
    return path


def run(*arguments: object):
    return CliRunner().invoke(app, [str(x) for x in arguments], catch_exceptions=False)


def test_fit_writes_everything_and_answers_four_questions(checkpoint, tmp_path):
    for module in ("numpyro", "arviz", "matplotlib"):
        pytest.importorskip(module)
    table, out = tmp_path / "trials.csv", tmp_path / "fit"
    people().to_csv(table, index=False)
    with warnings.catch_warnings():
        # Draws this few leave other packages with nothing good to say.
        warnings.simplefilter("ignore")
        done = run("fit", table, "--model", checkpoint, "--map", MAP, "--out", out, "--chains", 1, "--warmup", 4,
                   "--draws", 5, "--replicates", 5, "--tree-depth", 1, "--no-progress")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "One chain cannot tell" in done.output or "Do not read the posterior" in done.output
    report = (out / "report.html").read_text()
    for question in ("Did it converge?", "Does the model fit?", "How do people differ?", "Can I trust it?"):
        assert report.count(question) == 2
    # Nothing is fetched from anywhere, and the figures are inside.
    assert not re.search(r'(src|href)="(?!data:|#)', report)
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', report)
    assert len(images) >= 4 and all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert {path.name for path in out.glob("*.png")} == {
        "traces.png", "people.png", "learning_curves.png", "repetition.png"
    }  # fmt: skip
    # Five draws of one chain have not converged, and the report says so.
    assert "One chain cannot tell" in report and "s1" in report
    summary = pandas.read_csv(out / "summary.csv", index_col="quantity")
    assert {"alpha_group", "beta_spread", "alpha[s0]", "zeta[s2]"} <= set(summary.index)
    from ppl_buffer.arviz import import_arviz

    posterior = import_arviz().from_netcdf(str(out / "posterior.nc"))
    assert posterior.log_likelihood["choice"].shape == (1, 5, sum(COUNTS))
    alpha = posterior.posterior["alpha"]
    assert alpha.dims == ("chain", "draw", "subject") and list(alpha.subject.values) == ["s0", "s1", "s2"]
    assert float(alpha.min()) > 0 and float(alpha.max()) < 1
    assert summary.loc["alpha[s0]", "mean"] == pytest.approx(float(alpha.sel(subject="s0").mean()))


def test_the_demo_fits_those_with_the_fewest_trials_of_a_table_it_writes(tmp_path, monkeypatch):
    fitted = {}
    monkeypatch.setattr(cli, "fit", lambda table, model, **options: fitted.update(options, table=table, model=model))
    out = tmp_path / "demo"
    done = run("demo", "--simulated", "--subjects", 17, "--out", out, "--draws", 7, "--no-progress")
    assert done.exit_code == 0 and "17 of 28 people" in done.output and "Simulated" in done.output
    assert fitted.pop("model") == "noisy_q" and fitted.pop("out") == out and not fitted.pop("progress")
    everybody = simulated_selection_task()
    few = everybody.trial_counts <= np.sort(everybody.trial_counts)[16]
    again = read_trials(fitted.pop("table"), NOISY_Q, simulator=TASK)
    assert fitted == {"warmup": 200, "draws": 7, "replicates": 150, "seed": 0}
    assert set(again.subjects) <= set(everybody.subjects[few]) and len(again.subjects) == 17
    for row, subject in enumerate(again.subjects):
        theirs, count = np.flatnonzero(everybody.subjects == subject)[0], again.trial_counts[row]
        assert count == everybody.trial_counts[theirs] and again.trial_mask[row].sum() == count
        for group in ("inputs", "outcomes", "feedback"):
            for name, values in getattr(everybody, group).items():
                np.testing.assert_array_equal(getattr(again, group)[name][row, :count], values[theirs, :count])
    # Where there are no data, it says so and simulates; numbers of people that make no sense are refused.
    monkeypatch.setenv("PPL_BUFFER_DATA", str(tmp_path))
    assert "The selection task is not here" in run("demo", "--out", out).output
    assert "--subjects: expected 'all'" in run("demo", "--subjects", 1, "--out", out).output


def finished(boundary: float = 2.0):
    """A fit of people who respond, of draws that need no sampling: normal about the middle of the box."""
    for module in ("numpyro", "arviz", "matplotlib"):
        pytest.importorskip(module)
    import xarray

    from ppl_buffer.arviz import container
    from ppl_buffer.diagnostics import DataCheck
    from ppl_buffer.workflow.fit import Box, Fit

    rng = np.random.default_rng(1)
    record = SimpleNamespace(
        box={name: prior.range() for name, prior in LEARNER.priors.items()}, priors=LEARNER.priors, trials=150,
        simulator="RLDriftDiffusion",
    )  # fmt: skip
    net = SimpleNamespace(schema=LEARNER.schema, standardization=RLDDM.standardization, record=record, box=record.box)
    trials = read(people(), net=net, simulator=None)
    box = Box.of(net, trials)
    place = {"alpha_positive": 0.3, "alpha_negative": 0.2, "scaling": 4.0, "boundary": boundary}
    place["non_decision_time"] = 0.3
    draws = {name: x + 0.02 * rng.standard_normal((2, 50, PEOPLE)) for name, x in place.items()}
    draws["alpha_positive"] += 0.1 * np.arange(PEOPLE)
    draws["boundary"] = np.minimum(draws["boundary"], 5.0)  # the edge of the trained range
    sites = {name: (("chain", "draw", "subject"), x) for name, x in draws.items()}
    sites |= {f"{name}_group": (("chain", "draw"), x.mean(-1)) for name, x in draws.items()}
    again = {name: np.repeat(trials.outcomes[name][None].astype(float), 7, 0) for name in ("choice", "rt")}
    again = {name: np.where(trials.trial_mask, x, np.nan) for name, x in again.items()}
    rows = {"r_hat": [1.001, 1.003], "ess_bulk": [900, 1200], "ess_tail": [700, 800]}
    settings = {"hierarchical": True, "lapse": 0.02}
    flat = {"mean of rt": rng.standard_normal((70, PEOPLE))}
    return Fit(
        net=net, trials=trials, box=box, posterior=container({"posterior": xarray.Dataset(sites)}), replicated=again,
        check=DataCheck(flat, {name: x[::-1] for name, x in flat.items()}, 0.95), outside={}, warned=[], diverging=0.0,
        summary=pandas.DataFrame(rows), deepest=0.1, settings=settings, seconds=2.0,
    )  # fmt: skip


def test_a_report_of_response_times_has_the_fields_plots_and_verdicts(tmp_path):
    from ppl_buffer.workflow.report import write_report

    fit = finished()
    assert fit.converged
    text = write_report(fit, tmp_path, title="a <b> & c").read_text()
    assert {path.stem for path in tmp_path.glob("*.png")} == {
        "traces", "people", "learning_curves", "outcomes", "quantile_probability", "conditional_accuracy",
        "post_error_slowing", "repetition", "autocorrelation",
    }  # fmt: skip
    assert "a &lt;b&gt; &amp; c" in text and "2.0% lapses" in text
    assert "Nothing speaks against it" in text and "measurably" in text and "at the edge of the" not in text
    assert "Most clearly in alpha_positive" in text


def test_draws_that_pile_up_at_the_edge_of_the_range_are_told(tmp_path):
    from ppl_buffer.workflow.report import write_report

    fit = finished(boundary=6.0)
    # A learning rate of 0 is no edge: the model knows nothing beyond it.
    assert fit.edge("boundary") > 0.9 and fit.edge("alpha_positive") == 0
    text = write_report(fit, tmp_path, title="edge").read_text()
    assert "<b>boundary</b> lie at the edge of the trained range" in text and "Nothing speaks" not in text


def test_parameters_stay_inside_the_box_and_below_the_fastest_response():
    fit = finished()
    fastest = np.where(fit.trials.trial_mask, fit.trials.outcomes["rt"], np.inf).min(1)
    for extreme in (-40.0, 0.0, 40.0):
        params = fit.box({name: np.full(PEOPLE, extreme, np.float32) for name in fit.box.bounds})
        for name, (low, high) in fit.net.box.items():
            assert (np.asarray(params[name]) >= low).all() and (np.asarray(params[name]) <= high).all()
        assert (np.asarray(params["non_decision_time"]) < fastest).all()
    middle = fit.box({name: np.zeros(PEOPLE, np.float32) for name in fit.box.bounds})
    np.testing.assert_allclose(middle["non_decision_time"], fastest / 2, rtol=1e-5)
    np.testing.assert_allclose(middle["boundary"], (0.6 + 5.0) / 2, rtol=1e-5)


def test_a_parameter_relative_to_another_keeps_its_distance():
    pytest.importorskip("numpyro")
    from ppl_buffer.workflow.fit import Box

    observer = pb.simulators.MultisensoryCausalInference()
    record = SimpleNamespace(priors=observer.priors)
    net = SimpleNamespace(schema=observer.schema, record=record, box={name: (-9.0, 9.0) for name in observer.priors})
    box = Box.of(net)
    relative = {name: prior for name, prior in observer.priors.items() if prior.relative_to}
    assert relative
    rng = np.random.default_rng(2)
    params = box({name: 3 * rng.standard_normal(101).astype(np.float32) for name in net.schema.params})
    for name, prior in relative.items():
        low, high = prior.range()
        distance = np.asarray(params[name] - params[prior.relative_to])
        assert (distance >= low).all() and (distance <= high).all() and distance.std() > 0.2 * (high - low)


def test_evidence_and_compare(checkpoint, tmp_path):
    table = tmp_path / "trials.csv"
    people().to_csv(table, index=False)
    common = ["--map", MAP, "--out", tmp_path / "out", "--no-progress"]
    done = run("evidence", table, "--model", checkpoint, "--method", "autoregressive", *common)
    assert done.exit_code == 0, done.output
    rows = pandas.read_csv(tmp_path / "out" / "evidence.csv")
    assert list(rows["subject"]) == ["s0", "s1", "s2"] and list(rows["trials"]) == list(COUNTS)
    net = pb.load(checkpoint)
    trials = read_trials(table, net, columns=dict(x.split("=") for x in MAP.split(",")))
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


def test_check_fails_a_network_that_was_never_trained(checkpoint, tmp_path):
    done = run("check", checkpoint, "--sets", 20, "--trials", 20, "--out", tmp_path, "--no-progress")
    assert done.exit_code == 1
    assert "likelihood: FAILED" in done.output
    table = pandas.read_csv(tmp_path / "likelihood.csv")
    assert not table["passed"].all()
    assert (tmp_path / "likelihood.png").exists()


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
                def log_density(self, params, data):
                    p = params["p"][:, None]
                    return np.log(np.where(data["side"] == 1, p, 1 - p))
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    done = run("train", "my_coin_module:Coin", "--steps", 2, "--width", 8, "--depth", 1, "--heads", 2, "--mlp", 8,
               "--batch-size", 3, "--trials", "5-7", "--context", "0-3", "--held-out", 4,
               "--outcome-samples", 3, "--likelihood-weight", 0.8, "--no-progress")  # fmt: skip
    assert done.exit_code == 0, done.output
    net = pb.load(tmp_path / "runs" / "Coin" / "Coin.safetensors", backend="torch")
    assert list(net.schema.params) == ["p"] and net.config.width == 8 and net.record.trials == 7
    assert net.record.provenance["outcome_samples"] == 3 and net.record.provenance["likelihood_weight"] == 0.8
    assert simulator_of(net) is None
    coin = simulator_of(net, "my_coin_module:Coin")
    pb.prepare_distillation(net, coin, sets=2, trials=5, out="distillation", progress=False)
    done = run("train", "my_coin_module:Coin", "--steps", 2, "--out", "taught", "--start", "runs/Coin/Coin.safetensors",
               "--depth", 3, "--asinh-scales", 1, "--distillation", "distillation", "--batch-size", 3, "--trials", "2-5",
               "--use-log-likelihood", "--held-out", 4, "--no-progress")  # fmt: skip
    assert done.exit_code == 0, done.output
    taught = pb.load("taught/Coin.safetensors", backend="torch")
    assert taught.record.provenance["distillation"]["sets"] == 4 and taught.record.provenance["use_log_likelihood"]
    assert not net.record.provenance["use_log_likelihood"]
    assert taught.config == replace(net.config, depth=3, asinh_scales=1)
    done = run("train", "my_coin_module:Coin", "--start", "runs/Coin/Coin.safetensors", "--mlp", 16)
    assert done.exit_code == 1 and "config: expected none, or that of start" in done.output
    assert simulator_of(net, "my_coin_module:Coin").schema == net.schema
    for wrong, said in (("my_coin_module", "my_module:MySimulator"), ("no_such_module_here:X", "no module"),
                        ("my_coin_module:Dice", "has no 'Dice'")):  # fmt: skip
        done = run("train", wrong)
        assert done.exit_code == 1 and said in done.output


def test_zoo_lists_the_shipped_networks():
    if not len(pb.zoo()):
        pytest.skip("no network is shipped")
    done = run("zoo")
    assert done.exit_code == 0
    assert "noisy_q" in done.output and "choice (an integer from 0 to 1)" in done.output


def test_mistakes_on_the_command_line_have_no_traceback(checkpoint, tmp_path):
    table = people()
    table["response"] = 2 * table["response"] - 1
    path = tmp_path / "trials.csv"
    table.to_csv(path, index=False)
    common = ["evidence", path, "--model", checkpoint, "--out", tmp_path / "out"]
    for more, said in (
        (["--map", MAP], "--recode choice:-1=0,1=1"),
        (["--map", "choice"], "expected NAME=VALUE"),
        (["--map", MAP, "--recode", "choice"], "expected NAME:OLD=NEW"),
        (["--map", MAP, "--scale", "reward=x"], "expected numbers"),
    ):
        done = run(*common, *more)
        assert done.exit_code == 1 and said in done.output and "Traceback" not in done.output
    assert not (tmp_path / "out").exists()
    done = run("evidence", tmp_path / "none.csv", "--model", checkpoint)
    assert done.exit_code == 1 and "no such file" in done.output
