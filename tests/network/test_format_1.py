"""Files of format 1, written by hand in the words of version 0.1, load as files of today do."""

import json

import numpy as np
import pytest
from safetensors.numpy import save as to_safetensors

import ppl_buffer as pb
from ppl_buffer.network.config import weight_shapes

SCHEMA = pb.Schema(
    params={"mu": pb.Real()},
    inputs={"cue": pb.Categorical(3)},
    outcomes={"y": pb.Real(lapse_range=(-5.0, 5.0))},
    independent=True,
    lapse_rate=0.02,
)
CONFIG = pb.Config(
    width=6, depth=2, heads=3, mlp=7, components=5, param_depth=1, contextual_positions=2, asinh_scales=1,
    likelihood_width=0, likelihood_slots=False,
)  # fmt: skip
OLD = {
    "format": 1,
    "schema": {
        "params": [["mu", {"kind": "Real", "lapse": None}]],
        "inputs": [["cue", {"kind": "Categorical", "n": 3}]],
        "outcomes": [["y", {"kind": "Real", "lapse": [-5.0, 5.0]}]],
        "feedback": [],
        "ordered": False,
        "independent": True,
        "contamination": 0.02,
    },
    "config": {
        "width": 6, "depth": 2, "heads": 3, "mlp": 7, "components": 5, "param_depth": 1, "counters": 2,
        "fine_scales": 1,
    },
    "standardization": {"mu": [0.1, 1.3], "y": [-0.2, 0.6]},
    "record": {
        "box": {"mu": [-1.0, 2.0]},
        "priors": {"mu": None},
        "trials": 17,
        "context": 9,
        "simulator": "Made",
        "provenance": {
            "date": "2026-11-22", "versions": {"ppl_buffer": "0.1.0"}, "step": 40, "held_out_loss": 0.5,
            "data_sets": 100, "dropped_data_sets": 2, "skipped_updates": 1, "special_values": {"mu": 0.0},
            "batch_size": 5, "trials": [3, 17], "context": [0, 9], "told_sets": 2, "no_context": 0.8, "redraws": 8,
            "known_density": True, "steps": 50, "seed": 3, "learning_rate": 0.002, "warmup": 7, "told_weight": 0.7,
            "start": "5e", "told_prior": True, "lessons": {"sets": 3},
        },
    },
}  # fmt: skip


def write(path, description):
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in weight_shapes(SCHEMA, CONFIG).items()}
    path.write_bytes(to_safetensors(arrays, metadata={"ppl_buffer": json.dumps(description)}))
    return arrays


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_file_of_format_1_loads_and_is_saved_as_format_2(backend, tmp_path):
    pytest.importorskip(backend)
    arrays = write(tmp_path / "old.safetensors", OLD)
    net = pb.load(tmp_path / "old.safetensors", backend=backend)
    assert net.schema == SCHEMA and net.config == CONFIG
    assert net.standardization == {"mu": (0.1, 1.3), "y": (-0.2, 0.6)}
    (stage,) = net.record.stages
    assert (stage.steps, stage.step, stage.seed, stage.learning_rate, stage.start) == (50, 40, 3, 0.002, "5e")
    assert (stage.data_sets, stage.dropped_data_sets, stage.skipped_updates) == (100, 2, 1)
    assert stage.options == {
        "atoms": {"mu": 0.0}, "batch_size": 5, "trials": [3, 17], "context": [0, 9], "condition_masks": 2,
        "context_free_fraction": 0.8, "outcome_samples": 8, "use_log_likelihood": True, "warmup": 7,
        "likelihood_weight": 0.7, "proposal": True, "distillation": {"sets": 3},
    }  # fmt: skip
    pb.save(net, tmp_path / "new.safetensors")
    again = pb.load(tmp_path / "new.safetensors", backend=backend)
    assert again.record == net.record and again.schema == SCHEMA and again.config == CONFIG
    for name, array in arrays.items():
        np.testing.assert_array_equal(np.asarray(again.weights[name]), array)


@pytest.mark.parametrize("without", [{"record": None}, {"record": {**OLD["record"], "provenance": {}}}])
def test_a_file_of_format_1_may_know_nothing_of_its_training(without, tmp_path):
    pytest.importorskip("torch")
    write(tmp_path / "old.safetensors", OLD | without)
    record = pb.load(tmp_path / "old.safetensors", backend="torch").record
    assert record is None or (record.stages == () and record.provenance == {} and record.trials == 17)


def test_a_damaged_file_of_format_1_is_refused(tmp_path):
    write(tmp_path / "old.safetensors", {name: x for name, x in OLD.items() if name != "schema"})
    with pytest.raises(ValueError, match="path: .* metadata .* is damaged .*schema"):
        pb.load(tmp_path / "old.safetensors", backend="torch")
