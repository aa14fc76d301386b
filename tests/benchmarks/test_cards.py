"""The cards beside the shipped networks are those that their recipes, records and measurements give today."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import make_card  # noqa: E402

SHIPPED = make_card.PRETRAINED


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.safetensors")))
def test_a_card_is_what_make_card_writes(name, tmp_path, monkeypatch):
    shutil.copy(SHIPPED / f"{name}.toml", tmp_path)
    monkeypatch.setattr(make_card, "PRETRAINED", tmp_path)
    make_card.main([name])
    for ending in ("md", "json"):
        assert (tmp_path / f"{name}.{ending}").read_text() == (SHIPPED / f"{name}.{ending}").read_text()


def test_a_card_tells_all_stages_of_a_record_and_says_where_the_recipe_made_the_weights():
    import ppl_buffer as pb
    from ppl_buffer.network.record import StageRecord, TrainingRecord

    stages = tuple(StageRecord("2026-01-02T03:04:05", {}, None, seed, 70, 60, 2e-3, 0.5, 1900, 0, 0) for seed in (3, 4))
    record = TrainingRecord(box={}, priors={}, trials=17, context=9, simulator="Made", stages=stages)
    stage = {"steps": 70, "learning_rate": 2e-3, "seed": 3, "trials": [3, 17], "mean_with_start": True}
    text = make_card.training("made", record, {"data_sets": "simulated data sets", "stages": [stage]})
    assert "| 1 | 60 of 70 | 0.002 | 3 | 1,900 | 2026-01-02 |\n| 2 | 60 of 70 | 0.002 | 4 |" in text
    assert "earlier recipe" not in text and "`examples/train_zoo.py made` trained it, and trains it anew:" in text
    assert "| 1 | 70 | 0.002 | 3 | 3 to 17 |  | outcomes, then averaged with the weights before |" in text
    assert {entry.name for entry in pb.zoo()} == {path.stem for path in SHIPPED.glob("*.toml")}
