"""The empty buffer, blocks, permutations and leave-one-out equal encoding anew."""

import math

import numpy as np
import pytest
from scipy.special import logsumexp

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

from ppl_buffer.predictive import density
from tests.laws.cases import DEPENDENT, close, conditionals, first_told, grow, numbers, per_trial, scored, select
from tests.networks import CASES, DECISION, EXCHANGEABLE, FUNCTION, SLIDER, array, data

pytestmark = pytest.mark.usefixtures("quick_compilation")


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


@pytest.mark.parametrize("case", [FUNCTION, SLIDER], ids=repr)
def test_orders_average_explicit_permutations(case):
    given = data(case)
    orders = np.stack([np.random.default_rng(s).permutation(7) for s in range(4)])
    distribution = scored(case, "torch", given, orders=orders)
    value = array("torch", given.value)
    by_hand = [conditionals(case, "torch", select(case, given, order)).sum(-1) for order in orders]
    np.testing.assert_allclose(numbers(density.log_prob_by_order(distribution.query, value)), by_hand, rtol=1e-4)
    np.testing.assert_allclose(numbers(distribution.log_prob(value)), logsumexp(by_hand, 0) - math.log(4), rtol=1e-4)
    one = scored(case, "torch", given, orders=1)
    close(one.log_prob(value), scored(case, "torch", given).log_prob(value), atol=1e-5)
    # More orders than are evaluated at once.
    many = scored(case, "torch", given, orders=19)
    assert density.log_prob_by_order(many.query, value).shape == (19, 3)
    close(density.log_prob_by_order(many.query, value)[0], one.log_prob(value), atol=1e-4)
