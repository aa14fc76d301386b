"""The noisy Q-learner against its references, and the references against each other and against brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ppl_buffer.simulators import NoisyQ, noisy_q, resampling
from tests.references import noisy_q as reference

SETTING = {"alpha": 0.43, "beta": 4.1, "kappa": -0.7, "zeta": 0.6}


def simulated(simulator, datasets, trials, seed=0, **fixed):
    """Parameters, (pair, choice, reward) and the simulator's own probabilities of each option."""
    rng = np.random.default_rng(seed)
    params = simulator.prior(rng, datasets) | {name: np.full(datasets, value) for name, value in fixed.items()}
    inputs = simulator.inputs(rng, datasets, trials)
    data, probabilities = simulator.simulate_with_probabilities(rng, params, inputs, trials)
    pair = inputs.get("pair", np.zeros((datasets, trials), int))
    return params, (pair, data["choice"], data["reward"]), probabilities["choice"]


def choice_probability(params, pair, choice, reward, noise):
    """p(choice_k | learning noise), (K, *N), for noise (K, *N) of each update: the model's definition, word by word."""
    values = {(p, option): 0.5 for p in range(9) for option in (0, 1)}
    out = []
    for k, (p, c, r) in enumerate(zip(pair, choice, reward, strict=True)):
        utility = [params["beta"] * values[p, option] for option in (0, 1)]
        if k:
            utility[choice[k - 1]] = utility[choice[k - 1]] + params["kappa"]
        out.append(np.broadcast_to(0.5 * (1 + np.tanh(0.5 * (utility[c] - utility[1 - c]))), noise.shape[1:]))
        error = r - values[p, c]
        values[p, c] = values[p, c] + params["alpha"] * error + params["zeta"] * np.abs(error) * noise[k]
    return np.stack(out)


def quadrature(params, pair, choice, reward, nodes=45):
    """log p(choice_k | past), (K,), by a dense grid over the noise of all updates but the last."""
    trials = len(choice)
    grid = np.linspace(-6, 6, nodes)
    weight = np.exp(-0.5 * grid**2)
    noise = np.zeros((trials, *(nodes,) * (trials - 1)))
    joint = np.ones(noise.shape[1:])
    for axis in range(trials - 1):
        shape = [-1 if i == axis else 1 for i in range(trials - 1)]
        noise[axis] = grid.reshape(shape)
        joint = joint * (weight / weight.sum()).reshape(shape)
    probability = choice_probability(params, pair, choice, reward, noise).cumprod(0)
    total = np.log((probability * joint).sum(tuple(range(1, trials))))
    return np.diff(total, prepend=0.0)


# The references ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain():
    """Eleven data sets at zeta = 0 with two pairs shown 10 and 9 times."""
    return simulated(NoisyQ(2, [0.9, 0.35]), 11, 19, zeta=0.0)


def test_exact_recursion_follows_the_definition(plain):
    params, (pair, choice, reward), _ = plain
    conditionals = reference.exact_conditionals(params, pair, choice, reward)
    for row in range(11):
        one = {name: value[row] for name, value in params.items()}
        expected = np.log(choice_probability(one, pair[row], choice[row], reward[row], np.zeros(19)))
        np.testing.assert_allclose(conditionals[row], expected, rtol=1e-10)


def test_exact_recursion_broadcasts_parameter_draws(plain):
    params, data, _ = plain
    draws = {name: np.stack([value, 0.5 * value], -1) for name, value in params.items()}
    both = reference.exact_conditionals(draws, *(x[:, None] for x in data))
    halved = {name: 0.5 * value for name, value in params.items()}
    np.testing.assert_allclose(both[:, 0], reference.exact_conditionals(params, *data))
    np.testing.assert_allclose(both[:, 1], reference.exact_conditionals(halved, *data))


def test_exact_recursion_in_jax_agrees_and_skips_masked_trials(plain):
    params, data, _ = plain
    expected = reference.exact_conditionals(params, *data)
    np.testing.assert_allclose(reference.exact_conditionals_jax(params, *data), expected, atol=1e-5)
    # Trials that do not exist, with a choice and a reward that would matter, among the real ones.
    at = [0, 3, 3, 19]
    padded = [np.insert(x, at, 1, axis=1) for x in data]
    mask = np.insert(np.ones((11, 19), bool), at, False, axis=1)
    result = np.asarray(reference.exact_conditionals_jax(params, *padded, trial_mask=mask))
    np.testing.assert_allclose(result[mask].reshape(11, 19), expected, atol=1e-5)
    assert (result[~mask] == 0).all()


def test_exact_recursion_in_jax_is_differentiable(plain):
    params, data, _ = plain

    def total(params):
        return reference.exact_conditionals_jax(params, *data).sum()

    gradient = jax.jit(jax.grad(total))({name: params[name].astype(np.float32) for name in ("alpha", "beta", "kappa")})
    for name, slope in gradient.items():
        step = {**params, name: params[name] + 1e-5}, {**params, name: params[name] - 1e-5}
        upper, lower = (reference.exact_conditionals(x, *data).sum(-1) for x in step)
        np.testing.assert_allclose(slope, (upper - lower) / 2e-5, rtol=2e-3, atol=2e-3)


def test_particle_filter_without_noise_is_the_exact_recursion(plain):
    params, data, _ = plain
    result = reference.particle_filter(params, *data, particles=13, seed=0)
    np.testing.assert_allclose(result.conditionals, reference.exact_conditionals(params, *data), atol=1e-5)
    np.testing.assert_allclose(result.log_probabilities, reference.exact_log_probabilities(params, *data), atol=1e-5)
    np.testing.assert_allclose(np.exp(result.log_probabilities).sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(result.total, result.conditionals.sum(-1))


@pytest.mark.parametrize("pair", [[0, 0, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0]])
def test_particle_filter_agrees_with_dense_quadrature(pair):
    # All sequences of choices in one call, each of them eight times with noise of its own.
    choice = np.repeat(list(itertools.product((0, 1), repeat=4)), 8, axis=0)
    reward = np.broadcast_to([1.0, 0.0, 0.0, 1.0], choice.shape)
    params = {name: np.full(len(choice), value) for name, value in SETTING.items()}
    pairs = np.broadcast_to(pair, choice.shape)
    result = reference.particle_filter(params, pairs, choice, reward, particles=8192, seed=3)
    mean = result.conditionals.reshape(16, 8, 4).mean(1)
    for row in range(16):
        expected = quadrature(SETTING, pair, choice[8 * row], reward[8 * row])
        np.testing.assert_allclose(mean[row], expected, atol=2e-3)


def test_particle_filter_estimates_the_likelihood_without_bias():
    # Few particles, so that a bias of the lattice or of the resampling would show; every row has its own noise.
    pair, choice, reward = [0, 0, 0, 0], [1, 1, 0, 1], [0.0, 1.0, 1.0, 0.0]
    size = 20_000
    params = {name: np.full(size, value) for name, value in SETTING.items()}
    data = (np.broadcast_to(x, (size, 4)) for x in (pair, choice, reward))
    likelihood = np.exp(reference.particle_filter(params, *data, particles=5, seed=1).total)
    expected = np.exp(quadrature(SETTING, pair, choice, reward).sum())
    error = likelihood.std() / np.sqrt(size)
    assert error < 0.01 * expected
    assert abs(likelihood.mean() - expected) < 4 * error


def test_particle_filter_converges_and_repeats():
    params, data, _ = simulated(NoisyQ(), 7, 60, seed=5)
    few, many = (
        np.stack([reference.particle_filter(params, *data, particles, seed).total for seed in range(6)])
        for particles in (32, 512)
    )
    deviation_few, deviation_many = (np.sqrt(x.var(0, ddof=1).mean()) for x in (few, many))
    # Particles that move independently would gain a factor 4 at best; the lattice gains more.
    assert deviation_many < deviation_few / 4
    assert deviation_many < 0.15
    np.testing.assert_array_equal(reference.particle_filter(params, *data, 32, 0).total, few[0])


@pytest.mark.parametrize("noisy", [False, True])
def test_evidence_agrees_with_a_large_sample_of_the_prior(noisy):
    _, data, _ = simulated(NoisyQ(2), 3, 5, seed=9)
    if noisy:
        estimate, error = reference.log_evidence_noisy(*data, draws=2000, particles=32)
    else:
        estimate, error = reference.log_evidence_exact(*data, draws=2000)
    rng = np.random.default_rng(1)
    draws = 400_000
    low, high = np.array([[0, 1], [0, 10], [-2, 2], [0, 1]]).T
    params = dict(zip(SETTING, (low + (high - low) * rng.random((draws, 4))).T, strict=True))
    if not noisy:
        params["zeta"] = np.zeros(draws)
    noise = rng.standard_normal((5, draws))
    assert (error < 0.03).all()
    for row in range(3):
        likelihood = choice_probability(params, *(x[row] for x in data), noise).prod(0)
        own = likelihood.std() / likelihood.mean() / np.sqrt(draws)
        assert abs(estimate[row] - np.log(likelihood.mean())) < 4 * np.hypot(own, error[row])


def test_evidence_states_its_own_error():
    _, data, _ = simulated(NoisyQ(), 5, 120, seed=2, zeta=0.0)
    runs = [reference.log_evidence_exact(*data, draws=1000, seed=seed) for seed in range(6)]
    estimate, error = np.stack(runs, 1)
    assert (error < 0.05).all()
    ratio = estimate.var(0, ddof=1).mean() / (error**2).mean()
    assert 0.3 < ratio < 3


# The simulator ----------------------------------------------------------------------------------------------------


def test_probabilities_without_noise_are_those_of_the_exact_recursion(plain):
    params, data, probabilities = plain
    np.testing.assert_allclose(probabilities, np.exp(reference.exact_log_probabilities(params, *data)), rtol=1e-10)


def test_noise_has_the_stated_size():
    # The second choice of a pair, after a rewarded and an unrewarded first one, averaged over the noise of its update.
    params = {name: np.full(200_000, value) for name, value in (SETTING | {"zeta": 0.9}).items()}
    data = NoisyQ(1).simulate(np.random.default_rng(4), params, {}, 2)
    choice, reward = data["choice"], data["reward"]
    for first, rewarded in itertools.product((0, 1), repeat=2):
        rows = (choice[:, 0] == first) & (reward[:, 0] == rewarded)
        log_prob = quadrature(SETTING | {"zeta": 0.9}, [0, 0], [first, 1], [rewarded, 0.0], nodes=401)
        chance = np.exp(log_prob[1])
        assert abs(choice[rows, 1].mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / rows.sum())


def test_probabilities_under_noise_are_those_of_the_marginal_likelihood():
    """Given the history, not given the learning noise that was drawn: a filter written in another way agrees."""
    params, data, probabilities = simulated(NoisyQ(), 41, 60, seed=8)
    expected = np.exp(reference.particle_filter(params, *data, particles=2**12, seed=1).log_probabilities)
    divergence = (expected * (np.log(expected) - np.log(probabilities))).sum(-1).mean()
    # Probabilities that know the drawn noise are 0.1 nats away; 256 particles leave about 0.001.
    assert 0 < divergence < 0.004


def test_probabilities_under_noise_have_no_bias_whatever_the_number_of_particles(monkeypatch):
    """Their mean over all that may have happened to those of one history, against quadrature.

    Of three particles, few enough for a large bias of a free filter, and enough for one to be resampled.
    """
    monkeypatch.setattr(noisy_q, "_PARTICLES", 3)
    setting = {"alpha": 0.2, "beta": 8.3, "kappa": 0.4, "zeta": 0.9}
    _, (_, choice, reward), probabilities = simulated(NoisyQ(1), 300_000, 4, seed=11, **setting)
    history = np.stack([choice[:, :3], reward[:, :3]], 1).astype(int)
    compared = 0
    for past in itertools.product((0, 1), repeat=6):
        chosen, rewarded = past[:3], past[3:]
        rows = (history == np.reshape(past, (2, 3))).all((1, 2))
        if rows.sum() < 1000:
            continue
        log_prob = quadrature(setting, [0] * 4, [*chosen, 1], [*rewarded, 0.0], nodes=61)
        estimates = probabilities[rows, 3, 1]
        error = estimates.std() / np.sqrt(rows.sum())
        assert abs(estimates.mean() - np.exp(log_prob[3])) < 4 * error, past
        compared += 1
    assert compared > 40


def test_the_particle_that_was_drawn_survives_and_the_others_as_often_as_their_weights_say():
    """Systematic resampling given that a particle, itself drawn by the weights, survives: as it is without this."""
    rng, filters = np.random.default_rng(12), 200_000
    weight = np.array([0.03, 0.41, 0.07, 0.32, 0.17])
    drawn = rng.choice(5, filters, p=weight)
    # The particle that was drawn is in the first place.
    order = (drawn[:, None] + np.arange(5)) % 5
    parent = resampling.resample(weight[order], rng.random((filters, 1)))
    assert (parent[:, 0] == 0).all()
    counts = (np.take_along_axis(order, parent, 1)[..., None] == np.arange(5)).sum(1)
    # Systematic: the numbers of each are those next to its share, whichever was drawn.
    assert (np.abs(counts - 5 * weight) < 1).all()
    error = counts.std(0) / np.sqrt(filters)
    assert (np.abs(counts.mean(0) - 5 * weight) < 4 * error).all()


def test_choices_follow_their_probabilities():
    _, (_, choice, _), probabilities = simulated(NoisyQ(), 5000, 31, seed=6)
    chance = probabilities[..., 1]
    np.testing.assert_allclose(probabilities.sum(-1), 1)
    edges = np.quantile(chance, np.linspace(0, 1, 12))
    for low, high in itertools.pairwise(edges):
        inside = (chance >= low) & (chance < high)
        if not inside.any():  # the first trials all have probability one half
            continue
        expected = chance[inside]
        error = np.sqrt((expected * (1 - expected)).sum()) / inside.sum()
        assert abs(choice[inside].mean() - expected.mean()) < 4 * error


def test_rewards_follow_the_probability_of_the_symbol():
    probabilities = [0.85, 0.3]
    _, (pair, choice, reward), _ = simulated(NoisyQ(2, probabilities), 3000, 29, seed=7)
    assert set(np.unique(reward)) == {0.0, 1.0}
    for index, option in itertools.product((0, 1), repeat=2):
        rows = (pair == index) & (choice == option)
        chance = probabilities[index] if option else 1 - probabilities[index]
        assert abs(reward[rows].mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / rows.sum())


def test_default_rewards_are_those_of_the_selection_task():
    assert NoisyQ().reward_probabilities == (0.8, 0.7, 0.6)
    assert NoisyQ(5).reward_probabilities == (0.8, 0.7, 0.6, 0.8, 0.7)


@pytest.mark.parametrize("kappa", [-1.7, 1.3])
def test_stickiness_holds_the_option_index_across_pairs(kappa):
    _, (pair, choice, _), probabilities = simulated(NoisyQ(), 13, 30, beta=0.0, kappa=kappa)
    repeat = np.take_along_axis(probabilities[:, 1:], choice[:, :-1, None], -1)[..., 0]
    np.testing.assert_allclose(probabilities[:, 0], 0.5)
    assert (pair[:, 1:] != pair[:, :-1]).any() and (pair[:, 1:] == pair[:, :-1]).any()
    np.testing.assert_allclose(repeat, 1 / (1 + np.exp(-kappa)))


def test_a_data_set_does_not_depend_on_its_neighbours():
    class Columns:
        """A generator that gives some data sets the random numbers that they have among all of them."""

        def __init__(self, columns):
            self.rng, self.columns = np.random.default_rng(8), columns

        def random(self, shape):
            return self.rng.random((shape[0], 7))[:, self.columns]

        def standard_normal(self, shape):
            return self.rng.standard_normal((shape[0], 7))[:, self.columns]

    simulator = NoisyQ()
    rng = np.random.default_rng(0)
    params, inputs = simulator.prior(rng, 7), simulator.inputs(rng, 7, 23)
    together = simulator.simulate(Columns(slice(None)), params, inputs)
    for row in range(7):
        part = slice(row, row + 1)
        own_params = {name: value[part] for name, value in params.items()}
        alone = simulator.simulate(Columns(part), own_params, {"pair": inputs["pair"][part]})
        for name, value in together.items():
            np.testing.assert_array_equal(alone[name][0], value[row])


def test_the_generator_is_the_only_source_of_randomness():
    first, again, other = (simulated(NoisyQ(), 11, 23, seed=seed) for seed in (3, 3, 4))
    for name in SETTING:
        np.testing.assert_array_equal(first[0][name], again[0][name])
        assert (first[0][name] != other[0][name]).all()
    for a, b, c in zip(first[1], again[1], other[1], strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


def test_prior_fills_its_box():
    draws = NoisyQ().prior(np.random.default_rng(0), 20_000)
    for name, (low, high) in {"alpha": (0, 1), "beta": (0, 10), "kappa": (-2, 2), "zeta": (0, 1)}.items():
        share = np.sort((draws[name] - low) / (high - low))
        # Kolmogorov-Smirnov distance from the uniform distribution, at about p = 1e-4.
        assert np.abs(share - np.linspace(0, 1, 20_000)).max() < 2.2 / np.sqrt(20_000)


def test_pairs_are_shown_equally_often_in_random_order():
    pair = NoisyQ().inputs(np.random.default_rng(0), 17, 31)["pair"]
    counts = np.stack([np.bincount(row, minlength=3) for row in pair])
    assert ((counts == 10) | (counts == 11)).all()
    assert len({tuple(row) for row in pair}) == 17


def test_one_pair_needs_no_input():
    simulator = NoisyQ(1)
    assert simulator.schema.inputs == {} and simulator.inputs(np.random.default_rng(0), 5, 7) == {}
    params, data, probabilities = simulated(simulator, 5, 7, zeta=0.0)
    np.testing.assert_allclose(probabilities, np.exp(reference.exact_log_probabilities(params, *data)), rtol=1e-10)


def test_environment_serves_every_backend():
    simulator = NoisyQ()
    rng = np.random.default_rng(0)
    pair, choice, uniform = rng.integers(0, 3, 101), rng.integers(0, 2, 101), rng.random((101, 1))
    expected = simulator.environment(0, {"pair": pair}, {"choice": choice}, uniform)["reward"]
    better = np.array([0.8, 0.7, 0.6])[pair]
    np.testing.assert_array_equal(expected, uniform[:, 0] < np.where(choice == 1, better, 1 - better))
    traced = jax.jit(lambda k, p, c, u: simulator.environment(k, {"pair": p}, {"choice": c}, u)["reward"])
    arrays = [x.astype(np.float32) for x in (pair, choice, uniform)]
    np.testing.assert_array_equal(traced(jnp.asarray(4), *map(jnp.asarray, arrays)), expected)
    tensors = [torch.as_tensor(x) for x in arrays]
    drawn = simulator.environment(4, {"pair": tensors[0]}, {"choice": tensors[1]}, tensors[2])["reward"]
    np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "pairs: expected an integer of at least 1, got 0"),
        ((2.0,), "pairs: .* got 2.0"),
        ((True,), "pairs: .* got True"),
        ((3, [0.8, 0.7]), r"reward_probabilities: expected 3 numbers, got shape \(2,\)"),
        ((2, [[0.8, 0.7]]), "reward_probabilities: expected 2 numbers"),
        ((2, [0.8, 1.2]), r"reward_probabilities: expected numbers in \[0, 1\], got \[0.8, 1.2\]"),
        ((2, [0.8, float("nan")]), r"reward_probabilities: expected numbers in \[0, 1\]"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NoisyQ(*arguments)


def test_a_simulation_without_inputs_asks_for_the_number_of_trials():
    simulator = NoisyQ(1)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="trials: expected a number"):
        simulator.simulate(rng, simulator.prior(rng, 5), {})
