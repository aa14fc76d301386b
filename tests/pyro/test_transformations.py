"""Derivatives, torch's transformations and number types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyro")

import pyro
import torch

from ppl_buffer.pyro import JointPredictive
from tests.pyro.cases import CASES, CURVE, PEOPLE, Case, _derivative, close, random_network


def test_doubles_stay_doubles(case: Case) -> None:
    params = case.draw_params()
    value = case.distribution().sample()
    single = case.distribution(params=params).log_prob(value)
    double = case.distribution(params={name: x.double() for name, x in params.items()}).log_prob(value)
    assert single.dtype == torch.float32 and double.dtype == torch.float64
    assert case.distribution().log_prob(value.double()).dtype == torch.float64
    close(double.float(), single)


def test_categories_may_be_integers(learning: Case) -> None:
    d = learning.distribution()
    value = d.sample()
    for dtype in (torch.int64, torch.int32, torch.uint8, torch.float64):
        result = d.log_prob(value.to(dtype))
        assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        close(result.float(), d.log_prob(value))


def test_integer_parameters_are_numbers(curve: Case) -> None:
    value = curve.distribution().sample()
    close(
        curve.distribution(params={"mu": torch.ones(PEOPLE, dtype=torch.int64)}).log_prob(value),
        curve.distribution(params={"mu": torch.ones(PEOPLE)}).log_prob(value),
    )


@pytest.mark.parametrize("name", list(CASES))
def test_gradient_by_parameters_is_the_finite_difference(name: str) -> None:
    case = Case(random_network(CASES[name].net.schema).double(), CASES[name].params)
    params = {k: x.double() for k, x in case.draw_params().items()}
    value = case.distribution().sample()
    for parameter in params:

        def log_prob(x: Any, parameter: str = parameter) -> Any:
            return case.distribution(params={**params, parameter: x}).log_prob(value)

        at = params[parameter].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(log_prob(at).sum(), at)
        assert (gradient.abs() > 1e-6).all()
        close(gradient, _derivative(log_prob, params[parameter], 1e-5), 1e-5)


def test_no_gradient_is_stopped_on_its_way_from_the_user(curve: Case) -> None:
    net = random_network(CURVE).double()
    rng = np.random.default_rng(1)
    given = {
        "value": torch.as_tensor(rng.normal(size=(3,))),
        "mu": torch.as_tensor(rng.normal(size=())),
        "x": torch.as_tensor(rng.normal(size=(3,))),
        "context_x": torch.as_tensor(rng.normal(size=(2,))),
        "context_y": torch.as_tensor(rng.normal(size=(2,))),
        "lapse": torch.tensor(0.1, dtype=torch.float64),
    }

    def log_prob(given: dict) -> Any:
        context = {"x": given["context_x"], "y": given["context_y"]}
        d = JointPredictive(net, {"x": given["x"]}, params={"mu": given["mu"]}, context=context, lapse=given["lapse"])
        return d.log_prob(given["value"])

    leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
    gradients = torch.autograd.grad(log_prob(leaves), list(leaves.values()))
    for (name, x), gradient in zip(given.items(), gradients, strict=True):
        numeric = torch.empty_like(x)
        for index in np.ndindex(tuple(x.shape)):
            unit = torch.zeros_like(x)
            unit[index] = 1.0
            numeric[index] = _derivative(lambda h, n=name, u=unit, x=x: log_prob({**given, n: x + h * u}), 0.0, 1e-5)
        close(gradient, numeric, 1e-6)
        assert (gradient.abs() > 1e-8).all()


def test_gradients_are_the_same_through_observed_data(learning: Case) -> None:
    arguments = learning.arguments()
    value = learning.distribution().sample()
    data = learning.net.observe(arguments["inputs"], value, feedback=arguments["feedback"])
    gradients = []
    for inputs in ({"inputs": data}, arguments):
        params = {name: x.requires_grad_() for name, x in learning.draw_params().items()}
        total = JointPredictive(learning.net, **inputs, params=params).log_prob(data.value)
        gradients.append(torch.autograd.grad(total.sum(), list(params.values())))
    for ready, full in zip(*gradients, strict=True):
        close(ready, full, 1e-4)


def test_torch_transforms_go_through(learning: Case) -> None:
    arguments = learning.arguments(())
    value = learning.distribution(()).sample()
    data = learning.net.observe(arguments["inputs"], value, feedback=arguments["feedback"])
    alphas = torch.tensor([0.2, 0.5, 0.8])

    for inputs in ({"inputs": data}, arguments):

        def log_prob(alpha: Any, inputs: dict = inputs) -> Any:
            d = JointPredictive(learning.net, **inputs, params={"alpha": alpha, "beta": torch.tensor(1.5)})
            return d.log_prob(data.value)

        one_by_one = torch.stack([log_prob(alpha) for alpha in alphas])
        # Pyro's own validation looks at numbers, which a transform hides.
        with pyro.validation_enabled(False):
            close(torch.func.vmap(log_prob)(alphas), one_by_one)
            slopes = torch.func.vmap(torch.func.grad(log_prob))(alphas)
        close(slopes, torch.stack([_derivative(log_prob, alpha, 1e-2) for alpha in alphas]), 1e-2)


def test_weights_take_no_gradient_from_a_plain_backward(case: Case) -> None:
    params = {name: x.requires_grad_() for name, x in case.draw_params().items()}
    value = case.distribution().sample()
    case.distribution(params=params).log_prob(value).sum().backward()
    assert all(weight.grad is None for weight in case.net.parameters())
    assert all(x.grad is not None and x.grad.abs().min() > 0 for x in params.values())


def test_a_differentiated_value_is_not_taken_for_the_observed_one(curve: Case) -> None:
    """Observed data hold a buffer that no gradient reaches: asked for a gradient, the value must go the whole way."""
    arguments = curve.arguments()
    value = curve.distribution().sample()
    slopes = []
    for inputs in ({"inputs": curve.net.observe(value=value, **arguments)}, arguments):
        leaf = value.clone().requires_grad_()
        total = JointPredictive(curve.net, **inputs, params=curve.draw_params()).log_prob(leaf).sum()
        slopes.append(torch.autograd.grad(total, leaf)[0])
    close(*slopes, 1e-4)
