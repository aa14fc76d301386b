"""The two parts of a network: which one computes, and what is left where one of them is missing."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyro", reason="distributions are asked")
pytest.importorskip("jax")
pytest.importorskip("numpyro", reason="distributions of both languages are asked")

import ppl_buffer as pb
from ppl_buffer import scores
from ppl_buffer.network.checkpoint import shipped
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.prior import Prior
from ppl_buffer.schema import stack_value
from ppl_buffer.simulator import simulate_keywords
from ppl_buffer.workflow.cli.simulators import simulator_of
from tests.diagnostics.own import Own
from tests.networks import (
    DIRECT_SIZES,
    DISCRIMINATION,
    FUNCTION,
    LEARNING,
    RESPONDING,
    Case,
    Record,
    array,
    data,
    joint_predictive,
    network,
    reward,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

# The direct likelihood and nothing else.
SIZES = replace(DIRECT_SIZES, depth=0)
IN_ORDER = Case("in order", RESPONDING.schema, reward, SIZES)
INDEPENDENT = Case("independent", DISCRIMINATION.schema, config=SIZES)
PRIORS = {
    "alpha": Prior.uniform(0.2, 0.8),
    "delay": Prior.uniform(0.05, 0.3),
    "beta": Prior("Normal", {"loc": 0.0, "scale": 1.0}),
}
RECORD = Record(
    box={"alpha": (0.2, 0.8), "delay": (0.05, 0.3), "beta": (-3.0, 3.0)}, priors=PRIORS, trials=11, context=0,
    simulator="own",
)  # fmt: skip
QUIET = {"progress": False}


def alone(backend="torch", case=IN_ORDER):
    return network(case, backend, RECORD if case is IN_ORDER else None)


def evidence(**more):
    given = data(IN_ORDER)
    return pb.log_evidence(alone(), given.inputs, given.value, feedback=given.feedback, draws=100, **QUIET, **more)


def hidden(**more):
    given = data(IN_ORDER)
    params = {"beta": given.params["beta"]}
    return joint_predictive(IN_ORDER, "torch", given.inputs, params=params, feedback=given.feedback, **more)


def simulated(params):
    return pb.posterior_predictive(alone(), data(IN_ORDER).inputs, params, environment=reward, **QUIET)


def estimator(params):
    sbi = pytest.importorskip("ppl_buffer.sbi")
    made = sbi.LikelihoodEstimator(alone(), 7, params=params)
    given = data(IN_ORDER)
    packed = made.pack({**given.inputs, "choice": given.value[..., 0], "rt": given.value[..., 1], **given.feedback})
    theta = np.stack([given.params[name] for name in made.params], -1)
    return made.log_prob(packed, array("torch", theta)), given


# What needs the transformer, and what it says in place of it.
ONLY = "since this network has a direct likelihood alone; train its buffered transformer as well"
NEEDS_THE_BUFFER = {
    "hidden parameters": (hidden, rf"params: expected all of \['alpha', 'delay', 'beta'\], got \['beta'\], {ONLY}"),
    "hidden parameters, observed": (
        lambda: joint_predictive(IN_ORDER, "torch", observed(), params={}),
        rf"params: expected all of .*, got \[\], {ONLY}",
    ),
    "its likelihood": (
        lambda: hidden(likelihood="buffer"),
        "likelihood: expected 'auto', since this network has no buffered transformer, got 'buffer'",
    ),
    "observe": (lambda: observed(likelihood="buffer"), "likelihood: expected 'auto'.* no buffered transformer"),
    "preferring": (lambda: alone().preferring("buffer"), "likelihood: expected 'auto'.* no buffered transformer"),
    "a context": (
        lambda: alone(case=INDEPENDENT).encode(data(INDEPENDENT).context),
        f"context: expected none, {ONLY}",
    ),
    "a context of a distribution": (
        lambda: joint_predictive(INDEPENDENT, "torch", **_with_context()),
        f"context: expected none, {ONLY}",
    ),
    "autoregressive evidence": (lambda: evidence(method="autoregressive"), f"method: expected 'importance', {ONLY}"),
    "comparison by it": (
        lambda: compared(method="autoregressive"),
        f"method: expected 'importance', {ONLY}",
    ),
    "leave one out": (
        lambda: scores.leave_one_out(alone(case=INDEPENDENT), data(INDEPENDENT).inputs, data(INDEPENDENT).value),
        f"net: expected one with a buffered transformer, .*, {ONLY}",
    ),
    "simulation of hidden parameters": (
        lambda: simulated({"beta": data(IN_ORDER).params["beta"][None]}),
        f"params: expected all of .*{ONLY}",
    ),
    "sbi": (lambda: estimator(["beta"]), f"params: expected all of .*{ONLY}"),
}


def _with_context():
    given = data(INDEPENDENT)
    return {"inputs": given.inputs, "params": given.params, "context": given.context}


def observed(**more):
    given = data(IN_ORDER)
    return alone().observe(array("torch", given.inputs), array("torch", given.value), feedback=given.feedback, **more)


def compared(**more):
    given = data(IN_ORDER)
    nets = {"a": alone(), "b": alone()}
    return pb.compare(nets, given.inputs, given.value, feedback=given.feedback, draws=100, **QUIET, **more)


@pytest.mark.parametrize("entry", NEEDS_THE_BUFFER)
def test_what_needs_a_transformer_says_so(entry):
    call, message = NEEDS_THE_BUFFER[entry]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_direct_likelihood_that_is_not_there_is_refused(backend):
    given, net = data(LEARNING), network(LEARNING, backend)
    message = "likelihood: expected 'auto', since this network has no direct likelihood, got 'direct'"
    for call in (
        lambda: net.preferring("direct"),
        lambda: net.observe(given.inputs, given.value, feedback=given.feedback, likelihood="direct"),
        lambda: joint_predictive(LEARNING, backend, given.inputs, params=given.params, likelihood="direct"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for wrong in ("likelihood", None, 1, np.ones(3)):
        with pytest.raises(ValueError, match=r"likelihood: expected one of .*'auto'.*'direct'.*'buffer'"):
            net.preferring(wrong)
    # Trials that depend on each other without an order have no such part, whatever the sizes say.
    function = Case("function with a width", FUNCTION.schema, config=DIRECT_SIZES)
    assert network(function, backend).parts == ("buffer",)
    assert not any(name.startswith("likelihood.") for name in network(function, backend).weights)


@pytest.mark.filterwarnings("ignore::ppl_buffer.findings.FindingWarning")
def test_the_rest_works_without_a_transformer(tmp_path):
    net, given = alone(), data(IN_ORDER)
    assert net.parts == ("likelihood",) and net.preferred_likelihood == "direct" and net.preferring("auto") is net
    assert all(name.startswith("likelihood.") for name in net.weights)
    expected = joint_predictive(IN_ORDER, "torch", given.inputs, params=given.params, feedback=given.feedback)
    both = joint_predictive(IN_ORDER, "torch", observed(), params=given.params, likelihood="direct")
    value = array("torch", given.value)
    np.testing.assert_allclose(both.log_prob(value), expected.log_prob(value), rtol=1e-5)
    pb.save(net, tmp_path / "alone.safetensors")
    again = pb.load(tmp_path / "alone.safetensors", backend="torch")
    assert again.parts == net.parts and again.digest == net.digest
    found = evidence()
    assert found.method == "importance" and np.isfinite(found.log_evidence).all()
    # With "both", which is the default, one of the two is enough.
    table = compared()
    assert "disagreement" not in table and np.allclose(table["probability"], 0.5)
    params = {name: np.stack([x, x]) for name, x in given.params.items()}
    drawn = simulated(params)
    assert drawn.value.shape == (2, 3, 7, 2) and np.isfinite(drawn.log_prob).all()
    log_prob, _ = estimator(None)
    np.testing.assert_allclose(log_prob[0], expected.log_prob(value), rtol=1e-5)


def test_calibration_needs_no_transformer():
    net = alone()
    check = pb.diagnostics.check_likelihood(net, Own(net, PRIORS, environment=reward), sets=20, trials=9, **QUIET)
    assert set(check.pit) == {"choice", "rt"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_hierarchical_fit_needs_no_transformer(tmp_path):
    from ppl_buffer.datasets import TrialData
    from ppl_buffer.workflow.fitting import fit

    given = data(IN_ORDER)
    outcomes = {"choice": given.value[..., 0], "rt": given.value[..., 1]}
    trials = TrialData(
        subjects=["a", "b", "c"], inputs=given.inputs, outcomes=outcomes, feedback=given.feedback,
        trial_mask=np.ones((3, 7), bool), trial_counts=np.full(3, 7),
    )  # fmt: skip
    fitted = fit(
        alone("jax"), trials, environment=reward, chains=1, warmup=5, draws=7, predictive_draws=5, out=tmp_path, **QUIET
    )
    assert fitted.settings["likelihood"] == "direct" and set(fitted.replicated) == {"choice", "rt"}
    assert "log_likelihood" in fitted.posterior


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_the_preferred_part_computes(backend):
    given, net = data(RESPONDING), network(RESPONDING, backend)
    value = array(backend, given.value)
    found = {}
    for part in ("direct", "buffer"):
        one = net.preferring(part)
        assert one.preferred_likelihood == part and one.digest == net.digest and one.preferring(part) is one
        options = {"params": given.params, "feedback": given.feedback}
        joint = joint_predictive(RESPONDING, backend, given.inputs, one, **options)
        assert joint.query.direct == (part == "direct")
        found[part] = np.asarray(joint.conditionals(value))
        told = joint_predictive(RESPONDING, backend, given.inputs, net, likelihood=part, **options)
        np.testing.assert_array_equal(found[part], np.asarray(told.conditionals(value)))
        # Another part says so for itself; what one of the two observed serves the other.
        seen = one.observe(array(backend, given.inputs), value, feedback=array(backend, given.feedback))
        assert (seen.sequence is None) == (part == "buffer")
        other = joint_predictive(RESPONDING, backend, seen, net, params=given.params, likelihood=part)
        np.testing.assert_allclose(np.asarray(other.conditionals(value)), found[part], rtol=1e-4, atol=1e-5)
    assert (found["direct"] != found["buffer"]).all()
    assert net.preferring("buffer").preferring("direct") is net and net.preferring("auto") is net
    assert net.preferring("buffer") is net.preferring("buffer")


@pytest.mark.filterwarnings("ignore::ppl_buffer.findings.FindingWarning")
def test_simulation_and_evidence_take_the_preferred_part():
    given, net = data(RESPONDING), network(RESPONDING, "torch", RECORD)
    params = {name: x[None] for name, x in given.params.items()}
    for part in ("direct", "buffer"):
        one = net.preferring(part)
        drawn = pb.posterior_predictive(one, given.inputs, params, environment=reward, **QUIET)
        drawn_trials = {name: x[0] for name, x in drawn.feedback.items()}
        query = Query.build(one, given.inputs, params=given.params, feedback=drawn_trials, likelihood=part)
        again = density.conditionals(query, array("torch", drawn.value[0]))
        np.testing.assert_allclose(again, drawn.log_prob[0], rtol=1e-3, atol=1e-3)
    estimates = [
        pb.log_evidence(net.preferring(part), given.inputs, given.value, feedback=given.feedback, draws=100, **QUIET)
        for part in ("direct", "buffer")
    ]
    assert (abs(estimates[0].log_evidence - estimates[1].log_evidence) > 1e-3).all()


WITH_BOTH = [name for name in sorted(shipped()) if pb.load(name, backend="torch").parts == ("likelihood", "buffer")]
# Errors that a card states are rounded, and means over other data sets than these.
_TOLERANCE = 3.0


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_BOTH)
def test_both_parts_of_a_shipped_network_agree_within_their_errors(name):
    """A divergence of e nats a trial from the simulator is a mean of log ratios; the parts' differ by both at most.

    With L the simulator's log likelihood and D, B the parts', the mean of L - D over its data is e_D, that of L - B is
    e_B: so the mean of D - B a trial is e_B - e_D. One data set's totals differ by the spread of the ratios as well,
    whose variance is about 2 e a trial.
    """
    net = pb.load(name, backend="torch")
    simulator, rng, sets = simulator_of(net), np.random.default_rng(0), 200
    trials = min(net.record.trials, 100)
    params, inputs = simulator.prior(rng, sets), simulator.inputs(rng, sets, trials)
    keywords = simulate_keywords(simulator.simulate, net.schema, sets, trials)
    drawn = simulator.simulate(rng, params, inputs, **keywords)
    value = stack_value(np, net.schema, {outcome: drawn[outcome] for outcome in net.schema.outcomes})
    feedback = {given: drawn[given] for given in net.schema.feedback}
    direct, buffer = (
        np.asarray(density.log_prob(
            Query.build(net, inputs, trials=trials, params=params, feedback=feedback, likelihood=part,
                        outside="ignore", check=False), array("torch", value.astype(np.float32)))) / trials
        for part in ("direct", "buffer")
    )  # fmt: skip
    errors = net.record.errors
    assert set(errors) == {"likelihood", "buffer"}, "a network that ships says how far each of its parts is off"
    most = errors["likelihood"].high + errors["buffer"].high
    difference = direct - buffer
    standard_error = difference.std() / np.sqrt(sets)
    assert abs(difference.mean()) < most + 3 * standard_error
    # Of the total of a data set: mean shift and spread of the two log ratios, as independent trials would have them.
    assert np.sqrt((difference**2).mean()) < _TOLERANCE * (most + np.sqrt(2 * most / trials))
