"""What the direct likelihood alone has to hold: its formula, whom a trial depends on, what the parts share."""

import copy
import itertools
import warnings

import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

import jax
import jax.numpy as jnp
import pyro
import torch

from ppl_buffer.network import likelihood
from ppl_buffer.network.backend import backend_of
from ppl_buffer.network.heads import trial_log_prob
from ppl_buffer.predictive import density
from ppl_buffer.pyro import JointPredictive
from ppl_buffer.schema import Schema, split_value
from tests.laws.cases import (
    BACKENDS,
    close,
    conditionals,
    first_told,
    numbers,
    observed,
    on_both,
    replaced,
    scored,
    select,
    uniform,
)
from tests.networks import (
    DIRECT,
    DIRECT_SIZES,
    DISCRIMINATION,
    GUESS,
    HABIT,
    RESPONDING,
    UNDIVIDED,
    Case,
    array,
    data,
    joint_predictive,
    network,
    rollout,
    standardization,
    weights,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

ALONE = [DISCRIMINATION, GUESS]
IN_ORDER = [RESPONDING, UNDIVIDED, HABIT]
BEGINNING = np.array([False, False, True, True, False, True, False])


def affine(case, name, x):
    return x @ weights(case)[f"likelihood.{name}.weight"].T + weights(case)[f"likelihood.{name}.bias"]


def logistic(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * logistic(x)


def described(case, group):
    """Numbers (B, K, F) that describe a group of variables, as the features of embeddings have them, without crossing.

    Args:
        case: the case.
        group: name -> (values, number of categories, or None where the variable is continuous).
    """
    scales = standardization(case.schema)
    columns, waves, continuous = [], [], []
    for name, (values, categories) in group.items():
        if categories:
            columns.append(np.eye(categories)[values.astype(int)])
        else:
            z = (values - scales[name][0]) / scales[name][1]
            columns.append(z[..., None])
            continuous.append(np.arcsinh(10 * z)[..., None] / np.arcsinh(10))
        if name == "cue":
            angle = 2 * np.pi * 0.7 * (values - scales[name][0])
            waves += [np.sin(angle)[..., None], np.cos(angle)[..., None]]
    return np.concatenate(columns + waves + continuous, -1)


def next_state(case, unit, read, state):
    """One step of a gated recurrent unit in NumPy: (B, W)."""
    width = state.shape[-1]
    x, h = affine(case, f"{unit}.input", read), affine(case, f"{unit}.state", state)
    reset, update = logistic(x[:, :width] + h[:, :width]), logistic((x + h)[:, width : 2 * width])
    return (1 - update) * np.tanh(x[:, 2 * width :] + reset * h[:, 2 * width :]) + update * state


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [RESPONDING, UNDIVIDED], ids=repr)
def test_the_representation_is_that_of_the_formula(case, backend):
    """Written anew in NumPy, for the case with inputs, two outcomes and feedback, with a state for each pair or not."""
    given = data(case)
    pair, cue, choice = given.inputs["pair"], given.inputs["cue"], given.value[..., 0]
    shown = described(case, {"pair": (pair, 3), "cue": (cue, None)})
    trial = described(case, {
        "pair": (pair, 3), "cue": (cue, None), "choice": (choice, 2), "rt": (np.log(given.value[..., 1]), None),
        "reward": (given.feedback["reward"], None),
    })  # fmt: skip
    trial = np.concatenate([trial, np.eye(6)[(2 * pair + choice).astype(int)]], -1)
    alpha, delay, beta = given.params.values()
    theta = np.stack([np.log(alpha / (1 - alpha)), np.log(delay), beta], -1)
    scales = standardization(case.schema)
    theta = (theta - [scales[name][0] for name in case.schema.params]) / [scales[name][1] for name in given.params]
    embedded = affine(case, "params.out", silu(affine(case, "params.hidden", theta)))
    apart = 8 if case is RESPONDING else 0
    common, slots, rows, expected = np.zeros((3, 11 - apart)), np.zeros((3, 3, apart)), np.arange(3), []
    for k in range(7):
        slot = pair[:, k].astype(int)
        state = np.concatenate([common, slots[rows, slot]], -1)
        read = affine(case, "read.trial", np.concatenate([state, shown[:, k]], -1))
        scale, shift = affine(case, "read.scale", embedded), affine(case, "read.shift", embedded)
        expected.append(silu(read * (1 + scale) + shift))
        seen = silu(affine(case, "trial.pair", trial[:, k]) + affine(case, "trial.params", embedded))
        if apart:
            slots[rows, slot] = next_state(case, "slots", np.concatenate([seen, common], -1), slots[rows, slot])
        common = next_state(case, "recurrent", seen, common)
    net = network(case, backend)
    outcomes = {"choice": choice, "rt": given.value[..., 1]}
    groups = {"inputs": given.inputs, "outcomes": outcomes, "feedback": given.feedback}
    trials = array(backend, {group: {name: x[:, None] for name, x in part.items()} for group, part in groups.items()})
    params = {name: array(backend, x[:, None]) for name, x in given.params.items()}
    prepared = backend_of(net).prepare_sequence(net, trials, array(backend, np.ones((3, 1, 7), bool)))
    found = likelihood.read_sequence(net, prepared, backend_of(net).encode_conditions(net, params))
    np.testing.assert_allclose(numbers(found)[:, 0, :, :11], np.stack(expected, 1), rtol=1e-4, atol=1e-5)
    # Behind it the lower bound of the response time, and that it is known.
    np.testing.assert_allclose(numbers(found)[:, 0, :, 11], np.repeat(delay[:, None], 7, 1))
    assert (numbers(found)[..., 12:] == 1).all()


@pytest.mark.parametrize("case", IN_ORDER, ids=repr)
def test_trials_that_do_not_exist_are_passed_over_wherever_they_are(case):
    given, other = data(case), data(case, seed=4)
    value = given.value.copy()
    value[:, ~BEGINNING] = other.value[:, ~BEGINNING]
    changed = replaced(given, value=value, **{
        group: {name: np.where(BEGINNING, x, getattr(other, group)[name]) for name, x in getattr(given, group).items()}
        for group in ("inputs", "feedback")
    })  # fmt: skip
    mask = np.broadcast_to(BEGINNING, (3, 7))
    found = conditionals(case, "torch", given, trial_mask=mask)
    np.testing.assert_array_equal(found, conditionals(case, "torch", changed, trial_mask=mask))
    assert (found[:, ~BEGINNING] == 0).all()
    close(found[:, BEGINNING], conditionals(case, "torch", select(case, given, BEGINNING)), atol=1e-6)
    # One data set after another, each of a length of its own: what follows the last trial changes nothing.
    lengths = np.arange(7) < np.array([[0], [1], [6]])
    short = conditionals(case, "torch", given, trial_mask=lengths)
    close(np.where(lengths, conditionals(case, "torch", given), 0), short, atol=1e-6)
    # A history that begins and ends with what is no trial.
    source = scored(case, "torch", given, trial_mask=mask, environment=case.environment)
    tail = case.schema.event_shape_tail
    rest = source.condition(array("torch", given.value[:, :5]))
    assert tuple(rest.event_shape) == (2, *tail)
    close(rest.conditionals(array("torch", given.value[:, 5:])), found[:, 5:], atol=1e-6)


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_who_depends_on_whom(backend):
    """Exact zeros: a trial on itself and on those before it that exist, and on the feedback of these alone."""
    given = data(RESPONDING, batch=1)
    exists = np.array([True, True, False, True, True, True, True])

    def density(rt, cue, reward):
        xp = jnp if backend == "jax" else torch
        value = xp.stack([array(backend, given.value[..., 0]), rt], -1)
        inputs = {"pair": array(backend, given.inputs["pair"]), "cue": cue}
        distribution = joint_predictive(
            RESPONDING, backend, inputs, params=given.params, feedback={"reward": reward}, trial_mask=exists[None]
        )
        return distribution.conditionals(value)[0]

    arrays = [array(backend, x) for x in (given.value[..., 1], given.inputs["cue"], given.feedback["reward"])]
    if backend == "jax":
        jacobians = jax.jit(jax.jacrev(density, argnums=(0, 1, 2)))(*arrays)
    else:
        jacobians = torch.autograd.functional.jacobian(density, tuple(arrays))
    there = exists[:, None] & exists
    for strictly, jacobian in zip((0, 0, -1), jacobians, strict=True):
        np.testing.assert_array_equal(numbers(jacobian)[:, 0] != 0, np.tri(7, k=strictly, dtype=bool) & there)


@pytest.mark.parametrize("case", ALONE, ids=repr)
def test_independent_trials_see_nothing_of_each_other(case):
    given, value = data(case, batch=1), torch.tensor(data(case, batch=1).value)
    distribution = scored(case, "torch", given)
    jacobian = torch.autograd.functional.jacobian(lambda value: distribution.conditionals(value)[0], value)
    jacobian = numbers(jacobian[:, 0, :, 1] if case is DISCRIMINATION else jacobian[:, 0])
    np.testing.assert_array_equal(jacobian != 0, np.eye(7, dtype=bool))
    np.testing.assert_array_equal(numbers(distribution.marginals(value)), numbers(distribution.conditionals(value)))
    np.testing.assert_array_equal(numbers(distribution.leave_one_out(value)), numbers(distribution.conditionals(value)))
    # A context says nothing where all parameters are given; a past neither.
    close(distribution.conditionals(value), conditionals(case, "torch", replaced(given, context=None)), rtol=0, atol=0)
    rest = distribution.condition(value[:, :3])
    close(rest.conditionals(value[:, 3:]), distribution.conditionals(value)[:, 3:], atol=1e-6)


@pytest.mark.parametrize("case", DIRECT, ids=repr)
def test_one_trial_is_the_first_of_many(case):
    given = data(case)
    many, one = conditionals(case, "torch", given), select(case, given, [0])
    close(conditionals(case, "torch", one), many[:, :1], atol=1e-6)
    source = scored(case, "torch", one, environment=case.environment)
    value, _, log_probs = rollout("torch", source, uniform(source, (2,)))
    assert value.shape == (2, 3, 1, *case.schema.event_shape_tail)
    close(source.conditionals(array("torch", value)), log_probs)


@pytest.mark.parametrize("part", ["direct", "buffer"])
@pytest.mark.parametrize("case", [RESPONDING, GUESS], ids=repr)
def test_heads_that_read_the_representations_give_the_density(case, part):
    given, net = data(case), network(case, "torch")
    source = scored(case, "torch", given, likelihood=part)
    value = array("torch", given.value)
    representation = density.representations(source.query, value)
    assert tuple(representation.shape[:2]) == (3, 7)
    outcomes = {name: x[:, None] for name, x in split_value(case.schema, value).items()}
    found = trial_log_prob(net.likelihood if part == "direct" else net, representation[:, None], outcomes, None)
    close(found[:, 0], source.conditionals(value), atol=1e-6)


@on_both(DIRECT, quick=[])
def test_what_was_observed_for_one_part_serves_the_other(case, backend):
    given = data(case)
    mask = np.random.default_rng(1).random((3, 7)) < 0.7
    for seen_by, read_by in itertools.product(("direct", "buffer"), repeat=2):
        seen = observed(case, backend, given, trial_mask=mask, likelihood=seen_by)
        assert (seen.sequence is None) == (seen_by == "buffer") == (seen.prepared is not None)
        fast = joint_predictive(case, backend, seen, params=given.params, likelihood=read_by)
        slow = scored(case, backend, given, trial_mask=mask, likelihood=read_by)
        close(fast.conditionals(seen.value), slow.conditionals(seen.value), atol=1e-5)
        index = np.array([2, 0])
        part = {name: x[index] for name, x in given.params.items()}
        some = joint_predictive(case, backend, seen[index], params=part, likelihood=read_by)
        close(some.log_prob(seen[index].value), numbers(slow.log_prob(seen.value))[index], atol=1e-4)
        if len(given.params) > 1:
            # Hidden parameters are the transformer's matter, whoever is preferred.
            fast = joint_predictive(case, backend, seen, **first_told(given), likelihood=read_by)
            slow = scored(case, backend, given, trial_mask=mask, **first_told(given), likelihood="buffer")
            close(fast.conditionals(seen.value), slow.conditionals(seen.value), atol=1e-5)
    direct, buffer = (conditionals(case, backend, given, likelihood=part) for part in ("direct", "buffer"))
    assert (direct != buffer).all()
    np.testing.assert_array_equal(conditionals(case, backend, given), direct)


@pytest.mark.parametrize("case", [RESPONDING, DISCRIMINATION], ids=repr)
def test_derivatives_in_double_precision_are_finite_differences(case):
    """The part was asked for in single precision before; draws of parameters share the data."""
    close(network(case, "torch").likelihood.weights["read.shift.bias"], weights(case)["likelihood.read.shift.bias"])
    net = copy.deepcopy(network(case, "torch")).double()
    given = data(case, trials=4)
    value = torch.tensor(given.value.astype(float))
    inputs, feedback = array("torch", given.inputs), array("torch", given.feedback)

    def density(*params):
        conditioned = dict(zip(given.params, params, strict=True))
        distribution = JointPredictive(net, inputs, params=conditioned, feedback=feedback, lapse=0.2)
        found = distribution.log_prob(value)
        assert found.dtype == torch.float64
        return found

    params = [torch.tensor(x.astype(float) * [[1.0], [0.9]], requires_grad=True) for x in given.params.values()]
    assert torch.autograd.gradcheck(density, params, eps=1e-6, atol=1e-6, rtol=1e-5)


def test_functions_of_torch_and_a_subsampling_plate():
    case = RESPONDING
    given, seen = data(case), observed(case, "torch", data(case))
    net, params = network(case, "torch"), array("torch", data(case).params)
    expected = scored(case, "torch", given).log_prob(seen.value)

    def total(params):
        return JointPredictive(net, seen, params=params, validate_args=False).log_prob(seen.value).sum()

    draws = {name: torch.stack([x, 0.9 * x]) for name, x in params.items()}
    mapped = torch.func.vmap(total)(draws)
    close(mapped, torch.stack([total({name: x[i] for name, x in draws.items()}) for i in range(2)]))
    gradient = torch.func.grad(total)(params)
    leaves = {name: x.clone().requires_grad_() for name, x in params.items()}
    total(leaves).backward()
    close(gradient, {name: x.grad for name, x in leaves.items()})

    def model():
        with pyro.plate("people", 3, subsample=torch.tensor([2, 0])) as index:
            some = {name: x[index] for name, x in params.items()}
            pyro.sample("trials", JointPredictive(net, seen[index], params=some), obs=seen.value[index])

    trace = pyro.poutine.trace(model).get_trace()
    close(trace.log_prob_sum(), 1.5 * expected[[2, 0]].sum())


def test_a_recorded_program_follows_the_slots_of_other_data():
    """Torch's tracer records numbers of steps as they are: another data set may show one category alone."""
    ops, part, rng = network(RESPONDING, "torch").ops, network(RESPONDING, "torch").likelihood, np.random.default_rng(3)
    x, slots = (torch.tensor(rng.normal(size=shape), dtype=torch.float32) for shape in ((2, 1, 7, 14), (2, 5, 3, 8)))
    valid = torch.tensor(rng.random((2, 1, 7)) < 0.8)

    def run(slot):
        return ops.recurrent_slots(part, "slots", x, slots, slot, valid)

    mixed, alike = torch.tensor(rng.integers(0, 3, (2, 1, 7))), torch.full((2, 1, 7), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        recorded = torch.jit.trace(run, (mixed,), check_trace=False)
    for slot in (mixed, alike):
        (own, after), (expected, behind) = recorded(slot), run(slot)
        close(torch.where(valid[..., None], own, 0.0), torch.where(valid[..., None], expected, 0.0), atol=1e-6)
        close(after, behind, atol=1e-6)
    np.testing.assert_array_equal(after[:, :, :2], slots[:, :, :2])


class Growing:
    """A reward that grows with every trial that exists, by its choice."""

    initial_state = {"level": 0.5}

    def __call__(self, trial, inputs, outcomes, uniform, state):
        level = state["level"] + 0.1 + 0.3 * outcomes["choice"]
        return {"reward": level + 0.1 * uniform[..., 0]}, {"level": level}


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_an_environment_with_a_state(backend):
    given, mask = data(RESPONDING), np.broadcast_to(BEGINNING, (3, 7))
    source = scored(RESPONDING, backend, given, feedback=None, environment=Growing(), trial_mask=mask)
    noise = uniform(source, (2,))
    value, feedback, log_probs = rollout(backend, source, noise)
    levels = 0.5 + np.cumsum(np.where(mask, 0.1 + 0.3 * value[..., 0], 0), -1)
    close(np.where(mask, feedback["reward"], 0), np.where(mask, levels + 0.1 * noise[..., -1], 0), atol=1e-5)
    drawn = replaced(given, value=value, feedback=feedback)
    close(conditionals(RESPONDING, backend, drawn, trial_mask=mask, trials=7), log_probs)


@pytest.mark.slow
@pytest.mark.parametrize("case", [RESPONDING, DISCRIMINATION], ids=repr)
def test_transformations_of_jax(case):
    given, seen = data(case), observed(case, "jax", data(case))
    params, expected = (
        array("jax", given.params),
        numbers(scored(case, "torch", given).log_prob(torch.tensor(given.value))),
    )

    def one(data_set, params):
        return joint_predictive(case, "jax", data_set, params=params).log_prob(data_set.value)

    apart = seen[jnp.arange(3)]
    close(jax.jit(jax.vmap(one))(apart, params), expected)
    draws = {name: jnp.stack([x, 0.9 * x]) for name, x in params.items()}

    def step(carry, params):
        return carry, one(carry, params)

    scanned = jax.jit(lambda seen, draws: jax.lax.scan(step, seen, draws)[1])(seen, draws)
    close(scanned[0], expected)
    close(scanned, jax.jit(jax.vmap(one, in_axes=(None, 0)))(seen, draws))
    distribution = joint_predictive(case, "jax", seen, params=params)
    handed = jax.jit(lambda d: (d, d.log_prob(seen.value)))(distribution)
    close(handed[1], expected)
    assert handed[0].query.direct


# Nothing is given, and nothing is shown: what it draws depends on what it drew.
BARE = Case("bare", Schema(outcomes={"key": HABIT.schema.outcomes["key"]}, ordered=True), config=DIRECT_SIZES)


def test_a_schema_of_one_outcome_and_nothing_else():
    source = joint_predictive(BARE, "torch", {}, trials=7)
    value, _, log_probs = rollout("torch", source, uniform(source, (9,)))
    assert value.shape == (9, 7)
    close(source.conditionals(array("torch", value)), log_probs)
    changed = value.copy()
    changed[:, 2] = (changed[:, 2] + 1) % 3
    before, after = (numbers(source.conditionals(array("torch", x))) for x in (value, changed))
    np.testing.assert_array_equal((before != after).any(0), np.arange(7) >= 2)
