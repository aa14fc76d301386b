"""The speculative rollout: its draws have exactly the distribution of the rollout, in both backends."""

from __future__ import annotations

import copy
import functools
import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ppl_buffer.predictive import density, sampling
from ppl_buffer.schema import Categorical, Integer, Real, Schema
from tests import networks as nw

pytestmark = pytest.mark.usefixtures("quick_compilation")

# One outcome of few values is redrawn from a table, anything else by proposals.
SYMBOL = nw.Case("symbol", Schema(outcomes={"symbol": Integer(2, 4)}, ordered=True))
PAIR = nw.Case("pair", Schema(params={"mu": Real()}, outcomes={"left": Categorical(2), "right": Integer(-1, 1)}))
# A chance of a false alarm that no seed should meet by accident.
ALPHA = 1e-4


@functools.cache
def network(case: nw.Case, backend: str) -> Any:
    """Weights so large that a trial depends much on the trials before it, and drafts are often wrong."""
    net = copy.copy(nw.network(case, backend)) if backend == "jax" else copy.deepcopy(nw.network(case, backend))
    weights = dict(net.weights) if backend == "jax" else dict(net.named_parameters())
    for name, weight in weights.items():
        if name.endswith(("mlp.hidden.weight", "key_value.weight")) or name.startswith("heads.") and "out.w" in name:
            weights[name] = 3 * weight
    net.weights = weights
    return net


def distribution(case: nw.Case, backend: str, trials: int, **more: Any) -> Any:
    """One data set of a strongly dependent network."""
    data = nw.data(case, batch=1, trials=trials)
    first = {
        name: None if x is None else {key: value[0] for key, value in x.items()}
        for name, x in (("inputs", data.inputs), ("params", data.params), ("context", data.context))
    }
    arguments = {"net": network(case, backend), "trials": trials, "environment": case.environment, **first, **more}
    return nw.joint_predictive(case, backend, arguments.pop("inputs"), **arguments)


def speculate(backend: str, joint: Any, draws: int, seed: int = 0, **more: Any) -> Any:
    """Draws from a seed."""
    if backend == "jax":
        import jax

        return joint.speculate(jax.random.PRNGKey(seed), (draws,), **more)
    import torch

    return joint.speculate((draws,), generator=torch.Generator().manual_seed(seed), **more)


def chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    """Probability of a worse fit; rare cells are put together."""
    order = np.argsort(expected)
    observed, expected = observed[order], expected[order]
    rare = max(int(np.searchsorted(expected.cumsum(), 10.0)) + 1, 1)
    pooled = (np.concatenate([[x[:rare].sum()], x[rare:]]) for x in (observed, expected))
    return float(stats.chisquare(*pooled).pvalue)


@pytest.mark.parametrize(
    ("case", "trials", "lapse", "backend"),
    [
        pytest.param(SYMBOL, 4, None, "torch", id="table-torch"),
        pytest.param(PAIR, 3, np.float32(0.07), "torch", id="proposals-torch"),
        pytest.param(SYMBOL, 4, None, "jax", id="table-jax"),
        pytest.param(PAIR, 3, np.float32(0.07), "jax", id="proposals-jax", marks=pytest.mark.slow),
    ],
)
def test_frequencies_of_all_sequences_are_the_exact_probabilities(case, trials, lapse, backend):
    draws = 20_000 if backend == "torch" else 5_000
    joint = distribution(case, backend, trials, lapse=lapse)
    sizes, lowest = zip(
        *[(variable.n, variable.low) for variable in case.schema.outcomes.values()] * trials, strict=True
    )
    sequences = np.array(lowest) + np.array(list(itertools.product(*map(range, sizes))), dtype=np.float32)
    sequences = sequences.astype(np.float32)
    event = joint.event_shape
    exact = np.exp(np.asarray(joint.log_prob(nw.array(backend, sequences.reshape((-1, *event)))), np.float64))
    assert exact.sum() == pytest.approx(1, abs=1e-5)
    drawn = speculate(backend, joint, draws, lookahead=2)
    assert 0.5 < drawn.acceptance_rate < 0.95
    rows = np.asarray(drawn.value).reshape(draws, -1).astype(int) - np.array(lowest)
    observed = np.bincount(np.ravel_multi_index(tuple(rows.T), sizes), minlength=len(exact))
    assert chi_square(observed, exact / exact.sum() * draws) > ALPHA


@pytest.mark.parametrize(
    ("case", "backend"),
    [
        pytest.param(nw.FUNCTION, "torch", id="function-torch"),
        pytest.param(nw.LEARNING, "torch", id="learning-torch"),
        pytest.param(nw.FUNCTION, "jax", id="function-jax"),
        pytest.param(nw.LEARNING, "jax", id="learning-jax", marks=pytest.mark.slow),
    ],
)
def test_draws_are_like_those_of_the_rollout(case, backend):
    draws = 5_000 if backend == "torch" else 2_000
    joint = distribution(case, backend, trials=5)
    noise = np.random.default_rng(1).uniform(1e-7, 1, sampling.noise_shape(joint.query, (draws,)))
    value, feedback, log_probs = nw.rollout(backend, joint, noise)
    drawn = speculate(backend, joint, draws)
    assert 0.5 < drawn.acceptance_rate < 0.95
    assert 2 <= drawn.passes <= 4

    def summaries(value: Any, feedback: Any, log_probs: Any) -> dict[str, np.ndarray]:
        columns = np.asarray(value).reshape(draws, 5, -1)
        found = {"log density": np.asarray(log_probs).sum(-1), "last log density": np.asarray(log_probs)[:, -1]}
        for index, name in enumerate(case.schema.outcomes):
            column = columns[..., index]
            found |= {f"{name} {k}": column[:, k] for k in range(5)}
            found |= {f"{name} {k}, {k + 1}": (column[:, k] - 0.5) * (column[:, k + 1] - 0.5) for k in range(4)}
        return found | {name: np.asarray(x).sum(-1) for name, x in feedback.items()}

    theirs = summaries(value, feedback, log_probs)
    mine = summaries(drawn.value, drawn.feedback, drawn.log_probs)
    for name, column in mine.items():
        assert stats.ks_2samp(column, theirs[name], method="asymp").pvalue > ALPHA, name


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_conditional_distribution_functions_at_the_draws_are_uniform_and_independent(backend):
    draws = 5_000 if backend == "torch" else 2_000
    joint = distribution(nw.FUNCTION, backend, trials=5)
    places = np.asarray(joint.pit(speculate(backend, joint, draws, seed=1).value))
    for k in range(5):
        assert stats.kstest(places[:, k], "uniform").pvalue > ALPHA
    for k, other in itertools.combinations(range(5), 2):
        table = np.histogram2d(places[:, k], places[:, other], bins=5, range=[(0, 1), (0, 1)])[0]
        assert stats.chisquare(table.ravel()).pvalue > ALPHA


@pytest.mark.parametrize("lookahead", [1, 3, 64])
@pytest.mark.parametrize("case", nw.CASES, ids=repr)
def test_log_densities_are_those_of_the_values(case, lookahead):
    check_log_densities(case, "torch", lookahead)


def test_log_densities_are_those_of_the_values_in_jax():
    check_log_densities(nw.LEARNING, "jax", 3)


def check_log_densities(case: nw.Case, backend: str, lookahead: int) -> None:
    data = nw.data(case, batch=3, trials=7)
    mask = np.ones((3, 7), bool)
    mask[1, 2] = mask[1, 5] = mask[2, 0] = mask[2, 6] = False
    arguments = {
        "trials": 7,
        "params": data.params,
        "context": data.context,
        "trial_mask": mask,
        "lapse": np.float32(0.1) if case.has_lapse else None,
    }
    joint = nw.joint_predictive(case, backend, data.inputs, environment=case.environment, **arguments)
    drawn = speculate(backend, joint, 5, lookahead=lookahead)
    feedback = {name: np.asarray(x) for name, x in drawn.feedback.items()} or None
    known = nw.joint_predictive(case, backend, data.inputs, feedback=feedback, **arguments)
    assert drawn.value.shape == (5, *joint.batch_shape, *joint.event_shape)
    np.testing.assert_allclose(
        np.asarray(drawn.log_probs), np.asarray(known.conditionals(drawn.value)), rtol=1e-4, atol=2e-5
    )
    settled, exists = np.asarray(drawn.settled), np.broadcast_to(mask, (5, 3, 7))
    assert not np.asarray(drawn.log_probs)[~exists].any()
    if joint.query.independent:
        assert drawn.passes == 0
        assert drawn.acceptance_rate == 1
    else:
        tested = exists & (np.arange(7) > 0)
        np.testing.assert_array_equal(settled > 0, tested)
        assert np.asarray(drawn.accepted)[~tested].all()
        assert drawn.acceptance_rate == np.asarray(drawn.accepted)[tested].mean()
        # A test settles what it looks ahead to, unless a redraw stops it before.
        assert drawn.passes == settled.max() >= -(-6 // lookahead)


def test_each_draw_follows_one_of_the_orders():
    joint = distribution(nw.FUNCTION, "torch", 3, orders=np.array([[0, 1, 2], [2, 0, 1]]))
    drawn = speculate("torch", joint, 50)
    by_order = density.log_prob_by_order(joint.query, drawn.value).numpy()
    follows = np.abs(by_order - drawn.log_probs.numpy().sum(-1)) < 1e-4
    assert follows.any(0).all()
    assert 5 < follows[0].sum() < 45


@pytest.mark.parametrize("trials", [1, 2])
def test_few_trials(trials):
    drawn = speculate("torch", distribution(nw.FUNCTION, "torch", trials), 20)
    assert drawn.value.shape == (20, trials)
    assert drawn.passes == trials - 1


def test_sample_takes_the_method_in_torch():
    import torch

    joint = distribution(nw.FUNCTION, "torch", 5)
    torch.manual_seed(3)
    value = joint.sample((7,), method="speculative")
    torch.manual_seed(3)
    np.testing.assert_array_equal(value, joint.speculate((7,)).value)
    torch.manual_seed(3)
    assert not np.array_equal(value, joint.sample((7,)))


def test_sample_takes_the_method_in_jax_and_compiles_once():
    import jax

    from ppl_buffer.numpyro.distribution import _compiled

    joint = distribution(nw.FUNCTION, "jax", 5)
    key = jax.random.PRNGKey(3)
    first = joint.speculate(key, (2_000,))
    compiled = _compiled._cache_size()
    np.testing.assert_array_equal(joint.sample(key, (2_000,), method="speculative"), first.value)
    for other in distribution(nw.FUNCTION, "jax", 5), joint:
        other.sample(jax.random.PRNGKey(4), (2_000,), method="speculative")
    assert _compiled._cache_size() == compiled


@pytest.mark.parametrize("backend", ["torch", "jax"])
@pytest.mark.parametrize(
    ("case", "given", "lookahead", "message"),
    [
        (nw.FUNCTION, {"block": 2}, 64, "block: expected None for a speculative rollout, got 2"),
        (nw.FUNCTION, {}, 0, "lookahead: expected a number of trials of at least 1, got 0"),
        (nw.LEARNING, {"environment": None}, 64, "environment: expected a function"),
    ],
    ids=["block", "lookahead", "environment"],
)
def test_refusals(case, given, lookahead, message, backend):
    with pytest.raises(ValueError, match=message):
        speculate(backend, distribution(case, backend, 3, **given), 1, lookahead=lookahead)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_an_unknown_method_is_refused(backend):
    joint = distribution(nw.FUNCTION, backend, 3)
    with pytest.raises(ValueError, match=r"method: expected one of \['rollout', 'speculative'\], got 'beam'"):
        joint.sample(*([None] if backend == "jax" else []), method="beam")
