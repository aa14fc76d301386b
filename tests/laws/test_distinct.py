"""Observed trials with the same inputs are one target, where they see nothing of each other: the same numbers."""

import numpy as np
import pytest

from ppl_buffer.network.distinct import distinct_inputs
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from tests.laws.cases import on_both
from tests.networks import DECISION, DISCRIMINATION, GUESS, array, data, network

TRIALS, SETS = 31, 2


def repeated(case):
    """Data whose inputs take 5 values in one data set and 3 in the other."""
    given = data(case, batch=SETS, trials=TRIALS, context=False)
    rng = np.random.default_rng(3)
    inputs = {
        name: np.stack([rng.choice(x[row, :5 - 2 * row], TRIALS) for row in range(SETS)]).astype(np.float32)
        for name, x in given.inputs.items()
    }  # fmt: skip
    return given, inputs


def scored(backend, query, params, value, reuse):
    """Log densities of all trials, and the slopes of their sum along the parameters."""

    def total(params):
        log_probs = density.conditionals(query(params), value, reuse)
        return log_probs.sum(), log_probs

    if backend == "jax":
        import jax

        slopes, log_probs = jax.jit(jax.grad(total, has_aux=True))(params)
        return np.asarray(log_probs), slopes
    import torch

    leaves = {name: torch.as_tensor(x).requires_grad_() for name, x in params.items()}
    log_sum, log_probs = total(leaves)
    slopes = torch.autograd.grad(log_sum, list(leaves.values()))
    return log_probs.detach().numpy(), dict(zip(leaves, slopes, strict=True))


@pytest.mark.usefixtures("quick_compilation")
@on_both([DECISION, DISCRIMINATION, GUESS], quick=[DISCRIMINATION])
def test_targets_that_are_alike_are_read_once(case, backend):
    given, inputs = repeated(case)
    net = network(case, backend)
    mask = np.random.default_rng(4).random((SETS, TRIALS)) < 0.8
    seen = net.observe(inputs, given.value, trial_mask=mask, likelihood="buffer")
    most = 5 if case.schema.inputs else 1
    # JAX rounds up, so that few programs serve all data.
    assert seen.alone.tokens.shape[-2] == (most if backend == "torch" or most == 1 else 8)
    draws = {name: np.stack([x, x[::-1], x]).astype(np.float32) for name, x in given.params.items()}
    asked = {"likelihood": "buffer", "check": False}

    def fast(params):
        return Query.build(net, seen, params=params, **asked)

    def slow(params):
        return Query.build(net, inputs, trials=TRIALS, trial_mask=mask, params=params, **asked)

    assert fast(draws).independent and not fast(draws).direct
    read_once, slopes = scored(backend, fast, draws, seen.value, True)
    each, other_slopes = scored(backend, slow, draws, array(backend, given.value), False)
    assert np.ptp(each[0, 0, mask[0]]) > 0.1
    np.testing.assert_allclose(read_once, each, atol=1e-5)
    for name, slope in slopes.items():
        np.testing.assert_allclose(np.asarray(slope), np.asarray(other_slopes[name]), rtol=2e-4, atol=1e-4)
    if backend == "jax":
        return
    shape = (SETS, TRIALS, len(case.schema.outcomes))
    uniform = array(backend, np.random.default_rng(5).random(shape).astype(np.float32))
    places = [density.cdf_values(query(draws), seen.value, uniform, query is fast) for query in (fast, slow)]
    np.testing.assert_allclose(*(x[:, mask] for x in places), atol=1e-5)
    part = Query.build(net, seen[1:], params={name: x[0, 1:] for name, x in draws.items()}, **asked)
    np.testing.assert_allclose(density.conditionals(part, seen.value[1:], reuse=True), each[0, 1:], atol=1e-5)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_inputs_are_those_of_their_targets(backend):
    net, rng = network(DECISION, backend), np.random.default_rng(6)
    inputs = {"a": rng.integers(0, 3, (5, 1, 41)), "b": rng.choice([0.5, -0.25], (7, 41))}
    mask = rng.random((5, 7, 41)) < 0.7
    mask[0, 0] = False
    arrays = {name: array(backend, x.astype(np.float32)) for name, x in inputs.items()}
    distinct = distinct_inputs(net, arrays, array(backend, mask), (5, 7), 41)
    exists = mask.reshape(35, 41)
    assert distinct.index.shape == (35, 1, 41) and distinct.inputs["a"].shape == (35, 1, 8 if backend == "jax" else 6)
    for name, x in inputs.items():
        taken = np.take_along_axis(distinct.inputs[name], distinct.index, -1)[:, 0]
        np.testing.assert_array_equal(taken[exists], np.broadcast_to(x, (5, 7, 41)).reshape(35, 41)[exists])
    different = {"coherence": array(backend, rng.normal(size=(3, 41)).astype(np.float32))}
    assert distinct_inputs(net, different, None, (3,), 41) is None
