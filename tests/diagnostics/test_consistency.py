"""How much a joint density depends on the order of exchangeable trials."""

import itertools

import numpy as np
import pytest

from ppl_buffer import diagnostics
from ppl_buffer.diagnostics import Consistency
from ppl_buffer.network.config import Config
from ppl_buffer.schema import Categorical, Real, Schema
from tests.networks import (
    CONTAMINATED,
    DISCRIMINATION,
    FUNCTION,
    LEARNING,
    Case,
    array,
    data,
    joint_predictive,
    network,
)

# Few outcomes and trials: all data sets, and all orders, can be counted.
VOTE = Case(
    "vote",
    Schema(inputs={"x": Real()}, outcomes={"vote": Categorical(3)}),
    config=Config(width=6, depth=1, heads=2, mlp=7, components=2, param_depth=1, likelihood_width=0),
)


def by_order(case, given, orders):
    """Joint log density of each order, a distribution for each: (orders, B)."""
    found = []
    for order in orders:
        inputs = {name: x[:, order] for name, x in given.inputs.items()}
        joint = joint_predictive(case, "torch", inputs, params=given.params, context=given.context, trials=len(order))
        found.append(joint.log_prob(array("torch", given.value[:, order])).numpy())
    return np.stack(found)


def test_figures_are_those_of_single_orders():
    given = data(FUNCTION, batch=3, trials=5)
    found = diagnostics.consistency(
        network(FUNCTION, "torch"), given.inputs, given.value, params=given.params, context=given.context, orders=7,
        seed=11,
    )  # fmt: skip
    rng = np.random.default_rng(11)
    logs = by_order(FUNCTION, given, [rng.permutation(5) for _ in range(7)])
    np.testing.assert_allclose(found.by_order, logs, rtol=1e-5, atol=1e-5)
    gaps = (np.log(np.exp(logs).mean(0)) - logs.mean(0)) / 5
    assert found.divergence == pytest.approx(gaps.mean(), rel=1e-3)
    assert found.standard_error == pytest.approx(gaps.std(ddof=1) / np.sqrt(3), rel=1e-3)
    assert found.spread == pytest.approx(np.sqrt((logs.std(0, ddof=1) ** 2).mean()) / 5, rel=1e-3)
    assert found.divergence > 1e-3 and not found.from_mixture
    np.testing.assert_allclose(found.table["log_density"], np.log(np.exp(logs).mean(0)), rtol=1e-5)


def test_of_drawn_data_it_is_the_divergence_of_the_mixture_from_each_order():
    """Summed over all 27 data sets of three trials."""
    x, orders = np.array([[-1.1, 0.3, 1.7]], np.float32), 5
    sets = np.array(list(itertools.product(range(3), repeat=3)), np.float32)
    found = diagnostics.consistency(network(VOTE, "torch"), {"x": np.repeat(x, 6_000, 0)}, orders=orders, seed=3)
    rng = np.random.default_rng(3)
    permutations = [rng.permutation(3) for _ in range(orders)]
    every = data(VOTE, batch=27, trials=3, context=False)
    every.inputs, every.value = {"x": np.repeat(x, 27, 0)}, sets
    logs = by_order(VOTE, every, permutations).astype(float)
    mixture = np.exp(logs).mean(0)
    assert mixture.sum() == pytest.approx(1, abs=1e-5)
    exact = (mixture * (np.log(mixture) - logs.mean(0))).sum() / 3
    assert found.from_mixture and abs(found.divergence - exact) < 4 * found.standard_error < 0.2 * exact


@pytest.mark.usefixtures("quick_compilation")
def test_two_programs_serve_all_seeds(compilations):
    net, inputs = network(VOTE, "jax"), {"x": np.array([[-1.1, 0.3, 1.7], [0.2, 0.1, 0.9]], np.float32)}
    seeds = (3, 4)
    results = []
    for seed in seeds:
        # Draws of the orders' mixture, and the log densities of all orders.
        results.append(diagnostics.consistency(net, inputs, orders=5, seed=seed))
        assert len(compilations) <= 2
    assert not np.allclose(results[0].by_order, results[1].by_order)
    for seed, result in zip(seeds, results, strict=True):
        same = diagnostics.consistency(network(VOTE, "torch"), inputs, orders=5, seed=seed)
        np.testing.assert_allclose(result.by_order, same.by_order, atol=1e-4)


def test_nothing_depends_on_order_where_trials_are_independent():
    given = data(DISCRIMINATION, batch=4, trials=7, context=False)
    for value in (given.value, None):
        found = diagnostics.consistency(
            network(DISCRIMINATION, "torch"), given.inputs, value, params=given.params, orders=3
        )
        assert found.divergence < 1e-6 and found.spread < 1e-6


def test_trials_that_do_not_exist_do_not_count():
    given, mask = data(FUNCTION, batch=2, trials=7), np.arange(7) < np.array([[3], [6]])
    found = diagnostics.consistency(
        network(FUNCTION, "torch"), given.inputs, given.value, params=given.params, trial_mask=mask, orders=2
    )
    assert found.trials.tolist() == [3, 6] and list(found.table["trials"]) == [3, 6]


def test_it_shows_itself():
    found = Consistency(np.log([[0.2, 0.6], [0.4, 0.2]]), np.array([2, 2]), from_mixture=False)
    assert repr(found).startswith("Consistency(divergence of one order from 2: 0.0")
    assert "2 data sets, given)" in repr(found)
    assert found.plot().axes[0].get_xlabel().startswith("log density of an order")
    assert np.isnan(Consistency(np.zeros((2, 1)), np.ones(1), True).standard_error)


@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        (LEARNING, {}, "net: expected that of an exchangeable model"),
        (CONTAMINATED, {}, r"value: expected outcomes, since nobody supplies the feedback \['points'\]"),
        (FUNCTION, {"orders": 1}, "orders: expected an integer of at least 2, got 1"),
        (FUNCTION, {"value": np.zeros((5, 7), np.float32)}, "value: "),
        (FUNCTION, {"value": np.full((3, 7), np.nan, np.float32)}, "value: "),
    ],
)
def test_refuses(case, options, message):
    given = data(case, context=False)
    with pytest.raises(ValueError, match=message):
        diagnostics.consistency(network(case, "torch"), given.inputs, **options)
