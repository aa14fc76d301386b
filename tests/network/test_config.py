import json
import math
from dataclasses import replace

import numpy as np
import pytest

from ppl_buffer.network.config import Config, feature_size, head_size, parts_of, state_widths, weight_shapes
from ppl_buffer.schema import Categorical, Integer, Interval, Positive, Real, Schema

# Every size a different prime where it can be one, so that no transposed or mixed-up shape goes unnoticed.
CONFIG = Config(
    width=22, depth=3, heads=11, mlp=17, components=5, param_depth=2, contextual_positions=7, likelihood_width=26
)
SCHEMA = {
    "params": {"alpha": Interval(0, 1), "beta": Positive()},
    "inputs": {"stimulus": Categorical(13), "contrast": Real()},
    "outcomes": {"choice": Categorical(3), "rt": Positive(), "confidence": Interval(0, 1)},
    "feedback": {"reward": Real()},
}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 0}, "width: expected an integer of at least 1, got 0"),
        ({"depth": -1}, "depth: expected an integer of at least 0, got -1"),
        ({"depth": 0, "likelihood_width": 0}, "depth: expected at least 1 without a direct likelihood"),
        ({"heads": 2.0}, "heads: expected an integer of at least 1, got 2.0"),
        ({"mlp": "128"}, "mlp: expected an integer of at least 1, got '128'"),
        ({"components": True}, "components: expected an integer of at least 1, got True"),
        ({"param_depth": None}, "param_depth: expected an integer of at least 1, got None"),
        ({"contextual_positions": -1}, "contextual_positions: expected an integer of at least 0, got -1"),
        ({"asinh_scales": True}, "asinh_scales: expected an integer of at least 0, got True"),
        ({"likelihood_slots": 1}, "likelihood_slots: expected True or False, got 1"),
        ({"head": "gamma"}, r"head: expected one of \['normal', 'logistic'\], got 'gamma'"),
        ({"width": 30, "heads": 4}, "heads: expected a divisor of width=30, got 4"),
        ({"depth": 2, "param_depth": 3}, "param_depth: expected at most depth=2, got 3"),
    ],
)
def test_refuses(sizes, message):
    with pytest.raises(ValueError, match=message):
        Config(**sizes)


def test_survives_json():
    assert Config.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG


def test_feature_and_head_sizes():
    assert feature_size({}, CONFIG) == 0
    assert feature_size(SCHEMA["inputs"], CONFIG) == 13 + 1
    assert feature_size(SCHEMA["inputs"], replace(CONFIG, asinh_scales=5)) == 13 + 1 + 5
    places = {"east": Real(frequencies=7), "north": Real(frequencies=(0.5, 2.0, 9.0))}
    assert feature_size(places, replace(CONFIG, asinh_scales=5)) == 2 * (1 + 5) + 2 * 7 + 2 * 3
    assert head_size(Categorical(3), CONFIG) == 3
    assert head_size(Positive(), CONFIG) == head_size(Integer(0, 100), CONFIG) == 3 * 5
    assert feature_size({"level": Integer(0, 100)}, replace(CONFIG, asinh_scales=2)) == 3


def test_shapes_of_an_ordered_network():
    shapes = weight_shapes(Schema(**SCHEMA, ordered=True), CONFIG)
    expected = {
        "embed.target.hidden.weight": (17, 14),  # inputs
        "embed.pair.hidden.weight": (17, 14 + 5 + 1),  # inputs, outcomes, feedback
        "embed.pair.out.weight": (22, 17),
        "embed.param.beta.hidden.weight": (17, 1),
        "role.param": (22,),
        "layers.2.key_value.weight": (44, 22),
        "layers.2.null_key": (11, 2),
        "layers.2.counter.weight": (7, 22),
        "layers.2.slope.bias": (11 * 8,),  # each counter, and the count of trials
        "heads.choice.hidden.weight": (17, 22),
        "heads.choice.out.bias": (3,),
        "heads.rt.hidden.weight": (17, 22 + 3),  # told the choice
        "heads.confidence.hidden.weight": (17, 22 + 3 + 1),  # told the choice and the response time
        "heads.confidence.out.weight": (15, 17),
        "likelihood.params.hidden.weight": (13, 2),
        "likelihood.trial.pair.weight": (26, 14 + 5 + 1 + 13 * 3),  # and each combination of stimulus and choice
        "likelihood.trial.params.weight": (26, 13),
        "likelihood.recurrent.input.weight": (3 * 7, 26),  # 19 of 26 units are kept for each stimulus
        "likelihood.recurrent.state.weight": (3 * 7, 7),
        "likelihood.slots.input.weight": (3 * 19, 26 + 7),  # told the common state
        "likelihood.slots.state.weight": (3 * 19, 19),
        "likelihood.read.trial.weight": (26, 26 + 14),  # state, inputs
        "likelihood.read.scale.weight": (26, 13),
        "likelihood.heads.rt.hidden.weight": (26, 26 + 3),  # told the choice
        "likelihood.heads.choice.out.weight": (3, 26),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert not any(name.startswith("layers.3.") for name in shapes)
    # A shape for every affine map's weight and bias, every norm, role and null token; a name used twice would be lost.
    perceptrons, layer, direct = 2 + 2 + 3, 2 * (2 + 3 + 2 + 2) + 2, 4 * (1 + 3) + 2 * (2 + 2 + 2 + 3)
    assert len(shapes) == 4 * perceptrons + 4 + 3 * layer + 2 + direct


def test_an_exchangeable_network_has_no_counters_and_is_the_ordered_one_otherwise():
    ordered = weight_shapes(Schema(**SCHEMA, ordered=True), CONFIG)
    exchangeable = weight_shapes(Schema(**SCHEMA), CONFIG)
    rest = {
        name
        for name in ordered
        if ".counter." not in name and ".slope." not in name and not name.startswith("likelihood.")
    }
    assert exchangeable == {name: ordered[name] for name in rest}
    direct = [name for name in ordered if name.startswith("likelihood.")]
    assert len(rest) == len(ordered) - 3 * 4 - len(direct)


def test_independent_trials_have_no_recurrent_state():
    shapes = weight_shapes(Schema(**SCHEMA, independent=True), CONFIG)
    direct = {name for name in shapes if name.startswith("likelihood.")}
    assert not any(name.startswith(("likelihood.recurrent.", "likelihood.trial.")) for name in direct)
    assert shapes["likelihood.read.trial.weight"] == (26, 14)  # inputs
    assert shapes["likelihood.layers.1.weight"] == (26, 26)
    alone = weight_shapes(Schema(**SCHEMA, independent=True), replace(CONFIG, depth=0))
    assert set(alone) == direct


def test_trials_that_depend_on_each_other_without_an_order_have_no_direct_likelihood():
    assert parts_of(Schema(**SCHEMA), CONFIG) == ("buffer",)
    with pytest.raises(ValueError, match="config: expected depth of at least 1"):
        weight_shapes(Schema(**SCHEMA), replace(CONFIG, depth=0))


def test_a_schema_without_inputs_still_has_a_target():
    shapes = weight_shapes(Schema(outcomes={"y": Real()}), CONFIG)
    assert shapes["embed.target.hidden.weight"] == (17, 1)
    assert shapes["embed.pair.hidden.weight"] == (17, 1)
    assert not any(name.startswith("embed.param.") for name in shapes)


@pytest.mark.parametrize("ordered", [False, True])
def test_the_torch_network_is_made_of_exactly_these_weights(ordered):
    pytest.importorskip("torch")
    from ppl_buffer.network.torch.weights import TorchNetwork

    schema = Schema(**SCHEMA, ordered=ordered)
    net = TorchNetwork(schema, CONFIG, {name: (0.0, 1.0) for group in SCHEMA.values() for name in group})
    state = {name: tuple(weight.shape) for name, weight in net.state_dict().items()}
    assert state == weight_shapes(schema, CONFIG)
    count = sum(math.prod(shape) for shape in state.values())
    assert count == sum(weight.numel() for weight in net.parameters())


def test_names_that_torch_modules_use_themselves_are_legal_names_of_variables():
    torch = pytest.importorskip("torch")
    from ppl_buffer.network.torch.weights import TorchNetwork

    schema = Schema(params={"half": Real(), "forward": Real()}, outcomes={"type": Real()})
    net = TorchNetwork(schema, CONFIG, dict.fromkeys(("half", "forward", "type"), (0.0, 1.0))).to(torch.float64).eval()
    state = {name: tuple(weight.shape) for name, weight in net.state_dict().items()}
    assert state == weight_shapes(schema, CONFIG)
    assert {weight.dtype for weight in net.weights.values()} == {torch.float64}
    assert all(np.isfinite(weight.detach().numpy()).all() for weight in net.weights.values())


@pytest.mark.parametrize(
    ("inputs", "more", "expected"),
    [
        ({"cue": Categorical(3)}, {}, (7, 20, 3)),
        ({"cue": Categorical(3), "side": Categorical(5)}, {}, (7, 20, 15)),
        ({"cue": Categorical(3), "contrast": Real()}, {"likelihood_slots": False}, (27, 0, 0)),
        ({"cue": Categorical(17)}, {}, (27, 0, 0)),
        ({"contrast": Real()}, {}, (27, 0, 0)),
        ({"cue": Categorical(3)}, {"likelihood_width": 1}, (1, 0, 0)),
        ({"cue": Categorical(3)}, {"likelihood_width": 2}, (1, 1, 3)),
    ],
)
def test_units_of_the_recurrent_state(inputs, more, expected):
    schema = Schema(inputs=inputs, outcomes={"choice": Categorical(2)}, ordered=True)
    assert state_widths(schema, replace(CONFIG, **{"likelihood_width": 27, **more})) == expected


def test_what_was_so_before_there_was_a_choice_is_not_named():
    """Files and digests of networks that need nothing new stay what they were."""
    assert not {"head", "buffer_rank", "buffer_apart"} & CONFIG.to_dict().keys()
    logistic = replace(CONFIG, head="logistic")
    assert logistic.to_dict() == {**CONFIG.to_dict(), "head": "logistic"}
    assert Config.from_dict(json.loads(json.dumps(logistic.to_dict()))) == logistic


def test_files_of_earlier_versions_have_one_state():
    description = CONFIG.to_dict()
    del description["likelihood_slots"]
    assert Config.from_dict(description) == replace(CONFIG, likelihood_slots=False)
