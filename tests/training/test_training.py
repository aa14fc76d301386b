import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch
from safetensors.numpy import save as to_safetensors
from scipy import stats

import ppl_buffer as pb
from ppl_buffer.files import read_arrays
from ppl_buffer.network import heads
from ppl_buffer.network.checkpoint import digest
from ppl_buffer.network.torch.network import Cache, encode, encode_params, extend, predict, prepare
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.training import batches, standardization
from ppl_buffer.training.batches import HELD_OUT, BatchOptions, make_batch, map_arrays
from ppl_buffer.training.draws import RejectionCounts
from ppl_buffer.training.loading import make_loader, start_workers
from ppl_buffer.training.loop import train
from ppl_buffer.training.loss import Loss
from ppl_buffer.training.optimizers import learning_rate_at
from ppl_buffer.training.options import OptimizationOptions, RunOptions, TrainingPlan

TINY = pb.Config(width=12, depth=2, heads=3, mlp=14, components=5, param_depth=1, contextual_positions=2)


class Shift:
    """y = mu + Normal(0, 1), mu ~ Normal(0, 2): everything about it is known exactly."""

    schema = pb.Schema(params={"mu": pb.Real()}, outcomes={"y": pb.Real()}, independent=True)
    priors = {"mu": pb.Prior("Normal", {"loc": 0.0, "scale": 2.0})}
    share_of_nan = 0.0
    in_process = True

    def prior(self, rng, size):
        return {"mu": rng.normal(0, 2, size)}

    def inputs(self, rng, size, trials):
        return {}

    def simulate(self, rng, params, inputs, trials):
        y = params["mu"][:, None] + rng.normal(size=(len(params["mu"]), trials))
        y[rng.random(len(y)) < self.share_of_nan, -1] = np.nan
        return {"y": y}


class ChoiceTime:
    """Ordered, with a choice, a response time and feedback; the simulator knows its own choice probabilities."""

    schema = pb.Schema(
        params={"a": pb.Interval(0, 1, closed=True), "b": pb.Positive()},
        inputs={"cue": pb.Categorical(3)},
        outcomes={"choice": pb.Categorical(2), "rt": pb.Positive(above="b")},
        feedback={"reward": pb.Real()},
        ordered=True,
    )
    atoms = {"a": 0.0}

    def prior(self, rng, size):
        return {"a": rng.uniform(0.2, 0.9, size), "b": rng.lognormal(0, 0.3, size)}

    def inputs(self, rng, size, trials):
        return {"cue": rng.integers(0, 3, (size, trials))}

    def simulate_with_probabilities(self, rng, params, inputs):
        one = 1 / (1 + np.exp(-params["b"][:, None] * (inputs["cue"] - 1)))
        choice = (rng.random(one.shape) < one).astype(int)
        rt = params["b"][:, None] + np.exp(rng.normal(params["a"][:, None] * choice, 0.2))
        data = {"choice": choice, "rt": rt, "reward": choice * rng.random(one.shape)}
        return data, {"choice": np.stack([1 - one, one], -1)}

    def simulate(self, rng, params, inputs):
        return ChoiceTime.simulate_with_probabilities(self, rng, params, inputs)[0]


class Known(Shift):
    """Shift, which says how likely its outcomes are."""

    def log_likelihood(self, params, data):
        return -0.5 * (data["y"] - params["mu"][:, None]) ** 2 - 0.5 * math.log(2 * math.pi)


class Interrupted(ChoiceTime):
    """Ctrl-C arrives when the batch of one of the steps is made."""

    in_process = True
    name = "ChoiceTime"

    def __init__(self, after, how):
        self.after, self.how, self.calls = after, how, 0

    def simulate_with_probabilities(self, rng, params, inputs):
        self.calls += 1
        if self.calls == self.after:
            self.how()
        return super().simulate_with_probabilities(rng, params, inputs)


class Threshold(ChoiceTime):
    name = "ChoiceTime"
    in_process = True


def raise_interrupt():
    raise KeyboardInterrupt


def send_interrupt():
    os.kill(os.getpid(), signal.SIGINT)


SMALL = {"batch_size": 5, "trials": (3, 7), "held_out": 11, "evaluate_every": 3, "progress": False, "workers": 0}


def arrays_of(path, key="ppl_buffer"):
    return read_arrays(path, key, 1, 2)[1]


def same_arrays(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def same_run(first, second):
    """Two run folders hold the same run, to the last bit."""
    same_arrays(arrays_of(first / "best.safetensors"), arrays_of(second / "best.safetensors"))
    states = [read_arrays(folder / "state.safetensors", "ppl_buffer_run", 2) for folder in (first, second)]
    same_arrays(states[0][1], states[1][1])
    assert states[0][0] == states[1][0]
    assert (first / "log.csv").read_text() == (second / "log.csv").read_text()


def loss_of(net, data):
    with torch.no_grad():
        return float(Loss(net)(data))


def tensors(batch):
    return map_arrays(torch.as_tensor, batch.data)


# --- batches ---------------------------------------------------------------------------------------------------------


def flat(tree, path=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{key}/")
        else:
            yield f"{path}{key}", np.asarray(value)


def same_batches(first, second):
    first, second = dict(flat(first)), dict(flat(second))
    same_arrays(first, second)


@pytest.mark.parametrize("simulator", [Shift(), ChoiceTime()])
def test_batch_depends_on_seed_and_step_alone(simulator):
    settings = BatchOptions(batch_size=5, trials=(2, 11), context=(0, 3))
    forward = [make_batch(simulator, settings, 3, step).data for step in range(4)]
    np.random.default_rng(0).random(7)
    backward = [make_batch(simulator, settings, 3, step).data for step in reversed(range(4))][::-1]
    for one, two in zip(forward, backward, strict=True):
        same_batches(one, two)
    for other in (make_batch(simulator, settings, 4, 0), make_batch(simulator, settings, 3, 0, HELD_OUT)):
        assert not any(
            np.array_equal(one, two)
            for one, two in zip(forward[0]["params"].values(), other.data["params"].values(), strict=True)
        )


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a machine with one core
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("processes", [1, 2])
def test_workers_and_processes_make_the_same_batches(workers, processes, tmp_path):
    settings = BatchOptions(batch_size=5, trials=(2, 11))
    run = RunOptions(tmp_path, workers=workers)
    plan = TrainingPlan(ChoiceTime(), TINY, 1, settings, OptimizationOptions(steps=5), run)
    shares = [list(start_workers(make_loader(plan, 2, rank, processes))) for rank in range(processes)]
    for index, step in enumerate(range(2, 5)):
        expected = make_batch(ChoiceTime(), settings, 1, step)
        parts = [dict(flat(share[index][0])) for share in shares]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        same_arrays(joined, dict(flat(expected.data)))
        assert all(share[index][1] == expected.counts for share in shares)
        sizes = [len(part["params/a"]) for part in parts]
        weights = [share[index][2] for share in shares]
        np.testing.assert_allclose(np.array(weights), np.array(sizes) / np.mean(sizes))


def test_shapes_ranges_and_constant_work():
    settings = BatchOptions(batch_size=20, trials=(5, 50), context=(0, 3), condition_masks=3)
    lengths = []
    for step in range(60):
        batch = make_batch(ChoiceTime(), settings, 0, step).data
        size, one, trials = batch["buffer"]["outcomes"]["rt"].shape
        assert one == 1 and 5 <= trials <= 50
        assert batch["conditioned"].shape == (size, 3, 2) and batch["params"]["a"].shape == (size,)
        assert "context" not in batch and "visible" not in batch
        assert abs(size * trials - 20 * math.sqrt(250)) <= trials / 2 + 1
        lengths.append(trials)
    # Log-uniform: half of the lengths lie below the geometric mean, 15.8.
    assert 0.3 < np.mean(np.array(lengths) < 15.8) < 0.7


def test_context_buffer_and_targets_are_disjoint_and_prefixes_uniform():
    class Numbered(Shift):
        """Each trial's outcome says which trial it is."""

        def simulate(self, rng, params, inputs, trials):
            return {"y": np.broadcast_to(np.arange(trials), (len(params["mu"]), trials))}

    settings = BatchOptions(batch_size=7, trials=(5, 5), context=(0, 4), condition_masks=2)
    contexts, visibles = [], {True: [], False: []}
    for step in range(160):
        batch = make_batch(Numbered(), settings, 0, step).data
        context = (
            batch["context"]["outcomes"]["y"] if "context" in batch else np.zeros((len(batch["conditioned"]), 1, 0))
        )
        parts = [context, batch["buffer"]["outcomes"]["y"], batch["targets"]["outcomes"]["y"]]
        together = np.sort(np.concatenate(parts, -1)[:, 0])
        np.testing.assert_array_equal(together, np.broadcast_to(np.arange(together.shape[1]), together.shape))
        contexts.append(context.shape[-1])
        assert (batch["visible"][batch["conditioned"].all(-1)] == 0).all()
        visibles[contexts[-1] > 0].append(batch["visible"][~batch["conditioned"].all(-1)].ravel())
    assert set(contexts) == {0, 1, 2, 3, 4}
    # Half of the targets see the context alone; without one, each prefix that a density in one pass has.
    for has_context, expected in ((True, [0.5, *[0.1] * 5]), (False, [*[0.2] * 5, 0])):
        visible = np.concatenate(visibles[has_context])
        shares = np.bincount(visible, minlength=6) / visible.size
        np.testing.assert_allclose(shares, expected, atol=0.03)


def test_contexts_are_log_uniform():
    for least, greatest, share in ((0, 100, 0.25), (0, 50, 0.7), (4, 400, 0.7)):
        settings = BatchOptions(batch_size=9, trials=(3, 3), context=(least, greatest), context_free_fraction=share)
        sizes, work = [], []
        for step in range(400):
            batch = make_batch(Shift(), settings, 1, step).data
            sizes.append(batch["context"]["outcomes"]["y"].shape[-1] if "context" in batch else 0)
            work.append(len(batch["conditioned"]) * (3 + sizes[-1]))
        sizes = np.array(sizes)
        # The share without a context, if that is in the range; the others up to and above the geometric mean alike.
        none = (sizes == 0).mean()
        assert abs(none - share) < 0.08 if least == 0 else none == 0
        some, low = sizes[sizes > 0], max(least, 1)
        assert some.min() == low and greatest >= some.max() > 0.9 * greatest
        assert abs((some < math.sqrt(low * greatest)).mean() - 0.5) < 0.1
        # A batch holds about as many trials as nine data sets of the geometric means.
        assert max(work) <= 1.5 * 9 * (3 + math.sqrt(low * greatest))


@pytest.mark.parametrize("simulator", [Shift(), pb.simulators.RLDriftDiffusion(), pb.simulators.DriftDiffusion()])
def test_redraws_change_nothing_else(simulator):
    once, often = (
        BatchOptions(batch_size=5, trials=(2, 11), context=(0, 3), outcome_samples=count) for count in (1, 4)
    )
    for step in range(3):
        plain, batch = (make_batch(simulator, settings, 2, step).data for settings in (once, often))
        again = batch.pop("resampled")
        same_batches(plain, batch)
        outcomes = batch["targets"]["outcomes"]
        assert list(again) == list(simulator.schema.outcomes)
        for name, x in outcomes.items():
            assert again[name].shape == (*x.shape, 3) and again[name].dtype == np.float32
        last = list(outcomes)[-1]  # a number: no two draws of it are the same
        together = np.concatenate([outcomes[last][..., None], again[last]], -1)
        assert all(len(set(row)) == 4 for row in together.reshape(-1, 4))


def test_redraws_have_the_parameters_of_their_data_set_and_the_inputs_of_their_target():
    class Sum(Shift):
        """y = mu + x exactly, and a redraw in four is no number."""

        schema = pb.Schema(
            params={"mu": pb.Real()}, inputs={"x": pb.Real()}, outcomes={"y": pb.Real()}, independent=True
        )
        calls = 0

        def inputs(self, rng, size, trials):
            return {"x": rng.normal(size=(size, trials))}

        def simulate(self, rng, params, inputs):
            self.calls += 1
            y = params["mu"][:, None] + inputs["x"]
            return {"y": np.where((rng.random(y.shape) < 0.25) & (self.calls > 1), np.nan, y + self.calls - 1)}

    batch = make_batch(Sum(), BatchOptions(batch_size=7, trials=(5, 5), context=(3, 3), outcome_samples=41), 0, 0).data
    expected = batch["params"]["mu"][:, None, None] + batch["targets"]["inputs"]["x"]
    np.testing.assert_allclose(batch["targets"]["outcomes"]["y"], expected, rtol=1e-6)
    surplus = batch["resampled"]["y"] - expected[..., None]
    # Drawn by the second call, or where that is not legal, the target's own outcome.
    assert (np.isclose(surplus, 1, atol=1e-5) | np.isclose(surplus, 0, atol=1e-5)).all()
    assert abs(surplus.mean() - 0.75) < 0.06


def test_redraws_need_independent_trials_or_a_method(tmp_path):
    with pytest.raises(
        ValueError,
        match="outcome_samples: expected 1, or a simulator with a method resample_outcomes, since trials of C",
    ):
        train(ChoiceTime(), TINY, steps=2, out=tmp_path, outcome_samples=2, **SMALL)
    wrong = type("Wrong", (pb.simulators.RLDriftDiffusion,), {"resample_outcomes": lambda self, *_: {"choice": 1}})
    with pytest.raises(ValueError, match=r"simulator.resample_outcomes: expected \['choice', 'rt'\], got \['choice'\]"):
        train(wrong(), TINY, steps=2, out=tmp_path, outcome_samples=2, **SMALL)


def test_told_sets():
    conditioned = batches.condition_masks(np.random.default_rng(0), 20_011, 3, 2)
    assert conditioned[:, 0].all()
    for index in (1, 2):
        nothing, both = ~conditioned[:, index].any(-1), conditioned[:, index].all(-1)
        assert abs(nothing.mean() - (0.35 + 0.65 / 4)) < 0.02
        assert abs(both.mean() - 0.65 / 4) < 0.02
    conditioned = batches.condition_masks(np.random.default_rng(0), 20_011, 2, 3, [False, True, False])
    only_special = (conditioned[:, 1] == [False, True, False]).all(-1)
    assert conditioned[:, 0].all()
    assert abs(only_special.mean() - (0.25 + 0.4 / 8)) < 0.02


def test_special_value_only_where_it_is_told():
    settings = BatchOptions(batch_size=400, trials=(2, 2))
    batch = make_batch(ChoiceTime(), settings, 0, 0).data
    special, always_told = batch["params"]["a"] == 0, batch["conditioned"][:, :, 0].all(1)
    assert not special[~always_told].any()
    assert 0.35 < special[always_told].mean() < 0.65


def test_half_of_the_training_batches_tell_all_where_told_parameters_have_a_distribution_of_their_own():
    class Two(Shift):
        schema = pb.Schema(params={"mu": pb.Real(), "nu": pb.Real()}, outcomes={"y": pb.Real()})

        def prior(self, rng, size):
            return {"mu": rng.normal(0, 2, size), "nu": rng.normal(0, 1, size)}

        def proposal(self, rng, size):
            return {"mu": rng.uniform(5, 7, size), "nu": rng.uniform(-3, -2, size)}

    settings = BatchOptions(batch_size=11, trials=(2, 5), context=(0, 3), condition_masks=3)
    found = []
    for step in range(200):
        batch = make_batch(Two(), settings, 3, step).data
        conditioned, mu = batch["conditioned"], batch["params"]["mu"]
        apart = batch["params"]["nu"] < -1.9
        found.append(conditioned.shape[1] == 1)
        if found[-1]:
            assert conditioned.all() and ((5 <= mu) & (mu <= 7)).all() and apart.all()
            # An outcome is given its own parameters.
            assert abs(batch["targets"]["outcomes"]["y"].mean() - 6) < 2
        else:
            assert (
                conditioned.shape[1] == 3
                and not conditioned.all()
                and not (((5 <= mu) & (mu <= 7)).all() and apart.all())
            )
    assert abs(np.mean(found) - 0.5) < 0.12
    # What is held out is of the prior alone.
    assert all(make_batch(Two(), settings, 3, step, HELD_OUT).data["conditioned"].shape[1] == 3 for step in range(20))
    broken = type("Broken", (Two,), {"proposal": lambda self, rng, size: {"mu": np.zeros(size)}})
    with pytest.raises(ValueError, match=r"simulator.proposal: expected \['mu', 'nu'\], got \['mu'\]"):
        for step in range(9):
            make_batch(broken(), settings, 3, step)


def test_batches_hold_the_density_that_the_simulator_knows():
    class Often(Known):
        def proposal(self, rng, size):
            return {"mu": rng.uniform(5, 7, size)}

    without = BatchOptions(batch_size=11, trials=(2, 5), context=(0, 3), outcome_samples=4)
    settings = replace(without, use_log_likelihood=True)
    kinds = set()
    for step in range(20):
        batch = make_batch(Often(), settings, 3, step).data
        y, mu = batch["targets"]["outcomes"]["y"], batch["params"]["mu"][:, None, None]
        np.testing.assert_allclose(batch["conditioned_log_likelihood"], stats.norm.logpdf(y, mu), rtol=2e-6)
        # Where nothing is hidden no outcome is drawn again: the density has no noise.
        kinds.add((batch["conditioned"].shape[1], "resampled" in batch))
        for data in (make_batch(Often(), settings, 3, step, HELD_OUT).data, make_batch(Often(), without, 3, step).data):
            assert "conditioned_log_likelihood" not in data and "resampled" in data
    assert kinds == {(1, False), (2, True)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x[:, 1:],
            r"simulator.log_likelihood: expected numbers below infinity, of shape \(\d, \d\), got shape",
        ),
        (lambda x: np.where(x < -2, np.nan, x), r"simulator.log_likelihood: expected .* with \d+ others"),
    ],
)
def test_a_density_that_does_not_fit_is_refused(change, message):
    broken = type(
        "Broken", (Known,), {"log_likelihood": lambda self, *given: change(Known.log_likelihood(self, *given))}
    )
    with pytest.raises(ValueError, match=message):
        for step in range(9):
            make_batch(
                broken(), BatchOptions(batch_size=7, trials=(3, 5), context=(0, 3), use_log_likelihood=True), 3, step
            )


def test_redrawn_data_sets_keep_their_told_sets():
    class Fussy(ChoiceTime):
        """Nearly half of the data sets fail, which says nothing of where the others belong."""

        def simulate_with_probabilities(self, rng, params, inputs):
            data, probabilities = super().simulate_with_probabilities(rng, params, inputs)
            data["rt"][rng.random(len(data["rt"])) < 0.45] = -1.0
            return data, probabilities

    batch = make_batch(Fussy(), BatchOptions(batch_size=400, trials=(2, 2)), 0, 0)
    assert len(batch.data["params"]["a"]) == 400
    assert (batch.data["targets"]["outcomes"]["rt"] > 0).all()
    special, always_told = batch.data["params"]["a"] == 0, batch.data["conditioned"][:, :, 0].all(1)
    assert special.any() and not special[~always_told].any()
    assert batch.counts.drawn == 400 + batch.counts.dropped and set(batch.counts.variables) == {"rt"}


# --- what a simulator returns ----------------------------------------------------------------------------------------


def wrong(method, change):
    class Wrong(ChoiceTime):
        pass

    original = getattr(ChoiceTime, method)
    setattr(Wrong, method, lambda self, *arguments: change(original(self, *arguments)))
    return Wrong()


def changed(data, **values):
    return {**data, **values}


SWP = "simulate_with_probabilities"


@pytest.mark.parametrize(
    ("simulator", "message"),
    [
        (wrong("prior", lambda x: list(x)), r"simulator.prior: expected a dict of arrays, got list"),
        (wrong("prior", lambda x: {"a": x["a"]}), r"simulator.prior: expected \['a', 'b'\], got \['a'\]"),
        (wrong("prior", lambda x: changed(x, b=x["b"][:, None])), r"simulator.prior: expected 'b' of shape \(\d+,\)"),
        (wrong("inputs", lambda x: {"cue": x["cue"] + 1}), r"simulator.inputs: expected 'cue' .* 0 to 2, got 3"),
        (wrong("inputs", lambda x: {"cue": x["cue"].astype(str)}), r"simulator.inputs: expected 'cue' to hold real"),
        (wrong(SWP, lambda x: x[0]), rf"simulator.{SWP}: expected \(data, probabilities\), got dict"),
        (wrong(SWP, lambda x: (changed(x[0], choice=x[0]["choice"] + 0.5), x[1])), r"expected 'choice' .*, got"),
        (wrong(SWP, lambda x: (x[0], {"rt": 1})), r"expected probabilities of 'choice', got those of \['rt'\]"),
        (wrong(SWP, lambda x: (x[0], {"choice": x[1]["choice"] / 2})), r"probabilities of 'choice' that sum to 1"),
        (wrong(SWP, lambda x: (x[0], {"choice": x[1]["choice"][..., 0]})), r"expected 'choice' of shape"),
    ],
)
def test_wrong_returns_are_refused_by_method(simulator, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(simulator, TINY, steps=2, out=tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"schema": None}, r"simulator.schema: expected a Schema, got None"),
        ({"simulate": None}, r"simulator.simulate: expected a method"),
        ({"priors": {"c": pb.Prior.uniform(0, 1)}}, r"simulator.priors: expected a dict keyed by parameters"),
        ({"priors": {"a": (0, 1)}}, r"simulator.priors\['a'\]: expected a Prior, got \(0, 1\)"),
        (
            {"priors": {"a": pb.Prior("Normal", {"loc": 0.0, "scale": 1.0}, relative_to="b")}},
            r"simulator.priors\['a'\]: expected a prior relative to an earlier parameter that has a prior, .* got 'b'",
        ),
        ({"atoms": {"b": 0.0}}, r"simulator.atoms\['b'\]: expected a number above 0, got 0.0"),
    ],
)
def test_wrong_members_are_refused(members, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(type("Wrong", (ChoiceTime,), members)(), TINY, steps=2, out=tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"batch_size": 2.5}, "batch_size: expected an integer of at least 1, got 2.5"),
        ({"trials": (7, 3)}, r"trials: expected \(least, greatest\), integers of at least 1, got \(7, 3\)"),
        ({"trials": 7}, r"trials: expected \(least, greatest\)"),
        ({"context": (-1, 3)}, r"context: expected \(least, greatest\), integers of at least 0"),
        ({"condition_masks": 0}, "condition_masks: expected an integer of at least 1, got 0"),
        ({"outcome_samples": 0}, "outcome_samples: expected an integer of at least 1, got 0"),
        ({"likelihood_weight": 1.0}, r"likelihood_weight: expected a number in \(0, 1\) or None, got 1.0"),
        ({"context_free_fraction": 1.5}, "context_free_fraction: expected a share from 0 to 1, got 1.5"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0, got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay: expected a number of at least 0, got -1.0"),
        ({"accelerator": "tpu"}, "accelerator: expected one of .*'cuda'.*, got 'tpu'"),
        ({"minutes": 0}, "minutes: expected a number above 0, got 0"),
        ({"devices": 4}, "devices: expected at most 3, the data sets in a batch of the longest"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(ChoiceTime(), TINY, out=tmp_path, **{"steps": 2, **SMALL, **arguments})


class SomeNan(Shift):
    share_of_nan = 0.02


class ManyNan(Shift):
    share_of_nan = 0.2


class AllNan(Shift):
    share_of_nan = 1.0


def test_a_few_failed_data_sets_are_dropped_and_counted(tmp_path):
    net = train(SomeNan(), TINY, steps=20, out=tmp_path, **{**SMALL, "batch_size": 30})
    facts = net.record.provenance
    share = facts["dropped_data_sets"] / facts["data_sets"]
    assert facts["data_sets"] > 500 and 0.005 < share < 0.05
    assert math.isfinite(facts["held_out_loss"])


@pytest.mark.parametrize("simulator", [ManyNan(), AllNan()])
def test_many_failed_data_sets_stop_training(simulator, tmp_path):
    with pytest.raises(ValueError, match=r"all but 5% of the data sets, but \d+ of \d+ are not \(y in \d+\)"):
        train(simulator, TINY, steps=20, out=tmp_path, **SMALL)


def test_failures_that_begin_later_stop_training(tmp_path):
    class Tiring(Shift):
        def __init__(self, calls):
            self.calls = calls

        def simulate(self, rng, params, inputs, trials):
            self.calls -= 1
            y = super().simulate(rng, params, inputs, trials)["y"]
            y[: len(y) if self.calls < 0 else 0, 0] = np.inf
            return {"y": y}

    with pytest.raises(ValueError, match=r"data sets of the held-out loss \d+ of \d+ are not \(y in \d+\)"):
        train(Tiring(1), TINY, steps=20, out=tmp_path, **SMALL)
    with pytest.raises(ValueError, match=r"all but 5% of the data sets, but \d+ of \d+ are not \(y in \d+\)"):
        train(Tiring(9), TINY, steps=20, out=tmp_path, **SMALL)


def test_few_data_sets_decide_nothing():
    RejectionCounts(drawn=199, dropped=100).check()
    RejectionCounts(drawn=200, dropped=10).check()
    with pytest.raises(ValueError, match="11 of 200"):
        RejectionCounts(drawn=200, dropped=11).check()


# --- the loss --------------------------------------------------------------------------------------------------------


def network(simulator, seed=0):
    return TorchNetwork(simulator.schema, TINY, dict.fromkeys(simulator.schema.standardized, (0.3, 1.7)), seed=seed)


def rows(group, where):
    return {kind: {name: x[..., where] for name, x in values.items()} for kind, values in group.items()}


def test_ordered_loss_is_that_of_one_trial_at_a_time():
    class Plain(ChoiceTime):
        simulate_with_probabilities = None

    simulator = Plain()
    net = network(simulator)
    batch = make_batch(simulator, BatchOptions(batch_size=5, trials=(4, 4)), 0, 0)
    data = tensors(batch)
    terms = []
    with torch.no_grad():
        for b in range(len(batch.data["conditioned"])):
            for conditioned in batch.data["conditioned"][b]:
                # Only what is told is given at all.
                params = {
                    name: data["params"][name][b].reshape(1, 1)
                    for name, known in zip(simulator.schema.params, conditioned, strict=True)
                    if known
                }
                one = {kind: {name: x[b : b + 1] for name, x in v.items()} for kind, v in data["buffer"].items()}
                for k in range(4):
                    cache = Cache()
                    if k:
                        cache = extend(net, cache, rows(one, slice(k)), torch.ones(1, 1, k, dtype=torch.bool))
                    target = rows(one, slice(k, k + 1))
                    prepared = prepare(net, cache, target["inputs"], torch.tensor([k]), (1, 1, 1))
                    representation = predict(net, prepared, encode_params(net, params))
                    terms.append(-heads.trial_log_prob(net, representation, target["outcomes"]).item())
        assert loss_of(net, data) == pytest.approx(np.mean(terms), rel=1e-5)


def test_exchangeable_loss_is_that_of_one_target_at_a_time():
    simulator = Shift()
    net = network(simulator)
    settings = BatchOptions(batch_size=5, trials=(3, 3), context=(2, 2))
    data = tensors(make_batch(simulator, settings, 0, 1))
    terms = []
    with torch.no_grad():
        for b, sets in enumerate(data["conditioned"]):
            one = {
                part: {kind: {name: x[b : b + 1] for name, x in v.items()} for kind, v in data[part].items()}
                for part in ("context", "buffer", "targets")
            }
            for r, conditioned in enumerate(sets):
                params = {"mu": data["params"]["mu"][b].reshape(1, 1)} if conditioned[0] else {}
                for m in range(3):
                    k = int(data["visible"][b, r, m])
                    cache = encode(net, one["context"], torch.ones(1, 1, 2, dtype=torch.bool))
                    if k:
                        cache = extend(net, cache, rows(one["buffer"], slice(k)), torch.ones(1, 1, k, dtype=torch.bool))
                    prepared = prepare(net, cache, {}, torch.tensor([k]), (1, 1, 1))
                    representation = predict(net, prepared, encode_params(net, params))
                    y = rows(one["targets"], slice(m, m + 1))["outcomes"]
                    terms.append(-heads.trial_log_prob(net, representation, y).item())
        assert loss_of(net, data) == pytest.approx(np.mean(terms), rel=1e-5)


def test_certain_probabilities_are_the_drawn_category():
    simulator = ChoiceTime()
    net = network(simulator)
    data = tensors(make_batch(simulator, BatchOptions(batch_size=5, trials=(4, 4)), 0, 0))
    soft = loss_of(net, data)
    data["probabilities"] = torch.nn.functional.one_hot(data["targets"]["outcomes"]["choice"].long(), 2).float()
    certain = loss_of(net, data)
    del data["probabilities"]
    assert certain == pytest.approx(loss_of(net, data), rel=1e-6)
    assert abs(soft - certain) > 1e-4


def test_learning_rate():
    rates = [learning_rate_at(step, 107, 7, 0.5) for step in range(108)]
    np.testing.assert_allclose(rates[:8], [0.5 * k / 7 for k in range(1, 8)] + [0.5])
    assert rates[57] == pytest.approx(0.5 * 0.51) and rates[107] == pytest.approx(0.01)
    assert np.all(np.diff(rates[7:]) < 0)


@pytest.mark.parametrize("simulator", [Shift(), pb.simulators.RLDriftDiffusion()])
def test_loss_of_redraws_is_the_mean_over_them(simulator):
    settings = BatchOptions(batch_size=3, trials=(5, 7), context=(0, 2), outcome_samples=4)
    for step in range(2):
        data = tensors(make_batch(simulator, settings, 1, step, HELD_OUT))
        net = TorchNetwork(simulator.schema, TINY, standardization.standardize(simulator, settings)[0], seed=1)
        again = data.pop("resampled")
        losses = [loss_of(net, data)]
        for index in range(3):
            targets = {**data["targets"], "outcomes": {name: x[..., index] for name, x in again.items()}}
            losses.append(loss_of(net, {**data, "targets": targets}))
        assert max(losses) - min(losses) > 1e-3
        assert loss_of(net, {**data, "resampled": again}) == pytest.approx(np.mean(losses), rel=1e-5)


def test_redraws_lessen_the_noise_of_the_gradient():
    class Same(pb.simulators.DriftDiffusion):
        """Where the parameters never change, all noise is that of the outcomes."""

        atoms = None

        def prior(self, rng, size):
            return {name: np.full(size, 0.7) for name in self.priors}

    simulator = Same()
    noise = []
    for outcome_samples in (1, 8):
        settings = BatchOptions(
            batch_size=4, trials=(7, 7), context=(0, 0), condition_masks=1, outcome_samples=outcome_samples
        )
        net = TorchNetwork(
            simulator.schema, TINY, standardization.standardize(simulator, settings)[0], seed=1
        ).requires_grad_(True)
        gradients = []
        for step in range(60):
            net.zero_grad()
            Loss(net)(tensors(make_batch(simulator, settings, 1, step))).backward()
            gradients.append(np.concatenate([x.grad.ravel() for x in net.parameters() if x.grad is not None]))
        noise.append(np.var(gradients, axis=0).sum())
    assert 0.08 < noise[1] / noise[0] < 0.19


def test_told_weight_weighs_the_set_that_tells_all():
    simulator = ChoiceTime()
    settings = BatchOptions(batch_size=5, trials=(5, 7), condition_masks=3)
    data = tensors(make_batch(simulator, settings, 1, 0))
    net = TorchNetwork(simulator.schema, TINY, standardization.standardize(simulator, settings)[0], seed=1)
    parts = [loss_of(net, {**data, "conditioned": data["conditioned"][:, index : index + 1]}) for index in range(3)]
    assert loss_of(net, data) == pytest.approx(np.mean(parts), rel=1e-6)
    with torch.no_grad():
        found = float(Loss(net, 0.9)(data))
        alone = float(Loss(net, 0.9)({**data, "conditioned": data["conditioned"][:, :1]}))
    assert found == pytest.approx(0.9 * parts[0] + 0.05 * (parts[1] + parts[2]), rel=1e-6)
    assert alone == pytest.approx(parts[0], rel=1e-6)


# --- training --------------------------------------------------------------------------------------------------------


def exact_loss(batches):
    """Of `Shift`: a target given mu, or given the mean of what it sees."""
    terms = []
    for batch in batches:
        data = batch.data
        y = data["targets"]["outcomes"]["y"].astype(float)
        none = np.zeros((len(y), 1, 0))
        context = data["context"]["outcomes"]["y"] if "context" in data else none
        buffer = data["buffer"]["outcomes"]["y"]
        sums = np.concatenate([np.zeros((len(y), 1, 1)), buffer.cumsum(-1)], -1)
        visible = np.broadcast_to(data["visible"], (*data["conditioned"].shape[:2], y.shape[-1]))
        seen = np.take_along_axis(np.broadcast_to(sums, (*visible.shape[:2], sums.shape[-1])), visible, -1)
        seen = seen + context.sum(-1, keepdims=True)
        count = visible + context.shape[-1]
        precision = 1 / 4 + count
        conditioned = data["conditioned"]
        mean = np.where(conditioned, data["params"]["mu"][:, None, None], seen / precision)
        variance = np.where(conditioned, 1.0, 1 + 1 / precision)
        terms.append((0.5 * np.log(2 * np.pi * variance) + 0.5 * (y - mean) ** 2 / variance).ravel())
    return np.concatenate(terms).mean()


def test_loss_where_all_is_told_is_the_error_of_the_known_density():
    scales = {"a": (0.1, 1.1), "b": (0.0, 1.0), "rt": (0.2, 0.7), "rt - b": (0.1, 0.8), "reward": (0.1, 0.9)}
    net = TorchNetwork(ChoiceTime.schema, TINY, scales, seed=2)
    data = tensors(make_batch(ChoiceTime(), BatchOptions(batch_size=7, trials=(5, 5), condition_masks=3), 1, 0))
    with torch.no_grad():
        told_alone = {**data, "conditioned": data["conditioned"][:, :1]}
        told_alone.pop("probabilities")
        rows = []
        for row in range(len(data["conditioned"])):
            one = map_arrays(lambda x, row=row: x[row : row + 1], told_alone)
            # The mean of the first n trials gives the conditionals.
            totals = [0.0]
            for count in range(1, 6):
                shorter = {**one, **{group: map_arrays(lambda x, n=count: x[..., :n], one[group]) for group in
                                     ("buffer", "targets")}}  # fmt: skip
                totals.append(-count * float(Loss(net)(shorter)))
            rows.append(np.diff(totals))
        own = np.array(rows)
        shift = np.array([0.3, -0.1, 0.2, 0.05, -0.7])
        truth = torch.as_tensor((own - shift).astype(np.float32))[:, None]
        known = {**data, "conditioned_log_likelihood": truth}
        found = float(Loss(net, 0.9)(known))
        hidden = float(Loss(net, 0.0)(data))
        without_error = float(Loss(net, 0.0)(known))
        truth = truth.clone()
        truth[:, :, 2:] = -math.inf
        partly = float(Loss(net, 1.0)({**data, "conditioned_log_likelihood": truth}))
        mean_of_all = float(Loss(net)(known))

    def huber(x):
        return np.where(np.abs(x) < 0.5, 0.5 * x**2, 0.5 * (np.abs(x) - 0.25))

    def expected(error):
        return (huber(error) + huber(error.cumsum() / np.sqrt(np.arange(1, 6)))).mean()

    assert without_error == pytest.approx(hidden, rel=1e-5)
    assert found == pytest.approx(0.9 * expected(shift) + 0.1 * hidden, rel=1e-4)
    assert mean_of_all == pytest.approx((expected(shift) + 2 * hidden) / 3, rel=1e-4)
    # What has no density teaches nothing.
    assert partly == pytest.approx(expected(np.where(np.arange(5) < 2, shift, 0.0)), rel=1e-4)


def test_a_known_density_is_learnt_faster_than_draws(tmp_path):
    """Root-mean-square error of the log density of a trial at the same number of steps, from the same weights."""
    rng = np.random.default_rng(5)
    mu = rng.normal(0, 2, (211, 1))
    y = mu + rng.normal(size=(211, 7))
    errors = []
    settings = {"batch_size": 32, "trials": (7, 13), "held_out": 16, "evaluate_every": 200, "progress": False}
    settings |= {"steps": 400, "learning_rate": 5e-3, "seed": 3, "workers": 0}
    for known in (False, True):
        net = train(Known(), TINY, out=tmp_path / f"known {known}", use_log_likelihood=known, **settings)
        with torch.no_grad():
            query = Query.build(net, {}, trials=7, params={"mu": mu[:, 0]})
            conditioned = density.conditionals(query, torch.as_tensor(y))
        errors.append(np.sqrt(np.mean((conditioned.numpy() - stats.norm.logpdf(y, mu)) ** 2)))
        assert net.record.provenance["use_log_likelihood"] is known
    assert errors[1] < 0.8 * errors[0]
    with pytest.raises(ValueError, match="use_log_likelihood: expected False, or a simulator .*, got True with Shift"):
        train(Shift(), TINY, out=tmp_path / "unknown", use_log_likelihood=True, **settings)


def test_exchangeable_training_reaches_the_exact_density(tmp_path):
    settings = {"batch_size": 24, "trials": (2, 6), "context": (0, 4)}
    config = pb.Config(width=16, depth=2, heads=2, mlp=32, components=3, param_depth=2)
    net = train(
        Shift(),
        config,
        steps=400,
        seed=1,
        out=tmp_path,
        **{**SMALL, **settings, "evaluate_every": 100},
        learning_rate=1e-2,
    )
    batches = [make_batch(Shift(), BatchOptions(**settings), 99, step, HELD_OUT) for step in range(40)]
    with torch.no_grad():
        terms = [
            (loss_of(net, tensors(b)), b.data["conditioned"].shape[0] * b.data["visible"].shape[-1]) for b in batches
        ]
    loss = sum(value * count for value, count in terms) / sum(count for _, count in terms)
    assert -0.005 < loss - exact_loss(batches) < 0.03


@pytest.mark.parametrize("simulator", [Shift(), ChoiceTime()], ids=["exchangeable", "ordered"])
def test_a_network_that_grows_predicts_the_same_at_first_and_uses_what_is_new(simulator, tmp_path):
    small = train(simulator, TINY, steps=3, out=tmp_path / "small", **SMALL)
    batch = tensors(make_batch(simulator, BatchOptions(SMALL["batch_size"], SMALL["trials"]), 7, 3))
    config = replace(TINY, depth=5, asinh_scales=2)
    settings = {"learning_rate": 1e-12, "weight_decay": 0.0, "start": small, **SMALL}
    grown = train(simulator, config, steps=1, out=tmp_path / "still", **settings)
    assert grown.config == config
    assert loss_of(grown, batch) == pytest.approx(loss_of(small, batch), abs=1e-5)
    # Again from what has grown, by scales alone: what was read stays in its columns.
    more, settings["start"] = replace(config, asinh_scales=3), grown
    again = train(simulator, more, steps=1, out=tmp_path / "again", **settings)
    assert loss_of(again, batch) == pytest.approx(loss_of(small, batch), abs=1e-5)
    settings |= {"start": small, "learning_rate": 1e-2}
    moved = train(simulator, config, steps=30, out=tmp_path / "moved", **settings)
    new = [f"layers.{index}.{leaf}.weight" for index in (1, 2, 3) for leaf in ("merge", "mlp.out")]
    for name in new:
        assert grown.weights[name].abs().max() < 1e-6 < moved.weights[name].abs().max()
    columns = small.weights["embed.pair.hidden.weight"].shape[1]
    assert moved.weights["embed.pair.hidden.weight"][:, columns:].abs().amax(0).min() > 1e-6


def test_ordered_training_learns_and_leaves_its_record(tmp_path):
    net = train(ChoiceTime(), TINY, steps=60, learning_rate=1e-2, out=tmp_path / "new" / "run", **SMALL)
    record = net.record
    assert record.simulator == "ChoiceTime" and record.trials == 7 and record.context == 0
    assert record.priors == {"a": None, "b": None}
    low, high = record.box["a"]
    assert low == 0.0 and 0.89 < high < 0.9  # 0 is the special value
    assert 0.1 < record.box["b"][0] < 0.5 and 2.5 < record.box["b"][1] < 6
    with open(tmp_path / "new" / "run" / "log.csv", newline="") as file:
        log = list(csv.DictReader(file))
    held_out = {int(row["step"]): float(row["held_out"]) for row in log if row["held_out"]}
    assert list(held_out) == [0, *range(3, 61, 3)]
    assert min(held_out.values()) == record.provenance["held_out_loss"] < held_out[0] - 0.5
    assert record.provenance["step"] == min(held_out, key=held_out.get)
    assert (tmp_path / "new" / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert not net.training and not any(weight.requires_grad for weight in net.parameters())
    assert not list((tmp_path / "new" / "run").glob(".*"))


def test_schema_without_parameters_and_inputs(tmp_path):
    class Drift:
        schema = pb.Schema(outcomes={"y": pb.Real()})

        def prior(self, rng, size):
            return {}

        def inputs(self, rng, size, trials):
            return {}

        def simulate(self, rng, params, inputs, trials, size):
            return {"y": rng.normal(size=(size, 1)) + rng.normal(size=(size, trials))}

    net = train(Drift(), TINY, steps=4, out=tmp_path, **SMALL)
    assert net.record.box == {} and net.record.context == 64


def test_standardization_is_that_of_the_variables(tmp_path):
    net = train(Shift(), TINY, steps=1, out=tmp_path, **SMALL)
    mean, std = net.standardization["y"]
    assert abs(mean) < 0.5 and abs(std - math.sqrt(5)) < 0.4
    assert abs(net.standardization["mu"][1] - 2) < 0.3


def test_an_outcome_above_a_parameter_has_a_scale_for_the_difference(tmp_path):
    net = train(ChoiceTime(), TINY, steps=1, out=tmp_path, **SMALL)
    settings = BatchOptions(SMALL["batch_size"], SMALL["trials"])
    params, trials, _ = batches.draw(ChoiceTime(), 0, 0, batches.STANDARDIZATION, 256, settings.typical_trials)[0]
    for name, expected in (("rt", trials["rt"]), ("rt - b", trials["rt"] - params["b"][:, None])):
        known = (np.log(expected).mean(), np.log(expected).std())
        assert net.standardization[name] == pytest.approx(known, rel=1e-5)


def test_start_from_a_trained_network(tmp_path):
    first = train(Shift(), TINY, steps=3, seed=1, out=tmp_path / "first", **SMALL)
    checkpoint = tmp_path / "first" / "best.safetensors"
    rate = {"learning_rate": 1e-12, "weight_decay": 0.0, "seed": 2}
    again = train(Shift(), steps=2, out=tmp_path / "again", start=checkpoint, **rate, **SMALL)
    # With steps that go nowhere, what comes out is what it started from, on the same scales.
    for name, weight in first.weights.items():
        np.testing.assert_allclose(again.weights[name], weight, atol=1e-6, err_msg=name)
    assert again.standardization == first.standardization
    other = train(Shift(), TINY, steps=2, out=tmp_path / "other", **rate, **SMALL)
    assert any(not np.allclose(other.weights[name], weight, atol=1e-3) for name, weight in first.weights.items())
    with pytest.raises(ValueError, match="out: .* start"):
        train(Shift(), TINY, steps=2, out=tmp_path / "again", **rate, **SMALL)
    with pytest.raises(ValueError, match="start: expected a network with the simulator's schema"):
        train(ChoiceTime(), steps=2, out=tmp_path / "wrong", start=first, **SMALL)
    for config in (replace(TINY, width=18), replace(TINY, depth=1), replace(TINY, depth=3, mlp=15)):
        with pytest.raises(ValueError, match="config: expected none, or that of start"):
            train(Shift(), config, steps=2, out=tmp_path / "wrong", start=first, **SMALL)
    with pytest.raises(ValueError, match="start: expected a torch network or the name of a checkpoint, got int"):
        train(Shift(), steps=2, out=tmp_path / "wrong", start=3, **SMALL)


def test_the_record_goes_on_from_that_of_the_start(tmp_path):
    first = train(Shift(), TINY, steps=3, seed=1, out=tmp_path / "first", **SMALL)
    settings = {**SMALL, "trials": (2, 5), "learning_rate": 1e-3}
    second = train(Shift(), steps=2, seed=2, out=tmp_path / "second", start=first, **settings)
    third = train(Shift(), steps=4, seed=3, out=tmp_path / "third", start=second, outcome_samples=2, **settings)
    assert len(first.record.stages) == 1 and second.record.stages[:1] == first.record.stages
    stages = third.record.stages
    assert stages[:2] == second.record.stages and len(stages) == 3
    assert [stage.start for stage in stages] == [None, digest(first), digest(second)]
    assert [(stage.seed, stage.steps, stage.learning_rate) for stage in stages] == [
        (1, 3, 2e-3),
        (2, 2, 1e-3),
        (3, 4, 1e-3),
    ]
    assert [stage.options["trials"] for stage in stages] == [[3, 7], [2, 5], [2, 5]]
    assert [stage.options["outcome_samples"] for stage in stages] == [1, 1, 2]
    assert third.record.provenance["seed"] == 3 and third.record.provenance["outcome_samples"] == 2
    assert all(stage.versions["torch"] == str(torch.__version__) and stage.date for stage in stages)
    assert pb.load(tmp_path / "third" / "best.safetensors", backend="torch").record == third.record


def test_a_run_of_the_first_version_is_refused(tmp_path):
    train(ChoiceTime(), TINY, steps=2, out=tmp_path, **SMALL)
    path = tmp_path / "state.safetensors"
    description, arrays = read_arrays(path, "ppl_buffer_run", 2)
    content = {"ppl_buffer_run": json.dumps({**description, "format": 1})}
    path.write_bytes(to_safetensors(arrays, metadata=content))
    with pytest.raises(ValueError, match="out: .* holds a run that version 0.1 of ppl_buffer began .* resume=False"):
        train(ChoiceTime(), TINY, steps=2, out=tmp_path, **SMALL)
    train(ChoiceTime(), TINY, steps=2, out=tmp_path, resume=False, **SMALL)


def test_seeds_differ_and_repeat(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(ChoiceTime(), TINY, steps=4, seed=seed, out=tmp_path / name, **{**SMALL, "workers": int(name == "b")})
    same_run(tmp_path / "a", tmp_path / "b")
    one, other = (arrays_of(tmp_path / name / "best.safetensors") for name in "ac")
    assert not np.array_equal(one["embed.pair.hidden.weight"], other["embed.pair.hidden.weight"])


def test_training_leaves_the_users_randomness_alone(tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    train(ChoiceTime(), TINY, steps=2, out=tmp_path, **{**SMALL, "workers": 1})
    assert torch.equal(torch.rand(3), expected[0])
    np.testing.assert_array_equal(np.random.rand(3), expected[1])


# --- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "optimizer"), [(raise_interrupt, "adamw"), (send_interrupt, "muon")])
def test_interrupted_run_ends_where_the_other_does(how, optimizer, tmp_path):
    settings = {**SMALL, "optimizer": optimizer}
    train(Threshold(), TINY, steps=11, out=tmp_path / "whole", **settings)
    before = signal.getsignal(signal.SIGINT)
    # Calls of the simulator: 1 the pilot, then the held-out batches, then one a step.
    held_out = len([None for _ in held_out_batches()])
    for after in (1 + held_out + 5, 1 + held_out + 3):
        with pytest.raises(KeyboardInterrupt, match="the same call goes on"):
            train(Interrupted(after, how), TINY, steps=11, out=tmp_path / "parts", **settings)
        pb.load(tmp_path / "parts" / "best.safetensors", backend="torch")
    step = read_arrays(tmp_path / "parts" / "state.safetensors", "ppl_buffer_run", 2)[0]["progress"]["step"]
    assert step == (6 if how is raise_interrupt else 8)
    assert signal.getsignal(signal.SIGINT) is before
    train(Threshold(), TINY, steps=11, out=tmp_path / "parts", **settings)
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_optimizers_differ_and_others_are_refused(tmp_path):
    for optimizer in ("adamw", "muon"):
        train(ChoiceTime(), TINY, steps=4, out=tmp_path / optimizer, **{**SMALL, "optimizer": optimizer})
    one, other = (arrays_of(tmp_path / name / "state.safetensors", "ppl_buffer_run") for name in ("adamw", "muon"))
    # Muon remembers one moment of a matrix inside a layer, AdamW two; elsewhere both are AdamW.
    name = "layers.0.mlp.hidden.weight"
    assert f"optimizer/exp_avg_sq/{name}" in one and f"optimizer/exp_avg_sq/{name}" not in other
    assert f"optimizer/momentum_buffer/{name}" in other
    assert "optimizer/exp_avg_sq/embed.pair.hidden.weight" in other
    with pytest.raises(ValueError, match=r"optimizer: expected one of \['adamw', 'muon'\], got 'sgd'"):
        train(ChoiceTime(), TINY, steps=2, out=tmp_path / "sgd", **{**SMALL, "optimizer": "sgd"})


def held_out_batches():
    size = 0
    for step in range(11):
        if size >= 11:
            return
        batch = make_batch(ChoiceTime(), BatchOptions(batch_size=5, trials=(3, 7)), 0, step, HELD_OUT)
        size += len(batch.data["conditioned"])
        yield batch


def test_limited_time_then_the_same_call_goes_on(tmp_path):
    train(ChoiceTime(), TINY, steps=7, out=tmp_path / "whole", **SMALL)
    with pytest.warns(UserWarning, match=r"training stopped after minutes=1e-09; the same call goes on"):
        net = train(ChoiceTime(), TINY, steps=7, out=tmp_path / "parts", **SMALL, minutes=1e-9)
    assert net.record.provenance["step"] == 0
    train(ChoiceTime(), TINY, steps=7, out=tmp_path / "parts", **SMALL, minutes=60)
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_finished_run_is_not_run_again(tmp_path):
    train(ChoiceTime(), TINY, steps=4, out=tmp_path, **SMALL)
    before = (tmp_path / "state.safetensors").stat().st_mtime_ns
    train(ChoiceTime(), TINY, steps=4, out=tmp_path, **SMALL)
    assert (tmp_path / "state.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 5}, "steps was 4, is 5"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"batch_size": 6}, "batch_size was 5, is 6"),
        ({"config": pb.Config(width=16)}, "config was .*'width': 12.* is .*'width': 16"),
        ({"simulator": Shift()}, "schema was .* simulator was 'ChoiceTime', is 'Shift'"),
    ],
)
def test_folder_of_another_run_is_refused(changes, message, tmp_path):
    call = {"simulator": ChoiceTime(), "config": TINY, "steps": 4, "out": tmp_path, **SMALL}
    train(**call)
    kept = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(ValueError, match=message):
        train(**{**call, **changes})
    assert (tmp_path / "state.safetensors").read_bytes() == kept
    train(**{**call, **changes}, resume=False)
    assert (tmp_path / "state.safetensors").read_bytes() != kept


def test_simulator_that_changed_its_mind_is_refused(tmp_path):
    train(pb.simulators.NoisyQ(), TINY, steps=2, out=tmp_path, **SMALL)
    other = pb.simulators.NoisyQ(reward_probabilities=(0.6, 0.6, 0.6))
    with pytest.raises(ValueError, match="the simulator draws other data .* 'reward'"):
        train(other, TINY, steps=2, out=tmp_path, **SMALL)


def test_damaged_state_is_refused(tmp_path):
    train(ChoiceTime(), TINY, steps=2, out=tmp_path, **SMALL)
    whole = (tmp_path / "state.safetensors").read_bytes()
    (tmp_path / "state.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="damaged"):
        train(ChoiceTime(), TINY, steps=2, out=tmp_path, **SMALL)


def test_endless_gradients_are_left_out_then_stop(tmp_path, monkeypatch):
    """A loss that is no number now and then costs that update only."""
    forward, calls = Loss.forward, []

    def sometimes(self, batch):
        calls.append(self)
        loss = forward(self, batch)
        return loss * math.nan if self.training and len(calls) % 5 == 0 else loss

    monkeypatch.setattr(Loss, "forward", sometimes)
    net = train(ChoiceTime(), TINY, steps=12, out=tmp_path / "a", **{**SMALL, "evaluate_every": 12})
    assert 1 <= net.record.provenance["skipped_updates"] <= 3
    assert math.isfinite(net.record.provenance["held_out_loss"])
    monkeypatch.setattr(Loss, "forward", lambda self, batch: forward(self, batch) * math.nan)
    with pytest.raises(FloatingPointError, match="the gradient was no number in 11 of 11 steps"):
        train(ChoiceTime(), TINY, steps=40, out=tmp_path / "b", **SMALL)


# --- several processes, kills ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    pytest.importorskip("lightning_fabric")
    # An odd batch: the processes' shares differ.
    call = {"config": TINY, "steps": 6, **SMALL, "batch_size": 7, "accelerator": "cpu"}
    one = train(ChoiceTime(), out=tmp_path / "one", **call)
    two = train(ChoiceTime(), out=tmp_path / "two", **call, devices=2)
    assert two.record.provenance["step"] == 6
    for name, weight in one.weights.items():
        torch.testing.assert_close(two.weights[name], weight, rtol=1e-3, atol=1e-5, msg=name)
    losses = [np.loadtxt(tmp_path / name / "log.csv", delimiter=",", skiprows=1, usecols=0) for name in ("one", "two")]
    np.testing.assert_array_equal(*losses)


@pytest.mark.slow
def test_killed_run_leaves_files_that_load_and_go_on(tmp_path):
    script = (
        "import sys, ppl_buffer as pb, torch; torch.set_num_threads(1);"
        "pb.train(pb.simulators.NoisyQ(), pb.Config(width=12, depth=2, heads=3, mlp=14, param_depth=1), steps=60,"
        "out=sys.argv[1], batch_size=5, trials=(3, 7), held_out=11, evaluate_every=1, progress=False)"
    )
    folder = tmp_path / "killed"
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script, str(folder)])
        deadline = time.monotonic() + 60
        while not (folder / "state.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(np.random.default_rng().uniform(0, 1))
        process.kill()
        process.wait()
        pb.load(folder / "best.safetensors", backend="torch")
        json.dumps(read_arrays(folder / "state.safetensors", "ppl_buffer_run", 2)[0])
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True)
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "whole")], check=True)
    same_run(folder, tmp_path / "whole")
