"""Readouts trial by trial, against densities one by one and posteriors on a grid."""

import numpy as np
import pytest

pandas = pytest.importorskip("pandas")

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.predictive import density  # noqa: E402
from ppl_buffer.predictive.query import Query  # noqa: E402
from tests.inference.test_evidence import LEARNING_RECORD  # noqa: E402
from tests.networks import FUNCTION, LEARNING, REPORT, array, data, network  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")
QUIET = {"progress": False}
SUBJECTS, TRIALS, DRAWS = 3, 7, 5
MASK = np.arange(TRIALS) < np.array([[7], [4], [6]])


def observed(case, backend, record=None, mask=MASK):
    """A network, and what it observed of people who did different numbers of trials."""
    pytest.importorskip(backend)
    net, given = network(case, backend, record), data(case, batch=SUBJECTS, trials=TRIALS)
    return net, net.observe(given.inputs, given.value, feedback=given.feedback, trial_mask=mask), given


def posterior(**ranges):
    rng = np.random.default_rng(2)
    return {name: rng.uniform(*ends, (DRAWS, SUBJECTS)).astype("f4") for name, ends in ranges.items()}


def padded(table, column):
    """A column as (subjects, trials), NaN where there is no trial."""
    result = np.full((SUBJECTS, TRIALS), np.nan)
    result[table["subject"], table["trial"] - 1] = table[column]
    return result


def test_surprise_is_minus_the_logarithm_of_the_mean_density():
    backend = "torch"
    net, seen, given = observed(LEARNING, backend)
    params = posterior(alpha=(0.2, 0.8), beta=(0.6, 2.0), zeta=(0.1, 0.9))
    table = pb.trial_regressors(net, seen, params, subjects=[10, 11, 12], **QUIET)
    assert table.columns[:2].tolist() == ["subject", "trial"] and len(table) == MASK.sum()
    assert table["trial"].tolist() == [*range(1, 8), *range(1, 5), *range(1, 7)]
    table["subject"] -= 10
    query = Query.build(net, seen, params={name: array(backend, x) for name, x in params.items()})
    log_density = np.asarray(density.conditionals(query, seen.value), dtype=float)
    expected = -np.log2(np.exp(log_density).mean(0))
    np.testing.assert_allclose(padded(table, "surprise")[MASK], expected[MASK], rtol=1e-4, atol=1e-4)
    # Of a single draw the surprises of a person add up to the log density of the data set.
    one = {name: x[:1] for name, x in params.items()}
    single = pb.trial_regressors(net, seen, one, **QUIET).groupby("subject")["surprise"].sum()
    np.testing.assert_allclose(-np.log(2) * single, log_density[0].sum(-1), rtol=1e-4)
    # The data lie beside it.
    np.testing.assert_allclose(padded(table, "rt")[MASK], np.asarray(given.value)[..., 1][MASK], rtol=1e-6)
    assert set(LEARNING.schema.inputs) | {"reward", "surprise_choice", "mean_rt", "sd_rt"} <= set(table.columns)
    np.testing.assert_allclose(table["p_choice_0"] + table["p_choice_1"], 1.0, rtol=1e-5)
    own = np.where(table["choice"] == 1, table["p_choice_1"], table["p_choice_0"])
    np.testing.assert_allclose(table["surprise_choice"], -np.log2(own), rtol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_probabilities_are_those_of_each_category_given_the_past(backend):
    net, seen, given = observed(REPORT, backend)
    params = posterior(mu=(-1.0, 1.0))
    table = pb.trial_regressors(net, seen, params, lapse=0.15, **QUIET)
    for trial in (0, 3):
        for category in range(5):
            value = np.array(given.value)
            value[:, trial] = category
            query = Query.build(net, given.inputs, params=params, trial_mask=MASK, lapse=0.15)
            there = np.exp(np.asarray(density.conditionals(query, array(backend, value))))[..., trial].mean(0)
            np.testing.assert_allclose(padded(table, f"p_rating_{category}")[:, trial], there, rtol=1e-4)


def test_means_and_sds_of_numbers_are_those_of_the_mixture_over_draws():
    net, seen, _ = observed(FUNCTION, "torch")
    params = posterior(mu=(-1.0, 1.0), sigma=(0.7, 2.0))
    table = pb.trial_regressors(net, seen, params, **QUIET)
    assert not [name for name in table if name.startswith("p_")] and "surprise_y" not in table
    # By quadrature of the density, one trial put at each place.
    grid = np.linspace(-60, 60, 3001).astype("f4")
    query = Query.build(net, {"x": seen.inputs["x"]}, params={name: x[:, None] for name, x in params.items()})
    value = np.broadcast_to(np.asarray(seen.value), (DRAWS, len(grid), SUBJECTS, TRIALS)).copy()
    trial = 2
    value[..., trial] = grid[:, None]
    log_density = np.asarray(density.conditionals(query, array("torch", value)))[..., trial]
    weight = np.exp(log_density).mean(0) * (grid[1] - grid[0])
    np.testing.assert_allclose(weight.sum(0), 1, atol=0.01)
    mean = grid @ weight
    np.testing.assert_allclose(padded(table, "mean_y")[:, trial], mean, atol=0.02)
    sd = np.sqrt((grid**2) @ weight - mean**2)
    np.testing.assert_allclose(padded(table, "sd_y")[:, trial], sd, rtol=0.02)


def test_without_parameters_they_are_integrated_over():
    net, seen, _ = observed(REPORT, "torch")
    table = pb.trial_regressors(net, seen, **QUIET)
    expected = np.asarray(density.conditionals(Query.build(net, seen), seen.value))
    np.testing.assert_allclose(padded(table, "surprise")[MASK], -expected[MASK] / np.log(2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_shipped_network_learns_of_people_what_the_exact_likelihood_does(backend):
    """Q-learning without noise, whose likelihood is known: learning rate and inverse temperature on a grid."""
    pytest.importorskip(backend)
    pytest.importorskip("jax")  # of the reference
    from tests.references.noisy_q import exact_log_probabilities

    task, rng = pb.simulators.NoisyQ(), np.random.default_rng(6)
    inputs = task.inputs(rng, 2, 97)
    truth = {"alpha": [0.2, 0.6], "beta": [3.0, 7.0], "kappa": [0.0, 0.0], "zeta": [0.0, 0.0]}
    trials = task.simulate(rng, {name: np.array(x) for name, x in truth.items()}, inputs)
    net = pb.load("noisy_q", backend=backend)
    seen = net.observe(inputs, trials["choice"].astype("f4"), feedback={"reward": trials["reward"]})
    known = {"kappa": pb.Prior.uniform(-0.01, 0.01), "zeta": pb.Prior.uniform(0.0, 0.003)}
    table = pb.sequential_posterior(net, seen, prior=known, draws=400, **QUIET)
    alpha, beta = (x.reshape(-1, 1) for x in np.meshgrid(np.linspace(0.005, 0.995, 67), np.linspace(0.07, 9.93, 71)))
    log_probability = exact_log_probabilities(
        {"alpha": alpha, "beta": beta, "kappa": np.zeros((1, 1))}, inputs["pair"], trials["choice"], trials["reward"]
    )
    chosen = np.take_along_axis(log_probability, np.asarray(trials["choice"], int)[None, ..., None], -1)[..., 0]
    weight = np.exp(chosen.cumsum(-1) - chosen.cumsum(-1).max(0))
    weight /= weight.sum(0)
    assert (table["effective_sample_size"] > 60).all()
    for name, grid in (("alpha", alpha[:, 0]), ("beta", beta[:, 0])):
        mean = np.einsum("gpk,g->pk", weight, grid)
        sd = np.sqrt(np.einsum("gpk,g->pk", weight, grid**2) - mean**2)
        ours = {kind: table[f"{kind}_{name}"].to_numpy().reshape(2, 97) for kind in ("mean", "sd")}
        # Within a third of a posterior standard deviation at every trial, and far nearer on average.
        error = (ours["mean"] - mean) / sd
        assert np.abs(error).max() < 0.4 and np.sqrt((error**2).mean()) < 0.12, name
        assert 0.85 < np.median(ours["sd"] / sd) < 1.15 and sd[:, -1].max() < 0.75 * sd[:, 0].max()


def test_few_draws_are_told_and_priors_can_be_stated():
    net, seen, _ = observed(LEARNING, "torch", LEARNING_RECORD)
    narrow = {"alpha": pb.Prior.uniform(0.4, 0.41)}
    with pytest.warns(UserWarning, match="worth fewer than 30 independent ones"):
        table = pb.sequential_posterior(net, seen, prior=narrow, draws=10, **QUIET)
    assert table["mean_alpha"].between(0.4, 0.41).all() and (table["sd_beta"] > 0).any()


def test_what_does_not_fit_is_refused():
    net, seen, given = observed(REPORT, "torch")
    with pytest.raises(ValueError, match="data: expected what net.observe"):
        pb.trial_regressors(net, given.inputs)
    with pytest.raises(ValueError, match="subjects: expected a list of 3 labels"):
        pb.trial_regressors(net, seen, subjects=["a"])
    with pytest.raises(ValueError, match=r"prior\['mu'\]: expected a ppl_buffer.Prior"):
        pb.sequential_posterior(net, seen)
    with pytest.raises(ValueError, match="prior: expected parameters of"):
        pb.sequential_posterior(net, seen, prior={"nu": pb.Prior.uniform(0, 1)})
    with pytest.raises(ValueError, match="outcomes: expected a category as the first of them"):
        density.one_step_probabilities(Query.build(network(FUNCTION, "torch"), data(FUNCTION).inputs, params={
            "mu": np.zeros(1), "sigma": np.ones(1)}), array("torch", data(FUNCTION).value))  # fmt: skip
