"""The commands `fit` and `demo` on a tiny network."""

import base64
import dataclasses
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("typer")
pandas = pytest.importorskip("pandas")

from ppl_buffer.datasets import read_trials, simulated_selection_task  # noqa: E402
from ppl_buffer.workflow.cli import demo  # noqa: E402
from ppl_buffer.workflow.cli.fit import command_again  # noqa: E402
from tests.datasets.tables import COUNTS, NOISY_Q, TASK, table_of_trials  # noqa: E402
from tests.workflow.commands import COLUMNS, run  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_fit_writes_everything_and_answers_four_questions(checkpoint, tmp_path):
    for module in ("numpyro", "arviz", "matplotlib"):
        pytest.importorskip(module)
    table, out = tmp_path / "trials.csv", tmp_path / "fit"
    table_of_trials().to_csv(table, index=False)
    with warnings.catch_warnings():
        # Draws this few leave other packages with nothing good to say.
        warnings.simplefilter("ignore")
        done = run("fit", table, "--model", checkpoint, "--columns", COLUMNS, "--out", out, "--chains", 1,
                   "--warmup", 4, "--draws", 5, "--predictive-draws", 5, "--tree-depth", 1,
                   "--lapse", "estimate", "--no-progress")  # fmt: skip
    assert done.exit_code == 0, done.output
    # The terminal says what the report says.
    assert "Did it converge? no" in done.output and "do not read the posterior" in done.output
    assert "Can I trust it? no" in done.output and "- The sampler has not converged" in done.output
    report = (out / "report.html").read_text()
    for question in ("Did it converge?", "Does the model fit?", "How do people differ?", "Can I trust it?"):
        assert report.count(question) == 2
    # Nothing is fetched from anywhere, and the figures are inside.
    assert not re.search(r'(src|href)="(?!data:|#)', report)
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', report)
    assert len(images) >= 4 and all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert {path.name for path in out.glob("*.png")} == {
        "traces.png", "people.png", "learning_curves.png", "repetition.png", "misfits.png", "pairs.png"
    }  # fmt: skip
    # Five draws of one chain have not converged, and the report says so.
    assert "The chain has hardly moved" in report and "one cannot tell whether it has settled" in report
    assert "s1" in report and (out / "draws.safetensors").exists()
    summary = pandas.read_csv(out / "summary.csv", index_col="quantity")
    assert {"alpha_group", "beta_spread", "alpha[s0]", "zeta[s2]", "lapse_group", "lapse[s1]"} <= set(summary.index)
    assert f"{summary.loc[['lapse[s0]', 'lapse[s1]', 'lapse[s2]'], 'mean'].mean():.1%} lapses (estimated)" in report
    assert "--lapse estimate" in report and "log density" in report
    assert ">each trial</td>" in report and ">each person</td>" in report and "lapse, rate" in report
    trials = pandas.read_csv(out / "regressors.csv")
    assert trials.groupby("subject").size().tolist() == list(COUNTS)
    np.testing.assert_allclose(trials["p_choice_0"] + trials["p_choice_1"], 1.0, rtol=1e-5)
    own = trials["p_choice_1"].where(trials["choice"] == 1, trials["p_choice_0"])
    np.testing.assert_allclose(trials["surprise"], -np.log2(own), atol=1e-4)
    from ppl_buffer.arviz import import_arviz

    posterior = import_arviz().from_netcdf(str(out / "posterior.nc"))
    assert posterior.log_likelihood["choice"].shape == (1, 5, sum(COUNTS))
    alpha = posterior.posterior["alpha"]
    assert alpha.dims == ("chain", "draw", "subject") and list(alpha.subject.values) == ["s0", "s1", "s2"]
    assert float(alpha.min()) > 0 and float(alpha.max()) < 1
    assert summary.loc["alpha[s0]", "mean"] == pytest.approx(float(alpha.sel(subject="s0").mean()))


@pytest.mark.slow
def test_people_are_fitted_one_by_one_where_asked(checkpoint, tmp_path):
    for module in ("numpyro", "arviz", "matplotlib"):
        pytest.importorskip(module)
    table, out = table_of_trials(), tmp_path / "fit"
    table["day"] = np.where(table.groupby("subject").cumcount() < 9, "first", "second")
    table.to_csv(tmp_path / "trials.csv", index=False)
    short = ("--chains", 1, "--warmup", 3, "--draws", 5, "--predictive-draws", 5, "--tree-depth", 1, "--no-progress")
    common = ("fit", tmp_path / "trials.csv", "--model", checkpoint, "--columns", COLUMNS, "--session", "day",
              "--no-hierarchical", "--out", out, *short)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = run(*common)
    assert done.exit_code == 0, done.output
    report = (out / "report.html").read_text()
    assert "each person alone" in report and "--no-hierarchical" in report and ">each person</td>" not in report
    summary = pandas.read_csv(out / "summary.csv", index_col="quantity")
    # Each data set has parameters of its own, and there is no population.
    assert {"alpha[s0/first]", "zeta[s2/second]"} <= set(summary.index)
    assert not any(name.endswith(("_group", "_spread", "_mean")) for name in summary.index)
    done = run(*common, "--formula", "alpha ~ 1")
    assert done.exit_code == 1 and "hierarchical: expected True with formulas" in done.output


def test_a_posterior_that_cannot_be_written_is_said_and_its_draws_are_kept(tmp_path):
    xarray, arviz = pytest.importorskip("xarray"), pytest.importorskip("arviz")
    from ppl_buffer.arviz import container
    from ppl_buffer.workflow.cli.fit import write_posterior

    values = {"alpha": (("chain", "draw", "subject"), np.zeros((1, 3, 2)))}
    for labels, fine in ((["a", "b"], True), (["a\x00b", "b"], False)):
        posterior = container({"posterior": xarray.Dataset(values, coords={"subject": labels})})
        path = tmp_path / f"{fine}.nc"
        if fine:
            write_posterior(SimpleNamespace(posterior=posterior), path)
            assert arviz.from_netcdf(str(path)).posterior["alpha"].shape == (1, 3, 2)
        else:
            with pytest.raises(ValueError, match=r"NULL.*draws.safetensors beside it holds the draws"):
                write_posterior(SimpleNamespace(posterior=posterior), path)


def test_the_demo_fits_those_with_the_fewest_trials_of_a_table_it_writes(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(demo, "fit", lambda table, model, **options: asked.update(options, table=table, model=model))
    out = tmp_path / "demo"
    done = run("demo", "--simulated", "--subjects", 17, "--out", out, "--draws", 7, "--no-progress")
    assert done.exit_code == 0 and "17 of 28 people" in done.output and "Simulated" in done.output
    assert asked.pop("model") == "noisy_q" and asked.pop("out") == out and not asked.pop("progress")
    everybody = simulated_selection_task(2)
    everybody = dataclasses.replace(everybody, subjects=everybody.subjects.astype(str))
    few = everybody.trial_counts <= np.sort(everybody.trial_counts)[16]
    again = read_trials(asked.pop("table"), NOISY_Q, simulator=TASK)
    assert asked == {"warmup": 200, "draws": 7, "predictive_draws": 150, "seed": 0}
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


def test_a_report_says_how_to_do_it_again():
    options = {"model": "noisy_q", "recode": ["choice:a=0", "pair:x y=1"], "scale": None, "predictive_draws": 5}
    assert command_again(Path("my table.csv"), options, hierarchical=False) == (
        "ppl-buffer fit 'my table.csv' --model noisy_q --recode choice:a=0 --recode 'pair:x y=1' --predictive-draws 5 "
        "--no-hierarchical"
    )


def test_the_command_line_starts_without_jax_and_torch():
    code = "import sys, ppl_buffer.workflow.cli.app; print(*{'jax', 'torch', 'numpyro', 'pyro'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_fit_is_the_function_however_it_is_imported():
    pytest.importorskip("numpyro")
    import ppl_buffer.workflow as workflow
    from ppl_buffer.workflow.fitting import Fit, fit

    assert workflow.fit is fit and workflow.Fit is Fit and "write_report" in dir(workflow)
    with pytest.raises(AttributeError, match="no attribute 'fits'"):
        _ = workflow.fits
