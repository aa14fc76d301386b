"""The shipped files: the weights that were measured, in the format of today."""

import hashlib
import json

import pytest
from safetensors import safe_open

import ppl_buffer as pb
from ppl_buffer.files import to_numpy
from ppl_buffer.network import checkpoint
from ppl_buffer.network.digest import weights_digest
from ppl_buffer.workflow.recipes import Recipe

# Of the transformers' weights: those of `rlddm` are older than their recipe.
TRANSFORMERS = {
    "collapsing_ddm": "9db24416a7c40680c6bc5a723d9bb8d577af3c93d5fb25427eaeac72a9d8b85c",
    "ddm": "9d0c813940a4afba44e148ff7f5afa9c6ba7a856f626287e5818d67b2a810b40",
    "gp": "4724dc477f92da058c0aba794f739c1cfae6581322b918bbc1b40cac21796bc4",
    "multisensory_rho1": "3d3730d33b61684d73cfca800884c28333ebaf57c8c89ec9b16c58b08151375a",
    "multisensory_rho43": "2362f20eb47935f6394b4c1849fa3525b90f0bf4167741dcb19a63a64b764b91",
    "noisy_q": "93f658acbcd95b26b5e0bc28eb42522bdda2e4b195f825a0f69cc61dafeba1e9",
    "sawtooth": "c18561028dc679e99d081f65d8daae521dd718932ecea8c95313b638dafab5d1",
    "table": "55b9b62317a5509e1466e24d6173fa75af38ffe76641d35403b25296e06ba4c1",
    "rlddm": "97c2ed70c792c818decd04c2dd85a78c892eaf5ae291f451404e1d870d7194a0",
}


# Of all weights of networks that have a direct likelihood too.
DIGESTS = {
    "collapsing_ddm": "1e9953f48d619cabe88baf5680b6d3e710849e6fa6930a78d3d882691b1fc474",
    "ddm": "f87cbe22ee584697e5a643816c67777be2fb2de457109e8a5746384313d4b8ff",
    "multisensory_rho1": "7992a5e9777a47aab4af57f3b0a11a859ac443242ee462582e8af506302e7714",
    "multisensory_rho43": "0ed4f38efdef97c29580d7873c796f68540390e0f4ae83dd93bce3cb8f5fbc43",
    "noisy_q": "ea04ae369b236eff0429141c21ac0caf5ce624154d698fb6552854c8f6e45210",
    "rlddm": "70ecbdc99aefe0ece64686bf7b4c5308693f5b7db6851232c952357266e911b1",
}


# Of networks that have a direct likelihood alone.
ALONE = {
    "two_step": "f32d7addb391d1aaa45bce18e17c454f6d06001c1a76576946d58aa182fb44b9",
    "q_learning": "a51c39e952121917dd0282e95cf248b3405b20e93b3bffe8be66bdfc0353e7bc",
    "angle": "0791ec8408f7b256015b7130ddbb3f9b6a57c8bda7d2e6046cc580ff78215dbd",
    "confidence": "aeb67f0ee854fe05f2d8c5b0110d4340b66787dfba62a3abdb936f1eff5e925b",
    "discounting": "e52dd66e915e3ef511f8b90e8e0181d06d9dc9e74c9c4a356b4149f82d8d4ddf",
    "racing_diffusion": "2942da29a444e4e035a40bd47ccc5c6c86ee3f74fd9d84f171846a50a54a449c",
}


def digest_of(net, part):
    """SHA-256 of the weights of a part, as `weights_digest` takes it of all."""
    sha = hashlib.sha256()
    for name in sorted(net.weights):
        if name.startswith("likelihood.") == (part == "likelihood"):
            sha.update(to_numpy(net.weights[name]).tobytes())
    return sha.hexdigest()


def test_every_shipped_file_is_in_the_table():
    assert set(checkpoint.shipped()) == {*TRANSFORMERS, *ALONE}


@pytest.mark.parametrize("name", ALONE)
def test_weights_of_direct_likelihoods_are_those_that_were_measured(name):
    torch = pytest.importorskip("torch")
    distribution = pytest.importorskip("ppl_buffer.pyro").JointPredictive
    net = pb.load(name, backend="torch")
    assert net.parts == ("likelihood",) and weights_digest(net) == ALONE[name]
    for stage in net.record.stages:
        assert stage.part == "likelihood" and stage.step == stage.steps
    assert net.record.stages and set(net.record.errors) == {"likelihood"}
    entry = next(entry for entry in pb.zoo() if entry.name == name)
    assert entry.parts == ("likelihood",) and "likelihood  " in repr(pb.zoo())
    # Where a parameter is hidden, the error says why there is no answer.
    middle = {parameter: torch.tensor([sum(ends) / 2]) for parameter, ends in net.box.items()}
    whole = pb.Categorical, pb.Integer
    inputs = {
        name: torch.full((1, 3), float(variable.fill) if isinstance(variable, whole) else 0.5)
        for name, variable in net.schema.inputs.items()
    }
    middle.popitem()
    with pytest.raises(ValueError, match="since this network has a direct likelihood alone"):
        distribution(net, inputs, trials=None if inputs else 3, params=middle)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_weights_are_those_that_were_measured(name):
    pytest.importorskip("torch")
    net = pb.load(name, backend="torch")
    assert digest_of(net, "buffer") == TRANSFORMERS[name]
    assert ("likelihood" in net.parts) == (name in DIGESTS)
    assert weights_digest(net) == DIGESTS.get(name, TRANSFORMERS[name])


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_files_are_of_format_2_and_their_record_has_a_stage_of_each_part(name):
    with safe_open(checkpoint.shipped()[name], framework="numpy") as file:
        description = json.loads(file.metadata()["ppl_buffer"])
    assert description["format"] == 2
    stages = description["record"]["stages"]
    first, parts = stages[0], [stage["part"] for stage in stages]
    assert first["part"] == "buffer" and set(parts) == {"buffer", *["likelihood"] * (name in DIGESTS)}
    # After those of the network that it began with: one part after the other; only what a direct likelihood teaches
    # comes after it.
    began = Recipe.read(name).start
    before = 0 if began is None else len(pb.load(began, backend="torch").record.stages)
    stages, parts = stages[before:], parts[before:]
    last = next((n for n, stage in enumerate(stages) if "distillation" in stage["options"]), len(parts))
    assert parts[:last] == sorted(parts[:last]) and parts[last:] == sorted(parts[last:])
    for stage in stages:
        assert 0 < stage["step"] <= stage["steps"] and stage["data_sets"] > 5000
    former = {"told_sets", "told_weight", "no_context", "redraws", "known_density", "lessons", "special_values"}
    assert not former & set(first["options"]) and first["options"]["condition_masks"] >= 2
    assert "lapse_rate" in description["schema"] and "contextual_positions" in description["config"]


@pytest.mark.parametrize("name", [*TRANSFORMERS, *ALONE])
def test_files_carry_the_checksum_of_what_they_hold(name, tmp_path):
    content = bytearray(checkpoint.shipped()[name].read_bytes())
    assert b"sha256" in content[:200_000]
    content[-len(content) // 3] ^= 4
    (tmp_path / "flipped.safetensors").write_bytes(bytes(content))
    with pytest.raises(ValueError, match="path: .* is damaged: its content does not have the checksum"):
        checkpoint.read_description(tmp_path / "flipped.safetensors")
