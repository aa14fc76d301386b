"""Shapes, support, validation, pickling."""

from __future__ import annotations

import math
import pickle
import warnings
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("pyro")

import pyro
import pyro.distributions as dist
import torch

import ppl_buffer as pb
from ppl_buffer.pyro import JointPredictive
from tests.pyro.cases import CURVE, PEOPLE, RATING, TRIALS, Case, close, random_network


@pytest.mark.parametrize("batch", [(), (PEOPLE,), (2, 1, PEOPLE)])
@pytest.mark.parametrize("sample_shape", [(), (3,), (3, 11)])
def test_sample_and_log_prob_have_pyros_shapes(case: Case, batch: tuple, sample_shape: tuple) -> None:
    d = case.distribution(batch)
    tail = case.net.schema.event_shape_tail
    assert d.batch_shape == batch and d.event_shape == (case.trials, *tail)
    value = d.sample(torch.Size(sample_shape))
    assert value.shape == sample_shape + batch + d.event_shape
    assert d.shape(sample_shape) == value.shape
    assert d.log_prob(value).shape == sample_shape + batch
    assert d.conditionals(value).shape == sample_shape + batch + (case.trials,)
    assert d.pit(value).shape == sample_shape + batch + (case.trials, *tail)
    assert d.mean.shape == d.variance.shape == batch + d.event_shape


def test_log_prob_of_a_batch_is_each_members_log_prob(case: Case) -> None:
    arguments, params = case.arguments(), case.draw_params()
    value = case.distribution().sample((3,))
    together = case.distribution().log_prob(value)
    for person in range(PEOPLE):
        alone = {
            key: {name: x[person] for name, x in group.items()} if isinstance(group, dict) else group
            for key, group in {**arguments, "params": params}.items()
        }
        for draw in range(3):
            single = JointPredictive(case.net, **alone).log_prob(value[draw, person])
            assert single.shape == ()
            close(together[draw, person], single)


def test_log_prob_broadcasts_value_against_batch(case: Case) -> None:
    d = case.distribution((2, PEOPLE))
    value = d.sample()
    narrow = value[:1, :1]
    close(d.log_prob(narrow), d.log_prob(narrow.expand(value.shape)))
    close(d.log_prob(value[0, 0]), d.log_prob(value[0, 0].expand(value.shape)))


def test_values_of_a_wrong_shape_are_refused(case: Case) -> None:
    d = case.distribution()
    value = d.sample()
    short = value[:, :-1] if d.event_dim == 1 else value[..., :-1]
    with pytest.raises(ValueError, match="value: expected shape"):
        d.log_prob(short)
    with pytest.raises(ValueError, match="value: expected shape"):
        d.log_prob(torch.zeros(()))
    for validate in (True, False):  # two data sets do not fit five
        with pytest.raises(ValueError, match="not broadcastable|expected batch dimensions that broadcast"):
            case.distribution(validate_args=validate).log_prob(value[:2])


def test_infer_shapes_agrees_with_the_distribution(case: Case) -> None:
    def shapes(tree: Any) -> Any:
        return {name: tuple(x.shape) for name, x in tree.items()}

    for batch in [(), (PEOPLE,), (2, PEOPLE)]:
        arguments = case.arguments(batch)
        params = case.draw_params(batch[-1:])
        given = {"trials": arguments["trials"]} if "trials" in arguments else {}
        inferred = JointPredictive.infer_shapes(case.net, shapes(arguments["inputs"]), params=shapes(params), **given)
        d = JointPredictive(case.net, **arguments, params=params)
        assert inferred == (d.batch_shape, d.event_shape)


def test_support_has_the_events_shape(case: Case) -> None:
    d = case.distribution()
    value = d.sample((3,))
    assert d.support.event_dim == d.event_dim == len(d.event_shape)
    assert d.support.check(value).shape == (3, PEOPLE)
    assert bool(d.support.check(value).all())
    categories = [isinstance(v, pb.Categorical) for v in case.net.schema.outcomes.values()]
    assert d.support.is_discrete is all(categories)


def test_draws_are_not_reparameterised(case: Case) -> None:
    params = {name: x.requires_grad_() for name, x in case.draw_params().items()}
    d = case.distribution(params=params)
    assert JointPredictive.has_rsample is False
    assert d.has_rsample is False and d.to_event(1).has_rsample is False and d.mask(True).has_rsample is False
    assert d.has_enumerate_support is False
    assert not d.sample().requires_grad
    with pytest.raises(NotImplementedError):
        d.rsample()


def test_values_outside_the_support_raise(case: Case) -> None:
    d = case.distribution(validate_args=True)
    for illegal in (math.nan, math.inf, -math.inf):
        value = d.sample()
        value[2, 3] = illegal
        with pytest.raises(ValueError):
            d.log_prob(value)
        unchecked = case.distribution(validate_args=False).log_prob(value)
        assert unchecked[2] == -math.inf and unchecked[[0, 1, 3, 4]].isfinite().all()


def test_categories_must_be_integers_in_range(learning: Case) -> None:
    d = learning.distribution(validate_args=True)
    for illegal in (0.5, 2.0, -1.0):
        value = d.sample()
        value[0, 0] = illegal
        with pytest.raises(ValueError, match=f"value: expected an integer from 0 to 1, got {illegal}"):
            d.log_prob(value)


def test_training_mode_is_refused(curve: Case) -> None:
    net = random_network(CURVE)
    net.train()
    with pytest.raises(ValueError, match="evaluation mode"):
        JointPredictive(net, **curve.arguments())


def test_a_network_of_another_kind_is_refused(curve: Case) -> None:
    with pytest.raises(ValueError, match="net: expected a network loaded with backend='torch', got Linear"):
        JointPredictive(torch.nn.Linear(2, 3), **curve.arguments())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {"gamma": torch.ones(PEOPLE)}}, r"params: .*unknown \['gamma'\]"),
        ({"params": {"tau": -torch.ones(PEOPLE)}}, r"params\['tau'\]: expected a number above 0, got -1.0"),
        ({"params": {"mu": torch.full((PEOPLE,), math.nan)}}, r"params\['mu'\]: expected a finite real number"),
        ({"params": {"mu": torch.zeros(3)}}, r"expected batch dimensions that broadcast"),
        ({"inputs": {"z": torch.ones(PEOPLE, TRIALS)}}, r"inputs: .*unknown \['z'\]"),
        ({"inputs": {"x": torch.full((PEOPLE, TRIALS), math.inf)}}, r"inputs\['x'\]: expected a finite real number"),
        ({"inputs": {"x": torch.ones(PEOPLE, 0)}}, "trials: expected at least 1 trial"),
        ({"trial_mask": torch.ones(PEOPLE, TRIALS)}, "trial_mask: expected booleans"),
        ({"trial_mask": torch.ones(PEOPLE, 3, dtype=torch.bool)}, "trial_mask: expected shape"),
        ({"lapse": torch.tensor(1.2)}, "lapse: expected a probability"),
        ({"outside": "shout"}, "outside: expected one of"),
    ],
)
def test_bad_arguments_raise(curve: Case, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        curve.distribution(**change)


def test_sampling_with_feedback_needs_an_environment(learning: Case) -> None:
    d = learning.distribution(environment=None)
    with pytest.raises(ValueError, match=r"environment: expected a function that gives \['reward'\]"):
        d.sample()
    with pytest.raises(ValueError, match=r"feedback: expected \['reward'\]"):
        learning.distribution(feedback=None).log_prob(d.mean.round())


def test_parameters_outside_the_trained_box() -> None:
    record = pb.TrainingRecord(box={"shift": (-1.0, 1.0)}, priors={}, trials=11, context=0, simulator="none")
    net = random_network(RATING, record)
    value = torch.full((PEOPLE, 3), 4.0)

    def made(outside: str) -> JointPredictive:
        params = {"shift": torch.tensor([0.0, -0.9, 1.0, 1.1, -2.0])}
        return JointPredictive(net, {}, trials=3, params=params, outside=outside)

    with pytest.warns(UserWarning, match=r"params\['shift'\]: 40% of the values lie outside \[-1, 1\]"):
        warned = made("warn").log_prob(value)
    with pytest.raises(ValueError, match="40% of the values lie outside"):
        made("error")
    assert made("ignore").log_prob(value).isfinite().all()
    assert made("-inf").log_prob(value).isfinite().tolist() == [True, True, True, False, False]
    close(made("ignore").log_prob(value), warned)
    prior = net.prior()["shift"]
    assert isinstance(prior, dist.Uniform) and (prior.low, prior.high) == (-1.0, 1.0)


def test_pickling(case: Case) -> None:
    d = case.distribution()
    value = d.sample((2,))
    again = pickle.loads(pickle.dumps(d))
    assert torch.equal(again.log_prob(value), d.log_prob(value))
    pyro.set_rng_seed(1)
    first = d.sample()
    pyro.set_rng_seed(1)
    assert torch.equal(first, again.sample())


def test_importing_and_using_changes_nothing_global(case: Case) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        settings = torch.get_default_dtype(), torch.is_grad_enabled(), dict(pyro.get_param_store().items())
        d = case.distribution()
        d.log_prob(d.sample())
        assert settings == (torch.get_default_dtype(), torch.is_grad_enabled(), dict(pyro.get_param_store().items()))
    assert not caught
