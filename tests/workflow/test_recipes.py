"""Recipes: what they ask for is what `train` takes, and one command runs their stages, goes on, and averages."""

import inspect
import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("typer")

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.network.config import parts_of, state_widths  # noqa: E402
from ppl_buffer.network.digest import weights_digest  # noqa: E402
from ppl_buffer.simulator import name_of  # noqa: E402
from ppl_buffer.training.batches import BatchOptions  # noqa: E402
from ppl_buffer.training.options import OptimizationOptions  # noqa: E402
from ppl_buffer.workflow import recipes  # noqa: E402
from ppl_buffer.workflow.recipes import Recipe, make_simulator, recipe_names, train_recipe, train_stage  # noqa: E402
from tests.workflow.commands import run  # noqa: E402

PRETRAINED = Path(pb.__file__).parent / "pretrained"
NAMES = [entry.name for entry in pb.zoo()]
QUICK = {"workers": 0, "progress": False}


def stages_of(record, part):
    return [stage for stage in record.stages if stage.part == part]


def test_every_shipped_network_has_a_recipe():
    assert recipe_names() == sorted(NAMES)
    with pytest.raises(ValueError, match="name: expected one of .*'noisy_q'.*, got 'noisyq'"):
        Recipe.read("noisyq")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_of_its_network_and_train_takes_it(name):
    recipe, net = Recipe.read(name), pb.load(name, backend="torch")
    simulator = make_simulator(recipe.simulator)
    assert simulator.schema == net.schema and name_of(simulator) == net.record.simulator
    assert set(recipe.earlier) <= {"likelihood", "buffer"}
    # Else the network would keep a transformer that knows another simulator.
    assert recipe.start is None or recipe.stages
    assert bool(recipe.likelihood) == ("likelihood" in parts_of(net.schema, recipe.sizes()))
    sizes = asdict(recipe.sizes())
    for number, stage in enumerate((*recipe.stages, *recipe.likelihood)):
        sizes |= stage.get("config", {})
        own = {"config", "distillation", "mean_with_start"}
        assert {"steps", "seed", "trials"} <= set(stage)
        assert set(stage) - own <= set(inspect.signature(pb.train).parameters)
        for options in (BatchOptions, OptimizationOptions):
            fields = options.__dataclass_fields__
            options(**{key: tuple(x) if isinstance(x, list) else x for key, x in stage.items() if key in fields})
        if "distillation" in stage:
            assert number > 0 or recipe.start is not None
            described = {**stage["distillation"]}
            for key in ("sets", "trials", "seed"):
                assert described.pop(key) >= 0
            source = make_simulator({"name": described.pop("source"), **described})
            assert source.schema == net.schema
    if "likelihood" not in net.parts:
        sizes["likelihood_width"] = 0
    config = pb.Config(**sizes)
    # Of no effect on most networks, and files from before there was a choice say no.
    assert replace(config, likelihood_slots=net.config.likelihood_slots) == net.config
    if "likelihood" in net.parts:
        assert state_widths(net.schema, config) == state_widths(net.schema, net.config)


def test_shipped_weights_are_labelled_until_a_recipe_made_them():
    for name in NAMES:
        recipe, record = Recipe.read(name), pb.load(name, backend="torch").record
        card = " ".join((PRETRAINED / f"{name}.md").read_text().split())
        assert ("The buffered transformer has weights of an earlier recipe" in card) == ("buffer" in recipe.earlier)
        before = () if recipe.start is None else pb.load(recipe.start, backend="torch").record.stages
        assert record.stages[: len(before)] == tuple(before)
        own = replace(record, stages=record.stages[len(before) :])
        direct = recipe.likelihood if stages_of(own, "likelihood") else ()
        for part, planned in (("buffer", recipe.stages), ("likelihood", direct)):
            if part not in recipe.earlier:
                done = [(stage.steps, stage.seed) for stage in stages_of(own, part)]
                assert [(stage["steps"], stage["seed"]) for stage in planned] == done


def test_stages_run_in_turn_go_on_and_leave_their_lineage(monkeypatch, tmp_path):
    recipe = Recipe.read("rlddm")
    done = run("zoo", "--train", "rlddm", "--out", tmp_path / "whole", "--quick", "--no-progress")
    assert done.exit_code == 0 and "Written: " in done.output and "make zoo-rlddm" in done.output
    whole = pb.load(tmp_path / "whole" / "rlddm.safetensors", backend="torch")
    planned = recipe.stages
    assert len(planned) > 1
    assert [stage.part for stage in whole.record.stages] == [
        *["buffer"] * len(planned),
        *["likelihood"] * len(recipe.likelihood),
    ]
    assert whole.parts == ("likelihood", "buffer") and whole.config.likelihood_width == 8
    stages = stages_of(whole.record, "buffer")
    before = [
        weights_digest(pb.load(tmp_path / "whole" / f"stage_{number}" / "best.safetensors", backend="torch"))
        for number in range(1, len(planned))
    ]
    assert [stage.start for stage in stages] == [None, *before]
    for name, otherwise in (("use_log_likelihood", False), ("outcome_samples", 1)):
        assert [stage.options[name] for stage in stages] == [stage.get(name, otherwise) for stage in planned]
    assert [stage.learning_rate for stage in stages] == [stage["learning_rate"] for stage in planned]
    # The time is over in the first stage, whatever it took to get there.
    ticks = iter([0.0, 0.0])
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="training stopped after"):
        patch.setattr(recipes, "time", SimpleNamespace(monotonic=lambda: next(ticks, 1.0)))
        assert train_recipe(recipe, tmp_path / "parts", quick=True, minutes=1e-4, progress=False) is None
    assert not (tmp_path / "parts" / "rlddm.safetensors").exists()
    path = train_recipe(recipe, tmp_path / "parts", quick=True, progress=False)
    assert weights_digest(pb.load(path, backend="torch")) == weights_digest(whole)


def test_the_direct_likelihood_comes_first_where_it_teaches(tmp_path):
    recipe = Recipe.read("multisensory_rho1")
    path = train_recipe(recipe, tmp_path, quick=True, progress=False)
    net = pb.load(path, backend="torch")
    assert [stage.part for stage in net.record.stages] == ["buffer", "likelihood", "likelihood", "buffer"]
    taught = pb.load(tmp_path / "likelihood_2" / "both.safetensors", backend="torch")
    sets = json.loads((tmp_path / "stage_2" / "distillation" / "lessons.json").read_text())
    assert sets["weights"] == weights_digest(taught) == net.record.stages[-1].start
    assert net.config.depth > taught.config.depth
    for name, weight in taught.weights.items():
        if name.startswith("likelihood."):
            np.testing.assert_array_equal(net.weights[name], weight)
    assert net.record.errors["likelihood"] == taught.record.errors["likelihood"]


def test_a_recipe_may_start_from_a_shipped_network(tmp_path):
    recipe, start = Recipe.read("multisensory_rho43"), pb.load("multisensory_rho1", backend="torch")
    assert recipe.start == "multisensory_rho1" and recipe.sizes() == start.config
    path = train_recipe(recipe, tmp_path / "all", quick=True, progress=False)
    net = pb.load(path, backend="torch")
    assert net.record.simulator == name_of(make_simulator(recipe.simulator)) != start.record.simulator
    assert net.standardization == start.standardization and net.config == start.config
    before, own = net.record.stages[: len(start.record.stages)], net.record.stages[len(start.record.stages) :]
    assert before == start.record.stages
    assert [stage.part for stage in own] == ["likelihood"] * len(recipe.likelihood) + ["buffer"] * len(recipe.stages)
    assert own[0].start == weights_digest(start)
    # What the other network was off by, as another simulator's likelihood, is nothing to state.
    assert net.record.errors["likelihood"] != start.record.errors["likelihood"]
    # The direct likelihood alone begins there too.
    path = train_recipe(recipe, tmp_path / "direct", parts="likelihood", quick=True, progress=False)
    began = pb.load(tmp_path / "direct" / "transformer.safetensors", backend="torch")
    shipped, alone = pb.load(recipe.name, backend="torch"), pb.load(path, backend="torch")
    for name, weight in began.weights.items():
        of_likelihood = name.startswith("likelihood.")
        np.testing.assert_array_equal(weight, (start if of_likelihood else shipped).weights[name])
        if not of_likelihood:
            np.testing.assert_array_equal(weight, alone.weights[name])
    assert alone.record.stages[: len(before)] == before
    parts = [stage.part for stage in alone.record.stages[len(before) :]]
    assert parts == ["buffer"] * len(recipe.stages) + ["likelihood"] * len(recipe.likelihood)
    with pytest.raises(ValueError, match="start: expected one of .*'noisy_q'.*, got 'mine'"):
        replace(recipe, start="mine").sizes()


def test_a_recipe_without_a_transformer_makes_a_direct_likelihood_alone_and_goes_on(tmp_path):
    recipe = Recipe.read("discounting")
    assert recipe.stages == () and recipe.config["depth"] == 0
    twice = replace(recipe, likelihood=recipe.likelihood * 2)
    nets = [
        pb.load(train_recipe(twice, tmp_path, parts=parts, quick=True, progress=False), backend="torch")
        for parts in ("all", "likelihood")
    ]
    assert weights_digest(nets[0]) == weights_digest(nets[1])
    first = pb.load(tmp_path / "likelihood_1" / "best.safetensors", backend="torch")
    stages = nets[0].record.stages
    assert nets[0].parts == ("likelihood",) and [stage.start for stage in stages] == [None, weights_digest(first)]


def test_a_direct_likelihood_comes_beside_the_shipped_transformer(tmp_path):
    shipped, recipe = pb.load("ddm", backend="torch"), Recipe.read("ddm")
    path = train_recipe(recipe, tmp_path, parts="likelihood", quick=True, progress=False)
    net = pb.load(path, backend="torch")
    assert net.parts == ("likelihood", "buffer") and net.standardization == shipped.standardization
    for name, weight in shipped.weights.items():
        if not name.startswith("likelihood."):
            np.testing.assert_array_equal(net.weights[name], weight)
    record, before = net.record, shipped.record
    assert stages_of(record, "buffer") == stages_of(before, "buffer")
    assert [stage.steps for stage in stages_of(record, "likelihood")] == [20] * len(recipe.likelihood)
    for name in ("box", "priors", "trials", "context", "simulator", "ranges"):
        assert getattr(record, name) == getattr(before, name)
    # A part of another box would make the record a lie.
    narrow = {"name": "DriftDiffusion", "drift": [-5.0, 5.0]}
    other = replace(Recipe.read("ddm"), simulator=narrow)
    with pytest.raises(ValueError, match="simulator: expected the box of the transformer"):
        train_recipe(other, tmp_path / "other", parts="likelihood", quick=True, progress=False)


def test_a_likelihood_reads_sequences_as_long_as_the_transformer_knows(tmp_path):
    recipe = Recipe.read("noisy_q")
    short = replace(recipe, likelihood=({**recipe.likelihood[0], "trials": [20, 100]},))
    with pytest.raises(ValueError, match="trials: expected sequences of up to 400, as the transformer knows, got"):
        train_recipe(short, tmp_path, parts="likelihood", quick=True, progress=False)


def test_what_cannot_be_trained_is_refused(tmp_path):
    done = run("zoo", "--train", "gp", "--parts", "likelihood", "--out", tmp_path)
    assert done.exit_code == 1 and "the recipe of gp has no direct likelihood" in done.output
    done = run("zoo", "--train", "ddm", "--parts", "buffer", "--out", tmp_path)
    assert done.exit_code == 1 and "parts: expected one of" in done.output


def test_a_network_that_is_not_shipped_is_refused(tmp_path):
    done = run("zoo", "--train", "mine", "--out", tmp_path)
    assert done.exit_code == 1 and "expected one of" in done.output
    done = run("zoo", "--train", "ddm", "--out", tmp_path / "ddm", "--minutes", "0")
    assert done.exit_code == 0 and "the same command goes on" in done.output


def test_a_stage_may_end_in_the_mean_of_the_weights_before_and_after(tmp_path):
    simulator = pb.simulators.DriftDiffusion()
    config = pb.Config(
        width=12, depth=2, heads=3, mlp=14, components=5, param_depth=1, contextual_positions=2, likelihood_width=0
    )
    stage = {"steps": 2, "seed": 3, "learning_rate": 1e-2, "trials": [3, 5], "targets": 4, **QUICK}
    start = train_stage(simulator, config, stage, None, tmp_path / "1", True)
    assert start.record.provenance["targets"] == 4
    before = {name: weight.clone() for name, weight in start.weights.items()}
    averaged = stage | {"mean_with_start": True}
    mean = train_stage(simulator, config, averaged, start, tmp_path / "2", True)
    after = pb.load(tmp_path / "2" / "best.safetensors", backend="torch")
    for name, weight in mean.weights.items():
        np.testing.assert_allclose(weight, (before[name] + after.weights[name]) / 2, atol=1e-7)
    assert [stage.options.get("mean_with_start") for stage in mean.record.stages] == [None, True]
    with pytest.raises(ValueError, match="mean_with_start: expected a stage that starts from a network"):
        train_stage(simulator, config, averaged, None, tmp_path / "3", True)
