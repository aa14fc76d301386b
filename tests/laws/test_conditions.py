"""Trials of one condition have the same parameters: what parameters that vary by trial would give."""

import numpy as np
import pytest

from ppl_buffer.predictive import density
from ppl_buffer.predictive.program import in_one_program
from ppl_buffer.predictive.query import Query
from tests.laws.cases import on_both
from tests.laws.test_distinct import SETS, TRIALS, WAGER, compare_slopes, repeated, scored
from tests.networks import DECISION, DISCRIMINATION, GUESS, RESPONDING, array, data, network

CONDITIONS = 3


def by_condition(case, seed=7):
    """Data, the condition of each trial, and the schema's last parameters by condition; the others stay."""
    given, inputs = repeated(case)
    rng = np.random.default_rng(seed)
    conditions = rng.integers(0, CONDITIONS, (SETS, TRIALS))
    *shared, name = case.schema.params
    # Two draws of it.
    values = np.exp(rng.normal(scale=0.3, size=(2, SETS, CONDITIONS)) - 1).astype(np.float32)
    return given, inputs, conditions, {each: given.params[each] for each in shared}, {name: values}


@pytest.mark.usefixtures("quick_compilation")
@on_both([DISCRIMINATION, WAGER, GUESS], quick=[])
def test_conditions_have_the_densities_of_their_trials(case, backend):
    given, inputs, conditions, params, values = by_condition(case)
    net, mask = network(case, backend), np.random.default_rng(4).random((SETS, TRIALS)) < 0.8
    seen = net.observe(inputs, given.value, trial_mask=mask, conditions=conditions)
    apart = net.observe(inputs, given.value, trial_mask=mask)
    assert seen.condition_count == CONDITIONS and seen.sequence.index is not None

    def once(values):
        return Query.build(net, seen, params=params, trial_params=values, check=False)

    shown = array(backend, (conditions[:, None] == np.arange(CONDITIONS)[:, None]).astype(np.float32))

    def each(values):
        trials = {name: (array(backend, x)[..., None] * shown).sum(-2) for name, x in values.items()}
        return Query.build(net, apart, params=params, trial_params=trials, check=False)

    log_probs, slopes = scored(backend, once, values, seen.value, True)
    others, other_slopes = scored(backend, each, values, apart.value, True)
    assert np.ptp(others[0, 0, mask[0]]) > 0.1
    np.testing.assert_allclose(log_probs, others, atol=2e-5)
    compare_slopes(slopes, other_slopes)
    if backend == "jax":
        return
    noise = array(backend, np.random.default_rng(5).uniform(0.01, 0.99, (SETS, TRIALS, case.schema.noise_size)))
    drawn = [density.one_step_ahead(query(values), x.value, noise, True) for query, x in ((once, seen), (each, apart))]
    np.testing.assert_allclose(*(np.asarray(draws)[:, mask] for _, draws in drawn), atol=1e-4)
    # What is shared by all conditions may be stated for each, and where nothing varies they do not matter.
    whole = {**params, **{name: np.ones(SETS, np.float32) for name in values}}
    shared = Query.build(net, seen, params=whole, check=False), Query.build(net, apart, params=whole, check=False)
    alike = [
        np.asarray(density.conditionals(query, x.value, True)) for query, x in zip(shared, (seen, apart), strict=True)
    ]
    np.testing.assert_allclose(*alike, atol=2e-5)
    name, x = next(iter(values.items()))
    ones = density.conditionals(once({name: np.ones_like(x)}), seen.value, True)
    np.testing.assert_allclose(np.asarray(ones)[0], alike[0], atol=2e-5)


@pytest.mark.usefixtures("quick_compilation")
def test_both_backends_pick_the_same_rows():
    given, inputs, conditions, params, values = by_condition(WAGER)
    results = []
    for backend in ("torch", "jax"):
        net = network(WAGER, backend)
        seen = net.observe(inputs, given.value, conditions=conditions)
        query = Query.build(net, seen, params=params, trial_params=values, check=False)
        results.append(np.asarray(in_one_program(density.conditionals, query, seen.value, reuse=True)))
    assert np.ptp(results[0][0, 0]) > 0.1
    np.testing.assert_allclose(*results, atol=2e-5)


def test_another_value_and_other_trials_have_the_parameters_of_their_conditions():
    given, inputs, conditions, params, values = by_condition(DISCRIMINATION)
    net = network(DISCRIMINATION, "torch")
    seen = net.observe(inputs, given.value, conditions=conditions)
    one = {name: x[0] for name, x in values.items()}
    trials = {name: np.take_along_axis(x, conditions, -1) for name, x in one.items()}
    query = Query.build(net, seen, params=params, trial_params=one, check=False)
    plain = Query.build(net, inputs, params=params, trial_params=trials, check=False)
    other = seen.value * array("torch", np.array([1.0, 1.5], np.float32))
    assert not query.matches(other)
    np.testing.assert_allclose(*(density.log_prob(each, other) for each in (query, plain)), rtol=1e-5)
    part = Query.build(
        net, seen[1:], params={name: x[1:] for name, x in params.items()},
        trial_params={name: x[1:] for name, x in one.items()}, check=False,
    )  # fmt: skip
    np.testing.assert_allclose(
        density.log_prob(part, seen.value[1:], True), density.log_prob(plain, seen.value)[1:], rtol=1e-5
    )


def test_what_are_no_conditions_is_refused():
    given, inputs, conditions, params, values = by_condition(DISCRIMINATION)
    net = network(DISCRIMINATION, "torch")
    for wrong in (conditions - 1, conditions + 0.5, np.full(conditions.shape, "a")):
        with pytest.raises(ValueError, match="conditions: expected whole numbers from 0"):
            net.observe(inputs, given.value, conditions=wrong)
    with pytest.raises(ValueError, match=rf"conditions: expected shape \(\*batch, {TRIALS}\)"):
        net.observe(inputs, given.value, conditions=conditions[:, 1:])
    for case in (DECISION, RESPONDING):
        other = data(case, context=False)
        with pytest.raises(ValueError, match="conditions: expected None unless the direct likelihood computes"):
            network(case, "torch").observe(
                other.inputs, other.value, feedback=other.feedback or None, conditions=np.zeros(7, int)
            )
    seen = net.observe(inputs, given.value, conditions=conditions)
    with pytest.raises(ValueError, match=rf"expected shape \(\*batch, {CONDITIONS}\), one value for each of the"):
        Query.build(net, seen, params=params, trial_params={name: x[..., :2] for name, x in values.items()})
