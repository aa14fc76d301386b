"""The laws that every network, head and backend obeys, whatever its weights.

Laws of one backend are checked in torch, where they cost milliseconds; `test_mirror_*` then compares every method of
the JAX backend with torch. What JAX could break on its own (exact zeros, compiled masks, tracing) is checked in both.
"""

import copy
import importlib
import itertools
import math
import warnings

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

import jax
import jax.numpy as jnp
import torch

from ppl_buffer.schema import Categorical, Interval, Positive
from tests.networks import (
    CASES,
    CONTAMINATED,
    DECISION,
    EXCHANGEABLE,
    FUNCTION,
    FUNCTION_RECORD,
    LAPSELESS,
    LEARNING,
    ORDERED,
    REPORT,
    SLIDER,
    array,
    data,
    joint_predictive,
    network,
    quick_compilation,  # noqa: F401
    rollout,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")
BACKENDS = ["torch", "jax"]
DEPENDENT = [case for case in EXCHANGEABLE if not case.schema.independent]
WITH_LAPSE = [case for case in CASES if case.has_lapse]
# Trials 2 and 5 of 7 do not exist, in any data set: what remains has one shape.
HOLES = np.array([True, True, False, True, True, False, True])


def on_both(cases, quick=(LEARNING, FUNCTION)):
    """Parametrise by case and backend; JAX, which compiles for seconds, only for some cases unless there is time."""
    rows = []
    for case, backend in itertools.product(cases, BACKENDS):
        marks = [pytest.mark.slow] if backend == "jax" and case not in quick else []
        rows.append(pytest.param(case, backend, marks=marks, id=f"{case}-{backend}"))
    return pytest.mark.parametrize(("case", "backend"), rows)


def slow(case):
    return pytest.param(case, marks=pytest.mark.slow, id=repr(case))


def scored(case, backend, given, **more):
    return joint_predictive(case, backend, given.inputs, **given.arguments(**more))


def numbers(result):
    return np.asarray(result.detach() if isinstance(result, torch.Tensor) else result)


def conditionals(case, backend, given, **more):
    return numbers(scored(case, backend, given, **more).conditionals(array(backend, given.value)))


def uniform(distribution, sample_shape=(), seed=3):
    return np.random.default_rng(seed).uniform(0.001, 0.999, distribution.noise_shape(sample_shape))


def first_told(given, count=1):
    return {"params": dict(itertools.islice(given.params.items(), count))}


def per_trial(case, values, index):
    """Index the trials of a value (..., K[, n_outcomes])."""
    return values[..., index, :] if case.schema.event_shape_tail else values[..., index]


def replaced(given, **changes):
    other = copy.copy(given)
    for name, value in changes.items():
        setattr(other, name, value)
    return other


def select(case, given, index):
    """The same data with the trials `index` alone."""
    return replaced(
        given,
        inputs={name: x[..., index] for name, x in given.inputs.items()},
        feedback={name: x[..., index] for name, x in given.feedback.items()},
        value=per_trial(case, given.value, index),
    )


# Law 1: one pass = rollout -------------------------------------------------------------------------------------------

ROLLOUTS = {
    "plain": {},
    "mask": {"trial_mask": np.broadcast_to(HOLES, (3, 7))},
    "lapse": {"lapse": np.array([0.1, 0.5, 0.9], dtype=np.float32)},
    "block of 1": {"block": 1},
    "block of 3": {"block": 3},
    "orders": {"orders": 5},
}


@pytest.mark.parametrize("variant", ROLLOUTS)
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_one_pass_equals_rollout(case, variant):
    options = ROLLOUTS[variant]
    if (variant == "lapse" and not case.has_lapse) or (case.schema.ordered and {"block", "orders"} & set(options)):
        pytest.skip("not for this schema")
    check_one_pass(case, "torch", options)


@pytest.mark.slow
@pytest.mark.parametrize("case", [LEARNING, CONTAMINATED], ids=repr)
def test_one_pass_equals_rollout_in_jax(case):
    check_one_pass(case, "jax", {**ROLLOUTS["mask"], **ROLLOUTS["lapse"]})


def check_one_pass(case, backend, options):
    given = data(case)
    source = scored(case, backend, given, environment=case.environment, feedback=None, **first_told(given), **options)
    value, feedback, log_probs = rollout(backend, source, uniform(source, (2,)))
    assert value.shape == (2, 3, 7, *case.schema.event_shape_tail)
    assert set(feedback) == set(case.schema.feedback)
    drawn = replaced(given, value=value, feedback=feedback)
    if "orders" in options:
        # Each draw follows one of the orders: which one is read off the first number of the last row of noise.
        noise = uniform(source, (2,))
        orders = np.array(source.orders)[np.floor(noise[..., -1, 0] * 5).astype(int)]
        flat = [(s, b) for s in range(2) for b in range(3)]
        for s, b in flat:
            order = orders[s, b]
            one = replaced(
                given,
                inputs={name: x[b, order] for name, x in given.inputs.items()},
                feedback={name: x[s, b, order] for name, x in feedback.items()},
                value=value[s, b, order],
                params={name: x[b] for name, x in given.params.items()},
                context={name: x[b] for name, x in given.context.items()},
            )
            again = scored(case, backend, one, trials=7, **first_told(one)).conditionals(array(backend, one.value))
            np.testing.assert_allclose(numbers(again), log_probs[s, b, order], rtol=1e-4, atol=1e-4)
        return
    again = conditionals(case, backend, drawn, trials=7, **first_told(given), **options)
    np.testing.assert_allclose(again, log_probs, rtol=1e-4, atol=1e-4)
    if "trial_mask" in options:
        assert (log_probs[..., ~HOLES] == 0).all()


# Law 2: unit integral ------------------------------------------------------------------------------------------------


def grid(variable, points=1201):
    """Places (n,) on the user's scale, and weights of a sum or of the trapezoidal rule over all legal values."""
    if isinstance(variable, Categorical):
        return np.arange(variable.n, dtype=float), np.ones(variable.n)
    even = np.linspace(-1, 1, points)
    if isinstance(variable, Positive):
        places = np.exp(14 * even)
    elif isinstance(variable, Interval):
        places = variable.low + (variable.high - variable.low) / (1 + np.exp(-14 * even))
    else:
        places = np.sinh(5 * even)
    if variable.lapse_range is not None:
        # The edges of the lapse density are jumps: the rule needs a point on each side.
        edges = np.array(
            [variable.lapse_range[0], np.nextafter(np.float32(variable.lapse_range[1]), np.float32(np.inf))]
        )
        inside = np.array(
            [np.nextafter(np.float32(variable.lapse_range[0]), np.float32(-np.inf)), variable.lapse_range[1]]
        )
        both = np.concatenate([edges, inside])
        places = np.union1d(places, both[variable.contains(np, both)])
    weights = np.zeros_like(places)
    weights[:-1] += np.diff(places) / 2
    weights[1:] += np.diff(places) / 2
    return places, weights


def outcome_grid(schema):
    """Values (S, n_outcomes) of one trial, and weights (S,)."""
    places, weights = zip(*(grid(variable) for variable in schema.outcomes.values()), strict=True)
    values = np.stack([x.ravel() for x in np.meshgrid(*places, indexing="ij")], -1)
    return values, np.prod([x.ravel() for x in np.meshgrid(*weights, indexing="ij")], 0)


def on_grid(case, given, trial):
    """Values (S, 1, K, ...) in which one trial's outcomes run over the grid, and the weights."""
    values, weights = outcome_grid(case.schema)
    value = np.repeat(given.value[None], len(values), 0).astype(np.float32)
    if case.schema.event_shape_tail:
        value[:, :, trial] = values[:, None]
    else:
        value[:, :, trial] = values
    return value, weights


def integral(log_density, weights):
    return (np.exp(log_density.astype(float)) * weights[:, None]).sum(0)


@pytest.mark.parametrize("lapse", [None, 0.3])
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_unit_integral(case, lapse):
    if lapse and not case.has_lapse:
        pytest.skip("no lapse density")
    given = data(case, batch=1, trials=3)
    value, weights = on_grid(case, given, 1)
    value = array("torch", value)
    for conditioned in (first_told(given), {}):
        distribution = scored(case, "torch", given, lapse=lapse, **conditioned)
        assert integral(numbers(distribution.conditionals(value))[..., 1], weights) == pytest.approx(1, abs=2e-3)
        assert integral(numbers(distribution.marginals(value))[..., 1], weights) == pytest.approx(1, abs=2e-3)
        if not case.schema.ordered:
            left_out = distribution.leave_one_out(value)
            assert integral(numbers(left_out)[..., 1], weights) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("case", [REPORT, DECISION, SLIDER], ids=repr)
def test_unit_integral_in_jax(case):
    given = data(case, batch=1, trials=3)
    value, weights = on_grid(case, given, 1)
    found = scored(case, "jax", given).conditionals(array("jax", value))
    assert integral(numbers(found)[..., 1], weights) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("case", [case for case in CASES if case is not CONTAMINATED], ids=repr)
@pytest.mark.parametrize("lapse", [None, 0.3])
def test_mean_and_variance_are_the_integrals_over_the_marginals(case, lapse):
    if lapse and not case.has_lapse:
        pytest.skip("no lapse density")
    given = data(case, batch=1, trials=3)
    value, weights = on_grid(case, given, 1)
    distribution = scored(case, "torch", given, lapse=lapse)
    density = np.exp(numbers(distribution.marginals(array("torch", value)))[..., 1].astype(float))[:, 0] * weights
    columns, _ = outcome_grid(case.schema)
    for index, name in enumerate(case.schema.outcomes):
        mean, variance = (numbers(x)[0, 1, ...].reshape(-1)[index] for x in (distribution.mean, distribution.variance))
        first = (columns[:, index] * density).sum()
        assert mean == pytest.approx(first, rel=5e-3, abs=5e-3), name
        assert variance == pytest.approx(((columns[:, index] - first) ** 2 * density).sum(), rel=2e-2, abs=5e-3), name


def by_delay(backend, given, value):
    """Conditionals with a lapse, and the gradient of their sum by each data set's delay."""

    def compute(delay):
        params = {**{name: array(backend, x) for name, x in given.params.items()}, "delay": delay}
        return scored(DECISION, backend, given, params=params, lapse=0.25).conditionals(array(backend, value))

    if backend == "jax":
        delay = jnp.asarray(given.params["delay"])
        return compute(delay), jax.grad(lambda delay: compute(delay).sum())(delay)
    delay = torch.tensor(given.params["delay"], requires_grad=True)
    found = compute(delay)
    return numbers(found), torch.autograd.grad(found.sum(), delay)[0].numpy()


@pytest.mark.parametrize("backend", BACKENDS)
def test_fine_scales_stand_behind_the_others_the_coarsest_first(backend):
    net = network(LEARNING, backend)
    features = importlib.import_module(f"ppl_buffer.network.{backend}.network").features
    columns = {"pair": [2.0, 0.0, 1.0], "delay": [0.3, -1.7, 0.101], "reward": [0.0, 2.0, -1e-3]}
    x = {name: np.array(values) for name, values in columns.items()}
    variables = {**LEARNING.schema.inputs, **LEARNING.schema.feedback}
    found = features(net, variables, {name: array(backend, values) for name, values in x.items()})
    z = [(x[name] - net.standardization[name][0]) / net.standardization[name][1] for name in ("delay", "reward")]
    fine = [np.arcsinh(scale * each) / np.arcsinh(scale) for scale in (10, 100) for each in z]
    expected = np.stack([*np.eye(3)[[2, 0, 1]].T, *z, *fine], -1)
    np.testing.assert_allclose(np.concatenate([numbers(each) for each in found], -1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_an_outcome_below_a_told_bound_has_density_zero_and_finite_gradients(backend):
    given = data(DECISION, trials=5)
    value = given.value.copy()
    value[0, 2, 1] = 0.7 * given.params["delay"][0]
    distribution = scored(DECISION, backend, given)
    found = numbers(distribution.conditionals(array(backend, value)))
    assert np.isneginf(found[0, 2]) and np.isfinite(np.delete(found.ravel(), 2)).all()
    assert numbers(distribution.pit(array(backend, value)))[0, 2, 1] == 0
    # A lapse may fall there; what is below the bound then adds nothing to the bound's gradient.
    with_lapse, gradient = by_delay(backend, given, value)
    assert with_lapse[0, 2] == pytest.approx(np.log(0.25 / 2 / 10), rel=1e-5)
    elsewhere = by_delay(backend, given, given.value)[1]
    assert np.isfinite(gradient).all() and gradient[1] == pytest.approx(elsewhere[1]) and gradient[0] != elsewhere[0]
    hidden = {name: x for name, x in given.params.items() if name != "delay"}
    marginal = scored(DECISION, backend, given, params=hidden)
    assert np.isfinite(numbers(marginal.conditionals(array(backend, value)))).all()


def test_mean_of_an_outcome_after_a_continuous_one_is_refused():
    given = data(CONTAMINATED)
    with pytest.raises(NotImplementedError, match="'button': it follows a continuous outcome"):
        _ = scored(CONTAMINATED, "torch", given).mean


# Law 3: who depends on whom ------------------------------------------------------------------------------------------


def dependence(case, backend, monkeypatch, valid):
    """Jacobians of what the network computes by every token: dict output -> dict role -> (n_output, n_tokens, W)."""
    if backend == "jax":
        from ppl_buffer.network.jax import heads
        from ppl_buffer.network.jax import network as verbs

        xp, jacobian = jnp, lambda f, x: jax.jit(jax.jacrev(f))(x)
    else:
        from ppl_buffer.network.torch import heads
        from ppl_buffer.network.torch import network as verbs

        xp, jacobian = torch, lambda f, x: torch.func.jacrev(f)(x)
    net, given = network(case, backend), data(case, batch=1, trials=len(valid))
    schema, width = case.schema, case.config.width
    shift = {}
    pairs, targets, params = verbs.embed_pairs, verbs.embed_targets, verbs.embed_params
    monkeypatch.setattr(verbs, "embed_pairs", lambda net, trials, role: pairs(net, trials, role) + shift[role])
    monkeypatch.setattr(
        verbs, "embed_targets", lambda net, inputs, shape: targets(net, inputs, shape) + shift["target"]
    )
    monkeypatch.setattr(verbs, "embed_params", lambda net, values: params(net, values) + shift["param"])

    def grouped(values):
        return {
            group: {name: array(backend, values[name][:, None]) for name in getattr(schema, group)}
            for group in ("inputs", "outcomes", "feedback")
        }

    columns = np.moveaxis(given.value, -1, 0) if schema.event_shape_tail else [given.value]
    named = {**given.inputs, **dict(zip(schema.outcomes, columns, strict=True)), **given.feedback}
    trials, shape = grouped(named), (1, 1, len(valid))
    exists = array(backend, valid[None, None])
    rng = np.random.default_rng(1)
    mix = array(backend, rng.normal(size=64).astype(np.float32))

    def project(x):  # (1, H, 1, N, E) -> (N,)
        flat = xp.moveaxis(x, -2, 0).reshape(x.shape[-2], -1)
        return flat @ mix[: flat.shape[-1]]

    def tokens_first(keys):  # JAX keeps keys transposed
        return keys.mT if backend == "jax" else keys

    def compute(shifts):
        shift.update(shifts)
        cache = verbs.Cache()
        if given.context is not None:
            context = grouped(given.context)
            known = array(backend, np.ones((1, 1, given.context[next(iter(schema.outcomes))].shape[-1]), bool))
            cache = verbs.encode(net, context, known)
        full = verbs.extend(net, cache, trials, exists)
        prepared = verbs.prepare(net, full, trials["inputs"], xp.arange(len(valid)), shape)
        conditioned = verbs.encode_params(net, {name: array(backend, x[:, None]) for name, x in given.params.items()})
        outputs = {
            "log_probs": heads.trial_log_prob(net, verbs.predict(net, prepared, conditioned), trials["outcomes"])[0, 0],
            "buffer": project(tokens_first(full.buffer[-1].keys)) + project(full.buffer[-1].values),
            "param": project(tokens_first(conditioned.segments[-1].keys)) + project(conditioned.segments[-1].values),
            "prepared": project(prepared.tokens[:, None]) + project(prepared.reading.weighted / prepared.reading.total),
        }
        if given.context is not None:
            outputs["context"] = project(tokens_first(full.context[-1].keys)) + project(full.context[-1].values)
        return outputs

    sizes = {"buffer": len(valid), "target": len(valid), "param": len(schema.params)}
    if given.context is not None:
        sizes["context"] = 5
    zeros = {role: array(backend, np.zeros((size, width), np.float32)) for role, size in sizes.items()}
    return {
        output: {role: numbers(x) for role, x in by_role.items()}
        for output, by_role in jacobian(compute, zeros).items()
    }


@on_both(CASES)
def test_tokens_depend_on_what_they_may_see_and_on_nothing_else(case, backend, monkeypatch):
    # A trial in the middle does not exist.
    valid = np.array([True, True, False, True, True])
    jacobians = dependence(case, backend, monkeypatch, valid)
    later, itself = np.tri(5, 5, -1, dtype=bool), np.eye(5, dtype=bool)
    everything, nothing = np.True_, np.False_
    expected = {
        "log_probs": {"context": everything, "buffer": later & valid, "target": itself, "param": everything},  # R4
        "prepared": {"context": everything, "buffer": later & valid, "target": itself, "param": nothing},  # R4, R5
        "buffer": {
            "context": everything,
            "buffer": (later & valid) | itself,
            "target": nothing,
            "param": nothing,
        },  # R2
        "context": {"context": everything, "buffer": nothing, "target": nothing, "param": nothing},  # R1, R3
        "param": {"context": nothing, "buffer": nothing, "target": nothing},  # R5
    }
    for output, by_role in jacobians.items():
        for role, jacobian in by_role.items():
            assert np.isfinite(jacobian).all()
            if role in expected[output]:
                found = np.abs(jacobian).max(-1) > 0
                wanted = np.broadcast_to(expected[output][role], found.shape)
                np.testing.assert_array_equal(found, wanted, err_msg=f"{output} by {role}")


@on_both([LEARNING, FUNCTION], quick=[FUNCTION])
def test_later_outcomes_have_exactly_no_influence(case, backend):
    given = data(case, batch=1)
    distribution = scored(case, backend, given)
    value = array(backend, given.value)

    def density(value):
        return distribution.conditionals(value)[0]

    if backend == "jax":
        jacobian = numbers(jax.jit(jax.jacrev(density))(value))
    else:
        jacobian = numbers(torch.autograd.functional.jacobian(density, value))
    # (K, 1, K) or (K, 1, K, n_outcomes); the response time is the continuous outcome of the learner.
    jacobian = jacobian[:, 0, :, 1] if case is LEARNING else jacobian[:, 0]
    np.testing.assert_array_equal(jacobian != 0, np.tri(7, dtype=bool))


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_changing_a_later_trial_changes_no_bit_before_it(case):
    given, other = data(case), data(case, seed=1)
    value = given.value.copy()
    value[:, 4:] = other.value[:, 4:]
    inputs = {name: np.concatenate([x[:, :5], other.inputs[name][:, 5:]], 1) for name, x in given.inputs.items()}
    feedback = {name: np.concatenate([x[:, :4], other.feedback[name][:, 4:]], 1) for name, x in given.feedback.items()}
    before = conditionals(case, "torch", given)
    after = conditionals(case, "torch", replaced(given, value=value, inputs=inputs, feedback=feedback))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).any(0).all()


@on_both(EXCHANGEABLE)
def test_context_is_a_set(case, backend):
    given = data(case)
    order = np.random.default_rng(0).permutation(5)
    permuted = {name: x[:, order] for name, x in given.context.items()}
    other = {**given.context, **{name: data(case, seed=1).context[name] for name in case.schema.outcomes}}
    found = conditionals(case, backend, given)
    np.testing.assert_allclose(
        conditionals(case, backend, replaced(given, context=permuted)), found, rtol=1e-4, atol=1e-5
    )
    assert (np.abs(conditionals(case, backend, replaced(given, context=other)) - found) > 1e-5).all()


@on_both(CASES)
def test_masked_trials_are_inert(case, backend):
    given = data(case)
    mask = np.broadcast_to(HOLES, (3, 7))
    garbage = replaced(
        given,
        inputs={name: x.copy() for name, x in given.inputs.items()},
        feedback={name: x.copy() for name, x in given.feedback.items()},
        value=given.value.copy(),
    )
    for x in (*garbage.inputs.values(), *garbage.feedback.values(), garbage.value):
        x[:, 2], x[:, 5] = np.nan, -1e30
    found = conditionals(case, backend, garbage, trial_mask=mask)
    assert (found[:, ~HOLES] == 0).all()
    deleted = conditionals(case, backend, select(case, given, HOLES))
    np.testing.assert_allclose(found[:, HOLES], deleted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found, conditionals(case, backend, given, trial_mask=mask))


@on_both([LEARNING, FUNCTION], quick=[FUNCTION])
def test_masked_garbage_leaves_gradients_finite(case, backend):
    given = data(case)
    value = given.value.copy()
    value[:, 2], value[:, 5] = np.nan, -1e30
    options = {"trial_mask": np.broadcast_to(HOLES, (3, 7)), "lapse": 0.2}
    distribution = scored(case, backend, given, **options)
    value = array(backend, value)
    if backend == "jax":
        gradient = numbers(jax.jit(jax.grad(lambda v: distribution.conditionals(v).sum()))(value))
    else:
        value.requires_grad_()
        distribution.conditionals(value).sum().backward()
        gradient = value.grad.numpy()
    assert np.isfinite(gradient).all()
    assert (gradient[:, ~HOLES] == 0).all()
    continuous = gradient[:, HOLES, 1] if case is LEARNING else gradient[:, HOLES]
    assert (continuous != 0).all()


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_masked_trials_are_inert_in_every_method(case):
    given = data(case)
    mask = np.broadcast_to(HOLES, (3, 7))
    source = scored(case, "torch", given, trial_mask=mask, environment=case.environment)
    kept = scored(case, "torch", select(case, given, HOLES), environment=case.environment)
    value, short = array("torch", given.value), array("torch", per_trial(case, given.value, HOLES))
    pairs = [
        (source.log_prob(value), kept.log_prob(short)),
        (source.marginals(value)[..., HOLES], kept.marginals(short)),
    ]
    places = torch.rand((3, 7, len(case.schema.outcomes)))
    cdf, short_cdf = source.cdf_values(value, places), kept.cdf_values(short, places[:, HOLES])
    pairs.append((per_trial(case, cdf, HOLES), short_cdf))
    if not case.schema.ordered:
        pairs.append((source.leave_one_out(value)[..., HOLES], kept.leave_one_out(short)))
    noise = uniform(source)
    drawn, short_drawn = rollout("torch", source, noise), rollout("torch", kept, noise[:, HOLES])
    pairs.append((per_trial(case, drawn[0], HOLES), short_drawn[0]))
    pairs.append((drawn[2][:, HOLES], short_drawn[2]))
    for left, right in pairs:
        np.testing.assert_allclose(numbers(left), numbers(right), rtol=1e-4, atol=1e-4)


# Law 4: empty buffer, re-encoding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_empty_buffer_is_the_set_predictor(case):
    given = data(case)
    distribution = scored(case, "torch", given, **first_told(given))
    value = array("torch", given.value)
    marginals, joint = numbers(distribution.marginals(value)), numbers(distribution.conditionals(value))
    # The first trial sees an empty buffer either way; only the order of the sums differs.
    np.testing.assert_allclose(marginals[:, 0], joint[:, 0], rtol=2e-6, atol=1e-6)
    if first_told(given)["params"].keys() != given.params.keys() or not case.schema.independent:
        assert (marginals[:, 1:] != joint[:, 1:]).all()
    for trial in (2, 6):
        alone = select(case, given, [trial])
        np.testing.assert_allclose(
            conditionals(case, "torch", alone, **first_told(given))[:, 0], marginals[:, trial], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("case", [DECISION], ids=repr)
def test_independent_trials_need_no_buffer_once_all_is_told(case):
    given = data(case)
    distribution = scored(case, "torch", given)
    value = array("torch", given.value)
    np.testing.assert_array_equal(distribution.conditionals(value), distribution.marginals(value))
    assert (numbers(distribution.conditionals(value)) != conditionals(case, "torch", given, **first_told(given))).all()


def grow(case, given, count):
    """The context with the first `count` trials after it."""
    schema, tail = case.schema, case.schema.event_shape_tail
    context = {} if given.context is None else given.context
    columns = {name: given.value[..., i] if tail else given.value for i, name in enumerate(schema.outcomes)}
    trials = {name: x[:, :count] for name, x in {**given.inputs, **columns, **given.feedback}.items()}
    return {name: np.concatenate([context[name], x], 1) if context else x for name, x in trials.items()}


@pytest.mark.parametrize("with_context", [True, False])
@pytest.mark.parametrize("case", EXCHANGEABLE, ids=repr)
def test_block_of_one_is_re_encoding_autoregression(case, with_context):
    given = data(case, context=with_context)
    conditioned = first_told(given) if len(given.params) > 1 else {"params": None}
    found = conditionals(case, "torch", given, block=1, **conditioned)
    for k in range(7):
        context = grow(case, given, k) if with_context or k else None
        by_hand = scored(case, "torch", select(case, given, [k]), **conditioned, context=context)
        value = array("torch", per_trial(case, given.value, [k]))
        np.testing.assert_allclose(numbers(by_hand.marginals(value))[:, 0], found[:, k], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", DEPENDENT, ids=repr)
def test_block_merges_full_blocks_into_the_context(case):
    given = data(case)
    found = conditionals(case, "torch", given, block=3)
    for start, stop in ((0, 3), (3, 6), (6, 7)):
        index = list(range(start, stop))
        context = grow(case, given, start) if start else given.context
        by_hand = conditionals(case, "torch", select(case, given, index), context=context)
        np.testing.assert_allclose(by_hand, found[:, start:stop], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        conditionals(case, "torch", given, block=7), conditionals(case, "torch", given), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(
        conditionals(case, "torch", given, block=99), conditionals(case, "torch", given, block=7)
    )


# Law 5: the mirror ---------------------------------------------------------------------------------------------------


def close(left, right, rtol=1e-4, atol=1e-4):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(numbers(a), numbers(b), rtol=rtol, atol=atol)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_mirror_of_densities(case):
    given = data(case)
    rng = np.random.default_rng(5)
    lapse = np.array([0.1, 0.4, 0.7], np.float32) if case.has_lapse else None
    options = {"trial_mask": rng.random((3, 7)) < 0.8, "lapse": lapse, **first_told(given)}
    places = rng.uniform(size=(3, 7, len(case.schema.outcomes))).astype(np.float32)

    def everything(backend):
        distribution = scored(case, backend, given, **options)

        def compute(distribution, value, places):
            results = {
                "conditionals": distribution.conditionals(value),
                "marginals": distribution.marginals(value),
                "cdf": distribution.cdf_values(value, places),
                "log_prob": distribution.log_prob(value),
            }
            if case is not CONTAMINATED:
                results["moments"] = distribution.marginal_moments()
            if not case.schema.ordered:
                results["leave_one_out"] = distribution.leave_one_out(value)
            return results

        compiled = jax.jit(compute) if backend == "jax" else compute
        return compiled(distribution, array(backend, given.value), array(backend, places))

    close(everything("torch"), everything("jax"))


@pytest.mark.parametrize("case", [FUNCTION, slow(CONTAMINATED)], ids=repr)
@pytest.mark.parametrize("options", [{"orders": 5}, {"block": 3}], ids=str)
def test_mirror_of_orders_and_blocks(case, options):
    given = data(case)
    results = []
    for backend in BACKENDS:
        distribution = scored(case, backend, given, environment=case.environment, **options)
        drawn = rollout(backend, distribution, uniform(distribution, (2,)))
        results.append((distribution.log_prob(array(backend, given.value)), drawn))
    close(*results)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_mirror_of_draws(case):
    given = data(case)
    options = {"lapse": 0.4} if case.has_lapse else {}
    results = []
    for backend in BACKENDS:
        distribution = scored(case, backend, given, environment=case.environment, **options)
        results.append(rollout(backend, distribution, uniform(distribution, (2,))))
    close(*results)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_mirror_of_gradients(case):
    """Gradients by value, parameters, context, inputs, feedback and lapse: nothing stops them."""
    given = data(case)
    schema = case.schema
    continuous = {name for group in (schema.params, schema.inputs, schema.outcomes, schema.feedback)
                  for name, variable in group.items() if not isinstance(variable, Categorical)}  # fmt: skip
    weights = np.random.default_rng(2).normal(size=(3, 7)).astype(np.float32)
    arguments = {
        "value": given.value,
        "params": given.params,
        "inputs": given.inputs,
        "feedback": given.feedback,
        **({"context": given.context} if given.context else {}),
        **({"lapse": np.full(3, 0.2, np.float32)} if case.has_lapse else {}),
    }

    def total(arguments, backend):
        rest = dict(arguments)
        value, inputs = rest.pop("value"), rest.pop("inputs")
        distribution = joint_predictive(case, backend, inputs, trials=7, **rest)
        return (distribution.conditionals(value) * array(backend, weights)).sum()

    by_jax = jax.jit(jax.grad(total), static_argnums=1)(array("jax", arguments), "jax")
    leaves = array("torch", arguments)
    flat = [x for entry in leaves.values() for x in (entry.values() if isinstance(entry, dict) else [entry])]
    for leaf in flat:
        leaf.requires_grad_()
    total(leaves, "torch").backward()
    assert by_jax.keys() == leaves.keys()
    for group, entry in leaves.items():
        for name, leaf in entry.items() if isinstance(entry, dict) else [(group, entry)]:
            other = by_jax[group][name] if isinstance(entry, dict) else by_jax[group]
            gradient = np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
            np.testing.assert_allclose(gradient, numbers(other), rtol=1e-3, atol=1e-4, err_msg=f"{group}: {name}")
            if name in continuous or group == "lapse":
                # The last trial's feedback is seen by nobody.
                assert (gradient[..., : 6 if group == "feedback" else None] != 0).all(), (group, name)


@pytest.mark.parametrize("case", [LEARNING, SLIDER], ids=repr)
def test_gradients_are_those_of_finite_differences(case):
    net = copy.deepcopy(network(case, "torch")).double()
    given = data(case)
    double = {name: x.astype(float) for name, x in given.params.items()}
    options = given.arguments(params=None, lapse=0.2)
    inputs, value = array("torch", given.inputs), array("torch", given.value.astype(float))

    def density(*params):
        conditioned = dict(zip(double, params, strict=True))
        distribution = joint_predictive(case, "torch", inputs, net, **{**options, "params": conditioned})
        return distribution.log_prob(value)

    params = [torch.tensor(x, requires_grad=True) for x in double.values()]
    assert torch.autograd.gradcheck(density, params, eps=1e-6, atol=1e-6, rtol=1e-5)


# Law 6: sharing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_draws_from_one_context_equal_independent_ones(case):
    given = data(case)
    source = scored(case, "torch", given, environment=case.environment)
    noise = uniform(source, (4,))
    together = rollout("torch", source, noise)
    for s in range(4):
        close(jax.tree.map(lambda x, s=s: x[s], together), rollout("torch", source, noise[s]), atol=1e-5)
    for b in range(3):
        one = replaced(given, **{
            key: None if group is None else {name: x[b] for name, x in group.items()}
            for key, group in vars(given).items() if key != "value"
        })  # fmt: skip
        alone = scored(case, "torch", one, trials=7, environment=case.environment)
        close(jax.tree.map(lambda x, b=b: x[:, b], together), rollout("torch", alone, noise[:, b]), atol=1e-5)


@on_both([LEARNING, FUNCTION])
def test_batch_dimensions_broadcast_whoever_has_them(case, backend):
    """Draws of parameters before the data sets, a dimension that some data lack, and one in the middle."""
    given = data(case)
    rng = np.random.default_rng(7)
    names = list(given.params)
    params = {names[0]: given.params[names[0]] + 0 * rng.random((2, 1, 1)), names[1]: rng.lognormal(size=(4, 1))}
    params[names[0]][1] *= 0.7
    params = {name: x.astype(np.float32) for name, x in params.items()}
    wide = scored(case, backend, given, params=params)
    assert tuple(wide.batch_shape) == (2, 4, 3)
    found = numbers(wide.log_prob(array(backend, given.value)))
    assert found.shape == (2, 4, 3)
    for i, j in itertools.product(range(2), range(4)):
        conditioned = {names[0]: params[names[0]][i, 0], names[1]: params[names[1]][j]}
        one = scored(case, "torch", given, params=conditioned).log_prob(array("torch", given.value))
        np.testing.assert_allclose(found[i, j], numbers(one), rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_encoded_context_is_shared(backend):
    given = data(FUNCTION)
    net = network(FUNCTION, backend)
    encoded = net.encode(array(backend, given.context))
    assert (encoded.batch_shape, encoded.size) == ((3,), 5)
    by_hand = conditionals(FUNCTION, backend, given)
    np.testing.assert_allclose(conditionals(FUNCTION, backend, given, context=encoded), by_hand, rtol=1e-5, atol=1e-6)
    second = select(FUNCTION, given, slice(None))
    second = replaced(second, **{k: {n: x[1] for n, x in getattr(given, k).items()} for k in ("inputs", "params")})
    second = replaced(second, value=given.value[1:2], context=encoded[1], feedback={})
    alone = scored(FUNCTION, backend, second).conditionals(array(backend, given.value[1]))
    np.testing.assert_allclose(numbers(alone), by_hand[1], rtol=1e-4, atol=1e-5)


# Law 10: observe -----------------------------------------------------------------------------------------------------


def observed(case, backend, given, **more):
    options = {"feedback": array(backend, given.feedback), "context": array(backend, given.context)}
    options |= {name: array(backend, x) for name, x in more.items()}
    return network(case, backend).observe(array(backend, given.inputs), array(backend, given.value), **options)


@on_both(CASES)
def test_observe_changes_no_number(case, backend):
    given = data(case)
    mask = np.random.default_rng(1).random((3, 7)) < 0.7
    seen = observed(case, backend, given, trial_mask=mask)
    assert (seen.batch_shape, seen.trials) == ((3,), 7)
    fast = joint_predictive(case, backend, seen, params=given.params)
    slow = scored(case, backend, given, trial_mask=mask)
    value, other = array(backend, given.value), array(backend, data(case, seed=1).value)
    for at in (seen.value, value):
        close(fast.conditionals(at), slow.conditionals(value), atol=1e-5)
    close(fast.conditionals(other), slow.conditionals(other), atol=1e-5)
    if backend == "torch":
        close(fast.pit(seen.value), slow.pit(value), atol=1e-5)
        close(fast.marginals(seen.value), slow.marginals(value), atol=1e-5)
        part = joint_predictive(case, backend, seen[1:], params={k: x[1:] for k, x in given.params.items()})
        close(part.log_prob(seen.value[1:]), slow.log_prob(value)[1:], atol=1e-5)


@on_both([LEARNING, FUNCTION, DECISION], quick=[])
def test_observe_in_groups_of_similar_length_changes_no_number(case, backend):
    given = data(case, context=False)
    # The short sequences do not come first, and a trial in the middle of the long one does not exist.
    mask = np.arange(7) < np.array([2, 7, 2])[:, None]
    mask[1, 3] = False
    seen = observed(case, backend, given, trial_mask=mask)
    assert [len(group.members) for group in seen.groups] == [2, 1]
    value = array(backend, given.value)
    params = first_told(given)["params"]
    draws = {name: np.stack([x, x[::-1]])[:, None] for name, x in params.items()}
    lapse = np.array([0.1, 0.2, 0.3], np.float32)
    for conditioned in (params, draws):
        fast = joint_predictive(case, backend, seen, params=conditioned, lapse=lapse)
        slow = scored(case, backend, given, trial_mask=mask, params=conditioned, lapse=lapse)
        close(fast.conditionals(seen.value), slow.conditionals(value), atol=1e-5)
    part = joint_predictive(case, backend, seen[:2], params={k: x[:2] for k, x in params.items()}, lapse=lapse[:2])
    close(part.log_prob(seen.value[:2]), slow_log_prob(case, backend, given, mask, params, lapse)[:2], atol=1e-5)


def slow_log_prob(case, backend, given, mask, params, lapse):
    distribution = scored(case, backend, given, trial_mask=mask, params=params, lapse=lapse)
    return numbers(distribution.log_prob(array(backend, given.value)))


@pytest.mark.parametrize("case", [LEARNING, DECISION], ids=repr)
def test_observed_data_serve_a_dimension_of_draws(case):
    given = data(case)
    seen = observed(case, "torch", given)
    params = {name: np.stack([x, x[::-1]])[:, None] for name, x in given.params.items()}
    fast, slow = joint_predictive(case, "torch", seen, params=params), scored(case, "torch", given, params=params)
    assert tuple(fast.batch_shape) == (2, 1, 3)
    close(fast.log_prob(seen.value), slow.log_prob(seen.value), atol=1e-5)
    close(fast.expand([5, 2, 1, 3]).log_prob(seen.value), slow.expand([5, 2, 1, 3]).log_prob(seen.value), atol=1e-5)


def test_observe_computes_less():
    """At the observed value nothing below the parameters is computed again; at any other value everything is."""
    given = data(LEARNING)
    # Trials that do not exist may hold anything, NaN too.
    value = given.value.copy()
    value[:, ~HOLES] = np.nan
    mask = np.broadcast_to(HOLES, (3, 7))
    seen = observed(LEARNING, "torch", replaced(given, value=value), trial_mask=mask)
    distribution = joint_predictive(LEARNING, "torch", seen, params=given.params)
    calls = []
    from ppl_buffer.network import torch as joint

    real = joint.prepare_joint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint, "prepare_joint", lambda *arguments: calls.append(1) or real(*arguments))
        distribution.log_prob(seen.value)
        distribution.log_prob(seen.value.clone())
        assert not calls
        distribution.log_prob(seen.value + torch.tensor([0.0, 1.0]))
        assert calls


def test_a_value_changed_in_place_is_not_the_observed_one():
    given = data(LEARNING)
    mine = torch.as_tensor(given.value)
    seen = network(LEARNING, "torch").observe(
        array("torch", given.inputs), mine, feedback=array("torch", given.feedback)
    )
    distribution = joint_predictive(LEARNING, "torch", seen, params=given.params)
    before = distribution.log_prob(seen.value)
    seen.value[0, 2, 1] += 0.5
    changed = seen.value.clone()
    slow = scored(LEARNING, "torch", replaced(given, value=changed.numpy()))
    close(distribution.log_prob(seen.value), slow.log_prob(changed), atol=1e-5)
    assert distribution.log_prob(seen.value)[0] != before[0]
    mine[1] = mine[0]
    close(distribution.log_prob(seen.value), slow.log_prob(changed), atol=1e-5)


def test_a_numpy_value_changed_in_place_does_not_change_what_was_observed():
    given = data(LEARNING)
    for backend in BACKENDS:
        mine = given.value.copy()
        seen = network(LEARNING, backend).observe(given.inputs, mine, feedback=given.feedback)
        distribution = joint_predictive(LEARNING, backend, seen, params=given.params)
        before = numbers(distribution.log_prob(seen.value))
        mine[:] = 1.0
        np.testing.assert_array_equal(numbers(distribution.log_prob(seen.value)), before)


# Conditioning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ORDERED, ids=repr)
@pytest.mark.parametrize("masked", [False, True])
def test_condition_factorises_an_ordered_joint_density(case, masked):
    given = data(case)
    mask = {"trial_mask": np.random.default_rng(4).random((3, 7)) < 0.6} if masked else {}
    distribution = scored(case, "torch", given, **mask)
    value = array("torch", given.value)
    full = distribution.conditionals(value)
    rest = distribution.condition(value[:, :3])
    assert tuple(rest.event_shape) == (4, *case.schema.event_shape_tail)
    close(rest.conditionals(value[:, 3:]), full[:, 3:], atol=1e-5)
    later = rest.condition(value[:, 3:5])
    close(later.conditionals(value[:, 5:]), full[:, 5:], atol=1e-5)
    close(distribution.log_prob(value), full[:, :3].sum(-1) + rest.log_prob(value[:, 3:]), atol=1e-4)


@pytest.mark.parametrize("case", ORDERED, ids=repr)
def test_draws_after_conditioning_continue_the_rollout(case):
    given = data(case)
    source = scored(case, "torch", given, environment=case.environment, feedback=None)
    noise = uniform(source)
    value, feedback, log_probs = rollout("torch", source, noise)
    known = scored(case, "torch", replaced(given, feedback=feedback), environment=case.environment)
    later = rollout("torch", known.condition(array("torch", value[:, :3])), noise[:, 3:])
    close(later, (value[:, 3:], {name: x[:, 3:] for name, x in feedback.items()}, log_probs[:, 3:]))


def test_condition_in_jax():
    given = data(LEARNING)
    both = []
    for backend in BACKENDS:
        value = array(backend, given.value)
        both.append(scored(LEARNING, backend, given).condition(value[:, :3]).conditionals(value[:, 3:]))
    close(*both)


@pytest.mark.parametrize("case", DEPENDENT, ids=repr)
def test_condition_of_an_exchangeable_model_joins_the_context(case):
    given = data(case)
    value = array("torch", given.value)
    rest = scored(case, "torch", given).condition(value[:, :3])
    by_hand = conditionals(case, "torch", select(case, given, [3, 4, 5, 6]), context=grow(case, given, 3))
    close(rest.conditionals(value[:, 3:]), by_hand, atol=1e-5)
    close(rest.conditionals(value[:, 3:])[:, :3], conditionals(case, "torch", given, block=3)[:, 3:6], atol=1e-5)


def test_condition_on_several_pasts_at_once():
    """A sample dimension of the past becomes a batch dimension of the future."""
    given = data(REPORT)
    distribution = scored(REPORT, "torch", given)
    pasts = array("torch", np.random.default_rng(0).integers(0, 5, (2, 3, 3)).astype(np.float32))
    rest = distribution.condition(pasts)
    assert tuple(rest.batch_shape) == (2, 3)
    future = array("torch", given.value[:, 3:])
    for s in range(2):
        close(rest.log_prob(future)[s], distribution.condition(pasts[s]).log_prob(future), atol=1e-5)


# Leave-one-out, PIT, orders, lapse -----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", EXCHANGEABLE, ids=repr)
@pytest.mark.parametrize("with_context", [True, False])
def test_leave_one_out_is_explicit_re_encoding(case, with_context):
    given = data(case, context=with_context)
    # Where all is told of independent trials, the others are not read.
    conditioned = first_told(given) if case.schema.independent else {}
    found = numbers(scored(case, "torch", given, **conditioned).leave_one_out(array("torch", given.value)))
    for k in range(7):
        others = select(case, given, [j for j in range(7) if j != k])
        by_hand = scored(case, "torch", select(case, given, [k]), context=grow(case, others, 6), **conditioned)
        value = array("torch", per_trial(case, given.value, [k]))
        np.testing.assert_allclose(numbers(by_hand.marginals(value))[:, 0], found[:, k], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=repr)
@pytest.mark.parametrize("lapse", [None, 0.3])
def test_pit_of_draws_is_uniform(case, lapse):
    if lapse and not case.has_lapse:
        pytest.skip("no lapse density")
    given = data(case, batch=1, trials=5)
    source = scored(case, "torch", given, environment=case.environment, feedback=None, lapse=lapse)
    value, feedback, _ = rollout("torch", source, np.random.default_rng(8).random(source.noise_shape((1500,))))
    known = scored(case, "torch", replaced(given, feedback=feedback), lapse=lapse, trials=5)
    pit = numbers(known.pit(array("torch", value)))
    assert pit.shape == (1500, 1, 5, *case.schema.event_shape_tail)
    columns = pit.reshape(1500, -1)
    for column in columns.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    # Transforms of a joint distribution that is right are independent as well.
    correlation = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlation).max() < 4.5 / math.sqrt(1500)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_pit_brackets_the_noise_that_drew_a_category(case):
    first, variable = next(iter(case.schema.outcomes.items()))
    if not isinstance(variable, Categorical):
        pytest.skip("the first outcome is continuous")
    given = data(case)
    source = scored(case, "torch", given, environment=case.environment, feedback=None)
    noise = uniform(source, (11,))
    value, feedback, _ = rollout("torch", source, noise)
    known = scored(case, "torch", replaced(given, feedback=feedback), trials=7)
    shape = (*noise.shape[:-1], len(case.schema.outcomes))
    low, high = (
        numbers(known.cdf_values(array("torch", value), place)) for place in (torch.zeros(shape), torch.ones(shape))
    )
    if case.schema.event_shape_tail:
        low, high = low[..., 0], high[..., 0]
    assert (low <= noise[..., 0] + 1e-5).all() and (noise[..., 0] <= high + 1e-5).all()
    assert (high - low > 0).all() and (high - low < 1).all()


@pytest.mark.parametrize("case", [FUNCTION, SLIDER], ids=repr)
def test_orders_average_explicit_permutations(case):
    given = data(case)
    orders = np.stack([np.random.default_rng(s).permutation(7) for s in range(4)])
    distribution = scored(case, "torch", given, orders=orders)
    value = array("torch", given.value)
    by_hand = [conditionals(case, "torch", select(case, given, order)).sum(-1) for order in orders]
    np.testing.assert_allclose(numbers(distribution.log_prob_by_order(value)), by_hand, rtol=1e-4)
    np.testing.assert_allclose(numbers(distribution.log_prob(value)), logsumexp(by_hand, 0) - math.log(4), rtol=1e-4)
    one = scored(case, "torch", given, orders=1)
    close(one.log_prob(value), scored(case, "torch", given).log_prob(value), atol=1e-5)
    # More orders than are evaluated at once.
    many = scored(case, "torch", given, orders=19)
    assert many.log_prob_by_order(value).shape == (19, 3)
    close(many.log_prob_by_order(value)[0], one.log_prob(value), atol=1e-4)


@pytest.mark.parametrize("case", WITH_LAPSE, ids=repr)
def test_lapse_is_mixed_into_each_trial(case):
    given = data(case)
    rate = np.array([0.0, 0.25, 1.0], np.float32)
    plain = conditionals(case, "torch", given).astype(float)
    lapse = np.zeros(plain.shape)
    columns = np.moveaxis(given.value, -1, 0) if case.schema.event_shape_tail else [given.value]
    for variable, column in zip(case.schema.outcomes.values(), columns, strict=True):
        if isinstance(variable, Categorical):
            lapse -= math.log(variable.n)
        else:
            low, high = variable.lapse_range
            lapse += np.where((column >= low) & (column <= high), -math.log(high - low), -np.inf)
    known = case.schema.lapse_rate
    if known:
        plain = np.log((np.exp(plain) - known * np.exp(lapse)) / (1 - known))
    total = 1 - (1 - known) * (1 - rate[:, None])
    by_hand = np.log((1 - total) * np.exp(plain) + total * np.exp(lapse))
    np.testing.assert_allclose(conditionals(case, "torch", given, lapse=rate), by_hand, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_by_lapse_is_finite_at_none(backend):
    given = data(FUNCTION)
    value = given.value.copy()
    # Out of reach of the lapse, and of the network as well.
    value[0, 0], value[1, 1] = 9.5, 60.0

    def density(lapse):
        return scored(FUNCTION, backend, given, lapse=lapse).log_prob(array(backend, value)).sum()

    if backend == "jax":
        gradient = jax.jit(jax.grad(density))(jnp.zeros(3))
    else:
        lapse = torch.zeros(3, requires_grad=True)
        density(lapse).backward()
        gradient = lapse.grad
    assert np.isfinite(numbers(gradient)).all() and (numbers(gradient) != 0).all()


# Law 8: bad input ----------------------------------------------------------------------------------------------------


def learner(**changes):
    """Build a distribution of the learner with some arguments changed; `inputs.pair` reaches into the dict."""

    def call(backend):
        given = data(LEARNING)
        arguments = {"inputs": given.inputs, "params": given.params, "feedback": given.feedback}
        for key, value in changes.items():
            group, _, name = key.partition("__")
            if name:
                arguments[group] = {**arguments[group], name: value}
            else:
                arguments[group] = value
        inputs = arguments.pop("inputs")
        return joint_predictive(LEARNING, backend, inputs, **arguments)

    return call


def function(method=None, **changes):
    """The same of the random function, and a method of the result."""

    def call(backend):
        given = data(FUNCTION)
        arguments = given.arguments(**changes)
        inputs = arguments.pop("inputs", given.inputs)
        arguments["trials"] = changes.get("trials")
        made = joint_predictive(FUNCTION, backend, inputs, **arguments)
        return method(made, array(backend, given.value)) if method else made

    return call


def observing(case=LEARNING, **changes):
    def call(backend):
        given = data(case)
        value = changes.get("value", given.value)
        inputs = changes.get("inputs", given.inputs)
        rest = {key: x for key, x in changes.items() if key not in ("value", "inputs")}
        return network(case, backend).observe(inputs, value, **{"feedback": given.feedback, **rest})

    return call


def encoding(case=FUNCTION, **changes):
    return lambda backend: network(case, backend).encode({**(data(case).context or {}), **changes})


def with_one(shape, value, fill=0.0):
    x = np.full(shape, fill, np.float32)
    x.flat[0] = value
    return x


BAD_INPUT = {
    "net": (lambda b: joint_predictive(FUNCTION, b, {"x": np.ones((3, 7))}, net="noisy"), "net: expected a network"),
    "net of the other backend": (
        lambda b: joint_predictive(FUNCTION, b, {}, net=network(FUNCTION, "jax" if b == "torch" else "torch")),
        r"net: expected a network loaded with backend=",
    ),
    "inputs no dict": (learner(inputs=np.ones((3, 7))), "inputs: expected a dict|inputs: expected"),
    "inputs missing": (learner(inputs={"pair": np.zeros((3, 7))}), r"inputs: expected .*missing \['delay'\]"),
    "inputs unknown": (learner(inputs__extra=np.zeros((3, 7))), r"inputs: expected .*unknown \['extra'\]"),
    "inputs scalar": (learner(inputs__delay=1.0), r"inputs\['delay'\]: expected shape"),
    "inputs of other length": (learner(inputs__delay=np.zeros((3, 6))), r"inputs\['delay'\]: expected 7 trials.*6"),
    "inputs not numbers": (learner(inputs__delay=np.array([["a"] * 7])), r"inputs\['delay'\]: expected an array"),
    "inputs complex": (learner(inputs__delay=np.ones((3, 7)) * 1j), r"inputs\['delay'\]: expected .*complex"),
    "inputs NaN": (learner(inputs__delay=with_one((3, 7), np.nan)), r"inputs\['delay'\]: expected .*got nan \(1 of 21"),
    "category too high": (learner(inputs__pair=with_one((3, 7), 3)), r"inputs\['pair'\]: .*from 0 to 2, got 3.0"),
    "category between": (learner(inputs__pair=with_one((3, 7), 0.5)), r"inputs\['pair'\]: .*integer.*got 0.5"),
    "coded -1 and 1": (
        learner(inputs__pair=with_one((3, 7), -1, 1.0)),
        r"inputs\['pair'\]: .*got -1.0.*recoded as 0 and 1",
    ),
    "no trials": (learner(inputs={"pair": np.zeros((3, 0)), "delay": np.zeros((3, 0))}), "trials: expected at least 1"),
    "trials 0": (function(trials=0), "trials: expected at least 1 trial, got 0"),
    "trials not told": (lambda b: joint_predictive(SLIDER, b, {}), "trials: expected a number.*None"),
    "trials beside inputs": (function(trials=6), r"inputs\['x'\]: expected 6 trials"),
    "params no dict": (learner(params=np.ones(3)), "params: expected a dict"),
    "params unknown": (learner(params__gamma=np.ones(3)), r"params: expected any of .*unknown \['gamma'\]"),
    "params NaN": (learner(params__beta=with_one(3, np.nan, 1.0)), r"params\['beta'\]: expected .*got nan"),
    "params negative": (learner(params__beta=np.array([1.0, 2.0, -0.5])), r"params\['beta'\]: .*above 0.*-0.5"),
    "params at an open bound": (learner(params__alpha=np.array([0.0, 0.5, 0.5])), r"params\['alpha'\]: .*\(0, 1\)"),
    "params out of a closed one": (learner(params__zeta=np.array([0.0, 1.0, 1.1])), r"params\['zeta'\]: .*\[0, 1\]"),
    "params not numbers": (learner(params__beta="large"), r"params\['beta'\]: expected an array of numbers"),
    "params of other batch": (learner(params__beta=np.ones(4)), r"broadcast.*params\['beta'\] has \(4,\)"),
    "feedback missing": (learner(feedback={}), r"feedback: expected \['reward'\].*missing"),
    "feedback NaN": (learner(feedback__reward=with_one((3, 7), np.inf)), r"feedback\['reward'\]: .*finite.*inf"),
    "feedback to score": (
        lambda b: learner(feedback=None)(b).log_prob(array(b, data(LEARNING).value)),
        r"feedback: expected \['reward'\] to compute a density.*none",
    ),
    "environment": (learner(environment=0.3), "environment: expected a function, got float"),
    "environment to draw": (
        lambda b: rollout(b, learner()(b), np.zeros((3, 7, 6))),
        r"environment: expected a function that gives \['reward'\].*None",
    ),
    "trial_mask of integers": (learner(trial_mask=np.ones((3, 7), int)), "trial_mask: expected booleans.*int"),
    "trial_mask of other length": (learner(trial_mask=np.ones((3, 6), bool)), r"trial_mask: expected shape.*\(3, 6\)"),
    "lapse above 1": (learner(lapse=1.2), "lapse: expected a probability, got 1.2"),
    "lapse NaN": (learner(lapse=float("nan")), "lapse: expected a probability, got nan"),
    "lapse without a range": (
        lambda b: joint_predictive(LAPSELESS, b, {"x": np.ones((3, 7))}, lapse=0.1),
        r"lapse: expected every outcome.*'y' has none",
    ),  # fmt: skip
    "outside": (learner(outside="clip"), r"outside: expected one of .*'clip'"),
    "context of an ordered model": (learner(context={}), "context: expected none for an ordered model"),
    "orders of an ordered model": (learner(orders=4), "orders: expected none for an ordered model"),
    "block of an ordered model": (learner(block=4), "block: expected none for an ordered model"),
    "orders 0": (function(orders=0), "orders: expected at least 1, got 0"),
    "orders no permutation": (function(orders=np.zeros((2, 7), int)), "orders: expected a number, or permutations"),
    "orders not numbers": (function(orders="all"), "orders: expected a number, or permutations"),
    "block 0": (function(block=0), "block: expected a number of trials of at least 1, got 0"),
    "block a fraction": (function(block=2.5), "block: expected a number of trials of at least 1, got 2.5"),
    "context empty": (function(context={"x": np.ones((3, 0)), "y": np.ones((3, 0))}), "context: expected at least one"),
    "context without outcomes": (function(context={"x": np.ones((3, 2))}), r"context: expected .*missing \['y'\]"),
    "context ragged": (function(context={"x": np.ones((3, 2)), "y": np.ones((3, 4))}), r"context\['y'\]: expected 2"),
    "context NaN": (function(context={"x": np.ones(2), "y": with_one(2, np.nan)}), r"context\['y'\]: .*got nan"),
    "encode": (encoding(y=with_one((3, 5), np.nan)), r"context\['y'\]: expected .*got nan"),
    "encode an ordered model": (encoding(LEARNING), "context: expected none for an ordered model"),
    "value of other length": (
        function(lambda d, v: d.log_prob(v[:, :6])),
        r"value: expected shape .*7.*got \(3, 6\)",
    ),
    "value of other batch": (
        function(lambda d, v: d.conditionals(v[:2])),
        r"value: expected batch dimensions that broadcast.*\(2,\)",
    ),
    "conditionals of orders": (function(lambda d, v: d.conditionals(v), orders=3), "orders: expected None"),
    "pit of orders": (function(lambda d, v: d.pit(v), orders=3), "orders, block: expected None"),
    "orders of none": (function(lambda d, v: d.log_prob_by_order(v)), "orders: expected a number or permutations"),
    "leave_one_out": (
        lambda b: learner()(b).leave_one_out(array(b, data(LEARNING).value)),
        "leave_one_out: expected an exchangeable model",
    ),
    "condition on everything": (function(lambda d, v: d.condition(v)), "value: expected outcomes of the first 1 to 6"),
    "condition on nothing": (function(lambda d, v: d.condition(v[:, :0])), "value: expected outcomes of the first 1"),
    "condition on NaN": (function(lambda d, v: d.condition(v[:, :2] * np.nan)), "value: expected a finite real number"),
    "condition without feedback": (
        lambda b: learner(feedback=None)(b).condition(array(b, data(LEARNING).value[:, :2])),
        r"feedback: expected \['reward'\] to condition",
    ),
    "observe without feedback": (observing(feedback=None), r"feedback: expected \['reward'\] to observe"),
    "observe NaN": (observing(value=data(LEARNING).value * np.nan), r"value\['choice'\]: expected an integer.*nan"),
    "observe a negative time": (
        observing(value=data(LEARNING).value * [1, -1]),
        r"value\['rt'\]: expected a number above 0",
    ),
    "observe no trials": (observing(FUNCTION, value=np.ones((3, 0))), "trials: expected at least 1 trial, got 0"),
    "observe other trials": (observing(FUNCTION, value=np.ones((3, 5))), r"inputs\['x'\]: expected 5 trials"),
    "observe one column": (observing(value=np.ones((3, 7, 1))), r"value: expected shape.*\(7, 2\)"),
    "observe no array": (observing(FUNCTION, value="y"), "value: expected an array of numbers"),
    "observe a scalar": (observing(FUNCTION, value=1.0), "value: expected shape"),
    "feedback beside observed data": (
        lambda b: joint_predictive(
            LEARNING, b, observed(LEARNING, b, data(LEARNING)), feedback=data(LEARNING).feedback
        ),
        "feedback: expected none beside observed data",
    ),
    "prior of an untrained network": (lambda b: network(FUNCTION, b).prior(), "net: expected a trained network"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_refused(name, backend):
    call, message = BAD_INPUT[name]
    with pytest.raises(ValueError, match=message):
        call(backend)


def test_values_that_cannot_be_have_no_density():
    given = data(LEARNING)
    value = given.value.copy()
    value[0, 3, 0], value[1, 2, 1], value[2, 6, 1] = 2, -0.3, np.nan
    with pytest.raises(ValueError, match="support"):
        scored(LEARNING, "torch", given).log_prob(array("torch", value))
    for backend in BACKENDS:
        distribution = scored(LEARNING, backend, given, validate_args=False)
        found = numbers(distribution.conditionals(array(backend, value)))
        impossible = np.zeros((3, 7), bool)
        impossible[[0, 1, 2], [3, 2, 6]] = True
        np.testing.assert_array_equal(found == -np.inf, impossible)
        assert not np.isnan(found).any()
        assert (numbers(distribution.log_prob(array(backend, value))) == -np.inf).all()


# Law 9: out of its depth ---------------------------------------------------------------------------------------------


@pytest.fixture(params=BACKENDS)
def trained(request):
    return request.param, network(FUNCTION, request.param, FUNCTION_RECORD)


def test_inside_the_box_nothing_is_said(trained):
    backend, net = trained
    given = data(FUNCTION, trials=11, points=13)
    params = {"mu": np.array([-2.0, 0.0, 2.0]), "sigma": np.array([0.5, 1.0, 3.0])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        joint_predictive(FUNCTION, backend, given.inputs, net, **given.arguments(params=params))


def test_parameters_outside_the_box_are_announced(trained):
    backend, net = trained
    given = data(FUNCTION)
    params = {"mu": np.array([0.0, 2.5, 0.0]), "sigma": np.ones(3)}
    arguments = given.arguments(params=params)
    with pytest.warns(UserWarning, match=r"params\['mu'\]: 33% of the values lie outside \[-2, 2\]"):
        joint_predictive(FUNCTION, backend, given.inputs, net, **arguments)
    with pytest.raises(ValueError, match=r"params\['mu'\]: 33% of the values"):
        joint_predictive(FUNCTION, backend, given.inputs, net, **arguments, outside="error")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ignored = joint_predictive(FUNCTION, backend, given.inputs, net, **arguments, outside="ignore")
        refused = joint_predictive(FUNCTION, backend, given.inputs, net, **arguments, outside="-inf")
    value = array(backend, given.value)
    known = numbers(ignored.log_prob(value))
    assert np.isfinite(known).all()
    np.testing.assert_allclose(numbers(refused.log_prob(value)), np.where([1, 0, 1], known, -np.inf), rtol=1e-5)


def test_more_than_was_trained_on_is_announced(trained):
    backend, net = trained
    long, wide = data(FUNCTION, trials=12), data(FUNCTION, points=14)
    with pytest.warns(UserWarning, match="trials: 12 trials.*at most 11"):
        joint_predictive(FUNCTION, backend, long.inputs, net, **long.arguments(params=None))
    with pytest.warns(UserWarning, match="trials: 12 trials.*at most 11"):
        net.observe(array(backend, long.inputs), array(backend, long.value))
    with pytest.warns(UserWarning, match="context: 14 points.*at most 13"):
        joint_predictive(FUNCTION, backend, wide.inputs, net, **wide.arguments(params=None))
    with pytest.warns(UserWarning, match="context: 14 points.*at most 13"):
        net.encode(array(backend, wide.context))


def test_prior_of_a_trained_network(trained):
    backend, net = trained
    prior = net.prior()
    assert net.box == FUNCTION_RECORD.box
    assert type(prior["mu"]).__name__ == "Normal" and float(prior["mu"].scale) == 0.5
    assert (float(prior["sigma"].low), float(prior["sigma"].high)) == (0.5, 3.0)
    assert type(prior["mu"]).__module__.split(".")[0] == {"jax": "numpyro", "torch": "pyro"}[backend]
