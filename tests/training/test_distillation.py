"""Distillation sets against conjugate posteriors, quadrature over the parameter, and the batches that they make."""

import json

import numpy as np
import pytest
import scipy.stats

import ppl_buffer as pb
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import HELD_OUT, TRAINING, make_batch
from ppl_buffer.training.distillation import (
    DistillationSet,
    DistillationSets,
    draw_systematically,
    make_distillation_batch,
)
from ppl_buffer.training.standardization import standardize
from tests.networks import Case, Record, array, network

PRIOR = scipy.stats.norm(0, 2)


class Shift:
    """y = mu + x + Normal(0, 1), mu ~ Normal(0, 2)."""

    schema = pb.Schema(
        params={"mu": pb.Real()}, inputs={"x": pb.Real()}, outcomes={"y": pb.Real()}, ordered=False, independent=True
    )
    priors = {"mu": pb.Prior("Normal", {"loc": 0.0, "scale": 2.0})}
    in_process = True
    illegal = 0.0

    def prior(self, rng, size):
        return {"mu": rng.normal(0, 2, size)}

    def inputs(self, rng, size, trials):
        return {"x": rng.uniform(-1, 1, (size, trials))}

    def simulate(self, rng, params, inputs):
        y = params["mu"][:, None] + inputs["x"] + rng.normal(size=inputs["x"].shape)
        return {"y": np.where(rng.random(y.shape) < self.illegal, np.nan, y)}


class Patchy(Shift):
    """One draw in nine is no number."""

    illegal = 1 / 9


class Moved(Shift):
    """The likelihood knows y - x alone."""

    def augment(self, rng, data):
        by = rng.normal(size=(len(data["y"]), 1))
        return {name: value + by for name, value in data.items()}


class Elsewhere(Shift):
    """Data that no `Shift` draws: twice as noisy, and heavy-tailed."""

    name = "Elsewhere"

    def simulate(self, rng, params, inputs):
        return {"y": params["mu"][:, None] + 2 * rng.standard_t(3, inputs["x"].shape)}


def distillation_set(rng, trials):
    """A data set of `Elsewhere` under the likelihood of `Shift`, its parameter on a grid."""
    x = rng.uniform(-1, 1, trials)
    y = rng.normal(0, 2) + 2 * rng.standard_t(3, trials)
    grid = np.linspace(-12, 12, 2003)
    log_likelihood = scipy.stats.norm.logpdf(y - x, grid[:, None])
    return DistillationSet({"x": x, "y": y}, {"mu": grid}, log_likelihood, PRIOR.logpdf(grid))


class Prepared(DistillationSets):
    """Sets that no file holds; the first two are for training."""

    def __init__(self, trials):
        self.description = {"trials": trials, "network": "Shift"}
        rng = np.random.default_rng(1)
        self.known = [distillation_set(rng, trials) for _ in range(3)]

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.known[index]


def conjugate(moved, seen):
    """Precision of mu, and its posterior mean, given the first `seen` (n,) of the trials' y - x (B, T)."""
    sums = np.concatenate([np.zeros((len(moved), 1)), moved.cumsum(1)], 1)[:, seen]
    return 1 / 4 + seen, sums / (1 / 4 + seen)


def test_posteriors_and_predictions_along_the_trials_are_the_conjugate_ones():
    rng = np.random.default_rng(0)
    one, order, seen = distillation_set(rng, 11), rng.permutation(11)[:7], np.arange(7)
    cumulative, log_density = one.weigh(order)
    drawn = one.params["mu"][draw_systematically(rng, cumulative, 5001)]
    moved = (one.data["y"] - one.data["x"])[order]
    precision, centre = conjugate(moved[None], seen)
    # Systematic draws: their error is far below that of independent ones.
    np.testing.assert_allclose(drawn.mean(1), centre[0], atol=0.01)
    np.testing.assert_allclose(drawn.std(1), precision**-0.5, rtol=0.02)
    exact = scipy.stats.norm.logpdf(moved, centre[0], np.sqrt(1 + 1 / precision))
    np.testing.assert_allclose(log_density, exact, atol=1e-4)


@pytest.mark.parametrize(("simulator", "context"), [(Patchy(), (0, 0)), (Patchy(), (4, 4)), (Moved(), (4, 4))])
def test_targets_are_the_buffer_and_the_model_predicts_them_from_what_they_see(simulator, context):
    settings = BatchOptions(batch_size=31, trials=(7, 7), context=context, outcome_samples=5)
    scores = []
    for step in range(20):
        batch = make_distillation_batch(simulator, Prepared(13), settings, 0, step, TRAINING).data
        assert not batch["conditioned"].any() and batch["conditioned"].shape[1] == 1
        assert "visible" not in batch
        groups = [batch[name] for name in ("context", "buffer") if name in batch]
        x, y = (
            np.concatenate([group[kind][name][:, 0] for group in groups], 1)
            for kind, name in (("inputs", "x"), ("outcomes", "y"))
        )
        precision, centre = conjugate(y - x, np.arange(7) + context[0])
        centre, scale = centre + x[:, context[0] :], np.sqrt(1 + 1 / precision)
        for kind in ("inputs", "outcomes"):
            assert batch["targets"][kind] is batch["buffer"][kind]
        exact = scipy.stats.norm.logpdf(y[:, context[0] :], centre, scale)
        np.testing.assert_allclose(batch["log_predictive"][:, 0], exact, atol=1e-3)
        again = batch["resampled"]["y"][:, 0]
        assert again.shape == (*centre.shape, 5) and all(len(set(row)) == 5 for row in again.reshape(-1, 5))
        scores.append((again - centre[..., None]) / scale[:, None])
    independent = np.concatenate([x[..., 0].ravel() for x in scores])
    assert scipy.stats.kstest(independent, "norm").pvalue > 1e-3
    assert abs(np.concatenate([x.ravel() for x in scores]).std() - 1) < 0.03


def test_distillation_batches_depend_on_seed_and_step_and_hold_out_some_sets():
    settings = BatchOptions(batch_size=11, trials=(2, 7), context=(0, 5))
    distillation = Prepared(13)
    first, again, other = (
        make_distillation_batch(Shift(), distillation, settings, seed, 3, TRAINING).data["resampled"]["y"]
        for seed in (2, 2, 5)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()
    for stream, indices in ((TRAINING, (0, 1)), (HELD_OUT, (2,))):
        allowed = np.concatenate([distillation[index].data["y"] for index in indices]).astype(np.float32)
        for step in range(7):
            batch = make_distillation_batch(Shift(), distillation, settings, 0, step, stream).data
            assert np.isin(batch["buffer"]["outcomes"]["y"], allowed).all()


def test_a_symmetry_of_the_model_makes_other_sets_of_each():
    settings, distillation = BatchOptions(batch_size=11, trials=(7, 7), context=(0, 0)), Prepared(13)
    known, moved = (
        make_distillation_batch(simulator, distillation, settings, 0, 0, TRAINING).data["buffer"]
        for simulator in (Shift(), Moved())
    )
    x, y = (moved[group][name] - known[group][name] for group, name in (("inputs", "x"), ("outcomes", "y")))
    np.testing.assert_allclose(x, y, atol=1e-5)
    assert len(np.unique(x[:, 0, 0])) == len(x)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda data: data["y"], "simulator.augment: expected a dict of arrays, got ndarray"),
        (lambda data: {"y": data["y"]}, r"simulator.augment: expected \['x', 'y'\], got \['y'\]"),
        (lambda data: {**data, "y": data["y"] * np.nan}, "simulator.augment: expected 'y' to be a finite real number"),
    ],
)
def test_a_symmetry_that_returns_something_else_is_refused(returned, message):
    simulator, settings = Shift(), BatchOptions(batch_size=3, trials=(5, 5), context=(0, 0))
    simulator.augment = lambda rng, data: returned(data)
    with pytest.raises(ValueError, match=message):
        make_distillation_batch(simulator, Prepared(7), settings, 0, 0, TRAINING)


def test_a_past_is_no_longer_than_its_set():
    settings = BatchOptions(batch_size=3, trials=(5, 50), context=(0, 50), context_free_fraction=0.0)
    for step in range(11):
        batch = make_distillation_batch(Shift(), Prepared(7), settings, 0, step, TRAINING).data
        context = batch["context"]["outcomes"]["y"].shape[-1] if "context" in batch else 0
        assert context + batch["buffer"]["outcomes"]["y"].shape[-1] <= 7


RECORD = Record(box={"mu": (-6.0, 6.0)}, priors=Shift.priors, trials=11, context=0, simulator="Shift")
CASE = Case("shift", Shift.schema)
QUIET = {"progress": False}


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_prepared_posteriors_are_those_of_the_networks_likelihood(backend, tmp_path):
    pytest.importorskip(backend)
    net = network(CASE, backend, RECORD)
    distillation = pb.prepare_distillation(net, Elsewhere(), sets=3, trials=5, out=tmp_path, **QUIET)
    # Lessons come in groups that are fitted at once.
    assert len(distillation) == 4 and distillation.description["source"] == "Elsewhere"
    grid = np.linspace(*PRIOR.interval(1 - 1e-9), 801).astype(np.float32)[:, None]
    for one in distillation:
        conditioned = Query.build(net, {"x": one.data["x"][None]}, params={"mu": grid}, outside="ignore")
        by_trial = np.asarray(density.conditionals(conditioned, array(backend, one.data["y"][None])), float)[:, 0]
        rows = {count: by_trial[:, :count].sum(1) + PRIOR.logpdf(grid[:, 0]) for count in (0, 2, 5)}
        rng = np.random.default_rng(0)
        # A set weighs the draws before each trial: one more trial, that none of these sees.
        cumulative, _ = one.weigh(np.append(np.arange(5), 0))
        drawn = one.params["mu"][draw_systematically(rng, cumulative[list(rows)], 2000)]
        for row, log_density in zip(drawn, rows.values(), strict=True):
            weight = np.exp(log_density - log_density.max())
            weight /= weight.sum()
            mean = weight @ grid[:, 0]
            std = np.sqrt(weight @ (grid[:, 0] - mean) ** 2)
            # Hundreds of the set's own draws count.
            assert abs(row.mean() - mean) < 0.25 * std
            assert abs(row.std() / std - 1) < 0.2
        conditioned = Query.build(
            net, {"x": one.data["x"][None]}, params={"mu": one.params["mu"][:, None]}, outside="ignore"
        )
        exact = np.asarray(density.conditionals(conditioned, array(backend, one.data["y"][None])), float)[:, 0]
        np.testing.assert_allclose(one.log_likelihood, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("context", [0, 4])
def test_the_distillation_loss_is_that_of_the_outcome_samples_and_the_error_of_joint_densities(context):
    torch = pytest.importorskip("torch")
    from ppl_buffer.training.batches import map_arrays
    from ppl_buffer.training.loss import Loss

    net = network(CASE, "torch")
    settings = BatchOptions(batch_size=3, trials=(7, 7), context=(context, context), outcome_samples=2)
    batch = make_distillation_batch(Shift(), Prepared(13), settings, 0, 0, TRAINING).data
    x, y = batch["buffer"]["inputs"]["x"][:, 0], batch["buffer"]["outcomes"]["y"][:, 0]
    known = {kind: batch["context"][kind] for kind in ("inputs", "outcomes")} if context else {}
    known = {name: value[:, 0] for arrays in known.values() for name, value in arrays.items()} or None

    def log_density(y):
        query = Query.build(net, {"x": x[:, : y.shape[1]]}, context=known)
        return np.asarray(density.conditionals(query, torch.as_tensor(y)), float)

    error = log_density(y) - batch["log_predictive"][:, 0]
    joint = [error[:, :n].sum(1) / np.sqrt(n) for n in range(1, 8)]
    # Twice Huber's loss is the square below 0.5, and a line from there.
    assert 0 < (abs(error) < 0.5).mean() < 1
    cost = [np.where(abs(x) < 0.5, x**2, 0.5 * (2 * abs(x) - 0.5)).mean() for x in (error, np.array(joint))]
    expected = sum(cost) / 2
    for position in range(7):
        for again in range(2):
            resampled = np.c_[y[:, :position], batch["resampled"]["y"][:, 0, position, again]]
            expected -= log_density(resampled)[:, -1].mean() / 14
    assert float(Loss(net)(map_arrays(torch.as_tensor, batch))) == pytest.approx(expected, rel=1e-4)


def test_preparing_goes_on_after_a_stop_and_refuses_other_sets(tmp_path):
    pytest.importorskip("torch")
    net = network(CASE, "torch", RECORD)
    arguments = {"sets": 7, "trials": 3, **QUIET}
    whole = pb.prepare_distillation(net, Elsewhere(), out=tmp_path / "whole", **arguments)

    class Stopped(Elsewhere):
        calls = 0

        def simulate(self, rng, params, inputs):
            self.calls += 1
            if self.calls == 6:  # three look at its randomness, one is compared with later calls
                raise KeyboardInterrupt
            return super().simulate(rng, params, inputs)

    with pytest.raises(KeyboardInterrupt):
        pb.prepare_distillation(net, Stopped(), out=tmp_path / "parts", **arguments)
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) == 4
    again = pb.prepare_distillation(net, Elsewhere(), out=tmp_path / "parts", **arguments)
    assert [path.read_bytes() for path in again.paths] == [path.read_bytes() for path in whole.paths]
    with pytest.raises(ValueError, match="out: expected an empty folder or one of the same sets"):
        pb.prepare_distillation(net, Elsewhere(), out=tmp_path / "parts", **{**arguments, "trials": 5})

    class Corrected(Elsewhere):
        def simulate(self, rng, params, inputs):
            return {"y": super().simulate(rng, params, inputs)["y"] * 1.001}

    Corrected.__name__ = "Elsewhere"
    with pytest.raises(ValueError, match="out: the simulator draws other data .* 'y' in 100% .* choose another folder"):
        pb.prepare_distillation(net, Corrected(), out=tmp_path / "parts", **arguments)


def test_preparing_refuses_what_cannot_be_distilled(tmp_path):
    pytest.importorskip("torch")
    net = network(CASE, "torch", RECORD)
    ordered = Case("dependent", pb.Schema(params={"mu": pb.Real()}, outcomes={"y": pb.Real()}, ordered=True))
    arguments = {"sets": 2, "trials": 3, "out": tmp_path, **QUIET}
    with pytest.raises(ValueError, match="net: expected a network whose trials are independent given parameters"):
        pb.prepare_distillation(network(ordered, "torch"), Elsewhere(), **arguments)
    with pytest.raises(ValueError, match="net: expected a record that knows the prior of every parameter, but not of"):
        pb.prepare_distillation(network(CASE, "torch"), Elsewhere(), **arguments)
    with pytest.raises(ValueError, match="source: expected the network's schema"):
        pb.prepare_distillation(net, pb.simulators.DriftDiffusion(), **arguments)
    for name, value in (("sets", 1), ("trials", 0), ("seed", -1)):
        with pytest.raises(ValueError, match=f"{name}: expected an integer of at least"):
            pb.prepare_distillation(net, Elsewhere(), **{**arguments, name: value})
    with pytest.raises(ValueError, match="distillation: expected a folder that prepare_distillation wrote"):
        DistillationSets(tmp_path / "nothing")
    for damaged in ("{", "[]", "{}", json.dumps({"trials": "many"})):
        (tmp_path / "lessons.json").write_text(damaged)
        with pytest.raises(ValueError, match="distillation: .*lessons.json' is damaged"):
            DistillationSets(tmp_path)
    (tmp_path / "lessons.json").write_text(json.dumps({"trials": 3}))
    (tmp_path / "000000.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="distillation: .*000000.safetensors' is damaged .*; delete it"):
        DistillationSets(tmp_path)
    (tmp_path / "000000.safetensors").unlink()
    with pytest.raises(ValueError, match="distillation: expected at least two"):
        DistillationSets(tmp_path)


def test_training_uses_distillation_sets_for_their_share_and_goes_on(tmp_path):
    pytest.importorskip("torch")
    net = network(CASE, "torch", RECORD)
    folder = tmp_path / "distillation"
    pb.prepare_distillation(net, Elsewhere(), sets=5, trials=7, out=folder, **QUIET)
    arguments = {
        "steps": 8, "batch_size": 5, "trials": (3, 7), "context": (0, 3), "outcome_samples": 3, "held_out": 11,
        "evaluate_every": 4, "workers": 0, "distillation": folder, "distillation_share": 0.4, **QUIET,
    }  # fmt: skip
    whole = pb.train(Shift(), CASE.config, out=tmp_path / "whole", **arguments)
    with pytest.warns(UserWarning, match="training stopped after"):
        pb.train(Shift(), CASE.config, out=tmp_path / "parts", minutes=1e-9, **arguments)
    parts = pb.train(Shift(), CASE.config, out=tmp_path / "parts", **arguments)
    for name, weight in whole.weights.items():
        np.testing.assert_array_equal(weight, parts.weights[name])
    described = whole.record.provenance["distillation"]
    assert described["sets"] == 8 and described["share"] == 0.4 and described["source"] == "Elsewhere"
    plain = pb.train(Shift(), CASE.config, out=tmp_path / "plain", **{**arguments, "distillation": None})
    assert "distillation" not in plain.record.provenance
    assert any((weight != plain.weights[name]).any() for name, weight in whole.weights.items())
    with pytest.raises(ValueError, match=r"distillation_share: expected a number in \(0, 1\), got 1.0"):
        pb.train(Shift(), CASE.config, out=tmp_path / "bad", **{**arguments, "distillation_share": 1.0})
    schema = pb.Schema(
        params={"mu": pb.Real()}, inputs={"x": pb.Real()}, outcomes={"report": pb.Real()}, independent=True
    )
    renamed = type("Shift", (Shift,), {"schema": schema})
    with pytest.raises(ValueError, match=r"distillation: expected sets that hold \['mu', 'report', 'x'\], .* 'y'\]"):
        pb.train(renamed(), CASE.config, out=tmp_path / "bad", **arguments)
    other = pb.simulators.MultisensoryCausalInference()
    with pytest.raises(
        ValueError, match=r"distillation: expected sets of a network of 'Multi.*', got sets of .* 'Shift'"
    ):
        pb.train(other, CASE.config, out=tmp_path / "bad", **arguments)


def test_distillation_sets_count_for_the_ranges_alone():
    sets, options = Prepared(13), BatchOptions(batch_size=5, trials=(3, 7), context=(0, 3))
    sets[0].data["y"][3] = 77.0
    scales, ranges, _ = standardize(Shift(), options, sets)
    without, narrower, _ = standardize(Shift(), options)
    assert scales == without and ranges["y"].high == 77 and narrower["y"].high < 20


def test_simulated_batches_are_those_of_a_run_without_distillation(tmp_path):
    pytest.importorskip("torch")
    from ppl_buffer.training.options import OptimizationOptions, RunOptions
    from ppl_buffer.training.plan import TrainingPlan

    options = BatchOptions(batch_size=5, trials=(3, 7), context=(0, 3))
    plan = TrainingPlan(
        simulator=Shift(), config=CASE.config, seed=4, batches=options, optimization=OptimizationOptions(steps=9),
        run=RunOptions(tmp_path), distillation=Prepared(13), distillation_share=0.4,
    )  # fmt: skip
    simulated = 0
    for step in range(200):
        batch, plain = plan.batches_of(step)[0].data, make_batch(Shift(), options, 4, step).data
        if batch["conditioned"].any():
            simulated += 1
            np.testing.assert_array_equal(batch["targets"]["outcomes"]["y"], plain["targets"]["outcomes"]["y"])
    assert scipy.stats.binomtest(simulated, 200, 0.6).pvalue > 1e-3
