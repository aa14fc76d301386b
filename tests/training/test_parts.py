"""The two parts of a network: each is trained by itself, and both are in one checkpoint."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch

import ppl_buffer as pb
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.training import trainer
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import HELD_OUT, make_batch
from ppl_buffer.training.likelihood_batches import BLOCK, make_likelihood_batches
from ppl_buffer.training.loading import make_loader, start_workers
from ppl_buffer.training.loop import train
from ppl_buffer.training.loss import Loss
from ppl_buffer.training.options import OptimizationOptions, RunOptions
from ppl_buffer.training.parts import join, part_config
from ppl_buffer.training.plan import TrainingPlan
from tests.training.cases import SMALL, TINY, ChoiceTime, Known, Shift, same_arrays, same_run, state_of, tensors
from tests.training.test_resume import Interrupted, Threshold, raise_interrupt

BOTH = replace(TINY, likelihood_width=8)
PARTS = ("likelihood", "buffer")


class Crossed(ChoiceTime):
    """Has two categories before a response, and numbers: their columns are no longer the last where scales grow."""

    schema = pb.Schema(
        params={"a": pb.Interval(0, 1, closed=True), "b": pb.Positive()},
        inputs={"cue": pb.Categorical(3), "side": pb.Categorical(2), "x": pb.Real()},
        outcomes={"choice": pb.Categorical(2), "rt": pb.Positive(above="b")},
        feedback={"reward": pb.Real()},
        ordered=True,
    )
    in_process = True

    def inputs(self, rng, size, trials):
        more = {"side": rng.integers(0, 2, (size, trials)), "x": rng.normal(size=(size, trials))}
        return {**super().inputs(rng, size, trials), **more}


def direct(net):
    return {name: weight for name, weight in net.weights.items() if name.startswith("likelihood.")}


def same_weights(first, second):
    same_arrays(*({name: weight.numpy() for name, weight in one.items()} for one in (first, second)))


def test_parts_are_trained_in_turn_and_each_leaves_its_stage(tmp_path):
    net = train(ChoiceTime(), BOTH, steps=5, out=tmp_path, **SMALL)
    assert net.parts == PARTS and net.config == BOTH
    stages = net.record.stages
    assert [stage.part for stage in stages] == list(PARTS) and all(stage.seconds > 0 for stage in stages)
    assert "condition_masks" not in stages[0].options and stages[1].options["condition_masks"] == 2
    assert stages[1].options["likelihood_weight"] == 0.2
    files = ["best.safetensors", "log.csv", "loss.png", "sketch.json", "state.safetensors"]
    for part in PARTS:
        assert set(files) <= {path.name for path in (tmp_path / part).iterdir()}
        assert pb.load(tmp_path / part / "best.safetensors", backend="torch").parts == (part,)
        assert (tmp_path / part / "log.csv").read_text().startswith("step,loss,held_out,given\n")
    same_weights(direct(net), direct(pb.load(tmp_path / "likelihood" / "best.safetensors", backend="torch")))


def test_the_likelihood_alone_is_a_network_that_the_same_folder_completes(tmp_path):
    first = train(Shift(), BOTH, steps=4, parts="likelihood", out=tmp_path, **SMALL)
    assert first.parts == ("likelihood",) and first.config.depth == 0 and first.record.context == 0
    state = (tmp_path / "likelihood" / "state.safetensors").read_bytes()
    net = train(Shift(), BOTH, steps=4, out=tmp_path, **SMALL)
    assert net.parts == PARTS and net.standardization == first.standardization
    same_weights(direct(net), direct(first))
    assert (tmp_path / "likelihood" / "state.safetensors").read_bytes() == state
    # As in one call, to the last bit.
    train(Shift(), BOTH, steps=4, out=tmp_path / "whole", **SMALL)
    same_run(tmp_path, tmp_path / "whole", PARTS)
    # Of one part anew, the other stays.
    again = train(Shift(), BOTH, steps=4, seed=1, parts="buffer", resume=False, out=tmp_path, **SMALL)
    same_weights(direct(again), direct(first))
    assert (again.weights["norm_out.weight"] != net.weights["norm_out.weight"]).any()


@pytest.mark.parametrize(
    ("config", "parts", "message"),
    [
        (TINY, "likelihood", r"parts: expected 'all' or one of \['buffer'\], .*likelihood_width=0"),
        (pb.Config(depth=0, likelihood_width=8), "buffer", r"parts: expected 'all' or one of \['likelihood'\]"),
    ],
)
def test_a_part_that_a_network_has_not_is_refused(config, parts, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(ChoiceTime(), config, steps=2, parts=parts, out=tmp_path, **SMALL)


def test_interrupted_in_either_part_it_ends_where_the_other_does(tmp_path):
    train(Threshold(), BOTH, steps=6, out=tmp_path / "whole", **SMALL)
    # Calls of the simulator before the first step of the likelihood, or of the buffer where that is done.
    for after in (11, 14):
        with pytest.raises(KeyboardInterrupt):
            train(Interrupted(after, raise_interrupt), BOTH, steps=6, out=tmp_path / "parts", **SMALL)
        assert "likelihood" in pb.load(tmp_path / "parts" / "best.safetensors", backend="torch").parts
    train(Threshold(), BOTH, steps=6, out=tmp_path / "parts", **SMALL)
    same_run(tmp_path / "whole", tmp_path / "parts", PARTS)


def test_a_start_keeps_the_part_that_is_not_trained(tmp_path):
    first = train(Shift(), BOTH, steps=3, out=tmp_path / "first", **SMALL)
    second = train(Shift(), steps=3, parts="buffer", start=first, out=tmp_path / "second", **SMALL)
    assert second.parts == PARTS
    same_weights(direct(second), direct(first))
    assert [stage.part for stage in second.record.stages] == [*PARTS, "buffer"]
    assert second.record.stages[2].start is not None


def test_a_part_that_the_start_has_not_is_added_and_scales_grow_in_both(tmp_path):
    start = train(Crossed(), TINY, steps=2, out=tmp_path / "start", **SMALL)
    still = {"learning_rate": 1e-12, "weight_decay": 0.0}
    both = train(Crossed(), BOTH, steps=2, start=start, out=tmp_path / "both", **still, **SMALL)
    assert both.parts == PARTS and [stage.start is None for stage in both.record.stages] == [True, True, False]
    sizes = replace(BOTH, asinh_scales=2)
    for parts in ("all", "buffer", "likelihood"):
        grown = train(
            Crossed(), sizes, steps=1, parts=parts, start=both, out=tmp_path / f"grown_{parts}", **still, **SMALL
        )
        assert grown.parts == PARTS and grown.config == sizes
        for part, make in (("likelihood", make_likelihood_batch), ("buffer", make_batch)):
            batch = tensors(make(Crossed(), BatchOptions(batch_size=2, trials=(3, 5)), 0, 3))
            with torch.no_grad():
                before, after = (float(Loss(net, part=part)(batch)) for net in (both, grown))
            assert after == pytest.approx(before, abs=1e-5)


def test_joining_takes_the_last_of_each_part(tmp_path):
    nets = [
        train(Shift(), BOTH, steps=2, seed=seed, out=tmp_path / str(seed), parts=parts, **SMALL)
        for seed, parts in enumerate(["likelihood", "buffer", "likelihood"])
    ]
    net = join([nets[0], nets[1], nets[2]])
    same_weights(direct(net), nets[2].weights)
    same_weights({name: net.weights[name] for name in nets[1].weights}, nets[1].weights)


def make_likelihood_batch(*arguments):
    return make_likelihood_batches(*arguments, count=1)[0]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a machine with one core
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_the_likelihood_come_in_blocks_from_any_step_on(workers, tmp_path):
    settings = BatchOptions(batch_size=4, trials=(2, 5), growing=40)
    run, steps = RunOptions(tmp_path, workers=workers), OptimizationOptions(steps=2 * BLOCK)
    plan = TrainingPlan(ChoiceTime(), part_config(BOTH, "likelihood"), 1, settings, steps, run, part="likelihood")
    whole, late = (list(start_workers(make_loader(plan, start, 0, 1))) for start in (0, BLOCK + 3))
    assert len(whole) == 2 * BLOCK and len(late) == BLOCK - 3
    for (data, counts, _), (again, counted, _) in zip(whole[-len(late) :], late, strict=True):
        assert counts == counted
        np.testing.assert_array_equal(data["targets"]["outcomes"]["rt"], again["targets"]["outcomes"]["rt"])
    starts = [tuple(data["params"]["b"].tolist()) for data, _, _ in whole]
    assert len(set(starts)) == len(starts)
    sizes = [len(data["params"]["b"]) for data, _, _ in whole]
    assert [counts.simulated for _, counts, _ in whole] == sizes


@pytest.mark.parametrize("simulator", [Shift(), ChoiceTime()], ids=["independent", "ordered"])
def test_the_loss_of_the_likelihood_is_its_density(simulator, tmp_path):
    class Plain(type(simulator)):
        simulate_with_probabilities = None

    net = train(simulator, BOTH, steps=2, parts="likelihood", out=tmp_path, **SMALL)
    batch = make_likelihood_batch(Plain(), BatchOptions(batch_size=2, trials=(3, 5)), 0, 3)
    data = tensors(batch)
    trials = {name: x[:, 0] for group in ("inputs", "feedback") for name, x in data["buffer"][group].items()}
    inputs = {name: trials[name] for name in simulator.schema.inputs}
    value = torch.stack([x[:, 0] for x in data["targets"]["outcomes"].values()], -1)
    value = value if value.shape[-1] > 1 else value[..., 0]
    feedback = {name: trials[name] for name in simulator.schema.feedback} or None
    query = Query.build(
        net, inputs, trials=None if inputs else value.shape[1], params=data["params"], feedback=feedback
    )
    with torch.no_grad():
        by_set = Loss(net, part="likelihood").by_set(data)
        expected = -density.conditionals(query, value).mean(-1)
    assert by_set.shape == (1, len(value))
    np.testing.assert_allclose(by_set[0], expected, rtol=2e-5, atol=2e-5)


def test_batches_of_the_likelihood_grow():
    options = BatchOptions(batch_size=4, trials=(8, 32), growing=4000)
    first, late = (
        [make_likelihood_batch(ChoiceTime(), options, 0, step).data["targets"]["outcomes"]["rt"] for step in steps]
        for steps in (range(20), range(4000, 4020))
    )
    assert {x.shape[-1] for x in first} <= {8, 9} and all(len(x) in (3, 4) for x in first)
    assert max(x.shape[-1] for x in late) > 26
    # Four times as many data sets, at the same work for short and long ones.
    assert all(abs(len(x) * x.shape[-1] - 16 * 16) <= x.shape[-1] / 2 for x in late)
    held_out = make_likelihood_batch(ChoiceTime(), options, 0, 0, HELD_OUT).data
    assert held_out["conditioned"].all() and held_out["conditioned"].shape[1] == 1
    assert 0.2 < np.mean(np.concatenate([held_out["params"]["a"]]) == 0) < 0.8  # the atom
    few = make_likelihood_batch(Shift(), options, 0, 4000).data
    assert few["targets"]["outcomes"]["y"].shape == (8 * 4 * 4, 1, 8)


def test_the_likelihood_learns_what_the_simulator_offers(tmp_path):
    class Wide(Known):
        def proposal(self, rng, size):
            return {"mu": rng.uniform(5, 7, size)}

    options = BatchOptions(batch_size=2, trials=(3, 5), outcome_samples=3, use_log_likelihood=True)
    batches = [make_likelihood_batch(Wide(), options, 0, step).data for step in range(40)]
    proposed = [bool((batch["params"]["mu"] > 4).all()) for batch in batches]
    assert 8 < sum(proposed) < 32
    assert all("conditioned_log_likelihood" in batch and "resampled" not in batch for batch in batches)
    again = make_likelihood_batch(Wide(), replace(options, use_log_likelihood=False), 0, 0).data
    assert again["resampled"]["y"].shape[-1] == 2
    held_out = make_likelihood_batch(Wide(), options, 0, 0, HELD_OUT).data
    assert (held_out["params"]["mu"] < 8).all() and "conditioned_log_likelihood" not in held_out
    net = train(Wide(), BOTH, steps=3, parts="likelihood", use_log_likelihood=True, out=tmp_path, **SMALL)
    assert net.record.provenance["use_log_likelihood"] and net.record.provenance["proposal"]


def test_a_target_ends_a_part_with_its_decay(tmp_path, monkeypatch):
    def estimate(snapshots, before):
        error = 1 / (1 + float(snapshots.steps[-1]))
        return pb.network.estimated_error.EstimatedError(error, error, error, "snapshots", snapshots.part)

    monkeypatch.setattr(trainer, "estimate_error", estimate)
    call = {"config": BOTH, "steps": 40, "parts": "likelihood", "out": tmp_path, **SMALL}
    net = train(ChoiceTime(), target=0.11, **call)
    # Below it at step 9, of which the decay makes 15.
    description = state_of(tmp_path, "likelihood")[0]
    assert description["progress"]["step"] == 15 and description["progress"]["finished"]
    assert net.record.errors["likelihood"].nats_per_trial == pytest.approx(1 / 16)
    before = (tmp_path / "likelihood" / "state.safetensors").stat().st_mtime_ns
    train(ChoiceTime(), target=0.11, **call)
    assert (tmp_path / "likelihood" / "state.safetensors").stat().st_mtime_ns == before
    # A lower one, or none: on from the weights before the decay.
    train(ChoiceTime(), **call)
    train(ChoiceTime(), **{**call, "out": tmp_path / "whole"})
    one, other = (state_of(folder, "likelihood")[1] for folder in (tmp_path, tmp_path / "whole"))
    same_arrays(one, other)
