"""Observed trials with the same inputs are one target, where they see nothing of each other: the same numbers."""

import numpy as np
import pytest

from ppl_buffer.network.distinct import distinct_inputs
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.schema import Categorical, Integer, Positive, Real, Schema
from tests.laws.cases import on_both
from tests.networks import DECISION, DISCRIMINATION, GUESS, Case, array, data, network

TRIALS, SETS = 67, 2
# Outcomes of all kinds, behind some of few values and behind one of infinitely many.
WAGER = Case(
    "wager",
    Schema(
        params={"mu": Real(), "delay": Positive()},
        inputs={"cue": Real()},
        outcomes={
            "choice": Categorical(2), "rating": Integer(1, 3), "rt": Positive(lapse_range=(0, 10), above="delay"),
            "key": Categorical(3),
        },
        independent=True,
    ),
    config=DISCRIMINATION.config,
)  # fmt: skip


def repeated(case):
    """Data whose inputs take 5 values in one data set and 3 in the other."""
    given = data(case, batch=SETS, trials=TRIALS, context=False)
    rng = np.random.default_rng(3)
    inputs = {
        name: np.stack([rng.choice(x[row, :5 - 2 * row], TRIALS) for row in range(SETS)]).astype(np.float32)
        for name, x in given.inputs.items()
    }  # fmt: skip
    return given, inputs


def compare_slopes(slopes, others):
    for name, slope in slopes.items():
        np.testing.assert_allclose(np.asarray(slope), np.asarray(others[name]), rtol=2e-4, atol=1e-4)


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
    compare_slopes(slopes, other_slopes)
    if backend == "jax":
        return
    shape = (SETS, TRIALS, len(case.schema.outcomes))
    uniform = array(backend, np.random.default_rng(5).random(shape).astype(np.float32))
    places = [density.cdf_values(query(draws), seen.value, uniform, query is fast) for query in (fast, slow)]
    np.testing.assert_allclose(*(x[:, mask] for x in places), atol=1e-5)
    part = Query.build(net, seen[1:], params={name: x[0, 1:] for name, x in draws.items()}, **asked)
    np.testing.assert_allclose(density.conditionals(part, seen.value[1:], reuse=True), each[0, 1:], atol=1e-5)


@pytest.mark.usefixtures("quick_compilation")
@on_both([DISCRIMINATION, WAGER], quick=[])
def test_the_direct_likelihood_reads_them_once(case, backend):
    given, inputs = repeated(case)
    net = network(case, backend)
    mask = np.random.default_rng(4).random((SETS, TRIALS)) < 0.8
    arguments = {"trial_mask": mask, "likelihood": "direct"}
    seen = net.observe(inputs, given.value, **arguments)
    assert seen.sequence.inputs.shape[-2] == (5 if backend == "torch" else 8)
    draws = {name: np.stack([x, x[::-1], x]).astype(np.float32) for name, x in given.params.items()}
    rate = array(backend, np.array([0.1, 0.02], np.float32))

    def once(params):
        return Query.build(net, seen, params=params, lapse=rate, check=False)

    def apart(params):
        return Query.build(net, inputs, trials=TRIALS, params=params, lapse=rate, check=False, **arguments)

    assert once(draws).direct
    results = scored(backend, once, draws, seen.value, True)
    others = scored(backend, apart, draws, array(backend, given.value), False)
    assert np.ptp(others[0][0, 0, mask[0]]) > 0.1
    np.testing.assert_allclose(results[0], others[0], atol=2e-5)
    compare_slopes(results[1], others[1])
    # Parameters of each trial's own are no reason to compute with another trial's inputs.
    name, *shared = draws
    by_trial = {name: np.random.default_rng(5).normal(size=(SETS, TRIALS)).astype(np.float32)}
    more = {"params": {each: given.params[each] for each in shared}, "trial_params": by_trial, "check": False}
    values = [
        np.asarray(density.conditionals(Query.build(net, x, **also, **more), seen.value, reuse))
        for x, reuse, also in ((seen, True, {}), (inputs, False, {"trials": TRIALS, **arguments}))
    ]
    np.testing.assert_allclose(*values, atol=2e-5)


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
