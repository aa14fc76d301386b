"""Recipes: what they ask for is what `train` takes, and one command runs their stages, goes on, and averages."""

import importlib.util
import inspect
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import ppl_buffer as pb
from ppl_buffer.network.digest import weights_digest
from ppl_buffer.simulator import name_of
from ppl_buffer.training.batches import BatchOptions
from ppl_buffer.training.options import OptimizationOptions

SCRIPT = Path(__file__).parents[2] / "examples" / "train_zoo.py"
NAMES = [entry.name for entry in pb.zoo()]


def load_script():
    spec = importlib.util.spec_from_file_location("train_zoo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


train_zoo = load_script()


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments), "--quick"])
    train_zoo.main()


def test_every_shipped_network_has_a_recipe():
    assert train_zoo.names() == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_of_its_network_and_train_takes_it(name):
    recipe, net = train_zoo.read_recipe(name), pb.load(name, backend="torch")
    assert set(recipe) <= {"weights", "about", "data_sets", "outside", "simulator", "config", "stages"}
    simulator = train_zoo.make_simulator(recipe["simulator"])
    assert simulator.schema == net.schema and name_of(simulator) == net.record.simulator
    sizes = dict(recipe["config"])
    for number, stage in enumerate(recipe["stages"]):
        sizes |= stage.get("config", {})
        own = {"config", "distillation", "mean_with_start"}
        assert {"steps", "seed", "learning_rate", "trials"} <= set(stage)
        assert set(stage) - own <= set(inspect.signature(pb.train).parameters)
        for options in (BatchOptions, OptimizationOptions):
            fields = options.__dataclass_fields__
            options(**{key: tuple(x) if isinstance(x, list) else x for key, x in stage.items() if key in fields})
        if "distillation" in stage:
            assert number > 0
            described = {**stage["distillation"]}
            for key in ("sets", "trials", "seed"):
                assert described.pop(key) >= 0
            source = train_zoo.make_simulator({"name": described.pop("source"), **described})
            assert source.schema == net.schema
    assert pb.Config(**sizes) == net.config


def test_shipped_weights_are_labelled_until_a_recipe_made_them():
    for name in NAMES:
        recipe, record = train_zoo.read_recipe(name), pb.load(name, backend="torch").record
        planned = [(stage["steps"], stage["seed"], stage["learning_rate"]) for stage in recipe["stages"]]
        done = [(stage.steps, stage.seed, stage.learning_rate) for stage in record.stages]
        card = (Path(pb.__file__).parent / "pretrained" / f"{name}.md").read_text()
        assert ("weights of an earlier recipe" in card) == (recipe.get("weights") == "of an earlier recipe")
        assert recipe.get("weights") == "of an earlier recipe" or planned == done


def test_stages_run_in_turn_go_on_and_leave_their_lineage(monkeypatch, tmp_path, capsys):
    call(monkeypatch, "rlddm", "--out", tmp_path / "whole")
    whole = pb.load(tmp_path / "whole" / "rlddm.safetensors", backend="torch")
    stages = whole.record.stages
    first = pb.load(tmp_path / "whole" / "stage_1" / "best.safetensors", backend="torch")
    assert [stage.start for stage in stages] == [None, weights_digest(first)]
    assert [stage.options["use_log_likelihood"] for stage in stages] == [False, True]
    assert [stage.learning_rate for stage in stages] == [2e-3, 4e-4]
    # The time is over in the first stage, whatever it took to get there.
    ticks = iter([0.0, 0.0])
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="training stopped after"):
        patch.setattr(train_zoo, "time", SimpleNamespace(monotonic=lambda: next(ticks, 1.0)))
        call(monkeypatch, "rlddm", "--out", tmp_path / "parts", "--minutes", "1e-4")
    assert "the same call goes on" in capsys.readouterr().out
    assert not (tmp_path / "parts" / "rlddm.safetensors").exists()
    call(monkeypatch, "rlddm", "--out", tmp_path / "parts")
    assert weights_digest(pb.load(tmp_path / "parts" / "rlddm.safetensors", backend="torch")) == weights_digest(whole)


def test_a_stage_may_end_in_the_mean_of_the_weights_before_and_after(tmp_path):
    simulator = pb.simulators.DriftDiffusion()
    config = pb.Config(width=12, depth=2, heads=3, mlp=14, components=5, param_depth=1, contextual_positions=2)
    stage = {"steps": 2, "seed": 3, "learning_rate": 1e-2, "trials": [3, 5], "workers": 0, "progress": False}
    start = train_zoo.train_stage(simulator, config, stage, None, tmp_path / "1", True, None)
    before = {name: weight.clone() for name, weight in start.weights.items()}
    averaged = stage | {"mean_with_start": True}
    mean = train_zoo.train_stage(simulator, config, averaged, start, tmp_path / "2", True, None)
    after = pb.load(tmp_path / "2" / "best.safetensors", backend="torch")
    for name, weight in mean.weights.items():
        np.testing.assert_allclose(weight, (before[name] + after.weights[name]) / 2, atol=1e-7)
    assert [stage.options.get("mean_with_start") for stage in mean.record.stages] == [None, True]
    with pytest.raises(ValueError, match="mean_with_start: expected a stage that starts from a network"):
        train_zoo.train_stage(simulator, config, averaged, None, tmp_path / "3", True, None)
