"""What Pyro demands of a distribution, held against small random networks."""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

import pyro.distributions as dist  # noqa: E402
from pyro import poutine  # noqa: E402
from pyro.infer import (  # noqa: E402
    MCMC,
    NUTS,
    SVI,
    JitTrace_ELBO,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import AutoNormal  # noqa: E402
from pyro.infer.inspect import get_dependencies  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.network.torch.weights import TorchNetwork  # noqa: E402
from ppl_buffer.pyro import JointPredictive, simulator_from_model  # noqa: E402
from ppl_buffer.training.draws import check_simulator  # noqa: E402

LEARNING = pb.Schema(
    params={"alpha": pb.Interval(0, 1), "beta": pb.Positive()},
    inputs={"pair": pb.Categorical(3)},
    outcomes={"choice": pb.Categorical(2)},
    feedback={"reward": pb.Real()},
    ordered=True,
)
TIMED = pb.Schema(
    params={"drift": pb.Real()},
    inputs={"side": pb.Real()},
    outcomes={"choice": pb.Categorical(3), "rt": pb.Positive(lapse_range=(0, 10))},
    ordered=True,
)
CURVE = pb.Schema(
    params={"mu": pb.Real(), "tau": pb.Positive()},
    inputs={"x": pb.Real()},
    outcomes={"y": pb.Real(lapse_range=(-9, 9))},
)
RATING = pb.Schema(params={"shift": pb.Real()}, outcomes={"rating": pb.Interval(2, 7)}, independent=True)

PEOPLE, TRIALS = 5, 7


def random_network(schema: pb.Schema, record: pb.TrainingRecord | None = None, spread: float = 0.3) -> TorchNetwork:
    """A tiny network whose weights are random, and large enough that everything it reads matters.

    The smaller the `spread`, the smoother the density.
    """
    variables = {**schema.params, **schema.inputs, **schema.outcomes, **schema.feedback}
    standardization = {name: (0.1, 1.3) for name, v in variables.items() if not isinstance(v, pb.Categorical)}
    config = pb.Config(width=12, depth=3, heads=3, mlp=17, components=5, contextual_positions=2)
    net = TorchNetwork(schema, config, standardization, seed=0, record=record)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in net.weights.values():
            weight.add_(spread * torch.randn(weight.shape, generator=generator))
    return net.eval().requires_grad_(False)


def reward(trial: Any, inputs: dict, outcomes: dict, uniform: Any) -> dict:
    """Option 1 is rewarded more often."""
    return {"reward": 1.0 * (uniform[..., 0] < 0.3 + 0.4 * outcomes["choice"])}


@dataclass(frozen=True)
class Case:
    """One network, and arguments for any batch shape.

    `params` maps a parameter to a function that draws values (*batch,) of it.
    """

    net: TorchNetwork
    params: dict[str, Callable[[tuple[int, ...]], Any]]
    trials: int = TRIALS

    def draw_params(self, batch: tuple[int, ...] = (PEOPLE,)) -> dict[str, Any]:
        return {name: draw(batch) for name, draw in self.params.items()}

    def arguments(self, batch: tuple[int, ...] = (PEOPLE,)) -> dict[str, Any]:
        schema, rng = self.net.schema, np.random.default_rng(3)
        inputs = {}
        for name, variable in schema.inputs.items():
            discrete = isinstance(variable, pb.Categorical)
            shape = (*batch, self.trials)
            inputs[name] = torch.as_tensor(rng.integers(0, variable.n, shape) if discrete else rng.normal(size=shape))
        arguments: dict[str, Any] = {"inputs": inputs}
        if not inputs:
            arguments["trials"] = self.trials
        if schema.feedback:
            arguments["environment"] = reward
            arguments["feedback"] = {"reward": torch.as_tensor(rng.integers(0, 2, (*batch, self.trials)))}
        return arguments

    def distribution(self, batch: tuple[int, ...] = (PEOPLE,), **more: Any) -> JointPredictive:
        arguments = {**self.arguments(batch), "params": self.draw_params(batch), **more}
        return JointPredictive(self.net, **arguments)


def _uniform(low: float, high: float, seed: int) -> Callable[[tuple[int, ...]], Any]:
    return lambda batch: low + (high - low) * torch.rand(batch, generator=torch.Generator().manual_seed(seed))


CASES = {
    "learning": Case(random_network(LEARNING), {"alpha": _uniform(0.1, 0.9, 5), "beta": _uniform(0.5, 4, 6)}),
    "timed": Case(random_network(TIMED), {"drift": _uniform(-2, 2, 7)}),
    "curve": Case(random_network(CURVE), {"mu": _uniform(-1, 1, 8)}),
    "rating": Case(random_network(RATING), {"shift": _uniform(-1, 1, 9)}),
}


@pytest.fixture(autouse=True)
def fresh():
    """Pyro's seed and parameter store are global."""
    pyro.set_rng_seed(20)
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def learning() -> Case:
    return CASES["learning"]


@pytest.fixture
def curve() -> Case:
    return CASES["curve"]


def close(actual: Any, expected: Any, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# Shapes ---------------------------------------------------------------------------------------------------------


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


def test_conditionals_sum_to_log_prob_through_every_wrapper(case: Case) -> None:
    d = case.distribution()
    value = d.sample((3,))
    total = d.conditionals(value).sum(-1)
    close(d.log_prob(value), total)
    close(d.to_event(1).log_prob(value), total.sum(-1))
    close(d.expand((2, PEOPLE)).log_prob(value[:2]), total[:2])
    keep = torch.arange(PEOPLE) % 2 == 0
    close(d.mask(keep).log_prob(value), torch.where(keep, total, 0.0))


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


# Expand, to_event, mask ----------------------------------------------------------------------------------------


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


# Validation ----------------------------------------------------------------------------------------------------


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
        with pytest.raises(ValueError, match="support"):
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


# Number types --------------------------------------------------------------------------------------------------


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


# Densities -----------------------------------------------------------------------------------------------------


# Below this the draws do not follow the density: a correct program falls below once in a thousand runs of the file.
LEAST_P = 1e-4
DRAWS = 700


@pytest.mark.parametrize("name", ["learning", "curve", "timed"])
def test_draws_follow_the_density(name: str) -> None:
    """Rosenblatt: the conditional distribution function of every draw is uniform, at each trial."""
    case = Case(CASES[name].net, CASES[name].params, trials=3)
    d = case.distribution(())
    value, feedback = d.sample_with_feedback((DRAWS,))
    if feedback:
        d = case.distribution((), feedback=feedback)
    places = d.pit(value).reshape(DRAWS, case.trials, -1)
    for trial in range(case.trials):
        for outcome in range(places.shape[-1]):
            assert stats.kstest(places[:, trial, outcome].numpy(), "uniform").pvalue > LEAST_P
    # The test has power: read in the wrong order the same draws are not uniform.
    if name == "curve":
        inputs = {"x": case.arguments(())["inputs"]["x"].flip(-1)}
        wrong = case.distribution((), inputs=inputs).pit(value)
        assert min(stats.kstest(wrong[:, k].numpy(), "uniform").pvalue for k in range(3)) < LEAST_P


def test_pit_of_categories_is_that_of_the_density(learning: Case) -> None:
    d = learning.distribution(())
    value = d.sample()
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand((TRIALS, 1), generator=generator)[:, 0]
    places = d.pit(value)
    for k in range(TRIALS):
        changed = value.clone()
        changed[k] = 0.0
        zero = d.conditionals(changed)[k].exp()
        expected = uniform[k] * zero if value[k] == 0 else zero + uniform[k] * (1 - zero)
        close(places[k], expected)


def test_slope_of_the_distribution_function_is_the_density(curve: Case) -> None:
    d = curve.distribution(())
    value = d.sample().requires_grad_()
    places, density = d.pit(value), d.conditionals(value).exp()
    for k in range(TRIALS):
        (slope,) = torch.autograd.grad(places[k], value, retain_graph=True)
        close(slope[k], density[k], 1e-4)


@pytest.mark.parametrize("lapse", [None, 0.2])
def test_a_trial_integrates_to_one(lapse: float | None) -> None:
    case = CASES["timed"]
    grid = torch.linspace(-12, 9, 4001)
    d = case.distribution((), inputs={"side": torch.tensor([0.3, -0.4])}, lapse=lapse)
    total = 0.0
    for choice in range(3):
        rt = grid.exp()
        pair = torch.stack([torch.full_like(rt, choice), rt], -1)
        first = torch.tensor([1.0, 0.7]).expand_as(pair)
        density = d.conditionals(torch.stack([first, pair], -2))[:, 1].exp()
        total += float(torch.trapezoid(density * rt, grid))
    assert total == pytest.approx(1.0, abs=1e-3)


def test_moments_are_those_of_draws(curve: Case) -> None:
    d = curve.distribution(())
    draws = d.sample((3000,))[:, 0]  # the first trial sees an empty buffer
    assert float(draws.mean()) == pytest.approx(float(d.mean[0]), abs=4 * float(draws.std()) / 3000**0.5)
    assert float(draws.var()) == pytest.approx(float(d.variance[0]), rel=0.2)


def test_sampling_is_reproducible_and_leaves_the_seed_to_pyro(case: Case) -> None:
    d = case.distribution()
    pyro.set_rng_seed(3)
    first = d.sample((2,))
    pyro.set_rng_seed(3)
    assert torch.equal(first, d.sample((2,)))
    assert not torch.equal(first, d.sample((2,)))
    state = torch.get_rng_state()
    d.log_prob(first), d.pit(first), d.conditionals(first), d.mean  # noqa: B018
    assert torch.equal(state, torch.get_rng_state())


# Gradients -----------------------------------------------------------------------------------------------------


def _derivative(function: Callable[[Any], Any], at: Any, step: float) -> Any:
    return (function(at + step) - function(at - step)) / (2 * step)


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


# Observed data -------------------------------------------------------------------------------------------------


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


# In a Pyro model -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def people() -> Any:
    """Observed data of the five people."""
    pyro.set_rng_seed(11)
    case = CASES["learning"]
    arguments = case.arguments()
    value = case.distribution().sample()
    return case.net.observe(arguments["inputs"], value, feedback=arguments["feedback"])


def learners(data: Any, batch_size: int | None = None, observed: bool = True) -> None:
    """Hierarchical in alpha, one beta for all."""
    centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
    beta = pyro.sample("beta", dist.LogNormal(0.5, 0.3))
    with pyro.plate("people", PEOPLE, subsample_size=batch_size) as index:
        alpha = torch.sigmoid(pyro.sample("logit", dist.Normal(centre, 1.0)))
        part = data if batch_size is None else data[index]
        d = JointPredictive(CASES["learning"].net, part, params={"alpha": alpha, "beta": beta}, environment=reward)
        pyro.sample("y", d, obs=part.value if observed else None)


def latents(**more: Any) -> dict[str, Any]:
    return {"centre": torch.tensor(0.2), "beta": torch.tensor(1.7), "logit": torch.linspace(-1, 1, PEOPLE), **more}


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


def test_weights_take_no_gradient_from_a_plain_backward(case: Case) -> None:
    params = {name: x.requires_grad_() for name, x in case.draw_params().items()}
    value = case.distribution().sample()
    case.distribution(params=params).log_prob(value).sum().backward()
    assert all(weight.grad is None for weight in case.net.parameters())
    assert all(x.grad is not None and x.grad.abs().min() > 0 for x in params.values())


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


def test_pickling(case: Case) -> None:
    d = case.distribution()
    value = d.sample((2,))
    again = pickle.loads(pickle.dumps(d))
    assert torch.equal(again.log_prob(value), d.log_prob(value))
    pyro.set_rng_seed(1)
    first = d.sample()
    pyro.set_rng_seed(1)
    assert torch.equal(first, again.sample())


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


def test_importing_and_using_changes_nothing_global(case: Case) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        settings = torch.get_default_dtype(), torch.is_grad_enabled(), dict(pyro.get_param_store().items())
        d = case.distribution()
        d.log_prob(d.sample())
        assert settings == (torch.get_default_dtype(), torch.is_grad_enabled(), dict(pyro.get_param_store().items()))
    assert not caught


# A Pyro model as a simulator ------------------------------------------------------------------------------------


def regression(inputs: dict, trials: int) -> None:
    """Scalar latents, a latent a trial, two outcomes."""
    slope = pyro.sample("slope", dist.Normal(0.5, 1.0))
    scale = pyro.sample("scale", dist.Gamma(3.0, 2.0))
    guess = pyro.sample("guess", dist.Uniform(0.0, 0.25))
    with pyro.plate("trials", trials):
        hidden = pyro.sample("hidden", dist.Normal(0.0, 0.3))
        y = pyro.sample("y", dist.Normal(slope * inputs["x"] + hidden, scale))
        pyro.sample("high", dist.Bernoulli(guess + (1 - guess) * torch.sigmoid(y)))


def vector(inputs: dict, trials: int) -> None:
    """Trials as an event dimension."""
    slope = pyro.sample("slope", dist.Normal(0.5, 1.0))
    pyro.sample("y", dist.Normal(slope[..., None] * inputs["x"], 0.7).to_event(1))


def single(inputs: dict, trials: int) -> None:
    """One data set at a time: with many, the first row would be taken for the first trial."""
    slope = pyro.sample("slope", dist.Normal(0.5, 1.0))
    with pyro.plate("trials", trials):
        pyro.sample("y", dist.Normal(slope * inputs["x"][0], 0.7))


def noise(rng: np.random.Generator, size: int, trials: int) -> np.ndarray:
    return rng.normal(size=(size, trials))


X = {"x": (pb.Real(), noise)}


def as_simulator(model: Callable[..., Any], outcomes: Any = ("y",), **more: Any) -> Any:
    with warnings.catch_warnings():
        if model is single:
            warnings.simplefilter("ignore")
        return simulator_from_model(model, outcomes=outcomes, inputs=X, **more)


def test_a_model_tells_its_schema_and_priors() -> None:
    simulator = as_simulator(regression, ("y", "high"), independent=True)
    assert simulator.schema == pb.Schema(
        params={"slope": pb.Real(), "scale": pb.Positive(), "guess": pb.Interval(0, 0.25)},
        inputs={"x": pb.Real()},
        outcomes={"y": pb.Real(), "high": pb.Categorical(2)},
        independent=True,
    )
    assert simulator.priors["slope"] == pb.Prior("Normal", {"loc": 0.5, "scale": 1.0})
    assert simulator.priors["scale"] == pb.Prior("Gamma", {"concentration": 3.0, "rate": 2.0})
    assert simulator.priors["guess"] == pb.Prior.uniform(0.0, 0.25)
    assert simulator.in_process is True and simulator.name == "regression"
    check_simulator(simulator)


@pytest.mark.parametrize("model", [regression, vector, single])
def test_a_simulator_draws_what_the_model_draws(model: Any) -> None:
    size, trials = 900 if model is not single else 300, 5
    simulator = as_simulator(model)
    rng = np.random.default_rng(4)
    params = simulator.prior(rng, size)
    inputs = simulator.inputs(rng, 1, trials)
    inputs = {"x": np.repeat(inputs["x"], size, 0)}
    y = simulator.simulate(rng, params, inputs)["y"]
    assert y.shape == (size, trials) and params["slope"].shape == (size,)
    given = {"x": torch.as_tensor(inputs["x"][0], dtype=torch.float32)}
    expected = Predictive(model, num_samples=size)(given, trials)["y"].reshape(size, trials).numpy()
    for mine, theirs in (
        (y, expected),
        (y**2, expected**2),
        (y[:, 1:] * y[:, :-1], expected[:, 1:] * expected[:, :-1]),
    ):
        error = np.sqrt((mine.var(0) + theirs.var(0)) / size)
        assert (np.abs(mine.mean(0) - theirs.mean(0)) < 4.5 * error).all()
    # Draws belong to the parameters and inputs of their own row.
    rng = np.random.default_rng(5)
    steep = {**params, "slope": np.where(np.arange(size) % 2 == 0, 50.0, -50.0)}
    inputs = simulator.inputs(rng, size, trials)
    x = inputs["x"][:, :1] if model is single else inputs["x"]
    predicted = np.broadcast_to(steep["slope"][:, None] * x, (size, trials))
    assert np.corrcoef(simulator.simulate(rng, steep, inputs)["y"].ravel(), predicted.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(("model", "many"), [(regression, True), (vector, True), (single, False)])
def test_a_model_runs_once_for_many_data_sets_where_that_is_right(model: Any, many: bool) -> None:
    runs = []

    def counted(inputs: dict, trials: int) -> None:
        runs.append(trials)
        model(inputs, trials)

    if many:
        simulator = as_simulator(counted)
    else:
        with pytest.warns(UserWarning, match="one after another"):
            simulator = as_simulator(counted)
    before = len(runs)
    simulator.prior(np.random.default_rng(0), 23)
    assert len(runs) - before == (1 if many else 23)


def test_a_simulator_depends_on_its_generator_alone_and_changes_nothing_global() -> None:
    def model(inputs: dict, trials: int) -> None:
        pyro.param("width", torch.tensor(7.0))
        regression(inputs, trials)

    pyro.param("width", torch.tensor(2.0))
    state = torch.get_rng_state()
    with poutine.trace() as outside:
        simulator = as_simulator(model)
        first, second, other = (simulator.prior(np.random.default_rng(seed), 3) for seed in (1, 1, 2))
    assert not outside.trace.nodes.keys() - {"_INPUT", "_RETURN"}
    assert torch.equal(state, torch.get_rng_state())
    assert {name: value.item() for name, value in pyro.get_param_store().items()} == {"width": 2.0}
    for name in first:
        assert (first[name] == second[name]).all() and (first[name] != other[name]).any()


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [(("z",), "outcomes: expected names of sample sites"), (("slope",), r"outcomes: .*shape \(trials,\)")],
)
def test_an_outcome_that_is_none_is_refused(outcomes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_simulator(regression, outcomes)
