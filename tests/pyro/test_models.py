"""The distribution in models: handlers, plates, enumeration, predictive draws."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("pyro")

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import AutoNormal
from pyro.infer.inspect import get_dependencies

from ppl_buffer.pyro import JointPredictive
from tests.pyro.cases import CASES, CURVE, PEOPLE, TRIALS, Case, close, latents, learners, random_network


def test_condition_and_trace(people: Any) -> None:
    trace = poutine.trace(poutine.condition(learners, latents())).get_trace(people)
    site = trace.nodes["y"]
    assert isinstance(site["fn"], JointPredictive) and site["fn"].batch_shape == (PEOPLE,)
    trace.compute_log_prob()
    params = {"alpha": torch.sigmoid(latents()["logit"]), "beta": latents()["beta"]}
    expected = CASES["learning"].distribution(params=params, feedback=people.feedback).log_prob(people.value)
    close(site["log_prob"], expected)
    prior = dist.Normal(0.2, 1.0).log_prob(latents()["logit"]).sum() + dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.2))
    prior = prior + dist.LogNormal(0.5, 0.3).log_prob(torch.tensor(1.7))
    close(trace.log_prob_sum(), expected.sum() + prior)


def test_the_outcome_can_be_conditioned_on_later(people: Any) -> None:
    fixed = poutine.condition(learners, latents(y=people.value))
    open_ended = poutine.trace(fixed).get_trace(people, observed=False)
    close(
        open_ended.log_prob_sum(),
        poutine.trace(poutine.condition(learners, latents())).get_trace(people).log_prob_sum(),
    )


def test_a_subsample_is_scaled_to_all_people(people: Any) -> None:
    trace = poutine.trace(learners).get_trace(people, batch_size=2)
    trace.compute_log_prob()
    site, index = trace.nodes["y"], trace.nodes["people"]["value"]
    assert site["scale"] == PEOPLE / 2 and site["value"].shape == (2, TRIALS)
    params = {"alpha": torch.sigmoid(trace.nodes["logit"]["value"]), "beta": trace.nodes["beta"]["value"]}
    part = people[index]
    plain = JointPredictive(CASES["learning"].net, part, params=params).log_prob(part.value)
    close(site["log_prob"], plain * PEOPLE / 2)


def test_a_module_that_holds_the_network_does_not_train_it() -> None:
    net = random_network(CURVE)
    before = {name: weight.clone() for name, weight in net.weights.items()}

    class Holder(pyro.nn.PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Any, y: Any) -> None:
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
            pyro.sample("y", JointPredictive(self.net, {"x": x}, params={"mu": mu}), obs=y)

    model = Holder().eval()
    x, y = torch.randn(2, TRIALS)
    guide = AutoNormal(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(3):
        svi.step(x, y)
    assert not [name for name in pyro.get_param_store() if "net" in name]
    assert all(torch.equal(weight, before[name]) for name, weight in net.weights.items())
    assert all(weight.grad is None for weight in net.weights.values())


def test_every_latent_is_found_to_matter(people: Any) -> None:
    dependencies = get_dependencies(learners, model_args=(people,))["prior_dependencies"]
    assert set(dependencies["y"]) == {"y", "beta", "logit"}


def test_enumeration_of_a_discrete_parent(curve: Case) -> None:
    """A mixture over two values of a parameter, summed out by Pyro, equals the mixture by hand."""
    arguments = {name: x for name, x in curve.arguments().items()}
    value = curve.distribution().sample()
    levels = torch.tensor([-0.8, 0.9])

    @config_enumerate
    def model() -> None:
        with pyro.plate("people", PEOPLE):
            kind = pyro.sample("kind", dist.Bernoulli(0.3))
            d = JointPredictive(curve.net, **arguments, params={"mu": levels[kind.long()]})
            pyro.sample("y", d, obs=value)

    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda: None)
    each = torch.stack([curve.distribution(params={"mu": level}).log_prob(value) for level in levels])
    by_hand = torch.logsumexp(each + torch.tensor([0.7, 0.3]).log()[:, None], 0).sum()
    assert loss == pytest.approx(-float(by_hand), rel=1e-4)


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_draws_what_the_distribution_draws(learning: Case, parallel: bool) -> None:
    def model(arguments: dict) -> None:
        beta = pyro.sample("beta", dist.LogNormal(0.5, 0.3))
        with pyro.plate("people", PEOPLE):
            logit = pyro.sample("logit", dist.Normal(0.0, 1.0))
            params = {"alpha": torch.sigmoid(logit), "beta": beta}
            pyro.sample("y", JointPredictive(learning.net, **arguments, params=params))

    draws = 400 if parallel else 11
    samples = {"beta": torch.full((draws,), 1.7), "logit": torch.linspace(-1, 1, PEOPLE).expand(draws, PEOPLE)}
    drawn = Predictive(model, samples, parallel=parallel)(learning.arguments())["y"]
    assert drawn.shape == (draws, PEOPLE, TRIALS)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    if parallel:
        params = {"alpha": torch.sigmoid(samples["logit"][0]), "beta": torch.tensor(1.7)}
        expected = learning.distribution(params=params).sample((4000,)).mean(0)
        spread = (expected * (1 - expected) * (1 / draws + 1 / 4000)).sqrt()
        assert ((drawn.mean(0) - expected).abs() / spread.clamp(min=0.01)).max() < 4.5
    prior = Predictive(model, num_samples=3, parallel=parallel)(learning.arguments())
    assert prior["y"].shape == (3, PEOPLE, TRIALS) and prior["beta"].shape[0] == 3
