"""Data unlike those of training are found, a data set at a time, with their cause; simulated data raise no alarm."""

import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from ppl_buffer import simulators
from ppl_buffer.findings import FindingWarning
from ppl_buffer.inference.simulation import posterior_predictive
from ppl_buffer.network import checkpoint
from ppl_buffer.network.ranges import ValueRange, ranges_of
from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.network.unfamiliar import find_unfamiliar, trained_bounds
from ppl_buffer.predictive.query import Query
from ppl_buffer.schema import Categorical, Interval, Positive, Real, Schema
from tests.networks import (
    DECISION,
    FUNCTION,
    FUNCTION_RECORD,
    LEARNING,
    Record,
    array,
    data,
    joint_predictive,
    network,
)

SIMULATORS = {
    "ddm": simulators.DriftDiffusion(),
    "noisy_q": simulators.NoisyQ(),
    "rlddm": simulators.RLDriftDiffusion(),
    "multisensory_rho1": simulators.MultisensoryCausalInference(rho=1),
    "gp": simulators.GaussianProcess(),
}
SETS, TRIALS = 12, 60


def drawn(name, seed=5):
    """Simulated data of a shipped network, name -> (SETS, TRIALS)."""
    simulator, rng = SIMULATORS[name], np.random.default_rng(seed)
    params, inputs = simulator.prior(rng, SETS), simulator.inputs(rng, SETS, TRIALS)
    more = {} if simulator.schema.inputs else {"trials": TRIALS}
    both = {**inputs, **simulator.simulate(rng, params, inputs, **more)}
    return {key: np.array(x, dtype=float) for key, x in both.items()}


def findings(name, values, exists=True):
    """What is found in data for a shipped network."""
    description, _ = checkpoint.read_description(checkpoint.shipped()[name])
    ranges = TrainingRecord.from_dict(description["record"]).ranges
    shape = next(iter(values.values())).shape
    return find_unfamiliar(Schema.from_dict(description["schema"]), ranges, values, np.broadcast_to(exists, shape))


def only(name, values, **more):
    """The one thing that is found."""
    (one,) = findings(name, values, **more)
    return one


@pytest.mark.parametrize("name", SIMULATORS)
def test_what_the_model_draws_is_familiar(name):
    assert not findings(name, drawn(name))


def changed(name, variable, where, change):
    """Simulated data of which a part is changed."""
    values = drawn(name)
    values[variable][where] = change(values[variable][where])
    return values


def constant(value):
    return lambda x: np.full_like(x, value)


@pytest.mark.parametrize("who", [[4], slice(None)])
def test_milliseconds_among_seconds(who):
    one = only("ddm", changed("ddm", "rt", who, lambda x: 1000 * x))
    assert (one.name, one.cause, one.factor, one.plain) == ("rt", "unit", 0.001, True)
    np.testing.assert_array_equal(one.data_sets, np.arange(SETS)[who])
    assert one.where[who].all() and "milliseconds" in one.unit


def test_a_response_of_999_milliseconds_is_no_code():
    values = changed("ddm", "rt", [4], lambda x: np.round(1000 * x))
    values["rt"][4, :2] = 888, 999
    one = only("ddm", values)
    assert (one.cause, one.factor, one.data_sets.tolist()) == ("unit", 0.001, [4])


def test_some_trials_in_milliseconds():
    one = only("ddm", changed("ddm", "rt", (4, slice(0, 9)), lambda x: 1000 * x))
    assert (one.cause, one.factor, one.data_sets.tolist(), one.where.sum()) == ("unit", 0.001, [4], 9)


@pytest.mark.parametrize("code", [99, 999, 9999])
def test_codes_for_missed_responses(code):
    one = only("ddm", changed("ddm", "rt", ([2, 2, 7], [0, 5, 3]), constant(code)))
    assert (one.cause, one.values, one.plain) == ("missing", (code,), True)
    assert one.where.sum() == 3 and one.data_sets.tolist() == [2, 7]
    assert f"{code:.4g}" in one.describe((SETS,)) and "in data sets 2, 7 of 12" in one.describe((SETS,))


@pytest.mark.parametrize("variable", ["s_A", "s_V", "response"])
@pytest.mark.parametrize("code", [-999, 999])
def test_codes_in_places(variable, code):
    one = only("multisensory_rho1", changed("multisensory_rho1", variable, (3, 1), constant(code)))
    assert (one.name, one.cause, one.values) == (variable, "missing", (code,))


def test_radians_and_pixels():
    # Places, and one subject's reports: that subject alone. A single place is no other unit.
    radians = changed("multisensory_rho1", "s_A", slice(None), np.deg2rad)
    one = only("multisensory_rho1", radians)
    assert (one.cause, len(one.data_sets)) == ("unit", SETS) and one.factor == pytest.approx(180 / np.pi)
    reports = only("multisensory_rho1", changed("multisensory_rho1", "response", 6, np.deg2rad))
    assert (reports.name, reports.cause, reports.data_sets.tolist()) == ("response", "unit", [6])
    assert reports.factor == pytest.approx(180 / np.pi)
    pixels = only("multisensory_rho1", changed("multisensory_rho1", "s_A", slice(None), lambda x: 40 * x + 960))
    assert (pixels.cause, pixels.factor, pixels.plain) == ("unit", None, True)
    assert not findings("multisensory_rho1", changed("multisensory_rho1", "s_A", slice(None), constant(5)))


def one_variable(variable, seen, values, name="level"):
    """What is found in data sets of one input."""
    schema = Schema(inputs={name: variable}, outcomes={"choice": Categorical(2)})
    return find_unfamiliar(schema, {name: seen}, {name: values}, np.ones(values.shape, dtype=bool))


def test_medians_tell_a_unit_where_all_values_lie_inside_the_range():
    seen = ValueRange(0.001, 1000.0, ((0.5, 0.7),), medians=(0.5, 1.0), spreads=(0.1, 2.0))
    levels = np.linspace(0.9, 1.1, 20) * np.array([[0.6], [2.5], [20.0]])
    (one,) = one_variable(Positive(), seen, levels)
    assert (one.cause, one.factor, one.data_sets.tolist()) == ("unit", 0.01, [2])


@pytest.mark.parametrize("factor", [0.001, 1.0, 2.0])
def test_delays_over_six_orders_of_magnitude_tell_no_unit(factor):
    """Odds against of 0.01 to 4 are no delays in another unit, nor is a long delay one in milliseconds."""
    delays = np.exp(np.random.default_rng(0).uniform(np.log(0.01), np.log(5000), (97, 53)))
    variable, seen = Interval(-0.01, 20_000), ValueRange.of(Interval(-0.01, 20_000), delays)
    narrow = factor * np.random.default_rng(1).uniform(50, 4000, (3, 41))
    values = np.concatenate([narrow, np.full((1, 41), 30.0)])
    found = one_variable(variable, seen, values, "delay")
    assert all(one.cause == "range" and not one.plain for one in found)


def test_how_far_outside_is_no_data():
    seen = ValueRange(1.0, 100.0, ((0.5, 10.0),), medians=(1.0, 100.0), spreads=(0.1, 80.0))
    for factor, plain in ((5, False), (11, True)):
        levels = np.full((1, 20), 10.0)
        levels[0, 3] = factor * 100**1.1
        (one,) = one_variable(Positive(), seen, levels)
        assert (one.cause, one.plain) == ("range", plain)
    # Most values outside, and not by much: no other unit.
    one = only("multisensory_rho1", changed("multisensory_rho1", "s_A", [2], constant(20)))
    assert (one.cause, one.plain, one.data_sets.tolist()) == ("range", False, [2])


def test_a_subject_who_hardly_varies_is_no_other_unit():
    def narrow(factor):
        values = drawn("multisensory_rho1")
        usual = np.median(np.diff(np.quantile(values["response"], (0.1, 0.9), axis=1), axis=0))
        spread = np.diff(np.quantile(values["response"][6], (0.1, 0.9)))
        values["response"][6] *= factor * usual / spread
        return findings("multisensory_rho1", values)

    assert narrow(1 / 60)[0].factor == pytest.approx(180 / np.pi)
    assert not narrow(1 / 400)


def test_numbers_are_degrees_only_where_angles_were_trained():
    values = np.random.default_rng(0).uniform(-2, 2, (20, 30))
    (one,) = one_variable(Real(), ValueRange.of(Real(), values), np.rad2deg(values))
    assert (one.cause, one.factor, one.plain) == ("unit", None, True)


def test_a_wider_range_is_said_and_no_mistake():
    one = only("multisensory_rho1", changed("multisensory_rho1", "s_A", slice(None), lambda x: 1.5 * x))
    assert (one.name, one.cause, one.plain) == ("s_A", "range", False)
    assert "outside the trained range, values from -15 to 15" in one.describe((SETS,))


@pytest.mark.parametrize(
    "change, cause, values",
    [
        (lambda x: 100 * x, "code", (0, 100)),
        (lambda x: 2 * x - 1, "code", (-1, 1)),
        (lambda x: x / 2, "code", (0, 0.5)),
    ],
)
def test_rewards_of_another_code(change, cause, values):
    one = only("rlddm", changed("rlddm", "reward", 3, change))
    assert (one.name, one.cause, one.values, one.data_sets.tolist()) == ("reward", cause, values, [3])
    assert "the network was trained on 0, 1 alone" in one.describe((SETS,))


def test_a_missing_reward_beside_rewards():
    one = only("rlddm", changed("rlddm", "reward", (3, 4), constant(-1)))
    assert (one.cause, one.values, one.where.sum()) == ("missing", (-1,), 1)


def test_rewards_of_another_task():
    # -1 is no code for a missing reward where there are other ones beside 0 and 1.
    values = drawn("rlddm")
    values["reward"][3] = np.arange(TRIALS) % 7 - 3
    one = only("rlddm", values)
    assert (one.cause, one.values, one.data_sets.tolist()) == ("code", (-3, -2, -1, 0, 1, 2, 3), [3])


def test_a_category_that_training_never_drew():
    schema = Schema(inputs={"cue": Categorical(3)}, outcomes={"y": Real()})
    ranges = ranges_of(schema, {"cue": np.eye(2), "y": np.random.default_rng(0).normal(size=(20, 30))})
    cue = np.array([[0, 1, 2, 0], [1, 1, 0, 0]])
    (one,) = find_unfamiliar(schema, ranges, {"cue": cue, "y": np.zeros((2, 4))}, np.ones((2, 4), dtype=bool))
    assert (one.name, one.cause, one.data_sets.tolist()) == ("cue", "code", [0]) and "on 0, 1 alone" in one.describe()


def test_per_cent_where_fractions_were_trained():
    rng = np.random.default_rng(0)
    schema = Schema(inputs={"contrast": Real(), "level": Positive()}, outcomes={"slider": Interval(0, 100)})
    seen = {"contrast": rng.uniform(size=(50, 60)), "level": rng.uniform(0.01, 1, (50, 60)),
            "slider": rng.uniform(0, 100, (50, 60))}  # fmt: skip
    ranges = ranges_of(schema, seen)
    given = {"contrast": 100 * seen["contrast"], "level": 100 * seen["level"], "slider": seen["slider"] / 100}
    every = find_unfamiliar(schema, ranges, given, np.ones((50, 60), dtype=bool))
    assert [(one.name, one.cause, one.factor) for one in every] == [
        ("contrast", "unit", 0.01), ("level", "unit", 0.01), ("slider", "unit", 100.0)]  # fmt: skip


def test_degrees_where_radians_were_trained():
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, (50, 60))
    schema = Schema(outcomes={"angle": Real()})
    ranges, everywhere = ranges_of(schema, {"angle": angles}), np.ones((50, 60), dtype=bool)
    (one,) = find_unfamiliar(schema, ranges, {"angle": np.rad2deg(angles)}, everywhere)
    assert one.cause == "unit" and one.factor == pytest.approx(np.pi / 180)
    # Of a few values one far outside is a sign of it, and one a little outside is none.
    few, there = {"angle": np.array([[5.5], [90.0]])}, np.ones((2, 1), dtype=bool)
    causes = {one.cause: one.data_sets.tolist() for one in find_unfamiliar(schema, ranges, few, there)}
    assert causes == {"unit": [1], "range": [0]}


def test_what_does_not_exist_is_not_judged():
    values = changed("ddm", "rt", (slice(None), slice(40, None)), constant(999))
    assert not findings("ddm", values, exists=np.arange(TRIALS) < 40)
    # Neither is what is not legal: it is refused elsewhere.
    assert not findings("ddm", changed("ddm", "rt", (0, 0), constant(-999)))


def test_bounds_have_a_margin_but_not_for_one_wild_value():
    assert trained_bounds(Real(), ValueRange(-1.0, 1.0)) == pytest.approx((-1.2, 1.2))
    wild = ValueRange(-1.0, 90.0, quantiles=((0.001, -1.0), (0.999, 1.0)))
    assert trained_bounds(Real(), wild) == pytest.approx((-2, 90))
    assert trained_bounds(Real(), ValueRange(-1.0, 1.0), is_outcome=True) == pytest.approx((-1.5, 1.5))
    assert trained_bounds(Positive(), ValueRange(1.0, 100.0)) == pytest.approx((100**-0.1, 100**1.1))
    assert trained_bounds(Positive(), ValueRange(1e-9, 1e9)) == pytest.approx((1e-9 / 3, 3e9))


RANGES = ranges_of(FUNCTION.schema, {name: np.linspace(-3, 3, 400).reshape(20, 20) for name in ("x", "y")})
RANGED = Record(**{**FUNCTION_RECORD.__dict__, "ranges": RANGES})


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_networks_say_it_wherever_data_come_in(backend):
    pytest.importorskip("pyro")
    pytest.importorskip("numpyro")
    net, given = network(FUNCTION, backend, RANGED), data(FUNCTION, context=False)
    point = {"x": np.zeros((3, 4)), "y": np.zeros((3, 4))}
    inputs, value = array(backend, given.inputs), given.value.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.observe(inputs, array(backend, value))
    value[1, 2] = 999
    with pytest.warns(FindingWarning, match=r"^value\['y'\]: 999 in data set 1 of 3 looks like a code") as said:
        net.observe(inputs, array(backend, value))
    (one,) = said
    assert one.filename == __file__
    assert (one.message.finding.kind, one.message.finding.parameter) == ("outside_range", "y")
    assert one.message.finding.share == pytest.approx(1 / value.size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.observe(inputs, array(backend, value), trial_mask=array(backend, value < 999))
        joint_predictive(FUNCTION, backend, {"x": np.full((3, 7), 7.0)}, net, outside="ignore")
    with pytest.warns(
        FindingWarning, match=r"^inputs\['x'\]: 21 values in all 3 data sets, such as 7, lie outside"
    ) as said:
        joint_predictive(FUNCTION, backend, {"x": np.full((3, 7), 7.0)}, net)
    assert said[0].filename.endswith("tests/networks.py")
    point["x"][2] = -7
    with pytest.warns(FindingWarning, match=r"^context\['x'\]: 4 values in data set 2 of 3, such as -7, lie outside"):
        net.encode(array(backend, point))


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_outcomes_are_looked_at_where_they_are_scored(backend):
    pytest.importorskip("pyro")
    pytest.importorskip("numpyro")
    given, value = data(FUNCTION, context=False), np.zeros((3, 7), np.float32)
    value[2, 1] = -999
    net = network(FUNCTION, backend, RANGED)

    def score(mu, **more):
        distribution = joint_predictive(FUNCTION, backend, given.inputs, net, params={"mu": mu}, **more)
        return distribution.log_prob(value if backend == "jax" else array(backend, value))

    if backend == "jax":
        import jax

        # A sampler traces the density of numbers that it has at hand.
        run = jax.eval_shape
    else:

        def run(function, mu):
            return function(mu)

    with pytest.warns(FindingWarning, match=r"^value\['y'\]: -999 in data set 2 of 3 looks like a code"):
        run(partial(score, validate_args=True), 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(partial(score, outside="ignore"), 0.0)


def test_feedback_of_an_environment_is_looked_at():
    pytest.importorskip("pyro")
    ranges = {
        "rt": ValueRange(0.1, 9.0, ((0.5, 1.0),), (0.5, 2.0), (0.1, 2.0)),
        "reward": ValueRange(0.0, 1.0, values=(0.0, 1.0), shares=(0.5, 0.5)),
    }
    net, given = network(LEARNING, "torch", Record({}, {}, 9, 0, "none", ranges=ranges)), data(LEARNING)

    def cents(trial, inputs, outcomes, uniform):
        return {"reward": 100.0 + 0 * outcomes["choice"]}

    distribution = joint_predictive(LEARNING, "torch", given.inputs, net, params=given.params, environment=cents)
    with pytest.warns(FindingWarning, match=r"^environment\['reward'\]: holds 100 in all 3 data sets, but"):
        distribution.sample_with_feedback()
    with pytest.warns(FindingWarning, match=r"^environment\['reward'\]: .* trained on 0, 1 alone"):
        draws = {name: np.broadcast_to(x, (2, 3)) for name, x in given.params.items()}
        posterior_predictive(net, given.inputs, draws, environment=cents, progress=False)

    # As outcomes that a distribution is conditioned on are.
    first, feedback = given.value[:, :4].copy(), {"reward": 0 * given.feedback["reward"]}
    first[1, 2, 1] = 99
    known = joint_predictive(LEARNING, "torch", given.inputs, net, params=given.params, feedback=feedback)
    with pytest.warns(FindingWarning, match=r"^value\['rt'\]: 99 in data set 1 of 3 looks like a code"):
        known.condition(array("torch", first))


def test_the_number_of_trials_matters_where_trials_depend_on_each_other():
    pytest.importorskip("pyro")
    backend = "torch"
    net, given = network(DECISION, backend, Record({}, {}, 5, 5, "none")), data(DECISION, context=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.observe(array(backend, given.inputs), array(backend, given.value))
        joint_predictive(DECISION, backend, given.inputs, net, params=given.params)
        # Padding counts for nothing.
        mask = np.arange(7) < np.array([[5], [4], [5]])
        joint_predictive(DECISION, backend, given.inputs, net, trial_mask=mask)
        draws = {name: np.broadcast_to(x, (2, 3)) for name, x in given.params.items()}
        posterior_predictive(net, given.inputs, draws, progress=False)
    del given.params["drift"], draws["drift"]
    with pytest.warns(UserWarning, match="trials: 7 trials, .* at most 5"):
        posterior_predictive(net, given.inputs, draws, progress=False)
    with pytest.warns(UserWarning, match="trials: 7 trials, .* at most 5"):
        joint_predictive(DECISION, backend, given.inputs, net, params=given.params)


def test_each_part_of_a_network_has_data_of_its_own():
    """A direct likelihood may have seen rewards of -1 and 1, and the transformer beside it not."""
    net = checkpoint.load("noisy_q", backend="torch")
    plain = {**net.record.ranges, "reward": checkpoint.load("rlddm", backend="torch").record.ranges["reward"]}
    net.record = replace(net.record, ranges=plain, likelihood_ranges=net.record.ranges)
    assert net.preferred_likelihood == "direct"
    data = drawn("noisy_q")
    params = {name: np.array([[0.3]], dtype=np.float32) for name in net.schema.params}
    inputs, feedback = {"pair": data["pair"][:1]}, {"reward": 2 * data["reward"][:1] - 1}

    def said(given, **more):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Query.build(net, *more.pop("data", (inputs,)), params=given, **more)
        return [warning.message.finding.parameter for warning in caught if isinstance(warning.message, FindingWarning)]

    some = {"alpha": params["alpha"]}
    assert not said(params, feedback=feedback)
    assert said(params, feedback=feedback, likelihood="buffer") == said(some, feedback=feedback) == ["reward"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = net.observe(inputs, data["choice"][:1], feedback=feedback)
    assert not said(params, data=(seen,)) and said(some, data=(seen,)) == ["reward"]
    with pytest.warns(FindingWarning, match="reward"):
        net.observe(inputs, data["choice"][:1], feedback=feedback, likelihood="buffer")
    assert net.record.familiar(True)["reward"].values == (-1, 0, 1)
    again = TrainingRecord.from_dict(net.record.to_dict())
    assert again.likelihood_ranges == net.record.likelihood_ranges != again.ranges == net.record.ranges
