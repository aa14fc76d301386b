"""Parameters that vary by trial: what each trial would be as a data set of its own."""

import warnings

import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import torch

import ppl_buffer as pb
from ppl_buffer.findings import FindingWarning
from tests.laws.cases import BACKENDS, HOLES, close, numbers, on_both, uniform
from tests.networks import (
    DECISION,
    DISCRIMINATION,
    GUESS,
    RESPONDING,
    array,
    data,
    draw_group,
    joint_predictive,
    network,
    rollout,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

ALONE = [DISCRIMINATION, GUESS]
DDM = pb.simulators.DriftDiffusion()


def varying(case, given, seed=5):
    """Parameters by trial (B, K), the last ones of the schema; the others stay. Outcomes move above their bounds."""
    rng, schema = np.random.default_rng(seed), case.schema
    names = list(schema.params)[1:] or list(schema.params)
    by_trial = draw_group(rng, {name: schema.params[name] for name in names}, given.value.shape[:2])
    for column, name in enumerate(schema.outcomes):
        above = schema.lower_bounds.get(name)
        if above in by_trial:
            given.value[..., column] += by_trial[above]
    return {name: x for name, x in given.params.items() if name not in names}, by_trial


def both(case, backend, given, **more):
    """The distribution of trials with parameters of their own, and of (B, K) data sets of one trial each."""
    params, by_trial = varying(case, given)
    trials = given.value.shape[1]
    together = joint_predictive(
        case, backend, given.inputs, params=params, trial_params=by_trial, trials=trials, **more
    )
    one = {name: x[..., None] for name, x in given.inputs.items()}
    every = {name: np.broadcast_to(x[:, None], given.value.shape[:2]) for name, x in params.items()} | by_trial
    more = {name: x[..., None] if name == "trial_mask" else x for name, x in more.items()}
    more = {name: x[:, None] if name == "lapse" else x for name, x in more.items()}
    return together, joint_predictive(case, backend, one, params=every, trials=1, **more)


def of_one(value):
    """(B, K, 1[, n]) from (B, K[, n])."""
    return value[:, :, None]


@on_both(ALONE, quick=())
def test_trials_are_as_data_sets_of_their_own(case, backend):
    given = data(case, context=False)
    together, apart = both(case, backend, given)
    assert tuple(together.batch_shape) == (3,) and tuple(together.event_shape)[0] == 7
    value, one = array(backend, given.value), array(backend, of_one(given.value))
    close(together.log_prob(value), numbers(apart.log_prob(one)).sum(-1))
    close(together.conditionals(value), numbers(apart.conditionals(one))[..., 0])
    close(together.marginals(value), numbers(apart.marginals(one))[..., 0])
    close(together.mean, numbers(apart.mean)[:, :, 0], rtol=1e-3)
    last = list(case.schema.outcomes)[-1]
    column = (..., list(case.schema.outcomes).index(last)) if case.schema.event_shape_tail else ...
    close(numbers(together.pit(value))[column], numbers(apart.pit(one))[:, :, 0][column])
    noise = uniform(together, (2,))
    drawn = rollout(backend, together, noise)
    alone = rollout(backend, apart, noise[:, :, :, None])
    close(drawn[0], alone[0][:, :, :, 0])
    close(drawn[2], alone[2][..., 0])


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_masks_lapses_and_more_batch_dimensions_hold_as_elsewhere(backend):
    case = DISCRIMINATION
    given = data(case, context=False)
    more = {"trial_mask": np.broadcast_to(HOLES, (3, 7)), "lapse": np.array([0.02, 0.3, 0.1])}
    together, apart = both(case, backend, given, **more)
    value = array(backend, given.value)
    close(together.log_prob(value), numbers(apart.log_prob(array(backend, of_one(given.value)))).sum(-1))
    # What is no trial has no parameters that matter.
    given = data(case, context=False)
    params, by_trial = varying(case, given)
    wild = {name: np.where(HOLES, x, 1e6).astype(np.float32) for name, x in by_trial.items()}
    arguments = {"params": params, "trial_mask": more["trial_mask"], "outside": "ignore"}
    expected = joint_predictive(case, backend, given.inputs, trial_params=by_trial, **arguments).log_prob(value)
    close(joint_predictive(case, backend, given.inputs, trial_params=wild, **arguments).log_prob(value), expected)
    # Five draws of the parameters, of data that all of them share.
    draws = {name: np.stack([x * scale for scale in (1.0, 0.9, 0.8, 0.7, 0.6)]) for name, x in by_trial.items()}
    many = joint_predictive(case, backend, given.inputs, params=params, trial_params=draws)
    assert tuple(many.batch_shape) == (5, 3)
    close(many.log_prob(value)[0], joint_predictive(case, backend, given.inputs, params=params, trial_params=by_trial)
          .log_prob(value))  # fmt: skip
    seen = network(case, backend).observe(array(backend, given.inputs), value)
    close(joint_predictive(case, backend, seen, params=params, trial_params=draws).log_prob(seen.value),
          many.log_prob(value))  # fmt: skip


def test_the_following_trials_keep_their_own_parameters():
    given = data(DISCRIMINATION, context=False)
    params, by_trial = varying(DISCRIMINATION, given)
    whole = joint_predictive(DISCRIMINATION, "torch", given.inputs, params=params, trial_params=by_trial)
    value = array("torch", given.value)
    rest = whole.condition(value[:, :2])
    close(rest.conditionals(value[:, 2:]), whole.conditionals(value)[:, 2:])


def test_beyond_the_trained_range_one_trial_suffices():
    net = pb.load("ddm", backend="torch")
    drift = np.array([[0.5, 1.0, -2.0], [0.5, 1.0, 7.0]], np.float32)
    params = {"boundary": 1.5, "starting_point": 0.5, "non_decision_time": 0.2, "drift_variability": 0.1}
    value = np.array([[[1, 0.8], [0, 0.6], [1, 1.1]]], np.float32).repeat(2, 0)

    def distribution(outside):
        return pb.pyro.JointPredictive(net, {}, trials=3, params=params, trial_params={"drift": drift}, outside=outside)

    density = numbers(distribution("-inf").log_prob(torch.tensor(value)))
    assert np.isfinite(density[0]) and density[1] == -np.inf
    # Where there is no trial it matters in neither backend, nor do numbers that fill a program's longer sequences.
    absent = np.array([[True, True, True], [True, True, False]])
    for backend in BACKENDS:
        wild = np.where(absent, drift, np.nan).astype(np.float32)
        arguments = {"params": params, "trial_params": {"drift": wild}, "trial_mask": absent}
        joint = pb.numpyro.JointPredictive if backend == "jax" else pb.pyro.JointPredictive
        given = {name: array(backend, x) for name, x in arguments.items()}
        made = joint(pb.load("ddm", backend=backend), {}, trials=3, outside="-inf", **given)
        assert np.isfinite(numbers(made.log_prob(array(backend, value)))).all()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            joint(pb.load("ddm", backend=backend), {}, trials=3, **given)
    with pytest.raises(ValueError, match=r"trial_params\['drift'\]: 17% of the values lie outside"):
        distribution("error")


def test_a_regression_on_trials_has_the_exact_likelihood_and_gradient():
    """Drift and boundary of 300 trials by two covariates each: the exact formula, and its differences."""
    rng, trials = np.random.default_rng(8), 300
    net = pb.load("ddm", backend="jax")
    x = rng.normal(size=(2, trials))
    shared = {"starting_point": 0.5, "non_decision_time": 0.25, "drift_variability": 0.3}

    def by_trial(slopes, xp):
        return {"drift": 0.8 + slopes[0] * x[0], "boundary": xp.exp(0.4 + slopes[1] * x[1])}

    def every(slopes):
        return {**{name: np.full(trials, value) for name, value in shared.items()}, **by_trial(slopes, np)}

    truth = np.array([0.6, 0.15])
    outcomes = DDM.simulate(rng, every(truth), {}, trials=1)
    value = jnp.stack([jnp.asarray(outcomes[name][:, 0]) for name in ("choice", "rt")], -1)

    @jax.jit
    def log_likelihood(slopes):
        trial_params = by_trial(slopes, jnp)
        made = pb.numpyro.JointPredictive(net, {}, trials=trials, params=shared, trial_params=trial_params)
        return made.log_prob(value)

    def exact(slopes):
        return DDM.log_likelihood(every(slopes), outcomes).sum()

    # At 0.0003 nats a trial log densities are off by sqrt(2 * 0.0003 * trials): four times that.
    assert abs(float(log_likelihood(truth)) - exact(truth)) < 4 * np.sqrt(2 * 0.0003 * trials)
    gradient, step = jax.grad(log_likelihood)(truth), 1e-2
    for index in range(2):
        up, down = (exact(truth + sign * step * np.eye(2)[index]) for sign in (1, -1))
        slope, curvature = (up - down) / (2 * step), (2 * exact(truth) - up - down) / step**2
        # Where a divergence is half a squared distance in posterior standard deviations: no farther than so.
        assert abs(float(gradient[index]) - slope) < np.sqrt(2 * 0.0003 * trials * curvature)


def test_pointwise_densities_and_replicates_reach_arviz():
    case, given = DISCRIMINATION, data(DISCRIMINATION, context=False)
    net, rng = network(case, "jax"), np.random.default_rng(1)
    cue = jnp.asarray(rng.normal(size=(3, 7)), jnp.float32)
    fixed = {"delay": 0.1, "bound": jnp.asarray(given.params["bound"])}

    def model():
        slope = numpyro.sample("slope", dist.Normal(0, 1))
        with numpyro.plate("people", 3):
            made = pb.numpyro.JointPredictive(
                net, array("jax", given.inputs), params=fixed, trial_params={"drift": slope * cue}, outside="ignore"
            )
            numpyro.sample("y", made, obs=array("jax", given.value))

    slopes = np.array([0.3, -1.2, 0.8, 0.1], np.float32)
    result = pb.arviz.from_samples(model, {"slope": slopes[None]}, language="numpyro", progress=False)
    scores = result["log_likelihood"]["y"].values.reshape(4, 3, 7)
    for slope, score in zip(slopes, scores, strict=True):
        made = pb.numpyro.JointPredictive(
            net, array("jax", given.inputs), params=fixed, trial_params={"drift": slope * cue}, outside="ignore"
        )
        close(score, made.conditionals(array("jax", given.value)))
    assert result["posterior_predictive"]["rt"].shape[-2:] == (3, 7)


def test_what_cannot_be_is_refused():
    given = data(DISCRIMINATION, context=False)
    params, by_trial = varying(DISCRIMINATION, given)

    def made(case=DISCRIMINATION, **arguments):
        return joint_predictive(case, "torch", data(case).inputs, **arguments)

    with pytest.raises(ValueError, match="trial_params: expected parameters that params does not hold, got 'delay'"):
        made(params={**params, "delay": 0.2}, trial_params=by_trial)
    with pytest.raises(ValueError, match=r"trial_params\['bound'\]: expected shape \(\*batch, 7\), one value a trial"):
        made(params=params, trial_params={**by_trial, "bound": np.ones(3, np.float32)})
    with pytest.raises(ValueError, match=r"trial_params: expected all other parameters in params, but \['drift'\]"):
        made(trial_params=by_trial)
    with pytest.raises(ValueError, match="trial_params: expected the direct likelihood to compute"):
        made(params=params, trial_params=by_trial, likelihood="buffer")
    with pytest.raises(ValueError, match="trial_params: expected the direct likelihood to compute"):
        made(DECISION, params=params, trial_params=by_trial)
    with pytest.raises(ValueError, match="trial_params: expected none for a network trained on parameters that stay"):
        made(RESPONDING, params={"alpha": 0.4, "delay": 0.1}, trial_params={"beta": np.ones((3, 7), np.float32)})
    with pytest.raises(ValueError, match=r"trial_params\['bound'\]: expected a number above 0"):
        made(params=params, trial_params={**by_trial, "bound": -by_trial["bound"]})


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_column_of_parameters_beside_as_many_data_sets_is_said(backend):
    """It is so many values for each data set, and a total of all of them, which nobody else would notice."""
    given = data(DISCRIMINATION, context=False)
    column = {**given.params, "drift": given.params["drift"][:, None]}
    with pytest.warns(
        FindingWarning, match=r"params\['drift'\]: shape \(3, 1\) beside 3 data sets .* \(3, 3\) in all"
    ) as said:
        made = joint_predictive(DISCRIMINATION, backend, given.inputs, params=column)
    assert tuple(made.batch_shape) == (3, 3) and [each.message.finding.kind for each in said] == ["shape"]
    # As if the line that made the distribution said it.
    assert said[0].filename.endswith("networks.py")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        joint_predictive(DISCRIMINATION, backend, given.inputs, params=given.params)
        # Draws first, as samplers have them.
        draws = {name: np.stack([x, x]) for name, x in given.params.items()}
        shared = {**draws, "drift": np.array([[0.3], [0.4]], np.float32)}
        assert tuple(joint_predictive(DISCRIMINATION, backend, given.inputs, params=shared).batch_shape) == (2, 3)
