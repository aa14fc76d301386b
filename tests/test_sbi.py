"""The network as sbi's likelihood estimator: the same densities, shapes that are never stretched, sbi's tools run."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("pyro")
# Before sbi's own modules: it imports them with torch's checks left as they are.
pytest.importorskip("ppl_buffer.sbi", exc_type=ImportError)

import torch  # noqa: E402
from sbi.diagnostics import run_sbc, run_tarp  # noqa: E402
from sbi.diagnostics.lc2st import LC2ST  # noqa: E402
from sbi.inference import (  # noqa: E402
    NLE,
    ImportanceSamplingPosterior,
    MCMCPosterior,
    VIPosterior,
    likelihood_estimator_based_potential,
)
from sbi.utils import BoxUniform, MultipleIndependent  # noqa: E402

from ppl_buffer.prior import Prior  # noqa: E402
from ppl_buffer.pyro import JointPredictive  # noqa: E402
from ppl_buffer.sbi import LikelihoodEstimator  # noqa: E402
from tests.diagnostics.own import PRIORS, Own, telling  # noqa: E402
from tests.networks import LEARNING, Record, draw_group, network, reward  # noqa: E402

TRIALS, THETAS = 7, 5
# sbi announces its own future, and advises on sizes that a test does not need.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def learning():
    """A model with inputs, two outcomes, feedback and three parameters; a data set, and parameters."""
    net = network(LEARNING, "torch")
    priors = {"alpha": Prior.uniform(0, 1), "beta": Prior("LogNormal", {"loc": 0.0, "scale": 0.5}),
              "zeta": Prior.uniform(0, 1)}  # fmt: skip
    estimator = LikelihoodEstimator(net, TRIALS, simulator=Own(net, priors, environment=reward))
    theta = np.stack(list(draw_group(np.random.default_rng(1), net.schema.params, (THETAS,)).values()), -1)
    theta = torch.tensor(theta.astype(np.float32))
    data = estimator.unpack(estimator.simulate(theta, seed=3))
    return estimator, data, theta


def density(net, data, theta):
    """What the project's own distribution says of data sets (B, K) at parameters (..., 3)."""
    distribution = JointPredictive(
        net, {name: data[name] for name in net.schema.inputs}, feedback={"reward": data["reward"]},
        params={name: theta[..., i] for i, name in enumerate(net.schema.params)},
    )  # fmt: skip
    return distribution.log_prob(torch.stack([data[name] for name in net.schema.outcomes], -1))


def test_densities_are_those_of_the_distribution(learning) -> None:
    estimator, data, theta = learning
    x = estimator.pack(data)
    assert x.shape == (THETAS, TRIALS * 5)
    expected = density(estimator.net, data, theta)
    # Each data set at its own parameters, and several parameters for each.
    torch.testing.assert_close(estimator.log_prob(x, theta), expected[None])
    several = torch.stack([theta, theta.roll(1, 0)])
    torch.testing.assert_close(estimator.log_prob(x, several), density(estimator.net, data, several))
    # As a sampler asks: independent data sets along the first dimension, each at every one of the parameters.
    crossed = estimator.log_prob(x[:3, None].expand(-1, THETAS, -1), theta)
    first = {name: value[:3, None] for name, value in data.items()}
    torch.testing.assert_close(crossed, density(estimator.net, first, theta))
    torch.testing.assert_close(estimator.loss(x, theta), -expected)


def test_gradients_reach_the_parameters(learning) -> None:
    estimator, data, theta = learning
    here, there = theta.clone().requires_grad_(), theta.clone().requires_grad_()
    estimator.log_prob(estimator.pack(data), here).sum().backward()
    density(estimator.net, data, there).sum().backward()
    assert here.grad is not None and there.grad is not None and (there.grad != 0).all()
    torch.testing.assert_close(here.grad, there.grad, rtol=1e-3, atol=1e-4)


def test_illegal_parameters_have_no_density_and_do_no_harm(learning) -> None:
    estimator, data, theta = learning
    wrong = theta.clone()
    wrong[1, 0] = 1.5
    wrong.requires_grad_()
    result = estimator.log_prob(estimator.pack(data), wrong)[0]
    assert result[1] == -torch.inf and torch.isfinite(result[[0, 2, 3, 4]]).all()
    (gradient,) = torch.autograd.grad(result[[0, 2, 3, 4]].sum(), wrong)
    assert torch.isfinite(gradient).all()


def test_parameters_that_are_not_told_are_integrated_over(learning) -> None:
    estimator, data, theta = learning
    some = LikelihoodEstimator(estimator.net, TRIALS, params=["zeta", "alpha"])
    expected = JointPredictive(
        estimator.net, {name: data[name] for name in ("pair", "delay")}, feedback={"reward": data["reward"]},
        params={"zeta": theta[:, 2], "alpha": theta[:, 0]},
    ).log_prob(torch.stack([data["choice"], data["rt"]], -1))  # fmt: skip
    torch.testing.assert_close(some.log_prob(some.pack(data), theta[:, [2, 0]])[0], expected)
    with pytest.raises(ValueError, match="params: expected all of"):
        LikelihoodEstimator(estimator.net, TRIALS, params=["zeta"], simulator=estimator.simulator).simulate(
            theta[:, :1]
        )


def test_wrong_shapes_raise_instead_of_stretching(learning) -> None:
    estimator, data, theta = learning
    x = estimator.pack(data)
    numbers = TRIALS * 5
    # Trials for data sets: sbi's own alignment would make each of them a data set of its own.
    for wrong in (x[0].reshape(TRIALS, 5), x[0][:, None], x[:, :1]):
        with pytest.raises(ValueError, match=f"input: expected {numbers} numbers on the last axis, 7 trials"):
            estimator.log_prob(wrong, theta)
    with pytest.raises(ValueError, match=r"theta: expected 3 numbers on the last axis, the parameters \['alpha'"):
        estimator.log_prob(x, theta[:, :1])
    with pytest.raises(ValueError, match="expected equal batch sizes, or one of 1, got 5 and 3"):
        estimator.log_prob(x, theta[:3])
    with pytest.raises(ValueError, match="expected equal sample sizes, or one of 1, got 2 and 3"):
        estimator.log_prob(x.expand(2, -1, -1), theta.expand(3, -1, -1))
    with pytest.raises(ValueError, match=r"input: expected shape \(batch, 35\)"):
        estimator.log_prob(x[0], theta)
    with pytest.raises(ValueError, match=r"data\['delay'\]: expected shape \(batch, 7\)"):
        estimator.pack({**data, "delay": data["delay"][:, :4]})
    with pytest.raises(ValueError, match="data: expected"):
        estimator.pack({"pair": data["pair"]})
    illegal = x.clone()
    illegal[0, 2] = 2.0
    with pytest.raises(ValueError, match=r"value\['choice'\]: expected"):
        estimator.log_prob(illegal, theta)


def test_trials_that_do_not_exist_count_for_nothing(learning) -> None:
    whole, data, theta = learning
    lengths = torch.tensor([7, 4, 7, 0, 2])
    exists = torch.arange(TRIALS) < lengths[:, None]
    ragged = LikelihoodEstimator(whole.net, TRIALS, ragged=True, simulator=whole.simulator)
    # Whatever stands where there is no trial.
    x = ragged.pack({name: value.where(exists, torch.nan) for name, value in data.items()}, exists)
    assert x.shape == (THETAS, TRIALS * 6) and torch.isfinite(x).all()
    result = ragged.log_prob(x, theta)[0]
    torch.testing.assert_close(result[[0, 2]], density(whole.net, data, theta)[[0, 2]])
    for index in (1, 4):
        length = int(lengths[index])
        shorter = LikelihoodEstimator(whole.net, length)
        alone = shorter.pack({name: value[index, :length] for name, value in data.items()})
        torch.testing.assert_close(result[index], shorter.log_prob(alone, theta[[index]])[0, 0], rtol=1e-5, atol=1e-5)
    assert result[3] == 0
    prior = BoxUniform(torch.zeros(3), torch.tensor([1.0, 9.0, 1.0]))
    potential, _ = likelihood_estimator_based_potential(ragged, prior, x[[1]])
    torch.testing.assert_close(potential(theta[[1]]), result[[1]] - np.log(9), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ragged.simulate(theta, seed=3, trial_mask=exists), x)
    for name, values in ragged.unpack(x).items():
        torch.testing.assert_close(values, data[name].where(exists, torch.nan), equal_nan=True)
    drawn, log_prob = ragged.sample_and_log_prob((2,), theta)
    torch.testing.assert_close(ragged.log_prob(drawn, theta), log_prob, rtol=1e-4, atol=1e-4)


def test_masks_that_do_not_fit_are_refused(learning) -> None:
    whole, data, theta = learning
    ragged = LikelihoodEstimator(whole.net, TRIALS, ragged=True)
    with pytest.raises(ValueError, match="trial_mask: expected none, since the estimator was made without ragged"):
        whole.pack(data, np.ones((THETAS, TRIALS), dtype=bool))
    with pytest.raises(ValueError, match=r"trial_mask: expected shape \(5, 7\), as the data, got \(3, 7\)"):
        ragged.pack(data, np.ones((3, TRIALS), dtype=bool))
    with pytest.raises(ValueError, match="trial_mask: expected booleans"):
        ragged.pack(data, np.ones(TRIALS))
    with pytest.raises(ValueError, match="input: expected 1 or 0 as the last number of a trial"):
        ragged.log_prob(ragged.pack(data) + 0.5, theta)
    with pytest.raises(ValueError, match="ragged: expected True or False, got 'yes'"):
        LikelihoodEstimator(whole.net, TRIALS, ragged="yes")


def test_draws_have_the_densities_that_are_stated(learning) -> None:
    estimator, _, theta = learning
    torch.manual_seed(0)
    x, log_prob = estimator.sample_and_log_prob((2, 3), theta)
    assert x.shape == (2, 3, THETAS, TRIALS * 5) and log_prob.shape == (2, 3, THETAS)
    flat = estimator.log_prob(x.flatten(0, 1), theta)
    torch.testing.assert_close(flat, log_prob.flatten(0, 1), rtol=1e-4, atol=1e-4)
    assert estimator.sample((4,), theta).shape == (4, THETAS, TRIALS * 5)
    # Of a model without inputs, draws need no simulator.
    slider = LikelihoodEstimator(telling("torch"), TRIALS)
    drawn, densities = slider.sample_and_log_prob((11,), torch.tensor([[0.3], [1.2]]))
    torch.testing.assert_close(slider.log_prob(drawn, torch.tensor([[0.3], [1.2]])), densities, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="simulator: expected one when the estimator was made"):
        LikelihoodEstimator(estimator.net, TRIALS).sample((2,), theta)


def test_data_are_prepared_once(learning, monkeypatch) -> None:
    estimator, data, theta = learning
    calls = []
    observe = type(estimator.net).observe
    monkeypatch.setattr(type(estimator.net), "observe", lambda *a, **k: calls.append(1) or observe(*a, **k))
    fresh = LikelihoodEstimator(estimator.net, TRIALS)
    x = fresh.pack(data)[:1]
    first = fresh.log_prob(x[:, None].expand(-1, THETAS, -1), theta)
    fresh.log_prob(x[:, None].expand(-1, 3, -1), theta[:3])
    assert len(calls) == 1
    # Another data set is another computation, also where it stands in the same memory.
    x[0, 3] += 1.0
    assert not torch.allclose(fresh.log_prob(x[:, None].expand(-1, THETAS, -1), theta), first)
    assert len(calls) == 2


def test_the_loss_trains_weights_that_are_told_to_learn(learning) -> None:
    estimator, data, theta = learning
    net = network.__wrapped__(LEARNING, "torch").requires_grad_(True)
    trained = LikelihoodEstimator(net, TRIALS)
    for _ in range(2):
        trained.loss(trained.pack(data), theta).sum().backward()
    assert all(weight.grad is not None for name, weight in net.weights.items() if name.startswith("heads"))


def test_priors_are_the_training_ones() -> None:
    box = {"alpha": (0.0, 1.0), "beta": (0.1, 9.0), "zeta": (0.0, 1.0)}
    priors = {"alpha": Prior.uniform(0, 1), "beta": None, "zeta": Prior("Beta", {"concentration1": 2.0,
              "concentration0": 3.0})}  # fmt: skip

    def make(**more):
        record = Record(box=box, priors={**priors, **more}, trials=9, context=0, simulator="none")
        return LikelihoodEstimator(network(LEARNING, "torch", record), TRIALS).prior()

    prior = make()
    assert isinstance(prior, MultipleIndependent)
    value = torch.tensor([[0.5, 3.0, 0.25]])
    expected = -np.log(8.9) + torch.distributions.Beta(2.0, 3.0).log_prob(torch.tensor(0.25))
    torch.testing.assert_close(prior.log_prob(value), expected[None].float())
    assert isinstance(make(zeta=Prior.uniform(0, 1)), BoxUniform)
    with pytest.raises(ValueError, match="that of 'zeta' is relative to another"):
        make(zeta=Prior("Uniform", {"low": 0.0, "high": 1.0}, relative_to="alpha"))
    with pytest.raises(ValueError, match="expected a trained network"):
        LikelihoodEstimator(network(LEARNING, "torch"), TRIALS).prior()


def test_an_estimator_says_what_does_not_fit(learning) -> None:
    net = learning[0].net
    with pytest.raises(ValueError, match="expected a network loaded with backend='torch'"):
        LikelihoodEstimator(torch.nn.Linear(2, 2), TRIALS)
    with pytest.raises(ValueError, match="trials: expected an integer of at least 1"):
        LikelihoodEstimator(net, 0)
    with pytest.raises(ValueError, match="params: expected some of"):
        LikelihoodEstimator(net, TRIALS, params=["gamma"])
    with pytest.raises(ValueError, match="simulator: expected the network's schema"):
        LikelihoodEstimator(net, TRIALS, simulator=Own(telling("torch"), PRIORS))


def test_importing_leaves_the_checks_of_distributions_on() -> None:
    script = "import pyro, ppl_buffer.sbi; import torch; assert torch.distributions.Distribution._validate_args"
    subprocess.run([sys.executable, "-c", script], check=True)


# sbi's own tools ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inference():
    """Estimator, prior, three independent data sets of mu = 0.8, and the exact posterior mean and deviation."""
    net = telling("torch")
    estimator = LikelihoodEstimator(net, 23, simulator=Own(net, PRIORS))
    prior = estimator.prior()
    x = estimator.simulate(torch.full((3, 1), 0.8), seed=1)
    grid = torch.linspace(-1.999, 1.999, 801)
    data = torch.stack([JointPredictive(net, {}, trials=23, params={"mu": grid}).log_prob(one) for one in x]).sum(0)
    weight = torch.softmax(data, 0)
    mean = (weight * grid).sum()
    return estimator, prior, x, float(mean), float((weight * (grid - mean) ** 2).sum().sqrt())


def test_data_sets_are_the_independent_units(inference) -> None:
    estimator, prior, x, _, _ = inference
    theta = torch.tensor([[0.1], [0.9]])
    one, _ = likelihood_estimator_based_potential(estimator, prior, x[:1])
    three, _ = likelihood_estimator_based_potential(estimator, prior, x[:1].repeat(3, 1))
    log_prior = prior.log_prob(theta)
    torch.testing.assert_close(three(theta) - log_prior, 3 * (one(theta) - log_prior), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["nuts", "importance", "vi", "nle"])
def test_posteriors_are_the_exact_one(inference, method: str, tmp_path, monkeypatch) -> None:
    # sbi's trainers write a log where they are made.
    monkeypatch.chdir(tmp_path)
    estimator, prior, x, mean, std = inference
    torch.manual_seed(0)
    np.random.seed(0)
    potential, transform = likelihood_estimator_based_potential(estimator, prior, x)
    quiet = {"show_progress_bars": False}
    chains = {"num_chains": 8, "thin": 1, "warmup_steps": 10, "init_strategy_parameters": {"num_candidate_samples": 50}}
    if method == "importance":
        posterior = ImportanceSamplingPosterior(potential, proposal=prior)
        draws = posterior.sample((60,), oversampling_factor=300, **quiet)
    elif method == "vi":
        posterior = VIPosterior(potential, prior=prior, q="gaussian", theta_transform=transform)
        posterior.set_default_x(x)
        posterior.train(
            learning_rate=0.01, max_num_iters=200, n_particles=16, quality_control=False, show_progress_bar=False
        )
        draws = posterior.sample((500,))
    elif method == "nle":
        # Its default is slice sampling of many chains at once.
        posterior = NLE(prior).build_posterior(estimator, prior, mcmc_parameters=chains)
        draws = posterior.sample((160,), x=x, **quiet)
    else:
        posterior = MCMCPosterior(
            potential, proposal=prior, theta_transform=transform, method="nuts_pyro", num_chains=1, warmup_steps=30,
            thin=1, init_strategy_parameters={"num_candidate_samples": 50},
        )  # fmt: skip
        draws = posterior.sample((100,), **quiet)
    assert draws.shape[1:] == (1,)
    assert abs(float(draws.mean()) - mean) < 0.6 * std
    assert 0.5 < float(draws.std()) / std < 1.8


def test_calibration_by_sbi(inference) -> None:
    estimator, prior, _, _, _ = inference
    torch.manual_seed(0)
    theta = prior.sample((20,))
    x = estimator.simulate(theta, seed=2)
    potential, _ = likelihood_estimator_based_potential(estimator, prior, x[:1])
    posterior = ImportanceSamplingPosterior(potential, proposal=prior, oversampling_factor=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranks, _ = run_sbc(theta, x, posterior, num_posterior_samples=25, use_batched_sampling=False,
                           show_progress_bar=False)  # fmt: skip
        coverage, levels = run_tarp(theta, x, posterior, num_posterior_samples=25, use_batched_sampling=False,
                                    num_bins=5, show_progress_bar=False)  # fmt: skip
        draws = torch.cat([posterior.sample((1,), x=one[None], show_progress_bars=False) for one in x])
        test = LC2ST(theta, x, draws, classifier="mlp", num_ensemble=1)
        test.train_on_observed_data()
        observed = posterior.sample((30,), x=x[:1], show_progress_bars=False)
        score = test.get_statistic_on_observed_data(observed, x[:1])
    assert ranks.shape == (20, 1) and ((ranks >= 0) & (ranks <= 25)).all()
    # Ranks of a right posterior: their mean is uniform's to four standard errors.
    assert abs(float(ranks.float().mean()) / 25 - 0.5) < 4 / np.sqrt(12 * 20)
    assert coverage.shape == levels.shape and abs(float(coverage[len(coverage) // 2]) - 0.5) < 0.45
    # Mean squared distance of classification probabilities from 1/2.
    assert 0 <= float(score) <= 0.25
