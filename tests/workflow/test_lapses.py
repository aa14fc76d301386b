"""Lapses in a fit: what bounds a non-decision time, a rate that is estimated, and what one stray response may move."""

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("pandas")
pytest.importorskip("numpyro")

import ppl_buffer as pb
from ppl_buffer.datasets import TrialData
from ppl_buffer.diagnostics import check_data
from ppl_buffer.inference.importance import fit_proposal, normalize
from ppl_buffer.inference.normal_scores import NormalScores
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from tests.networks import DECISION, REPORT, Record, array, joint_predictive, network
from tests.networks import data as draw_data

pytestmark = pytest.mark.usefixtures("quick_compilation")

PRIORS = {
    "drift": pb.Prior.uniform(-1.0, 1.0),
    "delay": pb.Prior.uniform(0.1, 2.0),
    "bound": pb.Prior.uniform(1.0, 2.0),
}
RECORD = Record(box={name: prior.range() for name, prior in PRIORS.items()}, priors=PRIORS, trials=300, context=0,
                simulator="none")  # fmt: skip


def decisions(rt, exists=None):
    """Trials of people who took so long."""
    shape, subjects = rt.shape, np.array([f"s{row}" for row in range(len(rt))])
    exists = np.ones(shape, bool) if exists is None else exists
    return TrialData(
        subjects, exists.sum(1), {"coherence": np.zeros(shape)}, {"choice": np.zeros(shape), "rt": rt}, {}, exists
    )


def test_what_may_be_a_lapse_bounds_no_non_decision_time():
    from ppl_buffer.workflow.hierarchical import Box

    rng = np.random.default_rng(0)
    rt = 0.4 + rng.lognormal(-1.0, 0.5, (3, 200))
    rt[:, 5] = [0.12, 0.2, 0.3]
    exists = np.ones(rt.shape, bool)
    exists[2, 5] = False
    net, trials = network(DECISION, "jax", RECORD), decisions(rt, exists)
    plain = Box.of(net, trials).ceilings["delay"]
    np.testing.assert_allclose(plain, [0.12, 0.2, rt[2, exists[2]].min()], rtol=1e-6)
    allowing = Box.of(net, trials, pb.Lapse(0.02)).ceilings["delay"]
    # Of so many trials, no more are lapses than this, but for one person in ten thousand.
    for row, theirs in enumerate(np.where(exists, rt, np.nan)):
        theirs = np.sort(theirs[~np.isnan(theirs)])
        most = next(k for k in range(200) if stats.binom.sf(k, len(theirs), 0.02) <= 1e-4)
        assert 8 < most < 16
        np.testing.assert_allclose(allowing[row], theirs[most], rtol=1e-6)
    # A range that the stray response is not in: it is a decision.
    bounded = Box.of(net, trials, pb.Lapse(0.02, {"rt": (0.15, 5.0)})).ceilings["delay"]
    np.testing.assert_allclose(bounded, [0.12, *allowing[1:]], rtol=1e-6)
    # A rate for each, and one that has to be found out.
    each = Box.of(net, trials, pb.Lapse(np.array([0.0, 0.02, 1.0]))).ceilings["delay"]
    np.testing.assert_allclose(each, [0.12, allowing[1], 2.0], rtol=1e-6)
    unknown = Box.of(net, trials, pb.Lapse()).ceilings["delay"]
    assert (unknown > allowing).all() and (unknown < np.quantile(rt, 0.6, 1)).all()
    with pytest.raises(ValueError, match="too fast to be decisions, or allow for lapses"):
        Box.of(net, decisions(np.array([[0.05, 1.0, 1.2]])))


def test_the_range_of_lapses_is_that_of_the_data():
    value = np.array([[0.3, 0.9, 9.9], [0.4, 2.5, 0.8]])
    mask = np.array([[True, True, False], [True, True, True]])
    lapse = pb.Lapse(0.02).of_data(DECISION.schema, {"rt": value}, mask)
    assert lapse.ranges == {"rt": (0.0, 2.5)} and lapse.rate == 0.02
    stated = pb.Lapse(0.02, {"rt": (0.1, 3.0)})
    assert stated.of_data(DECISION.schema, {"rt": value}, mask).ranges == stated.ranges
    schema = pb.Schema(outcomes={"y": pb.Real(), "place": pb.Interval(-2, 3), "choice": pb.Categorical(2)})
    outcomes = {"y": value - 1, "place": value / 10, "choice": value > 1}
    assert pb.Lapse().of_data(schema, outcomes).ranges == {"y": (-0.7, 8.9), "place": (-2.0, 3.0)}


def test_outcomes_beyond_a_stated_range_are_told():
    value = np.array([[0.3, 0.9, 9.9], [0.4, 2.5, 0.08]])
    mask = np.array([[True, True, False], [True, True, True]])
    assert (
        pb.Lapse(0.02).of_data(DECISION.schema, {"rt": value}, mask).findings(DECISION.schema, {"rt": value}, mask)
        == []
    )
    (finding,) = pb.Lapse(0.02, {"rt": (0.1, 2.0)}).findings(DECISION.schema, {"rt": value}, mask)
    assert finding.share == 0.4 and "2 of 5 values of 'rt' lie outside [0.1, 2]" in finding.text


@pytest.mark.parametrize("hierarchical", [False, True])
def test_a_rate_with_a_prior_is_a_site_of_the_model(hierarchical):
    from numpyro import handlers
    from numpyro.infer.util import log_density

    from ppl_buffer.workflow.hierarchical import SPREAD_MEDIAN, SPREAD_SCALE, Box, model

    record = Record(box={"mu": (-3.0, 3.0)}, priors={"mu": pb.Prior.uniform(-3.0, 3.0)}, trials=11, context=0,
                    simulator="none")  # fmt: skip
    net, given = network(REPORT, "jax", record), draw_data(REPORT, batch=2, trials=3)
    data = net.observe(array("jax", given.inputs), array("jax", given.value))
    prior = pb.Prior("Beta", {"concentration1": 1.5, "concentration0": 12.0})
    scores = {"mu_offset": np.array([0.2, -1.0]), "lapse_offset": np.array([-0.7, 1.4])}
    if hierarchical:
        scores |= {"mu_mean": 0.1, "mu_spread": 0.8, "lapse_mean": -0.3, "lapse_spread": 0.6}
    arguments = (net, data, Box.of(net), hierarchical, pb.Lapse(prior))
    found, _ = log_density(model, arguments, {}, scores)
    sites = handlers.trace(handlers.substitute(model, scores)).get_trace(*arguments)
    score = {"lapse": scores["lapse_offset"], "mu": 1.5 * scores["mu_offset"]}
    expected = sum(stats.norm.logpdf(scores[f"{name}_offset"]).sum() for name in score)
    if hierarchical:
        for name, scale in (("mu", 1.5), ("lapse", 1.0)):
            mean, spread = scores[f"{name}_mean"], scores[f"{name}_spread"]
            score[name] = mean + spread * scores[f"{name}_offset"]
            expected += stats.norm(0, scale).logpdf(mean) + stats.lognorm(SPREAD_SCALE, 0, SPREAD_MEDIAN).logpdf(spread)
        median = prior.quantile(stats.norm.cdf(-0.3))
        np.testing.assert_allclose(sites["lapse_group"]["value"], median, rtol=1e-4)
    rate = prior.quantile(stats.norm.cdf(score["lapse"]))
    np.testing.assert_allclose(sites["lapse"]["value"], rate, rtol=1e-4)
    mu = np.asarray(sites["mu"]["value"])
    joint = joint_predictive(REPORT, "jax", given.inputs, net=net, params={"mu": mu}, lapse=rate.astype(np.float32))
    expected += float(joint.log_prob(array("jax", given.value)).sum())
    assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "lapse", [0.02, pb.Lapse(0.02, {"rt": (0.0, 2.5)}), pb.Lapse()], ids=["wide", "narrow", "prior"]
)
def test_one_stray_response_among_200_moves_no_estimate(lapse):
    """Posterior means by importance weights, with the stray response and without: once they were 1.8, 2.4 and 0.08."""
    torch = pytest.importorskip("torch")
    simulator, rng = pb.simulators.DriftDiffusion(), np.random.default_rng(2)
    truth = {"drift": 1.0, "boundary": 1.5, "non_decision_time": 0.3, "starting_point": 0.5, "drift_variability": 0.0}
    data = simulator.simulate(rng, {name: np.array([x]) for name, x in truth.items()}, {}, trials=200)
    stray = np.where(np.arange(200) == 17, 0.08, data["rt"])
    value = np.concatenate([np.stack([data["choice"], rt], -1) for rt in (data["rt"], stray)]).astype(np.float32)
    assert np.sort(stray[0])[1] > 0.3 and value[..., 1].max() < 2.5
    net = pb.load("ddm", backend="torch")
    observed = net.observe({}, value)
    names = ["drift", "boundary", "non_decision_time"]
    known = {name: np.full(2, truth[name], np.float32) for name in truth if name not in names}
    priors = {name: net.record.priors[name] for name in names}
    lapse = pb.Lapse.of(lapse)
    if lapse.prior is not None:
        priors["rate"] = lapse.prior
    scale = NormalScores(priors)

    def log_likelihood(scores):
        params = scale.params(scores, (2,))
        there = lapse.at(params.pop("rate")) if "rate" in params else lapse
        query = Query.build(net, observed, params={**known, **params}, lapse=there, outside="ignore", check=False)
        with torch.no_grad():
            return np.asarray(density.log_prob(query, observed.value), float)

    proposal = fit_proposal(log_likelihood, 2, len(priors), np.random.default_rng(0))
    weights = normalize(log_likelihood(proposal.points) + proposal.log_ratio)
    assert (1 / (weights**2).sum(0) > 100).all()
    params = scale.params(proposal.points, (2,))
    means = {name: (weights * x).sum(0) for name, x in params.items()}
    spreads = {name: np.sqrt((weights * (x - means[name]) ** 2).sum(0)) for name, x in params.items()}
    for name in names:
        assert abs(means[name][1] - means[name][0]) < 0.4 * spreads[name][0], name
        assert abs(means[name][1] - truth[name]) < 3 * spreads[name][1], name
    if lapse.prior is not None:
        assert means["rate"][0] < means["rate"][1] < 0.03


@pytest.mark.filterwarnings("ignore::ppl_buffer.findings.FindingWarning")
def test_data_with_lapses_pass_the_predictive_check_where_lapses_are_what_they_were():
    """Over the schema's 20 s, lapses at 2 % alone would lift the mean response time by 0.2 s: no data looked so."""
    pytest.importorskip("torch")
    simulator, rng = pb.simulators.DriftDiffusion(), np.random.default_rng(4)
    truth = {"drift": 1.0, "boundary": 1.5, "non_decision_time": 0.3, "starting_point": 0.5, "drift_variability": 0.0}
    params = {name: np.full(4, x) for name, x in truth.items()}
    data = simulator.simulate(rng, params, {}, trials=200)
    lapsed = rng.random((4, 200)) < 0.02
    choice = np.where(lapsed, rng.integers(0, 2, (4, 200)), data["choice"])
    rt = np.where(lapsed, rng.uniform(0, 2.5, (4, 200)), data["rt"])
    assert rt[lapsed].min() < 0.3
    net = pb.load("ddm", backend="torch")
    observed = net.observe({}, np.stack([choice, rt], -1).astype(np.float32))
    draws = {name: np.broadcast_to(x, (40, 4)) for name, x in params.items()}
    found = {}
    for lapse in (pb.Lapse(0.02).of_data(net.schema, {"rt": rt}), pb.Lapse(0.02)):
        check = check_data(net, observed, draws, lapse=lapse, draws=40, progress=False)
        rows = {row["statistic"]: row for row in check.rows}
        found[bool(lapse.ranges)] = [rows[f"{what} of rt"] for what in ("mean", "standard deviation")]
    assert all(row["passed"] for row in found[True]) and not any(row["passed"] for row in found[False])
    assert found[False][0]["generated"] > found[False][0]["observed"] + 0.1
