"""Both backends compute the same numbers."""

import copy

import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

import jax
import torch

from ppl_buffer.predictive import density
from ppl_buffer.schema import Categorical
from tests.laws.cases import BACKENDS, close, numbers, scored, slow, told, uniform
from tests.networks import (
    CASES,
    CONTAMINATED,
    DIRECT,
    FUNCTION,
    LEARNING,
    RESPONDING,
    SLIDER,
    array,
    data,
    joint_predictive,
    network,
    rollout,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

MIRRORED = [*CASES, *(case if case is RESPONDING else slow(case) for case in DIRECT)]


@pytest.mark.parametrize("case", MIRRORED, ids=repr)
def test_mirror_of_densities(case):
    given = data(case)
    rng = np.random.default_rng(5)
    lapse = np.array([0.1, 0.4, 0.7], np.float32) if case.has_lapse else None
    options = {"trial_mask": rng.random((3, 7)) < 0.8, "lapse": lapse, **told(case, given)}
    places = rng.uniform(size=(3, 7, len(case.schema.outcomes))).astype(np.float32)

    def everything(backend):
        distribution = scored(case, backend, given, **options)

        def compute(distribution, value, places):
            results = {
                "conditionals": distribution.conditionals(value),
                "marginals": distribution.marginals(value),
                "cdf": density.cdf_values(distribution.query, value, places),
                "log_prob": distribution.log_prob(value),
            }
            if case is not CONTAMINATED:
                results["moments"] = density.marginal_moments(distribution.query)
            if not case.schema.ordered:
                results["leave_one_out"] = distribution.leave_one_out(value)
            return results

        compiled = jax.jit(compute) if backend == "jax" else compute
        return compiled(distribution, array(backend, given.value), array(backend, places))

    close(everything("torch"), everything("jax"))


@pytest.mark.parametrize("case", [FUNCTION, slow(CONTAMINATED)], ids=repr)
@pytest.mark.parametrize("options", [{"orders": 5}, {"block": 3}], ids=str)
def test_mirror_of_orders_and_blocks(case, options):
    given = data(case)
    results = []
    for backend in BACKENDS:
        distribution = scored(case, backend, given, environment=case.environment, **options)
        drawn = rollout(backend, distribution, uniform(distribution, (2,)))
        results.append((distribution.log_prob(array(backend, given.value)), drawn))
    close(*results)


@pytest.mark.parametrize("case", MIRRORED, ids=repr)
def test_mirror_of_draws(case):
    given = data(case)
    options = {"lapse": 0.4} if case.has_lapse else {}
    results = []
    for backend in BACKENDS:
        distribution = scored(case, backend, given, environment=case.environment, **options)
        results.append(rollout(backend, distribution, uniform(distribution, (2,))))
    close(*results)


@pytest.mark.parametrize("case", MIRRORED, ids=repr)
def test_mirror_of_gradients(case):
    """Gradients by value, parameters, context, inputs, feedback and lapse: nothing stops them."""
    given = data(case)
    schema = case.schema
    continuous = {name for group in (schema.params, schema.inputs, schema.outcomes, schema.feedback)
                  for name, variable in group.items() if not isinstance(variable, Categorical)}  # fmt: skip
    weights = np.random.default_rng(2).normal(size=(3, 7)).astype(np.float32)
    arguments = {
        "value": given.value,
        "params": given.params,
        "inputs": given.inputs,
        "feedback": given.feedback,
        **({"context": given.context} if given.context else {}),
        **({"lapse": np.full(3, 0.2, np.float32)} if case.has_lapse else {}),
    }

    def total(arguments, backend):
        rest = dict(arguments)
        value, inputs = rest.pop("value"), rest.pop("inputs")
        distribution = joint_predictive(case, backend, inputs, trials=7, **rest)
        return (distribution.conditionals(value) * array(backend, weights)).sum()

    by_jax = jax.jit(jax.grad(total), static_argnums=1)(array("jax", arguments), "jax")
    leaves = array("torch", arguments)
    flat = [x for entry in leaves.values() for x in (entry.values() if isinstance(entry, dict) else [entry])]
    for leaf in flat:
        leaf.requires_grad_()
    total(leaves, "torch").backward()
    assert by_jax.keys() == leaves.keys()
    for group, entry in leaves.items():
        for name, leaf in entry.items() if isinstance(entry, dict) else [(group, entry)]:
            other = by_jax[group][name] if isinstance(entry, dict) else by_jax[group]
            gradient = np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
            np.testing.assert_allclose(gradient, numbers(other), rtol=1e-3, atol=1e-4, err_msg=f"{group}: {name}")
            if group == "context" and case in DIRECT:
                # It tells of the parameters, which are all given.
                assert (gradient == 0).all(), name
            elif name in continuous or group == "lapse":
                # The last trial's feedback is seen by nobody.
                assert (gradient[..., : 6 if group == "feedback" else None] != 0).all(), (group, name)


@pytest.mark.parametrize("case", [LEARNING, SLIDER], ids=repr)
def test_gradients_are_those_of_finite_differences(case):
    net = copy.deepcopy(network(case, "torch")).double()
    given = data(case)
    double = {name: x.astype(float) for name, x in given.params.items()}
    options = given.arguments(params=None, lapse=0.2)
    inputs, value = array("torch", given.inputs), array("torch", given.value.astype(float))

    def density(*params):
        conditioned = dict(zip(double, params, strict=True))
        distribution = joint_predictive(case, "torch", inputs, net, **{**options, "params": conditioned})
        return distribution.log_prob(value)

    params = [torch.tensor(x, requires_grad=True) for x in double.values()]
    assert torch.autograd.gradcheck(density, params, eps=1e-6, atol=1e-6, rtol=1e-5)
