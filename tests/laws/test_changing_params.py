"""Parameters that change from trial to trial in models whose trials depend on those before them."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

import numpyro
import numpyro.distributions as dist

import ppl_buffer as pb
from tests.laws.cases import BACKENDS, close, numbers, on_both, uniform
from tests.networks import DIRECT_SIZES, RESPONDING, UNDIVIDED, array, data, joint_predictive, network, rollout

pytestmark = pytest.mark.usefixtures("quick_compilation")

TAKING = replace(RESPONDING, name="responding, changing", config=replace(DIRECT_SIZES, likelihood_trial_params=True))
ONE_STATE = replace(
    UNDIVIDED, name="undivided, changing", config=replace(UNDIVIDED.config, likelihood_trial_params=True)
)
IN_ORDER = [TAKING, ONE_STATE]
# First trial with other parameters.
CHANGE = 4


def changing(given, names=("alpha", "beta", "delay")):
    """The parameters of some data, and others from trial `CHANGE` on, of those names: (B,) and (B, 7)."""
    late = np.arange(given.value.shape[1]) >= CHANGE
    other = {"alpha": 0.9 - 0.8 * given.params["alpha"], "beta": given.params["beta"] - 1.3, "delay": None}
    other["delay"] = 0.3 * given.params["delay"]
    by_trial = {name: np.where(late, other[name][:, None], given.params[name][:, None]) for name in names}
    return {name: x for name, x in given.params.items() if name not in names}, by_trial


def made(case, backend, given, params, by_trial, **more):
    return joint_predictive(
        case, backend, given.inputs, params=params, trial_params=by_trial, feedback=given.feedback, **more
    )


@on_both(IN_ORDER, quick=())
def test_what_does_not_change_is_as_if_it_were_given_once(case, backend):
    given = data(case)
    value = array(backend, given.value)
    once = joint_predictive(case, backend, given.inputs, params=given.params, feedback=given.feedback)
    repeated = {name: np.repeat(x[:, None], 7, 1) for name, x in given.params.items()}
    some = {name: repeated.pop(name) for name in ["alpha"]}
    for by_trial in ({**repeated, **some}, some):
        params = {name: x for name, x in given.params.items() if name not in by_trial}
        close(made(case, backend, given, params, by_trial).conditionals(value), once.conditionals(value))


@on_both(IN_ORDER, quick=())
def test_a_trial_has_its_own_parameters_and_those_of_the_past_and_no_later_ones(case, backend):
    given = data(case)
    value = array(backend, given.value)
    before = numbers(joint_predictive(case, backend, given.inputs, params=given.params, feedback=given.feedback)
                     .conditionals(value))  # fmt: skip
    params, by_trial = changing(given, ("alpha", "beta"))
    mixed = numbers(made(case, backend, given, params, by_trial).conditionals(value))
    close(mixed[:, :CHANGE], before[:, :CHANGE])
    late = {**params, **{name: x[:, -1] for name, x in by_trial.items()}}
    after = numbers(joint_predictive(case, backend, given.inputs, params=late, feedback=given.feedback)
                    .conditionals(value))  # fmt: skip
    # What the first trials meant was that of their own parameters.
    assert (np.abs(mixed[:, CHANGE:] - after[:, CHANGE:]) > 1e-4).all()
    assert (np.abs(mixed[:, CHANGE:] - before[:, CHANGE:]) > 1e-4).all()


@on_both(IN_ORDER, quick=())
def test_the_state_goes_on_from_where_the_parameters_changed(case, backend):
    """Block by block: the second one after a history that had other parameters."""
    given = data(case)
    params, by_trial = changing(given)
    value = array(backend, given.value)
    whole = made(case, backend, given, params, by_trial)
    rest = whole.condition(value[:, :CHANGE])
    close(rest.conditionals(value[:, CHANGE:]), whole.conditionals(value)[:, CHANGE:])
    # Two steps of conditioning have the histories of both.
    last = whole.condition(value[:, :2]).condition(value[:, 2:CHANGE])
    close(last.conditionals(value[:, CHANGE:]), whole.conditionals(value)[:, CHANGE:])


@on_both(IN_ORDER, quick=())
def test_one_pass_is_the_rollout_and_observing_changes_no_number(case, backend):
    given = data(case)
    params, by_trial = changing(given)
    whole = made(case, backend, given, params, by_trial, environment=case.environment)
    value, feedback, log_probs = rollout(backend, whole, uniform(whole, (2,)))
    again = joint_predictive(
        case, backend, given.inputs, params=params, trial_params=by_trial,
        feedback={name: np.asarray(numbers(x)) for name, x in feedback.items()},
    )  # fmt: skip
    close(again.conditionals(array(backend, numbers(value))), log_probs)
    seen = network(case, backend).observe(
        array(backend, given.inputs), array(backend, given.value), feedback=array(backend, given.feedback)
    )
    read = joint_predictive(case, backend, seen, params=params, trial_params=by_trial)
    expected = numbers(whole.log_prob(array(backend, given.value)))
    close(read.log_prob(seen.value), expected)
    # Of two conditions: a value each.
    late = np.arange(7) >= CHANGE
    seen = network(case, backend).observe(
        array(backend, given.inputs), array(backend, given.value), feedback=array(backend, given.feedback),
        conditions=late.astype(int),
    )  # fmt: skip
    by_condition = {name: x[:, [0, -1]] for name, x in by_trial.items()}
    read = joint_predictive(case, backend, seen, params=params, trial_params=by_condition)
    close(read.log_prob(seen.value), expected)


def test_both_backends_agree():
    given = data(TAKING)
    params, by_trial = changing(given)
    torch_, jax_ = (
        numbers(made(TAKING, backend, given, params, by_trial).conditionals(array(backend, given.value)))
        for backend in BACKENDS
    )
    close(torch_, jax_)


@pytest.mark.slow
def test_pointwise_densities_and_replicates_reach_arviz():
    given = data(TAKING)
    net, late = network(TAKING, "jax"), np.arange(7) >= CHANGE

    def distribution(shift):
        return pb.numpyro.JointPredictive(
            net, array("jax", given.inputs), params={name: given.params[name] for name in ("alpha", "delay")},
            trial_params={"beta": given.params["beta"][:, None] + shift * late}, feedback=array("jax", given.feedback),
            environment=TAKING.environment, outside="ignore",
        )  # fmt: skip

    def model():
        shift = numpyro.sample("shift", dist.Normal(0, 1))
        with numpyro.plate("people", 3):
            numpyro.sample("y", distribution(shift), obs=array("jax", given.value))

    shifts = np.array([0.3, -1.2], np.float32)
    result = pb.arviz.from_samples(
        model, {"shift": shifts[None]}, language="numpyro", environment=TAKING.environment, progress=False
    )
    scores = result["log_likelihood"]["y"].values.reshape(2, 3, 7)
    for shift, score in zip(shifts, scores, strict=True):
        close(score, distribution(shift).conditionals(array("jax", given.value)))
    assert result["posterior_predictive"]["rt"].shape[-2:] == (3, 7)


def test_simulation_takes_them_too():
    """The densities of draws in chunks are those of one pass, where parameters differ by draw and trial."""
    given = data(TAKING)
    net, late = network(TAKING, "torch"), np.arange(7) >= CHANGE
    draws = np.linspace(-2, 2, 5)[:, None, None] * late + given.params["beta"][:, None]
    shared = {name: np.broadcast_to(given.params[name], (5, 3)) for name in ("alpha", "delay")}
    simulated = pb.posterior_predictive(
        net, given.inputs, shared, trial_params={"beta": draws}, environment=TAKING.environment, progress=False
    )
    made_again = joint_predictive(
        TAKING, "torch", {name: np.broadcast_to(x, (5, 3, 7)) for name, x in given.inputs.items()}, params=shared,
        trial_params={"beta": draws.astype(np.float32)}, feedback=simulated.feedback,
    )  # fmt: skip
    close(made_again.conditionals(array("torch", simulated.value)), simulated.log_prob)
    still = pb.posterior_predictive(
        net, given.inputs, {**shared, "beta": draws[..., 0]}, environment=TAKING.environment, progress=False
    )
    close(still.value[..., :CHANGE, :], simulated.value[..., :CHANGE, :])
    assert (still.log_prob[[0, 1, 3, 4], :, CHANGE:] != simulated.log_prob[[0, 1, 3, 4], :, CHANGE:]).mean() > 0.9


def test_networks_that_know_parameters_that_stay_alone_refuse_them():
    given = data(RESPONDING)
    params, by_trial = changing(given)
    with pytest.raises(ValueError, match=r"trial_params: expected none for a network trained on parameters that stay"):
        made(RESPONDING, "torch", given, params, by_trial)
    with pytest.raises(ValueError, match="trial_params: expected the direct likelihood to compute"):
        made(TAKING, "torch", given, params, by_trial, likelihood="buffer")
    assert "likelihood_trial_params" not in RESPONDING.config.to_dict()
    assert network(TAKING, "torch").digest != network(RESPONDING, "torch").digest


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_the_shipped_learner_has_the_exact_likelihood_where_parameters_change(backend):
    """Everything new in blocks of 23 trials, 11 people; in blocks of 20 the card says 0.0005 nats a trial at most."""
    simulator, rng, people, trials = pb.simulators.RLDriftDiffusion(), np.random.default_rng(4), 11, 92
    draws = {name: x.reshape(people, 4) for name, x in simulator.prior(rng, people * 4).items()}
    params = {name: np.repeat(x, 23, 1).astype(np.float32) for name, x in draws.items()}
    inputs = simulator.inputs(rng, people, trials)
    data_ = simulator.simulate(rng, params, inputs)
    exact = simulator.log_likelihood(params, {**inputs, **data_})
    net = pb.load("rlddm", backend=backend)
    joint = pb.numpyro.JointPredictive if backend == "jax" else pb.pyro.JointPredictive
    made = joint(
        net, array(backend, inputs), trial_params=array(backend, params), outside="ignore",
        feedback=array(backend, {"reward": data_["reward"]}),
    )  # fmt: skip
    value = np.stack([data_["choice"], data_["rt"]], -1).astype(np.float32)
    error = numbers(made.conditionals(array(backend, value))) - exact
    # A divergence is half the mean square of the log ratio: four times what the sum of all trials may be off by.
    assert np.abs(error.sum(1)).max() < 4 * np.sqrt(2 * 0.0005 * trials)
    assert np.mean(error**2) < 4 * 2 * 0.0005
