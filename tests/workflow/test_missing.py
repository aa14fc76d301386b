"""Missing answers through checks, evidence and a whole fit of `ddm`."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch", reason="a fit is NumPyro's, and a check torch's")
pytest.importorskip("numpyro", reason="a fit is NumPyro's, and a check torch's")
pytest.importorskip("arviz", reason="a fit is NumPyro's, and a check torch's")
pytest.importorskip("pandas", reason="a fit is NumPyro's, and a check torch's")

import ppl_buffer as pb
from ppl_buffer.datasets import TrialData
from ppl_buffer.diagnostics import check_data
from ppl_buffer.files import to_numpy
from ppl_buffer.inference.evidence import log_evidence
from ppl_buffer.inference.simulation import posterior_predictive
from ppl_buffer.network.lapses import Lapse
from ppl_buffer.schema import stack_value

SUBJECTS, TRIALS, DEADLINE = 3, 70, 1.1
TRUTH = {
    "drift": [1.2, 0.6, 1.7], "boundary": [1.3, 1.5, 1.1], "starting_point": [0.5, 0.55, 0.45],
    "non_decision_time": [0.3, 0.25, 0.35], "drift_variability": [0.3, 0.4, 0.5],
}  # fmt: skip
PARAMS = {name: np.array(x) for name, x in TRUTH.items()}


def trials(seed=3, lost=4):
    """Simulated people with a deadline; of each the first few trials have lost their time, then their choice."""
    data = pb.simulators.DriftDiffusion().simulate(np.random.default_rng(seed), PARAMS, {}, trials=TRIALS)
    choice, rt = data["choice"].astype(float), data["rt"]
    choice[rt > DEADLINE], rt[rt > DEADLINE] = np.nan, np.inf
    seen = np.isfinite(rt) & (np.cumsum(np.isfinite(rt), 1) <= lost)
    rt[seen & (np.arange(TRIALS) % 2 == 0)] = np.nan
    choice[seen & (np.arange(TRIALS) % 2 == 1)] = np.nan
    exists = np.ones((SUBJECTS, TRIALS), dtype=bool)
    exists[1, -9:] = False
    return TrialData(
        subjects=np.array(["a", "b", "c"]), trial_counts=exists.sum(1), inputs={}, feedback={},
        outcomes={"choice": choice, "rt": rt}, trial_mask=exists, missing=pb.Missing(deadline=DEADLINE),
    )  # fmt: skip


def observed(net, data):
    value = stack_value(np, net.schema, data.outcomes).astype(np.float32)
    return net.observe({}, value, trial_mask=data.trial_mask, missing=data.missing)


@pytest.mark.filterwarnings("ignore::ppl_buffer.findings.FindingWarning")
def test_checks_compare_like_with_like():
    net = pb.load("ddm", backend="torch")
    data = trials()
    posterior = {name: np.broadcast_to(x, (40, SUBJECTS)) for name, x in PARAMS.items()}
    check = check_data(net, observed(net, data), posterior, draws=40, progress=False)
    rows = {row["statistic"]: row for row in check.rows}
    share = np.isposinf(data.outcomes["rt"])[data.trial_mask].mean()
    assert 0.05 < share < 0.5 and abs(rows["share of omissions"]["observed"] - share) < 0.02
    assert all(rows[name]["passed"] for name in ("share of omissions", "log density", "mean of rt"))
    # Somebody who omits every other response does not behave so.
    late = np.arange(TRIALS) % 2 == 0
    outcomes = {
        "choice": np.where(late, np.nan, data.outcomes["choice"]),
        "rt": np.where(late, np.inf, data.outcomes["rt"]),
    }
    with pytest.warns(UserWarning, match="'share of omissions' is"):
        check_data(
            net, observed(net, dataclasses.replace(data, outcomes=outcomes)), posterior, draws=40, progress=False
        )


@pytest.mark.filterwarnings("ignore::ppl_buffer.findings.FindingWarning")
def test_simulated_data_have_the_deadline_and_evidence_takes_what_was_seen():
    net, data = pb.load("ddm", backend="torch"), trials()
    seen = observed(net, data)
    draws = {name: np.broadcast_to(x, (11, SUBJECTS)) for name, x in PARAMS.items()}
    simulated = posterior_predictive(net, seen, draws, progress=False)
    again = posterior_predictive(
        net, {}, draws, trials=TRIALS, trial_mask=data.trial_mask, missing=data.missing, progress=False
    )
    np.testing.assert_array_equal(simulated.value, again.value)
    rt = simulated.value[..., 1]
    assert np.isposinf(rt).any() and (rt[np.isfinite(rt)] <= DEADLINE).all() and np.isnan(rt[:, 1, -9:]).all()
    assert np.isfinite(simulated.log_prob[:, data.trial_mask]).all()
    given = {name: PARAMS[name] for name in list(PARAMS)[1:]}
    one = log_evidence(net, seen, seen.value, params=given, draws=60, progress=False)
    value = to_numpy(seen.value)
    other = log_evidence(
        net, {}, value, params=given, draws=60, progress=False, trial_mask=data.trial_mask, missing=data.missing
    )
    np.testing.assert_allclose(one.log_evidence, other.log_evidence)
    with pytest.raises(ValueError, match="missing: expected a likelihood"):
        log_evidence(net, seen, seen.value, params=given, method="autoregressive", orders=2, progress=False)


def test_ranges_of_lapses_and_ceilings_are_those_of_times_that_are_known():
    from ppl_buffer.workflow.hierarchical import Box

    net, data = pb.load("ddm", backend="jax"), trials()
    rt = np.where(data.trial_mask & np.isfinite(data.outcomes["rt"]), data.outcomes["rt"], np.nan)
    lapse = Lapse(0.02).of_data(net.schema, data.outcomes, data.trial_mask)
    assert lapse.ranges["rt"] == (0.0, np.nanmax(rt))
    assert not lapse.findings(net.schema, data.outcomes, data.trial_mask)
    np.testing.assert_allclose(Box.of(net, data).ceilings["non_decision_time"], np.nanmin(rt, 1), rtol=1e-6)
    assert data.select(np.array([2])).missing.deadline.shape == (1, TRIALS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_fit_and_its_report_know_of_them(tmp_path):

    from ppl_buffer.arviz import groups_of
    from ppl_buffer.workflow import fit
    from ppl_buffer.workflow.report import write_report

    data = trials()
    result = fit(
        pb.load("ddm", backend="jax"), data, lapse=0.02, chains=1, warmup=30, draws=40, predictive_draws=20,
        progress=False,
    )  # fmt: skip
    groups = groups_of(result.posterior)
    assert np.isfinite(groups["log_likelihood"]["trials"].values).all()
    assert np.isposinf(groups["posterior_predictive"]["rt"].values).any()
    assert np.isposinf(groups["observed_data"]["rt"].values).any()
    assert "share of omissions" in {row["statistic"] for row in result.check.rows}
    text = write_report(result, tmp_path, title="omissions").read_text()
    omitted = np.isposinf(data.outcomes["rt"])[data.trial_mask].sum()
    assert f"{omitted} without a response before the deadline, {4 * SUBJECTS} with an outcome that was lost" in text
