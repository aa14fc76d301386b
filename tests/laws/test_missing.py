"""Lost and omitted answers: probabilities against quadrature of the network's own density, and the exact DDM."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

import jax
import jax.numpy as jnp
import torch
from scipy.stats import kstest

import ppl_buffer as pb
from ppl_buffer.predictive import program
from ppl_buffer.predictive.query import Query
from ppl_buffer.schema import Positive, Schema
from tests.laws.cases import close, numbers, on_both, uniform
from tests.networks import (
    DECISION,
    DIRECT_SIZES,
    DISCRIMINATION,
    FUNCTION,
    GUESS,
    LEARNING,
    Case,
    array,
    data,
    draw_group,
    joint_predictive,
    network,
    rollout,
)
from tests.references import drift_diffusion

pytestmark = pytest.mark.usefixtures("quick_compilation")

NAN, LATE = np.nan, np.inf
DEADLINE = np.array([1.3, 2.1, 0.9, 1.7, np.inf, 1.1, 1.5])
# A time alone, whose distribution function has no choice in it.
LATENCY = Case(
    "latency", Schema(params={"mu": pb.Real()}, outcomes={"rt": Positive(lapse_range=(0, 6))}, independent=True),
    config=DIRECT_SIZES,
)  # fmt: skip


def seen_in_part(case=DISCRIMINATION):
    """Data of three people whose seven trials are: whole, no choice, no time, omitted, whole, omitted, no time."""
    given = data(case, context=False)
    delay = given.params["delay"][:, None]
    given.value[..., 1] = delay + np.random.default_rng(7).uniform(0.05, 0.4, (3, 7))
    given.value[:, 1, 0] = given.value[:, [2, 6], 1] = NAN
    given.value[:, [3, 5]] = NAN, LATE
    return given, np.maximum(DEADLINE, delay + 0.5).astype(np.float32)


def made(case, backend, given, deadline, inputs=None, **more):
    missing = pb.Missing(deadline=deadline, **more.pop("missing", {}))
    inputs = given.inputs if inputs is None else inputs
    return joint_predictive(case, backend, inputs, params=given.params, trials=7, missing=missing, **more)


def by_quadrature(case, given, deadline):
    """P(choice, time <= deadline) by trapezoids in log time, and the density of each choice; (choices, B, K) each."""
    whole = joint_predictive(case, "torch", given.inputs, params=given.params, trials=7)
    delay = given.params["delay"][:, None]
    last = np.log(np.where(np.isfinite(deadline), deadline, 1e4) - delay)
    places = np.linspace(0, 1, 4001)[:, None, None]
    log_time = -16 + places * (last + 16)
    within, densities = [], []
    for choice in (0, 1):
        value = np.stack([np.full(log_time.shape, choice), delay + np.exp(log_time)], -1).astype(np.float32)
        density = np.exp(numbers(whole.conditionals(torch.tensor(value))).astype(float) + log_time)
        within.append(np.trapezoid(density, dx=1.0, axis=0) * (last + 16) / 4000)
        time = np.where(np.isfinite(given.value[..., 1]), given.value[..., 1], 1.0 + delay)
        value = np.stack([np.full((3, 7), choice), time], -1)
        densities.append(np.exp(numbers(whole.conditionals(torch.tensor(value.astype(np.float32))))))
    return np.array(within), np.array(densities)


def expected(given, deadline, within, densities):
    """Log probability of what was seen of each trial."""
    choice = np.nan_to_num(given.value[..., 0]).astype(int)
    picked = np.take_along_axis(densities, choice[None], 0)[0]
    known = np.take_along_axis(within, choice[None], 0)[0]
    result = np.log(picked)
    result[:, 1] = np.log(densities.sum(0)[:, 1])
    result[:, [2, 6]] = np.log(known[:, [2, 6]])
    result[:, [3, 5]] = np.log(1 - within.sum(0)[:, [3, 5]])
    return result


@on_both([DECISION, DISCRIMINATION], quick=())
def test_what_was_seen_has_the_probability_that_quadrature_finds(case, backend):
    given, deadline = seen_in_part(case)
    within, densities = by_quadrature(case, given, deadline)
    right = expected(given, deadline, within, densities)
    distribution = made(case, backend, given, deadline)
    value = array(backend, given.value)
    close(distribution.conditionals(value), right)
    close(distribution.log_prob(value), right.sum(-1), atol=1e-3)
    seen = network(case, backend).observe(array(backend, given.inputs), value, missing=pb.Missing(deadline=deadline))
    again = joint_predictive(case, backend, seen, params=given.params)
    close(again.conditionals(seen.value), right)
    exists = np.broadcast_to(np.arange(7) % 3 > 0, (3, 7))
    close(made(case, backend, given, deadline, trial_mask=exists).conditionals(value), np.where(exists, right, 0.0))
    # Five draws of the parameters, of data that all share.
    draws = {name: np.stack([x] * 5) for name, x in given.params.items()}
    close(joint_predictive(case, backend, seen, params=draws).conditionals(seen.value), np.stack([right] * 5))
    # A lapse is an event too: a time uniform over (0, 10), a choice by a coin.
    lapsed = np.full((3, 7), 0.5 / 10)
    lapsed[:, 1], lapsed[:, [2, 6]] = 0.1, 0.5 * np.minimum(deadline / 10, 1)[:, [2, 6]]
    lapsed[:, [3, 5]] = 1 - deadline[:, [3, 5]] / 10
    rate = np.array([0.0, 0.3, 0.05])
    mixed = np.log((1 - rate[:, None]) * np.exp(right) + rate[:, None] * lapsed)
    close(made(case, backend, given, deadline, lapse=rate.astype(np.float32)).conditionals(value), mixed)


def test_without_a_deadline_what_was_lost_is_summed_out():
    given, _ = seen_in_part()
    given.value[:, [3, 5]] = given.value[:, [0, 0]]
    within, densities = by_quadrature(DISCRIMINATION, given, np.full(7, LATE))
    with np.errstate(invalid="ignore"):
        right = expected(given, None, within, densities)
    distribution = joint_predictive(
        DISCRIMINATION, "torch", given.inputs, params=given.params, trials=7, missing=pb.Missing()
    )
    left = numbers(distribution.conditionals(torch.tensor(given.value)))
    close(left[:, [0, 1, 2, 4, 6]], right[:, [0, 1, 2, 4, 6]])
    with pytest.raises(ValueError, match=r"value\['rt'\]: expected .*NaN where it was lost, got inf"):
        network(DISCRIMINATION, "torch").observe(
            array("torch", given.inputs), np.where(np.isnan(given.value[..., :1]), (NAN, LATE), given.value),
            missing=pb.Missing(),
        )  # fmt: skip


@pytest.mark.parametrize("lapse", [None, 0.2])
def test_all_that_can_be_seen_has_unit_mass(lapse):
    given, deadline = seen_in_part()
    deadline[:, 4] = 1e3
    more = {} if lapse is None else {"lapse": lapse}

    def mass(value, **missing):
        distribution = made(DISCRIMINATION, "torch", given, deadline, missing=missing, **more)
        return np.exp(numbers(distribution.conditionals(torch.tensor(np.broadcast_to(value, (3, 7, 2)).copy()))))

    close(mass((0, NAN)) + mass((1, NAN)) + mass((NAN, LATE)), np.ones((3, 7)), atol=2e-6, rtol=0)
    # Where choice 0 is made by not responding.
    close(mass((1, NAN), withheld={"choice": 0}) + mass((NAN, LATE), withheld={"choice": 0}), np.ones((3, 7)))
    close(mass((NAN, 0.8 * deadline[0, 0]), withheld={"choice": 0}), mass((1, 0.8 * deadline[0, 0])), atol=1e-6)


@on_both([DISCRIMINATION], quick=(DISCRIMINATION,))
def test_gradients_are_slopes_and_stay_finite_in_the_tails(case, backend):
    given, deadline = seen_in_part(case)

    def log_prob(params, deadline, value):
        other = Like(given.inputs, params)
        return made(case, backend, other, deadline, outside="ignore").log_prob(value).sum()

    compiled = jax.jit(jax.value_and_grad(log_prob))

    def both(params, deadline=deadline, value=given.value):
        """The log density, and its gradient."""
        params, value = array(backend, params), array(backend, np.asarray(value, np.float32))
        if backend == "jax":
            return compiled(params, jnp.asarray(deadline), value)
        leaves = {name: x.requires_grad_() for name, x in params.items()}
        total = log_prob(leaves, torch.tensor(deadline), value)
        total.backward()
        return total.detach(), {name: x.grad for name, x in leaves.items()}

    slopes = both(given.params)[1]
    for name, x in given.params.items():
        step = 4e-3
        ends = [float(both({**given.params, name: (x + sign * step).astype(np.float32)})[0]) for sign in (1, -1)]
        np.testing.assert_allclose(numbers(slopes[name]).sum(), (ends[0] - ends[1]) / (2 * step), rtol=0.03, atol=0.05)
    omitted = np.broadcast_to(np.array([NAN, LATE]), (3, 7, 2))
    responded = np.broadcast_to(np.array([1, NAN]), (3, 7, 2))
    delay = given.params["delay"][:, None] + np.zeros(7)
    for late in (delay * 0.5, delay + 1e-6, np.full((3, 7), 1e30)):
        for value in (omitted, responded):
            total, sloping = both(given.params, late.astype(np.float32), value)
            assert not np.isnan(float(total)) and all(np.isfinite(numbers(x)).all() for x in sloping.values())
    assert abs(float(both(given.params, (delay * 0.5).astype(np.float32), omitted)[0])) < 1e-5


class Like:
    """Data with other parameters."""

    def __init__(self, inputs, params):
        self.inputs, self.params = inputs, params


@on_both([DISCRIMINATION, LATENCY], quick=())
def test_draws_have_the_deadline_and_their_places_are_uniform(case, backend):
    given = data(case, context=False)
    deadline = np.float32(2.0 if case is DISCRIMINATION else 1.2)
    distribution = made(case, backend, given, deadline)
    value, _, log_probs = rollout(backend, distribution, uniform(distribution, (60,)))
    time = value[..., 1] if case is DISCRIMINATION else value
    omitted = np.isposinf(time)
    assert 0.05 < omitted.mean() < 0.95 and (time[~omitted] <= deadline).all()
    close(log_probs, distribution.conditionals(array(backend, value)))
    places = numbers(distribution.pit(array(backend, value)))
    columns = places if case is DISCRIMINATION else places[..., None]
    assert np.isnan(columns[..., 1:]).any(-1).sum() == (omitted.sum() if case is DISCRIMINATION else 0)
    for column in np.moveaxis(columns, -1, 0):
        assert kstest(column[np.isfinite(column)], "uniform").pvalue > 1e-3
    if case is DISCRIMINATION:
        share = np.exp(numbers(distribution.conditionals(array(backend, np.full((3, 7, 2), (NAN, LATE), np.float32)))))
        assert abs(omitted.mean() - share.mean()) < 4 * np.sqrt(share.mean() / omitted.size)
        assert np.isnan(value[omitted][:, 0]).all()


def test_backends_agree_on_places_and_on_choices_that_are_withheld():
    given, deadline = seen_in_part()
    given.value[..., 0] = np.where(given.value[..., 0] == 0, 1, given.value[..., 0])
    missing = {"withheld": {"choice": 0}}
    places, densities = [], []
    for backend in ("torch", "jax"):
        distribution = made(DISCRIMINATION, backend, given, deadline, missing=missing, lapse=0.1)
        value, ones = array(backend, given.value), array(backend, np.full((3, 7, 2), 0.5, np.float32))
        densities.append(numbers(distribution.conditionals(value)))
        places.append(numbers(distribution._pit(value, lambda shape, ones=ones: ones)))
    close(*densities)
    close(*places)
    lost = np.isnan(given.value[..., 0]) & np.isfinite(given.value[..., 1])
    assert np.isnan(places[0][..., 0][lost]).all() and np.isfinite(places[0][..., 1][lost]).all()


def test_trials_with_parameters_of_their_own_are_data_sets_of_their_own():
    given, deadline = seen_in_part()
    by_trial = draw_group(np.random.default_rng(3), {"drift": pb.Real()}, (3, 7))
    params = {name: x for name, x in given.params.items() if name != "drift"}
    arguments = {"trials": 7, "missing": pb.Missing(deadline=deadline)}
    together = joint_predictive(
        DISCRIMINATION, "torch", given.inputs, params=params, trial_params=by_trial, **arguments
    )
    inputs = {name: x[..., None] for name, x in given.inputs.items()}
    every = {name: np.broadcast_to(x[:, None], (3, 7)) for name, x in params.items()} | by_trial
    arguments = {"trials": 1, "missing": pb.Missing(deadline=deadline[..., None])}
    apart = joint_predictive(DISCRIMINATION, "torch", inputs, params=every, **arguments)
    value = torch.tensor(given.value)
    close(together.conditionals(value), numbers(apart.conditionals(value[:, :, None]))[..., 0])


def test_probabilities_are_those_of_the_drift_diffusion_model():
    net, rng = pb.load("ddm", backend="torch"), np.random.default_rng(4)
    size, deadline = 40, 1.4
    params = {
        "drift": rng.uniform(-2, 2, size), "boundary": rng.uniform(0.8, 2.2, size),
        "starting_point": rng.uniform(0.35, 0.65, size), "non_decision_time": rng.uniform(0.15, 0.5, size),
        "drift_variability": rng.uniform(0.1, 0.8, size),
    }  # fmt: skip
    value = np.array([[1, NAN], [NAN, LATE], [NAN, 0.9]], np.float32) + np.zeros((size, 1, 1), np.float32)
    seen = net.observe({}, value, missing=pb.Missing(deadline=deadline))
    theta = {name: torch.tensor(x, dtype=torch.float32) for name, x in params.items()}
    left = np.exp(numbers(pb.pyro.JointPredictive(net, seen, params=theta).conditionals(seen.value)))
    within = [drift_diffusion.distribution_function(params, choice, np.full(size, deadline)) for choice in (0, 1)]
    both = np.exp([drift_diffusion.log_density(params, choice, 0.9) for choice in (0, 1)]).sum(0)
    right = np.stack([within[1], 1 - within[0] - within[1], both], -1)
    assert np.abs(left - right).max() < 0.03 and np.abs(left - right).mean() < 0.006


@pytest.mark.parametrize(
    ("value", "missing", "message"),
    [
        ((1, NAN), None, r"value\['rt'\]: expected a number above 0, got nan"),
        ((NAN, NAN), pb.Missing(), r"expected an outcome that is known"),
        ((NAN, NAN), pb.Missing(deadline=2.0), r"expected an outcome that is known, or infinity as the time"),
        ((1, LATE), pb.Missing(deadline=2.0), r"value\['choice'\]: expected NaN where no response came"),
        ((1, 2.5), pb.Missing(deadline=2.0), r"value\['rt'\]: expected at most the deadline"),
        ((NAN, LATE), pb.Missing(deadline=np.inf), r"value\['rt'\]: expected a finite time on trials without"),
        ((0, 1.0), pb.Missing(2.0, {"choice": 0}), r"value\['choice'\]: expected NaN for 0, the choice that is with"),
        ((2, 1.0), pb.Missing(2.0), r"value\['choice'\]: expected .*NaN where it was lost, got 2"),
        ((1, 1.0), pb.Missing(-1.0), r"deadline: expected numbers above 0"),
        ((1, 1.0), pb.Missing([1.0, 2.0]), r"deadline: expected a number or shape"),
        ((1, 1.0), pb.Missing(2.0, {"rt": 0}), r"withheld: expected a category of a choice"),
        ((1, 1.0), pb.Missing(2.0, outcome="choice"), r"outcome: expected the name of the outcome"),
        ((1, 1.0), 2.0, r"missing: expected a ppl_buffer.Missing, got float"),
    ],
)
def test_what_contradicts_itself_is_refused(value, missing, message):
    given = data(DISCRIMINATION, context=False)
    given.value[:, 2] = value
    with pytest.raises(ValueError, match=message):
        network(DISCRIMINATION, "torch").observe(array("torch", given.inputs), given.value, missing=missing)
    if isinstance(missing, pb.Missing) and message.startswith(("value", "expected")):
        # Where nobody can look at the numbers the density is 0.
        distribution = joint_predictive(
            DISCRIMINATION, "torch", given.inputs, params=given.params, missing=missing, validate_args=False
        )
        assert np.isneginf(numbers(distribution.conditionals(torch.tensor(given.value)))[:, 2]).all()


def test_missing_answers_need_a_likelihood_of_independent_trials():
    reasons = {
        LEARNING: "since trials depend on those before them",
        FUNCTION: "for a model whose trials depend on each",
    }
    for case, reason in reasons.items():
        given = data(case, context=False)
        with pytest.raises(ValueError, match=f"missing: expected None,? {reason}"):
            joint_predictive(case, "torch", given.inputs, params=given.params, missing=pb.Missing(), trials=7)
    given, deadline = seen_in_part(DECISION)
    with pytest.raises(ValueError, match=r"missing: expected a likelihood, .* hides \['drift'\]"):
        params = {name: x for name, x in given.params.items() if name != "drift"}
        joint_predictive(DECISION, "torch", given.inputs, params=params, missing=pb.Missing(deadline), trials=7)
    with pytest.raises(ValueError, match="deadline: expected the time after which"):
        pb.Missing(withheld={"choice": 0})
    with pytest.raises(ValueError, match="missing: expected None beside|missing: expected none beside"):
        seen = network(DISCRIMINATION, "torch").observe(given.inputs, given.value, missing=pb.Missing(deadline))
        joint_predictive(DISCRIMINATION, "torch", seen, params=given.params, missing=pb.Missing(deadline))
    with pytest.raises(ValueError, match="deadline: expected None for a mean"):
        _ = joint_predictive(DISCRIMINATION, "torch", seen, params=given.params).mean
    whole = joint_predictive(DISCRIMINATION, "torch", seen, params=given.params)
    following = whole.condition(seen.value[:, :4])
    close(following.conditionals(seen.value[:, 4:]), whole.conditionals(seen.value)[:, 4:])
    alone = network(GUESS, "torch").observe({}, data(GUESS).value, missing=pb.Missing())
    assert np.isfinite(numbers(alone.value)).all()


def test_one_program_takes_all_of_a_query():
    assert {*program._ARRAYS, *program._SETTINGS, "history"} == {field.name for field in dataclasses.fields(Query)}


def test_a_model_of_either_language_observes_them():
    import numpyro
    import pyro

    given, deadline = seen_in_part()
    totals = []
    for language, backend in ((pyro, "torch"), (numpyro, "jax")):
        missing = pb.Missing(deadline=deadline)
        seen = network(DISCRIMINATION, backend).observe(array(backend, given.inputs), given.value, missing=missing)

        def model(seen=seen, language=language, backend=backend):
            with language.plate("people", 3):
                made = joint_predictive(DISCRIMINATION, backend, seen, params=given.params)
                language.sample("trials", made, obs=seen.value)

        if backend == "torch":
            totals.append(float(pyro.poutine.trace(model).get_trace().log_prob_sum()))
        else:
            totals.append(float(numpyro.infer.util.log_density(model, (), {}, {})[0]))
    assert np.isfinite(totals[0]) and np.isclose(*totals, rtol=1e-4)


def test_the_fastest_response_is_one_that_is_known():
    given, deadline = seen_in_part()
    given.value[..., 1] = np.where(np.isfinite(given.value[..., 1]), given.value[..., 1] + 3, given.value[..., 1])
    for backend in ("torch", "jax"):
        net = network(DISCRIMINATION, backend)
        seen = net.observe(array(backend, given.inputs), given.value, missing=pb.Missing(deadline + 3))
        times = np.where(np.isfinite(given.value[..., 1]), given.value[..., 1], np.inf)
        close(net.upper_bounds(seen)["delay"], times.min(-1))
