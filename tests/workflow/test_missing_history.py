"""Lost and omitted answers of learners through checks, regressors, evidence, simulation and a whole fit."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="a network is trained in torch")
pytest.importorskip("numpyro", reason="a fit is NumPyro's")
pytest.importorskip("arviz", reason="a fit is summarised by ArviZ")
pytest.importorskip("pandas", reason="regressors are a table")

import ppl_buffer as pb
from ppl_buffer.datasets import TrialData
from ppl_buffer.diagnostics import check_data
from ppl_buffer.files import to_numpy
from ppl_buffer.inference.evidence import log_evidence
from ppl_buffer.inference.simulation import posterior_predictive
from ppl_buffer.inference.trialwise import trial_regressors

pytestmark = pytest.mark.filterwarnings("ignore::ppl_buffer.findings.FindingWarning")

TASK = pb.simulators.ForgettingQ()
SUBJECTS, TRIALS = 3, 23


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network that reads what is missing, hardly trained."""
    out = tmp_path_factory.mktemp("run")
    config = pb.Config(depth=0, likelihood_width=8, likelihood_missing=True)
    options = {"steps": 20, "trials": (5, 25), "workers": 0, "held_out": 16, "progress": False}
    pb.save(pb.train(TASK, config, out=out, **options), out / "reads.safetensors")
    return out


def with_gaps(share=0.3):
    rng = np.random.default_rng(2)
    data = TASK.simulate(rng, TASK.prior(rng, SUBJECTS), {}, TRIALS)
    lost = rng.random((SUBJECTS, TRIALS)) < share
    unseen = lost & (rng.random((SUBJECTS, TRIALS)) < 0.7)
    return np.where(unseen, np.nan, data["choice"]), np.where(lost, np.nan, data["reward"]), unseen


def test_checks_regressors_and_evidence_take_what_was_seen(folder):
    net = pb.load(folder / "reads.safetensors", backend="torch")
    assert "also after lost outcomes" in repr(net)
    choice, reward, unseen = with_gaps()
    seen = net.observe({}, choice, feedback={"reward": reward}, missing=pb.Missing())
    posterior = TASK.prior(np.random.default_rng(4), 11 * SUBJECTS)
    posterior = {name: x.reshape(11, SUBJECTS) for name, x in posterior.items()}
    check = check_data(net, seen, posterior, environment=TASK.environment, draws=11, progress=False)
    rows = {row["statistic"]: row for row in check.rows}
    # Generated trials have no gaps in their past: their log density is another thing.
    assert "log density" not in rows
    assert rows["share of choice = 1"]["observed"] == pytest.approx(np.nanmean(choice, 1).mean(), abs=1e-6)
    table = trial_regressors(net, seen, posterior, progress=False)
    assert len(table) == SUBJECTS * TRIALS and (np.isnan(table["choice"]).sum(), np.isnan(table["reward"]).sum()) == (
        unseen.sum(), np.isnan(reward).sum(),
    )  # fmt: skip
    given = {name: x[0] for name, x in posterior.items() if name != "beta"}
    one = log_evidence(net, seen, seen.value, params=given, draws=30, progress=False)
    other = log_evidence(
        net, {}, to_numpy(seen.value), params=given, feedback={"reward": reward}, missing=pb.Missing(), draws=30,
        progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(one.log_evidence, other.log_evidence)
    assert np.isfinite(one.log_evidence).all()
    made = posterior_predictive(net, seen, posterior, environment=TASK.environment, progress=False)
    assert np.isfinite(made.value).all() and np.isfinite(made.feedback["reward"]).all()


def test_simulated_learners_pass_over_what_came_too_late():
    task, rng = pb.simulators.RLDriftDiffusion(), np.random.default_rng(1)
    net = pb.load("rlddm", backend="torch")
    params, inputs = task.prior(rng, 2), task.inputs(rng, 2, 17)
    posterior = {name: np.broadcast_to(x, (9, 2)) for name, x in params.items()}
    data = task.simulate(rng, params, inputs)
    deadline = float(np.quantile(data["rt"], 0.8))
    late = data["rt"] > deadline
    value = np.stack([np.where(late, np.nan, data["choice"]), np.where(late, np.inf, data["rt"])], -1)
    reward = np.where(late, np.nan, data["reward"])
    seen = net.observe(inputs, value, feedback={"reward": reward}, missing=pb.Missing(deadline=deadline))
    made = posterior_predictive(net, seen, posterior, environment=task.environment, progress=False)
    omitted = np.isposinf(made.value[..., 1])
    assert omitted.any() and (made.value[..., 1][~omitted] <= deadline).all()
    np.testing.assert_array_equal(np.isnan(made.feedback["reward"]), omitted)
    assert np.isfinite(made.log_prob).all()
    check = check_data(net, seen, posterior, environment=task.environment, draws=9, progress=False)
    rows = {row["statistic"]: row for row in check.rows}
    assert rows["share of omissions"]["observed"] == pytest.approx(late.mean(), abs=1e-6) and "log density" in rows


@pytest.mark.slow
def test_a_fit_and_its_report_know_of_them(folder, tmp_path):
    from ppl_buffer.arviz import groups_of
    from ppl_buffer.workflow import fit
    from ppl_buffer.workflow.report import write_report

    choice, reward, unseen = with_gaps()
    exists = np.ones(choice.shape, bool)
    exists[1, -5:] = False
    trials = TrialData(
        subjects=np.array(["a", "b", "c"]), trial_counts=exists.sum(1), inputs={}, feedback={"reward": reward},
        outcomes={"choice": choice}, trial_mask=exists, missing=pb.Missing(),
    )  # fmt: skip
    net = pb.load(folder / "reads.safetensors", backend="jax")
    options = {"chains": 1, "warmup": 20, "draws": 30, "predictive_draws": 20, "environment": TASK.environment}
    result = fit(net, trials, progress=False, **options)
    groups = groups_of(result.posterior)
    assert np.isfinite(groups["log_likelihood"]["choice"].values).all()
    text = write_report(result, tmp_path, title="gaps").read_text()
    assert f"{unseen[exists].sum()} with an outcome that was lost" in text
