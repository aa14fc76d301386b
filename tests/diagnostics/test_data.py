"""Observed data against the fitted model: data of the model pass, others are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ppl_buffer import diagnostics
from ppl_buffer.findings import FindingWarning
from ppl_buffer.network.lapses import Lapse
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from tests.diagnostics.own import PRIORS, Own, telling

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_data_of_the_model_pass_and_others_are_named(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("pandas")
    net = telling("torch")
    rng = np.random.default_rng(2)
    people, trials = 13, 19
    mu = rng.uniform(-1, 1, people)
    value = Own(net, PRIORS).simulate(rng, {"mu": mu}, {}, trials=trials)["position"]
    mask = np.arange(trials) < rng.integers(11, trials + 1, people)[:, None]
    draws = {"mu": mu + 0.1 * rng.normal(size=(40, people))}

    def low(trials):
        below = np.where(np.isnan(trials["position"]), np.nan, trials["position"] < 0)
        return np.nanmean(below, -1)

    seen = net.observe({}, value.astype(np.float32), trial_mask=mask)
    right = diagnostics.check_data(net, seen, draws, statistics={"low": low}, progress=False)
    assert right.passed
    assert right.observed["low"].shape == right.replicated["low"].shape == (40, people)
    np.testing.assert_allclose(right.observed["low"][0], [np.mean(x[m] < 0) for x, m in zip(value, mask, strict=True)])
    # A p-value by hand, ties counted half.
    more, tied = (op(right.replicated["low"], right.observed["low"]) for op in (np.greater, np.equal))
    np.testing.assert_allclose(right.p_values("low"), (more + 0.5 * tied).mean(0))
    # The log density of each draw at the observed trials is the distribution's own.
    first = {"mu": np.asarray(draws["mu"][:1], np.float32)}
    expected = density.log_prob(Query.build(net, seen, params=first), seen.value)
    np.testing.assert_allclose(right.observed["log density"][:1], expected.numpy(), atol=1e-4)
    wrong = net.observe({}, np.clip(-value, -1.9, 2.9).astype(np.float32), trial_mask=mask)
    with pytest.warns(FindingWarning) as caught:
        check = diagnostics.check_data(net, wrong, draws, statistics={"low": low}, progress=False)
    assert any("'low' is" in str(one.message) and "extend the model" in str(one.message) for one in caught)
    assert not check.passed and not right.findings
    assert [warning.message.finding for warning in caught] == check.findings
    low_finding = next(finding for finding in check.findings if finding.parameter == "low")
    assert low_finding.kind == "data" and 0 < low_finding.share <= 1
    assert list(check.table.columns[-3:]) == ["subjects", "subjects_extreme", "passed"]
    check.plot().savefig(tmp_path / "data.png")


def test_a_data_check_wants_every_parameter_of_everybody() -> None:
    pytest.importorskip("torch")
    net = telling("torch")
    seen = net.observe({}, np.zeros((3, 5), np.float32))
    with pytest.raises(ValueError, match=r"posterior: expected shapes \(4, 3\), draws and subjects"):
        diagnostics.check_data(net, seen, {"mu": np.zeros((4, 2))}, progress=False)
    with pytest.raises(ValueError, match="data: expected what net.observe"):
        diagnostics.check_data(net, {}, {"mu": np.zeros((4, 3))}, progress=False)


@pytest.mark.filterwarnings("ignore::ppl_buffer.findings.FindingWarning")
def test_lapses_that_were_fitted_are_in_the_data_and_in_what_is_generated() -> None:
    pytest.importorskip("torch")
    net, rng = telling("torch"), np.random.default_rng(3)
    draws = {"mu": rng.uniform(-1, 1, (40, 3))}
    # A rate for each draw and subject: none, some, all.
    rate = np.linspace(0, 1, 40)[:, None] * np.array([0.0, 0.5, 1.0])
    lapse = Lapse(rate, {"position": (-1.0, 0.5)})
    seen = net.observe({}, rng.uniform(-0.9, 0.4, (3, 7)).astype(np.float32))
    check = diagnostics.check_data(net, seen, draws, lapse=lapse, draws=5, progress=False)
    few = np.linspace(0, 39, 5).astype(int)
    query = Query.build(net, seen, params={"mu": draws["mu"][few].astype(np.float32)}, lapse=lapse.at(rate[few]))
    expected = density.log_prob(query, seen.value)
    np.testing.assert_allclose(check.observed["log density"], expected, rtol=1e-5)
    for found in (check.observed, check.replicated):
        np.testing.assert_allclose(found["log density"][-1, 2], -7 * np.log(1.5), rtol=1e-5)
    assert -1 <= check.replicated["mean of position"][-1, 2] <= 0.5
    known = diagnostics.check_data(net, seen, draws, lapse=1.0, draws=5, progress=False)
    np.testing.assert_allclose(known.replicated["log density"], -7 * np.log(5), rtol=1e-5)
