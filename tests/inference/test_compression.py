"""Compressed trials come back, in about as many bits as the network's log probability says, or are refused."""

import math
from dataclasses import replace

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer.inference.arithmetic_coding import TOTAL, Decoder, Encoder
from ppl_buffer.inference.compression import code_length
from ppl_buffer.schema import Categorical, Discrete, Positive, Schema, split_value, stack_value
from tests.networks import (
    CONTAMINATED,
    DISCRIMINATION,
    FUNCTION,
    HABIT,
    RESPONDING,
    TINY,
    Case,
    array,
    data,
    joint_predictive,
    network,
)

RATING = Case(
    "rating",
    Schema(inputs={"side": Categorical(2)}, outcomes={"rating": pb.Integer(-3, 7), "sure": Categorical(3)}),
    config=TINY,
)
COUNT = Case("count", Schema(outcomes={"count": pb.Integer(0, 65_536)}), config=TINY)
STEP = 0.125
MASK = np.array([[True, False, True, True, True, False, True], [True] * 7, [False, True] + [True] * 5])


def given_of(case, parameters="all", trials=7):
    """Data whose continuous outcomes are multiples of `STEP`, and the arguments that both directions take."""
    given = data(case, trials=trials)
    columns = {
        name: x if isinstance(case.schema.outcomes[name], Discrete) else np.ceil(x / STEP) * STEP
        for name, x in split_value(case.schema, given.value).items()
    }
    given.value = stack_value(np, case.schema, columns)
    told = dict(list(given.params.items())[: len(given.params) if parameters == "all" else 1])
    arguments = {"params": told, "context": given.context}
    if case.schema.feedback:
        arguments["feedback"] = given.feedback
    steps = {name: STEP for name, x in case.schema.outcomes.items() if not isinstance(x, Discrete)}
    return given, arguments, {"resolution": steps} if steps else {}


def round_trip(case, backend, parameters="all", **more):
    given, arguments, resolution = given_of(case, parameters)
    net, arguments = network(case, backend), arguments | more
    code = pb.compress(net, given.inputs, given.value, **arguments, **resolution)
    back = pb.decompress(net, given.inputs, code, **arguments)
    expected = given.value.astype(float)
    if "trial_mask" in more:
        expected[~more["trial_mask"]] = np.nan
    np.testing.assert_array_equal(back, expected)
    return code


@pytest.mark.parametrize(
    ("case", "parameters", "more"),
    [
        pytest.param(RESPONDING, "all", {"trial_mask": MASK, "context": None}, id="state, holes"),
        pytest.param(RESPONDING, "first", {"trial_mask": MASK, "context": None}, id="ordered buffer, holes"),
        pytest.param(HABIT, "all", {"context": None}, id="no parameters"),
        pytest.param(DISCRIMINATION, "all", {"context": None}, id="independent"),
        pytest.param(CONTAMINATED, "all", {}, id="context, feedback, known lapses"),
        pytest.param(RATING, "all", {}, id="integers"),
    ],
)
def test_what_went_in_comes_out(case, parameters, more):
    round_trip(case, "torch", parameters, **more)


@pytest.mark.parametrize(
    ("case", "parameters"),
    [pytest.param(RESPONDING, "all", id="state", marks=pytest.mark.slow), pytest.param(FUNCTION, "first", id="buffer")],
)
@pytest.mark.usefixtures("quick_compilation")
def test_in_jax_too(case, parameters):
    more = {} if case is FUNCTION else {"context": None}
    round_trip(case, "jax", parameters, **more)


def test_without_a_batch_and_with_values_that_inputs_do_not_have_a_batch_for():
    schema = Schema(params={"mu": pb.Real()}, outcomes={"key": Categorical(5)})
    case = Case("keys", schema, config=TINY)
    value = np.random.default_rng(2).integers(0, 5, (3, 11))
    code = pb.compress(network(case, "torch"), {}, value)
    np.testing.assert_array_equal(pb.decompress(network(case, "torch"), {}, code), value)
    one = pb.compress(network(case, "torch"), {}, value[0], params={"mu": 0.3})
    np.testing.assert_array_equal(pb.decompress(network(case, "torch"), {}, one, params={"mu": 0.3}), value[0])


@pytest.mark.parametrize(
    "given", ["all parameters, direct", pytest.param("all parameters, buffer", marks=pytest.mark.slow), "none"]
)
def test_length_is_minus_log2_of_the_probability(given):
    """Of 400 choices of a learner: within 0.01 bits a trial."""
    net, simulator, rng = pb.load("noisy_q", backend="torch"), pb.simulators.NoisyQ(), np.random.default_rng(5)
    params = {name: np.array([x]) for name, x in {"alpha": 0.3, "beta": 3.0, "kappa": 0.4, "zeta": 0.2}.items()}
    inputs = simulator.inputs(rng, 1, 400)
    sets = simulator.simulate(rng, params, inputs)
    choice, feedback = sets["choice"].astype("f4"), {"reward": sets["reward"].astype("f4")}
    part = "direct" if given.endswith("direct") else "buffer"
    told = None if given == "none" else {name: x.astype("f4") for name, x in params.items()}
    code = pb.compress(net, inputs, choice, params=told, feedback=feedback, likelihood=part)
    np.testing.assert_array_equal(pb.decompress(net, inputs, code, params=told, feedback=feedback), choice)
    joint = joint_predictive(
        None, "torch", inputs, net, params=told, feedback=feedback, likelihood=part, outside="ignore"
    )
    exact = -float(joint.log_prob(array("torch", choice))[0]) / math.log(2)
    assert -0.01 < (code_length(code) - exact) / 400 < 0.01
    assert code_length(code) < 400 and len(code) * 8 < code_length(code) + 8 * 60


def test_damaged_and_foreign_streams_are_refused():
    given, arguments, _ = given_of(HABIT)
    arguments["context"] = None
    net, rng = network(HABIT, "torch"), np.random.default_rng(1)
    code = pb.compress(net, given.inputs, given.value, **arguments)
    for place in rng.integers(0, len(code), 25):
        damaged = bytearray(code)
        damaged[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(ValueError, match="^data: expected"):
            pb.decompress(net, given.inputs, bytes(damaged), **arguments)
    for other in (b"", code[:-1], code + b"\0", b"PK" + code, "text", None):
        with pytest.raises(ValueError, match="^data: expected"):
            pb.decompress(net, given.inputs, other, **arguments)
        with pytest.raises(ValueError, match="^data: expected"):
            code_length(other)
    other = replace(HABIT, config=replace(HABIT.config, likelihood_slots=False))
    with pytest.raises(ValueError, match="^net: expected the network that compressed"):
        pb.decompress(network(other, "torch"), given.inputs, code, **arguments)
    with pytest.raises(ValueError, match="^net: expected the network that compressed"):
        pb.decompress(network(FUNCTION, "torch"), {"x": given.inputs["cue"]}, code)
    with pytest.raises(ValueError, match="^net: expected it in torch"):
        pb.decompress(network(HABIT, "jax"), given.inputs, code, **arguments)
    with pytest.raises(ValueError, match="^inputs, params, .*: expected what the data were compressed with"):
        pb.decompress(net, {"cue": (given.inputs["cue"] + 1) % 4}, code, **arguments)
    with pytest.raises(ValueError, match=r"^inputs\['cue'\]: expected 7 trials"):
        pb.decompress(net, {"cue": given.inputs["cue"][:, :5]}, code, **arguments)


def test_other_last_digits_are_noticed(monkeypatch):
    """A decoder on another kind of machine has them; here one with other weights that claims to be the network."""
    given, _, _ = given_of(HABIT)
    code = pb.compress(network(HABIT, "torch"), given.inputs, given.value)
    imitation = network(replace(HABIT, name="imitation"), "torch")
    monkeypatch.setattr(type(imitation), "digest", network(HABIT, "torch").digest)
    with pytest.raises(ValueError, match="^data: expected the numbers that compressed them"):
        pb.decompress(imitation, given.inputs, code)


@pytest.mark.parametrize(
    ("case", "more", "message"),
    [
        (FUNCTION, {}, r"resolution: expected a step for each continuous outcome, \['y'\]"),
        (FUNCTION, {"resolution": {"y": 0.0}}, r"resolution\['y'\]: expected a number above 0"),
        (FUNCTION, {"resolution": {"y": 1e-7}}, r"resolution\['y'\]: expected a step with at most 65536 multiples"),
        (FUNCTION, {"resolution": {"y": 0.1, "x": 0.1}}, "resolution: expected a step for each continuous"),
        (HABIT, {"resolution": {"key": 1.0}}, r"resolution: expected a step for each continuous outcome, \[\]"),
        (
            DISCRIMINATION,
            {"resolution": {"rt": 100.0}},
            r"resolution\['rt'\]: expected a step whose multiples are legal",
        ),
        (CONTAMINATED, {"resolution": {"rt": 0.1}}, "feedback: expected"),
        (HABIT, {"value": np.full((3, 7, 2), 9.0)}, r"value\['key'\]: "),
        (
            HABIT,
            {"value": np.zeros((7, 2))},
            r"value: expected the batch shape \(3,\) of everything that is given, got",
        ),
        (COUNT, {"value": np.zeros((3, 7))}, "value: expected outcomes of at most 65536 values"),
    ],
)
def test_refuses(case, more, message):
    given = data(case, context=False)
    arguments = {"value": given.value, **more}
    with pytest.raises(ValueError, match=f"^{message}"):
        pb.compress(network(case, "torch"), given.inputs, **arguments)


def test_codes_of_whole_numbers():
    """Against the entropy of known shares, the rarest of 2^-32."""
    rng, shares = np.random.default_rng(7), np.array([1, 2**20, 3 * 2**28, TOTAL // 3])
    bounds = np.concatenate([[0], shares.cumsum(), [TOTAL]])
    p = np.diff(bounds) / TOTAL
    symbols = np.concatenate([rng.choice(5, 2_003, p=p), [0, 0, 0, 1]])
    encoder = Encoder()
    for symbol in symbols:
        encoder.encode(int(bounds[symbol]), int(bounds[symbol + 1]))
    code, bits = encoder.finish()
    assert 0 <= bits + np.log2(p[symbols]).sum() < 2.01 and len(code) == math.ceil(bits / 8)
    decoder = Decoder(code)
    assert [decoder.decode(bounds) for _ in symbols] == symbols.tolist()


def test_a_narrow_bin_has_its_density_times_its_width():
    case = Case("time", Schema(params={"mu": pb.Real()}, outcomes={"rt": Positive()}, independent=True), config=TINY)
    value = np.round(np.random.default_rng(3).lognormal(0, 0.3, (1, 300)), 3)
    net, params = network(case, "torch"), {"mu": np.array([0.2], "f4")}
    code = pb.compress(net, {}, value, params=params, resolution={"rt": 0.001})
    joint = joint_predictive(case, "torch", {}, trials=300, params=params)
    below, above = (joint.pit(array("torch", (value + side).astype("f4"))).numpy().astype(float)
                    for side in (-0.0005, 0.0005))  # fmt: skip
    # The first and the last bin have all that lies beyond.
    shares = np.where(value == value.max(), 1.0, above) - np.where(value == value.min(), 0.0, below)
    assert abs(code_length(code) + np.log2(shares).sum()) / 300 < 0.01
    inside = (value < value.max()) & (value > value.min())
    densities = joint.conditionals(array("torch", value.astype("f4"))).exp().numpy()
    np.testing.assert_allclose(shares[inside], 0.001 * densities[inside], rtol=0.01)
