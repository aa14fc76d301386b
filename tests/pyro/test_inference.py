"""NUTS and SVI."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyro")

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    Trace_ELBO,
    TraceGraph_ELBO,
)
from pyro.infer.autoguide import AutoNormal

import ppl_buffer as pb
from ppl_buffer.pyro import JointPredictive
from tests.pyro.cases import CASES, CURVE, PEOPLE, TRIALS, latents, learners, random_network


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceGraph_ELBO])
def test_svi_scales_a_subsample_without_bias(people: Any, elbo: Any) -> None:
    """The loss of subsamples averages to the loss of everybody."""

    def loss(index: Any) -> float:
        def fixed(data: Any) -> None:
            with pyro.plate("people", PEOPLE, subsample=index):
                alpha = torch.sigmoid(latents()["logit"][index])
                d = JointPredictive(CASES["learning"].net, data[index], params={"alpha": alpha})
                pyro.sample("y", d, obs=data[index].value)

        return elbo().loss(fixed, lambda data: None, people)

    pairs = [torch.tensor([i, j]) for i in range(PEOPLE) for j in range(i)]
    assert np.mean([loss(pair) for pair in pairs]) == pytest.approx(loss(torch.arange(PEOPLE)), rel=1e-5)


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceGraph_ELBO])
def test_svi_learns_and_leaves_the_network_alone(people: Any, elbo: Any) -> None:
    net = CASES["learning"].net
    before = {name: weight.clone() for name, weight in net.weights.items()}
    guide = AutoNormal(learners, init_scale=0.1)
    svi = SVI(learners, guide, pyro.optim.Adam({"lr": 0.05}), elbo())
    losses = [svi.step(people) for _ in range(40)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert all(name.startswith("AutoNormal") for name in pyro.get_param_store())
    assert all(torch.equal(weight, before[name]) and weight.grad is None for name, weight in net.weights.items())


def test_svi_with_a_subsample_and_particles(people: Any) -> None:
    guide = AutoNormal(learners, create_plates=lambda data, batch_size: pyro.plate("people", PEOPLE, subsample_size=2))
    elbo = Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(learners, guide, pyro.optim.Adam({"lr": 0.05}), elbo)
    assert all(math.isfinite(svi.step(people, 2)) for _ in range(5))


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceGraph_ELBO])
def test_a_draw_inside_a_guide_gets_the_score_term(elbo: Any) -> None:
    """As no gradient passes through a draw, Pyro must differentiate the log density it was drawn from."""
    schema = pb.Schema(params={"bias": pb.Real()}, outcomes={"choice": pb.Categorical(2)})
    net = random_network(schema)

    def choices(bias: Any) -> JointPredictive:
        return JointPredictive(net, {}, trials=3, params={"bias": bias})

    def model() -> None:
        pyro.sample("y", choices(torch.tensor(1.4)))

    def guide() -> None:
        pyro.sample("y", choices(pyro.param("bias", torch.tensor(-0.5))))

    steps, particles = 6, 500
    slopes = []
    for _ in range(steps):
        pyro.clear_param_store()
        loss = elbo(num_particles=particles, vectorize_particles=True, max_plate_nesting=0)
        loss.loss_and_grads(model, guide)
        slopes.append(float(pyro.get_param_store()._params["bias"].grad))

    values = torch.tensor([[i, j, k] for i in (0.0, 1.0) for j in (0.0, 1.0) for k in (0.0, 1.0)])
    bias = torch.tensor(-0.5, requires_grad=True)
    log_guide = choices(bias).log_prob(values)
    divergence = (log_guide.exp() * (log_guide - choices(torch.tensor(1.4)).log_prob(values))).sum()
    (exact,) = torch.autograd.grad(divergence, bias)
    error = np.std(slopes, ddof=1) / steps**0.5
    assert abs(float(exact)) > 10 * error
    assert np.mean(slopes) == pytest.approx(float(exact), abs=5 * error)


@pytest.fixture(scope="module")
def posterior() -> Any:
    """Posterior of one parameter given one data set, on a grid: the model, mean and standard deviation."""
    pyro.set_rng_seed(13)
    net = random_network(CURVE, spread=0.15)
    inputs = {"x": torch.linspace(-1, 1, TRIALS)}
    value = JointPredictive(net, inputs, params={"mu": torch.tensor(0.4)}).sample()
    data = net.observe(inputs, value)

    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.sample("y", JointPredictive(net, data, params={"mu": mu}), obs=data.value)

    grid = torch.linspace(-5, 5, 2001)
    log_density = JointPredictive(net, inputs, params={"mu": grid}).log_prob(value)
    weight = torch.softmax(log_density + dist.Normal(0.0, 1.0).log_prob(grid), 0)
    mean = (weight * grid).sum()
    return model, float(mean), float((weight * (grid - mean) ** 2).sum().sqrt())


@pytest.mark.parametrize("compiled", [False, True])
def test_nuts_finds_the_posterior(posterior: Any, compiled: bool) -> None:
    model, mean, std = posterior
    draws = 200
    kernel = NUTS(model, jit_compile=compiled, ignore_jit_warnings=True, max_tree_depth=4)
    mcmc = MCMC(kernel, num_samples=draws, warmup_steps=60, disable_progbar=True)
    mcmc.run()
    mu = mcmc.get_samples()["mu"]
    size = mcmc.diagnostics()["mu"]["n_eff"].item()
    assert size > 25
    assert float(mu.mean()) == pytest.approx(mean, abs=4 * std / size**0.5)
    assert 0.7 < float(mu.std()) / std < 1.4
