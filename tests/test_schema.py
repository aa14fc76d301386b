import itertools
import json
import math

import numpy as np
import pytest
import scipy.special

from ppl_buffer.schema import Categorical, Integer, Interval, Positive, Real, Schema

# Variable, legal values over its whole range, and the unconstrained scale as SciPy has it.
CONTINUOUS = [
    (Real(), np.array([-7.3, -0.2, 0.0, 1.1, 23.0]), lambda y: y),
    (Positive(), np.array([1e-3, 0.21, 1.0, 5.8, 360.0]), np.log),
    (Interval(0, 1), np.array([1e-3, 0.13, 0.5, 0.71, 0.997]), scipy.special.logit),
    (Interval(-3, 7), np.array([-2.99, -1.1, 0.0, 5.3, 6.9]), lambda y: scipy.special.logit((y + 3) / 10)),
    (Interval(0, 1, closed=True), np.array([0.0, 0.13, 0.5, 0.71, 1.0]), lambda y: y),
]
IDS = [repr(variable) for variable, _, _ in CONTINUOUS]

RICH = Schema(
    params={"drift": Real(), "boundary": Positive(), "bias": Interval(0, 1), "noise": Interval(0, 2, closed=True)},
    inputs={"coherence": Real(), "cue": Categorical(5)},
    outcomes={
        "rt": Positive(lapse_range=(0.1, 4)),
        "choice": Categorical(3),
        "confidence": Interval(-1, 1),
        "rating": Integer(-3, 4),
    },
    feedback={"reward": Real()},
    ordered=True,
    lapse_rate=0.02,
)


@pytest.mark.parametrize(("variable", "values", "reference"), CONTINUOUS, ids=IDS)
def test_unconstrain_is_the_textbook_transform_and_constrain_its_inverse(variable, values, reference):
    unconstrained = variable.unconstrain(np, values)
    np.testing.assert_allclose(unconstrained, reference(values), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(variable.constrain(np, unconstrained), values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("variable", "values", "reference"), CONTINUOUS, ids=IDS)
def test_log_slope_is_the_log_of_finite_differences(variable, values, reference):
    step = 1e-6 * np.minimum(np.abs(values) + 1e-3, 1e-2)
    if getattr(variable, "closed", False):
        step = np.full_like(values, 1e-6)
    slope = (reference(values + step) - reference(values - step)) / (2 * step)
    np.testing.assert_allclose(variable.log_slope(np, values), np.log(slope), atol=1e-5)


@pytest.mark.parametrize(("variable", "values", "reference"), CONTINUOUS, ids=IDS)
def test_torch_and_jax_give_the_numbers_and_gradients_of_numpy(variable, values, reference):
    torch = pytest.importorskip("torch")
    jax = pytest.importorskip("jax")
    single = values.astype(np.float32)
    unconstrained = variable.unconstrain(np, single)
    for method, argument in [("unconstrain", single), ("constrain", unconstrained), ("log_slope", single)]:
        expected = getattr(variable, method)(np, argument)
        in_torch = getattr(variable, method)(torch, torch.as_tensor(argument))
        in_jax = getattr(variable, method)(jax.numpy, jax.numpy.asarray(argument))
        assert in_torch.dtype == torch.float32
        assert in_jax.dtype == np.float32
        np.testing.assert_allclose(in_torch.numpy(), expected, rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(in_jax, expected, rtol=2e-6, atol=2e-6)

    leaf = torch.as_tensor(values, dtype=torch.float64).requires_grad_()
    variable.unconstrain(torch, leaf).sum().backward()
    np.testing.assert_allclose(np.log(leaf.grad.numpy()), variable.log_slope(np, values), atol=1e-12)
    slope = jax.vmap(jax.grad(lambda value: variable.unconstrain(jax.numpy, value)))(single)
    np.testing.assert_allclose(np.log(slope), variable.log_slope(np, values), atol=1e-4)


@pytest.mark.parametrize(
    ("variable", "legal", "illegal"),
    [
        (Real(), [-1e30, 0.0], [math.nan, math.inf, -math.inf]),
        (Positive(), [1e-30, 3.0], [0.0, -0.1, math.nan, math.inf]),
        (Interval(-1, 2), [-0.999, 1.999], [-1.0, 2.0, 5.0, math.nan, math.inf]),
        (Interval(-1, 2, closed=True), [-1.0, 2.0], [-1.001, 2.001, math.nan, math.inf]),
        (Categorical(3), [0.0, 1.0, 2.0], [-1.0, 3.0, 0.5, math.nan, math.inf]),
        (Integer(-2, 5), [-2.0, 0.0, 5.0], [-3.0, 6.0, -1.5, math.nan, -math.inf]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("backend", ["numpy", "torch", "jax.numpy"])
def test_contains_tells_legal_from_illegal_values(variable, legal, illegal, backend):
    xp = pytest.importorskip(backend)
    asarray = xp.as_tensor if backend == "torch" else xp.asarray
    answer = variable.contains(xp, asarray(np.array(legal + illegal, dtype=np.float32)))
    assert np.asarray(answer).tolist() == [True] * len(legal) + [False] * len(illegal)


@pytest.mark.parametrize(
    ("call", "argument", "message"),
    [
        (lambda: Real(lapse_range=(1, 1)), "lapse_range", r"expected low < high, got \(1.0, 1.0\)"),
        (lambda: Real(lapse_range=3), "lapse_range", r"expected a pair \(low, high\), got 3"),
        (lambda: Real(lapse_range=(0, math.inf)), "lapse_range", "expected a finite number, got inf"),
        (
            lambda: Positive(lapse_range=(-1, 2)),
            "lapse_range",
            r"expected a range of positive numbers, got \(-1.0, 2.0\)",
        ),
        (lambda: Positive(lapse_range=("fast", "slow")), "lapse_range", "expected a finite number, got 'fast'"),
        (lambda: Real(frequencies=0), "frequencies", "a number of octaves from 1 to 20, or frequencies above 0.*got 0"),
        (lambda: Real(frequencies=64), "frequencies", "octaves from 1 to 20.*got 64"),
        (lambda: Real(frequencies=()), "frequencies", r"got \(\)"),
        (lambda: Real(frequencies="8"), "frequencies", "got '8'"),
        (lambda: Real(frequencies=2.5), "frequencies", "got 2.5"),
        (lambda: Real(frequencies=True), "frequencies", "got True"),
        (lambda: Real(frequencies=(1, -2)), "frequencies", "got -2"),
        (lambda: Real(frequencies=(1, math.inf)), "frequencies", "got inf"),
        (lambda: Real(frequencies=(1, 2, 1)), "frequencies", r"each once, got \(1, 2, 1\)"),
        (lambda: Real(frequencies=[[1, 2]]), "frequencies", r"got \[1, 2\]"),
        (lambda: Schema(outcomes={"y": Real(frequencies=3)}), r"outcomes\['y'\]: frequencies", "none but of an input"),
        (
            lambda: Schema(outcomes={"y": Real()}, feedback={"r": Real(frequencies=(3,))}),
            r"feedback\['r'\]: frequencies",
            "none but of an input",
        ),
        (
            lambda: Schema(params={"a": Real(frequencies=3)}, outcomes={"y": Real()}),
            r"params\['a'\]: frequencies",
            "none but of an input",
        ),
        (lambda: Interval(2, 1), "Interval", r"expected low < high, got \(2.0, 1.0\)"),
        (lambda: Interval(0, math.nan), "Interval", "expected a finite number, got nan"),
        (lambda: Interval(False, 1), "Interval", "expected a finite number, got False"),
        (lambda: Categorical(1), "n", "expected an integer of at least 2, got 1"),
        (lambda: Categorical(2.0), "n", "expected an integer of at least 2, got 2.0"),
        (lambda: Categorical(True), "n", "expected an integer of at least 2, got True"),
        (lambda: Integer(1, 1), "Integer: high", "expected an integer of at least 2, got 1"),
        (lambda: Integer(0.0, 3), "Integer: low", "expected an integer of at least -4194304, got 0.0"),
        (lambda: Integer(0, True), "Integer: high", "expected an integer of at least 1, got True"),
        (lambda: Integer(0, 2**23), "Integer: high", "expected an integer of at most 4194304, got 8388608"),
        (lambda: Schema(params={"k": Integer(0, 3)}, outcomes={"y": Real()}), r"params\['k'\]", "got Integer"),
        (lambda: Schema(), "outcomes", "expected at least one outcome, got none"),
        (lambda: Schema(outcomes=[Real()]), "outcomes", "expected a dict of name to variable, got list"),
        (lambda: Schema(outcomes={"response time": Real()}), "outcomes", "identifiers, .*got 'response time'"),
        (lambda: Schema(outcomes={3: Real()}), "outcomes", "identifiers, .*got 3"),
        (
            lambda: Schema(outcomes={"rt": Real}),
            r"outcomes\['rt'\]",
            "expected Real, Positive, Interval, Integer or Cat",
        ),
        (lambda: Schema(params={"group": Categorical(2)}, outcomes={"y": Real()}), r"params\['group'\]", "Categorical"),
        (lambda: Schema(outcomes={"y": Interval(0, 1, closed=True)}), r"outcomes\['y'\]", "only for parameters"),
        (lambda: Schema(feedback={"y": Real()}, outcomes={"y": Real()}), "names", r"each once .* got \['y'\]"),
        (lambda: Schema(outcomes={"y": Real()}, ordered=True, independent=True), "independent", "expected False"),
        (lambda: Schema(outcomes={"rt": Positive(above="t")}), r"outcomes\['rt'\]: above", r"\[\] .* got 't'"),
        (
            lambda: Schema(params={"t": Real(), "u": Positive(above="t")}, outcomes={"y": Real()}),
            r"params\['u'\]: above",
            "an outcome, got 't'",
        ),
        (lambda: Schema(outcomes={"y": Categorical(2)}, lapse_rate=1.0), "lapse_rate", r"in \[0, 1\), got 1.0"),
        (lambda: Schema(outcomes={"y": Categorical(2)}, lapse_rate=-0.1), "lapse_rate", r"\[0, 1\), got -0.1"),
        (lambda: Schema(outcomes={"y": Categorical(2)}, lapse_rate=math.nan), "lapse_rate", "got nan"),
        (lambda: Schema(outcomes={"y": Categorical(2)}, lapse_rate="5 %"), "lapse_rate", "got '5 %'"),
        (lambda: Schema(outcomes={"y": Real()}, ordered="no"), "ordered", "expected True or False, got 'no'"),
        (lambda: Schema(outcomes={"y": Real()}, ordered=1), "ordered", "expected True or False, got 1"),
        (lambda: Schema(outcomes={"y": Real()}, independent=None), "independent", "True or False, got None"),
        (lambda: Interval(0, 1, closed="no"), "closed", "expected True or False, got 'no'"),
        (lambda: Interval(0, 10**400), "Interval", "expected a finite number, got 1000"),
        (lambda: Positive(lapse_range=0.5), "lapse_range", r"expected a pair \(low, high\), got 0.5"),
        (lambda: Positive(lapse_range=(0, [3])), "lapse_range", r"expected a finite number, got \[3\]"),
        (lambda: Schema(outcomes={"rt": Positive(above=3)}), r"outcomes\['rt'\]: above", "got 3"),
        (lambda: Schema(outcomes={"y": Positive()}, lapse_rate=0.1), "lapse_rate", "'y' has none; write Pos"),
    ],
)
def test_refuses(call, argument, message):
    with pytest.raises(ValueError, match=rf"^(\w+: )?{argument}: .*{message}"):
        call()


def test_survives_json_with_the_order_of_its_variables():
    back = Schema.from_dict(json.loads(json.dumps(RICH.to_dict())))
    assert back == RICH
    for group in ("params", "inputs", "outcomes", "feedback"):
        assert list(getattr(back, group).items()) == list(getattr(RICH, group).items())


def test_frequencies_survive_json_and_leave_no_trace_where_there_are_none():
    time, place = Real(frequencies=(0.5, 8.0)), Real(frequencies=6)
    schema = Schema(inputs={"time": time, "place": place, "cue": Real()}, outcomes={"y": Real()})
    back = Schema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert back == schema and back.inputs["time"] == time and back.inputs["place"] == place
    # Digests of networks from before are those of today.
    assert schema.to_dict()["inputs"][2] == ["cue", {"kind": "Real", "lapse_range": None}]


def test_order_of_outcomes_is_part_of_the_meaning():
    one, two = [Schema(outcomes=dict(order)) for order in itertools.permutations([("a", Real()), ("b", Positive())])]
    assert one.to_dict() != two.to_dict()
    assert one != two


def test_later_changes_of_the_given_dict_do_not_reach_the_schema():
    outcomes = {"rt": Positive()}
    schema = Schema(outcomes=outcomes)
    outcomes["choice"] = Categorical(2)
    assert list(schema.outcomes) == ["rt"]


@pytest.mark.parametrize(
    ("outcomes", "feedback", "tail", "noise"),
    [
        ({"y": Real()}, {}, (), 3),
        ({"y": Real()}, {"reward": Real(), "cue": Real()}, (), 5),
        ({"choice": Categorical(2), "rt": Positive(), "confidence": Real()}, {"reward": Real()}, (3,), 8),
    ],
)
def test_event_shape_and_noise(outcomes, feedback, tail, noise):
    schema = Schema(outcomes=outcomes, feedback=feedback)
    assert schema.event_shape_tail == tail
    assert schema.noise_size == noise


def test_an_integer_is_rounded_to_the_nearest_legal_value():
    variable = Integer(-2, 5)
    drawn = variable.constrain(np, np.array([-1e9, -2.4, -0.6, 1.2, 4.6, 77.0, np.inf]))
    np.testing.assert_array_equal(drawn, [-2, -2, -1, 1, 5, 5, 5])
    assert variable.contains(np, drawn).all() and variable.contains(np, variable.fill) and variable.n == 8


def test_numpy_numbers_are_numbers():
    assert Real(frequencies=np.int64(3)) == Real(frequencies=3)
    assert Real(frequencies=2.0 ** np.arange(3)).frequencies == (1.0, 2.0, 4.0)
    variable = Interval(np.float32(0), np.int64(1), closed=np.bool_(True))
    assert (variable.low, variable.high, variable.closed) == (0.0, 1.0, True)
    schema = Schema(outcomes={"y": Categorical(np.int64(3))}, ordered=np.bool_(True), lapse_rate=np.float32(0.25))
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema and schema.ordered is True
