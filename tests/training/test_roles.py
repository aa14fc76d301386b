"""Context, buffer and targets of exchangeable data sets: who is what, in which order, and who sees whom."""

import hashlib

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch
from scipy import stats

import ppl_buffer as pb
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import HELD_OUT, TRAINING, make_batch, map_arrays
from ppl_buffer.training.loop import train
from ppl_buffer.training.loss import Loss
from ppl_buffer.training.options import OptimizationOptions, RunOptions
from ppl_buffer.training.plan import TrainingPlan
from ppl_buffer.training.roles import Sizes, assign_roles, draw_kinds
from tests.training.cases import SMALL, TINY, Shift, flat, network, same_batches

# Of an exact test that a right program passes with the fixed seeds below, and a wrong one fails.
LEVEL = 1e-3


class Numbered:
    """Each trial's outcome says which trial it is; all numbers are whole, so that they are the same everywhere."""

    schema = pb.Schema(params={"mu": pb.Real()}, inputs={"x": pb.Real()}, outcomes={"y": pb.Real()}, independent=True)
    in_process = True

    def prior(self, rng, size):
        return {"mu": rng.integers(0, 100, size)}

    def inputs(self, rng, size, trials):
        return {"x": rng.integers(0, 50, (size, trials))}

    def simulate(self, rng, params, inputs):
        shape = next(iter(inputs.values())).shape
        return {"y": np.broadcast_to(np.arange(shape[1]), shape)}

    def log_likelihood(self, params, data):
        return data["y"] - params["mu"][:, None]


class Walk(Numbered):
    """A random walk along one of two inputs: its trials depend on each other, and there are no parameters."""

    schema = pb.Schema(
        inputs={"place": pb.Real(), "time": pb.Positive(), "kind": pb.Categorical(2)},
        outcomes={"y": pb.Real()},
        independent=False,
    )

    def prior(self, rng, size):
        return {}

    def inputs(self, rng, size, trials):
        time = rng.permuted(np.broadcast_to(np.arange(1, trials + 1), (size, trials)), axis=1)
        return {"place": rng.normal(size=time.shape), "time": time, "kind": time % 2}

    def simulate(self, rng, params, inputs):
        steps = rng.normal(size=inputs["time"].shape).cumsum(1)
        return {"y": np.take_along_axis(steps, inputs["time"].astype(int) - 1, 1)}


@pytest.mark.parametrize(
    ("options", "stream", "digest"),
    [
        (
            {"batch_size": 7, "trials": (2, 11), "context": (0, 23), "condition_masks": 3},
            TRAINING,
            "48c27be3eb1ecbbcc6bc89d6bbc7fed66fd37cef44c30d735a3f0c9a3b59d7e2",
        ),
        (
            {"batch_size": 7, "trials": (2, 11), "context": (0, 23), "condition_masks": 3},
            HELD_OUT,
            "4ab9721213ee2e6695a94b16443f8454f2f8ceaae4242d0c807f58bceb16300b",
        ),
        (
            {"batch_size": 3, "trials": (5, 5), "context": (3, 13), "outcome_samples": 2, "use_log_likelihood": True},
            TRAINING,
            "ef44f051d15ce38f2adee23ac845b3c49ad4930ad77df244e08b663cad558dab",
        ),
    ],
)
def test_batches_of_other_options_are_those_of_before_there_were_these(options, stream, digest):
    sha = hashlib.sha256()
    for step in range(40):
        for name, array in flat(make_batch(Numbered(), BatchOptions(**options), 5, step, stream).data):
            sha.update(f"{name} {array.shape}".encode())
            sha.update(array.astype("<f8").tobytes())
    assert sha.hexdigest() == digest


def roles_of(sizes, forecasting=0.0, in_order=0.0, seed=0, gap_filling=0.0):
    """Roles, and the input that orders, of which some values are equal."""
    rng = np.random.default_rng(seed)
    along = rng.integers(0, 2 * sizes.total, (sizes.data_sets, sizes.total))
    kinds = draw_kinds(rng, sizes.data_sets, "x", forecasting, gap_filling, in_order)
    return assign_roles(rng, sizes, {"x": along}, kinds), along


@pytest.mark.parametrize(("forecasting", "gap_filling"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("in_order", [0.0, 1.0])
@pytest.mark.parametrize("sizes", [Sizes(211, 5, 3, 7), Sizes(211, 5, 7, 2), Sizes(211, 0, 3, 7)])
def test_who_is_what_and_what_a_target_sees(sizes, forecasting, gap_filling, in_order):
    roles, along = roles_of(sizes, forecasting, in_order, gap_filling=gap_filling)
    assert (roles.context.shape, roles.buffer.shape) == ((211, sizes.context), (211, sizes.trials))
    assert roles.targets.shape == (211, sizes.targets) and roles.visible.shape == (211, 1, sizes.targets)
    some = False
    for context, buffer, targets, visible, x in zip(
        roles.context, roles.buffer, roles.targets, roles.visible[:, 0], along, strict=True
    ):
        assert len({*context, *buffer}) == sizes.context + sizes.trials and len({*targets}) == sizes.targets
        after = [place for place in range(sizes.total) if place not in context]
        assert {*buffer, *targets} <= {*after}
        if forecasting and len(context):
            assert x[context].max() <= x[after].min()
        if gap_filling and len(context):
            assert ((x[context] <= x[after].min()) | (x[context] >= x[after].max())).all()
        if (forecasting or gap_filling) and in_order:
            # Right after the frontier, or from the beginning of the gap, without another one.
            np.testing.assert_array_equal(x[buffer], np.sort(x[after])[: sizes.trials])
        else:
            assert not {*buffer} & {*targets}
        if in_order:
            assert (np.diff(x[buffer]) >= 0).all()
        for target, count in zip(targets, visible, strict=True):
            # No target sees itself, and in order none sees what comes after it.
            assert target not in buffer[:count]
            if in_order and count:
                assert x[buffer[:count]].max() <= x[target]
                some = True
            if in_order and (count or not len(context)):
                # It sees all that does come before it.
                rest = [place for place in buffer[count:] if place != target]
                assert not rest or x[target] <= x[rest].min()
    assert some == bool(in_order)


def test_a_gap_begins_anywhere_in_as_many_data_sets_as_asked_for():
    sizes, rng = Sizes(4001, 7, 8, 3), np.random.default_rng(1)
    along = rng.permuted(np.broadcast_to(np.arange(sizes.total), (sizes.data_sets, sizes.total)), axis=1)
    kinds = draw_kinds(rng, 4001, "x", forecasting=0.2, gap_filling=0.5, in_order=0.3)
    assert not (kinds.forecasts & kinds.fills).any()
    roles = assign_roles(rng, sizes, {"x": along}, kinds)
    others = np.take_along_axis(along, np.concatenate([roles.buffer, roles.targets], 1), 1)
    first = others.min(1)
    together = others.max(1) - first == 10
    # By chance, in order of its own, 1 in 5,000 looks like this.
    assert (together == (kinds.forecasts | kinds.fills))[~kinds.in_order].mean() > 0.99
    assert stats.binomtest(int(kinds.fills.sum()), 4001, 0.5).pvalue > LEVEL
    assert stats.chisquare(np.bincount(first[kinds.fills], minlength=8)).pvalue > LEVEL
    assert (first[kinds.forecasts] == 7).all()


def test_shares_of_the_data_sets_and_of_the_targets_are_those_asked_for():
    sizes = Sizes(4001, 7, 8, 3)
    rng = np.random.default_rng(0)
    along = rng.permuted(np.broadcast_to(np.arange(sizes.total), (sizes.data_sets, sizes.total)), axis=1)
    kinds = draw_kinds(rng, 4001, "x", forecasting=0.3, gap_filling=0.0, in_order=0.6)
    roles = assign_roles(rng, sizes, {"x": along}, kinds)
    others = np.concatenate([roles.buffer, roles.targets], 1)
    before, after = (np.take_along_axis(along, places, 1) for places in (roles.context, others))
    forecasts = before.max(1) <= after.min(1)
    follows = (np.diff(np.take_along_axis(along, roles.buffer, 1)) >= 0).all(1)
    # By chance 1 in 31,824 and 1 in 40,320 look like this.
    for is_so, share in ((forecasts, 0.3), (follows, 0.6), (forecasts & follows, 0.18)):
        assert stats.binomtest(int(is_so.sum()), len(is_so), share).pvalue > LEVEL
    # Half of the targets see the context alone, and where the order is random the others each prefix as often.
    random = roles.visible[~follows, 0]
    assert stats.binomtest(int((random == 0).sum()), random.size, 0.5).pvalue > LEVEL
    assert stats.chisquare(np.bincount(random[random > 0] - 1, minlength=8)).pvalue > LEVEL
    # After a frontier and in order a target is any of the trials there; it sees the buffer before it or none of it.
    both = forecasts & follows
    place, seen = (np.take_along_axis(along, roles.targets, 1) - 7)[both, 0], roles.visible[both, 0, 0]
    assert stats.chisquare(np.bincount(place, minlength=11)).pvalue > LEVEL
    assert ((seen == 0) | (seen == np.minimum(place, 8))).all()
    assert stats.binomtest(int((seen[place > 0] == 0).sum()), int((place > 0).sum()), 0.5).pvalue > LEVEL


def test_without_a_context_every_prefix_is_seen_as_often():
    roles, _ = roles_of(Sizes(2003, 0, 5, 3), forecasting=1.0)
    assert stats.chisquare(np.bincount(roles.visible.ravel(), minlength=5)).pvalue > LEVEL


def test_batches_have_as_many_targets_as_asked_for_whatever_else_is():
    options = {"batch_size": 7, "trials": (2, 3), "context": (0, 5), "targets": 11, "order_by": "x"}
    options |= {"forecasting": 0.5, "in_order": 0.5, "outcome_samples": 3, "use_log_likelihood": True}
    kinds = set()
    for step in range(30):
        batch = make_batch(Numbered(), BatchOptions(**options), 3, step).data
        y, mu = batch["targets"]["outcomes"]["y"], batch["params"]["mu"][:, None, None]
        size, trials = len(mu), batch["buffer"]["outcomes"]["y"].shape[-1]
        context = batch["context"]["outcomes"]["y"].shape[-1] if "context" in batch else 0
        assert y.shape == (size, 1, 11) and batch["visible"].shape == (size, 2, 11)
        assert (batch["visible"][batch["conditioned"].all(-1)] == 0).all() and batch["visible"].max() <= trials
        np.testing.assert_array_equal(batch["conditioned_log_likelihood"], y - mu)
        assert batch["resampled"]["y"].shape == (size, 1, 11, 2)
        # What is drawn, and no more, and about as much of it in each batch.
        assert y.max() < context + trials + 11
        assert abs(size * (context + trials + 11) - 7 * (np.sqrt(6) + np.sqrt(5) + 11)) <= (context + trials + 11) / 2
        kinds.add((context > 0, trials))
        same_batches(batch, make_batch(Numbered(), BatchOptions(**options), 3, step).data)
    assert kinds == {(True, 2), (True, 3), (False, 2), (False, 3)}


def test_trials_are_put_in_order_by_the_input_that_is_named():
    for order_by in ("time", "place"):
        options = BatchOptions(5, (3, 3), (4, 4), forecasting=1.0, in_order=1.0, order_by=order_by)
        batch = make_batch(Walk(), options, 0, 0).data
        seen, buffer, targets = (batch[part]["inputs"][order_by][:, 0] for part in ("context", "buffer", "targets"))
        assert (seen.max(1) < buffer.min(1)).all() and (np.diff(buffer) > 0).all()
        assert (seen.max(1) < targets.min(1)).all()
        if order_by == "time":
            np.testing.assert_array_equal(buffer, np.broadcast_to([5, 6, 7], (5, 3)))


def test_no_density_depends_on_what_a_target_must_not_see():
    options = BatchOptions(3, (4, 4), (3, 3), targets=9, forecasting=1.0, in_order=1.0, order_by="time")
    data = map_arrays(torch.as_tensor, make_batch(Walk(), options, 1, 0).data)
    loss = Loss(network(Walk()))
    own = 0
    for index in range(9):
        buffer = data["buffer"]["outcomes"]["y"].clone().requires_grad_()
        one = {
            **data,
            "buffer": {**data["buffer"], "outcomes": {"y": buffer}},
            "targets": map_arrays(lambda x, index=index: x[..., index : index + 1], data["targets"]),
            "visible": data["visible"][..., index : index + 1],
        }
        (slope,) = torch.autograd.grad(loss(one), buffer)
        seen = torch.arange(4) < one["visible"]
        assert (slope[~seen] == 0).all() and (slope[seen] != 0).all()
        own += int((data["buffer"]["inputs"]["time"] == one["targets"]["inputs"]["time"]).sum())
    assert own > 0


@pytest.mark.parametrize(
    ("simulator", "options", "message"),
    [
        (Shift(), {"forecasting": 0.5}, "gap_filling, in_order: expected 0 for a schema without a continuous input"),
        (Walk(), {"in_order": 0.5}, r"order_by: expected a continuous input, one of \['place', 'time'\], got None"),
        (Walk(), {"in_order": 0.5, "order_by": "kind"}, "order_by: expected a continuous input, .* got 'kind'"),
        (
            Walk(),
            {"forecasting": 0.7, "gap_filling": 0.5, "order_by": "time"},
            r"gap_filling: expected a share .* that do not forecast, at most 0.3, got 0.5",
        ),
        (Walk(), {"order_by": "time"}, "order_by: expected None where .* and in_order are all 0, got 'time'"),
    ],
)
def test_an_order_that_a_schema_does_not_have_is_refused(simulator, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(simulator, TINY, steps=1, out=tmp_path, **SMALL, **options)


def test_training_takes_them_and_a_run_goes_on_with_the_same_alone(tmp_path):
    names = {"targets": 5, "forecasting": 0.5, "gap_filling": 0.25, "in_order": 0.25, "order_by": "time"}
    options = {**SMALL, "batch_size": 3, "context": (0, 4), **names}
    net = train(Walk(), TINY, steps=2, out=tmp_path, **options)
    assert {name: net.record.provenance[name] for name in names} == names
    with pytest.raises(ValueError, match=r"in_order was 0.25, is None; targets was 5, is 6"):
        train(Walk(), TINY, steps=2, out=tmp_path, **{**options, "in_order": 0.0, "targets": 6})
    run, steps = RunOptions(tmp_path), OptimizationOptions(steps=2)
    plain = TrainingPlan(Walk(), TINY, 0, BatchOptions(), steps, run)
    # A run that uses none of them is one of before there were such, and the direct likelihood never does.
    assert not {*names} & {*plain.fingerprint()}
    direct = TrainingPlan(Walk(), TINY, 0, BatchOptions(**names), steps, run, part="likelihood")
    assert not {*names} & {*direct.fingerprint()}


def test_stored_data_sets_that_forecast_or_fill_a_gap_are_runs():
    # Unequal lengths, stored in no order of time; an outcome says whose it is and when.
    rng = np.random.default_rng(0)
    time = rng.permuted(np.broadcast_to(np.arange(31.0), (13, 31)), axis=1)
    codes = 100 * np.arange(13.0)[:, None] + time
    for row, length in enumerate(rng.integers(14, 32, 13)):
        time[row, length:] = codes[row, length:] = np.nan
    simulator = pb.DatasetSimulator({"y": codes}, {"time": time}, ordered=False)
    options = {"batch_size": 5, "trials": (3, 3), "context": (1, 4), "targets": 7, "in_order": 0.5}
    gaps, starts = {"": 0, "forecasting": 0, "gap_filling": 0}, set()
    for kind in gaps:
        for step in range(30):
            batch = make_batch(simulator, BatchOptions(**options, **({kind: 1.0} if kind else {})), 0, step).data
            parts = [batch[part] for part in ("context", "buffer", "targets")]
            y = np.concatenate([part["outcomes"]["y"][:, 0] for part in parts], 1)
            context, stored = y.shape[1] - 10, simulator.stored_sets
            assert ((y // 100) == (y // 100)[:, :1]).all()
            for row in y:
                who = int(row[0] // 100)
                place = np.searchsorted(np.sort(stored.data["y"][who, : stored.lengths[who]]), row)
                first = place[:context].min()
                gaps[kind] += int(place[:context].max() - first != context - 1)
                if kind:
                    assert place.max() - place.min() <= context + 9
                    starts.add(int(first))
    assert gaps["forecasting"] == 0 < min(gaps[""], gaps["gap_filling"]) and len(starts) > 5
    with pytest.raises(ValueError, match="longest have .* trials, got 34, context, buffer and targets together"):
        train(simulator, TINY, steps=1, progress=False, **{**options, "context": (0, 24)})
