"""Networks of stored data: those of people are never taken for a likelihood, those of simulations are checked by what
was held out."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("jax")
pytest.importorskip("numpyro")

import ppl_buffer as pb
from ppl_buffer import diagnostics
from ppl_buffer.datasets import TrialData
from ppl_buffer.diagnostics.simulations import check_pair, simulate_legal
from ppl_buffer.findings import FindingWarning
from ppl_buffer.stored import StoredData
from ppl_buffer.workflow.hierarchical import Box
from tests.networks import HABIT, REPORT, Record, network

PEOPLE = StoredData(False, 23, 7, 11, 3, unit="people", digest="0123")
REFUSED = (
    r"net: expected the network of a simulator, got one that was trained on stored data of 11 people \(3 more held"
)
SETS, TRIALS = 131, 9


def of_people(backend="torch"):
    return network(HABIT, backend, Record(box={}, priors={}, trials=11, context=0, simulator="habits", stored=PEOPLE))


def habits():
    rng = np.random.default_rng(3)
    return {"cue": rng.integers(0, 4, (2, 5))}, np.stack([rng.integers(0, n, (2, 5)) for n in (3, 2)], -1)


def stored_people():
    inputs, value = habits()
    outcomes = {"key": value[..., 0], "side": value[..., 1]}
    return pb.DatasetSimulator(
        {name: np.tile(x, (4, 1)) for name, x in outcomes.items()}, {"cue": np.tile(inputs["cue"], (4, 1))},
        schema=HABIT.schema,
    )  # fmt: skip


def test_the_record_and_the_printed_network_say_so(tmp_path):
    pytest.importorskip("torch")
    net = of_people()
    assert "trained on stored data of 11 people (3 more held out)" in repr(net)
    assert "direct predictive" in repr(net) and "likelihood" not in repr(net)
    assert net.record.source == "habits, stored data of 11 people (3 more held out)"
    pb.save(net, tmp_path / "habits.safetensors")
    read = pb.load(tmp_path / "habits.safetensors", backend="torch").record
    assert read.stored == PEOPLE and read.observed
    with pytest.raises(ValueError, match="record.stored: groups: expected an integer of at least 1, got 0"):
        pb.save(
            network(HABIT, "torch", Record(**{**vars(net.record), "stored": replace(PEOPLE, groups=0)})), tmp_path / "x"
        )


@pytest.mark.parametrize(
    "call",
    [
        lambda net: diagnostics.check_likelihood(net, stored_people(), progress=False),
        lambda net: diagnostics.compare_likelihood(net, stored_people(), progress=False),
        lambda net: diagnostics.check_posterior(net, stored_people(), progress=False),
        lambda net: pb.log_evidence(net, *habits(), progress=False),
        lambda net: pb.log_evidence(net, *habits(), method="autoregressive", progress=False),
        lambda net: pb.compare({"one": net, "other": net}, *habits(), progress=False),
        lambda net: Box.of(net),
    ],
)
def test_what_takes_a_likelihood_refuses_it(call):
    with pytest.raises(ValueError, match=REFUSED):
        call(of_people("jax"))


def test_fits_and_sbi_refuse_it():
    inputs, value = habits()
    mask = np.ones((2, 5), dtype=bool)
    outcomes = {"key": value[..., 0], "side": value[..., 1]}
    trials = TrialData(np.arange(2), np.array([5, 5]), inputs, outcomes, {}, mask)
    with pytest.raises(ValueError, match=REFUSED):
        pb.workflow.fit(of_people("jax"), trials, progress=False)
    pytest.importorskip("sbi")
    with pytest.raises(ValueError, match=REFUSED):
        pb.sbi.LikelihoodEstimator(of_people(), 5)


def test_its_joint_predictive_is_there_for_use():
    pytest.importorskip("pyro")
    from ppl_buffer.pyro import JointPredictive

    inputs, value = habits()
    joint = JointPredictive(of_people(), inputs)
    draws = joint.sample()
    assert draws.shape == value.shape
    total, parts = joint.log_prob(draws), joint.conditionals(draws)
    np.testing.assert_allclose(total, parts.sum(-1), rtol=1e-5)


def test_people_are_no_simulator_that_a_likelihood_is_checked_by():
    with pytest.raises(
        ValueError, match=r"simulator: expected one whose .* got stored data of 6 people .* nobody knows"
    ):
        diagnostics.check_likelihood(network(HABIT, "jax"), stored_people(), progress=False)


def simulations(**options):
    """Each with a parameter of its own."""
    rng = np.random.default_rng(8)
    shape = (SETS, TRIALS)
    outcomes = {"rating": rng.integers(0, 5, shape)}
    return pb.StoredSimulations(
        {"mu": np.arange(1.0 * SETS)}, outcomes, {"cue": rng.normal(size=shape)}, schema=REPORT.schema, held_out=0.2,
        **options,
    )  # fmt: skip


def test_a_likelihood_is_checked_on_the_simulations_that_are_held_out():
    simulator = simulations()
    check = diagnostics.check_likelihood(network(REPORT, "torch"), simulator, trials=4, rollouts=False, progress=False)
    held_out = simulator.stored_sets.indices(held_out=True)
    assert len(held_out) == 26 and sorted(check.params["mu"]) == held_out.tolist()
    with pytest.raises(
        ValueError, match="sets: expected 10 data sets of 12 trials or more that are held out, got 0 of"
    ):
        diagnostics.check_likelihood(network(REPORT, "torch"), simulator, trials=12, progress=False)


def test_batches_of_stored_simulations_never_meet():
    simulator = simulations()
    batches = [
        simulate_legal(simulator, np.random.default_rng(index), 8, 3, dict, 8 * index)[0]["mu"] for index in range(3)
    ]
    assert len(set(np.concatenate(batches))) == 24
    assert set(np.concatenate(batches)) <= set(simulator.stored_sets.indices(held_out=True))


def test_another_division_of_the_simulations_is_warned_of():
    first, other = simulations(), simulations(seed=1)
    summary = first.stored_sets.summary
    record = Record(
        box={"mu": (0.0, 140.0)}, priors={"mu": None}, trials=9, context=0, simulator="ratings", stored=summary
    )
    with pytest.warns(FindingWarning, match="these are others, or divided by another seed"):
        check_pair(network(REPORT, "torch", record), other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_pair(network(REPORT, "torch", record), simulations())


def test_ranks_need_the_prior_that_the_simulations_come_from():
    prior = {"mu": pb.Prior("Uniform", {"low": 0.0, "high": 131.0})}
    options = {"sets": 4, "trials": 3, "progress": False}
    with pytest.raises(ValueError, match=r"priors: expected those that the stored simulations were drawn from"):
        diagnostics.check_posterior(network(REPORT, "jax"), simulations(), priors=prior, **options)


def test_what_needs_new_simulations_is_refused():
    pytest.importorskip("sbi")
    torch = pytest.importorskip("torch")
    estimator = pb.sbi.LikelihoodEstimator(network(REPORT, "torch"), 5, simulator=simulations())
    with pytest.raises(
        ValueError, match=r"StoredSimulations holds 105 stored simulations \(26 more held out\), and no"
    ):
        estimator.simulate(torch.zeros(3, 1))
