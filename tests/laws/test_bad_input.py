"""Bad input is refused with a message that names the argument; values that cannot be have no density."""

import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

from ppl_buffer.predictive import density
from tests.laws.cases import BACKENDS, numbers, observed, scored
from tests.networks import FUNCTION, LAPSELESS, LEARNING, SLIDER, array, data, joint_predictive, network, rollout

pytestmark = pytest.mark.usefixtures("quick_compilation")


def learner(**changes):
    """Build a distribution of the learner with some arguments changed; `inputs.pair` reaches into the dict."""

    def call(backend):
        given = data(LEARNING)
        arguments = {"inputs": given.inputs, "params": given.params, "feedback": given.feedback}
        for key, value in changes.items():
            group, _, name = key.partition("__")
            if name:
                arguments[group] = {**arguments[group], name: value}
            else:
                arguments[group] = value
        inputs = arguments.pop("inputs")
        return joint_predictive(LEARNING, backend, inputs, **arguments)

    return call


def function(method=None, **changes):
    """The same of the random function, and a method of the result."""

    def call(backend):
        given = data(FUNCTION)
        arguments = given.arguments(**changes)
        inputs = arguments.pop("inputs", given.inputs)
        arguments["trials"] = changes.get("trials")
        made = joint_predictive(FUNCTION, backend, inputs, **arguments)
        return method(made, array(backend, given.value)) if method else made

    return call


def observing(case=LEARNING, **changes):
    def call(backend):
        given = data(case)
        value = changes.get("value", given.value)
        inputs = changes.get("inputs", given.inputs)
        rest = {key: x for key, x in changes.items() if key not in ("value", "inputs")}
        return network(case, backend).observe(inputs, value, **{"feedback": given.feedback, **rest})

    return call


def encoding(case=FUNCTION, **changes):
    return lambda backend: network(case, backend).encode({**(data(case).context or {}), **changes})


def with_one(shape, value, fill=0.0):
    x = np.full(shape, fill, np.float32)
    x.flat[0] = value
    return x


BAD_INPUT = {
    "net": (lambda b: joint_predictive(FUNCTION, b, {"x": np.ones((3, 7))}, net="noisy"), "net: expected a network"),
    "net of the other backend": (
        lambda b: joint_predictive(FUNCTION, b, {}, net=network(FUNCTION, "jax" if b == "torch" else "torch")),
        r"net: expected a network loaded with backend=",
    ),
    "inputs no dict": (learner(inputs=np.ones((3, 7))), "inputs: expected a dict|inputs: expected"),
    "inputs missing": (learner(inputs={"pair": np.zeros((3, 7))}), r"inputs: expected .*missing \['delay'\]"),
    "inputs unknown": (learner(inputs__extra=np.zeros((3, 7))), r"inputs: expected .*unknown \['extra'\]"),
    "inputs scalar": (learner(inputs__delay=1.0), r"inputs\['delay'\]: expected shape"),
    "inputs of other length": (learner(inputs__delay=np.zeros((3, 6))), r"inputs\['delay'\]: expected 7 trials.*6"),
    "inputs not numbers": (learner(inputs__delay=np.array([["a"] * 7])), r"inputs\['delay'\]: expected an array"),
    "inputs complex": (learner(inputs__delay=np.ones((3, 7)) * 1j), r"inputs\['delay'\]: expected .*complex"),
    "inputs NaN": (learner(inputs__delay=with_one((3, 7), np.nan)), r"inputs\['delay'\]: expected .*got nan \(1 of 21"),
    "category too high": (learner(inputs__pair=with_one((3, 7), 3)), r"inputs\['pair'\]: .*from 0 to 2, got 3.0"),
    "category between": (learner(inputs__pair=with_one((3, 7), 0.5)), r"inputs\['pair'\]: .*integer.*got 0.5"),
    "coded -1 and 1": (
        learner(inputs__pair=with_one((3, 7), -1, 1.0)),
        r"inputs\['pair'\]: .*got -1.0.*recoded as 0 and 1",
    ),
    "no trials": (learner(inputs={"pair": np.zeros((3, 0)), "delay": np.zeros((3, 0))}), "trials: expected at least 1"),
    "trials 0": (function(trials=0), "trials: expected at least 1 trial, got 0"),
    "trials not told": (lambda b: joint_predictive(SLIDER, b, {}), "trials: expected a number.*None"),
    "trials beside inputs": (function(trials=6), r"inputs\['x'\]: expected 6 trials"),
    "params no dict": (learner(params=np.ones(3)), "params: expected a dict"),
    "params unknown": (learner(params__gamma=np.ones(3)), r"params: expected any of .*unknown \['gamma'\]"),
    "params NaN": (learner(params__beta=with_one(3, np.nan, 1.0)), r"params\['beta'\]: expected .*got nan"),
    "params negative": (learner(params__beta=np.array([1.0, 2.0, -0.5])), r"params\['beta'\]: .*above 0.*-0.5"),
    "params beyond an open bound": (
        learner(params__alpha=np.array([0.0, 0.5, -1e-9])),
        r"params\['alpha'\]: .*\(0, 1\)",
    ),
    "params out of a closed one": (learner(params__zeta=np.array([0.0, 1.0, 1.1])), r"params\['zeta'\]: .*\[0, 1\]"),
    "params not numbers": (learner(params__beta="large"), r"params\['beta'\]: expected an array of numbers"),
    "params of other batch": (learner(params__beta=np.ones(4)), r"broadcast.*params\['beta'\] has \(4,\)"),
    "params by trial": (
        learner(params__beta=np.ones((3, 7))),
        r"broadcast.*A parameter has one value a data set: where params\['beta'\] varies by trial, give it as",
    ),
    "feedback missing": (learner(feedback={}), r"feedback: expected \['reward'\].*missing"),
    "feedback NaN": (learner(feedback__reward=with_one((3, 7), np.inf)), r"feedback\['reward'\]: .*finite.*inf"),
    "feedback to score": (
        lambda b: learner(feedback=None)(b).log_prob(array(b, data(LEARNING).value)),
        r"feedback: expected \['reward'\] to compute a density.*none",
    ),
    "environment": (learner(environment=0.3), "environment: expected a function, got float"),
    "environment to draw": (
        lambda b: rollout(b, learner()(b), np.zeros((3, 7, 6))),
        r"environment: expected a function that gives \['reward'\].*None",
    ),
    "trial_mask of integers": (learner(trial_mask=np.ones((3, 7), int)), "trial_mask: expected booleans.*int"),
    "trial_mask of other length": (learner(trial_mask=np.ones((3, 6), bool)), r"trial_mask: expected shape.*\(3, 6\)"),
    "lapse above 1": (learner(lapse=1.2), "lapse: expected a probability, got 1.2"),
    "lapse NaN": (learner(lapse=float("nan")), "lapse: expected a probability, got nan"),
    "lapse without a range": (
        lambda b: joint_predictive(LAPSELESS, b, {"x": np.ones((3, 7))}, lapse=0.1),
        r"lapse: expected every outcome.*'y' has none",
    ),  # fmt: skip
    "outside an array": (learner(outside=np.ones((3, 7))), "outside: expected one of"),
    "validate_args": (learner(validate_args=np.ones(3)), "validate_args: expected True or False"),
    "params beyond all numbers": (learner(params__beta=[10**400] * 3), r"params\['beta'\]: expected an array of numb"),
    "expand to nothing": (function(lambda d, v: d.expand((0, 3))), "batch_shape: expected whole numbers of at least 1"),
    "expand to no shape": (function(lambda d, v: d.expand(3)), "batch_shape: expected whole numbers of at least 1"),
    "outside": (learner(outside="clip"), r"outside: expected one of .*'clip'"),
    "context of an ordered model": (learner(context={}), "context: expected none for an ordered model"),
    "orders of an ordered model": (learner(orders=4), "orders: expected none for an ordered model"),
    "block of an ordered model": (learner(block=4), "block: expected none for an ordered model"),
    "orders beyond all use": (function(orders=10**12), "orders: expected at most 100000, got 10+"),
    "orders 0": (function(orders=0), "orders: expected at least 1, got 0"),
    "orders no permutation": (function(orders=np.zeros((2, 7), int)), "orders: expected a number, or permutations"),
    "orders not numbers": (function(orders="all"), "orders: expected a number, or permutations"),
    "block 0": (function(block=0), "block: expected a number of trials of at least 1, got 0"),
    "block a fraction": (function(block=2.5), "block: expected a number of trials of at least 1, got 2.5"),
    "context empty": (function(context={"x": np.ones((3, 0)), "y": np.ones((3, 0))}), "context: expected at least one"),
    "context without outcomes": (function(context={"x": np.ones((3, 2))}), r"context: expected .*missing \['y'\]"),
    "context ragged": (function(context={"x": np.ones((3, 2)), "y": np.ones((3, 4))}), r"context\['y'\]: expected 2"),
    "context NaN": (function(context={"x": np.ones(2), "y": with_one(2, np.nan)}), r"context\['y'\]: .*got nan"),
    "encode": (encoding(y=with_one((3, 5), np.nan)), r"context\['y'\]: expected .*got nan"),
    "encode an ordered model": (encoding(LEARNING), "context: expected none for an ordered model"),
    "value of other length": (
        function(lambda d, v: d.log_prob(v[:, :6])),
        r"value: expected shape .*7.*got \(3, 6\)",
    ),
    "value of other batch": (
        function(lambda d, v: d.conditionals(v[:2])),
        r"value: expected batch dimensions that broadcast.*\(2,\)",
    ),
    "conditionals of orders": (function(lambda d, v: d.conditionals(v), orders=3), "orders: expected None"),
    "pit of orders": (function(lambda d, v: d.pit(v), orders=3), "orders, block: expected None"),
    "pit of NaN": (
        function(lambda d, v: d.pit(v * np.nan)),
        "value: expected a finite real number, got nan",
    ),
    "pit of no category": (
        lambda b: learner()(b).pit(array(b, data(LEARNING).value) - 1),
        r"value\['choice'\]: expected an integer from 0 to 1, got -1",
    ),
    "orders of none": (
        function(lambda d, v: density.log_prob_by_order(d.query, v)),
        "orders: expected a number or permutations",
    ),
    "leave_one_out": (
        lambda b: learner()(b).leave_one_out(array(b, data(LEARNING).value)),
        "leave_one_out: expected an exchangeable model",
    ),
    "condition on everything": (function(lambda d, v: d.condition(v)), "value: expected outcomes of the first 1 to 6"),
    "condition on nothing": (function(lambda d, v: d.condition(v[:, :0])), "value: expected outcomes of the first 1"),
    "condition on NaN": (function(lambda d, v: d.condition(v[:, :2] * np.nan)), "value: expected a finite real number"),
    "condition without feedback": (
        lambda b: learner(feedback=None)(b).condition(array(b, data(LEARNING).value[:, :2])),
        r"feedback: expected \['reward'\] to condition",
    ),
    "values of words": (function(lambda d, v: d.marginals("y")), "value: expected an array of numbers, got str"),
    "condition on a set": (function(lambda d, v: d.condition({0.1})), "value: expected an array of numbers, got set"),
    "expand by a word": (function(lambda d, v: d.expand("ab")), "batch_shape: expected whole numbers.*'ab'"),
    "expand by a fraction": (function(lambda d, v: d.expand((2.5, 3))), "batch_shape: expected whole numbers"),
    "mask of none": (
        function(lambda d, v: d.mask(None)),
        "mask: expected a boolean.*, got None",
    ),
    "observe without feedback": (observing(feedback=None), r"feedback: expected \['reward'\] to observe"),
    "observe feedback that is no dict": (observing(feedback=np.ones((3, 7))), "feedback: expected a dict of name to"),
    "observe masked values": (
        observing(FUNCTION, value=np.ma.masked_greater(data(FUNCTION).value, 0)),
        "value: expected an array of numbers, got MaskedArray .*trial_mask says which trials exist",
    ),
    "observe NaN": (observing(value=data(LEARNING).value * np.nan), r"value\['choice'\]: expected an integer.*nan"),
    "observe a negative time": (
        observing(value=data(LEARNING).value * [1, -1]),
        r"value\['rt'\]: expected a number above 0",
    ),
    "observe no trials": (observing(FUNCTION, value=np.ones((3, 0))), "trials: expected at least 1 trial, got 0"),
    "observe other trials": (observing(FUNCTION, value=np.ones((3, 5))), r"inputs\['x'\]: expected 5 trials"),
    "observe one column": (observing(value=np.ones((3, 7, 1))), r"value: expected shape.*\(7, 2\)"),
    "observe no array": (observing(FUNCTION, value="y"), "value: expected an array of numbers"),
    "observe a scalar": (observing(FUNCTION, value=1.0), "value: expected shape"),
    "feedback beside observed data": (
        lambda b: joint_predictive(
            LEARNING, b, observed(LEARNING, b, data(LEARNING)), feedback=data(LEARNING).feedback
        ),
        "feedback: expected none beside observed data",
    ),
    "prior of an untrained network": (lambda b: network(FUNCTION, b).prior(), "net: expected a trained network"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_refused(name, backend):
    call, message = BAD_INPUT[name]
    with pytest.raises(ValueError, match=message):
        call(backend)


def test_values_that_cannot_be_have_no_density():
    given = data(LEARNING)
    value = given.value.copy()
    value[0, 3, 0], value[1, 2, 1], value[2, 6, 1] = 2, -0.3, np.nan
    with pytest.raises(ValueError, match=r"value\[.choice.\]: expected an integer from 0 to 1, got 2.0"):
        scored(LEARNING, "torch", given).log_prob(array("torch", value))
    for backend in BACKENDS:
        distribution = scored(LEARNING, backend, given, validate_args=False)
        found = numbers(distribution.conditionals(array(backend, value)))
        impossible = np.zeros((3, 7), bool)
        impossible[[0, 1, 2], [3, 2, 6]] = True
        np.testing.assert_array_equal(found == -np.inf, impossible)
        assert not np.isnan(found).any()
        assert (numbers(distribution.log_prob(array(backend, value))) == -np.inf).all()


@pytest.mark.parametrize("shape", [2, (0,), (2, -1), (1.5,), "ab", None])
def test_draws_of_no_number(shape):
    with pytest.raises(ValueError, match="sample_shape: expected whole numbers of at least 1 in a tuple, got"):
        function()("torch").sample(shape)
    with pytest.raises(ValueError, match="sample_shape: expected whole numbers of at least 1 in a tuple, got"):
        function()("jax").sample(jax.random.PRNGKey(0), shape)
