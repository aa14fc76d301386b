"""Who depends on whom: every token on what the rules R1 to R6 let it see, and on nothing else."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

import jax
import jax.numpy as jnp
import torch

from ppl_buffer.predictive import density
from tests.laws.cases import EVERY, HOLES, conditionals, numbers, on_both, per_trial, replaced, scored, select, uniform
from tests.networks import CASES, EXCHANGEABLE, FUNCTION, LEARNING, array, data, network, rollout

pytestmark = pytest.mark.usefixtures("quick_compilation")


def dependence(case, backend, monkeypatch, valid):
    """Jacobians of what the network computes by every token: dict output -> dict role -> (n_output, n_tokens, W)."""
    if backend == "jax":
        from ppl_buffer.network import heads
        from ppl_buffer.network.jax import network as verbs

        xp, jacobian = jnp, lambda f, x: jax.jit(jax.jacrev(f))(x)
    else:
        from ppl_buffer.network import heads
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
            "prepared": project(prepared.tokens[:, None]) + project(prepared.partial.output / prepared.partial.sum),
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


@pytest.mark.parametrize("case", EVERY, ids=repr)
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


@on_both(EVERY)
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


@pytest.mark.parametrize("case", EVERY, ids=repr)
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
    cdf = density.cdf_values(source.query, value, places)
    short_cdf = density.cdf_values(kept.query, short, places[:, HOLES])
    pairs.append((per_trial(case, cdf, HOLES), short_cdf))
    if not case.schema.ordered:
        pairs.append((source.leave_one_out(value)[..., HOLES], kept.leave_one_out(short)))
    noise = uniform(source)
    drawn, short_drawn = rollout("torch", source, noise), rollout("torch", kept, noise[:, HOLES])
    pairs.append((per_trial(case, drawn[0], HOLES), short_drawn[0]))
    pairs.append((drawn[2][:, HOLES], short_drawn[2]))
    for left, right in pairs:
        np.testing.assert_allclose(numbers(left), numbers(right), rtol=1e-4, atol=1e-4)
