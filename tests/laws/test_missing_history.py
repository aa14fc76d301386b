"""Lost and omitted answers where later trials depend on them: what these read, and what is a probability."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

import jax
import torch

import ppl_buffer as pb
from ppl_buffer.network.likelihood import pair_features
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.schema import Categorical, Schema
from tests.laws.cases import close, conditionals, numbers, on_both, replaced, scored, uniform
from tests.laws.test_direct import affine, described
from tests.networks import (
    DIRECT_SIZES,
    HABIT,
    RESPONDING,
    Case,
    array,
    data,
    joint_predictive,
    network,
    reward,
    rollout,
    standardization,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

NAN, LATE = np.nan, np.inf
FLAGGED = replace(DIRECT_SIZES, likelihood_missing=True)
INCOMPLETE = Case("incomplete", RESPONDING.schema, reward, FLAGGED)
KEYS = Case("keys", HABIT.schema, config=FLAGGED)
# One choice and its feedback, a category.
POINTS = Case(
    "points",
    Schema(
        params={"mu": pb.Real()}, outcomes={"choice": Categorical(3)}, feedback={"win": Categorical(2)}, ordered=True
    ),
    config=FLAGGED,
)
MISSING = pb.Missing()


def with_gaps(case=INCOMPLETE):
    """Three people whose seven trials are: whole, all lost, no time, whole, no choice, no feedback, whole."""
    given = data(case)
    given.value[:, 1] = NAN
    given.value[:, 2, 1] = given.value[:, 4, 0] = NAN
    given.feedback["reward"][:, [1, 5]] = NAN
    return given


def test_with_nothing_missing_it_is_the_ordinary_density():
    """That of a network without the columns that read what is missing."""
    given, net = data(INCOMPLETE), network(INCOMPLETE, "torch")
    ordinary = conditionals(INCOMPLETE, "torch", given)
    np.testing.assert_array_equal(conditionals(INCOMPLETE, "torch", given, missing=MISSING), ordinary)
    plain = TorchNetwork(INCOMPLETE.schema, DIRECT_SIZES, standardization(INCOMPLETE.schema))
    name = "likelihood.trial.pair.weight"
    with torch.no_grad():
        for key, value in plain.weights.items():
            value.copy_(net.weights[key][:, :-3] if key == name else net.weights[key])
    plain = plain.eval().requires_grad_(False)
    found = joint_predictive(INCOMPLETE, "torch", given.inputs, plain, **given.arguments())
    close(found.conditionals(torch.tensor(given.value)), ordinary, atol=1e-6)
    assert plain.digest != net.digest and "likelihood_missing" not in plain.config.to_dict()


def test_the_state_reads_flags_and_nothing_of_what_was_lost():
    """The map of a trial, written anew in NumPy: zeros where something was lost, and a flag for it."""
    given, rng = data(INCOMPLETE), np.random.default_rng(2)
    lost = {name: rng.random((3, 7)) < 0.4 for name in ("choice", "rt", "reward")}
    pair, (choice, rt), won = given.inputs["pair"], np.moveaxis(given.value, -1, 0), given.feedback["reward"]
    trial = described(INCOMPLETE, {
        "pair": (pair, 3), "cue": (given.inputs["cue"], None), "choice": (choice, 2), "rt": (np.log(rt), None),
        "reward": (won, None),
    })  # fmt: skip
    trial = np.concatenate([trial, np.eye(6)[(2 * pair + choice).astype(int)]], -1)
    # A choice, its combination with the pair; time and reward at both scales.
    for name, columns in {"choice": [4, 5, *range(13, 19)], "rt": [6, 11], "reward": [7, 12]}.items():
        trial[..., columns] *= ~lost[name][..., None]
    expected = affine(INCOMPLETE, "trial.pair", np.concatenate([trial, np.stack(list(lost.values()), -1)], -1))
    # Whatever stands in the place of what was lost.
    other = data(INCOMPLETE, seed=5)
    outcomes = {
        name: np.where(lost[name], other.value[..., i], given.value[..., i]) for i, name in enumerate(["choice", "rt"])
    }
    feedback = {"reward": np.where(lost["reward"], other.feedback["reward"], won)}
    groups = {"inputs": given.inputs, "outcomes": outcomes, "feedback": feedback, "lost": lost}
    trials = {group: {name: array("torch", x[:, None]) for name, x in part.items()} for group, part in groups.items()}
    close(pair_features(network(INCOMPLETE, "torch"), trials)[:, 0], expected)


@on_both([INCOMPLETE], quick=())
def test_however_it_is_asked_for_it_is_the_same(case, backend):
    given = with_gaps()
    whole = scored(case, backend, given, missing=MISSING)
    value, right = array(backend, given.value), conditionals(case, "torch", given, missing=MISSING)
    assert np.isfinite(right).all() and (np.abs(right[:, 1]) < 1e-5).all()
    close(whole.conditionals(value), right)
    net, feedback = network(case, backend), array(backend, given.feedback)
    seen = net.observe(array(backend, given.inputs), value, feedback=feedback, missing=MISSING)
    assert np.isnan(numbers(seen.feedback["reward"])[:, 1]).all()
    again = joint_predictive(case, backend, seen, params=given.params)
    close(again.log_prob(seen.value), right.sum(-1))
    draws = {name: np.stack([x] * 5) for name, x in given.params.items()}
    close(joint_predictive(case, backend, seen, params=draws).conditionals(seen.value), np.stack([right] * 5))
    close(again.condition(seen.value[:, :3]).conditionals(seen.value[:, 3:]), right[:, 3:])
    # A part of what was lost is summed out: over both choices, with what follows as it was.
    some = [replaced(given, value=given.value.copy()) for _ in range(2)]
    for option, one in enumerate(some):
        one.value[:, 4, 0] = option
    both = np.exp([conditionals(case, "torch", one, missing=MISSING)[:, 4] for one in some]).sum(0)
    close(np.exp(right[:, 4]), both)
    places = numbers(again.pit(seen.value))
    np.testing.assert_array_equal(np.isnan(places), np.isnan(given.value))


def test_later_trials_follow_what_was_lost_and_no_earlier_one_does():
    given = data(INCOMPLETE)
    whole = conditionals(INCOMPLETE, "torch", given)
    deleted = conditionals(INCOMPLETE, "torch", given, trial_mask=np.broadcast_to(np.arange(7) != 2, (3, 7)))
    for lost in (("value", (0, 1)), ("value", (0,)), ("value", (1,)), ("feedback", ())):
        other = replaced(given, value=given.value.copy(), feedback={"reward": given.feedback["reward"].copy()})
        if lost[0] == "value":
            other.value[:, 2, list(lost[1])] = NAN
        else:
            other.feedback["reward"][:, 2] = NAN
        found = conditionals(INCOMPLETE, "torch", other, missing=MISSING)
        np.testing.assert_array_equal(found[:, :2], whole[:, :2])
        assert (np.abs(found - whole)[:, 3:] > 1e-6).all() and (np.abs(found - deleted)[:, 3:] > 1e-6).all()


def test_what_can_be_seen_has_unit_mass():
    """Two outcomes of 3 and 2 values, of three trials: the second lost, or its second outcome alone."""
    pairs = np.array(list(itertools.product(range(3), range(2))), np.float32)
    inputs = {"cue": np.array([[1, 3, 0]], np.float32)}
    for middle in ([[NAN, NAN]], [[key, NAN] for key in range(3)]):
        values = np.array(list(itertools.product(pairs, np.array(middle, np.float32), pairs)))
        distribution = joint_predictive(KEYS, "torch", inputs, missing=MISSING)
        total = np.exp(numbers(distribution.log_prob(torch.tensor(values[:, None]))).astype(float)).sum()
        assert total == pytest.approx(1, abs=1e-5)
    # After a past of which nothing is known.
    value = np.full((3, 7), NAN, np.float32)
    value[:, -1] = range(3)
    feedback = {"win": np.full((3, 7), NAN, np.float32)}
    params = {"mu": np.full(3, 0.4, np.float32)}
    distribution = joint_predictive(POINTS, "torch", {}, params=params, feedback=feedback, trials=7, missing=MISSING)
    found = numbers(distribution.conditionals(torch.tensor(value)))
    assert (found[:, :-1] == 0).all() and np.exp(found[:, -1]).sum() == pytest.approx(1, abs=1e-6)
    nothing = torch.full((3, 7), NAN)
    np.testing.assert_array_equal(numbers(distribution.log_prob(nothing)), np.zeros(3))


@pytest.mark.slow
def test_gradients_are_those_of_the_other_backend_and_finite():
    given, gradients = with_gaps(), []
    for backend in ("torch", "jax"):
        value = array(backend, given.value)

        def total(params, backend=backend, value=value):
            made = joint_predictive(
                INCOMPLETE, backend, given.inputs, params=params, feedback=given.feedback, missing=MISSING,
                validate_args=False, outside="ignore",
            )  # fmt: skip
            return made.log_prob(value).sum()

        params = array(backend, given.params)
        if backend == "jax":
            gradients.append(jax.jit(jax.grad(total))(params))
            continue
        leaves = {name: x.requires_grad_() for name, x in params.items()}
        total(leaves).backward()
        gradients.append({name: x.grad for name, x in leaves.items()})
    assert all(np.isfinite(numbers(x)).all() for x in gradients[0].values())
    close(*gradients, rtol=1e-3)


@on_both([INCOMPLETE, RESPONDING], quick=())
def test_later_trials_pass_over_a_response_that_did_not_come(case, backend):
    """Whether or not the network reads what is lost: nothing was made, and nothing was learnt."""
    given, deadline = data(case), pb.Missing(deadline=array(backend, np.full((3, 7), 30.0, np.float32)))
    omitted = np.broadcast_to(np.arange(7) % 3 == 1, (3, 7))
    value = np.where(omitted[..., None], (NAN, LATE), given.value).astype(np.float32)
    feedback = {"reward": np.where(omitted, NAN, given.feedback["reward"]).astype(np.float32)}
    cut = replaced(given, value=value, feedback=feedback)
    found = conditionals(case, backend, cut, missing=deadline)
    passed = conditionals(case, backend, given, trial_mask=~omitted)
    close(found[~omitted], passed[~omitted], atol=1e-5)
    # What is left of an omission is the tail, which numbers find: with a response it is at most the deadline.
    responded = np.where(omitted[..., None], (0, NAN), given.value).astype(np.float32)
    if case is INCOMPLETE:
        within = 0.0
        for option in (0, 1):
            responded[..., 0] = np.where(omitted, option, given.value[..., 0])
            # Of the first omission: what follows differs.
            within = (
                within + np.exp(conditionals(case, backend, replaced(cut, value=responded), missing=deadline))[:, 1]
            )
        close(np.exp(found[:, 1]), 1 - within, atol=1e-5)
    source = scored(case, backend, cut, missing=deadline)
    close(source.condition(array(backend, value[:, :2])).conditionals(array(backend, value[:, 2:])), found[:, 2:])
    seen = network(case, backend).observe(
        array(backend, given.inputs), array(backend, value), feedback=array(backend, feedback), missing=deadline
    )
    close(joint_predictive(case, backend, seen, params=given.params).conditionals(seen.value), found)


@on_both([INCOMPLETE], quick=())
def test_draws_pass_over_it_as_well(case, backend):
    given = data(case)
    limit = np.quantile(given.value[..., 1], 0.6).astype(np.float32)
    arguments = {"params": given.params, "environment": reward, "trials": 7}
    source = joint_predictive(case, backend, given.inputs, missing=pb.Missing(deadline=limit), **arguments)
    noise = uniform(source, (11,))
    value, feedback, log_probs = rollout(backend, source, noise)
    omitted = np.isposinf(value[..., 1])
    assert 0.05 < omitted[..., :-1].mean() < 0.95
    np.testing.assert_array_equal(np.isnan(feedback["reward"]), omitted)
    np.testing.assert_array_equal(np.isnan(value[..., 0]), omitted)
    # The same noise without a deadline, where those trials do not exist, gives the other trials.
    again = joint_predictive(case, backend, given.inputs, trial_mask=~omitted, **arguments)
    expected, rewards, densities = rollout(backend, again, noise)
    close(value[~omitted], expected[~omitted])
    close(feedback["reward"][~omitted], rewards["reward"][~omitted])
    close(log_probs[~omitted], densities[~omitted])
    scoring = joint_predictive(
        case, backend, given.inputs, params=given.params, feedback=feedback, missing=pb.Missing(deadline=limit)
    )
    close(scoring.conditionals(array(backend, value)), log_probs)


def test_who_cannot_read_what_is_lost_refuses_it():
    given, deadline = with_gaps(), pb.Missing(deadline=30.0)
    complete = data(RESPONDING)
    with pytest.raises(ValueError, match=r"missing: expected None, .*Config\(depth=0, likelihood_missing=True\)"):
        scored(RESPONDING, "torch", given, missing=MISSING)
    with pytest.raises(ValueError, match=r"value\['choice'\]: expected a number where there was a response, .*Train"):
        network(RESPONDING, "torch").observe(given.inputs, given.value, feedback=complete.feedback, missing=deadline)
    with pytest.raises(ValueError, match=r"feedback\['reward'\]: expected a number where there was a response"):
        network(RESPONDING, "torch").observe(given.inputs, complete.value, feedback=given.feedback, missing=deadline)
    with pytest.raises(ValueError, match=r"feedback\['reward'\]: expected a number, got nan|feedback\['reward'\]: "):
        scored(INCOMPLETE, "torch", given)
    with pytest.raises(ValueError, match=r"missing: expected None, since the buffered transformer computes here"):
        scored(INCOMPLETE, "torch", given, missing=MISSING, likelihood="buffer")
    with pytest.raises(ValueError, match=r"missing: expected None, since the buffered transformer computes here"):
        network(INCOMPLETE, "torch").observe(
            given.inputs, given.value, feedback=given.feedback, missing=MISSING, likelihood="buffer"
        )
    with pytest.raises(ValueError, match=r"withheld: expected no choice that is made by not responding"):
        scored(INCOMPLETE, "torch", given, missing=pb.Missing(deadline=30.0, withheld={"choice": 0}))
    some = {name: x for name, x in given.params.items() if name != "beta"}
    with pytest.raises(ValueError, match=r"missing: expected a likelihood, .* hides \['beta'\]"):
        joint_predictive(INCOMPLETE, "torch", given.inputs, params=some, feedback=given.feedback, missing=MISSING)


def test_a_model_of_either_language_observes_them():
    import numpyro
    import pyro

    given, totals = with_gaps(), []
    for language, backend in ((pyro, "torch"), (numpyro, "jax")):
        net = network(INCOMPLETE, backend)
        feedback = array(backend, given.feedback)
        seen = net.observe(array(backend, given.inputs), given.value, feedback=feedback, missing=MISSING)

        def model(seen=seen, language=language, backend=backend):
            with language.plate("people", 3):
                made = joint_predictive(INCOMPLETE, backend, seen, params=given.params)
                language.sample("trials", made, obs=seen.value)

        if backend == "torch":
            totals.append(float(pyro.poutine.trace(model).get_trace().log_prob_sum()))
        else:
            totals.append(float(numpyro.infer.util.log_density(model, (), {}, {})[0]))
    right = conditionals(INCOMPLETE, "torch", given, missing=MISSING).sum()
    np.testing.assert_allclose(totals, right, rtol=1e-4)
