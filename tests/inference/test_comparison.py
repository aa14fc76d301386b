"""Comparison of models by their evidence: Bayes' rule, and what is said where the two estimators disagree."""

from dataclasses import replace

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer.inference.evidence import Evidence
from tests.inference.test_evidence import REPORT_RECORD
from tests.networks import LEARNING, REPORT, Case, data, network

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_comparison_is_bayes_rule(monkeypatch):
    known = {"a": np.array([-10.0, -20.0]), "b": np.array([-12.0, -19.0]), "c": np.array([-10.5, -30.0])}

    def stub(net, inputs, value, method, **arguments):
        assert arguments == {"orders": 7}
        return Evidence(known[net], np.full(2, 0.1), known[net][None], method)

    monkeypatch.setattr("ppl_buffer.inference.comparison.log_evidence", stub)
    weights = {"a": 0.2, "b": 0.3, "c": 0.5}
    table = pb.compare(
        {name: name for name in known}, {}, None, method="autoregressive", prior_probabilities=weights, orders=7
    )
    for index in range(2):
        rows = table[table["data_set"] == index].set_index("model")
        joint = {name: weights[name] * np.exp(known[name][index]) for name in known}
        for name in known:
            np.testing.assert_allclose(rows.loc[name, "probability"], joint[name] / sum(joint.values()), rtol=1e-9)
            factor = known[name][index] - max(x[index] for x in known.values())
            np.testing.assert_allclose(rows.loc[name, "log_bayes_factor"], factor)


def test_comparison_says_where_the_estimators_disagree(monkeypatch):
    gap = {"near": 3.2, "far": -9.0}

    def stub(net, inputs, value, method):
        estimate = np.array([-50.0 + gap[net] * (method == "autoregressive")])
        return Evidence(estimate, np.array([0.2]), estimate[None], method)

    monkeypatch.setattr("ppl_buffer.inference.comparison.log_evidence", stub)
    with pytest.warns(UserWarning, match=r"1 of 2 pairs.*'far', by -9.0 nats"):
        table = pb.compare({name: name for name in gap}, {}, None).set_index("model")
    np.testing.assert_allclose(table["disagreement"], [3.2, -9.0])
    assert table["outside"].tolist() == [False, True]
    # It decides by importance sampling, where both are equal.
    np.testing.assert_allclose(table["probability"], 0.5)


def test_data_that_no_model_generates_cannot_be_compared(monkeypatch):
    def stub(net, inputs, value, method):
        return Evidence(np.array([-1.0, -np.inf]), np.zeros(2), np.zeros((1, 2)), method)

    monkeypatch.setattr("ppl_buffer.inference.comparison.log_evidence", stub)
    with pytest.raises(ValueError, match="some model can generate, but data set 1 has evidence 0 in all"):
        pb.compare({"a": 1, "b": 2}, {}, None, method="importance")


def test_lapses_are_of_one_kind_under_all_models():
    net, given = network(REPORT, "torch", REPORT_RECORD), data(REPORT, batch=2, trials=7)
    table = pb.compare({"a": net, "b": net}, given.inputs, given.value, lapse=0.3, draws=200, progress=False)
    assert "disagreement" not in table
    alone = pb.log_evidence(net, given.inputs, given.value, lapse=0.3, draws=200, progress=False)
    np.testing.assert_allclose(table["log_evidence"][:2], alone.log_evidence)
    np.testing.assert_allclose(table["probability"], 0.5)
    # A range of 10 s for one model and of 20 for the other would decide between them.
    wide = replace(LEARNING.schema, outcomes={**LEARNING.schema.outcomes, "rt": pb.Positive(lapse_range=(0, 20))})
    nets = {"a": network(LEARNING, "torch"), "b": network(Case("wide", wide, config=LEARNING.config), "torch")}
    given = data(LEARNING, batch=2, trials=3)
    with pytest.raises(ValueError, match="lapse: expected one range for all models"):
        pb.compare(nets, given.inputs, given.value, feedback=given.feedback, lapse=0.3)


@pytest.mark.parametrize(
    ("nets", "arguments", "message"),
    [
        ({"a": 1}, {}, "nets: expected a dict of at least two networks"),
        ({"a": 1, "b": 2}, {"prior_probabilities": {"a": 1.0}}, r"prior_probabilities: expected one for each of"),
        ({"a": 1, "b": 2}, {"prior_probabilities": {"a": -1, "b": 2}}, "prior_probabilities: expected numbers of at"),
    ],
)
def test_bad_comparisons_are_refused(nets, arguments, message):
    with pytest.raises(ValueError, match=message):
        pb.compare(nets, {}, None, **arguments)


@pytest.mark.parametrize("method", ["autoregressive", "importance"])
def test_what_one_network_observed_is_compared_by_all(method):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    given = data(REPORT, batch=2, trials=5)
    mask = np.arange(5) < np.array([[5], [3]])
    nets = {backend: network(REPORT, backend, REPORT_RECORD) for backend in ("torch", "jax")}
    observed = nets["jax"].observe(given.inputs, given.value, trial_mask=mask)
    options = {"method": method, "draws": 300, "orders": 7, "progress": False}
    found = pb.compare(nets, observed, observed.value, **options)
    expected = pb.compare(nets, given.inputs, given.value, trial_mask=mask, **options)
    np.testing.assert_allclose(found["log_evidence"], expected["log_evidence"], rtol=1e-6)
    with pytest.raises(ValueError, match="trial_mask: expected none beside observed data"):
        pb.compare(nets, observed, observed.value, trial_mask=mask, **options)
