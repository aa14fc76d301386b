"""Expanded, masked and independent distributions."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("pyro")

import pyro
import pyro.distributions as dist
import torch

from ppl_buffer.pyro import JointPredictive
from tests.pyro.cases import CASES, PEOPLE, Case, close


def test_conditionals_sum_to_log_prob_through_every_wrapper(case: Case) -> None:
    d = case.distribution()
    value = d.sample((3,))
    total = d.conditionals(value).sum(-1)
    close(d.log_prob(value), total)
    close(d.to_event(1).log_prob(value), total.sum(-1))
    close(d.expand((2, PEOPLE)).log_prob(value[:2]), total[:2])
    keep = torch.arange(PEOPLE) % 2 == 0
    close(d.mask(keep).log_prob(value), torch.where(keep, total, 0.0))


@pytest.mark.parametrize("kind", [torch.Size, tuple, list])
def test_expand_by(case: Case, kind: type) -> None:
    d = case.distribution()
    wide = d.expand_by(kind((3,)))
    assert isinstance(wide, JointPredictive) and wide.batch_shape == (3, PEOPLE) and d.batch_shape == (PEOPLE,)
    value = d.sample((3,))
    close(wide.log_prob(value), d.log_prob(value))
    assert wide.sample((2,)).shape == (2, 3, PEOPLE, *d.event_shape)


@pytest.mark.parametrize("kind", [torch.Size, tuple, list])
def test_expand_new_dimensions(case: Case, kind: type) -> None:
    d = case.distribution()
    wide = d.expand(kind((2, 3, PEOPLE)))
    value = wide.sample()
    assert value.shape == (2, 3, PEOPLE, *d.event_shape)
    close(wide.log_prob(value), d.log_prob(value))
    # Fresh randomness in every element, not one draw repeated.
    assert len(torch.unique(value.flatten(0, 1)[:, 0].flatten(1), dim=0)) > 1


@pytest.mark.parametrize("kind", [torch.Size, tuple, list])
def test_expand_an_existing_dimension(case: Case, kind: type) -> None:
    d = case.distribution((2, 1))
    wide = d.expand(kind((2, PEOPLE)))
    value = wide.sample()
    assert value.shape == (2, PEOPLE, *d.event_shape)
    close(wide.log_prob(value), torch.stack([d.log_prob(value[:, i, None])[:, 0] for i in range(PEOPLE)], 1), 1e-4)


def test_subsequent_expands(case: Case) -> None:
    d = case.distribution((1,))
    once = d.expand((PEOPLE,))
    twice = once.expand((3, PEOPLE))
    assert once.batch_shape == (PEOPLE,) and twice.batch_shape == (3, PEOPLE)
    value = twice.sample()
    close(twice.log_prob(value), d.expand((3, PEOPLE)).log_prob(value))
    for wrong in [(PEOPLE + 1,), (2,), ()]:
        with pytest.raises((ValueError, RuntimeError)):
            once.expand(wrong)


def test_expanding_keeps_the_choice_to_validate(curve: Case) -> None:
    for validate in (True, False):
        d = curve.distribution(validate_args=validate)
        assert d.expand((2, PEOPLE))._validate_args is validate


def test_to_event_sums_data_sets(case: Case) -> None:
    d = case.distribution((2, PEOPLE))
    value = d.sample((3,))
    joint = d.to_event(2)
    assert joint.batch_shape == () and joint.event_shape == (2, PEOPLE, *d.event_shape)
    close(joint.log_prob(value), d.log_prob(value).sum((-1, -2)))
    close(d.to_event(0).log_prob(value), d.log_prob(value))


@pytest.mark.parametrize("shape", [(), (PEOPLE,), (2, 1), (2, PEOPLE)])
def test_mask_of_data_sets(curve: Case, shape: tuple) -> None:
    d = curve.distribution((2, PEOPLE))
    value = d.sample()
    mask = torch.rand(shape) < 0.5
    close(d.mask(mask).log_prob(value), torch.where(mask, d.log_prob(value), 0.0))
    close(d.mask(True).log_prob(value), d.log_prob(value))
    assert not d.mask(False).log_prob(value).any()


def test_a_mask_of_trials_is_refused(case: Case) -> None:
    # Pyro would broadcast it against the batch, and count the joint density once a trial.
    for d in (case.distribution(()), case.distribution(), case.distribution().expand((3, PEOPLE))):
        trial_mask = torch.ones((*d.batch_shape, case.trials), dtype=torch.bool)
        with pytest.raises(ValueError, match="mask: expected a mask of data sets.*trial_mask"):
            d.mask(trial_mask)


def test_trials_that_do_not_exist_are_inert(case: Case) -> None:
    mask = torch.rand((PEOPLE, case.trials), generator=torch.Generator().manual_seed(2)) < 0.6
    d = case.distribution(trial_mask=mask)
    value = d.sample()
    nonsense = value.clone()
    nonsense[~mask] = math.nan
    close(d.log_prob(nonsense), d.log_prob(value))
    assert not d.conditionals(nonsense)[~mask].any()
    full = case.distribution().log_prob(value)
    assert ((full - d.log_prob(value)).abs() > 1e-3).all()


def test_a_mixture_of_two_strategies() -> None:
    """People follow one of two strategies: the mixture by hand, of whole sequences."""
    case = CASES["timed"]
    inputs = case.arguments()["inputs"]
    mask = torch.arange(case.trials) < torch.tensor([7, 4, 7, 7, 1])[:, None]
    strategies = torch.tensor([[0.3, -0.9], [1.2, 0.1], [-2.0, 0.4], [0.0, 1.0], [0.5, 0.6]])
    value = case.distribution().sample()
    value[~mask] = math.nan
    components = JointPredictive(
        case.net, {"side": inputs["side"][:, None]}, params={"drift": strategies}, trial_mask=mask[:, None]
    )
    assert repr(components.support) == "TrialSupport(choice: an integer from 0 to 2, rt: a number above 0)"
    weights = torch.tensor([0.2, 0.8])
    mixture = dist.MixtureSameFamily(dist.Categorical(weights.expand(PEOPLE, 2)), components)
    by_strategy = torch.stack(
        [case.distribution(params={"drift": drift}, trial_mask=mask).log_prob(value) for drift in strategies.T], -1
    )
    close(mixture.log_prob(value), (weights.log() + by_strategy).logsumexp(-1))
    assert mixture.sample((2,)).shape == (2, PEOPLE, 7, 2)


def test_values_are_checked_where_the_language_checks() -> None:
    """Pyro's samplers switch validation off: a step beyond a bound must not end a run."""
    case = CASES["learning"]
    params = {"alpha": torch.tensor([-0.5] + [0.5] * 4), "beta": torch.ones(PEOPLE)}
    with pytest.raises(ValueError, match=r"params\['alpha'\]: expected a number in \(0, 1\), got -0\.5 \(1 of 5\)"):
        case.distribution(params=params)
    with pyro.validation_enabled(False):
        case.distribution(params=params)
        with pytest.raises(ValueError, match=r"params\['alpha'\]: expected a number in"):
            case.distribution(params=params, validate_args=True)
    case.distribution(params=params, validate_args=False)
