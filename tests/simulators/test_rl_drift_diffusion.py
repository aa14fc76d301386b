"""The learner whose values drive a diffusion, against its exact likelihood, and that against the model's definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ppl_buffer.simulators import RLDriftDiffusion
from tests.precision import double_precision
from tests.references import drift_diffusion, rl_drift_diffusion

NAMES = ["alpha_positive", "alpha_negative", "scaling", "boundary", "non_decision_time"]


def simulated(simulator, datasets, trials, seed=0):
    """Parameters, (pair, choice, rt, reward) and the simulator's own probabilities of each option."""
    rng = np.random.default_rng(seed)
    params = simulator.prior(rng, datasets)
    inputs = simulator.inputs(rng, datasets, trials)
    data, probabilities = simulator.simulate_with_probabilities(rng, params, inputs, trials)
    pair = inputs.get("pair", np.zeros((datasets, trials), int))
    return params, (pair, data["choice"], data["rt"], data["reward"]), probabilities["choice"]


@pytest.fixture(scope="module")
def small():
    """Eleven data sets with two pairs shown 10 and 9 times."""
    return simulated(RLDriftDiffusion(2, [0.9, 0.35]), 11, 19)


@pytest.fixture(scope="module")
def large():
    """Data sets of three pairs, enough to see a distribution."""
    return simulated(RLDriftDiffusion(), 137, 101, seed=1)


# The reference ----------------------------------------------------------------------------------------------------


def test_drifts_follow_the_definition(small):
    params, (pair, choice, _, reward), _ = small
    drifts = rl_drift_diffusion.exact_drifts(params, pair, choice, reward)
    for row in range(11):
        values = {(0, 0): 0.5, (0, 1): 0.5, (1, 0): 0.5, (1, 1): 0.5}
        for k in range(19):
            shown, chosen, rewarded = pair[row, k], choice[row, k], reward[row, k]
            expected = params["scaling"][row] * (values[shown, 1] - values[shown, 0])
            np.testing.assert_allclose(drifts[row, k], expected, rtol=1e-12)
            error = rewarded - values[shown, chosen]
            rate = params["alpha_positive"][row] if error > 0 else params["alpha_negative"][row]
            values[shown, chosen] += rate * error


def test_conditionals_are_the_density_at_the_drift_of_the_trial(small):
    params, (pair, choice, rt, reward), _ = small
    conditionals = rl_drift_diffusion.exact_conditionals(params, pair, choice, rt, reward)
    drifts = rl_drift_diffusion.exact_drifts(params, pair, choice, reward)
    for row, k in itertools.product(range(11), (0, 4, 18)):
        decision = {name: params[name][row] for name in ("boundary", "non_decision_time")}
        decision |= {"drift": drifts[row, k], "starting_point": 0.5, "drift_variability": 0.0}
        expected = drift_diffusion.log_density(decision, choice[row, k], rt[row, k])
        np.testing.assert_allclose(conditionals[row, k], expected)


def test_conditionals_broadcast_parameter_draws(small):
    params, data, _ = small
    draws = {name: np.stack([value, 0.5 * value], -1) for name, value in params.items()}
    both = rl_drift_diffusion.exact_conditionals(draws, *(x[:, None] for x in data))
    halved = {name: 0.5 * value for name, value in params.items()}
    np.testing.assert_allclose(both[:, 0], rl_drift_diffusion.exact_conditionals(params, *data))
    np.testing.assert_allclose(both[:, 1], rl_drift_diffusion.exact_conditionals(halved, *data))


def test_conditionals_in_jax_agree_and_skip_masked_trials_and_are_differentiable(small):
    params, data, _ = small
    expected = rl_drift_diffusion.exact_conditionals(params, *data)
    # Trials that do not exist, with a choice, a reward and an impossible response time, among the real ones.
    at = [0, 3, 3, 19]
    padded = [np.insert(x, at, 1e-3 if x is data[2] else 1, axis=1) for x in data]
    mask = np.insert(np.ones((11, 19), bool), at, False, axis=1)

    @jax.jit
    def gradient(params):
        def total(params):
            log_probs = rl_drift_diffusion.exact_conditionals_jax(params, *padded, trial_mask=mask)
            return log_probs.sum(), log_probs

        return jax.grad(total, has_aux=True)(params)

    with double_precision():
        slopes, log_probs = gradient({name: jnp.asarray(value) for name, value in params.items()})
    np.testing.assert_allclose(np.asarray(log_probs)[mask].reshape(11, 19), expected, rtol=1e-9)
    assert (np.asarray(log_probs)[~mask] == 0).all()
    for name in NAMES:
        upper, lower = (
            rl_drift_diffusion.exact_conditionals(params | {name: params[name] + change}, *data).sum(-1)
            for change in (1e-6, -1e-6)
        )
        np.testing.assert_allclose(slopes[name], (upper - lower) / 2e-6, rtol=1e-4, atol=1e-4)


# The simulator ----------------------------------------------------------------------------------------------------


def test_probabilities_are_those_of_the_exact_drift(small):
    params, (pair, choice, _, reward), probabilities = small
    drifts = rl_drift_diffusion.exact_drifts(params, pair, choice, reward)
    expected = 1 / (1 + np.exp(-drifts * params["boundary"][:, None]))
    np.testing.assert_allclose(probabilities[..., 1], expected, rtol=1e-10)
    np.testing.assert_allclose(probabilities.sum(-1), 1)


def test_choices_follow_their_probabilities(large):
    _, (_, choice, _, _), probabilities = large
    chance = probabilities[..., 1]
    edges = np.quantile(chance, np.linspace(0, 1, 12))
    for low, high in itertools.pairwise(edges):
        inside = (chance >= low) & (chance < high)
        if not inside.any():  # untouched pairs all have probability one half
            continue
        expected = chance[inside]
        error = np.sqrt((expected * (1 - expected)).sum()) / inside.sum()
        assert abs(choice[inside].mean() - expected.mean()) < 4 * error


def test_response_times_follow_the_exact_density_given_the_choice(large):
    params, (pair, choice, rt, reward), probabilities = large
    decision = {name: params[name][:, None] for name in ("boundary", "non_decision_time")}
    decision["drift"] = rl_drift_diffusion.exact_drifts(params, pair, choice, reward)
    chosen = np.take_along_axis(probabilities, choice[..., None], -1)[..., 0]
    share = drift_diffusion.distribution_function(decision, choice, rt, nodes=160) / chosen
    for option in (0, 1):
        assert stats.kstest(share[choice == option], "uniform").pvalue > 1e-3
    # Trial after trial the shares are independent.
    assert abs(np.corrcoef(share[:, 1:].ravel(), share[:, :-1].ravel())[0, 1]) < 4 / np.sqrt(share.size)


def test_responses_drawn_again_follow_the_exact_density_given_the_same_past(small):
    params, (pair, choice, rt, reward), probabilities = small
    simulator, count = RLDriftDiffusion(2, [0.9, 0.35]), 307
    data = {"pair": pair, "choice": choice, "rt": rt, "reward": reward}
    again = simulator.resample_outcomes(np.random.default_rng(5), params, data, count)
    assert again["choice"].shape == again["rt"].shape == (11, 19, count)
    chance = probabilities[..., 1]
    spread = np.sqrt(chance * (1 - chance) / count)
    assert (np.abs(again["choice"].mean(-1) - chance) <= 4.5 * spread).all()
    # The choices of the past are the data's, not the new ones.
    decision = {name: params[name][:, None, None] for name in ("boundary", "non_decision_time")}
    decision["drift"] = rl_drift_diffusion.exact_drifts(params, pair, choice, reward)[..., None]
    of_choice = np.take_along_axis(probabilities[:, :, None], again["choice"][..., None], -1)[..., 0]
    share = drift_diffusion.distribution_function(decision, again["choice"], again["rt"], nodes=160) / of_choice
    assert stats.kstest(share.ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(share[:, -1].ravel(), "uniform").pvalue > 1e-3


def test_the_simulators_own_density_is_the_exact_one(small):
    params, (pair, choice, rt, reward), _ = small
    rt = rt.copy()
    rt[3, 5] = 0.9 * params["non_decision_time"][3]
    data = {"pair": pair, "choice": choice, "rt": rt, "reward": reward}
    found = RLDriftDiffusion(2, [0.9, 0.35]).log_likelihood(params, data)
    np.testing.assert_allclose(
        found, rl_drift_diffusion.exact_conditionals(params, pair, choice, rt, reward), rtol=1e-10
    )
    assert np.flatnonzero(~np.isfinite(found)).tolist() == [3 * 19 + 5]


def test_rewards_follow_the_probability_of_the_symbol(large):
    _, (pair, choice, _, reward), _ = large
    assert set(np.unique(reward)) == {0.0, 1.0}
    for index, option in itertools.product((0, 1, 2), (0, 1)):
        trials = (pair == index) & (choice == option)
        chance = (0.8, 0.7, 0.6)[index] if option else 1 - (0.8, 0.7, 0.6)[index]
        assert abs(reward[trials].mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / trials.sum())


def test_one_pair_needs_no_input_but_the_number_of_trials():
    simulator = RLDriftDiffusion(1)
    assert simulator.schema.inputs == {} and simulator.inputs(np.random.default_rng(0), 5, 7) == {}
    params, data, probabilities = simulated(simulator, 5, 7)
    drifts = rl_drift_diffusion.exact_drifts(params, data[0], data[1], data[3])
    np.testing.assert_allclose(probabilities[..., 1], 1 / (1 + np.exp(-drifts * params["boundary"][:, None])))
    with pytest.raises(ValueError, match="trials: expected a number"):
        simulator.simulate(np.random.default_rng(0), params, {})


def test_the_generator_is_the_only_source_of_randomness():
    first, again, other = (simulated(RLDriftDiffusion(), 11, 23, seed=seed) for seed in (3, 3, 4))
    for a, b, c in zip(first[1], again[1], other[1], strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


def test_prior_fills_the_published_box():
    draws = RLDriftDiffusion().prior(np.random.default_rng(0), 20_000)
    assert list(draws) == NAMES == list(RLDriftDiffusion().schema.params)
    box = [(0, 1), (0, 1), (0, 10), (2 * 0.3, 2 * 2.5), (0, 2)]
    for (low, high), values in zip(box, draws.values(), strict=True):
        share = np.sort((values - low) / (high - low))
        # Kolmogorov-Smirnov distance from the uniform distribution, at about p = 1e-4.
        assert np.abs(share - np.linspace(0, 1, 20_000)).max() < 2.2 / np.sqrt(20_000)


def test_the_proposal_is_the_prior_in_half_of_the_sets_and_nearer_to_the_ends_of_its_box_in_the_others():
    simulator, size = RLDriftDiffusion(), 20_011
    drawn = simulator.proposal(np.random.default_rng(2), size)
    assert list(drawn) == NAMES
    # Scaling and boundary, which say how much a trial tells, are drawn to their upper end alone.
    low = {"scaling": 1.0, "boundary": 1.0}
    far = []
    for name, x in drawn.items():
        prior = simulator.priors[name]
        near_end = stats.beta(low.get(name, 0.5), 0.5)
        found = stats.kstest(prior.cdf(x), lambda u, near_end=near_end: 0.5 * u + 0.5 * near_end.cdf(u))
        assert found.pvalue > 1e-3, name
        far.append(np.abs(prior.cdf(x) - 0.5))
    # The sets near the ends are so in all parameters at once.
    correlations = np.corrcoef(far)[np.triu_indices(5, 1)]
    assert (correlations > 4 / np.sqrt(size)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha_positive": 1.0}, r"params\['alpha_positive'\]: expected a number in \(0, 1\), got 1"),
        ({"alpha_negative": np.nan}, r"params\['alpha_negative'\]: .* got nan"),
        ({"scaling": 0.0}, r"params\['scaling'\]: expected a number above 0, got 0"),
        ({"boundary": np.inf}, r"params\['boundary'\]: .* got inf"),
    ],
)
def test_illegal_parameters_are_refused(change, message):
    simulator = RLDriftDiffusion()
    rng = np.random.default_rng(0)
    params = simulator.prior(rng, 3)
    params[next(iter(change))][1] = next(iter(change.values()))
    with pytest.raises(ValueError, match=message):
        simulator.simulate(rng, params, simulator.inputs(rng, 3, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "pairs: expected an integer of at least 1, got 0"),
        ((3, [0.8, 0.7]), r"reward_probabilities: expected 3 numbers, got shape \(2,\)"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RLDriftDiffusion(*arguments)


# What follows a lost trial --------------------------------------------------------------------------------------------

# Of the first four of five trials; nothing before the second is lost.
LOST = {"choice": [0, 1, 1, 0, 0], "rt": [0, 1, 0, 0, 0], "reward": [0, 1, 0, 1, 0]}


def by_enumeration(simulator, params, inputs, data):
    """Log density of each trial given what `LOST` leaves to see, (size, trials), over all that may have been lost."""
    shape = data["choice"].shape
    before, total = np.zeros(shape), np.zeros(shape)
    flips = [(name, k) for name in ("choice", "reward") for k in range(shape[1]) if LOST[name][k]]
    for values in itertools.product((0.0, 1.0), repeat=len(flips)):
        past = {name: x.astype(float) for name, x in data.items()}
        for (name, k), value in zip(flips, values, strict=True):
            past[name][:, k] = value
        drift = rl_drift_diffusion.exact_drifts(params, inputs["pair"], past["choice"].astype(int), past["reward"])
        upper = 1 / (1 + np.exp(-drift * params["boundary"][:, None]))
        chance = np.where(past["choice"] == 1, upper, 1 - upper)
        better = np.asarray(simulator.reward_probabilities)[inputs["pair"]]
        better = np.where(past["choice"] == 1, better, 1 - better)
        of_reward = np.where(past["reward"] == 1, better, 1 - better)
        of_past = simulator.log_likelihood(params, {**inputs, **past})
        of_response = np.where(np.array(LOST["rt"]), chance, np.exp(of_past))
        weight = np.concatenate([np.ones((shape[0], 1)), (of_response * of_reward).cumprod(1)[:, :-1]], 1)
        for k in range(shape[1]):
            # The trial itself as it was drawn; what was lost of later ones counts once.
            if any(place >= k and value for (_, place), value in zip(flips, values, strict=True)):
                continue
            drawn = {name: np.where(np.arange(shape[1]) == k, data[name], past[name]) for name in past}
            total[:, k] += weight[:, k] * np.exp(simulator.log_likelihood(params, {**inputs, **drawn})[:, k])
            before[:, k] += weight[:, k]
    return np.log(total / before)


def test_the_density_given_what_was_seen_is_the_mean_over_what_was_lost(monkeypatch):
    simulator, rng = RLDriftDiffusion(2, [0.9, 0.35]), np.random.default_rng(4)
    params = simulator.prior(rng, 307)
    inputs = {"pair": np.broadcast_to(np.array([0, 0, 0, 1, 0]), (307, 5))}
    data = simulator.simulate(rng, params, inputs)
    right = by_enumeration(simulator, params, inputs, data)
    lost = {name: np.broadcast_to(np.array(x, bool), (307, 5)) for name, x in LOST.items()}
    given = rng, params, {**inputs, **data}, lost
    whole = simulator.log_likelihood(params, {**inputs, **data})
    estimate = simulator.seen_log_likelihood(*given)
    np.testing.assert_allclose(estimate[:, :2], whole[:, :2], rtol=1e-12)
    assert np.abs(estimate - right)[:, 2:].mean() < np.abs(whole - right)[:, 2:].mean() / 3
    monkeypatch.setattr("ppl_buffer.simulators.rl_drift_diffusion._PARTICLES", 3001)
    np.testing.assert_allclose(simulator.seen_log_likelihood(*given), right, atol=0.5)
    assert np.abs(simulator.seen_log_likelihood(*given) - right).mean() < 0.006
    # A time on its bound, as rounding may leave it, has no density; what follows it has one.
    rt = np.where(np.arange(5) == 3, params["non_decision_time"][:, None], data["rt"])
    at_bound = simulator.seen_log_likelihood(rng, params, {**inputs, **data, "rt": rt}, lost)
    assert (at_bound[:, 3] == -np.inf).all() and np.isfinite(at_bound[:, [0, 1, 2, 4]]).all()
    # Where nothing is lost there is nothing to estimate.
    nothing = {name: np.zeros_like(x) for name, x in lost.items()}
    np.testing.assert_array_equal(simulator.seen_log_likelihood(*given[:3], nothing), whole)
