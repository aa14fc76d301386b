"""Observed data, conditioning and a shared context change no number."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("pyro")

import pyro
import torch
from pyro.infer import (
    JitTrace_ELBO,
)

from ppl_buffer.pyro import JointPredictive
from tests.pyro.cases import CASES, PEOPLE, TRIALS, Case, close


def test_a_value_changed_in_place_never_gives_a_stale_number(case: Case) -> None:
    arguments = {k: v for k, v in case.arguments().items() if k in ("inputs", "feedback")}
    params = case.draw_params()
    original = case.distribution().sample()
    other = case.distribution().sample()
    data = case.net.observe(value=original, **arguments)
    before = JointPredictive(case.net, data, params=params).log_prob(data.value)
    close(before, case.distribution().log_prob(original))
    data.value[1] = other[1]
    close(
        JointPredictive(case.net, data, params=params).log_prob(data.value),
        torch.where(torch.arange(PEOPLE) == 1, case.distribution().log_prob(other), before),
    )
    # What was given to observe is the user's: changing it changes nothing in the data.
    kept = data.value.clone()
    original.copy_(other)
    assert torch.equal(data.value, kept)
    close(JointPredictive(case.net, data, params=params).log_prob(other), case.distribution().log_prob(other))


def test_a_value_changed_in_place_inside_a_compiled_model(learning: Case) -> None:
    """Compilation runs the model once and records its tensors: the choice made then must hold for other values."""
    arguments = learning.arguments()
    value, other = learning.distribution().sample(), learning.distribution().sample()
    data = learning.net.observe(arguments["inputs"], value, feedback=arguments["feedback"])
    params = learning.draw_params()

    def model(y: Any) -> None:
        with pyro.plate("people", PEOPLE):
            pyro.sample("y", JointPredictive(learning.net, data, params=params), obs=y)

    elbo = JitTrace_ELBO(ignore_jit_warnings=True)
    for y in (value, other):
        loss = elbo.loss(model, lambda y: None, y)
        assert loss == pytest.approx(-float(learning.distribution().log_prob(y).sum()), rel=1e-4)


def test_a_part_of_the_people(case: Case) -> None:
    arguments = {k: v for k, v in case.arguments().items() if k in ("inputs", "feedback")}
    params = case.draw_params()
    data = case.net.observe(value=case.distribution().sample(), **arguments)
    everybody = JointPredictive(case.net, data, params=params).log_prob(data.value)
    index = torch.tensor([3, 0])
    part = data[index]
    some = JointPredictive(case.net, part, params={name: x[index] for name, x in params.items()})
    assert some.batch_shape == (2,)
    close(some.log_prob(part.value), everybody[index])


@pytest.mark.parametrize("name", ["learning", "timed"])
def test_people_with_different_numbers_of_trials(name: str) -> None:
    """Whatever `observe` does with sequences of different lengths, it changes no number and no gradient."""
    case = Case(CASES[name].net, CASES[name].params, trials=97)
    arguments = {k: v for k, v in case.arguments().items() if k in ("inputs", "feedback")}
    mask = torch.arange(97) < torch.tensor([97, 11, 13, 89, 12])[:, None]
    value = case.distribution(trial_mask=mask).sample()
    data = case.net.observe(value=value, trial_mask=mask, **arguments)
    everybody, some = torch.arange(PEOPLE), torch.tensor([2, 0, 4])
    for index, observed in ((everybody, data), (everybody, data[everybody]), (some, data[some])):
        params = {k: x[index].requires_grad_() for k, x in case.draw_params().items()}
        plain = {k: {n: x[index] for n, x in group.items()} for k, group in arguments.items()}
        ready = JointPredictive(case.net, observed, params=params).log_prob(observed.value)
        full = JointPredictive(case.net, **plain, trial_mask=mask[index], params=params).log_prob(value[index])
        close(ready, full, 1e-4)
        for mine, theirs in zip(
            torch.autograd.grad(ready.sum(), list(params.values())),
            torch.autograd.grad(full.sum(), list(params.values())),
            strict=True,
        ):
            close(mine, theirs, 1e-3)


def test_condition_continues_the_sequence(learning: Case) -> None:
    d = learning.distribution()
    value = d.sample()
    rest = d.condition(value[:, :3])
    assert rest.batch_shape == (PEOPLE,) and rest.event_shape == (TRIALS - 3,)
    close(rest.log_prob(value[:, 3:]), d.conditionals(value)[:, 3:].sum(-1))
    assert rest.sample((2,)).shape == (2, PEOPLE, TRIALS - 3)


def test_a_shared_context_is_encoded_once(curve: Case) -> None:
    context = {"x": torch.randn(PEOPLE, 11), "y": torch.randn(PEOPLE, 11)}
    encoded = curve.net.encode(context)
    value = curve.distribution().sample((3,))
    close(curve.distribution(context=encoded).log_prob(value), curve.distribution(context=context).log_prob(value))
    shuffle = torch.randperm(11)
    shuffled = {name: x[:, shuffle] for name, x in context.items()}
    close(curve.distribution(context=shuffled).log_prob(value), curve.distribution(context=context).log_prob(value))
