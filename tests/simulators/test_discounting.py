"""Discounting against its probabilities written another way, and against what a discount rate means."""

import numpy as np
import pytest
from scipy import stats

from ppl_buffer.simulators import Discounting
from tests.references import discounting as reference


def simulated(size, trials, seed=0):
    """Parameters, inputs with outcomes, and choice probabilities."""
    simulator, rng = Discounting(), np.random.default_rng(seed)
    params = simulator.prior(rng, size)
    inputs = simulator.inputs(rng, size, trials)
    data, probabilities = simulator.simulate_with_probabilities(rng, params, inputs)
    return params, {**inputs, **data}, probabilities["choice"]


def test_likelihood_and_probabilities_are_those_of_the_reference():
    params, data, probabilities = simulated(311, 17)
    column = {name: x[:, None] for name, x in params.items()}
    for choice in (0, 1):
        expected = reference.log_probability(column, data | {"choice": choice})
        likelihood = Discounting().log_likelihood(params, data | {"choice": np.full((311, 17), choice)})
        np.testing.assert_allclose(likelihood, expected, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(probabilities[..., choice], np.exp(expected), rtol=1e-10, atol=1e-15)


def test_choices_follow_their_probabilities():
    _, data, probabilities = simulated(1103, 97, seed=1)
    chance = probabilities[..., 1]
    for low in np.linspace(0, 0.9, 10):
        inside = (chance >= low) & (chance < low + 0.1)
        error = np.sqrt((chance * (1 - chance))[inside].sum()) / inside.sum()
        assert abs(data["choice"][inside].mean() - chance[inside].mean()) < 4 * error


@pytest.mark.parametrize(("probability", "exponent"), [(0.25, 1.0), (0.9, 0.7)])
def test_people_are_indifferent_where_the_hyperboloid_says(probability, exponent):
    """At 1/k (an even chance, at h = 1) a hyperbola has lost half; odds against stand in for a delay."""
    odds = (1 - probability) / probability
    params = {"log_rate": np.log([1 / 30.0, 1.0]), "exponent": np.array([exponent] * 2)}
    params |= {"log_inverse_temperature": np.array([4.7, 3.1]), "bias": np.zeros(2)}
    inputs = {"amount_later": np.array([[0.8], [0.8]]), "delay_later": np.array([[30.0], [odds]])}
    lost = np.array([[0.5**exponent], [(1 / (1 + odds)) ** exponent]])
    inputs |= {"amount_sooner": 0.8 * lost, "delay_sooner": np.zeros((2, 1))}
    probabilities = Discounting().simulate_with_probabilities(np.random.default_rng(0), params, inputs)[1]["choice"]
    np.testing.assert_allclose(probabilities, 0.5, atol=1e-12)
    # One per cent of the largest amount more for the later option.
    more = inputs | {"amount_sooner": inputs["amount_sooner"] - 0.01}
    later = Discounting().simulate_with_probabilities(np.random.default_rng(0), params, more)[1]["choice"][:, 0, 1]
    np.testing.assert_allclose(np.log(later / (1 - later)), 0.01 * np.exp([4.7, 3.1]), rtol=1e-9)


def test_delays_have_any_unit():
    params, data, _ = simulated(13, 7, seed=2)
    in_weeks = data | {name: data[name] / 7 for name in ("delay_sooner", "delay_later")}
    weekly = params | {"log_rate": params["log_rate"] + np.log(7)}
    simulator = Discounting()
    np.testing.assert_allclose(simulator.log_likelihood(weekly, in_weeks), simulator.log_likelihood(params, data))


def test_inputs_are_what_they_say_and_legal():
    simulator = Discounting()
    inputs = simulator.inputs(np.random.default_rng(3), 401, 53)
    for name, x in inputs.items():
        assert x.shape == (401, 53) and simulator.schema.inputs[name].contains(np, x).all()
    assert (inputs["amount_sooner"] <= inputs["amount_later"]).all()
    assert (inputs["delay_sooner"] <= inputs["delay_later"]).all()
    assert abs((inputs["delay_sooner"] == 0).mean() - 2 / 3) < 4 * np.sqrt(2 / 9 / 401 / 53)
    for name, low, high in (("amount_later", 0.05, 1.0), ("delay_later", 0.01, 5000.0)):
        share = np.log(inputs[name] / low) / np.log(high / low)
        assert stats.kstest(share.ravel(), "uniform").pvalue > 1e-3


def test_the_generator_is_the_only_source_of_randomness():
    first, again, other = (simulated(11, 23, seed=seed)[1]["choice"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exponent": np.array([1.0, 0.0])}, r"params\['exponent'\]: expected a number above 0, got 0"),
        ({"delay_sooner": np.array([[0.0], [-3.0]])}, r"inputs\['delay_sooner'\]: expected .* at least 0, got -3"),
    ],
)
def test_what_is_not_legal_is_refused(change, message):
    params, data, _ = simulated(2, 1)
    given = ({name: change.get(name, x) for name, x in group.items()} for group in (params, data))
    with pytest.raises(ValueError, match=message):
        Discounting().simulate(np.random.default_rng(0), *given)
