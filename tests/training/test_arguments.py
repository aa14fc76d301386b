"""Arguments of `train` that do not fit, and what the optimisers do."""

import math

import pytest

pytest.importorskip("torch", reason="training needs torch")

from ppl_buffer.training.loop import train
from tests.training.cases import SMALL, TINY, ChoiceTime, arrays_of


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ({"seed": -1}, "seed: expected an integer from 0 to .*, got -1"),
        ({"batch_size": 2.5}, "batch_size: expected an integer of at least 1, got 2.5"),
        ({"trials": (7, 3)}, r"trials: expected \(least, greatest\), integers of at least 1, got \(7, 3\)"),
        ({"trials": 7}, r"trials: expected \(least, greatest\)"),
        ({"context": (-1, 3)}, r"context: expected \(least, greatest\), integers of at least 0"),
        ({"condition_masks": 0}, "condition_masks: expected an integer of at least 1, got 0"),
        ({"outcome_samples": 0}, "outcome_samples: expected an integer of at least 1, got 0"),
        ({"likelihood_weight": 1.0}, r"likelihood_weight: expected a number in \(0, 1\) or None, got 1.0"),
        ({"context_free_fraction": 1.5}, "context_free_fraction: expected a share from 0 to 1, got 1.5"),
        ({"targets": 0}, "targets: expected an integer of at least 1, got 0"),
        ({"targets": 7}, "targets: expected none for an ordered schema, where every trial is a target .*, got 7"),
        ({"forecasting": -0.1}, "forecasting: expected a share from 0 to 1, got -0.1"),
        ({"in_order": 0.5}, "in_order: expected none for an ordered schema, .*, got 0.5"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0, got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay: expected a number of at least 0, got -1.0"),
        ({"accelerator": "tpu"}, "accelerator: expected one of .*'cuda'.*, got 'tpu'"),
        ({"learning_rate": "fast"}, "learning_rate: expected a number above 0, got 'fast'"),
        ({"learning_rate": math.nan}, "learning_rate: expected a number above 0, got nan"),
        ({"weight_decay": 10**400}, "weight_decay: expected a number of at least 0, got 1000"),
        ({"likelihood_weight": True}, r"likelihood_weight: expected a number in \(0, 1\) or None, got True"),
        ({"context_free_fraction": []}, r"context_free_fraction: expected a share from 0 to 1, got \[\]"),
        ({"distillation_share": "half"}, r"distillation_share: expected a number in \(0, 1\), got 'half'"),
        ({"minutes": "5"}, "minutes: expected a number above 0, got '5'"),
        ({"seed": 2**63}, r"seed: expected an integer from 0 to 2\*\*63 - 1, got 9"),
        ({"config": {"width": 8}}, "config: expected a ppl_buffer.Config or None, got {'width': 8}"),
        ({"optimizer": ["adamw"]}, r"optimizer: expected one of .*, got \['adamw'\]"),
        ({"accelerator": None}, "accelerator: expected one of .*, got None"),
        ({"use_log_likelihood": "no"}, "use_log_likelihood: expected True or False, got 'no'"),
        ({"resume": "no"}, "resume: expected True or False, got 'no'"),
        ({"progress": 0}, "progress: expected True or False, got 0"),
        ({"out": 3}, "out: expected a path, got 3"),
        ({"parts": "head"}, r"parts: expected one of \['all', 'likelihood', 'buffer'\], got 'head'"),
        ({"target": 0}, "target: expected a number above 0, got 0"),
        ({"out": __file__}, "out: expected a folder, or a place for a new one, got .*File exists"),
        ({"out": f"{__file__}/run"}, "out: expected a folder, or a place for a new one, got .*Not a directory"),
        ({"distillation": 3}, "distillation: expected a path, got 3"),
        ({"start": 3}, "start: expected a torch network or the name of a checkpoint, got int"),
        ({"simulator": None}, "simulator.schema: expected a Schema, got None"),
        ({"simulator": ChoiceTime}, r"simulator: expected an object, got the class ChoiceTime; write ChoiceTime\(\)"),
        ({"minutes": 0}, "minutes: expected a number above 0, got 0"),
        ({"devices": 4}, "devices: expected at most 3, the data sets in a batch of the longest"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(**{"simulator": ChoiceTime(), "config": TINY, "steps": 2, "out": tmp_path, **SMALL, **arguments})


def test_optimizers_differ_and_others_are_refused(tmp_path):
    for optimizer in ("adamw", "muon"):
        train(ChoiceTime(), TINY, steps=4, out=tmp_path / optimizer, **{**SMALL, "optimizer": optimizer})
    one, other = (
        arrays_of(tmp_path / name / "buffer" / "state.safetensors", "ppl_buffer_run") for name in ("adamw", "muon")
    )
    # Muon remembers one moment of a matrix inside a layer, AdamW two; elsewhere both are AdamW.
    name = "layers.0.mlp.hidden.weight"
    assert f"optimizer/exp_avg_sq/{name}" in one and f"optimizer/exp_avg_sq/{name}" not in other
    assert f"optimizer/momentum_buffer/{name}" in other
    assert "optimizer/exp_avg_sq/embed.pair.hidden.weight" in other
    with pytest.raises(ValueError, match=r"optimizer: expected one of \['adamw', 'muon'\], got 'sgd'"):
        train(ChoiceTime(), TINY, steps=2, out=tmp_path / "sgd", **{**SMALL, "optimizer": "sgd"})
